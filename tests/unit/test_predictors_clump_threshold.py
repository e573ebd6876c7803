import numpy as np
import pytest
from scipy.stats import norm

from locomass_predictors.base import BlockStatistics, PredictorError
from locomass_predictors.clump_threshold import ClumpThreshold, clump_block, fit_clump_threshold
from tests.reference_predictors import clump_by_definition, simulate_study


@pytest.fixture(scope="module")
def study():
    return simulate_study(3, n_blocks=4, m=40, p=0.05, n_gwas=3_000, n_reference=1_000, n_test=1_000)


def with_positions(blocks, step=3_000):
    return [BlockStatistics(b.beta_hat, b.n, b.R, b.chromosome, step * np.arange(b.n.size)) for b in blocks]


@pytest.mark.parametrize("window", [0, 9_000, 10**9])
@pytest.mark.parametrize("r2", [0.0, 0.1, 0.5, 1.0])
def test_clump_block__equals_the_definition(study, r2, window):
    for block in with_positions(study["blocks"]):
        expected = clump_by_definition(block.beta_hat, block.n, block.R, block.position, r2, window)
        assert clump_block(block, r2=np.array([r2]), window=window)[0].tolist() == expected.tolist()


def test_clump_block__limits(study):
    block = with_positions(study["blocks"])[0]
    # nothing is removed without a window, or when only r2 above 1 counts; one variant is left when all are near
    assert clump_block(block, r2=np.array([0.0]), window=0.0).all()
    assert clump_block(block, r2=np.array([1.0]), window=1e9).all()
    assert clump_block(block, r2=np.array([0.0]), window=1e9).sum() == 1


def test_fit_clump_threshold__weights_are_the_effects_of_significant_index_variants(study):
    blocks, p_value = with_positions(study["blocks"]), 1e-4
    fit = fit_clump_threshold(blocks, ClumpThreshold(r2=(0.2,), p_values=(p_value,)), tune=lambda w: 1.0)
    for block, w in zip(blocks, fit.weights, strict=True):
        kept = clump_by_definition(block.beta_hat, block.n, block.R, block.position, 0.2, 250_000)
        z = np.abs(block.beta_hat) * np.sqrt(block.n / (1 - block.beta_hat**2))
        expected = np.where(kept & (2 * norm.sf(z) <= p_value), block.beta_hat, 0.0)
        np.testing.assert_array_equal(w, expected)
    assert fit.record["n_kept"] == sum(np.count_nonzero(w) for w in fit.weights) > 0


def test_fit_clump_threshold__predicts_other_people(study):
    Z, y = study["Z"]["test"], study["y"]["test"]

    def correlate(weights):
        prediction = Z @ np.concatenate(weights)
        return float(np.corrcoef(prediction, y)[0, 1]) if prediction.std() > 0 else 0.0

    fit = fit_clump_threshold(with_positions(study["blocks"]), ClumpThreshold(r2=(0.1, 0.5)), tune=correlate)
    best = max(fit.record["grid"], key=lambda point: point["score"])
    assert (best["r2"], best["p_value"]) == (fit.record["r2"], fit.record["p_value"])
    # h2 is 0.4, eight causal variants
    assert correlate(fit.weights) ** 2 > 0.25


def test_fit_clump_threshold__raises(study):
    with pytest.raises(PredictorError, match="needs the positions"):
        fit_clump_threshold(study["blocks"], tune=lambda w: 1.0)
    with pytest.raises(PredictorError, match="no variant has a p-value up to the thresholds"):
        fit_clump_threshold(with_positions(study["blocks"]), ClumpThreshold(p_values=(1e-300,)), tune=lambda w: 1.0)
