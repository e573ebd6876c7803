"""The null model of a quantitative trait: least squares, ``W = 1``, phi = sigma2."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import solve_triangular

from locomass.errors import StatisticsError
from locomass.null_models.base import Design, Law, NullFit, Outcome
from locomass.null_models.design import extra_design, residual_basis
from locomass.numbers import Floats


@dataclass(frozen=True)
class Linear:
    """Quantitative traits; all that share their samples share the covariates in Z, a LOCO column is a trait's own."""

    law: Law = "residual"

    def fit(self, outcome: Outcome, Z: Floats, F: Floats, offset: Floats, start: NullFit | None = None, /) -> NullFit:
        """See `fit_linear`."""
        return fit_linear(outcome.y, Z, F, offset)

    def project_out(self, design: Design, F: Floats, fit: NullFit, /) -> tuple[Floats, Floats]:
        """Return the orthonormal covariates, and what the LOCO columns add to them."""
        return design.basis, extra_design(F, design.basis)


def fit_linear(y: Floats, Z: Floats, F: Floats, offset: Floats) -> NullFit:
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
        basis, R = residual_basis(F, Z)
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
    return NullFit(
        residual=residual,
        weight=np.ones(n),
        sigma2=sigma2,
        slope=slope,
        slope_se=slope_se,
        variance_before=before / (n - p),
        variance_after=sigma2,
        r2=1 - after / before,
        mu=y - residual,
    )
