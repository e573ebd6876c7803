"""Golden cohorts to run on clusters, and tables to compare byte for byte. The tests of this folder are left to CI."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden" / "data"
START_SLURM = Path(__file__).parent / "start_slurm.sh"
CANNOT_INSTALL = 77
TABLES = ("gene_tests.parquet", "gene_tests.tsv.gz", "single_variants.parquet", "mask_audit.tsv", "null_models.tsv")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what this folder holds: whole runs in processes of their own, which are killed and resumed."""
    for item in items:
        elsewhere = item.get_closest_marker("slurm") or item.get_closest_marker("slow")
        if item.path.is_relative_to(Path(__file__).parent) and not elsewhere:
            item.add_marker("ci")


@pytest.fixture(scope="session")
def read_tables() -> Callable[[Path], dict[str, bytes]]:
    """A function that returns the content of every result table and of the bundle."""

    def read(out: Path) -> dict[str, bytes]:
        files = [out / name for name in TABLES] + sorted(p for p in (out / "bundle").rglob("*") if p.is_file())
        return {str(p.relative_to(out)): p.read_bytes() for p in files}

    return read


@pytest.fixture
def make_cohort(tmp_path) -> Callable[..., Path]:
    """A function that lays golden cohort_a in a folder of the test, files copied, and returns its configuration."""

    def make(name: str = "study", **changes) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        for path in GOLDEN.glob("*.*"):
            (folder / path.name).write_bytes(path.read_bytes())
        config = yaml.safe_load((GOLDEN / "cohort_a.yaml").read_text()) | changes
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        return folder / "config.yaml"

    return make


@pytest.fixture(scope="session")
def slurm(tmp_path_factory) -> Iterator[Path]:
    """A real one-node Slurm; skips where it cannot be installed, fails where it does not start."""
    folder = tmp_path_factory.mktemp("slurm")
    started = subprocess.run([START_SLURM, folder], capture_output=True, text=True)
    if started.returncode == CANNOT_INSTALL:
        pytest.skip(started.stderr.strip())
    assert started.returncode == 0, started.stderr
    before = dict(os.environ)
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    os.environ["PYTHONPATH"] = f"{ROOT}:{Path(__file__).parent}"  # for the tests' task functions
    yield folder
    subprocess.run(["scancel", "--user", "root"], check=False)
    os.environ.clear()
    os.environ.update(before)
    for name in ("slurmd.pid", "slurmctld.pid"):
        # a daemon that ended by itself has taken its file with it
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            os.kill(int((folder / name).read_text()), signal.SIGTERM)


def start_dask(*words: str) -> subprocess.Popen[bytes]:
    """Start a Dask command."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{Path(__file__).parent}"}
    command = [sys.executable, "-m", *words]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@pytest.fixture
def running(tmp_path):
    """A scheduler with its file and a worker, as a user starts them: (address, file, scheduler process)."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    file = tmp_path / "scheduler.json"
    scheduler = start_dask(
        "distributed.cli.dask_scheduler", "--host", address, "--scheduler-file", str(file), "--no-dashboard"
    )
    worker = start_dask(
        "distributed.cli.dask_worker", address, "--nthreads", "1", "--no-dashboard", "--death-timeout", "300",
        "--local-directory", str(tmp_path),
    )  # fmt: skip
    while not file.exists():
        assert scheduler.poll() is None
        time.sleep(0.05)
    yield address, file, scheduler
    for process in (worker, scheduler):
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
