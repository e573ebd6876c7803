"""Threads of this process: the executor of a laptop, and of one big machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from locomass.executors.base import Executor, parse_memory


class ThreadExecutor(Executor):
    """Dask's threaded scheduler: nothing is copied, no start-up cost; kernels release the GIL."""

    def __init__(self, threads: int | None = None, memory: str | None = None) -> None:
        self.threads = threads or len(os.sched_getaffinity(0))
        self.task_memory = parse_memory(memory) / self.threads if memory else None

    def run(
        self, function: Callable[[Any], Any], items: Sequence[Any], done: Callable[[], None] | None = None
    ) -> list[Any]:
        """Run the tasks on threads, BLAS limited to one thread each.

        When a task fails, those that already run are waited for: nothing goes on behind the error's back. When a signal
        ends the program they are not: the process is about to go.
        """
        from concurrent.futures import ThreadPoolExecutor

        import dask
        from dask.threaded import get as run_on_threads
        from threadpoolctl import threadpool_limits

        def task(item: Any) -> Any:
            result = function(item)
            if done is not None:
                done()
            return result

        with threadpool_limits(1):
            if len(items) == 1:
                return [task(items[0])]
            # calls without arguments: Dask would walk through every field of an item that is a dataclass
            tasks = [dask.delayed(partial(task, item), pure=False, traverse=False)() for item in items]
            pool, wait = ThreadPoolExecutor(self.threads), True
            try:
                # the function, not its name: to look up a name Dask imports `distributed`, a third of a second
                return list(dask.compute(*tasks, scheduler=run_on_threads, num_workers=self.threads, pool=pool))
            except BaseException as error:
                wait = isinstance(error, Exception)
                raise
            finally:
                pool.shutdown(wait=wait, cancel_futures=True)
