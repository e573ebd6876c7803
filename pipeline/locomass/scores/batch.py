"""One batch of genes: carriers and covariances, kept or computed, then U and b of all traits, then two parts."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from locomass.bundle.study import ROUNDING, list_array
from locomass.bundle.write import GENES_PER_GROUP
from locomass.files.parts import seal_parts
from locomass.files.results import write_parquet
from locomass.genotypes.products import project_columns
from locomass.null_models.base import ChromosomeModel
from locomass.numbers import Floats
from locomass.schema import BUNDLE_GENES, BUNDLE_LAWS
from locomass.scores.genotypes import (
    BatchCarriers,
    BatchTask,
    ContextSource,
    CovariancePart,
    StudyContext,
    find_carriers,
    find_covariance,
)
from locomass.scores.laws import laws_table
from locomass.scores.protect import protect_batch
from locomass.scores.sharing import write_shared

#: calls of males on chromosome X that count as missing, and their other carrier calls there
MALE_HETEROZYGOTES, MALE_HEMIZYGOTES = b"male_heterozygotes", b"male_hemizygotes"
#: variants left out of the genes, as numbers of the study's variant table
OVER_MISSING, UNDER_INFO = b"variants_over_max_missing", b"variants_under_min_info"


def run_batch(task: BatchTask, source: ContextSource) -> str:
    """Compute one batch and write its two parts; return the name of the gene part."""
    if task.is_done:
        return task.genes_part.name
    context = source.open(task.chromosome)
    model = context.models.model(task.chromosome)
    carriers = find_carriers(task, context)
    if task.protection is not None:
        task, carriers = protect_batch(task, context, carriers)
    locals_ = _gene_variants(task, carriers)
    parts = [
        find_covariance(k, task, context, model, carriers, locals_) for k in range(len(context.models.covariances))
    ]
    projected = _project_traits(context, model, carriers)
    shared = write_shared(task, context, model, carriers)
    told = [local[:0] if part_note else local for local, part_note in zip(locals_, _notes(parts), strict=True)]
    laws = laws_table(task.genes, told, context.models, model, carriers, task.min_cell)
    write_parquet(task.shared_part(BUNDLE_LAWS), laws, GENES_PER_GROUP)
    write_parquet(task.variants_part, _variant_table(task, context, model, carriers, parts, projected))
    write_parquet(task.genes_part, _gene_table(task, context, locals_, parts, projected), GENES_PER_GROUP)
    written = [task.genes_part, task.variants_part, task.shared_part(BUNDLE_LAWS), *shared]
    seal_parts(task.folder, task.number, written)
    return task.genes_part.name


def _gene_variants(task: BatchTask, carriers: BatchCarriers) -> list[NDArray[np.int64]]:
    """Return the variants of each gene within all bounds, as increasing rows of the batch."""
    frequency = np.minimum(carriers.frequency, 1 - carriers.frequency)
    in_bound = ~(np.nanmin(np.where(np.isnan(frequency), np.inf, frequency), axis=1) > task.max_maf)
    in_bound &= ~(carriers.share_missing > task.max_missing) & ~(carriers.info < task.min_info)
    found = [np.sort(np.searchsorted(task.variants, gene.variants)) for gene in task.genes]
    return [local[in_bound[local]] for local in found]


@dataclass(frozen=True)
class TraitProjections:
    """G'C of the columns that change with the predictions, ALT counted: (v,) U and (v, q) b per trait."""

    U: dict[str, Floats]
    b: dict[str, Floats]


def _project_traits(context: StudyContext, model: ChromosomeModel, carriers: BatchCarriers) -> TraitProjections:
    """Project all carriers on the residuals and LOCO columns of all traits at once."""
    sets = {name: k for k, name in enumerate(context.models.sample_sets)}
    column_set = np.array([sets[label.sample_set] for label in model.labels], np.int64)
    projected = project_columns(
        carriers.indptr, carriers.sample, carriers.dosage, model.columns, column_set, carriers.imputed
    )
    projected *= carriers.sign[:, None]
    names = [trait["name"] for trait in context.models.traits]
    U = {name: projected[:, model.residual_column(name)] / model.sigma2[name] for name in names}
    return TraitProjections(U, {name: projected[:, model.loco_columns(name)] for name in names})


