"""Score statistics of the golden cohorts from their files, sample by sample, and tails of chi-square mixtures.

Slow on purpose, and free of anything from the packages under test: the .bed is decoded by its definition, the null
model is one least-squares fit, missing calls are the mean (2 x frequency) unless said otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd
from scipy import stats

from tests.golden.cohorts import DATA
from tests.reference_gene_tests import liu_quantile

A1_COUNT = np.array([2.0, np.nan, 1.0, 0.0])  # of the two-bit codes 00, 01, 10, 11


@cache
def read_calls(cohort: str) -> tuple[np.ndarray, list[str]]:
    """Return ALT counts (n, m), NaN where missing, and the names chromosome:position:REF:ALT of the m variants."""
    samples = len((DATA / f"{cohort}.fam").read_text().splitlines())
    variants = [line.split() for line in (DATA / f"{cohort}.bim").read_text().splitlines()]
    packed = np.frombuffer((DATA / f"{cohort}.bed").read_bytes()[3:], np.uint8).reshape(len(variants), -1)
    codes = (packed[:, :, None] >> np.array([0, 2, 4, 6], np.uint8)) & 3
    calls = A1_COUNT[codes.reshape(len(variants), -1)[:, :samples]].T
    for j, (_, name, _, _, first, _) in enumerate(variants):
        if first != name.split(":")[3]:
            calls[:, j] = 2 - calls[:, j]
    return calls, [v[1] for v in variants]


@cache
def read_sets() -> dict[str, tuple[str, dict[str, set[str]]]]:
    """Return per gene its chromosome and, per mask, the names of its variants."""
    category = {
        (gene, name): kind
        for name, gene, kind in (line.split() for line in (DATA / "annotations.txt").read_text().splitlines())
    }
    masks = [line.split() for line in (DATA / "masks.txt").read_text().splitlines()]
    out = {}
    for gene, chromosome, _, names in (line.split() for line in (DATA / "sets.txt").read_text().splitlines()):
        kinds = {name: category.get((gene, name)) for name in names.split(",")}
        out[gene] = chromosome, {m: {v for v, k in kinds.items() if k in allowed.split(",")} for m, allowed in masks}
    return out


@dataclass(frozen=True)
class NullModel:
    """Linear null model of trait y: covariates and residual, in samples with a trait.

    Attributes:
        seen: (N,) samples that have the trait.
        X: (n, p) intercept, age, sex, pc1, pc2.
        residual: (n,) trait minus prediction, free of X.
        variance: its residual variance, residual'residual / (n - p).
        unprojected: the same of the residual as REGENIE takes it: the trait is freed of X and scaled to variance one,
            then the prediction is subtracted *as it stands*, and nothing is projected out of it.
    """

    seen: np.ndarray
    X: np.ndarray
    residual: np.ndarray
    variance: float
    unprojected: float

    def project(self, M: np.ndarray) -> np.ndarray:
        """Return M without what X explains."""
        return M - self.X @ np.linalg.solve(self.X.T @ self.X, self.X.T @ M)


def fit_null(cohort: str, chromosome: str | None = None) -> NullModel:
    """Fit y on the covariates; with a chromosome, the LOCO prediction is an offset of the scaled trait."""
    y = pd.read_csv(DATA / f"{cohort}.pheno.tsv", sep="\t")["y"].to_numpy()
    covariates = pd.read_csv(DATA / f"{cohort}.covar.tsv", sep="\t")[["age", "sex", "pc1", "pc2"]].to_numpy()
    seen = ~np.isnan(y)
    X = np.column_stack((np.ones(seen.sum()), covariates[seen]))
    bare = NullModel(seen, X, y[seen], 1.0, 1.0)
    r = bare.project(y[seen])
    df = len(r) - X.shape[1]
    scaled = r / np.sqrt(r @ r / df)
    e = scaled
    if chromosome is not None:
        loco = pd.read_csv(DATA / f"{cohort}.loco", sep=" ", index_col=0)
        e = scaled - loco.loc[int(chromosome)].to_numpy()[seen]
    residual = bare.project(e)
    return NullModel(seen, X, residual, float(residual @ residual) / df, float(e @ e) / df)


@dataclass(frozen=True)
class Scores:
    """Standardised scores of some variants: ``U = G'r / sigma`` and ``V = G'PG``, so that Var U = V.

    Attributes:
        U: (m,) with the residual variance of the null model.
        V: (m, m)
        frequency: (m,) of ALT.
        count: (m,) of ALT, over samples that are not missing.
        calls: (n, m) ALT counts, NaN where missing.
        shrink: sigma over the standard deviation that REGENIE uses; its U is ``shrink * U``.
    """

    U: np.ndarray
    V: np.ndarray
    frequency: np.ndarray
    count: np.ndarray
    calls: np.ndarray
    shrink: float


def score(cohort: str, null: NullModel, names: set[str]) -> Scores:
    """Return the scores of the named variants that the cohort has and that vary in it, in file order."""
    calls, known = read_calls(cohort)
    G = calls[null.seen][:, [j for j, name in enumerate(known) if name in names]]
    count, number = np.nansum(G, axis=0), 2 * (~np.isnan(G)).sum(axis=0)
    varies = (count > 0) & (count < number)
    G, count, frequency = G[:, varies], count[varies], (count / number)[varies]
    filled = np.where(np.isnan(G), 2 * frequency, G)
    U, V = filled.T @ null.residual / np.sqrt(null.variance), filled.T @ null.project(filled)
    return Scores(U, V, frequency, count, G, np.sqrt(null.variance / null.unprojected))


def chi2_mixture_sf(q: np.ndarray, lambdas: np.ndarray, n: int = 20_000) -> np.ndarray:
    """Return P(sum lambda_i chi2_1 > q): the midpoint rule on Gil-Pelaez' integral; to about 1e-7, not relative."""
    q, lam = np.atleast_1d(np.asarray(q, float)), np.asarray(lambdas, float)
    if len(lam) == 1:
        return stats.chi2.sf(q / lam[0], 1)
    k = np.arange(n) + 0.5
    u = k * np.pi / (lam.sum() + 60 * lam.max() + max(q.max(), 0))
    log_size, angle = np.zeros(n), np.zeros(n)
    for x in 2 * lam:
        log_size -= 0.25 * np.log1p((x * u) ** 2)
        angle += 0.5 * np.arctan(x * u)
    size = np.exp(log_size) / (np.pi * k)
    return np.array([0.5 + float(size @ np.sin(angle - u * x)) if x > 0 else 1.0 for x in q])


