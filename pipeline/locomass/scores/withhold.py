"""The minimum-cell rule: which genotype counts a bundle withholds, and which of them can be worked out all the same.

The rule hides counts, not what the tests need: n_obs, the ALT frequency and G'WG stay exact, and they tell much.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from locomass.bundle.study import list_array, matrix_column

Counts = NDArray[np.int64]
NAMES = ("n_ref", "n_het", "n_alt")


def withhold_counts(table: pa.Table, min_cell: int) -> pa.Table:
    """Replace the genotype counts of a variant by -1 where one of them is between 1 and ``min_cell - 1``.

    All three go together: two of them and the number of calls would give the third away.
    """
    if min_cell < 2:
        return table
    counts = np.stack([matrix_column(table, name) for name in NAMES])
    hidden = ((counts > 0) & (counts < min_cell)).any(axis=0)
    for name, column in zip(NAMES, np.where(hidden, -1, counts).astype(np.int32), strict=True):
        table = table.set_column(table.column_names.index(name), name, list_array(column, pa.int32()))
    return table


def warn_recoverable(table: pa.Table, min_cell: int, quantitative: Collection[int]) -> str:
    """Return what can be worked out of a bundle's withheld counts, in words; '' where nothing can.

    Args:
        table: variants.parquet.
        min_cell: the rule.
        quantitative: numbers of the sample sets in which a quantitative trait is observed: ``(G'G)_jj`` gives
            n_het + 4 n_alt there (of the minor allele), and n_het + 2 n_alt follows from the frequency.
    """
    if min_cell < 2 or not len(table):
        return ""
    n_obs, n_ref, f = (matrix_column(table, name) for name in ("n_obs", "n_ref", "alt_frequency"))
    hidden = n_ref < 0
    plain = hidden.copy()
    plain[hidden] = is_determined(n_obs[hidden], np.rint(2 * n_obs[hidden] * f[hidden]).astype(np.int64), min_cell)
    by_matrix = hidden & np.isin(np.arange(hidden.shape[1]), list(quantitative))
    if not (plain | by_matrix).any():
        return ""
    return (
        f"min_cell {min_cell} withholds the genotype counts of {int(hidden.sum()):,} variants (in each sample set), "
        f"but those of {int(plain.sum()):,} follow from n_obs and alt_frequency, and of {int(by_matrix.sum()):,} with "
        f"G'G of a quantitative trait; leave out variants whose counts must not be known (docs, guide for a "
        f"consortium: what min_cell does not hide)"
    )


def is_determined(n_obs: Counts, alt_count: Counts, min_cell: int) -> NDArray[np.bool_]:
    """Return (v,) whether only one triple of genotype counts fits, given that it was withheld.

    With a = n_alt: n_het = alt_count - 2a and n_ref = n_obs - alt_count + a. One of the three is some c, 1 <= c <
    min_cell, which leaves at most three values of a for each c.
    """
    most = np.iinfo(np.int64).max
    low, high = np.full(n_obs.shape, most), np.full(n_obs.shape, -1)
    for c in range(1, min_cell):
        for a, whole in ((c, True), ((alt_count - c) // 2, (alt_count - c) % 2 == 0), (c - n_obs + alt_count, True)):
            fits = whole & (a >= 0) & (alt_count - 2 * a >= 0) & (n_obs - alt_count + a >= 0)
            low, high = np.where(fits, np.minimum(low, a), low), np.where(fits, np.maximum(high, a), high)
    return np.asarray(low == high)
