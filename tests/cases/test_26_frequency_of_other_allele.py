"""A frequency column of the other allele: both causes are named, and no advice inverts the weights."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module")
def case(open_case):
    return open_case("26-frequency-of-other-allele")


def test_warning__names_both_causes(case, caplog):
    found = case.predict("given")
    assert found["variants"] == 300
    assert found["slope"] == pytest.approx(0.97, abs=0.03)
    assert "either the frequency column counts the other allele (effects are right), or effect allele" in caplog.text
    assert "below 0 the alleles" in caplog.text
