"""Searches, VT, CMC and heterogeneity of few cases: p-values against phenotypes that are resampled one by one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from locomass.gene_tests.base import ScoreStatistics
from locomass.gene_tests.groupings import Search, build_groupings, inverse_sd_weights, plan_searches
from locomass.gene_tests.registry import evaluate
from locomass.gene_tests.resampling import Resampling
from locomass.gene_tests.step_up import StepUpParameters
from locomass.gene_tests.step_up_kernel import search_scores
from tests.unit.test_few_cases import make_study, take, two_studies

QUICK = StepUpParameters(resampling=Resampling(max_permutations=4_000))


def rarest(null: ScoreStatistics, share: float = 0.5) -> ScoreStatistics:
    """Return the statistics with every variant in a mask of its own rarity: the commonest are common."""
    return replace(null, rare=null.mac <= np.quantile(null.mac, share))


@pytest.mark.ci
@pytest.mark.parametrize("test", ["step-up", "all-maf", "vt", "cmc", "burden-het", "random-effects"])
def test_level_on_resampled_phenotypes(test: str) -> None:
    """150 null phenotypes, 1:40 and a few carriers a variant: rates at 0.05 and 0.01 inside the 99.9 % interval."""
    null = two_studies(21, nested=True, draws=150)
    null = rarest(null) if test == "cmc" else null
    p = np.array([
        np.exp(evaluate(take(null, t), [test], ["flat"], step_up=QUICK, particles=500)[0][2].log_p[0])
        for t in range(150)
    ])  # fmt: skip
    for level in (0.05, 0.01):
        assert np.sum(p <= level) <= stats.binom.ppf(0.9995, 150, level)
    assert np.mean(p <= 0.1) > 0.02


@pytest.mark.ci
@pytest.mark.parametrize("share", [1 / 9, 1 / 5])
def test_level_over_a_hundred_variants_of_a_few_alleles(share: float) -> None:
    """106 variants of 1 to 5 alleles, 1:8 and 1:4: by normal scores a quarter of null p-values is below 0.001."""
    rng, n, draws = np.random.default_rng(1), 2_000, 100
    G = np.zeros((n, 106))
    for j, k in enumerate(rng.integers(1, 6, G.shape[1])):
        G[rng.choice(n, k, replace=False), j] = 1.0
    U, V, people = make_study(rng, G, share, 0.0, draws)
    mac, ones = G.sum(axis=0), np.ones(draws)
    null = ScoreStatistics(
        U=U, V=V, scale=ones, maf=mac / (2 * n), mac=mac, n_samples=n * ones, rare=np.ones(mac.size, np.bool_),
        per_study=((U, V, ones),), laws=((people,),),
    )  # fmt: skip
    p = np.array([
        np.exp(evaluate(take(null, t), ["step-up"], ["flat"], step_up=QUICK)[0][2].log_p[0]) for t in range(draws)
    ])  # fmt: skip
    for level in (0.05, 0.01, 0.001):
        assert np.sum(p <= level) <= stats.binom.ppf(0.9995, draws, level)
    assert np.mean(p <= 0.1) > 0.02


@pytest.mark.parametrize("name", ["step-up", "all-maf"])
def test_search__p_is_that_of_resampled_phenotypes(name: str) -> None:
    """Where 1 in 100 phenotypes does as well: normal scores are off by more than the laws are."""
    n = 5_000
    null = two_studies(22, nested=False, draws=n)
    search = Search(name, build_groupings(null.maf) if name == "all-maf" else None)
    plan = plan_searches([search], null.n_variants)
    z2 = np.full((n, 1), -1.0)
    weight = inverse_sd_weights(null.mac, null.n_samples[0])
    search_scores(plan, np.ascontiguousarray(null.U), null.V, weight, np.array([True]), z2)
    t = int(np.argsort(z2[:, 0])[-50])
    truth = np.mean(z2[t, 0] * (1 - 1e-9) <= z2[:, 0])
    one = take(null, t)
    own, normal = (evaluate(s, [name], ["flat"], step_up=QUICK)[0][2] for s in (one, replace(one, laws=())))
    assert own.statistic[0] == pytest.approx(z2[t, 0], rel=1e-9)
    assert own.method == "case-count-resampling"
    assert 0.5 < np.exp(own.log_p[0]) / truth < 2.0
    assert np.exp(normal.log_p[0]) < 0.5 * truth


def test_vt_of_one_threshold_is_the_burden() -> None:
    null = two_studies(23, nested=False, draws=1)
    one = replace(null, maf=np.full(null.n_variants, 0.001))
    vt, burden = (row for _, _, row in evaluate(one, ["vt", "burden"], ["flat"]))
    assert vt.log_p[0] == burden.log_p[0]
    assert vt.beta is not None
    assert burden.beta is not None
    assert vt.beta[0] == pytest.approx(burden.beta[0], rel=1e-12)
