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


@cli.command()
@click.argument("folder", type=FOLDER)
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="A parameter, such as h2=0.3; repeat.")
@click.option("--show", is_flag=True, help="Print every parameter with its default and stop.")
def simulate(folder: Path, settings: tuple[str, ...], show: bool) -> None:
    """Simulate studies, a GWAS and an LD reference into FOLDER, ready for `locomass run`."""
    from pipeline.config import describe_keys
    from pipeline.simulate.parameters import Parameters
    from pipeline.simulate.study import parse_parameters, simulate_study

    if show:
        for key, kind, default, text in describe_keys(Parameters):
            click.echo(f"{key}  ({kind}; default {default})\n    {text}")
        return
    written = simulate_study(folder, parse_parameters(settings))
    for study in written.studies:
        click.echo(f"locomass run {study} --out {folder / 'results' / study.stem}")
    if len(written.studies) > 1:
        click.echo(f"locomass meta {written.consortium} --out {folder / 'results' / 'consortium'}")


@cli.command()
@click.option("--n", "sizes", type=click.FloatRange(min=1), multiple=True, required=True, help="Cohort size; repeat.")
@click.option("--b2", type=float, required=True, help="Variance that the variant (or burden) explains.")
@click.option("--h2", type=float, default=0.5, show_default=True, help="Heritability captured by the predictor.")
@click.option("--m-effective", type=float, default=60_000, show_default=True, help="Effective number of variants.")
@click.option("--n-summary", type=float, help="Size of the GWAS behind the predictor (default: all cohorts).")
@click.option("--alpha", type=float, default=2.5e-6, show_default=True, help="Significance level.")
def power(
    sizes: tuple[float, ...], b2: float, h2: float, m_effective: float, n_summary: float | None, alpha: float
) -> None:
    """Compare the power of linear, per-cohort mixed, summary-statistic and pooled mixed-model designs."""
    from pipeline.power import power_table

    click.echo(f"{'design':14} {'N':>10} {'R2':>8} {'N_eff':>12} {'NCP':>10} {'power':>8}")
    rows = power_table(sizes, b2, h2=h2, m_effective=m_effective, n_summary=n_summary, alpha=alpha)
    for row in rows:
        click.echo(
            f"{row.design:14} {row.n:10.0f} {row.r2:8.4f} {row.n_effective:12.1f} {row.ncp:10.3f} {row.power:8.4f}"
        )


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
def console(quiet: bool) -> Iterator[Callable[[str, int | None], Any]]:
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
    def show(title: str, total: int | None) -> Iterator[Callable[[], None]]:
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
