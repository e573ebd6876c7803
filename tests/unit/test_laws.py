"""Null laws of scores: tails against enumeration, fits of the null model against the hypergeometric law, effects."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom, hypergeom

from locomass.gene_tests import law_tails
from locomass.gene_tests.law import Law, Residuals, StudyCarriers, law_of_mode, law_of_sum
from locomass.gene_tests.law_cumulants import law_cumulants, solve_cumulant
from locomass.gene_tests.law_effects import compare_effects, estimate_effect, information
from locomass.gene_tests.law_tails import pack_residuals, score_log_p
from locomass.gene_tests.variable_threshold import best_of_laws
from locomass.scores.laws import describe_residuals
from tests import reference_laws as reference


def binary_law(count, mu, step=None, V=None):
    """Law of one study: groups of people."""
    count, mu = np.atleast_1d(count).astype(float), np.atleast_1d(mu).astype(float)
    step = np.ones(mu.size) if step is None else np.asarray(step, float)
    R = float(np.sum(count * step**2 * mu * (1 - mu)))
    return Law(np.array([0, mu.size]), step, count, mu, np.array([R if V is None else V]), (None,))


def join(laws):
    """Law of the sum over studies."""
    ends = np.cumsum([0, *(law.step.size for law in laws)])
    step, count, mu, variance = (
        np.concatenate([getattr(law, name) for law in laws]) for name in ("step", "count", "mu", "variance")
    )
    return Law(ends, step, count, mu, variance, tuple(r for law in laws for r in law.residuals))


@pytest.mark.parametrize("ties", ["mid", "whole"])
@pytest.mark.parametrize("n_studies", [1, 3, 20])
def test_counts_equal_the_exact_law_down_to_tiny_p(ties, n_studies):
    rng = np.random.default_rng(n_studies)
    smallest = 0.0
    for odds in (1.0, 1 / 10, 1 / 500):
        for mac in (1, 2, 4, 15, 60):
            for sd in (0.0, 1.5):
                owner = np.sort(rng.integers(0, n_studies, mac))
                eta = np.log(odds) + sd * rng.normal(size=mac)
                mu, g = 1 / (1 + np.exp(-eta)), rng.choice([1.0, 1.0, 2.0], mac)
                laws = [binary_law(np.ones((owner == k).sum()), mu[owner == k], g[owner == k]) for k in set(owner)]
                law, mean, total = join(laws), float(g @ mu), int(g.sum())
                for n in {0, min(total, int(mean) + 1), min(total, int(3 * mean) + 2), total}:
                    log_p, method = score_log_p(law, n - mean, ties)
                    expected = np.log(reference.exact_count_p(g, mu, n, ties))
                    smallest = min(smallest, expected)
                    if method == "exact":
                        assert log_p == pytest.approx(expected, abs=1e-9)
                    else:  # nothing but the normal law where it is within a per cent by Edgeworth's terms
                        assert method == "chi2"
                        assert log_p == pytest.approx(expected, abs=0.02)
    assert smallest < np.log(1e-100)


def test_many_studies_of_few_carriers_are_summed_not_calibrated_one_by_one():
    # ten studies of 1:10, two of eight carriers cases in each: 6.9e-7 where every study was calibrated by itself
    law = join([binary_law(8, 1 / 11)] * 10)
    log_p, _ = score_log_p(law, 20 - 80 / 11, "whole")
    assert np.exp(log_p) == pytest.approx(binom.sf(19, 80, 1 / 11), rel=1e-9)
    assert np.exp(log_p) == pytest.approx(2.2e-5, rel=0.1)


def test_two_singletons_of_a_common_trait_are_no_finding():
    # mu of 0.075 and 0.15 in a 30 % trait: 7e-5 by calibrated variances
    mu = np.array([0.075, 0.15])
    log_p, method = score_log_p(binary_law([1, 1], mu), 2 - mu.sum(), "whole")
    assert method == "exact"
    assert np.exp(log_p) == pytest.approx(0.075 * 0.15, rel=1e-12)


def test_the_same_burden_has_the_same_p_however_it_is_spelled():
    # eight singletons, or two variants of four alleles: the law is that of the carriers
    V = 8 * 0.08 * 0.92
    singles = StudyCarriers(
        np.arange(9), np.arange(8), np.ones(8), np.ones(8), np.full(8, 0.08), None, np.eye(8) * V / 8
    )
    pairs = StudyCarriers(
        np.arange(3), np.arange(2), np.ones(2), np.full(2, 4.0), np.full(2, 0.08), None, np.eye(2) * V / 2
    )
    one, two = (score_log_p(law_of_sum([c], np.ones(c.V.shape[0])), 4 - 8 * 0.08)[0] for c in (singles, pairs))
    assert one == pytest.approx(two, rel=1e-12)
    assert np.exp(one) == pytest.approx(binom.sf(4, 8, 0.08) + 0.5 * binom.pmf(4, 8, 0.08), rel=1e-9)


@pytest.mark.parametrize(
    ("n", "cases", "carriers", "seen"), [(1000, 80, 12, 12), (1000, 80, 12, 6), (200, 100, 10, 9), (200, 20, 60, 12)]
)
def test_the_fit_of_the_null_model_makes_the_law_hypergeometric(n, cases, carriers, seen):
    # with an intercept the number of cases is given; people who carry nothing are taken for normal: within 4 %
    mu = cases / n
    V = carriers * mu * (1 - mu) * (1 - carriers / n)
    log_p, _ = score_log_p(binary_law(carriers, mu, V=V), seen - carriers * mu, "whole")
    exact = hypergeom(n, cases, carriers)
    expected = exact.sf(seen - 1) + exact.cdf(np.floor(2 * carriers * mu - seen + 1e-9))
    assert np.exp(log_p) == pytest.approx(expected, rel=0.04)


def test_weighted_sums_of_few_carriers_are_exact():
    rng = np.random.default_rng(7)
    for n in range(2, 12):
        mu, g = rng.uniform(0.01, 0.3, n), rng.uniform(1, 3, n)
        values, chances = reference.enumerate_outcomes(g, mu)
        for ties in ("mid", "whole"):
            u = float(rng.choice(values, p=chances))
            log_p, method = score_log_p(binary_law(np.ones(n), mu, g), u, ties)
            assert method == "exact"
            assert log_p == pytest.approx(np.log(reference.two_sided_p(values, chances, u, ties)), abs=1e-9)


def test_weighted_sums_of_many_carriers_by_convolution():
    rng = np.random.default_rng(8)
    mu, g = rng.uniform(0.02, 0.2, 18), rng.uniform(1, 3, 18)
    values, chances = reference.enumerate_outcomes(g, mu)
    for u in np.quantile(values, [0.9, 0.99, 0.9999]):
        log_p, method = score_log_p(binary_law(np.ones(18), mu, g), float(u))
        assert method == "convolution"
        assert log_p == pytest.approx(np.log(reference.two_sided_p(values, chances, u)), abs=0.04)


def test_saddlepoint_of_many_outcomes_is_near_the_exact_law():
    mu = np.linspace(0.02, 0.4, 40)
    law = binary_law(np.full(40, 25.0), mu)
    mean = float(25 * mu.sum())
    for z in (3.0, 6.0, 12.0):
        n = int(mean + z * np.sqrt(law.variance[0]))
        log_p, method = score_log_p(law, n - mean)
        assert method == "saddlepoint"
        assert log_p == pytest.approx(np.log(reference.exact_count_p(np.ones(1000), np.repeat(mu, 25), n)), abs=5e-3)


def test_equal_weights_of_any_size_are_a_lattice():
    count = binary_law([5, 3], [0.1, 0.2])
    weighted = count.scaled(24.7)
    assert score_log_p(weighted, 24.7 * 3.9)[0] == pytest.approx(score_log_p(count, 3.9)[0], rel=1e-9)


def test_whole_ties_never_exceed_the_level_and_mid_ties_do_on_average():
    mu, chance = 0.1, binom.pmf(np.arange(9), 8, 0.1)
    law = binary_law(8, mu)
    for ties, least in (("whole", 1.0), ("mid", 2.0)):
        p = np.array([np.exp(score_log_p(law, k - 0.8, ties)[0]) for k in range(9)])
        for level in (0.05, 1e-2, 1e-3, 1e-5):
            assert chance[p <= level].sum() <= least * level


def test_residuals_of_few_carriers_have_the_tail_of_the_residuals():
    rng = np.random.default_rng(3)
    r = np.sort(rng.lognormal(size=400))
    r -= r.mean()
    own = Residuals(r, np.full(400, 1 / 400))
    for n, z in ((1, 2.0), (1, -0.7), (3, 3.0), (10, 2.5), (40, 2.0)):
        V = n * float(np.mean(r**2))
        law = Law(np.array([0, 1]), np.ones(1), np.array([float(n)]), np.array([np.nan]), np.array([V]), (own,))
        u = z * np.sqrt(V)
        p, error = reference.drawn_residual_p(rng, r, np.ones(n), u, 40_000)
        assert np.exp(score_log_p(law, u)[0]) == pytest.approx(p, abs=4 * error, rel=0.03)


def far_law(own, count, part=0.0):
    """The law of ``count`` carriers, who are a share ``part`` of the study, and the largest sum of theirs."""
    R = count * float(own.probability @ own.node**2)
    law = Law(
        np.array([0, 1]), np.ones(1), np.array([float(count)]), np.array([np.nan]), np.array([R * (1 - part)]), (own,)
    )
    return law, count * own.node[-1]


def skewed_residuals(kind, n=3_000):
    rng = np.random.default_rng(0)
    r = {"lognormal": rng.lognormal(size=n), "t3": rng.standard_t(3, n), "exponential": rng.exponential(size=n)}[kind]
    told = describe_residuals((r - r.mean()) / r.std(), 0)
    return Residuals(np.array(told["node"]), np.array(told["chance"]))


@pytest.mark.parametrize("kind", ["lognormal", "t3", "exponential"])
@pytest.mark.parametrize("count", [3, 4, 6])
def test_residuals_have_their_tail_to_the_largest_sum(kind, count):
    """1e-3 to 1e-20, below the rounding of any transform: within 1 %."""
    own = skewed_residuals(kind)
    law, most = far_law(own, count)
    sizes = most * np.array([0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 1.0])
    expected = reference.convolved_residual_p(own.node, own.probability, count, sizes)
    got = np.exp([score_log_p(law, size)[0] for size in sizes])
    assert expected.min() < 3e-11
    np.testing.assert_allclose(got, expected, rtol=0.01)


@pytest.mark.parametrize("kind", ["lognormal", "t3", "exponential"])
def test_tilted_and_plain_law_of_residuals_agree(kind):
    """Where both apply (1e-3 to 1e-8), also given that the rest must cancel the carriers, a tenth of the study."""
    own, compared = skewed_residuals(kind), 0
    for part in (0.0, 0.1):
        for count in (4, 40):
            law, most = far_law(own, count, part)
            args = (law.start, law.step, law.count, law.mu, *pack_residuals(law.residuals), law.variance, np.zeros(1))
            for u in np.linspace(0.05, 0.6, 12) * most:
                plain = law_tails.residual_tails(u, -u, *args)
                if not plain < np.log(1e-3):
                    continue
                tilted = law_tails.add_logs(law_tails.residual_tail(u, *args), law_tails.residual_tail(-u, *args))
                assert tilted == pytest.approx(plain, abs=0.004)
                compared += 1
    assert compared >= 6


def test_residuals_of_three_carriers_are_near_all_sets_of_three():
    """A residual is spread half way to its neighbours, which sets of three are not: within a factor of 2."""
    own = skewed_residuals("exponential", 60)
    law, most = far_law(own, 3)
    for part in (0.4, 0.6, 0.75, 0.9, 1.0):
        p = reference.enumerated_residual_p(own.node, own.probability, 3, part * most)
        assert score_log_p(law, part * most)[0] == pytest.approx(np.log(p), abs=np.log(2.0))
    assert p == pytest.approx(0.5 / 60**3, rel=1e-9)


def test_a_score_beyond_its_nodes_counts_as_the_largest():
    """The outermost node of a study with min_cell is a mean: one person's residual may be beyond."""
    own = skewed_residuals("exponential")
    for count in (1, 4):
        law, most = far_law(own, count)
        largest = score_log_p(law, most)[0]
        assert score_log_p(law, 1.5 * most)[0] == pytest.approx(largest, abs=1e-3)
        assert largest == pytest.approx(np.log(0.5) + count * np.log(own.probability[-1]), abs=1.0)


