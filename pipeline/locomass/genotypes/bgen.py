"""BGEN 1.2 and 1.3 (layout 2) with its .bgi index and .sample file: dosages from genotype probabilities.

Variants come from the index (bgenix writes it), so that opening reads no genotypes. The second allele is A1, which a
gene list may call ALT or REF: alleles are matched by name (``ref_known`` is False, as for a .bim).
"""

from __future__ import annotations

import sqlite3
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from locomass.errors import FormatError, InputError
from locomass.genotypes.base import Cost, Integers
from locomass.genotypes.dense import DenseRows
from locomass.genotypes.extras import import_extra
from locomass.genotypes.plink2 import SplitVariants
from locomass.variants.chromosomes import normalise_chromosome

HEADER_BYTES = 24
SAMPLE_COLUMNS = ("ID_1", "ID_2", "missing")
SEXES = {"1": 1, "M": 1, "m": 1, "2": 2, "F": 2, "f": 2}
_LOCAL = threading.local()
READERS = 3  # that a thread keeps open


@dataclass(frozen=True)
class BgenFile:
    """One .bgen file, opened and checked; see `GenotypeFile`.

    Attributes:
        path: the .bgen.
        split: its variants, every allele but the first a row.
        samples: fid, iid, sex.
        sample_path: the .sample, or the .bgen itself where it names its samples.
        sizes: (records,) bytes.
    """

    path: Path
    split: SplitVariants
    samples: pd.DataFrame
    sample_path: Path
    sizes: Integers
    kind: str = "BGEN"
    ref_known: bool = False

    @property
    def variants(self) -> pd.DataFrame:
        """One row per allele but the first."""
        return self.split.table

    @property
    def variant_path(self) -> Path:
        """The index."""
        return index_path(self.path)

    @property
    def paths(self) -> tuple[Path, ...]:
        """The .bgen, its index and its .sample."""
        return tuple(companions(self.path))

    def select(self, rows: Integers) -> BgenRows:
        """Return chosen variants, strictly increasing."""
        return BgenRows(self.path, len(self.samples), self.split.record[rows], self.split.allele[rows])

    def cost(self, rows: Integers) -> Cost:
        """Return what reading chosen variants costs: everybody may have a dosage."""
        most = np.full(len(rows), float(len(self.samples)))
        return Cost(self.sizes[self.split.record[rows]].astype(np.float64), most, most)


def index_path(path: Path) -> Path:
    """Return the index beside a .bgen."""
    return path.with_name(path.name + ".bgi")


def companions(path: Path) -> list[Path]:
    """Return the .bgen, its index, and its .sample where it has one."""
    sample = path.with_suffix(".sample")
    return [path, index_path(path), *([sample] if sample.is_file() else [])]


def open_file(path: Path) -> BgenFile:
    """Open one .bgen and check that its files belong together.

    Raises:
        FormatError: not a BGEN of layout 2, truncated, or an index or .sample of another file.
        InputError: no index.
        ConfigError: the package that reads BGEN is not installed.
    """
    import_extra("bgen", "bgen", "BGEN files")
    n_variants, n_samples, names = _read_header(path)
    split, sizes = _read_index(path, n_variants)
    sample_path = path.with_suffix(".sample")
    if sample_path.is_file():
        samples = _read_samples(sample_path)
    elif names is not None:
        sample_path, samples = path, names
    else:
        raise InputError(f"no such file: {sample_path}; {path.name} does not name its samples, so it needs one")
    if len(samples) != n_samples:
        raise FormatError(
            f"{n_samples:,} samples, but {sample_path.name} has {len(samples):,}; the files do not belong together",
            path=path,
        )
    return BgenFile(path, split, samples, sample_path, sizes)


def _read_header(path: Path) -> tuple[int, int, pd.DataFrame | None]:
    """Return the numbers of variants and samples, and the sample labels where the file has them."""
    try:
        with open(path, "rb") as handle:
            head = handle.read(HEADER_BYTES)
            if len(head) < HEADER_BYTES or head[16:20] not in (b"bgen", b"\0\0\0\0"):
                raise FormatError("not a BGEN file: its header has no 'bgen' at byte 16", path=path)
            offset, length, n_variants, n_samples = (int(x) for x in np.frombuffer(head[:16], "<u4"))
            handle.seek(length)
            flags = int(np.frombuffer(handle.read(4) or b"\0\0\0\0", "<u4")[0])
            if (flags >> 2) & 15 != 2:
                raise FormatError(
                    f"BGEN of layout {(flags >> 2) & 15}; rewrite it with layout 2 "
                    "(qctool, or plink2 --export bgen-1.2)",
                    path=path,
                )
            names = _read_names(handle.read(max(0, offset - length)), path) if flags >> 31 else None
            return n_variants, n_samples, names
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None


def _read_names(block: bytes, path: Path) -> pd.DataFrame:
    """Return the samples that the header names: one label each, FID the same."""
    try:
        count = int(np.frombuffer(block[4:8], "<u4")[0])
        names, at = [], 8
        for _ in range(count):
            size = int.from_bytes(block[at : at + 2], "little")
            label = block[at + 2 : at + 2 + size].decode()
            if not size or len(label.encode()) < size:
                raise ValueError
            names.append(label)
            at += 2 + size
    except (ValueError, IndexError):
        raise FormatError("damaged: its list of samples ends early", path=path) from None
    return pd.DataFrame({"fid": names, "iid": names, "sex": 0})


