"""Gene tests written out from their definitions: loops, dense algebra, scipy quadrature, brute-force simulation.

Slow on purpose, and free of anything from the packages under test.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import integrate, optimize, special, stats


def imhof_sf(q, lambdas):
    """P(sum lambda_i chi2_1 > q) by Imhof's 1961 inversion; absolute accuracy about 1e-9."""
    lam = np.asarray(lambdas, float)

    def f(u):
        theta = 0.5 * np.arctan(lam * u).sum() - 0.5 * q * u
        return np.sin(theta) / (u * np.prod((1 + lam**2 * u**2) ** 0.25))

    # the half periods of sin(q u / 2) alternate: average neighbouring partial sums until one is left (Euler)
    half = 2 * math.pi / q
    parts = [integrate.quad(f, k * half, (k + 1) * half, epsabs=1e-13, epsrel=1e-12, limit=200)[0] for k in range(40)]
    sums = np.cumsum(parts)[15:]
    while len(sums) > 1:
        sums = 0.5 * (sums[1:] + sums[:-1])
    return 0.5 + sums[0] / math.pi


def paired_logsf(q, lambdas):
    """log P(sum lambda_i chi2_2 > q), all lambda_i different: a sum of exponentials, exact in the far tail."""
    lam = np.asarray(lambdas, float)
    terms = [
        math.log(abs(c)) - q / (2 * x)
        for i, x in enumerate(lam)
        for c in [np.prod([x / (x - y) for j, y in enumerate(lam) if j != i])]
    ]
    signs = [np.sign(np.prod([x / (x - y) for j, y in enumerate(lam) if j != i])) for i, x in enumerate(lam)]
    return float(special.logsumexp(terms, b=signs))


def noncentral_one_logsf(q, shift):
    """log P((g + sqrt(shift))^2 > q) for one standard normal g."""
    z, a = math.sqrt(q), math.sqrt(shift)
    return float(np.logaddexp(special.log_ndtr(a - z), special.log_ndtr(-z - a)))


def cauchy(p, weights):
    """The Cauchy combination as printed, p no larger than 0.999."""
    p, w = np.minimum(np.asarray(p, float), 0.999), np.asarray(weights, float)
    t = sum(wi * math.tan((0.5 - pi) * math.pi) for wi, pi in zip(w, p, strict=True)) / w.sum()
    return 0.5 - math.atan(t) / math.pi


def half_cauchy(p):
    """Tail of the mean of cot(pi p / 2) among independent half-Cauchys, by Gil-Pelaez' inversion of E exp(iuX).

    When all are equal they are one.
    """
    if np.ptp(p) < 1e-12:
        return float(p[0])
    d, t = len(p), float(np.mean([1 / math.tan(math.pi * x / 2) for x in p]))

    if t > 30:  # the same, the path turned onto the cut of E exp(-sX): no cancellation

        def along_cut(y):
            si, ci = special.sici(y)
            value = 2 * np.exp(1j * y) - 2 / np.pi * (ci * np.sin(y) + (np.pi / 2 - si) * np.cos(y))
            return np.exp(-d * t * y) * (value**d).imag / y

        edges = np.concatenate([[0.0], np.geomspace(1e-6, 40, 40)]) / (d * t)
        parts = [
            integrate.quad(along_cut, a, b, epsabs=0, epsrel=1e-10)[0] for a, b in zip(edges, edges[1:], strict=False)
        ]
        return sum(parts) / np.pi
    # panels of half a wave, to where the product of d transforms, each below 2 / (pi x), is 1e-8
    end = d * max(40.0, (1e8) ** (1 / (d + 1)))
    step = min(0.5, math.pi / t)
    edges = np.concatenate([np.geomspace(1e-12, step, 80), np.arange(step, end, step)[1:]])
    nodes, weights = np.polynomial.legendre.leggauss(10)
    half, middle = np.diff(edges) / 2, (edges[1:] + edges[:-1]) / 2
    u = middle[:, None] + half[:, None] * nodes
    x = u / d  # E exp(ixX) = exp(-x) + i/pi (exp(-x) Ei(x) + exp(x) E1(x))
    with np.errstate(over="ignore", invalid="ignore"):
        odd = np.where(x < 300, np.exp(-x) * special.expi(x) + np.exp(x) * special.exp1(x), 2 / x)
    phi = np.exp(-x) + 1j / np.pi * odd
    return 0.5 + float(((np.exp(-1j * u * t) * phi**d).imag / u * weights * half[:, None]).sum()) / np.pi