def test_normal_residuals_give_the_normal_tail():
    from scipy.special import ndtri
    from scipy.stats import norm

    q = (np.arange(400) + 0.5) / 400
    node = ndtri(q)
    own = Residuals(node / node.std(), np.full(400, 1 / 400))
    law = Law(np.array([0, 1]), np.ones(1), np.array([50.0]), np.array([np.nan]), np.array([50.0]), (own,))
    for z in (1.0, 3.0, 5.0):
        assert np.exp(score_log_p(law, z * np.sqrt(50.0))[0]) == pytest.approx(2 * norm.sf(z), rel=0.1)


def test_cumulants_have_the_variance_and_derivatives_of_k():
    law = join([binary_law([5, 8], [0.1, 0.3], [1, 2], V=4.0), binary_law(9, 0.02)])
    from locomass.gene_tests.law_effects import open_law

    rest, extra = open_law(law.start, law.step, law.count, law.mu, law.variance)
    own = (law.start, law.step, law.count, law.mu, np.zeros(3, np.int64), np.empty(0), np.empty(0), rest, extra)
    assert law_cumulants(0.0, *own)[2] == pytest.approx(law.variance.sum(), rel=1e-9)
    for t in (-1.3, 0.4, 2.0):
        h = 1e-4
        up, at, down = (np.array(law_cumulants(x, *own)) for x in (t + h, t, t - h))
        assert (up[:3] - down[:3]) / (2 * h) == pytest.approx(at[1:], rel=1e-5, abs=1e-7)
        assert solve_cumulant(float(at[1]), *own) == pytest.approx(t, rel=1e-8)


