"""Studies laid on the union of their variants: allele counts."""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from locomass.numbers import Floats


@njit(cache=True, nogil=True)
def add_counts(
    n_obs: NDArray[np.int64],
    alt_frequency: Floats,
    sample_set: int,
    at: NDArray[np.int64],
    sign: Floats,
    count: Floats,
    number: Floats,
) -> Floats:
    """Add the allele counts of one study to those of the union, in place; return the study's ALT frequency (u,).

    The frequency is NaN where the study lacks the variant or has no call.

    Args:
        n_obs: (m, S) samples with a call; alt_frequency: (m, S) of the study's own ALT.
        sample_set: column of both.
        at: (m,) place of each variant in the union, -1 where it has none.
        sign: (m,) +1, or -1 where ALT is swapped.
        count, number: (u,) ALT count and allele number so far.
    """
    out = np.full(count.shape[0], math.nan)
    for i in range(at.shape[0]):
        a = at[i]
        if a < 0:
            continue
        n = 2.0 * n_obs[i, sample_set]
        f = alt_frequency[i, sample_set]
        alt = 0.0 if math.isnan(f) else np.rint(f * n)
        if sign[i] < 0.0:
            alt = n - alt
        count[a] += alt
        number[a] += n
        if n > 0.0:
            out[a] = alt / n
    return out
