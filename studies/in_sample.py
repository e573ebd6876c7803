"""What a cohort can predict of its own traits: R2 in new people of the in-sample mixture, of its ridge, of block ridge.

    python -m studies.in_sample --people 5000 --variants 22000

Twenty-two chromosomes of correlated variants (neighbours correlate by about 0.8 within blocks of 100), h2 0.4. The
weights that each method fits to everyone are scored in 2,000 new people; the last column is the out-of-fold R2 that the
method itself reports.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from locomass_predictors.block_ridge import GenotypeBlock, fit_block_ridge
from locomass_predictors.mixture import fit_mixture

CHROMOSOMES, BLOCK, NEW_PEOPLE, H2, DECAY = 22, 100, 2_000, 0.4, 0.8


def simulate_block(rng: np.random.Generator, n: int, m: int) -> NDArray[np.int8]:
    """Return (n, m) dosages from two autoregressive haplotypes."""
    cut = norm.ppf(rng.uniform(0.1, 0.5, m))
    G = np.zeros((n, m), np.int8)
    for _ in range(2):
        e = rng.standard_normal((n, m), dtype=np.float32)
        for j in range(1, m):
            e[:, j] = DECAY * e[:, j - 1] + np.sqrt(1 - DECAY**2) * e[:, j]
        G += e < cut
    return G


def compare(n: int, M: int, polygenicity: float, seed: int) -> list[tuple[str, float, float, float]]:
    """Return (method, R2 in new people, R2 that it reports, seconds of CPU)."""
    rng = np.random.default_rng(seed)
    per_block = [simulate_block(rng, n + NEW_PEOPLE, BLOCK) for _ in range(M // BLOCK)]
    chromosome = [str(1 + k * CHROMOSOMES // len(per_block)) for k in range(len(per_block))]
    effects = [np.where(rng.random(BLOCK) < polygenicity, rng.standard_normal(BLOCK), 0.0) for _ in per_block]
    scale = [1 / G.std(axis=0, dtype=np.float64) for G in per_block]
    genetic = sum(G @ (b * s) for G, b, s in zip(per_block, effects, scale, strict=True))
    y = np.sqrt(H2) * (genetic - genetic.mean()) / genetic.std() + np.sqrt(1 - H2) * rng.standard_normal(len(genetic))
    blocks = [
        GenotypeBlock(c, BLOCK, lambda G=G: G[:n].astype(np.float32))
        for c, G in zip(chromosome, per_block, strict=True)
    ]
    rows = []
    fits: dict[str, Any] = {
        "mixture": lambda: fit_mixture(blocks, y[:n, None], np.ones((n, 1)))[0],
        "block ridge": lambda: fit_block_ridge(blocks, y[:n, None], np.ones((n, 1)), nested=False)[0],
    }
    for name, fit in fits.items():
        start = time.process_time()
        found = fit()
        new = sum(G[n:] @ w for G, w in zip(per_block, found.weights, strict=True))
        r2 = float(np.corrcoef(new, y[n:])[0, 1] ** 2)
        rows.append((name, r2, float(found.record["r2_cross_validated"]), time.process_time() - start))
        if name == "mixture":
            rows.append(("its ridge alone", float("nan"), float(found.record["r2_ridge"]), 0.0))
    return rows


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=5_000)
    parser.add_argument("--variants", type=int, default=22_000)
    parser.add_argument("--polygenicity", type=float, nargs="+", default=[0.01, 1.0])
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    print(
        "| causal share | method | R2 in new people | R2 out of fold | CPU seconds |\n|---|---|---|---|---|", flush=True
    )
    for p in given.polygenicity:
        for name, r2, own, seconds in compare(given.people, given.variants, p, given.seed):
            new, cost = (f"{r2:.3f}", f"{seconds:.0f}") if np.isfinite(r2) else ("", "")
            print(f"| {p:g} | {name} | {new} | {own:.3f} | {cost} |", flush=True)


if __name__ == "__main__":
    main()
