"""The predictor stage: weights per trait, one scoring pass over the cohort, LOCO predictions.

Weights come from summary statistics (`summary`), from a published file (`external`) or from the cohort itself
(`individual`); `scoring` turns them into polygenic scores per chromosome. The LOCO prediction is the total minus the
chromosome. Several predictors are stacked into one; `judge` looks for overlap of training and test samples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from locomass.config import Predictor, forget_traits, per_trait
from locomass.errors import ConfigError, MatchError
from locomass.executors import Executor
from locomass.genotypes.fileset import Fileset, open_fileset
from locomass.null_models.design import orthonormal_design, residual_sd
from locomass.null_models.store import RESIDUAL_SD, write_array
from locomass.numbers import Floats
from locomass.people import find_samples, match_labels
from locomass.predict.chains import write_chains
from locomass.predict.external import load_weights
from locomass.predict.hygiene import find_loco_chromosome
from locomass.predict.individual import fit_cohort, marginal_effects, residual_trait
from locomass.predict.judge import judge_scores
from locomass.predict.kept import Kept
from locomass.predict.martingale import use_martingale_residuals
from locomass.predict.record import RECORD, add_score_spread, add_weight_counts
from locomass.predict.reference import FilesetReference, LdReference, StoredReference
from locomass.predict.scoring import FittedWeights, Scores, score_weights
from locomass.predict.stack import stack_scores
from locomass.predict.summary import CohortEffects, fit_weights
from locomass.predict.verdict import write_verdicts
from locomass.run.provenance import digest_file, write_json
from locomass.tables.cohort import Cohort
from locomass.tables.loco import read_loco, read_prediction_list, write_loco, write_prediction_list
from locomass.tables.samples import read_sample_list
from locomass.tables.weights import VariantWeights, write_weights
from locomass.variants.chromosomes import chromosome_order
from locomass_predictors.method import Source
from locomass_predictors.registry import find_method


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


def predict(
    options: Predictor,
    folder: Path,
    cohort: Cohort,
    out: Path,
    executor: Executor,
    build: str | None = None,
    digest: Callable[[Path], str] = digest_file,
) -> Prediction | None:
    """Make the LOCO predictions that the configuration asks for and write them to ``out/predict``.

    Args:
        options: the configuration's section.
        folder: what its paths are relative to.
        cohort: the study, whose samples and chromosomes are predicted.
        out: the run's output directory.
        executor: where tasks run.
        build: genome build of the study.
        digest: gives the content digest of an input.

    Returns:
        None when the method predicts nothing.

    Raises:
        InputError, MatchError: see the readers; coverage is too low, builds differ, or training and test samples
            overlap in a way that breaks the test.
    """
    source = find_method(options.method).source
    if source is Source.NONE:
        return None
    cohort = use_martingale_residuals(cohort)
    options = forget_traits(options, {unfit.trait.name for unfit in cohort.unfit})
    if source is Source.LOCO:
        prediction = read_predictions(options, folder, cohort)
    else:
        cache = folder / options.ld_cache if options.ld_cache else out / "ld_cache"
        kept = Kept(out / "parts" / "predict", digest)
        run = _Run(folder, cohort, cache, executor, build, kept)
        if options.gwas_samples and count_shared(folder / options.gwas_samples, cohort):
            options = msgspec.structs.replace(options, cohort_in_gwas=True)
        scores = judge_scores(options, cohort, compute_scores(options, run, out / "predict"))
        scores = replace(scores, record=add_score_spread(scores))
        write_verdicts(scores.record, out / "predict")
        prediction = leave_one_chromosome_out(scores, cohort)
        polygenic = _label(scores.values, scores.chromosomes, cohort.labels, scores.traits)
        write_array(out / "predict" / "polygenic_score.zarr", polygenic.rename("polygenic_score"))
        kept.forget_unused()
    write_array(out / "predict" / "loco_prediction.zarr", prediction.loco.rename("loco_prediction"))
    _export_loco(prediction, options.role, cohort, out / "predict")
    write_json(out / "predict" / RECORD, {"traits": prediction.record, "messages": prediction.messages})
    return prediction


def count_shared(path: Path, cohort: Cohort) -> int:
    """Return how many analysed samples a list of the training GWAS's samples names, by the rules of `people`.

    Raises:
        MatchError: the list must be matched by IID and IIDs are not distinct.
    """
    listed = read_sample_list(path)
    fid = None if listed.fid is None else listed.fid.astype(object)
    rows = find_samples(cohort.fid, cohort.iid, fid, listed.iid.astype(object), path.name)
    return int((rows >= 0).sum())


@dataclass(frozen=True)
class _Run:
    """What every predictor of a run shares."""

    folder: Path
    cohort: Cohort
    cache: Path
    executor: Executor
    build: str | None
    kept: Kept


def compute_scores(options: Predictor, run: _Run, out: Path) -> Scores:
    """Return the polygenic scores of one predictor, or of a stack of several.

    Args:
        options: one predictor.
        run: cohort, folders and executor.
        out: folder for weights and diagnostics; those of a stack's parts go to ``part1``, ``part2``, ... below it.
    """
    source = find_method(options.method).source
    if source is not Source.STACK and options.genotypes is None:
        raise ConfigError(f"key predictor.genotypes: method '{options.method}' needs the cohort's common variants")
    return _MAKERS[source](options, run, out)


def _stack_parts(options: Predictor, run: _Run, out: Path) -> Scores:
    """Return the combination of several predictors."""
    if len(options.stack) < 2:
        raise ConfigError("key predictor.stack: list at least two predictors to combine")
    parts = []
    for k, part in enumerate(options.stack):
        filled = replace_missing(part, options)
        # each is judged before it gets a weight: a predictor that has seen the cohort would get nearly all of it
        parts.append(judge_scores(filled, run.cohort, compute_scores(filled, run, out / f"part{k + 1}")))
    return stack_scores(parts, [p.either_sign for p in options.stack], run.cohort, options)


def _fit_to_cohort(options: Predictor, run: _Run, out: Path) -> Scores:
    """Return out-of-fold scores from the cohort's own genotypes."""
    return fit_cohort(options, _open_target(options, run), run.cohort, run.executor)


