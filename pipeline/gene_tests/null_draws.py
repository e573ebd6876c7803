"""Null scores of a binary trait that few cases carry the variants of, drawn from what studies share.

Cases among the carriers, in groups that carry the same variants (``kernels.case_counts``), give the scores; tails of
their functions come from plain draws while these suffice, then from multilevel splitting (``kernels.splitting``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipeline.gene_tests.base import Carriers, Floats
from pipeline.kernels.case_counts import CountTables, draw_scores, map_scores, share_carriers, tabulate_counts
from pipeline.kernels.splitting import split_tail

Integers = NDArray[np.intp]
#: T of scores: one (B, m) array per study, or one for their sum -> (B,)
Statistic = Callable[[Sequence[Floats]], Floats]

SEED = 20200107  # fixed: the same input gives the same p
EXCEEDANCES = 100  # that end plain draws: 10 %
MAX_DRAWS = 32_768
ENOUGH_TO_JUDGE = 8_192  # draws after which plain draws are given up when they would not get there
NORMAL_VARIANCE = 100.0  # from which a score is normal: 100 cases carry the variant
MOST_FREQUENT = 0.1
NEGLIGIBLE = 1e-3  # part of the largest variance
BLOCK = 2_048  # draws made at a time
KEPT_VALUES = 2_000_000  # scores of the blocks that stay in memory


@dataclass(frozen=True, slots=True)
class StudyDraws:
    """Null scores of one study as a function of independent normals.

    Attributes:
        tables: counts of the groups of carriers.
        mix: (groups + 1 + b, m): the scores are the centred counts, the cases among those who carry nothing and b
            further normals, for what of V the groups cannot tell, times this.
    """

    tables: CountTables
    mix: Floats

    def scores(self, Z: Floats) -> Floats:
        """Return U (B, m) at normals Z (B, groups + 1 + b)."""
        return map_scores(Z, self._base, self.tables.start, self.tables.cut, self.mix)

    def draw(self, rng: np.random.Generator, n: int) -> Floats:
        """Return n draws of U, (n, m)."""
        return draw_scores(rng, n, self._base, self.tables.start, self.tables.level, self.mix)

    @property
    def _base(self) -> Floats:
        base: Floats = self.tables.lowest @ self.mix[: len(self.tables.lowest)]
        return base


def open_draws(known: Carriers) -> StudyDraws:
    """Return the source of null scores of a study, or of the sum of studies.

    Variants with many cases (V_jj of 100 or more) or above a frequency of 0.1 have normal scores, which follow those
    of the others by regression; see ``kernels.case_counts`` for these. The scores drawn have the covariance V, more
    where the groups of carriers overstate it.

    Args:
        known: n, frequencies and V of a study, or of all together.
    """
    minor, sign = np.minimum(known.frequency, 1.0 - known.frequency), np.where(known.frequency > 0.5, -1.0, 1.0)
    turn = sign / known.step
    V = known.V * np.outer(turn, turn)
    variance = V.diagonal()
    few = (variance < NORMAL_VARIANCE) & (minor <= MOST_FREQUENT) & (variance > 0.0) & (minor > 0.0)
    rare, rest = np.flatnonzero(few), np.flatnonzero(~few)
    f, own = minor[rare], V[np.ix_(rare, rare)]
    per_carrier = np.minimum(own.diagonal() / (known.n * 2.0 * f * (1.0 - f)), 0.25)
    root = np.sqrt(per_carrier)
    together = own / np.outer(root, root) + known.n * 4.0 * np.outer(f, f)
    members, size = share_carriers(np.maximum(np.round(together, 6), 0.0))  # rounding in V must not change the groups
    mu = 0.5 - np.sqrt(0.25 - members @ per_carrier / members.sum(axis=1))
    mu = mu if known.case_share <= 0.5 else 1.0 - mu
    mix = np.vstack((members - 2.0 * f, -2.0 * f))
    others = max(0.0, known.n - size.sum()) * float(per_carrier.sum()) / max(1, rare.size)
    spread = np.append(size * mu * (1.0 - mu), others)
    mix *= np.sqrt(own.diagonal() / (spread @ mix**2))  # covariates take some variance away
    counted = np.zeros((size.size + 1, variance.size))
    counted[:, rare] = mix
    counted[:, rest] = mix @ regress(V, rare, rest)
    normal = positive_root(V - counted.T @ (spread[:, None] * counted), NEGLIGIBLE * variance.max())
    counted[-1] *= math.sqrt(spread[-1])
    return StudyDraws(tabulate_counts(size, mu), np.vstack((counted, normal)) / turn @ known.combine)


def positive_root(A: Floats, least: float) -> Floats:
    """Return the symmetric root (m, m) of the positive part of A: what groups cannot tell of V, and normal scores.

    No rows where no eigenvalue is above ``least``.
    """
    values, vectors = np.linalg.eigh(A)
    if values[-1] <= least:
        return np.empty((0, A.shape[0]))
    root: Floats = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    return root


def regress(V: Floats, on: Integers, of: Integers) -> Floats:
    """Return the slopes (on, of) of the scores of some variants on those of others."""
    slopes: Floats = np.linalg.pinv(V[np.ix_(on, on)], hermitian=True) @ V[np.ix_(on, of)]
    return slopes


def join_carriers(carriers: Sequence[Carriers]) -> Carriers:
    """Return the carriers of all studies as those of one."""
    n = np.array([own.n for own in carriers])
    return Carriers(
        n=float(n.sum()),
        case_share=float(n @ [own.case_share for own in carriers] / n.sum()),
        frequency=n @ np.array([own.frequency for own in carriers]) / n.sum(),
        V=np.sum([own.V for own in carriers], axis=0),
        combine=carriers[0].combine,
        step=max(own.step for own in carriers),
    )


@dataclass(slots=True)
class NullDraws:
    """Source of null scores of one gene.

    Attributes:
        parts: of every study, or of the sum alone.
        order: of the studies in which random numbers are dealt out, by what they are and not by their place: the
            order of the bundles changes nothing.
        blocks: draws made so far.
    """

    parts: list[StudyDraws]
    order: list[int]
    blocks: list[list[Floats]] = field(default_factory=list)

    @classmethod
    def of(cls, carriers: Sequence[Carriers]) -> NullDraws:
        """Return the source of null scores of these studies."""
        order = sorted(range(len(carriers)), key=lambda k: (carriers[k].n, carriers[k].case_share, carriers[k].V[0, 0]))
        return cls([open_draws(known) for known in carriers], order)

    @property
    def dimension(self) -> int:
        """Normals behind one draw."""
        return sum(part.mix.shape[0] for part in self.parts)

    def scores(self, Z: Floats) -> list[Floats]:
        """Return the scores (B, m) of every study at independent normals Z (B, dimension)."""
        ends = np.cumsum([self.parts[k].mix.shape[0] for k in self.order])
        own = dict(zip(self.order, np.split(Z, ends[:-1], axis=1), strict=True))
        return [part.scores(own[k]) for k, part in enumerate(self.parts)]

    def block(self, i: int) -> list[Floats]:
        """Return the i-th block of scores."""
        if i < len(self.blocks):
            return self.blocks[i]
        rng = np.random.Generator(np.random.PCG64([SEED, i]))
        made = {k: self.parts[k].draw(rng, BLOCK) for k in self.order}
        drawn = [made[k] for k in range(len(self.parts))]
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
        count, drawn, i = 0, 0, 0
        while drawn < MAX_DRAWS and count < EXCEEDANCES:
            count += int(np.count_nonzero(statistic(self.block(i)) >= observed))
            drawn += BLOCK
            i += 1
            if drawn >= ENOUGH_TO_JUDGE and count * MAX_DRAWS < 0.5 * EXCEEDANCES * drawn:
                break
        if count >= EXCEEDANCES:
            p = (1.0 + count) / (1.0 + drawn)
            return math.log(p), math.sqrt((1.0 - p) / count), "case-count draws"
        rng = np.random.Generator(np.random.PCG64([SEED]))
        log_p, error = split_tail(lambda Z: statistic(self.scores(Z)), self.dimension, observed, rng, particles)
        return log_p, error, "case-count splitting"
