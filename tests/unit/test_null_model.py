"""Null models against independent fits, their score equations, and every error they must raise."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import xarray as xr

from locomass.config import RunConfig, load_config
from locomass.denoise import fit_null_models
from locomass.errors import FormatError, StatisticsError
from locomass.null_models.design import extra_design, orthonormal_design, residual_sd
from locomass.null_models.linear import fit_linear
from locomass.null_models.logistic import fit_logistic
from locomass.null_models.registry import trait_model
from locomass.null_models.store import read_null_models, write_null_models
from locomass.scores.genotypes import ContextSource, StudyContext
from locomass.scores.sex import XCoding
from locomass.tables.cohort import open_cohort
from tests import reference_logistic
from tests.factories import CHROMOSOMES, make_study
from tests.reference import linear_fit, logistic_fit

N = 200
NO_LOCO, NO_OFFSET = np.empty((N, 0)), np.zeros(N)


@pytest.fixture
def rng():
    return np.random.default_rng(11)


@pytest.fixture
def X(rng):
    return np.column_stack([np.ones(N), rng.normal(50, 10, N), rng.integers(0, 2, N)])


def basis(X):
    return orthonormal_design(X, np.ones(len(X)), [str(j) for j in range(X.shape[1])])


def test_orthonormal_design__projects_like_the_inverse_square_root(rng, X):
    weight = rng.uniform(0.05, 0.25, N)
    Z = orthonormal_design(X, weight, ["a", "b", "c"])
    W = np.diag(weight)
    # (Z'G)'(Z'G) = G'WX (X'WX)^-1 X'WG for every G
    np.testing.assert_allclose(Z @ Z.T, W @ X @ np.linalg.inv(X.T @ W @ X) @ X.T @ W, atol=1e-12)


def test_fit_linear__residual_and_variance(rng, X):
    y = X @ [1, 0.1, 2] + rng.normal(size=N)
    model = fit_linear(y, basis(X), NO_LOCO, NO_OFFSET)
    residual, sigma2 = linear_fit(y, X)
    np.testing.assert_allclose(model.residual, residual, atol=1e-10)
    assert model.sigma2 == pytest.approx(sigma2, rel=1e-12)
    np.testing.assert_allclose(model.mu + model.residual, y, rtol=1e-14)
    np.testing.assert_allclose(X.T @ model.residual, 0, atol=1e-8)
    assert (model.weight == 1).all()


def test_fit_linear__loco_as_covariate(rng, X):
    F = rng.normal(size=(N, 2)) + X[:, 1:2]
    y = X @ [1, 0.1, 2] + F @ [0.7, -0.2] + rng.normal(size=N)
    model = fit_linear(y, basis(X), F, NO_OFFSET)
    full = np.column_stack([X, F])
    residual, sigma2 = linear_fit(y, full)
    np.testing.assert_allclose(model.residual, residual, atol=1e-10)
    assert model.sigma2 == pytest.approx(sigma2, rel=1e-12)
    inverse = np.linalg.inv(full.T @ full)
    np.testing.assert_allclose(model.slope, (inverse @ full.T @ y)[-2:], rtol=1e-9)
    np.testing.assert_allclose(model.slope_se, np.sqrt(sigma2 * np.diag(inverse)[-2:]), rtol=1e-9)
    plain = linear_fit(y, X)
    assert model.r2 == pytest.approx(1 - (residual @ residual) / (plain[0] @ plain[0]), rel=1e-10)
    assert model.variance_before == pytest.approx(plain[1], rel=1e-12)
    assert model.variance_after == model.sigma2


def test_fit_linear__loco_as_offset(rng, X):
    f = rng.normal(size=N)
    y = X @ [1, 0.1, 2] + f + rng.normal(size=N)
    model = fit_linear(y, basis(X), NO_LOCO, f)
    residual, sigma2 = linear_fit(y - f, X)
    np.testing.assert_allclose(model.residual, residual, atol=1e-10)
    assert model.sigma2 == pytest.approx(sigma2, rel=1e-12)
    assert model.slope.size == 0


def test_fit_linear__an_offset_that_misleads_has_negative_r2(rng, X):
    y = rng.normal(size=N)
    assert fit_linear(y, basis(X), NO_LOCO, -2 * y).r2 < 0


def test_extra_design__completes_the_projection(rng, X):
    F = rng.normal(size=(N, 1)) + X[:, 1:2]
    Z = basis(X)
    both = np.column_stack([Z, extra_design(F, Z)])
    full = np.column_stack([X, F])
    np.testing.assert_allclose(both @ both.T, full @ np.linalg.inv(full.T @ full) @ full.T, atol=1e-11)
    assert extra_design(NO_LOCO, Z).shape == (N, 0)


def test_residual_sd(rng, X):
    y = X @ [1, 0.1, 2] + rng.normal(size=N)
    assert residual_sd(y, basis(X)) == pytest.approx(np.sqrt(linear_fit(y, X)[1]), rel=1e-12)


@pytest.mark.parametrize("share", [0.5, 0.1, 0.03])
@pytest.mark.parametrize("use", ["none", "covariate", "offset"])
def test_fit_logistic__equals_an_independent_fit(rng, X, share, use):
    f = rng.normal(size=N)
    eta = np.log(share / (1 - share)) + 0.03 * (X[:, 1] - 50) + 0.5 * f
    y = (rng.random(N) < 1 / (1 + np.exp(-eta))).astype(float)
    F = f[:, None] if use == "covariate" else NO_LOCO
    offset = f if use == "offset" else NO_OFFSET
    model = fit_logistic(y, basis(X), F, offset)
    scaled = np.column_stack([X[:, 0], (X[:, 1] - 50) / 10, X[:, 2], F])  # same span, kinder to a general optimiser
    mu = logistic_fit(y, scaled, offset)
    np.testing.assert_allclose(model.mu, mu, rtol=1e-9)
    np.testing.assert_allclose(model.weight, mu * (1 - mu), rtol=1e-9)
    np.testing.assert_allclose(scaled.T @ model.residual, 0, atol=1e-9)  # score equations
    assert model.sigma2 == 1
    before = y - logistic_fit(y, scaled[:, :3], NO_OFFSET)
    assert model.r2 == pytest.approx(1 - ((y - mu) ** 2).sum() / (before**2).sum(), abs=1e-9)
    if use == "covariate":
        information = scaled.T @ np.diag(mu * (1 - mu)) @ scaled
        assert model.slope_se[0] == pytest.approx(np.sqrt(np.linalg.inv(information)[-1, -1]), rel=1e-8)
        logit = np.log(mu / (1 - mu))
        assert model.slope[0] == pytest.approx(np.linalg.lstsq(scaled, logit, rcond=None)[0][-1], rel=1e-7)
    else:
        assert model.slope.size == 0


@pytest.mark.parametrize("relative_sd", [1e-3, 1e-5, 1e-7])
def test_fit_logistic__covariate_far_from_zero(rng, relative_sd):
    t = rng.normal(size=N)
    y = (rng.random(N) < 1 / (1 + np.exp(-t))).astype(float)
    model = fit_logistic(y, basis(np.column_stack([np.ones(N), 1 + relative_sd * t])), NO_LOCO, NO_OFFSET)
    mu = logistic_fit(y, np.column_stack([np.ones(N), t]), NO_OFFSET)
    # the column itself holds t to about 1e-16 / relative_sd
    np.testing.assert_allclose(model.mu, mu, atol=1e-14 / relative_sd + 1e-9)


def test_fit_logistic__an_outlier_of_a_covariate_is_no_separation(rng):
    x = rng.normal(size=N)
    y = (rng.random(N) < 1 / (1 + np.exp(-x))).astype(float)
    x[0], y[0] = 80, 1  # its fitted probability is 1 to rounding; the maximum is finite all the same
    X = np.column_stack([np.ones(N), x])
    model = fit_logistic(y, basis(X), NO_LOCO, NO_OFFSET)
    np.testing.assert_allclose(model.mu, logistic_fit(y, X, NO_OFFSET), atol=1e-10)


def test_fit_logistic__takes_a_huge_offset_without_overflow(rng):
    y = (rng.random(N) < 0.5).astype(float)
    y[:2] = 1, 0
    offset = np.zeros(N)
    offset[:2] = 800, -800  # says nothing about the others
    model = fit_logistic(y, basis(np.ones((N, 1))), NO_LOCO, offset)
    np.testing.assert_allclose(model.mu[2:], y[2:].mean(), rtol=1e-10)


def test_fit_logistic__few_cases_of_many(rng):
    n = 20_000
    X = np.column_stack([np.ones(n), rng.normal(1970, 15, n)])
    y = np.zeros(n)
    y[rng.choice(n, 12, replace=False)] = 1
    model = fit_logistic(y, basis(X), np.empty((n, 0)), np.zeros(n))
    np.testing.assert_allclose(X.T @ model.residual / np.array([1, 1970]), 0, atol=1e-8)
    assert model.mu.sum() == pytest.approx(12, rel=1e-10)


@pytest.mark.parametrize("kind", ["complete", "quasi", "level without cases"])
def test_fit_logistic__raises_on_separation(rng, kind):
    y = (np.arange(N) < N // 2).astype(float)
    x = {
        "complete": y + 0.01 * rng.normal(size=N),
        "quasi": y.copy(),
        "level without cases": (np.arange(N) > N - 6) * 1.0,
    }[kind]
    if kind == "quasi":
        x[:20] = 0
    with pytest.raises(StatisticsError, match=r"separat.*remove or merge"):
        fit_logistic(y, basis(np.column_stack([np.ones(N), x])), NO_LOCO, NO_OFFSET)


@pytest.mark.parametrize(("value", "what"), [(0.0, "cases"), (1.0, "controls")])
def test_fit_logistic__raises_on_one_group(value, what):
    with pytest.raises(StatisticsError, match=f"no {what} among the {N}"):
        fit_logistic(np.full(N, value), basis(np.ones((N, 1))), NO_LOCO, NO_OFFSET)


def test_fit_logistic__raises_on_constant_prediction(rng, X):
    y = (rng.random(N) < 0.5).astype(float)
    with pytest.raises(StatisticsError, match=r"LOCO prediction"):
        fit_logistic(y, basis(X), np.ones((N, 1)), NO_OFFSET)


@pytest.mark.parametrize("value", [0.0, 0.1, -4e6])
def test_fit_linear__raises_on_constant_trait(X, value):
    with pytest.raises(StatisticsError, match="constant"):
        fit_linear(np.full(N, value), basis(X), NO_LOCO, NO_OFFSET)


def test_fit_linear__raises_on_trait_that_is_a_covariate(X):
    with pytest.raises(StatisticsError, match="constant among the analysed samples once covariates"):
        fit_linear(3 * X[:, 1] - 7, basis(X), NO_LOCO, NO_OFFSET)


def test_fit_linear__raises_on_constant_prediction(rng, X):
    with pytest.raises(StatisticsError, match="LOCO prediction is constant"):
        fit_linear(rng.normal(size=N), basis(X), X[:, 1:2] * 2 + 1, NO_OFFSET)


@pytest.mark.parametrize("use", ["covariate", "offset"])
def test_fit_linear__raises_on_prediction_that_is_the_trait(rng, X, use):
    y = rng.normal(size=N)
    F, offset = (y[:, None], NO_OFFSET) if use == "covariate" else (NO_LOCO, y)
    with pytest.raises(StatisticsError, match="prediction"):
        fit_linear(y, basis(X), F, offset)


def test_orthonormal_design__raises_on_singular_covariates(X):
    singular = np.column_stack([X, 2 * X[:, 1] - 3])
    with pytest.raises(StatisticsError, match=r"'age2' is a combination of one, age among the 200"):
        orthonormal_design(singular, np.ones(N), ["one", "age", "sex", "age2"])


def test_orthonormal_design__raises_on_zero_column(X):
    with pytest.raises(StatisticsError, match="'nothing' is zero"):
        orthonormal_design(np.column_stack([X, np.zeros(N)]), np.ones(N), ["one", "age", "sex", "nothing"])


@pytest.mark.parametrize("n", [2, 3, 4])
def test_orthonormal_design__raises_on_more_columns_than_samples(rng, n):
    X = np.column_stack([np.ones(n), rng.normal(size=(n, 3))])
    with pytest.raises(StatisticsError, match=r"samples cannot fit 4 covariates|singular"):
        orthonormal_design(X, np.ones(n), list("abcd"))


def test_orthonormal_design__accepts_covariates_of_very_different_scale(rng):
    X = np.column_stack([np.ones(N), 1e9 * rng.normal(size=N), 1e-9 * rng.normal(size=N)])
    Z = basis(X)
    np.testing.assert_allclose(Z.T @ Z, np.eye(3), atol=1e-12)


# ---- the seam: what a trait gives to the pass ----


@pytest.fixture(scope="module", params=["covariate", "offset"])
def fitted(request, tmp_path_factory):
    """A study's own null models, and the study."""
    study = make_study(5, 220)
    folder = tmp_path_factory.mktemp("null")
    config = load_config(study.write(folder), RunConfig)
    cohort = open_cohort(config, folder)
    labels = [f"F{s}_{s}" for s in study.samples]
    values = np.repeat(study.loco[:, :, None], len(study.traits), axis=2)
    dims = {"chromosome": list(CHROMOSOMES), "sample": labels, "trait": list(study.traits)}
    loco = xr.DataArray(values, dims=tuple(dims), coords=dims)
    return study, request.param, fit_null_models(cohort, loco, request.param), folder


