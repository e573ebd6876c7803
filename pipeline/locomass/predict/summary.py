"""Weights from GWAS summary statistics: matched to an LD reference, checked against it, fitted per LD block."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from locomass.config import Predictor, per_trait
from locomass.errors import ConfigError, InputError
from locomass.executors import Executor
from locomass.files.parts import Arrays
from locomass.numbers import Floats
from locomass.predict.kept import Kept
from locomass.predict.reference import LdReference
from locomass.predict.scoring import FittedWeights
from locomass.run.provenance import digest_arrays
from locomass.tables.ld_store import LdBlock
from locomass.tables.summary_statistics import SummaryStatistics, find_metadata, read_summary_statistics
from locomass_predictors.base import BlockStatistics, PredictorError, tune_on_summary
from locomass_predictors.harmonise import Harmonised, VariantTable, harmonise
from locomass_predictors.ld import compute_ld_scores, describe_reference_size
from locomass_predictors.ldpred2 import estimate_heritability
from locomass_predictors.ldsc import fit_ld_score_regression
from locomass_predictors.method import Need
from locomass_predictors.overlap import subtract_cohort
from locomass_predictors.quality import check_quality, estimate_sd_y, standardise_effects
from locomass_predictors.registry import find_method, read_options

#: keys of the configuration that name one file or number per trait
PER_TRAIT = ("summary_statistics", "n_samples", "n_meaning", "heritability", "columns")
TOLERANCE, HALF = 1.25, 0.5  # factors by which sample sizes agree with standard errors
DOUBLED = "sample sizes are half of the effective ones by their standard errors: they are doubled (key n_meaning)"
TOTAL = (
    "sample sizes look {:.2g} times what the standard errors say: n is the total, not the effective sample size; the "
    "effective one of the standard errors is used (give n_eff, or cases and controls)"
)
UNTOLD = (
    "Z scores do not tell whether n is the total or the effective sample size of a binary trait; it is taken as the "
    "total: state it by key predictor.n_meaning"
)
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
    binary: Collection[str] = (),
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
        binary: the traits that are.

    Raises:
        ConfigError: no summary statistics are named.
        InputError: they do not fit the reference, or the method finds no answer.
    """
    files = per_trait(options.summary_statistics, names, "predictor.summary_statistics")
    if not files:
        raise ConfigError(f"key predictor.summary_statistics: method '{options.method}' needs a file per trait")
    sizes = per_trait(options.n_samples, names, "predictor.n_samples")
    h2_given = per_trait(options.heritability, names, "predictor.heritability")
    meanings = per_trait(options.n_meaning, names, "predictor.n_meaning")
    sources = {name: (path, sizes.get(name), meanings.get(name), name in binary) for name, path in files.items()}
    bim, frequency = reference.variants, reference.frequency
    matched: dict[Any, MatchedStatistics] = {}
    for name, source in sources.items():
        if source not in matched:
            matched[source] = _match_kept(folder / source[0], source[1:], options.columns, reference, name, kept)
    union = np.unique(np.concatenate([m.target for m in matched.values()]))
    blocks = reference.compute_blocks(union, options.max_block_variants, executor)
    ld = digest_arrays(union, *(array for block in blocks for array in (block.rows, block.R)))
    label = bim["chromosome"].astype(str).to_numpy(object)[union]
    position = bim["position"].to_numpy(np.int64)[union]
    weights = np.zeros((len(union), len(files)))
    record: dict[str, dict[str, Any]] = {}
    messages = [] if reference.n_samples is None else [describe_reference_size(reference.n_samples)]
    fits: dict[Any, tuple[Floats, dict[str, Any]]] = {}
    for k, (name, source) in enumerate(sources.items()):
        own = Need.TUNING in find_method(options.method).needs or options.subtract_cohort
        key = (source, h2_given.get(name), name if own else "")
        if key not in fits:
            fit = _Fit(options, matched[source], reference.n_samples, key[1], name, effects(name) if own else None)
            fits[key] = _fit_kept(fit, LdOfUnion(union, position, label, blocks, ld), executor, kept)
            messages += matched[source].messages
            messages.append(_check_scale(matched[source].record, name, expected_sd[name]))
            messages += [f"trait '{name}', {options.method}: {step}" for step in fits[key][1].get("fallbacks", ())]
        weights[:, k], record[name] = fits[key]
    a1, a2, ids = (bim[c].to_numpy(object)[union] for c in ("a1", "a2", "id"))
    return FittedWeights(
        chromosome=label,
        position=position,
        effect_allele=a1,
        other_allele=a2,
        id=ids,
        frequency=frequency[union],
        weights=weights,
        traits=tuple(sources),
        record=record,
        messages=tuple(m for m in messages if m),
    )


