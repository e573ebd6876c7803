"""Cluster files, the job scripts made of them, and what goes wrong before a job runs."""

from __future__ import annotations

import re
import shlex
import threading
import time
from pathlib import Path

import pytest

from locomass.config import describe_keys
from locomass.errors import ConfigError, LocomassError
from locomass.executors import ThreadExecutor, open_executor
from locomass.executors.batch_systems import BATCH_SYSTEMS
from locomass.executors.cluster_file import ClusterConfig, load_cluster_config, parse_walltime
from locomass.executors.credentials import credentials_file
from locomass.executors.jobs import make_job_cluster

CONFIGS = Path(__file__).parents[2] / "configs" / "cluster"
SLURM = {"scheduler": "slurm", "queue": "long", "cores": 4, "memory": "8 GB", "walltime": "1-02:00:00"}


@pytest.fixture
def cluster_file(tmp_path):
    """A writer of cluster files."""

    def write(text: str) -> Path:
        path = tmp_path / "cluster.yaml"
        path.write_text(text)
        return path

    return write


@pytest.fixture
def job_script(tmp_path, monkeypatch):
    """Job script of a configuration; its log folder is made below tmp_path."""
    monkeypatch.chdir(tmp_path)

    def make(**keys) -> str:
        with (
            credentials_file(tmp_path / "with a blank") as credentials,
            make_job_cluster(ClusterConfig(**keys), credentials) as cluster,
        ):
            return cluster.job_script()

    return make


def test_every_scheduler_has_an_example():
    assert {p.stem for p in CONFIGS.glob("*.yaml")} == {"local", *BATCH_SYSTEMS}


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda p: p.stem)
def test_examples_load_and_name_their_scheduler(path):
    assert load_cluster_config(path).scheduler == path.stem


