"""Where the power of a search goes when a burden is divided by the empirical variance of its own carriers.

    python -m studies.grouping.variance            # some 5 minutes of one core; its section of docs/studies-grouping.md

With T_i = e_i sum_j b_j (g_ij - gbar_j), z2 = (sum T_i)^2 / sum T_i^2 is at most the number of carriers (Cauchy and
Schwarz), however large their residuals: k carriers with residual r have z2 = k, against k r^2 with the model variance
(residuals of variance 1). A further singleton of residual t > 0 raises z2 only while

    t < 2 z2/(z2 - 1) sum T_i^2 / sum T_i,

because (A + t)^2 / (B + t^2) > A^2 / B if and only if t (A^2 - B) < 2 A B: step-up refuses the strongest residuals.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, rankdata
from threadpoolctl import threadpool_limits

from locomass.gene_tests.groupings import MAX_SUBSET_VARIANTS, Groupings, Search, build_groupings, build_subsets
from locomass.gene_tests.permutation import search_individuals
from locomass.gene_tests.permutation_trait import IndividualTrait
from locomass.gene_tests.resampling import Resampling
from locomass.gene_tests.step_up_kernel import search_step_up
from locomass.simulate.pool import Haplotypes, draw_cases, draw_people
from studies.grouping.design import GENE_SIZES, N_HAPLOTYPES, N_PEOPLE, SCENARIOS, draw_effects, make_pools
from studies.grouping.models import ALPHA, collect_carriers
from studies.grouping.summary import Difference, null_interval

Floats = NDArray[np.float64]
Booleans = NDArray[np.bool_]

VARIANCES = ("empirical", "model")
#: variance that the gene explains; simulation 1
EFFECT = 0.008
#: haplotypes of a pool: the study's, and those of 500 sequenced people
POOLS = (N_HAPLOTYPES, 1000)
TRAITS = {
    "quantitative, normal": None, "quantitative, t with 3 degrees of freedom": None,
    "the same, ranks to normal scores": None,
    "1,000 cases, 1,000 controls": 0.5, "200 cases, 1,800 controls": 0.1,
}  # fmt: skip
NORMAL, HEAVY, RANKED, BALANCED, UNBALANCED = TRAITS
SEARCHED = ("step-up", "all MAF")
SETS = ("causal variants, known", "no cut-off", "all MAF", "step-up")
#: genes small enough for all subsets
SMALL = (6, 7, 8, 9)


@dataclass(frozen=True)
class Draw:
    """Genotypes (n, m) of the variants seen, trait (n,), cases or None, and which variants are damaging (m,)."""

    G: Haplotypes
    y: Floats
    case: Booleans | None
    causal: Booleans


def draw_gene(pool: Haplotypes, trait: str, effect: float, rng: np.random.Generator) -> Draw:
    """Draw people and their trait, effects as in simulation 1.

    The log relative risk has variance effect / (2 p (1 - p)), p the share of cases, so that the noncentrality of a
    small effect does not depend on p (twice the effect at p = 1/2, as in the study).
    """
    share = TRAITS[trait]
    explained = effect if share is None else effect / (2 * share * (1 - share))
    beta, damaging = draw_effects(pool, SCENARIOS["1"], explained, rng)
    if share is None:
        G, case = draw_people(pool, N_PEOPLE, rng), None
        noise = rng.standard_normal(N_PEOPLE) if trait == NORMAL else rng.standard_t(3, N_PEOPLE) / np.sqrt(3)
        y = G @ beta + np.sqrt(1 - effect) * noise
        y = norm.ppf((rankdata(y) - 0.5) / N_PEOPLE) if trait == RANKED else y
    else:
        n_cases = round(share * N_PEOPLE)
        G = np.concatenate((draw_cases(pool, beta, n_cases, rng), draw_people(pool, N_PEOPLE - n_cases, rng)))
        case = np.arange(N_PEOPLE) < n_cases
        y = case.astype(np.float64)
    seen = G.any(axis=0)
    return Draw(G[:, seen], y, case, damaging[seen])


def list_sets(draw: Draw, names: Sequence[str]) -> dict[str, Groupings | None]:
    """Return what each search looks at; sets that this gene does not have are left out."""
    maf = draw.G.mean(axis=0) / 2
    sets: dict[str, Groupings | None] = {"step-up": None}
    if "no cut-off" in names:
        sets["no cut-off"] = build_groupings(maf, max_maf=(1.0,))
    if "all MAF" in names:
        sets["all MAF"] = build_groupings(maf)
    if "causal variants, known" in names and draw.causal.any():
        sets["causal variants, known"] = build_groupings(maf, {"causal": draw.causal}, (1.0,))
    if "all subsets" in names and len(maf) <= MAX_SUBSET_VARIANTS:
        sets["all subsets"] = build_subsets(len(maf))
    return {name: walk for name, walk in sets.items() if name in names}


class Tally:
    """Statistics and decisions of searches, gene by gene, replicate by replicate."""

    def __init__(self) -> None:
        """Start empty."""
        self.rows: dict[str, list[list[tuple[float, bool]]]] = {}

    def add(self, replicate: int, name: str, z2: float, rejects: bool) -> None:
        """Keep what a search found in one gene."""
        rows = self.rows.setdefault(name, [])
        while len(rows) <= replicate:
            rows.append([])
        rows[replicate].append((z2, rejects))

    def mean(self, name: str) -> float:
        """Return the mean z2."""
        return float(np.mean([z2 for row in self.rows[name] for z2, _ in row]))

    def power(self, name: str) -> float:
        """Return the share of genes that reject."""
        return float(np.mean([rejects for row in self.rows[name] for _, rejects in row]))

    def by_replicate(self, name: str) -> Floats:
        """Return the share of genes that reject, replicate by replicate."""
        return np.array([np.mean([rejects for _, rejects in row]) for row in self.rows[name] if row])

    def compare(self, first: str, second: str) -> Difference:
        """Return the paired difference in power with its standard error over replicates."""
        d = self.by_replicate(first) - self.by_replicate(second)
        return Difference(float(d.mean()), float(d.std(ddof=1) / np.sqrt(len(d))))


def key(name: str, variance: str) -> str:
    """Return the row of a search."""
    return f"{name}, {variance}"


def run_searches(
    pools: Sequence[Haplotypes],
    trait: str,
    effect: float,
    replicates: int,
    names: Sequence[str],
    permutations: int = 200,
) -> Tally:
    """Run searches with both weights, unsigned, with both variances on one stream of permutations.

    A gene that lacks one of the sets (no causal variant seen, too many variants for all subsets) is left out.
    """
    tally = Tally()
    enough = max(1, int(ALPHA * (1 + permutations)))
    for r in range(replicates):
        for g, pool in enumerate(pools):
            rng = np.random.default_rng([7, list(TRAITS).index(trait), round(1e6 * effect), pool.shape[0], r, g])
            draw = draw_gene(pool, trait, effect, rng)
            sets = list_sets(draw, names)
            if len(sets) < len(names):
                continue
            searches = [
                Search(key(name, v), walk, "both", "fixed", v) for name, walk in sets.items() for v in VARIANCES
            ]
            resampling = Resampling(permutations, enough, tail=False, seed=int(rng.integers(2**31)))
            individual = IndividualTrait(draw.y - draw.y.mean(), case=draw.case)
            for name, found in search_individuals(collect_carriers(draw.G), individual, searches, resampling).items():
                tally.add(r, name, float(found.statistic[0]), bool(np.exp(found.log_p[0]) <= ALPHA))
    return tally


def cross_searches(
    pools: Sequence[Haplotypes], replicates: int, permutations: int = 99
) -> tuple[Tally, dict[str, float]]:
    """Let one variance lead the search and another judge the set it ends with; constant weights, normal trait.

    Returns:
        The tally, rows `key(leading, judging)`, and per leading variance the share of singletons with a residual
        above 3 standard deviations that the set holds.
    """
    tally, strong, held = Tally(), 0, dict.fromkeys(VARIANCES, 0)
    for r in range(replicates):
        for g, pool in enumerate(pools):
            rng = np.random.default_rng([8, r, g])
            draw = draw_gene(pool, NORMAL, EFFECT, rng)
            G = draw.G - draw.G.mean(axis=0)
            e = draw.y - draw.y.mean()
            observed, chosen = _cross_once(G, e)
            above = (draw.G.sum(axis=0) == 1) & (G.T @ e > 3 * e.std())
            strong += int(above.sum())
            for variance in VARIANCES:
                held[variance] += int((above & chosen[variance]).sum())
            beyond = dict.fromkeys(observed, 0)
            for _ in range(permutations):
                for name, z2 in _cross_once(G, rng.permutation(e))[0].items():
                    beyond[name] += z2 >= observed[name] * (1 - 1e-9)
            for name, z2 in observed.items():
                tally.add(r, name, z2, (1 + beyond[name]) / (1 + permutations) <= ALPHA)
    return tally, {variance: held[variance] / max(strong, 1) for variance in VARIANCES}


def _cross_once(G: Floats, e: Floats) -> tuple[dict[str, float], dict[str, Booleans]]:
    """Return z2 of every leading and judging variance, and the sets that were chosen."""
    m = G.shape[1]
    U, T = e @ G, e[:, None] * G
    matrices = {"empirical": T.T @ T, "model": float(e @ e) / (len(e) - 1) * G.T @ G}
    z2, chosen = {}, {}
    for leading in VARIANCES:
        order, b = np.empty(m, dtype=np.int64), np.ones(m)
        _, size = search_step_up(U, np.ascontiguousarray(matrices[leading]), b, np.empty(m), order)
        inside = np.zeros(m, dtype=np.bool_)
        inside[order[:size]] = True
        chosen[leading] = inside
        for judging, M in matrices.items():
            z2[key(leading, judging)] = float(U[inside].sum() ** 2 / M[np.ix_(inside, inside)].sum())
    return z2, chosen


def list_lines(replicates: int, engine: str = "msprime") -> Iterator[str]:
    """Give the lines of the page."""
    pools = {n: make_pools(1, engine, GENE_SIZES, n) for n in POOLS}
    small = make_pools(1, engine, SMALL)
    yield f"""
