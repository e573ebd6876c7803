"""What the exchange formats share: what an import is given, which genes a variant is in, how numbers are written."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

import numpy as np
import pandas as pd
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.align import sort_alleles
from pipeline.errors import FormatError, InputError, MatchError
from pipeline.io.atomic import atomic_path
from pipeline.io.bundle import Bundle, StudyGene
from pipeline.io.delimited import Block, parse_numbers, read_lines
from pipeline.io.gene_sets import GeneSets, read_sets
from pipeline.io.variant_keys import parse_variant_keys

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Labels = NDArray[np.object_]
WITHHELD = -1  # genotype count that is not known


@dataclass(frozen=True)
class ImportRequest:
    """What to read, and what the files do not say.

    Attributes:
        scores: file of single-variant statistics.
        covariance: file (or prefix) of covariances, where the format keeps them apart.
        reference: PLINK fileset with the linkage disequilibrium, for REGENIE.
        sets: REGENIE set list: genes and their variants (for MASS also the alleles).
        trait: name of the trait; kind: ``quantitative`` or ``binary``.
        n_samples, n_cases: where the files do not hold them, or to override them.
    """

    scores: Path
    covariance: Path | None = None
    reference: Path | None = None
    sets: Path | None = None
    trait: str = "y"
    kind: str = "quantitative"
    n_samples: int | None = None
    n_cases: int | None = None

    def need(self, name: str, meaning: str) -> Path:
        """Return a file of the request.

        Raises:
            InputError: it was not given.
        """
        path: Path | None = getattr(self, name)
        if path is None:
            raise InputError(f"this format needs --{name}: {meaning}")
        return path


@dataclass(frozen=True)
class Membership:
    """A gene and its variants, as rows of a study's variant arrays, in increasing order."""

    gene: str
    chromosome: str
    start: int
    end: int
    variant: Integers


def find_variants(
    wanted: tuple[Labels, Integers, Labels, Labels], known: tuple[Labels, Integers, Labels, Labels], what: str
) -> tuple[Integers, NDArray[np.bool_]]:
    """Find variants by chromosome, position and alleles, in either order.

    Args:
        wanted, known: chromosome, position, ref, alt.
        what: name of the file of the known ones, for errors.

    Returns:
        (k,) row among the known, -1 where absent; (k,) whether the alleles are swapped there.

    Raises:
        MatchError: a known variant stands twice.
    """
    index, columns = [], []
    for chromosome, position, ref, alt in (wanted, known):
        low, high = sort_alleles(ref, alt)
        index.append(pd.MultiIndex.from_arrays([chromosome.astype(object), position, low, high]))
        columns.append(alt)
    if index[1].has_duplicates:
        key = index[1][index[1].duplicated()][0]
        raise MatchError(f"{what}: variant {key[0]}:{key[1]}:{key[2]}:{key[3]} stands twice; keep one line of it")
    row = index[1].get_indexer(index[0]).astype(np.int64)
    swapped = (row >= 0) & (columns[0] != columns[1][np.maximum(row, 0)]) if len(known[1]) else row >= 0
    return row, swapped


def split_keys(keys: Labels) -> tuple[Labels, Integers, Labels, Labels]:
    """Return chromosome, position, ref, alt of well-formed keys ``chrom:pos:ref:alt``."""
    parts = [key.split(":") for key in keys.tolist()]
    chromosome, ref, alt = (np.array([p[i] for p in parts], object) for i in (0, 2, 3))
    return chromosome, np.array([int(p[1]) for p in parts], np.int64), ref, alt


def match_genes(
    path: Path, chromosome: Labels, position: Integers, ref: Labels, alt: Labels, what: str
) -> list[Membership]:
    """Return the genes of a set list that have a variant among those given.

    Raises:
        MatchError: no listed variant is among them.
    """
    sets: GeneSets = read_sets(path)
    assert sets.variants is not None
    row, _ = find_variants(split_keys(sets.variants), (chromosome, position, ref, alt), what)
    if not np.any(row >= 0):
        raise MatchError(
            f"none of the {len(row):,} variants of {path} (such as {sets.variants[0]}) is in {what} (such as "
            f"{chromosome[0]}:{position[0]}:{ref[0]}:{alt[0]}); are genome builds and allele names the same?"
        )
    out = []
    for i in range(len(sets)):
        rows = row[sets.offsets[i] : sets.offsets[i + 1]]
        rows = np.unique(rows[rows >= 0])
        if len(rows):
            end = max(int(sets.end[i]), int(position[rows].max()))
            out.append(Membership(sets.gene[i], sets.chromosome[i], int(sets.start[i]), end, rows))
    return out


