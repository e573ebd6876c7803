"""Gene tests against their definitions, limits and symmetries, and their answers to bad input."""

import math
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from locomass.errors import ConfigError, StatisticsError
from locomass.gene_tests import components
from locomass.gene_tests import skat_o as skat_o_module
from locomass.gene_tests.acat import combine_log_p
from locomass.gene_tests.base import ScoreStatistics
from locomass.gene_tests.burden import evaluate_sum
from locomass.gene_tests.components import take_variants
from locomass.gene_tests.conditional import condition_scores, select_index_variants
from locomass.gene_tests.heterogeneity import cochran_q, mean_and_variance_test
from locomass.gene_tests.registry import TESTS, evaluate
from locomass.gene_tests.skat import find_drivers
from locomass.gene_tests.ultra_rare import collapse_ultra_rare
from locomass.gene_tests.variable_threshold import variable_threshold_from_sums
from locomass.gene_tests.weights import compute_weights, parse_weights
from tests import reference_gene_tests as reference

SEARCHES = ("step-up", "all-maf", "groupings", "subsets", "cut-off")
STUDIES = ("skat-het", "burden-het", "random-effects", "skat-random-effects")
SINGLE = ("burden", "skat", "skat-o", "skat-o-published", "acat-v", "acat-o", "vt", "cmc", "price", "skat-joint")
ALL = SINGLE + STUDIES + SEARCHES


def simulate_gene(m=8, traits=1, n=2000, seed=0, common=0, signal=0.0):
    """A gene in linkage equilibrium with one covariate; the last ``common`` variants are common."""
    rng = np.random.default_rng(seed)
    f = np.concatenate((rng.uniform(5e-4, 0.01, m - common), rng.uniform(0.1, 0.4, common)))
    G = rng.binomial(2, f, (n, m)).astype(float)
    G[rng.integers(0, n, m), np.arange(m)] += 1  # nobody is monomorphic
    X = np.column_stack((np.ones(n), rng.normal(size=n)))
    U, scale, V = [], [], None
    for _ in range(traits):
        y = rng.normal(size=n) + signal * G @ rng.normal(0.5, 1, m)
        u, v, _ = reference.scores(G, X, y)
        V = v if V is None else V
        U.append(u)
        scale.append(v[0, 0] / V[0, 0])
    maf = G.mean(axis=0) / 2
    return ScoreStatistics(
        U=np.array(U),
        V=V,
        scale=np.array(scale),
        maf=maf,
        mac=G.sum(axis=0),
        n_samples=np.full(traits, float(n)),
        rare=maf < 0.05,
        annotations={"cadd": rng.uniform(1, 30, m)},
    )


def run(stats, test, weights="flat", **options):
    return evaluate(stats, (test,), (weights,), **options)[0][2]


def p_of(stats, test, weights="flat", **options):
    return float(np.exp(run(stats, test, weights, **options).log_p[0]))


# weights


@pytest.mark.parametrize("name", ["beta_1_25", "beta_0.5_0.5", "beta_2_7.5", "beta_1_1"])
def test_beta_weights_are_the_density_of_the_minor_frequency(name):
    maf = np.array([1e-4, 0.01, 0.3, 0.5, 0.8, 0.9999])
    a, b = (float(x) for x in name.split("_")[1:])
    expected = stats.beta.pdf(np.minimum(maf, 1 - maf), a, b)
    np.testing.assert_allclose(compute_weights(name, maf, {}), expected, rtol=1e-12)


def test_weights_of_monomorphic_variants_are_finite():
    for name, expected in (("beta_1_25", 25), ("beta_0.5_0.5", 0), ("madsen-browning", 0), ("flat", 1)):
        np.testing.assert_allclose(compute_weights(name, np.array([0.0, 1.0]), {}), expected)


def test_madsen_browning_and_annotation_weights():
    maf = np.array([0.01, 0.7])
    np.testing.assert_allclose(compute_weights("madsen-browning", maf, {}), 1 / np.sqrt(maf * (1 - maf)))
    np.testing.assert_array_equal(compute_weights("annotation:x", maf, {"x": np.array([3.0, 4.0])}), [3, 4])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("flatt", "unknown weights 'flatt'; did you mean 'flat'"),
        ("beta_1", "did you mean 'beta_1_25'"),
        ("beta_0_25", "must be positive"),
        ("annotation:", "unknown weights"),
    ],
)
def test_parse_weights__raises_on_unknown_name(name, message):
    with pytest.raises(ConfigError, match=message):
        parse_weights(name)


def test_compute_weights__raises_on_unknown_column():
    with pytest.raises(ConfigError, match="no annotation column 'cad'; did you mean 'cadd'"):
        compute_weights("annotation:cad", np.array([0.1]), {"cadd": np.array([1.0])})


# single tests against their definitions


@pytest.mark.parametrize("weights", ["flat", "beta_1_25", "madsen-browning", "annotation:cadd"])
def test_burden_equals_its_definition(weights):
    gene = simulate_gene(traits=3, seed=2)
    w = compute_weights(weights, gene.maf, gene.annotations)
    result = run(gene, "burden", weights)
    for t in range(3):
        statistic, beta, se, p = reference.burden(gene.U[t], gene.V * gene.scale[t], w)
        assert result.statistic[t] == pytest.approx(statistic, rel=1e-12)
        assert result.beta[t] == pytest.approx(beta, rel=1e-12)
        assert result.se[t] == pytest.approx(se, rel=1e-12)
        assert math.exp(result.log_p[t]) == pytest.approx(p, rel=1e-12)


def test_burden_is_the_regression_on_the_sum():
    """beta and se are those of least squares of y on the burden and the covariates, with the null's sigma."""
    rng = np.random.default_rng(4)
    G, X = rng.binomial(2, 0.02, (500, 5)).astype(float), np.column_stack((np.ones(500), rng.normal(size=500)))
    y = rng.normal(size=500) + G.sum(axis=1)
    U, V, _ = reference.scores(G, X, y)
    result = evaluate_sum(np.array([U.sum()]), V.sum(), np.ones(1))
    slope = np.linalg.lstsq(np.column_stack((X, G.sum(axis=1))), y, rcond=None)[0][-1]
    assert result.beta[0] == pytest.approx(slope, rel=1e-10)


