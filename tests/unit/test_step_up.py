"""Searches over groupings: statistics against the definition, p-values from shared statistics, the Pareto tail."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import chi2, genpareto

from locomass.errors import ConfigError, InputError
from locomass.gene_tests.base import ScoreStatistics
from locomass.gene_tests.groupings import (
    Search,
    build_groupings,
    build_subsets,
    group_by_category,
    group_by_columns,
    group_by_score,
    plan_searches,
)
from locomass.gene_tests.pareto import fit_pareto_tail
from locomass.gene_tests.permutation import CarrierGenotypes, draw_replicates, search_individuals
from locomass.gene_tests.permutation_trait import IndividualTrait
from locomass.gene_tests.registry import evaluate
from locomass.gene_tests.resampling import Resampling, resample_p
from locomass.gene_tests.step_up import (
    SEARCHES,
    StepUpParameters,
    combine_replicates,
    compute_search,
    search_statistics,
)
from tests import reference_grouping as reference

N = 2000
QUICK = Resampling(max_permutations=50)


def draw_genotypes(m, seed, n=N, rarest=1):
    """Rare variants with a coalescent-like spectrum, frequency about 1/k."""
    rng = np.random.default_rng(seed)
    counts = np.maximum(rarest, (0.04 * 2 * n / np.arange(1, m + 1)).astype(int))
    return np.column_stack([np.bincount(rng.integers(0, n, count), minlength=n).clip(max=2) for count in counts]) * 1.0


def sparse(G):
    columns = [np.flatnonzero(column) for column in G.T]
    return CarrierGenotypes(
        np.concatenate([[0], np.cumsum([len(c) for c in columns])]).astype(np.int64),
        np.concatenate(columns),
        np.concatenate([G[c, j] for j, c in enumerate(columns)]),
        G.shape[0],
    )


def summarise(G, ys, annotations=None):
    """Score statistics of quantitative traits with an intercept only."""
    residuals = np.stack([y - y.mean() for y in np.atleast_2d(ys)])
    sigma2 = (residuals**2).sum(axis=1) / (G.shape[0] - 1)
    Gc = G - G.mean(axis=0)
    return ScoreStatistics(
        U=residuals @ G / sigma2[:, None],
        V=Gc.T @ Gc,
        scale=1 / sigma2,
        maf=G.mean(axis=0) / 2,
        mac=G.sum(axis=0),
        n_samples=np.full(len(sigma2), float(G.shape[0])),
        rare=np.ones(G.shape[1], dtype=bool),
        annotations=annotations or {},
    )


SETTINGS = list(
    itertools.product(("constant", "inverse-sd", "both"), ("fixed", "data"), ("model", "empirical"), (False, True))
)


@pytest.fixture(scope="module")
def genes():
    rng = np.random.default_rng(8)
    out = {}
    for m in (10, 67):
        G = draw_genotypes(m, m)
        y = rng.normal(size=N) + G @ rng.normal(0, 0.4, m)
        out[m] = (G, y, rng.random(N) < 1 / (1 + np.exp(1 - y)))
    return out


@pytest.mark.parametrize("m", [10, 67])
@pytest.mark.parametrize(("weighting", "sign", "variance", "binary"), SETTINGS)
def test_step_up_equals_the_definition(genes, m, weighting, sign, variance, binary):
    G, y, case = genes[m]
    e = (case - case.mean()) if binary else y - y.mean()
    trait = IndividualTrait(e, case=case if binary else None)
    found = search_individuals(sparse(G), trait, [Search("s", None, weighting, sign, variance)], QUICK)["s"]
    z2, members = reference.search(G, e, None, weighting, sign, variance, case if binary else None)
    assert found.statistic[0] == pytest.approx(z2, rel=1e-10)
    assert found.detail.chosen[0].tolist() == members.tolist()


@pytest.mark.parametrize(("weighting", "sign", "variance", "binary"), SETTINGS)
def test_groupings_and_subsets_equal_the_definition(genes, weighting, sign, variance, binary):
    G, y, case = genes[10]
    e = (case - case.mean()) if binary else y - y.mean()
    maf = G.mean(axis=0) / 2
    rng = np.random.default_rng(2)
    columns = {"lof": (rng.random(10) < 0.5) * 1.0, "sift": rng.random(10)}
    groups = group_by_columns(columns, low_is_damaging=("sift",))
    families = {
        "all-maf": (build_groupings(maf), reference.threshold_sets(maf)),
        "groupings": (build_groupings(maf, groups), reference.threshold_sets(maf, list(groups.values()))),
        "subsets": (build_subsets(8), [np.r_[s, False, False] for s in reference.all_subsets(8)]),
        "cut": (build_groupings(maf, max_maf=(0.006,)), [maf <= 0.006]),
    }
    searches = [Search(name, walk, weighting, sign, variance) for name, (walk, _) in families.items()]
    trait = IndividualTrait(e, case=case if binary else None)
    found = search_individuals(sparse(G), trait, searches, QUICK)
    for name, (_, sets) in families.items():
        z2, members = reference.search(G, e, sets, weighting, sign, variance, case if binary else None)
        assert found[name].statistic[0] == pytest.approx(z2, rel=1e-10)
        assert found[name].detail.chosen[0].tolist() == members.tolist()


def test_empirical_statistic_is_the_papers(genes):
    G, y, _ = genes[10]
    found = search_individuals(sparse(G), IndividualTrait(y), [Search("s", None, variance="empirical")], QUICK)["s"]
    b = found.detail.weight[0]
    assert found.statistic[0] == pytest.approx(reference.z2_empirical(G, y, b), rel=1e-10)


def test_step_up_with_strong_signal_finds_the_causal_variants():
    rng = np.random.default_rng(0)
    G = draw_genotypes(12, 3, rarest=20)
    y = rng.normal(size=N) + 1.5 * G[:, [2, 5, 7]].sum(axis=1)
    result = compute_search("step-up", summarise(G, y), StepUpParameters(resampling=QUICK))
    assert set(np.flatnonzero(result.detail.chosen[0])) >= {2, 5, 7}
    assert result.beta[0] == pytest.approx(1.5, abs=0.2)
    assert result.statistic[0] == pytest.approx((result.beta[0] / result.se[0]) ** 2, rel=1e-10)


def test_fixed_weight_statistic_does_not_depend_on_the_scale_of_the_scores():
    G = draw_genotypes(10, 1)
    stats = summarise(G, np.random.default_rng(1).normal(size=N))
    other = replace(stats, U=stats.U * 7, V=stats.V * 7, scale=stats.scale * 7)
    first, second = compute_search("step-up", stats), compute_search("step-up", other)
    assert second.statistic == pytest.approx(first.statistic, rel=1e-12)
    assert second.log_p == pytest.approx(first.log_p, rel=1e-12)


def test_one_variant_is_the_chi_square_test():
    G = draw_genotypes(1, 4, rarest=200)
    stats = summarise(G, np.random.default_rng(6).normal(size=(4, N)))
    result = compute_search("step-up", stats)
    assert result.statistic == pytest.approx(stats.U[:, 0] ** 2 / (stats.scale * stats.V[0, 0]), rel=1e-12)
    z = (np.exp(result.log_p) - chi2.sf(result.statistic, 1)) / (result.p_error * np.exp(result.log_p))
    assert np.all(np.abs(z) < 4)


def test_best_threshold_of_independent_variants_has_the_known_tail():
    # One grouping: z2 is chi-square with 1 df.
    G = draw_genotypes(6, 9, rarest=60)
    stats = summarise(G, np.random.default_rng(3).normal(size=(3, N)))
    search = Search("burden", build_groupings(stats.maf, max_maf=(1.0,)))
    result = search_statistics(stats, [search])["burden"]
    burden = stats.U.sum(axis=1) ** 2 / (stats.scale * stats.V.sum())
    assert result.statistic == pytest.approx(burden, rel=1e-10)
    assert np.exp(result.log_p) == pytest.approx(chi2.sf(burden, 1), rel=4 * result.p_error.max())


def test_traits_together_equal_traits_alone():
    G = draw_genotypes(20, 5)
    ys = np.random.default_rng(2).normal(size=(3, N))
    together = compute_search("step-up", summarise(G, ys))
    for t, y in enumerate(ys):
        alone = compute_search("step-up", summarise(G, y))
        assert alone.log_p[0] == together.log_p[t]
        assert alone.detail.permutations[0] == together.detail.permutations[t]


def test_searches_share_a_stream_and_do_not_change_each_other():
    stats = summarise(draw_genotypes(15, 7), np.random.default_rng(4).normal(size=N))
    searches = [Search("step-up"), Search("all-maf", build_groupings(stats.maf), signs="data")]
    both = search_statistics(stats, searches)
    assert both["step-up"].log_p == search_statistics(stats, searches[:1])["step-up"].log_p
    assert both["all-maf"].log_p == search_statistics(stats, searches[1:])["all-maf"].log_p


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("signs", ["fixed", "data"])
def test_shared_statistics_agree_with_permutation_on_null_data(signs, binary):
    # MAC >= 40: normal scores stand in for permuted ones. Difference of two Monte Carlo estimates, 4 standard errors.
    resampling = Resampling(max_permutations=4000, exceedances=4000)
    # shared statistics cannot count alleles in controls, so inverse-sd weights of a binary trait differ
    weights = "constant" if binary else "both"
    for seed in range(3):
        rng = np.random.default_rng(seed)
        G = draw_genotypes(8, seed, rarest=40)
        y = (rng.permutation(N) < N // 2) * 1.0 if binary else rng.normal(size=N)
        maf = G.mean(axis=0) / 2
        searches = [Search("step-up", None, weights, signs), Search("all-maf", build_groupings(maf), "constant", signs)]
        summary = search_statistics(summarise(G, y), searches, resampling)
        trait = IndividualTrait(y - y.mean(), case=y > 0 if binary else None)
        individual = search_individuals(sparse(G), trait, searches, resampling)
        for name in ("step-up", "all-maf"):
            p, q = np.exp(summary[name].log_p[0]), np.exp(individual[name].log_p[0])
            assert summary[name].statistic[0] == pytest.approx(individual[name].statistic[0], rel=1e-9)
            assert abs(p - q) < 4 * np.sqrt((p * (1 - p) + q * (1 - q)) / 4000) + 0.01


def test_shared_replicates_of_two_studies_replace_normal_draws():
    # The union of two studies, the second without one variant; exact where normal draws are not (singletons).
    rng = np.random.default_rng(12)
    G1, G2 = draw_genotypes(6, 1, 600), draw_genotypes(5, 2, 900)
    y1, y2 = rng.normal(size=600), rng.normal(size=900)
    where = [np.arange(6), np.array([0, 1, 3, 4, 5])]
    parts = [summarise(G1, y1), summarise(G2, y2)]
    shared, U, V = [], np.zeros((1, 6)), np.zeros((6, 6))
    for k, (G, y, part, at) in enumerate(zip((G1, G2), (y1, y2), parts, where, strict=True)):
        phi = y.var(ddof=1)
        replicates = draw_replicates(sparse(G), IndividualTrait(y), 6000, seed=1, study=f"study{k}") / phi
        assert np.cov(replicates.T) == pytest.approx(part.V / phi, abs=0.08 * np.max(part.V / phi))
        shared.append((replicates, at))
        U[:, at] += part.U
        V[np.ix_(at, at)] += part.V / phi
    total = combine_replicates(shared, 6)
    mac = np.full(6, 5.0)
    stats = ScoreStatistics(U, V / 4, np.full(1, 4.0), mac / 3000, mac, np.full(1, 1500.0), np.ones(6, dtype=bool))
    resampling = Resampling(max_permutations=6000, exceedances=6000)
    found = search_statistics(stats, [Search("step-up")], resampling, total[None])["step-up"]

    def statistic(u):
        return reference.step_up(lambda b: reference.z2_model(u, V, b), np.ones(6))[0]

    k = sum(statistic(u) >= statistic(U[0]) * (1 - 1e-9) for u in total[:1500])
    expected = (1 + k) / 1501
    assert np.exp(found.log_p[0]) == pytest.approx(expected, abs=4 * np.sqrt(expected * (1 - expected) / 1500))
    assert found.method == "shared-permutations"


def test_replicates_of_studies_are_independent_and_repeat():
    G, y = draw_genotypes(4, 1, 300), np.random.default_rng(1).normal(size=300)
    draws = [draw_replicates(sparse(G), IndividualTrait(y), 2000, 5, name) for name in ("a", "a", "b")]
    assert np.array_equal(draws[0], draws[1])
    assert abs(np.corrcoef(draws[0][:, 0], draws[2][:, 0])[0, 1]) < 0.1


def test_groupings_default_to_all_columns_and_all_variants():
    rng = np.random.default_rng(3)
    G = draw_genotypes(9, 2)
    columns = {"lof": np.r_[np.ones(3), np.zeros(6)], "polyphen": rng.random(9), "class": np.repeat([1.0, 2.0, 3.0], 3)}
    stats = summarise(G, rng.normal(size=N), columns)
    result = compute_search("groupings", stats, StepUpParameters(categorical=("class",), resampling=QUICK))
    groups = [np.ones(9, dtype=bool), columns["lof"] == 1]
    groups += [columns["polyphen"] >= cut for cut in columns["polyphen"]]
    groups += [columns["class"] == value for value in (1, 2, 3)]
    U = stats.U[0] / np.sqrt(stats.scale[0])
    z2 = max(
        reference.z2_model(U, stats.V, members.astype(float)) for members in reference.threshold_sets(stats.maf, groups)
    )
    assert result.statistic[0] == pytest.approx(z2, rel=1e-10)
    assert "maf<=" in result.detail.grouping[0]
    all_maf = compute_search("all-maf", stats, StepUpParameters(resampling=QUICK))
    assert all_maf.statistic[0] <= result.statistic[0]


def test_thresholds_differ_from_each_other():
    # A loop that thresholds, then passes the unthresholded set on, makes all groupings alike.
    maf = np.array([0.01, 0.002, 0.03, 0.002])
    walk = build_groupings(maf)
    members = [walk.members(label, 4).tolist() for label in range(walk.n_groupings)]
    assert members == [[False, True, False, True], [True, True, False, True], [True] * 4]
    assert [walk.name(label) for label in range(3)] == [f"all variants, maf<={cut:g}" for cut in (0.002, 0.01, 0.03)]


def test_groups_of_columns():
    values = np.array([0.1, np.nan, 0.9, 0.1])
    assert {k: v.tolist() for k, v in group_by_score("sift", values, "low").items()} == {
        "sift<=0.1": [True, False, False, True],
        "sift<=0.9": [True, False, True, True],
    }
    assert list(group_by_score("pp", values)) == ["pp>=0.1", "pp>=0.9"]
    assert group_by_category("c", values)["c=0.9"].tolist() == [False, False, True, False]


def test_all_subsets_and_a_fixed_set_from_shared_statistics():
    G = draw_genotypes(7, 6)
    stats = summarise(G, np.random.default_rng(5).normal(size=N) + 0.5 * G[:, 2])
    parameters = StepUpParameters("both", "data", resampling=QUICK)
    sets = {"subsets": reference.all_subsets(7), "cut-off": [np.ones(7, dtype=bool)]}
    U = stats.U[0] / np.sqrt(stats.scale[0])
    for name, members in sets.items():
        z2 = -1.0
        for weighting in ("constant", "inverse-sd"):
            b = reference.weights(G, weighting) * np.where(U < 0, -1, 1)
            z2 = max(z2, reference.best_set(lambda x: reference.z2_model(U, stats.V, x), b, members)[0])
        assert compute_search(name, stats, parameters).statistic[0] == pytest.approx(z2, rel=1e-10)
    many = summarise(draw_genotypes(13, 6), np.random.default_rng(5).normal(size=N))
    assert "1 to 12 variants, got 13" in compute_search("subsets", many).note
    with pytest.raises(ConfigError, match="did you mean 'step-up'"):
        compute_search("stepup", stats)


def test_gray_code_visits_every_subset_once():
    walk = build_subsets(5)
    seen = {tuple(walk.members(label, 5)) for label in range(walk.n_groupings)}
    assert len(seen) == 31
    assert len(build_subsets(12).label) == 4095


@pytest.mark.parametrize(
    ("change", "note"),
    [
        (lambda U, V, maf: (U[:, :0], V[:0, :0], maf[:0]), "no variants"),
        (lambda U, V, maf: (U * np.nan, V, maf), "not finite"),
        (lambda U, V, maf: (U * 0, V * 0, maf * 0), "monomorphic"),
        (lambda U, V, maf: (U, V - 2 * np.diag(np.diag(V)), maf), "positive semi-definite|monomorphic"),
        (lambda U, V, maf: (U, V, maf + 1), "outside"),
    ],
)
def test_bad_statistics_give_a_row_with_a_note(change, note):
    stats = summarise(draw_genotypes(4, 1), np.random.default_rng(1).normal(size=(2, N)))
    U, V, maf = change(stats.U, stats.V, stats.maf)
    m = len(maf)
    bad = ScoreStatistics(U, V, stats.scale, maf, stats.mac[:m], stats.n_samples, np.ones(m, dtype=bool))
    for name in SEARCHES:
        result = compute_search(name, bad)
        assert result.note
        assert np.all(np.isnan(result.log_p))
        assert any(word in result.note for word in note.split("|"))


def test_perfect_ld_and_monomorphic_variants_change_nothing():
    G = draw_genotypes(5, 2, rarest=50)
    y = np.random.default_rng(2).normal(size=N)
    plain = compute_search("step-up", summarise(G, y))
    doubled = compute_search("step-up", summarise(np.column_stack([G, G[:, 0], np.zeros(N)]), y))
    assert doubled.statistic[0] >= plain.statistic[0] * (1 - 1e-12)
    assert not doubled.detail.chosen[0, 6]
    assert np.isfinite(doubled.log_p[0])


def tied_gene(seed, n_blocks=7, size=40):
    """Blocks of samples with the same residuals in another order, and variants that have the same carriers in each.

    Block by block the variants are equal by definition and differ by the rounding of sums; so do those of the first
    block and their copies in perfect LD, and the first six have no covariance with the trait.
    """
    rng = np.random.default_rng(seed)
    base = np.append(rng.normal(size=size // 2), -0.1 * np.arange(1, size // 2 + 1))
    base[:6] = (0.1, 0.2, -0.3, 0.7, -0.4, -0.3)
    base -= np.append(np.zeros(6), np.full(size - 6, base.mean() * size / (size - 6)))
    sets = [(0, 1, 2), (3, 4, 5), (7, 8, 9, 12), (10, 11, 13), (14,), (25, 29, 33)]
    y, columns = [], []
    for block in range(n_blocks):
        order = rng.permutation(size)
        y.append(base[order])
        for carriers in sets:
            column = np.zeros((n_blocks, size))
            column[block] = np.isin(order, carriers)
            columns.append(column.ravel())
    G = np.column_stack(columns)
    return np.column_stack([G, G[:, :6]])[:, rng.permutation(6 * n_blocks + 6)], np.concatenate(y)


@pytest.mark.parametrize(("weighting", "sign", "variance", "binary"), SETTINGS)
def test_ties_go_to_the_first_variant_in_any_order_of_the_samples(weighting, sign, variance, binary):
    rng = np.random.default_rng(1)
    for seed in range(4):
        G, y = tied_gene(seed)
        case = y > 0.5
        e = (case - case.mean()) if binary else y - y.mean()
        maf = np.where(np.arange(G.shape[1]) % 2, 1 - (1 - G.mean(axis=0) / 2), G.mean(axis=0) / 2)  # rounding
        walks = {"s": None, "all-maf": build_groupings(maf), "subsets": build_subsets(9)}
        searches = [Search(name, walk, weighting, sign, variance) for name, walk in walks.items()]
        z2, members = reference.search(G, e, None, weighting, sign, variance, case if binary else None)
        for order in [np.arange(len(e)), *(rng.permutation(len(e)) for _ in range(6))]:
            trait = IndividualTrait(e[order], case=case[order] if binary else None)
            found = search_individuals(sparse(G[order]), trait, searches, Resampling(1))
            assert found["s"].statistic[0] == pytest.approx(z2, rel=1e-9)
            assert found["s"].detail.chosen[0].tolist() == members.tolist()
            if order[0] == 0 and order[1] == 1:
                first = found
            for name in walks:
                assert found[name].statistic[0] == pytest.approx(first[name].statistic[0], rel=1e-9)
                assert np.array_equal(found[name].detail.chosen, first[name].detail.chosen)
                assert np.allclose(found[name].detail.weight, first[name].detail.weight, rtol=1e-9)


@pytest.mark.ci
def test_ties_in_shared_statistics_go_to_the_first_variant_whatever_rounding_does():
    rng = np.random.default_rng(5)
    G, y = tied_gene(3)
    exact = summarise(G, y)
    for weights, signs in itertools.product(("constant", "inverse-sd", "both"), ("fixed", "data")):
        parameters, rows = StepUpParameters(weights, signs, resampling=QUICK), []
        for _ in range(10):
            of_U, of_V = (1e-14 * rng.normal(size=x.shape) for x in (exact.U, exact.V))
            rounded = replace(exact, U=exact.U * (1 + of_U), V=exact.V * (1 + of_V + of_V.T))
            rows.append(compute_search("step-up", rounded, parameters))
        assert all(np.array_equal(row.detail.chosen, rows[0].detail.chosen) for row in rows)
        assert all(row.statistic == pytest.approx(rows[0].statistic, rel=1e-9) for row in rows)
        # the draws are searched by the same rule: as many of them are as large
        assert all(row.detail.exceedances == rows[0].detail.exceedances for row in rows)


def test_equal_weightings_are_the_first_of_the_two():
    # singletons: inverse-sd weights are one number, so that both weightings have the same z2
    rng = np.random.default_rng(6)
    G = np.eye(N)[:, :8]
    for _ in range(10):
        found = compute_search("step-up", summarise(G, rng.normal(size=N)), StepUpParameters("both", resampling=QUICK))
        assert set(found.detail.weight.ravel()) == {0.0, 1.0}


def test_frequencies_that_differ_by_rounding_are_one_threshold():
    counts = np.array([1.0, 3, 1, 7, 3, 3])
    f = counts / 5000
    maf = np.where(np.arange(6) % 2, f, 1 - (1 - f))
    assert len(np.unique(maf)) > 3
    walk = build_groupings(maf)
    assert [walk.members(k, 6).sum() for k in range(walk.n_groupings)] == [2, 5, 6]


def test_wrong_requests_are_refused():
    stats = summarise(draw_genotypes(3, 1), np.random.default_rng(1).normal(size=N))
    with pytest.raises(InputError, match="needs individual data"):
        search_statistics(stats, [Search("s", variance="empirical")])
    with pytest.raises(ConfigError, match="did you mean 'inverse-sd'"):
        Search("s", weights="inverse_sd")
    with pytest.raises(ConfigError, match="unknown annotation column 'sfit'; did you mean 'sift'"):
        group_by_columns({"sift": np.zeros(3)}, low_is_damaging=("sfit",))
    with pytest.raises(InputError, match="1 to 12"):
        build_subsets(13)
    with pytest.raises(InputError, match="different names"):
        plan_searches([Search("s"), Search("s")], 3)
    with pytest.raises(InputError, match="name variant 11"):
        plan_searches([Search("s", build_subsets(12))], 3)
    with pytest.raises(InputError, match="trait, replicate, variant"):
        search_statistics(stats, [Search("s")], replicates=np.zeros((1, 10, 4)))
    with pytest.raises(InputError, match="distinct positions"):
        combine_replicates([(np.zeros((5, 2)), np.array([1, 1]))], 3)
    with pytest.raises(ConfigError, match="max_permutations"):
        Resampling(max_permutations=0)


@pytest.mark.parametrize("shape", [0.0, 0.1, 0.3])
def test_pareto_tail_recovers_a_known_tail_within_its_own_error(shape):
    inside = 0
    for seed in range(60):
        values = genpareto.rvs(shape, scale=2.0, size=4000, random_state=seed)
        tail = fit_pareto_tail(values)
        z = genpareto.isf(1e-4, shape, scale=2.0)
        inside += abs(tail.log_sf(z) - math.log(1e-4)) < 2 * tail.log_sf_error(z)
    assert inside >= 51  # 95 % of 60 is 57; 99.9 % of binomial draws exceed 50


def test_pareto_tail_of_chi_square_far_out_never_nought():
    values = chi2.rvs(1, size=100_000, random_state=1)
    tail = fit_pareto_tail(values)
    assert tail.log_sf(chi2.isf(1e-6, 1)) == pytest.approx(math.log(1e-6), abs=0.7)
    assert np.isfinite(tail.log_sf(1e5))
    assert tail.log_sf(tail.threshold) == pytest.approx(math.log(tail.n_beyond / tail.n_total), rel=1e-12)
    bounded = fit_pareto_tail(np.random.default_rng(1).random(5000))
    assert bounded.shape == 0.0
    assert np.isfinite(bounded.log_sf(5.0))


def test_discrete_or_few_replicates_have_no_tail():
    assert fit_pareto_tail(np.repeat(np.arange(20.0), 100)) is None
    assert fit_pareto_tail(np.random.default_rng(1).random(100)) is None


def test_sampling_stops_at_the_exceedance_that_is_enough():
    def draw(active, statistic):
        nonlocal at
        statistic[:] = (np.arange(at, at + len(statistic)) % 10 == 9)[:, None]
        at += len(statistic)

    at = 0
    result = resample_p(draw, np.array([[1.0, 0.5, 2.0, np.nan]]), Resampling(max_permutations=5000, exceedances=20))
    assert result.permutations.tolist() == [[200, 200, 5000, 0]]
    assert result.exceedances.tolist() == [[20, 20, 0, 0]]
    assert np.exp(result.log_p[0, :3]) == pytest.approx([21 / 201, 21 / 201, 1 / 5001], rel=1e-12)
    assert np.isnan(result.log_p[0, 3])


def test_far_tail_comes_from_splitting_and_equals_importance_sampling():
    """all-maf of fixed signs is the variable threshold test, whose tail is known to one percent."""
    rng = np.random.default_rng(2)
    G = draw_genotypes(10, 3, rarest=40)
    y = rng.normal(size=N) + 0.8 * G[:, :3].sum(axis=1)
    stats = summarise(G, y)
    known = evaluate(stats, ["vt"], ["flat"])[0][2]
    result = compute_search("all-maf", stats, StepUpParameters(resampling=Resampling(max_permutations=20_000)))
    assert result.method == "normal-resampling+splitting"
    assert result.statistic[0] == pytest.approx(known.statistic[0] ** 2, rel=1e-9)
    assert known.log_p[0] < math.log(1e-6)
    assert result.log_p[0] == pytest.approx(known.log_p[0], abs=5 * result.p_error[0])
    assert 0.0 < result.p_error[0] < 0.7
