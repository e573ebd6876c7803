"""Draws of the scores of a binary trait under the null, where too few cases carry a variant for a normal score.

The score of variant j, ``U_j = sum_i g_ij (y_i - mu_i)``, is a number of alleles among the cases less its expectation.
Who carries which variants together decides how the scores of a gene jump together, and of that the information matrix
knows the pairs: ``V_jk / (mu (1 - mu))`` and what projecting out the intercept took away make ``C_jk = sum_i g_ij
g_ik``. ``share_carriers`` divides the carriers into groups, each of people with the same variants, whose pairs add up
to C. Then the cases of a group of w carriers are a binomial count, independent of those of other groups, and

    U_j = sum_(groups s with j) d_s - 2 f_j (sum_s d_s + rest),      d_s = N_s - w_s mu,   N_s ~ Binomial(w_s, mu),

the rest a normal number of cases among those who carry nothing. Of all sums of independent indicators with a given mean
the binomial has the heaviest tails (Hoeffding 1956, Ann Math Stat 27:713), so fitted probabilities that differ between
carriers make it cautious.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.special import betainc, ndtr, ndtri

Floats = NDArray[np.float64]

FARTHEST = 37.0  # normal values beyond which a table has no cuts
PERSON = 0.5  # carriers that make a group
DETAIL = 0.1  # a group is divided no finer than into this part of the pair it starts from
MOST_GROUPS = 4000


@dataclass(frozen=True, slots=True)
class CountTables:
    """Quantile functions of centred counts, one for every group.

    Attributes:
        lowest: (s,) smallest count less the expected one.
        start: (s + 1,) where the cuts of a group start.
        cut: normal values at which the count goes up by one, rising for every group.
        level: the same as probabilities, ``Phi(cut)``.
    """

    lowest: Floats
    start: NDArray[np.int64]
    cut: Floats
    level: Floats


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
    ends = np.cumsum(np.bincount(group[kept], minlength=size.size))
    return CountTables(lowest, np.concatenate(([0], ends)).astype(np.int64), cut[kept], ndtr(cut[kept]))


@njit(cache=True, nogil=True)
def map_scores(Z: Floats, base: Floats, start: NDArray[np.int64], cut: Floats, mix: Floats) -> Floats:
    """Return U (n, m): ``base + counts @ mix[:s] + Z[:, s:] @ mix[s:]``, a count the number of cuts below its normal.

    Args:
        Z: (n, s + b) normals.
        base: (m,) scores when every count is its lowest.
        start, cut: see `CountTables`.
        mix: (s + b, m).
    """
    m, groups = mix.shape[1], start.shape[0] - 1
    U = np.empty((Z.shape[0], m))
    for a in range(Z.shape[0]):
        u = U[a]
        u[:] = base
        for s in range(mix.shape[0]):
            factor = Z[a, s] if s >= groups else _count_below(cut, start[s], start[s + 1], Z[a, s])
            if factor != 0.0:
                for j in range(m):
                    u[j] += factor * mix[s, j]
    return U


@njit(cache=True, nogil=True)
def _count_below(cut: Floats, first: int, last: int, x: float) -> float:
    """Return how many of cut[first:last], which rise, are below x."""
    if first == last or cut[first] >= x:
        return 0.0
    lo, hi = first + 1, last
    while lo < hi:
        middle = (lo + hi) // 2
        if cut[middle] < x:
            lo = middle + 1
        else:
            hi = middle
    return float(lo - first)


@njit(cache=True, nogil=True)
def draw_scores(
    rng: np.random.Generator, n: int, base: Floats, start: NDArray[np.int64], level: Floats, mix: Floats
) -> Floats:
    """Return n draws of U, (n, m): `map_scores` with fresh normals, counts by the levels below a uniform."""
    m, groups = mix.shape[1], start.shape[0] - 1
    U = np.empty((n, m))
    for a in range(n):
        u = U[a]
        u[:] = base
        for s in range(mix.shape[0]):
            x = rng.random() if s < groups else rng.standard_normal()
            factor = _count_below(level, start[s], start[s + 1], x) if s < groups else x
            if factor != 0.0:
                for j in range(m):
                    u[j] += factor * mix[s, j]
    return U


@njit(cache=True, nogil=True)
def share_carriers(C: Floats) -> tuple[NDArray[np.bool_], Floats]:
    """Return groups of carriers, members (s, m) and sizes (s,), whose pairs add up to C as nearly as may be.

    Greedy: the pair of variants with the most carriers in common, w, is the start of a group. It takes in the variant l
    that leaves most of them, ``min(min_s C_ls, w max_s C_ls / C_ss)`` over the variants s of the group, while at least
    half a carrier and a tenth of the pair are left; the group's size is taken off every pair of its variants. Nested
    variants come out exactly; carriers who share variants by chance in groups of the size that chance gives.

    Args:
        C: (m, m) carriers in common, on the diagonal carriers.
    """
    m = C.shape[0]
    left, carriers = C.copy(), np.diag(C).copy()
    members, sizes = np.zeros((MOST_GROUPS + m, m), dtype=np.bool_), np.zeros(MOST_GROUPS + m)
    n = 0
    while n < MOST_GROUPS:
        best, j, k = 0.0, -1, -1
        for a in range(m):
            for b in range(a):
                if left[a, b] > best:
                    best, j, k = left[a, b], a, b
        w = best
        if w < PERSON:
            break
        if min(left[j, j], left[k, k]) < PERSON:  # these carriers are taken
            left[j, k] = left[k, j] = 0.0
            continue
        w = min(w, left[j, j], left[k, k])
        least = max(PERSON, DETAIL * w)
        inside = members[n]
        inside[j] = inside[k] = True
        while True:
            most, chosen = 0.0, -1
            for a in range(m):
                if inside[a]:
                    continue
                common, part = left[a, a], 0.0
                for s in range(m):
                    if inside[s]:
                        common = min(common, left[a, s])
                        part = max(part, C[a, s] / carriers[s])
                rest = min(common, w * part)
                if rest > most:
                    most, chosen = rest, a
            if most < least:
                break
            inside[chosen] = True
            w = most
        for a in range(m):
            for b in range(m):
                if inside[a] and inside[b]:
                    left[a, b] -= w
        sizes[n] = w
        n += 1
    for a in range(m):
        if left[a, a] > 1e-9:
            members[n, a], sizes[n] = True, left[a, a]
            n += 1
    return members[:n], sizes[:n]
