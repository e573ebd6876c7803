"""Type I error of every gene test on simulated null data; writes docs/type-one-error.md.

    python -m studies.type_one_error --minutes 25 --checkpoint type-one-error.json
    python -m studies.type_one_error --scenarios "binary 1:50" --tests skat skat-o

Two studies of 1,000 samples, or of 5,000, genes of 30 independent variants (minor allele frequencies 0.0005 to 0.05,
log-uniform). Phenotypes are drawn independently of the genotypes, hundreds at a time for every gene: normal, or
binary with a fixed number of cases in each study. Each study has an intercept; (U, V) are summed over both. The main
rows are what `tests.calibrate: auto` reports: model variances for quantitative traits and 1:1, calibrated ones and
ultra-rare variants collapsed for 1:10 and 1:50. Every gene drawn is added to the checkpoint, so that a killed run
goes on where it stopped and a longer one adds to a shorter one.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from pipeline.gene_tests.base import Carriers, ScoreStatistics
from pipeline.gene_tests.calibration import UNBALANCED_SHARE, calibrate_scores
from pipeline.gene_tests.permutation import CarrierGenotypes
from pipeline.gene_tests.registry import TESTS, evaluate
from pipeline.gene_tests.resampling import Resampling
from pipeline.gene_tests.step_up import SEARCHES as ALL_SEARCHES
from pipeline.gene_tests.step_up import StepUpParameters

Floats = NDArray[np.float64]
ALPHAS = (0.05, 0.01, 1e-3, 1e-4)
M, N_STUDIES = 30, 2
TRAITS, CALIBRATED = 1500, 300  # phenotypes of a gene, and those of them whose variances are calibrated
SEARCHES = ("step-up", "all-maf", "groupings")
SLOW = ("skat-o-exact", "random-effects", "vt")  # one phenotype at a time, a part of the phenotypes
FAST = tuple(name for name in TESTS if name not in (*ALL_SEARCHES, *SLOW))
SLOW_PART, SEARCHED_PART = 0.2, 0.1
ULTRA_RARE = 10.0
MODEL_VARIANCE = "model variance"  # rows without calibration, beside the calibrated ones


@dataclass(frozen=True)
class Scenario:
    """A kind of phenotype.

    Attributes:
        share: of cases; None for a quantitative trait.
        n: samples of each study.
        estimated: whether a quantitative trait is divided by its own standard deviation, as a study does.
    """

    share: float | None
    n: int = 1000
    estimated: bool = True

    @property
    def is_calibrated(self) -> bool:
        """Whether `calibrate: auto` calibrates it."""
        return self.share is not None and self.share < UNBALANCED_SHARE


SCENARIOS = {
    "quantitative": Scenario(None),
    "binary 1:1": Scenario(1 / 2),
    "binary 1:10": Scenario(1 / 11),
    "binary 1:50": Scenario(1 / 51),
    "binary 1:10, studies of 5,000": Scenario(1 / 11, 5000),
    "binary 1:50, studies of 5,000": Scenario(1 / 51, 5000),
    "quantitative, residual variance known": Scenario(None, estimated=False),
}


def draw_gene(rng: np.random.Generator, n: int, m: int = M) -> Floats:
    """Return genotypes (studies, n, m), each variant seen at least once overall."""
    frequency = np.exp(rng.uniform(np.log(5e-4), np.log(0.05), m))
    G = rng.binomial(2, frequency, (N_STUDIES, n, m)).astype(np.float64)
    for j in np.flatnonzero(G.sum(axis=(0, 1)) == 0):
        G[rng.integers(N_STUDIES), rng.integers(n), j] = 1.0
    return G


def draw_residuals(rng: np.random.Generator, n: int, traits: int, case: Scenario) -> tuple[Floats, float]:
    """Return residuals (n, traits) and the weight w such that ``V = w (G'G - n gbar gbar')``.

    Normal phenotypes have mean nought and variance one in the study; binary ones a fixed number of cases.
    """
    if case.share is None:
        y = rng.standard_normal((n, traits))
        y -= y.mean(axis=0)
        return (y / np.sqrt((y * y).sum(axis=0) / (n - 1)) if case.estimated else y), 1.0
    cases = max(1, round(n * case.share))
    y = np.zeros((n, traits))
    y[:cases] = 1.0
    return rng.permuted(y, axis=0) - cases / n, cases / n * (1 - cases / n)


def make_statistics(
    rng: np.random.Generator, G: Floats, traits: int, case: Scenario
) -> tuple[ScoreStatistics, list[Floats]]:
    """Return statistics of null phenotypes, and the residuals (n, T) of each study."""
    parts, residuals = [], []
    for g in G:
        r, w = draw_residuals(rng, g.shape[0], traits, case)
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


class Calibrator:
    """Calibrated V of one gene's phenotypes, as a study shares it and `locomass meta` uses it.

    With one fitted probability for all samples the calibrated variance of a variant depends on the number of its
    alleles among the cases alone, so it is computed once per number.
    """

    def __init__(self, G: Floats, per_study: tuple[tuple[Floats, Floats, Floats], ...], residuals: list[Floats]):
        self.G, self.V = G, [V for _, V, _ in per_study]
        self.case = [r > 0 for r in residuals]
        self.columns = [np.column_stack((g, g.sum(axis=1))) for g in G]  # variants, then the count burden
        self.known: dict[tuple[int, int, int], float] = {}

    def variance(self, k: int, j: int, count: int, t: int) -> float:
        """Return the calibrated variance of a column of study k with ``count`` alleles among the cases."""
        if (k, j, count) not in self.known:
            x, y = self.columns[k][:, j], self.case[k][:, t].astype(np.float64)
            sample = np.flatnonzero(x)
            genotypes = CarrierGenotypes(np.array([0, sample.size]), sample, x[sample], x.size)
            mu = np.full(x.size, y.mean())
            self.known[k, j, count] = float(calibrate_scores(genotypes, y, mu, np.ones((x.size, 1)))[0])
        return self.known[k, j, count]

    def study_variances(self, t: int) -> list[Floats]:
        """Return V_k~ of every study for phenotype t, divided by the burden's correction."""
        parts, burden = [], 0.0
        for k, columns in enumerate(self.columns):
            counts = (columns.T @ self.case[k][:, t]).astype(int)
            own = np.array([self.variance(k, j, c, t) for j, c in enumerate(counts)])
            plain = self.V[k].diagonal()
            factor = np.sqrt(np.divide(own[:-1], plain, out=np.ones_like(plain), where=plain > 0))
            parts.append(self.V[k] * np.outer(factor, factor))
            burden += own[-1]
        correction = min(1.0, sum(float(V.sum()) for V in parts) / burden) if burden > 0 else 1.0
        return [V / correction for V in parts]


