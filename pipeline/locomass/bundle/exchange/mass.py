"""MASS / SCORE-Seq text: one file, gene by gene, U and the lower triangle of V on our scale; no alleles.

First line ``#Samples = 3556``; then, tab-separated, ``GENE chr:pos MAF MAC N_OBS N_REF N_HET N_ALT U V_i1 ... V_id``,
a gene's rows contiguous, d its number of variants (dlin.web.unc.edu/software/mass; Tang & Lin 2013, Bioinformatics
29:1803). Entries above the diagonal may be zero and are not read. The alleles come from a list of variants; U counts
its ALT. Where several listed variants share a position, the name in the file must be ``chr:pos:ref:alt``: the exporter
writes such names there.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from locomass.bundle.exchange.common import (
    WITHHELD,
    ImportRequest,
    count,
    frequency_from_counts,
    iterate_genes,
    number,
    read_alleles,
    write_text,
)
from locomass.bundle.study import Bundle, matrix_column
from locomass.bundle.write import GeneStatistics, TraitStatistics
from locomass.errors import FormatError, MatchError
from locomass.numbers import Floats
from locomass.tables.delimited import read_lines
from locomass.variants.chromosomes import normalise_chromosome

FIXED = 9  # fields before V
COUNTS = ("N_OBS", "N_REF", "N_HET", "N_ALT")
Alleles = dict[tuple[str, int], list[tuple[str, str]]]
Key = tuple[str, int, str, str]


@dataclass
class _Row:
    """One row of a gene."""

    key: Key
    frequency: float
    counts: tuple[int, ...]
    U: float
    V: Floats
    line: int


@dataclass
class _Variants:
    """Variants in the order they first come, with what their first row says."""

    rows: dict[Key, int] = field(default_factory=dict)
    first: list[_Row] = field(default_factory=list)

    def place(self, row: _Row) -> int:
        """Return the number of a row's variant."""
        if row.key not in self.rows:
            self.rows[row.key] = len(self.first)
            self.first.append(row)
        return self.rows[row.key]


def read_mass(request: ImportRequest) -> TraitStatistics:
    """Read a MASS file.

    Raises:
        FormatError: a row that breaks the format, or a gene whose rows do not make a square.
        MatchError: a variant that the list of alleles lacks, or that it has twice at one position.
    """
    path = request.scores
    listed = request.need("sets", "a set list, or one chrom:pos:ref:alt per line: MASS files have no alleles")
    alleles = read_alleles(listed)
    lines = read_lines(path)
    number_of_first, head = next(lines, (1, ""))
    match = re.fullmatch(r"#\s*Samples?\s*=\s*(\d+)\s*", head)
    if match is None:
        raise FormatError(f"expected '#Samples = N', got '{head[:40]}'", path=path, line=number_of_first)
    variants, genes = _Variants(), []
    seen: set[str] = set()
    for gene, rows in _genes(path, lines, alleles):
        if gene in seen:
            raise FormatError(f"the rows of gene '{gene}' are not contiguous", path=path, line=rows[0].line)
        seen.add(gene)
        genes.append(_finish_gene(path, gene, rows, variants))
    if not genes:
        raise FormatError("holds no gene", path=path)
    rows = variants.first
    n_obs, n_ref, n_het, n_alt = (np.array([r.counts[k] for r in rows], np.int64) for k in range(4))
    known = (n_ref >= 0) & (n_het >= 0) & (n_alt >= 0)
    n_ref, n_het, n_alt = (np.where(known, c, WITHHELD) for c in (n_ref, n_het, n_alt))
    chromosome, position, ref, alt = (np.array([r.key[k] for r in rows], object) for k in range(4))
    given = np.array([r.frequency for r in rows])
    diagonal = np.zeros(len(rows))
    for g in genes:
        diagonal[g.variant] = np.diag(g.V)
    return TraitStatistics(
        trait=request.trait,
        kind=request.kind,
        n_samples=request.n_samples or int(match[1]),
        n_cases=request.n_cases,
        chromosome=chromosome,
        position=position.astype(np.int64),
        ref=ref,
        alt=alt,
        n_obs=n_obs,
        n_ref=n_ref,
        n_het=n_het,
        n_alt=n_alt,
        alt_frequency=frequency_from_counts(n_ref, n_het, n_alt, given),
        U=np.array([r.U for r in rows]),
        V=diagonal,
        genes=genes,
        source="MASS",
    )


def _genes(path: Path, lines: Iterator[tuple[int, str]], alleles: Alleles) -> Iterator[tuple[str, list[_Row]]]:
    """Give the rows of each gene."""
    current, rows = "", list[_Row]()
    for line, text in lines:
        fields = text.split()
        if fields[0].upper() in ("GENE", "#GENE") and not rows:
            continue
        if len(fields) <= FIXED:
            message = f"expected GENE chr:pos MAF MAC N_OBS N_REF N_HET N_ALT U V_1 ..., found {len(fields)} fields"
            raise FormatError(message, path=path, line=line)
        if fields[0] != current and rows:
            yield current, rows
            rows = []
        current = fields[0]
        rows.append(_parse_row(path, line, fields, alleles))
    if rows:
        yield current, rows


