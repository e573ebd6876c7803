"""What made a result: versions, parameters, input digests, resources -> JSON beside the result."""

from __future__ import annotations

import getpass
import hashlib
import importlib.metadata
import json
import os
import platform
import resource
import socket
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from locomass import __version__
from locomass.errors import InputError
from locomass.files.atomic import atomic_path

PACKAGES = (
    "numpy",
    "scipy",
    "numba",
    "pandas",
    "pyarrow",
    "xarray",
    "dask",
    "distributed",
    "pandas-plink",
    "scikit-learn",
)

SETTLED_NS = 2_000_000_000  # the coarsest clock of a file system that is in use


def digest_file(path: str | Path, cache: dict[str, Any] | None = None) -> str:
    """Return the BLAKE2b digest of a file's content.

    A digest that is known is taken from the cache while the file's stamp is the same: size, inode, modification time
    and change time. Every write moves the change time, and no program can set it back, so that a copy that keeps size
    and modification time is seen, too. What it cannot tell is two writes within one tick of the file system's clock:
    the stamp of a file that was written less than `SETTLED_NS` before is not trusted, and the file is read again.

    Args:
        path: the file (a directory stands for the files below it, by name).
        cache: digests already known, by path; updated.
    """
    path = Path(path)
    if path.is_dir():
        below = sorted(p for p in path.rglob("*") if p.is_file())
        return digest_value({str(p.relative_to(path)): digest_file(p, cache) for p in below})
    try:
        found = stamp_file(path)
        key, stamp = str(path.resolve()), found if time.time_ns() - max(found[2:]) >= SETTLED_NS else None
        if cache is not None and stamp is not None and cache.get(key, {}).get("stamp") == stamp:
            return str(cache[key]["digest"])
        with open(path, "rb") as handle:
            digest = hashlib.file_digest(handle, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    if cache is not None:
        cache[key] = {"stamp": stamp, "digest": digest}
    return digest


def stamp_file(path: Path) -> list[int]:
    """Return what changes when a file does: size, inode, modification time and change time."""
    stat = path.stat()
    return [stat.st_size, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns]


def digest_value(value: Any) -> str:
    """Return the digest of a JSON-like value; the order of keys does not matter."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def digest_arrays(*arrays: NDArray[Any]) -> str:
    """Return the digest of arrays: types, shapes and values; texts (object arrays of str) by their bytes."""
    state = hashlib.blake2b(digest_size=16)
    for array in arrays:
        state.update(f"{array.dtype.str}{array.shape}".encode())
        if array.dtype == object:
            texts = pa.array(array.ravel(), pa.large_string())  # offsets and bytes: no Python object per text
            for buffer in filter(None, texts.buffers()):
                state.update(buffer)
        else:
            state.update(np.ascontiguousarray(array).data)
    return state.hexdigest()


def describe_environment() -> dict[str, Any]:
    """Return versions of this program, Python and the packages that numbers depend on, and the machine."""
    return {
        "locomass": __version__,
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES if _installed(name)},
        "host": socket.gethostname(),
        "cores": os.cpu_count(),
        "platform": platform.platform(),
        "user": _user(),
    }


def _user() -> str:
    """Return the login name, or the numeric id where there is none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def _installed(name: str) -> bool:
    """Return whether a distribution is installed."""
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def write_provenance(
    path: Path, *, configuration: Any, inputs: Mapping[str, str], stages: Mapping[str, Any], started: float
) -> None:
    """Write ``provenance.json``: command, configuration, input digests, stages, versions and resources used."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    record = {
        "command": sys.argv,
        "directory": os.getcwd(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(started)),
        "wall_seconds": round(time.time() - started, 3),
        "cpu_seconds": round(own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime, 3),
        "peak_rss_mb": round(max(own.ru_maxrss, children.ru_maxrss) / 1024, 1),
        "configuration": configuration,
        "inputs": dict(inputs),
        "stages": dict(stages),
        "environment": describe_environment(),
    }
    write_json(path, record)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically; numbers that are not finite become null."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(_finite(value), indent=1, default=str) + "\n", encoding="utf-8")


def _finite(value: Any) -> Any:
    """Return the value with NaN and infinities replaced by None, and numpy scalars by Python ones."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None
    if isinstance(value, Mapping):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, str | bytes | Path):
        return [_finite(v) for v in value]
    return value
