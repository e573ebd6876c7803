"""Odds ratios in a column called beta are told by their distribution."""

from __future__ import annotations

import numpy as np
import pytest

from locomass.tables.summary_statistics import read_summary_statistics


@pytest.fixture(scope="module")
def case(open_case):
    return open_case("28-odds-ratio-in-beta")


def test_odds_ratios__are_taken_as_such(case, caplog):
    right, gwas = (case.predict(name, "cc") for name in ("right", "gwas"))
    assert gwas["r2_observed"] == pytest.approx(right["r2_observed"], rel=1e-3)
    assert "column beta: effects are all positive around 1: they are taken as odds ratios" in caplog.text
    assert "taken as" not in "".join(m for m in caplog.messages if "right.tsv" in m)


def test_log_odds__in_a_column_of_ratios(case, caplog):
    text = (case.folder / "right.tsv").read_text().replace("beta", "odds_ratio", 1)
    (case.folder / "logs.tsv").write_text(text)
    (case.folder / "logs.yaml").write_text((case.folder / "right.yaml").read_text().replace("right.tsv", "logs.tsv"))
    assert case.predict("logs", "cc")["r2_observed"] == pytest.approx(case.predict("right", "cc")["r2_observed"])
    assert "odds ratios are of both signs around 0" in caplog.text


def test_effects_of_the_risk_allele__stay_effects(tmp_path):
    """All positive with median 1, but of the size of their errors."""
    rng = np.random.default_rng(1)
    effect = np.abs(1.5 * rng.standard_normal(200))
    rows = [f"1\t{k + 1}\tA\tG\t{b / np.median(effect):.6f}\t1.5\t500" for k, b in enumerate(effect)]
    header = "chromosome\tbase_pair_location\teffect_allele\tother_allele\tbeta\tstandard_error\tn"
    (tmp_path / "g.tsv").write_text("\n".join([header, *rows]) + "\n")
    found = read_summary_statistics(tmp_path / "g.tsv")
    np.testing.assert_allclose(found.beta, effect / np.median(effect), atol=1e-6)
    assert found.messages == ()
