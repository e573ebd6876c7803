"""A run by hand, for schedulers without Dask: init, run one batch, list missing ones, finalise.

    init        everything up to the first stage that has batches, which are written down
    run         one batch; any number of them at a time, on any machine that sees the folder
    missing     batches whose parts are not there, or not whole
    finalise    gather the parts; then either the next stage's batches are written down, or the run is done

Array jobs of Slurm, SGE, PBS or LSF, Snakemake and Nextflow can call these. Batches are those of `locomass run`, so the
tables are the same, byte for byte. The file that holds them is a pickle, which is opened only where it was signed here
(`locomass.run.signed`).
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from locomass.commands.outcome import Outcome, Resources
from locomass.commands.run import run_study
from locomass.errors import InputError
from locomass.executors import Executor, ThreadExecutor
from locomass.run.signed import read_signed, write_signed

TASKS = Path("parts") / "tasks.pickle"
ARRAY_LIMIT = 1000  # jobs of an array: Slurm takes numbers below MaxArraySize, 1001 unless the site says otherwise


@dataclass(frozen=True)
class Planned:
    """A stage whose batches wait to be run.

    Attributes:
        path: the output directory.
        total: number of batches, 0 to total - 1.
        missing: those that have not been run.
    """

    path: Path
    total: int
    missing: tuple[int, ...]


def write_array(missing: Sequence[int], limit: int = ARRAY_LIMIT) -> str:
    """Return the jobs that run these batches, in the words of `sbatch --array` and its like: ``0-3,7``.

    Args:
        missing: batches.
        limit: most jobs of an array; job k runs the batches k, k + limit, k + 2 limit, ... 0: no limit.
    """
    runs: list[list[int]] = []
    for number in sorted({number % limit if limit else number for number in missing}):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(f"{low}-{high}" if high > low else str(low) for low, high in runs)


class _PlannedError(Exception):
    """Carries a plan out of a run that stops there."""

    def __init__(self, plan: Planned) -> None:
        super().__init__(plan)
        self.plan = plan


class _PlanExecutor(Executor):
    """Runs what has no batches, and writes batches down instead of running them."""

    def __init__(self, out: Path, threads: int | None) -> None:
        self.out = out
        self.inner = ThreadExecutor(threads)

    def run(
        self, function: Callable[[Any], Any], items: Sequence[Any], done: Callable[[], None] | None = None
    ) -> list[Any]:
        """Run the tasks, unless they are batches of which some are missing."""
        missing = [item.number for item in items if hasattr(item, "is_done") and not item.is_done]
        if not missing:
            return self.inner.run(function, items, done)
        write_signed(self.out / TASKS, pickle.dumps((function, [pickle.dumps(item) for item in items])))
        raise _PlannedError(Planned(self.out, len(items), tuple(missing)))


@dataclass
class _PlanResources(Resources):
    """Resources whose executor writes batches down."""

    out: Path = Path()

    @contextmanager
    def open(self) -> Iterator[Executor]:
        """Give the executor."""
        yield _PlanExecutor(self.out, self.threads)


def init_partitions(config_path: Path, out: Path, resources: Resources) -> Planned | Outcome:
    """Run a study up to its first batches, and write them down.

    Args:
        config_path: the configuration of `locomass run`.
        out: output directory.
        resources: threads of this process, progress.

    Returns:
        The batches to run next, or the outcome of a run that has none left.
    """
    chosen = _PlanResources(threads=resources.threads, progress=resources.progress, out=out)
    try:
        outcome = run_study(config_path, out, chosen)
    except _PlannedError as planned:
        return planned.plan
    (out / TASKS).unlink(missing_ok=True)
    return outcome


def run_partition(out: Path, number: int) -> bool:
    """Run one batch; return False when its parts were there already (see `run_partitions`)."""
    return next(run_partitions(out, [number], 0))[1]


def run_partitions(out: Path, numbers: Sequence[int], limit: int = ARRAY_LIMIT) -> Iterator[tuple[int, bool]]:
    """Run batches, and of each number the batches that share its job of an array (see `write_array`).

    Returns:
        Of each batch its number, and False when its parts were there already.

    Raises:
        InputError: there are no batches, or not so many.
    """
    function, tasks = _read_tasks(out)
    for first in numbers:
        if not 0 <= first < len(tasks):
            raise InputError(f"{out}: batch {first} of 0 to {len(tasks) - 1} was asked for")
        for number in range(first, len(tasks), limit or len(tasks)):
            task = pickle.loads(tasks[number])
            missing = not task.is_done
            if missing:
                ThreadExecutor(1).run(function, [task])
            yield number, missing


def list_missing(out: Path) -> list[int]:
    """Return the batches whose parts are not there, or not whole."""
    return [task.number for task in map(pickle.loads, _read_tasks(out)[1]) if not task.is_done]


def finalise_partitions(config_path: Path, out: Path, resources: Resources) -> Planned | Outcome:
    """Gather the parts of all batches, and go on to the next stage that has batches, or to the end.

    Raises:
        InputError: batches are missing.
    """
    missing = list_missing(out)
    if missing:
        some = ", ".join(map(str, missing[:20])) + (", ..." if len(missing) > 20 else "")
        raise InputError(f"{out}: {len(missing)} batches are missing: {some}; run them: locomass plan run {out} NUMBER")
    return init_partitions(config_path, out, resources)


def _read_tasks(out: Path) -> tuple[Callable[[Any], Any], list[bytes]]:
    """Return the task function and the pickled batches."""
    try:
        function, tasks = pickle.loads(read_signed(out / TASKS))
    except FileNotFoundError:
        raise InputError(f"{out} has no batches waiting; start with: locomass plan init CONFIG --out {out}") from None
    except (pickle.UnpicklingError, EOFError, AttributeError, ImportError) as error:
        raise InputError(f"{out / TASKS} is of another version ({error}); run init again") from None
    return function, tasks