@pytest.mark.parametrize("trait", ["y", "z", "cc"])
def test_trait_model__is_that_of_an_independent_fit(fitted, trait):
    study, role, models, _ = fitted
    chosen = study.observed(trait)
    y, F = study.traits[trait][chosen], study.loco[1][chosen]
    X = study.design(chosen)
    offset = F if role == "offset" else np.zeros(len(y))
    full = np.column_stack([X, F]) if role == "covariate" else X
    null = trait_model(models, models.model("2"), trait)
    if trait == "cc":
        mu = reference_logistic.fit_logistic(full, y, offset)
        W, sigma2, law = np.diag(mu * (1 - mu)), 1.0, "bernoulli"
    else:
        residual, sigma2 = linear_fit(y - offset, full)
        mu, W, law = y - residual, np.eye(len(y)), "residual"
    assert (null.law, null.kind) == (law, "binary" if trait == "cc" else "quantitative")
    np.testing.assert_array_equal(null.y, y)
    np.testing.assert_allclose(null.mu, mu, rtol=0, atol=1e-9)
    np.testing.assert_allclose(null.residual, y - mu, rtol=0, atol=1e-9)
    np.testing.assert_allclose(null.weight, np.diag(W), rtol=0, atol=1e-9)
    assert null.sigma2 == pytest.approx(sigma2, rel=1e-9)
    V = W - null.Z @ null.Z.T
    np.testing.assert_allclose(V, W - W @ full @ np.linalg.inv(full.T @ W @ full) @ full.T @ W, rtol=0, atol=1e-9)
    np.testing.assert_allclose(null.X.T @ null.X, np.eye(full.shape[1]), rtol=0, atol=1e-10)
    np.testing.assert_allclose(null.X @ (null.X.T @ full), full, rtol=1e-9, atol=1e-9)
    in_order = [f"F{s}_{s}" for s in np.array(study.samples)[chosen]]
    assert models.samples[np.argsort(np.where(null.place < 0, len(y), null.place))][: len(y)].tolist() == in_order


