"""What each variant does in each gene, which categories make a mask, and external allele frequencies."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow.compute as pc
from numpy.typing import NDArray

from locomass.errors import FormatError, suggest
from locomass.files.arrow import decode_strings
from locomass.tables.delimited import Block, DelimitedFile, parse_numbers, read_lines
from locomass.variants.chromosomes import normalise_chromosomes
from locomass.variants.identity import Labels, is_indel
from locomass.variants.keys import Identifiers, encode_labels, find_repeated, join_variant_keys, read_names

if TYPE_CHECKING:
    from locomass.tables.gene_sets import GeneSets

SHOWN = 5  # names that a message gives
log = logging.getLogger("locomass")

#: Category of variants that no annotation names (REGENIE's word).
UNANNOTATED = "NULL"


@dataclass(frozen=True, slots=True)
class Annotations:
    """A rows, one per (gene, variant), dictionary encoded.

    Attributes:
        path: the file.
        genes: (G,) distinct gene names.
        gene_code: (A,) index into ``genes``.
        variant: (A,) keys ``chrom:pos:ref:alt``.
        categories: distinct categories in order of appearance.
        category: (A,) index into ``categories``.
        domain: (A,) domain names, None when the file has none.
        weights: (A,) numeric columns by name, NaN where missing.
    """

    path: Path
    genes: NDArray[np.object_]
    gene_code: NDArray[np.int32]
    variant: NDArray[np.object_]
    categories: tuple[str, ...]
    category: NDArray[np.int32]
    domain: NDArray[np.object_] | None = None
    weights: dict[str, NDArray[np.float64]] = field(default_factory=dict)

    def __len__(self) -> int:
        return int(self.variant.shape[0])

    def find_rows(self, sets: GeneSets) -> NDArray[np.int64]:
        """Return (K,) the row that annotates each of ``sets.variants`` in its gene, -1 where none does."""
        if sets.variants is None:
            raise ValueError("gene regions list no variants; pass keys to find_variant_rows")
        owner = np.repeat(sets.gene, np.diff(sets.offsets))
        return self.find_variant_rows(owner, sets.variants)

    def find_variant_rows(self, gene: NDArray[np.object_], variant: NDArray[np.object_]) -> NDArray[np.int64]:
        """Return (K,) the row of each (gene, variant), -1 where there is none; the first when there are several."""
        gene_a, gene_k = encode_labels(self.genes[self.gene_code], gene)
        variant_a, variant_k = encode_labels(self.variant, variant)
        span = int(max(variant_a.max(initial=0), variant_k.max(initial=0))) + 1
        known, wanted = gene_a * span + variant_a, gene_k * span + variant_k
        order = np.argsort(known, kind="stable")
        place = np.minimum(np.searchsorted(known[order], wanted), max(len(self) - 1, 0))
        rows = order[place] if len(self) else np.zeros(wanted.size, np.int64)
        return np.where(known[rows] == wanted, rows, -1) if len(self) else np.full(wanted.size, -1)


@dataclass(frozen=True, slots=True)
class Masks:
    """Named unions of annotation categories, in file order."""

    path: Path | None
    categories: dict[str, tuple[str, ...]]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the masks."""
        return tuple(self.categories)

    def select(self, annotations: Annotations, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return (M, K): whether mask m takes the variant whose annotation is ``rows[k]`` (-1: unannotated)."""
        words = [*annotations.categories, UNANNOTATED]
        member = np.array([[word in chosen for word in words] for chosen in self.categories.values()], dtype=bool)
        code = np.where(rows < 0, len(words) - 1, annotations.category[np.maximum(rows, 0)])
        return np.asarray(member[:, code], dtype=bool)


@dataclass(frozen=True, slots=True)
class Frequencies:
    """External frequencies of ALT.

    Attributes:
        path: the file.
        variant: (K,) distinct keys ``chrom:pos:ref:alt``.
        frequency: (K,) in [0, 1].
        singleton: (K,) REGENIE's third column, None when absent.
    """

    path: Path
    variant: NDArray[np.object_]
    frequency: NDArray[np.float64]
    singleton: NDArray[np.bool_] | None = None

    def find(self, chromosome: Labels, position: NDArray[np.int64], ref: Labels, alt: Labels) -> NDArray[np.float64]:
        """Return (k,) the ALT frequency of variants, NaN where there is none.

        A substitution that is listed with its alleles swapped has 1 less its frequency, unless it is there as written.
        """
        row, swapped = self._rows(chromosome, position, ref, alt)
        out = np.full(len(row), np.nan)
        out[row >= 0] = self.frequency[row[row >= 0]]
        out[swapped >= 0] = 1 - self.frequency[swapped[swapped >= 0]]
        return out

    def find_singletons(
        self, chromosome: Labels, position: NDArray[np.int64], ref: Labels, alt: Labels
    ) -> NDArray[np.bool_]:
        """Return (k,) which variants the third column calls singletons; variants that are not listed are none.

        Raises:
            FormatError: the file has no third column.
        """
        if self.singleton is None:
            message = "has no third column; expected variant, frequency, and 1 for a singleton or 0"
            raise FormatError(f"{message} (key tests.singletons: external)", path=self.path)
        row = np.maximum(*self._rows(chromosome, position, ref, alt))
        return np.asarray(np.where(row >= 0, self.singleton[row], False), np.bool_)

    def _rows(
        self, chromosome: Labels, position: NDArray[np.int64], ref: Labels, alt: Labels
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return (k,) the row of each variant as written, and that of its alleles swapped; -1 for none."""
        row = pd.Index(self.variant).get_indexer(join_variant_keys(chromosome, position, ref, alt))
        swapped = pd.Index(self.variant).get_indexer(join_variant_keys(chromosome, position, alt, ref))
        swapped[(row >= 0) | is_indel(ref, alt)] = -1
        return row.astype(np.int64), swapped.astype(np.int64)


def read_annotations(
    path: str | Path, *, weight_names: Sequence[str] = (), identifiers: Identifiers | None = None
) -> Annotations:
    """Read a REGENIE annotation file: ``1:55039839:T:C PCSK9 LoF``, no header.

    With four or more columns, the fourth is a weight when most of it is numbers; otherwise the third is a domain and
    the fourth the category. The columns after the category are weights.

    Args:
        path: the file.
        weight_names: names of the weight columns; ``weight_1``, ``weight_2``, ... when empty.
        identifiers: what the fileset calls its variants, for files of identifiers (rsIDs).

    Raises:
        FormatError: fewer than 3 columns, no variant name that can be understood, text in a weight, a variant with two
            categories in one gene; names file and line.
    """
    file = DelimitedFile(path, header=False)
    if len(file.names) < 3:
        message = f"expected at least 3 fields (variant, gene, category), found {len(file.names)}"
        raise FormatError(message, path=path, line=file.header_line + 1)
    block = file.table()
    has_domain = len(file.names) > 3 and parse_numbers(block.table["4"])[1].size > len(block) / 2
    weight_columns = file.names[4 if has_domain else 3 :]
    names = list(weight_names) or [f"weight_{i + 1}" for i in range(len(weight_columns))]
    if len(names) != len(weight_columns):
        message = f"has {len(weight_columns)} weight columns, but {len(names)} names are given: {', '.join(names)}"
        raise FormatError(message, path=path)
    key, kept = _read_keys(block, "1", identifiers)
    gene, category = (pc.dictionary_encode(block.table[c].combine_chunks()) for c in ("2", "4" if has_domain else "3"))
    annotations = Annotations(
        path=file.path,
        genes=np.array(gene.dictionary.to_pylist(), dtype=object),
        gene_code=np.asarray(gene.indices, dtype=np.int32)[kept],
        variant=key,
        categories=tuple(category.dictionary.to_pylist()),
        category=np.asarray(category.indices, dtype=np.int32)[kept],
        domain=decode_strings(block.table["3"])[kept] if has_domain else None,
        weights={name: block.numbers(c)[kept] for name, c in zip(names, weight_columns, strict=True)},
    )
    _check_one_category(annotations, block, kept)
    return annotations


def _check_one_category(annotations: Annotations, block: Block, kept: NDArray[np.int64]) -> None:
    """Refuse a variant that has two categories in one gene; a repeated line is harmless."""
    owner = annotations.gene_code.astype(np.int64)
    if find_repeated(owner, annotations.variant) is None:
        return
    first = annotations.find_variant_rows(annotations.genes[owner], annotations.variant)
    for row in np.flatnonzero(annotations.category != annotations.category[first])[:1]:
        words = [annotations.categories[annotations.category[i]] for i in (first[row], row)]
        raise FormatError(
            f"variant {annotations.variant[row]} of gene '{annotations.genes[owner[row]]}' is '{words[0]}' on line "
            f"{block.line(kept[first[row]])} and '{words[1]}' on line {block.line(kept[row])}; "
            "keep the more severe one",
            path=annotations.path,
        )


def read_masks(path: str | Path, categories: Iterable[str]) -> Masks:
    """Read mask definitions: ``Mask2 LoF,missense``.

    Args:
        path: the file.
        categories: the categories that the annotations define; ``NULL`` (unannotated) is always known.

    A category that no variant has is left out with a warning, a mask that has no other is left out as a whole.

    Raises:
        FormatError: a mask without a category, one defined twice, no mask with a known category (with a suggestion).
    """
    known = sorted(set(categories))
    masks: dict[str, tuple[str, ...]] = {}
    unknown: list[tuple[str, str]] = []
    for number, text in read_lines(path):
        name, *words = text.replace(",", " ").split() or [""]
        if not words:
            raise FormatError(
                f"mask '{name}' has no category; expected: name category,category", path=path, line=number
            )
        if name in masks:
            raise FormatError(f"mask '{name}' is defined twice", path=path, line=number)
        absent = [word for word in words if word not in known and word != UNANNOTATED]
        unknown += [(name, _describe_unknown(word, known, Path(path), number)) for word in absent]
        masks[name] = tuple(dict.fromkeys(word for word in words if word not in absent))
    if not masks:
        raise FormatError("defines no mask", path=path)
    if not any(masks.values()):
        raise FormatError(unknown[0][1])
    for name, message in unknown:
        log.warning("%s; mask %s is %s", message, name, "without it" if masks[name] else "left out")
    return Masks(Path(path), {name: words for name, words in masks.items() if words})


def _describe_unknown(word: str, known: Sequence[str], path: Path, line: int) -> str:
    shown = ", ".join(known[:12]) + (", ..." if len(known) > 12 else "")
    hint = suggest(word, known)
    hint = hint if "did you mean" in hint else ""
    return f"unknown mask category '{word}' in {path.name} line {line}; annotations define: {shown}{hint}"


def read_frequencies(path: str | Path, identifiers: Identifiers | None = None) -> Frequencies:
    """Read ALT frequencies: REGENIE (``7:6187101:C:T 1.5e-05 [0|1]``) or plink2 ``.afreq``; told by the first line.

    Raises:
        FormatError: no variant name that can be understood, a variant with two frequencies (names both lines), a
            frequency outside [0, 1]; names file and line.
    """
    _, first = next(read_lines(path), (0, ""))
    if first.startswith("#CHROM"):
        return _read_afreq(path)
    file = DelimitedFile(path, header=False, delimiter=" ")
    if len(file.names) not in (2, 3):
        message = f"expected 2 or 3 fields (variant, frequency, singleton), found {len(file.names)}"
        raise FormatError(message, path=path, line=file.header_line + 1)
    block = file.table()
    key, kept = _read_keys(block, "1", identifiers)
    singleton = _read_indicators(block, "3")[kept] if len(file.names) == 3 else None
    return _distinct_frequencies(block, kept, key, _read_fractions(block, "2")[kept], singleton)


def _read_afreq(path: str | Path) -> Frequencies:
    file = DelimitedFile(path)
    missing = [name for name in ("CHROM", "ID", "REF", "ALT", "ALT_FREQS") if name not in file.names]
    if missing:
        raise FormatError(f"has no column {', '.join(missing)}", path=path, line=file.header_line)
    block = file.table()
    for row in np.flatnonzero(np.asarray(pc.match_substring(block.table["ALT"], ",")))[:1]:
        message = "has several ALT alleles; split multi-allelic variants first"
        raise FormatError(message, path=path, line=block.line(row), column="ALT")
    frequency = _read_fractions(block, "ALT_FREQS")
    alleles = [pc.utf8_upper(block.table[name].combine_chunks()) for name in ("REF", "ALT")]
    kept = np.arange(len(block))
    if "POS" in file.names:
        position = block.positions("POS", missing=())
    else:
        names = read_names(block.table["ID"]).keys
        for row in names.malformed[:1]:
            message = "is not chrom:pos:ref:alt; write positions with `plink2 --freq cols=+pos`"
            found = block.table["ID"][int(row)].as_py()
            raise FormatError(f"variant '{found}' {message}", path=path, line=block.line(row))
        position = names.position
    key = join_variant_keys(normalise_chromosomes(block.table["CHROM"]), position, *alleles)
    return _distinct_frequencies(block, kept, key, frequency, None)


def _read_keys(
    block: Block, column: str, identifiers: Identifiers | None
) -> tuple[NDArray[np.object_], NDArray[np.int64]]:
    """Return the keys of the names of a column that are understood, and their rows; say which are not.

    Raises:
        FormatError: no name is understood.
    """
    names = read_names(block.table[column], identifiers)
    bad = names.keys.malformed
    if bad.size:
        shown = [f"'{block.table[column][int(k)].as_py()}' (line {block.line(k)})" for k in bad[:SHOWN]]
        if bad.size == len(block):
            message = f"variant {shown[0].split(' (')[0]} is not chrom:pos:ref:alt"
            hint = " nor an identifier of the fileset" if names.asked else " (identifiers need a fileset)"
            raise FormatError(f"no variant can be used; {message}{hint}", path=block.path, line=block.line(bad[0]))
        log.warning(
            "%s: %s of %s variant names are not chrom:pos:ref:alt%s and are left out: %s%s",
            block.path,
            f"{bad.size:,}",
            f"{len(block):,}",
            " nor in the fileset" if names.asked else "",
            ", ".join(shown),
            ", ..." if bad.size > SHOWN else "",
        )
    if names.by_identifier:
        log.info("%s: %s variants are matched by identifier", block.path, f"{names.by_identifier:,}")
    kept = np.setdiff1d(np.arange(len(block)), bad)
    return names.keys.key[kept], kept


def _read_fractions(block: Block, column: str) -> NDArray[np.float64]:
    values = block.numbers(column, missing=())
    for row in np.flatnonzero((values < 0) | (values > 1))[:1]:
        message = f"expected a frequency between 0 and 1, got '{block.table[column][int(row)].as_py()}'"
        raise FormatError(message, path=block.path, line=block.line(row), column=column)
    return values


def _read_indicators(block: Block, column: str) -> NDArray[np.bool_]:
    values = block.numbers(column)
    for row in np.flatnonzero((values != 0) & (values != 1))[:1]:
        message = f"expected 1 (singleton) or 0, got '{block.table[column][int(row)].as_py()}'"
        raise FormatError(message, path=block.path, line=block.line(row), column=column)
    return np.asarray(values == 1)


def _distinct_frequencies(
    block: Block,
    kept: NDArray[np.int64],
    key: NDArray[np.object_],
    frequency: NDArray[np.float64],
    singleton: NDArray[np.bool_] | None,
) -> Frequencies:
    """Return the frequencies, each variant once; refuse a variant that is listed with two of them."""
    first, inverse = np.unique(encode_labels(key)[0], return_index=True, return_inverse=True)[1:]
    differ = frequency != frequency[first][inverse]
    if singleton is not None:
        differ |= singleton != singleton[first][inverse]
    for row in np.flatnonzero(differ)[:1]:
        one, two = block.line(kept[first[inverse[row]]]), block.line(kept[row])
        message = f"variant {key[row]} is on lines {one} and {two} with different frequencies; keep one"
        raise FormatError(message, path=block.path)
    order = np.sort(first)
    return Frequencies(block.path, key[order], frequency[order], None if singleton is None else singleton[order])
