"""lassosum2: lasso with ridge from summary statistics, by coordinate descent within LD blocks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import product
from typing import cast

import numpy as np
from numba import njit

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
)


def fit_lassosum2(
    blocks: Sequence[BlockStatistics],
    *,
    h2: float,
    tune: Tune,
    deltas: Sequence[float] = (0.001, 0.01, 0.1, 1.0),
    n_lambdas: int = 30,
    lambda_ratio: float = 0.01,
    tolerance: float = 1e-5,
    max_passes: int = 1_000,
    map_function: MapFunction = map_in_process,
) -> PredictorFit:
    """Fit lassosum2 over a grid and return the weights that tuning data prefer.

    Minimises ``w'(R + delta I) w / 2 - w'beta_hat + lambda |w|_1``. Lambda runs down, log-spaced, from max |beta_hat|
    of the genome to ``lambda_ratio`` times it, each fit starting from the one before.

    Args:
        blocks: LD blocks of the whole genome.
        h2: heritability; recorded, and refused when not positive, for a trait without signal has nothing to select.
        tune: ``tune(weights per block) -> how well they predict``, in data outside the GWAS; larger is better.
        deltas: ridge penalties.
        n_lambdas: lasso penalties.
        lambda_ratio: smallest lambda over the largest.
        tolerance: a fit has converged when no weight moves by more than this times max |beta_hat|.
        max_passes: most passes over a block per grid point.
        map_function: applies a function to every block; may distribute them.

    Returns:
        Best weights. The record states delta, lambda and the whole grid: parameters and what ``tune`` made of them, NaN
        where a block did not converge. Memory holds all grid points: 8 bytes x variants x deltas x lambdas.

    Raises:
        PredictorError: h2 is not positive, no effect differs from 0, or no grid point is usable.

    Source: Mak et al. (2017), lassosum, Genet Epidemiol 41:469; Prive et al. (2022), lassosum2, HGG Advances 3:100136.
    """
    largest = max((float(np.abs(block.beta_hat).max(initial=0.0)) for block in blocks), default=0.0)
    if not h2 > 0 or not largest > 0:
        raise PredictorError(
            f"lassosum2 needs a positive heritability and effects, got h2 {h2}, max |effect| {largest}"
        )
    if not (n_lambdas >= 1 and 0 < lambda_ratio < 1 and deltas and min(deltas) >= 0):
        raise PredictorError(
            f"expected n_lambdas >= 1, 0 < lambda_ratio < 1, deltas >= 0: {n_lambdas}, {lambda_ratio}, {deltas}"
        )
    lambdas = np.geomspace(largest, lambda_ratio * largest, n_lambdas)
    solve = partial(
        solve_block,
        deltas=np.array(deltas, dtype=np.float64),
        lambdas=lambdas,
        tolerance=tolerance * largest,
        max_passes=max_passes,
    )
    paths = [cast("Floats", path) for path in map_function(solve, blocks)]
    grid = list(product(range(len(deltas)), range(n_lambdas)))
    candidates = [[path[d, l] for path in paths] for d, l in grid]
    best, scores = select_best(candidates, tune)
    record = {
        "method": "lassosum2",
        "h2": h2,
        "delta": float(deltas[grid[best][0]]),
        "lambda": float(lambdas[grid[best][1]]),
        "grid": [
            {"delta": float(deltas[d]), "lambda": float(lambdas[l]), "score": float(score)}
            for (d, l), score in zip(grid, scores, strict=True)
        ],
    }
    weights = [np.ascontiguousarray(w) for w in candidates[best]]
    return PredictorFit(weights, promised_r2(blocks, weights), record)


def solve_block(
    block: BlockStatistics, *, deltas: Floats, lambdas: Floats, tolerance: float, max_passes: int
) -> Floats:
    """Return the weights of one block at every grid point.

    Args:
        block: the block.
        deltas: (D,) ridge penalties.
        lambdas: (L,) lasso penalties, descending.
        tolerance: largest move of a weight in the last pass.
        max_passes: most passes per grid point.

    Returns:
        (D, L, m) weights; NaN from the grid point on where passes ran out, as they do when R + delta I is not
        positive definite.
    """
    R = np.ascontiguousarray(block.R, dtype=np.float32)
    return np.stack([_descend(R, block.beta_hat, delta, lambdas, tolerance, max_passes) for delta in deltas])


@njit(cache=True, nogil=True)
def _descend(R, beta_hat, delta, lambdas, tolerance, max_passes):  # type: ignore[no-untyped-def]
    """Return (L, m) the lasso path at one delta.

    One step: ``u = beta_hat_j - (dot_j - w_j)``, ``w_j = soft(u, lambda) / (1 + delta)``, with dot = R w up to date.
    """
    m = beta_hat.size
    path = np.full((lambdas.size, m), np.nan)
    w, dot = np.zeros(m), np.zeros(m)
    for k in range(lambdas.size):
        converged = False
        for _ in range(max_passes):
            largest_move = 0.0
            for j in range(m):
                u = beta_hat[j] - (dot[j] - w[j])
                size = abs(u) - lambdas[k]
                target = np.sign(u) * size / (1.0 + delta) if size > 0.0 else 0.0
                change = target - w[j]
                if change != 0.0:
                    w[j] = target
                    largest_move = max(largest_move, abs(change))
                    row = R[j]
                    for q in range(m):
                        dot[q] += change * row[q]
            if not np.isfinite(largest_move):
                return path
            if largest_move <= tolerance:
                converged = True
                break
        if not converged:
            return path
        path[k] = w
    return path
