"""Weights from GWAS summary statistics: matched to an LD reference, checked against it, fitted per LD block."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from pipeline.cluster import Executor, ThreadExecutor
from pipeline.config import Predictor, per_trait
from pipeline.errors import ConfigError, InputError
from pipeline.io.ld_store import LdBlock
from pipeline.io.parts import Arrays
from pipeline.io.summary_statistics import SummaryStatistics, find_metadata, read_summary_statistics
from pipeline.provenance import digest_arrays
from pipeline.stages.predict.kept import Kept
from pipeline.stages.predict.reference import LdReference
from pipeline.stages.predict.scoring import FittedWeights
from predictors.base import BlockStatistics, PredictorError, PredictorFit, tune_on_summary
from predictors.harmonise import Harmonised, VariantTable, harmonise
from predictors.ld import compute_ld_scores, describe_reference_size
from predictors.ldsc import fit_ld_score_regression
from predictors.overlap import subtract_cohort
from predictors.quality import check_quality, standardise_effects
from predictors.registry import find_method

Floats = NDArray[np.float64]
#: keys of the configuration that name one file or number per trait
PER_TRAIT = ("summary_statistics", "n_samples", "heritability", "columns")
SURE = 3.0  # standard errors
SCALE_LIMIT = 2.0  # how far off, as a factor, a sample size may look
MIN_H2 = 0.01  # the floor of an estimated heritability, so that a noisy estimate still gives a (small) predictor


def fit_weights(
    options: Predictor,
    folder: Path,
    names: list[str],
    reference: LdReference,
    executor: Executor,
    effects: Callable[[str], CohortEffects],
    expected_sd: Mapping[str, float],
    kept: Kept,
) -> FittedWeights:
    """Fit the weights of every trait that has summary statistics.

    Traits that share a file share everything up to the fit.

    Args:
        options: the configuration's section.
        folder: what its paths are relative to.
        names: analysed traits.
        reference: the LD reference.
        executor: where tasks run.
        effects: gives the cohort's own marginal effects of a trait on the reference's variants, for methods that need
            tuning data and for leaving the cohort out of the GWAS.
        expected_sd: per trait, the standard deviation that its GWAS should show: 2 with effective sample sizes
            (log odds), else the cohort's.
        kept: where matched statistics and weights of an earlier run are; each is computed when it is not there.

    Raises:
        ConfigError: no summary statistics are named.
        InputError: they do not fit the reference, or the method finds no answer.
    """
    files = per_trait(options.summary_statistics, names, "predictor.summary_statistics")
    if not files:
        raise ConfigError(f"key predictor.summary_statistics: method '{options.method}' needs a file per trait")
    sizes = per_trait(options.n_samples, names, "predictor.n_samples")
    h2_given = per_trait(options.heritability, names, "predictor.heritability")
    sources = {name: (path, sizes.get(name)) for name, path in files.items()}
    bim, frequency = reference.variants, reference.frequency
    matched: dict[Any, MatchedStatistics] = {}
    for name, source in sources.items():
        if source not in matched:
            matched[source] = _match_kept(folder / source[0], source[1], options.columns, reference, name, kept)
    union = np.unique(np.concatenate([m.target for m in matched.values()]))
    blocks = reference.compute_blocks(union, options.max_block_variants, executor)
    ld = digest_arrays(union, *(array for block in blocks for array in (block.rows, block.R)))
    weights = np.zeros((len(union), len(files)))
    record: dict[str, dict[str, Any]] = {}
    messages = [] if reference.n_samples is None else [describe_reference_size(reference.n_samples)]
    fits: dict[Any, tuple[Floats, dict[str, Any]]] = {}
    for k, (name, source) in enumerate(sources.items()):
        own = find_method(options.method).needs_tuning or options.subtract_cohort
        key = (source, h2_given.get(name), name if own else "")
        if key not in fits:
            fit = _Fit(options, matched[source], reference.n_samples, key[1], name, effects(name) if own else None)
            fits[key] = _fit_kept(fit, union, blocks, ld, kept)
            messages += matched[source].messages
            messages.append(_check_scale(matched[source].record, name, expected_sd[name]))
            messages += [f"trait '{name}', {options.method}: {step}" for step in fits[key][1].get("fallbacks", ())]
        weights[:, k], record[name] = fits[key]
    label = bim["chromosome"].astype(str).to_numpy(object)[union]
    a1, a2, ids = (bim[c].to_numpy(object)[union] for c in ("a1", "a2", "id"))
    return FittedWeights(
        label, bim["position"].to_numpy(np.int64)[union], a1, a2, ids, frequency[union], weights, tuple(sources),
        record, tuple(m for m in messages if m),
    )  # fmt: skip


def _match_kept(
    path: Path, n_samples: float | None, columns: Mapping[str, str], reference: LdReference, trait: str, kept: Kept
) -> MatchedStatistics:
    """Return the matched statistics of a file, kept or computed."""
    metadata = find_metadata(path)
    content = [kept.digest(path), kept.digest(metadata) if metadata else "", str(path), trait]
    key = [*content, n_samples, dict(columns), reference.digest]
    found = kept.recall("matched", key)
    if found is None:
        m = match_statistics(path, n_samples, columns, reference.variants, reference.frequency, trait)
        arrays: Arrays = {"target": m.target, "beta_hat": m.beta_hat, "scale": m.scale, "n": m.n}
        found = kept.keep("matched", key, arrays, [m.record, m.messages])
    arrays, (record, messages) = found
    target, beta_hat, scale, n = (arrays[name] for name in ("target", "beta_hat", "scale", "n"))
    return MatchedStatistics(target, beta_hat, scale, n, record, tuple(messages))


def _check_scale(record: Mapping[str, Any], trait: str, expected: float) -> str:
    """Return a warning when the sample sizes do not go with the standard errors, else an empty text.

    ``sqrt(n se^2 + beta^2) sd(g)`` is the trait's standard deviation: the cohort's, or 1 of a standardised trait.
    """
    seen = float(record["sd_y"])
    factors = [(seen / unit) ** 2 for unit in ((2.0,) if record["n_is_effective"] else (expected, 1.0))]
    if any(1 / SCALE_LIMIT < factor < SCALE_LIMIT for factor in factors):
        return ""
    return (
        f"trait '{trait}': sample sizes look {factors[0]:.2g} times what the standard errors say (the trait has sd "
        f"{seen:.3g} there, {2.0 if record['n_is_effective'] else expected:.3g} is expected): check n, or whether the "
        f"GWAS is in another unit"
    )


@dataclass(frozen=True)
class MatchedStatistics:
    """Summary statistics of one file on variants of the LD reference, signs turned to its A1.

    Attributes:
        target: (k,) variants of the reference, increasing.
        beta_hat, scale, n: (k,) standardised effects, ``s_j``, sample sizes.
        record: counts for the report; messages: warnings.
    """

    target: NDArray[np.int64]
    beta_hat: Floats
    scale: Floats
    n: Floats
    record: dict[str, Any]
    messages: tuple[str, ...]


def match_statistics(
    path: Path, n_samples: float | None, columns: Mapping[str, str], bim: Any, frequency: Floats, trait: str
) -> MatchedStatistics:
    """Read summary statistics, match them to the reference and drop what fails the checks.

    Raises:
        InputError: too few variants match, or the numbers contradict the reference; names file and trait.
    """
    statistics = read_summary_statistics(path, columns=dict(columns) or None, n_samples=n_samples)
    if np.isnan(statistics.n_eff).all():
        raise ConfigError(f"{path} has no sample size; give predictor.n_samples for trait '{trait}'")
    reference = VariantTable(
        bim["chromosome"].astype(str).to_numpy(object), bim["position"].to_numpy(), bim["a1"].to_numpy(object),
        bim["a2"].to_numpy(object), bim["id"].to_numpy(object),
    )  # fmt: skip
    try:
        found = _harmonise(statistics, reference)
        beta = statistics.beta[found.source] * found.sign
        se, n = statistics.se[found.source], statistics.n_eff[found.source]
        eaf = statistics.eaf[found.source]
        eaf = np.where(found.sign < 0, 1 - eaf, eaf)
        known = None if np.isnan(eaf).all() else eaf
        quality = check_quality(beta, se, n, frequency[found.target], frequency=known)
        keep = quality.keep
        beta_hat, scale = standardise_effects(beta[keep], se[keep], n[keep])
    except PredictorError as error:
        raise InputError(f"trait '{trait}', {path}: {error}") from None
    record = {
        "file": str(path),
        "format": statistics.format,
        "rows": len(statistics),
        "rows_dropped": statistics.dropped,
        "matched": {k: int(v) for k, v in found.counts.items()},
        "reference_covered": found.coverage,
        "quality_dropped": {k: int(v) for k, v in quality.counts.items()},
        "variants": int(keep.sum()),
        "sd_y": quality.sd_y,
        "n": float(np.median(n[keep])),
        "n_is_effective": bool(np.any(statistics.n_eff[found.source] != statistics.n[found.source])),
        "mean_chi2": float(np.mean((beta[keep] / se[keep]) ** 2)),
    }
    messages = tuple(f"{path.name}: {m}" for m in (*found.messages, *quality.messages))
    return MatchedStatistics(found.target[keep], beta_hat, scale, n[keep], record, messages)


def _harmonise(statistics: SummaryStatistics, reference: VariantTable) -> Harmonised:
    """Match by position, or by identifier when the file has no positions."""
    table = VariantTable(
        statistics.chromosome, statistics.position, statistics.effect_allele, statistics.other_allele, statistics.id
    )
    return harmonise(table, reference, match_by="position" if (statistics.position > 0).any() else "id")


@dataclass(frozen=True)
class CohortEffects:
    """Standardised marginal effects of a trait in the cohort, per variant of the reference (NaN: not genotyped).

    Attributes:
        beta_hat: (M,) correlations with the trait, covariates projected out.
        n: samples.
        case_share: share of cases, None for a quantitative trait.
    """

    beta_hat: Floats
    n: float
    case_share: float | None = None

    def on_effective_scale(self) -> CohortEffects:
        """Return the effects standardised with ``n_eff = 4 K (1 - K) n``, as a GWAS that counts its cases has them."""
        if self.case_share is None:
            return self
        balance = 4 * self.case_share * (1 - self.case_share)
        return replace(self, beta_hat=self.beta_hat / np.sqrt(balance), n=self.n * balance)


def _subtract(matched: MatchedStatistics, own: CohortEffects, trait: str) -> MatchedStatistics:
    """Return the summary statistics without the cohort: the effects of a GWAS of ``n - n_c`` people."""
    cohort = own.beta_hat[matched.target]
    try:
        beta, se = subtract_cohort(
            matched.beta_hat, 1 / np.sqrt(matched.n), cohort, np.full(len(cohort), 1 / np.sqrt(own.n))
        )
    except PredictorError as error:
        raise InputError(f"trait '{trait}', key predictor.subtract_cohort: {error}") from None
    keep = np.isfinite(beta) & np.isfinite(se)
    return replace(
        matched, target=matched.target[keep], beta_hat=beta[keep], scale=matched.scale[keep], n=1 / se[keep] ** 2
    )


def _map_on_threads(function: Callable[..., Any], *items: Any) -> list[Any]:
    """Map over threads of this process: kernels release the GIL and share R."""
    return ThreadExecutor().run(lambda args: function(*args), list(zip(*items, strict=True)))


@dataclass(frozen=True)
class _Fit:
    """What the weights of one trait depend on, LD apart.

    Attributes:
        options: the configuration's section.
        matched: summary statistics on the reference's variants.
        n_reference: people behind the LD.
        h2: given heritability.
        trait: name, for messages.
        own: the cohort's own effects, where the method needs them or they are subtracted.
    """

    options: Predictor
    matched: MatchedStatistics
    n_reference: int | None
    h2: float | None
    trait: str
    own: CohortEffects | None

    @property
    def key(self) -> list[Any]:
        """Digests of all that; the files are in `matched` by content."""
        m, own = self.matched, self.own
        options = {k: v for k, v in msgspec.to_builtins(self.options).items() if k not in PER_TRAIT}
        effects = [digest_arrays(own.beta_hat), own.n, own.case_share] if own else []
        statistics = digest_arrays(m.target, m.beta_hat, m.scale, m.n)
        return [options, statistics, m.record, self.n_reference, self.h2, self.trait, effects]


def _fit_kept(
    fit: _Fit, union: NDArray[np.int64], blocks: list[LdBlock], ld: str, kept: Kept
) -> tuple[Floats, dict[str, Any]]:
    """Return the weights of a trait and their record, kept or computed; ``ld`` is the digest of union and blocks."""
    found = kept.recall("weights", [ld, fit.key])
    if found is None:
        weights, record = _fit_trait(fit, union, blocks)
        found = kept.keep("weights", [ld, fit.key], {"weights": weights}, record)
    return found[0]["weights"], found[1]


def _fit_trait(fit: _Fit, union: NDArray[np.int64], blocks: list[LdBlock]) -> tuple[Floats, dict[str, Any]]:
    """Return per-allele weights on the union of reference variants, and the record of the fit."""
    options, matched, n_reference, trait = fit.options, fit.matched, fit.n_reference, fit.trait
    record = dict(matched.record)
    method = find_method(options.method)
    own = fit.own
    if own is not None and record["n_is_effective"]:
        own = own.on_effective_scale()
    if options.subtract_cohort and own is not None:
        matched = _subtract(matched, own, trait)
        record["cohort_subtracted"] = float(own.n)
    statistics, places, ld_scores = [], [], []
    for block in blocks:
        inside = np.isin(block.rows, matched.target)
        if not inside.any():
            continue
        at = np.searchsorted(matched.target, block.rows[inside])
        R = block.R if inside.all() else np.ascontiguousarray(block.R[np.ix_(inside, inside)])
        statistics.append(BlockStatistics(matched.beta_hat[at], matched.n[at], R))
        places.append(at)
        ld_scores.append(compute_ld_scores(R, n_reference))
    try:
        h2 = fit.h2
        if h2 is None:
            order = np.concatenate(places)
            h2, how = _estimate_h2(matched.beta_hat[order], matched.n[order], np.concatenate(ld_scores))
            record |= how
        arguments: dict[str, Any] = {"map_function": _map_on_threads}
        if method.seeded:
            arguments["seed"] = options.seed
        if method.needs_tuning and own is not None:
            tuning = [np.nan_to_num(own.beta_hat[matched.target[at]]) for at in places]
            arguments["tune"] = tune_on_summary(statistics, tuning)
        answer: PredictorFit = method.fit(statistics, h2=h2, **arguments)
    except PredictorError as error:
        raise InputError(f"trait '{trait}', {matched.record['file']}: {error}") from None
    weights = np.zeros(len(union))
    for at, w in zip(places, answer.weights, strict=True):
        weights[np.searchsorted(union, matched.target[at])] = w * matched.scale[at]
    record |= {"h2": h2, **answer.record, "r2_promised": answer.r2_promised, "blocks": len(statistics)}
    return weights, record


def _estimate_h2(beta_hat: Floats, n: Floats, ld_scores: Floats) -> tuple[float, dict[str, Any]]:
    """Return the heritability by LD score regression, and how it was found.

    The free intercept costs precision: with few variants h2 is all noise. When it is not three standard errors above
    zero the intercept is fixed at 1, ``h2 = M mean(chi2 - 1) / mean(n l)``.
    """
    chi2 = n * beta_hat**2 / (1 - beta_hat**2)
    M = len(chi2)
    free = fit_ld_score_regression(chi2, ld_scores, n, n_variants_reference=M)
    h2, intercept = free.h2, "free"
    if not (free.h2 > SURE * free.h2_se and free.h2 < 1):
        h2, intercept = float(M * np.mean(chi2 - 1) / np.mean(n * np.maximum(ld_scores, 1))), "fixed at 1"
    how = {"ld_score_regression": vars_of(free), "ld_score_intercept": intercept}
    return float(np.clip(h2, MIN_H2, 1.0)), how


def vars_of(value: Any) -> dict[str, Any]:
    """Return the fields of a slotted dataclass."""
    return {name: getattr(value, name) for name in value.__dataclass_fields__}
