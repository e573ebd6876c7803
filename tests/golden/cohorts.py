"""Where the golden cohorts and the shared real data are, and how their tables are read."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

DATA = Path(__file__).parent / "data"
SHARED = Path(os.environ.get("LOCOMASS_SHARED", Path(__file__).parents[3] / "shared"))


def shared(name: str) -> Path:
    """Return a folder of the shared data, or skip the test where it is absent."""
    folder = SHARED / "data" / name
    if not folder.exists():
        pytest.skip(f"{folder} is not on this machine")
    return folder


def read_results(folder: Path) -> pd.DataFrame:
    """Return gene_tests.parquet."""
    return pd.read_parquet(folder / "gene_tests.parquet")


def read_regenie(name: str) -> pd.DataFrame:
    """Return all rows of REGENIE with ``gene``, ``mask`` and ``bin`` apart; name is none or loco."""
    table = pd.read_csv(DATA / "expected" / f"regenie_a_{name}_y_y.txt", sep=" ", skiprows=1)
    table[["gene", "mask", "bin"]] = table["ID"].str.split(".", n=2, expand=True)
    return table


def relative(ours: pd.Series, theirs: pd.Series) -> np.ndarray:
    """Return |ours / theirs - 1|."""
    return np.abs(ours.to_numpy() / theirs.to_numpy() - 1)
