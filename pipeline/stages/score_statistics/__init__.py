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

from pipeline import __version__
from pipeline.align import chromosome_order
from pipeline.cluster import Executor
from pipeline.config import ScoreStatistics
from pipeline.errors import ConfigError, InputError
from pipeline.io.atomic import atomic_directory
from pipeline.io.bundle_check import FORMAT, VERSION
from pipeline.io.bundle_write import VARIANTS_PER_GROUP, sign_bundle
from pipeline.io.catalogue import Catalogue, StudyVariants
from pipeline.io.cohort import Cohort
from pipeline.io.null_models import NullModels
from pipeline.schema import BUNDLE_VARIANTS
from pipeline.stages.score_statistics.batch import MALE_HEMIZYGOTES, MALE_HETEROZYGOTES, run_batch
from pipeline.stages.score_statistics.genotypes import BatchTask, GeneRows, StudyContext, open_context, write_context
from pipeline.stages.score_statistics.sex import check_sexes, describe_sexes, has_haploid
from pipeline.stages.score_statistics.sharing import plan_sharing, traits_to_calibrate
from pipeline.stages.score_statistics.withhold import warn_recoverable, withhold_counts

log = logging.getLogger("locomass")

BATCH_BYTES = 64 << 20  # packed bytes of a batch
BATCH_PAIRS = 2_000_000  # entries of the information matrices of a batch
BATCHES = 3_000  # of a data set that would have more, batches are larger
CARRIER_BYTES = 45  # per packed byte, if every sample carries every variant: 4 carriers of 5 bytes, twice, and scratch
TASK_BYTES = 400e6  # a task's share of the program, blocks of V, tables on their way to disk


def bound_batch(memory: float | None, n_samples: int, n_columns: int, total: int = 0) -> int:
    """Return the packed bytes of a batch that a task may take on.

    Args:
        memory: bytes that a task may use; None: no bound.
        n_samples: analysed samples.
        n_columns: columns of the null models of a chromosome, which the task holds, too.
        total: packed bytes of all genes.

    Raises:
        ConfigError: there is no room for a batch of any size.
    """
    usual = max(BATCH_BYTES, total // BATCHES)
    if memory is None:
        return usual
    needed = TASK_BYTES + 16.0 * n_samples * n_columns
    if memory <= needed:
        raise ConfigError(
            f"{memory / 1e6:,.0f} MB of memory per task is too little: {n_samples:,} samples with {n_columns} columns "
            f"of null models need more than {needed / 1e6:,.0f} MB; give more memory, or fewer threads or traits"
        )
    return int(min(usual, (memory - needed) / CARRIER_BYTES))


def plan_batches(
    cohort: Cohort,
    catalogue: Catalogue,
    found: StudyVariants,
    options: ScoreStatistics,
    folder: Path,
    kept: Path,
    study: str = "",
    batch_bytes: int | None = None,
) -> list[BatchTask]:
    """Split the genes into batches of bounded packed bytes and matrix entries; a huge gene is a batch of its own."""
    bound = batch_bytes or BATCH_BYTES
    row_bytes = cohort.fileset.beds[0].row_bytes
    sets = catalogue.sets
    members = [found.members[found.offsets[i] : found.offsets[i + 1]] for i in range(len(sets))]
    most_pairs = max(BATCH_PAIRS, sum(len(m) ** 2 for m in members) // BATCHES)
    order = sorted(
        (i for i in range(len(sets)) if len(members[i])),
        key=lambda i: (chromosome_order(str(sets.chromosome[i])), int(members[i].min())),
    )
    batches: list[list[int]] = []
    size = entries = 0
    for i in order:
        cost, pairs = len(members[i]) * row_bytes, len(members[i]) ** 2
        new_chromosome = batches and sets.chromosome[batches[-1][0]] != sets.chromosome[i]
        if not batches or new_chromosome or size + cost > bound or entries + pairs > most_pairs:
            batches.append([])
            size = entries = 0
        batches[-1].append(i)
        size, entries = size + cost, entries + pairs
    calibrate = traits_to_calibrate(cohort, options)
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
                kept,
                cohort.fileset.beds,
                sets.chromosome[batch[0]],
                variants,
                found.row[variants],
                found.a1_is_alt[variants],
                genes,
                options.missing,
                options.max_maf,
                found.position[variants],
                plan_sharing(catalogue, found, batch, options, study, calibrate),
            )
        )
    return tasks


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
    tasks: list[BatchTask],
    found: StudyVariants,
    models: NullModels,
    options: ScoreStatistics,
    study: dict[str, Any],
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
    executor.run(RunBatch(null_models, stamp), tasks, done)
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
    table = pa.concat_tables([part.replace_schema_metadata(None) for part in parts])
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
    variants = withhold_counts(pa.table(columns), options.min_cell).select([c.name for c in BUNDLE_VARIANTS.columns])
    quantitative = {models.sample_sets.index(t["sample_set"]) for t in models.traits if t["kind"] == "quantitative"}
    warning = warn_recoverable(variants, options.min_cell, quantitative)
    if warning:
        log.warning(warning)
    with atomic_directory(bundle) as folder:
        (folder / "genes").mkdir()
        for task in tasks:
            shutil.copyfile(task.genes_part, folder / "genes" / f"{task.number:05d}.parquet")
        copy_shared(tasks, folder)
        pq.write_table(variants, folder / "variants.parquet", compression="zstd", row_group_size=VARIANTS_PER_GROUP)
        text = json.dumps(describe_study(models, options, study), indent=1, allow_nan=False)
        (folder / "study.json").write_text(text + "\n")
        sign_bundle(folder)


def copy_shared(tasks: list[BatchTask], folder: Path) -> None:
    """Copy the parts of the optional tables into a bundle."""
    for task in tasks:
        for schema in task.sharing.kinds if task.sharing else ():
            (folder / schema.name).mkdir(exist_ok=True)
            shutil.copyfile(task.shared_part(schema), folder / schema.name / f"{task.number:05d}.parquet")


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
