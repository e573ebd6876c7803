"""The same plots for papers and for readers without scripts: SVG and PNG by matplotlib."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.io.atomic import atomic_path
from pipeline.report.plots import BLUE, GREY, INK, ORANGE, SKY
from pipeline.report.quantiles import compute_lambda, qq_band, qq_expected, thin_points
from pipeline.report.series import Genome
from pipeline.report.tables import GeneTests

Codes = NDArray[np.int64]
MAX_FIGURES = 4
MAX_REST = 4000
STYLE = {
    "font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": GREY, "text.color": INK,
    "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK, "svg.fonttype": "none", "svg.hashsalt": "locomass",
}  # fmt: skip


@dataclass(frozen=True)
class SavedFigure:
    """A figure on disk: the trait and test it shows, and its files."""

    title: str
    svg: Path
    png: Path


def write_figures(folder: Path, tests: GeneTests, genome: Genome, traits: Codes, row_tests: Codes) -> list[SavedFigure]:
    """Write a Manhattan and QQ figure of the first test for the traits with the smallest p-values.

    Args:
        folder: where ``<trait>_<test>.svg`` and ``.png`` go.
        tests, genome: what is drawn.
        traits, row_tests: codes, those to show first in front.
    """
    if not len(tests) or not len(row_tests):
        return []
    saved: list[SavedFigure] = []
    test = int(row_tests[0])
    for trait in traits[:MAX_FIGURES].tolist():
        rows = np.flatnonzero((tests.label["trait"].codes == trait) & (tests.label["row_test"].codes == test))
        if np.isnan(tests.log10p[rows]).all():
            continue
        names = (tests.label["trait"].labels[trait], tests.label["row_test"].labels[test])
        stem = f"{len(saved) + 1}_" + "_".join(re.sub(r"[^A-Za-z0-9.-]+", "-", n).strip("-")[:60] for n in names)
        figure = _draw(tests, genome, rows, f"{names[0]}, {names[1]}")
        saved.append(_save(figure, folder, stem, f"{names[0]}, {names[1]}"))
    return saved


def _save(figure: Any, folder: Path, stem: str, title: str) -> SavedFigure:
    """Write a figure in both formats."""
    import matplotlib

    paths = {}
    for kind, options in (("svg", {"metadata": {"Date": None}}), ("png", {"dpi": 110})):
        paths[kind] = folder / f"{stem}.{kind}"
        with atomic_path(paths[kind]) as temporary, matplotlib.rc_context(STYLE):
            figure.savefig(temporary, format=kind, **options)
    return SavedFigure(title, paths["svg"], paths["png"])


def _draw(tests: GeneTests, genome: Genome, rows: Codes, title: str) -> Any:
    """Return a figure with the Manhattan plot on the left and the QQ plot on the right."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10, 3.4))
        left, right = figure.subplots(1, 2, width_ratios=(3, 1.2))
        figure.subplots_adjust(left=0.06, right=0.985, bottom=0.15, top=0.9, wspace=0.16)
        chosen, rank, n = thin_points(tests.log10p[rows], MAX_REST)
        values = tests.log10p[rows[chosen]]
        gene = tests.label["gene"].codes[rows[chosen]]
        color = np.where(genome.chromosome[gene] % 2 == 0, BLUE, SKY)
        left.scatter(genome.x[gene], values, s=9, c=color, linewidths=0)
        left.axhline(np.log10(n / 0.05), color=ORANGE, linestyle="--", linewidth=1)
        left.set(ylabel="−log10 p", title=title, ylim=(0, None), xlabel="chromosome")
        if len(genome.names) > 1:
            left.set_xticks(genome.middle, genome.names)
        else:
            left.set_xlabel(f"position on chromosome {genome.names[0]} (Mb)")
        expected, low, high = qq_band(n)
        right.fill_between(expected, low, high, color=GREY, alpha=0.25, linewidth=0)
        right.plot([0, expected.max()], [0, expected.max()], color=GREY, linewidth=1)
        right.scatter(qq_expected(rank, n), values, s=9, c=BLUE, linewidths=0)
        inflation = compute_lambda(tests.log10p[rows])
        right.set(xlabel="expected −log10 p", ylabel="observed −log10 p", title=f"λ = {inflation:.3f}", xlim=(0, None))
    return figure
