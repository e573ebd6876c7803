"""Times to events for predictors: their martingale residuals, a quantitative trait to predict."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from locomass.errors import StatisticsError
from locomass.null_models.cox import fit_cox
from locomass.null_models.design import orthonormal_design
from locomass.tables.cohort import Cohort, Trait


def use_martingale_residuals(cohort: Cohort) -> Cohort:
    """Return the cohort with every time to event as the martingale residuals of its covariates (quantitative).

    To first order ``M_i = W_i x'b`` in what predicts, so that a linear predictor of M is one of the log hazard, but
    for a factor: the null model fits its slope.

    Raises:
        StatisticsError: a trait has fewer than two events, or its covariates separate them.
    """
    if not cohort.follow_up:
        return cohort
    y, traits = cohort.y.copy(), list(cohort.traits)
    for k, trait in enumerate(cohort.traits):
        follow_up = cohort.follow_up.get(trait.name)
        if follow_up is None:
            continue
        known = np.isfinite(y[:, k])
        X, names = cohort.design(known)
        Z = orthonormal_design(X, np.ones(len(X)), names)
        try:
            fit = fit_cox(follow_up.take(known), Z, np.empty((len(X), 0)), np.zeros(len(X)))
        except StatisticsError as error:
            raise StatisticsError(f"trait '{trait.name}': {error}") from None
        y[known, k] = fit.residual
        traits[k] = Trait(trait.name, "quantitative")
    return replace(cohort, y=y, traits=tuple(traits), follow_up={})