def burden(U, V, w):
    """(statistic, beta, se, p) of one trait, element by element."""
    m = len(U)
    u = sum(w[j] * U[j] for j in range(m))
    v = sum(w[i] * V[i, j] * w[j] for i in range(m) for j in range(m))
    return u * u / v, u / v, 1 / math.sqrt(v), float(stats.chi2.sf(u * u / v, 1))


def skat(U, V, w):
    """(Q, p) of one trait, the eigenvalues from the square root of V."""
    values, E = np.linalg.eigh(V)
    root = (E * np.sqrt(np.maximum(values, 0))) @ E.T
    lam = np.linalg.eigvalsh(root @ np.diag(w**2) @ root)
    lam = lam[lam > lam[lam > 0].mean() / 1e5]
    Q = sum((w[j] * U[j]) ** 2 for j in range(len(U)))
    return Q, imhof_sf(Q, lam)


def acat_v(U, V, w, maf, mac, threshold=10, own=None):
    """p of one trait: variants above the allele count one by one, the others as one burden.

    ``own(f)`` is w of a variant of frequency f: the burden has the frequency of its variants together. None: means.
    """
    p, weight = [], []
    low = [j for j in range(len(U)) if mac[j] <= threshold]
    if len(low) < 2:
        low = []
    if low:
        x = np.zeros(len(U))
        x[low] = w[low]
        p.append(float(stats.chi2.sf((x @ U) ** 2 / (x @ V @ x), 1)))
        f, x = (np.mean(maf[low]), np.mean(w[low])) if own is None else (np.sum(maf[low]), own(np.sum(maf[low])))
        weight.append(x**2 * f * (1 - f))
    for j in range(len(U)):
        if j not in low:
            p.append(float(stats.chi2.sf(U[j] ** 2 / V[j, j], 1)))
            weight.append(w[j] ** 2 * maf[j] * (1 - maf[j]))
    return p[0] if len(p) == 1 else cauchy(p, weight)


RHO = (0.0, 0.01, 0.04, 0.09, 0.16, 0.25, 0.5, 1.0)


def skat_o_parts(U, V, w):
    """(Q, p, eigenvalues) of every rho, the kernel matrix built as it is defined."""
    m = len(U)
    out = []
    for rho in RHO:
        K = np.diag(w) @ ((1 - rho) * np.eye(m) + rho * np.ones((m, m))) @ np.diag(w)
        lam = np.linalg.eigvals(V @ K).real
        lam = lam[lam > lam[lam > 0].mean() / 1e5]
        Q = float(U @ K @ U)
        out.append((Q, float(stats.chi2.sf(Q / lam[0], 1)) if len(lam) == 1 else imhof_sf(Q, lam), lam))
    return out


def liu_quantile(p, lam):
    """Quantile of the mixture from its first four cumulants, as R SKAT takes it."""
    c1, c2, c3, c4 = (np.sum(lam**k) for k in (1, 2, 3, 4))
    s1, s2 = c3 / c2**1.5, c4 / c2**2
    if s1**2 > s2:
        a = 1 / (s1 - math.sqrt(s1**2 - s2))
        df = a**2 - 2 * (s1 * a**3 - a**2)
    else:
        df = 1 / s2
    return float((stats.chi2.isf(p, df) - df) / math.sqrt(2 * df) * math.sqrt(2 * c2) + c1)


