"""The small sums behind every gene test, fused: a gene of 40 variants must not cost forty array operations."""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from locomass.gene_tests.tails import cauchy_combine, log_chi2_sf_scalar
from locomass.numbers import Floats


@njit(cache=True, nogil=True)
def weighted_sum(U: Floats, V: Floats, w: Floats) -> tuple[Floats, float, float]:
    """Return (T,) ``U w``, ``w'Vw`` and ``sum_j w_j^2 V_jj``, what the terms have on their own.

    Args:
        U: (T, m) scores.
        V: (m, m) information matrix.
        w: (m,) weights; variants of weight zero cost nothing.
    """
    n_traits, m = U.shape
    total = np.zeros(n_traits)
    variance, own = 0.0, 0.0
    for i in range(m):
        if w[i] == 0.0:
            continue
        row = 0.0
        for j in range(m):
            row += V[i, j] * w[j]
        variance += w[i] * row
        own += w[i] * w[i] * V[i, i]
        for t in range(n_traits):
            total[t] += U[t, i] * w[i]
    return total, variance, own


@njit(cache=True, nogil=True)
def squared_sum(U: Floats, w: Floats) -> Floats:
    """Return (T,) ``sum_j (w_j U_tj)^2``."""
    out = np.zeros(U.shape[0])
    for t in range(U.shape[0]):
        for j in range(U.shape[1]):
            part = w[j] * U[t, j]
            out[t] += part * part
    return out


@njit(cache=True, nogil=True)
def combine_variants(
    U: Floats,
    V: Floats,
    scale: Floats,
    w: Floats,
    maf: Floats,
    mac: Floats,
    collapse_mac: float,
    own_weight: float,
    monomorphic: float,
    cancelled: float,
    known: Floats,
) -> tuple[Floats, Floats, int]:
    """Return the Cauchy combination of single variants and of one burden of the rarest ones.

    A term enters with weight ``w^2 f (1 - f)``; the burden's f is the sum of its frequencies and its w ``own_weight``,
    or both are means where that is NaN. It is left out when its variance is below ``cancelled`` of what its variants
    have on their own. A single rarest variant is a term of its own.

    Args:
        U: (T, m) scores.
        V: (m, m) information matrix.
        scale: (T,) factors of V.
        w, maf, mac: (m,) weights, frequencies and allele counts.
        collapse_mac: variants with at most this count enter together.
        own_weight: w of the burden at its own frequency; NaN for the rule of means.
        monomorphic: variants whose variance is at most this part of the largest are left out.
        cancelled: see above.
        known: (m + 1, T) log p of the burden and of every variant, where they are known better than by chi2_1; NaN
            elsewhere.

    Returns:
        (T,) the largest chi-square of a term with weight, (T,) log p, and the number of terms with weight. A trait
        with a score that is not a number has no result.
    """
    n_traits, m = U.shape
    top = 0.0
    for j in range(m):
        top = max(top, V[j, j])
    pooled = np.zeros(m, np.bool_)
    single = np.zeros(m, np.bool_)
    for j in range(m):
        if V[j, j] > monomorphic * top and w[j] != 0.0:
            pooled[j] = mac[j] <= collapse_mac
            single[j] = not pooled[j]
    if pooled.sum() < 2:
        single |= pooled
        pooled[:] = False
    log_p = np.full((m + 1, n_traits), math.nan)
    weight = np.zeros(m + 1)
    unknown = np.zeros(n_traits, np.bool_)
    largest = np.full(n_traits, -np.inf)
    n_terms = 0
    for term in range(m + 1):
        if term == 0:
            n_pooled, mean_w, f = 0, 0.0, 0.0
            x = np.zeros(m)
            for j in range(m):
                if pooled[j]:
                    x[j] = w[j]
                    n_pooled += 1
                    mean_w += w[j]
                    f += maf[j]
            if n_pooled == 0:
                continue
            score, v, own = weighted_sum(U, V, x)
            if not v > cancelled * own:
                continue
            if math.isnan(own_weight):
                mean_w, f = mean_w / n_pooled, f / n_pooled
            else:
                mean_w, f = own_weight, min(1.0, f)
        else:
            j = term - 1
            if not single[j]:
                continue
            score, v, mean_w, f = U[:, j].copy(), V[j, j], w[j], maf[j]
        weight[term] = mean_w * mean_w * f * (1.0 - f)
        n_terms += weight[term] > 0.0
        for t in range(n_traits):
            chi2 = score[t] * score[t] / (v * scale[t])
            log_p[term, t] = known[term, t] if not math.isnan(known[term, t]) else log_chi2_sf_scalar(chi2)
            unknown[t] |= math.isnan(chi2)
            if weight[term] > 0.0:
                largest[t] = max(largest[t], chi2)
    combined = cauchy_combine(log_p, weight)
    for t in range(n_traits):
        if unknown[t]:
            largest[t] = math.nan
            combined[t] = math.nan
    return largest, combined, n_terms


