"""Risk sets of Cox's model over the events of a study, and what they do to the information of a score.

Events are grouped in *cells*: the d people of one stratum who fail at one time. With ``e = exp(eta)``, S and D the sums
of e over the people at risk and over those who fail, and x one column, Efron's terms (l = 0 ... d - 1) have the
denominators ``S - (l / d) D``; every sum over them is made of

    h_k = sum_l (l / d)^k / (S - l D / d),       c_k = sum_l (l / d)^k / (S - l D / d)^2,

so that a cell costs its d terms once, whatever the number of columns and people.

The information of genotypes is ``G'WG - G'RG``, W the expected events of each person and R the products of the risk
sets' means: ``R_il = e_i e_l sum_cells c_0 f_i f_l + q [i and l fail in it]``, f the part of a cell during which a
person is at risk: 1, or ``1 - c_1 / c_0`` in the cell in which they fail; ``q = c_2 - c_1^2 / c_0``. On the axis of the
cumulated c_0 it is how much the follow-up of two people overlaps. Bins of this axis take up what two people share by
covering bins, a column each; what is left is between people whose follow-up ends inside the same bin: a few pairs.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from locomass.follow_up import FollowUp
from locomass.numbers import Floats

Integers = NDArray[np.int64]
BINS = 16  # of the axis, beside one per further stratum


@dataclass(frozen=True)
class Cells:
    """Cells of a study, those of a stratum one after another in time.

    Attributes:
        first: (n,) first cell in which a person is at risk; last: (n,) the cell after the last one.
        died: (n,) whether the person fails, in the cell before ``last``.
        size: (c,) people who fail.
        start: (s + 1,) where the cells of each stratum begin.
    """

    first: Integers
    last: Integers
    died: NDArray[np.bool_]
    size: Integers
    start: Integers


def find_cells(follow_up: FollowUp) -> Cells:
    """Return the cells of a follow-up: the distinct times of events of every stratum, in O(n log n)."""
    n = follow_up.exit.size
    first, last = np.zeros(n, np.int64), np.zeros(n, np.int64)
    sizes, start = [np.empty(0, np.int64)], [0]
    order = np.argsort(follow_up.stratum, kind="stable")
    bounds = np.flatnonzero(np.diff(follow_up.stratum[order], prepend=np.inf, append=np.inf))
    for low, high in zip(bounds[:-1], bounds[1:], strict=True):
        inside = order[low:high]
        times, counts = np.unique(follow_up.exit[inside][follow_up.event[inside]], return_counts=True)
        first[inside] = start[-1] + np.searchsorted(times, follow_up.entry[inside], side="right")
        last[inside] = start[-1] + np.searchsorted(times, follow_up.exit[inside], side="right")
        sizes.append(counts.astype(np.int64))
        start.append(start[-1] + times.size)
    return Cells(first, last, follow_up.event, np.concatenate(sizes), np.array(start, np.int64))


@njit(cache=True, nogil=True)
def sum_risk_sets(e: Floats, X: Floats, first: Integers, last: Integers, died: Any, start: Integers) -> Any:
    """Return (c, 1 + p) the sums of ``e [1, x]`` over the people at risk in each cell, and over those who fail."""
    n, p = X.shape
    at_risk, failing = np.zeros((start[-1], p + 1)), np.zeros((start[-1], p + 1))
    begins = np.zeros(start[-1] + 1, np.bool_)
    begins[start] = True
    for i in range(n):
        if last[i] <= first[i]:
            continue
        at = last[i] - 1
        before = first[i] - 1 if not begins[first[i]] else -1
        at_risk[at, 0] += e[i]
        if before >= 0:
            at_risk[before, 0] -= e[i]
        for j in range(p):
            x = e[i] * X[i, j]
            at_risk[at, j + 1] += x
            if before >= 0:
                at_risk[before, j + 1] -= x
        if died[i]:
            failing[at, 0] += e[i]
            for j in range(p):
                failing[at, j + 1] += e[i] * X[i, j]
    for c in range(start[-1] - 2, -1, -1):
        if not begins[c + 1]:
            for j in range(p + 1):
                at_risk[c, j] += at_risk[c + 1, j]
    return at_risk, failing


@njit(cache=True, nogil=True)
def sum_terms(S: Floats, D: Floats, size: Integers) -> tuple[Floats, Floats, float]:
    """Return h_0, h_1 (c, 2), c_0, c_1, c_2 (c, 3), and the sum of the logarithms of all denominators."""
    n = S.shape[0]
    h, c, logs = np.zeros((n, 2)), np.zeros((n, 3)), 0.0
    for k in range(n):
        for term in range(size[k]):
            part = term / size[k]
            denominator = S[k] - part * D[k]
            logs += np.log(denominator)
            inverse = 1.0 / denominator
            h[k, 0] += inverse
            h[k, 1] += part * inverse
            c[k, 0] += inverse * inverse
            c[k, 1] += part * inverse * inverse
            c[k, 2] += part * part * inverse * inverse
    return h, c, logs


@dataclass(frozen=True)
class RiskSets:
    """What pairs of people need; see the top of this file.

    Attributes:
        e: (n,) exp(eta).
        begin, middle, end: (n,) on the axis: entry, start of the cell in which a person fails (else their end), exit.
        part: (n,) f in that cell.
        tie: (n,) number of that cell where several people fail in it, else -1.
        q: (c,) of every cell.
        edges: (b + 1,) of the bins, those of all strata one after another.
    """

    e: Floats
    begin: Floats
    middle: Floats
    end: Floats
    part: Floats
    tie: Integers
    q: Floats
    edges: Floats

    def spread(self, chosen: NDArray[np.bool_]) -> RiskSets:
        """Return the same for chosen people among all; nobody else is at risk."""
        out: dict[str, Any] = self.arrays()
        for name in ("e", "begin", "middle", "end", "part", "tie"):
            full = np.full(chosen.size, -1 if name == "tie" else 0, out[name].dtype)
            full[chosen] = out[name]
            out[name] = full
        return RiskSets(**out)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def bin_columns(self) -> Floats:
        """Return (n, b) ``e_i sum_bin c_0 f_i / sqrt(sum_bin c_0)``: what bins take up of R is their product."""
        low, high = self.edges[:-1], self.edges[1:]
        out = np.empty((self.e.size, low.size))
        for b in range(low.size):
            whole = np.clip(np.minimum(self.middle, high[b]) - np.maximum(self.begin, low[b]), 0.0, None)
            own = np.clip(np.minimum(self.end, high[b]) - np.maximum(self.middle, low[b]), 0.0, None)
            out[:, b] = self.e * (whole + self.part * own) / np.sqrt(high[b] - low[b])
        return out

    def pair_block(self, lists: tuple[Integers, NDArray[np.int32], Floats], first: int, last: int) -> Floats:
        """Return rows ``first:last`` of the lower triangle of what bins leave of G'RG, (last - first, last).

        Args:
            lists: indptr (m + 1,), people and values of the columns of G.
            first, last: the rows wanted.
        """
        own = (self.e, self.begin, self.middle, self.end, self.part, self.tie, self.q, self.edges)
        return np.asarray(_pair_block(*lists, *own, first, last))

    def pair_diagonal(self, lists: tuple[Integers, NDArray[np.int32], Floats]) -> Floats:
        """Return (m,) the diagonal of what bins leave of G'RG; see `pair_block`."""
        own = (self.e, self.begin, self.middle, self.end, self.part, self.tie, self.q, self.edges)
        return np.asarray(_pair_diagonal(*lists, *own))


