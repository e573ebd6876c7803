"""A chain file lifts the weights that are on another build, and no others."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module")
def case(open_case):
    return open_case("35-chain-on-one-of-two-builds")


def test_weights_on_the_build_of_the_study__are_left_where_they_are(case):
    assert case.predict("one")["scored"] == 320
    assert [case.predict("both", trait)["scored"] for trait in ("y", "cc")] == [320, 320]
