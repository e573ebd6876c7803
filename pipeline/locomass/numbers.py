"""Numeric constants of the house, each with its reason; and the one name for arrays of float64."""

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
TIE = 1.0 - 1e-9  # a replicate at this share of the observed value ties with it: discrete statistics do, up to rounding
