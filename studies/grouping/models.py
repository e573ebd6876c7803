"""Every model of the paper, and what it lacked, on one sample: which of them reject at 0.05."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from locomass.gene_tests.base import ScoreStatistics
from locomass.gene_tests.groupings import Groupings, Search, build_groupings
from locomass.gene_tests.permutation import CarrierGenotypes, search_individuals
from locomass.gene_tests.permutation_trait import IndividualTrait
from locomass.gene_tests.registry import evaluate
from locomass.gene_tests.resampling import Resampling
from locomass.gene_tests.step_up import search_statistics
from locomass.simulate.pool import Haplotypes
from studies.grouping.design import Sample

Floats = NDArray[np.float64]
Booleans = NDArray[np.bool_]

ALPHA = 0.05
WEIGHTS, SIGNS = ("constant", "inverse-sd", "both"), ("fixed", "data")
GROUPINGS = (
    "MAF <= 1 %", "MAF <= 5 %", "no cut-off", "all MAF", "SIFT", "PolyPhen", "functional", "functional x all MAF",
    "step-up",
)  # fmt: skip
#: groupings that are searched with the model variance too
BOTH_VARIANCES = ("all MAF", "functional x all MAF", "step-up")
#: tests from (U, V) alone: the row's name, and the test and weights of the registry
REGISTRY = {
    "burden": ("burden", "flat"), "burden Beta(1,25)": ("burden", "beta_1_25"), "SKAT": ("skat", "beta_1_25"),
    "SKAT-O": ("skat-o", "beta_1_25"), "ACAT-O": ("acat-o", "flat+beta_1_25"), "VT": ("vt", "flat"),
}  # fmt: skip


def model_name(grouping: str, weights: str, signs: str, variance: str = "empirical") -> str:
    """Return the name of a model's row."""
    return f"{grouping}, {weights}, {signs}" + ("" if variance == "empirical" else f", {variance}")


SEARCHES: dict[str, tuple[str, str, str, str]] = {
    model_name(*setting): setting
    for setting in (
        *itertools.product(GROUPINGS, WEIGHTS, SIGNS, ("empirical",)),
        *itertools.product(BOTH_VARIANCES, ("both",), SIGNS, ("model",)),
    )
}
SUMMARY = {model_name("step-up", "both", signs, "from (U, V)"): signs for signs in SIGNS}
MODELS = (*SEARCHES, "CMC", *SUMMARY, *REGISTRY)


def list_walks(maf: Floats, sift: Booleans, polyphen: Booleans) -> dict[str, Groupings | None]:
    """Return the sets that each grouping looks at; None is the step-up search."""
    functional = {"SIFT": sift, "PolyPhen": polyphen, "both": sift & polyphen, "either": sift | polyphen}
    whole = {"all variants": np.ones(len(maf), np.bool_)}
    return {
        "MAF <= 1 %": build_groupings(maf, max_maf=(0.01,)),
        "MAF <= 5 %": build_groupings(maf, max_maf=(0.05,)),
        "no cut-off": build_groupings(maf, max_maf=(1.0,)),
        "all MAF": build_groupings(maf),
        "SIFT": build_groupings(maf, {"SIFT": sift}, (1.0,)),
        "PolyPhen": build_groupings(maf, {"PolyPhen": polyphen}, (1.0,)),
        "functional": build_groupings(maf, functional, (1.0,)),
        "functional x all MAF": build_groupings(maf, whole | functional),
        "step-up": None,
    }


def collect_carriers(G: Haplotypes) -> CarrierGenotypes:
    """Return the carriers of every variant."""
    variant, sample = np.nonzero(np.ascontiguousarray(G.T))
    indptr = np.concatenate(([0], np.cumsum(np.bincount(variant, minlength=G.shape[1])))).astype(np.int64)
    return CarrierGenotypes(indptr, sample.astype(np.int64), G[sample, variant].astype(np.float64), G.shape[0])


def summarise(sample: Sample) -> ScoreStatistics:
    """Return U and V with an intercept only; all variants count as rare."""
    G = sample.G.astype(np.float64)
    n, m = G.shape
    e = sample.y - sample.y.mean()
    variance = float(e @ e) / n if sample.case is not None else float(e @ e) / (n - 1)
    phi = variance if sample.case is None else 1.0
    centred = G - G.mean(axis=0)
    mac = G.sum(axis=0)
    return ScoreStatistics(
        U=(e @ G)[None] / phi, V=variance / phi**2 * (centred.T @ centred), scale=np.ones(1), maf=mac / (2 * n),
        mac=mac, n_samples=np.full(1, float(n)), rare=np.ones(m, np.bool_),
    )  # fmt: skip


def decide(sample: Sample, permutations: int, seed: int, models: tuple[str, ...] = MODELS) -> dict[str, bool]:
    """Return which models reject at `ALPHA`.

    A search has p = (1 + k)/(1 + permutations) and stops early once k is so large that p stays above `ALPHA`; the
    decision is that of all permutations.
    """
    enough = int(np.floor(ALPHA * (1 + permutations)))
    resampling = Resampling(permutations, max(1, enough), tail=False, seed=seed)
    stats = summarise(sample)
    log_p = _search(sample, stats.maf, resampling, [name for name in SEARCHES if name in models])
    wanted = [Search(name, None, "both", signs) for name, signs in SUMMARY.items() if name in models]
    if wanted:
        log_p |= {name: float(r.log_p[0]) for name, r in search_statistics(stats, wanted, resampling).items()}
    log_p |= _evaluate(stats, models)
    return {name: bool(np.exp(log_p[name]) <= ALPHA) for name in models}


def _search(sample: Sample, maf: Floats, resampling: Resampling, names: list[str]) -> dict[str, float]:
    """Return log p of the searches, all on one stream of permutations."""
    if not names:
        return {}
    walks = list_walks(maf, sample.sift, sample.polyphen)
    searches = []
    for name in names:
        grouping, weights, signs, variance = SEARCHES[name]
        searches.append(Search(name, walks[grouping], weights, signs, variance))
    trait = IndividualTrait(sample.y - sample.y.mean(), case=sample.case)
    found = search_individuals(collect_carriers(sample.G), trait, searches, resampling)
    return {name: float(result.log_p[0]) for name, result in found.items()}


def _evaluate(stats: ScoreStatistics, models: tuple[str, ...]) -> Mapping[str, float]:
    """Return log p of the tests of the registry; CMC collapses variants of MAF up to 1 %."""
    wanted = {name: key for name, key in REGISTRY.items() if name in models}
    rows = evaluate(stats, sorted({test for test, _ in wanted.values()})) if wanted else []
    by_key = {(test, weights): float(result.log_p[0]) for test, weights, result in rows}
    log_p = {name: by_key[key] for name, key in wanted.items()}
    if "CMC" in models:
        split = ScoreStatistics(stats.U, stats.V, stats.scale, stats.maf, stats.mac, stats.n_samples, stats.maf <= 0.01)
        log_p["CMC"] = float(evaluate(split, ["cmc"])[0][2].log_p[0])
    return log_p