def skat_o_published(U, V, w):
    """p of Lee, Wu & Lin 2012 through Z = V^(1/2) W, its mean column and the projection on it, as in the paper."""
    parts = skat_o_parts(U, V, w)
    p_min = min(p for _, p, _ in parts)
    q = [liu_quantile(p_min, lam) for _, _, lam in parts]
    values, E = np.linalg.eigh(V)
    Z = (E * np.sqrt(np.maximum(values, 0))) @ E.T @ np.diag(w)
    m = len(U)
    z = Z.mean(axis=1)
    M = np.outer(z, z) / (z @ z)
    inside, outside = Z.T @ M @ Z, Z.T @ (np.eye(m) - M) @ Z
    lam = np.linalg.eigvalsh(outside)
    lam = lam[lam > 1e-10 * lam.max()]
    zeta = 4 * np.trace(inside @ outside)
    mean, variance = lam.sum(), 2 * (lam**2).sum() + zeta
    tau = [m * m * r * (z @ z) + (1 - r) / (z @ z) * ((z @ Z) ** 2).sum() for r in RHO]

    def lines(x):
        return [(q[i] - tau[i] * x) / (1 - r) for i, r in enumerate(RHO[:-1])]

    def density(u):
        d = (min(lines(u * u)) - mean) * math.sqrt((variance - zeta) / variance) + mean
        return (1.0 if d <= 0 else imhof_sf(d, lam)) * 2 * stats.norm.pdf(u)

    end = math.sqrt(q[-1] / tau[-1])
    grid = np.linspace(0, end, 20001)
    active = np.array([np.argmin(lines(u * u)) for u in grid])
    kinks = grid[1:][np.diff(active) != 0]
    inner = integrate.quad(density, 0, end, points=kinks, limit=80, epsrel=1e-6, epsabs=1e-9)
    return inner[0] + 2 * stats.norm.sf(end)


def skat_o_by_simulation(U, V, w, n, rng):
    """p of the smallest of the eight p-values, counted among n draws of U ~ N(0, V); and its standard error."""
    parts = skat_o_parts(U, V, w)
    p_min = min(p for _, p, _ in parts)
    q = [
        optimize.brentq(lambda x, lam=lam: imhof_sf(x, lam) - p_min, 1e-3 * Q, 50 * lam.sum()) if len(lam) > 1
        else lam[0] * stats.chi2.isf(p_min, 1)
        for Q, _, lam in parts
    ]  # fmt: skip
    draws = rng.multivariate_normal(np.zeros(len(U)), V, size=n, method="eigh") * w
    S, b2 = (draws**2).sum(axis=1), draws.sum(axis=1) ** 2
    hit = np.zeros(n, bool)
    for rho, limit in zip(RHO, q, strict=True):
        hit |= (1 - rho) * S + rho * b2 >= limit
    p = hit.mean()
    return p, math.sqrt(p * (1 - p) / n)


def union_of_two(z, r):
    """P(|Z1| > z or |Z2| > z), correlation r: one tail, plus the part of the other that the first does not cover."""
    s = math.sqrt(1 - r * r)

    def second_alone(x):
        low = stats.norm.cdf((z - r * x) / s) - stats.norm.cdf((-z - r * x) / s)
        return math.exp(-0.5 * (x * x - z * z)) * low

    alone = integrate.quad(second_alone, z, z + 12 / max(z, 1), epsrel=1e-10, epsabs=0, limit=200)[0]
    return 2 * stats.norm.sf(z) + 2 * alone * math.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)


def union_of_three_nested(z, v):
    """P(max |Z_t| > z), Z_t = S_t / sqrt(v_t) for a random walk S of variances v1 < v2 < v3: a chain."""
    r12, r23 = math.sqrt(v[0] / v[1]), math.sqrt(v[1] / v[2])

    def inside(y, r):
        s = math.sqrt(1 - r * r)
        return stats.norm.cdf((z - r * y) / s) - stats.norm.cdf((-z - r * y) / s)

    def third_alone(y, x):
        s = math.sqrt(1 - r23 * r23)
        given = math.exp(-0.5 * ((y - r23 * x) / s) ** 2) / (s * math.sqrt(2 * math.pi))
        return math.exp(-0.5 * (x * x - z * z)) * given * inside(y, r12)

    part = integrate.dblquad(third_alone, z, z + 8 / max(z, 1), -z, z, epsrel=1e-6, epsabs=1e-12)[0]
    return union_of_two(z, r12) + 2 * part * math.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)


