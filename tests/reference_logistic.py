"""Logistic regression from the definition."""

from __future__ import annotations

import numpy as np


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
