"""What a batch of genes needs of genotypes alone: carriers, G'WG and B, kept between runs.

They depend on genotypes, samples, covariates and W, not on the residuals, so that the next run with other predictions
reads them instead of scanning the genotypes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import GENE_FAILURES
from pipeline.io.cohort import Cohort
from pipeline.io.null_models import ALL_CHROMOSOMES, ChromosomeModel, NullModels, read_null_models
from pipeline.io.parts import Arrays, count_rows, read_arrays, write_arrays
from pipeline.io.plink import BedFile, read_packed_rows
from pipeline.kernels.packed import count_genotypes, scan_carriers
from pipeline.kernels.score_statistics import project_columns, sparse_cross_products, weighted_squares
from pipeline.provenance import digest_arrays
from pipeline.schema import TableSchema
from pipeline.stages.score_statistics.sex import HEMIZYGOUS, MALE, XCoding, code_males

if TYPE_CHECKING:
    from pipeline.stages.score_statistics.sharing import Sharing

Floats = NDArray[np.float64]
_CONTEXT_LOCK = Lock()
SCAN_BYTES = 4 << 20  # packed bytes scanned at a time: they stay in the processor's cache


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
    """What travels to a worker: paths, numbers and the genes of one batch.

    Attributes:
        number: of the batch.
        folder: where its parts go.
        kept: where carriers and covariances are kept between runs.
        beds: the files of the fileset.
        chromosome: of all genes.
        variants: (v,) rows of the study's variant table, increasing.
        rows: (v,) variant numbers in the fileset.
        a1_is_alt: (v,).
        genes: labels and variants.
        missing, max_maf: see the configuration.
        positions: (v,) base pairs.
        sharing: what the batch shares beside U and V.
    """

    number: int
    folder: Path
    kept: Path
    beds: tuple[BedFile, ...]
    chromosome: str
    variants: NDArray[np.int64]
    rows: NDArray[np.int64]
    a1_is_alt: NDArray[np.bool_]
    genes: tuple[GeneRows, ...]
    missing: str
    max_maf: float
    positions: NDArray[np.int64]
    sharing: Sharing | None = None

    def shared_part(self, schema: TableSchema) -> Path:
        """Part of an optional table of the bundle."""
        return self.folder / f"{schema.name}-{self.number:05d}.parquet"

    @property
    def variants_part(self) -> Path:
        """Part of the variant table that the task writes."""
        return self.folder / f"variants-{self.number:05d}.parquet"

    @property
    def genes_part(self) -> Path:
        """Part of genes/ that the task writes."""
        return self.folder / f"genes-{self.number:05d}.parquet"

    @property
    def is_done(self) -> bool:
        """Whether both parts are there and whole."""
        rows = count_rows(self.genes_part)
        return rows > 0 and rows % len(self.genes) == 0 and count_rows(self.variants_part) == len(self.variants)


@dataclass(frozen=True)
class StudyContext:
    """What every batch of a study needs, loaded once per worker.

    Attributes:
        models: null models.
        position: index of each sample of the files among the analysed ones, -1 where left out.
        x_coding: how males are coded on chromosome X.
        digests: of the covariances, by (model, number); filled when asked for.
    """

    models: NullModels
    position: NDArray[np.int32]
    x_coding: XCoding
    digests: dict[tuple[int, int], str] = field(default_factory=dict)

    def covariance_digest(self, model: ChromosomeModel, k: int) -> str:
        """Return the digest of what G'WG and B of a covariance depend on, genotypes apart: W, X and the samples."""
        key = (id(model), k)
        if key not in self.digests:
            design = model.columns[:, model.column_indices("design", self.models.covariances[k].name)]
            self.digests[key] = digest_arrays(model.weight[:, k], design, self.models.in_set, self.x_coding.key)
        return self.digests[key]


def open_context(cohort: Cohort, models: NullModels, x_coding: str, build: str | None) -> StudyContext:
    """Return the context of a study."""
    male = cohort.fileset.sex[cohort.rows] == MALE
    return StudyContext(models, cohort.position, XCoding(male, HEMIZYGOUS[x_coding], build or ""))


def write_context(folder: Path, cohort: Cohort, context: StudyContext) -> None:
    """Write the sample selection and sexes that batches need beside the null models."""
    folder.mkdir(parents=True, exist_ok=True)
    x = context.x_coding
    np.savez(
        folder / "context.npz", position=cohort.position, labels=cohort.labels.astype(str), male=x.male,
        hemizygous=x.hemizygous, build=x.build,
    )  # fmt: skip


def load_context(folder: Path, null_models: Path, stamp: str, chromosome: str) -> StudyContext:
    """Return the context of one chromosome, which the threads of a worker share.

    Args:
        folder: where the context was written.
        null_models: path of the null models.
        stamp: changes with their content, so that a worker never keeps an old one.
        chromosome: of the batch.
    """
    # one store serves all chromosomes when there is no prediction: it is read once, not once per chromosome
    served = chromosome if (null_models / f"{chromosome}.zarr").exists() else ALL_CHROMOSOMES
    with _CONTEXT_LOCK:  # threads that start together read it once
        return _load_context(folder, null_models, stamp, served)


