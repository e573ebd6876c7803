"""SKAT of 15 cases among 3,000 people whose carriers share variants: within a factor of the enumerated p."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module")
def table(open_case):
    case = open_case("04-skat-few-cases-shared-carriers")
    return case.tests(case.run("c")).set_index(["gene", "test"])


@pytest.mark.parametrize(("gene", "exact"), [("H5", 5.0e-7), ("D3", 1.85e-4)])
def test_skat_is_near_the_enumerated_p(table, gene, exact):
    row = table.loc[(gene, "skat")]
    assert exact / 4 < row["p"] < exact * 4
    assert row["method"] == "case-count splitting"


@pytest.mark.parametrize("gene", ["H5", "D3"])
def test_skat_o_is_within_eight_times_its_smallest_part(table, gene):
    row, parts = table.loc[(gene, "skat-o")], [table.loc[(gene, test), "p"] for test in ("skat", "burden")]
    assert min(parts) <= row["p"] * (1 + row["p_error"])
    assert row["p"] <= 8 * min(parts) * (1 + row["p_error"])
