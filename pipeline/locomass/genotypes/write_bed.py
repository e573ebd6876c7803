"""Writing PLINK 1 filesets block by block, in bounded memory; a fileset appears whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO, TextIO

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from locomass.errors import InputError
from locomass.files.atomic import atomic_path

MAGIC = b"\x6c\x1b\x01"
COLUMNS = ("chromosome", "position", "id", "a1", "a2")
#: 2-bit code of a call by its A1 count + 1: missing, A2/A2, het, A1/A1.
CODES = np.array([1, 3, 2, 0], np.uint8)
_BLOCK_BYTES = 16 << 20


class FilesetWriter:
    """Appends variants to an open fileset; made by `open_writer`.

    Attributes:
        n_samples: samples in the .fam.
        n_variants: variants written so far.
    """

    def __init__(self, bed: BinaryIO, bim: TextIO, n_samples: int) -> None:
        self.n_samples = n_samples
        self.n_variants = 0
        self._bed, self._bim = bed, bim
        bed.write(MAGIC)

    def write_dosage(self, variants: pd.DataFrame, dosage: NDArray[np.int8]) -> None:
        """Append variants given as dense A1 counts.

        Args:
            variants: m rows with the columns chromosome, position, id, a1, a2, as `Fileset.variants` has them.
            dosage: (n_samples, m) counts of A1, -1 for a missing call. Fortran order (the transpose of a
                variant-major array) is written without a copy.

        Raises:
            InputError: another shape, or a value outside -1..2.
        """
        if dosage.shape != (self.n_samples, len(variants)):
            raise InputError(
                f"dosage is {dosage.shape}; expected {(self.n_samples, len(variants))} (samples, variants)"
            )
        step = max(1, _BLOCK_BYTES // max(1, self.n_samples))
        for start in range(0, len(variants), step):
            self._bed.write(pack_dosage(dosage[:, start : start + step]).data)
        self._write_bim(variants)

    def write_carriers(
        self,
        variants: pd.DataFrame,
        indptr: NDArray[np.int64],
        sample: NDArray[np.int32],
        dosage: NDArray[np.int8],
    ) -> None:
        """Append variants given by their carriers; everybody else is A2/A2.

        Args:
            variants: m rows, as for `write_dosage`.
            indptr: (m + 1,) row j's carriers are entries ``indptr[j]:indptr[j + 1]``.
            sample: (nnz,) sample numbers, strictly increasing within a row.
            dosage: (nnz,) counts of A1, -1 for a missing call.

        Raises:
            InputError: lengths that do not fit, a sample out of range or repeated, a value outside -1..2.
        """
        _check_pointers(indptr, len(variants))
        step = max(1, _BLOCK_BYTES // max(1, (self.n_samples + 3) // 4))
        for start in range(0, len(variants), step):
            rows = indptr[start : min(start + step, len(variants)) + 1]
            part = slice(rows[0], rows[-1])
            self._bed.write(pack_carriers(rows - rows[0], sample[part], dosage[part], self.n_samples).data)
        self._write_bim(variants)

    def _write_bim(self, variants: pd.DataFrame) -> None:
        """Append the .bim lines of the variants."""
        columns = [variants[name].tolist() for name in COLUMNS]
        self._bim.writelines(
            f"{c}\t{name}\t0\t{position}\t{a1}\t{a2}\n" for c, position, name, a1, a2 in zip(*columns, strict=True)
        )
        self.n_variants += len(variants)


@contextmanager
def open_writer(
    path: str | Path, iid: Sequence[str], *, fid: Sequence[str] | None = None, sex: Sequence[int] | None = None
) -> Iterator[FilesetWriter]:
    """Open a fileset for writing; .fam, .bim and .bed appear together when the block ends without an error.

    Args:
        path: the .bed file, or its prefix.
        iid: sample labels.
        fid: family labels; ``iid`` when absent.
        sex: 1 male, 2 female, 0 unknown (default).

    Raises:
        InputError: labels of unequal length or none, a repeated sample, no variant written, or an unwritable folder.
    """
    text = str(path)
    bed_path = Path(text if text.endswith(".bed") else f"{text}.bed")
    families = list(iid) if fid is None else list(fid)
    sexes = [0] * len(iid) if sex is None else list(sex)
    check_labels(bed_path, families, list(iid), sexes)
    with ExitStack() as stack:
        # left in reverse order: a reader that sees the .bed finds the other two
        paths = [stack.enter_context(atomic_path(bed_path.with_suffix(s))) for s in (".bed", ".bim", ".fam")]
        lines = (f"{f} {i} 0 0 {s} -9\n" for f, i, s in zip(families, iid, sexes, strict=True))
        paths[2].write_text("".join(lines), encoding="utf-8")
        with open(paths[0], "wb") as bed, open(paths[1], "w", encoding="utf-8") as bim:
            writer = FilesetWriter(bed, bim, len(iid))
            yield writer
        if writer.n_variants == 0:
            raise InputError(f"{bed_path}: a fileset needs at least one variant; none was written")


def write_fileset(
    path: str | Path,
    variants: pd.DataFrame,
    dosage: NDArray[np.int8],
    iid: Sequence[str],
    *,
    fid: Sequence[str] | None = None,
    sex: Sequence[int] | None = None,
) -> None:
    """Write a fileset that fits in memory; arguments as for `open_writer` and `FilesetWriter.write_dosage`."""
    with open_writer(path, iid, fid=fid, sex=sex) as writer:
        writer.write_dosage(variants, dosage)


def pack_dosage(dosage: NDArray[np.int8]) -> NDArray[np.uint8]:
    """Pack dense A1 counts to .bed rows: 00 = A1/A1, 01 = missing, 10 = het, 11 = A2/A2, lowest bits first.

    Args:
        dosage: (n, m) counts of A1, -1 for a missing call.

    Returns:
        (m, ceil(n / 4)) uint8; unused bits of the last byte are 0.

    Raises:
        InputError: a value outside -1..2.
    """
    n, m = dosage.shape
    check_calls(dosage)
    row_bytes = (n + 3) // 4
    calls = np.zeros((m, 4 * row_bytes), np.uint8)
    calls[:, :n] = dosage.T.view(np.uint8) if dosage.dtype == np.int8 else dosage.T.astype(np.int8).view(np.uint8)
    # four calls are the four bytes of a little-endian word: gather the low two bits of each in its lowest byte
    word = calls.view("<u4") & np.uint32(0x03030303)
    pairs = (word | word >> np.uint32(6) | word >> np.uint32(12) | word >> np.uint32(18)).astype(np.uint8)
    # -1, 0, 1, 2 = 11, 00, 01, 10 becomes 01, 11, 10, 00: the complement of the Gray code
    packed: NDArray[np.uint8] = ~(pairs ^ (pairs >> np.uint8(1) & np.uint8(0x55)))
    packed[:, -1] &= _last_byte_mask(n)
    return packed


def _last_byte_mask(n_samples: int) -> np.uint8:
    """Return the bits of a row's last byte that hold calls."""
    return np.uint8(0xFF >> 2 * (-n_samples % 4))


