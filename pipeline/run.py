"""A study from genotypes to report, and a meta-analysis of bundles: what is run, in what order, under which lock."""

from __future__ import annotations

import json
import logging
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from pipeline.cluster import Executor, dashboard_link, open_executor
from pipeline.config import ExternalMaf, MetaConfig, RunConfig, load_config
from pipeline.errors import BundleError, ConfigError, InputError, MatchError, suggest
from pipeline.gene_tests.registry import check_tests
from pipeline.gene_tests.weights import parse_weights
from pipeline.inputs import gene_files, predictor_files, study_files
from pipeline.io.annotations import read_frequencies
from pipeline.io.bundle import Bundle
from pipeline.io.bundle_open import open_bundle
from pipeline.io.catalogue import Catalogue, open_catalogue
from pipeline.io.mask_variants import write_mask_variants
from pipeline.plan import RunDirectory
from pipeline.provenance import digest_value, write_provenance
from pipeline.schema import DENOISING, MASK_VARIANTS, META_TABLES
from pipeline.stages.ledger import write_ledger
from pipeline.stages.meta import run_meta
from pipeline.stages.meta.collect import count_failed
from pipeline.stages.meta.groups import assign_groups
from pipeline.stages.meta.tasks import MetaTask, check_genes, plan_tasks
from pipeline.stages.score_statistics import plan_batches
from pipeline.study import Progress, StudyRun, no_progress

Floats = NDArray[np.float64]
STAGES = ("predict", "denoise", "score-statistics", "meta", "report")
_LAST = {stage: stage.replace("-", "_") for stage in STAGES}  # as the plan writes them
log = logging.getLogger("locomass")


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
    folder = (folder or config_path.parent).resolve()
    with ExitStack() as stack:
        stack.enter_context(directory.lock())
        stack.enter_context(log_to(directory.path))
        digest = directory.run_digest(msgspec.to_builtins(config), study_files(config, folder))
        last, done = STAGES.index(upto), directory.find_run(digest, _LAST[upto])
        if done is not None:
            log.info("%s: nothing has changed, everything is up to date", directory.path)
            return Outcome(directory.path, done if last >= 3 else 0)
        executor = stack.enter_context(resources.open())
        _announce(executor, config_path, directory.path)
        run = StudyRun(config, folder, directory, executor, resources.progress)
        _check_columns(run.catalogue, config)
        run.read_strata()  # wrong ones are refused before anything is computed
        _log_inputs(run)
        if last == 0:
            run.run_predict()
        elif last == 1:
            run.run_denoise()
        elif last >= 2:
            bundle = run.run_score_statistics()
            if last >= 3:
                failed = run.run_permutation()
                genes = _Genes(run.catalogue, config.genes, config.maf, run.folder)
                failed += _run_tests(directory, [bundle], genes, config.tests, executor, resources.progress, last >= 4)
        write_provenance(
            directory.path / "provenance.json", configuration=msgspec.to_builtins(config),
            inputs={p: e["digest"] for p, e in directory.files.items()}, stages=directory.stages, started=started,
        )  # fmt: skip
        if last >= 3:  # before, nobody knows which genes fail
            directory.finish_run(digest, failed)
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
        stack.enter_context(directory.lock())
        stack.enter_context(log_to(directory.path))
        digest = directory.run_digest(msgspec.to_builtins(config), [*bundles, *gene_files(config, folder)])
        done = directory.find_run(digest, _LAST[upto])
        if done is not None:
            log.info("%s: nothing has changed, everything is up to date", directory.path)
            return Outcome(directory.path, done)
        opened = check_bundles(bundles, scratch)
        try:
            groups = assign_groups(config.groups, [bundle.study for bundle in opened])
        except ConfigError as error:
            raise ConfigError(f"{config_path}, {error}") from None
        bundles = [bundle.path for bundle in opened]
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
        directory.finish_run(digest, failed)
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
    for path in (path for path in paths if path.is_symlink()):
        log.info("%s is a link: %s is read", path, path.resolve())
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
    warn_x_coding(bundles)
    return bundles


