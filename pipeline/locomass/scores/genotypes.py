"""What a batch of genes needs of genotypes alone: carriers, G'WG and B, kept between runs.

They depend on genotypes, samples, covariates and W, not on the residuals, so that the next run with other predictions
reads them instead of scanning the genotypes.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from locomass.errors import GENE_FAILURES, InputError
from locomass.files.parts import Arrays, is_sealed, read_arrays, write_arrays
from locomass.genotypes.base import GenotypeRows
from locomass.genotypes.dense import count_dosages, find_fractions, measure_quality
from locomass.genotypes.hemizygous import MALE
from locomass.genotypes.packed import count_genotypes
from locomass.genotypes.products import project_columns, sparse_cross_products, weighted_squares
from locomass.null_models.base import ALL_CHROMOSOMES, ChromosomeModel, NullModels
from locomass.null_models.store import read_null_models
from locomass.numbers import Floats
from locomass.run.provenance import digest_arrays
from locomass.schema import TableSchema
from locomass.scores.sex import HEMIZYGOUS, XCoding, code_males
from locomass.scores.shared_risk import share_of_variants, share_risk_sets
from locomass.tables.cohort import Cohort

if TYPE_CHECKING:
    from locomass.scores.protect import Protection
    from locomass.scores.sharing import Sharing

CONTEXT = "context.npz"
_CONTEXT_LOCK = Lock()


@dataclass(frozen=True)
class GeneRows:
    """One gene of a batch: labels and its variants as numbers of the study's variant table."""

    gene: str
    chromosome: str
    start: int
    end: int
    variants: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class BatchTask:
    """What travels to a worker: paths, numbers and the genes of one batch.

    Attributes:
        number: of the batch.
        folder: where its parts go.
        kept: where carriers and covariances are kept between runs.
        genotypes: the v variants, not read yet.
        chromosome: of all genes.
        variants: (v,) rows of the study's variant table, increasing.
        a1_is_alt: (v,).
        genes: labels and variants.
        missing, max_maf, max_missing, min_info: see the configuration.
        positions: (v,) base pairs.
        sharing: what the batch shares beside U and V.
        min_cell: people that are few enough to be withheld.
        protection: how variants with fewer carriers are hidden; None: they are shared as they are.
    """

    number: int
    folder: Path
    kept: Path
    genotypes: GenotypeRows
    chromosome: str
    variants: NDArray[np.int64]
    a1_is_alt: NDArray[np.bool_]
    genes: tuple[GeneRows, ...]
    missing: str
    max_maf: float
    max_missing: float
    min_info: float
    positions: NDArray[np.int64]
    sharing: Sharing | None = None
    min_cell: int = 0
    protection: Protection | None = None

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
        """Whether all parts are there and whole."""
        return is_sealed(self.folder, self.number)


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
            risk = model.risk_sets(k)
            own = () if risk is None else tuple(risk.arrays().values())
            self.digests[key] = digest_arrays(
                model.weight[k], model.designs[k], self.models.in_set, self.x_coding.key, *own
            )
        return self.digests[key]


def open_context(cohort: Cohort, models: NullModels, x_coding: str, build: str | None) -> StudyContext:
    """Return the context of a study."""
    male = cohort.fileset.sex[cohort.rows] == MALE
    return StudyContext(models, cohort.position, XCoding(male, HEMIZYGOUS[x_coding], build or ""))


def write_context(folder: Path, cohort: Cohort, context: StudyContext) -> None:
    """Write the sample selection and sexes that batches need beside the null models."""
    x = context.x_coding
    arrays = {"position": cohort.position, "labels": cohort.labels.astype(str), "male": x.male}
    arrays |= {"hemizygous": np.array(x.hemizygous), "build": np.array(x.build)}
    write_arrays(folder / CONTEXT, arrays)


@dataclass(frozen=True)
class ContextSource:
    """Where a batch finds its study: in memory in the process that fitted the null models, on disk in any other.

    Attributes:
        folder: where `write_context` wrote.
        null_models: path of the null models.
        stamp: changes with their content, so that a worker never keeps an old one.
        context: the context itself; it does not travel to a worker.
    """

    folder: Path
    null_models: Path
    stamp: str
    context: StudyContext | None = None

    def __reduce__(self) -> tuple[type[ContextSource], tuple[Path, Path, str]]:
        return ContextSource, (self.folder, self.null_models, self.stamp)

    def open(self, chromosome: str) -> StudyContext:
        """Return the context, which all threads share: of all chromosomes, or of those that one store serves."""
        if self.context is not None:
            return self.context
        # one store serves all chromosomes when there is no prediction: it is read once, not once per chromosome
        served = chromosome if (self.null_models / f"{chromosome}.npz").exists() else ALL_CHROMOSOMES
        with _CONTEXT_LOCK:  # threads that start together read it once
            return _load_context(self.folder, self.null_models, self.stamp, served)


@lru_cache(maxsize=2)
def _load_context(folder: Path, null_models: Path, stamp: str, chromosome: str) -> StudyContext:
    """Load the context.

    Raises:
        InputError: it is absent or damaged.
    """
    data = read_arrays(folder / CONTEXT)
    if data is None:
        raise InputError(f"{folder / CONTEXT} is absent or damaged; run the same command, or plan init, again")
    x_coding = XCoding(data["male"], int(data["hemizygous"]), str(data["build"]))
    models = read_null_models(null_models, data["labels"].astype(object), chromosome)
    return StudyContext(models, data["position"], x_coding)


