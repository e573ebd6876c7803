import numpy as np
import pytest

from locomass_predictors.base import PredictorError
from locomass_predictors.block_ridge import GenotypeBlock
from locomass_predictors.federated_ridge import FederatedCohort, fit_federated_ridge
from tests.reference_predictors import simulate_haplotype_block

SIZES, CHROMOSOMES = (14, 10, 16), ("1", "1", "2")


def simulate_cohorts(seed=1, sizes=(90, 150, 60)):
    rng = np.random.default_rng(seed)
    effect = rng.standard_normal(sum(SIZES))
    cohorts = []
    for n in sizes:
        # one long stretch of LD, so that blocks correlate with each other
        G = simulate_haplotype_block(rng, n, sum(SIZES))
        X = np.column_stack([np.ones(n), rng.standard_normal(n)])
        y = (
            (G - G.mean(0)) @ effect / 5
            + rng.standard_normal(n)
            + rng.standard_normal()
            + X[:, 1] * rng.standard_normal()
        )
        cohorts.append((G, y, X))
    return cohorts


def as_federated(cohorts, keep=("1", "2")):
    found = []
    for G, y, X in cohorts:
        parts = np.split(G, np.cumsum(SIZES)[:-1], axis=1)
        blocks = [
            GenotypeBlock(c, part.shape[1], lambda part=part: part)
            for c, part in zip(CHROMOSOMES, parts, strict=True)
            if c in keep
        ]
        found.append(FederatedCohort(blocks, y, X))
    return found


def pooled_ridge(cohorts, h2, columns):
    """One regression of everyone: own intercept and covariate effects per cohort, penalty on standardised genotypes."""
    G = np.vstack([G[:, columns] for G, _, _ in cohorts])
    y = np.concatenate([y for _, y, _ in cohorts])
    X = np.zeros((len(y), sum(X.shape[1] for _, _, X in cohorts)))
    row = column = 0
    for _, _, part in cohorts:
        X[row : row + part.shape[0], column : column + part.shape[1]] = part
        row, column = row + part.shape[0], column + part.shape[1]
    hat = X @ np.linalg.inv(X.T @ X) @ X.T
    G, y = G - hat @ G, y - hat @ y
    M = G.shape[1]
    A = G.T @ G
    return np.linalg.inv(A + M * (1 - h2) / h2 * np.diag(np.diag(A)) / len(y)) @ G.T @ y


@pytest.mark.parametrize("h2", [0.05, 0.5, 0.95])
def test_fit_federated_ridge__equals_the_pooled_fit(h2):
    cohorts = simulate_cohorts()
    fit = fit_federated_ridge(as_federated(cohorts), h2=h2)
    pooled = pooled_ridge(cohorts, h2, np.arange(40))
    np.testing.assert_allclose(np.concatenate(fit.weights), pooled, atol=1e-8 * np.abs(pooled).max())
    assert fit.chromosomes == CHROMOSOMES
    assert fit.n_samples == 300


def test_fit_federated_ridge__loco_equals_the_pooled_fit():
    cohorts = simulate_cohorts()
    fit = fit_federated_ridge(as_federated(cohorts), h2=0.5)
    pooled = pooled_ridge(cohorts, 0.5, np.arange(40))
    for G, _, _ in cohorts:
        parts = np.split(G, np.cumsum(SIZES)[:-1], axis=1)
        loco = sum(part @ w for part, w, c in zip(parts, fit.weights, fit.chromosomes, strict=True) if c != "2")
        np.testing.assert_allclose(loco, G[:, :24] @ pooled[:24], atol=1e-8)
    refit = fit_federated_ridge(as_federated(cohorts, keep=("1",)), h2=0.5)
    np.testing.assert_allclose(np.concatenate(refit.weights), pooled_ridge(cohorts, 0.5, np.arange(24)), atol=1e-8)


def test_fit_federated_ridge__blocks_see_each_other():
    """The joint fit is not the ridge of each block on its own: the blocks are in LD."""
    cohorts = simulate_cohorts()
    fit = fit_federated_ridge(as_federated(cohorts), h2=0.5)
    alone = fit_federated_ridge(as_federated(cohorts, keep=("2",)), h2=0.5)
    assert np.abs(fit.weights[2] - alone.weights[0]).max() > 0.01
    assert fit.n_rounds <= 40


def test_fit_federated_ridge__only_sums_over_people_leave_a_cohort():
    cohort = as_federated(simulate_cohorts())[0]
    weights = [np.ones(m) for m in SIZES]
    assert [a.shape for a in cohort.share_cross_products()] == [(m, m) for m in SIZES]
    assert [a.shape for a in cohort.share_trait_products()] == [(m,) for m in SIZES]
    assert [a.shape for a in cohort.share_fitted_products(weights)] == [(m,) for m in SIZES]


def test_fit_federated_ridge__missing_calls_and_a_variant_that_nobody_carries():
    cohorts = simulate_cohorts()
    cohorts[0][0][3, 5] = np.nan
    for G, _, _ in cohorts:
        G[:, 7] = 0.0
    fit = fit_federated_ridge(as_federated(cohorts), h2=0.5)
    assert fit.weights[0][7] == 0.0
    G = cohorts[0][0]
    G[3, 5] = np.nanmean(G[:, 5])
    again = fit_federated_ridge(as_federated(cohorts), h2=0.5)
    np.testing.assert_allclose(np.concatenate(fit.weights), np.concatenate(again.weights), atol=1e-10)


def test_fit_federated_ridge__raises():
    cohorts = as_federated(simulate_cohorts())
    with pytest.raises(PredictorError, match=r"between 0 and 1, got 1\.0"):
        fit_federated_ridge(cohorts, h2=1.0)
    with pytest.raises(PredictorError, match="at least one cohort"):
        fit_federated_ridge([], h2=0.5)
    with pytest.raises(PredictorError, match="cohort 2 has blocks"):
        fit_federated_ridge(
            [cohorts[0], FederatedCohort(cohorts[1].blocks[:2], cohorts[1].y, cohorts[1].covariates)], h2=0.5
        )
    with pytest.raises(PredictorError, match="did not converge in 1 rounds"):
        fit_federated_ridge(cohorts, h2=0.5, max_rounds=1)
    with pytest.raises(PredictorError, match="samples differ"):
        FederatedCohort(cohorts[0].blocks, np.ones(3), np.ones((4, 1)))
