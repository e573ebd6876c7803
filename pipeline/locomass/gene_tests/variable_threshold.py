"""Variable threshold: the best of the burdens under every frequency cut-off, with the price of the choice."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from locomass.gene_tests.base import NORMAL_SCORES, Detail, ScoreStatistics, TestResult, add_note, missing_result
from locomass.gene_tests.components import CANCELLED, Components, join_variants
from locomass.gene_tests.few_cases import choose_best, draws_of, sum_scores
from locomass.gene_tests.groupings import list_frequencies
from locomass.gene_tests.law import law_of_sum
from locomass.gene_tests.law_draws import far_from_normal
from locomass.gene_tests.law_effects import estimate_effect
from locomass.gene_tests.law_tails import Ties, score_log_p
from locomass.gene_tests.tails import chi2_isf_log, chi2_logsf
from locomass.gene_tests.variable_threshold_tail import bisecting_order, mean_overlaps
from locomass.numbers import Floats

SEED = 20190124  # fixed: the same input gives the same p, and all traits of a gene share their random numbers
BOUND = 0.01  # relative error that is promised: three standard errors
IDENTICAL = 1e-10  # burdens correlated to within this of 1 are one burden
EQUAL = 1.0 - 1e-9  # of equally good thresholds the first is named, whatever rounding did to them
GRID_STEP = 0.125  # of z
GRID_ERROR = 1e-3  # of linear interpolation, relative
LARGEST = 1e6  # beyond it nothing changes
LOG_SCREEN = math.log(0.3)  # p-values above stay those of normal scores


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
    own = Components(join_variants(s, B), (), particles=c.particles, ties=c.ties, firth=c.firth)
    return best_threshold(own, thresholds)


def best_threshold(c: Components, thresholds: Floats) -> TestResult:
    """Return the variable threshold test of burdens with their laws, one a threshold.

    Where a burden's score is far from normal and p is not large, ``max |Z|`` is taken by laws: the statistic is the
    burden with the smallest p, each on its own scale, and scores are drawn (`few_cases.choose_best`). Effects of binary
    traits are odds ratios by the burden's law.

    Args:
        c: the burdens in place of variants: U (T, k), V (k, k), laws; particles, ties and firth.
        thresholds: (k,) the cut-offs.
    """
    s = c.stats
    row = variable_threshold_from_sums(s.U, s.V, s.scale, thresholds)
    if not s.laws or not np.isfinite(row.log_p).any():
        return row
    variance = s.V.diagonal()
    varying = np.flatnonzero(variance > CANCELLED * variance.max())
    seen = s if varying.size == variance.size else join_variants(s, np.eye(variance.size)[:, varying])
    own = Components(seen, (), particles=c.particles)
    return _by_laws(own, row, thresholds[varying], c.ties, c.firth)


def _by_laws(c: Components, row: TestResult, thresholds: Floats, ties: Ties, firth: bool) -> TestResult:
    """Return the row with p, threshold and effect by the laws of the burdens, all of which vary."""
    s, sd = c.stats, np.sqrt(c.stats.V.diagonal())
    out = [x.copy() for x in (row.statistic, row.log_p, _array(row.p_error, s), _array(row.detail.threshold, s))]
    effects = [x.copy() for x in (_array(row.beta, s), _array(row.se, s))]
    methods, note = set(), ""
    for t, law in enumerate(s.laws):
        best, method = int(np.searchsorted(thresholds, out[3][t])), row.method
        if thresholds.size == 1:
            alone = law_of_sum(law, np.ones(1))
            if alone.step.size:
                (out[1][t], method), out[2][t] = score_log_p(alone, float(s.U[t, 0]), ties), 0.0
        elif row.log_p[t] <= LOG_SCREEN and far_from_normal(law).any():
            unit = sd * math.sqrt(s.scale[t])
            draws = draws_of(c, t, by_study=False)
            found = choose_best(draws, lambda U, u=unit: np.abs(sum_scores(U) / u).T, [s.U[t : t + 1]], c.particles)  # type: ignore[misc]
            if found is None:
                note = NORMAL_SCORES
            else:
                best, method = found.index, found.method
                out[0][t], out[1][t], out[2][t], out[3][t] = found.statistic, found.log_p, found.error, thresholds[best]
        chosen = law_of_sum(law, np.arange(thresholds.size) == float(best))
        if chosen.is_binary and chosen.step.size:
            effect = estimate_effect(chosen, float(s.U[t, best]), firth)
            effects[0][t], effects[1][t] = effect.beta, effect.se
        else:
            v = s.V[best, best] * s.scale[t]
            effects[0][t], effects[1][t] = s.U[t, best] / v, 1.0 / math.sqrt(v)
        methods.add(method)
    detail = replace(row.detail, threshold=out[3])
    named = ", ".join(sorted(methods))
    row = replace(
        row, statistic=out[0], log_p=out[1], p_error=out[2], beta=effects[0], se=effects[1], method=named, detail=detail
    )
    return add_note(row, note)


def _array(values: Floats | None, s: ScoreStatistics) -> Floats:
    """Return the values of a row, zeros where there are none."""
    return np.zeros(s.n_traits) if values is None else values


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
        detail=Detail(threshold=thresholds[best], n_thresholds=np.full(n_traits, thresholds.size)),
    )


def best_of_laws(U: Floats, V: Floats, thresholds: Floats, log_p: Floats) -> TestResult:
    """Return the variable threshold test of one trait's burdens whose p-values come from their own laws.

    The statistic is z, the normal deviate of the smallest p_t; p is ``P(max |Z_t| >= z)`` of normal scores with the
    burdens' correlation: at least the smallest p_t, at most k times it.

    Args:
        U: (k,) score of the burden under every threshold; V: (k, k) their information matrix.
        thresholds: (k,) the cut-offs, for the report.
        log_p: (k,) of each burden; NaN where it does not vary.
    """
    row = variable_threshold_from_sums(U[None], V, np.ones(1), thresholds)
    varying = np.flatnonzero(np.isfinite(log_p))
    if not np.isfinite(row.log_p[0]) or not varying.size:
        return row
    best = int(varying[np.argmin(log_p[varying])])
    sd = np.sqrt(V.diagonal()[varying])
    R = np.clip(V[np.ix_(varying, varying)] / np.outer(sd, sd), -1.0, 1.0)
    z = np.sqrt(chi2_isf_log(log_p[best : best + 1]))
    joint, error, method = _tail_of_maximum(z, R)
    return replace(
        row,
        statistic=z,
        log_p=joint,
        p_error=error,
        beta=U[best : best + 1] / V[best, best],
        se=V[best, best : best + 1] ** -0.5,
        method=method,
        detail=replace(row.detail, threshold=thresholds[best : best + 1]),
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
