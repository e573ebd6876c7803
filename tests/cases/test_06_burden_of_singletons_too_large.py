"""Genes of singletons that cases alone carry: the whole count is calibrated, not each variant by itself."""

from __future__ import annotations

import pytest
from scipy.stats import binom, hypergeom


@pytest.fixture(scope="module")
def table(open_case):
    case = open_case("06-burden-of-singletons-too-large")
    return case.tests(case.run("c")).set_index(["gene", "test"])["p"]


@pytest.mark.parametrize("carriers", [2, 3, 5, 8, 12])
def test_all_carriers_are_cases(table, carriers):
    for test in ("burden", "skat", "skat-o", "acat-o"):
        p = table[f"K{carriers}", test]
        assert p == pytest.approx(0.5 * hypergeom(1000, 80, carriers).pmf(carriers), rel=0.05)
        assert 0.2 < p / 0.08**carriers < 5  # people who carry nothing are given: fewer cases are left for the carriers


def test_eight_of_forty(table):
    exact = binom.sf(8, 40, 0.08) + 0.5 * binom.pmf(8, 40, 0.08)
    for test in ("burden", "skat", "acat-o"):
        assert table["H40", test] == pytest.approx(exact, rel=0.15)
