"""P-values of scores from null laws: exact where carriers are few, saddlepoint and normal where they agree with it.

The p-value of U is two-sided: the probability of the upper tail from |U| and of the lower tail from -|U|, each with
half of the probability of that value itself (``mid``; Lancaster 1961, JASA 56:223) or all of it (``whole``). Where both
classes have a carrier count on a lattice, the values are the counts' own. A mid-p is near the level on average and can
exceed it for one variant with few outcomes (up to twice); a whole p never does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numba import njit
from numpy.typing import NDArray

from locomass.gene_tests.law import Law, Residuals
from locomass.gene_tests.law_convolution import (
    CELLS,
    count_outcomes,
    enumerate_counts,
    half_gap,
    tail_of_law,
    tilted_counts,
    tilted_residuals,
)
from locomass.gene_tests.law_cumulants import (
    carrier_cumulants,
    law_cumulants,
    open_rest,
    reach,
    solve_cumulant,
)
from locomass.gene_tests.tails import log_chi2_sf_scalar, log_erfc
from locomass.numbers import Floats

Integers = NDArray[np.int64]
Ties = Literal["mid", "whole"]

#: How a p-value was computed, by code
METHODS = ("", "chi2", "exact", "convolution", "saddlepoint")
NO_LAW, NORMAL, EXACT, GRID, SADDLEPOINT = range(5)
AGREE = 0.01  # relative difference of p below which the normal law will do
MANY = 100.0  # expected outcomes (cases or controls) from which the saddlepoint is within 0.3 %
FEW = 4_096  # outcomes of weighted sums that are listed one by one
LEAST_UNTILTED = math.log(1e-8)  # the transform is right to 1e-15
LOG_THOUSANDTH = math.log(1e-3)
LOG_NOTHING = math.log(1e-14)  # part of a tilted law that may be beyond its grid
BLURRED = 0.01  # part of V that is normal by itself from which a score has no largest value
SNAP = 0.25  # imputed calls blur the atoms of a count by next to nothing


@njit(cache=True, nogil=True)
def is_normal(u: float, V: float, k3: float, k4: float, h: float, mid: bool) -> bool:
    """Return whether Edgeworth's terms change the two-sided normal tail by less than 1 %.

    Args:
        u, V: score and variance; k3, k4: third and fourth cumulants; h: width of a lattice's step, 0 without.
        mid: half of an atom counts.
    """
    z = abs(u) / math.sqrt(V)
    skew, kurtosis = abs(k3) / V**1.5, abs(k4) / V**2
    first = skew * (z**3 + 3.0 * z + 1.0) / 6.0
    second = kurtosis * (z**4 + 6.0 * z * z + 3.0) / 24.0 + skew**2 * (z**6 + 15.0 * z**4 + 15.0) / 72.0
    # the atoms of the two tails do not mirror one another: a part of one of them
    atom = h * (z + 1.0) / ((8.0 if mid and MANY * h * h > V else 2.0) * math.sqrt(V))
    if mid and MANY * h * h <= V:
        atom = h * h * (z * z + 1.0) / (24.0 * V)
    return first + second + atom < AGREE


@njit(cache=True, nogil=True)
def high_cumulants(
    start: Integers, step: Floats, count: Floats, mu: Floats, nodes: Integers, node: Floats, chance: Floats
) -> tuple[float, float]:
    """Return the third and fourth cumulant of the carriers' sum."""
    k3, k4 = 0.0, 0.0
    for k in range(start.shape[0] - 1):
        m2, m3, m4 = 0.0, 0.0, 0.0
        for i in range(nodes[k], nodes[k + 1]):
            m2 += chance[i] * node[i] ** 2
            m3 += chance[i] * node[i] ** 3
            m4 += chance[i] * node[i] ** 4
        for s in range(start[k], start[k + 1]):
            if math.isnan(mu[s]):
                k3 += count[s] * step[s] ** 3 * m3
                k4 += count[s] * step[s] ** 4 * (m4 - 3.0 * m2 * m2)
            else:
                w = mu[s] * (1.0 - mu[s])
                k3 += count[s] * step[s] ** 3 * w * (1.0 - 2.0 * mu[s])
                k4 += count[s] * step[s] ** 4 * w * (1.0 - 6.0 * w)
    return k3, k4


