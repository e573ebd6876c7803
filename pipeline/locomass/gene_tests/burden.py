"""Burden tests: one weighted sum of the variants, its null law, an effect and its interval."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from locomass.gene_tests.base import TestResult, missing_result
from locomass.gene_tests.common_tests import SKAT_Q
from locomass.gene_tests.components import Components
from locomass.gene_tests.gene_sums import chi2_rows
from locomass.gene_tests.law import Law
from locomass.gene_tests.law_rows import CHI2, apply_law, laws_of_sum
from locomass.gene_tests.law_tails import Ties
from locomass.numbers import Floats


def evaluate_sum(
    U: Floats,
    variance: float,
    scale: Floats,
    laws: Sequence[Law | None] = (),
    *,
    ties: Ties = "mid",
    firth: bool = True,
) -> TestResult:
    """Return the row of one sum of variants that the caller has collapsed.

    ``T = U^2 / v``; p from the law of U, chi2_1 without one; ``beta = U / v``, ``se = 1 / sqrt(v)`` with v = scale *
    variance (Lin & Tang 2011, AJHG 89:354), the log odds ratio of a binary trait that has a law. Also the CAST / CMC
    indicator and the dominant or recessive burden, whose U and V come from individual-level data.

    Args:
        U: (T,) score of the sum.
        variance: its information, shared by the traits.
        scale: (T,) factors of the variance.
        laws: (T,) null laws of U; None where it is taken for normal; empty: everywhere.
        ties, firth: see ``law_tails`` and ``law_effects``.
    """
    if not 0.0 < variance < np.inf:
        return missing_result(U.shape[0], "the sum of the variants does not vary")
    statistic, log_p, beta, se = chi2_rows(U, variance, scale)
    row = TestResult(statistic, log_p, beta, se, np.zeros(U.shape[0]), CHI2)
    return apply_law(row, U, list(laws) or [None] * U.shape[0], ties, firth)


def burden(c: Components, scheme: str) -> TestResult:
    """Return the burden test ``T = (w'U)^2 / (w'Vw)`` under one set of weights, p from the law of w'U."""
    note = c.weight_note(scheme)
    if note:
        return missing_result(c.stats.n_traits, note)
    rows = c.common(scheme)
    if not rows.varies:
        return missing_result(c.stats.n_traits, "the weighted sum of the variants does not vary")
    statistic, log_p, beta, se = rows.values[:SKAT_Q]
    row = TestResult(statistic, log_p, beta, se, np.zeros(c.stats.n_traits), CHI2)
    w = c.weights(scheme)
    return apply_law(row, c.stats.U @ w, laws_of_sum(c.stats, w), c.ties, c.firth)


def price(c: Components, _: str) -> TestResult:
    """Return the weighted burden of all variants of the mask, common ones too (Price et al. 2010, AJHG 86:832).

    The weights ``1 / sqrt(p (1 - p))`` stand in for a frequency threshold.
    """
    return c.once("burden", "madsen-browning", burden)
