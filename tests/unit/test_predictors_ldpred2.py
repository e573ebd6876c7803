from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numba.typed import List as TypedList

from locomass_predictors.base import BlockStatistics, PredictorError, tune_on_summary
from locomass_predictors.gibbs import ChainSettings, run_chain, select_chains, sweep_blocks
from locomass_predictors.lassosum2 import Lassosum2, fit_lassosum2
from locomass_predictors.ldpred2 import (
    JUMPING,
    STEADY,
    Ldpred2Auto,
    Ldpred2Grid,
    estimate_heritability,
    fit_ldpred2_auto,
    fit_ldpred2_grid,
)
from locomass_predictors.overlap import estimate_overlap
from locomass_predictors.ridge import Ridge, fit_ridge
from tests.reference_predictors import gibbs_sweep_by_definition, posterior_of_one_variant, r2, score, simulate_study


def small_blocks(seed=1, sizes=(6, 1, 9)):
    rng = np.random.default_rng(seed)
    blocks = []
    for k, m in enumerate(sizes):
        X = rng.standard_normal((40, m)) + rng.standard_normal((40, 1))
        X = (X - X.mean(0)) / X.std(0)
        R = (X.T @ X / 40).astype(np.float32)
        np.fill_diagonal(R, 1)
        # marginal effects that fit R: true ones seen through LD, plus sampling noise with covariance R/n
        beta_hat = R @ (0.15 * rng.standard_normal(m)) + X.T @ rng.standard_normal(40) / np.sqrt(40 * 500)
        blocks.append(BlockStatistics(beta_hat, rng.uniform(400, 600, m), R, str(k + 1)))
    return blocks


def contradictory_blocks():
    """Two variants that are one by LD and have opposite effects."""
    R = np.array([[1, 0.9999], [0.9999, 1]], dtype=np.float32)
    return [BlockStatistics(np.array([0.1, -0.1]), np.full(2, 1e7), R, "1")]


def dense(blocks):
    M = sum(b.beta_hat.size for b in blocks)
    R = np.zeros((M, M))
    start = 0
    for b in blocks:
        m = b.beta_hat.size
        R[start : start + m, start : start + m] = b.R
        start += m
    return R, np.concatenate([b.beta_hat for b in blocks]), np.concatenate([b.n for b in blocks])


@pytest.mark.parametrize("allow_jump_sign", [True, False])
@pytest.mark.parametrize(("p", "shrink"), [(0.05, 0.95), (0.5, 0.4), (1.0, 1.0)])
def test_sweep_blocks__equals_the_definition(p, shrink, allow_jump_sign):
    blocks = small_blocks()
    R, beta_hat, n = dense(blocks)
    M = beta_hat.size
    fast, slow = np.random.default_rng(9), np.random.default_rng(9)
    Rs = TypedList([b.R for b in blocks])
    b, dot, total, quadratic = np.zeros(M), np.zeros(M), np.zeros(M), 0.0
    b_slow, total_slow = np.zeros(M), np.zeros(M)
    for _ in range(30):
        count, quadratic = sweep_blocks(
            fast, Rs, beta_hat, n, b, dot, total, quadratic, 0.3, p, shrink, allow_jump_sign, True
        )
        b_slow, count_slow = gibbs_sweep_by_definition(
            slow, R, beta_hat, n, b_slow, 0.3, p, shrink, allow_jump_sign, total_slow
        )
        assert count == count_slow
        # the same random numbers and float32 R: only the order of summation differs
        np.testing.assert_allclose(b, b_slow, atol=1e-12)
    np.testing.assert_allclose(total, total_slow, atol=1e-11)
    np.testing.assert_allclose(dot, R @ b, atol=1e-12)
    R_s = shrink * R + (1 - shrink) * np.eye(M)
    assert quadratic == pytest.approx(b @ R_s @ b, abs=1e-12)


@pytest.mark.parametrize("beta_hat", [0.001, 0.02, 0.05, -0.1])
def test_posterior_mean__equals_the_integral(beta_hat):
    """Without LD, c3 pi is the posterior mean under the spike-and-slab prior."""
    n, h2, p, M = 2_000.0, 0.4, 0.05, 30
    Rs = TypedList([np.eye(M, dtype=np.float32)])
    total = np.zeros(M)
    effects = np.full(M, beta_hat)
    sweep_blocks(
        np.random.default_rng(1),
        Rs,
        effects,
        np.full(M, n),
        np.zeros(M),
        np.zeros(M),
        total,
        0.0,
        h2,
        p,
        1.0,
        True,
        True,
    )
    np.testing.assert_allclose(total, posterior_of_one_variant(beta_hat, n, h2, p, M), rtol=1e-9, atol=1e-15)


