"""Run the gene tests on every mask and bin of a gene."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.gene_tests.acat import combine_log_p
from pipeline.gene_tests.base import ScoreStatistics, TestResult
from pipeline.gene_tests.registry import TESTS, evaluate
from pipeline.io.bundle import Bundle, StudyGene
from pipeline.stages.drivers import driver_rows
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


@dataclass(frozen=True)
class Tested:
    """Results of one selection of variants, and what the tests saw."""

    rows: list[tuple[str, str, TestResult]]
    seen: dict[str, tuple[ScoreStatistics, NDArray[np.int64]]]


def evaluate_gene(
    request: GeneRequest,
    union: UnionGene,
    frequency: UnionFrequency,
    group: TraitGroup,
    shared: SharedV,
    selections: list[Selection],
    task: MetaTask,
    bundles: Sequence[Bundle],
    results: TaskResults,
) -> None:
    """Run the tests on every mask and bin; masks that select the same variants are computed once."""
    counted = CountedAllele.of(frequency, task.tests.frequency)
    genes = {k: union.studies[k][0] for k in group.studies if k in union.studies}
    known: dict[tuple[bytes, bytes, float], Tested] = {}
    collapsed: list[TestResult] = []
    sees_mask = any(name in TESTS and TESTS[name].scope == "mask" for name in task.tests.names)
    last: tuple[Any, ...] = ()
    for selection in selections:
        if not len(selection.in_bin):
            continue
        mac = float(counted.mac[selection.in_bin].sum())
        correction, note = _calibrate(shared, selection, counted, task, bundles, group, genes, mac)
        key = (selection.in_bin.tobytes(), selection.in_mask.tobytes() if sees_mask else b"", correction)
        if key not in known:
            known[key] = evaluate_selection(request, union, group, shared, selection, counted, task, correction)
        n_studies = int(frequency.varies[:, selection.in_bin].any(axis=1).sum())
        place = (request.gene, request.chromosome, request.start, request.end)
        size = (n_studies, group.n_samples, len(selection.in_bin), mac)
        for test, weights, result in known[key].rows:
            constants = (*place, selection.mask, selection.max_maf, weights, test, *size)
            results.tests.add(constants, shared.traits, _with_note(result, note))
            results.drivers += _drivers(constants, request, union, shared, known[key], result, task)
        for test in (name for name in task.tests.names if name in MODE_OF):
            for trait, result in zip(
                shared.traits,
                evaluate_collapsed(test, bundles, genes, shared.traits, selection.mask, selection.max_maf),
                strict=True,
            ):
                results.tests.add((*place, selection.mask, selection.max_maf, "", test, *size), (trait,), result)
                collapsed.append(result)
        last = (place, size)
    if "omnibus" in task.tests.names and last:
        place, (n_studies, n_samples, _, _) = last
        every = np.unique(np.concatenate([s.in_bin for s in selections]))
        size = (n_studies, n_samples, len(every), float(counted.mac[every].sum()))
        constants = (*place, ALL_MASKS, max(task.tests.max_maf), "", "omnibus", *size)
        results.tests.add(constants, shared.traits, _combine(known, collapsed, len(shared.traits)))


def _combine(known: Mapping[Any, Tested], collapsed: list[TestResult], n_traits: int) -> TestResult:
    """Return the omnibus of a gene: every distinct row once, masks that select the same variants not again."""
    log_p = [result.log_p for tested in known.values() for _, _, result in tested.rows]
    own = np.array([float(r.log_p[0]) for r in collapsed]).reshape(-1, n_traits)
    return combine_log_p(np.array([*log_p, *own]).reshape(-1, n_traits))


def _with_note(result: TestResult, note: str) -> TestResult:
    """Return a row with a further note."""
    return replace(result, note="; ".join(x for x in (result.note, note) if x)) if note else result


def _calibrate(
    shared: SharedV,
    selection: Selection,
    counted: CountedAllele,
    task: MetaTask,
    bundles: Sequence[Bundle],
    group: TraitGroup,
    genes: Mapping[int, StudyGene],
    mac: float,
) -> tuple[float, str]:
    """Return the burden's correction r of V (1 without calibration) and what the rows of a binary trait should say."""
    trait = shared.traits[0]
    here = [k for k in group.studies if k in genes]
    if any(bundles[k].traits[trait]["kind"] != "binary" for k in here):
        return 1.0, ""
    if task.tests.calibrate != "spa":
        return 1.0, advise_calibration(bundles, here, trait, mac)
    if shared.note:
        return 1.0, shared.note
    s = counted.turn[selection.in_bin]
    information = float(s @ shared.V[np.ix_(selection.in_bin, selection.in_bin)] @ s)
    return burden_correction(bundles, genes, trait, selection.mask, selection.max_maf, information)


