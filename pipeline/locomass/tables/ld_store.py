"""LD blocks on disk: our own cache of block correlations, and readers of two published layouts.

The cache has one file per chromosome, named by the digest of what it was computed from. It is written aside and
renamed, and a file that is truncated, damaged or made from something else is computed again. Published layouts:

- PRS-CS: a folder with ``snpinfo_*`` (CHR SNP BP A1 A2 MAF) and ``ldblk_*_chr22.hdf5``, groups ``blk_k`` of ``ldblk``
  (m, m) and ``snplist`` (m,); Ge et al. (2019), Nat Commun 10:1776;
- VIPRS/magenpy: a folder with one Zarr group per chromosome, ``matrix/data`` and ``matrix/indptr`` (strict upper
  triangle, the entries of a row contiguous from the diagonal on) and ``metadata/{snps,bp,a1,a2,maf}``; Zabad et al.
  (2023), AJHG 110:741.
"""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from locomass.errors import FormatError, InputError
from locomass.files.atomic import atomic_path
from locomass.files.zarr_store import name_zarr_faults
from locomass.variants.chromosomes import normalise_chromosome

LD_VERSION = 1  # raised when the same inputs would give other numbers
SNPINFO = ("CHR", "SNP", "BP", "A1", "A2", "MAF")
DAMAGED = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True)
class LdBlock:
    """One block: (m,) variants of the reference, increasing, and their correlation R (m, m) float32, unshrunk."""

    rows: NDArray[np.int64]
    R: NDArray[np.float32]


def digest_ld(files: Sequence[str], rows: NDArray[np.int64], max_block: int) -> str:
    """Return the digest of what the blocks of a chromosome depend on.

    Args:
        files: content digests of the reference's files.
        rows: variants of the reference.
        max_block: largest block.
    """
    head = json.dumps([LD_VERSION, list(files), max_block])
    return hashlib.blake2b(head.encode() + np.ascontiguousarray(rows, "<i8").tobytes(), digest_size=16).hexdigest()


def write_ld(path: Path, digest: str, blocks: Sequence[LdBlock]) -> None:
    """Write the blocks of one chromosome, atomically; every array has a checksum (zip, not compressed)."""
    arrays: dict[str, Any] = {"digest": np.array(digest), "n_blocks": np.array(len(blocks))}
    for k, block in enumerate(blocks):
        arrays |= {f"rows{k}": block.rows, f"R{k}": block.R.astype(np.float32)}
    with atomic_path(path) as temporary, temporary.open("wb") as handle:
        np.savez(handle, **arrays)


def is_intact(path: Path, digest: str) -> bool:
    """Return whether a cached file is there, was made from what the digest says, and passes its checksums."""
    if not path.is_file():
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:
                return False
        with path.open("rb") as handle, np.load(handle, allow_pickle=False) as store:
            return str(store["digest"]) == digest
    except DAMAGED:
        return False


def read_ld(path: Path, digest: str) -> list[LdBlock]:
    """Read the blocks of one chromosome.

    Raises:
        FormatError: the file is damaged, or was made from other inputs.
    """
    try:
        with path.open("rb") as handle, np.load(handle, allow_pickle=False) as store:
            if str(store["digest"]) != digest:
                raise FormatError("holds the LD of other inputs; remove it and run again", path=path)
            return [LdBlock(store[f"rows{k}"], store[f"R{k}"]) for k in range(int(store["n_blocks"]))]
    except DAMAGED as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(f"damaged LD ({error}); remove it and run again", path=path) from None


def find_layout(folder: Path) -> str:
    """Return ``prs-cs`` or ``viprs``.

    Raises:
        InputError: the folder holds neither.
    """
    if not folder.is_dir():
        raise InputError(f"no such LD reference: {folder}; give a .bed file, a PRS-CS folder or a VIPRS folder")
    if list(folder.glob("ldblk*_chr*.hdf5")):
        return "prs-cs"
    if _viprs_groups(folder):
        return "viprs"
    raise InputError(
        f"{folder} holds neither ldblk_*_chr*.hdf5 (PRS-CS) nor chr_* Zarr groups with matrix/ and metadata/ (VIPRS)"
    )


