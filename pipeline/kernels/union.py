"""Studies laid on the union of their variants: scores, information and allele counts."""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@njit(cache=True, nogil=True)
def lay_on_union(
    U: Floats, V: Floats, trait: NDArray[np.int64], at: NDArray[np.int64], sign: Floats, included: NDArray[np.bool_]
) -> tuple[Floats, Floats]:
    """Return the scores (T, u) and information (u, u) of one study on the union of the studies' variants.

    Args:
        U: (m, all traits) scores of the study.
        V: (m, m) information.
        trait: (T,) columns of U that are wanted.
        at: (m,) place of each variant in the union, -1 where it has none.
        sign: (m,) +1, or -1 where ALT is swapped.
        included: (u,) which variants the study may contribute; the others stay zero.
    """
    u = included.shape[0]
    placed_U, placed_V = np.zeros((trait.shape[0], u)), np.zeros((u, u))
    for i in range(at.shape[0]):
        a = at[i]
        if a < 0 or not included[a]:
            continue
        for t in range(trait.shape[0]):
            placed_U[t, a] = U[i, trait[t]] * sign[i]
        for j in range(at.shape[0]):
            b = at[j]
            if b >= 0 and included[b]:
                placed_V[a, b] = V[i, j] * sign[i] * sign[j]
    return placed_U, placed_V


@njit(cache=True, nogil=True)
def add_counts(
    n_obs: NDArray[np.int64],
    alt_frequency: Floats,
    sample_set: int,
    at: NDArray[np.int64],
    sign: Floats,
    count: Floats,
    number: Floats,
) -> Floats:
    """Add the allele counts of one study to those of the union, in place; return the study's ALT frequency (u,).

    The frequency is NaN where the study lacks the variant or has no call.

    Args:
        n_obs: (m, S) samples with a call; alt_frequency: (m, S) of the study's own ALT.
        sample_set: column of both.
        at, sign: (m,) see ``lay_on_union``.
        count, number: (u,) ALT count and allele number so far.
    """
    out = np.full(count.shape[0], math.nan)
    for i in range(at.shape[0]):
        a = at[i]
        if a < 0:
            continue
        n = 2.0 * n_obs[i, sample_set]
        f = alt_frequency[i, sample_set]
        alt = 0.0 if math.isnan(f) else np.rint(f * n)
        if sign[i] < 0.0:
            alt = n - alt
        count[a] += alt
        number[a] += n
        if n > 0.0:
            out[a] = alt / n
    return out
