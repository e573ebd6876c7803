"""Variable threshold: the best of the burdens under every frequency cut-off, with the price of the choice."""

from __future__ import annotations

import math

import numpy as np

from pipeline.gene_tests.base import Floats, TestResult, missing_result
from pipeline.gene_tests.components import CANCELLED, Components
from pipeline.gene_tests.groupings import list_frequencies
from pipeline.kernels.half_spaces import bisecting_order, mean_overlaps
from pipeline.kernels.tails import chi2_logsf

SEED = 20190124  # fixed: the same input gives the same p, and all traits of a gene share their random numbers
BOUND = 0.01  # relative error that is promised: three standard errors
IDENTICAL = 1e-10  # burdens correlated to within this of 1 are one burden
EQUAL = 1.0 - 1e-9  # of equally good thresholds the first is named, whatever rounding did to them
GRID_STEP = 0.125  # of z
GRID_ERROR = 1e-3  # of linear interpolation, relative
LARGEST = 1e6  # beyond it nothing changes


def variable_threshold(c: Components, scheme: str) -> TestResult:
    """Return ``max_t |Z_t|`` over all frequencies that occur, Z_t the burden of the variants up to that one.

    Price et al. 2010 (AJHG 86:832); from score statistics Lin & Tang 2011 (AJHG 89:354). The frequency of a variant is
    ``min(maf, 1 - maf)``.
    """
    note = c.weight_note(scheme)
    if note:
        return missing_result(c.stats.n_traits, note)
    s, w = c.stats, c.weights(scheme)
    minor = np.minimum(s.maf, 1.0 - s.maf)
    thresholds = list_frequencies(minor)
    # one column per threshold: the weights of the variants up to it
    B = np.where(minor[:, None] <= thresholds, w[:, None], 0.0)
    return variable_threshold_from_sums(s.U @ B, B.T @ s.V @ B, s.scale, thresholds)


def variable_threshold_from_sums(U: Floats, V: Floats, scale: Floats, thresholds: Floats) -> TestResult:
    """Return the variable threshold test of burdens that the caller has collapsed (dominant, recessive, any).

    Args:
        U: (T, k) score of the burden under every threshold.
        V: (k, k) their information matrix.
        scale: (T,) factors of V.
        thresholds: (k,) the cut-offs, for the report.

    Returns:
        A row whose statistic is max |Z|, whose beta and se are those of the best threshold, and whose detail names it.
    """
    k, n_traits = U.shape[1], U.shape[0]
    if V.shape != (k, k) or k == 0:
        return missing_result(n_traits, "no frequency threshold")
    variance = V.diagonal()
    varying = variance > CANCELLED * variance.max()
    if not np.isfinite(V).all() or not varying.any() or not variance.max() > 0.0:
        return missing_result(n_traits, "no burden varies under any threshold")
    U, V, thresholds, variance = U[:, varying], V[np.ix_(varying, varying)], thresholds[varying], variance[varying]
    sd = np.sqrt(variance)
    R = np.clip(V / np.outer(sd, sd), -1.0, 1.0)
    Z = np.abs(U) / (sd * np.sqrt(scale)[:, None])
    enough = EQUAL * Z.max(axis=1, keepdims=True)
    best = np.argmax(np.isnan(Z) | (enough <= Z), axis=1)  # the first, also of NaN
    rows = np.arange(n_traits)
    z = Z[rows, best]
    v = variance[best] * scale
    log_p, error, method = _tail_of_maximum(z, R)
    return TestResult(
        statistic=z,
        log_p=log_p,
        beta=U[rows, best] / v,
        se=1.0 / np.sqrt(v),
        p_error=error,
        method=method,
        detail={"threshold": thresholds[best], "n_thresholds": np.full(n_traits, thresholds.size)},
    )


def _tail_of_maximum(z: Floats, R: Floats) -> tuple[Floats, Floats, str]:
    """Return log P(max |Z| >= z), its relative standard error, and the method.

    What is sampled, ``P / (k 2 Phi(-z))``, is interpolated between the ends of the cell of z in a fixed grid, so that
    many traits share few z, and none hangs on which others there are.
    """
    R = R[np.ix_(distinct := _distinct(R), distinct)]
    k = R.shape[0]
    one = chi2_logsf(z * z)
    if k == 1 or not np.isfinite(z).any():
        return one, 0.0 * z, "chi2"
    order = bisecting_order(k)
    R = R[np.ix_(order, order)]
    values, vectors = np.linalg.eigh(R)
    # a triangular factor that exists for a singular R too: (E sqrt(L))' = QF', hence F F' = E L E' = R
    upper = np.linalg.qr((vectors * np.sqrt(np.maximum(values, 0.0))).T)[1]
    # of the factors that differ by signs, Cholesky's: rounding in R must not give other draws
    factor = (upper * np.where(upper.diagonal() < 0.0, -1.0, 1.0)[:, None]).T.copy()

    mean, error = np.full(z.size, np.nan), np.full(z.size, np.nan)
    usable = np.flatnonzero(np.isfinite(z))
    cell = np.floor(np.minimum(z[usable], LARGEST) / GRID_STEP)
    at = np.unique(np.concatenate((cell, cell + 1.0))) * GRID_STEP
    rng = np.random.Generator(np.random.PCG64(SEED))
    value, doubt = mean_overlaps(at, R, factor, rng, BOUND)
    mean[usable] = np.exp(np.interp(z[usable], at, np.log(value)))
    error[usable] = np.interp(z[usable], at, doubt) + GRID_ERROR
    return np.minimum(0.0, one + math.log(k) + np.log(mean)), error, "importance-sampling"


def _distinct(R: Floats) -> list[int]:
    """Return the indices of burdens of which none is another one again, up to its sign."""
    kept: list[int] = []
    for i in range(R.shape[0]):
        if not any(abs(R[i, j]) > 1.0 - IDENTICAL for j in kept):
            kept.append(i)
    return kept
