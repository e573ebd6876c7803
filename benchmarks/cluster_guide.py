"""Follow docs/cluster.md on a real one-node Slurm and print the transcript: ``python -m benchmarks.cluster_guide``.

Every line of the page's `text` blocks is run as it stands, in a folder that holds ``study.yaml`` (golden cohort_a) and
``slurm.yaml`` (configs/cluster/slurm.yaml, with two workers of one core and 1 GB). Needs root, and Slurm or apt-get.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"^```text\n(.*?)^```$", re.M | re.S)
COMMAND = re.compile(r"^(locomass|sbatch|squeue|sinfo) ")


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder, slurm = Path(scratch) / "work", Path(scratch) / "slurm"
        make_study(folder)
        subprocess.run([ROOT / "tests" / "cluster" / "start_slurm.sh", slurm], check=True, capture_output=True)
        environment = os.environ | {"SLURM_CONF": str(slurm / "slurm.conf")}
        environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
        try:
            for command in read_commands((ROOT / "docs" / "cluster.md").read_text()):
                run(command, folder, environment)
        finally:
            for name in ("slurmd.pid", "slurmctld.pid"):
                os.kill(int((slurm / name).read_text()), signal.SIGTERM)


def make_study(folder: Path) -> None:
    """Lay out the files that the guide speaks of."""
    shutil.copytree(ROOT / "tests" / "golden" / "data", folder)
    (folder / "cohort_a.yaml").rename(folder / "study.yaml")
    options = yaml.safe_load((ROOT / "configs" / "cluster" / "slurm.yaml").read_text())
    options |= {"cores": 1, "memory": "1 GB", "max_workers": 2}
    (folder / "slurm.yaml").write_text(yaml.safe_dump(options, sort_keys=False))


def read_commands(page: str) -> list[str]:
    """Return the commands of the page's `text` blocks, without the remarks behind them."""
    lines = [line for block in BLOCK.findall(page) for line in block.splitlines()]
    return [line.split("  #")[0].strip() for line in lines if COMMAND.match(line)]


def run(command: str, folder: Path, environment: dict[str, str]) -> None:
    """Run a command, wait for the jobs that it leaves behind, and print both."""
    print(f"$ {command}", flush=True)
    done = subprocess.run(
        command, shell=True, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    print(done.stdout, end="", flush=True)
    if done.returncode:
        raise SystemExit(f"exit code {done.returncode}")
    while subprocess.run(["squeue", "-h"], env=environment, capture_output=True, text=True, check=True).stdout:
        time.sleep(0.5)


if __name__ == "__main__":
    main()
