"""Score vectors and information matrices from carriers: one pass gives U for all traits, B, and sparse G'WG.

Symbols: G (n, m) counts of the counted allele, missing calls replaced by ``imputed``; C (n, q) columns to project on
(residuals of every trait, orthonormal covariates); W = diag(w). Only carriers are visited.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from locomass.genotypes.packed import MISSING
from locomass.numbers import Floats

BLOCK_ENTRIES = 1 << 22  # of a block of B'B


@njit(cache=True, nogil=True)
def project_columns(
    indptr: NDArray[np.int64],
    sample: NDArray[np.int32],
    dosage: NDArray[Any],
    columns: Floats,
    column_set: NDArray[np.int64],
    imputed: Floats,
) -> Floats:
    """Return G'C, every column with the imputed value of its own sample set.

    Args:
        indptr, sample, dosage: carriers of m variants.
        columns: (n, q) C, zero outside the sample set of each column.
        column_set: (q,) the sample set that each column belongs to.
        imputed: (m, S) dosage that stands for a missing call, per sample set.

    Returns:
        (m, q) ``sum_i g_ij C_iq``.
    """
    m = indptr.shape[0] - 1
    q = columns.shape[1]
    out = np.zeros((m, q))
    missing = np.empty(q)
    for j in range(m):
        missing[:] = 0.0
        any_missing = False
        row = out[j]
        for k in range(indptr[j], indptr[j + 1]):
            d = dosage[k]
            values = columns[sample[k]]
            if d == 1:
                for c in range(q):
                    row[c] += values[c]
            elif d == MISSING:
                any_missing = True
                for c in range(q):
                    missing[c] += values[c]
            else:
                for c in range(q):
                    row[c] += d * values[c]
        if any_missing:
            for c in range(q):
                row[c] += imputed[j, column_set[c]] * missing[c]
    return out


@njit(cache=True, nogil=True)
def cross_products(
    rows: NDArray[np.int64],
    indptr: NDArray[np.int64],
    sample: NDArray[np.int32],
    dosage: NDArray[Any],
    weight: Floats,
    imputed: Floats,
    head: NDArray[np.int32],
    first: int,
    last: int,
) -> Floats:
    """Return rows ``first:last`` of the lower triangle of G'WG for the variants of one gene.

    Every sample keeps a chain of the variants it carries, in the order of the variants; a new carrier walks its
    sample's chain. The cost is the number of pairs of variants that share a carrier.

    Args:
        rows: (m,) the gene's variants as rows of the carrier arrays.
        indptr, sample, dosage: carriers.
        weight: (n,) diagonal of W, zero outside the sample set.
        imputed: (variants of the carrier arrays,) dosage that stands for a missing call.
        head: (n,) scratch, all -1 on entry and on exit.
        first, last: the block of rows wanted; a huge gene is done block by block.

    Returns:
        (last - first, last) dense block; entry [a, i] is ``sum_s w_s g_s,first+a g_si`` for i <= first + a.
    """
    total = 0
    for a in range(last):
        total += indptr[rows[a] + 1] - indptr[rows[a]]
    chain_next = np.empty(total, np.int32)
    chain_variant = np.empty(total, np.int32)
    chain_value = np.empty(total)
    out = np.zeros((last - first, last))
    used = 0
    for a in range(last):
        j = rows[a]
        for k in range(indptr[j], indptr[j + 1]):
            s = sample[k]
            w = weight[s]
            if w == 0.0:
                continue
            g = imputed[j] if dosage[k] == MISSING else float(dosage[k])
            if a >= first:
                line = out[a - first]
                wg = w * g
                line[a] += wg * g
                at = head[s]
                while at >= 0:
                    line[chain_variant[at]] += wg * chain_value[at]
                    at = chain_next[at]
            chain_next[used] = head[s]
            chain_variant[used] = a
            chain_value[used] = g
            head[s] = used
            used += 1
    for a in range(last):
        j = rows[a]
        for k in range(indptr[j], indptr[j + 1]):
            head[sample[k]] = -1
    return out


@njit(cache=True, nogil=True)
def compress_lower(block: Floats, first: int) -> tuple[NDArray[np.int32], NDArray[np.int32], Floats]:
    """Return (row, column, value) of the non-zero entries of a block of a lower triangle, row by row."""
    count = 0
    for a in range(block.shape[0]):
        for i in range(first + a + 1):
            count += block[a, i] != 0.0
    row = np.empty(count, np.int32)
    column = np.empty(count, np.int32)
    value = np.empty(count)
    at = 0
    for a in range(block.shape[0]):
        for i in range(first + a + 1):
            if block[a, i] != 0.0:
                row[at] = first + a
                column[at] = i
                value[at] = block[a, i]
                at += 1
    return row, column, value


def sparse_cross_products(
    rows: NDArray[np.int64],
    carriers: tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int8]],
    weight: Floats,
    imputed: Floats,
    head: NDArray[np.int32],
    max_block_bytes: int = 64 * 2**20,
    less: Callable[[int, int], Floats] | None = None,
) -> tuple[NDArray[np.int32], NDArray[np.int32], Floats]:
    """Return the sparse lower triangle of G'WG of one gene, (row, column, value), in bounded memory.

    ``less(first, last)`` is what to subtract from its rows first:last, (last - first, last).
    """
    m = rows.shape[0]
    step = max(1, max_block_bytes // (8 * max(m, 1)))
    parts = []
    for first in range(0, m, step):
        last = min(m, first + step)
        block = cross_products(rows, *carriers, weight, imputed, head, first, last)
        if less is not None:
            block -= less(first, last)
        parts.append(compress_lower(block, first))
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0)
    row, column, value = zip(*parts, strict=True)
    return np.concatenate(row), np.concatenate(column), np.concatenate(value)


@njit(cache=True, nogil=True)
def information_matrix(m: int, row: NDArray[np.int32], column: NDArray[np.int32], value: Floats, B: Floats) -> Floats:
    """Return the dense information matrix ``V = G'WG - B'B``.

    Args:
        m: number of variants.
        row, column, value: sparse lower triangle of G'WG (m, m).
        B: (p, m) ``(X'WX)^(-1/2) X'WG``.

    Returns:
        (m, m) symmetric V; the diagonal of a monomorphic variant is exactly zero.
    """
    V = -(B.T @ B)
    for k in range(row.shape[0]):
        V[row[k], column[k]] += value[k]
        if row[k] != column[k]:
            V[column[k], row[k]] += value[k]
    return V


@njit(cache=True, nogil=True)
def information_diagonal(
    row: NDArray[np.int32], column: NDArray[np.int32], value: Floats, B: Floats, rounding: float
) -> Floats:
    """Return (m,) ``(G'WG - B'B)_jj``, zero where it is at most ``rounding`` times ``(G'WG)_jj``.

    Args:
        row, column, value: sparse lower triangle of G'WG (m, m).
        B: (p, m).
        rounding: such a variant is constant given the covariates, and what the subtraction leaves is no variance.
    """
    square, rest = np.zeros(B.shape[1]), np.zeros(B.shape[1])
    for k in range(row.shape[0]):
        if row[k] == column[k]:
            square[row[k]] += value[k]
    for p in range(B.shape[0]):
        for j in range(B.shape[1]):
            rest[j] += B[p, j] ** 2
    for j in range(B.shape[1]):
        rest[j] = square[j] - rest[j]
        if rest[j] <= rounding * square[j]:
            rest[j] = 0.0
    return rest


@njit(cache=True, nogil=True)
def add_information(
    V: Floats,
    place: NDArray[np.int64],
    sign: Floats,
    scale: float,
    row: NDArray[np.int32],
    column: NDArray[np.int32],
    value: Floats,
    B: Floats,
    rounding: float,
) -> None:
    """Add ``scale (G'WG - B'B)`` of one study to the matrix of all studies; B'B is made block by block of rows.

    Args:
        V: (u, u) on the union of variants; changed in place.
        place: (m,) row of each variant in V, -1 to leave it out.
        sign: (m,) factor of each variant: -1 where the other allele is counted, else +1.
        scale: 1 / sigma2.
        row, column, value: sparse lower triangle of G'WG (m, m).
        B: (p, m).
        rounding: a variant whose variance is at most this share of its G'WG is constant given the covariates: left out.
    """
    kept = np.flatnonzero((information_diagonal(row, column, value, B, rounding) > 0.0) & (place >= 0))
    n, p = kept.shape[0], B.shape[0]
    number = np.full(place.shape[0], -1, np.int64)
    D = np.empty((n, p))
    for i in range(n):
        number[kept[i]] = i
        for c in range(p):
            D[i, c] = sign[kept[i]] * B[c, kept[i]]
    step = max(1, BLOCK_ENTRIES // max(n, 1))
    for first in range(0, n, step):
        last = min(n, first + step)
        block = D[first:last] @ D[:last].T
        for i in range(first, last):
            for j in range(i + 1):
                x = scale * block[i - first, j]
                V[place[kept[i]], place[kept[j]]] -= x
                if i != j:
                    V[place[kept[j]], place[kept[i]]] -= x
    for k in range(row.shape[0]):
        i, j = row[k], column[k]
        if number[i] >= 0 and number[j] >= 0:
            x = scale * sign[i] * sign[j] * value[k]
            V[place[i], place[j]] += x
            if i != j:
                V[place[j], place[i]] += x


@njit(cache=True, nogil=True)
def diagonals_of_genes(
    n_traits: NDArray[np.int64],
    sigma2: Floats,
    variants: NDArray[np.int64],
    entries: NDArray[np.int64],
    row: NDArray[np.int32],
    column: NDArray[np.int32],
    value: Floats,
    projections: NDArray[np.int64],
    B: Floats,
    own: NDArray[np.int64],
    b: Floats,
) -> tuple[Floats, Floats]:
    """Return ``V_jj = (G'WG - B'B - b_t'b_t)_jj / sigma2_t`` of the variants j of many genes k, and G'WG_jj / sigma2_t.

    Args:
        n_traits: (K,) T_k.
        sigma2: (sum_k T_k,) gene by gene.
        variants, entries, projections, own: (K + 1,) where each gene begins in its variants, and in the arrays below.
        row, column, value: sparse lower triangles of G'WG.
        B: (p_k, m_k) of each gene, row by row; b: (T_k, q_k, m_k) of each gene.

    Returns:
        two arrays of length ``sum_k T_k m_k``: gene by gene, trait by trait, variant by variant.
    """
    total = 0
    for k in range(n_traits.shape[0]):
        total += n_traits[k] * (variants[k + 1] - variants[k])
    V, squares = np.empty(total), np.empty(total)
    at = first = 0
    for k in range(n_traits.shape[0]):
        m = variants[k + 1] - variants[k]
        square, rest = np.zeros(m), np.zeros(m)
        for e in range(entries[k], entries[k + 1]):
            if row[e] == column[e]:
                square[row[e]] += value[e]
        for e in range(projections[k], projections[k + 1]):
            rest[(e - projections[k]) % m] += B[e] ** 2
        size = (own[k + 1] - own[k]) // n_traits[k]
        for t in range(n_traits[k]):
            for j in range(m):
                V[at + j] = square[j] - rest[j]
                squares[at + j] = square[j] / sigma2[first + t]
            start = own[k] + t * size
            for e in range(start, start + size):
                V[at + (e - start) % m] -= b[e] ** 2
            for j in range(m):
                V[at + j] /= sigma2[first + t]
            at += m
        first += n_traits[k]
    return V, squares


@njit(cache=True, nogil=True)
def burden_variances(W: Floats, row: NDArray[np.int32], column: NDArray[np.int32], value: Floats, B: Floats) -> Floats:
    """Return ``w'(G'WG - B'B)w`` of several weight vectors, zero where rounding is all that is left.

    Args:
        W: (m, c) weights, one column per burden.
        row, column, value: sparse lower triangle of G'WG (m, m).
        B: (p, m).
    """
    m, n = W.shape
    out = np.zeros(n)
    squares = np.zeros(n)
    for k in range(row.shape[0]):
        twice = 1.0 if row[k] == column[k] else 2.0
        for c in range(n):
            out[c] += twice * value[k] * W[row[k], c] * W[column[k], c]
            if row[k] == column[k]:
                squares[c] += value[k] * W[row[k], c] ** 2
    for p in range(B.shape[0]):
        for c in range(n):
            s = 0.0
            for j in range(m):
                s += B[p, j] * W[j, c]
            out[c] -= s * s
    for c in range(n):
        if out[c] <= 1e-10 * squares[c]:
            out[c] = 0.0
    return out


@njit(cache=True, nogil=True)
def weighted_squares(
    indptr: NDArray[np.int64],
    sample: NDArray[np.int32],
    dosage: NDArray[Any],
    weight: Floats,
    imputed: Floats,
) -> Floats:
    """Return the diagonal of G'WG for several W.

    Args:
        indptr, sample, dosage: carriers of m variants.
        weight: (n, k) diagonals of W.
        imputed: (m, k) dosage that stands for a missing call.

    Returns:
        (m, k) ``sum_i w_ik g_ij^2``.
    """
    m = indptr.shape[0] - 1
    k = weight.shape[1]
    out = np.zeros((m, k))
    for j in range(m):
        for at in range(indptr[j], indptr[j + 1]):
            d = dosage[at]
            w = weight[sample[at]]
            for c in range(k):
                g = imputed[j, c] if d == MISSING else float(d)
                out[j, c] += w[c] * g * g
    return out


@njit(cache=True, nogil=True)
def cancel_rounding(V: Floats, row: NDArray[np.int32], column: NDArray[np.int32], value: Floats, share: float) -> None:
    """Zero, in place, the rows and columns of V whose diagonal is at most ``share`` of that of G'WG.

    Such a variant is constant given the covariates, and what the subtraction left of its variance is rounding.

    Args:
        V: (m, m) ``G'WG - B'B``.
        row, column, value: sparse lower triangle of G'WG.
        share: see above.
    """
    m = V.shape[0]
    square = np.zeros(m)
    for k in range(row.shape[0]):
        if row[k] == column[k]:
            square[row[k]] = value[k]
    for j in range(m):
        if V[j, j] <= share * square[j]:
            V[j, :] = 0.0
            V[:, j] = 0.0
