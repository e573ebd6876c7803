"""Upper tail of a weighted sum of chi-square variables, in log space, by a contour through the saddlepoint.

For ``Q = sum_i lambda_i (g_i + d_i)^2``, g_i independent standard normal, the logarithm of the moment generating
function is ``K(s) = sum_i [-1/2 log(1 - 2 lambda_i s) + lambda_i d_i^2 s / (1 - 2 lambda_i s)]`` and

    P(Q > q) =  1/(2 pi i) * integral of exp(K(s) - s q) / s ds   along Re(s) > 0,
    P(Q < q) = -1/(2 pi i) * integral of exp(K(s) - s q) / s ds   along Re(s) < 0.

Both lines are bent into the parabola ``s(t) = s0 + a t^2 + i t`` of steepest descent through the saddlepoint s0 of
``f(s) = K(s) - s q - log|s|``, a = f'''/(6 f''). The integrand falls like exp(-a q t^2), so the trapezoid rule
converges geometrically; its nodes are doubled until two sums agree (Rice 1980, SIAM J. Sci. Stat. Comput. 1:438;
Lugannani & Rice 1980, Adv. Appl. Prob. 12:475). Only ratios to the value at s0 are summed, hence no underflow: log p is
``f(s0)`` plus the logarithm of a number of order one.

Inside, everything is scaled by the largest weight: rho_i = lambda_i / max(lambda), x = q / max(lambda), z = 2 s
max(lambda).
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from locomass.gene_tests.tails import log_chi2_isf_scalar, log_chi2_sf_scalar
from locomass.numbers import Floats

BLOCK = 16  # nodes summed at once; the compiler turns them into vector instructions
FIRST_STEP = 0.5  # of the trapezoid, in standard deviations of the integrand at the saddlepoint
MAX_DOUBLINGS = 14
MAX_BLOCKS = 4000
TOLERANCE = 1e-10


@njit(cache=True, nogil=True)
def _upper_saddle(rho: Floats, gap: Floats, nu: Floats, x: float) -> float:
    """Return ``1 - z`` for the saddlepoint z in (0, 1) of the upper tail; a rough root will do."""
    low, high = 0.0, 1.0
    total = 0.0
    for i in range(rho.shape[0]):
        total += rho[i]
    d = min(0.5, max(total, 1.0) / (x + 2.0))
    for _ in range(60):
        slope = -0.5 * x
        curve = 0.0
        for i in range(rho.shape[0]):
            denominator = gap[i] + rho[i] * d
            kappa = rho[i] / denominator
            eta = nu[i] / (denominator * denominator)
            slope += 0.5 * (kappa + eta)
            curve -= kappa * (0.5 * kappa + eta)
        # the root of h = d (1 - d) slope - d has the same sign as f', and is nearly linear
        value = d * (1.0 - d) * slope - d
        if value > 0.0:
            low = d
        else:
            high = d
        step = value / ((1.0 - 2.0 * d) * slope + d * (1.0 - d) * curve - 1.0)
        new = d - step
        if not (low < new < high):
            new = math.sqrt(max(low, 1e-3 * high) * high) if high < 0.5 else 0.5 * (low + high)
        if abs(new - d) < 1e-3 * min(new, 1.0 - new):
            return new
        d = new
    return d


@njit(cache=True, nogil=True)
def _lower_saddle(rho: Floats, nu: Floats, x: float) -> float:
    """Return ``-z`` for the saddlepoint z < 0 of the lower tail."""
    low, high = 0.0, math.inf
    y = 2.0 / x
    for _ in range(80):
        slope = -0.5 * x
        curve = 0.0
        for i in range(rho.shape[0]):
            denominator = 1.0 + rho[i] * y
            kappa = rho[i] / denominator
            eta = nu[i] / (denominator * denominator)
            slope += 0.5 * (kappa + eta)
            curve -= kappa * (0.5 * kappa + eta)
        value = y * slope + 1.0
        if value > 0.0:
            low = y
        else:
            high = y
        derivative = slope + y * curve
        new = y - value / derivative if derivative < 0.0 else 2.0 * y
        if not (low < new < high):
            new = 2.0 * y if high == math.inf else 0.5 * (low + high)
        if abs(new - y) < 1e-3 * y:
            return new
        y = new
    return y


@njit(cache=True, nogil=True)
def _node_block(
    kappa: Floats, eta: Floats, noncentral: bool, z0: float, x: float, a: float, t: Floats, out: Floats, work: Floats
) -> None:
    """Write the real part of the integrand, relative to its value at z0, at the nodes t.

    With w = a t^2 + i t the factors are (1 - kappa_i w)^(-1/2), exp(eta_i w / (2 (1 - kappa_i w))), exp(-x w / 2),
    1 / (1 + w / z0) and dw/dt. The product of the square roots is one square root whose sign flips every time the
    running product, which only ever turns clockwise and by less than half a turn, passes the negative real axis.
    """
    re, im, sign = work[0], work[1], work[2]
    er, ei = work[3], work[4]
    n = t.shape[0]
    for j in range(n):
        re[j] = 1.0
        im[j] = 0.0
        sign[j] = 1.0
        er[j] = -0.5 * x * a * t[j] * t[j]
        ei[j] = -0.5 * x * t[j]
    for i in range(kappa.shape[0]):
        k = kappa[i]
        for j in range(n):
            fr = 1.0 - k * a * t[j] * t[j]
            fi = -k * t[j]
            new_re = re[j] * fr - im[j] * fi
            new_im = re[j] * fi + im[j] * fr
            sign[j] = -sign[j] if im[j] < 0.0 and new_im >= 0.0 else sign[j]
            re[j] = new_re
            im[j] = new_im
        if noncentral:
            e = 0.5 * eta[i]
            for j in range(n):
                fr = 1.0 - k * a * t[j] * t[j]
                fi = -k * t[j]
                wr = a * t[j] * t[j]
                scale = e / (fr * fr + fi * fi)
                er[j] += scale * (wr * fr + t[j] * fi)
                ei[j] += scale * (t[j] * fr - wr * fi)
        if i % 8 == 7:
            for j in range(n):
                size = abs(re[j]) + abs(im[j])
                if size > 1e45 or size < 1e-45:  # keep the product in range
                    re[j] /= size
                    im[j] /= size
                    er[j] -= 0.5 * math.log(size)
    for j in range(n):
        size = math.sqrt(re[j] * re[j] + im[j] * im[j])
        # principal square root of the product
        root_re = math.sqrt(max(0.0, 0.5 * (size + re[j])))
        root_im = math.sqrt(max(0.0, 0.5 * (size - re[j])))
        if im[j] < 0.0:
            root_im = -root_im
        # (root)(1 + w / z0) is the denominator, exp(er + i ei) (1 - 2 i a t) the numerator
        pole_re = 1.0 + a * t[j] * t[j] / z0
        pole_im = t[j] / z0
        den_re = root_re * pole_re - root_im * pole_im
        den_im = root_re * pole_im + root_im * pole_re
        c, s = math.cos(ei[j]), math.sin(ei[j])
        num_re = c + 2.0 * a * t[j] * s
        num_im = s - 2.0 * a * t[j] * c
        norm = den_re * den_re + den_im * den_im
        out[j] = sign[j] * math.exp(er[j]) * (num_re * den_re + num_im * den_im) / norm


@njit(cache=True, nogil=True)
def _contour_sum(
    kappa: Floats, eta: Floats, noncentral: bool, z0: float, x: float, a: float, width: float, tolerance: float
) -> tuple[float, float]:
    """Return the integral over t > 0 and the relative difference of the last two trapezoid sums."""
    t = np.empty(BLOCK)
    value = np.empty(BLOCK)
    work = np.empty((5, BLOCK))
    step = FIRST_STEP * width
    total = 0.5
    last = 0.0
    error = 1.0
    for level in range(MAX_DOUBLINGS):
        # level 0 takes t = h, 2h, ...; each further level the midpoints of what is there
        spacing = step if level == 0 else 2.0 * step
        start = step
        block = 0
        while True:
            largest = 0.0
            for j in range(BLOCK):
                t[j] = start + (block * BLOCK + j) * spacing
            _node_block(kappa, eta, noncentral, z0, x, a, t, value, work)
            for j in range(BLOCK):
                total += value[j]
            for j in range(BLOCK - 4, BLOCK):
                largest = max(largest, abs(value[j]))
            block += 1
            if largest < 1e-17 * abs(total) or block > MAX_BLOCKS:
                break
        current = total * step
        if level > 0:
            error = abs(current - last) / abs(current)
            if error < tolerance:
                return current, error
        last = current
        step *= 0.5
    return last, error


@njit(cache=True, nogil=True)
def _log_tail(
    rho: Floats,
    gap: Floats,
    nu: Floats,
    noncentral: bool,
    x: float,
    upper: bool,
    kappa: Floats,
    eta: Floats,
    tolerance: float,
) -> tuple[float, float]:
    """Return the logarithm of P(Q > q) or of P(Q < q), and its relative error."""
    k = rho.shape[0]
    if upper:
        d = _upper_saddle(rho, gap, nu, x)
        z0 = 1.0 - d
    else:
        z0 = -_lower_saddle(rho, nu, x)
        d = 1.0 - z0
    f0 = -0.5 * x * z0 - math.log(abs(z0))
    f2 = 1.0 / (z0 * z0)
    f3 = -2.0 / (z0 * z0 * z0)
    k3 = 0.0
    sharpest = 0.0
    limit = math.inf
    for i in range(k):
        denominator = gap[i] + rho[i] * d
        kappa[i] = rho[i] / denominator
        eta[i] = nu[i] / (denominator * denominator)
        f0 += -0.5 * math.log(denominator) + 0.5 * nu[i] * z0 / denominator
        f2 += kappa[i] * (0.5 * kappa[i] + eta[i])
        k3 += kappa[i] * kappa[i] * (kappa[i] + 3.0 * eta[i])
        sharpest = max(sharpest, kappa[i])
        if noncentral and eta[i] > 0.0:
            limit = min(limit, kappa[i] * max(0.5, (x / eta[i]) ** 2))
    # The pole at 0 would bend the upper contour to the left, where exp(-s q) grows: never less than half of K's bend.
    # It bends the lower one so far that many small weights would let it run uphill: never more than kappa / 2.
    # The essential singularity of a noncentral term, strength eta at w = 1 / kappa, must be passed at a distance.
    a = min(max(f3 + k3, 0.5 * k3) / (6.0 * f2), 0.5 * sharpest, limit)
    integral, error = 0.0, 1.0
    for _ in range(5):
        integral, error = _contour_sum(kappa, eta, noncentral, z0, x, a, 1.0 / math.sqrt(f2), tolerance)
        if error < tolerance and integral > 0.0:
            break
        a *= 0.2  # a straighter path is slower and never fails
    if not integral > 0.0:
        return math.nan, math.nan
    rounding = 2.2e-16 * (0.5 * x * abs(z0) + k + 10.0)
    return f0 + math.log(integral / math.pi), error + rounding


@njit(cache=True, nogil=True)
def _log_sf(
    rho: Floats,
    gap: Floats,
    nu: Floats,
    noncentral: bool,
    mean: float,
    x: float,
    kappa: Floats,
    eta: Floats,
    tolerance: float,
) -> tuple[float, float]:
    """Return log P(Q > q) and the relative error of p, from whichever tail is the smaller."""
    if math.isnan(x):
        return math.nan, math.nan
    if x <= 0.0:
        return 0.0, 0.0
    if x == math.inf:
        return -math.inf, 0.0
    if rho.shape[0] == 1 and not noncentral:
        return log_chi2_sf_scalar(x), 0.0
    if x > mean:
        return _log_tail(rho, gap, nu, noncentral, x, True, kappa, eta, tolerance)
    log_cdf, error = _log_tail(rho, gap, nu, noncentral, x, False, kappa, eta, tolerance)
    cdf = math.exp(log_cdf)
    if cdf >= 1.0:
        return -math.inf, 1.0
    return math.log1p(-cdf), error * cdf / (1.0 - cdf)


@njit(cache=True, nogil=True)
def _scaled_weights(lambdas: Floats) -> tuple[Floats, Floats, float]:
    """Return ``lambda / max`` and ``(max - lambda) / max`` of the positive weights, and max (NaN when unusable)."""
    top = 0.0
    count = 0
    for i in range(lambdas.shape[0]):
        if not lambdas[i] >= 0.0 or lambdas[i] == math.inf:
            return np.empty(0), np.empty(0), math.nan
        if lambdas[i] > 0.0:
            count += 1
            top = max(top, lambdas[i])
    rho = np.empty(count)
    gap = np.empty(count)
    count = 0
    for i in range(lambdas.shape[0]):
        if lambdas[i] > 0.0:
            rho[count] = lambdas[i] / top
            gap[count] = (top - lambdas[i]) / top
            count += 1
    return rho, gap, top if count > 0 else math.nan


@njit(cache=True, nogil=True)
def mixture_logsf(q: Floats, lambdas: Floats) -> tuple[Floats, Floats]:
    """Return log P(sum_i lambda_i chi2_1 > q) for many q and one set of weights.

    Args:
        q: (T,) quantiles.
        lambdas: (k,) weights >= 0; zeros are ignored.

    Returns:
        (T,) natural logarithm of p, and (T,) relative error of p as estimated from the last doubling of the nodes.
        NaN where q is NaN, or everywhere when a weight is negative or not finite, or when no weight is positive.
    """
    log_p = np.full(q.shape[0], np.nan)
    error = np.full(q.shape[0], np.nan)
    rho, gap, top = _scaled_weights(lambdas)
    if math.isnan(top):
        return log_p, error
    nu = np.zeros(rho.shape[0])
    kappa = np.empty(rho.shape[0])
    eta = np.empty(rho.shape[0])
    mean = rho.sum()
    for t in range(q.shape[0]):
        log_p[t], error[t] = _log_sf(rho, gap, nu, False, mean, q[t] / top, kappa, eta, TOLERANCE)
    return log_p, error


@njit(cache=True, nogil=True)
def mixture_logsf_scalar(q: float, lambdas: Floats, tolerance: float = TOLERANCE) -> tuple[float, float]:
    """Return log P(sum_i lambda_i chi2_1 > q) and the relative error of p, of one q; see ``mixture_logsf``."""
    rho, gap, top = _scaled_weights(lambdas)
    if math.isnan(top):
        return math.nan, math.nan
    k = rho.shape[0]
    return _log_sf(rho, gap, np.zeros(k), False, rho.sum(), q / top, np.empty(k), np.empty(k), tolerance)


@njit(cache=True, nogil=True)
def noncentral_logsf(q: float, lambdas: Floats, shift: Floats, tolerance: float = TOLERANCE) -> tuple[float, float]:
    """Return log P(sum_i (sqrt(lambda_i) g_i + sqrt(shift_i))^2 > q) and the relative error of p.

    Args:
        q: quantile.
        lambdas: (k,) weights > 0.
        shift: (k,) noncentralities in the units of q, ``shift_i = lambda_i d_i^2`` >= 0.
    """
    rho, gap, top = _scaled_weights(lambdas)
    if math.isnan(top) or rho.shape[0] != shift.shape[0]:
        return math.nan, math.nan
    nu = shift / top
    k = rho.shape[0]
    return _log_sf(rho, gap, nu, True, rho.sum() + nu.sum(), q / top, np.empty(k), np.empty(k), tolerance)


@njit(cache=True, nogil=True)
def mixture_isf(log_p: float, lambdas: Floats) -> float:
    """Return q with log P(sum_i lambda_i chi2_1 > q) = log_p, to 1e-9 of q, by a bracketed secant."""
    rho, gap, top = _scaled_weights(lambdas)
    if math.isnan(top) or not log_p < 0.0:
        return math.nan
    k = rho.shape[0]
    if k == 1:
        return float(top * log_chi2_isf_scalar(log_p))
    nu, kappa, eta = np.zeros(k), np.empty(k), np.empty(k)
    mean = float(rho.sum())
    low, high = 0.0, math.inf
    # the tail falls like exp(-x / 2) at the end, slower before
    x = mean
    value = _log_sf(rho, gap, nu, False, mean, x, kappa, eta, TOLERANCE)[0] - log_p
    slope = -0.5
    for _ in range(100):
        if value > 0.0:
            low = x
        else:
            high = x
        new = x - value / slope
        if not (low < new < high):
            new = 0.5 * (low + high) if high < math.inf else 2.0 * x
        if abs(new - x) < 1e-10 * x:
            return top * new
        new_value = _log_sf(rho, gap, nu, False, mean, new, kappa, eta, TOLERANCE)[0] - log_p
        if (new_value < value and new > x) or (new_value > value and new < x):
            slope = (new_value - value) / (new - x)
        x, value = new, new_value
    return top * x