def _match_kept(
    path: Path,
    sizes: tuple[float | None, str | None, bool],
    columns: Mapping[str, str],
    reference: LdReference,
    trait: str,
    kept: Kept,
) -> MatchedStatistics:
    """Return the matched statistics of a file, kept or computed."""
    metadata = find_metadata(path)
    content = [kept.digest(path), kept.digest(metadata) if metadata else "", str(path), trait]
    key = [*content, *sizes, dict(columns), reference.digest]
    found = kept.recall("matched", key)
    if found is None:
        n_samples, meaning, binary = sizes
        m = match_statistics(
            path, n_samples, columns, reference.variants, reference.frequency, trait, binary=binary, n_meaning=meaning
        )
        arrays: Arrays = {"target": m.target, "beta_hat": m.beta_hat, "scale": m.scale, "n": m.n}
        found = kept.keep("matched", key, arrays, [m.record, m.messages])
    arrays, (record, messages) = found
    target, beta_hat, scale, n = (arrays[name] for name in ("target", "beta_hat", "scale", "n"))
    return MatchedStatistics(target, beta_hat, scale, n, record, tuple(messages))


def _check_scale(record: Mapping[str, Any], trait: str, expected: float) -> str:
    """Return a warning when the sample sizes do not go with the standard errors, else an empty text.

    ``sqrt(n se^2 + beta^2) sd(g)`` is the trait's standard deviation: the cohort's, or 1 of a standardised trait.
    """
    if record["per_sd"]:  # Z scores have no scale
        return ""
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
    path: Path,
    n_samples: float | None,
    columns: Mapping[str, str],
    bim: Any,
    frequency: Floats,
    trait: str,
    *,
    binary: bool = False,
    n_meaning: str | None = None,
) -> MatchedStatistics:
    """Read summary statistics, match them to the reference and drop what fails the checks.

    Raises:
        InputError: too few variants match, or the numbers contradict the reference; names file and trait.
    """
    statistics = open_statistics(path, n_samples, columns, trait)
    meaning = "effective" if statistics.n_is_effective else n_meaning
    try:
        found = harmonise_statistics(statistics, bim)
        f = frequency[found.target]
        n = statistics.n_eff[found.source] * (2 if meaning == "half" else 1)
        beta, se = _per_allele(statistics, found, n, f)
        eaf, folded = _read_frequencies(statistics, found, f)
        quality = check_quality(beta, se, n, f, frequency=eaf)
        n, effective, told = _judge_sizes(n, meaning, binary, quality.sd_y, bool(statistics.per_sd.all()))
        if told == DOUBLED:
            quality = check_quality(beta, se, n, f, frequency=eaf)
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
        "n_is_effective": effective,
        "per_sd": bool(statistics.per_sd.all()),
        "mean_chi2": float(np.mean((beta[keep] / se[keep]) ** 2)),
    }
    every = (*statistics.messages, *found.messages, folded, *quality.messages, told)
    messages = tuple(f"{path.name}: {m}" for m in every if m)
    return MatchedStatistics(found.target[keep], beta_hat, scale, n[keep], record, messages)


def open_statistics(
    path: Path, n_samples: float | None, columns: Mapping[str, str], trait: str, *, head_only: bool = False
) -> SummaryStatistics:
    """Read the summary statistics of a trait, or their first block only.

    Raises:
        InputError: see `read_summary_statistics`; there is no sample size.
    """
    statistics = read_summary_statistics(path, columns=dict(columns) or None, n_samples=n_samples, head_only=head_only)
    if np.isnan(statistics.n_eff).all():
        raise ConfigError(f"{path} has no sample size; give predictor.n_samples for trait '{trait}'")
    return statistics


