"""`share: protected`: whatever a bundle says of a gene is a sum over groups of at least ``min_cell`` people.

Let the pattern of a person be what he or she carries of a gene's variants, with the sample sets that he or she is in.
All that a bundle holds of a gene (U, V, G'WG, B, counts, laws, burdens) is linear in the genotypes, or in products of
two of them, so it is a sum over patterns. When each pattern other than "carries nothing" has at least ``min_cell``
people, no combination of those numbers, with whatever coefficients, is about fewer.

    1. A variant that fewer than min_cell people of a sample set carry is not shared. Those of a gene and category are
       one pseudo-variant: who carries any of them (`locomass.bundle.hidden`).
    2. While a pattern has fewer people, they are coarsened: homozygotes count as heterozygotes, then the rarest variant
       that they carry is forgotten, until they are like enough others, or carry nothing.
    3. A missing call counts as the frequent homozygote, an imputed dosage as the nearest call. A variant that several
       genes list is shared with the first only: two genes that differ by one variant would give that away.

Genotypes are changed without looking at phenotypes, so every test keeps its level; what is lost is power (see
studies/protection.py). The guarantee is of each gene by itself: variants of two genes that nearly the same people carry
can still be subtracted from each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from locomass.bundle.hidden import hidden_alt
from locomass.scores.genotypes import BatchCarriers, BatchTask, GeneRows, StudyContext, summarise_carriers
from locomass.tables.catalogue import Catalogue, StudyVariants

Integers = NDArray[np.int64]
SEED = 23  # of the labels of patterns; they are compared, and shared with nobody


@dataclass(frozen=True)
class Protection:
    """What a batch needs to hide variants.

    Attributes:
        category: per gene, (m,) code of the category of each of its variants.
        number: per gene, (C,) row that its pseudo-variant of each category has in the study's variant table.
        alt: per gene, (C,) names of those.
    """

    category: tuple[Integers, ...]
    number: tuple[Integers, ...]
    alt: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Calls:
    """Calls of a gene that are not zero: person, column, dosage (1 or 2), in no order."""

    person: Integers
    column: Integers
    dosage: Integers

    def take(self, rows: NDArray[np.bool_]) -> Calls:
        """Return some of the calls."""
        return Calls(self.person[rows], self.column[rows], self.dosage[rows])


def claim_members(members: Sequence[Integers], order: Sequence[int]) -> list[Integers]:
    """Return the variants of each gene without those that a gene earlier in the order has."""
    seen: set[int] = set()
    out = list(members)
    for i in order:
        mine = [j for j in members[i].tolist() if j not in seen]
        seen.update(mine)
        out[i] = np.array(mine, np.int64)
    return out


def plan_protection(
    catalogue: Catalogue, found: StudyVariants, genes: Sequence[int], members: Sequence[Integers]
) -> Protection:
    """Return what a batch of genes (numbers of the catalogue) with these variants hides, and under which names."""
    names, code = np.unique(catalogue.category.astype(str), return_inverse=True)
    if catalogue.is_regions:
        names = np.array([""])
    places = {} if catalogue.is_regions else _listed_places(catalogue, genes)
    category, number, alt = [], [], []
    for i, mine in zip(genes, members, strict=True):
        at = [places.get((i, *_key(found, j)), -1) for j in mine.tolist()]
        category.append(np.array([0 if k < 0 else code[k] for k in at], np.int64))
        number.append(len(found.row) + i * len(names) + np.arange(len(names)))
        alt.append(tuple(hidden_alt(str(catalogue.sets.gene[i]), name) for name in names.tolist()))
    return Protection(tuple(category), tuple(number), tuple(alt))


def _key(found: StudyVariants, j: int) -> tuple[int, str, str]:
    return int(found.position[j]), str(found.ref[j]), str(found.alt[j])


def _listed_places(c: Catalogue, genes: Sequence[int]) -> dict[tuple[int, int, str, str], int]:
    """Return the place in the catalogue of every variant of these genes."""
    out = {}
    for i in genes:
        for k in range(int(c.sets.offsets[i]), int(c.sets.offsets[i + 1])):
            out[i, int(c.position[k]), str(c.ref[k]), str(c.alt[k])] = k
    return out


def protect_batch(task: BatchTask, context: StudyContext, carriers: BatchCarriers) -> tuple[BatchTask, BatchCarriers]:
    """Return the batch as it is shared: its variants, pseudo-variants among them, and who counts as a carrier."""
    assert task.protection is not None
    numbers, genes, calls = [], [], []
    in_set = context.models.in_set.astype(bool)
    within = ~(carriers.share_missing > task.max_missing) & ~(carriers.info < task.min_info)
    for g, gene in enumerate(task.genes):
        local = np.searchsorted(task.variants, gene.variants)
        own = _list_calls(carriers, local)
        usable = within[local] & ((carriers.sign[local] > 0) | ~_is_rare(own, len(local), in_set, task.min_cell))
        own = own.take(usable[own.column])
        own = hide_rare(own, task.protection.category[g], len(task.protection.number[g]), in_set, task.min_cell)
        own = coarsen(own, in_set, task.min_cell)
        names = np.concatenate([gene.variants, task.protection.number[g]])
        used = np.unique(own.column)
        genes.append(GeneRows(gene.gene, gene.chromosome, gene.start, gene.end, np.sort(names[used])))
        numbers.append(names[used])
        calls.append(Calls(own.person, names[own.column], own.dosage))
    shared = np.sort(np.concatenate(numbers))
    real = np.searchsorted(task.variants, shared).clip(max=len(task.variants) - 1)
    is_real = task.variants[real] == shared
    sign = np.where(is_real, carriers.sign[real], 1.0)
    positions = np.where(is_real, task.positions[real], 1)
    new = replace(task, variants=shared, positions=positions, genes=tuple(genes), a1_is_alt=np.ones(len(shared), bool))
    return new, summarise_carriers(context, *_lay(calls, shared), sign, task.missing)


def _list_calls(carriers: BatchCarriers, local: Integers) -> Calls:
    """Return the calls of a gene: missing ones are no call, imputed dosages are rounded."""
    low, high = carriers.indptr[local], carriers.indptr[local + 1]
    at = np.concatenate([np.arange(a, b) for a, b in zip(low, high, strict=True)] or [np.empty(0, np.int64)])
    at = at.astype(np.int64)
    dosage = np.rint(carriers.dosage[at].astype(np.float64)).astype(np.int64)
    calls = Calls(carriers.sample[at].astype(np.int64), np.repeat(np.arange(len(local)), high - low), dosage)
    return calls.take(dosage > 0)


def _is_rare(calls: Calls, n_columns: int, in_set: NDArray[np.bool_], min_cell: int) -> NDArray[np.bool_]:
    """Return (columns,) whether fewer than ``min_cell`` people of a sample set, but somebody, carry a column."""
    counts = np.stack(
        [np.bincount(calls.column, in_set[calls.person, s], minlength=n_columns) for s in range(in_set.shape[1])]
    )
    return np.asarray(((counts > 0) & (counts < min_cell)).any(axis=0))


def hide_rare(calls: Calls, category: Integers, n_categories: int, in_set: NDArray[np.bool_], min_cell: int) -> Calls:
    """Move the calls of rare variants to the pseudo-variants of their categories, the columns after the variants'."""
    m = len(category)
    rare = _is_rare(calls, m, in_set, min_cell)[calls.column]
    column = np.where(rare, m + category[calls.column], calls.column)
    dosage = np.where(rare, 1, calls.dosage)
    first = np.unique(calls.person * (m + n_categories) + column, return_index=True)[1]  # carries any: once
    return Calls(calls.person[first], column[first], dosage[first])


