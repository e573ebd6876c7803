"""Variance-component tests: SKAT, common + rare SKAT, and which variants drive them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from locomass.gene_tests.base import Detail, ScoreStatistics, TestResult, missing_result
from locomass.gene_tests.chi_square_mixture import mixture_logsf
from locomass.gene_tests.common_tests import ACAT_CHI2, SKAT_Q
from locomass.gene_tests.components import Components, keep_positive
from locomass.gene_tests.few_cases import quadratic_statistic, redraw_tail
from locomass.gene_tests.ultra_rare import pool_ultra_rare
from locomass.gene_tests.weights import compute_weights
from locomass.numbers import Floats

COMMON_WEIGHTS = "beta_0.5_0.5"
NO_VARIANCE = "the weighted variants do not vary"


def quadratic_form(Q: Floats, eigenvalues: Floats, scale: Floats) -> TestResult:
    """Return the row of ``Q ~ scale * sum_i lambda_i chi2_1``.

    Args:
        Q: (T,) statistics.
        eigenvalues: (k,) positive lambda_i; when there is none, the row says so.
        scale: (T,) factors.
    """
    if eigenvalues.size == 0:
        return missing_result(Q.shape[0], NO_VARIANCE)
    log_p, error = mixture_logsf(Q / scale, eigenvalues)
    return _mixture_row(Q, log_p, error, eigenvalues.size)


def _mixture_row(Q: Floats, log_p: Floats, error: Floats, n_eigenvalues: int) -> TestResult:
    """Return the row of a tail with so many eigenvalues."""
    method = "chi2" if n_eigenvalues == 1 else "saddlepoint-contour"
    return TestResult(statistic=Q, log_p=log_p, p_error=error, method=method)


def skat(c: Components, scheme: str) -> TestResult:
    """Return SKAT: ``Q = U'W^2U``, a mixture of chi2_1 with the eigenvalues of W V W (Wu et al. 2011, AJHG 89:82)."""
    c = pool_ultra_rare(c)
    note = c.weight_note(scheme)
    if note:
        return missing_result(c.stats.n_traits, note)
    rows = c.common(scheme)
    if rows.eigenvalues.size == 0:
        return missing_result(c.stats.n_traits, NO_VARIANCE)
    Q, log_p, error = rows.values[SKAT_Q:ACAT_CHI2]
    row = _mixture_row(Q, log_p, error, rows.eigenvalues.size)
    w = c.weights(scheme)
    return redraw_tail(c, row, w, quadratic_statistic(w))


def skat_joint(c: Components, scheme: str) -> TestResult:
    """Return the joint test of common and rare variants (Ionita-Laza et al. 2013, AJHG 92:841).

    ``Q = Q_rare / sd(Q_rare) + Q_common / sd(Q_common)``: both halves have the same variance under the null. Rare
    variants carry the weights of the scheme, common ones Beta(0.5, 0.5); one mixture accounts for the LD between them.
    """
    c = pool_ultra_rare(c)
    s, w = c.stats, c.weights(scheme).copy()
    if not s.rare.all():
        w[~s.rare] = compute_weights(COMMON_WEIGHTS, s.maf[~s.rare], {})
    if not np.isfinite(w).all():
        return missing_result(s.n_traits, c.weight_note(scheme))
    plain, w = w, _equal_shares(w, s.V, s.rare)
    weighted = s.U * w
    eigenvalues = keep_positive(np.asarray(np.linalg.eigvalsh(w[:, None] * s.V * w), np.float64))
    result = quadratic_form(np.einsum("ij,ij->i", weighted, weighted), eigenvalues, s.scale)
    if result.note:
        return result
    rare_part = np.einsum("ij,ij->i", weighted[:, s.rare], weighted[:, s.rare])
    detail = Detail(rare_part=rare_part / np.where(result.statistic > 0.0, result.statistic, 1.0))
    # sd(Q) of a trait is scale times that of V alone: the statistic has no unit
    row = replace(result, statistic=result.statistic / s.scale, detail=detail)
    if not s.laws:
        return row
    model = np.sum([own.information() for own in s.laws[0]], axis=0)  # draws know nothing of a calibrated V
    own = _equal_shares(plain, model, s.rare)
    return redraw_tail(c, row, own, quadratic_statistic(own))


def _equal_shares(w: Floats, V: Floats, rare: NDArray[np.bool_]) -> Floats:
    """Return the weights scaled such that both halves of Q have variance one under N(0, V)."""
    w = w.copy()
    for group in (rare, ~rare):
        A = w[group, None] * V[np.ix_(group, group)] * w[group]
        size = float(np.sqrt(2.0) * np.linalg.norm(A))
        w[group] = w[group] / np.sqrt(size) if size > 0.0 else 0.0
    return w


def find_drivers(stats: ScoreStatistics, scheme: str, n_top: int = 5) -> tuple[NDArray[np.intp], Floats]:
    """Return the variants that make up most of SKAT's Q.

    Returns:
        (T, n) indices of the variants, the largest first, and (T, n) their share ``w_j^2 U_j^2 / Q``; n is n_top or m.
    """
    w = compute_weights(scheme, stats.maf, stats.annotations)
    part = (stats.U * w) ** 2
    order = np.argsort(-part, axis=1, kind="stable")[:, :n_top]
    total = part.sum(axis=1, keepdims=True)
    return order, np.take_along_axis(part, order, axis=1) / np.where(total > 0.0, total, 1.0)