def warn_x_coding(bundles: Sequence[Bundle]) -> None:
    """Say in the log that studies code males on chromosome X differently: their scores there have different units."""
    codings = {b.study: b.info["x_coding"] for b in bundles if isinstance(b.info.get("x_coding"), str)}
    if len(set(codings.values())) > 1:
        text = ", ".join(f"{study} {coding}" for study, coding in codings.items())
        log.warning(
            "rows of chromosome X are wrong: males are coded differently (%s); agree on score_statistics.x_coding and "
            "compute the bundles again, other chromosomes are not concerned",
            text,
        )


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
        labels = [c.chromosome, c.position, c.ref, c.alt, c.category, c.sets.offsets]
        keys = [column.tolist() for column in labels]
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
    outputs = ["gene_tests.tsv.gz", *(table.name for table in META_TABLES)]  # some are there for several studies only
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
        write_mask_variants(directory.path / MASK_VARIANTS.name, genes.catalogue, genes.external)
        write_ledger([Bundle(b) for b in resolved], directory.path / DENOISING.name)
        if failed:
            log.warning("%d genes failed: the note of their rows says why", failed)
        directory.finish("meta", digest, outputs)
        directory.parts_folder("meta", "none")
        log.info("gene tests: %.1f s", time.perf_counter() - start)
    if with_report:
        from pipeline.report.burdens import Rules
        from pipeline.report.page import write_report

        searches = directory.stages.get("permutation", {}).get("digest", "")  # of a study, and not of a meta-analysis
        report = directory.stage_digest("report", {}, None, digest, searches)
        if not directory.is_done("report", report):
            directory.forget("report")
            write_report(directory.path, [b.resolve() for b in bundles], rules=Rules(tests, genes.policy))
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
    for line in describe_inputs(read_inputs(run)):
        log.info(line)


def read_inputs(run: StudyRun) -> dict[str, Any]:
    """Return what a study's inputs hold: samples kept and dropped, traits, variants matched, genes."""
    c, found, sets = run.cohort, run.found, run.catalogue.sets
    traits = []
    for trait, y in zip(c.traits, c.y.T, strict=True):
        cases = int(np.nansum(y)) if trait.kind == "binary" else None
        traits.append({"name": trait.name, "kind": trait.kind, "samples": int(np.isfinite(y).sum()), "cases": cases})
    keys = run.catalogue.sets.variants
    return {
        "samples": {"in_fam": c.fileset.n_samples, "analysed": len(c.rows), "dropped": dict(c.drops)},
        "traits": traits,
        "covariates": ["intercept", *c.covariates],
        "variants": {
            "listed": None if keys is None else len(set(keys.tolist())),
            "found": len(found.row),
            "in_fileset": c.fileset.n_variants,
        },
        "genes": len(sets),
        "genes_without_variant": int((np.diff(found.offsets) == 0).sum()),
        "masks": list(run.catalogue.masks),
    }


def describe_inputs(inputs: Mapping[str, Any]) -> list[str]:
    """Return `read_inputs` as lines for people."""
    samples, variants = inputs["samples"], inputs["variants"]
    lines = [f"samples: {samples['analysed']:,} of {samples['in_fam']:,} in the .fam are analysed"]
    lines += [f"  dropped, {reason}: {count:,}" for reason, count in samples["dropped"].items()]
    for trait in inputs["traits"][:20]:
        cases = "" if trait["cases"] is None else f", {trait['cases']:,} cases"
        lines.append(f"trait {trait['name']} ({trait['kind']}): {trait['samples']:,} samples{cases}")
    if len(inputs["traits"]) > 20:
        lines.append(f"  and {len(inputs['traits']) - 20} further traits")
    lines.append(f"covariates: {', '.join(inputs['covariates'])}")
    of = f" of {variants['listed']:,} listed" if variants["listed"] else ""
    lines.append(f"variants: {variants['found']:,}{of} are in the fileset of {variants['in_fileset']:,}")
    lines.append(f"genes: {inputs['genes']:,}; masks: {', '.join(inputs['masks'])}")
    if inputs["genes_without_variant"]:
        lines.append(f"  {inputs['genes_without_variant']:,} genes have no variant in the fileset")
    return lines


