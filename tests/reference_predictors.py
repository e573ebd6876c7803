"""Slow versions from the definition and small simulations; nothing here is shared with the fast code."""

from __future__ import annotations

import itertools

import numpy as np

from locomass_predictors.base import BlockStatistics


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


def posterior_of_one_variant(beta_hat, n, h2, p, n_variants):
    """Posterior mean under b ~ p N(0, h2/(M p)) + (1 - p) 0 by numerical integration."""
    from scipy.integrate import quad
    from scipy.stats import norm

    slab = np.sqrt(h2 / (n_variants * p))
    noise = 1 / np.sqrt(n)
    reach = abs(beta_hat) + 12 * noise

    def density(b):
        return p * norm.pdf(b, 0, slab) * norm.pdf(beta_hat, b, noise)

    points = [0.0, beta_hat]
    mass = quad(density, -reach, reach, points=points, epsabs=0, epsrel=1e-11, limit=200)[0]
    mean = quad(lambda b: b * density(b), -reach, reach, points=points, epsabs=0, epsrel=1e-11, limit=200)[0]
    return mean / (mass + (1 - p) * norm.pdf(beta_hat, 0, noise))


def gibbs_sweep_by_definition(rng, R, beta_hat, n, b, h2, p, shrink, allow_jump_sign, total):
    """One LDpred2 sweep with R b computed anew for every variant; returns effects and their number."""
    M = len(beta_hat)
    b = b.copy()
    count = 0
    for j in range(M):
        residual = beta_hat[j] - shrink * sum(float(R[j, k]) * b[k] for k in range(M) if k != j)
        c1 = h2 * n[j] / (M * p)
        c2 = 1 / (1 + 1 / c1)
        c3 = c2 * residual
        c4 = c2 / n[j]
        probability = 1 / (1 + ((1 - p) / p) * np.sqrt(1 + c1) * np.exp(-(c3**2) / (2 * c4)))
        total[j] += c3 * probability
        new = 0.0
        if rng.random() < probability:
            new = c3 + np.sqrt(c4) * rng.standard_normal()
            if not allow_jump_sign and new * b[j] < 0:
                new = 0.0
            else:
                count += 1
        b[j] = new
    return b, count


def lassosum2_by_definition(R, beta_hat, delta, lambdas, tolerance):
    """Coordinate descent with plain loops; (L, m)."""
    m = len(beta_hat)
    w = [0.0] * m
    path = []
    for lam in lambdas:
        while True:
            move = 0.0
            for j in range(m):
                u = beta_hat[j] - sum(float(R[j, k]) * w[k] for k in range(m) if k != j)
                new = np.sign(u) * max(abs(u) - lam, 0.0) / (1 + delta)
                move = max(move, abs(new - w[j]))
                w[j] = new
            if move <= tolerance:
                break
        path.append(list(w))
    return np.array(path)


def outside_fold_by_definition(Z, y, folds, k):
    """Correlations of the variants, and of each with the trait (of variance 1), in the people outside a fold."""
    rest = [i for i in range(len(y)) if folds[i] != k]
    R = np.array([[Z[rest, i] @ Z[rest, j] for j in range(Z.shape[1])] for i in range(Z.shape[1])])
    length = np.sqrt(np.diag(R))
    return R / np.outer(length, length), np.array([Z[rest, j] @ y[rest] for j in range(Z.shape[1])]) / length


def clump_by_definition(beta_hat, n, R, position, r2, window):
    """Which variants are kept, one at a time: the smallest p-value of those left keeps itself, removes its clump."""
    from scipy.stats import norm

    z = [np.sqrt(n[j] * beta_hat[j] ** 2 / (1 - beta_hat[j] ** 2)) for j in range(len(n))]
    left, kept = set(range(len(n))), set()
    while left:
        best = min(left, key=lambda j: (norm.logsf(z[j]), j))
        kept.add(best)
        clump = {j for j in left if abs(position[j] - position[best]) <= window and float(R[best, j]) ** 2 > r2}
        left -= clump | {best}
    return np.array([j in kept for j in range(len(n))])


def stacked_ridge_by_definition(dosages, chromosomes, y, X, h_grid, folds, *, nested=False):
    """Two-level ridge with every fold refitted from its own people: (C, n) parts, chosen h. Complete data only."""
    n = len(y)
    hat = X @ np.linalg.pinv(X)
    residual = y - hat @ y
    M = sum(G.shape[1] for G in dosages)
    Zs = [G - hat @ G for G in dosages]
    Zs = [Z / Z.std(0) for Z in Zs]
    label = np.repeat(chromosomes, len(h_grid))

    def level_0(left_out):
        """Predictions of everyone, without their own fold and without fold ``left_out``."""
        columns = []
        for Z in Zs:
            for h in h_grid:
                out = np.empty(n)
                for k in np.unique(folds):
                    train = (folds != k) & (folds != left_out)
                    A = Z[train].T @ Z[train] + M * (1 - h) / h * np.eye(Z.shape[1])
                    out[folds == k] = Z[folds == k] @ np.linalg.inv(A) @ Z[train].T @ residual[train]
                columns.append(out / out.std())
        return np.array(columns).T

    Ws = {k: level_0(k if nested else None) for k in np.unique(folds)}
    best = None
    for h in h_grid:
        contribution = np.empty((n, label.size))
        for k, W in Ws.items():
            train = folds != k
            A = W[train].T @ W[train] + W.shape[1] * (1 - h) / h * np.eye(W.shape[1])
            contribution[folds == k] = W[folds == k] * (np.linalg.inv(A) @ W[train].T @ residual[train])
        loss = ((residual - contribution.sum(1)) ** 2).mean()
        if best is None or loss < best[0]:
            best = (loss, h, np.array([contribution[:, label == c].sum(1) for c in dict.fromkeys(chromosomes)]))
    return best[2], best[1]


def minimise_logistic(X, y, offset, penalty):
    """Penalised logistic loss by a general-purpose optimiser."""
    from scipy.optimize import minimize

    def loss(b):
        eta = offset + X @ b
        return (np.logaddexp(0, eta) - y * eta).sum() + penalty * b @ b / 2

    def gradient(b):
        return X.T @ (1 / (1 + np.exp(-offset - X @ b)) - y) + penalty * b

    return minimize(loss, np.zeros(X.shape[1]), jac=gradient, method="BFGS", options={"gtol": 1e-9}).x
