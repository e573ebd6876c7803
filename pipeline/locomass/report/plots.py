"""The two interactive plots: empty Bokeh figures that the page fills with the series its reader chooses."""

from __future__ import annotations

from typing import Any

from locomass.report.series import Genome

BLUE, SKY, ORANGE, GREY, INK = "#0072b2", "#56b4e9", "#d55e00", "#7a7f87", "#1b1f24"  # Okabe and Ito's palette
PALETTE = (BLUE, ORANGE, "#009e73", "#cc79a7", SKY, "#e69f00", GREY, INK)
TOOLS = "pan,wheel_zoom,box_zoom,reset,save"
HEIGHT = 360


def bokeh_script() -> str:
    """Return BokehJS itself, so that the page needs no network."""
    from bokeh.resources import Resources

    return str("\n".join(Resources(mode="inline", minified=True, components=["bokeh"]).js_raw))


def make_plots(genome: Genome) -> list[dict[str, Any]]:
    """Return the Manhattan and the QQ plot as JSON items for ``Bokeh.embed.embed_item``."""
    from bokeh.embed import json_item

    items = [json_item(_manhattan(genome), "manhattan"), json_item(_qq(), "qq")]
    return [dict(item) for item in items]


def _figure(**options: Any) -> Any:
    """Return a figure in the page's style."""
    from bokeh.plotting import figure

    plot = figure(
        height=HEIGHT, sizing_mode="stretch_width", tools=TOOLS, active_scroll=None, toolbar_location="above", **options
    )
    plot.toolbar.logo = None
    plot.outline_line_color = None
    plot.grid.grid_line_color = "#e6e8eb"
    for axis in plot.axis:
        axis.axis_label_text_font_style = "normal"
        axis.axis_label_text_color = axis.major_label_text_color = INK
        axis.axis_line_color = axis.major_tick_line_color = GREY
        axis.minor_tick_line_color = None
    return plot


def _points(plot: Any, name: str) -> None:
    """Draw the points of a source that the page fills; a click opens the gene."""
    from bokeh.models import ColumnDataSource, CustomJS, HoverTool, TapTool

    columns = ("x", "y", "size", "color", "gene", "trait", "row", "p")
    source = ColumnDataSource({c: [] for c in columns}, name=f"{name}-source")
    drawn = plot.scatter("x", "y", size="size", color="color", alpha=0.8, line_color=None, source=source)
    drawn.nonselection_glyph = None
    tips = [("gene", "@gene"), ("trait", "@trait"), ("mask, bin", "@row"), ("p", "@p")]
    open_gene = CustomJS(
        args={"source": source},
        code="const i = source.selected.indices[0];"
        "if (i !== undefined) { location.hash = 'gene/' + encodeURIComponent(source.data.gene[i]);"
        " source.selected.indices = []; }",
    )
    plot.add_tools(HoverTool(renderers=[drawn], tooltips=tips), TapTool(renderers=[drawn], callback=open_gene))


def _manhattan(genome: Genome) -> Any:
    """Return the Manhattan plot without its points."""
    from bokeh.models import Range1d, Span

    alone = len(genome.names) == 1
    low = float(genome.left.min()) if genome.names else 0.0
    high = float(genome.right.max()) if genome.names else 1.0
    pad = max((high - low) * 0.02, 0.1)
    title = f"position on chromosome {genome.names[0]} (Mb)" if alone else "chromosome"
    plot = _figure(
        x_range=Range1d(low - pad, high + pad),
        y_range=Range1d(0, 5, name="manhattan-range"),
        x_axis_label=title,
        y_axis_label="−log₁₀ p",
        name="manhattan-plot",
    )
    if not alone:
        plot.xaxis.ticker = genome.middle.tolist()
        plot.xaxis.major_label_overrides = dict(zip(genome.middle.tolist(), genome.names, strict=True))
        plot.xgrid.grid_line_color = None
    _points(plot, "manhattan")
    line = Span(location=0, dimension="width", line_color=ORANGE, line_dash="dashed", name="manhattan-line")
    plot.add_layout(line)
    return plot


def _qq() -> Any:
    """Return the QQ plot without its points."""
    from bokeh.models import ColumnDataSource, Range1d

    plot = _figure(
        x_range=Range1d(0, 3, name="qq-x"),
        y_range=Range1d(0, 5, name="qq-y"),
        x_axis_label="expected −log₁₀ p",
        y_axis_label="observed −log₁₀ p",
        name="qq-plot",
    )
    band = ColumnDataSource({"x": [], "low": [], "high": []}, name="qq-band")
    plot.varea("x", "low", "high", source=band, fill_color=GREY, fill_alpha=0.22)
    diagonal = ColumnDataSource({"x": [0, 400], "y": [0, 400]})
    plot.line("x", "y", source=diagonal, line_color=GREY)
    _points(plot, "qq")
    return plot