def test_null_models__come_back_from_disk_to_the_bit(fitted):
    _, _, models, folder = fitted
    write_null_models(folder / "stored", models)
    back = read_null_models(folder / "stored", models.samples, "2")
    assert list(back.chromosomes) == ["2"]
    assert back.traits == models.traits
    for trait in ("y", "w", "z", "cc"):
        one, other = (trait_model(m, m.model("2"), trait) for m in (models, back))
        for name, value in vars(one).items():
            np.testing.assert_array_equal(getattr(other, name), value, err_msg=name)


@pytest.mark.parametrize("name", ["study.npz", "2.npz", "null_models.json"])
def test_null_models__raise_on_a_damaged_store(fitted, name):
    _, _, models, folder = fitted
    write_null_models(folder / "damaged", models)
    path = folder / "damaged" / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(FormatError, match="damaged null models"):
        read_null_models(folder / "damaged", models.samples)


def test_context_source__takes_memory_here_and_the_store_elsewhere(fitted):
    _, _, models, folder = fitted
    context = StudyContext(models, np.arange(3, dtype=np.int32), XCoding(np.zeros(3, bool), 2, ""))
    source = ContextSource(folder, folder / "stored", "stamp", context)
    assert source.open("2") is context
    assert pickle.loads(pickle.dumps(source)) == ContextSource(folder, folder / "stored", "stamp")
