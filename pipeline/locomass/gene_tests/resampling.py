"""From null replicates of a searched statistic to p-values: adaptive stopping, (1+k)/(1+P), Pareto tail.

Sampling stops for a statistic at its h-th exceedance (Besag & Clifford 1991) or after P_max replicates; its p-value is
(1 + k) / (1 + P) with the k exceedances and P replicates seen by then. When P_max passes with fewer than h
exceedances, the tail is extrapolated by a generalised Pareto distribution with its own standard error. Each
statistic stops by its own count, so its p-value does not depend on which others share the stream.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from locomass.errors import ConfigError
from locomass.gene_tests.pareto import fit_pareto_tail
from locomass.numbers import TIE, Floats

Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]

#: Fill ``statistic`` (P, F) with the next P replicates of every active (F,) statistic.
DrawBlock = Callable[[Booleans, Floats], None]

_FIRST_BLOCK, _LARGEST_BLOCK = 256, 8192


@dataclass(frozen=True, slots=True)
class Resampling:
    """How long to resample.

    Attributes:
        max_permutations: P_max.
        exceedances: h, the count that ends the sampling of a statistic.
        tail: extrapolate by a Pareto tail when P_max ends the sampling.
        seed: start of every stream; streams of genes and studies are derived from it.
    """

    max_permutations: int = 100_000
    exceedances: int = 20
    tail: bool = True
    seed: int = 2010

    def __post_init__(self) -> None:
        if self.max_permutations < 1 or self.exceedances < 1 or self.seed < 0:
            raise ConfigError(
                "expected max_permutations >= 1, exceedances >= 1 and seed >= 0, got "
                f"{self.max_permutations}, {self.exceedances} and {self.seed}"
            )


@dataclass(frozen=True, slots=True)
class ResampledP:
    """P-values of T traits by F statistics; every array is (T, F).

    Attributes:
        log_p: natural logarithm of p.
        error: standard error of log p.
        permutations: replicates used.
        exceedances: how many of them reached the observed value.
        extrapolated: True where p comes from the Pareto tail.
    """

    log_p: Floats
    error: Floats
    permutations: Integers
    exceedances: Integers
    extrapolated: Booleans


def resample_p(draw_block: DrawBlock, observed: Floats, resampling: Resampling) -> ResampledP:
    """Draw replicates until every statistic of every trait has its p-value.

    Args:
        draw_block: source of replicates, common to all traits.
        observed: (T, F) observed statistics; negative or NaN where there is none (their p-value is NaN).
        resampling: when to stop.

    Returns:
        P-values with their errors.
    """
    h, n_max = resampling.exceedances, resampling.max_permutations
    count = np.zeros(observed.shape, dtype=np.int64)
    used = np.zeros(observed.shape, dtype=np.int64)
    running = observed >= 0
    blocks: list[Floats] = []
    done, size = 0, _FIRST_BLOCK
    while done < n_max and np.any(running):
        active = np.any(running, axis=0)
        block = np.full((min(size, n_max - done), observed.shape[1]), np.nan)
        draw_block(active, block)
        blocks.append(block)
        for t, f in np.argwhere(running):
            beyond = np.flatnonzero(block[:, f] >= observed[t, f] * TIE)
            if count[t, f] + beyond.size >= h:
                used[t, f] += int(beyond[h - count[t, f] - 1]) + 1
                count[t, f] = h
                running[t, f] = False
            else:
                used[t, f] += block.shape[0]
                count[t, f] += beyond.size
        done += block.shape[0]
        size = min(2 * size, _LARGEST_BLOCK)
    return _summarise(observed, count, used, np.concatenate(blocks) if blocks else np.empty((0, 0)), resampling)


def _summarise(
    observed: Floats, count: Integers, used: Integers, replicates: Floats, resampling: Resampling
) -> ResampledP:
    """Turn counts into p-values; where P_max ended the sampling, fit the tail."""
    log_p = np.full(observed.shape, np.nan)
    error = np.full(observed.shape, np.nan)
    extrapolated = np.zeros(observed.shape, dtype=np.bool_)
    for f in range(observed.shape[1]):
        short = (count[:, f] < resampling.exceedances) & (used[:, f] > 0)
        tail = fit_pareto_tail(replicates[:, f]) if resampling.tail and np.any(short) else None
        for t in np.flatnonzero(used[:, f] > 0):
            if short[t] and tail is not None and observed[t, f] > tail.threshold:
                log_p[t, f] = tail.log_sf(float(observed[t, f]))
                error[t, f] = tail.log_sf_error(float(observed[t, f]))
                extrapolated[t, f] = True
            else:
                p = (1.0 + count[t, f]) / (1.0 + used[t, f])
                log_p[t, f] = math.log(p)
                error[t, f] = math.sqrt((1.0 - p) / (1.0 + count[t, f]))
    return ResampledP(log_p, error, used, count, extrapolated)
