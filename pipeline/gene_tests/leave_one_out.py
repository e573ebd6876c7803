"""Leave one study out: what a fixed-effects burden says without each study in turn.

Sums without a study are summed anew, not obtained by subtraction, so that one dominant study costs no digits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.gene_tests.base import Floats
from pipeline.kernels.tails import chi2_logsf


@dataclass(frozen=True, slots=True)
class LeaveOneOut:
    """Burden without study k; every array is (K,), NaN where nothing is left that varies.

    Attributes:
        statistic: ``(sum_{j != k} w'U_j)^2 / sum_{j != k} w'V_j w``, chi2_1.
        beta, se: effect per unit of the burden and its standard error.
        log_p: natural logarithm of the p-value.
    """

    statistic: Floats
    beta: Floats
    se: Floats
    log_p: Floats


def sum_without_each(values: Floats) -> Floats:
    """Return (K, ...) sums over all studies but one of (K, ...) statistics, by prefix and suffix sums."""
    zero = np.zeros((1, *values.shape[1:]))
    before = np.concatenate((zero, np.cumsum(values[:-1], axis=0)))
    after = np.concatenate((np.cumsum(values[:0:-1], axis=0)[::-1], zero))
    return np.asarray(before + after)


def leave_one_out_burden(U: Floats, V: Floats, w: Floats) -> LeaveOneOut:
    """Return the burden test without each study.

    Args:
        U: (K, m) scores of the studies on the union of variants, zero where a study lacks one.
        V: (K, m, m) their information matrices.
        w: (m,) weights.

    Raises:
        ValueError: shapes that do not agree.
    """
    K, m = U.shape
    if V.shape != (K, m, m) or w.shape != (m,):
        raise ValueError(f"U {U.shape}, V {V.shape} and w {w.shape} do not agree")
    score = sum_without_each(U @ w)
    information = sum_without_each(np.einsum("kij,i,j->k", V, w, w))
    seen = information > 0
    safe = np.where(seen, information, 1.0)
    statistic = score**2 / safe
    return LeaveOneOut(
        np.where(seen, statistic, np.nan),
        np.where(seen, score / safe, np.nan),
        np.where(seen, 1 / np.sqrt(safe), np.nan),
        np.where(seen, chi2_logsf(statistic), np.nan),
    )
