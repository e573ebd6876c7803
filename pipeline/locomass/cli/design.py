"""Before there are data: simulate and power."""

from __future__ import annotations

from pathlib import Path

import click

from locomass.cli.options import CONFIG, FOLDER, show_keys
from locomass.cli.terminal import Terminal, output_options


@click.command()
@click.argument("folder", type=FOLDER)
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="A parameter, such as h2=0.3; repeat.")
@click.option("--show", is_flag=True, help="Print every parameter with its default and stop.")
@output_options
def simulate(folder: Path, settings: tuple[str, ...], show: bool, terminal: Terminal) -> None:
    """Simulate studies, a GWAS and an LD reference into FOLDER, ready for `locomass run`."""
    from locomass.config import describe_keys
    from locomass.simulate.parameters import Parameters
    from locomass.simulate.study import parse_parameters, simulate_study

    if show:
        show_keys(describe_keys(Parameters), terminal)
        return
    written = simulate_study(folder, parse_parameters(settings))
    commands = [f"locomass run {study} --out {folder / 'results' / study.stem}" for study in written.studies]
    if len(written.studies) > 1:
        commands.append(f"locomass meta {written.consortium} --out {folder / 'results' / 'consortium'}")
    for command in commands:
        terminal.say(command)
    terminal.finish(folder=folder, commands=commands)


@click.command()
@click.option("--n", "sizes", type=click.FloatRange(min=1), multiple=True, required=True, help="Cohort size; repeat.")
@click.option("--b2", type=float, required=True, help="Variance that the variant (or burden) explains.")
@click.option("--h2", type=float, default=0.5, show_default=True, help="Heritability captured by the predictor.")
@click.option("--m-effective", type=float, default=60_000, show_default=True, help="Effective number of variants.")
@click.option("--n-summary", type=float, help="Size of the GWAS behind the predictor (default: all cohorts).")
@click.option("--alpha", type=float, default=2.5e-6, show_default=True, help="Significance level.")
@click.option("--cohorts", type=click.IntRange(min=1), default=1, help="Take the given sizes this many times.")
@click.option("--plot", type=CONFIG, help="Draw effective sample size and power as cohorts join (.svg, .png, .pdf).")
@output_options
def power(
    sizes: tuple[float, ...],
    b2: float,
    h2: float,
    m_effective: float,
    n_summary: float | None,
    alpha: float,
    cohorts: int,
    plot: Path | None,
    terminal: Terminal,
) -> None:
    """Compare the power of linear, per-cohort mixed, summary-statistic and pooled mixed-model designs."""
    from dataclasses import asdict

    from locomass.power import grow_consortium

    if plot is not None and plot.suffix.lower() not in (".svg", ".png", ".pdf"):
        raise click.BadParameter(f"expected a name that ends in .svg, .png or .pdf, got {plot}", param_hint="--plot")
    tables = grow_consortium(sizes * cohorts, b2, h2=h2, m_effective=m_effective, n_summary=n_summary, alpha=alpha)
    rows = tables[-1]
    cells = [
        [r.design, f"{r.n:.0f}", f"{r.r2:.4f}", f"{r.n_effective:.1f}", f"{r.ncp:.3f}", f"{r.power:.4f}"] for r in rows
    ]
    terminal.show_table(["design", "N", "R2", "N_eff", "NCP", "power"], cells, range(1, 6))
    if plot is not None:
        from locomass.report.power_chart import draw_power

        gain = {row.design: [t[i].n_effective / t[i].n for t in tables] for i, row in enumerate(rows)}
        draw_power(
            plot, range(1, len(tables) + 1), gain, {r.design: [t[i].power for t in tables] for i, r in enumerate(rows)}
        )
    terminal.finish(designs=[asdict(row) for row in rows], plot=plot)
