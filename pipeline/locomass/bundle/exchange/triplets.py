"""Tables of U and of V entry by entry, which the seqMeta text export and the generic format share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from locomass.bundle.exchange.common import Integers, Labels
from locomass.errors import FormatError
from locomass.files.arrow import decode_strings
from locomass.numbers import Floats
from locomass.tables.delimited import Block, DelimitedFile

SYMMETRY = 1e-9  # relative: both triangles may be given, and must then agree


@dataclass(frozen=True)
class Entries:
    """Rows ``gene name_1 name_2 value`` of a covariance table, by gene."""

    path: Path
    rows: dict[str, list[tuple[str, str, float, int]]]
    line: Callable[[int], int]


def open_table(path: Path, columns: tuple[str, ...]) -> Block:
    """Return a table that must have these columns.

    Raises:
        FormatError: one is missing, or the table has no rows.
    """
    file = DelimitedFile(path)
    for name in columns:
        if name not in file.names:
            raise FormatError(f"no column {name}; found {', '.join(file.names)}", path=path, line=file.header_line)
    block = file.table()
    if not len(block):
        raise FormatError("has a header but no rows", path=path)
    return block


def read_entries(path: Path, columns: tuple[str, str, str], gene: str | None) -> Entries:
    """Read a covariance table.

    Args:
        path: the file.
        columns: names of the two variants' columns and of the value.
        gene: name of the gene's column; None when all rows are of one gene, "".
    """
    block = open_table(path, columns if gene is None else (gene, *columns))
    first, second = (decode_strings(block.table[c]) for c in columns[:2])
    values = block.numbers(columns[2], missing=())
    owner = np.full(len(block), "", object) if gene is None else decode_strings(block.table[gene])
    rows: dict[str, list[tuple[str, str, float, int]]] = {}
    for k, (g, a, b, x) in enumerate(zip(owner, first, second, values.tolist(), strict=True)):
        rows.setdefault(g, []).append((a, b, x, k))
    for k in np.flatnonzero(~np.isfinite(values))[:1]:
        raise FormatError("expected a finite number", path=path, line=block.line(k), column=columns[2])
    return Entries(path, rows, block.line)


def fill_matrix(entries: Entries, gene: str, names: Labels, absent: Labels | None = None) -> Floats:
    """Return the symmetric matrix of one gene on ``names``; entries that are not given are zero.

    Args:
        entries: the table.
        gene: whose rows.
        names: (m,) of the matrix.
        absent: names that the study lacks: their entries may be there and are not read.

    Raises:
        FormatError: an unknown name, a pair given twice with different values, a diagonal entry that is missing.
    """
    place = {name: k for k, name in enumerate(names.tolist())}
    unread = set() if absent is None else set(absent.tolist())
    V = np.full((len(names), len(names)), np.nan)
    for a, b, x, row in entries.rows.get(gene, []):
        if a in unread or b in unread:
            continue
        if a not in place or b not in place:
            message = f"'{a if a not in place else b}' has a covariance but no score in gene '{gene or 'all'}'"
            raise FormatError(message, path=entries.path, line=entries.line(row))
        i, j = place[a], place[b]
        if not np.isnan(V[i, j]) and abs(V[i, j] - x) > SYMMETRY * abs(x):
            message = f"the covariance of {a} and {b} is given twice: {V[i, j]:g} and {x:g}"
            raise FormatError(message, path=entries.path, line=entries.line(row))
        V[i, j] = V[j, i] = x
    for k in np.flatnonzero(np.isnan(np.diag(V)))[:1]:
        raise FormatError(f"no variance (row {names[k]} {names[k]}) is given", path=entries.path)
    return np.nan_to_num(V)


def group_rows(labels: Labels) -> dict[str, Integers]:
    """Return the rows of each label, in the order they first come."""
    groups: dict[str, list[int]] = {}
    for k, label in enumerate(labels.tolist()):
        groups.setdefault(label, []).append(k)
    return {label: np.array(rows, np.int64) for label, rows in groups.items()}