def carriers_of(G: Floats, parts: Sequence[tuple[Floats, Floats, Floats]], share: float) -> tuple[Carriers, ...]:
    """Return what every study tells of its carriers."""
    n = float(G.shape[1])
    return tuple(
        Carriers(n, share, g.sum(axis=0) / (2 * n), V, np.eye(len(V))) for g, (_, V, _) in zip(G, parts, strict=True)
    )


def take_traits(stats: ScoreStatistics, first: int, last: int, V: list[Floats] | None = None) -> ScoreStatistics:
    """Return the statistics of some phenotypes, with other matrices of the studies if they are given."""
    one = slice(first, last)
    parts = [(U[one], own, scale[one]) for U, own, scale in stats.per_study]
    if V is not None:
        parts = [(U, own, scale) for (U, _, scale), own in zip(parts, V, strict=True)]
    return replace(
        stats, U=stats.U[one], V=np.sum([p[1] for p in parts], axis=0), scale=stats.scale[one],
        n_samples=stats.n_samples[one], per_study=tuple(parts),
    )  # fmt: skip


def run_tests(
    stats: ScoreStatistics, step_up: StepUpParameters, share: float, wanted: frozenset[str]
) -> dict[str, Floats]:
    """Return log p by test: the slow ones and the searches for a part of the phenotypes."""
    n = stats.n_traits
    log_p: dict[str, Floats] = {}
    for names, part in ((FAST, 1.0), (SLOW, SLOW_PART), (SEARCHES, SEARCHED_PART)):
        count = n if part == 1.0 else int(n * part * share)
        chosen = [name for name in names if name in wanted]
        if count and chosen:
            rows = evaluate(take_traits(stats, 0, count), chosen, step_up=step_up)
            log_p |= {f"{name} {w}".strip(): r.log_p for name, w, r in rows}
    return log_p


