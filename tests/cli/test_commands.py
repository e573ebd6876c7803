"""The commands: what they print and leave; running twice, resuming and sharing out work change no number."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from locomass import cli
from locomass.commands.outcome import Resources
from locomass.commands.run import run_study
from locomass.gene_tests.registry import TESTS
from locomass.run.lock import hold_lock
from tests.factories import make_study

ROOT = Path(__file__).resolve().parents[2]
TABLES = ("gene_tests.tsv.gz", "mask_audit.tsv", "null_models.tsv")
STUDY = {"tests": {"names": ["burden", "skat", "acat-v"], "max_maf": [0.05, 0.5], "weights": ["flat", "beta_1_25"]}}


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


def in_new_process(script, *args):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, *map(str, (script, *args))]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600, check=False)


def run(config, out, **resources):
    return run_study(config, out, Resources(**{"threads": 1, **resources}), "meta").path


def tables(out):
    """Content of every table: text byte by byte, Parquet as rows."""
    found = {name: (out / name).read_bytes() for name in TABLES}
    for name in ("gene_tests.parquet", "single_variants.parquet", "bundle/variants.parquet"):
        found[name] = pq.read_table(out / name).to_pylist()
    return {name: repr(value) for name, value in found.items()}


def stamps(out):
    return {
        p: p.stat().st_mtime_ns for name in ("bundle", "denoise") for p in (out / name).rglob("*") if p.is_file()
    } | {out / name: (out / name).stat().st_mtime_ns for name in TABLES}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A study and its results."""
    folder = tmp_path_factory.mktemp("finished")
    config = make_study(1, n=70).write(folder / "in", **STUDY)
    return config, run(config, folder / "out")


@pytest.fixture
def results(finished, tmp_path):
    """The configuration and a copy of the results that a test may spoil."""
    return finished[0], Path(shutil.copytree(finished[1], tmp_path / "out"))


# ---- commands ----


def test_help__imports_nothing_heavy(tmp_path):
    code = """
import sys
from click.testing import CliRunner
from locomass.cli import cli
result = CliRunner().invoke(cli, ["--help"])
assert result.exit_code == 0, result.output
for name in ("run", "meta", "check", "demo", "score-statistics"):
    assert name in result.output
names = {"numpy", "pandas", "scipy", "dask", "numba", "pyarrow", "xarray", "distributed", "rich", "yaml"}
heavy = names & set(sys.modules)
sys.exit(f"imported: {sorted(heavy)}" if heavy else 0)
"""
    script = tmp_path / "script.py"
    script.write_text(code)
    done = in_new_process(script)
    assert done.returncode == 0, done.stderr


def test_version(locomass):
    from locomass import __version__

    code, out, _ = locomass("--version")
    assert (code, out.strip()) == (0, f"locomass, version {__version__}")


def test_unknown_command__is_a_usage_error(locomass):
    code, _, err = locomass("frobnicate")
    assert code == 2
    assert "No such command 'frobnicate'" in err


def test_config_show__names_every_section(locomass):
    for option, key in (((), "predictor.method"), (("--meta",), "studies")):
        code, out, err = locomass("config", "show", *option)
        assert code == 0, err
        assert f"\n{key}  (" in f"\n{out}"
        assert "tests.max_maf  (list of float; default [0.01,0.05])" in out


def test_config_tests__lists_the_registry(locomass):
    code, out, _ = locomass("config", "tests")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()[1:]] == list(TESTS)


def test_check__prints_the_plan_and_computes_nothing(finished, locomass, tmp_path):
    code, out, err = locomass("check", finished[0], "--out", tmp_path / "out")
    assert code == 0, err
    assert re.search(r"^samples: \d+ of 70 in the \.fam are analysed$", out, re.M)
    for text in (
        "trait y (quantitative): ",
        "trait cc (binary): ",
        " cases",
        "variants: 48 of 48 listed are in the fileset of 48",
        "genes: 6; masks: M1, M2",
        "design: 4 columns (intercept, age, pc1, sex=M)",
        "predictor: loco, used as covariate",
        "tests: burden, skat, acat-v; bins 0.05, 0.5",
        "plan: 3 batches",
        "MB of memory",
        "all inputs are in order",
    ):
        assert text in out
    assert not (tmp_path / "out").exists()
    assert sorted(p.name for p in finished[0].parent.iterdir() if "results" in p.name) == []


@pytest.mark.parametrize(
    ("command", "there", "not_there"),
    [
        ("predict", ["predict/loco_prediction.zarr", "predict/pred.list"], ["denoise", "bundle"]),
        ("denoise", ["null_models.tsv", "denoise"], ["bundle"]),
        ("score-statistics", ["bundle/study.json", "bundle/variants.parquet"], ["gene_tests.parquet"]),
    ],
)
def test_stage_commands__stop_after_their_stage(finished, locomass, tmp_path, command, there, not_there):
    out = tmp_path / "out"
    code, stdout, err = locomass(command, finished[0], "--out", out, "--threads", 1)
    assert code == 0, err
    assert f"results: {out}" in stdout
    for name in [*there, "provenance.json", "locomass.log", "plan.json"]:
        assert (out / name).exists(), name
    for name in not_there:
        assert not (out / name).exists(), name


