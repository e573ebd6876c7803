import numpy as np
import pytest

from locomass_predictors.base import PredictorError
from locomass_predictors.quality import (
    check_quality,
    estimate_sd_y,
    standardise_effects,
)


def gwas(rng, m=400, n=5_000, sd_y=1.0):
    """Marginal regressions of m independent variants on one trait."""
    f = rng.uniform(0.05, 0.95, m)
    variance = 2 * f * (1 - f)
    beta = sd_y * rng.standard_normal(m) / np.sqrt(n * variance)
    se = np.sqrt((sd_y**2 - beta**2 * variance) / (n * variance))
    return beta, se, np.full(m, float(n)), f


def test_standardise_effects__is_the_correlation_with_the_trait(rng):
    n = 300
    g = rng.binomial(2, 0.3, n).astype(float)
    y = 3.0 * rng.standard_normal(n) + g
    g -= g.mean()
    y -= y.mean()
    beta = g @ y / (g @ g)
    # maximum-likelihood standard error: the identity is then exact
    se = np.sqrt(((y - beta * g) ** 2).sum() / n / (g @ g))
    beta_hat, s = standardise_effects(np.array([beta]), np.array([se]), np.array([float(n)]))
    assert beta_hat[0] == pytest.approx(np.corrcoef(g, y)[0, 1], rel=1e-12)
    assert s[0] == pytest.approx(y.std() / g.std(), rel=1e-12)


def test_standardise_effects__free_of_the_unit_of_the_trait(rng):
    beta, se, n, _ = gwas(rng)
    one, s = standardise_effects(beta, se, n)
    other, t = standardise_effects(7 * beta, 7 * se, n)
    np.testing.assert_allclose(other, one, rtol=1e-12)
    np.testing.assert_allclose(t, 7 * s, rtol=1e-12)


@pytest.mark.parametrize(("field", "value"), [(0, np.nan), (1, 0.0), (1, -1.0), (2, 0.0), (2, np.inf)])
def test_standardise_effects__raises_on_unusable_row(rng, field, value):
    columns = list(gwas(rng)[:3])
    columns[field] = columns[field].copy()
    columns[field][4] = value
    with pytest.raises(PredictorError, match="1 variants have no usable effect; the first, number 5,"):
        standardise_effects(*columns)


def test_estimate_sd_y__recovers_the_unit(rng):
    beta, se, n, f = gwas(rng, sd_y=4.2)
    assert estimate_sd_y(beta, se, n, f) == pytest.approx(4.2, rel=1e-6)
    with pytest.raises(PredictorError, match="give sd_y"):
        estimate_sd_y(beta, se, n, np.full_like(f, 0.001))


def test_check_quality__keeps_clean_statistics_in_any_unit(rng):
    for sd_y in (1.0, 30.0):
        beta, se, n, f = gwas(rng, sd_y=sd_y)
        report = check_quality(beta, se, n, f, frequency=f)
        assert report.keep.all()
        assert report.sd_y == pytest.approx(sd_y, rel=1e-6)
        assert sum(report.counts.values()) == 0
        assert report.messages == ()


def test_check_quality__counts_each_reason_once(rng):
    beta, se, n, f = gwas(rng)
    frequency = f.copy()
    beta[0] = np.nan
    se[1] = 0.0
    n[2] = 3_000.0  # below 5,000 / 1.5
    f[3] = 0.0005
    se[4] *= 2.5  # sd_ss = 0.4 sd_ref
    f[5], se[5] = 0.5, se[5]
    se[5] = 1 / np.sqrt(n[5] * 0.9**2)  # sd_ss = 0.9 against sd_ref = 0.71
    f[6] = frequency[6] = 0.4
    se[6] = 1 / np.sqrt(n[6] * 2 * 0.4 * 0.6)
    frequency[6] = 0.61
    frequency[5] = 0.5
    frequency[7] = np.nan
    report = check_quality(beta, se, n, f, frequency=frequency)
    assert report.counts == {
        "not_finite": 2,
        "low_n": 1,
        "low_sd": 1,
        "sd_mismatch": 2,
        "frequency_mismatch": 1,
    }
    assert np.flatnonzero(~report.keep).tolist() == [0, 1, 2, 3, 4, 5, 6]


