"""What a run costs again: nothing changed, and new summary statistics of one trait.

    python -m benchmarks.rerun [--folder DIR] [--common N]

A study of 20,000 samples is simulated: 1,012 genes of 40 rare variants, a quantitative and a binary trait, an array of
22 x N common variants whose LD comes from the cohort itself. `locomass run` is started four times in new processes: the
first time, with nothing changed, with new statistics of the quantitative trait, and of the binary one.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from benchmarks.__main__ import describe_machine
from benchmarks.cases.stages import command_line
from locomass.simulate.parameters import Parameters
from locomass.simulate.study import simulate_study

SAMPLES, N_GWAS, COMMON = 20_000, 12_000, 4_000


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rerun", description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="keep the data set here; one that is there is used")
    parser.add_argument("--common", type=int, default=COMMON, help=f"common variants per chromosome (default {COMMON})")
    options = parser.parse_args()
    print(f"{describe_machine()}\n\n| run | wall s | CPU s | wall / first | CPU / first |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        config, out = make_data(folder, options.common), folder / "out"
        shutil.rmtree(out, ignore_errors=True)
        first = run(config, out)
        report("first", first, first)
        report("nothing changed", run(config, out), first)
        for trait in ("y", "cc"):
            path = folder / "gwas" / f"{trait}.tsv.gz"
            before = path.read_bytes()
            renew(path)
            report(f"new statistics of {trait}", run(config, out), first)
            path.write_bytes(before)


def make_data(folder: Path, common: int) -> Path:
    """Simulate the study, unless it is there, and return its configuration, with LD from the cohort."""
    path = folder / "study1.yaml"
    if not path.exists():
        simulate_study(folder, Parameters(
            study_sizes=[SAMPLES], n_gwas=N_GWAS, n_reference=20, common_per_chromosome=common, spacing=3_000,
            genes_per_chromosome=46, variants_per_gene=40,
        ))  # fmt: skip
    config = yaml.safe_load(path.read_text())
    config["predictor"].pop("ld_reference", None)
    (folder / "rerun.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    return folder / "rerun.yaml"


def renew(path: Path) -> None:
    """Replace summary statistics by those of a somewhat different GWAS."""
    table = pd.read_csv(path, sep="\t")
    rng = np.random.default_rng(7)
    table["beta"] += 0.3 * table["standard_error"] * rng.standard_normal(len(table))
    table.to_csv(path, sep="\t", index=False)


def run(config: Path, out: Path) -> tuple[float, float]:
    """Run to the report in a new process; return wall and CPU seconds."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command_line("run", str(config), "--out", str(out), "--quiet"), check=True, capture_output=True)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def report(name: str, cost: tuple[float, float], first: tuple[float, float]) -> None:
    """Print a row."""
    ratios = " | ".join(f"{a / b:.1%}" for a, b in zip(cost, first, strict=True))
    print(f"| {name} | {cost[0]:.1f} | {cost[1]:.1f} | {ratios} |", flush=True)


if __name__ == "__main__":
    main()
