"""Tails of a binary trait's score statistic: saddlepoint approximation and exact enumeration, carriers only.

Under the null model y_i ~ Bernoulli(mu_i), W = diag(mu(1-mu)), the score of variant g is

    U = sum_i g~_i (y_i - mu_i),     g~ = g - X (X'WX)^-1 X'W g,

the covariate-adjusted genotype: at the fitted mu, X'(y - mu) = 0, so this U equals g'(y - mu), and its variance
g~'Wg~ = V_jj allows for the fit. Its cumulant generating function is

    K(t) = sum_i [ log(1 - mu_i + mu_i exp(g~_i t)) - g~_i mu_i t ].

Where g_i = 0, g~_i = -x_i'(X'WX)^-1 X'Wg is of order MAC/n and the samples are many: their sum is normal with variance
``s2 = V_jj - sum_{carriers} W_i g~_i^2`` (Dey et al. 2017), so

    K(t) = sum_{carriers} [...] + s2 t^2 / 2.

The tail at u is that of the standard normal at ``r + log(v/r)/r`` (Barndorff-Nielsen 1990), with K'(t) = u and
``r = sign(t) sqrt(2(tu - K))``. For a continuous U, ``v = t sqrt(K'')``. Hard calls make g'y a whole number, and then
the continuous formula is too small by the factor t/(1 - exp(-t)), 2 to 3 for a few cases among rare carriers;
``v = (1 - exp(-t)) sqrt(K'')`` is right for P(U >= u) at an atom u (Daniels 1987), here within 1 % of binomial tails.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pipeline.kernels.tails import log_erfc

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@njit(cache=True, nogil=True)
def cumulants(t: float, g: Floats, mu: Floats, rest: float) -> tuple[float, float, float]:
    """Return K, K' and K'' at t; ``g`` (c,) and ``mu`` (c,) are the carriers', ``rest`` is s2."""
    k0, k1, k2 = 0.5 * rest * t * t, rest * t, rest
    for i in range(g.shape[0]):
        x = g[i] * t
        if x < 0:
            shrunk = math.exp(x)
            inside = 1.0 - mu[i] + mu[i] * shrunk
            tilted = mu[i] * shrunk / inside
            log_inside = math.log1p(mu[i] * math.expm1(x))
        else:
            shrunk = math.exp(-x)
            inside = mu[i] + (1.0 - mu[i]) * shrunk
            tilted = mu[i] / inside
            log_inside = math.log1p(mu[i] * math.expm1(x)) if x < 1.0 else x + math.log(inside)
        k0 += log_inside - x * mu[i]
        k1 += g[i] * (tilted - mu[i])
        k2 += g[i] * g[i] * tilted * (1.0 - tilted)
    return k0, k1, k2


@njit(cache=True, nogil=True)
def solve_saddlepoint(u: float, g: Floats, mu: Floats, rest: float) -> float:
    """Return t > 0 with K'(t) = u for u > 0 by Newton's method inside a bracket; inf when u is out of reach."""
    lo, hi = 0.0, u / cumulants(0.0, g, mu, rest)[2]
    while cumulants(hi, g, mu, rest)[1] < u:
        lo = hi
        hi *= 2.0
        if hi > 1e12:
            return np.inf
    t = 0.5 * (lo + hi)
    for _ in range(200):
        _, k1, k2 = cumulants(t, g, mu, rest)
        if k1 < u:
            lo = t
        else:
            hi = t
        newer = t + (u - k1) / k2 if k2 > 0 else 0.5 * (lo + hi)
        if not lo < newer < hi:
            newer = 0.5 * (lo + hi)
        if abs(newer - t) <= 1e-13 * t:
            return newer
        t = newer
    return t


@njit(cache=True, nogil=True)
def log_tail(u: float, g: Floats, mu: Floats, rest: float, whole: bool) -> float:
    """Return log P(U >= u), u > 0; -inf when U cannot reach u. ``whole``: U moves in steps of one and u is an atom."""
    t = solve_saddlepoint(u, g, mu, rest)
    if t == np.inf:
        return -np.inf
    k0, _, k2 = cumulants(t, g, mu, rest)
    r = math.sqrt(max(2.0 * (t * u - k0), 0.0))
    v = (-math.expm1(-t) if whole else t) * math.sqrt(k2)
    deviate = r + math.log(v / r) / r if r > 0 and v > 0 else 0.0
    return log_erfc(deviate / math.sqrt(2.0)) - math.log(2.0)


@njit(cache=True, nogil=True)
def log_count_tail(count: float, called: Floats, g: Floats, mu: Floats, rest: float) -> float:
    """Return log P(sum called_i y_i >= count), a count above its mean; the largest count has an exact probability.

    Args:
        count: whole number.
        called: (c,) whole dosages.
        g: (c,) their adjusted values g~.
        mu: (c,) probabilities of y_i = 1.
        rest: variance of the samples without dosage.
    """
    total, mean, log_all = 0.0, 0.0, 0.0
    for i in range(called.shape[0]):
        total += called[i]
        mean += called[i] * mu[i]
        if called[i] > 0:
            log_all += math.log(mu[i])
    if count > total + 0.5:
        return -np.inf
    if count > total - 0.5:
        return log_all
    return log_tail(count - mean, g, mu, rest, True)


@njit(cache=True, nogil=True)
def log_two_sided(u: float, called: Floats, g: Floats, mu: Floats, rest: float, whole: bool) -> float:
    """Return log P(|U| >= |u|), u not nought; counts on the far side are rounded outwards to the next atom."""
    if not whole:
        first, second = log_tail(abs(u), g, mu, rest, False), log_tail(abs(u), -g, mu, rest, False)
    else:
        mean, total = float(np.sum(called * mu)), float(np.sum(called))
        slack = 1e-9 * max(total, 1.0)
        first = log_count_tail(math.ceil(mean + abs(u) - slack), called, g, mu, rest)
        second = log_count_tail(total - math.floor(mean - abs(u) + slack), called, g, 1.0 - mu, rest)
    if second > first:
        first, second = second, first
    return first if first == -np.inf else min(0.0, first + math.log1p(math.exp(second - first)))


@njit(cache=True, nogil=True)
def adjust_carriers(sample: Integers, dosage: Floats, mu: Floats, X: Floats, XtWX_inverse: Floats, g: Floats) -> float:
    """Fill ``g`` (c,) with the carriers' g~_i = g_i - x_i'(X'WX)^-1 X'Wg and return s2, the variance of the others.

    X'Wg sums over carriers alone; ``s2 = g'Wg - g'WX (X'WX)^-1 X'Wg - sum_carriers W_i g~_i^2``.
    """
    p = X.shape[1]
    XtWg = np.zeros(p)
    rest = 0.0
    for i in range(sample.shape[0]):
        s = sample[i]
        weight = mu[s] * (1.0 - mu[s]) * dosage[i]
        rest += weight * dosage[i]
        for q in range(p):
            XtWg[q] += X[s, q] * weight
    slope = np.dot(XtWX_inverse, XtWg)
    rest -= float(np.dot(slope, XtWg))
    for i in range(sample.shape[0]):
        s = sample[i]
        g[i] = dosage[i]
        for q in range(p):
            g[i] -= X[s, q] * slope[q]
        rest -= mu[s] * (1.0 - mu[s]) * g[i] * g[i]
    return max(rest, 0.0)


@njit(cache=True, nogil=True)
def saddlepoint_log_p(
    indptr: Integers,
    sample: Integers,
    dosage: Floats,
    mu: Floats,
    X: Floats,
    XtWX_inverse: Floats,
    U: Floats,
    whole: NDArray[np.bool_],
    wanted: NDArray[np.bool_],
    log_p: Floats,
) -> None:
    """Fill ``log_p`` (m,), the natural logarithm of P(|U_j| >= |u_j|), for wanted variants.

    Args:
        indptr: (m + 1,) where each variant's carriers begin.
        sample: (nnz,) sample numbers.
        dosage: (nnz,) dosages.
        mu: (n,) fitted probabilities of the null model, offset included.
        X: (n, p) its covariates, intercept included.
        XtWX_inverse: (p, p).
        U: (m,) observed scores g'(y - mu), not nought.
        whole: (m,) True where all dosages are whole numbers, so that U moves in steps of one.
        wanted: (m,) variants to do.
        log_p: (m,) result.
    """
    for j in range(U.shape[0]):
        if wanted[j]:
            lo, hi = indptr[j], indptr[j + 1]
            g = np.empty(hi - lo)
            rest = adjust_carriers(sample[lo:hi], dosage[lo:hi], mu, X, XtWX_inverse, g)
            log_p[j] = log_two_sided(U[j], dosage[lo:hi], g, mu[sample[lo:hi]], rest, whole[j])


@njit(cache=True, nogil=True)
def enumerate_tail(u: float, g: Floats, mu: Floats) -> float:
    """Return P(|sum_i g_i (y_i - mu_i)| >= |u|) over all 2^c outcomes of c carriers, exactly.

    Outcomes are equal to u up to rounding (1e-9 of sum |g|) or not; ties count.
    """
    c = g.shape[0]
    near = abs(u) - 1e-9 * np.sum(np.abs(g))
    total = 0.0
    for outcome in range(1 << c):
        value, chance = 0.0, 1.0
        for i in range(c):
            if (outcome >> i) & 1:
                value += g[i] * (1.0 - mu[i])
                chance *= mu[i]
            else:
                value -= g[i] * mu[i]
                chance *= 1.0 - mu[i]
        if abs(value) >= near:
            total += chance
    return total