def lay_axis(e: Floats, cells: Cells, c: Floats) -> RiskSets:
    """Return the risk sets of people with ``e`` in cells with the sums c (c, 3)."""
    axis = np.concatenate(([0.0], np.cumsum(c[:, 0])))
    several = cells.died & (cells.last > cells.first)
    several[several] = cells.size[cells.last[several] - 1] > 1
    own = cells.last[several] - 1
    seen = cells.last > cells.first
    begin, end = axis[cells.first], axis[np.maximum(cells.first, cells.last)]
    middle, part, tie = end.copy(), np.ones(e.size), np.full(e.size, -1, np.int64)
    middle[several], part[several], tie[several] = axis[own], 1.0 - c[own, 1] / c[own, 0], own
    q = c[:, 2] - c[:, 1] ** 2 / c[:, 0]
    return RiskSets(np.where(seen, e, 0.0), begin, middle, end, part, tie, q, axis[_choose_edges(cells)])


def _choose_edges(cells: Cells) -> Integers:
    """Return the cells at which bins begin, and the end: every stratum's, and where follow-up ends most often."""
    total = int(cells.start[-1])
    ends = np.bincount(cells.last, minlength=total + 1) + np.bincount(cells.first, minlength=total + 1)
    ends[cells.start] = 0
    share = np.cumsum(ends) / max(int(ends.sum()), 1)
    inner = np.searchsorted(share, np.arange(1, BINS) / BINS)
    return np.unique(np.concatenate([cells.start, inner, [total]])).astype(np.int64)


