"""Where tasks run: threads (default), local processes, a running scheduler, or jobs of a batch system.

The only module that knows `distributed` and `dask_jobqueue`. Tasks carry paths and small arrays, write their own parts
and return next to nothing, so a lost worker costs the batches it was working on and no more.
"""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

import msgspec
from msgspec import Meta

from pipeline.config import read_struct
from pipeline.errors import ConfigError, LocomassError

log = logging.getLogger("locomass")

BLAS_LIMITS = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
SUBMIT_COMMANDS = {"slurm": "sbatch", "sge": "qsub", "pbs": "qsub", "lsf": "bsub"}
QUEUE_LISTS = {"slurm": "sinfo -s", "sge": "qconf -sql", "pbs": "qstat -Q", "lsf": "bqueues"}
TASKS_PER_MESSAGE = 100  # tasks sent to the scheduler at a time
CONNECT_SECONDS = 20
WORKER_SECONDS = 60  # a running scheduler must have a worker by then
REPORT_SECONDS = 60
LOST = "the connection to the Dask scheduler was lost; finished batches are kept: run again to resume"

Walltime = Annotated[str, Meta(pattern=r"^(\d+-)?\d{1,4}:[0-5]\d:[0-5]\d$")]
Memory = Annotated[str, Meta(pattern=r"^\d+(\.\d+)? ?[kKMGT](i?B)?$")]


class ClusterConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """A file of configs/cluster: how workers are started."""

    scheduler: Annotated[Literal["local", "slurm", "sge", "pbs", "lsf"], Meta(description="who starts the workers")]
    queue: Annotated[str | None, Meta(description="partition or queue that jobs go to; needed unless local")] = None
    account: Annotated[str | None, Meta(description="account or project that pays")] = None
    cores: Annotated[int, Meta(ge=1, le=1024, description="cores of a job")] = 1
    processes: Annotated[int, Meta(ge=1, le=1024, description="worker processes in a job; they share its cores")] = 1
    memory: Annotated[Memory, Meta(description="memory of a job, such as `4 GB`; a worker above it is restarted")] = (
        "4 GB"
    )
    walltime: Annotated[Walltime, Meta(description="longest life of a job, H:MM:SS or D-HH:MM:SS")] = "1:00:00"
    margin: Annotated[
        Walltime, Meta(description="a worker takes no new batch this long before the walltime; above any batch")
    ] = "0:10:00"
    min_workers: Annotated[int, Meta(ge=0, description="workers that are always kept")] = 1
    max_workers: Annotated[int, Meta(ge=1, description="most workers at a time; jobs follow the work left")] = 10
    local_directory: Annotated[str | None, Meta(description="scratch folder on the nodes")] = None
    log_directory: Annotated[str, Meta(description="where jobs leave their output")] = "cluster-logs"
    scheduler_file: Annotated[
        str | None, Meta(description="where the scheduler writes its address, for `--cluster FILE.json` elsewhere")
    ] = None
    interface: Annotated[str | None, Meta(description="network interface that nodes share, such as ib0")] = None
    python: Annotated[str | None, Meta(description="Python of the workers; default: the one that runs now")] = None
    setup: Annotated[list[str], Meta(description="shell lines before the worker: module load, conda activate")] = []
    resource_spec: Annotated[
        str | None, Meta(description="SGE and PBS: the `-l` request where the site has its own words")
    ] = None
    job_extra: Annotated[list[str], Meta(description="further directives, without #SBATCH, #$, #PBS, #BSUB")] = []
    death_timeout: Annotated[
        int, Meta(ge=10, description="seconds after which a worker without a scheduler ends itself")
    ] = 300
    retries: Annotated[int, Meta(ge=0, le=20, description="workers a batch may lose before the run stops")] = 3

    @property
    def lifetime(self) -> float:
        """Seconds after which a worker takes no new batch."""
        return parse_walltime(self.walltime) - parse_walltime(self.margin)


class Executor(Protocol):
    """Runs a function over items in any order.

    Attributes:
        task_memory: bytes that one task may use; None when nobody set a bound.
    """

    task_memory: float | None

    def run(
        self, function: Callable[[Any], Any], items: Sequence[Any], done: Callable[[], None] | None = None
    ) -> list[Any]:
        """Return ``[function(item) for item in items]``; ``done`` is called after each."""
        ...


