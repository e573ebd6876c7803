"""Effective sample sizes: called so, from counts of cases and controls, or in agreement with the standard errors."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture(scope="module")
def case(open_case):
    return open_case("24-effective-sample-size")


@pytest.mark.parametrize("config", ["neff", "balanced"])
def test_effective_sizes__give_no_warning(case, config, caplog):
    found = case.predict(config, "cc")
    assert found["n_is_effective"] is True
    assert found["variants"] == 300
    assert "sample sizes" not in caplog.text


def test_subtraction__is_that_of_counts(case):
    w = {}
    for config in ("others", "subtract_counts", "subtract_neff"):
        case.predict(config, "cc")
        w[config] = case.weights(config, "cc")
    np.testing.assert_allclose(w["subtract_neff"], w["subtract_counts"], rtol=1e-4, atol=1e-6)
    assert np.corrcoef(w["subtract_neff"], w["others"][w["subtract_neff"].index])[0, 1] > 0.995


def test_half_of_it__is_doubled_or_called_so(case, caplog):
    text = (case.folder / "neff.tsv").read_text().replace("3333.33", "1666.67")
    (case.folder / "half.tsv").write_text(text)
    (case.folder / "named.tsv").write_text(text.replace("\tn\n", "\tNEFFDIV2\n", 1))
    config = (case.folder / "neff.yaml").read_text()
    full = case.predict("neff", "cc")
    for name in ("half", "named"):
        (case.folder / f"{name}.yaml").write_text(config.replace("neff.tsv", f"{name}.tsv"))
        found = case.predict(name, "cc")
        assert (found["n"], found["n_is_effective"]) == (pytest.approx(3333.34), True)
        assert found["r2_observed"] == pytest.approx(full["r2_observed"], rel=1e-4)
    assert "half.tsv: sample sizes are half of the effective ones" in caplog.text
    assert "named.tsv: sample sizes" not in caplog.text


def test_the_total__is_a_warning(case, caplog):
    (case.folder / "total.tsv").write_text((case.folder / "neff.tsv").read_text().replace("3333.33", "17543.8"))
    (case.folder / "total.yaml").write_text((case.folder / "neff.yaml").read_text().replace("neff.tsv", "total.tsv"))
    found = case.predict("total", "cc")
    assert found["n_is_effective"] is True
    assert found["r2_observed"] == pytest.approx(case.predict("neff", "cc")["r2_observed"], rel=0.02)
    assert "sample sizes look 5.3 times what the standard errors say" in caplog.text
