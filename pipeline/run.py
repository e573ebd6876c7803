"""The order of the stages: predict, denoise, score statistics, meta, report. The only module that knows it.

A stage runs when the digest of what it depends on has changed, or its outputs are gone; otherwise it is skipped.
"""

from __future__ import annotations

import json
import logging
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pipeline.cluster import Executor, dashboard_link, open_executor
from pipeline.config import ExternalMaf, MetaConfig, Predictor, RunConfig, load_config
from pipeline.errors import BundleError, ConfigError, InputError, MatchError, suggest
from pipeline.gene_tests.registry import check_tests
from pipeline.gene_tests.weights import parse_weights
from pipeline.io.annotations import read_frequencies
from pipeline.io.bundle import Bundle
from pipeline.io.bundle_open import open_bundle
from pipeline.io.catalogue import Catalogue, StudyVariants, locate_variants, open_catalogue
from pipeline.io.cohort import Cohort, open_cohort
from pipeline.io.loco import read_prediction_list
from pipeline.io.null_models import NullModels, read_array, read_null_models
from pipeline.plan import RunDirectory
from pipeline.provenance import digest_arrays, digest_value, write_provenance
from pipeline.schema import DENOISING
from pipeline.stages.denoise import denoise
from pipeline.stages.ledger import write_ledger
from pipeline.stages.meta import run_meta
from pipeline.stages.meta.collect import count_failed
from pipeline.stages.meta.groups import assign_groups
from pipeline.stages.meta.tasks import MetaTask, check_genes, plan_tasks
from pipeline.stages.score_statistics import bound_batch, compute_score_statistics, plan_batches

Floats = NDArray[np.float64]
STAGES = ("predict", "denoise", "score-statistics", "meta", "report")
log = logging.getLogger("locomass")

#: ``progress(title, total)`` gives a function to call after each step; total None: no steps are known.
Progress = Callable[[str, int | None], Any]


@contextmanager
def no_progress(title: str, total: int | None) -> Iterator[Callable[[], None]]:
    """Show nothing."""
    yield lambda: None


@dataclass
class Resources:
    """How a run uses the machine.

    Attributes:
        workers: local worker processes; 0 for threads of this process.
        threads: threads of the one process; all cores when None.
        progress: how progress is shown.
        cluster: a file of configs/cluster, a scheduler's address or its scheduler file.
        memory: memory of the process, or of each local worker, such as ``4 GB``; batches are sized by it.
    """

    workers: int = 0
    threads: int | None = None
    progress: Progress = no_progress
    cluster: str | None = None
    memory: str | None = None

    def open(self) -> AbstractContextManager[Executor]:
        """Give the executor."""
        return open_executor(self.workers, self.threads, self.cluster, self.memory)


