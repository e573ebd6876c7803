"""Other programs' files: import and export."""

from __future__ import annotations

from pathlib import Path

import click

from locomass.cli.options import ANY, FILE, FOLDER
from locomass.cli.terminal import Terminal, output_options


@click.command("import")
@click.argument("format_name", metavar="FORMAT")
@click.option("--scores", type=FILE, multiple=True, required=True, help="Single-variant statistics; one per trait.")
@click.option(
    "--covariance", type=ANY, multiple=True, help="Covariances: a file, or the prefix of SAIGE's or REMETA's."
)
@click.option("--reference", type=ANY, help="PLINK fileset with the LD (regenie) or places (metaskat).")
@click.option("--sets", type=FILE, help="Genes: REGENIE set list or group file; for mass it gives the alleles.")
@click.option("--trait", "traits", multiple=True, required=True, help="Name of each trait, in the order of --scores.")
@click.option("--kind", type=click.Choice(["quantitative", "binary"]), default="quantitative", show_default=True)
@click.option("--n", "n_samples", type=int, help="Samples, where the files do not say.")
@click.option("--cases", "n_cases", type=int, help="Cases among them.")
@click.option("--expected", type=FILE, help="ALT frequencies to compare with: REGENIE's file or PLINK 2 .afreq.")
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
    expected: Path | None,
    study: str,
    build: str | None,
    out: Path,
    terminal: Terminal,
) -> None:
    """Write a study bundle from another program's score statistics.

    FORMAT is rvtests, raremetal, mass, regenie, remeta, saige, seqmeta, metaskat or generic.
    """
    from locomass.bundle.exchange.common import ImportRequest
    from locomass.commands.exchange import import_study

    if len(traits) != len(scores) or (covariance and len(covariance) != len(scores)):
        raise click.UsageError("--scores, --trait (and --covariance) must be given equally often")
    pairs = zip(scores, covariance or [None] * len(scores), traits, strict=True)
    requests = [
        ImportRequest(
            scores=s,
            covariance=c,
            reference=reference,
            sets=sets,
            trait=t,
            kind=kind,
            n_samples=n_samples,
            n_cases=n_cases,
            expected=expected,
        )
        for s, c, t in pairs
    ]
    notes = import_study(format_name, requests, out, study=study, genome_build=build)
    for note in [*notes, f"bundle: {out}"]:
        terminal.say(note)
    terminal.finish(bundle=out, notes=notes)


@click.command()
@click.argument("format_name", metavar="FORMAT")
@click.argument("source", type=FOLDER)
@click.argument("out", type=ANY)
@click.option("--trait", help="Trait, where there are several.")
@click.option("--weights", help="Weights of the gene tests (regenie).")
@output_options
def export(
    format_name: str, source: Path, out: Path, trait: str | None, weights: str | None, terminal: Terminal
) -> None:
    """Write a bundle as rvtests, raremetal, mass, remeta or sets; or a results directory as regenie."""
    from locomass.commands.exchange import export_results, export_study

    if format_name == "regenie":
        files = export_results(source, out, trait=trait, weights=weights)
    else:
        files = export_study(format_name, source, out, trait=trait)
    for file in files:
        terminal.say(str(file))
    terminal.finish(files=list(files))
