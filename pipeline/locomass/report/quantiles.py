"""Quantiles of p-values: lambda, the points a plot keeps, the band of a QQ plot."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv

from locomass.gene_tests.tails import chi2_isf_log
from locomass.numbers import LN10, MEDIAN_CHI2, Floats

Codes = NDArray[np.int64]
KEPT_LOG10P = 2.0  # every point with p <= 0.01 is drawn


def compute_lambda(log10p: Floats) -> float:
    """Return the genomic inflation factor ``median(chi2) / 0.4549`` of p-values, chi2 being their chi2_1 quantiles.

    The quantile is taken in log space, so p-values that underflow count too.

    Args:
        log10p: (n,) -log10 p; NaN where there is none.

    Returns:
        NaN without a p-value.
    """
    values = np.sort(log10p[~np.isnan(log10p)])
    if not len(values):
        return float("nan")
    middle = values[[(len(values) - 1) // 2, len(values) // 2]]
    return float(chi2_isf_log(-np.maximum(middle, 0.0) * LN10).mean() / MEDIAN_CHI2)


def lambda_by_group(log10p: Floats, group: Codes, n_groups: int) -> Floats:
    """Return (n_groups,) `compute_lambda` of the p-values of every group; group (n,) holds 0 .. n_groups - 1."""
    order = np.argsort(group, kind="stable")
    bounds = np.searchsorted(group[order], np.arange(n_groups + 1))
    sorted_p = log10p[order]
    return np.array([compute_lambda(sorted_p[a:b]) for a, b in zip(bounds[:-1], bounds[1:], strict=True)])


def thin_points(log10p: Floats, n_rest: int, n_kept: int | None = None) -> tuple[Codes, Codes, int]:
    """Choose the points of a Manhattan or QQ plot: all with p <= 0.01, and evenly spaced ranks of the others.

    The same input always gives the same points.

    Args:
        log10p: (n,) -log10 p; NaN is left out.
        n_rest: how many of the points with p > 0.01 to keep, at most.
        n_kept: at most this many of the points with p <= 0.01, the smallest p-values; those below 0.05 / n always
            stay. None: all.

    Returns:
        rows (k,) of the chosen points, by increasing p; their ranks (k,) from 1; the number of p-values.
    """
    known = np.flatnonzero(~np.isnan(log10p))
    order = known[np.argsort(-log10p[known], kind="stable")]
    n = len(order)
    values = log10p[order]
    top = int(np.count_nonzero(values >= KEPT_LOG10P))
    if n_kept is not None and top > n_kept:
        top = max(n_kept, int(np.count_nonzero(values >= np.log10(n / 0.05))))
    rest = np.unique(np.linspace(top, n - 1, min(n_rest, n - top)).round().astype(np.int64))
    chosen = np.concatenate([np.arange(top), rest])
    return order[chosen], chosen + 1, n


def qq_expected(rank: Codes, n: int) -> Floats:
    """Return the expected -log10 p of the rank-th smallest of n p-values, ``-log10((rank - 1/2) / n)``."""
    return -np.log10((rank - 0.5) / n)


def qq_band(n: int, n_points: int = 24) -> tuple[Floats, Floats, Floats]:
    """Return the 95 % band of a QQ plot of n independent p-values.

    The rank-th smallest of n uniforms is Beta(rank, n - rank + 1).

    Returns:
        expected, lower, upper -log10 p, each (k,) by decreasing expected value.
    """
    rank = np.unique(np.geomspace(1, n, n_points).round().astype(np.int64))
    upper, lower = (-np.log10(betaincinv(rank, n - rank + 1.0, q)) for q in (0.025, 0.975))
    return qq_expected(rank, n), lower, upper