def run_calibrated(
    calibrator: Calibrator, stats: ScoreStatistics, step_up: StepUpParameters, wanted: frozenset[str]
) -> dict[str, Floats]:
    """Return log p by test with calibrated variances, phenotype by phenotype."""
    found: dict[str, list[float]] = {}
    for t in range(stats.n_traits):
        one = take_traits(stats, t, t + 1, calibrator.study_variances(t))
        names = FAST + SLOW * (t % round(1 / SLOW_PART) == 0) + SEARCHES * (t % round(1 / SEARCHED_PART) == 0)
        chosen = [name for name in names if name in wanted]
        for name, w, r in evaluate(one, chosen, step_up=step_up, ultra_rare=ULTRA_RARE):
            found.setdefault(f"{name} {w}".strip(), []).append(float(r.log_p[0]))
    return {name: np.array(values) for name, values in found.items()}


def test_gene(seed: int, scenario: str, traits: int, wanted: frozenset[str]) -> dict[str, list[int]]:
    """Return, per test, the number of p-values at or below each of `ALPHAS`, and how many p-values there were."""
    rng = np.random.default_rng([seed, list(SCENARIOS).index(scenario)])
    case = SCENARIOS[scenario]
    G = draw_gene(rng, case.n)
    stats, residuals = make_statistics(rng, G, min(traits, CALIBRATED) if case.is_calibrated else traits, case)
    step_up = StepUpParameters(resampling=Resampling(max_permutations=4000, seed=seed))
    if not case.is_calibrated:
        log_p = run_tests(stats, step_up, 1.0, wanted)
    else:
        known = replace(stats, carriers=carriers_of(G, stats.per_study, case.share or 0.5))
        log_p = run_calibrated(Calibrator(G, stats.per_study, residuals), known, step_up, wanted)
        if MODEL_VARIANCE in wanted:
            plain = run_tests(stats, step_up, 0.5, wanted)
            log_p |= {f"{name} ({MODEL_VARIANCE})": values for name, values in plain.items()}
    return {name: count_small(values) for name, values in log_p.items()}


def count_small(log_p: Floats) -> list[int]:
    """Return how many p-values are at or below each of `ALPHAS`, then how many there are."""
    known = log_p[np.isfinite(log_p)]
    return [*(int((known <= np.log(a)).sum()) for a in ALPHAS), len(known)]


def run(
    minutes: float, most: int, checkpoint: Path, traits: int, scenarios: Sequence[str], wanted: frozenset[str]
) -> dict[str, dict[str, list[int]]]:
    """Test genes until time is up or every scenario has the most, adding to the checkpoint; return the counts."""
    state = json.loads(checkpoint.read_text()) if checkpoint.exists() else {"genes": {}, "counts": {}}
    stop = time.monotonic() + 60 * minutes
    while time.monotonic() < stop and any(state["genes"].get(name, 0) < most for name in scenarios):
        for scenario in (name for name in scenarios if state["genes"].get(name, 0) < most):
            into = state["counts"].setdefault(scenario, {})
            gene = state["genes"].get(scenario, 0)
            for name, counts in test_gene(gene, scenario, traits, wanted).items():
                into[name] = [a + b for a, b in zip(into.get(name, [0] * len(counts)), counts, strict=True)]
            state["genes"][scenario] = gene + 1
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

