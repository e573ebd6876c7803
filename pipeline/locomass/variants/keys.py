"""The key that names a variant everywhere: ``chrom:pos:ref:alt``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from locomass.variants.chromosomes import normalise_chromosomes

_CANONICAL = "^[1-9][0-9]?:[1-9][0-9]{0,9}:[A-Z*]+:[A-Z*]+$"
_ALLELE = "[A-Za-z*]+|-|0|\\.|<[^>]+>"
_ACCEPTED = (
    f"^(?P<chromosome>[^:_/\\s-]+)[:_-](?P<position>[0-9]{{1,10}})[:_/-](?P<ref>{_ALLELE})[:_/-](?P<alt>{_ALLELE})$"
)


@dataclass(frozen=True, slots=True)
class VariantKeys:
    """Parsed variant names.

    Attributes:
        key: (K,) ``chrom:pos:ref:alt``; "" where malformed.
        chromosome: (K,) normalised label.
        position: (K,) base pairs, 1-based; 0 where malformed.
        malformed: rows that are not a variant name.
    """

    key: NDArray[np.object_]
    chromosome: NDArray[np.object_]
    position: NDArray[np.int64]
    malformed: NDArray[np.int64]


def parse_variant_keys(names: Any) -> VariantKeys:
    """Parse an Arrow column (or sequence) of variant names.

    Separators are ``:``, ``_``, ``/`` and ``-``: ``chr1:55039839:T:C``, ``22:16150801_T/A``, ``22-16150801-T-A``.
    """
    column = names if isinstance(names, (pa.Array, pa.ChunkedArray)) else pa.array(list(names), pa.string())
    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if len(column) and pc.all(pc.match_substring_regex(column, _CANONICAL)).as_py():
        parts = pc.split_pattern(column, ":", max_splits=2).flatten()
        position = pc.cast(parts.take(pa.array(np.arange(1, 3 * len(column), 3))), pa.int64())
        chromosome = normalise_chromosomes(parts.take(pa.array(np.arange(0, 3 * len(column), 3))))
        return VariantKeys(_objects(column), chromosome, np.asarray(position, np.int64), np.empty(0, np.int64))
    fields = pc.extract_regex(column, _ACCEPTED)
    good = np.asarray(pc.is_valid(fields), dtype=bool)
    chromosome = normalise_chromosomes(pc.fill_null(pc.struct_field(fields, "chromosome"), ""))
    position = pc.cast(pc.fill_null(pc.struct_field(fields, "position"), "0"), pa.int64())
    alleles = [pc.utf8_upper(pc.fill_null(pc.struct_field(fields, name), "")) for name in ("ref", "alt")]
    key = join_variant_keys(chromosome, position, *alleles)
    key[~good] = ""
    malformed = np.flatnonzero(~good | (np.asarray(position) == 0))
    return VariantKeys(key, chromosome, np.asarray(position, np.int64), malformed)


@dataclass(frozen=True, slots=True)
class ListedNames:
    """Names of a list, understood.

    Attributes:
        keys: as `parse_variant_keys`; of identifiers, what the fileset says of them. Malformed where neither.
        by_identifier: names that were found as identifiers of the fileset.
        asked: whether there was a fileset to ask.
    """

    keys: VariantKeys
    by_identifier: int = 0
    asked: bool = False


#: From identifiers such as rsIDs to ``chrom:pos:ref:alt``, "" where the fileset has no such identifier, or several.
Identifiers = Callable[[NDArray[np.object_]], NDArray[np.object_]]


def read_names(names: Any, identifiers: Identifiers | None = None) -> ListedNames:
    """Understand the names of a list: ``chrom:pos:ref:alt``, or identifiers of the fileset (rsIDs).

    Args:
        names: Arrow column or sequence of texts.
        identifiers: what the fileset calls its variants; None where there is no fileset.
    """
    column = names if isinstance(names, (pa.Array, pa.ChunkedArray)) else pa.array(list(names), pa.string())
    keys = parse_variant_keys(column)
    if identifiers is None or not keys.malformed.size:
        return ListedNames(keys, 0, identifiers is not None)
    unknown = _objects(column.take(pa.array(keys.malformed)))
    found = identifiers(unknown)
    known = np.flatnonzero(found != "")
    if not known.size:
        return ListedNames(keys, 0, True)
    own = parse_variant_keys(found[known].tolist())
    rows = keys.malformed[known]
    key, chromosome, position = keys.key.copy(), keys.chromosome.copy(), keys.position.copy()
    key[rows], chromosome[rows], position[rows] = own.key, own.chromosome, own.position
    return ListedNames(VariantKeys(key, chromosome, position, np.setdiff1d(keys.malformed, rows)), len(rows), True)


def join_variant_keys(chromosome: Any, position: Any, ref: Any, alt: Any) -> NDArray[np.object_]:
    """Return (K,) keys ``chrom:pos:ref:alt`` of four arrays; chromosomes normalised and alleles upper-case already."""
    columns = [pa.array(chromosome, pa.string()), pc.cast(pa.array(position), pa.string())]
    columns += [x if isinstance(x, (pa.Array, pa.ChunkedArray)) else pa.array(x, pa.string()) for x in (ref, alt)]
    return _objects(pc.binary_join_element_wise(*columns, ":"))


def encode_labels(*arrays: NDArray[np.object_]) -> list[NDArray[np.int64]]:
    """Return integer codes of several arrays of texts; equal texts have equal codes across the arrays."""
    encoded = pc.dictionary_encode(pa.array(np.concatenate(arrays), pa.string()))
    codes = np.asarray(encoded.indices, dtype=np.int64)
    return np.split(codes, np.cumsum([len(a) for a in arrays])[:-1])


def find_repeated(owner: NDArray[np.integer[Any]], key: NDArray[np.object_]) -> tuple[int, int] | None:
    """Return the rows of the first pair (owner, key) that occurs twice, or None."""
    (code,) = encode_labels(key)
    combined = owner.astype(np.int64) * (int(code.max(initial=0)) + 1) + code
    order = np.argsort(combined, kind="stable")
    same = np.flatnonzero(np.diff(combined[order]) == 0)
    if not same.size:
        return None
    first = same[np.argmin(order[same + 1])]
    return int(order[first]), int(order[first + 1])


def _objects(column: Any) -> NDArray[np.object_]:
    return np.asarray(column.to_numpy(zero_copy_only=False), dtype=object)
