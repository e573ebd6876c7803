"""Delimited text in the dialects of the field, read as Arrow tables of strings that still know their line numbers.

Plain, gzip and bgzip files; tab-, comma- or whitespace-separated; preamble lines; Unix or Windows line ends. Files are
read in blocks cut at a line end, so that memory is bounded for callers who want it. Everything is a string until a
caller asks for numbers, so that every error can name file, line and column.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import csv

from locomass.errors import FormatError
from locomass.numbers import MAX_POSITION

#: Texts that stand for a missing value.
MISSING = ("", "NA", "NaN", "nan", "-nan", "N/A", "#NA", ".")
#: Bytes of text that are parsed at a time by default.
BLOCK_BYTES = 1 << 25

_NUMBER = r"(?i)^\s*[+-]?((\d+\.?\d*|\.\d+)(e[+-]?\d+)?|inf|infinity)\s*$"


def open_bytes(path: str | Path) -> IO[bytes]:
    """Open a plain or gzip / bgzip file (told by its first bytes, not by its name) for reading.

    Raises:
        FormatError: no such file, a directory, a zstd or otherwise binary file.
    """
    path = Path(path)
    with ExitStack() as stack:  # closes the file again where it is refused
        try:
            handle = stack.enter_context(path.open("rb"))
            magic = handle.read(4096)
        except OSError as error:
            raise FormatError(
                f"cannot be read ({error.strerror}); check the path in the configuration", path=path
            ) from error
        if magic[:2] == b"\x1f\x8b":
            return cast(IO[bytes], gzip.open(path, "rb"))
        if magic[:4] == b"\x28\xb5\x2f\xfd":
            raise FormatError("is compressed with zstd; expected plain text or gzip (run `zstd -d` first)", path=path)
        if b"\x00" in magic:
            raise FormatError("is a binary file; expected text, plain or gzip", path=path)
        handle.seek(0)
        stack.pop_all()
        return handle


def read_raw_lines(path: str | Path) -> Iterator[tuple[int, bytes]]:
    """Yield (line number, bytes with the line end) of every line.

    Raises:
        FormatError: as ``open_bytes``; a truncated gzip file.
    """
    with open_bytes(path) as handle:
        number = 0
        while line := _guarded(handle.readline, path, number):
            number += 1
            yield number, line


def read_lines(path: str | Path) -> Iterator[tuple[int, str]]:
    """Yield (line number, text without the line end) of every line that is not blank.

    Raises:
        FormatError: as ``read_raw_lines``; bytes that are not UTF-8.
    """
    for number, line in read_raw_lines(path):
        text = decode_line(line, path, number).rstrip("\r\n")
        if text.strip():
            yield number, text


def _guarded(read: Any, path: str | Path, line: int, *arguments: int) -> bytes:
    """Call ``read``; a damaged gzip stream becomes a FormatError."""
    try:
        return bytes(read(*arguments))
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise FormatError(
            f"gzip file is damaged or cut short ({error}); fetch it again", path=path, line=line
        ) from error


def decode_line(line: bytes, path: str | Path, number: int) -> str:
    """Return a line as text, without a byte order mark; bytes that are not UTF-8 are a FormatError."""
    try:
        return line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise FormatError("is not UTF-8 text", path=path, line=number) from error


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive lines of a file.

    Attributes:
        path: the file.
        table: one string column per name, no nulls.
        first_line: line number of the first line of ``text``.
        text: the lines as they were parsed (whitespace runs already narrowed).
        delimiter: one byte.
        ragged: line numbers that were left out, because they have another number of fields.
    """

    path: Path
    table: pa.Table
    first_line: int
    text: bytes
    delimiter: bytes
    ragged: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def line(self, row: int) -> int:
        """Return the line number of a row of ``table``; blank and left-out lines are counted."""
        return int(self.lines()[int(row)])

    def lines(self) -> NDArray[np.int64]:
        """Return the line number of every row of ``table``."""
        if not self.ragged and b"\n\n" not in self.text and not self.text.startswith(b"\n"):
            return np.arange(self.first_line, self.first_line + len(self))
        left_out = set(self.ragged)
        numbered = enumerate(self.text.split(b"\n"), self.first_line)
        return np.array([n for n, line in numbered if line and n not in left_out], dtype=np.int64)

    def numbers(self, name: str, *, missing: Sequence[str] = MISSING, hint: str = "") -> NDArray[np.float64]:
        """Return a column as float64, NaN where missing.

        Raises:
            FormatError: a text that is neither a finite number nor a missing value; names the line and the column.
        """
        values, bad = parse_numbers(self.table[name], missing)
        unbounded = np.flatnonzero(np.isinf(values))
        if bad.size or unbounded.size:
            row = int(min([*bad[:1], *unbounded[:1]]))
            found = self.table[name][row].as_py()
            raise FormatError(
                f"expected a number, got '{found}'{hint}", path=self.path, line=self.line(row), column=name
            )
        return values

    def positions(self, name: str, *, missing: Sequence[str] = MISSING) -> NDArray[np.int64]:
        """Return a column of base pair positions, 0 where missing.

        Raises:
            FormatError: a value that is not a whole number from 1 to 9,999,999,999; names the line and the column.
        """
        values = self.numbers(name, missing=missing)
        whole = (values >= 1) & (values <= MAX_POSITION) & (values == np.floor(values))
        for row in np.flatnonzero(~whole & ~np.isnan(values))[:1]:
            message = f"expected a position, got '{self.table[name][int(row)].as_py()}'"
            raise FormatError(message, path=self.path, line=self.line(row), column=name)
        return np.nan_to_num(values).astype(np.int64)


