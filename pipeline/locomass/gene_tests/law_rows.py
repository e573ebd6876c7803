"""Rows of sums of variants from their null laws: p-value, effect, standard error and interval of every trait."""

from __future__ import annotations

import math
from dataclasses import replace

from numba import njit

from locomass.gene_tests.base import ScoreStatistics, TestResult
from locomass.gene_tests.law import Law, StudyCarriers, law_of_sum
from locomass.gene_tests.law_effects import NORMAL_95, estimate_effect
from locomass.gene_tests.law_tails import Ties, is_normal, score_log_p
from locomass.numbers import Floats

CHI2 = "chi2"


def apply_law(row: TestResult, U: Floats, laws: list[Law | None], ties: Ties, firth: bool) -> TestResult:
    """Return the row of a sum with p, effect and interval from its law, for each trait that has one.

    Args:
        row: by the normal law, with beta and se.
        U: (T,) scores of the sum.
        laws: (T,) laws; None where the score is taken for normal.
        ties, firth: see ``law_tails`` and ``law_effects``.
    """
    row = with_interval(row)
    assert row.beta is not None
    assert row.se is not None
    assert row.ci_low is not None
    assert row.ci_high is not None
    log_p, beta, se, low, high = (x.copy() for x in (row.log_p, row.beta, row.se, row.ci_low, row.ci_high))
    methods = set()
    for t, law in enumerate(laws):
        if law is None or not law.step.size or math.isnan(U[t]):
            methods.add(row.method)
            continue
        log_p[t], method = score_log_p(law, float(U[t]), ties)
        methods.add(method)
        if law.is_binary:
            effect = estimate_effect(law, float(U[t]), firth)
            beta[t], se[t], low[t], high[t] = effect.beta, effect.se, effect.low, effect.high
        elif law.information is not None and law.information > 0.0:  # one step from 0 towards the log hazard ratio
            beta[t], se[t] = U[t] / law.information, law.information**-0.5
            low[t], high[t] = beta[t] - NORMAL_95 * se[t], beta[t] + NORMAL_95 * se[t]
    named = ", ".join(sorted(methods - {""})) or row.method
    return replace(row, log_p=log_p, beta=beta, se=se, ci_low=low, ci_high=high, method=named)


def with_interval(row: TestResult) -> TestResult:
    """Return a row whose effect has the interval of a normal estimate."""
    if row.beta is None or row.se is None:
        return row
    return replace(row, ci_low=row.beta - NORMAL_95 * row.se, ci_high=row.beta + NORMAL_95 * row.se)


def laws_of_sum(stats: ScoreStatistics, w: Floats) -> list[Law | None]:
    """Return the law of ``w'U`` of every trait; None where the normal law is within 1 %, or nothing better is known."""
    if not stats.laws:
        return [None] * stats.n_traits
    if stats.n_traits > 1:  # quantitative traits of one study: the same people, other residuals
        wanted = _far_from_normal(stats, w)
        return [law_of_sum(own, w) if yes else None for own, yes in zip(stats.laws, wanted, strict=True)]
    return [law_of_sum(stats.laws[0], w)]


def _far_from_normal(stats: ScoreStatistics, w: Floats) -> list[bool]:
    """Return for which traits of one study the law of ``w'U`` is more than 1 % from the normal law."""
    first = stats.laws[0][0]
    step, count = first.steps(w), first.count
    S3, S4 = float(count @ step**3), float(count @ step**4)
    V = first.variance(w) / first.scale
    out = []
    for (own,), U in zip(stats.laws, stats.U @ w, strict=True):
        m3, m4 = residual_cumulants(own)
        out.append(V > 0.0 and not is_normal(float(U), V * own.scale, S3 * m3, S4 * m4, 0.0, True))
    return out


def residual_cumulants(own: StudyCarriers) -> tuple[float, float]:
    """Return the third and fourth cumulant of a residual; zero without residuals."""
    if own.residuals is None:
        return 0.0, 0.0
    return node_cumulants(own.residuals.node, own.residuals.probability)


@njit(cache=True, nogil=True)
def node_cumulants(node: Floats, chance: Floats) -> tuple[float, float]:
    """Return the third and fourth cumulant of a distribution on nodes, of mean zero."""
    m2, m3, m4 = 0.0, 0.0, 0.0
    for i in range(node.shape[0]):
        square = node[i] * node[i]
        m2 += chance[i] * square
        m3 += chance[i] * square * node[i]
        m4 += chance[i] * square * square
    return m3, m4 - 3.0 * m2 * m2
