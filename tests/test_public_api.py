"""The public Python interface: its names and signatures are pinned, and the examples of its docstrings run.

A deliberate change is written down with ``python -m tests.test_public_api > tests/public_api.txt``.
"""

from __future__ import annotations

import doctest
import inspect
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import locomass

PINNED = Path(__file__).with_name("public_api.txt")
FUNCTIONS = [name for name in locomass.__all__ if inspect.isfunction(getattr(locomass, name))]


def describe() -> str:
    """Return every public name with its signature."""
    return "".join(f"{name}{inspect.signature(getattr(locomass, name))}\n" for name in sorted(locomass.__all__))


def test_names_and_signatures__are_those_written_down():
    assert describe() == PINNED.read_text()


def test_module__runs_as_the_command():
    done = subprocess.run([sys.executable, "-m", "locomass", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"locomass, version {locomass.__version__}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A working directory with the results of a golden cohort."""
    from locomass.commands.outcome import Resources
    from locomass.commands.run import run_study
    from tests.golden.cohorts import DATA

    folder = tmp_path_factory.mktemp("examples")
    for suffix in (".bed", ".bim", ".fam"):
        shutil.copy(DATA / f"cohort_a{suffix}", folder)
    run_study(DATA / "cohort_a.yaml", folder / "results" / "cohort_a", Resources(threads=1), "meta")
    return folder


@pytest.mark.parametrize("name", FUNCTIONS)
def test_examples__run(name, folder, monkeypatch):
    import matplotlib

    matplotlib.use("Agg")
    monkeypatch.chdir(folder)
    examples = doctest.DocTestFinder(recurse=False).find(getattr(locomass, name), name, globs={"locomass": locomass})
    assert sum(len(example.examples) for example in examples) > 0, f"{name} has no example"
    assert doctest.DocTestRunner().run(examples[0]).failed == 0


if __name__ == "__main__":
    print(describe(), end="")
