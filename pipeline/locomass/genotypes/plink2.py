"""What .pvar (also .pvar.zst) and .psam files say: variants and samples of a .pgen."""

from __future__ import annotations

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
from locomass.genotypes.base import Integers
from locomass.genotypes.bed import MAX_DIGITS, read_bim, read_fam
from locomass.numbers import MAX_ALLELE
from locomass.variants.chromosomes import normalise_chromosome

PVAR_COLUMNS = ("#CHROM", "POS", "ID", "REF", "ALT")
SEXES = {"1": 1, "M": 1, "m": 1, "2": 2, "F": 2, "f": 2}


@dataclass(frozen=True)
class SplitVariants:
    """Variants with every ALT a row of its own.

    Attributes:
        table: chromosome, position, id, a1 (ALT), a2 (REF).
        record: (m,) number of the line, or record, that each row comes from.
        allele: (m,) number of its ALT there, from 1.
        n_records: number of records.
    """

    table: pd.DataFrame
    record: Integers
    allele: Integers
    n_records: int

    def allele_offsets(self) -> NDArray[np.uintp] | None:
        """Return (records + 1,) where the alleles of each record begin, REF included; None when all have two."""
        if self.n_records == len(self.record):
            return None
        alts = np.bincount(self.record, minlength=self.n_records)
        return np.concatenate([[0], np.cumsum(alts + 1)]).astype(np.uintp)


def find_variant_file(path: Path) -> Path:
    """Return the .pvar, .pvar.zst or .bim beside a .pgen.

    Raises:
        InputError: there is none.
    """
    return _find_beside(path, (".pvar", ".pvar.zst", ".bim"), "name its variants")


def find_sample_file(path: Path) -> Path:
    """Return the .psam or .fam beside a .pgen.

    Raises:
        InputError: there is none.
    """
    return _find_beside(path, (".psam", ".fam"), "name its samples")


def _find_beside(path: Path, suffixes: tuple[str, ...], what: str) -> Path:
    for suffix in suffixes:
        beside = path.with_suffix(suffix)
        if beside.is_file():
            return beside
    names = ", ".join(path.with_suffix(suffix).name for suffix in suffixes)
    raise InputError(f"no such file: {path.with_suffix(suffixes[0])}; beside {path.name} one of {names} must {what}")


def read_samples(path: Path) -> pd.DataFrame:
    """Read a .psam (or .fam); columns fid, iid, sex (0 unknown, 1 male, 2 female). Without FID it is ``0``.

    Raises:
        FormatError: names line and column.
    """
    if path.suffix == ".fam":
        return read_fam(path)
    header: list[str] | None = None
    rows: list[tuple[str, str, int]] = []
    for number, line in enumerate(_read_lines(path), 1):
        fields = line.split()
        if not fields or line.startswith("##"):
            continue
        if header is None:
            if not line.startswith("#"):
                return read_fam(path)
            header = [fields[0].lstrip("#"), *fields[1:]]
            if "IID" not in header[:2]:
                raise FormatError("expected a header that begins #FID IID or #IID", path=path, line=number)
            continue
        if len(fields) != len(header):
            raise FormatError(
                f"expected {len(header)} fields ({' '.join(header)}), found {len(fields)}", path=path, line=number
            )
        row = dict(zip(header, fields, strict=True))
        rows.append((row.get("FID", "0"), row["IID"], SEXES.get(row.get("SEX", ""), 0)))
    if not rows:
        raise FormatError("no samples", path=path)
    return pd.DataFrame(rows, columns=["fid", "iid", "sex"])


def _read_lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None


def read_variants(path: Path) -> SplitVariants:
    """Read a .pvar, .pvar.zst or .bim.

    Raises:
        FormatError: names line and column.
    """
    if path.suffix == ".bim":
        table = read_bim(path)
        return SplitVariants(table, np.arange(len(table)), np.ones(len(table), np.int64), len(table))
    skipped, header = _read_header(path)
    if header is None:  # by definition the columns of a .bim then
        table = read_bim(path)
        return SplitVariants(table, np.arange(len(table)), np.ones(len(table), np.int64), len(table))
    missing = [name for name in PVAR_COLUMNS if name not in header]
    if missing:
        raise FormatError(
            f"the header lacks {', '.join(missing)}; it has {' '.join(header)}", path=path, line=skipped + 1
        )
    return split_alleles(_parse(path, skipped, header), path, skipped + 2)


