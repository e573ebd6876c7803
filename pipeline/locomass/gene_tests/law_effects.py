"""Effects from null laws: the odds ratio whose mean score is the observed one, its error and interval.

For a binary trait ``l(b) = b U - K(b)`` is the log-likelihood of a log odds ratio b per unit of the score's sum, the
null model's part profiled out (``law.py``). So the maximum-likelihood estimate solves K'(b) = U; Firth's estimate
(Firth 1993, Biometrika 80:27) maximises ``l(b) + log(K''(b)) / 2`` and is finite when all carriers are cases. The
standard error is K''(b)^(-1/2); the 95 % interval holds the b whose (penalised) log-likelihood is within 1.92 of the
largest. For a quantitative trait the effect is U / V.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from locomass.gene_tests.law import Law
from locomass.gene_tests.law_cumulants import carrier_cumulants, law_cumulants, open_rest
from locomass.numbers import Floats

Integers = NDArray[np.int64]
HALF_CHI2 = 1.9207294103470620  # half of the 95 % quantile of chi2_1
NORMAL_95 = 1.959963984540054
FARTHEST = 60.0  # b times the largest step beyond which an estimate counts as infinite


@dataclass(frozen=True, slots=True)
class Effect:
    """Estimate of an effect per unit of the summed dosage.

    Attributes:
        beta: log odds ratio (binary), or change of the trait (quantitative).
        se: its standard error.
        low, high: 95 % interval from the profile of the likelihood; infinite where the data set no bound.
    """

    beta: float
    se: float
    low: float
    high: float


@njit(cache=True, nogil=True)
def open_law(start: Integers, step: Floats, count: Floats, mu: Floats, variance: Floats) -> tuple[Floats, Floats]:
    """Return the rest (k, 4) and the extra variance (k,) of every study; see ``law_cumulants.open_rest``."""
    nothing = np.empty(0)
    rest, extra = np.zeros((variance.shape[0], 4)), np.zeros(variance.shape[0])
    for k in range(variance.shape[0]):
        low, high = start[k], start[k + 1]
        R = carrier_cumulants(0.0, low, high, step, count, mu, nothing, nothing)[2]
        extra[k] = open_rest(low, high, step, count, mu, R, variance[k], rest[k])
    return rest, extra


@njit(cache=True, nogil=True)
def penalised(
    b: float,
    U: float,
    firth: bool,
    start: Integers,
    step: Floats,
    count: Floats,
    mu: Floats,
    rest: Floats,
    extra: Floats,
) -> tuple[float, float, float]:
    """Return the (penalised) log-likelihood at b, its slope, and K''."""
    nodes, nothing = np.zeros(extra.shape[0] + 1, np.int64), np.empty(0)
    k0, k1, k2, k3 = law_cumulants(b, start, step, count, mu, nodes, nothing, nothing, rest, extra)
    if not firth:
        return b * U - k0, U - k1, k2
    return b * U - k0 + 0.5 * math.log(max(k2, 1e-300)), U - k1 + 0.5 * k3 / max(k2, 1e-300), k2


@njit(cache=True, nogil=True)
def find_crossing(
    which: int,
    level: float,
    a: float,
    b: float,
    U: float,
    firth: bool,
    start: Integers,
    step: Floats,
    count: Floats,
    mu: Floats,
    rest: Floats,
    extra: Floats,
) -> float:
    """Return where the log-likelihood (``which`` 0) or its slope (1) is ``level``, between a and b (Chandrupatla 1997).

    Inverse quadratic interpolation where it is safe, else the middle; right to 1e-12 of the root.
    """
    law = (start, step, count, mu, rest, extra)
    at_a, at_b = penalised(a, U, firth, *law)[which] - level, penalised(b, U, firth, *law)[which] - level
    share = 0.5
    for _ in range(200):
        x = a + share * (b - a)
        at_x = penalised(x, U, firth, *law)[which] - level
        if (at_x > 0.0) == (at_a > 0.0):
            c, at_c = a, at_a
        else:
            c, b, at_c, at_b = b, a, at_b, at_a
        a, at_a = x, at_x
        width, near = abs(b - a), 1e-12 * max(abs(x), 1e-6)
        if at_x == 0.0 or width <= 2.0 * near:
            break
        share = 0.5
        place, height = (a - b) / (c - b), (at_a - at_b) / (at_c - at_b) if at_c != at_b else math.nan
        if height * height < place and (1.0 - height) ** 2 < 1.0 - place:
            share = at_a / (at_b - at_a) * at_c / (at_b - at_c)
            share += (c - a) / (b - a) * at_a / (at_c - at_a) * at_b / (at_c - at_b)
        share = min(max(share, near / width), 1.0 - near / width)
    return a if abs(at_a) < abs(at_b) else b


@njit(cache=True, nogil=True)
def estimate(
    U: float, firth: bool, start: Integers, step: Floats, count: Floats, mu: Floats, variance: Floats
) -> tuple[float, float, float, float]:
    """Return b, se, and both ends of the interval; b infinite where the likelihood has no maximum."""
    rest, extra = open_law(start, step, count, mu, variance)
    law = (start, step, count, mu, rest, extra)
    far = FARTHEST / np.abs(step).max()
    slope = penalised(0.0, U, firth, *law)[1]
    sign = 1.0 if slope >= 0.0 else -1.0
    near, b = 0.0, sign * 0.125 / math.sqrt(max(variance.sum(), 1e-300))
    while sign * penalised(b, U, firth, *law)[1] > 0.0:
        near = b
        b *= 2.0
        if abs(b) > far:
            break
    if abs(b) > far or penalised(b, U, firth, *law)[2] < 1e-9 * variance.sum():
        low = -math.inf if sign < 0.0 else _interval_end(sign * far, U, firth, -1.0, far, *law)
        high = math.inf if sign > 0.0 else _interval_end(sign * far, U, firth, 1.0, far, *law)
        return sign * math.inf, math.inf, low, high
    b = find_crossing(1, 0.0, near, b, U, firth, *law)
    k2 = penalised(b, U, firth, *law)[2]
    low = _interval_end(b, U, firth, -1.0, far, *law)
    return b, 1.0 / math.sqrt(k2), low, _interval_end(b, U, firth, 1.0, far, *law)


@njit(cache=True, nogil=True)
def _interval_end(
    best: float,
    U: float,
    firth: bool,
    sign: float,
    far: float,
    start: Integers,
    step: Floats,
    count: Floats,
    mu: Floats,
    rest: Floats,
    extra: Floats,
) -> float:
    """Return where the log-likelihood is 1.92 below its largest, on one side; infinite where it never is."""
    law = (start, step, count, mu, rest, extra)
    least = penalised(best, U, firth, *law)[0] - HALF_CHI2
    width = 1.0 / math.sqrt(max(penalised(best, U, firth, *law)[2], 1e-12))
    inside, outside = best, best + sign * min(width, far)
    while penalised(outside, U, firth, *law)[0] > least:
        inside = outside
        outside = best + 2.0 * (outside - best)
        if abs(outside) > 4.0 * far:
            return sign * math.inf
    return find_crossing(0, least, inside, outside, U, firth, *law)


@njit(cache=True, nogil=True)
def estimate_rows(
    U: Floats, firth: bool, starts: Integers, step: Floats, count: Floats, mu: Floats, variances: Floats
) -> tuple[Floats, Floats, Floats, Floats]:
    """Return effects, standard errors and intervals of many scores of a binary trait, (n,) each.

    Without groups of carriers the effect is U / V with a normal interval; without variance it is NaN.

    Args:
        U: (n,) scores.
        firth: penalise the likelihood.
        starts: (n, k + 1) where the groups of every study begin, for each score.
        step, count, mu: groups.
        variances: (n, k) of every study.
    """
    n = U.shape[0]
    b, se, low, high = np.full(n, math.nan), np.full(n, math.nan), np.full(n, math.nan), np.full(n, math.nan)
    for i in range(n):
        V = variances[i].sum()
        first, last = starts[i, 0], starts[i, -1]
        if not V > 0.0 or math.isnan(U[i]):
            continue
        if first == last:
            b[i], se[i] = U[i] / V, 1.0 / math.sqrt(V)
            low[i], high[i] = b[i] - NORMAL_95 * se[i], b[i] + NORMAL_95 * se[i]
            continue
        own = (starts[i] - first, step[first:last], count[first:last], mu[first:last], variances[i])
        b[i], se[i], low[i], high[i] = estimate(U[i], firth, *own)
    return b, se, low, high


@njit(cache=True, nogil=True)
def score_rows(
    b: Floats, U: Floats, starts: Integers, step: Floats, count: Floats, mu: Floats, variances: Floats
) -> tuple[Floats, Floats]:
    """Return what is left of every study's score at a common effect, ``U_k - K_k'(b)``, and ``K_k''(b)``, (k, n) each.

    Heterogeneity is Cochran's Q of these: ``sum_k S_k^2 / I_k``, chi-square with k - 1 degrees of freedom.

    Args:
        b: (n,) effects; what is not finite gives NaN.
        U: (k, n) scores.
        starts, step, count, mu, variances: see `estimate_rows`.
    """
    k, n = U.shape
    S, info = np.full((k, n), math.nan), np.full((k, n), math.nan)
    nodes, nothing = np.zeros(2, np.int64), np.empty(0)
    for i in range(n):
        if not math.isfinite(b[i]):
            continue
        for j in range(k):
            V = variances[i, j]
            low, high = starts[i, j], starts[i, j + 1]
            if low == high:
                S[j, i], info[j, i] = U[j, i] - V * b[i], V
                continue
            own = (np.array([0, high - low]), step[low:high], count[low:high], mu[low:high])
            rest, extra = open_law(*own, variances[i, j : j + 1])
            _, k1, k2, _ = law_cumulants(b[i], *own, nodes, nothing, nothing, rest, extra)
            S[j, i], info[j, i] = U[j, i] - k1, k2
    return S, info


def estimate_effect(law: Law, U: float, firth: bool = True) -> Effect:
    """Return the effect behind a score.

    Args:
        law: of the score; without groups, or of a quantitative trait, the effect is U / V with a normal interval.
        U: the score observed.
        firth: penalise the likelihood of a binary trait.
    """
    V = float(law.variance.sum())
    if not V > 0.0 or not math.isfinite(U):
        return Effect(math.nan, math.nan, math.nan, math.nan)
    if not law.is_binary or not law.step.size:
        beta, se = U / V, 1.0 / math.sqrt(V)
        return Effect(beta, se, beta - NORMAL_95 * se, beta + NORMAL_95 * se)
    return Effect(*estimate(float(U), firth, law.start, law.step, law.count, law.mu, law.variance))


@dataclass(frozen=True, slots=True)
class Heterogeneity:
    """Whether studies share one effect: ``Q = sum_k K_k''(b) (b_k - b)^2``, chi2 with ``df`` degrees of freedom."""

    q: float
    df: int
    effects: tuple[Effect, ...]


def compare_effects(law: Law, U: Sequence[float], firth: bool = True) -> Heterogeneity:
    """Return the effect of every study and Cochran's Q about their joint estimate.

    Args:
        law: of the sum over studies.
        U: (k,) score of every study.
        firth: see `estimate_effect`.
    """
    parts = [law.study(k) for k in range(law.variance.size)]
    joint = estimate_effect(law, float(np.sum(U)), firth)
    effects = tuple(estimate_effect(part, float(u), firth) for part, u in zip(parts, U, strict=True))
    q, seen = 0.0, 0
    for part, effect in zip(parts, effects, strict=True):
        if not math.isfinite(effect.beta) or not math.isfinite(joint.beta):
            continue
        seen += 1
        q += information(part, joint.beta) * (effect.beta - joint.beta) ** 2
    return Heterogeneity(q, max(seen - 1, 0), effects)


def information(law: Law, b: float) -> float:
    """Return K''(b), what the score tells of an effect at b; V for a quantitative trait."""
    if not law.is_binary or not law.step.size:
        return float(law.variance.sum())
    rest, extra = open_law(law.start, law.step, law.count, law.mu, law.variance)
    return float(penalised(b, 0.0, False, law.start, law.step, law.count, law.mu, rest, extra)[2])