def pack_carriers(
    indptr: NDArray[np.int64], sample: NDArray[np.int32], dosage: NDArray[np.int8], n_samples: int
) -> NDArray[np.uint8]:
    """Pack carriers to .bed rows in which everybody else is A2/A2.

    Args:
        indptr: (m + 1,) row pointers, from 0.
        sample: (nnz,) sample numbers, strictly increasing within a row.
        dosage: (nnz,) counts of A1, -1 for a missing call.
        n_samples: n.

    Returns:
        (m, ceil(n / 4)) uint8; unused bits of the last byte are 0.

    Raises:
        InputError: a sample out of range or repeated within a row, or a value outside -1..2.
    """
    m, row_bytes = indptr.size - 1, (n_samples + 3) // 4
    check_carriers(indptr, sample, dosage, n_samples, m)
    packed = np.full((m, row_bytes), 0xFF, np.uint8)
    packed[:, -1] = _last_byte_mask(n_samples)
    row = np.repeat(np.arange(m, dtype=np.int64) * row_bytes, np.diff(indptr))
    change = (CODES[dosage + np.int8(1)] ^ np.uint8(3)) << (2 * (sample & 3)).astype(np.uint8)
    np.bitwise_xor.at(packed.reshape(-1), row + (sample >> 2), change)
    return packed


def check_carriers(
    indptr: NDArray[np.int64], sample: NDArray[np.int32], dosage: NDArray[np.int8], n_samples: int, n_variants: int
) -> None:
    """Raise unless carriers are listed once each, in order, with calls."""
    _check_pointers(indptr, n_variants)
    check_calls(dosage)
    key = np.repeat(np.arange(n_variants, dtype=np.int64), np.diff(indptr)) * n_samples + sample
    if sample.size and (sample.min() < 0 or sample.max() >= n_samples):
        raise InputError(f"carriers name sample {sample.min()}..{sample.max()}; the fileset has 0..{n_samples - 1}")
    if key.size and (np.diff(key) <= 0).any():
        raise InputError("carriers must be listed once each, in increasing order of the sample, within a variant")


def _check_pointers(indptr: NDArray[np.int64], n_variants: int) -> None:
    if indptr.shape != (n_variants + 1,):
        raise InputError(f"indptr has {indptr.size} entries; expected {n_variants + 1}, one more than variants")


def check_calls(dosage: NDArray[np.int8]) -> None:
    """Raise unless every call is -1, 0, 1 or 2."""
    if dosage.size and (dosage.min() < -1 or dosage.max() > 2):
        raise InputError(f"A1 counts reach from {dosage.min()} to {dosage.max()}; expected 0, 1, 2, or -1 for missing")


def check_labels(path: Path, fid: list[str], iid: list[str], sex: list[int]) -> None:
    """Raise unless the sample columns are of one length, not empty, without repeats or blanks."""
    if not len(fid) == len(iid) == len(sex) or not iid:
        raise InputError(f"{path}: {len(iid)} IIDs, {len(fid)} FIDs, {len(sex)} sexes; expected equal lengths above 0")
    if len(set(zip(fid, iid, strict=True))) < len(iid):
        raise InputError(f"{path}: a sample is listed twice; give every sample one (FID, IID)")
    bad = next((label for label in (*fid, *iid) if not label or label.split() != [label]), None)
    if bad is not None:
        raise InputError(f"{path}: sample label '{bad}' is empty or has a blank in it")