@dataclass(frozen=True, kw_only=True)
class BatchCarriers:
    """Carriers of a batch's variants and what follows from genotypes alone.

    Attributes:
        indptr, sample, dosage: carriers of the counted allele; dosages are int8 calls, or float32 where imputed.
        sign: (v,) +1 where the counted allele is ALT, -1 where it is REF.
        counts: (v, S, 3) heterozygous, homozygous for the counted allele, missing; of dosages, the nearest call.
        n_obs: (v, S) samples with a call.
        frequency: (v, S) of the counted allele.
        imputed: (v, S) dosage that stands for a missing call.
        share_missing: (v,) of the analysed samples.
        info: (v,) variance of the dosages over 2f(1 - f); 1 for calls.
        imputed_calls: (v,) whether any dosage is not a whole number, so that nobody knows genotype counts.
        male_heterozygotes: heterozygous calls of males on chromosome X, which count as missing.
        male_hemizygotes: their other calls of the counted allele there.
    """

    indptr: NDArray[np.int64]
    sample: NDArray[np.int32]
    dosage: NDArray[Any]
    sign: Floats
    counts: NDArray[np.int64]
    n_obs: NDArray[np.int64]
    frequency: Floats
    imputed: Floats
    share_missing: Floats
    info: Floats
    imputed_calls: NDArray[np.bool_]
    male_heterozygotes: int = 0
    male_hemizygotes: int = 0


def find_carriers(task: BatchTask, context: StudyContext) -> BatchCarriers:
    """Return the carriers of a batch, kept or read anew, and what follows from them."""
    path = task.kept / f"carriers-{task.number:05d}.npz"
    scanned = read_arrays(path)
    if scanned is None:
        scanned = task.genotypes.carriers(context.position)._asdict()
        write_arrays(path, scanned)
    indptr, sample, dosage, a1_counted = (scanned[name] for name in ("indptr", "sample", "dosage", "a1_counted"))
    dosage, heterozygotes, hemizygotes = code_males(
        context.x_coding, task.chromosome, task.positions, indptr, sample, dosage
    )
    sign = np.where(a1_counted == task.a1_is_alt, 1.0, -1.0)
    carriers = summarise_carriers(context, indptr, sample, dosage, sign, task.missing)
    return replace(carriers, male_heterozygotes=heterozygotes, male_hemizygotes=hemizygotes)


def summarise_carriers(
    context: StudyContext,
    indptr: NDArray[np.int64],
    sample: NDArray[np.int32],
    dosage: NDArray[Any],
    sign: Floats,
    missing: str,
) -> BatchCarriers:
    """Return carriers with what follows from them: counts, frequencies, what stands for a missing call."""
    in_set = context.models.in_set
    if dosage.dtype == np.int8:
        counts = count_genotypes(indptr, sample, dosage, in_set)
        alleles = counts[:, :, 0] + 2.0 * counts[:, :, 1]
    else:
        counts, alleles = count_dosages(indptr, sample, dosage, in_set)
    n_obs = in_set.sum(axis=0, dtype=np.int64)[None, :] - counts[:, :, 2]
    with np.errstate(invalid="ignore"):
        frequency = alleles / (2 * n_obs)
    known = np.nan_to_num(frequency)
    imputed = 2 * known if missing == "mean" else np.where(known > 0.5, 2.0, 0.0)  # mean, or frequent homozygote
    share_missing, info = measure_quality(indptr, dosage, len(in_set))
    return BatchCarriers(
        indptr=indptr,
        sample=sample,
        dosage=dosage,
        sign=sign,
        counts=counts,
        n_obs=n_obs,
        frequency=frequency,
        imputed=imputed,
        share_missing=share_missing,
        info=info,
        imputed_calls=find_fractions(indptr, dosage),
    )


@dataclass(frozen=True)
class CovariancePart:
    """G'WG and B of one covariance and batch, ALT counted.

    Attributes:
        squares: (v,) diagonal of G'WG, of a time to event less what carriers share in risk sets, as in ``cross``.
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
    kept = None if task.protection else read_arrays(path)  # protected genotypes depend on more than the name says
    if kept is None:
        kept, notes = _compute_covariance(k, task, context, model, carriers, locals_)
        if not any(notes) and not task.protection:  # what failed is tried again next time
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
    weight, design = model.weight[k], model.designs[k]
    B = project_columns(*lists, design, np.zeros(design.shape[1], np.int64), imputed) * carriers.sign[:, None]
    squares = weighted_squares(*lists, weight[:, None], imputed)[:, 0]
    head = np.full(len(weight), -1, np.int32)
    cross, notes = [], []
    for local in locals_:
        try:
            shared = share_risk_sets(model.risk_sets(k), local, carriers, s)
            row, column, value = sparse_cross_products(local, lists, weight, imputed[:, 0], head, less=shared)
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
        "squares": squares - share_of_variants(model.risk_sets(k), carriers, s),
        "B": B,
        "row": row,
        "column": column,
        "value": value,
        "offsets": np.cumsum([0, *(len(c[0]) for c in cross)]),
    }
    return arrays, tuple(notes)