@dataclass
class StudyRun:
    """One `locomass run`: configuration, inputs opened on demand, stages.

    Attributes:
        config: the configuration.
        folder: folder of the configuration file, which its paths are relative to.
        directory: the output directory.
        executor: where tasks run.
        progress: how progress is shown.
    """

    config: RunConfig
    folder: Path
    directory: RunDirectory
    executor: Executor
    progress: Progress = no_progress

    @cached_property
    def cohort(self) -> Cohort:
        """Samples, traits and covariates."""
        return open_cohort(self.config, self.folder)

    @cached_property
    def catalogue(self) -> Catalogue:
        """Genes and masks."""
        return open_catalogue(self.config.genes, self.folder)

    @cached_property
    def found(self) -> StudyVariants:
        """Where the genes' variants are in the fileset."""
        return locate_variants(self.catalogue, self.cohort.fileset.variants)

    @property
    def out(self) -> Path:
        """The output directory, absolute for the workers."""
        return self.directory.path.absolute()

    @cached_property
    def cohort_digest(self) -> str:
        """Digest of the analysed samples, phenotypes and covariates."""
        c = self.cohort
        covariates = {k: v.tolist() for k, v in c.covariates.items()}
        return digest_value(
            [c.labels.tolist(), c.rows.tolist(), [(t.name, t.kind) for t in c.traits], c.y.tobytes().hex(), covariates]
        )

    @cached_property
    def predict_digest(self) -> str:
        """Digest of everything the LOCO prediction depends on."""
        p = self.config.predictor
        if p.method == "none":
            return digest_value(["predict", "none"])
        inputs = self.directory.digest_inputs(_predictor_files(p, self.folder))
        chromosomes = sorted(map(str, self.cohort.fileset.variants["chromosome"].unique()))
        options = [msgspec.to_builtins(p), chromosomes]
        return self.directory.stage_digest("predict", inputs, options, self.cohort_digest)

    @cached_property
    def denoise_digest(self) -> str:
        """Digest of everything the null models depend on."""
        role = self.config.predictor.role
        return self.directory.stage_digest("denoise", {}, role, self.predict_digest, self.cohort_digest)

    @cached_property
    def score_digest(self) -> str:
        """Digest of everything the bundle depends on."""
        inputs = self.directory.digest_inputs(self.cohort.fileset.paths)
        f = self.found
        variants = digest_value([f.row.tolist(), f.alt.tolist(), f.members.tolist(), f.offsets.tolist()])
        genes = digest_value([self.catalogue.sets.gene.tolist(), self.catalogue.sets.chromosome.tolist()])
        if self.config.score_statistics.modes or self.config.score_statistics.calibrate == "spa":  # masks count then
            genes = digest_value([genes, self.catalogue.masks, self.catalogue.member.tolist()])
        options = [
            msgspec.to_builtins(self.config.score_statistics), self.config.study, self.config.genome_build,
            self.config.predictor.method,
        ]  # fmt: skip
        return self.directory.stage_digest("score_statistics", inputs, options, self.denoise_digest, variants, genes)

    @cached_property
    def batch_bytes(self) -> int:
        """Packed bytes of a batch that the memory of a task allows."""
        c = self.cohort
        designs = {
            t.name if t.kind == "binary" else np.isfinite(y).tobytes() for t, y in zip(c.traits, c.y.T, strict=True)
        }
        n_columns = 3 * len(c.traits) + len(designs) * (1 + sum(map(_n_columns, c.covariates.values())))
        return bound_batch(self.executor.task_memory, len(c.rows), n_columns)

    @cached_property
    def kept_folder(self) -> Path:
        """Folder of what depends on genotypes, samples and genes only: new predictions leave it as it is."""
        f, c, options = self.found, self.cohort, self.config.score_statistics
        inputs = self.directory.digest_inputs(c.fileset.paths)
        members = digest_arrays(f.row, f.a1_is_alt, f.members, f.offsets, c.rows)
        genes = digest_value(
            [self.catalogue.sets.chromosome.tolist(), options.missing, options.max_maf, self.batch_bytes]
        )
        return self.directory.parts_folder(
            "genotypes", self.directory.stage_digest("genotypes", inputs, members, genes)
        )

    def run_predict(self) -> xr.DataArray | None:
        """LOCO predictions of the cohort, or None without a predictor."""
        if self.config.predictor.method == "none":
            return None
        digest = self.predict_digest
        store = self.out / "predict" / "loco_prediction.zarr"
        if self.directory.is_done("predict", digest):
            log.info("predict: up to date")
            return read_array(store, "loco_prediction")
        from pipeline.stages.predict import predict  # brings scikit-learn: only where something is predicted

        with self._timed("predict"), self.progress("predict", None):
            prediction = predict(
                self.config.predictor, self.folder, self.cohort, self.out, self.executor, self.config.genome_build
            )
        assert prediction is not None
        for message in prediction.messages:
            log.warning(message)
        for trait, record in prediction.record.items():
            log.info("predict: trait %s: %s", trait, _brief(record))
        self.directory.finish("predict", digest, ["predict"])
        return prediction.loco

    def run_denoise(self) -> NullModels:
        """Null models of all traits."""
        digest = self.denoise_digest
        if self.directory.is_done("denoise", digest):
            log.info("denoise: up to date")
            return read_null_models(self.out / "denoise", self.cohort.labels)
        loco = self.run_predict()
        with self._timed("denoise"):
            models = denoise(self.cohort, loco, self.config.predictor.role, self.out)
        self.directory.finish("denoise", digest, ["denoise", "null_models.tsv"])
        return models

    def run_score_statistics(self) -> Path:
        """The study bundle."""
        digest = self.score_digest
        bundle = self.out / "bundle"
        if self.directory.is_done("score_statistics", digest):
            log.info("score statistics: up to date")
            return bundle
        models = self.run_denoise()
        parts = self.directory.parts_folder("score_statistics", digest_value([digest, self.batch_bytes]))
        options, name = self.config.score_statistics, self.config.study
        tasks = plan_batches(
            self.cohort, self.catalogue, self.found, options, parts, self.kept_folder, name, self.batch_bytes
        )
        self.directory.begin("score_statistics", parts, ("genes", "variants"), len(tasks))
        study = {
            "study": self.config.study,
            "genome_build": self.config.genome_build,
            "predictor": self.config.predictor.method,
        }
        with self._timed("score statistics"), self.progress("score statistics", len(tasks)) as done:
            compute_score_statistics(
                self.cohort, tasks, self.found, models, options, study, parts, self.out / "denoise", bundle,
                self.executor, digest, self.kept_folder, done,
            )  # fmt: skip
        self.directory.finish("score_statistics", digest, ["bundle", "denoise", "null_models.tsv"])
        self.directory.parts_folder("score_statistics", "none")
        return bundle

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        """Log how long a stage took."""
        start = time.perf_counter()
        yield
        log.info("%s: %.1f s", name, time.perf_counter() - start)


