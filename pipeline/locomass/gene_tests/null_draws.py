"""Null scores of a gene, drawn from the laws that studies share (`law_draws`), and tails of their functions.

Tails come from plain draws while these suffice, then from multilevel splitting (`splitting`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, ndtr

from locomass.gene_tests.case_counts import CountTables, draw_scores, map_scores
from locomass.gene_tests.splitting import split_tail
from locomass.numbers import Floats

Integers = NDArray[np.int64]
#: T of scores: one (B, m) array per study, or one for their sum -> (B,)
Statistic = Callable[[Sequence[Floats]], Floats]

SEED = 20200107  # fixed: the same input gives the same p
EXCEEDANCES = 100  # that end plain draws: 10 %
MAX_DRAWS = 32_768
ENOUGH_TO_JUDGE = 8_192  # draws after which plain draws are given up when they would not get there
NEGLIGIBLE = 1e-3  # part of the largest variance
MANY_PEOPLE = 1e9  # whose cases are normal
BLOCK = 2_048  # draws made at a time
KEPT_VALUES = 2_000_000  # scores of the blocks that stay in memory


@dataclass(frozen=True, slots=True)
class Rest:
    """Those who carry nothing, and must cancel what the carriers make of the intercept.

    Attributes:
        variance: of their part.
        people: how many of them are as likely to be cases as the carriers; 0: their part is normal.
        mu: that probability.
    """

    variance: float
    people: float = 0.0
    mu: float = 0.5

    def cancels(self, x: Floats) -> Floats:
        """Return P(their part is -x) over its largest value."""
        if not math.isfinite(self.variance):
            return np.ones_like(x)
        if not 0.0 < self.people < MANY_PEOPLE:
            normal: Floats = np.exp(-0.5 * x * x / self.variance)
            return normal
        cases = self.people * self.mu - x
        top = min(math.floor((self.people + 1.0) * self.mu), self.people)
        inside = (cases >= 0.0) & (cases <= self.people)
        k = np.where(inside, cases, top)
        log_p = (
            gammaln(top + 1.0) + gammaln(self.people - top + 1.0) - gammaln(k + 1.0) - gammaln(self.people - k + 1.0)
        )
        log_p += (k - top) * math.log(self.mu / (1.0 - self.mu))
        out: Floats = np.where(inside, np.exp(np.minimum(log_p, 0.0)), 0.0)
        return out


@dataclass(frozen=True, slots=True)
class StudyDraws:
    """Null scores of one study as a function of independent normals.

    Attributes:
        tables: counts of the groups of carriers.
        mix: (groups + b, m): the scores are the centred counts or sums of residuals, and b normals, for what of V the
            groups cannot tell, times this.
        rest: where given, the last column of ``mix`` is what the carriers make of the intercept, and a draw is kept
            with the probability that the rest cancels it.
    """

    tables: CountTables
    mix: Floats
    rest: Rest | None = None

    def scores(self, Z: Floats) -> tuple[Floats, Floats]:
        """Return U (B, m) at normals Z (B, groups + b), and the probability (B,) with which each is kept."""
        t = self.tables
        return self._split(map_scores(Z, self._base, t.start, t.cut, t.rise, self.mix))

    def draw(self, rng: np.random.Generator, n: int) -> tuple[Floats, Floats]:
        """Return n draws of U, (n, m), and the probability (n,) with which each is kept."""
        t = self.tables
        return self._split(draw_scores(rng, n, self._base, t.start, t.level, t.rise, self.mix))

    def _split(self, drawn: Floats) -> tuple[Floats, Floats]:
        if self.rest is None:
            return drawn, np.ones(drawn.shape[0])
        return np.ascontiguousarray(drawn[:, :-1]), self.rest.cancels(drawn[:, -1])

    @property
    def _base(self) -> Floats:
        base: Floats = self.tables.lowest @ self.mix[: len(self.tables.lowest)]
        return base


def positive_root(A: Floats, least: float) -> Floats:
    """Return the symmetric root (m, m) of the positive part of A: what groups cannot tell of V.

    No rows where no eigenvalue is above ``least``.
    """
    values, vectors = np.linalg.eigh(A)
    if values[-1] <= least:
        return np.empty((0, A.shape[0]))
    root: Floats = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    return root


@dataclass(slots=True)
class NullDraws:
    """Source of null scores of one gene.

    Attributes:
        parts: of every study.
        order: of the studies in which random numbers are dealt out, by what they are and not by their place: the
            order of the bundles changes nothing.
        stream: numbers that tell the random numbers of this gene from those of others.
        sums: studies whose scores are added up, for every array of scores given; empty: each study by itself.
        source: of the draws, as `method` names it.
        blocks: draws made so far.
        passed: (k,) of how many draws each study kept, by block.
    """

    parts: list[StudyDraws]
    order: list[int]
    stream: tuple[int, ...] = ()
    sums: tuple[tuple[int, ...], ...] = ()
    source: str = "case-count"
    blocks: list[list[Floats]] = field(default_factory=list)
    passed: dict[int, Floats] = field(default_factory=dict)

    @property
    def dimension(self) -> int:
        """Normals behind one draw: those of every study, and one that decides whether it is kept."""
        return sum(part.mix.shape[0] for part in self.parts) + 1

    def scores(self, Z: Floats) -> tuple[list[Floats], NDArray[np.bool_]]:
        """Return the scores (B, m) of every sum at independent normals Z (B, dimension), and which draws are kept."""
        ends = np.cumsum([self.parts[k].mix.shape[0] for k in self.order])
        sums, share = _Sums(self._place()), np.ones(len(Z))
        for k, own in zip(self.order, np.split(Z[:, :-1], ends[:-1], axis=1), strict=True):
            U, chance = self.parts[k].scores(own)
            sums.add(k, U)
            share *= chance
        return sums.scores(), np.asarray(ndtr(Z[:, -1]) <= share, np.bool_)

    def _place(self) -> list[int]:
        """Return the sum that every study is part of."""
        if not self.sums:
            return list(range(len(self.parts)))
        return [next(g for g, members in enumerate(self.sums) if k in members) for k in range(len(self.parts))]

    def block(self, i: int) -> list[Floats]:
        """Return the i-th block of scores: `BLOCK` draws of each study, as many as the study that keeps fewest."""
        if i < len(self.blocks):
            return self.blocks[i]
        rng = np.random.Generator(np.random.PCG64([SEED, *self.stream, i]))
        sums, passed = _Sums(self._place()), np.empty(len(self.parts))
        for k in self.order:
            U, share = self.parts[k].draw(rng, BLOCK)
            kept = rng.random(BLOCK) <= share
            passed[k] = np.count_nonzero(kept)
            sums.add(k, U if kept.all() else U[kept])
        drawn = sums.scores()
        self.passed[i] = passed
        if i == len(self.blocks) and (i + 1) * sum(U.size for U in drawn) <= KEPT_VALUES:
            self.blocks.append(drawn)
        return drawn

    def tail(self, statistic: Statistic, observed: float, particles: int) -> tuple[float, float, str]:
        """Return log P(T >= observed) under the null, its relative standard error, and how it was computed.

        Args:
            statistic: T.
            observed: its value.
            particles: of the splitting, where plain draws do not suffice.
        """
        count, drawn, made = 0, 0, 0
        while made < MAX_DRAWS and count < EXCEEDANCES:
            block = self.block(made // BLOCK)
            count += int(np.count_nonzero(statistic(block) >= observed))
            drawn += block[0].shape[0]
            made += BLOCK
            if made >= ENOUGH_TO_JUDGE and count * MAX_DRAWS < 0.5 * EXCEEDANCES * made:
                break
        if count >= EXCEEDANCES:
            p = (1.0 + count) / (1.0 + drawn)
            return math.log(p), math.sqrt((1.0 - p) / count), f"{self.source} draws"
        log_p, error = self.split(statistic, observed, particles, made // BLOCK)
        return log_p, error, f"{self.source} splitting"

    def split(self, statistic: Statistic, observed: float, particles: int, n_blocks: int) -> tuple[float, float]:
        """Return log P(T >= observed) and its relative standard error by splitting; NaN where no particle gets there.

        Args:
            statistic, observed, particles: see `tail`.
            n_blocks: of plain draws, which tell how many draws every study keeps.
        """
        rng = np.random.Generator(np.random.PCG64([SEED, *self.stream]))
        for i in range(n_blocks):
            if i not in self.passed:
                self.block(i)
        shares = np.sum([self.passed[i] for i in range(n_blocks)], axis=0) / (n_blocks * BLOCK)
        all_kept = bool((shares == 1.0).all())

        def kept_statistic(Z: Floats) -> Floats:
            U, kept = self.scores(Z)
            value = statistic(U)
            return value if all_kept else np.where(kept, value, -np.inf)

        log_p, error = split_tail(kept_statistic, self.dimension, observed, rng, particles)
        doubt = float(((1.0 - shares) / (shares * n_blocks * BLOCK)).sum())
        return log_p - float(np.log(shares).sum()), math.sqrt(error * error + doubt)


class _Sums:
    """Scores of studies, added up as they come, and cut to the length of the shortest."""

    def __init__(self, place: list[int]) -> None:
        self.place = place
        self.known: dict[int, Floats] = {}

    def add(self, k: int, U: Floats) -> None:
        """Add the scores (n, m) of study k."""
        before = self.known.get(self.place[k])
        n = len(U) if before is None else min(len(U), len(before))
        self.known[self.place[k]] = U if before is None else before[:n] + U[:n]

    def scores(self) -> list[Floats]:
        """Return the scores of every sum, as many of each."""
        n = min(len(U) for U in self.known.values())
        return [self.known[g][:n] for g in sorted(self.known)]
