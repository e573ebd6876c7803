"""Exact joins by label: samples of tables to samples of a fileset, variants of sets to variants of a fileset.

Nothing is matched by position or count; every drop is counted and can be reported.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.errors import MatchError

Labels = NDArray[np.object_]


def match_samples(
    fid: Labels, iid: Labels, other_fid: Labels | None, other_iid: Labels, what: str
) -> NDArray[np.int64]:
    """Return, for each sample of the fileset, its row in another table, or -1.

    Args:
        fid, iid: (N,) labels of the fileset.
        other_fid: (k,) family labels of the table; None when it has an IID column only.
        other_iid: (k,) labels of the table.
        what: name of the table, for errors.

    Raises:
        MatchError: no label is shared, or the table has only IIDs and they are not unique in the fileset.
    """
    if other_fid is None:
        repeated = pd.Index(iid)[pd.Index(iid).duplicated()]
        if len(repeated):
            raise MatchError(
                f"{what} has an IID column only, but IID {repeated[0]} stands for several samples of the .fam; "
                f"add a FID column"
            )
        left, right = pd.Index(iid), pd.Index(other_iid)
    else:
        left, right = pd.MultiIndex.from_arrays([fid, iid]), pd.MultiIndex.from_arrays([other_fid, other_iid])
    rows = right.get_indexer(left).astype(np.int64)
    if not np.any(rows >= 0):
        shown = f"{fid[0]} {iid[0]}" if other_fid is not None else str(iid[0])
        other = f"{other_fid[0]} {other_iid[0]}" if other_fid is not None else str(other_iid[0])
        same_iid = len(set(iid) & set(other_iid))
        hint = f"; {same_iid} IIDs agree, so the FID columns differ: drop FID from {what}" if same_iid else ""
        raise MatchError(f"no sample of {what} is in the .fam (the .fam has '{shown}', {what} has '{other}'){hint}")
    return rows


@dataclass(frozen=True)
class VariantMatch:
    """Variants of gene sets found in a fileset.

    Attributes:
        row: (k,) variant number in the fileset, -1 where absent.
        a1_is_alt: (k,) True where the .bim's A1 is the ALT (effect) allele.
    """

    row: NDArray[np.int64]
    a1_is_alt: NDArray[np.bool_]


def match_variants(
    chromosome: Labels, position: NDArray[np.int64], ref: Labels, alt: Labels, bim: pd.DataFrame, what: str
) -> VariantMatch:
    """Find variants by chromosome, position and alleles, in either order.

    Args:
        chromosome, position, ref, alt: (k,) the variants wanted.
        bim: the fileset's variants: chromosome, position, a1, a2.
        what: name of the file that lists the wanted variants, for errors.

    Raises:
        MatchError: no variant matches (and why that may be), or a wanted variant stands twice in the .bim.
    """
    wanted = pd.MultiIndex.from_arrays([chromosome, position, *sort_alleles(ref, alt)])
    near = bim[bim["position"].isin(np.unique(position))]
    a1, a2 = near["a1"].to_numpy(object), near["a2"].to_numpy(object)
    have = pd.MultiIndex.from_arrays(
        [near["chromosome"].astype(str).to_numpy(object), near["position"].to_numpy(), *sort_alleles(a1, a2)]
    )
    if have.has_duplicates:
        refuse_duplicates(near[have.isin(wanted)], bim.attrs.get("path", "the .bim"))
        near, a1 = near[~have.duplicated()], a1[~have.duplicated()]
        have = have[~have.duplicated()]
    at = have.get_indexer(wanted)
    if not np.any(at >= 0):
        raise MatchError(_explain_no_match(chromosome, position, ref, alt, bim, what))
    found = at >= 0
    row = np.full(len(position), -1, np.int64)
    row[found] = near.index.to_numpy()[at[found]]
    a1_is_alt = np.zeros(len(position), np.bool_)
    a1_is_alt[found] = a1[at[found]] == alt[found]
    return VariantMatch(row, a1_is_alt)


def refuse_duplicates(table: pd.DataFrame, path: object) -> None:
    """Raise when two variants have the same chromosome, position and alleles, in either order.

    Args:
        table: variants of one .bim (chromosome, position, a1, a2), indexed by their row in it.
        path: the .bim, for the error.

    Raises:
        MatchError: names the variant and both lines.
    """
    low, high = sort_alleles(table["a1"].to_numpy(object), table["a2"].to_numpy(object))
    keys = pd.MultiIndex.from_arrays([table["chromosome"].astype(str), table["position"], low, high])
    if not keys.has_duplicates:
        return
    key = keys[keys.duplicated()][0]
    lines = table.index[keys == key][:2] + 1
    raise MatchError(
        f"{path}: variant {key[0]}:{key[1]} {key[2]}/{key[3]} stands on lines {lines[0]} and {lines[1]}; keep one "
        f"(plink2 --rm-dup)"
    )


def sort_alleles(first: Labels, second: Labels) -> tuple[Labels, Labels]:
    """Return the alleles of each variant in alphabetical order: the key that does not depend on their order."""
    swap = first > second
    return np.where(swap, second, first), np.where(swap, first, second)


def chromosome_order(label: str) -> tuple[int, str]:
    """Sort key of chromosome labels: numbers first, in order."""
    return (int(label), "") if label.isdigit() else (1000, label)


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
