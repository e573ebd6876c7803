"""Score statistics: U, sparse G'WG, B and genotype counts per gene batch, gathered into the study bundle.

A batch is a run of consecutive genes. Its task reads the packed rows itself, finds carriers once, projects them on all
traits at once and writes two Parquet parts; the bundle is the parts put together. Parts that exist are not computed
again, so a killed run resumes.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline import __version__
from pipeline.align import chromosome_order
from pipeline.cluster import Executor
from pipeline.config import ScoreStatistics
from pipeline.errors import GENE_FAILURES, InputError
from pipeline.io.atomic import atomic_directory
from pipeline.io.bundle import FORMAT, ROUNDING, VERSION, list_array, matrix_column
from pipeline.io.catalogue import Catalogue, StudyVariants
from pipeline.io.cohort import Cohort
from pipeline.io.null_models import ChromosomeModel, NullModels, read_null_models
from pipeline.io.plink import BedFile, read_packed_rows
from pipeline.io.results import write_parquet
from pipeline.kernels.packed import count_genotypes, scan_carriers
from pipeline.kernels.score_statistics import project_columns, sparse_cross_products, weighted_squares
from pipeline.schema import BUNDLE_GENES, BUNDLE_VARIANTS

Floats = NDArray[np.float64]
SCAN_BYTES = 4 << 20  # packed bytes scanned at a time: they stay in the processor's cache
BATCH_BYTES = 64 << 20  # packed bytes of a batch
BATCH_PAIRS = 2_000_000  # entries of the information matrices of a batch


@dataclass(frozen=True)
class GeneRows:
    """One gene of a batch: labels and its variants as numbers of the study's variant table."""

    gene: str
    chromosome: str
    start: int
    end: int
    variants: NDArray[np.int64]


@dataclass(frozen=True)
class BatchTask:
    """What travels to a worker: paths, numbers and the genes of one batch."""

    number: int
    folder: Path
    beds: tuple[BedFile, ...]
    chromosome: str
    variants: NDArray[np.int64]
    rows: NDArray[np.int64]
    a1_is_alt: NDArray[np.bool_]
    genes: tuple[GeneRows, ...]
    missing: str
    max_maf: float

    @property
    def variants_part(self) -> Path:
        """Part of the variant table that the task writes."""
        return self.folder / f"variants-{self.number:05d}.parquet"

    @property
    def genes_part(self) -> Path:
        """Part of genes/ that the task writes; its presence says that the batch is done."""
        return self.folder / f"genes-{self.number:05d}.parquet"


@dataclass(frozen=True)
class StudyContext:
    """What every batch of a study needs, loaded once per worker."""

    models: NullModels
    position: NDArray[np.int32]


def write_context(folder: Path, cohort: Cohort) -> None:
    """Write the sample selection that batches need beside the null models."""
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "context.npz", position=cohort.position, labels=cohort.labels.astype(str))


@lru_cache(maxsize=2)
def load_context(folder: Path, null_models: Path, stamp: str) -> StudyContext:
    """Load the context; ``stamp`` changes with its content, so that a worker never keeps an old one."""
    with np.load(folder / "context.npz") as data:
        return StudyContext(read_null_models(null_models, data["labels"].astype(object)), data["position"])


def plan_batches(
    cohort: Cohort, catalogue: Catalogue, found: StudyVariants, options: ScoreStatistics, folder: Path
) -> list[BatchTask]:
    """Split the genes into batches of bounded packed bytes and matrix entries; a huge gene is a batch of its own."""
    row_bytes = cohort.fileset.beds[0].row_bytes
    sets = catalogue.sets
    members = [found.members[found.offsets[i] : found.offsets[i + 1]] for i in range(len(sets))]
    order = sorted(
        (i for i in range(len(sets)) if len(members[i])),
        key=lambda i: (chromosome_order(str(sets.chromosome[i])), int(members[i].min())),
    )
    batches: list[list[int]] = []
    size = entries = 0
    for i in order:
        cost, pairs = len(members[i]) * row_bytes, len(members[i]) ** 2
        new_chromosome = batches and sets.chromosome[batches[-1][0]] != sets.chromosome[i]
        if not batches or new_chromosome or size + cost > BATCH_BYTES or entries + pairs > BATCH_PAIRS:
            batches.append([])
            size = entries = 0
        batches[-1].append(i)
        size, entries = size + cost, entries + pairs
    tasks = []
    for number, batch in enumerate(batches):
        variants = np.unique(np.concatenate([members[i] for i in batch]))
        position = found.position
        genes = tuple(
            GeneRows(
                sets.gene[i],
                sets.chromosome[i],
                int(sets.start[i]),
                int(max(sets.end[i], position[members[i]].max())),
                members[i],
            )
            for i in batch
        )
        tasks.append(
            BatchTask(
                number,
                folder,
                cohort.fileset.beds,
                sets.chromosome[batch[0]],
                variants,
                found.row[variants],
                found.a1_is_alt[variants],
                genes,
                options.missing,
                options.max_maf,
            )
        )
    return tasks


