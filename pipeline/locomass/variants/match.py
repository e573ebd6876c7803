"""Variants of lists found in a fileset, by the rule of `identity`; and what a fileset calls its variants.

Nothing is matched by position or count; every drop is counted and can be reported.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from locomass.errors import MatchError
from locomass.numbers import Floats
from locomass.variants.identity import (
    UNSEEN,
    Bools,
    Labels,
    canonical_alleles,
    frequency_agrees,
    is_indel,
    is_unseen,
    number_places,
)
from locomass.variants.keys import Identifiers, parse_variant_keys

#: Whether two rows of a fileset hold the same calls (their alleles may be in either order).
SameCalls = Callable[[int, int], bool]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class VariantMatch:
    """Variants of gene sets found in a fileset.

    Attributes:
        row: (k,) variant number in the fileset, -1 where absent.
        a1_is_alt: (k,) True where the .bim's A1 is the ALT (effect) allele.
        notes: what was not matched as written, for the log.
    """

    row: Integers
    a1_is_alt: Bools
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Frequencies:
    """What decides whether an indel is swapped: frequencies of the wanted ALT, and of A1 of rows of the fileset."""

    wanted: Floats
    of_rows: Callable[[Integers], Floats]


@dataclass(frozen=True)
class OrientedRows:
    """Rows of a .bim with REF and ALT: as the variant's name says, else A2 and A1.

    Attributes:
        row: (m,) variant number in the fileset.
        place: (m,) number of chromosome and position.
        ref, alt: (m,) alleles; an unseen one carries the name's allele where the name gives it.
        known: (m,) whether the name says which is REF.
        a1_is_alt: (m,).
        low, high: (m,) alleles in the order that names the variant.
    """

    row: Integers
    place: Integers
    ref: Labels
    alt: Labels
    known: Bools
    a1_is_alt: Bools
    low: Labels
    high: Labels


def orient_alleles(bim: pd.DataFrame) -> tuple[Labels, Labels, Bools, Bools]:
    """Return ref, alt, whether A1 is ALT, and whether that is known, of every row of a .bim.

    A name ``chrom:pos:ref:alt`` of the row's own place and alleles says it (`0` and `.` fit any allele of the name);
    elsewhere ALT is A1, or the unseen allele. Formats that know REF (``bim.attrs["ref_known"]``) need no name.
    """
    a1, a2 = bim["a1"].to_numpy(object), bim["a2"].to_numpy(object)
    keys = parse_variant_keys(bim["id"].tolist())
    own = (keys.position == bim["position"].to_numpy()) & (keys.chromosome == bim["chromosome"].astype(str).to_numpy())
    ref, alt = np.full(len(bim), "", object), np.full(len(bim), "", object)
    parts = [key.split(":", 3) for key in keys.key[own].tolist()]
    ref[own], alt[own] = [part[2] for part in parts], [part[3] for part in parts]
    free1, free2 = is_unseen(a1), is_unseen(a2)
    first = own & ((a1 == alt) | free1) & ((a2 == ref) | free2)
    second = own & ((a1 == ref) | free1) & ((a2 == alt) | free2)
    known = np.asarray(first != second, np.bool_)
    if bim.attrs.get("ref_known"):  # A2 is REF; the name only fills in what nobody carries
        known &= first
    a1_is_alt = np.asarray(np.where(known, first, ~free2 | free1), np.bool_)
    ref, alt = np.where(known, ref, np.where(a1_is_alt, a2, a1)), np.where(known, alt, np.where(a1_is_alt, a1, a2))
    return ref, alt, a1_is_alt, known


def match_variants(
    chromosome: Labels,
    position: Integers,
    ref: Labels,
    alt: Labels,
    bim: pd.DataFrame,
    what: str,
    *,
    same_calls: SameCalls | None = None,
    frequencies: Frequencies | None = None,
    ref_known: bool = True,
) -> VariantMatch:
    """Find variants in a fileset by the rule of `identity`.

    Args:
        chromosome, position, ref, alt: (k,) the variants wanted; ALT is the allele that is counted.
        bim: the fileset's variants: chromosome, position, id, a1, a2.
        what: name of the file that lists the wanted variants, for errors.
        same_calls: tells whether two rows are duplicates of one variant that may count as one; None: none may.
        frequencies: without them an indel is never matched with its alleles swapped.
        ref_known: whether ``ref`` is REF; not of weights, which have an effect and another allele.

    Raises:
        MatchError: no variant matches (and why that may be), or a wanted variant has two rows with different calls.
    """
    near = bim[bim["position"].isin(np.unique(position))]
    rows, place = _orient(near, chromosome, position)
    low, high = canonical_alleles(ref, alt)
    wanted = pd.MultiIndex.from_arrays([place, low, high])
    rows = _drop_duplicates(rows, wanted, bim, same_calls)
    keys = pd.MultiIndex.from_arrays([rows.place, rows.low, rows.high])
    distinct = np.flatnonzero(~keys.duplicated())
    at = keys[distinct].get_indexer(wanted).astype(np.int64)
    at = np.where(at >= 0, distinct[at], -1) if len(distinct) else at
    notes: list[str] = []
    open_rows = np.flatnonzero(is_indel(rows.ref, rows.alt) & ~(rows.known & ref_known))
    swapped = _match_swapped(at, rows, open_rows, (place, ref, alt), frequencies)
    if swapped.any():
        notes.append(
            f"{what}: {int(swapped.sum()):,} insertions or deletions are in {_path(bim)} only with REF and ALT "
            f"swapped, and nothing says which is REF there: they are left out; name variants chrom:pos:ref:alt in the "
            f".bim, or set REF by plink2 --ref-from-fa"
        )
    unseen = _match_unseen(at, rows, place, ref, alt)
    if unseen:
        notes.append(f"{what}: {unseen:,} variants are in {_path(bim)} without their ALT allele: nobody carries it")
    found = at >= 0
    if not found.any():
        raise MatchError(_explain_no_match(chromosome, position, ref, alt, bim, what))
    row = np.where(found, rows.row[at], -1)
    agrees = (rows.alt[at] == alt) | ((rows.ref[at] == ref) & (rows.ref[at] != alt))
    a1_is_alt = np.where(found, rows.a1_is_alt[at] == agrees, False)
    return VariantMatch(row, np.asarray(a1_is_alt, np.bool_), tuple(notes))


def _orient(near: pd.DataFrame, chromosome: Labels, position: Integers) -> tuple[OrientedRows, Integers]:
    """Return the rows near the wanted variants, and the place number of these."""
    a1, a2 = near["a1"].to_numpy(object), near["a2"].to_numpy(object)
    ref, alt, a1_is_alt, known = a2.copy(), a1.copy(), np.ones(len(near), np.bool_), np.ones(len(near), np.bool_)
    ordered = is_indel(a2, a1) | is_unseen(a1) | is_unseen(a2)  # of the others REF plays no part
    ref[ordered], alt[ordered], a1_is_alt[ordered], known[ordered] = orient_alleles(near[ordered])
    known |= bool(near.attrs.get("ref_known"))
    here = near["chromosome"].astype(str).to_numpy(object), near["position"].to_numpy(np.int64)
    place = number_places(np.concatenate([here[0], chromosome]), np.concatenate([here[1], position]))
    low, high = canonical_alleles(ref, alt)
    own, wanted = place[: len(near)], place[len(near) :]
    return OrientedRows(
        row=near.index.to_numpy(np.int64),
        place=own,
        ref=ref,
        alt=alt,
        known=known,
        a1_is_alt=a1_is_alt,
        low=low,
        high=high,
    ), wanted


def _drop_duplicates(
    rows: OrientedRows, wanted: pd.MultiIndex, bim: pd.DataFrame, same_calls: SameCalls | None
) -> OrientedRows:
    """Return the rows without later copies of a variant; a wanted variant's copies must hold the same calls."""
    keys = pd.MultiIndex.from_arrays([rows.place, rows.low, rows.high])
    if not keys.has_duplicates:
        return rows
    twice = np.flatnonzero(keys.duplicated(keep=False) & keys.isin(wanted) & ~is_unseen(rows.alt))
    refuse_differing(bim, rows.row[twice], keys[twice], same_calls)
    keep = ~keys.duplicated() | is_unseen(rows.alt)
    return OrientedRows(*(getattr(rows, name)[keep] for name in OrientedRows.__dataclass_fields__))


