"""The half-Cauchy combination of p-values: as the Cauchy combination, but no component can outvote the others.

A p-value becomes ``h = cot(pi p / 2)``, which is half-Cauchy under the null, never negative, and zero for p = 1.
The statistic is the mean of d of them, and p its tail for independent ones. In the Cauchy combination (Liu & Xie 2020)
a p of 0.9989 is worth -289 and silences one of 0.005, which is worth 64; here it is worth 0.002. The tail of the mean
is that of the largest, 2 / (pi t), so dependence hardly matters where p is small; where it is not, p is exact
for independent parts and not exact for correlated ones.

The Laplace transform of a half-Cauchy is ``L(s) = 2/pi f(s)``, f the auxiliary function of sine and cosine integrals,
``int exp(-s u) / (1 + u^2) du`` (DLMF 6.7). It has a cut along the negative axis, where ``L = 2 exp(+-iy) - 2/pi f(y)``
at -y (DLMF 6.4.6). Hence, from the difference of both sides of the cut,

    P(mean > t) = 1/pi int_0^inf exp(-d t y) Im[(2 exp(iy) - 2/pi f(y))^d] / y dy,

where nothing cancels for large t; nearer the bulk the transform is inverted along Talbot's contour.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import exp1, sici

from locomass.gene_tests.tails import smallest_of
from locomass.numbers import Floats

Complex = NDArray[np.complex128]

SAME = 1e-9  # difference of log p, relative, of two tests that are one
SMALL = -30.0  # log p below it enters as log h = log(2 / pi) - log p
# from statistics of exp(46) on the tail is 2 / (pi t) to rounding
TABLE_FROM, LOG_FAR, TABLE_STEP = -2.0, 46.0, 0.04
NODES = np.arange(6.0)  # of the interpolation, in steps
STEP = 0.25  # of log y, trapezoid rule
LOWEST, HIGHEST = -32.0, 5.0  # of log (d t y)
NEVER = math.log(1e-10)  # the probability of a mean so small is taken for zero
TALBOT = 24  # nodes of the contour
ASYMPTOTIC = 40.0  # |s| from which f is 1/s - 2!/s^3 + 4!/s^5 - ...
LOG_HALF_PI = math.log(0.5 * math.pi)


def half_cauchy_combine(log_p: Floats) -> Floats:
    """Return log p (T,) of the half-Cauchy combination of log p-values (d, T) with equal weights.

    NaN are left out; a lone p-value is returned as it is; NaN where nothing is left. So is a p-value that
    all share: the tests of a gene of one variant are one test.
    """
    out = np.full(log_p.shape[1], np.nan)
    known = ~np.isnan(log_p)
    smallest, largest = smallest_of(log_p), -smallest_of(-log_p)
    with np.errstate(invalid="ignore"):
        known[1:, largest - smallest <= SAME * (1.0 - smallest)] = False
        known[0, largest - smallest <= SAME * (1.0 - smallest)] = True
    log_p = np.where(known & np.isnan(log_p), smallest, log_p)
    count = known.sum(axis=0)
    out[count == 1] = np.where(known, log_p, 0.0).sum(axis=0)[count == 1]
    for d in np.unique(count[count > 1]):
        here = np.flatnonzero(count == d)
        columns = log_p[:, here].T[known[:, here].T].reshape(here.size, d)
        out[here] = mean_logsf(_log_mean(columns), int(d))
    return out


def _log_mean(log_p: Floats) -> Floats:
    """Return the logarithm of the mean over (T, d) of cot(pi p / 2), -inf where every p is 1."""
    with np.errstate(divide="ignore"):
        direct = -np.log(np.tan(0.5 * np.pi * np.exp(np.maximum(log_p, SMALL))))
        # cot(pi p / 2) = tan(pi (1 - p) / 2)
        near_one = np.log(np.tan(0.5 * np.pi * -np.expm1(np.minimum(log_p, 0.0))))
    log_h = np.where(log_p < SMALL, -LOG_HALF_PI - log_p, np.where(log_p > -0.1, near_one, direct))
    top = log_h.max(axis=1)
    if not np.isfinite(top).all():
        top = np.where(np.isfinite(top), top, 0.0)
        log_h = np.minimum(log_h, 1e300)
    with np.errstate(divide="ignore"):
        mean: Floats = top + np.log(np.exp(log_h - top[:, None]).mean(axis=1))
    return mean


def mean_logsf(log_t: Floats, d: int) -> Floats:
    """Return log P(mean of d independent half-Cauchys > exp(log_t)), (T,), from a table.

    Largest relative error of p: 1e-9 for d up to 8, 1e-8 at 40, 3e-7 at 300.
    """
    out: Floats = -LOG_HALF_PI - log_t
    inside = (log_t >= TABLE_FROM) & (log_t <= LOG_FAR)
    out[inside] += _read_table(_tabulate(d), (log_t[inside] - TABLE_FROM) / TABLE_STEP)
    out[log_t < TABLE_FROM] = compute_logsf(log_t[log_t < TABLE_FROM], d)
    return out


@lru_cache(maxsize=1024)
def _tabulate(d: int) -> Floats:
    """Return by how much log p exceeds that of one half-Cauchy's tail, at log t = TABLE_FROM, + TABLE_STEP, ..."""
    log_t = np.arange(TABLE_FROM, LOG_FAR + 2.0 * TABLE_STEP, TABLE_STEP)
    return compute_logsf(log_t, d) + LOG_HALF_PI + log_t


