"""Tails in log space: chi-square with one degree of freedom and its inverse, and the Cauchy combination."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from locomass.numbers import Floats

LOG_PI = math.log(math.pi)
SQRT_PI = math.sqrt(math.pi)
LOG_LARGEST = math.log(0.999)  # p-value that counts in a Cauchy combination


@njit(cache=True, nogil=True)
def log_erfc(y: float) -> float:
    """Return log erfc(y) for y >= 0, without underflow.

    Above 25 the asymptotic series ``exp(-y^2) / (y sqrt(pi)) * sum_n (-1)^n (2n - 1)!! / (2 y^2)^n`` (Abramowitz &
    Stegun 7.1.23) is cut after six terms, a relative error below 1e-15.
    """
    if y < 0.5:
        return math.log1p(-math.erf(y))
    if y < 25.0:
        return math.log(math.erfc(y))
    h = 0.5 / (y * y)
    series = -h * (1.0 - h * (3.0 - h * (15.0 - h * (105.0 - h * 945.0))))
    return -y * y - math.log(y * SQRT_PI) + math.log1p(series)


@njit(cache=True, nogil=True)
def log_chi2_sf_scalar(x: float) -> float:
    """Return log P(chi2_1 > x), NaN for NaN and 0 for x <= 0."""
    if x <= 0.0:
        return 0.0
    return log_erfc(math.sqrt(0.5 * x)) if x < math.inf else -math.inf if x == math.inf else math.nan


@njit(cache=True, nogil=True)
def log_chi2_isf_scalar(log_p: float) -> float:
    """Return x with log P(chi2_1 > x) = log_p.

    Newton's method on the concave function ``log erfc(y)``, from ``y = sqrt(-log p)``, which is never below the root,
    so the steps descend to it monotonically.
    """
    if math.isnan(log_p) or log_p > 0.0:
        return math.nan
    if log_p == 0.0:
        return 0.0
    if log_p == -math.inf:
        return math.inf
    y = math.sqrt(-log_p)
    for _ in range(60):
        value = log_erfc(y)
        # d/dy log erfc(y) = -2 / sqrt(pi) * exp(-y^2) / erfc(y)
        step = (value - log_p) / (2.0 / SQRT_PI * math.exp(-y * y - value))
        y += step
        if abs(step) <= 1e-15 * y:
            break
    return 2.0 * y * y


@njit(cache=True, nogil=True)
def chi2_logsf(x: Floats) -> Floats:
    """Return log P(chi2_1 > x) of a (T,) array."""
    out = np.empty(x.shape[0])
    for i in range(x.shape[0]):
        out[i] = log_chi2_sf_scalar(x[i])
    return out


@njit(cache=True, nogil=True)
def chi2_isf_log(log_p: Floats) -> Floats:
    """Return the chi2_1 quantile whose upper tail has the natural logarithm log_p, of a (T,) array."""
    out = np.empty(log_p.shape[0])
    for i in range(log_p.shape[0]):
        out[i] = log_chi2_isf_scalar(log_p[i])
    return out


@njit(cache=True, nogil=True)
def cauchy_combine(log_p: Floats, weights: Floats) -> Floats:
    """Return the Cauchy combination of p-values, all in natural logarithms.

    ``T = sum_i w_i cot(pi p_i) / sum_i w_i`` and ``p = arccot(T) / pi`` (Liu & Xie 2020, JASA 115:393). A p below
    1e-13 enters as ``log cot(pi p) = -log p - log pi``, so nothing is floored. A p above 0.999 counts as 0.999, as in
    REGENIE: cot(pi p) has no bound, and one term must not outvote all others. NaN and zero weights are left out; a
    single p-value is returned unchanged.

    Args:
        log_p: (d, T) one column per trait.
        weights: (d,) weights >= 0.

    Returns:
        (T,) log p, NaN where nothing is left to combine.
    """
    d, n_traits = log_p.shape
    out = np.empty(n_traits)
    for t in range(n_traits):
        count = 0
        total_weight = 0.0
        top = 0.0
        last = math.nan
        for i in range(d):
            if weights[i] > 0.0 and not math.isnan(log_p[i, t]):
                count += 1
                total_weight += weights[i]
                last = log_p[i, t]
                if last < -30.0:
                    top = max(top, math.log(weights[i]) - last - LOG_PI)
        if count < 2 or last == -math.inf:
            out[t] = last
            continue
        shrink = math.exp(-top)
        total = 0.0
        for i in range(d):
            value = log_p[i, t]
            if not weights[i] > 0.0 or math.isnan(value):
                continue
            if value < -30.0:
                total += math.exp(math.log(weights[i]) - value - LOG_PI - top)
                continue
            value = min(value, LOG_LARGEST)
            upper = -math.expm1(value)
            angle = math.exp(value) if upper > 0.5 else -upper
            total += weights[i] * shrink / math.tan(math.pi * angle)
        out[t] = _log_arccot(total / total_weight, top)
    return out


@njit(cache=True, nogil=True)
def smallest_of(values: Floats) -> Floats:
    """Return the smallest of each column (d, T) that is a number, NaN where none is."""
    out = np.full(values.shape[1], math.nan)
    for i in range(values.shape[0]):
        for t in range(values.shape[1]):
            if not values[i, t] >= out[t] and not math.isnan(values[i, t]):
                out[t] = values[i, t]
    return out


@njit(cache=True, nogil=True)
def _log_arccot(t: float, log_factor: float) -> float:
    """Return log(arccot(t * exp(log_factor)) / pi) with arccot in (0, pi)."""
    if t > 0.0 and math.log(t) + log_factor > 20.0:
        return -math.log(t) - log_factor - LOG_PI
    x = t * math.exp(log_factor) if t != 0.0 else 0.0
    if x > -1.0:
        return math.log(math.atan2(1.0, x) / math.pi)
    return math.log1p(-math.atan(-1.0 / x) / math.pi)