def read_stored_variants(folder: Path) -> tuple[pd.DataFrame, int | None]:
    """Return the variants of a published LD reference, and its sample size where it says so.

    Returns:
        chromosome, position, id, a1, a2, frequency (of a1) in genome order; the sample size or None.
    """
    if find_layout(folder) == "prs-cs":
        return _read_snpinfo(folder), None
    tables, sizes = [], []
    for path in _viprs_groups(folder):
        table, size = _read_viprs_variants(path)
        tables.append(table)
        sizes.append(size)
    known = [s for s in sizes if s]
    return pd.concat(tables, ignore_index=True), min(known) if known else None


def read_prscs_blocks(folder: Path, chromosome: str, row: dict[str, int]) -> list[LdBlock]:
    """Read the blocks of one chromosome of a PRS-CS folder, restricted to wanted variants.

    Args:
        folder: the folder.
        chromosome: its label.
        row: identifier -> number of the variant.

    Raises:
        InputError: h5py is not installed.
        FormatError: the chromosome's file is absent or damaged.
    """
    try:
        import h5py
    except ImportError:
        raise InputError(f"{folder} is in HDF5, which needs the package h5py: pip install h5py") from None
    paths = [p for p in folder.glob("ldblk*_chr*.hdf5") if re.search(rf"_chr{chromosome}\.hdf5$", p.name)]
    if not paths:
        raise FormatError(f"has no ldblk_*_chr{chromosome}.hdf5", path=folder)
    blocks = []
    try:
        with h5py.File(paths[0], "r") as store:
            for name in sorted(store, key=lambda text: int(text.rsplit("_", 1)[1])):
                ids = [x.decode() if isinstance(x, bytes) else str(x) for x in store[name]["snplist"][:]]
                at = np.array([row.get(x, -1) for x in ids], np.int64)
                if (at >= 0).any():
                    blocks.append(_take(store[name]["ldblk"][:], at))
    except MemoryError:
        raise
    except Exception as error:  # what HDF5 says of damage is of many classes
        raise FormatError(f"is not a PRS-CS LD file ({error})", path=paths[0]) from None
    return blocks


def _take(R: NDArray[Any], at: NDArray[np.int64]) -> LdBlock:
    """Return the wanted variants of a block, increasing."""
    order = np.argsort(at, kind="stable")
    order = order[at[order] >= 0]
    if R.shape != (len(at), len(at)):
        raise ValueError(f"block of {len(at)} variants has a matrix of shape {R.shape}")
    return LdBlock(at[order], np.ascontiguousarray(R[np.ix_(order, order)], np.float32))


def _read_snpinfo(folder: Path) -> pd.DataFrame:
    """Read snpinfo_* of a PRS-CS folder."""
    paths = sorted(folder.glob("snpinfo*"))
    if len(paths) != 1:
        raise FormatError(f"expected one snpinfo_* file, found {len(paths)}", path=folder)
    try:
        table = pd.read_csv(paths[0], sep=r"\s+", dtype={"CHR": str, "SNP": str})
    except ValueError as error:
        raise FormatError(f"is not a table of {' '.join(SNPINFO)} ({str(error).strip()})", path=paths[0]) from None
    lacking = [c for c in SNPINFO if c not in table.columns]
    if lacking:
        raise FormatError(f"has no column {', '.join(lacking)}; expected {' '.join(SNPINFO)}", path=paths[0], line=1)
    if table["BP"].dtype.kind not in "iu" or table["MAF"].dtype.kind not in "fiu":
        raise FormatError("BP must be whole numbers, and MAF numbers", path=paths[0])
    return pd.DataFrame(
        {
            "chromosome": [normalise_chromosome(c) for c in table["CHR"]],
            "position": table["BP"].to_numpy(np.int64),
            "id": table["SNP"].to_numpy(object),
            "a1": table["A1"].to_numpy(object),
            "a2": table["A2"].to_numpy(object),
            "frequency": table["MAF"].to_numpy(np.float64),
        }
    )


def _viprs_groups(folder: Path) -> list[Path]:
    """Return the Zarr groups of a VIPRS folder, by chromosome."""
    found = [p for p in folder.glob("chr_*") if (p / "matrix").is_dir() and (p / "metadata").is_dir()]
    return sorted(found, key=lambda p: int("".join(filter(str.isdigit, p.name)) or 0))


