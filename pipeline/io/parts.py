"""Intermediate files of a run: whether one is whole, so that a resumed run never builds on half of one.

Parts are written aside, synced and renamed, and still may be cut by a disk that filled or a file system that was lost;
so a part counts as there only when its end is readable and its length is what the plan says.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.io.atomic import atomic_path

Arrays = dict[str, NDArray[Any]]


def count_rows(path: Path) -> int:
    """Return the rows of a Parquet file by its footer, -1 when the file is absent or damaged."""
    try:
        return int(pq.read_metadata(path).num_rows)
    except (OSError, pa.ArrowException):
        return -1


def write_arrays(path: Path, arrays: Arrays) -> None:
    """Write arrays as one .npz file (a zip, whose members have checksums), atomically."""
    with atomic_path(path) as temporary, open(temporary, "wb") as handle:
        np.savez(handle, **arrays)


def read_arrays(path: Path) -> Arrays | None:
    """Return what `write_arrays` wrote, None when the file is absent or damaged."""
    try:
        # opened here: numpy leaves a file open when it finds it damaged
        with open(path, "rb") as handle, np.load(handle, allow_pickle=False) as data:
            return {name: data[name] for name in data.files}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
