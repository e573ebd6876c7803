"""Null replicates of a gene's score statistics that look at carriers only.

A permutation gives each of the n samples the residual of another. Scores see the residuals of the c carriers and,
through the centring, sums over all samples; so a permutation is the draw of c residuals out of n without replacement
(the first c steps of Fisher-Yates) and the sums over non-carriers follow by subtraction: O(c), not O(n).

Three ways to draw, all of them giving residuals e that sum to nought:

* PERMUTE: e = P r within strata; r are the centred residuals of the null model.
* PROJECT: e = (I - QQ') P r, Q an orthonormal basis of the centred covariates: Freedman & Lane (1983), the null model
  refitted to every permuted phenotype. O(n p).
* BERNOULLI: y* ~ Bernoulli(mu) given the number of cases of every stratum (`case_draws`), and
  e = (I - W X (X'WX)^-1 X')(y* - mu): one Newton step of the logistic refit. O(n p).

The number of cases never changes: were it drawn too, a replicate with the same cases among the carriers would count as
less extreme whenever it had more cases elsewhere, and p would be too small (2.4 times for a singleton of six cases).
Where neither mu nor a covariate varies within a stratum BERNOULLI is PERMUTE, which is then used.

Samples are kept in *position* order: stratum by stratum, carriers first within each (see `NullDraws`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from locomass.gene_tests.case_draws import CaseTree, draw_cases
from locomass.gene_tests.random_stream import State, draw_below
from locomass.gene_tests.step_up_kernel import SearchPlan, run_search
from locomass.numbers import Floats

Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]

PERMUTE, PROJECT, BERNOULLI = 0, 1, 2


class Carriers(NamedTuple):
    """Minor-allele dosages of m variants in c distinct carriers, by variant and by carrier.

    Attributes:
        start: (m + 1,) where the carriers of each variant begin.
        carrier: (nnz,) carrier number, 0 to c - 1.
        dosage: (nnz,) dosage.
        row_start: (c + 1,) where the variants of each carrier begin.
        row_variant: (nnz,) variant number.
        row_dosage: (nnz,) dosage.
        total: (m,) sum of the dosages.
        n_samples: n, carriers or not.
    """

    start: Integers
    carrier: Integers
    dosage: Floats
    row_start: Integers
    row_variant: Integers
    row_dosage: Floats
    total: Floats
    n_samples: int


class NullDraws(NamedTuple):
    """How replicates are drawn; arrays over samples are in position order.

    Attributes:
        method: PERMUTE, PROJECT or BERNOULLI.
        residual: (n,) null-model residuals, summing to nought.
        case: (n,) 1.0 for cases, all 0.0 for a quantitative trait.
        binary: True when inverse-sd weights count alleles in controls.
        mu: (n,) fitted means (BERNOULLI), else empty.
        tree: how cases are drawn (BERNOULLI), else a tree of nobody.
        basis: (p, n) rows of Q' (PROJECT) or (X'WX)^(-1/2) X' (BERNOULLI), else (0, n).
        stratum_start: (S + 1,) first position of each stratum.
        stratum_carriers: (S,) carriers in each stratum; they hold its first positions.
        slot: (c,) position of each carrier.
        squares: sum of residual^2 over all samples.
        n_controls: samples that are no cases.
    """

    method: int
    residual: Floats
    case: Floats
    binary: bool
    mu: Floats
    tree: CaseTree
    basis: Floats
    stratum_start: Integers
    stratum_carriers: Integers
    slot: Integers
    squares: float
    n_controls: float


@njit(cache=True, nogil=True)
def shuffle_prefix(state: State, pool: Integers, start: int, stop: int, count: int) -> None:
    """Make ``pool[start : start + count]`` a uniform ordered draw without replacement from ``pool[start:stop]``.

    The first ``count`` steps of Fisher-Yates: position i swaps with a position uniform on [i, stop). The draw is
    uniform whatever order the pool was left in, so the pool is never put back.
    """
    for i in range(start, start + count):
        j = i + draw_below(state, stop - i)
        held = pool[i]
        pool[i] = pool[j]
        pool[j] = held


@njit(cache=True, nogil=True)
def draw_residuals(null: NullDraws, state: State, pool: Integers, e: Floats, case: Floats) -> tuple[float, float]:
    """Draw the carriers' residuals of one replicate.

    Args:
        null: how to draw.
        state: (1,) generator state, advanced.
        pool: (n,) positions in the order the previous draw left them.
        e: (c,) receives the carriers' residuals.
        case: (c,) receives 1.0 where the carrier is a case in this replicate.

    Returns:
        The sum of e^2 over all n samples, and the number of controls.
    """
    n = null.residual.shape[0]
    if null.method == BERNOULLI:
        return _draw_bernoulli(null, state, e, case)
    for s in range(null.stratum_carriers.shape[0]):
        lo, hi = null.stratum_start[s], null.stratum_start[s + 1]
        count = null.stratum_carriers[s] if null.method == PERMUTE else hi - lo
        shuffle_prefix(state, pool, lo, hi, count)
    for i in range(null.slot.shape[0]):
        e[i] = null.residual[pool[null.slot[i]]]
        case[i] = null.case[pool[null.slot[i]]]
    squares = null.squares
    if null.method == PROJECT:
        permuted = np.empty(n)
        for i in range(n):
            permuted[i] = null.residual[pool[i]]
        slope = np.dot(null.basis, permuted)
        for i in range(null.slot.shape[0]):
            for q in range(slope.shape[0]):
                e[i] -= null.basis[q, null.slot[i]] * slope[q]
        squares -= float(np.sum(slope * slope))
    return squares, null.n_controls


@njit(cache=True, nogil=True)
def _draw_bernoulli(null: NullDraws, state: State, e: Floats, case: Floats) -> tuple[float, float]:
    """Draw who the cases are and refit by one Newton step; see `draw_residuals`."""
    y = np.empty(null.mu.shape[0])
    draw_cases(null.tree, state, y)
    residual = y - null.mu
    slope = np.dot(null.basis, residual)
    residual -= null.mu * (1.0 - null.mu) * np.dot(slope, null.basis)
    for i in range(null.slot.shape[0]):
        e[i] = residual[null.slot[i]]
        case[i] = y[null.slot[i]]
    return float(np.sum(residual * residual)), null.n_controls


@njit(cache=True, nogil=True)
def score_carriers(carriers: Carriers, e: Floats, U: Floats) -> None:
    """Fill ``U_j = sum_i g_ij e_i``; gbar_j drops out because e sums to nought over all samples."""
    for j in range(U.shape[0]):
        total = 0.0
        for at in range(carriers.start[j], carriers.start[j + 1]):
            total += carriers.dosage[at] * e[carriers.carrier[at]]
        U[j] = total


@njit(cache=True, nogil=True)
def empirical_variance(carriers: Carriers, e: Floats, squares: float, M: Floats) -> None:
    """Fill ``M_jk = sum_i e_i^2 (g_ij - gbar_j)(g_ik - gbar_k)`` from carriers and ``squares`` = sum of all e_i^2.

    With ``q_j = sum_i e_i^2 g_ij``: M_jk = sum_i e_i^2 g_ij g_ik - gbar_j q_k - q_j gbar_k + gbar_j gbar_k squares.
    """
    m = M.shape[0]
    M[:, :] = 0.0
    q = np.zeros(m)
    for i in range(e.shape[0]):
        square = e[i] * e[i]
        for at in range(carriers.row_start[i], carriers.row_start[i + 1]):
            j = carriers.row_variant[at]
            part = square * carriers.row_dosage[at]
            q[j] += part
            for other in range(at, carriers.row_start[i + 1]):
                M[j, carriers.row_variant[other]] += part * carriers.row_dosage[other]
    for j in range(m):
        mean_j = carriers.total[j] / carriers.n_samples
        for k in range(j, m):
            mean_k = carriers.total[k] / carriers.n_samples
            M[j, k] += mean_j * mean_k * squares - mean_j * q[k] - q[j] * mean_k
            M[k, j] = M[j, k]


@njit(cache=True, nogil=True)
def control_weights(carriers: Carriers, case: Floats, n_controls: float, weight: Floats) -> None:
    """Fill ``w_j = 1/sqrt(q(1-q))``, q = (count + 1) / (2 n + 2) over controls (Madsen & Browning 2009)."""
    for j in range(weight.shape[0]):
        count = carriers.total[j]
        for at in range(carriers.start[j], carriers.start[j + 1]):
            count -= carriers.dosage[at] * case[carriers.carrier[at]]
        q = (count + 1.0) / (2.0 * n_controls + 2.0)
        weight[j] = 1.0 / np.sqrt(q * (1.0 - q))


@njit(cache=True, nogil=True)
def search_permutations(
    plan: SearchPlan,
    carriers: Carriers,
    null: NullDraws,
    V: Floats,
    fixed_weight: Floats,
    state: State,
    pool: Integers,
    active: Booleans,
    statistic: Floats,
) -> None:
    """Draw replicates and repeat every active search on each: signs, weights and empirical variances anew.

    Args:
        plan: F searches.
        carriers: genotypes.
        null: how to draw.
        V: (m, m) model variance.
        fixed_weight: (m,) inverse-sd weights of a quantitative trait; not read for a binary one.
        state: (1,) generator state, advanced.
        pool: (n,) positions, shuffled in place.
        active: (F,) searches to run.
        statistic: (P, F) receives z2; P is the number of replicates drawn.
    """
    m, c = V.shape[0], null.slot.shape[0]
    e, case, U = np.empty(c), np.empty(c), np.empty(m)
    M, weight, order = np.empty((m, m)), fixed_weight.copy(), np.empty(m, dtype=np.int64)
    wants_empirical = np.any(active & plan.empirical)
    for row in range(statistic.shape[0]):
        squares, n_controls = draw_residuals(null, state, pool, e, case)
        score_carriers(carriers, e, U)
        if wants_empirical:
            empirical_variance(carriers, e, squares, M)
        if null.binary:
            control_weights(carriers, case, n_controls, weight)
        for f in range(active.shape[0]):
            if active[f]:
                statistic[row, f] = run_search(f, plan, U, M if plan.empirical[f] else V, weight, order)[0]


@njit(cache=True, nogil=True)
def replicate_scores(carriers: Carriers, null: NullDraws, state: State, pool: Integers, U: Floats) -> None:
    """Fill ``U`` (P, m) with the scores of P null replicates."""
    c = null.slot.shape[0]
    e, case = np.empty(c), np.empty(c)
    for row in range(U.shape[0]):
        draw_residuals(null, state, pool, e, case)
        score_carriers(carriers, e, U[row])
