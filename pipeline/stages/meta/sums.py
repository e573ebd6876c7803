"""Sum U and V over studies: ``U = sum_k U_k``, ``V = sum_k V_k`` on the union of variants."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.io.bundle import Bundle
from pipeline.kernels.union import lay_on_union
from pipeline.stages.meta.unite import TraitGroup, UnionGene
from pipeline.stages.shared_burdens import (
    calibration_factor,
    sum_replicates,
)

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class SharedV:
    """Traits that share V up to a factor, summed over studies, ALT counted.

    Attributes:
        traits: names (T).
        U: (T, u); V: (u, u); scale: (T,) with ``Var(U[t]) = scale[t] V``.
        per_study: (U_k, V_k, scale_k) of every study, on the union.
        replicates: (T, P, u) null scores that all studies shared; None otherwise, or when not asked for.
        note: what the rows should say.
        calibrated: numbers of the studies whose calibrated variances are in V.
    """

    traits: tuple[str, ...]
    U: Floats
    V: Floats
    scale: Floats
    per_study: tuple[tuple[Floats, Floats, Floats], ...]
    replicates: Floats | None = None
    note: str = ""
    calibrated: tuple[int, ...] = ()


def sum_studies(
    bundles: Sequence[Bundle],
    union: UnionGene,
    group: TraitGroup,
    chromosome: str,
    included: dict[int, NDArray[np.bool_]],
    calibrate: str = "none",
    with_replicates: bool = False,
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
    for traits in parts:
        per_study = []
        replicates = (
            sum_replicates(bundles, union.studies, here, traits, len(union.position)) if with_replicates else None
        )
        note, calibrated = "", []
        for k in here:
            gene, at, sign = union.studies[k]
            scale = np.array([1.0 / bundles[k].sigma2(t, chromosome) for t in traits])
            index = np.array([bundles[k].traits[t]["index"] for t in traits])
            K = bundles[k].information(gene, traits[0])
            if calibrate != "none" and bundles[k].traits[traits[0]]["kind"] == "binary":
                factor = calibration_factor(gene, index[0], np.diag(K))
                if factor is not None:
                    K = K * np.outer(factor, factor)
                    calibrated.append(k)
                elif calibrate == "spa":
                    note = "not calibrated: a study shares no calibrated variances (score_statistics.calibrate: spa)"
            U, V = lay_on_union(gene.U, K, index, at, sign, included[k])
            per_study.append((U, V, scale))
        if len(per_study) == 1:
            yield SharedV(traits, *per_study[0], (), replicates, note, tuple(calibrated))
        elif per_study:
            U = np.sum([p[0] for p in per_study], axis=0)
            V = np.sum([p[1] * p[2][0] for p in per_study], axis=0)
            yield SharedV(traits, U, V, np.ones(1), tuple(per_study), replicates, note, tuple(calibrated))
