"""Two studies combined, against seqMeta 1.6.7 (data/README.md): burden, SKAT, SKAT-O and single variants of trait y.

SKAT-O: ours is the formula as published, where the cross term enters by its variance. seqMeta conditions on the burden
b exactly, as ``skat-o`` does, but its number is not the probability either:

- it leaves out the part of the conditional mean that lies where nothing is left to vary, 1'x = b: S >= b^2 / m;
- it looks for the quantile of Q_rho below Satterthwaite's quantile of p / 20; where it lies beyond, the search fails
  and the observed Q_rho takes its place. In GENE1A at 0.05 that happens for seven of eight rho: p is twelve times too
  large;
- where its integral fails it falls back to Liu's approximation (GENE2A at 0.05).

With these three the formula gives seqMeta's number; without them, ``skat-o``. GENE3A (0.346 against 0.331) is
explained by none of them; there a million draws side with ours.
"""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import optimize, stats

from tests.golden.cohorts import DATA, read_results, relative
from tests.reference_golden import chi2_mixture_sf, fit_linear, invert, mixture, read_sets, score, skat_o_published

RHO = np.array([0.0, 0.01, 0.04, 0.09, 0.16, 0.25, 0.5, 1.0])
APART = [("GENE1A", 0.01), ("GENE2A", 0.01), ("GENE3A", 0.01), ("GENE1A", 0.05), ("GENE2A", 0.05), ("GENE3A", 0.05)]
TESTS = {
    "names": ["burden", "skat", "skat-o-published", "skat-o"],
    "max_maf": [0.01, 0.05],
    "weights": ["flat", "beta_1_25"],
}


@pytest.fixture(scope="module")
def combined(run_golden, run_golden_meta):
    folders = [run_golden(c, predictor={"method": "none"}) for c in ("cohort_a", "cohort_b")]
    return run_golden_meta([f / "bundle" for f in folders], tests=TESTS)


@pytest.mark.parametrize(
    ("theirs", "test", "weights", "tolerance"),
    [("burden", "burden", "flat", 1e-8), ("skat_beta_1_25", "skat", "beta_1_25", 1e-3)],
)
def test_gene_tests_agree(combined, theirs, test, weights, tolerance):
    expected = pd.read_csv(DATA / "expected" / "seqmeta_y.csv")
    expected = expected[expected["test"] == theirs].drop(columns=["trait", "test"])
    ours = read_results(combined).query("trait == 'y' and mask == 'M3' and test == @test and weights == @weights")
    joined = expected.merge(ours, on=["gene", "max_maf"], suffixes=("_r", ""))
    assert len(joined) == 24
    assert (joined["n_variants_r"] == joined["n_variants"]).all()
    assert relative(joined["p"], joined["p_r"]).max() < tolerance
    if test == "burden":
        assert relative(joined["beta"], joined["beta_r"]).max() < 1e-8
        assert relative(joined["se"], joined["se_r"]).max() < 1e-8


def test_single_variants_agree(combined):
    expected = pd.read_csv(DATA / "expected" / "seqmeta_single_y.csv")
    ours = pd.read_parquet(combined / "single_variants.parquet").query("trait == 'y'")
    ours["Name"] = ours["chromosome"] + ":" + ours["position"].astype(str) + ":" + ours["ref"] + ":" + ours["alt"]
    joined = expected.merge(ours, on="Name", suffixes=("_r", ""))
    assert len(joined) == 770
    lost = expected[~expected["Name"].isin(joined["Name"])]
    assert (lost["maf"] == 0).all()
    assert relative(joined["p"], joined["p_r"]).max() < 1e-9
    assert relative(joined["beta"], joined["beta_r"]).max() < 1e-9
    # seqMeta averages study frequencies weighted by samples; AC / AN differs where calls are missing
    minor = np.minimum(joined["alt_frequency"], 1 - joined["alt_frequency"])
    assert relative(minor, joined["maf_r"] if "maf_r" in joined else joined["maf"]).max() < 2e-3


