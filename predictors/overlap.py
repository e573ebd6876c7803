"""Guard against a training GWAS that contains the cohort: subtract it, detect it, refuse what it would break."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np

from predictors.base import Floats, PredictorError

#: R2 observed / promised above this is well above 1
RATIO_LIMIT = 1.3
SLOPE_LIMIT_QUANTITATIVE = 1.1
SLOPE_LIMIT_BINARY = 1.5
RARE_PREVALENCE = 0.05
#: the excess must also be this many standard errors, so that small cohorts do not raise the alarm by chance
_STANDARD_ERRORS = 3.0

REMEDIES = (
    "subtract the cohort from the GWAS (leave-cohort-out summary statistics)",
    "use the cross-fitted stacked ridge of the cohort's own data",
    "use the prediction as an offset with a slope of at most 1",
)


class Severity(Enum):
    """What a verdict asks of the caller: go on, log it, or stop."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Verdict:
    """A judgement and the numbers behind it.

    Attributes:
        severity: OK, WARNING or ERROR.
        message: what was found and what to do; empty when all is well.
        denoise: False when de-noising should be off unless the user insists.
        r2_ratio: R2 observed over R2 promised, NaN when it was not judged.
        slope: slope of the trait on the prediction, NaN when it was not judged.
        max_slope: largest slope that an offset may take; infinity when there is no bound.
    """

    severity: Severity
    message: str = ""
    denoise: bool = True
    r2_ratio: float = float("nan")
    slope: float = float("nan")
    max_slope: float = float("inf")


def subtract_cohort(beta: Floats, se: Floats, beta_cohort: Floats, se_cohort: Floats) -> tuple[Floats, Floats]:
    """Return the GWAS without one of its cohorts.

    ``b = (W b_all - w_c b_c) / (W - w_c)``, ``se = 1/sqrt(W - w_c)`` with W = 1/se^2 and w_c = 1/se_c^2: exact for an
    inverse-variance fixed-effects meta-analysis.

    Args:
        beta: (m,) effects of the whole GWAS.
        se: (m,) their standard errors.
        beta_cohort: (m,) effects of the cohort, same alleles and scale; NaN where the cohort lacks the variant.
        se_cohort: (m,) their standard errors.

    Returns:
        beta (m,), se (m,) without the cohort. NaN where the cohort carries all the weight of a variant.

    Raises:
        PredictorError: shapes differ, a standard error is not positive, or the cohort weighs more than the whole GWAS
            for over 5 % of its variants: then it is not part of it, or is on another scale.
    """
    if not beta.shape == se.shape == beta_cohort.shape == se_cohort.shape:
        shapes = [a.shape for a in (beta, se, beta_cohort, se_cohort)]
        raise PredictorError(f"effects of GWAS and cohort must be equally long, got shapes {shapes}")
    present = np.isfinite(beta_cohort) & np.isfinite(se_cohort)
    if not (se > 0).all() or not (se_cohort[present] > 0).all():
        raise PredictorError("standard errors of GWAS and cohort must be positive; drop variants without one")
    w_all, w_cohort = 1.0 / se**2, np.where(present, 1.0 / np.where(present, se_cohort, 1.0) ** 2, 0.0)
    rest = w_all - w_cohort
    # a cohort that is all of the GWAS at a variant leaves rounding errors, not information
    gone = rest <= 1e-9 * w_all
    heavier = present & (rest < -1e-3 * w_all)
    if heavier.sum() > 0.05 * max(int(present.sum()), 1):
        raise PredictorError(
            f"the cohort has more weight than the whole GWAS at {int(heavier.sum()):,} of {int(present.sum()):,} "
            "variants: it is not part of this GWAS, or its effects are on another scale"
        )
    rest = np.where(gone, np.nan, rest)
    without = (w_all * beta - w_cohort * np.where(present, beta_cohort, 0.0)) / rest
    return without, 1.0 / np.sqrt(rest)


