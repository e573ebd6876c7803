"""Type I error of every gene test on simulated null data; writes docs/type-one-error.md.

    python -m studies.type_one_error --minutes 25 --checkpoint type-one-error.json
    python -m studies.type_one_error --scenarios "binary 1:50" --tests skat skat-o

Studies of 1,000 samples, genes of 15 independent variants (minor allele frequencies 0.0005 to 0.02, log-uniform).
Phenotypes are drawn independently of the genotypes: normal, lognormal, exponential or t3, or binary with a fixed number
of cases in each study. Each study has an intercept; (U, V) and the null laws are summed over the studies. The main rows
are what `locomass meta` reports by default (`tests.null_law: exact`, ultra-rare variants of binary traits as one before
the SKAT family); rows of normal scores are those of `tests.null_law: normal`. Every gene drawn is added to the
checkpoint, so that a killed run goes on where it stopped and a longer one adds to a shorter one.
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

from locomass.gene_tests.base import ScoreStatistics
from locomass.gene_tests.law import Residuals, StudyCarriers, is_not_normal
from locomass.gene_tests.registry import TESTS, evaluate
from locomass.gene_tests.resampling import Resampling
from locomass.gene_tests.step_up import SEARCHES as ALL_SEARCHES
from locomass.gene_tests.step_up import StepUpParameters
from locomass.scores.laws import describe_residuals
from studies.few_cases import group_people

Floats = NDArray[np.float64]
ALPHAS = (0.05, 0.01, 1e-3)
M = 15
TRAITS = 400  # phenotypes of a gene
SEARCHES = ("step-up", "all-maf", "groupings")
FAST = ("burden", "acat-v")
SLOW = tuple(name for name in TESTS if name not in (*ALL_SEARCHES, *FAST))  # for a part of the phenotypes
SLOW_EVERY, SEARCHED_EVERY = 8, 40
ULTRA_RARE = 10.0
NORMAL = "normal scores"  # rows without laws, beside the others


@dataclass(frozen=True)
class Scenario:
    """A kind of phenotype.

    Attributes:
        kind: of a quantitative trait; '' for a binary one.
        share: of cases of a binary trait.
        n: samples of each study.
        studies: how many.
    """

    kind: str = ""
    share: float = 0.0
    n: int = 1000
    studies: int = 2


SCENARIOS = {
    "normal": Scenario("normal"),
    "lognormal": Scenario("lognormal"),
    "exponential": Scenario("exponential"),
    "t3": Scenario("t3"),
    "binary 1:1": Scenario(share=1 / 2),
    "binary 1:10": Scenario(share=1 / 11),
    "binary 1:50": Scenario(share=1 / 51),
    "binary 1:10, ten studies": Scenario(share=1 / 11, studies=10),
}


def draw_gene(rng: np.random.Generator, case: Scenario, m: int = M) -> Floats:
    """Return genotypes (studies, n, m), each variant seen at least once overall."""
    frequency = np.exp(rng.uniform(np.log(5e-4), np.log(0.02), m))
    G = rng.binomial(2, frequency, (case.studies, case.n, m)).astype(np.float64)
    for j in np.flatnonzero(G.sum(axis=(0, 1)) == 0):
        G[rng.integers(case.studies), rng.integers(case.n), j] = 1.0
    return G


def draw_residuals(rng: np.random.Generator, traits: int, case: Scenario) -> tuple[Floats, float]:
    """Return residuals (n, traits) and the weight w such that ``V = w (G'G - n gbar gbar')``.

    Quantitative phenotypes have mean nought and variance one in the study; binary ones a fixed number of cases.
    """
    n = case.n
    if case.kind:
        y = {
            "normal": rng.standard_normal,
            "lognormal": lambda size: rng.lognormal(size=size),
            "exponential": lambda size: rng.exponential(size=size),
            "t3": lambda size: rng.standard_t(3, size),
        }[case.kind]((n, traits))
        y -= y.mean(axis=0)
        return y / np.sqrt((y * y).sum(axis=0) / (n - 1)), 1.0
    cases = max(1, round(n * case.share))
    y = np.zeros((n, traits))
    y[:cases] = 1.0
    return rng.permuted(y, axis=0) - cases / n, cases / n * (1 - cases / n)


def make_statistics(rng: np.random.Generator, G: Floats, traits: int, case: Scenario) -> list[ScoreStatistics]:
    """Return the statistics of null phenotypes one by one, with what every study tells of its carriers."""
    drawn = [draw_residuals(rng, traits, case) for _ in G]
    centred = [g - g.mean(axis=0) for g in G]
    V = [w * (c.T @ c) for (_, w), c in zip(drawn, centred, strict=True)]
    U = [r.T @ g for (r, _), g in zip(drawn, G, strict=True)]
    people = [group_people(g, np.full(case.n, case.share or 0.5), own) for g, own in zip(G, V, strict=True)]
    mac, n = G.sum(axis=(0, 1)), G.shape[0] * G.shape[1]
    return [
        ScoreStatistics(
            U=np.sum([own[t] for own in U], axis=0)[None],
            V=np.sum(V, axis=0),
            scale=np.ones(1),
            maf=mac / (2 * n),
            mac=mac,
            n_samples=np.array([float(n)]),
            rare=np.ones(M, np.bool_),
            annotations={"damaging": (np.arange(M) % 2).astype(float)},
            per_study=tuple((u[t : t + 1], v, np.ones(1)) for u, v in zip(U, V, strict=True)),
            laws=(tuple(_tell(own, r[:, t], case) for own, (r, _) in zip(people, drawn, strict=True)),),
            gene=str(rng.integers(2**31)),
        )
        for t in range(traits)
    ]


def _tell(people: StudyCarriers, residual: Floats, case: Scenario) -> StudyCarriers:
    """Return the carriers of one study as its bundle tells of them: binary, or with the law of a trait's residuals."""
    if not case.kind:
        return people
    told = describe_residuals(residual, 0)
    law = Residuals(np.array(told["node"]), np.array(told["chance"]))
    return replace(people, mu=None, residuals=law if is_not_normal(law, float(residual.size)) else None)


