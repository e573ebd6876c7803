"""One study: run and its stages, check, init, watch, demo."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from locomass.cli.options import CONFIG, FOLDER, common_options, finish_run, show_unfit
from locomass.cli.terminal import BAD_INPUT, INCOMPLETE, Terminal, output_options


@click.command()
@click.argument("config", type=CONFIG)
@common_options
def run(config: Path, out: Path | None, terminal: Terminal, **machine: Any) -> None:
    """Run a study from genotypes to report; stages that are up to date are skipped."""
    _run_upto("report", config, out, terminal, **machine)


@click.command()
@click.argument("config", type=CONFIG)
@common_options
def predict(config: Path, out: Path | None, terminal: Terminal, **machine: Any) -> None:
    """Fit or read weights, score the cohort, write LOCO predictions."""
    _run_upto("predict", config, out, terminal, **machine)


@click.command()
@click.argument("config", type=CONFIG)
@common_options
def denoise(config: Path, out: Path | None, terminal: Terminal, **machine: Any) -> None:
    """Fit the null models (and what they need)."""
    _run_upto("denoise", config, out, terminal, **machine)


@click.command("score-statistics")
@click.argument("config", type=CONFIG)
@common_options
def score_statistics(config: Path, out: Path | None, terminal: Terminal, **machine: Any) -> None:
    """Compute the study bundle (and what it needs), without testing."""
    _run_upto("score-statistics", config, out, terminal, **machine)


@click.command()
@click.argument("config", type=CONFIG)
@click.option("--out", type=FOLDER, help="Output directory.")
@output_options
def check(config: Path, out: Path | None, terminal: Terminal) -> None:
    """Validate the inputs and print the plan; compute nothing."""
    from locomass.commands.check import check_study

    with terminal.at_work():
        checked = check_study(config, out)
    for line in checked.lines:
        terminal.say(line)
    unfit = checked.record.get("unfit_traits", {})
    show_unfit(unfit)
    terminal.say("all other inputs are in order" if unfit else "all inputs are in order")
    terminal.finish(INCOMPLETE if unfit else 0, **checked.record)


@click.command()
@click.argument("folder", type=FOLDER, default=Path("."))
@click.option("--out", type=CONFIG, help="Write it to this file (inside FOLDER: paths are relative to it).")
def init(folder: Path, out: Path | None) -> None:
    """Propose a commented configuration for the files of FOLDER."""
    from locomass.commands.init import propose_configuration

    text = propose_configuration(folder)
    if out is None:
        click.echo(text, nl=False)
        return
    if out.exists():
        raise click.UsageError(f"{out} exists; give another name")
    if out.resolve().parent != folder.resolve():
        raise click.UsageError(f"{out} is not in {folder}: the paths of the proposal are relative to that folder")
    out.write_text(text, encoding="utf-8")
    click.echo(f"{out}: read it, then run: locomass check {out}")


@click.command()
@click.argument("config", type=CONFIG)
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@common_options
@click.option("--once", is_flag=True, help="Look once and end: for cron, systemd timers, scrontab.")
@click.option("--interval", type=click.FloatRange(1), default=60.0, show_default=True, help="Seconds between looks.")
def watch(
    config: Path, folder: Path, out: Path | None, terminal: Terminal, once: bool, interval: float, **machine: Any
) -> None:
    """Run whenever new summary statistics are dropped in FOLDER; result sets are kept by date."""
    from locomass.commands.outcome import Resources
    from locomass.commands.watch import watch as watch_folder

    if terminal.as_json and not once:
        raise click.UsageError("--json needs --once: the object is printed when the command ends")
    with terminal.at_work() as progress:
        resources = Resources(progress=progress, **machine)
        found = watch_folder(config, folder, out or Path("results"), resources, once, interval)
    ran = found.outcome
    terminal.say(f"results: {ran.path}" if ran else "nothing new")
    code = BAD_INPUT if found.failures else INCOMPLETE if ran and (ran.failed or ran.unfit) else 0
    kept = {"failures": dict(found.failures), "waiting": dict(found.waiting)}
    terminal.finish(code, results=ran.path if ran else None, **kept)


@click.command()
@click.option("--out", type=FOLDER, default=Path("demo"), show_default=True, help="Where data and results go.")
@click.option("--seed", type=int, default=1, show_default=True, help="Seed of the simulated data.")
@output_options
def demo(out: Path, seed: int, terminal: Terminal) -> None:
    """Simulate two studies, run both, and combine them."""
    from locomass.commands.demo import run_demo
    from locomass.commands.outcome import Resources

    with terminal.at_work() as progress:
        where = run_demo(out, seed, Resources(progress=progress))
    finish_run(where, terminal)


def _run_upto(stage: str, config: Path, out: Path | None, terminal: Terminal, **machine: Any) -> None:
    """Run a study up to a stage."""
    from locomass.commands.outcome import Resources
    from locomass.commands.run import run_study

    with terminal.at_work() as progress:
        where = run_study(config, out, Resources(progress=progress, **machine), stage)
    finish_run(where, terminal)
