"""The command line: one file per idea. A body is: logging, check, one call."""

from __future__ import annotations

import errno
import gc
import os
import sys
from contextlib import suppress

import click

from locomass import __version__
from locomass.cli import annotate, config, consortium, design, exchange, plan, results, study
from locomass.cli.signals import Stopped, catch_signals
from locomass.cli.surroundings import refuse_foreign_settings
from locomass.cli.terminal import BAD_INPUT, INTERRUPTED
from locomass.errors import LocomassError, describe_exhaustion

COLLECTED_AFTER = (100_000, 20, 100)  # imports make many objects and no garbage to collect: a tenth of a small run
COMMANDS = (
    study.run,
    study.predict,
    study.denoise,
    study.score_statistics,
    consortium.meta,
    study.check,
    results.report,
    study.demo,
    exchange.import_,
    exchange.export,
    consortium.inspect,
    consortium.certify,
    study.init,
    consortium.conditional,
    annotate.annotate,
    design.simulate,
    design.power,
    results.status,
    plan.plan_group,
    study.watch,
    config.config_group,
)


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


for command in COMMANDS:
    cli.add_command(command)


def main() -> None:
    """Run the command line; an error that a user can fix is one message and its exit code."""
    gc.set_threshold(*COLLECTED_AFTER)
    catch_signals()
    try:
        refuse_foreign_settings()
        sys.exit(_run())
    except LocomassError as error:
        _tell(f"error: {error}")
        sys.exit(error.exit_code)
    except click.ClickException as error:
        with suppress(OSError):
            error.show()
        sys.exit(BAD_INPUT)
    except (click.Abort, KeyboardInterrupt):
        _tell("interrupted; run the same command again to resume")
        sys.exit(INTERRUPTED)
    except Stopped as stop:
        _tell(f"stopped by {stop.name}; run the same command again to resume")
        os._exit(stop.exit_code)  # without waiting for threads that still compute: parts are whole or absent
    except Exception as error:
        exhausted = describe_exhaustion(error)
        if exhausted is None:
            raise
        _tell(f"error: {exhausted}; then run the same command again to resume")
        sys.exit(BAD_INPUT)


def _run() -> int:
    """Run the command line and return its exit code, once all that it printed is written."""
    try:
        try:
            return int(cli.main(prog_name="locomass", standalone_mode=False) or 0)
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else 1
        finally:
            sys.stdout.flush()
    except OSError as error:
        # whatever is left for a stdout that takes nothing is dropped, or Python would stumble over it at its end
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if error.errno == errno.EPIPE:
            return 1  # a pager that was closed
        raise


def _tell(text: str) -> None:
    """Print an error, where there is room for it."""
    with suppress(OSError):
        sys.stdout.flush()
    with suppress(OSError):
        click.echo(text, err=True)
        sys.stderr.flush()
