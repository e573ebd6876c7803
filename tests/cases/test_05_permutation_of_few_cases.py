"""Searches by permutation of a trait with six cases: the chance that the carriers of a set are among them, exactly."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy.stats import hypergeom

from locomass.commands.run import Resources, run_study
from tests.factories import write_fileset

N, CASES = 150, 6
SEARCHES = ["step-up", "all-maf", "subsets", "cut-off"]


@pytest.fixture(scope="module", params=["plain", "with a covariate"])
def table(tmp_path_factory, request):
    """Gene ONE: a singleton case. Gene THREE: three variants of a case and a control, two cases and no one else."""
    folder = tmp_path_factory.mktemp("case05")
    calls = np.zeros((4, N), np.int64)
    calls[0, 3] = 1
    calls[1, [0, 80]] = calls[2, [1, 90]] = 1
    calls[3, 2] = 1
    variants = [("15", 100 + 10 * j, f"15:{100 + 10 * j}:C:T", "T", "C") for j in range(4)]
    samples = [(f"p{i:04d}", f"p{i:04d}") for i in range(N)]
    write_fileset(folder / "c", calls, variants, samples)
    rows = [f"{f} {i} {int(k < CASES)}" for k, (f, i) in enumerate(samples)]
    (folder / "ph.tsv").write_text("\n".join(["FID IID few", *rows]) + "\n")
    (folder / "sets.txt").write_text("ONE 15 100 15:100:C:T\nTHREE 15 110 15:110:C:T,15:120:C:T,15:130:C:T\n")
    config = {
        "study": "s",
        "genotypes": "c.bed",
        "phenotypes": {"file": "ph.tsv", "binary": ["few"]},
        "genes": {"sets": "sets.txt"},
        "tests": {
            "names": ["burden"],
            "max_maf": [0.05],
            "weights": ["flat"],
            "step_up": {"permutations": 8000, "exceedances": 8000},
        },
        "permutation": {"tests": SEARCHES},
    }
    if request.param != "plain":
        # as many of each among the cases: its slope is nought, and the probabilities are those of the plain fit
        x = [1 if k % 2 else -1 for k in range(N)]
        lines = [f"{f} {i} {value}" for (f, i), value in zip(samples, x, strict=True)]
        (folder / "covar.tsv").write_text("\n".join(["FID IID x", *lines]) + "\n")
        config["covariates"] = {"file": "covar.tsv"}
    (folder / "c.yaml").write_text(yaml.safe_dump(config))
    out = run_study(folder / "c.yaml", folder / "out", Resources(threads=1), "meta").path
    return pd.read_parquet(out / "permutation_tests.parquet").set_index(["gene", "test"])


@pytest.mark.parametrize("search", SEARCHES)
def test_a_singleton_case_has_the_share_of_cases(table, search):
    p = CASES / N
    assert table.loc[("ONE", search), "p"] == pytest.approx(p, abs=4 * np.sqrt(p * (1 - p) / 8000))


def test_a_set_of_carriers_has_the_hypergeometric_tail(table):
    p = hypergeom.sf(2, N, 5, CASES)  # three or more cases among the five carriers
    assert table.loc[("THREE", "cut-off"), "p"] == pytest.approx(p, abs=4 * np.sqrt(p * (1 - p) / 8000) + 2e-4)
