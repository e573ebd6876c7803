"""Meta-analysis: harmonise alleles, sum U and V over studies on the union of variants, run the gene tests.

One study is a meta-analysis of one. A batch of genes is one task; it opens the bundles itself and writes three Parquet
parts (gene tests, single variants, mask audit), which `gather_results` puts together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from locomass.bundle.study import open_once
from locomass.errors import GENE_FAILURES
from locomass.executors import Executor
from locomass.files.parts import seal_parts
from locomass.gene_tests.base import missing_result
from locomass.gene_tests.registry import TESTS
from locomass.meta.between import BetweenStudies, gather_between
from locomass.meta.collect import TaskResults, count_failed, failed_row, gather_results, write_pathways
from locomass.meta.evaluate import evaluate_gene
from locomass.meta.gene import GeneAcrossStudies, open_genes
from locomass.meta.pathways import PATHWAY
from locomass.meta.selection import tested_variants
from locomass.meta.strongest import open_strongest
from locomass.meta.tasks import MetaTask


def run_meta(
    tasks: Sequence[MetaTask],
    out: Path,
    executor: Executor,
    done: Callable[[], None] | None = None,
    pathways: Mapping[str, Sequence[str]] | None = None,
) -> int:
    """Run all tasks, gather their parts into the result tables, test pathways; return the number of failed genes."""
    failed = sum(executor.run(run_meta_task, tasks, done))
    gather_results(tasks, out)
    gather_between(tasks, out)
    open_strongest(tasks, out, executor)
    write_pathways(tasks, out, pathways or {})
    return failed


def run_meta_task(task: MetaTask) -> int:
    """Test the genes of a batch and write its parts; return the number of genes that failed."""
    if task.is_done:
        return count_failed(task.part("tests"))
    bundles = [open_once(path) for path in task.bundles]
    results, between, failed = TaskResults(), BetweenStudies(), 0
    for gene in open_genes(task.genes, bundles, task.rules):
        notes = gene.notes
        try:
            _run_gene(gene, results, between)
        except GENE_FAILURES as error:
            notes.append(f"failed: {error or type(error).__name__}")
        failed += bool(notes)
        for group in gene.groups if notes else []:
            for test in (name for name in task.rules.tests.names if name not in PATHWAY):
                missing = missing_result(len(group.traits), "; ".join(notes))
                results.tests.add(failed_row(gene.request, test, group), group.traits, missing)
    parts = between.write(task) if len(bundles) > 1 else []
    seal_parts(task.folder, task.number, [*parts, *results.write(task)])
    return failed


def _run_gene(gene: GeneAcrossStudies, results: TaskResults, between: BetweenStudies) -> None:
    """Sum and test one gene for all traits."""
    tests = [TESTS[name] for name in gene.rules.tests.names if name in TESTS]
    with_masks = any(test.scope == "mask" for test in tests)
    for view in gene.views:
        results.add_audit(view)
        found = view.sums_by_limit(
            with_studies=any(test.by_study for test in tests),
            with_replicates=any(test.is_search for test in tests),
            rows=tested_variants(view.selections, with_masks),
        )
        carriers = {}
        for sums in found:
            evaluate_gene(view, sums, results)
            results.variants.add(view, sums.every)
            if sums.every.calibrated and sums.every.kind == "binary":
                carriers[sums.every.traits[0]] = sums.every.carriers
        between.add(view, carriers)
