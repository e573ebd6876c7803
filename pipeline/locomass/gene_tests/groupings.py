"""Which sets of variants a search looks at: thresholds, functional groupings, all subsets, step-up.

Hoffmann, Marini & Witte (2010) write every rare-variant burden as beta = sum_j w_j s_j x_j: weights w, signs s and
a grouping x of zeros and ones, and test the best of many groupings. Groupings are written as a *walk* that changes
one variant a step, so that each costs one update: nested sets along falling rarity, all subsets along a Gray code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from locomass.errors import ConfigError, InputError, suggest
from locomass.gene_tests.step_up_kernel import BOTH, CONSTANT, INVERSE_SD, SearchPlan
from locomass.numbers import Floats

Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]

MAX_SUBSET_VARIANTS = 12
SAME_FREQUENCY = 1e-12
WEIGHTS = {"constant": CONSTANT, "inverse-sd": INVERSE_SD, "both": BOTH}


@dataclass(frozen=True, slots=True)
class Groupings:
    """Sets of variants, as a walk.

    Attributes:
        variant: (steps,) variant that a step changes.
        change: (steps,) +1 adds it, -1 removes it, 0 starts anew with it alone.
        label: (steps,) number of the grouping reached, or -1 to pass over it.
        names: name of the family each grouping belongs to.
        family: (K,) index into ``names``.
        max_maf: (K,) largest frequency allowed, NaN where frequency plays no part.
    """

    variant: Integers
    change: Integers
    label: Integers
    names: tuple[str, ...]
    family: Integers
    max_maf: Floats

    @property
    def n_groupings(self) -> int:
        """K, the number of groupings."""
        return int(self.family.shape[0])

    def name(self, label: int) -> str:
        """Return what a grouping is called, e.g. ``sift<=0.05, maf<=0.01``."""
        family = self.names[int(self.family[label])]
        cut = float(self.max_maf[label])
        return family if np.isnan(cut) else f"{family}, maf<={cut:.6g}"

    def members(self, label: int, n_variants: int) -> Booleans:
        """Return the (m,) variants of a grouping."""
        inside = np.zeros(n_variants, dtype=np.bool_)
        for k, change, reached in zip(self.variant, self.change, self.label, strict=True):
            if change == 0:
                inside[:] = False
            inside[k] = change >= 0
            if reached == label:
                return inside
        raise InputError(f"grouping {label} is unknown; there are {self.n_groupings}")


@dataclass(frozen=True, slots=True)
class Search:
    """One search over groupings.

    Attributes:
        name: what its row is called.
        groupings: the sets to look at; None for the step-up search.
        weights: ``constant``, ``inverse-sd`` (Madsen & Browning) or ``both``, the best of the two.
        signs: ``fixed`` (+1) or ``data`` (sign of the covariance of trait and variant).
        variance: ``model``, (b'U)^2 / b'Vb, or ``empirical``, (sum T_i)^2 / sum T_i^2 as in the paper.
    """

    name: str
    groupings: Groupings | None = None
    weights: Literal["constant", "inverse-sd", "both"] = "constant"
    signs: Literal["fixed", "data"] = "fixed"
    variance: Literal["model", "empirical"] = "model"

    def __post_init__(self) -> None:
        for key, value, known in (
            ("weights", self.weights, tuple(WEIGHTS)),
            ("signs", self.signs, ("fixed", "data")),
            ("variance", self.variance, ("model", "empirical")),
        ):
            if value not in known:
                raise ConfigError(f"search {self.name!r}: unknown {key} {value!r}{suggest(str(value), known)}")


def plan_searches(searches: Sequence[Search], n_variants: int) -> SearchPlan:
    """Flatten searches for the kernels.

    Raises:
        InputError: no searches, two of one name, or a grouping names a variant that is not there.
    """
    names = [search.name for search in searches]
    if not names or len(set(names)) < len(names):
        raise InputError(f"expected one or more searches of different names, got {names}")
    walks = [search.groupings for search in searches]
    parts = [[walk.variant, walk.change, walk.label] for walk in walks if walk is not None]
    lengths = [0 if walk is None else walk.variant.shape[0] for walk in walks]
    variant, change, label = (
        np.concatenate([part[i] for part in parts]).astype(np.int64) if parts else np.empty(0, dtype=np.int64)
        for i in range(3)
    )
    if variant.size and (variant.min() < 0 or variant.max() >= n_variants):
        raise InputError(f"groupings name variant {variant.max()}, but there are {n_variants} variants")
    return SearchPlan(
        step_up=np.array([walk is None for walk in walks]),
        weighting=np.array([WEIGHTS[search.weights] for search in searches], dtype=np.int64),
        data_signs=np.array([search.signs == "data" for search in searches]),
        empirical=np.array([search.variance == "empirical" for search in searches]),
        start=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        variant=variant,
        change=change,
        label=label,
    )


def group_by_category(name: str, values: Floats) -> dict[str, Booleans]:
    """Return one grouping per value of a categorical column; NaN belongs to none."""
    return {f"{name}={value:g}": values == value for value in np.unique(values[~np.isnan(values)])}


def group_by_score(name: str, values: Floats, damaging: Literal["high", "low"] = "high") -> dict[str, Booleans]:
    """Return one grouping per cut-off of a continuous column: every value is tried; NaN belongs to none.

    Args:
        name: of the column, for the groupings' names.
        values: (m,) scores.
        damaging: ``high`` keeps variants at or above a cut-off (PolyPhen), ``low`` at or below it (SIFT).
    """
    cuts = np.unique(values[~np.isnan(values)])
    if damaging == "low":
        return {f"{name}<={cut:g}": values <= cut for cut in cuts}
    return {f"{name}>={cut:g}": values >= cut for cut in cuts}


def group_by_columns(
    annotations: Mapping[str, Floats], categorical: Sequence[str] = (), low_is_damaging: Sequence[str] = ()
) -> dict[str, Booleans]:
    """Return the functional groupings of any number of annotation columns.

    A column of zeros and ones is an indicator and gives the grouping of its ones; a categorical one gives a grouping
    per value; any other gives all its cut-offs.

    Args:
        annotations: (m,) columns by name.
        categorical: columns whose values are codes without order.
        low_is_damaging: columns whose small values are the damaging ones.

    Raises:
        ConfigError: a column is named that is not there.
    """
    for name in (*categorical, *low_is_damaging):
        if name not in annotations:
            raise ConfigError(f"unknown annotation column {name!r}{suggest(name, annotations)}")
    groups: dict[str, Booleans] = {}
    for name, values in annotations.items():
        if name in categorical:
            groups |= group_by_category(name, values)
        elif np.all(np.isin(values, (0.0, 1.0))):
            groups[name] = values == 1.0
        else:
            groups |= group_by_score(name, values, "low" if name in low_is_damaging else "high")
    return groups


def list_frequencies(maf: Floats) -> Floats:
    """Return the frequencies that occur, rising; of those that differ by rounding (1 - f for f) the largest.

    Args:
        maf: (m,) frequencies.
    """
    values = np.unique(maf)
    kept: Floats = values[~(np.diff(values, append=np.inf) <= SAME_FREQUENCY)]
    return kept


def build_groupings(
    maf: Floats,
    groups: Mapping[str, Booleans] | None = None,
    max_maf: Sequence[float] | Literal["all"] = "all",
) -> Groupings:
    """Return functional groupings crossed with frequency thresholds.

    Args:
        maf: (m,) frequency of the counted allele.
        groups: (m,) members by name; None for one grouping of all variants.
        max_maf: thresholds (a variant at the threshold is in), or ``all``: every frequency that occurs. ``(1.0,)``
            lets frequency play no part.

    Returns:
        Non-empty groupings; a threshold that adds no variant to the one below it is left out.

    Raises:
        InputError: a frequency is not between 0 and 1.
    """
    if not np.all((maf >= 0) & (maf <= 1)):
        raise InputError("a frequency lies outside [0, 1]")
    if groups is None:
        groups = {"all variants": np.ones(maf.shape[0], dtype=np.bool_)}
    cuts = list_frequencies(maf) if isinstance(max_maf, str) else np.unique(np.asarray(max_maf, dtype=np.float64))
    steps: list[tuple[int, int, int]] = []
    found: list[tuple[int, float]] = []
    for at, inside in enumerate(groups.values()):
        order = np.flatnonzero(inside)
        order = order[np.argsort(maf[order], kind="stable")]
        ends = np.searchsorted(maf[order], cuts, side="right")
        reached = {int(end): float(cut) for end, cut in zip(ends[::-1], cuts[::-1], strict=True) if end > 0}
        for step in range(max(reached, default=0)):
            cut = reached.get(step + 1)
            steps.append((int(order[step]), 0 if step == 0 else 1, -1 if cut is None else len(found)))
            if cut is not None:
                found.append((at, cut if cut < 1.0 else np.nan))
    variant, change, label = np.array(steps, dtype=np.int64).reshape(-1, 3).T.copy()
    return Groupings(
        variant,
        change,
        label,
        names=tuple(groups),
        family=np.array([at for at, _ in found], dtype=np.int64),
        max_maf=np.array([cut for _, cut in found], dtype=np.float64),
    )


def build_subsets(n_variants: int) -> Groupings:
    """Return all 2^m - 1 subsets of m <= 12 variants, along a Gray code (Knuth 7.2.1.1): one change a subset.

    Raises:
        InputError: more than 12 variants.
    """
    if not 1 <= n_variants <= MAX_SUBSET_VARIANTS:
        raise InputError(
            f"all subsets need 1 to {MAX_SUBSET_VARIANTS} variants, got {n_variants}; use the step-up search"
        )
    index = np.arange(1, 2**n_variants, dtype=np.int64)
    code, previous = index ^ (index >> 1), (index - 1) ^ ((index - 1) >> 1)
    flipped = code ^ previous
    change = np.where(code > previous, 1, -1)
    change[0] = 0
    return Groupings(
        variant=np.log2(flipped).astype(np.int64),
        change=change.astype(np.int64),
        label=np.arange(index.shape[0], dtype=np.int64),
        names=("subset",),
        family=np.zeros(index.shape[0], dtype=np.int64),
        max_maf=np.full(index.shape[0], np.nan),
    )


def inverse_sd_weights(count: Floats, n_samples: Floats | float) -> Floats:
    """Return ``w = 1/sqrt(q(1-q))`` with ``q = (count + 1) / (2 n + 2)`` (Madsen & Browning 2009).

    Args:
        count: (m,) minor alleles counted, at most n: in controls for a binary trait, else in everyone.
        n_samples: samples they are counted in.
    """
    q = (count + 1.0) / (2.0 * np.asarray(n_samples, dtype=np.float64) + 2.0)
    weights: Floats = 1.0 / np.sqrt(q * (1.0 - q))
    return weights
