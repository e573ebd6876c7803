"""The labelled lazy view of genotypes, for exploration: an `xarray.DataArray` (sample, variant), read when computed."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from locomass.genotypes.base import GenotypeRows
from locomass.genotypes.bed import BedFile
from locomass.genotypes.fileset import Fileset, open_fileset

CHUNK_BYTES = 16 << 20


def open_genotypes(path: str | Path) -> Any:
    """Return genotypes as a lazy `xarray.DataArray` (sample, variant) of dosages of allele a0, NaN missing.

    >>> genotypes = locomass.open_genotypes("cohort_a.bed")
    >>> genotypes.dims, genotypes.sizes["sample"]
    (('sample', 'variant'), 1200)

    A PLINK .bed is opened by pandas-plink and has its coordinates (fid, iid, chrom, pos, snp, a0, a1 ...), where a0 is
    A1 of the .bim. Other formats have the same dimensions and the coordinates sample, fid, iid, gender, variant, chrom,
    snp, pos, a0, a1, with a0 the ALT allele.

    Args:
        path: a genotype file, or a `{chrom}` pattern of one file per chromosome.

    Raises:
        InputError, FormatError: see `open_fileset`.
    """
    fileset = open_fileset(path)
    if all(isinstance(part, BedFile) for part in fileset.parts):
        return _open_with_pandas_plink(fileset)
    return _build(fileset)


def _open_with_pandas_plink(fileset: Fileset) -> Any:
    import xarray
    from pandas_plink import read_plink1_bin

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # FutureWarnings raised inside pandas-plink
        parts = [read_plink1_bin(str(part.path), verbose=False, ref="a0") for part in fileset.parts]
        return parts[0] if len(parts) == 1 else xarray.concat(parts, dim="variant")


def _build(fileset: Fileset) -> Any:
    """Return the view of a fileset whose blocks its own reader reads."""
    import dask.array as da
    import xarray
    from dask import delayed

    read, n = delayed(_read_block, pure=True), fileset.n_samples
    step = max(1, CHUNK_BYTES // (4 * n))
    blocks = []
    for start in range(0, fileset.n_variants, step):
        rows = np.arange(start, min(start + step, fileset.n_variants))
        blocks.append(da.from_delayed(read(fileset.select(rows)), (n, len(rows)), np.float32))
    v = fileset.variants
    names = [f"{f}_{i}" for f, i in zip(fileset.fid, fileset.iid, strict=True)]
    coords = {
        "sample": names,
        "fid": ("sample", fileset.fid.astype(str)),
        "iid": ("sample", fileset.iid.astype(str)),
        "gender": ("sample", fileset.sex.astype(str)),
        "variant": [f"variant{k}" for k in range(fileset.n_variants)],
        "chrom": ("variant", v["chromosome"].astype(str).to_numpy(object)),
        "snp": ("variant", v["id"].to_numpy(object)),
        "pos": ("variant", v["position"].to_numpy(np.int64)),
        "a0": ("variant", v["a1"].to_numpy(object)),
        "a1": ("variant", v["a2"].to_numpy(object)),
    }
    return xarray.DataArray(da.concatenate(blocks, axis=1), dims=("sample", "variant"), coords=coords, name="genotype")


def _read_block(rows: GenotypeRows) -> NDArray[np.float32]:
    """Return (N, m) A1 dosages of all samples, NaN missing."""
    n = rows.n_samples
    found = rows.carriers(np.arange(n, dtype=np.int32))
    out = np.repeat(np.where(found.a1_counted, 0, 2).astype(np.float32)[:, None], n, axis=1)
    row = np.repeat(np.arange(len(found.a1_counted)), np.diff(found.indptr))
    dosage = np.where(found.dosage < 0, np.nan, found.dosage)
    out[row, found.sample] = np.where(found.a1_counted[row], dosage, 2 - dosage)
    return out.T
