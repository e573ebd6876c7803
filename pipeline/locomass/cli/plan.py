"""A run by hand, for array jobs and workflow engines: plan init, run, missing, finalise."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from locomass.cli.options import CONFIG, FOLDER, finish_run
from locomass.cli.terminal import Terminal, output_options

if TYPE_CHECKING:
    from locomass.commands.outcome import Outcome
    from locomass.commands.partitions import Planned


ARRAY_LIMIT = click.option(
    "--array-limit",
    type=click.IntRange(0),
    default=1000,
    show_default=True,
    help="Most jobs of an array; job K runs the batches K, K + limit, K + 2 limit, ... Give it to all; 0: no limit.",
)


@click.group("plan")
def plan_group() -> None:
    """A run by hand, for array jobs, Snakemake and Nextflow: init, run, missing, finalise."""


@plan_group.command("init")
@click.argument("config", type=CONFIG)
@click.option("--out", type=FOLDER, required=True, help="Output directory, which all machines see.")
@click.option("--threads", type=click.IntRange(1), help="Threads of this process.")
@ARRAY_LIMIT
@output_options
def plan_init(config: Path, out: Path, threads: int | None, array_limit: int, terminal: Terminal) -> None:
    """Run up to the first batches, write them down, and print their numbers."""
    from locomass.commands.outcome import Resources
    from locomass.commands.partitions import init_partitions

    with terminal.at_work() as progress:
        planned = init_partitions(config, out, Resources(threads=threads, progress=progress))
    _tell_plan(planned, array_limit, terminal)


@plan_group.command("run")
@click.argument("out", type=FOLDER)
@click.argument("numbers", type=click.IntRange(0), nargs=-1, required=True)
@ARRAY_LIMIT
@output_options
def plan_run(out: Path, numbers: tuple[int, ...], array_limit: int, terminal: Terminal) -> None:
    """Run batches, such as `locomass plan run OUT $SLURM_ARRAY_TASK_ID`; those that are there are skipped."""
    from locomass.commands.partitions import run_partitions

    done: dict[str, list[int]] = {"computed": [], "was_there": []}
    for number, computed in run_partitions(out, numbers, array_limit):
        done["computed" if computed else "was_there"].append(number)
        terminal.say(f"batch {number}: {'done' if computed else 'was there'}")
    terminal.finish(computed=done["computed"], was_there=done["was_there"])


@plan_group.command("missing")
@click.argument("out", type=FOLDER)
@ARRAY_LIMIT
@output_options
def plan_missing(out: Path, array_limit: int, terminal: Terminal) -> None:
    """Print the jobs of an array for the batches that have not been run, or are damaged, as `sbatch --array` wants."""
    from locomass.commands.partitions import list_missing, write_array

    missing = list(list_missing(out))
    array = write_array(missing, array_limit)
    terminal.say(array)
    terminal.finish(missing=missing, array=array)


@plan_group.command("finalise")
@click.argument("config", type=CONFIG)
@click.option("--out", type=FOLDER, required=True, help="Output directory of `locomass plan init`.")
@click.option("--threads", type=click.IntRange(1), help="Threads of this process.")
@ARRAY_LIMIT
@output_options
def plan_finalise(config: Path, out: Path, threads: int | None, array_limit: int, terminal: Terminal) -> None:
    """Gather the batches; then the next stage's batches are written down, or the run is done."""
    from locomass.commands.outcome import Resources
    from locomass.commands.partitions import finalise_partitions

    with terminal.at_work() as progress:
        planned = finalise_partitions(config, out, Resources(threads=threads, progress=progress))
    _tell_plan(planned, array_limit, terminal)


def _tell_plan(plan: Planned | Outcome, array_limit: int, terminal: Terminal) -> None:
    """Print what comes next (the batches in the words of `sbatch --array`), or where the results are."""
    from locomass.commands.outcome import Outcome
    from locomass.commands.partitions import write_array

    if isinstance(plan, Outcome):
        finish_run(plan, terminal)
        return
    array = write_array(plan.missing, array_limit)
    terminal.say(f"{plan.total} batches, {len(plan.missing)} to run: {array}")
    terminal.finish(results=plan.path, batches=plan.total, missing=list(plan.missing), array=array)
