"""Integer matrices G'G of SAIGE step 3, in either layout: rows ``i j (G'G)_ij``, from 0, one triangle or both.

SAIGE up to 1.3 wrote one file for each Set, ``PREFIX_SET.txt``. Later versions append all Sets to ``PREFIX.LDmat.txt``;
a line ``first last SET`` of ``PREFIX.index.txt`` says which of its rows, counted from 0, are the Set's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from locomass.bundle.exchange.common import Integers
from locomass.errors import FormatError, InputError
from locomass.numbers import Floats
from locomass.tables.delimited import DelimitedFile, read_lines


@dataclass(frozen=True)
class SetMarkers:
    """Markers of a Set: the numbers of those that are wanted, and the last number that the Set has."""

    index: Integers
    last: int


@dataclass(frozen=True)
class SaigeLD:
    """The files of one prefix.

    Attributes:
        prefix: as given.
        info: marker_info.txt.
        joint: LDmat.txt and index.txt; None where each Set has its own file.
    """

    prefix: Path
    info: Path
    joint: tuple[Path, Path] | None

    @property
    def layout(self) -> str:
        """What is there, in words."""
        return self.joint[0].name if self.joint else f"{self.prefix.name}_SET.txt, one file per set"

    @classmethod
    def find(cls, prefix: Path) -> SaigeLD:
        """Tell the layout by what is there.

        Raises:
            InputError: neither is there; says what was looked for.
        """
        text = str(prefix)
        for suffix in (".marker_info.txt", ".LDmat.txt", ".index.txt"):  # the name of a file is as good as the prefix
            text = text.removesuffix(suffix)
        info, ld, index = (_existing(f"{text}{s}") for s in (".marker_info.txt", ".LDmat.txt", ".index.txt"))
        if info is None:
            raise InputError(
                f"no {text}.marker_info.txt: --covariance takes the prefix of SAIGE's step 3, whose files are "
                f"PREFIX.marker_info.txt with PREFIX.LDmat.txt and PREFIX.index.txt, or with one PREFIX_SET.txt per set"
            )
        if (ld is None) != (index is None):
            there, lacking = ("LDmat", "index") if index is None else ("index", "LDmat")
            raise InputError(f"{text}.{there}.txt is there, but {text}.{lacking}.txt is not; step 3 writes both")
        return cls(Path(text), info, None if ld is None or index is None else (ld, index))

    def matrices(self, markers: Mapping[str, SetMarkers]) -> Iterator[tuple[str, Floats]]:
        """Give each Set with G'G of its markers.

        Args:
            markers: what is wanted, by Set.

        Raises:
            FormatError: a malformed triplet, an index that does not fit, a Set without rows.
        """
        if self.joint is None:
            yield from self._separate(markers)
        else:
            yield from self._joint(*self.joint, markers)

    def _separate(self, markers: Mapping[str, SetMarkers]) -> Iterator[tuple[str, Floats]]:
        """Give the Sets from a file each."""
        for name, wanted in markers.items():
            path = _existing(f"{self.prefix}_{name}.txt")
            if path is None:
                raise InputError(
                    f"set '{name}' of {self.info} has no LD: neither {self.prefix}_{name}.txt nor "
                    f"{self.prefix}.LDmat.txt with {self.prefix}.index.txt is there"
                )
            rows = list(_read_triplets(path))
            yield name, _fill(np.concatenate(rows) if rows else np.empty((0, 3)), wanted, path, name)

    def _joint(self, path: Path, index: Path, markers: Mapping[str, SetMarkers]) -> Iterator[tuple[str, Floats]]:
        """Give the Sets from one file, walked once."""
        ranges = _read_index(index)
        lacking = sorted(set(markers) - {name for _, _, name, _ in ranges})
        if lacking:
            raise FormatError(f"no line for set '{lacking[0]}' of {self.info.name} ({len(lacking):,} sets)", path=index)
        blocks = _read_triplets(path)
        held, begin = np.empty((0, 3)), 0  # held are the rows begin, begin + 1, ... of the file
        for first, last, name, line in ranges:
            held, begin = _drop_before(held, begin, first)
            while begin + len(held) <= last:
                block = next(blocks, None)
                if block is None:
                    message = f"rows up to {last:,} for set '{name}', but {path.name} has {begin + len(held):,} rows"
                    raise FormatError(message, path=index, line=line)
                held, begin = _drop_before(np.concatenate((held, block)), begin, first)
            if name in markers:
                yield name, _fill(held[first - begin : last + 1 - begin], markers[name], path, name)


def _drop_before(held: Floats, begin: int, first: int) -> tuple[Floats, int]:
    """Return the rows from number ``first`` on, and the number of the first of them."""
    drop = min(len(held), max(0, first - begin))
    return held[drop:], begin + drop


def _existing(name: str) -> Path | None:
    """Return the path of a file, plain or gzipped, or None."""
    return next((path for path in (Path(name), Path(f"{name}.gz")) if path.is_file()), None)


def _read_index(path: Path) -> list[tuple[int, int, str, int]]:
    """Return first row, last row (both from 0), Set and line number of each line, by first row.

    Raises:
        FormatError: not three fields, no numbers, rows of two Sets that overlap, a Set twice.
    """
    out = []
    for line, text in read_lines(path):
        fields = text.split(maxsplit=2)
        if len(fields) != 3 or not (fields[0].isdigit() and fields[1].lstrip("-").isdigit()):
            raise FormatError(f"expected 'first_row last_row SET', got '{text[:40]}'", path=path, line=line)
        out.append((int(fields[0]), int(fields[1]), fields[2].strip(), line))
    out.sort(key=lambda row: row[0])
    seen: set[str] = set()
    for k, (first, _, name, line) in enumerate(out):
        if name in seen:
            raise FormatError(f"set '{name}' is listed twice", path=path, line=line)
        if k and first <= out[k - 1][1]:
            raise FormatError(f"rows of set '{name}' overlap those of '{out[k - 1][2]}'", path=path, line=line)
        seen.add(name)
    return out


def _read_triplets(path: Path) -> Iterator[Floats]:
    """Give (k, 3) rows ``i j value``, block by block.

    Raises:
        FormatError: not three fields, an index that is no whole number, a value that is not finite.
    """
    file = DelimitedFile(path, header=False, delimiter=" ")
    if len(file.names) != 3:
        raise FormatError(f"expected rows 'i j value', found {len(file.names)} fields", path=path, line=1)
    for block in file.blocks():
        rows = np.column_stack([block.numbers(name, missing=()) for name in file.names])
        bad = (rows[:, :2] < 0).any(axis=1) | (rows[:, :2] != np.floor(rows[:, :2])).any(axis=1)
        for k in np.flatnonzero(bad)[:1]:
            a, b, x = rows[k]
            raise FormatError(f"triplet {a:g} {b:g} {x:g} is malformed", path=path, line=block.line(k))
        yield rows


def _fill(rows: Floats, wanted: SetMarkers, path: Path, name: str) -> Floats:
    """Return G'G of the markers wanted from (k, 3) rows ``i j value``.

    Raises:
        FormatError: an index that the Set does not have, a pair with two values.
    """
    for i, j, value in rows[(rows[:, :2] > wanted.last).any(axis=1)][:1]:
        message = f"set '{name}' has markers 0 to {wanted.last}, but a triplet {i:g} {j:g} {value:g}"
        raise FormatError(message, path=path)
    place = np.full(wanted.last + 1, -1, np.int64)
    place[wanted.index] = np.arange(len(wanted.index))
    i, j = place[rows[:, 0].astype(np.int64)], place[rows[:, 1].astype(np.int64)]
    both = (i >= 0) & (j >= 0)
    i, j, value = i[both], j[both], rows[both, 2]
    GG = np.zeros((len(wanted.index), len(wanted.index)))
    GG[i, j] = value
    GG[j, i] = value
    for k in np.flatnonzero(GG[i, j] != value)[:1]:
        message = f"set '{name}': markers {wanted.index[i[k]]} and {wanted.index[j[k]]} are listed with two values"
        raise FormatError(message, path=path)
    return GG
