import numpy as np
import pytest

from predictors.base import BlockStatistics, PredictorError
from predictors.overlap import Severity, judge_ascertainment, judge_overlap, subtract_cohort
from predictors.ridge import fit_ridge
from tests.reference_predictors import r2, score, simulate_study, standardise


def meta(studies):
    w = np.array([1 / se**2 for _, se in studies])
    b = np.array([beta for beta, _ in studies])
    return (w * b).sum(0) / w.sum(0), 1 / np.sqrt(w.sum(0))


def test_subtract_cohort__undoes_the_meta_analysis():
    rng = np.random.default_rng(1)
    studies = [(rng.standard_normal(20), rng.uniform(0.1, 2, 20)) for _ in range(3)]
    rest = meta(studies[:2])
    beta, se = subtract_cohort(*meta(studies), *studies[2])
    np.testing.assert_allclose(beta, rest[0], rtol=1e-10)
    np.testing.assert_allclose(se, rest[1], rtol=1e-10)


def test_subtract_cohort__leaves_what_the_cohort_lacks_and_empties_what_is_only_its_own():
    beta, se = np.array([1.0, 2.0, 3.0]), np.full(3, 0.5)
    without, without_se = subtract_cohort(beta, se, np.array([np.nan, 2.0, 1.0]), np.array([np.nan, 0.5, 1.0]))
    assert (without[0], without_se[0]) == (1.0, 0.5)
    assert np.isnan(without[1])
    assert np.isnan(without_se[1])
    assert without[2] == pytest.approx((4 * 3 - 1) / 3)


@pytest.mark.parametrize(
    ("cohort", "message"),
    [
        ((np.ones(4), np.ones(4)), "equally long"),
        ((np.ones(3), np.zeros(3)), "must be positive"),
        ((np.ones(3), np.full(3, 0.1)), "more weight than the whole GWAS at 3 of 3 variants"),
    ],
)
def test_subtract_cohort__raises(cohort, message):
    with pytest.raises(PredictorError, match=message):
        subtract_cohort(np.ones(3), np.full(3, 0.5), *cohort)


def cohort_statistics(study, people):
    """Blocks of the simulated reference with the marginal effects of ``people``, (Z, y)."""
    Z, y = people
    beta_hat = np.split(Z.T @ y / len(y), len(study["blocks"]))
    return [
        BlockStatistics(b, np.full(b.size, float(len(y))), block.R, block.chromosome)
        for b, block in zip(beta_hat, study["blocks"], strict=True)
    ]


def judge(study, blocks, people, **options):
    Z, y = people
    fit = fit_ridge(blocks, h2=0.4)
    prediction = score(Z, fit.weights)
    slope = np.cov(prediction, y)[0, 1] / prediction.var(ddof=1)
    error = np.sqrt((1 - r2(prediction, y)) / (len(y) * prediction.var()))
    figures = {"r2_observed": r2(prediction, y), "r2_promised": fit.r2_promised, "slope": slope, "slope_se": error}
    return judge_overlap(**figures, n=len(y), binary=False, **options)


@pytest.fixture(scope="module")
def study():
    return simulate_study(11, n_blocks=20, m=40, p=0.2, h2=0.3, n_gwas=3_000, n_reference=2_000, n_test=2_000)


def test_judge_overlap__fires_at_full_overlap_and_is_silent_without(study):
    gwas = (study["Z"]["gwas"], study["y"]["gwas"])
    test = (study["Z"]["test"], study["y"]["test"])
    blocks = cohort_statistics(study, gwas)
    silent = judge(study, blocks, test)
    assert silent.severity is Severity.OK
    assert silent.message == ""
    assert silent.max_slope == np.inf
    fired = judge(study, blocks, gwas)
    assert fired.severity is Severity.WARNING
    assert fired.r2_ratio > 1.5 > silent.r2_ratio
    assert "R2 is 0." in fired.message
    assert "subtract the cohort from the GWAS" in fired.message
    assert fired.max_slope == 1.0
    assert fired.denoise


