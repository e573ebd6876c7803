import numpy as np
import pytest

from locomass_predictors.block_ridge import GenotypeBlock
from locomass_predictors.mixture import Mixture, fit_mixture, predict_out_of_fold, sum_by_fold
from tests.reference_predictors import outside_fold_by_definition, r2, simulate_haplotype_block, standardise

SHORT = Mixture(n_chains=2, burn_in=60, n_keep=60)


class World:
    """Six chromosomes of correlated variants, and traits of them."""

    def __init__(self, n, m=60, n_chromosomes=6, seed=1):
        self.rng = np.random.default_rng(seed)
        self.dosages = [simulate_haplotype_block(self.rng, n, m, 0.7) for _ in range(n_chromosomes)]
        self.Z = np.hstack([standardise(G) for G in self.dosages])
        self.blocks = [GenotypeBlock(str(c + 1), m, lambda G=G: G) for c, G in enumerate(self.dosages)]

    def trait(self, n_causal, h2=0.4):
        effect = np.zeros(self.Z.shape[1])
        effect[self.rng.choice(effect.size, n_causal, replace=False)] = self.rng.standard_normal(n_causal)
        genetic = self.Z @ effect
        return np.sqrt(h2) * genetic / genetic.std() + np.sqrt(1 - h2) * self.rng.standard_normal(len(genetic))


@pytest.fixture(scope="module")
def world():
    return World(800)


def fit(world, y, **options):
    return fit_mixture(world.blocks, y[:, None], np.ones((len(y), 1)), SHORT, **options)[0]


def test_sums__of_the_others_are_those_of_the_definition(world):
    folds, n = np.arange(800) % 3, 800
    y = world.trait(10)
    y = (y - y.mean()) / y.std()
    basis = np.full((n, 1), n**-0.5)
    sums = sum_by_fold(world.blocks[0], y=y[:, None], basis=basis, folds=folds)
    Z = standardise(world.dosages[0])
    for fold in (0, 2, None):
        rest = n if fold is None else int((folds != fold).sum())
        block, turn = sums.leave_out(fold, 0, rest, "1")
        R, b = outside_fold_by_definition(Z, y, folds, fold)
        np.testing.assert_allclose(block.R, R, atol=2e-6)
        np.testing.assert_allclose(block.beta_hat, b / np.sqrt(rest), atol=1e-6)
        assert (block.n == rest).all()
        inside = folds != fold if fold is not None else np.ones(n, bool)
        np.testing.assert_allclose(turn, 1 / Z[inside].std(axis=0), rtol=0.02)


def test_predict_out_of_fold__uses_the_weights_of_the_sample_s_own_fold(world):
    folds = np.arange(800) % 3
    weights = world.rng.standard_normal((1, 2, 3, 60))
    found = predict_out_of_fold(world.blocks[1], weights, basis=np.full((800, 1), 800**-0.5), folds=folds)
    Z = standardise(world.dosages[1])
    for i in (0, 1, 2, 799):
        np.testing.assert_allclose(found[0, :, i], weights[0, :, folds[i]] @ Z[i], atol=1e-9)


def test_fit_mixture__beats_ridge_on_a_sparse_trait_and_is_not_behind_on_a_polygenic_one(world):
    sparse = fit(world, world.trait(5))
    assert sparse.record["r2_cross_validated"] > 1.15 * sparse.record["r2_ridge"]
    assert sparse.record["weight_mixture"] > 3 * sparse.record["weight_ridge"]
    assert sparse.record["p"] < 0.1
    polygenic = [fit(world, world.trait(360)).record for _ in range(3)]
    both, ridge = (np.mean([record[key] for record in polygenic]) for key in ("r2_cross_validated", "r2_ridge"))
    # weights of two predictors that are alike, fitted without the fold: 2 to 6 % of R2 with 800 people
    assert both > 0.92 * ridge > 0.08


def test_fit_mixture__predicts_out_of_fold_and_noise_not_at_all(world):
    """A prediction that had seen its own fold would correlate with noise: R2 about M/n."""
    found = []
    for seed in range(3):
        y = np.random.default_rng(seed).standard_normal(800)
        total = fit(world, y, seed=seed).parts.sum(axis=0)
        found.append(np.corrcoef(total, y)[0, 1] if total.std() > 0 else 0.0)
    # standard error of the mean of three correlations 0.02
    assert abs(np.mean(found)) < 0.06


def test_fit_mixture__of_a_binary_trait_is_in_log_odds():
    world = World(1500, m=40, seed=3)
    y = world.trait(6, h2=0.5)
    case = (y > np.quantile(y, 0.8)).astype(float)
    found = fit(world, case, binary=True)
    total = found.parts.sum(axis=0)
    assert found.record["r2_cross_validated"] > 0.1
    # the slope of a logistic fit on it, by the difference of means over the variance, as of a discriminant analysis
    within = 0.5 * (total[case == 1].var() + total[case == 0].var())
    assert (total[case == 1].mean() - total[case == 0].mean()) / within == pytest.approx(1.0, abs=0.25)


def test_fit_mixture__weights_are_those_of_everyone(world):
    y = world.trait(5)
    found = fit(world, y)
    whole = sum(G @ w for G, w in zip(world.dosages, found.weights, strict=True))
    other = World(800, seed=1)
    assert r2(whole, y) > found.record["r2_cross_validated"] - 0.05
    assert len(found.weights) == len(other.blocks)
    assert found.chromosomes == ("1", "2", "3", "4", "5", "6")
    assert found.parts.shape == (6, 800)
