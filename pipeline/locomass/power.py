"""Noncentrality, effective sample size and power, with and without a polygenic prediction.

The mixed model, and de-noising by a prediction, remove the variance R2 that the rest of the genome explains from the
residual, so a variant that explains ``b2`` of the trait has noncentrality ``N b2 / (1 - R2)`` instead of ``N b2``. R2
is the *true* (out-of-sample) prediction R2, leaving the tested chromosome out. What differs between designs is the
sample that trains the prediction: the pooled sample, each cohort alone, or the last meta-analysis' summary statistics.

Source: Bulik-Sullivan (2015), Mixed models for meta-analysis and sequencing, bioRxiv 020115.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from locomass.errors import StatisticsError
from locomass.numbers import GENOME_WIDE, Floats

#: 0.05 / 20,000 genes
EXOME_WIDE = 2.5e-6


@dataclass(frozen=True, slots=True)
class PublishedPrediction:
    """A published out-of-sample prediction R2, and the gain that Bulik-Sullivan (2015) estimates for the next study.

    Attributes:
        trait: its name.
        n: size of the meta-analysis that trained the prediction.
        r2: out-of-sample R2 of the polygenic score.
        reported_gain: increase of the effective sample size in the abstract of Bulik-Sullivan (2015), rounded there.
        source: where r2 stands.
    """

    trait: str
    n: int
    r2: float
    reported_gain: float
    source: str

    @property
    def gain(self) -> float:
        """``1 / (1 - r2) - 1``."""
        return float(1.0 / (1.0 - self.r2) - 1.0)


#: R2 as tabulated by de Vlaming et al. (2017), PLoS Genet 13:e1006495, table 2. Height comes out as reported (15.6 %);
#: BMI as 7.0 %, where the abstract's 8 % needs an R2 of 0.074: its own R2 may differ from the one tabulated later.
PUBLISHED = (
    PublishedPrediction("height", 253_288, 0.135, 0.15, "Wood et al. (2014), Nat Genet 46:1173"),
    PublishedPrediction("BMI", 339_224, 0.065, 0.08, "Locke et al. (2015), Nature 518:197"),
)


@dataclass(frozen=True, slots=True)
class PowerRow:
    """Power of one design.

    Attributes:
        design: linear, mixed_meta, summary or mixed_pooled.
        n: samples over all cohorts.
        r2: prediction R2; of several cohorts the one that gives the same effective sample size.
        n_effective: sample size that would give the linear model the same noncentrality.
        ncp: noncentrality of chi2_1.
        power: P(p < alpha).
    """

    design: str
    n: float
    r2: float
    n_effective: float
    ncp: float
    power: float


def effective_sample_size(n: ArrayLike, r2: ArrayLike) -> Floats:
    """Return ``n / (1 - R2)``: samples that the linear model would need.

    Args:
        n: samples.
        r2: prediction R2 without the tested chromosome, in [0, 1).

    Raises:
        StatisticsError: n not positive, or R2 outside [0, 1).
    """
    n, r2 = _check_n(n), _check_share(r2, "R2")
    return np.asarray(n / (1.0 - r2))


def compute_r2_of_gain(gain: ArrayLike) -> Floats:
    """Return the R2 that raises the effective sample size by the factor ``1 + gain``: ``gain / (1 + gain)``.

    Raises:
        StatisticsError: a negative gain.
    """
    gain = np.asarray(gain, float)
    if not (gain >= 0).all():
        raise StatisticsError(f"gain in effective sample size must be 0 or more, got {gain}")
    return np.asarray(gain / (1.0 + gain))


def ncp_linear(n: ArrayLike, b2: ArrayLike) -> Floats:
    """Return ``sum_k N_k b2``, noncentrality of the linear model, the same for a pooled study and a meta-analysis.

    Args:
        n: samples of every cohort (K,), or of one.
        b2: variance that the variant explains; any shape.

    Raises:
        StatisticsError: n not positive, or b2 outside [0, 1).
    """
    return np.asarray(_check_n(n).sum() * _check_share(b2, "b2"))


def ncp_mixed_meta(n: ArrayLike, b2: ArrayLike, r2: ArrayLike) -> Floats:
    """Return ``sum_k N_k b2 / (1 - R2_k)``: every cohort runs a mixed model on its own samples, then meta-analysis.

    Args:
        n: (K,) samples of every cohort.
        b2: variance that the variant explains; any shape.
        r2: (K,) R2 of the prediction that each cohort trains on itself, or one for all.

    Raises:
        StatisticsError: n not positive, b2 or R2 outside [0, 1), or as many R2 as fit no cohort.
    """
    n, r2 = np.atleast_1d(_check_n(n)), np.atleast_1d(_check_share(r2, "R2"))
    if r2.size not in (1, n.size):
        raise StatisticsError(f"{r2.size} values of R2 for {n.size} cohorts; give one, or one per cohort")
    return np.asarray((n / (1.0 - r2)).sum() * _check_share(b2, "b2"))


def ncp_mixed_pooled(n: ArrayLike, b2: ArrayLike, r2_pool: float) -> Floats:
    """Return ``N_meta b2 / (1 - R2_pool)``: one mixed model on the pooled individual data, ``N_meta = sum_k N_k``."""
    return ncp_mixed_meta(n, b2, float(r2_pool))


def ncp_summary(n: ArrayLike, b2: ArrayLike, r2_summary: float) -> Floats:
    """Return ``N_meta b2 / (1 - R2_summary)``: all cohorts use one prediction from the last meta-analysis.

    The summary statistics of the last meta-analysis are public, so one step suffices and nobody shares individual data.
    """
    return ncp_mixed_meta(n, b2, float(r2_summary))


def expected_r2(n: ArrayLike, h2: ArrayLike, m_effective: ArrayLike) -> Floats:
    """Return the expected out-of-sample R2 of a ridge-like prediction.

    With M_e independent effects of variance ``h2 / M_e``, each estimated with error variance ``(1 - R2) / N`` - the
    prediction itself lowers the residual variance -

        R2 = h2 / (1 + (1 - R2) M_e / (N h2))   or, with c = M_e / N,   c R2^2 - (h2 + c) R2 + h2^2 = 0,

    whose smaller root is ``2 h2^2 / (h2 + c + sqrt((h2 + c)^2 - 4 c h2^2))``. To first order in N, and in Daetwyler et
    al. (2008), R2 is ``h2 / (1 + M_e / (N h2))``.

    Args:
        n: training samples, 0 or more.
        h2: heritability, in [0, 1).
        m_effective: M_e, effective number of independent variants; about 60,000 for common variants of Europeans.

    Raises:
        StatisticsError: n negative, h2 outside [0, 1), or M_e not positive.

    Source: Daetwyler et al. (2008), PLoS ONE 3:e3395; with the residual variance, Wray et al. (2013), Nat Rev Genet
    14:507.
    """
    n, h2, m = np.asarray(n, float), _check_share(h2, "h2"), np.asarray(m_effective, float)
    if not (n >= 0).all() or not (m > 0).all():
        raise StatisticsError(f"expected n >= 0 and M_e > 0, got n {n} and M_e {m}")
    # multiplied by N / N, so that N = 0 needs no case of its own
    s = n * h2 + m
    return np.asarray(2.0 * n * h2**2 / (s + np.sqrt(s**2 - 4.0 * m * n * h2**2)))


def compute_power(ncp: ArrayLike, alpha: float = GENOME_WIDE, df: float = 1.0) -> Floats:
    """Return ``P(chi2_df(ncp) > q)`` with q the upper alpha quantile of the central chi-square.

    With one degree of freedom ``Phi(sqrt(ncp) - z) + Phi(-sqrt(ncp) - z)``, ``z = Phi^-1(1 - alpha / 2)``.

    Args:
        ncp: noncentrality, 0 or more.
        alpha: significance level, in (0, 1).
        df: degrees of freedom; 1 for single variants and burden tests.

    Raises:
        StatisticsError: a negative noncentrality, alpha outside (0, 1) or df not positive.
    """
    ncp = np.asarray(ncp, float)
    if not (ncp >= 0).all() or not 0 < alpha < 1 or not df > 0:
        raise StatisticsError(f"expected ncp >= 0, alpha in (0, 1), df > 0; got {ncp}, {alpha}, {df}")
    if df == 1:
        z, root = stats.norm.isf(alpha / 2), np.sqrt(ncp)
        return np.asarray(stats.norm.cdf(root - z) + stats.norm.cdf(-root - z))
    return np.asarray(stats.ncx2.sf(stats.chi2.isf(alpha, df), df, ncp))


def information_matrix(n: float, maf: ArrayLike, residual_variance: float = 1.0) -> Floats:
    """Return V (m, m) of m independent variants, ``diag(n 2 maf (1 - maf) / residual_variance)``.

    Args:
        n: samples.
        maf: (m,) allele frequencies.
        residual_variance: variance of the trait after covariates and prediction, ``(1 - R2) var(y)``.

    Raises:
        StatisticsError: n or the variance not positive, or a frequency outside [0, 1).
    """
    maf = _check_share(maf, "maf")
    if not residual_variance > 0:
        raise StatisticsError(f"residual variance must be positive, got {residual_variance}")
    return np.diag(_check_n(n) * 2.0 * maf * (1.0 - maf) / residual_variance)


def ncp_burden(V: Floats, beta: Floats, weights: Floats) -> float:
    """Return the noncentrality ``(w'V beta)^2 / (w'V w)`` of a burden test.

    Args:
        V: (m, m) information matrix, ``G'P G`` as in the study bundle, or `information_matrix`.
        beta: (m,) true effects per allele.
        weights: (m,) burden weights.

    Raises:
        StatisticsError: shapes that do not fit, or weights that give no variance.
    """
    _check_gene(V, beta, weights)
    variance = float(weights @ V @ weights)
    if not variance > 0:
        raise StatisticsError(f"the burden has variance {variance}: every weight or every variant's information is 0")
    return float((weights @ V @ beta) ** 2 / variance)


def compute_skat_power(V: Floats, beta: Floats, weights: Floats, alpha: float = EXOME_WIDE) -> float:
    """Return the power of SKAT, ``Q = U'W^2 U`` with ``U ~ N(V beta, V)``.

    Q is a sum of ``lambda_i chi2_1(delta_i)`` with lambda the eigenvalues of ``A = V^(1/2) W^2 V^(1/2)`` and
    ``delta_i = (u_i'V^(1/2) beta)^2``. Its cumulants ``c_k = sum lambda^k (1 + k delta)`` are matched by a noncentral
    chi-square under the null and the alternative.

    Args:
        V: (m, m) information matrix.
        beta: (m,) true effects per allele.
        weights: (m,) SKAT weights, diagonal of W.
        alpha: significance level.

    Raises:
        StatisticsError: shapes that do not fit, or no variance.

    Source: Liu, Tang & Zhang (2009), Comput Stat Data Anal 53:853; for power, Lee et al. (2012), AJHG 91:224.
    """
    _check_gene(V, beta, weights)
    values, vectors = np.linalg.eigh(V)
    root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    lam, u = np.linalg.eigh(root @ np.diag(weights**2) @ root)
    keep = lam > lam.max() * 1e-10
    if not lam.max() > 0:
        raise StatisticsError("SKAT has no variance: every weight or every variant's information is 0")
    lam, delta = lam[keep], (u.T @ root @ beta)[keep] ** 2
    null, alternative = (_match_cumulants(lam, d) for d in (np.zeros_like(delta), delta))
    critical = null.mean + null.sd * (stats.ncx2.isf(alpha, null.df, null.ncp) - null.df - null.ncp) / null.scale
    q = (critical - alternative.mean) / alternative.sd * alternative.scale + alternative.df + alternative.ncp
    return float(stats.ncx2.sf(q, alternative.df, alternative.ncp))


@dataclass(frozen=True, slots=True)
class _Matched:
    """A mixture's mean and sd, and the chi-square (df, ncp; sd ``scale``) that has its skewness and kurtosis."""

    mean: float
    sd: float
    df: float
    ncp: float
    scale: float


def _match_cumulants(lam: Floats, delta: Floats) -> _Matched:
    """Match ``sum lambda chi2_1(delta)`` by a noncentral chi-square (Liu, Tang & Zhang 2009, section 3)."""
    c1, c2, c3, c4 = (float((lam**k * (1.0 + k * delta)).sum()) for k in (1, 2, 3, 4))
    s1, s2 = c3 / c2**1.5, c4 / c2**2
    if s1**2 > s2:
        a = 1.0 / (s1 - np.sqrt(s1**2 - s2))
        ncp = s1 * a**3 - a**2
        df = a**2 - 2.0 * ncp
    else:
        # a positive ncp cannot give both; a central chi-square of this df keeps the kurtosis, hence the tail
        ncp, df = 0.0, 1.0 / s2
    return _Matched(c1, float(np.sqrt(2.0 * c2)), df, ncp, float(np.sqrt(2.0 * (df + 2.0 * ncp))))


def power_table(
    n: Sequence[float],
    b2: float,
    *,
    h2: float,
    m_effective: float,
    n_summary: float | None = None,
    alpha: float = GENOME_WIDE,
) -> list[PowerRow]:
    """Compare the designs of Bulik-Sullivan (2015) for one variant, with R2 from `expected_r2`.

    Args:
        n: (K,) samples of every cohort.
        b2: variance that the variant explains.
        h2: heritability captured by the prediction's variants.
        m_effective: effective number of independent variants.
        n_summary: samples of the last meta-analysis; ``sum_k N_k`` when absent.
        alpha: significance level.

    Returns:
        One row per design, of rising noncentrality when ``n_summary <= sum_k N_k``: ``linear``, ``mixed_meta``,
        ``summary``, ``mixed_pooled``.

    Raises:
        StatisticsError: numbers out of range.
    """
    total = float(np.sum(_check_n(n)))
    r2_cohorts = expected_r2(np.asarray(n, float), h2, m_effective)
    r2_pool = float(expected_r2(total, h2, m_effective))
    r2_summary = float(expected_r2(total if n_summary is None else n_summary, h2, m_effective))
    ncp = {
        "linear": ncp_linear(n, b2),
        "mixed_meta": ncp_mixed_meta(n, b2, r2_cohorts),
        "summary": ncp_summary(n, b2, r2_summary),
        "mixed_pooled": ncp_mixed_pooled(n, b2, r2_pool),
    }
    same = float(effective_sample_size(np.asarray(n, float), r2_cohorts).sum())
    r2 = {"linear": 0.0, "mixed_meta": 1.0 - total / same, "summary": r2_summary, "mixed_pooled": r2_pool}
    return [
        PowerRow(
            design, total, r2[design], total / (1.0 - r2[design]), float(value), float(compute_power(value, alpha))
        )
        for design, value in ncp.items()
    ]


def grow_consortium(
    n: Sequence[float],
    b2: float,
    *,
    h2: float,
    m_effective: float,
    n_summary: float | None = None,
    alpha: float = GENOME_WIDE,
) -> list[list[PowerRow]]:
    """Return `power_table` of the first cohort, of the first two, and so on to all K; arguments as there.

    Raises:
        StatisticsError: numbers out of range.
    """
    return [
        power_table(n[: k + 1], b2, h2=h2, m_effective=m_effective, n_summary=n_summary, alpha=alpha)
        for k in range(len(n))
    ]


def _check_n(n: ArrayLike) -> Floats:
    """Return sample sizes as floats, or raise unless all are positive."""
    values = np.asarray(n, float)
    if values.size == 0 or not (values > 0).all():
        raise StatisticsError(f"sample sizes must be positive, got {values}")
    return values


def _check_share(value: ArrayLike, name: str) -> Floats:
    """Return a share of variance (or a frequency) as float, or raise unless it is in [0, 1)."""
    values = np.asarray(value, float)
    if not ((values >= 0) & (values < 1)).all():
        raise StatisticsError(f"{name} must be in [0, 1), got {values}")
    return values


def _check_gene(V: Floats, beta: Floats, weights: Floats) -> None:
    """Raise unless V, beta and weights describe the same variants."""
    m = beta.shape[0]
    if V.shape != (m, m) or weights.shape != (m,):
        raise StatisticsError(
            f"V is {V.shape}, beta {beta.shape}, weights {weights.shape}; expected (m, m), (m,), (m,)"
        )