@dataclass(frozen=True)
class Checked:
    """What `locomass check` found: lines for people, and the same for machines."""

    lines: list[str]
    record: dict[str, Any]


def check_study(config_path: Path, out: Path | None) -> Checked:
    """Validate the inputs of a study and return the plan, computing nothing.

    Everything that `run_study` reads is opened, except summary statistics and LOCO files, which must exist.
    """
    config = load_config(config_path, RunConfig)
    _check_tests(config, config_path)
    folder = config_path.resolve().parent
    with open_executor() as executor:
        run = StudyRun(config, folder, RunDirectory(out or Path(config.output)), executor)
        _check_columns(run.catalogue, config)
        run.read_strata()
        inputs = read_inputs(run)
        for path in predictor_files(config.predictor, folder):
            if not path.exists():
                raise ConfigError(f"{config_path}: key predictor: no such file: {path}")
        chosen = np.isfinite(run.cohort.y).any(axis=1)
        X, names = run.cohort.design(chosen)
        tasks = plan_batches(
            run.cohort, run.catalogue, run.found, run.score_options, Path("."), Path("."), batch_bytes=run.batch_bytes
        )
        largest = max((len(t.rows) for t in tasks), default=0) * run.cohort.fileset.beds[0].row_bytes
        columns = len(names) + 2 * len(run.cohort.traits)
        memory = len(chosen) * columns * 8 * (2 if config.predictor.method != "none" else 1) + 3 * largest
        megabytes = round(max(memory, 1) / 2**20 + 250)
    used = "" if config.predictor.method == "none" else f", used as {config.predictor.role}"
    lines = describe_inputs(inputs)
    lines.append(f"design: {X.shape[1]} columns ({', '.join(names[:8])}{', ...' if len(names) > 8 else ''})")
    lines.append(f"predictor: {config.predictor.method}{used}")
    lines.append(f"tests: {', '.join(config.tests.names)}; bins {', '.join(map(str, config.tests.max_maf))}")
    lines.append(f"plan: {len(tasks)} batches; about {megabytes:,} MB of memory")
    plan = {"design": list(names), "predictor": config.predictor.method, "batches": len(tasks), "megabytes": megabytes}
    return Checked(lines, {**inputs, **plan})


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


def rewrite_report(results: Path, all_figures: bool = False) -> Path:
    """Write report.html and its figures again from the tables of a results directory; return the page.

    Args:
        results: what `run_study` or `run_meta_analysis` left.
        all_figures: figures of every trait and test in place of the strongest traits' first test.
    """
    from pipeline.report.burdens import Rules
    from pipeline.report.page import write_report

    if not (results / "gene_tests.parquet").exists():
        raise ConfigError(f"{results} has no gene_tests.parquet; give a folder that `locomass run` or `meta` left")
    record = json.loads((results / "provenance.json").read_text(encoding="utf-8"))
    bundles = [Path(path).parent for path in record["inputs"] if Path(path).name == "study.json"]
    own = results / "bundle"
    known = [own] if own.exists() else [b for b in bundles if b.exists()]
    return write_report(results, known, all_figures, Rules.of(record.get("configuration", {})))


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
        groups = assign_groups(config.groups, [Bundle(b).study for b in bundles])
        genes = _Genes(open_catalogue(config.genes, folder), config.genes, config.maf, folder, groups)
        table = run_conditional(
            bundles, genes.catalogue, config.tests, index, out, genes.policy, max_p,
            external=genes.external, studies=groups,
        )  # fmt: skip
    if (out / "gene_tests.parquet").exists() and (out / "provenance.json").exists():
        rewrite_report(out)
    return table
