"""Residuals of the null models as histograms: binned counts only, no individual value reaches the page.

Quantitative traits, where the run that left the bundle is still beside it. The tests take U for normal; residuals with
long tails or a few outliers make that wrong for variants with few carriers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.io.bundle import Bundle
from pipeline.io.null_models import ALL_CHROMOSOMES, read_residuals
from pipeline.report.charts import draw_histogram
from pipeline.report.embed import format_number

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]
LEAST = 5  # samples in a bin
REACH, WIDTH = 4.0, 0.25  # bins of standardised residuals; those beyond are one bin on either side
MAX_CHARTS = 24


def residual_charts(bundles: Sequence[Bundle]) -> list[tuple[str, str]]:
    """Return (caption, SVG) of the quantitative traits of the studies, two dozen at most."""
    charts: list[tuple[str, str]] = []
    for bundle in bundles:
        folder = bundle.path.parent / "denoise"
        names = [name for name, trait in bundle.traits.items() if trait["kind"] == "quantitative"]
        names = names[: MAX_CHARTS - len(charts)]
        if bundle.path.name != "bundle" or not (folder / "null_models.json").exists() or not names:
            continue
        least = max(LEAST, int(bundle.info.get("min_cell", 0)))
        chromosome, residuals = read_residuals(folder, names)
        which = "" if chromosome == ALL_CHROMOSOMES else f", chromosome {chromosome} left out"
        for name, z in residuals.items():
            edges, counts = bin_residuals(z, least)
            if len(counts):
                title = f"{bundle.study}, {name}"
                charts.append(
                    (
                        f"{title}{which}: {describe_shape(z)}",
                        draw_histogram(title, edges.tolist(), counts.tolist(), REACH),
                    )
                )
    return charts


def describe_shape(z: Floats) -> str:
    """Return skewness ``m3 / m2^1.5`` and excess kurtosis ``m4 / m2^2 - 3`` in words, m_k the k-th central moment."""
    centred = z - z.mean()
    m2, m3, m4 = (float(np.mean(centred**k)) for k in (2, 3, 4))
    return f"skewness {format_number(m3 / m2**1.5)}, excess kurtosis {format_number(m4 / m2**2 - 3)}"


def bin_residuals(z: Floats, least: int) -> tuple[Floats, Counts]:
    """Return edges (bins + 1), the outer ones infinite, and the count of each bin, none below ``least``.

    Bins with fewer samples are joined with the next ones, the last with the one before it; no bin at all where all
    samples together are too few.
    """
    inner = np.arange(-REACH, REACH + WIDTH / 2, WIDTH)
    fine = np.bincount(np.searchsorted(inner, z, side="right"), minlength=len(inner) + 1)
    edges, counts, waiting = [-np.inf], list[int](), 0
    for count, upper in zip(fine.tolist(), [*inner.tolist(), np.inf], strict=True):
        waiting += count
        if waiting >= least:
            counts.append(waiting)
            edges.append(upper)
            waiting = 0
    if not counts:
        return np.empty(0), np.empty(0, np.int64)
    counts[-1] += waiting
    edges[-1] = np.inf
    return np.array(edges), np.array(counts, np.int64)
