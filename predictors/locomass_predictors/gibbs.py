"""The Gibbs sampler of LDpred2: one chain over all LD blocks, under a spike-and-slab prior on effects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

import numpy as np
from numba import njit
from numba.typed import List as TypedList
from numpy.typing import NDArray

from locomass_predictors.base import BlockStatistics, Floats, MapFunction, split_by_block

_H2_FLOOR = 1e-3
_P_RANGE = (1e-5, 1.0)


@dataclass(frozen=True, slots=True)
class ChainSettings:
    """What one chain is told.

    Attributes:
        h2: heritability; where it starts when it is estimated.
        p: proportion of causal variants; where it starts when it is estimated.
        shrink: factor of the off-diagonal of R.
        burn_in: sweeps thrown away.
        n_keep: sweeps averaged.
        estimate: update h2 and p after every sweep (auto), or hold them (grid).
        allow_jump_sign: let an effect change sign from one sweep to the next.
        mean_ld_score: mean LD score of the variants; only read when h2 and p are estimated.
    """

    h2: float
    p: float
    shrink: float
    burn_in: int
    n_keep: int
    estimate: bool
    allow_jump_sign: bool
    mean_ld_score: float = 1.0


@dataclass(frozen=True, slots=True)
class Chain:
    """One finished chain.

    Attributes:
        weights: (M,) posterior mean effects, NaN when the chain diverged.
        h2_path: (sweeps,) heritability after each sweep, NaN after divergence.
        p_path: (sweeps,) proportion causal after each sweep, NaN after divergence.
        range: largest minus smallest entry of R w, the marginal effects that the weights imply; NaN when diverged.
        burn_in: sweeps that the averages leave out.
        variance: mean of b'Rb over the sweeps kept, NaN when diverged.
    """

    weights: Floats
    h2_path: Floats
    p_path: Floats
    range: float
    burn_in: int
    variance: float

    @property
    def h2(self) -> float:
        """Mean heritability over the sweeps kept."""
        return float(self.h2_path[self.burn_in :].mean())

    @property
    def p(self) -> float:
        """Mean proportion causal over the sweeps kept."""
        return float(self.p_path[self.burn_in :].mean())


def select_chains(ranges: Floats) -> NDArray[np.bool_]:
    """Return which chains to keep: range above 0.95 of the 95 % quantile over those that did not diverge.

    Args:
        ranges: (chains,) range of the implied marginal effects, NaN where the chain diverged.

    Returns:
        (chains,) True where kept.
    """
    finite = np.isfinite(ranges)
    if not finite.any():
        return finite
    kept: NDArray[np.bool_] = finite & (ranges > 0.95 * np.quantile(ranges[finite], 0.95))
    return kept


def run_chain(settings: ChainSettings, seed: np.random.SeedSequence, blocks: Sequence[BlockStatistics]) -> Chain:
    """Run one chain over all blocks.

    Args:
        settings: hyper-parameters and lengths.
        seed: its own random stream.
        blocks: LD blocks of the whole genome.

    Returns:
        The chain; weights are NaN when it diverged, ``sum b^2 > 2 sum beta_hat^2``.
    """
    rng = np.random.default_rng(seed)
    Rs = TypedList([np.ascontiguousarray(block.R, dtype=np.float32) for block in blocks])
    beta_hat = np.concatenate([block.beta_hat for block in blocks])
    n = np.concatenate([block.n for block in blocks])
    M, n_sweeps = beta_hat.size, settings.burn_in + settings.n_keep
    b, dot, total = np.zeros(M), np.zeros(M), np.zeros(M)
    h2_path, p_path = np.full(n_sweeps, np.nan), np.full(n_sweeps, np.nan)
    h2, p, quadratic, variance = settings.h2, settings.p, 0.0, 0.0
    limit = 2.0 * float(beta_hat @ beta_hat)
    for k in range(n_sweeps):
        keep = k >= settings.burn_in
        n_causal, quadratic = sweep_blocks(
            rng, Rs, beta_hat, n, b, dot, total, quadratic, h2, p, settings.shrink, settings.allow_jump_sign, keep
        )
        if not b @ b <= limit:
            return Chain(np.full(M, np.nan), h2_path, p_path, np.nan, settings.burn_in, np.nan)
        variance += float(b @ dot) / settings.n_keep if keep else 0.0
        if settings.estimate:
            h2 = max(quadratic, _H2_FLOOR)
            effective = np.array([n_causal, M - n_causal]) / settings.mean_ld_score
            p = float(np.clip(rng.beta(1.0 + effective[0], 1.0 + effective[1]), *_P_RANGE))
        h2_path[k], p_path[k] = h2, p
    weights = total / settings.n_keep
    return Chain(weights, h2_path, p_path, _range_of_implied_effects(blocks, weights), settings.burn_in, variance)


@njit(cache=True, nogil=True)
def sweep_blocks(  # type: ignore[no-untyped-def]
    rng, Rs, beta_hat, n, b, dot, total, quadratic, h2, p, shrink, allow_jump_sign, keep
):
    """Draw every effect once, in place; return the number of nonzero effects and b'R_s b.

    With dot = R b: ``r = beta_hat_j - shrink (dot_j - b_j)``, ``c1 = h2 N_j/(M p)``, ``c2 = 1/(1 + 1/c1)``,
    ``c3 = c2 r``, ``c4 = c2/N_j``, ``pi = 1/(1 + (1-p)/p sqrt(1 + c1) exp(-c3^2/(2 c4)))``; b_j is drawn from
    N(c3, c4) with probability pi and is 0 otherwise.

    ``rng`` is a numpy Generator, ``Rs`` a list of (m, m) float32 correlations in C order. ``beta_hat``, ``n``, ``b``,
    ``dot`` and ``total``, the sum of posterior means c3 pi over the sweeps with ``keep``, are (M,). ``quadratic`` is
    b'R_s b before the sweep, R_s = shrink R + (1 - shrink) I. Unless ``allow_jump_sign``, a draw of the other sign
    than the current effect becomes 0.
    """
    M = beta_hat.size
    odds = (1.0 - p) / p
    n_causal = 0
    start = 0
    for k in range(len(Rs)):
        R = Rs[k]
        m = R.shape[0]
        dot_block = dot[start : start + m]
        for i in range(m):
            j = start + i
            current = b[j]
            r = beta_hat[j] - shrink * (dot_block[i] - current)
            c1 = h2 * n[j] / (M * p)
            c2 = 1.0 / (1.0 + 1.0 / c1)
            c3 = c2 * r
            c4 = c2 / n[j]
            pi = 1.0 / (1.0 + odds * np.sqrt(1.0 + c1) * np.exp(-0.5 * c3 * c3 / c4))
            if keep:
                total[j] += c3 * pi
            drawn = 0.0
            if rng.random() < pi:
                drawn = c3 + np.sqrt(c4) * rng.standard_normal()
                if not allow_jump_sign and drawn * current < 0.0:
                    drawn = 0.0
                else:
                    n_causal += 1
            change = drawn - current
            if change != 0.0:
                b[j] = drawn
                quadratic += change * (2.0 * (shrink * dot_block[i] + (1.0 - shrink) * current) + change)
                row = R[i]
                for q in range(m):
                    dot_block[q] += change * row[q]
        start += m
    return n_causal, quadratic


def run_chains(
    blocks: Sequence[BlockStatistics],
    settings: Sequence[ChainSettings],
    entropy: list[int],
    map_function: MapFunction,
) -> list[Chain]:
    """Run a chain per setting, each with its own stream, whatever the order in which they run."""
    seeds = np.random.SeedSequence(entropy).spawn(len(settings))
    return cast("list[Chain]", list(map_function(partial(run_chain, blocks=blocks), settings, seeds)))


def _range_of_implied_effects(blocks: Sequence[BlockStatistics], weights: Floats) -> float:
    implied = np.concatenate([b.R @ w for b, w in zip(blocks, split_by_block(blocks, weights), strict=True)])
    return float(implied.max() - implied.min())
