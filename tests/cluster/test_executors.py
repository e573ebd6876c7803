"""Local processes and running schedulers: results, BLAS limits, lost workers, lost schedulers, the walltime."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from locomass.errors import FormatError, LocomassError
from locomass.executors import open_executor
from locomass.executors.workers import LOST, ClusterExecutor, set_up_workers


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


def begin_and_sleep(task: tuple[Path, float]) -> None:
    """Say that it began, and sleep."""
    path, seconds = task
    path.touch()
    time.sleep(seconds)


def await_file(path: Path) -> None:
    """Wait for a file that another process will write."""
    while not path.exists():
        time.sleep(0.02)


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
    assert local.dashboard.startswith("http://")


def test_blas_has_one_thread(local):
    found = local.run(blas_threads, [0, 1])
    assert found[0]
    assert set(found[0]) == {1}


def pause_fraction(_: int) -> float | bool:
    from distributed import get_worker

    return get_worker().memory_manager.memory_pause_fraction


def test_a_worker_never_pauses__since_nothing_would_set_it_going_again(local):
    assert local.run(pause_fraction, [0, 1]) == [False, False]


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


def work_until_told(folder: Path) -> int:
    """Return the process; whoever comes first goes on until its worker is paused and the test says so."""
    from distributed import Status, get_worker

    with suppress(FileExistsError):
        os.close(os.open(folder / "begun", os.O_CREAT | os.O_EXCL))
        while get_worker().status != Status.paused:
            time.sleep(0.01)
        (folder / "paused").touch()
        await_file(folder / "go")
    with open(folder / "ended", "a") as handle:
        handle.write(f"{os.getpid()}\n")
    return os.getpid()


def test_a_worker_near_its_walltime_finishes_its_batch_and_takes_no_other(tmp_path):
    """Three batches; the first worker's time ends during its first: that it ends, the others are for another worker."""
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0", silence_logs=50) as cluster,
        Client(cluster) as client,
        ThreadPoolExecutor(1) as pool,
    ):
        running = pool.submit(ClusterExecutor(client).run, work_until_told, [tmp_path] * 3)
        await_file(tmp_path / "begun")
        (first,) = client.run(os.getpid).values()
        set_up_workers(client, lifetime=0.1)
        await_file(tmp_path / "paused")
        set_up_workers(client)  # the workers to come live for ever
        cluster.scale(2)
        (tmp_path / "go").touch()
        processes = running.result()
    assert processes.count(first) == 1
    assert len(set(processes)) == 2
    assert sorted(map(int, (tmp_path / "ended").read_text().split())) == sorted(processes)  # nothing was run twice


def test_a_running_scheduler_by_address_and_by_file(running):
    address, file, _ = running
    for where in (address, file):
        with open_executor(cluster=where) as executor:
            assert executor.run(square, [1, 2, 3]) == [1, 4, 9]


def test_a_scheduler_that_dies_is_an_error_that_says_how_to_go_on(running, tmp_path):
    address, _, scheduler = running

    def kill_in_mid_run() -> None:
        await_file(tmp_path / "begun")
        scheduler.kill()

    with open_executor(cluster=address) as executor, ThreadPoolExecutor(1) as pool:
        executor.client._timeout = 2  # seconds that it looks for the lost one; longer for the first connection
        killing = pool.submit(kill_in_mid_run)
        with pytest.raises(LocomassError, match=LOST):
            executor.run(begin_and_sleep, [(tmp_path / "begun", 5.0)] * 3)
        killing.result()


def test_a_scheduler_without_workers_is_an_error(monkeypatch, tmp_path):
    from distributed import LocalCluster

    monkeypatch.setattr("locomass.executors.scheduler.WORKER_SECONDS", 0.3)
    with (
        LocalCluster(n_workers=0, dashboard_address=":0") as cluster,
        pytest.raises(LocomassError, match="has no worker; start one with `dask worker"),
        open_executor(cluster=cluster.scheduler_address),
    ):
        pass
