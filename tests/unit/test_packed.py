"""The packed-row kernels against decoding call by call."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from locomass.genotypes.packed import MISSING, count_genotypes, decode_dosage, scan_carriers
from tests.factories import pack_row, random_calls
from tests.reference import decode_row

#: every remainder by 4 (calls a byte), around 32 (calls a word) and 256 (calls of the eight words tested at once)
SIZES = [*range(1, 9), *range(31, 37), 63, 64, 65, 127, 128, 129, *range(255, 261), 289, 511, 512, 513, 600]


def pack(calls):
    return np.array([np.frombuffer(pack_row(row), np.uint8) for row in calls])


def everyone(n):
    return np.arange(n, dtype=np.int32)


def subset(n, kept):
    position = np.full(n, -1, np.int32)
    position[kept] = np.arange(len(kept), dtype=np.int32)
    return position


def densify(carriers, n):
    """Return A1 counts (m, n) from carriers, MISSING where missing."""
    indptr, sample, dosage, a1_counted = carriers
    out = np.zeros((len(a1_counted), n), np.int64)
    for j in range(len(a1_counted)):
        at = slice(indptr[j], indptr[j + 1])
        assert len(set(sample[at].tolist())) == len(sample[at])
        out[j, sample[at]] = dosage[at]
        if not a1_counted[j]:
            out[j] = np.where(out[j] == MISSING, MISSING, 2 - out[j])
    return out


@pytest.mark.parametrize("n", SIZES)
def test_scan_carriers__equals_call_by_call(n):
    calls = random_calls(np.random.default_rng(n), 24, n)
    packed = pack(calls)
    assert [decode_row(bytes(row), n) for row in packed] == calls.tolist()
    carriers = scan_carriers(packed, n, everyone(n), n)
    np.testing.assert_array_equal(densify(carriers, n), calls)


@pytest.mark.parametrize("n", SIZES)
def test_scan_carriers__of_a_subset(n):
    rng = np.random.default_rng(1000 + n)
    calls = random_calls(rng, 12, n)
    kept = np.flatnonzero(rng.random(n) < 0.6)
    carriers = scan_carriers(pack(calls), n, subset(n, kept), n)
    np.testing.assert_array_equal(densify(carriers, len(kept)), calls[:, kept])


@given(st.integers(1, 300), st.integers(0, 10**6), st.floats(0, 1))
def test_scan_carriers__any_size_and_missingness(n, seed, missing):
    calls = random_calls(np.random.default_rng(seed), 6, n, missing=missing)
    np.testing.assert_array_equal(densify(scan_carriers(pack(calls), n, everyone(n), n), n), calls)


@pytest.mark.parametrize(("code", "background"), [(1, 0), (2, 0), (-1, 0), (1, 2), (0, 2), (-1, 2)])
def test_scan_carriers__finds_one_carrier_at_every_place(code, background):
    n = 321
    calls = np.full((n, n), background)
    np.fill_diagonal(calls, code)
    indptr, sample, dosage, a1_counted = scan_carriers(pack(calls), n, everyone(n), n)
    np.testing.assert_array_equal(indptr, np.arange(n + 1))
    np.testing.assert_array_equal(sample, np.arange(n))
    assert (a1_counted == (background == 0)).all()
    expected = MISSING if code == -1 else (code if background == 0 else 2 - code)
    assert (dosage == expected).all()


@pytest.mark.parametrize("n", [1, 2, 3, 33, 34, 35, 257, 258, 259])
@pytest.mark.parametrize("background", [0, 1, 2, -1])
def test_scan_carriers__ignores_what_fills_the_last_byte(n, background):
    packed = pack(np.full((1, n), background))
    padded = packed.copy()
    padded[0, -1] |= np.uint8((0xFF << (2 * (n % 4))) & 0xFF) if n % 4 else np.uint8(0)
    for one, other in zip(
        scan_carriers(packed, n, everyone(n), n), scan_carriers(padded, n, everyone(n), n), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_scan_carriers__keeps_lists_short():
    calls = np.zeros((2, 1000), np.int64)
    calls[0, :3], calls[1] = 1, 2
    calls[1, 5:9] = 1
    indptr, _, _, a1_counted = scan_carriers(pack(calls), 1000, everyone(1000), 1000)
    assert indptr.tolist() == [0, 3, 7]
    assert a1_counted.tolist() == [True, False]


def test_scan_carriers__leaves_rows_above_max_calls_empty():
    calls = np.zeros((3, 40), np.int64)
    calls[0, :2], calls[1, :3], calls[2, :1] = 1, 1, 2
    indptr, sample, _, _ = scan_carriers(pack(calls), 40, everyone(40), 2)
    assert np.diff(indptr).tolist() == [2, 0, 1]
    assert sample.tolist() == [0, 1, 0]


def test_scan_carriers__no_rows():
    indptr, sample, dosage, a1_counted = scan_carriers(np.empty((0, 3), np.uint8), 10, everyone(10), 10)
    assert indptr.tolist() == [0]
    assert len(sample) == len(dosage) == len(a1_counted) == 0


@pytest.mark.parametrize("n", [1, 5, 64, 259])
def test_count_genotypes__per_sample_set(n):
    rng = np.random.default_rng(n)
    calls = random_calls(rng, 20, n)
    in_set = (rng.random((n, 3)) < [1.0, 0.7, 0.2]).astype(np.uint8)
    indptr, sample, dosage, a1_counted = scan_carriers(pack(calls), n, everyone(n), n)
    counts = count_genotypes(indptr, sample, dosage, in_set)
    for j, row in enumerate(calls):
        for s in range(3):
            here = row[in_set[:, s] == 1]
            double = 2 if a1_counted[j] else 0
            assert counts[j, s].tolist() == [(here == 1).sum(), (here == double).sum(), (here == -1).sum()]


@pytest.mark.parametrize("n", [1, 4, 33, 130])
def test_decode_dosage__fills_missing_calls_with_the_mean(n):
    rng = np.random.default_rng(n)
    calls = random_calls(rng, 16, n, missing=0.3)
    kept = np.arange(n) if n == 1 else np.flatnonzero(rng.random(n) < 0.7)
    out = np.full((16, len(kept)), np.nan, np.float32)
    frequency = decode_dosage(pack(calls), subset(n, kept), len(kept), out)
    for row, got, f in zip(calls[:, kept].astype(float), out, frequency, strict=True):
        seen = row[row >= 0]
        mean = seen.mean() if len(seen) else 0.0
        np.testing.assert_allclose(got, np.where(row >= 0, row, mean), rtol=1e-6)
        assert np.isnan(f) if not len(seen) else f == pytest.approx(mean / 2, rel=1e-6)