def refuse_differing(bim: pd.DataFrame, rows: Integers, keys: pd.Index, same_calls: SameCalls | None) -> None:
    """Raise unless rows with equal keys hold the same calls.

    Raises:
        MatchError: names the variant and both lines with their file.
    """
    first: dict[object, int] = {}
    for row, key in zip(rows.tolist(), keys, strict=True):
        other = first.setdefault(key, row)
        if other == row or (same_calls is not None and same_calls(other, row)):
            continue
        v = bim.loc[row]
        raise MatchError(
            f"{locate_rows(bim, other, row)}: variant {v['chromosome']}:{v['position']} {v['a1']}/{v['a2']} is listed "
            f"twice with different genotypes; keep one (plink2 --rm-dup)"
        )


def _match_swapped(
    at: Integers,
    rows: OrientedRows,
    open_rows: Integers,
    wanted: tuple[Integers, Labels, Labels],
    frequencies: Frequencies | None,
) -> Bools:
    """Match indels whose alleles are swapped in rows that may be, in place; return those that may not be matched."""
    place, ref, alt = wanted
    refused = np.zeros(len(at), np.bool_)
    open_rows = open_rows[~np.isin(open_rows, at[at >= 0])]
    if not open_rows.size:
        return refused
    lost = np.flatnonzero(at < 0)
    known = pd.MultiIndex.from_arrays([rows.place[open_rows], rows.alt[open_rows], rows.ref[open_rows]])
    hit = known.get_indexer(pd.MultiIndex.from_arrays([place[lost], ref[lost], alt[lost]]))
    lost, hit = lost[hit >= 0], open_rows[hit[hit >= 0]]
    agrees = np.zeros(len(lost), np.bool_)
    if frequencies is not None and len(lost):
        a1 = frequencies.of_rows(rows.row[hit])
        row_alt = np.where(rows.a1_is_alt[hit], a1, 1 - a1)
        agrees = frequency_agrees(frequencies.wanted[lost], row_alt)
    at[lost[agrees]] = hit[agrees]
    refused[lost[~agrees]] = True
    return refused


