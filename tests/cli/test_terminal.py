"""What commands print: text for people, one JSON object for machines, no control characters where no terminal is."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from locomass import cli
from locomass.cli.terminal import align_columns
from locomass.commands.outcome import Resources
from locomass.commands.run import run_study
from locomass.run.directory import read_status
from locomass.run.lock import hold_lock
from tests.factories import make_study, write_meta_config

ROOT = Path(__file__).resolve().parents[2]
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
COLOUR = re.compile(r"\x1b\[[0-9;]*(3[0-7]|9[0-7]|38|4[0-7])[0-9;]*m")


@pytest.fixture
def locomass(monkeypatch, capsys):
    """Run the command line in this process: (exit code, stdout, stderr)."""

    def _run(*args):
        monkeypatch.setattr("sys.argv", ["locomass", *map(str, args)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        captured = capsys.readouterr()
        return stop.value.code or 0, captured.out, captured.err

    return _run


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A configuration, and a folder where it was run."""
    folder = tmp_path_factory.mktemp("terminal")
    made = make_study(1, n=70)
    config = made.write(folder / "in", tests={"names": ["burden", "skat"], "max_maf": [0.5]})
    run_study(config, folder / "out", Resources(threads=1))
    write_meta_config(folder / "meta.yaml", [folder / "out" / "bundle"], made)
    return config, folder / "out"


def parse(out: str) -> dict:
    """The one JSON object of stdout."""
    assert len(out.splitlines()) == 1
    assert not CONTROL.search(out.rstrip("\n"))
    return json.loads(out)


def test_json__of_a_run_says_where_the_results_are_and_what_is_strongest(study, locomass):
    config, out = study
    code, text, err = locomass("run", config, "--out", out, "--threads", 1, "--json")
    assert code == 0
    assert "up to date" in err  # the log goes on
    found = parse(text)
    assert {k: found[k] for k in ("command", "status", "exit_code", "failed_genes", "genes")} == {
        "command": "run", "status": "done", "exit_code": 0, "failed_genes": 0, "genes": 6,
    }  # fmt: skip
    assert found["results"] == str(out)
    assert Path(found["report"]).exists()
    best = found["strongest"]
    assert len(best) == 5
    assert [b["log10p"] for b in best] == sorted((b["log10p"] for b in best), reverse=True)
    assert best[0]["p"] == pytest.approx(10 ** -best[0]["log10p"])


@pytest.mark.parametrize("command", ["predict", "denoise", "score-statistics"])
def test_json__of_a_stage(study, locomass, tmp_path, command):
    config, _ = study
    code, text, _ = locomass(command, config, "--out", tmp_path / "out", "--threads", 1, "--json", "--quiet")
    assert code == 0
    found = parse(text)
    assert (found["command"], found["report"], found["results"]) == (command, None, str(tmp_path / "out"))


@pytest.mark.ci
def test_json__of_a_meta_analysis_inspect_certify_and_conditional(study, locomass, tmp_path):
    config, out = study
    meta = config.parents[1] / "meta.yaml"
    _, text, _ = locomass("meta", meta, "--out", tmp_path / "meta", "--threads", 1, "--json")
    assert parse(text)["report"].endswith("report.html")
    _, text, _ = locomass("inspect", out / "bundle", "--json")
    assert parse(text)["findings"] == []
    _, text, _ = locomass("certify", tmp_path / "meta", tmp_path / "meta", "--out", tmp_path / "c", "--json")
    found = parse(text)
    assert found["agree"] is True
    assert Path(found["certificate"]).exists()
    _, text, _ = locomass("conditional", meta, "--out", tmp_path / "meta", "--max-p", 0.5, "--json")
    found = parse(text)
    assert Path(found["table"]).exists()
    assert found["report"] == str(tmp_path / "meta" / "report.html")
    assert '"conditional":[[' in Path(found["report"]).read_text()


def test_json__of_check_holds_what_the_text_says(study, locomass):
    config, _ = study
    _, text, _ = locomass("check", config, "--json")
    found = parse(text)
    assert found["samples"]["in_fam"] == 70
    assert found["samples"]["analysed"] == 70 - sum(found["samples"]["dropped"].values())
    assert [t["name"] for t in found["traits"]] == ["y", "w", "z", "cc"]
    assert found["variants"] == {"listed": 48, "found": 48, "in_fileset": 48}
    assert (found["genes"], found["masks"], found["batches"]) == (6, ["M1", "M2"], 3)
    _, text, _ = locomass("check", config)
    assert f"samples: {found['samples']['analysed']} of 70" in text


def test_json__of_status(study, locomass):
    _, out = study
    _, text, _ = locomass("status", out, "--json")
    found = parse(text)
    assert found["lock"] == {"state": "free"}
    assert found["stages"]["meta"] == {"state": "done"}
    assert {k: found[k] for k in ("lock", "stages")} == read_status(out)


def test_json__of_plan_power_config_and_export(study, locomass, tmp_path):
    config, out = study
    _, text, _ = locomass("plan", "init", config, "--out", tmp_path / "out", "--json")
    found = parse(text)
    assert (found["batches"], found["missing"], found["array"]) == (3, [0, 1, 2], "0-2")
    _, text, _ = locomass("plan", "run", tmp_path / "out", 1, "--json")
    assert (parse(text)["computed"], parse(text)["was_there"]) == ([1], [])
    _, text, _ = locomass("plan", "missing", tmp_path / "out", "--json")
    assert parse(text)["missing"] == [0, 2]
    _, text, _ = locomass("power", "--n", 1000, "--b2", 0.01, "--json")
    assert [d["design"] for d in parse(text)["designs"]] == ["linear", "mixed_meta", "summary", "mixed_pooled"]
    _, text, _ = locomass("config", "tests", "--json")
    assert "burden" in parse(text)["tests"]
    _, text, _ = locomass("config", "show", "--json")
    assert {"key": "output", "type": "str"}.items() <= {r["key"]: r for r in parse(text)["keys"]}["output"].items()
    _, text, _ = locomass("export", "rvtests", out / "bundle", tmp_path / "rv", "--trait", "y", "--json")
    assert all(Path(file).exists() for file in parse(text)["files"])


