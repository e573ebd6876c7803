"""Sum U and V over studies: ``U = sum_k U_k``, ``V = sum_k V_k`` on the union of variants."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipeline.io.bundle import Bundle, StudyGene
from pipeline.stages.meta.unite import TraitGroup, UnionGene
from pipeline.stages.shared_burdens import (
    calibration_factor,
    sum_replicates,
)

Floats = NDArray[np.float64]
NOT_CALIBRATED = "not calibrated: a study shares no calibrated variances (score_statistics.calibrate: spa)"


@dataclass(frozen=True)
class SharedV:
    """Traits that share V up to a factor, summed over studies, ALT counted.

    Attributes:
        traits: names (T).
        U: (T, u); V: (u, u), or (r, r) on ``rows``; scale: (T,) with ``Var(U[t]) = scale[t] V``.
        variance: (u,) V_jj of all variants of the union.
        per_study: (U_k, V_k, scale_k) of every study, on the union; empty for one study, or where not asked for.
        replicates: (T, P, u) null scores that all studies shared; None otherwise, or when not asked for.
        note: what the rows should say.
        calibrated: numbers of the studies whose calibrated variances are in V.
        plain: V_k of the other studies, where some are calibrated.
        rows: (r,) variants of the union, rising, that V is made for; None for all.
        models: numbers of the studies behind every entry of ``per_study`` (of the one study), and their V before
            calibration, where some are calibrated; empty otherwise.
    """

    traits: tuple[str, ...]
    U: Floats
    V: Floats
    scale: Floats
    variance: Floats
    per_study: tuple[tuple[Floats, Floats, Floats], ...]
    replicates: Floats | None = None
    note: str = ""
    calibrated: tuple[int, ...] = ()
    plain: Mapping[int, Floats] = field(default_factory=dict)
    rows: NDArray[np.int64] | None = None
    models: tuple[tuple[tuple[int, ...], Floats], ...] = ()

    def find_rows(self, chosen: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the rows of V of some variants of the union, which V must be made for."""
        return chosen if self.rows is None else np.searchsorted(self.rows, chosen)


def sum_studies(
    bundles: Sequence[Bundle],
    union: UnionGene,
    group: TraitGroup,
    chromosome: str,
    included: dict[int, NDArray[np.bool_]],
    calibrate: str = "none",
    with_replicates: bool = False,
    with_studies: bool = True,
    rows: NDArray[np.int64] | None = None,
) -> Iterator[SharedV]:
    """Sum U and V over the studies of a trait group: ``U = sum_k U_k``, ``V = sum_k V_k``.

    Traits of one study that differ only in sigma2 come out together; otherwise one trait at a time.

    Args:
        bundles: all studies.
        union: the gene.
        group: traits and their studies.
        chromosome: the gene's chromosome.
        included: per study, (u,) which variants it may contribute (the `study` frequency policy).
        calibrate: bring V of binary traits to the calibrated variances that the studies share: ``auto`` where they do,
            ``spa``: with a note where one does not, ``none``: nowhere.
        with_replicates: sum the null replicates that the studies share.
        with_studies: keep U and V of every study, which heterogeneity needs; without, sums of many studies take a
            fraction of the time and memory.
        rows: (r,) variants of the union, rising, that V is made for: a huge gene is tested by its masks, which take a
            part of it. None for all.
    """
    here = [k for k in group.studies if k in union.studies]
    if len(here) == 1:
        bundle, gene = bundles[here[0]], union.studies[here[0]][0]
        together: dict[str, list[str]] = {}
        for trait in group.traits:
            info = bundle.traits[trait]
            alone = bool(gene.covariances[info["covariance"]].b.shape[1])
            together.setdefault(trait if alone else info["covariance"], []).append(trait)
        parts = [tuple(names) for names in together.values()]
    else:
        parts = [(trait,) for trait in group.traits]
    u = len(union.position)
    rows = None if rows is not None and len(rows) == u else rows
    rows_of = number_rows(u, rows)
    r = u if rows is None else len(rows)
    for traits in parts:
        replicates = sum_replicates(bundles, union.studies, here, traits, u) if with_replicates else None
        factors = {} if calibrate == "none" else _calibration_factors(bundles, union, here, traits[0])
        note = NOT_CALIBRATED if calibrate == "spa" and any(f is None for f in factors.values()) else ""
        calibrated = tuple(k for k, factor in factors.items() if factor is not None)
        apart = with_studies or bool(calibrated)  # burden corrections need the studies, too
        per_study, plain = [], {}
        U, variance = np.zeros((len(traits), u)), np.zeros(u)
        V = np.zeros((r, r))
        models: list[tuple[tuple[int, ...], Floats]] = []
        for k in here:
            gene, at, sign = union.studies[k]
            place = np.where((at >= 0) & included[k][at], at, -1)
            U_k = _lay_scores(gene, place, sign, [bundles[k].traits[t]["index"] for t in traits], u)
            scale = np.array([1.0 / bundles[k].sigma2(t, chromosome) for t in traits])
            unit = 1.0 if len(here) == 1 else float(scale[0])
            factor = factors.get(k)
            turn = sign if factor is None else sign * factor  # sigma2 of a binary trait is 1
            kept = place >= 0
            if rows is not None:
                variance[place[kept]] += unit * (bundles[k].information_diagonal(gene, traits[0]) * turn**2)[kept]
            row = np.where(kept, rows_of[place], -1)
            V_k = np.zeros((r, r)) if apart and len(here) > 1 else V
            bundles[k].add_information(V_k, gene, traits[0], row, turn, unit if V_k is V else 1.0)
            if calibrated:
                models.append(((k,), V_k if factor is None else _undo_calibration(V_k, row, factor)))
            U += U_k
            if V_k is not V:
                V += V_k * unit
                per_study.append((U_k, V_k, scale))
                if calibrated and factor is None:
                    plain[k] = V_k
        if here:
            variance = np.diagonal(V) if rows is None else variance
            scale = scale if len(here) == 1 else np.ones(1)
            yield SharedV(
                traits, U, V, scale, variance, tuple(per_study), replicates, note, calibrated, plain, rows,
                tuple(models),
            )  # fmt: skip


def _undo_calibration(V: Floats, row: NDArray[np.int64], factor: Floats) -> Floats:
    """Return V of a study before calibration; ``row`` is the place of its variants in V, -1 for none."""
    inverse = np.ones(len(V))
    inverse[row[row >= 0]] = 1.0 / factor[row >= 0]
    return V * np.outer(inverse, inverse)


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


def _calibration_factors(
    bundles: Sequence[Bundle], union: UnionGene, studies: Sequence[int], trait: str
) -> dict[int, Floats | None]:
    """Return sqrt(V~_jj / V_jj) of a binary trait by study; None for a study that shares no calibrated variances."""
    factors = {}
    for k in studies:
        info, gene = bundles[k].traits[trait], union.studies[k][0]
        if info["kind"] == "binary":
            factors[k] = calibration_factor(gene, info["index"], bundles[k].information_diagonal(gene, trait))
    return factors
