"""Cumulant generating functions of scores: K and its derivatives at a point, and the point where K' is a given number.

Symbols as in ``law.py``. For one study, with x = t + s, c1, c2, c3 the derivatives of K_c at x and r1, r2, r3 those of
K_r at s: s solves ``c1 + r1 = 0``, and

    K = K_c(x) + K_r(s),   K' = c1,   K'' = c2 x',   K''' = c3 x'^2 + c2 x'',   x' = r2 / (r2 + c2).
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from locomass.numbers import Floats

Integers = NDArray[np.int64]
UNBOUND = 1e12  # (R - V) / V below its inverse: nothing was projected out


@njit(cache=True, nogil=True)
def add_bernoulli(x: float, g: float, n: float, mu: float, out: Floats) -> None:
    """Add K, K', K'', K''' at x of n people's ``g (y - mu)`` to ``out`` (4,)."""
    z = g * x
    if z < 0.0:
        e = math.exp(z)
        inside = 1.0 - mu + mu * e
        p = mu * e / inside
        log_inside = math.log1p(mu * math.expm1(z))
    else:
        e = math.exp(-z)
        inside = mu + (1.0 - mu) * e
        p = mu / inside
        log_inside = math.log1p(mu * math.expm1(z)) if z < 1.0 else z + math.log(inside)
    q = (1.0 - mu) / inside if z < 0.0 else (1.0 - mu) * e / inside
    out[0] += n * (log_inside - z * mu)
    out[1] += n * g * (p - mu)
    out[2] += n * g * g * p * q
    out[3] += n * g * g * g * p * q * (q - p)


@njit(cache=True, nogil=True)
def add_residuals(x: float, g: float, n: float, node: Floats, chance: Floats, out: Floats) -> None:
    """Add K, K', K'', K''' at x of n people's ``g r``, r one of the nodes, to ``out`` (4,)."""
    z = g * x
    top = -math.inf
    for i in range(node.shape[0]):
        top = max(top, z * node[i])
    m0, m1 = 0.0, 0.0
    for i in range(node.shape[0]):
        e = chance[i] * math.exp(z * node[i] - top)
        m0 += e
        m1 += e * node[i]
    m1 /= m0
    m2, m3 = 0.0, 0.0
    for i in range(node.shape[0]):
        e = chance[i] * math.exp(z * node[i] - top) / m0
        d = node[i] - m1
        m2 += e * d * d
        m3 += e * d * d * d
    out[0] += n * (top + math.log(m0))
    out[1] += n * g * m1
    out[2] += n * g * g * m2
    out[3] += n * g * g * g * m3


@njit(cache=True, nogil=True)
def carrier_cumulants(
    x: float, low: int, high: int, step: Floats, count: Floats, mu: Floats, node: Floats, chance: Floats
) -> tuple[float, float, float, float]:
    """Return K_c and three derivatives at x of the groups low to high of one study."""
    out = np.zeros(4)
    for s in range(low, high):
        if math.isnan(mu[s]):
            add_residuals(x, step[s], count[s], node, chance, out)
        else:
            add_bernoulli(x, step[s], count[s], mu[s], out)
    return out[0], out[1], out[2], out[3]


@njit(cache=True, nogil=True)
def open_rest(low: int, high: int, step: Floats, count: Floats, mu: Floats, R: float, V: float, rest: Floats) -> float:
    """Fill ``rest`` (4,) with what must cancel the carriers of one study; return what V has above R.

    ``rest``: A, infinite where V is R or more; for a binary trait the people n0, their mean m and step g, so that
    ``A = n0 g^2 m (1 - m)``, m and g as the carriers' are on average; n0 = 0 for a normal part.
    """
    rest[0], rest[1], rest[2], rest[3] = math.inf, 0.0, 0.0, 0.0
    if R <= 0.0 or V >= R * (1.0 - 1.0 / UNBOUND):
        return max(V - R, 0.0)
    A = R * V / (R - V)
    rest[0] = A
    information, mean, total = 0.0, 0.0, 0.0
    for s in range(low, high):
        if math.isnan(mu[s]):
            return 0.0
        w = count[s] * mu[s] * (1.0 - mu[s])
        information += w
        mean += w * mu[s]
        total += w * step[s]
    m = mean / information
    g = math.copysign(math.sqrt(R / information), total)
    rest[1], rest[2], rest[3] = A / (g * g * m * (1.0 - m)), m, g
    return 0.0


@njit(cache=True, nogil=True)
def rest_cumulants(s: float, rest: Floats) -> tuple[float, float, float, float]:
    """Return the cumulant generating function at s, and three derivatives, of what must cancel the carriers."""
    if rest[1] == 0.0:
        return 0.5 * rest[0] * s * s, rest[0] * s, rest[0], 0.0
    out = np.zeros(4)
    add_bernoulli(s, rest[3], rest[1], rest[2], out)
    return out[0], out[1], out[2], out[3]


