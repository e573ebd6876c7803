"""Where tasks run: threads (default), local processes, a running scheduler, or jobs of a batch system.

    base            what an executor is
    threads         threads of this process
    workers         workers of a `distributed` scheduler, whoever started them
    local           worker processes on this machine
    credentials     who may drive the workers
    scheduler       a scheduler that runs already
    jobs            worker jobs of a batch system
    batch_systems   what differs between Slurm, PBS, LSF and SGE
    cluster_file    the keys of a file of configs/cluster
    worker_setup    what every worker is given

The only package that knows `distributed` and `dask_jobqueue`. Tasks carry paths and small arrays, write their own parts
and return next to nothing, so a lost worker costs the batches it was working on and no more.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from locomass.errors import ConfigError, LocomassError
from locomass.executors.base import Executor as Executor
from locomass.executors.base import parse_memory as parse_memory
from locomass.executors.batch_systems import BATCH_SYSTEMS
from locomass.executors.cluster_file import load_cluster_config
from locomass.executors.threads import ThreadExecutor as ThreadExecutor


@contextmanager
def open_executor(
    workers: int = 0, threads: int | None = None, cluster: str | Path | None = None, memory: str | None = None
) -> Iterator[Executor]:
    """Give an executor: threads of this process, local processes, a running scheduler, or jobs.

    Args:
        workers: number of local worker processes; 0 for threads in this process.
        threads: threads of the one process; all available cores when absent.
        cluster: a file of configs/cluster, a scheduler's address (``tcp://host:port``), or its scheduler file (JSON).
        memory: memory of the process, or of each local worker (restarted above it), such as ``4 GB``; batches are
            sized by it.

    Raises:
        LocomassError: the processes cannot be started, or no scheduler answers.
        ConfigError: the cluster file is wrong.
    """
    if cluster is not None:
        if workers:
            raise ConfigError("give --workers or --cluster, not both; `max_workers` in the cluster file is the number")
        with _open_cluster(str(cluster)) as executor:
            yield executor
    elif workers < 1:
        yield ThreadExecutor(threads, memory)
    else:
        from locomass.executors.local import open_local

        with open_local(workers, memory=memory) as executor:
            yield executor


@contextmanager
def _open_cluster(where: str) -> Iterator[Executor]:
    """Connect to an address or a scheduler file, or start what a cluster file describes."""
    if "://" in where or where.endswith(".json"):
        from locomass.executors.scheduler import connect

        with connect(where) as executor:
            yield executor
        return
    config = load_cluster_config(where)
    if config.scheduler == "local":
        from locomass.executors.local import open_local

        threads = config.cores // config.processes
        with open_local(
            config.max_workers,
            threads=threads,
            memory=config.memory,
            local_directory=config.local_directory,
            dashboard=config.dashboard,
        ) as executor:
            yield executor
        return
    from locomass.executors.jobs import start_jobs

    command = BATCH_SYSTEMS[config.scheduler].submit
    if shutil.which(command) is None:
        raise LocomassError(
            f"{where}, key scheduler: {config.scheduler} needs the command `{command}`, which is not on this machine; "
            f"run on a login node, or use --workers"
        )
    with start_jobs(config, where) as executor:
        yield executor
