"""What `share: protected` costs in power; writes the table of docs/consortium.md.

    python -m studies.protection

A quantitative trait in 20,000 people, genes of 60 variants whose minor allele frequencies are log-uniform from 2e-5 to
2e-3 (in two categories), half of them causal with one sign or with both. U and V of the genes as they are and as they
are shared protected, by the functions that write bundles; power is the share of genes with p below 2.5e-6 by the burden
(equal weights) and by SKAT (Beta(1, 25) weights).
"""

from __future__ import annotations

import argparse
import math

import numpy as np

from locomass.gene_tests.chi_square_mixture import mixture_logsf_scalar
from locomass.gene_tests.tails import chi2_logsf
from locomass.numbers import Floats
from locomass.scores.protect import Calls, coarsen, hide_rare

N, M = 20_000, 60
LEVEL = math.log(2.5e-6)
CELLS = (5, 10, 20)
EFFECTS = {"one sign": (0.5, False), "both signs": (0.7, True)}  # effect of an allele in residual sd at frequency 1e-3


def draw_gene(rng: np.random.Generator) -> Floats:
    """Return genotypes (n, m) of a gene."""
    frequency = np.exp(rng.uniform(math.log(2e-5), math.log(2e-3), M))
    return rng.binomial(2, frequency, (N, M)).astype(np.float64)


def draw_trait(rng: np.random.Generator, G: Floats, size: float, both: bool) -> Floats:
    """Return residuals: half of the variants have effects that fall with the frequency, as sqrt(1e-3 / f) up to 2."""
    f = G.mean(axis=0) / 2
    beta = size * np.minimum(2.0, np.sqrt(1e-3 / np.maximum(f, 1e-6))) * 0.5 * (rng.random(M) < 0.5)
    if both:
        beta *= rng.choice([-1.0, 1.0], M)
    y = G @ beta + rng.standard_normal(N)
    return np.asarray(y - y.mean())


def protect(G: Floats, min_cell: int) -> Floats:
    """Return the genotypes of a gene as a protected bundle counts them: pseudo-variants last."""
    person, column = np.nonzero(G)
    calls = Calls(person, column, G[person, column].astype(np.int64))
    in_set = np.ones((N, 1), np.bool_)
    kept = coarsen(hide_rare(calls, np.arange(M) % 2, 2, in_set, min_cell), in_set, min_cell)
    shared = np.zeros((N, M + 2))
    shared[kept.person, kept.column] = kept.dosage
    return shared[:, shared.any(axis=0)]


def test_gene(G: Floats, y: Floats) -> tuple[float, float]:
    """Return log p of the burden and of SKAT."""
    U, sigma2 = G.T @ y, float(y @ y) / N
    centred = G - G.mean(axis=0)
    V = centred.T @ centred * sigma2
    if not len(U):
        return 0.0, 0.0
    burden = float(U.sum() ** 2 / V.sum())
    f = np.minimum(G.mean(axis=0) / 2, 0.5)
    w = 25 * (1 - f) ** 24
    eigenvalues = np.linalg.eigvalsh(w[:, None] * V * w)
    eigenvalues = eigenvalues[eigenvalues > 1e-10 * eigenvalues[-1]]
    skat = float(((w * U) ** 2).sum())
    return float(chi2_logsf(np.array([burden]))[0]), mixture_logsf_scalar(skat, eigenvalues)[0]


def main(genes: int, seed: int) -> None:
    """Print the table."""
    rng = np.random.default_rng(seed)
    print("| effects | shared | variants a gene | burden | SKAT |\n|---|---|---|---|---|")
    for name, (size, both) in EFFECTS.items():
        hits = {cell: np.zeros(3) for cell in (0, *CELLS)}
        for _ in range(genes):
            G = draw_gene(rng)
            y = draw_trait(rng, G, size, both)
            for cell in hits:
                shared = G[:, G.any(axis=0)] if cell == 0 else protect(G, cell)
                log_p = test_gene(shared, y)
                hits[cell] += [shared.shape[1], log_p[0] < LEVEL, log_p[1] < LEVEL]
        for cell, total in hits.items():
            columns, burden, skat = total / genes
            label = "exact" if cell == 0 else f"protected, min_cell {cell}"
            print(f"| {name} | {label} | {columns:.1f} | {100 * burden:.0f} % | {100 * skat:.0f} % |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--genes", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    main(arguments.genes, arguments.seed)
