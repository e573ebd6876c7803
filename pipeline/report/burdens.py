"""Burdens behind a gene's page: per study (forest), and without each variant, from the study bundles.

Variants are chosen, counted and calibrated by the rules of the gene tests: the pooled line of a forest is the row
`burden (flat)` of gene_tests.parquet.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from pipeline.config import Tests
from pipeline.io.bundle import Bundle, StudyGene
from pipeline.io.catalogue import ALL_VARIANTS, unordered_key
from pipeline.io.mask_variants import Membership
from pipeline.kernels.selection import turn_statistics
from pipeline.kernels.tails import chi2_logsf
from pipeline.report.quantiles import LN10
from pipeline.stages.meta.evaluate import calibrate_burden
from pipeline.stages.meta.selection import CountedAllele, Selection, bounded_frequency, included_variants
from pipeline.stages.meta.sums import SharedV, sum_studies
from pipeline.stages.meta.tasks import GeneRequest
from pipeline.stages.meta.unite import TraitGroup, UnionFrequency, UnionGene, group_traits, pool_frequencies, unite_gene

Floats = NDArray[np.float64]
Key = tuple[int, str, str]
STUDY_GENES_AT_ONCE = 2_000  # genes times studies in memory
MAX_VARIANTS = 1500  # a gene with more has no information matrix made for its page


@dataclass(frozen=True)
class Rules:
    """What the gene tests of a results folder went by.

    Attributes:
        tests: the configuration's section.
        maf: frequency policy: joint, study or external.
    """

    tests: Tests = field(default_factory=Tests)
    maf: str = "joint"

    @classmethod
    def of(cls, configuration: Mapping[str, Any]) -> Rules:
        """Return the rules of a configuration as provenance.json keeps it; the defaults where it says nothing."""
        maf = configuration.get("maf", "joint")
        try:
            tests = msgspec.convert(configuration.get("tests", {}), Tests)
        except msgspec.ValidationError:  # of another version
            tests = Tests()
        return cls(tests, maf if isinstance(maf, str) else "external")

    def describe(self) -> str:
        """Return the frequency that bounds a bin, in words."""
        which = "external" if self.maf == "external" else "pooled"
        name = "minor allele frequency" if self.tests.frequency == "maf" else "ALT allele frequency"
        alone = "; a study adds only variants that are rare in it" if self.maf == "study" else ""
        return f"{which} {name}{alone}"


DEFAULT_RULES = Rules()


@dataclass(frozen=True)
class StudyBurden:
    """One line of a forest plot: effect per counted allele, its standard error, polymorphic variants behind it."""

    study: str
    beta: float
    se: float
    n_variants: int


@dataclass(frozen=True)
class Burden:
    """The count burden of a mask's variants under a frequency bound.

    Attributes:
        trait, mask, bound: which; the mask is '' where all variants of the gene are taken.
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
        listed: its listed variants; None for a region, whose variants are all that the studies have.
    """

    gene: str
    chromosome: str
    burdens: tuple[tuple[str, str, float], ...]
    listed: Membership | None = None


def read_gene_burdens(
    bundles: Sequence[Bundle], genes: Sequence[Wanted], rules: Rules = DEFAULT_RULES
) -> dict[str, GeneVariants]:
    """Return variants and burdens of genes that the bundles know."""
    groups = group_traits(bundles) if bundles else []
    at_once = max(1, STUDY_GENES_AT_ONCE // max(1, len(bundles)))
    out = {}
    for start in range(0, len(genes), at_once):
        batch = genes[start : start + at_once]
        known = [bundle.read_genes(wanted.gene for wanted in batch) for bundle in bundles]
        for wanted in batch:
            found = {k: genes_of[wanted.gene] for k, genes_of in enumerate(known) if wanted.gene in genes_of}
            if found:
                union = unite_gene(_request(wanted), found)
                keys = unordered_key(union.position, union.ref, union.alt)
                out[wanted.gene] = GeneVariants(keys, list(_burdens(bundles, union, wanted, groups, rules)))
    return out


def _request(wanted: Wanted) -> GeneRequest:
    """Return a request for the listed variants of a gene, or for all that the studies have of a region."""
    position, ref, alt = np.empty(0, np.int64), np.empty(0, object), np.empty(0, object)
    if wanted.listed is not None:
        position, ref, alt = wanted.listed.position, wanted.listed.ref, wanted.listed.alt
    return GeneRequest(
        wanted.gene, wanted.chromosome, 0, 0, position, ref, alt, np.ones((1, len(position)), np.bool_), {},
        np.ones(len(position), np.bool_), is_region=wanted.listed is None,
    )  # fmt: skip


def _burdens(
    bundles: Sequence[Bundle], union: UnionGene, wanted: Wanted, groups: Sequence[TraitGroup], rules: Rules
) -> Iterator[Burden]:
    """Give the burdens of one gene."""
    if len(union.position) > MAX_VARIANTS:
        return
    for group in groups:
        traits = tuple(t for t in group.traits if any(t == trait for trait, _, _ in wanted.burdens))
        studies = tuple(k for k in group.studies if k in union.studies and _has_statistics(union.studies[k][0]))
        if not traits or not studies:
            continue
        sets = tuple(s for k, s in zip(group.studies, group.sample_sets, strict=True) if k in studies)
        own = replace(group, traits=traits, studies=studies, sample_sets=sets)
        external = wanted.listed.external if rules.maf == "external" and wanted.listed is not None else None
        frequency = pool_frequencies(union, own, external)
        included = included_variants(union, frequency, rules.tests, rules.maf)
        for shared in sum_studies(bundles, union, own, wanted.chromosome, included, rules.tests.calibrate):
            counted = CountedAllele.of(frequency, rules.tests.frequency)
            view = _View(bundles, union, wanted.listed, counted, shared, studies)
            for trait, mask, bound in wanted.burdens:
                if trait in shared.traits:
                    selection = _select(union, frequency, wanted.listed, mask, bound, rules.tests.frequency)
                    yield from _one_burden(view, shared.traits.index(trait), selection)


@dataclass(frozen=True)
class _View:
    """A gene as traits that share V see it over their studies."""

    bundles: Sequence[Bundle]
    union: UnionGene
    listed: Membership | None
    counted: CountedAllele
    shared: SharedV
    studies: tuple[int, ...]


def _select(
    union: UnionGene, frequency: UnionFrequency, listed: Membership | None, mask: str, bound: float, rule: str
) -> Selection:
    """Return the polymorphic variants of a mask within a bound; of a region, all are in the mask."""
    with np.errstate(invalid="ignore"):
        chosen = frequency.is_polymorphic & (bounded_frequency(frequency.frequency, rule) <= bound)
    if listed is not None:
        chosen &= listed.members(mask)[union.listed]
    places = np.flatnonzero(chosen)
    return Selection(mask, bound, places, places)


def _has_statistics(gene: StudyGene) -> bool:
    """Return whether the study has computed the gene."""
    return bool(gene.covariances)


def _one_burden(view: _View, t: int, selection: Selection) -> Iterator[Burden]:
    """Give the burden of one trait, mask and bound, if it varies."""
    shared, member, turn = view.shared, selection.in_bin, view.counted.turn
    if not len(member):
        return
    genes = {k: view.union.studies[k][0] for k in view.studies}
    correction, _ = calibrate_burden(view.bundles, genes, view.counted, shared, selection)
    rows = shared.find_rows(member)
    scores, V = turn_statistics(shared.U, shared.V * (shared.scale[t] / correction), member, rows, turn)
    U = scores[t]
    score, variance = float(U.sum()), float(V.sum())
    if not variance > 0:
        return
    studies, parts = [], shared.per_study or ((shared.U, shared.V, shared.scale),)
    for k, (U_k, V_k, scale) in zip(view.studies, parts, strict=True):
        own, V_own = turn_statistics(U_k, V_k * (scale[t] / correction), member, rows, turn)
        v = float(V_own.sum())
        if v > 0:
            n = int(np.count_nonzero(np.diag(V_own) > 0))
            studies.append(StudyBurden(view.bundles[k].study, float(own[t].sum()) / v, v**-0.5, n))
    beta = score / variance
    q = sum((s.beta - beta) ** 2 / s.se**2 for s in studies) if len(studies) > 1 else float("nan")
    i2 = max(0.0, 1 - (len(studies) - 1) / q) if len(studies) > 1 and q > 0 else float("nan")
    rest = variance - 2 * V.sum(axis=0) + np.diag(V)
    left = rest > 1e-12 * variance  # nothing is left without the only informative variant
    z2 = np.divide((score - U) ** 2, rest, out=np.zeros_like(rest), where=left)
    mask = "" if view.listed is None or selection.mask == ALL_VARIANTS else selection.mask
    yield Burden(
        shared.traits[t], mask, selection.max_maf,
        StudyBurden("all", beta, variance**-0.5, len(member)), float(_log10p(np.array([score**2 / variance]))[0]),
        float(q), i2, tuple(studies), member, np.where(left, _log10p(z2), np.nan),
    )  # fmt: skip


def _log10p(chi2: Floats) -> Floats:
    """Return -log10 of the upper tail of chi2_1."""
    return -chi2_logsf(np.ascontiguousarray(chi2)) / LN10
