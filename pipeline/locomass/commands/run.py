"""A study from genotypes to report: what is run, in what order, under which lock."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import msgspec

from locomass.commands.outcome import Outcome, Resources, announce, find_finished, open_output, record_run
from locomass.commands.study import StudyRun
from locomass.commands.study_inputs import log_inputs
from locomass.commands.tested_genes import TestedGenes, check_columns, check_named_tests, run_tests
from locomass.config import RunConfig, load_config
from locomass.denoise import read_unfit
from locomass.run.directory import RunDirectory
from locomass.run.inputs import study_files
from locomass.schema import NULL_MODELS

log = logging.getLogger("locomass")

STAGES = ("predict", "denoise", "score-statistics", "meta", "report")
LAST = {stage: stage.replace("-", "_") for stage in STAGES}  # as the plan writes them


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
    check_named_tests(config, config_path)
    directory, failed = RunDirectory(out or Path(config.output)), 0
    folder = (folder or config_path.parent).resolve()
    with open_output(directory):
        digest = directory.run_digest(msgspec.to_builtins(config), study_files(config, folder))
        last = STAGES.index(upto)
        finished = find_finished(directory, digest, LAST[upto])
        if finished is not None:
            return finished if last >= 3 else Outcome(directory.path, 0, finished.unfit)
        directory.start_reading()
        with resources.open() as executor:
            announce(executor, config_path, directory.path)
            run = StudyRun(config, folder, directory, executor, resources.progress)
            failed = _run_stages(run, last)
            left_out = {u.trait.name: u.reason for u in run.cohort.unfit}
            unfit = left_out if last == 0 else read_unfit(directory.path / NULL_MODELS.name)
        record_run(directory, config, started)
        if last >= 3:  # before, nobody knows which genes fail
            directory.finish_run(digest, failed)
        else:
            directory.stop_reading()
    return Outcome(directory.path, failed, unfit)


def _run_stages(run: StudyRun, last: int) -> int:
    """Run the stages up to number ``last`` of `STAGES`; return the number of genes that failed."""
    check_columns(run.catalogue, run.config)
    run.read_strata()  # wrong ones are refused before anything is computed
    log_inputs(run)
    if last == 0:
        run.run_predict()
    elif last == 1:
        run.run_denoise()
    if last < 2:
        return 0
    bundle = run.run_score_statistics()
    if last < 3:
        return 0
    failed = run.run_permutation()
    genes = TestedGenes(run.catalogue, run.config.tests, run.config.maf, run.folder)
    return failed + run_tests(
        run.directory, [bundle], genes, run.config.tests, run.executor, run.progress, with_report=last >= 4
    )