def test_burden_reaches_1e_minus_300_and_beyond():
    gene = simulate_gene(seed=1)
    for factor in (10.0, 50.0, 500.0):
        strong = replace(gene, U=gene.V.sum(axis=1)[None, :] * factor / math.sqrt(gene.V.sum()))
        log_p = run(strong, "burden").log_p[0]
        assert log_p == pytest.approx(stats.norm.logsf(factor) + math.log(2), rel=1e-12)


@pytest.mark.parametrize("weights", ["flat", "beta_1_25", "annotation:cadd"])
def test_skat_equals_its_definition(weights):
    gene = simulate_gene(m=9, traits=2, seed=3, signal=0.2)
    w = compute_weights(weights, gene.maf, gene.annotations)
    result = run(gene, "skat", weights)
    for t in range(2):
        Q, p = reference.skat(gene.U[t], gene.V * gene.scale[t], w)
        assert result.statistic[t] == pytest.approx(Q, rel=1e-12)
        assert math.exp(result.log_p[t]) == pytest.approx(p, rel=1e-9, abs=1e-12)
    assert (result.p_error < 1e-9).all()


def test_skat_of_equal_independent_variants_is_chi2():
    gene = simulate_gene(m=5)
    gene = replace(gene, V=2.0 * np.eye(5), U=np.array([[30.0, -40.0, 10.0, 0.0, 5.0]]))
    expected = stats.chi2.logsf((gene.U[0] ** 2).sum() / 2, 5)
    assert run(gene, "skat").log_p[0] == pytest.approx(expected, rel=1e-11)


@pytest.mark.parametrize("threshold", [0, 10, 25, 1000])
@pytest.mark.parametrize("rule", ["own", "mean"])
@pytest.mark.parametrize("scheme", ["flat", "beta_1_25", "annotation:cadd"])
def test_acat_v_equals_its_definition(threshold, rule, scheme):
    gene = simulate_gene(m=12, seed=7)
    cadd = np.linspace(0.5, 2.0, 12)
    gene = replace(gene, annotations={"cadd": cadd})
    w = compute_weights(scheme, gene.maf, gene.annotations)

    def own(f):
        mean = cadd[gene.mac <= threshold].mean()
        return {"flat": 1.0, "beta_1_25": stats.beta.pdf(f, 1, 25), "annotation:cadd": mean}[scheme]

    expected = reference.acat_v(gene.U[0], gene.V, w, gene.maf, gene.mac, threshold, own if rule == "own" else None)
    p = p_of(gene, "acat-v", scheme, collapse_mac=threshold, collapsed_weight=rule)
    assert p == pytest.approx(expected, rel=1e-10)


def test_acat_v__many_singletons_have_the_weight_of_their_burden():
    # 30 singletons with p 4e-6 together, and a common variant that says nothing
    m, n = 31, 20_000
    mac = np.array([1.0] * 30 + [400.0])
    gene = simulate_gene(m=m, seed=3)
    U = np.array([*[4.61 / np.sqrt(30)] * 30, 0.1 * np.sqrt(400)])
    gene = replace(gene, U=U[None], V=np.diag(mac), maf=mac / (2 * n), mac=mac)
    assert p_of(gene, "burden") > 1e-3
    own, mean = (p_of(gene, "acat-v", "beta_1_25", collapsed_weight=rule) for rule in ("own", "mean"))
    assert own < 7e-5
    assert mean > 1e-3


def test_acat_o_combines_three_tests_under_every_weighting():
    gene = simulate_gene(m=10, seed=5)
    p = [p_of(gene, test, w) for w in ("flat", "beta_1_25") for test in ("skat", "burden", "acat-v")]
    rows = evaluate(gene, ("acat-o",), ("flat", "beta_1_25"))
    assert [(name, weights) for name, weights, _ in rows] == [("acat-o", "flat+beta_1_25")]
    assert math.exp(rows[0][2].log_p[0]) == pytest.approx(reference.half_cauchy(p), abs=2e-7)
    assert len(rows[0][2].detail.components) == 6


def test_omnibus_across_masks_leaves_missing_rows_out():
    log_p = np.log(np.array([[0.01, 0.5], [np.nan, 0.2], [0.3, np.nan]]))
    combined = combine_log_p(log_p)
    assert math.exp(combined.log_p[0]) == pytest.approx(reference.half_cauchy([0.01, 0.3]), abs=1e-5)
    assert math.exp(combined.log_p[1]) == pytest.approx(reference.half_cauchy([0.5, 0.2]), abs=1e-5)
    assert combine_log_p(np.full((2, 1), np.nan)).note == "no p-value to combine"


# SKAT-O


@pytest.mark.parametrize("seed", [1, 4])
def test_skat_o_equals_the_published_formula(seed):
    gene = simulate_gene(m=5, seed=seed, signal=0.15, n=1000)
    for weights in ("flat", "beta_1_25"):
        w = compute_weights(weights, gene.maf, {})
        expected = reference.skat_o_published(gene.U[0], gene.V, w)
        assert p_of(gene, "skat-o-published", weights) == pytest.approx(expected, rel=1e-6)


def test_skat_o_names_the_best_rho_and_its_p():
    gene = simulate_gene(m=6, seed=11)
    parts = reference.skat_o_parts(gene.U[0], gene.V, np.ones(6))
    best = int(np.argmin([p for _, p, _ in parts]))
    result = run(gene, "skat-o")
    assert result.detail.rho[0] == reference.RHO[best]
    assert math.exp(result.detail.log_p_min[0]) == pytest.approx(parts[best][1], rel=1e-5)
    assert result.statistic[0] == pytest.approx(parts[best][0], rel=1e-12)


@pytest.mark.parametrize(("seed", "stretch"), [(1, 1.0), (2, 2.0), (3, 1.5)])
def test_skat_o_exact_agrees_with_simulation(seed, stretch):
    """Unequal weights and LD, where the published version is off by more than the simulation's error."""
    gene = simulate_gene(m=5, seed=seed, n=600)
    V = gene.V * np.outer(*[[3.0, 1.0, 1.0, 0.3, 0.1]] * 2)
    V = V + 0.3 * np.sqrt(np.outer(V.diagonal(), V.diagonal()))
    U = np.linalg.cholesky(V) @ np.random.default_rng(seed).normal(size=5) * stretch
    gene = replace(gene, V=V, U=U[None, :])
    p, se = reference.skat_o_by_simulation(U, V, np.ones(5), 300_000, np.random.default_rng(9))
    assert p > 2e-3
    assert abs(p_of(gene, "skat-o") - p) < 4 * se