def draw_trait(rng, n, share, odds_ratio, carriers):
    x = np.zeros(n)
    x[:carriers] = 1.0
    p = 1 / (1 + np.exp(-np.log(share / (1 - share)) - np.log(odds_ratio) * x))
    y = (rng.random(n) < p).astype(float)
    mu = np.full(n, y.mean())
    W = mu * (1 - mu)
    V = float(W[0] * (carriers - carriers**2 / n))
    return x, y, binary_law(carriers, mu[0], V=V), float(x @ (y - mu))


@pytest.mark.parametrize("share", [1 / 2, 1 / 9, 1 / 51])
@pytest.mark.parametrize("odds_ratio", [10.0, 0.2])
def test_effects_equal_firth_regression_on_individual_data(share, odds_ratio):
    x, y, law, U = draw_trait(np.random.default_rng(11), 3000, share, odds_ratio, 120)
    X = np.column_stack([np.ones(len(y)), x])
    own, dense = estimate_effect(law, U), reference.logistic(X, y, firth=True)[1]
    assert np.exp(own.beta) == pytest.approx(np.exp(dense), rel=0.03)
    top = reference.profile(X, y, dense, firth=True)
    for end in (own.low, own.high):
        assert top - reference.profile(X, y, end, firth=True) == pytest.approx(1.92, rel=0.05)


