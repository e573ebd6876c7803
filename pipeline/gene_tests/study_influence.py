"""What one study adds to a row: the test in the study alone, and with the study left out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pipeline.gene_tests.base import ScoreStatistics, TestResult
from pipeline.gene_tests.components import FEW_PARTICLES
from pipeline.gene_tests.registry import DEFAULT_WEIGHTS, evaluate


def study_influence(
    stats: ScoreStatistics, test: str, weights: str, *, collapse_mac: float = 10.0, ultra_rare: float = 0.0
) -> tuple[list[TestResult], list[TestResult]]:
    """Return the row of every study alone and of all studies but it; weights are those of the pooled frequencies.

    Alone: U = U_k, V = V_k. Left out: U = sum_l U_l - U_k, V likewise, summed anew so that nothing cancels.

    Args:
        stats: one trait, the statistics of K >= 2 studies in ``per_study``.
        test: name from ``TESTS``.
        weights: of the row.
        collapse_mac, ultra_rare: as the test saw them.
    """
    schemes = tuple(weights.split("+")) if weights else DEFAULT_WEIGHTS[:1]
    parts = [(U, V * scale[0]) for U, V, scale in stats.per_study]

    def run(chosen: list[int]) -> TestResult:
        U, V = (np.sum([parts[k][i] for k in chosen], axis=0) for i in (0, 1))
        one = np.ones(1)
        carriers = tuple(stats.carriers[k] for k in chosen) if stats.carriers else ()
        some = replace(stats, U=U, V=V, scale=one, per_study=tuple((*parts[k], one) for k in chosen), carriers=carriers)
        return evaluate(
            some, (test,), schemes, collapse_mac=collapse_mac, ultra_rare=ultra_rare, particles=FEW_PARTICLES
        )[0][2]

    studies = list(range(len(parts)))
    return [run([k]) for k in studies], [run(studies[:k] + studies[k + 1 :]) for k in studies]
