"""PRS-CS weights are told by their shape, even if the first position is 1e+06."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module")
def case(open_case):
    return open_case("36-first-row-in-scientific-notation")


@pytest.mark.parametrize("config", ["later", "first"])
def test_prs_cs__whatever_the_first_row(case, config):
    found = case.predict(config)
    assert (found["format"], found["scored"]) == ("PRS-CS", 320)
    assert found["r2_observed"] == pytest.approx(0.296, abs=0.002)