def test_maximum_likelihood_equals_logistic_regression():
    x, y, law, U = draw_trait(np.random.default_rng(12), 2000, 0.3, 4.0, 80)
    dense = reference.logistic(np.column_stack([np.ones(len(y)), x]), y)[1]
    assert estimate_effect(law, U, firth=False).beta == pytest.approx(dense, rel=0.01)


def test_all_carriers_cases_have_a_finite_firth_estimate_only():
    law = binary_law(6, 0.1)
    assert np.isinf(estimate_effect(law, 6 - 0.6, firth=False).beta)
    own = estimate_effect(law, 6 - 0.6)
    assert np.isfinite(own.beta)
    assert np.isfinite(own.low)
    assert own.low < own.beta < own.high


def test_joint_estimate_over_five_studies_equals_stratified_regression():
    rng = np.random.default_rng(13)
    drawn = [draw_trait(rng, 1500, share, 10.0, 60) for share in (0.5, 0.11, 0.11, 0.3, 0.05)]
    law, U = join([d[2] for d in drawn]), sum(d[3] for d in drawn)
    x, y = np.concatenate([d[0] for d in drawn]), np.concatenate([d[1] for d in drawn])
    strata = np.kron(np.eye(5), np.ones((1500, 1)))
    dense = reference.logistic(np.column_stack([strata, x]), y, firth=True)[-1]
    assert np.exp(estimate_effect(law, U).beta) == pytest.approx(np.exp(dense), rel=0.03)


