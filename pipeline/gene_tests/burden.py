"""Burden tests: one weighted sum of the variants, a chi-square with one degree of freedom, an effect and its error."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pipeline.gene_tests.base import Floats, ScoreStatistics, TestResult, missing_result
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


def collapse_ultra_rare(stats: ScoreStatistics, mac: float = 10.0) -> ScoreStatistics:
    """Return statistics in which all variants with an allele count of at most ``mac`` are one pseudo-marker.

    The pseudo-marker, which comes first, is the sum of the variants: its score and information are sums, its
    frequency and count too, its annotations are means (compare Zhou et al. 2022, Nat Genet 54:1466, who take the
    maximum of the calls). Monomorphic variants add nothing and vanish. Fewer than two such variants: the statistics
    come back unchanged.
    """
    pooled = stats.mac <= mac
    if np.count_nonzero(pooled) < 2:
        return stats
    kept = np.flatnonzero(~pooled)
    # C (m, 1 + kept): column 0 adds the pooled variants up, the others pass the rest on
    C = np.zeros((stats.n_variants, kept.size + 1))
    C[pooled, 0] = 1.0
    C[kept, np.arange(1, kept.size + 1)] = 1.0

    def join(first: float, values: Floats) -> Floats:
        return np.concatenate(([first], values[kept]))

    return replace(
        stats,
        U=stats.U @ C,
        V=C.T @ stats.V @ C,
        maf=join(min(1.0, float(stats.maf[pooled].sum())), stats.maf),
        mac=join(float(stats.mac[pooled].sum()), stats.mac),
        rare=np.concatenate(([bool(stats.rare[pooled].all())], stats.rare[kept])),
        annotations={name: join(float(a[pooled].mean()), a) for name, a in stats.annotations.items()},
        per_study=tuple((U @ C, C.T @ V @ C, scale) for U, V, scale in stats.per_study),
    )
