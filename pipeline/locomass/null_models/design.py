"""Designs of null models: orthonormal bases of covariates, and of LOCO columns with the covariates removed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.linalg import qr

from locomass.errors import StatisticsError
from locomass.numbers import Floats

RANK_TOLERANCE = 1e-9  # relative length of a column left after the ones before it are projected out


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
    for j in np.flatnonzero(length == 0).tolist():
        raise StatisticsError(f"covariate '{names[j]}' is zero for every analysed sample; remove it")
    Q, R = qr(A / length, mode="economic")
    for j in np.flatnonzero(np.abs(np.diag(R)) < RANK_TOLERANCE).tolist():
        others = np.linalg.lstsq(A[:, :j] / length[:j], A[:, j] / length[j], rcond=None)[0]
        partners = [names[i] for i in np.flatnonzero(np.abs(others) > 1e-6).tolist()]
        raise StatisticsError(
            f"covariates are singular: '{names[j]}' is a combination of {', '.join(partners) or 'the others'} "
            f"among the {len(X)} analysed samples; remove one of them"
        )
    if X.shape[0] <= X.shape[1]:
        raise StatisticsError(f"{X.shape[0]} samples cannot fit {X.shape[1]} covariates; remove covariates")
    return np.asarray(root * Q)


def residual_sd(y: Floats, Z: Floats) -> float:
    """Return the standard deviation of y with the covariates projected out, ``sqrt(y'(I - ZZ')y / (n - p))``."""
    residual = y - Z @ (Z.T @ y)
    return float(np.sqrt(residual @ residual / (len(y) - Z.shape[1])))


def residual_basis(F: Floats, Z: Floats) -> tuple[Floats, Floats]:
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
    return residual_basis(F, Z)[0] if F.shape[1] else np.empty((len(F), 0))
