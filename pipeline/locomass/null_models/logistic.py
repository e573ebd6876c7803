"""The null model of a binary trait: maximum likelihood, ``W = mu(1 - mu)``, phi = 1."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import lapack, solve_triangular
from scipy.special import expit

from locomass.errors import StatisticsError
from locomass.null_models.base import Design, Law, NullFit, Outcome
from locomass.null_models.design import orthonormal_design, residual_basis
from locomass.numbers import Floats


@dataclass(frozen=True)
class Logistic:
    """Binary traits; W is the trait's, so its Z holds covariates and LOCO columns together."""

    law: Law = "bernoulli"

    def fit(self, outcome: Outcome, Z: Floats, F: Floats, offset: Floats, start: NullFit | None = None, /) -> NullFit:
        """See `fit_logistic`."""
        return fit_logistic(outcome.y, Z, F, offset)

    def project_out(self, design: Design, F: Floats, fit: NullFit, /) -> tuple[Floats, Floats]:
        """Return ``W X (X'WX)^(-1/2)`` of covariates and LOCO columns together; nothing is left for the second part."""
        names = [*design.names, *["LOCO prediction"] * F.shape[1]]
        return orthonormal_design(np.hstack([design.X, F]), fit.weight, names), np.empty((len(F), 0))


def fit_logistic(y: Floats, Z: Floats, F: Floats, offset: Floats) -> NullFit:
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
        basis, R = residual_basis(F, Z)
        mu, coefficients, covariance = _newton(y, np.hstack([Z, basis]), offset)
        back = solve_triangular(R, np.eye(q))  # F b = Z(...) + basis R b
        slope = back @ coefficients[-q:]
        slope_se = np.sqrt(np.diag(back @ covariance[-q:, -q:] @ back.T))
    elif np.any(offset != 0):
        mu, _, _ = _newton(y, Z, offset)
    before, after = float(((y - mu0) ** 2).sum()), float(((y - mu) ** 2).sum())
    weight = mu * (1 - mu)
    return NullFit(
        residual=y - mu,
        weight=weight,
        sigma2=1.0,
        slope=slope,
        slope_se=slope_se,
        variance_before=float(np.mean(mu0 * (1 - mu0))),
        variance_after=float(np.mean(weight)),
        r2=1 - after / before,
        mu=mu,
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
