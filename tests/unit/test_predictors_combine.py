import numpy as np
import pytest
from scipy.optimize import minimize

from locomass_predictors.base import PredictorError, compute_r2
from locomass_predictors.combine import stack_predictors
from tests.reference_predictors import r2


def predictors(rng, n=600):
    """Two noisy views of the truth, one useless one, and one that points the other way."""
    truth = rng.standard_normal(n)
    y = truth + rng.standard_normal(n)
    scores = np.column_stack(
        [
            truth + 0.7 * rng.standard_normal(n),
            3 * truth + 6 * rng.standard_normal(n) + 5,
            rng.standard_normal(n),
            -truth + rng.standard_normal(n),
        ]
    )
    return scores, y


def test_stack_predictors__is_the_constrained_minimum(rng):
    scores, y = predictors(rng)
    stack = stack_predictors(scores, y)
    X, r = scores - scores.mean(0), y - y.mean()
    found = minimize(lambda w: ((r - X @ w) ** 2).sum(), np.ones(4), bounds=[(0, None)] * 4, options={"ftol": 1e-15})
    np.testing.assert_allclose(stack.weights, found.x, atol=1e-4)
    assert stack.weights[3] == 0.0
    assert (stack.weights >= 0).all()


def test_stack_predictors__beats_the_best_single_one(rng):
    scores, y = predictors(rng, n=3_000)
    stack = stack_predictors(scores, y)
    assert stack.r2_cross_validated > stack.r2_single.max() + 0.005
    np.testing.assert_allclose(stack.r2_single[:2], [r2(scores[:, 0], y), r2(scores[:, 1], y)])
    assert stack.r2_single[3] == 0.0


def test_stack_predictors__another_trait_may_point_either_way(rng):
    scores, y = predictors(rng)
    plain = stack_predictors(scores, y)
    turned = stack_predictors(scores, y, either_sign=[False, False, False, True])
    assert turned.weights[3] < 0
    assert turned.r2_cross_validated > plain.r2_cross_validated
    assert turned.r2_single[3] == pytest.approx(r2(scores[:, 3], y))
    flipped = stack_predictors(scores * [1, 1, 1, -1], y, either_sign=[False, False, False, True])
    np.testing.assert_allclose(flipped.weights * [1, 1, 1, -1], turned.weights, atol=1e-12)


def test_stack_predictors__folds_are_fitted_without_themselves(rng):
    scores, y = predictors(rng)
    stack = stack_predictors(scores, y, n_folds=3)
    assert sorted(np.bincount(stack.folds)) == [200, 200, 200]
    changed = y.copy()
    changed[stack.folds == 1] = rng.standard_normal(200)
    again = stack_predictors(scores, changed, n_folds=3)
    np.testing.assert_array_equal(again.folds, stack.folds)
    np.testing.assert_allclose(again.fold_weights[1], stack.fold_weights[1], rtol=1e-12)
    assert np.abs(again.fold_weights[0] - stack.fold_weights[0]).max() > 1e-3


def test_stack__subtraction_commutes_with_combining(rng):
    scores, y = predictors(rng)
    split = rng.dirichlet(np.ones(5), size=scores.shape).transpose(2, 0, 1)
    parts = scores * split
    stack = stack_predictors(scores, y)
    whole, by_chromosome = stack.combine(scores), stack.combine(parts)
    assert by_chromosome.shape == (5, 600)
    np.testing.assert_allclose(by_chromosome.sum(0), whole, atol=1e-12)
    np.testing.assert_allclose(whole - by_chromosome[2], stack.combine(scores - parts[2]), atol=1e-12)
    assert compute_r2(whole, y) == pytest.approx(stack.r2_cross_validated)


def test_stack_predictors__scale_of_a_predictor_does_not_matter(rng):
    scores, y = predictors(rng)
    scale = np.array([1e-6, 1e4, 3.0, 1.0])
    np.testing.assert_allclose(
        stack_predictors(scores * scale, y).combine(scores * scale),
        stack_predictors(scores, y).combine(scores),
        rtol=1e-9,
    )


def test_compute_r2__negative_correlation_is_no_success(rng):
    y = rng.standard_normal(50)
    assert compute_r2(-y, y) == 0.0
    assert compute_r2(np.ones(50), y) == 0.0
    assert compute_r2(3 * y + 1, y) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": np.ones(5)}, r"expected \(n, P\) scores"),
        ({"y": np.full(600, np.nan)}, "must be complete"),
        ({"y": np.ones(600)}, "does not vary"),
        ({"either_sign": [True]}, "expected 4 values of either_sign"),
        ({"n_folds": 1}, r"2 to 600 folds, got 4 and 1"),
    ],
)
def test_stack_predictors__raises_on_input(rng, change, message):
    scores, y = predictors(rng)
    with pytest.raises(PredictorError, match=message):
        stack_predictors(**({"scores": scores, "y": y} | change))


def test_stack__raises_on_other_samples(rng):
    scores, y = predictors(rng)
    with pytest.raises(PredictorError, match=r"do not end in \(samples, predictors\) = \(600, 4\)"):
        stack_predictors(scores, y).combine(scores[:10])


@pytest.fixture
def rng():
    return np.random.default_rng(31)