@dataclass(frozen=True)
class BatchCarriers:
    """Carriers of a batch's variants and what follows from genotypes alone.

    Attributes:
        indptr, sample, dosage: carriers of the counted allele.
        sign: (v,) +1 where the counted allele is ALT, -1 where it is REF.
        counts: (v, S, 3) heterozygous, homozygous for the counted allele, missing.
        n_obs: (v, S) samples with a call.
        frequency: (v, S) of the counted allele.
        imputed: (v, S) dosage that stands for a missing call.
    """

    indptr: NDArray[np.int64]
    sample: NDArray[np.int32]
    dosage: NDArray[np.int8]
    sign: Floats
    counts: NDArray[np.int64]
    n_obs: NDArray[np.int64]
    frequency: Floats
    imputed: Floats


def find_carriers(task: BatchTask, context: StudyContext) -> BatchCarriers:
    """Read and scan the packed rows of a batch, a cache-sized piece at a time."""
    step = max(1, SCAN_BYTES // task.beds[0].row_bytes)
    n_file = len(context.position)
    pieces = []
    for start in range(0, len(task.rows), step):
        packed = read_packed_rows(task.beds, task.rows[start : start + step])
        pieces.append(scan_carriers(packed, n_file, context.position, n_file))
    indptr = np.concatenate([[0], *[np.diff(p[0]) for p in pieces]]).cumsum()
    sample, dosage, a1_counted = (np.concatenate([p[k] for p in pieces]) for k in (1, 2, 3))
    in_set = context.models.in_set
    counts = count_genotypes(indptr, sample, dosage, in_set)
    n_obs = in_set.sum(axis=0, dtype=np.int64)[None, :] - counts[:, :, 2]
    with np.errstate(invalid="ignore"):
        frequency = (counts[:, :, 0] + 2 * counts[:, :, 1]) / (2 * n_obs)
    if task.missing == "mean":
        imputed = 2 * np.nan_to_num(frequency)
    else:  # the homozygote of the more frequent allele
        imputed = np.where(np.nan_to_num(frequency) > 0.5, 2.0, 0.0)
    sign = np.where(a1_counted == task.a1_is_alt, 1.0, -1.0)
    return BatchCarriers(indptr, sample, dosage, sign, counts, n_obs, frequency, imputed)


def run_batch(task: BatchTask, null_models: Path, stamp: str) -> str:
    """Compute one batch and write its two parts; return the name of the gene part."""
    if task.genes_part.exists() and task.variants_part.exists():
        return task.genes_part.name
    context = load_context(task.folder, null_models, stamp)
    model = context.models.model(task.chromosome)
    carriers = find_carriers(task, context)
    sets = {name: k for k, name in enumerate(context.models.sample_sets)}
    column_set = np.array([sets[label.sample_set] for label in model.labels])
    projected = project_columns(
        carriers.indptr, carriers.sample, carriers.dosage, model.columns, column_set, carriers.imputed
    )
    projected *= carriers.sign[:, None]
    write_parquet(task.variants_part, _variant_table(task, context, model, carriers, projected))
    write_parquet(task.genes_part, _gene_table(task, context, model, carriers, projected))
    return task.genes_part.name


def _variant_table(
    task: BatchTask, context: StudyContext, model: ChromosomeModel, carriers: BatchCarriers, projected: Floats
) -> pa.Table:
    """Return counts, U and V_jj of the batch's variants, ALT counted; `number` is the row of the variant table."""
    models = context.models
    alt_is_counted = carriers.sign[:, None] > 0
    n_het, n_hom = carriers.counts[:, :, 0], carriers.counts[:, :, 1]
    n_other = carriers.n_obs - n_het - n_hom
    sets = {name: k for k, name in enumerate(models.sample_sets)}
    imputed = carriers.imputed[:, [sets[c.sample_set] for c in models.covariances]]
    squares = weighted_squares(
        carriers.indptr, carriers.sample, carriers.dosage, model.weight, np.ascontiguousarray(imputed)
    )
    U = np.empty((len(task.rows), len(models.traits)))
    V = np.empty_like(U)
    for t, trait in enumerate(models.traits):
        k = next(i for i, c in enumerate(models.covariances) if c.name == trait["covariance"])
        U[:, t] = projected[:, model.column_indices("residual", trait["name"])[0]]
        design = projected[:, model.column_indices("design", trait["covariance"])]
        loco = projected[:, model.column_indices("loco", trait["name"])]
        rest = squares[:, k] - (design**2).sum(axis=1) - (loco**2).sum(axis=1)
        V[:, t] = np.where(rest > ROUNDING * squares[:, k], rest, 0.0) / model.sigma2[trait["name"]]
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
    )