@njit(cache=True, nogil=True)
def add_logs(a: float, b: float) -> float:
    """Return log(e^a + e^b)."""
    top = max(a, b)
    return top if top == -math.inf else top + math.log1p(math.exp(min(a, b) - top))


@njit(cache=True, nogil=True)
def saddlepoint_tail(
    u: float,
    h: float,
    mid: bool,
    start: Integers,
    step: Floats,
    count: Floats,
    mu: Floats,
    nodes: Integers,
    node: Floats,
    chance: Floats,
    rest: Floats,
    extra: Floats,
) -> float:
    """Return log P(U >= u), u > 0, or log P(U <= u), u < 0, by Barndorff-Nielsen's formula.

    ``r = sqrt(2 (t u - K))``, ``v = c(t) sqrt(K'')``; c is t for a continuous score; on a lattice of width h
    ``(1 - e^(-h t)) / h`` for the whole of the atom and ``(2 / h) tanh(h t / 2)`` for half of it (Daniels 1987).
    """
    law = (start, step, count, mu, nodes, node, chance, rest, extra)
    t = solve_cumulant(u, *law)
    if math.isinf(t):
        return -math.inf
    k0, _, k2, _ = law_cumulants(t, *law)
    t, r = abs(t), math.sqrt(max(2.0 * (t * u - k0), 0.0))
    c = t
    if h > 0.0:
        c = 2.0 / h * math.tanh(0.5 * h * t) if mid else -math.expm1(-h * t) / h
    v = c * math.sqrt(k2)
    deviate = r + math.log(v / r) / r if r > 1e-8 and v > 0.0 else 0.0
    if deviate < 0.0:
        return math.log1p(-0.5 * math.erfc(-deviate / math.sqrt(2.0)))
    return log_erfc(deviate / math.sqrt(2.0)) - math.log(2.0)


@njit(cache=True, nogil=True)
def find_lattice(step: Floats) -> tuple[float, float]:
    """Return the smallest step's size, and the same where all steps are whole multiples of it, else 0."""
    least = math.inf
    for g in step:
        least = min(least, abs(g))
    for g in step:
        if abs(g / least - round(g / least)) > 1e-6:
            return least, 0.0
    return least, least


@njit(cache=True, nogil=True)
def count_tail(
    u: float,
    h: float,
    least_step: float,
    mid: bool,
    start: Integers,
    step: Floats,
    count: Floats,
    mu: Floats,
    nodes: Integers,
    rest: Floats,
    extra: float,
) -> float:
    """Return log of the tail from u, upper for u > 0, of a binary trait; ``h`` 0: steps are no multiples of one."""
    nothing = np.empty(0)
    least, most = 0.0, 0.0
    for k in range(start.shape[0] - 1):
        low, high, _ = reach(start[k], start[k + 1], step, count, mu)
        least, most = least + low, most + high
    if extra == 0.0 and (u > most + 1e-6 * least_step or u < least - 1e-6 * least_step):
        return -math.inf
    margin = min(0.5 * least_step, 0.1 * (most - least))
    target = min(max(u, least + margin), most - margin)
    n_studies = start.shape[0] - 1
    free, none = np.full((n_studies, 4), math.inf), np.zeros(n_studies)
    t = solve_cumulant(target, start, step, count, mu, nodes, nothing, nothing, free, none)
    width = h
    if h == 0.0:
        spread = law_cumulants(t, start, step, count, mu, nodes, nothing, nothing, free, none)[2]
        width = 0.01 * max(math.sqrt(spread), 0.2 * least_step)
    x0, log_factor, q = tilted_counts(t, width, start, step, count, mu, rest)
    sign = 1.0 if u > 0.0 else -1.0
    return log_factor - t * u + tail_of_law(u, t, width, x0, q, mid, h > 0.0, extra, sign)


