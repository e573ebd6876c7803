"""Tests of variance components where few cases carry the variants: p-values from draws of the scores.

SKAT takes the scores for normal. With a handful of cases they are counts with a long tail, and calibrating the variance
of the variants at hand (``calibration.py``) does not help those that might have been extreme in their place: the
mixture misses the other ways to reach the same Q. So where a calibrated p-value is small it is computed again from
draws of U: cases among the carriers, in groups that carry the same variants (``kernels.case_counts``). Plain draws
while they suffice, then multilevel splitting.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from pipeline.gene_tests.base import Carriers, Floats, TestResult
from pipeline.gene_tests.components import Components
from pipeline.gene_tests.pareto import ParetoTail, fit_pareto_tail
from pipeline.kernels.case_counts import CountTables, draw_scores, map_scores, share_carriers, tabulate_counts
from pipeline.kernels.splitting import split_tail

Integers = NDArray[np.intp]
#: T of scores: one (B, m) array per study, or one for their sum -> (B,)
Statistic = Callable[[Sequence[Floats]], Floats]

SEED = 20200107  # fixed: the same input gives the same p
LOG_SCREEN = math.log(0.1)  # p-values above stay as they are
EXCEEDANCES = 100  # that end plain draws: 10 %
MAX_DRAWS = 32_768
PARTICLES = 4_000
NORMAL_VARIANCE = 100.0  # from which a score is normal: 100 cases carry the variant
MOST_FREQUENT = 0.1
NEGLIGIBLE = 1e-3  # part of the largest variance
JOINED_FROM = 9  # studies from which their sum is drawn as one study
BLOCK = 2_048  # draws made at a time
KEPT_VALUES = 2_000_000  # scores of the blocks that stay in memory
RANKED = 8_192  # draws that a scale of p-values is made from
N_NODES = 200  # of a scale
TIE = 1.0 - 1e-9


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
    of the others by regression; see ``kernels.case_counts`` for these.

    """
    V = known.V
    minor = np.minimum(known.frequency, 1.0 - known.frequency)
    sign = np.where(known.frequency > 0.5, -1.0, 1.0)
    variance = V.diagonal()
    few = (variance < NORMAL_VARIANCE * known.step**2) & (minor <= MOST_FREQUENT) & (variance > 0.0)
    rare, rest = np.flatnonzero(few), np.flatnonzero(~few)
    f, s = minor[rare], sign[rare] / known.step
    own = V[np.ix_(rare, rare)] * np.outer(s, s)
    per_carrier = np.minimum(own.diagonal() / (known.n * 2.0 * f * (1.0 - f)), 0.25)
    root = np.sqrt(per_carrier)
    members, size = share_carriers(np.maximum(own / np.outer(root, root) + known.n * 4.0 * np.outer(f, f), 0.0))
    mu = 0.5 - np.sqrt(0.25 - members @ per_carrier / members.sum(axis=1))
    mu = mu if known.case_share <= 0.5 else 1.0 - mu
    mix = np.vstack((members - 2.0 * f, -2.0 * f))
    spread = np.append(
        size * mu * (1.0 - mu), max(0.0, known.n - size.sum()) * float(per_carrier.sum()) / max(1, rare.size)
    )
    # covariates take some variance away
    mix *= np.sqrt(own.diagonal() / (spread @ mix**2)) / s
    counted = np.zeros((size.size + 1, variance.size))
    counted[:, rare] = mix
    counted[:, rest] = mix @ regress(V, rare, rest)
    # what groups cannot tell of V, and the variants with normal scores
    values, vectors = np.linalg.eigh(V - counted.T @ (spread[:, None] * counted))
    normal = (vectors * np.sqrt(np.maximum(values, 0.0))).T[values > NEGLIGIBLE * variance.max()]
    counted[-1] *= math.sqrt(spread[-1])
    return StudyDraws(tabulate_counts(size, mu), np.vstack((counted, normal)) @ known.combine)


def regress(V: Floats, on: Integers, of: Integers) -> Floats:
    """Return the slopes (on, of) of the scores of some variants on those of others."""
    slopes: Floats = np.linalg.pinv(V[np.ix_(on, on)], hermitian=True) @ V[np.ix_(on, of)]
    return slopes


@dataclass(slots=True)
class NullDraws:
    """Source of null scores of one gene.

    Attributes:
        parts: of every study, or of the sum alone.
        blocks: draws made so far.
    """

    parts: list[StudyDraws]
    blocks: list[list[Floats]] = field(default_factory=list)

    @property
    def dimension(self) -> int:
        """Normals behind one draw."""
        return sum(part.mix.shape[0] for part in self.parts)

    def scores(self, Z: Floats) -> list[Floats]:
        """Return the scores (B, m) of every study at independent normals Z (B, dimension)."""
        ends = np.cumsum([part.mix.shape[0] for part in self.parts])
        return [part.scores(z) for part, z in zip(self.parts, np.split(Z, ends[:-1], axis=1), strict=True)]

    def block(self, i: int) -> list[Floats]:
        """Return the i-th block of scores."""
        if i < len(self.blocks):
            return self.blocks[i]
        rng = np.random.Generator(np.random.PCG64([SEED, i]))
        drawn = [part.draw(rng, BLOCK) for part in self.parts]
        if i == len(self.blocks) and (i + 1) * sum(U.size for U in drawn) <= KEPT_VALUES:
            self.blocks.append(drawn)
        return drawn

    def tail(self, statistic: Statistic, observed: float) -> tuple[float, float, str]:
        """Return log P(T >= observed) under the null, its relative standard error, and how it was computed."""
        count, drawn, i = 0, 0, 0
        while drawn < MAX_DRAWS and count < EXCEEDANCES:
            count += int(np.count_nonzero(statistic(self.block(i)) >= observed))
            drawn += BLOCK
            i += 1
            if drawn >= RANKED and count * MAX_DRAWS < 0.5 * EXCEEDANCES * drawn:
                break  # plain draws would not get there
        if count >= EXCEEDANCES:
            p = (1.0 + count) / (1.0 + drawn)
            return math.log(p), math.sqrt((1.0 - p) / count), "case-count draws"
        rng = np.random.Generator(np.random.PCG64([SEED]))
        log_p, error = split_tail(lambda Z: statistic(self.scores(Z)), self.dimension, observed, rng, PARTICLES)
        return log_p, error, "case-count splitting"


