"""Exact laws of sums of carriers by convolution of positive numbers, tilted to where the tail that is asked for begins.

Under the tilt t a sum of probability P(x) has ``q(x) = P(x) exp(t x - K_c(t))``, again a law of independent carriers,
with mean near the u that is asked for. So ``P(U >= u) = exp(K_c(t) - t u) sum_(x >= u) q(x) exp(-t (x - u))`` keeps its
relative precision however small it is. Symbols as in ``law.py``.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from locomass.gene_tests.law_cumulants import carrier_cumulants, log_weight
from locomass.numbers import Floats

Integers = NDArray[np.int64]
NEGLIGIBLE = 1e-18  # part of the largest probability below which the ends of a law are cut
ON_GRID = 1e-9
FORGOTTEN = 80.0  # logarithm of a tilted probability, beside the largest, below which it is none
CELLS = 2_048  # of a grid; a power of two
REVERSED = np.array([int(f"{i:0{CELLS.bit_length() - 1}b}"[::-1], 2) for i in range(CELLS)])
#: e^(-i pi k / half), k < half, for half = 1, 2, 4, ... one after another
TURNS = np.concatenate([np.exp(-1j * np.pi * np.arange(2**b) / 2**b) for b in range(CELLS.bit_length() - 1)])


@njit(cache=True, nogil=True)
def binomial_window(n: int, p: float) -> tuple[int, Floats]:
    """Return the first count and the probabilities of Binomial(n, p) that are more than negligible."""
    odds = p / (1.0 - p)
    mode = min(n, int((n + 1) * p))
    log_top = math.lgamma(n + 1.0) - math.lgamma(mode + 1.0) - math.lgamma(n - mode + 1.0)
    top = math.exp(log_top + mode * math.log(p) + (n - mode) * math.log1p(-p))
    first, value = mode, top
    while first > 0 and value > NEGLIGIBLE * top:
        value *= first / ((n - first + 1) * odds)
        first -= 1
    last, value = mode, top
    while last < n and value > NEGLIGIBLE * top:
        value *= (n - last) * odds / (last + 1)
        last += 1
    out = np.empty(last - first + 1)
    out[mode - first] = top
    for j in range(mode - 1, first - 1, -1):
        out[j - first] = out[j + 1 - first] * (j + 1) / ((n - j) * odds)
    for j in range(mode + 1, last + 1):
        out[j - first] = out[j - 1 - first] * (n - j + 1) * odds / j
    return first, out


@njit(cache=True, nogil=True)
def cut_ends(first: int, q: Floats) -> tuple[int, Floats]:
    """Return the first cell and the law without ends that are negligible."""
    least = NEGLIGIBLE * q.max()
    low, high = 0, q.shape[0]
    while q[low] <= least:
        low += 1
    while q[high - 1] <= least:
        high -= 1
    return first + low, q[low:high]


@njit(cache=True, nogil=True)
def add_count(first: int, q: Floats, stride: float, n: int, p: float) -> tuple[int, Floats]:
    """Return the law of a sum and ``stride`` cells for each of Binomial(n, p); between two cells mass is shared."""
    low, chance = binomial_window(n, p)
    m = chance.shape[0]
    whole = abs(stride - round(stride)) < ON_GRID
    ends = (math.floor(low * stride), math.floor((low + m - 1) * stride))
    if whole:
        ends = (round(low * stride), round((low + m - 1) * stride))
    lowest = min(ends[0], ends[1])
    out = np.zeros(q.shape[0] + abs(ends[1] - ends[0]) + (0 if whole else 1))
    for j in range(m):
        at = (low + j) * stride
        cell = round(at) if whole else math.floor(at)
        upper = 0.0 if whole else at - cell
        shift = cell - lowest
        for i in range(q.shape[0]):
            mass = q[i] * chance[j]
            out[i + shift] += mass * (1.0 - upper)
            if upper > 0.0:
                out[i + shift + 1] += mass * upper
    return cut_ends(first + lowest, out)


@njit(cache=True, nogil=True)
def convolve(first: int, q: Floats, first_too: int, r: Floats) -> tuple[int, Floats]:
    """Return the law of the sum of two independent sums."""
    out = np.zeros(q.shape[0] + r.shape[0] - 1)
    for i in range(q.shape[0]):
        for j in range(r.shape[0]):
            out[i + j] += q[i] * r[j]
    return cut_ends(first + first_too, out)


@njit(cache=True, nogil=True)
def tilted_counts(
    t: float, h: float, start: Integers, step: Floats, count: Floats, mu: Floats, rest: Floats
) -> tuple[float, float, Floats]:
    """Return the tilted law of a binary trait's score on a grid, given the rest that cancels it.

    Args:
        t: tilt.
        h: width of a cell; 1 for steps that are whole numbers: nothing is rounded then.
        start, step, count, mu: groups of every study.
        rest: (k, 4) see ``law_cumulants.open_rest``.

    Returns:
        the value of the first cell, the logarithm of the factor of all, and the law: P(x) exp(t x - factor).
    """
    nothing = np.empty(0)
    first, q, log_factor, offset = 0, np.ones(1), 0.0, 0.0
    for k in range(start.shape[0] - 1):
        low, high = start[k], start[k + 1]
        own_first, own, mean = 0, np.ones(1), 0.0
        for s in range(low, high):
            z = step[s] * t
            p = mu[s] / (mu[s] + (1.0 - mu[s]) * math.exp(-z)) if z < 700.0 else 1.0 - 1e-16
            p = min(max(p, 1e-300), 1.0 - 1e-16)
            own_first, own = add_count(own_first, own, step[s] / h, round(count[s]), p)
            mean += step[s] * round(count[s]) * mu[s]
        c0, _, _, _ = carrier_cumulants(t, low, high, step, count, mu, nothing, nothing)
        log_factor += c0
        offset += mean
        if rest[k, 0] < math.inf:
            R = carrier_cumulants(0.0, low, high, step, count, mu, nothing, nothing)[2]
            own = own.copy()
            for i in range(own.shape[0]):
                x = (own_first + i) * h - mean
                own[i] *= math.exp(log_weight(x, rest[k]))
            log_factor += 0.5 * math.log1p(R / rest[k, 0])
        first, q = convolve(first, q, own_first, own)
    return first * h - offset, log_factor, q


@njit(cache=True, nogil=True)
def tail_of_law(
    u: float, t: float, h: float, x0: float, q: Floats, mid: bool, lattice: bool, extra: float, sign: float
) -> float:
    """Return log of ``sum_(sign x >= sign u) q(x) exp(-t (x - u))``; ``extra`` is the variance of a normal part.

    Args:
        u: where the tail begins.
        t, h, x0, q: a tilted law.
        mid: half of the probability of u itself, or all of it.
        lattice: cells are atoms; else they stand for what is within a cell's width of them.
        extra: its part is blurred over.
        sign: +1: upper, -1: lower tail.
    """
    total = 0.0
    for i in range(q.shape[0]):
        d = sign * (x0 + i * h - u)
        if extra > 0.0:
            part = 0.5 * math.erfc(-d / math.sqrt(2.0 * extra))
        elif lattice:
            part = 1.0 if d > 1e-6 * h else 0.0 if d < -1e-6 * h else 0.5 if mid else 1.0
        else:
            part = min(1.0, max(0.0, (d + (h if mid else 2.0 * h)) / (2.0 * h)))
        if part > 0.0:
            total += q[i] * part * (math.exp(min(-t * sign * d, 700.0)) if t != 0.0 else 1.0)
    return math.log(total) if total > 0.0 else -math.inf


@njit(cache=True, nogil=True)
def transform(a: NDArray[np.complex128], inverse: bool) -> None:
    """Fourier-transform ``a`` (CELLS,) in place: ``sum_j a_j e^(-+ 2 pi i j k / n)``; the inverse divides by n."""
    n = CELLS
    for i in range(n):
        j = REVERSED[i]
        if i < j:
            a[i], a[j] = a[j], a[i]
    half = 1
    while half < n:
        for block in range(0, n, 2 * half):
            for k in range(half):
                turn = TURNS[half - 1 + k]
                odd = a[block + half + k] * (turn.conjugate() if inverse else turn)
                a[block + half + k] = a[block + k] - odd
                a[block + k] += odd
        half *= 2
    if inverse:
        for i in range(n):
            a[i] *= 1.0 / n


@njit(cache=True, nogil=True)
def multiply_power(a: NDArray[np.complex128], base: NDArray[np.complex128], n: int) -> None:
    """Multiply ``a`` by ``base ** n``, element by element; ``base`` is used up."""
    while n > 0:
        if n & 1:
            for i in range(a.shape[0]):
                a[i] *= base[i]
        n >>= 1
        if n > 0:
            for i in range(a.shape[0]):
                base[i] *= base[i]


@njit(cache=True, nogil=True)
def half_gap(i: int, node: Floats) -> float:
    """Return half the way from node i to its nearer neighbour."""
    q = node.shape[0]
    left = node[i] - node[i - 1] if i > 0 else math.inf
    right = node[i + 1] - node[i] if i < q - 1 else math.inf
    return 0.5 * min(left, right) if q > 1 else 0.0


@njit(cache=True, nogil=True)
def shrinkage(g: float, h: float, node: Floats, chance: Floats) -> float:
    """Return by how much a person's g r is drawn in, so that spreading its nodes leaves its variance as it is."""
    variance, added = 0.0, 0.0
    for i in range(node.shape[0]):
        half = abs(g) * half_gap(i, node)
        parts = max(1, math.ceil(2.0 * half / h))
        variance += chance[i] * (g * node[i]) ** 2
        added += chance[i] * half * half * (1.0 - 1.0 / parts**2) / 3.0
    return math.sqrt(variance / (variance + added))


