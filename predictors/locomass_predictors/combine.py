"""Stacking: several predictors, of one trait or of several, into one prediction of a trait."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from locomass_predictors.base import Floats, PredictorError, compute_r2


@dataclass(frozen=True, slots=True)
class Stack:
    """One weight per predictor, the same for every chromosome.

    Attributes:
        weights: (P,) weights fitted to everyone, for people outside the study.
        fold_weights: (K, P) weights fitted without each fold.
        folds: (n,) fold of each sample.
        r2_cross_validated: squared correlation of the cross-fitted prediction with the trait, 0 when negative.
        r2_single: (P,) squared correlation of each predictor with the trait, turned first when it may be.
    """

    weights: Floats
    fold_weights: Floats
    folds: NDArray[np.int64]
    r2_cross_validated: float
    r2_single: Floats

    def combine(self, scores: Floats) -> Floats:
        """Return ``sum_p w_p scores_p``, every sample with the weights fitted without its fold.

        Linear in the scores, so whole genome minus chromosome is the same before and after combining.

        Args:
            scores: (..., n, P) scores of the samples that were stacked, e.g. (C, n, P) per chromosome.

        Returns:
            (..., n) combined scores.

        Raises:
            PredictorError: the last two dimensions are not (n, P).
        """
        wanted = (self.folds.size, self.weights.size)
        if scores.shape[-2:] != wanted:
            raise PredictorError(f"scores of shape {scores.shape} do not end in (samples, predictors) = {wanted}")
        return np.asarray(np.einsum("...ip,ip->...i", scores, self.fold_weights[self.folds]))


def stack_predictors(
    scores: Floats,
    y: Floats,
    *,
    either_sign: Sequence[bool] | None = None,
    n_folds: int = 5,
    folds: NDArray[np.int64] | None = None,
    seed: int = 1,
) -> Stack:
    """Weight several predictors by non-negative least squares, cross-fitted.

    Minimises ``|y - sum_p w_p (scores_p - mean)|^2`` over w >= 0, on the samples outside each fold. A predictor of
    another trait may point either way: it is turned to the sign of its correlation with y in the same samples first.

    Args:
        scores: (n, P) whole-genome scores, one column per predictor.
        y: (n,) trait with covariates projected out (for a binary trait the residual of the null model).
        either_sign: (P,) True for predictors of other traits; none by default.
        n_folds: folds.
        folds: (n,) fold numbers 0..K-1 to use instead of drawing them.
        seed: seed of the folds.

    Returns:
        The weights. A predictor that adds nothing gets 0; when none does, all are 0.

    Raises:
        PredictorError: shapes differ, values are missing, a score does not vary, or there are fewer samples than
            folds.

    Source: Breiman (1996), Stacked regressions, Mach Learn 24:49.
    """
    if scores.ndim != 2 or y.shape != scores.shape[:1] or not scores.shape[1]:
        raise PredictorError(f"expected (n, P) scores and (n,) trait, got shapes {scores.shape} and {y.shape}")
    if not (np.isfinite(scores).all() and np.isfinite(y).all()):
        raise PredictorError("scores and trait must be complete: stack the samples of each trait on their own")
    sd = scores.std(axis=0)
    if not (sd > 0).all() or not y.std() > 0:
        raise PredictorError(f"predictor or trait does not vary: sd of scores {sd}, of trait {y.std():.3g}; drop it")
    free = np.zeros(scores.shape[1], bool) if either_sign is None else np.asarray(either_sign, bool)
    if free.shape != sd.shape or not 2 <= n_folds <= y.size:
        raise PredictorError(
            f"expected {sd.size} values of either_sign and 2 to {y.size} folds, got {free.size} and {n_folds}"
        )
    if folds is None:
        from sklearn.model_selection import KFold  # two seconds that other methods do not need

        folds = np.empty(y.size, dtype=np.int64)
        for k, (_, fold) in enumerate(KFold(n_folds, shuffle=True, random_state=seed).split(y)):
            folds[fold] = k
    fold_weights = np.stack(
        [_fit_weights(scores[folds != k], y[folds != k], free, sd) for k in range(int(folds.max()) + 1)]
    )
    weights = _fit_weights(scores, y, free, sd)
    prediction = np.einsum("ip,ip->i", scores, fold_weights[folds])
    return Stack(
        weights=weights,
        fold_weights=fold_weights,
        folds=folds,
        r2_cross_validated=compute_r2(prediction, y),
        r2_single=np.array([compute_r2(column, y) for column in (scores * _find_signs(scores, y, free)).T]),
    )


def _fit_weights(scores: Floats, y: Floats, free: NDArray[np.bool_], sd: Floats) -> Floats:
    """Return the non-negative weights, negative only where a free predictor was turned."""
    from scipy.optimize import nnls  # slow to import, and other methods do not need it

    X, r = (scores - scores.mean(axis=0)) / sd, y - y.mean()
    sign = _find_signs(X, y, free)
    return np.asarray(sign * nnls(X * sign, r)[0] / sd)


def _find_signs(scores: Floats, y: Floats, free: NDArray[np.bool_]) -> Floats:
    """Return -1 for the free predictors that correlate negatively with y, 1 for all others."""
    return np.where(free & (scores.T @ (y - y.mean()) < 0), -1.0, 1.0)
