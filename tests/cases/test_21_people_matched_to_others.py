"""People of pedigrees, whose IIDs are not distinct, are never matched by IID alone."""

from __future__ import annotations

import pytest

from locomass.errors import MatchError


def test_families_that_are_spelled_otherwise__match_nobody(open_case):
    case = open_case("21-people-matched-to-others")
    with pytest.raises(MatchError, match=r"no sample of .*array\.bed is in the \.fam .* spell families alike in both"):
        case.predict("study")


def test_families_that_are_spelled_alike__are_matched_as_pairs(open_case):
    case = open_case("21-people-matched-to-others")
    rows = [line.split() for line in (case.folder / "array.fam").read_text().splitlines()]
    (case.folder / "array.fam").write_text("".join(" ".join([f"FAM{int(r[0]):03d}", *r[1:]]) + "\n" for r in rows))
    assert case.predict("study")["r2_observed"] == pytest.approx(0.371, abs=0.002)
