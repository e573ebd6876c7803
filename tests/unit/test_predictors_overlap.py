import re

import numpy as np
import pytest

from locomass_predictors.base import BlockStatistics, PredictorError, Promise
from locomass_predictors.overlap import (
    Overlap,
    Severity,
    estimate_overlap,
    judge_ascertainment,
    judge_overlap,
    judge_success,
    subtract_cohort,
)
from locomass_predictors.ridge import fit_ridge
from tests.reference_predictors import score, simulate_study, standardise


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
    covariance = float(np.cov(score(Z, fit.weights), y)[0, 1] / y.std())
    overlap = estimate_overlap(fit.promise, covariance, n=len(y), n_gwas=float(blocks[0].n[0]))
    return judge_overlap(overlap, binary=False, **options)


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
    fired = judge(study, blocks, gwas)
    assert fired.severity is Severity.WARNING
    assert "of the cohort (SE" in fired.message
    assert "subtract the cohort from the GWAS" in fired.message
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


SEEN, UNSEEN = Overlap(0.9, 0.1), Overlap(0.25, 0.01)


@pytest.mark.parametrize(
    ("options", "sign"),
    [
        ({"n_shared_ids": 12}, "12 samples are in both"),
        ({"cohort_in_gwas": True}, "the GWAS lists the cohort"),
        ({"overlap": SEEN}, "fits as if 90% of the cohort (SE 10%) were in it"),
    ],
)
def test_judge_overlap__each_sign_alone_is_enough(options, sign):
    options = {"overlap": UNSEEN, **options}
    for binary, offset in ((False, False), (False, True), (True, False)):
        verdict = judge_overlap(**options, binary=binary, offset=offset)
        assert verdict.severity is Severity.WARNING
        assert sign in verdict.message
        assert "stays valid but loses power" in verdict.message
    broken = judge_overlap(**options, binary=True, offset=True)
    assert broken.severity is Severity.ERROR
    assert not broken.denoise
    assert "breaks the test of a binary trait" in broken.message


@pytest.mark.parametrize("overlap", [None, UNSEEN, Overlap(0.9, 0.31), Overlap(-2.0, 0.1)])
def test_judge_overlap__silent_within_its_limits(overlap):
    assert judge_overlap(overlap, binary=True, offset=True).severity is Severity.OK


def test_judge_overlap__binary_may_be_overridden():
    verdict = judge_overlap(SEEN, binary=True, offset=True, allow=True)
    assert verdict.severity is Severity.WARNING
    assert verdict.denoise
    assert "overlap was allowed" in verdict.message


def test_estimate_overlap__by_hand():
    promise = Promise(covariance=0.30, penalty=0.10, variance=0.25)
    assert promise.r2 == pytest.approx(0.2**2 / 0.25)
    found = estimate_overlap(promise, 0.25, n=1_000, n_gwas=4_000)
    assert found.theta == pytest.approx(0.5)
    assert found.se == pytest.approx(np.sqrt(0.25 * (1 / 1_000 + 1 / 4_000)) / 0.10)
    # weights that owe nothing to noise cannot show an overlap
    assert estimate_overlap(Promise(0.3, 0.0, 0.25), 0.3, n=1_000, n_gwas=4_000) is None
    for change in ({"covariance": np.nan}, {"n": 1}, {"n_gwas": 0.0}):
        with pytest.raises(PredictorError, match="overlap cannot be judged"):
            estimate_overlap(promise, **{"covariance": 0.25, "n": 1_000, "n_gwas": 4_000, **change})


@pytest.mark.parametrize(
    ("correlation", "promised", "n", "cause"),
    [
        (0.44, 0.20, 2_000, ""),
        (0.30, 0.20, 2_000, ""),  # R2 0.09: short of the promise, and still worth something
        (0.10, 0.20, 2_000, "sample labels"),
        (-0.44, 0.20, 2_000, "alleles? exchanged"),
        (0.00, 0.01, 500, ""),  # a promise that so few people cannot test
        (-0.03, 0.001, 2_000, ""),
    ],
)
def test_judge_success__names_likely_causes_of_a_prediction_that_fails(correlation, promised, n, cause):
    verdict = judge_success(correlation=correlation, r2_promised=promised, n=n)
    assert verdict.severity is (Severity.WARNING if cause else Severity.OK)
    assert re.search(cause, verdict.message)


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