@njit(cache=True, nogil=True)
def listed_tails(
    u: float, mid: bool, n_outcomes: int, start: Integers, step: Floats, count: Floats, mu: Floats, rest: Floats
) -> float:
    """Return log of both tails from u > 0 of a sum of few carriers, outcome by outcome; ties are equal to rounding."""
    value, chance = enumerate_counts(n_outcomes, start, step, count, mu, rest)
    rounding = 1e-9 * (u + np.abs(value).max())
    total = 0.0
    for i in range(value.shape[0]):
        beyond = abs(value[i]) - u
        total += chance[i] * (1.0 if beyond > rounding else 0.0 if beyond < -rounding else 0.5 if mid else 1.0)
    return min(0.0, math.log(total)) if total > 0.0 else -math.inf


@njit(cache=True, nogil=True)
def reach_of_residuals(
    start: Integers, step: Floats, count: Floats, nodes: Integers, node: Floats
) -> tuple[float, float, float, float]:
    """Return the smallest and the largest sum of the carriers, how far their nodes spread, and a person's range."""
    least, most, slack, jump = 0.0, 0.0, 0.0, 0.0
    for k in range(start.shape[0] - 1):
        own = node[nodes[k] : nodes[k + 1]]
        if own.shape[0] == 0:
            continue
        low, high = own[0], own[-1]
        wide = max(half_gap(0, own), half_gap(own.shape[0] - 1, own))
        for s in range(start[k], start[k + 1]):
            jump = max(jump, abs(step[s]) * (high - low))
            most += count[s] * max(step[s] * high, step[s] * low)
            least += count[s] * min(step[s] * high, step[s] * low)
            slack += count[s] * abs(step[s]) * wide
    return least, most, slack, jump


@njit(cache=True, nogil=True)
def residual_tails(
    seen: float,
    other: float,
    start: Integers,
    step: Floats,
    count: Floats,
    mu: Floats,
    nodes: Integers,
    node: Floats,
    chance: Floats,
    variance: Floats,
    extra: Floats,
) -> float:
    """Return log of the tails from ``seen`` and from ``other``, of the other sign, from the law without tilt, or NaN.

    NaN: where p is near the rounding of the transform, or where sums beyond the grid, which come back at its
    other end, could be as likely as a thousandth of p. Those from ``grid - size`` on come back nearer to 0 than size.
    """
    least, most, _, jump = reach_of_residuals(start, step, count, nodes, node)
    free = np.full((variance.shape[0], 4), math.inf)
    law = (start, step, count, mu, nodes, node, chance, free, extra)
    spread = law_cumulants(0.0, *law)[2]
    h = (16.0 * math.sqrt(spread) + 2.0 * jump) / CELLS
    size = max(abs(seen), abs(other))
    if size > 0.5 * CELLS * h - 2.0 * h:
        return math.nan
    x0, log_factor, q = tilted_residuals(0.0, 0.0, h, start, step, count, nodes, node, chance, variance)
    sign = 1.0 if seen > 0.0 else -1.0
    log_p = tail_of_law(seen, 0.0, h, x0, q, True, False, 0.0, sign)
    log_p = min(0.0, log_factor + add_logs(log_p, tail_of_law(other, 0.0, h, x0, q, True, False, 0.0, -sign)))
    if not log_p > LEAST_UNTILTED:
        return math.nan
    back = CELLS * h - size
    normal_too = extra.sum() > 0.0
    for far, end in ((back, most), (-back, least)):
        if normal_too or abs(end) > back:
            t = solve_cumulant(far, *law)
            if law_cumulants(t, *law)[0] - t * far > log_p + LOG_THOUSANDTH:
                return math.nan
    return log_p


