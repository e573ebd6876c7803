"""The command line: one command per stage, plus run, check, demo. Bodies log, call one function, print."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline import __version__
from pipeline.errors import LocomassError
from pipeline.terminal import BAD_INPUT, FAILED_GENES, INTERRUPTED, Terminal, output_options

if TYPE_CHECKING:
    from pipeline.partitions import Planned
    from pipeline.run import Outcome

CONFIG = click.Path(dir_okay=False, path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
ANY = click.Path(path_type=Path)
COLLECTED_AFTER = (100_000, 20, 100)  # imports make many objects and no garbage to collect: a tenth of a small run


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
def run(config: Path, out: Path | None, terminal: Terminal, **machine: Any) -> None:
    """Run a study from genotypes to report; stages that are up to date are skipped."""
    _run_upto("report", config, out, terminal, **machine)


@cli.command()
@click.argument("config", type=CONFIG)
@common_options
def predict(config: Path, out: Path | None, terminal: Terminal, **machine: Any) -> None:
    """Fit or read weights, score the cohort, write LOCO predictions."""
    _run_upto("predict", config, out, terminal, **machine)


@cli.command()
@click.argument("config", type=CONFIG)
@common_options
def denoise(config: Path, out: Path | None, terminal: Terminal, **machine: Any) -> None:
    """Fit the null models (and what they need)."""
    _run_upto("denoise", config, out, terminal, **machine)


@cli.command("score-statistics")
@click.argument("config", type=CONFIG)
@common_options
def score_statistics(config: Path, out: Path | None, terminal: Terminal, **machine: Any) -> None:
    """Compute the study bundle (and what it needs), without testing."""
    _run_upto("score-statistics", config, out, terminal, **machine)


@cli.command()
@click.argument("config", type=CONFIG)
@click.option("--study", "studies", type=ANY, multiple=True, help="A bundle (or .tar); repeat. Replaces the list.")
@common_options
def meta(config: Path, studies: tuple[Path, ...], out: Path | None, terminal: Terminal, **machine: Any) -> None:
    """Combine study bundles and test genes."""
    from pipeline.run import Resources, run_meta_analysis

    with terminal.at_work() as progress:
        where = run_meta_analysis(config, studies, out, Resources(progress=progress, **machine))
    _finish(where, terminal)


@cli.command()
@click.argument("config", type=CONFIG)
@click.option("--out", type=FOLDER, help="Output directory.")
@output_options
def check(config: Path, out: Path | None, terminal: Terminal) -> None:
    """Validate the inputs and print the plan; compute nothing."""
    from pipeline.run import check_study

    checked = check_study(config, out)
    for line in checked.lines:
        terminal.say(line)
    terminal.say("all inputs are in order")
    terminal.finish(**checked.record)


@cli.command()
@click.argument("results", type=FOLDER)
@click.option("--all-figures", is_flag=True, help="Figures of every trait and test, not only of the strongest.")
@output_options
def report(results: Path, all_figures: bool, terminal: Terminal) -> None:
    """Write report.html and its figures again from the tables in a results directory."""
    from pipeline.run import rewrite_report

    path = rewrite_report(results, all_figures)
    terminal.say(f"report: {path}")
    terminal.finish(report=path)


@cli.command()
@click.option("--out", type=FOLDER, default=Path("demo"), show_default=True, help="Where data and results go.")
@click.option("--seed", type=int, default=1, show_default=True, help="Seed of the simulated data.")
@output_options
def demo(out: Path, seed: int, terminal: Terminal) -> None:
    """Simulate two studies, run both, and combine them."""
    from pipeline.run import Resources, run_demo

    with terminal.at_work() as progress:
        where = run_demo(out, seed, Resources(progress=progress))
    _finish(where, terminal)


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
@output_options
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
    terminal: Terminal,
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
    notes = import_study(format_name, requests, out, study=study, genome_build=build)
    for note in [*notes, f"bundle: {out}"]:
        terminal.say(note)
    terminal.finish(bundle=out, notes=notes)


@cli.command()
@click.argument("format_name", metavar="FORMAT")
@click.argument("source", type=FOLDER)
@click.argument("out", type=ANY)
@click.option("--trait", help="Trait, where there are several.")
@click.option("--weights", help="Weights of the gene tests (regenie).")
@output_options
def export(
    format_name: str, source: Path, out: Path, trait: str | None, weights: str | None, terminal: Terminal
) -> None:
    """Write a bundle as rvtests, raremetal, mass or sets; or a results directory as regenie."""
    from pipeline.stages.exchange import export_results, export_study

    if format_name == "regenie":
        files = export_results(source, out, trait=trait, weights=weights)
    else:
        files = export_study(format_name, source, out, trait=trait)
    for file in files:
        terminal.say(str(file))
    terminal.finish(files=list(files))


@cli.command()
@click.argument("bundles", type=click.Path(exists=True, path_type=Path), nargs=-1, required=True)
@output_options
def inspect(bundles: tuple[Path, ...], terminal: Terminal) -> None:
    """Find what is wrong with study bundles, alone and together; exit code 2 when they must not be combined."""
    import tempfile
    from dataclasses import asdict

    from pipeline.stages.inspect import ERROR, inspect_bundles

    with tempfile.TemporaryDirectory() as scratch:
        findings = inspect_bundles(bundles, Path(scratch))
    for finding in findings:
        terminal.say(str(finding))
    if not findings:
        terminal.say("nothing to report")
    must_not = any(f.severity == ERROR for f in findings)
    terminal.finish(BAD_INPUT if must_not else 0, findings=[asdict(f) for f in findings])


@cli.command()
@click.argument("meta_results", type=FOLDER)
@click.argument("pooled_results", type=FOLDER)
@click.option("--out", type=FOLDER, default=Path("certificate"), show_default=True, help="Where the certificate goes.")
@click.option("--tolerance", type=float, default=1e-6, show_default=True, help="Relative difference that is equal.")
@output_options
def certify(meta_results: Path, pooled_results: Path, out: Path, tolerance: float, terminal: Terminal) -> None:
    """Compare a meta-analysis with the pooled analysis, row by row."""
    from pipeline.stages.certify import certify as compare

    certificate = compare(meta_results, pooled_results, out, tolerance=tolerance)
    terminal.say(f"{'agree' if certificate.agrees else 'do not agree'}: {out / 'certificate.md'}")
    terminal.finish(
        0 if certificate.agrees else FAILED_GENES, agree=certificate.agrees, certificate=out / "certificate.json"
    )


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
@click.option("--out", type=FOLDER, required=True, help="Output directory; that of `locomass meta` for its report.")
@output_options
def conditional(
    config: Path, studies: tuple[Path, ...], index: tuple[str, ...], max_p: float, out: Path, terminal: Terminal
) -> None:
    """Test genes given index variants of their own sets, from study bundles (CONFIG as for `locomass meta`).

    In the output directory of a meta-analysis, the report is written again: its gene pages show the results.
    """
    from pipeline.run import run_conditional_analysis

    table = run_conditional_analysis(config, studies, list(index) or "auto", max_p, out)
    page = out / "report.html"
    terminal.say(f"results: {table}" + (f"; open {page}" if page.exists() else ""))
    terminal.finish(table=table, report=page if page.exists() else None)


@cli.command()
@click.argument("folder", type=FOLDER)
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="A parameter, such as h2=0.3; repeat.")
@click.option("--show", is_flag=True, help="Print every parameter with its default and stop.")
@output_options
def simulate(folder: Path, settings: tuple[str, ...], show: bool, terminal: Terminal) -> None:
    """Simulate studies, a GWAS and an LD reference into FOLDER, ready for `locomass run`."""
    from pipeline.config import describe_keys
    from pipeline.simulate.parameters import Parameters
    from pipeline.simulate.study import parse_parameters, simulate_study

    if show:
        _show_keys(describe_keys(Parameters), terminal)
        return
    written = simulate_study(folder, parse_parameters(settings))
    commands = [f"locomass run {study} --out {folder / 'results' / study.stem}" for study in written.studies]
    if len(written.studies) > 1:
        commands.append(f"locomass meta {written.consortium} --out {folder / 'results' / 'consortium'}")
    for command in commands:
        terminal.say(command)
    terminal.finish(folder=folder, commands=commands)


@cli.command()
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

    from pipeline.power import grow_consortium

    if plot is not None and plot.suffix.lower() not in (".svg", ".png", ".pdf"):
        raise click.BadParameter(f"expected a name that ends in .svg, .png or .pdf, got {plot}", param_hint="--plot")
    tables = grow_consortium(sizes * cohorts, b2, h2=h2, m_effective=m_effective, n_summary=n_summary, alpha=alpha)
    rows = tables[-1]
    cells = [
        [r.design, f"{r.n:.0f}", f"{r.r2:.4f}", f"{r.n_effective:.1f}", f"{r.ncp:.3f}", f"{r.power:.4f}"] for r in rows
    ]
    terminal.show_table(["design", "N", "R2", "N_eff", "NCP", "power"], cells, range(1, 6))
    if plot is not None:
        from pipeline.report.power_chart import draw_power

        gain = {row.design: [t[i].n_effective / t[i].n for t in tables] for i, row in enumerate(rows)}
        draw_power(
            plot, range(1, len(tables) + 1), gain, {r.design: [t[i].power for t in tables] for i, r in enumerate(rows)}
        )
    terminal.finish(designs=[asdict(row) for row in rows], plot=plot)


@cli.command()
@click.argument("results", type=FOLDER)
@output_options
def status(results: Path, terminal: Terminal) -> None:
    """Say which stages of an output directory are done, which batches are missing, and who is at work."""
    from pipeline.plan import describe_status, read_status

    if terminal.as_json:
        terminal.finish(**read_status(results))
        return
    for line in describe_status(results):
        terminal.say(line)


@cli.group("plan")
def plan_group() -> None:
    """A run by hand, for array jobs, Snakemake and Nextflow: init, run, missing, finalise."""


@plan_group.command("init")
@click.argument("config", type=CONFIG)
@click.option("--out", type=FOLDER, required=True, help="Output directory, which all machines see.")
@click.option("--threads", type=click.IntRange(1), help="Threads of this process.")
@output_options
def plan_init(config: Path, out: Path, threads: int | None, terminal: Terminal) -> None:
    """Run up to the first batches, write them down, and print their numbers."""
    from pipeline.partitions import init_partitions
    from pipeline.run import Resources

    with terminal.at_work() as progress:
        planned = init_partitions(config, out, Resources(threads=threads, progress=progress))
    _tell_plan(planned, terminal)


@plan_group.command("run")
@click.argument("out", type=FOLDER)
@click.argument("numbers", type=click.IntRange(0), nargs=-1, required=True)
@output_options
def plan_run(out: Path, numbers: tuple[int, ...], terminal: Terminal) -> None:
    """Run batches, such as `locomass plan run OUT $SLURM_ARRAY_TASK_ID`; those that are there are skipped."""
    from pipeline.partitions import run_partition

    done: dict[str, list[int]] = {"computed": [], "was_there": []}
    for number in numbers:
        computed = run_partition(out, number)
        done["computed" if computed else "was_there"].append(number)
        terminal.say(f"batch {number}: {'done' if computed else 'was there'}")
    terminal.finish(computed=done["computed"], was_there=done["was_there"])


@plan_group.command("missing")
@click.argument("out", type=FOLDER)
@output_options
def plan_missing(out: Path, terminal: Terminal) -> None:
    """Print the batches that have not been run, or were cut, comma-separated as `sbatch --array` wants them."""
    from pipeline.partitions import list_missing

    missing = list(list_missing(out))
    terminal.say(",".join(map(str, missing)))
    terminal.finish(missing=missing)


@plan_group.command("finalise")
@click.argument("config", type=CONFIG)
@click.option("--out", type=FOLDER, required=True, help="Output directory of `locomass plan init`.")
@click.option("--threads", type=click.IntRange(1), help="Threads of this process.")
@output_options
def plan_finalise(config: Path, out: Path, threads: int | None, terminal: Terminal) -> None:
    """Gather the batches; then the next stage's batches are written down, or the run is done."""
    from pipeline.partitions import finalise_partitions
    from pipeline.run import Resources

    with terminal.at_work() as progress:
        planned = finalise_partitions(config, out, Resources(threads=threads, progress=progress))
    _tell_plan(planned, terminal)


