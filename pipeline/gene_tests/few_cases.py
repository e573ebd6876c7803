"""Tests of variance components where few cases carry the variants: p-values from draws of the scores.

SKAT takes the scores for normal. With a handful of cases they are counts with a long tail, and calibrating the variance
of the variants at hand (``calibration.py``) does not help those that might have been extreme in their place: the
mixture misses the other ways to reach the same Q. So where a calibrated p-value is small it is computed again from
draws of U (``null_draws.py``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipeline.gene_tests.base import Floats, TestResult
from pipeline.gene_tests.components import Components
from pipeline.gene_tests.null_draws import BLOCK, NullDraws, Statistic, join_carriers
from pipeline.gene_tests.pareto import ParetoTail, fit_pareto_tail

LOG_SCREEN = math.log(0.1)  # p-values above stay as they are
JOINED_FROM = 9  # studies from which their sum is drawn as one study
RANKED = 8_192  # draws that a scale of p-values is made from
N_NODES = 200  # of a scale
TIE = 1.0 - 1e-9


def redraw_tail(c: Components, row: TestResult, statistic: Statistic, by_study: bool = False) -> TestResult:
    """Return the row with p-values below 0.1 computed again as P(T >= T observed) of drawn scores.

    Rows of traits that are not calibrated, and of a single variant or pseudo-marker (a burden, which is calibrated as
    one), come back as they are; so does a p-value that splitting does not reach.

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
        value, doubt, how = draws.tail(statistic, float(observed[t]) * TIE, c.particles)
        if not math.isnan(value):
            log_p[t], error[t], method = value, doubt, how
    return replace(row, log_p=log_p, p_error=error, method=method)


def _draws_of(c: Components, by_study: bool) -> NullDraws:
    """Return the source of null scores of every study; of their sum where there are many and the sum will do."""
    carriers = c.stats.carriers
    if len(carriers) < JOINED_FROM or by_study:
        return c.once("null draws", "studies", lambda *_: NullDraws.of(carriers))
    return c.once("null draws", "sum", lambda *_: NullDraws.of([join_carriers(carriers)]))


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
