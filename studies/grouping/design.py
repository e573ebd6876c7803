"""What is simulated: 13 genes, five simulations, effect sizes, annotations, and the units of work."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from locomass.simulate.pool import Haplotypes, draw_cases, draw_people, simulate_haplotype_pool

Floats = NDArray[np.float64]
Booleans = NDArray[np.bool_]

#: variants that a sample of 2,000 people is expected to show, gene by gene
GENE_SIZES = (10, 13, 16, 20, 24, 28, 32, 36, 42, 48, 54, 60, 67)
TRAITS = ("quantitative", "case-control")
N_PEOPLE, N_HAPLOTYPES, GROWTH, COMMON = 2000, 20_000, 500.0, 0.05
#: share of the trait's variance that a causal gene explains; the variance of the log relative risk is twice that
EFFECTS = (0.004, 0.008, 0.016)


@dataclass(frozen=True)
class Scenario:
    """One of the simulations.

    Attributes:
        title: for tables.
        effect: per minor allele, ``inverse-sd`` (1/sqrt(q(1-q)): rarer is stronger) or ``constant``.
        max_maf: variants above it have no effect.
        protective: share of causal variants with a negative effect.
        accuracy: probability that a predictor calls a variant what it is.
        damaging: probability that a variant is damaging.
        strength: factor to the effects' variance.
        common: share of the gene's variance that common variants (MAF >= 5 %) carry, all of them causal; None:
            they are treated like the others.
        mixed: of the common variants every second one is causal, in either direction, instead of all in one.
    """

    title: str
    effect: str = "inverse-sd"
    max_maf: float = 0.5
    protective: float = 0.0
    accuracy: float = 0.8
    damaging: float = 0.5
    strength: float = 1.0
    common: float | None = None
    mixed: bool = False


SCENARIOS: dict[str, Scenario] = {
    "1": Scenario("rarer is stronger"),
    "1b": Scenario("rarer is stronger, one variant in six causal", damaging=1 / 6),
    "2": Scenario("constant effects, causal variants below 3 %", effect="constant", max_maf=0.03),
    "2b": Scenario("constant effects, one variant in six causal", effect="constant", max_maf=0.03, damaging=1 / 6),
    "3": Scenario("mixed directions", protective=0.5, strength=2.5),
    "4a": Scenario("function known well", accuracy=0.98),
    "4b": Scenario("function known badly", accuracy=0.6),
    "5": Scenario("common variants matter, all in one direction", common=0.8),
    "5b": Scenario("common variants matter, some in either direction", common=0.8, mixed=True),
}


@dataclass(frozen=True)
class Unit:
    """One replicate of one cell: all genes, each with a trait of its own. ``effect`` 0 is the null."""

    trait: str
    scenario: str
    effect: float
    replicate: int

    @property
    def cell(self) -> tuple[str, str, float]:
        """Trait, scenario and effect."""
        return self.trait, self.scenario, self.effect


@dataclass(frozen=True)
class Sample:
    """Genotypes (n, m) of minor alleles, trait (n,), cases or None, and the two predictors' calls (m,)."""

    G: Haplotypes
    y: Floats
    case: Booleans | None
    sift: Booleans
    polyphen: Booleans


def list_units(replicates: range, scenarios: tuple[str, ...] = tuple(SCENARIOS)) -> Iterator[Unit]:
    """Give the units of work, replicate after replicate; every replicate has three null units per trait."""
    for replicate in replicates:
        for trait in TRAITS:
            for k in range(3):
                yield Unit(trait, "1", 0.0, 3 * replicate + k)
            for scenario in scenarios:
                for effect in EFFECTS:
                    yield Unit(trait, scenario, effect, replicate)