Simulation 1, {100 * EFFECT:.1f} % of the variance, {replicates} replicates of {len(GENE_SIZES)} genes,
200 permutations, both weights, unsigned. z2 is the mean over genes, without an effect ->
with one; power in per cent at {ALPHA}.

| set | z2, empirical | z2, model | power, empirical | power, model | difference |
|---|---:|---:|---:|---:|---:|"""
    for where, names, label in (
        (pools[N_HAPLOTYPES], SETS, "{}"),
        (small * 4, ("step-up", "all subsets"), "{}, genes of some " + f"{SMALL[0]} to {SMALL[-1]} variants"),
    ):
        null, found = (run_searches(where, NORMAL, effect, replicates, names) for effect in (0.0, EFFECT))
        for name in names:
            yield _describe_set(label.format(name), name, null, found)
    yield from _list_cross(pools[N_HAPLOTYPES], replicates)
    yield from _list_traits(pools, replicates)


def _describe_set(label: str, name: str, null: Tally, found: Tally) -> str:
    """Return the row of a set."""
    cells = [f"{null.mean(key(name, v)):.1f} -> {found.mean(key(name, v)):.1f}" for v in VARIANCES]
    cells += [f"{100 * found.power(key(name, variance)):.0f}" for variance in VARIANCES]
    return f"| {label} | " + " | ".join(cells) + f" | {found.compare(key(name, 'model'), key(name, 'empirical'))} |"


def _list_cross(pools: Sequence[Haplotypes], replicates: int) -> Iterator[str]:
    """Give the table of leading and judging variances."""
    tally, held = cross_searches(pools, replicates)
    empirical, model = (f"{100 * held[variance]:.0f} %" for variance in VARIANCES)
    yield f"""
