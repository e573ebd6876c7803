"""--memory: batches are sized by it, and the process stays below it where nothing is rare."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from locomass.commands.outcome import Resources
from locomass.commands.run import run_study
from locomass.errors import ConfigError
from locomass.executors import ThreadExecutor, open_executor, parse_memory
from locomass.executors.workers import ClusterExecutor
from locomass.scores import BATCH_CARRIERS, TASK_BYTES, BatchBound, bound_batch
from tests.factories import make_study, write_fileset

ROOT = Path(__file__).parents[2]
MEGABYTE = 1e6
SAMPLES, VARIANTS, PER_GENE = 40_000, 1_500, 15

MEASURE = """
import sys
from pathlib import Path
from locomass.commands.outcome import Resources
from locomass.commands.run import run_study
memory = None if sys.argv[3] == "none" else sys.argv[3]
run_study(Path(sys.argv[1]), Path(sys.argv[2]), Resources(threads=1, memory=memory), "score-statistics")
# not ru_maxrss, which a child inherits from the process that forked it
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(int(peak.split()[1]) * 1024)
"""


@pytest.mark.parametrize(("text", "size"), [("4 GB", 4e9), ("512MiB", 2**29), ("1.5 GB", 1.5e9)])
def test_parse_memory(text, size):
    assert parse_memory(text) == size


def test_parse_memory__raises_on_words():
    with pytest.raises(ConfigError, match=r"'much' is not a size of memory; give one such as `4 GB`"):
        parse_memory("much")


def test_memory_of_a_task_is_its_share():
    with open_executor(threads=4, memory="2 GB") as executor:
        assert isinstance(executor, ThreadExecutor)
        assert executor.task_memory == 5e8
    with open_executor(threads=4) as executor:
        assert executor.task_memory is None
    with open_executor(1, memory="1 GB") as executor:
        assert isinstance(executor, ClusterExecutor)
        assert executor.task_memory == 1e9
        (worker,) = executor.client.scheduler_info()["workers"].values()
        assert worker["memory_limit"] == 1e9


def test_bound_batch__grows_with_memory_up_to_the_usual_size():
    bounds = [bound_batch(memory * MEGABYTE, 10_000, 20) for memory in (500, 1_000, 2_000, 4_000, 1e6)]
    most = [bound.most for bound in bounds]
    assert most == sorted(set(most))
    assert {bound.carriers for bound in bounds} == {BATCH_CARRIERS}
    assert bound_batch(None, 10_000, 20) == BatchBound(BATCH_CARRIERS, np.inf)


def test_bound_batch__leaves_room_for_the_null_models():
    most = [bound_batch(2e9, n, columns).most for n, columns in ((500_000, 100), (500_000, 20), (5_000, 20))]
    assert most == sorted(set(most))


def test_bound_batch__raises_when_nothing_fits():
    with pytest.raises(ConfigError, match=r"MB of memory per task is too little: 500,000 samples with 300 columns"):
        bound_batch(1e9, 500_000, 300)


def test_small_memory_makes_more_batches_and_the_same_tables(tmp_path, monkeypatch, read_tables):
    config = make_study(4).write(tmp_path / "study")
    whole = run_study(config, tmp_path / "whole", Resources(threads=1), "meta").path
    monkeypatch.setattr("locomass.scores.CARRIER_BYTES", 5e3)
    memory = f"{int(TASK_BYTES) + 10_000_000} B"
    small = run_study(config, tmp_path / "small", Resources(threads=1, memory=memory), "meta").path
    assert len(list(small.glob("bundle/genes/*"))) > len(list(whole.glob("bundle/genes/*")))
    ours, theirs = (
        {k: v for k, v in read_tables(out).items() if not {"genes", "laws"} & set(k.split("/")) and "digests" not in k}
        for out in (small, whole)
    )
    assert ours == theirs


@pytest.fixture(scope="module")
def common(tmp_path_factory) -> Path:
    """A study of common variants only, which cost most: nearly every sample is a carrier."""
    folder = tmp_path_factory.mktemp("common")
    rng = np.random.default_rng(1)
    rows = rng.integers(0, 256, (VARIANTS, SAMPLES // 4), dtype=np.uint8)
    samples = [(f"r{i}", f"r{i}") for i in range(SAMPLES)]
    labels = [("1", 100 * j + 1000, f"1:{100 * j + 1000}:A:C", "C", "A") for j in range(VARIANTS)]
    write_fileset(folder / "geno", np.zeros((0, SAMPLES), np.int64), labels, samples)
    (folder / "geno.bed").write_bytes(b"\x6c\x1b\x01" + rows.tobytes())
    genes = [labels[j : j + PER_GENE] for j in range(0, VARIANTS, PER_GENE)]
    sets = [f"G{k} 1 {gene[0][1]} {','.join(v[2] for v in gene)}\n" for k, gene in enumerate(genes)]
    (folder / "sets.txt").write_text("".join(sets))
    values = rng.standard_normal(SAMPLES).round(4)
    (folder / "pheno.tsv").write_text("IID\ty\n" + "".join(f"r{i}\t{v}\n" for i, v in enumerate(values)))
    (folder / "study.yaml").write_text(
        "study: common\ngenotypes: geno.bed\nphenotypes: {file: pheno.tsv, quantitative: [y]}\n"
        "genes: {sets: sets.txt}\n"
    )
    return folder / "study.yaml"


def peak_memory(config: Path, out: Path, memory: str) -> float:
    """Return the largest resident size of a process that computes the score statistics."""
    program = [sys.executable, "-c", MEASURE, str(config), str(out), memory]
    done = subprocess.run(program, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return float(done.stdout)


@pytest.mark.ci
def test_the_process_stays_below_its_memory(common, tmp_path):
    bound = 600e6
    assert peak_memory(common, tmp_path / "bounded", "600 MB") < bound
    assert peak_memory(common, tmp_path / "unbounded", "none") > bound


def peak_of_worker() -> float:
    """Return the largest resident size that this process has had."""
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(peak.split()[1]) * 1024.0


def run_on_workers(config: Path, out: Path, memory: str, monkeypatch) -> list[float]:
    """Run a study on two workers; return the peak of each, none of which was restarted."""
    peaks: list[float] = []

    @contextmanager
    def watched(*args):
        with open_executor(*args) as executor:
            first = executor.client.run(os.getpid)
            yield executor
            peaks.extend(executor.client.run(peak_of_worker).values())
            assert executor.client.run(os.getpid) == first

    monkeypatch.setattr("locomass.commands.outcome.open_executor", watched)
    run_study(config, out, Resources(workers=2, memory=memory), "meta")
    assert len(peaks) == 2
    return peaks


@pytest.mark.slow
def test_every_worker_stays_below_its_memory(common, tmp_path, monkeypatch):
    """The least memory that is accepted, and one per cent; batches of the usual size do not fit into it."""
    n_columns = 4  # intercept, residual, weight and prediction
    with pytest.raises(ConfigError, match="of memory per task is too little"):
        bound_batch(TASK_BYTES, SAMPLES, n_columns)
    bound = 1.01 * (TASK_BYTES + 16 * SAMPLES * n_columns)
    assert bound_batch(bound, SAMPLES, n_columns).most < VARIANTS * SAMPLES / 10
    assert max(run_on_workers(common, tmp_path / "bounded", f"{int(bound)} B", monkeypatch)) < bound
    assert max(run_on_workers(common, tmp_path / "free", "4 GB", monkeypatch)) > bound
