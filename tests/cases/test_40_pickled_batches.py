"""Case 40, of the same kind: `plan` unpickles nothing that this installation did not write and sign in that folder."""

from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path

import pytest

from locomass.cli import main
from locomass.commands.outcome import Resources
from locomass.commands.partitions import TASKS, finalise_partitions, init_partitions, list_missing, run_partition
from locomass.errors import InputError
from locomass.run import signed
from tests.factories import make_study


class Payload:
    """Touches a file when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return os.mknod, (str(self.trace),)


@pytest.fixture(scope="module")
def planned(tmp_path_factory) -> tuple[Path, Path]:
    """A study and an output directory whose batches wait."""
    folder = tmp_path_factory.mktemp("planned")
    study = make_study(2).write(folder)
    init_partitions(study, folder / "out", Resources(threads=1))
    return study, folder / "out"


@pytest.fixture
def stranger(planned, tmp_path) -> tuple[Path, Path]:
    """A configuration and a folder that somebody else sent, and what their payload would leave."""
    shutil.copytree(planned[1], tmp_path / "sent")
    return tmp_path / "sent", tmp_path / "trace"


def refuse(folder: Path, study: Path, trace: Path, match: str) -> None:
    for attempt in (
        lambda: run_partition(folder, 0),
        lambda: list_missing(folder),
        lambda: finalise_partitions(study, folder, Resources(threads=1)),
    ):
        with pytest.raises(InputError, match=match):
            attempt()
    assert not trace.exists()


@pytest.mark.parametrize("head", [0, 31, 32, 64])
def test_a_payload_without_a_signature_is_not_opened(planned, stranger, head):
    folder, trace = stranger
    (folder / TASKS).write_bytes(bytes(head) + pickle.dumps(Payload(trace)))
    refuse(folder, planned[0], trace, r"tasks\.pickle is damaged, or was not written here .*run init again")


def test_a_payload_behind_a_signature_that_is_valid_elsewhere_is_not_opened(planned, stranger):
    """Neither our own signature, of other content, nor our own file in another folder."""
    folder, trace = stranger
    refuse(folder, planned[0], trace, "was not written here")  # a copy of our own, moved
    own = (planned[1] / TASKS).read_bytes()
    (folder / TASKS).write_bytes(own[: signed.SIGNATURE_BYTES] + pickle.dumps(Payload(trace)))
    refuse(folder, planned[0], trace, "was not written here")


def test_a_payload_signed_with_another_key_is_not_opened(planned, stranger, tmp_path, monkeypatch):
    folder, trace = stranger
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path / "theirs"))
        signed.write_signed(folder / TASKS, pickle.dumps(Payload(trace)))
    refuse(folder, planned[0], trace, "was not written here")


def test_what_was_signed_here_is_opened(planned):
    assert list_missing(planned[1])[:1] == [0]


def test_a_key_that_others_can_read_proves_nothing(planned, tmp_path, monkeypatch):
    key = tmp_path / "key"
    shutil.copy(signed.key_path(), key)
    monkeypatch.setenv("LOCOMASS_KEY", str(key))
    key.chmod(0o640)
    with pytest.raises(InputError, match="can be read by others"):
        list_missing(planned[1])
    key.chmod(0o600)
    assert list_missing(planned[1])
    key.write_bytes(b"")
    with pytest.raises(InputError, match=r"is not a key of this program \(0 bytes\)"):
        list_missing(planned[1])
    key.unlink()
    with pytest.raises(InputError, match=r"cannot read the key .*set LOCOMASS_KEY"):
        list_missing(planned[1])


def test_the_command_ends_with_2_and_one_line(stranger, monkeypatch, capsys):
    folder, trace = stranger
    (folder / TASKS).write_bytes(pickle.dumps(Payload(trace)))
    monkeypatch.setattr("sys.argv", ["locomass", "plan", "run", str(folder), "0"])
    with pytest.raises(SystemExit) as end:
        main()
    said = capsys.readouterr().err
    assert (end.value.code, said.count("\n"), trace.exists()) == (2, 1, False)


def test_the_key_is_private_from_its_first_byte_on(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    signed.write_signed(tmp_path / "file", b"content")
    assert signed.read_signed(tmp_path / "file") == b"content"
    assert signed.key_path().stat().st_mode & 0o777 == 0o600
    assert [p.name for p in signed.key_path().parent.iterdir()] == ["key"]
