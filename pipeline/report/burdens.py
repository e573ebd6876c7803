"""Burdens behind a gene's page: per study (forest), and without each variant, from the study bundles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pipeline.io.bundle import Bundle, StudyGene
from pipeline.io.catalogue import unordered_key
from pipeline.io.mask_variants import Membership
from pipeline.kernels.tails import chi2_logsf
from pipeline.report.quantiles import LN10
from pipeline.stages.meta.sums import SharedV, sum_studies
from pipeline.stages.meta.tasks import GeneRequest
from pipeline.stages.meta.unite import TraitGroup, UnionFrequency, UnionGene, group_traits, pool_frequencies, unite_gene

Floats = NDArray[np.float64]
Key = tuple[int, str, str]
STUDY_GENES_AT_ONCE = 2_000  # genes times studies in memory
MAX_VARIANTS = 1500  # a gene with more has no information matrix made for its page


@dataclass(frozen=True)
class StudyBurden:
    """One line of a forest plot: effect per minor allele, its standard error, polymorphic variants behind it."""

    study: str
    beta: float
    se: float
    n_variants: int


@dataclass(frozen=True)
class Burden:
    """The count burden of a mask's variants under a frequency bound.

    Attributes:
        trait, mask, bound: which; the mask is '' where it is not known and all variants are taken.
        pooled: over the studies.
        log10p: of the pooled burden.
        q, i2: Cochran's Q and the share of it beyond chance; NaN with fewer than two studies.
        studies: those with a polymorphic variant.
        member: (k,) places in the gene's variants.
        without: (k,) -log10 p of the burden without each of them.
    """

    trait: str
    mask: str
    bound: float
    pooled: StudyBurden
    log10p: float
    q: float
    i2: float
    studies: tuple[StudyBurden, ...]
    member: NDArray[np.int64]
    without: Floats


@dataclass(frozen=True)
class GeneVariants:
    """A gene on the union of the studies' variants: their labels, and the burdens asked for."""

    keys: list[Key]
    burdens: list[Burden]


@dataclass(frozen=True)
class Wanted:
    """A gene whose burdens are wanted.

    Attributes:
        gene, chromosome: which.
        burdens: (trait, mask, bound) of each.
        membership: masks of its listed variants; None where every variant counts.
    """

    gene: str
    chromosome: str
    burdens: tuple[tuple[str, str, float], ...]
    membership: Membership | None = None