@pytest.mark.parametrize("log_min", [-1.0, -8.0, -14.0, -40.0, -700.0])
def test_skat_o__between_the_smallest_p_and_eight_times_that(log_min):
    gene = simulate_gene(m=10, seed=6)
    null = skat_o_module.joint_null(gene.V, np.linalg.eigvalsh(gene.V))
    for only_exact in (False, True):
        log_p, _ = skat_o_module._one_tail(null, log_min, only_exact)
        assert log_min <= log_p <= log_min + math.log(8)


def test_skat_o_moves_to_the_exact_tail_without_a_jump():
    gene = simulate_gene(m=10, seed=6)
    null = skat_o_module.joint_null(gene.V, np.linalg.eigvalsh(gene.V))
    grid = np.linspace(-11, -17, 121)
    log_p = np.array([skat_o_module._one_tail(null, x, False)[0] for x in grid])
    assert (np.diff(log_p) < 0).all()
    assert np.abs(np.diff(log_p, 2)).max() < 0.01
    assert log_p[-1] == pytest.approx(skat_o_module._one_tail(null, grid[-1], True)[0], rel=1e-12)


def test_skat_o_of_one_variant_is_the_burden():
    gene = simulate_gene(m=1, seed=3)
    for test in ("skat", "skat-o", "skat-o-published", "acat-v", "acat-o", "vt", "cmc"):
        assert p_of(gene, test) == pytest.approx(p_of(gene, "burden"), rel=1e-9), test


def test_skat_o_of_a_burden_that_cancels_is_skat():
    gene = simulate_gene(m=2, seed=3)
    gene = replace(gene, V=np.array([[2.0, -2.0], [-2.0, 2.0]]), U=np.array([[3.0, -3.0]]))
    assert p_of(gene, "skat-o") == pytest.approx(p_of(gene, "skat"), rel=1e-12)
    assert run(gene, "burden").note == "the weighted sum of the variants does not vary"


def test_many_traits_share_tables_with_the_promised_error():
    gene = simulate_gene(m=8, seed=12, n=800)
    rng = np.random.default_rng(2)
    U = rng.normal(size=(60, 8)) @ np.linalg.cholesky(gene.V).T * rng.uniform(0.5, 4, (60, 1))
    many = replace(gene, U=U, scale=np.ones(60), n_samples=np.full(60, 800.0))
    for test, tolerance in (("skat-o-published", 1e-4), ("skat-o", 1e-4), ("vt", 0.0)):
        together = run(many, test)
        alone = [run(replace(gene, U=U[t : t + 1]), test).log_p[0] for t in range(0, 60, 7)]
        np.testing.assert_allclose(together.log_p[::7], alone, atol=tolerance)
        assert (together.p_error <= 0.005).all()


# variable threshold


def test_variable_threshold_with_two_thresholds_in_the_far_tail():
    v = np.array([1.0, 1.5])
    V = np.minimum.outer(v, v)
    for z in (2.0, 9.4, 30.0):
        result = variable_threshold_from_sums(np.array([[z, 0.0]]), V, np.ones(1), np.array([0.01, 0.05]))
        expected = reference.union_of_two(z, math.sqrt(v[0] / v[1])) if z < 30 else None
        if expected is not None:
            assert math.exp(result.log_p[0]) == pytest.approx(expected, rel=0.003)
        assert result.p_error[0] < 0.002
        assert result.statistic[0] == pytest.approx(z)
        assert result.detail.threshold[0] == 0.01
        one = stats.norm.logsf(z) + math.log(2)
        assert one - 0.01 < result.log_p[0] < one + math.log(2) + 0.01


# |Z| that give p of about 0.3, 1e-3, 1e-8 and 1e-20 for a handful of thresholds
MAXIMA = (1.6, 3.6, 6.0, 9.5)


def p_of_maximum(z, V):
    """(p, p_error) where the first burden has |Z| = z and the others nought."""
    U = np.zeros((1, V.shape[0]))
    U[0, 0] = z * math.sqrt(V[0, 0])
    result = variable_threshold_from_sums(U, V, np.ones(1), np.arange(1.0, V.shape[0] + 1))
    return math.exp(result.log_p[0]), result.p_error[0]


@pytest.mark.ci
def test_variable_threshold_is_right_to_one_percent_in_99_of_100_rows():
    rng = np.random.default_rng(17)
    off, errors = [], []
    for gene in range(50):
        # burdens of independent variants under a random number of thresholds, singletons first
        v = np.cumsum(np.exp(rng.exponential(1.5, rng.integers(2, 40))))
        v = v[np.append(True, v[1:] > 1.02 * v[:-1])]
        for z in MAXIMA:
            p, error = p_of_maximum(z, np.minimum.outer(v, v))
            off.append(abs(p / reference.union_of_chain(z, v) - 1.0))
            errors.append(error)
        # three thresholds of variants in LD
        half = rng.normal(size=(3, 3)) + np.eye(3)
        B = np.triu(np.ones((3, 3)))
        V = B.T @ half @ half.T @ B
        R = V / np.sqrt(np.outer(V.diagonal(), V.diagonal()))
        if np.abs(R - np.eye(3)).max() < 0.99 and np.linalg.det(R) > 1e-3:
            z = MAXIMA[gene % 4]
            p, error = p_of_maximum(z, V)
            off.append(abs(p / reference.union_of_three(z, R) - 1.0))
            errors.append(error)
    assert len(off) > 230
    assert np.mean(np.array(off) < 0.01) >= 0.99
    assert max(errors) < 0.005
    assert math.sqrt(np.mean(np.square(off))) < 1.2 * math.sqrt(np.mean(np.square(errors)))


