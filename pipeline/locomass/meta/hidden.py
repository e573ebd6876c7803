"""Pseudo-variants of protected bundles among the variants of a gene: listed by category, so that masks take them."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from locomass.bundle.hidden import HIDDEN_POSITION, HIDDEN_REF, hidden_alt
from locomass.bundle.study import Bundle
from locomass.meta.tasks import GeneRequest, MetaTask
from locomass.numbers import Floats
from locomass.tables.catalogue import Catalogue


def add_hidden(tasks: Iterable[MetaTask], c: Catalogue, bundles: Iterable[Bundle]) -> list[MetaTask]:
    """Return tasks whose genes also list the pseudo-variants of protected bundles; as they are where none is protected.

    A mask takes the pseudo-variant of a category when it takes the variants of that category. Its annotations, and its
    external frequency, are the means of the gene's variants of the category. Regions take what lies in them anyway.
    """
    if c.is_regions or not any(bundle.info.get("share") == "protected" for bundle in bundles):
        return list(tasks)
    names, first, code = np.unique(c.category.astype(str), return_index=True, return_inverse=True)
    place = {str(gene): i for i, gene in enumerate(c.sets.gene)}
    member = c.member[:, first]

    def extend(request: GeneRequest) -> GeneRequest:
        i = place[request.gene]
        own = code[int(c.sets.offsets[i]) : int(c.sets.offsets[i + 1])]
        return _extend(request, own, names.tolist(), member)

    return [replace(task, genes=tuple(map(extend, task.genes))) for task in tasks]


def _extend(request: GeneRequest, code: NDArray[np.int64], names: list[str], member: NDArray[np.bool_]) -> GeneRequest:
    """Return a request with the pseudo-variants of the categories that the gene lists."""
    used = np.unique(code)
    alt = np.array([hidden_alt(request.gene, names[k]) for k in used], object)

    def means(values: Floats) -> Floats:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a category without any value has none
            return np.concatenate([values, [np.nanmean(values[code == k]) for k in used]])

    return replace(
        request,
        position=np.concatenate([request.position, np.full(len(used), HIDDEN_POSITION)]),
        ref=np.concatenate([request.ref, np.full(len(used), HIDDEN_REF, object)]),
        alt=np.concatenate([request.alt, alt]),
        member=np.concatenate([request.member, member[:, used]], axis=1),
        columns={name: means(values) for name, values in request.columns.items()},
        owner=np.concatenate([request.owner, np.zeros(len(used), np.bool_)]),
        external=None if request.external is None else means(request.external),
        singleton=None
        if request.singleton is None
        else np.concatenate([request.singleton, np.zeros(len(used), np.bool_)]),
    )
