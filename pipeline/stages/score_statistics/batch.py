"""One batch of genes: carriers and covariances, kept or computed, then U and b of all traits, then two parts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.io.bundle import ROUNDING, list_array
from pipeline.io.bundle_write import GENES_PER_GROUP
from pipeline.io.null_models import ChromosomeModel
from pipeline.io.results import write_parquet
from pipeline.kernels.score_statistics import project_columns
from pipeline.schema import BUNDLE_GENES
from pipeline.stages.score_statistics.genotypes import (
    BatchCarriers,
    BatchTask,
    CovariancePart,
    StudyContext,
    find_carriers,
    find_covariance,
    load_context,
)
from pipeline.stages.score_statistics.sharing import write_shared

Floats = NDArray[np.float64]
#: calls of males on chromosome X that count as missing, and their other carrier calls there
MALE_HETEROZYGOTES, MALE_HEMIZYGOTES = b"male_heterozygotes", b"male_hemizygotes"


def run_batch(task: BatchTask, null_models: Path, stamp: str) -> str:
    """Compute one batch and write its two parts; return the name of the gene part."""
    if task.is_done:
        return task.genes_part.name
    context = load_context(task.folder, null_models, stamp, task.chromosome)
    model = context.models.model(task.chromosome)
    carriers = find_carriers(task, context)
    locals_ = _gene_variants(task, carriers)
    parts = [
        find_covariance(k, task, context, model, carriers, locals_) for k in range(len(context.models.covariances))
    ]
    projected = _project_traits(context, model, carriers)
    write_shared(task, context, model, carriers)
    write_parquet(task.variants_part, _variant_table(task, context, model, carriers, parts, projected))
    write_parquet(task.genes_part, _gene_table(task, context, locals_, parts, projected), GENES_PER_GROUP)
    return task.genes_part.name


def _gene_variants(task: BatchTask, carriers: BatchCarriers) -> list[NDArray[np.int64]]:
    """Return the variants of each gene under the frequency bound, as increasing rows of the batch."""
    frequency = np.minimum(carriers.frequency, 1 - carriers.frequency)
    in_bound = ~(np.nanmin(np.where(np.isnan(frequency), np.inf, frequency), axis=1) > task.max_maf)
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
    chosen = np.array([k for k, label in enumerate(model.labels) if label.role != "design"], np.int64)
    column_set = np.array([sets[model.labels[k].sample_set] for k in chosen], np.int64)
    columns = np.ascontiguousarray(model.columns[:, chosen])
    projected = project_columns(
        carriers.indptr, carriers.sample, carriers.dosage, columns, column_set, carriers.imputed
    )
    projected *= carriers.sign[:, None]
    names = [trait["name"] for trait in context.models.traits]
    residual = {name: projected[:, chosen == model.column_indices("residual", name)[0]][:, 0] for name in names}
    loco = {name: projected[:, np.isin(chosen, model.column_indices("loco", name))] for name in names}
    return TraitProjections(residual, loco)


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
    U = np.empty((len(task.rows), len(models.traits)))
    V = np.empty_like(U)
    for t, trait in enumerate(models.traits):
        k = next(i for i, c in enumerate(models.covariances) if c.name == trait["covariance"])
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
            "n_ref": list_array(np.where(alt_is_counted, n_other, n_hom).astype(np.int32), pa.int32()),
            "n_het": list_array(n_het.astype(np.int32), pa.int32()),
            "n_alt": list_array(np.where(alt_is_counted, n_hom, n_other).astype(np.int32), pa.int32()),
            "alt_frequency": list_array(frequency, pa.float64()),
            "U": list_array(U, pa.float64()),
            "V": list_array(V, pa.float64()),
        }
    ).replace_schema_metadata(
        {MALE_HETEROZYGOTES: str(carriers.male_heterozygotes), MALE_HEMIZYGOTES: str(carriers.male_hemizygotes)}
    )


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
        note = next((part.note[g] for part in parts if part.note[g]), "")
        local = local[:0] if note else local
        for covariance, part in zip(context.models.covariances, parts, strict=True):
            row, column, value = (x[:0] for x in part.cross[g]) if note else part.cross[g]
            cells = (
                gene.gene, gene.chromosome, gene.start, gene.end, covariance.name,
                task.variants[local].astype(np.int32), row, column, value, part.B[local].T,
                np.stack([projected.b[t][local].T for t in covariance.traits]), note,
            )  # fmt: skip
            for name, cell in zip(rows, cells, strict=True):
                rows[name].append(cell)
    columns = {
        c.name: list_array(rows[c.name], c.type.value_type)
        if pa.types.is_list(c.type)
        else pa.array(rows[c.name], c.type)
        for c in BUNDLE_GENES.columns
    }
    return pa.table(columns)
