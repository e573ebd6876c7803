"""Tails in log space: chi-square, mixtures, Cauchy, union of half-spaces."""

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import special, stats
from scipy.integrate import quad

from locomass.gene_tests.chi_square_mixture import mixture_isf, mixture_logsf, noncentral_logsf
from locomass.gene_tests.half_cauchy import (
    _along_the_cut,
    _talbot,
    compute_logsf,
    half_cauchy_combine,
    mean_logsf,
)
from locomass.gene_tests.tails import cauchy_combine, chi2_isf_log, chi2_logsf
from locomass.gene_tests.variable_threshold_tail import bisecting_order, mean_overlaps
from tests import reference_gene_tests as reference

WEIGHTS = arrays(np.float64, st.integers(2, 12), elements=st.floats(1e-3, 10))


def test_chi2_logsf_equals_the_normal_tail():
    z = np.concatenate((np.linspace(1e-8, 1, 50), np.linspace(1, 40, 200), [1e3, 1e8]))
    expected = special.log_ndtr(-z[1:]) + math.log(2)
    np.testing.assert_allclose(chi2_logsf(z * z)[1:], expected, rtol=1e-13, atol=1e-14)


def test_chi2_logsf__edges():
    np.testing.assert_array_equal(chi2_logsf(np.array([0.0, -1.0, np.inf])), [0, 0, -np.inf])
    assert np.isnan(chi2_logsf(np.array([np.nan])))[0]


@given(st.floats(-1e6, -1e-9))
def test_chi2_isf_log_inverts_the_tail(log_p):
    x = chi2_isf_log(np.array([log_p]))
    assert chi2_logsf(x)[0] == pytest.approx(log_p, rel=1e-12)


def test_chi2_isf_log__edges():
    np.testing.assert_array_equal(chi2_isf_log(np.array([0.0, -np.inf])), [0, np.inf])
    assert np.isnan(chi2_isf_log(np.array([0.1, np.nan]))).all()


@pytest.mark.parametrize("k", [1, 2, 3, 10, 100, 1000])
def test_mixture_of_equal_weights_is_chi2(k):
    """scipy loses chi2.logsf below 1e-308, where its value is -inf; above, both agree to rounding."""
    q = np.array([0.3, 0.7, 0.95, 1.0, 1.001, 1.3, 2.0]) * k
    q = np.concatenate((q, k + np.array([100.0, 600.0])))
    expected = stats.chi2.logsf(q, k)
    seen = np.isfinite(expected)
    log_p, error = mixture_logsf(q * 0.037, np.full(k, 0.037))
    np.testing.assert_allclose(log_p[seen], expected[seen], rtol=1e-10, atol=1e-10)
    assert np.nanmax(error) < 1e-9


def test_mixture_reaches_1e_minus_300_and_far_beyond():
    q = stats.chi2.isf(1e-300, 7)
    assert mixture_logsf(np.array([q]), np.ones(7))[0][0] == pytest.approx(math.log(1e-300), rel=1e-12)
    # with even degrees of freedom the tail is a finite sum: exp(-q/2) (1 + q/2)
    for q in (1e3, 1e5, 1e7):
        log_p = mixture_logsf(np.array([q]), np.ones(4))[0][0]
        assert log_p == pytest.approx(-q / 2 + math.log1p(q / 2), abs=1e-9 + 1e-13 * q)


@pytest.mark.parametrize("q", [0.5, 3.0, 10.0, 60.0, 500.0, 5000.0])
def test_mixture_of_pairs_is_a_sum_of_exponentials(q):
    """Pairs of equal weights turn the mixture into exponentials, known in closed form at any p."""
    lambdas = np.array([2.0, 1.1, 0.5, 0.13])
    log_p, error = mixture_logsf(np.array([q]), np.repeat(lambdas, 2))
    assert log_p[0] == pytest.approx(reference.paired_logsf(q, lambdas), abs=1e-9)
    assert error[0] < 1e-10


