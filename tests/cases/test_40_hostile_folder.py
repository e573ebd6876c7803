"""Case 40: a folder that a stranger laid, with every payload that is known, executes nothing, whatever is done with it.

`.ci/lowest` runs this file with the oldest versions that pyproject.toml allows.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from locomass.bundle.tables import read_bundle_table
from locomass.cli import main
from locomass.commands.meta import run_meta_analysis
from locomass.commands.outcome import Resources
from locomass.commands.partitions import list_missing
from locomass.commands.run import run_study
from locomass.config import RunConfig, load_config
from locomass.errors import BundleError, LocomassError
from locomass.executors.cluster_file import load_cluster_config
from locomass.files.parts import read_arrays
from locomass.genotypes.fileset import open_fileset
from locomass.meta.inspect import inspect_bundles
from locomass.null_models.store import read_array
from locomass.run import signed
from locomass.schema import BUNDLE_VARIANTS
from locomass.simulate.study import parse_parameters
from locomass.tables.annotation.rule_file import read_rules
from locomass.tables.ld_store import is_intact, read_banded, read_ld, read_stored_variants
from locomass.tables.summary_statistics import read_metadata
from tests.factories import make_study, write_meta_config

PROGRAM = "import sys\nfrom locomass.cli import main\nif __name__ == '__main__':\n    sys.exit(main())\n"
THREAD = Resources(threads=1)


class Payload:
    """Touches a file when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return os.mknod, (str(self.trace),)


@pytest.fixture
def trace(tmp_path) -> Path:
    """The file that any payload would leave."""
    return tmp_path / "trace"


def booby_array(path: Path, trace: Path, how: str) -> None:
    """Write a version 2 Zarr array of one number whose chunk is a pickle, decoded by a codec that its metadata name."""
    path.mkdir(parents=True)
    codec = {"id": "pickle"}
    head = {"zarr_format": 2, "shape": [1], "chunks": [1], "dtype": "|O" if how == "object" else "<f8", "order": "C"}
    head |= {"fill_value": 0, "filters": None if how == "compressor" else [codec]}
    head |= {"compressor": codec if how == "compressor" else None}
    (path / ".zarray").write_text(json.dumps(head))
    (path / "0").write_bytes(pickle.dumps(Payload(trace)))


def booby_group(folder: Path, names: tuple[str, ...], trace: Path, how: str) -> Path:
    for name in names:
        booby_array(folder / name, trace, how)
    for group in {folder, *(folder / Path(name).parent for name in names)}:
        (group / ".zgroup").write_text('{"zarr_format": 2}')
    (folder / ".zattrs").write_text(json.dumps({"Chromosome": 1, "Sample size": 10}))
    return folder


VCZ = ("contig_id", "variant_contig", "variant_position", "variant_allele", "sample_id", "call_genotype")
VIPRS = (*(f"metadata/{name}" for name in ("snps", "bp", "a1", "a2", "maf")), "matrix/data", "matrix/indptr")
ZARR: dict[str, Callable[[Path, Path, str], object]] = {
    "genotypes": lambda folder, trace, how: open_fileset(booby_group(folder / "x.vcz", VCZ, trace, how)),
    "LD, variants": lambda folder, trace, how: read_stored_variants(
        booby_group(folder / "chr_1", VIPRS, trace, how).parent
    ),
    "LD, matrix": lambda folder, trace, how: read_banded(booby_group(folder / "chr_1", VIPRS, trace, how).parent, "1"),
    "prediction": lambda folder, trace, how: read_array(
        booby_group(folder / "loco_prediction.zarr", ("loco_prediction",), trace, how), "loco_prediction"
    ),
}


@pytest.mark.parametrize("how", ["filter", "compressor", "object"])
@pytest.mark.parametrize("what", ZARR)
@pytest.mark.filterwarnings("ignore")
def test_codecs_of_a_zarr_store(tmp_path, trace, what, how):
    with pytest.raises(LocomassError, match=r"(?s)x\.vcz|chr_1|loco_prediction\.zarr"):
        ZARR[what](tmp_path / "sent", trace, how)
    assert not trace.exists()


def test_the_payload_is_one(trace):
    pickle.loads(pickle.dumps(Payload(trace)))
    assert trace.exists()


def test_object_arrays_of_numpy(tmp_path, trace):
    path = tmp_path / "kept.npz"
    np.savez(path, digest=np.array([Payload(trace)], object), n_blocks=np.array([Payload(trace)], object))
    assert read_arrays(path) is None
    assert not is_intact(path, "x")
    with pytest.raises(LocomassError, match=r"kept\.npz"):
        read_ld(path, "x")
    assert not trace.exists()


YAML: dict[str, Callable[[Path], object]] = {
    "study.yaml": lambda path: load_config(path, RunConfig),
    "slurm.yaml": load_cluster_config,
    "rules.yaml": read_rules,
    "gwas.tsv-meta.yaml": lambda path: read_metadata(path.with_name("gwas.tsv")),
    "--set": lambda path: parse_parameters([f"h2={path.read_text().partition(':')[2]}"]),
}


@pytest.mark.parametrize("name", YAML)
@pytest.mark.parametrize(
    "tag",
    [
        '!!python/object/apply:os.mknod ["{trace}"]',
        '!!python/object/new:os.mknod ["{trace}"]',
        "!!python/name:os.mknod ''",
    ],
)
def test_tags_of_yaml(tmp_path, trace, name, tag):
    (tmp_path / name).write_text(f"genotypes: {tag.format(trace=trace)}\n")
    with pytest.raises(LocomassError):
        YAML[name](tmp_path / name)
    assert not trace.exists()