@pytest.mark.parametrize("seed", range(21, 27))
def test_variable_threshold_agrees_with_brute_force(seed):
    gene = simulate_gene(m=7, seed=seed)
    order = np.argsort(gene.maf)
    B = np.array([(gene.maf <= t).astype(float) for t in np.sort(gene.maf)])
    V = B @ gene.V @ B.T
    Z = np.abs(B @ gene.U[0]) / np.sqrt(V.diagonal())
    rng = np.random.default_rng(0)
    draws = rng.multivariate_normal(np.zeros(7), V, size=400_000) / np.sqrt(V.diagonal())
    for z in (Z.max(), 1.2, 2.5, 3.6):
        stretched = replace(gene, U=gene.U * z / Z.max())
        result = run(stretched, "vt")
        p = (np.abs(draws).max(axis=1) >= z).mean()
        assert abs(math.exp(result.log_p[0]) - p) < 4 * math.sqrt(p / 400_000) + 0.01 * p
    assert result.detail.threshold[0] == gene.maf[order][int(np.argmax(Z))]


def test_variable_threshold__thresholds_in_perfect_correlation_count_once():
    U, V = np.array([[2.0, 2.0, 4.0]]), np.ones((3, 3)) * np.outer([1, 1, 2], [1, 1, 2])
    result = variable_threshold_from_sums(U, V, np.ones(1), np.array([0.1, 0.2, 0.3]))
    assert result.log_p[0] == pytest.approx(stats.norm.logsf(2) + math.log(2), rel=1e-12)
    assert result.method == "chi2"
    assert result.p_error[0] == 0


def test_variable_threshold__of_equal_thresholds_the_first_is_named():
    V, thresholds = np.outer([1.0, 1, 3, 3], [1, 1, 3, 3]) + np.diag([0, 0, 1e-3, 1e-3]), np.array([0.1, 0.2, 0.3, 0.4])
    rng = np.random.default_rng(2)
    for _ in range(20):
        U = np.array([[2.0, 2, 1, 0], [1, 0, 9, 9], [-5, 5, 1, np.nan]]) * (1 + 1e-14 * rng.normal(size=(3, 4)))
        result = variable_threshold_from_sums(U, V, np.ones(3), thresholds)
        assert result.detail.threshold.tolist() == [0.1, 0.3, 0.4]
        assert np.isnan(result.statistic).tolist() == [False, False, True]


def test_variable_threshold__a_frequency_is_one_threshold_whichever_allele_is_the_minor_one():
    gene = simulate_gene(m=6, seed=8)
    maf = np.array([1, 1, 3, 3, 3, 9]) / 5000
    rounded = np.where(np.arange(6) % 2, maf, 1 - (1 - maf))
    assert len(np.unique(rounded)) > 3
    assert run(replace(gene, maf=rounded), "vt").detail.n_thresholds.tolist() == [3]


def test_variable_threshold_repeats():
    gene = simulate_gene(m=6, seed=8)
    assert run(gene, "vt").log_p[0] == run(gene, "vt").log_p[0]


def test_variable_threshold__nothing_varies():
    empty = np.zeros((2, 0))
    assert variable_threshold_from_sums(empty, np.zeros((0, 0)), np.ones(2), np.zeros(0)).note
    assert variable_threshold_from_sums(np.zeros((2, 2)), np.zeros((2, 2)), np.ones(2), np.zeros(2)).note


# CMC, common and rare, Price


def test_cmc_equals_hotelling():
    gene = simulate_gene(m=8, seed=3, common=3)
    C = np.zeros((8, 4))
    C[:5, 0] = 1
    C[5:, 1:] = np.eye(3)
    u, V = C.T @ gene.U[0], C.T @ gene.V @ C
    result = run(gene, "cmc")
    assert result.statistic[0] == pytest.approx(u @ np.linalg.inv(V) @ u, rel=1e-9)
    assert math.exp(result.log_p[0]) == pytest.approx(stats.chi2.sf(result.statistic[0], 4), rel=1e-9)


def test_cmc__a_common_variant_twice_adds_nothing():
    gene = simulate_gene(m=6, seed=4, common=2)
    index = [0, 1, 2, 3, 4, 5, 5]
    twice = replace(
        gene, U=gene.U[:, index], V=gene.V[np.ix_(index, index)], maf=gene.maf[index], mac=gene.mac[index],
        rare=gene.rare[index], annotations={},
    )  # fmt: skip
    assert p_of(twice, "cmc") == pytest.approx(p_of(gene, "cmc"), rel=1e-8)
    assert run(twice, "cmc").detail.df[0] == 3


def test_joint_skat_gives_both_halves_the_same_variance():
    gene = simulate_gene(m=9, seed=4, common=3)
    w = np.where(gene.rare, stats.beta.pdf(gene.maf, 1, 25), stats.beta.pdf(gene.maf, 0.5, 0.5))
    for part in (gene.rare, ~gene.rare):
        A = np.diag(w[part]) @ gene.V[np.ix_(part, part)] @ np.diag(w[part])
        w[part] /= (2 * np.trace(A @ A)) ** 0.25
    _, p = reference.skat(gene.U[0], gene.V, w)
    assert p_of(gene, "skat-joint", "beta_1_25") == pytest.approx(p, rel=1e-6)
    only_rare = replace(simulate_gene(m=5, seed=5))
    assert p_of(only_rare, "skat-joint", "beta_1_25") == pytest.approx(p_of(only_rare, "skat", "beta_1_25"), rel=1e-10)


def test_variable_threshold_does_not_depend_on_the_signs_of_eigenvectors(monkeypatch):
    gene = simulate_gene(m=9, seed=4)
    log_p = run(gene, "vt").log_p[0]
    eigh = np.linalg.eigh

    def turned(A):
        values, vectors = eigh(A)
        return values, vectors * np.where(np.arange(values.size) % 2, 1.0, -1.0)

    monkeypatch.setattr(np.linalg, "eigh", turned)  # rounding in R, of samples in another order, does as much
    assert run(gene, "vt").log_p[0] == pytest.approx(log_p, rel=1e-9)


def test_joint_skat_statistic_has_no_unit():
    gene = simulate_gene(m=9, seed=4, common=3)
    w = np.where(gene.rare, 1.0, stats.beta.pdf(gene.maf, 0.5, 0.5))
    factor = 0.01  # of V, which traits of one study share; the scores of the trait vary by as much
    shared = replace(gene, U=gene.U * math.sqrt(factor), scale=gene.scale * factor)
    expected = 0.0
    for part in (gene.rare, ~gene.rare):
        A = np.diag(w[part]) @ (gene.scale[0] * gene.V[np.ix_(part, part)]) @ np.diag(w[part])
        expected += ((w[part] * gene.U[0, part]) ** 2).sum() / math.sqrt(2 * np.trace(A @ A))
    for same in (gene, shared):
        assert run(same, "skat-joint", "flat").statistic[0] == pytest.approx(expected, rel=1e-9)


