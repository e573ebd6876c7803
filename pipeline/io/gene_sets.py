"""Which variants belong to which gene: REGENIE set lists, SAIGE and EPACTS group files, BED regions.

Everything is columnar, so that 20,000 genes with a million variants are a handful of arrays. Variants are named by the
key ``chrom:pos:ref:alt`` (chromosome normalised, alleles upper-case); ``_`` and ``/`` are accepted as separators.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.errors import FormatError
from pipeline.io.annotations import Annotations
from pipeline.io.delimited import DelimitedFile, parse_numbers, read_lines
from pipeline.io.tables import normalise_chromosomes
from pipeline.io.variant_keys import find_repeated, parse_variant_keys


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


def read_sets(path: str | Path) -> GeneSets:
    """Read a REGENIE set list: ``A1BG 19 58346922 19:58346922:C:A,19:58346924:G:A``.

    Raises:
        FormatError: a gene twice, a malformed or repeated variant, an empty set, a start that is no position, a
            variant on another chromosome than its gene; names file and line.
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
    return _assemble(file.path, block.table["1"].to_pylist(), lines, lists.flatten(), offsets, chromosome, start)


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
    return GeneSets(Path(path), names, normalise_chromosomes(chromosome), start, end, offsets, None, line)


def read_groups(path: str | Path) -> tuple[GeneSets, Annotations | None]:
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
        return _read_saige(Path(path), fields)
    genes = [words[0] for _, words in fields]
    lines = np.array([number for number, _ in fields], dtype=np.int64)
    return _from_lists(Path(path), genes, lines, [words[1:] for _, words in fields]), None


def _read_saige(path: Path, fields: Sequence[tuple[int, list[str]]]) -> tuple[GeneSets, Annotations]:
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
    sets = _from_lists(path, genes, line, parts["var"])
    return sets, _annotate_saige(path, sets, parts)


def _check_weights(path: Path, gene: str, words: list[str], line: int) -> None:
    values, bad = parse_numbers(pa.array(words, pa.string()), missing=())
    for i in [*bad, *np.flatnonzero(np.isinf(values))][:1]:
        raise FormatError(f"expected a weight for gene '{gene}', got '{words[i]}'", path=path, line=line)


def _check_complete(path: Path, genes: list[str], parts: dict[str, list[list[str]]], lines: list[int]) -> None:
    if len(parts["anno"]) < len(genes):
        raise FormatError(f"gene '{genes[-1]}' has no 'anno' line", path=path, line=lines[-1])
    if parts["weight"] and len(parts["weight"]) < len(genes):
        raise FormatError(f"gene '{genes[-1]}' has no 'weight' line, although others have", path=path, line=lines[-1])


def _annotate_saige(path: Path, sets: GeneSets, parts: dict[str, list[list[str]]]) -> Annotations:
    category = pc.dictionary_encode(pa.array([word for words in parts["anno"] for word in words]))
    weights: dict[str, NDArray[np.float64]] = {}
    if parts["weight"]:
        weights["weight_1"] = np.array([float(word) for words in parts["weight"] for word in words])
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


def _from_lists(path: Path, genes: list[str], lines: NDArray[np.int64], variants: list[list[str]]) -> GeneSets:
    offsets = np.concatenate([[0], np.cumsum([len(words) for words in variants])]).astype(np.int64)
    return _assemble(path, genes, lines, pa.array([v for words in variants for v in words], pa.string()), offsets)


def _assemble(
    path: Path,
    genes: list[str],
    line: NDArray[np.int64],
    variants: Any,
    offsets: NDArray[np.int64],
    chromosome: NDArray[np.object_] | None = None,
    start: NDArray[np.int64] | None = None,
) -> GeneSets:
    """Check G genes with K raw variant names and return them; chromosome and start default to the variants' own."""
    gene = _check_genes(genes, line, path)
    for i in np.flatnonzero(np.diff(offsets) == 0)[:1]:
        _refuse_empty(gene[i], path, line[i])
    owner = np.repeat(np.arange(gene.size), np.diff(offsets))
    keys = parse_variant_keys(variants)
    for k in keys.malformed[:1]:
        message = f"variant '{variants[int(k)].as_py()}' of gene '{gene[owner[k]]}' is not chrom:pos:ref:alt"
        raise FormatError(message, path=path, line=int(line[owner[k]]))
    chromosome = keys.chromosome[offsets[:-1]] if chromosome is None else chromosome
    for k in np.flatnonzero(keys.chromosome != chromosome[owner])[:1]:
        i = owner[k]
        message = f"gene '{gene[i]}' is on chromosome {chromosome[i]}, but its variant {keys.key[k]} is not"
        raise FormatError(message, path=path, line=int(line[i]))
    repeated = find_repeated(owner, keys.key)
    if repeated is not None:
        i = owner[repeated[1]]
        message = f"variant {keys.key[repeated[1]]} is listed twice in gene '{gene[i]}'"
        raise FormatError(message, path=path, line=int(line[i]))
    start = np.minimum.reduceat(keys.position, offsets[:-1]) if start is None else start
    end = np.maximum.reduceat(keys.position, offsets[:-1])
    return GeneSets(path, gene, chromosome, start, end, offsets, keys.key, line)


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
