"""Burden, SKAT and ACAT-V of one selection of variants under several sets of weights, in one call.

A gene of 40 variants must not cost a hundred small array operations: here the only large part is its eigenvalues.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from locomass.gene_tests.chi_square_mixture import mixture_logsf
from locomass.gene_tests.gene_sums import chi2_rows, combine_variants, keep_above, squared_sum, weighted_sum
from locomass.numbers import Floats

# rows of the values, per set of weights
BURDEN_CHI2, BURDEN_LOG_P, BURDEN_BETA, BURDEN_SE, SKAT_Q, SKAT_LOG_P, SKAT_ERROR, ACAT_CHI2, ACAT_LOG_P = range(9)
# columns of the counts, per set of weights
VARIES, N_EIGENVALUES, N_TERMS = range(3)


@njit(cache=True, nogil=True)
def compute_common_tests(
    U: Floats,
    V: Floats,
    scale: Floats,
    W: Floats,
    maf: Floats,
    mac: Floats,
    collapse_mac: float,
    own_weight: Floats,
    limits: tuple[float, float, float],
    wanted: tuple[bool, bool, bool],
    known: Floats,
) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Return the rows of burden, SKAT and ACAT-V; what is not wanted, or does not vary, is NaN.

    ``(w'U)^2 / (w'Vw)`` and chi2_1; ``sum_j (w_j U_j)^2`` and the chi-square mixture with the eigenvalues of W V W; the
    Cauchy combination of ``combine_variants``.

    Args:
        U: (T, m) scores; V: (m, m) information; scale: (T,) factors of V.
        W: (S, m) sets of weights; one that is zero everywhere has no rows.
        maf, mac, collapse_mac, own_weight (S,): see ``combine_variants``.
        limits: variances of at most this part of the largest are none; sums whose variance is below this part of what
            their terms have on their own have cancelled out; eigenvalues below this part of their mean are rounding.
        wanted: burden, SKAT, ACAT-V.
        known: (S, m + 1, T) log p of ACAT-V's terms, see ``combine_variants``.

    Returns:
        (S, 9, T) values, (S, m) eigenvalues, the first of each row in use, (S, 3) whether the burden varies, the
        number of eigenvalues and the number of terms of ACAT-V.
    """
    monomorphic, cancelled, cut = limits
    n_sets, m = W.shape
    values = np.full((n_sets, 9, U.shape[0]), math.nan)
    eigenvalues, counts = np.zeros((n_sets, m)), np.zeros((n_sets, 3), np.int64)
    for s in range(n_sets):
        w, out = W[s], values[s]
        if not np.any(w != 0.0):
            continue
        if wanted[0]:
            total, variance, own = weighted_sum(U, V, w)
            if variance > cancelled * own and variance < math.inf:
                counts[s, VARIES] = 1
                rows = chi2_rows(total, variance, scale)
                out[BURDEN_CHI2], out[BURDEN_LOG_P], out[BURDEN_BETA], out[BURDEN_SE] = rows
        if wanted[1]:
            A = np.empty((m, m))
            for i in range(m):
                for j in range(m):
                    A[i, j] = w[i] * V[i, j] * w[j]
            kept = keep_above(np.linalg.eigvalsh(A), cut)
            counts[s, N_EIGENVALUES] = kept.shape[0]
            eigenvalues[s, : kept.shape[0]] = kept
            out[SKAT_Q] = squared_sum(U, w)
            if kept.shape[0]:
                out[SKAT_LOG_P], out[SKAT_ERROR] = mixture_logsf(out[SKAT_Q] / scale, kept)
        if wanted[2]:
            out[ACAT_CHI2], out[ACAT_LOG_P], counts[s, N_TERMS] = combine_variants(
                U, V, scale, w, maf, mac, collapse_mac, own_weight[s], monomorphic, cancelled, known[s]
            )
    return values, eigenvalues, counts
