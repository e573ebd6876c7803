"""Tests that let the effect differ between studies, and measures of how much it does."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc

from locomass.gene_tests.base import Detail, TestResult, missing_result
from locomass.gene_tests.chi_square_mixture import mixture_logsf
from locomass.gene_tests.components import (
    CANCELLED,
    EIGENVALUE_CUT,
    MONOMORPHIC,
    Components,
    check_correlations,
    keep_positive,
)
from locomass.gene_tests.few_cases import redraw_best, redraw_tail
from locomass.gene_tests.gene_sums import weighted_eigenvalues
from locomass.gene_tests.half_cauchy import half_cauchy_combine
from locomass.gene_tests.skat_o_tail import integrate_boundary
from locomass.gene_tests.ultra_rare import pool_ultra_rare
from locomass.numbers import Floats

LOG_TINY = -600.0  # below exp of this scipy's tail loses digits, then underflows
RHO = (0.0, 0.25, 0.5, 0.75, 1.0)  # share of the effects that studies have in common
ONE_STUDY = "needs the statistics of at least two studies"


@dataclass(frozen=True, slots=True)
class Heterogeneity:
    """Cochran's Q of effects in several studies; every array has the trailing shape of the input.

    Attributes:
        q: ``sum_k v_k (b_k - b)^2`` with b_k = U_k / v_k and b = sum U_k / sum v_k.
        df: number of studies with information, less one.
        log_p: natural logarithm of P(chi2_df > q); NaN with fewer than two studies.
        i2: ``max(0, 1 - df / q)``, the share of the variation that is between studies (Higgins & Thompson 2002).
    """

    q: Floats
    df: Floats
    log_p: Floats
    i2: Floats


def cochran_q(U: Floats, v: Floats) -> Heterogeneity:
    """Return the heterogeneity of effects ``U_k / v_k`` between K studies, per variant or per burden.

    Args:
        U: (K, ...) scores of the studies.
        v: (K, ...) their information; a study with v = 0 has not seen the variant and does not count.
    """
    seen = v > 0.0
    safe = np.where(seen, v, 1.0)
    score = np.where(seen, U, 0.0)
    total = np.where(seen, v, 0.0).sum(axis=0)
    mean = score.sum(axis=0) / np.where(total > 0.0, total, 1.0)
    q = (safe * seen * (score / safe - mean) ** 2).sum(axis=0)
    df = np.maximum(seen.sum(axis=0) - 1.0, 0.0)
    log_p = log_chi2_tail(q, df)
    i2 = np.where(df > 0, np.maximum(0.0, 1.0 - df / np.where(q > 0.0, q, np.inf)), np.nan)
    return Heterogeneity(q, df, log_p, np.where(q > 0.0, i2, np.where(df > 0, 0.0, np.nan)))


def log_chi2_tail(q: Floats, df: Floats) -> Floats:
    """Return log P(chi2_df > q), elementwise; NaN where df is 0. Far in the tail by the mixture's contour."""
    shape, q, df = np.shape(q), np.ravel(q), np.ravel(df)
    log_p = np.full(q.shape, np.nan)
    some = df > 0
    tail = chdtrc(df[some], q[some])
    with np.errstate(divide="ignore"):
        log_p[some] = np.log(tail)
    for i in np.flatnonzero(some & (log_p < LOG_TINY)):
        log_p[i] = mixture_logsf(q[i : i + 1], np.ones(int(df[i])))[0][0]
    return log_p.reshape(shape)


def find_problem(c: Components, scheme: str) -> str:
    """Return why a heterogeneity test cannot be computed, or an empty text: weights, number of studies, a study's V.

    Where the sum of V is positive semi-definite, that of one study (imported, from a reference of LD) need not be.
    """

    def check_studies(own: Components, _: str) -> str:
        for number, study in enumerate(own.stats.per_study, 1):
            V = study[1]
            variance = V.diagonal()
            largest = max(float(variance.max()), 0.0)
            negative = bool((variance < -MONOMORPHIC * largest).any())
            varying = variance > MONOMORPHIC * largest
            fault = "a variance is negative" if negative else check_correlations(V, varying)
            if fault:
                return f"study {number} of the {len(own.stats.per_study)} with the gene: {fault}"
        return ""

    note = c.weight_note(scheme) or (ONE_STUDY if len(c.stats.per_study) < 2 else "")
    return note or c.once("studies", "", check_studies)


