"""PLINK 2 .pgen: rare variants are stored as lists of their carriers, and are read as such.

A reader (pgenlib's) belongs to one thread. Rows of hard calls give int8; a batch with any imputed row gives float32.
The header tells, without reading a row, how each is stored and how long it is: that is what planning goes by.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from locomass.errors import FormatError, InputError
from locomass.genotypes import dense
from locomass.genotypes.base import MISSING, CarrierLists, Cost, Integers, People
from locomass.genotypes.plink2 import SplitVariants, find_sample_file, find_variant_file, read_samples, read_variants
from locomass.numbers import Floats

MAGIC = b"\x6c\x1b"
FIXED, VARIABLE = (0x02, 0x03, 0x04), 0x10
GROUP = 1 << 16  # variants of a group in the header
DENSE_BYTES = 16 << 20  # of dense rows decoded at a time
# record type: the low three bits say how calls are stored, bit 3 that there are further ALT alleles, bits 5 and 6 that
# there are dosages
CALLS, FURTHER_ALTS, DOSAGES = 0x07, 0x08, 0x60
DIFFERS_FROM_PREVIOUS, SPARSE_REF, SPARSE_ALT = (2, 3), 4, 6
DENSE_TYPE = 0
LEAST_BYTES = 1.25  # of a carrier in a list
CODE_MISSING = -9  # pgenlib's


@dataclass(frozen=True)
class PgenFile:
    """One .pgen file, opened and checked; see `GenotypeFile`.

    Attributes:
        path: the .pgen.
        split: its variants, every ALT a row.
        samples: fid, iid, sex.
        sample_path, variant_path: the .psam or .fam; the .pvar, .pvar.zst or .bim.
        types: (records,) how each is stored.
        lengths: (records,) bytes.
    """

    path: Path
    split: SplitVariants
    samples: pd.DataFrame
    sample_path: Path
    variant_path: Path
    types: NDArray[np.uint8]
    lengths: NDArray[np.int64]
    kind: str = "PLINK 2 .pgen"

    @property
    def variants(self) -> pd.DataFrame:
        """One row per ALT."""
        return self.split.table

    @property
    def ref_known(self) -> bool:
        """A .bim does not say which allele is REF."""
        return self.variant_path.suffix != ".bim"

    @property
    def paths(self) -> tuple[Path, ...]:
        """The three files."""
        return (self.path, self.variant_path, self.sample_path)

    def select(self, rows: Integers) -> PgenRows:
        """Return chosen variants, strictly increasing."""
        record = self.split.record[rows]
        counts = self.split.n_records != len(self.split.record)
        return PgenRows(
            path=self.path,
            n_samples=len(self.samples),
            record=record,
            allele=self.split.allele[rows],
            types=self.types[record],
            multiallelic=self.variant_path if counts else None,
        )

    def cost(self, rows: Integers) -> Cost:
        """Return what reading chosen variants costs; a list of carriers says how many there are."""
        record = self.split.record[rows]
        return Cost(self.lengths[record].astype(np.float64), self._most[record], self._most[record])

    @cached_property
    def _most(self) -> Floats:
        """(records,) carriers at most; a record that is stored as a difference has those of its base besides."""
        n, types = float(len(self.samples)), self.types & CALLS
        own = self.lengths / LEAST_BYTES + 1
        most = np.where(np.isin(types, (SPARSE_REF, SPARSE_ALT)), own, n)
        differs = np.isin(types, DIFFERS_FROM_PREVIOUS)
        base = np.maximum.accumulate(np.where(differs, 0, np.arange(len(types))))
        return np.asarray(np.minimum(n, np.where(differs, most[base] + own, most)))


def companions(path: Path) -> list[Path]:
    """Return the .pgen, its .pvar and its .psam."""
    return [path, find_variant_file(path), find_sample_file(path)]


def open_file(path: Path) -> PgenFile:
    """Open one .pgen and check that its files belong together.

    Raises:
        FormatError: wrong magic, truncated, or the counts of the three files differ.
        InputError: a file is missing.
    """
    variant_path, sample_path = find_variant_file(path), find_sample_file(path)
    samples, split = read_samples(sample_path), read_variants(variant_path)
    types, lengths = read_index(path, split.n_records, len(samples), variant_path, sample_path)
    remember_offsets(variant_path, split.allele_offsets())
    part = PgenFile(path, split, samples, sample_path, variant_path, types, lengths)
    _reader(path, len(samples), variant_path if split.n_records != len(split.record) else None)
    return part


def read_index(
    path: Path, n_records: int, n_samples: int, variant_path: Path, sample_path: Path
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return type and length of every record, as the header has them.

    Raises:
        FormatError: not a .pgen, or one of other variants or samples, or truncated.
    """
    try:
        with open(path, "rb") as handle:
            head = handle.read(12)
            size = path.stat().st_size
            if head[:2] != MAGIC or len(head) < 12:
                raise FormatError(
                    f"not a PLINK 2 .pgen: expected the bytes 6c 1b, found {head[:2].hex(' ') or 'an empty file'}",
                    path=path,
                )
            mode = head[2]
            if mode == 0x01:
                raise FormatError("a PLINK 1 .bed by its first bytes; name it NAME.bed", path=path)
            counts = np.frombuffer(head[3:11], "<u4").astype(np.int64)
            _check_counts(counts, n_records, n_samples, path, variant_path, sample_path)
            if mode in FIXED:
                width = (n_samples + 3) // 4 + {0x02: 0, 0x03: 2, 0x04: 4}[mode] * n_samples
                types = np.full(n_records, DENSE_TYPE if mode == 0x02 else DOSAGES, np.uint8)
                lengths = np.full(n_records, width, np.int64)
                _check_size(size, 12 + n_records * width, path)
                return types, lengths
            if mode != VARIABLE:  # an index in another place: every row is read dense, which is always right
                return np.full(n_records, DOSAGES, np.uint8), np.full(n_records, (n_samples + 3) // 4, np.int64)
            return _read_groups(handle.read(_header_bytes(head[11], n_records)), head[11], n_records, size, path)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None


def _header_bytes(control: int, n_records: int) -> int:
    """Return an upper bound of the bytes of the header after its first 12."""
    groups = -(-n_records // GROUP)
    per_record = 1 + 4 + ((control >> 4) & 3) + 1
    return 8 * groups + per_record * (n_records + 8)


def _read_groups(
    body: bytes, control: int, n_records: int, size: int, path: Path
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return types and lengths of the records from the groups of a header."""
    storage = control & 15
    if storage > 7:
        return np.full(n_records, DOSAGES, np.uint8), np.full(n_records, size // max(n_records, 1), np.int64)
    narrow, width = storage < 4, (storage & 3) + 1
    counts, flags = (control >> 4) & 3, (control >> 6) == 3
    groups = -(-n_records // GROUP)
    at = 8 * groups
    types, lengths = np.empty(n_records, np.uint8), np.empty(n_records, np.int64)
    data = np.frombuffer(body, np.uint8)
    first_record = int(data[:8].view("<u8")[0]) if len(data) >= 8 else 0
    for start in range(0, n_records, GROUP):
        n = min(GROUP, n_records - start)
        of_types = (n + 1) // 2 if narrow else n
        if at + of_types + n * width > len(data):
            raise FormatError(_truncated(size), path=path)
        packed = data[at : at + of_types]
        own = np.column_stack([packed & 15, packed >> 4]).reshape(-1)[:n] if narrow else packed
        at += of_types
        wide = np.zeros((n, 8), np.uint8)
        wide[:, :width] = data[at : at + n * width].reshape(n, width)
        types[start : start + n], lengths[start : start + n] = own, wide.view("<u8")[:, 0]
        at += n * width + n * counts + (((n + 7) // 8) if flags else 0)
    _check_size(size, first_record + int(lengths.sum()), path)
    return types, lengths


def _check_counts(
    counts: Integers, n_records: int, n_samples: int, path: Path, variant_path: Path, sample_path: Path
) -> None:
    """Raise unless the .pgen has the variants and samples that the files beside it name."""
    for what, own, other, beside in (
        ("variants", int(counts[0]), n_records, variant_path),
        ("samples", int(counts[1]), n_samples, sample_path),
    ):
        if own != other:
            raise FormatError(
                f"{own:,} {what}, but {beside.name} has {other:,}; the files do not belong together", path=path
            )


def _check_size(size: int, expected: int, path: Path) -> None:
    if size < expected:
        raise FormatError(_truncated(size, expected), path=path)


def _truncated(size: int, expected: int | None = None) -> str:
    of = f" of {expected:,}" if expected else ""
    return f"truncated: {size:,}{of} bytes are there; the copy is incomplete"


@dataclass(frozen=True, kw_only=True)
class PgenRows:
    """Chosen variants of a .pgen; see `GenotypeRows`.

    Attributes:
        path: the .pgen.
        n_samples: N.
        record: (m,) their records.
        allele: (m,) number of the ALT in the record.
        types: (m,) how the records are stored.
        multiallelic: the .pvar, where any record of the file has several ALT alleles.
    """

    path: Path
    n_samples: int
    record: Integers
    allele: Integers
    types: NDArray[np.uint8]
    multiallelic: Path | None

    def __len__(self) -> int:
        return len(self.record)

    def take(self, start: int, stop: int) -> PgenRows:
        """See `GenotypeRows`."""
        cut = slice(start, stop)
        return PgenRows(
            path=self.path,
            n_samples=self.n_samples,
            record=self.record[cut],
            allele=self.allele[cut],
            types=self.types[cut],
            multiallelic=self.multiallelic,
        )

    @property
    def imputed(self) -> NDArray[np.bool_]:
        """(m,) which records have dosages."""
        return np.asarray((self.types & DOSAGES) != 0)

    def carriers(self, people: People) -> CarrierLists:
        """See `GenotypeRows`; a row that is stored as a list of carriers is never made dense."""
        read = _reader(self.path, self.n_samples, self.multiallelic).read_sparse8
        as_float = bool(self.imputed.any())
        samples, dosages = [], []
        a1_counted = np.ones(len(self), np.bool_)
        for j, (record, is_list) in enumerate(zip(self.record.tolist(), self._listed.tolist(), strict=True)):
            if is_list:
                try:
                    sample, dosage = read(record)
                    is_list = 2 * len(sample) <= self.n_samples
                except RuntimeError:  # stored as what differs from a dense row; or damaged, as the dense read will say
                    is_list = False
            if not is_list:
                sample, dosage, a1_counted[j] = self._dense_carriers(j, as_float)
            samples.append(sample)
            dosages.append(dosage)
        return _choose(samples, dosages, a1_counted, people, np.float32 if as_float else np.int8)

    @property
    def _listed(self) -> NDArray[np.bool_]:
        """(m,) which records may be stored as a list of the carriers of their first ALT."""
        plain = (self.types & (DOSAGES | FURTHER_ALTS)) == 0
        return plain & (self.allele == 1) & np.isin(self.types & CALLS, (*DIFFERS_FROM_PREVIOUS, SPARSE_REF))

    def _dense_carriers(self, j: int, as_float: bool) -> tuple[NDArray[Any], NDArray[Any], bool]:
        """Return carriers, dosages and whether A1 is counted of a row, from its dense form."""
        reader = _reader(self.path, self.n_samples, self.multiallelic)
        row = self._read_dense(reader, slice(j, j + 1), as_float)
        everybody = np.arange(self.n_samples, dtype=np.int32)
        found = (dense.find_dosage_carriers if as_float else dense.find_carriers)(row, everybody)
        return found.sample, found.dosage, bool(found.a1_counted[0])

    def _read_dense(self, reader: Any, cut: slice, as_float: bool) -> NDArray[Any]:
        """Return (k, N) ALT counts int8, or dosages float32 with NaN, of some rows."""
        records, alleles = self.record[cut], self.allele[cut]
        out = np.empty((len(records), self.n_samples), np.float32 if as_float else np.int8)
        read = reader.read_dosages if as_float else reader.read
        try:
            for k, (record, allele) in enumerate(zip(records.tolist(), alleles.tolist(), strict=True)):
                read(record, out[k], allele)
        except RuntimeError as error:
            raise InputError(
                f"{self.path}: record {record + 1} cannot be read ({error}); the file is damaged, or was replaced "
                "after the run began: restore it and run again"
            ) from None
        out[out == CODE_MISSING] = np.nan if as_float else MISSING
        return out

    def _blocks(self) -> list[slice]:
        step = max(1, DENSE_BYTES // (4 * self.n_samples))
        return [slice(start, min(start + step, len(self))) for start in range(0, len(self), step)]

    def dosage(self, people: People, n_wanted: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """See `GenotypeRows`."""
        reader = _reader(self.path, self.n_samples, self.multiallelic)
        out, frequency = np.empty((len(self), n_wanted), np.float32), np.empty(len(self), np.float32)
        for cut in self._blocks():
            out[cut], frequency[cut] = dense.fill_dosage(self._read_dense(reader, cut, True), people, n_wanted)
        return out, frequency

    def add_scores(self, weights: Floats, out: Floats) -> Floats:
        """See `GenotypeRows`."""
        reader = _reader(self.path, self.n_samples, self.multiallelic)
        frequency = np.empty(len(self))
        for cut in self._blocks():
            frequency[cut] = dense.add_scores(self._read_dense(reader, cut, True), weights[cut], out)
        return frequency


def _choose(
    samples: list[NDArray[Any]],
    dosages: list[NDArray[Any]],
    a1_counted: NDArray[np.bool_],
    people: People,
    dtype: Any,
) -> CarrierLists:
    """Return lists of carriers among all samples as those among the wanted people."""
    sizes = np.array([len(sample) for sample in samples], np.int64)
    sample = np.concatenate([*samples, np.empty(0, np.int32)]).astype(np.int64)
    dosage = np.concatenate([*dosages, np.empty(0, np.int8)]).astype(dtype)
    dosage[dosage == CODE_MISSING] = MISSING
    if dtype != np.int8 and np.all(dosage == np.rint(dosage)):
        dosage = dosage.astype(np.int8)
    where = people[sample]
    kept = where >= 0
    row = np.repeat(np.arange(len(sizes)), sizes)[kept]
    indptr = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=len(sizes)))]).astype(np.int64)
    return CarrierLists(indptr, where[kept].astype(np.int32), dosage[kept], a1_counted)


_OFFSETS: dict[Path, NDArray[np.uintp] | None] = {}
_LOCAL = threading.local()
READERS = 3  # that a thread keeps open


def remember_offsets(path: Path, offsets: NDArray[np.uintp] | None) -> None:
    """Keep where the alleles of each record begin, for the readers of this process."""
    _OFFSETS[path] = offsets


@lru_cache(maxsize=4)
def _read_offsets(path: Path) -> NDArray[np.uintp] | None:
    """Read them again, in a worker process."""
    return read_variants(path).allele_offsets()


def _reader(path: Path, n_samples: int, multiallelic: Path | None) -> Any:
    """Return this thread's reader of a file.

    Raises:
        FormatError: pgenlib cannot make sense of it.
    """
    import pgenlib

    readers: dict[tuple[str, int, int], Any] = _LOCAL.__dict__.setdefault("readers", {})
    try:
        stat = path.stat()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; was it moved while the run was going on?") from None
    key = (str(path), stat.st_size, stat.st_mtime_ns)
    if key not in readers:
        while len(readers) >= READERS:
            readers.pop(next(iter(readers))).close()
        offsets = None
        if multiallelic is not None:
            offsets = _OFFSETS[multiallelic] if multiallelic in _OFFSETS else _read_offsets(multiallelic)
        try:
            readers[key] = pgenlib.PgenReader(str(path).encode(), n_samples, None, None, offsets)
        except RuntimeError as error:
            raise FormatError(f"damaged: {str(error).strip()}", path=path) from None
    return readers[key]
