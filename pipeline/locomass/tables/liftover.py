"""Coordinates of another genome build, through UCSC chain files.

A chain is a list of gapless blocks that both assemblies share. A header line

    chain score tName tSize tStrand tStart tEnd qName qSize qStrand qStart qEnd id

is followed by lines ``size dt dq`` (a block, then the gaps after it in target and query) and a last line ``size``.
Positions are 0-based; on a reverse-strand query they count from the end of the chromosome.
Source: https://genome.ucsc.edu/goldenPath/help/chain.html
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from locomass.errors import FormatError
from locomass.tables.delimited import read_lines
from locomass.variants.chromosomes import normalise_chromosome


@dataclass(frozen=True, slots=True)
class Lifted:
    """Where n positions went.

    Attributes:
        chromosome: (n,) label in the new build; "" when unmapped.
        position: (n,) 1-based; 0 when unmapped.
        reverse: (n,) True where the new build reads the other strand: alleles must be complemented.
        n_unmapped: positions in no chain.
        n_reverse: mapped positions on the reverse strand.
    """

    chromosome: NDArray[np.object_]
    position: NDArray[np.int64]
    reverse: NDArray[np.bool_]
    n_unmapped: int
    n_reverse: int


@dataclass(frozen=True, slots=True)
class _Blocks:
    """Disjoint blocks of one old chromosome, sorted; ``new = shift + sign * old`` (0-based) inside one."""

    start: NDArray[np.int64]
    end: NDArray[np.int64]
    chromosome: NDArray[np.object_]
    sign: NDArray[np.int64]
    shift: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ChainFile:
    """The blocks of a chain file, by chromosome of the old build."""

    path: Path
    blocks: dict[str, _Blocks]

    def lift(self, chromosome: NDArray[np.object_], position: NDArray[np.int64]) -> Lifted:
        """Map (n,) normalised chromosomes and 1-based positions of the old build to the new one."""
        n = position.shape[0]
        new_chromosome = np.full(n, "", dtype=object)
        new_position = np.zeros(n, dtype=np.int64)
        reverse = np.zeros(n, dtype=bool)
        for label in set(chromosome.tolist()) & self.blocks.keys():
            blocks = self.blocks[label]
            rows = np.flatnonzero(chromosome == label)
            old = position[rows] - 1
            at = np.searchsorted(blocks.start, old, side="right") - 1
            hit = (at >= 0) & (old < blocks.end[np.maximum(at, 0)])
            rows, at, old = rows[hit], at[hit], old[hit]
            new_chromosome[rows] = blocks.chromosome[at]
            new_position[rows] = blocks.shift[at] + blocks.sign[at] * old + 1
            reverse[rows] = blocks.sign[at] < 0
        return Lifted(new_chromosome, new_position, reverse, int((new_position == 0).sum()), int(reverse.sum()))


#: start, end (old, 0-based half-open), new chromosome, sign, shift
_Row = tuple[int, int, str, int, int]


def read_chain(path: str | Path) -> ChainFile:
    """Read a UCSC chain file (plain or gzip). Where chains overlap, the one with the higher score wins.

    Raises:
        FormatError: not a chain file, a header or block line with wrong fields, a chain whose blocks do not add up to
            the ends its header states; names the line.
    """
    chains: dict[str, list[tuple[int, list[_Row]]]] = {}
    header: list[str] | None = None
    rows: list[_Row] = []
    old = new = 0
    for number, text in read_lines(path):
        fields = text.split()
        if fields[0].startswith("#"):
            continue
        if header is None:
            header, rows = _check_header(fields, path, number), []
            old, new = int(header[5]), int(header[10])
            continue
        size, gap_old, gap_new = _read_block(fields, path, number)
        rows.append(_make_row(header, old, new, size))
        old, new = old + size + gap_old, new + size + gap_new
        if len(fields) == 1:
            if (old, new) != (int(header[6]), int(header[11])):
                expected = f"its header says {header[6]} and {header[11]}"
                raise FormatError(f"the blocks of a chain end at {old} and {new}, {expected}", path=path, line=number)
            chains.setdefault(normalise_chromosome(header[2]), []).append((int(header[1]), rows))
            header = None
    if header is not None or not chains:
        raise FormatError("is cut short, or holds no chain", path=path)
    return ChainFile(Path(path), {label: _merge(parts) for label, parts in chains.items()})


def _check_header(fields: list[str], path: str | Path, line: int) -> list[str]:
    numbers = [fields[i] for i in (1, 3, 5, 6, 8, 10, 11)] if len(fields) in (12, 13) else []
    if fields[0] != "chain" or not numbers or not all(_is_position(n) for n in numbers):
        message = "expected 'chain score tName tSize tStrand tStart tEnd qName qSize qStrand qStart qEnd id'"
        raise FormatError(f"{message}, got '{' '.join(fields)[:60]}'", path=path, line=line)
    if fields[4] != "+" or fields[9] not in "+-":
        message = f"expected strands '+' and '+' or '-', got '{fields[4]}' and '{fields[9]}'"
        raise FormatError(message, path=path, line=line)
    return fields


def _is_position(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 15


def _read_block(fields: list[str], path: str | Path, line: int) -> tuple[int, int, int]:
    if len(fields) not in (1, 3) or not all(_is_position(n) for n in fields) or int(fields[0]) == 0:
        raise FormatError(f"expected 'size' or 'size dt dq', got '{' '.join(fields)[:60]}'", path=path, line=line)
    size, gap_old, gap_new = [int(n) for n in (*fields, "0", "0")[:3]]
    return size, gap_old, gap_new


def _make_row(header: list[str], old: int, new: int, size: int) -> _Row:
    """Return a block; a reverse-strand query position q is qSize - 1 - q on the forward strand."""
    label = normalise_chromosome(header[7])
    if header[9] == "+":
        return old, old + size, label, 1, new - old
    return old, old + size, label, -1, int(header[8]) - 1 - new + old


def _merge(chains: list[tuple[int, list[_Row]]]) -> _Blocks:
    """Lay chains over each other, the best score first; what a better chain covers is cut from the others."""
    taken: list[_Row] = []
    for _, rows in sorted(chains, key=lambda chain: -chain[0]):
        starts = np.array([row[0] for row in taken], dtype=np.int64)
        ends = np.array([row[1] for row in taken], dtype=np.int64)
        fresh = [piece for row in rows for piece in _cut(row, starts, ends)]
        taken = sorted([*taken, *fresh])
    start, end, chromosome, sign, shift = zip(*taken, strict=True)
    return _Blocks(
        np.array(start, dtype=np.int64),
        np.array(end, dtype=np.int64),
        np.array(chromosome, dtype=object),
        np.array(sign, dtype=np.int64),
        np.array(shift, dtype=np.int64),
    )


def _cut(row: _Row, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> list[_Row]:
    """Return what sorted, disjoint intervals leave of a block."""
    low, high = row[:2]
    first, last = int(np.searchsorted(ends, low, side="right")), int(np.searchsorted(starts, high, side="left"))
    pieces = []
    for a, b in zip(starts[first:last].tolist(), ends[first:last].tolist(), strict=True):
        if low < a:
            pieces.append((low, a, *row[2:]))
        low = max(low, b)
    if low < high:
        pieces.append((low, high, *row[2:]))
    return pieces