def _brief(record: Mapping[str, Any]) -> str:
    """Return the numbers of a predictor record that belong in the log."""
    names = ("method", "variants", "reference_covered", "coverage", "h2", "r2_promised")
    parts = []
    for name in names:
        if name in record:
            value = record[name]
            parts.append(f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}")
    return ", ".join(parts)


def _n_columns(covariate: NDArray[Any]) -> int:
    """Return the columns that a covariate takes in a design: levels of a categorical one, less the first."""
    return 1 if covariate.dtype.kind == "f" else max(1, len(np.unique(covariate.astype(str))) - 1)


@dataclass(frozen=True)
class Outcome:
    """The output directory of a run and the number of genes that failed (their rows say why)."""

    path: Path
    failed: int


def _check_tests(config: RunConfig | MetaConfig, config_path: Path) -> None:
    """Raise ConfigError, before anything is computed, when a test or a set of weights is unknown."""
    try:
        check_tests(config.tests.names)
        for scheme in config.tests.weights:
            parse_weights(scheme)
    except ConfigError as error:
        raise ConfigError(f"{config_path}, key tests: {error}") from None


def _check_columns(catalogue: Catalogue, config: RunConfig | MetaConfig) -> None:
    """Raise ConfigError when weights name an annotation column that the annotations lack."""
    for scheme in config.tests.weights:
        kind, _, column = scheme.partition(":")
        if kind == "annotation" and column not in catalogue.columns:
            raise ConfigError(
                f"key tests.weights: the annotations have no numeric column '{column}'"
                f"{suggest(column, catalogue.columns)}"
            )


def run_study(
    config_path: Path, out: Path | None, resources: Resources, upto: str = "report", folder: Path | None = None
) -> Outcome:
    """Run a study up to a stage.

    Args:
        config_path: the configuration file.
        out: output directory; the configuration's ``output`` when None.
        resources: workers, threads, progress.
        upto: last stage to run, one of `STAGES`.
        folder: what the paths of the configuration are relative to; its own folder when None.
    """
    started = time.time()
    config = load_config(config_path, RunConfig)
    _check_tests(config, config_path)
    directory, failed = RunDirectory(out or Path(config.output)), 0
    with directory.lock(), log_to(directory.path), resources.open() as executor:
        _announce(executor, config_path, directory.path)
        folder = (folder or config_path.parent).resolve()
        run = StudyRun(config, folder, directory, executor, resources.progress)
        _check_columns(run.catalogue, config)
        _log_inputs(run)
        last = STAGES.index(upto)
        if last == 0:
            run.run_predict()
        elif last == 1:
            run.run_denoise()
        elif last >= 2:
            bundle = run.run_score_statistics()
            if last >= 3:
                genes = _Genes(run.catalogue, config.genes, config.maf, run.folder)
                failed = _run_tests(directory, [bundle], genes, config.tests, executor, resources.progress, last >= 4)
        write_provenance(
            directory.path / "provenance.json", configuration=msgspec.to_builtins(config),
            inputs={p: e["digest"] for p, e in directory.files.items()}, stages=directory.stages, started=started,
        )  # fmt: skip
        directory.save()
    return Outcome(directory.path, failed)