def _score_published(options: Predictor, run: _Run, out: Path) -> Scores:
    """Return the scores of weights that are ready."""
    target, names = _open_target(options, run), [t.name for t in run.cohort.traits]
    loaded = load_weights(options, run.folder, names, run.build)
    assert options.genotypes is not None
    return _join([score_weights(w, target, run.cohort, options.genotypes, run.executor, run.kept) for w in loaded])


def _score_fitted(options: Predictor, run: _Run, out: Path) -> Scores:
    """Return the scores of weights that are fitted to summary statistics, and export the weights."""
    target = _open_target(options, run)
    fitted = write_chains(_fit_summary(options, run, target), out)
    fitted = replace(fitted, record=add_weight_counts(fitted))
    _export_weights(fitted, out, run.build)
    assert options.genotypes is not None
    return score_weights(fitted, target, run.cohort, options.genotypes, run.executor, run.kept)


_MAKERS: dict[Source, Callable[[Predictor, _Run, Path], Scores]] = {
    Source.STACK: _stack_parts,
    Source.COHORT: _fit_to_cohort,
    Source.WEIGHTS: _score_published,
    Source.SUMMARY: _score_fitted,
}


def _open_target(options: Predictor, run: _Run) -> Fileset:
    """Open the cohort's common variants."""
    assert options.genotypes is not None
    return open_fileset(run.folder / options.genotypes)


def replace_missing(part: Predictor, whole: Predictor) -> Predictor:
    """Return a predictor of a stack; what it does not say about genotypes, LD and overlap it takes from the stack."""
    return msgspec.structs.replace(
        part,
        use=part.use or whole.role,
        genotypes=part.genotypes or whole.genotypes,
        ld_reference=part.ld_reference or whole.ld_reference,
        seed=whole.seed,
        cohort_in_gwas=part.cohort_in_gwas or whole.cohort_in_gwas,
        subtract_cohort=part.subtract_cohort or whole.subtract_cohort,
        allow_overlap=part.allow_overlap or whole.allow_overlap,
    )