def harmonise_statistics(statistics: SummaryStatistics, bim: Any) -> Harmonised:
    """Match each row to a reference by its position, or by its identifier where it has none.

    Raises:
        PredictorError: too few match.
    """
    reference = VariantTable(
        bim["chromosome"].astype(str).to_numpy(object),
        bim["position"].to_numpy(),
        bim["a1"].to_numpy(object),
        bim["a2"].to_numpy(object),
        bim["id"].to_numpy(object),
    )
    table = VariantTable(
        statistics.chromosome,
        statistics.position,
        statistics.effect_allele,
        statistics.other_allele,
        statistics.id,
        statistics.eaf,
    )
    return harmonise(table, reference, match_by="row")


def _per_allele(statistics: SummaryStatistics, found: Harmonised, n: Floats, f: Floats) -> tuple[Floats, Floats]:
    """Return effects and standard errors per allele of the reference.

    A row with Z alone has ``b = z / sqrt(n + z^2)`` and se ``1 / sqrt(n + z^2)`` per standard deviation of the genotype
    and of the trait; per allele these are divided by ``sqrt(2 f (1 - f))``, and multiplied by the sd of the trait that
    the other rows show.
    """
    beta = statistics.beta[found.source] * found.sign
    se = statistics.se[found.source]
    per_sd = statistics.per_sd[found.source]
    if not per_sd.any():
        return beta, se
    with np.errstate(invalid="ignore", divide="ignore"):
        z, sd = beta / se, np.sqrt(2 * f * (1 - f))
        one = 1 / (np.sqrt(n + z**2) * sd)
    unit = 1.0 if per_sd.all() else estimate_sd_y(beta[~per_sd], se[~per_sd], n[~per_sd], f[~per_sd])
    return np.where(per_sd, unit * z * one, beta), np.where(per_sd, unit * one, se)


def _read_frequencies(statistics: SummaryStatistics, found: Harmonised, f: Floats) -> tuple[Floats | None, str]:
    """Return frequencies of the reference's A1 in the GWAS (None: unknown), and a warning.

    They are those of the minor allele where none is above 0.5, although the effect allele is often the more frequent
    one in the reference.
    """
    eaf = statistics.eaf[found.source]
    if np.isnan(eaf).all():
        return None, ""
    effect = np.where(found.sign < 0, 1 - f, f)  # of the effect allele in the reference
    known = np.isfinite(eaf)
    frequent = known & (effect > 0.6)
    if known.sum() >= 20 and (eaf[known] <= 0.5).all() and frequent.sum() > 0.05 * known.sum():
        folded = float(np.corrcoef(eaf[known], np.minimum(effect, 1 - effect)[known])[0, 1])
        if folded > 0.7:
            eaf = np.where(effect > 0.5, 1 - eaf, eaf)
            message = "no frequency is above 0.5: they are taken as those of the minor allele (MAF), not of the effect"
            return np.where(found.sign < 0, 1 - eaf, eaf), f"{message} allele"
    return np.where(found.sign < 0, 1 - eaf, eaf), ""


def _judge_sizes(n: Floats, meaning: str | None, binary: bool, sd_y: float, per_sd: bool) -> tuple[Floats, bool, str]:
    """Return sample sizes, whether they are effective ones of log odds, and a warning.

    Log odds have ``n_eff se^2 2 f (1 - f) = 4``: where nothing is stated of a binary trait, sizes that agree with
    their standard errors are effective, sizes half as large are half of them, and larger ones are totals, for which
    ``n_eff`` is put. (Linear models of a binary trait show an sd of 0.5 or less.) Z scores alone do not tell.
    """
    if not binary:
        return n, False, ""
    factor = (sd_y / 2.0) ** 2
    if meaning in ("effective", "half"):
        return n, True, ""
    if factor > TOLERANCE and not per_sd:
        return n / factor, True, TOTAL.format(factor)
    if meaning == "total":
        return n, False, ""
    if per_sd:
        return n, False, UNTOLD
    if HALF / TOLERANCE < factor < HALF * TOLERANCE:
        return 2 * n, True, DOUBLED
    return n, 1 / TOLERANCE < factor < TOLERANCE, ""


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


