"""The recipes for schedulers: real unit files, and commands that the program has."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from locomass.cli import cli

RECIPES = Path(__file__).parents[2] / "recipes"
LINE = re.compile(r"/opt/locomass/\.venv/bin/locomass (?P<words>[^|\n]+)")


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*")), ids=lambda p: p.name)
def test_recipes__call_commands_and_options_that_exist(path):
    for words in LINE.findall(path.read_text()):
        command, *rest = words.split()
        known = CliRunner().invoke(cli, [command, "--help"])
        assert known.exit_code == 0
        assert [word for word in rest if word.startswith("--") and word not in known.output] == []
    assert path.suffix == ".timer" or LINE.search(path.read_text())


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_recipes__unit_files_are_accepted_by_systemd(tmp_path):
    program = tmp_path / "locomass"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    for unit in ("locomass-watch.service", "locomass-watch.timer"):
        text = (RECIPES / unit).read_text().replace("/opt/locomass/.venv/bin/locomass", str(program))
        (tmp_path / unit).write_text(text.replace("User=locomass", "User=root"))
    units = [str(tmp_path / "locomass-watch.service"), str(tmp_path / "locomass-watch.timer")]
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "locomass" not in done.stderr


def test_recipes__times_are_accepted_by_systemd():
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd is not installed")
    (when,) = re.findall(r"^OnCalendar=(.*)$", (RECIPES / "locomass-watch.timer").read_text(), re.M)
    assert subprocess.run(["systemd-analyze", "calendar", when], capture_output=True).returncode == 0