def _open_reference(options: Predictor, run: _Run, target: Fileset) -> LdReference:
    """Open the LD reference: a fileset (the target itself when none is named), or a folder of published LD."""
    name = options.ld_reference
    if name is None or name == options.genotypes:
        return FilesetReference.open(target, run.cache, run.executor, run.kept)
    if (run.folder / name).is_dir():
        return StoredReference.open(run.folder / name, run.kept)
    return FilesetReference.open(open_fileset(run.folder / name), run.cache, run.executor, run.kept)


def _fit_summary(options: Predictor, run: _Run, target: Fileset) -> FittedWeights:
    """Fit weights from summary statistics; the cohort's own effects are computed when a method asks for them."""
    cohort, reference = run.cohort, _open_reference(options, run, target)

    def effects(trait: str) -> CohortEffects:
        beta_hat, n = marginal_effects(target, cohort, trait, run.executor)
        k = [t.name for t in cohort.traits].index(trait)
        share = float(np.nanmean(cohort.y[:, k])) if cohort.traits[k].kind == "binary" else None
        if reference.variants is target.variants:
            return CohortEffects(beta_hat, n, share)
        v = reference.variants
        own = FittedWeights(
            chromosome=v["chromosome"].astype(str).to_numpy(object),
            position=v["position"].to_numpy(np.int64),
            effect_allele=v["a1"].to_numpy(object),
            other_allele=v["a2"].to_numpy(object),
            id=v["id"].to_numpy(object),
            frequency=np.full(len(v), np.nan),
            weights=np.ones((len(v), 1)),
            traits=(trait,),
            record={},
            messages=(),
        )
        row, sign = own.find_in(target)
        return CohortEffects(np.where(row >= 0, beta_hat[np.maximum(row, 0)] * sign, np.nan), n, share)

    names = [t.name for t in cohort.traits]
    spread = {n: float(residual_trait(cohort, n, np.isfinite(cohort.y[:, k])).std()) for k, n in enumerate(names)}
    binary = {t.name for t in cohort.traits if t.kind == "binary"}
    return fit_weights(
        options=options,
        folder=run.folder,
        names=names,
        reference=reference,
        executor=run.executor,
        effects=effects,
        expected_sd=spread,
        kept=run.kept,
        binary=binary,
    )


def _join(parts: list[Scores]) -> Scores:
    """Return scores of several files side by side; a chromosome that a file lacks counts zero."""
    if len(parts) == 1:
        return parts[0]
    chromosomes = tuple(sorted({c for p in parts for c in p.chromosomes}, key=chromosome_order))
    n = parts[0].values.shape[1]
    columns = []
    for part in parts:
        full = np.zeros((len(chromosomes), n, len(part.traits)))
        full[[chromosomes.index(c) for c in part.chromosomes]] = part.values
        full[:, np.isnan(part.values).any(axis=(0, 2))] = np.nan
        columns.append(full)
    record = {k: v for p in parts for k, v in p.record.items()}
    traits, messages = tuple(t for p in parts for t in p.traits), tuple(m for p in parts for m in p.messages)
    return Scores(chromosomes, traits, np.concatenate(columns, axis=2), record, messages)


def leave_one_chromosome_out(scores: Scores, cohort: Cohort) -> Prediction:
    """Return ``total - score_c`` for every chromosome of the predictor and of the study.

    A chromosome without weights gets the full sum; contigs and pseudo-autosomal regions of the study get the prediction
    that leaves out the chromosome they belong to.
    """
    present = set(map(str, cohort.fileset.variants["chromosome"].unique()))
    chromosomes = sorted({*scores.chromosomes, *present}, key=chromosome_order)
    total = scores.values.sum(axis=0)
    loco = np.repeat(total[None], len(chromosomes), axis=0)
    for k, chromosome in enumerate(chromosomes):
        parent = find_loco_chromosome(chromosome)
        if parent in scores.chromosomes:
            loco[k] -= scores.values[scores.chromosomes.index(parent)]
    return Prediction(_label(loco, chromosomes, cohort.labels, scores.traits), scores.record, scores.messages)


