"""Calibrated variances of a binary trait's scores, so that U^2/V~ has the right tail (Zhao et al. 2020, SAIGE-GENE).

With few cases a score is skewed and the chi-square tail of U^2/V is wrong. For every variant with |Z| > 2 the p-value
comes from a saddlepoint approximation, or from enumeration when the minor allele was seen four times or less (ties
with the observed score count in full: with few carriers p is never too small); then

    V~_jj = U_j^2 / chi2_isf(p_j),     V~ = D^(1/2) R D^(1/2),     D = diag(V~_jj), R the correlation in V,

and once more for the burden U_b = w'U: V~ is divided by r = min(1, w'V~w / (U_b^2 / chi2_isf(p_b))).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InputError
from pipeline.gene_tests.permutation import CarrierGenotypes
from pipeline.kernels.saddlepoint import enumerate_tail, saddlepoint_log_p
from pipeline.kernels.tails import chi2_isf_log, chi2_logsf

Floats = NDArray[np.float64]
Booleans = NDArray[np.bool_]

MIN_Z = 2.0
MAX_EXACT_MAC = 4.0
LOW_EXPECTED_MAC = 10.0
UNBALANCED_SHARE = 1 / 10.5  # one to ten, rounded, or fewer
MAX_BLUR = 0.1


@dataclass(frozen=True, slots=True)
class Calibration:
    """Calibrated scores of m variants.

    Attributes:
        U: (m,) scores g'(y - mu).
        log_p: (m,) natural logarithm of the two-sided p-value; NaN for variants without variance.
        variance: (m,) calibrated variances V~_jj.
        V: (m, m) calibrated matrix D^(1/2) R D^(1/2), before the burden's correction.
        method: (m,) ``normal``, ``saddlepoint`` or ``enumeration``.
        expected_mac: (m,) minor alleles expected in the smaller class, MAC min(n1, n0) / n.
        low_expected_mac: (m,) True below 10: the score has few values.
        unbalanced: True when the smaller class is outnumbered ten to one (rounded) or more.
    """

    U: Floats
    log_p: Floats
    variance: Floats
    V: Floats
    method: tuple[str, ...]
    expected_mac: Floats
    low_expected_mac: Booleans
    unbalanced: bool


def calibrate_variances(
    genotypes: CarrierGenotypes, y: Floats, mu: Floats, X: Floats, V: Floats | None = None
) -> Calibration:
    """Calibrate the variance of each score, and the matrix with them.

    Args:
        genotypes: carriers of m variants among n samples.
        y: (n,) 0/1 phenotype.
        mu: (n,) fitted probabilities of the null model with its offset, so that X'(y - mu) = 0.
        X: (n, p) covariates, intercept included.
        V: (m, m) model variance G'WG - G'WX (X'WX)^-1 X'WG; None computes it.

    Returns:
        Scores, p-values and calibrated variances.

    Raises:
        InputError: shapes that do not agree, y other than 0/1, mu outside (0, 1).
    """
    _check(genotypes, y, mu, X)
    W = mu * (1.0 - mu)
    XtWX_inverse = np.linalg.pinv(X.T @ (W[:, None] * X))
    V = _score_variance(genotypes, W, X, XtWX_inverse) if V is None else V
    U = genotypes.multiply((y - mu)[:, None])[:, 0]
    log_p, method = _log_p(genotypes, y, mu, X, XtWX_inverse, U, np.diag(V).copy())
    variance = np.diag(V).copy()
    changed = np.array([name != "normal" for name in method], dtype=np.bool_)
    variance[changed] = U[changed] ** 2 / chi2_isf_log(log_p[changed])
    factor = np.sqrt(np.divide(variance, np.diag(V), out=np.zeros_like(variance), where=np.diag(V) > 0))
    n_cases = float(y.sum())
    smaller = min(n_cases, y.shape[0] - n_cases) / y.shape[0]
    expected = genotypes.total() * smaller
    return Calibration(
        U=U,
        log_p=log_p,
        variance=variance,
        V=V * np.outer(factor, factor),
        method=method,
        expected_mac=expected,
        low_expected_mac=expected < LOW_EXPECTED_MAC,
        unbalanced=smaller < UNBALANCED_SHARE,
    )


def calibrate_scores(genotypes: CarrierGenotypes, y: Floats, mu: Floats, X: Floats) -> Floats:
    """Return the calibrated variances V~_jj (m,) alone; see `calibrate_variances`.

    Nothing of size (m, m) is made, so that all variants of a batch can be calibrated at once.
    """
    _check(genotypes, y, mu, X)
    W = mu * (1.0 - mu)
    XtWX_inverse = np.linalg.pinv(X.T @ (W[:, None] * X))
    entries = genotypes.dosage**2 * W[genotypes.sample]
    squares = np.bincount(genotypes.variant(), weights=entries, minlength=genotypes.n_variants)
    GtWX = genotypes.multiply(W[:, None] * X)
    variance = np.asarray(squares - np.einsum("jp,pq,jq->j", GtWX, XtWX_inverse, GtWX))
    variance[variance <= 1e-10 * squares] = 0.0
    U = genotypes.multiply((y - mu)[:, None])[:, 0]
    log_p, method = _log_p(genotypes, y, mu, X, XtWX_inverse, U, variance)
    changed = np.array([name != "normal" for name in method], dtype=np.bool_)
    variance[changed] = U[changed] ** 2 / chi2_isf_log(log_p[changed])
    return variance


def calibrate_burden(
    genotypes: CarrierGenotypes,
    y: Floats,
    mu: Floats,
    X: Floats,
    calibrated_V: Floats,
    weights: Floats | None = None,
) -> float:
    """Return r = min(1, w'V~w / V_b), V_b = U_b^2 / chi2_isf(p_b); divide the whole of V~ by it.

    p_b is the saddlepoint (or exact) p-value of the burden sum_j w_j g_ij as one variant; r = 1 when |Z_b| <= 2.

    Args:
        genotypes: carriers of m variants.
        y: (n,) 0/1 phenotype.
        mu: (n,) fitted probabilities.
        X: (n, p) covariates, intercept included.
        calibrated_V: (m, m) from `calibrate_variances`.
        weights: (m,) of the burden; None for ones.
    """
    w = np.ones(genotypes.n_variants) if weights is None else weights
    if np.ptp(w) == 0 and w[0] != 0:
        w = np.ones_like(w)  # counts, whose score moves in steps of one; r does not depend on the scale of w
    n = genotypes.n_samples
    summed = np.bincount(genotypes.sample, weights=w[genotypes.variant()] * genotypes.dosage, minlength=n)
    burden = np.asarray(summed, dtype=np.float64)
    sample = np.flatnonzero(burden)
    alone = CarrierGenotypes(np.array([0, sample.size]), sample, burden[sample], n)
    one = calibrate_variances(alone, y, mu, X)
    if one.method[0] == "normal" or one.variance[0] <= 0:
        return 1.0
    return min(1.0, float(w @ calibrated_V @ w) / float(one.variance[0]))


def _check(genotypes: CarrierGenotypes, y: Floats, mu: Floats, X: Floats) -> None:
    """Raise InputError unless the arrays fit together."""
    n = genotypes.n_samples
    if y.shape != (n,) or mu.shape != (n,) or X.ndim != 2 or X.shape[0] != n:
        raise InputError(f"genotypes are of {n} samples; y, mu, X have shapes {y.shape}, {mu.shape}, {X.shape}")
    if not np.all((y == 0) | (y == 1)):
        raise InputError("a binary phenotype is coded 0 and 1; recode it, or drop missing values first")
    if not np.all((mu > 0) & (mu < 1)):
        raise InputError("fitted probabilities must lie between 0 and 1, both excluded")


def _score_variance(genotypes: CarrierGenotypes, W: Floats, X: Floats, XtWX_inverse: Floats) -> Floats:
    """Return G'WG - G'WX (X'WX)^-1 X'WG."""
    rows, at = np.unique(genotypes.sample, return_inverse=True)
    dense = np.zeros((rows.size, genotypes.n_variants))
    dense[at, genotypes.variant()] = genotypes.dosage
    GtWX = genotypes.multiply(W[:, None] * X)
    V: Floats = dense.T @ (W[rows, None] * dense) - GtWX @ XtWX_inverse @ GtWX.T
    return V


def _log_p(
    genotypes: CarrierGenotypes, y: Floats, mu: Floats, X: Floats, XtWX_inverse: Floats, U: Floats, variance: Floats
) -> tuple[Floats, tuple[str, ...]]:
    """Return log p (m,) and how each was computed."""
    known = variance > 0
    log_p = np.full(U.shape[0], np.nan)
    log_p[known] = chi2_logsf(U[known] ** 2 / variance[known])
    large = known & (variance * MIN_Z**2 < U**2)
    exact = large & (genotypes.total() <= MAX_EXACT_MAC)
    spa = large & ~exact
    called, whole = _round_calls(genotypes)
    saddlepoint_log_p(
        called.indptr.astype(np.int64),
        called.sample.astype(np.int64),
        called.dosage.astype(np.float64),
        mu.astype(np.float64),
        np.ascontiguousarray(X, dtype=np.float64),
        XtWX_inverse,
        called.multiply((y - mu)[:, None])[:, 0],
        whole,
        spa,
        log_p,
    )
    for j in np.flatnonzero(exact):
        log_p[j] = _enumerate(called, int(j), y, mu)
    names = np.where(exact, "enumeration", np.where(spa, "saddlepoint", "normal"))
    return log_p, tuple(str(name) for name in names)


def _round_calls(genotypes: CarrierGenotypes) -> tuple[CarrierGenotypes, Booleans]:
    """Return dosages rounded to whole numbers, for variants with none further than ``MAX_BLUR`` from one.

    Imputed calls (2f) blur the atoms of a score by next to nothing, yet their own continuous part would hide that the
    score moves in steps of one. Real dosages and weighted burdens stay as they are.
    """
    nearest = np.rint(genotypes.dosage)
    whole = np.ones(genotypes.n_variants, dtype=np.bool_)
    whole[genotypes.variant()[np.abs(genotypes.dosage - nearest) > MAX_BLUR]] = False
    dosage = np.where(whole[genotypes.variant()], nearest, genotypes.dosage)
    return CarrierGenotypes(genotypes.indptr, genotypes.sample, dosage, genotypes.n_samples), whole


def _enumerate(called: CarrierGenotypes, j: int, y: Floats, mu: Floats) -> float:
    """Return log p of a variant of MAC <= 4 from all outcomes of its carriers of half an allele or more."""
    lo, hi = called.indptr[j], called.indptr[j + 1]
    carrier = called.dosage[lo:hi] >= 0.5
    sample, g = called.sample[lo:hi][carrier], called.dosage[lo:hi][carrier].astype(np.float64)
    u = float(g @ (y[sample] - mu[sample]))
    return float(np.log(enumerate_tail(u, g, mu[sample])))
