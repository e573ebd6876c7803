"""What may go wrong on a cluster or at night: nothing wrong is ever taken for done, and a second run ends the first.

Every gene is a batch of its own here, so that a small study has a dozen places to stop at.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest

from locomass.commands import outcome as outcome_module
from locomass.commands.outcome import Resources
from locomass.commands.run import run_study
from locomass.errors import InputError, LocomassError
from tests.factories import make_study

ROOT = Path(__file__).parents[2]
N_STEPS = 12  # 6 genes in the score statistics, 6 in the gene tests


class StopError(Exception):
    """The run was stopped."""


@pytest.fixture(autouse=True)
def _one_gene_per_batch(monkeypatch):
    monkeypatch.setattr("locomass.scores.BATCH_PAIRS", 0)
    monkeypatch.setattr("locomass.meta.tasks.GENES_PER_TASK", 1)


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    """The configuration of a small study."""
    return make_study(4).write(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def expected(study, tmp_path_factory, read_tables) -> dict[str, bytes]:
    """The tables of a run that nothing interrupts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("locomass.scores.BATCH_PAIRS", 0)
        patch.setattr("locomass.meta.tasks.GENES_PER_TASK", 1)
        return read_tables(
            run_study(study, tmp_path_factory.mktemp("whole") / "out", Resources(threads=1), "meta").path
        )


def call_at(step: int, action: Callable[[], None]) -> Resources:
    """Resources of one thread whose progress calls ``action`` after so many batches."""
    count = 0

    @contextlib.contextmanager
    def progress(title: str, total: int) -> Iterator[Callable[[], None]]:
        def done() -> None:
            nonlocal count
            count += 1
            if count == step:
                action()

        yield done

    return Resources(threads=1, progress=progress)


def stop() -> None:
    raise StopError


def results(out: Path) -> list[str]:
    """Names of result tables and bundles that are there."""
    return [name for name in ("gene_tests.parquet", "gene_tests.tsv.gz", "bundle/study.json") if (out / name).exists()]


# ---- stopping and resuming ----


@pytest.mark.parametrize("step", range(1, N_STEPS + 1))
def test_stopped_after_any_batch_and_resumed_equals_an_uninterrupted_run(study, expected, read_tables, tmp_path, step):
    out = tmp_path / "out"
    with pytest.raises(StopError):
        run_study(study, out, call_at(step, stop), "meta")
    assert "gene_tests.parquet" not in results(out)
    assert run_study(study, out, Resources(threads=2), "meta").failed == 0
    assert read_tables(out) == expected


KILL = """
import os, signal, sys
sys.path[:0] = [{root!r}]
import locomass.meta, locomass.scores
locomass.scores.BATCH_PAIRS, locomass.meta.tasks.GENES_PER_TASK = 0, 1
from locomass.commands.run import run_study
from tests.cluster.test_failures import call_at
from pathlib import Path
run_study(Path({study!r}), Path({out!r}), call_at({step}, lambda: os.kill(os.getpid(), signal.SIGKILL)), "meta")
"""


@pytest.mark.ci
@pytest.mark.parametrize("step", [3, 9])
def test_kill_9_of_the_client_and_resume(study, expected, read_tables, tmp_path, step):
    out = tmp_path / "out"
    program = KILL.format(root=str(ROOT), study=str(study), out=str(out), step=step)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert (out / ".lock").exists()  # nobody was left to remove it
    assert run_study(study, out, Resources(threads=1), "meta").failed == 0
    assert read_tables(out) == expected
    assert not (out / ".lock").exists()


@pytest.mark.ci
def test_kill_9_of_a_worker_costs_its_batch_only(study, expected, read_tables, tmp_path):
    def kill_a_worker() -> None:
        worker = next(iter(executors[0].client.run(os.getpid).values()))
        os.kill(worker, signal.SIGKILL)

    executors = []
    resources = call_at(4, kill_a_worker)
    resources.workers = 2
    opened = outcome_module.open_executor
    with pytest.MonkeyPatch.context() as patch:

        @contextlib.contextmanager
        def remember(*args):
            with opened(*args) as executor:
                executors.append(executor)
                yield executor

        patch.setattr(outcome_module, "open_executor", remember)
        run_study(study, tmp_path / "out", resources, "meta")
    assert read_tables(tmp_path / "out") == expected


