"""What the commands share: kinds of paths, options of every computing command, the end of a run in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from locomass.cli.terminal import INCOMPLETE, Terminal, output_options

if TYPE_CHECKING:
    from locomass.commands.outcome import Outcome

CONFIG = click.Path(dir_okay=False, path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
ANY = click.Path(path_type=Path)


def common_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that every computing command has."""
    for option in (
        click.option("--threads", type=click.IntRange(1), help="Threads of the one process (default: all cores)."),
        click.option("--workers", type=click.IntRange(0), default=0, help="Local worker processes instead of threads."),
        click.option("--memory", help="Memory of the process, or of each worker, such as `4 GB`; sizes the batches."),
        click.option(
            "--cluster", help="A file of configs/cluster, a scheduler's address, or its scheduler file (.json)."
        ),
        click.option("--out", type=FOLDER, help="Output directory (default: `output` of the configuration)."),
    ):
        function = option(function)
    return output_options(function)


def finish_run(outcome: Outcome, terminal: Terminal) -> None:
    """Say where the results are and which genes are strongest; traits or genes that failed make the exit code 3."""
    from locomass.report.brief import STRONGEST, describe_results
    from locomass.report.embed import format_p

    report, found = outcome.path / "report.html", describe_results(outcome.path)
    if found.get("strongest"):
        shown = [{**row, "p": format_p(row["log10p"])} for row in found["strongest"]]
        rows = [[str(row[name]) for name in STRONGEST] for row in shown]
        terminal.show_table(STRONGEST, rows, [STRONGEST.index(name) for name in ("max_maf", "variants", "p")])
    terminal.say(f"results: {outcome.path}" + (f"; open {report}" if report.exists() else ""))
    if outcome.failed:
        click.echo(f"{outcome.failed} genes failed; the note of their rows says why", err=True)
    show_unfit(outcome.unfit)
    page = report if report.exists() else None
    code = INCOMPLETE if outcome.failed or outcome.unfit else 0
    failed = {"failed_genes": outcome.failed, "unfit_traits": dict(outcome.unfit)}
    terminal.finish(code, results=outcome.path, report=page, **failed, **found)


def show_unfit(unfit: Mapping[str, str]) -> None:
    """Print the traits that cannot be fitted as errors, with the reason of each."""
    for trait, reason in unfit.items():
        click.echo(f"trait '{trait}' cannot be fitted and is left out: {reason}", err=True)


def show_keys(keys: list[tuple[str, str, str, str]], terminal: Terminal) -> None:
    """Print keys with type, default and help."""
    for key, kind, default, text in keys:
        terminal.say(f"{key}  ({kind}; default {default})\n    {text}")
    terminal.finish(keys=[dict(zip(("key", "type", "default", "help"), row, strict=True)) for row in keys])
