"""studies.tsv, residuals.tsv and predictors.json: what the combined bundles say of themselves, for the report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from locomass.bundle.study import Bundle
from locomass.bundle.tables import read_bundle_table
from locomass.files.results import write_tsv
from locomass.run.provenance import write_json
from locomass.schema import ALL, BUNDLE_VARIANTS, PREDICTORS, RESIDUALS, STUDIES
from locomass.variants.identity import canonical_alleles

LABELS = ("chromosome", "position", "ref", "alt")


def write_studies(bundles: Sequence[Bundle], out: Path) -> None:
    """Write the three tables of a results folder."""
    rows = [row for bundle in bundles for row in _study_rows(bundle)]
    total = {"study": ALL, "trait": ALL, "n_variants": count_variants(bundles)}
    write_tsv(out / STUDIES.name, pa.Table.from_pylist([*rows, total], schema=STUDIES.arrow))
    bins = [row for bundle in bundles for row in _residual_rows(bundle)]
    write_tsv(out / RESIDUALS.name, pa.Table.from_pylist(bins, schema=RESIDUALS.arrow))
    write_json(out / PREDICTORS, {bundle.study: _predictors(bundle) for bundle in bundles})


def _study_rows(bundle: Bundle) -> Iterator[dict[str, Any]]:
    """Give a row per trait of a study."""
    info = bundle.info
    head = {
        "study": bundle.study,
        "genome_build": info.get("genome_build") or "",
        "software": info.get("software") or "",
        "predictor": str(info.get("predictor") or "none"),
        "n_variants": bundle.variant_file.num_rows,
    }
    for name, trait in bundle.traits.items():
        shape = {key: (trait.get("histogram") or {}).get(key) for key in ("skewness", "kurtosis")}
        people = {"n_samples": int(trait["n_samples"]), "n_cases": trait.get("n_cases")}
        yield {**head, "trait": name, "kind": trait["kind"], **people, **shape}


def _residual_rows(bundle: Bundle) -> Iterator[dict[str, Any]]:
    """Give the bins of every trait whose residuals the study describes."""
    for name, trait in bundle.traits.items():
        shape = trait.get("histogram")
        if shape is None:
            continue
        edges = [-np.inf, *shape["edge"], np.inf]
        for low, high, n in zip(edges[:-1], edges[1:], shape["count"], strict=True):
            place = {"study": bundle.study, "trait": name, "chromosome": shape["chromosome"]}
            yield {**place, "low": low, "high": high, "n": n}


def _predictors(bundle: Bundle) -> dict[str, Any]:
    """Return how the predictor of every trait was made, and what its making warned of."""
    traits = {name: trait["predictor"] for name, trait in bundle.traits.items() if trait.get("predictor")}
    return {"traits": traits, "messages": bundle.info.get("messages") or []}


def count_variants(bundles: Sequence[Bundle]) -> int:
    """Return the number of distinct variants of all studies, whatever the order of their alleles."""
    if len(bundles) == 1:
        return int(bundles[0].variant_file.num_rows)
    known = np.empty(0, np.uint64)  # a hash of each, eight bytes whatever the number of studies
    for bundle in bundles:
        table = read_bundle_table(bundle.path / "variants.parquet", BUNDLE_VARIANTS, LABELS).to_pandas()
        table["ref"], table["alt"] = canonical_alleles(table["ref"].to_numpy(), table["alt"].to_numpy())
        known = np.union1d(known, pd.util.hash_pandas_object(table[[*LABELS]], index=False).to_numpy())
    return len(known)