def read_alleles(path: Path) -> dict[tuple[str, int], list[tuple[str, str]]]:
    """Return (chromosome, position) -> [(ref, alt), ...] from a set list, or from one variant name per line.

    Raises:
        FormatError: a line that is neither.
    """
    first = next((text.split() for _, text in read_lines(path)), [])
    if len(first) == 1:
        numbered = [(number, text.strip()) for number, text in read_lines(path)]
        parsed = parse_variant_keys([text for _, text in numbered])
        for row in parsed.malformed[:1]:
            raise FormatError(f"'{numbered[row][1]}' is not chrom:pos:ref:alt", path=path, line=numbered[row][0])
        keys = parsed.key
    else:
        variants = read_sets(path).variants
        assert variants is not None
        keys = variants
    out: dict[tuple[str, int], list[tuple[str, str]]] = {}
    for chromosome, position, ref, alt in zip(*split_keys(np.unique(keys.astype(str)).astype(object)), strict=True):
        out.setdefault((chromosome, int(position)), []).append((ref, alt))
    return out


def read_first_numbers(block: Block, name: str) -> Floats:
    """Return a column of numbers, NaN where missing; of rvtests' ``all:cases:controls`` the first.

    Raises:
        FormatError: a text that is no number.
    """
    values, bad = parse_numbers(pc.list_element(pc.split_pattern(block.table[name], ":"), 0))
    for row in bad[:1]:
        message = f"expected a number, got '{block.table[name][int(row)].as_py()}'"
        raise FormatError(message, path=block.path, line=block.line(row), column=name)
    return values


def read_counts(block: Block, names: tuple[str, str, str]) -> tuple[Integers, Integers, Integers]:
    """Return n_ref, n_het, n_alt of a table; all three `WITHHELD` where one is missing or negative."""
    columns = [read_first_numbers(block, name) for name in names]
    known = np.all([np.isfinite(c) & (c >= 0) for c in columns], axis=0)
    n_ref, n_het, n_alt = (np.where(known, np.nan_to_num(c), WITHHELD).astype(np.int64) for c in columns)
    return n_ref, n_het, n_alt


def frequency_from_counts(n_ref: Integers, n_het: Integers, n_alt: Integers, otherwise: Floats) -> Floats:
    """Return the ALT frequency that genotype counts give, ``otherwise`` where they are withheld, NaN without calls."""
    n_obs = n_ref + n_het + n_alt
    with np.errstate(invalid="ignore", divide="ignore"):
        counted = (n_het + 2 * n_alt) / (2 * n_obs)
    return np.where(n_ref == WITHHELD, otherwise, counted)


@contextmanager
def write_text(path: Path) -> Iterator[IO[bytes]]:
    """Open a text file for atomic writing, gzipped when the name ends in .gz."""
    with atomic_path(path) as temporary, open(temporary, "wb") as raw:
        if path.suffix == ".gz":
            with gzip.GzipFile(filename="", mode="wb", fileobj=raw, compresslevel=6, mtime=0) as handle:
                yield cast(IO[bytes], handle)
        else:
            yield raw


def number(value: float) -> str:
    """Return a number with the 17 digits that give the same double back; NA when not finite."""
    return f"{value:.17g}" if np.isfinite(value) else "NA"


def count(value: int) -> str:
    """Return a genotype count; NA when withheld."""
    return str(int(value)) if value >= 0 else "NA"


@dataclass(frozen=True)
class ExportedGene:
    """One gene of a bundle on our scale: rows of variants.parquet, U and V of one trait."""

    gene: str
    chromosome: str
    variant: Integers
    study_gene: StudyGene
    V: Floats


def find_trait(bundle: Bundle, trait: str | None) -> str:
    """Return the trait to export.

    Raises:
        InputError: the bundle has no such trait, or several and none was named.
    """
    names = list(bundle.traits)
    if trait is None and len(names) == 1:
        return names[0]
    if trait not in names:
        raise InputError(f"{bundle.path}: which trait? give --trait, one of {', '.join(names)}")
    return trait


def iterate_genes(bundle: Bundle, trait: str) -> Iterator[ExportedGene]:
    """Give every gene of a bundle with V of one trait, part by part; genes without statistics are left out."""
    table = bundle.variants
    labels = zip(*(table.column(c).to_pylist() for c in ("chromosome", "position", "ref", "alt")), strict=True)
    rows = {key: row for row, key in enumerate(labels)}
    parts: dict[str, list[str]] = {}
    for gene, (part, _) in bundle.index.items():
        parts.setdefault(part, []).append(gene)
    for genes in parts.values():
        for gene, found in bundle.read_genes(genes).items():
            if not len(found.position):
                continue
            chromosome = bundle.index[gene][1]
            keys = zip(found.position.tolist(), found.ref.tolist(), found.alt.tolist(), strict=True)
            variant = np.array([rows[(chromosome, *key)] for key in keys], np.int64)
            V = bundle.information(found, trait) / bundle.sigma2(trait, chromosome)
            yield ExportedGene(gene, chromosome, variant, found, V)