class ThreadExecutor:
    """Dask's threaded scheduler: nothing is copied, no start-up cost; kernels release the GIL."""

    def __init__(self, threads: int | None = None, memory: str | None = None) -> None:
        self.threads = threads or len(os.sched_getaffinity(0))
        self.task_memory = parse_memory(memory) / self.threads if memory else None

    def run(
        self, function: Callable[[Any], Any], items: Sequence[Any], done: Callable[[], None] | None = None
    ) -> list[Any]:
        """Run the tasks on threads, BLAS limited to one thread each.

        When a task fails, those that already run are waited for: nothing goes on behind the error's back.
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
            with ThreadPoolExecutor(self.threads) as pool:
                # the function, not its name: to look up a name Dask imports `distributed`, a third of a second
                return list(dask.compute(*tasks, scheduler=run_on_threads, num_workers=self.threads, pool=pool))


@dataclass(frozen=True)
class Packed:
    """A function of pickled items: a task travels as one piece, not as a frame for every small array in it."""

    function: Callable[[Any], Any]

    def __call__(self, item: bytes) -> Any:
        """Return the function of the item."""
        return self.function(pickle.loads(item))


class ClusterExecutor:
    """The workers of a `distributed` scheduler; a lost worker's tasks run again elsewhere."""

    def __init__(self, client: Any, task_memory: float | None = None) -> None:
        self.client = client
        self.task_memory = task_memory

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
        with _open_local(workers, 1, memory) as executor:
            yield executor


def dashboard_link(executor: Executor) -> str:
    """Return the address of the Dask dashboard, empty for threads."""
    return str(executor.client.dashboard_link) if isinstance(executor, ClusterExecutor) else ""


def parse_memory(text: str) -> float:
    """Return the bytes of ``4 GB`` or ``512 MiB``.

    Raises:
        ConfigError: it is not a size.
    """
    from dask.utils import parse_bytes

    try:
        return float(parse_bytes(text))
    except ValueError:
        raise ConfigError(f"'{text}' is not a size of memory; give one such as `4 GB`") from None


def parse_walltime(text: str) -> float:
    """Return the seconds of ``H:MM:SS`` or ``D-HH:MM:SS``."""
    days, _, clock = text.rpartition("-")
    hours, minutes, seconds = map(int, clock.split(":"))
    return float(int(days or 0) * 86400 + hours * 3600 + minutes * 60 + seconds)


def load_cluster_config(path: str | Path) -> ClusterConfig:
    """Read and check a file of configs/cluster.

    Raises:
        ConfigError: an unknown or missing key, or values that cannot work together; names file, line, key and the fix.
    """
    path = Path(path)
    config = read_struct(path, ClusterConfig)
    where = f"{path}, key"
    if config.scheduler != "local":
        if not config.queue:
            command = QUEUE_LISTS[config.scheduler]
            raise ConfigError(f"{where} queue: is missing; name the queue that jobs go to (`{command}` lists them)")
        if config.lifetime < parse_walltime(config.margin):
            raise ConfigError(
                f"{where} walltime: {config.walltime} leaves no time for batches with a margin of {config.margin}; ask "
                f"for at least twice the margin"
            )
    elif config.queue or config.account or config.job_extra:
        raise ConfigError(f"{where} scheduler: 'local' has no queue, account or job_extra; remove them")
    if config.min_workers > config.max_workers:
        raise ConfigError(f"{where} min_workers: {config.min_workers} is above max_workers ({config.max_workers})")
    if config.processes > config.cores:
        raise ConfigError(
            f"{where} processes: {config.processes} is above cores ({config.cores}); use at most one each"
        )
    return config


@contextmanager
def _open_cluster(where: str) -> Iterator[ClusterExecutor]:
    """Connect to an address or a scheduler file, or start what a cluster file describes."""
    if "://" in where or where.endswith(".json"):
        with _connect(where) as executor:
            yield executor
        return
    config = load_cluster_config(where)
    if config.scheduler == "local":
        threads = config.cores // config.processes
        with _open_local(config.max_workers, threads, config.memory, config.local_directory) as executor:
            yield executor
        return
    command = SUBMIT_COMMANDS[config.scheduler]
    if shutil.which(command) is None:
        raise LocomassError(
            f"{where}, key scheduler: {config.scheduler} needs the command `{command}`, which is not on this machine; "
            f"run on a login node, or use --workers"
        )
    with _start_jobs(config, where) as executor:
        yield executor


@contextmanager
def _open_local(
    workers: int, threads: int, memory: str | None, local_directory: str | None = None
) -> Iterator[ClusterExecutor]:
    """Start worker processes on this machine."""
    import dask
    from distributed import Client, LocalCluster

    bound = parse_memory(memory) if memory else None
    options = {"n_workers": workers, "threads_per_worker": threads, "memory_limit": memory or "auto"}
    try:
        with dask.config.set({"distributed.nanny.pre-spawn-environ": BLAS_LIMITS}):
            cluster = LocalCluster(
                **options, local_directory=local_directory, dashboard_address=":0", silence_logs=logging.CRITICAL
            )
    except (OSError, RuntimeError, ValueError) as error:
        raise LocomassError(f"cannot start {workers} local workers: {error}") from None
    with cluster, Client(cluster, set_as_default=False) as client:
        _set_up(client)
        yield ClusterExecutor(client, bound / threads if bound else None)


