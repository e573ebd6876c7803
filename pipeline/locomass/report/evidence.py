"""What gene pages show beside the tests: drivers of a row, searches by permutation, tests given index variants."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from locomass.errors import InputError
from locomass.report.embed import shorten

MAX_ROWS = 12  # rows of gene_tests per gene and trait whose drivers are shown
MAX_CONDITIONAL = 60  # conditional rows per gene


def read_drivers(path: Path, genes: Collection[str]) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of gene_tests whose drivers are known, strongest first, each with its variants.

    Returns:
        gene -> [{trait, test, mask, bound, log10p, detail, variants: [[position, ref, alt, share, z, log10p without
        it], ...]}, ...].
    """
    names = [
        "gene",
        "trait",
        "mask",
        "max_maf",
        "weights",
        "test",
        "log10p",
        "detail",
        "position",
        "ref",
        "alt",
        "share",
        "z",
        "log10p_without",
    ]
    found: dict[str, dict[tuple[Any, ...], dict[str, Any]]] = {}
    for row in read_rows(path, names, genes):
        key = (row["trait"], row["mask"], row["max_maf"], row["weights"], row["test"])
        head = {
            "trait": row["trait"],
            "test": _name_test(row),
            "mask": row["mask"],
            "bound": row["max_maf"],
            "log10p": row["log10p"],
            "detail": row["detail"],
            "variants": [],
        }
        one = found.setdefault(row["gene"], {}).setdefault(key, head)
        alleles = [shorten(row["ref"]), shorten(row["alt"])]
        one["variants"].append([row["position"], *alleles, row["share"], row["z"], row["log10p_without"]])
    return {gene: _strongest_per_trait(list(rows.values())) for gene, rows in found.items()}


def _strongest_per_trait(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the strongest rows of every trait."""
    kept: list[dict[str, Any]] = []
    count: dict[str, int] = {}
    for row in sorted(rows, key=lambda r: -r["log10p"]):
        count[row["trait"]] = count.get(row["trait"], 0) + 1
        if count[row["trait"]] <= MAX_ROWS:
            kept.append(row)
    return kept


def read_conditional(path: Path, genes: Collection[str]) -> dict[str, list[list[Any]]]:
    """Return the tests given index variants, as `locomass conditional` left them in the results folder.

    Returns:
        gene -> [[trait, test, mask, bound, variants, log10p, index variants], ...], strongest first.
    """
    names = ["gene", "trait", "mask", "max_maf", "weights", "test", "n_variants", "log10p", "index_variants"]
    found: dict[str, list[list[Any]]] = {}
    for row in read_rows(path, names, genes):
        index = ", ".join(":".join(map(shorten, name.split(":"))) for name in row["index_variants"].split(","))
        cells = [row["trait"], _name_test(row), row["mask"], row["max_maf"], row["n_variants"], row["log10p"], index]
        found.setdefault(row["gene"], []).append(cells)
    for rows in found.values():
        rows.sort(key=lambda r: -(r[5] if r[5] is not None else -1.0))
        del rows[MAX_CONDITIONAL:]
    return found


def read_searches(path: Path, genes: Collection[str]) -> dict[str, list[list[Any]]]:
    """Return the searches by permutation of some genes.

    Returns:
        gene -> [[trait, search, mask, bound, variants, z2, log10p, relative error of p, permutations, exceedances,
        grouping, variants of the winning set, note], ...], strongest first.
    """
    names = [
        "gene",
        "trait",
        "test",
        "mask",
        "max_maf",
        "n_variants",
        "statistic",
        "log10p",
        "p_error",
        "permutations",
        "exceedances",
        "grouping",
        "chosen",
        "note",
    ]
    found: dict[str, list[list[Any]]] = {}
    for row in read_rows(path, names, genes):
        row["chosen"] = row["chosen"].replace(",", ", ")
        found.setdefault(row["gene"], []).append([row[name] for name in names[1:]])
    for rows in found.values():
        rows.sort(key=lambda r: -(r[6] if r[6] is not None and r[6] == r[6] else -1.0))
    return found


def _name_test(row: Mapping[str, Any]) -> str:
    """Return the test with its weights."""
    return f"{row['test']} ({row['weights']})" if row["weights"] else str(row["test"])


def read_rows(path: Path, names: Sequence[str], genes: Collection[str]) -> list[dict[str, Any]]:
    """Return rows of a table of some genes; nothing where there is no table."""
    if not path.exists():
        return []
    try:
        table = pq.read_table(path, columns=list(names))
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path} cannot be read: {error}") from None
    return list(table.filter(pc.is_in(table["gene"], pa.array(list(genes), pa.string()))).to_pylist())
