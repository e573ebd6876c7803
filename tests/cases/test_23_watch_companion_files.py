"""`watch` takes data files, whole, with their metadata; what is bad costs its trait, and is said."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from locomass.commands import watch as watching
from locomass.commands.dropped import find_fault, look
from locomass.commands.outcome import Resources
from locomass.commands.watch import watch


@pytest.fixture(autouse=True)
def _short_looks(monkeypatch):
    monkeypatch.setattr(watching, "SETTLE_SECONDS", 0.01)


@pytest.fixture(scope="module")
def case(open_case):
    return open_case("23-watch-companion-files")


@pytest.fixture(scope="module")
def started(case):
    """A folder of results whose first look is done; each test takes a copy."""
    (case.folder / "empty").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(watching, "SETTLE_SECONDS", 0.01)
        once(case, "empty", case.folder / "started")
    return case.folder / "started"


@pytest.fixture
def out(started, tmp_path):
    shutil.copytree(started, tmp_path / "out", symlinks=True)
    return tmp_path / "out"


def once(case, folder, out):
    return watch(case.folder / "study.yaml", case.folder / folder, out, Resources(threads=1), once=True)


def state_of(out: Path) -> dict:
    path = out / "watch.json"
    return json.loads(path.read_text()) if path.exists() else {}


def drop(case, name: str, folder: str, content: bytes, ending: str = "") -> Path:
    path = case.folder / folder / f"{name}{ending}"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return path


def test_metadata_are_no_data(case, out):
    os.utime(case.folder / "with_metadata" / "y.2026.tsv-meta.yaml")  # the newest file
    found = once(case, "with_metadata", out)
    assert not found.failures
    used = Path(state_of(out)["y"]["file"])
    assert used.name == "y.2026.tsv"
    assert used.with_name("y.2026.tsv-meta.yaml").exists()


def test_metadata_travel_with_their_file(case, out):
    found = once(case, "with_zero_based", out)
    assert not found.failures
    record = json.loads((out / "work" / "predict" / "record.json").read_text())["traits"]["y"]
    assert record["variants"] == 300
    assert record["n"] == 6000
    direct = case.predict("direct")
    assert record["r2_observed"] == direct["r2_observed"] == pytest.approx(0.371, abs=5e-4)
    # new metadata alone are new statistics
    beside = case.folder / "with_zero_based" / "y.2027.tsv-meta.yaml"
    beside.write_text(beside.read_text().replace("6000", "5000"))
    assert once(case, "with_zero_based", out).outcome
    record = json.loads((out / "work" / "predict" / "record.json").read_text())["traits"]["y"]
    assert record["n"] == 5000


def test_a_part_of_an_upload_is_never_published(case, out, monkeypatch, caplog):
    whole = (case.folder / "first.tsv").read_bytes()
    part = drop(case, "y.up.tsv", "slow", whole[: len(whole) * 3 // 4])
    found = once(case, "slow", out)
    assert (found.outcome, list(found.waiting), found.failures) == (None, ["y.up.tsv"], {})
    part.write_bytes(whole[: whole.index(b"\n", len(whole) * 3 // 4) + 1])  # cut where a line ends
    found = once(case, "slow", out)
    assert found.outcome is None
    assert "the statistics in use (first.tsv) have 321" in found.waiting["y.up.tsv"]
    monkeypatch.setattr(watching, "STALLED_SECONDS", -1.0)  # it does not grow any more: a failure
    assert list(once(case, "slow", out).failures) == ["y.up.tsv"]
    assert state_of(out) == {}
    digest = hashlib.md5(part.read_bytes()).hexdigest()
    drop(case, "y.up.tsv.md5", "slow", f"{digest}  y.up.tsv\n".encode())  # complete: somebody says so
    assert once(case, "slow", out).outcome
    assert list(state_of(out)) == ["y"]


def test_an_older_time_with_new_content_is_new(case, out):
    content = (case.folder / "with_metadata" / "y.2026.tsv").read_bytes()
    drop(case, "y.A.tsv", "kept", content.replace(b"\t6000\n", b"\t6001\n"))
    assert once(case, "kept", out).outcome
    os.utime(drop(case, "y.B.tsv", "kept", content), (1_700_000_000, 1_700_000_000))
    assert once(case, "kept", out).outcome
    assert Path(state_of(out)["y"]["file"]).name == "y.B.tsv"
    assert once(case, "kept", out).outcome is None  # and A is not taken again
    os.utime(case.folder / "kept" / "y.A.tsv")
    assert once(case, "kept", out).outcome is None


def test_companions_are_ignored(tmp_path):
    for name in (
        "y.tsv.gz.md5", "y.tsv.sha256", "md5sum.txt", "SHA256SUMS", "checksums.txt", "README", "README.txt",
        "y.README.txt", "readme_y.md", "y.tsv.gz.tbi", "y.2026.tsv-meta.yaml", "y.log", "y.manhattan.png",
        "y.tsv.gz.part", ".y.tsv",
    ):  # fmt: skip
        (tmp_path / name).write_text("x")
    (tmp_path / "y.tsv").write_text("x")
    assert list(look(tmp_path)) == ["y.tsv"]


def test_find_fault__checksum(tmp_path):
    path = tmp_path / "y.tsv"
    path.write_text("a\tb\n1\t2\n")
    assert find_fault(path) == ""
    (tmp_path / "y.tsv.sha256").write_text("0" * 64 + "  y.tsv\n")
    assert find_fault(path) == "it does not agree with y.tsv.sha256"
    (tmp_path / "y.tsv.sha256").write_text(hashlib.sha256(path.read_bytes()).hexdigest().upper() + " *y.tsv\n")
    assert find_fault(path) == ""


def test_one_bad_file_blocks_its_trait_only_and_is_said(open_case):
    """Two traits: one gets a file that cannot be read, the other a good one; --quiet, and exit code 2."""
    case = open_case("22-watch-trait-name-prefix")
    content = (case.folder / "first.tsv").read_bytes()
    drop(case, "y.2026.tsv", "incoming", content.replace(b"beta", b"what"))
    command = [sys.executable, "-m", "locomass", "watch", "study.yaml", "incoming", "--once", "--out", "out", "--quiet"]
    done = subprocess.run(command, cwd=case.folder, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("y.2026.tsv is not used: ")
    assert "Traceback" not in done.stderr
    state = state_of(case.folder / "out")
    assert list(state) == ["y.adj"]
    assert (case.folder / "out" / "latest" / "gene_tests.parquet").exists()
    assert not (case.folder / "out" / "last-look").exists()
