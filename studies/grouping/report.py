"""The page docs/studies-grouping.md between its markers, and its figures."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

from studies.grouping.design import EFFECTS, N_HAPLOTYPES, SCENARIOS, TRAITS
from studies.grouping.models import ALPHA, GROUPINGS, MODELS, REGISTRY, SEARCHES, SIGNS, SUMMARY, WEIGHTS, model_name
from studies.grouping.summary import AGNOSTIC, PAPER, STEP_UP, Rates, Verdict, judge, null_interval

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "studies-grouping.md"
#: models side by side with what the paper lacked
BESIDE = (
    STEP_UP,
    model_name("step-up", "both", "data"),
    *(name for name, setting in SEARCHES.items() if setting[3] == "model" and setting[0] == "step-up"),
    *SUMMARY,
    model_name("all MAF", "both", "fixed"),
    model_name("all MAF", "both", "fixed", "model"),
    model_name("functional x all MAF", "both", "fixed"),
    model_name("functional x all MAF", "both", "fixed", "model"),
    "CMC",
    *REGISTRY,
)
DRAWN = {
    STEP_UP: ("step-up", "#d62728", "-"),
    model_name("step-up", "both", "fixed", "model"): ("step-up, model variance", "#d62728", "--"),
    model_name("step-up", "both", "data"): ("step-up, signed", "#9467bd", "-"),
    model_name("all MAF", "both", "fixed"): ("all MAF", "#1f77b4", "-"),
    model_name("functional x all MAF", "both", "fixed"): ("functional x all MAF", "#2ca02c", "-"),
    model_name("MAF <= 1 %", "both", "fixed"): ("MAF <= 1 %", "#7f7f7f", ":"),
    "CMC": ("CMC", "#ff7f0e", "-"),
    "SKAT-O": ("SKAT-O", "#8c564b", "--"),
}


def write_report(rates: Rates) -> None:
    """Put tables into the page and draw the figures; of pools of another size than the study's, the short tables."""
    if rates.settings.haplotypes != N_HAPLOTYPES:
        fill_page("few-haplotypes", list_short(rates))
        return
    fill_page("grouping", list_lines(rates))
    for trait in TRAITS:
        draw_power(rates, trait, DOCS / "figures" / f"grouping-{trait}.svg")


def fill_page(section: str, lines: Iterable[str]) -> None:
    """Put lines between the page's markers of a section."""
    begin, end = f"<!-- {section}: begin -->", f"<!-- {section}: end -->"
    body = "\n".join([begin, *lines, end])
    head, rest = PAGE.read_text(encoding="utf-8").split(begin)
    PAGE.write_text(head + body + rest.split(end)[1], encoding="utf-8")


def list_lines(rates: Rates) -> Iterator[str]:
    """Give the lines of the page."""
    yield from _list_settings(rates)
    yield "## The paper's conclusions\n"
    yield from _list_verdicts(judge(rates))
    yield "\n## What the paper lacked\n"
    yield from _list_beside(rates)
    yield from _list_power(rates)
    yield from _list_null(rates)


def list_short(rates: Rates) -> Iterator[str]:
    """Give the lines of a run with pools of another size."""
    yield from _list_settings(rates)
    yield from _list_verdicts(judge(rates))
    yield from _list_best(rates)
    yield ""
    yield from _list_beside(rates)
    yield f"\n{_describe_null(rates)}"


def _list_settings(rates: Rates) -> Iterator[str]:
    """Say what was run."""
    replicates = {cell: rates.replicates(cell) for cell in rates.cells}
    power = [n for cell, n in replicates.items() if cell[2] > 0]
    settings = rates.settings
    genes, null = min(power) * len(settings.sizes), replicates[TRAITS[0], "1", 0.0]
    yield f"""
Seed {settings.seed}, {settings.engine}, {len(settings.sizes)} genes of {settings.haplotypes:,} haplotypes,
{settings.people:,} people, {settings.permutations} permutations a gene; {min(power)} to {max(power)} replicates
per simulation, trait and effect, that is {genes:,} genes or more; {null} replicates of the null.
"""


def _list_verdicts(verdicts: Iterable[Verdict]) -> Iterator[str]:
    """Give the table of conclusions."""
    yield "Power in percentage points, mean over the effect sizes, ± 1.96 standard errors of paired differences.\n"
    yield "| conclusion | numbers | comes out |"
    yield "|---|---|---|"
    for v in verdicts:
        yield f"| {v.conclusion} | {v.numbers} | {v.verdict} |"


def _list_best(rates: Rates) -> Iterator[str]:
    """Give the table of the best model without annotations in every simulation."""
    yield f"\nThe best of {len(AGNOSTIC)} models without annotations, its power in per cent, and that of {STEP_UP}.\n"
    yield "| simulation | " + " | ".join(f"best, {trait} | its power | step-up" for trait in TRAITS) + " |"
    yield "|---|" + "---|---:|---:|" * len(TRAITS)
    for scenario in SCENARIOS:
        cells = []
        for trait in TRAITS:
            best = rates.best(trait, scenario, AGNOSTIC)
            cells += [best, *(f"{100 * rates.power(trait, scenario, name):.0f}" for name in (best, STEP_UP))]
        yield f"| {scenario} | " + " | ".join(cells) + " |"


