"""Which variants belong to which gene: REGENIE set lists, SAIGE and EPACTS group files, BED regions.

Everything is columnar, so that 20,000 genes with a million variants are a handful of arrays. Variants are named by the
key ``chrom:pos:ref:alt`` (chromosome normalised, alleles upper-case), or by an identifier of the fileset, for which the
key is put. A name that is neither costs that name: it is counted, and the log shows it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from locomass.errors import FormatError
from locomass.tables.annotations import Annotations
from locomass.tables.delimited import DelimitedFile, parse_numbers, read_lines
from locomass.variants.chromosomes import normalise_chromosomes
from locomass.variants.keys import Identifiers, ListedNames, encode_labels, read_names

SHOWN = 5  # names that a message gives
log = logging.getLogger("locomass")


@dataclass(frozen=True, slots=True)
class GeneSet:
    """One gene; ``variants`` is None for a region (every variant with start <= position <= end)."""

    gene: str
    chromosome: str
    start: int
    end: int
    variants: NDArray[np.object_] | None


@dataclass(frozen=True, slots=True)
class GeneSets:
    """G genes with K variants in all, in file order.

    Attributes:
        path: the file.
        gene: (G,) distinct names.
        chromosome: (G,) labels.
        start: (G,) first position, 1-based (as written in a set list; the smallest position in group files).
        end: (G,) last position, 1-based and inclusive.
        offsets: (G + 1,) the variants of gene i are ``variants[offsets[i]:offsets[i + 1]]``; zeros for regions.
        variants: (K,) keys ``chrom:pos:ref:alt``, distinct within a gene; None for regions.
        line: (G,) line number of each gene.
    """

    path: Path
    gene: NDArray[np.object_]
    chromosome: NDArray[np.object_]
    start: NDArray[np.int64]
    end: NDArray[np.int64]
    offsets: NDArray[np.int64]
    variants: NDArray[np.object_] | None
    line: NDArray[np.int64]

    def __len__(self) -> int:
        return int(self.gene.shape[0])

    def __getitem__(self, i: int) -> GeneSet:
        keys = None if self.variants is None else self.variants[self.offsets[i] : self.offsets[i + 1]]
        return GeneSet(self.gene[i], self.chromosome[i], int(self.start[i]), int(self.end[i]), keys)

    def __iter__(self) -> Iterator[GeneSet]:
        return (self[i] for i in range(len(self)))


def read_sets(path: str | Path, identifiers: Identifiers | None = None) -> GeneSets:
    """Read a REGENIE set list: ``A1BG 19 58346922 19:58346922:C:A,19:58346924:G:A``.

    Args:
        path: the file.
        identifiers: what the fileset calls its variants, for lists of identifiers (rsIDs).

    Raises:
        FormatError: a gene twice, an empty set, a start that is no position, a variant on another chromosome than its
            gene, no name that can be understood; names file and line.
    """
    file = DelimitedFile(path, header=False, delimiter=" ")
    if len(file.names) != 4:
        message = f"expected 4 fields (gene, chromosome, start, variants joined by commas), found {len(file.names)}"
        raise FormatError(message, path=path, line=file.header_line + 1)
    block = file.table()
    lines = block.lines()
    texts = pc.utf8_trim(block.table["4"], ",")
    for row in np.flatnonzero(np.asarray(pc.equal(texts, "")))[:1]:
        _refuse_empty(block.table["1"][int(row)].as_py(), file.path, lines[row])
    lists = pc.split_pattern(texts, ",").combine_chunks()
    offsets = np.asarray(lists.offsets, dtype=np.int64)
    offsets -= offsets[0]
    start = _read_positions(block.table["3"], file.path, lines, "start")
    chromosome = normalise_chromosomes(block.table["2"])
    genes = block.table["1"].to_pylist()
    return _assemble(
        path=file.path,
        genes=genes,
        line=lines,
        variants=lists.flatten(),
        offsets=offsets,
        identifiers=identifiers,
        chromosome=chromosome,
        start=start,
    )[0]


def read_regions(path: str | Path) -> GeneSets:
    """Read gene regions from BED: ``chrom start end gene``, 0-based and half-open; further columns are ignored.

    A variant at position p belongs to a gene when ``start < p <= end``; the result holds ``start + 1`` and ``end``.

    Raises:
        FormatError: fewer than 4 fields, positions that are no numbers, an empty region, a gene on two lines.
    """
    rows, lines = [], []
    for number, text in read_lines(path):
        if text.startswith(("#", "track", "browser")):
            continue
        fields = text.split()
        if len(fields) < 4:
            message = f"expected 4 fields (chrom, start, end, gene), found {len(fields)}"
            raise FormatError(message, path=path, line=number)
        rows.append(fields[:4])
        lines.append(number)
    if not rows:
        raise FormatError("holds no region", path=path)
    chromosome, low, high, gene = (list(column) for column in zip(*rows, strict=True))
    line = np.array(lines, dtype=np.int64)
    start = _read_positions(pa.array(low), Path(path), line, "start", least=0) + 1
    end = _read_positions(pa.array(high), Path(path), line, "end", least=0)
    for i in np.flatnonzero(end < start)[:1]:
        message = f"region of gene '{gene[i]}' is empty: start {low[i]} is not below end {high[i]}"
        raise FormatError(message, path=path, line=int(line[i]))
    names = _check_genes(gene, line, Path(path))
    offsets = np.zeros(len(gene) + 1, dtype=np.int64)
    return GeneSets(
        path=Path(path),
        gene=names,
        chromosome=normalise_chromosomes(chromosome),
        start=start,
        end=end,
        offsets=offsets,
        variants=None,
        line=line,
    )


def read_groups(path: str | Path, identifiers: Identifiers | None = None) -> tuple[GeneSets, Annotations | None]:
    """Read a group file of SAIGE (with its annotations and weights) or of EPACTS / rvtests (None); told by its lines.

    SAIGE: ``GENE1 var 1:1:A:C 1:2:A:C``, then ``GENE1 anno lof missense`` and, when there are weights,
    ``GENE1 weight 7.8 3.9``. EPACTS: ``GENE 22:16150801_T/A 22:16150812_G/C``.

    Raises:
        FormatError: as ``read_sets``; annotations or weights whose number differs from that of the variants.
    """
    fields = [(number, text.split()) for number, text in read_lines(path)]
    if not fields:
        raise FormatError("holds no gene", path=path)
    if len(fields[0][1]) > 1 and fields[0][1][1] == "var":
        return _read_saige(Path(path), fields, identifiers)
    genes = [words[0] for _, words in fields]
    lines = np.array([number for number, _ in fields], dtype=np.int64)
    return _from_lists(Path(path), genes, lines, [words[1:] for _, words in fields], identifiers)[0], None


def _read_saige(
    path: Path, fields: Sequence[tuple[int, list[str]]], identifiers: Identifiers | None
) -> tuple[GeneSets, Annotations]:
    genes: list[str] = []
    parts: dict[str, list[list[str]]] = {"var": [], "anno": [], "weight": []}
    lines: list[int] = []
    for number, words in fields:
        gene, kind = words[0], words[1] if len(words) > 1 else ""
        if kind not in parts:
            message = f"expected 'var', 'anno' or 'weight' after the gene, got '{kind}'"
            raise FormatError(message, path=path, line=number, column=2)
        if kind == "var":
            _check_complete(path, genes, parts, lines)
            genes.append(gene)
            lines.append(number)
        elif not genes or gene != genes[-1] or len(parts[kind]) >= len(genes):
            message = f"'{kind}' of gene '{gene}' must follow the 'var' line of that gene, once"
            raise FormatError(message, path=path, line=number)
        elif len(words) - 2 != len(parts["var"][-1]):
            message = f"gene '{gene}' has {len(parts['var'][-1])} variants but {len(words) - 2} entries of '{kind}'"
            raise FormatError(message, path=path, line=number)
        parts[kind].append(words[2:])
        if kind == "weight":
            _check_weights(path, gene, words[2:], number)
    _check_complete(path, genes, parts, lines)
    line = np.array(lines, dtype=np.int64)
    sets, kept = _from_lists(path, genes, line, parts["var"], identifiers)
    return sets, _annotate_saige(path, sets, parts, kept)


def _check_weights(path: Path, gene: str, words: list[str], line: int) -> None:
    values, bad = parse_numbers(pa.array(words, pa.string()), missing=())
    for i in [*bad, *np.flatnonzero(np.isinf(values))][:1]:
        raise FormatError(f"expected a weight for gene '{gene}', got '{words[i]}'", path=path, line=line)


def _check_complete(path: Path, genes: list[str], parts: dict[str, list[list[str]]], lines: list[int]) -> None:
    if len(parts["anno"]) < len(genes):
        raise FormatError(f"gene '{genes[-1]}' has no 'anno' line", path=path, line=lines[-1])
    if parts["weight"] and len(parts["weight"]) < len(genes):
        raise FormatError(f"gene '{genes[-1]}' has no 'weight' line, although others have", path=path, line=lines[-1])


def _annotate_saige(
    path: Path, sets: GeneSets, parts: dict[str, list[list[str]]], kept: NDArray[np.int64]
) -> Annotations:
    """Return the annotations of the variants of the sets, which are the names ``kept`` of the file."""
    words = {kind: np.array([word for words in parts[kind] for word in words], object) for kind in ("anno", "weight")}
    category = pc.dictionary_encode(pa.array(words["anno"][kept], pa.string()))
    weights: dict[str, NDArray[np.float64]] = {}
    if parts["weight"]:
        weights["weight_1"] = words["weight"][kept].astype(np.float64)
    gene_code = np.repeat(np.arange(len(sets), dtype=np.int32), np.diff(sets.offsets))
    assert sets.variants is not None
    return Annotations(
        path=path,
        genes=sets.gene,
        gene_code=gene_code,
        variant=sets.variants,
        categories=tuple(category.dictionary.to_pylist()),
        category=np.asarray(category.indices, dtype=np.int32),
        domain=None,
        weights=weights,
    )


def _from_lists(
    path: Path,
    genes: list[str],
    lines: NDArray[np.int64],
    variants: list[list[str]],
    identifiers: Identifiers | None,
) -> tuple[GeneSets, NDArray[np.int64]]:
    offsets = np.concatenate([[0], np.cumsum([len(words) for words in variants])]).astype(np.int64)
    names = pa.array([v for words in variants for v in words], pa.string())
    return _assemble(path, genes, lines, names, offsets, identifiers)


def _assemble(
    path: Path,
    genes: list[str],
    line: NDArray[np.int64],
    variants: Any,
    offsets: NDArray[np.int64],
    identifiers: Identifiers | None,
    chromosome: NDArray[np.object_] | None = None,
    start: NDArray[np.int64] | None = None,
) -> tuple[GeneSets, NDArray[np.int64]]:
    """Check G genes with K raw variant names and return them; chromosome and start default to the variants' own.

    Returns:
        The genes that have a variant, and the numbers of the names that are their variants: understood, and the first
        of its kind in the gene.
    """
    gene = _check_genes(genes, line, path)
    for i in np.flatnonzero(np.diff(offsets) == 0)[:1]:
        _refuse_empty(gene[i], path, line[i])
    owner = np.repeat(np.arange(gene.size), np.diff(offsets))
    names = read_names(variants, identifiers)
    keys = names.keys
    kept = _keep_names(path, variants, names, gene[owner], line[owner], owner)
    counts = np.bincount(owner[kept], minlength=gene.size)
    there = np.flatnonzero(counts)
    if there.size < gene.size:
        lost = gene[counts == 0]
        log.warning("%s: %s genes have no variant left and are left out: %s", path, f"{lost.size:,}", _some(lost))
    offsets = np.concatenate([[0], np.cumsum(counts[there])]).astype(np.int64)
    key, position, own = keys.key[kept], keys.position[kept], keys.chromosome[kept]
    owner = np.repeat(np.arange(there.size), counts[there])
    chromosome = own[offsets[:-1]] if chromosome is None else chromosome[there]
    for k in np.flatnonzero(own != chromosome[owner])[:1]:
        i = owner[k]
        message = f"gene '{gene[there][i]}' is on chromosome {chromosome[i]}, but its variant {key[k]} is not"
        raise FormatError(message, path=path, line=int(line[there][i]))
    start = np.minimum.reduceat(position, offsets[:-1]) if start is None else start[there]
    end = np.maximum.reduceat(position, offsets[:-1])
    return GeneSets(
        path=path,
        gene=gene[there],
        chromosome=chromosome,
        start=start,
        end=end,
        offsets=offsets,
        variants=key,
        line=line[there],
    ), kept


def _keep_names(
    path: Path,
    variants: Any,
    names: ListedNames,
    gene: NDArray[np.object_],
    line: NDArray[np.int64],
    owner: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Return the names that are understood, each variant of a gene once; say in the log what is left out.

    Raises:
        FormatError: no name is understood; names the first.
    """
    bad = names.keys.malformed
    shown = [f"'{variants[int(k)].as_py()}' of gene '{gene[k]}' (line {line[k]})" for k in bad[:SHOWN]]
    if bad.size == len(owner):
        hint = "nor an identifier of the fileset" if names.asked else "(identifiers need a fileset)"
        message = f"variant '{variants[0].as_py()}' of gene '{gene[0]}' is not chrom:pos:ref:alt {hint}"
        raise FormatError(f"no variant can be used; {message}", path=path, line=int(line[0]))
    if bad.size:
        log.warning(
            "%s: %s of %s variant names are not chrom:pos:ref:alt%s and are left out: %s%s",
            path,
            f"{bad.size:,}",
            f"{len(owner):,}",
            " nor in the fileset" if names.asked else "",
            ", ".join(shown),
            ", ..." if bad.size > SHOWN else "",
        )
    if names.by_identifier:
        log.info("%s: %s variants are matched by identifier", path, f"{names.by_identifier:,}")
    good = np.setdiff1d(np.arange(len(owner)), bad)
    (code,) = encode_labels(names.keys.key[good])
    _, first = np.unique(owner[good] * (int(code.max(initial=0)) + 1) + code, return_index=True)
    if first.size < good.size:
        log.info("%s: %s names are listed twice in their gene and count once", path, f"{good.size - first.size:,}")
    return np.asarray(good[np.sort(first)], np.int64)


