"""100,000 samples x 200,000 rare variants, streamed: 5 GB made, read once from start to finish, removed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from benchmarks.cases.base import Case
from benchmarks.cases.stages import command_line
from benchmarks.data import make_rare
from benchmarks.measure import Result, run_command

SAMPLES, VARIANTS = 100_000, 200_000


def prepare(folder: Path) -> Callable[[], Result]:
    """`locomass run` to the end of the score statistics or of the gene tests, 2 threads, in a new process."""
    large = folder / "large"
    large.mkdir(exist_ok=True)
    make_rare(large, "large", SAMPLES, VARIANTS)

    def run() -> Result:
        shutil.rmtree(large / "out", ignore_errors=True)
        config, out = large / "large-plain.yaml", large / "out"
        run_command(command_line("run", str(config), "--out", str(out), "--threads", "2", "--quiet"))
        return {}

    return run


CASES = [
    Case(
        "locomass run, large",
        "large",
        VARIANTS,
        f"{SAMPLES:,} x {VARIANTS:,}, 2 threads",
        prepare,
        quick=False,
        once=True,
    ),
]
