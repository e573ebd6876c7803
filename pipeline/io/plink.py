"""PLINK 1 filesets: labels checked once, packed rows read straight from disk, a labelled lazy view for everything else.

Three ways in, for three kinds of work:

- `Fileset.view` - pandas-plink's lazy `xarray.DataArray` (sample, variant), for exploration;
- `Fileset.packed` - a Dask array of the packed 2-bit rows (variant, byte), for work over all variants;
- `Fileset.read_packed` - chosen rows into memory, for a batch of genes.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import csv

from pipeline.errors import FormatError, InputError, MatchError
from pipeline.io.tables import normalise_chromosome

MAGIC = b"\x6c\x1b\x01"
MAX_ALLELE = 10_000  # characters
MAX_DIGITS = 18  # of a position
MAX_BIM_LINE = 3 * MAX_ALLELE  # characters of a line that are read at most
BIM_COLUMNS = ("chromosome", "id", "cm", "position", "a1", "a2")
BIM_BLOCK = 16 << 20  # bytes parsed at a time


@dataclass(frozen=True)
class BedFile:
    """One .bed file: where its rows start in the fileset and how long they are."""

    path: Path
    n_samples: int
    n_variants: int
    first: int

    @property
    def row_bytes(self) -> int:
        """Bytes of one packed row."""
        return (self.n_samples + 3) // 4


@dataclass(frozen=True)
class Fileset:
    """A PLINK 1 fileset, one file or one per chromosome, opened and checked.

    Attributes:
        beds: the .bed files in the order of their variants.
        variants: one row per variant: chromosome (str), position (int64), id, a1, a2.
        fid, iid: (N,) sample labels, the same in every file.
    """

    beds: tuple[BedFile, ...]
    variants: pd.DataFrame
    fid: NDArray[np.object_]
    iid: NDArray[np.object_]
    sex: NDArray[np.int64]

    @property
    def n_samples(self) -> int:
        """N, samples in the files."""
        return len(self.iid)

    @property
    def n_variants(self) -> int:
        """Variants over all files."""
        return len(self.variants)

    @property
    def paths(self) -> list[Path]:
        """Every file that the fileset consists of, for digests."""
        return [bed.path.with_suffix(suffix) for bed in self.beds for suffix in (".bed", ".bim", ".fam")]

    @cached_property
    def view(self) -> Any:
        """The labelled lazy genotype matrix of pandas-plink: `xarray.DataArray` (sample, variant), counts of A1."""
        import warnings

        from pandas_plink import read_plink1_bin

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # FutureWarnings raised inside pandas-plink
            import xarray

            parts = [read_plink1_bin(str(bed.path), verbose=False, ref="a0") for bed in self.beds]
            return parts[0] if len(parts) == 1 else xarray.concat(parts, dim="variant")

    @cached_property
    def packed(self) -> Any:
        """The packed rows as a Dask array of uint8 (variant, byte), about 16 MB a chunk.

        Only paths and row ranges stand in the graph; workers read the files themselves.
        """
        import dask.array as da
        from dask import delayed

        parts = []
        read = delayed(_read_range, pure=True)
        for bed in self.beds:
            step = max(1, (16 << 20) // bed.row_bytes)
            for start in range(0, bed.n_variants, step):
                stop = min(start + step, bed.n_variants)
                block = read(bed, start, stop)
                parts.append(da.from_delayed(block, (stop - start, bed.row_bytes), np.uint8))
        return da.concatenate(parts, axis=0)

    def read_packed(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Read chosen variants as packed rows.

        Args:
            rows: strictly increasing variant numbers of the fileset.

        Returns:
            (len(rows), ceil(N / 4)) uint8.

        Raises:
            InputError: the file ends early: it was truncated after it was opened.
        """
        return read_packed_rows(self.beds, rows)


def read_packed_rows(
    beds: tuple[BedFile, ...], rows: NDArray[np.int64], buffer: NDArray[np.uint8] | None = None
) -> NDArray[np.uint8]:
    """Read chosen variants, strictly increasing, as packed rows; see `Fileset.read_packed`.

    Args:
        beds: the files of the fileset.
        rows: variant numbers.
        buffer: (at least len(rows), row_bytes) to read into, for a caller who reads piece by piece: fresh memory costs
            more than the copy from the page cache.
    """
    out = np.empty((len(rows), beds[0].row_bytes), np.uint8) if buffer is None else buffer[: len(rows)]
    for bed in beds:
        low, high = np.searchsorted(rows, (bed.first, bed.first + bed.n_variants))
        if high > low:
            _read_rows(bed, rows[low:high] - bed.first, out[low:high])
    return out


def _read_range(bed: BedFile, start: int, stop: int) -> NDArray[np.uint8]:
    """Read consecutive packed rows of one file."""
    out = np.empty((stop - start, bed.row_bytes), np.uint8)
    _read_rows(bed, np.arange(start, stop), out)
    return out