def combined_scores(gene: str, bound: float) -> tuple[np.ndarray, np.ndarray]:
    """Return (u, A) of both cohorts: Beta(1, 25) weights of the pooled minor frequency."""
    names = read_sets()[gene][1]["M3"]
    parts = [(score(c, null, names, still=True), null) for c in ("cohort_a", "cohort_b") for null in [fit_linear(c)]]
    place = {name: k for k, name in enumerate(sorted({name for s, _ in parts for name in s.names}))}
    U, V, count, number = np.zeros(len(place)), np.zeros((len(place),) * 2), np.zeros(len(place)), np.zeros(len(place))
    for s, null in parts:
        j = [place[name] for name in s.names]
        U[j] += s.U / null.scale
        V[np.ix_(j, j)] += s.V / null.scale**2
        count[j] += s.count
        number[j] += 2 * (~np.isnan(s.calls)).sum(axis=0)
    minor = np.minimum(count / number, 1 - count / number)
    j = (minor > 0) & (minor <= bound)
    w = np.where(count[j] > number[j] / 2, -25, 25) * (1 - minor[j]) ** 24
    return w * U[j], w[:, None] * V[np.ix_(j, j)] * w


def quantiles(u: np.ndarray, A: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Return the smallest p over rho, the quantiles of Q_rho there, and what seqMeta takes for them."""
    Q = (1 - RHO) * (u @ u) + RHO * u.sum() ** 2
    mixtures = [mixture(A, r) for r in RHO]
    smallest = min(float(chi2_mixture_sf(x, lam)[0]) for x, lam in zip(Q, mixtures, strict=True))
    exact = [quantile(smallest, lam, x) for x, lam in zip(Q, mixtures, strict=True)]
    searched = [satterthwaite_isf(smallest / 20, lam) for lam in mixtures]
    return smallest, np.array(exact), np.where(np.array(searched) < exact, Q, exact)


def quantile(p: float, lam: np.ndarray, at_least: float) -> float:
    """Return the upper quantile of sum lambda_i chi2_1."""
    if len(lam) == 1:
        return float(lam[0] * stats.chi2.isf(p, 1))
    highest = at_least + lam.sum() + 40 * lam.max()
    sf = invert(lam, highest)
    return at_least if sf(at_least) <= p else float(optimize.brentq(lambda t: sf(t) - p, at_least, highest))


def satterthwaite_isf(p: float, lam: np.ndarray) -> float:
    """Return the quantile of the chi-square with the mixture's mean and variance."""
    scale = (lam**2).sum() / lam.sum()
    return float(scale * stats.chi2.isf(p, lam.sum() / scale))


def crossing(A: np.ndarray, T: np.ndarray, hidden: bool, by_liu: bool = False) -> float:
    """Return P(Q_rho > T_rho for some rho): S given b is a noncentral mixture, integrated over b.

    Args:
        A: (m, m) covariance of the weighted scores.
        T: (8,) thresholds.
        hidden: whether S includes (1'x)^2 / m, the part that does not vary given b.
        by_liu: the mixture by four moments.
    """
    s, total = A.sum(axis=1), A.sum()
    lam, E = np.linalg.eigh(A - np.outer(s, s) / total)
    varies = lam > lam.max() * 1e-7
    mu, lam = (E.T @ s / total)[varies] ** 2, lam[varies]
    sf = liu_noncentral(lam, mu) if by_liu else invert(lam, T[0], mu, 8_000)
    end = math.sqrt(T[-1] / total)

    def given(z: float) -> float:
        x = z * z * total
        delta = float(((T - RHO * x)[:-1] / (1 - RHO[:-1])).min()) - (x / len(A) if hidden else 0.0)
        return sf(delta, x) if delta > 0 else 1.0

    nodes, weights = np.polynomial.legendre.leggauss(12)
    half = end / 80
    z = (half * (2 * np.arange(40)[:, None] + 1 + nodes)).ravel()
    inside = np.array([given(v) for v in z]) * 2 * stats.norm.pdf(z)
    return float(half * np.tile(weights, 40) @ inside + 2 * stats.norm.sf(end))


def liu_noncentral(lam: np.ndarray, mu: np.ndarray):
    """Return the function (q, x) of ``invert`` by the approximation of Liu, Tang & Zhang 2009."""

    def sf(q: float, x: float) -> float:
        c1, c2, c3, c4 = (float((lam**k).sum() + k * x * (lam ** (k - 1) @ mu)) for k in (1, 2, 3, 4))
        s1, s2 = c3 / c2**1.5, c4 / c2**2
        a = 1 / (s1 - math.sqrt(s1**2 - s2)) if s1**2 > s2 else 1 / s1
        shift = max(0.0, s1 * a**3 - a**2)
        return float(stats.ncx2.sf((q - c1) / math.sqrt(c2) * a + a * a - shift, a * a - 2 * shift, shift))

    return sf


@pytest.mark.parametrize(("gene", "bound"), APART)
def test_skat_o_rows_apart_are_settled(combined, gene, bound):
    u, A = combined_scores(gene, bound)
    smallest, exact, theirs = quantiles(u, A)
    ours = read_results(combined).query(
        "trait == 'y' and mask == 'M3' and weights == 'beta_1_25' and gene == @gene and max_maf == @bound"
    )
    ours = ours.set_index("test")["p"]
    assert ours["skat-o-published"] == pytest.approx(skat_o_published(A, smallest, RHO), rel=1e-5)
    assert ours["skat-o"] == pytest.approx(crossing(A, exact, hidden=True), rel=1e-4)
    expected = pd.read_csv(DATA / "expected" / "seqmeta_y.csv")
    of_r = expected.query("test == 'skato_beta_1_25' and gene == @gene and max_maf == @bound")["p"].item()
    emulated = crossing(A, theirs, hidden=False, by_liu=(gene, bound) == ("GENE2A", 0.05))
    if gene == "GENE3A":
        assert abs(emulated / of_r - 1) > 0.05
    else:
        assert of_r == pytest.approx(emulated, rel=5e-4)


def test_skat_o_agrees(combined):
    expected = pd.read_csv(DATA / "expected" / "seqmeta_y.csv").query("test == 'skato_beta_1_25'")
    ours = read_results(combined).query(
        "trait == 'y' and mask == 'M3' and test == 'skat-o-published' and weights == 'beta_1_25'"
    )
    joined = expected.drop(columns=["trait", "test"]).merge(ours, on=["gene", "max_maf"], suffixes=("_r", ""))
    assert len(joined) == 24
    apart = relative(joined["p"], joined["p_r"]) > 0.02
    assert sorted(zip(joined["gene"][apart], joined["max_maf"][apart], strict=True)) == sorted(APART)


@pytest.mark.slow
@pytest.mark.parametrize(("gene", "bound"), APART)
def test_a_million_draws_side_with_ours(combined, gene, bound):
    u, A = combined_scores(gene, bound)
    _, exact, _ = quantiles(u, A)
    root = np.linalg.cholesky(A + 1e-12 * np.trace(A) * np.eye(len(A)))
    rng, hits, total = np.random.default_rng(1), 0, 1_000_000
    for _ in range(20):
        x = rng.standard_normal((total // 20, len(A))) @ root.T
        Q = np.outer((x * x).sum(axis=1), 1 - RHO) + np.outer(x.sum(axis=1) ** 2, RHO)
        hits += int((exact <= Q).any(axis=1).sum())
    p, error = hits / total, math.sqrt(hits) / total
    ours = read_results(combined).query(
        "trait == 'y' and mask == 'M3' and weights == 'beta_1_25' and gene == @gene and max_maf == @bound"
    )
    ours = ours.set_index("test")["p"]
    assert abs(ours["skat-o"] - p) < 4 * error
    expected = pd.read_csv(DATA / "expected" / "seqmeta_y.csv")
    of_r = expected.query("test == 'skato_beta_1_25' and gene == @gene and max_maf == @bound")["p"].item()
    if (gene, bound) != ("GENE2A", 0.05):  # there seqMeta's errors cancel: 0.1160, the truth is 0.1149
        assert abs(of_r - p) > 3 * error
