"""Null draws behind the searches from shared statistics, and the p-values they give.

A search is repeated on every draw of the scores. Where every variant's score is near normal, U* ~ N(0, V), and traits
that share V share the draws; else the draws come from the laws that studies share (`law_draws`), trait by trait, which
is decided by single variants' counts: a search may end with the rarest of them. Permutation replicates that the studies
share take their place. Sampling stops early (`resampling`); a p-value beyond the last draw comes from splitting.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import fields, replace

import numpy as np
from numpy.typing import NDArray

from locomass.errors import InputError
from locomass.gene_tests.base import ScoreStatistics
from locomass.gene_tests.case_counts import tabulate_counts
from locomass.gene_tests.law_draws import far_from_normal, open_draws
from locomass.gene_tests.null_draws import NullDraws, StudyDraws, positive_root
from locomass.gene_tests.resampling import DrawBlock, ResampledP, Resampling, resample_p
from locomass.gene_tests.step_up_kernel import SearchPlan, search_scores
from locomass.numbers import TIE, Floats

Booleans = NDArray[np.bool_]

PARTICLES = 4_000  # of the splitting, at the default 100,000 draws; fewer with fewer
FEWEST = 500
ENOUGH = 20  # exceedances, which tell p as well as splitting does
BLOCKS = 4  # of plain draws, which tell how many a law keeps


def derive_seed(seed: int, *parts: bytes) -> np.uint64:
    """Return the start of the stream that belongs to these bytes (a gene's counts, a study's name)."""
    return np.uint64(np.random.SeedSequence([seed, *map(zlib.crc32, parts)]).generate_state(1, np.uint64)[0])


def gene_key(mac: Floats) -> bytes:
    """Return bytes that do not depend on rounding: the rounded minor-allele counts of the variants of a row."""
    return np.rint(mac).astype("<i8").tobytes()


def resample_searches(
    plan: SearchPlan, statistics: ScoreStatistics, weight: Floats, observed: Floats, resampling: Resampling
) -> tuple[ResampledP, str]:
    """Return the p-values (T, F) of observed statistics (T, F), and what was drawn.

    Args:
        plan: F searches.
        statistics: of T traits.
        weight: (m,) inverse-sd weights.
        observed: (T, F).
        resampling: when to stop.
    """
    far = [t for t, own in enumerate(statistics.laws) if far_from_normal(own).any()]
    near = [t for t in range(statistics.n_traits) if t not in far]
    V = np.ascontiguousarray(statistics.V, dtype=np.float64)
    seed = derive_seed(resampling.seed, statistics.gene.encode(), gene_key(statistics.mac))
    parts, order, methods = [], [], []
    plain = replace(resampling, tail=False)
    for traits in ([near] if near else []) + [[t] for t in far]:
        if traits is near:
            draw, scale, name = _draw_normal(plan, V, weight, seed), 1.0, "normal"
            normal = StudyDraws(tabulate_counts(np.empty(0), np.empty(0)), positive_root(V, 0.0))
            source = NullDraws([normal], [0], stream=(int(seed),), sums=((0,),))
        else:
            source = open_draws(statistics.laws[traits[0]], (int(seed),))
            scale, name = float(statistics.scale[traits[0]]), source.source
            draw = _draw_laws(plan, V, weight, source, scale)
        part = resample_p(draw, observed[traits], plain)
        if resampling.tail:
            search = _search_of(plan, V, weight, scale)
            part = _split_tails(part, observed[traits], source, search, resampling)
        parts.append(part)
        order += traits
        methods.append(f"{name}-resampling")
    back = np.argsort(order)
    joined = ResampledP(*(np.concatenate([getattr(part, f.name) for part in parts])[back] for f in fields(ResampledP)))
    return joined, ", ".join(sorted(set(methods)))


def _search_of(plan: SearchPlan, V: Floats, weight: Floats, scale: float) -> Callable[[int, Floats], Floats]:
    """Return a function that gives the statistic (B,) of one search of scores (B, m)."""

    def search(f: int, U: Floats) -> Floats:
        active = np.arange(len(plan.step_up)) == f
        statistic = np.full((len(U), active.size), -1.0)
        search_scores(plan, np.ascontiguousarray(U) / np.sqrt(scale), V, weight, active, statistic)
        out: Floats = statistic[:, f]
        return out

    return search


def _split_tails(
    part: ResampledP,
    observed: Floats,
    source: NullDraws,
    search: Callable[[int, Floats], Floats],
    resampling: Resampling,
) -> ResampledP:
    """Return the p-values with those that the draws did not reach often enough computed by splitting."""
    log_p, error, beyond = part.log_p.copy(), part.error.copy(), part.extrapolated.copy()
    particles = int(min(PARTICLES, max(FEWEST, resampling.max_permutations // 25)))
    few = part.exceedances < min(resampling.exceedances, ENOUGH)
    for t, f in np.argwhere(few & (part.permutations > 0)):
        target = float(observed[t, f]) * TIE
        value, doubt = source.split(lambda U, f=f: search(int(f), U[0]), target, particles, BLOCKS)  # type: ignore[misc]
        if np.isfinite(value):
            log_p[t, f], error[t, f], beyond[t, f] = value, doubt, True
    return replace(part, log_p=log_p, error=error, extrapolated=beyond)


def _draw_normal(plan: SearchPlan, V: Floats, weight: Floats, seed: np.uint64) -> DrawBlock:
    """Return a source of searches on U* ~ N(0, V); V may be singular.

    The draws are multiplied by the symmetric root of V: eigenvectors have no sign of their own, and where eigenvalues
    agree no direction either, so that a V changed by rounding would give other draws; the root is the same.
    """
    eigenvalues, vectors = np.linalg.eigh(V)
    kept = eigenvalues > 1e-12 * eigenvalues[-1]
    root = np.ascontiguousarray((vectors[:, kept] * np.sqrt(eigenvalues[kept])) @ vectors[:, kept].T)
    generator = np.random.Generator(np.random.PCG64(int(seed)))

    def draw(active: Booleans, statistic: Floats) -> None:
        U = generator.standard_normal((statistic.shape[0], root.shape[0])) @ root
        search_scores(plan, U, V, weight, active, statistic)

    return draw


def _draw_laws(plan: SearchPlan, V: Floats, weight: Floats, source: NullDraws, scale: float) -> DrawBlock:
    """Return a source of searches on scores drawn from the laws of one trait, ``Var(U) = scale V``."""
    left, at = np.empty((0, V.shape[0])), 0

    def draw(active: Booleans, statistic: Floats) -> None:
        nonlocal left, at
        rows, n = [left], len(left)
        while n < len(statistic):
            rows.append(source.block(at)[0])
            n, at = n + len(rows[-1]), at + 1
        U = np.concatenate(rows)
        left = U[len(statistic) :]
        search_scores(plan, U[: len(statistic)] / np.sqrt(scale), V, weight, active, statistic)

    return draw


def compare_replicates(
    plan: SearchPlan,
    statistics: ScoreStatistics,
    weight: Floats,
    observed: Floats,
    replicates: Floats,
    resampling: Resampling,
) -> ResampledP:
    """Return p-values against given replicates, each trait against its own."""
    V = np.ascontiguousarray(statistics.V, dtype=np.float64)
    if replicates.ndim != 3 or replicates.shape[0] != observed.shape[0] or replicates.shape[2] != V.shape[0]:
        raise InputError(
            f"replicates have shape {replicates.shape}; expected ({observed.shape[0]}, P, {V.shape[0]}): trait, "
            "replicate, variant"
        )
    scaled = replicates / np.sqrt(statistics.scale)[:, None, None]
    limit = replace(resampling, max_permutations=min(resampling.max_permutations, replicates.shape[1]))
    parts = [
        resample_p(_draw_given(plan, V, weight, U), row[None], limit) for U, row in zip(scaled, observed, strict=True)
    ]
    return ResampledP(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(ResampledP)))


def _draw_given(plan: SearchPlan, V: Floats, weight: Floats, replicates: Floats) -> DrawBlock:
    """Return a source that walks through given replicates (P, m)."""
    rows: Callable[[slice], Floats] = np.ascontiguousarray(replicates, dtype=np.float64).__getitem__
    done = 0

    def draw(active: Booleans, statistic: Floats) -> None:
        nonlocal done
        search_scores(plan, rows(slice(done, done + statistic.shape[0])), V, weight, active, statistic)
        done += statistic.shape[0]

    return draw
