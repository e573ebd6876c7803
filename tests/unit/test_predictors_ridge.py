import numpy as np
import pytest

from locomass_predictors.base import BlockStatistics, PredictorError, score_variance
from locomass_predictors.ridge import Ridge, fit_ridge
from tests.reference_predictors import r2, score, simulate_study


def random_blocks(rng, sizes=(5, 1, 17)):
    blocks = []
    for m in sizes:
        Z = rng.standard_normal((60, m))
        Z = (Z - Z.mean(0)) / Z.std(0)
        n = rng.uniform(500, 900, m)
        blocks.append(BlockStatistics(rng.standard_normal(m) / 30, n, (Z.T @ Z / 60).astype(np.float32), "1"))
    return blocks


@pytest.mark.parametrize("shrink", [1.0, 0.95, 0.0])
def test_fit_ridge__equals_dense_solve(rng, shrink):
    blocks = random_blocks(rng)
    fit = fit_ridge(blocks, Ridge(shrink=shrink), h2=0.3)
    for block, w in zip(blocks, fit.weights, strict=True):
        A = shrink * block.R.astype(float) + (1 - shrink) * np.eye(len(w))
        A[np.diag_indices(len(w))] = 1.0
        dense = np.linalg.inv(A + np.diag(23 / (0.3 * block.n))) @ block.beta_hat
        np.testing.assert_allclose(w, dense, rtol=1e-8, atol=1e-14)
    assert fit.promise.variance == pytest.approx(score_variance(blocks, fit.weights))
    assert fit.record["n_variants"] == 23


def test_fit_ridge__limits(rng):
    blocks = random_blocks(rng)
    small = fit_ridge(blocks, h2=1e-9)
    for block, w in zip(blocks, small.weights, strict=True):
        # h2 -> 0: every effect alone, shrunk by h2 N / M
        np.testing.assert_allclose(w, block.beta_hat * 1e-9 * block.n / 23, rtol=1e-4)
    large = fit_ridge(blocks[:2], Ridge(shrink=1.0), h2=1e12)
    np.testing.assert_allclose(large.weights[0], np.linalg.solve(blocks[0].R, blocks[0].beta_hat), rtol=1e-4)


def test_fit_ridge__uses_the_map_handed_in(rng):
    calls = []

    def counting(function, *iterables):
        calls.append(function)
        return [function(*args) for args in zip(*iterables, strict=True)]

    blocks = random_blocks(rng)
    fit = fit_ridge(blocks, h2=0.3, map_function=counting)
    assert len(calls) == 1
    for a, b in zip(fit.weights, fit_ridge(blocks, h2=0.3).weights, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("h2", [0.0, -0.1, np.nan])
def test_fit_ridge__raises_without_heritability(rng, h2):
    with pytest.raises(PredictorError, match="positive heritability"):
        fit_ridge(random_blocks(rng), h2=h2)


def test_fit_ridge__raises_on_a_matrix_that_is_no_correlation():
    R = np.full((3, 3), -1.0)
    np.fill_diagonal(R, 1.0)
    with pytest.raises(PredictorError, match=r"block of 3 variants on chromosome 7 are not positive semidefinite"):
        fit_ridge([BlockStatistics(np.ones(3), np.full(3, 1e6), R, "7")], h2=0.5)


def test_fit_ridge__raises_without_variants():
    with pytest.raises(PredictorError, match="every LD block is empty"):
        fit_ridge([], h2=0.2)


def test_fit_ridge__promises_the_r2_it_keeps():
    study = simulate_study(3, p=1.0)
    fit = fit_ridge(study["blocks"], h2=0.4)
    prediction, y = score(study["Z"]["test"], fit.weights), study["y"]["test"]
    # R2 of 2,000 people has a standard error of 0.018
    assert r2(prediction, y) > 0.15
    assert fit.r2_promised == pytest.approx(r2(prediction, y), abs=0.05)


@pytest.fixture
def rng():
    return np.random.default_rng(5)
