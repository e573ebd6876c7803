"""Step-up by permutation on the example of its authors' size, and a Gibbs sweep of LDpred2."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numba.typed import List as TypedList

from benchmarks.cases.base import Case
from benchmarks.measure import Result
from locomass.gene_tests.groupings import Search
from locomass.gene_tests.permutation import CarrierGenotypes, search_individuals
from locomass.gene_tests.permutation_trait import IndividualTrait
from locomass.gene_tests.resampling import Resampling
from locomass_predictors.gibbs import sweep_blocks

VARIANTS, SAMPLES, PERMUTATIONS = 67, 2_000, 100_000
BLOCKS, BLOCK, GENOME, SWEEPS = 300, 700, 1_050_000, 12


def step_up(folder: Path) -> Callable[[], Result]:
    """67 variants of frequency about 1/k in 2,000 people; empirical variance, signs from the data, both weights."""
    del folder
    rng = np.random.default_rng(67)
    counts = np.maximum(2, (0.08 * SAMPLES / np.arange(1, VARIANTS + 1)).astype(int))
    alleles = [np.bincount(rng.integers(0, SAMPLES, c), minlength=SAMPLES).clip(max=2) for c in counts]
    carriers = [np.flatnonzero(a) for a in alleles]
    genotypes = CarrierGenotypes(
        np.concatenate(([0], np.cumsum([len(c) for c in carriers]))).astype(np.int64), np.concatenate(carriers),
        np.concatenate([a[c] for a, c in zip(alleles, carriers, strict=True)]).astype(np.float64), SAMPLES,
    )  # fmt: skip
    trait = IndividualTrait(rng.normal(size=SAMPLES))

    def search(permutations: int) -> None:
        resampling = Resampling(max_permutations=permutations, exceedances=permutations)
        chosen = Search("step-up", None, "both", "data", "empirical")
        found = search_individuals(genotypes, trait, [chosen], resampling)["step-up"]
        assert found.detail.permutations[0] == permutations

    def run() -> Result:
        search(PERMUTATIONS)
        return {}

    search(100)
    return run


def sweep(folder: Path) -> Callable[[], Result]:
    """Seconds per sweep of 1.05 million variants in blocks of 700, a hundredth of them causal, from 210,000."""
    del folder
    rng = np.random.default_rng(1)
    lag = np.abs(np.subtract.outer(np.arange(BLOCK), np.arange(BLOCK)))
    R = np.where(lag == 0, 1.0, 0.3 * np.exp(-lag / 20)).astype(np.float32)
    m, p = BLOCKS * BLOCK, 0.01
    n = np.full(m, 300_000.0)
    effect = np.where(rng.random(m) < p, rng.standard_normal(m) * np.sqrt(0.1 / (m * p)), 0.0)
    beta_hat = (effect.reshape(BLOCKS, BLOCK) @ R).ravel() + rng.standard_normal(m) / np.sqrt(n)
    blocks = TypedList([R.copy() for _ in range(BLOCKS)])  # R must come from memory, not from the cache

    def run() -> Result:
        b, dot, total, quadratic, seconds = np.zeros(m), np.zeros(m), np.zeros(m), 0.0, []
        for _ in range(SWEEPS):
            start = time.process_time()
            _, quadratic = sweep_blocks(rng, blocks, beta_hat, n, b, dot, total, quadratic, 0.1, p, 0.95, False, True)
            seconds.append(time.process_time() - start)
        return {"seconds per sweep": np.array(min(seconds[2:]) * GENOME / m)}

    run()
    return run


CASES = [
    Case(
        "step-up by permutation", "searches", PERMUTATIONS,
        f"{VARIANTS} variants, {SAMPLES:,} samples, {PERMUTATIONS:,} permutations", step_up, once=True,
    ),
    Case("Gibbs sweep of LDpred2", "searches", GENOME, "1.05 million variants in blocks of 700", sweep, once=True),
]  # fmt: skip