def test_chain_with_every_variant_causal__is_ridge():
    blocks = small_blocks()
    fit = fit_ldpred2_grid(
        blocks,
        Ldpred2Grid(p_values=(1.0,), h2_factors=(1.0,), burn_in=200, n_keep=40_000),
        h2=0.3,
        tune=lambda w: 1.0,
    )
    ridge = fit_ridge(blocks, h2=0.3)
    # Monte Carlo error of 40,000 correlated draws of sd about 0.02
    for a, b in zip(fit.weights, ridge.weights, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-3)


def test_run_chain__stops_when_it_diverges():
    settings = ChainSettings(0.5, 1.0, 1.0, 50, 50, False, True)
    chain = run_chain(settings, np.random.SeedSequence(1), contradictory_blocks())
    assert np.isnan(chain.weights).all()
    assert np.isnan(chain.range)
    assert np.isnan(chain.h2_path[-1])


def test_fit_ldpred2_auto__walks_down_the_ladder_to_ridge():
    bad = contradictory_blocks()
    options = {"n_chains": 4, "burn_in": 20, "n_keep": 20, "p_range": (0.9, 1.0)}
    fit = fit_ldpred2_auto(bad, Ldpred2Auto(shrinks=(1.0, 0.999), **options), h2_init=0.5)
    assert fit.record["method"] == "ridge"
    assert fit.record["fallbacks"] == [
        "shrink 1: only 0 of 4 chains kept",
        "shrink 0.999: only 0 of 4 chains kept",
        "ridge weights instead of LDpred2-auto: check the summary statistics against the LD reference",
    ]
    assert fit.record["n_kept"] == 0
    assert len(fit.record["chains"]) == 4
    np.testing.assert_array_equal(fit.weights, fit_ridge(bad, Ridge(shrink=0.999), h2=0.5).weights)
    saved = fit_ldpred2_auto(bad, Ldpred2Auto(shrinks=(1.0, 0.2), **options), h2_init=0.5)
    assert saved.record["method"] == "ldpred2-auto"
    assert saved.record["shrink"] == 0.2
    assert saved.record["fallbacks"] == ["shrink 1: only 0 of 4 chains kept"]


def test_fit_ldpred2_auto__records_every_chain():
    fit = fit_ldpred2_auto(small_blocks(), Ldpred2Auto(n_chains=5, burn_in=20, n_keep=10), h2_init=0.3)
    chains = fit.record["chains"]
    assert [round(c["p_init"], 6) for c in chains] == [round(p, 6) for n in (4, 1) for p in np.geomspace(1e-4, 1.0, n)]
    kept = [c for c in chains if c["kept"]]
    assert fit.record["n_kept"] == len(kept) >= 1
    assert [c["jumps"] for c in chains] == [True] * 4 + [False]
    names = [c["name"] for c in fit.record["candidates"]]
    assert names[0] == JUMPING
    assert fit.record["chosen"] in names
    kept = [c for c in kept if c["jumps"] is (fit.record["chosen"] != STEADY)]
    assert all(c["h2_path"].shape == c["p_path"].shape == (30,) for c in chains)
    assert fit.record["h2"] == pytest.approx(np.mean([c["h2_path"][20:].mean() for c in kept]))
    assert fit.record["p"] == pytest.approx(np.mean([c["p_path"][20:].mean() for c in kept]))
    assert all((c["h2_path"] >= 1e-3).all() and (c["p_path"] >= 1e-5).all() for c in chains)


def test_fit_ldpred2_auto__seed_and_map_decide_nothing_but_draws():
    blocks = small_blocks()
    options = {"h2_init": 0.3, "options": Ldpred2Auto(n_chains=3, burn_in=20, n_keep=10)}

    def backwards(function, *iterables):
        calls = list(zip(*iterables, strict=True))
        return [function(*args) for args in calls[::-1]][::-1]

    first = np.concatenate(fit_ldpred2_auto(blocks, **options).weights)
    np.testing.assert_array_equal(first, np.concatenate(fit_ldpred2_auto(blocks, **options).weights))
    with ThreadPoolExecutor(2) as pool:
        for mapping in (backwards, pool.map):
            moved = fit_ldpred2_auto(blocks, map_function=mapping, **options)
            np.testing.assert_array_equal(first, np.concatenate(moved.weights))
    assert np.abs(first - np.concatenate(fit_ldpred2_auto(blocks, seed=2, **options).weights)).max() > 0


def test_select_chains__published_rule():
    ranges = np.array([1.0, 0.99, 0.9, 0.2, np.nan])
    assert select_chains(ranges).tolist() == [True, True, False, False, False]
    assert not select_chains(np.full(3, np.nan)).any()


