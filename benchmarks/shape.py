"""The shape of the code, counted: ``python -m benchmarks.shape [TREE ...]``, a column a checkout.

Functions with more than 7 positional parameters (those behind ``*`` are named by every caller, and are counted apart),
calls with 8 and more positional arguments, packed code (``fmt: skip``), blocks of six lines that are there twice, and
symbols of a module that no other line of the program names (dead, or reached by tests only). A tree is a checkout:
``git worktree add /tmp/before b29274b``.
"""

from __future__ import annotations

import ast
import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import ROOT

MOST = 7
BLOCK = 6  # lines of a block
WORD = re.compile(r"\b[A-Za-z_]\w*\b")
TRIVIAL = re.compile(r"^(from|import|\)|\]|\}|\"\"\"|#|@|$)")
NAMED_ELSEWHERE = ("main", "cli", "Section")  # entry points


@dataclass(frozen=True)
class Source:
    """One file of the program."""

    path: Path
    text: str
    tree: ast.Module


def read_sources(root: Path) -> list[Source]:
    """Return the files of both packages of a checkout."""
    files = sorted(f for name in ("pipeline", "predictors") for f in (root / name).rglob("*.py"))
    texts = [(f, f.read_text(encoding="utf-8")) for f in files]
    return [Source(f.relative_to(root), text, ast.parse(text)) for f, text in texts]


def functions(sources: list[Source]) -> Iterator[tuple[Source, ast.FunctionDef]]:
    """Give every function and method."""
    for source in sources:
        for node in ast.walk(source.tree):
            if isinstance(node, ast.FunctionDef):
                yield source, node


def positional(node: ast.FunctionDef) -> list[str]:
    """Return the parameters that a caller may give by position, self left out."""
    names = [a.arg for a in (*node.args.posonlyargs, *node.args.args)]
    return names[1:] if names[:1] in (["self"], ["cls"]) else names


def is_kernel(node: ast.FunctionDef) -> bool:
    """Return whether numba compiles a function: it takes arrays, not objects."""
    return any("jit" in ast.dump(decorator) for decorator in node.decorator_list)


def is_command(node: ast.FunctionDef) -> bool:
    """Return whether click calls a function, by name."""
    return any("click" in ast.dump(d) or "option" in ast.dump(d) for d in node.decorator_list)


def wide_functions(sources: list[Source], kernels: bool = False) -> list[str]:
    """Return functions with more than seven positional parameters; those that click calls are called by name."""
    return [
        f"{source.path}:{node.lineno} {node.name} ({len(positional(node))})"
        for source, node in functions(sources)
        if len(positional(node)) > MOST and not is_command(node) and is_kernel(node) == kernels
    ]


def wide_kernels(sources: list[Source]) -> list[str]:
    """Return the same of functions that numba compiles."""
    return wide_functions(sources, kernels=True)


def wide_calls(sources: list[Source]) -> list[str]:
    """Return calls with eight and more positional arguments."""
    return [
        f"{source.path}:{node.lineno}"
        for source in sources
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Call)
        and len(node.args) > MOST
        and not any(isinstance(a, ast.Starred) for a in node.args)
        and not (isinstance(node.func, ast.Attribute) and node.func.attr in ("pack", "product", "join"))
    ]


def packed(sources: list[Source]) -> list[str]:
    """Return lines that keep a formatter off."""
    return [
        f"{source.path}:{number}"
        for source in sources
        for number, line in enumerate(source.text.splitlines(), 1)
        if "# fmt: skip" in line or "# fmt: off" in line
    ]


def twice(sources: list[Source]) -> list[str]:
    """Return where blocks of six lines of code begin that are elsewhere, too; overlapping blocks once."""
    found: dict[tuple[str, ...], tuple[Path, int]] = {}
    out: list[str] = []
    for source in sources:
        lines = [(n, line.strip()) for n, line in enumerate(source.text.splitlines(), 1)]
        code = [(n, line) for n, line in lines if not TRIVIAL.match(line)]
        skip = 0
        for k in range(len(code) - BLOCK + 1):
            block = tuple(line for _, line in code[k : k + BLOCK])
            if sum(map(len, block)) < 150:
                continue
            first = found.setdefault(block, (source.path, code[k][0]))
            if first != (source.path, code[k][0]) and k >= skip:
                out.append(f"{source.path}:{code[k][0]} = {first[0]}:{first[1]}")
                skip = k + BLOCK
    return out


def dead(sources: list[Source]) -> list[str]:
    """Return functions, classes and constants at the top of a module that no other place of the program names."""
    words = Counter[str]()
    for source in sources:
        words.update(WORD.findall(source.text))
    out = []
    for source in sources:
        public = exported(source)
        for node in source.tree.body:
            for name in defined(node):
                own = len(re.findall(rf"\b{re.escape(name)}\b", ast.get_source_segment(source.text, node) or ""))
                if words[name] <= own and name not in public and not is_registered(node):
                    out.append(f"{source.path}:{node.lineno} {name}")
    return out


def exported(source: Source) -> set[str]:
    """Return names that a package offers: the words of ``__all__``, and of the lazy public interface."""
    return {*NAMED_ELSEWHERE, *(WORD.findall(source.text) if source.path.name == "__init__.py" else ())}


def defined(node: ast.stmt) -> list[str]:
    """Return the names that a statement at the top of a module defines."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    names = [n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name)]
    return [name for name in names if not name.startswith("__")]


def is_registered(node: ast.stmt) -> bool:
    """Return whether a decorator puts a function where it is called from."""
    return isinstance(node, ast.FunctionDef) and any("click" in ast.dump(d) for d in node.decorator_list)


COUNTS = {
    "functions with more than 7 positional parameters": wide_functions,
    "the same of compiled kernels, which take arrays": wide_kernels,
    "calls with 8 and more positional arguments": wide_calls,
    "`fmt: skip`": packed,
    "blocks of 6 lines that are there twice": twice,
    "symbols that nothing in the program names": dead,
}


def main() -> None:
    arguments = sys.argv[1:]
    listed = "--list" in arguments
    trees = [Path(a) for a in arguments if a != "--list"] or [ROOT]
    found = {str(tree): read_sources(tree) for tree in trees}
    print(f"| | {' | '.join(found)} |\n|---|{'--:|' * len(found)}")
    files = [(len(s), sum(x.text.count("\n") for x in s)) for s in found.values()]
    print(f"| files, lines | {' | '.join(f'{n}, {lines:,}' for n, lines in files)} |")
    for what, count in COUNTS.items():
        results = [count(sources) for sources in found.values()]
        print(f"| {what} | {' | '.join(str(len(r)) for r in results)} |")
        if listed:
            print("".join(f"    {line}\n" for line in results[-1]), end="")


if __name__ == "__main__":
    main()
