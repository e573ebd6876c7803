"""Packed 2-bit PLINK rows to carriers or to dense dosages.

A .bed row holds four calls a byte, lowest bits first: 00 = A1/A1, 01 = missing, 10 = het, 11 = A2/A2. Sequencing
variants are rare, so nearly every 64-bit word of a row is all ones (or all zeros where A1 is the major allele): the
scan skips such words and touches only carriers. The *counted* allele of a row is its minor one over all samples of
the file, so a carrier list is always short.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numba import njit
from numpy.typing import NDArray

from locomass.genotypes.bits import load_word, popcount, trailing_zeros

PAIRS = np.uint64(0x5555555555555555)
ONES = np.uint64(0xFFFFFFFFFFFFFFFF)
ONE = np.uint64(1)
THREE = np.uint64(3)

MISSING = -1  # the dosage of a missing call among carriers
# dosages 2, 1 or MISSING (a byte of ones) by the two bits of a carrier, 8 bits each
DOSAGES_A1 = np.uint64(0x02FF0100)
DOSAGES_A2 = np.uint64(0x0201FF00)
MISSING_CODE = 1  # its two bits in a .bed file

Number = TypeVar("Number", bound=np.generic)
Carriers = tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int8], NDArray[np.bool_]]


@njit(cache=True, nogil=True)
def _tail_word(row: NDArray[np.uint8], start: int, n_samples: int) -> np.uint64:
    """Return the last, partial word of a row, with the pairs past the last sample set to 11 (A2/A2)."""
    word = ONES
    for k in range(row.shape[0] - start):
        shift = np.uint64(8 * k)
        word &= ~(np.uint64(0xFF) << shift)
        word |= np.uint64(row[start + k]) << shift
    used = n_samples - 4 * start
    if used < 32:
        word |= ONES << np.uint64(2 * used)
    return word


@njit(cache=True, nogil=True)
def _count_not_a2(row: NDArray[np.uint8], n_samples: int) -> np.int64:
    """Return how many calls of a packed row are not A2/A2 (missing ones included)."""
    n_words = (n_samples // 4) // 8
    count = np.uint64(0)
    w = 0
    while w + 8 <= n_words:
        at = 8 * w
        every = load_word(row, at)
        for k in range(1, 8):
            every &= load_word(row, at + 8 * k)
        if every != ONES:
            for k in range(8):
                x = ~load_word(row, at + 8 * k)
                count += popcount((x | (x >> ONE)) & PAIRS)
        w += 8
    while w < n_words:
        x = ~load_word(row, 8 * w)
        count += popcount((x | (x >> ONE)) & PAIRS)
        w += 1
    if 32 * n_words < n_samples:
        x = ~_tail_word(row, 8 * n_words, n_samples)
        count += popcount((x | (x >> ONE)) & PAIRS)
    return np.int64(count)


@njit(cache=True, nogil=True)
def _emit_word(
    x: np.uint64,
    base: int,
    a1_counted: bool,
    position: NDArray[np.int32],
    sample: NDArray[np.int32],
    dosage: NDArray[np.int8],
    at: int,
) -> int:
    """Append the carriers of one word; ``x`` has 00 where the call is homozygous for the other allele."""
    decode = DOSAGES_A1 if a1_counted else DOSAGES_A2
    nonzero = (x | (x >> ONE)) & PAIRS
    while nonzero != np.uint64(0):
        shift = trailing_zeros(nonzero)
        nonzero &= nonzero - ONE
        where = position[base + np.int64(shift >> ONE)]
        if where >= 0:
            # x = ~word when A1 is counted: 01 het, 10 missing, 11 A1/A1; x = word otherwise: 10 het, 01 missing
            dosage[at] = np.int8((decode >> (((x >> shift) & THREE) << THREE)) & np.uint64(0xFF))
            sample[at] = where
            at += 1
    return at


@njit(cache=True, nogil=True)
def _emit_row(
    row: NDArray[np.uint8],
    n_samples: int,
    a1_counted: bool,
    position: NDArray[np.int32],
    sample: NDArray[np.int32],
    dosage: NDArray[np.int8],
    at: int,
) -> int:
    """Append the carriers of one row; words whose calls are all homozygous for the other allele are skipped."""
    n_words = (n_samples // 4) // 8
    flip = ONES if a1_counted else np.uint64(0)
    w = 0
    while w + 8 <= n_words:
        any_set = np.uint64(0)
        for k in range(8):
            any_set |= load_word(row, 8 * (w + k)) ^ flip
        if any_set != np.uint64(0):
            for k in range(8):
                x = load_word(row, 8 * (w + k)) ^ flip
                if x != np.uint64(0):
                    at = _emit_word(x, 32 * (w + k), a1_counted, position, sample, dosage, at)
        w += 8
    while w < n_words:
        x = load_word(row, 8 * w) ^ flip
        if x != np.uint64(0):
            at = _emit_word(x, 32 * w, a1_counted, position, sample, dosage, at)
        w += 1
    if 32 * n_words < n_samples:
        x = _tail_word(row, 8 * n_words, n_samples) ^ flip
        if not a1_counted and n_samples - 32 * n_words < 32:
            x &= ~(ONES << np.uint64(2 * (n_samples - 32 * n_words)))
        at = _emit_word(x, 32 * n_words, a1_counted, position, sample, dosage, at)
    return at


@njit(cache=True, nogil=True)
def _grow(array: NDArray[Number], used: int, size: int) -> NDArray[Number]:
    """Return a copy of ``array`` with room for ``size`` entries."""
    larger = np.empty(size, array.dtype)
    larger[:used] = array[:used]
    return larger


@njit(cache=True, nogil=True)
def scan_carriers(packed: NDArray[np.uint8], n_samples: int, position: NDArray[np.int32], max_calls: int) -> Carriers:
    """Find the carriers of every packed row.

    Args:
        packed: (m, ceil(n_samples / 4)) rows of a .bed file.
        n_samples: samples in the file.
        position: (n_samples,) index of each file sample among the analysed ones, -1 where it is left out.
        max_calls: rows with more non-reference calls than this (minor allele carriers and missing calls over the
            whole file) are left empty; pass ``n_samples`` to keep all.

    Returns:
        indptr: (m + 1,) row j's carriers are entries ``indptr[j]:indptr[j + 1]``.
        sample: (nnz,) index of the carrier among the analysed samples.
        dosage: (nnz,) count of the counted allele, 1 or 2; ``MISSING`` for a missing call.
        a1_counted: (m,) True where the counted (minor) allele is A1.
    """
    m = packed.shape[0]
    indptr = np.zeros(m + 1, np.int64)
    a1_counted = np.ones(m, np.bool_)
    capacity = 1024
    sample = np.empty(capacity, np.int32)
    dosage = np.empty(capacity, np.int8)
    at = 0
    for j in range(m):
        row = packed[j]
        calls = _count_not_a2(row, n_samples)
        if 2 * calls > n_samples:
            a1_counted[j] = False
            # missing calls stand in both counts, so this bounds the calls that are not A1/A1
            calls = np.int64(n_samples)
        if at + calls > capacity:
            capacity = max(2 * capacity, at + calls)
            sample = _grow(sample, at, capacity)
            dosage = _grow(dosage, at, capacity)
        start = at
        at = _emit_row(row, n_samples, a1_counted[j], position, sample, dosage, at)
        if at - start > max_calls:
            at = start
        indptr[j + 1] = at
    return indptr, sample[:at].copy(), dosage[:at].copy(), a1_counted


@njit(cache=True, nogil=True)
def count_genotypes(
    indptr: NDArray[np.int64],
    sample: NDArray[np.int32],
    dosage: NDArray[np.int8],
    in_set: NDArray[np.uint8],
) -> NDArray[np.int64]:
    """Count heterozygous, homozygous and missing carriers per sample set.

    Args:
        indptr, sample, dosage: carriers as `scan_carriers` returns them, m rows.
        in_set: (n, S) 1 where a sample belongs to a sample set.

    Returns:
        (m, S, 3) counts: heterozygous, homozygous for the counted allele, missing.
    """
    m = indptr.shape[0] - 1
    n_sets = in_set.shape[1]
    counts = np.zeros((m, n_sets, 3), np.int64)
    for j in range(m):
        for k in range(indptr[j], indptr[j + 1]):
            d = dosage[k]
            kind = 0 if d == 1 else (1 if d == 2 else 2)
            for s in range(n_sets):
                counts[j, s, kind] += in_set[sample[k], s]
    return counts


@njit(cache=True, nogil=True)
def _count_codes(row: NDArray[np.uint8], n_samples: int) -> tuple[np.int64, np.int64, np.int64]:
    """Return how many calls of a packed row are missing, het and A1/A1."""
    n_words = (n_samples // 4) // 8
    missing, het, hom = np.uint64(0), np.uint64(0), np.uint64(0)
    for w in range(n_words + 1):
        if w < n_words:
            x = load_word(row, 8 * w)
        elif 32 * n_words < n_samples:
            x = _tail_word(row, 8 * n_words, n_samples)
        else:
            break
        low, high = x & PAIRS, (x >> ONE) & PAIRS
        missing += popcount(low & ~high)
        het += popcount(high & ~low)
        hom += popcount(~(low | high) & PAIRS)
    return np.int64(missing), np.int64(het), np.int64(hom)


@njit(cache=True, nogil=True)
def _is_identity(position: NDArray[np.int32]) -> bool:
    """Return whether all samples are kept in the order of the file."""
    for i in range(position.shape[0]):  # noqa: SIM110 - numba has no generators in all()
        if position[i] != i:
            return False
    return True


@njit(cache=True, nogil=True)
def _fill_row(row: NDArray[np.uint8], value: NDArray[np.float32], out: NDArray[np.float32]) -> None:
    """Write the four values of every byte at once: ``out[i] = value[code of call i]``."""
    table = np.empty((256, 4), np.float32)
    for byte in range(256):
        for k in range(4):
            table[byte, k] = value[(byte >> (2 * k)) & 3]
    n = out.shape[0]
    for b in range(n // 4):
        four = table[row[b]]
        out[4 * b] = four[0]
        out[4 * b + 1] = four[1]
        out[4 * b + 2] = four[2]
        out[4 * b + 3] = four[3]
    for i in range(n & ~3, n):
        out[i] = value[(row[i >> 2] >> (2 * (i & 3))) & 3]


@njit(cache=True, nogil=True)
def decode_dosage(
    packed: NDArray[np.uint8],
    position: NDArray[np.int32],
    n_kept: int,
    out: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Decode packed rows to dense A1 counts, missing calls filled with the row's mean.

    Args:
        packed: (m, ceil(N / 4)) rows of a .bed file of N samples.
        position: (N,) index of each file sample among the kept ones, -1 where it is left out.
        n_kept: number of kept samples.
        out: (m, n_kept) float32, overwritten with the A1 count of each call.

    Returns:
        (m,) A1 allele frequency among the kept samples; NaN where every call is missing (the row is then zero).
    """
    m = packed.shape[0]
    n = position.shape[0]
    all_kept = n == n_kept and _is_identity(position)
    frequency = np.empty(m, np.float32)
    value = np.array([2.0, 0.0, 1.0, 0.0], np.float32)
    for j in range(m):
        row = packed[j]
        if all_kept:
            n_missing, n_het, n_hom = _count_codes(row, n)
        else:
            n_missing, n_het, n_hom = 0, 0, 0
            for i in range(n):
                if position[i] >= 0:
                    code = (row[i >> 2] >> (2 * (i & 3))) & 3
                    n_missing += code == 1
                    n_het += code == 2
                    n_hom += code == 0
        n_seen = n_kept - n_missing
        mean = (n_het + 2 * n_hom) / n_seen if n_seen > 0 else 0.0
        frequency[j] = mean / 2 if n_seen > 0 else np.nan
        value[MISSING_CODE] = mean
        if all_kept:
            _fill_row(row, value, out[j])
        else:
            for i in range(n):
                if position[i] >= 0:
                    out[j, position[i]] = value[(row[i >> 2] >> (2 * (i & 3))) & 3]
    return frequency