@pytest.mark.parametrize("lambdas", [[1.0, 0.2], [3.0, 1.0, 1.0, 0.5, 0.01], [1.0] + [0.003] * 40, [5.0, 4.0, 3.0]])
def test_mixture_equals_imhof(lambdas):
    mean = sum(lambdas)
    q = np.array([0.2, 0.8, 0.99, 1.02, 1.5, 3.0, 6.0]) * mean
    log_p, _ = mixture_logsf(q, np.array(lambdas))
    # the reference is exact to about 1e-13 absolute
    expected = [reference.imhof_sf(x, lambdas) for x in q]
    np.testing.assert_allclose(np.exp(log_p), expected, rtol=1e-9, atol=1e-12)


@given(WEIGHTS, st.floats(0.1, 200), st.floats(1e-6, 1e6))
def test_mixture__scaling_and_order(lambdas, q, factor):
    first, _ = mixture_logsf(np.array([q]), lambdas)
    turned, _ = mixture_logsf(np.array([q * factor]), lambdas[::-1] * factor)
    assert turned[0] == pytest.approx(first[0], rel=1e-9, abs=1e-12)


@given(WEIGHTS)
def test_mixture_falls_with_q(lambdas):
    q = np.linspace(0.01, 30, 40) * lambdas.sum()
    log_p, error = mixture_logsf(q, lambdas)
    assert (np.diff(log_p) < 1e-12).all()
    assert (log_p <= 0).all()
    assert (error < 1e-8).all()


@given(WEIGHTS, st.floats(0.5, 60))
def test_a_vanishing_weight_changes_nothing(lambdas, q):
    first, _ = mixture_logsf(np.array([q]), lambdas)
    same, _ = mixture_logsf(np.array([q]), np.append(lambdas, 0.0))
    near, _ = mixture_logsf(np.array([q]), np.append(lambdas, 1e-13))
    assert same[0] == first[0]
    assert near[0] == pytest.approx(first[0], abs=1e-8)


@pytest.mark.parametrize("lambdas", [[], [0.0, 0.0], [1.0, -0.5], [1.0, np.nan], [np.inf]])
def test_mixture__unusable_weights_give_nan(lambdas):
    log_p, error = mixture_logsf(np.array([1.0, 2.0]), np.array(lambdas, dtype=float))
    assert np.isnan(log_p).all()
    assert np.isnan(error).all()


def test_mixture__edges_of_q():
    log_p, _ = mixture_logsf(np.array([np.nan, -1.0, 0.0, np.inf]), np.array([1.0, 2.0]))
    np.testing.assert_array_equal(log_p, [np.nan, 0, 0, -np.inf])


@pytest.mark.parametrize("log_p", [-1e-3, -0.7, -5.0, -50.0, -700.0, -5000.0])
def test_mixture_isf_inverts_the_tail(log_p):
    for lambdas in ([2.0], [1.0, 1.0], [3.0, 1.0, 0.2, 0.01], [1.0] + [0.01] * 60):
        q = mixture_isf(log_p, np.array(lambdas))
        assert mixture_logsf(np.array([q]), np.array(lambdas))[0][0] == pytest.approx(log_p, rel=1e-6, abs=1e-8)


def test_noncentral_of_one_term_is_two_normal_tails():
    for shift in (0.1, 3.0, 50.0, 1000.0):
        for q in (0.2 * shift, shift, 1.2 * shift + 3, 2 * shift + 10, 3 * shift + 2000):
            log_p = noncentral_logsf(q, np.ones(1), np.array([shift]))[0]
            assert log_p == pytest.approx(reference.noncentral_one_logsf(q, shift), abs=1e-10)


def test_noncentral_of_equal_weights_is_scipy_ncx2():
    shift = np.array([3.0, 0.5, 7.0])
    for q in (2.0, 8.0, 15.0, 40.0, 90.0):
        log_p, error = noncentral_logsf(2 * q, np.full(3, 2.0), 2 * shift)
        assert math.exp(log_p) == pytest.approx(stats.ncx2.sf(q, 3, shift.sum()), rel=1e-9)
        assert error < 1e-9


