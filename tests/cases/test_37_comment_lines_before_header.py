"""Comment lines with one #, and quoted fields, as R and curators write them."""

from __future__ import annotations

import numpy as np
import pytest

from locomass.tables.summary_statistics import read_summary_statistics
from locomass.tables.weights import read_weights


@pytest.fixture(scope="module")
def case(open_case):
    return open_case("37-comment-lines-before-header")


@pytest.mark.parametrize("config", ["comment", "quoted"])
def test_statistics__read_as_the_plain_file(case, config):
    found = case.predict(config)
    assert found["variants"] == 300
    assert found["r2_observed"] == pytest.approx(0.371, abs=0.002)


def test_row_names_of_r__and_a_header_behind_comments(tmp_path):
    (tmp_path / "g.txt").write_text('# made by R\n#\n"SNP" "A1" "A2" "Z" "N"\n"1" "rs1" "A" "G" 2 100\n')
    found = read_summary_statistics(tmp_path / "g.txt")
    assert (found.id[0], found.effect_allele[0], found.beta[0]) == ("rs1", "A", 0.2)


def test_weights__quoted_ratios_and_chromosome_1_0(tmp_path):
    lines = ["#pgs_id=PGS1", "#weight_type=OR", "chr_name\tchr_position\teffect_allele\tother_allele\teffect_weight"]
    (tmp_path / "w.txt").write_text("\n".join([*lines, '1.0\t1e+06\t"A"\t"G"\t1.5', '1.0\t7\t"C"\t"G"\t0\n', ""]))
    found = read_weights(tmp_path / "w.txt")
    assert (found.chromosome[0], found.position[0], found.effect_allele[0]) == ("1", 1_000_000, "A")
    np.testing.assert_allclose(found.weights, [[np.log(1.5)]])
    assert found.dropped == {"ratio is not positive": 1}