def run_meta_analysis(
    config_path: Path, studies: Sequence[Path], out: Path | None, resources: Resources, upto: str = "report"
) -> Outcome:
    """Combine study bundles.

    Args:
        config_path: the configuration file.
        studies: bundles; they replace the configuration's list when any is given.
        out: output directory; the configuration's ``output`` when None.
        resources: workers, threads, progress.
        upto: ``meta`` or ``report``.
    """
    started = time.time()
    config = load_config(config_path, MetaConfig)
    _check_tests(config, config_path)
    folder = config_path.resolve().parent
    bundles = list(studies) or [find_bundle(name, folder, config_path) for name in config.studies]
    if not bundles:
        raise ConfigError(f"{config_path}: key studies: no study bundle is named; list them, or give --study")
    directory = RunDirectory(out or Path(config.output))
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="locomass-")))
        opened = check_bundles(bundles, scratch)
        try:
            groups = assign_groups(config.groups, [bundle.study for bundle in opened])
        except ConfigError as error:
            raise ConfigError(f"{config_path}, {error}") from None
        bundles = [bundle.path for bundle in opened]
        stack.enter_context(directory.lock())
        stack.enter_context(log_to(directory.path))
        executor = stack.enter_context(resources.open())
        _announce(executor, config_path, directory.path)
        catalogue = open_catalogue(config.genes, folder)
        _check_columns(catalogue, config)
        genes = _Genes(catalogue, config.genes, config.maf, folder, groups)
        failed = _run_tests(directory, bundles, genes, config.tests, executor, resources.progress, upto == "report")
        write_provenance(
            directory.path / "provenance.json", configuration=msgspec.to_builtins(config),
            inputs={p: e["digest"] for p, e in directory.files.items()}, stages=directory.stages, started=started,
        )  # fmt: skip
        directory.save()
    return Outcome(directory.path, failed)


def find_bundle(name: str, folder: Path, config_path: Path) -> Path:
    """Return a bundle named in a configuration: beside the file, or else below the working directory.

    Raises:
        BundleError: it is in neither place.
    """
    places = [folder / name, Path(name)]
    for place in places:
        if (place / "study.json").exists() or (place.is_file() and place.suffix == ".tar"):
            return place
    raise BundleError(
        f"{config_path}: no study bundle {name}: looked for {' and '.join(f'{p}/study.json' for p in places)}; "
        f"run the study first (locomass run STUDY.yaml --out {Path(name).parent}), or give --study"
    )


def check_bundles(paths: Sequence[Path], scratch: Path | None = None) -> list[Bundle]:
    """Open bundles, which may come from strangers, and check that they can be combined.

    Args:
        paths: bundle folders, or .tar files of them.
        scratch: where .tar files are unpacked.

    Raises:
        BundleError: a bundle is damaged or unsafe, a study stands twice, or genome builds differ.
    """
    bundles = [open_bundle(path, scratch) for path in paths]
    seen: dict[str, Path] = {}
    for bundle in bundles:
        if bundle.study in seen:
            raise BundleError(
                f"study '{bundle.study}' stands twice: {seen[bundle.study]} and {bundle.path}; give each study once"
            )
        seen[bundle.study] = bundle.path
    builds = {b.info.get("genome_build"): b.study for b in bundles if b.info.get("genome_build")}
    if len(builds) > 1:
        text = ", ".join(f"{study} is on {build}" for build, study in builds.items())
        raise BundleError(f"studies are on different genome builds: {text}; lift one over before computing its bundle")
    return bundles


