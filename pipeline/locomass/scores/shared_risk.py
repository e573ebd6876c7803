"""What carriers of a gene's variants share in the risk sets of a time to event: the part of V between two people."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from locomass.genotypes.packed import MISSING
from locomass.null_models.risk_sets import RiskSets
from locomass.numbers import Floats

if TYPE_CHECKING:
    from locomass.scores.genotypes import BatchCarriers

Integers = NDArray[np.int64]


@njit(cache=True, nogil=True)
def gather_entries(
    rows: Integers, indptr: Integers, sample: NDArray[np.int32], dosage: NDArray[Any], imputed: Floats
) -> tuple[Integers, NDArray[np.int32], Floats]:
    """Return the columns of G of chosen variants: where each begins, people, values; missing calls imputed.

    Args:
        rows: (m,) variants as rows of the carrier arrays.
        indptr, sample, dosage: carriers.
        imputed: (variants of the carrier arrays,) dosage that stands for a missing call.
    """
    ends = np.zeros(rows.shape[0] + 1, np.int64)
    for a in range(rows.shape[0]):
        ends[a + 1] = ends[a] + indptr[rows[a] + 1] - indptr[rows[a]]
    people, values = np.empty(ends[-1], np.int32), np.empty(ends[-1])
    for a in range(rows.shape[0]):
        at = ends[a]
        for k in range(indptr[rows[a]], indptr[rows[a] + 1]):
            people[at] = sample[k]
            values[at] = imputed[rows[a]] if dosage[k] == MISSING else float(dosage[k])
            at += 1
    return ends, people, values


def _lists(rows: Integers, carriers: BatchCarriers, s: int) -> tuple[Integers, NDArray[np.int32], Floats]:
    imputed = np.ascontiguousarray(carriers.imputed[:, s])
    return gather_entries(rows.astype(np.int64), carriers.indptr, carriers.sample, carriers.dosage, imputed)


def share_risk_sets(
    risk: RiskSets | None, rows: Integers, carriers: BatchCarriers, s: int
) -> Callable[[int, int], Floats] | None:
    """Return the function that gives rows of what to subtract from G'WG of a gene; None without risk sets.

    Args:
        risk: of the trait.
        rows: the gene's variants as rows of the carrier arrays.
        carriers: of the batch; s: sample set.
    """
    if risk is None:
        return None
    lists = _lists(rows, carriers, s)
    return lambda first, last: risk.pair_block(lists, first, last)


def share_of_variants(risk: RiskSets | None, carriers: BatchCarriers, s: int) -> Floats:
    """Return (v,) what to subtract from the diagonal of G'WG of every variant of a batch."""
    v = len(carriers.indptr) - 1
    if risk is None:
        return np.zeros(v)
    return risk.pair_diagonal(_lists(np.arange(v), carriers, s))


def share_of_burdens(risk: RiskSets | None, S: Floats, sample: Integers) -> Floats:
    """Return (K, K) what to subtract from S'WS of burdens S (a, K) of the people ``sample`` (a,)."""
    K = S.shape[1]
    if risk is None:
        return np.zeros((K, K))
    indptr = np.arange(K + 1, dtype=np.int64) * len(sample)
    lower = risk.pair_block((indptr, np.tile(sample, K).astype(np.int32), np.ascontiguousarray(S.T).ravel()), 0, K)
    return np.asarray(lower + np.tril(lower, -1).T)