def test_check_quality__thresholds_are_the_published_ones(rng):
    beta, se, n, f = gwas(rng)
    sd = np.sqrt(2 * f * (1 - f))
    for factor, kept in ((0.51, True), (0.49, False)):
        worse = se.copy()
        beta[0] = 0.0
        worse[0] = 1 / (np.sqrt(n[0]) * sd[0] * factor)
        assert check_quality(beta, worse, n, f, sd_y=1.0).keep[0] == kept
    for excess, kept in ((0.09, True), (0.11, False)):
        better = se.copy()
        better[0] = 1 / (np.sqrt(n[0]) * (sd[0] + excess))
        assert check_quality(beta, better, n, f, sd_y=1.0).keep[0] == kept


def test_check_quality__sample_size_times_four_has_its_own_message(rng):
    beta, se, n, f = gwas(rng)
    with pytest.raises(PredictorError, match="sample sizes look 4 times what the standard errors say"):
        check_quality(beta, se, 4 * n, f, sd_y=1.0)
    report = check_quality(beta, se, 1.5 * n, f, sd_y=1.0)
    assert "1.5 times" in report.messages[0]


def test_check_quality__sample_size_times_four_in_some_rows_drops_the_others(rng):
    beta, se, n, f = gwas(rng)
    n[:100] *= 4
    report = check_quality(beta, se, n, f)
    assert report.counts["low_n"] == 300
    assert "drops 300 of 400 variants (75%)" in report.messages[0]
    assert "(low_n)" in report.messages[0]


def test_check_quality__logistic_uses_effective_n(rng):
    m, cases, controls = 300, 2_000, 18_000
    f = rng.uniform(0.1, 0.9, m)
    share = cases / (cases + controls)
    se = 1 / np.sqrt((cases + controls) * share * (1 - share) * 2 * f * (1 - f))
    beta = se * rng.standard_normal(m)
    n_eff = np.full(m, 4 / (1 / cases + 1 / controls))
    report = check_quality(beta, se, n_eff, f, logistic=True)
    assert report.keep.all()
    assert report.sd_y == 2.0
    with pytest.raises(PredictorError, match=r"2\.8 times .* effective n, 4/\(1/cases \+ 1/controls\)"):
        check_quality(beta, se, np.full(m, float(cases + controls)), f, logistic=True)


def test_check_quality__exchanged_alleles_have_their_own_message(rng):
    beta, se, n, f = gwas(rng)
    report = check_quality(beta, se, n, f, frequency=1 - f)
    assert report.keep.all()
    (message,) = report.messages
    assert "either the frequency column counts the other allele" in message
    assert "or effect allele and other allele are exchanged" in message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sd_y": -1.0}, "sd_y must be positive, got -1.0"),
        ({"frequency": np.ones(3)}, r"frequency has shape \(3,\), expected that of beta, \(400,\)"),
    ],
)
def test_check_quality__raises_on_arguments(rng, change, message):
    with pytest.raises(PredictorError, match=message):
        check_quality(*gwas(rng), **change)


def test_check_quality__raises_when_nothing_passes(rng):
    beta, se, n, f = gwas(rng)
    with pytest.raises(PredictorError, match="no variant has a finite effect"):
        check_quality(beta * np.nan, se, n, f)
    with pytest.raises(PredictorError, match=r"no variant passes quality control; dropped: frequency_mismatch 400"):
        check_quality(beta, se, n, f, frequency=np.where(f < 0.5, f + 0.25, f - 0.25))


@pytest.fixture
def rng():
    return np.random.default_rng(20)
