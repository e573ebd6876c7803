"""Sum U and V over studies: ``U = sum_k U_k``, ``V = sum_k V_k`` on the union of variants."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from locomass.bundle.study import StudyGene
from locomass.gene_tests.law_rows import node_cumulants
from locomass.meta.laws import UnionCarriers, open_union_carriers
from locomass.meta.shared_burdens import sum_replicates
from locomass.numbers import Floats

if TYPE_CHECKING:
    from locomass.meta.gene import GeneView

MOST_SKEW, MOST_KURTOSIS = 0.5, 1.0  # of residuals that are taken for nearly normal


@dataclass(frozen=True, kw_only=True)
class SharedV:
    """Traits that share V up to a factor, summed over studies, ALT counted.

    Attributes:
        traits: names (T).
        U: (T, u); V: (u, u), or (r, r) on ``rows``; scale: (T,) with ``Var(U[t]) = scale[t] V``.
        variance: (u,) V_jj of all variants of the union.
        per_study: (U_k, V_k, scale_k) of every study, on the union; empty for one study, or where not asked for.
        replicates: (T, P, u) null scores that all studies shared; None otherwise, or when not asked for.
        note: what the rows should say.
        rows: (r,) variants of the union, rising, that V is made for; None for all.
        kind: of the traits.
        calibrated: whether this is a binary trait, or a time to event, of which a study shares laws.
        members: places in ``carriers`` of the studies behind every entry of ``per_study``, where these are groups.
        carriers: of every study, who carries the variants; empty where no study tells.
    """

    traits: tuple[str, ...]
    U: Floats
    V: Floats
    scale: Floats
    variance: Floats
    per_study: tuple[tuple[Floats, Floats, Floats], ...] = ()
    replicates: Floats | None = None
    note: str = ""
    rows: NDArray[np.int64] | None = None
    kind: str = "quantitative"
    calibrated: bool = False
    members: tuple[tuple[int, ...], ...] = ()
    carriers: tuple[UnionCarriers, ...] = ()

    def find_rows(self, chosen: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the rows of V of some variants of the union, which V must be made for."""
        return chosen if self.rows is None else np.searchsorted(self.rows, chosen)


@dataclass(frozen=True, kw_only=True)
class SumsByLimit:
    """Sums of the traits that share V: of all that the studies have, and of what they contribute under a MAF limit.

    Attributes:
        every: which single variants are tested by.
        under: which the rows of each MAF limit are tested by.
    """

    every: SharedV
    under: Mapping[float, SharedV]

    def map_limits(self, function: Callable[[SharedV], SharedV]) -> dict[float, SharedV]:
        """Return the sums of each limit under a function; limits that share sums share what it returns."""
        distinct = {id(shared): shared for shared in self.under.values()}
        mapped = {key: function(shared) for key, shared in distinct.items()}
        return {bound: mapped[id(shared)] for bound, shared in self.under.items()}


def sum_studies(
    view: GeneView,
    *,
    included: NDArray[np.bool_] | None,
    with_studies: bool,
    with_replicates: bool,
    rows: NDArray[np.int64] | None,
) -> Iterator[SharedV]:
    """Sum U and V over the studies of a trait group: ``U = sum_k U_k``, ``V = sum_k V_k``.

    Traits of one study that differ only in sigma2 come out together; otherwise one trait at a time. Arguments: see
    `GeneView.sums`.
    """
    if not view.studies:
        return
    u = len(view.union.position)
    rows = None if rows is not None and len(rows) == u else rows
    for traits in traits_together(view):
        shared = _sum_traits(view, traits, included, with_studies, rows)
        yield replace(shared, replicates=sum_replicates(view, traits, included) if with_replicates else None)


def traits_together(view: GeneView) -> list[tuple[str, ...]]:
    """Return the traits that share V up to a factor: those of one study and covariance, without rows of their own."""
    if len(view.studies) != 1:
        return [(trait,) for trait in view.group.traits]
    k = view.studies[0]
    gene = view.union.studies[k][0]
    together: dict[str, list[str]] = {}
    for trait in view.group.traits:
        name = view.bundles[k].traits[trait]["covariance"]
        alone = bool(gene.covariances[name].b.shape[1]) or _has_own_law(view.bundles[k].traits[trait])
        together.setdefault(trait if alone else name, []).append(trait)
    return [tuple(names) for names in together.values()]


