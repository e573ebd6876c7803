"""One run at a time in an output directory: a lock of the operating system, which ends with the process that holds it.

The kernel lets go of it however a process ends, on any host and in any container, so nothing that a killed run leaves
behind stops the next one. What is written in the file, host and process, is for people.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from locomass.errors import InputError, LockError

log = logging.getLogger("locomass")

LOCK = ".lock"
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # a file system that is mounted without locks
FREE, STOPPED, HELD = "free", "stopped", "held"


@contextmanager
def hold_lock(folder: Path) -> Iterator[None]:
    """Hold a folder, which is made where it is not there, until the block ends.

    Raises:
        LockError: another run holds it.
        InputError: the folder cannot be written.
    """
    path = folder / LOCK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = _acquire(path)
    except FileExistsError:
        raise InputError(f"cannot write {folder}: it is a file; choose another --out") from None
    except OSError as error:
        raise InputError(f"cannot write {folder}: {error.strerror}; choose another --out") from None
    try:
        before = read_holder(path)
        if os.fstat(handle).st_size:
            log.info("%s was left by %s, which ended without removing it; taken over", path, describe_holder(before))
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps({"host": socket.gethostname(), "pid": os.getpid()}).encode(), 0)
        yield
    finally:
        path.unlink(missing_ok=True)  # before the lock goes: or the next run's file would be removed
        os.close(handle)


def _acquire(path: Path) -> int:
    """Return the descriptor of the locked file, which is the one that has the name.

    Raises:
        LockError: another run holds it.
    """
    while True:
        handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(handle)
            if error.errno in NO_LOCKS:
                log.warning("%s: this file system has no locks; see that one run at a time uses the folder", path)
                return os.open(path, os.O_CREAT | os.O_RDWR, 0o666)
            if not isinstance(error, BlockingIOError):
                raise
            raise LockError(
                f"{path.parent} is in use by {describe_holder(read_holder(path))}; wait for it, or choose another --out"
            ) from None
        try:
            if os.path.samestat(os.fstat(handle), path.stat()):
                return handle
        except FileNotFoundError:
            pass
        os.close(handle)  # the run before has removed it just now


def read_holder(path: Path) -> dict[str, Any]:
    """Return the content of a lock file; empty when it vanished, is foreign or half-written."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def lock_state(folder: Path) -> dict[str, Any]:
    """Return who holds a folder: ``state`` (free, stopped, held) and, unless free, ``pid`` and ``host``."""
    path = folder / LOCK
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return {"state": FREE}
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        state = STOPPED
    except BlockingIOError:
        state = HELD
    except OSError:
        state = HELD  # nobody can tell
    finally:
        os.close(handle)
    holder = read_holder(path)
    return {"state": state, "pid": holder.get("pid"), "host": holder.get("host")}


def describe_holder(holder: dict[str, Any]) -> str:
    """Return a holder in words."""
    if not holder.get("pid"):
        return "another process"
    return f"process {holder['pid']} on {holder.get('host')}"