def test_price_weighs_all_frequencies():
    gene = simulate_gene(m=8, seed=3, common=3)
    expected = reference.burden(gene.U[0], gene.V, 1 / np.sqrt(gene.maf * (1 - gene.maf)))[3]
    assert p_of(gene, "price") == pytest.approx(expected, rel=1e-12)


def test_tests_of_a_bin_see_rare_variants_only():
    gene = simulate_gene(m=8, seed=3, common=3)
    chosen = gene.rare
    alone = replace(
        gene, U=gene.U[:, chosen], V=gene.V[np.ix_(chosen, chosen)], maf=gene.maf[chosen], mac=gene.mac[chosen],
        rare=chosen[chosen], annotations={"cadd": gene.annotations["cadd"][chosen]},
    )  # fmt: skip
    for name in SINGLE:
        if TESTS[name].scope == "bin":
            assert p_of(gene, name, "annotation:cadd") == p_of(alone, name, "annotation:cadd"), name


# ultra-rare collapsing, drivers


def test_collapse_ultra_rare_adds_scores():
    gene = simulate_gene(m=10, seed=13)
    limit = float(np.median(gene.mac))
    low = gene.mac <= limit
    collapsed = collapse_ultra_rare(gene, limit)
    assert collapsed.n_variants == 1 + (~low).sum()
    assert collapsed.U[0, 0] == pytest.approx(gene.U[0, low].sum())
    assert collapsed.V[0, 0] == pytest.approx(gene.V[np.ix_(low, low)].sum())
    np.testing.assert_allclose(collapsed.V[0, 1:], gene.V[np.ix_(low, ~low)].sum(axis=0))
    assert collapsed.mac[0] == gene.mac[low].sum()
    assert p_of(collapsed, "burden") == pytest.approx(p_of(gene, "burden"), rel=1e-10)


def test_collapse_ultra_rare__nothing_to_collapse():
    gene = simulate_gene(m=4, seed=13)
    assert collapse_ultra_rare(gene, 0.0) is gene


def test_drivers_and_leave_one_out_find_the_causal_variant():
    gene = simulate_gene(m=6, seed=14)
    U = gene.U.copy()
    U[0, 4] = 9 * math.sqrt(gene.V[4, 4])
    gene = replace(gene, U=U)
    index, share = find_drivers(gene, "flat", 3)
    assert index[0, 0] == 4
    assert share[0, 0] == pytest.approx(U[0, 4] ** 2 / (U[0] ** 2).sum())


# several studies


def make_studies(n_studies=3, seed=0, m=5):
    parts = [simulate_gene(m=m, seed=seed + k, n=500 + 300 * k) for k in range(n_studies)]
    U, V = sum(p.U for p in parts), sum(p.V for p in parts)
    return replace(parts[0], U=U, V=V, per_study=tuple((p.U, p.V, p.scale) for p in parts))


def test_skat_het_is_skat_of_the_studies_side_by_side():
    gene = make_studies(3, seed=30)
    w = np.tile(compute_weights("beta_1_25", gene.maf, {}), 3)
    V = np.zeros((15, 15))
    for k, (_, V_k, _) in enumerate(gene.per_study):
        V[5 * k : 5 * k + 5, 5 * k : 5 * k + 5] = V_k
    U = np.concatenate([U_k[0] for U_k, _, _ in gene.per_study])
    assert p_of(gene, "skat-het", "beta_1_25") == pytest.approx(reference.skat(U, V, w)[1], rel=1e-6)


def test_skat_random_effects_is_the_combination_over_dense_kernels():
    gene = make_studies(3, seed=31)
    w = compute_weights("beta_1_25", gene.maf, {})
    V = np.zeros((15, 15))
    for k, (_, V_k, _) in enumerate(gene.per_study):
        V[5 * k : 5 * k + 5, 5 * k : 5 * k + 5] = V_k
    U = np.concatenate([U_k[0] for U_k, _, _ in gene.per_study])
    values, vectors = np.linalg.eigh(V)
    root = vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T
    p = []
    for rho in (0, 0.25, 0.5, 0.75, 1):
        K = np.kron(np.full((3, 3), rho) + (1 - rho) * np.eye(3), np.diag(w**2))
        lam = np.linalg.eigvalsh(root @ K @ root)
        p.append(reference.imhof_sf(U @ K @ U, lam[lam > 1e-5 * lam[lam > 0].mean()]))
    combined = reference.half_cauchy(p)
    assert p_of(gene, "skat-random-effects", "beta_1_25") == pytest.approx(combined, rel=1e-5)


def test_burden_het_sums_the_studies_and_reports_heterogeneity():
    gene = make_studies(3, seed=30)
    U = np.array([U_k[0].sum() for U_k, _, _ in gene.per_study])
    v = np.array([V_k.sum() for _, V_k, _ in gene.per_study])
    result = run(gene, "burden-het")
    assert math.exp(result.log_p[0]) == pytest.approx(stats.chi2.sf((U**2 / v).sum(), 3), rel=1e-10)
    Q, _, p, i2 = reference.cochran(U, v)
    assert result.detail.cochran_q[0] == pytest.approx(Q, rel=1e-10)
    assert math.exp(result.detail.log_p_heterogeneity[0]) == pytest.approx(p, rel=1e-10)
    assert result.detail.i2[0] == pytest.approx(i2)


def test_cochran_q_leaves_studies_without_the_variant_out():
    rng = np.random.default_rng(3)
    v = rng.uniform(1, 5, (4, 6))
    v[0, 0] = v[1, 1] = v[2, 1] = v[0, 2] = 0
    v[1:, 3] = 0
    U = rng.normal(size=(4, 6)) * 3 * np.sqrt(v)
    ours = cochran_q(U, v)
    for j in (0, 1, 2, 4, 5):
        Q, df, p, i2 = reference.cochran(U[:, j], v[:, j])
        assert (ours.q[j], ours.df[j], ours.i2[j]) == pytest.approx((Q, df, i2))
        assert math.exp(ours.log_p[j]) == pytest.approx(p, rel=1e-9)
    assert np.isnan(ours.log_p[3])
    assert np.isnan(ours.i2[3])