def _tell_plan(plan: Planned | Outcome, terminal: Terminal) -> None:
    """Print what comes next (the batches in the words of `sbatch --array`), or where the results are."""
    from pipeline.run import Outcome

    if isinstance(plan, Outcome):
        _finish(plan, terminal)
        return
    terminal.say(f"{plan.total} batches, {len(plan.missing)} to run: {plan.array}")
    terminal.finish(results=plan.path, batches=plan.total, missing=list(plan.missing), array=plan.array)


@cli.command()
@click.argument("config", type=CONFIG)
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@common_options
@click.option("--once", is_flag=True, help="Look once and end: for cron, systemd timers, scrontab.")
@click.option("--interval", type=click.FloatRange(1), default=60.0, show_default=True, help="Seconds between looks.")
def watch(
    config: Path, folder: Path, out: Path | None, terminal: Terminal, once: bool, interval: float, **machine: Any
) -> None:
    """Run whenever new summary statistics are dropped in FOLDER; result sets are kept by date."""
    from pipeline.run import Resources
    from pipeline.watch import watch as watch_folder

    if terminal.as_json and not once:
        raise click.UsageError("--json needs --once: the object is printed when the command ends")
    with terminal.at_work() as progress:
        resources = Resources(progress=progress, **machine)
        result = watch_folder(config, folder, out or Path("results"), resources, once, interval)
    terminal.say(f"results: {result}" if result else "nothing new")
    terminal.finish(results=result)


