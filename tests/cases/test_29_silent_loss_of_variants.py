"""What costs variants is said: MAF for the frequency of the effect allele, and p = 0."""

from __future__ import annotations

import numpy as np
import pytest

from locomass.tables.summary_statistics import read_summary_statistics


@pytest.fixture(scope="module")
def case(open_case):
    return open_case("29-silent-loss-of-variants")


def test_minor_allele_frequencies__cost_nothing(case, caplog):
    found = case.predict("maf")
    assert found["variants"] == 300
    assert found["r2_observed"] == pytest.approx(0.371, abs=0.002)
    assert "no frequency is above 0.5" in caplog.text


def test_p_of_zero__names_the_strongest(case, caplog):
    assert case.predict("p_zero")["variants"] == 285
    assert "15 rows are left out, the strongest ones: p is 0 and there is no standard error" in caplog.text


def test_p_of_zero__with_a_standard_error_or_z_is_kept(case):
    head, *rows = (case.folder / "p_zero.tsv").read_text().splitlines()
    for name, value in (("standard_error", lambda b: "0.02"), ("z_score", lambda b: f"{b / 0.02:.6f}")):
        at = head.split("\t").index("beta")
        lines = [f"{head}\t{name}", *(f"{row}\t{value(float(row.split(chr(9))[at]))}" for row in rows)]
        (case.folder / "more.tsv").write_text("\n".join(lines) + "\n")
        found = read_summary_statistics(case.folder / "more.tsv")
        assert (len(found), found.messages) == (320, ())
        np.testing.assert_allclose(found.se, 0.02, rtol=1e-3)
