"""What a study may share beside U, V and laws because only individual-level data give it: two optional tables a batch.

``collapsed``: dominant and recessive burdens per gene, mask and threshold; ``replicates``: null replicates of every
gene's scores, independent between studies.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from locomass.bundle.study import list_array
from locomass.config import ScoreStatistics
from locomass.files.results import write_parquet
from locomass.gene_tests.permutation import CarrierGenotypes, draw_replicates
from locomass.gene_tests.permutation_trait import IndividualTrait
from locomass.null_models.base import ChromosomeModel, NullModel, NullModels
from locomass.null_models.registry import trait_model
from locomass.numbers import Floats
from locomass.schema import BUNDLE_COLLAPSED, BUNDLE_REPLICATES, TableSchema
from locomass.scores.collapsed import burden_statistics, collapse_counts, count_alleles, withhold_small_steps
from locomass.scores.genotypes import BatchCarriers, BatchTask, StudyContext
from locomass.scores.shared_risk import share_of_burdens
from locomass.tables.catalogue import Catalogue, StudyVariants
from locomass.variants.identity import variant_keys

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Sharing:
    """What a batch shares beside U and V.

    Attributes:
        study: name, which the streams of replicates hang on.
        modes: ``dominant``, ``recessive``.
        thresholds: (K,) rising.
        replicates: number of null replicates.
        seed: of the replicates.
        min_cell: carriers that are few enough to be withheld.
        masks: names.
        member: per gene of the batch, (M, m) whether each mask takes each of its variants.
    """

    study: str
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
            (BUNDLE_COLLAPSED, bool(self.modes)),
            (BUNDLE_REPLICATES, self.replicates > 0),
        )
        return tuple(schema for schema, yes in wanted if yes)


def plan_sharing(
    catalogue: Catalogue,
    found: StudyVariants,
    genes: list[int],
    options: ScoreStatistics,
    study: str,
) -> Sharing | None:
    """Return what a batch of genes shares beside U and V; None when nothing is asked for."""
    if not (options.modes or options.replicates):
        return None
    return Sharing(
        study=study,
        modes=tuple(options.modes),
        thresholds=tuple(sorted(set(options.thresholds))),
        replicates=options.replicates,
        seed=options.seed,
        min_cell=options.min_cell,
        masks=catalogue.masks,
        member=tuple(_mask_members(catalogue, found, i) for i in genes),
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
        key: low + k for k, key in enumerate(variant_keys(c.position[low:high], c.ref[low:high], c.alt[low:high]))
    }
    keys = variant_keys(found.position[here], found.ref[here], found.alt[here])
    return [listed[key] for key in keys]


def write_shared(task: BatchTask, context: StudyContext, model: ChromosomeModel, carriers: BatchCarriers) -> list[Path]:
    """Write the optional tables of a batch, if the study shares any; return their paths."""
    sharing = task.sharing
    if sharing is None:
        return []
    local = [np.searchsorted(task.variants, gene.variants) for gene in task.genes]
    makers = {
        BUNDLE_COLLAPSED.name: lambda: _collapsed_table(task, sharing, context.models, model, carriers, local),
        BUNDLE_REPLICATES.name: lambda: _replicates_table(task, sharing, context.models, model, carriers, local),
    }
    for schema in sharing.kinds:
        write_parquet(task.shared_part(schema), makers[schema.name]())
    return [task.shared_part(schema) for schema in sharing.kinds]


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


def _collapsed_table(
    task: BatchTask,
    sharing: Sharing,
    models: NullModels,
    model: ChromosomeModel,
    carriers: BatchCarriers,
    local: list[Integers],
) -> pa.Table:
    """Return burdens of every gene, mask and mode."""
    head = np.full(len(models.samples), -1, np.int32)
    rows: dict[str, list[Any]] = {c.name: [] for c in BUNDLE_COLLAPSED.columns}
    for gene, here, member in zip(task.genes, local, sharing.member, strict=True):
        for mask, taken in zip(sharing.masks, member, strict=True):
            counts = [_count(sharing, carriers, here[taken], s, head) for s in range(len(models.sample_sets))]
            for mode in sharing.modes:
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
        U[t], V[t] = _trait_burdens(S, sample, models, model, trait)
        U[t, ~shared[s]] = np.nan
        V[t, ~shared[s], :] = np.nan
        V[t, :, ~shared[s]] = np.nan
    return carried, U, V


def _trait_burdens(
    S: Floats, sample: Integers, models: NullModels, model: ChromosomeModel, trait: dict[str, Any]
) -> tuple[Floats, Floats]:
    """Return U (K,) and V (K, K) of one trait."""
    name = trait["name"]
    k = models.covariance_of(name)
    Z = np.hstack([model.designs[k][sample], model.columns[np.ix_(sample, model.loco_columns(name))]])
    residual = model.columns[sample, model.residual_column(name)]
    less = share_of_burdens(model.risk_sets(k), S, sample)
    return burden_statistics(S, residual, model.weight[k][sample], Z, model.sigma2[name], less)


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
        null = trait_model(models, model, trait["name"])
        individual, place = individual_trait(null), null.place
        s = models.sample_sets.index(trait["sample_set"])
        for gene, here in zip(task.genes, local, strict=True):
            genotypes = take_genotypes(carriers, here, place, len(individual.residual), s)
            if not len(genotypes.sample):
                continue
            U = draw_replicates(genotypes, individual, sharing.replicates, sharing.seed, sharing.study, gene.gene)
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


def individual_trait(null: NullModel) -> IndividualTrait:
    """Return residuals and covariates of a trait on its own samples, and how its replicates are drawn."""
    if null.law == "bernoulli":
        return IndividualTrait(null.residual, null.X, null.y > 0, null.mu)
    return IndividualTrait(null.residual, null.X)
