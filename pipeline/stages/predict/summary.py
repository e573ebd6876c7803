"""Weights from GWAS summary statistics: matched to an LD reference, checked against it, fitted per LD block."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.align import chromosome_order
from pipeline.cluster import Executor, ThreadExecutor
from pipeline.config import Predictor, per_trait
from pipeline.errors import ConfigError, InputError
from pipeline.io.plink import BedFile, Fileset
from pipeline.io.summary_statistics import SummaryStatistics, read_summary_statistics
from pipeline.stages.predict.scoring import ROWS_AT_ONCE, FittedWeights, decode_rows
from predictors.base import BlockStatistics, PredictorError, PredictorFit, tune_on_summary
from predictors.harmonise import Harmonised, VariantTable, harmonise
from predictors.ld import (
    compute_ld_scores,
    compute_sparse_r2,
    correlation_from_dosage,
    describe_reference_size,
    split_blocks,
)
from predictors.ldsc import fit_ld_score_regression
from predictors.overlap import subtract_cohort
from predictors.quality import check_quality, standardise_effects
from predictors.registry import find_method

Floats = NDArray[np.float64]
MIN_H2 = 0.01  # the floor of an estimated heritability, so that a noisy estimate still gives a (small) predictor


def fit_weights(
    options: Predictor,
    folder: Path,
    names: list[str],
    reference: Fileset,
    executor: Executor,
    effects: Callable[[str], CohortEffects],
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
    bim = reference.variants
    frequency = reference_frequencies(reference, executor)
    matched: dict[Any, MatchedStatistics] = {}
    for name, source in sources.items():
        if source not in matched:
            matched[source] = match_statistics(folder / source[0], source[1], options.columns, bim, frequency, name)
    union = np.unique(np.concatenate([m.target for m in matched.values()]))
    blocks = compute_ld(reference, union, options.max_block_variants, executor)
    weights = np.zeros((len(union), len(files)))
    record: dict[str, dict[str, Any]] = {}
    messages = [describe_reference_size(reference.n_samples)]
    fits: dict[Any, tuple[Floats, dict[str, Any]]] = {}
    for k, (name, source) in enumerate(sources.items()):
        own = find_method(options.method).needs_tuning or options.subtract_cohort
        key = (source, h2_given.get(name), name if own else "")
        if key not in fits:
            fits[key] = _fit_trait(options, matched[source], union, blocks, reference.n_samples, key[1], name, effects)
            messages += matched[source].messages
        weights[:, k], record[name] = fits[key]
    label = bim["chromosome"].astype(str).to_numpy(object)[union]
    a1, a2, ids = (bim[c].to_numpy(object)[union] for c in ("a1", "a2", "id"))
    return FittedWeights(
        label, bim["position"].to_numpy(np.int64)[union], a1, a2, ids, frequency[union], weights, tuple(sources),
        record, tuple(m for m in messages if m),
    )  # fmt: skip


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
    """Standardised marginal effects of a trait in the cohort, per variant of the reference (NaN: not genotyped)."""

    beta_hat: Floats
    n: int


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
class LdTask:
    """Variants of one chromosome of the LD reference."""

    beds: tuple[BedFile, ...]
    rows: NDArray[np.int64]
    position: NDArray[np.int64]
    n_samples: int
    max_block: int

    def read(self, start: int, stop: int) -> NDArray[np.float32]:
        """Return (n, stop - start) A1 dosages, missing calls at their mean."""
        return decode_rows(self.beds, self.rows[start:stop], np.arange(self.n_samples, dtype=np.int32), self.n_samples)[
            0
        ].T


@dataclass(frozen=True)
class LdBlock:
    """One block: (m,) variants of the reference and their correlation R (m, m) float32."""

    rows: NDArray[np.int64]
    R: NDArray[np.float32]


@dataclass(frozen=True)
class _FrequencyTask:
    beds: tuple[BedFile, ...]
    start: int
    stop: int
    n_samples: int


def _frequency_task(task: _FrequencyTask) -> NDArray[np.float32]:
    """Return the A1 frequencies of a stretch of variants."""
    parts = []
    for start in range(task.start, task.stop, ROWS_AT_ONCE):
        rows = np.arange(start, min(start + ROWS_AT_ONCE, task.stop))
        parts.append(decode_rows(task.beds, rows, np.arange(task.n_samples, dtype=np.int32), task.n_samples)[1])
    return np.concatenate(parts)


def reference_frequencies(reference: Fileset, executor: Executor) -> Floats:
    """Return the A1 frequency of every variant of a fileset."""
    step = 16 * ROWS_AT_ONCE
    tasks = [
        _FrequencyTask(reference.beds, start, min(start + step, reference.n_variants), reference.n_samples)
        for start in range(0, reference.n_variants, step)
    ]
    return np.concatenate(executor.run(_frequency_task, tasks)).astype(np.float64)


def compute_ld(reference: Fileset, rows: NDArray[np.int64], max_block: int, executor: Executor) -> list[LdBlock]:
    """Return LD blocks of chosen reference variants, in genome order; one task per chromosome.

    Blocks are cut where the least r2 is lost (`predictors.ld.split_blocks`).
    """
    label = reference.variants["chromosome"].astype(str).to_numpy(object)[rows]
    position = reference.variants["position"].to_numpy(np.int64)[rows]
    tasks = []
    for chromosome in sorted(set(label), key=chromosome_order):
        here = np.flatnonzero(label == chromosome)
        here = here[np.argsort(position[here], kind="stable")]
        tasks.append(LdTask(reference.beds, rows[here], position[here], reference.n_samples, max_block))
    return [block for part in executor.run(_ld_task, tasks) for block in part]


def _ld_task(task: LdTask) -> list[LdBlock]:
    """Split one chromosome and compute the correlation of each block."""
    order = np.argsort(task.rows)
    sorted_task = LdTask(task.beds, task.rows[order], task.position[order], task.n_samples, task.max_block)
    if np.any(np.diff(sorted_task.position) < 0):
        raise InputError(
            f"{task.beds[0].path}: variants of a chromosome are not sorted by position; sort the fileset "
            f"(plink2 --make-pgen --sort-vars)"
        )
    r2 = compute_sparse_r2(sorted_task.read, sorted_task.position, window=task.max_block)
    cuts = split_blocks(r2, min_size=min(100, task.max_block), max_size=task.max_block).boundaries
    blocks = []
    for low, high in zip(cuts[:-1], cuts[1:], strict=True):
        blocks.append(LdBlock(sorted_task.rows[low:high], correlation_from_dosage(sorted_task.read(low, high))))
    return blocks


def _fit_trait(
    options: Predictor,
    matched: MatchedStatistics,
    union: NDArray[np.int64],
    blocks: list[LdBlock],
    n_reference: int,
    h2_given: float | None,
    trait: str,
    effects: Callable[[str], CohortEffects],
) -> tuple[Floats, dict[str, Any]]:
    """Return per-allele weights on the union of reference variants, and the record of the fit."""
    record = dict(matched.record)
    method = find_method(options.method)
    own = effects(trait) if method.needs_tuning or options.subtract_cohort else None
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
        h2 = h2_given
        if h2 is None:
            order = np.concatenate(places)
            chi2 = matched.n[order] * matched.beta_hat[order] ** 2 / (1 - matched.beta_hat[order] ** 2)
            ldsc = fit_ld_score_regression(
                chi2, np.concatenate(ld_scores), matched.n[order], n_variants_reference=len(order)
            )
            record["ld_score_regression"] = vars_of(ldsc)
            h2 = float(np.clip(ldsc.h2, MIN_H2, 1.0))
        arguments: dict[str, Any] = {"map_function": _map_on_threads}
        if method.seeded:
            arguments["seed"] = options.seed
        if method.needs_tuning and own is not None:
            tuning = [np.nan_to_num(own.beta_hat[matched.target[at]]) for at in places]
            arguments["tune"] = tune_on_summary(statistics, tuning)
        fit: PredictorFit = method.fit(statistics, h2=h2, **arguments)
    except PredictorError as error:
        raise InputError(f"trait '{trait}', {matched.record['file']}: {error}") from None
    weights = np.zeros(len(union))
    for at, w in zip(places, fit.weights, strict=True):
        weights[np.searchsorted(union, matched.target[at])] = w * matched.scale[at]
    record |= {**fit.record, "h2": h2, "r2_promised": fit.r2_promised, "blocks": len(statistics)}
    return weights, record


def vars_of(value: Any) -> dict[str, Any]:
    """Return the fields of a slotted dataclass."""
    return {name: getattr(value, name) for name in value.__dataclass_fields__}
