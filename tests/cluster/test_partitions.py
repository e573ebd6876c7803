"""Runs by hand (init, run, missing, finalise), and what `locomass status` says of them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from locomass.commands.outcome import Outcome, Resources
from locomass.commands.partitions import (
    Planned,
    finalise_partitions,
    init_partitions,
    list_missing,
    run_partition,
    run_partitions,
    write_array,
)
from locomass.commands.run import run_study
from locomass.errors import InputError
from locomass.run.directory import describe_status
from locomass.run.lock import hold_lock
from tests.factories import make_study

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _one_gene_per_batch(monkeypatch):
    monkeypatch.setattr("locomass.scores.BATCH_PAIRS", 0)
    monkeypatch.setattr("locomass.meta.tasks.GENES_PER_TASK", 1)


@pytest.fixture
def study(tmp_path) -> Path:
    """The configuration of a small study."""
    return make_study(4).write(tmp_path / "study")


def test_a_run_by_hand_equals_a_run(study, read_tables, tmp_path):
    out, resources = tmp_path / "hand", Resources(threads=1)
    planned = init_partitions(study, out, resources)
    assert planned == Planned(out, 6, (0, 1, 2, 3, 4, 5))
    for number in (5, 3, 1, 0, 2):
        assert run_partition(out, number)
    assert not run_partition(out, 3)  # it is there
    assert list_missing(out) == [4]
    with pytest.raises(InputError, match=r"1 batches are missing: 4; run them: locomass plan run .*hand NUMBER"):
        finalise_partitions(study, out, resources)
    run_partition(out, 4)
    planned = finalise_partitions(study, out, resources)  # the gene tests come next
    assert isinstance(planned, Planned)
    for number in planned.missing:
        run_partition(out, number)
    assert finalise_partitions(study, out, resources) == Outcome(out, 0)
    assert (out / "report.html").exists()
    assert read_tables(out) == read_tables(run_study(study, tmp_path / "whole", resources, "meta").path)
    with pytest.raises(InputError, match="has no batches waiting"):
        run_partition(out, 0)


@pytest.mark.ci
def test_batches_run_at_the_same_time_in_processes_of_their_own(study, tmp_path):
    out = tmp_path / "out"
    init_partitions(study, out, Resources(threads=1))
    program = "import sys; from pathlib import Path; from locomass.commands.partitions import run_partition as run\n"
    program += "for k in sys.argv[2:]: run(Path(sys.argv[1]), int(k))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    running = [
        subprocess.Popen([sys.executable, "-c", program, str(out), *numbers], env=environment)
        for numbers in ("012345", "543210")
    ]
    assert [process.wait() for process in running] == [0, 0]
    assert list_missing(out) == []


def test_a_plain_run_goes_on_from_what_was_run_by_hand(study, tmp_path):
    out = tmp_path / "out"
    init_partitions(study, out, Resources(threads=1))
    run_partition(out, 2)
    part = next(out.glob("parts/score_statistics/*/genes-00002.parquet"))
    content, before = part.read_bytes(), part.stat().st_mtime_ns
    seen = []
    from locomass import scores as score_statistics

    original = score_statistics.write_bundle
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            score_statistics, "write_bundle", lambda *args: (seen.append(part.stat().st_mtime_ns), original(*args))
        )
        run_study(study, out, Resources(threads=1), "meta")
    assert seen == [before]
    assert (out / "bundle" / "genes" / "00002.parquet").read_bytes() == content


@pytest.mark.parametrize("number", [-1, 6])
def test_run_partition__raises_beyond_the_last(study, tmp_path, number):
    init_partitions(study, tmp_path / "out", Resources(threads=1))
    with pytest.raises(InputError, match=rf"batch {number} of 0 to 5 was asked for"):
        run_partition(tmp_path / "out", number)


def test_run_partition__raises_on_a_damaged_list(study, tmp_path):
    init_partitions(study, tmp_path / "out", Resources(threads=1))
    path = tmp_path / "out" / "parts" / "tasks.pickle"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match=r"tasks\.pickle is damaged.*run init again"):
        run_partition(tmp_path / "out", 0)


def test_missing_batches_in_the_words_of_array_jobs():
    assert write_array((0, 1, 2, 5, 7, 8)) == "0-2,5,7-8"
    assert write_array((4,)) == "4"
    assert write_array(range(4_000)) == "0-999"  # Slurm: MaxArraySize is 1001, and numbers are below it
    assert write_array((5, 1_005, 2_006), 1000) == "5-6"
    assert write_array((5, 1_005), 0) == "5,1005"


def test_an_array_of_fewer_jobs_than_batches_runs_them_all(study, tmp_path):
    out = tmp_path / "out"
    planned = init_partitions(study, out, Resources(threads=1))
    assert write_array(planned.missing, 4) == "0-3"
    done = [number for job in range(4) for number, computed in run_partitions(out, [job], 4) if computed]
    assert done == [0, 4, 1, 5, 2, 3]
    assert list_missing(out) == []
    assert [computed for _, computed in run_partitions(out, [0], 4)] == [False, False]


# ---- status ----


def test_status__of_a_run_by_hand(study, tmp_path):
    out = tmp_path / "out"
    init_partitions(study, out, Resources(threads=1))
    run_partition(out, 0)
    (part,) = out.glob("parts/score_statistics/*/genes-00000.parquet")
    assert describe_status(out) == [
        "no run is going on",
        "predict: done",
        "denoise: done",
        "score statistics: begun, 1 of 6 batches are there; missing: 1, 2, 3, 4, 5",
        "meta: not begun",
        "report: not begun",
    ]
    part.write_bytes(part.read_bytes()[:-10])
    assert "score statistics: begun, 0 of 6 batches are there; missing: 0, 1, 2, 3, 4, 5" in describe_status(out)


def test_status__of_a_finished_run_and_of_one_that_was_spoilt(study, tmp_path):
    out = run_study(study, tmp_path / "out", Resources(threads=1), "meta").path
    assert describe_status(out)[1:] == [
        "predict: done", "denoise: done", "score statistics: done", "meta: done", "report: not begun",
    ]  # fmt: skip
    (out / "gene_tests.parquet").unlink()
    assert "meta: outputs were changed or removed; it will run again" in describe_status(out)


def test_status__says_who_holds_the_directory(tmp_path):
    with hold_lock(tmp_path):
        assert describe_status(tmp_path)[0] == f"in use by process {os.getpid()} on {socket.gethostname()}"
    for text in ('{"host": "elsewhere", "pid": 7}', f'{{"host": "{socket.gethostname()}", "pid": 1}}', "", "[]"):
        (tmp_path / ".lock").write_text(text)
        assert "was stopped; the next run takes over" in describe_status(tmp_path)[0]


def test_status__raises_elsewhere(tmp_path):
    with pytest.raises(InputError, match=r"holds no plan\.json: it is not the output directory of a run"):
        describe_status(tmp_path)
