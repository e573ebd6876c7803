"""A file of configs/cluster: how workers are started."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from locomass.config import read_struct
from locomass.errors import ConfigError
from locomass.executors.batch_systems import BATCH_SYSTEMS

LOOPBACK = "127.0.0.1:0"  # where a dashboard listens unless somebody asks for more

# what goes into a directive of a job script: no blank, quote or other character that the batch system or a shell reads
Word = Annotated[str, Meta(pattern=r"^[\w.@:+,/%=~-]+$")]
Line = Annotated[str, Meta(min_length=1, pattern=r"^[^\x00-\x1f\x7f-\x9f]+$")]
Listen = Annotated[str, Meta(pattern=r"^(off|[\w.\[\]:-]+:\d{1,5})$")]
Walltime = Annotated[str, Meta(pattern=r"^(\d+-)?\d{1,4}:[0-5]\d:[0-5]\d$")]
Memory = Annotated[str, Meta(pattern=r"^\d+(\.\d+)? ?[kKMGT](i?B)?$")]


class ClusterConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """A file of configs/cluster: how workers are started."""

    scheduler: Annotated[Literal["local", "slurm", "sge", "pbs", "lsf"], Meta(description="who starts the workers")]
    queue: Annotated[Word | None, Meta(description="partition or queue that jobs go to; needed unless local")] = None
    account: Annotated[Word | None, Meta(description="account or project that pays")] = None
    cores: Annotated[int, Meta(ge=1, le=1024, description="cores of a job")] = 1
    processes: Annotated[int, Meta(ge=1, le=1024, description="worker processes in a job; they share its cores")] = 1
    memory: Annotated[Memory, Meta(description="memory of a job, such as `4 GB`; a worker above it is restarted")] = (
        "4 GB"
    )
    memory_request: Annotated[
        Literal["job", "core", "none"],
        Meta(description="Slurm: whether memory is asked for with `--mem`, with `--mem-per-cpu`, or not at all"),
    ] = "job"
    walltime: Annotated[Walltime, Meta(description="longest life of a job, H:MM:SS or D-HH:MM:SS")] = "1:00:00"
    margin: Annotated[
        Walltime, Meta(description="a worker takes no new batch this long before the walltime; above any batch")
    ] = "0:10:00"
    min_workers: Annotated[int, Meta(ge=0, description="workers that are always kept")] = 1
    max_workers: Annotated[int, Meta(ge=1, description="most workers at a time; jobs follow the work left")] = 10
    local_directory: Annotated[Line | None, Meta(description="scratch folder on the nodes")] = None
    log_directory: Annotated[Word, Meta(description="where jobs leave their output")] = "cluster-logs"
    scheduler_file: Annotated[
        str | None, Meta(description="where the scheduler writes its address, for `--cluster FILE.json` elsewhere")
    ] = None
    dashboard: Annotated[
        Listen, Meta(description="where the Dask dashboard listens, `host:port`, or `off`; it has no password")
    ] = LOOPBACK
    interface: Annotated[Word | None, Meta(description="network interface that nodes share, such as ib0")] = None
    python: Annotated[Line | None, Meta(description="Python of the workers; default: the one that runs now")] = None
    setup: Annotated[list[Line], Meta(description="shell lines before the worker: module load, conda activate")] = []
    resource_spec: Annotated[
        Line | None, Meta(description="SGE and PBS: the `-l` request where the site has its own words")
    ] = None
    job_extra: Annotated[list[Line], Meta(description="further directives, without #SBATCH, #$, #PBS, #BSUB")] = []
    death_timeout: Annotated[
        int, Meta(ge=10, description="seconds after which a worker without a scheduler ends itself")
    ] = 300
    retries: Annotated[int, Meta(ge=0, le=20, description="workers a batch may lose before the run stops")] = 3

    @property
    def lifetime(self) -> float:
        """Seconds after which a worker takes no new batch."""
        return parse_walltime(self.walltime) - parse_walltime(self.margin)


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
            command = BATCH_SYSTEMS[config.scheduler].queues
            raise ConfigError(f"{where} queue: is missing; name the queue that jobs go to (`{command}` lists them)")
        if config.lifetime < parse_walltime(config.margin):
            raise ConfigError(
                f"{where} walltime: {config.walltime} leaves no time for batches with a margin of {config.margin}; ask "
                f"for at least twice the margin"
            )
        BATCH_SYSTEMS[config.scheduler].check(config, where)
    elif config.queue or config.account or config.job_extra:
        raise ConfigError(f"{where} scheduler: 'local' has no queue, account or job_extra; remove them")
    if config.min_workers > config.max_workers:
        raise ConfigError(f"{where} min_workers: {config.min_workers} is above max_workers ({config.max_workers})")
    if config.processes > config.cores:
        raise ConfigError(
            f"{where} processes: {config.processes} is above cores ({config.cores}); use at most one each"
        )
    return config