def read_gene_burdens(bundles: Sequence[Bundle], genes: Sequence[Wanted]) -> dict[str, GeneVariants]:
    """Return variants and burdens of genes that the bundles know.

    Frequencies are pooled over the studies; the minor allele is counted.
    """
    groups = group_traits(bundles) if bundles else []
    at_once = max(1, STUDY_GENES_AT_ONCE // max(1, len(bundles)))
    out = {}
    for start in range(0, len(genes), at_once):
        batch = genes[start : start + at_once]
        known = [bundle.read_genes(wanted.gene for wanted in batch) for bundle in bundles]
        for wanted in batch:
            found = {k: genes_of[wanted.gene] for k, genes_of in enumerate(known) if wanted.gene in genes_of}
            if found:
                union = unite_gene(_request(wanted.gene, wanted.chromosome), found)
                keys = unordered_key(union.position, union.ref, union.alt)
                out[wanted.gene] = GeneVariants(keys, list(_burdens(bundles, union, keys, wanted, groups)))
    return out


def _request(gene: str, chromosome: str) -> GeneRequest:
    """Return a request for all variants that the studies have of a gene."""
    none = np.empty(0, np.int64)
    text, flag = np.empty(0, object), np.empty(0, np.bool_)
    return GeneRequest(gene, chromosome, 0, 0, none, text, text, np.empty((0, 0), np.bool_), {}, flag, is_region=True)


def _burdens(
    bundles: Sequence[Bundle], union: UnionGene, keys: list[Key], wanted: Wanted, groups: Sequence[TraitGroup]
) -> Iterator[Burden]:
    """Give the burdens of one gene."""
    if len(union.position) > MAX_VARIANTS:
        return
    everything = {k: np.ones(len(union.position), np.bool_) for k in union.studies}
    for group in groups:
        traits = tuple(t for t in group.traits if any(t == trait for trait, _, _ in wanted.burdens))
        studies = tuple(k for k in group.studies if k in union.studies and _has_statistics(union.studies[k][0]))
        if not traits or not studies:
            continue
        sets = tuple(s for k, s in zip(group.studies, group.sample_sets, strict=True) if k in studies)
        own = replace(group, traits=traits, studies=studies, sample_sets=sets)
        frequency = pool_frequencies(union, own, None)
        for shared in sum_studies(bundles, union, own, wanted.chromosome, everything):
            names = [bundles[k].study for k in studies]
            for trait, mask, bound in wanted.burdens:
                if trait in shared.traits:
                    member = _members(keys, wanted.membership, mask, frequency, bound)
                    label = mask if wanted.membership is not None else ""
                    yield from _one_burden(shared, shared.traits.index(trait), member, frequency, label, bound, names)


def _members(
    keys: list[Key], membership: Membership | None, mask: str, frequency: UnionFrequency, bound: float
) -> NDArray[np.int64]:
    """Return the places of the polymorphic variants of a mask whose minor allele frequency is within a bound."""
    f = frequency.frequency
    with np.errstate(invalid="ignore"):
        chosen = frequency.is_polymorphic & (np.minimum(f, 1 - f) * (1 - 1e-12) <= bound)
    if membership is not None:
        chosen &= np.array([mask in membership.masks.get(key, ()) for key in keys], np.bool_)
    return np.flatnonzero(chosen)


def _has_statistics(gene: StudyGene) -> bool:
    """Return whether the study has computed the gene."""
    return bool(gene.covariances)


def _one_burden(
    shared: SharedV,
    t: int,
    member: NDArray[np.int64],
    frequency: UnionFrequency,
    mask: str,
    bound: float,
    names: Sequence[str],
) -> Iterator[Burden]:
    """Give the burden of one trait, mask and bound, if it varies."""
    w = np.where(frequency.frequency[member] > 0.5, -1.0, 1.0)
    V = shared.V[np.ix_(member, member)] * shared.scale[t]
    U = shared.U[t, member]
    score, variance = float(w @ U), float(w @ V @ w)
    if not variance > 0:
        return
    studies = []
    for k, (Uk, Vk, scale) in enumerate(shared.per_study or ((shared.U, shared.V, shared.scale),)):
        Vk = Vk[np.ix_(member, member)] * scale[t]
        vk = float(w @ Vk @ w)
        if vk > 0:
            n = int(np.count_nonzero(np.diag(Vk) > 0))
            studies.append(StudyBurden(names[k], float(w @ Uk[t, member]) / vk, vk**-0.5, n))
    beta = score / variance
    q = sum((s.beta - beta) ** 2 / s.se**2 for s in studies) if len(studies) > 1 else float("nan")
    i2 = max(0.0, 1 - (len(studies) - 1) / q) if len(studies) > 1 and q > 0 else float("nan")
    rest = variance - 2 * w * (V @ w) + np.diag(V)
    left = rest > 1e-12 * variance  # nothing is left without the only informative variant
    z2 = np.divide((score - w * U) ** 2, rest, out=np.zeros_like(rest), where=left)
    yield Burden(
        shared.traits[t], mask, bound, StudyBurden("all", beta, variance**-0.5, len(member)),
        float(_log10p(np.array([score**2 / variance]))[0]), float(q), i2, tuple(studies), member,
        np.where(left, _log10p(z2), np.nan),
    )  # fmt: skip


def _log10p(chi2: Floats) -> Floats:
    """Return -log10 of the upper tail of chi2_1."""
    return -chi2_logsf(np.ascontiguousarray(chi2)) / LN10