def evaluate_selection(
    request: GeneRequest,
    union: UnionGene,
    group: TraitGroup,
    shared: SharedV,
    selection: Selection,
    counted: CountedAllele,
    task: MetaTask,
    correction: float,
) -> Tested:
    """Run the tests that are functions of (U, V) on one selection."""
    tests = task.tests
    rows: list[tuple[str, str, TestResult]] = []
    seen: dict[str, tuple[ScoreStatistics, NDArray[np.int64]]] = {}
    for chosen, scope in ((selection.in_bin, "bin"), (selection.in_mask, "mask")):
        names = [name for name in tests.names if name in TESTS and TESTS[name].scope == scope]
        if not names:
            continue
        make = _select(shared, chosen, counted.turn, counted.frequency, counted.mac, group.n_samples)
        columns = {name: values[union.listed[chosen]] for name, values in request.columns.items()}
        statistics = make(np.isin(chosen, selection.in_bin), columns)
        if correction != 1.0:
            per_study = tuple((U, V / correction, scale) for U, V, scale in statistics.per_study)
            statistics = replace(statistics, V=statistics.V / correction, per_study=per_study)
        null = None if shared.replicates is None else shared.replicates[:, :, chosen] * counted.turn[chosen]
        rows += evaluate(
            statistics, names, tests.weights, collapse_mac=tests.collapse_mac, step_up=make_parameters(tests.step_up),
            replicates=null,
        )  # fmt: skip
        seen |= dict.fromkeys(names, (statistics, chosen))
    return Tested(rows, seen)


def _drivers(
    constants: tuple[Any, ...],
    request: GeneRequest,
    union: UnionGene,
    shared: SharedV,
    tested: Tested,
    result: TestResult,
    task: MetaTask,
) -> Iterator[dict[str, Any]]:
    """Give the rows of drivers.parquet of one row of gene tests."""
    gene, chromosome, _, _, mask, max_maf, weights, test = constants[:8]
    statistics, chosen = tested.seen[test]
    limit, mac = task.tests.drivers_p, task.tests.collapse_mac
    for t, j, columns in driver_rows(statistics, test, weights, result, limit, mac):
        v = chosen[j]
        yield {
            "gene": gene, "trait": shared.traits[t], "mask": mask, "max_maf": max_maf, "weights": weights,
            "test": test, "chromosome": chromosome, "position": int(union.position[v]), "ref": union.ref[v],
            "alt": union.alt[v], **columns,
        }  # fmt: skip


def _select(
    shared: SharedV, chosen: NDArray[np.int64], turn: Floats, counted: Floats, mac: Floats, n_samples: int
) -> Callable[[NDArray[np.bool_], dict[str, Floats]], ScoreStatistics]:
    """Return a maker of the score statistics of the chosen variants, turned to the counted allele."""
    s = turn[chosen]
    grid = np.ix_(chosen, chosen)

    def make(rare: NDArray[np.bool_], columns: dict[str, Floats]) -> ScoreStatistics:
        return ScoreStatistics(
            U=shared.U[:, chosen] * s,
            V=shared.V[grid] * np.outer(s, s),
            scale=shared.scale,
            maf=counted[chosen],
            mac=mac[chosen],
            n_samples=np.full(len(shared.traits), float(n_samples)),
            rare=rare,
            annotations=columns,
            per_study=tuple((U[:, chosen] * s, V[grid] * np.outer(s, s), scale) for U, V, scale in shared.per_study),
        )

    return make
