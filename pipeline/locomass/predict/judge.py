"""Is the prediction what it promises to be? Its R2 and slope in the cohort, and the alarm for overlapping samples."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from locomass.config import Predictor, per_trait
from locomass.errors import InputError
from locomass.null_models.base import NullFit
from locomass.null_models.design import orthonormal_design
from locomass.null_models.linear import fit_linear
from locomass.null_models.logistic import fit_logistic
from locomass.numbers import Floats
from locomass.predict.scoring import Scores
from locomass.predict.verdict import weigh_prediction
from locomass.tables.cohort import Cohort
from locomass_predictors.base import Promise
from locomass_predictors.overlap import (
    Severity,
    Verdict,
    estimate_overlap,
    judge_ascertainment,
    judge_overlap,
    judge_success,
)
from locomass_predictors.registry import find_method


def judge_scores(options: Predictor, cohort: Cohort, scores: Scores) -> Scores:
    """Record slope and R2 of the whole-genome score, judge overlap and ascertainment, and drop what must not be used.

    Args:
        options: `cohort_in_gwas`, `allow_overlap` and `prevalence` of the configuration.
        cohort: traits and covariates.
        scores: polygenic scores.

    Returns:
        The scores with their record extended; a trait whose de-noising is off by default is left out.

    Raises:
        InputError: a binary trait whose training GWAS contains the cohort, with the prediction as offset.
    """
    prevalence = per_trait(options.prevalence, [t.name for t in cohort.traits], "predictor.prevalence")
    record, messages, kept = dict(scores.record), list(scores.messages), []
    for k, trait in enumerate(scores.traits):
        fit = _fit_whole_genome(cohort, trait, scores.values[:, :, k].sum(axis=0))
        entry: dict[str, Any] = {
            **record.get(trait, {}),
            "slope": float(fit.model.slope[0]),
            "slope_se": float(fit.model.slope_se[0]),
            "r2_observed": fit.model.r2,
            "gain": 1 / (1 - fit.model.r2),
        }
        verdicts = _judge(options, cohort, trait, entry, fit, prevalence.get(trait))
        for verdict in verdicts:
            if verdict.severity is Severity.ERROR:
                raise InputError(f"trait '{trait}': {verdict.message}")
            if verdict.message:
                messages.append(f"trait '{trait}': {verdict.message}")
        entry["overlap"] = "; ".join(v.message for v in verdicts if v.message) or "no sign of overlap"
        entry["used"] = all(v.denoise for v in verdicts)
        record[trait] = entry | weigh_prediction(entry, fit.correlation, fit.n)
        if entry["used"]:
            kept.append(k)
    return dataclasses.replace(
        scores,
        traits=tuple(scores.traits[k] for k in kept),
        values=scores.values[:, :, kept],
        record=record,
        messages=tuple(dict.fromkeys(messages)),
    )


@dataclasses.dataclass(frozen=True)
class _WholeGenome:
    """How a whole-genome score does in the cohort, covariates projected out of it and of the trait.

    Attributes:
        model: null model with the score as covariate.
        n: samples.
        correlation: of score and trait.
        covariance: of the score with the trait of unit variance, in the unit of the score.
    """

    model: NullFit
    n: int
    correlation: float
    covariance: float


def _fit_whole_genome(cohort: Cohort, trait: str, total: Floats) -> _WholeGenome:
    """Fit a trait on the whole-genome score."""
    k = [t.name for t in cohort.traits].index(trait)
    chosen: NDArray[np.bool_] = np.isfinite(cohort.y[:, k]) & np.isfinite(total)
    X, names = cohort.design(chosen)
    Z = orthonormal_design(X, np.ones(len(X)), names)
    fit = fit_logistic if cohort.traits[k].kind == "binary" else fit_linear
    y, score = cohort.y[chosen, k], total[chosen]
    model = fit(y, Z, score[:, None], np.zeros(len(y)))
    y, score = y - Z @ (Z.T @ y), score - Z @ (Z.T @ score)
    covariance = float(score @ y / len(y) / y.std())
    spread = float(score.std())
    return _WholeGenome(model, len(y), covariance / spread if spread > 0 else 0.0, covariance)


def _judge(
    options: Predictor, cohort: Cohort, trait: str, entry: dict[str, Any], fit: _WholeGenome, prevalence: float | None
) -> list[Verdict]:
    """Return the verdicts on overlap, success and ascertainment that the numbers at hand allow."""
    binary = next(t.kind for t in cohort.traits if t.name == trait) == "binary"
    verdicts = []
    listed = options.cohort_in_gwas and not options.subtract_cohort
    promise = Promise(**entry["promise"]) if entry.get("promise") else None
    if promise is not None and promise.variance > 0:
        # weights are in units of the GWAS's trait. With effective sample sizes it is one of a sample with as many cases
        # as controls, in which everything correlates 1 / sqrt(4 K (1 - K)) times as much
        balance = _balance(cohort, trait) if binary and entry.get("n_is_effective") else 1.0
        covariance = fit.covariance / float(entry["sd_y"]) / np.sqrt(balance)
        overlap = estimate_overlap(promise, covariance, n=fit.n, n_gwas=float(entry["n"]))
        if overlap is not None:
            entry |= {"overlap_share": overlap.theta, "overlap_share_se": overlap.se}
        verdicts.append(
            judge_overlap(
                overlap,
                binary=binary,
                offset=options.role == "offset",
                cohort_in_gwas=listed,
                allow=options.allow_overlap,
            )
        )
        verdicts.append(judge_success(correlation=fit.correlation, r2_promised=promise.r2 * balance, n=fit.n))
    elif listed and find_method(options.method).source.from_gwas:
        verdicts.append(
            judge_overlap(
                None, binary=binary, offset=options.role == "offset", cohort_in_gwas=True, allow=options.allow_overlap
            )
        )
    if binary and prevalence is not None:
        share = _case_share(cohort, trait)
        verdicts.append(judge_ascertainment(prevalence=prevalence, case_share=share, allow=options.allow_ascertained))
    return verdicts


def _case_share(cohort: Cohort, trait: str) -> float:
    """Return the share of cases among the analysed samples."""
    return float(np.nanmean(cohort.y[:, [t.name for t in cohort.traits].index(trait)]))


def _balance(cohort: Cohort, trait: str) -> float:
    """Return 4 K (1 - K), K the share of cases."""
    share = _case_share(cohort, trait)
    return 4 * share * (1 - share)