@dataclass(frozen=True)
class LdOfUnion:
    """LD of all variants that any trait's statistics have.

    Attributes:
        union: (m,) variants of the reference, increasing.
        position: (m,) base pairs.
        label: (m,) chromosomes.
        blocks: LD blocks.
        digest: of all that.
    """

    union: NDArray[np.int64]
    position: NDArray[np.int64]
    label: NDArray[np.object_]
    blocks: list[LdBlock]
    digest: str

    def restrict(self, matched: MatchedStatistics) -> tuple[list[BlockStatistics], list[NDArray[np.int64]]]:
        """Return the blocks of one trait's variants, and where each block's variants are in its statistics."""
        statistics, places = [], []
        for block in self.blocks:
            inside = np.isin(block.rows, matched.target)
            if not inside.any():
                continue
            rows = block.rows[inside]
            at, here = np.searchsorted(matched.target, rows), np.searchsorted(self.union, rows)
            R = block.R if inside.all() else np.ascontiguousarray(block.R[np.ix_(inside, inside)])
            statistics.append(
                BlockStatistics(matched.beta_hat[at], matched.n[at], R, str(self.label[here[0]]), self.position[here])
            )
            places.append(at)
        return statistics, places


def _fit_kept(fit: _Fit, ld: LdOfUnion, executor: Executor, kept: Kept) -> tuple[Floats, dict[str, Any]]:
    """Return the weights of a trait and their record, kept or computed."""
    found = kept.recall("weights", [ld.digest, fit.key])
    if found is None:
        weights, record = _fit_trait(fit, ld, executor)
        found = kept.keep("weights", [ld.digest, fit.key], {"weights": weights}, record)
    return found[0]["weights"], found[1]


def _fit_trait(fit: _Fit, ld: LdOfUnion, executor: Executor) -> tuple[Floats, dict[str, Any]]:
    """Return per-allele weights on the union of reference variants, and the record of the fit."""
    options, matched, trait, own = fit.options, fit.matched, fit.trait, fit.own
    record = dict(matched.record)
    method = find_method(options.method)
    if own is not None and record["n_is_effective"]:
        own = own.on_effective_scale()
    if options.subtract_cohort and own is not None:
        matched = _subtract(matched, own, trait)
        record |= {"cohort_subtracted": float(own.n), "n": float(np.median(matched.n))}
    statistics, places = ld.restrict(matched)
    offered: dict[str, Any] = {"map_function": executor.map, "seed": options.seed}
    try:
        if method.needs & {Need.H2, Need.H2_INIT}:
            guess, how = (fit.h2, {}) if fit.h2 is not None else _estimate_h2(statistics, fit.n_reference)
            offered["h2_init"] = offered["h2"] = guess
            if Need.H2 in method.needs and fit.h2 is None:
                sampled = estimate_heritability(statistics, h2_init=guess, seed=options.seed, map_function=executor.map)
                offered["h2"] = guess if sampled is None else float(np.clip(sampled, MIN_H2, 1.0))
                how |= {"h2_from": "LD score regression" if sampled is None else "sampler"}
            record |= {"h2": offered["h2"], **how}
        if Need.TUNING in method.needs and own is not None:
            tuning = [np.nan_to_num(own.beta_hat[matched.target[at]]) for at in places]
            offered["tune"] = tune_on_summary(statistics, tuning)
        answer = method.fit_summary(statistics, read_options(method.name, options.options), **offered)
    except PredictorError as error:
        raise InputError(f"trait '{trait}', {matched.record['file']}: {error}") from None
    weights = np.zeros(len(ld.union))
    for at, w in zip(places, answer.weights, strict=True):
        weights[np.searchsorted(ld.union, matched.target[at])] = w * matched.scale[at]
    record |= {**answer.record, "blocks": len(statistics)}
    if answer.promise is not None:
        record |= {"r2_promised": answer.promise.r2, "promise": asdict(answer.promise)}
    return weights, record


def _estimate_h2(blocks: list[BlockStatistics], n_reference: int | None) -> tuple[float, dict[str, Any]]:
    """Return the heritability by LD score regression, and how it was found.

    The free intercept costs precision: with few variants h2 is all noise. When it is not three standard errors above
    zero the intercept is fixed at 1, ``h2 = M mean(chi2 - 1) / mean(n l)``.
    """
    beta_hat, n = (np.concatenate([getattr(block, name) for block in blocks]) for name in ("beta_hat", "n"))
    ld_scores = np.concatenate([compute_ld_scores(block.R, n_reference) for block in blocks])
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
