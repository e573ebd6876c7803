"""Point 8: no room left on the disk, in memory or behind stdout is one message, exit 2, and can be resumed."""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from locomass.commands.outcome import Resources
from locomass.commands.run import run_study
from locomass.config import RunConfig, load_config
from locomass.errors import ConfigError, FormatError, LocomassError, describe_exhaustion
from locomass.executors.cluster_file import load_cluster_config
from locomass.executors.credentials import credentials_file, remove_abandoned
from locomass.tables.annotation.rule_file import read_rules
from locomass.tables.summary_statistics import read_metadata
from tests.factories import make_study

PROGRAM = str(Path(sys.executable).parent / "locomass")
THREAD = Resources(threads=1)


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    return make_study(2).write(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def expected(study, tmp_path_factory) -> bytes:
    out = run_study(study, tmp_path_factory.mktemp("clean") / "out", THREAD, "meta").path
    return (out / "gene_tests.tsv.gz").read_bytes()


def shell(command: str) -> tuple[int, str]:
    """Run a line of shell; return its exit code and what was written to stderr."""
    environment = {**os.environ, "PATH": f"{Path(PROGRAM).parent}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=300, env=environment)
    return done.returncode, done.stderr


@pytest.mark.parametrize("command", ["config show", "config show --json", "--help"])
def test_a_full_disk_behind_stdout(command):
    code, said = shell(f"locomass {command} > /dev/full")
    assert code == 2
    assert said.splitlines() == [
        "error: cannot read or write: No space left on device; then run the same command again to resume"
    ]


def test_a_full_disk_behind_stderr_and_both():
    assert shell("locomass status /nowhere 2> /dev/full") == (2, "")
    assert shell("locomass status /nowhere --json > /dev/full 2>&1") == (2, "")


def test_a_pager_that_was_closed_is_no_error():
    code, said = shell("locomass config show --yaml | head -1 > /dev/null; exit ${PIPESTATUS[0]}")
    assert (code in (0, 1), said) == (True, "")


@pytest.fixture
def limit_files() -> Iterator:
    """A function that limits the size of files, as a full disk does: EFBIG in place of ENOSPC."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", [4_000, *(pytest.param(s, marks=pytest.mark.ci) for s in (0, 1_000, 12_000))])
def test_a_file_that_cannot_grow_is_an_error_and_the_run_goes_on(study, expected, tmp_path, limit_files, size):
    out = tmp_path / "out"
    limit_files(size)
    try:
        with pytest.raises((LocomassError, OSError)) as error:
            run_study(study, out, THREAD, "meta")
    finally:
        limit_files(resource.RLIM_INFINITY)
    assert "File too large" in str(error.value)
    assert not list(out.rglob("gene_tests*"))
    assert run_study(study, out, THREAD, "meta").failed == 0
    assert (out / "gene_tests.tsv.gz").read_bytes() == expected
    assert not [p for p in out.rglob("*") if p.name.endswith((".partial", ".old"))]


@pytest.mark.ci
@pytest.mark.parametrize("blocks", [0, 2, 8, 24])
def test_the_command_says_it_in_one_line(study, expected, tmp_path, blocks):
    out = tmp_path / "out"
    code, said = shell(f"ulimit -f {blocks}; locomass run {study} --out {out} --threads 1 --quiet")
    assert (code, said.count("\n"), "Traceback" in said) == (2, 1, False), said
    assert "File too large" in said
    assert shell(f"locomass run {study} --out {out} --threads 1 --quiet") == (0, "")
    assert (out / "gene_tests.tsv.gz").read_bytes() == expected


@pytest.mark.parametrize("kilobytes", [100_000, 1_000_000, 2_000_000, 2_900_000])
def test_an_address_space_too_small_is_one_message(kilobytes):
    code, said = shell(f"ulimit -v {kilobytes}; locomass run study.yaml --out out --quiet")
    assert (code, said.count("\n")) == (2, 1), said
    assert re.match(r"error: not enough memory: the address space is limited to [\d.]+ GB \(`ulimit -v`\)", said)


@pytest.mark.ci
def test_the_address_space_that_is_asked_for_is_enough(study, expected, tmp_path):
    out = tmp_path / "out"
    _, said = shell(f"ulimit -v 1000000; locomass run {study} --out {out} --quiet")
    enough = re.search(r"`ulimit -v (\d+)`", said).group(1)
    assert shell(f"ulimit -v {enough}; locomass run {study} --out {out} --threads 1 --quiet") == (0, "")
    assert (out / "gene_tests.tsv.gz").read_bytes() == expected


@pytest.mark.parametrize(
    ("error", "match"),
    [
        (MemoryError(), "not enough memory; give more"),
        (OSError(28, "No space left on device", "x"), "cannot read or write x: No space left"),
        (ImportError("lib.so: failed to map segment from shared object"), "not enough memory to load a library"),
        (RuntimeError("can't start new thread"), "no further thread can be started"),
    ],
)
def test_words_of_exhaustion(error, match):
    assert match in describe_exhaustion(error)


@pytest.mark.parametrize("error", [ImportError("No module named x"), RuntimeError("other"), ValueError("x")])
def test_a_fault_of_the_program_is_not_called_exhaustion(error):
    assert describe_exhaustion(error) is None


# ---- leftovers ----


def test_credentials_of_a_run_that_was_killed_go_at_the_next_start(tmp_path):
    old = tmp_path / ".credentials-old"
    old.mkdir(mode=0o700)
    (old / "run.pem").write_text("key")
    with credentials_file(tmp_path) as mine:
        assert old.exists()  # perhaps made just now
        hour_ago = time.time() - 3600
        os.utime(old, (hour_ago, hour_ago))
        os.utime(mine.parent, (hour_ago, hour_ago))
        remove_abandoned(tmp_path)
        assert (old.exists(), mine.exists()) == (False, True)  # ours is held
    assert list(tmp_path.iterdir()) == []


# ---- YAML ----


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ("max_maf: 1:30", r"line 3.*1:30"),
        ("max_maf: 010", r"line 3.*010"),
        ("max_maf: " + "[" * 3_000, r"line 3.*nested more than"),
        ("max_maf: " + "{a: " * 3_000, r"line 3.*nested more than"),
        ("max_maf: 0x1F", "line 3"),
        ("max_maf: .inf", "line 3"),
    ],
    ids=["sexagesimal", "octal", "brackets", "braces", "hexadecimal", "infinite"],
)
def test_numbers_and_brackets_of_yaml_are_errors_with_a_line(tmp_path, line, match):
    path = tmp_path / "study.yaml"
    path.write_text(f"genotypes: x.bed\nscore_statistics:\n  {line}\n")
    with pytest.raises(ConfigError, match=match):
        load_config(path, RunConfig)


@pytest.mark.parametrize("value", ["1:30", "010", "1:30:00"])
def test_numbers_of_a_cluster_file(tmp_path, value):
    path = tmp_path / "slurm.yaml"
    path.write_text(f"scheduler: slurm\nqueue: main\ncores: {value}\n")
    with pytest.raises(ConfigError, match=r"line 3|key cores"):
        load_cluster_config(path)


@pytest.mark.parametrize("text", ["x: 1:30", "x: 010", "x: " + "[" * 3_000, "x: " + "{a: " * 3_000])
def test_other_files_in_yaml(tmp_path, text):
    for name, read in (("rules.yaml", read_rules), ("x.tsv-meta.yaml", lambda p: read_metadata(p.with_name("x.tsv")))):
        (tmp_path / name).write_text(f"# rules\n{text}\n")
        with pytest.raises(FormatError, match=rf"{name}, line 2: not valid YAML"):
            read(tmp_path / name)


def test_aliases_that_stand_for_billions(tmp_path):
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 10)}]" for k in range(1, 12)]
    (tmp_path / "x.yaml").write_text("\n".join(lines))
    with pytest.raises(ConfigError, match=r"line 6: .*stands for more than 1,000,000 values"):
        load_config(tmp_path / "x.yaml", RunConfig)
