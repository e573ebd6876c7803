"""Dense rows of any format to carriers and to dosages, so that all formats count the same allele of the same calls.

A row is the A1 dosage of every sample of the file: int8 for calls (-1 for a missing one), float32 for imputed ones
(NaN for a missing one).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from locomass.genotypes.base import CarrierLists, Integers, People, join_carriers
from locomass.numbers import Floats

#: a dosage so near to a whole number is a call, on a variant whose minor allele is rarer than `RARE`
CALL_DISTANCE = np.float32(0.1)
RARE = 0.01
BLOCK_BYTES = 16 << 20  # of dense rows at a time
_Lists = tuple[NDArray[np.int64], NDArray[np.int32], NDArray[Any], NDArray[np.bool_]]


def find_carriers(calls: NDArray[np.int8], people: People) -> CarrierLists:
    """Return the carriers of dense calls.

    Args:
        calls: (m, N) A1 counts 0, 1, 2, -1 for a missing call.
        people: (N,) index of each sample among the wanted ones, -1 where it is left out.

    The counted allele is A1 unless more than half of the N samples have it or no call.
    """
    return CarrierLists(*_call_carriers(calls, people))


def find_dosage_carriers(dosage: NDArray[np.float32], people: People) -> CarrierLists:
    """Return the carriers of dense dosages; see `find_carriers`.

    Args:
        dosage: (m, N) A1 dosages in 0..2, NaN missing.
        people: (N,) index of each sample among the wanted ones, -1 where it is left out.

    On a rare variant a dosage within 0.1 of a whole number is a call, so that its carriers stay few; on others every
    dosage is taken as it is.
    """
    return CarrierLists(*_dosage_carriers(dosage, people))


def measure_quality(indptr: Integers, dosage: NDArray[Any], n: int) -> tuple[Floats, Floats]:
    """Return the share of missing calls, and how far dosages vary as calls would: ``var(d) / (2 f (1 - f))``.

    Args:
        indptr: (m + 1,) where each variant's carriers begin.
        dosage: of the carriers, negative where missing; of everybody else it is 0.
        n: samples.

    Returns:
        (m,) each. The second is 1 for calls (int8), and where nothing varies.
    """
    m = len(indptr) - 1
    row = np.repeat(np.arange(m), np.diff(indptr))
    seen = dosage >= 0
    share = np.bincount(row[~seen], minlength=m) / n
    if dosage.dtype == np.int8:
        return share, np.ones(m)
    d = dosage[seen].astype(np.float64)
    n_seen = np.maximum(n * (1 - share), 1)
    mean, square = (np.bincount(row[seen], weights=x, minlength=m) / n_seen for x in (d, d**2))
    expected = mean * (1 - mean / 2)
    return share, np.divide(square - mean**2, expected, out=np.ones(m), where=expected > 0)


def find_fractions(indptr: Integers, dosage: NDArray[Any]) -> NDArray[np.bool_]:
    """Return (m,) which variants have a dosage that is not a whole number."""
    if dosage.dtype == np.int8:
        return np.zeros(len(indptr) - 1, np.bool_)
    row = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
    return np.bincount(row[dosage != np.rint(dosage)], minlength=len(indptr) - 1) > 0


def fill_dosage(
    dosage: NDArray[np.float32], people: People, n_wanted: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return (m, n_wanted) dosages with missing ones at the row's mean, and (m,) A1 frequencies.

    Args:
        dosage: (m, N) A1 dosages, NaN missing.
        people: (N,) index of each sample among the wanted ones, -1 where it is left out.
        n_wanted: number of wanted samples.

    Returns:
        Dosages, and frequencies: NaN where every call is missing (the row is then zero).
    """
    out = np.empty((len(dosage), n_wanted), np.float32)
    return out, _fill(dosage, people, out)


