"""Which variants carry a row: rows of drivers.parquet for the gene tests that have no single effect."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from locomass.gene_tests.base import ScoreStatistics, TestResult
from locomass.gene_tests.components import FEW_PARTICLES, take_variants
from locomass.gene_tests.registry import DEFAULT_WEIGHTS, TESTS, evaluate
from locomass.gene_tests.skat import find_drivers
from locomass.numbers import LN10

TOP = 10


def driver_rows(
    stats: ScoreStatistics,
    test: str,
    weights: str,
    result: TestResult,
    limit: float,
    collapse_mac: float,
    ultra_rare: float = 0.0,
) -> list[tuple[int, int, dict[str, Any]]]:
    """Return (trait, variant, columns) of the leading variants of every trait whose p-value is below ``limit``.

    Variants are ranked by their part of SKAT's Q under the first of the row's weights, at most ten of them; each is
    left out in turn and the row computed again. A searched row lists the variants that the search took instead.

    Args:
        stats: what the test saw.
        test: its name; tests with one effect have no rows.
        weights: of the row.
        result: of the row.
        limit: p-value.
        collapse_mac, ultra_rare: as the test had them.
    """
    if not TESTS[test].with_drivers or result.note or limit <= 0.0:
        return []
    leading = result.log_p < math.log(limit)
    if not leading.any():
        return []
    schemes = tuple(weights.split("+")) if weights else DEFAULT_WEIGHTS[:1]
    rows: list[tuple[int, int, dict[str, Any]]] = []
    V = stats.V.diagonal()
    for t in np.flatnonzero(leading):
        order, share = find_drivers(stats, schemes[0], stats.n_variants)
        share_of = dict(zip(order[t].tolist(), share[t].tolist(), strict=True))
        chosen = _chosen(result, int(t)) if TESTS[test].is_search else order[t][:TOP]
        for j in sorted(chosen.tolist(), key=lambda i: -share_of[i]):
            without = (
                np.nan if TESTS[test].is_search else _without(stats, int(t), j, test, schemes, collapse_mac, ultra_rare)
            )
            columns = {
                "log10p": float(-result.log_p[t]) / LN10,
                "share": share_of[j],
                "z": float(stats.U[t, j] / np.sqrt(V[j] * stats.scale[t])) if V[j] > 0 else np.nan,
                "log10p_without": without,
                "detail": describe_detail(result, int(t)),
            }
            rows.append((int(t), int(j), columns))
    return rows


def describe_detail(result: TestResult, t: int) -> str:
    """Return what a row's best choice was: rho, threshold or grouping."""
    d = result.detail
    if d.rho is not None:
        return f"rho={d.rho[t]:g}"
    if d.grouping is not None:
        return f"chosen {d.grouping[t]}".strip()
    if d.rare_part is not None:
        return f"rare_part={d.rare_part[t]:.3g}"
    return ""


def _chosen(result: TestResult, t: int) -> NDArray[np.intp]:
    """Return the variants that a search took."""
    return np.flatnonzero(np.asarray(result.detail.chosen)[t])


def _without(
    stats: ScoreStatistics,
    t: int,
    j: int,
    test: str,
    schemes: tuple[str, ...],
    collapse_mac: float,
    ultra_rare: float,
) -> float:
    """Return -log10 p of a row of one trait without one variant; NaN when nothing is left."""
    if stats.n_variants < 2:
        return float("nan")
    one = slice(t, t + 1)
    alone = replace(
        stats,
        U=stats.U[one],
        scale=stats.scale[one],
        n_samples=stats.n_samples[one],
        per_study=tuple((U[one], V, scale[one]) for U, V, scale in stats.per_study),
        laws=stats.laws[one],
    )
    left = take_variants(alone, np.arange(stats.n_variants) != j)
    rows = evaluate(left, (test,), schemes, collapse_mac=collapse_mac, ultra_rare=ultra_rare, particles=FEW_PARTICLES)
    return float(-rows[0][2].log_p[0]) / LN10
