"""Cox's null model, residuals and information of scores against the dense definition: ties, late entry, strata."""

from __future__ import annotations

import numpy as np
import pytest

from locomass.errors import StatisticsError
from locomass.follow_up import FollowUp
from locomass.null_models.cox import fit_cox
from locomass.null_models.design import orthonormal_design
from locomass.null_models.risk_sets import BINS
from tests import reference_cox

N = 300
NO_LOCO, NO_OFFSET = np.empty((N, 0)), np.zeros(N)


def draw(rng, *, ties, late, strata, rate=0.4):
    """Return follow-up, covariates (n, 3, constant first) and genotypes (n, 12)."""
    X = np.column_stack([np.ones(N), rng.normal(50, 10, N), rng.integers(0, 2, N)])
    stratum = rng.integers(0, strata, N)
    hazard = np.exp(0.02 * (X[:, 1] - 50) + 0.5 * X[:, 2]) * (1.0 + stratum)
    failure, censored = rng.exponential(1 / hazard), rng.exponential((1 - rate) / rate, N) + 0.01
    exit, event = np.minimum(failure, censored), failure <= censored
    if ties:
        exit = np.ceil(exit * ties) / ties
    entry = np.full(N, -np.inf)
    if late:
        entry = np.where(rng.random(N) < 0.6, exit * rng.uniform(0, 0.9, N), -np.inf)
    G = rng.binomial(2, rng.choice([0.005, 0.02, 0.3], 12), (N, 12)).astype(float)
    return FollowUp(entry, exit, event, stratum), X, G


def basis(X):
    return orthonormal_design(X, np.ones(len(X)), [str(j) for j in range(X.shape[1])])


def information(fit, G):
    """Return V as the product makes it."""
    lists = sparse(G)
    m = G.shape[1]
    left = fit.risk.pair_block(lists, 0, m)
    left = left + np.tril(left, -1).T
    B = fit.Z.T @ G
    return G.T @ (fit.weight[:, None] * G) - left - B.T @ B, left


def sparse(G):
    people = [np.flatnonzero(g) for g in G.T]
    indptr = np.concatenate(([0], np.cumsum([p.size for p in people])))
    return (
        indptr,
        np.concatenate(people).astype(np.int32),
        np.concatenate([g[p] for g, p in zip(G.T, people, strict=True)]),
    )


ZOO = [
    {"ties": 0, "late": False, "strata": 1},
    {"ties": 8, "late": False, "strata": 1},
    {"ties": 0, "late": True, "strata": 1},
    {"ties": 8, "late": True, "strata": 3},
    {"ties": 40, "late": True, "strata": 2},
    {"ties": 0, "late": True, "strata": 4, "rate": 0.1},
]


@pytest.mark.parametrize("kind", ZOO, ids=str)
@pytest.mark.parametrize("role", ["none", "covariate", "offset"])
def test_score_test__is_that_of_coxph(kind, role):
    rng = np.random.default_rng(5)
    follow_up, X, G = draw(rng, **kind)
    prediction = 0.5 * rng.normal(size=N) + 0.3 * (follow_up.event - 0.5)
    F = prediction[:, None] if role == "covariate" else NO_LOCO
    offset = prediction if role == "offset" else NO_OFFSET
    fit = fit_cox(follow_up, basis(X), F, offset)
    own = (follow_up.entry, follow_up.exit, follow_up.event, follow_up.stratum)
    centred = np.column_stack([(X[:, 1] - 50) / 10, X[:, 2], F])
    U, V = reference_cox.score_test(*own, centred, G, offset)
    found, _ = information(fit, G)
    np.testing.assert_allclose(G.T @ fit.residual, U, atol=1e-8 * np.sqrt(V.diagonal().max()))
    np.testing.assert_allclose(found, V, atol=1e-8 * V.diagonal().max())
    b, covariance = reference_cox.fit(*own, centred, offset)
    eta = centred @ b + offset
    np.testing.assert_allclose(fit.residual, reference_cox.martingale_residuals(*own, eta), atol=1e-9)
    assert fit.mu is fit.weight
    if role == "covariate":
        assert fit.slope[0] == pytest.approx(b[-1], rel=1e-8)
        assert fit.slope_se[0] == pytest.approx(covariance[-1, -1] ** 0.5, rel=1e-8)
    if role != "none":
        plain = reference_cox.fit(*own, centred[:, :2], NO_OFFSET)[0]
        gain = reference_cox.log_likelihood(*own, eta) - reference_cox.log_likelihood(*own, centred[:, :2] @ plain)
        assert fit.r2 == pytest.approx(1 - np.exp(-2 * gain / follow_up.event.sum()), abs=1e-9)


