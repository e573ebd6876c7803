"""Case 45: an input replaced during a run ends it by name; restored, it finds nothing stale up to date."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from locomass.commands.conditional import run_conditional_analysis
from locomass.commands.meta import run_meta_analysis
from locomass.commands.outcome import Resources
from locomass.commands.run import run_study
from locomass.errors import InputError
from locomass.run import reading
from locomass.run.reading import ReadInputs
from tests.cluster.test_failures import ROOT, call_at
from tests.factories import make_study

THREAD = Resources(threads=1)
TABLES = ("gene_tests.parquet", "single_variants.parquet", "bundle/variants.parquet", "null_models.tsv")


@pytest.fixture(autouse=True)
def _one_gene_per_batch(monkeypatch):
    monkeypatch.setattr("locomass.scores.BATCH_PAIRS", 0)
    monkeypatch.setattr("locomass.meta.tasks.GENES_PER_TASK", 1)


@pytest.fixture
def study(tmp_path) -> Path:
    return make_study(4).write(tmp_path / "study")


@pytest.fixture
def expected(study, tmp_path) -> dict[str, bytes]:
    """The tables of a clean run."""
    return read(run_study(study, tmp_path / "clean", THREAD, "meta").path)


def read(out: Path) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in TABLES}


def reverse(bed: Path) -> bytes:
    """Give every variant the genotypes of another; return the content as it was."""
    whole = bed.read_bytes()
    n = len(bed.with_suffix(".bim").read_text().splitlines())
    rows = np.frombuffer(whole, np.uint8)[3:].reshape(n, -1)
    new = bed.with_name("new")
    new.write_bytes(whole[:3] + rows[::-1].tobytes())
    new.replace(bed)
    return whole


@pytest.mark.parametrize("restored", ["before the end", "after the end"])
@pytest.mark.parametrize("kept", [True, False], ids=["inode kept", "replaced"])
def test_a_bed_replaced_during_a_run_and_restored(study, expected, tmp_path, restored, kept):
    bed, out = study.parent / "geno.bed", tmp_path / "out"
    status = bed.stat()

    def restore() -> None:
        if not kept:
            bed.unlink()
        bed.write_bytes(original)
        os.utime(bed, ns=(status.st_atime_ns, status.st_mtime_ns))

    def replace() -> None:
        nonlocal original
        original = reverse(bed)
        if restored == "before the end":
            computed = bed.read_bytes()
            restore()
            os.utime(bed)
            bed.write_bytes(computed)

    original = b""
    resources = call_at(1, replace)
    if restored == "before the end":
        steps = iter(range(100))
        resources = Resources(threads=1, progress=_restore_at(steps, replace, restore))
    with pytest.raises(InputError, match=r"geno\.bed: changed while the run was going on.*run again"):
        run_study(study, out, resources, "meta")
    restore()
    assert run_study(study, out, THREAD, "meta").failed == 0
    assert read(out) == expected


def _restore_at(steps, replace, restore):
    """Progress that replaces after the first batch, and restores after the fourth."""
    from contextlib import contextmanager

    @contextmanager
    def progress(title, total):
        def done():
            step = next(steps)
            if step == 0:
                replace()
            elif step == 3:
                restore()

        yield done

    return progress


KILL = """
import os, signal, sys
sys.path[:0] = [{root!r}]
import locomass.meta, locomass.scores
locomass.scores.BATCH_PAIRS, locomass.meta.tasks.GENES_PER_TASK = 0, 1
from locomass.commands.run import run_study
from tests.cases.test_45_input_replaced import call_twice
from pathlib import Path
run_study(Path({study!r}), Path({out!r}), call_twice(Path({study!r}).parent / "geno.bed"), "meta")
"""


def call_twice(bed: Path) -> Resources:
    """Resources that replace the .bed after the first batch, and kill the process after the third."""
    return Resources(
        threads=1,
        progress=_restore_at(iter(range(100)), lambda: reverse(bed), lambda: os.kill(os.getpid(), signal.SIGKILL)),
    )


@pytest.mark.ci
def test_parts_of_a_killed_run_are_not_trusted_when_an_input_is_another_file(study, expected, tmp_path):
    bed, out = study.parent / "geno.bed", tmp_path / "out"
    original, status = bed.read_bytes(), bed.stat()
    program = KILL.format(root=str(ROOT), study=str(study), out=str(out))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert list(out.glob("parts/score_statistics/*/genes-*.parquet"))
    bed.write_bytes(original)
    os.utime(bed, ns=(status.st_atime_ns, status.st_mtime_ns))
    run_study(study, out, THREAD, "meta")
    assert read(out) == expected


@pytest.mark.parametrize("name", ["phenotypes.txt", "geno.bim", "masks.txt"])
def test_tables_count_as_well(study, tmp_path, name):
    path = study.parent / name
    if not path.exists():
        (path,) = study.parent.glob(f"{path.stem[:5]}*")
    with pytest.raises(InputError, match=rf"{path.name}: changed while"):
        run_study(study, tmp_path / "out", call_at(1, lambda: os.utime(path)), "meta")


def test_a_bundle_replaced_during_a_meta_analysis(study, tmp_path):
    run_study(study, tmp_path / "one", THREAD, "score-statistics")
    bundle = Path(shutil.copytree(tmp_path / "one" / "bundle", tmp_path / "sent"))
    whole = study.read_text()
    config = study.parent / "meta.yaml"
    keys = ("genes:", "tests:", "  ")
    lines, wanted = [], False
    for line in whole.splitlines():
        wanted = line.startswith(keys[:2]) or (wanted and line.startswith((" ", "-")))
        lines += [line] if wanted else []
    config.write_text("\n".join(lines) + "\n")
    table = bundle / "variants.parquet"

    def replace() -> None:
        shutil.copy(table, tmp_path / "copy")
        os.replace(tmp_path / "copy", table)

    with pytest.raises(InputError, match=r"variants\.parquet: changed while the run was going on"):
        run_meta_analysis(config, [bundle], tmp_path / "meta", call_at(1, replace), "meta")
    assert not (tmp_path / "meta" / "parts").exists()
    assert run_meta_analysis(config, [bundle], tmp_path / "meta", THREAD, "meta").failed == 0
    with pytest.raises(InputError, match=r"variants\.parquet: changed while"):
        run_conditional_analysis(config, [bundle], "auto", 0.9, tmp_path / "meta", call_at(1, replace))
    assert not list((tmp_path / "meta").glob("conditional*"))


def test_a_file_that_nobody_touched_is_the_same(tmp_path, monkeypatch):
    path = tmp_path / "x"
    path.write_text("one")
    new = ReadInputs()
    new.note(tmp_path)
    assert new.noted[str(path)]["digest"]  # written just now: another write may leave the same stamp
    assert new.changed() == []
    stamp = reading.stamp_file(path)
    path.write_text("two")
    monkeypatch.setattr(reading, "stamp_file", lambda _: stamp)
    assert new.changed() == [str(path)]
    path.unlink()
    assert ReadInputs(new.noted).changed() == [str(path)]
