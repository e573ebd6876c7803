"""Second level of the stacked ridge: ridge or logistic ridge on level-0 predictions, with out-of-fold coefficients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.special import expit

from locomass_predictors.base import Floats, PredictorError

Folds = NDArray[np.int64]

_NEWTON_STEPS = 100
#: Newton stops when it promises to lower the loss by less than this; the error of the coefficients is its square root
_NEWTON_DECREMENT = 1e-18
#: without a penalty, a risk of exp(-25) means that coefficients were on their way to infinity
_SEPARATED = 25.0


@dataclass(frozen=True, slots=True)
class StackedCoefficients:
    """Level-1 coefficients at the penalty that cross-validation chose.

    Attributes:
        out_of_fold: (K, k) coefficients that were fitted without fold 0, ..., K - 1.
        full: (k,) coefficients fitted to everyone.
        choice: index of the penalty chosen.
        cv_loss: (H,) mean out-of-fold loss per penalty.
    """

    out_of_fold: Floats
    full: Floats
    choice: int
    cv_loss: Floats


def fit_ridge_out_of_fold(Ws: Sequence[Floats], y: Floats, penalties: Floats, folds: Folds) -> StackedCoefficients:
    """Fit ridge coefficients without each fold, ``inv(W_k'W_k + penalty I) W_k'y`` over the samples outside fold k.

    Args:
        Ws: (n, k) predictors for each fold, or a single one for all folds; the first serves the fit to everyone.
        y: (n,) quantitative trait.
        penalties: (H,) ridge penalties to choose from.
        folds: (n,) fold numbers 0..K-1.

    Returns:
        Coefficients; the loss is the mean squared error out of fold.
    """
    n_folds = int(folds.max()) + 1
    out = np.empty((penalties.size, n_folds, Ws[0].shape[1]))
    predictions = np.empty((penalties.size, y.size))
    for k in range(n_folds):
        W_k, rest = Ws[k % len(Ws)], folds != k
        WW, Wy = W_k[rest].T @ W_k[rest], W_k[rest].T @ y[rest]
        for i, penalty in enumerate(penalties):
            out[i, k] = _solve_penalised(WW, Wy, penalty)
        predictions[:, ~rest] = out[:, k] @ W_k[~rest].T
    loss = np.square(predictions - y).mean(axis=1)
    best = int(loss.argmin())
    full = _solve_penalised(Ws[0].T @ Ws[0], Ws[0].T @ y, penalties[best])
    return StackedCoefficients(out[best], full, best, loss)


def fit_ridge_leave_one_out(W: Floats, y: Floats, penalties: Floats) -> StackedCoefficients:
    """Fit ridge coefficients without each sample, exactly, from one fit to all.

    ``beta_{-i} = beta - inv(A) w_i e_i / (1 - w_i' inv(A) w_i)`` with A = W'W + penalty I and e the residual.

    Args:
        W: (n, k) predictors.
        y: (n,) quantitative trait.
        penalties: (H,) ridge penalties to choose from.

    Returns:
        Coefficients, K = n; the loss is the mean squared error out of fold.
    """
    WW, Wy = W.T @ W, W.T @ y

    def leave_out(penalty: float) -> tuple[Floats, Floats]:
        factor = cho_factor(WW + penalty * np.eye(W.shape[1]), lower=True)
        full, AW = cho_solve(factor, Wy), cho_solve(factor, W.T)
        leverage = np.einsum("ik,ki->i", W, AW)
        return full, full - (AW * ((y - W @ full) / (1.0 - leverage))).T

    loss = np.empty(penalties.size)
    for i, penalty in enumerate(penalties):
        loss[i] = np.square(np.einsum("ik,ik->i", W, leave_out(penalty)[1]) - y).mean()
    best = int(loss.argmin())
    full, out = leave_out(penalties[best])
    return StackedCoefficients(out, full, best, loss)


def fit_logistic_out_of_fold(
    Ws: Sequence[Floats], y: Floats, offset: Floats, penalties: Floats, folds: Folds
) -> StackedCoefficients:
    """Fit logistic ridge coefficients without each fold.

    Args:
        Ws: (n, k) predictors for each fold, or a single one for all folds; the first serves the fit to everyone.
        y: (n,) 0/1 trait.
        offset: (n,) fixed part of the linear predictor.
        penalties: (H,) ridge penalties to choose from.
        folds: (n,) fold numbers 0..K-1.

    Returns:
        Coefficients; the loss is the mean negative log-likelihood out of fold.
    """
    n_folds = int(folds.max()) + 1
    out = np.empty((penalties.size, n_folds, Ws[0].shape[1]))
    eta = np.empty((penalties.size, y.size))
    for k in range(n_folds):
        W_k, rest, start = Ws[k % len(Ws)], folds != k, np.zeros(Ws[0].shape[1])
        # from the largest penalty down: each fit starts from the one before
        for i in np.argsort(-penalties):
            start = out[i, k] = fit_logistic_ridge(W_k[rest], y[rest], offset[rest], float(penalties[i]), start)
        eta[:, ~rest] = offset[~rest] + out[:, k] @ W_k[~rest].T
    loss = _logistic_loss(y, eta).mean(axis=1)
    best = int(loss.argmin())
    full = fit_logistic_ridge(Ws[0], y, offset, float(penalties[best]), out[best].mean(axis=0))
    return StackedCoefficients(out[best], full, best, loss)


def fit_logistic_leave_one_out(W: Floats, y: Floats, offset: Floats, penalties: Floats) -> StackedCoefficients:
    """Fit logistic ridge coefficients without each sample, by one Newton step from the fit to all.

    ``beta_{-i} = beta - inv(H) w_i (y_i - mu_i) / (1 - mu_i (1 - mu_i) w_i' inv(H) w_i)`` with H the penalised
    information.

    Args:
        W: (n, k) predictors.
        y: (n,) 0/1 trait.
        offset: (n,) fixed part of the linear predictor.
        penalties: (H,) ridge penalties to choose from.

    Returns:
        Coefficients, K = n; the loss is the mean negative log-likelihood out of fold.
    """

    def leave_out(full: Floats, penalty: float) -> Floats:
        mu = expit(offset + W @ full)
        variance = mu * (1.0 - mu)
        information = (W.T * variance) @ W + penalty * np.eye(W.shape[1])
        HW = cho_solve(cho_factor(information, lower=True), W.T)
        leverage = variance * np.einsum("ik,ki->i", W, HW)
        return np.asarray(full - (HW * ((y - mu) / (1.0 - leverage))).T)

    full, start, loss = np.empty((penalties.size, W.shape[1])), np.zeros(W.shape[1]), np.empty(penalties.size)
    for i in np.argsort(-penalties):
        start = full[i] = fit_logistic_ridge(W, y, offset, float(penalties[i]), start)
        eta = offset + np.einsum("ik,ik->i", W, leave_out(start, float(penalties[i])))
        loss[i] = _logistic_loss(y, eta).mean()
    best = int(loss.argmin())
    return StackedCoefficients(leave_out(full[best], float(penalties[best])), full[best], best, loss)


def fit_logistic_ridge(X: Floats, y: Floats, offset: Floats, penalty: float, start: Floats) -> Floats:
    """Return the b that minimises ``sum log(1 + exp(eta)) - y eta + penalty |b|^2 / 2``, eta = offset + X b, by Newton.

    Args:
        X: (n, k) predictors; of full rank when the penalty is 0.
        y: (n,) 0/1 trait.
        offset: (n,) fixed part of the linear predictor.
        penalty: ridge penalty, 0 or more.
        start: (k,) where to start.

    Returns:
        (k,) coefficients.

    Raises:
        PredictorError: Newton does not converge: the predictors separate cases from controls.
    """
    b = start.copy()
    loss = _penalised_loss(X, y, offset, penalty, b)
    for _ in range(_NEWTON_STEPS):
        mu = expit(offset + X @ b)
        gradient = X.T @ (y - mu) - penalty * b
        information = (X.T * (mu * (1.0 - mu))) @ X + penalty * np.eye(X.shape[1])
        try:
            step = cho_solve(cho_factor(information, lower=True), gradient)
        except np.linalg.LinAlgError:
            break
        decrement = float(step @ gradient)
        if decrement <= _NEWTON_DECREMENT * max(loss, 1.0):
            if penalty == 0.0 and np.abs(offset + X @ b).max() > _SEPARATED:
                break
            return np.asarray(b + step)
        # a full step overshoots only far from the minimum; near it losses differ by less than they are rounded
        length, lower = 1.0, _penalised_loss(X, y, offset, penalty, b + step)
        while lower > loss * (1.0 + 1e-12) and length > 1e-10:
            length /= 2.0
            lower = _penalised_loss(X, y, offset, penalty, b + length * step)
        b, loss = b + length * step, lower
    raise PredictorError(
        "logistic regression did not converge: a covariate or prediction separates cases from controls; drop it, or "
        "check that the trait is coded 0/1"
    )


def predict_out_of_fold(W: Floats, coefficients: Floats, folds: Folds) -> Floats:
    """Return ``W_i b_{-fold(i)}`` for every sample.

    Args:
        W: (n, k) predictors.
        coefficients: (K, k) coefficients without each fold.
        folds: (n,) fold numbers.

    Returns:
        (n,) predictions.
    """
    if coefficients.shape[0] == W.shape[0]:
        return np.asarray(np.einsum("ik,ik->i", W, coefficients[folds]))
    out = np.empty(W.shape[0])
    for k, b in enumerate(coefficients):
        rows = folds == k
        out[rows] = W[rows] @ b
    return out


def _solve_penalised(A: Floats, c: Floats, penalty: float) -> Floats:
    return np.asarray(cho_solve(cho_factor(A + penalty * np.eye(len(A)), lower=True), c))


def _logistic_loss(y: Floats, eta: Floats) -> Floats:
    return np.asarray(np.logaddexp(0.0, eta) - y * eta)


def _penalised_loss(X: Floats, y: Floats, offset: Floats, penalty: float, b: Floats) -> float:
    return float(_logistic_loss(y, offset + X @ b).sum() + 0.5 * penalty * (b @ b))
