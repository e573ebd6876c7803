"""LDpred2: a spike-and-slab prior on effects, sampled block by block with genome-wide hyper-parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import cast

import numpy as np
from numba import njit
from numba.typed import List as TypedList
from numpy.typing import NDArray

from predictors.base import (
    BlockStatistics,
    Floats,
    MapFunction,
    PredictorError,
    PredictorFit,
    Tune,
    map_in_process,
    promised_r2,
    select_best,
    split_by_block,
)
from predictors.ld import compute_ld_scores
from predictors.ridge import fit_ridge

SHRINK_LADDER = (0.95, 0.8, 0.6, 0.4)
#: 21 proportions of causal variants, log-spaced from 1e-5 to 1
P_GRID = tuple(10.0 ** (k / 4 - 5) for k in range(21))
_H2_FLOOR = 1e-3
_P_RANGE = (1e-5, 1.0)
_LEAST_KEPT = 0.3


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
    """

    weights: Floats
    h2_path: Floats
    p_path: Floats
    range: float
    burn_in: int

    @property
    def h2(self) -> float:
        """Mean heritability over the sweeps kept."""
        return float(self.h2_path[self.burn_in :].mean())

    @property
    def p(self) -> float:
        """Mean proportion causal over the sweeps kept."""
        return float(self.p_path[self.burn_in :].mean())


def fit_ldpred2_auto(
    blocks: Sequence[BlockStatistics],
    *,
    h2: float,
    shrinks: Sequence[float] = SHRINK_LADDER,
    n_chains: int = 30,
    p_range: tuple[float, float] = (1e-4, 0.2),
    burn_in: int = 500,
    n_keep: int = 200,
    allow_jump_sign: bool = False,
    seed: int = 1,
    map_function: MapFunction = map_in_process,
) -> PredictorFit:
    """Fit LDpred2-auto: h2 and the proportion p of causal variants are estimated along with the effects.

    Chains start at proportions log-spaced over p_range. A chain is kept when the range of R w exceeds 0.95 of the 95 %
    quantile over chains; the weights are the mean of those kept. When fewer than 30 % are kept the next smaller
    shrink is tried, and after the last one ridge takes over with that shrink; the record says so.

    Args:
        blocks: LD blocks of the whole genome.
        h2: heritability to start from (LD score regression), above 0.
        shrinks: factors of the off-diagonal of R, in the order in which they are tried.
        n_chains: chains.
        p_range: smallest and largest starting proportion.
        burn_in: sweeps thrown away.
        n_keep: sweeps averaged.
        allow_jump_sign: let an effect change sign from one sweep to the next.
        seed: seed of the whole fit; the result does not depend on how map_function distributes the chains.
        map_function: applies a function to every chain; may distribute them. Threads share R, sweeps release the GIL.

    Returns:
        Weights. The record states method (``ldpred2-auto``, or ``ridge`` after the fallback), h2, p, shrink, n_kept,
        fallbacks (texts), and per chain, of the attempt used: p_init, kept, range, h2_path, p_path.

    Raises:
        PredictorError: h2 is not positive, there is no variant, or the settings are out of range.

    Source: Prive et al. (2020), LDpred2, Bioinformatics 36:5424; Prive et al. (2023), Inferring disease architecture,
    AJHG 110:2042 (tracking of h2 and p, no sign jumps, chain filter).
    """
    _check_settings(blocks, h2, burn_in, n_keep)
    if n_chains < 1 or not shrinks or not 0 < p_range[0] <= p_range[1] <= 1:
        raise PredictorError(
            f"expected at least one chain, one shrink and 0 < p <= 1, got {n_chains}, {shrinks}, {p_range}"
        )
    p_init = np.geomspace(*p_range, n_chains)
    mean_ld_score = float(np.concatenate([compute_ld_scores(block.R) for block in blocks]).mean())
    fallbacks: list[str] = []
    for attempt, shrink in enumerate(shrinks):
        settings = [
            ChainSettings(h2, float(p), shrink, burn_in, n_keep, True, allow_jump_sign, mean_ld_score) for p in p_init
        ]
        chains = _run_chains(blocks, settings, [seed, attempt], map_function)
        kept = select_chains(np.array([chain.range for chain in chains]))
        if kept.sum() >= max(_LEAST_KEPT * n_chains, 1):
            return _average_chains(blocks, chains, kept, settings, fallbacks)
        fallbacks.append(f"shrink {shrink:g}: only {int(kept.sum())} of {n_chains} chains kept")
    ridge = fit_ridge(blocks, h2=h2, shrink=shrinks[-1], map_function=map_function)
    fallbacks.append("ridge weights instead of LDpred2-auto: check the summary statistics against the LD reference")
    chain_record = _record_chains(chains, kept, settings)
    return PredictorFit(ridge.weights, ridge.r2_promised, {**ridge.record, "fallbacks": fallbacks, **chain_record})


