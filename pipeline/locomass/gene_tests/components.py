"""What the tests of one gene share - weights, weighted scores, eigenvalues, other tests' rows - each computed once."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar, cast

import numpy as np

from locomass.errors import StatisticsError
from locomass.gene_tests.base import ScoreStatistics
from locomass.gene_tests.common_tests import compute_common_tests
from locomass.gene_tests.gene_sums import correlate, keep_above
from locomass.gene_tests.law_rows import laws_of_sum
from locomass.gene_tests.law_tails import Ties, score_log_p
from locomass.gene_tests.law_variance import variant_log_p
from locomass.gene_tests.selection import (
    BAD_FREQUENCY,
    BAD_SCALE,
    NEGATIVE,
    SCORE_WITHOUT_VARIANCE,
    SOUND,
    STILL,
    V_NOT_FINITE,
    find_fault,
    is_definite,
)
from locomass.gene_tests.step_up import DEFAULT, StepUpParameters
from locomass.gene_tests.weights import compute_weights
from locomass.numbers import NOT_PSD_PRINTED, Floats

T = TypeVar("T")
CollapsedWeight = Literal["own", "mean"]

COMMON = ("burden", "skat", "acat-v")  # tests that one kernel computes together
# particles of a row; what illustrates a row takes fewer
PARTICLES, FEW_PARTICLES = 4_000, 1_000
# a variant whose V_jj is below this part of the largest does not vary: a singleton among a million samples is at 1e-6
MONOMORPHIC = 1e-12
# eigenvalues below mean(positive) / 1e5 are rounding, as in R SKAT
EIGENVALUE_CUT = 1e-5
# a sum whose variance is below this part of what its terms have on their own has cancelled out
CANCELLED = 1e-10


@dataclass(slots=True)
class Components:
    """Score statistics of one gene and what has been computed from them so far.

    Attributes:
        stats: statistics that passed ``check_statistics``.
        schemes: names of the weights, in the order of the configuration.
        collapse_mac: ACAT-V pools variants whose allele count is at most this.
        collapsed_weight: of that pool in ACAT-V, by its own frequency or the mean of its variants.
        step_up: how the searches run.
        replicates: (T, P, m) null scores that the studies shared, in place of normal draws; None where they did not.
        ultra_rare: the SKAT family sees variants of at most this many alleles as one (0: every variant by itself).
        particles: of the splitting behind small p-values of few cases (see ``null_draws``).
        ties: how much of the probability of the observed value counts (see ``law_tails``).
        firth: whether odds ratios are Firth's, or maximum-likelihood estimates.
        shared: which of burden, skat and acat-v the tests to come will ask for.
    """

    stats: ScoreStatistics
    schemes: tuple[str, ...]
    collapse_mac: float = 10.0
    collapsed_weight: CollapsedWeight = "own"
    step_up: StepUpParameters = DEFAULT
    replicates: Floats | None = None
    ultra_rare: float = 0.0
    particles: int = PARTICLES
    ties: Ties = "mid"
    firth: bool = True
    shared: frozenset[str] = frozenset(COMMON)
    _memo: dict[tuple[str, str], object] = field(default_factory=dict)

    def once(self, name: str, scheme: str, compute: Callable[[Components, str], T]) -> T:
        """Return ``compute(self, scheme)``, from memory when it was computed before under this name."""
        key = (name, scheme)
        if key not in self._memo:
            self._memo[key] = compute(self, scheme)
        return cast(T, self._memo[key])

    def weights(self, scheme: str) -> Floats:
        """Return the (m,) weights of a scheme."""
        return self.once("weights", scheme, lambda c, s: compute_weights(s, c.stats.maf, c.stats.annotations))

    def weight_note(self, scheme: str) -> str:
        """Return why these weights cannot be used, or an empty text."""

        def compute(c: Components, s: str) -> str:
            w = c.weights(s)
            size = float(w @ w)
            if 0.0 < size < math.inf:
                return ""
            if not math.isfinite(size):
                return f"weights '{s}' have no value for {np.sum(~np.isfinite(w))} of {w.size} variants"
            return "" if w.any() else f"weights '{s}' are zero for every variant"

        return self.once("weight note", scheme, compute)

    def weighted_covariance(self, scheme: str) -> Floats:
        """Return A = W V W, (m, m)."""

        def compute(c: Components, s: str) -> Floats:
            w = c.weights(s)
            return w[:, None] * c.stats.V * w

        return self.once("weighted covariance", scheme, compute)

    def common(self, scheme: str) -> CommonRows:
        """Return burden, SKAT and ACAT-V under a set of weights, computed with those of all configured sets at once."""
        schemes = self.schemes if scheme in self.schemes else (scheme,)
        rows = self.once("common", "+".join(schemes), lambda c, _: compute_common(c, schemes))
        return rows[schemes.index(scheme)]

    def eigenvalues(self, scheme: str) -> Floats:
        """Return the eigenvalues of W V W that are more than rounding, ascending."""
        return self.common(scheme).eigenvalues


@dataclass(frozen=True, slots=True)
class CommonRows:
    """What one call computes under one set of weights.

    Attributes:
        values: (9, T), see ``kernels.common_tests``; NaN where a test is not wanted or has nothing that varies.
        varies: whether the weighted sum does.
        eigenvalues: (k,) of W V W, ascending.
        n_terms: of ACAT-V.
    """

    values: Floats
    varies: bool
    eigenvalues: Floats
    n_terms: int


def compute_common(c: Components, schemes: tuple[str, ...]) -> list[CommonRows]:
    """Return the common rows of several sets of weights; those that have no weights are computed as zero weights."""
    s = c.stats
    W = np.array([np.zeros(s.n_variants) if c.weight_note(name) else c.weights(name) for name in schemes])
    wanted = tuple(name in c.shared for name in COMMON)
    known = term_log_p(c, W) if wanted[2] else np.full((len(schemes), s.n_variants + 1, s.n_traits), np.nan)
    limits = (MONOMORPHIC, CANCELLED, EIGENVALUE_CUT)
    own = np.array([_collapsed_weight(c, name) for name in schemes])
    values, eigenvalues, counts = compute_common_tests(
        s.U, s.V, s.scale, W, s.maf, s.mac, float(c.collapse_mac), own, limits, wanted, known
    )
    return [
        CommonRows(rows, varies, kept[:k], n)
        for rows, kept, (varies, k, n) in zip(values, eigenvalues, counts.tolist(), strict=True)
    ]


def _collapsed_weight(c: Components, scheme: str) -> float:
    """Return w of ACAT-V's burden of the rarest variants at its own frequency and mean annotations; NaN: not so."""
    s = c.stats
    pooled = (s.mac <= c.collapse_mac) & (s.V.diagonal() > 0.0)
    if c.collapsed_weight == "mean" or not pooled.any() or c.weight_note(scheme):
        return math.nan
    frequency = np.array([min(1.0, float(s.maf[pooled].sum()))])
    means = {name: np.array([float(column[pooled].mean())]) for name, column in s.annotations.items()}
    return float(compute_weights(scheme, frequency, means)[0])