@njit(cache=True, nogil=True)
def lay_residuals(t: float, g: float, h: float, node: Floats, chance: Floats, cells: NDArray[np.complex128]) -> float:
    """Fill ``cells`` with the tilted law of a person's g r on a circular grid; return its log factor.

    A node stands for values as far as half way to its nearer neighbour, alike likely. A value is shared by three cells
    that have its mean and square, ``1 - d^2`` and ``(d^2 +- d) / 2`` at a distance of d cells: no variance is added.
    """
    cells[:] = 0.0
    top = -math.inf
    for i in range(node.shape[0]):
        top = max(top, t * g * node[i])
    total, shrink = 0.0, shrinkage(g, h, node, chance)
    for i in range(node.shape[0]):
        half = abs(g) * half_gap(i, node)
        if t * g * node[i] + abs(t) * half - top < -FORGOTTEN:
            continue
        parts = max(1, math.ceil(2.0 * half / h))
        for k in range(parts):
            x = shrink * (g * node[i] + half * ((2.0 * k + 1.0) / parts - 1.0))
            cell = math.floor(x / h + 0.5)
            d = x / h - cell
            for c in range(-1, 2):
                share = chance[i] / parts * (1.0 - d * d if c == 0 else 0.5 * (d * d + c * d))
                tilted = share * math.exp(t * (cell + c) * h - top)
                cells[(cell + c) % CELLS] += tilted
                total += tilted
    for i in range(CELLS):
        cells[i] *= 1.0 / total
    return top + math.log(total)


