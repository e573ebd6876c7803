"""SKAT family of binary traits with few cases: null scores from shared statistics against individual phenotypes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from locomass.gene_tests.base import NORMAL_SCORES, Detail, ScoreStatistics, TestResult
from locomass.gene_tests.case_counts import draw_scores, map_scores, tabulate_counts
from locomass.gene_tests.chi_square_mixture import mixture_logsf
from locomass.gene_tests.components import Components
from locomass.gene_tests.few_cases import DrawnScale, redraw_best, sum_scores
from locomass.gene_tests.law_draws import open_law
from locomass.gene_tests.null_draws import NullDraws
from locomass.gene_tests.registry import evaluate
from locomass.gene_tests.splitting import split_tail
from studies.few_cases import group_people
from tests.reference_gene_tests import resample_scores

FAMILY = ("skat", "skat-o", "skat-o-published", "skat-joint", "skat-het", "skat-random-effects")


def draw_genotypes(rng: np.random.Generator, n: int, m: int, nested: bool) -> np.ndarray:
    """Return (n, m) rare genotypes; with ``nested``, half of the variants lie on haplotypes of others."""
    frequency = np.exp(rng.uniform(np.log(0.002), np.log(0.03), m))
    haplotypes = rng.random((2 * n, m)) < frequency
    for j in range(1, m if nested else 0):
        if j % 2:
            haplotypes[:, j] = haplotypes[:, j - 1] & (rng.random(2 * n) < 0.7)
    return (haplotypes[:n].astype(float) + haplotypes[n:])[:, haplotypes.any(axis=0)]


def make_study(rng: np.random.Generator, G: np.ndarray, share: float, spread: float, draws: int):
    """Return scores of resampled phenotypes (draws, m), V and what the study tells of its carriers."""
    n = len(G)
    X = np.column_stack((np.ones(n), rng.standard_normal(n)))
    eta = spread * X[:, 1]
    shift = np.log(share / (1 - share))
    for _ in range(50):
        mu = 1 / (1 + np.exp(-(shift + eta)))
        shift -= (mu.mean() - share) / (mu * (1 - mu)).mean()
    U, V = resample_scores(G, mu, X, rng, 1)
    if draws > 1:
        U = score_phenotypes(G, mu, X, rng, draws)
    return U, V, group_people(G, mu, V)


def score_phenotypes(G: np.ndarray, mu: np.ndarray, X: np.ndarray, rng: np.random.Generator, draws: int) -> np.ndarray:
    """Return scores (draws, m) of phenotypes with as many cases as expected: a fitted null model has that many."""
    W, cases, kept = mu * (1 - mu), round(float(mu.sum())), []
    left = G - X @ np.linalg.solve(X.T @ (W[:, None] * X), X.T @ (W[:, None] * G))
    while sum(map(len, kept)) < draws:
        y = rng.random((20_000, len(G)), dtype=np.float32) < mu.astype(np.float32)
        y = y[y.sum(axis=1) == cases]
        kept.append((y - mu) @ left)
    return np.concatenate(kept)[:draws]


def two_studies(seed: int, *, nested: bool, spread: float = 0.0, share: float = 1 / 40, draws: int = 1, n: int = 800):
    """Return the statistics of ``draws`` null phenotypes in two studies, and both parts."""
    rng = np.random.default_rng(seed)
    G = draw_genotypes(rng, 2 * n, 16, nested)
    G = G[:, (G[:n].sum(axis=0) > 0) & (G[n:].sum(axis=0) > 0)]
    parts = [make_study(rng, g, share, spread, draws) for g in (G[:n], G[n:])]
    mac = G.sum(axis=0)
    return ScoreStatistics(
        U=parts[0][0] + parts[1][0], V=parts[0][1] + parts[1][1], scale=np.ones(draws), maf=mac / (4 * n), mac=mac,
        n_samples=np.full(draws, 2.0 * n), rare=np.ones(mac.size, np.bool_),
        per_study=tuple((U, V, np.ones(draws)) for U, V, _ in parts), laws=(tuple(c for _, _, c in parts),),
    )  # fmt: skip


# ---- the kernels


def test_tabulate_counts__is_the_binomial() -> None:
    size, p = np.array([12.0, 300.0, 5.0]), np.array([0.02, 0.4, 0.97])
    tables = tabulate_counts(size, p)
    for s in range(3):
        cut = tables.cut[tables.start[s] : tables.start[s + 1]]
        count = np.round(tables.lowest[s] + size[s] * p[s]) + np.arange(len(cut))
        up, n, q = cut > 0, size[s], p[s]
        np.testing.assert_allclose(stats.norm.logsf(cut[up]), stats.binom.logsf(count[up], n, q), rtol=1e-9)
        np.testing.assert_allclose(stats.norm.logcdf(cut[~up]), stats.binom.logcdf(count[~up], n, q), rtol=1e-9)


def test_tabulate_counts__a_size_that_is_not_whole_keeps_its_variance() -> None:
    tables = tabulate_counts(np.array([2.5]), np.array([0.1]))
    U = draw_scores(
        np.random.default_rng(1), 400_000, tables.lowest, tables.start, tables.level, tables.rise, np.ones((1, 1))
    )
    assert U.mean() == pytest.approx(0.0, abs=0.004)
    assert U.var() == pytest.approx(0.225, rel=0.02)


def test_map_scores__has_the_distribution_of_draw_scores() -> None:
    rng = np.random.default_rng(2)
    tables = tabulate_counts(np.array([30.0, 8.0]), np.array([0.05, 0.1]))
    mix = rng.standard_normal((3, 2))
    base = tables.lowest @ mix[:2]
    a = map_scores(rng.standard_normal((50_000, 3)), base, tables.start, tables.cut, tables.rise, mix)
    b = draw_scores(rng, 50_000, base, tables.start, tables.level, tables.rise, mix)
    for f in (lambda u: u[:, 0], lambda u: u[:, 1], lambda u: u.sum(axis=1)):
        assert stats.ks_2samp(f(a), f(b)).pvalue > 1e-3


@pytest.mark.parametrize("log10p", [3, 8, 14])
def test_split_tail__of_a_chi_square_is_its_tail(log10p: int) -> None:
    target = float(stats.chi2.isf(10.0**-log10p, 20))
    found = [
        split_tail(lambda Z: (Z * Z).sum(axis=1), 20, target, np.random.default_rng(seed), 2000) for seed in range(8)
    ]
    values, errors = np.array(found).T
    assert np.mean(values) / np.log(10) == pytest.approx(-log10p, abs=3 * np.mean(errors) / np.sqrt(8) / np.log(10))
    assert np.std(values) < 2.0 * np.mean(errors)


def test_split_tail__passes_atoms_and_says_what_it_cannot_reach() -> None:
    def count(Z: np.ndarray) -> np.ndarray:
        return (Z > 1.2815515655446004).sum(axis=1).astype(float)  # each with probability 0.1

    log_p, error = split_tail(count, 6, 4.0, np.random.default_rng(3), 4000)
    assert log_p == pytest.approx(stats.binom.logsf(3, 6, 0.1), abs=4 * error)
    assert np.isnan(split_tail(count, 6, 7.0, np.random.default_rng(3), 1000)[0])


# ---- null scores


@pytest.mark.parametrize(("nested", "spread"), [(False, 0.0), (True, 0.0), (True, 1.0)])
def test_drawn_scores_have_mean_nought_and_the_covariance_V(nested: bool, spread: float) -> None:
    own = two_studies(1, nested=nested, spread=spread).laws[0][0]
    draws = NullDraws([open_law(own)], [0])
    U = np.concatenate([draws.block(i)[0] for i in range(40)])
    sd = np.sqrt(own.V.diagonal())
    assert np.abs(U.mean(axis=0) / sd).max() < 0.03
    assert np.abs((np.cov(U.T) - own.V) / np.outer(sd, sd)).max() < 0.06


def test_null_draws__do_not_depend_on_the_order_of_studies() -> None:
    first, second = (open_law(own) for own in two_studies(3, nested=False).laws[0])
    a, b = NullDraws([first, second], [0, 1]), NullDraws([second, first], [1, 0])
    np.testing.assert_array_equal(a.block(1)[0], b.block(1)[1])
    Z = np.random.default_rng(1).standard_normal((50, a.dimension))
    np.testing.assert_array_equal(a.scores(Z)[0][0], b.scores(Z)[0][1])


# ---- p-values

N_NULL = 20_000


@pytest.mark.ci
@pytest.mark.parametrize(("nested", "spread"), [(False, 0.0), (True, 0.0), (False, 1.0)])
def test_skat__p_is_that_of_resampled_phenotypes(nested: bool, spread: float) -> None:
    """At quantiles of Q over phenotypes drawn one by one: within a factor of two, where the mixture is up to 50 off."""
    null = two_studies(11, nested=nested, spread=spread, draws=N_NULL)
    rows = evaluate(replace(null, laws=()), ["skat"], ["beta_1_25"], ultra_rare=0.0)
    Q = rows[0][2].statistic
    for p in (0.03, 0.003, 0.0005):
        t = int(np.argsort(Q)[N_NULL - round(p * N_NULL)])
        truth = np.mean(Q[t] * (1 - 1e-9) <= Q)
        one = take(null, t)
        log_p = evaluate(one, ["skat"], ["beta_1_25"], ultra_rare=0.0)[0][2].log_p[0]
        ratio = np.exp(log_p) / truth
        assert 0.5 < ratio < (2.0 if spread == 0.0 else 3.0)
        if p == 0.0005 and spread == 0.0:
            assert np.exp(rows[0][2].log_p[t]) / truth < 0.3  # what the draws are for


@pytest.mark.ci
@pytest.mark.parametrize("test", [name for name in FAMILY if name != "skat-o-published"])
def test_family__level_on_resampled_phenotypes(test: str) -> None:
    """500 null phenotypes: rates at 0.05 and 0.01 inside the 99.9 % interval above, ultra-rare variants pooled."""
    null = two_studies(12, nested=True, draws=500)
    p = np.array([
        np.exp(evaluate(take(null, t), [test], ["beta_1_25"], ultra_rare=10.0)[0][2].log_p[0]) for t in range(500)
    ])  # fmt: skip
    for level in (0.05, 0.01):
        assert np.sum(p <= level) <= stats.binom.ppf(0.9995, 500, level)
    assert np.mean(p <= 0.05) > 0.02


def test_family__only_small_p_values_are_drawn() -> None:
    """The mixture decides which p-values of 0.1 and below are drawn again: well above and below, it is known which."""
    null = two_studies(13, nested=False, draws=60)
    for test in ("skat", "skat-o", "skat-het"):
        rows = [evaluate(take(null, t), [test], ["flat"])[0][2] for t in range(60)]
        log_p, drawn = np.array([row.log_p[0] for row in rows]), np.array(["case-count" in row.method for row in rows])
        assert not drawn[log_p > np.log(0.2)].any()
        assert drawn[log_p < np.log(0.05)].all()
        assert drawn.any()


def test_family__order_of_studies_and_counted_alleles_change_nothing() -> None:
    null = two_studies(14, nested=True, draws=400)
    strong = int(np.argmax(((null.U * 1.0) ** 2).sum(axis=1)))
    one = take(null, strong)
    turned = replace(one, per_study=one.per_study[::-1], laws=(one.laws[0][::-1],))
    for test in FAMILY:
        a, b = (evaluate(s, [test], ["flat"], ultra_rare=10.0, particles=500)[0][2] for s in (one, turned))
        assert a.log_p[0] == pytest.approx(b.log_p[0], rel=1e-9)
        assert "case-count" in a.method


def test_family__scores_beyond_all_draws_keep_the_calibrated_p_value_and_say_so() -> None:
    null = take(two_studies(15, nested=False), 0)
    far = replace(null, U=null.U * 0 + 1e4, per_study=tuple((U * 0 + 5e3, V, s) for U, V, s in null.per_study))
    rows = {name: row for name, _, row in evaluate(far, ["skat", "skat-o", "skat-het", "vt"], ["flat"], particles=500)}
    assert rows["skat"].method == "saddlepoint-contour"
    assert rows["skat"].log_p[0] < -1000
    assert {name: row.note for name, row in rows.items()} == dict.fromkeys(rows, NORMAL_SCORES)
    near = evaluate(null, ["skat", "skat-o", "skat-het", "vt"], ["flat"], particles=500)
    assert {row.note for _, _, row in near} == {""}


def test_drawn_scale__is_the_tail() -> None:
    rng = np.random.default_rng(6)
    scale = DrawnScale.of(rng.chisquare(3, 8192))
    x = np.array([2.0, 7.8, 16.3, 21.1])
    np.testing.assert_allclose(scale(x), -stats.chi2.logsf(x, 3), rtol=0.12)
    assert (np.diff(scale(np.linspace(0, 60, 500))) >= -1e-9).all()


def test_mixture__is_what_draws_of_many_cases_give() -> None:
    """With hundreds of cases among the carriers the draws and the normal mixture agree."""
    rng = np.random.default_rng(8)
    G = rng.binomial(2, 0.03, (20_000, 6)).astype(float)
    _, V, known = make_study(rng, G, 0.08, 0.0, 1)
    draws = NullDraws([open_law(known)], [0])
    w = 1 / np.sqrt(V.diagonal())
    for q in (15.0, 25.0):
        log_p, error, _ = draws.tail(lambda U: ((U[0] * w) ** 2).sum(axis=1), q, 4000)
        exact = mixture_logsf(np.array([q]), np.linalg.eigvalsh(w[:, None] * V * w))[0][0]
        assert log_p == pytest.approx(exact, abs=4 * error + 0.1)


@pytest.mark.parametrize("test", ["skat-o", "skat-random-effects"])
def test_best_of_mixtures__is_between_the_best_and_as_many_times_it(test: str) -> None:
    """Of 40 null phenotypes; the smallest p of SKAT-O's rho comes from the same draws."""
    null, redrawn = two_studies(16, nested=True, draws=40), 0
    for t in range(40):
        row = evaluate(take(null, t), [test], ["flat"])[0][2]
        redrawn += row.method.startswith("case-count")
        if test == "skat-o":
            assert row.detail.log_p_min[0] <= row.log_p[0] <= row.detail.log_p_min[0] + np.log(8) + 1e-12
        assert row.p_error[0] >= 0.0
    assert redrawn >= 1


def test_best_of_mixtures__bound_is_taken_and_told() -> None:
    """Scales that are off by far: p is eight times that of the best statistic at most, and the error says so."""
    null = two_studies(16, nested=True, draws=200)
    t = int(np.argmax((null.U**2).sum(axis=1)))
    c = Components(take(null, t), ("flat",), particles=500)
    parts = np.arange(1.0, 9.0)[:, None]
    row = TestResult(np.ones(1), np.full(1, -5.0), detail=Detail(rho=np.zeros(1), log_p_min=np.full(1, -5.0)))
    w = np.ones(c.stats.n_variants)
    got = redraw_best(c, row, w, np.arange(8.0), lambda U: parts * (sum_scores(U) ** 2).sum(axis=1))
    assert got.log_p[0] == pytest.approx(got.detail.log_p_min[0], abs=1e-9)  # eight times the same statistic


def take(null: ScoreStatistics, t: int) -> ScoreStatistics:
    """Return the statistics of one phenotype."""
    one = slice(t, t + 1)
    return replace(
        null, U=null.U[one], scale=null.scale[one], n_samples=null.n_samples[one],
        per_study=tuple((U[one], V, scale[one]) for U, V, scale in null.per_study),
    )  # fmt: skip
