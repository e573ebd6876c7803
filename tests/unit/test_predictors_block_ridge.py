import numpy as np
import pytest

from locomass_predictors.base import PredictorError
from locomass_predictors.block_ridge import H_GRID, GenotypeBlock, find_orthonormal_basis, fit_block_ridge
from locomass_predictors.level_one import fit_logistic_ridge
from tests.reference_predictors import r2, simulate_haplotype_block, stacked_ridge_by_definition


def study(seed=1, n=240, sizes=(12, 9, 15), h2=0.5):
    rng = np.random.default_rng(seed)
    dosages = [simulate_haplotype_block(rng, n, m) for m in sizes]
    X = np.column_stack([np.ones(n), rng.standard_normal(n)])
    Z = np.hstack(dosages)
    genetic = (Z - Z.mean(0)) @ rng.standard_normal(Z.shape[1])
    genetic /= genetic.std()
    y = np.sqrt(h2) * genetic + np.sqrt(1 - h2) * rng.standard_normal(n) + 2 * X[:, 1]
    return dosages, X, y, genetic, rng


def as_blocks(dosages, chromosomes=("1", "1", "2")):
    return [GenotypeBlock(c, G.shape[1], lambda G=G: G) for c, G in zip(chromosomes, dosages, strict=True)]


def test_fit_block_ridge__equals_the_definition():
    dosages, X, y, _, rng = study()
    folds = rng.permutation(np.arange(240) % 5)
    fit = fit_block_ridge(as_blocks(dosages), y[:, None], X, folds=folds, nested=True)[0]
    parts, h = stacked_ridge_by_definition(dosages, ["1", "1", "2"], y, X, H_GRID, folds)
    assert fit.chromosomes == ("1", "2")
    assert fit.h_level_1 == h
    # level-0 predictions are stored in float32
    np.testing.assert_allclose(fit.parts, parts, atol=1e-6)
    residual = y - X @ np.linalg.lstsq(X, y, rcond=None)[0]
    assert fit.r2_apparent == pytest.approx(r2(parts.sum(0), residual), abs=1e-6)
    nested, _ = stacked_ridge_by_definition(dosages, ["1", "1", "2"], y, X, H_GRID, folds, nested=True)
    assert fit.r2_cross_validated == pytest.approx(r2(nested.sum(0), residual), abs=1e-6)
    plain = fit_block_ridge(as_blocks(dosages), y[:, None], X, folds=folds, nested=False)[0]
    np.testing.assert_array_equal(plain.parts, fit.parts)
    assert plain.r2_cross_validated == plain.r2_apparent == fit.r2_apparent


def test_fit_block_ridge__leave_one_out_equals_the_definition():
    dosages, X, y, _, _ = study(n=50)
    fit = fit_block_ridge(as_blocks(dosages), y[:, None], X, leave_one_out=True)[0]
    parts, h = stacked_ridge_by_definition(dosages, ["1", "1", "2"], y, X, H_GRID, np.arange(50))
    assert fit.h_level_1 == h
    np.testing.assert_allclose(fit.parts, parts, atol=1e-6)


def test_fit_block_ridge__traits_together_or_apart():
    dosages, X, y, _, rng = study()
    other = rng.standard_normal(240)
    both = fit_block_ridge(as_blocks(dosages), np.column_stack([y, other]), X)
    for t, trait in enumerate((y, other)):
        alone = fit_block_ridge(as_blocks(dosages), trait[:, None], X)[0]
        np.testing.assert_allclose(both[t].parts, alone.parts, atol=1e-6)


def test_fit_block_ridge__predicts_out_of_fold():
    dosages, X, y, genetic, _ = study(n=1_000)
    fit = fit_block_ridge(as_blocks(dosages), y[:, None], X)[0]
    residual = y - 2 * X[:, 1]
    assert fit.r2_cross_validated == pytest.approx(r2(fit.parts.sum(0), residual), abs=0.02)
    assert 0.4 < fit.r2_cross_validated < 0.5
    assert r2(fit.parts.sum(0), genetic) > 0.85
    slope = np.polyfit(fit.parts.sum(0), residual, 1)[0]
    assert 0.9 < slope < 1.1


