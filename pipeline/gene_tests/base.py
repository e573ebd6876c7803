"""What every gene test sees and what it returns; nothing here knows files, studies or Dask.

A gene test is a pure function of the score vector U, the information matrix V and what is known of each variant.
Traits that share V up to a factor travel together: ``U`` has one row per trait, and ``Var(U[t]) = scale[t] * V``.
So the work that depends on V alone (eigenvalues, Cholesky factors) is done once for all of them.

Effects are those of the *counted* allele: the caller has already turned U and V to it (the minor allele under
``frequency: maf``, ALT under ``frequency: aaf``), so ``maf`` is the frequency of the counted allele.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Carriers:
    """What a study of a binary trait tells of the people who carry variants.

    Attributes:
        n: samples.
        case_share: of cases among them.
        frequency: (v,) of the counted allele in the study.
        V: (v, v) information of the model, before calibration.
        combine: (v, m) how the v variants make up the m that a test sees: ones on the diagonal unless some are pooled.
        step: by how much the dosage of a carrier goes up: 1, on X with men coded 0 and 2 between 1 and 2.
    """

    n: float
    case_share: float
    frequency: Floats
    V: Floats
    combine: Floats
    step: float = 1.0


@dataclass(frozen=True, slots=True)
class ScoreStatistics:
    """Score statistics of the variants that one mask selects.

    Attributes:
        U: (T, m) score statistics, ``U[t] = G'(y_t - mu_t) / phi_t``; one row per trait.
        V: (m, m) information matrix shared by the traits: ``Var(U[t]) = scale[t] * V`` under the null.
        scale: (T,) positive factors; 1.0 for a lone trait.
        maf: (m,) frequency of the counted allele, in [0, 1].
        mac: (m,) count of the counted allele over all samples (a float: missing calls are imputed).
        n_samples: (T,) samples behind each row of U.
        rare: (m,) True where the variant is under the frequency threshold of the row being tested. Tests of scope
            ``bin`` only ever see rare variants; tests of scope ``mask`` (CMC, common + rare SKAT) see all.
        annotations: per-variant numeric columns (m,) by name, for annotation weights and functional groupings.
        per_study: for heterogeneity tests, the (U_k (T, m), V_k (m, m), scale_k (T,)) of every study; empty when
            there is one.
        carriers: for calibrated binary traits, who carries the variants in every study (one entry when there is one
            study); empty where scores are taken for normal.
    """

    U: Floats
    V: Floats
    scale: Floats
    maf: Floats
    mac: Floats
    n_samples: Floats
    rare: NDArray[np.bool_]
    annotations: Mapping[str, Floats] = field(default_factory=dict)
    per_study: tuple[tuple[Floats, Floats, Floats], ...] = ()
    carriers: tuple[Carriers, ...] = ()

    @property
    def n_traits(self) -> int:
        """T, the number of traits that share V."""
        return int(self.U.shape[0])

    @property
    def n_variants(self) -> int:
        """m, the number of variants."""
        return int(self.U.shape[1])


@dataclass(frozen=True, slots=True)
class TestResult:
    """One test of one gene for T traits; every array is (T,), NaN where a quantity has no meaning.

    Attributes:
        statistic: the test statistic (chi-square for burden, Q for SKAT, max |Z| for VT, ...).
        log_p: natural logarithm of the p-value; p itself may underflow, this never does.
        beta, se: effect per counted allele (weighted sum) and its standard error, for tests that have one.
        p_error: relative numerical or Monte Carlo error of p; 0 where the p-value is exact to rounding.
        method: how p was computed (``chi2``, ``saddlepoint-contour``, ``importance-sampling``, ...).
        note: why there is no p-value, or a flag; empty when all is well. One text for all traits.
        detail: anything a report may show (best rho, threshold, chosen variants), by name; arrays lead with T.
    """

    __test__ = False  # not a pytest class

    statistic: Floats
    log_p: Floats
    beta: Floats | None = None
    se: Floats | None = None
    p_error: Floats | None = None
    method: str = ""
    note: str = ""
    detail: Mapping[str, object] = field(default_factory=dict)


def missing_result(n_traits: int, note: str) -> TestResult:
    """Return a row without a p-value that says why."""
    nan = np.full(n_traits, np.nan)
    return TestResult(statistic=nan, log_p=nan, note=note)
