"""Common variants: polygenic scores and LD, against plink2 --score and plink 1.9 --r."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.cases.base import Case
from benchmarks.data import COMMON, SAMPLES
from benchmarks.measure import Result, run_command
from locomass.genotypes.fileset import Fileset, open_fileset
from locomass.genotypes.packed import add_weighted_dosage, decode_dosage
from locomass_predictors.ld import correlation_from_dosage

PIECE = 1024  # variants read at a time
LD_VARIANTS = 1_000
SETS = 3


def packed_scores(bed: Path) -> Callable[[], Result]:
    """Ours: bytes looked up in a table per variant, scores per chromosome and set of weights."""
    fileset = open_fileset(bed)
    weights = pd.read_csv(bed.with_suffix(".weights.txt"), sep="\t")[["w1", "w2", "w3"]].to_numpy(float)
    chromosome = fileset.variants["chromosome"].astype(int).to_numpy()

    def run() -> Result:
        scores = np.zeros((chromosome.max(), fileset.n_samples, SETS))
        for c in range(len(scores)):
            rows = np.flatnonzero(chromosome == c + 1)
            for start in range(0, len(rows), PIECE):
                piece = rows[start : start + PIECE]
                add_weighted_dosage(fileset.select(piece).packed(), fileset.n_samples, weights[piece], scores[c])
        return {"score": scores.sum(axis=0)[:, 0]}

    return run


def plink2_scores(sets: int, bed: Path) -> Callable[[], Result]:
    """plink2 --score on one thread; the sum over all chromosomes only. Ours is centred: so is what is compared."""
    prefix = bed.with_suffix("")

    def run() -> Result:
        with tempfile.TemporaryDirectory() as folder:
            columns = ["1", "2", "header", "cols=scoresums"]
            command = [
                "plink2", "--bfile", prefix, "--threads", "1", "--score", f"{prefix}.weights.txt", *columns,
                "--score-col-nums", "3" if sets == 1 else f"3-{2 + sets}", "--out", f"{folder}/out",
            ]  # fmt: skip
            run_command(command)
            score = pd.read_csv(f"{folder}/out.sscore", sep=r"\s+")["SCORE1_SUM"].to_numpy(float)
        return {"score": score - score.mean()}

    return run


def packed_ld(bed: Path) -> Callable[[], Result]:
    """Ours: packed rows to float32, then BLAS."""
    fileset: Fileset = open_fileset(bed)
    m = min(LD_VARIANTS, fileset.n_variants)

    def run() -> Result:
        dosage = np.empty((m, fileset.n_samples), np.float32)
        everyone = np.arange(fileset.n_samples, dtype=np.int32)
        decode_dosage(fileset.select(np.arange(m)).packed(), everyone, fileset.n_samples, dosage)
        return {"r": np.asarray(correlation_from_dosage(dosage.T), float)[0]}

    return run


def plink_ld(bed: Path) -> Callable[[], Result]:
    """PLINK 1.9: --r square on one thread."""
    prefix = bed.with_suffix("")
    m = min(LD_VARIANTS, len(bed.with_suffix(".bim").read_text().splitlines()))

    def run() -> Result:
        with tempfile.TemporaryDirectory() as folder:
            command = [
                "plink1.9", "--bfile", prefix, "--threads", "1", "--snps", f"v0-v{m - 1}", "--r", "square", "bin4",
                "--allow-no-sex", "--keep-allele-order", "--out", f"{folder}/out",
            ]  # fmt: skip
            run_command(command)
            return {"r": np.fromfile(f"{folder}/out.ld.bin", np.float32).reshape(m, m)[0].astype(float)}

    return run


def warm(prepare: Callable[[Path], Callable[[], Result]], folder: Path) -> Callable[[], Result]:
    """Run a case on the tiny fileset, which compiles, then prepare it on the data set."""
    prepare(folder / "tiny-common.bed")()
    return prepare(folder / "common.bed")


SIZE = f"{SAMPLES:,} x {COMMON:,}"
LD_SIZE = f"{SAMPLES:,} x {LD_VARIANTS:,}, all pairs"
CASES = [
    Case("add_weighted_dosage, 3 sets, 22 chromosomes", "polygenic scores", COMMON, SIZE, partial(warm, packed_scores)),
    Case(
        "plink2 --score, 1 set",
        "polygenic scores",
        COMMON,
        SIZE,
        partial(warm, partial(plink2_scores, 1)),
        1e-3,
        "plink2",
    ),
    Case(
        "plink2 --score, 3 sets",
        "polygenic scores",
        COMMON,
        SIZE,
        partial(warm, partial(plink2_scores, 3)),
        1e-3,
        "plink2",
    ),
    Case("decode_dosage + BLAS", "LD matrix", LD_VARIANTS, LD_SIZE, partial(warm, packed_ld)),
    Case("plink 1.9 --r square", "LD matrix", LD_VARIANTS, LD_SIZE, partial(warm, plink_ld), 1e-3, "plink1.9"),
]