def mixture(A: np.ndarray, rho: float) -> np.ndarray:
    """Return the eigenvalues behind Q_rho = (1 - rho) u'u + rho (1'u)^2, u ~ N(0, A), without rounding errors."""
    if rho == 1:
        return np.array([A.sum()])
    m = len(A)
    root = np.linalg.cholesky((1 - rho) * np.eye(m) + rho)
    return cut(np.linalg.eigvalsh(root.T @ A @ root))


def cut(values: np.ndarray) -> np.ndarray:
    """Return the eigenvalues above mean(positive) / 1e5, as R SKAT keeps them."""
    return values[values > values[values > 0].mean() / 1e5]


def skat_o_published(A: np.ndarray, smallest: float, rho: np.ndarray) -> float:
    """Return p of SKAT-O after Lee, Wu & Lin 2012, given the smallest p over rho: Liu's quantiles, one quadrature in z.

    A quadrature of 16 points between any two kinks of the boundary, the tail at all points from one inversion.
    """
    q = np.array([liu_quantile(smallest, mixture(A, r)) for r in rho])
    s, total = A.sum(axis=1), A.sum()
    left = A - np.outer(s, s) / total
    rest, cross = cut(np.linalg.eigvalsh(left)), 4 * float(s @ left @ s) / total
    mean, variance = rest.sum(), 2 * (rest**2).sum() + cross
    shrink = np.sqrt((variance - cross) / variance)
    tau = rho * total + (1 - rho) * float(s @ s) / total
    end = np.sqrt(((q + (1 - rho) * mean * (1 - shrink) / shrink) / tau).min())  # the boundary crosses zero there
    lines = rho < 1

    def boundary(z: np.ndarray) -> np.ndarray:
        return (q[lines, None] - np.outer(tau[lines], z * z)) / (1 - rho[lines])[:, None]

    grid = np.linspace(0, end, 4001)
    kinks = grid[1:][np.diff(np.argmin(boundary(grid), axis=0)) != 0]
    edges = np.unique(np.concatenate((np.linspace(0, end, 7), kinks)))
    x, w = np.polynomial.legendre.leggauss(16)
    half = np.diff(edges)[:, None] / 2
    z = (edges[:-1, None] + half + half * x).ravel()
    tail = chi2_mixture_sf((boundary(z).min(axis=0) - mean) * shrink + mean, rest, 5_000)
    return float((half * w).ravel() @ (tail * 2 * stats.norm.pdf(z)) + 2 * stats.norm.sf(end))
