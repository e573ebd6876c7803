"""The same plots for papers and for readers without scripts: SVG and PNG by matplotlib."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from locomass.files.atomic import atomic_path
from locomass.report.plots import BLUE, GREY, INK, ORANGE, PALETTE, SKY
from locomass.report.quantiles import compute_lambda, qq_band, qq_expected, thin_points
from locomass.report.series import Genome
from locomass.report.tables import GeneTests

Codes = NDArray[np.int64]
MAX_FIGURES = 4
MAX_REST = 4000
MAX_NAMES = 12  # genes named in a Manhattan plot
STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "svg.fonttype": "none",
    "svg.hashsalt": "locomass",
    "text.usetex": False,  # a matplotlibrc in the working directory may ask for it
}


@dataclass(frozen=True)
class SavedFigure:
    """A figure on disk: the trait and test it shows, and its files."""

    title: str
    svg: Path
    png: Path


def write_figures(
    folder: Path, tests: GeneTests, genome: Genome, traits: Codes, row_tests: Codes, *, everything: bool = False
) -> list[SavedFigure]:
    """Write Manhattan and QQ figures; return those of the first test of the traits with the smallest p-values.

    Args:
        folder: where ``<number>_<trait>_<test>.svg`` and ``.png`` go.
        tests, genome: what is drawn.
        traits, row_tests: codes, those to show first in front.
        everything: write all other traits and tests, too.
    """
    if not len(tests) or not len(row_tests):
        return []
    saved: list[SavedFigure] = []
    first = [(trait, int(row_tests[0])) for trait in traits[:MAX_FIGURES].tolist()]
    every = [(trait, test) for test in row_tests.tolist() for trait in traits.tolist()] if everything else []
    for trait, test in dict.fromkeys([*first, *every]):
        rows = np.flatnonzero((tests.label["trait"].codes == trait) & (tests.label["row_test"].codes == test))
        if np.isnan(tests.log10p[rows]).all():
            continue
        names = (tests.label["trait"].labels[trait], tests.label["row_test"].labels[test])
        stem = f"{len(saved) + 1}_" + "_".join(re.sub(r"[^A-Za-z0-9.-]+", "-", n).strip("-")[:60] for n in names)
        figure = _draw(tests, genome, rows, f"{names[0]}, {names[1]}")
        saved.append(_save(figure, folder, stem, f"{names[0]}, {names[1]}"))
    return saved[: len(first)]


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
    """Return a figure with the Manhattan plot on the left and the QQ plot, a colour per mask and bin, on the right."""
    import matplotlib
    from matplotlib.figure import Figure

    series = _split(tests, rows)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10, 3.6))
        left, right = figure.subplots(1, 2, width_ratios=(3, 1.2))
        figure.subplots_adjust(left=0.06, right=0.985, bottom=0.14, top=0.9, wspace=0.16)
        n = _draw_manhattan(left, tests, genome, [own for _, own in series])
        left.axhline(np.log10(n / 0.05), color=ORANGE, linestyle="--", linewidth=1)
        left.set(ylabel="−log10 p", xlabel="chromosome")
        left.set_title(title, parse_math=False)
        if len(genome.names) > 1:
            left.set_xticks(genome.middle, genome.names)
        else:
            left.set_xlabel(f"position on chromosome {genome.names[0]} (Mb)")
        _draw_qq(right, tests, series)
    return figure


def _split(tests: GeneTests, rows: Codes) -> list[tuple[str, Codes]]:
    """Return the rows of every mask and bin that has a p-value, with its name."""
    key = tests.label["mask"].codes[rows] * len(tests.bins) + tests.bin[rows]
    out = []
    for code in np.unique(key).tolist():
        own = rows[key == code]
        mask, bound = divmod(code, len(tests.bins))
        if not np.isnan(tests.log10p[own]).all():
            out.append((f"{tests.label['mask'].labels[mask]}, ≤ {tests.bins[bound]:g}", own))
    return out


def _draw_manhattan(axes: Any, tests: GeneTests, genome: Genome, series: Sequence[Codes]) -> int:
    """Draw the points of all series, name the strongest genes, and return the number of p-values."""
    total, points = 0, []
    for own in series:
        chosen, _, n = thin_points(tests.log10p[own], MAX_REST)
        total += n
        points.append(own[chosen])
    shown = np.concatenate(points)
    values, gene = tests.log10p[shown], tests.label["gene"].codes[shown]
    color = np.where(genome.chromosome[gene] % 2 == 0, BLUE, SKY)
    axes.scatter(genome.x[gene], values, s=9, c=color, linewidths=0)
    high = max(float(values.max()), float(np.log10(total / 0.05)))
    axes.set_ylim(0, high * 1.12)
    named: list[tuple[float, float]] = []
    span = max(float(genome.right.max() - genome.left.min()), 1e-9)
    for row in shown[np.argsort(-values, kind="stable")].tolist():
        x, y = float(genome.x[tests.label["gene"].codes[row]]), float(tests.log10p[row])
        if y <= np.log10(total / 0.05) or len(named) == MAX_NAMES:
            break
        if all(abs(x - a) > 0.08 * span or abs(y - b) > 0.07 * high for a, b in named):
            if all(x != a for a, _ in named):
                name = tests.label["gene"].labels[tests.label["gene"].codes[row]]
                axes.annotate(
                    name, (x, y), (0, 4), textcoords="offset points", ha="center", fontsize=7, parse_math=False
                )
            named.append((x, y))
    return total


def _draw_qq(axes: Any, tests: GeneTests, series: Sequence[tuple[str, Codes]]) -> None:
    """Draw observed against expected p-values of every series, with the band of the largest."""
    largest = max(int(np.count_nonzero(~np.isnan(tests.log10p[own]))) for _, own in series)
    expected, low, high = qq_band(largest)
    axes.fill_between(expected, low, high, color=GREY, alpha=0.25, linewidth=0)
    axes.plot([0, expected.max()], [0, expected.max()], color=GREY, linewidth=1)
    for k, (name, own) in enumerate(series):
        chosen, rank, n = thin_points(tests.log10p[own], MAX_REST)
        label = f"{name}: λ {compute_lambda(tests.log10p[own]):.2f}" if k < len(PALETTE) else None
        color = PALETTE[k % len(PALETTE)]
        axes.scatter(qq_expected(rank, n), tests.log10p[own[chosen]], s=9, c=color, linewidths=0, label=label)
    axes.set(xlabel="expected −log10 p", ylabel="observed −log10 p", xlim=(0, None), ylim=(0, None))
    legend = axes.legend(loc="upper left", fontsize=6.5, frameon=False, handletextpad=0.1, borderpad=0)
    for text in legend.get_texts():
        text.set_parse_math(False)
