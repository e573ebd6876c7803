"""A whole run whose scheduler is killed: it ends, says so, reports nothing as done, and the next run ends it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from locomass.commands.outcome import Resources
from locomass.commands.run import run_study
from locomass.errors import LocomassError
from locomass.executors import open_executor
from locomass.executors.workers import LOST
from tests.factories import make_study

ROOT = Path(__file__).parents[2]

# every gene is a batch; after so many of them the run waits until the scheduler has been killed
RUN = """
import sys, time
from pathlib import Path
sys.path[:0] = [{root!r}]
import locomass.meta, locomass.scores
from locomass import cli
from locomass.executors import workers as cluster
locomass.scores.BATCH_PAIRS, locomass.meta.tasks.GENES_PER_TASK = 0, 1
whole, count = cluster.ClusterExecutor.run, 0

def run(self, function, items, done=None):
    self.client._timeout = 2  # seconds that it looks for the lost one; longer for the first connection
    def step():
        global count
        count += 1
        if count == {step}:
            Path({folder!r}, "waiting").touch()
            while not Path({folder!r}, "killed").exists():
                time.sleep(0.05)
    return whole(self, function, items, step)

cluster.ClusterExecutor.run = run
sys.argv = ["locomass", "run", {study!r}, "--out", {out!r}, "--cluster", {address!r}]
cli.main()
"""


def await_file(path: Path, process: subprocess.Popen[str]) -> None:
    """Wait for a file that a process will write."""
    while not path.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


@pytest.mark.ci
@pytest.mark.parametrize(("step", "stage"), [(2, "score_statistics"), pytest.param(8, "meta", marks=pytest.mark.slow)])
def test_kill_9_of_the_scheduler_and_resume(running, read_tables, tmp_path, monkeypatch, step, stage):
    address, _, scheduler = running
    study, out = make_study(4).write(tmp_path / "study"), tmp_path / "out"
    program = RUN.format(
        root=str(ROOT), step=step, folder=str(tmp_path), study=str(study), out=str(out), address=address
    )
    client = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    await_file(tmp_path / "waiting", client)
    scheduler.kill()
    scheduler.wait()
    (tmp_path / "killed").touch()
    _, messages = client.communicate(timeout=300)

    assert client.returncode == LocomassError.exit_code == 2, messages
    assert messages.splitlines()[-1] == f"error: {LOST}"
    assert "Traceback" not in messages, messages
    plan = json.loads((out / "plan.json").read_text())
    assert "meta" not in plan["stages"]
    assert stage == "meta" or "meta" not in plan["begun"]
    assert not (out / "gene_tests.parquet").exists()
    assert not (out / ".lock").exists()

    monkeypatch.setattr("locomass.scores.BATCH_PAIRS", 0)
    monkeypatch.setattr("locomass.meta.tasks.GENES_PER_TASK", 1)
    expected = run_study(study, tmp_path / "whole", Resources(threads=1), "meta").path
    assert run_study(study, out, Resources(threads=1), "meta").failed == 0
    assert read_tables(out) == read_tables(expected)


def test_a_scheduler_that_died_between_two_stages_is_the_same_error(running):
    address, _, scheduler = running
    with open_executor(cluster=address) as executor:
        executor.client._timeout = 2
        assert executor.run(abs, [-1, 2]) == [1, 2]
        scheduler.kill()
        scheduler.wait()
        for _ in range(3):  # before the client knows, while it tries to connect again, and when it has given up
            with pytest.raises(LocomassError, match=LOST):
                executor.run(abs, [-1, 2])
