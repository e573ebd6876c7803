"""Why eight SKAT-O rows differ from R by 2 to 3.6 %, and rows of p = 1: R's quadrature, not the formula.

R integrates a distribution function times a chi-square density from 0 to 40 with a relative tolerance of 1.2e-4 (and
rho = 0.999 in place of 1), then takes the result from one. Here the same integrand, its tail inverted independently of
the package, is integrated once with R's rule and tolerance and once tightly as a survival function. The first gives
R's number, the second ours.
"""

import math

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import integrate, stats

from pipeline.run import Resources, run_study
from pipeline.stages.meta import evaluate as stage
from tests.golden.cohorts import DATA
from tests.reference_gene_tests import imhof_sf, liu_quantile

RHO = np.array([0.0, 0.01, 0.04, 0.09, 0.16, 0.25, 0.5, 0.999])


def invert_sf(q: float, lam: np.ndarray) -> float:
    """P(sum lambda_i chi2_1 > q): midpoint rule on Gil-Pelaez' integral, for many lambda of like size."""
    if q <= 0:
        return 1.0
    k = np.arange(20_000) + 0.5
    u = k * 2 * np.pi / (2 * (lam.sum() + 60 * lam.max() + q))
    log_size = -0.25 * np.log1p(4 * np.outer(lam**2, u * u)).sum(axis=0)
    angle = 0.5 * np.arctan(2 * np.outer(lam, u)).sum(axis=0) - u * q
    return float(0.5 + (np.exp(log_size) * np.sin(angle) / (np.pi * k)).sum())


def published(U: np.ndarray, V: np.ndarray) -> tuple[float, float]:
    """(p by R's quadrature, p by tight quadrature) of the published formula, weights 1."""
    m, s, total = len(U), V.sum(axis=1), V.sum()
    mixtures = []
    for r in RHO:
        root = np.linalg.cholesky((1 - r) * np.eye(m) + r)
        lam = np.linalg.eigvalsh(root.T @ V @ root)
        mixtures.append(lam[lam > lam[lam > 0].mean() / 1e5])
    Q = (1 - RHO) * (U @ U) + RHO * U.sum() ** 2
    smallest = min(imhof_sf(x, lam) for x, lam in zip(Q, mixtures, strict=True))
    q = np.array([liu_quantile(smallest, lam) for lam in mixtures])
    left = V - np.outer(s, s) / total
    rest = np.linalg.eigvalsh(left)
    rest = rest[rest > rest[rest > 0].mean() / 1e5]
    cross = 4 * float(s @ left @ s) / total
    mean, variance = rest.sum(), 2 * (rest**2).sum() + cross
    tau = RHO * total + (1 - RHO) * float(s @ s) / total

    def sf(x: float) -> float:
        t = ((q - tau * x) / (1 - RHO)).min()
        return 0.0 if t > 1e4 * mean else invert_sf((t - mean) * math.sqrt((variance - cross) / variance) + mean, rest)

    def cdf_times_density(x: float) -> float:
        return (1 - sf(x)) * stats.chi2.pdf(x, 1) if x > 0 else 0.0

    loose = (
        1 - integrate.quad(cdf_times_density, 0, 40, epsabs=1e-25, epsrel=np.finfo(float).eps ** 0.25, limit=1000)[0]
    )
    end = math.sqrt((q / tau).min())
    z = np.linspace(0, end, 4001)
    active = np.argmin((q[:, None] - np.outer(tau, z * z)) / (1 - RHO)[:, None], axis=0)
    kinks = z[1:][np.diff(active) != 0]
    parts = integrate.quad(lambda v: sf(v * v) * 2 * stats.norm.pdf(v), 0, end, points=kinks, epsrel=1e-6, limit=200)
    return min(loose, 8 * smallest), min(parts[0] + 2 * stats.norm.sf(end), 8 * smallest)


@pytest.fixture(scope="module")
def seen(tmp_path_factory) -> dict:
    """(U, V, p) of the flat SKAT-O rows of trait y, as the tests of cohort A saw them."""
    found: dict = {}
    original = stage.evaluate_selection

    def spy(view, shared, selection, correction):
        tested = original(view, shared, selection, correction)
        if "y" in shared.traits:
            t, s = shared.traits.index("y"), tested.seen["skat-o"][0]
            p = math.exp(tested.rows[0][2].log_p[t])
            found[view.request.gene, selection.mask, selection.max_maf] = (s.U[t], s.V * s.scale[t], p)
        return tested

    folder = tmp_path_factory.mktemp("settled")
    for path in DATA.glob("*.*"):
        (folder / path.name).symlink_to(path)
    config = yaml.safe_load((DATA / "cohort_a.yaml").read_text())
    tests = {"names": ["skat-o"], "max_maf": [0.05, 0.5], "weights": ["flat"]}
    (folder / "c.yaml").write_text(yaml.safe_dump(config | {"tests": tests, "predictor": {"method": "none"}}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "evaluate_selection", spy)
        run_study(folder / "c.yaml", folder / "out", Resources(threads=1), "meta")
    return found


@pytest.mark.parametrize(
    ("gene", "mask", "bound", "of_r"),
    [
        ("GENE1D", "M2", 0.5, 2e-3),
        pytest.param("GENE1A", "M3", 0.05, 5e-3, marks=pytest.mark.slow),
        ("GENE3B", "M2", 0.5, 1e-6),
    ],
)
def test_the_formula_integrated_as_r_does_gives_r_and_integrated_tightly_gives_ours(seen, gene, mask, bound, of_r):
    """Among them the row furthest from ours (GENE1D, 3.6 %) and one where R says p = 1 and the formula 0.91."""
    table = pd.read_csv(DATA / "expected" / "skat_cohort_a.csv")
    theirs = table.query(
        "trait == 'y' and loco == 'none' and gene == @gene and mask == @mask and max_maf == @bound and "
        "weights == 'flat' and test == 'SKATO'"
    )["p"].item()
    U, V, ours = seen[gene, mask, bound]
    varying = V.diagonal() > 0
    loose, tight = published(U[varying], V[np.ix_(varying, varying)])
    assert loose == pytest.approx(theirs, rel=of_r)
    assert ours == pytest.approx(tight, rel=2e-3)  # rho = 0.999 in place of 1 moves p by 0.1 %
    assert abs(theirs / tight - 1) > 0.01