def _read_samples(path: Path) -> pd.DataFrame:
    """Read a .sample file: two header lines, ID_1 ID_2 missing [sex ...]."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    header = lines[0].split() if lines else []
    if len(lines) < 3 or tuple(header[:3]) != SAMPLE_COLUMNS:
        raise FormatError("expected a .sample file: a header ID_1 ID_2 missing, a line of types, samples", path=path)
    sex = next((k for k, name in enumerate(header) if name.lower() == "sex"), None)
    rows = []
    for number, line in enumerate(lines[2:], 3):
        fields = line.split()
        if not fields:
            continue
        if len(fields) != len(header):
            raise FormatError(f"expected {len(header)} fields, found {len(fields)}", path=path, line=number)
        rows.append((fields[0], fields[1], SEXES.get(fields[sex], 0) if sex is not None else 0))
    return pd.DataFrame(rows, columns=["fid", "iid", "sex"])


def _read_index(path: Path, n_variants: int) -> tuple[SplitVariants, Integers]:
    """Return the variants of the index, and the bytes of every record."""
    index = index_path(path)
    if not index.is_file():
        raise InputError(f"no such file: {index}; make the index: bgenix -g {path.name} -index")
    query = (
        "SELECT chromosome, position, rsid, number_of_alleles, allele1, allele2, file_start_position, size_in_bytes "
        "FROM Variant ORDER BY file_start_position"
    )
    try:
        connection = sqlite3.connect(f"file:{index}?mode=ro", uri=True)
        try:
            rows = connection.execute(query).fetchall()
        finally:
            connection.close()
    except sqlite3.Error as error:
        text = f"not an index of bgenix ({error}); make it again: bgenix -g {path.name} -index"
        raise FormatError(text, path=index) from None
    if len(rows) != n_variants:
        raise FormatError(
            f"{len(rows):,} variants, but {path.name} has {n_variants:,}; it is the index of another file: make it "
            f"again: bgenix -g {path.name} -index",
            path=index,
        )
    if not rows:
        raise FormatError("no variants", path=path)
    several = next((row for row in rows if row[3] != 2), None)
    if several is not None:
        raise FormatError(
            f"variant {several[2]} at {several[0]}:{several[1]} has {several[3]} alleles; split them first "
            "(plink2 --bgen FILE ref-first --make-pgen, then name the .pgen)",
            path=path,
        )
    last, size = rows[-1][6] + rows[-1][7], path.stat().st_size
    if last > size:
        raise FormatError(
            f"truncated: {size:,} of {last:,} bytes are there by its index; the copy is incomplete", path=path
        )
    labels = {c: normalise_chromosome(c) for c in {row[0] for row in rows}}
    table = pd.DataFrame(
        {
            "chromosome": pd.Categorical([labels[row[0]] for row in rows]),
            "position": np.array([row[1] for row in rows], np.int64),
            "id": [row[2] for row in rows],
            "a1": [row[5].upper() for row in rows],
            "a2": [row[4].upper() for row in rows],
        }
    )
    number = np.arange(len(rows), dtype=np.int64)
    split = SplitVariants(table, number, np.ones(len(rows), np.int64), len(rows))
    return split, np.array([row[7] for row in rows], np.int64)


@dataclass(frozen=True)
class BgenRows(DenseRows):
    """Chosen variants of a .bgen; see `GenotypeRows`."""

    path: Path
    n_samples: int
    record: Integers
    allele: Integers

    def __len__(self) -> int:
        return len(self.record)

    def take(self, start: int, stop: int) -> BgenRows:
        """See `GenotypeRows`."""
        return BgenRows(self.path, self.n_samples, self.record[start:stop], self.allele[start:stop])

    def read(self) -> NDArray[np.float32]:
        """Read (m, N) dosages of A1, NaN missing.

        Raises:
            FormatError: a record cannot be read.
        """
        reader = _reader(self.path)
        out = np.empty((len(self), self.n_samples), np.float32)
        for k, record in enumerate(self.record.tolist()):
            try:
                out[k] = reader[record].alt_dosage
            except (ValueError, IndexError, RuntimeError, AssertionError) as error:
                text = f"record {record + 1} cannot be read ({error}); the file is damaged"
                raise FormatError(text, path=self.path) from None
        return out


def _reader(path: Path) -> Any:
    """Return this thread's reader of a file."""
    from bgen import BgenReader

    readers: dict[tuple[str, int, int], Any] = _LOCAL.__dict__.setdefault("readers", {})
    try:
        stat = path.stat()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; was it moved while the run was going on?") from None
    key = (str(path), stat.st_size, stat.st_mtime_ns)
    if key not in readers:
        while len(readers) >= READERS:
            readers.pop(next(iter(readers))).close()
        try:
            readers[key] = BgenReader(str(path), delay_parsing=True)
        except (ValueError, RuntimeError) as error:
            raise FormatError(f"damaged: {error}", path=path) from None
    return readers[key]
