"""Phenotype, covariate, keep and remove tables: one row per sample, labelled by ``FID IID`` or by ``IID`` alone."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from locomass.errors import FormatError, MatchError, suggest
from locomass.files.arrow import decode_strings
from locomass.tables.delimited import MISSING, Block, DelimitedFile, is_missing, parse_numbers

log = logging.getLogger("locomass")

#: What people write for a missing value.
USUAL_CODES = (-9.0, -99.0, -999.0, -9999.0, 999.0, 9999.0)
_BINARY_CODES = {"01": (0.0, 1.0), "12": (1.0, 2.0)}


@dataclass(frozen=True, slots=True)
class SampleTable:
    """Columns of a sample table, in file order.

    Attributes:
        path: the file.
        fid: (n,) family labels, or None when the file has an IID column only (match on IID).
        iid: (n,) individual labels.
        columns: (n,) array by name. Quantitative and binary columns are float64 (NaN missing; binary 0 / 1);
            categorical columns are ``str`` with "" for missing.
    """

    path: Path
    fid: NDArray[np.str_] | None
    iid: NDArray[np.str_]
    columns: dict[str, NDArray[Any]] = field(default_factory=dict)

    def __len__(self) -> int:
        return int(self.iid.shape[0])


def read_column_names(path: str | Path) -> list[str]:
    """Return the names of the data columns (FID and IID left out) without reading the rows."""
    file = DelimitedFile(path)
    return file.names[_count_id_columns(file) :]


def read_table(
    path: str | Path,
    *,
    quantitative: Sequence[str] = (),
    binary: Sequence[str] = (),
    categorical: Sequence[str] = (),
    missing_codes: Sequence[str] = (),
    binary_coding: str = "01",
) -> SampleTable:
    """Read chosen columns of a phenotype or covariate table.

    Args:
        path: whitespace-, tab- or comma-separated file with a header ``FID IID ...`` or ``IID ...``; gzip allowed.
        quantitative: column names or patterns (``ENSG*``); a column named outright in one of the three lists is left
            out of the patterns of the others.
        binary: the same, for columns of zeros and ones.
        categorical: the same, for columns of texts.
        missing_codes: further texts that mean "missing", such as ``-9``, numbers by their value (``-9.0``). Always
            missing: NA, NaN, ".", empty.
        binary_coding: "01" (0 = control, 1 = case) or "12" (1 = control, 2 = case).

    Returns:
        The table, columns in file order.

    Raises:
        FormatError: no FID / IID header, a sample twice (names both lines), text in a numeric column, a binary value
            outside the coding (names line and column).
        MatchError: a column that is not there (with a suggestion), or one claimed by two lists.
    """
    file = DelimitedFile(path)
    n_ids = _count_id_columns(file)
    kinds = _assign_kinds(
        file.names[n_ids:], {"quantitative": quantitative, "binary": binary, "categorical": categorical}, file.path
    )
    block = file.table([*file.names[:n_ids], *kinds])
    fid, iid = _read_ids(block, file.names[:n_ids])
    missing = (*MISSING, *missing_codes)
    _log_coded(block, kinds, missing_codes)
    columns: dict[str, NDArray[Any]] = {}
    for name, kind in kinds.items():
        if kind == "categorical":
            columns[name] = read_categories(block, name, missing)
        elif kind == "binary":
            columns[name] = _read_binary(block, name, missing, binary_coding)
        else:
            columns[name] = block.numbers(
                name, missing=missing, hint="; write NA for a missing value, or list the column under categorical"
            )
    return SampleTable(file.path, fid, iid, columns)


def _log_coded(block: Block, kinds: Mapping[str, str], missing_codes: Sequence[str]) -> None:
    """Log how many values of each column are a code for missing: they may be meant as values; and the reverse."""
    for name, kind in kinds.items():
        count = pc.sum(is_missing(block.table[name], missing_codes)).as_py() if missing_codes else 0
        if count:
            log.info(
                "%s, column %s: %s values are %s, taken as missing (key missing_codes)",
                block.path.name,
                name,
                f"{count:,}",
                " or ".join(missing_codes),
            )
        if kind == "quantitative":
            _warn_of_codes(block, name, missing_codes)


def _warn_of_codes(block: Block, name: str, missing_codes: Sequence[str]) -> None:
    """Warn of values that look like a code for missing: the one negative number of a column, or far beyond the rest."""
    values, _ = parse_numbers(block.table[name], (*MISSING, *missing_codes))
    known = values[np.isfinite(values)]
    for code in USUAL_CODES:
        count, others = int((known == code).sum()), known[known != code]
        if not count or not others.size:
            continue
        far = np.abs(code - np.median(others)) > 10 * max(float(others.max() - others.min()), 1e-12)
        alone = code < 0 and others.min() >= 0
        if far or alone:
            log.warning(
                "%s, column %s: %s values are %g and are taken as values; if that is a code for missing, add "
                "it to missing_codes",
                block.path.name,
                name,
                f"{count:,}",
                code,
            )


def read_sample_list(path: str | Path) -> SampleTable:
    """Read a keep or remove file: ``FID IID`` or ``IID`` per line, no header (a ``#FID`` or ``#IID`` line is skipped).

    Further columns are ignored; a sample named twice counts once.

    Raises:
        FormatError: empty file, or lines of differing width.
    """
    file = DelimitedFile(path, header=False)
    names = file.names[:2]
    block = file.table(names)
    rows = np.array([block.table[name].to_pylist() for name in names], dtype=str).T
    if rows[0, 0].lstrip("#").upper() in ("FID", "IID"):
        rows = rows[1:]
    _, first = np.unique(rows, axis=0, return_index=True)
    rows = rows[np.sort(first)]
    return SampleTable(file.path, rows[:, 0] if len(names) == 2 else None, rows[:, -1])


def select_columns(columns: Sequence[str], patterns: Iterable[str], what: str) -> list[str]:
    """Return the columns that match any of the names or shell patterns, in file order.

    Args:
        columns: the names there are.
        patterns: exact names, or patterns with ``*``, ``?`` or ``[...]``.
        what: what they are, for the message (``quantitative column of pheno.tsv``).

    Raises:
        MatchError: a name or pattern that matches nothing; suggests the nearest name.
    """
    chosen: set[str] = set()
    for pattern in patterns:
        hits = {pattern} if pattern in columns else {name for name in columns if fnmatchcase(name, pattern)}
        if not hits:
            raise MatchError(f"{what} '{pattern}' matches no column{suggest(pattern, columns)}")
        chosen |= hits
    return [name for name in columns if name in chosen]


def _assign_kinds(names: Sequence[str], wanted: Mapping[str, Sequence[str]], path: Path) -> dict[str, str]:
    """Return {column: kind} in file order."""
    outright = {pattern: kind for kind, patterns in wanted.items() for pattern in patterns if pattern in names}
    kinds: dict[str, str] = {}
    for kind, patterns in wanted.items():
        for name in select_columns(names, patterns, f"{kind} column of {path.name}"):
            if name not in patterns and outright.get(name, kind) != kind:
                continue
            if kinds.setdefault(name, kind) != kind:
                raise MatchError(f"column '{name}' of {path.name} is listed both as {kinds[name]} and as {kind}")
    return {name: kinds[name] for name in names if name in kinds}


def _count_id_columns(file: DelimitedFile) -> int:
    """Return 2 for ``FID IID ...``, 1 for ``IID ...``."""
    heads = [name.upper() for name in file.names[:2]]
    if heads == ["FID", "IID"]:
        return 2
    if heads[0] == "IID":
        return 1
    found = " ".join(file.names[:3])
    message = f"expected a header that starts with 'FID IID' or 'IID', got '{found}'"
    raise FormatError(message, path=file.path, line=file.header_line)


def _read_ids(block: Block, names: Sequence[str]) -> tuple[NDArray[np.str_] | None, NDArray[np.str_]]:
    labels = [np.asarray(block.table[name].to_pylist(), dtype=str) for name in names]
    if len(block) == 0:
        raise FormatError("has a header but no samples", path=block.path)
    keys = list(zip(*(column.tolist() for column in labels), strict=True))
    seen: dict[tuple[str, ...], int] = {}
    for row, key in enumerate(keys):
        if not key[-1]:
            raise FormatError("sample without an IID", path=block.path, line=block.line(row))
        if seen.setdefault(key, row) != row:
            lines = f"lines {block.line(seen[key])} and {block.line(row)}"
            raise FormatError(f"sample '{' '.join(key)}' is on {lines}; keep one", path=block.path)
    return (labels[0] if len(labels) == 2 else None), labels[-1]


def read_categories(block: Block, name: str, missing: Sequence[str]) -> NDArray[np.str_]:
    """Return a column of texts, empty where missing."""
    present = pc.if_else(is_missing(block.table[name], missing), "", pc.utf8_trim_whitespace(block.table[name]))
    return np.asarray(decode_strings(present), dtype=str)


def _read_binary(block: Block, name: str, missing: Sequence[str], coding: str) -> NDArray[np.float64]:
    if coding not in _BINARY_CODES:
        raise ValueError(f"binary_coding is '{coding}'; expected '01' or '12'")
    low, high = _BINARY_CODES[coding]
    values = block.numbers(name, missing=missing)
    wrong = np.flatnonzero(~np.isnan(values) & (values != low) & (values != high))
    if wrong.size:
        row = int(wrong[0])
        seen = set(np.unique(values[~np.isnan(values)]).tolist())
        hint = "; if 1 = control and 2 = case, set binary_coding to '12'" if seen == {1.0, 2.0} else ""
        raise FormatError(
            f"expected {low:g}, {high:g} or NA, got '{block.table[name][row].as_py()}'{hint}",
            path=block.path,
            line=block.line(row),
            column=name,
        )
    return np.asarray(values - low)