def union_of_chain(z, v, nodes=200):
    """P(max |Z_t| > z), Z_t = S_t / sqrt(v_t) for a random walk S of rising variances v.

    The density of Z_t where no one before has passed z is carried from t to t + 1 by quadrature, and what passes is
    summed: no difference of numbers near 1.
    """
    x, weight = np.polynomial.legendre.leggauss(nodes)
    x, weight = z * x, z * weight
    density, passed = stats.norm.pdf(x), 2 * stats.norm.sf(z)
    for before, after in zip(v, v[1:], strict=False):
        r = math.sqrt(before / after)
        s = math.sqrt(1 - r * r)
        passed += np.sum(weight * density * (stats.norm.sf((z - r * x) / s) + stats.norm.cdf((-z - r * x) / s)))
        step = np.exp(-0.5 * ((x[:, None] - r * x) / s) ** 2) / (s * math.sqrt(2 * math.pi))
        density = step @ (weight * density)
    return passed


def union_of_three(z, R, nodes=300):
    """P(max |Z_t| > z) of three normals with any correlations R: Z_1 passes, or Z_2 alone, or only Z_3 of all."""
    x, weight = np.polynomial.legendre.leggauss(nodes)
    x, weight = z * x, z * weight
    s = math.sqrt(1 - R[0, 1] ** 2)
    first, second = np.meshgrid(x, x, indexing="ij")
    joint = stats.norm.pdf(first) * stats.norm.pdf((second - R[0, 1] * first) / s) / s
    a = np.linalg.solve(R[:2, :2], R[:2, 2])
    mean, sd = a[0] * first + a[1] * second, math.sqrt(1 - a @ R[:2, 2])
    third = stats.norm.sf((z - mean) / sd) + stats.norm.cdf((-z - mean) / sd)
    return union_of_two(z, R[0, 1]) + weight @ (joint * third) @ weight


def cochran(U, v):
    """(Q, df, p, I2) of one variant over studies that have seen it."""
    pairs = [(u / x, x) for u, x in zip(U, v, strict=True) if x > 0]
    mean = sum(b * x for b, x in pairs) / sum(x for _, x in pairs)
    Q = sum(x * (b - mean) ** 2 for b, x in pairs)
    df = len(pairs) - 1
    return Q, df, float(stats.chi2.sf(Q, df)), max(0.0, 1 - df / Q)


def mean_and_variance_by_simulation(U, v, n, rng):
    """(T, p, standard error) of the joint test of a mean effect and its variation, p counted among n draws."""

    def statistic(u):
        D = 0.5 * ((u**2).sum(axis=-1) - v.sum())
        return u.sum(axis=-1) ** 2 / v.sum() + np.maximum(D, 0) ** 2 / (0.5 * (v**2).sum())

    T = float(statistic(U))
    p = (statistic(rng.normal(size=(n, len(v))) * np.sqrt(v)) >= T).mean()
    return T, p, math.sqrt(p * (1 - p) / n)


def scores(G, X, y):
    """(U, V) of a linear model with covariates X and residual variance from it, one explicit projection."""
    P = np.eye(len(y)) - X @ np.linalg.inv(X.T @ X) @ X.T
    r = P @ y
    sigma2 = r @ r / (len(y) - X.shape[1])
    return G.T @ r / sigma2, G.T @ P @ G / sigma2, sigma2


def resample_scores(
    G: np.ndarray, mu: np.ndarray, X: np.ndarray, rng: np.random.Generator, draws: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return scores (draws, m) of phenotypes drawn sample by sample from mu, and V = G'WG - G'WX (X'WX)^-1 X'WG.

    To first order the refitted null model takes from the score what the covariates explain of G:
    ``U = (G - X (X'WX)^-1 X'WG)'(y - mu)``.
    """
    W = mu * (1 - mu)
    left = G - X @ np.linalg.solve(X.T @ (W[:, None] * X), X.T @ (W[:, None] * G))
    U = np.empty((draws, G.shape[1]))
    for first in range(0, draws, 500):
        y = rng.random((min(500, draws - first), len(mu))) < mu
        U[first : first + len(y)] = (y - mu) @ left
    return U, left.T @ (W[:, None] * left)
