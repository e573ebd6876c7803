"""Is the prediction what it promises to be? Its R2 and slope in the cohort, and the alarm for overlapping samples."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config import Predictor, per_trait
from pipeline.errors import InputError
from pipeline.io.cohort import Cohort
from pipeline.kernels.null_model import NullModel, fit_linear, fit_logistic, orthonormal_design
from pipeline.stages.predict.scoring import Scores
from predictors.overlap import Severity, Verdict, judge_ascertainment, judge_overlap

Floats = NDArray[np.float64]


def judge_scores(options: Predictor, cohort: Cohort, scores: Scores) -> Scores:
    """Record slope and R2 of the whole-genome score, judge overlap and ascertainment, and drop what must not be used.

    Args:
        options: `cohort_in_gwas`, `allow_overlap` and `prevalence` of the configuration.
        cohort: traits and covariates.
        scores: polygenic scores.

    Returns:
        The scores with their record extended; a trait whose de-noising is off by default is left out.

    Raises:
        InputError: a binary trait whose training GWAS contains the cohort.
    """
    prevalence = per_trait(options.prevalence, [t.name for t in cohort.traits], "predictor.prevalence")
    record, messages, kept = dict(scores.record), list(scores.messages), []
    for k, trait in enumerate(scores.traits):
        model = _whole_genome(cohort, trait, scores.values[:, :, k].sum(axis=0))
        entry: dict[str, Any] = {
            **record.get(trait, {}),
            "slope": float(model.slope[0]),
            "slope_se": float(model.slope_se[0]),
            "r2_observed": model.r2,
            "gain": 1 / (1 - model.r2),
        }
        verdicts = _judge(options, cohort, trait, entry, model, prevalence.get(trait))
        for verdict in verdicts:
            if verdict.severity is Severity.ERROR:
                raise InputError(f"trait '{trait}': {verdict.message}")
            if verdict.message:
                messages.append(f"trait '{trait}': {verdict.message}")
        entry["overlap"] = "; ".join(v.message for v in verdicts if v.message) or "no sign of overlap"
        entry["used"] = all(v.denoise for v in verdicts)
        record[trait] = entry
        if entry["used"]:
            kept.append(k)
    return dataclasses.replace(
        scores,
        traits=tuple(scores.traits[k] for k in kept),
        values=scores.values[:, :, kept],
        record=record,
        messages=tuple(dict.fromkeys(messages)),
    )


def _whole_genome(cohort: Cohort, trait: str, total: Floats) -> NullModel:
    """Return the null model of a trait with the whole-genome score as covariate."""
    k = [t.name for t in cohort.traits].index(trait)
    chosen = np.isfinite(cohort.y[:, k]) & np.isfinite(total)
    X, names = cohort.design(chosen)
    Z = orthonormal_design(X, np.ones(len(X)), names)
    fit = fit_logistic if cohort.traits[k].kind == "binary" else fit_linear
    return fit(cohort.y[chosen, k], Z, total[chosen][:, None], np.zeros(int(chosen.sum())))


def _judge(
    options: Predictor, cohort: Cohort, trait: str, entry: dict[str, Any], model: NullModel, prevalence: float | None
) -> list[Verdict]:
    """Return the verdicts on overlap and ascertainment that the numbers at hand allow."""
    binary = next(t.kind for t in cohort.traits if t.name == trait) == "binary"
    effective = binary and bool(entry.get("n_is_effective"))
    verdicts = []
    promised = entry.get("r2_promised")
    if promised and promised > 0 and entry.get("method") != "block-ridge":
        # w'Rw is on the scale of a trait of variance one; the slope that is calibrated there is slope / sd(y). With
        # effective sample sizes it is that of a sample with as many cases as controls, here 4 K (1 - K) times as much
        scale = 1.0 if binary else float(np.sqrt(model.variance_before))
        unit = float(entry.get("sd_y", scale)) if not binary else 1.0
        verdicts.append(
            judge_overlap(
                r2_observed=max(model.r2, 1e-12),
                r2_promised=float(promised) * (_balance(cohort, trait) if effective else 1.0),
                slope=float(model.slope[0]) * unit / scale,
                slope_se=float(model.slope_se[0]) * unit / scale,
                n=len(model.residual),
                binary=binary,
                cohort_in_gwas=options.cohort_in_gwas and not options.subtract_cohort,
                allow=options.allow_overlap,
            )
        )
    elif options.cohort_in_gwas and entry.get("method") not in ("block-ridge", "stack"):
        verdicts.append(_judge_listed(binary, options.allow_overlap))
    if binary and prevalence is not None:
        share = _case_share(cohort, trait)
        verdicts.append(judge_ascertainment(prevalence=prevalence, case_share=share, allow=options.allow_ascertained))
    return verdicts


def _judge_listed(binary: bool, allow: bool) -> Verdict:
    """Return the verdict on weights that carry no promise, trained on a GWAS that is known to contain the cohort."""
    found = "the training GWAS contains this cohort (key predictor.cohort_in_gwas)"
    if not binary:
        return Verdict(Severity.WARNING, f"{found}; the test stays valid but loses power")
    if allow:
        return Verdict(Severity.WARNING, f"{found}; the test of a binary trait is not calibrated; going on as asked")
    return Verdict(
        Severity.ERROR,
        f"{found}, which breaks the test of a binary trait; use weights fitted without it, or set "
        f"predictor.allow_overlap to go on all the same",
        denoise=False,
    )


def _case_share(cohort: Cohort, trait: str) -> float:
    """Return the share of cases among the analysed samples."""
    return float(np.nanmean(cohort.y[:, [t.name for t in cohort.traits].index(trait)]))


def _balance(cohort: Cohort, trait: str) -> float:
    """Return 4 K (1 - K), K the share of cases."""
    share = _case_share(cohort, trait)
    return 4 * share * (1 - share)
