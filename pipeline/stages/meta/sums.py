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
        U: (T, u); V: (u, u); scale: (T,) with ``Var(U[t]) = scale[t] V``.
        per_study: (U_k, V_k, scale_k) of every study, on the union; empty for one study, or where not asked for.
        replicates: (T, P, u) null scores that all studies shared; None otherwise, or when not asked for.
        note: what the rows should say.
        calibrated: numbers of the studies whose calibrated variances are in V.
        plain: V_k of the other studies, where some are calibrated.
    """

    traits: tuple[str, ...]
    U: Floats
    V: Floats
    scale: Floats
    per_study: tuple[tuple[Floats, Floats, Floats], ...]
    replicates: Floats | None = None
    note: str = ""
    calibrated: tuple[int, ...] = ()
    plain: Mapping[int, Floats] = field(default_factory=dict)


def sum_studies(
    bundles: Sequence[Bundle],
    union: UnionGene,
    group: TraitGroup,
    chromosome: str,
    included: dict[int, NDArray[np.bool_]],
    calibrate: str = "none",
    with_replicates: bool = False,
    with_studies: bool = True,
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
    for traits in parts:
        replicates = sum_replicates(bundles, union.studies, here, traits, u) if with_replicates else None
        factors = {} if calibrate == "none" else _calibration_factors(bundles, union, here, traits[0])
        note = NOT_CALIBRATED if calibrate == "spa" and any(f is None for f in factors.values()) else ""
        calibrated = tuple(k for k, factor in factors.items() if factor is not None)
        apart = len(here) == 1 or with_studies or bool(calibrated)  # burden corrections need the studies, too
        per_study, plain = [], {}
        U, V = np.zeros((len(traits), u)), np.zeros((u, u))
        for k in here:
            gene, at, sign = union.studies[k]
            place = np.where((at >= 0) & included[k][at], at, -1)
            U_k = _lay_scores(gene, place, sign, [bundles[k].traits[t]["index"] for t in traits], u)
            scale = np.array([1.0 / bundles[k].sigma2(t, chromosome) for t in traits])
            V_k, unit = (np.zeros((u, u)), 1.0) if apart else (V, float(scale[0]))
            factor = factors.get(k)
            if factor is None:
                bundles[k].add_information(V_k, gene, traits[0], place, sign, unit)
            else:
                _add_calibrated(V_k, bundles[k].information(gene, traits[0]), factor * sign, place)
            U += U_k
            if apart:
                V += V_k * scale[0]
                per_study.append((U_k, V_k, scale))
                if calibrated and factor is None:
                    plain[k] = V_k
        if len(here) == 1:
            yield SharedV(traits, *per_study[0], (), replicates, note, calibrated)
        elif here:
            yield SharedV(traits, U, V, np.ones(1), tuple(per_study), replicates, note, calibrated, plain)


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
            factors[k] = calibration_factor(gene, info["index"], np.diag(bundles[k].information(gene, trait)))
    return factors


def _add_calibrated(V: Floats, K: Floats, factor: Floats, place: NDArray[np.int64]) -> None:
    """Add the information K of a binary trait, rows and columns times ``factor``, to V in place (sigma2 is 1)."""
    kept = np.flatnonzero(place >= 0)
    V[np.ix_(place[kept], place[kept])] += (K * np.outer(factor, factor))[np.ix_(kept, kept)]