def _read_rows(bed: BedFile, rows: NDArray[np.int64], out: NDArray[np.uint8]) -> None:
    """Read packed rows into ``out``, one system call for each run of consecutive rows."""
    breaks = np.flatnonzero(np.diff(rows) != 1) + 1
    starts = np.concatenate(([0], breaks, [len(rows)]))
    try:
        handle = os.open(bed.path, os.O_RDONLY)
    except OSError as error:
        raise InputError(
            f"cannot read {bed.path}: {error.strerror}; was it moved while the run was going on?"
        ) from None
    try:
        for low, high in zip(starts[:-1], starts[1:], strict=True):
            _read_fully(handle, out[low:high].reshape(-1), 3 + int(rows[low]) * bed.row_bytes, bed)
    finally:
        os.close(handle)


def _read_fully(handle: int, buffer: NDArray[np.uint8], offset: int, bed: BedFile) -> None:
    """Fill ``buffer`` from the file; a short read is an error."""
    view, done = buffer.data, 0
    while done < len(view):
        got = os.preadv(handle, [view[done:]], offset + done)
        if got == 0:
            raise InputError(
                f"{bed.path} ends at byte {os.fstat(handle).st_size}, before byte {offset + len(view)} that "
                f"its .bim and .fam promise; it was truncated after the run began: restore it and run again"
            )
        done += got


def open_fileset(path: str | Path) -> Fileset:
    """Open a PLINK 1 fileset and check that its files belong together.

    Args:
        path: the .bed file (or its prefix); ``{chrom}`` in the name stands for one file per chromosome.

    Raises:
        FormatError: wrong magic, truncated or oversized .bed, malformed .bim or .fam line.
        InputError: a file is missing, or files of one fileset differ in their samples.
        MatchError: a sample stands twice.
    """
    beds: list[BedFile] = []
    tables, first = [], 0
    labels: tuple[pd.DataFrame, Path] | None = None
    for bed_path in list_beds(str(path)):
        fam_path = bed_path.with_suffix(".fam")
        fam = _read_fam(fam_path)
        if labels is None:
            labels = (fam, fam_path)
        elif not fam.iloc[:, :2].equals(labels[0].iloc[:, :2]):
            raise InputError(f"{fam_path} and {labels[1]} list different samples; a fileset has one order of samples")
        bim = _read_bim(bed_path.with_suffix(".bim"))
        _check_bed(bed_path, len(fam), len(bim))
        beds.append(BedFile(bed_path, len(fam), len(bim), first))
        tables.append(bim)
        first += len(bim)
    assert labels is not None
    fam = labels[0]
    _check_duplicate_samples(fam, labels[1])
    variants = pd.concat(tables, ignore_index=True) if len(tables) > 1 else tables[0]
    variants.attrs["path"] = str(beds[0].path.with_suffix(".bim")) if len(beds) == 1 else f"{path} (.bim files)"
    return Fileset(
        tuple(beds), variants, fam["fid"].to_numpy(object), fam["iid"].to_numpy(object), fam["sex"].to_numpy(np.int64)
    )


#: How plink2 reads the files that people have instead of a .bed.
CONVERTED = {
    ".vcf": "--vcf {}", ".vcf.gz": "--vcf {}", ".bcf": "--bcf {}", ".bgen": "--bgen {} ref-first --sample FILE.sample",
    ".pgen": "--pfile PREFIX", ".ped": "--pedmap PREFIX",
}  # fmt: skip


def list_beds(pattern: str) -> list[Path]:
    """Return the .bed files that a path or a `{chrom}` pattern names, in chromosome order."""
    other = next((x for x in CONVERTED if pattern.lower().endswith(x)), None)
    if other is not None:
        raise InputError(
            f"{pattern} is no PLINK .bed; convert it: plink2 {CONVERTED[other].format(pattern)} --make-bed --out NAME, "
            "then name NAME.bed"
        )
    if not pattern.endswith(".bed"):
        pattern += ".bed"
    if "{chrom}" not in pattern:
        if not Path(pattern).is_file():
            raise InputError(f"no such file: {pattern}; expected a PLINK .bed with its .bim and .fam beside it")
        return [Path(pattern)]
    names = [str(c) for c in range(1, 27)] + ["X", "Y", "XY", "MT"]
    found = [Path(pattern.replace("{chrom}", name)) for name in names]
    found = [p for p in found if p.is_file()]
    if not found:
        raise InputError(f"no file matches {pattern} for any chromosome 1..22, X, Y, XY, MT")
    return found


def _read_fam(path: Path) -> pd.DataFrame:
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


def _read_bim(path: Path) -> pd.DataFrame:
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


def _check_duplicate_samples(fam: pd.DataFrame, path: Path) -> None:
    """Raise when a (FID, IID) pair stands twice."""
    twice = fam.duplicated(["fid", "iid"], keep=False)
    if twice.any():
        lines = np.flatnonzero(twice)[:2] + 1
        row = fam.iloc[lines[0] - 1]
        raise MatchError(
            f"{path}: sample {row.fid} {row.iid} stands on lines {lines[0]} and {lines[1]}; give every sample one label"
        )
