"""The predictor stage: weights per trait, one scoring pass over the cohort, LOCO predictions.

Summary statistics are matched to an LD reference, checked against it, and fitted per LD block; the weights (or those of
a published file) are scored on the cohort, per chromosome; the LOCO prediction is the total minus the chromosome.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pipeline.align import chromosome_order, match_variants
from pipeline.cluster import Executor
from pipeline.config import Predictor, per_trait
from pipeline.errors import ConfigError, InputError, MatchError
from pipeline.io.cohort import Cohort
from pipeline.io.loco import match_loco_samples, read_loco, read_prediction_list, write_loco, write_prediction_list
from pipeline.io.null_models import RESIDUAL_SD, write_array
from pipeline.io.plink import BedFile, Fileset, open_fileset, read_packed_rows
from pipeline.io.summary_statistics import SummaryStatistics, read_summary_statistics
from pipeline.io.weights import VariantWeights, write_weights
from pipeline.kernels.packed import decode_dosage
from pipeline.provenance import write_json
from predictors.base import BlockStatistics, PredictorError, PredictorFit
from predictors.harmonise import Harmonised, VariantTable, harmonise
from predictors.ld import (
    compute_ld_scores,
    compute_sparse_r2,
    correlation_from_dosage,
    describe_reference_size,
    split_blocks,
)
from predictors.ldsc import fit_ld_score_regression
from predictors.quality import check_quality, standardise_effects
from predictors.ridge import fit_ridge

Floats = NDArray[np.float64]
ROWS_AT_ONCE = 1024  # variants decoded to dense dosages at a time
MIN_H2 = 0.01  # the floor of an estimated heritability, so that a noisy estimate still gives a (small) predictor
METHODS = {"ridge": fit_ridge}


@dataclass(frozen=True)
class Prediction:
    """LOCO predictions of a cohort and how they came about.

    Attributes:
        loco: (chromosome, sample, trait), samples labelled as the cohort's; NaN where a sample has no prediction.
        record: per trait, what the report states.
        messages: warnings for the log.
    """

    loco: xr.DataArray
    record: dict[str, dict[str, Any]] = field(default_factory=dict)
    messages: tuple[str, ...] = ()


def predict(options: Predictor, folder: Path, cohort: Cohort, out: Path, executor: Executor) -> Prediction | None:
    """Make the LOCO predictions that the configuration asks for and write them to ``out/predict``.

    Args:
        options: the configuration's section.
        folder: what its paths are relative to.
        cohort: the study, whose samples and chromosomes are predicted.
        out: the run's output directory.
        executor: where tasks run.

    Returns:
        None when the method is ``none``.

    Raises:
        InputError, MatchError: see the readers; coverage is too low, or builds differ.
    """
    if options.method == "none":
        return None
    names = [t.name for t in cohort.traits]
    if options.method == "loco":
        prediction = read_predictions(options, folder, names, cohort)
    else:
        prediction = fit_predictions(options, folder, names, cohort, out, executor)
    write_array(out / "predict" / "loco_prediction.zarr", prediction.loco.rename("loco_prediction"))
    _export_loco(prediction.loco, out / "predict")
    write_json(out / "predict" / "record.json", {"traits": prediction.record, "messages": prediction.messages})
    return prediction


def _export_loco(loco: xr.DataArray, folder: Path) -> None:
    """Write REGENIE files: one .loco per trait and pred.list."""
    files = {}
    for trait in loco["trait"].values.tolist():
        files[trait] = folder / f"{trait}.loco"
        write_loco(files[trait], loco.sel(trait=trait, drop=True))
    write_prediction_list(folder / "pred.list", files)


def read_predictions(options: Predictor, folder: Path, names: list[str], cohort: Cohort) -> Prediction:
    """Read REGENIE LOCO files and lay them on the cohort's samples.

    Raises:
        ConfigError: no file is named.
        MatchError: a trait of pred.list or the configuration is not analysed, or no sample matches.
    """
    if not options.loco:
        raise ConfigError("key predictor.loco: method 'loco' needs a .loco file per trait, or a pred.list")
    if isinstance(options.loco, str):
        listed = read_prediction_list(folder / options.loco)
        files = {name: path for name, path in listed.items() if name in names}
        if not files:
            raise MatchError(f"{options.loco} names {', '.join(listed)}; analysed traits are {', '.join(names)}")
    else:
        files = {name: folder / path for name, path in per_trait(options.loco, names, "predictor.loco").items()}
    known: dict[Path, xr.DataArray] = {path: read_loco(path) for path in set(files.values())}
    chromosomes = sorted({c for a in known.values() for c in a["chromosome"].values.tolist()}, key=chromosome_order)
    values = np.full((len(chromosomes), len(cohort.iid), len(files)), np.nan)
    record: dict[str, dict[str, Any]] = {}
    for k, (name, path) in enumerate(files.items()):
        array = known[path]
        at = match_loco_samples(array["sample"].values, cohort.fid.astype(str), cohort.iid.astype(str))
        rows = [chromosomes.index(c) for c in array["chromosome"].values.tolist()]
        values[np.ix_(np.array(rows), np.flatnonzero(at >= 0), np.array([k]))] = array.values[:, at[at >= 0]][
            :, :, None
        ]
        missing = int(np.isnan(values[:, :, k]).all(axis=0).sum())
        record[name] = {"method": "loco", "file": str(path), "samples_without_prediction": missing}
    messages = tuple(
        f"trait '{name}': {r['samples_without_prediction']:,} samples have no LOCO prediction and are left out"
        for name, r in record.items()
        if r["samples_without_prediction"]
    )
    loco = _label(values, chromosomes, cohort.labels, list(files))
    loco.attrs["unit"] = RESIDUAL_SD
    return Prediction(loco, record, messages)


def _label(values: Floats, chromosomes: Sequence[str], samples: NDArray[Any], traits: Sequence[str]) -> xr.DataArray:
    """Return values (chromosome, sample, trait) with labels."""
    coords = {"chromosome": list(chromosomes), "sample": samples.astype(str), "trait": list(traits)}
    return xr.DataArray(values, dims=("chromosome", "sample", "trait"), coords=coords)


@dataclass(frozen=True)
class FittedWeights:
    """Per-allele weights of several traits on the variants of the LD reference.

    Attributes:
        chromosome, position, effect_allele, other_allele, id: (m,) labels; the effect allele is the reference's A1.
        frequency: (m,) of the effect allele in the reference.
        weights: (m, T).
        traits: names (T).
        record: per trait.
    """

    chromosome: NDArray[np.object_]
    position: NDArray[np.int64]
    effect_allele: NDArray[np.object_]
    other_allele: NDArray[np.object_]
    id: NDArray[np.object_]
    frequency: Floats
    weights: Floats
    traits: tuple[str, ...]
    record: dict[str, dict[str, Any]]
    messages: tuple[str, ...]


def fit_predictions(
    options: Predictor, folder: Path, names: list[str], cohort: Cohort, out: Path, executor: Executor
) -> Prediction:
    """Fit weights from summary statistics, score the cohort with them, and subtract each chromosome."""
    if options.genotypes is None:
        raise ConfigError(f"key predictor.genotypes: method '{options.method}' needs the cohort's common variants")
    target = open_fileset(folder / options.genotypes)
    reference = target
    if options.ld_reference is not None and options.ld_reference != options.genotypes:
        reference = open_fileset(folder / options.ld_reference)
    fitted = fit_weights(options, folder, names, reference, executor)
    _export_weights(fitted, out / "predict")
    score, chromosomes, coverage = score_cohort(fitted, target, executor)
    record = {t: {**fitted.record[t], "coverage": float(coverage[k])} for k, t in enumerate(fitted.traits)}
    messages = list(fitted.messages)
    for trait, r in record.items():
        if r["coverage"] < 0.5:
            raise MatchError(
                f"trait '{trait}': {options.genotypes} has only {r['coverage']:.0%} of the predictor's variance "
                f"(sum w^2 sd^2); at least 50 % is needed: is it on the same genome build as {options.ld_reference}?"
            )
        if r["coverage"] < 0.75:
            messages.append(f"trait '{trait}': only {r['coverage']:.0%} of the predictor's variance is genotyped")
    labels = np.array([f"{f}_{i}" for f, i in zip(target.fid, target.iid, strict=True)], object)
    polygenic = _label(score, chromosomes, labels, fitted.traits)
    write_array(out / "predict" / "polygenic_score.zarr", polygenic.rename("polygenic_score"))
    present = set(map(str, cohort.fileset.variants["chromosome"].unique()))
    loco = leave_one_chromosome_out(polygenic, sorted({*chromosomes, *present}, key=chromosome_order))
    at = match_loco_samples(labels.astype(str), cohort.fid.astype(str), cohort.iid.astype(str))
    values = np.full((loco.sizes["chromosome"], len(at), len(fitted.traits)), np.nan)
    values[:, at >= 0] = loco.values[:, at[at >= 0]]
    absent = int((at < 0).sum())
    if absent:
        messages.append(f"{absent:,} analysed samples are not in {options.genotypes} and are left out")
    return Prediction(
        _label(values, loco["chromosome"].values.tolist(), cohort.labels, fitted.traits), record, tuple(messages)
    )


def leave_one_chromosome_out(score: xr.DataArray, chromosomes: Sequence[str]) -> xr.DataArray:
    """Return ``sum over d of score_d - score_c`` for every chromosome c; one without weights gets the full sum.

    Args:
        score: polygenic_score (chromosome, sample, trait).
        chromosomes: the chromosomes wanted.
    """
    own = score.reindex(chromosome=list(chromosomes), fill_value=0.0)
    return (score.sum("chromosome") - own).transpose("chromosome", "sample", "trait")


def fit_weights(
    options: Predictor, folder: Path, names: list[str], reference: Fileset, executor: Executor
) -> FittedWeights:
    """Fit the weights of every trait that has summary statistics.

    Traits that share a file share everything up to the fit.
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
        key = (source, h2_given.get(name))
        if key not in fits:
            fits[key] = _fit_trait(options, matched[source], union, blocks, reference.n_samples, key[1], name)
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


