"""Case 30: whatever an ended run left behind, the next one starts; signals end a run with one line."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from locomass.errors import LockError
from locomass.run.directory import RunDirectory
from locomass.run.lock import LOCK, hold_lock, lock_state
from tests.factories import make_study

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"host": "node017", "pid": 4242}),
        json.dumps({"host": socket.gethostname(), "pid": 1}),  # of a container; alive for ever
        json.dumps({"host": socket.gethostname(), "pid": os.getppid()}),  # a number that is in use again
        json.dumps({"host": socket.gethostname(), "pid": "abc"}),
        json.dumps({"host": socket.gethostname(), "pid": None}),
        "",
        "[1, 2]",
        "{half",
        "[" * 3000,
        "\x00\xff",
    ],
)
def test_a_lock_that_nobody_holds_is_taken_over(tmp_path, text):
    (tmp_path / LOCK).write_text(text, encoding="latin-1")
    assert lock_state(tmp_path)["state"] == "stopped"
    with RunDirectory(tmp_path).lock():
        assert json.loads((tmp_path / LOCK).read_text()) == {"host": socket.gethostname(), "pid": os.getpid()}
        assert lock_state(tmp_path)["state"] == "held"
    assert lock_state(tmp_path) == {"state": "free"}


def test_a_lock_of_another_process_holds_until_that_is_killed(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from locomass.run.lock import hold_lock\n"
        "with hold_lock(Path(sys.argv[1])):\n    print('held', flush=True); time.sleep(60)\n"
    )
    other = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    with pytest.raises(LockError, match=f"in use by process {other.pid} on ") as error, hold_lock(tmp_path):
        pass
    assert error.value.exit_code == 75
    other.kill()
    other.wait()
    other.stdout.close()
    assert (tmp_path / LOCK).exists()
    with hold_lock(tmp_path):
        pass


def test_runs_that_start_at_once_hold_it_one_after_the_other(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from locomass.errors import LockError\n"
        "from locomass.run.lock import hold_lock\n"
        "folder, taken = Path(sys.argv[1]), 0\n"
        "while taken < 40:\n"
        "    try:\n"
        "        with hold_lock(folder):\n"
        "            (folder / 'alone').mkdir(); time.sleep(0.0005); (folder / 'alone').rmdir(); taken += 1\n"
        "    except LockError:\n        time.sleep(0.0002)\n"
    )
    runs = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) for _ in range(3)]
    assert [run.wait(60) for run in runs] == [0, 0, 0]


@pytest.mark.parametrize(
    ("number", "code", "line"),
    [
        (signal.SIGTERM, 143, "stopped by SIGTERM; run the same command again to resume"),
        (signal.SIGHUP, 129, "stopped by SIGHUP; run the same command again to resume"),
        (signal.SIGINT, 130, "interrupted; run the same command again to resume"),
    ],
)
def test_a_signal_ends_a_run_with_one_line(tmp_path, number, code, line):
    config, out = make_study(4).write(tmp_path / "study"), tmp_path / "out"
    program = "from locomass.cli import main; main()"
    command = [sys.executable, "-c", program, "run", str(config), "--out", str(out), "--quiet"]
    run = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while not (out / LOCK).exists() and run.poll() is None:
        time.sleep(0.01)
    time.sleep(0.1)
    run.send_signal(number)
    _, said = run.communicate(timeout=60)
    assert run.returncode == code
    assert said.strip() == line  # click ends the line of ^C
    assert not (out / LOCK).exists()


def test_half_written_files_go_at_the_next_start(tmp_path):
    left = [tmp_path / ".x.parquet.abc.partial", tmp_path / "parts" / "meta" / ".y.abc.partial"]
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("half")
    for name in (".bundle.abc.partial", ".bundle.abc.old"):
        (tmp_path / name / "genes").mkdir(parents=True)
    with RunDirectory(tmp_path).lock():
        assert sorted(p.name for p in tmp_path.rglob("*")) == [LOCK, "meta", "parts"]


def test_the_recipe_for_cron_mails_when_no_look_ends_well(tmp_path):
    """The two lines of the crontab, as `sh` runs them: a mail is what they print."""
    text = (RECIPES / "cron.txt").read_text().replace("/data/study", str(tmp_path))
    program = tmp_path / "locomass"
    program.write_text('#!/bin/sh\necho "error: $WHY" >&2\nexit $CODE\n')
    program.chmod(0o755)
    lines = [line.split(maxsplit=5)[5] for line in text.splitlines() if line and line[0] != "#"]
    night, morning = (line.replace("/opt/locomass/.venv/bin/locomass", str(program)) for line in lines)

    def mail(command: str, code: int = 0, why: str = "") -> str:
        environment = {**os.environ, "CODE": str(code), "WHY": why}
        return subprocess.run(["sh", "-c", command], capture_output=True, text=True, env=environment).stdout

    assert mail(night, 75, "in use") == ""
    assert mail(night, 2, "no such file") == "error: no such file\n"
    assert mail(morning).startswith("no look at ")  # it never ended well
    (tmp_path / "results").mkdir()
    stamp = tmp_path / "results" / "last-look"
    stamp.touch()
    assert mail(morning) == ""
    os.utime(stamp, (time.time() - 3 * 86400,) * 2)
    assert mail(morning).startswith("no look at ")
