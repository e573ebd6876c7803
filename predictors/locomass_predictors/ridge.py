"""Ridge from summary statistics: LDpred-inf, SBLUP. Deterministic, and the oracle for the other methods."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Annotated, cast

import numpy as np
from msgspec import Meta
from scipy.linalg import cho_factor, cho_solve

from locomass_predictors.base import (
    BlockStatistics,
    Floats,
    MapFunction,
    PredictorError,
    PredictorFit,
    map_in_process,
    noise_covariance,
    promise_of,
)
from locomass_predictors.method import Method, Need, Options, Source


class Ridge(Options, frozen=True, kw_only=True):
    """Options of ridge."""

    shrink: Annotated[float, Meta(gt=0, le=1, description="factor of the correlations between variants")] = 0.95


DEFAULTS = Ridge()


def fit_ridge(
    blocks: Sequence[BlockStatistics],
    options: Ridge = DEFAULTS,
    *,
    h2: float,
    map_function: MapFunction = map_in_process,
) -> PredictorFit:
    """Fit ridge weights, block by block.

    Solves ``(R_s + diag(M / (h2 N_j))) w = beta_hat`` by Cholesky, ``R_s = shrink R + (1 - shrink) I``: the posterior
    mean when every one of the M variants has an effect from N(0, h2/M).

    Args:
        blocks: LD blocks of the whole genome.
        options: shrink, the factor of the off-diagonal of R.
        h2: heritability that all variants explain together, above 0.
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
    solve = partial(solve_block, variance=h2 / M, shrink=options.shrink)
    solved = cast("list[tuple[Floats, float]]", map_function(solve, blocks))
    weights, penalty = [w for w, _ in solved], sum(part for _, part in solved)
    record = {"method": "ridge", "h2": h2, "shrink": options.shrink, "n_variants": M}
    return PredictorFit(weights, promise_of(blocks, weights, lambda _: penalty), record)


def solve_block(block: BlockStatistics, *, variance: float, shrink: float) -> tuple[Floats, float]:
    """Return the ridge weights of one block, and what their covariance with the trait owes to noise.

    Args:
        block: the block.
        variance: variance of one standardised effect, h2/M.
        shrink: factor of the off-diagonal of R.

    Returns:
        (m,) weights ``inv(A) b``, and the penalty ``tr(inv(A) Cov(b))`` with Cov(b) = R/N.

    Raises:
        PredictorError: see `factor_block`.
    """
    factor = factor_block(block, variance, shrink)
    penalty = float(np.trace(cho_solve(factor, noise_covariance(block), overwrite_b=True)))
    return np.asarray(cho_solve(factor, block.beta_hat)), penalty


def solve_weights(block: BlockStatistics, *, variance: float, shrink: float) -> Floats:
    """Return the ridge weights of one block, as `solve_block` does, without the price of the penalty."""
    return np.asarray(cho_solve(factor_block(block, variance, shrink), block.beta_hat))


def factor_block(block: BlockStatistics, variance: float, shrink: float) -> tuple[Floats, bool]:
    """Return the Cholesky factor of ``A = R_s + diag(1 / (variance N))``.

    Raises:
        PredictorError: the penalised correlation is not positive definite, so R is not a correlation.
    """
    A = shrink * block.R.astype(np.float64)
    np.fill_diagonal(A, 1.0 + 1.0 / (variance * block.n))
    try:
        factor, lower = cho_factor(A, lower=True, overwrite_a=True)
    except np.linalg.LinAlgError as error:
        raise PredictorError(
            f"the correlations of a block of {block.beta_hat.size} variants on chromosome {block.chromosome} are not "
            "positive semidefinite, so not those of any sample; rebuild the LD, or lower shrink or h2"
        ) from error
    return factor, lower


METHOD = Method(
    name="ridge",
    help="from GWAS summary statistics: every variant has a small effect (LDpred-inf, SBLUP)",
    source=Source.SUMMARY,
    fit=fit_ridge,
    options=Ridge,
    needs=frozenset({Need.H2}),
)
