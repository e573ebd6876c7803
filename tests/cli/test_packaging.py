"""The wheel and the sdist: what is in them, and that the program runs from them in a clean environment."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILD = "import sys; from setuptools import build_meta as b; print(getattr(b, 'build_' + sys.argv[1])(sys.argv[2]))"
SHIPPED = ("pipeline", "predictors", "pyproject.toml", "README.md", "LICENSE")
pytestmark = pytest.mark.skipif(
    int(pytest.importorskip("setuptools").__version__.split(".")[0]) < 77,
    reason="pyproject.toml asks for setuptools 77",
)


def build(source: Path, kind: str, out: Path) -> Path:
    """Build a wheel or an sdist with the backend of pyproject.toml."""
    command = [sys.executable, "-c", BUILD, kind, str(out)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A copy of what is needed to build."""
    folder = tmp_path_factory.mktemp("source")
    for name in SHIPPED:
        where = ROOT / name
        if where.is_dir():
            shutil.copytree(where, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(where, folder / name)
    return folder


@pytest.fixture(scope="module")
def wheel(source, tmp_path_factory):
    return build(source, "wheel", tmp_path_factory.mktemp("wheel"))


def test_wheel__holds_every_module_and_the_parts_of_the_report(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    files = [p for name in ("pipeline", "predictors") for p in (ROOT / name).glob("locomass*/**/*.*")]
    suffixes = (".py", ".html", ".css", ".js", ".typed")
    wanted = {"/".join(p.relative_to(ROOT).parts[1:]) for p in files if p.suffix in suffixes}
    assert wanted <= names
    assert {n.split("/")[0] for n in names} == {"locomass", "locomass_predictors", "locomass-0.1.0.dist-info"}


def test_wheel__says_what_it_is(wheel):
    archive = zipfile.ZipFile(wheel)
    metadata = archive.read("locomass-0.1.0.dist-info/METADATA").decode()
    for line in (
        "Name: locomass",
        "License-Expression: MIT",
        "Description-Content-Type: text/markdown",
        "Requires-Python: >=3.11",
    ):
        assert line in metadata.splitlines()
    assert "# locomass" in metadata  # the README is the long description
    assert b"locomass = locomass.cli:main" in archive.read("locomass-0.1.0.dist-info/entry_points.txt")


def test_sdist__builds_the_same_wheel(source, wheel, tmp_path):
    sdist = build(source, "sdist", tmp_path)
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    (folder,) = (tmp_path / "unpacked").iterdir()
    again = build(folder, "wheel", tmp_path)
    assert set(zipfile.ZipFile(again).namelist()) == set(zipfile.ZipFile(wheel).namelist())


def test_wheel__runs_without_the_sources(wheel, tmp_path):
    """Unpacked, in place of the sources: the command line, and the page that is made of files of the package."""
    subprocess.run([sys.executable, "-m", "zipfile", "-e", str(wheel), str(tmp_path / "lib")], check=True)
    code = (
        "import locomass, locomass.report.page as page; from locomass.cli import cli;"
        f"assert locomass.__file__.startswith({str(tmp_path / 'lib')!r}), locomass.__file__;"
        "assert all((page.HERE / name).exists() for name in (*page.SCRIPTS, 'page.html', 'style.css'));"
        "cli(['--help'], prog_name='locomass')"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "lib")}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "locomass demo" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_clean_environment__installs_and_runs_the_demo(source, tmp_path, kind):
    """What `pipx install` does: an environment of its own, the package with its dependencies, the command."""
    package = build(source, kind, tmp_path)
    venv.create(tmp_path / "venv", with_pip=True)
    pip, locomass = (tmp_path / "venv" / "bin" / name for name in ("pip", "locomass"))
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    for command in (
        [pip, "install", "-q", package],
        [pip, "check"],
        [locomass, "--help"],
        [locomass, "demo", "--out", tmp_path / "demo", "--quiet"],
    ):
        done = subprocess.run(
            list(map(str, command)), cwd=tmp_path, env=clean, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    assert (tmp_path / "demo" / "results" / "consortium" / "report.html").exists()
