"""How the score statistics spread over workers: measured task costs, overhead per task, and a schedule for 1 to 512.

    python -m benchmarks.schedule                          threads, 1 and 2 local workers
    python -m benchmarks.schedule --cluster slurm.yaml     the same on a cluster, 1 and 2 workers of 1 core

The batches of 100,000 samples and 200,000 variants (5,000 genes; 5 GB) are run and timed. Their costs, per packed byte,
are then drawn again for the 4,000 batches of 64 MB of an exome of 500,000 samples, and laid on w workers, each taking
the next batch when it is free; the scheduler hands out one batch at a time, which takes the measured overhead.
"""

from __future__ import annotations

import argparse
import heapq
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from benchmarks.__main__ import describe_machine
from locomass.commands.study import StudyRun
from locomass.config import RunConfig, load_config
from locomass.executors import Executor, open_executor
from locomass.genotypes.bed import row_bytes
from locomass.run.directory import RunDirectory
from locomass.scores import BATCH_CARRIERS, RunBatch, plan_batches
from locomass.scores.genotypes import BatchTask, ContextSource, open_context, write_context
from locomass.simulate.rare import write_rare_fileset

SAMPLES, VARIANTS, GENES = 100_000, 200_000, 5_000
EXOME_BATCHES = 4_000  # 500,000 samples, 20,000 genes of 100 variants, 64 MB a batch
WORKERS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
EMPTY_TASKS = 500
TURNS = 5


@dataclass(frozen=True)
class TimedBatch:
    """Runs a batch and returns its seconds."""

    run: RunBatch

    def __call__(self, task: BatchTask) -> float:
        """Run one batch."""
        start = time.perf_counter()
        self.run(task)
        return time.perf_counter() - start


def do_nothing(number: int) -> int:
    """An empty task."""
    return number


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.schedule", description=__doc__.splitlines()[0])
    parser.add_argument("--cluster", type=Path, help="file of configs/cluster; its number of workers is replaced")
    parser.add_argument("--folder", type=Path, help="keep the data set here, on a disk that all workers see")
    options = parser.parse_args()
    print(f"{describe_machine()}\n")
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        config = make_data(folder)
        tasks, function = prepare(config, folder)
        walls, overheads, costs = {}, {}, {}
        for workers in (1, 2):
            with open_workers(options.cluster, workers, folder) as executor:
                executor.client.wait_for_workers(workers)
                run_stage(executor, tasks, function)  # compiles, opens files
                turns = [run_stage(executor, tasks, function) for _ in range(TURNS)]
                walls[workers] = float(np.median([wall for wall, _ in turns]))
                costs[workers] = np.median([seconds for _, seconds in turns], axis=0)
                start = time.perf_counter()
                executor.run(do_nothing, list(range(EMPTY_TASKS)))
                overheads[workers] = (time.perf_counter() - start) / EMPTY_TASKS
    single = costs[1]
    print(f"{len(tasks)} batches, {len(tasks[0].genes)} genes each: median {np.median(single):.3f} s, ", end="")
    print(f"largest {single.max():.3f} s; overhead {overheads[1] * 1e3:.1f} ms a task")
    for workers, wall in walls.items():
        print(f"{workers} workers: {wall:.2f} s, efficiency {walls[1] / (workers * wall):.2f}")
    packed = np.array([len(task.genotypes) * row_bytes(task.genotypes.n_samples) for task in tasks])
    exome = np.random.default_rng(1).choice(single * 16 * BATCH_CARRIERS / packed, EXOME_BATCHES)
    print(f"\n{EXOME_BATCHES} batches of {16 * BATCH_CARRIERS >> 20} MB at these costs, {exome.mean():.2f} s each\n")
    print("| workers | wall s | efficiency |\n|---|---|---|")
    alone = simulate_schedule(exome, 1, overheads[1])
    for workers in WORKERS:
        wall = simulate_schedule(exome, workers, overheads[1])
        print(f"| {workers} | {wall:.1f} | {alone / (workers * wall):.2f} |")


def make_data(folder: Path) -> Path:
    """Write the data set, unless it is there, and return its configuration."""
    config = folder / "schedule.yaml"
    if not config.exists():
        write_rare_fileset(folder / "schedule.bed", SAMPLES, VARIANTS, variants_per_gene=VARIANTS // GENES, n_traits=4)
    return config


def prepare(config_path: Path, folder: Path) -> tuple[list[BatchTask], TimedBatch]:
    """Fit the null models and plan the batches."""
    out = folder.resolve() / "out"
    shutil.rmtree(out, ignore_errors=True)
    config = load_config(config_path, RunConfig)
    with open_executor() as executor:
        study = StudyRun(config, config_path.resolve().parent, RunDirectory(out), executor)
        models = study.run_denoise()
    parts = out / "parts" / "timed"
    options, build = config.score_statistics, config.genome_build
    write_context(parts, study.cohort, open_context(study.cohort, models, options.x_coding, build))
    tasks = plan_batches(
        study.cohort,
        study.catalogue,
        study.found,
        options,
        folder=parts,
        kept=out / "parts" / "kept",
        study=config.study,
    )
    return tasks, TimedBatch(RunBatch(ContextSource(parts, out / "denoise", "timed")))


def open_workers(cluster: Path | None, workers: int, folder: Path):
    """Give so many workers of one thread, local or of a cluster."""
    if cluster is None:
        return open_executor(workers)
    options = yaml.safe_load(cluster.read_text()) | {"cores": 1, "min_workers": workers, "max_workers": workers}
    path = folder / "cluster.yaml"
    path.write_text(yaml.safe_dump(options))
    return open_executor(cluster=path)


def run_stage(executor: Executor, tasks: list[BatchTask], function: TimedBatch) -> tuple[float, list[float]]:
    """Run batches from nothing and return the seconds until the last ended, and those of each."""
    shutil.rmtree(tasks[0].kept, ignore_errors=True)
    for task in tasks:
        for path in (task.genes_part, task.variants_part):
            path.unlink(missing_ok=True)
    start = time.perf_counter()
    seconds = executor.run(function, tasks)
    return time.perf_counter() - start, seconds


def simulate_schedule(costs: np.ndarray, workers: int, overhead: float) -> float:
    """Return the seconds until the last of the tasks ends.

    Args:
        costs: seconds of each task, in order.
        workers: how many take the next task when they are free.
        overhead: seconds that the scheduler is busy with each task.
    """
    free = [0.0] * workers
    dispatched = 0.0
    for cost in costs:
        dispatched = max(dispatched + overhead, heapq.heappop(free))
        heapq.heappush(free, dispatched + float(cost))
    return max(free)


if __name__ == "__main__":
    main()