def _open(path: Path) -> Any:
    """Open a file, decompressed."""
    try:
        return pa.input_stream(str(path), compression="zstd" if path.suffix == ".zst" else None)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error}") from None


def _read_header(path: Path) -> tuple[int, list[str] | None]:
    """Return the number of ## lines, and the columns of the header line; None where there is no header."""
    import io

    skipped = 0
    try:
        with _open(path) as stream, io.TextIOWrapper(io.BufferedReader(stream), errors="replace") as handle:
            for line in handle:
                if line.startswith("##"):
                    skipped += 1
                elif line.startswith("#CHROM"):
                    return skipped, line.rstrip("\r\n").split("\t")
                else:
                    return skipped, None
    except (OSError, pa.ArrowInvalid) as error:
        raise FormatError(f"damaged: {error}", path=path) from None
    raise FormatError("no variants", path=path)


def _parse(path: Path, skipped: int, header: list[str]) -> pa.Table:
    """Return the five columns as text."""
    try:
        with _open(path) as stream:
            return csv.read_csv(
                stream,
                read_options=csv.ReadOptions(column_names=header, skip_rows=skipped + 1, block_size=16 << 20),
                parse_options=csv.ParseOptions(delimiter="\t", quote_char=False),
                convert_options=csv.ConvertOptions(
                    column_types=dict.fromkeys(header, pa.string()), include_columns=list(PVAR_COLUMNS)
                ),
            )
    except (OSError, pa.ArrowInvalid) as error:
        raise FormatError(f"not a table of {len(header)} tab-separated columns: {error}", path=path) from None


def split_alleles(table: pa.Table, path: Path, first_line: int) -> SplitVariants:
    """Return the variants of a VCF-like table, every ALT a row of its own.

    Args:
        table: text columns #CHROM, POS, ID, REF, ALT (comma-separated).
        path: where it is from; first_line is the line of its first row.

    Raises:
        FormatError: a position that is no number, an empty or endless allele.
    """
    if not len(table):
        raise FormatError("no variants", path=path)
    table = table.combine_chunks()
    position = table.column("POS")
    bad = pc.invert(pc.and_(pc.ascii_is_decimal(position), pc.less_equal(pc.binary_length(position), MAX_DIGITS)))
    _refuse(bad, position, "is not a whole number of base pairs", path, first_line, "POS")
    for name in ("REF", "ALT"):
        column = table.column(name)
        _refuse(pc.equal(pc.binary_length(column), 0), column, "is not an allele", path, first_line, name)
    alts = pc.split_pattern(table.column("ALT"), ",").combine_chunks()
    record = pc.list_parent_indices(alts).to_numpy(zero_copy_only=False).astype(np.int64)
    alt = pc.list_flatten(alts)
    taken = pa.array(record)
    for name, column in (("ALT", alt), ("REF", table.column("REF"))):
        long = pc.greater(pc.binary_length(column), MAX_ALLELE)
        if pc.any(long).as_py():
            row = int(np.flatnonzero(long.to_numpy(zero_copy_only=False))[0])
            line = first_line + (int(record[row]) if name == "ALT" else row)
            raise FormatError(
                f"an allele of more than {MAX_ALLELE:,} characters; remove the variant or code it symbolically, such "
                "as <DEL>",
                path=path,
                line=line,
                column=name,
            )
    chromosome = table.column("#CHROM").combine_chunks().dictionary_encode()
    labels = np.array([normalise_chromosome(c) for c in chromosome.dictionary.to_pylist()], object)
    start = np.concatenate([[0], np.flatnonzero(np.diff(record)) + 1])
    allele = np.arange(len(record)) - np.repeat(start, np.diff([*start, len(record)])) + 1
    frame = pd.DataFrame(
        {
            "chromosome": pd.Categorical(labels[chromosome.indices.to_numpy()][record]),
            "position": pc.cast(position, pa.int64()).to_numpy()[record],
            "id": table.column("ID").take(taken).to_numpy(),
            "a1": pc.utf8_upper(alt).to_numpy(zero_copy_only=False),
            "a2": pc.utf8_upper(table.column("REF")).take(taken).to_numpy(),
        }
    )
    return SplitVariants(frame, record, allele.astype(np.int64), len(table))


def _refuse(bad: Any, column: Any, message: str, path: Path, first_line: int, name: str) -> None:
    """Raise for the first row that is bad."""
    if pc.any(bad).as_py():
        row = int(np.flatnonzero(np.asarray(bad))[0])
        raise FormatError(f"'{str(column[row])[:40]}' {message}", path=path, line=first_line + row, column=name)
