"""Writing beside and renaming: a reader sees the old content or the new, and nothing is left behind."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor

import pytest

from locomass.errors import InputError
from locomass.files.atomic import atomic_directory, atomic_path


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def fail_after_writing(path):
    path.write_text("half")
    raise RuntimeError("half-way")


def test_atomic_path__replaces_on_success(tmp_path):
    path = tmp_path / "new" / "a.txt"
    for text in ("one", "two"):
        with atomic_path(path) as temporary:
            temporary.write_text(text)
            assert temporary.parent == path.parent
        assert path.read_text() == text
    assert names(path.parent) == ["a.txt"]


def test_atomic_path__keeps_the_old_file_on_failure(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="half-way"), atomic_path(path) as temporary:
        fail_after_writing(temporary)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_atomic_path__raises_when_the_folder_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot write .*file/a\.txt"), atomic_path(tmp_path / "file" / "a.txt"):
        pass


def test_atomic_path__a_full_disk_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match=r"cannot write .*a\.txt: No space left"), atomic_path(tmp_path / "a.txt"):
        raise OSError(28, "No space left on device")
    assert names(tmp_path) == []


def test_atomic_path__has_ordinary_permissions(tmp_path):
    ordinary = tmp_path / "ordinary"
    ordinary.write_text("")
    with atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("x")
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == stat.S_IMODE(ordinary.stat().st_mode)


def test_atomic_path__leaves_the_umask_alone_among_threads(tmp_path):
    before = os.umask(0o027)
    try:

        def write(k):
            with atomic_path(tmp_path / f"{k}.txt") as temporary:
                temporary.write_text("x")

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(write, range(400)))
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)
    assert len(names(tmp_path)) == 400


def test_atomic_directory__replaces_on_success(tmp_path):
    path = tmp_path / "bundle"
    for name in ("one", "two"):
        with atomic_directory(path) as folder:
            (folder / name).write_text("x")
        assert names(path) == [name]
    assert names(tmp_path) == ["bundle"]


def test_atomic_directory__keeps_the_old_one_on_failure(tmp_path):
    path = tmp_path / "bundle"
    path.mkdir()
    (path / "old").write_text("x")
    with pytest.raises(RuntimeError, match="half-way"), atomic_directory(path) as folder:
        fail_after_writing(folder / "new")
    assert names(path) == ["old"]
    assert names(tmp_path) == ["bundle"]


def test_atomic_directory__raises_when_it_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"), atomic_directory(tmp_path / "file" / "bundle"):
        pass
