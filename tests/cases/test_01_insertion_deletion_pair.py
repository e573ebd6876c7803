"""The insertion 4:5210 G>GGA of one study and the deletion GGA>G of another are two variants."""

from __future__ import annotations

import pytest

from locomass.commands.meta import run_meta_analysis
from locomass.commands.outcome import Resources


@pytest.fixture(scope="module")
def case(open_case):
    return open_case("01-insertion-deletion-pair")


def test_meta_analysis__has_four_variants(case):
    bundles = [case.run(name, "score-statistics") / "bundle" for name in ("north", "south")]
    out = run_meta_analysis(case.folder / "meta.yaml", bundles, case.folder / "out/meta", Resources(threads=1), "meta")
    table = case.tests(out.path).set_index("test")
    assert table["n_variants"].tolist() == [4, 4]
    # U and V of the two studies from their definition, summed; Imhof
    assert table.loc["burden", "p"] == pytest.approx(8.556e-5, rel=1e-4)
    assert table.loc["skat", "p"] == pytest.approx(6.362e-7, rel=1e-4)


def test_one_study_on_the_common_list__lacks_the_deletion(case):
    alone, both = (case.tests(case.run(name)).set_index("test") for name in ("north", "north_both"))
    assert both["n_variants"].tolist() == [3, 3]
    assert both["p"].tolist() == pytest.approx(alone["p"].tolist(), rel=1e-12)