def read_predictions(options: Predictor, folder: Path, cohort: Cohort) -> Prediction:
    """Read REGENIE LOCO files and lay them on the cohort's samples.

    Raises:
        ConfigError: no file is named.
        MatchError: a trait of pred.list or the configuration is not analysed, or no sample matches.
    """
    names = [t.name for t in cohort.traits]
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
        try:
            at = match_labels(array["sample"].values, cohort.fid.astype(str), cohort.iid.astype(str))
        except MatchError as error:
            raise MatchError(f"{path}: {error}") from None
        rows = np.array([chromosomes.index(c) for c in array["chromosome"].values.tolist()])
        values[np.ix_(rows, np.flatnonzero(at >= 0), np.array([k]))] = array.values[:, at[at >= 0]][:, :, None]
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


def _label(values: Floats, chromosomes: Any, samples: NDArray[Any], traits: Any) -> xr.DataArray:
    """Return values (chromosome, sample, trait) with labels."""
    coords = {"chromosome": list(chromosomes), "sample": samples.astype(str), "trait": list(traits)}
    return xr.DataArray(values, dims=("chromosome", "sample", "trait"), coords=coords)


def _export_loco(prediction: Prediction, role: str, cohort: Cohort, folder: Path) -> None:
    """Write REGENIE files: one .loco per trait and pred.list.

    REGENIE's unit is the standard deviation of the covariate-adjusted trait (log odds for a binary one), to be used as
    an offset: a prediction that enters our null model as a covariate is first multiplied with its whole-genome slope.
    """
    loco, files = prediction.loco, {}
    for trait in loco["trait"].values.tolist():
        values = loco.sel(trait=trait, drop=True)
        if loco.attrs.get("unit") != RESIDUAL_SD:
            slope = float(prediction.record[trait]["slope"]) if role == "covariate" else 1.0
            values = (values - values.mean("sample")) * (slope / _unit_of(cohort, trait, values))
        files[trait] = folder / f"{trait}.loco"
        write_loco(files[trait], values)
    write_prediction_list(folder / "pred.list", files)


def _unit_of(cohort: Cohort, trait: str, values: xr.DataArray) -> float:
    """Return the standard deviation of a quantitative trait with covariates projected out; 1 for a binary one."""
    k = [t.name for t in cohort.traits].index(trait)
    if cohort.traits[k].kind == "binary":
        return 1.0
    chosen = np.isfinite(cohort.y[:, k]) & np.isfinite(values.values).all(axis=0)
    X, names = cohort.design(chosen)
    return residual_sd(cohort.y[chosen, k], orthonormal_design(X, np.ones(len(X)), names))


def _export_weights(fitted: FittedWeights, folder: Path, build: str | None) -> None:
    """Write one PGS Catalog scoring file per trait."""
    for k, trait in enumerate(fitted.traits):
        used = np.flatnonzero(fitted.weights[:, k] != 0)
        weights = VariantWeights(
            path=Path(f"{trait}.weights.txt.gz"),
            format="locomass",
            names=(trait,),
            chromosome=fitted.chromosome[used],
            position=fitted.position[used],
            id=fitted.id[used],
            effect_allele=fitted.effect_allele[used],
            other_allele=fitted.other_allele[used],
            weights=fitted.weights[used, k : k + 1],
            genome_build=build,
        )
        folder.mkdir(parents=True, exist_ok=True)
        names = ("method", "h2", "r2_promised", "file")
        provenance = {name: fitted.record[trait][name] for name in names if name in fitted.record[trait]}
        write_weights(folder / f"{trait}.weights.txt.gz", weights, provenance=provenance)


__all__ = ["Prediction", "compute_scores", "leave_one_chromosome_out", "predict", "read_predictions"]
