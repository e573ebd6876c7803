"""Pathways of genes, from the gene rows: step-up over gene burdens, and Fisher's product.

A gene's burden has U = beta / se^2 and V = 1 / se^2, both on its row, so pathways need no genotypes and no bundles.
Genes are taken as independent: V between genes is nought. Genes that share variants, or lie so close that their rare
variants are correlated, break that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config import StepUp
from pipeline.errors import MatchError
from pipeline.gene_tests.base import ScoreStatistics, TestResult
from pipeline.gene_tests.pathway import compute_fisher_product, compute_pathway_step_up
from pipeline.gene_tests.resampling import Resampling
from pipeline.gene_tests.step_up import StepUpParameters
from pipeline.schema import PATHWAY_TESTS

LN10 = float(np.log(10.0))
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
    columns = ["gene", "trait", "mask", "max_maf", "weights", "test", "beta", "se", "log10p"]
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
    for key, part in table.groupby(["trait", "mask", "max_maf", "test", "weights"], sort=True):
        trait, mask, max_maf, test, weights = key
        by_gene = part.set_index("gene")
        for pathway, genes in pathways.items():
            present = by_gene.loc[[g for g in genes if g in by_gene.index]]
            start = {
                "pathway": pathway, "trait": trait, "mask": mask, "max_maf": max_maf,
                "source": f"{test} {weights}".strip(), "n_listed": len(genes), "n_genes": len(present),
            }  # fmt: skip
            if len(present):
                rows += _rows(start, present, (test, weights), names, step_up)
    return pa.Table.from_pylist(rows, schema=PATHWAY_TESTS.arrow)


def _rows(
    start: dict[str, Any], present: pd.DataFrame, source: tuple[str, str], names: Sequence[str], step_up: StepUp
) -> Iterator[dict[str, Any]]:
    """Give the rows of one pathway and source."""
    if "pathway-fisher" in names:
        result = compute_fisher_product(-present["log10p"].to_numpy()[None] * LN10)
        yield {**start, "test": "pathway-fisher", **_columns(result), "chosen": ""}
    if "pathway-step-up" in names and source[0] == BURDEN:
        V = 1.0 / present["se"].to_numpy() ** 2
        one = np.ones(1)
        genes = [
            ScoreStatistics(np.array([[b * v]]), np.array([[v]]), one, 0.01 * one, one, 1e4 * one, np.array([True]))
            for b, v in zip(present["beta"].to_numpy(), V, strict=True)
        ]
        parameters = make_parameters(step_up)
        result = compute_pathway_step_up(
            genes, StepUpParameters(signs=parameters.signs, resampling=parameters.resampling)
        )
        taken = np.asarray(result.detail["chosen"])[0] if "chosen" in result.detail else np.zeros(len(genes), bool)
        yield {**start, "test": "pathway-step-up", **_columns(result), "chosen": ",".join(present.index[taken])}


def _columns(result: TestResult) -> dict[str, Any]:
    """Return the columns of one result."""
    log_p = float(result.log_p[0])
    return {
        "statistic": float(result.statistic[0]),
        "p": float(np.exp(log_p)),
        "log10p": abs(log_p) / LN10,
        "p_error": float("nan") if result.p_error is None else float(result.p_error[0]),
        "method": result.method,
        "note": result.note,
    }