def test_judge_overlap__silent_again_after_subtraction(study):
    """A GWAS of two cohorts, judged in one of them before and after that one is subtracted."""
    Z = np.vstack([study["Z"]["gwas"][:1_500], study["Z"]["test"]])
    y = np.concatenate([study["y"]["gwas"][:1_500], study["y"]["test"]])
    test = (standardise(study["Z"]["test"]), study["y"]["test"])
    assert judge(study, cohort_statistics(study, (standardise(Z), y)), test).severity is Severity.WARNING

    def statistics(people):
        Z, y = people
        beta = Z.T @ y / len(y)
        return beta, np.sqrt((1 - beta**2) / len(y))

    parts = [statistics((standardise(study["Z"]["gwas"][:1_500]), study["y"]["gwas"][:1_500])), statistics(test)]
    beta, se = subtract_cohort(*meta(parts), *parts[1])
    n = np.full(beta.size, 1_500.0)
    beta_hat = np.split(beta / np.sqrt(n * se**2 + beta**2), 20)
    blocks = [
        BlockStatistics(b, n[: b.size], block.R, block.chromosome)
        for b, block in zip(beta_hat, study["blocks"], strict=True)
    ]
    assert judge(study, blocks, test).severity is Severity.OK


FIGURES = {"r2_observed": 0.2, "r2_promised": 0.2, "slope": 1.0, "slope_se": 0.01, "n": 5_000, "binary": False}


@pytest.mark.parametrize(
    ("change", "sign"),
    [
        ({"n_shared_ids": 12}, "12 samples are in both"),
        ({"cohort_in_gwas": True}, "the GWAS lists the cohort"),
        ({"r2_observed": 0.49}, "R2 is 0.490 where the summary statistics promise 0.200"),
        ({"slope": 1.2}, "the slope on the prediction is 1.20, above 1.1"),
    ],
)
def test_judge_overlap__each_sign_alone_is_enough(change, sign):
    verdict = judge_overlap(**(FIGURES | change))
    assert verdict.severity is Severity.WARNING
    assert sign in verdict.message
    # a binary trait has a wider limit of the slope
    change = {"slope": 1.6} if "slope" in change else change
    binary = judge_overlap(**(FIGURES | change | {"binary": True}))
    assert binary.severity is Severity.ERROR
    assert not binary.denoise
    assert "breaks the test of a binary trait" in binary.message


@pytest.mark.parametrize(
    "change",
    [
        {"r2_observed": 0.25},  # 1.25 times
        {"r2_observed": 0.03, "r2_promised": 0.02, "n": 500},  # 1.5 times, but within the error of a small cohort
        {"slope": 1.09},
        {"slope": 1.3, "slope_se": 0.2},
        {"slope": 1.4, "binary": True},
    ],
)
def test_judge_overlap__silent_within_its_limits(change):
    assert judge_overlap(**(FIGURES | change)).severity is Severity.OK


def test_judge_overlap__binary_may_be_overridden():
    verdict = judge_overlap(**(FIGURES | {"binary": True, "r2_observed": 0.5, "allow": True}))
    assert verdict.severity is Severity.WARNING
    assert verdict.denoise
    assert "overlap was allowed" in verdict.message


@pytest.mark.parametrize("change", [{"r2_promised": 0.0}, {"slope": np.nan}, {"n": 1}, {"slope_se": -1.0}])
def test_judge_overlap__raises_on_figures(change):
    with pytest.raises(PredictorError, match="overlap cannot be judged"):
        judge_overlap(**(FIGURES | change))


def test_judge_ascertainment__off_for_a_rare_disease_with_collected_cases():
    off = judge_ascertainment(prevalence=0.01, case_share=0.5)
    assert off.severity is Severity.WARNING
    assert not off.denoise
    assert "de-noising is off" in off.message
    allowed = judge_ascertainment(prevalence=0.01, case_share=0.5, allow=True)
    assert allowed.denoise
    assert allowed.severity is Severity.WARNING
    assert judge_ascertainment(prevalence=0.01, case_share=0.012).severity is Severity.OK
    assert judge_ascertainment(prevalence=0.06, case_share=0.5).severity is Severity.OK
    with pytest.raises(PredictorError, match="between 0 and 1"):
        judge_ascertainment(prevalence=0.0, case_share=0.5)