def skat_het(c: Components, scheme: str) -> TestResult:
    """Return SKAT with effects that are independent between studies: ``Q = sum_k U_k'W^2U_k``.

    The null mixture holds the eigenvalues of all W V_k W (Lee et al. 2013, AJHG 93:42, Het-Meta-SKAT).
    """
    c = pool_ultra_rare(c)
    studies, note = c.stats.per_study, find_problem(c, scheme)
    if note:
        return missing_result(c.stats.n_traits, note)
    w = c.weights(scheme)
    own = [keep_positive(weighted_eigenvalues(V, w)) for _, V, _ in studies]
    Q = sum((((U * w) ** 2).sum(axis=1) for U, _, _ in studies), start=np.zeros(c.stats.n_traits))
    log_p, error = np.full(Q.size, np.nan), np.full(Q.size, np.nan)
    for t in range(Q.size):
        mixture = keep_positive(np.concatenate([k * scale[t] for k, (_, _, scale) in zip(own, studies, strict=True)]))
        if mixture.size == 0:
            return missing_result(Q.size, "the weighted variants do not vary in any study")
        log_p[t : t + 1], error[t : t + 1] = mixture_logsf(Q[t : t + 1], mixture)
    row = TestResult(statistic=Q, log_p=log_p, p_error=error, method="saddlepoint-contour")
    return redraw_tail(c, row, w, lambda U: np.sum([((u * w) ** 2).sum(axis=1) for u in U], axis=0), by_study=True)


def skat_random_effects(c: Components, scheme: str) -> TestResult:
    """Return the random-effects variance-component test: effects that studies share, and effects that they do not.

    The effects of study k are ``W (b + g_k)``, independent ``b_j ~ (0, rho tau)`` and ``g_kj ~ (0, (1 - rho) tau)``:
    rho = 1 is SKAT, rho = 0 SKAT-Het (the hierarchy of Tang & Lin 2014, Genetic Epidemiology 38:389, whose two variance
    components are tau rho and tau (1 - rho)). With K studies the score test of tau = 0 at a given rho is

        Q_rho = rho (sum_k U_k)'W^2(sum_k U_k) + (1 - rho) sum_k U_k'W^2U_k,

    a chi-square mixture with the eigenvalues of ``L'(R_rho x I)L``, R_rho having 1 on the diagonal and rho beside it,
    and L block diagonal with ``L_k L_k' = W V_k W``. Since rho is unknown under the null, the p-values of
    rho = 0, 1/4, ..., 1 are combined by Cauchy's distribution, which needs no independence and is exact in the tail
    (Liu & Xie 2020). Assumes that U_k are normal and independent between studies.
    """
    c = pool_ultra_rare(c)
    studies, note = c.stats.per_study, find_problem(c, scheme)
    if note:
        return missing_result(c.stats.n_traits, note)
    w, n_traits = c.weights(scheme), c.stats.n_traits
    scores = np.array([U * w for U, _, _ in studies])
    shared, own = (scores.sum(axis=0) ** 2).sum(axis=1), (scores**2).sum(axis=(0, 2))
    log_p, error = np.full((len(RHO), n_traits), np.nan), np.full((len(RHO), n_traits), np.nan)
    for t in range(n_traits):
        gram, blocks = _cross_study_gram([w[:, None] * (V * scale[t]) * w for _, V, scale in studies])
        for r, rho in enumerate(RHO):
            mixture = keep_positive(np.linalg.eigvalsh(np.where(blocks, gram, rho * gram)))
            if mixture.size == 0:
                return missing_result(n_traits, "the weighted variants do not vary in any study")
            Q = rho * shared[t : t + 1] + (1 - rho) * own[t : t + 1]
            log_p[r, t : t + 1], error[r, t : t + 1] = mixture_logsf(Q, mixture)
    best = np.argmin(np.where(np.isnan(log_p), np.inf, log_p), axis=0)
    rho = np.array(RHO)[best]
    row = TestResult(
        statistic=rho * shared + (1 - rho) * own,
        log_p=half_cauchy_combine(log_p),
        p_error=error.max(axis=0),
        method="half-cauchy of saddlepoint-contour",
        detail=Detail(rho=rho),
    )
    return redraw_best(c, row, w, np.array(RHO), lambda U: _shared_and_own(np.array(U) * w), by_study=True)


def _shared_and_own(scores: Floats) -> Floats:
    """Return Q_rho (R, T) of weighted scores (K, T, m), rho as in `RHO`."""
    shared, own = (scores.sum(axis=0) ** 2).sum(axis=1), (scores**2).sum(axis=(0, 2))
    return np.array([rho * shared + (1 - rho) * own for rho in RHO])


def _cross_study_gram(A: list[Floats]) -> tuple[Floats, NDArray[np.bool_]]:
    """Return the matrix of ``L_k'L_l`` over all pairs of studies, with ``L_k L_k' = A_k``, and its diagonal blocks."""
    roots, owner = [], []
    for k, matrix in enumerate(A):
        values, vectors = np.linalg.eigh(matrix)
        kept = values > EIGENVALUE_CUT * max(float(values[-1]), 0.0)
        roots.append(vectors[:, kept] * np.sqrt(values[kept]))
        owner.append(np.full(int(kept.sum()), k))
    L, study = np.concatenate(roots, axis=1), np.concatenate(owner)
    return L.T @ L, study[:, None] == study


def _study_burdens(c: Components, scheme: str) -> tuple[Floats, Floats]:
    """Return the burden of every study, U and v, (K, T); v = 0 where it does not vary."""
    w = c.weights(scheme)
    U = np.array([U_k @ w for U_k, _, _ in c.stats.per_study])
    v = np.array([_variance(V_k, w) * scale for _, V_k, scale in c.stats.per_study])
    return U, v