def coarsen(calls: Calls, in_set: NDArray[np.bool_], min_cell: int) -> Calls:
    """Forget calls until every pattern has at least ``min_cell`` people."""
    label = np.random.default_rng(SEED).integers(1, 2**63, (3, int(calls.column.max(initial=0)) + 1), dtype=np.uint64)
    of_sets = np.unique(in_set, axis=0, return_inverse=True)[1].ravel().astype(np.uint64)
    while len(calls.person):
        people, row = np.unique(calls.person, return_inverse=True)
        pattern = of_sets[people].copy()
        np.add.at(pattern, row, label[calls.dosage, calls.column])
        _, group, size = np.unique(pattern, return_inverse=True, return_counts=True)
        small = (size < min_cell)[group][row]
        if not small.any():
            return calls
        calls = _simplify(calls, small)
    return calls


def _simplify(calls: Calls, small: NDArray[np.bool_]) -> Calls:
    """Take one step off the patterns of the people marked: homozygotes first, then each one's rarest column."""
    twice = small & (calls.dosage == 2)
    if twice.any():
        return replace(calls, dosage=np.where(twice, 1, calls.dosage))
    frequency = np.bincount(calls.column)[calls.column]
    order = np.lexsort((calls.column, frequency, calls.person))
    first = np.diff(calls.person[order], prepend=-1) != 0
    rarest = np.zeros(len(small), np.bool_)
    rarest[order[first]] = True
    return calls.take(~(small & rarest))


def _lay(calls: Sequence[Calls], shared: Integers) -> tuple[Integers, NDArray[np.int32], NDArray[np.int8]]:
    """Return the calls of all genes as carrier lists of the shared variants, whose numbers rise."""
    person, number, dosage = (np.concatenate([getattr(c, n) for c in calls]) for n in ("person", "column", "dosage"))
    row = np.searchsorted(shared, number)
    order = np.lexsort((person, row))
    indptr = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=len(shared)))]).astype(np.int64)
    return indptr, person[order].astype(np.int32), dosage[order].astype(np.int8)
