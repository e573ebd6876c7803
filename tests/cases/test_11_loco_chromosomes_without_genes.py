"""Only chromosomes of genes need a row in a .loco file."""

from __future__ import annotations

import pytest

from locomass.errors import MatchError


def test_chromosomes_without_genes__need_no_prediction(open_case):
    case = open_case("11-loco-chromosomes-without-genes")
    table = case.tests(case.run("c"))
    assert table.loc[table["test"] == "burden", "p"].iloc[0] == pytest.approx(0.4716723, rel=1e-5)


def test_a_chromosome_with_genes__does(open_case):
    case = open_case("11-loco-chromosomes-without-genes")
    path = case.folder / "to23.loco"
    path.write_text("".join(line for line in path.read_text().splitlines(keepends=True) if line.split()[0] != "1"))
    with pytest.raises(MatchError, match=r"no row for chromosome 1; it has 2"):
        case.run("c")