@pytest.mark.parametrize("leave_one_out", [False, True])
def test_fit_block_ridge__r2_of_noise_is_none_in_nested_folds(leave_one_out):
    """Stacking as published predicts noise, about one unit of n R2 per block; nested folds do not."""
    rng = np.random.default_rng(2)
    n, n_blocks = 400, 15
    dosages = [rng.binomial(2, 0.3, (n, 20)).astype(np.float32) for _ in range(n_blocks)]
    blocks = as_blocks(dosages, [str(k) for k in range(n_blocks)])
    fits = fit_block_ridge(blocks, rng.standard_normal((n, 16)), np.ones((n, 1)), leave_one_out=leave_one_out)
    assert np.mean([n * fit.r2_apparent for fit in fits]) > 5.0
    # 0.5 is the mean of the positive part of a standard normal, squared; 16 traits leave an error of about 0.4
    assert np.mean([n * fit.r2_cross_validated for fit in fits]) < 2.0


def test_fit_block_ridge__weights_predict_new_people():
    dosages, X, y, genetic, _ = study(n=1_000)
    train = np.arange(1_000) < 700
    blocks = as_blocks([G[train] for G in dosages])
    fit = fit_block_ridge(blocks, y[train, None], X[train])[0]
    assert [w.shape for w in fit.weights] == [(12,), (9,), (15,)]
    prediction = sum(G[~train] @ w for G, w in zip(dosages, fit.weights, strict=True))
    assert r2(prediction, genetic[~train]) > 0.85
    # per-allele weights on the scale of the trait
    assert 0.85 < np.polyfit(prediction, (y - 2 * X[:, 1])[~train], 1)[0] < 1.15


def test_fit_block_ridge__covariates_do_not_enter():
    dosages, X, y, _, _ = study()
    folds = np.arange(240) % 5
    plain = fit_block_ridge(as_blocks(dosages), y[:, None], X, folds=folds)[0]
    moved = fit_block_ridge(as_blocks(dosages), (y + 5 - 3 * X[:, 1])[:, None], X, folds=folds)[0]
    np.testing.assert_allclose(moved.parts, plain.parts, atol=1e-6)
    doubled = fit_block_ridge(as_blocks(dosages), y[:, None], np.hstack([X, X[:, :1] - X[:, 1:]]), folds=folds)[0]
    np.testing.assert_allclose(doubled.parts, plain.parts, atol=1e-6)
    np.testing.assert_allclose(plain.parts @ X, 0, atol=240 * 0.2)


def test_fit_block_ridge__missing_calls_and_constant_variants():
    dosages, X, y, _, rng = study()
    holes = [G.copy() for G in dosages]
    holes[0][rng.random(holes[0].shape) < 0.05] = np.nan
    holes[1][:, 2] = 1.0
    holes[1][:, 3] = np.nan
    folds = np.arange(240) % 5
    fit = fit_block_ridge(as_blocks(holes), y[:, None], X, folds=folds)[0]
    filled = [np.where(np.isnan(G), np.nanmean(G[:, :1], axis=0) * 0 + 7, G) for G in holes]
    for j in range(holes[0].shape[1]):
        column = holes[0][:, j]
        filled[0][:, j] = np.where(np.isnan(column), column[~np.isnan(column)].mean(), column)
    again = fit_block_ridge(as_blocks(filled), y[:, None], X, folds=folds)[0]
    np.testing.assert_allclose(fit.parts, again.parts, atol=1e-6)
    assert fit.weights[1][2] == fit.weights[1][3] == 0.0


def test_fit_block_ridge__small_binary_studies_leave_one_out_by_default():
    dosages, X, y, _, _ = study()
    case = (y > np.median(y)).astype(float)
    blocks = as_blocks(dosages)
    assert fit_block_ridge(blocks, case[:, None], X, binary=True)[0].folds.max() == 239
    assert fit_block_ridge(blocks, case[:, None], X, binary=True, folds=np.arange(240) % 3)[0].folds.max() == 2
    assert fit_block_ridge(blocks, y[:, None], X)[0].folds.max() == 4


