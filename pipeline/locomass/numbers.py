"""Numeric constants and thresholds of the house, each with its reason; and the one name for arrays of float64."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LN10 = math.log(10.0)  # natural logarithm of p to log10 p
MEDIAN_CHI2 = 0.45493642311957283  # median of chi-square with one degree of freedom: what lambda divides by
GENOME_WIDE = 5e-8  # significance threshold of single variants: 0.05 over about a million independent tests
LOG_GENOME_WIDE = math.log(GENOME_WIDE)
MAX_POSITION = 9_999_999_999  # ten digits; the longest chromosome known has eleven times less
MAX_ALLELE = 10_000  # characters of an allele's name; longer ones are structural variants and have symbolic names
NOT_PSD = 1e-6  # an eigenvalue below minus this share of the largest is not what rounding leaves of a variance matrix
NOT_PSD_PRINTED = 1e-4  # the same of V that came in float32 or six digits from other tools
SKEWED, HEAVY = 1.0, 3.0  # skewness and excess kurtosis of residuals that cost power; an exponential trait has 2 and 6
TIE = 1.0 - 1e-9  # a replicate at this share of the observed value ties with it: discrete statistics do, up to rounding


def is_far_from_normal(skewness: float, kurtosis: float, n: float) -> bool:
    """Return whether the moments of n residuals are far from those of normal ones, and surely so.

    Of n normal values skewness and excess kurtosis have the standard errors ``sqrt(6 / n)`` and ``sqrt(24 / n)``; five
    of them are no noise.
    """
    return abs(skewness) > max(SKEWED, 5.0 * math.sqrt(6.0 / n)) or kurtosis > max(HEAVY, 5.0 * math.sqrt(24.0 / n))
