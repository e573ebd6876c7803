"""What a study may share beside U and V because only individual data give it: three optional tables per batch.

``calibrated``: variances of binary traits by saddlepoint and enumeration; ``collapsed``: dominant and recessive
burdens per gene, mask and threshold (and the calibrated variance of the count burden, for binary traits);
``replicates``: null replicates of every gene's scores, independent between studies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.config import ScoreStatistics
from pipeline.gene_tests.calibration import UNBALANCED_SHARE, calibrate_scores
from pipeline.gene_tests.permutation import CarrierGenotypes, IndividualTrait, draw_replicates
from pipeline.io.bundle import list_array
from pipeline.io.catalogue import Catalogue, StudyVariants, unordered_key
from pipeline.io.cohort import Cohort
from pipeline.io.null_models import ChromosomeModel, NullModels
from pipeline.io.results import write_parquet
from pipeline.kernels.collapsed import burden_statistics, collapse_counts, count_alleles, withhold_small_steps
from pipeline.schema import BUNDLE_CALIBRATED, BUNDLE_COLLAPSED, BUNDLE_REPLICATES, TableSchema
from pipeline.stages.score_statistics.genotypes import BatchCarriers, BatchTask, StudyContext

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Sharing:
    """What a batch shares beside U and V.

    Attributes:
        study: name, which the streams of replicates hang on.
        calibrate: names of the binary traits to calibrate.
        modes: ``dominant``, ``recessive``.
        thresholds: (K,) rising.
        replicates: number of null replicates.
        seed: of the replicates.
        min_cell: carriers that are few enough to be withheld.
        masks: names.
        member: per gene of the batch, (M, m) whether each mask takes each of its variants.
    """

    study: str
    calibrate: tuple[str, ...]
    modes: tuple[str, ...]
    thresholds: tuple[float, ...]
    replicates: int
    seed: int
    min_cell: int
    masks: tuple[str, ...]
    member: tuple[NDArray[np.bool_], ...]

    @property
    def kinds(self) -> tuple[TableSchema, ...]:
        """The tables that a batch writes."""
        wanted = (
            (BUNDLE_CALIBRATED, bool(self.calibrate)),
            (BUNDLE_COLLAPSED, bool(self.modes or self.calibrate)),
            (BUNDLE_REPLICATES, self.replicates > 0),
        )
        return tuple(schema for schema, yes in wanted if yes)


def traits_to_calibrate(cohort: Cohort, options: ScoreStatistics) -> tuple[str, ...]:
    """Return the binary traits whose variances are calibrated: under ``auto`` those with few cases or few controls.

    A score is skewed in proportion to (1 - 2 mu) / sqrt(mu (1 - mu) MAC), so it is the share of the smaller class that
    decides: below ``UNBALANCED_SHARE`` of the samples. R SKAT, seqMeta and the like never calibrate by default;
    balanced traits agree with them.
    """
    if options.calibrate == "none":
        return ()
    names = []
    for k, trait in enumerate(cohort.traits):
        if trait.kind == "binary":
            share = float(np.nanmean(cohort.y[:, k]))
            if options.calibrate == "spa" or min(share, 1.0 - share) < UNBALANCED_SHARE:
                names.append(trait.name)
    return tuple(names)


def plan_sharing(
    catalogue: Catalogue,
    found: StudyVariants,
    genes: list[int],
    options: ScoreStatistics,
    study: str,
    calibrate: tuple[str, ...],
) -> Sharing | None:
    """Return what a batch of genes shares beside U and V; None when nothing is asked for."""
    if not (options.modes or options.replicates or calibrate):
        return None
    return Sharing(
        study,
        calibrate,
        tuple(options.modes),
        tuple(sorted(set(options.thresholds))),
        options.replicates,
        options.seed,
        options.min_cell,
        catalogue.masks,
        tuple(_mask_members(catalogue, found, i) for i in genes),
    )


def _mask_members(c: Catalogue, found: StudyVariants, gene: int) -> NDArray[np.bool_]:
    """Return (M, m) whether each mask takes each variant that the study has of a gene."""
    listed = list_members(c, found, gene)
    if listed is None:
        return np.ones((len(c.masks), int(found.offsets[gene + 1] - found.offsets[gene])), np.bool_)
    return c.member[:, listed]


def list_members(c: Catalogue, found: StudyVariants, gene: int) -> list[int] | None:
    """Return the place among the listed variants of each variant that the study has of a gene; None for regions."""
    if c.is_regions:
        return None
    here = found.members[found.offsets[gene] : found.offsets[gene + 1]]
    low, high = int(c.sets.offsets[gene]), int(c.sets.offsets[gene + 1])
    listed = {
        key: low + k for k, key in enumerate(unordered_key(c.position[low:high], c.ref[low:high], c.alt[low:high]))
    }
    keys = unordered_key(found.position[here], found.ref[here], found.alt[here])
    return [listed[key] for key in keys]


def write_shared(task: BatchTask, context: StudyContext, model: ChromosomeModel, carriers: BatchCarriers) -> None:
    """Write the optional tables of a batch, if the study shares any."""
    sharing = task.sharing
    if sharing is None:
        return
    local = [np.searchsorted(task.variants, gene.variants) for gene in task.genes]
    makers = {
        BUNDLE_CALIBRATED.name: lambda: _calibrated_table(task, sharing, context.models, model, carriers),
        BUNDLE_COLLAPSED.name: lambda: _collapsed_table(task, sharing, context.models, model, carriers, local),
        BUNDLE_REPLICATES.name: lambda: _replicates_table(task, sharing, context.models, model, carriers, local),
    }
    for schema in sharing.kinds:
        write_parquet(task.shared_part(schema), makers[schema.name]())


@dataclass(frozen=True)
class BinaryModel:
    """Null model of a binary trait on its own samples: 0/1 phenotype, fitted mean, design; number of each sample."""

    y: Floats
    mu: Floats
    X: Floats
    place: Integers


def binary_model(models: NullModels, model: ChromosomeModel, trait: dict[str, Any]) -> BinaryModel:
    """Recover phenotype, mean and design from the columns that genotypes are projected on.

    The residual y - mu is positive for cases only, and the columns of the design are W X (X'WX)^(-1/2).
    """
    s = models.sample_sets.index(trait["sample_set"])
    chosen = models.in_set[:, s].astype(bool)
    residual = model.columns[chosen, model.column_indices("residual", trait["name"])[0]]
    y = (residual > 0.0).astype(np.float64)
    k = next(i for i, c in enumerate(models.covariances) if c.name == trait["covariance"])
    design = model.columns[np.ix_(chosen, model.column_indices("design", trait["covariance"]))]
    place = np.full(len(chosen), -1, np.int64)
    place[chosen] = np.arange(int(chosen.sum()))
    return BinaryModel(y, y - residual, design / model.weight[chosen, k][:, None], place)


def take_genotypes(
    carriers: BatchCarriers, rows: Integers, place: Integers, n_samples: int, sample_set: int
) -> CarrierGenotypes:
    """Return chosen variants among the samples of one set, missing calls imputed, counted allele as scanned."""
    parts_sample, parts_dosage, sizes = [], [], [0]
    for j in rows:
        low, high = carriers.indptr[j], carriers.indptr[j + 1]
        at = place[carriers.sample[low:high]]
        d = carriers.dosage[low:high].astype(np.float64)
        d[d < 0] = carriers.imputed[j, sample_set]
        kept = (at >= 0) & (d != 0.0)
        parts_sample.append(at[kept])
        parts_dosage.append(d[kept])
        sizes.append(int(kept.sum()))
    empty = np.empty(0)
    return CarrierGenotypes(
        np.cumsum(sizes).astype(np.int64),
        np.concatenate([*parts_sample, empty]).astype(np.int64),
        np.concatenate([*parts_dosage, empty]),
        n_samples,
    )


def _calibrated_table(
    task: BatchTask, sharing: Sharing, models: NullModels, model: ChromosomeModel, carriers: BatchCarriers
) -> pa.Table:
    """Return the calibrated variance of every variant and trait; NaN for traits that are not calibrated."""
    rows = np.arange(len(task.rows), dtype=np.int64)
    V = np.full((len(rows), len(models.traits)), np.nan)
    for t, trait in enumerate(models.traits):
        if trait["name"] in sharing.calibrate:
            m = binary_model(models, model, trait)
            s = models.sample_sets.index(trait["sample_set"])
            V[:, t] = calibrate_scores(take_genotypes(carriers, rows, m.place, len(m.y), s), m.y, m.mu, m.X)
    return pa.table({"number": pa.array(task.variants, pa.int32()), "V": list_array(V, pa.float64())})


def _collapsed_table(
    task: BatchTask,
    sharing: Sharing,
    models: NullModels,
    model: ChromosomeModel,
    carriers: BatchCarriers,
    local: list[Integers],
) -> pa.Table:
    """Return burdens of every gene, mask and mode."""
    modes = (*sharing.modes, *(("additive",) if sharing.calibrate else ()))
    head = np.full(len(models.samples), -1, np.int32)
    rows: dict[str, list[Any]] = {c.name: [] for c in BUNDLE_COLLAPSED.columns}
    for gene, here, member in zip(task.genes, local, sharing.member, strict=True):
        for mask, taken in zip(sharing.masks, member, strict=True):
            counts = [_count(sharing, carriers, here[taken], s, head) for s in range(len(models.sample_sets))]
            for mode in modes:
                carried, U, V = _burdens(mode, sharing, models, model, counts)
                cells = (gene.gene, mask, mode, np.array(sharing.thresholds), carried, U, V)
                for name, cell in zip(rows, cells, strict=True):
                    rows[name].append(cell)
    return pa.table(
        {
            c.name: list_array(rows[c.name], c.type.value_type)
            if pa.types.is_list(c.type)
            else pa.array(rows[c.name], c.type)
            for c in BUNDLE_COLLAPSED.columns
        }
    )


def _count(
    sharing: Sharing, carriers: BatchCarriers, rows: Integers, s: int, head: NDArray[np.int32]
) -> tuple[Integers, Floats]:
    """Return carriers and their counts under each threshold, by the frequencies of one sample set."""
    f = carriers.frequency[rows, s]
    with np.errstate(invalid="ignore"):
        level = np.searchsorted(np.array(sharing.thresholds), f * (1 - 1e-12))
    level[~(f <= 0.5)] = len(sharing.thresholds)
    return count_alleles(
        rows, level.astype(np.int64), len(sharing.thresholds), carriers.indptr, carriers.sample, carriers.dosage, head
    )


def _burdens(
    mode: str,
    sharing: Sharing,
    models: NullModels,
    model: ChromosomeModel,
    counts: list[tuple[Integers, Floats]],
) -> tuple[NDArray[np.int32], Floats, Floats]:
    """Return carriers (S, K), U (T, K) and V (T, K, K) of one gene, mask and mode; withheld thresholds are NaN."""
    K, n_traits = len(sharing.thresholds), len(models.traits)
    U, V = np.zeros((n_traits, K)), np.zeros((n_traits, K, K))
    carried = np.zeros((len(models.sample_sets), K), np.int32)
    shared = np.ones((len(models.sample_sets), K), np.bool_)
    for s, (sample, count) in enumerate(counts):
        inside = models.in_set[sample, s].astype(bool)
        carried[s] = (collapse_counts(count[inside], mode) > 0).sum(axis=0)
        shared[s] = withhold_small_steps(carried[s].astype(np.int64), sharing.min_cell)
        carried[s, ~shared[s]] = -1
    for t, trait in enumerate(models.traits):
        s = models.sample_sets.index(trait["sample_set"])
        sample, count = counts[s]
        S = collapse_counts(count, mode)
        if mode != "additive":
            U[t], V[t] = _trait_burdens(S, sample, models, model, trait)
        elif trait["name"] in sharing.calibrate:
            U[t], diagonal = _calibrated_burdens(S, sample, models, model, trait)
            V[t] = np.diag(diagonal)
        else:
            U[t], V[t] = np.nan, np.nan
        U[t, ~shared[s]] = np.nan
        V[t, ~shared[s], :] = np.nan
        V[t, :, ~shared[s]] = np.nan
    return carried, U, V


def _trait_burdens(
    S: Floats, sample: Integers, models: NullModels, model: ChromosomeModel, trait: dict[str, Any]
) -> tuple[Floats, Floats]:
    """Return U (K,) and V (K, K) of one trait."""
    k = next(i for i, c in enumerate(models.covariances) if c.name == trait["covariance"])
    columns = np.concatenate(
        (model.column_indices("design", trait["covariance"]), model.column_indices("loco", trait["name"]))
    )
    residual = model.columns[sample, model.column_indices("residual", trait["name"])[0]]
    return burden_statistics(
        S, residual, model.weight[sample, k], model.columns[np.ix_(sample, columns)], model.sigma2[trait["name"]]
    )


def _calibrated_burdens(
    S: Floats, sample: Integers, models: NullModels, model: ChromosomeModel, trait: dict[str, Any]
) -> tuple[Floats, Floats]:
    """Return scores and calibrated variances (K,) of the count burdens of a binary trait."""
    m = binary_model(models, model, trait)
    at = m.place[sample]
    columns, values = [], []
    for k in range(S.shape[1]):
        kept = (at >= 0) & (S[:, k] > 0)
        columns.append(at[kept])
        values.append(S[kept, k])
    indptr = np.concatenate(([0], np.cumsum([len(c) for c in columns]))).astype(np.int64)
    genotypes = CarrierGenotypes(indptr, np.concatenate(columns), np.concatenate(values), len(m.y))
    return genotypes.multiply((m.y - m.mu)[:, None])[:, 0], calibrate_scores(genotypes, m.y, m.mu, m.X)


def _replicates_table(
    task: BatchTask,
    sharing: Sharing,
    models: NullModels,
    model: ChromosomeModel,
    carriers: BatchCarriers,
    local: list[Integers],
) -> pa.Table:
    """Return null replicates of every gene and trait, on the scale of U, ALT counted."""
    rows: dict[str, list[Any]] = {c.name: [] for c in BUNDLE_REPLICATES.columns}
    for trait in models.traits:
        individual, place = individual_trait(models, model, trait)
        s = models.sample_sets.index(trait["sample_set"])
        for gene, here in zip(task.genes, local, strict=True):
            genotypes = take_genotypes(carriers, here, place, len(individual.residual), s)
            if not len(genotypes.sample):
                continue
            U = draw_replicates(genotypes, individual, sharing.replicates, sharing.seed, sharing.study)
            U *= carriers.sign[here] / model.sigma2[trait["name"]]
            cells = (gene.gene, trait["name"], task.variants[here].astype(np.int32), U)
            for name, cell in zip(rows, cells, strict=True):
                rows[name].append(cell)
    return pa.table(
        {
            c.name: list_array(rows[c.name], c.type.value_type)
            if pa.types.is_list(c.type)
            else pa.array(rows[c.name], c.type)
            for c in BUNDLE_REPLICATES.columns
        }
    )


def individual_trait(
    models: NullModels, model: ChromosomeModel, trait: dict[str, Any]
) -> tuple[IndividualTrait, Integers]:
    """Return residuals and covariates of a trait on its own samples, and the number of each sample there."""
    if trait["kind"] == "binary":
        m = binary_model(models, model, trait)
        return IndividualTrait(m.y - m.mu, m.X, m.y > 0, m.mu), m.place
    chosen = models.in_set[:, models.sample_sets.index(trait["sample_set"])].astype(bool)
    place = np.full(len(chosen), -1, np.int64)
    place[chosen] = np.arange(int(chosen.sum()))
    residual = model.columns[chosen, model.column_indices("residual", trait["name"])[0]] * model.sigma2[trait["name"]]
    columns = np.concatenate(
        (model.column_indices("design", trait["covariance"]), model.column_indices("loco", trait["name"]))
    )
    return IndividualTrait(residual, model.columns[np.ix_(chosen, columns)]), place
