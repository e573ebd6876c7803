"""What every `distributed` worker is given: one BLAS thread per task, and an end before its job's walltime."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

from distributed import Status, WorkerPlugin


class WorkerSetup(WorkerPlugin):
    """Limits BLAS, and takes no new batch when the job's time is nearly over.

    A worker that reaches its lifetime takes no new task, finishes those it has, hands over and ends, so that the
    walltime never cuts a batch. (`dask worker --lifetime` drops what is running.)

    Args:
        lifetime: seconds after which no new task is taken; None for ever.
        stagger: up to so many seconds earlier, at random, so that workers started together do not end together.
    """

    name = "locomass"

    def __init__(self, lifetime: float | None = None, stagger: float = 0.0) -> None:
        self.lifetime = lifetime
        self.stagger = stagger

    def setup(self, worker: Any) -> None:
        """Load BLAS, limit it, set the clock."""
        import numpy  # noqa: F401 - each brings its own BLAS
        import scipy.linalg  # noqa: F401
        from threadpoolctl import threadpool_limits

        self.limits = threadpool_limits(1)
        if self.lifetime is not None:
            worker.loop.call_later(self.lifetime - random.random() * self.stagger, self._drain, worker)

    def teardown(self, worker: Any) -> None:
        """Give BLAS its threads back: a worker of a running scheduler serves others, too."""
        self.limits.restore_original_limits()

    async def _drain(self, worker: Any) -> None:
        """Take nothing new, wait for what is running, hand over results, close."""
        worker.memory_manager.memory_pause_fraction = False  # which would set a paused worker going again
        worker.status = Status.paused
        while worker.state.executing or worker.state.long_running:
            await asyncio.sleep(0.1)
        await worker.scheduler.retire_workers(
            workers=[worker.address], close_workers=False, remove=True, stimulus_id=f"locomass-{time.time()}"
        )
        await worker.close(nanny=True, reason="locomass: the walltime is near")
