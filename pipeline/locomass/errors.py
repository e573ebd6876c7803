"""The exception tree: what can go wrong, and the exit code each branch ends with.

    LocomassError                exit 2
    +-- InputError               a file, table or array that is not what it must be
    |   +-- FormatError          names file, line and column
    |   +-- MatchError           labels of two inputs do not meet (samples, variants, chromosomes)
    +-- ConfigError              a key of the configuration
    +-- StatisticsError          numbers that have no answer (singular design, constant trait)
    +-- BundleError              a study bundle that is damaged, foreign or unsafe
    +-- LockError                exit 75: another run holds the output directory

Every message says what was expected, what was found, where, and how to mend it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path

NO_MEMORY = ("annot allocate memory", "failed to map segment")  # what the loader of libraries says


class LocomassError(Exception):
    """Base of every error that a user can fix. Its text is shown escaped: it may quote a stranger's file."""

    exit_code = 2

    def __str__(self) -> str:
        return "\n".join(printable(line) for line in super().__str__().split("\n"))


class InputError(LocomassError):
    """An input file, table or array is not what it must be."""


class FormatError(InputError):
    """A file breaks its format; the message starts with ``file, line N, column C``."""

    def __init__(
        self,
        message: str,
        *,
        path: str | Path | None = None,
        line: int | None = None,
        column: str | int | None = None,
    ) -> None:
        place = [str(path)] if path is not None else []
        if line is not None:
            place.append(f"line {line}")
        if column is not None:
            place.append(f"column {column}")
        super().__init__(f"{', '.join(place)}: {message}" if place else message)


class MatchError(InputError):
    """The labels of two inputs do not meet."""


class ConfigError(LocomassError):
    """A key of the configuration is unknown, missing or out of range."""


class StatisticsError(LocomassError):
    """The numbers have no answer: a singular design, a constant trait, no cases."""


class BundleError(LocomassError):
    """A study bundle is damaged, of another format version, or unsafe."""


class LockError(LocomassError):
    """Another run holds the output directory."""

    exit_code = 75


def describe_exhaustion(error: BaseException) -> str | None:
    """Return in words that the machine ran out of something (disk, memory, threads); None for any other error.

    Args:
        error: an `OSError` of a file that cannot be read or written counts, too.
    """
    text = str(error)
    if isinstance(error, MemoryError):
        return f"not enough memory{f' ({text})' if text else ''}; give more, or use fewer --threads, or --memory"
    if isinstance(error, OSError):
        where = f"cannot read or write {error.filename}: " if error.filename else "cannot read or write: "
        return f"{where}{error.strerror or text}"
    if isinstance(error, ImportError) and any(sign in text for sign in NO_MEMORY):
        return f"not enough memory to load a library ({text}); give more"
    if isinstance(error, RuntimeError) and "can't start new thread" in text:
        return "no further thread can be started: not enough memory, or too many processes; use fewer --threads"
    return None


def printable(text: str) -> str:
    """Return a text with control, direction and format characters as escapes, such as ``\\x1b``: safe on a terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


#: What may go wrong inside one gene without stopping the others: its row says why.
GENE_FAILURES = (ArithmeticError, LocomassError, MemoryError, ValueError)


def suggest(word: str, known: Iterable[str]) -> str:
    """Return ``; did you mean 'x'?`` for the closest known word, or ``; known: a, b`` when none is close."""
    options = sorted(set(known))
    close = difflib.get_close_matches(word, options, n=1, cutoff=0.6)
    if close:
        return f"; did you mean '{close[0]}'?"
    shown = ", ".join(options[:12]) + (", ..." if len(options) > 12 else "")
    return f"; known: {shown}" if options else ""
