"""P-values of SKAT with few cases against phenotypes drawn one by one; writes the table of docs/few-cases.md.

    python -m studies.few_cases

Two studies, 30 variants of minor allele frequency 0.001 to 0.05, independent or with most variants on the haplotypes of
others, a covariate that spreads the fitted probabilities or not. Hundreds of thousands of binary phenotypes are drawn
from the fitted probabilities; at their quantiles of Q the p-values that `locomass meta` gives (draws of the scores from
their laws) and that of the chi-square mixture are compared with the share of phenotypes that reach them.
Ultra-rare variants are taken as one, weights are Beta(1, 25).
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from locomass.gene_tests.base import ScoreStatistics
from locomass.gene_tests.chi_square_mixture import mixture_logsf
from locomass.gene_tests.components import PARTICLES, Components, keep_positive
from locomass.gene_tests.few_cases import quadratic_statistic
from locomass.gene_tests.law import StudyCarriers
from locomass.gene_tests.law_draws import open_law
from locomass.gene_tests.null_draws import NullDraws
from locomass.gene_tests.ultra_rare import pool_ultra_rare

Floats = NDArray[np.float64]
M = 30
LEVELS = (1e-2, 1e-3, 1e-4)
WEIGHTS = "beta_1_25"


@dataclass(frozen=True)
class Scenario:
    """Samples of a study, controls per case, whether variants share haplotypes, and the effect of the covariate."""

    n: int
    controls: int
    nested: bool
    spread: float


SCENARIOS = (
    Scenario(1000, 50, False, 0.0),
    Scenario(1000, 50, False, 1.0),
    Scenario(1000, 50, True, 0.0),
    Scenario(1000, 50, True, 1.5),
    Scenario(3000, 50, True, 1.0),
    Scenario(1000, 10, True, 0.5),
)


def draw_genotypes(rng: np.random.Generator, n: int, nested: bool) -> Floats:
    """Return genotypes (n, m); nested variants take 30 to 100 % of the haplotypes of an earlier one."""
    frequency = np.exp(rng.uniform(math.log(1e-3), math.log(0.05), M))
    haplotypes = rng.random((2 * n, M)) < frequency
    for j in range(1, M):
        if nested and rng.random() < 0.6:
            kept = rng.random(2 * n) < rng.uniform(0.3, 1.0)
            haplotypes[:, j] = (haplotypes[:, rng.integers(j)] & kept) | (rng.random(2 * n) < 2e-4)
    return haplotypes[:n].astype(np.float64) + haplotypes[n:]


def fit_probabilities(x: Floats, share: float, spread: float) -> Floats:
    """Return mu = 1 / (1 + exp(-(a + spread x))) with the mean ``share``."""
    low, high = -20.0, 5.0
    for _ in range(60):
        middle = (low + high) / 2
        mu: Floats = 1.0 / (1.0 + np.exp(-(middle + spread * x)))
        low, high = (middle, high) if mu.mean() < share else (low, middle)
    return mu


def group_people(G: Floats, mu: Floats, V: Floats) -> StudyCarriers:
    """Return who carries the variants of genotypes (n, m): people alike in genotypes and mu (n,) are one group."""
    seen = G.any(axis=1)
    rows, count = np.unique(np.column_stack((G, mu))[seen], axis=0, return_counts=True)
    person, variant = np.nonzero(rows[:, :-1])
    indptr = np.concatenate(([0], np.cumsum(np.bincount(person, minlength=len(rows)))))
    return StudyCarriers(indptr, variant, rows[person, variant], count.astype(np.float64), rows[:, -1], None, V)


def draw_study(rng: np.random.Generator, G: Floats, case: Scenario, draws: int) -> tuple[Floats, Floats, StudyCarriers]:
    """Return scores (draws, m) of drawn phenotypes, V, and what the study shares of its carriers."""
    n, share = len(G), 1.0 / (1 + case.controls)
    X = np.column_stack((np.ones(n), rng.standard_normal(n)))
    mu = fit_probabilities(X[:, 1], share, case.spread)
    W = mu * (1.0 - mu)
    left = G - X @ np.linalg.solve(X.T @ (W[:, None] * X), X.T @ (W[:, None] * G))
    V = left.T @ (W[:, None] * left)
    U = np.empty((draws, G.shape[1]))
    for first in range(0, draws, 2000):
        y = rng.random((min(2000, draws - first), n)) < mu
        U[first : first + len(y)] = (y.astype(np.float32) - mu.astype(np.float32)) @ left.astype(np.float32)
    return U, V, group_people(G, mu, V)


def compare(case: Scenario, seed: int, draws: int) -> list[tuple[float, float]]:
    """Return, for every level, p over the true p: from draws of the scores, and of the chi-square mixture."""
    rng = np.random.default_rng(seed)
    G = draw_genotypes(rng, 2 * case.n, case.nested)
    G = G[:, G.sum(axis=0) > 0]
    parts = [draw_study(rng, g, case, draws) for g in (G[: case.n], G[case.n :])]
    mac = G.sum(axis=0)
    stats = ScoreStatistics(
        U=parts[0][0] + parts[1][0], V=parts[0][1] + parts[1][1], scale=np.ones(draws), maf=mac / (4 * case.n), mac=mac,
        n_samples=np.full(draws, 2.0 * case.n), rare=np.ones(mac.size, np.bool_),
        laws=(tuple(known for _, _, known in parts),),
    )  # fmt: skip
    c = pool_ultra_rare(Components(stats, (WEIGHTS,), ultra_rare=10.0))
    w = c.weights(WEIGHTS)
    statistic = quadratic_statistic(w)
    Q = np.sort(statistic([c.stats.U]))
    eigenvalues = keep_positive(np.linalg.eigvalsh(w[:, None] * c.stats.V * w))
    null, out = NullDraws([open_law(own) for own in c.stats.laws[0]], [0, 1], sums=((0, 1),)), []
    for level in LEVELS:
        q = Q[draws - round(level * draws)] * (1.0 - 1e-6)
        true = math.log(float((q <= Q).mean()))
        mixture = float(mixture_logsf(np.array([q]), eigenvalues)[0][0])
        out.append((math.exp(null.tail(statistic, q, PARTICLES)[0] - true), math.exp(mixture - true)))
    return out


def format_rows(genes: int, draws: int) -> Iterator[str]:
    """Give the lines of the table."""
    yield (
        "| samples | case:control | variants | covariate | "
        + " | ".join(f"{how} at {level:g}" for level in LEVELS for how in ("draws", "mixture"))
        + " |"
    )
    yield "|---:|---|---|---:|" + "---:|" * (2 * len(LEVELS))
    for case in SCENARIOS:
        ratios = np.array([compare(case, seed, draws) for seed in range(genes)])
        middle, low, high = (f(ratios, axis=0) for f in (np.median, np.min, np.max))
        cells = [
            f"{middle[a, b]:.2g} ({low[a, b]:.2g} to {high[a, b]:.2g})" for a in range(len(LEVELS)) for b in range(2)
        ]
        name = "on shared haplotypes" if case.nested else "independent"
        yield f"| {case.n:,} | 1:{case.controls} | {name} | {case.spread:g} | " + " | ".join(cells) + " |"


HEAD = """# SKAT with few cases

Made by `python -m studies.few_cases`. A p-value over the true one, the share of {draws:,} phenotypes, drawn one by one
from the fitted probabilities, whose SKAT reaches the same Q: median (range) of {genes} genes of 30 variants in two
studies, ultra-rare variants as one, weights Beta(1, 25). Below 1 is too small. `draws`: what `locomass meta` gives for
calibrated traits, see [statistics](statistics.md#binary-traits-with-few-cases); `mixture`: the chi-square mixture with
model variances. "Covariate" is its effect on the log odds per standard deviation.
"""


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--genes", type=int, default=5)
    parser.add_argument("--draws", type=int, default=200_000)
    parser.add_argument("--page", type=Path, default=Path(__file__).parents[1] / "docs" / "few-cases.md")
    arguments = parser.parse_args()
    head = HEAD.format(genes=arguments.genes, draws=arguments.draws)
    arguments.page.write_text("\n".join([head, *format_rows(arguments.genes, arguments.draws)]) + "\n")


if __name__ == "__main__":
    main()
