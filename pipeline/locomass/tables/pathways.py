"""Pathways of genes: GMT files."""

from __future__ import annotations

from pathlib import Path

from locomass.errors import FormatError


def read_pathways(path: Path) -> dict[str, tuple[str, ...]]:
    """Read a GMT file: one pathway a line, tab-separated ``name description gene gene ...``.

    Raises:
        FormatError: no such file, a line of fewer than three fields, a pathway twice, or no pathway.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise FormatError(f"cannot be read: {error}", path=path) from None
    pathways: dict[str, tuple[str, ...]] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        name, *rest = line.rstrip().split("\t")
        genes = tuple(dict.fromkeys(g for g in rest[1:] if g))
        if not genes:
            raise FormatError("expected name, description and one gene or more, by tabs", path=path, line=number)
        if name in pathways:
            raise FormatError(f"pathway '{name}' is listed twice", path=path, line=number)
        pathways[name] = genes
    if not pathways:
        raise FormatError("no pathway", path=path)
    return pathways
