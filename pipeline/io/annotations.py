"""What each variant does in each gene, which categories make a mask, and external allele frequencies."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.errors import FormatError, suggest
from pipeline.io.delimited import Block, DelimitedFile, decode_strings, parse_numbers, read_lines
from pipeline.io.tables import normalise_chromosomes
from pipeline.io.variant_keys import VariantKeys, encode_labels, find_repeated, join_variant_keys, parse_variant_keys

if TYPE_CHECKING:
    from pipeline.io.gene_sets import GeneSets

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


def read_annotations(path: str | Path, *, weight_names: Sequence[str] = ()) -> Annotations:
    """Read a REGENIE annotation file: ``1:55039839:T:C PCSK9 LoF``, no header.

    With four or more columns, the fourth is a weight when most of it is numbers; otherwise the third is a domain and
    the fourth the category. The columns after the category are weights.

    Args:
        path: the file.
        weight_names: names of the weight columns; ``weight_1``, ``weight_2``, ... when empty.

    Raises:
        FormatError: fewer than 3 columns, a malformed variant, text in a weight, a variant with two categories in one
            gene; names file and line.
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
    keys = _read_keys(block, "1")
    gene = pc.dictionary_encode(block.table["2"].combine_chunks())
    category = pc.dictionary_encode(block.table["4" if has_domain else "3"].combine_chunks())
    annotations = Annotations(
        path=file.path,
        genes=np.array(gene.dictionary.to_pylist(), dtype=object),
        gene_code=np.asarray(gene.indices, dtype=np.int32),
        variant=keys.key,
        categories=tuple(category.dictionary.to_pylist()),
        category=np.asarray(category.indices, dtype=np.int32),
        domain=decode_strings(block.table["3"]) if has_domain else None,
        weights={name: block.numbers(c) for name, c in zip(names, weight_columns, strict=True)},
    )
    _check_one_category(annotations, block)
    return annotations


def _check_one_category(annotations: Annotations, block: Block) -> None:
    """Refuse a variant that has two categories in one gene; a repeated line is harmless."""
    owner = annotations.gene_code.astype(np.int64)
    if find_repeated(owner, annotations.variant) is None:
        return
    first = annotations.find_variant_rows(annotations.genes[owner], annotations.variant)
    for row in np.flatnonzero(annotations.category != annotations.category[first])[:1]:
        words = [annotations.categories[annotations.category[i]] for i in (first[row], row)]
        raise FormatError(
            f"variant {annotations.variant[row]} of gene '{annotations.genes[owner[row]]}' is '{words[0]}' on line "
            f"{block.line(first[row])} and '{words[1]}' on line {block.line(row)}; keep the more severe one",
            path=annotations.path,
        )


def read_masks(path: str | Path, categories: Iterable[str]) -> Masks:
    """Read mask definitions: ``Mask2 LoF,missense``.

    Args:
        path: the file.
        categories: the categories that the annotations define; ``NULL`` (unannotated) is always known.

    Raises:
        FormatError: no category, a mask defined twice, an unknown category (with a suggestion).
    """
    known = sorted(set(categories))
    masks: dict[str, tuple[str, ...]] = {}
    for number, text in read_lines(path):
        name, *words = text.replace(",", " ").split() or [""]
        if not words:
            raise FormatError(
                f"mask '{name}' has no category; expected: name category,category", path=path, line=number
            )
        if name in masks:
            raise FormatError(f"mask '{name}' is defined twice", path=path, line=number)
        for word in words:
            if word not in known and word != UNANNOTATED:
                raise FormatError(_describe_unknown(word, known, Path(path), number))
        masks[name] = tuple(dict.fromkeys(words))
    if not masks:
        raise FormatError("defines no mask", path=path)
    return Masks(Path(path), masks)


def _describe_unknown(word: str, known: Sequence[str], path: Path, line: int) -> str:
    shown = ", ".join(known[:12]) + (", ..." if len(known) > 12 else "")
    hint = suggest(word, known)
    hint = hint if "did you mean" in hint else ""
    return f"unknown mask category '{word}' in {path.name} line {line}; annotations define: {shown}{hint}"


def read_frequencies(path: str | Path) -> Frequencies:
    """Read ALT frequencies: REGENIE (``7:6187101:C:T 1.5e-05 [0|1]``) or plink2 ``.afreq``; told by the first line.

    Raises:
        FormatError: a malformed variant, one that is listed twice, a frequency outside [0, 1]; names file and line.
    """
    _, first = next(read_lines(path), (0, ""))
    if first.startswith("#CHROM"):
        return _read_afreq(path)
    file = DelimitedFile(path, header=False, delimiter=" ")
    if len(file.names) not in (2, 3):
        message = f"expected 2 or 3 fields (variant, frequency, singleton), found {len(file.names)}"
        raise FormatError(message, path=path, line=file.header_line + 1)
    block = file.table()
    key = _read_keys(block, "1").key
    singleton = block.numbers("3") == 1 if len(file.names) == 3 else None
    return Frequencies(file.path, _check_distinct(block, key), _read_fractions(block, "2"), singleton)


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
    if "POS" in file.names:
        position = block.positions("POS", missing=())
    else:
        position = _read_keys(block, "ID", "; write positions with `plink2 --freq cols=+pos`").position
    key = join_variant_keys(normalise_chromosomes(block.table["CHROM"]), position, *alleles)
    return Frequencies(file.path, _check_distinct(block, key), frequency)


def _read_keys(block: Block, column: str, hint: str = "") -> VariantKeys:
    keys = parse_variant_keys(block.table[column])
    for row in keys.malformed[:1]:
        found = block.table[column][int(row)].as_py()
        message = f"variant '{found}' is not chrom:pos:ref:alt{hint}"
        raise FormatError(message, path=block.path, line=block.line(row))
    return keys


def _read_fractions(block: Block, column: str) -> NDArray[np.float64]:
    values = block.numbers(column, missing=())
    for row in np.flatnonzero((values < 0) | (values > 1))[:1]:
        message = f"expected a frequency between 0 and 1, got '{block.table[column][int(row)].as_py()}'"
        raise FormatError(message, path=block.path, line=block.line(row), column=column)
    return values


def _check_distinct(block: Block, key: NDArray[np.object_]) -> NDArray[np.object_]:
    repeated: Any = find_repeated(np.zeros(key.size, np.int64), key)
    if repeated is not None:
        lines = " and ".join(str(block.line(row)) for row in repeated)
        raise FormatError(f"variant {key[repeated[0]]} is on lines {lines}", path=block.path)
    return key