@cli.group("config")
def config_group() -> None:
    """What a configuration may hold."""


@config_group.command("show")
@click.option("--meta", "for_meta", is_flag=True, help="Keys of `locomass meta` instead of `locomass run`.")
@click.option("--yaml", "as_yaml", is_flag=True, help="As a configuration with every key.")
@output_options
def config_show(for_meta: bool, as_yaml: bool, terminal: Terminal) -> None:
    """Print every key with its type, default and help."""
    from pipeline.config import MetaConfig, RunConfig, describe_keys

    kind = MetaConfig if for_meta else RunConfig
    if not as_yaml:
        _show_keys(describe_keys(kind), terminal)
        return
    from pipeline.wizard import document_keys

    text = document_keys(kind)
    terminal.say(text.removesuffix("\n"))
    terminal.finish(yaml=text)


def _show_keys(keys: list[tuple[str, str, str, str]], terminal: Terminal) -> None:
    """Print keys with type, default and help."""
    for key, kind, default, text in keys:
        terminal.say(f"{key}  ({kind}; default {default})\n    {text}")
    terminal.finish(keys=[dict(zip(("key", "type", "default", "help"), row, strict=True)) for row in keys])


@config_group.command("schema")
@click.option("--meta", "for_meta", is_flag=True, help="Schema of `locomass meta` instead of `locomass run`.")
def config_schema(for_meta: bool) -> None:
    """Print the JSON Schema of the configuration, for editors."""
    import json

    from pipeline.config import MetaConfig, RunConfig, export_schema

    click.echo(json.dumps(export_schema(MetaConfig if for_meta else RunConfig), indent=1))


