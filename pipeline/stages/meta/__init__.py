"""Meta-analysis: harmonise alleles, sum U and V over studies on the union of variants, run the gene tests.

One study is a meta-analysis of one. A batch of genes is one task; it opens the bundles itself and writes three Parquet
parts (gene tests, single variants, mask audit), which `gather_results` puts together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from pipeline.cluster import Executor
from pipeline.errors import GENE_FAILURES
from pipeline.gene_tests.base import missing_result
from pipeline.gene_tests.registry import HETEROGENEITY, TESTS
from pipeline.gene_tests.step_up import SEARCHES
from pipeline.io.bundle import Bundle, StudyGene, open_once
from pipeline.stages.meta.between import BetweenStudies, gather_between
from pipeline.stages.meta.collect import (
    TaskResults,
    count_failed,
    failed_row,
    gather_results,
    write_pathways,
)
from pipeline.stages.meta.evaluate import GeneView, evaluate_gene
from pipeline.stages.meta.groups import merge_groups
from pipeline.stages.meta.selection import included_variants, select_variants, tested_variants
from pipeline.stages.meta.study_effects import write_study_effects
from pipeline.stages.meta.sums import sum_studies
from pipeline.stages.meta.tasks import GeneRequest, MetaTask
from pipeline.stages.meta.unite import TraitGroup, group_traits, pool_frequencies, unite_gene
from pipeline.stages.pathways import PATHWAY

STUDY_GENES_AT_ONCE = 2_000


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
    write_study_effects(tasks, out)
    write_pathways(tasks, out, pathways or {})
    return failed


def run_meta_task(task: MetaTask) -> int:
    """Test the genes of a batch and write its parts; return the number of genes that failed."""
    if task.is_done:
        return count_failed(task.part("tests"))
    bundles = [open_once(path) for path in task.bundles]
    groups = group_traits(bundles)
    results, between, failed = TaskResults(), BetweenStudies(), 0
    for request, here in _stream_genes(task.genes, bundles):
        notes = [f"{bundles[k].study}: {gene.note}" for k, gene in here.items() if gene.note]
        try:
            _run_gene(request, here, bundles, groups, task, results, between)
        except GENE_FAILURES as error:
            notes.append(f"failed: {error or type(error).__name__}")
        failed += bool(notes)
        for group in groups if notes else []:
            for test in (name for name in task.tests.names if name not in PATHWAY):
                results.tests.add(
                    failed_row(request, test, group), group.traits, missing_result(len(group.traits), "; ".join(notes))
                )
    if len(bundles) > 1:
        between.write(task)
    results.write(task)
    return failed


def _stream_genes(
    requests: Sequence[GeneRequest], bundles: Sequence[Bundle]
) -> Iterator[tuple[GeneRequest, dict[int, StudyGene]]]:
    """Give each gene with what every study has of it; a bounded number of genes times studies is in memory."""
    at_once = max(1, STUDY_GENES_AT_ONCE // len(bundles))
    for start in range(0, len(requests), at_once):
        batch = requests[start : start + at_once]
        genes = [bundle.read_genes(request.gene for request in batch) for bundle in bundles]
        for request in batch:
            yield request, {k: found[request.gene] for k, found in enumerate(genes) if request.gene in found}


def _run_gene(
    request: GeneRequest,
    here: dict[int, StudyGene],
    bundles: Sequence[Bundle],
    groups: Sequence[TraitGroup],
    task: MetaTask,
    results: TaskResults,
    between: BetweenStudies,
) -> None:
    """Unite, sum and test one gene for all traits."""
    union = unite_gene(request, here)
    names = set(task.tests.names)
    for group in groups:
        frequency = pool_frequencies(union, group, request.external)
        selections = list(select_variants(request, union, frequency, group, task, results.audit))
        included = included_variants(union, frequency, task.tests, task.maf)
        view = GeneView.of(request, union, frequency, group, task, bundles)
        with_masks = any(name in TESTS and TESTS[name].scope == "mask" for name in names)
        for shared in sum_studies(
            bundles, union, group, request.chromosome, included, task.tests.calibrate,
            bool(names & set(SEARCHES)), bool(names & HETEROGENEITY), tested_variants(selections, with_masks),
        ):  # fmt: skip
            if task.groups and shared.per_study:
                shared = merge_groups(shared, [task.groups[k] for k in frequency.studies])
            evaluate_gene(view, shared, selections, results)
            results.variants.add(request, union, frequency, shared)
        between.add(request, union, frequency, group, selections, bundles, task)
