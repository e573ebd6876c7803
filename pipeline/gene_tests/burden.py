"""Burden tests: one weighted sum of the variants, a chi-square with one degree of freedom, an effect and its error."""

from __future__ import annotations

import numpy as np

from pipeline.gene_tests.base import Floats, TestResult, missing_result
from pipeline.gene_tests.components import Components
from pipeline.kernels.gene_sums import chi2_rows, weighted_sum

# a sum whose variance is below this part of what its terms have on their own has cancelled out
CANCELLED = 1e-10


def evaluate_sum(U: Floats, variance: float, scale: Floats) -> TestResult:
    """Return the row of one sum of variants that the caller has collapsed.

    ``T = U^2 / v``, chi2_1; ``beta = U / v``, ``se = 1 / sqrt(v)`` with v = scale * variance (Lin & Tang 2011, AJHG
    89:354). Also the CAST / CMC indicator and the dominant or recessive burden, whose U and V come from individual
    data.

    Args:
        U: (T,) score of the sum.
        variance: its information, shared by the traits.
        scale: (T,) factors of the variance.
    """
    if not 0.0 < variance < np.inf:
        return missing_result(U.shape[0], "the sum of the variants does not vary")
    statistic, log_p, beta, se = chi2_rows(U, variance, scale)
    return TestResult(
        statistic=statistic,
        log_p=log_p,
        beta=beta,
        se=se,
        p_error=np.zeros(U.shape[0]),
        method="chi2",
    )


def evaluate_weighted_sum(U: Floats, V: Floats, scale: Floats, w: Floats) -> TestResult:
    """Return the row of the burden ``w'U`` with information ``w'Vw``.

    Args:
        U: (T, m) scores.
        V: (m, m) information matrix.
        scale: (T,) factors of V.
        w: (m,) weights.
    """
    total, variance, own = weighted_sum(U, V, w)
    if not variance > CANCELLED * own:
        return missing_result(U.shape[0], "the weighted sum of the variants does not vary")
    return evaluate_sum(total, variance, scale)


def burden(c: Components, scheme: str) -> TestResult:
    """Return the burden test ``T = (w'U)^2 / (w'Vw)`` under one set of weights."""
    note = c.weight_note(scheme)
    if note:
        return missing_result(c.stats.n_traits, note)
    return evaluate_weighted_sum(c.stats.U, c.stats.V, c.stats.scale, c.weights(scheme))


def price(c: Components, _: str) -> TestResult:
    """Return the weighted burden of all variants of the mask, common ones too (Price et al. 2010, AJHG 86:832).

    The weights ``1 / sqrt(p (1 - p))`` stand in for a frequency threshold.
    """
    return c.once("burden", "madsen-browning", burden)