@lru_cache(maxsize=2)
def _load_context(folder: Path, null_models: Path, stamp: str, chromosome: str) -> StudyContext:
    """Load the context."""
    with np.load(folder / "context.npz") as data:
        labels = data["labels"].astype(object)
        x_coding = XCoding(data["male"], int(data["hemizygous"]), str(data["build"]))
        return StudyContext(read_null_models(null_models, labels, chromosome), data["position"], x_coding)


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
        male_heterozygotes: heterozygous calls of males on chromosome X, which count as missing.
        male_hemizygotes: their other calls of the counted allele there.
    """

    indptr: NDArray[np.int64]
    sample: NDArray[np.int32]
    dosage: NDArray[np.int8]
    sign: Floats
    counts: NDArray[np.int64]
    n_obs: NDArray[np.int64]
    frequency: Floats
    imputed: Floats
    male_heterozygotes: int = 0
    male_hemizygotes: int = 0


def find_carriers(task: BatchTask, context: StudyContext) -> BatchCarriers:
    """Return the carriers of a batch, kept or read anew, and what follows from them."""
    path = task.kept / f"carriers-{task.number:05d}.npz"
    scanned = read_arrays(path)
    if scanned is None:
        scanned = _scan(task, context)
        write_arrays(path, scanned)
    indptr, sample, dosage, a1_counted = (scanned[name] for name in ("indptr", "sample", "dosage", "a1_counted"))
    dosage, heterozygotes, hemizygotes = code_males(
        context.x_coding, task.chromosome, task.positions, indptr, sample, dosage
    )
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
    return BatchCarriers(indptr, sample, dosage, sign, counts, n_obs, frequency, imputed, heterozygotes, hemizygotes)


def _scan(task: BatchTask, context: StudyContext) -> Arrays:
    """Read and scan the packed rows of a batch, a cache-sized piece at a time."""
    step = max(1, SCAN_BYTES // task.beds[0].row_bytes)
    n_file = len(context.position)
    buffer = np.empty((min(step, len(task.rows)), task.beds[0].row_bytes), np.uint8)
    pieces = []
    for start in range(0, len(task.rows), step):
        packed = read_packed_rows(task.beds, task.rows[start : start + step], buffer)
        pieces.append(scan_carriers(packed, n_file, context.position, n_file))
    indptr = np.concatenate([[0], *[np.diff(p[0]) for p in pieces]]).cumsum()
    sample, dosage, a1_counted = (np.concatenate([p[k] for p in pieces]) for k in (1, 2, 3))
    return {"indptr": indptr, "sample": sample, "dosage": dosage, "a1_counted": a1_counted}


@dataclass(frozen=True)
class CovariancePart:
    """G'WG and B of one covariance and batch, ALT counted.

    Attributes:
        squares: (v,) diagonal of G'WG.
        B: (v, p) ``G'WX (X'WX)^(-1/2)``.
        cross: per gene, (row, column, value) of the lower triangle of G'WG.
        note: per gene, why there is none; empty otherwise.
    """

    squares: Floats
    B: Floats
    cross: tuple[tuple[NDArray[np.int32], NDArray[np.int32], Floats], ...]
    note: tuple[str, ...]


def find_covariance(
    k: int,
    task: BatchTask,
    context: StudyContext,
    model: ChromosomeModel,
    carriers: BatchCarriers,
    locals_: list[NDArray[np.int64]],
) -> CovariancePart:
    """Return the k-th covariance of a batch, kept or computed; ``locals_`` are the variants of each gene."""
    notes: tuple[str, ...] = ("",) * len(task.genes)
    path = task.kept / f"covariance-{context.covariance_digest(model, k)[:16]}-{task.number:05d}.npz"
    kept = read_arrays(path)
    if kept is None:
        kept, notes = _compute_covariance(k, task, context, model, carriers, locals_)
        if not any(notes):  # what failed is tried again next time
            write_arrays(path, kept)
    offsets = kept["offsets"]
    cross = tuple(
        (kept["row"][low:high], kept["column"][low:high], kept["value"][low:high])
        for low, high in zip(offsets[:-1], offsets[1:], strict=True)
    )
    return CovariancePart(kept["squares"], kept["B"], cross, notes)


def _compute_covariance(
    k: int,
    task: BatchTask,
    context: StudyContext,
    model: ChromosomeModel,
    carriers: BatchCarriers,
    locals_: list[NDArray[np.int64]],
) -> tuple[Arrays, tuple[str, ...]]:
    """Compute the k-th covariance of a batch; a gene that fails has no entries and a note."""
    covariance = context.models.covariances[k]
    lists = (carriers.indptr, carriers.sample, carriers.dosage)
    s = context.models.sample_sets.index(covariance.sample_set)
    imputed = np.ascontiguousarray(carriers.imputed[:, s : s + 1])
    weight = np.ascontiguousarray(model.weight[:, k : k + 1])
    design = np.ascontiguousarray(model.columns[:, model.column_indices("design", covariance.name)])
    B = project_columns(*lists, design, np.zeros(design.shape[1], np.int64), imputed) * carriers.sign[:, None]
    head = np.full(len(weight), -1, np.int32)
    cross, notes = [], []
    for local in locals_:
        try:
            row, column, value = sparse_cross_products(local, lists, weight[:, 0], imputed[:, 0], head)
            note = ""
        except GENE_FAILURES as error:
            head.fill(-1)
            row, column, value = np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0)
            note = f"no statistics: {error or type(error).__name__}"
        sign = carriers.sign[local]
        cross.append((row, column, value * sign[row] * sign[column]))
        notes.append(note)
    row, column, value = (np.concatenate([c[i] for c in cross]) for i in range(3))
    arrays = {
        "squares": weighted_squares(*lists, weight, imputed)[:, 0],
        "B": B,
        "row": row,
        "column": column,
        "value": value,
        "offsets": np.cumsum([0, *(len(c[0]) for c in cross)]),
    }
    return arrays, tuple(notes)
