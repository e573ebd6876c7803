"""What every `distributed` worker is given: one BLAS thread per task, no pauses, an end before its job's walltime."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

from distributed import Status, WorkerPlugin

MEMORY_FRACTIONS = ("memory_spill_fraction", "memory_pause_fraction")


class WorkerSetup(WorkerPlugin):
    """Limits BLAS, never pauses, and takes no new batch when the job's time is nearly over.

    A worker by itself takes no new task while it uses 80 % of its memory, and waits for results to be fetched. Here
    they are next to nothing and batches are sized by the memory, so that nothing would ever set it going again.

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
        """Load BLAS, limit it, switch pauses off, set the clock."""
        import numpy  # noqa: F401 - each brings its own BLAS
        import scipy.linalg  # noqa: F401
        from threadpoolctl import threadpool_limits

        self.limits = threadpool_limits(1)
        manager = worker.memory_manager
        self.fractions = {name: getattr(manager, name) for name in MEMORY_FRACTIONS}
        for name in MEMORY_FRACTIONS:
            setattr(manager, name, False)
        if self.lifetime is not None:
            worker.loop.call_later(self.lifetime - random.random() * self.stagger, self._drain, worker)

    def teardown(self, worker: Any) -> None:
        """Give the worker back as it was: that of a running scheduler serves others, too."""
        self.limits.restore_original_limits()
        for name, value in self.fractions.items():
            setattr(worker.memory_manager, name, value)

    async def _drain(self, worker: Any) -> None:
        """Take nothing new, wait for what is running, hand over results, close."""
        worker.status = Status.paused
        while worker.state.executing or worker.state.long_running:
            await asyncio.sleep(0.1)
        await worker.scheduler.retire_workers(
            workers=[worker.address], close_workers=False, remove=True, stimulus_id=f"locomass-{time.time()}"
        )
        await worker.close(nanny=True, reason="locomass: the walltime is near")