def decode_rows(
    beds: tuple[BedFile, ...], rows: NDArray[np.int64], position: NDArray[np.int32], n_kept: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return (m, n_kept) A1 dosages of chosen variants (missing at the mean) and their A1 frequencies (m,)."""
    packed = read_packed_rows(beds, rows)
    dosage = np.empty((len(rows), n_kept), np.float32)
    return dosage, decode_dosage(packed, position, n_kept, dosage)


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
) -> tuple[Floats, dict[str, Any]]:
    """Return per-allele weights on the union of reference variants, and the record of the fit."""
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
    record = dict(matched.record)
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
        fit: PredictorFit = METHODS[options.method](statistics, h2=h2)
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


def _export_weights(fitted: FittedWeights, folder: Path) -> None:
    """Write one PGS Catalog scoring file per trait."""
    for k, trait in enumerate(fitted.traits):
        used = np.flatnonzero(fitted.weights[:, k] != 0)
        weights = VariantWeights(
            Path(f"{trait}.weights.txt.gz"), "locomass", (trait,), fitted.chromosome[used], fitted.position[used],
            fitted.id[used], fitted.effect_allele[used], fitted.other_allele[used], fitted.weights[used, k : k + 1],
        )  # fmt: skip
        folder.mkdir(parents=True, exist_ok=True)
        provenance = {"method": fitted.record[trait].get("method"), "r2_promised": fitted.record[trait]["r2_promised"]}
        write_weights(folder / f"{trait}.weights.txt.gz", weights, provenance=provenance)


@dataclass(frozen=True)
class ScoreTask:
    """Variants of one chromosome to score: rows of the target, A1 frequency-free weights (m, T) of its A1."""

    beds: tuple[BedFile, ...]
    rows: NDArray[np.int64]
    weights: Floats
    n_samples: int


def score_cohort(fitted: FittedWeights, target: Fileset, executor: Executor) -> tuple[Floats, list[str], Floats]:
    """Score every sample of a fileset in one pass over its genotypes, all traits at once.

    Returns:
        score (chromosome, sample, trait), centred; chromosomes; coverage (trait,) ``sum w^2 sd^2`` matched over all.
    """
    match = match_variants(
        fitted.chromosome, fitted.position, fitted.other_allele, fitted.effect_allele, target.variants, "the predictor"
    )
    found = match.row >= 0
    variance = fitted.weights**2 * (2 * fitted.frequency * (1 - fitted.frequency))[:, None]
    total = variance.sum(axis=0)
    coverage = np.divide(variance[found].sum(axis=0), total, out=np.zeros_like(total), where=total > 0)
    signed = fitted.weights * np.where(match.a1_is_alt, 1.0, -1.0)[:, None]
    chromosomes = sorted(set(fitted.chromosome[found]), key=chromosome_order)
    tasks = []
    for chromosome in chromosomes:
        here = np.flatnonzero(found & (fitted.chromosome == chromosome))
        here = here[np.argsort(match.row[here])]
        tasks.append(ScoreTask(target.beds, match.row[here], signed[here], target.n_samples))
    return np.stack(executor.run(_score_task, tasks)), chromosomes, coverage


def _score_task(task: ScoreTask) -> Floats:
    """Return (n, T) ``sum_j w_j (g_ij - 2 f_j)`` over the variants of one chromosome; missing calls count 2 f_j."""
    out = np.zeros((task.n_samples, task.weights.shape[1]))
    position = np.arange(task.n_samples, dtype=np.int32)
    for start in range(0, len(task.rows), ROWS_AT_ONCE):
        stop = start + ROWS_AT_ONCE
        dosage, frequency = decode_rows(task.beds, task.rows[start:stop], position, task.n_samples)
        dosage -= 2 * np.nan_to_num(frequency)[:, None]
        out += dosage.T @ task.weights[start:stop]
    return out