def make_pools(
    seed: int, engine: str, sizes: tuple[int, ...] = GENE_SIZES, haplotypes: int = N_HAPLOTYPES
) -> list[Haplotypes]:
    """Return the haplotypes of each gene: sites in random order until 2,000 people are expected to show its size.

    Two or more of the sites are common, so that every gene has a part in simulation 5. The rarest allele of a pool has
    frequency 1/haplotypes: a small pool is a gene that few people were sequenced for, and has hardly any singletons.
    """
    return [_make_pool(np.random.default_rng([seed, g]), engine, size, haplotypes) for g, size in enumerate(sizes)]


def _make_pool(rng: np.random.Generator, engine: str, size: int, haplotypes: int) -> Haplotypes:
    """Return (H, m) haplotypes of one gene."""
    while True:
        sites = simulate_haplotype_pool(haplotypes, 5 * size, growth=GROWTH, engine=engine, rng=rng)
        order = rng.permutation(sites.shape[1])
        common = order[sites[:, order].mean(axis=0) >= COMMON][:2]
        order = np.concatenate((common, order[~np.isin(order, common)]))
        seen = np.cumsum(1 - (1 - sites[:, order].mean(axis=0)) ** (2 * N_PEOPLE))
        if len(common) == 2 and seen[-1] >= size:
            return np.ascontiguousarray(sites[:, np.sort(order[: int(np.searchsorted(seen, size)) + 1])])


def draw_effects(
    pool: Haplotypes, scenario: Scenario, variance: float, rng: np.random.Generator
) -> tuple[Floats, Booleans]:
    """Return effects per minor allele (m,), scaled to a variance, and which variants are damaging."""
    q = pool.mean(axis=0)
    damaging = rng.random(q.size) < scenario.damaging
    size = 1 / np.sqrt(q * (1 - q)) if scenario.effect == "inverse-sd" else np.ones(q.size)
    sign = np.where(rng.random(q.size) < scenario.protective, -1.0, 1.0)
    beta = np.where(damaging & (q <= scenario.max_maf), sign * size, 0.0)
    if scenario.common is None:
        return _scale(pool, beta, variance), damaging
    common = q >= COMMON
    rare = _scale(pool, np.where(common, 0.0, beta), (1 - scenario.common) * variance)
    if scenario.mixed:
        size = size * rng.choice((-1.0, 1.0), q.size)
        chosen = common & (rng.random(q.size) < 0.5)
        chosen[rng.choice(np.flatnonzero(common))] = True
        common = chosen
    return rare + _scale(pool, np.where(common, size, 0.0), scenario.common * variance), damaging


def _scale(pool: Haplotypes, beta: Floats, variance: float) -> Floats:
    """Scale effects so that the genotypes of random mating people have this variance, twice that of haplotypes."""
    now = 2 * float(np.var(pool @ beta))
    return beta * np.sqrt(variance / now) if now > 0 else beta


def draw_sample(pool: Haplotypes, unit: Unit, rng: np.random.Generator, n: int = N_PEOPLE) -> Sample:
    """Draw people, their trait and annotations; variants that nobody carries are left out."""
    scenario = SCENARIOS[unit.scenario]
    variance = scenario.strength * unit.effect
    beta, damaging = draw_effects(pool, scenario, variance if unit.trait == "quantitative" else 2 * variance, rng)
    if unit.trait == "quantitative":
        G, case = draw_people(pool, n, rng), None
        y = G @ beta + np.sqrt(1 - variance) * rng.standard_normal(n)
    else:
        G = np.concatenate((draw_cases(pool, beta, n // 2, rng), draw_people(pool, n - n // 2, rng)))
        case = np.arange(n) < n // 2
        y = case.astype(np.float64)
    # a variant rare in the pool stays the minor allele here but by chance
    major = G.mean(axis=0) > 1
    G[:, major] = 2 - G[:, major]
    calls = [damaging ^ (rng.random(len(damaging)) >= scenario.accuracy) for _ in range(2)]
    seen = G.any(axis=0)
    return Sample(G[:, seen], y, case, calls[0][seen], calls[1][seen])