Made by `python -m studies.type_one_error`: up to {genes:,} genes, two studies of 1,000 samples (or 5,000), {m}
independent variants of minor allele frequency 0.0005 to 0.05, null phenotypes drawn independently of them. Rates are
the share of p-values at or below each level. **Bold**: above the 99 % binomial interval of the level (too many).
_Italic_: below it (conservative).

Quantitative and 1:1 rows use model variances. The first rows of 1:10 and 1:50 are what is reported by default,
`calibrate: auto`: variances from saddlepoint and enumeration, ultra-rare variants as one before the SKAT family, whose
p-values below 0.1 come from [draws](few-cases.md). Rows `(model variance)` are those of `calibrate: none`, which R SKAT
and seqMeta compute: they show what calibration mends.

Not every cell is inside. ACAT-O is above at 0.05 for quantitative and 1:1 traits: the Cauchy combination is exact in
the tail only. SKAT-O with flat weights is above at 1:1 by its published formula; `skat-o-exact` is inside. {unbalanced}

Cells in italics of binary traits are discreteness: with few cases the score of a rare variant takes few values, and a
p-value that counts ties in full lies below its level more often than not; binary phenotypes here have a fixed number of
cases, draws do not. Those of the quantitative trait come from the estimated residual variance: the score test divides
by the variance of the very residuals that it sums, which bounds it; the last table has the variance known.

Searches (step-up, all-maf, groupings) draw normal scores, 4,000 replicates and a Pareto tail.
"""


def describe_unbalanced(counts: dict[str, dict[str, list[int]]]) -> str:
    """Return a sentence on the default rows of unbalanced traits that are above the interval."""
    above, cells = [], 0
    for scenario in (name for name, case in SCENARIOS.items() if case.is_calibrated and name in counts):
        for test, (*small, n) in counts[scenario].items():
            if MODEL_VARIANCE in test:
                continue
            cells += len(ALPHAS)
            above += [f"{test} at {a:g} ({scenario})" for a, k in zip(ALPHAS, small, strict=True) if is_above(k, n, a)]
    found = f"{len(above)}: {'; '.join(above)}" if above else "none"
    return f"Of the {cells} default cells of unbalanced traits above the interval: {found}."


def is_above(k: int, n: int, alpha: float) -> bool:
    """Return whether k of n p-values at or below alpha are more than the 99 % interval allows."""
    return bool(k > binom.ppf(0.995, n, alpha))


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--genes", type=int, default=67, help="of every scenario, at most")
    parser.add_argument("--checkpoint", type=Path, default=Path("type-one-error.json"))
    parser.add_argument("--page", type=Path, default=Path(__file__).parents[1] / "docs" / "type-one-error.md")
    parser.add_argument("--traits", type=int, default=TRAITS)
    parser.add_argument("--remark", default="", help="a sentence on the run for the page")
    parser.add_argument("--scenarios", nargs="+", choices=list(SCENARIOS), default=list(SCENARIOS))
    parser.add_argument("--tests", nargs="+", default=[*FAST, *SLOW, *SEARCHES, MODEL_VARIANCE])
    arguments = parser.parse_args()
    wanted = frozenset(arguments.tests)
    counts = run(
        arguments.minutes, arguments.genes, arguments.checkpoint, arguments.traits, arguments.scenarios, wanted
    )
    genes = max(json.loads(arguments.checkpoint.read_text())["genes"].values())
    head = HEAD.format(genes=genes, m=M, unbalanced=describe_unbalanced(counts))
    arguments.page.write_text("\n".join([head, arguments.remark, *format_tables(counts)]) + "\n")


if __name__ == "__main__":
    main()
