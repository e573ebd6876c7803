"""A gene across studies: the one way from study bundles to the `ScoreStatistics` of a row.

Read the gene of every study, lay them on the union of their variants, pool frequencies, sum U and V, choose the
variants of a mask and MAF limit, count the minor allele: the meta-analysis, the studies' parts in a row, forests,
conditional tests and the Python interface all take this way, so that they cannot differ.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from locomass.bundle.study import Bundle, StudyGene
from locomass.gene_tests.base import ScoreStatistics
from locomass.gene_tests.selection import turn_statistics
from locomass.meta.groups import merge_groups
from locomass.meta.selection import CountedAllele, Limit, Scope, Selection, find_limits, select_variants
from locomass.meta.sums import SharedV, SumsByLimit, sum_studies
from locomass.meta.tasks import GeneRequest, Rules
from locomass.meta.unite import TraitGroup, UnionFrequency, UnionGene, group_traits, pool_frequencies, unite_gene

STUDY_GENES_AT_ONCE = 2_000  # genes times studies in memory


def open_genes(requests: Sequence[GeneRequest], bundles: Sequence[Bundle], rules: Rules) -> Iterator[GeneAcrossStudies]:
    """Give every gene with what each study has of it; a bounded number of genes times studies is in memory."""
    groups = group_traits(bundles)
    at_once = max(1, STUDY_GENES_AT_ONCE // max(1, len(bundles)))
    for start in range(0, len(requests), at_once):
        batch = requests[start : start + at_once]
        genes = [bundle.read_genes(request.gene for request in batch) for bundle in bundles]
        for request in batch:
            found = {k: of_study[request.gene] for k, of_study in enumerate(genes) if request.gene in of_study}
            yield GeneAcrossStudies(request=request, found=found, bundles=bundles, rules=rules, groups=groups)


@dataclass(frozen=True, kw_only=True)
class GeneAcrossStudies:
    """One gene over all studies, opened once.

    Attributes:
        request: the gene and its listed variants.
        found: the gene in each study that has it, by the study's number.
        bundles: all studies.
        rules: which variants are tested, and how.
        groups: traits that are observed in the same samples.
    """

    request: GeneRequest
    found: Mapping[int, StudyGene]
    bundles: Sequence[Bundle]
    rules: Rules
    groups: Sequence[TraitGroup]

    @cached_property
    def union(self) -> UnionGene:
        """The studies' variants laid on one another, alleles aligned."""
        return unite_gene(self.request, dict(self.found))

    @property
    def notes(self) -> list[str]:
        """Why studies have no statistics for the gene, one text each."""
        return [f"{self.bundles[k].study}: {gene.note}" for k, gene in self.found.items() if gene.note]

    @cached_property
    def views(self) -> tuple[GeneView, ...]:
        """The gene as each group of traits sees it."""
        return tuple(GeneView(gene=self, group=group) for group in self.groups)

    @cached_property
    def _by_trait(self) -> dict[str, GeneView]:
        """Views of single traits that were asked for."""
        return {}

    def view(self, trait: str) -> GeneView:
        """Return the gene as one trait sees it."""
        if trait not in self._by_trait:
            group = next(group for group in self.groups if trait in group.traits)
            self._by_trait[trait] = GeneView(gene=self, group=replace(group, traits=(trait,)))
        return self._by_trait[trait]

    def statistics(self, selection: Selection, trait: str, scope: Scope = "bin") -> ScoreStatistics:
        """Return what a gene test of one trait sees, every study's own U and V beside the sums.

        Args:
            selection: of ``view(trait).selections``.
            trait: name of a trait that a study with the gene has.
            scope: ``bin``: the variants under the MAF limit; ``mask``: all of the mask.

        Raises:
            StopIteration: no study has both the gene and the trait.
        """
        view = self.view(trait)
        return view.statistics(view.first_sums.under[selection.max_maf], selection, scope)


