"""What can be simulated: every parameter declared once, with its range, default and a line of help."""

from __future__ import annotations

import math
from enum import IntEnum
from typing import Annotated, Literal

import msgspec
import numpy as np
from msgspec import Meta

from locomass.errors import ConfigError

TRAITS = ("y", "cc")
#: bp that a gene occupies per variant; msprime's are drawn among all that arose there
GENE_BP_PER_VARIANT = {"built-in": 20, "msprime": 400}


class Parameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Parameters of `simulate_study`.

    The trait ``y`` is quantitative with variance 1; ``cc`` is binary, 1 where a liability of variance 1 passes the
    threshold of its prevalence. Each is the sum of covariates, a polygenic part, rare variants in a few causal genes
    and noise; the causal variants and genes of the two traits are drawn independently.
    """

    study_sizes: Annotated[
        list[Annotated[int, Meta(ge=20)]], Meta(min_length=1, description="samples of every study; one entry per study")
    ] = msgspec.field(default_factory=lambda: [1500, 1000])
    n_gwas: Annotated[
        int, Meta(ge=0, description="samples of the independent GWAS that gives summary statistics; 0: no GWAS")
    ] = 8000
    n_reference: Annotated[int, Meta(ge=20, description="samples of the LD reference fileset")] = 2000
    n_chromosomes: Annotated[int, Meta(ge=1, le=22, description="chromosomes, 1..22")] = 22
    common_per_chromosome: Annotated[int, Meta(ge=2, description="common ('array') variants per chromosome")] = 120
    spacing: Annotated[int, Meta(ge=100, description="mean distance of neighbouring common variants, bp")] = 10_000
    ld_decay: Annotated[float, Meta(gt=0, description="bp over which the latent LD of founders falls by e")] = 50_000.0
    n_founders: Annotated[int, Meta(ge=20, le=60_000, description="founder haplotypes that all people copy from")] = 400
    genes_per_chromosome: Annotated[int, Meta(ge=1, description="sequenced genes per chromosome")] = 5
    variants_per_gene: Annotated[int, Meta(ge=1, description="rare variants per gene")] = 25
    max_maf: Annotated[
        float, Meta(gt=0, le=0.5, description="largest ALT frequency of a rare variant among all sequenced people")
    ] = 0.05
    growth: Annotated[
        float,
        Meta(ge=0, description="exponential growth per 2 N0 generations; 0: constant size, more: more singletons"),
    ] = 2000.0
    h2: Annotated[float, Meta(ge=0, lt=1, description="variance of y, and of the liability, from common variants")] = (
        0.4
    )
    polygenicity: Annotated[float, Meta(gt=0, le=1, description="share of common variants with an effect")] = 0.5
    causal_genes: Annotated[int, Meta(ge=0, description="genes with an effect, per trait")] = 4
    gene_variance: Annotated[float, Meta(ge=0, lt=1, description="variance that each causal gene explains")] = 0.015
    causal_missense: Annotated[
        float,
        Meta(
            gt=0, le=1, description="share of missense variants of a causal gene with an effect; LoF: all, others: none"
        ),
    ] = 0.5
    effect_model: Annotated[
        Literal["constant", "log10-maf", "inverse-sd"],
        Meta(description="effect per rare allele: the same, as |log10 maf|, or as 1/sqrt(maf(1-maf))"),
    ] = "log10-maf"
    protective: Annotated[float, Meta(ge=0, le=1, description="share of causal rare variants of opposite sign")] = 0.0
    covariate_variance: Annotated[
        float, Meta(ge=0, lt=1, description="variance explained by age, sex, pc1 and pc2 together")
    ] = 0.1
    prevalence: Annotated[float, Meta(gt=0, lt=1, description="share of cases in the population")] = 0.3
    case_share: Annotated[
        Annotated[float, Meta(gt=0, lt=1)] | None,
        Meta(description="share of cases in every study, by ascertainment; as in the population when absent"),
    ] = None
    missing_calls: Annotated[float, Meta(ge=0, lt=1, description="share of missing genotype calls")] = 0.003
    missing_phenotypes: Annotated[float, Meta(ge=0, lt=1, description="share of missing phenotypes")] = 0.01
    absent: Annotated[
        float, Meta(ge=0, lt=1, description="share of variants left out of every study but the first")
    ] = 0.05
    swapped: Annotated[
        float, Meta(ge=0, le=1, description="share of variants written with A1 = REF in every study but the first")
    ] = 0.1
    engine: Annotated[
        Literal["built-in", "msprime"],
        Meta(description="genotypes: built-in, or msprime's coalescent with recombination (locomass[simulate])"),
    ] = "built-in"
    seed: Annotated[int, Meta(ge=0, description="seed of every random number")] = 1

    @property
    def n_genes(self) -> int:
        """Genes over all chromosomes."""
        return self.n_chromosomes * self.genes_per_chromosome

    @property
    def residual_variance(self) -> float:
        """Variance of y that is left for noise."""
        return 1.0 - self.h2 - self.covariate_variance - self.causal_genes * self.gene_variance


class Stream(IntEnum):
    """Independent streams of random numbers, so that one part may change without the others."""

    CHROMOSOME = 1
    GENEALOGY = 2
    ANNOTATION = 3
    EFFECT = 4
    PHENOTYPE = 5
    WRITING = 6


def make_rng(seed: int, stream: Stream, number: int = 0) -> np.random.Generator:
    """Return the generator of one stream; ``number`` tells chromosomes, genes or studies apart."""
    return np.random.default_rng([seed, int(stream), number])


def check_parameters(parameters: Parameters) -> None:
    """Raise ConfigError, naming the parameter, unless every value and their combination can be simulated."""
    try:
        msgspec.convert(msgspec.to_builtins(parameters), Parameters)
    except msgspec.ValidationError as error:
        message, _, where = str(error).partition(" - at `$.")
        raise ConfigError(f"simulation parameter {where.rstrip('`')}: {message}") from None
    p = parameters
    if not p.residual_variance > 0:
        raise ConfigError(
            f"h2 {p.h2} + covariate_variance {p.covariate_variance} + {p.causal_genes} causal_genes x gene_variance "
            f"{p.gene_variance} leave {p.residual_variance:.3g} of the variance 1 for noise; lower one of them"
        )
    if 2 * p.causal_genes > p.n_genes:
        raise ConfigError(f"causal_genes {p.causal_genes} for each of 2 traits, but there are only {p.n_genes} genes")
    room = p.spacing * p.common_per_chromosome / (p.genes_per_chromosome + 1)
    if GENE_BP_PER_VARIANT[p.engine] * p.variants_per_gene > room:
        raise ConfigError(
            f"{p.genes_per_chromosome} genes of {p.variants_per_gene} variants do not fit on a chromosome of "
            f"{p.common_per_chromosome} common variants {p.spacing} bp apart; raise common_per_chromosome or spacing"
        )
    if p.n_gwas and min(p.prevalence, 1.0 - p.prevalence) * p.n_gwas < 50:
        raise ConfigError(
            f"a GWAS of {p.n_gwas} with prevalence {p.prevalence} has fewer than 50 cases or controls; raise n_gwas, "
            "or set it to 0 for none"
        )
    n_haplotypes = 2 * sum(p.study_sizes)
    if math.floor(p.max_maf * n_haplotypes) < 1:
        raise ConfigError(f"max_maf {p.max_maf} allows no carrier among {n_haplotypes} haplotypes; raise it")
