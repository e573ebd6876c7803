"""Write beside, fsync, rename: a reader sees the old file or the new one, never half of one."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from locomass.errors import InputError

PARTIAL, OLD = ".partial", ".old"  # ends of the names of what is half-written, and of what is being replaced
UMASK = os.umask(0)  # read once, at import: changing it and back is not safe among threads
os.umask(UMASK)


@contextmanager
def atomic_path(path: str | Path, mode: int = 0o666) -> Iterator[Path]:
    """Give a temporary path beside ``path``; on success it is synced and renamed, on failure removed.

    Args:
        path: the file.
        mode: its permissions, before the umask takes some away.

    Raises:
        InputError: the folder cannot be written, or the disk is full.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=PARTIAL, dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from None
    temporary = Path(name)
    try:
        yield temporary
        _sync(temporary)
        temporary.chmod(mode & ~UMASK)
        temporary.replace(path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_directory(path: str | Path) -> Iterator[Path]:
    """Give a temporary directory beside ``path``; on success it replaces ``path``, on failure it is removed."""
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=PARTIAL, dir=path.parent))
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from None
    try:
        yield temporary
        temporary.chmod(0o777 & ~UMASK)
        if path.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=OLD, dir=path.parent))
            path.replace(old)
            temporary.replace(path)
            shutil.rmtree(old)
        else:
            temporary.replace(path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes left half-written in a folder and below; the caller holds the folder."""
    for root, folders, files in os.walk(folder):
        for name in [name for name in folders if name.startswith(".") and name.endswith((PARTIAL, OLD))]:
            folders.remove(name)
            shutil.rmtree(Path(root, name), ignore_errors=True)
        for name in files:
            if name.startswith(".") and name.endswith(PARTIAL):
                Path(root, name).unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Flush a file to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
