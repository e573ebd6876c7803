"""Worker processes on this machine."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from locomass.errors import LocomassError
from locomass.executors.base import BLAS_LIMITS, parse_memory
from locomass.executors.cluster_file import LOOPBACK
from locomass.executors.workers import ClusterExecutor, dashboard_link, set_up_workers


@contextmanager
def open_local(
    workers: int,
    *,
    threads: int = 1,
    memory: str | None = None,
    local_directory: str | None = None,
    dashboard: str | None = None,
) -> Iterator[ClusterExecutor]:
    """Start worker processes on this machine, which listen on loopback and to nobody but this run.

    Args:
        workers: processes.
        threads: of each.
        memory: of each.
        local_directory: scratch folder.
        dashboard: ``host:port`` of the dashboard, ``off`` for none; a free port of loopback when None.
    """
    import dask
    from distributed import Client, LocalCluster

    from locomass.executors.credentials import make_security

    bound = parse_memory(memory) if memory else None
    security = make_security()
    options = {"n_workers": workers, "threads_per_worker": threads, "memory_limit": memory or "auto"}
    try:
        with dask.config.set({"distributed.nanny.pre-spawn-environ": BLAS_LIMITS}):
            cluster = LocalCluster(
                **options,
                local_directory=local_directory,
                host="127.0.0.1",
                protocol="tls://",
                security=security,
                dashboard_address=None if dashboard == "off" else dashboard or LOOPBACK,
                silence_logs=logging.CRITICAL,
            )
    except (OSError, RuntimeError, ValueError) as error:
        raise LocomassError(f"cannot start {workers} local workers: {error}") from None
    with cluster, Client(cluster, set_as_default=False) as client:
        set_up_workers(client)
        yield ClusterExecutor(client, bound / threads if bound else None, dashboard_link(client, dashboard or LOOPBACK))
