"""Permutation kernel: uniform draws, carriers only, strata, covariates, binary traits, and its p-values."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from scipy.stats import chi2, kstest

from locomass.errors import InputError, StatisticsError
from locomass.gene_tests.case_draws import draw_cases, plan_case_draws
from locomass.gene_tests.groupings import Search, build_groupings, build_subsets
from locomass.gene_tests.permutation import CarrierGenotypes, draw_replicates, search_individuals
from locomass.gene_tests.permutation_kernel import shuffle_prefix
from locomass.gene_tests.permutation_trait import IndividualTrait
from locomass.gene_tests.random_stream import draw_below, draw_uniform
from locomass.gene_tests.resampling import Resampling
from tests import reference_grouping as reference


def sparse(G):
    columns = [np.flatnonzero(column) for column in G.T]
    return CarrierGenotypes(
        np.concatenate([[0], np.cumsum([len(c) for c in columns])]).astype(np.int64),
        np.concatenate(columns),
        np.concatenate([G[c, j] for j, c in enumerate(columns)]),
        G.shape[0],
    )


def draw_genotypes(m, n, seed, share=0.04):
    rng = np.random.default_rng(seed)
    counts = np.maximum(2, (share * 2 * n / np.arange(1, m + 1)).astype(int))
    return np.column_stack([np.bincount(rng.integers(0, n, c), minlength=n).clip(max=2) for c in counts]) * 1.0


def new_state(seed):
    return np.array([seed], dtype=np.uint64)


@pytest.mark.parametrize("count", [2, 4])
def test_shuffles_are_uniform_though_the_pool_is_never_put_back(count):
    # A shuffle that swaps with any position, restarting from the observed order, is not uniform: chi-square finds it.
    state, pool = new_state(3), np.arange(4)
    seen: dict[tuple[int, ...], int] = {}
    draws = 48_000
    for _ in range(draws):
        shuffle_prefix(state, pool, 0, 4, count)
        key = tuple(pool[:count])
        seen[key] = seen.get(key, 0) + 1
    orders = list(itertools.permutations(range(4), count))
    assert set(seen) == set(orders)
    expected = draws / len(orders)
    statistic = sum((k - expected) ** 2 / expected for k in seen.values())
    assert chi2.sf(statistic, len(orders) - 1) > 1e-3


def test_random_numbers_are_uniform():
    state = new_state(11)
    assert kstest([draw_uniform(state) for _ in range(20_000)], "uniform").pvalue > 1e-3
    counts = np.bincount([draw_below(state, 7) for _ in range(70_000)], minlength=7)
    assert chi2.sf(np.sum((counts - 10_000) ** 2 / 10_000), 6) > 1e-3
    assert len(counts) == 7


def test_split_mix_reproduces_its_published_stream():
    # Vigna's splitmix64.c, seed 1234567
    state = new_state(1234567)
    values = [int(draw_uniform(state) * 2**53) for _ in range(3)]
    assert values == [6457827717110365317 >> 11, 3203168211198807973 >> 11, 9817491932198370423 >> 11]


def test_replicates_have_the_moments_of_all_permutations():
    n, m = 60, 4
    G, e = draw_genotypes(m, n, 1), np.random.default_rng(2).exponential(size=n)
    U = draw_replicates(sparse(G), IndividualTrait(e), 40_000, 7, "x")
    V = reference.permutation_variance(G, e)
    assert np.abs(U.mean(axis=0)) == pytest.approx(0, abs=4 * np.sqrt(V.max() / 40_000))
    assert np.allclose(np.cov(U.T), V, atol=0.03 * V.max())


def test_replicates_within_strata_keep_the_strata_apart():
    n = 90
    strata = np.repeat([5, 2, 9], 30)
    G, rng = draw_genotypes(3, n, 4), np.random.default_rng(3)
    e = rng.normal(size=n) + strata
    U = draw_replicates(sparse(G), IndividualTrait(e, strata=strata), 30_000, 7, "x")
    centred = e - e.mean()
    naive = np.array([reference.permuted(centred, rng, strata) @ G for _ in range(5000)])
    assert U.mean(axis=0) == pytest.approx(naive.mean(axis=0), abs=5 * naive.std() / np.sqrt(5000))
    assert np.allclose(np.cov(U.T), np.cov(naive.T), atol=0.1 * naive.var(axis=0).max())
    # each replicate keeps every stratum's sum: a variant carried by a whole stratum never moves
    whole = sparse((strata == 2)[:, None] * 1.0)
    fixed = draw_replicates(whole, IndividualTrait(e, strata=strata), 10, 1, "x")
    assert fixed == pytest.approx(centred[strata == 2].sum(), rel=1e-12)


def test_replicates_with_covariates_are_refitted():
    # Freedman-Lane: scores of a variant that is a covariate vanish in every replicate; others lose what it explains.
    n = 200
    rng = np.random.default_rng(5)
    G = draw_genotypes(3, n, 5)
    X = np.column_stack([rng.normal(size=n), G[:, 0]])
    Q = np.linalg.qr(np.column_stack([np.ones(n), X]))[0]
    e = rng.exponential(size=n)
    e = e - Q @ (Q.T @ e)
    U = draw_replicates(sparse(G), IndividualTrait(e, covariates=X), 30_000, 1, "x")
    assert np.abs(U[:, 0]).max() < 1e-10
    naive = []
    for _ in range(4000):
        permuted = rng.permutation(e)
        naive.append(G.T @ (permuted - Q @ (Q.T @ permuted)))
    assert np.allclose(np.cov(U.T), np.cov(np.array(naive).T), atol=0.1 * np.var(naive, axis=0).max())


@pytest.mark.ci
def test_bernoulli_replicates_have_the_variance_of_the_model():
    n = 400
    rng = np.random.default_rng(6)
    G = draw_genotypes(3, n, 6, share=0.1)
    X = rng.normal(size=(n, 1))
    mu = 1 / (1 + np.exp(1 - X[:, 0]))
    case = rng.random(n) < mu
    U = draw_replicates(sparse(G), IndividualTrait(case - mu, X, case, mu), 30_000, 1, "x")
    W, X1 = np.diag(mu * (1 - mu)), np.column_stack([np.ones(n), X])
    V = G.T @ W @ G - G.T @ W @ X1 @ np.linalg.solve(X1.T @ W @ X1, X1.T @ W @ G)
    assert np.allclose(np.cov(U.T), V, atol=0.05 * V.max())
    found = search_individuals(
        sparse(G), IndividualTrait(case - mu, X, case, mu), [Search("s", build_groupings(np.ones(3), max_maf=(1.0,)))]
    )["s"]
    burden = G.sum(axis=1) @ (reference_project(case - mu, np.diag(W), X1))
    assert found.statistic[0] == pytest.approx(burden**2 / V.sum(), rel=1e-9)
    assert found.method == "bernoulli-resampling"


def reference_project(residual, w, X):
    return residual - w * (X @ np.linalg.solve(X.T @ (w[:, None] * X), X.T @ residual))


CASES = [
    ("constant", "fixed", "model", False),
    ("both", "data", "empirical", False),
    ("inverse-sd", "data", "empirical", True),
    ("both", "fixed", "model", True),
]


@pytest.mark.parametrize(("weighting", "sign", "variance", "binary"), CASES)
@pytest.mark.parametrize("stratified", [False, True])
def test_p_values_agree_with_naive_permutation(weighting, sign, variance, binary, stratified):
    n, m = 250, 6
    rng = np.random.default_rng(9)
    G = draw_genotypes(m, n, 9)
    y = rng.normal(size=n) + 0.3 * G.sum(axis=1)
    case = y > 0.8
    e = (case if binary else y) - np.mean(case if binary else y)
    strata = np.arange(n) % 3 if stratified else None
    sets = None if variance == "empirical" else reference.threshold_sets(G.mean(axis=0))
    walk = None if sets is None else build_groupings(G.mean(axis=0))
    trait = IndividualTrait(e, case=case if binary else None, strata=strata)
    resampling = Resampling(max_permutations=20_000, exceedances=20_000)
    found = search_individuals(sparse(G), trait, [Search("s", walk, weighting, sign, variance)], resampling)["s"]

    def statistic(residual):
        cases = residual > 0 if binary else None
        return reference.search(G, residual, sets, weighting, sign, variance, cases)[0]

    expected = reference.permutation_p(statistic, e, rng, 400, strata)
    assert 0.005 < expected < 0.995
    assert np.exp(found.log_p[0]) == pytest.approx(expected, abs=4 * np.sqrt(expected * (1 - expected) / 400))


def test_covariates_and_mu_give_uniform_p_under_the_null():
    n, rng = 300, np.random.default_rng(1)
    G = draw_genotypes(5, n, 1, share=0.1)
    X = rng.normal(size=(n, 2)) + G[:, :1]
    X1 = np.column_stack([np.ones(n), X])
    searches = [Search("s", None, "both", "data", "empirical")]
    plain, binary = [], []
    mu = 1 / (1 + np.exp(1 - 0.5 * X[:, 0]))
    for seed in range(200):
        quick = Resampling(max_permutations=199, exceedances=1000, tail=False, seed=seed)
        y = rng.normal(size=n) + X @ [1.0, -1.0]
        e = y - X1 @ np.linalg.lstsq(X1, y, rcond=None)[0]
        plain.append(search_individuals(sparse(G), IndividualTrait(e, X), searches, quick)["s"].log_p[0])
        case = rng.random(n) < mu
        trait = IndividualTrait(case - mu, X, case, mu)
        binary.append(search_individuals(sparse(G), trait, searches, quick)["s"].log_p[0])
    for log_p in (plain, binary):
        assert kstest(np.exp(log_p), "uniform").pvalue > 1e-3


def test_a_seed_gives_the_same_p_in_any_thread():
    G, y = draw_genotypes(12, 500, 2), np.random.default_rng(2).normal(size=500)

    def run(seed):
        trait, resampling = IndividualTrait(y), Resampling(max_permutations=2000, seed=seed)
        return search_individuals(sparse(G), trait, [Search("s")], resampling)["s"].detail.permutations[0]

    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(run, [1, 2, 1, 2, 1, 2]))
    assert together == [run(1), run(2)] * 3
    assert run(1) != run(2)


def test_order_of_samples_does_not_matter_to_the_statistic():
    n, rng = 300, np.random.default_rng(4)
    G, y = draw_genotypes(8, n, 4), rng.normal(size=n)
    order = rng.permutation(n)
    searches = [Search("s", None, "both", "data", "empirical")]
    first = search_individuals(sparse(G), IndividualTrait(y), searches, Resampling(max_permutations=10))["s"]
    second = search_individuals(sparse(G[order]), IndividualTrait(y[order]), searches, Resampling(10))["s"]
    assert second.statistic == pytest.approx(first.statistic, rel=1e-10)


def test_no_carriers_is_a_note():
    empty = CarrierGenotypes(np.array([0, 0]), np.empty(0, dtype=np.int64), np.empty(0), 10)
    trait = IndividualTrait(np.arange(10.0))
    assert search_individuals(empty, trait, [Search("s")])["s"].note == "all variants are monomorphic"
    none = CarrierGenotypes(np.array([0]), np.empty(0, dtype=np.int64), np.empty(0), 10)
    assert search_individuals(none, trait, [Search("s")])["s"].note == "no variants"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CarrierGenotypes(np.array([0, 2]), np.array([1, 1]), np.ones(2), 5), "listed twice"),
        (lambda: CarrierGenotypes(np.array([0, 1]), np.array([5]), np.ones(1), 5), "numbered 5 to 5 of 5"),
        (lambda: CarrierGenotypes(np.array([0, 3]), np.array([1]), np.ones(1), 5), "indptr ends at 3"),
        (lambda: CarrierGenotypes(np.array([1, 3]), np.array([1]), np.ones(1), 5), "start at 0"),
        (lambda: CarrierGenotypes(np.array([0, 1]), np.array([1]), np.array([np.nan]), 5), "not finite"),
        (lambda: IndividualTrait(np.array([1.0, np.nan])), "not finite"),
        (lambda: IndividualTrait(np.ones(3), covariates=np.ones((2, 1))), "covariates has 2 rows"),
        (lambda: IndividualTrait(np.ones(3), mu=np.full(3, 0.5)), "needs a binary trait"),
        (lambda: IndividualTrait(np.ones(3), case=np.ones(3) > 0, mu=np.ones(3)), "between 0 and 1"),
    ],
)
def test_bad_arrays__raise(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_search_individuals__raises_on_what_does_not_fit():
    G = CarrierGenotypes(np.array([0, 1]), np.array([1]), np.ones(1), 5)
    with pytest.raises(InputError, match="5 samples, the trait of 4"):
        search_individuals(G, IndividualTrait(np.arange(4.0)), [Search("s")])
    with pytest.raises(InputError, match="V has shape"):
        search_individuals(G, IndividualTrait(np.arange(5.0)), [Search("s")], V=np.eye(2))
    with pytest.raises(StatisticsError, match="constant"):
        search_individuals(G, IndividualTrait(np.ones(5)), [Search("s")])
    for V, message in ((np.array([[np.nan]]), "V is not finite"), (-np.eye(1), "V is not positive semi-definite")):
        with pytest.raises(InputError, match=message):
            search_individuals(G, IndividualTrait(np.arange(5.0)), [Search("s")], V=V)
    for maf in (1.5, -0.1, np.nan):
        with pytest.raises(InputError, match="outside"):
            build_groupings(np.array([0.1, maf]))


@pytest.mark.parametrize("variance", ["model", "empirical"])
@pytest.mark.parametrize("binary", [False, True])
def test_variants_that_covariates_explain_take_no_part(variance, binary):
    n, rng = 200, np.random.default_rng(6)
    G, X = draw_genotypes(4, n, 6), rng.normal(size=(n, 2))
    X[:, 1] = G[:, 2]
    design = np.column_stack([np.ones(n), X])
    searches = [Search("s", None, "both", "data", variance), Search("all", build_groupings(G.mean(axis=0) / 2))]
    if binary:
        mu = np.full(n, 0.3)
        case = rng.random(n) < mu
        w = mu * (1 - mu)
        residual = case - mu
        residual -= w * (design @ np.linalg.solve(design.T @ (design * w[:, None]), design.T @ residual))
        trait = IndividualTrait(residual, X, case, mu)
    else:
        y = rng.normal(size=n)
        trait = IndividualTrait(y - design @ np.linalg.lstsq(design, y, rcond=None)[0], X)
    alone = search_individuals(sparse(G[:, 2:3]), trait, searches[:1], Resampling(200))["s"]
    assert np.isnan(alone.log_p).all()
    assert alone.note == "intercept and covariates explain every variant"
    found = search_individuals(sparse(G), trait, searches, Resampling(200))
    without = G.copy()
    without[:, 2] = 0.0
    other = search_individuals(sparse(without), trait, searches, Resampling(200))
    for name, row in found.items():
        assert row.statistic == pytest.approx(other[name].statistic, rel=1e-12)
        assert not row.detail.chosen[0, 2] or name == "all"
    np.testing.assert_array_equal(draw_replicates(sparse(G), trait, 5, 1, "study")[:, 2], 0.0)


@pytest.mark.parametrize(("k", "sizes"), [((3,), (9,)), ((2, 3), (5, 6)), ((0, 1, 4), (3, 4, 4)), ((1,), (1,))])
def test_cases_are_drawn_with_the_odds_of_their_set_given_their_number(k, sizes):
    rng, start = np.random.default_rng(8), np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    mu = 1 / (1 + np.exp(2 - 1.5 * rng.normal(size=start[-1])))
    case = np.concatenate([np.arange(n) < own for own, n in zip(k, sizes, strict=True)])
    tree, state, y, draws = plan_case_draws(mu, case, start), new_state(5), np.empty(len(mu)), 60_000
    seen: dict[tuple[int, ...], int] = {}
    for _ in range(draws):
        draw_cases(tree, state, y)
        key = tuple(np.flatnonzero(y))
        seen[key] = seen.get(key, 0) + 1
    parts = [
        (lo, *reference.conditional_bernoulli(mu[lo:hi], own)) for own, lo, hi in zip(k, start, start[1:], strict=False)
    ]
    statistic, n_sets = 0.0, 0
    for chosen in itertools.product(*[[(lo, s, p) for s, p in zip(sets, ps, strict=True)] for lo, sets, ps in parts]):
        expected = draws * np.prod([p for _, _, p in chosen])
        key = tuple(lo + i for lo, members, _ in chosen for i in members)
        statistic += (seen.pop(key, 0) - expected) ** 2 / expected
        n_sets += 1
    assert not seen
    assert n_sets == 1 or chi2.sf(statistic, n_sets - 1) > 1e-3


def test_cases_of_many_people_have_the_moments_of_their_sampling_design():
    n, k = 3_000, 120
    rng = np.random.default_rng(2)
    mu = 1 / (1 + np.exp(4 - 1.3 * rng.normal(size=n)))
    case = np.zeros(n, bool)
    case[:k] = True
    tree, state, y = plan_case_draws(mu, case, np.array([0, n])), new_state(9), np.empty(n)
    heavy = mu > np.quantile(mu, 0.9)
    shares = []
    for _ in range(4000):
        draw_cases(tree, state, y)
        assert y.sum() == k
        shares.append(y[heavy].sum())
    # naive: independent cases until their number fits
    naive = []
    q = mu * k / mu.sum()
    odds = mu / (1 - mu) * (q.sum() / k)
    while len(naive) < 600:
        trial = rng.random((400, n)) < odds / (1 + odds)
        naive += list(trial[trial.sum(axis=1) == k][:, heavy].sum(axis=1))
    assert np.mean(shares) == pytest.approx(np.mean(naive), abs=4 * np.std(naive) / np.sqrt(len(naive)))
    assert np.std(shares) == pytest.approx(np.std(naive), rel=0.12)


@pytest.mark.parametrize("stratified", [False, True])
@pytest.mark.parametrize("with_covariate", [False, True])
def test_p_of_a_binary_trait_is_that_of_all_sets_of_as_many_cases(stratified, with_covariate):
    n, rng = 16, np.random.default_rng(4)
    strata = np.arange(n) % 2 if stratified else None
    X = rng.normal(size=(n, 1)) if with_covariate else None
    eta = -1.0 + (0.8 * X[:, 0] if with_covariate else 0.0)
    mu = 1 / (1 + np.exp(-eta)) * np.ones(n)
    case = np.isin(np.arange(n), [0, 1, 2, 7])
    G = np.zeros((n, 2))
    G[[0, 2, 5], 0] = 1.0
    G[[1, 7, 9, 11], 1] = 1.0
    w, X1 = mu * (1 - mu), np.column_stack([np.ones(n)] + ([X] if with_covariate else []))
    WG, WX = w[:, None] * G, w[:, None] * X1
    V = G.T @ WG - WX.T.dot(G).T @ np.linalg.solve(X1.T @ WX, X1.T @ WG)

    def statistic(y):
        U = G.T @ reference_project(y - mu, w, X1)
        return reference.best_set(lambda b: reference.z2_model(U, V, b), np.ones(2), reference.all_subsets(2))[0]

    expected = reference.conditional_p(statistic, mu, case, strata)
    trait = IndividualTrait(case - mu, X, case, mu, strata)
    draws = 40_000
    found = search_individuals(sparse(G), trait, [Search("s", build_subsets(2))], Resampling(draws, exceedances=draws))[
        "s"
    ]
    assert found.method == ("bernoulli-resampling" if with_covariate else "permutation")
    assert np.exp(found.log_p[0]) == pytest.approx(expected, abs=4 * np.sqrt(expected * (1 - expected) / draws))


@pytest.mark.parametrize("share", [0.04, 0.3])
def test_a_singleton_case_has_the_share_of_cases_as_its_p(share):
    # 6 cases of 150, the one carrier a case: 0.04, whoever else is one
    n = 150
    case = np.arange(n) < round(share * n)
    G = (np.arange(n) == 3)[:, None] * 1.0
    trait = IndividualTrait(case - share, None, case, np.full(n, share))
    searches = [Search("step-up"), Search("all", build_groupings(np.array([0.1])))]
    found = search_individuals(sparse(G), trait, searches, Resampling(20_000, exceedances=20_000))
    for row in found.values():
        assert np.exp(row.log_p[0]) == pytest.approx(share, abs=4 * np.sqrt(share * (1 - share) / 20_000))


@pytest.mark.parametrize("covariates", ["none", "intercept", "scaled intercept", "with a constant column"])
def test_the_intercept_is_no_covariate_to_project_out(covariates):
    # Rounding left of a centred constant is not a direction: the first person was projected out, p 0.57 for 0.0009
    n, rng = 200, np.random.default_rng(3)
    G = (np.arange(n) < 6)[:, None] * 1.0
    y = rng.normal(size=n) + 1.5 * G[:, 0]
    q = 1 / np.sqrt(n)
    X = {
        "none": None,
        "intercept": np.ones((n, 1)),
        "scaled intercept": np.full((n, 1), q * 0.1234567),
        "with a constant column": np.column_stack([np.full(n, q / 3), np.full(n, 1e7)]),
    }[covariates]
    trait = IndividualTrait(y - y.mean(), X)
    found = search_individuals(sparse(G), trait, [Search("s")], Resampling(20_000, exceedances=20_000))["s"]
    e = y - y.mean()
    U, v = e[:6].sum(), (e @ e) / (n - 1) * 6 * (1 - 6 / n)
    assert found.statistic[0] == pytest.approx(U * U / v, rel=1e-12)
    p = np.mean([np.sum(e[rng.choice(n, 6, replace=False)]) ** 2 >= U * U for _ in range(20_000)])
    assert np.exp(found.log_p[0]) == pytest.approx(p, abs=5 * np.sqrt(2 * p / 20_000))
    assert trait.null.basis.shape[0] == 0


def test_a_covariate_far_from_nought_and_a_repeated_one_count_once():
    n, rng = 120, np.random.default_rng(5)
    x = rng.normal(size=n)
    X = np.column_stack([np.ones(n), x + 1e6, x, 3.0 * x - 2.0])
    trait = IndividualTrait(rng.normal(size=n), X)
    basis = trait.null.basis
    assert basis.shape[0] == 1
    centred = (x - x.mean()) / np.linalg.norm(x - x.mean())
    assert abs(basis[0] @ centred) == pytest.approx(1.0, abs=1e-8)


def test_genes_of_equal_counts_have_streams_of_their_own():
    n = 100
    G = draw_genotypes(3, n, 3)
    trait = IndividualTrait(np.random.default_rng(1).normal(size=n))
    one, again, other = (draw_replicates(sparse(G), trait, 50, 7, "s", gene) for gene in ("A", "A", "B"))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)
