"""The world of `studies.mixed_models`: genotypes in LD blocks, traits, predictors, tests of single columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.stats import norm

from locomass.null_models.design import extra_design, orthonormal_design
from locomass.null_models.linear import fit_linear
from locomass_predictors.base import BlockStatistics
from locomass_predictors.block_ridge import GenotypeBlock, fit_block_ridge
from locomass_predictors.ld import correlation_from_dosage
from locomass_predictors.ridge import fit_ridge

Floats = NDArray[np.float64]
CHROMOSOMES = 10
BLOCK = 50  # common variants of an LD block
RHO = 0.7  # of neighbours' latent normals
TAGGED = 25  # this variant of a chromosome's first block is tested and no predictor sees it
N_NULL = 10  # variants without effect per chromosome


@dataclass(frozen=True)
class Settings:
    """Size of a run.

    Attributes:
        cohorts: numbers of cohorts; cohort_size: people in each.
        blocks: LD blocks per chromosome in part 1, sequencing_blocks in part 2.
        reference: people of the LD reference.
        h2: variance from common variants; ncp: of each causal variant in the linear model.
        traits, replicates: of part 1, per number of cohorts.
        sequenced, sequencing_traits, sequencing_replicates: of part 2; the GWAS has ten times as many people.
        permutations: of step-up.
        prevalences: of part 3; population: people drawn; sampled: cases, and as many controls; case_ncp: of each causal
            variant without prediction.
        ascertained_traits, ascertained_replicates: of part 3.
    """

    cohorts: tuple[int, ...] = (10, 20, 40)
    cohort_size: int = 400
    blocks: int = 3
    sequencing_blocks: int = 6
    reference: int = 4000
    h2: float = 0.5
    ncp: float = 15.0
    traits: int = 60
    replicates: int = 3
    sequenced: int = 2000
    sequencing_traits: int = 120
    sequencing_replicates: int = 2
    permutations: int = 20_000
    prevalences: tuple[float, ...] = (0.5, 0.1, 0.01, 0.004)
    population: int = 250_000
    sampled: int = 1000
    case_ncp: float = 15.0
    ascertained_traits: int = 40
    ascertained_replicates: int = 1


AFFORDED = Settings()
FULL = Settings(
    cohorts=(10, 20, 30, 40),
    blocks=6,
    traits=100,
    replicates=20,
    sequencing_traits=200,
    sequencing_replicates=25,
    permutations=100_000,
    ascertained_replicates=40,
)
SUBSET = Settings(
    cohorts=(10,),
    cohort_size=120,
    blocks=1,
    sequencing_blocks=1,
    reference=1500,
    ncp=30.0,
    traits=10,
    sequenced=600,
    sequencing_traits=10,
    permutations=2000,
    prevalences=(0.5, 0.01),
    population=20_000,
    sampled=150,
    case_ncp=5.0,
    ascertained_traits=3,
)


# --- genotypes and traits ---------------------------------------------------------------------------------------------


def draw_frequencies(rng: np.random.Generator, blocks: int) -> Floats:
    """Return (CHROMOSOMES, blocks, BLOCK) allele frequencies from 0.05 to 0.5."""
    return rng.uniform(0.05, 0.5, (CHROMOSOMES, blocks, BLOCK))


def draw_common(rng: np.random.Generator, n: int, frequency: Floats) -> NDArray[np.float32]:
    """Return (n, V) counts: two haplotypes per person, each a row of thresholded AR(1) normals per block."""
    blocks, m = frequency.shape[0] * frequency.shape[1], BLOCK
    cut = norm.ppf(frequency).astype(np.float32).reshape(blocks, m)
    out = np.zeros((n, blocks, m), np.float32)
    step = np.float32(np.sqrt(1 - RHO**2))
    for _ in range(2):
        x = rng.standard_normal((n, blocks), np.float32)
        for j in range(m):
            if j:
                x = np.float32(RHO) * x + step * rng.standard_normal((n, blocks), np.float32)
            out[:, :, j] += x < cut[:, j]
    return out.reshape(n, blocks * m)


def standardise(G: NDArray[np.float32], frequency: Floats) -> NDArray[np.float32]:
    """Return counts minus 2f, over sqrt(2f(1 - f)), in place."""
    f = frequency.ravel().astype(np.float32)
    G -= 2 * f
    G /= np.sqrt(2 * f * (1 - f))
    return G


def seen_by_predictors(blocks: int) -> NDArray[np.bool_]:
    """Return which common variants the predictors see: all but one per chromosome, which is tested."""
    seen = np.ones((CHROMOSOMES, blocks, BLOCK), np.bool_)
    seen[:, 0, TAGGED] = False
    return seen.ravel()


def draw_effects(rng: np.random.Generator, seen: NDArray[np.bool_], h2: float, traits: int) -> NDArray[np.float32]:
    """Return (V, T) effects per standard deviation, a tenth of the variants, h2 together (LD adds up to nothing)."""
    effect = rng.standard_normal((len(seen), traits)) * (rng.random((len(seen), traits)) < 0.1)
    effect[~seen] = 0
    return (effect * np.sqrt(h2 / (effect**2).sum(axis=0))).astype(np.float32)


def effective_number(G: NDArray[np.float32], seen: NDArray[np.bool_]) -> float:
    """Return ``M_e = M^2 / sum r2`` over pairs of a block, r2 less its expectation 1/n from sampling alone."""
    total, count = 0.0, int(seen.sum())
    for columns in block_columns(seen):
        R = correlation_from_dosage(G[:, columns]).astype(np.float64)
        r2 = R**2 - (1 - np.eye(len(R))) / len(G)
        total += float(r2.sum())
    return count**2 / total


def block_columns(seen: NDArray[np.bool_]) -> list[NDArray[np.int64]]:
    """Return the columns of every LD block that the predictors see."""
    number = np.arange(len(seen)) // BLOCK
    return [np.flatnonzero(seen & (number == b)) for b in range(number[-1] + 1)]


def chromosome_columns(seen: NDArray[np.bool_]) -> list[NDArray[np.int64]]:
    """Return the columns of every chromosome that the predictors see."""
    number = np.arange(len(seen)) * CHROMOSOMES // len(seen)
    return [np.flatnonzero(seen & (number == c)) for c in range(CHROMOSOMES)]


# --- predictors: scores (CHROMOSOMES, n, T) ---------------------------------------------------------------------------


def predict_block_ridge(G: NDArray[np.float32], y: Floats, seen: NDArray[np.bool_], **options: Any) -> Floats:
    """Return the package's out-of-fold score of every chromosome, trained on the people it is for."""
    blocks = [
        GenotypeBlock(str(c), len(columns), lambda columns=columns: G[:, columns].astype(np.float64))
        for c, columns in enumerate(chromosome_columns(seen))
    ]
    fits = fit_block_ridge(blocks, y, np.ones((len(y), 1)), nested=False, **options)
    return np.stack([fit.parts for fit in fits], axis=2)


