"""Intermediate files of a run: whether one is whole, so that a resumed run never builds on a damaged one.

Parts are written aside, synced and renamed, and still may be cut by a full disk or changed by a failing one. So
a batch seals its parts when all are written: ``seal-NUMBER.json`` names the digest of each part's content, and a batch
is done only when every part has the content that was sealed. Arrays that outlive the parts are checked when read.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from locomass.files.atomic import atomic_path

Arrays = dict[str, NDArray[Any]]
COUNT = "number_of_arrays"
DAMAGED = (
    OSError,
    ValueError,
    KeyError,
    EOFError,
    NotImplementedError,
    RuntimeError,
    MemoryError,
    OverflowError,
    SyntaxError,
    TypeError,
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
)


def digest_content(path: Path) -> str:
    """Return the BLAKE2b-128 digest of a file's content, hexadecimal."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def seal_parts(folder: Path, number: int, parts: Iterable[Path]) -> None:
    """Record that a batch has written its parts, files of ``folder``, with the digest of each."""
    digests = {path.name: digest_content(path) for path in parts}
    with atomic_path(_seal(folder, number)) as temporary:
        temporary.write_text(json.dumps(digests) + "\n", encoding="utf-8")


def is_sealed(folder: Path, number: int) -> bool:
    """Return whether a batch has sealed its parts, and every part still has the content that was sealed."""
    try:
        digests = json.loads(_seal(folder, number).read_bytes())
        return bool(digests) and all(digest_content(folder / name) == digests[name] for name in digests)
    except (OSError, ValueError, TypeError, RecursionError):
        return False


def _seal(folder: Path, number: int) -> Path:
    """Return the file that seals a batch."""
    return folder / f"seal-{number:05d}.json"


def write_arrays(path: Path, arrays: Arrays) -> None:
    """Write arrays as one .npz file (a zip, whose members have checksums) that says how many there are, atomically."""
    with atomic_path(path) as temporary, open(temporary, "wb") as handle:
        np.savez(handle, **cast(dict[str, Any], {**arrays, COUNT: np.array(len(arrays))}))


def read_arrays(path: Path) -> Arrays | None:
    """Return what `write_arrays` wrote, None when the file is absent or damaged."""
    try:
        # opened here: numpy leaves a file open when it finds it damaged
        with open(path, "rb") as handle, np.load(handle, allow_pickle=False) as data:
            arrays = {name: data[name] for name in data.files}
    except DAMAGED:
        return None
    count = arrays.pop(COUNT, None)
    return arrays if count == len(arrays) else None
