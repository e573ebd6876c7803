"""Residuals of the null models as histograms, from the binned counts that studies share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from locomass.numbers import is_far_from_normal
from locomass.report.charts import draw_histogram
from locomass.report.embed import format_number
from locomass.report.tables import Studies, read_text_table
from locomass.schema import ALL, RESIDUALS

REACH = 4.0  # of the axis, in standard deviations
MAX_CHARTS = 24


def residual_charts(results: Path, studies: Studies) -> list[tuple[str, str]]:
    """Return (caption, SVG) of the quantitative traits of the studies, two dozen at most."""
    table = read_text_table(results / RESIDUALS.name, RESIDUALS)
    bins: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in [] if table is None else table.to_pylist():
        bins.setdefault((row["study"], row["trait"]), []).append(row)
    shape = {(row["study"], row["trait"]): row for rows in studies.traits.values() for row in rows}
    charts = []
    for key, rows in list(bins.items())[:MAX_CHARTS]:
        title, chromosome = ", ".join(key), rows[0]["chromosome"]
        which = "" if chromosome == ALL else f", chromosome {chromosome} left out"
        moments = [format_number(shape[key][name]) for name in ("skewness", "kurtosis")]
        edges = [*(row["low"] for row in rows), rows[-1]["high"]]
        drawn = draw_histogram(title, edges, [row["n"] for row in rows], REACH)
        far = is_far_from_normal(shape[key]["skewness"], shape[key]["kurtosis"], sum(row["n"] for row in rows))
        flag = "; far from normal: `phenotypes: {transform: rint}` may gain power" if far else ""
        charts.append((f"{title}{which}: skewness {moments[0]}, excess kurtosis {moments[1]}{flag}", drawn))
    return charts
