"""P(max_t |Z_t| >= z) of a multivariate normal vector, by importance sampling of a union of half-spaces.

Owen, Maximov & Chertkov 2019, Electronic Journal of Statistics 13:231. Draw a coordinate t at random, draw Z given
``|Z_t| >= z``, and count the coordinates beyond z: ``P = k 2 Phi(-z) E[1 / #{s: |Z_s| >= z}]``. Every draw lies in the event, so
the relative error does not grow in the tail; it depends on the overlap of the half-spaces only.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@njit(cache=True, nogil=True)
def _draw_tail(z: float, rng: np.random.Generator) -> float:
    """Return a draw of |N(0, 1)| given that it is at least z.

    Marsaglia's tail method, ``x = sqrt(z^2 - 2 log u)`` accepted with probability z/x, from z = 1 on; plain rejection below.
    """
    if z < 1.0:
        while True:
            x = abs(rng.standard_normal())
            if x >= z:
                return x
    while True:
        x = math.sqrt(z * z - 2.0 * math.log(1.0 - rng.random()))
        if rng.random() * x <= z:
            return x


@njit(cache=True, nogil=True)
def mean_overlap(
    z: float, R: Floats, factor: Floats, rng: np.random.Generator, tolerance: float, max_draws: int
) -> tuple[float, float]:
    """Return ``E[1 / #{s: |Z_s| >= z}]`` over the union of half-spaces, and its relative standard error.

    Args:
        z: threshold > 0.
        R: (k, k) correlation matrix.
        factor: (k, k) any F with F F' = R.
        rng: source of all draws.
        tolerance: stop when the relative standard error is below it.
        max_draws: stop after that many draws.
    """
    k = R.shape[0]
    per_round = max(1, 2000 // k)
    batch = per_round * k
    noise = np.empty((k, batch))
    total = 0.0
    squares = 0.0
    draws = 0
    while True:
        for i in range(k):
            for j in range(batch):
                noise[i, j] = rng.standard_normal()
        Y = np.dot(factor, noise)
        for j in range(batch):
            t = j % k  # every coordinate in turn: a stratified choice
            x = _draw_tail(z, rng) if rng.random() < 0.5 else -_draw_tail(z, rng)
            move = x - Y[t, j]
            count = 1
            for s in range(k):
                if s != t and abs(Y[s, j] + R[s, t] * move) >= z:
                    count += 1
            total += 1.0 / count
            squares += 1.0 / (count * count)
        draws += batch
        mean = total / draws
        error = math.sqrt(max(0.0, squares / draws - mean * mean) / draws) / mean
        if error < tolerance or draws >= max_draws:
            return mean, error