def test_pairs__are_few_and_those_of_one_bin():
    follow_up, X, _ = draw(np.random.default_rng(2), ties=0, late=False, strata=1)
    fit = fit_cox(follow_up, basis(X), NO_LOCO, NO_OFFSET)
    alone = np.eye(N)[:, :60]  # one carrier each
    _, left = information(fit, alone)
    assert fit.Z.shape[1] <= 2 + BINS
    bins = np.searchsorted(fit.risk.edges, fit.risk.end[:60], side="left")
    np.testing.assert_array_equal(left[bins[:, None] != bins], 0.0)
    assert (np.abs(left) > 0).mean() < 0.15


def test_pairs__blocks_are_rows_of_the_whole():
    follow_up, X, G = draw(np.random.default_rng(3), ties=20, late=True, strata=2)
    fit = fit_cox(follow_up, basis(X), NO_LOCO, NO_OFFSET)
    whole = fit.risk.pair_block(sparse(G), 0, 12)
    np.testing.assert_allclose(fit.risk.pair_block(sparse(G), 5, 9), whole[5:9, :9], rtol=1e-9, atol=1e-13)


def test_fit__starts_from_another_chromosome():
    rng = np.random.default_rng(7)
    follow_up, X, _ = draw(rng, ties=0, late=False, strata=2)
    F = rng.normal(size=(N, 1))
    first = fit_cox(follow_up, basis(X), F, NO_OFFSET)
    other = F + 0.05 * rng.normal(size=(N, 1))
    warm, cold = (fit_cox(follow_up, basis(X), other, NO_OFFSET, start) for start in (first, None))
    np.testing.assert_allclose(warm.residual, cold.residual, atol=1e-10)
    assert warm.slope == pytest.approx(cold.slope, rel=1e-9)


def test_fit__times_matter_by_their_order_only():
    follow_up, X, _ = draw(np.random.default_rng(8), ties=30, late=True, strata=2)
    other = FollowUp(
        np.exp(3 * follow_up.entry) + 1, np.exp(3 * follow_up.exit) + 1, follow_up.event, follow_up.stratum
    )
    a, b = (fit_cox(x, basis(X), NO_LOCO, NO_OFFSET) for x in (follow_up, other))
    np.testing.assert_allclose(a.residual, b.residual, atol=1e-11)


@pytest.mark.parametrize(("events", "words"), [(0, "no events"), (1, "one event")])
def test_fit__raises_on_too_few_events(events, words):
    follow_up, X, _ = draw(np.random.default_rng(1), ties=0, late=False, strata=1)
    event = np.zeros(N, bool)
    event[:events] = True
    with pytest.raises(StatisticsError, match=words):
        fit_cox(FollowUp(follow_up.entry, follow_up.exit, event, follow_up.stratum), basis(X), NO_LOCO, NO_OFFSET)


def test_fit__raises_on_a_covariate_that_separates_the_events():
    follow_up, X, _ = draw(np.random.default_rng(1), ties=0, late=False, strata=1)
    X = np.column_stack([X, follow_up.event])
    with pytest.raises(StatisticsError, match="separates"):
        fit_cox(follow_up, basis(X), NO_LOCO, NO_OFFSET)


def test_fit__constant_within_strata_is_left_out():
    follow_up, X, _ = draw(np.random.default_rng(1), ties=0, late=False, strata=2)
    more = np.column_stack([X, follow_up.stratum])
    a, b = (fit_cox(follow_up, basis(x), NO_LOCO, NO_OFFSET) for x in (X, more))
    np.testing.assert_allclose(a.residual, b.residual, atol=1e-10)
    assert a.Z.shape == b.Z.shape