def _gene_table(
    task: BatchTask, context: StudyContext, model: ChromosomeModel, carriers: BatchCarriers, projected: Floats
) -> pa.Table:
    """Return sparse G'WG, B and b of every gene and covariance of the batch."""
    models = context.models
    # whole columns are contiguous, so that no gene copies the one of its covariance
    model = replace(model, weight=np.asfortranarray(model.weight))
    carriers = replace(carriers, imputed=np.asfortranarray(carriers.imputed))
    head = np.full(len(models.samples), -1, np.int32)
    frequency = np.minimum(carriers.frequency, 1 - carriers.frequency)
    in_bound = ~(np.nanmin(np.where(np.isnan(frequency), np.inf, frequency), axis=1) > task.max_maf)
    rows: dict[str, list[Any]] = {c.name: [] for c in BUNDLE_GENES.columns}
    for gene in task.genes:
        local = np.searchsorted(task.variants, gene.variants)
        local = np.sort(local[in_bound[local]])
        try:
            parts = [
                _covariance_row(k, local, models, model, carriers, projected, head)
                for k in range(len(models.covariances))
            ]
            note = ""
        except GENE_FAILURES as error:
            local, note = local[:0], f"no statistics: {error or type(error).__name__}"
            head.fill(-1)
            parts = [
                _covariance_row(k, local, models, model, carriers, projected, head)
                for k in range(len(models.covariances))
            ]
        for covariance, part in zip(models.covariances, parts, strict=True):
            rows["gene"].append(gene.gene)
            rows["chromosome"].append(gene.chromosome)
            rows["start"].append(gene.start)
            rows["end"].append(gene.end)
            rows["covariance"].append(covariance.name)
            rows["variant"].append(task.variants[local].astype(np.int32))
            rows["note"].append(note)
            for name, values in part.items():
                rows[name].append(values)
    columns = {
        c.name: list_array(rows[c.name], c.type.value_type)
        if pa.types.is_list(c.type)
        else pa.array(rows[c.name], c.type)
        for c in BUNDLE_GENES.columns
    }
    return pa.table(columns)


def _covariance_row(
    k: int,
    local: NDArray[np.int64],
    models: NullModels,
    model: ChromosomeModel,
    carriers: BatchCarriers,
    projected: Floats,
    head: NDArray[np.int32],
) -> dict[str, NDArray[Any]]:
    """Return G'WG (sparse), B and b of one gene and covariance, ALT counted.

    Args:
        k: number of the covariance.
        local: the gene's variants as rows of the batch.
        models, model: the study's null models, and those of the gene's chromosome.
        carriers: carriers of the batch.
        projected: (v, q) G'C of the batch.
        head: (n,) scratch, see `cross_products`.
    """
    covariance = models.covariances[k]
    row, column, value = sparse_cross_products(
        local,
        (carriers.indptr, carriers.sample, carriers.dosage),
        np.ascontiguousarray(model.weight[:, k]),
        np.ascontiguousarray(carriers.imputed[:, models.sample_sets.index(covariance.sample_set)]),
        head,
    )
    sign = carriers.sign[local]
    loco = [projected[np.ix_(local, model.column_indices("loco", t))].T for t in covariance.traits]
    return {
        "row": row,
        "column": column,
        "value": value * sign[row] * sign[column],
        "B": projected[np.ix_(local, model.column_indices("design", covariance.name))].T,
        "b": np.stack(loco),
    }


@dataclass(frozen=True)
class RunBatch:
    """The task function with what is common to all batches; small, so that it travels cheaply."""

    null_models: Path
    stamp: str

    def __call__(self, task: BatchTask) -> str:
        """Run one batch."""
        return run_batch(task, self.null_models, self.stamp)