class DenseRows(ABC):
    """Chosen variants of a format that has only dense rows: all that is asked of them, from `read` alone."""

    n_samples: int

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def take(self, start: int, stop: int) -> DenseRows:
        """Return variants ``start:stop`` of these."""

    @abstractmethod
    def read(self) -> NDArray[np.float32]:
        """Read (m, N) dosages of A1, NaN missing."""

    def _blocks(self) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        step = max(1, BLOCK_BYTES // (4 * self.n_samples))
        for start in range(0, len(self), step):
            cut = slice(start, min(start + step, len(self)))
            yield cut, self.take(cut.start, cut.stop).read()

    def carriers(self, people: People) -> CarrierLists:
        """See `GenotypeRows`; calls where every dosage is a whole number."""
        pieces = [find_dosage_carriers(block, people) for _, block in self._blocks()]
        joined = join_carriers(pieces)
        whole = bool(np.all(joined.dosage == np.rint(joined.dosage)))
        return joined._replace(dosage=joined.dosage.astype(np.int8)) if whole else joined

    def dosage(self, people: People, n_wanted: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """See `GenotypeRows`."""
        out, frequency = np.empty((len(self), n_wanted), np.float32), np.empty(len(self), np.float32)
        for cut, block in self._blocks():
            out[cut], frequency[cut] = fill_dosage(block, people, n_wanted)
        return out, frequency

    def add_scores(self, weights: Floats, out: Floats) -> Floats:
        """See `GenotypeRows`."""
        frequency = np.empty(len(self))
        for cut, block in self._blocks():
            frequency[cut] = add_scores(block, weights[cut], out)
        return frequency


@njit(cache=True, nogil=True)
def add_scores(dosage: NDArray[np.float32], weights: Floats, out: Floats) -> Floats:
    """Add ``sum_j w_jk (g_ij - 2 f_j)`` to ``out`` (N, k) and return f; a missing dosage adds nothing.

    Args:
        dosage: (m, N) A1 dosages, NaN missing.
        weights: (m, k).
        out: (N, k).

    Returns:
        (m,) A1 frequencies; 0 where every call is missing.
    """
    m, n = dosage.shape
    frequency = np.zeros(m)
    for j in range(m):
        total, seen = 0.0, 0
        for i in range(n):
            if not np.isnan(dosage[j, i]):
                total += dosage[j, i]
                seen += 1
        if seen == 0:
            continue
        mean = total / seen
        frequency[j] = mean / 2
        for i in range(n):
            if not np.isnan(dosage[j, i]):
                centred = dosage[j, i] - mean
                for k in range(weights.shape[1]):
                    out[i, k] += weights[j, k] * centred
    return frequency


@njit(cache=True, nogil=True)
def count_dosages(
    indptr: Integers, sample: NDArray[np.int32], dosage: NDArray[np.float32], in_set: NDArray[np.uint8]
) -> tuple[Integers, Floats]:
    """Count imputed carriers per sample set by their nearest call, and sum their dosages.

    Args:
        indptr, sample, dosage: carriers of m variants, negative where missing.
        in_set: (n, S) 1 where a sample belongs to a sample set.

    Returns:
        (m, S, 3) heterozygous, homozygous for the counted allele, missing; and (m, S) the sum of dosages.
    """
    m, n_sets = indptr.shape[0] - 1, in_set.shape[1]
    counts = np.zeros((m, n_sets, 3), np.int64)
    total = np.zeros((m, n_sets))
    for j in range(m):
        for k in range(indptr[j], indptr[j + 1]):
            d = float(dosage[k])
            kind = 2 if d < 0 else int(np.round(d)) - 1  # -1: nearest to no allele
            for s in range(n_sets):
                inside = in_set[sample[k], s]
                if kind >= 0:
                    counts[j, s, kind] += inside
                if d > 0:
                    total[j, s] += d * inside
    return counts, total


@njit(cache=True, nogil=True)
def _call_carriers(calls: NDArray[np.int8], people: People) -> _Lists:
    m, n = calls.shape
    indptr = np.zeros(m + 1, np.int64)
    a1_counted = np.ones(m, np.bool_)
    for j in range(m):
        not_a2 = 0
        for i in range(n):
            not_a2 += calls[j, i] != 0
        a1_counted[j] = 2 * not_a2 <= n
        count = 0
        other = np.int8(0) if a1_counted[j] else np.int8(2)
        for i in range(n):
            count += people[i] >= 0 and calls[j, i] != other
        indptr[j + 1] = indptr[j] + count
    sample = np.empty(indptr[m], np.int32)
    dosage = np.empty(indptr[m], np.int8)
    at = 0
    for j in range(m):
        other = np.int8(0) if a1_counted[j] else np.int8(2)
        for i in range(n):
            d = calls[j, i]
            if people[i] >= 0 and d != other:
                sample[at] = people[i]
                dosage[at] = d if d < 0 or a1_counted[j] else 2 - d
                at += 1
    return indptr, sample, dosage, a1_counted


@njit(cache=True, nogil=True)
def _as_call(d: np.float32, rare: bool) -> np.float32:
    """Return a dosage, or on a rare variant the whole number that it is near to."""
    nearest = np.float32(np.round(d))
    return nearest if rare and abs(d - nearest) <= CALL_DISTANCE else d


@njit(cache=True, nogil=True)
def _dosage_carriers(dosages: NDArray[np.float32], people: People) -> _Lists:
    m, n = dosages.shape
    indptr = np.zeros(m + 1, np.int64)
    a1_counted = np.ones(m, np.bool_)
    rare = np.zeros(m, np.bool_)
    for j in range(m):
        total, seen, not_a2 = 0.0, 0, 0
        for i in range(n):
            d = dosages[j, i]
            if np.isnan(d):
                not_a2 += 1
            else:
                total += d
                seen += 1
                not_a2 += np.round(d) != 0
        f = total / (2 * seen) if seen else 0.0
        rare[j] = min(f, 1 - f) < RARE
        a1_counted[j] = 2 * not_a2 <= n
        count = 0
        other = np.float32(0.0) if a1_counted[j] else np.float32(2.0)
        for i in range(n):
            count += people[i] >= 0 and _as_call(dosages[j, i], rare[j]) != other
        indptr[j + 1] = indptr[j] + count
    sample = np.empty(indptr[m], np.int32)
    dosage = np.empty(indptr[m], np.float32)
    at = 0
    for j in range(m):
        other = np.float32(0.0) if a1_counted[j] else np.float32(2.0)
        for i in range(n):
            if people[i] >= 0:
                d = _as_call(dosages[j, i], rare[j])
                if d != other:
                    sample[at] = people[i]
                    if np.isnan(d):
                        dosage[at] = np.float32(-1.0)
                    else:
                        dosage[at] = d if a1_counted[j] else np.float32(2.0) - d
                    at += 1
    return indptr, sample, dosage, a1_counted


@njit(cache=True, nogil=True)
def _fill(dosage: NDArray[np.float32], people: People, out: NDArray[np.float32]) -> NDArray[np.float32]:
    m, n = dosage.shape
    frequency = np.empty(m, np.float32)
    for j in range(m):
        total, seen = 0.0, 0
        for i in range(n):
            if people[i] >= 0 and not np.isnan(dosage[j, i]):
                total += dosage[j, i]
                seen += 1
        mean = total / seen if seen else 0.0
        frequency[j] = mean / 2 if seen else np.nan
        for i in range(n):
            if people[i] >= 0:
                out[j, people[i]] = mean if np.isnan(dosage[j, i]) else dosage[j, i]
    return frequency
