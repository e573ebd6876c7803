"""Text that a stranger wrote: what may reach a terminal, a log, a file or a page."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from locomass.errors import printable

MAX_TEXT = 10_000  # characters of a text
MAX_DEPTH = 40  # of study.json
MAX_NUMBER = 1e300  # larger ones overflow where they are squared


def find_unprintable(texts: Iterable[str]) -> str | None:
    """Return the first text with a control, direction or format character, escaped; None where there is none."""
    texts = list(texts)
    if "".join(texts).isprintable():
        return None
    return printable(next(text for text in texts if not text.isprintable()))[:120]


def find_odd_value(value: Any) -> str | None:
    """Return what a stranger's JSON holds that nothing here should meet, in words; None where there is nothing.

    Keys and texts must be printable and of bounded length, numbers finite and below `MAX_NUMBER`, lists and objects not
    nested without end.
    """
    waiting = [(value, "$", 0)]
    while waiting:
        item, where, depth = waiting.pop()
        if depth > MAX_DEPTH:
            return f"{where[:200]}: nested more than {MAX_DEPTH} deep"
        if isinstance(item, str):
            if len(item) > MAX_TEXT:
                return f"{where}: a text of {len(item):,} characters; the most accepted is {MAX_TEXT:,}"
            if not item.isprintable():
                return f"{where}: {printable(item)[:120]!r} has a control or direction character"
        elif isinstance(item, int | float) and not abs(item) < MAX_NUMBER:
            return f"{where}: a number out of range; expected one below {MAX_NUMBER:g}"
        elif isinstance(item, dict):
            odd = find_unprintable(item)
            if odd is not None:
                return f"{where}: the key {odd!r} has a control or direction character"
            waiting += [(v, f"{where}.{k[:80]}", depth + 1) for k, v in item.items()]
        elif isinstance(item, list):
            waiting += [(v, f"{where}[{k}]", depth + 1) for k, v in enumerate(item)]
    return None
