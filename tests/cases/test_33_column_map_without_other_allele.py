"""Without a column of the other allele, it is the reference's second one, or what the name says."""

from __future__ import annotations

import pytest

from locomass.tables.summary_statistics import read_summary_statistics


@pytest.fixture(scope="module")
def case(open_case):
    return open_case("33-column-map-without-other-allele")


def test_the_other_allele__is_the_second_one_of_the_reference(case):
    found = case.predict("study")
    assert found["variants"] == 300
    assert found["r2_observed"] == pytest.approx(0.371, abs=0.002)


def test_the_other_allele__in_a_name(tmp_path):
    (tmp_path / "g.txt").write_text("ID A1 B S N\n1:5:A:G G 0.1 0.1 10\n1:6:A:C A 0.1 0.1 10\nrs1 T 0.1 0.1 10\n")
    columns = {"id": "ID", "effect_allele": "A1", "beta": "B", "se": "S", "n": "N"}
    found = read_summary_statistics(tmp_path / "g.txt", columns=columns)
    assert found.other_allele.tolist() == ["A", "C", ""]
    assert found.position.tolist() == [5, 6, 0]
