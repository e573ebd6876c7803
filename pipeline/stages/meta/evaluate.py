"""Run the gene tests on every mask and bin of a gene."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.gene_tests.acat import combine_log_p
from pipeline.gene_tests.base import Carriers, ScoreStatistics, TestResult
from pipeline.gene_tests.registry import TESTS, evaluate
from pipeline.io.bundle import Bundle, StudyGene
from pipeline.kernels.selection import turn_statistics
from pipeline.stages.drivers import DRIVEN, driver_rows
from pipeline.stages.meta.carriers import find_carriers
from pipeline.stages.meta.collect import TaskResults
from pipeline.stages.meta.selection import CountedAllele, Selection
from pipeline.stages.meta.sums import SharedV
from pipeline.stages.meta.tasks import GeneRequest, MetaTask
from pipeline.stages.meta.unite import TraitGroup, UnionFrequency, UnionGene
from pipeline.stages.pathways import make_parameters
from pipeline.stages.shared_burdens import (
    MODE_OF,
    advise_calibration,
    burden_correction,
    evaluate_collapsed,
)

Floats = NDArray[np.float64]
ALL_MASKS = "all masks"  # mask of the omnibus row


@dataclass(frozen=True, slots=True)
class GeneView:
    """A gene as the traits of one group see it, over all studies: what the tests of its masks and bins share.

    Attributes:
        request, union, frequency, group: see their classes.
        counted: sign, frequency and count of the allele that the tests count.
        task: what to test.
        bundles: all studies.
        genes: the gene in each study of the group that has it.
    """

    request: GeneRequest
    union: UnionGene
    frequency: UnionFrequency
    group: TraitGroup
    counted: CountedAllele
    task: MetaTask
    bundles: Sequence[Bundle]
    genes: Mapping[int, StudyGene]

    @classmethod
    def of(
        cls,
        request: GeneRequest,
        union: UnionGene,
        frequency: UnionFrequency,
        group: TraitGroup,
        task: MetaTask,
        bundles: Sequence[Bundle],
    ) -> GeneView:
        """Return the view of a group of traits."""
        counted = CountedAllele.of(frequency, task.tests.frequency)
        genes = {k: union.studies[k][0] for k in group.studies if k in union.studies}
        return cls(request, union, frequency, group, counted, task, bundles, genes)

    def carriers(self, shared: SharedV, chosen: NDArray[np.int64]) -> tuple[Carriers, ...]:
        """Return who carries the chosen variants in every study; nothing where the trait is not calibrated."""
        if not shared.models:
            return ()
        trait = shared.traits[0]
        infos = {k: self.bundles[k].traits[trait] for k in self.frequency.studies}
        samples = {k: (float(info["n_samples"]), info.get("n_cases")) for k, info in infos.items()}
        return find_carriers(shared, self.frequency, self.counted.turn, samples, chosen, self.request.chromosome)

    @property
    def place(self) -> tuple[str, str, int, int]:
        """Name, chromosome, start and end."""
        return self.request.gene, self.request.chromosome, self.request.start, self.request.end


@dataclass(frozen=True, slots=True)
class Tested:
    """Results of one selection of variants, and what the tests saw."""

    rows: list[tuple[str, str, TestResult]]
    seen: dict[str, tuple[ScoreStatistics, NDArray[np.int64]]]


def evaluate_gene(view: GeneView, shared: SharedV, selections: list[Selection], results: TaskResults) -> None:
    """Run the tests on every mask and bin; masks that select the same variants are computed once."""
    tests, n_samples, mac_of = view.task.tests, view.group.n_samples, view.counted.mac
    known: dict[tuple[bytes, bytes, float], Tested] = {}
    collapsed: list[TestResult] = []
    sees_mask = any(name in TESTS and TESTS[name].scope == "mask" for name in tests.names)
    n_studies = 0
    for selection in selections:
        if not len(selection.in_bin):
            continue
        mac = float(mac_of[selection.in_bin].sum())
        correction, note = calibrate_burden(view.bundles, view.genes, view.counted, shared, selection)
        key = (selection.in_bin.tobytes(), selection.in_mask.tobytes() if sees_mask else b"", correction)
        if key not in known:
            known[key] = evaluate_selection(view, shared, selection, correction)
        n_studies = int(view.frequency.varies[:, selection.in_bin].any(axis=1).sum())
        row = (*view.place, selection.mask, selection.max_maf)
        size = (n_studies, n_samples, len(selection.in_bin), mac)
        for test, weights, result in known[key].rows:
            constants = (*row, weights, test, *size)
            results.tests.add(constants, shared.traits, _with_note(result, note))
            if test in DRIVEN:
                results.drivers += _drivers(constants, view, shared, known[key], result)
        for test in (name for name in tests.names if name in MODE_OF):
            per_trait = evaluate_collapsed(
                test, view.bundles, view.genes, shared.traits, selection.mask, selection.max_maf
            )
            for trait, result in zip(shared.traits, per_trait, strict=True):
                results.tests.add((*row, "", test, *size), (trait,), result)
            collapsed += per_trait
    if "omnibus" in tests.names and n_studies:
        every = np.unique(np.concatenate([s.in_bin for s in selections]))
        size = (n_studies, n_samples, len(every), float(mac_of[every].sum()))
        constants = (*view.place, ALL_MASKS, max(tests.max_maf), "", "omnibus", *size)
        results.tests.add(constants, shared.traits, _combine(known, collapsed, len(shared.traits)))


def _combine(known: Mapping[Any, Tested], collapsed: list[TestResult], n_traits: int) -> TestResult:
    """Return the omnibus of a gene: every distinct row once, masks that select the same variants not again."""
    log_p = [result.log_p for tested in known.values() for _, _, result in tested.rows]
    own = np.array([float(r.log_p[0]) for r in collapsed]).reshape(-1, n_traits)
    return combine_log_p(np.array([*log_p, *own]).reshape(-1, n_traits))


def _with_note(result: TestResult, note: str) -> TestResult:
    """Return a row with a further note."""
    return replace(result, note="; ".join(x for x in (result.note, note) if x)) if note else result


def calibrate_burden(
    bundles: Sequence[Bundle],
    genes: Mapping[int, StudyGene],
    counted: CountedAllele,
    shared: SharedV,
    selection: Selection,
) -> tuple[float, str]:
    """Return the burden's correction r of V (1 without calibration) and what the rows of a binary trait should say."""
    trait, here = shared.traits[0], list(genes)
    if any(bundles[k].traits[trait]["kind"] != "binary" for k in here):
        return 1.0, ""
    if not shared.calibrated or shared.note:
        mac = float(counted.mac[selection.in_bin].sum())
        return 1.0, shared.note or advise_calibration(bundles, here, trait, mac)
    s = counted.turn[selection.in_bin]
    at = shared.find_rows(selection.in_bin)
    grid = np.ix_(at, at)
    plain = {k: float(s @ V[grid] @ s) for k, V in shared.plain.items()}
    information = float(s @ shared.V[grid] @ s)
    return burden_correction(bundles, genes, trait, selection.mask, selection.max_maf, information, plain)