def test_noncentral_of_unequal_weights_agrees_with_simulation():
    lambdas, shift = np.array([1.0, 0.33, 0.05]), np.array([0.02, 60.0, 0.3])
    rng = np.random.default_rng(5)
    draws = ((np.sqrt(lambdas) * rng.normal(size=(400_000, 3)) + np.sqrt(shift)) ** 2).sum(axis=1)
    for q in np.quantile(draws, [0.02, 0.5, 0.99]):
        p = (draws > q).mean()
        log_p, _ = noncentral_logsf(q, lambdas, shift)
        assert abs(math.exp(log_p) - p) < 4 * math.sqrt(p * (1 - p) / 400_000)


def test_noncentral_survives_sharp_singularities():
    """A strong term far from the sharpest weight once led the contour past its essential singularity."""
    lambdas = np.array([0.055, 0.101, 0.112, 0.120, 0.126, 0.178, 0.408, 1.2248])
    shift = np.array([2.5e-4, 0.223, 0.130, 0.121, 2.9e-3, 5.08, 70.0, 0.0173]) * 2.237
    log_p, error = noncentral_logsf(640.5, lambdas, shift)
    nearby = [noncentral_logsf(640.5 + h, lambdas, shift)[0] for h in (-1.0, 1.0)]
    assert error < 1e-9
    assert nearby[1] < log_p < nearby[0] < 0
    assert abs(nearby[0] + nearby[1] - 2 * log_p) < 1e-3


