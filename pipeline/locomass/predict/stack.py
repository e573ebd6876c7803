"""Several predictors into one: non-negative stacking of whole-genome scores, cross-fitted, one weight per predictor."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from locomass.config import Predictor
from locomass.errors import InputError
from locomass.numbers import Floats
from locomass.predict.individual import residual_trait
from locomass.predict.scoring import Scores
from locomass.tables.cohort import Cohort
from locomass.variants.chromosomes import chromosome_order
from locomass_predictors.base import PredictorError
from locomass_predictors.combine import Stack, stack_predictors


def stack_scores(parts: Sequence[Scores], either_sign: Sequence[bool], cohort: Cohort, options: Predictor) -> Scores:
    """Combine predictors trait by trait; the weights are the same for every chromosome, so LOCO stays exact.

    Args:
        parts: scores of every predictor.
        either_sign: True for a predictor of another trait, which may point either way.
        cohort: traits and covariates.
        options: folds and seed.

    Returns:
        The combined scores of every trait that at least one predictor has.

    Raises:
        InputError: the scores of a trait cannot be stacked.
    """
    chromosomes = tuple(sorted({c for p in parts for c in p.chromosomes}, key=chromosome_order))
    names = [t.name for t in cohort.traits if any(t.name in p.traits for p in parts)]
    values = np.full((len(chromosomes), len(cohort.iid), len(names)), np.nan)
    record = {}
    for k, trait in enumerate(names):
        mine = [j for j, p in enumerate(parts) if trait in p.traits]
        scores = np.stack([_spread(parts[j], trait, chromosomes) for j in mine], axis=2)
        index = [t.name for t in cohort.traits].index(trait)
        chosen = np.isfinite(scores).all(axis=(0, 2)) & np.isfinite(cohort.y[:, index])
        y = residual_trait(cohort, trait, chosen)
        try:
            stack: Stack = stack_predictors(
                scores[:, chosen].sum(axis=0),
                y,
                either_sign=[either_sign[j] for j in mine],
                n_folds=options.n_folds,
                seed=options.seed,
            )
        except PredictorError as error:
            raise InputError(f"trait '{trait}', stack: {error}") from None
        values[:, chosen, k] = stack.combine(scores[:, chosen])
        record[trait] = {
            "method": "stack",
            "weights": [float(w) for w in stack.weights],
            "r2_cross_validated": stack.r2_cross_validated,
            "r2_single": [float(r) for r in stack.r2_single],
            "parts": [parts[j].record.get(trait, {}) for j in mine],
        }
    messages = tuple(m for p in parts for m in p.messages)
    return Scores(chromosomes, tuple(names), values, record, messages)


def _spread(part: Scores, trait: str, chromosomes: tuple[str, ...]) -> Floats:
    """Return (C, n) scores of one predictor, zero on chromosomes that it has no weights for."""
    own = part.values[:, :, part.traits.index(trait)]
    out = np.zeros((len(chromosomes), own.shape[1]))
    out[[chromosomes.index(c) for c in part.chromosomes]] = own
    out[:, np.isnan(own).any(axis=0)] = np.nan
    return out
