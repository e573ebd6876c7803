"""P(max_t |Z_t| >= z) of a multivariate normal vector, by importance sampling of a union of half-spaces.

Owen, Maximov & Chertkov 2019, Electronic Journal of Statistics 13:231. Draw a coordinate t at random, draw Z given
``|Z_t| >= z``, and count the coordinates beyond z: ``P = k 2 Phi(-z) E[1 / #{s: |Z_s| >= z}]``. Every draw lies in
the event, so the relative error does not grow in the tail; it depends on the overlap of the half-spaces only.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@njit(cache=True, nogil=True)
def _draw_uniform(state: NDArray[np.uint64], a: int) -> float:
    """Return the next uniform in (0, 1] of stream a (splitmix64: Steele, Lea & Flood 2014)."""
    state[a] += np.uint64(0x9E3779B97F4A7C15)
    x = state[a]
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    return float((np.float64(x >> np.uint64(11)) + 1.0) * 2.0**-53)


@njit(cache=True, nogil=True)
def _draw_tail(z: float, state: NDArray[np.uint64], a: int) -> float:
    """Return a draw of |N(0, 1)| given that it is at least z.

    Marsaglia's tail method from z = 1 on: ``x = sqrt(z^2 - 2 log u)`` accepted with probability z / x. Below, plain
    rejection of Box-Muller normals.
    """
    while True:
        x = math.sqrt((z * z if z >= 1.0 else 0.0) - 2.0 * math.log(_draw_uniform(state, a)))
        second = _draw_uniform(state, a)
        if z >= 1.0:
            if second * x <= z:
                return x
        else:
            x = abs(x * math.cos(2.0 * math.pi * second))
            if x >= z:
                return x


@njit(cache=True, nogil=True)
def mean_overlaps(
    z: Floats, R: Floats, factor: Floats, rng: np.random.Generator, tolerance: float, max_draws: int
) -> tuple[Floats, Floats]:
    """Return ``E[1 / #{s: |Z_s| >= z}]`` over the union of half-spaces, and its relative standard error, for many z.

    All thresholds share the normal vectors, each takes as many as it needs and has its own stream for the rest, so no
    answer depends on the other thresholds. The coordinate t goes round in turn, a stratified choice: the standard
    error is an upper bound.

    Args:
        z: (n,) thresholds >= 0.
        R: (k, k) correlation matrix.
        factor: (k, k) lower triangular F with F F' = R.
        rng: source of the normal vectors.
        tolerance: stop when the relative standard error is below it.
        max_draws: stop after that many draws.
    """
    n, k = z.shape[0], R.shape[0]
    share = max(1, 2000 // k)  # draws per coordinate and round
    batch = share * k
    noise, Y = np.empty(batch), np.empty((k, batch))
    move, count = np.empty(batch), np.empty(batch)
    state = np.full(n, np.uint64(batch))
    total, squares = np.zeros(n), np.zeros(n)
    mean, error = np.empty(n), np.full(n, math.inf)
    draws = 0
    while draws < max_draws and error.max() > tolerance:
        Y[:] = 0.0
        for i in range(k):
            for j in range(batch):
                noise[j] = rng.standard_normal()
            for s in range(i, k):
                for j in range(batch):
                    Y[s, j] += factor[s, i] * noise[j]
        draws += batch
        for a in range(n):
            if error[a] <= tolerance:
                continue
            for j in range(batch):
                x = _draw_tail(z[a], state, a)
                move[j] = (x if _draw_uniform(state, a) < 0.5 else -x) - Y[j // share, j]
                count[j] = 0.0
            for s in range(k):
                for t in range(k):
                    r = R[s, t]
                    for j in range(t * share, (t + 1) * share):
                        count[j] += 1.0 if abs(Y[s, j] + r * move[j]) >= z[a] else 0.0
            for j in range(batch):
                part = 1.0 / max(count[j], 1.0)  # rounding may lose the coordinate that was drawn
                total[a] += part
                squares[a] += part * part
            mean[a] = total[a] / draws
            error[a] = math.sqrt(max(0.0, squares[a] / draws - mean[a] * mean[a]) / draws) / mean[a]
    return mean, error
