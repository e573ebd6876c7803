"""Ridge from summary statistics: LDpred-inf, SBLUP. Deterministic, and the oracle for the other methods."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import cast

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from predictors.base import (
    BlockStatistics,
    Floats,
    MapFunction,
    PredictorError,
    PredictorFit,
    map_in_process,
    promised_r2,
)


def fit_ridge(
    blocks: Sequence[BlockStatistics], *, h2: float, shrink: float = 0.95, map_function: MapFunction = map_in_process
) -> PredictorFit:
    """Fit ridge weights, block by block.

    Solves ``(R_s + diag(M / (h2 N_j))) w = beta_hat`` by Cholesky, ``R_s = shrink R + (1 - shrink) I``: the posterior
    mean when every one of the M variants has an effect from N(0, h2/M).

    Args:
        blocks: LD blocks of the whole genome.
        h2: heritability that all variants explain together, above 0.
        shrink: factor of the off-diagonal of R.
        map_function: applies a function to every block; may distribute them.

    Returns:
        Weights (m,) per block; the record states h2, shrink and M.

    Raises:
        PredictorError: h2 is not positive or there is no variant.

    Source: Vilhjalmsson et al. (2015), LDpred, AJHG 97:576; Robinson et al. (2017), SBLUP, Nat Hum Behav 1:0016.
    """
    if not h2 > 0:
        raise PredictorError(f"ridge needs a positive heritability, got {h2}; give h2 or check LD score regression")
    M = sum(block.beta_hat.size for block in blocks)
    if M == 0:
        raise PredictorError("no variant to fit: every LD block is empty")
    solve = partial(solve_block, variance=h2 / M, shrink=shrink)
    weights = [cast("Floats", w) for w in map_function(solve, blocks)]
    record = {"method": "ridge", "h2": h2, "shrink": shrink, "n_variants": M}
    return PredictorFit(weights, promised_r2(blocks, weights), record)


def solve_block(block: BlockStatistics, *, variance: float, shrink: float) -> Floats:
    """Return the ridge weights of one block.

    Args:
        block: the block.
        variance: variance of one standardised effect, h2/M.
        shrink: factor of the off-diagonal of R.

    Returns:
        (m,) weights.

    Raises:
        PredictorError: the penalised correlation is not positive definite, so R is not a correlation.
    """
    # w = inv(R_s + diag(1 / (variance N))) beta_hat
    A = shrink * block.R.astype(np.float64)
    np.fill_diagonal(A, 1.0 + 1.0 / (variance * block.n))
    try:
        factor = cho_factor(A, lower=True, overwrite_a=True)
    except np.linalg.LinAlgError as error:
        raise PredictorError(
            f"the correlations of a block of {block.beta_hat.size} variants on chromosome {block.chromosome} are not "
            "positive semidefinite, so not those of any sample; rebuild the LD, or lower shrink or h2"
        ) from error
    return np.asarray(cho_solve(factor, block.beta_hat))
