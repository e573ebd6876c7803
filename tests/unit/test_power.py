"""Noncentrality, effective sample size, power and expected R2: closed forms and simulation."""

import numpy as np
import pytest
from scipy import stats

from locomass import power
from locomass.errors import StatisticsError


def test_effective_sample_size_is_n_over_one_minus_r2():
    np.testing.assert_allclose(power.effective_sample_size([1000, 2000], [0.0, 0.5]), [1000, 4000], rtol=1e-15)


def test_ncp_of_one_cohort_is_the_same_in_a_meta_analysis_and_pooled():
    assert power.ncp_mixed_meta(5000, 1e-3, 0.2) == pytest.approx(6.25, rel=1e-14)
    assert power.ncp_mixed_pooled([2000, 3000], 1e-3, 0.2) == pytest.approx(6.25, rel=1e-14)
    assert power.ncp_summary([2000, 3000], 1e-3, 0.0) == power.ncp_linear([2000, 3000], 1e-3)


def test_ncp_mixed_meta_sums_over_cohorts():
    n, r2 = np.array([1000.0, 4000.0, 500.0]), np.array([0.1, 0.3, 0.0])
    expected = sum(a * 2e-3 / (1 - b) for a, b in zip(n, r2, strict=True))
    assert power.ncp_mixed_meta(n, 2e-3, r2) == pytest.approx(expected, rel=1e-14)
    np.testing.assert_allclose(power.ncp_mixed_meta(n, [1e-3, 2e-3], r2), [expected / 2, expected], rtol=1e-14)


@pytest.mark.parametrize(
    ("n", "h2", "m"), [(1e3, 0.1, 6e4), (1e5, 0.5, 6e4), (1e6, 0.9, 1e3), (50, 0.4, 10), (1e7, 0.999, 10)]
)
def test_expected_r2_solves_its_equation(n, h2, m):
    r2 = power.expected_r2(n, h2, m)
    # the two sides of the definition, before it was turned into a quadratic
    assert r2 == pytest.approx(h2 * (h2 / m) / (h2 / m + (1 - r2) / n), rel=1e-9)
    assert 0 < r2 <= h2


def test_expected_r2_limits():
    assert power.expected_r2(0, 0.5, 1000) == 0
    assert power.expected_r2(1000, 0.0, 1000) == 0
    assert power.expected_r2(1e12, 0.5, 1000) == pytest.approx(0.5, rel=1e-8)
    n, h2, m = 10.0, 0.3, 1e6  # far from saturation, Daetwyler's first form
    assert power.expected_r2(n, h2, m) == pytest.approx(h2 / (1 + m / (n * h2)), rel=1e-4)
    assert (np.diff(power.expected_r2(np.array([1e3, 1e4, 1e5]), 0.5, 6e4)) > 0).all()


def test_expected_r2_agrees_with_simulated_ridge():
    """Independent variants: ridge from all individual data predicts a fresh sample with the expected R2."""
    rng = np.random.default_rng(5)
    n, m, h2, seen = 2000, 400, 0.5, []
    for _ in range(6):
        b = rng.standard_normal(m) * np.sqrt(h2 / m)
        train, test = rng.standard_normal((n, m)), rng.standard_normal((4000, m))
        y = train @ b + rng.standard_normal(n) * np.sqrt(1 - h2)
        w = np.linalg.solve(train.T @ train + m * (1 - h2) / h2 * np.eye(m), train.T @ y)
        y_test = test @ b + rng.standard_normal(4000) * np.sqrt(1 - h2)
        seen.append(np.corrcoef(test @ w, y_test)[0, 1] ** 2)
    first_form = h2 / (1 + m / (n * h2))
    assert np.mean(seen) == pytest.approx(float(power.expected_r2(n, h2, m)), abs=0.01)
    assert abs(np.mean(seen) - first_form) > 0.015  # what the residual variance adds


