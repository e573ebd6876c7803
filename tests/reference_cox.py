"""Cox's model from its definition: slow, dense, one event at a time; shares nothing with the product.

Efron's approximation: d people fail together at t. They are taken as failing one after another, and those who have not
yet failed are only on average known: in the l-th of d terms (l = 0 ... d - 1) each of the d people is at risk with
weight ``1 - l / d``, everyone else of the risk set with weight 1. A person is at risk at t where entry < t <= exit.
"""

from __future__ import annotations

import numpy as np


def terms(entry, exit, event, stratum, eta):
    """Yield (failing people (n,) bool, weights of everyone (n,) that sum to 1, log of their sum) of every term."""
    risk = np.exp(eta)
    for s in np.unique(stratum):
        inside = stratum == s
        for t in np.unique(exit[inside & event]):
            at_risk = inside & (entry < t) & (exit >= t)
            failing = inside & event & (exit == t)
            d = int(failing.sum())
            for k in range(d):
                weight = risk * at_risk * (1.0 - failing * k / d)
                yield failing, weight / weight.sum(), np.log(weight.sum()), 1.0 / d


def log_likelihood(entry, exit, event, stratum, eta):
    """Return the log partial likelihood."""
    total = float(eta[event].sum())
    for _, _, log_sum, _ in terms(entry, exit, event, stratum, eta):
        total -= log_sum
    return total


def score_and_information(entry, exit, event, stratum, eta, Q):
    """Return the gradient (q,) and the negative Hessian (q, q) of the log partial likelihood in columns Q (n, q)."""
    U = np.zeros(Q.shape[1])
    V = np.zeros((Q.shape[1], Q.shape[1]))
    for failing, weight, _, share in terms(entry, exit, event, stratum, eta):
        mean = weight @ Q
        U += share * Q[failing].sum(axis=0) - mean
        centred = Q - mean
        V += centred.T @ (weight[:, None] * centred)
    return U, V


def martingale_residuals(entry, exit, event, stratum, eta):
    """Return (n,) events minus the events that the model expects."""
    expected = np.zeros(len(eta))
    for _, weight, _, _ in terms(entry, exit, event, stratum, eta):
        expected += weight
    return event - expected


def fit(entry, exit, event, stratum, X, offset):
    """Return the coefficients (p,) that maximise the partial likelihood, and their covariance."""
    b = np.zeros(X.shape[1])
    for _ in range(50):
        U, V = score_and_information(entry, exit, event, stratum, X @ b + offset, X)
        step = np.linalg.solve(V, U)
        b = b + step
        if np.abs(step).max(initial=0.0) < 1e-13:
            break
    return b, np.linalg.inv(V) if X.shape[1] else np.empty((0, 0))


def score_test(entry, exit, event, stratum, X, G, offset):
    """Return U (m,) and V (m, m) of genotypes G (n, m) given covariates X (n, p, no constant): coxph's score test."""
    b, _ = fit(entry, exit, event, stratum, X, offset)
    U, V = score_and_information(entry, exit, event, stratum, X @ b + offset, np.hstack([X, G]))
    p = X.shape[1]
    return U[p:], V[p:, p:] - V[p:, :p] @ np.linalg.solve(V[:p, :p], V[:p, p:]) if p else V