def evaluate_selection(view: GeneView, shared: SharedV, selection: Selection, correction: float) -> Tested:
    """Run the tests that are functions of (U, V) on one selection; V is divided by ``correction``."""
    tests = view.task.tests
    rows: list[tuple[str, str, TestResult]] = []
    seen: dict[str, tuple[ScoreStatistics, NDArray[np.int64]]] = {}
    for chosen, scope in ((selection.in_bin, "bin"), (selection.in_mask, "mask")):
        names = [name for name in tests.names if name in TESTS and TESTS[name].scope == scope]
        if not names:
            continue
        rare = np.ones(len(chosen), np.bool_) if scope == "bin" else np.isin(chosen, selection.in_bin)
        statistics = _select(view, shared, chosen, rare)
        if correction != 1.0:
            per_study = tuple((U, V / correction, scale) for U, V, scale in statistics.per_study)
            statistics = replace(statistics, V=statistics.V / correction, per_study=per_study)
        null = None if shared.replicates is None else shared.replicates[:, :, chosen] * view.counted.turn[chosen]
        rows += evaluate(
            statistics, names, tests.weights, collapse_mac=tests.collapse_mac, step_up=make_parameters(tests.step_up),
            replicates=null, ultra_rare=ultra_rare_bound(shared, view.task),
        )  # fmt: skip
        seen |= dict.fromkeys(names, (statistics, chosen))
    if shared.calibrated:
        rows = [(test, weights, replace(r, method=f"{r.method}, spa" if r.method else "")) for test, weights, r in rows]
    return Tested(rows, seen)


def ultra_rare_bound(shared: SharedV, task: MetaTask) -> float:
    """Return the allele count up to which the SKAT family takes variants as one; 0 for none."""
    rule = task.tests.ultra_rare
    collapsed = rule == "collapse" or (rule == "auto" and bool(shared.calibrated))
    return task.tests.collapse_mac if collapsed else 0.0


def _drivers(
    constants: tuple[Any, ...], view: GeneView, shared: SharedV, tested: Tested, result: TestResult
) -> Iterator[dict[str, Any]]:
    """Give the rows of drivers.parquet of one row of gene tests."""
    gene, chromosome, _, _, mask, max_maf, weights, test = constants[:8]
    statistics, chosen = tested.seen[test]
    limit, mac = view.task.tests.drivers_p, view.task.tests.collapse_mac
    bound = ultra_rare_bound(shared, view.task)
    for t, j, columns in driver_rows(statistics, test, weights, result, limit, mac, bound):
        v = chosen[j]
        yield {
            "gene": gene, "trait": shared.traits[t], "mask": mask, "max_maf": max_maf, "weights": weights,
            "test": test, "chromosome": chromosome, "position": int(view.union.position[v]), "ref": view.union.ref[v],
            "alt": view.union.alt[v], **columns,
        }  # fmt: skip


def _select(view: GeneView, shared: SharedV, chosen: NDArray[np.int64], rare: NDArray[np.bool_]) -> ScoreStatistics:
    """Return the score statistics of the chosen variants, turned to the counted allele."""
    counted, listed = view.counted, view.union.listed
    rows = shared.find_rows(chosen)
    U, V = turn_statistics(shared.U, shared.V, chosen, rows, counted.turn)
    return ScoreStatistics(
        U=U,
        V=V,
        scale=shared.scale,
        maf=counted.frequency[chosen],
        mac=counted.mac[chosen],
        n_samples=np.full(len(shared.traits), float(view.group.n_samples)),
        rare=rare,
        annotations={name: values[listed[chosen]] for name, values in view.request.columns.items()},
        per_study=tuple(
            (*turn_statistics(U, V, chosen, rows, counted.turn), scale) for U, V, scale in shared.per_study
        ),
        carriers=view.carriers(shared, chosen),
    )