# ---- damaged files ----


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def overwrite(path: Path) -> None:
    """The right size, the wrong content: what is left when blocks were not written before the power failed."""
    path.write_bytes(bytes(path.stat().st_size))


@pytest.mark.parametrize(
    "damage", [cut, *(pytest.param(d, marks=pytest.mark.ci) for d in (empty, overwrite, Path.unlink))]
)
@pytest.mark.parametrize(
    ("step", "pattern"),
    [
        (6, "parts/score_statistics/*/genes-*.parquet"),
        (6, "parts/score_statistics/*/variants-*.parquet"),
        (6, "parts/genotypes/*/carriers-*.npz"),
        (6, "parts/genotypes/*/covariance-*.npz"),
        (10, "parts/meta/*/tests-*.parquet"),
        (10, "parts/meta/*/variants-*.parquet"),
        (10, "parts/meta/*/audit-*.parquet"),
        (10, "bundle/genes/00002.parquet"),
        (10, "bundle/variants.parquet"),
        (10, "denoise/null_models.json"),
    ],
)
def test_a_damaged_part_is_made_again(study, expected, read_tables, tmp_path, step, pattern, damage):
    out = tmp_path / "out"
    with pytest.raises(StopError):
        run_study(study, out, call_at(step, stop), "meta")
    files = sorted(out.glob(pattern))
    assert files
    for path in files[:2]:
        damage(path)
    run_study(study, out, Resources(threads=1), "meta")
    assert read_tables(out) == expected


def test_an_input_removed_while_running_is_an_error_that_names_it(tmp_path):
    config = make_study(4).write(tmp_path)
    remove = call_at(3, (tmp_path / "geno.bed").unlink)
    with pytest.raises(InputError, match=r"cannot read .*geno\.bed.*while the run was going on"):
        run_study(config, tmp_path / "out", remove, "meta")
    assert results(tmp_path / "out") == []


def test_an_input_cut_while_running_is_an_error_that_names_it(tmp_path):
    config = make_study(4).write(tmp_path)
    with pytest.raises(InputError, match=r"geno\.bed ends at byte .* truncated after the run began"):
        run_study(config, tmp_path / "out", call_at(3, lambda: cut(tmp_path / "geno.bed")), "meta")
    assert results(tmp_path / "out") == []


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Callable[[str], Path]]:
    """A file system of a given size; called again it is made larger."""
    if os.geteuid() != 0:
        pytest.skip("mounting a file system needs root")
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = False

    def mount(size: str) -> Path:
        nonlocal mounted
        options = f"{'remount,' if mounted else ''}size={size}"
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
        mounted = True
        return folder

    yield mount
    if mounted:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.parametrize("kilobytes", [16, 60, 120, 200, 280])
def test_a_full_disk_is_an_error_and_the_run_goes_on_when_there_is_room(
    study, expected, read_tables, small_disk, kilobytes
):
    out = small_disk(f"{kilobytes}k") / "out"
    with pytest.raises(LocomassError, match="No space left on device") as error:
        run_study(study, out, Resources(threads=1), "meta")
    assert error.value.exit_code == 2
    assert "gene_tests.tsv.gz" not in results(out)
    small_disk("50m")
    assert run_study(study, out, Resources(threads=1), "meta").failed == 0
    assert read_tables(out) == expected


# ---- one bad gene ----


def test_one_bad_gene_costs_one_row_per_test_and_exit_code_3(study, expected, tmp_path, monkeypatch, capsys):
    from locomass import cli, meta

    whole = meta._run_gene

    def fail(gene, *rest):
        if gene.request.gene == "GENE3":
            raise MemoryError("no room for GENE3")
        return whole(gene, *rest)

    monkeypatch.setattr(meta, "_run_gene", fail)
    monkeypatch.setattr("sys.argv", ["locomass", "run", str(study), "--out", str(tmp_path / "out"), "--threads", "1"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 3
    assert "1 genes failed" in capsys.readouterr().err
    table = pd.read_parquet(tmp_path / "out" / "gene_tests.parquet")
    bad = table[table["gene"] == "GENE3"]
    assert (bad["note"] == "failed: no room for GENE3").all()
    assert bad["p"].isna().all()
    assert table.loc[table["gene"] != "GENE3", "p"].notna().any()
