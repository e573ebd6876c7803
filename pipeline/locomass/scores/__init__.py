"""Score statistics: U, sparse G'WG, B and genotype counts per gene batch, gathered into the study bundle.

A batch is a run of consecutive genes. Its task reads the packed rows itself, finds carriers once, projects them on all
traits at once and writes two Parquet parts; the bundle is the parts put together. Parts that are whole are not computed
again, so a killed run resumes. Carriers, G'WG and B depend on genotypes, samples, covariates and W only: they are kept
beside the parts, and the next run with other predictions takes them from there.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from locomass import __version__
from locomass.bundle.check import FORMAT, VERSION, list_values
from locomass.bundle.hidden import HIDDEN_POSITION, HIDDEN_REF
from locomass.bundle.write import GENES_PER_GROUP, VARIANTS_PER_GROUP, sign_bundle
from locomass.config import ScoreStatistics
from locomass.errors import ConfigError, InputError
from locomass.executors import Executor
from locomass.files.atomic import atomic_directory
from locomass.files.results import write_parquet
from locomass.null_models.base import NullModels
from locomass.null_models.registry import REGRESSIONS, trait_model
from locomass.schema import BUNDLE_LAWS, BUNDLE_VARIANTS
from locomass.scores.batch import MALE_HEMIZYGOTES, MALE_HETEROZYGOTES, OVER_MISSING, UNDER_INFO, run_batch
from locomass.scores.genotypes import BatchTask, ContextSource, GeneRows, StudyContext, open_context, write_context
from locomass.scores.laws import describe_residuals
from locomass.scores.protect import Protection, claim_members, plan_protection
from locomass.scores.residual_shape import describe_shape
from locomass.scores.sex import check_sexes, describe_sexes, has_haploid
from locomass.scores.sharing import plan_sharing
from locomass.scores.withhold import warn_recoverable, withhold_counts
from locomass.tables.catalogue import Catalogue, StudyVariants
from locomass.tables.cohort import Cohort
from locomass.variants.chromosomes import chromosome_order

log = logging.getLogger("locomass")

#: what study.json says that a bundle gives away of the people of the study
DISCLOSES = {
    "exact": (
        "U of a variant that one person carries is that person's residual: with it the phenotype, or case status",
        "B of such a variant holds that person's covariates; products of genotypes tell which variants share carriers",
        "genotype counts, unless min_cell withholds them; most of those follow from frequencies and G'G",
    ),
    "protected": (
        "of each gene: sums over groups of at least min_cell people who carry the same of its shared variants",
        "of a binary trait: how many cases such a group has follows from U, also where that is none or all",
        "not protected: differences between genes whose variants nearly the same people carry",
    ),
}
BATCH_CARRIERS = 4 << 20  # carriers of a batch, as far as a file says
BATCH_PAIRS = 2_000_000  # entries of the information matrices of a batch
BATCHES = 3_000  # of a data set that would have more, batches are larger
CARRIER_BYTES = 18.0  # of a carrier: 5 bytes, twice, and scratch, such as the groups of people alike
TASK_BYTES = 400e6  # a task's share of the program, blocks of V, tables on their way to disk


@dataclass(frozen=True)
class BatchBound:
    """What a batch may hold, unless it is a single gene.

    Attributes:
        carriers: expected carriers.
        most: carriers that there can be at most; the memory of a task bounds them.
    """

    carriers: float
    most: float


def bound_batch(memory: float | None, n_samples: int, n_columns: int, total: float = 0) -> BatchBound:
    """Return what a task may take on.

    Args:
        memory: bytes that a task may use; None: no bound.
        n_samples: analysed samples.
        n_columns: columns of the null models of a chromosome, which the task holds, too.
        total: expected carriers of all genes.

    Raises:
        ConfigError: there is no room for a batch of any size.
    """
    usual = max(BATCH_CARRIERS, total / BATCHES)
    if memory is None:
        return BatchBound(usual, np.inf)
    needed = TASK_BYTES + 16.0 * n_samples * n_columns
    if memory <= needed:
        raise ConfigError(
            f"{memory / 1e6:,.0f} MB of memory per task is too little: {n_samples:,} samples with {n_columns} columns "
            f"of null models need more than {needed / 1e6:,.0f} MB; give more memory, or fewer threads or traits"
        )
    return BatchBound(usual, (memory - needed) / CARRIER_BYTES)


def plan_batches(
    cohort: Cohort,
    catalogue: Catalogue,
    found: StudyVariants,
    options: ScoreStatistics,
    *,
    folder: Path,
    kept: Path,
    study: str = "",
    bound: BatchBound | None = None,
) -> list[BatchTask]:
    """Split the genes into batches of bounded carriers and matrix entries; a huge gene is a batch of its own.

    Args:
        cohort, catalogue, found: the study, its genes, where their variants are.
        options: missing-call rule, frequency bound, what is shared.
        folder, kept: where parts go, and what outlives them.
        study: name.
        bound: of a batch.
    """
    members = [found.members[found.offsets[i] : found.offsets[i + 1]] for i in range(len(catalogue.sets))]
    if options.share == "protected":
        members = claim_members(members, _genome_order(catalogue, found, members))
    tasks = []
    for number, batch in enumerate(
        _split_genes(cohort, catalogue, found, members, bound or BatchBound(BATCH_CARRIERS, np.inf))
    ):
        variants = np.unique(np.concatenate([members[i] for i in batch]))
        tasks.append(
            BatchTask(
                number=number,
                folder=folder,
                kept=kept,
                genotypes=cohort.fileset.select(found.row[variants]),
                chromosome=catalogue.sets.chromosome[batch[0]],
                variants=variants,
                a1_is_alt=found.a1_is_alt[variants],
                genes=tuple(_gene_rows(catalogue, found, i, members[i]) for i in batch),
                missing=options.missing,
                max_maf=options.max_maf,
                max_missing=options.max_missing,
                min_info=options.min_info,
                positions=found.position[variants],
                sharing=plan_sharing(catalogue, found, batch, options, study),
                min_cell=options.min_cell,
                protection=_protection(catalogue, found, batch, members, options),
            )
        )
    return tasks


def _protection(
    catalogue: Catalogue,
    found: StudyVariants,
    batch: list[int],
    members: list[NDArray[np.int64]],
    options: ScoreStatistics,
) -> Protection | None:
    """Return how a batch hides variants; None where it does not."""
    if options.share == "exact":
        return None
    return plan_protection(catalogue, found, batch, [members[i] for i in batch])


def _gene_rows(catalogue: Catalogue, found: StudyVariants, i: int, members: NDArray[np.int64]) -> GeneRows:
    """Return labels and variants of a gene."""
    sets = catalogue.sets
    end = int(max(sets.end[i], found.position[members].max()))
    return GeneRows(sets.gene[i], sets.chromosome[i], int(sets.start[i]), end, members)


def _genome_order(catalogue: Catalogue, found: StudyVariants, members: list[NDArray[np.int64]]) -> list[int]:
    """Return the genes that have variants, by chromosome and first variant."""
    return sorted(
        (i for i in range(len(catalogue.sets)) if len(members[i])),
        key=lambda i: (chromosome_order(str(catalogue.sets.chromosome[i])), int(members[i].min())),
    )


def _split_genes(
    cohort: Cohort, catalogue: Catalogue, found: StudyVariants, members: list[NDArray[np.int64]], bound: BatchBound
) -> list[list[int]]:
    """Return the genes of every batch, in genome order."""
    sets = catalogue.sets
    cost = cohort.fileset.cost(found.row)
    most_pairs = max(BATCH_PAIRS, sum(len(m) ** 2 for m in members) // BATCHES)
    order = _genome_order(catalogue, found, members)
    limits = np.array([bound.carriers, bound.most, most_pairs])
    batches: list[list[int]] = []
    held = np.zeros(3)
    for i in order:
        own = np.array([cost.carriers[members[i]].sum(), cost.most[members[i]].sum(), len(members[i]) ** 2])
        new_chromosome = batches and sets.chromosome[batches[-1][0]] != sets.chromosome[i]
        if not batches or new_chromosome or np.any(held + own > limits):
            batches.append([])
            held = np.zeros(3)
        batches[-1].append(i)
        held += own
    return batches


@dataclass(frozen=True)
class RunBatch:
    """The task function with what is common to all batches; small, so that it travels cheaply."""

    source: ContextSource

    def __call__(self, task: BatchTask) -> str:
        """Run one batch."""
        return run_batch(task, self.source)


def compute_score_statistics(
    cohort: Cohort,
    tasks: list[BatchTask],
    found: StudyVariants,
    models: NullModels,
    options: ScoreStatistics,
    study: dict[str, Any],
    *,
    folder: Path,
    null_models: Path,
    bundle: Path,
    executor: Executor,
    stamp: str,
    kept: Path,
    done: Callable[[], None] | None = None,
) -> None:
    """Compute all batches that are missing in ``folder`` and put the bundle together.

    Args:
        cohort, tasks, found, models: the study, its batches, where their variants are, its null models.
        options: missing-call rule, frequency bound, minimum cell.
        study: what study.json says of the study: name, build, de-noising record.
        folder: where parts are kept.
        null_models: path of the null models, for the workers.
        bundle: the bundle to write.
        executor: where tasks run.
        stamp: digest of everything that the parts depend on.
        kept: folder for what depends on genotypes, samples and covariates only; it outlives the parts.
        done: called after every batch.
    """
    build = study.get("genome_build") or ""
    if has_haploid(found, build):
        study = {**study, "x_coding": options.x_coding}
    unknown_sex = check_sexes(cohort, found, build)
    if unknown_sex:
        study = {**study, "samples_of_unknown_sex": unknown_sex}
    context = open_context(cohort, models, options.x_coding, study.get("genome_build"))
    write_context(folder, cohort, context)
    executor.run(RunBatch(ContextSource(folder, null_models, stamp, context)), tasks, done)
    write_bundle(tasks, found, models, options, study, bundle)
    forget_covariances(kept, context)


def forget_covariances(kept: Path, context: StudyContext) -> None:
    """Remove the covariances of null models that are no longer in use."""
    models = context.models
    used = {
        context.covariance_digest(model, k)[:16]
        for model in models.chromosomes.values()
        for k in range(len(models.covariances))
    }
    for path in kept.glob("covariance-*.npz"):
        if path.name.split("-")[1] not in used:
            path.unlink(missing_ok=True)


def write_bundle(
    tasks: list[BatchTask],
    found: StudyVariants,
    models: NullModels,
    options: ScoreStatistics,
    study: dict[str, Any],
    bundle: Path,
) -> None:
    """Gather the parts of all batches into a bundle."""
    lacking = [str(t.number) for t in tasks if not t.is_done]
    if lacking:
        some = ", ".join(lacking[:10]) + (", ..." if len(lacking) > 10 else "")
        raise InputError(f"batches {some} are missing or damaged in {tasks[0].folder}; run again to compute them")
    parts = [pq.read_table(t.variants_part) for t in tasks]
    impossible, possible = (
        sum(int((part.schema.metadata or {}).get(key, 0)) for part in parts)
        for key in (MALE_HETEROZYGOTES, MALE_HEMIZYGOTES)
    )
    if impossible:
        study = {**study, "male_heterozygotes": impossible, "male_hemizygotes": possible}
    for line in describe_sexes(study, len(models.samples)):
        log.warning(line)
    for key, what in ((OVER_MISSING, "a larger share of missing calls"), (UNDER_INFO, "less imputation information")):
        lost = {n for part in parts for n in json.loads((part.schema.metadata or {}).get(key, b"[]"))}
        if lost:
            study = {**study, key.decode(): len(lost)}
            log.warning(
                "%s variants are left out of the genes: %s than the configuration allows", f"{len(lost):,}", what
            )
    table = pa.concat_tables([part.replace_schema_metadata(None) for part in parts])
    number = table.column("number").to_numpy()
    shared, first = np.unique(number, return_index=True)
    table = table.take(pa.array(first)).drop_columns(["number"])
    columns = {**label_variants(tasks, found, shared), **{name: table.column(name) for name in table.column_names}}
    variants = withhold_counts(pa.table(columns), options.min_cell).select([c.name for c in BUNDLE_VARIANTS.columns])
    quantitative = {models.sample_sets.index(t["sample_set"]) for t in models.traits if t["kind"] == "quantitative"}
    warning = warn_recoverable(variants, options.min_cell, quantitative)
    if warning:
        log.warning(warning)
    with atomic_directory(bundle) as folder:
        (folder / "genes").mkdir()
        for task in tasks:
            copy_part(task.genes_part, folder / "genes" / f"{task.number:05d}.parquet", shared, task)
        copy_shared(tasks, folder, shared)
        pq.write_table(variants, folder / "variants.parquet", compression="zstd", row_group_size=VARIANTS_PER_GROUP)
        text = json.dumps(describe_study(models, options, study), indent=1, allow_nan=False)
        (folder / "study.json").write_text(text + "\n")
        sign_bundle(folder)


def label_variants(tasks: list[BatchTask], found: StudyVariants, shared: NDArray[np.int64]) -> dict[str, pa.Array]:
    """Return chromosome, position, REF and ALT of the shared rows of the study's variant table."""
    real = shared[shared < len(found.row)]
    hidden = {
        int(n): (gene.chromosome, alt)
        for task in tasks
        if task.protection
        for gene, numbers, alts in zip(task.genes, task.protection.number, task.protection.alt, strict=True)
        for n, alt in zip(numbers.tolist(), alts, strict=True)
    }
    rest = [hidden[n] for n in shared[len(real) :].tolist()]
    labels = {
        "chromosome": [*found.chromosome[real].tolist(), *(chromosome for chromosome, _ in rest)],
        "position": [*found.position[real].tolist(), *(HIDDEN_POSITION for _ in rest)],
        "ref": [*found.ref[real].tolist(), *(HIDDEN_REF for _ in rest)],
        "alt": [*found.alt[real].tolist(), *(alt for _, alt in rest)],
    }
    return {name: pa.array(v, pa.int64() if name == "position" else pa.string()) for name, v in labels.items()}


