"""Dominant burdens, CAST and burdens of a trait with few cases have their exact p-values."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import hypergeom

# 80 cases of 1,000 people; carriers of each gene, and how many of them are cases
GENES = {"K3": (3, 3), "K5": (5, 5), "H10": (10, 5), "N20": (20, 0)}


@pytest.fixture(scope="module")
def table(open_case):
    case = open_case("02-collapsed-tests-not-calibrated")
    return case.tests(case.run("c"))


@pytest.mark.parametrize("test", ["burden", "burden-dominant", "cast"])
def test_every_collapsed_row_is_near_the_exact_law(table, test):
    rows = table[table["test"] == test].set_index("gene")
    for gene, (carriers, cases) in GENES.items():
        law = hypergeom(1000, 80, carriers)
        mean, x = carriers * 0.08, np.arange(carriers + 1)
        size, p = abs(cases - mean), law.pmf(x)
        exact = p[np.abs(x - mean) > size + 1e-9].sum() + 0.5 * p[np.abs(np.abs(x - mean) - size) < 1e-9].sum()
        assert rows.loc[gene, "p"] == pytest.approx(exact, rel=0.05)
        assert rows.loc[gene, "method"] == "exact"
        assert rows.loc[gene, "note"] == ""


def test_rows_of_the_same_carriers_are_equal(table):
    p = table.pivot(index="gene", columns="test", values="p")
    np.testing.assert_allclose(p["burden-dominant"], p["burden"], rtol=1e-6)
    np.testing.assert_allclose(p["cast"], p["burden"], rtol=1e-6)
