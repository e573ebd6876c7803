"""Binary-trait score tails from the definition: all samples, dense projections, plain root finding, convolution."""

from __future__ import annotations

import itertools
import math

import numpy as np
from scipy.optimize import brentq
from scipy.special import log_ndtr


def adjusted_genotype(g, mu, X):
    """g~ = g - X (X'WX)^-1 X'W g over all samples."""
    W = np.diag(mu * (1 - mu))
    return g - X @ np.linalg.solve(X.T @ W @ X, X.T @ W @ g)


def dense_log_p(g, y, mu, X, whole=True):
    """Two-sided saddlepoint log p with every sample's own term in K(t)."""
    gt = adjusted_genotype(g, mu, X)
    return _two_sided(float(gt @ (y - mu)), g, gt, mu, 0.0, whole)


def sparse_log_p(g, y, mu, X, whole=True):
    """The same with the samples that carry nothing pooled into a normal variable of their variance."""
    gt = adjusted_genotype(g, mu, X)
    carrier = g != 0
    rest = float(np.sum((mu * (1 - mu) * gt**2)[~carrier]))
    return _two_sided(float(gt @ (y - mu)), g[carrier], gt[carrier], mu[carrier], rest, whole)


def _two_sided(u, g, gt, mu, rest, whole):
    """log P(|U| >= |u|); whole genotypes: g'y is a count, and each tail starts at a count."""
    if not whole:
        return float(np.logaddexp(_log_tail(abs(u), gt, mu, rest, False), _log_tail(abs(u), -gt, mu, rest, False)))
    mean = float(g @ mu)
    above = int(np.ceil(mean + abs(u) - 1e-7))
    below = int(np.floor(mean - abs(u) + 1e-7))
    tails = [_log_tail(above - mean, gt, mu, rest, True)]
    if below == 0:
        tails.append(np.sum(np.log1p(-mu[g > 0])))
    elif below > 0:
        tails.append(_log_tail(mean - below, -gt, mu, rest, True))
    return float(np.logaddexp.reduce(tails))


def _log_tail(u, g, mu, rest, whole):
    """log P(U >= u): Barndorff-Nielsen's formula, with Daniels' correction where U moves in steps of one."""

    def K(t):
        return np.sum(np.logaddexp(np.log1p(-mu), np.log(mu) + g * t) - g * mu * t) + rest * t * t / 2

    def tilted(t):
        return 1 / (1 + np.exp(np.minimum(np.log1p(-mu) - np.log(mu) - g * t, 700)))

    def K1(t):
        return np.sum(g * (tilted(t) - mu)) + rest * t

    high = 1.0
    while K1(high) < u:
        high *= 2
    t = brentq(lambda s: K1(s) - u, 0, high, xtol=1e-14, rtol=1e-14)
    r = math.sqrt(2 * (t * u - K(t)))
    slope = 1 - math.exp(-t) if whole else t
    v = slope * math.sqrt(np.sum(g**2 * tilted(t) * (1 - tilted(t))) + rest)
    return log_ndtr(-(r + math.log(v / r) / r))


def exact_distribution(g, mu):
    """Values and probabilities of sum g_i y_i, g_i whole numbers, by convolution."""
    chance = np.ones(1)
    for gi, mi in zip(g.astype(int), mu, strict=True):
        chance = np.convolve(chance, np.concatenate([[1 - mi], np.zeros(gi - 1), [mi]]))
    return np.arange(chance.size), chance


def exact_two_sided(g, y, mu):
    """P(|sum g (y* - mu)| >= |u|)."""
    values, chance = exact_distribution(g, mu)
    return chance[np.abs(values - g @ mu) >= abs(float(g @ (y - mu))) - 1e-9 * g.sum()].sum()


def enumerate_two_sided(g, u, mu):
    """P(|sum g (y* - mu)| >= |u|) over every outcome; any dosages."""
    total = 0.0
    for outcome in itertools.product((0, 1), repeat=len(g)):
        y = np.array(outcome)
        if abs(g @ (y - mu)) >= abs(u) - 1e-9 * np.abs(g).sum():
            total += np.prod(np.where(y == 1, mu, 1 - mu))
    return total


def fit_logistic(X, y, offset=None):
    """Maximum likelihood by Newton's method; fitted probabilities."""
    offset = np.zeros(len(y)) if offset is None else offset
    beta = np.zeros(X.shape[1])
    for _ in range(50):
        mu = 1 / (1 + np.exp(-(X @ beta + offset)))
        step = np.linalg.solve(X.T @ ((mu * (1 - mu))[:, None] * X), X.T @ (y - mu))
        beta += step
        if np.max(np.abs(step)) < 1e-12:
            break
    return 1 / (1 + np.exp(-(X @ beta + offset)))
