"""What every command is given and gives: the machine, the log of an output directory, the outcome and its record."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from locomass.commands.study import Progress, no_progress
from locomass.denoise import read_unfit
from locomass.errors import InputError
from locomass.executors import Executor, open_executor
from locomass.run.directory import RunDirectory
from locomass.run.provenance import write_provenance
from locomass.schema import NULL_MODELS

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
    """What a run left.

    Attributes:
        path: the output directory.
        failed: genes that failed; their rows say why.
        unfit: traits that cannot be fitted and are left out, with the reason of each.
    """

    path: Path
    failed: int
    unfit: Mapping[str, str] = field(default_factory=dict)


class _LogFile(logging.FileHandler):
    """A log file that is given up, without a word, where the disk is full: the run says so itself."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Drop the line."""

    def close(self) -> None:
        """Close the file, whether or not its last lines can be written."""
        with suppress(OSError):
            super().close()


@contextmanager
def log_to(folder: Path) -> Iterator[None]:
    """Also write the log to ``locomass.log`` in the output directory."""
    try:
        handler = _LogFile(folder / "locomass.log", encoding="utf-8")
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


def announce(executor: Executor, config: Path, out: Path) -> None:
    """Log where the run reads, writes and computes."""
    log.info("configuration %s, results in %s", config, out)
    if executor.dashboard:
        log.info("Dask dashboard: %s", executor.dashboard)


@contextmanager
def open_output(directory: RunDirectory) -> Iterator[None]:
    """Hold the lock of an output directory and write the log into it, too."""
    with directory.lock(), log_to(directory.path):
        yield


def find_finished(directory: RunDirectory, digest: str, upto: str) -> Outcome | None:
    """Return the outcome of a run whose inputs are those of the last one; None when there is something to do.

    Args:
        directory: the output directory.
        digest: what `RunDirectory.run_digest` says of this run.
        upto: the last stage wanted, as `RunDirectory` names it.
    """
    failed = directory.find_run(digest, upto)
    if failed is None:
        return None
    log.info("%s: nothing has changed, everything is up to date", directory.path)
    return Outcome(directory.path, failed, read_unfit(directory.path / NULL_MODELS.name))


def record_run(directory: RunDirectory, config: Any, started: float) -> None:
    """Write provenance.json: versions, the configuration, digests of inputs and stages."""
    write_provenance(
        directory.path / "provenance.json",
        configuration=msgspec.to_builtins(config),
        inputs={p: e["digest"] for p, e in directory.files.items()},
        stages=directory.stages,
        started=started,
    )
