"""lassosum2: lasso with ridge from summary statistics, by coordinate descent within LD blocks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import product
from typing import Annotated, cast

import numpy as np
from msgspec import Meta
from numba import njit

from locomass_predictors.base import (
    BlockStatistics,
    Floats,
    MapFunction,
    PredictorError,
    PredictorFit,
    Tune,
    map_in_process,
    noise_covariance,
    promise_of,
    select_best,
)
from locomass_predictors.method import Method, Need, Options, Source, Tags


class Lassosum2(Options, frozen=True, kw_only=True):
    """Options of lassosum2."""

    deltas: Annotated[
        tuple[Annotated[float, Meta(ge=0)], ...],
        Meta(min_length=1, description="ridge penalties, added to the diagonal of R"),
    ] = (0.001, 0.01, 0.1, 1.0)
    n_lambdas: Annotated[int, Meta(ge=1, description="lasso penalties, log-spaced from the largest effect down")] = 30
    lambda_ratio: Annotated[float, Meta(gt=0, lt=1, description="smallest lasso penalty over the largest")] = 0.01
    tolerance: Annotated[
        float, Meta(gt=0, description="largest move of a weight in the last pass, in units of the largest effect")
    ] = 1e-5
    max_passes: Annotated[int, Meta(ge=1, description="most passes over a block per grid point")] = 1_000


DEFAULTS = Lassosum2()


def fit_lassosum2(
    blocks: Sequence[BlockStatistics],
    options: Lassosum2 = DEFAULTS,
    *,
    tune: Tune,
    map_function: MapFunction = map_in_process,
) -> PredictorFit:
    """Fit lassosum2 over a grid and return the weights that tuning data prefer.

    Minimises ``w'(R + delta I) w / 2 - w'beta_hat + lambda |w|_1``. Lambda runs down, log-spaced, from max |beta_hat|
    of the genome to ``lambda_ratio`` times it, each fit starting from the one before.

    Args:
        blocks: LD blocks of the whole genome.
        options: penalties, and when a fit has converged.
        tune: ``tune(weights per block) -> how well they predict``, in data outside the GWAS; larger is better.
        map_function: applies a function to every block; may distribute them.

    Returns:
        Best weights. The record states delta, lambda and the whole grid: parameters and what ``tune`` made of them, NaN
        where a block did not converge. Memory holds all grid points: 8 bytes x variants x deltas x lambdas.

    Raises:
        PredictorError: no effect differs from 0, or no grid point is usable.

    Source: Mak et al. (2017), lassosum, Genet Epidemiol 41:469; Prive et al. (2022), lassosum2, HGG Advances 3:100136.
    """
    largest = max((float(np.abs(block.beta_hat).max(initial=0.0)) for block in blocks), default=0.0)
    if not largest > 0:
        raise PredictorError("lassosum2 needs effects, got max |effect| 0")
    deltas, n_lambdas, lambda_ratio = options.deltas, options.n_lambdas, options.lambda_ratio
    if not (n_lambdas >= 1 and 0 < lambda_ratio < 1 and deltas and min(deltas) >= 0):
        raise PredictorError(
            f"expected n_lambdas >= 1, 0 < lambda_ratio < 1, deltas >= 0: {n_lambdas}, {lambda_ratio}, {deltas}"
        )
    lambdas = np.geomspace(largest, lambda_ratio * largest, n_lambdas)
    solve = partial(
        solve_block,
        deltas=np.array(deltas, dtype=np.float64),
        lambdas=lambdas,
        tolerance=options.tolerance * largest,
        max_passes=options.max_passes,
    )
    paths = [cast("Floats", path) for path in map_function(solve, blocks)]
    grid = list(product(range(len(deltas)), range(n_lambdas)))
    candidates = [[path[d, l] for path in paths] for d, l in grid]
    best, scores = select_best(candidates, tune)
    record = {
        "method": "lassosum2",
        "delta": float(deltas[grid[best][0]]),
        "lambda": float(lambdas[grid[best][1]]),
        "grid": [
            {"delta": float(deltas[d]), "lambda": float(lambdas[l]), "score": float(score)}
            for (d, l), score in zip(grid, scores, strict=True)
        ],
    }
    weights = [np.ascontiguousarray(w) for w in candidates[best]]
    delta = float(deltas[grid[best][0]])
    penalty = sum(count_degrees(block, w, delta) for block, w in zip(blocks, weights, strict=True))
    return PredictorFit(weights, promise_of(blocks, weights, lambda _: penalty), record)


def count_degrees(block: BlockStatistics, w: Floats, delta: float) -> float:
    """Return what the covariance of the weights of a block with the trait owes to noise.

    On the active set A, where w is not 0, ``w_A = inv(R_AA + delta I)(b_A - lambda sign(w_A))``, so the penalty is
    ``tr(inv(R_AA + delta I) Cov(b)_AA)``: the degrees of freedom of the lasso over N.

    Source: Tibshirani & Taylor (2012), Degrees of freedom in lasso problems, Ann Stat 40:1198.
    """
    A = np.flatnonzero(w)
    inner = block.R[np.ix_(A, A)].astype(np.float64) + delta * np.eye(A.size)
    return float(np.trace(np.linalg.solve(inner, noise_covariance(block)[np.ix_(A, A)])))


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


METHOD = Method(
    name="lassosum2",
    help="from GWAS summary statistics: lasso with ridge, tuned",
    source=Source.SUMMARY,
    fit=fit_lassosum2,
    options=Lassosum2,
    needs=frozenset({Need.TUNING}),
    # float32 products of R: a last bit that changes is seen at 1e-6 of an sd. The smallest lambda, 1 % of the largest
    # effect, is kept whatever the sample size, and so is delta
    tags=Tags(tolerance=1e-4, endless=0.011, unpenalised=Lassosum2(deltas=(0.0,))),
)
