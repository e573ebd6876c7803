"""Studies laid on one another: traits by their samples, variants by position and alleles, pooled frequencies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from locomass.bundle.study import Bundle, StudyGene
from locomass.errors import MatchError
from locomass.meta.tasks import GeneRequest
from locomass.meta.union import add_counts
from locomass.numbers import Floats
from locomass.variants.identity import canonical_alleles, name_unseen


@dataclass(frozen=True)
class TraitGroup:
    """Traits that are observed in the same sample sets of the same studies.

    Attributes:
        traits: names.
        studies: index of each study that has them.
        sample_sets: index of their sample set in each of those studies.
        n_samples: samples over the studies, per trait (the same for all).
    """

    traits: tuple[str, ...]
    studies: tuple[int, ...]
    sample_sets: tuple[int, ...]
    n_samples: int


def group_traits(bundles: Sequence[Bundle]) -> list[TraitGroup]:
    """Group the traits of all studies by the samples they are observed in.

    Raises:
        MatchError: a trait is quantitative in one study and binary in another.
    """
    kinds: dict[str, tuple[str, str]] = {}
    groups: dict[tuple[tuple[int, int], ...], list[str]] = {}
    for bundle in bundles:
        for name, trait in bundle.traits.items():
            kind, study = kinds.setdefault(name, (trait["kind"], bundle.study))
            if kind != trait["kind"]:
                raise MatchError(
                    f"trait '{name}' is {kind} in study {study} and {trait['kind']} in study {bundle.study}; "
                    f"rename one of them"
                )
    for name in kinds:
        key = tuple((k, b.sample_sets[b.traits[name]["sample_set"]]) for k, b in enumerate(bundles) if name in b.traits)
        groups.setdefault(key, []).append(name)
    out = []
    for key, names in groups.items():
        studies, sets = tuple(k for k, _ in key), tuple(s for _, s in key)
        n = sum(int(bundles[k].traits[names[0]]["n_samples"]) for k in studies)
        out.append(TraitGroup(tuple(names), studies, sets, n))
    return out


@dataclass
class UnionGene:
    """A gene over all studies, on the union of their variants; ALT is the request's.

    Attributes:
        position, ref, alt: (u,) variants present in at least one study, in the order of the request.
        listed: (u,) column of the request each came from (its own position for a region).
        studies: the study's gene, for each study that has it: (gene, place (m,) in the union, sign (m,) +1 or -1).
    """

    position: NDArray[np.int64]
    ref: NDArray[np.object_]
    alt: NDArray[np.object_]
    listed: NDArray[np.int64]
    studies: dict[int, tuple[StudyGene, NDArray[np.int64], Floats]]
    notes: list[str] = field(default_factory=list)


def unite_gene(request: GeneRequest, found: dict[int, StudyGene]) -> UnionGene:
    """Lay the variants of several studies on their union; a swapped pair of alleles turns the sign.

    Args:
        request: the gene and its listed variants, whose allele order is kept.
        found: the gene of each study that has it.
    """
    if len(found) == 1 and not request.is_region:
        alike = _unite_alike(request, *next(iter(found.items())))
        if alike is not None:
            return alike
    genes = list(found.values())
    columns = [(request.position, request.ref, request.alt), *((g.position, g.ref, g.alt) for g in genes)]
    position, ref, alt = (np.concatenate(parts) for parts in zip(*columns, strict=True))
    owner = np.repeat(np.arange(len(columns)), [len(c[0]) for c in columns])
    ref, alt = name_unseen(position, ref, alt, owner)
    code, n_codes = _number_variants(position, ref, alt)
    ends = np.cumsum([len(c[0]) for c in columns])
    own = ends[0]
    first = np.full(n_codes, -1, np.int64)  # the row that names a variant: the request's, or a region's first study's
    rows = np.arange(own if not request.is_region else len(code))[::-1]
    first[code[rows]] = rows
    wanted = np.arange(n_codes) if request.is_region else code[:own]
    present = np.zeros(n_codes, np.bool_)
    present[code[own:]] = True
    listed = np.flatnonzero(present[wanted])
    place = np.full(n_codes, -1, np.int64)
    place[wanted[listed]] = np.arange(len(listed))
    studies = {}
    for k, gene, low, high in zip(found, genes, ends[:-1], ends[1:], strict=True):
        mine = code[low:high]
        sign = np.where((alt[first[mine]] == alt[low:high]) & (first[mine] >= 0), 1.0, -1.0)
        studies[k] = (gene, place[mine], sign)
    at = first[wanted[listed]]
    return UnionGene(position[at].astype(np.int64), ref[at], alt[at], listed, studies)


def _number_variants(
    position: NDArray[np.int64], ref: NDArray[np.object_], alt: NDArray[np.object_]
) -> tuple[NDArray[np.int64], int]:
    """Return the number of each variant, and how many there are; numbers rise with position, then with the alleles."""
    low, high = canonical_alleles(ref, alt)
    pair, names = pd.factorize(low + ":" + high, sort=True)
    _, code = np.unique(position * max(1, len(names)) + pair, return_inverse=True)
    return code.reshape(-1), int(code.max(initial=-1)) + 1


def _unite_alike(request: GeneRequest, study: int, gene: StudyGene) -> UnionGene | None:
    """Return the union where a single study has listed variants in the request's order and orientation, else None."""
    position, m = request.position, len(gene.position)
    listed = np.arange(m) if m == len(position) else np.searchsorted(position, gene.position)
    if not m or listed.max() >= len(position) or not (listed[1:] > listed[:-1]).all():
        return None
    if m < len(position) and not (position[1:] > position[:-1]).all():
        return None  # several alleles at a position: which is whose takes the general way
    for own, theirs in ((position, gene.position), (request.ref, gene.ref), (request.alt, gene.alt)):
        if not np.array_equal(own[listed], theirs):
            return None
    here = np.arange(len(listed))
    return UnionGene(gene.position, gene.ref, gene.alt, listed, {study: (gene, here, np.ones(len(listed)))})


