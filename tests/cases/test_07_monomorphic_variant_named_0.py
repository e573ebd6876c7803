"""Two variants that nobody of a study carries count alike, whether .bim names the unseen allele or writes 0."""

from __future__ import annotations

import pytest

from locomass.commands.meta import run_meta_analysis
from locomass.commands.outcome import Resources


@pytest.fixture(scope="module")
def case(open_case):
    return open_case("07-monomorphic-variant-named-0")


@pytest.mark.parametrize("b", ["B_named", "B_zero"])
def test_meta_analysis__counts_people_without_the_allele(case, b):
    bundles = [case.run(name, "score-statistics") / "bundle" for name in ("A_named", b)]
    out = run_meta_analysis(case.folder / "meta.yaml", bundles, case.folder / "out" / b, Resources(threads=1), "meta")
    table = case.tests(out.path)
    table = table[table["max_maf"] == 0.01].set_index("test")
    assert table["n_variants"].tolist() == [6, 6]
    # the pooled analysis
    assert table.loc["burden", "p"] == pytest.approx(0.76763, rel=1e-4)
    assert table.loc["skat", "p"] == pytest.approx(0.75222, rel=1e-4)
