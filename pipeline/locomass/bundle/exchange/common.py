"""What the exchange formats share: what an import is given, which genes a variant is in, how numbers are written."""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

import numpy as np
import pandas as pd
import pyarrow.compute as pc
from numpy.typing import NDArray

from locomass.bundle.study import Bundle, StudyGene
from locomass.errors import FormatError, InputError, MatchError
from locomass.files.atomic import atomic_path
from locomass.numbers import Floats
from locomass.tables.delimited import Block, parse_numbers, read_lines
from locomass.tables.gene_sets import GeneSets, read_groups, read_sets
from locomass.variants.identity import canonical_alleles, name_unseen, number_places
from locomass.variants.keys import parse_variant_keys

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
        expected: ALT frequencies that the study's are compared with (REGENIE's file or PLINK 2 .afreq).
    """

    scores: Path
    covariance: Path | None = None
    reference: Path | None = None
    sets: Path | None = None
    trait: str = "y"
    kind: str = "quantitative"
    n_samples: int | None = None
    n_cases: int | None = None
    expected: Path | None = None

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
    """Find variants by the rule of `variants.identity`; both sides know REF.

    Args:
        wanted, known: chromosome, position, ref, alt.
        what: name of the file of the known ones, for errors.

    Returns:
        (k,) row among the known, -1 where absent; (k,) whether the alleles are swapped there.

    Raises:
        MatchError: a known variant is listed twice.
    """
    chromosome, position, ref, alt = (np.concatenate(pair).astype(object) for pair in zip(known, wanted, strict=True))
    owner = np.repeat([0, 1], [len(known[1]), len(wanted[1])])
    ref, alt = name_unseen(number_places(chromosome, position.astype(np.int64)), ref, alt, owner)
    every = pd.MultiIndex.from_arrays([chromosome, position, *canonical_alleles(ref, alt)])
    index, columns = [every[owner == 1], every[owner == 0]], [alt[owner == 1], alt[owner == 0]]
    if index[1].has_duplicates:
        key = index[1][index[1].duplicated()][0]
        raise MatchError(f"{what}: variant {key[0]}:{key[1]}:{key[2]}:{key[3]} is listed twice; keep one line of it")
    row = index[1].get_indexer(index[0]).astype(np.int64)
    swapped = (row >= 0) & (columns[0] != columns[1][np.maximum(row, 0)]) if len(known[1]) else row >= 0
    return row, swapped


def split_keys(keys: Labels) -> tuple[Labels, Integers, Labels, Labels]:
    """Return chromosome, position, ref, alt of well-formed keys ``chrom:pos:ref:alt``."""
    parts = [key.split(":") for key in keys.tolist()]
    chromosome, ref, alt = (np.array([p[i] for p in parts], object) for i in (0, 2, 3))
    return chromosome, np.array([int(p[1]) for p in parts], np.int64), ref, alt


def read_gene_list(path: Path) -> GeneSets:
    """Read the genes and their variants: a REGENIE set list, or a group file of RAREMETAL, EPACTS, rvtests or SAIGE.

    Raises:
        FormatError: see `read_sets` and `read_groups`.
    """
    first = next((text.split() for _, text in read_lines(path)), [])
    is_set_list = len(first) == 4 and first[2].isdigit() and first[1] != "var"
    return read_sets(path) if is_set_list else read_groups(path)[0]


def listed_variants(sets: GeneSets) -> tuple[Labels, Integers, Labels, Labels]:
    """Return chromosome, position, ref, alt of the variants of a set list, gene by gene."""
    assert sets.variants is not None
    return split_keys(sets.variants)


def match_genes(
    sets: GeneSets, known: tuple[Labels, Integers, Labels, Labels], what: str
) -> tuple[list[Membership], list[str]]:
    """Return the genes of a set list that have a variant among those given, and what matched and what not.

    Args:
        sets: the genes.
        known: chromosome, position, ref, alt of the study's variants.
        what: name of the study's file.
    """
    wanted = listed_variants(sets)
    row, _ = find_variants(wanted, known, what)
    out = []
    for i in range(len(sets)):
        rows = row[sets.offsets[i] : sets.offsets[i + 1]]
        rows = np.unique(rows[rows >= 0])
        if len(rows):
            end = max(int(sets.end[i]), int(known[1][rows].max()))
            out.append(Membership(sets.gene[i], sets.chromosome[i], int(sets.start[i]), end, rows))
    return out, _describe_match(sets, wanted, row, known, len(out), what)


def _describe_match(
    sets: GeneSets,
    wanted: tuple[Labels, Integers, Labels, Labels],
    row: Integers,
    known: tuple[Labels, Integers, Labels, Labels],
    n_genes: int,
    what: str,
) -> list[str]:
    """Return the lines of an import about genes and variants: how many met, and why the others did not."""
    found, n = row >= 0, len(row)
    outside = len(known[1]) - len(np.unique(row[found]))
    notes = [
        f"genes: {n_genes:,} of {len(sets):,} have a variant in {what}; {int(found.sum()):,} of {n:,} listed found"
    ]
    if not found.all():
        here = set(zip(known[0], known[1].tolist(), strict=True))
        near = np.array([key in here for key in zip(wanted[0], wanted[1].tolist(), strict=True)]) & ~found
        for which, reason in ((~found & ~near, "no variant at the position"), (near, "other alleles at the position")):
            for k in np.flatnonzero(which)[:1]:
                name = ":".join(str(column[k]) for column in wanted)
                notes.append(f"listed but not in {what}: {int(which.sum()):,} with {reason} (such as {name})")
    if outside:
        notes.append(f"in no gene: {outside:,} of {len(known[1]):,} variants; they count as single variants only")
    if not found.any():
        mine, theirs = (":".join(str(c[0]) for c in columns) for columns in (wanted, known))
        notes.append(
            f"warning: none of the {n:,} variants of {sets.path} (such as {mine}) is in {what} (such as {theirs}): the "
            f"study contributes single variants only; are genome builds and allele names the same?"
        )
    return notes


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
        variants = read_gene_list(path).variants
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


def printed_digits(texts: Sequence[str]) -> int:
    """Return the significant digits that a column of numbers is printed with: the most that any of them has."""
    digits = (text.strip().lower().split("e")[0].lstrip("+-").replace(".", "").lstrip("0") for text in texts)
    return max((len(d) for d in digits if d.isdigit()), default=17)


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