@njit(cache=True, nogil=True)
def correlate(V: Floats, varying: NDArray[np.bool_]) -> tuple[Floats, float]:
    """Return the correlation matrix (m, m), unit diagonal, zero rows where nothing varies, and its asymmetry.

    Args:
        V: (m, m) information matrix with a positive diagonal where ``varying``.
        varying: (m,).
    """
    m = V.shape[0]
    size = np.zeros(m)
    for i in range(m):
        if varying[i]:
            size[i] = 1.0 / np.sqrt(V[i, i])
    out = np.empty((m, m))
    asymmetry = 0.0
    for i in range(m):
        for j in range(m):
            out[i, j] = V[i, j] * size[i] * size[j]
        out[i, i] = 1.0
    for i in range(m):
        for j in range(i):
            asymmetry = max(asymmetry, abs(out[i, j] - out[j, i]))
    return out, asymmetry


@njit(cache=True, nogil=True)
def keep_above(values: Floats, share: float) -> Floats:
    """Return the values, in their order, above ``share`` of the mean of the positive ones (empty when none is)."""
    total, count = 0.0, 0
    for value in values:
        if value > 0.0:
            total += value
            count += 1
    if count == 0:
        return np.empty(0)
    cut = share * total / count
    out = np.empty(count)
    kept = 0
    for value in values:
        if value > 0.0 and value > cut:
            out[kept] = value
            kept += 1
    return out[:kept].copy()


@njit(cache=True, nogil=True)
def chi2_rows(total: Floats, variance: float, scale: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """Return (T,) ``u^2 / v``, log p (chi2_1), ``u / v`` and ``1 / sqrt(v)`` of sums u, ``v = scale * variance``."""
    n_traits = total.shape[0]
    statistic, log_p = np.empty(n_traits), np.empty(n_traits)
    beta, se = np.empty(n_traits), np.empty(n_traits)
    for t in range(n_traits):
        v = scale[t] * variance
        statistic[t] = total[t] * total[t] / v
        log_p[t] = log_chi2_sf_scalar(statistic[t])
        beta[t] = total[t] / v
        se[t] = 1.0 / np.sqrt(v)
    return statistic, log_p, beta, se


@njit(cache=True, nogil=True)
def power_sums(values: Floats) -> tuple[float, float, float, float]:
    """Return ``sum x``, ``sum x^2``, ``sum x^3`` and ``sum x^4``."""
    c1, c2, c3, c4 = 0.0, 0.0, 0.0, 0.0
    for x in values:
        c1 += x
        c2 += x * x
        c3 += x * x * x
        c4 += x * x * x * x
    return c1, c2, c3, c4


@njit(cache=True, nogil=True)
def beta_weights(maf: Floats, a: float, b: float, log_norm: float) -> Floats:
    """Return (m,) the Beta(a, b) density at ``p = min(maf, 1 - maf)``, 0 where it is infinite (p = 0, a < 1).

    Args:
        maf: (m,).
        a, b: parameters.
        log_norm: ``-log B(a, b)``.
    """
    out = np.empty(maf.shape[0])
    for j in range(maf.shape[0]):
        p = min(maf[j], 1.0 - maf[j])
        if p > 0.0:
            out[j] = math.exp(log_norm + (a - 1.0) * math.log(p) + (b - 1.0) * math.log1p(-p))
        else:
            out[j] = math.exp(log_norm) if a == 1.0 else 0.0
    return out


@njit(cache=True, nogil=True)
def madsen_browning_weights(maf: Floats) -> Floats:
    """Return (m,) ``1 / sqrt(p (1 - p))``, 0 at p = 0."""
    out = np.zeros(maf.shape[0])
    for j in range(maf.shape[0]):
        p = min(maf[j], 1.0 - maf[j])
        if p > 0.0:
            out[j] = 1.0 / math.sqrt(p * (1.0 - p))
    return out


@njit(cache=True, nogil=True)
def weighted_eigenvalues(V: Floats, w: Floats) -> Floats:
    """Return the eigenvalues of W V W, ascending, without the zeros of variants that do not vary (V_jj = 0).

    Args:
        V: (m, m) information matrix of one study.
        w: (m,) weights.
    """
    varying = np.flatnonzero(np.diag(V) > 0.0)
    A = np.empty((varying.size, varying.size))
    for i in range(varying.size):
        for j in range(varying.size):
            A[i, j] = w[varying[i]] * V[varying[i], varying[j]] * w[varying[j]]
    if not varying.size:
        return np.empty(0)
    return np.linalg.eigvalsh(A).astype(np.float64)
