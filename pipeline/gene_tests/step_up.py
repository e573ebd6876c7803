"""Step-up and other searches over groupings from shared statistics alone.

The observed search runs on (U, V); its null distribution comes from U* ~ N(0, V) with the whole search repeated on
every draw. ``z2 = (b'U)^2 / (b'Vb)`` is free of the scale of U, so traits that share V share the draws. Where each
study has shared permutation replicates of U, their sum over studies takes the place of the normal draws.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConfigError, InputError, suggest
from pipeline.gene_tests.base import ScoreStatistics, TestResult, missing_result
from pipeline.gene_tests.groupings import (
    Groupings,
    Search,
    build_groupings,
    build_subsets,
    group_by_columns,
    inverse_sd_weights,
    plan_searches,
)
from pipeline.gene_tests.resampling import DrawBlock, ResampledP, Resampling, resample_p
from pipeline.kernels.step_up import CONSTANT, SearchPlan, run_search, search_scores, sign_weights

Floats = NDArray[np.float64]
Booleans = NDArray[np.bool_]

# An eigenvalue of V below minus this share of the largest is no rounding error.
_NOT_PSD = 1e-6


@dataclass(frozen=True, slots=True)
class StepUpParameters:
    """How the searches run when the registry calls them.

    Attributes:
        weights: ``constant``, ``inverse-sd`` or ``both``.
        signs: ``fixed`` or ``data``.
        categorical: annotation columns that are codes, for the search ``groupings``.
        low_is_damaging: annotation columns such as SIFT, for the search ``groupings``.
        resampling: when to stop.
    """

    weights: Literal["constant", "inverse-sd", "both"] = "constant"
    signs: Literal["fixed", "data"] = "fixed"
    categorical: tuple[str, ...] = ()
    low_is_damaging: tuple[str, ...] = ()
    resampling: Resampling = field(default_factory=Resampling)


DEFAULT = StepUpParameters()
#: names of the searches, as in the configuration
SEARCHES = ("step-up", "all-maf", "groupings", "subsets", "cut-off")


@dataclass(frozen=True, slots=True)
class SearchOutcome:
    """What F searches found in T traits.

    Attributes:
        statistic: (T, F) z2, -1 where nothing has variance.
        chosen: (T, F, m) the variants of the winning set.
        weight: (T, F, m) their signed weights b, nought outside the set.
        grouping: T tuples of F names of the winning groupings (empty for step-up).
    """

    statistic: Floats
    chosen: Booleans
    weight: Floats
    grouping: tuple[tuple[str, ...], ...]


def build_search(
    name: str, maf: Floats, annotations: Mapping[str, Floats], parameters: StepUpParameters = DEFAULT
) -> Search:
    """Return a search by the name of its test.

    ``step-up``: add variants one by one; ``all-maf``: every frequency as a threshold; ``groupings``: every functional
    grouping (`group_by_columns`) and all variants together, crossed with every threshold; ``subsets``: all sets of up
    to 12 variants; ``cut-off``: all variants as one set, with the weights and signs of the parameters.

    Args:
        name: one of `SEARCHES`.
        maf: (m,) frequencies.
        annotations: (m,) columns by name; read by ``groupings``.
        parameters: weights, signs, kinds of columns.

    Raises:
        InputError: ``subsets`` of more than 12 variants.
        ConfigError: the name, or a column that the parameters name, is unknown.
    """
    if name not in SEARCHES:
        raise ConfigError(f"unknown search {name!r}{suggest(name, SEARCHES)}")
    walk: Groupings | None = None
    if name == "all-maf":
        walk = build_groupings(maf)
    elif name == "groupings":
        groups = {"all variants": np.ones(maf.shape[0], dtype=np.bool_)}
        groups |= group_by_columns(annotations, parameters.categorical, parameters.low_is_damaging)
        walk = build_groupings(maf, groups)
    elif name == "subsets":
        walk = build_subsets(maf.shape[0])
    elif name == "cut-off":
        walk = build_groupings(maf, max_maf=(1.0,))
    return Search(name, walk, parameters.weights, parameters.signs)


def compute_search(
    name: str, statistics: ScoreStatistics, parameters: StepUpParameters = DEFAULT, replicates: Floats | None = None
) -> TestResult:
    """Test a gene by one search, see `build_search` and `search_statistics`; a note where it cannot be built."""
    if statistics.n_variants == 0:
        return missing_result(statistics.n_traits, "no variants")
    try:
        search = build_search(name, statistics.maf, statistics.annotations, parameters)
    except InputError as error:
        return missing_result(statistics.n_traits, str(error))
    return search_statistics(statistics, [search], parameters.resampling, replicates)[name]


def search_statistics(
    statistics: ScoreStatistics,
    searches: Sequence[Search],
    resampling: Resampling | None = None,
    replicates: Floats | None = None,
) -> dict[str, TestResult]:
    """Run searches on (U, V) with one stream of null draws for all of them and for all traits.

    Inverse-sd weights use ``q = (MAC + 1) / (2n + 2)`` in everyone: shared statistics do not tell controls apart.
    Normal draws stand in for permutations where the scores are near normal: quantitative traits without outliers at any
    count, balanced binary traits from minor-allele counts of 40. Unbalanced binary traits (1:10 and beyond) are
    inflated even there, unless V is calibrated (`calibration`) or the studies share permutation replicates.

    Args:
        statistics: U (T, m), V (m, m) and what is known of the variants.
        searches: all with the model variance.
        resampling: when to stop; None for the defaults.
        replicates: null scores (T, P, m) on the scale of U, summed over studies (`combine_replicates`), in place of
            normal draws.

    Returns:
        A row per search: statistic z2, resampled p, effect of the chosen set per unit of its weighted count (not
        corrected for the search), and in ``detail`` the chosen variants, their weights, the grouping, and the
        numbers of replicates and exceedances.

    Raises:
        InputError: a search asks for the empirical variance, or the replicates have another shape.
    """
    if any(search.variance == "empirical" for search in searches):
        raise InputError("the empirical variance needs individual data; shared statistics have the model variance")
    resampling = resampling or Resampling()
    problem = find_problem(statistics)
    if problem:
        return {search.name: missing_result(statistics.n_traits, problem) for search in searches}
    plan = plan_searches(searches, statistics.n_variants)
    n = statistics.mac / np.where(statistics.maf > 0, 2.0 * statistics.maf, 1.0)
    weight = inverse_sd_weights(statistics.mac, np.where(statistics.maf > 0, n, np.max(statistics.n_samples)))
    V = np.ascontiguousarray(statistics.V, dtype=np.float64)
    matrices = np.broadcast_to(V, (len(searches), *V.shape))
    scaled = statistics.U / np.sqrt(statistics.scale)[:, None]
    parts = [search_once(plan, searches, U, matrices, weight) for U in scaled]
    outcome = _stack(parts)
    if replicates is None:
        draw = _draw_normal(plan, V, weight, resampling.seed, statistics.mac)
        resampled = resample_p(draw, outcome.statistic, resampling)
        source = "normal-resampling"
    else:
        resampled = _compare_replicates(plan, statistics, weight, outcome.statistic, replicates, resampling)
        source = "shared-permutations"
    results = make_results(searches, outcome, resampled, source)
    return {name: _with_effect(result, statistics) for name, result in results.items()}


def find_problem(statistics: ScoreStatistics) -> str:
    """Return why there is no answer, or an empty text."""
    U, V = statistics.U, statistics.V
    if statistics.n_variants == 0:
        return "no variants"
    if not (np.all(np.isfinite(U)) and np.all(np.isfinite(V))):
        return "U or V is not finite"
    if not np.all((statistics.maf >= 0) & (statistics.maf <= 1)):
        return "a frequency lies outside [0, 1]"
    if not np.any(np.diag(V) > 0):
        return "all variants are monomorphic"
    return find_matrix_problem(V)


def find_matrix_problem(V: Floats) -> str:
    """Return why V (m, m) is no variance matrix, or an empty text."""
    if not np.all(np.isfinite(V)):
        return "V is not finite"
    eigenvalues = np.linalg.eigvalsh(V)
    if eigenvalues[0] < -_NOT_PSD * eigenvalues[-1]:
        return f"V is not positive semi-definite: smallest eigenvalue {eigenvalues[0]:.3g}"
    return ""


def search_once(
    plan: SearchPlan, searches: Sequence[Search], U: Floats, matrices: Floats, weight: Floats
) -> SearchOutcome:
    """Run every search on one vector of scores and spell out the winners.

    Args:
        plan: the searches, flattened.
        searches: the searches.
        U: (m,) scores.
        matrices: (F, m, m) variance matrix of each search.
        weight: (m,) inverse-sd weights.

    Returns:
        Outcome with T = 1.
    """
    n_searches, m = len(searches), U.shape[0]
    statistic = np.empty((1, n_searches))
    chosen = np.zeros((1, n_searches, m), dtype=np.bool_)
    b = np.zeros((1, n_searches, m))
    names = []
    for f, search in enumerate(searches):
        order = np.empty(m, dtype=np.int64)
        matrix = np.ascontiguousarray(matrices[f])
        statistic[0, f], found, winner = run_search(f, plan, np.ascontiguousarray(U), matrix, weight, order)
        walk = search.groupings
        if walk is None:
            chosen[0, f, order[: max(found, 0)]] = True
        elif found >= 0:
            chosen[0, f] = walk.members(found, m)
        names.append("" if walk is None or found < 0 else walk.name(found))
        sign_weights(U, matrix, weight, winner == CONSTANT, search.signs == "data", b[0, f])
        b[0, f, ~chosen[0, f]] = 0.0
    return SearchOutcome(statistic, chosen, b, (tuple(names),))


def make_results(
    searches: Sequence[Search], outcome: SearchOutcome, resampled: ResampledP, source: str
) -> dict[str, TestResult]:
    """Return a row per search from what was found and its resampled p-values."""
    results = {}
    for f, search in enumerate(searches):
        missing = outcome.statistic[:, f] < 0
        tail = np.any(resampled.extrapolated[:, f])
        results[search.name] = TestResult(
            statistic=np.where(missing, np.nan, outcome.statistic[:, f]),
            log_p=resampled.log_p[:, f],
            p_error=resampled.error[:, f],
            method=f"{source}+pareto-tail" if tail else source,
            note="no grouping has variance" if np.all(missing) else "",
            detail={
                "chosen": outcome.chosen[:, f],
                "weight": outcome.weight[:, f],
                "grouping": tuple(names[f] for names in outcome.grouping),
                "permutations": resampled.permutations[:, f],
                "exceedances": resampled.exceedances[:, f],
                "extrapolated": resampled.extrapolated[:, f],
            },
        )
    return results


def derive_seed(seed: int, *parts: bytes) -> np.uint64:
    """Return the start of the stream that belongs to these bytes (a gene's counts, a study's name)."""
    return np.uint64(np.random.SeedSequence([seed, *map(zlib.crc32, parts)]).generate_state(1, np.uint64)[0])


def gene_key(mac: Floats) -> bytes:
    """Return bytes that differ from gene to gene and do not hang on rounding: the rounded minor-allele counts."""
    return np.rint(mac).astype("<i8").tobytes()


def combine_replicates(studies: Sequence[tuple[Floats, NDArray[np.int64]]], n_variants: int) -> Floats:
    """Sum permutation replicates over studies on the union of their variants.

    Args:
        studies: of each study the replicates (P, m_k) of U and the (m_k,) positions of its variants in the union;
            counted alleles already agree.
        n_variants: m, size of the union.

    Returns:
        (P, m); P is the smallest number of replicates that any study shares.

    Raises:
        InputError: no study, or positions that do not fit.
    """
    if not studies:
        raise InputError("expected the replicates of at least one study, got none")
    n_replicates = min(U.shape[0] for U, _ in studies)
    total = np.zeros((n_replicates, n_variants))
    for U, where in studies:
        if where.shape != (U.shape[1],) or np.unique(where).size != where.size or np.any(where >= n_variants):
            raise InputError(
                f"replicates of {U.shape[1]} variants need as many distinct positions below {n_variants}, got {where}"
            )
        total[:, where] += U[:n_replicates]
    return total


def _stack(parts: Sequence[SearchOutcome]) -> SearchOutcome:
    """Join the outcomes of traits."""
    return SearchOutcome(
        np.concatenate([part.statistic for part in parts]),
        np.concatenate([part.chosen for part in parts]),
        np.concatenate([part.weight for part in parts]),
        tuple(part.grouping[0] for part in parts),
    )


def _draw_normal(plan: SearchPlan, V: Floats, weight: Floats, seed: int, mac: Floats) -> DrawBlock:
    """Return a source of searches on U* ~ N(0, V); V may be singular.

    The draws are multiplied by the symmetric root of V: eigenvectors have no sign of their own, and where eigenvalues
    agree no direction either, so that a V changed by rounding would give other draws; the root is the same.
    """
    eigenvalues, vectors = np.linalg.eigh(V)
    kept = eigenvalues > 1e-12 * eigenvalues[-1]
    root = np.ascontiguousarray((vectors[:, kept] * np.sqrt(eigenvalues[kept])) @ vectors[:, kept].T)
    generator = np.random.Generator(np.random.PCG64(int(derive_seed(seed, gene_key(mac)))))

    def draw(active: Booleans, statistic: Floats) -> None:
        U = generator.standard_normal((statistic.shape[0], root.shape[0])) @ root
        search_scores(plan, U, V, weight, active, statistic)

    return draw


def _compare_replicates(
    plan: SearchPlan,
    statistics: ScoreStatistics,
    weight: Floats,
    observed: Floats,
    replicates: Floats,
    resampling: Resampling,
) -> ResampledP:
    """Return p-values against given replicates, each trait against its own."""
    V = np.ascontiguousarray(statistics.V, dtype=np.float64)
    if replicates.ndim != 3 or replicates.shape[0] != observed.shape[0] or replicates.shape[2] != V.shape[0]:
        raise InputError(
            f"replicates have shape {replicates.shape}; expected ({observed.shape[0]}, P, {V.shape[0]}): trait, "
            "replicate, variant"
        )
    scaled = replicates / np.sqrt(statistics.scale)[:, None, None]
    limit = replace(resampling, max_permutations=min(resampling.max_permutations, replicates.shape[1]))
    parts = [
        resample_p(_draw_given(plan, V, weight, U), row[None], limit) for U, row in zip(scaled, observed, strict=True)
    ]
    return ResampledP(
        *(
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("log_p", "error", "permutations", "exceedances", "extrapolated")
        )
    )


def _draw_given(plan: SearchPlan, V: Floats, weight: Floats, replicates: Floats) -> DrawBlock:
    """Return a source that walks through given replicates (P, m)."""
    rows: Callable[[slice], Floats] = np.ascontiguousarray(replicates, dtype=np.float64).__getitem__
    done = 0

    def draw(active: Booleans, statistic: Floats) -> None:
        nonlocal done
        search_scores(plan, rows(slice(done, done + statistic.shape[0])), V, weight, active, statistic)
        done += statistic.shape[0]

    return draw


def _with_effect(result: TestResult, statistics: ScoreStatistics) -> TestResult:
    """Add ``beta = b'U / (scale b'Vb)`` and its standard error, b the signed weights of the chosen set."""
    b = np.asarray(result.detail["weight"])
    information = statistics.scale * np.einsum("tj,jk,tk->t", b, statistics.V, b)
    known = information > 0
    information = np.where(known, information, np.nan)
    beta = np.einsum("tj,tj->t", b, statistics.U) / information
    return replace(result, beta=beta, se=1.0 / np.sqrt(information))