@contextmanager
def _connect(where: str) -> Iterator[ClusterExecutor]:
    """Connect to a scheduler that runs already."""
    from distributed import Client

    target: Mapping[str, Any] = {"scheduler_file": where} if where.endswith(".json") else {"address": where}
    advice = "start one with `dask scheduler`, or give a file of configs/cluster"
    if "scheduler_file" in target and not Path(where).exists():
        raise LocomassError(f"--cluster {where}: no such scheduler file; {advice}")
    _quieten()
    try:
        client = Client(**target, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, TimeoutError, ValueError, KeyError) as error:
        reason = str(error) or type(error).__name__
        raise LocomassError(f"--cluster {where}: no Dask scheduler answers ({reason}); {advice}") from None
    with client:
        try:
            client.wait_for_workers(1, timeout=WORKER_SECONDS)
        except TimeoutError:
            raise LocomassError(
                f"--cluster {where}: the scheduler has no worker; start one with `dask worker {where}`"
            ) from None
        _set_up(client)
        try:
            yield ClusterExecutor(client)
        finally:
            if client.status == "running":
                # a scheduler that goes just now must not hide what went wrong before
                with suppress(OSError, TimeoutError, RuntimeError, AttributeError):
                    client.unregister_worker_plugin("locomass")


def _quieten() -> None:
    """Keep `distributed` from printing tracebacks of connections that end, and every job that is cancelled.

    What a lost connection means is said by the error that ends the run.
    """
    for name in ("distributed.client", "distributed.batched", "tornado.application", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _set_up(client: Any, lifetime: float | None = None, stagger: float = 0.0) -> None:
    """Give all workers, those to come included, the worker plugin."""
    from pipeline.worker_setup import WorkerSetup

    try:
        client.register_plugin(WorkerSetup(lifetime, stagger))
    except ImportError as error:
        raise LocomassError(
            f"the workers cannot import this program ({error}); install it for their Python, or set `python` and "
            f"`setup` in the cluster file"
        ) from None


def make_job_cluster(config: ClusterConfig) -> Any:
    """Return the dask-jobqueue cluster of a configuration; no job is submitted yet.

    Raises:
        LocomassError: its scheduler cannot start, for instance because the network interface does not exist.
    """
    import dask
    import dask_jobqueue

    pays = "account" if config.scheduler in ("slurm", "pbs") else "project"
    options: dict[str, Any] = {
        "queue": config.queue,
        pays: config.account,
        "cores": config.cores,
        "processes": config.processes,
        "memory": config.memory,
        "walltime": _format_walltime(config),
        "local_directory": config.local_directory,
        "log_directory": config.log_directory,
        "interface": config.interface,
        "python": config.python or sys.executable,
        "job_script_prologue": [*_environment(), *config.setup],
        "job_extra_directives": list(config.job_extra),
        "death_timeout": config.death_timeout,
        "job_name": "locomass",
        "scheduler_options": {"dashboard_address": ":0", "scheduler_file": config.scheduler_file},
    }
    if config.scheduler in ("sge", "pbs"):
        options["resource_spec"] = config.resource_spec
    try:
        with dask.config.set({"distributed.scheduler.allowed-failures": config.retries}):
            return getattr(dask_jobqueue, f"{config.scheduler.upper()}Cluster")(**options)
    except (OSError, RuntimeError, ValueError) as error:
        raise LocomassError(f"cannot start a scheduler for {config.scheduler}: {error}") from None


def _environment() -> list[str]:
    """Return the shell lines that limit BLAS and, when the program runs from a checkout, let workers import it."""
    lines = [f"export {name}={value}" for name, value in BLAS_LIMITS.items()]
    root = Path(__file__).resolve().parents[1]
    if root.name not in ("site-packages", "dist-packages"):
        lines.append(f"export PYTHONPATH={shlex.quote(str(root))}${{PYTHONPATH:+:$PYTHONPATH}}")
    return lines


def _format_walltime(config: ClusterConfig) -> str:
    """Return the walltime in hours, minutes and seconds; LSF has no seconds."""
    minutes, seconds = divmod(int(parse_walltime(config.walltime)), 60)
    clock = f"{minutes // 60}:{minutes % 60:02d}"
    return clock if config.scheduler == "lsf" else f"{clock}:{seconds:02d}"


@contextmanager
def _start_jobs(config: ClusterConfig, where: str) -> Iterator[ClusterExecutor]:
    """Submit the first jobs, let their number follow the work, and cancel them at the end."""
    from distributed import Client, Status

    _quieten()
    with make_job_cluster(config) as cluster, Client(cluster, set_as_default=False) as client:
        _set_up(client, config.lifetime, stagger=parse_walltime(config.margin) / 2)
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
        yield ClusterExecutor(client, parse_memory(config.memory) / config.cores)


def _await_worker(client: Any, config: ClusterConfig) -> None:
    """Wait for the first job to start, however long the queue is, and say so now and then."""
    start = time.monotonic()
    log.info("jobs are submitted to queue %s; waiting for the first to start", config.queue)
    while True:
        try:
            client.wait_for_workers(1, timeout=REPORT_SECONDS)
        except TimeoutError:
            minutes = (time.monotonic() - start) / 60
            log.info("no worker after %.0f minutes; if jobs come and go, see %s/", minutes, config.log_directory)
        else:
            return
