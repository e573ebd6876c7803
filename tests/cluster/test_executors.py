"""Local processes and running schedulers: results, BLAS limits, lost workers, lost schedulers, the walltime."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from pipeline.cluster import ClusterExecutor, _set_up, dashboard_link, open_executor
from pipeline.errors import FormatError, LocomassError


def square(x: int) -> int:
    return x * x


def blas_threads(_: int) -> list[int]:
    import scipy.linalg  # noqa: F401
    from threadpoolctl import threadpool_info

    return [x["num_threads"] for x in threadpool_info()]


def fail(x: int) -> int:
    raise FormatError(f"bad {x}", path="file.txt", line=3)


def end_worker(x: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return x


def note(task: tuple[Path, float]) -> int:
    """Write a line when it begins and one when it ends, with the process between."""
    path, seconds = task
    for word in ("begin", "end"):
        with open(path, "a") as handle:
            handle.write(f"{word}\n")
        if word == "begin":
            time.sleep(seconds)
    return os.getpid()


def kill_first_time(task: tuple[Path, int]) -> int:
    """End the worker, unless somebody did so before."""
    path, x = task
    if x == 3:
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return x
        os.kill(os.getpid(), signal.SIGKILL)
    return x


@pytest.fixture(scope="module")
def local():
    with open_executor(2) as executor:
        yield executor


def test_results_are_in_order_and_every_step_is_told(local):
    steps: list[int] = []
    assert local.run(square, list(range(250)), lambda: steps.append(1)) == [x * x for x in range(250)]
    assert len(steps) == 250
    assert dashboard_link(local).startswith("http://")


def test_blas_has_one_thread(local):
    found = local.run(blas_threads, [0, 1])
    assert found[0]
    assert set(found[0]) == {1}


def test_an_error_keeps_its_kind_and_message(local):
    with pytest.raises(FormatError, match=r"file\.txt, line 3: bad 1"):
        local.run(fail, [1])
    assert local.run(square, [2]) == [4]


def test_a_lost_worker_costs_its_batch_only(local, tmp_path):
    assert local.run(kill_first_time, [(tmp_path / "killed", x) for x in range(8)]) == list(range(8))
    assert (tmp_path / "killed").exists()


def test_a_batch_that_ends_every_worker_stops_the_run(local):
    with pytest.raises(LocomassError, match=r"one batch ended 4 workers.*out of memory.*finished batches are kept"):
        local.run(end_worker, [1])
    assert local.run(square, [3]) == [9]


def test_a_worker_near_its_walltime_finishes_its_batch_and_takes_no_other(tmp_path):
    """Three batches of 1 s, a worker that lives for 1.3 s: what it began it ends; the rest is for another worker."""
    from distributed import Client, LocalCluster

    logs = [tmp_path / f"{k}" for k in range(3)]
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0", silence_logs=50) as cluster,
        Client(cluster) as client,
    ):
        _set_up(client, lifetime=1.3)
        timer = threading.Timer(1.8, lambda: cluster.scale(2))
        timer.start()
        processes = ClusterExecutor(client).run(note, [(path, 1.0) for path in logs])
        timer.join()
    assert [path.read_text().split() for path in logs] == [["begin", "end"]] * 3
    assert processes[0] != processes[2]


def test_a_running_scheduler_by_address_and_by_file(running):
    address, file, _ = running
    for where in (address, file):
        with open_executor(cluster=where) as executor:
            assert executor.run(square, [1, 2, 3]) == [1, 4, 9]


def test_a_scheduler_that_dies_is_an_error_that_says_how_to_go_on(running, tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.cluster.CONNECT_SECONDS", 2)
    address, _, scheduler = running
    with open_executor(cluster=address) as executor:
        timer = threading.Timer(1.0, scheduler.kill)
        timer.start()
        with pytest.raises(LocomassError, match=r"connection to the Dask scheduler was lost.*run again to resume"):
            executor.run(note, [(tmp_path / "log", 5.0)] * 3)
        timer.join()


def test_a_scheduler_without_workers_is_an_error(monkeypatch, tmp_path):
    from distributed import LocalCluster

    monkeypatch.setattr("pipeline.cluster.WORKER_SECONDS", 0.3)
    with (
        LocalCluster(n_workers=0, dashboard_address=":0") as cluster,
        pytest.raises(LocomassError, match="has no worker; start one with `dask worker"),
        open_executor(cluster=cluster.scheduler_address),
    ):
        pass
