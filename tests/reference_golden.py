"""Score statistics of the golden cohorts from their files, sample by sample, and tails of chi-square mixtures.

Slow on purpose, and free of anything from the packages under test: the .bed is decoded by its definition, the null
model is one dense fit, missing calls are the mean (2 x frequency) unless said otherwise.
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
    """Null model of a trait: covariates and residual, in samples with a trait.

    Attributes:
        seen: (N,) samples that have the trait.
        X: (n, p) intercept, age, sex, pc1, pc2; the LOCO prediction where it is a covariate.
        residual: (n,) trait minus fitted mean.
        weights: (n,) 1 (linear) or mu (1 - mu) (logistic).
        variance: residual variance, residual'residual / (n - p) (linear) or 1 (logistic).
        unprojected: the same of the residual as REGENIE takes it: the trait is freed of X and scaled to variance one,
            then the prediction is subtracted *as it stands*, and nothing is projected out of it.
        scale: units of the trait per unit of the residual.
    """

    seen: np.ndarray
    X: np.ndarray
    residual: np.ndarray
    weights: np.ndarray
    variance: float = 1.0
    unprojected: float = 1.0
    scale: float = 1.0

    def project(self, M: np.ndarray) -> np.ndarray:
        """Return W (M - X (X'WX)^-1 X'W M)."""
        WX = (self.weights * self.X.T).T
        return (self.weights * (M - self.X @ np.linalg.solve(self.X.T @ WX, WX.T @ M)).T).T


def read_design(cohort: str, trait: str, loco: str | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (seen, X, y); with a chromosome, its LOCO prediction is the last column of X."""
    y = pd.read_csv(DATA / f"{cohort}.pheno.tsv", sep="\t")[trait].to_numpy(float)
    covariates = pd.read_csv(DATA / f"{cohort}.covar.tsv", sep="\t")[["age", "sex", "pc1", "pc2"]].to_numpy()
    seen = ~np.isnan(y)
    columns = [np.ones(seen.sum()), covariates[seen]] + ([read_loco(cohort, loco)[seen]] if loco else [])
    return seen, np.column_stack(columns), y[seen]


def read_loco(cohort: str, chromosome: str) -> np.ndarray:
    """Return the prediction without a chromosome, (N,)."""
    return pd.read_csv(DATA / f"{cohort}.loco", sep=" ", index_col=0).loc[int(chromosome)].to_numpy()


def fit_linear(cohort: str, covariate: str | None = None, offset: str | None = None) -> NullModel:
    """Fit y. A chromosome's LOCO prediction is a covariate, or an offset of the trait scaled to variance one."""
    seen, X, y = read_design(cohort, "y", covariate)
    bare = NullModel(seen, X, y, np.ones(len(y)))
    r = bare.project(y)
    df = len(y) - X.shape[1]
    scale = float(np.sqrt(r @ r / df))
    e = r / scale - (read_loco(cohort, offset)[seen] if offset else 0.0)
    residual = bare.project(e)
    return NullModel(seen, X, residual, bare.weights, float(residual @ residual) / df, float(e @ e) / df, scale)


def fit_logistic(cohort: str) -> NullModel:
    """Fit cc by Newton's method."""
    seen, X, y = read_design(cohort, "cc")
    y, b = y - y.min(), np.zeros(X.shape[1])
    for _ in range(30):
        mu = 1 / (1 + np.exp(-X @ b))
        b += np.linalg.solve((X.T * (mu * (1 - mu))) @ X, X.T @ (y - mu))
    mu = 1 / (1 + np.exp(-X @ b))
    return NullModel(seen, X, y - mu, mu * (1 - mu))


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
        names: of the m variants.
    """

    U: np.ndarray
    V: np.ndarray
    frequency: np.ndarray
    count: np.ndarray
    calls: np.ndarray
    shrink: float
    names: list[str]


def score(cohort: str, null: NullModel, names: set[str], still: bool = False) -> Scores:
    """Return the scores of the named variants in file order: those that vary, or also those that stand still."""
    calls, known = read_calls(cohort)
    chosen = [j for j, name in enumerate(known) if name in names]
    G = calls[null.seen][:, chosen]
    count, number = np.nansum(G, axis=0), 2 * (~np.isnan(G)).sum(axis=0)
    varies = still | (count > 0) & (count < number)
    G, count, frequency = G[:, varies], count[varies], (count / number)[varies]
    filled = np.where(np.isnan(G), 2 * frequency, G)
    U, V = filled.T @ null.residual / np.sqrt(null.variance), filled.T @ null.project(filled)
    kept = [known[j] for j, varying in zip(chosen, varies, strict=True) if varying]
    return Scores(U, V, frequency, count, G, np.sqrt(null.variance / null.unprojected), kept)


def null_of(gene: str, trait: str, loco: str) -> NullModel:
    """Return the null model of cohort A behind a row of R SKAT, whose LOCO prediction is a covariate."""
    if trait == "cc":
        return fit_logistic("cohort_a")
    return fit_linear("cohort_a", covariate=read_sets()[gene][0] if loco == "loco" else None)


def weigh_row(row) -> tuple[np.ndarray, np.ndarray]:
    """Return (u, A) of a row with gene, trait, loco, mask, max_maf and weights: minor alleles counted, weighted."""
    s = score("cohort_a", null_of(row.gene, row.trait, row.loco), read_sets()[row.gene][1][row.mask])
    minor = np.minimum(s.frequency, 1 - s.frequency)
    j = minor <= row.max_maf
    w = np.where(s.frequency[j] > 0.5, -1.0, 1.0) * (25 * (1 - minor[j]) ** 24 if row.weights == "beta_1_25" else 1.0)
    return w * s.U[j], w[:, None] * s.V[np.ix_(j, j)] * w


def invert(lambdas: np.ndarray, top: float, mu: np.ndarray | None = None, n: int = 20_000):
    """Return the function (q, x) -> P(sum lambda_i (g_i + sqrt(x mu_i / lambda_i))^2 > q), q <= ``top``.

    The midpoint rule on Gil-Pelaez' integral; to about 1e-9, not relative. The second half of the points fades out: one
    large lambda makes the integrand decay slowly, as u^(-3/2). Points where it is below 1e-15 are left out.
    """
    lam, shift = np.asarray(lambdas, float), np.zeros(len(lambdas)) if mu is None else mu
    k = np.arange(n) + 0.5
    u = k * np.pi / (lam.sum() + 60 * lam.max() + max(top, 0))
    gone = np.flatnonzero(np.log1p(4 * np.outer(u[::50], lam) ** 2).sum(axis=1) > 140)
    fade = 0.5 + 0.5 * np.cos(np.pi * np.maximum(2 * k / n - 1, 0))
    if len(gone):
        n = 50 * int(gone[0])
        k, u, fade = k[:n], u[:n], fade[:n]
    log_size, angle, decay, turn = np.zeros(n), np.zeros(n), np.zeros(n), np.zeros(n)
    for a, b in zip(2 * lam, shift, strict=True):
        log_size -= 0.25 * np.log1p((a * u) ** 2)
        angle += 0.5 * np.arctan(a * u)
        decay += a * b * u**2 / (1 + (a * u) ** 2)
        turn += b * u / (1 + (a * u) ** 2)
    size = fade * np.exp(log_size) / (np.pi * k)

    def sf(q: float, x: float = 0.0) -> float:
        if q <= 0:
            return 1.0
        if x == 0:
            return 0.5 + float(size @ np.sin(angle - u * q))
        return 0.5 + float((size * np.exp(-x * decay)) @ np.sin(angle + x * turn - u * q))

    return sf


def chi2_mixture_sf(q: np.ndarray, lambdas: np.ndarray, n: int = 20_000) -> np.ndarray:
    """Return P(sum lambda_i chi2_1 > q) for every q."""
    q, lam = np.atleast_1d(np.asarray(q, float)), np.asarray(lambdas, float)
    if len(lam) == 1:
        return stats.chi2.sf(q / lam[0], 1)
    sf = invert(lam, q.max(), n=n)
    return np.array([sf(x) for x in q])


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
