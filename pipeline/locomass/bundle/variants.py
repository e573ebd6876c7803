"""variants.parquet of a bundle, read by row groups: what a batch of genes needs, not what the study has.

Decoded row groups, and parts of genes/, are kept in one store per process whose size is bounded whatever the number of
studies and genes.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from locomass.bundle.check import check_variant_group, check_variants_distinct
from locomass.bundle.tables import RowGroups, open_bundle_table
from locomass.numbers import Floats
from locomass.schema import BUNDLE_VARIANTS

Integers = NDArray[np.int64]
T = TypeVar("T")
STORE_BYTES = 128 << 20


class Store:
    """Values by key, the ones used longest ago dropped when they take more than ``limit`` bytes."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._kept: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], T], size: Callable[[T], int]) -> T:
        """Return the value of a key, made when it is not there; two threads may make it at once."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                found: T = self._kept[key][0]
                return found
        value = make()
        with self._lock:
            if key not in self._kept:
                self._kept[key] = (value, size(value))
                self._bytes += self._kept[key][1]
            while self._bytes > self.limit and len(self._kept) > 1:
                self._bytes -= self._kept.popitem(last=False)[1][1]
        return value


STORE = Store(STORE_BYTES)


@dataclass(frozen=True)
class VariantRows:
    """Some rows of variants.parquet.

    Attributes:
        chromosome, position, ref, alt: (v,) labels.
        n_obs: (v, S); alt_frequency: (v, S); U, V: (v, T).
    """

    chromosome: NDArray[np.object_]
    position: Integers
    ref: NDArray[np.object_]
    alt: NDArray[np.object_]
    n_obs: NDArray[np.int32]
    alt_frequency: Floats
    U: Floats
    V: Floats

    def take(self, rows: Any) -> VariantRows:
        """Return some of the rows."""
        return VariantRows(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))

    @property
    def nbytes(self) -> int:
        """Memory of the arrays."""
        return sum(int(getattr(self, name).nbytes) for name in self.__dataclass_fields__)

    @classmethod
    def of(cls, table: pa.Table) -> VariantRows:
        """Decode a checked table."""
        labels = (_texts(table.column(name)) for name in ("chromosome", "ref", "alt"))
        chromosome, ref, alt = labels
        matrices = (matrix_of(table.column(name)) for name in ("n_obs", "alt_frequency", "U", "V"))
        return cls(chromosome, table.column("position").to_numpy(), ref, alt, *matrices)


def _texts(column: pa.ChunkedArray) -> NDArray[np.object_]:
    """Return a column of text as objects; equal texts are one object."""
    encoded = column.combine_chunks().dictionary_encode()
    encoded = encoded.combine_chunks() if isinstance(encoded, pa.ChunkedArray) else encoded
    names = np.array([*encoded.dictionary.to_pylist(), ""], object)[:-1]
    found: NDArray[np.object_] = names[encoded.indices.to_numpy()]
    return found


def matrix_of(column: pa.ChunkedArray) -> NDArray[Any]:
    """Return a list column whose rows have one length as a matrix."""
    whole = column.combine_chunks()
    flat = whole.flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(len(whole), -1) if len(whole) else flat.reshape(0, 0)


class VariantFile:
    """variants.parquet of one bundle.

    Attributes:
        path: the file.
        num_rows: its variants.
    """

    def __init__(self, path: Path, info: dict[str, Any]) -> None:
        self.path, self._info, self._checked = path, info, False
        status = path.stat() if path.exists() else None
        self._stamp = (str(path), status.st_mtime_ns, status.st_size) if status else (str(path),)
        with open_bundle_table(path, BUNDLE_VARIANTS) as (file, self._promised):
            counts = [file.metadata.row_group(g).num_rows for g in range(file.metadata.num_row_groups)]
        self._bounds = np.concatenate(([0], np.cumsum(counts, dtype=np.int64)))
        self.num_rows = int(self._bounds[-1])

    def check(self) -> None:
        """Check the whole file, a row group at a time, once.

        Raises:
            BundleError: see `check_variant_group`; or a variant is listed twice.
        """
        if not self._checked:
            check_variants_distinct(self.tables(), self.path)
            self._checked = True

    def take(self, rows: Integers) -> VariantRows:
        """Return rows in the order asked for; the row groups that hold them are checked as they are read.

        Args:
            rows: numbers in range.
        """
        groups = np.unique(np.searchsorted(self._bounds, rows, side="right") - 1)
        parts = [self._group(int(g)) for g in groups] or [self._group(0)]
        if len(parts) == 1:
            return parts[0].take(rows - (self._bounds[groups[0]] if len(groups) else 0))
        chosen = [np.flatnonzero((rows >= self._bounds[g]) & (rows < self._bounds[g + 1])) for g in groups]
        order = np.argsort(np.concatenate(chosen), kind="stable")
        pieces = [p.take(rows[at] - self._bounds[g]) for p, at, g in zip(parts, chosen, groups, strict=True)]
        return VariantRows(
            *(np.concatenate([getattr(p, n) for p in pieces])[order] for n in VariantRows.__dataclass_fields__)
        )

    def tables(self) -> Iterator[pa.Table]:
        """Give the checked row groups."""
        for g in range(max(1, len(self._bounds) - 1)):
            yield self._read(g)

    def _group(self, g: int) -> VariantRows:
        return STORE.get((*self._stamp, g), lambda: VariantRows.of(self._read(g)), lambda rows: rows.nbytes)

    def _read(self, g: int) -> pa.Table:
        """Read and check one row group; an empty file has none, and is an empty table."""
        with RowGroups(self.path, BUNDLE_VARIANTS) as file:
            table = file.read(g)
        check_variant_group(table, self._info, self.path, int(self._bounds[g]))
        return table
