"""Run the gene tests on every mask and bin of a gene."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from locomass.gene_tests.acat import combine_log_p, name_strongest
from locomass.gene_tests.base import Detail, ScoreStatistics, TestResult, add_note
from locomass.gene_tests.registry import TESTS, evaluate
from locomass.meta.collect import TaskResults
from locomass.meta.drivers import driver_rows
from locomass.meta.gene import GeneView
from locomass.meta.pathways import make_parameters
from locomass.meta.selection import Limit, Scope, Selection
from locomass.meta.shared_burdens import MODE_OF, evaluate_collapsed
from locomass.meta.sums import SharedV, SumsByLimit

ALL_MASKS = "all masks"  # mask of the omnibus row


@dataclass(frozen=True, slots=True)
class Tested:
    """Results of one selection of variants, and what the tests saw."""

    rows: list[tuple[str, str, TestResult]]
    seen: dict[str, tuple[ScoreStatistics, NDArray[np.int64]]]


def evaluate_gene(view: GeneView, sums: SumsByLimit, results: TaskResults) -> None:
    """Run the tests on every mask and MAF limit; rows that see the same variants of the studies are computed once."""
    tests = view.rules.tests
    under = sums.map_limits(view.by_group)
    known: dict[tuple[bytes, bytes, int], Tested] = {}
    combined: list[tuple[str, TestResult]] = []  # name and result of every distinct row, for the omnibus
    sees_mask = any(name in TESTS and TESTS[name].scope == "mask" for name in tests.names)
    for selection in (s for s in view.selections if len(s.in_bin)):
        shared, limit = under[selection.max_maf], view.limits[selection.max_maf]
        key = (selection.in_bin.tobytes(), selection.in_mask.tobytes() if sees_mask else b"", id(shared))
        if key not in known:
            known[key] = evaluate_selection(view, shared, selection)
            names = [_name_row(selection, test, weights) for test, weights, _ in known[key].rows]
            combined += zip(names, (result for _, _, result in known[key].rows), strict=True)
        row = (*view.request.place, selection.mask, selection.max_maf)
        size = _count(view, limit, selection.in_bin)
        for test, weights, result in known[key].rows:
            constants = (*row, weights, test, *size)
            results.tests.add(constants, shared.traits, add_note(result, shared.note))
            if TESTS[test].with_drivers:
                results.drivers += _drivers(constants, view, shared, known[key], result)
        for test in (name for name in tests.names if name in MODE_OF):
            per_trait = evaluate_collapsed(test, view, shared, selection)
            for trait, result in zip(shared.traits, per_trait, strict=True):
                results.tests.add((*row, "", test, *size), (trait,), result)
            combined.append((_name_row(selection, test, ""), _join_traits(per_trait)))
    if "omnibus" in tests.names and combined:
        last = max(tests.max_maf)
        every = np.unique(np.concatenate([s.in_bin for s in view.selections]))
        constants = (*view.request.place, ALL_MASKS, last, "", "omnibus", *_count(view, view.limits[last], every))
        results.tests.add(constants, shared.traits, add_note(_combine(combined), shared.note))


def _count(view: GeneView, limit: Limit, chosen: NDArray[np.int64]) -> tuple[int, int, int, float]:
    """Return the studies, samples, variants and count of alleles of a row, as the studies contribute them."""
    return limit.n_studies(chosen), view.group.n_samples, len(chosen), float(limit.mac[chosen].sum())


def _name_row(selection: Selection, test: str, weights: str) -> str:
    """Return a row's mask, MAF limit, test and weights in words."""
    return f"{selection.mask} {selection.max_maf:g} {test} {weights}".strip()


def _join_traits(rows: Sequence[TestResult]) -> TestResult:
    """Return rows of one trait each as one row: what an omnibus needs of them."""
    said = dict.fromkeys(part for row in rows for part in row.note.split("; ") if part)
    methods = dict.fromkeys(row.method for row in rows if row.method)
    log_p = np.array([float(row.log_p[0]) for row in rows])
    return TestResult(statistic=log_p, log_p=log_p, method=", ".join(methods), note="; ".join(said))


def _combine(rows: Sequence[tuple[str, TestResult]]) -> TestResult:
    """Return the omnibus of a gene: every distinct row once, masks that select the same variants not again.

    Its method names those of its parts, its note is what they say, each once.
    """
    names, log_p = [name for name, _ in rows], np.array([row.log_p for _, row in rows])
    result = combine_log_p(log_p)
    methods = dict.fromkeys(part for _, row in rows for part in row.method.split(", ") if part)
    with_p = [row for _, row in rows if not np.isnan(row.log_p).all()]
    said = dict.fromkeys(part for row in with_p for part in row.note.split("; ") if part)
    return replace(
        result,
        method=f"{result.method} of {', '.join(sorted(methods))}" if methods else result.method,
        note="; ".join([*([result.note] if result.note else []), *said]),
        detail=Detail(row=name_strongest(log_p, names)),
    )


def evaluate_selection(view: GeneView, shared: SharedV, selection: Selection) -> Tested:
    """Run the tests that are functions of U, V and laws on one selection."""
    tests = view.rules.tests
    rows: list[tuple[str, str, TestResult]] = []
    seen: dict[str, tuple[ScoreStatistics, NDArray[np.int64]]] = {}
    scopes: tuple[Scope, ...] = ("bin", "mask")
    for scope in scopes:
        names = [name for name in tests.names if name in TESTS and TESTS[name].scope == scope]
        if not names:
            continue
        chosen = selection.variants(scope)
        statistics = view.statistics(shared, selection, scope)
        rows += evaluate(
            statistics,
            names,
            tests.weights,
            collapse_mac=tests.collapse_mac,
            collapsed_weight=tests.collapsed_weight,
            step_up=make_parameters(tests.step_up),
            replicates=view.replicates(shared, chosen),
            ultra_rare=view.ultra_rare(shared),
            ties=tests.ties,
            firth=tests.effects == "firth",
        )
        seen |= dict.fromkeys(names, (statistics, chosen))
    return Tested(rows, seen)


def evaluate_one(view: GeneView, selection: Selection) -> tuple[str, TestResult]:
    """Return the weights and the row of the one test, and trait, of a view's rules on a selection."""
    (test,) = view.rules.tests.names
    sums = next(view.sums_by_limit(with_studies=True, with_replicates=TESTS[test].is_search))
    shared = view.by_group(sums.under[selection.max_maf])
    _, weights, result = evaluate_selection(view, shared, selection).rows[0]
    return weights, add_note(result, shared.note)


def _drivers(
    constants: tuple[Any, ...], view: GeneView, shared: SharedV, tested: Tested, result: TestResult
) -> Iterator[dict[str, Any]]:
    """Give the rows of drivers.parquet of one row of gene tests."""
    gene, chromosome, _, _, mask, max_maf, weights, test = constants[:8]
    statistics, chosen = tested.seen[test]
    limit, mac = view.rules.tests.drivers_p, view.rules.tests.collapse_mac
    bound = view.ultra_rare(shared)
    for t, j, columns in driver_rows(statistics, test, weights, result, limit, mac, bound):
        v = chosen[j]
        yield {
            "gene": gene,
            "trait": shared.traits[t],
            "mask": mask,
            "max_maf": max_maf,
            "weights": weights,
            "test": test,
            "chromosome": chromosome,
            "position": int(view.union.position[v]),
            "ref": view.union.ref[v],
            "alt": view.union.alt[v],
            **columns,
        }
