"""Tables of a bundle that somebody else wrote, read as untrusted input.

Sizes are read from file and Parquet metadata before any content is decoded, so that a small file cannot ask for much
memory. Every refusal is a `BundleError` that names the file and the reason. Nothing here executes, or writes, anything.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from locomass.bundle.texts import MAX_TEXT, find_unprintable
from locomass.errors import BundleError, FormatError
from locomass.schema import BUNDLE_VARIANTS, TableSchema, validate_table

MAX_JSON_BYTES = 16 << 20
MAX_FILE_BYTES = 16 << 30  # of one Parquet file on disk
MAX_DECODED_BYTES = 8 << 30  # of one Parquet file in memory
FREE_BYTES = 48 << 20  # of one Parquet file in memory that are not asked about
MAX_EXPANSION = 60  # times its bytes on disk; files of real studies take 1 to 5
MAX_VARIANTS = 100_000_000
MAX_ROWS_PER_PART = 5_000_000
MAX_TEXT_BYTES = 2 << 30  # of one column of texts, each row's counted, however well a file repeats them


def check_file(path: Path, max_bytes: int) -> None:
    """Raise unless ``path`` is an ordinary file (no link) of bounded size."""
    try:
        status = path.lstat()
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}; the bundle is incomplete") from None
    if not stat.S_ISREG(status.st_mode):
        kind = "a link" if stat.S_ISLNK(status.st_mode) else "no ordinary file"
        raise BundleError(f"{path} is {kind}; a bundle holds ordinary files only")
    if status.st_size > max_bytes:
        raise BundleError(f"{path} has {status.st_size:,} bytes; the most accepted is {max_bytes:,}")


def read_bundle_table(path: Path, schema: TableSchema, columns: Sequence[str] = ()) -> pa.Table:
    """Read a Parquet file of a bundle after its metadata has passed.

    Args:
        path: the file.
        schema: what it must be.
        columns: those to read; all when not given.

    Raises:
        BundleError: a link, damaged, of another schema, too large on disk or (by its metadata) in memory, with nulls,
            or with more content than its metadata say.
    """
    if columns:
        schema = replace(schema, columns=tuple(c for c in schema.columns if c.name in columns))
    with open_bundle_table(path, schema) as (file, promised):
        table = _read_columns(lambda names: file.read(columns=names, use_pandas_metadata=False), path, schema)
    for column in schema.columns:
        _check_values(table.column(column.name), promised.get(column.name, 0), column.name, path)
    return table


class RowGroups:
    """Row groups of a Parquet file of a bundle: opened, and its metadata checked, when the first is read."""

    def __init__(self, path: Path, schema: TableSchema) -> None:
        self.path, self.schema = path, schema
        self._stack = ExitStack()
        self._file: Any = None

    def __enter__(self) -> RowGroups:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def read(self, g: int) -> pa.Table:
        """Read one row group; a file without row groups gives an empty table.

        Raises:
            BundleError: as `read_bundle_table`.
        """
        if self._file is None:
            self._file, _ = self._stack.enter_context(open_bundle_table(self.path, self.schema))
        file, schema = self._file, self.schema
        if not file.metadata.num_row_groups:
            return schema.arrow.empty_table()
        promised = _promised_values(file.metadata, [g])
        table = _read_columns(
            lambda columns: file.read_row_group(g, columns=columns, use_threads=False, use_pandas_metadata=False),
            self.path,
            schema,
        )
        for column in schema.columns:
            _check_values(table.column(column.name), promised.get(column.name, 0), column.name, self.path)
        return table


@contextmanager
def open_bundle_table(path: Path, schema: TableSchema) -> Iterator[tuple[Any, dict[str, int]]]:
    """Open a Parquet file of a bundle whose metadata pass; give it with the number of values of each column.

    Raises:
        BundleError: a link, damaged, of another schema, too large on disk or (by its metadata) in memory.
    """
    check_file(path, MAX_FILE_BYTES)
    texts = [c.name for c in schema.columns if c.type == pa.string()]
    try:
        file = _open_parquet(path, texts)
    except KeyError:  # a column is missing: the check of the metadata says which
        file = _open_parquet(path, [])
    with file:
        try:
            promised = _check_metadata(file, path, schema)
        except (OSError, ValueError, pa.ArrowException) as error:  # a name that is no text, too
            raise _damaged(path, error) from None
        yield file, promised


def _open_parquet(path: Path, texts: list[str]) -> Any:
    """Open a Parquet file whose texts are to be read as a dictionary."""
    try:
        return pq.ParquetFile(
            path,
            thrift_string_size_limit=MAX_JSON_BYTES,
            thrift_container_size_limit=10_000_000,
            memory_map=False,
            read_dictionary=texts,
        )
    except (OSError, ValueError, pa.ArrowException, MemoryError) as error:
        raise _damaged(path, error) from None


def _read_columns(read: Callable[[list[str]], pa.Table], path: Path, schema: TableSchema) -> pa.Table:
    """Read the columns of a schema."""
    try:
        # a stranger's metadata go: pandas would follow them
        table = read([c.name for c in schema.columns]).replace_schema_metadata(None)
    except (OSError, ValueError, pa.ArrowException, MemoryError) as error:
        raise _damaged(path, error) from None
    try:
        return validate_table(_expand_texts(table, path), schema, path)
    except FormatError as error:
        raise BundleError(str(error)) from None


def _expand_texts(table: pa.Table, path: Path) -> pa.Table:
    """Return the table with plain texts, which were read as a dictionary: five million rows may share one long text.

    Raises:
        BundleError: a text is too long, or all of a column's are.
    """
    for at, name in enumerate(table.column_names):
        column = table.column(name)
        if not pa.types.is_dictionary(column.type):
            continue
        total = 0
        for chunk in column.chunks:
            lengths = np.asarray(pc.binary_length(chunk.dictionary).fill_null(0), np.int64)
            if lengths.max(initial=0) > 4 * MAX_TEXT:
                raise BundleError(f"{path}: column '{name}' has a text of {lengths.max():,} bytes; expected names")
            odd = find_unprintable(chunk.dictionary.drop_null().to_pylist())
            if odd is not None:
                raise BundleError(f"{path}: column '{name}' has {odd!r}: a control or direction character in a name")
            used = chunk.indices.drop_null().to_numpy()
            total += int(lengths[used].sum()) if len(lengths) else 0
        most = min(MAX_TEXT_BYTES, bound_decoded(path))
        if total > most:
            raise BundleError(
                f"{path}: {path.stat().st_size:,} bytes whose column '{name}' would take {total:,} in memory; the most "
                f"accepted is {most:,}"
            )
        table = table.set_column(at, name, column.cast(pa.string()))
    return table


def _damaged(path: Path, error: BaseException) -> BundleError:
    return BundleError(f"{path} is damaged or cut short: {str(error)[:300]}")


def _check_metadata(file: Any, path: Path, schema: TableSchema) -> dict[str, int]:
    """Check sizes and columns that the metadata promise; return the number of values of each column."""
    metadata = file.metadata
    limit = MAX_VARIANTS if schema.name == BUNDLE_VARIANTS.name else MAX_ROWS_PER_PART
    if metadata.num_rows > limit or metadata.num_row_groups > limit:
        raise BundleError(f"{path}: {metadata.num_rows:,} rows; the most accepted is {limit:,}")
    names = file.schema_arrow.names
    for column in schema.columns:
        if names.count(column.name) != 1:
            count = names.count(column.name)
            raise BundleError(f"{path}: {count} columns '{column.name}', expected 1 ({column.meaning})")
        found = file.schema_arrow.field(column.name).type
        found = found.value_type if pa.types.is_dictionary(found) else found
        if found != column.type:
            raise BundleError(f"{path}: column '{column.name}' has type {found}, expected {column.type}")
    values = _promised_values(metadata, range(metadata.num_row_groups))
    decoded = 0
    for g in range(metadata.num_row_groups):
        group = metadata.row_group(g)
        for c in range(group.num_columns):
            chunk = group.column(c)
            decoded += max(chunk.total_uncompressed_size, 8 * chunk.num_values)
    most = bound_decoded(path)
    if decoded > most:
        size = path.stat().st_size
        raise BundleError(
            f"{path}: {size:,} bytes that would take {decoded:,} in memory; the most accepted is {most:,}"
        )
    return values


def bound_decoded(path: Path) -> int:
    """Return how many bytes a file may take in memory: what its own size makes likely."""
    return min(MAX_DECODED_BYTES, max(FREE_BYTES, MAX_EXPANSION * path.stat().st_size))


def _promised_values(metadata: Any, groups: Iterable[int]) -> dict[str, int]:
    """Return the number of values of each column in some row groups, by the metadata."""
    values: dict[str, int] = {}
    for g in groups:
        group = metadata.row_group(g)
        for c in range(group.num_columns):
            chunk = group.column(c)
            name = chunk.path_in_schema.split(".")[0]
            values[name] = values.get(name, 0) + chunk.num_values
    return values


def _check_values(column: pa.ChunkedArray, promised: int, name: str, path: Path) -> None:
    """Raise when a column has nulls, or more values than promised."""
    chunks = column.chunks
    nested = pa.types.is_list(column.type)
    found = sum(len(c.flatten()) if nested else len(c) for c in chunks)
    if found > promised:
        raise BundleError(f"{path}: column '{name}' has {found:,} values, its metadata say {promised:,}")
    nulls = column.null_count + (sum(c.flatten().null_count for c in chunks) if nested else 0)
    if nulls:
        raise BundleError(f"{path}: column '{name}' has {nulls:,} nulls; expected a value in every row")
