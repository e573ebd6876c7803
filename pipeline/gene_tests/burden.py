"""Burden tests: one weighted sum of the variants, a chi-square with one degree of freedom, an effect and its error."""

from __future__ import annotations

import numpy as np

from pipeline.gene_tests.base import Floats, TestResult, missing_result
from pipeline.gene_tests.components import Components
from pipeline.kernels.common_tests import SKAT_Q
from pipeline.kernels.gene_sums import chi2_rows


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


def burden(c: Components, scheme: str) -> TestResult:
    """Return the burden test ``T = (w'U)^2 / (w'Vw)`` under one set of weights."""
    note = c.weight_note(scheme)
    if note:
        return missing_result(c.stats.n_traits, note)
    rows = c.common(scheme)
    if not rows.varies:
        return missing_result(c.stats.n_traits, "the weighted sum of the variants does not vary")
    statistic, log_p, beta, se = rows.values[:SKAT_Q]
    return TestResult(statistic, log_p, beta, se, np.zeros(c.stats.n_traits), "chi2")


def price(c: Components, _: str) -> TestResult:
    """Return the weighted burden of all variants of the mask, common ones too (Price et al. 2010, AJHG 86:832).

    The weights ``1 / sqrt(p (1 - p))`` stand in for a frequency threshold.
    """
    return c.once("burden", "madsen-browning", burden)