@njit(cache=True, nogil=True)
def log_weight(x: float, rest: Floats) -> float:
    """Return the logarithm of how likely the rest is -x, over how likely it is 0."""
    if rest[1] == 0.0:
        return -0.5 * x * x / rest[0]
    n, m = rest[1], rest[2]
    expected = n * m
    seen = expected - x / rest[3]
    if seen <= -1.0 or seen >= n + 1.0:
        return -math.inf
    log_ways = math.lgamma(expected + 1.0) + math.lgamma(n - expected + 1.0)
    log_ways -= math.lgamma(seen + 1.0) + math.lgamma(n - seen + 1.0)
    return log_ways + (seen - expected) * (math.log(m) - math.log1p(-m))


@njit(cache=True, nogil=True)
def study_cumulants(
    t: float,
    low: int,
    high: int,
    step: Floats,
    count: Floats,
    mu: Floats,
    node: Floats,
    chance: Floats,
    rest: Floats,
    extra: float,
) -> tuple[float, float, float, float]:
    """Return K, K', K'' and K''' at t of one study; ``rest``, ``extra`` see `open_rest`."""
    c0, c1, c2, c3 = carrier_cumulants(t, low, high, step, count, mu, node, chance)
    if rest[0] == math.inf:
        return c0 + 0.5 * extra * t * t, c1 + extra * t, c2 + extra, c3
    if t == 0.0:
        near, far, s = 0.0, 0.0, 0.0
    else:  # K_c'(t + s) + K_r'(s) rises with s and changes its sign between -t and 0
        near, far = 0.0, -t
        s = -t * c2 / (rest[0] + c2)
    r0, r1, r2, r3 = rest_cumulants(s, rest)
    for _ in range(100):
        c0, c1, c2, c3 = carrier_cumulants(t + s, low, high, step, count, mu, node, chance)
        r0, r1, r2, r3 = rest_cumulants(s, rest)
        value = c1 + r1
        if abs(value) <= 1e-13 * (abs(c1) + abs(r1)) or near == far:
            break
        if (value > 0.0) == (t > 0.0):
            near = s
        else:
            far = s
        newer = s - value / (r2 + c2) if r2 + c2 > 0.0 else math.nan
        if not min(near, far) < newer < max(near, far):
            newer = 0.5 * (near + far)
        if newer == s:
            break
        s = newer
    part = r2 / (r2 + c2)
    bend = (-r3 * (1.0 - part) * c2 - r2 * c3 * part) / (r2 + c2) ** 2
    return c0 + r0, c1, c2 * part, c3 * part * part + c2 * bend


@njit(cache=True, nogil=True)
def law_cumulants(
    t: float,
    start: Integers,
    step: Floats,
    count: Floats,
    mu: Floats,
    nodes: Integers,
    node: Floats,
    chance: Floats,
    rest: Floats,
    extra: Floats,
) -> tuple[float, float, float, float]:
    """Return K, K', K'' and K''' at t, summed over studies.

    ``nodes`` (k + 1,) is where each study's residuals begin; ``rest`` (k, 4) and ``extra`` (k,) see `open_rest`.
    """
    k0, k1, k2, k3 = 0.0, 0.0, 0.0, 0.0
    for k in range(start.shape[0] - 1):
        own, odds = node[nodes[k] : nodes[k + 1]], chance[nodes[k] : nodes[k + 1]]
        c0, c1, c2, c3 = study_cumulants(t, start[k], start[k + 1], step, count, mu, own, odds, rest[k], extra[k])
        k0, k1, k2, k3 = k0 + c0, k1 + c1, k2 + c2, k3 + c3
    return k0, k1, k2, k3


@njit(cache=True, nogil=True)
def solve_cumulant(
    u: float,
    start: Integers,
    step: Floats,
    count: Floats,
    mu: Floats,
    nodes: Integers,
    node: Floats,
    chance: Floats,
    rest: Floats,
    extra: Floats,
) -> float:
    """Return t with K'(t) = u; an infinity of u's sign when K' does not reach u."""
    if u == 0.0:
        return 0.0
    law = (start, step, count, mu, nodes, node, chance, rest, extra)
    variance = law_cumulants(0.0, *law)[2]
    if variance <= 0.0:
        return math.inf if u > 0.0 else -math.inf
    sign = 1.0 if u > 0.0 else -1.0
    near, far = 0.0, u / variance
    while sign * (law_cumulants(far, *law)[1] - u) < 0.0:
        near = far
        far *= 2.0
        if abs(far) > 1e9 / math.sqrt(variance):
            return sign * math.inf
    t = 0.5 * (near + far)
    for _ in range(200):
        _, k1, k2, _ = law_cumulants(t, *law)
        if sign * (k1 - u) < 0.0:
            near = t
        else:
            far = t
        newer = t + (u - k1) / k2 if k2 > 0.0 else 0.5 * (near + far)
        if not min(near, far) < newer < max(near, far):
            newer = 0.5 * (near + far)
        if abs(newer - t) <= 1e-12 * abs(t):
            return newer
        t = newer
    return t


@njit(cache=True, nogil=True)
def reach(low: int, high: int, step: Floats, count: Floats, mu: Floats) -> tuple[float, float, float]:
    """Return the smallest and the largest centred sum of groups of a binary trait, and its mean before centring."""
    least, most, mean = 0.0, 0.0, 0.0
    for s in range(low, high):
        full = step[s] * count[s]
        mean += full * mu[s]
        least += min(full, 0.0)
        most += max(full, 0.0)
    return least - mean, most - mean, mean
