"""What every gene test sees and what it returns; nothing here knows files, studies or Dask.

A gene test is a pure function of the score vector U, the information matrix V and what is known of each variant.
Traits that share V up to a factor travel together: ``U`` has one row per trait, and ``Var(U[t]) = scale[t] * V``.
So the work that depends on V alone (eigenvalues, Cholesky factors) is done once for all of them.

Effects are those of the *counted* allele: the caller has already turned U and V to it (the minor allele under
``frequency: maf``, ALT under ``frequency: aaf``), so ``maf`` is the frequency of the counted allele.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from locomass.gene_tests.law import StudyCarriers
from locomass.numbers import Floats

#: note of a row whose p-value takes scores for normal that are not
NORMAL_SCORES = "not calibrated: scores are taken for normal"


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
        laws: per trait, who carries the variants in every study, so that sums of them have a null law (`law`); empty
            where scores are taken for normal.
        members: places in ``laws`` of the studies behind each entry of ``per_study``; empty: one each.
        gene: name, which tells its random numbers from those of other genes with the same counts.
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
    laws: tuple[tuple[StudyCarriers, ...], ...] = ()
    members: tuple[tuple[int, ...], ...] = ()
    gene: str = ""

    @property
    def n_traits(self) -> int:
        """T, the number of traits that share V."""
        return int(self.U.shape[0])

    @property
    def n_variants(self) -> int:
        """m, the number of variants."""
        return int(self.U.shape[1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Detail:
    """What a test found beside its p-value, for T traits; None where a test has no such thing.

    Attributes:
        rho: (T,) share of the burden in the best mixture of SKAT and burden.
        threshold: (T,) frequency limit of the best burden; n_thresholds: (T,) limits that were tried.
        grouping: (T,) annotation and limit of the best group of variants; '' where the search has no groupings.
        weighting: (T,) weights of the best set of variants: ``constant`` or ``inverse-sd``.
        component: (T,) the strongest of the tests that a combination takes together; row: (T,) of rows.
        chosen: (T, m) variants, or genes, of the best set; weight: (T, m) their signed weights.
        permutations, exceedances, extrapolated: (T,) of a search's resampling.
        log_p_min: (T,) smallest log p of the mixtures that were tried.
        rare_part: (T,) share of the rare variants in the statistic.
        n_terms, df, n_genes: (T,) terms of a combination, degrees of freedom, genes of a pathway.
        components: names of the tests in a combination.
        cochran_q, log_p_heterogeneity, i2: (T,) whether effects differ between studies.
    """

    rho: Floats | None = None
    threshold: Floats | None = None
    n_thresholds: NDArray[np.int64] | None = None
    grouping: tuple[str, ...] | None = None
    weighting: tuple[str, ...] | None = None
    component: tuple[str, ...] | None = None
    row: tuple[str, ...] | None = None
    chosen: NDArray[np.bool_] | None = None
    weight: Floats | None = None
    permutations: NDArray[np.int64] | None = None
    exceedances: NDArray[np.int64] | None = None
    extrapolated: NDArray[np.bool_] | None = None
    log_p_min: Floats | None = None
    rare_part: Floats | None = None
    n_terms: NDArray[np.int64] | None = None
    df: NDArray[np.int64] | None = None
    n_genes: NDArray[np.int64] | None = None
    components: tuple[str, ...] = ()
    cochran_q: Floats | None = None
    log_p_heterogeneity: Floats | None = None
    i2: Floats | None = None

    def choice(self, t: int) -> str:
        """Return what the test chose for a trait, as in column ``choice``: ``rho=0.1``, ``threshold=0.01``, ..."""
        parts = []
        if self.rho is not None and np.isfinite(self.rho[t]):
            parts.append(f"rho={self.rho[t]:g}")
        if self.threshold is not None and np.isfinite(self.threshold[t]):
            parts.append(f"threshold={self.threshold[t]:g}")
        named = {"grouping": self.grouping, "weights": self.weighting, "component": self.component, "row": self.row}
        parts += [f"{name}={values[t]}" for name, values in named.items() if values is not None and values[t]]
        return ", ".join(parts)


NO_DETAIL = Detail()


@dataclass(frozen=True, slots=True)
class TestResult:
    """One test of one gene for T traits; every array is (T,), NaN where a quantity has no meaning.

    Attributes:
        statistic: the test statistic (chi-square for burden, Q for SKAT, max |Z| for VT, ...).
        log_p: natural logarithm of the p-value; p itself may underflow, this never does.
        beta, se: effect per counted allele (weighted sum) and its standard error, for tests that have one.
        ci_low, ci_high: 95 % interval of the effect.
        p_error: relative numerical or Monte Carlo error of p; 0 where the p-value is exact to rounding.
        method: how p was computed (``chi2``, ``saddlepoint-contour``, ``importance-sampling``, ...).
        note: why there is no p-value, or a flag; empty when all is well. One text for all traits.
        detail: what the test found beside p: best rho, threshold, chosen variants.
    """

    __test__ = False  # not a pytest class

    statistic: Floats
    log_p: Floats
    beta: Floats | None = None
    se: Floats | None = None
    p_error: Floats | None = None
    method: str = ""
    note: str = ""
    detail: Detail = NO_DETAIL
    ci_low: Floats | None = None
    ci_high: Floats | None = None

    def choices(self) -> list[str]:
        """Return (T,) what the test chose; '' where it chooses nothing or has no p-value."""
        return ["" if np.isnan(p) else self.detail.choice(t) for t, p in enumerate(self.log_p)]


def add_note(result: TestResult, note: str) -> TestResult:
    """Return a row with a further note, once."""
    said = [part for part in result.note.split("; ") if part]
    return result if not note or note in said else replace(result, note="; ".join([*said, note]))


def missing_result(n_traits: int, note: str) -> TestResult:
    """Return a row without a p-value that says why."""
    nan = np.full(n_traits, np.nan)
    return TestResult(statistic=nan, log_p=nan, note=note)
