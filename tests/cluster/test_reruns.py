"""Runs that repeat: nothing changed means nothing is done, one trait's new statistics cost that trait only."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from locomass.commands import run as run_module
from locomass.commands.outcome import Outcome, Resources
from locomass.commands.run import run_study
from locomass.genotypes.bed import BedRows
from locomass.predict import summary
from locomass.predict.scoring import ScoreTask
from locomass.run import provenance
from locomass.run.directory import RunDirectory
from locomass.run.inputs import fileset_files
from locomass.run.provenance import digest_file
from locomass.scores import genotypes
from locomass.simulate.parameters import Parameters
from locomass.simulate.study import simulate_study
from tests.factories import make_study

ONE = Resources(threads=1)


class OpenedError(Exception):
    """The study was opened."""


class StopError(Exception):
    """The run was stopped."""


def refuse(error: type[Exception]) -> Callable[..., None]:
    def fail(*args, **kwargs):
        raise error

    return fail


@pytest.fixture
def simulated(tmp_path) -> Path:
    """A small study with summary statistics of its two traits."""
    parameters = Parameters(
        study_sizes=[400], n_gwas=2000, n_reference=300, n_chromosomes=2, common_per_chromosome=60,
        genes_per_chromosome=3, variants_per_gene=12, causal_genes=1,
    )  # fmt: skip
    return simulate_study(tmp_path / "simulated", parameters).studies[0]


def renew(study: Path, trait: str, seed: int = 1) -> None:
    """Replace a trait's summary statistics by others."""
    path = study.parent / "gwas" / f"{trait}.tsv.gz"
    table = pd.read_csv(path, sep="\t")
    rng = np.random.default_rng(seed)
    table["beta"] += 0.5 * table["standard_error"] * rng.standard_normal(len(table))
    table.to_csv(path, sep="\t", index=False)


# ---- nothing changed ----


def test_nothing_changed__opens_nothing_and_leaves_the_record_of_the_run(tmp_path, monkeypatch):
    config = make_study(4).write(tmp_path / "study")
    first = run_study(config, tmp_path / "out", ONE)
    record = (first.path / "provenance.json").read_bytes()
    monkeypatch.setattr(run_module, "StudyRun", refuse(OpenedError))
    assert run_study(config, tmp_path / "out", ONE) == first
    assert run_study(config, tmp_path / "out", ONE, "meta") == first
    assert (first.path / "provenance.json").read_bytes() == record
    os.utime(tmp_path / "study" / "geno.bed")  # touched, not changed: its content is read again
    assert run_study(config, tmp_path / "out", ONE) == first


def test_nothing_changed__tells_genes_that_failed_again(tmp_path, monkeypatch):
    config = make_study(4).write(tmp_path / "study")
    monkeypatch.setattr(
        run_module, "run_tests", lambda directory, *args, **kwargs: directory.finish("meta", "d", []) or 2
    )
    assert run_study(config, tmp_path / "out", ONE, "meta").failed == 2
    monkeypatch.setattr(run_module, "StudyRun", refuse(OpenedError))
    assert run_study(config, tmp_path / "out", ONE, "meta") == Outcome(tmp_path / "out", 2)
    assert run_study(config, tmp_path / "out", ONE, "predict").failed == 0  # of predictions no gene fails


GONE = ["gene_tests.parquet", "bundle/variants.parquet", "report.html", "null_models.tsv", "drivers.parquet"]
GONE += ["denoising.tsv", "mask_variants.parquet"]


def test_nothing_changed__but_an_output_is_gone(tmp_path, read_tables):
    config = make_study(4).write(tmp_path / "study")
    out = run_study(config, tmp_path / "out", ONE).path
    tables = read_tables(out)
    for name in GONE:
        (out / name).unlink()
        run_study(config, out, ONE)
        assert (out / name).exists(), name
        assert read_tables(out) == tables, name


def test_nothing_changed__after_permutation_was_switched_off(tmp_path, monkeypatch):
    study = make_study(4)
    on = study.write(tmp_path / "study", permutation={"tests": ["cut-off"]})
    out = run_study(on, tmp_path / "out", ONE, "meta").path
    assert (out / "permutation_tests.parquet").exists()
    off = study.write(tmp_path / "study")
    run_study(off, out, ONE, "meta")
    assert not (out / "permutation_tests.parquet").exists()
    monkeypatch.setattr(run_module, "StudyRun", refuse(OpenedError))
    assert run_study(off, out, ONE, "meta").failed == 0


