"""Annotations, effects, traits and who is recruited into which study."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import special

from locomass.errors import ConfigError
from locomass.numbers import Floats
from locomass.simulate.genotypes import Chromosome
from locomass.simulate.parameters import TRAITS, Parameters, Stream, make_rng

CATEGORIES = ("LoF", "missense", "synonymous")
_CATEGORY_SHARES = (0.1, 0.55, 0.35)
#: Beta(a, b) of the deleteriousness score per category
_SCORE_SHAPES = {"LoF": (9.0, 1.0), "missense": (1.0, 1.0), "synonymous": (1.0, 9.0)}
#: scales and relative effects of the covariates; sex is coded 1 male, 2 female
_COVARIATE_EFFECTS = {"age": 0.7, "sex": 0.5, "pc1": 0.4, "pc2": 0.3}


@dataclass(frozen=True, slots=True)
class RareAnnotation:
    """What the rare variants of a chromosome do.

    Attributes:
        category: (K,) LoF, missense or synonymous.
        score: (K,) deleteriousness in [0, 1].
        causal: (K,) True where the variant acts if its gene does.
    """

    category: NDArray[np.str_]
    score: Floats
    causal: NDArray[np.bool_]


@dataclass(slots=True)
class CausalGene:
    """Effects of one causal gene, per ALT allele in units of the trait (liability of a binary one)."""

    gene: int
    chromosome: str
    variants: list[str]
    effects: list[float]


@dataclass(slots=True)
class GeneticValues:
    """Genetic parts of the traits, on the scale of a trait of variance 1.

    Attributes:
        polygenic: (T, n) of everybody, mean 0, variance h2.
        rare: (T, n_sequenced) sum over the causal genes, each of variance ``gene_variance``.
        causal_genes: per trait.
        causal_common: common variants with an effect, per trait.
    """

    polygenic: Floats
    rare: Floats
    causal_genes: list[list[CausalGene]]
    causal_common: list[int] = field(default_factory=lambda: [0] * len(TRAITS))


@dataclass(frozen=True, slots=True)
class People:
    """Covariates and complete traits of everybody.

    Attributes:
        covariates: (n,) columns age, sex (1 male, 2 female), pc1, pc2.
        y: (n,) quantitative trait, variance 1.
        liability: (n,) of the binary trait, variance 1.
        cc: (n,) True for cases.
    """

    covariates: dict[str, Floats]
    y: Floats
    liability: Floats
    cc: NDArray[np.bool_]


def annotate_rare(chromosome: Chromosome, p: Parameters) -> RareAnnotation:
    """Draw categories (10 % LoF, 55 % missense, 35 % synonymous), scores, and which variants act.

    A missense variant of score s acts with probability ``s^((1 - c) / c)``, whose mean is c = ``causal_missense``: a
    score is informative but no oracle. LoF variants always act, synonymous ones never. A gene without any has its
    highest score act.
    """
    rng = make_rng(p.seed, Stream.ANNOTATION, int(chromosome.label))
    category = rng.choice(CATEGORIES, len(chromosome.rare), p=_CATEGORY_SHARES)
    score = np.zeros(category.size)
    for name, (a, b) in _SCORE_SHAPES.items():
        score[category == name] = rng.beta(a, b, int((category == name).sum()))
    acts = rng.random(category.size) < score ** ((1.0 - p.causal_missense) / p.causal_missense)
    causal = (category == "LoF") | ((category == "missense") & acts)
    for _, rows in chromosome.genes():
        if not causal[rows].any():
            causal[rows[np.argmax(score[rows])]] = True
    return RareAnnotation(category, score, causal)


def draw_causal_genes(p: Parameters) -> list[set[int]]:
    """Return the numbers of the causal genes per trait; no gene acts on both."""
    rng = make_rng(p.seed, Stream.EFFECT)
    chosen = rng.choice(p.n_genes, len(TRAITS) * p.causal_genes, replace=False) if p.causal_genes else np.empty(0, int)
    return [set(part.tolist()) for part in np.split(chosen, len(TRAITS))]


def simulate_genetic_values(p: Parameters, chromosomes: Iterable[Chromosome]) -> GeneticValues:
    """Draw effects and sum the genetic parts of both traits in one pass over the chromosomes.

    A common variant has an effect with probability ``polygenicity``, from N(0, 1) per standard deviation of the
    genotype; the sum is scaled to variance h2 over everybody. Within a causal gene the effects per allele follow
    ``effect_model`` and are scaled so that the gene explains ``gene_variance`` over the sequenced people.
    """
    causal = draw_causal_genes(p)
    values: GeneticValues | None = None
    for chromosome in chromosomes:
        if values is None:
            shape = (len(TRAITS), chromosome.dosage.shape[1]), (len(TRAITS), chromosome.n_sequenced)
            values = GeneticValues(np.zeros(shape[0]), np.zeros(shape[1]), [[] for _ in TRAITS])
        _add_polygenic(p, chromosome, values)
        _add_rare(p, chromosome, causal, values)
    assert values is not None
    values.polygenic -= values.polygenic.mean(axis=1, keepdims=True)
    values.rare -= values.rare.mean(axis=1, keepdims=True)
    sd = values.polygenic.std(axis=1, keepdims=True)
    values.polygenic *= np.divide(np.sqrt(p.h2), sd, out=np.zeros_like(sd), where=sd > 0)
    return values


def _add_polygenic(p: Parameters, chromosome: Chromosome, values: GeneticValues) -> None:
    """Add the (unscaled) polygenic part of one chromosome."""
    rng = make_rng(p.seed, Stream.EFFECT, int(chromosome.label))
    shape = (len(TRAITS), len(chromosome.common))
    effect = np.where(rng.random(shape) < p.polygenicity, rng.standard_normal(shape), 0.0)
    dosage = chromosome.dosage.astype(np.float64)
    sd = dosage.std(axis=1)
    per_allele = np.divide(effect, sd, out=np.zeros(shape), where=sd > 0)
    values.polygenic += per_allele @ dosage
    for t in range(len(TRAITS)):
        values.causal_common[t] += int((effect[t] != 0).sum())


def _add_rare(p: Parameters, chromosome: Chromosome, causal: list[set[int]], values: GeneticValues) -> None:
    """Add the causal genes of one chromosome and record their effects."""
    annotation = annotate_rare(chromosome, p)
    keys = chromosome.rare.keys
    for gene, rows in chromosome.genes():
        for t in range(len(TRAITS)):
            if gene in causal[t]:
                acting = rows[annotation.causal[rows]]
                effect, part = _draw_gene_effects(p, chromosome, gene, acting)
                values.rare[t] += part
                names = [keys[row] for row in acting.tolist()]
                values.causal_genes[t].append(CausalGene(gene, chromosome.label, names, effect.tolist()))


def _draw_gene_effects(
    p: Parameters, chromosome: Chromosome, gene: int, acting: NDArray[np.int64]
) -> tuple[Floats, Floats]:
    """Return effects (m,) of the acting variants of a gene and the gene's part of the trait (n_sequenced,)."""
    dosage = chromosome.decode_rare(acting)
    frequency = dosage.mean(axis=1) / 2
    maf = np.minimum(frequency, 1.0 - frequency)
    size = {
        "constant": np.ones_like(maf),
        "log10-maf": -np.log10(maf),
        "inverse-sd": 1.0 / np.sqrt(maf * (1.0 - maf)),
    }[p.effect_model]
    # streams 1..22 of EFFECT are the chromosomes
    flipped = make_rng(p.seed, Stream.EFFECT, 100 + gene).random(maf.size) < p.protective
    effect = np.where(flipped, -size, size)
    part = effect @ dosage
    scale = np.sqrt(p.gene_variance) / part.std()
    return effect * scale, part * scale