def _some(names: NDArray[np.object_]) -> str:
    """Return the first few of some names as text."""
    return ", ".join(map(str, names[:SHOWN])) + (", ..." if len(names) > SHOWN else "")


def _refuse_empty(gene: str, path: Path, line: int) -> NoReturn:
    raise FormatError(f"gene '{gene}' has no variants; remove the line", path=path, line=int(line))


def _check_genes(genes: list[str], line: NDArray[np.int64], path: Path) -> NDArray[np.object_]:
    seen: dict[str, int] = {}
    for gene, number in zip(genes, line.tolist(), strict=True):
        if seen.setdefault(gene, number) != number:
            message = f"gene '{gene}' is on lines {seen[gene]} and {number}; merge them or rename one"
            raise FormatError(message, path=path)
    return np.array(genes, dtype=object)


def _read_positions(column: Any, path: Path, line: NDArray[np.int64], name: str, least: int = 1) -> NDArray[np.int64]:
    good = np.asarray(pc.match_substring_regex(column, "^[0-9]{1,10}$"))
    values = np.asarray(pc.cast(pc.if_else(pa.array(good), column, "-1"), pa.int64()), dtype=np.int64)
    for row in np.flatnonzero(values < least)[:1]:
        message = f"expected a position, got '{column[int(row)].as_py()}'"
        raise FormatError(message, path=path, line=int(line[row]), column=name)
    return values
