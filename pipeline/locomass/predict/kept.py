"""What the predictor stage keeps between runs, so that new summary statistics of one trait cost that trait only.

Each piece is named by the digest of everything it was computed from: the matched summary statistics of a file, the
weights of a trait, its scores, the frequencies of the LD reference. What is absent or damaged is computed again.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from locomass import __version__
from locomass.files.parts import Arrays, read_arrays, write_arrays
from locomass.run.provenance import digest_file, digest_value

KEPT_VERSION = 2  # raised when the same inputs would give other numbers
RECORD = "record"


class Kept:
    """Pieces of the predictor stage on disk.

    Attributes:
        folder: where they are; None: nothing is kept.
        digest: gives the content digest of an input file or folder.
    """

    def __init__(self, folder: Path | None = None, digest: Callable[[Path], str] = digest_file) -> None:
        self.folder = folder
        self.digest = digest
        self._used: set[str] = set()

    def recall(self, kind: str, key: Any) -> tuple[Arrays, Any] | None:
        """Return the arrays and the record that were kept under a key, None when they are not there or not whole."""
        path = self._path(kind, key)
        arrays = None if path is None else read_arrays(path)
        if arrays is None or RECORD not in arrays:
            return None
        return arrays, json.loads(arrays.pop(RECORD).tobytes())

    def keep(self, kind: str, key: Any, arrays: Arrays, record: Any = None) -> tuple[Arrays, Any]:
        """Keep arrays and a JSON-like record; return them as `recall` would."""
        text = json.dumps(record, default=lambda value: value.tolist())
        path = self._path(kind, key)
        if path is not None:
            write_arrays(path, {**arrays, RECORD: np.frombuffer(text.encode(), np.uint8)})
        return arrays, json.loads(text)

    def forget_unused(self) -> None:
        """Remove the pieces that this run did not ask for."""
        for path in [] if self.folder is None else self.folder.glob("*.npz"):
            if path.name not in self._used:
                path.unlink(missing_ok=True)

    def _path(self, kind: str, key: Any) -> Path | None:
        """Return the file of a piece."""
        if self.folder is None:
            return None
        name = f"{kind}-{digest_value([__version__, KEPT_VERSION, kind, key])}.npz"
        self._used.add(name)
        return self.folder / name