@config_group.command("tests")
@output_options
def config_tests(terminal: Terminal) -> None:
    """Print the gene tests that `tests: names` accepts."""
    from pipeline.gene_tests.registry import TESTS

    terminal.show_table(["test", "what it is"], [[name, test.summary] for name, test in TESTS.items()])
    terminal.finish(tests={name: test.summary for name, test in TESTS.items()})


def _run_upto(stage: str, config: Path, out: Path | None, terminal: Terminal, **machine: Any) -> None:
    """Run a study up to a stage."""
    from pipeline.run import Resources, run_study

    with terminal.at_work() as progress:
        where = run_study(config, out, Resources(progress=progress, **machine), stage)
    _finish(where, terminal)


def _finish(outcome: Outcome, terminal: Terminal) -> None:
    """Say where the results are and which genes are strongest; genes that failed make the exit code 3."""
    from pipeline.report.brief import STRONGEST, describe_results
    from pipeline.report.embed import format_p

    report, found = outcome.path / "report.html", describe_results(outcome.path)
    if found.get("strongest"):
        shown = [{**row, "p": format_p(row["log10p"])} for row in found["strongest"]]
        rows = [[str(row[name]) for name in STRONGEST] for row in shown]
        terminal.show_table(STRONGEST, rows, [STRONGEST.index(name) for name in ("max_maf", "variants", "p")])
    terminal.say(f"results: {outcome.path}" + (f"; open {report}" if report.exists() else ""))
    if outcome.failed:
        click.echo(f"{outcome.failed} genes failed; the note of their rows says why", err=True)
    page = report if report.exists() else None
    code = FAILED_GENES if outcome.failed else 0
    terminal.finish(code, results=outcome.path, report=page, failed_genes=outcome.failed, **found)


def main() -> None:
    """Run the command line; an error that a user can mend is one message and its exit code."""
    gc.set_threshold(*COLLECTED_AFTER)
    try:
        sys.exit(cli.main(prog_name="locomass", standalone_mode=False) or 0)
    except LocomassError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(BAD_INPUT)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted; run the same command again to resume", err=True)
        sys.exit(INTERRUPTED)
