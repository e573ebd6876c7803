"""Result tables on disk: Parquet for programs, tab-separated text (gzip) for people."""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.io.atomic import atomic_path

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
    with (
        atomic_path(path) as temporary,
        open(temporary, "wb") as raw,
        gzip.GzipFile(filename="", mode="wb", fileobj=raw, compresslevel=GZIP_LEVEL, mtime=0)
        if path.suffix == ".gz"
        else raw as handle,
    ):
        for number, table in enumerate(parts):
            if number == 0:
                handle.write(("\t".join(table.column_names) + "\n").encode())
            handle.write(_format_rows(table))


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


def concatenate_parquet(parts: list[Path], schema: pa.Schema, path: Path) -> int:
    """Write Parquet parts one after the other into one file, in bounded memory; return the number of rows."""
    rows = 0
    with atomic_path(path) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        for table in read_parts(parts):
            rows += table.num_rows
            writer.write_table(table.cast(schema))
    return rows
