"""50 studies x 2,000 genes, `locomass meta` in a new process, 2 threads; and 500 genes, to see what memory hangs on."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.bundles import make_consortium
from benchmarks.cases.base import Case
from benchmarks.cases.stages import command_line
from benchmarks.measure import Result, run_command

STUDIES = 50


def prepare(n_genes: int, folder: Path) -> Callable[[], Result]:
    """Write the bundles when they are not there; time the meta-analysis and its report."""
    config = make_consortium(folder / f"consortium-{n_genes}", STUDIES, n_genes)
    out = folder / f"out-consortium-{n_genes}"

    def run() -> Result:
        shutil.rmtree(out, ignore_errors=True)
        run_command(command_line("meta", str(config), "--out", str(out), "--threads", "2", "--quiet"))
        return {}

    return run


CASES = [
    Case(
        f"locomass meta, {n:,} genes", "consortium", n, f"{STUDIES} studies x {n:,} genes, 2 threads",
        partial(prepare, n), quick=False, once=True,
    )
    for n in (2_000, 500)
]  # fmt: skip
