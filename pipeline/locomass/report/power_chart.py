"""The chart of `locomass power`: effective sample size of every design as cohorts join."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from locomass.files.atomic import atomic_path
from locomass.report.figures import STYLE
from locomass.report.plots import BLUE, GREY, ORANGE, SKY

#: colour, width and order of the lines: the last design lies wide below the one that it may equal
LINES = ((GREY, 1.4, 2), (ORANGE, 1.4, 2), (BLUE, 1.4, 2), (SKY, 4.5, 1))


def draw_power(
    path: Path, n_cohorts: Sequence[int], gain: Mapping[str, Sequence[float]], power: Mapping[str, Sequence[float]]
) -> None:
    """Write a figure with two panels, effective over actual sample size and power; a line per design.

    Args:
        path: the file; its suffix is the format (svg, png, pdf).
        n_cohorts: (K,) numbers of cohorts.
        gain: (K,) of each design, by name.
        power: (K,) of each design, by the same names.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    with matplotlib.rc_context(STYLE):
        figure, axes = pyplot.subplots(1, 2, figsize=(7.2, 2.9), layout="constrained")
        for axis, values, label in zip(axes, (gain, power), ("effective N / N", "power"), strict=True):
            for (name, line), (colour, width, order) in zip(values.items(), LINES, strict=True):
                axis.plot(
                    n_cohorts,
                    line,
                    "-",
                    marker="o" if len(line) == 1 else "",
                    lw=width,
                    color=colour,
                    zorder=order,
                    label=name.replace("_", " "),
                )
            axis.set_xlabel("cohorts")
            axis.set_ylabel(label)
        axes[0].legend(frameon=False, fontsize=8)
        with atomic_path(path) as temporary:
            kind = path.suffix.lstrip(".").lower() or "svg"
            figure.savefig(temporary, format=kind, metadata={"Date": None} if kind == "svg" else None)
        pyplot.close(figure)