def compute_score_statistics(
    cohort: Cohort,
    catalogue: Catalogue,
    found: StudyVariants,
    models: NullModels,
    options: ScoreStatistics,
    study: dict[str, Any],
    folder: Path,
    null_models: Path,
    bundle: Path,
    executor: Executor,
    stamp: str,
    done: Callable[[], None] | None = None,
) -> None:
    """Compute all batches that are missing in ``folder`` and put the bundle together.

    Args:
        cohort, catalogue, found, models: the study, its genes, where their variants are, its null models.
        options: missing-call rule, frequency bound, minimum cell.
        study: what study.json says of the study: name, build, de-noising record.
        folder: where parts are kept.
        null_models: path of the null models, for the workers.
        bundle: the bundle to write.
        executor: where tasks run.
        stamp: digest of everything that the parts depend on.
        done: called after every batch.
    """
    write_context(folder, cohort)
    tasks = plan_batches(cohort, catalogue, found, options, folder)
    executor.run(RunBatch(null_models, stamp), tasks, done)
    write_bundle(tasks, found, models, options, study, bundle)


def write_bundle(
    tasks: list[BatchTask],
    found: StudyVariants,
    models: NullModels,
    options: ScoreStatistics,
    study: dict[str, Any],
    bundle: Path,
) -> None:
    """Gather the parts of all batches into a bundle."""
    lacking = [t.number for t in tasks if not t.genes_part.exists()]
    if lacking:
        raise InputError(f"batches {lacking[:10]} are missing in {tasks[0].folder}; run again to compute them")
    table = pa.concat_tables([pq.read_table(t.variants_part) for t in tasks])
    number = table.column("number").to_numpy()
    first = np.unique(number, return_index=True)[1]
    table = table.take(pa.array(first)).drop_columns(["number"])
    labels = {
        "chromosome": pa.array(found.chromosome, pa.string()),
        "position": pa.array(found.position, pa.int64()),
        "ref": pa.array(found.ref, pa.string()),
        "alt": pa.array(found.alt, pa.string()),
    }
    columns = {**labels, **{name: table.column(name) for name in table.column_names}}
    variants = _withhold(pa.table(columns), options.min_cell).select([c.name for c in BUNDLE_VARIANTS.columns])
    with atomic_directory(bundle) as folder:
        (folder / "genes").mkdir()
        for task in tasks:
            shutil.copyfile(task.genes_part, folder / "genes" / f"{task.number:05d}.parquet")
        pq.write_table(variants, folder / "variants.parquet", compression="zstd")
        (folder / "study.json").write_text(json.dumps(describe_study(models, options, study), indent=1) + "\n")


def _withhold(table: pa.Table, min_cell: int) -> pa.Table:
    """Replace the genotype counts of a variant by -1 where one of them is between 1 and ``min_cell - 1``.

    All three go together: two of them and the number of calls would give the third away.
    """
    if min_cell < 2:
        return table
    names = ("n_ref", "n_het", "n_alt")
    counts = np.stack([matrix_column(table, name) for name in names])
    hidden = ((counts > 0) & (counts < min_cell)).any(axis=0)
    for name, column in zip(names, np.where(hidden, -1, counts).astype(np.int32), strict=True):
        table = table.set_column(table.column_names.index(name), name, list_array(column, pa.int32()))
    return table


def describe_study(models: NullModels, options: ScoreStatistics, study: dict[str, Any]) -> dict[str, Any]:
    """Return the content of study.json."""
    sigma2 = {
        t["name"]: {chromosome: model.sigma2[t["name"]] for chromosome, model in models.chromosomes.items()}
        for t in models.traits
    }
    denoising = {
        t["name"]: [{k: v for k, v in row.items() if k != "trait"} for row in models.rows if row["trait"] == t["name"]]
        for t in models.traits
    }
    return {
        "format": FORMAT,
        "version": VERSION,
        **study,
        "traits": [{**t, "sigma2": sigma2[t["name"]], "denoising": denoising[t["name"]]} for t in models.traits],
        "sample_sets": [
            {"name": name, "n_samples": int(models.in_set[:, k].sum())} for k, name in enumerate(models.sample_sets)
        ],
        "covariances": [{**vars(c), "traits": list(c.traits)} for c in models.covariances],
        "missing": options.missing,
        "max_maf": options.max_maf,
        "min_cell": options.min_cell,
        "software": f"locomass {__version__}",
    }
