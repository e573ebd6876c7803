"""Conditional analysis from score statistics: what a gene says once index variants are in the model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from locomass.errors import StatisticsError
from locomass.gene_tests.tails import chi2_logsf
from locomass.numbers import LOG_GENOME_WIDE, Floats

# a variant of which less than this part of the variance is left is explained by the index variants
EXPLAINED = 1e-8


def condition_scores(U: Floats, V: Floats, index: NDArray[np.intp]) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Return the scores of all variants with the index variants regressed out.

    ``U_g - V_gc V_cc^-1 U_c`` and ``V_gg - V_gc V_cc^-1 V_cg`` (Liu et al. 2014, Nat Genet 46:200): the scores of a
    null model that contains the index variants, to first order in their effects. V_cc is inverted on its range, as a
    correlation matrix, so that index variants may be in perfect LD.

    Args:
        U: (T, m) scores of gene and index variants together.
        V: (m, m) their information matrix.
        index: positions of the index variants.

    Returns:
        (T, m) scores and (m, m) information, zero for the index variants and for what they explain fully, and (m,) True
        for the variants that are left.

    Raises:
        StatisticsError: when a position is outside the m variants or occurs twice.
    """
    m = U.shape[1]
    index = np.asarray(index, dtype=np.intp)
    if index.size and (index.min() < 0 or index.max() >= m or np.unique(index).size != index.size):
        raise StatisticsError(f"index variants {index.tolist()}: expected distinct positions below {m}")
    variance = V.diagonal()
    sd = np.sqrt(np.maximum(variance[index], 0.0))
    safe = np.where(sd > 0.0, sd, 1.0)
    # V_gc V_cc^-1 through the eigenvectors of the correlation of the index variants
    values, vectors = np.linalg.eigh(V[np.ix_(index, index)] / np.outer(safe, safe))
    kept = values > 1e-10 * max(1.0, float(values[-1]) if values.size else 1.0)
    root = (vectors[:, kept] / np.sqrt(values[kept])) / safe[:, None]
    half = V[:, index] @ root
    left_U = U - (U[:, index] @ root) @ half.T
    left_V = V - half @ half.T
    left = left_V.diagonal() > EXPLAINED * variance
    left[index] = False
    left_U[:, ~left] = 0.0
    left_V[~left, :] = 0.0
    left_V[:, ~left] = 0.0
    return left_U, 0.5 * (left_V + left_V.T), left


@dataclass(frozen=True, slots=True)
class IndexVariants:
    """Index variants of one trait in the order of their selection.

    Attributes:
        index: positions.
        log_p: natural logarithm of the p-value of each, given those before it.
    """

    index: NDArray[np.intp]
    log_p: Floats


def select_index_variants(
    U: Floats,
    V: Floats,
    scale: float = 1.0,
    *,
    candidates: NDArray[np.bool_] | None = None,
    max_log_p: float = LOG_GENOME_WIDE,
    max_variants: int = 10,
    max_r2: float = 0.9,
) -> IndexVariants:
    """Select index variants of one trait by stepwise conditioning.

    The variant with the smallest p enters, all are conditioned on it, and so on until none is below the limit
    (forward selection as in GCTA-COJO, Yang et al. 2012, Nat Genet 44:369, with exact V in place of reference LD).

    Args:
        U: (m,) scores.
        V: (m, m) information matrix.
        scale: factor of V for this trait.
        candidates: (m,) True for the variants that may be chosen, all by default.
        max_log_p: natural logarithm of the largest conditional p that lets a variant in.
        max_variants: stop after so many.
        max_r2: a variant of which more than this part is explained by those chosen is passed over.
    """
    allowed = np.ones(U.shape[0], dtype=np.bool_) if candidates is None else candidates.copy()
    variance = V.diagonal()
    chosen: list[int] = []
    log_ps: list[float] = []
    while len(chosen) < max_variants:
        left_U, left_V, left = condition_scores(U[None, :], V, np.array(chosen, dtype=np.intp))
        v = left_V.diagonal()
        free = allowed & left & (v > (1.0 - max_r2) * variance)
        log_p = np.where(free, chi2_logsf(left_U[0] ** 2 / np.where(free, v * scale, 1.0)), 0.0)
        best = int(np.argmin(log_p))
        if not log_p[best] < max_log_p:
            break
        chosen.append(best)
        log_ps.append(float(log_p[best]))
    return IndexVariants(np.array(chosen, dtype=np.intp), np.array(log_ps))