def test_extension_types_of_parquet(tmp_path, trace):
    """pyarrow before 14.0.1 unpickled the type of a column."""
    extension = {
        "ARROW:extension:name": "arrow.py_extension_type",
        "ARROW:extension:metadata": pickle.dumps(Payload(trace), 0),
    }
    fields = [pa.field(c.name, c.type, metadata=extension) for c in BUNDLE_VARIANTS.columns]
    pq.write_table(pa.schema(fields).empty_table(), tmp_path / "variants.parquet")
    with suppress(BundleError):  # read as the plain columns that they are, or refused
        read_bundle_table(tmp_path / "variants.parquet", BUNDLE_VARIANTS)
    assert not trace.exists()


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A study with its bundle."""
    folder = tmp_path_factory.mktemp("made")
    run_study(make_study(1, n=60).write(folder), folder / "out", THREAD, "score-statistics")
    return folder


@pytest.mark.ci
@pytest.mark.parametrize("how", ["filter", "compressor"])
def test_files_beside_a_bundle_are_not_opened(made, tmp_path, trace, how):
    """As in the case: a record, Zarr stores and pickles beside, and below, an untouched bundle."""
    inbox = tmp_path / "inbox"
    shutil.copytree(made / "out" / "bundle", inbox / "bundle")
    planted = "PLANTED-BESIDE-THE-BUNDLE"
    record = json.dumps({"traits": {"z": {"method": planted, "overlap": planted}}, "messages": [planted]})
    for folder in (inbox / "predict", inbox / "bundle" / "predict", inbox / "parts"):
        folder.mkdir(parents=True)
        (folder / "record.json").write_text(record)
        (folder / "tasks.pickle").write_bytes(pickle.dumps(Payload(trace)))
        for store in ("polygenic_score.zarr", "loco_prediction.zarr"):
            booby_group(folder / store, ("trait", "polygenic_score"), trace, how)
    (inbox / "plan.json").write_text(record)
    config = write_meta_config(tmp_path / "meta.yaml", [inbox / "bundle"], make_study(1))
    assert not [f for f in inspect_bundles([inbox / "bundle"]) if f.severity == "error"]
    done = run_meta_analysis(config, [inbox / "bundle"], tmp_path / "out", THREAD, "meta")
    assert done.failed == 0
    assert not any(planted.encode() in p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file())
    assert not trace.exists()


@pytest.mark.ci
def test_a_folder_of_results_that_a_stranger_laid(made, tmp_path, trace):
    """Its stores, kept arrays and batches are payloads: a run in it computes anew, or says what is wrong."""
    study = Path(shutil.copytree(made, tmp_path / "study"))
    out, config = study / "out", study / config_of(study)
    for path in sorted(out.rglob("*.npz")):
        np.savez(path, x=np.array([Payload(trace)], object))
    for path in [p for p in out.rglob("*.zarr") if p.is_dir()]:
        shutil.rmtree(path)
        booby_group(path, (path.stem, "sample"), trace, "filter")
    (out / "parts").mkdir(exist_ok=True)
    signed.write_signed(tmp_path / "ours", b"")  # there is a key
    (out / "parts" / "tasks.pickle").write_bytes(bytes(32) + pickle.dumps(Payload(trace)))
    with pytest.raises(LocomassError, match="was not written here"):
        list_missing(out)
    for upto in ("score-statistics", "meta"):
        with suppress(LocomassError):
            run_study(config, out, THREAD, upto)
        assert not trace.exists()


# ---- the working directory ----

MODULES = ("numpy", "yaml", "click", "locomass", "sitecustomize", "usercustomize", "distributed", "locomass_predictors")


@pytest.fixture
def here(tmp_path, trace) -> Path:
    """A folder with a study, and whatever programs may read from where they are started."""
    folder = tmp_path / "here"
    make_study(1, n=60).write(folder)
    for name in MODULES:
        (folder / f"{name}.py").write_text(f"import os\nos.mknod({str(trace)!r})\n")
    (folder / "matplotlibrc").write_text("backend: module://yaml\ntext.usetex: True\n")
    (folder / "dask.yaml").write_text(
        "distributed: {scheduler: {preload: [./yaml.py]}, worker: {preload: [./yaml.py]}}\n"
    )
    (folder / ".numba_config.yaml").write_text(f"cache_dir: {folder / 'cache'}\n")
    return folder


def call(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONSAFEPATH")}
    program = folder.parent / "program"  # as pip installs it: a script in another folder
    program.write_text(PROGRAM)
    command = [sys.executable, str(program), *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def config_of(folder: Path) -> str:
    (path,) = (p for p in folder.glob("*.yaml") if p.name not in ("dask.yaml", ".numba_config.yaml"))
    return path.name


def test_settings_of_numba_in_the_working_directory_are_refused(here, trace, monkeypatch, capsys):
    """They may name a folder of compiled kernels, and those are pickles."""
    monkeypatch.chdir(here)
    monkeypatch.setattr("sys.argv", ["locomass", "check", config_of(here)])
    with pytest.raises(SystemExit) as end:
        main()
    said = capsys.readouterr().err
    assert (end.value.code, said.count("\n")) == (2, 1)
    assert f"{here / '.numba_config.yaml'}: Numba would read it" in said
    assert not trace.exists()


def test_modules_and_settings_in_the_working_directory(here, trace):
    (here / ".numba_config.yaml").unlink()
    done = call(here, "check", config_of(here))
    assert (done.returncode, trace.exists()) == (0, False), done.stderr


@pytest.mark.ci
def test_modules_and_settings_in_the_working_directory__workers_and_report(here, trace):
    (here / ".numba_config.yaml").unlink()
    done = call(here, "run", config_of(here), "--out", "out", "--workers", "1", "--quiet")
    assert (done.returncode, trace.exists()) == (0, False), done.stderr
    assert (here / "out" / "report.html").exists()