Step-up with constant weights, led by one variance, the set it ends with judged by another. Of singletons with a
residual above 3 standard deviations the set holds {empirical} (empirical) and {model} (model).

| power, % | judged by the empirical variance | by the model variance |
|---|---:|---:|"""
    for leading in VARIANCES:
        cells = [f"{100 * tally.power(key(leading, judging)):.0f}" for judging in VARIANCES]
        yield f"| led by the {leading} variance | " + " | ".join(cells) + " |"


def _list_traits(pools: Mapping[int, Sequence[Haplotypes]], replicates: int) -> Iterator[str]:
    """Give the table of traits and pools."""
    columns = ("haplotypes", "seen once or twice, %", "step-up, empirical", "step-up, model", "difference",
               "all MAF, empirical", "all MAF, model", "difference", "step-up - all MAF, model")  # fmt: skip
    yield """
By trait, and by how rare the variants are: a pool of 1,000 haplotypes is what 500 sequenced people show. Power in per
cent; differences are paired.
"""
    yield "| trait | " + " | ".join(columns) + " |"
    yield "|---|" + "---:|" * len(columns)
    null = []
    for trait in TRAITS:
        for haplotypes, genes in pools.items():
            tally = run_searches(genes, trait, EFFECT, replicates, SEARCHED)
            null.append(run_searches(genes, trait, 0.0, replicates, SEARCHED))
            cells = [f"{haplotypes:,}", f"{100 * _share_rare(genes):.0f}"]
            for name in SEARCHED:
                cells += [f"{100 * tally.power(key(name, variance)):.0f}" for variance in VARIANCES]
                cells.append(str(tally.compare(key(name, "model"), key(name, "empirical"))))
            cells.append(str(tally.compare(key("step-up", "model"), key("all MAF", "model"))))
            yield f"| {trait} | " + " | ".join(cells) + " |"
    yield f"\n{_describe_null(null, len(GENE_SIZES) * replicates)}"


def _describe_null(null: Sequence[Tally], genes: int) -> str:
    """Say whether the searches hold their level."""
    low, high = null_interval(genes)
    rates = [tally.power(row) for tally in null for row in tally.rows]
    outside = sum(not low <= round(rate * genes) <= high for rate in rates)
    return (
        f"Without an effect the same {len(rates)} cells reject {100 * min(rates):.1f} to {100 * max(rates):.1f} % of "
        f"{genes:,} genes; {outside} lie outside the 99 % interval, "
        f"{100 * low / genes:.1f} to {100 * high / genes:.1f} %."
    )


def _share_rare(pools: Sequence[Haplotypes]) -> float:
    """Return the share of the variants of 2,000 people that are seen once or twice."""
    counts = np.concatenate([draw_people(pool, N_PEOPLE, np.random.default_rng(1)).sum(axis=0) for pool in pools])
    return float((counts[counts > 0] <= 2).mean())


def check_variance(replicates: int = 16) -> Iterator[tuple[str, bool]]:
    """Give what must hold, and whether it does, on a few genes: differences beyond two standard errors."""
    model, empirical = key("step-up", "model"), key("step-up", "empirical")
    pools = {n: make_pools(1, "built-in", (14, 24, 36, 54), n) for n in POOLS}
    many, few = (
        run_searches(genes, NORMAL, 2 * EFFECT, replicates, ("step-up",), 100).compare(model, empirical)
        for genes in pools.values()
    )
    yield f"step-up, model beats empirical where singletons are many: {many} points", many.value > 2 * many.error
    error = float(np.hypot(many.error, few.error))
    yield f"by more than where they are few: {few} points", many.value - few.value > 2 * error
    few_cases = run_searches(pools[N_HAPLOTYPES][:2], UNBALANCED, 2 * EFFECT, replicates, ("step-up",), 100)
    gain = few_cases.compare(model, empirical)
    yield f"and with 1 case to 9 controls: {gain} points", gain.value > 2 * gain.error
    same = run_searches(pools[N_HAPLOTYPES][:2], BALANCED, EFFECT, 5, ("step-up",), 100).compare(model, empirical)
    yield f"as many cases as controls: the variances agree, {same} points", same.value == 0 and same.error == 0


def main() -> None:
    """Write the section of the page."""
    from studies.grouping.report import fill_page

    parser = argparse.ArgumentParser(prog="python -m studies.grouping.variance", description=__doc__)
    parser.add_argument("--replicates", type=int, default=20)
    threadpool_limits(1)
    fill_page("variance", list_lines(parser.parse_args().replicates))


if __name__ == "__main__":
    main()