def _has_own_law(trait: Mapping[str, Any]) -> bool:
    """Return whether the residuals of a quantitative trait are so far from normal that its V is not the others'."""
    told = trait.get("residuals")
    if told is None:
        return False
    m3, m4 = node_cumulants(np.array(told["node"], np.float64), np.array(told["chance"], np.float64))
    return abs(m3) > MOST_SKEW or abs(m4) > MOST_KURTOSIS


def _sum_traits(
    view: GeneView,
    traits: tuple[str, ...],
    included: NDArray[np.bool_] | None,
    with_studies: bool,
    rows: NDArray[np.int64] | None,
) -> SharedV:
    """Return the sums of traits that share V."""
    bundles, here, u = view.bundles, view.studies, len(view.union.position)
    rows_of, every = number_rows(u, rows), np.arange(u)
    r = u if rows is None else len(rows)
    with_laws = view.rules.tests.null_law == "exact" and any(view.union.studies[k][0].laws for k in here)
    apart = len(here) > 1 and (with_studies or with_laws)  # the law of a sum is made of the studies' laws
    U, variance, V = np.zeros((len(traits), u)), np.zeros(u), np.zeros((r, r))
    per_study: list[tuple[Floats, Floats, Floats]] = []
    carriers: list[UnionCarriers] = []
    for i, k in enumerate(here):
        gene, at, sign = view.union.studies[k]
        place = at if included is None else np.where((at >= 0) & included[i][at], at, -1)
        U_k = _lay_scores(gene, place, sign, [bundles[k].traits[t]["index"] for t in traits], u)
        scale = np.array([1.0 / bundles[k].sigma2(t, view.request.chromosome) for t in traits])
        unit = 1.0 if len(here) == 1 else float(scale[0])
        kept = place >= 0
        diagonal = np.zeros(u)
        if rows is not None or with_laws:
            diagonal[place[kept]] = bundles[k].information_diagonal(gene, traits[0])[kept]
            variance += unit * diagonal
        row = np.where(kept, rows_of[place], -1)
        V_k = np.zeros((r, r)) if apart else V
        bundles[k].add_information(V_k, gene, traits[0], row, sign, 1.0 if apart else unit)
        U += U_k
        if apart:
            V += V_k * unit
            per_study.append((U_k, V_k, scale))
        if with_laws:
            carriers.append(open_union_carriers(view, k, traits, place, V_k, diagonal, every if rows is None else rows))
    kind = bundles[here[0]].traits[traits[0]]["kind"]
    few_outcomes = kind != "quantitative"
    lacking = [bundles[k].study for k, own in zip(here, carriers, strict=False) if not own.complete]
    lacking = lacking if carriers else [bundles[k].study for k in here]
    told = any(own.complete for own in carriers)
    return SharedV(
        traits=traits,
        U=U,
        V=V,
        scale=scale if len(here) == 1 else np.ones(1),
        variance=np.diagonal(V) if rows is None else variance,
        per_study=tuple(per_study),
        note=say_lacking(lacking) if few_outcomes and view.rules.tests.null_law == "exact" else "",
        rows=rows,
        kind=kind,
        calibrated=few_outcomes and told,
        carriers=tuple(carriers) if told else (),
    )


def say_lacking(studies: Sequence[str]) -> str:
    """Return the note of rows of a binary trait or a time to event where studies share no laws; empty where all do."""
    if not studies:
        return ""
    return f"not calibrated: no laws in the bundle of {', '.join(studies)}; ask for a bundle of this version"


def take_trait(shared: SharedV, t: int) -> SharedV:
    """Return the sums of one trait."""
    one = slice(t, t + 1)
    return replace(
        shared,
        traits=shared.traits[one],
        U=shared.U[one],
        scale=shared.scale[one],
        per_study=tuple((U[one], V, scale[one]) for U, V, scale in shared.per_study),
        replicates=None,
        carriers=tuple(replace(own, residuals=own.residuals[one], scale=own.scale[one]) for own in shared.carriers),
    )


def number_rows(u: int, rows: NDArray[np.int64] | None) -> NDArray[np.int64]:
    """Return (u,) the row of V of every variant of the union, -1 for none."""
    if rows is None:
        return np.arange(u)
    out = np.full(u, -1, np.int64)
    out[rows] = np.arange(len(rows))
    return out


def _lay_scores(gene: StudyGene, place: NDArray[np.int64], sign: Floats, index: list[int], u: int) -> Floats:
    """Return U of one study on the union, (T, u)."""
    U = np.zeros((len(index), u))
    kept = place >= 0
    U[:, place[kept]] = (gene.U[kept][:, index] * sign[kept, None]).T
    return U
