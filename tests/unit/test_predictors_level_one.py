import numpy as np
import pytest

from locomass_predictors.base import PredictorError
from locomass_predictors.level_one import (
    fit_logistic_leave_one_out,
    fit_logistic_out_of_fold,
    fit_logistic_ridge,
    fit_ridge_leave_one_out,
    fit_ridge_out_of_fold,
    predict_out_of_fold,
)
from tests.reference_predictors import minimise_logistic

PENALTIES = np.array([100.0, 3.0, 0.1])


def data(rng, n=60, k=5):
    W = rng.standard_normal((n, k))
    eta = W @ rng.standard_normal(k) * 0.5
    y = (rng.random(n) < 1 / (1 + np.exp(-eta))).astype(float)
    return W, eta + rng.standard_normal(n), y, 0.3 * rng.standard_normal(n)


def ridge(W, y, penalty):
    return np.linalg.inv(W.T @ W + penalty * np.eye(W.shape[1])) @ W.T @ y


def test_fit_ridge_out_of_fold__refits_without_each_fold(rng):
    W, y, _, _ = data(rng)
    folds = rng.integers(0, 4, 60)
    fit = fit_ridge_out_of_fold([W], y, PENALTIES, folds)
    losses = []
    for penalty in PENALTIES:
        errors = [(y[i] - W[i] @ ridge(W[folds != folds[i]], y[folds != folds[i]], penalty)) ** 2 for i in range(60)]
        losses.append(np.mean(errors))
    np.testing.assert_allclose(fit.cv_loss, losses, rtol=1e-10)
    assert fit.choice == np.argmin(losses)
    for k in range(4):
        expected = ridge(W[folds != k], y[folds != k], PENALTIES[fit.choice])
        np.testing.assert_allclose(fit.out_of_fold[k], expected, rtol=1e-9)
    np.testing.assert_allclose(fit.full, ridge(W, y, PENALTIES[fit.choice]), rtol=1e-9)


def test_fit_out_of_fold__each_fold_has_its_own_predictors(rng):
    W, y, case, offset = data(rng)
    folds = np.arange(60) % 2
    Ws = [W, W[:, ::-1] ** 3]
    for fit, target, extra in ((fit_ridge_out_of_fold, y, ()), (fit_logistic_out_of_fold, case, (offset,))):
        together = fit(Ws, target, *extra, PENALTIES[:1], folds)
        for k in range(2):
            alone = fit([Ws[k]], target, *extra, PENALTIES[:1], folds)
            np.testing.assert_allclose(together.out_of_fold[k], alone.out_of_fold[k], rtol=1e-12)


def test_fit_ridge_leave_one_out__is_n_folds(rng):
    W, y, _, _ = data(rng)
    one_out = fit_ridge_leave_one_out(W, y, PENALTIES)
    folds = fit_ridge_out_of_fold([W], y, PENALTIES, np.arange(60))
    np.testing.assert_allclose(one_out.out_of_fold, folds.out_of_fold, atol=1e-12)
    np.testing.assert_allclose(one_out.cv_loss, folds.cv_loss, rtol=1e-10)
    np.testing.assert_allclose(one_out.full, folds.full, rtol=1e-12)
    assert one_out.choice == folds.choice


@pytest.mark.parametrize("penalty", [0.0, 0.5, 50.0])
def test_fit_logistic_ridge__equals_general_optimiser(rng, penalty):
    W, _, y, offset = data(rng, n=200)
    found = fit_logistic_ridge(W, y, offset, penalty, np.zeros(5))
    np.testing.assert_allclose(found, minimise_logistic(W, y, offset, penalty), atol=1e-6)
    gradient = W.T @ (y - 1 / (1 + np.exp(-offset - W @ found))) - penalty * found
    np.testing.assert_allclose(gradient, 0, atol=1e-9)


def test_fit_logistic_ridge__converges_from_far_away(rng):
    W, _, y, offset = data(rng, n=200)
    near = fit_logistic_ridge(W, y, offset, 0.5, np.zeros(5))
    np.testing.assert_allclose(fit_logistic_ridge(W, y, offset, 0.5, np.full(5, 8.0)), near, atol=1e-8)


def test_fit_logistic_ridge__raises_on_separation():
    x = np.linspace(-1, 1, 20)[:, None]
    with pytest.raises(PredictorError, match="separates cases from controls"):
        fit_logistic_ridge(x, (x[:, 0] > 0).astype(float), np.zeros(20), 0.0, np.zeros(1))


def test_fit_logistic_ridge__raises_on_a_level_without_cases(rng):
    """Quasi-separation: one group has no case, so its coefficient has no estimate."""
    group = np.arange(60) % 3 == 0
    y = np.where(group, 0.0, np.arange(60) % 2)
    X = np.column_stack([np.ones(60), group])
    with pytest.raises(PredictorError, match="separates cases from controls"):
        fit_logistic_ridge(X, y, np.zeros(60), 0.0, np.zeros(2))
    assert np.isfinite(fit_logistic_ridge(X, y, np.zeros(60), 1.0, np.zeros(2))).all()


def test_fit_logistic_out_of_fold__refits_without_each_fold(rng):
    W, _, y, offset = data(rng, n=150)
    folds = np.arange(150) % 3
    fit = fit_logistic_out_of_fold([W], y, offset, PENALTIES, folds)
    penalty = PENALTIES[fit.choice]
    for k in range(3):
        rest = folds != k
        expected = minimise_logistic(W[rest], y[rest], offset[rest], penalty)
        np.testing.assert_allclose(fit.out_of_fold[k], expected, atol=1e-6)
    eta = offset + np.array([W[i] @ fit.out_of_fold[folds[i]] for i in range(150)])
    loss = -np.mean(y * np.log(1 / (1 + np.exp(-eta))) + (1 - y) * np.log(1 / (1 + np.exp(eta))))
    assert fit.cv_loss[fit.choice] == pytest.approx(loss, rel=1e-9)
    assert fit.cv_loss[fit.choice] == fit.cv_loss.min()


def test_fit_logistic_leave_one_out__is_close_to_the_refit(rng):
    W, _, y, offset = data(rng, n=150)
    fit = fit_logistic_leave_one_out(W, y, offset, PENALTIES)
    penalty = PENALTIES[fit.choice]
    np.testing.assert_allclose(fit.full, minimise_logistic(W, y, offset, penalty), atol=1e-6)
    for i in range(0, 150, 30):
        rest = np.arange(150) != i
        exact = minimise_logistic(W[rest], y[rest], offset[rest], penalty)
        # one Newton step covers nearly all of the way that leaving out one sample takes
        moved = np.abs(exact - fit.full).max()
        assert np.abs(fit.out_of_fold[i] - exact).max() < 0.1 * moved


def test_predict_out_of_fold__uses_each_samples_own_coefficients(rng):
    W = rng.standard_normal((6, 2))
    coefficients = rng.standard_normal((2, 2))
    folds = np.array([0, 1, 1, 0, 1, 0])
    expected = [W[i] @ coefficients[folds[i]] for i in range(6)]
    np.testing.assert_allclose(predict_out_of_fold(W, coefficients, folds), expected, rtol=1e-12)


@pytest.fixture
def rng():
    return np.random.default_rng(12)
