"""What is dropped in a watched folder: summary statistics of which trait, complete or not.

A file belongs to a trait when it has the name of the trait's configured file, or is called ``TRAIT.SUFFIX`` or
``TRAIT.VERSION.SUFFIX`` with a suffix of summary statistics (`SUFFIXES`, ``.gz`` after it or not). Where that fits
several traits, as ``y.adj.2026.tsv`` fits ``y`` and ``y.adj``, it belongs to the longest name. GWAS-SSF metadata belong
to the file that they describe; checksums, indexes and READMEs are companions, and never data.

A file is complete when its size and time did not change between two looks, it can be read to its end, its last line
ends, and it agrees with its checksum if it has one.
"""

from __future__ import annotations

import hashlib
import os
import re
import zlib
from collections.abc import Collection, Mapping
from pathlib import Path

from locomass.errors import FormatError
from locomass.tables.delimited import open_bytes
from locomass.tables.summary_statistics import SUFFIXES, find_metadata

UNFINISHED = (".part", ".partial", ".tmp", ".temp", ".crdownload", ".download", ".filepart", ".swp", "~")
CHECKSUMS = {".md5": "md5", ".sha1": "sha1", ".sha256": "sha256", ".sha512": "sha512"}
COMPANIONS = re.compile(
    r"(-meta\.ya?ml|\.(md5|sha\d+|crc|sfv|asc|sig|tbi|csi|idx|log|pdf|png|html?|md|ya?ml|json))$"
    r"|(^|[._-])(readme|checksums?|(md5|sha\d+)sums?)([._-]|$)",
    re.IGNORECASE,
)
CHUNK = 1 << 20

#: size and time of a file at one look, and of its companions
Stamp = tuple[int, ...]


def look(folder: Path) -> dict[str, Stamp]:
    """Return size and time of the files of a folder that could be complete summary statistics, companions included."""
    found: dict[str, Stamp] = {}
    for entry in sorted(os.scandir(folder), key=lambda e: e.name):
        unfinished = entry.name.startswith(".") or entry.name.lower().endswith(UNFINISHED)
        if entry.is_file() and not unfinished and not COMPANIONS.search(entry.name) and entry.stat().st_size:
            files = [Path(entry.path), *find_companions(Path(entry.path))]
            found[entry.name] = tuple(x for f in files for x in (f.stat().st_size, f.stat().st_mtime_ns))
    return found


def find_companions(path: Path) -> list[Path]:
    """Return the metadata and the checksums beside a file."""
    metadata = find_metadata(path)
    sums = [path.with_name(path.name + suffix) for suffix in CHECKSUMS]
    return [p for p in (*([metadata] if metadata else []), *sums) if p.is_file()]


def find_owners(name: str, configured: Mapping[str, str], others: Collection[str] = ()) -> list[str]:
    """Return the traits that a dropped file belongs to.

    Args:
        name: of the file.
        configured: trait -> configured file of summary statistics.
        others: further names of traits, which are not watched.
    """
    named = [trait for trait, path in configured.items() if name == Path(path).name]
    if named:
        return named
    fitting = [trait for trait in {*configured, *others} if _is_named_after(name, trait)]
    longest = max(fitting, key=len, default="")
    return [longest] if longest in configured else []


def _is_named_after(name: str, trait: str) -> bool:
    """Return whether a name is TRAIT. followed by a known suffix, a version between them or none."""
    if not name.startswith(f"{trait}."):
        return False
    rest = re.sub(r"\.b?gz$", "", name[len(trait) :], flags=re.IGNORECASE)
    return rest == "" or rest.rsplit(".", 1)[-1].lower() in SUFFIXES


def find_fault(path: Path) -> str:
    """Return why a file is not complete; empty when it is.

    A plain file that was cut ends amid a line; a compressed one cannot be read to its end.
    """
    end = b""
    try:
        with open_bytes(path) as handle:
            while block := handle.read(CHUNK):
                end = (end + block)[-CHUNK:]
    except (FormatError, OSError, EOFError, zlib.error) as error:
        return f"it cannot be read to its end ({error})"
    wrong = _check_sums(path)
    if wrong or has_checksum(path):
        return wrong
    if not end.endswith((b"\n", b"\r")):
        return "its last line does not end (if it is complete, put its checksum beside it or end that line)"
    return ""


def _check_sums(path: Path) -> str:
    """Return which checksum beside a file it does not agree with; empty when there is none."""
    for suffix, algorithm in CHECKSUMS.items():
        beside = path.with_name(path.name + suffix)
        if beside.is_file():
            with path.open("rb") as handle:
                digest = hashlib.file_digest(handle, algorithm).hexdigest()
            if digest not in beside.read_text(encoding="utf-8", errors="replace").lower().split():
                return f"it does not agree with {beside.name}"
    return ""


def has_checksum(path: Path) -> bool:
    """Return whether a checksum is beside a file."""
    return any(path.with_name(path.name + suffix).is_file() for suffix in CHECKSUMS)


def count_lines(path: Path) -> int:
    """Return the number of lines of a plain or gzip file."""
    with open_bytes(path) as handle:
        return sum(block.count(b"\n") for block in iter(lambda: handle.read(CHUNK), b""))