def copy_part(source: Path, target: Path, shared: NDArray[np.int64], task: BatchTask) -> None:
    """Copy a part into a bundle; where variants are hidden, those that are left are numbered again."""
    table = None if task.protection is None else pq.read_table(source)
    if table is None or "variant" not in table.column_names or source == task.shared_part(BUNDLE_LAWS):
        shutil.copyfile(source, target)  # groups of carriers count the variants of their gene
        return
    flat, length = list_values(table, "variant")
    offsets = pa.array(np.concatenate([[0], np.cumsum(length)]), pa.int32())
    column = pa.ListArray.from_arrays(offsets, pa.array(np.searchsorted(shared, flat), pa.int32()))
    at = table.column_names.index("variant")
    write_parquet(target, table.set_column(at, "variant", column), GENES_PER_GROUP)


def copy_shared(tasks: list[BatchTask], folder: Path, shared: NDArray[np.int64]) -> None:
    """Copy the parts of the optional tables into a bundle."""
    for task in tasks:
        for schema in (BUNDLE_LAWS, *(task.sharing.kinds if task.sharing else ())):
            (folder / schema.name).mkdir(exist_ok=True)
            copy_part(task.shared_part(schema), folder / schema.name / f"{task.number:05d}.parquet", shared, task)


def _describe_residuals(models: NullModels, trait: dict[str, Any], min_cell: int) -> dict[str, Any]:
    """Return the distribution of a trait's residuals, where they are its law, and their histogram.

    They are those of one chromosome; in units of their standard deviation those of others are distributed alike.
    """
    if REGRESSIONS[trait["kind"]].law != "residual":
        return {}
    chromosome, first = next(iter(models.chromosomes.items()))
    model = trait_model(models, first, trait["name"])
    shape = describe_shape(model.residual / np.sqrt(model.sigma2), chromosome, min_cell)
    return {
        "residuals": describe_residuals(
            model.residual, min_cell, model.y > 0 if model.kind == "time_to_event" else None
        ),
        **({} if shape is None or model.kind == "time_to_event" else {"histogram": shape}),
    }


