"""`locomass check`: everything that a run would read is opened, the plan is made, nothing is computed."""

from __future__ import annotations

import logging
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from locomass.commands.meta import name_bundles, open_consortium
from locomass.commands.study import StudyRun
from locomass.commands.study_inputs import describe_inputs, read_inputs
from locomass.commands.tested_genes import TestedGenes, check_columns, check_named_tests
from locomass.config import MetaConfig, RunConfig, load_config, read_keys
from locomass.denoise import check_residuals, find_loco_rows
from locomass.errors import ConfigError
from locomass.executors import open_executor
from locomass.meta.inspect import refuse_errors
from locomass.run.directory import RunDirectory
from locomass.run.inputs import predictor_files
from locomass.scores import plan_batches

log = logging.getLogger("locomass")


@dataclass(frozen=True)
class Checked:
    """What `locomass check` found: lines for people, and the same for machines."""

    lines: list[str]
    record: dict[str, Any]


def check_study(config_path: Path, out: Path | None) -> Checked:
    """Validate the inputs of a study, or of a meta-analysis, and return the plan, computing nothing.

    Everything that `run_study` reads is opened; of summary statistics the first block is read.
    """
    if is_consortium(config_path):
        return check_consortium(config_path)
    config = load_config(config_path, RunConfig)
    check_named_tests(config, config_path)
    folder = config_path.resolve().parent
    with open_executor() as executor:
        run = StudyRun(config, folder, RunDirectory(out or Path(config.output)), executor)
        check_columns(run.catalogue, config)
        run.read_strata()
        _read_frequencies(TestedGenes(run.catalogue, config.tests, config.maf, folder))
        inputs = read_inputs(run)
        for path in predictor_files(config.predictor, folder):
            if not path.exists():
                raise ConfigError(f"{config_path}: key predictor: no such file: {path}")
        for message in check_residuals(run.cohort):
            log.warning(message)
        _check_predictor(run)
        chosen = np.asarray(np.isfinite(run.cohort.y).any(axis=1))
        X, names = run.cohort.design(chosen)
        tasks = plan_batches(
            run.cohort,
            run.catalogue,
            run.found,
            run.score_options,
            folder=Path("."),
            kept=Path("."),
            bound=run.batch_bound,
        )
        cost = run.cohort.fileset.cost(run.found.row)
        largest = max((float(cost.carriers[t.variants].sum()) for t in tasks), default=0.0)
        columns = len(names) + 2 * len(run.cohort.traits)
        memory = len(chosen) * columns * 8 * (2 if config.predictor.method != "none" else 1) + 48 * largest
        megabytes = round(max(memory, 1) / 2**20 + 250)
    used = "" if config.predictor.method == "none" else f", used as {config.predictor.role}"
    lines = describe_inputs(inputs)
    lines.append(f"design: {X.shape[1]} columns ({', '.join(names[:8])}{', ...' if len(names) > 8 else ''})")
    lines.append(f"predictor: {config.predictor.method}{used}")
    lines.append(f"tests: {', '.join(config.tests.names)}; bins {', '.join(map(str, config.tests.max_maf))}")
    lines.append(f"plan: {len(tasks)} batches; about {megabytes:,} MB of memory")
    plan = {"design": list(names), "predictor": config.predictor.method, "batches": len(tasks), "megabytes": megabytes}
    return Checked(lines, {**inputs, **plan})


def _check_predictor(run: StudyRun) -> None:
    """Open the files of the predictor, and log what is worth a warning.

    Raises:
        InputError: what a run would stop at.
    """
    if run.config.predictor.method == "none":
        return
    from locomass.predict.preview import check_predictor  # brings scikit-learn

    options, build = run.config.predictor, run.config.genome_build
    present = sorted(map(str, run.cohort.fileset.variants["chromosome"].unique()))

    def needs_rows(loco: xr.DataArray) -> None:
        find_loco_rows(loco, present, run.needed)

    for message in check_predictor(options, run.folder, run.cohort, build, needs_rows):
        log.warning(message)


def _read_frequencies(genes: TestedGenes) -> None:
    """Read the file of external frequencies and singletons, where there is one.

    Raises:
        InputError: what a run would stop at.
    """
    _ = genes.external, genes.singleton


def is_consortium(config_path: Path) -> bool:
    """Return whether a configuration is one of `locomass meta`: it has keys of bundles, and none of a cohort."""
    keys = read_keys(config_path)
    return bool(keys & {"studies", "groups"}) and not keys & {"genotypes", "phenotypes"}


def check_consortium(config_path: Path) -> Checked:
    """Validate the bundles and genes of a meta-analysis.

    Raises:
        BundleError: a bundle is refused, or `locomass meta` would stop at what was found.
    """
    config = load_config(config_path, MetaConfig)
    check_named_tests(config, config_path)
    paths = name_bundles(config, config_path)
    with tempfile.TemporaryDirectory() as scratch:
        bundles, genes, findings = open_consortium(config, config_path, paths, Path(scratch))
        refuse_errors(findings, ())
    _read_frequencies(genes)
    lines = [f"study {b.study}: {b.variant_file.num_rows:,} variants, traits {', '.join(b.traits)}" for b in bundles]
    lines.append(f"genes: {len(genes.catalogue.sets):,}; masks: {', '.join(genes.catalogue.masks)}")
    lines.append(f"tests: {', '.join(config.tests.names)}; bins {', '.join(map(str, config.tests.max_maf))}")
    lines += [str(finding) for finding in findings]
    record = {"studies": [b.study for b in bundles], "findings": [asdict(finding) for finding in findings]}
    return Checked(lines, record)
