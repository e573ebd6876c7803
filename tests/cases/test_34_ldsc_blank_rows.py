"""Rows of an LDSC file that hold a name only are no bad rows."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module")
def case(open_case):
    return open_case("34-ldsc-blank-rows")


def test_rows_with_a_name_only__are_counted_apart(case):
    found = case.predict("study")
    assert found["rows"] == 320
    assert found["rows_dropped"] == {"no value in the row": 400}
    assert found["variants"] == 300
    assert found["r2_observed"] == pytest.approx(0.371, abs=0.002)