def fit_summary(
    beta: Floats, n: int, R: Sequence[NDArray[np.float32]], seen: NDArray[np.bool_], h2: float
) -> NDArray[np.float32]:
    """Return (V, T) weights of the package's ridge from summary statistics; 0 where the predictors do not look.

    Args:
        beta: (V, T) standardised marginal effects of n people.
        R: correlation of every LD block in the reference.
    """
    weights = np.zeros(beta.shape, np.float32)
    columns = block_columns(seen)
    for t in range(beta.shape[1]):
        blocks = [
            BlockStatistics(np.ascontiguousarray(beta[c, t]), np.full(len(c), float(n)), r)
            for c, r in zip(columns, R, strict=True)
        ]
        for c, w in zip(columns, fit_ridge(blocks, h2=h2).weights, strict=True):
            weights[c, t] = w
    return weights


def score(G: NDArray[np.float32], weights: NDArray[np.float32], seen: NDArray[np.bool_]) -> Floats:
    """Return the score of every chromosome."""
    return np.stack([(G[:, c] @ weights[c]).astype(np.float64) for c in chromosome_columns(seen)])


def predict_exact(G: NDArray[np.float32], y: Floats, seen: NDArray[np.bool_], h2: float) -> Floats:
    """Return LOCO predictions (CHROMOSOMES, n, T) of the mixed model ``y = Zu + e``, u ~ N(0, h2/M), e ~ N(0, 1 - h2).

    ``Z inv(Z'Z + l) Z'y`` without the chromosome, l = M (1 - h2)/h2; from the n x n kernel where n < M. Its residual is
    proportional to ``inv(Var y) y``, so a test of it is the mixed model's test. Written from the equations.
    """
    parts, out = chromosome_columns(seen), []
    M = sum(map(len, parts))
    centred = y - y.mean(axis=0)
    dual = len(y) < M
    whole = G[:, seen] if not dual else None
    gram = (whole.T @ whole).astype(np.float64) if whole is not None else None
    kernels = [(G[:, c] @ G[:, c].T).astype(np.float64) for c in parts] if dual else []
    position = np.cumsum(seen) - 1
    for c in range(CHROMOSOMES):
        left = M - len(parts[c])
        share = h2 * left / M
        penalty = left * (1 - share) / share
        if dual:
            K = np.sum([k for d, k in enumerate(kernels) if d != c], axis=0)
            fitted = K @ cho_solve(cho_factor(K + penalty * np.eye(len(K)), overwrite_a=True), centred)
        else:
            rest = position[np.concatenate([x for d, x in enumerate(parts) if d != c])]
            Z, A = whole[:, rest], gram[np.ix_(rest, rest)] + penalty * np.eye(left)
            b = cho_solve(cho_factor(A, overwrite_a=True), (Z.T @ centred.astype(np.float32)).astype(np.float64))
            fitted = (Z @ b.astype(np.float32)).astype(np.float64)
        out.append(fitted)
    return np.stack(out)


