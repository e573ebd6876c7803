"""Rare variants: single-variant tests of one quantitative trait, against dense reading and plink2."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.cases.base import Case
from benchmarks.data import SAMPLES, VARIANTS
from benchmarks.measure import Array, Result, run_command
from locomass.gene_tests.tails import chi2_logsf
from locomass.genotypes.bed import row_bytes
from locomass.genotypes.fileset import Fileset, open_fileset
from locomass.genotypes.labelled import open_genotypes
from locomass.genotypes.packed import count_genotypes, scan_carriers
from locomass.genotypes.products import project_columns, weighted_squares

PIECE = 4 << 20  # packed bytes scanned at a time
DENSE = 500  # variants that the dense methods hold at a time
BED_READER, PANDAS_PLINK = 8_000, 2_000  # variants that are enough to know their speed
COVARIATES = ["age", "sex", "pc1", "pc2"]


def null_model(bed: Path, n_traits: int = 1) -> tuple[Array, Array, Array]:
    """Residuals (n, T), orthonormal covariates Q (n, p) and sigma2 (T,) of the traits y1.. of a fileset."""
    covariates = pd.read_csv(bed.with_suffix(".covar.tsv"), sep="\t")[COVARIATES].to_numpy(float)
    y = pd.read_csv(bed.with_suffix(".pheno.tsv"), sep="\t")[[f"y{t + 1}" for t in range(n_traits)]].to_numpy(float)
    Q = np.linalg.qr(np.column_stack([np.ones(len(y)), covariates]))[0]
    residual = y - Q @ (Q.T @ y)
    return residual, Q, (residual**2).sum(axis=0) / (len(y) - Q.shape[1])


def packed_pieces(fileset: Fileset, rows: Array) -> Iterator[Array]:
    """Packed rows in pieces that stay in the processor's cache."""
    width = row_bytes(fileset.n_samples)
    step = max(1, PIECE // width)
    buffer = np.empty((min(step, len(rows)), width), np.uint8)
    for start in range(0, len(rows), step):
        yield fileset.select(rows[start : start + step]).packed(buffer)


def pass_over(fileset: Fileset, rows: Array, residual: Array, Q: Array) -> tuple[Array, ...]:
    """Counts, G'[residuals, Q] and the diagonal of G'G of the minor alleles, in one pass."""
    n = fileset.n_samples
    position, everyone = np.arange(n, dtype=np.int32), np.ones((n, 1), np.uint8)
    columns = np.ascontiguousarray(np.column_stack([residual, Q]))
    column_set, weight = np.zeros(columns.shape[1], np.int64), np.ones((n, 1))
    parts = []
    for packed in packed_pieces(fileset, rows):
        indptr, sample, dosage, _ = scan_carriers(packed, n, position, n)
        counts = count_genotypes(indptr, sample, dosage, everyone)
        imputed = (counts[:, :, 0] + 2 * counts[:, :, 1]) / np.maximum(n - counts[:, :, 2], 1)
        projected = project_columns(indptr, sample, dosage, columns, column_set, imputed)
        parts.append((counts[:, 0], projected, weighted_squares(indptr, sample, dosage, weight, imputed)))
    return tuple(np.concatenate(column) for column in zip(*parts, strict=True))


def chi_square(U: Array, squares: Array, B: Array, sigma2: Array) -> Array:
    """Score test of one variant: ``U^2 / (sigma2 (G'G - B'B))``."""
    return np.asarray(U[:, 0] ** 2 / ((squares - (B**2).sum(axis=1)) * sigma2[0]))


def packed_singles(bed: Path) -> Callable[[], Result]:
    """Ours: packed rows, carriers only."""
    fileset, (residual, Q, sigma2) = open_fileset(bed), null_model(bed)

    def run() -> Result:
        _, projected, squares = pass_over(fileset, np.arange(fileset.n_variants), residual, Q)
        chi2 = chi_square(projected[:, :1], squares[:, 0], projected[:, 1:], sigma2)
        return {"chi2": chi2, "log_p": chi2_logsf(chi2)}

    return run


def dense_tests(G: Array, residual: Array, Q: Array, sigma2: Array) -> Array:
    """The same from a dense (n, m) matrix: mean imputation, then BLAS."""
    mean = np.nanmean(G, axis=0)
    G = np.where(np.isnan(G), mean, G)
    return chi_square(G.T @ residual, np.einsum("ij,ij->j", G, G), G.T @ Q, sigma2)


def bed_reader_singles(bed: Path) -> Callable[[], Result]:
    """bed-reader: dense float64 pieces."""
    from bed_reader import open_bed

    (residual, Q, sigma2), file = null_model(bed), open_bed(bed, num_threads=1)

    def run() -> Result:
        m = min(BED_READER, file.sid_count)
        pieces = [np.s_[:, start : min(start + DENSE, m)] for start in range(0, m, DENSE)]
        chi2 = np.concatenate([dense_tests(file.read(s, dtype="float64"), residual, Q, sigma2) for s in pieces])
        return {"chi2": chi2, "log_p": chi2_logsf(chi2)}

    return run


def pandas_plink_singles(bed: Path) -> Callable[[], Result]:
    """pandas-plink: its labelled array, dense pieces."""
    import dask

    residual, Q, sigma2 = null_model(bed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        view = open_genotypes(bed)
    m = min(PANDAS_PLINK, view.sizes["variant"])

    def run() -> Result:
        with dask.config.set(scheduler="synchronous"):
            chi2 = np.concatenate(
                [
                    dense_tests(view[:, s : min(s + DENSE, m)].values.astype(float), residual, Q, sigma2)
                    for s in range(0, m, DENSE)
                ]
            )
        return {"chi2": chi2, "log_p": chi2_logsf(chi2)}

    return run


def plink2_singles(bed: Path) -> Callable[[], Result]:
    """plink2 --glm on one thread; its t becomes the score chi-square ``(n - p) t^2 / (t^2 + n - p - 1)``."""
    prefix = bed.with_suffix("")
    n, p = len(bed.with_suffix(".fam").read_text().splitlines()), 1 + len(COVARIATES)

    def run() -> Result:
        with tempfile.TemporaryDirectory() as folder:
            command = [
                "plink2", "--bfile", prefix, "--threads", "1", "--pheno", f"{prefix}.pheno.tsv", "--pheno-name", "y1",
                "--covar", f"{prefix}.covar.tsv", "--glm", "hide-covar", "cols=tz", "--out", f"{folder}/out",
            ]  # fmt: skip
            run_command(command)
            t = pd.read_csv(f"{folder}/out.y1.glm.linear", sep="\t")["T_STAT"].to_numpy(float)
        return {"chi2": (n - p) * t**2 / (t**2 + n - p - 1)}

    return run


def warm(prepare: Callable[[Path], Callable[[], Result]], name: str, folder: Path) -> Callable[[], Result]:
    """Run a case on the tiny fileset, which compiles, then prepare it on the data set."""
    prepare(folder / "tiny.bed")()
    return prepare(folder / f"{name}.bed")


def read_file(folder: Path) -> Callable[[], Result]:
    """The floor: the file through `cat`."""

    def run() -> Result:
        run_command(["sh", "-c", f"cat {folder}/reference.bed > /dev/null"])
        return {}

    return run


SIZE = f"{SAMPLES:,} x {VARIANTS:,}"
CASES = [
    Case("packed kernel", "single variants", VARIANTS, SIZE, partial(warm, packed_singles, "reference")),
    Case("cat file", "single variants", VARIANTS, SIZE, read_file),
    Case("plink2 --glm", "single variants", VARIANTS, SIZE, partial(warm, plink2_singles, "reference"), 1e-4, "plink2"),
    Case(
        "bed-reader dense + numpy", "single variants", BED_READER, f"{SAMPLES:,} x {BED_READER:,}",
        partial(warm, bed_reader_singles, "reference"), 1e-8, "bed_reader",
    ),
    Case(
        "pandas-plink + numpy", "single variants", PANDAS_PLINK, f"{SAMPLES:,} x {PANDAS_PLINK:,}",
        partial(warm, pandas_plink_singles, "reference"), 1e-8, "pandas_plink",
    ),
]  # fmt: skip
