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
    from pipeline.partitions import Planned
    from pipeline.run import Outcome

SOME_GENES_FAILED = 3
CONFIG = click.Path(dir_okay=False, path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
ANY = click.Path(path_type=Path)


def common_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that every computing command has."""
    for option in (
        click.option("--quiet", is_flag=True, help="No progress, only errors."),
        click.option("--threads", type=click.IntRange(1), help="Threads of the one process (default: all cores)."),
        click.option("--workers", type=click.IntRange(0), default=0, help="Local worker processes instead of threads."),
        click.option("--memory", help="Memory of the process, or of each worker, such as `4 GB`; sizes the batches."),
        click.option(
            "--cluster", help="A file of configs/cluster, a scheduler's address, or its scheduler file (.json)."
        ),
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
def run(config: Path, out: Path | None, quiet: bool, **machine: Any) -> None:
    """Run a study from genotypes to report; stages that are up to date are skipped."""
    _run_upto("report", config, out, quiet, **machine)


@cli.command()
@click.argument("config", type=CONFIG)
@common_options
def predict(config: Path, out: Path | None, quiet: bool, **machine: Any) -> None:
    """Fit or read weights, score the cohort, write LOCO predictions."""
    _run_upto("predict", config, out, quiet, **machine)


@cli.command()
@click.argument("config", type=CONFIG)
@common_options
def denoise(config: Path, out: Path | None, quiet: bool, **machine: Any) -> None:
    """Fit the null models (and what they need)."""
    _run_upto("denoise", config, out, quiet, **machine)


@cli.command("score-statistics")
@click.argument("config", type=CONFIG)
@common_options
def score_statistics(config: Path, out: Path | None, quiet: bool, **machine: Any) -> None:
    """Compute the study bundle (and what it needs), without testing."""
    _run_upto("score-statistics", config, out, quiet, **machine)


@cli.command()
@click.argument("config", type=CONFIG)
@click.option("--study", "studies", type=ANY, multiple=True, help="A bundle (or .tar); repeat. Replaces the list.")
@common_options
def meta(config: Path, studies: tuple[Path, ...], out: Path | None, quiet: bool, **machine: Any) -> None:
    """Combine study bundles and test genes."""
    from pipeline.run import Resources, run_meta_analysis

    with console(quiet) as progress:
        where = run_meta_analysis(config, studies, out, Resources(progress=progress, **machine))
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


@cli.command("import")
@click.argument("format_name", metavar="FORMAT")
@click.option("--scores", type=FILE, multiple=True, required=True, help="Single-variant statistics; one per trait.")
@click.option("--covariance", type=ANY, multiple=True, help="Covariances: a file, or the prefix of SAIGE's.")
@click.option("--reference", type=ANY, help="PLINK fileset with the LD (regenie).")
@click.option("--sets", type=FILE, help="REGENIE set list; for mass it gives the alleles.")
@click.option("--trait", "traits", multiple=True, required=True, help="Name of each trait, in the order of --scores.")
@click.option("--kind", type=click.Choice(["quantitative", "binary"]), default="quantitative", show_default=True)
@click.option("--n", "n_samples", type=int, help="Samples, where the files do not say.")
@click.option("--cases", "n_cases", type=int, help="Cases among them.")
@click.option("--study", required=True, help="Name of the study.")
@click.option("--build", help="Genome build, such as GRCh38.")
@click.option("--out", type=FOLDER, required=True, help="Bundle to write.")
def import_(
    format_name: str,
    scores: tuple[Path, ...],
    covariance: tuple[Path, ...],
    reference: Path | None,
    sets: Path | None,
    traits: tuple[str, ...],
    kind: str,
    n_samples: int | None,
    n_cases: int | None,
    study: str,
    build: str | None,
    out: Path,
) -> None:
    """Write a study bundle from another program's score statistics.

    FORMAT is rvtests, raremetal, mass, regenie, saige, seqmeta or generic.
    """
    from pipeline.io.exchange.common import ImportRequest
    from pipeline.stages.exchange import import_study

    if len(traits) != len(scores) or (covariance and len(covariance) != len(scores)):
        raise click.UsageError("--scores, --trait (and --covariance) must be given equally often")
    pairs = zip(scores, covariance or [None] * len(scores), traits, strict=True)
    requests = [ImportRequest(s, c, reference, sets, t, kind, n_samples, n_cases) for s, c, t in pairs]
    for note in import_study(format_name, requests, out, study=study, genome_build=build):
        click.echo(note)
    click.echo(f"bundle: {out}")


@cli.command()
@click.argument("format_name", metavar="FORMAT")
@click.argument("source", type=FOLDER)
@click.argument("out", type=ANY)
@click.option("--trait", help="Trait, where there are several.")
@click.option("--weights", help="Weights of the gene tests (regenie).")
def export(format_name: str, source: Path, out: Path, trait: str | None, weights: str | None) -> None:
    """Write a bundle as rvtests, raremetal, mass or sets; or a results directory as regenie."""
    from pipeline.stages.exchange import export_results, export_study

    if format_name == "regenie":
        files = export_results(source, out, trait=trait, weights=weights)
    else:
        files = export_study(format_name, source, out, trait=trait)
    for file in files:
        click.echo(file)


@cli.command()
@click.argument("bundles", type=click.Path(exists=True, path_type=Path), nargs=-1, required=True)
def inspect(bundles: tuple[Path, ...]) -> None:
    """Find what is wrong with study bundles, alone and together; exit code 2 when they must not be combined."""
    import tempfile

    from pipeline.stages.inspect import ERROR, inspect_bundles

    with tempfile.TemporaryDirectory() as scratch:
        findings = inspect_bundles(bundles, Path(scratch))
    for finding in findings:
        click.echo(str(finding))
    if not findings:
        click.echo("nothing to report")
    if any(f.severity == ERROR for f in findings):
        sys.exit(2)


@cli.command()
@click.argument("meta_results", type=FOLDER)
@click.argument("pooled_results", type=FOLDER)
@click.option("--out", type=FOLDER, default=Path("certificate"), show_default=True, help="Where the certificate goes.")
@click.option("--tolerance", type=float, default=1e-6, show_default=True, help="Relative difference that is equal.")
def certify(meta_results: Path, pooled_results: Path, out: Path, tolerance: float) -> None:
    """Compare a meta-analysis with the pooled analysis, row by row."""
    from pipeline.stages.certify import certify as compare

    certificate = compare(meta_results, pooled_results, out, tolerance=tolerance)
    click.echo(f"{'agree' if certificate.agrees else 'do not agree'}: {out / 'certificate.md'}")
    if not certificate.agrees:
        sys.exit(SOME_GENES_FAILED)


@cli.command()
@click.argument("folder", type=FOLDER, default=Path("."))
@click.option("--out", type=CONFIG, help="Write it to this file (inside FOLDER: paths are relative to it).")
def init(folder: Path, out: Path | None) -> None:
    """Propose a commented configuration for the files of FOLDER."""
    from pipeline.wizard import propose_configuration

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


@cli.command()
@click.argument("config", type=CONFIG)
@click.option("--study", "studies", type=ANY, multiple=True, help="A bundle (or .tar); repeat. Replaces the list.")
@click.option("--index", multiple=True, metavar="CHROM:POS:REF:ALT", help="An index variant; repeat. Default: auto.")
@click.option(
    "--max-p", type=click.FloatRange(0, 1, min_open=True), default=5e-8, show_default=True, help="p of entry."
)
@click.option("--out", type=FOLDER, required=True, help="Output directory.")
def conditional(config: Path, studies: tuple[Path, ...], index: tuple[str, ...], max_p: float, out: Path) -> None:
    """Test genes given index variants of their own sets, from study bundles (CONFIG as for `locomass meta`)."""
    from pipeline.run import run_conditional_analysis

    click.echo(f"results: {run_conditional_analysis(config, studies, list(index) or 'auto', max_p, out)}")


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
@click.option("--cohorts", type=click.IntRange(min=1), default=1, help="Take the given sizes this many times.")
@click.option("--plot", type=CONFIG, help="Draw effective sample size and power as cohorts join (.svg, .png, .pdf).")
def power(
    sizes: tuple[float, ...],
    b2: float,
    h2: float,
    m_effective: float,
    n_summary: float | None,
    alpha: float,
    cohorts: int,
    plot: Path | None,
) -> None:
    """Compare the power of linear, per-cohort mixed, summary-statistic and pooled mixed-model designs."""
    from pipeline.power import grow_consortium

    if plot is not None and plot.suffix.lower() not in (".svg", ".png", ".pdf"):
        raise click.BadParameter(f"expected a name that ends in .svg, .png or .pdf, got {plot}", param_hint="--plot")
    tables = grow_consortium(sizes * cohorts, b2, h2=h2, m_effective=m_effective, n_summary=n_summary, alpha=alpha)
    click.echo(f"{'design':14} {'N':>10} {'R2':>8} {'N_eff':>12} {'NCP':>10} {'power':>8}")
    for row in tables[-1]:
        click.echo(
            f"{row.design:14} {row.n:10.0f} {row.r2:8.4f} {row.n_effective:12.1f} {row.ncp:10.3f} {row.power:8.4f}"
        )
    if plot is None:
        return
    from pipeline.report.power_chart import draw_power

    designs = [row.design for row in tables[-1]]
    gain = {d: [rows[i].n_effective / rows[i].n for rows in tables] for i, d in enumerate(designs)}
    draw_power(plot, range(1, len(tables) + 1), gain, {d: [r[i].power for r in tables] for i, d in enumerate(designs)})


@cli.command()
@click.argument("results", type=FOLDER)
def status(results: Path) -> None:
    """Say which stages of an output directory are done, which batches are missing, and who is at work."""
    from pipeline.plan import describe_status

    for line in describe_status(results):
        click.echo(line)


@cli.group("plan")
def plan_group() -> None:
    """A run by hand, for array jobs, Snakemake and Nextflow: init, run, missing, finalise."""


@plan_group.command("init")
@click.argument("config", type=CONFIG)
@click.option("--out", type=FOLDER, required=True, help="Output directory, which all machines see.")
@click.option("--threads", type=click.IntRange(1), help="Threads of this process.")
def plan_init(config: Path, out: Path, threads: int | None) -> None:
    """Run up to the first batches, write them down, and print their numbers."""
    from pipeline.partitions import init_partitions
    from pipeline.run import Resources

    with console(False) as progress:
        _tell_plan(init_partitions(config, out, Resources(threads=threads, progress=progress)))


@plan_group.command("run")
@click.argument("out", type=FOLDER)
@click.argument("numbers", type=click.IntRange(0), nargs=-1, required=True)
def plan_run(out: Path, numbers: tuple[int, ...]) -> None:
    """Run batches, such as `locomass plan run OUT $SLURM_ARRAY_TASK_ID`; those that are there are skipped."""
    from pipeline.partitions import run_partition

    for number in numbers:
        click.echo(f"batch {number}: {'done' if run_partition(out, number) else 'was there'}")


@plan_group.command("missing")
@click.argument("out", type=FOLDER)
def plan_missing(out: Path) -> None:
    """Print the batches that have not been run, or were cut, comma-separated as `sbatch --array` wants them."""
    from pipeline.partitions import list_missing

    click.echo(",".join(map(str, list_missing(out))))


@plan_group.command("finalise")
@click.argument("config", type=CONFIG)
@click.option("--out", type=FOLDER, required=True, help="Output directory of `locomass plan init`.")
@click.option("--threads", type=click.IntRange(1), help="Threads of this process.")
def plan_finalise(config: Path, out: Path, threads: int | None) -> None:
    """Gather the batches; then the next stage's batches are written down, or the run is done."""
    from pipeline.partitions import finalise_partitions
    from pipeline.run import Resources

    with console(False) as progress:
        _tell_plan(finalise_partitions(config, out, Resources(threads=threads, progress=progress)))


def _tell_plan(plan: Planned | Outcome) -> None:
    """Print what comes next (the batches in the words of `sbatch --array`), or where the results are."""
    from pipeline.run import Outcome

    if isinstance(plan, Outcome):
        _finish(plan, False)
    else:
        click.echo(f"{plan.total} batches, {len(plan.missing)} to run: {plan.array}")


@cli.command()
@click.argument("config", type=CONFIG)
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@common_options
@click.option("--once", is_flag=True, help="Look once and end: for cron, systemd timers, scrontab.")
@click.option("--interval", type=click.FloatRange(1), default=60.0, show_default=True, help="Seconds between looks.")
def watch(
    config: Path, folder: Path, out: Path | None, quiet: bool, once: bool, interval: float, **machine: Any
) -> None:
    """Run whenever new summary statistics are dropped in FOLDER; result sets are kept by date."""
    from pipeline.run import Resources
    from pipeline.watch import watch as watch_folder

    with console(quiet) as progress:
        resources = Resources(progress=progress, **machine)
        result = watch_folder(config, folder, out or Path("results"), resources, once, interval)
    if not quiet:
        click.echo(f"results: {result}" if result else "nothing new")


@cli.group("config")
def config_group() -> None:
    """What a configuration may hold."""


@config_group.command("show")
@click.option("--meta", "for_meta", is_flag=True, help="Keys of `locomass meta` instead of `locomass run`.")
@click.option("--yaml", "as_yaml", is_flag=True, help="As a configuration with every key.")
def config_show(for_meta: bool, as_yaml: bool) -> None:
    """Print every key with its type, default and help."""
    from pipeline.config import MetaConfig, RunConfig, describe_keys

    if as_yaml:
        from pipeline.wizard import document_keys

        click.echo(document_keys(MetaConfig if for_meta else RunConfig), nl=False)
        return
    for key, kind, default, text in describe_keys(MetaConfig if for_meta else RunConfig):
        click.echo(f"{key}  ({kind}; default {default})\n    {text}")


@config_group.command("schema")
@click.option("--meta", "for_meta", is_flag=True, help="Schema of `locomass meta` instead of `locomass run`.")
def config_schema(for_meta: bool) -> None:
    """Print the JSON Schema of the configuration, for editors."""
    import json

    from pipeline.config import MetaConfig, RunConfig, export_schema

    click.echo(json.dumps(export_schema(MetaConfig if for_meta else RunConfig), indent=1))


@config_group.command("tests")
def config_tests() -> None:
    """Print the gene tests that `tests: names` accepts."""
    from pipeline.gene_tests.registry import TESTS

    for name, test in TESTS.items():
        click.echo(f"{name:16} {test.summary}")


def _run_upto(stage: str, config: Path, out: Path | None, quiet: bool, **machine: Any) -> None:
    """Run a study up to a stage."""
    from pipeline.run import Resources, run_study

    with console(quiet) as progress:
        where = run_study(config, out, Resources(progress=progress, **machine), stage)
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