def leave_out(parts: Floats) -> Floats:
    """Return the LOCO predictions: the total less the chromosome's own part."""
    return parts.sum(axis=0) - parts


# --- tests of single columns ------------------------------------------------------------------------------------------


def score_columns(
    y: Floats, x: Floats, where: NDArray[np.int64], loco: Floats | None, role: str, cohorts: Sequence[slice]
) -> Floats:
    """Return (T, q) chi2 of columns x, from null models of the package in every cohort; U and V are added up.

    Args:
        y: (n, T) traits; x: (n, q) tested columns; where: (q,) chromosome of each.
        loco: (CHROMOSOMES, n, T) predictions without that chromosome, or None.
        role: ``covariate`` or ``offset``.
        cohorts: rows of every cohort.
    """
    U, V = np.zeros((y.shape[1], x.shape[1])), np.zeros((y.shape[1], x.shape[1]))
    for rows in cohorts:
        n = rows.stop - rows.start
        Z = orthonormal_design(np.ones((n, 1)), np.ones(n), ["intercept"])
        nothing, zero = np.empty((n, 0)), np.zeros(n)
        for c in range(CHROMOSOMES):
            at = np.flatnonzero(where == c)
            if not len(at):
                continue
            own = x[rows][:, at]
            squares = (own**2).sum(axis=0) - ((Z.T @ own) ** 2).sum(axis=0)
            for t in range(y.shape[1]):
                f = None if loco is None else loco[c, rows, t]
                F = f[:, None] if f is not None and role == "covariate" else nothing
                model = fit_linear(y[rows, t], Z, F, f if f is not None and role == "offset" else zero)
                U[t, at] += own.T @ model.residual / model.sigma2
                added = ((extra_design(F, Z).T @ own) ** 2).sum(axis=0) if F.shape[1] else 0.0
                V[t, at] += (squares - added) / model.sigma2
    return U**2 / V


def make_traits(rng: np.random.Generator, genetic: Floats, causal: Floats, b2: float, h2: float) -> Floats:
    """Return (n, T) traits of variance one: polygenic part, tested variants of variance b2 each, noise."""
    signal = genetic + np.sqrt(b2) * causal.sum(axis=1)[:, None]
    return signal + np.sqrt(1 - h2 - causal.shape[1] * b2) * rng.standard_normal(genetic.shape)


def marginal_effects(
    rng: np.random.Generator,
    n: int,
    frequency: Floats,
    effects: NDArray[np.float32],
    tagged: NDArray[np.int64],
    b2: float,
    s: Settings,
) -> Floats:
    """Return (V, T) standardised marginal effects of n other people, a slab of people at a time."""
    total = np.zeros(effects.shape)
    for start in range(0, n, 4000):
        G = standardise(draw_common(rng, min(4000, n - start), frequency), frequency)
        free = rng.standard_normal((len(G), CHROMOSOMES))  # the causal variants that nothing tags
        y = make_traits(rng, G @ effects, np.hstack([free, G[:, tagged]]), b2, s.h2)
        total += G.T @ (y - y.mean(axis=0)).astype(np.float32)
    return total / n
