"""Cauchy combinations: of variants (ACAT-V), of tests (ACAT-O) and of masks (the omnibus of a gene)."""

from __future__ import annotations

import numpy as np

from pipeline.gene_tests.base import Floats, TestResult, missing_result
from pipeline.gene_tests.burden import burden
from pipeline.gene_tests.components import Components
from pipeline.gene_tests.skat import skat
from pipeline.kernels.common_tests import ACAT_CHI2, ACAT_LOG_P
from pipeline.kernels.tails import cauchy_combine, smallest_of


def acat_v(c: Components, scheme: str) -> TestResult:
    """Return ACAT-V: the Cauchy combination of the variants' p-values (Liu et al. 2019, AJHG 104:410).

    A variant enters with weight ``w^2 f (1 - f)``, f its frequency. Variants with an allele count of at most
    ``c.collapse_mac`` enter together, as one burden with the weights w; its own weight is taken at their mean w and
    mean f. With ``collapse_mac = 0`` every variant stands alone, which is REGENIE's ``--vc-MACthr 0``. The statistic
    is the largest chi-square among the combined terms.
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
        detail={"n_terms": np.full(n_traits, rows.n_terms)},
    )


def acat_o(c: Components, label: str) -> TestResult:
    """Return ACAT-O: the Cauchy combination, with equal weights, of SKAT, burden and ACAT-V under every set of weights.

    The original (Liu et al. 2019) takes Beta(1, 25) and Beta(1, 1), which is ``flat``. Components without a p-value
    are left out, and the note says so. REGENIE's test of this name combines ACAT-V and the eight p-values inside
    SKAT-O, all under Beta(1, 25), with p above 0.999 set to 0.999.
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
        method="cauchy",
        note=note,
        detail={"components": tuple(names)},
    )


def combine_log_p(log_p: Floats, weights: Floats | None = None) -> TestResult:
    """Return the Cauchy combination of rows of p-values: the omnibus of a gene across masks, bins or tests.

    Args:
        log_p: (d, T) natural logarithms; NaN rows are left out.
        weights: (d,) weights >= 0; equal when not given.

    Returns:
        A row whose statistic is the smallest natural logarithm among the combined p-values, times -1.
    """
    d, n_traits = log_p.shape
    smallest = smallest_of(log_p)
    if np.isnan(smallest).all():
        return missing_result(n_traits, "no p-value to combine")
    w = np.ones(d) if weights is None else weights
    return TestResult(statistic=-smallest, log_p=cauchy_combine(log_p, w), p_error=np.zeros(n_traits), method="cauchy")