@dataclass(frozen=True)
class UnionFrequency:
    """Pooled counts of a trait group on the union of variants.

    Attributes:
        alt_count, allele_number: (u,) over the studies where the variant is present.
        frequency: (u,) ALT frequency under the policy; NaN where the external file has none.
        studies: (k,) numbers of the studies of the group that have the gene.
        by_study: (k, u) ALT frequency in each; NaN where the study lacks the variant.
    """

    alt_count: Floats
    allele_number: Floats
    frequency: Floats
    studies: tuple[int, ...]
    by_study: Floats

    @cached_property
    def is_polymorphic(self) -> NDArray[np.bool_]:
        """(u,) whether both alleles occur."""
        return (self.alt_count > 0) & (self.alt_count < self.allele_number)

    @cached_property
    def varies(self) -> NDArray[np.bool_]:
        """(k, u) whether both alleles occur in the study."""
        return (self.by_study > 0) & (self.by_study < 1)

    @cached_property
    def n_studies(self) -> NDArray[np.int64]:
        """(u,) studies in which the variant is polymorphic."""
        return np.asarray(self.varies.sum(axis=0))


def count_alleles(union: UnionGene, group: TraitGroup, included: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Return (u,) ALT counts and allele numbers over what the studies contribute, ``included`` (k, u)."""
    u = len(union.position)
    count, number = np.zeros(u), np.zeros(u)
    here = [(k, s) for k, s in zip(group.studies, group.sample_sets, strict=True) if k in union.studies]
    for (k, s), own in zip(here, included, strict=True):
        gene, at, sign = union.studies[k]
        add_counts(gene.n_obs, gene.alt_frequency, s, np.where((at >= 0) & own[at], at, -1), sign, count, number)
    return count, number


def pool_frequencies(union: UnionGene, group: TraitGroup, external: Floats | None) -> UnionFrequency:
    """Pool allele counts over the studies of a trait group; ``AC / AN`` unless an external frequency is given."""
    u = len(union.position)
    chosen = [(k, s) for k, s in zip(group.studies, group.sample_sets, strict=True) if k in union.studies]
    count, number, by_study = np.zeros(u), np.zeros(u), np.empty((len(chosen), u))
    for i, (k, s) in enumerate(chosen):
        gene, at, sign = union.studies[k]
        by_study[i] = add_counts(gene.n_obs, gene.alt_frequency, s, at, sign, count, number)
    with np.errstate(invalid="ignore"):
        frequency = count / number
    if external is not None:
        frequency = external[union.listed]
    return UnionFrequency(count, number, frequency, tuple(k for k, _ in chosen), by_study)