@pytest.mark.parametrize(
    ("words", "code", "kind", "message"),
    [
        (("run", "nowhere.yaml"), 2, "ConfigError", "cannot read configuration nowhere.yaml"),
        (("status", "."), 2, "InputError", "holds no plan.json"),
        (("watch", "x.yaml", "."), 2, "UsageError", "--json needs --once"),
    ],
)
def test_json__of_an_error(locomass, tmp_path, monkeypatch, words, code, kind, message):
    monkeypatch.chdir(tmp_path)
    left, text, err = locomass(*words, "--json")
    found = parse(text)
    assert (left, found["exit_code"], found["status"], found["error"]["type"]) == (code, code, "error", kind)
    assert message in found["error"]["message"]
    assert message in err  # people see it too


def test_json__of_a_run_that_finds_the_folder_locked(study, locomass):
    config, out = study
    with hold_lock(out):
        code, text, _ = locomass("run", config, "--out", out, "--json", "--quiet")
    assert code == 75
    assert parse(text)["status"] == "locked"


def test_quiet__errors_only(study, locomass, tmp_path):
    config, out = study
    for words in (
        ("check", config),
        ("status", out),
        ("run", config, "--out", out),
        ("report", out),
        ("config", "tests"),
    ):
        assert locomass(*words, "--quiet") == (0, "", "")
    code, text, err = locomass("run", tmp_path / "none.yaml", "--quiet")
    assert (code, text) == (2, "")
    assert err.startswith("error: ")


@pytest.mark.parametrize(("level", "shown"), [("debug", True), ("info", True), ("warning", False), ("error", False)])
def test_log_level__from_which_on_the_log_is_shown(study, locomass, level, shown):
    config, out = study
    _, text, err = locomass("run", config, "--out", out, "--threads", 1, "--log-level", level)
    assert ("up to date" in err) == shown
    assert "results: " in text


def test_log_level__debug_shows_the_traceback_of_an_error(locomass, tmp_path):
    for level, shown in (("debug", True), ("info", False)):
        _, _, err = locomass("run", tmp_path / "none.yaml", "--log-level", level)
        assert ("Traceback" in err) == shown
        assert "error: cannot read configuration" in err


def test_table__plain_text_is_aligned():
    rows = [["a", "1"], ["long name", "12.5"], ["b", ""]]
    assert align_columns(rows, [1]) == ["a             1", "long name  12.5", "b"]


def in_terminal(words, **environment):
    """Run the command with a terminal on stdout and stderr; return what it wrote there."""
    leader, follower = pty.openpty()
    code = "import sys; from locomass.cli import main; sys.argv = ['locomass', *sys.argv[1:]]; main()"
    clean = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR", "TERM")}
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, words)], stdout=follower, stderr=follower, stdin=follower,
        env={**clean, "PYTHONPATH": str(ROOT), "COLUMNS": "100", "TERM": "xterm-256color", **environment},
    )  # fmt: skip
    os.close(follower)
    written = b""
    while True:
        try:
            block = os.read(leader, 65536)
        except OSError:  # Linux says so when the other end is closed
            break
        if not block:
            break
        written += block
    os.close(leader)
    assert process.wait(timeout=600) == 0, written.decode()
    return written.decode()


@pytest.mark.ci
def test_terminal__bars_and_colours_and_none_with_no_color(study, tmp_path):
    config, out = study
    shown = in_terminal(["run", config, "--out", tmp_path / "a", "--threads", 1])
    assert COLOUR.search(shown)
    assert "\x1b[?25l" in shown  # the bar hides the cursor
    assert "score statistics" in shown
    assert "left" in shown
    plain = in_terminal(["run", config, "--out", tmp_path / "b", "--threads", 1], NO_COLOR="1")
    assert not COLOUR.search(plain)
    dumb = in_terminal(["run", config, "--out", out, "--threads", 1], TERM="dumb")
    assert not CONTROL.search(dumb.replace("\r\n", "\n"))


@pytest.mark.ci
def test_no_terminal__no_control_characters(study, tmp_path):
    config, _ = study
    code = "import sys; from locomass.cli import main; sys.argv = ['locomass', *sys.argv[1:]]; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "run", str(config), "--out", str(tmp_path / "out"), "--workers", "1"],
        capture_output=True, text=True, check=True, timeout=600, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert not CONTROL.search(done.stdout)
    assert not CONTROL.search(done.stderr)
    assert re.search(r"^Dask dashboard: http://\S+$", done.stderr, re.M)
    assert re.search(r"^gene +trait +test +mask +max_maf +variants +p$", done.stdout, re.M)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion__a_script_for_every_shell(shell, tmp_path):
    code = "from locomass.cli import cli; cli(prog_name='locomass')"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "_LOCOMASS_COMPLETE": f"{shell}_source"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert "_LOCOMASS_COMPLETE" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("typed", "offered"),
    [("locomass sco", "score-statistics"), ("locomass config sh", "show"), ("locomass run --log", "--log-level")],
)
def test_completion__of_commands_and_options(typed, offered):
    code = "from locomass.cli import cli; cli(prog_name='locomass')"
    words = typed.split()
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "_LOCOMASS_COMPLETE": "bash_complete", "COMP_WORDS": typed,
        "COMP_CWORD": str(len(words) - 1),
    }  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert f"plain,{offered}" in done.stdout.splitlines(), done.stderr
