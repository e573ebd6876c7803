"""Tests of variance components where scores are far from normal: p-values from draws of the scores.

SKAT takes the scores for normal. With a handful of cases they are counts with a long tail, and sums of a few skewed
residuals are no nearer. Bringing the variance of the variants at hand to their laws (`law_variance`) does not help
those that might have been extreme in their place: the mixture misses the other ways to reach the same Q. So where a
p-value is small it is computed again from draws of U under the laws (`law_draws`, `null_draws`).
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from locomass.gene_tests.base import NORMAL_SCORES, ScoreStatistics, TestResult, add_note
from locomass.gene_tests.components import Components
from locomass.gene_tests.law_draws import is_far_from_normal, open_draws
from locomass.gene_tests.null_draws import BLOCK, NullDraws, Statistic
from locomass.gene_tests.pareto import ParetoTail, fit_pareto_tail
from locomass.numbers import TIE, Floats

LOG_SCREEN = math.log(0.1)  # p-values above stay as they are
RANKED = 8_192  # draws that a scale of p-values is made from
N_NODES = 200  # of a scale


def redraw_tail(c: Components, row: TestResult, w: Floats, statistic: Statistic, by_study: bool = False) -> TestResult:
    """Return the row with p-values below 0.1 computed again as P(T >= T observed) of drawn scores.

    Rows of traits whose scores are near normal, and of the sum over studies of a single variant or pseudo-marker (a
    burden, which has its own law), come back as they are. A p-value that splitting does not reach stays and the row's
    note says so.

    Args:
        c: what the test saw, ultra-rare variants pooled.
        row: from the mixture.
        w: (m,) weights of the variants in T.
        statistic: T, a function of the scores that does not depend on V.
        by_study: whether T needs the scores of every study, or their sum.
    """
    log_p, error, method, note = row.log_p.copy(), _errors(row), row.method, ""
    for t, draws in _far_from_normal(c, row, w, by_study):
        observed = float(statistic(_observed(c.stats, t, by_study))[0])
        value, doubt, how = draws.tail(statistic, observed * TIE, c.particles)
        if math.isnan(value):
            note = NORMAL_SCORES
        else:
            log_p[t], error[t], method = value, doubt, how
    return add_note(replace(row, log_p=log_p, p_error=error, method=method), note)


def _errors(row: TestResult) -> Floats:
    """Return the relative errors of a row."""
    return np.zeros(row.log_p.size) if row.p_error is None else row.p_error.copy()


def _observed(s: ScoreStatistics, t: int, by_study: bool) -> list[Floats]:
    """Return the scores (1, m) of one trait as a statistic takes them."""
    return [U[t : t + 1] for U, _, _ in s.per_study] if by_study else [s.U[t : t + 1]]


def _far_from_normal(c: Components, row: TestResult, w: Floats, by_study: bool) -> list[tuple[int, NullDraws]]:
    """Return the traits whose p is small and whose scores are far from normal, and the source of their null scores."""
    s = c.stats
    if not s.laws or (s.n_variants < 2 and not by_study):
        return []
    small = np.flatnonzero(row.log_p <= LOG_SCREEN).tolist()
    far = [
        t
        for t in small
        if any(is_far_from_normal(own, w) for own in ([[k] for k in s.laws[t]] if by_study else [s.laws[t]]))
    ]
    return [(t, draws_of(c, t, by_study)) for t in far]


def draws_of(c: Components, t: int, by_study: bool) -> NullDraws:
    """Return the source of null scores of one trait: of every study or group of studies, or of their sum."""

    def compute(own: Components, _: str) -> NullDraws:
        s = own.stats
        return open_draws(s.laws[t], (zlib.crc32(s.gene.encode()),), s.members if by_study else None)

    return c.once("null draws", f"{t} {by_study}", compute)


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
    c: Components,
    row: TestResult,
    w: Floats,
    rho: Floats,
    parts: Callable[[Sequence[Floats]], Floats],
    by_study: bool = False,
) -> TestResult:
    """Return the row of a test that takes the best of R statistics with its p-values computed again.

    See `choose_best`.

    Args:
        c, row, w, by_study: see `redraw_tail`.
        rho: (R,) of the statistics.
        parts: the statistics (R, B) of scores.
    """
    log_p, error, method = row.log_p.copy(), _errors(row), row.method
    statistic, best_rho = row.statistic.copy(), _or_nan(row.detail.rho, log_p.size)
    smallest, note = _or_nan(row.detail.log_p_min, log_p.size), ""
    for t, draws in _far_from_normal(c, row, w, by_study):
        found = choose_best(draws, parts, _observed(c.stats, t, by_study), c.particles)
        if found is None:
            note = NORMAL_SCORES
            continue
        log_p[t], error[t], method = found.log_p, found.error, found.method
        statistic[t], best_rho[t], smallest[t] = found.statistic, rho[found.index], found.smallest
    detail = replace(row.detail, rho=best_rho, log_p_min=None if row.detail.log_p_min is None else smallest)
    row = replace(row, statistic=statistic, log_p=log_p, p_error=error, method=method, detail=detail)
    return add_note(row, note)


@dataclass(frozen=True, slots=True)
class Choice:
    """The best of several statistics: which, its value and log p, and log p of doing that well, how it was computed."""

    index: int
    statistic: float
    smallest: float
    log_p: float
    error: float
    method: str


def choose_best(
    draws: NullDraws, parts: Callable[[Sequence[Floats]], Floats], U: Sequence[Floats], particles: int
) -> Choice | None:
    """Return the best of R statistics and the probability of doing that well; None where splitting does not reach it.

    T is the largest of their -log p, each on its own scale from ranked draws. The best statistic's own p, p_1, comes
    from the same draws, and ``p_1 <= p <= R p_1``: the union of R events. Where scales and draws are so far off that p
    is outside, p is the bound, and its error says by how much it was.

    Args:
        draws: source of null scores.
        parts: the statistics (R, B) of scores.
        U: observed scores, as ``parts`` takes them (B = 1).
        particles: of the splitting.
    """
    best = _best_of(draws, parts)
    observed = parts(U)[:, 0]
    r = int(np.argmax(best.heights(observed[:, None])[:, 0]))
    top, doubt_top, _ = draws.tail(lambda x: parts(x)[r], float(observed[r]) * TIE, particles)
    limit = float(best.heights(observed[:, None] * TIE).max())
    value, doubt, how = draws.tail(lambda x: best(parts(x)), limit, particles)
    if math.isnan(value) or math.isnan(top):
        return None
    within = min(max(value, top), top + math.log(observed.size), 0.0)
    error = max(doubt, doubt_top if within != value else 0.0) + abs(math.expm1(value - within))
    return Choice(r, float(observed[r]), top, within, error, how)


def _or_nan(values: Floats | None, n: int) -> Floats:
    """Return a copy of the values, NaN where there are none."""
    return np.full(n, np.nan) if values is None else values.copy()


@dataclass(frozen=True, slots=True)
class BestOf:
    """The largest of several statistics' -log p, each on its own scale."""

    scales: list[DrawnScale]

    def heights(self, x: Floats) -> Floats:
        """Return -log p (R, B) of statistics (R, B)."""
        return np.array([scale(own) for scale, own in zip(self.scales, x, strict=True)])

    def __call__(self, x: Floats) -> Floats:
        """Return the largest, (B,)."""
        out: Floats = self.heights(x).max(axis=0)
        return out


def _best_of(draws: NullDraws, parts: Callable[[Sequence[Floats]], Floats]) -> BestOf:
    """Return the scales of statistics from ranked draws."""
    blocks = range(-(-RANKED // BLOCK))
    return BestOf([DrawnScale.of(x) for x in np.concatenate([parts(draws.block(i)) for i in blocks], axis=1)])
