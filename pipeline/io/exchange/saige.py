"""SAIGE single-variant results with the linkage disequilibrium files of SAIGE step 3 (the input of Meta-SAIGE).

``PREFIX.marker_info.txt``: ``CHR POS Major_Allele Minor_Allele MAC N Missing_rate Set Index``; for each Set
``PREFIX_SET.txt`` with rows ``i j (G'G)_ij``, 0-based, G counting Minor_Allele, one or both triangles. Then (Zhou 2022;
Park et al. 2025, Meta-SAIGE) ``C = G'G / N - 4 f f'``, R its correlation and ``V = D^(1/2) R D^(1/2)``.
Tstat is U and var is V_jj, Allele2 counted. Where SAIGE reports a saddlepoint p-value beside the normal one, D is the
variance that returns it, ``U^2 / chi2_isf(p)``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
from scipy import stats

from pipeline.errors import FormatError, MatchError
from pipeline.io.bundle_write import GeneStatistics, TraitStatistics
from pipeline.io.delimited import DelimitedFile, decode_strings
from pipeline.io.exchange.common import WITHHELD, Floats, ImportRequest, Integers, Labels, find_variants
from pipeline.io.tables import normalise_chromosomes

SCORE_COLUMNS = ("CHR", "POS", "Allele1", "Allele2", "AF_Allele2", "Tstat", "var")
INFO_COLUMNS = ("CHR", "POS", "Major_Allele", "Minor_Allele", "MAC", "N", "Set", "Index")


@dataclass(frozen=True)
class _Markers:
    """marker_info.txt, joined to the single-variant results; markers without results are left out."""

    gene: Labels
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
    prefix = request.need("covariance", "the prefix of PREFIX.marker_info.txt and PREFIX_GENE.txt")
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
    markers = _read_markers(Path(f"{prefix}.marker_info.txt"), labels, path)
    withheld = np.full(len(kept), WITHHELD)
    notes = [] if len(kept) == len(U) else [f"{len(U) - len(kept):,} variants without Tstat or var were left out"]
    return TraitStatistics(
        request.trait, request.kind, request.n_samples or int(n.max()), request.n_cases or n_cases, *labels,
        np.rint(n * (1 - missing)).astype(np.int64), withheld, withheld, withheld, block.numbers("AF_Allele2")[kept],
        U[kept], v[kept], _genes(prefix, markers, v[kept]), "SAIGE", notes,
    )  # fmt: skip


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


def _read_markers(path: Path, labels: tuple[Labels, Integers, Labels, Labels], scores: Path) -> _Markers:
    """Read marker_info.txt and find each marker among the results."""
    block = _open(path, INFO_COLUMNS).table()
    chromosome, position = normalise_chromosomes(block.table["CHR"]), block.positions("POS")
    major, minor = (decode_strings(pc.utf8_upper(block.table[c])) for c in ("Major_Allele", "Minor_Allele"))
    n = block.numbers("N")
    row, swapped = find_variants((chromosome, position, major, minor), labels, scores.name)
    if not np.any(row >= 0):
        raise MatchError(f"no marker of {path} (such as {chromosome[0]}:{position[0]}) is in {scores}")
    kept = np.flatnonzero(row >= 0)
    index = block.numbers("Index")[kept].astype(np.int64)
    gene = decode_strings(block.table["Set"])[kept]
    frequency = block.numbers("MAC")[kept] / (2 * n[kept])
    return _Markers(
        gene, index, frequency, n[kept], row[kept], swapped[kept], chromosome[kept], position[kept]
    )  # fmt: skip


def _genes(prefix: Path, markers: _Markers, v: Floats) -> Iterator[GeneStatistics]:
    """Give V of each Set."""
    order = np.argsort(markers.gene.astype(str), kind="stable")
    for rows in np.split(order, np.flatnonzero(markers.gene[order][1:] != markers.gene[order][:-1]) + 1):
        gene = str(markers.gene[rows[0]])
        path = Path(f"{prefix}_{gene}.txt")
        GG = _read_triplets(path, markers.index[rows])
        f, n = markers.frequency[rows], float(markers.n[rows].max())
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


def _read_triplets(path: Path, index: Integers) -> Floats:
    """Return G'G of the markers ``index`` from rows ``i j value``, either triangle or both."""
    file = DelimitedFile(path, header=False, delimiter=" ")
    if len(file.names) != 3:
        raise FormatError(f"expected rows 'i j value', found {len(file.names)} fields", path=path, line=1)
    block = file.table()
    i, j, value = (block.numbers(name) for name in file.names)
    place = {int(k): a for a, k in enumerate(index)}
    GG = np.zeros((len(index), len(index)))
    for row, (a, b, x) in enumerate(zip(i.tolist(), j.tolist(), value.tolist(), strict=True)):
        if a < 0 or b < 0 or a != int(a) or b != int(b) or not np.isfinite(x):
            raise FormatError(f"triplet {a:g} {b:g} {x:g} is malformed", path=path, line=block.line(row))
        if int(a) in place and int(b) in place:
            GG[place[int(a)], place[int(b)]] = GG[place[int(b)], place[int(a)]] = x
    return GG
