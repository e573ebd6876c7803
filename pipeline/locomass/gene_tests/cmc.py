"""CMC: a Hotelling-type test of the collapsed rare variants together with every common variant."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from locomass.gene_tests.base import Detail, ScoreStatistics, TestResult, missing_result
from locomass.gene_tests.chi_square_mixture import mixture_logsf
from locomass.gene_tests.components import MONOMORPHIC, Components, join_variants
from locomass.gene_tests.few_cases import redraw_tail, sum_scores
from locomass.gene_tests.law_rows import laws_of_sum
from locomass.gene_tests.law_tails import score_log_p

RANK_CUT = 1e-8  # eigenvalues of the correlation matrix below it are linear dependence


def cmc(c: Components, _: str) -> TestResult:
    """Return ``T = u' V^-1 u``, chi-square with rank(V) degrees of freedom (Li & Leal 2008, AJHG 83:311).

    u holds the score of the sum of the rare variants and of every common variant. Perfect LD lowers the rank: V^-1 is
    the inverse on its range, of the correlation matrix, so that the units of the variants do not matter.
    """
    s = c.stats
    common = np.flatnonzero(~s.rare)
    # one column for the sum of the rare variants, one per common variant
    C = np.zeros((s.n_variants, common.size + 1))
    C[s.rare, 0] = 1.0
    C[common, np.arange(1, common.size + 1)] = 1.0
    V = C.T @ s.V @ C
    variance = V.diagonal()
    varying = variance > MONOMORPHIC * variance.max()
    if not varying.any():
        return missing_result(s.n_traits, "neither the rare sum nor a common variant varies")
    C, V = C[:, varying], V[np.ix_(varying, varying)]
    sd = np.sqrt(variance[varying])
    values, vectors = np.linalg.eigh(V / np.outer(sd, sd))
    kept = values > RANK_CUT * values[-1]
    root = vectors[:, kept] / np.sqrt(values[kept]) / sd[:, None]  # root root' is the inverse of V on its range
    U = s.U @ C
    statistic = ((U @ root) ** 2).sum(axis=1) / s.scale
    df = int(np.count_nonzero(kept))
    log_p, error = mixture_logsf(statistic, np.ones(df))
    row = TestResult(
        statistic=statistic, log_p=log_p, p_error=error, method="chi2", detail=Detail(df=np.full(s.n_traits, df))
    )
    seen = join_variants(s, C)
    if df == 1 and C.shape[1] == 1:
        return _replace_p(row, seen, c)
    own = Components(seen, (), particles=c.particles)
    # the statistic of draws has no scale: that of the observed scores is taken in the same way
    return redraw_tail(own, row, np.ones(C.shape[1]) / sd, lambda S: ((sum_scores(S) @ root) ** 2).sum(axis=1))


def _replace_p(row: TestResult, seen: ScoreStatistics, c: Components) -> TestResult:
    """Return the row of a lone sum with p from its law."""
    log_p, methods = row.log_p.copy(), set()
    for t, law in enumerate(laws_of_sum(seen, np.ones(1))):
        method = row.method
        if law is not None and law.step.size and not np.isnan(log_p[t]):
            log_p[t], method = score_log_p(law, float(seen.U[t, 0]), c.ties)
        methods.add(method)
    return replace(row, log_p=log_p, method=", ".join(sorted(methods)))