def term_log_p(c: Components, W: Floats) -> Floats:
    """Return log p of the burden and the variants that ACAT-V combines, (S, m + 1, T); NaN without laws.

    Args:
        c: what the test sees.
        W: (S, m) sets of weights.
    """
    s = c.stats
    out = np.full((len(W), s.n_variants + 1, s.n_traits), np.nan)
    if not s.laws or any(own.combine is not None for own in s.laws[0]):
        return out
    out[:, 1:] = c.once("variant laws", "", lambda *_: variant_log_p(s, c.ties)).T
    varies = s.V.diagonal() > MONOMORPHIC * s.V.diagonal().max()
    for i, w in enumerate(W):
        pooled = np.where(varies & (s.mac <= c.collapse_mac), w, 0.0)
        for t, law in enumerate(laws_of_sum(s, pooled) if np.count_nonzero(pooled) > 1 else []):
            if law is not None:
                out[i, 0, t] = score_log_p(law, float(s.U[t] @ pooled), c.ties)[0]
    return out


FAULTS = {
    V_NOT_FINITE: "V has entries that are not finite",
    BAD_SCALE: "scale must be positive",
    BAD_FREQUENCY: "allele frequencies outside [0, 1]",
    NEGATIVE: "V is not positive semi-definite: a variance is negative",
    STILL: "all variants are monomorphic (V = 0)",
    SCORE_WITHOUT_VARIANCE: "a score is not zero although its variance is",
}


