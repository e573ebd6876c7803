"""Pathways of genes, from the gene rows: step-up over gene burdens, and Fisher's product.

A gene's burden has V = 1 / se^2 and U = z / se, z of the sign of beta and with the row's p, so that the law behind p
counts; for a normal score that is beta / se^2. All is on its row: pathways need no genotypes and no bundles. V between
genes is on no row, and genes that overlap or are neighbours are correlated. So genes less than 1 Mb apart are one:
Fisher's product takes the half-Cauchy combination of their p-values, step-up the burden with most alleles, which says
nothing of its p.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from locomass.config import StepUp
from locomass.errors import MatchError
from locomass.gene_tests.base import ScoreStatistics, TestResult
from locomass.gene_tests.pathway import (
    cluster_genes,
    combine_clusters,
    compute_fisher_product,
    compute_pathway_step_up,
)
from locomass.gene_tests.resampling import Resampling
from locomass.gene_tests.step_up import StepUpParameters
from locomass.gene_tests.tails import chi2_isf_log
from locomass.numbers import LN10
from locomass.schema import PATHWAY_TESTS

PATHWAY = ("pathway-step-up", "pathway-fisher")
BURDEN = "burden"


def make_parameters(step_up: StepUp) -> StepUpParameters:
    """Return the parameters of the searches from the configuration."""
    return StepUpParameters(
        weights=step_up.weights,
        signs=step_up.signs,
        categorical=tuple(step_up.categorical),
        low_is_damaging=tuple(step_up.low_is_damaging),
        resampling=Resampling(step_up.permutations, step_up.exceedances, seed=step_up.seed),
    )


def run_pathways(
    gene_tests: Path, pathways: Mapping[str, Sequence[str]], names: Sequence[str], step_up: StepUp
) -> pa.Table:
    """Return the table of pathway tests.

    Fisher's product combines the rows of every gene test and set of weights in the table; step-up the burden
    rows of every set of weights: ``flat`` and ``madsen-browning`` are the constant and the inverse-sd ones.

    Args:
        gene_tests: gene_tests.parquet.
        pathways: genes by pathway.
        names: tests of the configuration; others than the two pathway tests are passed over.
        step_up: of the configuration.

    Raises:
        MatchError: no gene of any pathway is in the table.
    """
    keys = ["trait", "mask", "max_maf", "test", "weights"]
    columns = ["gene", "chromosome", "start", "end", *keys, "mac", "beta", "se", "log10p"]
    table = pq.read_table(gene_tests, columns=columns).to_pandas()
    table = table[(table["mask"] != "") & table["log10p"].notna() & (table["test"] != "omnibus")]
    known = set(table["gene"])
    if not any(known & set(genes) for genes in pathways.values()):
        first = next(iter(pathways.values()))[0]
        raise MatchError(
            f"no gene of the pathways (such as '{first}') has a result (such as '{next(iter(known), 'none')}'); "
            "genes are matched by name"
        )
    rows: list[dict[str, Any]] = []
    for key, part in table.groupby(keys, sort=True):
        trait, mask, max_maf, test, weights = key
        by_gene = part.set_index("gene")
        for pathway, genes in pathways.items():
            present = by_gene.loc[[g for g in genes if g in by_gene.index]]
            start = {
                "pathway": pathway,
                "trait": trait,
                "mask": mask,
                "max_maf": max_maf,
                "source": f"{test} {weights}".strip(),
                "n_listed": len(genes),
                "n_genes": len(present),
            }
            if len(present):
                rows += _rows(start, present, (test, weights), names, step_up)
    return pa.Table.from_pylist(rows, schema=PATHWAY_TESTS.arrow)


def _rows(
    start: dict[str, Any], present: pd.DataFrame, source: tuple[str, str], names: Sequence[str], step_up: StepUp
) -> Iterator[dict[str, Any]]:
    """Give the rows of one pathway and source."""
    places = (present[name].to_numpy() for name in ("start", "end"))
    cluster = cluster_genes(present["chromosome"].tolist(), *places)
    n_clusters = int(cluster.max()) + 1
    note = (
        f"genes less than 1 Mb apart count as one: {n_clusters} of {len(present)}" if n_clusters < len(present) else ""
    )
    if "pathway-fisher" in names:
        result = compute_fisher_product(combine_clusters(-present["log10p"].to_numpy()[None] * LN10, cluster))
        yield {**start, "test": "pathway-fisher", **_columns(result, note), "chosen": ""}
    if "pathway-step-up" in names and source[0] == BURDEN:
        own = np.lexsort((-present["mac"].to_numpy(), cluster))  # most alleles of each cluster first
        present = present.iloc[np.sort(own[np.unique(cluster[own], return_index=True)[1]])]
        genes = _burdens_of(present)
        parameters = make_parameters(step_up)
        result = compute_pathway_step_up(
            genes, StepUpParameters(signs=parameters.signs, resampling=parameters.resampling)
        )
        taken = np.zeros(len(genes), bool) if result.detail.chosen is None else result.detail.chosen[0]
        yield {**start, "test": "pathway-step-up", **_columns(result, note), "chosen": ",".join(present.index[taken])}


def _burdens_of(present: pd.DataFrame) -> list[ScoreStatistics]:
    """Return score and variance of every gene's burden."""
    beta, se, log10p = (present[name].to_numpy() for name in ("beta", "se", "log10p"))
    z = np.sign(beta) * np.sqrt(chi2_isf_log(-log10p * LN10))
    one = np.ones(1)
    return [
        ScoreStatistics(np.array([[u]]), np.array([[v]]), one, 0.01 * one, one, 1e4 * one, np.array([True]))
        for u, v in zip(z / se, 1.0 / se**2, strict=True)
    ]


def _columns(result: TestResult, note: str) -> dict[str, Any]:
    """Return the columns of one result."""
    log_p = float(result.log_p[0])
    return {
        "statistic": float(result.statistic[0]),
        "p": float(np.exp(log_p)),
        "log10p": abs(log_p) / LN10,
        "p_error": float("nan") if result.p_error is None else float(result.p_error[0]),
        "method": result.method,
        "note": "; ".join(x for x in (result.note, note) if x),
    }
