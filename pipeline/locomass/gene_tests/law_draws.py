"""Null scores of a gene from its law: people who carry the same variants, and what each may be.

A study's `StudyCarriers` tell which people carry which variants together, so nothing has to be guessed from pairs: the
carriers' parts of the scores are ``U = M'd``, M (s, d) the alleles of a person of each group and d_s the group's
centred cases (binomial), or the sum of as many residuals. What they make of the null model's columns, everyone else
must cancel (see `law`). For the intercept this is x, the sum of d over all carriers, so a draw is kept with probability

    P_r(-x) / max P_r,      A = 1/a - sum_s Var(d_s),      a = r'(R - V)r / (r'r)^2,  r = M'Var(d) 1,

R = Var(M'd), V = Var(U), 1/a the sum of mu (1 - mu) over all people, and P_r the law of the rest, of variance A: as
many people as likely to be cases as the carriers (binomial; with equal mu the number of cases is fixed), or normal.
That leaves the values that a score can have as they are: the observed event counts in full. What other columns take
away is left where it is below 2 % of the variance; beyond, scores are shrunk to ``(I - Q^-1 (Q - V)+) M'd``, Q = R - a
rr'. What is then missing of V (imputed calls, people in no group) is a normal part of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from locomass.gene_tests.case_counts import CountTables, tabulate_counts
from locomass.gene_tests.law import Residuals, StudyCarriers
from locomass.gene_tests.null_draws import NEGLIGIBLE, NullDraws, Rest, StudyDraws, positive_root
from locomass.numbers import Floats

SINGLE = 20  # people of a group that are drawn one by one; the sum of more is tabulated
CELLS = 1 << 14  # of a table of sums
PER_SD = 64  # cells of a standard deviation
FAR = 0.01  # kurtosis, or squared skewness, of a score that is not normal: 100 cases among the carriers
NEGLECTED = 0.01  # part of the weighted variance whose variants may be so
LEAST_REST = 0.02  # of the carriers' variance: draws are kept
COVARIATES = 0.02  # part of the variance that columns beside the intercept may take away unheeded


def open_law(own: StudyCarriers) -> StudyDraws:
    """Return the source of null scores of one study; normal ones where it does not say who carries what."""
    M, V = own.matrix(), own.information()
    if own.mu is None and own.residuals is None:
        return StudyDraws(tabulate_counts(np.empty(0), np.empty(0)), positive_root(V, 0.0))
    kept = (own.count > 0.5) & (M != 0.0).any(axis=1)
    M, count, spread = M[kept], np.rint(own.count[kept]), own.spread()[kept]
    variance = count * spread
    R, r = M.T @ (variance[:, None] * M), M.T @ variance
    size = float(r @ r)
    a = max(0.0, float(r @ (R - V) @ r) / size**2) if size > 0.0 else 0.0
    rest = max(1.0 / a - float(variance.sum()), LEAST_REST * float(variance.sum())) if a > 0.0 else np.inf
    Q = R - a * np.outer(r, r)
    taken = _positive_part(Q - V)
    if np.trace(taken) > COVARIATES * np.trace(Q):
        M = M @ (np.eye(V.shape[0]) - np.linalg.pinv(Q, hermitian=True) @ taken)
        Q = M.T @ (variance[:, None] * M) - a * np.outer(M.T @ variance, M.T @ variance)
    normal = positive_root(V - Q, NEGLIGIBLE * max(float(V.diagonal().max()), 1e-300))
    M = np.column_stack((M, np.ones(count.size)))
    normal = np.column_stack((normal, np.zeros(normal.shape[0])))
    if own.mu is not None:
        mu = float(variance @ own.mu[kept] / variance.sum()) if variance.size else 0.5
        tables = tabulate_counts(count, own.mu[kept])
        return StudyDraws(tables, np.vstack((M, normal)), Rest(rest, rest / (mu * (1.0 - mu)), mu))
    assert own.residuals is not None
    few = count <= SINGLE
    tables = join_tables(_single_table(own.residuals, int(count[few].sum())), _sum_tables(own.residuals, count[~few]))
    one_by_one = np.repeat(M[few], count[few].astype(np.int64), axis=0)
    return StudyDraws(tables, np.vstack((one_by_one, M[~few], normal)), Rest(rest))


def _positive_part(A: Floats) -> Floats:
    """Return the positive semi-definite part of a symmetric matrix."""
    values, vectors = np.linalg.eigh(0.5 * (A + A.T))
    part: Floats = (vectors * np.maximum(values, 0.0)) @ vectors.T
    return part


def is_far_from_normal(studies: Sequence[StudyCarriers], w: Floats) -> bool:
    """Return whether variants with a share of the weighted variance are `far_from_normal`.

    Args:
        studies: of one trait.
        w: (d,) weights.
    """
    V = np.sum([own.information().diagonal() for own in studies], axis=0)
    share = w * w * V
    if not share.sum() > 0.0:
        return False
    return bool(share[far_from_normal(studies)].sum() > NEGLECTED * share.sum())


def far_from_normal(studies: Sequence[StudyCarriers]) -> NDArray[np.bool_]:
    """Return (d,) which variants have scores, summed over studies, that are far from normal.

    Binary traits: fewer than 100 cases or controls expected among the carriers. Others: the kurtosis of the sum, or its
    squared skewness, is above 0.01.

    Args:
        studies: of one trait.
    """
    V = np.sum([own.information().diagonal() for own in studies], axis=0)
    skew, kurtosis = np.zeros(V.size), np.zeros(V.size)
    for own in studies:
        if own.mu is None and own.residuals is None:
            continue
        M = np.abs(own.matrix())
        if own.mu is not None:
            k2, odd = own.mu * (1.0 - own.mu), 1.0 - 2.0 * own.mu
            k3, k4 = k2 * odd, k2 * (1.0 - 6.0 * k2)
        else:
            assert own.residuals is not None
            x, chance = own.residuals.node, own.residuals.probability
            m2, m3, m4 = (float(chance @ x**k) for k in (2, 3, 4))
            k3, k4 = np.full(own.count.size, m3), np.full(own.count.size, m4 - 3.0 * m2 * m2)
        skew += (own.count * k3) @ M**3
        kurtosis += (own.count * k4) @ M**4
    safe = np.where(V > 0.0, V, 1.0)
    far: NDArray[np.bool_] = (V > 0.0) & (np.maximum(np.abs(kurtosis) / safe**2, skew**2 / safe**3) > FAR)
    return far


def open_draws(
    studies: Sequence[StudyCarriers], stream: tuple[int, ...], sums: tuple[tuple[int, ...], ...] | None = None
) -> NullDraws:
    """Return the source of null scores of one trait.

    Args:
        studies: of the trait.
        stream: numbers that tell these random numbers from others.
        sums: studies whose scores are added up, for every array of scores; empty: each study by itself; None: all.
    """
    order = sorted(
        range(len(studies)), key=lambda k: (float(studies[k].count.sum()), float(studies[k].information().trace()))
    )
    return NullDraws(
        [open_law(study) for study in studies],
        order,
        stream=stream,
        sums=(tuple(range(len(studies))),) if sums is None else sums,
        source="case-count" if studies[0].mu is not None else "residual",
    )


def _single_table(residuals: Residuals, people: int) -> CountTables:
    """Return the tables of people drawn one by one: the steps of the residuals' distribution, for each anew."""
    x = residuals.node
    level = np.cumsum(residuals.probability)[:-1]
    return CountTables(
        np.full(people, x[0]),
        np.arange(people + 1, dtype=np.int64) * level.size,
        np.tile(ndtri(level), people),
        np.tile(level, people),
        np.tile(x[1:] - x[0], people),
    )