def keep_positive(eigenvalues: Floats) -> Floats:
    """Return the eigenvalues above mean(positive ones) / 1e5 (empty when none is positive)."""
    return keep_above(eigenvalues, EIGENVALUE_CUT)


def check_statistics(stats: ScoreStatistics) -> str:
    """Return why no test can use these statistics, or an empty text.

    Raises:
        StatisticsError: when the shapes do not fit each other.
    """
    _check_shapes(stats)
    m = stats.n_variants
    if m == 0:
        return "no variants"
    if not all(np.isfinite(V).all() for _, V, _ in stats.per_study):
        return FAULTS[V_NOT_FINITE]
    fault, varying = find_fault(stats.U, stats.V, stats.scale, stats.maf, MONOMORPHIC)
    if fault != SOUND:
        return FAULTS[fault]
    return check_correlations(stats.V, varying)


def _check_shapes(stats: ScoreStatistics) -> None:
    """Raise StatisticsError unless every array has the length that U says."""
    t, m = stats.U.shape
    if (
        stats.V.shape != (m, m)
        or stats.scale.shape != (t,)
        or any(a.shape != (m,) for a in (stats.maf, stats.mac, stats.rare))
    ):
        raise StatisticsError(
            f"score statistics do not fit: U {stats.U.shape}, V {stats.V.shape}, scale {stats.scale.shape}, "
            f"maf {stats.maf.shape}, mac {stats.mac.shape}, rare {stats.rare.shape}"
        )


def check_correlations(V: Floats, varying: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> str:
    """Return a text when V is not symmetric or its correlation matrix has an eigenvalue below -1e-4."""
    correlation, asymmetry = correlate(V, varying)
    if asymmetry > NOT_PSD_PRINTED:
        return "V is not symmetric"
    if is_definite(correlation, NOT_PSD_PRINTED):
        return ""
    smallest = float(np.linalg.eigvalsh(correlation)[0])
    return f"V is not positive semi-definite: its correlation matrix has the eigenvalue {smallest:.3g}"


def take_variants(stats: ScoreStatistics, chosen: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> ScoreStatistics:
    """Return the statistics of the chosen variants, a boolean (m,) mask."""
    return replace(
        stats,
        U=stats.U[:, chosen],
        V=stats.V[np.ix_(chosen, chosen)],
        maf=stats.maf[chosen],
        mac=stats.mac[chosen],
        rare=stats.rare[chosen],
        annotations={name: column[chosen] for name, column in stats.annotations.items()},
        per_study=tuple((U[:, chosen], V[np.ix_(chosen, chosen)], scale) for U, V, scale in stats.per_study),
        laws=tuple(tuple(own.take(chosen) for own in studies) for studies in stats.laws),
    )


def join_variants(stats: ScoreStatistics, C: Floats) -> ScoreStatistics:
    """Return the statistics of sums of variants, C (m, d), as far as draws of their scores need them."""
    some = np.ones(C.shape[1])
    return replace(
        stats,
        U=stats.U @ C,
        V=C.T @ stats.V @ C,
        maf=0.0 * some,
        mac=some,
        rare=some > 0.0,
        annotations={},
        per_study=(),
        laws=tuple(tuple(own.join(C) for own in studies) for studies in stats.laws),
    )