def change(path: Path) -> None:
    """Write other bytes and keep size, inode and modification time, as a careless copy does."""
    stat, content = path.stat(), bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    with open(path, "r+b") as handle:
        handle.write(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.parametrize("settled", [0, provenance.SETTLED_NS])
def test_every_input_is_watched(simulated, tmp_path, monkeypatch, settled):
    """Files of the study's folder are changed one by one, size and time kept; each is noticed."""
    monkeypatch.setattr(provenance, "SETTLED_NS", settled)  # 0: stamps are trusted at once, as those of old files are
    done = run_study(simulated, tmp_path / "out", ONE, "meta")
    monkeypatch.setattr(run_module, "StudyRun", refuse(OpenedError))
    unused = {"truth.json", "consortium.yaml", "study1.yaml"}
    files = [p for p in sorted(simulated.parent.rglob("*")) if p.is_file() and p.name not in unused]
    names = {str(p.relative_to(simulated.parent)) for p in files}
    assert {"gwas/y.tsv.gz", "gwas/y.tsv.gz-meta.yaml", "reference.bed", "study1/array.fam", "genes/masks.txt"} <= names
    for path in files:
        content = path.read_bytes()
        change(path)
        with pytest.raises(OpenedError):
            run_study(simulated, tmp_path / "out", ONE, "meta")
        path.write_bytes(content)
        assert run_study(simulated, tmp_path / "out", ONE, "meta") == done


def test_a_changed_configuration_is_noticed(tmp_path, monkeypatch):
    config = make_study(4).write(tmp_path / "study")
    run_study(config, tmp_path / "out", ONE, "meta")
    monkeypatch.setattr(run_module, "StudyRun", refuse(OpenedError))
    config.write_text(config.read_text() + "maf: study\n")
    with pytest.raises(OpenedError):
        run_study(config, tmp_path / "out", ONE, "meta")


def test_digest_file__reads_old_files_once_and_new_ones_again(tmp_path, monkeypatch):
    path, cache = tmp_path / "x", {}
    path.write_text("one")
    digest = digest_file(path, cache)
    assert cache[str(path)]["stamp"] is None  # written just now: a second write may show the same time
    monkeypatch.setattr(provenance, "SETTLED_NS", 0)
    assert digest_file(path, cache) == digest
    monkeypatch.setattr("hashlib.file_digest", refuse(OpenedError))
    assert digest_file(path, cache) == digest
    change(path)
    with pytest.raises(OpenedError):
        digest_file(path, cache)


def test_fileset_files__of_all_chromosomes(tmp_path):
    for label in ("2", "X", "MT"):
        (tmp_path / f"chr{label}.bed").touch()
    found = [p.name for p in fileset_files(tmp_path / "chr{chrom}.bed")]
    assert found == [f"chr{c}{suffix}" for c in ("2", "X", "MT") for suffix in (".bed", ".bim", ".fam")]


# ---- stages that are being replaced ----


def test_forget__also_what_comes_after(tmp_path):
    directory = RunDirectory(tmp_path)
    for stage in ("predict", "denoise", "score_statistics", "meta", "report"):
        directory.finish(stage, "d", [])
    directory.finish_run("r", 0)
    assert directory.find_run("r", "report") == 0
    directory.forget("denoise")
    assert list(RunDirectory(tmp_path).stages) == ["predict"]
    assert RunDirectory(tmp_path).find_run("r", "predict") is None


def test_a_run_that_was_stopped_leaves_nothing_under_the_old_digest(tmp_path, read_tables, monkeypatch):
    """Another role of the prediction, stopped after the null models; then the first configuration again."""
    config = make_study(4).write(tmp_path / "study")
    first = config.read_text()
    out = run_study(config, tmp_path / "out", ONE, "meta").path
    tables = read_tables(out)
    config.write_text(first.replace("use: covariate", "use: offset"))
    assert config.read_text() != first
    with monkeypatch.context() as patch:
        patch.setattr("locomass.commands.study.compute_score_statistics", refuse(StopError))
        with pytest.raises(StopError):
            run_study(config, out, ONE, "meta")
    assert (out / "null_models.tsv").read_bytes() != tables["null_models.tsv"]
    config.write_text(first)
    run_study(config, out, ONE, "meta")
    assert read_tables(out) == tables


# ---- new summary statistics ----


@pytest.fixture
def seen(monkeypatch) -> dict[str, list]:
    """What is computed: fits by trait, columns scored, batches scanned, covariances by name."""
    seen: dict[str, list] = {"fits": [], "scored": [], "scans": [], "covariances": []}
    fit, init, covariance = summary._fit_trait, ScoreTask.__init__, genotypes._compute_covariance
    scan = BedRows.carriers

    def fit_trait(what, *args):
        seen["fits"].append(what.trait)
        return fit(what, *args)

    def scan_batch(rows, *args):
        seen["scans"].append(rows)
        return scan(rows, *args)

    def compute_covariance(k, task, context, *args):
        seen["covariances"].append(context.models.covariances[k].name)
        return covariance(k, task, context, *args)

    def make_task(self, genotypes, weights, index):
        seen["scored"].append(weights.shape[1])
        init(self, genotypes, weights, index)

    monkeypatch.setattr(summary, "_fit_trait", fit_trait)
    monkeypatch.setattr(BedRows, "carriers", scan_batch)
    monkeypatch.setattr(genotypes, "_compute_covariance", compute_covariance)
    monkeypatch.setattr(ScoreTask, "__init__", make_task)
    return seen


@pytest.mark.parametrize(("trait", "covariances"), [("y", set()), ("cc", {"binary:cc"})])
def test_new_summary_statistics_of_a_trait_redo_that_trait_only(
    simulated, tmp_path, seen, read_tables, trait, covariances
):
    """A binary trait's weights W follow its prediction, so its G'WG is new; nothing else of the genotypes is."""
    out = run_study(simulated, tmp_path / "out", ONE, "meta").path
    assert sorted(seen["fits"]) == ["cc", "y"]
    assert set(seen["scored"]) == {2}
    assert set(seen["covariances"]) == {"binary:cc", "quantitative:s1:loco"}
    for found in seen.values():
        found.clear()
    renew(simulated, trait)
    run_study(simulated, out, ONE, "meta")
    assert seen["fits"] == [trait]
    assert set(seen["scored"]) == {1}
    assert seen["scans"] == []
    assert set(seen["covariances"]) == covariances
    whole = run_study(simulated, tmp_path / "whole", ONE, "meta").path
    assert read_tables(out) == read_tables(whole)
    for name in ("loco_prediction.zarr", "polygenic_score.zarr", "record.json", f"{trait}.loco"):
        ours, theirs = ([p.read_bytes() for p in sorted((o / "predict").glob(f"{name}/**/*")) if p.is_file()] or
                        [(o / "predict" / name).read_bytes()] for o in (out, whole))  # fmt: skip
        assert ours == theirs, name


def test_the_metadata_beside_summary_statistics_counts(simulated, tmp_path, seen):
    out = run_study(simulated, tmp_path / "out", ONE, "denoise").path
    seen["fits"].clear()
    metadata = simulated.parent / "gwas" / "y.tsv.gz-meta.yaml"
    metadata.write_text(metadata.read_text().replace("simulated trait y", "another description"))
    run_study(simulated, out, ONE, "denoise")
    assert seen["fits"] == []  # the numbers are the same
    assert "y" in (out / "null_models.tsv").read_text()


def test_what_the_predictor_kept_is_computed_again_when_it_is_damaged(simulated, tmp_path, seen):
    out = run_study(simulated, tmp_path / "out", ONE, "denoise").path
    expected = (out / "null_models.tsv").read_bytes()
    kept = sorted((out / "parts" / "predict").glob("*.npz"))
    assert {p.name.split("-")[0] for p in kept} == {"frequency", "matched", "weights", "scores"}
    for path in kept:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    (out / "plan.json").unlink()
    seen["fits"].clear()
    run_study(simulated, out, ONE, "denoise")
    assert sorted(seen["fits"]) == ["cc", "y"]
    assert (out / "null_models.tsv").read_bytes() == expected
    renew(simulated, "y")
    run_study(simulated, out, ONE, "denoise")
    assert len(list((out / "parts" / "predict").glob("*.npz"))) == len(kept)  # what is out of use is gone
