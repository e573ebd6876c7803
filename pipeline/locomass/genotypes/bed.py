"""PLINK 1 .bed: labels checked once, packed rows read straight from disk and scanned while they are in the cache."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import csv

from locomass.errors import FormatError, InputError
from locomass.genotypes.base import CarrierLists, Cost, Integers, People, join_carriers
from locomass.genotypes.packed import add_weighted_dosage, decode_dosage, scan_carriers
from locomass.numbers import MAX_ALLELE, MAX_POSITION, Floats
from locomass.variants.chromosomes import normalise_chromosome

MAGIC = b"\x6c\x1b\x01"
MAX_DIGITS = len(str(MAX_POSITION))
MAX_BIM_LINE = 3 * MAX_ALLELE  # characters of a line that are read at most
BIM_COLUMNS = ("chromosome", "id", "cm", "position", "a1", "a2")
BIM_BLOCK = 16 << 20  # bytes parsed at a time
SCAN_BYTES = 4 << 20  # packed bytes scanned at a time: they stay in the processor's cache
CARRIERS_PER_BYTE = 4  # of a packed row, at most
EXPECTED_SHARE = 1 / 64  # of the samples are carriers of a variant; a .bed does not say


@dataclass(frozen=True)
class BedFile:
    """One .bed file, opened and checked; see `GenotypeFile`.

    Attributes:
        path: the .bed.
        variants, samples: what its .bim and .fam say.
    """

    path: Path
    variants: pd.DataFrame
    samples: pd.DataFrame
    kind: str = "PLINK .bed"
    ref_known: bool = False

    @property
    def sample_path(self) -> Path:
        """The .fam."""
        return self.path.with_suffix(".fam")

    @property
    def variant_path(self) -> Path:
        """The .bim."""
        return self.path.with_suffix(".bim")

    @property
    def paths(self) -> tuple[Path, ...]:
        """The .bed, .bim and .fam."""
        return tuple(companions(self.path))

    def select(self, rows: Integers) -> BedRows:
        """Return chosen variants, strictly increasing."""
        return BedRows(self.path, len(self.samples), rows)

    def cost(self, rows: Integers) -> Cost:
        """Return what reading chosen variants costs: every row has the same length and may have any carriers."""
        read = np.full(len(rows), float(row_bytes(len(self.samples))))
        most = read * CARRIERS_PER_BYTE
        return Cost(read, most * EXPECTED_SHARE, most)


def row_bytes(n_samples: int) -> int:
    """Return the bytes of one packed row."""
    return (n_samples + 3) // 4


def companions(path: Path) -> list[Path]:
    """Return the .bed, .bim and .fam."""
    return [path.with_suffix(suffix) for suffix in (".bed", ".bim", ".fam")]


def open_file(path: Path) -> BedFile:
    """Open one .bed and check that its files belong together.

    Raises:
        FormatError: wrong magic, truncated or oversized .bed, malformed .bim or .fam line.
        InputError: a file is missing.
    """
    samples = read_fam(path.with_suffix(".fam"))
    variants = read_bim(path.with_suffix(".bim"))
    _check_bed(path, len(samples), len(variants))
    return BedFile(path, variants, samples)


@dataclass(frozen=True)
class BedRows:
    """Chosen variants of a .bed, strictly increasing; see `GenotypeRows`."""

    path: Path
    n_samples: int
    rows: Integers

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, start: int, stop: int) -> BedRows:
        """See `GenotypeRows`."""
        return BedRows(self.path, self.n_samples, self.rows[start:stop])

    def packed(self, buffer: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """Read the packed rows.

        Args:
            buffer: (at least m, bytes of a row) to read into, for a caller who reads piece by piece: fresh memory costs
                more than the copy from the page cache.

        Raises:
            InputError: the file ends early: it was truncated after it was opened.
        """
        width = row_bytes(self.n_samples)
        out = np.empty((len(self.rows), width), np.uint8) if buffer is None else buffer[: len(self.rows)]
        if len(self.rows):
            _read_rows(self.path, self.rows, out)
        return out

    def carriers(self, people: People) -> CarrierLists:
        """See `GenotypeRows`; a cache-sized piece is read and scanned at a time."""
        width = row_bytes(self.n_samples)
        step = max(1, SCAN_BYTES // width)
        buffer = np.empty((min(step, len(self)), width), np.uint8)
        pieces = []
        for start in range(0, len(self), step):
            packed = self.take(start, start + step).packed(buffer)
            pieces.append(CarrierLists(*scan_carriers(packed, self.n_samples, people, self.n_samples)))
        return join_carriers(pieces)

    def dosage(self, people: People, n_wanted: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """See `GenotypeRows`."""
        out = np.empty((len(self), n_wanted), np.float32)
        return out, decode_dosage(self.packed(), people, n_wanted, out)

    def add_scores(self, weights: Floats, out: Floats) -> Floats:
        """See `GenotypeRows`."""
        return np.nan_to_num(add_weighted_dosage(self.packed(), self.n_samples, weights, out))


def _read_rows(path: Path, rows: Integers, out: NDArray[np.uint8]) -> None:
    """Read packed rows into ``out``, one system call for each run of consecutive rows."""
    breaks = np.flatnonzero(np.diff(rows) != 1) + 1
    starts = np.concatenate(([0], breaks, [len(rows)]))
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; was it moved while the run was going on?") from None
    try:
        for low, high in zip(starts[:-1], starts[1:], strict=True):
            _read_fully(handle, out[low:high].reshape(-1), 3 + int(rows[low]) * out.shape[1], path)
    finally:
        os.close(handle)


def _read_fully(handle: int, buffer: NDArray[np.uint8], offset: int, path: Path) -> None:
    """Fill ``buffer`` from the file; a short read is an error."""
    view, done = buffer.data, 0
    while done < len(view):
        got = os.preadv(handle, [view[done:]], offset + done)
        if got == 0:
            raise InputError(
                f"{path} ends at byte {os.fstat(handle).st_size}, before byte {offset + len(view)} that "
                f"its .bim and .fam promise; it was truncated after the run began: restore it and run again"
            )
        done += got


def read_fam(path: Path) -> pd.DataFrame:
    """Read a .fam file; columns fid, iid, sex (0 unknown, 1 male, 2 female)."""
    rows: list[tuple[str, str, int]] = []
    with _open_text(path) as handle:
        for number, line in enumerate(handle, 1):
            fields = line.split()
            if not fields:
                continue
            if len(fields) < 5:
                raise FormatError(
                    f"expected 6 fields (FID IID father mother sex phenotype), found {len(fields)}",
                    path=path,
                    line=number,
                )
            rows.append((fields[0], fields[1], int(fields[4]) if fields[4] in ("1", "2") else 0))
    if not rows:
        raise FormatError("no samples", path=path)
    return pd.DataFrame(rows, columns=["fid", "iid", "sex"])


def _open_text(path: Path) -> Any:
    """Open a text file, or say which one is missing."""
    try:
        return open(path, encoding="utf-8", errors="replace")
    except FileNotFoundError:
        raise InputError(f"no such file: {path}; a .bed needs its .bim and .fam beside it") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None


def read_bim(path: Path) -> pd.DataFrame:
    """Read a .bim file; columns chromosome, position, id, a1, a2.

    Tab-separated files are parsed in columns; a file with anything unusual (other separators, blank fields, a position
    that is no number, a long allele) goes through the reader that takes it line by line and names what is wrong.
    """
    columns = _parse_bim_columns(path) or _parse_bim_lines(path)
    table = pd.DataFrame(columns)
    table["chromosome"] = table["chromosome"].astype("category")
    return table


def _parse_bim_columns(path: Path) -> dict[str, Any] | None:
    """Return the columns of a tab-separated .bim without any oddity; None when there is one."""
    options = {
        "read_options": csv.ReadOptions(column_names=BIM_COLUMNS, block_size=BIM_BLOCK),
        "parse_options": csv.ParseOptions(delimiter="\t", quote_char=False),
        "convert_options": csv.ConvertOptions(column_types=dict.fromkeys(BIM_COLUMNS, pa.string())),
    }
    try:
        table = csv.read_csv(path, **options)
    except (pa.ArrowInvalid, OSError):
        return None
    if not len(table) or any(_has_oddity(table.column(name), name) for name in BIM_COLUMNS):
        return None
    chromosome = table.column("chromosome").combine_chunks().dictionary_encode()
    labels = np.array([normalise_chromosome(c) for c in chromosome.dictionary.to_pylist()], object)
    return {
        "chromosome": labels[chromosome.indices.to_numpy()],
        "position": pc.cast(table.column("position"), pa.int64()).to_numpy(),
        "id": table.column("id").to_numpy(),
        "a1": pc.utf8_upper(table.column("a1")).to_numpy(),
        "a2": pc.utf8_upper(table.column("a2")).to_numpy(),
    }


def _has_oddity(column: pa.ChunkedArray, name: str) -> bool:
    """Return whether a column of a .bim holds what only the reader by lines should judge."""
    length = pc.min_max(pc.binary_length(column)).as_py()
    if length["min"] == 0 or length["max"] > (MAX_DIGITS if name == "position" else MAX_ALLELE):
        return True
    if name == "position":
        return not pc.all(pc.ascii_is_decimal(column)).as_py()
    return bool(pc.any(pc.match_substring(column, " ")).as_py())


def _parse_bim_lines(path: Path) -> dict[str, Any]:
    """Return the columns of a whitespace-separated .bim, line by line.

    Raises:
        FormatError: names line and column. No more than `MAX_BIM_LINE` characters of a line are ever in memory.
    """
    columns: dict[str, list[Any]] = {name: [] for name in ("chromosome", "position", "id", "a1", "a2")}
    chromosomes: dict[str, str] = {}
    with _open_text(path) as handle:
        for number, line in enumerate(iter(lambda: handle.readline(MAX_BIM_LINE), ""), 1):
            fields = line.split()
            if not fields:
                continue
            if len(line) == MAX_BIM_LINE:
                _refuse_long_line(fields, _count_to_space(handle), path, number)
            _check_bim_line(fields, path, number)
            chromosome, name, _, position, a1, a2 = fields
            if chromosome not in chromosomes:
                chromosomes[chromosome] = normalise_chromosome(chromosome)
            for column, value in zip(
                columns.values(), (chromosomes[chromosome], int(position), name, a1.upper(), a2.upper()), strict=True
            ):
                column.append(value)
    if not columns["id"]:
        raise FormatError("no variants", path=path)
    return columns


def _count_to_space(handle: Any) -> int:
    """Return how many characters the last field of a cut line goes on for, without keeping them."""
    count = 0
    while chunk := handle.readline(MAX_BIM_LINE):
        if chunk[0].isspace():
            return count
        first = chunk.split(maxsplit=1)[0]
        count += len(first)
        if len(first) < len(chunk):
            return count
    return count


def _refuse_long_line(fields: list[str], more: int, path: Path, number: int) -> None:
    """Raise for a line of more than `MAX_BIM_LINE` characters, whose last field has ``more`` of them to come."""
    lengths = [len(f) for f in fields]
    lengths[-1] += more
    _check_alleles(lengths, fields, path, number)
    raise FormatError(f"longer than {MAX_BIM_LINE:,} characters; is this a .bim file?", path=path, line=number)


def _check_alleles(lengths: list[int], fields: list[str], path: Path, number: int) -> None:
    """Raise when an allele is longer than `MAX_ALLELE`."""
    for column, length in zip(("A1", "A2"), lengths[4:6], strict=False):
        if length > MAX_ALLELE:
            raise FormatError(
                f"an allele of {length:,} characters (variant id {fields[1][:40]}); the longest accepted is "
                f"{MAX_ALLELE:,}: remove the variant or code it symbolically, such as <DEL>",
                path=path,
                line=number,
                column=column,
            )


def _check_bim_line(fields: list[str], path: Path, number: int) -> None:
    """Raise unless a line has six fields, a position and alleles of bounded length."""
    _check_alleles([len(f) for f in fields], fields, path, number)
    if len(fields) != 6:
        raise FormatError(
            f"expected 6 fields (chromosome id cM position A1 A2), found {len(fields)}", path=path, line=number
        )
    if not fields[3].isdecimal() or len(fields[3]) > MAX_DIGITS:
        message = f"position '{fields[3][:40]}' is not a whole number of base pairs"
        raise FormatError(message, path=path, line=number, column=4)


def _check_bed(path: Path, n_samples: int, n_variants: int) -> None:
    """Raise unless the .bed has the PLINK 1 variant-major magic and the size its .bim and .fam promise."""
    try:
        with open(path, "rb") as handle:
            magic = handle.read(3)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    if magic != MAGIC:
        hint = "; it is sample-major: rewrite it with `plink --make-bed`" if magic == b"\x6c\x1b\x00" else ""
        raise FormatError(
            f"not a PLINK 1 variant-major .bed: expected the bytes 6c 1b 01, found "
            f"{magic.hex(' ') or 'an empty file'}{hint}",
            path=path,
        )
    expected = 3 + n_variants * ((n_samples + 3) // 4)
    size = path.stat().st_size
    if size != expected:
        what = "truncated" if size < expected else "too long"
        raise FormatError(
            f"{what}: {size:,} bytes, but {n_samples:,} samples in the .fam and {n_variants:,} variants in the .bim "
            f"make {expected:,}; the three files do not belong together, or the copy is incomplete",
            path=path,
        )