@njit(cache=True, nogil=True)
def tilted_width(
    t: float,
    u: float,
    jump: float,
    start: Integers,
    step: Floats,
    count: Floats,
    mu: Floats,
    nodes: Integers,
    node: Floats,
    chance: Floats,
    rest: Floats,
    extra: Floats,
) -> float:
    """Return the width of a grid about u beyond which nothing is left of the law with tilt t (Chernoff's bound)."""
    law = (start, step, count, mu, nodes, node, chance, rest, extra)
    k0, _, k2, _ = law_cumulants(t, *law)
    width = 16.0 * math.sqrt(k2)
    widest = width + 2.0 * jump
    while width < widest:
        worst = -math.inf
        for x in (u - 0.5 * width, u + 0.5 * width):
            s = solve_cumulant(x, *law)
            if not math.isinf(s):
                worst = max(worst, law_cumulants(s, *law)[0] - s * x - k0 + t * x)
        if worst < LOG_NOTHING:
            return width
        width *= 1.5
    return widest


@njit(cache=True, nogil=True)
def residual_tail(
    u: float,
    start: Integers,
    step: Floats,
    count: Floats,
    mu: Floats,
    nodes: Integers,
    node: Floats,
    chance: Floats,
    variance: Floats,
    extra: Floats,
) -> float:
    """Return log of the tail from u, upper for u > 0, of a quantitative trait."""
    least, most, slack, jump = reach_of_residuals(start, step, count, nodes, node)
    target = u
    if extra.sum() <= BLURRED * variance.sum():  # nothing but the carriers' residuals can make the score
        if u > most + slack or u < least - slack:
            return -math.inf
        inside = min(0.1 * slack, 0.1 * (most - least))
        target = min(max(u, least + inside), most - inside)
    free = np.full((variance.shape[0], 4), math.inf)
    law = (start, step, count, mu, nodes, node, chance, free, extra)
    t = solve_cumulant(target, *law)
    h = tilted_width(t, u, jump, *law) / CELLS
    x0, log_factor, q = tilted_residuals(t, u, h, start, step, count, nodes, node, chance, variance)
    sign = 1.0 if u > 0.0 else -1.0
    return log_factor - t * u + tail_of_law(u, t, h, x0, q, True, False, 0.0, sign)


@njit(cache=True, nogil=True)
def two_sided_residuals(
    u: float,
    start: Integers,
    step: Floats,
    count: Floats,
    mu: Floats,
    nodes: Integers,
    node: Floats,
    chance: Floats,
    variance: Floats,
    extra: Floats,
) -> float:
    """Return log P(|U| >= |u|) of a quantitative trait.

    A score beyond what the nodes of the residuals can make (the outermost may be means of several people's) counts as
    the largest that they can.
    """
    others = (start, step, count, mu, nodes, node, chance, variance, extra)
    seen = u
    if extra.sum() <= BLURRED * variance.sum():
        least, most, _, _ = reach_of_residuals(start, step, count, nodes, node)
        seen = min(max(u, least), most)
    log_p = residual_tails(seen, -u, *others)
    if math.isnan(log_p):
        log_p = min(0.0, add_logs(residual_tail(seen, *others), residual_tail(-u, *others)))
    return log_p


