"""What is in an output directory: status, and its report written again."""

from __future__ import annotations

from pathlib import Path

import click

from locomass.cli.options import FOLDER
from locomass.cli.terminal import Terminal, output_options


@click.command()
@click.argument("results", type=FOLDER)
@output_options
def status(results: Path, terminal: Terminal) -> None:
    """Say which stages of an output directory are done, which batches are missing, and who is at work."""
    from locomass.run.directory import describe_status, read_status

    if terminal.as_json:
        terminal.finish(**read_status(results))
        return
    for line in describe_status(results):
        terminal.say(line)


@click.command()
@click.argument("results", type=FOLDER)
@click.option("--all-figures", is_flag=True, help="Figures of every trait and test, not only of the strongest.")
@output_options
def report(results: Path, all_figures: bool, terminal: Terminal) -> None:
    """Write report.html and its figures again from the tables in a results directory."""
    from locomass.commands.report import rewrite_report

    path = rewrite_report(results, all_figures)
    terminal.say(f"report: {path}")
    terminal.finish(report=path)
