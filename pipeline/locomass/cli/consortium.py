"""Many studies: meta, inspect, certify, conditional."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from locomass.cli.options import ANY, CONFIG, FOLDER, common_options, finish_run
from locomass.cli.terminal import BAD_INPUT, INCOMPLETE, Terminal, output_options

ALLOW = click.option("--allow", multiple=True, metavar="NAME", help="Go on after errors of this check; repeat.")


@click.command()
@click.argument("config", type=CONFIG)
@click.option("--study", "studies", type=ANY, multiple=True, help="A bundle (or .tar); repeat. Replaces the list.")
@ALLOW
@common_options
def meta(
    config: Path,
    studies: tuple[Path, ...],
    allow: tuple[str, ...],
    out: Path | None,
    terminal: Terminal,
    **machine: Any,
) -> None:
    """Combine study bundles and test genes.

    What `locomass inspect` calls an error stops it before the first gene; the message says how to go on.
    """
    from locomass.commands.meta import run_meta_analysis
    from locomass.commands.outcome import Resources

    with terminal.at_work() as progress:
        where = run_meta_analysis(config, studies, out, Resources(progress=progress, **machine), allow=allow)
    finish_run(where, terminal)


@click.command()
@click.argument("bundles", type=click.Path(exists=True, path_type=Path), nargs=-1, required=True)
@click.option("--disclosure", is_flag=True, help="Find what each bundle gives away of single people instead.")
@click.option(
    "--min-cell",
    type=click.IntRange(2),
    default=20,
    show_default=True,
    help="With --disclosure: people.",
)
@output_options
def inspect(bundles: tuple[Path, ...], disclosure: bool, min_cell: int, terminal: Terminal) -> None:
    """Find what is wrong with study bundles, alone and together; exit code 2 when they must not be combined.

    With --disclosure: certify that no number of a bundle, nor any combination of a gene's, is about fewer than
    --min-cell people; exit code 2 where one is.
    """
    import tempfile
    from dataclasses import asdict

    from locomass.meta.inspect import ERROR, disclosed_by, inspect_bundles

    with tempfile.TemporaryDirectory() as scratch:
        if disclosure:
            findings = disclosed_by(bundles, min_cell, Path(scratch))
        else:
            findings = inspect_bundles(bundles, Path(scratch))
    for finding in findings:
        terminal.say(str(finding))
    if not findings:
        terminal.say("nothing to report")
    must_not = any(f.severity == ERROR for f in findings)
    terminal.finish(BAD_INPUT if must_not else 0, findings=[asdict(f) for f in findings])


@click.command()
@click.argument("meta_results", type=FOLDER)
@click.argument("pooled_results", type=FOLDER)
@click.option("--out", type=FOLDER, default=Path("certificate"), show_default=True, help="Where the certificate goes.")
@click.option("--tolerance", type=float, default=1e-6, show_default=True, help="Relative difference that is equal.")
@output_options
def certify(meta_results: Path, pooled_results: Path, out: Path, tolerance: float, terminal: Terminal) -> None:
    """Compare a meta-analysis with the pooled analysis, row by row."""
    from locomass.meta.certify import certify as compare

    certificate = compare(meta_results, pooled_results, out, tolerance=tolerance)
    terminal.say(f"{'agree' if certificate.agrees else 'do not agree'}: {out / 'certificate.md'}")
    terminal.finish(
        0 if certificate.agrees else INCOMPLETE, agree=certificate.agrees, certificate=out / "certificate.json"
    )


@click.command()
@click.argument("config", type=CONFIG)
@click.option("--study", "studies", type=ANY, multiple=True, help="A bundle (or .tar); repeat. Replaces the list.")
@click.option("--index", multiple=True, metavar="CHROM:POS:REF:ALT", help="An index variant; repeat. Default: auto.")
@click.option(
    "--max-p", type=click.FloatRange(0, 1, min_open=True), show_default="genome-wide, 5e-8", help="p of entry."
)
@ALLOW
@common_options
def conditional(
    config: Path,
    studies: tuple[Path, ...],
    index: tuple[str, ...],
    max_p: float | None,
    allow: tuple[str, ...],
    out: Path | None,
    terminal: Terminal,
    **machine: Any,
) -> None:
    """Test genes given index variants of their own sets, from study bundles (CONFIG as for `locomass meta`).

    In the output directory of a meta-analysis, the report is written again: its gene pages show the results.
    """
    from locomass.commands.conditional import run_conditional_analysis
    from locomass.commands.outcome import Resources
    from locomass.numbers import GENOME_WIDE

    limit = GENOME_WIDE if max_p is None else max_p
    with terminal.at_work() as progress:
        resources = Resources(progress=progress, **machine)
        table = run_conditional_analysis(config, studies, list(index) or "auto", limit, out, resources, allow=allow)
    page = table.with_name("report.html")
    terminal.say(f"results: {table}" + (f"; open {page}" if page.exists() else ""))
    terminal.finish(table=table, report=page if page.exists() else None)