def test_gene(seed: int, scenario: str, traits: int, wanted: frozenset[str]) -> dict[str, list[int]]:
    """Return, per test, the number of p-values at or below each of `ALPHAS`, and how many p-values there were."""
    rng = np.random.default_rng([seed, list(SCENARIOS).index(scenario)])
    case = SCENARIOS[scenario]
    step_up = StepUpParameters(resampling=Resampling(max_permutations=4000, seed=seed))
    found: dict[str, list[float]] = {}
    for t, stats in enumerate(make_statistics(rng, draw_gene(rng, case), traits, case)):
        names = FAST + SLOW * (t % SLOW_EVERY == 0) + SEARCHES * (t % SEARCHED_EVERY == 0)
        chosen = [name for name in names if name in wanted]
        pooled = 0.0 if case.kind else ULTRA_RARE
        for name, w, row in evaluate(stats, chosen, step_up=step_up, ultra_rare=pooled):
            found.setdefault(f"{name} {w}".strip(), []).append(float(row.log_p[0]))
        if NORMAL in wanted:
            plain = [name for name in ("burden", "skat", "acat-v") if name in chosen]
            for name, w, row in evaluate(replace(stats, laws=()), plain):
                found.setdefault(f"{name} {w} ({NORMAL})", []).append(float(row.log_p[0]))
    return {name: count_small(np.array(values)) for name, values in found.items()}


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
            if time.monotonic() >= stop:
                break
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

Made by `python -m studies.type_one_error`: up to {genes:,} genes, two studies of 1,000 samples (or ten), {m}
independent variants of minor allele frequency 0.0005 to 0.02, null phenotypes drawn independently of them. Rates are
the share of p-values at or below each level. **Bold**: above the 99 % binomial interval of the level (too many).
_Italic_: below it (conservative).

The main rows are what is reported by default: scores have their [null laws](statistics.md#null-laws), ultra-rare
variants of binary traits are one before the SKAT family. Rows of normal scores are those of `tests.null_law: normal`.
Phenotypes of one gene share its carriers, so that a cell varies more than its interval says, and {expected} of the
{cells} default cells would be in bold by chance. {above}

Cells in italics are discreteness, with few cases or carriers a score takes few values, and the estimated residual
variance of a quantitative trait, which bounds the score of the very residuals that it sums.
"""


def describe_above(counts: dict[str, dict[str, list[int]]]) -> tuple[int, str]:
    """Return the number of default cells, and a sentence on those above the interval."""
    above, cells = [], 0
    for scenario, tests in counts.items():
        for test, (*small, n) in tests.items():
            if NORMAL in test:
                continue
            cells += len(ALPHAS)
            above += [f"{test} at {a:g} ({scenario})" for a, k in zip(ALPHAS, small, strict=True) if is_above(k, n, a)]
    return cells, f"Above it: {len(above)}" + (f" ({'; '.join(above)})." if above else ".")


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
    parser.add_argument("--tests", nargs="+", default=[*FAST, *SLOW, *SEARCHES, NORMAL])
    arguments = parser.parse_args()
    wanted = frozenset(arguments.tests)
    counts = run(
        arguments.minutes, arguments.genes, arguments.checkpoint, arguments.traits, arguments.scenarios, wanted
    )
    genes = max(json.loads(arguments.checkpoint.read_text())["genes"].values())
    cells, above = describe_above(counts)
    head = HEAD.format(genes=genes, m=M, cells=cells, expected=round(0.005 * cells), above=above)
    arguments.page.write_text("\n".join([head, arguments.remark, *format_tables(counts)]) + "\n")


if __name__ == "__main__":
    main()
