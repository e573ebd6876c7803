"""What the bundles of a calibrated binary trait tell of the people who carry a gene's variants."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from pipeline.gene_tests.base import Carriers
from pipeline.kernels.selection import turn_statistics
from pipeline.stages.meta.sums import SharedV
from pipeline.stages.meta.unite import UnionFrequency

Floats = NDArray[np.float64]
X_NAMES = frozenset({"X", "chrX", "23"})


def find_carriers(
    shared: SharedV,
    frequency: UnionFrequency,
    turn: Floats,
    samples: Mapping[int, tuple[float, float | None]],
    chosen: NDArray[np.int64],
    chromosome: str,
) -> tuple[Carriers, ...]:
    """Return the carriers of the chosen variants in every study or group, in the order of ``shared.per_study``.

    Empty where a study does not say how many cases it has.

    Args:
        shared: U and V of one trait.
        frequency: of the union's variants, with those of every study.
        turn: (u,) -1 where the tests count REF.
        samples: number of samples and of cases by study; None where a bundle does not say.
        chosen: variants of the union.
        chromosome: of the gene.
    """
    by_study = dict(zip(frequency.studies, np.nan_to_num(frequency.by_study[:, chosen]), strict=True))
    rows, out = shared.find_rows(chosen), []
    for studies, V in shared.models:
        sizes = [samples[k] for k in studies]
        n, cases = sum(n for n, _ in sizes), [cases for _, cases in sizes if cases is not None]
        if len(cases) < len(sizes):
            return ()
        f = np.sum([samples[k][0] * by_study[k] for k in studies], axis=0) / n
        counted = np.where(turn[chosen] < 0.0, 1.0 - f, f)
        _, own = turn_statistics(shared.U, V, chosen, rows, turn)
        share = sum(cases) / n
        step = step_on_x(own, counted, n, share) if chromosome in X_NAMES else 1.0
        out.append(Carriers(n, share, counted, own, np.eye(chosen.size), step))
    return tuple(out)


def step_on_x(V: Floats, frequency: Floats, n: float, case_share: float) -> float:
    """Return the size of a carrier's step on X, from how much larger V is than if all had two alleles.

    Dosages of men coded 0 and 2 have twice the variance of women's 2 f (1 - f), so that with a share r of men V is
    1 + r times ``n 2 f (1 - f) c (1 - c)``, c the share of cases; the step is the root of sum g^4 / sum g^2, which is
    ``(16 r + 2 (1 - r)) / (4 r + 2 (1 - r))``: 1 for women, 2 for men, and 1 in pseudo-autosomal genes.
    """
    expected = float((2.0 * frequency * (1.0 - frequency)).sum()) * n * case_share * (1.0 - case_share)
    men = min(max(float(np.trace(V)) / expected - 1.0, 0.0), 1.0) if expected > 0.0 else 0.0
    return float(np.sqrt((16.0 * men + 2.0 * (1.0 - men)) / (4.0 * men + 2.0 * (1.0 - men))))
