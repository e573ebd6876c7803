"""Draws of scores from counts: cases, or sums of residuals, of groups of people who carry the same variants.

A group's number of cases is binomial, independent of those of other groups; the scores are the centred counts times the
alleles that a person of each group carries, and normals for what the groups cannot tell (see `law_draws`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.special import betainc, ndtr, ndtri

from locomass.numbers import Floats

FARTHEST = 37.0  # normal values beyond which a table has no cuts


@dataclass(frozen=True, slots=True)
class CountTables:
    """Quantile functions of centred counts, or sums of residuals, one for every group.

    Attributes:
        lowest: (s,) smallest count less the expected one.
        start: (s + 1,) where the cuts of a group start.
        cut: normal values at which the count goes up, rising for every group.
        level: the same as probabilities, ``Phi(cut)``.
        rise: how far above the lowest the count is from each cut on.
    """

    lowest: Floats
    start: NDArray[np.int64]
    cut: Floats
    level: Floats
    rise: Floats


def tabulate_counts(size: Floats, p: Floats) -> CountTables:
    """Return the quantile functions of ``N - size p``, N binomial with the next whole size and that variance.

    Args:
        size: (s,) carriers of every group.
        p: (s,) probability of a case.
    """
    n = np.maximum(1.0, np.ceil(size - 1e-9))
    half = np.sqrt(np.maximum(0.0, 0.25 - size * p * (1.0 - p) / n))
    q = 0.5 - np.where(p > 0.5, -half, half)
    wide = 20.0 * np.sqrt(n * q * (1.0 - q)) + 100.0
    first, last = np.maximum(0.0, np.floor(n * q - wide)), np.minimum(n, np.ceil(n * q + wide))
    mean, length = n * q, (last - first).astype(np.int64)
    start = np.concatenate(([0], np.cumsum(length)))
    group = np.repeat(np.arange(size.size), length)
    count = np.arange(group.size) - start[group] + first[group]
    n, q = n[group], q[group]
    above = betainc(count + 1.0, n - count, q)
    cut = np.where(above < 0.5, -ndtri(above), ndtri(betainc(n - count, count + 1.0, 1.0 - q)))
    below, kept = cut <= -FARTHEST, np.abs(cut) < FARTHEST
    lowest = first + np.bincount(group[below], minlength=size.size) - mean
    start = np.concatenate(([0], np.cumsum(np.bincount(group[kept], minlength=size.size)))).astype(np.int64)
    rise = np.arange(1.0, start[-1] + 1.0) - start[group[kept]]
    return CountTables(lowest, start, cut[kept], ndtr(cut[kept]), rise)


@njit(cache=True, nogil=True)
def map_scores(Z: Floats, base: Floats, start: NDArray[np.int64], cut: Floats, rise: Floats, mix: Floats) -> Floats:
    """Return U (n, m): ``base + counts @ mix[:s] + Z[:, s:] @ mix[s:]``, a count the rise of the cut below its normal.

    Args:
        Z: (n, s + b) normals.
        base: (m,) scores when every count is its lowest.
        start, cut, rise: see `CountTables`.
        mix: (s + b, m).
    """
    m, groups = mix.shape[1], start.shape[0] - 1
    U = np.empty((Z.shape[0], m))
    for a in range(Z.shape[0]):
        u = U[a]
        u[:] = base
        for s in range(mix.shape[0]):
            factor = Z[a, s] if s >= groups else _rise_below(cut, rise, start[s], start[s + 1], Z[a, s])
            if factor != 0.0:
                for j in range(m):
                    u[j] += factor * mix[s, j]
    return U


@njit(cache=True, nogil=True)
def _rise_below(cut: Floats, rise: Floats, first: int, last: int, x: float) -> float:
    """Return the rise of the last of cut[first:last], which rise, that is below x; 0 where none is."""
    if first == last or cut[first] >= x:
        return 0.0
    lo, hi = first + 1, last
    while lo < hi:
        middle = (lo + hi) // 2
        if cut[middle] < x:
            lo = middle + 1
        else:
            hi = middle
    return rise[lo - 1]


@njit(cache=True, nogil=True)
def draw_scores(
    rng: np.random.Generator,
    n: int,
    base: Floats,
    start: NDArray[np.int64],
    level: Floats,
    rise: Floats,
    mix: Floats,
) -> Floats:
    """Return n draws of U, (n, m): `map_scores` with fresh normals, counts by the levels below a uniform."""
    m, groups = mix.shape[1], start.shape[0] - 1
    U = np.empty((n, m))
    for a in range(n):
        u = U[a]
        u[:] = base
        for s in range(mix.shape[0]):
            x = rng.random() if s < groups else rng.standard_normal()
            factor = _rise_below(level, rise, start[s], start[s + 1], x) if s < groups else x
            if factor != 0.0:
                for j in range(m):
                    u[j] += factor * mix[s, j]
    return U
