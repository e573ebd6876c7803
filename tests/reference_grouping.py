"""Searches over groupings, from the definition: dense genotypes, loops over samples, sets rebuilt from scratch."""

from __future__ import annotations

import itertools

import numpy as np

SAME = 1e-9  # statistics that agree to within this are equal, and of equal ones the first is taken


def weights(G, kind, case=None):
    """w: ones, or 1/sqrt(q(1-q)), q = (count + 1)/(2n + 2) in controls (binary) or everyone (quantitative)."""
    if kind == "constant":
        return np.ones(G.shape[1])
    people = G if case is None else G[~case]
    q = np.array([(column.sum() + 1) / (2 * people.shape[0] + 2) for column in people.T])
    return 1 / np.sqrt(q * (1 - q))


def signs(G, e, kind):
    """s: ones, or the sign of the covariance of residual and variant."""
    if kind == "fixed":
        return np.ones(G.shape[1])
    products = np.array([(e - e.mean()) * (column - column.mean()) for column in G.T])
    return np.where(products.sum(axis=1) < -SAME * np.abs(products).sum(axis=1), -1.0, 1.0)


def z2_empirical(G, e, b):
    """(sum T_i)^2 / sum T_i^2, T_i = (e_i - ebar) sum_j b_j (g_ij - gbar_j)."""
    T = np.zeros(len(e))
    for i in range(len(e)):
        T[i] = (e[i] - e.mean()) * sum(b[j] * (G[i, j] - G[:, j].mean()) for j in np.flatnonzero(b))
    return T.sum() ** 2 / (T**2).sum() if (T**2).sum() > 0 else -1.0


def z2_empirical_quick(Gc, e, b):
    """The same with the loop over samples left to numpy; Gc is centred."""
    T = (e - e.mean()) * (Gc @ b)
    return T.sum() ** 2 / (T**2).sum() if (T**2).sum() > 0 else -1.0


def z2_model(U, V, b):
    """(b'U)^2 / (b'Vb)."""
    variance = b @ V @ b
    return (b @ U) ** 2 / variance if variance > 0 else -1.0


def permutation_variance(G, e):
    """Variance of G'Pe over all permutations P: sum (e - ebar)^2 / (n - 1) times the centred cross-products of G."""
    Gc = G - G.mean(axis=0)
    return ((e - e.mean()) ** 2).sum() / (len(e) - 1) * Gc.T @ Gc


def best_set(z2, b, sets):
    """The largest z2 over listed sets and the first set that has it."""
    best, winner = -1.0, None
    for members in sets:
        value = z2(np.where(members, b, 0.0))
        if value > best * (1 + SAME):
            best, winner = value, members
    return best, winner


def step_up(z2, b):
    """Best single variant; then whichever raises z2 most; until none does."""
    m = len(b)
    inside = np.zeros(m, dtype=bool)
    best = -1.0
    while True:
        values = np.full(m, -1.0)
        for j in np.flatnonzero(~inside):
            trial = inside.copy()
            trial[j] = True
            values[j] = z2(np.where(trial, b, 0.0))
        j = next(j for j in range(m) if values[j] >= values.max() - SAME * abs(values.max()) - 1e-18)
        if values[j] < 0 or values[j] <= best * (1 + SAME):
            return best, inside
        best = values[j]
        inside[j] = True


def search(G, e, sets, weighting, sign, variance, case=None, V=None):
    """Best of the weightings; ``sets`` None is the step-up search. Returns z2 and the members."""
    kinds = ("constant", "inverse-sd") if weighting == "both" else (weighting,)
    Gc = G - G.mean(axis=0)
    U = Gc.T @ e
    V = permutation_variance(G, e) if V is None else V
    best, winner = -1.0, np.zeros(G.shape[1], dtype=bool)
    for kind in kinds:
        b = weights(G, kind, case) * signs(G, e, sign)

        def z2(x):
            return z2_model(U, V, x) if variance == "model" else z2_empirical_quick(Gc, e, x)

        value, members = step_up(z2, b) if sets is None else best_set(z2, b, sets)
        if value > best * (1 + SAME):
            best, winner = value, members
    return best, winner


def all_subsets(m):
    """Every non-empty subset as a boolean row."""
    return [np.array(bits, dtype=bool) for bits in itertools.product((0, 1), repeat=m) if any(bits)]


def threshold_sets(maf, groups=None):
    """Members of every functional grouping at or below every frequency that occurs."""
    groups = [np.ones(len(maf), dtype=bool)] if groups is None else groups
    sets = [group & (maf <= cut + 1e-12) for group in groups for cut in np.unique(maf)]
    return [members for members in sets if members.any()]


def permuted(e, rng, strata=None):
    """Residuals permuted, within strata when given."""
    if strata is None:
        return rng.permutation(e)
    out = e.copy()
    for stratum in np.unique(strata):
        where = np.flatnonzero(strata == stratum)
        out[where] = e[rng.permutation(where)]
    return out


def permutation_p(statistic, e, rng, n_permutations, strata=None):
    """(1 + k) / (1 + P), the whole of ``statistic`` repeated on each permutation."""
    observed = statistic(e)
    k = sum(statistic(permuted(e, rng, strata)) >= observed * (1 - 1e-9) for _ in range(n_permutations))
    return (1 + k) / (1 + n_permutations)


def conditional_bernoulli(mu, k):
    """Every set of k cases and its probability given their number: the product of the odds of its members."""
    sets = list(itertools.combinations(range(len(mu)), k))
    odds = np.array([np.prod([mu[i] / (1 - mu[i]) for i in members]) for members in sets])
    return sets, odds / odds.sum()


def conditional_p(statistic, mu, case, strata=None):
    """P(statistic(y*) >= statistic(y)) over all y* with as many cases in every stratum, weighed by their odds."""
    strata = np.zeros(len(mu), int) if strata is None else strata
    parts = []
    for s in np.unique(strata):
        where = np.flatnonzero(strata == s)
        sets, probability = conditional_bernoulli(mu[where], int(case[where].sum()))
        parts.append([(where[list(members)], p) for members, p in zip(sets, probability, strict=True)])
    observed, total = statistic(case.astype(float)), 0.0
    for chosen in itertools.product(*parts):
        y = np.zeros(len(mu))
        for members, _ in chosen:
            y[members] = 1.0
        if statistic(y) >= observed * (1 - SAME):
            total += np.prod([p for _, p in chosen])
    return total
