"""denoising.tsv of a meta-analysis: what de-noising did in every study, and what it gained over all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from locomass.bundle.study import Bundle
from locomass.files.results import write_tsv
from locomass.schema import ALL, DENOISING
from locomass.variants.chromosomes import chromosome_order


def write_ledger(bundles: Sequence[Bundle], path: Path) -> None:
    """Write denoising.tsv.

    ``n_effective = n / (1 - r2)`` per chromosome of a quantitative trait; over chromosomes its mean, over studies the
    sum: the noncentrality of de-noised studies together is ``sum_k n_k b2 / (1 - R2_k)`` (Bulik-Sullivan 2015).
    """
    rows = [row for bundle in bundles for name in bundle.traits for row in trait_rows(bundle, name)]
    names = list(dict.fromkeys(name for bundle in bundles for name in bundle.traits))
    totals = [sum_rows([r for r in rows if r["trait"] == name and r["chromosome"] == ALL], name) for name in names]
    write_tsv(path, pa.Table.from_pylist([*rows, *totals], schema=DENOISING.arrow))


def trait_rows(bundle: Bundle, name: str) -> Iterator[dict[str, Any]]:
    """Give the rows of one trait of a study: by chromosome, then their mean."""
    trait = bundle.traits[name]
    records = sorted(trait.get("denoising") or [], key=lambda r: chromosome_order(str(r["chromosome"])))
    head = {"study": bundle.study, "trait": name, "kind": trait["kind"]}
    people = {"n_samples": int(trait["n_samples"]), "n_cases": trait.get("n_cases")}
    rows = [_chromosome_row(record, trait, {**head, **people}) for record in records]
    yield from (row for row in rows if row["chromosome"] != ALL)
    names = ("slope", "slope_se", "r2", "sigma2_before", "sigma2_after", "n_effective")
    mean = {key: _mean([row[key] for row in rows]) for key in names}
    if not rows:
        mean["n_effective"] = float(trait["n_samples"])
    mean["gain"] = mean["n_effective"] / trait["n_samples"]
    design = {row["n_covariates"] for row in rows}
    about = {"use": rows[0]["use"] if rows else "unknown", "n_covariates": design.pop() if len(design) == 1 else None}
    yield {**head, "chromosome": ALL, **about, **people, **mean}


def _chromosome_row(record: dict[str, Any], trait: dict[str, Any], head: dict[str, Any]) -> dict[str, Any]:
    """Return the row of one null model."""
    what = {"chromosome": str(record["chromosome"]), "use": str(record.get("use", "unknown"))}
    return {**head, **what, "n_covariates": record.get("n_covariates"), **_figures(record, trait)}


def _figures(record: dict[str, Any], trait: dict[str, Any]) -> dict[str, float]:
    """Return the figures of one null model; those that are absent or not numbers are NaN."""
    figure = {name: _number(record.get(name)) for name in ("slope", "slope_se", "r2")}
    figure["sigma2_before"] = _number(record.get("variance_before"))
    figure["sigma2_after"] = _number(record.get("variance_after"))
    r2 = figure["r2"] if np.isfinite(figure["r2"]) and figure["r2"] < 1 else 0.0
    known = trait["kind"] == "quantitative"
    n = float(trait["n_samples"])
    return {**figure, "n_effective": n / (1 - r2) if known else np.nan, "gain": 1 / (1 - r2) if known else np.nan}


def sum_rows(rows: Sequence[dict[str, Any]], name: str) -> dict[str, Any]:
    """Return the row of all studies of one trait, from their rows over chromosomes."""
    n = sum(row["n_samples"] for row in rows)
    cases = [row["n_cases"] for row in rows]
    effective = float(np.sum([row["n_effective"] for row in rows]))
    uses = {row["use"] for row in rows}
    nan = float("nan")
    return {
        "study": ALL,
        "trait": name,
        "kind": rows[0]["kind"],
        "chromosome": ALL,
        "use": uses.pop() if len(uses) == 1 else "several",
        "n_samples": n,
        "n_cases": None if None in cases else sum(cases),
        "slope": nan,
        "slope_se": nan,
        "r2": 1 - n / effective if effective >= n else nan,
        "sigma2_before": nan,
        "sigma2_after": nan,
        "n_effective": effective,
        "gain": effective / n,
    }


def _number(value: Any) -> float:
    """Return a number of a stranger's record as a float, NaN where it is none."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else float("nan")


def _mean(values: Sequence[float]) -> float:
    finite = [v for v in values if np.isfinite(v)]
    return float(np.mean(finite)) if finite else float("nan")
