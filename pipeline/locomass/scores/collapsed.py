"""Burdens that are not linear in the genotypes: whether a sample carries any, or at least two, rare alleles of a gene.

Symbols: c_ik counted alleles of sample i over the gene's variants with a minor allele frequency of at most the k-th
threshold; D = 1(c >= 1), the CAST or CMC indicator (Morgenthaler & Thilly 2007; Li & Leal 2008); R = 1(c >= 2), two
alleles in the gene, homozygous or on either chromosome (calls are not phased). A missing call counts as no allele.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from locomass.numbers import Floats

LEAST = {"additive": 0, "dominant": 1, "recessive": 2}


@njit(cache=True, nogil=True)
def count_alleles(
    rows: NDArray[np.int64],
    level: NDArray[np.int64],
    n_levels: int,
    indptr: NDArray[np.int64],
    sample: NDArray[np.int32],
    dosage: NDArray[Any],
    head: NDArray[np.int32],
) -> tuple[NDArray[np.int64], Floats]:
    """Return who carries alleles of a gene, and how many under each threshold.

    Args:
        rows: (m,) the gene's variants as rows of the carrier arrays.
        level: (m,) first threshold that takes each variant; ``n_levels`` where none does.
        n_levels: K.
        indptr, sample, dosage: carriers; a missing call is negative.
        head: (n,) scratch, all -1 on entry and on exit.

    Returns:
        (a,) carriers in the order in which they are met, and (a, K) their counts c.
    """
    total = 0
    for j in rows:
        total += indptr[j + 1] - indptr[j]
    carrier = np.empty(total, np.int64)
    counts = np.zeros((total, n_levels))
    used = 0
    for a in range(rows.shape[0]):
        if level[a] >= n_levels:
            continue
        j = rows[a]
        for k in range(indptr[j], indptr[j + 1]):
            if dosage[k] <= 0:
                continue
            s = sample[k]
            if head[s] < 0:
                head[s] = used
                carrier[used] = s
                used += 1
            for t in range(level[a], n_levels):
                counts[head[s], t] += dosage[k]
    for k in range(used):
        head[carrier[k]] = -1
    return carrier[:used].copy(), counts[:used].copy()


def collapse_counts(counts: Floats, mode: str) -> Floats:
    """Return the burdens of a mode of inheritance: the counts, ``1(c >= 1)`` or ``1(c >= 2)``.

    Args:
        counts: (a, K) counted alleles.
        mode: ``additive``, ``dominant`` or ``recessive``.
    """
    least = LEAST[mode]
    return counts if least == 0 else (counts >= least).astype(np.float64)


def burden_statistics(
    S: Floats, residual: Floats, weight: Floats, projections: Floats, sigma2: float, less: Floats | float = 0.0
) -> tuple[Floats, Floats]:
    """Return score and information of burdens: ``U = S'r / sigma2`` and ``V = (S'WS - (S'C)(S'C)') / sigma2``.

    Args:
        S: (a, K) burdens of the carriers; everyone else has none.
        residual: (a,) residual.
        weight: (a,) diagonal of W.
        projections: (a, q) C, orthonormal covariates (LOCO columns included) such that ``C'G = B``.
        sigma2: residual variance, 1 for a binary trait.
        less: (K, K) what carriers share in the risk sets of a time to event.

    Returns:
        (K,) and (K, K); both exactly zero where a burden does not vary given the covariates.
    """
    squares = S.T @ (weight[:, None] * S) - less
    B = S.T @ projections
    V = squares - B @ B.T
    still = np.diag(V) <= 1e-10 * np.diag(squares)
    V[still] = 0.0
    V[:, still] = 0.0
    U = S.T @ residual / sigma2
    U[still] = 0.0
    return U, V / sigma2


def withhold_small_steps(count: NDArray[np.int64], least: int) -> NDArray[np.bool_]:
    """Return which thresholds may be shared: carriers, and carriers added since the last shared one, none or enough.

    Args:
        count: (K,) carriers under each threshold, rising.
        least: smallest number that may be seen.
    """
    shared = np.ones(count.shape[0], dtype=np.bool_)
    last = 0
    for k, c in enumerate(count):
        if 0 < c < least or 0 < c - last < least:
            shared[k] = False
        else:
            last = int(c)
    return shared