def simulate_people(p: Parameters, values: GeneticValues) -> People:
    """Add covariates, noise and, for people who are not sequenced, noise of the variance of the rare variants.

    ``trait = covariates + polygenic + rare + noise`` has mean 0 and variance 1 in expectation; the covariates explain
    ``covariate_variance``. A case has a liability above the ``1 - prevalence`` quantile of N(0, 1).
    """
    rng = make_rng(p.seed, Stream.PHENOTYPE)
    n = values.polygenic.shape[1]
    standard = {
        "age": np.clip(rng.standard_normal(n), -2.5, 2.5),
        "sex": np.where(rng.random(n) < 0.5, -1.0, 1.0),
        "pc1": rng.standard_normal(n),
        "pc2": rng.standard_normal(n),
    }
    effects = np.array(list(_COVARIATE_EFFECTS.values()))
    effects *= np.sqrt(p.covariate_variance / (effects**2).sum())
    fixed = sum(b * standard[name] for name, b in zip(_COVARIATE_EFFECTS, effects, strict=True))
    noise = np.sqrt(p.residual_variance) * rng.standard_normal((len(TRAITS), n))
    total_rare = np.sqrt(p.causal_genes * p.gene_variance)
    rare = total_rare * rng.standard_normal((len(TRAITS), n))
    rare[:, : values.rare.shape[1]] = values.rare
    trait = fixed + values.polygenic + rare + noise
    covariates = {
        "age": np.round(55.0 + 10.0 * standard["age"], 1),
        "sex": np.where(standard["sex"] < 0, 1.0, 2.0),
        "pc1": np.round(standard["pc1"], 4),
        "pc2": np.round(standard["pc2"], 4),
    }
    return People(covariates, trait[0], trait[1], trait[1] > -special.ndtri(p.prevalence))


def count_candidates(p: Parameters) -> list[int]:
    """Return how many people to simulate for every study, so that ascertainment finds its cases and controls."""
    if p.case_share is None:
        return list(p.study_sizes)
    need = max(p.case_share / p.prevalence, (1.0 - p.case_share) / (1.0 - p.prevalence))
    return [int(np.ceil(size * need * 1.15 + 5.0 * np.sqrt(size * need))) for size in p.study_sizes]


def recruit(p: Parameters, people: People) -> list[NDArray[np.int64]]:
    """Return the people (increasing numbers) of every study.

    Without ``case_share`` a study takes its candidates as they come; with it, the first cases and controls among them.

    Raises:
        ConfigError: fewer cases or controls among the candidates than the study wants, which is very unlikely.
    """
    members, start = [], 0
    for size, candidates in zip(p.study_sizes, count_candidates(p), strict=True):
        who = np.arange(start, start + candidates)
        start += candidates
        if p.case_share is not None:
            n_cases = round(p.case_share * size)
            cases, controls = who[people.cc[who]][:n_cases], who[~people.cc[who]][: size - n_cases]
            if cases.size + controls.size < size:
                raise ConfigError(
                    f"found {cases.size} cases and {controls.size} controls for a study of {size}; change seed"
                )
            who = np.sort(np.concatenate((cases, controls)))
        members.append(who)
    return members
