"""An exome of 20,000 genes is a few thousand tasks of like cost, whatever the number of samples and variants."""

from __future__ import annotations

import heapq
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from pipeline.config import ScoreStatistics, Tests
from pipeline.io.catalogue import Catalogue, StudyVariants
from pipeline.io.gene_sets import GeneSets
from pipeline.io.plink import BedFile
from pipeline.stages.meta.tasks import plan_tasks
from pipeline.stages.score_statistics import bound_batch, plan_batches

GENES, HUGE = 20_000, 10_000
MOST_TASKS = 5_000
NOWHERE = Path("nowhere")


def make_catalogue(mean: int) -> Catalogue:
    """Genes on 22 chromosomes, variants by a log-normal law, one gene of 10,000; keys are left out, as nobody asks."""
    rng = np.random.default_rng(mean)
    size = np.maximum(1, rng.lognormal(np.log(mean) - 0.5, 1.0, GENES).astype(np.int64)).clip(max=HUGE // 2)
    size[GENES // 2] = HUGE
    chromosome = np.sort(rng.integers(1, 23, GENES)).astype(str).astype(object)
    offsets = np.concatenate([[0], np.cumsum(size)])
    position = np.arange(offsets[-1]) + 1
    names = np.array([f"G{i}" for i in range(GENES)], object)
    text = np.full(offsets[-1], "A", object)
    sets = GeneSets(
        NOWHERE, names, chromosome, position[offsets[:-1]], position[offsets[1:] - 1], offsets, text, np.arange(GENES)
    )
    member = np.ones((1, len(position)), np.bool_)
    return Catalogue(sets, np.repeat(chromosome, size), position, text, text, ("M1",), member, "synthetic")


def locate_all(c: Catalogue) -> StudyVariants:
    """The fileset has what the catalogue lists."""
    rows, n = np.arange(len(c.position)), len(c.position)
    return StudyVariants(
        rows, c.chromosome, c.position, c.ref, c.alt, np.ones(n, np.bool_), c.sets.offsets, rows,
        np.zeros(len(c.sets), np.int64),
    )  # fmt: skip


def efficiency(costs: np.ndarray, workers: int) -> float:
    """Share of the time that workers are busy, each taking the next task when it is free."""
    free = [0.0] * workers
    for cost in costs:
        heapq.heappush(free, heapq.heappop(free) + cost)
    return float(costs.sum() / (workers * max(free)))


@pytest.mark.parametrize(("samples", "mean"), [(5_000, 20), (50_000, 60), (500_000, 100)])
def test_an_exome_is_a_few_thousand_batches_of_like_cost(samples, mean):
    catalogue = make_catalogue(mean)
    bed = BedFile(NOWHERE, samples, len(catalogue.position), 0)
    cohort = SimpleNamespace(fileset=SimpleNamespace(beds=(bed,)), traits=())
    bound = bound_batch(None, samples, 20, len(catalogue.position) * bed.row_bytes)
    tasks = plan_batches(
        cohort, catalogue, locate_all(catalogue), ScoreStatistics(), NOWHERE, NOWHERE, batch_bytes=bound
    )
    assert 22 <= len(tasks) <= MOST_TASKS
    assert sorted(gene.gene for task in tasks for gene in task.genes) == sorted(catalogue.sets.gene)
    (alone,) = [task for task in tasks if any(gene.gene == f"G{GENES // 2}" for gene in task.genes)]
    assert len(alone.genes) == 1
    costs = np.array([len(task.variants) * bed.row_bytes for task in tasks if task is not alone], float)
    assert all(len(task.variants) * bed.row_bytes <= bound for task in tasks if len(task.genes) > 1)
    assert efficiency(costs, len(tasks) // 20) > 0.85


def test_many_large_genes_share_batches(monkeypatch):
    """500 variants a gene and half a million samples: 60 MB a gene, which would be a batch of its own."""
    monkeypatch.setattr("tests.cluster.test_plans.GENES", 2_000)
    monkeypatch.setattr("pipeline.stages.score_statistics.BATCHES", 300)
    catalogue = make_catalogue(500)
    bed = BedFile(NOWHERE, 500_000, len(catalogue.position), 0)
    cohort = SimpleNamespace(fileset=SimpleNamespace(beds=(bed,)), traits=())
    bound = bound_batch(None, 500_000, 20, len(catalogue.position) * bed.row_bytes)
    tasks = plan_batches(
        cohort, catalogue, locate_all(catalogue), ScoreStatistics(), NOWHERE, NOWHERE, batch_bytes=bound
    )
    assert len(tasks) <= 500


@pytest.mark.parametrize("mean", [20, 60])
def test_an_exome_is_a_few_thousand_gene_test_tasks_of_like_cost(mean):
    catalogue = make_catalogue(mean)
    tasks = plan_tasks(catalogue, [], Tests(), "joint", None, NOWHERE)
    assert GENES / 200 <= len(tasks) <= MOST_TASKS
    assert sorted(gene.gene for task in tasks for gene in task.genes) == sorted(catalogue.sets.gene)
    (alone,) = [task for task in tasks if any(gene.gene == f"G{GENES // 2}" for gene in task.genes)]
    assert len(alone.genes) == 1
    costs = np.array([sum(len(g.position) ** 2 for g in task.genes) for task in tasks if task is not alone], float)
    assert efficiency(costs, len(tasks) // 20) > 0.85
