"""Burdens behind a gene's page: per study (forest), and without each variant, from the tables of a results folder."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from locomass.report.embed import pack_column
from locomass.report.evidence import read_rows
from locomass.schema import FORESTS, LEAVE_ONE_OUT
from locomass.tables.catalogue import ALL_VARIANTS

Key = tuple[int, str, str]  # position, alleles in alphabetical order


@dataclass(frozen=True)
class Burden:
    """The burden of a mask's variants under a MAF limit.

    Attributes:
        trait, mask, bound: which.
        lines: rows of forests.parquet; the last is that of all studies.
        without: -log10 p of the burden without each of its variants.
    """

    trait: str
    mask: str
    bound: float
    lines: list[dict[str, Any]] = field(default_factory=list)
    without: dict[Key, float] = field(default_factory=dict)


def read_burdens(results: Path, genes: Collection[str]) -> dict[str, list[Burden]]:
    """Return the burdens of some genes, those of the strongest rows first."""
    found: dict[str, dict[tuple[str, str, float], Burden]] = {}
    for row in read_rows(results / FORESTS.name, [c.name for c in FORESTS.columns], genes):
        key = (row["trait"], row["mask"], row["max_maf"])
        found.setdefault(row["gene"], {}).setdefault(key, Burden(*key)).lines.append(row)
    for row in read_rows(results / LEAVE_ONE_OUT.name, [c.name for c in LEAVE_ONE_OUT.columns], genes):
        burden = found.get(row["gene"], {}).get((row["trait"], row["mask"], row["max_maf"]))
        if burden is not None:
            low, high = sorted((row["ref"], row["alt"]))
            burden.without[row["position"], low, high] = row["log10p_without"]
    return {gene: list(burdens.values()) for gene, burdens in found.items()}


def pack_burden(burden: Burden, traits: Sequence[str], shown: Sequence[Key]) -> dict[str, Any]:
    """Return one burden as the page's scripts draw it.

    Args:
        burden: the burden.
        traits: names of the traits of the gene's page.
        shown: variants of the gene's page.
    """
    *studies, pooled = burden.lines
    lines = burden.lines if len(studies) > 1 else studies
    numbers = ("beta", "ci_low", "ci_high", "n_variants")
    place = [k for k, key in enumerate(shown) if key in burden.without]
    return {
        "trait": traits.index(burden.trait),
        "mask": "" if burden.mask == ALL_VARIANTS else burden.mask,
        "bound": burden.bound,
        "n_variants": pooled["n_variants"],
        **{name: pooled[name] for name in ("log10p", "q", "i2")},
        "lines": [[line["study"], *(float(f"{line[name]:.5g}") for name in numbers)] for line in lines],
        "variant": pack_column(np.array(place, np.int64), "u2"),
        "without": pack_column(np.array([burden.without[shown[k]] for k in place]), "f4"),
    }
