"""What differs between batch systems: names of commands and options, and how a walltime is written.

One class each. `jobs` knows nothing of any of them; a new one is a class here, a value of `scheduler` in `cluster_file`
and an example in configs/cluster.
"""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Any

from locomass.errors import ConfigError
from locomass.executors.base import parse_memory

if TYPE_CHECKING:
    from locomass.executors.cluster_file import ClusterConfig


class BatchSystem:
    """A batch system.

    Attributes:
        name: as in a cluster file; with ``Cluster`` behind it the class of dask-jobqueue.
        submit, cancel: commands that submit a job script, and that cancel the job of a given number.
        queues: command that lists the queues.
    """

    name: str
    submit: str
    cancel: str
    queues: str

    def options(self, config: ClusterConfig) -> dict[str, Any]:
        """Return the options of dask-jobqueue that only this system has, or names in its own way."""
        raise NotImplementedError

    def directives(self, config: ClusterConfig) -> list[str]:
        """Return directives of the job script beside those of dask-jobqueue."""
        return []

    def check(self, config: ClusterConfig, where: str) -> None:
        """Raise ConfigError where a key is set that this system has no use for."""
        if config.memory_request != "job":
            raise ConfigError(f"{where} memory_request: is for Slurm; with {self.name} use resource_spec or job_extra")

    def format_walltime(self, seconds: float) -> str:
        """Return a walltime as ``H:MM:SS``."""
        minutes, rest = divmod(int(seconds), 60)
        return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


class Slurm(BatchSystem):
    """Slurm."""

    name, submit, cancel, queues = "slurm", "sbatch", "scancel", "sinfo -s"

    def options(self, config: ClusterConfig) -> dict[str, Any]:
        """Return the account; without ``--mem`` where the site wants memory per core, or none."""
        skip = [] if config.memory_request == "job" else ["--mem="]
        return {"account": config.account, "job_directives_skip": skip}

    def directives(self, config: ClusterConfig) -> list[str]:
        """Return the memory per core, in MiB, where it is asked for in this way."""
        if config.memory_request != "core":
            return []
        return [f"--mem-per-cpu={ceil(parse_memory(config.memory) / 2**20 / config.cores)}M"]

    def check(self, config: ClusterConfig, where: str) -> None:
        """Raise ConfigError where resources are asked for in the words of SGE or PBS."""
        _refuse_resource_spec(self, config, where)


class PBS(BatchSystem):
    """PBS Pro, OpenPBS, Torque."""

    name, submit, cancel, queues = "pbs", "qsub", "qdel", "qstat -Q"

    def options(self, config: ClusterConfig) -> dict[str, Any]:
        """Return the account and the request of resources."""
        return {"account": config.account, "resource_spec": config.resource_spec}


class SGE(BatchSystem):
    """Sun, Son of, and Univa Grid Engine."""

    name, submit, cancel, queues = "sge", "qsub", "qdel", "qconf -sql"

    def options(self, config: ClusterConfig) -> dict[str, Any]:
        """Return the project and the request of resources."""
        return {"project": config.account, "resource_spec": config.resource_spec}


class LSF(BatchSystem):
    """IBM Spectrum LSF."""

    name, submit, cancel, queues = "lsf", "bsub", "bkill", "bqueues"

    def options(self, config: ClusterConfig) -> dict[str, Any]:
        """Return the project."""
        return {"project": config.account}

    def check(self, config: ClusterConfig, where: str) -> None:
        """Raise ConfigError where a key of SGE, PBS or Slurm is set."""
        super().check(config, where)
        _refuse_resource_spec(self, config, where)

    def format_walltime(self, seconds: float) -> str:
        """Return a walltime as ``H:MM``: LSF has no seconds."""
        minutes = int(seconds) // 60
        return f"{minutes // 60}:{minutes % 60:02d}"


def _refuse_resource_spec(system: BatchSystem, config: ClusterConfig, where: str) -> None:
    """Raise where a system without `resource_spec` is given one: it would not be used."""
    if config.resource_spec is not None:
        raise ConfigError(f"{where} resource_spec: is for SGE and PBS; with {system.name} use job_extra")


BATCH_SYSTEMS: dict[str, BatchSystem] = {system.name: system for system in (Slurm(), PBS(), SGE(), LSF())}
