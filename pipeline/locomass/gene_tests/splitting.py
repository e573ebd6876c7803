"""P(T(Z) >= t) of a function of independent normals, by multilevel splitting (subset simulation; Au & Beck 2001).

A rare event is a chain of events that are not rare: levels t_1 < t_2 < ... < t, each reached by a tenth of those that
reached the one before, ``P = prod_i P(T >= t_i | T >= t_(i-1))``. Particles beyond a level are multiplied and moved by
steps ``z' = sqrt(1 - b^2) z + b x``, x normal, taken when T(z') stays beyond the level: the normal law given the level
does not change (Neal 1998; preconditioned Crank-Nicolson). Work grows with log p, not with 1/p.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from locomass.numbers import Floats

SHARE = 0.1  # of the particles that pass a level
SWEEPS = 5
CORRELATED = 1.0  # what particles that share ancestors add to the variance of a level
MOST_LEVELS = 60


def split_tail(
    statistic: Callable[[Floats], Floats], dimension: int, target: float, rng: np.random.Generator, n: int
) -> tuple[float, float]:
    """Return log P(T(Z) >= target) and its relative standard error; NaN when no particle gets there.

    Args:
        statistic: T of (n, dimension) independent normals, (n,).
        dimension: of Z.
        target: t.
        rng: source of all random numbers.
        n: particles.
    """
    Z = rng.standard_normal((n, dimension))
    reached = statistic(Z)
    log_p, variance, step = 0.0, 0.0, 0.8
    for _ in range(MOST_LEVELS):
        level = min(target, float(np.partition(reached, -int(SHARE * n))[-int(SHARE * n)]))
        above = np.flatnonzero(reached >= level)
        if above.size == n and level < target:  # an atom: the next value up
            above = np.flatnonzero(reached > level)
            if above.size == 0:
                return math.nan, math.nan
            level = float(reached[above].min())
        share = above.size / n
        log_p += math.log(share)
        variance += (1.0 - share) / (share * n) * (1.0 + CORRELATED)
        if level >= target:
            return log_p, math.sqrt(variance)
        chosen = above[np.arange(n) * above.size // n]
        Z, reached = Z[chosen], reached[chosen]
        for _ in range(SWEEPS):
            moved = math.sqrt(1.0 - step * step) * Z + step * rng.standard_normal(Z.shape)
            value = statistic(moved)
            taken = value >= level
            Z[taken], reached[taken] = moved[taken], value[taken]
            step = min(0.95, max(0.05, step * math.exp(float(taken.mean()) - 0.3)))
    return math.nan, math.nan
