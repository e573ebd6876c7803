"""Ultra-rare variants as one pseudo-marker, before tests of variance components.

The chi-square mixture of SKAT takes every score for normal. A score of one or two carriers is not, least of all where
cases are few; the sum over all of them is nearer.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from locomass.gene_tests.base import ScoreStatistics
from locomass.gene_tests.components import Components
from locomass.gene_tests.law_variance import calibrate_statistics
from locomass.numbers import Floats


def pool_ultra_rare(c: Components) -> Components:
    """Return what the SKAT family sees: variants of at most ``c.ultra_rare`` alleles as one, V brought to the laws."""
    if c.ultra_rare <= 0.0 and not c.stats.laws:
        return c

    def pool(own: Components, _: str) -> Components:
        stats = collapse_ultra_rare(own.stats, own.ultra_rare) if own.ultra_rare > 0.0 else own.stats
        stats = calibrate_statistics(stats, own.ties)
        if stats is own.stats:
            return own
        pooled = Components(stats, own.schemes, own.collapse_mac, particles=own.particles, shared=own.shared)
        pooled.ties, pooled.firth = own.ties, own.firth
        return pooled

    return c.once("ultra-rare", "", pool)


def collapse_ultra_rare(stats: ScoreStatistics, mac: float = 10.0) -> ScoreStatistics:
    """Return statistics in which all variants with an allele count of at most ``mac`` are one pseudo-marker.

    The pseudo-marker, which comes first, is the sum of the variants: its score and information are sums, its
    frequency and count too, its annotations are means (compare Zhou et al. 2022, Nat Genet 54:1466, who take the
    maximum of the calls). Monomorphic variants add nothing and vanish. Fewer than two such variants: the statistics
    come back unchanged.
    """
    pooled = stats.mac <= mac
    if np.count_nonzero(pooled) < 2:
        return stats
    kept = np.flatnonzero(~pooled)
    # C (m, 1 + kept): column 0 adds the pooled variants up, the others pass the rest on
    C = np.zeros((stats.n_variants, kept.size + 1))
    C[pooled, 0] = 1.0
    C[kept, np.arange(1, kept.size + 1)] = 1.0

    def join(first: float, values: Floats) -> Floats:
        return np.concatenate(([first], values[kept]))

    return replace(
        stats,
        U=stats.U @ C,
        V=C.T @ stats.V @ C,
        maf=join(min(1.0, float(stats.maf[pooled].sum())), stats.maf),
        mac=join(float(stats.mac[pooled].sum()), stats.mac),
        rare=np.concatenate(([bool(stats.rare[pooled].all())], stats.rare[kept])),
        annotations={name: join(float(a[pooled].mean()), a) for name, a in stats.annotations.items()},
        per_study=tuple((U @ C, C.T @ V @ C, scale) for U, V, scale in stats.per_study),
        laws=tuple(tuple(own.join(C) for own in studies) for studies in stats.laws),
    )
