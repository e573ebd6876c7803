"""Genotypes chromosome by chromosome: common variants of everybody, rare variants in genes of the sequenced people."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from locomass.simulate.haplotypes import (
    collect_carriers,
    copy_founders,
    order_leaves,
    simulate_clades,
    simulate_founders,
)
from locomass.simulate.parameters import GENE_BP_PER_VARIANT, Parameters, Stream, check_parameters, make_rng

FIRST_POSITION = 1_000_000
#: people copy one founder over this many times the distance over which founders' LD falls by e
_TRACT = 10.0
#: REF, ALT pairs that stay distinct on the other strand, transitions twice as often
_ALLELES = np.array(["AG", "GA", "CT", "TC"] * 2 + ["AC", "CA", "GT", "TG"])


@dataclass(frozen=True, slots=True)
class Variants:
    """m variants of one chromosome.

    Attributes:
        chromosome: label, without ``chr``.
        position: (m,) bp, increasing.
        ref, alt: (m,) alleles.
    """

    chromosome: str
    position: NDArray[np.int64]
    ref: NDArray[np.str_]
    alt: NDArray[np.str_]

    def __len__(self) -> int:
        return int(self.position.size)

    @property
    def keys(self) -> list[str]:
        """``chrom:pos:ref:alt`` of every variant."""
        columns = zip(self.position.tolist(), self.ref.tolist(), self.alt.tolist(), strict=True)
        return [f"{self.chromosome}:{position}:{ref}:{alt}" for position, ref, alt in columns]

    def take(self, rows: NDArray[np.int64]) -> Variants:
        """Return chosen variants."""
        return Variants(self.chromosome, self.position[rows], self.ref[rows], self.alt[rows])

    def make_table(self, rows: NDArray[np.int64], swapped: NDArray[np.bool_]) -> pd.DataFrame:
        """Return chosen variants as a .bim table, A1 = ALT but where ``swapped``."""
        ref, alt, keys = self.ref[rows], self.alt[rows], self.keys
        return pd.DataFrame(
            {
                "chromosome": self.chromosome,
                "position": self.position[rows],
                "id": [keys[row] for row in rows.tolist()],
                "a1": np.where(swapped, ref, alt),
                "a2": np.where(swapped, alt, ref),
            }
        )


@dataclass(frozen=True, slots=True)
class Chromosome:
    """Genotypes of one chromosome; ALT is counted.

    Attributes:
        common: m common variants.
        dosage: (m, n) ALT counts of everybody, variant-major.
        rare: K rare variants, genes one after another.
        gene: (K,) number of the gene, counted over the genome.
        indptr, sample, count: carriers of the rare variants among the sequenced people, who are the first of
            everybody: variant j is carried by ``sample[indptr[j]:indptr[j + 1]]``, with ``count`` copies.
        n_sequenced: sequenced people.
    """

    common: Variants
    dosage: NDArray[np.int8]
    rare: Variants
    gene: NDArray[np.int64]
    indptr: NDArray[np.int64]
    sample: NDArray[np.int32]
    count: NDArray[np.int8]
    n_sequenced: int

    @property
    def label(self) -> str:
        """Chromosome label."""
        return self.common.chromosome

    def decode_rare(self, rows: NDArray[np.int64]) -> NDArray[np.int8]:
        """Return dense ALT counts (len(rows), n_sequenced) of chosen rare variants."""
        out = np.zeros((rows.size, self.n_sequenced), np.int8)
        for k, row in enumerate(rows.tolist()):
            part = slice(self.indptr[row], self.indptr[row + 1])
            out[k, self.sample[part]] = self.count[part]
        return out

    def genes(self) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """Yield (gene, rows of ``rare``) of every gene."""
        for gene in np.unique(self.gene).tolist():
            yield gene, np.flatnonzero(self.gene == gene)


def simulate_genotypes(parameters: Parameters, n_samples: int, n_sequenced: int | None = None) -> Iterator[Chromosome]:
    """Simulate genotypes of n people, one chromosome at a time, so memory holds one.

    Built-in engine: common variants by `simulate_founders` and `copy_founders` (ALT is the minor allele of 4 in 5),
    rare variants by `simulate_clades` with the leaves in the order of the local founder, so that the carriers of a
    rare variant share a common-variant background. With ``engine="msprime"``: the coalescent with recombination and
    growth.

    A chromosome depends on the parameters, the seed and the two numbers of people only.

    Args:
        parameters: what to simulate.
        n_samples: n, people with common variants.
        n_sequenced: the first of them, who also have rare variants; everybody when absent.

    Yields:
        One `Chromosome` per chromosome.

    Raises:
        ConfigError: parameters out of range.
        InputError: ``engine="msprime"`` without msprime.
    """
    check_parameters(parameters)
    sequenced = n_samples if n_sequenced is None else n_sequenced
    if not 0 < sequenced <= n_samples:
        raise ValueError(f"n_sequenced must be in 1..{n_samples}, got {sequenced}")
    for number in range(1, parameters.n_chromosomes + 1):
        if parameters.engine == "msprime":
            from locomass.simulate.coalescent import simulate_with_msprime

            yield simulate_with_msprime(parameters, number, n_samples, sequenced)
        else:
            yield _simulate_built_in(parameters, number, n_samples, sequenced)


def _simulate_built_in(p: Parameters, number: int, n_samples: int, n_sequenced: int) -> Chromosome:
    """Simulate one chromosome with the built-in engine."""
    rng = make_rng(p.seed, Stream.CHROMOSOME, number)
    position = _draw_positions(p, rng)
    maf = rng.uniform(0.05, 0.5, position.size)
    frequency = np.where(rng.random(position.size) < 0.2, 1.0 - maf, maf)
    founders = simulate_founders(position, frequency, p.n_founders, p.ld_decay, rng)
    switch = 1.0 - np.exp(-np.diff(position, prepend=position[0]) / (_TRACT * p.ld_decay))
    starts = _place_genes(p, position)
    loci = np.searchsorted(position, starts, side="right") - 1
    dosage, copied = copy_founders(founders, switch, n_samples, loci.tolist(), rng)
    common = Variants(str(number), position, *draw_alleles(position.size, rng))
    first_gene = (number - 1) * p.genes_per_chromosome
    people = np.concatenate((np.arange(n_sequenced), n_samples + np.arange(n_sequenced)))
    parts = [
        _simulate_gene(p, first_gene + g, int(starts[g]), copied[int(loci[g])][people], n_sequenced)
        for g in range(p.genes_per_chromosome)
    ]
    return assemble_chromosome(common, dosage, parts, first_gene, n_sequenced, rng)


#: positions, indptr, sample, dosage of one gene
GenePart = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32], NDArray[np.int8]]


def _simulate_gene(p: Parameters, gene: int, start: int, copied: NDArray[np.uint16], n_sequenced: int) -> GenePart:
    """Simulate the rare variants of one gene on the haplotypes that the sequenced people copy there."""
    rng = make_rng(p.seed, Stream.GENEALOGY, gene)
    n_haplotypes = 2 * n_sequenced
    max_count = max(1, int(p.max_maf * n_haplotypes))
    first, size = simulate_clades(n_haplotypes, p.variants_per_gene, p.growth, max_count, rng)
    carriers = collect_carriers(first, size, order_leaves(copied, rng), n_sequenced)
    # common variants stand at multiples of 10, rare ones between them
    room = GENE_BP_PER_VARIANT["built-in"] * p.variants_per_gene * 9 // 10
    offset = rng.choice(room, p.variants_per_gene, replace=False)
    offset.sort()
    return (start + 10 * (offset // 9) + 1 + offset % 9, *carriers)


def assemble_chromosome(
    common: Variants,
    dosage: NDArray[np.int8],
    parts: list[GenePart],
    first_gene: int,
    n_sequenced: int,
    rng: np.random.Generator,
) -> Chromosome:
    """Join the genes of a chromosome to one list of rare variants with random alleles."""
    position = np.concatenate([part[0] for part in parts]) if parts else np.empty(0, np.int64)
    gene = np.repeat(first_gene + np.arange(len(parts)), [part[0].size for part in parts])
    per_variant = np.concatenate([np.diff(part[1]) for part in parts]) if parts else np.empty(0, np.int64)
    sample = np.concatenate([part[2] for part in parts]) if parts else np.empty(0, np.int32)
    count = np.concatenate([part[3] for part in parts]) if parts else np.empty(0, np.int8)
    indptr = np.concatenate(([0], np.cumsum(per_variant))).astype(np.int64)
    rare = Variants(common.chromosome, position, *draw_alleles(position.size, rng))
    return Chromosome(
        common=common,
        dosage=dosage,
        rare=rare,
        gene=gene.astype(np.int64),
        indptr=indptr,
        sample=sample,
        count=count,
        n_sequenced=n_sequenced,
    )


def draw_alleles(n_variants: int, rng: np.random.Generator) -> tuple[NDArray[np.str_], NDArray[np.str_]]:
    """Return random REF and ALT bases, never a pair that looks alike on the other strand."""
    pairs = rng.choice(_ALLELES, n_variants)
    letters = pairs.view("U1").reshape(n_variants, 2) if n_variants else np.empty((0, 2), "U1")
    return letters[:, 0].copy(), letters[:, 1].copy()


def _draw_positions(p: Parameters, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return positions of the common variants, multiples of 10."""
    steps = rng.uniform(0.5, 1.5, p.common_per_chromosome) * p.spacing / 10
    return np.asarray(FIRST_POSITION + 10 * np.cumsum(np.maximum(1, steps).astype(np.int64)))


def _place_genes(p: Parameters, position: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the first bp of every gene, multiples of 10, evenly spread between the common variants."""
    share = np.arange(1, p.genes_per_chromosome + 1) / (p.genes_per_chromosome + 1)
    return np.asarray((position[0] + share * (position[-1] - position[0])).astype(np.int64) // 10 * 10)