def test_fit_ldpred2_grid__returns_what_tuning_prefers():
    blocks = small_blocks()
    wanted = 0.1
    seen = []

    def tune(weights):
        seen.append(np.concatenate(weights))
        return float(len(seen) == 2)

    fit = fit_ldpred2_grid(blocks, Ldpred2Grid(p_values=(0.01, wanted), h2_factors=(1.0,)), h2=0.3, tune=tune, seed=3)
    assert fit.record["p"] == wanted
    np.testing.assert_array_equal(np.concatenate(fit.weights), seen[1])
    assert [point["score"] for point in fit.record["grid"]] == [0.0, 1.0]


@pytest.mark.parametrize(
    "fit",
    [
        lambda blocks, h2, **o: fit_ldpred2_auto(blocks, Ldpred2Auto(**o), h2_init=h2),
        lambda blocks, h2, **o: fit_ldpred2_grid(blocks, Ldpred2Grid(**o), h2=h2, tune=lambda w: 1.0),
    ],
)
@pytest.mark.parametrize(
    ("blocks", "options", "message"),
    [
        (small_blocks(), {"h2": -0.1}, "positive heritability, got -0.1"),
        ([], {"h2": 0.1}, "every LD block is empty"),
        (small_blocks(), {"h2": 0.1, "n_keep": 0}, r"n_keep >= 1, got \d+ and 0"),
    ],
)
def test_fit_ldpred2__raises_on_settings(fit, blocks, options, message):
    with pytest.raises(PredictorError, match=message):
        fit(blocks, **options)


def test_fit_ldpred2__raises_on_own_settings():
    with pytest.raises(PredictorError, match="at least one chain"):
        fit_ldpred2_auto(small_blocks(), Ldpred2Auto(n_chains=0), h2_init=0.1)
    with pytest.raises(PredictorError, match="the grid needs 0 < p <= 1"):
        fit_ldpred2_grid(small_blocks(), Ldpred2Grid(p_values=(0.0,)), h2=0.1, tune=lambda w: 1.0)
    with pytest.raises(PredictorError, match="none of 1 grid points has a finite score"):
        fit_ldpred2_grid(small_blocks(), Ldpred2Grid(p_values=(0.1,), h2_factors=(1.0,)), h2=0.1, tune=lambda w: np.nan)


def compare_with_best_grid_point(seed, p, *, n_blocks, m, n_chains, n_gwas=10_000, n_test=4_000):
    """R2 of auto over R2 of the best grid point, tuned in the test data themselves, and what auto estimates."""
    study = simulate_study(seed, n_blocks=n_blocks, m=m, p=p, h2=0.4, n_gwas=n_gwas, n_reference=4_000, n_test=n_test)
    Z, y = study["Z"]["test"], study["y"]["test"]
    auto = fit_ldpred2_auto(study["blocks"], Ldpred2Auto(n_chains=n_chains), h2_init=0.3)
    grid = fit_ldpred2_grid(study["blocks"], h2=0.4, tune=lambda w: r2(score(Z, w), y))
    prediction = score(Z, auto.weights)
    slope = float(np.cov(prediction, y)[0, 1] / prediction.var(ddof=1))
    causal = float((study["effect"] != 0).mean())
    return {
        "ratio": r2(prediction, y) / r2(score(Z, grid.weights), y),
        "h2": auto.record["h2"],
        "p": auto.record["p"] / causal,
        "slope": slope,
        "promise": auto.r2_promised - r2(prediction, y),
    }


def test_fit_ldpred2_auto__finds_what_was_simulated():
    found = compare_with_best_grid_point(1, 0.05, n_blocks=20, m=50, n_chains=6, n_gwas=6_000)
    assert found["ratio"] > 0.97
    assert found["h2"] == pytest.approx(0.4, abs=0.05)
    assert 0.5 < found["p"] < 2
    assert 0.93 < found["slope"] < 1.07
    # 4,000 people: R2 has a standard error of 0.012
    assert abs(found["promise"]) < 0.03


@pytest.mark.slow
@pytest.mark.parametrize("p", [0.01, 0.1])
def test_fit_ldpred2_auto__acceptance(p):
    """R2 at least 0.98 of the best tuned grid point; h2 within 0.05, p within a factor 2."""
    found = compare_with_best_grid_point(7, p, n_blocks=20, m=100, n_chains=30)
    print(p, found)
    assert found["ratio"] >= 0.98
    assert found["h2"] == pytest.approx(0.4, abs=0.05)
    assert 0.5 < found["p"] < 2


