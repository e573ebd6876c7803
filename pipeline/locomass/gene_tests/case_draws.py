"""Who are the cases, drawn from fitted probabilities given how many cases there are: conditional Bernoulli sampling.

Of people with probabilities mu_i, K are cases; a set C of K people is drawn with probability proportional to
``prod_(i in C) mu_i / (1 - mu_i)`` (Chen, Dempster & Liu 1994, Biometrika 81:457). Multiplying all odds by one factor
changes nothing, so they are first scaled such that K is the expected number. Then people are halved again and again:
a node of the tree knows the distribution of its number of cases (a Poisson binomial, the convolution of those of its
halves), and given k cases in a node, a of them are in its left half with probability proportional to
``P_left(a) P_right(k - a)``. A draw visits only nodes that hold both cases and controls: O(K log n), and exact.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from locomass.gene_tests.random_stream import State, draw_uniform
from locomass.numbers import Floats

Integers = NDArray[np.int64]

NEGLIGIBLE = 1e-20  # counts of a node less likely than this part of its most likely count are never drawn


class CaseTree(NamedTuple):
    """Distributions of the number of cases, strata in a row, each a tree of halves in preorder.

    The left half of a node of s people has floor(s / 2) of them and comes next; a half of s people takes 2 s - 1 nodes.

    Attributes:
        stratum_start: (S + 1,) first person of each stratum.
        n_cases: (S,) cases of each stratum.
        node_start: (S + 1,) first node of each stratum.
        start: (nodes + 1,) where the probabilities of a node begin.
        least: (nodes,) the count that the first of them belongs to.
        probability: of the counts, one after the other.
    """

    stratum_start: Integers
    n_cases: Integers
    node_start: Integers
    start: Integers
    least: Integers
    probability: Floats


_NONE = np.zeros(1, dtype=np.int64)
NOBODY = CaseTree(_NONE, _NONE[:0], _NONE, _NONE, _NONE[:0], np.empty(0))


def plan_case_draws(mu: Floats, case: NDArray[np.bool_], stratum_start: Integers) -> CaseTree:
    """Return the tree for draws with the observed number of cases in every stratum.

    Args:
        mu: (n,) fitted probabilities, between 0 and 1, both excluded; people of one stratum side by side.
        case: (n,) who is a case.
        stratum_start: (S + 1,) first person of each stratum, then n.
    """
    n_cases = np.add.reduceat(case.astype(np.int64), stratum_start[:-1])
    log_odds = np.log(mu) - np.log1p(-mu)
    q = np.empty_like(mu)
    for s, k in enumerate(n_cases):
        own = slice(stratum_start[s], stratum_start[s + 1])
        q[own] = scale_odds(log_odds[own], int(k))
    node_start = np.concatenate([[0], np.cumsum(2 * np.diff(stratum_start) - 1)]).astype(np.int64)
    start, least, probability = _count_cases(q, stratum_start, node_start)
    return CaseTree(stratum_start, n_cases, node_start, start, least, probability)


def scale_odds(log_odds: Floats, k: int) -> Floats:
    """Return probabilities with these log odds but for a constant, k of them expected (bisection, then Newton)."""
    n = log_odds.size
    if k in (0, n):
        return np.full(n, 0.5)  # nothing is drawn
    middle = np.log(k / (n - k))
    low, high = middle - log_odds.max(), middle - log_odds.min()
    shift = 0.5 * (low + high)
    for _ in range(200):
        q: Floats = 1.0 / (1.0 + np.exp(-(log_odds + shift)))
        excess = float(q.sum()) - k
        low, high = (low, shift) if excess > 0.0 else (shift, high)
        step = shift - excess / max(float((q * (1.0 - q)).sum()), 1e-300)
        shift = step if low < step < high else 0.5 * (low + high)
        if abs(excess) <= 1e-10 * k:
            break
    return q


@njit(cache=True, nogil=True)
def _count_cases(q: Floats, stratum_start: Integers, node_start: Integers) -> tuple[Integers, Integers, Floats]:
    """Return where the probabilities of each node begin, its first count, and the probabilities."""
    n_nodes = node_start[-1]
    size, person = np.empty(n_nodes, np.int64), np.empty(n_nodes, np.int64)
    for s in range(node_start.shape[0] - 1):
        size[node_start[s]] = stratum_start[s + 1] - stratum_start[s]
        person[node_start[s]] = stratum_start[s]
        for node in range(node_start[s], node_start[s + 1]):
            left = size[node] // 2
            if left > 0:
                size[node + 1], person[node + 1] = left, person[node]
                right = node + 2 * left
                size[right], person[right] = size[node] - left, person[node] + left
    first, least, length = np.empty(n_nodes, np.int64), np.zeros(n_nodes, np.int64), np.empty(n_nodes, np.int64)
    kept = np.empty(4 * n_nodes + 16)
    used = 0
    is_root = np.zeros(n_nodes, np.bool_)
    is_root[node_start[:-1]] = True
    for node in range(n_nodes - 1, -1, -1):  # halves come after the whole
        if is_root[node]:  # its count is given
            own = np.ones(1)
        elif size[node] == 1:
            own = np.array([1.0 - q[person[node]], q[person[node]]])
        else:
            a, b = node + 1, node + 2 * (size[node] // 2)
            own = np.zeros(length[a] + length[b] - 1)
            for i in range(length[a]):
                for j in range(length[b]):
                    own[i + j] += kept[first[a] + i] * kept[first[b] + j]
            least[node] = least[a] + least[b]
        low, high, bound = 0, own.shape[0], NEGLIGIBLE * own.max()
        while own[low] < bound:
            low += 1
        while own[high - 1] < bound:
            high -= 1
        while used + high - low > kept.shape[0]:
            kept = np.concatenate((kept, np.empty(kept.shape[0])))
        kept[used : used + high - low] = own[low:high]
        first[node], length[node] = used, high - low
        least[node] += low
        used += high - low
    start, probability, at = np.empty(n_nodes + 1, np.int64), np.empty(used), 0
    for node in range(n_nodes):
        start[node] = at
        probability[at : at + length[node]] = kept[first[node] : first[node] + length[node]]
        at += length[node]
    start[n_nodes] = at
    return start, least, probability


@njit(cache=True, nogil=True)
def draw_cases(tree: CaseTree, state: State, y: Floats) -> None:
    """Fill y (n,) with 1.0 for the cases of one draw and 0.0 for everybody else."""
    y[:] = 0.0
    stack = np.empty((130, 4), np.int64)  # node, first person, people, cases: two a level
    for s in range(tree.n_cases.shape[0]):
        people = tree.stratum_start[s + 1] - tree.stratum_start[s]
        stack[0] = (tree.node_start[s], tree.stratum_start[s], people, tree.n_cases[s])
        depth = 1
        while depth > 0:
            depth -= 1
            node, person, people, k = stack[depth]
            if k == people:
                y[person : person + people] = 1.0
            elif k > 0:
                left = people // 2
                a = _draw_left(tree, state, node + 1, node + 2 * left, k)
                stack[depth] = (node + 1, person, left, a)
                stack[depth + 1] = (node + 2 * left, person + left, people - left, k - a)
                depth += 2


@njit(cache=True, nogil=True)
def _draw_left(tree: CaseTree, state: State, left: int, right: int, k: int) -> int:
    """Return how many of the k cases of two halves are in the left one."""
    low = max(tree.least[left], k - (tree.least[right] + tree.start[right + 1] - tree.start[right] - 1))
    high = min(tree.least[left] + tree.start[left + 1] - tree.start[left] - 1, k - tree.least[right])
    in_left, in_right = tree.start[left] - tree.least[left], tree.start[right] - tree.least[right] + k
    total = 0.0
    for a in range(low, high + 1):
        total += tree.probability[in_left + a] * tree.probability[in_right - a]
    rest = draw_uniform(state) * total
    for a in range(low, high):
        rest -= tree.probability[in_left + a] * tree.probability[in_right - a]
        if rest < 0.0:
            return a
    return high
