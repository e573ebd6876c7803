"""What changed between two result sets of one study: genes that crossed the threshold, lambda, R2."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from locomass.files.atomic import atomic_path
from locomass.report.quantiles import compute_lambda
from locomass.run.provenance import write_json

ALPHA = 0.05  # family-wise, divided by the number of genes


@dataclass(frozen=True)
class ResultSet:
    """The tables of one result set that are compared.

    Attributes:
        best: smallest p-value of every gene and trait over masks, bins, weights and tests.
        inflation: lambda over all gene tests, by trait.
        r2: share of the trait's variance that the prediction explains, mean over chromosomes, by trait.
    """

    best: pd.DataFrame
    inflation: dict[str, float]
    r2: dict[str, float]


def read_result_set(folder: Path) -> ResultSet:
    """Read what is compared of a results folder."""
    columns = ["gene", "trait", "mask", "max_maf", "weights", "test", "log10p"]
    tests = pq.read_table(folder / "gene_tests.parquet", columns=columns).to_pandas()
    inflation = {str(t): compute_lambda(rows["log10p"].to_numpy()) for t, rows in tests.groupby("trait", sort=True)}
    known = tests[tests["log10p"].notna()]
    best = known.loc[known.groupby(["gene", "trait"])["log10p"].idxmax()].set_index(["gene", "trait"])
    models = pd.read_csv(folder / "null_models.tsv", sep="\t", dtype={"trait": str})
    r2 = models.groupby("trait")["r2"].mean().to_dict()
    return ResultSet(best, inflation, {str(t): float(v) for t, v in r2.items()})


def compare_results(before: Path, after: Path) -> dict[str, Any]:
    """Return what changed between two results folders.

    Args:
        before, after: folders with gene_tests.parquet and null_models.tsv.

    Returns:
        ``threshold``: 0.05 over the number of genes now; ``traits``: lambda and R2 before and after; ``gained`` and
        ``lost``: genes whose smallest p-value crossed the threshold, with p before and after and the test that gave it.
    """
    old, new = read_result_set(before), read_result_set(after)
    n_genes = new.best.index.get_level_values("gene").nunique()
    threshold = ALPHA / max(n_genes, 1)
    both = new.best.join(old.best["log10p"].rename("log10p_before"), how="outer")
    limit = -np.log10(threshold)
    was, now = both["log10p_before"] >= limit, both["log10p"] >= limit
    traits = {
        trait: {
            "lambda": [old.inflation.get(trait), new.inflation.get(trait)],
            "r2": [old.r2.get(trait), new.r2.get(trait)],
        }
        for trait in sorted({*old.inflation, *new.inflation})
    }
    return {
        "before": before.name,
        "after": after.name,
        "threshold": threshold,
        "genes": n_genes,
        "traits": traits,
        "gained": _crossings(both[now & ~was]),
        "lost": _crossings(both[was & ~now]),
    }


def _crossings(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Return one record for each gene and trait, the smallest p-value first."""
    order = rows[["log10p", "log10p_before"]].max(axis=1).sort_values(ascending=False, kind="stable").index
    return [
        {
            "gene": gene,
            "trait": trait,
            "log10p_before": float(row["log10p_before"]),
            "log10p": float(row["log10p"]),
            "test": row["test"] if isinstance(row["test"], str) else "",
            "mask": row["mask"] if isinstance(row["mask"], str) else "",
        }
        for (gene, trait), row in rows.loc[order].iterrows()
    ]


def write_changes(folder: Path, changes: dict[str, Any], news: dict[str, str]) -> None:
    """Write changes.json and changes.md.

    Args:
        folder: the new result set.
        changes: what `compare_results` returned.
        news: trait -> file of summary statistics that came.
    """
    write_json(folder / "changes.json", {**changes, "new_files": news})
    with atomic_path(folder / "changes.md") as temporary:
        temporary.write_text("\n".join(_describe(changes, news)) + "\n", encoding="utf-8")


def _describe(changes: dict[str, Any], news: dict[str, str]) -> list[str]:
    """Return the lines of changes.md."""
    lines = [f"# {changes['before']} to {changes['after']}", ""]
    lines += [f"- new summary statistics of {trait}: {name}" for trait, name in news.items()]
    lines += ["", "| trait | lambda before | lambda now | R2 before | R2 now |", "|---|---|---|---|---|"]
    for trait, values in changes["traits"].items():
        cells = [_number(x) for x in (*values["lambda"], *values["r2"])]
        lines.append(f"| {trait} | {' | '.join(cells)} |")
    for title, key in (("Genes that passed the threshold", "gained"), ("Genes that fell below it", "lost")):
        lines += ["", f"## {title}: {len(changes[key])}", ""]
        if changes[key]:
            lines += ["| gene | trait | -log10 p before | now | test | mask |", "|---|---|---|---|---|---|"]
        for row in changes[key]:
            cells = [_number(row["log10p_before"], 2), _number(row["log10p"], 2), row["test"], row["mask"]]
            lines.append(f"| {row['gene']} | {row['trait']} | {' | '.join(cells)} |")
    lines += ["", f"Threshold: p < {changes['threshold']:.3g}, 0.05 over {changes['genes']:,} genes, on the smallest "]
    lines[-1] += "p-value of a gene over masks, bins, weights and tests."
    return lines


def _number(value: float | None, digits: int = 3) -> str:
    """Return a number, or a dash where there is none."""
    return "-" if value is None or np.isnan(value) else f"{value:.{digits}f}"
