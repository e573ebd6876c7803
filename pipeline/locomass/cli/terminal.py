r"""What a command says: text and tables for people, one JSON object for machines, the log and the progress on stderr.

=====================  =======================================  ==================================
\                      stdout                                   stderr
=====================  =======================================  ==================================
default                the result, as text                      log from INFO, progress on a tty
``--quiet``            nothing                                  errors
``--json``             one JSON object, also after an error     log; no progress
``--log-level LEVEL``  as above                                 log from LEVEL; debug: tracebacks
=====================  =======================================  ==================================

Colours, bars and cursor movements are written to a terminal only; NO_COLOR takes the colours away there too.
"""

from __future__ import annotations

import functools
import json
import logging
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import click

from locomass.cli.signals import Stopped
from locomass.cli.surroundings import refuse_small_address_space
from locomass.errors import LocomassError, describe_exhaustion

LEVELS = ("debug", "info", "warning", "error")
INCOMPLETE, BAD_INPUT, LOCKED, INTERRUPTED = 3, 2, 75, 130
STATUS = {0: "done", INCOMPLETE: "incomplete", BAD_INPUT: "error", LOCKED: "locked", INTERRUPTED: "interrupted"}


@dataclass
class Terminal:
    """How one command talks.

    Attributes:
        command: its name, such as ``plan run``.
        quiet: errors only.
        level: the log from which level on, one of `LEVELS`; None: info, or error when quiet.
        as_json: one JSON object on stdout in place of text.
    """

    command: str
    quiet: bool = False
    level: str | None = None
    as_json: bool = False

    @property
    def is_silent(self) -> bool:
        """Whether stdout is not for people."""
        return self.quiet or self.as_json

    def say(self, text: str) -> None:
        """Print a line for people."""
        if not self.is_silent:
            click.echo(text)

    def show_table(self, heads: Sequence[str], rows: Sequence[Sequence[str]], numeric: Sequence[int] = ()) -> None:
        """Print a table: drawn on a terminal, columns of plain text elsewhere.

        Args:
            heads: of the columns.
            rows: their cells.
            numeric: places of the columns that stand to the right.
        """
        if self.is_silent:
            return
        if not sys.stdout.isatty():
            for line in align_columns([heads, *rows], numeric):
                click.echo(line)
            return
        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for k, head in enumerate(heads):
            table.add_column(head, justify="right" if k in numeric else "left", overflow="fold")
        for row in rows:
            table.add_row(*map(Text, row))
        Console().print(table)

    def finish(self, exit_code: int = 0, **result: Any) -> None:
        """End the command: print the JSON object where it is wanted, and leave with an exit code that is not 0."""
        if self.as_json:
            head = {"command": self.command, "status": STATUS[exit_code], "exit_code": exit_code}
            click.echo(json.dumps({**head, **result}, default=str, allow_nan=False))
        if exit_code:
            sys.exit(exit_code)

    def fail(self, error: BaseException, exit_code: int) -> None:
        """Print the JSON object of an error; the message for people is written by `main`."""
        if not self.as_json:
            return
        about = {"type": type(error).__name__, "message": describe_exhaustion(error) or str(error) or "stopped"}
        head = {"command": self.command, "status": STATUS.get(exit_code, "interrupted"), "exit_code": exit_code}
        with suppress(OSError):  # the disk behind stdout may be what is full
            click.echo(json.dumps({**head, "error": about}))

    @contextmanager
    def at_work(self) -> Iterator[Callable[[str, int | None], Any]]:
        """Log to stderr and give the progress display, ``progress(title, total)``, for as long as the block lasts."""
        from rich.console import Console
        from rich.logging import RichHandler

        from locomass.commands.study import no_progress

        screen = Console(stderr=True)
        fancy = screen.is_terminal and not screen.is_dumb_terminal
        handler: logging.Handler = (
            RichHandler(console=screen, show_path=False, show_level=False)
            if fancy
            else logging.StreamHandler(sys.stderr)
        )
        handler.setLevel((self.level or ("error" if self.quiet else "info")).upper())
        logger = logging.getLogger("locomass")
        before = logger.level
        logger.setLevel(min(logging.INFO, handler.level))
        logger.addHandler(handler)
        try:
            yield _progress_on(screen) if fancy and not self.is_silent else no_progress
        finally:
            logger.removeHandler(handler)
            logger.setLevel(before)


def _progress_on(screen: Any) -> Callable[[str, int | None], Any]:
    """Return a progress display on a rich console: bar, steps done, time taken, time left."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    @contextmanager
    def show(title: str, total: int | None) -> Iterator[Callable[[], None]]:
        steps = (BarColumn(), MofNCompleteColumn()) if total is not None else ()
        left = (TextColumn("left"), TimeRemainingColumn()) if total is not None else ()
        columns = (TextColumn("{task.description}"), *steps, TimeElapsedColumn(), *left)
        with Progress(*columns, console=screen, transient=True) as bars:
            task = bars.add_task(title, total=total)
            yield lambda: bars.advance(task)

    return show


def align_columns(rows: Sequence[Sequence[str]], numeric: Sequence[int] = ()) -> list[str]:
    """Return rows of cells as lines of plain text, columns two blanks apart."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [c.rjust(w) if k in numeric else c.ljust(w) for k, (c, w) in enumerate(zip(row, widths, strict=True))]
        lines.append("  ".join(cells).rstrip())
    return lines


def output_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command `--quiet`, `--log-level` and `--json`; it gets them as the argument ``terminal``."""

    @click.option("--quiet", is_flag=True, help="No progress and no text, only errors.")
    @click.option("--log-level", type=click.Choice(LEVELS), help="Log from this level on.  [default: info]")
    @click.option("--json", "as_json", is_flag=True, help="Print one JSON object in place of text, for machines.")
    @functools.wraps(function)
    def wrapped(*args: Any, quiet: bool, log_level: str | None, as_json: bool, **options: Any) -> Any:
        terminal = Terminal(_command_name(click.get_current_context()), quiet, log_level, as_json)
        try:
            refuse_small_address_space()
            return function(*args, terminal=terminal, **options)
        except LocomassError as error:
            terminal.fail(error, error.exit_code)
            if log_level == "debug":
                traceback.print_exc()
            raise
        except click.ClickException as error:
            terminal.fail(error, BAD_INPUT)
            raise
        except Exception as error:
            if describe_exhaustion(error) is not None:
                terminal.fail(error, BAD_INPUT)
            raise
        except KeyboardInterrupt as error:
            terminal.fail(error, INTERRUPTED)
            raise
        except Stopped as stop:
            terminal.fail(stop, stop.exit_code)
            raise

    return wrapped


def _command_name(context: click.Context) -> str:
    """Return the words of the command after the program's name, such as ``plan run``."""
    words: list[str] = []
    while context.parent is not None:
        words.insert(0, context.info_name or "")
        context = context.parent
    return " ".join(words)
