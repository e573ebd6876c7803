"""Slow versions from the definitions, in plain numpy and scipy: what the fast code must agree with.

Nothing here imports the packages under test, and nothing is clever: a row is decoded call by call, a matrix is dense, a
projection is an explicit inverse.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

Floats = NDArray[np.float64]
#: PLINK 1 two-bit codes -> count of A1; -1 is a missing call
A1_COUNT = {0b00: 2, 0b01: -1, 0b10: 1, 0b11: 0}


def decode_row(row: bytes, n_samples: int) -> list[int]:
    """Return the A1 count of every sample of one packed row, -1 where the call is missing."""
    return [A1_COUNT[(row[i // 4] >> (2 * (i % 4))) & 0b11] for i in range(n_samples)]


def impute(dosage: Floats, rule: str) -> Floats:
    """Return ALT counts (m, n) without NaN: the row's mean, or 0 copies of the row's minor allele (``zero``)."""
    out = dosage.copy()
    for row in out:
        missing = np.isnan(row)
        mean = float(np.mean(row[~missing])) if not missing.all() else 0.0
        row[missing] = mean if rule == "mean" else (2.0 if mean > 1.0 else 0.0)
    return out


def linear_fit(y: Floats, X: Floats) -> tuple[Floats, float]:
    """Return residuals of least squares by the normal equations, and ``r'r / (n - p)``."""
    b = np.linalg.solve(X.T @ X, X.T @ y)
    r = y - X @ b
    return r, float(r @ r) / (len(y) - X.shape[1])


def logistic_fit(y: Floats, X: Floats, offset: Floats) -> Floats:
    """Return fitted means of a logistic regression: a general-purpose optimiser, polished by plain Newton steps."""

    def negative_log_likelihood(b: Floats) -> tuple[float, Floats]:
        eta = X @ b + offset
        mu = 1 / (1 + np.exp(-eta))
        return float(np.sum(np.logaddexp(0, eta) - y * eta)), -X.T @ (y - mu)

    b = minimize(negative_log_likelihood, np.zeros(X.shape[1]), jac=True, method="BFGS").x
    for _ in range(4):
        mu = 1 / (1 + np.exp(-(X @ b + offset)))
        b = b + np.linalg.solve(X.T @ np.diag(mu * (1 - mu)) @ X, X.T @ (y - mu))
    return 1 / (1 + np.exp(-(X @ b + offset)))


def score_statistics(
    y: Floats, X: Floats, G: Floats, *, binary: bool, offset: Floats | None = None
) -> tuple[Floats, Floats]:
    """Return U = G'(y - mu)/phi and V = G'WG - G'WX (X'WX)^-1 X'WG, all dense.

    Args:
        y: (n,) phenotype without missing values.
        X: (n, p) every column that is regressed out, a LOCO prediction used as covariate included.
        G: (m, n) ALT counts without missing calls.
        binary: W = mu(1 - mu), phi = 1; otherwise W = I / sigma2, phi = sigma2.
        offset: (n,) LOCO prediction used as offset.
    """
    offset = np.zeros(len(y)) if offset is None else offset
    if binary:
        mu = logistic_fit(y, X, offset)
        residual, weight = y - mu, mu * (1 - mu)
    else:
        r, sigma2 = linear_fit(y - offset, X)
        residual, weight = r / sigma2, np.full(len(y), 1 / sigma2)
    return G @ residual, projected_covariance(G, X, weight)


def projected_covariance(G: Floats, X: Floats, weight: Floats) -> Floats:
    """Return G'WG - G'WX (X'WX)^-1 X'WG for G (m, n)."""
    W = np.diag(weight)
    GWX = G @ W @ X
    return G @ W @ G.T - GWX @ np.linalg.inv(X.T @ W @ X) @ GWX.T


def pooled_score_statistics(
    studies: Sequence[tuple[Floats, Floats, Floats, Floats]], *, binary: bool
) -> tuple[Floats, Floats]:
    """Return U and V of one analysis of everybody in which each study keeps its own coefficients and sigma2.

    The design is block-diagonal; for a quantitative trait the weights are 1 / sigma2 of each study.

    Args:
        studies: per study y (n,), X (n, p), G (m, n) and offset (n,); every G has the same variants.
        binary: as in `score_statistics`.
    """
    y = np.concatenate([s[0] for s in studies])
    G = np.hstack([s[2] for s in studies])
    offset = np.concatenate([s[3] for s in studies])
    X = np.zeros((len(y), sum(s[1].shape[1] for s in studies)))
    row = column = 0
    for _, block, _, _ in studies:
        X[row : row + len(block), column : column + block.shape[1]] = block
        row, column = row + len(block), column + block.shape[1]
    if binary:
        mu = logistic_fit(y, X, offset)
        return G @ (y - mu), projected_covariance(G, X, mu * (1 - mu))
    weight = np.concatenate([np.full(len(s[0]), 1 / linear_fit(s[0] - s[3], s[1])[1]) for s in studies])
    b = np.linalg.solve(X.T @ (weight[:, None] * X), X.T @ (weight * (y - offset)))
    return G @ (weight * (y - offset - X @ b)), projected_covariance(G, X, weight)


def burden(U: Floats, V: Floats, w: Floats) -> tuple[float, float, float]:
    """Return statistic, beta and standard error of the weighted sum."""
    u, v = float(w @ U), float(w @ V @ w)
    return u * u / v, u / v, 1 / np.sqrt(v)


def skat_q(U: Floats, w: Floats) -> float:
    """Return Q = sum_j w_j^2 U_j^2."""
    return float(sum((wj * uj) ** 2 for wj, uj in zip(w, U, strict=True)))


def beta_weights(maf: Floats, a: float, b: float) -> Floats:
    """Return the Beta(a, b) density at each frequency (Wu et al. 2011)."""
    from scipy.stats import beta

    return np.asarray(beta.pdf(maf, a, b))


def rank_normal(values) -> list[float]:
    """Return normal quantiles of mean ranks by counting, ``(r - 3/8) / (n + 1/4)``; NaN stays."""
    known = [v for v in values if v == v]
    out = []
    for v in values:
        rank = sum(u < v for u in known) + (sum(u == v for u in known) + 1) / 2
        out.append(NormalDist().inv_cdf((rank - 0.375) / (len(known) + 0.25)) if v == v else float("nan"))
    return out
