"""Random numbers inside kernels: one SplitMix64 stream a gene, whose only memory is one integer."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

State = NDArray[np.uint64]


@njit(cache=True, nogil=True)
def next_bits(state: State) -> np.uint64:
    """Return 64 random bits (SplitMix64: Steele, Lea & Flood 2014); ``state`` (1,) is the stream's only memory."""
    state[0] += np.uint64(0x9E3779B97F4A7C15)
    z: np.uint64 = state[0]
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@njit(cache=True, nogil=True)
def draw_below(state: State, bound: int) -> int:
    """Return an integer uniform on 0 .. bound - 1, exactly (Lemire 2019, rejection; bound < 2^32)."""
    n = np.uint64(bound)
    mask = np.uint64(0xFFFFFFFF)
    product = (next_bits(state) >> np.uint64(32)) * n
    if (product & mask) < n:
        smallest = (np.uint64(0x100000000) - n) % n
        while (product & mask) < smallest:
            product = (next_bits(state) >> np.uint64(32)) * n
    return int(product >> np.uint64(32))


@njit(cache=True, nogil=True)
def draw_uniform(state: State) -> float:
    """Return a number uniform on [0, 1) with 53 bits."""
    return float(next_bits(state) >> np.uint64(11)) * (1.0 / 9007199254740992.0)
