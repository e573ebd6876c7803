"""Combinations: of variants by Cauchy (ACAT-V), of tests (ACAT-O) and of masks (the omnibus of a gene) by half-Cauchy.

Variants are many, independent and weighted, which is what the Cauchy combination was made for. Tests of one gene are
few and look at the same scores; there one p near 1 silences the others, and `half_cauchy` is used.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from locomass.gene_tests.base import Detail, TestResult, missing_result
from locomass.gene_tests.burden import burden
from locomass.gene_tests.common_tests import ACAT_CHI2, ACAT_LOG_P
from locomass.gene_tests.components import Components
from locomass.gene_tests.half_cauchy import half_cauchy_combine
from locomass.gene_tests.skat import skat
from locomass.gene_tests.tails import smallest_of
from locomass.numbers import Floats


def acat_v(c: Components, scheme: str) -> TestResult:
    """Return ACAT-V: the Cauchy combination of the variants' p-values (Liu et al. 2019, AJHG 104:410).

    A variant enters with weight ``w^2 f (1 - f)``, f its frequency. Variants with an allele count of at most
    ``c.collapse_mac`` enter together, as one burden with the weights w. The burden is a variant of the frequency that
    its variants have together and weighs as one (``collapsed_weight: own``, REGENIE's rule), or as the mean of its
    variants does (``mean``, the authors' rule, which gives a thousand singletons the weight of one). With
    ``collapse_mac = 0`` every variant is by itself, which is REGENIE's ``--vc-MACthr 0``. The statistic is the largest
    chi-square among the combined terms.
    """
    note = c.weight_note(scheme)
    if note:
        return missing_result(c.stats.n_traits, note)
    rows, n_traits = c.common(scheme), c.stats.n_traits
    if rows.n_terms == 0:
        return missing_result(n_traits, "no variant has weight in the combination")
    return TestResult(
        statistic=rows.values[ACAT_CHI2],
        log_p=rows.values[ACAT_LOG_P],
        p_error=np.zeros(n_traits),
        method="cauchy",
        detail=Detail(n_terms=np.full(n_traits, rows.n_terms)),
    )


def acat_o(c: Components, label: str) -> TestResult:
    """Return ACAT-O: SKAT, burden and ACAT-V under every set of weights, combined with equal weights (`half_cauchy`).

    The original (Liu et al. 2019) takes Beta(1, 25) and Beta(1, 1), which is ``flat``, and the Cauchy combination.
    Components without a p-value are left out, and the note says so. REGENIE's test of this name combines ACAT-V and the
    eight p-values inside SKAT-O, all under Beta(1, 25), by Cauchy.
    """
    rows: list[Floats] = []
    names: list[str] = []
    missing: list[str] = []
    for scheme in c.schemes:
        for name, compute in (("skat", skat), ("burden", burden), ("acat-v", acat_v)):
            result = c.once(name, scheme, compute)
            if result.note:
                missing.append(f"{name} ({scheme}): {result.note}")
            else:
                rows.append(result.log_p)
                names.append(f"{name} ({scheme})")
    if not rows:
        return missing_result(c.stats.n_traits, missing[0] if missing else "no weights to combine")
    combined = combine_log_p(np.array(rows))
    note = f"without {'; '.join(missing)}" if missing else ""
    return TestResult(
        statistic=combined.statistic,
        log_p=combined.log_p,
        p_error=combined.p_error,
        method=combined.method,
        note=note,
        detail=Detail(components=tuple(names), component=name_strongest(np.array(rows), names)),
    )


def name_strongest(log_p: Floats, names: Sequence[str]) -> tuple[str, ...]:
    """Return (T,) the name of the smallest of several log p-values (d, T); '' where there is none."""
    best = np.argmin(np.where(np.isnan(log_p), np.inf, log_p), axis=0)
    return tuple("" if np.isnan(log_p[d, t]) else names[d] for t, d in enumerate(best.tolist()))


def combine_log_p(log_p: Floats) -> TestResult:
    """Return the half-Cauchy combination of rows of p-values: the omnibus of a gene across masks, bins or tests.

    Args:
        log_p: (d, T) natural logarithms; NaN rows are left out.

    Returns:
        A row whose statistic is the smallest natural logarithm among the combined p-values, times -1.
    """
    n_traits = log_p.shape[1]
    smallest = smallest_of(log_p)
    if np.isnan(smallest).all():
        return missing_result(n_traits, "no p-value to combine")
    combined = half_cauchy_combine(log_p)
    return TestResult(statistic=-smallest, log_p=combined, p_error=np.zeros(n_traits), method="half-cauchy")
