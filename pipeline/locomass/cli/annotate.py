"""Other programs' annotation: annotate."""

from __future__ import annotations

from pathlib import Path

import click

from locomass.cli.options import FILE, FOLDER
from locomass.cli.terminal import Terminal, output_options


@click.command()
@click.argument("files", type=FILE, nargs=-1, required=True)
@click.option("--scores", type=FILE, multiple=True, help="Table of scores by variant: CADD, AlphaMissense, dbNSFP, ...")
@click.option("--rules", type=FILE, help="Rule file; without it the default rules (docs/annotation.md).")
@click.option("--transcripts", type=click.Choice(["mane", "canonical", "all"]), default="mane", show_default=True)
@click.option(
    "--gene", default="SYMBOL", show_default=True, help="Field that names the gene, such as Gene for Ensembl."
)
@click.option("--window", type=click.IntRange(0), default=0, help="Width of sliding windows over all variants, in bp.")
@click.option("--step", type=click.IntRange(0), default=0, help="Distance of their starts; the width without it.")
@click.option("--out", type=FOLDER, required=True, help="Folder for sets.txt, annotations.txt, masks.txt, report.tsv.")
@output_options
def annotate(
    files: tuple[Path, ...],
    scores: tuple[Path, ...],
    rules: Path | None,
    transcripts: str,
    gene: str,
    window: int,
    step: int,
    out: Path,
    terminal: Terminal,
) -> None:
    """Make gene sets, categories and masks from the output of VEP, SnpEff, dbNSFP, FAVOR and others."""
    from locomass.commands.annotate import AnnotateRequest
    from locomass.commands.annotate import annotate as write_annotation

    request = AnnotateRequest(files, scores, rules, transcripts, gene, window, step)
    report = write_annotation(request, out)
    for name, count in report.items():
        terminal.say(f"{name}: {count:,}")
    terminal.say(f"files: {out}")
    terminal.finish(out=out, report=report)