def test_cauchy_combine_equals_the_formula():
    rng = np.random.default_rng(1)
    p = rng.uniform(size=(6, 50)) ** 3
    weights = rng.uniform(0.1, 2, 6)
    ours = np.exp(cauchy_combine(np.log(p), weights))
    # the formula as printed takes 0.5 - atan, which rounds at 1e-16
    np.testing.assert_allclose(ours, [reference.cauchy(column, weights) for column in p.T], rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("log_p", [-35.0, -100.0, -690.0, -1e4, -1e9])
def test_cauchy_combine_has_no_floor(log_p):
    """For one small p among d equal weights the combination is d p."""
    combined = cauchy_combine(np.array([[log_p], [math.log(0.3)], [math.log(0.6)]]), np.ones(3))[0]
    assert combined == pytest.approx(log_p + math.log(3), abs=1e-9)


def test_cauchy_combine_is_continuous_where_it_changes_to_logarithms():
    around = [cauchy_combine(np.array([[x], [math.log(0.4)]]), np.ones(2))[0] for x in (-30 + 1e-9, -30 - 1e-9)]
    assert around[0] == pytest.approx(around[1], abs=1e-8)


@pytest.mark.parametrize("largest", [1.0, 0.9999, 0.999])
def test_cauchy_combine__p_near_one_counts_as_0_999(largest):
    log_p = np.log(np.array([[largest], [0.01], [0.2], [0.5]]))
    assert math.exp(cauchy_combine(log_p, np.ones(4))[0]) == pytest.approx(
        reference.cauchy([0.999, 0.01, 0.2, 0.5], np.ones(4)), rel=1e-12
    )


def test_cauchy_combine__a_lone_p_is_returned():
    log_p = np.array([[-3.0, 0.0], [np.nan, np.nan], [-9.0, -9.0]])
    np.testing.assert_array_equal(cauchy_combine(log_p, np.array([1.0, 1.0, 0.0])), [-3.0, 0.0])
    assert np.isnan(cauchy_combine(np.full((2, 1), np.nan), np.ones(2)))[0]


@given(st.lists(st.floats(-800, -1e-3), min_size=2, max_size=8), st.floats(1e-6, 1e6))
def test_cauchy_combine__order_and_scale_of_weights(log_p, factor):
    column = np.array(log_p)[:, None]
    weights = np.linspace(1, 2, len(log_p))
    first = cauchy_combine(column, weights)[0]
    assert cauchy_combine(column[::-1].copy(), weights[::-1] * factor)[0] == pytest.approx(first, rel=1e-9, abs=1e-12)


def overlap(z, R, bound=0.01, seed=3):
    factor = np.linalg.cholesky(R)
    rng = np.random.Generator(np.random.PCG64(seed))
    mean, error = mean_overlaps(np.array([z]), R, factor, rng, bound)
    return R.shape[0] * 2 * stats.norm.sf(z) * mean[0], error[0]


@pytest.mark.parametrize("z", [0.5, 2.0, 5.0, 9.4, 20.0])
def test_union_of_two_half_spaces(z):
    for r in (0.0, 0.6, 0.95):
        p, error = overlap(z, np.array([[1, r], [r, 1]]))
        assert p == pytest.approx(reference.union_of_two(z, r), rel=0.002)
        assert error < 0.002


@pytest.mark.parametrize("z", [1.0, 4.0, 9.4])
def test_union_of_three_nested_half_spaces(z):
    v = np.array([1.0, 1.7, 4.0])
    p, _ = overlap(z, np.sqrt(np.minimum.outer(v, v) / np.maximum.outer(v, v)))
    expected = reference.union_of_three_nested(z, v)
    assert p == pytest.approx(expected, rel=0.004)
    assert reference.union_of_chain(z, v) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("z", [0.0, 1e3, 1e6])
def test_union__none_or_all_of_the_tail(z):
    p, error = mean_overlaps(np.array([z]), np.eye(2), np.eye(2), np.random.Generator(np.random.PCG64(3)), 0.01)
    assert p[0] == (0.5 if z == 0 else 1.0)
    assert error[0] == 0


def test_union__the_error_that_is_reported_is_the_error_that_is_made():
    v = np.cumsum(np.array([1.0, 1, 2, 3, 1, 8, 5, 1, 1, 20, 3, 3]))
    R = np.sqrt(np.minimum.outer(v, v) / np.maximum.outer(v, v))
    for z in (1.5, 4.0, 9.4):
        p, error = np.array([overlap(z, R, seed=seed) for seed in range(40)]).T
        off = p / reference.union_of_chain(z, v) - 1.0
        assert 0.6 < math.sqrt(np.mean(off**2) / np.mean(error**2)) < 1.4
        assert abs(off.mean()) < 3 * math.sqrt(np.mean(error**2) / 40)


@pytest.mark.parametrize("bound", [0.01, 0.003])
def test_union__three_standard_errors_are_below_the_bound(bound):
    v = np.exp(np.arange(80) / 6.0)
    R = np.sqrt(np.minimum.outer(v, v) / np.maximum.outer(v, v))
    p, error = overlap(1.5, R, bound)
    assert 0.4 * bound < 3 * error <= bound
    assert p == pytest.approx(reference.union_of_chain(1.5, v), rel=1.2 * bound)


def test_union__no_threshold_hangs_on_the_others():
    v = np.cumsum(np.arange(1.0, 20.0))
    R = np.sqrt(np.minimum.outer(v, v) / np.maximum.outer(v, v))
    factor, z = np.linalg.cholesky(R), np.array([0.7, 1.5, 3.0, 6.0])
    together = mean_overlaps(z, R, factor, np.random.Generator(np.random.PCG64(1)), 0.008)
    for i in range(4):
        alone = mean_overlaps(z[i : i + 1], R, factor, np.random.Generator(np.random.PCG64(1)), 0.008)
        assert (alone[0][0], alone[1][0]) == (together[0][i], together[1][i])


@pytest.mark.parametrize("k", [1, 2, 3, 4, 7, 30])
def test_bisecting_order_names_everyone_once(k):
    order = bisecting_order(k)
    assert sorted(order) == list(range(k))
    assert order[: min(k, 3)] == [k - 1, 0, (k - 1) // 2][: min(k, 3)]


@pytest.mark.parametrize("d", [2, 3, 6, 40])
def test_half_cauchy_combine_equals_the_inverted_characteristic_function(d):
    rng = np.random.default_rng(d)
    p = rng.uniform(0.01, 1, size=(d, 8)) ** np.linspace(0.3, 1.5, 8)
    ours = np.exp(half_cauchy_combine(np.log(p)))
    np.testing.assert_allclose(ours, [reference.half_cauchy(column) for column in p.T], atol=2e-7 if d > 2 else 1e-5)


@pytest.mark.parametrize("t", [0.4, 2.0, 9.0, 1e3, 1e6])
def test_half_cauchy_combine_of_two_equals_the_convolution(t):
    def density(x):
        return 2 / np.pi / (1 + x * x)

    def beyond(x):
        return density(x) * 2 / np.pi * math.atan2(1.0, 2 * t - x)

    edges = np.unique(np.concatenate([[0.0], np.geomspace(1e-4, t, 60), 2 * t - np.geomspace(1e-4, t, 60), [2 * t]]))
    inside = sum(quad(beyond, a, b, epsabs=0, epsrel=1e-12)[0] for a, b in zip(edges, edges[1:], strict=False))
    expected = inside + 2 / np.pi * math.atan2(1.0, 2 * t)
    log_p = np.log([[2 / np.pi * math.atan2(1.0, h)] for h in (0.5 * t, 1.5 * t)])
    assert math.exp(half_cauchy_combine(log_p)[0]) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("d", [1, 2, 7, 300])
def test_half_cauchy_table_is_its_integrals_and_both_agree(d):
    log_t = np.linspace(-1.9, 30.0, 87)
    exact = compute_logsf(log_t, d)
    np.testing.assert_allclose(mean_logsf(log_t, d), exact, rtol=1e-8, atol=1e-7 if d < 300 else 1e-5)
    assert (np.diff(exact) < (0 if d < 300 else 1e-5)).all()
    around = np.array([2 + 2 / np.pi * math.log(d)]) * np.array([0.9, 1.2])
    if 1 < d < 300:
        np.testing.assert_allclose(_along_the_cut(around, d), 1 - _talbot(around, d), rtol=1e-8)
    if d == 1:
        np.testing.assert_allclose(np.exp(exact), 2 / np.pi * np.arctan2(1.0, np.exp(log_t)), rtol=1e-10)


@pytest.mark.parametrize("log_p", [-35.0, -100.0, -690.0, -1e4, -1e9])
def test_half_cauchy_combine_has_no_floor(log_p):
    combined = half_cauchy_combine(np.array([[log_p], [math.log(0.3)], [math.log(0.6)]]))[0]
    assert combined == pytest.approx(log_p + math.log(3), abs=1e-9)


def test_half_cauchy_combine__nobody_vetoes():
    # a SKAT of 0.005 beside a burden of 0.9989: the Cauchy combination says 0.9959
    def combine(*p):
        return math.exp(half_cauchy_combine(np.log(np.array(p))[:, None])[0])

    assert reference.cauchy([0.005, 0.9989], np.ones(2)) > 0.99
    assert 0.01 < combine(0.005, 0.9989) < 0.0103
    assert combine(0.005, 1.0) == pytest.approx(combine(0.005, 0.9989), rel=0.01)
    assert combine(1.0, 1.0, 1.0) == 1.0
    assert combine(0.3) == combine(0.3, 0.3, 0.3) == pytest.approx(0.3, rel=1e-12)
    assert np.isnan(half_cauchy_combine(np.full((2, 1), np.nan)))[0]


@given(st.lists(st.floats(-800, 0.0), min_size=2, max_size=8), st.floats(1e-3, 5.0))
def test_half_cauchy_combine__order_does_not_matter_and_smaller_p_never_raises_it(log_p, less):
    column = np.array(log_p)[:, None]
    first = half_cauchy_combine(column)[0]
    assert half_cauchy_combine(column[::-1].copy())[0] == pytest.approx(first, rel=1e-9, abs=1e-12)
    column[0] -= less
    assume(np.ptp(log_p) > 0)
    assert half_cauchy_combine(column)[0] <= first + 1e-7
