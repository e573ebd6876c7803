"""Probability that a quadratic form, given its own burden, crosses a boundary: the integral behind SKAT-O.

x ~ N(0, A), b = 1'x the burden, S = x'x. Given ``b = sqrt(1'A1) z`` the rest of S is a chi-square mixture, so

    P = P(|z| > z_end) + integral over |z| < z_end of P(S > delta(z^2) | z) phi(z) dz.

delta is the lower envelope of straight lines in z^2 (SKAT-O) or a square root (the random effects test). The survival
function is integrated, never 1 - cdf, and in log space: the integrand is scaled by its largest value. Between the
kinks of the boundary it is smooth, and adaptive Gauss-Kronrod quadrature (7, 15) converges quickly.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from locomass.gene_tests.chi_square_mixture import mixture_logsf_scalar, noncentral_logsf
from locomass.gene_tests.tails import log_erfc
from locomass.numbers import Floats

# positive abscissae and weights of the (7, 15) Gauss-Kronrod pair (Piessens et al. 1983, QUADPACK)
NODES = np.array(
    [
        0.991455371120812639206854697526329,
        0.949107912342758524526189684047851,
        0.864864423359769072789712788640926,
        0.741531185599394439863864773280788,
        0.586087235467691130294144691693013,
        0.405845151377397166906606412076961,
        0.207784955007898467600689403773245,
        0.0,
    ]
)
KRONROD = np.array(
    [
        0.022935322010529224963732008058970,
        0.063092092629978553290700663189204,
        0.104790010322250183839876322541518,
        0.140653259715525918745189590510238,
        0.169004726639267902826583426598550,
        0.190350578064785409913256402421014,
        0.204432940075298892414161999234649,
        0.209482141084727828012999174891714,
    ]
)
GAUSS = np.array(
    [
        0.129484966168869693270611432679082,
        0.279705391489276667901467771423780,
        0.381830050505118944950369775488975,
        0.417959183673469387755102040816327,
    ]
)
LOG_DENSITY = 0.5 * math.log(2.0 / math.pi)  # of |z| at 0
SQRT_HALF = math.sqrt(0.5)
MAX_INTERVALS = 400
WIDEST = 4.0
TOLERANCE = 1e-7
# difference of the last two sums of a node's contour; the last one is off by about its square
NODE_TOLERANCE = 1e-6


@njit(cache=True, nogil=True)
def _log_integrand(z: float, intercept: Floats, slope: Floats, root: Floats, lambdas: Floats, shift: Floats) -> float:
    """Return the logarithm of ``P(S > delta(z^2) | z) * density of |z|``."""
    x = z * z
    delta = math.inf
    for r in range(intercept.shape[0]):
        delta = min(delta, intercept[r] - slope[r] * x)
    if root.shape[0] > 0:
        delta = root[0] + math.sqrt(max(0.0, root[1] * (root[2] - x))) - root[3] * x
    density = LOG_DENSITY - 0.5 * x
    if delta <= 0.0:
        return density
    if shift.shape[0] > 0:
        return density + noncentral_logsf(delta, lambdas, shift * x, NODE_TOLERANCE)[0]
    return density + mixture_logsf_scalar(delta, lambdas, NODE_TOLERANCE)[0]


@njit(cache=True, nogil=True)
def _kronrod(
    low: float, high: float, intercept: Floats, slope: Floats, root: Floats, lambdas: Floats, shift: Floats
) -> tuple[float, float, float]:
    """Return the logarithm of the largest value seen, the integral and its error, both divided by that value."""
    middle = 0.5 * (low + high)
    half = 0.5 * (high - low)
    logs = np.empty(15)
    for i in range(8):
        logs[i] = _log_integrand(middle - half * NODES[i], intercept, slope, root, lambdas, shift)
        if i < 7:
            logs[14 - i] = _log_integrand(middle + half * NODES[i], intercept, slope, root, lambdas, shift)
    top = logs.max()
    if not top > -math.inf:
        return top, 0.0, 0.0
    fine = 0.0
    coarse = 0.0
    for i in range(8):
        pair = math.exp(logs[i] - top)
        if i < 7:
            pair += math.exp(logs[14 - i] - top)
        fine += KRONROD[i] * pair
        if i % 2 == 1:
            coarse += GAUSS[i // 2] * pair
    return top, half * fine, half * abs(fine - coarse)


@njit(cache=True, nogil=True)
def integrate_boundary(
    breaks: Floats, intercept: Floats, slope: Floats, root: Floats, lambdas: Floats, shift: Floats
) -> tuple[float, float]:
    """Return log P that S crosses the boundary, and its relative quadrature error.

    Args:
        breaks: (b,) increasing, from 0 to z_end: the kinks of the boundary in z = |burden| in standard deviations.
        intercept: (r,) see ``slope``.
        slope: (r,) of the lines ``delta = min_r (intercept_r - slope_r z^2)``; empty when ``root`` is given.
        root: empty, or (4,) of ``delta = root_0 + sqrt(root_1 (root_2 - z^2)) - root_3 z^2``.
        lambdas: (k,) weights of the mixture that S given z is.
        shift: (k,) noncentralities per unit of z^2, or empty for a central mixture.
    """
    low, high = np.empty(MAX_INTERVALS), np.empty(MAX_INTERVALS)
    top, value, error = np.empty(MAX_INTERVALS), np.empty(MAX_INTERVALS), np.empty(MAX_INTERVALS)
    n = 0
    for b in range(breaks.shape[0] - 1):
        pieces = max(1, math.ceil((breaks[b + 1] - breaks[b]) / WIDEST))
        width = (breaks[b + 1] - breaks[b]) / pieces
        for i in range(pieces):
            if width > 0.0 and n < MAX_INTERVALS - 1:
                low[n] = breaks[b] + i * width
                high[n] = low[n] + width
                top[n], value[n], error[n] = _kronrod(low[n], high[n], intercept, slope, root, lambdas, shift)
                n += 1
    beyond = log_erfc(breaks[-1] * SQRT_HALF)
    scale = beyond
    total, doubt = 0.0, 0.0
    while True:
        for i in range(n):
            scale = max(scale, top[i])
        total, doubt, worst, worst_error = math.exp(beyond - scale), 0.0, 0, -1.0
        for i in range(n):
            factor = math.exp(top[i] - scale)
            total += value[i] * factor
            doubt += error[i] * factor
            if error[i] * factor > worst_error:
                worst_error = error[i] * factor
                worst = i
        if not doubt > TOLERANCE * total or n >= MAX_INTERVALS:
            break
        middle = 0.5 * (low[worst] + high[worst])
        low[n], high[n] = middle, high[worst]
        high[worst] = middle
        for i in (worst, n):
            top[i], value[i], error[i] = _kronrod(low[i], high[i], intercept, slope, root, lambdas, shift)
        n += 1
    return scale + math.log(total), doubt / total


@njit(cache=True, nogil=True)
def line_breaks(intercept: Floats, slope: Floats, z_end: float) -> Floats:
    """Return 0, the kinks of ``min_r (intercept_r - slope_r z^2)`` and z_end, increasing in z."""
    breaks = np.empty(intercept.shape[0] + 2)
    breaks[0] = 0.0
    n = 1
    x = 0.0
    active = 0
    for r in range(1, intercept.shape[0]):
        if intercept[r] < intercept[active] or (intercept[r] == intercept[active] and slope[r] > slope[active]):
            active = r
    while True:
        nearest, follower = z_end * z_end, -1
        for r in range(intercept.shape[0]):
            if slope[r] > slope[active]:
                crossing = (intercept[r] - intercept[active]) / (slope[r] - slope[active])
                if x <= crossing < nearest:
                    nearest, follower = crossing, r
        if follower < 0:
            break
        x, active = nearest, follower
        breaks[n] = math.sqrt(x)
        n += 1
    breaks[n] = z_end
    return breaks[: n + 1]