def test_one_odds_ratio_in_balanced_and_unbalanced_studies_is_no_heterogeneity():
    rng = np.random.default_rng(14)
    q = []
    for _ in range(60):
        drawn = [draw_trait(rng, 2000, 0.5, 10.0, 80), draw_trait(rng, 4000, 1 / 9, 10.0, 160)]
        found = compare_effects(join([d[2] for d in drawn]), [d[3] for d in drawn])
        assert found.df == 1
        q.append(found.q)
    assert np.mean(q) == pytest.approx(1.0, abs=0.5)  # chi2_1
    assert np.mean(np.array(q) > 3.84) < 0.15


def test_information_of_a_quantitative_trait_is_its_variance():
    own = Residuals(np.array([-1.0, 1.0]), np.array([0.5, 0.5]))
    law = Law(np.array([0, 1]), np.ones(1), np.array([9.0]), np.array([np.nan]), np.array([9.0]), (own,))
    assert information(law, 0.3) == 9.0
    assert estimate_effect(law, 4.5).beta == pytest.approx(0.5)


def carriers_of_three():
    """Five people with variant 0, three with 1, two with both (one allele of each)."""
    V = np.array([[7.0, 2.0], [2.0, 5.0]]) * 0.1 * 0.9
    return StudyCarriers(
        np.array([0, 1, 2, 4]), np.array([0, 1, 0, 1]), np.ones(4), np.array([5.0, 3.0, 2.0]), np.full(3, 0.1), None, V
    )


@pytest.mark.parametrize(("mu", "rare", "more"), [(0.05, 6, 10), (0.1, 5, 15), (0.02, 8, 30), (0.3, 4, 6)])
def test_best_of_two_nested_burdens_against_all_outcomes(mu, rare, more):
    """The variable threshold of dominant burdens: half of ties count; by normal scores it is 1e-26."""
    N = (rare, rare + more)
    log_p = [[score_log_p(binary_law(n, mu), x - n * mu)[0] for x in range(n + 1)] for n in N]
    chance = np.outer(binom.pmf(np.arange(rare + 1), rare, mu), binom.pmf(np.arange(more + 1), more, mu))
    smallest = np.array([[min(log_p[0][a], log_p[1][a + b]) for b in range(more + 1)] for a in range(rare + 1)])
    V = mu * (1 - mu) * np.array([[N[0], N[0]], [N[0], N[1]]])
    for a, b in ((2, 0), (3, 0), (3, 2), (4, 2), (1, 4), (2, 4), (4, 6)):
        U, own = np.array([a - N[0] * mu, a + b - N[1] * mu]), np.array([log_p[0][a], log_p[1][a + b]])
        row = best_of_laws(U, V, np.array([0.01, 0.05]), own)
        at_most, below = (chance[smallest <= smallest[a, b] + x].sum() for x in (1e-9, -1e-9))
        assert 0.7 < np.exp(row.log_p[0]) / ((at_most + below) / 2) < 2.02
        assert row.detail.threshold[0] == (0.01, 0.05)[int(np.argmin(own))]


def test_people_with_two_variants_count_twice_in_sums_and_once_in_modes():
    own = carriers_of_three()
    both = law_of_sum([own], np.ones(2))
    assert sorted(zip(both.step, both.count, strict=True)) == [(1.0, 3.0), (1.0, 5.0), (2.0, 2.0)]
    assert both.variance[0] == pytest.approx(16 * 0.09)
    dominant = law_of_mode([own], np.ones(2, bool), 1, np.array([10 * 0.09]))
    assert dominant.count.sum() == 10.0
    assert set(dominant.step) == {1.0}
    assert law_of_mode([own], np.ones(2, bool), 2, np.array([2 * 0.09])).count.tolist() == [2.0]


def test_draws_have_the_covariance_of_the_carriers():
    own = carriers_of_three()
    U = own.draw(np.random.default_rng(1), 40_000) @ own.matrix()
    assert np.cov(U.T) == pytest.approx(own.V, rel=0.05)
