"""Cases that users of other programs reported, as they came: a folder of inputs each, and the right answer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from locomass.bundle.write import sign_bundle
from locomass.commands.outcome import Resources
from locomass.commands.run import run_study
from locomass.tables.weights import read_weights
from tests.golden.cohorts import DATA as GOLDEN

DATA = Path(__file__).parent / "data"


class Case:
    """The inputs of one case, copied into a folder, and what may be run on them."""

    def __init__(self, name: str, folder: Path) -> None:
        shutil.copytree(DATA / name, folder / name)
        shutil.copytree(DATA / "base", folder / "base")
        self.folder = folder / name

    def run(self, config: str, upto: str = "meta") -> Path:
        """Run a study; return its folder of results."""
        return run_study(self.folder / f"{config}.yaml", self.folder / "out" / config, Resources(threads=1), upto).path

    def predict(self, config: str, trait: str = "y") -> dict:
        """Fit and score the predictor of a study; return what the record says of a trait."""
        out = self.run(config, "predict")
        return json.loads((out / "predict" / "record.json").read_text())["traits"][trait]

    def weights(self, config: str, trait: str = "y") -> pd.Series:
        """The per-allele weights of a study that was predicted, by identifier."""
        (path,) = (self.folder / "out" / config / "predict").glob(f"*{trait}*.txt.gz")
        found = read_weights(path)
        return pd.Series(found.weights[:, 0], index=found.id)

    def tests(self, results: Path) -> pd.DataFrame:
        """Gene tests of a folder of results, by test."""
        return pd.read_parquet(results / "gene_tests.parquet")


@pytest.fixture(scope="module")
def open_case(tmp_path_factory):
    return lambda name: Case(name, tmp_path_factory.mktemp("case"))


@pytest.fixture(scope="session")
def runs(tmp_path_factory) -> Path:
    """Bundles of both golden cohorts, that of b with all optional tables, and the configuration of the consortium."""
    folder = tmp_path_factory.mktemp("runs")
    shutil.copytree(GOLDEN, folder / "data")
    config = folder / "data" / "cohort_b.yaml"
    more = "score_statistics: {modes: [dominant, recessive], replicates: 20}\n"
    config.write_text(config.read_text() + more)
    for name in "ab":
        run_study(folder / "data" / f"cohort_{name}.yaml", folder / name, Resources(threads=1), "score-statistics")
    add_calibrated(folder / "b" / "bundle")
    return folder


def add_calibrated(bundle: Path) -> None:
    """Add the optional table of calibrated variances, which earlier versions wrote, to a bundle."""
    info = json.loads((bundle / "study.json").read_text())
    V = np.array(pq.read_table(bundle / "variants.parquet").column("V").to_pylist())
    V[:, [t["kind"] == "quantitative" for t in info["traits"]]] = np.nan
    parts = sorted(p.name for p in (bundle / "genes").iterdir())
    (bundle / "calibrated").mkdir()
    for rows, part in zip(np.array_split(np.arange(len(V)), len(parts)), parts, strict=True):
        table = pa.table(
            {"number": pa.array(rows, pa.int32()), "V": pa.array(V[rows].tolist(), pa.list_(pa.float64()))}
        )
        pq.write_table(table, bundle / "calibrated" / part)
    sign_bundle(bundle)


@pytest.fixture
def bundle(runs, tmp_path) -> Path:
    """A copy of the bundle of cohort b."""
    return Path(shutil.copytree(runs / "b" / "bundle", tmp_path / "bundle"))