def test_random_effects_agree_with_simulation():
    rng = np.random.default_rng(8)
    for v, z in (([1.0, 1.0], [1.5, -1.0]), ([1.0, 3.0, 0.4], [1.8, 0.4, -2.1]), ([2.0, 2.0, 2.0, 1.0], [1, 1, 1, 2])):
        v, U = np.array(v), np.array(z) * np.sqrt(v)
        T, p, se = reference.mean_and_variance_by_simulation(U, v, 400_000, rng)
        statistic, log_p, error = mean_and_variance_test(U, v)
        assert statistic == pytest.approx(T, rel=1e-12)
        assert abs(math.exp(log_p) - p) < 4 * se
        assert error < 1e-6


def test_random_effects_beat_the_burden_when_effects_disagree():
    v = np.full(4, 10.0)
    disagree, agree = np.array([20.0, -20.0, 18.0, -17.0]), np.array([10.0, 11.0, 9.0, 10.0])
    assert mean_and_variance_test(disagree, v)[1] < math.log(1e-8)
    assert mean_and_variance_test(agree, v)[1] < math.log(1e-7)
    assert mean_and_variance_test(1e3 * disagree, v)[1] < -1e5


def simulate_null_studies(sizes, n_traits, seed, m=12):
    """A gene of rare variants in several studies, each trait pure noise with one covariate; genotypes stay the same."""
    rng = np.random.default_rng(seed)
    f, parts, count = rng.uniform(1e-3, 0.02, m), [], np.zeros(m)
    for n in sizes:
        G = rng.binomial(2, f, (n, m)).astype(float)
        G[:, 1] = np.maximum(G[:, 1], G[:, 0] * rng.integers(0, 2, n))  # some linkage disequilibrium
        X = np.column_stack((np.ones(n), rng.normal(size=n)))
        rest = np.eye(n) - X @ np.linalg.solve(X.T @ X, X.T)
        residual = rest @ rng.normal(size=(n, n_traits))
        sigma2 = (residual**2).sum(axis=0) / (n - 2)
        parts.append(((residual / sigma2).T @ G, G.T @ rest @ G, 1 / sigma2))
        count += G.sum(axis=0)
    # one trait at a time, as sums over studies come
    for t in range(n_traits):
        studies = tuple((U[t : t + 1], V * scale[t], np.ones(1)) for U, V, scale in parts)
        yield ScoreStatistics(
            U=sum(U for U, _, _ in studies), V=sum(V for _, V, _ in studies), scale=np.ones(1),
            maf=count / 2 / sum(sizes), mac=count, n_samples=np.full(1, float(sum(sizes))), rare=np.ones(m, bool),
            annotations={}, per_study=studies,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("n_traits", "levels"), [(300, (0.05,)), pytest.param(20_000, (0.05, 0.01, 0.001), marks=pytest.mark.slow)]
)
def test_skat_random_effects_keeps_its_level(n_traits, levels):
    """Rejections of noise are within four standard errors of the level; the long run is in docs/statistics.md."""
    rejected = {}
    for scheme in ("flat", "beta_1_25"):
        genes = simulate_null_studies((300, 500, 800), n_traits, seed=71)
        p = np.array([p_of(gene, "skat-random-effects", scheme) for gene in genes])
        rejected[scheme] = [float((p < level).mean()) for level in levels]
    print(f"skat-random-effects, {n_traits:,} replicates, levels {levels}: {rejected}")
    for rates in rejected.values():
        for level, rate in zip(levels, rates, strict=True):
            assert abs(rate - level) < 4 * math.sqrt(level * (1 - level) / n_traits)


def test_skat_random_effects_takes_ultra_rare_variants_as_one():
    gene = make_studies(3, seed=33)
    bound = float(np.sort(gene.mac)[2])
    pooled = collapse_ultra_rare(gene, bound)
    assert pooled.n_variants == 3
    expected = p_of(pooled, "skat-random-effects")
    assert p_of(gene, "skat-random-effects", ultra_rare=bound) == pytest.approx(expected, rel=1e-9)
    assert p_of(gene, "skat-random-effects") != pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("test", ["skat-het", "burden-het", "random-effects", "skat-random-effects"])
def test_heterogeneity__needs_two_studies(test):
    assert run(simulate_gene(), test).note == "needs the statistics of at least two studies"


# conditional analysis


def test_condition_scores_equals_a_null_model_with_the_index_variants():
    """Linear model with the residual variance of the first null model: the projection is then exact."""
    rng = np.random.default_rng(6)
    G = rng.binomial(2, 0.1, (400, 6)).astype(float)
    X = np.column_stack((np.ones(400), rng.normal(size=400)))
    y = rng.normal(size=400) + G[:, 1] - G[:, 4]
    U, V, sigma2 = reference.scores(G, X, y)
    left_U, left_V, left = condition_scores(U[None, :], V, np.array([1, 4]))
    U_c, V_c, sigma2_c = reference.scores(G, np.column_stack((X, G[:, [1, 4]])), y)
    keep = [0, 2, 3, 5]
    np.testing.assert_array_equal(np.flatnonzero(left), keep)
    np.testing.assert_allclose(left_U[0, keep], U_c[keep] * sigma2_c / sigma2, rtol=1e-8)
    np.testing.assert_allclose(
        left_V[np.ix_(keep, keep)], V_c[np.ix_(keep, keep)] * sigma2_c / sigma2, rtol=1e-8, atol=1e-8
    )
    assert (left_U[0, [1, 4]] == 0).all()


def test_condition_scores__index_variants_in_perfect_ld():
    gene = simulate_gene(m=5, seed=2)
    index = [0, 1, 2, 3, 4, 4]
    U, V = gene.U[:, index], gene.V[np.ix_(index, index)]
    once = condition_scores(U, V, np.array([4]))
    twice = condition_scores(U, V, np.array([4, 5]))
    np.testing.assert_allclose(once[0], twice[0], atol=1e-10)
    np.testing.assert_array_equal(once[2], [True] * 4 + [False] * 2)


def test_condition_scores__raises_on_bad_index():
    gene = simulate_gene(m=3)
    for index in ([3], [0, 0], [-1]):
        with pytest.raises(StatisticsError, match="expected distinct positions below 3"):
            condition_scores(gene.U, gene.V, np.array(index))


