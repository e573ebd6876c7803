"""Genotypes from msprime's coalescent with recombination and growth; needs the extra ``locomass[simulate]``."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from locomass.errors import InputError
from locomass.simulate.genotypes import (
    FIRST_POSITION,
    Chromosome,
    GenePart,
    Variants,
    assemble_chromosome,
    draw_alleles,
)
from locomass.simulate.parameters import GENE_BP_PER_VARIANT, Parameters, Stream, make_rng

#: diploid size of the ancestral population, and rates per bp and generation
_ANCESTRAL_SIZE = 10_000
_RECOMBINATION = 1e-8
_MUTATION = 1.25e-8
#: growth began this many generations ago
_GROWTH_START = 300
_MIN_COMMON_MAF = 0.05


def import_msprime() -> Any:
    """Return the module msprime, or say how to install it."""
    try:
        import msprime
    except ImportError as error:
        raise InputError(
            f"engine 'msprime' needs msprime, which cannot be imported ({error}); "
            "install it with `pip install locomass[simulate]`, or use engine 'built-in'"
        ) from error
    return msprime


def simulate_with_msprime(p: Parameters, number: int, n_samples: int, n_sequenced: int) -> Chromosome:
    """Simulate one chromosome of ``common_per_chromosome * spacing`` bp.

    The population had 10,000 diploids until 300 generations ago and then grew to ``10,000 (1 + growth / 10)``
    exponentially. Common variants are drawn from those with MAF >= 5 %; the variants of a gene from those that its
    interval has with 1 to ``max_maf`` carriers among the sequenced haplotypes. Sites hit by one mutation only.

    Raises:
        InputError: msprime is absent, or the chromosome has too few variants of either kind (with the remedy).
    """
    msprime = import_msprime()
    rng = make_rng(p.seed, Stream.CHROMOSOME, number)
    length = p.common_per_chromosome * p.spacing
    trees = _simulate_trees(msprime, p.growth, length, n_samples, rng)
    position, total, sequenced = _count_alleles(trees, 2 * n_sequenced)
    maf = np.minimum(total, 2 * n_samples - total) / (2 * n_samples)
    common = np.flatnonzero(maf >= _MIN_COMMON_MAF)
    _require(common.size, p.common_per_chromosome, f"common variants on chromosome {number}")
    common = np.sort(rng.choice(common, p.common_per_chromosome, replace=False))
    rare = (sequenced >= 1) & (sequenced <= max(1, int(p.max_maf * 2 * n_sequenced)))
    rare[common] = False
    genes = [_choose_gene(p, number, g, length, position, rare, rng) for g in range(p.genes_per_chromosome)]
    chosen = np.concatenate([common, *genes])
    haplotypes = _decode_sites(trees, position[chosen])
    dosage = haplotypes[: common.size, ::2] + haplotypes[: common.size, 1::2]
    parts, start = [], common.size
    for rows in genes:
        both = haplotypes[start : start + rows.size, : 2 * n_sequenced]
        parts.append(_collect_part(FIRST_POSITION + position[rows], both[:, ::2] + both[:, 1::2]))
        start += rows.size
    variants = Variants(str(number), FIRST_POSITION + position[common], *draw_alleles(common.size, rng))
    return assemble_chromosome(variants, dosage, parts, (number - 1) * p.genes_per_chromosome, n_sequenced, rng)


def simulate_region(n_samples: int, length: int, growth: float, rng: np.random.Generator) -> NDArray[np.int8]:
    """Return derived alleles (sites, 2n) of a region of ``length`` bp; sites hit by one mutation only, by position.

    Demography and rates as in `simulate_with_msprime`.

    Raises:
        InputError: msprime is absent.
    """
    trees = _simulate_trees(import_msprime(), growth, length, n_samples, rng)
    once = np.array([len(site.mutations) == 1 for site in trees.sites()], dtype=np.bool_)
    alleles: NDArray[np.int8] = trees.genotype_matrix()[once].astype(np.int8)
    return alleles


def _simulate_trees(msprime: Any, growth: float, length: int, n_samples: int, rng: np.random.Generator) -> Any:
    """Return a tree sequence with mutations."""
    seeds = rng.integers(1, 2**31 - 1, size=2).tolist()
    size = _ANCESTRAL_SIZE * (1.0 + growth / 10.0)
    rate = float(np.log(size / _ANCESTRAL_SIZE) / _GROWTH_START)
    demography = msprime.Demography()
    demography.add_population(initial_size=size, growth_rate=rate)
    if rate > 0:
        demography.add_population_parameters_change(time=_GROWTH_START, initial_size=_ANCESTRAL_SIZE, growth_rate=0)
    trees = msprime.sim_ancestry(
        n_samples,
        demography=demography,
        sequence_length=length,
        recombination_rate=_RECOMBINATION,
        random_seed=seeds[0],
    )
    return msprime.sim_mutations(trees, rate=_MUTATION, random_seed=seeds[1], model=msprime.BinaryMutationModel())


def _count_alleles(trees: Any, n_tracked: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return positions of sites with one mutation, and its carriers among all and among the first haplotypes."""
    rows = [
        (int(site.position), tree.num_samples(site.mutations[0].node), tree.num_tracked_samples(site.mutations[0].node))
        for tree in trees.trees(tracked_samples=np.arange(n_tracked))
        for site in tree.sites()
        if len(site.mutations) == 1
    ]
    table = np.array(rows, dtype=np.int64).reshape(-1, 3)
    return table[:, 0], table[:, 1], table[:, 2]


def _choose_gene(
    p: Parameters,
    number: int,
    gene: int,
    length: int,
    position: NDArray[np.int64],
    rare: NDArray[np.bool_],
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Return the sites of one gene, ascending, drawn among the rare ones of its interval.

    The interval grows, at most to the next gene, where the people sequenced show too few rare sites in it.
    """
    room = length / (p.genes_per_chromosome + 1)
    start = room * (gene + 1)
    after = np.flatnonzero(rare & (position >= start) & (position < start + room))
    inside = after[position[after] < start + GENE_BP_PER_VARIANT["msprime"] * p.variants_per_gene]
    if inside.size < p.variants_per_gene:
        inside = after[: p.variants_per_gene]
    _require(inside.size, p.variants_per_gene, f"rare variants in gene {gene + 1} of chromosome {number}")
    return np.sort(rng.choice(inside, p.variants_per_gene, replace=False))


def _require(found: int, wanted: int, what: str) -> None:
    """Raise when the coalescent left fewer sites than wanted."""
    if found < wanted:
        raise InputError(f"msprime made {found} {what}, {wanted} are wanted; raise spacing, max_maf or the sample size")


def _decode_sites(trees: Any, position: NDArray[np.int64]) -> NDArray[np.int8]:
    """Return (len(position), 2n) derived-allele indicators in the order of ``position``, which may repeat none."""
    order = np.argsort(position)
    wanted = set(position.tolist())
    drop = [site.id for site in trees.sites() if int(site.position) not in wanted]
    matrix: NDArray[np.int8] = trees.delete_sites(drop, record_provenance=False).genotype_matrix().astype(np.int8)
    out = np.empty_like(matrix)
    out[order] = matrix
    return out


def _collect_part(position: NDArray[np.int64], dosage: NDArray[np.int8]) -> GenePart:
    """Return positions and carriers of one gene."""
    variant, sample = np.nonzero(dosage)
    indptr = np.concatenate(([0], np.cumsum(np.bincount(variant, minlength=position.size)))).astype(np.int64)
    return position, indptr, sample.astype(np.int32), dosage[variant, sample]
