"""SKAT-O: the best of eight mixtures of SKAT and burden, and the exact probability of doing that well.

``Q_rho = (1 - rho) U'W^2U + rho (w'U)^2`` for rho in ``GRID``; the statistic is the smallest p-value. Given the burden
``b = w'U = sqrt(1'A1) z``, A = W V W, the rest of Q_rho is a chi-square mixture, so the probability that some Q_rho
passes its quantile is an integral over z of a survival function (Lee, Wu & Lin 2012, Biostatistics 13:762).

Two versions share that integral:

- ``as published``: the part of Q that depends on both z and the rest enters through its variance only, and the
  quantiles of Q_rho come from Liu's four-moment match. This is R SKAT's ``optimal.adj`` with all eight rho (2.2.5
  leaves 0.16 out, and takes 0.999 for 1) and without its quadrature error.
- ``exact``: noncentral mixtures and exact quantiles. Nothing is approximated, at any p.

The published version is 4 to 14 % too small at 0.05 to 1e-3, at times by a third, and beyond 1e-5 it loses all meaning
(six orders of magnitude at 1e-37). ``skat-o`` is exact. ``skat-o-published`` is for comparisons with other programs: as
published while the smallest p is above 3e-6, exact below 3e-7, and between them a geometric mean with a weight that
moves from one to the other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.linalg import eigh_tridiagonal
from scipy.linalg.lapack import dsterf, dsytrd
from scipy.special import chdtri

from locomass.gene_tests.base import Detail, TestResult, missing_result
from locomass.gene_tests.chi_square_mixture import mixture_isf, mixture_logsf
from locomass.gene_tests.components import CANCELLED, Components, keep_positive
from locomass.gene_tests.few_cases import redraw_best, sum_scores
from locomass.gene_tests.gene_sums import power_sums
from locomass.gene_tests.skat_o_tail import integrate_boundary, line_breaks
from locomass.gene_tests.tails import chi2_isf_log, chi2_logsf, log_chi2_isf_scalar
from locomass.gene_tests.ultra_rare import pool_ultra_rare
from locomass.numbers import Floats

GRID = np.array([0.0, 0.01, 0.04, 0.09, 0.16, 0.25, 0.5, 1.0])
LOG_PUBLISHED = math.log(3e-6)
LOG_EXACT = math.log(3e-7)
NO_SHIFT = np.empty(0)
TABLE_FROM = 16  # traits from which a table pays
TABLE_STEP = 0.125
TABLE_ERROR = 1e-4
QUANTILE_ERROR = 2e-6  # relative, of p: quantiles of Q_rho and the mixture at the nodes of the integral


@dataclass(frozen=True)
class JointNull:
    """Null distribution of the eight Q_rho, from A = W V W alone.

    Attributes:
        mixtures: eigenvalues behind every Q_rho.
        burden_variance: 1'A1.
        tau: (8,) coefficient of z^2 in Q_rho.
        diagonal, off_diagonal: of A given the burden, in a basis where it is tridiagonal and 1'A points along the first
            axis, with length sqrt(reach * 1'A1).
        reach: see above.
        smallest: eigenvalues of A given the burden below this are rounding.
    """

    mixtures: tuple[Floats, ...]
    burden_variance: float
    tau: Floats
    diagonal: Floats
    off_diagonal: Floats
    reach: float
    smallest: float

    @cached_property
    def rest(self) -> Floats:
        """(k,) eigenvalues of A given the burden."""
        values = tridiagonal_eigenvalues(self.diagonal, self.off_diagonal)
        return values[values > self.smallest]

    @cached_property
    def shift(self) -> Floats:
        """(k,) noncentralities of the rest per unit of z^2."""
        values, vectors = eigh_tridiagonal(self.diagonal, self.off_diagonal)
        part: Floats = self.reach * vectors[0, values > self.smallest] ** 2
        return part

    @property
    def cross(self) -> float:
        """Variance of the term that depends on both z and the rest."""
        return 4.0 * self.reach * float(self.diagonal[0])


def joint_null(A: Floats, own: Floats) -> JointNull:
    """Return the null distribution for A = W V W (m > 1) whose eigenvalues are ``own``.

    One reduction serves all rho. A reflection H with H e_1 = -1/sqrt(m) and a tridiagonal reduction that leaves e_1
    alone give A = Z T Z' with ``Z e_1 ~ 1``. ``R_rho = (1 - rho) I + rho 11'`` is diagonal in that basis, ``r^2`` =
    1 - rho + m rho first and ``a^2`` = 1 - rho after, so ``R^(1/2) A R^(1/2)`` has the eigenvalues of T with its first
    row and column scaled by r and the others by a. A given the burden, ``A - A11'A / 1'A1``, is the Schur complement of
    T's first entry. Each is a tridiagonal problem, of order m^2.
    """
    m = A.shape[0]
    d, e = tridiagonalise(A)
    mixtures = [own]
    for rho in GRID[1:-1]:
        a2, r2 = 1.0 - rho, 1.0 - rho + m * rho
        scaled_d, scaled_e = a2 * d, a2 * e
        scaled_d[0], scaled_e[0] = r2 * d[0], math.sqrt(a2 * r2) * e[0]
        mixtures.append(keep_positive(tridiagonal_eigenvalues(scaled_d, scaled_e)))
    total, reach = m * d[0], e[0] * e[0] / d[0]
    rest = d[1:].copy()
    rest[0] -= reach
    return JointNull(
        mixtures=(*mixtures, np.array([total])),
        burden_variance=float(total),
        tau=GRID * total + (1.0 - GRID) * float(d[0] + reach),
        diagonal=rest,
        off_diagonal=e[1:].copy(),
        reach=float(reach),
        smallest=float(own.mean()) * 1e-5 if own.size else 0.0,
    )


def tridiagonalise(A: Floats) -> tuple[Floats, Floats]:
    """Return diagonal (m,) and off-diagonal (m - 1,) of T = Z'AZ, Z orthogonal with first column -1/sqrt(m)."""
    m = A.shape[0]
    v = np.full(m, 1.0 / math.sqrt(m))
    v[0] += 1.0
    beta = 2.0 / float(v @ v)
    w = beta * (A @ v)
    w -= 0.5 * beta * float(v @ w) * v
    reflected = A - np.outer(v, w) - np.outer(w, v)
    _, d, e, _, _ = dsytrd(reflected, lower=1)
    return d, e


def tridiagonal_eigenvalues(d: Floats, e: Floats) -> Floats:
    """Return the eigenvalues of a symmetric tridiagonal matrix, ascending."""
    if d.size == 1:
        return d.copy()
    values, info = dsterf(d, e)
    return values if info == 0 else eigh_tridiagonal(d, e, eigvals_only=True)


def skat_o(c: Components, scheme: str) -> TestResult:
    """Return SKAT-O with the exact null distribution at every p."""
    return _skat_o(c, scheme, only_exact=True)


def skat_o_published(c: Components, scheme: str) -> TestResult:
    """Return SKAT-O by the published integral, which R computes, where that has a meaning."""
    return _skat_o(c, scheme, only_exact=False)


def _skat_o(c: Components, scheme: str, only_exact: bool) -> TestResult:
    c = pool_ultra_rare(c)
    note = c.weight_note(scheme)
    if note:
        return missing_result(c.stats.n_traits, note)
    own = c.eigenvalues(scheme)
    if own.size == 0:
        return missing_result(c.stats.n_traits, "the weighted variants do not vary")
    log_p, Q = _component_p(c, scheme)
    best = np.argmin(np.where(np.isnan(log_p), np.inf, log_p), axis=0)
    smallest = np.take_along_axis(log_p, best[None], axis=0)[0]
    null = c.once("joint null", scheme, _joint_null_of)
    if null is None:  # Q_rho is the same up to a factor for all rho
        tail, error, method = smallest, np.zeros(smallest.size), "one-component"
    else:
        tail, error = _tails(null, smallest, only_exact)
        method = "saddlepoint-contour"
    row = TestResult(
        statistic=np.take_along_axis(Q, best[None], axis=0)[0],
        log_p=tail,
        p_error=error,
        method=method,
        detail=Detail(rho=GRID[best], log_p_min=smallest),
    )
    w = c.weights(scheme)
    return redraw_best(c, row, w, GRID, lambda U: _mixtures_of(sum_scores(U) * w))


def _joint_null_of(c: Components, scheme: str) -> JointNull | None:
    """Return the joint null, or None when only one component varies: the burden, or everything but the burden."""
    A = c.weighted_covariance(scheme)
    if len(A) < 2 or not float(A.sum()) > CANCELLED * float(np.trace(A)):
        return None
    null = joint_null(A, c.eigenvalues(scheme))
    return null if null.rest.size else None


def _component_p(c: Components, scheme: str) -> tuple[Floats, Floats]:
    """Return log p and Q of every rho, (8, T); NaN for the burden when it does not vary."""
    s = c.stats
    Q = _mixtures_of(s.U * c.weights(scheme))
    null = c.once("joint null", scheme, _joint_null_of)
    log_p = np.full(Q.shape, np.nan)
    mixtures = null.mixtures if null is not None else (c.eigenvalues(scheme),)
    for r, eigenvalues in enumerate(mixtures):
        log_p[r] = mixture_logsf(Q[r] / s.scale, eigenvalues)[0]
    return log_p, Q


def _mixtures_of(weighted: Floats) -> Floats:
    """Return Q_rho (8, T) of weighted scores (T, m)."""
    S = np.einsum("ij,ij->i", weighted, weighted)
    b = weighted.sum(axis=1)
    Q: Floats = (1.0 - GRID)[:, None] * S + GRID[:, None] * b * b
    return Q


def _tails(null: JointNull, smallest: Floats, only_exact: bool) -> tuple[Floats, Floats]:
    """Return log p and its relative error for every smallest log p.

    The probability is a function of the smallest p alone, so many traits share one table: ``log p - smallest`` where
    ``smallest`` is the two-sided tail of a normal z, at multiples of ``TABLE_STEP``, interpolated by cubics.
    """
    tail, error = np.full(smallest.size, np.nan), np.full(smallest.size, np.nan)
    direct = np.isfinite(smallest)
    if smallest.size > TABLE_FROM:
        z = np.sqrt(chi2_isf_log(smallest))
        table = direct & (z >= TABLE_STEP)
        if not only_exact:  # the change of version is too quick for the table
            table &= (smallest > LOG_PUBLISHED + 2.0) | (smallest < LOG_EXACT - 2.0)
        direct &= ~table
        first = np.floor(z[table] / TABLE_STEP).astype(np.int64) - 1
        offsets = np.arange(4)
        nodes = np.unique(first[:, None] + offsets)
        at = chi2_logsf((nodes * TABLE_STEP) ** 2)
        gains = np.array([_one_tail(null, float(log_min), only_exact)[0] for log_min in at]) - at
        values = gains[np.searchsorted(nodes, first[:, None] + offsets)]
        gain = _cubic(values, z[table] / TABLE_STEP - first)
        tail[table] = smallest[table] + np.minimum(gain, math.log(GRID.size))  # see `_one_tail`
        error[table] = TABLE_ERROR
    for t in np.flatnonzero(direct):
        tail[t], error[t] = _one_tail(null, float(smallest[t]), only_exact)
    return tail, error


def _cubic(values: Floats, x: Floats) -> Floats:
    """Return Lagrange's cubic through values (n, 4) at 0, 1, 2, 3, evaluated at x (n,)."""
    a, b, c, d = x, x - 1.0, x - 2.0, x - 3.0
    basis = np.stack((-b * c * d / 6.0, a * c * d / 2.0, -a * b * d / 2.0, a * b * c / 6.0), axis=1)
    result: Floats = np.einsum("ij,ij->i", values, basis)
    return result


def _one_tail(null: JointNull, log_min: float, only_exact: bool) -> tuple[float, float]:
    """Return log P(the smallest p is at most exp(log_min)) and its relative error."""
    if log_min >= 0.0:
        return 0.0, 0.0
    # 0: as published, 1: exact
    share = 1.0 if only_exact else min(1.0, max(0.0, (LOG_PUBLISHED - log_min) / (LOG_PUBLISHED - LOG_EXACT)))
    share *= share * (3.0 - 2.0 * share)
    log_p, error = 0.0, 0.0
    for part, tail in ((1.0 - share, _published_tail), (share, _exact_tail)):
        if part > 0.0:
            value, doubt = tail(null, log_min)
            # the union of eight events is at least as likely as one, at most eight times as likely
            within = min(max(value, log_min), log_min + math.log(GRID.size), 0.0)
            log_p += part * within
            error += part * (doubt + QUANTILE_ERROR + abs(math.expm1(value - within)))
    return log_p, error


def _published_tail(null: JointNull, log_min: float) -> tuple[float, float]:
    """Return log p with Liu's quantiles, and the cross term matched by its variance (Lee, Wu & Lin 2012)."""
    q = np.array([liu_quantile(log_min, eigenvalues) for eigenvalues in null.mixtures])
    mean = float(null.rest.sum())
    variance = 2.0 * float(null.rest @ null.rest) + null.cross
    shrink = math.sqrt(1.0 - null.cross / variance)
    keep = 1.0 - GRID[:-1]
    intercept = shrink * q[:-1] / keep + mean * (1.0 - shrink)
    slope = shrink * null.tau[:-1] / keep
    return _cross_lines(null, q[-1], intercept, slope, NO_SHIFT)


def _exact_tail(null: JointNull, log_min: float) -> tuple[float, float]:
    """Return log p with exact quantiles and the noncentral mixture that S given the burden is."""
    q = np.array([mixture_isf(log_min, eigenvalues) for eigenvalues in null.mixtures])
    keep = 1.0 - GRID[:-1]
    slope = null.tau[:-1] / keep - float(null.shift.sum())
    return _cross_lines(null, q[-1], q[:-1] / keep, slope, null.shift)


def _cross_lines(
    null: JointNull, q_burden: float, intercept: Floats, slope: Floats, shift: Floats
) -> tuple[float, float]:
    """Integrate over z up to where the burden alone, or any line, crosses."""
    falling = slope > 0.0
    crossings = intercept[falling] / slope[falling]
    z_end = math.sqrt(min(q_burden / null.burden_variance, float(crossings.min(initial=math.inf))))
    log_p, error = integrate_boundary(
        line_breaks(intercept, slope, z_end), intercept, slope, np.empty(0), null.rest, shift
    )
    return log_p, error


def liu_quantile(log_p: float, eigenvalues: Floats) -> float:
    """Return the quantile of a chi-square mixture by matching mean, variance, skewness and kurtosis (Liu et al. 2009).

    With c_k = sum lambda^k, s1 = c3 / c2^1.5 and s2 = c4 / c2^2, the matching chi-square has l degrees of freedom,
    l = 1/s2, or a^2 - 2 d with a = 1/(s1 - sqrt(s1^2 - s2)), d = s1 a^3 - a^2 when s1^2 > s2; the quantile is centred
    and scaled without its noncentrality, as in R SKAT.
    """
    c1, c2, c3, c4 = power_sums(eigenvalues)
    if eigenvalues.size == 1:
        return c1 * log_chi2_isf_scalar(log_p)
    s1, s2 = c3 / (c2 * math.sqrt(c2)), c4 / (c2 * c2)
    if s1 * s1 > s2:
        a = 1.0 / (s1 - math.sqrt(s1 * s1 - s2))
        df = a * a - 2.0 * (s1 * a**3 - a * a)
    else:
        df = 1.0 / s2
    return (float(chdtri(df, math.exp(log_p))) - df) / math.sqrt(2.0 * df) * math.sqrt(2.0 * c2) + c1
