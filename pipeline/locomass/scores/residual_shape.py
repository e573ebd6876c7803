"""Shape of a quantitative trait's residuals as a study shares it: binned counts and moments, no individual value.

The tests take U for normal; residuals with long tails or a few outliers make that wrong for variants with few carriers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from locomass.numbers import Floats

LEAST = 5  # samples in a bin
REACH, WIDTH = 4.0, 0.25  # bins of standardised residuals; those beyond are one bin on either side


def describe_shape(z: Floats, chromosome: str, min_cell: int) -> dict[str, Any] | None:
    """Return histogram and moments of standardised residuals; None where all samples together are too few.

    Args:
        z: (n,) residuals over their standard deviation.
        chromosome: that the prediction leaves out.
        min_cell: people that a shared number stands for at least.

    Returns:
        ``chromosome``; ``edge``, the inner edges of the bins, rising; ``count``, one more; ``skewness`` m3 / m2^1.5 and
        ``kurtosis`` m4 / m2^2 - 3, m_k the k-th central moment.
    """
    edges, counts = bin_residuals(z, max(LEAST, min_cell))
    if not len(counts):
        return None
    centred = z - z.mean()
    m2, m3, m4 = (float(np.mean(centred**k)) for k in (2, 3, 4))
    moments = {"skewness": m3 / m2**1.5, "kurtosis": m4 / m2**2 - 3}
    return {"chromosome": chromosome, "edge": edges[1:-1].tolist(), "count": counts.tolist(), **moments}


def bin_residuals(z: Floats, least: int) -> tuple[Floats, NDArray[np.int64]]:
    """Return edges (bins + 1), the outer ones infinite, and the count of each bin, none below ``least``.

    Bins with fewer samples are joined with the next ones, the last with the one before it; no bin at all where all
    samples together are too few.
    """
    inner = np.arange(-REACH, REACH + WIDTH / 2, WIDTH)
    fine = np.bincount(np.searchsorted(inner, z, side="right"), minlength=len(inner) + 1)
    edges, counts, waiting = [-np.inf], list[int](), 0
    for count, upper in zip(fine.tolist(), [*inner.tolist(), np.inf], strict=True):
        waiting += count
        if waiting >= least:
            counts.append(waiting)
            edges.append(upper)
            waiting = 0
    if not counts:
        return np.empty(0), np.empty(0, np.int64)
    counts[-1] += waiting
    edges[-1] = np.inf
    return np.array(edges), np.array(counts, np.int64)
