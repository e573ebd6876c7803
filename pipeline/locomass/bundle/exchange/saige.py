"""SAIGE single-variant results with the linkage disequilibrium files of SAIGE step 3 (the input of Meta-SAIGE).

``PREFIX.marker_info.txt``: ``CHR POS Major_Allele Minor_Allele MAC N Missing_rate Set Index``, G counting Minor_Allele.
`SaigeLD` reads the integer matrices G'G of the Sets. Then (Zhou 2022; Park et al. 2025, Meta-SAIGE)
``C = G'G / N - 4 f f'``, R its correlation and ``V = D^(1/2) R D^(1/2)``. Tstat is U and var is V_jj, Allele2 counted.
Where SAIGE reports a saddlepoint p-value beside the normal one, D is the variance that returns it,
``U^2 / chi2_isf(p)``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
from scipy import stats

from locomass.bundle.exchange.common import WITHHELD, ImportRequest, Integers, Labels, find_variants
from locomass.bundle.exchange.saige_ld import SaigeLD, SetMarkers
from locomass.bundle.exchange.triplets import group_rows
from locomass.bundle.write import GeneStatistics, TraitStatistics
from locomass.errors import FormatError, MatchError
from locomass.files.arrow import decode_strings
from locomass.numbers import Floats
from locomass.tables.delimited import DelimitedFile
from locomass.variants.chromosomes import normalise_chromosomes

SCORE_COLUMNS = ("CHR", "POS", "Allele1", "Allele2", "AF_Allele2", "Tstat", "var")
INFO_COLUMNS = ("CHR", "POS", "Major_Allele", "Minor_Allele", "MAC", "N", "Set", "Index")


@dataclass(frozen=True)
class _Markers:
    """marker_info.txt, joined to the single-variant results; markers without results are left out."""

    gene: Labels
    last: dict[str, int]
    index: Integers
    frequency: Floats
    n: Floats
    row: Integers
    swapped: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]
    chromosome: Labels
    position: Integers


def read_saige(request: ImportRequest) -> TraitStatistics:
    """Read results and LD files; ``covariance`` is the prefix of the latter. Genes are the Sets, streamed.

    Raises:
        FormatError: a column is missing, a triplet out of range, a file of a Set that is absent.
        MatchError: no marker has a result.
    """
    ld = SaigeLD.find(request.need("covariance", "the prefix of SAIGE's step 3: PREFIX.marker_info.txt and others"))
    path = request.scores
    block = _open(path, SCORE_COLUMNS).table()
    U, v = block.numbers("Tstat"), block.numbers("var")
    names = block.table.column_names
    if "p.value" in names and "p.value.NA" in names:
        v = _calibrate(U, v, block.numbers("p.value"), block.numbers("p.value.NA"))
    chromosome, position = normalise_chromosomes(block.table["CHR"]), block.positions("POS")
    ref, alt = (decode_strings(pc.utf8_upper(block.table[c])) for c in ("Allele1", "Allele2"))
    kept = np.flatnonzero(np.isfinite(U) & np.isfinite(v) & (v >= 0))
    labels = chromosome[kept], position[kept], ref[kept], alt[kept]
    parts = [block.numbers(c)[kept] for c in ("N_case", "N_ctrl") if c in names]
    n = sum(parts) if len(parts) == 2 else block.numbers("N")[kept] if "N" in names else np.full(len(kept), np.nan)
    missing = np.nan_to_num(block.numbers("MissingRate")[kept]) if "MissingRate" in names else np.zeros(len(kept))
    n = np.where(np.isfinite(n), n, np.nan if request.n_samples is None else request.n_samples)
    if np.isnan(n).any():
        raise FormatError("no columns N_case and N_ctrl, or N; give --n", path=path)
    n_cases = int(parts[0].max()) if len(parts) == 2 and request.kind == "binary" else None
    markers, matched = _read_markers(ld.info, labels, path)
    withheld = np.full(len(kept), WITHHELD)
    notes = [] if len(kept) == len(U) else [f"{len(U) - len(kept):,} variants without Tstat or var were left out"]
    notes += [f"LD: {ld.layout}", *matched]
    return TraitStatistics(
        request.trait,
        request.kind,
        request.n_samples or int(n.max()),
        request.n_cases or n_cases,
        *labels,
        np.rint(n * (1 - missing)).astype(np.int64),
        withheld,
        withheld,
        withheld,
        block.numbers("AF_Allele2")[kept],
        U[kept],
        v[kept],
        _genes(ld, markers, v[kept]),
        "SAIGE",
        notes,
    )


def _open(path: Path, columns: tuple[str, ...]) -> DelimitedFile:
    """Open a table and check its columns."""
    file = DelimitedFile(path)
    for name in columns:
        if name not in file.names:
            raise FormatError(f"no column {name}; found {', '.join(file.names)}", path=path, line=file.header_line)
    return file


def _calibrate(U: Floats, v: Floats, p: Floats, p_normal: Floats) -> Floats:
    """Return the variance with which U^2 / v has the saddlepoint p-value, where that differs from the normal one."""
    with np.errstate(invalid="ignore", divide="ignore"):
        exact = U**2 / stats.chi2.isf(p, 1)
    spa = np.isfinite(exact) & (exact > 0) & (p < 1) & (np.abs(p - p_normal) > 1e-4 * p)
    return np.where(spa, exact, v)


def _read_markers(
    path: Path, labels: tuple[Labels, Integers, Labels, Labels], scores: Path
) -> tuple[_Markers, list[str]]:
    """Read marker_info.txt and find each marker among the results; say how many were found."""
    block = _open(path, INFO_COLUMNS).table()
    chromosome, position = normalise_chromosomes(block.table["CHR"]), block.positions("POS")
    major, minor = (decode_strings(pc.utf8_upper(block.table[c])) for c in ("Major_Allele", "Minor_Allele"))
    n = block.numbers("N")
    row, swapped = find_variants((chromosome, position, major, minor), labels, scores.name)
    if not np.any(row >= 0):
        raise MatchError(f"no marker of {path} (such as {chromosome[0]}:{position[0]}) is in {scores}")
    kept = np.flatnonzero(row >= 0)
    number = np.nan_to_num(block.numbers("Index"), nan=-1)
    for k in np.flatnonzero((number < 0) | (number != np.floor(number)))[:1]:
        found = block.table["Index"][int(k)].as_py()
        raise FormatError(f"expected 0, 1, ..., got '{found}'", path=path, line=block.line(k), column="Index")
    every = decode_strings(block.table["Set"])
    last = {name: int(number[rows].max()) for name, rows in group_rows(every).items()}
    index, gene = number[kept].astype(np.int64), every[kept]
    frequency = block.numbers("MAC")[kept] / (2 * n[kept])
    notes = [f"markers of {path.name}: {len(kept):,} of {len(row):,} have a result in {scores.name}"]
    if len(kept) < len(row):
        k = int(np.flatnonzero(row < 0)[0])
        name = f"{chromosome[k]}:{position[k]}:{major[k]}:{minor[k]}"
        notes.append(f"left out of their sets: {len(row) - len(kept):,} markers without a result (such as {name})")
    outside = len(labels[1]) - len(np.unique(row[kept]))
    if outside:
        notes.append(f"in no set: {outside:,} of {len(labels[1]):,} variants; they count as single variants only")
    return _Markers(
        gene=gene,
        last=last,
        index=index,
        frequency=frequency,
        n=n[kept],
        row=row[kept],
        swapped=swapped[kept],
        chromosome=chromosome[kept],
        position=position[kept],
    ), notes


def _genes(ld: SaigeLD, markers: _Markers, v: Floats) -> Iterator[GeneStatistics]:
    """Give V of each Set."""
    rows_of = group_rows(markers.gene)
    wanted = {gene: SetMarkers(markers.index[rows], markers.last[gene]) for gene, rows in rows_of.items()}
    for gene, GG in ld.matrices(wanted):
        rows = rows_of[gene]
        f, n = markers.frequency[rows], float(markers.n[rows].max())
        _check_diagonal(gene, np.diag(GG), 2 * markers.n[rows] * f, ld.info)
        C = GG / n - 4 * np.outer(f, f)
        variance = np.diag(C).copy()
        usable = (variance > 0) & (v[markers.row[rows]] > 0)
        scale = np.where(usable, np.sqrt(v[markers.row[rows]] / np.where(usable, variance, 1.0)), 0.0)
        scale = np.where(markers.swapped[rows], -scale, scale)
        V = C * np.outer(scale, scale)
        np.fill_diagonal(V, v[markers.row[rows]])
        position = markers.position[rows]
        label = str(markers.chromosome[rows[0]])
        yield GeneStatistics(gene, label, int(position.min()), int(position.max()), markers.row[rows], (V + V.T) / 2)


def _check_diagonal(gene: str, square: Floats, mac: Floats, path: Path) -> None:
    """Raise unless ``(G'G)_jj``, from MAC (carriers have one) to 2 MAC (two), is of the marker with this MAC.

    Counts of imputed genotypes are rounded: one allele more or less, and a quarter, is let pass.
    """
    wrong = (square < 0.75 * mac - 1) | (square > 2.5 * mac + 1)
    for k in np.flatnonzero(wrong)[:1]:
        raise FormatError(
            f"set '{gene}': (G'G)_jj of its marker {k} is {square[k]:g}, but MAC is {mac[k]:g}; expected MAC to 2 MAC: "
            f"are the LD files of this run?",
            path=path,
        )