def test_select_index_variants_stops_when_the_signal_is_explained():
    rng = np.random.default_rng(16)
    causal = rng.binomial(2, 0.2, (1500, 2)).astype(float)
    proxies = np.where(rng.random((1500, 4)) < 0.05, 0, causal[:, [0, 0, 1, 1]])
    G = np.column_stack((proxies, causal, rng.binomial(2, 0.2, (1500, 3))))
    y = rng.normal(size=1500) + 0.9 * causal[:, 0] + 0.6 * causal[:, 1]
    U, V, _ = reference.scores(G, np.ones((1500, 1)), y)
    selected = select_index_variants(U, V)
    assert selected.index.tolist() == [4, 5]
    assert (selected.log_p < math.log(5e-8)).all()
    assert select_index_variants(U, V, max_variants=1).index.tolist() == [4]
    only = select_index_variants(U, V, candidates=np.arange(9) >= 6)
    assert only.index.size == 0
    gene = ScoreStatistics(
        U[None, :], V, np.ones(1), G.mean(axis=0) / 2, G.sum(axis=0), np.array([1500.0]), np.ones(9, bool)
    )
    U, V, kept = condition_scores(gene.U, gene.V, selected.index)
    left = take_variants(replace(gene, U=U, V=V), kept)
    assert left.n_variants == 7
    assert p_of(left, "skat") > 1e-3 > p_of(gene, "skat")


# registry


def test_evaluate_returns_rows_in_the_order_of_the_configuration():
    gene = simulate_gene()
    rows = evaluate(gene, ("skat", "cmc", "acat-o", "burden"), ("beta_1_25", "flat"))
    assert [(test, weights) for test, weights, _ in rows] == [
        ("skat", "beta_1_25"), ("skat", "flat"), ("cmc", ""), ("acat-o", "beta_1_25+flat"),
        ("burden", "beta_1_25"), ("burden", "flat"),
    ]  # fmt: skip


def test_every_registered_test_is_covered_here():
    assert set(ALL) == set(TESTS)


def test_evaluate_computes_shared_parts_once(monkeypatch):
    calls = []
    original = components.compute_common_tests
    monkeypatch.setattr(components, "compute_common_tests", lambda *a: calls.append(a[3].shape) or original(*a))
    gene = simulate_gene(m=6)
    rows = evaluate(gene, ("skat", "acat-o", "skat-o", "burden", "price"), ("flat", "beta_1_25"))
    assert calls == [(2, 6), (1, 6)]  # all sets of weights at once; Madsen-Browning for the last
    for test, weights, result in rows:  # what is computed alone is the same
        alone = evaluate(gene, (test,), weights.split("+") if weights else ("flat",))[0][2]
        np.testing.assert_array_equal(alone.log_p, result.log_p)


def test_evaluate__raises_on_unknown_names():
    gene = simulate_gene()
    with pytest.raises(ConfigError, match="unknown test 'skato'; did you mean 'skat-o'"):
        evaluate(gene, ("skato",))
    with pytest.raises(ConfigError, match="unknown weights"):
        evaluate(gene, ("skat",), ("betta",))


def test_evaluate__raises_on_shapes_that_do_not_fit():
    gene = simulate_gene(m=4)
    with pytest.raises(StatisticsError, match="do not fit"):
        evaluate(replace(gene, maf=gene.maf[:3]), ("skat",))


@pytest.mark.parametrize("test", ALL)
def test_every_test_has_a_row_without_a_p_value_for_bad_input(test):
    gene = make_studies(2, seed=3)
    nan = gene.V.copy()
    nan[0, 1] = np.nan
    negative = gene.V - 3 * np.diag(gene.V.diagonal())
    indefinite = np.ones((5, 5)) + 0.5 * np.outer(*[[1, -1, 1, -1, 1.0]] * 2)
    np.fill_diagonal(indefinite, 1.0)
    lopsided = gene.V.copy()
    lopsided[0, 1] += 0.5 * math.sqrt(gene.V[0, 0] * gene.V[1, 1])
    none = np.zeros(5, bool)
    empty = replace(
        gene, U=gene.U[:, :0], V=gene.V[:0, :0], maf=gene.maf[:0], mac=gene.mac[:0], rare=none[:0], annotations={},
        per_study=tuple((U[:, :0], V[:0, :0], scale) for U, V, scale in gene.per_study),
    )  # fmt: skip
    still = gene.V.copy()
    still[2, :] = still[:, 2] = 0
    cases = {
        "not finite": replace(gene, V=nan),
        "a variance is negative": replace(gene, V=negative),
        "not positive semi-definite": replace(gene, V=indefinite),
        "not symmetric": replace(gene, V=lopsided),
        r"outside \[0, 1\]": replace(gene, maf=gene.maf + 1),
        "frequencies": replace(gene, maf=gene.maf * np.nan),
        "monomorphic": replace(gene, V=np.zeros((5, 5))),
        "no variants": empty,
        "scale must be positive": replace(gene, scale=np.zeros(1)),
        "U (or V )?is not finite": replace(
            gene, U=gene.U * np.inf, per_study=tuple((U * np.nan, V, s) for U, V, s in gene.per_study)
        ),
        "not zero although": replace(gene, V=still, U=gene.U + 1),
    }
    for words, bad in cases.items():
        for _, _, result in evaluate(bad, (test,), ("flat",)):
            assert np.isnan(result.log_p).all(), words
            assert np.isnan(result.statistic).all(), words
            assert re.search(words, result.note), (words, result.note)


@pytest.mark.parametrize("test", ["skat-het", "burden-het", "random-effects", "skat-random-effects"])
def test_heterogeneity__bad_statistics_of_one_study_have_no_p_value(test):
    """Whose sum is sound, or whose scores are infinite as the sum's are."""
    gene = make_studies(2, seed=3)
    (U_1, V_1, scale), (U_2, V_2, _) = gene.per_study
    bent = V_1.copy()
    bent[0, 1] = bent[1, 0] = 1.2 * math.sqrt(V_1[0, 0] * V_1[1, 1])
    whole = V_1 + 10 * V_2
    below = V_1 - 1.5 * np.diag(V_1.diagonal())
    cases = {
        "study 1 .*not positive semi-definite": (bent, whole - bent, U_1, gene.U),
        "study 1 .*a variance is negative": (below, whole - below, U_1, gene.U),
        "U is not finite": (V_1, V_2, U_1 * np.inf, gene.U * np.inf),
    }
    for words, (first, second, U, total) in cases.items():
        V = gene.V if second is V_2 else whole
        bad = replace(gene, U=total, V=V, per_study=((U, first, scale), (U_2, second, scale)))
        result = evaluate(bad, (test,), ("flat",))[0][2]
        assert np.isnan(result.log_p).all(), words
        assert re.search(words, result.note), (words, result.note)