@pytest.mark.parametrize("leave_one_out", [True, False])
def test_fit_block_ridge__binary_trait(leave_one_out):
    dosages, X, _, genetic, rng = study(n=1_200)
    risk = 1 / (1 + np.exp(-(-1 + 1.2 * genetic + X[:, 1])))
    case = (rng.random(1_200) < risk).astype(float)
    fit = fit_block_ridge(as_blocks(dosages), case[:, None], X, binary=True, leave_one_out=leave_one_out)[0]
    total = fit.parts.sum(0)
    assert r2(total, genetic) > 0.6
    # the linear predictor is on the log-odds scale: calibrated within its error
    design = np.column_stack([X, total])
    slope = fit_logistic_ridge(design, case, np.zeros(1_200), 0.0, np.zeros(3))[2]
    assert 0.75 < slope < 1.25
    assert fit.folds.max() == (1_199 if leave_one_out else 4)


def test_fit_block_ridge__binary_folds_are_stratified():
    dosages, X, _, _, rng = study()
    case = np.zeros(240)
    case[rng.choice(240, 15, replace=False)] = 1.0
    fit = fit_block_ridge(as_blocks(dosages), case[:, None], X, binary=True, leave_one_out=False)[0]
    assert np.bincount(fit.folds[case == 1]).tolist() == [3] * 5


def test_fit_block_ridge__reads_each_block_once_through_the_map():
    dosages, X, y, _, _ = study()
    reads = []
    blocks = [GenotypeBlock("1", G.shape[1], lambda G=G, k=k: (reads.append(k), G)[1]) for k, G in enumerate(dosages)]

    def backwards(function, items):
        return [function(item) for item in reversed(items)][::-1]

    moved = fit_block_ridge(blocks, y[:, None], X, map_function=backwards)[0]
    assert reads == [2, 1, 0]
    np.testing.assert_array_equal(moved.parts, fit_block_ridge(blocks, y[:, None], X)[0].parts * 1.0)


def test_find_orthonormal_basis__spans_the_covariates():
    rng = np.random.default_rng(1)
    X = rng.standard_normal((30, 3)) * [1, 1e6, 1e-6]
    X = np.column_stack([X, X[:, 0] + X[:, 1], np.zeros(30)])
    Q = find_orthonormal_basis(X)
    assert Q.shape == (30, 3)
    np.testing.assert_allclose(Q.T @ Q, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(Q @ (Q.T @ X), X, rtol=1e-9, atol=1e-12)


def arguments(**change):
    dosages, X, y, _, _ = study(n=60)
    return {"blocks": as_blocks(dosages), "y": y[:, None], "covariates": X} | change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": np.ones(60)}, r"expected \(n, T\) traits"),
        ({"y": np.full((60, 1), np.nan)}, "must be complete"),
        ({"y": np.full((60, 1), 2.0), "binary": True}, "binary traits must be 0/1"),
        ({"y": np.ones((60, 1)), "binary": True}, "with both values present"),
        ({"y": np.full((60, 1), 3.0)}, "trait 1 does not vary once covariates are projected out"),
        ({"blocks": []}, "every block is empty"),
        ({"blocks": [GenotypeBlock("4", 5, lambda: np.ones((60, 6)))]}, r"chromosome 4 has dosages of shape \(60, 6\)"),
        ({"h_grid": (0.0, 0.5)}, "h_grid must lie between 0 and 1"),
        ({"n_folds": 1}, "n_folds must lie between 2 and the 60 samples, got 1"),
        ({"folds": np.zeros(60, int)}, "without an empty fold"),
        ({"folds": np.arange(60) % 2 * 2}, "without an empty fold"),
    ],
)
def test_fit_block_ridge__raises_on_input(change, message):
    with pytest.raises(PredictorError, match=message):
        fit_block_ridge(**arguments(**change))
