"""The genes with the smallest p-values, opened once more when all are known: rows by study, and forests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from locomass.bundle.study import open_once
from locomass.executors import Executor
from locomass.files.results import write_parquet
from locomass.meta.forests import Forests, Wanted, add_burdens, choose_burdens
from locomass.meta.gene import open_genes
from locomass.meta.study_effects import find_small, study_effects
from locomass.meta.tasks import MetaTask
from locomass.schema import GENE_TESTS, STUDY_EFFECTS


@dataclass(frozen=True, kw_only=True)
class StrongestTask:
    """What travels to a worker: genes of a task, and what is wanted of them.

    Attributes:
        task: the task, with these genes only.
        rows: rows of gene_tests that are wanted study by study, by gene.
        burdens: burdens that are wanted as forests, by gene.
    """

    task: MetaTask
    rows: dict[str, list[dict[str, Any]]]
    burdens: dict[str, tuple[Wanted, ...]]


def open_strongest(tasks: Sequence[MetaTask], out: Path, executor: Executor) -> None:
    """Write study_effects, forests and leave_one_out from gene_tests.parquet and the bundles.

    Rows with p below ``tests.drivers_p`` are shown study by study; of one study there is no such table, and that of an
    earlier run goes.
    """
    path, table = out / STUDY_EFFECTS.name, out / GENE_TESTS.name
    several = bool(tasks) and len(tasks[0].bundles) > 1
    rows = find_small(table, tasks[0].rules.tests.drivers_p) if several else {}
    burdens = choose_burdens(out, table, tasks[0].rules.masks) if tasks else {}
    found = executor.run(describe_strongest, [part for t in tasks if (part := _take(t, rows, burdens)).task.genes])
    if several:
        effects = [row for part, _ in found for row in part]
        write_parquet(path, pa.Table.from_pylist(effects, schema=STUDY_EFFECTS.arrow))
    else:
        path.unlink(missing_ok=True)
    Forests(
        lines=[row for _, part in found for row in part.lines],
        without=[row for _, part in found for row in part.without],
    ).write(out)


def _take(
    task: MetaTask, rows: dict[str, list[dict[str, Any]]], burdens: dict[str, tuple[Wanted, ...]]
) -> StrongestTask:
    """Return the genes of a task of which anything is wanted."""
    genes = tuple(request for request in task.genes if request.gene in rows or request.gene in burdens)
    names = [request.gene for request in genes]
    return StrongestTask(
        task=replace(task, genes=genes),
        rows={name: rows[name] for name in names if name in rows},
        burdens={name: burdens[name] for name in names if name in burdens},
    )


def describe_strongest(task: StrongestTask) -> tuple[list[dict[str, Any]], Forests]:
    """Return the rows of study_effects.parquet of a task's genes, and their forests."""
    bundles = [open_once(path) for path in task.task.bundles]
    effects: list[dict[str, Any]] = []
    forests = Forests()
    for gene in open_genes(task.task.genes, bundles, task.task.rules):
        name = gene.request.gene
        if name in task.rows:
            effects += study_effects(gene, task.rows[name])
        if gene.found and name in task.burdens:
            add_burdens(gene, task.burdens[name], forests)
    return effects, forests