def judge_overlap(
    *,
    r2_observed: float,
    r2_promised: float,
    slope: float,
    slope_se: float,
    n: int,
    binary: bool,
    n_shared_ids: int = 0,
    cohort_in_gwas: bool = False,
    allow: bool = False,
) -> Verdict:
    """Judge whether the training GWAS contains the cohort.

    The alarm fires when sample ids or cohort lists say so, when R2 observed exceeds 1.3 times w'Rw, the R2 that the
    summary statistics promise out of sample, or when the slope of the trait on the prediction exceeds 1.1 (binary:
    1.5); the last two only when the excess is also more than three standard errors.

    Args:
        r2_observed: R2 of the whole-genome prediction in the cohort.
        r2_promised: w'Rw.
        slope: slope of the trait on the prediction, on the scale on which 1 is calibrated.
        slope_se: its standard error.
        n: samples of the cohort.
        binary: whether the trait is binary.
        n_shared_ids: samples known to be in both.
        cohort_in_gwas: whether the GWAS lists the cohort.
        allow: the user insists: a binary trait gets a warning instead of an error.

    Returns:
        OK; WARNING for a quantitative trait, whose test loses power but stays valid, with the slope of an offset
        bounded by 1; ERROR for a binary trait, whose test breaks.

    Raises:
        PredictorError: a figure is not finite or not positive where it must be.
    """
    if not (np.isfinite([r2_observed, slope]).all() and r2_promised > 0 and slope_se >= 0 and n > 1):
        raise PredictorError(
            f"overlap cannot be judged from R2 {r2_observed}, w'Rw {r2_promised}, slope {slope} (se {slope_se}), n {n}"
        )
    ratio = r2_observed / r2_promised
    # sampling error of an R2 that is truly what was promised
    r2_se = 2.0 * np.sqrt(r2_promised / n) * (1.0 - min(r2_promised, 1.0))
    limit = SLOPE_LIMIT_BINARY if binary else SLOPE_LIMIT_QUANTITATIVE
    signs = []
    if n_shared_ids:
        signs.append(f"{n_shared_ids:,} samples are in both")
    if cohort_in_gwas:
        signs.append("the GWAS lists the cohort")
    if ratio > RATIO_LIMIT and r2_observed - r2_promised > _STANDARD_ERRORS * r2_se:
        signs.append(f"R2 is {r2_observed:.3f} where the summary statistics promise {r2_promised:.3f}")
    if slope > limit and slope - 1.0 > _STANDARD_ERRORS * slope_se:
        signs.append(f"the slope on the prediction is {slope:.2f}, above {limit}")
    if not signs:
        return Verdict(Severity.OK, r2_ratio=ratio, slope=slope)
    found = f"the training GWAS seems to contain the cohort: {'; '.join(signs)}"
    if not binary:
        advice = f"The test stays valid but loses power. Remedies, in order: {'; '.join(REMEDIES)}."
        return Verdict(Severity.WARNING, f"{found}. {advice}", True, ratio, slope, 1.0)
    if allow:
        message = f"{found}. The test of a binary trait is not calibrated; going on because overlap was allowed."
        return Verdict(Severity.WARNING, message, True, ratio, slope, 1.0)
    message = f"{found}. This breaks the test of a binary trait. Remedies, in order: {'; '.join(REMEDIES[:2])}."
    return Verdict(Severity.ERROR, message, False, ratio, slope, 1.0)


def judge_ascertainment(*, prevalence: float, case_share: float, allow: bool = False) -> Verdict:
    """Judge whether de-noising pays in a case/control study.

    In a study that has collected cases of a rare disease, adjusting for a predictor may lose power.

    Args:
        prevalence: population prevalence of the disease.
        case_share: share of cases in the study.
        allow: the user insists on de-noising.

    Returns:
        OK, or a WARNING with ``denoise`` off (unless allowed) when prevalence is below 5 % and the study holds more
        than 1.5 times as many cases as the population.

    Raises:
        PredictorError: a share is not between 0 and 1.

    Source: Pirinen, Donnelly & Spencer (2012), Including known covariates can reduce power, Nat Genet 44:848.
    """
    if not (0 < prevalence < 1 and 0 < case_share < 1):
        raise PredictorError(f"expected shares between 0 and 1, got prevalence {prevalence}, case share {case_share}")
    if prevalence >= RARE_PREVALENCE or case_share <= 1.5 * prevalence:
        return Verdict(Severity.OK)
    found = (
        f"{case_share:.0%} of the study are cases of a disease with prevalence {prevalence:.2%}: in such a sample "
        "adjusting for a prediction can lose power"
    )
    return Verdict(
        Severity.WARNING, f"{found}; " + ("going on as asked" if allow else "de-noising is off"), denoise=allow
    )
