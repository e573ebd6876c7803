"""Data sets of the benchmarks, made once per folder: rare variants in bulk, common variants with weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from locomass.genotypes.write_bed import open_writer
from locomass.simulate.rare import Spectrum, write_rare_fileset

SAMPLES, VARIANTS = 20_000, 40_000  # 1,000 genes of 40
COMMON = 50_000
SCALING_SAMPLES = (10_000, 20_000, 40_000, 80_000)
SCALING_VARIANTS = (5_000, 10_000, 20_000, 40_000)
TWO_MASKS = "M2 LoF,missense\nM3 LoF,missense,synonymous\n"
TESTS = "tests:\n  names: [{names}]\n  max_maf: [0.01]\n  weights: [{weights}]\n"
PLAIN = "burden, skat, acat-v, acat-o"

#: Configurations beside each rare fileset: name -> (tests, weights)
CONFIGS = {
    "plain": (PLAIN, "flat, beta_1_25"),
    "one-weight": (PLAIN, "beta_1_25"),
    "skat-o": (f"{PLAIN}, skat-o", "flat, beta_1_25"),
}


def make_rare(
    folder: Path, name: str, n_samples: int, n_variants: int, n_traits: int = 1, spectrum: Spectrum = "1/k"
) -> Path:
    """Write a rare fileset and its configurations (quantitative traits, two masks); return the .bed."""
    bed = folder / f"{name}.bed"
    if (folder / f"{name}.done").exists():
        return bed
    config = write_rare_fileset(bed, n_samples, n_variants, spectrum, n_traits=n_traits)
    bed.with_suffix(".masks.txt").write_text(TWO_MASKS)
    text = config.read_text().replace("  binary: [cc]\n", "")
    for suffix, (names, weights) in CONFIGS.items():
        (folder / f"{name}-{suffix}.yaml").write_text(text + TESTS.format(names=names, weights=weights))
    (folder / f"{name}.done").touch()
    return bed


def make_common(folder: Path, name: str, n_samples: int, n_variants: int) -> Path:
    """Write common variants (0.05 to 0.5, 0.1 % missing) and three sets of weights, ``name.weights.txt``."""
    bed = folder / f"{name}.bed"
    if (folder / f"{name}.done").exists():
        return bed
    rng = np.random.default_rng(3)
    ids = np.array([f"v{j}" for j in range(n_variants)])
    chromosome = 1 + np.arange(n_variants) * 22 // n_variants
    with open_writer(bed, [f"r{i}" for i in range(n_samples)]) as writer:
        for start in range(0, n_variants, 1000):
            rows = np.arange(start, min(start + 1000, n_variants))
            p = rng.uniform(0.05, 0.5, len(rows)).astype(np.float32)
            u = rng.random((n_samples, len(rows)), dtype=np.float32)
            dosage = (u < p * p).astype(np.int8) + (u < p * p + 2 * p * (1 - p)).astype(np.int8)
            dosage[rng.random(dosage.shape, dtype=np.float32) < 0.001] = -1
            table = {
                "chromosome": chromosome[rows],
                "position": 1000 + 100 * rows,
                "id": ids[rows],
                "a1": "A",
                "a2": "G",
            }
            writer.write_dosage(pd.DataFrame(table), dosage)
    weights = pd.DataFrame(rng.normal(0, 0.01, (n_variants, 3)), columns=["w1", "w2", "w3"])
    weights.insert(0, "A1", "A")
    weights.insert(0, "ID", ids)
    weights.to_csv(folder / f"{name}.weights.txt", sep="\t", index=False)
    (folder / f"{name}.done").touch()
    return bed


def make_all(folder: Path) -> None:
    """Write everything but the large fileset: about 1.2 GB."""
    folder.mkdir(parents=True, exist_ok=True)
    make_rare(folder, "tiny", 500, 200, 5)
    make_common(folder, "tiny-common", 500, 440)
    make_rare(folder, "reference", SAMPLES, VARIANTS)
    make_rare(folder, "five", SAMPLES, VARIANTS, 5)
    make_rare(folder, "growth", SAMPLES, VARIANTS // 2, spectrum="growth")
    make_common(folder, "common", SAMPLES, COMMON)
    for n in SCALING_SAMPLES:
        make_rare(folder, f"scale-{n}", n, 8_000)
