"""The workers of a `distributed` scheduler, whoever started them: how tasks reach them, and what a lost one means."""

from __future__ import annotations

import asyncio
import logging
import pickle
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from locomass.errors import LocomassError
from locomass.executors.base import Executor

TASKS_PER_MESSAGE = 100  # tasks sent to the scheduler at a time
LOST = "the connection to the Dask scheduler was lost; finished batches are kept: run again to resume"


@dataclass(frozen=True)
class Packed:
    """A function of pickled items: a task travels as one piece, not as a frame for every small array in it."""

    function: Callable[[Any], Any]

    def __call__(self, item: bytes) -> Any:
        """Return the function of the item."""
        return self.function(pickle.loads(item))


class ClusterExecutor(Executor):
    """The workers of a `distributed` scheduler; a lost worker's tasks run again elsewhere."""

    def __init__(self, client: Any, task_memory: float | None = None, dashboard: str = "") -> None:
        self.client = client
        self.task_memory = task_memory
        self.dashboard = dashboard

    def run(
        self, function: Callable[[Any], Any], items: Sequence[Any], done: Callable[[], None] | None = None
    ) -> list[Any]:
        """Run the tasks on the workers.

        Raises:
            LocomassError: the scheduler is gone, or a task ended several workers.
        """
        from concurrent.futures import CancelledError

        from distributed import KilledWorker, as_completed
        from distributed.comm import CommClosedError
        from distributed.protocol.pickle import dumps

        results: list[Any] = [None] * len(items)
        place: dict[str, int] = {}
        self._await_connection()
        try:
            # without results: one that is lost on its way would be waited for for ever
            waiting = as_completed(loop=self.client.loop)
            for start in range(0, len(items), TASKS_PER_MESSAGE):
                futures = self.client.map(
                    Packed(function), [dumps(item) for item in items[start : start + TASKS_PER_MESSAGE]], pure=False
                )
                place.update({future.key: start + k for k, future in enumerate(futures)})
                waiting.update(futures)
                del futures
            for batch in waiting.batches():  # what has ended meanwhile is fetched at once
                for key, result in zip([future.key for future in batch], self.client.gather(batch), strict=True):
                    results[place[key]] = result
                    if done is not None:
                        done()
                del batch  # or the workers have to keep the last results
        except KilledWorker as error:
            raise LocomassError(
                f"one batch ended {error.allowed_failures + 1} workers, the last on {error.last_worker.address}: "
                f"out of memory, or cut by the walltime; see the output of the jobs, raise `memory` or `walltime`, "
                f"and run again: finished batches are kept"
            ) from None
        except (CancelledError, CommClosedError, TimeoutError, asyncio.CancelledError):
            raise LocomassError(LOST) from None
        except Exception:  # a client that has given up refuses work with another exception in every version
            if self.client.status == "running":
                raise
            raise LocomassError(LOST) from None
        return results

    def _await_connection(self) -> None:
        """Wait until a client that looks for its scheduler has found it, or has given up after its own timeout.

        Work that is handed to a client while it gives up is never answered.

        Raises:
            LocomassError: the scheduler is gone.
        """
        while self.client.status in ("connecting", "closing"):
            time.sleep(0.05)
        if self.client.status != "running":
            raise LocomassError(LOST)


def quieten() -> None:
    """Keep `distributed` from printing tracebacks of connections that end, and every job that is cancelled.

    What a lost connection means is said by the error that ends the run.
    """
    for name in ("distributed.client", "distributed.batched", "tornado.application", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def set_up_workers(client: Any, lifetime: float | None = None, stagger: float = 0.0) -> None:
    """Give all workers, those to come included, the worker plugin."""
    from locomass.executors.worker_setup import WorkerSetup

    try:
        client.register_plugin(WorkerSetup(lifetime, stagger))
    except ImportError as error:
        raise LocomassError(
            f"the workers cannot import this program ({error}); install it for their Python, or set `python` and "
            f"`setup` in the cluster file"
        ) from None


def dashboard_link(client: Any, listen: str = "") -> str:
    """Return the address of a scheduler's dashboard; empty where it has none.

    Args:
        client: of the scheduler.
        listen: the ``host:port`` that the dashboard was told to listen on. One on loopback is not reached by the
            address of the scheduler, which is what Dask gives out.
    """
    port = client.scheduler_info(n_workers=0)["services"].get("dashboard")
    if not port:
        return ""
    if listen.rpartition(":")[0] in ("127.0.0.1", "localhost"):
        return f"http://127.0.0.1:{port}/status"
    return str(client.dashboard_link)
