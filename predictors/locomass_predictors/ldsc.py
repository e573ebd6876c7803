"""Heritability from summary statistics: LD score regression in two steps, with block-jackknife errors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from locomass_predictors.base import Floats, PredictorError

_MAX_REWEIGHTINGS = 100


@dataclass(frozen=True, slots=True)
class LdScoreRegression:
    """Result of an LD score regression.

    Attributes:
        h2: heritability explained by the M variants, observed scale.
        h2_se: jackknife standard error of h2.
        intercept: mean chi-square of a variant that tags nothing; 1 without confounding or overlap.
        intercept_se: its jackknife standard error.
        mean_chi2: mean chi-square of the variants used.
        n_variants: variants used.
    """

    h2: float
    h2_se: float
    intercept: float
    intercept_se: float
    mean_chi2: float
    n_variants: int


def fit_ld_score_regression(
    chi2: Floats,
    ld_scores: Floats,
    n: Floats,
    *,
    n_variants_reference: int,
    chi2_limit: float = 30.0,
    n_blocks: int = 200,
) -> LdScoreRegression:
    """Estimate heritability from ``E[chi2_j] = intercept + N_j h2 l_j / M``.

    Step 1 fits intercept and slope on the variants with chi2 below the limit; step 2 keeps that intercept and fits the
    slope on all. Weights ``1 / (max(l, 1) pred^2)`` are iterated to convergence; errors come from a jackknife over
    consecutive blocks that repeats both steps.

    Args:
        chi2: (m,) association chi-squares, in genome order.
        ld_scores: (m,) LD scores.
        n: (m,) sample sizes.
        n_variants_reference: M, the variants over which LD scores were summed.
        chi2_limit: step 1 uses variants below it.
        n_blocks: jackknife blocks; fewer when there are fewer variants.

    Returns:
        Heritability, intercept and their standard errors. h2 is not clipped: it may be negative.

    Raises:
        PredictorError: shapes differ, numbers are not finite, or fewer than 10 variants are under the limit.

    Source: Bulik-Sullivan et al. (2015), Nat Genet 47:291.
    """
    if not chi2.shape == ld_scores.shape == n.shape or chi2.ndim != 1:
        raise PredictorError(f"chi2, ld_scores, n must be equally long, got {chi2.shape}, {ld_scores.shape}, {n.shape}")
    if not (np.isfinite(chi2).all() and np.isfinite(ld_scores).all() and (n > 0).all() and n_variants_reference > 0):
        raise PredictorError("LD score regression needs finite chi2 and LD scores, positive n and positive M")
    first = chi2 < chi2_limit
    if first.sum() < 10:
        raise PredictorError(f"only {int(first.sum())} variants have chi2 below {chi2_limit:g}; at least 10 are needed")
    x = ld_scores * n / n_variants_reference
    overcounting = 1.0 / np.maximum(ld_scores, 1.0)
    block = np.arange(chi2.size) * min(n_blocks, chi2.size // 2) // chi2.size
    intercept, _, intercepts = _fit_step(x[first], chi2[first], overcounting[first], block[first], None)
    # a jackknife block without any variant under the limit leaves the step-1 estimate as it is
    all_intercepts = np.full(block[-1] + 1, intercept)
    all_intercepts[: intercepts.size] = intercepts
    _, slope, slopes = _fit_step(x, chi2, overcounting, block, (intercept, all_intercepts))
    return LdScoreRegression(
        h2=slope,
        h2_se=_jackknife_error(slopes),
        intercept=intercept,
        intercept_se=_jackknife_error(all_intercepts),
        mean_chi2=float(chi2.mean()),
        n_variants=int(chi2.size),
    )


def _fit_step(
    x: Floats,
    y: Floats,
    overcounting: Floats,
    block: NDArray[np.int64],
    fixed: tuple[float, Floats] | None,
) -> tuple[float, float, Floats]:
    """Return intercept, slope and the leave-one-block-out values of the free one (the intercept in step 1).

    The weights are those of the whole fit; refitting them in every block changes the error by less than its own error.
    """
    w = _converge_weights(x, y, overcounting, None if fixed is None else fixed[0])
    n_blocks = int(block.max()) + 1
    moments = np.stack([np.bincount(block, v, n_blocks) for v in (w, w * x, w * x * x, w * y, w * x * y)])
    total = moments.sum(axis=1)
    left_out = total[:, None] - moments
    if fixed is None:
        intercept, slope = _solve_line(total)
        return float(intercept), float(slope), _solve_line(left_out)[0]
    constant, constants = fixed
    slopes: Floats = (left_out[4] - constants * left_out[1]) / left_out[2]
    return constant, float((total[4] - constant * total[1]) / total[2]), slopes


def _solve_line(moments: Floats) -> tuple[Floats, Floats]:
    """Return intercept and slope from the sums of w, wx, wxx, wy, wxy."""
    w, wx, wxx, wy, wxy = moments
    determinant = w * wxx - wx * wx
    return (wxx * wy - wx * wxy) / determinant, (w * wxy - wx * wy) / determinant


def _converge_weights(x: Floats, y: Floats, overcounting: Floats, intercept: float | None) -> Floats:
    """Return the weights ``overcounting / pred^2``, pred being the line that those weights fit."""
    constant = 1.0 if intercept is None else intercept
    # the aggregate estimate of the slope starts the iteration
    slope = max(float((y.mean() - constant) / x.mean()), 0.0)
    w: Floats = overcounting / np.square(np.maximum(constant + slope * x, 0.1))
    for _ in range(_MAX_REWEIGHTINGS):
        if intercept is None:
            a, b = _solve_line(np.array([w.sum(), (w * x).sum(), (w * x * x).sum(), (w * y).sum(), (w * x * y).sum()]))
        else:
            a, b = np.array(intercept), (w * x * (y - intercept)).sum() / (w * x * x).sum()
        updated: Floats = overcounting / np.square(np.maximum(a + b * x, 0.1))
        if np.abs(updated - w).max() <= 1e-10 * np.abs(w).max():
            return updated
        w = updated
    return w


def _jackknife_error(values: Floats) -> float:
    """Return ``sqrt((B - 1)/B sum (v_b - mean)^2)`` of B leave-one-block-out values."""
    B = values.size
    return float(np.sqrt((B - 1) / B * np.square(values - values.mean()).sum()))
