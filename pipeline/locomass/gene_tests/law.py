"""The null law of a score: which numbers a sum over carriers can be, and how likely, for any trait and any studies.

Under the null a score is a sum over carriers of independent parts, so a study knows the cumulant generating function

    binary:        K_c(t) = sum_i log(1 - mu_i + mu_i e^(g_i t)) - g_i mu_i t,
    quantitative:  K_c(t) = sum_i K_0(g_i t),         K_0 that of the residuals,

g_i what carrier i adds to the score. People alike (the same variants, nearly the same mu) form a group, known by their
number and mean mu; see `StudyCarriers`. The null model was fitted to the same people, so that the scores of its columns
are zero: what the carriers make of them, everyone else must cancel. The law of the score is that of the sum over
carriers *given* this,

    P(U = x) ~ P_c(x) P_r(-x),      1 / V = 1 / R + 1 / A,      R = K_c''(0),   V = Var(U),

P_r the law of the rest: as many people as make its variance A, alike and as likely cases as the carriers (normal for a
quantitative trait). For an intercept alone this is the hypergeometric law. Its cumulant generating function is
``K(t) = min_s [K_c(t + s) + K_r(s)]`` to first order, which has K''(0) = V, and ``b U - K(b)`` is the log-likelihood of
a log odds ratio b with the intercept profiled out. Laws of studies are convolved, their K added.

Where V exceeds R (imputed calls; people not in a group), the difference is a normal part of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from locomass.numbers import Floats

Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Residuals:
    """Distribution of a study's residuals, on the scale of U per allele (residual over sigma2).

    Attributes:
        node: (q,) rising, mean zero.
        probability: (q,) positive, sum 1.
    """

    node: Floats
    probability: Floats


SURE = 5.0  # standard errors of skewness and kurtosis beyond which residuals are not normal


def moments_of(residuals: Residuals) -> tuple[float, float]:
    """Return skewness and excess kurtosis."""
    x, p = residuals.node, residuals.probability
    m2 = float(p @ x**2)
    return float(p @ x**3) / m2**1.5, float(p @ x**4) / m2**2 - 3.0


def is_not_normal(residuals: Residuals, n: float) -> bool:
    """Return whether n residuals are surely not normal; else their own distribution is noise about the normal one.

    Skewness and excess kurtosis of n normal values have the standard errors ``sqrt(6 / n)`` and ``sqrt(24 / n)``.
    """
    skewness, kurtosis = moments_of(residuals)
    return bool(abs(skewness) > SURE * (6.0 / n) ** 0.5 or abs(kurtosis) > SURE * (24.0 / n) ** 0.5)


@dataclass(frozen=True, slots=True)
class StudyCarriers:
    """Who carries the variants of a gene in one study: groups of people who are alike.

    Attributes:
        indptr: (s + 1,) where the variants of each group begin.
        variant: numbers of the variants (below m) that people of a group carry.
        dosage: counted alleles of each, as a test sees them (negative where the other allele is counted).
        count: (s,) people of each group.
        mu: (s,) their mean fitted probability; None for a quantitative trait.
        residuals: of a quantitative trait; None for a binary one, and for a quantitative one taken for normal.
        V: (m, m) information of the study, ``Var(U) = scale V``.
        combine: (m, d) how the m variants make up the d that a test sees; None where each stays as it is.
        scale: factor of V.
        unit: (m,) of a time to event, whose V is the variance of its residuals: root of that over the information.
    """

    indptr: Integers
    variant: Integers
    dosage: Floats
    count: Floats
    mu: Floats | None
    residuals: Residuals | None
    V: Floats
    combine: Floats | None = None
    scale: float = 1.0
    unit: Floats | None = None

    @property
    def owner(self) -> Integers:
        """Group of each entry of ``variant``."""
        return np.repeat(np.arange(self.count.size), np.diff(self.indptr))

    def steps(self, w: Floats) -> Floats:
        """Return (s,) what one person of each group adds to the sum of variants with weights ``w`` (d,)."""
        own = w if self.combine is None else self.combine @ w
        out = np.bincount(self.owner, self.dosage * own[self.variant], minlength=self.count.size)
        return np.asarray(out, np.float64)

    def matrix(self) -> Floats:
        """Return (s, d) alleles of each variant that a person of each group carries."""
        out = np.zeros((self.count.size, self.V.shape[0]))
        np.add.at(out, (self.owner, self.variant), self.dosage)
        return out if self.combine is None else out @ self.combine

    def information(self) -> Floats:
        """Return Var(U) (d, d) of the variants that a test sees."""
        V = self.V if self.combine is None else self.combine.T @ self.V @ self.combine
        return V if self.scale == 1.0 else V * self.scale

    def variance(self, w: Floats) -> float:
        """Return Var(w'U)."""
        own = w if self.combine is None else self.combine @ w
        return self.scale * float(own @ self.V @ own)

    def information_of(self, w: Floats) -> float:
        """Return the information of w'U: Var(w'U), but of a time to event the negative second derivative at 0."""
        own = w if self.combine is None else self.combine @ w
        own = own if self.unit is None else own / self.unit
        return self.scale * float(own @ self.V @ own)

    def join(self, C: Floats) -> StudyCarriers:
        """Return the carriers as a test sees them that takes sums of variants, C (d, e)."""
        return replace(self, combine=C if self.combine is None else self.combine @ C)

    def take(self, chosen: NDArray[np.bool_]) -> StudyCarriers:
        """Return the carriers of the chosen variants, a boolean (d,) mask."""
        if self.combine is not None:
            return replace(self, combine=self.combine[:, chosen])
        number = np.cumsum(chosen) - 1
        kept = chosen[self.variant]
        ends = np.concatenate(([0], np.cumsum(np.bincount(self.owner[kept], minlength=self.count.size))))
        variant, dosage = number[self.variant[kept]], self.dosage[kept]
        unit = None if self.unit is None else self.unit[chosen]
        V = self.V[np.ix_(chosen, chosen)]
        return replace(self, indptr=ends, variant=variant, dosage=dosage, V=V, unit=unit)

    def spread(self) -> Floats:
        """Return (s,) variance of one person's part for a step of 1."""
        if self.mu is not None:
            return self.mu * (1.0 - self.mu)
        assert self.residuals is not None
        return np.full(self.count.size, float(self.residuals.probability @ self.residuals.node**2))

    def draw(self, rng: np.random.Generator, n: int) -> Floats:
        """Return n draws of the carriers' parts of the scores, (n, s): centred cases or residuals of every group."""
        if self.mu is not None:
            size = np.rint(self.count).astype(np.int64)
            return rng.binomial(size, self.mu, (n, size.size)) - size * self.mu
        assert self.residuals is not None
        out = np.zeros((n, self.count.size))
        for s, people in enumerate(np.rint(self.count).astype(np.int64)):
            times = rng.multinomial(int(people), self.residuals.probability, n)
            out[:, s] = times @ self.residuals.node
        return out


@dataclass(frozen=True, slots=True)
class Law:
    """Null law of one score summed over k studies.

    Attributes:
        start: (k + 1,) where the groups of each study begin.
        step: (s,) what a person of each group adds to the score (per case, or per unit of residual).
        count: (s,) people.
        mu: (s,) mean fitted probability; NaN for groups of a quantitative trait.
        variance: (k,) V of the score in each study.
        residuals: of each study; None for binary traits.
        complete: whether every study told who carries what.
        information: of the score, where it is not its variance (time to event); None elsewhere.
    """

    start: Integers
    step: Floats
    count: Floats
    mu: Floats
    variance: Floats
    residuals: tuple[Residuals | None, ...]
    complete: bool = True
    information: float | None = None

    @property
    def is_binary(self) -> bool:
        """Whether all studies are of a binary trait."""
        return all(r is None for r in self.residuals)

    @property
    def is_lattice(self) -> bool:
        """Whether the score moves in whole steps: every step is a whole number of cases."""
        return self.is_binary and bool(np.all(np.abs(self.step - np.rint(self.step)) < 1e-9))

    def study(self, k: int) -> Law:
        """Return the law of one study."""
        at = slice(int(self.start[k]), int(self.start[k + 1]))
        ends = np.array([0, at.stop - at.start])
        own = (self.step[at], self.count[at], self.mu[at])
        return Law(ends, *own, self.variance[k : k + 1], self.residuals[k : k + 1], self.complete)

    def scaled(self, factor: float) -> Law:
        """Return the law of the score times a positive factor."""
        own = (self.step * factor, self.count, self.mu, self.variance * factor**2)
        return Law(self.start, *own, self.residuals, self.complete)


def join_studies(parts: Sequence[tuple[Floats, StudyCarriers, float]]) -> Law:
    """Return the law of a score from (steps (s,), carriers, variance) of every study; groups that add nothing go.

    People of a quantitative trait with the same step are one group.
    """
    steps, counts, mus, starts, residuals = [], [], [], [0], []
    for step, own, _ in parts:
        known = own.mu is not None or own.residuals is not None  # else the score is taken for normal
        kept = (step != 0.0) & (own.count > 0.0) & known
        if own.mu is not None:
            steps.append(step[kept])
            counts.append(own.count[kept])
            mus.append(own.mu[kept])
        else:
            values, group = np.unique(np.round(step[kept], 12), return_inverse=True)
            steps.append(values)
            counts.append(np.bincount(group.reshape(-1), own.count[kept], minlength=values.size))
            mus.append(np.full(values.size, np.nan))
        residuals.append(own.residuals)
        starts.append(starts[-1] + steps[-1].size)
    empty = np.empty(0)
    return Law(
        np.array(starts, np.int64),
        np.concatenate([empty, *steps]),
        np.concatenate([empty, *counts]),
        np.concatenate([empty, *mus]),
        np.array([v for _, _, v in parts]),
        tuple(residuals),
    )


def law_of_sum(carriers: Sequence[StudyCarriers], w: Floats) -> Law:
    """Return the law of ``w'U``, U the scores of the d variants that a test sees, summed over studies."""
    law = join_studies([(own.steps(w), own, own.variance(w)) for own in carriers])
    if all(own.unit is None for own in carriers):
        return law
    return replace(law, information=sum(own.information_of(w) for own in carriers))


def law_of_mode(carriers: Sequence[StudyCarriers], member: NDArray[np.bool_], least: int, variance: Floats) -> Law:
    """Return the law of the burden 1(c >= least), c the alleles of the member variants that a person carries.

    Args:
        carriers: of every study.
        member: (d,) variants that count.
        least: 1: dominant, CAST; 2: recessive.
        variance: (k,) of the burden's score, from individual data.
    """
    w = member.astype(np.float64)
    return join_studies(
        [
            ((own.steps(w) >= least - 1e-9).astype(np.float64), own, float(v))
            for own, v in zip(carriers, variance, strict=True)
        ]
    )


def gather_variants(
    carriers: Sequence[StudyCarriers], chosen: Integers, m: int
) -> tuple[Integers, Floats, Floats, Floats]:
    """Return the groups of single variants one after another.

    Args:
        carriers: of k studies, their variants as they are (no ``combine``).
        chosen: (n,) variants.
        m: number of variants.

    Returns:
        (n, k + 1) where the groups of every study begin, for each variant, and step, count and mu of all groups; those
        of a quantitative trait with one step are one group.
    """
    n, k = chosen.size, len(carriers)
    rank = np.full(m, -1, np.int64)
    rank[chosen] = np.arange(n)
    block: list[Integers] = []
    step: list[Floats] = []
    count: list[Floats] = []
    mu: list[Floats] = []
    for i, own in enumerate(carriers):
        at = rank[own.variant]
        kept = (at >= 0) & (own.mu is not None or own.residuals is not None)
        owner, at, g = own.owner[kept], at[kept] * k + i, own.dosage[kept]
        if own.mu is None:
            pair, index = np.unique(np.column_stack([at, g]), axis=0, return_inverse=True)
            block.append(pair[:, 0].astype(np.int64))
            step.append(pair[:, 1])
            people = np.bincount(index.reshape(-1), own.count[owner], minlength=len(pair))
            count.append(np.asarray(people, np.float64))
            mu.append(np.full(len(pair), np.nan))
        else:
            block.append(at)
            step.append(g)
            count.append(own.count[owner])
            mu.append(own.mu[owner])
    blocks = np.concatenate(block)
    order = np.argsort(blocks, kind="stable")
    ends = np.concatenate(([0], np.cumsum(np.bincount(blocks, minlength=n * k)))).astype(np.int64)
    starts = np.empty((n, k + 1), np.int64)
    starts[:, :k] = ends[:-1].reshape(n, k)
    starts[:, k] = ends[k::k]
    return starts, np.concatenate(step)[order], np.concatenate(count)[order], np.concatenate(mu)[order]
