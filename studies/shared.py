"""What the study scripts share: checkpoints of replicates, intervals, figures, and their place in docs/studies.md."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from locomass.report.figures import STYLE

Floats = NDArray[np.float64]
DOCS = Path(__file__).parents[1] / "docs"
PAGE = DOCS / "studies.md"
#: colours that the colour-blind tell apart
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")


def run_units(
    units: Sequence[str],
    compute: Callable[[str], Mapping[str, Any]],
    checkpoint: Path | None,
    settings: Mapping[str, Any],
) -> dict[str, dict[str, Any]]:
    """Compute every unit of work, each one line of the checkpoint, so that a killed run goes on where it stopped.

    Args:
        units: names.
        compute: returns what JSON can hold; seeded by the name alone.
        checkpoint: file of JSON lines; None for none.
        settings: what the results depend on; lines of other settings are not taken for ours.

    Returns:
        The result of every unit; ``cpu_seconds`` is added to it.
    """
    key = json.dumps(settings, sort_keys=True)
    done: dict[str, dict[str, Any]] = {}
    if checkpoint is not None and checkpoint.exists():
        for line in checkpoint.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:  # the line that a kill cut short
                continue
            if row["settings"] == key:
                done[row["unit"]] = row["result"]
    for unit in units:
        if unit in done:
            continue
        start = time.process_time()
        result = {**compute(unit), "cpu_seconds": 0.0}
        result["cpu_seconds"] = round(time.process_time() - start, 2)
        done[unit] = json.loads(json.dumps(result))
        if checkpoint is not None:
            _append(checkpoint, json.dumps({"settings": key, "unit": unit, "result": result}))
    return {unit: done[unit] for unit in units}


def _append(path: Path, line: str) -> None:
    """Append a line and have it on the disk before going on; a line cut short by a kill is closed first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as file:
        if file.tell() > 0:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")
        file.write(line.encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def wilson(k: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Return Wilson's interval of a proportion k / n.

    Source: Wilson (1927), J Am Stat Assoc 22:209.
    """
    z = norm.isf((1 - level) / 2)
    p, d = k / n, 1 + z * z / n
    centre, half = (p + z * z / (2 * n)) / d, z / d * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return float(centre - half), float(centre + half)


def bootstrap_ratio(above: Floats, below: Floats, seed: int, draws: int = 4000) -> tuple[float, float, float]:
    """Return ``mean(above) / mean(below)`` and its 95 % percentile interval; the pairs (R,) are resampled together."""
    rng = np.random.default_rng(seed)
    pick = rng.integers(0, len(above), (draws, len(above)))
    low, high = np.quantile(above[pick].mean(axis=1) / below[pick].mean(axis=1), [0.025, 0.975])
    return float(above.mean() / below.mean()), float(low), float(high)


def save_figure(figure: Any, name: str, folder: Path) -> None:
    """Write a figure of matplotlib as SVG whose bytes depend on what it shows alone."""
    import matplotlib
    from matplotlib import pyplot

    folder.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(STYLE):
        figure.savefig(folder / f"{name}.svg", format="svg", metadata={"Date": None})
    pyplot.close(figure)


def new_figure(columns: int, width: float = 2.4, height: float = 2.5) -> tuple[Any, Any]:
    """Return a figure and a row of axes in the style of the reports."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    with matplotlib.rc_context(STYLE):
        return pyplot.subplots(1, columns, figsize=(width * columns, height), squeeze=False, layout="constrained")


def write_section(page: Path, name: str, lines: Sequence[str]) -> None:
    """Put lines between ``<!-- name: begin -->`` and ``<!-- name: end -->`` of a page."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    text = page.read_text(encoding="utf-8")
    head, rest = text.split(begin)
    tail = rest.split(end)[1]
    page.write_text("\n".join([head + begin, "", *lines, "", end]) + tail, encoding="utf-8")


def make_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """Return the lines of a Markdown table; all columns but the first are set to the right."""
    return [
        "| " + " | ".join(header) + " |",
        "|---|" + "---:|" * (len(header) - 1),
        *("| " + " | ".join(map(str, row)) + " |" for row in rows),
    ]


def span(value: Sequence[float], digits: int = 3) -> str:
    """Return an estimate with its interval."""
    return f"{value[0]:.{digits}f} ({value[1]:.{digits}f} to {value[2]:.{digits}f})"