@dataclass(frozen=True)
class _Genes:
    """What is tested: the catalogue, and which frequency decides."""

    catalogue: Catalogue
    options: Any
    maf: Any
    folder: Path
    groups: tuple[str, ...] = ()

    @cached_property
    def external(self) -> Floats | None:
        """External ALT frequency of every listed variant; None under the other policies."""
        if not isinstance(self.maf, ExternalMaf):
            return None
        c = self.catalogue
        if c.is_regions:
            raise ConfigError("key maf: external frequencies need listed variants (genes: sets or groups), not regions")
        table = read_frequencies(self.folder / self.maf.external)
        known = dict(zip(table.variant.tolist(), table.frequency.tolist(), strict=True))
        keys = zip(c.chromosome, c.position, c.ref, c.alt, strict=True)
        out = np.array([_external_frequency(known, *key) for key in keys])
        if np.isnan(out).all():
            raise MatchError(f"{table.path}: none of the {len(out):,} variants of {c.what} has a frequency there")
        return out

    @property
    def policy(self) -> str:
        """``joint``, ``study`` or ``external``."""
        return "external" if isinstance(self.maf, ExternalMaf) else str(self.maf)

    @property
    def digest(self) -> str:
        """Digest of genes, masks, annotations and frequencies."""
        c = self.catalogue
        columns = {k: v.tolist() for k, v in c.columns.items()}
        external = None if self.external is None else self.external.tolist()
        keys = [c.chromosome.tolist(), c.position.tolist(), c.ref.tolist(), c.alt.tolist(), c.sets.offsets.tolist()]
        region = [c.sets.start.tolist(), c.sets.end.tolist(), c.sets.gene.tolist(), c.sets.chromosome.tolist()]
        rest = [part for part in (c.pathways, self.groups) if part]
        return digest_value([keys, region, c.masks, c.member.tolist(), columns, self.policy, external, *rest])


def _external_frequency(known: Mapping[str, float], chromosome: str, position: int, ref: str, alt: str) -> float:
    """Return the ALT frequency of a variant, listed with its alleles in either order; NaN when absent."""
    key = f"{chromosome}:{position}:{ref}:{alt}"
    if key in known:
        return known[key]
    swapped = known.get(f"{chromosome}:{position}:{alt}:{ref}")
    return float("nan") if swapped is None else 1 - swapped


def _run_tests(
    directory: RunDirectory,
    bundles: Sequence[Path],
    genes: _Genes,
    tests: Any,
    executor: Executor,
    progress: Progress,
    with_report: bool,
) -> int:
    """Run the meta stage and the report, unless they are up to date; return the number of genes that failed."""
    failed = 0
    inputs = {str(b): digest_value(directory.digest_inputs([b])[str(b)]) for b in bundles}
    digest = directory.stage_digest("meta", inputs, msgspec.to_builtins(tests), genes.digest)
    outputs = ["gene_tests.parquet", "gene_tests.tsv.gz", "single_variants.parquet", "mask_audit.tsv"]
    if directory.is_done("meta", digest):
        log.info("meta: up to date")
        failed = count_failed(directory.path / "gene_tests.parquet")
    else:
        start = time.perf_counter()
        parts = directory.parts_folder("meta", digest)
        resolved = [b.resolve() for b in bundles]
        check_genes(genes.catalogue, [Bundle(b) for b in resolved])
        tasks: list[MetaTask] = plan_tasks(
            genes.catalogue, resolved, tests, genes.policy, genes.external, parts, genes.groups
        )
        directory.begin("meta", parts, ("tests", "variants", "audit"), len(tasks))
        with progress("gene tests", len(tasks)) as done:
            failed = run_meta(tasks, directory.path, executor, done, genes.catalogue.pathways)
        write_ledger([Bundle(b) for b in resolved], directory.path / DENOISING.name)
        if failed:
            log.warning("%d genes failed: the note of their rows says why", failed)
        directory.finish("meta", digest, outputs)
        directory.parts_folder("meta", "none")
        log.info("gene tests: %.1f s", time.perf_counter() - start)
    if with_report:
        from pipeline.report.page import write_report

        report = directory.stage_digest("report", {}, None, digest)
        if not directory.is_done("report", report):
            write_report(directory.path, [b.resolve() for b in bundles])
            directory.finish("report", report, ["report.html"])
    return failed


