"""Type I error of every gene test on simulated null data; writes docs/type-one-error.md.

    python studies/type_one_error.py --minutes 8 --checkpoint type-one-error.json

Two studies of 1,000 samples, genes of 30 independent variants (minor allele frequencies 0.0005 to 0.05, log-uniform).
Phenotypes are drawn independently of the genotypes, a few hundred at a time for every gene: normal, or binary with a
fixed number of cases in each study. Each study has an intercept; (U, V) are summed over both. Every gene drawn is one
line of the checkpoint, so that a killed run goes on where it stopped and a longer one adds to a shorter one.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from pipeline.gene_tests.base import ScoreStatistics
from pipeline.gene_tests.calibration import calibrate_burden, calibrate_variances
from pipeline.gene_tests.permutation import CarrierGenotypes
from pipeline.gene_tests.registry import TESTS, evaluate
from pipeline.gene_tests.resampling import Resampling
from pipeline.gene_tests.step_up import SEARCHES as ALL_SEARCHES
from pipeline.gene_tests.step_up import StepUpParameters

Floats = NDArray[np.float64]
ALPHAS = (0.05, 0.01, 1e-3, 1e-4)
SCENARIOS = {"quantitative": None, "binary 1:1": 0.5, "binary 1:10": 1 / 11, "binary 1:50": 1 / 51}
N, M, N_STUDIES = 1000, 30, 2
TRAITS, SEARCHED, CALIBRATED = 1500, 40, 10
SEARCHES = ("step-up", "all-maf", "groupings")
FAST = tuple(name for name in TESTS if name not in ALL_SEARCHES)
SPA = ("burden", "skat", "skat-o", "acat-o")


def draw_gene(rng: np.random.Generator, n: int = N, m: int = M) -> Floats:
    """Return genotypes (studies, n, m), each variant seen at least once overall."""
    frequency = np.exp(rng.uniform(np.log(5e-4), np.log(0.05), m))
    G = rng.binomial(2, frequency, (N_STUDIES, n, m)).astype(np.float64)
    for j in np.flatnonzero(G.sum(axis=(0, 1)) == 0):
        G[rng.integers(N_STUDIES), rng.integers(n), j] = 1.0
    return G


def draw_residuals(rng: np.random.Generator, n: int, traits: int, share: float | None) -> tuple[Floats, float]:
    """Return residuals (n, traits) and the weight w such that ``V = w (G'G - n gbar gbar')``.

    Normal phenotypes have mean nought and variance one in the study; binary ones a fixed number of cases.
    """
    if share is None:
        y = rng.standard_normal((n, traits))
        y -= y.mean(axis=0)
        return y / np.sqrt((y * y).sum(axis=0) / (n - 1)), 1.0
    cases = max(1, round(n * share))
    y = np.zeros((n, traits))
    y[:cases] = 1.0
    return rng.permuted(y, axis=0) - cases / n, cases / n * (1 - cases / n)


def make_statistics(
    rng: np.random.Generator, G: Floats, traits: int, share: float | None
) -> tuple[ScoreStatistics, list[Floats]]:
    """Return statistics of null phenotypes, and the residuals (n, T) of each study."""
    parts, residuals = [], []
    for g in G:
        r, w = draw_residuals(rng, g.shape[0], traits, share)
        centred = g - g.mean(axis=0)
        parts.append((r.T @ g, w * (centred.T @ centred), np.ones(traits)))
        residuals.append(r)
    mac = G.sum(axis=(0, 1))
    n = G.shape[0] * G.shape[1]
    return ScoreStatistics(
        U=np.sum([p[0] for p in parts], axis=0), V=np.sum([p[1] for p in parts], axis=0), scale=np.ones(traits),
        maf=mac / (2 * n), mac=mac, n_samples=np.full(traits, float(n)), rare=mac / (2 * n) <= 0.05,
        annotations={"damaging": (np.arange(G.shape[2]) % 2).astype(float)}, per_study=tuple(parts),
    ), residuals  # fmt: skip


def calibrated_log_p(stats: ScoreStatistics, G: Floats, residuals: list[Floats], t: int) -> dict[str, float]:
    """Return log p of the tests under calibrated variances of phenotype t, as `tests.calibrate: spa` computes them."""
    V, burden = np.zeros_like(stats.V), 0.0
    ones = np.ones(G.shape[2])
    for g, r in zip(G, residuals, strict=True):
        rows, variant = np.nonzero(g)
        order = np.argsort(variant, kind="stable")
        indptr = np.concatenate(([0], np.cumsum((g > 0).sum(axis=0)))).astype(np.int64)
        genotypes = CarrierGenotypes(indptr, rows[order], g[rows[order], variant[order]], g.shape[0])
        y = (r[:, t] > 0).astype(np.float64)
        mu, X = np.full(g.shape[0], y.mean()), np.ones((g.shape[0], 1))
        own = calibrate_variances(genotypes, y, mu, X).V
        V += own
        burden += float(ones @ own @ ones) / calibrate_burden(genotypes, y, mu, X, own)
    correction = min(1.0, float(ones @ V @ ones) / burden) if burden > 0 else 1.0
    one = slice(t, t + 1)
    alone = replace(
        stats, U=stats.U[one], V=V / correction, scale=stats.scale[one], n_samples=stats.n_samples[one], per_study=()
    )
    return {f"{n} {w} (spa)": float(r.log_p[0]) for n, w, r in evaluate(alone, SPA)}


def test_gene(seed: int, scenario: str, traits: int, searched: int, calibrated: int) -> dict[str, list[int]]:
    """Return, per test, the number of p-values at or below each of `ALPHAS`, and how many p-values there were."""
    rng = np.random.default_rng([seed, list(SCENARIOS).index(scenario)])
    share = SCENARIOS[scenario]
    G = draw_gene(rng)
    stats, residuals = make_statistics(rng, G, traits, share)
    log_p = {f"{name} {w}".strip(): r.log_p for name, w, r in evaluate(stats, FAST)}
    few = replace(
        stats, U=stats.U[:searched], scale=stats.scale[:searched], n_samples=stats.n_samples[:searched], per_study=()
    )
    step_up = StepUpParameters(resampling=Resampling(max_permutations=4000, seed=seed))
    log_p |= {name: r.log_p for name, _, r in evaluate(few, SEARCHES, step_up=step_up)}
    if share is not None:
        rows = [calibrated_log_p(stats, G, residuals, t) for t in range(calibrated)]
        log_p |= {name: np.array([row[name] for row in rows]) for name in (rows[0] if rows else {})}
    return {name: count_small(values) for name, values in log_p.items()}


def count_small(log_p: Floats) -> list[int]:
    """Return how many p-values are at or below each of `ALPHAS`, then how many there are."""
    known = log_p[np.isfinite(log_p)]
    return [*(int((known <= np.log(a)).sum()) for a in ALPHAS), len(known)]


def run(
    minutes: float, checkpoint: Path, traits: int, searched: int, calibrated: int
) -> dict[str, dict[str, list[int]]]:
    """Test genes until time is up, adding to the checkpoint; return the counts by scenario and test."""
    state = json.loads(checkpoint.read_text()) if checkpoint.exists() else {"genes": 0, "counts": {}}
    stop = time.monotonic() + 60 * minutes
    while time.monotonic() < stop:
        for scenario in SCENARIOS:
            into = state["counts"].setdefault(scenario, {})
            for name, counts in test_gene(state["genes"], scenario, traits, searched, calibrated).items():
                into[name] = [a + b for a, b in zip(into.get(name, [0] * len(counts)), counts, strict=True)]
        state["genes"] += 1
        temporary = checkpoint.with_suffix(".tmp")
        temporary.write_text(json.dumps(state))
        temporary.replace(checkpoint)
    return state["counts"]


def format_tables(counts: dict[str, dict[str, list[int]]]) -> Iterator[str]:
    """Give the lines of the page: a table per scenario, rates outside the 99 % interval in bold."""
    for scenario, tests in counts.items():
        yield f"\n## {scenario}\n"
        yield "| test | replicates | " + " | ".join(f"{a:g}" for a in ALPHAS) + " |"
        yield "|---|---:|" + "---:|" * len(ALPHAS)
        for name, (*small, n) in tests.items():
            cells = []
            for alpha, k in zip(ALPHAS, small, strict=True):
                low, high = binom.ppf(0.005, n, alpha), binom.ppf(0.995, n, alpha)
                mark = "" if low <= k <= high else ("**" if k > high else "_")
                cells.append(f"{mark}{k / max(n, 1):.3g}{mark}")
            yield f"| {name} | {n:,} | " + " | ".join(cells) + " |"


HEAD = """# Type I error

Made by `python studies/type_one_error.py`: {genes:,} genes, two studies of {n:,} samples, {m} independent variants of
minor allele frequency 0.0005 to 0.05, null phenotypes drawn independently of them. Rates are the share of p-values at
or below each level. **Bold**: above the level's 99 % binomial interval (too many). _Italic_: below it (conservative).
At 1e-4 a test with 10,000 replicates expects one p-value: such cells say little. Rows `(spa)` are those of
`tests.calibrate: spa`. Searches (step-up, all-maf, groupings) run 4,000 replicates of the null and a Pareto tail.
"""


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--checkpoint", type=Path, default=Path("type-one-error.json"))
    parser.add_argument("--page", type=Path, default=Path(__file__).parents[1] / "docs" / "type-one-error.md")
    parser.add_argument("--traits", type=int, default=TRAITS)
    arguments = parser.parse_args()
    counts = run(arguments.minutes, arguments.checkpoint, arguments.traits, SEARCHED, CALIBRATED)
    genes = json.loads(arguments.checkpoint.read_text())["genes"]
    arguments.page.write_text("\n".join([HEAD.format(genes=genes, n=N, m=M), *format_tables(counts)]) + "\n")


if __name__ == "__main__":
    main()
