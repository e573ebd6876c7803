"""Quality of summary statistics, judged against the LD reference: scale, standard deviations, n, frequencies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from locomass_predictors.base import Floats, PredictorError

Bools = NDArray[np.bool_]

#: effect frequencies correlated below this with the reference are those of the other allele
_OPPOSED_CORRELATION = -0.3
_MUCH = 0.05  # a larger share of variants is not lost without a warning
_MEANING = {
    "not_finite": "no finite effect, positive se and n (not_finite)",
    "low_n": "a sample size below two thirds of what most have (low_n)",
    "low_sd": "too rare (low_sd)",
    "sd_mismatch": "se and n contradict the frequency in the reference (sd_mismatch)",
    "frequency_mismatch": "a frequency that differs from the reference by more than 0.2 (frequency_mismatch)",
}
#: share of the variance of a published score that must, and should, be at hand


@dataclass(frozen=True, slots=True)
class QualityReport:
    """What passed, what did not and why.

    Attributes:
        keep: (m,) True where the variant passed every check.
        sd_y: standard deviation of the trait that was given or estimated; 2 for logistic regression.
        counts: variants dropped per reason; a variant counts under the first reason that it meets.
        messages: warnings for the log.
    """

    keep: Bools
    sd_y: float
    counts: Mapping[str, int]
    messages: tuple[str, ...]


def standardise_effects(beta: Floats, se: Floats, n: Floats) -> tuple[Floats, Floats]:
    """Return standardised marginal effects and their scale.

    ``s_j = sqrt(n_j se_j^2 + beta_j^2)``, ``beta_hat_j = beta_j / s_j``: the correlation of trait and genotype. A
    fitted weight w_j becomes a per-allele weight as ``w_j s_j``.

    Args:
        beta: (m,) effects per allele (log odds for logistic regression).
        se: (m,) standard errors.
        n: (m,) sample sizes; effective ones for logistic regression.

    Returns:
        beta_hat (m,), s (m,).

    Raises:
        PredictorError: a standard error or sample size is not positive, or an effect is not finite.
    """
    bad = ~(np.isfinite(beta) & np.isfinite(se) & (se > 0) & np.isfinite(n) & (n > 0))
    if bad.any():
        j = int(np.argmax(bad))
        raise PredictorError(
            f"{int(bad.sum())} variants have no usable effect; the first, number {j + 1}, has beta {beta[j]}, "
            f"se {se[j]}, n {n[j]}: expected finite beta and positive se and n; drop them with check_quality first"
        )
    s = np.sqrt(n * se**2 + beta**2)
    return beta / s, s


def estimate_sd_y(beta: Floats, se: Floats, n: Floats, frequency: Floats) -> float:
    """Return the standard deviation of the trait, the median of ``s_j sqrt(2 f_j (1 - f_j))`` over common variants.

    Args:
        beta: (m,) effects per allele.
        se: (m,) standard errors.
        n: (m,) sample sizes.
        frequency: (m,) allele frequencies in the reference.

    Returns:
        sd(y) in the unit of the effects.

    Raises:
        PredictorError: no variant has a minor allele frequency of 1 % or more.
    """
    usable = (np.minimum(frequency, 1.0 - frequency) >= 0.01) & np.isfinite(beta) & np.isfinite(se) & (se > 0) & (n > 0)
    if not usable.any():
        raise PredictorError("sd(y) cannot be estimated: no variant with frequency 1-99 % in the reference; give sd_y")
    s = np.sqrt(n[usable] * se[usable] ** 2 + beta[usable] ** 2)
    return float(np.median(s * _binomial_sd(frequency[usable])))


def check_quality(
    beta: Floats,
    se: Floats,
    n: Floats,
    frequency_reference: Floats,
    *,
    frequency: Floats | None = None,
    sd_y: float | None = None,
    logistic: bool = False,
) -> QualityReport:
    """Check matched summary statistics against the LD reference.

    Compares ``sd_ss = sd(y) / sqrt(n se^2 + beta^2)`` with ``sd_ref = sqrt(2 f (1 - f))`` and drops a variant, in this
    order, when: a number is not finite or se or n not positive (``not_finite``); n below the 90 % quantile / 1.5
    (``low_n``); either sd below 0.05 (``low_sd``); sd_ss below 0.5 sd_ref or above sd_ref + 0.1
    (``sd_mismatch``); the two frequencies differ by more than 0.2 (``frequency_mismatch``).

    Args:
        beta: (m,) effects per allele, alleles already turned to the reference.
        se: (m,) standard errors.
        n: (m,) sample sizes, effective ones for logistic regression.
        frequency_reference: (m,) frequency of the effect allele in the LD reference.
        frequency: (m,) the same in the GWAS, NaN where unknown; None when the file has none.
        sd_y: standard deviation of the trait in the GWAS; estimated when None. Not used for logistic regression.
        logistic: effects are log odds ratios, for which sd(y) is 2 on the effective-n scale.

    Returns:
        Which variants to keep, counts per reason, and warnings.

    Raises:
        PredictorError: n looks wrong by a factor of 2 or more (only seen when sd_y is given or the trait is binary); or
            no variant passes.

    Source: Prive et al. (2022), Identifying and correcting for misspecifications in GWAS summary statistics, HGG
    Advances 3:100136.
    """
    for name, values in (("se", se), ("n", n), ("frequency_reference", frequency_reference), ("frequency", frequency)):
        if values is not None and values.shape != beta.shape:
            raise PredictorError(f"{name} has shape {values.shape}, expected that of beta, {beta.shape}")
    finite = (
        np.isfinite(beta) & np.isfinite(se) & (se > 0) & np.isfinite(n) & (n > 0) & np.isfinite(frequency_reference)
    )
    if not finite.any():
        raise PredictorError("no variant has a finite effect, a positive se and n, and a frequency in the reference")
    opposed = "" if frequency is None else _describe_opposed(frequency[finite], frequency_reference[finite])
    if opposed:
        frequency = None
    scale, messages = _find_scale(beta[finite], se[finite], n[finite], frequency_reference[finite], sd_y, logistic)
    # rows that are not finite get harmless numbers: they are dropped by the first reason
    s = np.sqrt(np.where(finite, n * se**2 + beta**2, 1.0))
    sd_ss, sd_ref = scale / s, _binomial_sd(np.where(finite, frequency_reference, 0.5))
    reasons: dict[str, Bools] = {
        "not_finite": ~finite,
        "low_n": ~(n >= np.quantile(n[finite], 0.9) / 1.5),
        "low_sd": (sd_ss < 0.05) | (sd_ref < 0.05),
        "sd_mismatch": (sd_ss < 0.5 * sd_ref) | (sd_ss > sd_ref + 0.1),
    }
    if frequency is not None:
        reasons["frequency_mismatch"] = np.abs(frequency - frequency_reference) > 0.2
    messages += [opposed] if opposed else []
    keep, counts = _count_first_reasons(reasons)
    if not keep.any():
        raise PredictorError(f"no variant passes quality control; dropped: {_list_counts(counts)}")
    messages += [
        f"quality control drops {count:,} of {keep.size:,} variants ({count / keep.size:.0%}): {_MEANING[reason]}"
        for reason, count in counts.items()
        if count > _MUCH * keep.size
    ]
    return QualityReport(keep, scale, counts, tuple(messages))


def _binomial_sd(frequency: Floats) -> Floats:
    """Return ``sqrt(2 f (1 - f))``, the sd of a dosage under Hardy-Weinberg proportions."""
    return np.asarray(np.sqrt(2.0 * frequency * (1.0 - frequency)))


def _describe_opposed(frequency: Floats, frequency_reference: Floats) -> str:
    """Return a warning when the frequencies of the GWAS run opposite to those of the reference, else an empty text.

    Two faults look the same here: the frequency column counts the other allele (effects are right), or effect and other
    allele are exchanged (every weight has the wrong sign). Only the cohort's own phenotypes tell them apart.
    """
    known = np.isfinite(frequency)
    f, f_ref = frequency[known], frequency_reference[known]
    if f.size < 10 or f.std() == 0 or f_ref.std() == 0:
        return ""
    correlation = float(np.corrcoef(f, f_ref)[0, 1])
    if correlation >= _OPPOSED_CORRELATION:
        return ""
    return (
        f"frequencies of the summary statistics correlate {correlation:.2f} with the reference over {f.size:,} "
        "variants: either the frequency column counts the other allele (effects are right), or effect allele and other "
        "allele are exchanged (all weights have the wrong sign). The slope of the prediction in the cohort says: "
        "above 0 the frequency column, below 0 the alleles; correct that column. Frequencies are not used"
    )


def _find_scale(
    beta: Floats, se: Floats, n: Floats, frequency: Floats, sd_y: float | None, logistic: bool
) -> tuple[float, list[str]]:
    """Return sd(y) and messages about it; raise when the data contradict the sd(y) that was given."""
    seen = estimate_sd_y(beta, se, n, frequency)
    if sd_y is None and not logistic:
        return seen, []
    scale = 2.0 if logistic else float(sd_y or 0.0)
    if not scale > 0:
        raise PredictorError(f"sd_y must be positive, got {sd_y}")
    # sd(y) is seen as sqrt(n) se sd(g): n too large by k shows as sd(y) too large by sqrt(k)
    factor = (seen / scale) ** 2
    wanted = "effective n, 4/(1/cases + 1/controls)," if logistic else "n"
    if not 0.5 < factor < 2.0:
        raise PredictorError(
            f"sample sizes look {factor:.2g} times what the standard errors say (sd(y) {seen:.3g} seen, {scale:.3g} "
            f"expected): check that {wanted} is right" + ("" if logistic else ", or correct sd_y")
        )
    if not 0.8 < factor < 1.25:
        return scale, [f"sample sizes look {factor:.2g} times what the standard errors say; check {wanted.rstrip(',')}"]
    return scale, []


def _count_first_reasons(reasons: Mapping[str, Bools]) -> tuple[Bools, dict[str, int]]:
    """Return the variants that meet no reason, and how many meet each reason first."""
    remaining = ~np.zeros_like(next(iter(reasons.values())))
    counts: dict[str, int] = {}
    for reason, hit in reasons.items():
        counts[reason] = int((remaining & hit).sum())
        remaining &= ~hit
    return remaining, counts


def _list_counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{reason} {count:,}" for reason, count in counts.items() if count)