def _announce(executor: Executor, config: Path, out: Path) -> None:
    """Log where the run reads, writes and computes."""
    log.info("configuration %s, results in %s", config, out)
    link = dashboard_link(executor)
    if link:
        log.info("Dask dashboard: %s", link)


def _log_inputs(run: StudyRun) -> None:
    """Log samples, traits and variants, and what was dropped."""
    for line in describe_inputs(run):
        log.info(line)


def describe_inputs(run: StudyRun) -> list[str]:
    """Return what a study's inputs hold: samples kept and dropped, traits, variants matched."""
    c, found, sets = run.cohort, run.found, run.catalogue.sets
    lines = [f"samples: {len(c.rows):,} of {c.fileset.n_samples:,} in the .fam are analysed"]
    lines += [f"  dropped, {reason}: {count:,}" for reason, count in c.drops.items()]
    for k, trait in enumerate(c.traits[:20]):
        observed = np.isfinite(c.y[:, k])
        cases = f", {int(np.nansum(c.y[:, k])):,} cases" if trait.kind == "binary" else ""
        lines.append(f"trait {trait.name} ({trait.kind}): {int(observed.sum()):,} samples{cases}")
    if len(c.traits) > 20:
        lines.append(f"  and {len(c.traits) - 20} further traits")
    lines.append(f"covariates: {', '.join(['intercept', *c.covariates])}")
    keys = run.catalogue.sets.variants
    listed = 0 if keys is None else len(set(keys.tolist()))
    of = f" of {listed:,} listed" if listed else ""
    lines.append(f"variants: {len(found.row):,}{of} are in the fileset of {c.fileset.n_variants:,}")
    without = int((np.diff(found.offsets) == 0).sum())
    lines.append(f"genes: {len(sets):,}; masks: {', '.join(run.catalogue.masks)}")
    if without:
        lines.append(f"  {without:,} genes have no variant in the fileset")
    return lines


def check_study(config_path: Path, out: Path | None) -> list[str]:
    """Validate the inputs of a study and return the plan, computing nothing.

    Everything that `run_study` reads is opened, except summary statistics and LOCO files, which must exist.
    """
    config = load_config(config_path, RunConfig)
    _check_tests(config, config_path)
    folder = config_path.resolve().parent
    with open_executor() as executor:
        run = StudyRun(config, folder, RunDirectory(out or Path(config.output)), executor)
        _check_columns(run.catalogue, config)
        lines = describe_inputs(run)
        for path in _predictor_files(config.predictor, folder):
            if not path.exists():
                raise ConfigError(f"{config_path}: key predictor: no such file: {path}")
        chosen = np.isfinite(run.cohort.y).any(axis=1)
        X, names = run.cohort.design(chosen)
        tasks = plan_batches(run.cohort, run.catalogue, run.found, config.score_statistics, Path("."), Path("."))
        largest = max((len(t.rows) for t in tasks), default=0) * run.cohort.fileset.beds[0].row_bytes
        columns = len(names) + 2 * len(run.cohort.traits)
        memory = len(chosen) * columns * 8 * (2 if config.predictor.method != "none" else 1) + 3 * largest
        lines.append(f"design: {X.shape[1]} columns ({', '.join(names[:8])}{', ...' if len(names) > 8 else ''})")
        used = "" if config.predictor.method == "none" else f", used as {config.predictor.role}"
        lines.append(f"predictor: {config.predictor.method}{used}")
        lines.append(f"tests: {', '.join(config.tests.names)}; bins {', '.join(map(str, config.tests.max_maf))}")
        lines.append(f"plan: {len(tasks)} batches; about {max(memory, 1) / 2**20 + 250:,.0f} MB of memory")
    return lines


