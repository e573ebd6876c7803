"""Tables of U and of V entry by entry, which the seqMeta text export and the generic format share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.errors import FormatError
from pipeline.io.delimited import Block, DelimitedFile, decode_strings
from pipeline.io.exchange.common import Floats, Integers, Labels

SYMMETRY = 1e-9  # relative: both triangles may be given, and must then agree


@dataclass(frozen=True)
class Entries:
    """Rows ``gene name_1 name_2 value`` of a covariance table, by gene."""

    path: Path
    rows: dict[str, list[tuple[str, str, float, int]]]


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
    return Entries(path, rows)


def fill_matrix(entries: Entries, gene: str, names: Labels) -> Floats:
    """Return the symmetric matrix of one gene on ``names``; entries that are not given are zero.

    Raises:
        FormatError: an unknown name, a pair given twice with different values, a diagonal entry that is missing.
    """
    place = {name: k for k, name in enumerate(names.tolist())}
    V = np.full((len(names), len(names)), np.nan)
    for a, b, x, _ in entries.rows.get(gene, []):
        if a not in place or b not in place:
            raise FormatError(f"'{a if a not in place else b}' has a covariance but no score", path=entries.path)
        i, j = place[a], place[b]
        if not np.isnan(V[i, j]) and abs(V[i, j] - x) > SYMMETRY * abs(x):
            raise FormatError(f"the covariance of {a} and {b} is given twice: {V[i, j]:g} and {x:g}", path=entries.path)
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
