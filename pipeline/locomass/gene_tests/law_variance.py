"""Variances brought to the null laws, for tests that take scores for normal.

Where the law of a score is far from normal, ``V~_jj = U_j^2 / chi2_isf(p_j)`` gives U_j^2 / V~_jj the right p, and

    V~ = D^(1/2) R D^(1/2),     D = diag(V~_jj), R the correlation in V

is what a chi-square mixture takes (Zhao et al. 2020, AJHG 106:3). p_j is that of the sum over studies. Only scores
beyond two standard errors are brought to it: nearer the middle a discrete score says nothing of the variance.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from locomass.gene_tests.base import ScoreStatistics
from locomass.gene_tests.law import gather_variants, law_of_sum
from locomass.gene_tests.law_tails import Ties, pack_residuals, score_log_p, two_sided_rows
from locomass.gene_tests.tails import log_chi2_isf_scalar
from locomass.numbers import Floats

MIN_Z = 2.0


def calibrate_statistics(stats: ScoreStatistics, ties: Ties) -> ScoreStatistics:
    """Return the statistics of one trait with V brought to the laws of its variants; as they are without laws."""
    if not stats.laws or stats.n_traits != 1:
        return stats
    variance = stats.V.diagonal() * stats.scale[0]
    factor = np.ones(stats.n_variants)
    for j in np.flatnonzero((stats.U[0] ** 2 > MIN_Z**2 * variance) & (variance > 0.0)):
        one = np.zeros(stats.n_variants)
        one[j] = 1.0
        log_p, _ = score_log_p(law_of_sum(stats.laws[0], one), float(stats.U[0, j]), ties)
        if math.isfinite(log_p) and log_p < 0.0:
            factor[j] = math.sqrt(float(stats.U[0, j]) ** 2 / log_chi2_isf_scalar(log_p) / variance[j])
    return replace(stats, V=stats.V * np.outer(factor, factor))


def variant_log_p(stats: ScoreStatistics, ties: Ties) -> Floats:
    """Return log p of single variants from their laws, (T, m); laws must be of the variants as they are."""
    m = stats.n_variants
    out = np.empty((stats.n_traits, m))
    for t, own in enumerate(stats.laws):
        if t == 0 or own[0].residuals is None:
            groups = gather_variants(own, np.arange(m), m)
        variances = np.array([study.scale * study.V.diagonal() for study in own]).T
        residuals = pack_residuals([study.residuals for study in own])
        args = (*groups, *residuals, np.ascontiguousarray(variances))
        out[t], _ = two_sided_rows(np.ascontiguousarray(stats.U[t]), ties == "mid", *args)
    return out