def redraw_tail(c: Components, row: TestResult, statistic: Statistic, by_study: bool = False) -> TestResult:
    """Return the row with p-values below 0.1 computed again as P(T >= T observed) of drawn scores.

    Rows of quantitative or balanced traits, and of a single variant (its calibrated variance is exact), come back
    as they are; so does a p-value that splitting does not reach.

    Args:
        c: what the test saw, ultra-rare variants pooled.
        row: from calibrated variances.
        statistic: T, a function of the scores that does not depend on calibrated variances.
        by_study: whether T needs the scores of every study, or their sum.
    """
    s = c.stats
    small = np.flatnonzero(row.log_p <= LOG_SCREEN)
    if not s.carriers or s.n_variants < 2 or small.size == 0:
        return row
    draws = _draws_of(c, by_study)
    if not any(len(part.tables.lowest) for part in draws.parts):
        return row
    observed = statistic([U for U, _, _ in s.per_study] if by_study else [s.U])
    log_p = row.log_p.copy()
    error = np.zeros(log_p.size) if row.p_error is None else row.p_error.copy()
    method = row.method
    for t in small:
        value, doubt, how = draws.tail(statistic, float(observed[t]) * TIE)
        if not math.isnan(value):
            log_p[t], error[t], method = value, doubt, how
    return replace(row, log_p=log_p, p_error=error, method=method)


def _draws_of(c: Components, by_study: bool) -> NullDraws:
    """Return the source of null scores of every study; of their sum where there are many and the sum will do."""
    carriers = c.stats.carriers
    if len(carriers) < JOINED_FROM or by_study:
        return c.once("null draws", "studies", lambda *_: NullDraws([open_draws(known) for known in carriers]))
    return c.once("null draws", "sum", lambda *_: NullDraws([open_draws(_join_carriers(carriers))]))


def _join_carriers(carriers: Sequence[Carriers]) -> Carriers:
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


def quadratic_statistic(w: Floats) -> Statistic:
    """Return Q = U'W^2U, U the sum over the studies."""
    return lambda U: ((sum_scores(U) * w) ** 2).sum(axis=1)


def sum_scores(U: Sequence[Floats]) -> Floats:
    """Return the sum over studies of scores (B, m)."""
    out: Floats = U[0] if len(U) == 1 else np.sum(U, axis=0)
    return out


@dataclass(frozen=True, slots=True)
class DrawnScale:
    """-log p of a statistic from ranked draws, with a Pareto tail beyond them.

    Attributes:
        x, height: statistics, rising, and -log p at them; between them by interpolation.
        tail: beyond; None where there are too few distinct values.
    """

    x: Floats
    height: Floats
    tail: ParetoTail | None

    @classmethod
    def of(cls, drawn: Floats) -> DrawnScale:
        """Return the scale of (n,) drawn statistics."""
        n = drawn.size
        above = np.unique(np.round(np.geomspace(1.0, n, N_NODES)).astype(np.int64))[::-1]
        return cls(np.sort(drawn)[n - above], -np.log((1.0 + above) / (1.0 + n)), fit_pareto_tail(drawn))

    def __call__(self, x: Floats) -> Floats:
        """Return -log p at x."""
        out: Floats = np.interp(x, self.x, self.height)
        if self.tail is not None and (far := x > self.tail.threshold).any():
            y = (x[far] - self.tail.threshold) / self.tail.scale
            rise = np.log1p(self.tail.shape * y) / self.tail.shape if self.tail.shape > 0.0 else y
            out[far] = rise - math.log(self.tail.n_beyond / self.tail.n_total)
        return out


def redraw_best(
    c: Components, row: TestResult, parts: Callable[[Sequence[Floats]], Floats], by_study: bool = False
) -> TestResult:
    """Return the row of a test that takes the best of several statistics with its p-values computed again.

    T is the largest of their -log p, each on its own scale from ranked draws; see `redraw_tail`.

    Args:
        c, row, by_study: see `redraw_tail`.
        parts: the statistics (R, B) of scores.
    """
    if not c.stats.carriers or c.stats.n_variants < 2 or not (row.log_p <= LOG_SCREEN).any():
        return row
    draws = _draws_of(c, by_study)
    blocks = range(-(-RANKED // BLOCK))
    scales = [DrawnScale.of(drawn) for drawn in np.concatenate([parts(draws.block(i)) for i in blocks], axis=1)]

    def best(U: Sequence[Floats]) -> Floats:
        out: Floats = np.max([scale(x) for scale, x in zip(scales, parts(U), strict=True)], axis=0)
        return out

    return redraw_tail(c, row, best, by_study)