@njit(cache=True, nogil=True)
def add_weighted_dosage(
    packed: NDArray[np.uint8], n_samples: int, weights: NDArray[np.float64], out: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Add centred, weighted A1 counts of packed rows to the scores of all samples, by a table of 256 bytes per row.

    ``out_ik += sum_j w_jk (g_ij - 2 f_j)``, f the A1 frequency of the row; a missing call adds nothing.

    Args:
        packed: (m, ceil(n / 4)) rows of a .bed file.
        n_samples: n.
        weights: (m, k) weight of one A1 allele.
        out: (n, k) contiguous, added to.

    Returns:
        (m,) A1 frequencies; NaN where every call is missing.
    """
    n_weights = weights.shape[1]
    frequency = np.full(packed.shape[0], np.nan)
    width = 4 * n_weights
    one = np.zeros((4, n_weights))
    table = np.empty((256, width))
    scores = out.reshape(-1)
    for j in range(packed.shape[0]):
        row = packed[j]
        n_missing, n_het, n_hom = _count_codes(row, n_samples)
        if n_missing == n_samples:
            continue
        mean = (n_het + 2 * n_hom) / (n_samples - n_missing)
        frequency[j] = mean / 2
        for c in range(n_weights):
            one[0, c] = weights[j, c] * (2.0 - mean)
            one[2, c] = weights[j, c] * (1.0 - mean)
            one[3, c] = -weights[j, c] * mean
        for byte in range(256):
            for k in range(4):
                for c in range(n_weights):
                    table[byte, k * n_weights + c] = one[(byte >> (2 * k)) & 3, c]
        for b in range(n_samples // 4):
            added = table[row[b]]
            four = scores[b * width : (b + 1) * width]
            for c in range(width):
                four[c] += added[c]
        for i in range(n_samples & ~3, n_samples):
            for c in range(n_weights):
                out[i, c] += one[(row[i >> 2] >> (2 * (i & 3))) & 3, c]
    return frequency
