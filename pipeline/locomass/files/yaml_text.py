"""YAML that people write: read without surprises, and without running or building more than its text shows.

Refused, each with its line: a key that is written twice or is no word, a number that YAML 1.1 takes for another than
people do (``1:30`` is 90, ``010`` is 8), lists and mappings nested without end, aliases that stand for more than
`MAX_NODES` values, and tags of Python objects.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, cast

import yaml

from locomass.errors import ConfigError, LocomassError

MAX_DEPTH = 50
MAX_NODES = 1_000_000  # values, those behind aliases counted each time they are meant


def load_yaml(text: str, path: Path | str, kind: type[LocomassError] = ConfigError) -> Any:
    """Return the value of a YAML text.

    Args:
        text: the content.
        path: where it is from, for the message.
        kind: of the error.

    Raises:
        LocomassError: of that kind; names file, line and what is wrong.
    """
    try:
        _check_size(text)
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise kind(f"{path}, line {line}: not valid YAML: {error.problem}") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that is none
        raise kind(f"{path}: not valid YAML: {str(error).splitlines()[0]}") from None


def _check_size(text: str) -> None:
    """Raise where a text is nested deeper, or stands for more, than anything that people write.

    YAML is read by recursion, and an alias of an alias of an alias stands for any number of values.
    """
    size: list[int] = [0]  # of each collection that is open, and of the document
    names: list[str | None] = [None]
    known: dict[str, int] = {}
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            size.append(1)
            names.append(event.anchor)
        elif isinstance(event, yaml.CollectionEndEvent):
            whole, name = size.pop(), names.pop()
            known |= {name: whole} if name else {}
            size[-1] += whole
        elif isinstance(event, yaml.AliasEvent):
            size[-1] += known.get(event.anchor or "", 1)
        elif isinstance(event, yaml.ScalarEvent):
            size[-1] += 1
        if len(size) > MAX_DEPTH or size[-1] > MAX_NODES:
            problem = f"lists and mappings are nested more than {MAX_DEPTH} deep"
            if size[-1] > MAX_NODES:
                problem = f"it stands for more than {MAX_NODES:,} values"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=cast("yaml.Mark | None", event.start_mark))


class _Loader(yaml.SafeLoader):
    """A YAML loader that refuses a key written twice, and numbers that are others than they look."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.MarkedYAMLError(problem=f"key {key!r} is not a word", problem_mark=key_node.start_mark)
            if key in seen:
                raise yaml.MarkedYAMLError(problem=f"key '{key}' is given twice", problem_mark=key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)

    def construct_number(self, node: yaml.ScalarNode) -> int | float:
        """Return a number, unless YAML 1.1 would take another one for it than people: 1:30 = 90, 010 = 8."""
        text = str(node.value)
        if ":" in text or re.match(r"[-+]?0[0-9_]", text):
            number = super().construct_yaml_int(node) if ":" not in text else "a time"
            problem = f"{text} would be read as {number}; put it in quotes, or write the number plainly"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
        integer = node.tag == "tag:yaml.org,2002:int"
        return super().construct_yaml_int(node) if integer else super().construct_yaml_float(node)


for _tag in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", _Loader.construct_number)