def _parse_row(path: Path, line: int, fields: list[str], alleles: Alleles) -> _Row:
    """Return one row; missing counts are `WITHHELD`."""
    try:
        counts = tuple(WITHHELD if x in ("NA", "-1") else int(float(x)) for x in fields[4:8])
        frequency = np.nan if fields[2] == "NA" else float(fields[2])
        U, V = float(fields[8]), np.array(fields[FIXED:], np.float64)
    except ValueError as error:
        raise FormatError(f"expected numbers from the third field on: {error}", path=path, line=line) from None
    if not (np.isfinite(U) and np.isfinite(V).all()):
        raise FormatError("U or V is not a finite number", path=path, line=line)
    return _Row(_find_variant(path, line, fields[1], alleles), frequency, counts, U, V, line)


def _find_variant(path: Path, line: int, name: str, alleles: Alleles) -> Key:
    """Return the variant that ``chr:pos`` (or ``chr:pos:ref:alt``) names."""
    parts = name.split(":")
    if len(parts) not in (2, 4) or not parts[1].isdigit():
        raise FormatError(f"expected chr:pos, got '{name}'", path=path, line=line, column=2)
    chromosome, position = normalise_chromosome(parts[0]), int(parts[1])
    listed = alleles.get((chromosome, position), [])
    if len(parts) == 4:
        listed = [pair for pair in listed if set(pair) == {parts[2].upper(), parts[3].upper()}]
    if len(listed) == 1:
        ref, alt = listed[0]
        if len(parts) == 4 and parts[3].upper() != alt:
            ref, alt = alt, ref
        return chromosome, position, ref, alt
    what = f"{len(listed)} variants at this position" if listed else "no such variant"
    hint = "; name it chr:pos:ref:alt" if listed else "; MASS files have no alleles, so each variant must be listed"
    raise MatchError(f"{path}, line {line}: variant {name}: the list of alleles has {what}{hint}")


def _finish_gene(path: Path, gene: str, rows: list[_Row], variants: _Variants) -> GeneStatistics:
    """Return V of a gene from the lower triangle of its rows."""
    d = len(rows)
    V = np.zeros((d, d))
    for i, row in enumerate(rows):
        if len(row.V) not in (d, i + 1):
            message = f"gene '{gene}' has {d} rows but {len(row.V)} entries of V here"
            raise FormatError(message, path=path, line=row.line)
        V[i, : i + 1] = V[: i + 1, i] = row.V[: i + 1]
    place = np.array([variants.place(row) for row in rows], np.int64)
    if len(np.unique(place)) < d:
        raise FormatError(f"a variant of gene '{gene}' is listed twice", path=path, line=rows[0].line)
    position = [row.key[1] for row in rows]
    return GeneStatistics(gene, rows[0].key[0], min(position), max(position), place, V)


def write_mass(bundle: Bundle, trait: str, path: Path) -> list[Path]:
    """Write one trait of a bundle as a MASS file; ALT is counted, also where it is the major allele.

    Column MAF therefore holds the ALT frequency. Returns the file.
    """
    table, info = bundle.variants, bundle.traits[trait]
    s, t = bundle.sample_sets[info["sample_set"]], info["index"]
    text = {c: table.column(c).to_pylist() for c in ("chromosome", "position", "ref", "alt")}
    places = [f"{c}:{p}" for c, p in zip(text["chromosome"], text["position"], strict=True)]
    shared = {name for name, times in Counter(places).items() if times > 1}
    full = [f"{p}:{r}:{a}" if p in shared else p for p, r, a in zip(places, text["ref"], text["alt"], strict=True)]
    counts = [matrix_column(table, name.lower())[:, s] for name in COUNTS]
    frequency, U = matrix_column(table, "alt_frequency")[:, s], matrix_column(table, "U")[:, t]
    with write_text(path) as handle:
        handle.write(f"#Samples = {info['n_samples']}\n".encode())
        for gene in iterate_genes(bundle, trait):
            for i, v in enumerate(gene.variant.tolist()):
                alleles = np.rint(2 * counts[0][v] * frequency[v])
                row = [gene.gene, full[v], number(frequency[v]), number(min(alleles, 2 * counts[0][v] - alleles))]
                row += [count(c[v]) for c in counts] + [number(U[v])] + _lower(gene.V, i)
                handle.write(("\t".join(row) + "\n").encode())
    return [path]


def _lower(V: Floats, i: int) -> list[str]:
    """Return row i of V with zeros above the diagonal."""
    return [number(x) for x in V[i, : i + 1]] + ["0"] * (len(V) - i - 1)
