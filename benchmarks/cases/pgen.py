"""PLINK 2: carriers from .pgen and from .bed of the same calls; a biobank end to end, streamed, from .pgen."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.cases.base import Case
from benchmarks.cases.stages import command_line
from benchmarks.measure import Result, run_command
from locomass.genotypes.fileset import open_fileset
from locomass.simulate.rare import write_rare_fileset

SAMPLES, VARIANTS = 100_000, 10_000
BIOBANK_SAMPLES, BIOBANK_VARIANTS, PER_GENE = 470_000, 1_000_000, 54  # 18,500 genes


def make(folder: Path, name: str, n_samples: int, n_variants: int, n_traits: int = 1) -> Path:
    """Write a fileset with an exome's spectrum, ``P(k) ~ k^-1.8`` up to 1 %, unless it is there; return it."""
    path = folder / name
    if not path.exists():
        write_rare_fileset(
            path, n_samples, n_variants, "growth", max_maf=0.01, variants_per_gene=PER_GENE, n_traits=n_traits
        )
    return path


def scan(suffix: str, folder: Path) -> Callable[[], Result]:
    """Carriers of every variant, one thread, a thousand variants at a time."""
    tiny = open_fileset(make(folder, f"tiny-growth{suffix}", 500, 200))
    tiny.select(np.arange(200)).carriers(np.arange(500, dtype=np.int32))
    fileset = open_fileset(make(folder, f"growth-{SAMPLES}{suffix}", SAMPLES, VARIANTS))
    people = np.arange(SAMPLES, dtype=np.int32)

    def run() -> Result:
        sizes = []
        for start in range(0, VARIANTS, 1000):
            found = fileset.select(np.arange(start, start + 1000)).carriers(people)
            sizes.append(np.diff(found.indptr))
        return {"carriers": np.concatenate(sizes).astype(float)}

    return run


def biobank(folder: Path) -> Callable[[], Result]:
    """`locomass run` to the report, 2 threads, in a new process."""
    path = make(folder, "biobank.pgen", BIOBANK_SAMPLES, BIOBANK_VARIANTS)
    config = path.with_suffix(".yaml")
    config.write_text(config.read_text().replace("  binary: [cc]\n", ""))

    def run() -> Result:
        out = folder / "biobank-out"
        shutil.rmtree(out, ignore_errors=True)
        run_command(command_line("run", str(config), "--out", str(out), "--threads", "2", "--quiet"))
        return {}

    return run


CASES = [
    Case("carriers, .pgen", "pgen", VARIANTS, f"{SAMPLES:,} x {VARIANTS:,}", partial(scan, ".pgen")),
    Case("carriers, .bed", "pgen", VARIANTS, f"{SAMPLES:,} x {VARIANTS:,}", partial(scan, ".bed"), tolerance=0.0),
    Case(
        "locomass run, biobank",
        "biobank",
        BIOBANK_VARIANTS,
        f"{BIOBANK_SAMPLES:,} x {BIOBANK_VARIANTS:,}, .pgen, 2 threads",
        biobank,
        quick=False,
        once=True,
    ),
]
