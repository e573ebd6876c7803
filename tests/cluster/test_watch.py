"""Watching a folder: complete files only, result sets by date, and what changed between two of them."""

from __future__ import annotations

import gzip
import json
import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from locomass.commands import watch as watching
from locomass.commands.dropped import find_fault, look
from locomass.commands.outcome import Resources
from locomass.commands.watch import watch
from locomass.errors import ConfigError, InputError, LockError
from locomass.report.changes import compare_results
from locomass.run.directory import RunDirectory
from locomass.simulate.parameters import Parameters
from locomass.simulate.study import simulate_study
from tests.factories import make_study


@pytest.fixture(autouse=True)
def _short_looks(monkeypatch):
    monkeypatch.setattr(watching, "SETTLE_SECONDS", 0.01)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory) -> Path:
    """A small study with summary statistics of its two traits."""
    parameters = Parameters(
        study_sizes=[400], n_gwas=2000, n_reference=300, n_chromosomes=2, common_per_chromosome=60,
        genes_per_chromosome=3, variants_per_gene=12, causal_genes=1,
    )  # fmt: skip
    return simulate_study(tmp_path_factory.mktemp("simulated"), parameters).studies[0]


@pytest.fixture
def places(tmp_path) -> tuple[Path, Path]:
    """(watched folder, results)."""
    (tmp_path / "incoming").mkdir()
    return tmp_path / "incoming", tmp_path / "out"


def new_version(study: Path, name: str, target: Path, seed: int = 1) -> Path:
    """Write summary statistics that differ from the study's own."""
    table = pd.read_csv(study.parent / "gwas" / name, sep="\t")
    rng = np.random.default_rng(seed)
    table["beta"] += 0.5 * table["standard_error"] * rng.standard_normal(len(table))
    table.to_csv(target, sep="\t", index=False)
    return target


def run_once(study: Path, places: tuple[Path, Path]) -> Path | None:
    outcome = look_once(study, places).outcome
    return None if outcome is None else outcome.path


def look_once(study: Path, places: tuple[Path, Path]) -> watching.Look:
    return watch(study, *places, Resources(threads=1), once=True)


@pytest.mark.ci
def test_result_sets_are_kept_by_date_and_the_changes_are_told(simulated, places):
    incoming, out = places
    first = run_once(simulated, places)
    assert first is not None
    assert (out / "latest").resolve() == first.resolve()
    assert (first / "report.html").exists()
    assert not (first / "changes.md").exists()  # nothing to compare with
    assert run_once(simulated, places) is None  # nothing is new
    before = {p: p.read_bytes() for p in first.rglob("*") if p.is_file()}

    new_version(simulated, "y.tsv.gz", incoming / "y.v2.tsv.gz")
    second = run_once(simulated, places)
    assert second is not None
    assert second != first
    assert (out / "latest").resolve() == second.resolve()
    assert {p: p.read_bytes() for p in before} == before  # the old set is what it was
    changes = json.loads((second / "changes.json").read_text())
    assert changes["new_files"] == {"y": "y.v2.tsv.gz"}
    old, new = changes["traits"]["y"]["r2"]
    assert old != new
    assert changes["traits"]["cc"]["r2"][0] == changes["traits"]["cc"]["r2"][1]
    text = (second / "changes.md").read_text()
    assert "- new summary statistics of y: y.v2.tsv.gz" in text
    assert f"| y | {changes['traits']['y']['lambda'][0]:.3f} |" in text
    used = json.loads((out / "watch.json").read_text())["y"]["file"]
    assert Path(used).read_bytes() == (incoming / "y.v2.tsv.gz").read_bytes()
    assert run_once(simulated, places) is None


def test_the_file_of_the_configured_name_is_taken_too(simulated, places):
    incoming, _ = places
    new_version(simulated, "cc.tsv.gz", incoming / "cc.tsv.gz")
    result = run_once(simulated, places)
    assert result is not None
    assert re.search(r"inputs/cc/[0-9a-f]{12}/cc\.tsv\.gz", (result / "config.yaml").read_text())


