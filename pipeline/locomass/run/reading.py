"""Whether the inputs of a run are, at its end, the files that were digested at its start.

A run takes digests first and reads later. In between a file may be replaced, and even restored, so that equal digests
before and after prove nothing; but every write and every replacement changes its stamp (size, inode, modification and
change time), and no program can set the change time back. So the stamps of all inputs are noted before the first digest
and compared whenever a stage ends. They are kept in plan.json until the run has ended: after one that was killed, the
next run compares them, too, before it trusts any part.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from locomass.files.parts import digest_content
from locomass.run.provenance import SETTLED_NS, stamp_file


class ReadInputs:
    """The input files of a run, as they were when they were first looked at.

    Attributes:
        noted: stamp by path; with it the digest where the file is so new that its stamp alone proves nothing.
    """

    def __init__(self, noted: dict[str, Any] | None = None) -> None:
        self.noted: dict[str, Any] = dict(noted or {})

    def note(self, path: Path) -> None:
        """Note a file, or all files below a folder, unless they were noted before."""
        for file in sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]:
            key = str(file.resolve())
            if key not in self.noted and file.exists():
                self.noted[key] = _describe(file)

    def changed(self) -> list[str]:
        """Return the files that are no longer what was noted, or are gone."""
        return [path for path, noted in self.noted.items() if not _is_same(Path(path), noted)]


def _describe(path: Path) -> dict[str, Any]:
    """Return the stamp of a file, and its digest where another write could leave the same stamp."""
    stamp = stamp_file(path)
    settled = time.time_ns() - max(stamp[2:]) >= SETTLED_NS
    return {"stamp": stamp, "digest": None if settled else digest_content(path)}


def _is_same(path: Path, noted: dict[str, Any]) -> bool:
    """Return whether a file is what was noted."""
    try:
        if stamp_file(path) != noted["stamp"]:
            return False
        return noted["digest"] is None or digest_content(path) == noted["digest"]
    except OSError:
        return False
