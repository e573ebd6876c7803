"""Burden, SKAT and SKAT-O against R SKAT 2.2.5 on cohort A (data/README.md: commands and versions).

R's tail is Davies' method, accurate to about 1e-6 absolute, and falls back to Liu's approximation when Davies fails; it
reports p = 1 then, or (two variants of GENE2B with the binary trait) a value 0.3 % off. Those rows are held against
direct integration instead.
"""

import numpy as np
import pandas as pd
import pytest
from scipy.integrate import quad
from scipy.stats import chi2

from locomass.bundle.study import Bundle
from tests.golden.cohorts import DATA, read_results, relative
from tests.reference_golden import chi2_mixture_sf, mixture, weigh_row

KEYS = ["gene", "trait", "mask", "max_maf", "weights", "test"]
TESTS = {
    "names": ["burden", "skat", "skat-o-published"],
    "null_law": "normal",  # as R's
    "max_maf": [0.01, 0.05, 0.5],
    "weights": ["flat", "beta_1_25"],
}


@pytest.fixture(scope="module")
def expected() -> pd.DataFrame:
    table = pd.read_csv(DATA / "expected" / "skat_cohort_a.csv")
    table["weights"] = table["weights"].replace({"beta": "beta_1_25"})
    table["test"] = table["test"].map({"Burden": "burden", "SKAT": "skat", "SKATO": "skat-o-published"})
    return table


def compare(expected: pd.DataFrame, folder, loco: str) -> pd.DataFrame:
    ours = read_results(folder)
    joined = expected[expected["loco"] == loco].merge(ours, on=KEYS, how="left", suffixes=("_r", ""))
    assert joined["p"].notna().all()
    assert (joined["n_variants_r"] == joined["n_variants"]).all()
    joined["error"] = relative(joined["p"], joined["p_r"])
    return joined


@pytest.mark.parametrize("loco", ["none", "loco"])
def test_burden_and_skat_agree_with_r(run_golden, expected, loco):
    changes = {"tests": TESTS} if loco == "loco" else {"tests": TESTS, "predictor": {"method": "none"}}
    joined = compare(expected, run_golden("cohort_a", **changes), loco)
    burden = joined[joined["test"] == "burden"]
    assert len(burden) == (432 if loco == "none" else 216)
    assert burden["error"].max() < 1e-7  # asked: 1e-5
    # no row of a variance component lies where R's tail gives way; for ours there, see test_mixture.py
    assert joined.loc[joined["test"] != "burden", "p_r"].min() > 1e-5
    skat = joined[(joined["test"] == "skat") & (joined["p_r"] < 1) & (joined["p_r"] > 1e-5)]
    fallback = (skat["gene"] == "GENE2B") & (skat["mask"] == "M1") & (skat["trait"] == "cc")
    assert len(skat) > 200
    assert skat.loc[~fallback, "error"].max() < 1e-5  # asked: 1e-3


def test_rows_where_r_falls_back_equal_direct_integration(run_golden):
    """P(a X + b Y > Q) for two variants, by conditioning on X."""
    folder = run_golden("cohort_a", tests=TESTS, predictor={"method": "none"})
    bundle = Bundle(folder / "bundle")
    gene = bundle.read_genes(["GENE2B"])["GENE2B"]
    annotations = pd.read_csv(DATA / "annotations.txt", sep=" ", header=None, names=["variant", "gene", "category"])
    lof = set(annotations.query("gene == 'GENE2B' and category == 'LoF'")["variant"].str.split(":").str[1].astype(int))
    K = bundle.information(gene, "cc")
    chosen = [j for j, position in enumerate(gene.position) if position in lof and K[j, j] > 0]
    assert len(chosen) == 2
    U = gene.U[chosen, bundle.traits["cc"]["index"]]
    a, b = np.linalg.eigvalsh(K[np.ix_(chosen, chosen)])
    Q = float(U @ U)

    def given(z: float) -> float:
        return 2 * np.exp(-z * z / 2) / np.sqrt(2 * np.pi) * chi2.sf(max(Q - a * z * z, 0) / b, 1)

    exact = quad(given, 0, 12, points=[np.sqrt(Q / a)], limit=500)[0]
    ours = read_results(folder).query(
        "gene == 'GENE2B' and trait == 'cc' and mask == 'M1' and test == 'skat' and weights == 'flat'"
    )
    assert relative(ours["p"], pd.Series([exact] * len(ours))).max() < 1e-7


@pytest.mark.parametrize("loco", ["none", "loco"])
def test_rows_where_r_says_one_equal_their_definition(run_golden, expected, loco):
    """Three variants of GENE2C: R's tail fails, and so does its approximation; the definition gives 0.95 to 0.98."""
    changes = {"tests": TESTS} if loco == "loco" else {"tests": TESTS, "predictor": {"method": "none"}}
    joined = compare(expected, run_golden("cohort_a", **changes), loco)
    ones = joined[(joined["test"] == "skat") & (joined["p_r"] == 1)]
    assert len(ones) == 6
    for row in ones.itertuples():
        u, A = weigh_row(row)
        assert row.p == pytest.approx(chi2_mixture_sf(u @ u, mixture(A, 0.0), 1_000_000)[0], rel=1e-6)
        assert row.p < 0.99
