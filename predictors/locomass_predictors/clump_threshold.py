"""Clumping and thresholding: the marginal effects of variants that are significant and nearly independent."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import product
from typing import Annotated, cast

import numpy as np
from msgspec import Meta
from numba import njit
from scipy.special import chdtri

from locomass_predictors.base import (
    BlockStatistics,
    Floats,
    MapFunction,
    PredictorError,
    PredictorFit,
    Tune,
    map_in_process,
    select_best,
)
from locomass_predictors.method import Method, Need, Options, Source, Tags

Share = Annotated[float, Meta(ge=0, le=1)]
PValue = Annotated[float, Meta(gt=0, le=1)]


class ClumpThreshold(Options, frozen=True, kw_only=True):
    """Options of clumping and thresholding."""

    r2: Annotated[
        tuple[Share, ...],
        Meta(min_length=1, description="variants with more r2 than this with a better one are left out"),
    ] = (0.1,)
    window_kb: Annotated[float, Meta(gt=0, description="if they lie within so many kilobases of it")] = 250.0
    p_values: Annotated[
        tuple[PValue, ...], Meta(min_length=1, description="largest p-value of a variant that counts")
    ] = (5e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 0.01, 0.05, 0.1, 0.5, 1.0)


DEFAULTS = ClumpThreshold()


def fit_clump_threshold(
    blocks: Sequence[BlockStatistics],
    options: ClumpThreshold = DEFAULTS,
    *,
    tune: Tune,
    map_function: MapFunction = map_in_process,
) -> PredictorFit:
    """Clump at every r2, threshold at every p-value, and return the weights that tuning data prefer.

    Within a block the variant with the smallest p-value is kept and those in r2 above the limit with it, at most
    ``window_kb`` away, are removed; then the next that is left, to the last. A kept variant with a p-value up to the
    threshold has its marginal effect as weight.

    Args:
        blocks: LD blocks of the whole genome, with positions.
        options: r2 limits, window, p-values.
        tune: ``tune(weights per block) -> how well they predict``, in data outside the GWAS; larger is better.
        map_function: applies a function to every block; may distribute them.

    Returns:
        Best weights. The record states r2, p_value, the number of variants kept, and the whole grid.

    Raises:
        PredictorError: a block has no positions, or no grid point predicts anything.

    Source: International Schizophrenia Consortium (2009), Nature 460:748; Choi & O'Reilly (2019), GigaScience 8:giz082.
    """
    if any(block.position is None for block in blocks):
        raise PredictorError("clumping needs the positions of the variants of every LD block")
    keep = partial(clump_block, r2=np.array(options.r2), window=1_000.0 * options.window_kb)
    kept = [cast("Floats", found) for found in map_function(keep, blocks)]
    statistics = [block.n * block.beta_hat**2 / np.maximum(1 - block.beta_hat**2, 1e-12) for block in blocks]
    limits = chdtri(1, np.asarray(options.p_values))
    grid = list(product(range(len(options.r2)), range(len(limits))))
    parts = list(zip(blocks, kept, statistics, strict=True))
    candidates = [[np.where(own[k] & (z2 >= limits[l]), b.beta_hat, 0.0) for b, own, z2 in parts] for k, l in grid]
    best, scores = select_best(candidates, tune)
    weights = candidates[best]
    if not any(w.any() for w in weights):
        raise PredictorError("no variant has a p-value up to the thresholds: raise the largest of p_values")
    record = {
        "method": "clump-threshold",
        "r2": options.r2[grid[best][0]],
        "p_value": options.p_values[grid[best][1]],
        "n_kept": int(sum(np.count_nonzero(w) for w in weights)),
        "grid": [
            {"r2": options.r2[k], "p_value": options.p_values[l], "score": float(score)}
            for (k, l), score in zip(grid, scores, strict=True)
        ],
    }
    # what was selected because it is large has no penalty in closed form
    return PredictorFit(weights, None, record)


def clump_block(block: BlockStatistics, *, r2: Floats, window: float) -> Floats:
    """Return which variants of a block are kept.

    Args:
        block: the block, with positions.
        r2: (K,) limits.
        window: largest distance between a kept variant and one that it removes, in base pairs.

    Returns:
        (K, m) True where kept.
    """
    assert block.position is not None
    order = np.argsort(-block.n * block.beta_hat**2 / np.maximum(1 - block.beta_hat**2, 1e-12), kind="stable")
    R = np.ascontiguousarray(block.R)
    return np.stack([_clump(order, R, block.position, limit, window) for limit in r2])


@njit(cache=True, nogil=True)
def _clump(order, R, position, limit, window):  # type: ignore[no-untyped-def]
    """Return (m,) True where kept: ``order`` runs from the smallest p-value to the largest."""
    m = order.size
    kept, gone = np.zeros(m, np.bool_), np.zeros(m, np.bool_)
    for k in range(m):
        i = order[k]
        if gone[i]:
            continue
        kept[i] = True
        for j in range(m):
            if abs(position[j] - position[i]) <= window and R[i, j] * R[i, j] > limit:
                gone[j] = True
    return kept


METHOD = Method(
    name="clump-threshold",
    help="from GWAS summary statistics: significant variants that are nearly independent (clumping + thresholding)",
    source=Source.SUMMARY,
    fit=fit_clump_threshold,
    options=ClumpThreshold,
    needs=frozenset({Need.TUNING, Need.POSITIONS}),
    # marginal effects of variants in LD count their signal several times, and what is clumped away is not replaced
    tags=Tags(least_r2=0.5, quick=ClumpThreshold(r2=(0.1, 0.5), p_values=(0.01, 1.0))),
)
