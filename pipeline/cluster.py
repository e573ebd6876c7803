"""Where tasks run: threads of this process (default) or local worker processes. The only module that knows distributed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from pipeline.errors import LocomassError


class Executor(Protocol):
    """Runs a function over items in any order."""

    def run(
        self, function: Callable[[Any], Any], items: Sequence[Any], done: Callable[[], None] | None = None
    ) -> list[Any]:
        """Return ``[function(item) for item in items]``; ``done`` is called after each."""
        ...


class ThreadExecutor:
    """Dask's threaded scheduler: nothing is copied, no start-up cost; kernels release the GIL."""

    def __init__(self, threads: int | None = None) -> None:
        self.threads = threads or len(os.sched_getaffinity(0))

    def run(
        self, function: Callable[[Any], Any], items: Sequence[Any], done: Callable[[], None] | None = None
    ) -> list[Any]:
        """Run the tasks on threads, BLAS limited to one thread each."""
        import dask
        from threadpoolctl import threadpool_limits

        def task(item: Any) -> Any:
            result = function(item)
            if done is not None:
                done()
            return result

        with threadpool_limits(1):
            if len(items) == 1:
                return [task(items[0])]
            tasks = [dask.delayed(task, pure=False, traverse=False)(item) for item in items]
            return list(dask.compute(*tasks, scheduler="threads", num_workers=self.threads))


class ProcessExecutor:
    """A `distributed` client: local worker processes, each limited to one BLAS thread."""

    def __init__(self, client: Any) -> None:
        self.client = client

    def run(
        self, function: Callable[[Any], Any], items: Sequence[Any], done: Callable[[], None] | None = None
    ) -> list[Any]:
        """Run the tasks on the workers; a lost worker's tasks run again."""
        from distributed import as_completed

        futures = self.client.map(function, list(items), pure=False)
        order = {future.key: k for k, future in enumerate(futures)}
        results: list[Any] = [None] * len(futures)
        for future, result in as_completed(futures, with_results=True):
            results[order[future.key]] = result
            if done is not None:
                done()
        return results


@contextmanager
def open_executor(workers: int = 0, threads: int | None = None) -> Iterator[Executor]:
    """Give an executor: threads of this process, or ``workers`` local processes.

    Args:
        workers: number of local worker processes; 0 for threads in this process.
        threads: threads of the one process; all available cores when absent.

    Raises:
        LocomassError: the processes cannot be started.
    """
    if workers < 1:
        yield ThreadExecutor(threads)
        return
    import dask
    from distributed import Client, LocalCluster

    limits = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    try:
        with dask.config.set({"distributed.nanny.pre-spawn-environ": limits}):
            cluster = LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=":0", silence_logs=40)
    except (OSError, RuntimeError) as error:
        raise LocomassError(f"cannot start {workers} local workers: {error}") from None
    with cluster, Client(cluster) as client:
        yield ProcessExecutor(client)


def dashboard_link(executor: Executor) -> str:
    """Return the address of the Dask dashboard, empty for threads."""
    return str(executor.client.dashboard_link) if isinstance(executor, ProcessExecutor) else ""
