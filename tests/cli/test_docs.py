"""Every command, Python block and configuration of README.md and docs/ is run or read; the notebook is run too.

A ``console`` block follows ``<!-- commands: FOLDER [ci|slow] -->``: FOLDER says what the working directory
holds (``golden``: a copy of tests/golden/data; ``demo``: the simulated data; ``empty``: nothing). The blocks of a page
with the same comment run one after the other in one directory, then the ``python`` blocks below ``<!-- python -->``.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest
import yaml

from locomass import cli, schema
from locomass.config import RunConfig
from locomass.gene_tests import registry
from locomass.schema import BUNDLE_TABLES, CONDITIONAL, TableSchema

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden" / "data"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"(?:<!-- (?P<comment>[a-z: ]+?) -->\n)?^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.M | re.S)
OTHERS = {"tar"}  # commands that are not ours and that the pages may use


@dataclass
class Scenario:
    """The blocks of a page that share a working directory."""

    page: str
    folder: str
    marker: str
    commands: list[str] = field(default_factory=list)
    python: list[str] = field(default_factory=list)


def read_blocks(page: Path) -> Iterator[tuple[str, str, str]]:
    """Give (comment, language, text) of every fenced block with a language."""
    for match in BLOCK.finditer(page.read_text(encoding="utf-8")):
        yield (match["comment"] or "").strip(), match["language"], match["text"]


def read_commands(text: str) -> list[str]:
    """Return the commands of a console block: lines after ``$``, continued by a backslash."""
    return [line[2:] for line in text.replace("\\\n", " ").splitlines() if line.startswith("$ ")]


def read_scenarios() -> list[Scenario]:
    """Return the scenarios of all pages."""
    found: dict[tuple[str, str], Scenario] = {}
    for page in PAGES:
        last = None
        for comment, language, text in read_blocks(page):
            kind, _, words = comment.partition(": ")
            if language == "console" and kind == "commands":
                last = found.setdefault(
                    (page.name, words), Scenario(page.name, words.split()[0], " ".join(words.split()[1:]))
                )
                last.commands += read_commands(text)
            elif language == "python" and kind == "python" and last:
                last.python.append(text)
    return list(found.values())


SCENARIOS = [
    pytest.param(s, id=f"{s.page}-{s.folder}", marks=[getattr(pytest.mark, s.marker)] if s.marker else [])
    for s in read_scenarios()
]


@pytest.fixture
def working_directory(tmp_path, monkeypatch):
    """Return a function that fills a directory and goes there."""

    def go(kind: str) -> Path:
        if kind == "golden":
            for path in GOLDEN.glob("*.*"):
                shutil.copy(path, tmp_path / path.name)
        elif kind == "demo":
            from locomass.simulate.study import simulate_demo

            simulate_demo(tmp_path / "data")
        else:
            assert kind == "empty"
        monkeypatch.chdir(tmp_path)
        return tmp_path

    return go


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_commands_run(scenario, working_directory, monkeypatch, capsys):
    working_directory(scenario.folder)
    for command in scenario.commands:
        words = shlex.split(command)
        if words[0] != "locomass":
            subprocess.run(words, check=True, timeout=600)
            continue
        monkeypatch.setattr("sys.argv", words)
        with pytest.raises(SystemExit) as stop:
            cli.main()
        captured = capsys.readouterr()
        assert not stop.value.code, f"{scenario.page}: $ {command}\n{captured.out}\n{captured.err}"
    if scenario.python:
        import matplotlib

        matplotlib.use("Agg")
        exec(compile("\n".join(scenario.python), scenario.page, "exec"), {})


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_no_command_escapes(page):
    for comment, language, text in read_blocks(page):
        if language == "transcript":  # a script of benchmarks/ ran the commands and printed it
            script = re.search(r"`python -m (benchmarks\.\w+)`", page.read_text(encoding="utf-8").split(text)[0][-400:])
            assert script, f"{page.name}: the lines above a transcript must name the script that prints it"
            assert (ROOT / (script[1].replace(".", "/") + ".py")).exists()
            continue
        commands = read_commands(text)
        assert language == "console" or not commands, f"{page.name}: commands belong into a console block:\n{text}"
        if commands:
            assert comment.startswith("commands: "), f"{page.name}: no `<!-- commands: FOLDER -->` above:\n{text}"
            assert {shlex.split(c)[0] for c in commands} <= {"locomass", *OTHERS}
        if language == "python":
            assert comment.startswith("python"), f"{page.name}: no `<!-- python -->` above:\n{text}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_no_command_hides_in_an_indented_block(page):
    """A synopsis with NAMES in capitals is none."""
    for line in re.findall(r"^    (locomass .*)$", page.read_text(encoding="utf-8"), re.M):
        assert re.search(r" [A-Z]{3,}", line), f"{page.name}: write it in a console block: {line}"


TABLES = [value for value in vars(schema).values() if isinstance(value, TableSchema)]


@pytest.mark.parametrize("table", [t for t in TABLES if t not in BUNDLE_TABLES], ids=lambda t: t.name)
def test_formats_name_every_column_of_a_result_table(table):
    text = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")
    assert f"### {table.name}\n" in text, f"docs/formats.md has no section for {table.name}"
    section = text.split(f"### {table.name}\n")[1].split("\n#")[0]
    if table is CONDITIONAL:
        assert "`index_variants`" in section
    else:
        assert re.findall(r"^\| `(\w+)` \|", section, re.M) == [c.name for c in table.columns]


@pytest.mark.parametrize("table", BUNDLE_TABLES, ids=lambda t: t.name)
def test_formats_name_every_column_of_a_bundle(table):
    text = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8").split("\n## The study bundle\n")[1]
    items = re.split(r"^- ", text.split("\n\n`locomass")[0], flags=re.M)
    (item,) = (x for x in items if x.startswith(f"`{table.name}"))
    assert {c.name for c in table.columns} <= set(re.findall(r"`(\w+)`", item))


@pytest.mark.parametrize("name", [*registry.TESTS, *registry.BUNDLE_TESTS])
def test_statistics_have_a_row_for_every_test(name):
    text = (ROOT / "docs" / "statistics.md").read_text(encoding="utf-8").split("\n## Gene tests\n")[1].split("\n## ")[0]
    named = {found for row in re.findall(r"^\| (`[^|]*) \|", text, re.M) for found in re.findall(r"`([^`]+)`", row)}
    assert name in named, f"docs/statistics.md has no row for {name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_named_commands_exist(page):
    text = page.read_text(encoding="utf-8")
    for line in re.findall(r"`(?:\.venv/bin/)?locomass ([a-z][^`]*)`", text):
        words = line.split()
        command = cli.cli.commands.get(words[0])
        assert command is not None, f"{page.name}: no command `locomass {words[0]}`"
        if words[0] == "config" and len(words) > 1:
            command = command.commands.get(words[1])
            assert command is not None, f"{page.name}: no command `locomass config {words[1]}`"
        known = {name for parameter in command.params for name in parameter.opts} | {"--help"}
        for word in words:
            assert not word.startswith("--") or word in known, f"{page.name}: `locomass {line}` has no option {word}"


def test_configurations_are_read():
    base = {"study": "s", "genotypes": "g.bed", "phenotypes": {"file": "p.tsv"}, "genes": {"regions": "r.bed"}}
    read = 0
    for name in ("quickstart", "cohort", "predictors-external"):
        for _, language, text in read_blocks(ROOT / "docs" / f"{name}.md"):
            if language == "yaml":
                msgspec.convert(base | yaml.safe_load(text), RunConfig)
                read += 1
    assert read >= 5


@pytest.mark.ci
def test_notebook_runs(capsys):
    import matplotlib

    matplotlib.use("Agg")
    notebook = json.loads((ROOT / "notebooks" / "quickstart.ipynb").read_text(encoding="utf-8"))
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    exec(compile("\n".join(cells), "quickstart.ipynb", "exec"), {})
    assert capsys.readouterr().out.count("p = ") == 4


def test_readme_has_the_two_commands():
    lines = (ROOT / "README.md").read_text().splitlines()
    assert lines.count("python3 -m venv .venv && .venv/bin/pip install -q . && .venv/bin/locomass demo") == 1
    tests = "python3 -m venv --clear .venv && .venv/bin/pip install -q -e '.[test]' && .venv/bin/python -m pytest"
    assert [x for x in lines if re.search(r"^python3 -m venv .*pytest$", x)] == [tests]


def test_readme_links_exist():
    for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / "README.md").read_text()):
        assert (ROOT / target).exists(), target


def test_every_page_is_in_the_navigation():
    pages = re.findall(r"[\w-]+\.md", (ROOT / "mkdocs.yml").read_text())
    assert len(pages) == len(set(pages))
    assert {p.name for p in (ROOT / "docs").glob("*.md")} <= set(pages)
