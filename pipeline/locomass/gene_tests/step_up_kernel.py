"""Search over groupings of variants for the largest burden statistic (Hoffmann, Marini & Witte 2010).

Every grouping is a vector of coefficients ``b_j = w_j s_j x_j`` and its statistic is a ratio of quadratic forms,

    z2(x) = (b'U)^2 / (b'Mb).

With the model variance M = V. With the paper's empirical variance ``(sum_i T_i)^2 / sum_i T_i^2`` and
``T_i = e_i sum_j b_j (g_ij - gbar_j)``, M is the matrix ``M_jk = sum_i e_i^2 (g_ij - gbar_j)(g_ik - gbar_k)``; so one
search serves both. Adding variant k to a set S needs only the running vector C = M b_S:

    b'U += b_k U_k,   b'Mb += 2 b_k C_k + b_k^2 M_kk,   C += b_k M_k.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from locomass.numbers import Floats

Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]

CONSTANT, INVERSE_SD, BOTH = 0, 1, 2

# Sets whose b'Mb is this small against the sum of its own terms have no variance left to divide by.
_NO_VARIANCE = 1e-11
# One z2 is larger than another when it is so by more than the rounding of sums over samples in another order.
_RAISES = 1.0 + 1e-9
# Below it z2 is nought.
_NOUGHT = 1e-18
# A covariance this small against its standard deviation has no sign; it counts as positive.
_NO_SIGN = 1e-10


class SearchPlan(NamedTuple):
    """F searches over the same m variants, flattened for the kernels.

    Attributes:
        step_up: (F,) True for the step-up search, False for a walk over listed groupings.
        weighting: (F,) CONSTANT, INVERSE_SD or BOTH (the best of the two).
        data_signs: (F,) True when s_j is the sign of U_j, False when it is +1.
        empirical: (F,) True for the empirical variance, False for the model variance.
        start: (F + 1,) where the steps of each walk begin.
        variant: (steps,) variant that a step changes.
        change: (steps,) +1 adds the variant, -1 removes it, 0 empties the set first and then adds it.
        label: (steps,) number of the grouping reached, or -1 when it is not one to look at.
    """

    step_up: Booleans
    weighting: Integers
    data_signs: Booleans
    empirical: Booleans
    start: Integers
    variant: Integers
    change: Integers
    label: Integers


@njit(cache=True, nogil=True)
def is_larger(value: float, best: float) -> bool:
    """Return whether one z2 is larger than another; of equal ones the first stays, whatever rounding did to them."""
    return value > best * _RAISES + _NOUGHT


@njit(cache=True, nogil=True)
def search_step_up(U: Floats, M: Floats, b: Floats, running: Floats, order: Integers) -> tuple[float, int]:
    """Return the statistic and the size of the set that the step-up search ends with.

    The search starts from the best single variant, adds the variant that raises z2 most and stops when none does:
    O(m) a step. Of variants that do equally well the first is taken.

    Args:
        U: (m,) scores.
        M: (m, m) their variance matrix, symmetric.
        b: (m,) signed weights.
        running: (m,) scratch, becomes M b_S.
        order: (m,) receives the chosen variants in the order of their choice.

    Returns:
        z2 of the final set (-1 when no variant has variance) and its size.
    """
    m = U.shape[0]
    used = np.zeros(m, dtype=np.bool_)
    running[:] = 0.0
    total, variance, size_sum, best = 0.0, 0.0, 0.0, -1.0
    size = 0
    while size < m:
        chosen = -1
        chosen_value = best
        for j in range(m):
            if used[j]:
                continue
            own = b[j] * b[j] * M[j, j]
            denominator = variance + 2.0 * b[j] * running[j] + own
            if denominator <= _NO_VARIANCE * (size_sum + own):
                continue
            numerator = total + b[j] * U[j]
            value = numerator * numerator / denominator
            if is_larger(value, chosen_value):
                chosen_value = value
                chosen = j
        if chosen < 0:
            break
        own = b[chosen] * b[chosen] * M[chosen, chosen]
        total += b[chosen] * U[chosen]
        variance += 2.0 * b[chosen] * running[chosen] + own
        size_sum += own
        for j in range(m):
            running[j] += b[chosen] * M[chosen, j]
        used[chosen] = True
        order[size] = chosen
        size += 1
        best = chosen_value
    return best, size


@njit(cache=True, nogil=True)
def search_walk(
    U: Floats, M: Floats, b: Floats, running: Floats, variant: Integers, change: Integers, label: Integers
) -> tuple[float, int]:
    """Return the largest statistic along a walk over groupings, and the label of the first grouping that has it.

    Args:
        U: (m,) scores.
        M: (m, m) their variance matrix.
        b: (m,) signed weights.
        running: (m,) scratch.
        variant: (steps,) variant that each step changes.
        change: (steps,) +1 add, -1 remove, 0 start anew with this variant alone.
        label: (steps,) number of the grouping reached, -1 to pass over it.

    Returns:
        z2 (-1 when no grouping has variance) and the label (-1).
    """
    total, variance, size_sum, best = 0.0, 0.0, 0.0, -1.0
    found = -1
    running[:] = 0.0
    for step in range(variant.shape[0]):
        k = variant[step]
        sign = 1.0
        if change[step] == 0:
            total, variance, size_sum = 0.0, 0.0, 0.0
            running[:] = 0.0
        else:
            sign = float(change[step])
        own = b[k] * b[k] * M[k, k]
        total += sign * b[k] * U[k]
        variance += 2.0 * sign * b[k] * running[k] + own
        size_sum += sign * own
        for j in range(U.shape[0]):
            running[j] += sign * b[k] * M[k, j]
        if label[step] < 0 or variance <= _NO_VARIANCE * size_sum:
            continue
        value = total * total / variance
        if is_larger(value, best):
            best = value
            found = label[step]
    return best, found


@njit(cache=True, nogil=True)
def sign_weights(U: Floats, M: Floats, weight: Floats, constant: bool, data_signs: bool, b: Floats) -> None:
    """Fill ``b_j = w_j s_j``: w_j is 1 or ``weight[j]``, s_j is +1 or the sign of U_j (+1 when U_j is nought)."""
    for j in range(U.shape[0]):
        b[j] = 1.0 if constant else weight[j]
        if data_signs and U[j] < -_NO_SIGN * np.sqrt(M[j, j]):
            b[j] = -b[j]


@njit(cache=True, nogil=True)
def run_search(
    f: int, plan: SearchPlan, U: Floats, M: Floats, weight: Floats, order: Integers
) -> tuple[float, int, int]:
    """Run search f of the plan on one vector of scores.

    Args:
        f: number of the search.
        plan: all searches.
        U: (m,) scores.
        M: (m, m) variance matrix that search f divides by.
        weight: (m,) inverse-sd weights.
        order: (m,) receives the variants that a step-up search chose.

    Returns:
        z2, the size of the chosen set (step-up) or the label of the grouping (walk), and the weighting that won.
    """
    m = U.shape[0]
    b, running, trial = np.empty(m), np.empty(m), np.empty(m, dtype=np.int64)
    best, found, winner = -1.0, -1, CONSTANT
    lo, hi = plan.start[f], plan.start[f + 1]
    for weighting in (CONSTANT, INVERSE_SD):
        if plan.weighting[f] != BOTH and plan.weighting[f] != weighting:
            continue
        sign_weights(U, M, weight, weighting == CONSTANT, plan.data_signs[f], b)
        if plan.step_up[f]:
            value, where = search_step_up(U, M, b, running, trial)
        else:
            value, where = search_walk(U, M, b, running, plan.variant[lo:hi], plan.change[lo:hi], plan.label[lo:hi])
        if is_larger(value, best):
            best, found, winner = value, where, weighting
            if plan.step_up[f]:
                order[:where] = trial[:where]
    return best, found, winner


@njit(cache=True, nogil=True)
def search_scores(plan: SearchPlan, U: Floats, V: Floats, weight: Floats, active: Booleans, statistic: Floats) -> None:
    """Run every active search on every row of scores, all with the model variance.

    Args:
        plan: F searches; none may ask for the empirical variance.
        U: (P, m) scores, one replicate a row.
        V: (m, m) variance matrix.
        weight: (m,) inverse-sd weights.
        active: (F,) searches to run.
        statistic: (P, F) receives z2; columns of inactive searches are left alone.
    """
    order = np.empty(U.shape[1], dtype=np.int64)
    for row in range(U.shape[0]):
        for f in range(active.shape[0]):
            if active[f]:
                statistic[row, f] = run_search(f, plan, U[row], V, weight, order)[0]
