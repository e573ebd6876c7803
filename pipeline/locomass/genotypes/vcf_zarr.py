"""VCF Zarr (.vcz), as bio2zarr writes it: ``call_genotype``, or ``call_DS`` where it is there; every ALT a variant."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from locomass.errors import FormatError
from locomass.files.zarr_store import name_zarr_faults
from locomass.genotypes.base import Cost, Integers
from locomass.genotypes.dense import DenseRows
from locomass.genotypes.plink2 import SplitVariants, split_alleles
from locomass.genotypes.vcf import count_alleles

NEEDED = ("contig_id", "variant_contig", "variant_position", "variant_allele", "sample_id")


@dataclass(frozen=True)
class VczFile:
    """One VCF Zarr store, opened and checked; see `GenotypeFile`.

    Attributes:
        path: the folder.
        split: its variants, every ALT a row.
        samples: fid, iid, sex.
        dosage: whether ``call_DS`` is read.
        row_bytes: of one variant, decompressed.
    """

    path: Path
    split: SplitVariants
    samples: pd.DataFrame
    dosage: bool
    row_bytes: int
    kind: str = "VCF Zarr"
    ref_known: bool = True

    @property
    def variants(self) -> pd.DataFrame:
        """One row per ALT."""
        return self.split.table

    @property
    def sample_path(self) -> Path:
        """The folder."""
        return self.path

    @property
    def variant_path(self) -> Path:
        """The folder."""
        return self.path

    @property
    def paths(self) -> tuple[Path, ...]:
        """The folder."""
        return (self.path,)

    def select(self, rows: Integers) -> VczRows:
        """Return chosen variants, strictly increasing."""
        return VczRows(self.path, len(self.samples), self.split.record[rows], self.split.allele[rows], self.dosage)

    def cost(self, rows: Integers) -> Cost:
        """Return what reading chosen variants costs: chunks of dense rows."""
        most = np.full(len(rows), float(len(self.samples)))
        return Cost(np.full(len(rows), float(self.row_bytes)), most / 64, most)


def companions(path: Path) -> list[Path]:
    """Return the folder."""
    return [path]


def open_file(path: Path) -> VczFile:
    """Open one store and check its arrays.

    Raises:
        FormatError: not a VCF Zarr store, or arrays of different lengths.
    """
    with name_zarr_faults(path):
        return _open_checked(path)


def _open_checked(path: Path) -> VczFile:
    """Open one store and check its arrays; faults of the store are still Zarr's own."""
    root = _open(path, path.stat().st_mtime_ns)
    lacking = [name for name in NEEDED if name not in root]
    if lacking or not {"call_genotype", "call_DS"} & set(root.array_keys()):
        raise FormatError(f"not a VCF Zarr store: it lacks {', '.join(lacking) or 'call_genotype'}", path=path)
    dosage = "call_DS" in root
    calls = root["call_DS" if dosage else "call_genotype"]
    n, m = root["sample_id"].shape[0], root["variant_position"].shape[0]
    if calls.shape[:2] != (m, n):
        raise FormatError(f"{calls.name} is {calls.shape[:2]}; expected {(m, n)} (variants, samples)", path=path)
    names = [str(name) for name in root["sample_id"][:]]
    samples = pd.DataFrame({"fid": "0", "iid": names, "sex": 0})
    split = split_alleles(_sites(root, path), path, 1)
    return VczFile(path, split, samples, dosage, calls.dtype.itemsize * int(np.prod(calls.shape[1:])))


def _sites(root: Any, path: Path) -> pa.Table:
    """Return the five columns of the sites as text."""
    allele = _text(root["variant_allele"][:])
    contig = _text(root["contig_id"][:])[root["variant_contig"][:]]
    identifiers = _text(root["variant_id"][:]) if "variant_id" in root else np.full(len(allele), ".", object)
    if not len(allele) == len(contig) == len(identifiers):
        raise FormatError("variant arrays are of different lengths", path=path)
    alts = [",".join(a for a in row[1:] if a) or "." for row in allele.tolist()]
    position = [str(p) for p in root["variant_position"][:].tolist()]
    names = ("#CHROM", "POS", "ID", "REF", "ALT")
    columns = (contig.tolist(), position, identifiers.tolist(), allele[:, 0].tolist(), alts)
    return pa.table({name: pa.array(values, pa.string()) for name, values in zip(names, columns, strict=True)})


def _text(array: Any) -> NDArray[np.object_]:
    """Return an array of any type of strings as objects."""
    return np.array([str(x) for x in np.asarray(array).reshape(-1)], object).reshape(array.shape)


@lru_cache(maxsize=8)
def _open(path: Path, stamp: int) -> Any:
    """Open a store for reading.

    Raises:
        InputError, FormatError: it is not there, or not Zarr.
    """
    import zarr

    with name_zarr_faults(path):
        return zarr.open_group(str(path), mode="r")


@dataclass(frozen=True)
class VczRows(DenseRows):
    """Chosen variants of a store; see `GenotypeRows`."""

    path: Path
    n_samples: int
    record: Integers
    allele: Integers
    from_dosage: bool

    def __len__(self) -> int:
        return len(self.record)

    def take(self, start: int, stop: int) -> VczRows:
        """See `GenotypeRows`."""
        return VczRows(self.path, self.n_samples, self.record[start:stop], self.allele[start:stop], self.from_dosage)

    def read(self) -> NDArray[np.float32]:
        """Read (m, N) dosages of the chosen ALT, NaN missing; a half call is missing.

        Raises:
            FormatError: a chunk cannot be read.
        """
        if not len(self):
            return np.empty((0, self.n_samples), np.float32)
        root = _open(self.path, self.path.stat().st_mtime_ns)
        array = root["call_DS" if self.from_dosage else "call_genotype"]
        records, inverse = np.unique(self.record, return_inverse=True)
        try:
            found = array.oindex[records]
        except Exception as error:
            text = f"variants {records[0] + 1}..{records[-1] + 1} cannot be read ({error})"
            raise FormatError(text, path=self.path) from None
        out = np.empty((len(self), self.n_samples), np.float32)
        for k, (at, allele) in enumerate(zip(inverse.tolist(), self.allele.tolist(), strict=True)):
            if not self.from_dosage:
                out[k] = count_alleles(found[at], allele)
            else:
                out[k] = found[at] if found.ndim == 2 else found[at][:, min(allele - 1, found.shape[2] - 1)]
        return out