def _variance(V: Floats, w: Floats) -> float:
    variance = float(w @ V @ w)
    return variance if variance > CANCELLED * float((w * w) @ V.diagonal()) else 0.0


def burden_het(c: Components, scheme: str) -> TestResult:
    """Return the burden test whose effect is free in every study: ``sum_k (w'U_k)^2 / (w'V_k w)``, chi2_K.

    The detail holds Cochran's Q, its log p and I2, which ask whether the effects differ, not whether there is one.
    """
    note = find_problem(c, scheme)
    if note:
        return missing_result(c.stats.n_traits, note)
    U, v = _study_burdens(c, scheme)
    seen = v > 0.0
    if not seen.any():
        return missing_result(c.stats.n_traits, "the burden does not vary in any study")
    statistic = np.where(seen, U * U / np.where(seen, v, 1.0), 0.0).sum(axis=0)
    log_p, error = mixture_logsf(statistic, np.ones(int(seen[:, 0].sum())))
    differ = cochran_q(U, v)
    row = TestResult(
        statistic=statistic,
        log_p=log_p,
        p_error=error,
        method="chi2",
        detail=Detail(
            cochran_q=differ.q, log_p_heterogeneity=differ.log_p, i2=differ.i2, df=np.asarray(seen.sum(axis=0))
        ),
    )
    w = c.weights(scheme)
    # v of one trait: laws of several traits are of one study, and there is no heterogeneity
    part = np.where(seen, 1.0 / np.where(seen, v, 1.0), 0.0)[:, 0]
    return redraw_tail(
        c, row, w, lambda S: np.einsum("k,kb->b", part, np.array([u @ w for u in S]) ** 2), by_study=True
    )


def random_effects(c: Components, scheme: str) -> TestResult:
    """Return the joint test of a mean effect and of variation around it, for burdens (after Tang & Lin 2014).

    ``b_k ~ N(mu, tau^2)``. The scores of mu and tau^2 at zero are ``S = sum U_k`` and ``D = (sum U_k^2 - sum v_k) /
    2``, uncorrelated with variances ``sum v_k`` and ``sum v_k^2 / 2`` (Genetic Epidemiology 38:389). The statistic is

        T = S^2 / sum v_k + max(0, D)^2 / (sum v_k^2 / 2),

    one-sided in tau^2 because a variance cannot be negative. Its p-value is exact for normal U_k: given S, sum U_k^2
    is a noncentral chi-square mixture, and what remains is an integral over S.
    """
    note = find_problem(c, scheme)
    if note:
        return missing_result(c.stats.n_traits, note)
    U, v = _study_burdens(c, scheme)
    n_traits = U.shape[1]
    statistic, log_p, error = np.full(n_traits, np.nan), np.full(n_traits, np.nan), np.full(n_traits, np.nan)
    for t in range(n_traits):
        seen = v[:, t] > 0.0
        if np.count_nonzero(seen) < 2:
            return missing_result(n_traits, "the burden varies in fewer than two studies")
        statistic[t], log_p[t], error[t] = mean_and_variance_test(U[seen, t], v[seen, t])
    row = TestResult(statistic=statistic, log_p=log_p, p_error=error, method="saddlepoint-contour")
    w, (own,) = c.weights(scheme), v[:, :1].T
    return redraw_tail(c, row, w, lambda S: mean_and_variance(np.array([u @ w for u in S]), own), by_study=True)


def mean_and_variance(U: Floats, v: Floats) -> Floats:
    """Return T (B,) of `random_effects` of scores (K, B) with variances (K,); studies without variance add nothing."""
    S = np.where(v > 0.0, U.T, 0.0)
    total = float(v.sum())
    excess = np.maximum(0.0, (S * S).sum(axis=1) - total)
    out: Floats = S.sum(axis=1) ** 2 / total + excess**2 / (2.0 * float(v @ v))
    return out


def mean_and_variance_test(U: Floats, v: Floats) -> tuple[float, float, float]:
    """Return T, log p and the relative error of p, of (K,) scores and variances of K >= 2 studies."""
    total, spread = float(v.sum()), 2.0 * float(v @ v)
    excess = max(0.0, float(U @ U) - total)
    statistic = float(U.sum()) ** 2 / total + excess * excess / spread
    if not math.isfinite(statistic):
        return math.nan, math.nan, math.nan
    if statistic == 0.0:
        return 0.0, 0.0, 0.0
    rest, vectors = np.linalg.eigh(np.diag(v) - np.outer(v, v / total))
    rest, vectors = rest[1:], vectors[:, 1:]  # the first is the burden itself
    shift = (v @ vectors) ** 2 / total
    # sum U_k^2 = (burden)^2 / K + what the mixture describes
    root = np.array([total, spread, statistic, total / v.size])
    breaks = np.array([0.0, math.sqrt(statistic)])
    none = np.empty(0)
    log_p, error = integrate_boundary(breaks, none, none, root, np.maximum(rest, 0.0), shift)
    return statistic, min(log_p, 0.0), error
