"""The results in a few lines: for the end of a run on the terminal, its JSON object, and the page's summary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from locomass.report.tables import GeneTests, read_gene_tests

Codes = NDArray[np.int64]
STRONGEST = ("gene", "trait", "test", "mask", "max_maf", "variants", "p")
TOP = 5


def strongest_rows(log10p: NDArray[np.float64], k: int) -> Codes:
    """Return the k rows with the smallest p-values, in that order; those without a p-value last."""
    value = -np.nan_to_num(log10p, nan=-1.0)
    chosen = np.sort(np.argpartition(value, k)[:k]) if k < len(value) else np.arange(len(value))
    return chosen[np.argsort(value[chosen], kind="stable")]


def strongest_pairs(tests: GeneTests, k: int) -> Codes:
    """Return the row with the smallest p-value of each of the k strongest pairs of gene and trait."""
    pair = tests.label["gene"].codes * len(tests.label["trait"].labels) + tests.label["trait"].codes
    order = np.argsort(-np.nan_to_num(tests.log10p, nan=-1.0), kind="stable")
    order = order[~np.isnan(tests.log10p[order])]
    return order[np.sort(np.unique(pair[order], return_index=True)[1])[:k]]


def describe_results(folder: Path) -> dict[str, Any]:
    """Return counts and the strongest genes of a results folder; empty where no gene was tested.

    Returns:
        ``genes``, ``traits``, ``gene_tests``, ``missing_p`` (rows without a p-value), and ``strongest``: of each of the
        five strongest pairs of gene and trait the row with the smallest p-value, by the names of `STRONGEST`, with
        ``log10p``.
    """
    path = folder / "gene_tests.parquet"
    if not path.exists():
        return {}
    tests = read_gene_tests(path)
    return {
        "genes": len(np.unique(tests.label["gene"].codes)),
        "traits": len(np.unique(tests.label["trait"].codes)),
        "gene_tests": len(tests),
        "missing_p": int(np.isnan(tests.log10p).sum()),
        "strongest": [_describe_row(tests, row) for row in strongest_pairs(tests, TOP).tolist()],
    }


def _describe_row(tests: GeneTests, row: int) -> dict[str, Any]:
    """Return one row by the names of `STRONGEST`, with log10p."""
    names = {"gene": "gene", "trait": "trait", "test": "row_test", "mask": "mask"}
    text = {name: tests.label[column].labels[tests.label[column].codes[row]] for name, column in names.items()}
    log10p = float(tests.log10p[row])
    numbers = {"max_maf": float(tests.number["max_maf"][row]), "variants": int(tests.number["n_variants"][row])}
    return {**text, **numbers, "p": 10**-log10p, "log10p": log10p}