@njit(cache=True, nogil=True)
def log_cancelled(R: float, k3: float, k4: float, A: float) -> float:
    """Return ``log E exp(-x^2 / 2A)``, x a sum with variance R and cumulants k3 and k4, by Edgeworth's series."""
    part = 1.0 / (A + R)
    return -0.5 * math.log1p(R / A) + math.log1p(k4 * part**2 / 8.0 - 15.0 * k3**2 * part**3 / 72.0)


@njit(cache=True, nogil=True)
def tilted_residuals(
    t: float,
    u: float,
    h: float,
    start: Integers,
    step: Floats,
    count: Floats,
    nodes: Integers,
    node: Floats,
    chance: Floats,
    variance: Floats,
) -> tuple[float, float, Floats]:
    """Return the tilted law of a quantitative trait's score on a grid about u; see `tilted_counts`.

    Without tilt the factor is what makes the sum of all cells 1.

    Args:
        t, u: tilt, and the middle of the grid.
        h: width of a cell.
        start, step, count: groups of every study.
        nodes, node, chance: residuals of every study.
        variance: (k,) V of the score in each study.
    """
    law = np.ones(CELLS, np.complex128)
    cells, own = np.empty(CELLS, np.complex128), np.empty(CELLS, np.complex128)
    log_factor = 0.0
    n_studies = start.shape[0] - 1
    for k in range(n_studies):
        r, p = node[nodes[k] : nodes[k + 1]], chance[nodes[k] : nodes[k + 1]]
        own[:] = 1.0
        R, k3, k4 = residual_cumulants(start[k], start[k + 1], step, count, r, p)
        for s in range(start[k], start[k + 1]):
            log_factor += count[s] * lay_residuals(t, step[s], h, r, p, cells)
            transform(cells, False)
            multiply_power(own, cells, round(count[s]))
        conditional = variance[k] * (1.0 + 1e-9) < R
        if variance[k] > R:
            extra = variance[k] - R
            for i in range(CELLS):
                w = 2.0 * math.pi * (i if i <= CELLS // 2 else i - CELLS) / (CELLS * h)
                own[i] *= np.exp(complex(-0.5 * extra * w * w, -w * extra * t))
            log_factor += 0.5 * extra * t * t
        elif conditional:
            A = R * variance[k] / (R - variance[k])
            middle = _tilted_mean(t, start[k], start[k + 1], step, count, r, p)
            transform(own, True)
            first = math.floor(middle / h) - CELLS // 2
            for i in range(CELLS):
                x = (first + i) * h
                own[(first + i) % CELLS] *= math.exp(-0.5 * x * x / A)
            log_factor -= log_cancelled(R, k3, k4, A)
            if n_studies > 1:
                transform(own, False)
        if n_studies > 1 or not conditional:
            for i in range(CELLS):
                law[i] *= own[i]
        else:
            law[:] = own
    if n_studies > 1 or not conditional:
        transform(law, True)
    first = math.floor(u / h) - CELLS // 2
    out = np.empty(CELLS)
    for i in range(CELLS):
        out[i] = max(0.0, law[(first + i) % CELLS].real)
    if t == 0.0:
        return first * h, -math.log(out.sum()), out
    return first * h, log_factor, out


@njit(cache=True, nogil=True)
def residual_cumulants(
    low: int, high: int, step: Floats, count: Floats, node: Floats, chance: Floats
) -> tuple[float, float, float]:
    """Return the variance and the third and fourth cumulant of the sum of groups low to high of one study."""
    m2, m3, m4 = 0.0, 0.0, 0.0
    for i in range(node.shape[0]):
        m2 += chance[i] * node[i] ** 2
        m3 += chance[i] * node[i] ** 3
        m4 += chance[i] * node[i] ** 4
    R, k3, k4 = 0.0, 0.0, 0.0
    for s in range(low, high):
        R += count[s] * step[s] ** 2 * m2
        k3 += count[s] * step[s] ** 3 * m3
        k4 += count[s] * step[s] ** 4 * (m4 - 3.0 * m2 * m2)
    return R, k3, k4


@njit(cache=True, nogil=True)
def _tilted_mean(t: float, low: int, high: int, step: Floats, count: Floats, node: Floats, chance: Floats) -> float:
    """Return the mean of the carriers' sum of one study under the tilt."""
    unknown = np.full(high, math.nan)
    return carrier_cumulants(t, low, high, step, count, unknown, node, chance)[1]


@njit(cache=True, nogil=True)
def count_outcomes(start: Integers, count: Floats, most: int) -> int:
    """Return how many outcomes the groups of all studies have together; ``most + 1`` where there are more."""
    total = 1.0
    for s in range(start[-1]):
        total *= round(count[s]) + 1.0
        if total > most:
            return most + 1
    return int(total)


@njit(cache=True, nogil=True)
def enumerate_counts(
    n_outcomes: int, start: Integers, step: Floats, count: Floats, mu: Floats, rest: Floats
) -> tuple[Floats, Floats]:
    """Return every value of a binary trait's score and its probability, given the rest that cancels it.

    Args:
        n_outcomes: from `count_outcomes`.
        start, step, count, mu: groups of every study.
        rest: (k, 4) see ``law_cumulants.open_rest``.
    """
    value, own, chance = np.zeros(n_outcomes), np.zeros(n_outcomes), np.ones(n_outcomes)
    used = 1
    for k in range(start.shape[0] - 1):
        own[:used] = 0.0
        R = 0.0
        for s in range(start[k], start[k + 1]):
            n = round(count[s])
            R += n * step[s] ** 2 * mu[s] * (1.0 - mu[s])
            for j in range(n, -1, -1):  # the first block last: it is read until then
                log_p = math.lgamma(n + 1.0) - math.lgamma(j + 1.0) - math.lgamma(n - j + 1.0)
                p = math.exp(log_p + j * math.log(mu[s]) + (n - j) * math.log1p(-mu[s]))
                x = step[s] * (j - n * mu[s])
                for i in range(used):
                    value[j * used + i] = value[i] + x
                    own[j * used + i] = own[i] + x
                    chance[j * used + i] = chance[i] * p
            used *= n + 1
        if rest[k, 0] < math.inf:
            factor = math.sqrt(1.0 + R / rest[k, 0])
            for i in range(used):
                chance[i] *= factor * math.exp(log_weight(own[i], rest[k]))
    return value, chance
