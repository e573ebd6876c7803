"""Worker jobs of a batch system: submitted by dask-jobqueue, as many as there is work for, cancelled at the end."""

from __future__ import annotations

import logging
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from locomass.errors import LocomassError
from locomass.executors.base import BLAS_LIMITS, parse_memory
from locomass.executors.batch_systems import BATCH_SYSTEMS
from locomass.executors.cluster_file import LOOPBACK, ClusterConfig, parse_walltime
from locomass.executors.workers import ClusterExecutor, dashboard_link, quieten, set_up_workers

log = logging.getLogger("locomass")

REPORT_SECONDS = 60


def make_job_cluster(config: ClusterConfig, credentials: Path) -> Any:
    """Return the dask-jobqueue cluster of a configuration; no job is submitted yet.

    Args:
        config: the cluster file.
        credentials: file of `credentials_file`, which the nodes see, too.

    Raises:
        LocomassError: its scheduler cannot start, for instance because the network interface does not exist.
    """
    import dask
    import dask_jobqueue

    from locomass.executors.credentials import JobSecurity, file_security, worker_environment

    system = BATCH_SYSTEMS[config.scheduler]
    options: dict[str, Any] = {
        "queue": config.queue,
        "cores": config.cores,
        "processes": config.processes,
        "memory": config.memory,
        "walltime": system.format_walltime(parse_walltime(config.walltime)),
        "local_directory": config.local_directory and shlex.quote(config.local_directory),
        "log_directory": config.log_directory,
        "interface": config.interface,
        "python": shlex.quote(config.python or sys.executable),
        "protocol": "tls://",
        "security": file_security(credentials, JobSecurity),
        "worker_extra_args": ["--no-dashboard", "--dashboard-address", LOOPBACK],
        "job_script_prologue": [*_environment(), *worker_environment(credentials), *config.setup],
        "job_extra_directives": [*system.directives(config), *config.job_extra],
        "death_timeout": config.death_timeout,
        "job_name": "locomass",
        "scheduler_options": {
            "dashboard_address": config.dashboard,
            "dashboard": config.dashboard != "off",
            "scheduler_file": config.scheduler_file,
        },
        **system.options(config),
    }
    try:
        with dask.config.set({"distributed.scheduler.allowed-failures": config.retries}):
            return getattr(dask_jobqueue, f"{config.scheduler.upper()}Cluster")(**options)
    except (OSError, RuntimeError, ValueError) as error:
        raise LocomassError(f"cannot start a scheduler for {config.scheduler}: {error}") from None


def _environment() -> list[str]:
    """Return the shell lines that limit BLAS and, when the program runs from a checkout, let workers import it.

    Workers import nothing from the working directory, which may be a stranger's.
    """
    lines = [f"export {name}={value}" for name, value in BLAS_LIMITS.items()] + ["export PYTHONSAFEPATH=1"]
    root = Path(__file__).resolve().parents[2]
    if root.name not in ("site-packages", "dist-packages"):
        roots = f"{root}:{root.parent / 'predictors'}"
        lines.append(f"export PYTHONPATH={shlex.quote(roots)}${{PYTHONPATH:+:$PYTHONPATH}}")
    return lines


@contextmanager
def start_jobs(config: ClusterConfig, where: str) -> Iterator[ClusterExecutor]:
    """Submit the first jobs, let their number follow the work, and cancel them at the end."""
    from distributed import Client, Status

    from locomass.executors.credentials import credentials_file

    quieten()
    with (
        credentials_file(Path(config.log_directory)) as credentials,
        make_job_cluster(config, credentials) as cluster,
        _share(config, credentials),
        Client(cluster, set_as_default=False, security=cluster.security) as client,
    ):
        set_up_workers(client, config.lifetime, stagger=parse_walltime(config.margin) / 2)
        first = -(-max(1, config.min_workers) // config.processes)

        async def submit() -> None:
            for _ in range(first):
                cluster.worker_spec.update(cluster.new_worker_spec())
            try:
                await cluster._correct_state()  # the only way to hear what the batch system answers
            except Exception:
                for job in cluster.workers.values():
                    job.status = Status.failed  # or closing the cluster trips over it
                raise

        try:
            cluster.sync(submit)
        except (RuntimeError, ValueError) as error:
            answer = str(error).partition("stderr:\n")[2].strip() or str(error)
            raise LocomassError(f"{where}: {config.scheduler} refused the job: {answer}") from None
        cluster.adapt(minimum=config.min_workers, maximum=config.max_workers, interval="2s")
        _await_worker(client, config)
        link = dashboard_link(client, config.dashboard)
        yield ClusterExecutor(client, parse_memory(config.memory) / config.cores, link)


@contextmanager
def _share(config: ClusterConfig, credentials: Path) -> Iterator[None]:
    """Put the credentials beside the scheduler file, where there is one; remove both at the end."""
    from locomass.executors.credentials import share_credentials

    if config.scheduler_file is None:
        yield
        return
    file = Path(config.scheduler_file)
    copy = share_credentials(credentials, file)
    try:
        yield
    finally:
        copy.unlink(missing_ok=True)
        file.unlink(missing_ok=True)


def _await_worker(client: Any, config: ClusterConfig) -> None:
    """Wait for the first job to start, however long the queue is, and say so now and then."""
    start = time.monotonic()
    log.info(
        "jobs are submitted to queue %s; waiting for the first to start (`%s` cancels those of a run that was killed)",
        config.queue,
        BATCH_SYSTEMS[config.scheduler].cancel,
    )
    while True:
        try:
            client.wait_for_workers(1, timeout=REPORT_SECONDS)
        except TimeoutError:
            minutes = (time.monotonic() - start) / 60
            log.info("no worker after %.0f minutes; if jobs come and go, see %s/", minutes, config.log_directory)
        else:
            return
