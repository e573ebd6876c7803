"""Null laws of scores from the definition: all outcomes, plain convolution, dense logistic regression."""

from __future__ import annotations

import itertools
import math

import numpy as np
from scipy.optimize import minimize, minimize_scalar


def enumerate_outcomes(g, mu):
    """Every value of sum g_i (y_i - mu_i) and its probability, over all 2^n outcomes."""
    values, chances = [], []
    for y in itertools.product((0, 1), repeat=len(g)):
        y = np.array(y)
        values.append(float(np.sum(g * (y - mu))))
        chances.append(float(np.prod(np.where(y == 1, mu, 1 - mu))))
    return np.array(values), np.array(chances)


def count_law(g, mu):
    """Probabilities of sum g_i y_i = 0, 1, ..., g_i whole numbers, person by person."""
    chance = np.ones(1)
    for gi, mi in zip(g, mu, strict=True):
        chance = np.convolve(chance, np.concatenate([[1 - mi], np.zeros(int(gi) - 1), [mi]]))
    return chance


def two_sided_p(values, chances, u, ties="mid"):
    """P(|U| > |u|) + P(|U| = |u|) (times a half)."""
    size, tolerance = abs(u), 1e-9 * max(1.0, np.abs(values).max())
    if size <= tolerance:
        return 1.0
    share = 0.5 if ties == "mid" else 1.0
    beyond = chances[np.abs(values) > size + tolerance].sum()
    return float(beyond + share * chances[np.abs(np.abs(values) - size) <= tolerance].sum())


def exact_count_p(g, mu, n_alleles, ties="mid"):
    """Two-sided p of ``n_alleles`` alleles among the cases."""
    chance = count_law(g, mu)
    mean = float(np.sum(g * mu))
    return two_sided_p(np.arange(chance.size) - mean, chance, n_alleles - mean, ties)


def drawn_residual_p(rng, residual, g, u, n=200_000):
    """Share of draws with replacement whose sum g_i r_i is as far from zero as u, and its standard error."""
    total = np.zeros(n)
    for gi in g:
        total += gi * rng.choice(residual, n)
    p = float(np.mean(np.abs(total) >= abs(u)))
    return p, math.sqrt(max(p, 1 / n) / n)


def spread_residuals(node, chance, cells=5_000):
    """Middle of the first cell, width, and probabilities of residuals spread evenly half way to the nearer neighbour.

    Drawn in so that their variance is that of the nodes.
    """
    gap = np.diff(node)
    half = 0.5 * np.minimum(np.concatenate([[gap[0]], gap]), np.concatenate([gap, [gap[-1]]]))
    variance = chance @ node**2
    shrink = math.sqrt(variance / (variance + chance @ half**2 / 3))
    low, high = shrink * (node[0] - half[0]), shrink * (node[-1] + half[-1])
    edge = np.linspace(low, high, cells + 1)
    below = np.zeros(cells + 1)
    for x, b, p in zip(shrink * node, shrink * half, chance, strict=True):
        below += p * np.clip((edge - x + b) / (2 * b), 0, 1)
    h = edge[1] - edge[0]
    return low + h / 2, h, np.diff(below)


def convolved_residual_p(node, chance, n, sizes):
    """P(|sum of n residuals| >= size) by plain convolution: of positive numbers, so that no digit is lost."""
    x0, h, one = spread_residuals(node, chance)
    q = one
    for _ in range(n - 1):
        q = np.convolve(q, one)
    value = np.abs(n * x0 + h * np.arange(q.size))
    return np.array([q @ np.clip(0.5 + (value - size) / h, 0, 1) for size in sizes])


def enumerated_residual_p(node, chance, n, size):
    """P(|sum of n residuals| >= size), half of ties, over all sets of n nodes."""
    total = 0.0
    for chosen in itertools.combinations_with_replacement(range(len(node)), n):
        ways = math.factorial(n)
        for k in set(chosen):
            ways //= math.factorial(chosen.count(k))
        p = ways * math.prod(chance[k] for k in chosen)
        beyond = abs(sum(node[k] for k in chosen)) - size
        total += p * (1.0 if beyond > 1e-9 else 0.0 if beyond < -1e-9 else 0.5)
    return total


def logistic(X, y, offset=None, firth=False):
    """Coefficients that maximise the (Firth-penalised) log-likelihood."""
    offset = np.zeros(len(y)) if offset is None else offset

    def loss(b):
        eta = X @ b + offset
        p = 1 / (1 + np.exp(-eta))
        value = np.sum(y * eta - np.logaddexp(0, eta))
        if firth:
            value += 0.5 * np.linalg.slogdet(X.T @ ((p * (1 - p))[:, None] * X))[1]
        return -value

    start = np.zeros(X.shape[1])
    fit = minimize(loss, start, method="BFGS", options={"gtol": 1e-9})
    return minimize(loss, fit.x, method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12, "maxiter": 4000}).x


def profile(X, y, b, firth=False):
    """Largest log-likelihood with the last coefficient held at b."""

    def loss(rest):
        eta = X[:, :-1] @ rest + X[:, -1] * b
        p = 1 / (1 + np.exp(-eta))
        value = np.sum(y * eta - np.logaddexp(0, eta))
        if firth:
            value += 0.5 * np.linalg.slogdet(X.T @ ((p * (1 - p))[:, None] * X))[1]
        return -value

    if X.shape[1] == 2:
        return -minimize_scalar(lambda r: loss(np.array([r])), bracket=(-5, 0)).fun
    return -minimize(loss, np.zeros(X.shape[1] - 1), method="BFGS", options={"gtol": 1e-9}).fun
