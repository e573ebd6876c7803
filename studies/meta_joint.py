"""The joint analysis of `studies.meta_equals_joint`: dense, from everybody's individual data, free of the package."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import IntegrationWarning
from scipy.special import expit

from tests import reference_gene_tests

Floats = NDArray[np.float64]
MAX_MAF = 0.05
TESTS = ("burden", "vt", "skat", "skat-o-published", "step-up")
WEIGHTS = ("flat", "beta_1_25")
#: Imhof's inversion is good to about 1e-9 absolutely, so tails are compared above this p only; the package's `skat-o`
#: leaves the published approximation, which the definition is, at 3e-6
REFERENCE_P = 1e-5
TRAITS = ("quantitative", "binary")


@dataclass(frozen=True)
class Settings:
    """Size of a run.

    Attributes:
        cohorts: numbers of studies that are combined; the largest is simulated, the others are its first.
        genes: genes; variants: of each gene over all studies.
        smallest, largest: people per study.
        replicates: independent sets of studies.
        definitions: genes whose SKAT-O is also integrated from its definition, 1.5 s each.
        draws: permutations of individual data against which the step-up p-value is held.
        border: replicates of each border; every replicate is ``border_genes`` genes.
        border_genes: genes per replicate of a border.
    """

    cohorts: tuple[int, ...] = (2, 5, 10, 20)
    genes: int = 30
    variants: int = 12
    smallest: int = 200
    largest: int = 600
    replicates: int = 1
    definitions: int = 3
    draws: int = 999
    border: int = 20
    border_genes: int = 40


AFFORDED = Settings()
FULL = Settings(cohorts=tuple(range(2, 21)), genes=200, replicates=10, definitions=2, draws=1999, border=400)
SUBSET = Settings(
    cohorts=(3,), genes=4, variants=8, smallest=150, largest=200, definitions=1, draws=199, border=2, border_genes=10
)


@dataclass(frozen=True)
class Study:
    """One study in memory, minor alleles counted.

    Attributes:
        G: (n, V) counts of every variant of every gene, NaN where missing; a column of NaN where the study lacks it.
        X: (n, p) intercept and covariates.
        y: (n, 2) the quantitative and the binary trait.
    """

    G: Floats
    X: Floats
    y: Floats


def block_diagonal(blocks: Sequence[Floats]) -> Floats:
    """Return the design in which every study has columns of its own."""
    out = np.zeros((sum(len(b) for b in blocks), sum(b.shape[1] for b in blocks)))
    row = column = 0
    for b in blocks:
        out[row : row + len(b), column : column + b.shape[1]] = b
        row, column = row + len(b), column + b.shape[1]
    return out


def fit_joint(y: Floats, X: Floats, variance: Floats | None) -> tuple[Floats, Floats]:
    """Return residual weights and W of one regression of everybody.

    Args:
        y: (N,) trait.
        X: (N, p) design.
        variance: (N,) residual variance of everybody for weighted least squares; None for logistic regression.

    Returns:
        (N,) r such that U = G'r, and (N,) diagonal of W such that V = G'WG - G'WX (X'WX)^-1 X'WG.
    """
    if variance is not None:
        w = 1 / variance
        b = np.linalg.lstsq(np.sqrt(w)[:, None] * X, np.sqrt(w) * y, rcond=None)[0]
        return w * (y - X @ b), w
    b = np.zeros(X.shape[1])
    for _ in range(60):
        mu = expit(X @ b)
        w = mu * (1 - mu)
        step = np.linalg.solve(X.T @ (w[:, None] * X), X.T @ (y - mu))
        b = b + step * min(1.0, 5.0 / np.abs(X @ step).max())
        if np.abs(X @ step).max() < 1e-11:
            break
    mu = expit(X @ b)
    return y - mu, mu * (1 - mu)


def own_variance(y: Sequence[Floats], X: Sequence[Floats]) -> Floats:
    """Return the residual variance r'r / (n - p) of each study's own regression, repeated over its people."""
    out = []
    for yk, Xk in zip(y, X, strict=True):
        r = yk - Xk @ np.linalg.lstsq(Xk, yk, rcond=None)[0]
        out.append(np.full(len(yk), r @ r / (len(yk) - Xk.shape[1])))
    return np.concatenate(out)


def compute_scores(G: Floats, X: Floats, r: Floats, w: Floats) -> tuple[Floats, Floats]:
    """Return U (m,) and V (m, m)."""
    WX = w[:, None] * X
    projected = G.T @ WX
    return G.T @ r, G.T @ (w[:, None] * G) - projected @ np.linalg.solve(X.T @ WX, projected.T)


def pool_genotypes(studies: Sequence[Study]) -> tuple[Floats, Floats]:
    """Return everybody's genotypes (missing calls at the study's mean, absent variants 0) and pooled frequencies.

    The frequency of a variant is AC / AN over the studies that have it, as the package's policy `joint` says.
    """
    parts, count, number = [], 0.0, 0.0
    for s in studies:
        known = ~np.isnan(s.G)
        ac, an = np.nansum(s.G, axis=0), 2.0 * known.sum(axis=0)
        count, number = count + ac, number + an
        mean = np.divide(2 * ac, an, out=np.zeros_like(ac), where=an > 0)
        parts.append(np.where(known, s.G, np.where(known.any(axis=0), mean, 0.0)))
    return np.vstack(parts), np.divide(count, number, out=np.zeros_like(count), where=number > 0)


def weights_of(name: str, maf: Floats) -> Floats:
    """Return flat weights, or the Beta(1, 25) density ``25 (1 - maf)^24``."""
    return np.ones_like(maf) if name == "flat" else 25.0 * (1 - maf) ** 24


def step_up_by_definition(U: Floats, V: Floats) -> Floats:
    """Return the step-up statistic of every row of U (R, m): add the variant that raises (b'U)^2 / b'Vb most."""
    R, m = U.shape
    chosen = np.zeros((R, m), bool)
    best = np.full(R, -1.0)
    rows = np.arange(R)
    for _ in range(m):
        total, spread = (U * chosen).sum(axis=1), np.einsum("ri,ij,rj->r", chosen, V, chosen, optimize=True)
        cross = chosen @ V
        with np.errstate(divide="ignore", invalid="ignore"):
            z2 = (total[:, None] + U) ** 2 / (spread[:, None] + 2 * cross + np.diag(V))
        z2[chosen | ~np.isfinite(z2)] = -1.0
        j = z2.argmax(axis=1)
        better = z2[rows, j] > best * (1 + 1e-12)
        if not better.any():
            break
        chosen[rows[better], j[better]] = True
        best[better] = z2[rows, j][better]
    return best


def permute_joint(
    studies: Sequence[Study], t: int, G: Floats, draws: int, rng: np.random.Generator
) -> Callable[[NDArray[np.int64]], Floats]:
    """Return a maker of null scores (draws, m) of chosen variants: residuals permuted within every study."""
    parts, row = [], 0
    for s in studies:
        y, X = s.y[:, t], s.X
        here = slice(row, row + len(y))
        row += len(y)
        if t == 0:
            r, w = fit_joint(y, X, own_variance([y], [X]))
        else:
            r, w = fit_joint(y, X, None)
        permuted = rng.permuted(np.tile(r / np.sqrt(w), (draws, 1)), axis=1) * np.sqrt(w)
        # what the permuted residuals have in common with the covariates goes out again
        WX = w[:, None] * X
        permuted -= (permuted @ X) @ np.linalg.solve(X.T @ WX, WX.T)
        parts.append((here, permuted))

    def scores(chosen: NDArray[np.int64]) -> Floats:
        return np.sum([p @ G[np.ix_(np.arange(h.start, h.stop), chosen)] for h, p in parts], axis=0)

    return scores


def test_by_definition(
    test: str, label: str, U: Floats, V: Floats, maf: Floats, with_skat_o: bool
) -> tuple[float, float]:
    """Return the statistic, and p where a plain definition gives it exactly (NaN for the tests that resample)."""
    w = weights_of(label, maf)
    if test == "burden":
        statistic, _, _, p = reference_gene_tests.burden(U, V, w)
    elif test == "skat":
        statistic, p = reference_gene_tests.skat(U, V, w)
    elif test == "skat-o-published":
        statistic = p = float("nan")
        if with_skat_o:
            with warnings.catch_warnings():  # the quadrature complains where the integrand has its kinks
                warnings.simplefilter("ignore", IntegrationWarning)
                p = reference_gene_tests.skat_o_published(U, V, w)
    elif test == "vt":
        z2 = [(b @ U) ** 2 / (b @ V @ b) for b in (np.where(maf <= c, w, 0.0) for c in np.unique(maf)) if b @ V @ b > 0]
        statistic, p = float(np.sqrt(max(z2))), float("nan")
    else:
        statistic, p = float(step_up_by_definition(U[None], V)[0]), float("nan")
    return float(statistic), float(p)
