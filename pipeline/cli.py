"""The command line: one command per stage, plus run, check, demo. Bodies log, call one function, print."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline import __version__
from pipeline.errors import LocomassError

if TYPE_CHECKING:
    from pipeline.run import Outcome

SOME_GENES_FAILED = 3
CONFIG = click.Path(dir_okay=False, path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)


def common_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that every computing command has."""
    for option in (
        click.option("--quiet", is_flag=True, help="No progress, only errors."),
        click.option("--threads", type=click.IntRange(1), help="Threads of the one process (default: all cores)."),
        click.option("--workers", type=click.IntRange(0), default=0, help="Local worker processes instead of threads."),
        click.option("--out", type=FOLDER, help="Output directory (default: `output` of the configuration)."),
    ):
        function = option(function)
    return function


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="locomass")
def cli() -> None:
    """De-noise traits, share score statistics, meta-analyse, test genes.

    \b
    locomass demo                  the whole chain on made-up data, in a minute
    locomass check CONFIG.yaml     validate the inputs and print the plan
    locomass run CONFIG.yaml       one study: bundle, gene tests, report
    locomass meta CONFIG.yaml      combine study bundles
    """


@cli.command()
@click.argument("config", type=CONFIG)
@common_options
def run(config: Path, out: Path | None, workers: int, threads: int | None, quiet: bool) -> None:
    """Run a study from genotypes to report; stages that are up to date are skipped."""
    _run_upto("report", config, out, workers, threads, quiet)


@cli.command()
@click.argument("config", type=CONFIG)
@common_options
def predict(config: Path, out: Path | None, workers: int, threads: int | None, quiet: bool) -> None:
    """Fit or read weights, score the cohort, write LOCO predictions."""
    _run_upto("predict", config, out, workers, threads, quiet)


@cli.command()
@click.argument("config", type=CONFIG)
@common_options
def denoise(config: Path, out: Path | None, workers: int, threads: int | None, quiet: bool) -> None:
    """Fit the null models (and what they need)."""
    _run_upto("denoise", config, out, workers, threads, quiet)


@cli.command("score-statistics")
@click.argument("config", type=CONFIG)
@common_options
def score_statistics(config: Path, out: Path | None, workers: int, threads: int | None, quiet: bool) -> None:
    """Compute the study bundle (and what it needs), without testing."""
    _run_upto("score-statistics", config, out, workers, threads, quiet)


@cli.command()
@click.argument("config", type=CONFIG)
@click.option("--study", "studies", type=FOLDER, multiple=True, help="A study bundle; repeat. Replaces the list.")
@common_options
def meta(
    config: Path, studies: tuple[Path, ...], out: Path | None, workers: int, threads: int | None, quiet: bool
) -> None:
    """Combine study bundles and test genes."""
    from pipeline.run import Resources, run_meta_analysis

    with console(quiet) as progress:
        where = run_meta_analysis(config, studies, out, Resources(workers, threads, progress))
        _finish(where, quiet)


@cli.command()
@click.argument("config", type=CONFIG)
@click.option("--out", type=FOLDER, help="Output directory.")
def check(config: Path, out: Path | None) -> None:
    """Validate the inputs and print the plan; compute nothing."""
    from pipeline.run import check_study

    for line in check_study(config, out):
        click.echo(line)
    click.echo("all inputs are in order")


@cli.command()
@click.argument("results", type=FOLDER)
def report(results: Path) -> None:
    """Write report.html again from the tables in a results directory."""
    from pipeline.run import rewrite_report

    click.echo(f"report: {rewrite_report(results)}")


@cli.command()
@click.option("--out", type=FOLDER, default=Path("demo"), show_default=True, help="Where data and results go.")
@click.option("--seed", type=int, default=1, show_default=True, help="Seed of the simulated data.")
@click.option("--quiet", is_flag=True, help="No progress, only errors.")
def demo(out: Path, seed: int, quiet: bool) -> None:
    """Simulate two studies, run both, and combine them."""
    from pipeline.run import Resources, run_demo

    with console(quiet) as progress:
        where = run_demo(out, seed, Resources(progress=progress))
        _finish(where, quiet)


@cli.group("config")
def config_group() -> None:
    """What a configuration may hold."""


@config_group.command("show")
@click.option("--meta", "for_meta", is_flag=True, help="Keys of `locomass meta` instead of `locomass run`.")
def config_show(for_meta: bool) -> None:
    """Print every key with its type, default and help."""
    from pipeline.config import MetaConfig, RunConfig, describe_keys

    for key, kind, default, text in describe_keys(MetaConfig if for_meta else RunConfig):
        click.echo(f"{key}  ({kind}; default {default})\n    {text}")


@config_group.command("tests")
def config_tests() -> None:
    """Print the gene tests that `tests: names` accepts."""
    from pipeline.gene_tests.registry import TESTS

    for name, test in TESTS.items():
        click.echo(f"{name:16} {test.summary}")


def _run_upto(stage: str, config: Path, out: Path | None, workers: int, threads: int | None, quiet: bool) -> None:
    """Run a study up to a stage."""
    from pipeline.run import Resources, run_study

    with console(quiet) as progress:
        where = run_study(config, out, Resources(workers, threads, progress), stage)
        _finish(where, quiet)


def _finish(outcome: Outcome, quiet: bool) -> None:
    """Say where the results are; genes that failed make the exit code 3."""
    if not quiet:
        report = outcome.path / "report.html"
        click.echo(f"results: {outcome.path}" + (f"; open {report}" if report.exists() else ""))
    if outcome.failed:
        click.echo(f"{outcome.failed} genes failed; the note of their rows says why", err=True)
        sys.exit(SOME_GENES_FAILED)


@contextmanager
def console(quiet: bool) -> Iterator[Callable[[str, int], Any]]:
    """Set up logging to the terminal and give the progress display."""
    from rich.console import Console
    from rich.logging import RichHandler
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from pipeline.run import no_progress

    screen = Console(stderr=True)
    handler: logging.Handler = (
        RichHandler(console=screen, show_path=False, show_level=False)
        if screen.is_terminal
        else logging.StreamHandler(sys.stderr)
    )
    handler.setLevel(logging.ERROR if quiet else logging.INFO)
    logger = logging.getLogger("locomass")
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)

    @contextmanager
    def show(title: str, total: int) -> Iterator[Callable[[], None]]:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=screen, transient=True) as bars:
            task = bars.add_task(title, total=total)
            yield lambda: bars.advance(task)

    try:
        yield show if screen.is_terminal and not quiet else no_progress
    finally:
        logger.removeHandler(handler)


def main() -> None:
    """Run the command line; an error that a user can mend is one message and its exit code."""
    try:
        sys.exit(cli.main(standalone_mode=False) or 0)
    except LocomassError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted; run the same command again to resume", err=True)
        sys.exit(130)
