"""Pools of haplotypes of one gene, rare and common variants alike, and people drawn from them."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from locomass.errors import ConfigError, InputError
from locomass.numbers import Floats
from locomass.simulate.haplotypes import simulate_clades
from locomass.simulate.parameters import GENE_BP_PER_VARIANT

Haplotypes = NDArray[np.int8]


def simulate_haplotype_pool(
    n_haplotypes: int,
    n_variants: int,
    *,
    growth: float = 2000.0,
    engine: Literal["built-in", "msprime"] = "built-in",
    rng: np.random.Generator,
) -> Haplotypes:
    """Simulate the haplotypes of a gene: every frequency, as deep sequencing would see them.

    Built-in: one genealogy with growth and without recombination (`simulate_clades`), so r2 between variants is that
    of nested clades. msprime: coalescent with recombination and growth over ``400 n_variants`` bp, of whose sites
    n_variants are drawn.

    Args:
        n_haplotypes: H, even.
        n_variants: m.
        growth: exponential growth per 2 N0 generations, as in `Parameters`.
        engine: where the genealogy comes from.
        rng: random numbers.

    Returns:
        (H, m) 1 where a haplotype carries the minor allele, variants in the order of their place on the gene (msprime)
        or of their drawing (built-in).

    Raises:
        ConfigError: numbers out of range, or an unknown engine.
        InputError: msprime is absent, or its region has fewer sites.
    """
    if n_haplotypes < 2 or n_haplotypes % 2 or n_variants < 1 or growth < 0:
        raise ConfigError(
            "a pool needs an even number of haplotypes, one variant or more and growth >= 0; got "
            f"{n_haplotypes}, {n_variants} and {growth}"
        )
    if engine == "built-in":
        first, size = simulate_clades(n_haplotypes, n_variants, growth, n_haplotypes // 2, rng)
        leaf = np.arange(n_haplotypes)
        inside = (leaf[:, None] >= first) & (leaf[:, None] < first + size)
        return inside[rng.permutation(n_haplotypes)].astype(np.int8)
    if engine != "msprime":
        raise ConfigError(f"engine '{engine}' is unknown; expected built-in or msprime")
    from locomass.simulate.coalescent import simulate_region

    sites = simulate_region(n_haplotypes // 2, GENE_BP_PER_VARIANT["msprime"] * n_variants, growth, rng)
    if len(sites) < n_variants:
        raise InputError(f"msprime made {len(sites)} sites, {n_variants} are wanted; raise growth or the haplotypes")
    chosen = sites[np.sort(rng.choice(len(sites), n_variants, replace=False))]
    major = chosen.mean(axis=1) > 0.5
    chosen[major] = 1 - chosen[major]
    return np.ascontiguousarray(chosen.T)


def draw_people(pool: Haplotypes, n_samples: int, rng: np.random.Generator) -> Haplotypes:
    """Return (n, m) minor-allele counts of people whose two haplotypes are drawn from a pool with replacement."""
    pairs = rng.integers(pool.shape[0], size=(2, n_samples))
    people: Haplotypes = pool[pairs[0]] + pool[pairs[1]]
    return people


def draw_cases(pool: Haplotypes, log_risk: Floats, n_cases: int, rng: np.random.Generator) -> Haplotypes:
    """Return (n, m) minor-allele counts of cases of a rare disease whose risk alleles multiply.

    With ``P(case | g) ~ exp(sum_j g_j b_j)`` and random mating, the two haplotypes of a case are independent and
    haplotype h is drawn with probability proportional to ``exp(sum_j h_j b_j)``; controls of a rare disease are
    people as they come (`draw_people`).

    Args:
        pool: (H, m) haplotypes.
        log_risk: (m,) b, logarithm of the relative risk per minor allele.
        n_cases: n.
        rng: random numbers.
    """
    log_weight = pool @ log_risk
    weight = np.cumsum(np.exp(log_weight - log_weight.max()))
    pairs = np.searchsorted(weight, rng.random((2, n_cases)) * weight[-1], side="right")
    cases: Haplotypes = pool[pairs[0]] + pool[pairs[1]]
    return cases