def _read_table(table: Floats, place: Floats) -> Floats:
    """Return a table's values between its entries, from the quintic through the six nearest (Lagrange).

    SciPy's splines would do; their import takes as long as all else that a small analysis does.
    """
    first = np.clip(np.floor(place).astype(np.int64) - 2, 0, table.size - NODES.size)
    away = (place - first)[:, None] - NODES
    out = np.zeros(place.size)
    for i, node in enumerate(NODES):
        others = np.delete(np.arange(NODES.size), i)
        out += table[first + i] * np.prod(away[:, others] / (node - NODES[others]), axis=1)
    return out


def compute_logsf(log_t: Floats, d: int) -> Floats:
    """Return what `mean_logsf` tabulates."""
    out = -LOG_HALF_PI - log_t
    bulk = log_t < math.log(2.0 + 2.0 / math.pi * math.log(d))
    out[log_t == -np.inf] = 0.0
    cut = ~bulk
    out[cut] = np.log(_along_the_cut(np.exp(log_t[cut]), d))
    talbot = bulk & (log_t > -np.inf)
    out[talbot & (_bound_below(log_t, d) < NEVER)] = 0.0
    talbot &= out != 0.0
    out[talbot] = np.log1p(-_talbot(np.exp(log_t[talbot]), d))  # p is above 0.05: nothing is lost
    return out


def _along_the_cut(t: Floats, d: int) -> Floats:
    """Return P(mean > t) for t beyond the bulk, by the trapezoid rule in log y."""
    u = np.arange(LOWEST, HIGHEST, STEP)
    y = np.exp(u)[None, :] / (d * t[:, None])
    sine, cosine = sici(y)
    f = cosine * np.sin(y) + (0.5 * np.pi - sine) * np.cos(y)
    real, imaginary = 2.0 * np.cos(y) - 2.0 / np.pi * f, 2.0 * np.sin(y)
    size = np.exp(d * 0.5 * np.log(real**2 + imaginary**2) - np.exp(u))
    p: Floats = STEP / np.pi * (size * np.sin(d * np.arctan2(imaginary, real))).sum(axis=1)
    return p


def _bound_below(log_t: Floats, d: int) -> Floats:
    """Return the logarithm of Chernoff's bound on P(mean <= t), min over s of ``d (s t + log L(s))``."""
    s = np.geomspace(1e-3, 1e3, 61)
    log_laplace = np.log(_laplace(s).real)
    bound: Floats = d * (s * np.exp(np.minimum(log_t, 50.0))[:, None] + log_laplace).min(axis=1)
    return bound


def _talbot(t: Floats, d: int) -> Floats:
    """Return P(mean <= t), the inverse of ``L(s / d)^d / s`` (Talbot 1979; Abate & Valko 2004, IJNME 60:979)."""
    theta = np.arange(1, TALBOT) * np.pi / TALBOT
    r = 0.4 * TALBOT
    node = r * theta * (1.0 / np.tan(theta) + 1j)
    weight = np.exp(node) * (1.0 + 1j * theta * (1.0 + 1.0 / np.tan(theta) ** 2) - 1j / np.tan(theta))
    s = node[None, :] / t[:, None]
    inner = (weight * _laplace(s / d) ** d / s).real.sum(axis=1)
    first = 0.5 * math.exp(r) * (_laplace(r / t / d) ** d).real * t / r
    cdf: Floats = r / (TALBOT * t) * (first + inner)
    return np.clip(cdf, 0.0, 1.0 - 1e-12)


def _laplace(at: NDArray[Any]) -> Complex:
    """Return E exp(-s X) of a half-Cauchy X for any complex s off the negative axis."""
    s = np.asarray(at, np.complex128)
    left = s.real < 0.0
    z: Complex = np.where(left, -s, s)
    large = np.abs(z) > ASYMPTOTIC
    safe = np.where(large, 1.0, z)
    f: Complex = (np.exp(-1j * safe) * exp1(-1j * safe) - np.exp(1j * safe) * exp1(1j * safe)) / 2j
    series = sum((-1.0) ** k * math.factorial(2 * k) / z ** (2 * k + 1) for k in range(8))
    f[large] = np.asarray(series)[large]
    # continued across the imaginary axis, where the factor decays
    across = np.where(left, np.where(s.imag > 0.0, -1j, 1j) * z, 0.0)
    return np.asarray(2.0 / np.pi * np.where(left, np.pi * np.exp(across) - f, f), np.complex128)
