import numpy as np
import pytest

from locomass_predictors.base import BlockStatistics, PredictorError, score_variance
from locomass_predictors.lassosum2 import Lassosum2, fit_lassosum2, solve_block
from tests.reference_predictors import lassosum2_by_definition, r2, score, simulate_study


def random_block(rng, m=8):
    X = rng.standard_normal((50, m)) + 0.7 * rng.standard_normal((50, 1))
    X = (X - X.mean(0)) / X.std(0)
    R = (X.T @ X / 50).astype(np.float32)
    np.fill_diagonal(R, 1)
    return BlockStatistics(0.1 * rng.standard_normal(m), np.full(m, 500.0), R, "1")


def test_solve_block__equals_plain_loops(rng):
    block = random_block(rng)
    lambdas = np.geomspace(0.2, 0.002, 12)
    deltas = np.array([0.001, 0.01, 0.1, 1.0])
    path = solve_block(block, deltas=deltas, lambdas=lambdas, tolerance=1e-14, max_passes=100_000)
    assert path.shape == (4, 12, 8)
    for d, delta in enumerate(deltas):
        plain = lassosum2_by_definition(block.R, block.beta_hat, delta, lambdas, 1e-14)
        # the same steps in another order of summation
        np.testing.assert_allclose(path[d], plain, atol=1e-12)


def test_solve_block__is_the_minimum(rng):
    """Subgradient conditions: |u - (1 + delta) w| = lambda where w is not 0, at most lambda where it is."""
    block = random_block(rng, 15)
    path = solve_block(block, deltas=np.array([0.1]), lambdas=np.array([0.03]), tolerance=1e-14, max_passes=100_000)
    w = path[0, 0]
    gradient = block.beta_hat - block.R.astype(float) @ w - 0.1 * w
    assert 0 < (w != 0).sum() < 15
    np.testing.assert_allclose(gradient[w != 0], 0.03 * np.sign(w[w != 0]), atol=1e-12)
    assert (np.abs(gradient[w == 0]) <= 0.03 + 1e-12).all()


def test_solve_block__nothing_at_the_largest_lambda(rng):
    block = random_block(rng)
    largest = np.abs(block.beta_hat).max()
    path = solve_block(block, deltas=np.array([0.1]), lambdas=np.array([largest]), tolerance=1e-12, max_passes=10)
    np.testing.assert_array_equal(path, 0)


@pytest.mark.parametrize("max_passes", [1, 1_000])
def test_solve_block__marks_what_did_not_converge(max_passes):
    R = np.full((4, 4), -1.0, dtype=np.float32)
    np.fill_diagonal(R, 1.0)
    block = BlockStatistics(np.full(4, 0.1), np.full(4, 1e3), R, "1")
    path = solve_block(
        block, deltas=np.array([0.0]), lambdas=np.array([0.09, 0.001]), tolerance=1e-9, max_passes=max_passes
    )
    assert np.isnan(path[0, -1]).all()


def test_fit_lassosum2__returns_what_tuning_prefers(rng):
    blocks = [random_block(rng), random_block(rng)]
    fit = fit_lassosum2(blocks, Lassosum2(n_lambdas=10), tune=lambda w: -abs(sum((v != 0).sum() for v in w) - 5))
    assert abs(sum((v != 0).sum() for v in fit.weights) - 5) <= 1
    assert len(fit.record["grid"]) == 40
    best = max(fit.record["grid"], key=lambda point: point["score"])
    assert (best["delta"], best["lambda"]) == (fit.record["delta"], fit.record["lambda"])
    assert fit.promise.variance == pytest.approx(score_variance(blocks, fit.weights))


def test_fit_lassosum2__predicts_other_people():
    study = simulate_study(4, n_blocks=10, m=30, p=0.03, n_gwas=4_000, n_test=2_000)
    Z, y = study["Z"]["test"], study["y"]["test"]
    fit = fit_lassosum2(study["blocks"], tune=lambda w: r2(score(Z, w), y) if np.any(np.concatenate(w)) else 0.0)
    assert r2(score(Z, fit.weights), y) > 0.3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_lambdas": 0}, "n_lambdas >= 1"),
        ({"deltas": (-1.0,)}, "deltas >= 0"),
        ({"lambda_ratio": 1.0}, "lambda_ratio < 1"),
    ],
)
def test_fit_lassosum2__raises_on_settings(rng, options, message):
    with pytest.raises(PredictorError, match=message):
        fit_lassosum2([random_block(rng)], Lassosum2(**options), tune=lambda w: 1.0)


def test_fit_lassosum2__raises_without_effects():
    block = BlockStatistics(np.zeros(3), np.ones(3), np.eye(3), "1")
    with pytest.raises(PredictorError, match=r"max \|effect\| 0"):
        fit_lassosum2([block], tune=lambda w: 1.0)


@pytest.fixture
def rng():
    return np.random.default_rng(8)
