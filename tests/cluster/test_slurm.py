"""The whole pipeline on a real Slurm: the same tables as threads give, byte for byte."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import cluster_guide
from locomass.commands.outcome import Resources
from locomass.commands.partitions import write_array
from locomass.commands.run import run_study
from locomass.errors import LocomassError
from locomass.executors import open_executor

pytestmark = [pytest.mark.slurm, pytest.mark.usefixtures("slurm")]


@pytest.fixture
def cluster_file(tmp_path):
    """A writer of cluster files for the one-node Slurm."""

    def write(**keys: str) -> Path:
        options = {"queue": "main", "memory": "1 GB", "walltime": '"1:00:00"', "max_workers": "2"} | keys
        options.setdefault("log_directory", str(tmp_path / "logs"))
        path = tmp_path / "slurm.yaml"
        path.write_text("scheduler: slurm\n" + "".join(f"{key}: {value}\n" for key, value in options.items()))
        return path

    return write


def queue() -> list[str]:
    """Return the jobs in the queue: `name state`."""
    return subprocess.run(["squeue", "-h", "-o", "%j %T"], capture_output=True, text=True).stdout.splitlines()


def job_state(_: int) -> str:
    """Return the name of the Slurm job that this process belongs to."""
    return os.environ["SLURM_JOB_NAME"]


def test_a_study_gives_the_same_tables_on_slurm_as_with_threads(make_cohort, cluster_file, read_tables, tmp_path):
    config = make_cohort()
    threads = run_study(config, tmp_path / "threads", Resources()).path
    cluster = run_study(config, tmp_path / "cluster", Resources(cluster=str(cluster_file()))).path
    assert read_tables(cluster) == read_tables(threads)
    assert (cluster / "report.html").exists()


def test_tasks_run_in_jobs_that_end_with_the_run(cluster_file, tmp_path):
    with open_executor(cluster=cluster_file(scheduler_file=str(tmp_path / "scheduler.json"))) as executor:
        assert executor.run(job_state, [1, 2]) == ["locomass", "locomass"]
        assert queue() == ["locomass RUNNING"]
        with open_executor(cluster=tmp_path / "scheduler.json") as guest:
            assert guest.run(job_state, [1]) == ["locomass"]
        assert (tmp_path / "scheduler.pem").stat().st_mode & 0o777 == 0o600
    assert not list(tmp_path.glob("scheduler.*"))
    deadline = time.monotonic() + 30
    while queue() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert queue() == []


def test_an_unknown_queue_is_told_in_slurms_words(cluster_file):
    path = cluster_file(queue="nowhere")
    with pytest.raises(LocomassError, match=r"slurm refused the job: .*nvalid partition"), open_executor(cluster=path):
        pass


def test_the_commands_of_the_cluster_guide_run_as_they_stand(tmp_path, capfd):
    page = (Path(__file__).parents[2] / "docs" / "cluster.md").read_text(encoding="utf-8")
    commands = cluster_guide.read_commands(page)
    assert [c.split()[0] for c in commands].count("sbatch") == 2
    cluster_guide.make_study(tmp_path / "work")
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    for command in commands:
        cluster_guide.run(command, tmp_path / "work", environment)
    said = capfd.readouterr().out
    assert [f"$ {c}" for c in commands] == [line for line in said.splitlines() if line.startswith("$ ")]
    results = tmp_path / "work" / "results"
    tables = [(results / name / "gene_tests.tsv.gz").read_bytes() for name in ("study", "by-hand")]
    assert tables[0] == tables[1]


def test_slurm_takes_the_array_of_four_thousand_batches(tmp_path):
    """And refuses the same as it is: the site's limit is real."""

    def submit(array: str) -> int:
        command = ["sbatch", "--test-only", f"--array={array}", "--wrap", "true"]
        return subprocess.run(command, cwd=tmp_path, env=os.environ, capture_output=True).returncode

    assert submit(write_array(range(4_000))) == 0
    assert submit(write_array(range(4_000), 0)) != 0