def _predictor_files(p: Predictor, folder: Path) -> list[Path]:
    """Return every file that the predictor section names, filesets file by file."""
    files: list[Path] = []
    for name in {x for x in (p.genotypes, p.ld_reference) if x}:
        if (folder / name).is_dir():  # published LD
            files.append(folder / name)
            continue
        for chromosome in ["", *map(str, range(1, 27))] if "{chrom}" in name else [""]:
            bed = folder / name.replace("{chrom}", chromosome)
            if (chromosome == "" and "{chrom}" in name) or (chromosome and not bed.with_suffix(".bed").exists()):
                continue
            files += [bed.with_suffix(suffix) for suffix in (".bed", ".bim", ".fam")]
    for table in (p.summary_statistics, p.loco, p.weights):
        files += [folder / x for x in ([table] if isinstance(table, str) else table.values())]
    files += [folder / name for name in (p.chain_file, p.gwas_samples) if name]
    if isinstance(p.loco, str) and p.loco:
        files += list(read_prediction_list(folder / p.loco).values())
    for part in p.stack:
        files += _predictor_files(part, folder)
    return sorted(set(files))


@contextmanager
def log_to(folder: Path) -> Iterator[None]:
    """Also write the log to ``locomass.log`` in the output directory."""
    try:
        handler = logging.FileHandler(folder / "locomass.log", encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write {error.filename}: {error.strerror}") from None
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)
    log.setLevel(min(log.level or logging.INFO, logging.INFO))
    try:
        yield
    finally:
        log.removeHandler(handler)
        handler.close()


def rewrite_report(results: Path) -> Path:
    """Write report.html again from the tables of a results directory."""
    from pipeline.report.page import write_report

    if not (results / "gene_tests.parquet").exists():
        raise ConfigError(f"{results} has no gene_tests.parquet; give a folder that `locomass run` or `meta` left")
    inputs = json.loads((results / "provenance.json").read_text(encoding="utf-8"))["inputs"]
    bundles = [Path(path).parent for path in inputs if Path(path).name == "study.json"]
    own = results / "bundle"
    return write_report(results, [own] if own.exists() else [b for b in bundles if b.exists()])


def run_demo(out: Path, seed: int, resources: Resources) -> Outcome:
    """Simulate two studies into ``out/data``, run both and combine them; return the outcome of the consortium."""
    from pipeline.simulate.study import simulate_demo

    log.info("simulating two studies in %s", out / "data")
    simulate_demo(out / "data", seed=seed)
    bundles = []
    for name in ("study1", "study2"):
        where = run_study(out / "data" / f"{name}.yaml", out / "results" / name, resources)
        bundles.append(where.path / "bundle")
    return run_meta_analysis(out / "data" / "consortium.yaml", bundles, out / "results" / "consortium", resources)


def run_conditional_analysis(
    config_path: Path, studies: Sequence[Path], index: Sequence[str] | Literal["auto"], max_p: float, out: Path
) -> Path:
    """Test genes given index variants, from study bundles; return the table's path.

    Args:
        config_path: configuration as for `run_meta_analysis`.
        studies: bundles; they replace the configuration's list when any is given.
        index: index variants as chromosome:position:ref:alt, or ``auto`` for stepwise selection.
        max_p: p of entry for ``auto``.
        out: output directory.
    """
    from pipeline.stages.conditional import run_conditional

    config = load_config(config_path, MetaConfig)
    _check_tests(config, config_path)
    folder = config_path.resolve().parent
    bundles = list(studies) or [find_bundle(name, folder, config_path) for name in config.studies]
    check_bundles(bundles)
    directory = RunDirectory(out)
    with directory.lock():
        maf: Literal["joint", "study"] = "study" if config.maf == "study" else "joint"
        return run_conditional(bundles, open_catalogue(config.genes, folder), config.tests, index, out, maf, max_p)
