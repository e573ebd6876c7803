"""Saddlepoint and exact tails of binary-trait scores, and the variances calibrated by them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom, chi2

from pipeline.errors import InputError
from pipeline.gene_tests.calibration import calibrate_burden, calibrate_variances
from pipeline.gene_tests.permutation import CarrierGenotypes
from pipeline.kernels.saddlepoint import enumerate_tail
from pipeline.kernels.tails import chi2_isf_log
from tests import reference_saddlepoint as reference


def sparse(G):
    columns = [np.flatnonzero(column) for column in G.T]
    return CarrierGenotypes(
        np.concatenate([[0], np.cumsum([len(c) for c in columns])]).astype(np.int64),
        np.concatenate(columns),
        np.concatenate([G[c, j] for j, c in enumerate(columns)]).astype(float),
        G.shape[0],
    )


def draw_genotypes(rng, n, macs):
    return np.column_stack([np.bincount(rng.integers(0, n, mac), minlength=n).clip(max=2) for mac in macs]).astype(
        float
    )


@pytest.fixture(scope="module")
def study():
    """1:20 cases, covariates that matter, and case-heavy carriers."""
    rng = np.random.default_rng(5)
    n = 3000
    X = np.column_stack([np.ones(n), rng.normal(size=n), rng.random(n) < 0.4])
    eta = -3.3 + 0.8 * X[:, 1] + 0.3 * X[:, 2]
    y = (rng.random(n) < 1 / (1 + np.exp(-eta))).astype(float)
    G = draw_genotypes(rng, n, (3, 4, 8, 15, 30, 60, 200, 400))
    cases = np.flatnonzero(y)
    for j, extra in enumerate((2, 2, 3, 4, 5, 8, 12, 20)):
        G[rng.choice(cases, extra, replace=False), j] = 1.0
    return G, y, reference.fit_logistic(X, y), X


def test_saddlepoint_equals_the_formula_with_plain_root_finding(study):
    G, y, mu, X = study
    result = calibrate_variances(sparse(G), y, mu, X)
    done = [j for j, name in enumerate(result.method) if name == "saddlepoint"]
    assert len(done) >= 4
    for j in done:
        assert result.log_p[j] == pytest.approx(reference.sparse_log_p(G[:, j], y, mu, X), rel=1e-8)


def test_pooling_the_samples_that_carry_nothing_changes_little(study):
    # Dey et al.: the error of the normal part is far below that of the saddlepoint approximation itself.
    G, y, mu, X = study
    result = calibrate_variances(sparse(G), y, mu, X)
    for j, name in enumerate(result.method):
        if name == "saddlepoint":
            assert result.log_p[j] == pytest.approx(reference.dense_log_p(G[:, j], y, mu, X), abs=0.02)


def test_score_is_that_of_the_covariate_adjusted_genotype(study):
    G, y, mu, X = study
    result = calibrate_variances(sparse(G), y, mu, X)
    adjusted = np.column_stack([reference.adjusted_genotype(g, mu, X) for g in G.T])
    assert np.allclose(result.U, adjusted.T @ (y - mu), rtol=1e-9)


@pytest.mark.parametrize(("n_carriers", "n_cases"), [(8, 2), (20, 6), (60, 12), (200, 30), (400, 120), (400, 400)])
def test_saddlepoint_near_exact_convolution_far_into_the_tail(n_carriers, n_cases):
    n = 400_000
    mu = np.full(n, 0.04)
    y, g = np.zeros(n), np.zeros(n)
    g[:n_carriers] = 1
    y[:n_cases] = 1
    y[-(16_000 - n_cases) :] = 1
    result = calibrate_variances(sparse(g[:, None]), y, mu, np.ones((n, 1)))
    _, log_chance = reference.exact_distribution(np.ones(n_carriers), mu[:n_carriers])
    expected = np.log(np.sum(log_chance[n_cases:])) if n_cases < 300 else n_cases * np.log(0.04)
    assert result.method == ("saddlepoint",)
    # 2 % of p, and a share of log p because adjusting for the intercept takes n_carriers / n off the variance
    assert result.log_p[0] == pytest.approx(expected, abs=0.02, rel=2 * n_carriers / n)


def test_two_sided_tail_counts_the_atoms_beyond_the_mirror_image():
    n = 100_000
    y, g = np.zeros(n), np.zeros(n)
    g[:50] = 1
    y[:26] = 1
    y[-(30_000 - 26) :] = 1
    for case, chance in ((y, 0.3), (1 - y, 0.7)):
        result = calibrate_variances(sparse(g[:, None]), case, np.full(n, chance), np.ones((n, 1)))
        exact = reference.exact_two_sided(g[:50], case[:50], np.full(50, chance))
        assert exact == pytest.approx(binom.sf(25, 50, 0.3) + binom.cdf(4, 50, 0.3), rel=1e-9)
        assert np.exp(result.log_p[0]) == pytest.approx(exact, rel=0.02)


def test_continuous_dosages_use_the_continuous_formula(study):
    G, y, mu, X = study
    dosages = G * np.random.default_rng(1).uniform(0.7, 1.3, G.shape)
    result = calibrate_variances(sparse(dosages), y, mu, X)
    done = [j for j, name in enumerate(result.method) if name == "saddlepoint"]
    assert len(done) >= 4
    for j in done:
        assert result.log_p[j] == pytest.approx(reference.sparse_log_p(dosages[:, j], y, mu, X, whole=False), rel=1e-8)


def test_saddlepoint_works_beyond_1e_300():
    n = 4000
    y = np.r_[np.ones(200), np.zeros(n - 200)]
    mu = np.full(n, 0.05)
    g = np.r_[np.ones(195), np.zeros(n - 200), np.ones(5)]
    result = calibrate_variances(sparse(g[:, None]), y, mu, np.ones((n, 1)))
    assert -900 < result.log_p[0] < np.log(1e-250)
    assert result.log_p[0] == pytest.approx(reference.sparse_log_p(g, y, mu, np.ones((n, 1))), rel=1e-8)
    assert result.U[0] ** 2 / result.variance[0] == pytest.approx(chi2_isf_log(result.log_p)[0], rel=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_enumeration_equals_every_outcome(seed):
    rng = np.random.default_rng(seed)
    c = int(rng.integers(1, 5))
    g, mu = rng.choice([1.0, 2.0, 1.3], c), rng.uniform(0.01, 0.6, c)
    y = rng.integers(0, 2, c)
    u = float(g @ (y - mu))
    assert enumerate_tail(u, g, mu) == pytest.approx(reference.enumerate_two_sided(g, u, mu), rel=1e-12)
    if np.all(g == np.round(g)):
        assert enumerate_tail(u, g, mu) == pytest.approx(reference.exact_two_sided(g, y, mu), rel=1e-12)


def test_four_carriers_are_enumerated_and_imputed_dosages_left_out():
    n = 500
    y = np.r_[np.ones(10), np.zeros(n - 10)]
    mu = np.full(n, 0.02)
    g = np.zeros(n)
    g[[0, 1, 200]] = 1
    plain = calibrate_variances(sparse(g[:, None]), y, mu, np.ones((n, 1)))
    g[300:310] = 0.006
    imputed = calibrate_variances(sparse(g[:, None]), y, mu, np.ones((n, 1)))
    assert plain.method == imputed.method == ("enumeration",)
    assert np.exp(plain.log_p[0]) == pytest.approx(binom.sf(1, 3, 0.02), rel=1e-12)
    assert imputed.log_p[0] == pytest.approx(plain.log_p[0], rel=1e-12)


def test_calibrated_matrix_keeps_correlations_and_reproduces_p(study):
    G, y, mu, X = study
    result = calibrate_variances(sparse(G), y, mu, X)
    adjusted = np.column_stack([reference.adjusted_genotype(g, mu, X) for g in G.T])
    V = adjusted.T @ ((mu * (1 - mu))[:, None] * adjusted)
    root, calibrated_root = np.sqrt(np.diag(V)), np.sqrt(np.diag(result.V))
    assert np.allclose(V / np.outer(root, root), result.V / np.outer(calibrated_root, calibrated_root), atol=1e-10)
    assert np.diag(result.V) == pytest.approx(result.variance, rel=1e-12)
    assert chi2.logsf(result.U**2 / result.variance, 1) == pytest.approx(result.log_p, rel=1e-8)
    normal = np.array(result.method) == "normal"
    assert result.variance[normal] == pytest.approx(np.diag(V)[normal], rel=1e-12)


def test_given_variance_is_used_as_computed(study):
    G, y, mu, X = study
    computed = calibrate_variances(sparse(G), y, mu, X)
    adjusted = np.column_stack([reference.adjusted_genotype(g, mu, X) for g in G.T])
    given = calibrate_variances(sparse(G), y, mu, X, adjusted.T @ ((mu * (1 - mu))[:, None] * adjusted))
    assert given.log_p == pytest.approx(computed.log_p, rel=1e-8)


def test_burden_correction_is_the_definition(study):
    G, y, mu, X = study
    weights = np.linspace(1, 2, G.shape[1])
    calibrated = calibrate_variances(sparse(G), y, mu, X).V
    burden = G @ weights
    p_b = np.exp(reference.sparse_log_p(burden, y, mu, X, whole=False))
    expected = min(1.0, (weights @ calibrated @ weights) / ((burden @ (y - mu)) ** 2 / chi2.isf(p_b, 1)))
    assert calibrate_burden(sparse(G), y, mu, X, calibrated, weights) == pytest.approx(expected, rel=1e-6)
    shrunk = calibrate_burden(sparse(G), y, mu, X, 0.5 * calibrated, weights)
    assert shrunk == pytest.approx(min(1.0, 0.5 * expected), rel=1e-6) or expected == 1.0
    assert shrunk < 1.0


def test_flags_tell_few_expected_alleles_and_unbalanced_classes(study):
    G, y, mu, X = study
    result = calibrate_variances(sparse(G), y, mu, X)
    assert result.expected_mac == pytest.approx(G.sum(axis=0) * y.mean(), rel=1e-12)
    assert result.low_expected_mac.tolist() == (G.sum(axis=0) * y.mean() < 10).tolist()
    assert result.unbalanced
    half = np.r_[np.ones(1500), np.zeros(1500)]
    balanced = calibrate_variances(sparse(G), half, np.full(3000, 0.5), np.ones((3000, 1)))
    assert not balanced.unbalanced


def test_monomorphic_variant_has_no_p_and_no_variance(study):
    G, y, mu, X = study
    G = np.column_stack([G[:, 4], np.zeros(len(y))])
    result = calibrate_variances(sparse(G), y, mu, X)
    assert np.isnan(result.log_p[1])
    assert np.all(result.V[1] == 0)
    assert np.isfinite(result.log_p[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda y, mu, X: (y[:-1], mu, X), "samples"),
        (lambda y, mu, X: (y + 1, mu, X), "coded 0 and 1"),
        (lambda y, mu, X: (y, np.where(y > 0, 1.0, mu), X), "between 0 and 1"),
    ],
)
def test_calibrate_variances__raises_on_bad_input(study, change, message):
    G, y, mu, X = study
    with pytest.raises(InputError, match=message):
        calibrate_variances(sparse(G), *change(y, mu, X))


def simulate_null(rng, n, ratio, macs, n_phenotypes):
    """Shares of calibrated and plain p-values below each level; covariate-dependent risk, fitted null."""
    levels = np.array([0.05, 0.01, 1e-3])
    X = np.column_stack([np.ones(n), rng.normal(size=n)])
    intercept = np.log(1 / ratio) - 0.1
    below, plain, total = np.zeros(3), np.zeros(3), 0
    for _ in range(n_phenotypes):
        y = (rng.random(n) < 1 / (1 + np.exp(-(intercept + 0.5 * X[:, 1])))).astype(float)
        mu = reference.fit_logistic(X, y)
        genotypes = sparse(draw_genotypes(rng, n, macs))
        result = calibrate_variances(genotypes, y, mu, X)
        W = mu * (1 - mu)
        B = genotypes.multiply(W[:, None] * X)
        squares = CarrierGenotypes(genotypes.indptr, genotypes.sample, genotypes.dosage**2, n).multiply(W[:, None])[
            :, 0
        ]
        V = squares - np.einsum("jp,pq,jq->j", B, np.linalg.inv(X.T @ (W[:, None] * X)), B)
        p = np.exp(result.log_p)
        below += (p[:, None] < levels).sum(axis=0)
        plain += (chi2.sf(result.U**2 / V, 1)[:, None] < levels).sum(axis=0)
        total += len(macs)
    return levels, below, plain, total


@pytest.mark.parametrize("ratio", [10, 50])
def test_type_one_error_of_unbalanced_studies(ratio):
    rng = np.random.default_rng(ratio)
    levels, below, plain, total = simulate_null(rng, 4000, ratio, np.full(200, 30), 40)
    assert np.all(below <= binom.ppf(0.995, total, levels))
    assert plain[2] > binom.ppf(0.995, total, levels[2])  # why calibration is needed
    assert below[1] > 0.2 * levels[1] * total  # conservative, as discrete p-values are, but not idle


@pytest.mark.slow
@pytest.mark.parametrize("ratio", [10, 50])
@pytest.mark.parametrize("mac", [4, 10, 40, 160])
def test_type_one_error_over_allele_counts(ratio, mac):
    rng = np.random.default_rng(100 * ratio + mac)
    levels, below, _, total = simulate_null(rng, 5000, ratio, np.full(500, mac), 60)
    assert np.all(below <= binom.ppf(0.995, total, levels))
