"""Runs that are killed at random times, and started again, until they end: what a night on a cluster may do."""

from __future__ import annotations

import multiprocessing
import random
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

#: what a run needs, loaded once: the processes that are killed are forked from there
LOADED = ["locomass.commands.run", "locomass.predict", "locomass.scores", "locomass.meta", "tests.cluster.kills"]
SHORTEST = 0.02


def run_once(study: Path, out: Path, workers: int, cluster: str | None) -> None:
    """Run a study up to its gene tests, a batch for every gene."""
    import locomass.meta.tasks
    import locomass.scores
    from locomass.commands.outcome import Resources
    from locomass.commands.run import run_study

    locomass.scores.BATCH_PAIRS = 0
    locomass.meta.tasks.GENES_PER_TASK = 1
    run_study(study, out, Resources(workers=workers, threads=1, cluster=cluster), "meta")


@dataclass
class Killer:
    """Runs one study, and kills it.

    Attributes:
        study, workers, cluster: the run.
        rng: draws when to kill.
        kills: how many runs were killed.
        stages: folders and tables that were there when they were killed.
    """

    study: Path
    workers: int
    cluster: str | None
    rng: random.Random
    kills: int = 0
    stages: set[str] = field(default_factory=set)

    def start(self, out: Path) -> multiprocessing.process.BaseProcess:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(LOADED)
        process = context.Process(target=run_once, args=(self.study, out, self.workers, self.cluster))
        process.start()
        return process

    def measure(self, out: Path) -> float:
        """Return how many seconds a run takes that nobody kills."""
        start = time.monotonic()
        process = self.start(out)
        process.join()
        assert process.exitcode == 0
        return time.monotonic() - start

    def run_to_the_end(self, out: Path, seconds: float, most: int) -> None:
        """Start a run again and again, killed at a random time, until it ends; after ``most`` kills it is let go."""
        while True:
            process = self.start(out)
            process.join(self.rng.uniform(SHORTEST, seconds) if self.kills < most else None)
            if process.exitcode is None:
                process.kill()
                process.join()
            if process.exitcode == 0:  # perhaps while it was being killed
                return
            assert process.exitcode == -signal.SIGKILL, process.exitcode
            self.kills += 1
            self.stages |= {path.name for path in (*out.glob("*"), *out.glob("parts/*"))}
