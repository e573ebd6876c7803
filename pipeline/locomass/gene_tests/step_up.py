"""Step-up and other searches over groupings from shared statistics alone.

The observed search runs on (U, V); its null distribution comes from draws of U with the whole search repeated on every
one (`search_draws`). ``z2 = (b'U)^2 / (b'Vb)`` is free of the scale of U, so traits that share V share normal draws.
Where each study has shared permutation replicates of U, their sum over studies takes the place of the draws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from locomass.errors import ConfigError, InputError, suggest
from locomass.gene_tests.base import Detail, ScoreStatistics, TestResult, missing_result
from locomass.gene_tests.groupings import (
    Groupings,
    Search,
    build_groupings,
    build_subsets,
    group_by_columns,
    inverse_sd_weights,
    plan_searches,
)
from locomass.gene_tests.resampling import ResampledP, Resampling
from locomass.gene_tests.search_draws import compare_replicates, resample_searches
from locomass.gene_tests.step_up_kernel import CONSTANT, SearchPlan, run_search, sign_weights
from locomass.numbers import NOT_PSD, Floats

Booleans = NDArray[np.bool_]


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
    Draws stand in for permutations: normal ones where every variant's score is near normal, else from the laws that
    studies share (`search_draws`); without laws, few cases or skewed residuals give p-values that are too small.

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
        resampled, source = resample_searches(plan, statistics, weight, outcome.statistic, resampling)
        beyond = "splitting"
    else:
        resampled = compare_replicates(plan, statistics, weight, outcome.statistic, replicates, resampling)
        source, beyond = "shared-permutations", "pareto-tail"
    results = make_results(searches, outcome, resampled, source, beyond)
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
    if eigenvalues[0] < -NOT_PSD * eigenvalues[-1]:
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
    searches: Sequence[Search], outcome: SearchOutcome, resampled: ResampledP, source: str, beyond: str = "pareto-tail"
) -> dict[str, TestResult]:
    """Return a row per search from what was found and its resampled p-values.

    Args:
        searches, outcome, resampled: F of them.
        source: what was drawn; ``beyond``: how p goes on where draws do not reach.
    """
    results = {}
    for f, search in enumerate(searches):
        missing = outcome.statistic[:, f] < 0
        results[search.name] = TestResult(
            statistic=np.where(missing, np.nan, outcome.statistic[:, f]),
            log_p=resampled.log_p[:, f],
            p_error=resampled.error[:, f],
            method=f"{source}+{beyond}" if resampled.extrapolated[:, f].any() else source,
            note="no grouping has variance" if np.all(missing) else "",
            detail=Detail(
                chosen=outcome.chosen[:, f],
                weight=outcome.weight[:, f],
                grouping=tuple(names[f] for names in outcome.grouping),
                weighting=_name_weighting(outcome.chosen[:, f], outcome.weight[:, f]),
                permutations=resampled.permutations[:, f],
                exceedances=resampled.exceedances[:, f],
                extrapolated=resampled.extrapolated[:, f],
            ),
        )
    return results


def _name_weighting(chosen: Booleans, weight: Floats) -> tuple[str, ...]:
    """Return (T,) which weights won, from the signed weights (T, m) of the chosen variants; '' where none is."""
    sizes = [np.abs(b[taken]) for b, taken in zip(weight, chosen, strict=True)]
    return tuple("" if not size.size else "constant" if (size == 1.0).all() else "inverse-sd" for size in sizes)


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


def _with_effect(result: TestResult, statistics: ScoreStatistics) -> TestResult:
    """Add ``beta = b'U / (scale b'Vb)`` and its standard error, b the signed weights of the chosen set."""
    b = np.asarray(result.detail.weight)
    information = statistics.scale * np.einsum("tj,jk,tk->t", b, statistics.V, b)
    known = information > 0
    information = np.where(known, information, np.nan)
    beta = np.einsum("tj,tj->t", b, statistics.U) / information
    return replace(result, beta=beta, se=1.0 / np.sqrt(information))
