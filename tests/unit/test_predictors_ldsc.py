import numpy as np
import pytest

from locomass_predictors.base import PredictorError
from locomass_predictors.ldsc import fit_ld_score_regression


def simulate_chi2(rng, m=20_000, n=8_000, h2=0.4, intercept=1.0):
    """Chi-squares under the model: z ~ N(0, intercept + n h2 l / M)."""
    l = 1 + rng.gamma(2.0, 4.0, m)
    n = np.full(m, float(n))
    variance = intercept + n * h2 * l / m
    return rng.standard_normal(m) ** 2 * variance, l, n


@pytest.mark.parametrize(("h2", "intercept"), [(0.2, 1.0), (0.2, 1.3), (0.0, 1.0)])
def test_fit_ld_score_regression__recovers_h2_and_intercept(h2, intercept):
    draws = [simulate_chi2(np.random.default_rng(k), h2=h2, intercept=intercept) for k in range(20)]
    found = [fit_ld_score_regression(*draw, n_variants_reference=20_000) for draw in draws]
    h2_found = np.array([f.h2 for f in found])
    intercepts = np.array([f.intercept for f in found])
    # mean of 20 within 4 of its own standard errors (the cut at chi2 < 30 biases little at these h2)
    assert h2_found.mean() == pytest.approx(h2, abs=4 * h2_found.std(ddof=1) / np.sqrt(20))
    assert intercepts.mean() == pytest.approx(intercept, abs=4 * intercepts.std(ddof=1) / np.sqrt(20))
    # the jackknife error is the spread; the spread of 20 is known to 16 %
    assert np.mean([f.h2_se for f in found]) == pytest.approx(h2_found.std(ddof=1), rel=0.5)
    assert np.mean([f.intercept_se for f in found]) == pytest.approx(intercepts.std(ddof=1), rel=0.5)


def test_fit_ld_score_regression__exact_line_is_recovered():
    l = np.linspace(1, 40, 500)
    n = np.linspace(1_000, 2_000, 500)
    chi2 = 1.1 + 0.5 * n * l / 5_000
    found = fit_ld_score_regression(chi2, l, n, n_variants_reference=5_000)
    assert found.h2 == pytest.approx(0.5, rel=1e-9)
    assert found.intercept == pytest.approx(1.1, rel=1e-9)
    assert found.h2_se == pytest.approx(0, abs=1e-9)
    assert found.mean_chi2 == pytest.approx(chi2.mean())
    assert found.n_variants == 500


def test_fit_ld_score_regression__strong_variants_move_only_the_slope(rng):
    chi2, l, n = simulate_chi2(rng, h2=0.1)
    plain = fit_ld_score_regression(chi2, l, n, n_variants_reference=20_000)
    chi2[:20] = 3_000.0
    strong = fit_ld_score_regression(chi2, l, n, n_variants_reference=20_000)
    assert strong.intercept == pytest.approx(plain.intercept, abs=0.01)
    assert strong.h2 > plain.h2 + 0.02


def test_fit_ld_score_regression__weights_solve_their_own_line(rng):
    """Step 2 by a plain loop: weights from the line they fit."""
    chi2, l, n = simulate_chi2(rng, m=2_000, h2=0.1)
    found = fit_ld_score_regression(chi2, l, n, n_variants_reference=2_000)
    slope = found.h2
    w = 1 / (np.maximum(l, 1) * (found.intercept + slope * n * l / 2_000) ** 2)
    x = n * l / 2_000
    again = sum(w * x * (chi2 - found.intercept)) / sum(w * x * x)
    assert again == pytest.approx(slope, rel=1e-8)


def test_fit_ld_score_regression__works_with_few_variants(rng):
    found = fit_ld_score_regression(*simulate_chi2(rng, m=60, n=100), n_variants_reference=60)
    assert np.isfinite([found.h2, found.h2_se, found.intercept_se]).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"chi2": np.ones(3)}, "equally long"),
        ({"chi2": np.full(100, np.nan)}, "finite chi2"),
        ({"n": np.zeros(100)}, "positive n"),
        ({"chi2": np.full(100, 31.0)}, "only 0 variants have chi2 below 30"),
    ],
)
def test_fit_ld_score_regression__raises_on_input(rng, change, message):
    chi2, l, n = simulate_chi2(rng, m=100)
    arguments = {"chi2": chi2, "ld_scores": l, "n": n, "n_variants_reference": 100} | change
    with pytest.raises(PredictorError, match=message):
        fit_ld_score_regression(**arguments)


@pytest.fixture
def rng():
    return np.random.default_rng(6)
