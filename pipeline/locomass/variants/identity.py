"""When two variants are the same: the rule of the house, which every join of variants goes by.

1. Chromosome, position and both alleles must agree; alleles are compared as written, in upper case.
2. Two alleles of one length (a substitution) name one variant in either order: the genome has one of them as REF.
3. Of an insertion or deletion the order is information: ``T:TA`` inserts an A, ``TA:T`` deletes one, and a site can
   have both. They are one variant with swapped alleles only where a file does not know REF (a .bim whose names do not
   say it, a GWAS that speaks of effect and other allele), neither file has an exact partner, and the frequency agrees.
4. ``0``, ``.`` and an empty allele (`UNSEEN`) name an allele that nobody in the file carries: such a row is the people
   without the allele of any variant that shares its other allele, not an absent variant.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from locomass.numbers import Floats

Labels = NDArray[np.object_]
Bools = NDArray[np.bool_]
Key = tuple[int, str, str]

UNSEEN = ("0", ".", "")
_WRITTEN = "^([A-Za-z]+|-)$"  # an allele of known length; '-' is the empty one
CLOSE, FAR = 0.1, 0.2  # frequencies differ by less once the alleles are swapped back, by more while they are not


def is_unseen(alleles: Labels) -> Bools:
    """Return (m,) whether an allele is one that nobody carries (`UNSEEN`)."""
    return np.asarray(pc.is_in(pa.array(alleles, pa.string()), value_set=pa.array(UNSEEN)), dtype=np.bool_)


def is_indel(first: Labels, second: Labels) -> Bools:
    """Return (m,) whether the order of the two alleles is information: both are spelled out, with different lengths."""
    length, written = zip(*(_measure(alleles) for alleles in (first, second)), strict=True)
    return np.asarray((length[0] != length[1]) & written[0] & written[1], dtype=np.bool_)


def _measure(alleles: Labels) -> tuple[NDArray[np.int64], Bools]:
    """Return (m,) the length of each allele, 0 for '-', and whether it is spelled out."""
    column: Any = pa.array(alleles, pa.string()).dictionary_encode()
    words, at = column.dictionary, np.asarray(column.indices, np.int64)
    length = np.asarray(pc.if_else(pc.equal(words, "-"), 0, pc.utf8_length(words)), np.int64)
    return length[at], np.asarray(pc.match_substring_regex(words, _WRITTEN), np.bool_)[at]


def canonical_alleles(ref: Labels, alt: Labels) -> tuple[Labels, Labels]:
    """Return the two alleles in the order that names the variant: alphabetical, or as given for indels.

    Args:
        ref, alt: (m,) alleles, REF known or taken as known.
    """
    ref, alt = np.asarray(ref, object), np.asarray(alt, object)
    swap = np.asarray(ref > alt, np.bool_)
    if swap.any():
        swap[swap] = ~is_indel(ref[swap], alt[swap])
    return np.where(swap, alt, ref), np.where(swap, ref, alt)


def number_places(chromosome: Labels, position: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return (m,) numbers that are equal exactly for equal chromosome and position."""
    column: Any = pa.array(chromosome, pa.string()).dictionary_encode()
    label = np.asarray(column.indices, np.int64)
    order = np.lexsort((position, label))
    new = (np.diff(label[order], prepend=-1) != 0) | (np.diff(position[order], prepend=-1) != 0)
    out = np.empty(len(order), np.int64)
    out[order] = np.cumsum(new) - 1
    return out


def variant_keys(position: NDArray[np.int64], ref: Labels, alt: Labels) -> list[Key]:
    """Return (m,) keys (position, allele, allele) that are equal exactly for the same variant of one chromosome."""
    low, high = canonical_alleles(ref, alt)
    return list(zip(np.asarray(position).tolist(), low.tolist(), high.tolist(), strict=True))


def name_unseen(place: NDArray[np.int64], ref: Labels, alt: Labels, owner: NDArray[np.int64]) -> tuple[Labels, Labels]:
    """Give rows with an unseen allele the allele that another table names there.

    A row takes the first variant at its place that has its known allele as REF (or, but for indels, as ALT) and that
    its own table does not have already; a row without such a partner stays as it is.

    Args:
        place: (m,) number of chromosome and position.
        ref, alt: (m,) alleles.
        owner: (m,) number of the table that each row is from.

    Returns:
        ref and alt with unseen alleles named where they can be.
    """
    unseen = is_unseen(ref) | is_unseen(alt)
    if not unseen.any():
        return ref, alt
    ref, alt = ref.copy(), alt.copy()
    near = np.flatnonzero(np.isin(place, place[unseen]) & ~unseen)
    at: dict[int, list[int]] = {}
    for k in near.tolist():
        at.setdefault(int(place[k]), []).append(k)
    keys = variant_keys(place, ref, alt)
    taken = {(int(owner[k]), keys[k]) for k in near.tolist()}
    indel = dict(zip(near.tolist(), is_indel(ref[near], alt[near]).tolist(), strict=True))
    for k in np.flatnonzero(unseen).tolist():
        known = alt[k] if ref[k] in UNSEEN else ref[k]
        for j in at.get(int(place[k]), []):
            fits = known == ref[j] or (known == alt[j] and not indel[j])
            if fits and (int(owner[k]), keys[j]) not in taken:
                other = alt[j] if known == ref[j] else ref[j]
                ref[k], alt[k] = (other, known) if ref[k] in UNSEEN else (known, other)
                taken.add((int(owner[k]), keys[j]))
                break
    return ref, alt


def frequency_agrees(frequency: Floats, other: Floats) -> Bools:
    """Return (m,) whether frequencies of one allele show that two tables name it in opposite orders.

    Args:
        frequency: of the allele in one table.
        other: of the allele that stands in its place in the other table; NaN where unknown, which never agrees.
    """
    with np.errstate(invalid="ignore"):
        return np.asarray((np.abs(1 - frequency - other) < CLOSE) & (np.abs(frequency - other) > FAR), np.bool_)
