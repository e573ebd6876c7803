"""CMC: a Hotelling-type test of the collapsed rare variants together with every common variant."""

from __future__ import annotations

import numpy as np

from pipeline.gene_tests.base import TestResult, missing_result
from pipeline.gene_tests.components import MONOMORPHIC, Components
from pipeline.kernels.mixture import mixture_logsf

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
    sd = np.sqrt(variance[varying])
    z = (s.U @ C)[:, varying] / (sd * np.sqrt(s.scale)[:, None])
    values, vectors = np.linalg.eigh(V[np.ix_(varying, varying)] / np.outer(sd, sd))
    kept = values > RANK_CUT * values[-1]
    statistic = ((z @ vectors[:, kept]) ** 2 / values[kept]).sum(axis=1)
    df = int(np.count_nonzero(kept))
    log_p, error = mixture_logsf(statistic, np.ones(df))
    return TestResult(
        statistic=statistic, log_p=log_p, p_error=error, method="chi2", detail={"df": np.full(s.n_traits, df)}
    )
