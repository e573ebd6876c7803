"""Which variants of a gene a row tests, masks and MAF limits, and which allele it counts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from locomass.gene_tests.selection import count_allele, split_variants
from locomass.meta.tasks import GeneRequest, Rules
from locomass.meta.unite import TraitGroup, UnionFrequency, UnionGene, count_alleles
from locomass.numbers import Floats

SINGLETON = ".singleton"  # after the name of a mask: its singletons, as in REGENIE's names of rows
Scope = Literal["bin", "mask"]  # of a test: the variants under the MAF limit, or all of the mask


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The variants of one mask and MAF limit.

    Attributes:
        mask, max_maf: which.
        in_bin: places in the union of the mask's variants under the limit.
        in_mask: places of all variants of the mask.
        audit: how many variants were listed, and why the others are not under the limit (columns of mask_audit.tsv).
    """

    mask: str
    max_maf: float
    in_bin: NDArray[np.int64]
    in_mask: NDArray[np.int64]
    audit: Mapping[str, int] = field(default_factory=dict)

    def variants(self, scope: Scope) -> NDArray[np.int64]:
        """Return the places in the union that a test of this scope sees."""
        return self.in_bin if scope == "bin" else self.in_mask


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


@dataclass(frozen=True, kw_only=True)
class Limit:
    """What the studies contribute to the rows of one MAF limit.

    Attributes:
        bounded: (u,) frequency that the limit applies to; NaN where unknown, infinite where the variant is rare when
            pooled but in no study that has carriers.
        included: (k, u) whether each study contributes each variant; None: all that it has.
        mac: (u,) count of the counted allele in what is contributed.
        varies: (k, u) whether both alleles occur in what each study contributes.
    """

    bounded: Floats
    included: NDArray[np.bool_] | None
    mac: Floats
    varies: NDArray[np.bool_]

    def n_studies(self, chosen: NDArray[np.int64]) -> int:
        """Return the number of studies in which one of the chosen variants varies."""
        return int(self.varies[:, chosen].any(axis=1).sum())


def find_limits(
    union: UnionGene, group: TraitGroup, frequency: UnionFrequency, counted: CountedAllele, rules: Rules
) -> dict[float, Limit]:
    """Return what the studies contribute under each MAF limit, by the limit.

    Under the `study` policy a variant that is rare when pooled comes from the studies in which it is rare as well; what
    is not rare is seen by tests of whole masks only, and comes from all studies. Other policies leave nothing out.
    """
    rule = rules.tests.frequency
    bounded = bounded_frequency(frequency.frequency, rule)
    if rules.maf != "study":
        every = Limit(bounded=bounded, included=None, mac=counted.mac, varies=frequency.varies)
        return dict.fromkeys(rules.tests.max_maf, every)
    out = {}
    for bound in rules.tests.max_maf:
        own = bounded_frequency(frequency.by_study, rule) <= bound
        rare = (bounded <= bound) & (own & frequency.varies).any(axis=0)
        included = own | ~rare
        count, number = count_alleles(union, group, included)
        mac = np.where(counted.turn < 0, number - count, count)
        kept = np.where((bounded <= bound) & ~rare, np.inf, bounded)
        out[bound] = Limit(bounded=kept, included=included, mac=mac, varies=frequency.varies & included)
    return out


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
    request: GeneRequest, union: UnionGene, frequency: UnionFrequency, limits: Mapping[float, Limit], rules: Rules
) -> Iterator[Selection]:
    """Give the variants of every mask and MAF limit, and how many others were dropped for what.

    The singletons of a mask follow it as a mask of their own, under the largest limit, whatever their frequency.
    """
    n_listed = len(union.listed) if request.is_region else len(request.position)
    singleton = find_singletons(request, union, frequency, rules)
    last = max(rules.tests.max_maf)
    for m, mask in enumerate(rules.masks):
        member = np.ones(len(union.listed), np.bool_) if request.is_region else request.member[m][union.listed]
        for bound in rules.tests.max_maf:
            yield select_members(mask, bound, member, frequency.is_polymorphic, limits[bound].bounded, n_listed)
        if singleton is not None:
            name, own, any_frequency = mask + SINGLETON, member & singleton, np.zeros(len(member))
            yield select_members(name, last, own, frequency.is_polymorphic, any_frequency, n_listed)


def find_singletons(
    request: GeneRequest, union: UnionGene, frequency: UnionFrequency, rules: Rules
) -> NDArray[np.bool_] | None:
    """Return (u,) which variants are singletons, None where they are not tested.

    Observed ones have one copy of the counted allele in the samples of all studies (of dosages: between a half and one
    and a half); external ones are those of the file.
    """
    if rules.tests.singletons == "none":
        return None
    if rules.tests.singletons == "external" and request.singleton is not None:
        return request.singleton[union.listed]
    return np.abs(CountedAllele.of(frequency, rules.tests.frequency).mac - 1.0) < 0.5


def select_members(
    mask: str, bound: float, member: NDArray[np.bool_], polymorphic: NDArray[np.bool_], bounded: Floats, n_listed: int
) -> Selection:
    """Return the selection of a mask's members (u,) under one limit of the frequency ``bounded`` (u,)."""
    in_bin, in_mask, outside, monomorphic, frequent = split_variants(member, polymorphic, bounded, bound)
    audit = {
        "listed": n_listed,
        "absent": n_listed - len(member),
        "not_in_mask": outside,
        "monomorphic": monomorphic,
        "too_frequent": frequent,
        "kept": len(in_bin),
    }
    return Selection(mask=mask, max_maf=bound, in_bin=in_bin, in_mask=in_mask, audit=audit)
