"""Statistics of Z and n alone give the weights of the file with effects: they are per sd of the genotype."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture(scope="module")
def case(open_case):
    return open_case("20-z-scores-only")


def test_weights__are_those_of_the_file_with_effects(case):
    clean, ldsc = (case.predict(name) for name in ("clean", "ldsc"))
    assert clean["variants"] == ldsc["variants"] == 300
    assert ldsc["quality_dropped"] == dict.fromkeys(ldsc["quality_dropped"], 0)
    assert ldsc["r2_observed"] == pytest.approx(0.371, abs=0.002)
    assert ldsc["slope"] == pytest.approx(clean["slope"], rel=0.07)
    w = {name: case.weights(name) for name in ("clean", "ldsc")}
    assert np.corrcoef(w["clean"], w["ldsc"][w["clean"].index])[0, 1] > 0.995
