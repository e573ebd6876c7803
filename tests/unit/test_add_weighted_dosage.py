"""Scores from packed rows against the sum from its definition."""

from __future__ import annotations

import numpy as np
import pytest

from locomass.genotypes.packed import add_weighted_dosage
from tests.factories import pack_row, random_calls


def pack(calls):
    return np.array([np.frombuffer(pack_row(row), np.uint8) for row in calls])


def score_by_definition(calls, weights):
    """``sum_j w_jk (g_ij - 2 f_j)``; a missing call (negative) and an empty row add nothing."""
    out = np.zeros((calls.shape[1], weights.shape[1]))
    for j, row in enumerate(calls.tolist()):
        seen = [g for g in row if g >= 0]
        for i, g in enumerate(row):
            for k, w in enumerate(weights[j].tolist()):
                out[i, k] += w * (g - sum(seen) / len(seen)) if g >= 0 else 0.0
    return out


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 31, 32, 33, 64, 127, 130])
@pytest.mark.parametrize("n_weights", [1, 2, 3, 7])
def test_add_weighted_dosage__equals_the_definition(n, n_weights):
    rng = np.random.default_rng(n + 1000 * n_weights)
    calls = random_calls(rng, 20, n)
    weights = rng.normal(size=(20, n_weights))
    out = np.zeros((n, n_weights))
    add_weighted_dosage(pack(calls), n, weights, out)
    # sums of 20 terms of order one, in another order
    np.testing.assert_allclose(out, score_by_definition(calls, weights), rtol=0, atol=1e-12)


def test_add_weighted_dosage__adds_to_what_is_there():
    calls = random_calls(np.random.default_rng(5), 12, 50)
    weights = np.ones((12, 2))
    whole, parts = np.zeros((50, 2)), np.zeros((50, 2))
    add_weighted_dosage(pack(calls), 50, weights, whole)
    for rows in (slice(0, 5), slice(5, 12)):
        add_weighted_dosage(pack(calls[rows]), 50, weights[rows], parts)
    np.testing.assert_array_equal(parts, whole)


def test_add_weighted_dosage__ignores_rows_without_a_call():
    calls = np.full((1, 9), -1)
    out = np.zeros((9, 1))
    add_weighted_dosage(pack(calls), 9, np.ones((1, 1)), out)
    assert (out == 0.0).all()
