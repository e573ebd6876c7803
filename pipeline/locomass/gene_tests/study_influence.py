"""What one study adds to a row: the test in the study alone, and with the study left out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from locomass.gene_tests.base import ScoreStatistics, TestResult
from locomass.gene_tests.components import FEW_PARTICLES, CollapsedWeight
from locomass.gene_tests.law_tails import Ties
from locomass.gene_tests.registry import DEFAULT_WEIGHTS, evaluate


def study_influence(
    stats: ScoreStatistics,
    test: str,
    weights: str,
    *,
    collapse_mac: float = 10.0,
    collapsed_weight: CollapsedWeight = "own",
    ultra_rare: float = 0.0,
    ties: Ties = "mid",
    firth: bool = True,
) -> tuple[list[TestResult], list[TestResult]]:
    """Return the row of every study alone and of all studies but it; weights are those of the pooled frequencies.

    Alone: U = U_k, V = V_k. Left out: U = sum_l U_l - U_k, V likewise, summed anew so that nothing cancels.

    Args:
        stats: one trait, the statistics of K >= 2 studies in ``per_study``.
        test: name from ``TESTS``.
        weights: of the row.
        collapse_mac, collapsed_weight, ultra_rare, ties, firth: as the test had them.
    """
    schemes = tuple(weights.split("+")) if weights else DEFAULT_WEIGHTS[:1]
    parts = [(U, V * scale[0]) for U, V, scale in stats.per_study]

    def run(chosen: list[int]) -> TestResult:
        U, V = (np.sum([parts[k][i] for k in chosen], axis=0) for i in (0, 1))
        one = np.ones(1)
        kept = [i for k in chosen for i in (stats.members[k] if stats.members else (k,))]
        members = tuple(tuple(kept.index(i) for i in stats.members[k]) for k in chosen) if stats.members else ()
        laws = tuple(tuple(studies[i] for i in kept) for studies in stats.laws)
        some = replace(
            stats, U=U, V=V, scale=one, per_study=tuple((*parts[k], one) for k in chosen), laws=laws, members=members
        )
        return evaluate(
            some,
            (test,),
            schemes,
            collapse_mac=collapse_mac,
            collapsed_weight=collapsed_weight,
            ultra_rare=ultra_rare,
            particles=FEW_PARTICLES,
            ties=ties,
            firth=firth,
        )[0][2]

    every = list(range(len(parts)))
    return [run([k]) for k in every], [run(every[:k] + every[k + 1 :]) for k in every]