class DelimitedFile:
    """A delimited text file with its header read.

    Args:
        path: plain or gzip file.
        header: whether the first line after the preamble names the columns; else they are named "1", "2", ...
        comment: lines that start with this text, before the header, are the preamble.
        delimiter: "\\t", "," or " " (any run of blanks); told from the first lines when None.
        remark: lines of the table that start with this text are left out (RAREMETALWORKER's last lines); none when "".
        skip: lines that belong to the preamble whatever they start with; see `find_header`.
        quotes: whether fields may be in double quotes, as R writes them (the quotes are removed, and a column of row
            names that the header lacks is called "row"); otherwise quoted names are an error.

    Attributes:
        names: column names, without a leading ``#``.
        preamble: the lines before the header.
        header_line: line number of the header (of the last preamble line without one).
        first: fields of the first line after the preamble, whether header or data.

    Raises:
        FormatError: empty file, repeated or empty column names, quoted fields.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        header: bool = True,
        comment: str = "##",
        delimiter: str | None = None,
        remark: str = "",
        skip: int = 0,
        quotes: bool = False,
    ) -> None:
        self.path = Path(path)
        self.remark = remark.encode()
        self.preamble: list[str] = []
        self.header_line = 0
        first, second = self._read_head(comment, skip)
        self.quoted = quotes and '"' in first + second
        if self.quoted:
            first, second = first.replace('"', ""), second.replace('"', "")
        if not first:
            raise FormatError("is empty; expected a table", path=self.path)
        if header:
            self.header_line += 1
        self.delimiter = delimiter or _sniff(first, second if header else "")
        self.first = _split(first, self.delimiter)
        self.names = [str(i + 1) for i in range(len(self.first))]
        if header:
            self.names = _split(first.lstrip("#"), self.delimiter)
            if self.quoted and len(_split(second, self.delimiter)) == len(self.names) + 1:
                self.names.insert(0, "row")
            self._check_names()

    def _read_head(self, comment: str, skip: int) -> tuple[str, str]:
        """Return the first two lines after the preamble, "" where the file ends before."""
        first = ""
        for number, raw in read_raw_lines(self.path):
            line = decode_line(raw, self.path, number)
            if first:
                return first, line
            if line.strip() and not line.startswith(comment) and number > skip:
                first = line
                continue
            self.header_line += 1
            if line.strip():
                self.preamble.append(line.rstrip("\r\n"))
        return first, ""

    def _check_names(self) -> None:
        if any(name.startswith('"') for name in self.names):
            message = "column names are quoted; write the file without quotes (in R: quote=FALSE)"
            raise FormatError(message, path=self.path, line=self.header_line)
        for i, name in enumerate(self.names):
            if not name or name in self.names[:i]:
                message = (
                    f"column name '{name}' is repeated; is the header line missing, such as `FID IID trait`?"
                    if name
                    else "column without a name"
                )
                raise FormatError(message, path=self.path, line=self.header_line, column=i + 1)

    def blocks(
        self, columns: Sequence[str] | None = None, *, size: int | None = BLOCK_BYTES, skip_ragged: bool = False
    ) -> Iterator[Block]:
        """Yield the rows in blocks of about ``size`` bytes (one block when None).

        Args:
            columns: names to keep, all when None.
            size: bytes of text per block.
            skip_ragged: leave out lines with a wrong number of fields and list them in ``Block.ragged``; otherwise
                they are an error.
        """
        line = self.header_line + 1
        rest = b""
        with open_bytes(self.path) as handle:
            for number in range(self.header_line):
                _guarded(handle.readline, self.path, number)
            while True:
                chunk = _guarded(handle.read, self.path, line, *([] if size is None else [size]))
                text = (rest + chunk).removeprefix(b"\xef\xbb\xbf" if line == 1 else b"")
                cut = text.rfind(b"\n") + 1 if chunk and size is not None else len(text)
                text, rest = text[:cut], text[cut:]
                if text:
                    yield self._parse(text, line, columns, skip_ragged)
                    line += text.count(b"\n")
                if not chunk or size is None:
                    return

    def table(self, columns: Sequence[str] | None = None) -> Block:
        """Return all rows as one block; zero rows when the file ends after its header."""
        for block in self.blocks(columns, size=None):
            return block
        names = self.names if columns is None else columns
        empty = pa.table({name: pa.array([], pa.string()) for name in names})
        return Block(self.path, empty, self.header_line + 1, b"", b"\t")

    def _parse(self, text: bytes, line: int, columns: Sequence[str] | None, skip_ragged: bool) -> Block:
        delimiter = self.delimiter.encode()
        text = _narrow(text.replace(b'"', b"") if self.quoted else text, delimiter)
        ragged = self._remarks(text, line)
        try:
            try:
                table = _read_csv(_without(text, ragged, line), self.names, self.delimiter, columns)
            except pa.ArrowInvalid:
                wrong = [n for n, _ in _ragged_lines(text, delimiter, line, len(self.names)) if n not in ragged]
                if not wrong or not skip_ragged:
                    raise
                ragged = sorted({*ragged, *wrong})
                table = _read_csv(_without(text, ragged, line), self.names, self.delimiter, columns)
        except pa.ArrowInvalid as error:
            for number, found in _ragged_lines(text, delimiter, line, len(self.names)):
                if number in ragged:
                    continue
                message = f"expected {len(self.names)} fields, found {found}"
                raise FormatError(message, path=self.path, line=number) from error
            for number, raw in enumerate(text.split(b"\n"), line):
                decode_line(raw, self.path, number)
            raise FormatError(f"cannot be parsed near line {line}: {error}", path=self.path) from error
        return Block(self.path, table, line, text, delimiter, ragged)

    def _remarks(self, text: bytes, line: int) -> list[int]:
        """Return the line numbers of remarks."""
        if not self.remark or not (text.startswith(self.remark) or b"\n" + self.remark in text):
            return []
        return [number for number, row in enumerate(text.split(b"\n"), line) if row.startswith(self.remark)]


def find_header(path: str | Path, fits: Callable[[Sequence[str]], bool]) -> int:
    """Return how many lines come before the header: comment lines may start with one ``#``, and so may the header.

    Args:
        path: the file.
        fits: whether names are those of a header; when no line fits, 0.
    """
    for number, text in read_lines(path):
        line = text.replace('"', "")
        words = _split(line.lstrip("#"), _sniff(line, ""))
        if fits(words):
            return number - 1
        if not text.startswith("#"):
            break
    return 0


def _sniff(first: str, second: str) -> str:
    """Return the delimiter of two lines: tab when it splits both alike, comma when there are no blanks, else blanks."""
    first, second = first.rstrip("\r\n"), second.rstrip("\r\n")
    tabs = first.count("\t")
    if tabs and " " not in first.split("\t")[0] and (not second or second.count("\t") == tabs):
        return "\t"
    if "," in first and not re.search(r"\s", first.strip()):
        return ","
    return " "


def _split(line: str, delimiter: str) -> list[str]:
    line = line.rstrip("\r\n")
    return line.split() if delimiter == " " else [name.strip() for name in line.split(delimiter)]


def _narrow(text: bytes, delimiter: bytes) -> bytes:
    """Turn Windows line ends into ``\\n`` and, for the blank delimiter, runs of blanks into one space."""
    if b"\r" in text:
        text = text.replace(b"\r\n", b"\n")
    if delimiter != b" ":
        return text
    text = text.replace(b"\t", b" ")
    while b"  " in text:
        text = text.replace(b"  ", b" ")
    return text.replace(b" \n", b"\n").replace(b"\n ", b"\n").strip(b" ")


def _read_csv(text: bytes, names: Sequence[str], delimiter: str, columns: Sequence[str] | None) -> pa.Table:
    if not text.strip(b"\n"):
        return pa.table({name: pa.array([], pa.string()) for name in (names if columns is None else columns)})
    return csv.read_csv(
        pa.BufferReader(text),
        read_options=csv.ReadOptions(
            column_names=list(names), use_threads=False, block_size=min(len(text) + 1, 2**31 - 1)
        ),
        parse_options=csv.ParseOptions(delimiter=delimiter, quote_char=False),
        convert_options=csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()),
            strings_can_be_null=False,
            include_columns=None if columns is None else list(columns),
        ),
    )


def _without(text: bytes, lines: Sequence[int], first_line: int) -> bytes:
    """Return the text without some of its lines, given by number."""
    if not lines:
        return text
    left_out = {number - first_line for number in lines}
    return b"\n".join(row for i, row in enumerate(text.split(b"\n")) if i not in left_out)


def _ragged_lines(text: bytes, delimiter: bytes, first_line: int, n_fields: int) -> Iterator[tuple[int, int]]:
    """Yield (line number, fields found) of every line with another number of fields."""
    for number, line in enumerate(text.split(b"\n"), first_line):
        if line and line.count(delimiter) + 1 != n_fields:
            yield number, line.count(delimiter) + 1


def is_missing(values: Any, missing: Sequence[str] = MISSING) -> Any:
    """Return an Arrow column of booleans: whether each text means "no value".

    Texts are compared without the blanks around them; those of ``missing`` that are numbers are compared as numbers, so
    that ``-9`` is also ``-9.0``, `` -9`` and ``-9.000000e+00``.
    """
    trimmed = pc.utf8_trim_whitespace(values)
    found = pc.is_in(trimmed, value_set=pa.array(list(missing), pa.string()))
    codes = [float(code) for code in missing if re.match(_NUMBER, code)]
    if not codes:
        return found
    numeric = pc.match_substring_regex(trimmed, _NUMBER)
    if not pc.any(pc.fill_null(numeric, False)).as_py():
        return found
    numbers = np.array([float(x) for x in pc.if_else(numeric, trimmed, "nan").to_pylist()])
    return pc.or_(found, pa.array(np.isin(numbers, codes)))


def parse_numbers(values: Any, missing: Sequence[str] = MISSING) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Parse a string column.

    Args:
        values: Arrow array or chunked array of n strings.
        missing: texts that mean "no value"; see `is_missing`.

    Returns:
        (n,) float64 with NaN where missing or unreadable, and the rows that are unreadable. A number too small for a
        double is 0, one too large is infinite.
    """
    codes = [float(code) for code in missing if re.match(_NUMBER, code)]
    present = pc.if_else(is_missing(values, [m for m in missing if not re.match(_NUMBER, m)]), None, values)
    try:
        return _without_codes(_to_floats(pc.cast(present, pa.float64())), codes), np.empty(0, np.int64)
    except pa.ArrowInvalid:
        pass
    fits = pc.fill_null(pc.match_substring_regex(present, _NUMBER), False)
    bad = np.flatnonzero(np.asarray(pc.and_(pc.is_valid(present), pc.invert(fits))))
    numbers = [np.nan if x is None else float(x) for x in pc.if_else(fits, present, None).to_pylist()]
    return _without_codes(np.array(numbers, dtype=np.float64), codes), bad.astype(np.int64)


def _without_codes(numbers: NDArray[np.float64], codes: Sequence[float]) -> NDArray[np.float64]:
    """Return numbers, NaN where they are a code of a missing value."""
    return np.where(np.isin(numbers, codes), np.nan, numbers) if codes else numbers


def _to_floats(column: Any) -> NDArray[np.float64]:
    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(column, pa.ChunkedArray):  # combine_chunks of an empty or huge column
        return np.asarray(column.to_numpy(), dtype=np.float64)
    return np.array(column.to_numpy(zero_copy_only=False), dtype=np.float64)