def test_unfinished_files_are_left_alone(simulated, places, caplog):
    incoming, out = places
    run_once(simulated, places)
    whole = new_version(simulated, "y.tsv.gz", incoming / "y.whole.tsv.gz").read_bytes()
    (incoming / "y.whole.tsv.gz").unlink()
    for name in ("y.tsv.gz.part", ".y.tsv.gz", "y.tsv.gz.tmp", "y.tsv.gz~"):
        (incoming / name).write_bytes(whole)
    (incoming / "y.empty.tsv.gz").write_bytes(b"")
    (incoming / "y.cut.tsv.gz").write_bytes(whole[: len(whole) // 2])
    (incoming / "stranger.tsv.gz").write_bytes(whole)
    assert run_once(simulated, places) is None
    assert "y.cut.tsv.gz is not used yet: it cannot be read to its end" in caplog.text
    assert "stranger.tsv.gz matches no trait" in caplog.text
    assert not (out / "watch.json").exists() or json.loads((out / "watch.json").read_text()) == {}


def test_a_file_that_still_grows_waits_for_the_next_look(simulated, places, monkeypatch):
    incoming, _ = places
    run_once(simulated, places)
    path = new_version(simulated, "y.tsv.gz", incoming / "y.v2.tsv.gz")
    content, original = path.read_bytes(), watching.look
    path.write_bytes(content[:100])
    looks = []

    def grow(folder):
        found = original(folder)
        looks.append(found)
        path.write_bytes(content)
        return found

    monkeypatch.setattr(watching, "look", grow)
    assert run_once(simulated, places) is None
    assert len({tuple(found.items()) for found in looks}) == 2
    monkeypatch.setattr(watching, "look", original)
    assert run_once(simulated, places) is not None


def test_a_bad_file_is_a_failure_and_leaves_the_results_alone(simulated, places):
    incoming, out = places
    first = run_once(simulated, places)
    with gzip.open(incoming / "y.bad.tsv.gz", "wt") as handle:
        handle.write("what\tis\tthis\n" + "1\t2\t3\n" * 200)
    found = look_once(simulated, places)
    assert (found.outcome, list(found.failures)) == (None, ["y.bad.tsv.gz"])
    assert (out / "latest").resolve() == first.resolve()
    (incoming / "y.bad.tsv.gz").unlink()
    new_version(simulated, "y.tsv.gz", incoming / "y.good.tsv.gz")
    assert run_once(simulated, places) is not None


@pytest.mark.ci
def test_watching_goes_on_after_a_failure(simulated, places, monkeypatch, caplog):
    """A bad file first, then a good one; the loop ends by an exception that is none of ours."""
    incoming, out = places
    run_once(simulated, places)
    (incoming / "y.bad.tsv").write_text("what\tis\tthis\n" + "1\t2\t3\n" * 200)

    class EndError(Exception):
        pass

    original = watching.take
    calls = []

    def count(*args):
        calls.append(args)
        if len(calls) == 2:
            (incoming / "y.bad.tsv").unlink()
            new_version(simulated, "y.tsv.gz", incoming / "y.good.tsv.gz")
        if len(calls) == 5:
            raise EndError
        return original(*args)

    monkeypatch.setattr(watching, "take", count)
    with pytest.raises(EndError):
        watch(simulated, incoming, out, Resources(threads=1), interval=0.02)
    assert "y.bad.tsv" in caplog.text
    assert "y.good.tsv.gz" in (out / "latest" / "changes.md").read_text()
    assert len(list(out.glob("2*"))) == 2


def test_another_run_in_the_same_place_is_exit_code_75(simulated, places):
    _, out = places
    with RunDirectory(out / "work").lock(), pytest.raises(LockError) as error:
        run_once(simulated, places)
    assert error.value.exit_code == 75


def test_watch__raises_without_summary_statistics(tmp_path):
    config = make_study(1, loco=False).write(tmp_path / "study")
    with pytest.raises(ConfigError, match=r"summary_statistics: there is nothing to watch for"):
        watch(config, tmp_path, tmp_path / "out", Resources(), once=True)


def test_watch__raises_without_a_folder(simulated, tmp_path):
    with pytest.raises(InputError, match="no such folder to watch"):
        watch(simulated, tmp_path / "nowhere", tmp_path / "out", Resources(), once=True)


def test_look__sees_size_and_time(tmp_path):
    (tmp_path / "a.tsv").write_text("x")
    first = look(tmp_path)
    os.utime(tmp_path / "a.tsv", ns=(5, 5))
    assert look(tmp_path) == {"a.tsv": (1, 5)} != first
    (tmp_path / "folder").mkdir()
    assert list(look(tmp_path)) == ["a.tsv"]


@pytest.mark.parametrize("length", [0.2, 0.9, 1.0])
def test_find_fault__needs_the_end_of_a_gzip_file(tmp_path, length):
    content = gzip.compress(np.random.default_rng(1).bytes(100_000).replace(b"\0", b" "))
    path = tmp_path / "x.gz"
    path.write_bytes(content[: int(length * len(content))])
    assert ("cannot be read to its end" in find_fault(path)) == (length < 1.0)


def write_results(folder: Path, log10p: dict[tuple[str, str], float], r2: dict[str, float]) -> Path:
    """Write the two tables that are compared; every gene also has a row with p = 0.5."""
    folder.mkdir()
    rows = [
        {"gene": g, "trait": t, "mask": "M1", "max_maf": 0.01, "weights": "flat", "test": test, "log10p": p}
        for (g, t), strongest in log10p.items()
        for test, p in (("burden", 0.30103), ("skat", strongest))
    ]
    pd.DataFrame(rows).to_parquet(folder / "gene_tests.parquet")
    table = pd.DataFrame([{"trait": t, "chromosome": c, "r2": v} for t, v in r2.items() for c in (1, 2)])
    table.to_csv(folder / "null_models.tsv", sep="\t", index=False)
    return folder


def test_compare_results__finds_the_genes_that_cross(tmp_path):
    was = {("A", "y"): 1.0, ("B", "y"): 3.0, ("C", "y"): 4.0, ("D", "y"): 0.1, ("E", "y"): 9.0}
    now = {("A", "y"): 2.5, ("B", "y"): 1.2, ("C", "y"): 5.0, ("D", "y"): 0.2, ("F", "y"): 2.1}
    before = write_results(tmp_path / "a", was, {"y": 0.1})
    after = write_results(tmp_path / "b", now, {"y": 0.3})
    changes = compare_results(before, after)
    assert changes["threshold"] == 0.05 / 5
    first = changes["gained"][0]
    assert [first[k] for k in ("gene", "log10p_before", "log10p", "test")] == ["A", 1.0, 2.5, "skat"]
    assert [r["gene"] for r in changes["gained"]] == ["A", "F"]
    assert [r["gene"] for r in changes["lost"]] == ["E", "B"]
    assert changes["traits"]["y"]["r2"] == pytest.approx([0.1, 0.3])
    assert changes["traits"]["y"]["lambda"][1] > 0


def test_compare_results__of_the_same_set_finds_nothing(tmp_path):
    folder = write_results(tmp_path / "a", {("A", "y"): 3.0, ("B", "y"): 0.2}, {"y": 0.1})
    changes = compare_results(folder, folder)
    assert changes["gained"] == changes["lost"] == []
