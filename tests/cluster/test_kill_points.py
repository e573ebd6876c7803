"""A run killed at any time, and killed again, ends with the tables of one that nobody touched, byte for byte.

``-m ci`` kills 12 times on threads and 4 times with worker processes, ``-m slurm`` 5 times on Slurm; ``-m slow`` 75 and
20 times: 100 random points.
"""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cluster.kills import Killer
from tests.factories import make_study


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    return make_study(4, n=80).write(tmp_path_factory.mktemp("study"))


def kill_and_compare(killer: Killer, folder: Path, read_tables: Callable[[Path], dict[str, bytes]], kills: int) -> None:
    """Kill a run so many times, over as many folders as end meanwhile; compare the tables of each."""
    killer.measure(folder / "whole")  # kernels are loaded
    seconds = killer.measure(folder / "again")
    expected, ended = read_tables(folder / "whole"), 0
    assert read_tables(folder / "again") == expected
    while killer.kills < kills:
        out = folder / f"out-{ended}"
        killer.run_to_the_end(out, seconds, kills)
        assert read_tables(out) == expected, f"after {killer.kills} kills"
        assert not [p for p in out.rglob("*") if p.name.endswith((".partial", ".old")) or p.name == ".lock"]
        ended += 1


@pytest.mark.parametrize("kills", [12, pytest.param(75, marks=pytest.mark.slow)])
def test_threads(study, tmp_path, read_tables, kills):
    killer = Killer(study, 0, None, random.Random(kills))
    kill_and_compare(killer, tmp_path, read_tables, kills)
    if kills > 50:  # they were killed everywhere
        assert killer.stages >= {"predict", "denoise", "score_statistics", "bundle", "meta"}


@pytest.mark.parametrize("kills", [4, pytest.param(20, marks=pytest.mark.slow)])
def test_workers(study, tmp_path, read_tables, kills):
    before = orphaned_workers()
    kill_and_compare(Killer(study, 1, None, random.Random(2)), tmp_path, read_tables, kills)
    deadline = time.monotonic() + 60
    while orphaned_workers() - before and time.monotonic() < deadline:
        time.sleep(0.5)
    assert not orphaned_workers() - before  # those of runs that were killed end by themselves


def orphaned_workers() -> set[str]:
    """Return the processes that Python's multiprocessing has spawned, and whose parent is no more."""
    found = set()
    for path in Path("/proc").glob("[0-9]*"):
        try:
            orphaned = "\nPPid:\t1\n" in (path / "status").read_text()
            if orphaned and b"multiprocessing.spawn" in (path / "cmdline").read_bytes():
                found.add(path.name)
        except OSError:
            continue
    return found


@pytest.mark.slurm
def test_slurm(slurm, study, tmp_path, read_tables):
    cluster = tmp_path / "slurm.yaml"
    cluster.write_text(
        "scheduler: slurm\nqueue: main\nmemory: 1 GB\nwalltime: '1:00:00'\nmax_workers: 1\ndeath_timeout: 10\n"
        f"log_directory: {tmp_path / 'logs'}\n"
    )
    kill_and_compare(Killer(study, 0, str(cluster), random.Random(3)), tmp_path, read_tables, 5)
    deadline = time.monotonic() + 60
    while queued() and time.monotonic() < deadline:
        time.sleep(0.5)
    assert queued() == ""  # jobs of runs that were killed end by themselves


def queued() -> str:
    return subprocess.run(["squeue", "-h"], capture_output=True, text=True).stdout
