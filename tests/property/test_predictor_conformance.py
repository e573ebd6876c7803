"""Every predictor runs through the same checks, and the checks catch predictors that are wrong."""

from functools import partial

import numpy as np
import pytest

from locomass_predictors import checks
from locomass_predictors.base import PredictorError, PredictorFit, map_in_process, tune_on_summary
from locomass_predictors.block_ridge import GenotypeBlock, fit_block_ridge
from locomass_predictors.federated_ridge import FederatedCohort, fit_federated_ridge
from locomass_predictors.method import Source, Tags
from locomass_predictors.mixture import Mixture, fit_mixture
from locomass_predictors.registry import METHODS, methods_from

SUMMARY = methods_from(Source.SUMMARY)


def fit_blocks(name, blocks, options=None):
    """The method with the options that its tags call quick, tuned on the training effects themselves."""
    method = SUMMARY[name]
    tune = tune_on_summary(blocks, [block.beta_hat for block in blocks])
    return method.fit_summary(
        blocks,
        options or method.tags.quick or method.options(),
        h2=0.6,
        h2_init=0.6,
        tune=tune,
        seed=1,
        map_function=map_in_process,
    )


def genotype_blocks(dosages):
    return [
        GenotypeBlock(c, len(part), lambda G=G, part=part: G[:, part])
        for c, G in dosages.items()
        for part in np.array_split(np.arange(G.shape[1]), 2)
    ]


def stack_by_chromosome(dosages, blocks, weights):
    pairs = list(zip(blocks, weights, strict=True))
    joined = {c: np.concatenate([w for block, w in pairs if block.chromosome == c]) for c in dosages}
    return lambda new: np.stack([new[c] @ joined[c] for c in dosages])


def fit_stacked(dosages, y, sample, *, leave_one_out=False):
    blocks = genotype_blocks(dosages)
    folds = None if leave_one_out else sample % 4
    fit = fit_block_ridge(blocks, y[:, None], np.ones((y.size, 1)), folds=folds, leave_one_out=leave_one_out)[0]
    return stack_by_chromosome(dosages, blocks, fit.weights)


def fit_mixed(dosages, y, sample):
    blocks = genotype_blocks(dosages)
    options = Mixture(n_chains=2, burn_in=20, n_keep=20)
    fit = fit_mixture(blocks, y[:, None], np.ones((y.size, 1)), options, folds=sample % 4)[0]
    return stack_by_chromosome(dosages, blocks, fit.weights)


def fit_federated(dosages, y, sample):
    cohorts = []
    for study in range(2):
        rows = sample % 2 == study
        blocks = genotype_blocks({c: G[rows] for c, G in dosages.items()})
        cohorts.append(FederatedCohort(blocks, y[rows], np.ones((int(rows.sum()), 1))))
    return stack_by_chromosome(dosages, blocks, fit_federated_ridge(cohorts, h2=0.6).weights)


FITS = {name: checks.fit_from_summary(partial(fit_blocks, name)) for name in SUMMARY} | {
    "stacked ridge": fit_stacked,
    "stacked ridge, leave one out": partial(fit_stacked, leave_one_out=True),
    "mixture": fit_mixed,
    "federated ridge": fit_federated,
}


@pytest.mark.parametrize("name", FITS)
def test_check_predictor__every_predictor_passes(name):
    tags = METHODS[name].tags if name in METHODS else Tags()
    checks.check_predictor(FITS[name], tolerance=tags.tolerance, least_r2=tags.least_r2)


@pytest.mark.parametrize("name", SUMMARY)
def test_check_infinite_sample__every_summary_method_passes(name):
    tags = SUMMARY[name].tags
    checks.check_infinite_sample(partial(fit_blocks, name, options=tags.unpenalised), tolerance=tags.endless)


@pytest.mark.parametrize("name", ["ridge", "lassosum2"])
def test_summary_effects_of_a_chromosome_stay_on_it(name):
    """Blocks are independent, so a refit with other effects on chromosome 2 leaves the other weights to the bit.

    One effect stays the largest of all, on chromosome 1, because it sets the scale of lassosum2's penalties.
    """
    fits = []
    for factor in (1.0, -0.5):
        cohort = checks.simulate_cohort()
        seen = {}

        def keep(blocks, factor=factor, seen=seen):
            blocks[0].beta_hat[0] = 0.9
            blocks[1].beta_hat[:] *= factor
            seen["tune"] = lambda weights: float(sum(np.abs(w).sum() for w in (weights[0], weights[2])))
            method = SUMMARY[name]
            return method.fit_summary(blocks, method.options(), h2=0.6, tune=seen["tune"], map_function=map_in_process)

        score = checks.fit_from_summary(keep)(cohort.dosages, cohort.y, cohort.sample)
        fits.append(score(cohort.dosages))
    np.testing.assert_array_equal(fits[0][[0, 2]], fits[1][[0, 2]])
    assert np.abs(fits[0][1] - fits[1][1]).max() > 0


def ridge(dosages, y, sample):
    return checks.fit_from_summary(partial(fit_blocks, "ridge"))(dosages, y, sample)


def leaks_between_chromosomes(dosages, y, sample):
    score = ridge(dosages, y, sample)
    return lambda new: np.roll(score(new), 1, axis=0)


def depends_on_order(dosages, y, sample):
    return ridge(dosages, y * (1 + 0.1 * (np.arange(y.size) % 2)), sample)


def ignores_the_unit(dosages, y, sample):
    return ridge(dosages, y / y.std(), sample)


def draws_at_random(dosages, y, sample):
    score, factor = ridge(dosages, y, sample), 1 + 1e-9 * np.random.default_rng().random()
    return lambda new: factor * score(new)


def predicts_nothing(dosages, y, sample):
    score = ridge(dosages, y, sample)
    return lambda new: 0.0 * score(new)


def weights_without_variation(dosages, y, sample):
    score = ridge(dosages, y, sample)
    return lambda new: score(new) + 1e-9 * y.std()


@pytest.mark.parametrize(
    ("fit", "message"),
    [
        (leaks_between_chromosomes, "editing chromosome 1 changes its own LOCO prediction"),
        (depends_on_order, "depends on the order of the samples"),
        (ignores_the_unit, "does not scale with the trait"),
        (draws_at_random, "two fits with the same seed differ"),
        (predicts_nothing, "a trait without noise is predicted with R2 0.000"),
        (weights_without_variation, "chromosome 1 did not vary in training"),
    ],
)
def test_check_predictor__catches_what_is_wrong(fit, message):
    with pytest.raises(PredictorError, match=message):
        checks.check_predictor(fit)


def test_check_chromosome_left_out__catches_a_score_that_ignores_its_genotypes():
    cohort = checks.simulate_cohort()

    def frozen(dosages, y, sample):
        parts = ridge(dosages, y, sample)(dosages)
        return lambda new: parts

    with pytest.raises(PredictorError, match="editing chromosome 1 does not change its score"):
        checks.check_chromosome_left_out(frozen, cohort)


def test_check_infinite_sample__catches_shrinkage():
    with pytest.raises(PredictorError, match="although sample size is endless"):
        checks.check_infinite_sample(lambda blocks: PredictorFit([0.9 * b.beta_hat for b in blocks], None))
