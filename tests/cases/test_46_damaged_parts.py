"""Case 46: a part whose content changed on the disk is computed again, whatever its footer says, and never signed."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from locomass.commands.outcome import Resources
from locomass.commands.partitions import finalise_partitions, init_partitions, list_missing, run_partition
from locomass.commands.run import run_study
from locomass.files.parts import is_sealed, read_arrays, seal_parts, write_arrays
from tests.cluster.test_failures import call_at, stop
from tests.factories import make_study

THREAD = Resources(threads=1)
TABLES = (
    "gene_tests.parquet",
    "single_variants.parquet",
    "drivers.parquet",
    "mask_audit.tsv",
    "bundle/variants.parquet",
)


@pytest.fixture(autouse=True)
def _one_gene_per_batch(monkeypatch):
    monkeypatch.setattr("locomass.scores.BATCH_PAIRS", 0)
    monkeypatch.setattr("locomass.meta.tasks.GENES_PER_TASK", 1)


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    return make_study(4).write(tmp_path_factory.mktemp("study"))


@pytest.fixture
def expected(study, tmp_path) -> dict[str, bytes]:
    return read(run_study(study, tmp_path / "whole", THREAD, "meta").path)


def read(out: Path) -> dict[str, bytes]:
    files = [out / name for name in TABLES] + sorted(p for p in (out / "bundle").rglob("*") if p.is_file())
    return {str(path.relative_to(out)): path.read_bytes() for path in files}


def flip(path: Path, at: float) -> None:
    data = bytearray(path.read_bytes())
    data[int(at * (len(data) - 1))] ^= 0x55
    path.write_bytes(data)


def zero(path: Path, at: float) -> None:
    data = bytearray(path.read_bytes())
    low = int(at * len(data) * 0.75)
    data[low : low + len(data) // 4] = bytes(len(data) // 4)
    path.write_bytes(data)


@pytest.mark.parametrize(("damage", "at"), [(flip, 0.33), (flip, 0.999), (zero, 0.33)])
def test_damaged_parts_are_missing_and_computed_again(study, expected, tmp_path, damage, at):
    out = tmp_path / "out"
    init_partitions(study, out, THREAD)
    for number in (0, 1, 2):
        run_partition(out, number)
    assert list_missing(out) == [3, 4, 5]
    for path in out.glob("parts/score_statistics/*/*-0000[01].parquet"):
        damage(path, at)
    assert list_missing(out) == [0, 1, 3, 4, 5]
    run_study(study, out, THREAD, "meta")
    assert read(out) == expected


@pytest.mark.parametrize("pattern", ["parts/meta/*/*.parquet", "parts/meta/*/*.json", "parts/genotypes/*/*.npz"])
def test_damaged_parts_of_an_interrupted_run(study, expected, tmp_path, pattern):
    out = tmp_path / "out"
    from tests.cluster.test_failures import StopError

    with pytest.raises(StopError):
        run_study(study, out, call_at(10, stop), "meta")
    rng = random.Random(1)
    files = sorted(out.glob(pattern))
    assert files
    for path in files:
        flip(path, rng.random())
    run_study(study, out, THREAD, "meta")
    assert read(out) == expected


def test_every_part_of_a_batch_is_sealed(study, tmp_path):
    """A part that is forgotten where batches are sealed would be trusted blindly."""
    seen = set()
    out = tmp_path / "out"
    planned = init_partitions(study, out, THREAD)
    while not hasattr(planned, "failed"):
        for number in planned.missing:
            run_partition(out, number)
        for path in out.glob("parts/*/*/*-00001.parquet"):
            assert is_sealed(path.parent, 1)
            content = path.read_bytes()
            flip(path, 0.5)
            assert not is_sealed(path.parent, 1), path
            path.write_bytes(content)
            seen.add(f"{path.parts[-3]}/{path.name.partition('-')[0]}")
        planned = finalise_partitions(study, out, THREAD)
    assert seen >= {"score_statistics/genes", "score_statistics/variants", "score_statistics/laws", "meta/tests"}


def test_a_seal_is_whole_or_counts_for_nothing(tmp_path):
    part = tmp_path / "a-00007.parquet"
    part.write_bytes(b"content")
    seal_parts(tmp_path, 7, [part])
    assert is_sealed(tmp_path, 7)
    assert not is_sealed(tmp_path, 8)
    (seal,) = tmp_path.glob("seal-*")
    whole = seal.read_bytes()
    for text in (b"", b"{}", b"[]", b"[" * 100_000, b"7", whole[:-5], whole.replace(b"a-0", b"b-0")):
        seal.write_bytes(text)
        assert not is_sealed(tmp_path, 7)
    seal.write_bytes(whole)
    part.unlink()
    assert not is_sealed(tmp_path, 7)


def test_no_flipped_byte_of_kept_arrays_is_used(tmp_path):
    path = tmp_path / "kept.npz"
    arrays = {"indptr": np.arange(40), "dosage": np.ones(30, np.int8)}
    write_arrays(path, arrays)
    whole = path.read_bytes()
    for at in range(len(whole)):
        for bit in (0x55, 0x01, 0x80):
            data = bytearray(whole)
            data[at] ^= bit
            path.write_bytes(data)
            found = read_arrays(path)
            assert found is None or (
                found.keys() == arrays.keys() and all(np.array_equal(found[k], arrays[k]) for k in arrays)
            ), at