@dataclass(frozen=True, kw_only=True)
class GeneView:
    """A gene as the traits of one group see it over their studies: frequencies, masks and MAF limits, sums of U and V.

    Attributes:
        gene: over all studies.
        group: traits, and the studies and samples that they are observed in.
    """

    gene: GeneAcrossStudies
    group: TraitGroup

    @property
    def request(self) -> GeneRequest:
        """The gene and its listed variants."""
        return self.gene.request

    @property
    def union(self) -> UnionGene:
        """The union of all studies' variants."""
        return self.gene.union

    @property
    def rules(self) -> Rules:
        """Which variants are tested, and how."""
        return self.gene.rules

    @property
    def bundles(self) -> Sequence[Bundle]:
        """All studies."""
        return self.gene.bundles

    @cached_property
    def studies(self) -> tuple[int, ...]:
        """Numbers of the studies that have both the gene and the traits."""
        return tuple(k for k in self.group.studies if k in self.union.studies)

    @cached_property
    def frequency(self) -> UnionFrequency:
        """Allele counts and frequencies under the frequency policy."""
        return pool_frequencies(self.union, self.group, self.request.external)

    @cached_property
    def counted(self) -> CountedAllele:
        """Sign, frequency and count of the allele that the tests count."""
        return CountedAllele.of(self.frequency, self.rules.tests.frequency)

    @cached_property
    def selections(self) -> tuple[Selection, ...]:
        """The variants of every mask and MAF limit."""
        return tuple(select_variants(self.request, self.union, self.frequency, self.limits, self.rules))

    @cached_property
    def limits(self) -> Mapping[float, Limit]:
        """What the studies contribute under each MAF limit."""
        return find_limits(self.union, self.group, self.frequency, self.counted, self.rules)

    @cached_property
    def first_sums(self) -> SumsByLimit:
        """The sums of a view's first traits, every study's beside them: of a view of one trait, all there is."""
        return next(self.sums_by_limit(with_studies=True))

    def sums(
        self,
        *,
        with_studies: bool = False,
        with_replicates: bool = False,
        rows: NDArray[np.int64] | None = None,
        included: NDArray[np.bool_] | None = None,
    ) -> Iterator[SharedV]:
        """Give U and V summed over the studies, for traits that share V together.

        Args:
            with_studies: keep U and V of every study, which heterogeneity needs; without, sums of many studies take a
                fraction of the time and memory.
            with_replicates: sum the null replicates that the studies share.
            rows: (r,) variants of the union, rising, that V is made for: a huge gene is tested by its masks, which
                take a part of it. None for all.
            included: (k, u) what each study contributes; None for all that it has.
        """
        yield from sum_studies(
            self,
            included=included,
            with_studies=with_studies,
            with_replicates=with_replicates,
            rows=rows,
        )

    def sums_by_limit(
        self, *, with_studies: bool = False, with_replicates: bool = False, rows: NDArray[np.int64] | None = None
    ) -> Iterator[SumsByLimit]:
        """Give the sums that single variants and the rows of each MAF limit are tested by; arguments: see `sums`.

        Limits under which the studies contribute the same share one object.
        """
        key = {b: b"" if own.included is None else own.included.tobytes() for b, own in self.limits.items()}
        parts = {key[b]: own.included for b, own in self.limits.items()}
        sums = [
            self.sums(with_studies=with_studies, with_replicates=with_replicates, rows=rows, included=included)
            for included in parts.values()
        ]
        apart = None if b"" in parts else self.sums(rows=np.empty(0, np.int64))
        for own in zip(*sums, strict=True):
            found = dict(zip(parts, own, strict=True))
            every = found[b""] if apart is None else next(apart)
            yield SumsByLimit(every=every, under={b: found[part] for b, part in key.items()})

    def by_group(self, shared: SharedV) -> SharedV:
        """Return sums whose studies are merged within the configured groups, which share an effect."""
        if not self.rules.groups or not shared.per_study:
            return shared
        return merge_groups(shared, [self.rules.groups[k] for k in self.frequency.studies])

    def statistics(self, shared: SharedV, selection: Selection, scope: Scope = "bin") -> ScoreStatistics:
        """Return what the tests of one mask and MAF limit see: the counted allele's statistics and laws.

        Args:
            shared: of `sums`.
            selection: of `selections`.
            scope: ``bin``: the variants under the MAF limit; ``mask``: all of the mask.
        """
        chosen, counted, limit = selection.variants(scope), self.counted, self.limits[selection.max_maf]
        rare = np.ones(len(chosen), np.bool_) if scope == "bin" else np.isin(chosen, selection.in_bin)
        rows = shared.find_rows(chosen)
        U, V = turn_statistics(shared.U, shared.V, chosen, rows, counted.turn)
        listed = self.union.listed[chosen]
        by_study = [own.select(chosen, rows, counted.turn) for own in shared.carriers]
        per_study = tuple(
            (*turn_statistics(U_k, V_k, chosen, rows, counted.turn), s_k) for U_k, V_k, s_k in shared.per_study
        )
        if shared.kind == "time_to_event" and by_study:  # tests go by the variance of the laws, not the information
            variances = [own[0].information() for own in by_study]
            V = np.sum(variances, axis=0)
            places = shared.members or tuple((k,) for k in range(len(by_study)))
            per_study = tuple(
                (U_k, np.sum([variances[k] for k in at], axis=0), s_k)
                for (U_k, _, s_k), at in zip(per_study, places if per_study else (), strict=True)
            )
        return ScoreStatistics(
            U=U,
            V=V,
            scale=shared.scale,
            maf=counted.frequency[chosen],
            mac=limit.mac[chosen],
            n_samples=np.full(len(shared.traits), float(self.group.n_samples)),
            rare=rare,
            annotations={name: values[listed] for name, values in self.request.columns.items()},
            per_study=per_study,
            laws=tuple(zip(*by_study, strict=True)),
            members=shared.members,
            gene=self.request.gene,
        )

    def replicates(self, shared: SharedV, chosen: NDArray[np.int64]) -> NDArray[np.float64] | None:
        """Return (T, P, m) null scores of the chosen variants, where all studies share them."""
        return None if shared.replicates is None else shared.replicates[:, :, chosen] * self.counted.turn[chosen]

    def ultra_rare(self, shared: SharedV) -> float:
        """Return the allele count up to which the SKAT family takes variants as one; 0 for none."""
        tests = self.rules.tests
        collapsed = tests.ultra_rare == "collapse" or (tests.ultra_rare == "auto" and shared.calibrated)
        return tests.collapse_mac if collapsed else 0.0