def _list_beside(rates: Rates) -> Iterator[str]:
    """Give the table of what the paper lacked."""
    yield "Power in per cent, mean over the effect sizes: quantitative / case-control. `data`: signs from the data.\n"
    yield "| model | " + " | ".join(SCENARIOS) + " |"
    yield "|---|" + "---:|" * len(SCENARIOS)
    for name in BESIDE:
        cells = [" / ".join(f"{100 * rates.power(t, s, name):.0f}" for t in TRAITS) for s in SCENARIOS]
        label = f"{name}, empirical" if name in SEARCHES and SEARCHES[name][3] == "empirical" else name
        yield f"| {label} | " + " | ".join(cells) + " |"


def _list_power(rates: Rates) -> Iterator[str]:
    """Give a table of all models of the paper per simulation; the best is bold."""
    yield "\n## Power of every model of the paper\n"
    yield (
        "Power in per cent, mean over the effect sizes: quantitative / case-control; **bold**: the best. "
        "Empirical variance."
    )
    columns = [(w, s) for s in SIGNS for w in WEIGHTS]
    titles = {"fixed": "unsigned", "data": "signed"}
    for scenario, description in SCENARIOS.items():
        best = {t: rates.best(t, scenario, PAPER) for t in TRAITS}
        yield f"\n### Simulation {scenario}: {description.title}\n"
        yield "| grouping | " + " | ".join(f"{w}, {titles[s]}" for w, s in columns) + " |"
        yield "|---|" + "---:|" * len(columns)
        for grouping in GROUPINGS:
            cells = [_cell(rates, scenario, model_name(grouping, w, s), best) for w, s in columns]
            yield f"| {grouping} | " + " | ".join(cells) + " |"
        yield f"| CMC | {_cell(rates, scenario, 'CMC', best)} |" + " |" * (len(columns) - 1)


def _cell(rates: Rates, scenario: str, name: str, best: dict[str, str]) -> str:
    """Return the power of a model for both traits."""
    parts = [(f"{100 * rates.power(t, scenario, name):.0f}", name == best[t]) for t in TRAITS]
    return " / ".join(f"**{text}**" if bold else text for text, bold in parts)


def _list_null(rates: Rates) -> Iterator[str]:
    """Give the type I errors."""
    n = rates.null_count(TRAITS[0], "CMC")[1]
    low, high = null_interval(n)
    yield f"\n## Type I error at {ALPHA}\n"
    yield (
        f"Share of {n:,} null genes rejected. The 99 % binomial interval is {low / n:.4f} to {high / n:.4f}; **bold**: "
        f"above, _italic_: below. With {len(MODELS)} models and two traits, one or two of {2 * len(MODELS)} cells "
        "leave it by chance.\n"
    )
    yield "| model | " + " | ".join(TRAITS) + " |"
    yield "|---|" + "---:|" * len(TRAITS)
    for name in MODELS:
        cells = []
        for trait in TRAITS:
            k, n = rates.null_count(trait, name)
            low, high = null_interval(n)
            mark = "**" if k > high else "_" if k < low else ""
            cells.append(f"{mark}{k / n:.4f}{mark}")
        yield f"| {name} | " + " | ".join(cells) + " |"


def _describe_null(rates: Rates) -> str:
    """Say which type I errors lie outside their interval."""
    n = rates.null_count(TRAITS[0], "CMC")[1]
    low, high = null_interval(n)
    outside = [
        f"{name} ({trait}): {k / n:.4f}"
        for name in MODELS
        for trait in TRAITS
        if not low <= (k := rates.null_count(trait, name)[0]) <= high
    ]
    return (
        f"Type I error at {ALPHA}, {n:,} null genes: of {2 * len(MODELS)} models and traits {len(outside)} lie outside "
        f"the 99 % interval, {low / n:.4f} to {high / n:.4f}" + (": " + "; ".join(outside) if outside else "") + "."
    )


def draw_power(rates: Rates, trait: str, path: Path) -> None:
    """Draw power against effect, one panel a simulation; text stays text, so that the file is small."""
    with plt.rc_context({"svg.fonttype": "none", "svg.hashsalt": "locomass", "font.size": 8}):
        figure, axes = plt.subplots(3, 3, figsize=(9, 7.5), sharex=True, sharey=True, layout="constrained")
        for axis, (scenario, description) in zip(axes.flat, SCENARIOS.items(), strict=True):
            for name, (label, colour, style) in DRAWN.items():
                k = rates.place[name]
                null = float(rates.cells[trait, "1", 0.0][:, k].mean())
                values = [null, *(rates.power(trait, scenario, name, e) for e in EFFECTS)]
                axis.plot([0, *(100 * e for e in EFFECTS)], values, style, color=colour, lw=1.2, label=label)
            axis.set_title(f"{scenario}: {description.title}", fontsize=7)
            axis.set_ylim(0, 1)
        for axis in axes[-1]:
            axis.set_xlabel("variance explained, % (x 2.5 in 3)")
        for axis in axes[:, 0]:
            axis.set_ylabel("power at 0.05")
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
        path.parent.mkdir(exist_ok=True)
        # a tenth of a point is finer than the eye; it halves the file
        path.write_text(re.sub(r"(\d\.\d)\d+", r"\1", buffer.getvalue()), encoding="utf-8")
        plt.close(figure)
