"""The rule file of `locomass annotate`: categories, of which the first that holds is taken, and masks made of them."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from locomass.errors import FormatError, InputError, suggest
from locomass.files.yaml_text import load_yaml
from locomass.tables.annotation.rules import Expression, parse_expression

DEFAULT = "default_rules.yaml"


@dataclass(frozen=True)
class RuleFile:
    """Categories and masks.

    Attributes:
        path: the file.
        categories: rule by category, in order.
        masks: categories by mask.
    """

    path: Path
    categories: dict[str, Expression]
    masks: dict[str, tuple[str, ...]]

    def categorise(self, record: dict[str, str]) -> int:
        """Return the number of the first category that holds, -1 for none."""
        return next((k for k, rule in enumerate(self.categories.values()) if rule.holds(record)), -1)

    def require_fields(self, known: set[str]) -> list[str]:
        """Return the optional fields that no file has.

        Raises:
            InputError: a field that is not optional is in no file.
        """
        for name, rule in self.categories.items():
            for field in sorted(rule.needed - known):
                raise InputError(
                    f"{self.path}: category '{name}' reads the field {field}, which no annotation file has"
                    f"{suggest(field, known)}; write {field}? where it may be absent"
                )
        return sorted(set[str]().union(*(rule.optional for rule in self.categories.values())) - known)


def read_rules(path: Path | None) -> RuleFile:
    """Read a rule file; the default one without a path.

    Raises:
        FormatError: no YAML, a key that is unknown, a rule that cannot be parsed, a mask of an unknown category.
    """
    if path is None:
        source = resources.files("locomass.tables.annotation") / DEFAULT
        path, text = Path(DEFAULT), source.read_text(encoding="utf-8")
    else:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise FormatError(f"cannot be read ({error})", path=path) from None
    content = load_yaml(text, path, FormatError)
    if not isinstance(content, dict) or not content.get("categories") or set(content) - {"categories", "masks"}:
        raise FormatError("expected the keys categories and masks", path=path)
    categories = {name: _parse(path, text, name, rule) for name, rule in _mapping(path, content, "categories")}
    masks = {name: tuple(str(x).strip() for x in _list(value)) for name, value in _mapping(path, content, "masks")}
    for name, members in (masks or {c: (c,) for c in categories}).items():
        for member in (m for m in members if m not in categories):
            raise FormatError(f"mask '{name}': unknown category '{member}'{suggest(member, categories)}", path=path)
    return RuleFile(path, categories, masks or {c: (c,) for c in categories})


def _mapping(path: Path, content: dict[str, Any], key: str) -> list[tuple[str, Any]]:
    """Return the items of a key, names fit for REGENIE's files."""
    value = content.get(key) or {}
    if not isinstance(value, dict):
        raise FormatError(f"{key}: expected `name: ...` lines", path=path)
    for name in value:
        if not isinstance(name, str) or not name or any(c.isspace() or c == "," for c in name):
            raise FormatError(f"{key}: '{name}' must be one word without commas", path=path)
    return list(value.items())


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else str(value).split(",")


def _parse(path: Path, text: str, name: str, rule: Any) -> Expression:
    line = next((k for k, row in enumerate(text.split("\n"), 1) if row.strip().startswith(f"{name}:")), None)
    try:
        return parse_expression(str(rule))
    except InputError as error:
        raise FormatError(str(error), path=path, line=line, column=name) from None