def test_quiet__says_nothing(finished, locomass, tmp_path):
    assert locomass("denoise", finished[0], "--out", tmp_path / "out", "--quiet") == (0, "", "")


def test_output__defaults_to_the_configuration_below_the_working_directory(finished, locomass, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = yaml.safe_load(finished[0].read_text())
    path = finished[0].with_name("elsewhere.yaml")
    path.write_text(yaml.safe_dump({**config, "output": "some/where"}))
    assert locomass("denoise", path, "--quiet")[0] == 0
    assert (tmp_path / "some" / "where" / "null_models.tsv").exists()


def test_inputs__may_be_read_only(finished, locomass, tmp_path):
    folder = Path(shutil.copytree(finished[0].parent, tmp_path / "in"))
    before = {p: p.read_bytes() for p in folder.iterdir()}
    folder.chmod(0o555)
    try:
        code, _, err = locomass("score-statistics", folder / "study.yaml", "--out", tmp_path / "out", "--threads", 1)
    finally:
        folder.chmod(0o755)
    assert code == 0, err
    assert {p: p.read_bytes() for p in folder.iterdir()} == before


def test_provenance__says_what_made_the_results(finished):
    record = json.loads((finished[1] / "provenance.json").read_text())
    assert record["configuration"]["study"] == "study"
    assert set(record["stages"]) >= {"predict", "denoise", "score_statistics", "meta"}
    assert {Path(p).name for p in record["inputs"]} >= {"geno.bed", "geno.bim", "geno.fam", "all.loco"}
    assert record["environment"]["packages"]["numpy"]
    assert record["wall_seconds"] > 0


def test_log__is_kept_beside_the_results(finished):
    text = (finished[1] / "locomass.log").read_text()
    for line in ("samples: ", "trait cc (binary)", "score statistics: "):
        assert line in text


def test_results__have_the_promised_columns(finished):
    header = (
        "gene chromosome start end trait mask max_maf weights test n_studies n_samples n_variants mac statistic beta "
        "se ci_low ci_high p log10p method p_error note choice"
    )
    assert pq.read_schema(finished[1] / "gene_tests.parquet").names == header.split()
    table = pq.read_table(finished[1] / "gene_tests.parquet").to_pylist()
    assert {row["test"] for row in table} == {"burden", "skat", "acat-v"}
    assert {row["trait"] for row in table} == {"y", "w", "z", "cc"}
    assert all(0 <= row["p"] <= 1 for row in table)
    assert [p.name for p in finished[1].rglob("*.partial")] == []


# ---- running again ----


def test_run__again_computes_nothing(results, locomass):
    config, out = results
    before, content = stamps(out), tables(out)
    code, _, err = locomass("score-statistics", config, "--out", out, "--threads", 1)
    assert code == 0
    assert "nothing has changed" in err
    run(config, out)
    assert stamps(out) == before
    assert tables(out) == content


def test_run__elsewhere_gives_the_same_bytes(finished, tmp_path):
    assert tables(run(finished[0], tmp_path / "other")) == tables(finished[1])


@pytest.mark.parametrize("gone", ["null_models.tsv", "bundle", "denoise", "predict", "gene_tests.tsv.gz", "plan.json"])
def test_run__makes_again_what_is_gone(results, gone):
    config, out = results
    content = tables(out)
    shutil.rmtree(out / gone) if (out / gone).is_dir() else (out / gone).unlink()
    run(config, out)
    assert tables(out) == content


def test_run__other_tests_leave_the_bundle_alone(results):
    config, out = results
    before = stamps(out)
    data = yaml.safe_load(config.read_text())
    data["tests"] = {"names": ["burden"], "max_maf": [0.1], "weights": ["flat"]}
    other = config.with_name("other_tests.yaml")
    other.write_text(yaml.safe_dump(data))
    run(other, out)
    after = stamps(out)
    assert {p for p in after if after[p] != before.get(p)} == {out / "gene_tests.tsv.gz", out / "mask_audit.tsv"}


def changed(config, folder, change):
    copy = Path(shutil.copytree(config.parent, folder)) / config.name
    change(copy.parent)
    return copy


@pytest.mark.parametrize("name", ["pheno.tsv", "covar.tsv", "all.loco", "geno.bed", "annotations.txt", "masks.txt"])
def test_run__a_changed_input_changes_the_result(results, tmp_path, name):
    config, out = results
    before = tables(out)

    def change(folder):
        path = folder / name
        if name == "geno.bed":
            content = bytearray(path.read_bytes())
            content[3 + 5] ^= 0b11  # one call
            path.write_bytes(bytes(content))
        elif name == "masks.txt":
            path.write_text("M1 LoF\nM2 LoF,synonymous\n")
        elif name == "annotations.txt":
            path.write_text(path.read_text().replace("missense", "LoF", 3))
        else:
            text = path.read_text().splitlines()
            cells = text[1].split("\t" if name.endswith("tsv") else " ")
            cells[2] = str(float(cells[2]) + 1)
            path.write_text("\n".join([text[0], ("\t" if name.endswith("tsv") else " ").join(cells), *text[2:]]) + "\n")

    copy = changed(config, tmp_path / "in", change)
    assert tables(run(copy, out))["gene_tests.tsv.gz"] != before["gene_tests.tsv.gz"]
    fresh = run(copy, tmp_path / "fresh")
    assert tables(out) == tables(fresh)


def interrupt(module, name, monkeypatch, after):
    """Make a task function fail when it is called for the (after + 1)th time, as a kill would."""
    original, calls = getattr(module, name), []

    def stopping(*args):
        calls.append(args)
        if len(calls) > after:
            raise KeyboardInterrupt
        return original(*args)

    monkeypatch.setattr(module, name, stopping)
    return calls


def test_run__resumes_after_a_kill(finished, tmp_path, monkeypatch, locomass):
    """Killed after two of three batches: the next run computes the third only, and the tables are the same."""
    from locomass import scores as score_statistics

    config, out = finished[0], tmp_path / "out"
    with monkeypatch.context() as patch:
        interrupt(score_statistics, "run_batch", patch, after=2)
        code, _, err = locomass("score-statistics", config, "--out", out, "--threads", 1)
    assert code == 130
    assert "interrupted; run the same command again to resume" in err
    assert not (out / "bundle").exists()
    assert not (out / ".lock").exists()
    parts = {p: p.stat().st_mtime_ns for p in (out / "parts").rglob("genes-*.parquet")}
    assert len(parts) == 2
    run(config, out)
    assert tables(out) == tables(finished[1])


def test_run__computes_missing_parts_only(finished, tmp_path, monkeypatch):
    from locomass import scores as score_statistics

    config, out = finished[0], tmp_path / "out"
    with monkeypatch.context() as patch:
        interrupt(score_statistics, "write_bundle", patch, after=0)
        with pytest.raises(KeyboardInterrupt):
            run(config, out)
    parts = sorted((out / "parts").rglob("genes-*.parquet"))
    assert len(parts) == 3
    kept = {p: p.stat().st_mtime_ns for p in parts[1:]}
    parts[0].unlink()
    seen = []
    original = score_statistics.write_bundle
    with monkeypatch.context() as patch:
        patch.setattr(
            score_statistics, "write_bundle",
            lambda *args: (seen.append({p: p.stat().st_mtime_ns for p in kept}), original(*args)),
        )  # fmt: skip
        run(config, out)
    assert seen == [kept]
    assert tables(out) == tables(finished[1])


def test_lock__held_by_a_living_process_is_exit_code_75(results, locomass):
    config, out = results
    with hold_lock(out):
        before = stamps(out)
        code, stdout, err = locomass("score-statistics", config, "--out", out)
        assert stamps(out) == before
    assert code == 75
    assert [line for line in err.splitlines() if line.startswith("error: ")] == err.splitlines()[-1:]
    assert f"in use by process {os.getpid()}" in err
    assert "Traceback" not in stdout + err


def test_lock__of_a_dead_process_is_taken_over(results, locomass):
    config, out = results
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (out / ".lock").write_text(json.dumps({"host": socket.gethostname(), "pid": dead.pid}))
    assert locomass("score-statistics", config, "--out", out, "--quiet")[0] == 0
    assert not (out / ".lock").exists()


# ---- sharing out the work ----


def test_threads__give_the_same_bytes(finished, tmp_path):
    assert tables(run(finished[0], tmp_path / "out", threads=4)) == tables(finished[1])


@pytest.mark.ci
def test_workers__give_the_same_bytes(finished, tmp_path):
    """Two worker processes; in a process of its own, as a script would."""
    code = """
import sys
from pathlib import Path
from locomass.commands.outcome import Resources
from locomass.commands.run import run_study
if __name__ == "__main__":
    run_study(Path(sys.argv[1]), Path(sys.argv[2]), Resources(workers=2), "meta")
"""
    script = tmp_path / "script.py"
    script.write_text(code)
    done = in_new_process(script, finished[0], tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert tables(tmp_path / "out") == tables(finished[1])


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_error_of_a_task__is_one_message(finished, tmp_path, workers):
    """The fileset is truncated after it was opened: a thread, or a worker process, finds out."""
    config = Path(shutil.copytree(finished[0].parent, tmp_path / "in")) / finished[0].name
    script = tmp_path / "script.py"
    script.write_text("""
from locomass import cli
from locomass.commands import study
original = study.plan_batches
def truncate(cohort, *args, **options):
    tasks = original(cohort, *args, **options)
    path = cohort.fileset.parts[0].path
    path.write_bytes(path.read_bytes()[:-200])
    return tasks
study.plan_batches = truncate
if __name__ == "__main__":
    cli.main()
""")
    done = in_new_process(script, "score-statistics", config, "--out", tmp_path / "out", "--workers", workers)
    assert done.returncode == 2, done.stderr
    messages = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(messages) == 1
    assert "truncated after the run began" in messages[0]
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out" / "bundle").exists()