def _variant_table(
    task: BatchTask,
    context: StudyContext,
    model: ChromosomeModel,
    carriers: BatchCarriers,
    parts: list[CovariancePart],
    projected: TraitProjections,
) -> pa.Table:
    """Return counts, U and V_jj of the batch's variants, ALT counted; `number` is the row of the variant table."""
    models = context.models
    alt_is_counted = carriers.sign[:, None] > 0
    n_het, n_hom = carriers.counts[:, :, 0], carriers.counts[:, :, 1]
    n_other = carriers.n_obs - n_het - n_hom
    U = np.empty((len(task.variants), len(models.traits)))
    V = np.empty_like(U)
    for t, trait in enumerate(models.traits):
        k = models.covariance_of(trait["name"])
        U[:, t] = projected.U[trait["name"]]
        squares, B, b = parts[k].squares, parts[k].B, projected.b[trait["name"]]
        rest = squares - (B**2).sum(axis=1) - (b**2).sum(axis=1)
        V[:, t] = np.where(rest > ROUNDING * squares, rest, 0.0) / model.sigma2[trait["name"]]
    U[V == 0] = 0.0
    frequency = np.where(alt_is_counted, carriers.frequency, 1 - carriers.frequency)
    return pa.table(
        {
            "number": pa.array(task.variants, pa.int32()),
            "n_obs": list_array(carriers.n_obs.astype(np.int32), pa.int32()),
            "n_ref": _counts(carriers, np.where(alt_is_counted, n_other, n_hom)),
            "n_het": _counts(carriers, n_het),
            "n_alt": _counts(carriers, np.where(alt_is_counted, n_hom, n_other)),
            "alt_frequency": list_array(frequency, pa.float64()),
            "U": list_array(U, pa.float64()),
            "V": list_array(V, pa.float64()),
        }
    ).replace_schema_metadata(
        {
            MALE_HETEROZYGOTES: str(carriers.male_heterozygotes),
            MALE_HEMIZYGOTES: str(carriers.male_hemizygotes),
            OVER_MISSING: json.dumps(task.variants[carriers.share_missing > task.max_missing].tolist()),
            UNDER_INFO: json.dumps(task.variants[carriers.info < task.min_info].tolist()),
        }
    )


def _counts(carriers: BatchCarriers, counts: NDArray[np.int64]) -> pa.ListArray:
    """Return genotype counts (v, S) as a column; -1, unknown, for imputed variants."""
    return list_array(np.where(carriers.imputed_calls[:, None], -1, counts).astype(np.int32), pa.int32())


def _notes(parts: list[CovariancePart]) -> list[str]:
    """Return per gene why it has no statistics; empty where it has."""
    return [next((note for note in notes if note), "") for notes in zip(*(part.note for part in parts), strict=True)]


def _gene_table(
    task: BatchTask,
    context: StudyContext,
    locals_: list[NDArray[np.int64]],
    parts: list[CovariancePart],
    projected: TraitProjections,
) -> pa.Table:
    """Return sparse G'WG, B and b of every gene and covariance of the batch."""
    rows: dict[str, list[Any]] = {c.name: [] for c in BUNDLE_GENES.columns}
    for g, (gene, local) in enumerate(zip(task.genes, locals_, strict=True)):
        note = _notes(parts)[g]
        local = local[:0] if note else local
        for covariance, part in zip(context.models.covariances, parts, strict=True):
            row, column, value = (x[:0] for x in part.cross[g]) if note else part.cross[g]
            cells = (
                gene.gene,
                gene.chromosome,
                gene.start,
                gene.end,
                covariance.name,
                task.variants[local].astype(np.int32),
                row,
                column,
                value,
                part.B[local].T,
                np.stack([projected.b[t][local].T for t in covariance.traits]),
                note,
            )
            for name, cell in zip(rows, cells, strict=True):
                rows[name].append(cell)
    columns = {
        c.name: list_array(rows[c.name], c.type.value_type)
        if pa.types.is_list(c.type)
        else pa.array(rows[c.name], c.type)
        for c in BUNDLE_GENES.columns
    }
    return pa.table(columns)
