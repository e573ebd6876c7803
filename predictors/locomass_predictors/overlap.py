"""Guard against a training GWAS that contains the cohort: subtract it, detect it, refuse what it would break."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np

from locomass_predictors.base import Floats, PredictorError, Promise

#: share of the cohort in the GWAS above which the alarm fires, when it is also three standard errors above 0
THETA_LIMIT = 0.3
#: a prediction whose R2 is below this share of what was promised has failed
FAILED_SHARE = 0.2
RARE_PREVALENCE = 0.05
#: so that small cohorts do not raise an alarm by chance
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
    """

    severity: Severity
    message: str = ""
    denoise: bool = True


@dataclass(frozen=True, slots=True)
class Overlap:
    """How much of a cohort is in the GWAS that trained a prediction.

    Attributes:
        theta: estimated share of the cohort that is in the GWAS.
        se: its standard error.
    """

    theta: float
    se: float

    @property
    def is_seen(self) -> bool:
        """Whether theta is above 0.3 and more than three standard errors above 0."""
        return self.theta > THETA_LIMIT and self.theta > _STANDARD_ERRORS * self.se


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


def estimate_overlap(promise: Promise, covariance: float, *, n: int, n_gwas: float) -> Overlap | None:
    """Estimate the share of a cohort that is in the training GWAS from how well the prediction does there.

    With w'b_new = cov(score, y)/sd(y) in the cohort, ``theta = (w'b_new - (w'b - penalty)) / penalty``: in strangers
    the covariance falls by the penalty, in the people of the GWAS it does not. The standard error is
    ``sqrt(w'Rw (1/n + 1/N)) / penalty``.

    Args:
        promise: of the weights.
        covariance: w'b_new, score and trait on the standardised scale of the GWAS (a binary trait with effective sample
            sizes: divided by ``sqrt(4 K (1 - K))``).
        n: people of the cohort.
        n_gwas: people of the GWAS, effective where that is what it counts.

    Returns:
        The estimate; None when the weights owe nothing to noise, so that overlap would leave no trace.

    Raises:
        PredictorError: a figure is not finite or not positive where it must be.
    """
    if not (np.isfinite(covariance) and promise.variance > 0 and n > 1 and n_gwas > 1):
        raise PredictorError(
            f"overlap cannot be judged from covariance {covariance}, w'Rw {promise.variance}, n {n} and {n_gwas}"
        )
    if not promise.penalty > 0:
        return None
    theta = (covariance - (promise.covariance - promise.penalty)) / promise.penalty
    return Overlap(float(theta), float(np.sqrt(promise.variance * (1 / n + 1 / n_gwas)) / promise.penalty))


def judge_overlap(
    overlap: Overlap | None,
    *,
    binary: bool,
    offset: bool = False,
    n_shared_ids: int = 0,
    cohort_in_gwas: bool = False,
    allow: bool = False,
) -> Verdict:
    """Judge whether the training GWAS contains the cohort.

    The alarm fires when sample ids or cohort lists say so, or when the estimated share of the cohort in the GWAS is
    above 0.3 and more than three standard errors above 0.

    Args:
        overlap: the estimate; None when there is none.
        binary: whether the trait is binary.
        offset: whether the prediction is an offset.
        n_shared_ids: samples known to be in both.
        cohort_in_gwas: whether the GWAS lists the cohort.
        allow: the user insists: what would be an error is a warning.

    Returns:
        OK; WARNING where the test stays valid and loses power; ERROR for a binary trait with the prediction as an
        offset, whose test becomes conservative (null mean chi2 0.81 to 0.85; as a covariate 0.96 to 1.02).
    """
    signs = []
    if n_shared_ids:
        signs.append(f"{n_shared_ids:,} samples are in both")
    if cohort_in_gwas:
        signs.append("the GWAS lists the cohort")
    if overlap is not None and overlap.is_seen:
        signs.append(f"the prediction fits as if {overlap.theta:.0%} of the cohort (SE {overlap.se:.0%}) were in it")
    if not signs:
        return Verdict(Severity.OK)
    found = f"the training GWAS may include this cohort: {'; '.join(signs)}"
    if not (binary and offset):
        advice = f"The test stays valid but loses power. Remedies, in order: {'; '.join(REMEDIES)}."
        return Verdict(Severity.WARNING, f"{found}. {advice}")
    if allow:
        message = f"{found}. The test of a binary trait is not calibrated; going on because overlap was allowed."
        return Verdict(Severity.WARNING, message)
    remedies = "; ".join((*REMEDIES[:2], "use the prediction as a covariate"))
    message = f"{found}. This breaks the test of a binary trait. Remedies, in order: {remedies}."
    return Verdict(Severity.ERROR, message, denoise=False)


def judge_success(*, correlation: float, r2_promised: float, n: int) -> Verdict:
    """Judge whether a prediction keeps anything of its promise.

    Args:
        correlation: of the prediction with the trait in the cohort, with its sign.
        r2_promised: R2 that the summary statistics promise.
        n: people of the cohort.

    Returns:
        OK, or a WARNING that names likely causes: the correlation is negative, or R2 is below a fifth of the promise,
        by more than three standard errors of a correlation.
    """
    promised, error = float(np.sqrt(max(r2_promised, 0.0))), 1.0 / np.sqrt(n)
    negative = correlation < -_STANDARD_ERRORS * error
    short = correlation < np.sqrt(FAILED_SHARE) * promised and promised - correlation > _STANDARD_ERRORS * error
    if not negative and not short:
        return Verdict(Severity.OK)
    causes = (
        "effect and other allele exchanged, or the trait coded the other way round"
        if negative
        else "sample labels that belong to other people, another genome build, variants matched to the wrong alleles, "
        "an LD reference or a GWAS of another ancestry, or another trait"
    )
    return Verdict(
        Severity.WARNING,
        f"the prediction failed: its correlation with the trait is {correlation:.3f}, expected {promised:.3f}. "
        f"Likely causes: {causes}. Check these before using it",
    )


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
