"""Stages of `locomass run` on the reference data set, one thread, and whole runs in a new process."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import dask  # noqa: F401 - the executor imports it when there is more than one task, and the tiny study has one
import numpy as np
import pyarrow.parquet as pq

from benchmarks.cases.base import Case
from benchmarks.cases.genotypes import null_model
from benchmarks.data import SAMPLES, VARIANTS
from benchmarks.measure import ROOT, Result, run_command
from locomass.commands.outcome import Resources
from locomass.commands.run import run_study
from locomass.commands.study import StudyRun
from locomass.config import RunConfig, load_config
from locomass.genotypes.fileset import open_fileset
from locomass.genotypes.packed import decode_dosage
from locomass.meta import run_meta
from locomass.meta.tasks import plan_tasks
from locomass.run.directory import RunDirectory
from locomass.tables.catalogue import open_catalogue

GENES_CHECKED = 20


def score_stage(config: Path, out: Path) -> Callable[[], Result]:
    """The score statistics stage: inputs opened and null models fitted before, the bundle written at the end."""
    shutil.rmtree(out, ignore_errors=True)
    resources = Resources(threads=1)

    def run() -> Result:
        study.run_score_statistics()
        return {}

    with resources.open() as executor:
        study = StudyRun(load_config(config, RunConfig), config.parent, RunDirectory(out), executor)
        study.run_denoise()
        _ = study.found, study.catalogue, study.score_digest, study.kept_folder
    return run


def test_stage(config: Path, bundle: Path, out: Path) -> Callable[[], Result]:
    """The gene test stage on a bundle: tables written at the end."""
    options = load_config(config, RunConfig)
    catalogue = open_catalogue(options.genes, config.parent)
    shutil.rmtree(out, ignore_errors=True)
    resources = Resources(threads=1)

    def run() -> Result:
        out.mkdir(parents=True)
        tasks = plan_tasks(catalogue, [bundle], options.tests, "joint", None, out)
        with resources.open() as executor:
            failed = run_meta(tasks, out, executor)
        assert failed == 0
        return {}

    return run


def check_tests(table: Path, config: Path, bed: Path) -> None:
    """Compare burden and SKAT statistics of some genes with dense matrices from their definitions.

    Raises:
        AssertionError: a statistic differs by more than 1e-8.
    """
    rows = pq.read_table(table).to_pandas()
    rows = rows[(rows["trait"] == "y1") & (rows["mask"] == "M3")].set_index(["gene", "weights", "test"])["statistic"]
    fileset, (residual, Q, sigma2) = open_fileset(bed), null_model(bed)
    sets = open_catalogue(load_config(config, RunConfig).genes, config.parent).sets
    assert len(rows), "no rows to check"
    for g in range(min(GENES_CHECKED, len(sets))):
        low, high = int(sets.offsets[g]), int(sets.offsets[g + 1])
        dosage = np.empty((high - low, fileset.n_samples), np.float32)
        everyone = np.arange(fileset.n_samples, dtype=np.int32)
        decode_dosage(fileset.select(np.arange(low, high)).packed(), everyone, fileset.n_samples, dosage)
        G = dosage.T.astype(float)
        maf = G.mean(axis=0) / 2
        G = G[:, (maf > 0) & (maf <= 0.01)]
        if not G.shape[1]:
            continue
        U, B = G.T @ residual[:, 0] / sigma2[0], Q.T @ G
        w = 25.0 * (1.0 - G.mean(axis=0) / 2) ** 24
        burden = U.sum() ** 2 / ((G.T @ G - B.T @ B).sum() / sigma2[0])
        gene = sets.gene[g]
        if (gene, "flat", "burden") in rows.index:
            np.testing.assert_allclose(rows[gene, "flat", "burden"], burden, rtol=1e-8)
        scale = rows[gene, "beta_1_25", "skat"] / (w**2 @ U**2)
        # the stage may leave U in units of the residuals: a common factor 1 or sigma2
        assert min(abs(scale - 1.0), abs(scale / sigma2[0] ** 2 - 1.0)) < 1e-8, (gene, scale)


def prepare_scores(name: str, folder: Path) -> Callable[[], Result]:
    """Compile on the tiny study, then the score statistics stage of a data set."""
    with tempfile.TemporaryDirectory() as scratch:
        score_stage(folder / "tiny-plain.yaml", Path(scratch) / "out")()
    return score_stage(folder / f"{name}-plain.yaml", folder / f"out-{name}-scores")


def find_bundle(folder: Path, name: str) -> Path:
    """Return the bundle of a data set, made when it is not there."""
    out = folder / f"out-{name}"
    if not (out / "bundle" / "study.json").exists():
        run_study(folder / f"{name}-plain.yaml", out, Resources(threads=1), upto="score-statistics")
    return out / "bundle"


def prepare_tests(name: str, tests: str, folder: Path) -> Callable[[], Result]:
    """Compile on the tiny study, then the gene test stage of a data set; checked against dense matrices."""
    with tempfile.TemporaryDirectory() as scratch:
        test_stage(folder / f"tiny-{tests}.yaml", find_bundle(folder, "tiny"), Path(scratch) / "tests")()
    config, out = folder / f"{name}-{tests}.yaml", folder / f"out-{name}-{tests}"
    bundle = find_bundle(folder, name)
    if not (out / "checked").exists():
        test_stage(config, bundle, out)()
        check_tests(out / "gene_tests.parquet", config, folder / f"{name}.bed")
        (out / "checked").touch()
    # not `out`: what was checked is kept
    return test_stage(config, bundle, folder / f"timed-{name}-{tests}")


def command_line(*arguments: str) -> list[str]:
    """Return the command that runs `locomass` from the checkout."""
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from locomass.cli import main; main()"
    return [sys.executable, "-c", code, *arguments]


def prepare_command(name: str, folder: Path) -> Callable[[], Result]:
    """A whole run in a new process, imports and report included, on two threads."""
    out = folder / f"out-run-{name}"

    def run() -> Result:
        shutil.rmtree(out, ignore_errors=True)
        command = command_line(
            "run", str(folder / f"{name}-plain.yaml"), "--out", str(out), "--threads", "2", "--quiet"
        )
        run_command(command)
        return {}

    if name == "tiny":
        run()  # once more than needed, so that the cache of compiled kernels is filled
    return run


def prepare_help(folder: Path) -> Callable[[], Result]:
    """`locomass --help`."""

    def run() -> Result:
        run_command(command_line("--help"))
        return {}

    run()
    return run


SIZE = f"{SAMPLES:,} x {VARIANTS:,}"
CASES = [
    Case("score statistics, 1 trait", "score statistics", VARIANTS, SIZE, partial(prepare_scores, "reference")),
    Case("score statistics, 5 traits", "score statistics", VARIANTS, SIZE, partial(prepare_scores, "five")),
    Case(
        "burden SKAT ACAT-V ACAT-O, 2 masks, 2 weights", "gene tests", VARIANTS, "1,000 genes of 40",
        partial(prepare_tests, "reference", "plain"),
    ),
    Case(
        "the same, Beta(1, 25) only", "gene tests", VARIANTS, "1,000 genes of 40",
        partial(prepare_tests, "reference", "one-weight"),
    ),
    Case("the same, 5 traits", "gene tests", VARIANTS, "1,000 genes of 40", partial(prepare_tests, "five", "plain")),
    Case(
        "the same, 1 trait, with SKAT-O", "gene tests", VARIANTS, "1,000 genes of 40",
        partial(prepare_tests, "reference", "skat-o"),
    ),
    Case("locomass run", "whole run", VARIANTS, f"{SIZE}, 2 threads", partial(prepare_command, "reference")),
    Case("locomass run, small", "small run", 200, "500 x 200", partial(prepare_command, "tiny")),
    Case("locomass --help", "help", 1, "", prepare_help),
]  # fmt: skip
