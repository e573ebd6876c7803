"""study_effects.parquet: rows with a small p-value, study by study. What forest plots and leave-one-study-out show."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from locomass.gene_tests.base import ScoreStatistics
from locomass.gene_tests.registry import TESTS
from locomass.gene_tests.study_influence import study_influence
from locomass.meta.gene import GeneAcrossStudies, GeneView
from locomass.meta.selection import tested_variants
from locomass.numbers import LN10

MOST_ROWS = 1000


def find_small(path: Path, limit: float) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of gene_tests.parquet with p below the limit, by gene, row groups read one at a time.

    Of more than a thousand the thousand smallest are taken. Searches over groupings have no rows: they would be other
    searches without the study.
    """
    names = ["gene", "trait", "mask", "max_maf", "weights", "test", "log10p", "note"]
    tests = pa.array([name for name, test in TESTS.items() if not test.is_search])
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


def study_effects(gene: GeneAcrossStudies, rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Give the rows of study_effects.parquet of one gene, from its rows of gene_tests."""
    for view in gene.views:
        mine = [row for row in rows if row["trait"] in view.group.traits]
        if not mine or len(view.studies) < 2:
            continue
        with_masks = any(TESTS[row["test"]].scope == "mask" for row in mine)
        selections = {(s.mask, s.max_maf): s for s in view.selections}
        for sums in view.sums_by_limit(with_studies=True, rows=tested_variants(view.selections, with_masks)):
            for row in (row for row in mine if row["trait"] in sums.every.traits):
                scope, shared = TESTS[row["test"]].scope, sums.under[row["max_maf"]]
                stats = view.statistics(shared, selections[row["mask"], row["max_maf"]], scope)
                yield from _row_by_study(view, row, stats, view.ultra_rare(shared))


def _row_by_study(
    view: GeneView, row: dict[str, Any], stats: ScoreStatistics, ultra_rare: float
) -> Iterator[dict[str, Any]]:
    """Give a row alone in every study, and with the study left out."""
    alone, without = study_influence(
        stats,
        row["test"],
        row["weights"],
        collapse_mac=view.rules.tests.collapse_mac,
        collapsed_weight=view.rules.tests.collapsed_weight,
        ultra_rare=ultra_rare,
        ties=view.rules.tests.ties,
        firth=view.rules.tests.effects == "firth",
    )
    groups = view.rules.groups
    for k, (_, V, _), one, rest in zip(view.frequency.studies, stats.per_study, alone, without, strict=True):
        yield {
            **{name: row[name] for name in ("gene", "trait", "mask", "max_maf", "weights", "test")},
            "log10p": row["log10p"],
            "study": view.bundles[k].study,
            "group": groups[k] if groups else "",
            "n_samples": int(view.bundles[k].traits[row["trait"]]["n_samples"]),
            "n_variants": int(np.count_nonzero(np.diag(V) > 0)),
            "beta": _first(one.beta),
            "se": _first(one.se),
            "log10p_alone": abs(_first(one.log_p)) / LN10,
            "log10p_without": abs(_first(rest.log_p)) / LN10,
        }


def _first(values: Any) -> float:
    return float("nan") if values is None else float(values[0])
