"""Names of the gene tests, and the one function that runs them.

A new test is a file with a function ``(Components, weights name) -> TestResult`` and one line in ``TESTS``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from locomass.errors import ConfigError, suggest
from locomass.gene_tests.acat import acat_o, acat_v
from locomass.gene_tests.base import ScoreStatistics, TestResult, missing_result
from locomass.gene_tests.burden import burden, price
from locomass.gene_tests.cmc import cmc
from locomass.gene_tests.components import (
    COMMON,
    PARTICLES,
    CollapsedWeight,
    Components,
    check_statistics,
    take_variants,
)
from locomass.gene_tests.heterogeneity import burden_het, random_effects, skat_het, skat_random_effects
from locomass.gene_tests.law_tails import Ties
from locomass.gene_tests.skat import skat, skat_joint
from locomass.gene_tests.skat_o import skat_o, skat_o_published
from locomass.gene_tests.step_up import DEFAULT, StepUpParameters, compute_search
from locomass.gene_tests.variable_threshold import variable_threshold
from locomass.gene_tests.weights import parse_weights
from locomass.numbers import Floats


@dataclass(frozen=True, slots=True)
class GeneTest:
    """A test and how to call it.

    Attributes:
        name: as in the configuration.
        compute: the test; its second argument is the name of the weights, or '' when it takes none.
        scope: ``bin`` sees the rare variants of a row, ``mask`` all variants of the mask.
        weights: ``each``: one row per set of weights; ``all``: one row that uses all of them; ``none``: its own.
        summary: one line of help.
        reads: which of the three that one kernel computes together (`Components.common`) the test reads.
        with_drivers: the variants behind a row with a small p-value are in drivers.parquet.
        by_study: it needs the statistics of every study, not their sum alone.
        is_search: it draws or permutes the search over groupings of variants; left out of what drops studies in turn.
    """

    name: str
    compute: Callable[[Components, str], TestResult]
    scope: Literal["bin", "mask"]
    weights: Literal["each", "all", "none"]
    summary: str
    reads: tuple[str, ...] = ()
    with_drivers: bool = True
    by_study: bool = False
    is_search: bool = False


def _search(name: str, summary: str) -> GeneTest:
    """Return the test that runs one search."""

    def compute(c: Components, _: str) -> TestResult:
        return compute_search(name, c.stats, c.step_up, c.replicates)

    return GeneTest(name, compute, "bin", "none", summary, is_search=True)


TESTS: dict[str, GeneTest] = {
    test.name: test
    for test in (
        GeneTest(
            "burden", burden, "bin", "each", "weighted sum of the rare variants", reads=("burden",), with_drivers=False
        ),
        GeneTest("skat", skat, "bin", "each", "sequence kernel association test", reads=("skat",)),
        GeneTest("skat-o", skat_o, "bin", "each", "best mixture of SKAT and burden, exact at every p", reads=("skat",)),
        GeneTest(
            "skat-o-published",
            skat_o_published,
            "bin",
            "each",
            "SKAT-O by the published integral, for comparisons; exact in the tail",
            reads=("skat",),
        ),
        GeneTest("acat-v", acat_v, "bin", "each", "Cauchy combination of the variants", reads=("acat-v",)),
        GeneTest("acat-o", acat_o, "bin", "all", "Cauchy combination of SKAT, burden and ACAT-V", reads=COMMON),
        GeneTest("vt", variable_threshold, "bin", "each", "best frequency threshold", with_drivers=False),
        GeneTest(
            "cmc",
            cmc,
            "mask",
            "none",
            "Hotelling test of collapsed rare and each common variant",
            with_drivers=False,
        ),
        GeneTest(
            "price",
            price,
            "mask",
            "none",
            "Madsen-Browning burden of all frequencies",
            reads=("burden",),
            with_drivers=False,
        ),
        GeneTest("skat-joint", skat_joint, "mask", "each", "SKAT of common and rare variants with equal shares"),
        GeneTest(
            "skat-het",
            skat_het,
            "bin",
            "each",
            "SKAT with effects independent between studies",
            by_study=True,
        ),
        GeneTest(
            "burden-het",
            burden_het,
            "bin",
            "each",
            "burden with a free effect in every study",
            by_study=True,
            with_drivers=False,
        ),
        GeneTest(
            "skat-random-effects",
            skat_random_effects,
            "bin",
            "each",
            "SKAT with shared and study effects",
            by_study=True,
            with_drivers=False,
        ),
        GeneTest(
            "random-effects",
            random_effects,
            "bin",
            "each",
            "burden with a mean and a between-study effect",
            by_study=True,
            with_drivers=False,
        ),
        _search("step-up", "step-up search over variants"),
        _search("all-maf", "best threshold by resampling"),
        _search("groupings", "best annotation and threshold"),
        _search("subsets", "best of all subsets of up to 12 variants"),
        _search("cut-off", "all variants of the bin, with the searches' signs"),
    )
}

#: Tests of the configuration that are no function of one mask's (U, V): what each needs beside it
BUNDLE_TESTS = {
    "burden-dominant": "any rare allele in the gene, 1(c >= 1); needs score_statistics.modes: [dominant]",
    "burden-recessive": "two rare alleles in the gene, 1(c >= 2); needs score_statistics.modes: [recessive]",
    "cast": "cohort allelic sums test: the dominant burden under its first name",
    "vt-dominant": "best threshold of the dominant burden",
    "vt-recessive": "best threshold of the recessive burden",
    "omnibus": "Cauchy combination of all other rows of the gene, over masks and bins",
    "pathway-step-up": "step-up search over the genes of a pathway; needs genes.pathways and the burden test",
    "pathway-fisher": "Fisher's product over the genes of a pathway; needs genes.pathways",
}

DEFAULT_WEIGHTS = ("flat", "beta_1_25")


def check_tests(names: Sequence[str]) -> None:
    """Raise ConfigError when a test is unknown.

    Raises:
        ConfigError: with the closest known name.
    """
    for name in names:
        if name not in TESTS and name not in BUNDLE_TESTS:
            raise ConfigError(f"unknown test '{name}'{suggest(name, (*TESTS, *BUNDLE_TESTS))}")


def evaluate(
    stats: ScoreStatistics,
    tests: Sequence[str],
    weights: Sequence[str] = DEFAULT_WEIGHTS,
    *,
    collapse_mac: float = 10.0,
    collapsed_weight: CollapsedWeight = "own",
    ultra_rare: float = 0.0,
    step_up: StepUpParameters = DEFAULT,
    replicates: Floats | None = None,
    particles: int = PARTICLES,
    ties: Ties = "mid",
    firth: bool = True,
) -> list[tuple[str, str, TestResult]]:
    """Run the tests of one gene and mask for all its traits; what two tests share is computed once.

    Tests of scope ``bin`` are given the rare variants only, whatever ``stats`` holds.

    Args:
        stats: score statistics of the variants of the mask.
        tests: names from ``TESTS``.
        weights: names of the weights, see ``weights.parse_weights``.
        collapse_mac: ACAT-V pools variants whose allele count is at most this.
        collapsed_weight: of that pool, by its own frequency or the mean of its variants.
        ultra_rare: the SKAT family takes variants of at most this allele count as one (0: each by itself).
        step_up: how the searches run.
        replicates: (T, P, m) null scores of the variants of ``stats``, in place of normal draws.
        particles: of the splitting behind small p-values of few cases (see ``null_draws``); fewer cost precision.
        ties: ``mid`` or ``whole``: how much of the probability of the observed score counts (see ``law_tails``).
        firth: odds ratios by Firth's penalty, or by maximum likelihood.

    Returns:
        (test, weights, result) in the order of ``tests``, then of ``weights``. The weights of a test that takes none
        are '', those of ACAT-O all names joined by '+'.

    Raises:
        ConfigError: when a test, a set of weights or an annotation column is unknown.
        StatisticsError: when the shapes of the statistics do not fit.
    """
    for name in tests:
        if name not in TESTS:
            raise ConfigError(f"unknown test '{name}'{suggest(name, TESTS)}")
    for scheme in weights:
        parse_weights(scheme)
    shared = frozenset(part for name in tests for part in TESTS[name].reads)
    views = _open_views(stats, {TESTS[name].scope for name in tests}, tuple(weights), collapse_mac)
    for opened in (v for v in views.values() if not isinstance(v, str)):
        opened.step_up = step_up
        opened.collapsed_weight = collapsed_weight
        opened.ultra_rare = ultra_rare
        opened.particles = particles
        opened.ties, opened.firth = ties, firth
        opened.shared = shared
        opened.replicates = replicates if replicates is None or stats.rare.all() else replicates[:, :, stats.rare]
    rows: list[tuple[str, str, TestResult]] = []
    for name in tests:
        test = TESTS[name]
        view = views[test.scope]
        labels = {"each": tuple(weights), "all": ("+".join(weights),), "none": ("",)}[test.weights]
        for label in labels:
            if isinstance(view, str):
                rows.append((name, label, missing_result(stats.n_traits, view)))
            else:
                rows.append((name, label, view.once(name, label, test.compute)))
    if not np.isnan([result.log_p for _, _, result in rows]).any():
        return rows
    return [(name, label, _explain(result, stats)) for name, label, result in rows]


def _explain(result: TestResult, stats: ScoreStatistics) -> TestResult:
    """Return the result with a note when some traits have no p-value and nothing says why."""
    if result.note or not np.isnan(result.log_p).any():
        return result
    missing = int(np.count_nonzero(np.isnan(result.log_p)))
    unusable = int(np.count_nonzero(~np.isfinite(stats.U).all(axis=1)))
    why = "U is not finite" if unusable == missing else "the tail could not be computed"
    return replace(result, note=f"{why} for {missing} of {stats.n_traits} traits")


def _open_views(
    stats: ScoreStatistics, scopes: set[Literal["bin", "mask"]], weights: tuple[str, ...], collapse_mac: float
) -> dict[str, Components | str]:
    """Return per scope what its tests see, or why they see nothing."""
    views: dict[str, Components | str] = {}
    all_rare = bool(stats.rare.all())
    for scope in sorted(scopes):
        if all_rare and views:  # both scopes see the same
            views[scope] = next(iter(views.values()))
            continue
        seen = stats if scope == "mask" or all_rare else take_variants(stats, stats.rare)
        if not np.isfinite(seen.U).all():
            per_study = tuple((_drop_infinite(U), V, scale) for U, V, scale in seen.per_study)
            seen = replace(seen, U=_drop_infinite(seen.U), per_study=per_study)
        note = check_statistics(seen)
        views[scope] = note if note else Components(seen, weights, collapse_mac)
    return views


def _drop_infinite(U: Floats) -> Floats:
    """Return scores with NaN in place of infinity: an infinite score must not give p = 0."""
    return np.where(np.isfinite(U), U, np.nan)
