"""A prediction that fails is a warning with its likely causes, in the log and on the terminal; the run goes on."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest


@pytest.fixture(scope="module")
def case(open_case):
    return open_case("27-failing-prediction-not-mentioned")


@pytest.fixture(scope="module")
def ran(case):
    """The command as a user gives it, and the record of its trait."""
    command = [sys.executable, "-m", "locomass", "predict", "study.yaml", "--out", "out/study"]
    done = subprocess.run(command, cwd=case.folder, capture_output=True, text=True, check=False)
    record = json.loads((case.folder / "out" / "study" / "predict" / "record.json").read_text())["traits"]["y"]
    return done, record


def test_swapped_alleles_in_half_of_the_rows__are_a_warning_that_names_causes(case, ran):
    done, found = ran
    assert done.returncode == 0
    assert found["r2_observed"] == pytest.approx(0.001, abs=5e-4)
    assert found["slope"] == pytest.approx(-0.05, abs=0.02)
    log = (case.folder / "out" / "study" / "locomass.log").read_text()
    for text in (" ".join(done.stderr.split() + done.stdout.split()), log):
        assert "trait 'y': the prediction failed: its correlation with the trait is -0.038" in text
        for cause in ("sample labels", "genome build", "alleles", "LD reference", "another trait"):
            assert cause in text


def test_promise__was_the_variance_of_the_score_and_is_the_share_that_it_covers(case, ran):
    """The case's note promises w'Rw = 0.545; (w'b - pen)^2 / w'Rw of predictors.md is 0.702 since.

    w'Rw by definition: the variance of the score over all people of the array, in units of a trait of variance 1.
    """
    base = case.folder.parent / "base"
    bim = pd.read_csv(base / "array.bim", sep=r"\s+", header=None, names=["c", "id", "cm", "bp", "a1", "a2"])
    packed = np.frombuffer((base / "array.bed").read_bytes()[3:], np.uint8).reshape(len(bim), -1)
    codes = np.stack([packed >> (2 * k) & 3 for k in range(4)], axis=2).reshape(len(bim), -1)[:, :800]
    a1 = np.array([2.0, np.nan, 1.0, 0.0])[codes]
    a1 = np.where(np.isnan(a1), np.nanmean(a1, axis=1, keepdims=True), a1)
    weights = case.weights("study").reindex(bim["id"]).fillna(0.0).to_numpy()
    assert np.var(weights @ a1) == pytest.approx(0.545, abs=0.03)
    assert ran[1]["r2_promised"] == pytest.approx(0.702, abs=5e-3)