def _withhold_events(record: dict[str, Any], min_cell: int) -> dict[str, Any]:
    """Return what is said of a trait without a number of events below the smallest cell, and their person-time."""
    events = record.get("n_cases")
    if record["kind"] != "time_to_event" or events is None or events >= min_cell:
        return record
    return {**record, "n_cases": None, **({"person_time": None} if "person_time" in record else {})}


def describe_study(models: NullModels, options: ScoreStatistics, study: dict[str, Any]) -> dict[str, Any]:
    """Return the content of study.json."""
    sigma2 = {
        t["name"]: {chromosome: model.sigma2[t["name"]] for chromosome, model in models.chromosomes.items()}
        for t in models.traits
    }
    denoising = {
        t["name"]: [
            {k: v for k, v in _withhold_events(row, options.min_cell).items() if k != "trait"}
            for row in models.rows
            if row["trait"] == t["name"]
        ]
        for t in models.traits
    }
    study = dict(study)
    predictors = study.pop("predictors", {})
    return {
        "format": FORMAT,
        "version": VERSION,
        **study,
        "traits": [
            {
                **_withhold_events(t, options.min_cell),
                "sigma2": sigma2[t["name"]],
                "denoising": denoising[t["name"]],
                **_describe_residuals(models, t, options.min_cell),
                **({"predictor": predictors[t["name"]]} if predictors.get(t["name"]) else {}),
            }
            for t in models.traits
        ],
        "sample_sets": [
            {"name": name, "n_samples": int(models.in_set[:, k].sum())} for k, name in enumerate(models.sample_sets)
        ],
        "covariances": [{**vars(c), "traits": list(c.traits)} for c in models.covariances],
        "missing": options.missing,
        "max_maf": options.max_maf,
        "min_cell": options.min_cell,
        "share": options.share,
        "discloses": list(DISCLOSES[options.share]),
        "software": f"locomass {__version__}",
    }
