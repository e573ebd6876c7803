"""The language of annotation rules: comparisons of fields joined by and, or, not and parentheses. No code is run.

``FIELD op value`` with ``=``, ``!=``, ``<``, ``<=``, ``>``, ``>=``, or ``FIELD in (a, b)``. A field may hold several
values joined by ``&``, ``;``, ``,`` or ``|`` (consequences, scores by transcript): a comparison holds where it holds
for one of them; ``!=`` and ``not`` are the contrary. Where a field has no value every comparison is false but ``!=``;
``FIELD = .`` asks for it. ``FIELD?`` may be absent from the files; any other field must be in one of them.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from locomass.errors import InputError

Record = Mapping[str, str]
Test = Callable[[Record], bool]
MISSING = frozenset(("", ".", "-", "NA", "na", "nan", "NaN"))
_TOKEN = re.compile(r"""\s*(?:(<=|>=|!=|==|=|<|>|\(|\)|,)|"([^"]*)"|'([^']*)'|([^\s()<>=!,"']+))""")
_ORDER: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_SEPARATORS = re.compile(r"[&;,|]")


def split_values(text: str) -> list[str]:
    """Return the values of a field, missing ones left out."""
    return [part for part in (x.strip() for x in _SEPARATORS.split(text)) if part not in MISSING]


@dataclass(frozen=True)
class Expression:
    """A rule that can be asked of a record.

    Attributes:
        text: as written.
        holds: whether it holds for a record.
        needed, optional: fields that it reads; needed ones must be in a file.
    """

    text: str
    holds: Test
    needed: frozenset[str]
    optional: frozenset[str]


def parse_expression(text: str) -> Expression:
    """Parse a rule.

    Raises:
        InputError: says what was expected, and where in the text.
    """
    parser = _Parser(text)
    test = parser.parse_or()
    if parser.word is not None:
        raise parser.error("'and', 'or' or the end")
    return Expression(text, test, frozenset(parser.needed), frozenset(parser.optional))


def _tokens(text: str) -> Iterator[tuple[str, bool, int]]:
    """Give token, whether it was quoted, and its place."""
    at = 0
    while at < len(text.rstrip()):
        match = _TOKEN.match(text, at)
        if match is None:
            raise InputError(f"rule '{text}': a quote is not closed, or '{text[at:].strip()[:1]}' is not understood")
        quoted = match[2] if match[2] is not None else match[3]
        yield (quoted if quoted is not None else match[1] or match[4]), quoted is not None, match.start()
        at = match.end()


class _Parser:
    """Recursive descent: or > and > not > comparison."""

    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0
        self.tokens = list(_tokens(text))
        self.needed: set[str] = set()
        self.optional: set[str] = set()

    @property
    def word(self) -> str | None:
        return self.tokens[self.at][0] if self.at < len(self.tokens) else None

    def is_word(self, *words: str) -> bool:
        """Whether the next token is one of these unquoted words."""
        return self.at < len(self.tokens) and not self.tokens[self.at][1] and self.tokens[self.at][0].lower() in words

    def take(self) -> str:
        token = self.tokens[self.at][0]
        self.at += 1
        return token

    def error(self, expected: str) -> InputError:
        found = "the end" if self.word is None else f"'{self.word}'"
        return InputError(f"rule '{self.text}': expected {expected}, found {found}")

    def parse_or(self) -> Test:
        parts = [self.parse_and()]
        while self.is_word("or"):
            self.take()
            parts.append(self.parse_and())
        return parts[0] if len(parts) == 1 else lambda record: any(part(record) for part in parts)

    def parse_and(self) -> Test:
        parts = [self.parse_not()]
        while self.is_word("and"):
            self.take()
            parts.append(self.parse_not())
        return parts[0] if len(parts) == 1 else lambda record: all(part(record) for part in parts)

    def parse_not(self) -> Test:
        if self.is_word("not"):
            self.take()
            inner = self.parse_not()
            return lambda record: not inner(record)
        if self.is_word("("):
            self.take()
            inner = self.parse_or()
            if not self.is_word(")"):
                raise self.error("')'")
            self.take()
            return inner
        return self.parse_comparison()

    def parse_comparison(self) -> Test:
        if self.word is None or self.is_word("(", ")", ",", "and", "or", "in", *_ORDER, "=", "==", "!="):
            raise self.error("a field")
        field = self.take()
        (self.optional if field.endswith("?") else self.needed).add(field.rstrip("?"))
        field = field.rstrip("?")
        if self.is_word("in"):
            self.take()
            return _equals(field, self.parse_list())
        if not self.is_word(*_ORDER, "=", "==", "!="):
            raise self.error(f"a comparison after '{field}'")
        sign = self.take()
        if self.word is None or self.is_word("(", ")", ","):
            raise self.error("a value")
        value = self.take()
        if sign in _ORDER:
            return self._compare(field, _ORDER[sign], value)
        test = _equals(field, frozenset((value,)))
        return (lambda record: not test(record)) if sign == "!=" else test

    def parse_list(self) -> frozenset[str]:
        if not self.is_word("("):
            raise self.error("'(' after 'in'")
        self.take()
        values: list[str] = []
        while not self.is_word(")"):
            if self.word is None:
                raise self.error("')'")
            if values and self.take() != ",":
                self.at -= 1
                raise self.error("',' or ')'")
            values.append(self.take())
        self.take()
        return frozenset(values)

    def _compare(self, field: str, compare: Callable[[float, float], bool], value: str) -> Test:
        limit = _number(value)
        if limit is None:
            raise InputError(f"rule '{self.text}': expected a number to compare {field} with, got '{value}'")
        at = limit

        def test(record: Record) -> bool:
            numbers = (_number(part) for part in split_values(record.get(field, "")))
            return any(number is not None and compare(number, at) for number in numbers)

        return test


def _equals(field: str, values: frozenset[str]) -> Test:
    """Whether one of a field's values is among these; ``.`` stands for none."""
    wants_missing = bool(values & MISSING)

    def test(record: Record) -> bool:
        parts = split_values(record.get(field, ""))
        return any(part in values for part in parts) if parts else wants_missing

    return test


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