def _open_group(path: Path) -> Any:
    import zarr

    with name_zarr_faults(path):
        return zarr.open_group(str(path), mode="r")


def _read_viprs_variants(path: Path) -> tuple[pd.DataFrame, int | None]:
    """Return the variants of one chromosome and the sample size of the reference."""
    group = _open_group(path)
    names = ("snps", "bp", "a1", "a2", "maf")
    with name_zarr_faults(path):
        lacking = [name for name in names if f"metadata/{name}" not in group]
        if lacking:
            raise FormatError(f"lacks {', '.join(lacking)}; expected metadata/snps, bp, a1, a2 and maf", path=path)
        return _viprs_table(group, path, {name: np.asarray(group[f"metadata/{name}"][:]) for name in names})


def _viprs_table(group: Any, path: Path, columns: dict[str, NDArray[Any]]) -> tuple[pd.DataFrame, int | None]:
    """Return the variants of one chromosome, and the sample size of the reference where it says so."""
    chromosome = normalise_chromosome(str(group.attrs.get("Chromosome", path.name.split("_")[1].split(".")[0])))
    table = pd.DataFrame(
        {
            "chromosome": chromosome,
            "position": columns["bp"].astype(np.int64),
            "id": columns["snps"].astype(str).astype(object),
            "a1": columns["a1"].astype(str).astype(object),
            "a2": columns["a2"].astype(str).astype(object),
            "frequency": columns["maf"].astype(np.float64),
        }
    )
    size = group.attrs.get("Sample size")
    return table, int(size) if size else None


@dataclass(frozen=True)
class BandedCorrelation:
    """Correlations of one chromosome as VIPRS stores them.

    Attributes:
        data: entries of the strict upper triangle, row by row; integers are r times their largest value.
        indptr: (m + 1,) row i holds columns i + 1 .. i + indptr[i + 1] - indptr[i].
    """

    data: NDArray[Any]
    indptr: NDArray[np.int64]

    @property
    def unit(self) -> float:
        """What an entry of 1 is divided by."""
        return float(np.iinfo(self.data.dtype).max) if self.data.dtype.kind in "iu" else 1.0

    def find_strong_pairs(self, threshold: float) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        """Return (p, q, r2) of the pairs whose r2 reaches the threshold."""
        limit = np.sqrt(threshold) * self.unit
        at = np.flatnonzero((self.data >= limit) | (self.data <= -limit))
        p = np.searchsorted(self.indptr, at, side="right") - 1
        return p, p + 1 + at - self.indptr[p], (self.data[at] / self.unit) ** 2

    def cut(self, low: int, high: int) -> NDArray[np.float32]:
        """Return R of variants low .. high - 1; pairs that are not stored are 0."""
        R = np.eye(high - low, dtype=np.float32)
        for i in range(low, high):
            length = min(int(self.indptr[i + 1] - self.indptr[i]), high - 1 - i)
            start, k = int(self.indptr[i]), i - low
            R[k, k + 1 : k + 1 + length] = self.data[start : start + length] / self.unit
            R[k + 1 : k + 1 + length, k] = R[k, k + 1 : k + 1 + length]
        return R


def read_banded(folder: Path, chromosome: str) -> BandedCorrelation:
    """Read the correlations of one chromosome of a VIPRS folder.

    Raises:
        FormatError: the chromosome is absent, or its arrays do not belong together.
    """
    for path in _viprs_groups(folder):
        group = _open_group(path)
        label = str(group.attrs.get("Chromosome", path.name.split("_")[1].split(".")[0]))
        if normalise_chromosome(label) != chromosome:
            continue
        with name_zarr_faults(path):
            data, indptr = np.asarray(group["matrix/data"][:]), np.asarray(group["matrix/indptr"][:]).astype(np.int64)
        m = len(indptr) - 1
        if m < 0 or indptr[-1] != len(data) or np.any(np.diff(indptr) > np.arange(m)[::-1]) or np.any(indptr < 0):
            raise FormatError("matrix/indptr does not describe a strict upper triangle of matrix/data", path=path)
        return BandedCorrelation(data, indptr)
    raise FormatError(f"has no group of chromosome {chromosome}", path=folder)
