"""Studies laid on their union: kernels against plain loops, the quick way against the general one."""

from __future__ import annotations

import dataclasses
from itertools import product

import numpy as np
import pytest

from locomass.bundle.study import StudyGene
from locomass.genotypes.products import (
    BLOCK_ENTRIES,
    add_information,
    cancel_rounding,
    information_diagonal,
)
from locomass.meta.tasks import GeneRequest
from locomass.meta.union import add_counts
from locomass.meta.unite import _unite_alike, unite_gene

AT = np.array([3, -1, 0, 4])
SIGN = np.array([1.0, 1.0, -1.0, -1.0])


def test_add_information__places_signs_and_leaves_out():
    rng = np.random.default_rng(1)
    A, B = rng.normal(size=(9, 4)), rng.normal(size=(2, 4))
    A[:, 3] = 0.0  # nothing varies
    G = A.T @ A
    row, column = np.tril_indices(4)
    V = np.ones((5, 5))
    expected = V.copy()
    for i, j in product((0, 2), (0, 2)):
        expected[AT[i], AT[j]] += 0.5 * SIGN[i] * SIGN[j] * (G - B.T @ B)[i, j]
    add_information(V, AT, SIGN, 0.5, row.astype(np.int32), column.astype(np.int32), G[row, column], B, 1e-10)
    np.testing.assert_allclose(V, expected, rtol=1e-12)


def test_add_information__by_blocks_equals_the_dense_definition():
    """So many variants that B'B is made in two blocks of rows."""
    rng = np.random.default_rng(2)
    m = 2_300
    assert m**2 > BLOCK_ENTRIES
    G, B = (rng.random((40, m)) < 0.05).astype(float), 0.1 * rng.normal(size=(3, m))
    G[:, 7] = B[:, 7] = 0.0  # nothing varies
    dense = G.T @ G
    row, column = (x.astype(np.int32) for x in np.nonzero(np.tril(dense)))
    place, sign = rng.permutation(m), rng.choice([-1.0, 1.0, 0.8], m)
    place[5] = -1
    V = np.zeros((m, m))
    add_information(V, place, sign, 2.0, row, column, dense[row, column], B, 1e-10)
    kept = np.flatnonzero((np.diag(dense) > (B**2).sum(axis=0)) & (place >= 0))
    expected = np.zeros((m, m))
    K = 2.0 * (dense - B.T @ B) * np.outer(sign, sign)
    expected[np.ix_(place[kept], place[kept])] = K[np.ix_(kept, kept)]
    assert np.abs(V - expected).max() < 1e-12
    np.testing.assert_array_equal(V, V.T)
    diagonal = information_diagonal(row, column, dense[row, column], B, 1e-10)
    np.testing.assert_allclose(diagonal, np.maximum(np.diag(dense) - (B**2).sum(axis=0), 0.0), rtol=1e-12, atol=1e-15)


def test_add_counts__adds_to_what_is_there():
    n_obs = np.array([[9, 10], [9, 10], [9, 0], [9, 20]])
    f = np.array([[0.5, 0.1], [0.5, 0.2], [0.5, np.nan], [0.5, 0.25]])
    count, number = np.full(5, 100.0), np.full(5, 1000.0)
    own = add_counts(n_obs, f, 1, AT, SIGN, count, number)
    np.testing.assert_array_equal(count, [100, 100, 100, 102, 130])  # 40 - 10 of the swapped one
    np.testing.assert_array_equal(number, [1000, 1000, 1000, 1020, 1040])
    np.testing.assert_array_equal(own, [np.nan, np.nan, np.nan, 0.1, 0.75])


def test_cancel_rounding__clears_what_the_subtraction_left():
    V = np.array([[4.0, 1.0, 1e-14], [1.0, 3.0, 2e-14], [1e-14, 2e-14, 1e-13]])
    at = np.array([0, 1, 2, 2], np.int32)
    cancel_rounding(V, at, np.array([0, 1, 0, 2], np.int32), np.array([4.0, 3.0, 0.0, 5.0]), 1e-10)
    np.testing.assert_array_equal(V, [[4, 1, 0], [1, 3, 0], [0, 0, 0]])


def make_gene(position: list[int], ref: str, alt: str) -> StudyGene:
    m = len(position)
    return StudyGene(
        np.array(position), np.array(list(ref), object), np.array(list(alt), object), np.full((m, 1), 5),
        np.full((m, 1), 0.1), np.zeros((m, 1)), np.ones((m, 1)), {},
    )  # fmt: skip


def make_request(position: list[int], ref: str, alt: str) -> GeneRequest:
    k = len(position)
    flags = np.ones(k, np.bool_)
    labels = (np.array(list(text), object) for text in (ref, alt))
    ref_labels, alt_labels = labels
    return GeneRequest(
        gene="g",
        chromosome="1",
        start=1,
        end=9,
        position=np.array(position),
        ref=ref_labels,
        alt=alt_labels,
        member=flags[None],
        columns={},
        owner=flags,
    )


REQUEST = make_request([1, 3, 5, 7], "AAAA", "CGCT")
ALIKE = {
    "all": make_gene([1, 3, 5, 7], "AAAA", "CGCT"),
    "some": make_gene([3, 7], "AA", "GT"),
    "last": make_gene([7], "A", "T"),
}
UNLIKE = {
    "swapped": make_gene([1, 3], "AG", "CA"),
    "unknown": make_gene([1, 4], "AA", "CG"),
    "beyond": make_gene([1, 9], "AA", "CG"),
    "order": make_gene([3, 1], "AA", "GC"),
    "none": make_gene([], "", ""),
}


@pytest.mark.parametrize("gene", ALIKE.values(), ids=ALIKE)
def test_unite_gene__quick_way_is_the_general_one(gene):
    quick = _unite_alike(REQUEST, 2, gene)
    assert quick is not None
    # a second study that has nothing of the gene takes the general way
    general = unite_gene(REQUEST, {2: gene, 3: make_gene([], "", "")})
    for name in ("position", "ref", "alt", "listed"):
        np.testing.assert_array_equal(getattr(quick, name), getattr(general, name))
    for a, b in zip(quick.studies[2][1:], general.studies[2][1:], strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("gene", UNLIKE.values(), ids=UNLIKE)
def test_unite_gene__other_orders_and_alleles_take_the_general_way(gene):
    assert _unite_alike(REQUEST, 0, gene) is None
    union = unite_gene(REQUEST, {0: gene})
    kept = union.studies[0][1] >= 0
    np.testing.assert_array_equal(union.position[union.studies[0][1][kept]], gene.position[kept])
    turned = gene.alt[kept] != REQUEST.alt[np.searchsorted(REQUEST.position, gene.position[kept])]
    np.testing.assert_array_equal(union.studies[0][2][kept] < 0, turned)


def test_unite_gene__several_alleles_at_a_position():
    request = dataclasses.replace(REQUEST, position=np.array([1, 3, 3, 7]))
    union = unite_gene(request, {0: make_gene([3, 7], "AA", "CT")})
    np.testing.assert_array_equal(union.listed, [2, 3])
