"""Quantitative traits far from normal: how far residuals are, and ranks made normal (rint)."""

from __future__ import annotations

import numpy as np
from scipy.special import ndtri
from scipy.stats import rankdata

from locomass.numbers import Floats

BLOM = 3 / 8  # of a rank: the mean of a normal order statistic is near Phi^-1((r - 3/8) / (n + 1/4)) (Blom 1958)


def rank_normal(y: Floats) -> Floats:
    """Return the rank-based inverse normal transform ``Phi^-1((r - 3/8) / (n + 1/4))``, r the ranks 1 to n.

    Equal values get their mean rank, missing ones (NaN) stay missing and have no rank. (Beasley, Erickson & Allison
    2009, Behav Genet 39:580.)

    Args:
        y: (n,) values in any unit; only their order counts.
    """
    known = np.isfinite(y)
    out = np.full(len(y), np.nan)
    out[known] = ndtri((rankdata(y[known]) - BLOM) / (known.sum() + 1 - 2 * BLOM))
    return out


def residual_moments(residual: Floats) -> tuple[float, float]:
    """Return skewness ``m3 / m2^1.5`` and excess kurtosis ``m4 / m2^2 - 3`` of (n,) residuals with mean 0."""
    m2, m3, m4 = (float(np.mean(residual**k)) for k in (2, 3, 4))
    return m3 / m2**1.5, m4 / m2**2 - 3
