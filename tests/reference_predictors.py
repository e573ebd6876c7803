"""Slow versions from the definition and small simulations; nothing here is shared with the fast code."""

from __future__ import annotations

import itertools

import numpy as np

from predictors.base import BlockStatistics


def correlation_by_hand(G):
    """Correlation of mean-imputed columns, pair by pair; 0 where a column does not vary."""
    m = G.shape[1]
    X = np.array(G, dtype=float)
    for j in range(m):
        called = X[~np.isnan(X[:, j]), j]
        X[np.isnan(X[:, j]), j] = called.mean() if called.size else 0.0
    R = np.eye(m)
    for i, j in itertools.permutations(range(m), 2):
        a, b = X[:, i] - X[:, i].mean(), X[:, j] - X[:, j].mean()
        d = np.sqrt((a @ a) * (b @ b))
        R[i, j] = a @ b / d if d > 1e-9 else 0.0
    return R


def best_split_by_enumeration(r2, min_size, max_size, size_penalty):
    """The cheapest cut of all, and its cost."""
    m = r2.shape[0]
    best = (np.inf, None)
    for k in range(m):
        for inner in itertools.combinations(range(1, m), k):
            cuts = [0, *inner, m]
            sizes = np.diff(cuts)
            if sizes.min() < min_size or sizes.max() > max_size:
                continue
            label = np.repeat(np.arange(sizes.size), sizes)
            cost = sum(r2[p, q] for p in range(m) for q in range(p + 1, m) if label[p] != label[q])
            cost += size_penalty * (sizes**2).sum()
            if cost < best[0] - 1e-12:
                best = (cost, cuts)
    return best


def simulate_haplotype_block(rng, n, m, decay=0.9):
    """Dosages (n, m) from two autoregressive haplotypes: neighbours correlate by about ``decay``."""
    frequency = rng.uniform(0.1, 0.5, m)
    from scipy.stats import norm

    cut = norm.ppf(frequency)
    G = np.zeros((n, m))
    for _ in range(2):
        z = np.empty((n, m))
        z[:, 0] = rng.standard_normal(n)
        for j in range(1, m):
            z[:, j] = decay * z[:, j - 1] + np.sqrt(1 - decay**2) * rng.standard_normal(n)
        G += z < cut
    return G


def standardise(G):
    return (G - G.mean(0)) / G.std(0)


def simulate_study(seed, *, n_blocks=20, m=50, p=0.05, h2=0.4, n_gwas=4000, n_reference=2000, n_test=2000, decay=0.9):
    """Independent GWAS, LD reference and test cohort; returns a dictionary."""
    rng = np.random.default_rng(seed)
    M = n_blocks * m
    causal = rng.random(M) < p
    effect = np.where(causal, rng.standard_normal(M), 0.0)
    cohorts = {}
    frequency_seed = rng.integers(2**31)
    for name, n in (("gwas", n_gwas), ("reference", n_reference), ("test", n_test)):
        # the same frequencies in all cohorts, different people
        X = np.empty((n, M))
        for b in range(n_blocks):
            X[:, b * m : (b + 1) * m] = _block_with_frequencies(rng, n, m, decay, frequency_seed + b)
        cohorts[name] = X
    Z = {name: standardise(X) for name, X in cohorts.items()}
    genetic = Z["test"] @ effect
    effect *= np.sqrt(h2) / genetic.std()
    y = {name: Z[name] @ effect + np.sqrt(1 - h2) * rng.standard_normal(len(Z[name])) for name in ("gwas", "test")}
    y = {name: (v - v.mean()) / v.std() for name, v in y.items()}
    beta_hat = Z["gwas"].T @ y["gwas"] / n_gwas
    blocks = []
    for b in range(n_blocks):
        s = slice(b * m, (b + 1) * m)
        R = (Z["reference"][:, s].T @ Z["reference"][:, s] / n_reference).astype(np.float32)
        blocks.append(BlockStatistics(beta_hat[s].copy(), np.full(m, float(n_gwas)), R, str(1 + b * 4 // n_blocks)))
    return {"blocks": blocks, "Z": Z, "y": y, "effect": effect, "beta_hat": beta_hat, "dosage": cohorts}


def _block_with_frequencies(rng, n, m, decay, frequency_seed):
    from scipy.stats import norm

    cut = norm.ppf(np.random.default_rng(frequency_seed).uniform(0.1, 0.5, m))
    G = np.zeros((n, m))
    for _ in range(2):
        e = rng.standard_normal((n, m)) * np.sqrt(1 - decay**2)
        e[:, 0] = rng.standard_normal(n)
        for j in range(1, m):
            e[:, j] += decay * e[:, j - 1]
        G += e < cut
    return G


def score(Z, weights):
    return Z @ np.concatenate(weights)


def r2(a, b):
    return float(np.corrcoef(a, b)[0, 1] ** 2)
