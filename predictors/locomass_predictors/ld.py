"""Linkage disequilibrium: block correlation, where to cut a chromosome into blocks, LD scores.

Correlations are stored unshrunk, in float32; every method applies its own ``shrink`` to the off-diagonal, once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from numba import njit
from numpy.typing import NDArray

from locomass_predictors.base import AnyFloats, Floats, PredictorError

#: ``read(start, stop)`` returns the (n, stop - start) dosages of the variants start..stop-1 of a chromosome.
ReadDosage = Callable[[int, int], AnyFloats]

REFERENCE_WANTED = 2_000
REFERENCE_WARNING = 1_000


def correlation_from_dosage(G: AnyFloats, *, shrink: float = 1.0) -> NDArray[np.float32]:
    """Return the correlation of the columns of G.

    ``R = Z'Z`` with Z the columns centred and scaled to unit length; off-diagonal entries are multiplied by ``shrink``.
    Missing calls are set to the column mean. A column that does not vary correlates with nothing.

    Args:
        G: (n, m) dosages of the effect allele, NaN where missing.
        shrink: factor of the off-diagonal, in [0, 1]; leave it at 1 when the method that reads R shrinks itself.

    Returns:
        (m, m) float32, symmetric, unit diagonal. Products are accumulated in float64.

    Raises:
        PredictorError: G is not a matrix of at least two samples, or shrink lies outside [0, 1].
    """
    Z = standardise_columns(G)
    return shrink_correlation((Z.T @ Z).astype(np.float32), shrink)


def shrink_correlation(R: AnyFloats, shrink: float) -> NDArray[np.float32]:
    """Return ``shrink * R`` with a unit diagonal, symmetric to the last bit.

    Args:
        R: (m, m) correlation.
        shrink: factor of the off-diagonal, in [0, 1].

    Returns:
        (m, m) float32.

    Raises:
        PredictorError: shrink lies outside [0, 1].
    """
    if not 0.0 <= shrink <= 1.0:
        raise PredictorError(f"shrink must lie in [0, 1], got {shrink}")
    out = (0.5 * np.float32(shrink)) * (R + R.T).astype(np.float32)
    np.fill_diagonal(out, np.float32(1.0))
    return out


def standardise_columns(G: AnyFloats) -> Floats:
    """Return G with missing calls at the mean and columns centred to mean 0 and scaled to length 1.

    Args:
        G: (n, m) dosages, NaN where missing.

    Returns:
        (n, m) float64; a column without variation is all zero.

    Raises:
        PredictorError: G is not two-dimensional or has fewer than two rows.
    """
    Z = centre_columns(G)
    length = np.sqrt(np.einsum("ij,ij->j", Z, Z))
    # a singleton has length near 1 whatever n; what rounding leaves of a constant column is 1e-16 sqrt(n)
    varies = length > 1e-8 * np.sqrt(Z.shape[0])
    Z *= np.where(varies, 1.0 / np.where(varies, length, 1.0), 0.0)
    return Z


def centre_columns(G: AnyFloats) -> Floats:
    """Return G minus its column means, missing calls at the mean.

    Args:
        G: (n, m) dosages, NaN where missing.

    Returns:
        (n, m) float64; a column without any call is all zero.

    Raises:
        PredictorError: G is not two-dimensional or has fewer than two rows.
    """
    if G.ndim != 2 or G.shape[0] < 2:
        raise PredictorError(f"dosages must be (samples, variants) with at least two samples, got shape {G.shape}")
    Z = np.array(G, dtype=np.float64)
    missing = np.isnan(Z)
    Z[missing] = 0.0
    Z -= Z.sum(axis=0) / np.maximum(Z.shape[0] - missing.sum(axis=0), 1)
    Z[missing] = 0.0
    return Z


def describe_reference_size(n: int) -> str:
    """Return a warning when the LD reference has fewer than 1,000 people, else an empty text."""
    if n >= REFERENCE_WARNING:
        return ""
    return (
        f"the LD reference has {n:,} people; correlations are noisy below {REFERENCE_WARNING:,} and "
        f"{REFERENCE_WANTED:,} or more are wanted: use a larger reference of the same ancestry if there is one"
    )


def compute_sparse_r2(
    read: ReadDosage,
    positions: NDArray[np.integer[Any]],
    *,
    window: int,
    max_distance: int = 3_000_000,
    threshold: float = 0.02,
) -> sp.csc_array:
    """Return the squared correlations of a chromosome that count for splitting it.

    Args:
        read: ``read(start, stop)`` gives (n, stop - start) dosages, NaN where missing; called once for each stretch of
            ``window`` variants, of which two are in memory at a time.
        positions: (m,) base-pair positions, ascending.
        window: pairs more than this many variants apart are left out.
        max_distance: pairs more than this many base pairs apart are left out.
        threshold: r2 below this is noise and is left out; sampling alone gives 1/n on average.

    Returns:
        (m, m) sparse, strict upper triangle: entry (p, q), p < q, is r2.

    Raises:
        PredictorError: positions descend, or window is below 1.
    """
    m = positions.shape[0]
    if window < 1 or (np.diff(positions) < 0).any():
        raise PredictorError("positions must ascend and window must be at least 1; sort the variants of the chromosome")
    entries = [(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))]
    before: Floats | None = None
    for start in range(0, m, window):
        here = standardise_columns(read(start, min(start + window, m)))
        entries.append(_find_strong_pairs(here, start, here, start, threshold))
        if before is not None:
            entries.append(_find_strong_pairs(before, start - window, here, start, threshold))
        before = here
    p, q, r2 = (np.concatenate(parts) for parts in zip(*entries, strict=True))
    keep = (p < q) & (q - p <= window) & (positions[q] - positions[p] <= max_distance)
    return sp.csc_array((r2[keep], (p[keep], q[keep])), shape=(m, m))


def _find_strong_pairs(
    Z1: Floats, start1: int, Z2: Floats, start2: int, threshold: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
    """Return the pairs of two stretches with r2 at the threshold or above, and their r2."""
    r2 = np.square(Z1.T @ Z2)
    p, q = np.nonzero(r2 >= threshold)
    return p + start1, q + start2, r2[p, q]


@dataclass(frozen=True, slots=True)
class BlockSplit:
    """Where a chromosome is cut.

    Attributes:
        boundaries: (K + 1,) first variant of each block, then m; block k is ``boundaries[k]:boundaries[k + 1]``.
        r2_outside: sum of r2 over pairs that lie in different blocks: what the split throws away.
        r2_total: sum of r2 over all pairs.
    """

    boundaries: NDArray[np.int64]
    r2_outside: float
    r2_total: float


def split_blocks(r2: sp.sparray | AnyFloats, *, min_size: int, max_size: int, size_penalty: float = 1e-6) -> BlockSplit:
    """Cut a chromosome into consecutive blocks so that the least r2 lies outside them.

    Minimises ``sum_{p<q, block(p) != block(q)} r2[p, q] + size_penalty * sum_blocks size^2`` over all cuts with
    ``min_size <= size <= max_size`` by dynamic programming,
    ``C(j) = min_i C(i) + sum_{i <= p < j <= q} r2[p, q] + size_penalty (j - i)^2``, in O(m max_size).
    The small penalty makes blocks short where cutting is free. When no number of blocks fits both sizes, min_size
    gives way.

    Args:
        r2: (m, m) squared correlations, sparse or dense; only the strict upper triangle is read.
        min_size: fewest variants in a block.
        max_size: most variants in a block.
        size_penalty: price of a squared variant, in units of r2.

    Returns:
        The cut and what it costs.

    Raises:
        PredictorError: the sizes are not ``1 <= min_size <= max_size``.

    Source: Prive (2022), Optimal linkage disequilibrium splitting, Bioinformatics 38:255.
    """
    if not 1 <= min_size <= max_size:
        raise PredictorError(f"expected 1 <= min_size <= max_size, got min_size {min_size} and max_size {max_size}")
    upper = sp.csc_array(sp.triu(sp.csc_array(r2), k=1))
    upper.sort_indices()
    m = upper.shape[0]
    if m == 0:
        return BlockSplit(np.zeros(1, dtype=np.int64), 0.0, 0.0)
    fewest_blocks = -(-m // max_size)
    smallest = min(min_size, m // fewest_blocks)
    values = upper.data.astype(np.float64)
    beyond = np.asarray(upper.sum(axis=1), dtype=np.float64).ravel()
    previous = _best_cuts(upper.indptr, upper.indices, values, beyond, smallest, max_size, size_penalty)
    cuts = [m]
    while cuts[-1] > 0:
        cuts.append(int(previous[cuts[-1]]))
    boundaries = np.array(cuts[::-1], dtype=np.int64)
    block = np.repeat(np.arange(boundaries.size - 1), np.diff(boundaries))
    entries = upper.tocoo()
    outside = float(values[block[entries.row] != block[entries.col]].sum())
    return BlockSplit(boundaries, outside, float(values.sum()))


@njit(cache=True, nogil=True)
def _best_cuts(indptr, indices, values, beyond, min_size, max_size, size_penalty):  # type: ignore[no-untyped-def]
    """Return (m + 1,) the start of the last block of the best split of the first j variants.

    ``beyond[p]`` enters as the r2 of p with all later variants and is lowered, column by column, to the r2 of p
    with variants from j on.
    """
    m = beyond.size
    cost = np.full(m + 1, np.inf)
    cost[0] = 0.0
    previous = np.full(m + 1, -1, dtype=np.int64)
    for j in range(1, m + 1):
        # variants 0..j-1 lie before the cut at j; the pairs (p, j - 1) no longer cross it
        for k in range(indptr[j - 1], indptr[j]):
            beyond[indices[k]] -= values[k]
        crossing = 0.0
        for i in range(j - 1, max(j - max_size, 0) - 1, -1):
            crossing += max(beyond[i], 0.0)
            size = j - i
            total = cost[i] + crossing + size_penalty * size * size
            if size >= min_size and total < cost[j]:
                cost[j] = total
                previous[j] = i
    return previous


def compute_ld_scores(R: AnyFloats, n_reference: int | None = None) -> Floats:
    """Return the LD score of each variant of a block, ``l_j = sum_k r2_jk``, the variant itself included.

    Args:
        R: (m, m) correlation.
        n_reference: people behind R; when given, each r2 is made unbiased, ``r2 - (1 - r2)/(n - 2)``.

    Returns:
        (m,) LD scores.

    Raises:
        PredictorError: n_reference is below 3.

    Source: Bulik-Sullivan et al. (2015), LD score regression, Nat Genet 47:291.
    """
    r2 = np.square(R, dtype=np.float64)
    if n_reference is not None:
        if n_reference < 3:
            raise PredictorError(f"LD scores need at least 3 people in the reference, got {n_reference}")
        r2 -= (1.0 - r2) / (n_reference - 2)
    return np.asarray(r2.sum(axis=1))