def _sum_tables(residuals: Residuals, count: Floats) -> CountTables:
    """Return the tables of sums of many residuals: the power of their distribution's transform on a grid.

    A residual between two points of the grid is shared out so that its mean stays. Sums less likely than the rounding
    of the transform, 1e-15, are left out.
    """
    x, chance = residuals.node, residuals.probability
    sd = np.sqrt(float(chance @ x**2))
    lowest, starts, cuts, levels, rises = [], [0], [], [], []
    for people in count:
        h = sd * np.sqrt(people) / PER_SD
        at = np.floor(x / h).astype(np.int64)
        part = x / h - at
        p = np.zeros(CELLS)
        np.add.at(p, np.clip(at, -CELLS // 2, CELLS // 2 - 1) % CELLS, chance * (1.0 - part))
        np.add.at(p, np.clip(at + 1, -CELLS // 2, CELLS // 2 - 1) % CELLS, chance * part)
        total = np.fft.ifft(np.fft.fft(p) ** people).real
        total = np.roll(np.where(total > 1e-15, total, 0.0), CELLS // 2)
        value = (np.arange(CELLS) - CELLS // 2) * h
        seen = total > 0.0
        total, value = total[seen] / total.sum(), value[seen]
        below, above = np.cumsum(total)[:-1], np.cumsum(total[::-1])[::-1][1:]
        cut = np.where(below < 0.5, ndtri(below), -ndtri(above))
        lowest.append(value[0])
        starts.append(starts[-1] + cut.size)
        cuts.append(cut)
        levels.append(ndtr(cut))
        rises.append(value[1:] - value[0])
    empty = np.empty(0)
    return CountTables(
        np.array(lowest),
        np.array(starts, np.int64),
        np.concatenate([empty, *cuts]),
        np.concatenate([empty, *levels]),
        np.concatenate([empty, *rises]),
    )


def join_tables(a: CountTables, b: CountTables) -> CountTables:
    """Return the tables of both groups, those of a first."""
    return CountTables(
        np.concatenate((a.lowest, b.lowest)),
        np.concatenate((a.start, a.start[-1] + b.start[1:])),
        np.concatenate((a.cut, b.cut)),
        np.concatenate((a.level, b.level)),
        np.concatenate((a.rise, b.rise)),
    )
