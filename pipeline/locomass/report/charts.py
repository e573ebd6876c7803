"""Small charts drawn as SVG text: they need no script, and print."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from locomass.report.embed import format_number

STEP, NARROWEST, HEIGHT, LEFT, TOP, BOTTOM = 24, 150, 120, 50, 8, 34
PATH_POINTS = 80  # points drawn of each path
BLUE, GREY, INK = "#0072b2", "#7a7f87", "#1b1f24"


def _scale(low: float, high: float) -> tuple[float, float, float]:
    """Return a step of 1, 2 or 5 times a power of ten, and the bounds on multiples of it."""
    span = max(high - low, 1e-12)
    power = 10.0 ** math.floor(math.log10(span))
    step = next(m * power for m in (0.2, 0.5, 1.0, 2.0, 5.0) if span / (m * power) <= 4.5)
    return step, math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step


def _tick(value: float) -> str:
    """Return a tick's label, six characters at most where that is possible."""
    text = f"{value:.10g}"
    if len(text.lstrip("-")) <= 6 and "e" not in text:
        return text
    mantissa, exponent = f"{value:.3e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


class _Canvas:
    """An SVG with a labelled y axis and one slot per category on the x axis."""

    def __init__(self, title: str, names: Sequence[str], low: float, high: float, below: str = "chromosome") -> None:
        self.step, self.low, self.high = _scale(low, high)
        self.slot = max(STEP, NARROWEST / max(1, len(names)))
        self.width = LEFT + self.slot * len(names) + 10
        total = HEIGHT + TOP + BOTTOM
        self.parts = [
            f'<svg class="chart" role="img" viewBox="0 0 {self.width:.0f} {total}" width="{self.width:.0f}" '
            f'height="{total}"><title>{escape(title)}</title>'
        ]
        value = self.low
        while value <= self.high + self.step * 1e-6:
            y = self.y(value)
            text = _tick(value) if abs(value) > self.step * 1e-6 else "0"
            self.parts.append(
                f'<line x1="{LEFT}" x2="{self.width:.0f}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e6e8eb"/>'
                f'<text x="{LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{text}</text>'
            )
            value += self.step
        for k, name in enumerate(names):
            y = TOP + HEIGHT + 14
            self.parts.append(f'<text x="{self.x(k):.1f}" y="{y}" text-anchor="middle">{escape(name)}</text>')
        middle = self.x((len(names) - 1) / 2)
        self.parts.append(f'<text x="{middle:.1f}" y="{total - 5}" text-anchor="middle">{below}</text>')

    def x(self, k: float) -> float:
        """Middle of the k-th slot."""
        return LEFT + self.slot * (k + 0.5)

    def y(self, value: float) -> float:
        """Height of a value."""
        return TOP + HEIGHT * (1 - (value - self.low) / (self.high - self.low))

    def text(self) -> str:
        """Return the SVG."""
        return "".join([*self.parts, "</svg>"])


def draw_bars(title: str, names: Sequence[str], values: Sequence[float]) -> str:
    """Return a bar chart of non-negative values, one per chromosome."""
    finite = [v for v in values if math.isfinite(v)]
    canvas = _Canvas(title, names, 0.0, max([1e-12, *finite]))
    for k, value in enumerate(values):
        if math.isfinite(value):
            top = canvas.y(max(value, 0.0))
            canvas.parts.append(
                f'<rect x="{canvas.x(k) - 7:.1f}" y="{top:.1f}" width="14" height="{canvas.y(0) - top:.1f}" '
                f'fill="{BLUE}"><title>{escape(names[k])}: {format_number(value)}</title></rect>'
            )
    return canvas.text()


