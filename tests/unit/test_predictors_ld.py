import itertools

import numpy as np
import pytest
import scipy.sparse as sp

from locomass_predictors.base import PredictorError
from locomass_predictors.ld import (
    compute_ld_scores,
    compute_sparse_r2,
    correlation_from_dosage,
    describe_reference_size,
    shrink_correlation,
    split_blocks,
)
from tests.reference_predictors import best_split_by_enumeration, correlation_by_hand, simulate_haplotype_block


def dosages(rng, n=60, m=9):
    G = simulate_haplotype_block(rng, n, m).astype(np.float32)
    G[rng.random((n, m)) < 0.1] = np.nan
    G[:, 3] = 1.0
    G[:, 5] = np.nan
    G[:, 6] = 0.0
    G[7, 6] = 1.0
    return G


def test_correlation_from_dosage__equals_the_definition(rng):
    G = dosages(rng)
    R = correlation_from_dosage(G)
    assert R.dtype == np.float32
    # float32 storage: 6e-8 rounding
    np.testing.assert_allclose(R, correlation_by_hand(G), atol=2e-7)
    np.testing.assert_array_equal(R, R.T)


def test_correlation_from_dosage__shrinks_off_diagonal_once(rng):
    G = dosages(rng)
    R = correlation_from_dosage(G)
    S = correlation_from_dosage(G, shrink=0.5)
    np.testing.assert_array_equal(np.diag(S), 1)
    off = ~np.eye(9, dtype=bool)
    np.testing.assert_allclose(S[off], 0.5 * R[off], atol=1e-7)


def test_correlation_from_dosage__ignores_order_and_allele_coding(rng):
    G = dosages(rng)
    order = rng.permutation(len(G))
    np.testing.assert_allclose(correlation_from_dosage(G[order]), correlation_from_dosage(G), atol=1e-6)
    H = G.copy()
    H[:, 0] = 2 - H[:, 0]
    sign = np.ones(9)
    sign[0] = -1
    expected = correlation_from_dosage(G) * np.outer(sign, sign)
    np.testing.assert_allclose(correlation_from_dosage(H), expected, atol=1e-6)


def test_correlation_from_dosage__raises_on_one_sample():
    with pytest.raises(PredictorError, match="at least two samples, got shape \\(1, 4\\)"):
        correlation_from_dosage(np.ones((1, 4), dtype=np.float32))


def test_shrink_correlation__raises_outside_unit_interval():
    with pytest.raises(PredictorError, match=r"\[0, 1\], got 1.5"):
        shrink_correlation(np.eye(2), 1.5)


@pytest.mark.parametrize("window", [1, 3, 4, 7, 30])
def test_compute_sparse_r2__equals_dense(rng, window):
    G = simulate_haplotype_block(rng, 80, 23)
    positions = np.sort(rng.integers(0, 10_000, 23))
    found = compute_sparse_r2(
        lambda a, b: G[:, a:b], positions, window=window, max_distance=5_000, threshold=0.02
    ).toarray()
    r2 = correlation_by_hand(G) ** 2
    p, q = np.meshgrid(np.arange(23), np.arange(23), indexing="ij")
    expected = np.where((p < q) & (q - p <= window) & (positions[q] - positions[p] <= 5_000) & (r2 >= 0.02), r2, 0)
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_compute_sparse_r2__handles_no_variant():
    assert compute_sparse_r2(lambda a, b: np.zeros((4, b - a)), np.empty(0, int), window=3).shape == (0, 0)


def test_compute_sparse_r2__raises_on_descending_positions():
    with pytest.raises(PredictorError, match="must ascend"):
        compute_sparse_r2(lambda a, b: np.zeros((4, b - a)), np.array([5, 3]), window=3)


@pytest.mark.parametrize(("min_size", "max_size"), [(1, 3), (2, 4), (3, 5), (4, 12), (1, 12)])
@pytest.mark.parametrize("size_penalty", [0.0, 1e-6, 0.05])
def test_split_blocks__is_the_cheapest_of_all_splits(rng, min_size, max_size, size_penalty):
    r2 = rng.random((12, 12)) ** 4
    r2 = (r2 + r2.T) / 2
    split = split_blocks(r2, min_size=min_size, max_size=max_size, size_penalty=size_penalty)
    cost, _ = best_split_by_enumeration(r2, min_size, max_size, size_penalty)
    sizes = np.diff(split.boundaries)
    assert split.boundaries[0] == 0
    assert split.boundaries[-1] == 12
    assert sizes.min() >= min_size
    assert sizes.max() <= max_size
    assert split.r2_outside + size_penalty * (sizes**2).sum() == pytest.approx(cost, abs=1e-12)
    assert split.r2_total == pytest.approx(r2[np.triu_indices(12, 1)].sum())


def test_split_blocks__finds_true_blocks():
    true = [0, 13, 20, 37, 45]
    r2 = np.zeros((45, 45))
    for a, b in itertools.pairwise(true):
        r2[a:b, a:b] = 0.5
    split = split_blocks(sp.csr_array(r2), min_size=5, max_size=20)
    assert split.boundaries.tolist() == true
    assert split.r2_outside == 0.0


def test_split_blocks__min_size_gives_way_when_nothing_fits():
    # 11 = 6 + 5: no split into blocks of exactly 6..6
    split = split_blocks(np.eye(11), min_size=6, max_size=6)
    assert sorted(np.diff(split.boundaries)) == [5, 6]


@pytest.mark.parametrize("m", [0, 1])
def test_split_blocks__handles_tiny_chromosomes(m):
    split = split_blocks(np.eye(m), min_size=3, max_size=6)
    assert split.boundaries.tolist() == list(range(m + 1))


def test_split_blocks__raises_on_sizes():
    with pytest.raises(PredictorError, match="got min_size 5 and max_size 4"):
        split_blocks(np.eye(3), min_size=5, max_size=4)


def test_compute_ld_scores__equals_the_definition(rng):
    R = correlation_by_hand(simulate_haplotype_block(rng, 200, 6)).astype(np.float32)
    plain = [sum(float(R[j, k]) ** 2 for k in range(6)) for j in range(6)]
    np.testing.assert_allclose(compute_ld_scores(R), plain, rtol=1e-12)
    unbiased = [sum(float(R[j, k]) ** 2 - (1 - float(R[j, k]) ** 2) / 198 for k in range(6)) for j in range(6)]
    np.testing.assert_allclose(compute_ld_scores(R, 200), unbiased, rtol=1e-12)


def test_compute_ld_scores__unbiased_for_independent_variants(rng):
    R = correlation_from_dosage(rng.standard_normal((100, 200)))
    # 200 scores of mean 1, each with sd sqrt(200) * 1.4 / 100 = 0.2
    assert compute_ld_scores(R, 100).mean() == pytest.approx(1.0, abs=0.05)
    assert compute_ld_scores(R).mean() > 2.5
    with pytest.raises(PredictorError, match="at least 3 people"):
        compute_ld_scores(R, 2)


def test_describe_reference_size__warns_below_a_thousand():
    assert "489 people" in describe_reference_size(489)
    assert describe_reference_size(1000) == ""


@pytest.fixture
def rng():
    return np.random.default_rng(4)