@njit(cache=True, nogil=True)
def _pair_block(
    indptr: Integers,
    sample: NDArray[np.int32],
    value: Floats,
    e: Floats,
    begin: Floats,
    middle: Floats,
    end: Floats,
    part: Floats,
    tie: Integers,
    q: Floats,
    edges: Floats,
    first: int,
    last: int,
) -> Floats:
    """See `RiskSets.pair_block`; only people whose follow-up begins or ends inside a bin are visited.

    For column j the kernel integrates ``f_j`` less its mean in each bin along the axis (P, zero at the edges of bins);
    an entry of column k then reads ``P(middle) - P(begin) + part (P(end) - P(middle))``.
    """
    out = np.zeros((last - first, last))
    owner, who, size = _inner_entries(indptr, sample, value, (e, begin, middle, end, tie), edges, last)
    if not owner.shape[0]:
        return out
    grid = np.unique(np.concatenate((begin[who], middle[who], end[who], edges)))
    at = np.stack(
        (np.searchsorted(grid, begin[who]), np.searchsorted(grid, middle[who]), np.searchsorted(grid, end[who]))
    )
    bins = np.searchsorted(edges, grid[:-1], side="right") - 1
    bounds = np.searchsorted(owner, np.arange(last + 1))
    ties = np.unique(tie[who])
    tie_at = np.searchsorted(ties, tie[who])
    P, step, failing = np.zeros(grid.shape[0]), np.zeros(grid.shape[0]), np.zeros(ties.shape[0])
    for j in range(first, last):
        low, high = bounds[j], bounds[j + 1]
        if low == high:
            continue
        failing[:] = 0.0
        step[:] = 0.0
        for k in range(low, high):
            own = part[who[k]]
            step[at[0, k]] += size[k]
            step[at[1, k]] -= (1.0 - own) * size[k]
            step[at[2, k]] -= own * size[k]
            failing[tie_at[k]] += size[k]
        _integrate(step, grid, bins, edges, P)
        for k in range(bounds[j + 1]):
            own = part[who[k]]
            x = P[at[1, k]] - P[at[0, k]] + own * (P[at[2, k]] - P[at[1, k]])
            if tie[who[k]] >= 0:
                x += q[tie[who[k]]] * failing[tie_at[k]]
            out[j - first, owner[k]] += size[k] * x
    return out


@njit(cache=True, nogil=True)
def _pair_diagonal(
    indptr: Integers,
    sample: NDArray[np.int32],
    value: Floats,
    e: Floats,
    begin: Floats,
    middle: Floats,
    end: Floats,
    part: Floats,
    tie: Integers,
    q: Floats,
    edges: Floats,
) -> Floats:
    """See `RiskSets.pair_diagonal`."""
    out = np.zeros(indptr.shape[0] - 1)
    ends = np.zeros(2, np.int64)
    for j in range(out.shape[0]):
        low, high = indptr[j], indptr[j + 1]
        ends[1] = high - low
        own = _pair_block(ends, sample[low:high], value[low:high], e, begin, middle, end, part, tie, q, edges, 0, 1)
        out[j] = own[0, 0]
    return out


@njit(cache=True, nogil=True)
def _inner_entries(indptr: Any, sample: Any, value: Any, people: Any, edges: Floats, last: int) -> Any:
    """Return column, person and ``e g`` of the entries whose follow-up begins or ends inside a bin."""
    e, begin, middle, end, tie = people
    owner, who, size = np.empty(indptr[last], np.int64), np.empty(indptr[last], np.int64), np.empty(indptr[last])
    used = 0
    for j in range(last):
        for k in range(indptr[j], indptr[j + 1]):
            i = sample[k]
            if e[i] == 0.0 or value[k] == 0.0:
                continue
            inner = tie[i] >= 0
            for x in (begin[i], middle[i], end[i]):
                at = np.searchsorted(edges, x)
                inner = inner or at == edges.shape[0] or edges[at] != x
            if inner:
                owner[used], who[used], size[used] = j, i, e[i] * value[k]
                used += 1
    return owner[:used], who[:used], size[:used]


@njit(cache=True, nogil=True)
def _integrate(step: Floats, grid: Floats, bins: Integers, edges: Floats, P: Floats) -> None:
    """Set P to the integral, from the edge of its bin, of the function with these steps less its mean in the bin."""
    f, a = 0.0, 0
    n = bins.shape[0]
    while a < n:
        b, z, total, varies, start = bins[a], a, 0.0, False, f
        while z < n and bins[z] == b:
            f += step[z]
            varies = varies or (z > a and step[z] != 0.0)
            total += f * (grid[z + 1] - grid[z])
            z += 1
        mean, f, inside = total / (edges[b + 1] - edges[b]), start, 0.0
        for s in range(a, z):
            f += step[s]
            P[s] = inside if varies else 0.0
            inside += (f - mean) * (grid[s + 1] - grid[s])
        P[z] = 0.0
        a = z
