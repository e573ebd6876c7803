"""What a prediction is worth, per trait: R2, share of h2, slope, gain, what to try next; as a sentence and a row."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from locomass.files.atomic import atomic_path
from locomass_predictors.method import Source
from locomass_predictors.registry import METHODS

NOTHING = 2.0  # standard errors of a correlation: below, a prediction is no better than nothing
POOR_SHARE = 0.3  # of the heritability
SLOPE_RANGE = (0.8, 1.2)
#: columns of verdicts.tsv, from the record
COLUMNS = (
    "method",
    "r2_observed",
    "r2_se",
    "r2_promised",
    "h2",
    "share_of_h2",
    "slope",
    "slope_se",
    "gain",
    "overlap_share",
    "overlap_share_se",
    "used",
    "verdict",
    "advice",
)


def weigh_prediction(entry: Mapping[str, Any], correlation: float, n: int) -> dict[str, Any]:
    """Return the verdict on a prediction: ``r2_se``, ``share_of_h2``, ``verdict``, ``advice``.

    The standard error of R2 is ``sqrt(4 R2 (1 - R2)^2 / n + 2 / n^2)``: that of a squared correlation, and at 0 that
    of a chi-square over n.

    Args:
        entry: the record so far: r2_observed, slope, slope_se, gain; h2 where it is known; method.
        correlation: of the whole-genome score with the trait in the cohort, with its sign.
        n: samples.
    """
    r2 = float(entry["r2_observed"])
    se = float(np.sqrt(4 * r2 * (1 - r2) ** 2 / n + 2 / n**2))
    found: dict[str, Any] = {"r2_se": se}
    h2 = entry.get("h2")
    if h2:
        found["share_of_h2"] = r2 / float(h2)
    # out of fold, noise correlates negatively with itself, so the sign counts
    if correlation < NOTHING / np.sqrt(n):
        found["verdict"] = f"no better than nothing: R2 {r2:.4f} (SE {se:.4f}), correlation {correlation:+.3f}"
    else:
        of_h2 = f", {found['share_of_h2']:.0%} of h2 {float(h2):.2f}" if h2 else ""
        low, high = (float(entry["slope"]) + k * 1.96 * float(entry["slope_se"]) for k in (-1, 1))
        found["verdict"] = (
            f"R2 {r2:.3f} (SE {se:.3f}){of_h2}; slope {float(entry['slope']):.2f} ({low:.2f} to {high:.2f}); "
            f"gain {float(entry['gain']):.2f}: {n:,} samples count as {n * float(entry['gain']):,.0f}"
        )
    found["advice"] = _advise(entry, found, useless=correlation < NOTHING / np.sqrt(n))
    return found


def _advise(entry: Mapping[str, Any], found: Mapping[str, Any], *, useless: bool) -> str:
    """Return what to try next; empty when there is nothing."""
    method = METHODS.get(str(entry.get("method")))
    from_cohort = method is not None and method.source is Source.COHORT
    steps = []
    if useless:
        steps.append(
            "more samples, or a GWAS of other people (ldpred2-auto) or published weights"
            if from_cohort
            else "check sample labels, alleles and genome build; is the GWAS of this trait and large enough?"
        )
    elif found.get("share_of_h2", 1.0) < POOR_SHARE:
        steps.append(
            "a GWAS of other people, stacked with this" if from_cohort else "a larger GWAS, or a stack with others"
        )
    if not useless and method is not None and method.name == "ridge":
        steps.append("ldpred2-auto, which is at least as good")
    if not useless and not SLOPE_RANGE[0] < float(entry["slope"]) < SLOPE_RANGE[1] and not from_cohort:
        steps.append("a slope far from 1 asks for an LD reference of the GWAS's ancestry, or for the right sample size")
    return "; ".join(steps)


def write_verdicts(record: Mapping[str, Mapping[str, Any]], folder: Path) -> None:
    """Write ``verdicts.tsv``: one row per trait; a column that a method does not have is empty."""
    rows = [{"trait": trait, **{name: entry.get(name) for name in COLUMNS}} for trait, entry in record.items()]
    with atomic_path(folder / "verdicts.tsv") as temporary:
        pd.DataFrame(rows, columns=["trait", *COLUMNS]).to_csv(temporary, sep="\t", index=False)
