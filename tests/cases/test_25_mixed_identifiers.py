"""Each row is matched by what it has: rsIDs and names like 1:123:A:G in one column."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module")
def case(open_case):
    return open_case("25-mixed-identifiers")


@pytest.mark.parametrize(
    ("config", "variants", "r2"), [("tenth", 300, 0.371), ("two_fifths", 300, 0.371), ("weights", 320, 0.296)]
)
def test_every_row__is_matched(case, config, variants, r2):
    found = case.predict(config)
    assert found["scored" if config == "weights" else "variants"] == variants
    assert found["r2_observed"] == pytest.approx(r2, abs=0.002)
