"""Null scores drawn from who carries which variants, against phenotypes drawn one by one."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from locomass.gene_tests.few_cases import quadratic_statistic
from locomass.gene_tests.law import Residuals, StudyCarriers
from locomass.gene_tests.law_draws import is_far_from_normal, open_law
from locomass.gene_tests.null_draws import NullDraws


def study(n, count, M, mu=None, residuals=None, dosage=1.0):
    """Groups of people who carry the same variants, and the information with an intercept projected out."""
    M, count = np.asarray(M, float), np.asarray(count, float)
    spread = mu * (1 - mu) if mu is not None else residuals.probability @ residuals.node**2
    G = M.T @ (count[:, None] * M)
    V = spread * (G - np.outer(count @ M, count @ M) / n)
    rows, columns = np.nonzero(M)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(M)))])
    probability = None if mu is None else np.full(len(count), mu)
    return StudyCarriers(indptr, columns, M[rows, columns], count, probability, residuals, V)


def draw_fixed_cases(n, cases, count, M, size, rng):
    """Scores (size, m) of phenotypes with so many cases among n people: counts of each group without replacement."""
    people = np.append(np.asarray(count, np.int64), n - int(np.sum(count)))
    drawn = rng.multivariate_hypergeometric(people, cases, size=size)[:, :-1]
    return (drawn - np.asarray(count) * cases / n) @ np.asarray(M, float)


CORE = (3000, 15, [4, 8, 8, 8, 8, 8], np.vstack([np.ones(5), np.eye(5)]))
NESTED = (2000, 100, [5, 10, 20], np.array([[1, 1, 1], [0, 1, 1], [0, 0, 1]]))
PAIRS = (1500, 30, [3, 3, 3, 6, 6, 6], np.array([[1, 1, 0], [0, 1, 1], [1, 0, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1]]))
HOMOZYGOUS = (1000, 60, [2, 30, 12], np.array([[2, 0], [1, 0], [1, 1]]))
MANY = (400, 40, [40, 60, 30], np.array([[1, 0], [0, 1], [1, 1]]))  # a third of all people carry something
OVERLAPS = {"core": CORE, "nested": NESTED, "pairs": PAIRS, "homozygous": HOMOZYGOUS, "many carriers": MANY}


@pytest.mark.parametrize("name", OVERLAPS)
def test_drawn_scores_have_the_tails_of_phenotypes_with_as_many_cases(name):
    n, cases, count, M = OVERLAPS[name]
    rng, statistic = np.random.default_rng(4), quadratic_statistic(np.ones(M.shape[1]))
    direct = statistic([draw_fixed_cases(n, cases, count, M, 400_000, rng)])
    draws = NullDraws([open_law(study(n, count, M, cases / n))], [0])
    ours = np.concatenate([statistic(draws.block(i)) for i in range(60)])
    for level in (0.05, 0.01, 1e-3):
        t = np.quantile(direct, 1 - level) * (1 - 1e-9)
        p, q = np.mean(direct >= t), np.mean(ours >= t)
        assert q == pytest.approx(p, abs=0.03 * p + 4 * math.sqrt(p / ours.size)), level


@pytest.mark.parametrize("name", ["core", "pairs", "nested"])
def test_small_p_of_skat_is_within_its_error_of_direct_draws(name):
    n, cases, count, M = OVERLAPS[name]
    rng, statistic = np.random.default_rng(5), quadratic_statistic(np.ones(M.shape[1]))
    draws = NullDraws([open_law(study(n, count, M, cases / n))], [0])
    direct = np.sort(
        np.concatenate([statistic([draw_fixed_cases(n, cases, count, M, 500_000, rng)]) for _ in range(4)])
    )
    t = direct[-60] * (1 - 1e-9)
    p = np.mean(direct >= t)
    log_p, error, method = draws.tail(statistic, t, 4_000)
    assert method == "case-count splitting"
    assert abs(log_p - math.log(p)) < 3 * math.hypot(error, 1 / math.sqrt(60))
    assert abs(log_p - math.log(p)) < math.log(1.7)


def test_a_core_of_carriers_has_its_enumerated_p():
    """Case 04: three of four people who carry all five variants are cases, 15 of 3,000."""
    n, cases, count, M = CORE
    observed = 5 * (3 - 12 * cases / n) ** 2
    people, p = np.append(count, n - sum(count)), 0.0
    for k in range(5):
        first = stats.hypergeom.pmf(k, n, 4, cases)
        # the cases among those who carry one variant, by their number and how they lie
        for others in range(8):
            chance = stats.hypergeom.pmf(others, n - 4, 40, cases - k)
            shares = [c for c in itertools.product(range(others + 1), repeat=5) if sum(c) == others]
            ways = [math.prod(math.comb(8, x) for x in c) for c in shares]
            reached = [sum((k + x - 12 * cases / n) ** 2 for x in c) >= observed * (1 - 1e-9) for c in shares]
            p += first * chance * sum(w for w, yes in zip(ways, reached, strict=True) if yes) / math.comb(40, others)
    assert people.sum() == n
    assert p == pytest.approx(4.0e-7, rel=0.02)
    draws = NullDraws([open_law(study(n, count, M, cases / n))], [0])
    log_p, error, _ = draws.tail(quadratic_statistic(np.ones(5)), observed * (1 - 1e-9), 4_000)
    assert abs(log_p - math.log(p)) < min(3 * error, math.log(1.7))


def test_scores_of_a_skewed_quantitative_trait_have_the_tails_of_their_residuals():
    rng = np.random.default_rng(3)
    r = np.sort(rng.lognormal(size=4000))
    node = r.reshape(400, 10).mean(axis=1)
    node = (node - node.mean()) / node.std()
    residuals = Residuals(node, np.full(400, 1 / 400))
    count, M = [3, 2, 45], np.array([[1, 0], [1, 1], [0, 1]])
    draws = NullDraws([open_law(study(4000, count, M, residuals=residuals))], [0])
    statistic = quadratic_statistic(np.ones(2))
    ours = np.concatenate([statistic(draws.block(i)) for i in range(50)])
    sums = np.column_stack([node[rng.integers(400, size=(200_000, c))].sum(axis=1) for c in count])
    direct = statistic([sums @ M])
    for level in (0.05, 0.01, 1e-3):
        t = np.quantile(direct, 1 - level)
        q = np.mean(ours >= t)
        assert q == pytest.approx(level, abs=0.06 * level + 4 * math.sqrt(level / ours.size)), level
    # the same tail from normals, as the splitting uses them
    U, kept = draws.scores(rng.standard_normal((100_000, draws.dimension)))
    t = np.quantile(direct, 0.99)
    assert np.mean(statistic(U)[kept] >= t) == pytest.approx(0.01, abs=0.0015)


def test_studies_are_drawn_apart_and_equal_inputs_give_equal_draws():
    parts = [open_law(study(*(PAIRS[0], PAIRS[2], PAIRS[3]), 0.02)) for _ in range(2)]
    one, again = NullDraws(parts, [0, 1]), NullDraws(parts, [0, 1])
    a, b = one.block(0), again.block(0)
    assert np.array_equal(a[0], b[0])
    assert abs(np.corrcoef(a[0][:, 0], a[1][:, 0])[0, 1]) < 0.1
    other = NullDraws(parts, [0, 1], stream=(7,))
    assert not np.array_equal(a[0][:100], other.block(0)[0][:100])


def test_who_needs_draws():
    rare, common = study(2000, [5, 10], np.eye(2), 0.05), study(200_000, [30_000, 30_000], np.eye(2), 0.4)
    assert is_far_from_normal([rare], np.ones(2))
    assert not is_far_from_normal([common], np.ones(2))
    normal = Residuals(stats.norm.ppf((np.arange(2000) + 0.5) / 2000), np.full(2000, 1 / 2000))
    skewed = Residuals(stats.expon.ppf((np.arange(2000) + 0.5) / 2000) - 1, np.full(2000, 1 / 2000))
    assert not is_far_from_normal([study(5000, [40, 40], np.eye(2), residuals=normal)], np.ones(2))
    assert is_far_from_normal([study(5000, [40, 40], np.eye(2), residuals=skewed)], np.ones(2))
    assert not is_far_from_normal([study(10**6, [10**5, 10**5], np.eye(2), residuals=skewed)], np.ones(2))
