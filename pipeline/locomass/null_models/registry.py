"""The kinds of null models by the kind of trait, and the model of one trait as later steps ask for it."""

from __future__ import annotations

import numpy as np

from locomass.null_models.base import ChromosomeModel, NullModel, NullModels, Regression
from locomass.null_models.cox import Cox
from locomass.null_models.linear import Linear
from locomass.null_models.logistic import Logistic

REGRESSIONS: dict[str, Regression] = {"quantitative": Linear(), "binary": Logistic(), "time_to_event": Cox()}


def trait_model(models: NullModels, model: ChromosomeModel, trait: str) -> NullModel:
    """Return the null model of a trait on a chromosome, on the trait's own samples.

    Args:
        models: of the study.
        model: of the chromosome, ``models.model(chromosome)``.
        trait: name.
    """
    t = next(k for k, one in enumerate(models.traits) if one["name"] == trait)
    kind = str(models.traits[t]["kind"])
    s, k = models.set_of(trait), models.covariance_of(trait)
    chosen = np.flatnonzero(models.in_set[:, s])
    place = np.full(len(models.in_set), -1, np.int64)
    place[chosen] = np.arange(len(chosen))
    loco = model.columns[np.ix_(chosen, model.loco_columns(trait))]
    own = np.array([j for j, label in enumerate(model.prediction_labels) if label.trait == trait], np.int64)
    beside = model.predictions[np.ix_(chosen, own)]
    return NullModel(
        trait=trait,
        kind=kind,
        law=REGRESSIONS[kind].law,
        place=place,
        y=models.y[chosen, t],
        residual=model.columns[chosen, model.residual_column(trait)],
        weight=model.weight[k][chosen],
        sigma2=model.sigma2[trait],
        Z=np.hstack([model.designs[k][chosen], loco]),
        X=np.hstack([models.bases[s][chosen], loco, beside]),
    )