def test_compute_power_matches_scipy_and_the_null():
    ncp = np.array([0.0, 1.0, 10.0, 39.0, 200.0])
    for alpha in (0.05, 2.5e-6, 5e-8):
        expected = stats.ncx2.sf(stats.chi2.isf(alpha, 1), 1, np.maximum(ncp, 1e-12))
        np.testing.assert_allclose(power.compute_power(ncp, alpha), expected, rtol=1e-6)
        assert power.compute_power(0.0, alpha) == pytest.approx(alpha, rel=1e-12)
    np.testing.assert_allclose(
        power.compute_power(12.0, 1e-3, df=4), stats.ncx2.sf(stats.chi2.isf(1e-3, 4), 4, 12.0), rtol=1e-12
    )


def test_score_test_has_the_noncentrality_of_the_formula():
    """Mean chi-square of U^2/V is 1 + N b2 / (1 - R2) when a prediction of that R2 is regressed out."""
    rng = np.random.default_rng(11)
    n, b2, r2, replicates = 1000, 0.01, 0.4, 1500
    g, score = rng.standard_normal((2, replicates, n))
    y = np.sqrt(b2) * g + np.sqrt(r2) * score + np.sqrt(1 - b2 - r2) * rng.standard_normal((replicates, n))

    def mean_chi2(residual):
        sigma2 = residual.var(axis=1)
        return ((g * residual).sum(axis=1) ** 2 / (sigma2 * (g * g).sum(axis=1))).mean() - 1

    slope = (score * y).sum(axis=1, keepdims=True) / (score**2).sum(axis=1, keepdims=True)
    # sd of a chi2_1(ncp) is sqrt(2 + 4 ncp): 4 standard errors
    for residual, expected in ((y, power.ncp_linear(n, b2)), (y - slope * score, power.ncp_summary(n, b2, r2))):
        tolerance = 4 * np.sqrt((2 + 4 * expected) / replicates)
        assert abs(mean_chi2(residual) - expected) < tolerance


def test_published_gains_of_height_and_bmi():
    height, bmi = power.PUBLISHED
    assert (height.trait, bmi.trait) == ("height", "BMI")
    for row, tolerance in ((height, 0.01), (bmi, 0.015)):  # the abstract rounds, and R2 differs a little by source
        assert row.gain == pytest.approx(row.reported_gain, abs=tolerance)
        assert float(power.effective_sample_size(row.n, row.r2)) == pytest.approx(row.n * (1 + row.gain))
        assert power.compute_r2_of_gain(row.gain) == pytest.approx(row.r2, rel=1e-12)
    assert height.gain == pytest.approx(0.15607, abs=1e-5)
    assert bmi.gain == pytest.approx(0.06952, abs=1e-5)


@pytest.mark.parametrize("n_cohorts", [1, 10, 40])
def test_power_table_orders_the_designs(n_cohorts):
    n = [50_000 / n_cohorts] * n_cohorts
    rows = power.power_table(n, 5e-4, h2=0.5, m_effective=60_000, n_summary=40_000)
    assert [row.design for row in rows] == ["linear", "mixed_meta", "summary", "mixed_pooled"]
    linear, meta, summary, pooled = (row.ncp for row in rows)
    assert linear < meta
    assert summary < pooled
    if n_cohorts == 1:
        assert meta == pytest.approx(pooled, rel=1e-12)
    else:
        assert meta < summary
    for row in rows:
        assert row.ncp == pytest.approx(row.n_effective * 5e-4, rel=1e-12)
        assert row.n_effective == pytest.approx(row.n / (1 - row.r2), rel=1e-12)
        assert row.power == pytest.approx(float(power.compute_power(row.ncp)), rel=1e-12)


def test_power_table_with_unequal_cohorts_gives_each_its_own_r2():
    n = [1000.0, 30_000.0]
    meta = power.power_table(n, 1e-3, h2=0.6, m_effective=5000)[1]
    r2 = [float(power.expected_r2(k, 0.6, 5000)) for k in n]
    assert meta.ncp == pytest.approx(1e-3 * sum(k / (1 - r) for k, r in zip(n, r2, strict=True)), rel=1e-12)


def simulate_gene(rng, n, replicates):
    maf = np.array([0.002, 0.004, 0.01, 0.02, 0.005])
    g = rng.binomial(2, maf, (n, maf.size)).astype(float)
    g -= g.mean(axis=0)
    V = g.T @ g
    beta = np.array([0.5, -0.2, 0.25, 0.1, 0.0])
    root = np.linalg.cholesky(V)
    return maf, V, beta, (V @ beta)[:, None] + root @ rng.standard_normal((maf.size, replicates))