@pytest.mark.slow
def test_fit_ldpred2_auto__is_calibrated_in_an_independent_cohort():
    """Slope 0.93-1.07 and w'Rw within 0.02 of R2, on average over studies.

    One study of 10,000 scatters by 0.03 and 0.015 around that, mostly from the chance correlation of genetic and other
    effects in the GWAS.
    """
    found = []
    for seed in range(20, 28):
        study = simulate_study(seed, n_blocks=20, m=50, p=0.1, n_gwas=10_000, n_reference=4_000, n_test=8_000)
        fit = fit_ldpred2_auto(study["blocks"], Ldpred2Auto(n_chains=8), h2_init=0.3)
        prediction, y = score(study["Z"]["test"], fit.weights), study["y"]["test"]
        found.append([np.cov(prediction, y)[0, 1] / prediction.var(ddof=1), fit.r2_promised - r2(prediction, y)])
    slope, promise = np.mean(found, axis=0)
    print(f"slope {slope:.3f}, promise {promise:+.4f}, sd of one study {np.std(found, axis=0, ddof=1)}")
    assert 0.93 < slope < 1.07
    assert abs(promise) < 0.02


@pytest.fixture(scope="module")
def polygenic():
    """An infinitesimal trait: what chains without sign jumps take for a sparse one."""
    return simulate_study(0, n_blocks=20, m=50, p=1.0, n_gwas=3_000, n_reference=3_000, n_test=3_000)


SHORT = {"burn_in": 150, "n_keep": 100}


def test_fit_ldpred2_auto__of_an_infinitesimal_trait_is_ridge(polygenic):
    Z, y = polygenic["Z"]["test"], polygenic["y"]["test"]
    fit = fit_ldpred2_auto(polygenic["blocks"], Ldpred2Auto(n_chains=9, **SHORT), h2_init=0.3)
    steady = fit_ldpred2_auto(
        polygenic["blocks"], Ldpred2Auto(n_chains=3, jumps="forbidden", ridge=False, **SHORT), h2_init=0.3
    )
    ridge = fit_ridge(polygenic["blocks"], h2=0.4)
    jumping = next(c for c in fit.record["candidates"] if c["name"] == JUMPING)
    assert jumping["p"] > 0.5 > steady.record["p"]
    assert fit.record["chosen"] in (JUMPING, "ridge")
    assert r2(score(Z, fit.weights), y) > 0.98 * r2(score(Z, ridge.weights), y)
    assert r2(score(Z, fit.weights), y) > r2(score(Z, steady.weights), y)


def test_estimate_heritability__is_that_of_the_simulation(polygenic):
    assert estimate_heritability(polygenic["blocks"], h2_init=0.1) == pytest.approx(0.4, abs=0.05)
    assert estimate_heritability(contradictory_blocks(), h2_init=0.5) is None


@pytest.mark.parametrize("name", ["chains", "grid", "ridge", "lassosum2"])
def test_promise__is_kept_in_strangers_and_exceeded_in_the_people_of_the_gwas(polygenic, name):
    """Overlap is 0 and 1: w'b in other people falls by the penalty, in the GWAS's own it does not."""
    blocks = polygenic["blocks"]
    tune = tune_on_summary(blocks, [b.beta_hat for b in blocks])
    fit = {
        "chains": lambda: fit_ldpred2_auto(blocks, Ldpred2Auto(n_chains=4, ridge=False, **SHORT), h2_init=0.4),
        "grid": lambda: fit_ldpred2_grid(blocks, Ldpred2Grid(p_values=(0.3,), h2_factors=(1.0,)), h2=0.4, tune=tune),
        "ridge": lambda: fit_ridge(blocks, h2=0.4),
        "lassosum2": lambda: fit_lassosum2(blocks, Lassosum2(deltas=(1.0,), n_lambdas=5), tune=tune),
    }[name]()
    for people, expected in (("test", 0.0), ("gwas", 1.0)):
        Z, y = polygenic["Z"][people], polygenic["y"][people]
        found = estimate_overlap(fit.promise, float(score(Z, fit.weights) @ y / len(y)), n=len(y), n_gwas=3_000)
        assert found.theta == pytest.approx(expected, abs=3 * found.se if expected == 0 else 0.05)
        assert found.is_seen is bool(expected)


def test_tune_on_summary__ranks_like_the_individuals():
    study = simulate_study(5, n_blocks=6, m=30, p=0.1, n_gwas=2_000, n_reference=2_000, n_test=2_000)
    Z, y = study["Z"]["test"], study["y"]["test"]
    beta_test = np.split(Z.T @ y / len(y), 6)
    tune = tune_on_summary(study["blocks"], beta_test)
    fits = [fit_ridge(study["blocks"], h2=h2).weights for h2 in (0.001, 0.4)]
    for weights in fits:
        # reference and test cohort differ in LD by sampling: 1/sqrt(2,000) per correlation
        assert tune(weights) == pytest.approx(np.sqrt(r2(score(Z, weights), y)), abs=0.02)
    assert tune([0 * w for w in fits[0]]) == 0.0
    with pytest.raises(PredictorError, match="tuning effects come in blocks"):
        tune_on_summary(study["blocks"], beta_test[:2])
