"""The output directory: digests that tell what is stale, parts that survive, the lock."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys

import pytest

from locomass.errors import FormatError, InputError, LockError
from locomass.run.directory import PLAN, RunDirectory
from locomass.run.lock import LOCK


@pytest.fixture
def directory(tmp_path):
    return RunDirectory(tmp_path / "out")


def finished(directory, digest="d1"):
    directory.path.mkdir(exist_ok=True)
    (directory.path / "table.tsv").write_text("x")
    (directory.path / "bundle").mkdir(exist_ok=True)
    (directory.path / "bundle" / "part").write_text("12345")
    directory.finish("meta", digest, ["table.tsv", "bundle"])


def change(path):
    """Write other bytes and keep size and modification time, as a careless copy does."""
    stat = path.stat()
    path.write_text("y" * stat.st_size)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_is_done__only_with_the_same_digest(directory):
    assert not directory.is_done("meta", "d1")
    finished(directory)
    assert directory.is_done("meta", "d1")
    assert not directory.is_done("meta", "d2")
    assert not directory.is_done("denoise", "d1")


def test_is_done__survives_a_new_process(directory):
    finished(directory)
    assert RunDirectory(directory.path).is_done("meta", "d1")
    assert json.loads((directory.path / PLAN).read_text())["stages"]["meta"]["digest"] == "d1"


@pytest.mark.parametrize(
    "spoil", ["table gone", "table cut", "table changed", "part gone", "part added", "part changed"]
)
def test_is_done__not_when_outputs_are_no_longer_what_they_were(directory, spoil):
    finished(directory)
    folder = directory.path
    {
        "table gone": lambda: (folder / "table.tsv").unlink(),
        "table cut": lambda: (folder / "table.tsv").write_text(""),
        "table changed": lambda: change(folder / "table.tsv"),
        "part changed": lambda: change(folder / "bundle" / "part"),
        "part gone": lambda: (folder / "bundle" / "part").unlink(),
        "part added": lambda: (folder / "bundle" / "more").write_text(""),
    }[spoil]()
    assert not directory.is_done("meta", "d1")


@pytest.mark.parametrize("copy", [shutil.copyfile, shutil.copy2, os.link])
def test_is_done__in_a_copy_of_the_directory_whose_files_are_read_once(directory, tmp_path, monkeypatch, copy):
    finished(directory)
    directory.finish_run("r", 0)
    shutil.copytree(directory.path, tmp_path / "copy", copy_function=copy)
    copied = RunDirectory(tmp_path / "copy")
    assert copied.find_run("r", "meta") == 0
    monkeypatch.setattr("locomass.run.directory.digest_file", lambda path: pytest.fail(f"{path} was read again"))
    assert RunDirectory(copied.path).find_run("r", "meta") == 0


def test_is_done__in_a_copy_of_the_directory_that_went_wrong(directory, tmp_path):
    finished(directory)
    shutil.copytree(directory.path, tmp_path / "copy")
    (tmp_path / "copy" / "bundle" / "part").write_bytes(bytes(5))
    assert not RunDirectory(tmp_path / "copy").is_done("meta", "d1")


def test_stage_digest__depends_on_content_options_and_what_came_before(directory):
    first = directory.stage_digest("meta", {"a": "1", "b": "2"}, {"x": 1, "y": 2}, "before")
    same = [
        directory.stage_digest("meta", {"b": "2", "a": "1"}, {"y": 2, "x": 1}, "before"),
        directory.stage_digest("meta", {"moved/a": "1", "b": "2"}, {"x": 1, "y": 2}, "before"),
    ]
    other = [
        directory.stage_digest("meta", {"a": "1", "b": "3"}, {"x": 1, "y": 2}, "before"),
        directory.stage_digest("meta", {"a": "1", "b": "2"}, {"x": 1, "y": 3}, "before"),
        directory.stage_digest("meta", {"a": "1", "b": "2"}, {"x": 1, "y": 2}, "after"),
        directory.stage_digest("denoise", {"a": "1", "b": "2"}, {"x": 1, "y": 2}, "before"),
    ]
    assert same == [first, first]
    assert len({first, *other}) == 5


def test_digest_inputs__follows_content(directory, tmp_path):
    file = tmp_path / "in.txt"
    file.write_text("one")
    first = directory.digest_inputs([file])
    file.write_text("two")
    os.utime(file, ns=(1, 1))
    assert directory.digest_inputs([file]) != first
    file.write_text("one")
    os.utime(file, ns=(2, 2))
    assert directory.digest_inputs([file]) == first


def test_digest_inputs__raises_on_a_missing_file(directory, tmp_path):
    with pytest.raises(InputError, match=r"cannot read .*nowhere: No such file"):
        directory.digest_inputs([tmp_path / "nowhere"])


def test_parts_folder__keeps_parts_of_this_digest_only(directory):
    first = directory.parts_folder("meta", "a" * 32)
    (first / "part").write_text("x")
    assert directory.parts_folder("meta", "a" * 32) == first
    assert (first / "part").exists()
    second = directory.parts_folder("meta", "b" * 32)
    assert second != first
    assert not first.exists()


@pytest.mark.parametrize("text", ["{half", "[1, 2]"])
def test_run_directory__raises_on_a_damaged_plan(tmp_path, text):
    (tmp_path / PLAN).write_text(text)
    with pytest.raises(FormatError, match=r"plan\.json: .*remove it and run again"):
        RunDirectory(tmp_path)


def test_lock__is_held_and_released(directory):
    with directory.lock():
        holder = json.loads((directory.path / LOCK).read_text())
        assert holder == {"host": socket.gethostname(), "pid": os.getpid()}
        with pytest.raises(LockError, match=rf"in use by process {os.getpid()} on .*choose another --out"):
            RunDirectory(directory.path).lock().__enter__()
    assert not (directory.path / LOCK).exists()


def test_lock__is_released_after_an_error(directory):
    with pytest.raises(RuntimeError, match="boom"), directory.lock():
        raise RuntimeError("boom")
    assert not (directory.path / LOCK).exists()


def write_lock(directory, **holder):
    directory.path.mkdir()
    (directory.path / LOCK).write_text(json.dumps(holder))


def test_lock__of_a_dead_process_is_taken_over(directory):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    write_lock(directory, host=socket.gethostname(), pid=dead.pid)
    with directory.lock():
        assert json.loads((directory.path / LOCK).read_text())["pid"] == os.getpid()


def test_lock__raises_where_no_folder_can_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InputError, match="cannot write"):
            RunDirectory(place).lock().__enter__()