def draw_intervals(title: str, names: Sequence[str], values: Sequence[float], se: Sequence[float], line: float) -> str:
    """Return a chart of estimates with 95 % intervals, one per chromosome, and a reference line."""
    reach = [1.96 * s if math.isfinite(s) else 0.0 for s in se]
    known = [(v, r) for v, r in zip(values, reach, strict=True) if math.isfinite(v)]
    low = min([line, *(v - r for v, r in known)])
    high = max([line, *(v + r for v, r in known)])
    canvas = _Canvas(title, names, low, high if high > low else low + 1.0)
    y = canvas.y(line)
    canvas.parts.append(
        f'<line x1="{LEFT}" x2="{canvas.width:.0f}" y1="{y:.1f}" y2="{y:.1f}" stroke="{GREY}" stroke-dasharray="4 3"/>'
    )
    for k, (value, r) in enumerate(zip(values, reach, strict=True)):
        if math.isfinite(value):
            x = canvas.x(k)
            canvas.parts.append(
                f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{canvas.y(value - r):.1f}" y2="{canvas.y(value + r):.1f}" '
                f'stroke="{INK}"/><circle cx="{x:.1f}" cy="{canvas.y(value):.1f}" r="4" fill="{BLUE}">'
                f"<title>{escape(names[k])}: {format_number(value)} ± {format_number(r)}</title></circle>"
            )
    return canvas.text()


def draw_histogram(title: str, edges: Sequence[float], counts: Sequence[int], reach: float) -> str:
    """Return a histogram of standardised values as densities, the normal density over it.

    Args:
        title: for those who cannot see it.
        edges: of the bins, one more than there are; what is infinite is drawn to ``reach`` and half.
        counts: of the bins.
        reach: the axis goes from -reach to reach.
    """
    whole, n = int(reach), sum(counts)
    inside = [min(max(float(e), -reach - 0.5), reach + 0.5) for e in edges]
    density = [c / n / max(b - a, 1e-9) for c, a, b in zip(counts, inside[:-1], inside[1:], strict=True)]
    names = [str(v) for v in range(-whole, whole + 1)]
    canvas = _Canvas(title, names, 0.0, max([0.4, *density]), "residual / σ")
    for value, count, a, b, low, high in zip(
        density, counts, inside[:-1], inside[1:], edges[:-1], edges[1:], strict=True
    ):
        left, right, top = canvas.x(a + whole), canvas.x(b + whole), canvas.y(value)
        span = (
            f"{low:g} to {high:g}"
            if math.isfinite(low) and math.isfinite(high)
            else (f"above {low:g}" if math.isfinite(low) else f"below {high:g}" if math.isfinite(high) else "all")
        )
        canvas.parts.append(
            f'<rect x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" height="{canvas.y(0) - top:.1f}" '
            f'fill="{BLUE}" stroke="#fff" stroke-width="0.5"><title>{span}: {count:,} samples</title></rect>'
        )
    grid = [k / 10 for k in range(-10 * whole, 10 * whole + 1)]
    curve = [(canvas.x(v + whole), canvas.y(math.exp(-v * v / 2) / math.sqrt(2 * math.pi))) for v in grid]
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in curve)
    canvas.parts.append(f'<polyline points="{points}" fill="none" stroke="{INK}" stroke-width="1"/>')
    return canvas.text()


def draw_paths(title: str, paths: Sequence[Sequence[float]], kept: Sequence[bool]) -> str:
    """Return a chart of sampler paths, one line per chain; those that were not kept are grey."""
    values = [v for path in paths for v in path if math.isfinite(v)]
    low, high = min(values), max(values)
    canvas = _Canvas(title, [""] * 12, low, high if high > low else low + 1.0, "iteration")
    span = canvas.width - LEFT - 10
    for path, keep in sorted(zip(paths, kept, strict=True), key=lambda pair: pair[1]):
        step = max(1, len(path) // PATH_POINTS)
        points = [
            f"{LEFT + span * i / max(1, len(path) - 1):.1f},{canvas.y(v):.1f}"
            for i, v in enumerate(path)
            if i % step == 0 and math.isfinite(v)
        ]
        color, width = (BLUE, 0.8) if keep else ("#b9bec5", 0.6)
        canvas.parts.append(
            f'<polyline points="{" ".join(points)}" fill="none" stroke="{color}" stroke-width="{width}"/>'
        )
    return canvas.text()
