"""Which variants of a gene a row tests, masks and frequency bins, and which allele it counts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config import Tests
from pipeline.kernels.selection import count_allele, split_variants
from pipeline.stages.meta.tasks import GeneRequest, MetaTask
from pipeline.stages.meta.unite import TraitGroup, UnionFrequency, UnionGene

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Selection:
    """The variants of one mask and bin: positions in the union, and which of them are under the bound."""

    mask: str
    max_maf: float
    in_bin: NDArray[np.int64]
    in_mask: NDArray[np.int64]


@dataclass(frozen=True)
class CountedAllele:
    """Which allele the tests count: (u,) sign of ALT's score, frequency and count of the counted allele."""

    turn: Floats
    frequency: Floats
    mac: Floats

    @classmethod
    def of(cls, frequency: UnionFrequency, rule: str) -> CountedAllele:
        """Return the minor allele under `maf`, ALT under `aaf`."""
        return cls(*count_allele(frequency.frequency, frequency.alt_count, frequency.allele_number, rule == "maf"))


def included_variants(
    union: UnionGene, frequency: UnionFrequency, tests: Tests, maf: str
) -> dict[int, NDArray[np.bool_]]:
    """Return which variants each study contributes: under the `study` policy, those rare in that study."""
    if maf != "study":
        return {k: np.ones(len(union.position), np.bool_) for k in union.studies}
    rare = bounded_frequency(frequency.by_study, tests.frequency) <= max(tests.max_maf)
    return dict(zip(frequency.studies, rare, strict=True))


def bounded_frequency(frequency: Floats, rule: str) -> Floats:
    """Return the frequency that the bound applies to: minor allele (maf) or ALT (aaf).

    Lowered by rounding, since bounds are inclusive and 1 - f of a frequency at the bound may lie just above it.
    """
    return (np.minimum(frequency, 1 - frequency) if rule == "maf" else frequency) * (1 - 1e-12)


def tested_variants(selections: Sequence[Selection], with_masks: bool) -> NDArray[np.int64]:
    """Return the variants that some row tests, rising: those of the bins, and of the whole masks if tests see them."""
    chosen = [x for s in selections for x in ((s.in_bin, s.in_mask) if with_masks else (s.in_bin,))]
    return np.unique(np.concatenate(chosen)) if chosen else np.empty(0, np.int64)


def select_variants(
    request: GeneRequest,
    union: UnionGene,
    frequency: UnionFrequency,
    group: TraitGroup,
    task: MetaTask,
    audit: list[dict[str, Any]],
) -> Iterator[Selection]:
    """Give the variants of every mask and bin, and write down why the others were dropped."""
    polymorphic = frequency.is_polymorphic
    bounded = bounded_frequency(frequency.frequency, task.tests.frequency)
    for m, mask in enumerate(task.masks):
        if request.is_region:
            member, n_listed = np.ones(len(union.listed), np.bool_), len(union.listed)
        else:
            member, n_listed = request.member[m][union.listed], len(request.position)
        for bound in task.tests.max_maf:
            in_bin, in_mask, outside, monomorphic, frequent = split_variants(member, polymorphic, bounded, bound)
            audit.append(
                {
                    "gene": request.gene,
                    "mask": mask,
                    "max_maf": bound,
                    "traits": ",".join(group.traits),
                    "listed": n_listed,
                    "absent": n_listed - len(union.listed),
                    "not_in_mask": outside,
                    "monomorphic": monomorphic,
                    "too_frequent": frequent,
                    "kept": len(in_bin),
                }
            )
            yield Selection(mask, bound, in_bin, in_mask)
