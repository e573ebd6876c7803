"""What a study tells of the people who carry a gene's variants, so that scores have laws: groups, and residuals.

People of a gene who carry the same variants, with the logit of their fitted probability in the same cell, are a group:
how many, and their mean mu. One table serves every sum of the gene's variants: any mask, frequency limit and weights,
any mode of inheritance, single variants, and draws that respect who carries two variants at once. Quantitative traits
of one sample set share the groups, which need no mu; the distribution of a trait's residuals is in study.json, once.

A variant with many expected cases (or carriers) is grouped by itself: its score is nearly normal, and what it shares
with others is in V. ``min_cell``: groups below it are joined (cells of mu, then homozygotes with heterozygotes); people
who carry several variants are counted once for each instead; a variant with fewer carriers has no group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numba import njit
from numpy.typing import NDArray

from locomass.bundle.study import list_array
from locomass.null_models.base import ChromosomeModel, NullModels
from locomass.null_models.registry import trait_model
from locomass.numbers import Floats
from locomass.schema import BUNDLE_LAWS
from locomass.scores.genotypes import BatchCarriers, GeneRows

Integers = NDArray[np.int64]

CELL = 0.25  # width of a cell of logit(mu): tails down to 1e-12 are right to 1.7 %
FEW_OUTCOMES = 100.0  # expected variance of a count below which a variant is grouped together with the others
FEW_CARRIERS = 1_000  # the same for quantitative traits
STEP = 0.05  # of imputed dosages, which are rounded to it
NODES_PER_TAIL = 1.25  # by how much groups of residuals grow from the tails inwards
LARGEST_NODE = 0.01  # part of the people that one node stands for


@dataclass(frozen=True)
class Groups:
    """Groups of the carriers of one gene; see ``schema.BUNDLE_LAWS``."""

    size: NDArray[np.int32]
    carried: NDArray[np.int32]
    variant: NDArray[np.int32]
    dosage: NDArray[np.float32]
    mu: NDArray[np.float32]


@njit(cache=True, nogil=True)
def list_calls(
    rows: Integers,
    indptr: Integers,
    sample: NDArray[np.int32],
    dosage: NDArray[np.int8],
    place: Integers,
    scale: float,
    head: Integers,
) -> tuple[Integers, Integers, Integers]:
    """Return person (of the sample set), variant (of the gene) and dosage in steps of all calls of a gene, by person.

    Args:
        rows: (m,) the gene's variants as rows of the carrier arrays.
        indptr, sample, dosage: carriers; a missing call is negative.
        place: number of each analysed sample in the set, -1 outside.
        scale: steps per allele.
        head: (n,) scratch, all zero on entry and on exit.
    """
    total = 0
    for j in rows:
        for e in range(indptr[j], indptr[j + 1]):
            if dosage[e] > 0 and place[sample[e]] >= 0:
                head[sample[e]] += 1
                total += 1
    start = 0
    person, variant, steps = np.empty(total, np.int64), np.empty(total, np.int64), np.empty(total, np.int64)
    for j in rows:
        for e in range(indptr[j], indptr[j + 1]):
            s = sample[e]
            if dosage[e] > 0 and head[s] > 0:  # first seen: room for all calls of the person
                person[start : start + head[s]] = place[s]
                start, head[s] = start + head[s], start - total - 1
    for a in range(rows.shape[0]):
        j = rows[a]
        for e in range(indptr[j], indptr[j + 1]):
            s = sample[e]
            if dosage[e] > 0 and place[s] >= 0:
                at = head[s] + total + 1
                variant[at], steps[at] = a, round(dosage[e] * scale)
                head[s] += 1
    for j in rows:
        for e in range(indptr[j], indptr[j + 1]):
            head[sample[e]] = 0
    kept = steps > 0
    return person[kept], variant[kept], steps[kept]


def group_carriers(
    person: Integers,
    variant: Integers,
    steps: Integers,
    *,
    mu: Floats | None,
    sign: Floats,
    min_cell: int,
    few: float = FEW_CARRIERS,
) -> Groups:
    """Return the groups of a gene's carriers.

    Args:
        person, variant, steps: calls, those of a person together.
        mu: (n,) fitted probability; None for other than binary traits.
        sign: (m,) +1 where the counted allele is ALT, else -1: dosages are of what U counts.
        min_cell: people that a group has at least (0: any number).
        few: carriers, where there is no mu, below which a variant is grouped together with the others.
    """
    m = sign.size
    if mu is None:
        many = np.bincount(variant, minlength=m) >= few
    else:
        W = (mu * (1.0 - mu))[person] * (steps * STEP) ** 2
        many = np.bincount(variant, W, minlength=m) >= FEW_OUTCOMES
    alone = many[variant]
    groups: list[tuple[Integers, Integers, Integers, Floats]] = []
    groups += _group_rows(person[alone], variant[alone][:, None], steps[alone][:, None], mu)
    person, variant, steps = person[~alone], variant[~alone], steps[~alone]
    first = np.flatnonzero(np.diff(person, prepend=-1))
    length = np.diff(np.append(first, person.size))
    for size in np.unique(length).tolist():
        at = first[length == size][:, None] + np.arange(size)
        groups += _group_rows(person[at[:, 0]], variant[at], steps[at], mu)
    if min_cell > 1:
        groups = _join_small(groups, min_cell)
    return _lay_groups(groups, sign, mu is not None)


def _group_rows(
    person: Integers, variant: Integers, steps: Integers, mu: Floats | None
) -> list[tuple[Integers, Integers, Integers, Floats]]:
    """Return (size, variants (s, k), steps (s, k), mean mu) of people with k variants each; empty without people."""
    if not person.size:
        return []
    k = variant.shape[1]
    cell = np.zeros(person.size, np.int64)
    if mu is not None:
        own = mu[person]
        cell = np.floor(np.log(own / (1.0 - own)) / CELL).astype(np.int64)
    if k == 1:
        low = int(cell.min())
        span, most = int(cell.max()) - low + 1, int(steps.max()) + 1
        code = (variant[:, 0] * most + steps[:, 0]) * span + (cell - low)
        values, index = np.unique(code, return_inverse=True)
        variants, dosages = values // span // most, values // span % most
        variants, dosages = variants[:, None], dosages[:, None]
    else:
        rows, index = np.unique(np.column_stack([variant, steps, cell]), axis=0, return_inverse=True)
        variants, dosages = rows[:, :k], rows[:, k : 2 * k]
    index = index.reshape(-1)
    size = np.bincount(index)
    mean = np.zeros(size.size) if mu is None else np.bincount(index, mu[person]) / size
    return [(size, variants, dosages, mean)]


def _join_small(
    groups: list[tuple[Integers, Integers, Integers, Floats]], least: int
) -> list[tuple[Integers, Integers, Integers, Floats]]:
    """Return groups of at least ``least`` people; what cannot be joined to that size is left out."""
    single: dict[int, list[tuple[int, int, float]]] = {}
    out = []
    for size, variants, dosages, mean in groups:
        k = variants.shape[1]
        pattern = np.unique(np.column_stack([variants, dosages]), axis=0, return_inverse=True)[1].reshape(-1)
        total = np.bincount(pattern, size)[pattern]
        for i in range(size.size):
            if k > 1 and total[i] >= least:
                continue
            for v, d in zip(variants[i].tolist(), dosages[i].tolist(), strict=True):
                single.setdefault(v, []).append((d, int(size[i]), float(mean[i])))
        for p in np.unique(pattern[(total >= least) & (k > 1)]).tolist():
            at = np.flatnonzero(pattern == p)
            for n, mu in _join_cells(size[at], mean[at], least):
                out.append((np.array([n]), variants[at[:1]], dosages[at[:1]], np.array([mu])))
    for v, parts in single.items():
        total_of: dict[int, int] = {}
        for d, n, _ in parts:
            total_of[d] = total_of.get(d, 0) + n
        if sum(total_of.values()) < least:
            continue
        main = max(total_of, key=lambda d: total_of[d])
        by_dosage: dict[int, list[tuple[int, float]]] = {}
        for d, n, mu in parts:  # too few homozygotes count with the others
            by_dosage.setdefault(d if total_of[d] >= least else main, []).append((n, mu))
        for d, members in by_dosage.items():
            people, means = np.array([n for n, _ in members]), np.array([mu for _, mu in members])
            for count, mean_mu in _join_cells(people, means, least):
                out.append((np.array([count]), np.array([[v]]), np.array([[d]]), np.array([mean_mu])))
    return out


def _join_cells(size: Integers, mean: Floats, least: int) -> list[tuple[int, float]]:
    """Return (people, mean mu) of neighbouring cells joined until each has at least ``least``."""
    out: list[tuple[int, float]] = []
    n, total = 0, 0.0
    for i in np.argsort(mean, kind="stable"):
        n, total = n + int(size[i]), total + float(size[i] * mean[i])
        if n >= least:
            out.append((n, total / n))
            n, total = 0, 0.0
    if n and out:
        last, mu = out[-1]
        out[-1] = (last + n, (last * mu + total) / (last + n))
    return out


def _lay_groups(groups: Sequence[tuple[Integers, Integers, Integers, Floats]], sign: Floats, with_mu: bool) -> Groups:
    """Return the groups as the columns of the table."""
    empty = np.empty(0)
    size = np.concatenate([empty, *(g[0] for g in groups)]).astype(np.int32)
    carried = np.concatenate([empty, *(np.full(len(g[0]), g[1].shape[1]) for g in groups)]).astype(np.int32)
    variant = np.concatenate([empty, *(g[1].reshape(-1) for g in groups)]).astype(np.int64)
    steps = np.concatenate([empty, *(g[2].reshape(-1) for g in groups)])
    mean = np.concatenate([empty, *(g[3] for g in groups)]) if with_mu else empty
    dosage = np.round(steps * STEP, 6) * sign[variant]
    return Groups(size, carried, variant.astype(np.int32), dosage.astype(np.float32), mean.astype(np.float32))


def laws_table(
    genes: Sequence[GeneRows],
    locals_: Sequence[Integers],
    models: NullModels,
    model: ChromosomeModel,
    carriers: BatchCarriers,
    min_cell: int,
) -> pa.Table:
    """Return the groups of carriers of every gene and covariance of a batch.

    Args:
        genes, locals_: the genes, and their variants as rows of the carrier arrays.
        models, model: null models of the study and of the chromosome.
        carriers: of the batch.
        min_cell: smallest group that may be seen.
    """
    head = np.zeros(len(models.samples), np.int64)
    rows: dict[str, list[Any]] = {c.name: [] for c in BUNDLE_LAWS.columns}
    for covariance in models.covariances:
        null = trait_model(models, model, covariance.traits[0])
        mu = null.mu if null.law == "bernoulli" else None
        few = float(FEW_CARRIERS)
        if null.kind == "time_to_event":
            few = max(few, FEW_OUTCOMES / float(np.mean(null.residual**2)))
        for gene, local in zip(genes, locals_, strict=True):
            calls = list_calls(
                local.astype(np.int64), carriers.indptr, carriers.sample, carriers.dosage, null.place, 1.0 / STEP, head
            )
            found = group_carriers(*calls, mu=mu, sign=carriers.sign[local], min_cell=min_cell, few=few)
            cells = (gene.gene, covariance.name, found.size, found.carried, found.variant, found.dosage, found.mu)
            for name, cell in zip(rows, cells, strict=True):
                rows[name].append(cell)
    return pa.table(
        {
            c.name: list_array(rows[c.name], c.type.value_type)
            if pa.types.is_list(c.type)
            else pa.array(rows[c.name], c.type)
            for c in BUNDLE_LAWS.columns
        }
    )


def describe_residuals(
    residual: Floats, least: int, event: NDArray[np.bool_] | None = None
) -> dict[str, list[float] | float]:
    """Return the distribution of residuals as nodes, each the mean of neighbouring ones, with mean 0 and variance 1.

    Groups grow from the tails inwards, so that the tails are known person by person (or by ``least`` people) and the
    middle by hundredths. Residuals of a time to event are described for people with and without an event apart, where
    both are ``least`` people: the two are far apart when events are few. ``sd`` is then their standard deviation.

    Args:
        residual: (n,) of one trait.
        least: people that a node stands for at least.
        event: (n,) who had the event, of a time to event.
    """
    apart = event is not None and min(event.sum(), (~event).sum()) >= max(least, 1)
    groups = [residual[event], residual[~event]] if apart and event is not None else [residual]
    parts = [_list_nodes(np.sort(r), least, residual.size) for r in groups]
    node, size = (np.concatenate([part[k] for part in parts]) for k in range(2))
    order = np.argsort(node, kind="stable")
    node, chance = node[order], size[order] / residual.size
    node = node - chance @ node
    node /= np.sqrt(chance @ node**2)
    told: dict[str, list[float] | float] = {"node": node.tolist(), "chance": chance.tolist()}
    return told if event is None else {**told, "sd": float(np.std(residual))}


def _list_nodes(r: Floats, least: int, total: int) -> tuple[Floats, Integers]:
    """Return means of neighbours of sorted values, and how many each stands for; ``total``: people of the study."""
    n, sizes = r.size, []
    left, size = n // 2, float(max(least, 1))
    while left >= round(size):
        sizes.append(round(size))
        left -= sizes[-1]
        size = min(max(size * NODES_PER_TAIL, size + 0.5), max(LARGEST_NODE * total, float(max(least, 1))))
    middle = n - 2 * sum(sizes)
    parts = np.array([*sizes, *([middle] if middle else []), *sizes[::-1]], np.int64)
    if middle and middle < least and len(sizes):  # its neighbour takes it
        parts = np.delete(parts, len(sizes))
        parts[len(sizes)] += middle
    return np.add.reduceat(r, np.concatenate(([0], np.cumsum(parts)[:-1]))) / parts, parts
