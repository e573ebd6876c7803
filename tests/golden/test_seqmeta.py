"""Two studies combined, against seqMeta 1.6.7 (data/README.md): burden, SKAT and single variants of trait y."""

import numpy as np
import pandas as pd
import pytest

from tests.golden.cohorts import DATA, read_results, relative

TESTS = {"names": ["burden", "skat"], "max_maf": [0.01, 0.05], "weights": ["flat", "beta_1_25"]}


@pytest.fixture(scope="module")
def combined(run_golden, run_golden_meta):
    folders = [run_golden(c, predictor={"method": "none"}) for c in ("cohort_a", "cohort_b")]
    return run_golden_meta([f / "bundle" for f in folders], tests=TESTS)


@pytest.mark.parametrize(
    ("theirs", "test", "weights", "tolerance"),
    [("burden", "burden", "flat", 1e-8), ("skat_beta_1_25", "skat", "beta_1_25", 1e-3)],
)
def test_gene_tests_agree(combined, theirs, test, weights, tolerance):
    expected = pd.read_csv(DATA / "expected" / "seqmeta_y.csv")
    expected = expected[expected["test"] == theirs].drop(columns=["trait", "test"])
    ours = read_results(combined).query("trait == 'y' and mask == 'M3' and test == @test and weights == @weights")
    joined = expected.merge(ours, on=["gene", "max_maf"], suffixes=("_r", ""))
    assert len(joined) == 24
    assert (joined["n_variants_r"] == joined["n_variants"]).all()
    assert relative(joined["p"], joined["p_r"]).max() < tolerance
    if test == "burden":
        assert relative(joined["beta"], joined["beta_r"]).max() < 1e-8
        assert relative(joined["se"], joined["se_r"]).max() < 1e-8


def test_single_variants_agree(combined):
    expected = pd.read_csv(DATA / "expected" / "seqmeta_single_y.csv")
    ours = pd.read_parquet(combined / "single_variants.parquet").query("trait == 'y'")
    ours["Name"] = ours["chromosome"] + ":" + ours["position"].astype(str) + ":" + ours["ref"] + ":" + ours["alt"]
    joined = expected.merge(ours, on="Name", suffixes=("_r", ""))
    assert len(joined) == 770
    lost = expected[~expected["Name"].isin(joined["Name"])]
    assert (lost["maf"] == 0).all()
    assert relative(joined["p"], joined["p_r"]).max() < 1e-9
    assert relative(joined["beta"], joined["beta_r"]).max() < 1e-9
    # seqMeta averages study frequencies weighted by samples; AC / AN differs where calls are missing
    minor = np.minimum(joined["alt_frequency"], 1 - joined["alt_frequency"])
    assert relative(minor, joined["maf_r"] if "maf_r" in joined else joined["maf"]).max() < 2e-3
