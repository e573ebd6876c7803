"""Which variants a row tests, and their statistics turned to the counted allele, in one pass over a gene."""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from locomass.numbers import Floats

Flags = NDArray[np.bool_]
Places = NDArray[np.int64]

# faults of `find_fault`, in the order in which they are looked for
SOUND, V_NOT_FINITE, BAD_SCALE, BAD_FREQUENCY, NEGATIVE, STILL, SCORE_WITHOUT_VARIANCE = range(7)


@njit(cache=True, nogil=True)
def count_allele(
    frequency: Floats, alt_count: Floats, allele_number: Floats, minor: bool
) -> tuple[Floats, Floats, Floats]:
    """Return (u,) the sign of ALT's score, frequency and count of the counted allele.

    Args:
        frequency: (u,) ALT frequency, NaN where unknown.
        alt_count, allele_number: (u,).
        minor: count the minor allele, ALT otherwise.
    """
    turn, counted, mac = np.ones(frequency.shape[0]), frequency.copy(), alt_count.copy()
    for j in range(frequency.shape[0]):
        if minor and frequency[j] > 0.5:
            turn[j] = -1.0
            counted[j] = 1.0 - frequency[j]
            mac[j] = allele_number[j] - alt_count[j]
    return turn, counted, mac


@njit(cache=True, nogil=True)
def split_variants(
    member: Flags, polymorphic: Flags, bounded: Floats, bound: float
) -> tuple[Places, Places, int, int, int]:
    """Return the places under the bound and all of known frequency, and how many were left out by the way.

    Args:
        member: (u,) whether the mask takes the variant.
        polymorphic: (u,) whether both alleles occur.
        bounded: (u,) frequency that the bound applies to, NaN where unknown.
        bound: largest frequency, inclusive.

    Returns:
        Places of polymorphic members at most at the bound; places of polymorphic members with a frequency; numbers of
        variants outside the mask, of monomorphic members, of members above the bound or without a frequency.
    """
    u = member.shape[0]
    low, known = np.empty(u, np.int64), np.empty(u, np.int64)
    n_low, n_known, outside, monomorphic = 0, 0, 0, 0
    for j in range(u):
        if not member[j]:
            outside += 1
        elif not polymorphic[j]:
            monomorphic += 1
        else:
            if bounded[j] <= bound:
                low[n_low] = j
                n_low += 1
            if not math.isnan(bounded[j]):
                known[n_known] = j
                n_known += 1
    return low[:n_low].copy(), known[:n_known].copy(), outside, monomorphic, u - outside - monomorphic - n_low


@njit(cache=True, nogil=True)
def turn_statistics(U: Floats, V: Floats, chosen: Places, rows: Places, turn: Floats) -> tuple[Floats, Floats]:
    """Return (T, m) scores and (m, m) information of the chosen variants, each with the sign of its counted allele.

    Args:
        U: (T, u); V: (r, r).
        chosen: (m,) places in U; rows: (m,) their rows of V.
        turn: (u,) signs.
    """
    m = chosen.shape[0]
    turned_U, turned_V = np.empty((U.shape[0], m)), np.empty((m, m))
    for i in range(m):
        a = chosen[i]
        for t in range(U.shape[0]):
            turned_U[t, i] = U[t, a] * turn[a]
        for j in range(m):
            turned_V[i, j] = V[rows[i], rows[j]] * (turn[a] * turn[chosen[j]])
    return turned_U, turned_V


@njit(cache=True, nogil=True)
def find_fault(U: Floats, V: Floats, scale: Floats, maf: Floats, monomorphic: float) -> tuple[int, Flags]:
    """Return why no test can use these statistics (``SOUND`` when all can), and (m,) which variants vary.

    Args:
        U: (T, m) scores; a trait whose scores are not numbers is no fault of the others.
        V: (m, m), m > 0.
        scale: (T,); maf: (m,).
        monomorphic: a variance of at most this part of the largest is none.
    """
    m = V.shape[0]
    varying = np.zeros(m, np.bool_)
    for value in V.flat:
        if not math.isfinite(value):
            return V_NOT_FINITE, varying
    for value in scale:
        if not 0.0 < value < math.inf:
            return BAD_SCALE, varying
    for value in maf:
        if not 0.0 <= value <= 1.0:
            return BAD_FREQUENCY, varying
    largest, smallest = -math.inf, math.inf
    for j in range(m):
        largest, smallest = max(largest, V[j, j]), min(smallest, V[j, j])
    if smallest < -monomorphic * abs(largest) or largest < 0.0:
        return NEGATIVE, varying
    found = False
    for j in range(m):
        varying[j] = V[j, j] > monomorphic * largest
        found |= varying[j]
    if not found:
        return STILL, varying
    for j in range(m):
        if not varying[j]:
            for t in range(U.shape[0]):
                if U[t, j] * U[t, j] > 1e-6 * largest * scale[t]:
                    return SCORE_WITHOUT_VARIANCE, varying
    return SOUND, varying


@njit(cache=True, nogil=True)
def is_definite(A: Floats, lift: float) -> bool:
    """Return whether ``A + lift I`` has a Cholesky factor; A (m, m) is symmetric."""
    m = A.shape[0]
    R = A.copy()
    for i in range(m):
        R[i, i] += lift
    for j in range(m):
        if not R[j, j] > 0.0:
            return False
        root = math.sqrt(R[j, j])
        line = R[j]
        for k in range(j, m):
            line[k] /= root
        for i in range(j + 1, m):
            factor = line[i]
            if factor != 0.0:
                row = R[i]
                for k in range(i, m):
                    row[k] -= factor * line[k]
    return True