@njit(cache=True, nogil=True)
def two_sided(
    u: float,
    mid: bool,
    start: Integers,
    step: Floats,
    count: Floats,
    mu: Floats,
    nodes: Integers,
    node: Floats,
    chance: Floats,
    variance: Floats,
) -> tuple[float, int]:
    """Return log P(|U| >= |u|) under the law, and the code of how it was computed; NaN where U does not vary."""
    V = variance.sum()
    n_studies = variance.shape[0]
    if not V > 0.0 or math.isnan(u):
        return math.nan, NO_LAW
    if step.shape[0] == 0:
        return log_chi2_sf_scalar(u * u / V), NO_LAW
    rest, extra = np.zeros((n_studies, 4)), np.zeros(n_studies)
    binary, mean, fourth = True, 0.0, 0.0
    for k in range(n_studies):
        own, odds = node[nodes[k] : nodes[k + 1]], chance[nodes[k] : nodes[k + 1]]
        low, high = start[k], start[k + 1]
        R = carrier_cumulants(0.0, low, high, step, count, mu, own, odds)[2]
        extra[k] = open_rest(low, high, step, count, mu, R, variance[k], rest[k])
        binary = binary and own.shape[0] == 0
        mean += reach(low, high, step, count, mu)[2] if own.shape[0] == 0 else 0.0
        for s in range(low, high):
            if not math.isnan(mu[s]):
                fourth += count[s] * step[s] ** 4 * mu[s] * (1.0 - mu[s])
    least_step, h = find_lattice(step) if binary else (0.0, 0.0)
    if extra.sum() > 0.01 * V:
        h = 0.0
    k3, k4 = high_cumulants(start, step, count, mu, nodes, node, chance)
    if is_normal(u, V, k3, k4, h, mid):
        return log_chi2_sf_scalar(u * u / V), NORMAL
    if h > 0.0:
        nearest = h * round((u + mean) / h) - mean
        u = nearest if abs(nearest - u) < SNAP * h else u
    if abs(u) <= 1e-9 * math.sqrt(V):
        return 0.0, EXACT if h > 0.0 else GRID
    size = abs(u)
    if binary and MANY * fourth < V * V:
        law = (start, step, count, mu, nodes, node, chance, rest, extra)
        upper, lower = saddlepoint_tail(size, h, mid, *law), saddlepoint_tail(-size, h, mid, *law)
        return min(0.0, add_logs(upper, lower)), SADDLEPOINT
    if h == 0.0 and binary and extra.sum() == 0.0:
        n_outcomes = count_outcomes(start, count, FEW)
        if n_outcomes <= FEW:
            return listed_tails(size, mid, n_outcomes, start, step, count, mu, rest), EXACT
    if binary:
        blur = extra.sum() if h == 0.0 else 0.0
        known = (least_step, mid, start, step, count, mu, nodes, rest, blur)
        upper, lower = count_tail(size, h, *known), count_tail(-size, h, *known)
        return min(0.0, add_logs(upper, lower)), EXACT if h > 0.0 else GRID
    return two_sided_residuals(u, start, step, count, mu, nodes, node, chance, variance, extra), GRID


@njit(cache=True, nogil=True)
def two_sided_rows(
    U: Floats,
    mid: bool,
    starts: Integers,
    step: Floats,
    count: Floats,
    mu: Floats,
    nodes: Integers,
    node: Floats,
    chance: Floats,
    variances: Floats,
) -> tuple[Floats, Integers]:
    """Return `two_sided` of many scores of the same studies.

    Args:
        U: (n,) scores.
        starts: (n, k + 1) where the groups of every study begin, for each score.
        variances: (n, k).
    """
    log_p, code = np.empty(U.shape[0]), np.empty(U.shape[0], np.int64)
    for i in range(U.shape[0]):
        low, high = starts[i, 0], starts[i, -1]
        log_p[i], code[i] = two_sided(
            U[i], mid, starts[i] - low, step[low:high], count[low:high], mu[low:high], nodes, node, chance, variances[i]
        )
    return log_p, code


def pack_residuals(residuals: Sequence[Residuals | None]) -> tuple[Integers, Floats, Floats]:
    """Return (k + 1,) where the nodes of each study begin, all nodes, and their probabilities."""
    empty = np.empty(0)
    ends = np.cumsum([0, *(0 if r is None else r.node.size for r in residuals)])
    node = np.concatenate([empty, *(r.node for r in residuals if r is not None)])
    return ends, node, np.concatenate([empty, *(r.probability for r in residuals if r is not None)])


def score_log_p(law: Law, U: float, ties: Ties = "mid") -> tuple[float, str]:
    """Return log of the two-sided p-value of a score under its law, and how it was computed.

    ``exact``: the law of a count, or of any sum in whole steps or of few carriers; ``convolution``: weighted sums and
    residuals, on a grid; ``saddlepoint``: many expected outcomes; ``chi2``: the normal law differs by less than 1 %; ''
    without a law.

    Args:
        law: of U.
        U: the score observed.
        ties: whether half (``mid``) or all (``whole``) of the probability of the observed value counts.
    """
    own = (law.start, law.step, law.count, law.mu, *pack_residuals(law.residuals), law.variance)
    log_p, code = two_sided(float(U), ties == "mid", *own)
    return log_p, METHODS[code]