def fit_ldpred2_grid(
    blocks: Sequence[BlockStatistics],
    *,
    h2: float,
    tune: Tune,
    p_values: Sequence[float] = P_GRID,
    h2_factors: Sequence[float] = (0.3, 0.7, 1.0, 1.4),
    shrink: float = 0.95,
    burn_in: int = 50,
    n_keep: int = 100,
    seed: int = 1,
    map_function: MapFunction = map_in_process,
) -> PredictorFit:
    """Fit LDpred2 on a grid of fixed hyper-parameters and return the weights that tuning data prefer.

    Args:
        blocks: LD blocks of the whole genome.
        h2: heritability (LD score regression), above 0.
        tune: ``tune(weights per block) -> how well they predict``, in data outside the GWAS; larger is better.
        p_values: proportions of causal variants.
        h2_factors: multiples of h2.
        shrink: factor of the off-diagonal of R.
        burn_in: sweeps thrown away.
        n_keep: sweeps averaged.
        seed: seed of the whole fit.
        map_function: applies a function to every grid point; may distribute them.

    Returns:
        Best weights. The record states p, h2, and the whole grid: parameters and what ``tune`` made of them, NaN
        where the chain diverged.

    Raises:
        PredictorError: h2 is not positive, there is no variant, settings are out of range, or every chain diverged.

    Source: Prive et al. (2020), LDpred2, Bioinformatics 36:5424.
    """
    _check_settings(blocks, h2, burn_in, n_keep)
    grid = list(product(p_values, h2_factors))
    if not grid or not all(0 < p <= 1 and factor > 0 for p, factor in grid):
        raise PredictorError(f"the grid needs 0 < p <= 1 and positive h2 factors, got {p_values} and {h2_factors}")
    settings = [ChainSettings(h2 * factor, p, shrink, burn_in, n_keep, False, True) for p, factor in grid]
    chains = _run_chains(blocks, settings, [seed], map_function)
    candidates = [split_by_block(blocks, chain.weights) for chain in chains]
    best, scores = select_best(candidates, tune)
    record = {
        "method": "ldpred2-grid",
        "p": settings[best].p,
        "h2": settings[best].h2,
        "shrink": shrink,
        "grid": [{"p": s.p, "h2": s.h2, "score": float(score)} for s, score in zip(settings, scores, strict=True)],
    }
    return PredictorFit(candidates[best], promised_r2(blocks, candidates[best]), record)


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
    h2, p, quadratic = settings.h2, settings.p, 0.0
    limit = 2.0 * float(beta_hat @ beta_hat)
    for k in range(n_sweeps):
        keep = k >= settings.burn_in
        n_causal, quadratic = sweep_blocks(
            rng, Rs, beta_hat, n, b, dot, total, quadratic, h2, p, settings.shrink, settings.allow_jump_sign, keep
        )
        if not b @ b <= limit:
            return Chain(np.full(M, np.nan), h2_path, p_path, np.nan, settings.burn_in)
        if settings.estimate:
            h2 = max(quadratic, _H2_FLOOR)
            effective = np.array([n_causal, M - n_causal]) / settings.mean_ld_score
            p = float(np.clip(rng.beta(1.0 + effective[0], 1.0 + effective[1]), *_P_RANGE))
        h2_path[k], p_path[k] = h2, p
    weights = total / settings.n_keep
    return Chain(weights, h2_path, p_path, _range_of_implied_effects(blocks, weights), settings.burn_in)


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


def _check_settings(blocks: Sequence[BlockStatistics], h2: float, burn_in: int, n_keep: int) -> None:
    if not h2 > 0:
        raise PredictorError(f"LDpred2 needs a positive heritability, got {h2}; give h2 or check LD score regression")
    if not sum(block.beta_hat.size for block in blocks):
        raise PredictorError("no variant to fit: every LD block is empty")
    if burn_in < 0 or n_keep < 1:
        raise PredictorError(f"expected burn_in >= 0 and n_keep >= 1, got {burn_in} and {n_keep}")


def _run_chains(
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


def _average_chains(
    blocks: Sequence[BlockStatistics],
    chains: Sequence[Chain],
    kept: NDArray[np.bool_],
    settings: Sequence[ChainSettings],
    fallbacks: list[str],
) -> PredictorFit:
    """Return the mean of the chains kept, with the record of all."""
    used = [chain for chain, keep in zip(chains, kept, strict=True) if keep]
    weights = split_by_block(blocks, np.mean([chain.weights for chain in used], axis=0))
    record: dict[str, object] = {
        "method": "ldpred2-auto",
        "h2": float(np.mean([chain.h2 for chain in used])),
        "p": float(np.mean([chain.p for chain in used])),
        "shrink": settings[0].shrink,
        "fallbacks": fallbacks,
    }
    return PredictorFit(weights, promised_r2(blocks, weights), record | _record_chains(chains, kept, settings))


def _record_chains(
    chains: Sequence[Chain], kept: NDArray[np.bool_], settings: Sequence[ChainSettings]
) -> dict[str, object]:
    return {
        "h2_init": settings[0].h2,
        "burn_in": settings[0].burn_in,
        "n_keep": settings[0].n_keep,
        "n_chains": len(chains),
        "n_kept": int(kept.sum()),
        "n_variants": chains[0].weights.size,
        "chains": [
            {
                "p_init": s.p,
                "kept": bool(keep),
                "range": chain.range,
                "h2_path": chain.h2_path,
                "p_path": chain.p_path,
            }
            for chain, keep, s in zip(chains, kept, settings, strict=True)
        ],
    }
