"""Result tables on disk: Parquet for programs, tab-separated text (gzip) for people."""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from locomass.files.atomic import atomic_path

GZIP_LEVEL = 3  # twice as fast as the default, 10 % larger


def write_parquet(path: Path, table: pa.Table, row_group_size: int | None = None) -> None:
    """Write a Parquet file atomically, in row groups of so many rows (None: as the library likes)."""
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd", row_group_size=row_group_size)


def write_tsv(path: Path, table: pa.Table) -> None:
    """Write a tab-separated table atomically, gzipped when the name ends in .gz; NA stands for missing."""
    write_tsv_parts(path, [table])


def write_tsv_parts(path: Path, parts: Iterable[pa.Table]) -> None:
    """Write tables of one schema, one after the other, as a tab-separated table."""
    with TsvWriter(path) as writer:
        for table in parts:
            writer.write(table)


class TsvWriter:
    """A tab-separated table that is written part by part, and appears whole or not at all; gzipped for .gz."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stack = ExitStack()
        self._begun = False

    def __enter__(self) -> TsvWriter:
        raw = self._stack.enter_context(open(self._stack.enter_context(atomic_path(self.path)), "wb"))
        self._handle: Any = raw
        if self.path.suffix == ".gz":
            packed = gzip.GzipFile(filename="", mode="wb", fileobj=raw, compresslevel=GZIP_LEVEL, mtime=0)
            self._handle = self._stack.enter_context(packed)
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def write(self, table: pa.Table) -> None:
        """Write the rows of a table, the first with the names of the columns."""
        if not self._begun:
            self._handle.write(("\t".join(table.column_names) + "\n").encode())
        self._begun = True
        self._handle.write(_format_rows(table))


def _format_rows(table: pa.Table) -> bytes:
    """Return a table's rows as tab-separated lines."""
    if not table.num_rows:
        return b""
    columns = [_format_column(table.column(name).combine_chunks()) for name in table.column_names]
    lines = pc.binary_join_element_wise(*columns, "\t", null_handling="replace", null_replacement="NA")
    return ("\n".join(lines.to_pylist()) + "\n").encode()


def _format_column(column: pa.Array) -> pa.Array:
    """Return a column as text: floats with ten significant digits, NaN and null as NA."""
    if not pa.types.is_floating(column.type):
        return pc.cast(column, pa.string())
    values = column.to_numpy(zero_copy_only=False)
    # one call formats all: a third of the time of one call per value
    text = ("%.10g\n" * len(values)) % tuple(values.tolist())
    return pa.array(text.split("\n")[:-1], pa.string(), mask=np.isnan(values))


def read_parts(paths: Iterable[Path]) -> Iterator[pa.Table]:
    """Read Parquet parts one by one."""
    for path in paths:
        yield pq.read_table(path)


def concatenate_parquet(parts: Iterable[Path], schema: pa.Schema, path: Path, text: Path | None = None) -> int:
    """Write Parquet parts one after the other into one file, in bounded memory; return the number of rows.

    Args:
        parts: the files.
        schema: of all.
        path: the file to write.
        text: the same rows as a tab-separated table; every part is read once.
    """
    rows = 0
    with ExitStack() as stack:
        temporary = stack.enter_context(atomic_path(path))
        writers: list[Any] = [TsvWriter(text)] if text is not None else []
        writers.append(pq.ParquetWriter(temporary, schema, compression="zstd"))
        opened = [stack.enter_context(writer) for writer in writers]
        for table in read_parts(parts):
            rows += table.num_rows
            for writer in opened:
                writer.write(table.cast(schema))
    return rows
