"""study_effects.parquet: rows with a small p-value, study by study. What forest plots and leave-one-study-out show."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.gene_tests.base import ScoreStatistics, TestResult
from pipeline.gene_tests.registry import TESTS
from pipeline.gene_tests.step_up import SEARCHES
from pipeline.gene_tests.study_influence import study_influence
from pipeline.io.bundle import Bundle, open_once
from pipeline.io.results import write_parquet
from pipeline.schema import GENE_TESTS, STUDY_EFFECTS
from pipeline.stages.meta.evaluate import GeneView, calibrate_burden, ultra_rare_bound
from pipeline.stages.meta.selection import Selection, included_variants, select_variants
from pipeline.stages.meta.sums import SharedV, sum_studies
from pipeline.stages.meta.tasks import GeneRequest, MetaTask
from pipeline.stages.meta.unite import UnionFrequency, UnionGene, group_traits, pool_frequencies, unite_gene

LN10 = float(np.log(10.0))
MOST_ROWS = 1000


def write_study_effects(tasks: Sequence[MetaTask], out: Path) -> None:
    """Write study_effects.parquet from gene_tests.parquet and the bundles; that of an earlier run goes for one study.

    Of more than a thousand rows with p below ``tests.drivers_p`` the thousand smallest are taken. Searches over
    groupings have no rows: they would be other searches without the study.
    """
    path = out / STUDY_EFFECTS.name
    if not tasks or len(tasks[0].bundles) < 2:
        path.unlink(missing_ok=True)
        return
    wanted = find_small(out / GENE_TESTS.name, tasks[0].tests.drivers_p)
    rows = [row for task in tasks for row in _task_rows(task, wanted)]
    write_parquet(path, pa.Table.from_pylist(rows, schema=STUDY_EFFECTS.arrow))


def find_small(path: Path, limit: float) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of gene_tests.parquet with p below the limit, by gene, row groups read one at a time."""
    names = ["gene", "trait", "mask", "max_maf", "weights", "test", "log10p", "note"]
    tests = pa.array([name for name in TESTS if name not in SEARCHES])
    with pq.ParquetFile(path) as file:
        parts = []
        for g in range(file.num_row_groups):
            table = file.read_row_group(g, columns=names)
            small = pc.greater(table["log10p"], -np.log10(limit) if limit > 0 else np.inf)
            parts.append(table.filter(pc.and_(small, pc.is_in(table["test"], tests))))
        table = pa.concat_tables(parts) if parts else file.read(columns=names)
    kept = np.argsort(-table["log10p"].to_numpy(), kind="stable")[:MOST_ROWS]
    out: dict[str, list[dict[str, Any]]] = {}
    for row in table.take(pa.array(np.sort(kept))).to_pylist():
        out.setdefault(row["gene"], []).append(row)
    return out


def _task_rows(task: MetaTask, wanted: dict[str, list[dict[str, Any]]]) -> Iterator[dict[str, Any]]:
    """Give the rows of a task's genes."""
    requests = [request for request in task.genes if request.gene in wanted]
    if not requests:
        return
    bundles = [open_once(path) for path in task.bundles]
    genes = [bundle.read_genes(request.gene for request in requests) for bundle in bundles]
    for request in requests:
        here = {k: found[request.gene] for k, found in enumerate(genes) if request.gene in found}
        yield from _gene_rows(request, unite_gene(request, here), bundles, task, wanted[request.gene])


def _gene_rows(
    request: GeneRequest,
    union: UnionGene,
    bundles: Sequence[Bundle],
    task: MetaTask,
    rows: list[dict[str, Any]],
) -> Iterator[dict[str, Any]]:
    """Give the rows of one gene."""
    for group in group_traits(bundles):
        mine = [row for row in rows if row["trait"] in group.traits]
        if not mine or sum(k in union.studies for k in group.studies) < 2:
            continue
        frequency = pool_frequencies(union, group, request.external)
        selections = {(s.mask, s.max_maf): s for s in select_variants(request, union, frequency, group, task, [])}
        included = included_variants(union, frequency, task.tests, task.maf)
        view = GeneView.of(request, union, frequency, group, task, bundles)
        calibrate = task.tests.calibrate
        for shared in sum_studies(bundles, union, group, request.chromosome, included, calibrate):
            for row in (row for row in mine if row["trait"] in shared.traits):
                selection = selections[row["mask"], row["max_maf"]]
                stats = _statistics(view, shared, selection, row["test"])
                for k, alone, without, n in _by_study(stats, row, frequency, task, ultra_rare_bound(shared, task)):
                    yield {
                        **{name: row[name] for name in ("gene", "trait", "mask", "max_maf", "weights", "test")},
                        "log10p": row["log10p"], "study": bundles[k].study,
                        "group": task.groups[k] if task.groups else "",
                        "n_samples": int(bundles[k].traits[row["trait"]]["n_samples"]), "n_variants": n,
                        "beta": _first(alone.beta), "se": _first(alone.se),
                        "log10p_alone": abs(_first(alone.log_p)) / LN10,
                        "log10p_without": abs(_first(without.log_p)) / LN10,
                    }  # fmt: skip


def _by_study(
    stats: ScoreStatistics, row: dict[str, Any], frequency: UnionFrequency, task: MetaTask, ultra_rare: float
) -> Iterator[tuple[int, TestResult, TestResult, int]]:
    """Give every study's number, row alone, row left out, and variants that vary in it."""
    alone, without = study_influence(
        stats, row["test"], row["weights"], collapse_mac=task.tests.collapse_mac, ultra_rare=ultra_rare
    )
    for k, (_, V, _), one, rest in zip(frequency.studies, stats.per_study, alone, without, strict=True):
        yield k, one, rest, int(np.count_nonzero(np.diag(V) > 0))


def _statistics(view: GeneView, shared: SharedV, selection: Selection, test: str) -> ScoreStatistics:
    """Return what the test of a row saw, the studies' own statistics beside it."""
    chosen = selection.in_bin if TESTS[test].scope == "bin" else selection.in_mask
    counted = view.counted
    correction, _ = calibrate_burden(view.bundles, view.genes, counted, shared, selection)
    s, grid = counted.turn[chosen], np.ix_(chosen, chosen)
    turn = np.outer(s, s) / correction
    return ScoreStatistics(
        U=shared.U[:, chosen] * s,
        V=shared.V[grid] * turn,
        scale=shared.scale,
        maf=counted.frequency[chosen],
        mac=counted.mac[chosen],
        n_samples=np.ones(1),
        rare=np.isin(chosen, selection.in_bin),
        annotations={name: values[view.union.listed[chosen]] for name, values in view.request.columns.items()},
        per_study=tuple((U[:, chosen] * s, V[grid] * turn, scale) for U, V, scale in shared.per_study),
        carriers=view.carriers(shared, chosen),
    )


def _first(values: Any) -> float:
    return float("nan") if values is None else float(values[0])
