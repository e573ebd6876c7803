"""The study of rare-variant groupings: its subset, what it draws, its checkpoint and its verdicts."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from locomass.errors import ConfigError, InputError
from locomass.gene_tests.groupings import Search
from locomass.gene_tests.permutation import CarrierGenotypes, search_individuals
from locomass.gene_tests.permutation_trait import IndividualTrait
from locomass.gene_tests.resampling import Resampling
from locomass.simulate.pool import draw_cases, draw_people, simulate_haplotype_pool
from studies.grouping import report
from studies.grouping.design import EFFECTS, SCENARIOS, TRAITS, Unit, draw_effects, draw_sample, list_units, make_pools
from studies.grouping.models import MODELS, REGISTRY, SEARCHES, collect_carriers, decide, list_walks, summarise
from studies.grouping.run import Settings, read_checkpoint, run_unit, run_units
from studies.grouping.subset import MODELS as FEW
from studies.grouping.subset import SETTINGS, check_subset, run_subset
from studies.grouping.summary import PAPER, Difference, Rates, judge
from studies.grouping.variance import check_variance

TINY = replace(SETTINGS, sizes=(10,), permutations=40, people=400, models=("CMC", "burden"))


@pytest.fixture(scope="module")
def pool():
    return make_pools(3, "built-in", (24,))[0]


@pytest.mark.ci
def test_subset_of_the_study_holds(tmp_path):
    checks = list(check_subset(run_subset(tmp_path / "subset.jsonl")))
    assert len(checks) == 2 * len(FEW) + 6
    assert [what for what, holds in checks if not holds] == []


@pytest.mark.ci
def test_the_empirical_variance_loses_power_to_singletons():
    checks = list(check_variance())
    assert len(checks) == 4
    assert [what for what, holds in checks if not holds] == []


def step_up_of(variants, variance, n=2000):
    """z2, the chosen variants and the variance of all residuals; ``variants`` are the residuals of their carriers."""
    residuals = np.concatenate(variants)
    k = len(residuals)
    rest = np.where(np.arange(n - k) % 2 == 0, 1.0, -1.0) - residuals.sum() / (n - k)
    e = np.concatenate((residuals, rest))
    indptr = np.concatenate(([0], np.cumsum([len(v) for v in variants])))
    search = Search("s", None, variance=variance)
    carriers = CarrierGenotypes(indptr, np.arange(k), np.ones(k), n)
    found = search_individuals(carriers, IndividualTrait(e), [search], Resampling(1, 1, tail=False))["s"]
    return float(found.statistic[0]), found.detail.chosen[0].tolist(), float(e.var())


@pytest.mark.parametrize("r", [0.5, 2.0, 5.0])
@pytest.mark.parametrize("k", [1, 4])
def test_carriers_of_equal_residuals_have_the_statistics_of_the_page(k, r):
    """k with the empirical variance, k r^2 with the model variance, r in standard deviations, up to the centring."""
    singletons = [np.array([r])] * k
    assert step_up_of(singletons, "empirical")[0] == pytest.approx(k, rel=0.02)
    z2, _, variance = step_up_of(singletons, "model")
    assert z2 == pytest.approx(k * r**2 / variance, rel=0.02)


def test_step_up_refuses_residuals_beyond_the_bound_of_the_page():
    """A further singleton raises z2 below t = 2 z2/(z2 - 1) sum T^2 / sum T only."""
    four = np.array([1.0, 1.1, 0.9, 1.0])
    z2 = four.sum() ** 2 / (four**2).sum()
    bound = 2 * z2 / (z2 - 1) * (four**2).sum() / four.sum()
    for t, inside in ((0.97 * bound, True), (1.03 * bound, False)):
        assert step_up_of([four, np.array([t])], "empirical")[1] == [True, inside]
    assert step_up_of([four, np.array([1.03 * bound])], "model")[1] == [True, True]


@pytest.mark.parametrize("engine", ["built-in", "msprime"])
def test_pools_have_minor_alleles_of_every_frequency(engine):
    if engine == "msprime":
        pytest.importorskip("msprime")
    pools = make_pools(1, engine, (10, 40))
    again = make_pools(1, engine, (10, 40))
    for pool, same, size in zip(pools, again, (10, 40), strict=True):
        q = pool.mean(axis=0)
        assert np.array_equal(pool, same)
        assert ((q > 0) & (q <= 0.5)).all()
        assert (q >= 0.05).sum() >= 2
        assert (q < 0.001).mean() > 0.3
        seen = [(draw_people(pool, 2000, np.random.default_rng(r)).any(axis=0)).sum() for r in range(30)]
        assert np.mean(seen) == pytest.approx(size, abs=0.1 * size + 1)


def test_pool__raises_on_bad_numbers():
    rng = np.random.default_rng(1)
    with pytest.raises(ConfigError, match="even number"):
        simulate_haplotype_pool(11, 4, rng=rng)
    with pytest.raises(ConfigError, match="engine 'cosi' is unknown"):
        simulate_haplotype_pool(10, 4, engine="cosi", rng=rng)


def test_cases_carry_risk_alleles_as_the_model_says(pool):
    """P(allele | case) = q e^b / (1 - q + q e^b) for a variant that alone has an effect."""
    q = pool.mean(axis=0)
    j = int(np.argmin(np.abs(q - 0.05)))
    log_risk = np.zeros(len(q))
    log_risk[j] = np.log(3.0)
    cases = draw_cases(pool, log_risk, 20_000, np.random.default_rng(1))
    expected = 3 * q[j] / (1 + 2 * q[j])
    assert cases[:, j].mean() / 2 == pytest.approx(expected, abs=4 * np.sqrt(expected / 40_000))
    people = draw_people(pool, 20_000, np.random.default_rng(2))
    assert people[:, j].mean() / 2 == pytest.approx(q[j], abs=4 * np.sqrt(q[j] / 40_000))


@pytest.mark.parametrize("name", list(SCENARIOS))
def test_effects_have_the_variance_and_the_shape_of_their_scenario(pool, name):
    scenario, q = SCENARIOS[name], pool.mean(axis=0)
    common = q >= 0.05
    for seed in range(5):
        beta, damaging = draw_effects(pool, scenario, 0.01, np.random.default_rng(seed))
        if scenario.common is None:
            assert not beta[~damaging | (q > scenario.max_maf)].any()
            assert 2 * np.var(pool @ beta) == pytest.approx(0.01 if beta.any() else 0, rel=1e-9)
            size = np.abs(beta[beta != 0]) * (np.sqrt(q * (1 - q))[beta != 0] if scenario.effect == "inverse-sd" else 1)
            assert np.ptp(size) <= 1e-9 * size.max(initial=1)
        else:
            assert (beta[common] != 0).any() if scenario.mixed else (beta[common] > 0).all()
            assert 2 * np.var(pool[:, common] @ beta[common]) == pytest.approx(scenario.common * 0.01, rel=1e-9)
        assert (beta < 0).any() <= (scenario.protective > 0 or scenario.mixed)


def test_samples_are_what_a_unit_asks_for(pool):
    scenario = SCENARIOS["4a"].accuracy
    agree = []
    for r in range(40):
        sample = draw_sample(pool, Unit("case-control", "4a", EFFECTS[1], r), np.random.default_rng(r))
        assert sample.case.sum() == 1000
        assert (sample.G.any(axis=0) & (sample.G.mean(axis=0) <= 1)).all()
        agree.append((sample.sift == sample.polyphen).mean())
    # conditionally independent calls agree with probability a^2 + (1 - a)^2
    assert np.mean(agree) == pytest.approx(scenario**2 + (1 - scenario) ** 2, abs=0.03)
    null = [draw_sample(pool, Unit("quantitative", "1", 0.0, r), np.random.default_rng(r)).y.var() for r in range(20)]
    assert np.mean(null) == pytest.approx(1.0, abs=0.03)


def test_a_decision_that_stops_early_is_that_of_all_permutations(pool):
    sample = draw_sample(pool, Unit("quantitative", "1", EFFECTS[0], 1), np.random.default_rng(5))
    stats = summarise(sample)
    names = [name for name in SEARCHES if "step-up" in name or "no cut-off" in name]
    walks = list_walks(stats.maf, sample.sift, sample.polyphen)
    searches = [Search(n, walks[g], w, s, v) for n in names for g, w, s, v in [SEARCHES[n]]]
    for seed in range(4):
        quick = decide(sample, 100, seed, tuple(names))
        trait = IndividualTrait(sample.y - sample.y.mean())
        whole = search_individuals(
            collect_carriers(sample.G), trait, searches, Resampling(100, 100, tail=False, seed=seed)
        )
        assert quick == {n: bool(np.exp(r.log_p[0]) <= 0.05) for n, r in whole.items()}


def test_models_are_those_of_the_paper_and_what_it_lacked():
    assert len(PAPER) == 9 * 3 * 2 + 1
    assert set(MODELS) >= {*PAPER, *REGISTRY, "step-up, both, fixed, model", "step-up, both, fixed, from (U, V)"}


def test_a_run_resumes_where_it_was_killed(tmp_path):
    units = [u for u in list_units(range(2), ("1",)) if u.trait == "quantitative"]
    whole = run_units(TINY, units, tmp_path / "a.jsonl")
    text = (tmp_path / "a.jsonl").read_text()
    lines = text.splitlines(keepends=True)
    (tmp_path / "b.jsonl").write_text("".join(lines[:4]) + lines[4][:-3])  # killed while it wrote
    assert len(read_checkpoint(tmp_path / "b.jsonl", TINY)) == 3
    assert run_units(TINY, units, tmp_path / "b.jsonl", processes=2) == whole
    pools = make_pools(TINY.seed, TINY.engine, TINY.sizes)
    assert run_unit(TINY, pools, units[3]) == whole[units[3]]
    assert not run_units(TINY, units, tmp_path / "c.jsonl", minutes=0)
    with pytest.raises(InputError, match="other settings"):
        read_checkpoint(tmp_path / "a.jsonl", replace(TINY, seed=2))
    assert json.loads(lines[0])["permutations"] == 40


def make_rates(power, **settings):
    """Rates of one gene, all models, from ``power(trait, scenario, model) -> probability``."""
    rng = np.random.default_rng(1)
    settings, done = Settings(sizes=(10, 10, 10, 10), **settings), {}
    for unit in list_units(range(20)):
        bits = rng.random((len(MODELS), 4)) < np.array([[power(unit, name)] * 4 for name in MODELS])
        done[unit] = [int(row @ (1 << np.arange(4))) for row in bits]
    return Rates(settings, done)


def test_verdicts_follow_the_numbers():
    def papers(unit, name):
        if not unit.effect:
            return 0.05
        good = 0.99 if name.startswith("step-up") else 0.5
        good += 0.3 * (unit.scenario in ("1", "1b") and ", inverse-sd" in name)
        good += 0.3 * (unit.scenario == "3" and ", data" in name)
        good += 0.3 * (unit.scenario == "4a" and name.startswith("functional,"))
        good -= 0.3 * (unit.scenario == "4b" and name.startswith("functional,"))
        good -= 0.4 * name.startswith("MAF <=")
        if unit.scenario.startswith("5"):
            return 1.0 if name == "CMC" else min(good, 0.8)
        return good

    ours, turned = make_rates(papers), make_rates(lambda unit, name: 1 - papers(unit, name))
    for verdict in judge(ours):
        assert verdict.verdict in (("yes", "in part") if "Step-up" in verdict.conclusion else ("yes",)), verdict
    for verdict in judge(turned):
        if not verdict.conclusion.startswith("Step-up"):
            assert verdict.verdict == "NO", verdict


def test_difference_says_when_it_is_not_decided():
    assert Difference(0.01, 0.02).verdict == "not decided"
    assert str(Difference(0.031, 0.01)) == "+3.1 ± 2.0"


@pytest.mark.ci
def test_report_fills_page_and_figures(tmp_path, monkeypatch):
    page = tmp_path / "studies-grouping.md"
    page.write_text("head\n<!-- grouping: begin -->\nstale\n<!-- grouping: end -->\ntail\n")
    monkeypatch.setattr(report, "PAGE", page)
    monkeypatch.setattr(report, "DOCS", tmp_path)
    report.write_report(make_rates(lambda unit, name: 0.05 if not unit.effect else 0.5))
    text = page.read_text()
    assert "stale" not in text
    assert text.startswith("head")
    assert text.endswith("tail\n")
    for scenario in SCENARIOS:
        assert f"### Simulation {scenario}:" in text
    for trait in TRAITS:
        assert (tmp_path / "figures" / f"grouping-{trait}.svg").stat().st_size < 100_000


def test_report_of_other_pools_fills_its_own_section(tmp_path, monkeypatch):
    page = tmp_path / "studies-grouping.md"
    kept = "<!-- grouping: begin -->\nkept\n<!-- grouping: end -->\n"
    page.write_text(f"{kept}<!-- few-haplotypes: begin -->\nstale\n<!-- few-haplotypes: end -->\n")
    monkeypatch.setattr(report, "PAGE", page)
    report.write_report(make_rates(lambda unit, name: 0.05 if not unit.effect else 0.5, haplotypes=1000))
    text = page.read_text()
    assert text.startswith(kept)
    assert "stale" not in text
    assert "genes of 1,000 haplotypes" in text
    assert "Type I error at 0.05, 240 null genes" in text