def test_burden_power_agrees_with_simulated_scores():
    rng = np.random.default_rng(2)
    maf, V, beta, U = simulate_gene(rng, 3000, 100_000)
    w = stats.beta.pdf(maf, 1, 25)
    chi2 = (w @ U) ** 2 / (w @ V @ w)
    expected = float(power.compute_power(power.ncp_burden(V, beta, w), 1e-3))
    assert (stats.chi2.sf(chi2, 1) < 1e-3).mean() == pytest.approx(expected, abs=4 * np.sqrt(0.25 / 100_000))


def test_burden_with_effects_as_weights_has_the_largest_noncentrality():
    rng = np.random.default_rng(3)
    _, V, beta, _ = simulate_gene(rng, 2000, 1)
    best = power.ncp_burden(V, beta, beta)
    assert best == pytest.approx(beta @ V @ beta, rel=1e-12)
    assert all(power.ncp_burden(V, beta, rng.standard_normal(5)) <= best for _ in range(50))


@pytest.mark.parametrize("alpha", [0.05, 1e-3])
def test_skat_power_agrees_with_simulated_scores(alpha):
    rng = np.random.default_rng(4)
    maf, V, beta, U = simulate_gene(rng, 3000, 200_000)
    w = stats.beta.pdf(maf, 1, 25)
    null = np.linalg.cholesky(V) @ rng.standard_normal((5, 200_000))
    critical = np.quantile(((w[:, None] * null) ** 2).sum(axis=0), 1 - alpha)
    simulated = (((w[:, None] * U) ** 2).sum(axis=0) > critical).mean()
    # four cumulants do not make a distribution: 2 percentage points here
    assert power.compute_skat_power(V, beta, w, alpha) == pytest.approx(simulated, abs=0.02)
    # the level, where four matched cumulants are again not exact
    assert power.compute_skat_power(V, np.zeros(5), w, alpha) == pytest.approx(alpha, rel=1e-6)


def test_skat_of_one_variant_is_the_single_variant_test():
    V, beta, w = np.array([[40.0]]), np.array([0.6]), np.array([3.0])
    expected = float(power.compute_power(power.ncp_burden(V, beta, w), 1e-4))
    assert power.compute_skat_power(V, beta, w, 1e-4) == pytest.approx(expected, rel=1e-6)


def test_information_matrix_of_independent_variants():
    V = power.information_matrix(1000, [0.01, 0.5], residual_variance=0.8)
    np.testing.assert_allclose(V, np.diag([1000 * 2 * 0.01 * 0.99 / 0.8, 1000 * 0.5 / 0.8]), rtol=1e-14)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: power.effective_sample_size(1000, 1.0), r"R2 must be in \[0, 1\)"),
        (lambda: power.ncp_linear([1000, -1], 0.1), "sample sizes must be positive"),
        (lambda: power.ncp_linear([], 0.1), "sample sizes must be positive"),
        (lambda: power.ncp_linear(1000, np.nan), "b2 must be in"),
        (lambda: power.ncp_mixed_meta([1, 2, 3], 0.1, [0.1, 0.2]), "2 values of R2 for 3 cohorts"),
        (lambda: power.expected_r2(-1, 0.5, 10), "n >= 0"),
        (lambda: power.expected_r2(1, 0.5, 0), "M_e > 0"),
        (lambda: power.compute_power(-1.0), "ncp >= 0"),
        (lambda: power.compute_power(1.0, alpha=0), "alpha in"),
        (lambda: power.compute_r2_of_gain(-0.1), "gain in effective sample size"),
        (lambda: power.information_matrix(10, [0.1], 0.0), "residual variance"),
        (lambda: power.ncp_burden(np.eye(2), np.ones(3), np.ones(3)), "V is"),
        (lambda: power.ncp_burden(np.eye(2), np.ones(2), np.zeros(2)), "burden has variance"),
        (lambda: power.compute_skat_power(np.eye(2), np.ones(2), np.zeros(2)), "SKAT has no variance"),
    ],
)
def test_power__raises_on_bad_numbers(call, match):
    with pytest.raises(StatisticsError, match=match):
        call()
