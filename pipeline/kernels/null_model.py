"""Null models of one trait on one chromosome: residuals, working weights, and the design that V must know.

Symbols: y (n,) phenotype, X (n, p) covariates with intercept, F (n, q) LOCO columns, offset (n,). The samples given
are those with a phenotype. See `fit_linear` and `fit_logistic` for the two models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack, qr, solve_triangular
from scipy.special import expit

from pipeline.errors import StatisticsError

Floats = NDArray[np.float64]
RANK_TOLERANCE = 1e-9  # relative length of a column left after the ones before it are projected out


@dataclass(frozen=True)
class NullModel:
    """A fitted null model of n samples.

    Attributes:
        residual: (n,) y - mu, on the scale of y.
        weight: (n,) working weights W: 1 (quantitative: U and V are divided by sigma2 afterwards) or mu(1 - mu).
        sigma2: residual variance r'r / (n - rank); 1 for a binary trait, whose W carries the variance.
        slope, slope_se: (q,) coefficients of the LOCO columns; empty in offset mode.
        variance_before, variance_after: residual variance (mean of mu(1 - mu) for binary) without and with the LOCO
            prediction.
        r2: share of the residual sum of squares that the prediction removes.
        mu: (n,) fitted mean.
    """

    residual: Floats
    weight: Floats
    sigma2: float
    slope: Floats
    slope_se: Floats
    variance_before: float
    variance_after: float
    r2: float
    mu: Floats


def orthonormal_design(X: Floats, weight: Floats, names: Sequence[str]) -> Floats:
    """Return Z with ``Z'G = (X'WX)^(-1/2) X'WG`` for every G.

    With ``W^(1/2) X = QR`` it is ``Z = W^(1/2) Q``; columns of X are first scaled to unit length.

    Args:
        X: (n, p) design.
        weight: (n,) diagonal of W.
        names: (p,) names of the columns, for the error.

    Raises:
        StatisticsError: X is singular; names the column that depends on the ones before it.
    """
    root = np.sqrt(weight)[:, None]
    A = root * X
    length = np.sqrt((A**2).sum(axis=0))
    for j in np.flatnonzero(length == 0):
        raise StatisticsError(f"covariate '{names[j]}' is zero for every analysed sample; remove it")
    Q, R = qr(A / length, mode="economic")
    for j in np.flatnonzero(np.abs(np.diag(R)) < RANK_TOLERANCE):
        others = np.linalg.lstsq(A[:, :j] / length[:j], A[:, j] / length[j], rcond=None)[0]
        partners = [names[i] for i in np.flatnonzero(np.abs(others) > 1e-6)]
        raise StatisticsError(
            f"covariates are singular: '{names[j]}' is a combination of {', '.join(partners) or 'the others'} "
            f"among the {len(X)} analysed samples; remove one of them"
        )
    if X.shape[0] <= X.shape[1]:
        raise StatisticsError(f"{X.shape[0]} samples cannot fit {X.shape[1]} covariates; remove covariates")
    return np.asarray(root * Q)


def fit_linear(y: Floats, Z: Floats, F: Floats, offset: Floats) -> NullModel:
    """Fit ``y = X a + F b + offset + e`` by least squares.

    ``r = (I - P)(y - offset)`` with P the projection on [X, F], ``sigma2 = r'r / (n - p - q)``.

    Args:
        y: (n,) phenotype.
        Z: (n, p) orthonormal basis of the covariates.
        F: (n, q) LOCO predictions used as covariates; q = 0 in offset mode.
        offset: (n,) LOCO prediction used as offset; zero otherwise.

    Raises:
        StatisticsError: the trait is constant given the covariates, or a LOCO column is.
    """
    n, p = Z.shape
    q = F.shape[1]
    plain = y - Z @ (Z.T @ y)
    before = float(plain @ plain)
    if before <= 1e-20 * max(float(y @ y), 1e-300):
        raise StatisticsError("the trait is constant among the analysed samples once covariates are removed")
    shifted = y - offset
    residual = shifted - Z @ (Z.T @ shifted)
    slope = slope_se = np.empty(0)
    if q:
        basis, R = _residual_basis(F, Z)
        projected = basis.T @ residual
        residual = residual - basis @ projected
        slope = solve_triangular(R, projected)
    if n <= p + q:
        raise StatisticsError(f"{n} samples cannot fit {p + q} covariates; remove covariates")
    after = float(residual @ residual)
    if after <= 1e-20 * before:
        raise StatisticsError("the LOCO prediction explains the trait exactly; is it the trait itself?")
    sigma2 = after / (n - p - q)
    if q:
        inverse = solve_triangular(R, np.eye(q))
        slope_se = np.sqrt(sigma2 * (inverse**2).sum(axis=1))
    return NullModel(
        residual, np.ones(n), sigma2, slope, slope_se, before / (n - p), sigma2, 1 - after / before, y - residual
    )


def residual_sd(y: Floats, Z: Floats) -> float:
    """Return the standard deviation of y with the covariates projected out, ``sqrt(y'(I - ZZ')y / (n - p))``."""
    residual = y - Z @ (Z.T @ y)
    return float(np.sqrt(residual @ residual / (len(y) - Z.shape[1])))


def _residual_basis(F: Floats, Z: Floats) -> tuple[Floats, Floats]:
    """Return the QR factors of the LOCO columns with the covariates projected out.

    Raises:
        StatisticsError: a LOCO column is a combination of the covariates.
    """
    rest = F - Z @ (Z.T @ F)
    rest -= Z @ (Z.T @ rest)
    basis, R = qr(rest, mode="economic")
    scale = np.sqrt((F**2).sum(axis=0))
    if np.any(np.abs(np.diag(R)) <= RANK_TOLERANCE * np.maximum(scale, 1e-300)):
        raise StatisticsError(
            "the LOCO prediction is constant, or a combination of the covariates, among the analysed samples; "
            "use `predictor: {method: none}` for this trait or mend its weights"
        )
    return basis, R


def extra_design(F: Floats, Z: Floats) -> Floats:
    """Return the (n, q) orthonormal columns that the LOCO predictions add to the covariates of a linear model."""
    return _residual_basis(F, Z)[0] if F.shape[1] else np.empty((len(F), 0))


def fit_logistic(y: Floats, Z: Floats, F: Floats, offset: Floats) -> NullModel:
    """Fit ``logit(mu) = X a + F b + offset`` by maximum likelihood.

    The likelihood is climbed in an orthonormal basis of [X, F], so that the scale of covariates does not matter.

    Args:
        y: (n,) 0 or 1.
        Z: (n, p) orthonormal basis of the covariates, intercept among them.
        F: (n, q) LOCO predictions used as covariates; q = 0 in offset mode.
        offset: (n,) LOCO prediction used as offset; zero otherwise.

    Returns:
        The model; ``weight = mu(1 - mu)``, ``sigma2 = 1``, r2 is Efron's ``1 - sum (y - mu)^2 / sum (y - mu_0)^2``.

    Raises:
        StatisticsError: no cases or no controls, or cases and controls are separated by the covariates.
    """
    n_cases, n = int(y.sum()), len(y)
    if n_cases in (0, n):
        raise StatisticsError(
            f"the trait has no {'cases' if n_cases == 0 else 'controls'} among the {n} analysed samples"
        )
    q = F.shape[1]
    mu0, _, _ = _newton(y, Z, np.zeros(n))
    mu, slope, slope_se = mu0, np.empty(0), np.empty(0)
    if q:
        basis, R = _residual_basis(F, Z)
        mu, coefficients, covariance = _newton(y, np.hstack([Z, basis]), offset)
        back = solve_triangular(R, np.eye(q))  # F b = Z(...) + basis R b
        slope = back @ coefficients[-q:]
        slope_se = np.sqrt(np.diag(back @ covariance[-q:, -q:] @ back.T))
    elif np.any(offset != 0):
        mu, _, _ = _newton(y, Z, offset)
    before, after = float(((y - mu0) ** 2).sum()), float(((y - mu) ** 2).sum())
    weight = mu * (1 - mu)
    return NullModel(
        y - mu,
        weight,
        1.0,
        slope,
        slope_se,
        float(np.mean(mu0 * (1 - mu0))),
        float(np.mean(weight)),
        1 - after / before,
        mu,
    )


def _newton(y: Floats, Z: Floats, offset: Floats) -> tuple[Floats, Floats, Floats]:
    """Return (mu, coefficients, their covariance) of a logistic regression on orthonormal columns.

    Newton's method with step halving; stops when no linear predictor moves by more than 1e-10.
    """
    A = Z * np.sqrt(len(y))
    b = np.zeros(A.shape[1])
    eta = offset.copy()
    likelihood = -np.inf
    for _ in range(100):
        mu = expit(eta)
        H = A.T @ ((mu * (1 - mu))[:, None] * A)
        factor, info = lapack.dpotrf(H, lower=1)
        if info != 0:
            raise StatisticsError(_SEPARATED)
        step = lapack.dpotrs(factor, A.T @ (y - mu), lower=1)[0]
        fraction = 1.0
        while True:
            eta_new = A @ (b + fraction * step) + offset
            new = float(y @ eta_new - np.logaddexp(0, eta_new).sum())
            if new >= likelihood - 1e-12 * abs(likelihood) or fraction < 1e-8:
                break
            fraction /= 2
        b, eta, likelihood = b + fraction * step, eta_new, new
        if np.max(np.abs(A @ step)) < 1e-10:
            break
    else:
        raise StatisticsError(_SEPARATED)
    mu = expit(eta)
    covariance = np.linalg.inv(A.T @ ((mu * (1 - mu))[:, None] * A)) * len(y)
    return mu, np.asarray(b * np.sqrt(len(y))), np.asarray(covariance)


_SEPARATED = (
    "the logistic null model does not converge: covariates separate cases from controls (quasi-complete separation), "
    "or are nearly singular; remove or merge the covariate levels that hold only cases or only controls"
)