@pytest.mark.parametrize("test", ALL)
def test_weights_without_use_give_a_note(test):
    gene = make_studies(2, seed=3)
    if TESTS[test].weights == "none":
        return
    for column, words in (
        (np.zeros(5), "zero for every variant|do not vary"),
        (np.full(5, np.nan), "have no value for"),
    ):
        bad = replace(gene, annotations={"x": column})
        result = evaluate(bad, (test,), ("annotation:x",))[0][2]
        assert np.isnan(result.log_p).all()
        assert re.search(words, result.note)


def test_one_broken_trait_leaves_the_others_alone():
    gene = simulate_gene(m=6, traits=3, seed=3)
    U = gene.U.copy()
    U[1, 2] = np.nan
    for test in SINGLE:
        whole, broken = run(gene, test), run(replace(gene, U=U), test)
        assert np.isnan(broken.log_p[1]), test
        np.testing.assert_array_equal(broken.log_p[[0, 2]], whole.log_p[[0, 2]])
        assert broken.note == "U is not finite for 1 of 3 traits"


def test_monomorphic_variants_change_nothing():
    gene = simulate_gene(m=6, seed=9)
    V = np.zeros((8, 8))
    V[:6, :6] = gene.V
    pad = replace(
        gene, U=np.pad(gene.U, ((0, 0), (0, 2))), V=V, maf=np.append(gene.maf, [0, 0]), mac=np.append(gene.mac, [0, 0]),
        rare=np.ones(8, bool), annotations={},
    )  # fmt: skip
    for test in SINGLE:
        tolerance = 0.03 if test == "vt" else 1e-9
        assert p_of(pad, test) == pytest.approx(p_of(gene, test), rel=tolerance), test


@pytest.mark.parametrize("test", SINGLE)
def test_variants_in_perfect_ld_behave_as_one(test):
    gene = simulate_gene(m=1, seed=3)
    many = replace(
        gene, U=np.repeat(gene.U, 4, axis=1), V=np.full((4, 4), gene.V[0, 0]), maf=np.repeat(gene.maf, 4),
        mac=np.repeat(gene.mac, 4), rare=np.ones(4, bool), annotations={},
    )  # fmt: skip
    assert p_of(many, test) == pytest.approx(p_of(gene, test), rel=1e-6)


def test_no_signal_at_all_is_p_one():
    gene = make_studies(2, seed=3)
    silent = replace(
        gene, mac=gene.mac + 100, U=0 * gene.U, per_study=tuple((0 * U, V, s) for U, V, s in gene.per_study)
    )
    for test in ALL:
        log_p = run(silent, test).log_p[0]
        if test == "acat-v":  # the Cauchy combination counts a p of 1 as 0.999
            assert log_p == pytest.approx(math.log(0.999), abs=1e-9)
        elif test == "acat-o":
            assert log_p == pytest.approx(0, abs=1e-3)
        else:
            assert log_p == pytest.approx(0, abs=1e-12), test


@given(st.integers(0, 50), st.integers(2, 9))
def test_order_of_variants_does_not_matter(seed, m):
    gene = simulate_gene(m=m, seed=seed, n=300)
    order = np.random.default_rng(seed).permutation(m)
    turned = replace(
        gene, U=gene.U[:, order], V=gene.V[np.ix_(order, order)], maf=gene.maf[order], mac=gene.mac[order],
        rare=gene.rare[order], annotations={},
    )  # fmt: skip
    for test in SINGLE:
        tolerance = 0.05 if test == "vt" else 1e-7
        assert run(turned, test).log_p[0] == pytest.approx(run(gene, test).log_p[0], rel=tolerance, abs=tolerance), test


@given(st.integers(0, 50), st.floats(1e-4, 1e4))
def test_unit_of_the_trait_does_not_matter(seed, unit):
    """y -> y * unit turns U into U / unit and V into V / unit^2; beta and se grow with the unit."""
    gene = simulate_gene(m=6, seed=seed, n=300)
    turned = replace(gene, U=gene.U / unit, V=gene.V / unit**2)
    for test in SINGLE:
        tolerance = 0.05 if test == "vt" else 1e-7
        assert run(turned, test).log_p[0] == pytest.approx(run(gene, test).log_p[0], rel=tolerance, abs=tolerance), test
    assert run(turned, "burden").beta[0] == pytest.approx(unit * run(gene, "burden").beta[0], rel=1e-9)


@given(st.integers(0, 50))
def test_scale_of_a_trait_is_a_factor_of_v(seed):
    gene = simulate_gene(m=6, seed=seed, n=300)
    split = replace(gene, V=gene.V / 7, scale=gene.scale * 7)
    for test in SINGLE:
        tolerance = 0.05 if test == "vt" else 1e-7
        assert run(split, test).log_p[0] == pytest.approx(run(gene, test).log_p[0], rel=tolerance, abs=tolerance), test


@given(st.integers(0, 50), st.integers(0, 5))
def test_turning_an_allele_leaves_variance_tests_alone(seed, j):
    gene = simulate_gene(m=6, seed=seed, n=300)
    sign = np.ones(6)
    sign[j] = -1
    turned = replace(gene, U=gene.U * sign, V=gene.V * np.outer(sign, sign))
    assert run(turned, "skat").log_p[0] == pytest.approx(run(gene, "skat").log_p[0], rel=1e-8, abs=1e-10)
    whole = replace(gene, U=-gene.U)
    assert run(whole, "burden").beta[0] == -run(gene, "burden").beta[0]
    for test in SINGLE:
        assert run(whole, test).log_p[0] == pytest.approx(run(gene, test).log_p[0], rel=1e-9), test


def test_single_precision_covariance_is_accepted():
    gene = simulate_gene(m=30, seed=3)
    rough = replace(gene, V=gene.V.astype(np.float32).astype(float))
    for test in ("burden", "skat", "skat-o"):
        assert p_of(rough, test) == pytest.approx(p_of(gene, test), rel=1e-4)
