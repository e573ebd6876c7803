"""What the tests of one gene share - weights, weighted scores, eigenvalues, other tests' rows - each computed once."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TypeVar, cast

import numpy as np

from pipeline.errors import StatisticsError
from pipeline.gene_tests.base import Floats, ScoreStatistics
from pipeline.gene_tests.step_up import DEFAULT, StepUpParameters
from pipeline.gene_tests.weights import compute_weights
from pipeline.kernels.common_tests import compute_common_tests
from pipeline.kernels.gene_sums import correlate, keep_above
from pipeline.kernels.selection import (
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

T = TypeVar("T")

# particles of a row; what illustrates a row takes fewer
PARTICLES, FEW_PARTICLES = 4_000, 1_000
# a variant whose V_jj is below this part of the largest does not vary: a singleton among a million samples is at 1e-6
MONOMORPHIC = 1e-12
# V of other tools comes in float32 or six digits: correlations may be that far from positive semi-definite
NOT_PSD = 1e-4
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
        step_up: how the searches run.
        replicates: (T, P, m) null scores that the studies shared, in place of normal draws; None where they did not.
        ultra_rare: the SKAT family sees variants of at most this many alleles as one (0: every variant by itself).
        particles: of the splitting behind small p-values of few cases (see ``null_draws``).
        shared: which of burden, skat and acat-v the tests to come will ask for.
    """

    stats: ScoreStatistics
    schemes: tuple[str, ...]
    collapse_mac: float = 10.0
    step_up: StepUpParameters = DEFAULT
    replicates: Floats | None = None
    ultra_rare: float = 0.0
    particles: int = PARTICLES
    shared: frozenset[str] = frozenset({"burden", "skat", "acat-v"})
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
    wanted = tuple(name in c.shared for name in ("burden", "skat", "acat-v"))
    limits = (MONOMORPHIC, CANCELLED, EIGENVALUE_CUT)
    values, eigenvalues, counts = compute_common_tests(
        s.U, s.V, s.scale, W, s.maf, s.mac, c.collapse_mac, limits, wanted
    )
    return [
        CommonRows(rows, varies, kept[:k], n)
        for rows, kept, (varies, k, n) in zip(values, eigenvalues, counts.tolist(), strict=True)
    ]


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
    if asymmetry > NOT_PSD:
        return "V is not symmetric"
    if is_definite(correlation, NOT_PSD):
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
        carriers=tuple(replace(own, combine=own.combine[:, chosen]) for own in stats.carriers),
    )