def _match_unseen(at: Integers, rows: OrientedRows, place: Integers, ref: Labels, alt: Labels) -> int:
    """Match variants, in place, with rows of their place that have one unseen allele; return how many.

    The other allele must be the variant's REF, or, but for indels, its ALT. A row serves one variant.
    """
    free = np.flatnonzero(is_unseen(rows.alt) | is_unseen(rows.ref))
    if not free.size:
        return 0
    waiting: dict[int, list[int]] = {}
    for j in free.tolist():
        waiting.setdefault(int(rows.place[j]), []).append(j)
    lost = np.flatnonzero((at < 0) & np.isin(place, rows.place[free]))
    indel = is_indel(ref[lost], alt[lost])
    taken: dict[tuple[int, str, str], int] = {}
    for k, ordered in zip(lost.tolist(), indel.tolist(), strict=True):
        key = (int(place[k]), ref[k], alt[k])
        if key not in taken:
            for j in waiting[key[0]]:
                known = rows.alt[j] if rows.ref[j] in UNSEEN else rows.ref[j]
                if known == ref[k] or (known == alt[k] and not ordered):
                    taken[key] = j
                    waiting[key[0]].remove(j)
                    break
        at[k] = taken.get(key, -1)
    return len(taken)


def make_identifiers(bim: Callable[[], pd.DataFrame]) -> Identifiers:
    """Return what looks up identifiers of a fileset (`keys.read_names`); the .bim is asked for only when it is needed.

    An identifier of several rows names none.
    """

    def find(names: Labels) -> Labels:
        table = bim()
        near = table[table["id"].isin(set(names.tolist()))]
        near = near[~near["id"].duplicated(keep=False)]
        ref, alt, _, _ = orient_alleles(near)
        parts = zip(near["id"], near["chromosome"].astype(str), near["position"].tolist(), ref, alt, strict=True)
        known = {name: f"{chromosome}:{position}:{r or '.'}:{a or '.'}" for name, chromosome, position, r, a in parts}
        return np.array([known.get(name, "") for name in names.tolist()], object)

    return find


def locate_rows(bim: pd.DataFrame, *rows: int) -> str:
    """Return the files and the lines of rows of a fileset's variants: ``e2.bim lines 2 and 3``."""
    files = bim.attrs.get("files") or ((bim.attrs.get("path", "the .bim"), 0),)
    lines: dict[str, list[str]] = {}
    for row in rows:
        path, first = max((f for f in files if f[1] <= row), key=lambda f: f[1])
        lines.setdefault(str(path), []).append(str(row - first + 1))
    return " and ".join(
        f"{path} line{'s' if len(numbers) > 1 else ''} {' and '.join(numbers)}" for path, numbers in lines.items()
    )


def _path(bim: pd.DataFrame) -> str:
    return str(bim.attrs.get("path", "the .bim"))


def _explain_no_match(
    chromosome: Labels, position: NDArray[np.int64], ref: Labels, alt: Labels, bim: pd.DataFrame, what: str
) -> str:
    """Return why no variant matched: other chromosomes, other build, other alleles."""
    shown = f"{chromosome[0]}:{position[0]}:{ref[0]}:{alt[0]}"
    first = bim.iloc[0]
    example = f"{first.chromosome}:{first.position}:{first.a2}:{first.a1}"
    path = bim.attrs.get("path", "the .bim")
    message = f"none of the {len(position):,} variants of {what} (such as {shown}) is in {path} (such as {example})"
    shared = set(map(str, bim["chromosome"].unique())) & set(chromosome)
    if not shared:
        have, wanted = _some(bim["chromosome"].unique()), _some(set(chromosome))
        return f"{message}: no chromosome is shared; the .bim has {have}, {what} has {wanted}"
    same_place = int(np.isin(position, bim["position"].to_numpy()).sum())
    if same_place > 0.2 * len(position):
        return f"{message}: {same_place:,} positions agree but alleles do not; are alleles on the other strand?"
    return f"{message}: positions differ; are the two on different genome builds?"


def _some(labels: Sequence[object] | set[str] | NDArray[np.object_]) -> str:
    """Return up to five labels as text."""
    texts = sorted(map(str, labels))
    return ", ".join(texts[:5]) + (", ..." if len(texts) > 5 else "")