def test_every_key_has_a_line_of_help():
    lacking = [key for key, _, _, text in describe_keys(ClusterConfig) if not text]
    assert lacking == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("scheduler: slurm\nqeue: x", r"line 2: unknown key 'qeue'; did you mean 'queue'\?"),
        ("scheduler: slurm\ncores: 2", r"key queue: is missing; name the queue .*`sinfo -s` lists them"),
        ("scheduler: lsf", r"key queue: is missing.*`bqueues`"),
        ("queue: x", r"line 1: .*missing required field `scheduler`"),
        ("scheduler: torque\nqueue: x", r"line 1, key scheduler: Invalid enum value 'torque'"),
        ("scheduler: slurm\nqueue: x\ncores: 0", r"line 3, key cores: Expected `int` >= 1"),
        ("scheduler: slurm\nqueue: x\ncores: two", r"line 3, key cores: Expected `int`, got `str`"),
        ("scheduler: slurm\nqueue: x\nmemory: much", r"line 3, key memory: "),
        ("scheduler: slurm\nqueue: x\nmemory: 4", r"line 3, key memory: Expected `str`, got `int`"),
        ("scheduler: slurm\nqueue: x\nwalltime: 1 hour", r"line 3, key walltime: "),
        ("scheduler: slurm\nqueue: x\nwalltime: '0:15:00'", r"walltime: 0:15:00 leaves no time .* margin of 0:10:00"),
        ("scheduler: slurm\nqueue: x\nmin_workers: 9\nmax_workers: 3", r"min_workers: 9 is above max_workers \(3\)"),
        ("scheduler: slurm\nqueue: x\nprocesses: 2", r"processes: 2 is above cores \(1\)"),
        ("scheduler: slurm\nqueue: x\njob_extra: --x", r"line 3, key job_extra: Expected `array`"),
        ("scheduler: local\nqueue: x", r"'local' has no queue"),
        ("scheduler: slurm\nqueue: 'x y'", r"line 2, key queue: "),
        ('scheduler: slurm\nqueue: "x\\n#SBATCH --uid=0"', r"line 2, key queue: "),
        ("scheduler: slurm\nqueue: x\naccount: $(id)", r"line 3, key account: "),
        ('scheduler: slurm\nqueue: x\njob_extra: ["-C a\\nrm -rf /"]', r"line 3, key job_extra.0: "),
        ("scheduler: slurm\nqueue: x\nlog_directory: my logs", r"line 3, key log_directory: "),
        ('scheduler: slurm\nqueue: x\npython: "py\\nid"', r"line 3, key python: "),
        (
            "scheduler: slurm\nqueue: x\nresource_spec: mem=2G",
            r"resource_spec: is for SGE and PBS; with slurm",
        ),
        (
            "scheduler: lsf\nqueue: x\nresource_spec: mem=2G",
            r"resource_spec: is for SGE and PBS; with lsf",
        ),
        ("scheduler: sge\nqueue: x\nmemory_request: core", r"memory_request: is for Slurm; with sge use resource_spec"),
        ("scheduler: slurm\nqueue: x\ndashboard: everybody", r"line 3, key dashboard: "),
        ("scheduler: slurm\nqueue: x\nqueue: y", r"line 3: .*'queue' is given twice"),
    ],
)
def test_load_cluster_config__raises_and_names_file_and_key(cluster_file, text, message):
    path = cluster_file(text)
    with pytest.raises(ConfigError, match=message) as error:
        load_cluster_config(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(("text", "seconds"), [("0:00:30", 30), ("100:00:00", 360_000), ("2-01:00:05", 176_405)])
def test_parse_walltime(text, seconds):
    assert parse_walltime(text) == seconds


def test_lifetime_ends_a_margin_before_the_walltime():
    assert ClusterConfig(**SLURM, margin="0:30:00").lifetime == 25.5 * 3600


def directives(script: str, mark: str) -> list[str]:
    return [line.removeprefix(mark).strip() for line in script.splitlines() if line.startswith(mark)]


def test_job_script__slurm(job_script):
    script = job_script(**SLURM, account="grant", job_extra=["--constraint=avx2"], log_directory="logs")
    assert directives(script, "#SBATCH") == [
        "-J locomass",
        "-e logs/locomass-%J.err",
        "-o logs/locomass-%J.out",
        "-p long",
        "-A grant",
        "-n 1",
        "--cpus-per-task=4",
        "--mem=8G",
        "-t 26:00:00",
        "--constraint=avx2",
    ]


@pytest.mark.parametrize(
    ("request_", "expected"), [("job", ["--mem=8G"]), ("core", ["--mem-per-cpu=1908M"]), ("none", [])]
)
def test_job_script__slurm_memory_is_asked_for_as_the_site_wants(job_script, request_, expected):
    found = directives(job_script(**SLURM, memory_request=request_), "#SBATCH")
    assert [line for line in found if "mem" in line] == expected


def test_job_script__values_are_quoted(job_script):
    script = job_script(**SLURM, python="/opt/my py/bin/python", local_directory="/scratch/$(touch x)'; id #")
    words = shlex.split(next(line for line in script.splitlines() if "dask_worker" in line))
    assert words[0] == "/opt/my py/bin/python"
    assert words[words.index("--local-directory") + 1] == "/scratch/$(touch x)'; id #"


def test_job_script__names_the_credentials_and_holds_none(job_script):
    script = job_script(**SLURM)
    assert "PRIVATE KEY" not in script
    assert "--protocol tls://" in script
    assert "export PYTHONSAFEPATH=1" in script.splitlines()  # nothing is imported from where a job starts
    named = [line for line in script.splitlines() if "COMM__TLS" in line]
    assert len(named) == 3
    assert all(shlex.split(line)[1].endswith("/run.pem") for line in named)  # one word, though the folder has a blank


def test_credentials_are_private_and_gone_after_the_run(tmp_path):
    with credentials_file(tmp_path / "logs") as path:
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.parent.stat().st_mode & 0o777 == 0o700
        assert path.read_text().count("BEGIN") == 2
    assert list((tmp_path / "logs").iterdir()) == []


def test_job_script__sge(job_script):
    script = job_script(
        scheduler="sge", queue="all.q", account="grant", cores=2, walltime="2:00:00", resource_spec="h_vmem=2G",
        job_extra=["-pe smp 2"],
    )  # fmt: skip
    found = directives(script, "#$")
    assert {"-q all.q", "-P grant", "-l h_vmem=2G", "-l h_rt=2:00:00", "-pe smp 2", "-cwd"} <= set(found)


def test_job_script__pbs(job_script):
    script = job_script(scheduler="pbs", queue="workq", account="grant", cores=3, memory="3 GiB", walltime="0:40:00")
    found = directives(script, "#PBS")
    assert {"-q workq", "-A grant", "-l select=1:ncpus=3:mem=3072MB", "-l walltime=0:40:00"} <= set(found)


def test_job_script__lsf(job_script):
    script = job_script(scheduler="lsf", queue="normal", account="grant", cores=2, walltime="1-02:30:00")
    found = directives(script, "#BSUB")
    assert {"-q normal", '-P "grant"', "-n 2", '-R "span[hosts=1]"', "-W 26:30"} <= set(found)


@pytest.mark.parametrize("scheduler", sorted(BATCH_SYSTEMS))
def test_job_script__worker_is_bounded_in_blas_threads_memory_and_patience(job_script, scheduler):
    script = job_script(
        scheduler=scheduler, queue="q", cores=4, processes=2, memory="8 GiB", python="/opt/py", death_timeout=77,
        local_directory="/scratch", setup=["module load python"],
    )  # fmt: skip
    lines = script.splitlines()
    command = next(k for k, line in enumerate(lines) if line.startswith("/opt/py -m distributed"))
    for line in ("export OMP_NUM_THREADS=1", "export OPENBLAS_NUM_THREADS=1", "module load python"):
        assert lines.index(line) < command
    words = shlex.split(lines[command])
    options = dict(zip(words, words[1:], strict=False))
    assert options["--nthreads"] == "2"
    assert options["--nworkers"] == "2"
    assert options["--memory-limit"] == "4.00GiB"
    assert options["--death-timeout"] == "77"
    assert options["--local-directory"] == "/scratch"
    assert re.match(r"tls://[\d.]+:\d+", words[3])


def test_make_job_cluster__raises_on_an_unknown_interface(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with (
        credentials_file(tmp_path) as credentials,
        pytest.raises(LocomassError, match=r"cannot start a scheduler for slurm: .*'nowhere0'"),
    ):
        make_job_cluster(ClusterConfig(**SLURM, interface="nowhere0"), credentials)


def test_open_executor__raises_where_the_batch_system_is_not_installed(cluster_file, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    path = cluster_file("scheduler: lsf\nqueue: x")
    with pytest.raises(LocomassError, match=r"needs the command `bsub`, .*login node"), open_executor(cluster=path):
        pass


def test_open_executor__raises_on_workers_and_cluster():
    with pytest.raises(ConfigError, match="--workers or --cluster, not both"), open_executor(2, cluster="x.yaml"):
        pass


def test_open_executor__raises_when_no_scheduler_answers(monkeypatch):
    monkeypatch.setattr("locomass.executors.scheduler.CONNECT_SECONDS", 0.5)
    address = "tcp://127.0.0.1:9"
    with (
        pytest.raises(LocomassError, match=r"no Dask scheduler answers .*start one with `dask scheduler`"),
        open_executor(cluster=address),
    ):
        pass


def test_open_executor__raises_on_a_missing_scheduler_file(tmp_path):
    with (
        pytest.raises(LocomassError, match="no such scheduler file"),
        open_executor(cluster=tmp_path / "scheduler.json"),
    ):
        pass


def test_threads__results_are_in_order_and_every_step_is_told():
    steps: list[int] = []
    with open_executor(threads=2) as executor:
        assert isinstance(executor, ThreadExecutor)
        assert executor.run(lambda x: x * x, range(20), lambda: steps.append(1)) == [x * x for x in range(20)]
        assert executor.run(lambda x: -x, [3], lambda: steps.append(1)) == [-3]
        assert executor.run(lambda x: x, []) == []
    assert len(steps) == 21


def test_threads__map_takes_columns_and_keeps_the_bound():
    running, most = 0, 0
    lock = threading.Lock()

    def add(x: int, y: int) -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.01)
        with lock:
            running -= 1
        return x + y

    with open_executor(threads=1) as executor:
        assert executor.map(add, range(6), range(10, 16)) == [10, 12, 14, 16, 18, 20]
        assert most == 1
        with pytest.raises(ValueError, match="shorter"):
            executor.map(add, [1, 2], [1])
    with open_executor(threads=2) as executor:
        executor.map(add, range(6), range(6))
    assert most == 2


def test_threads__limit_blas():
    import numpy as np
    from threadpoolctl import threadpool_info

    np.linalg.norm(np.eye(3))
    with open_executor(threads=2) as executor:
        found = executor.run(lambda _: [x["num_threads"] for x in threadpool_info()], range(2))
    assert found == [[1] * len(found[0])] * 2


def test_threads__an_error_comes_through():
    def fail(x: int) -> int:
        raise LocomassError(f"bad {x}")

    with open_executor(threads=2) as executor, pytest.raises(LocomassError, match="bad"):
        executor.run(fail, [1, 2])


def test_threads__when_a_task_fails_running_ones_end_first():
    """Or they would go on, reading files and writing parts, while the program reports the error and exits."""
    started, ended = threading.Event(), threading.Event()

    def task(x: int) -> None:
        if x == 1:
            started.wait()
            raise LocomassError("bad")
        started.set()
        time.sleep(0.3)
        ended.set()

    with open_executor(threads=2) as executor, pytest.raises(LocomassError, match="bad"):
        executor.run(task, [0, 1])
    assert ended.is_set()
