"""The studies of docs/studies.md on meta-analysis and mixed models: small subsets, with what must come out of them."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from click.testing import CliRunner
from scipy.stats import norm

from locomass import power
from locomass.cli import cli
from studies import meta_borders as borders
from studies import meta_equals_joint as meta
from studies import meta_joint as joint
from studies import mixed_ascertained as ascertained
from studies import mixed_designs as designs_study
from studies import mixed_models as mixed
from studies import mixed_sequencing as sequencing
from studies import mixed_world as world
from studies.shared import bootstrap_ratio, run_units, wilson, write_section


@pytest.fixture(scope="module")
def equality():
    return meta.as_table({"equality 1": meta.compare("equality 1", joint.SUBSET)})


def test_meta_analysis__equals_the_joint_analysis_in_every_test(equality):
    s = joint.SUBSET
    rows = meta.summarise_equality(equality)
    assert {(r["trait"], r["test"]) for r in rows} == {(t, name) for t in joint.TRAITS for name in joint.TESTS}
    for r in rows:
        per_gene = 1 if r["test"] == "step-up" else len(joint.WEIGHTS)
        assert r["rows"] == len(s.cohorts) * s.genes * per_gene
        assert r["missing"] == 0
        assert r["log10p"] < 1e-8
        if r["test"] != "skat-o-published":
            assert r["statistic"] < 1e-9
        if r["test"] in ("burden", "skat", "skat-o-published"):
            assert r["definition"] < 1e-6
    assert equality["log10p"].max() > 1.5


def test_meta_analysis__differs_when_a_study_is_changed(equality):
    settings = dataclasses.replace(joint.SUBSET, definitions=0, draws=9)
    rng = np.random.default_rng([1, 1])
    studies = meta.simulate(rng, settings)
    changed = [studies[0], joint.Study(studies[1].G, studies[1].X, studies[1].y[::-1]), *studies[2:]]
    own = meta.joint_rows(studies, settings, np.random.default_rng(0))
    other = meta.joint_rows(changed, settings, np.random.default_rng(0))
    apart = [abs(a["joint_log10p"] - b["joint_log10p"]) for a, b in zip(own, other, strict=True)]
    assert np.median(apart) > 0.01


def test_step_up__agrees_with_permutations_of_the_pooled_residuals(equality):
    for r in meta.summarise_permutations(equality, joint.SUBSET.draws).values():
        assert r["rows"] >= 3
        assert abs(r["mean"]) < 1.5
        assert r["within"] > 0.6


def test_borders__one_intercept_confounds_and_own_effects_do_not():
    units = [f"frequencies differ too #{r}" for r in (1, 2, 3)]
    parts = [borders.run_border(u, joint.SUBSET) for u in units]
    chi = {m: np.array([norm.isf(10.0 ** -np.array(r[m])[:, 0] / 2) ** 2 for r in parts]).mean() for m in borders.MODES}
    assert chi["one intercept"] > 2 > chi["meta"] > 0.4
    assert parts[0]["lost"] == 0


def test_borders__a_single_sigma2_moves_p_values_when_studies_differ_in_spread():
    apart = {
        name: np.median(np.abs(np.array(r["one sigma2"]) - np.array(r["meta"])))
        for name in ("residual sd the same in all studies", "residual sd 0.5 to 2")
        for r in [borders.run_border(f"{name} #1", joint.SUBSET)]
    }
    assert 0 < 3 * apart["residual sd the same in all studies"] < apart["residual sd 0.5 to 2"]


def test_run_units__goes_on_where_it_stopped(tmp_path):
    calls = []

    def compute(unit):
        calls.append(unit)
        return {"value": len(unit)}

    path = tmp_path / "checkpoint.jsonl"
    run_units(["a", "bb"], compute, path, {"seed": 1})
    path.write_bytes(path.read_bytes() + b'{"settings": "cut sho')
    found = run_units(["a", "bb", "ccc"], compute, path, {"seed": 1})
    assert calls == ["a", "bb", "ccc"]
    assert [found[u]["value"] for u in ("a", "bb", "ccc")] == [1, 2, 3]
    assert json.loads(path.read_text().splitlines()[-1])["unit"] == "ccc"
    run_units(["a"], compute, path, {"seed": 2})
    assert calls == ["a", "bb", "ccc", "a"]


def test_intervals_and_sections(tmp_path):
    low, high = wilson(0, 100)
    assert low == pytest.approx(0, abs=1e-12)
    assert high == pytest.approx(0.0370, abs=1e-4)
    above, below = np.array([2.0, 4.0, 6.0]), np.array([1.0, 2.0, 3.0])
    assert bootstrap_ratio(above, below, 1) == pytest.approx((2, 2, 2))
    page = tmp_path / "page.md"
    page.write_text("top\n<!-- x: begin -->\nold\n<!-- x: end -->\nbottom\n")
    write_section(page, "x", ["new"])
    assert page.read_text() == "top\n<!-- x: begin -->\n\nnew\n\n<!-- x: end -->\nbottom\n"


@pytest.fixture(scope="module")
def designs():
    found = {"designs 10 #1": designs_study.run_designs("designs 10 #1", world.SUBSET)}
    return found, {r["design"]: r for r in designs_study.summarise_designs(found, world.SUBSET)}


def test_designs__come_in_the_order_of_the_paper(designs):
    found, rows = designs
    gain = {name: r["gain"][0] for name, r in rows.items()}
    assert gain["linear"] == 1
    assert 1.02 < gain["per cohort, exact"] < gain["summary, earlier"] - 0.1
    assert gain["summary, same people"] < gain["pooled, exact"]
    assert gain["pooled"] < gain["pooled, exact"]
    ratios = {(r["below"], r["above"]): r["ratio"] for r in designs_study.compare_designs(found, world.SUBSET)}
    assert ratios["per cohort, exact", "summary, earlier"][1] > 1
    assert ratios["linear", "per cohort, exact"][1] > 1


def test_designs__agree_with_the_formula_and_are_calibrated(designs):
    _, rows = designs
    for name in ("linear", "per cohort, exact", "summary, earlier", "pooled, exact"):
        assert rows[name]["gain"][0] == pytest.approx(rows[name]["formula gain"], rel=0.12)
    # 100 null variants x 10 traits: the standard error of the mean chi2 is 0.045
    assert all(abs(rows[name]["null"][0] - 1) < 0.15 for name in designs_study.FORMULA)


def test_designs__lose_tagged_variants_when_their_chromosome_stays_in(designs):
    _, rows = designs
    assert rows["earlier, chromosome left in"]["tagged gain"][0] < rows["summary, earlier"]["tagged gain"][0] - 0.3
    assert rows["earlier, chromosome left in"]["gain"][0] > 1.2


@pytest.mark.ci
def test_sequencing__gains_power_and_keeps_the_null():
    found = {"sequencing #1": sequencing.run_sequencing("sequencing #1", world.SUBSET)}
    summary = sequencing.summarise_sequencing(found)
    null = {r["predictor"]: r for r in summary["null"]}
    assert 0 < null["in-sample"]["r2"] < null["external"]["r2"]
    assert null["external"]["gain"][0] > 1.15
    assert null["combined"]["gain"][0] > null["in-sample"]["gain"][0] > 1
    for r in null.values():
        assert all(0.01 < r[t] < 0.11 for t in sequencing.GENE_TESTS)
    power_of = {(r["genes"], r["test"], r["alpha"], r["predictor"]): r for r in summary["power"]}
    for test in sequencing.GENE_TESTS:
        plain, better = (
            sum(power_of[g, test, a, k]["power"] for g in sequencing.GENES[:2] for a in sequencing.ALPHAS)
            for k in ("none", "external")
        )
        assert better > plain
    row = power_of["one direction", "burden", 1e-4, "external"]
    assert row["expected"] == pytest.approx(row["power"], abs=0.25)


def test_ascertained__is_calibrated_and_covers_every_model():
    found = {u: ascertained.run_ascertained(u, world.SUBSET) for u in ("ascertained 0.5 #1", "ascertained 0.01 #1")}
    rows = {(r["prevalence"], r["model"]): r for r in ascertained.summarise_ascertained(found, world.SUBSET)}
    assert set(rows) == {(p, m) for p in (0.5, 0.01) for m in ("none", *ascertained.MODELS)}
    # 30 causal tests: the gain has a standard error near 0.15
    assert all(0.5 < r["gain"][0] < 1.6 for r in rows.values())
    assert all(rows[p, "external, logistic"]["gain"][0] != 1 for p in (0.5, 0.01))
    assert all(0.4 < r["null"][0] < 1.9 for r in rows.values())  # 60 null tests: standard error 0.18


def test_exact_mixed_model__has_the_residual_of_the_inverse_variance():
    rng = np.random.default_rng(4)
    seen = world.seen_by_predictors(1)
    G = rng.standard_normal((60, len(seen))).astype(np.float32)
    y = rng.standard_normal((60, 2))
    for n in (60,):
        loco = world.predict_exact(G[:n], y[:n], seen, 0.5)
        columns = np.concatenate(world.chromosome_columns(seen)[1:])
        Z = G[:n, columns].astype(np.float64)
        share = 0.5 * 9 / 10
        Sigma = share / len(columns) * Z @ Z.T + (1 - share) * np.eye(n)
        centred = y[:n] - y[:n].mean(axis=0)
        np.testing.assert_allclose(centred - loco[0], (1 - share) * np.linalg.solve(Sigma, centred), atol=1e-4)


def test_published_gains__follow_from_r2():
    text = "\n".join(mixed.published_lines())
    assert "| 15.6 % |" in text
    assert "| 7.0 % |" in text


def test_power_command__plots_and_repeats_cohorts(tmp_path):
    plot = tmp_path / "p.svg"
    options = ["power", "--n", "1000", "--n", "3000", "--cohorts", "2", "--b2", "0.001"]
    result = CliRunner().invoke(cli, [*options, "--plot", str(plot)])
    assert result.exit_code == 0, result.output
    row = power.power_table([1000, 3000, 1000, 3000], 0.001, h2=0.5, m_effective=60_000, alpha=2.5e-6)[1]
    assert f" {row.n_effective:.1f} " in result.output
    text = plot.read_text()
    assert text.startswith("<?xml")
    assert all(name in text for name in ("mixed meta", "mixed pooled", "effective N / N"))
    wrong = CliRunner().invoke(cli, [*options, "--plot", "p.txt"])
    assert wrong.exit_code == 2
    assert ".svg, .png or .pdf" in wrong.output


def test_grow_consortium__adds_one_cohort_at_a_time():
    tables = power.grow_consortium([1000, 500, 2000], 1e-3, h2=0.5, m_effective=1000)
    assert [rows[0].n for rows in tables] == [1000, 1500, 3500]
    assert tables[1] == power.power_table([1000, 500], 1e-3, h2=0.5, m_effective=1000)
    assert tables[0][1].ncp == pytest.approx(tables[0][3].ncp)  # one cohort: meta is pooled
