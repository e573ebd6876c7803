"""An exome of 20,000 genes is a few thousand tasks of like cost, whatever the number of samples and variants."""

from __future__ import annotations

import heapq
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from locomass.config import ScoreStatistics, Tests
from locomass.genotypes.bed import BedFile
from locomass.genotypes.fileset import Fileset
from locomass.meta.tasks import plan_tasks
from locomass.scores import bound_batch, plan_batches
from locomass.scores.genotypes import BatchTask
from locomass.tables.catalogue import Catalogue, StudyVariants
from locomass.tables.gene_sets import GeneSets

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


def plan(catalogue: Catalogue, samples: int) -> tuple[list[BatchTask], np.ndarray]:
    """The batches of a .bed, which is not there, and the expected carriers of every variant."""
    everybody = pd.DataFrame({"fid": range(samples), "iid": range(samples), "sex": 0})
    variants = pd.DataFrame(index=range(len(catalogue.position)))
    part = BedFile(NOWHERE, variants, everybody)
    fileset = Fileset((part,), str(NOWHERE), variants, *(everybody[k].to_numpy() for k in ("fid", "iid", "sex")))
    cohort = SimpleNamespace(fileset=fileset, traits=())
    cost = fileset.cost(np.arange(len(catalogue.position))).carriers
    bound = bound_batch(None, samples, 20, cost.sum())
    options = {"folder": NOWHERE, "kept": NOWHERE, "bound": bound}
    return plan_batches(cohort, catalogue, locate_all(catalogue), ScoreStatistics(), **options), cost


def efficiency(costs: np.ndarray, workers: int) -> float:
    """Share of the time that workers are busy, each taking the next task when it is free."""
    free = [0.0] * workers
    for cost in costs:
        heapq.heappush(free, heapq.heappop(free) + cost)
    return float(costs.sum() / (workers * max(free)))


@pytest.mark.parametrize(("samples", "mean"), [(5_000, 20), (50_000, 60), (500_000, 100)])
def test_an_exome_is_a_few_thousand_batches_of_like_cost(samples, mean):
    catalogue = make_catalogue(mean)
    tasks, cost = plan(catalogue, samples)
    bound = bound_batch(None, samples, 20, cost.sum())
    assert 22 <= len(tasks) <= MOST_TASKS
    assert sorted(gene.gene for task in tasks for gene in task.genes) == sorted(catalogue.sets.gene)
    (alone,) = [task for task in tasks if any(gene.gene == f"G{GENES // 2}" for gene in task.genes)]
    assert len(alone.genes) == 1
    costs = np.array([cost[task.variants].sum() for task in tasks if task is not alone])
    assert all(cost[task.variants].sum() <= bound.carriers for task in tasks if len(task.genes) > 1)
    assert efficiency(costs, len(tasks) // 20) > 0.85


def test_many_large_genes_share_batches(monkeypatch):
    """500 variants a gene and half a million samples: 60 MB a gene, which would be a batch of its own."""
    monkeypatch.setattr("tests.cluster.test_plans.GENES", 2_000)
    monkeypatch.setattr("locomass.scores.BATCHES", 300)
    catalogue = make_catalogue(500)
    tasks, _ = plan(catalogue, 500_000)
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
