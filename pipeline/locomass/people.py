"""When two people are the same: samples of tables found among the samples of a fileset, by label.

One rule serves a whole table, is decided once, and is said in the log where it is not the plain one:

1. family and individual (FID, IID) as a pair;
2. IID alone, where the table has no FID, or where FID says nothing on one side (all ``0``, or equal to IID), and only
   if the IIDs are distinct on both sides: no rule may take two people for one.

Labels that join both by an underscore (`.loco` files) are matched by the same rules, as ``FID_IID``, ``0_IID``,
``IID_IID`` or ``IID``; two people with one label are an error. Nothing is matched by position or count; every drop is
counted, on both sides.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from locomass.errors import MatchError

Labels = NDArray[np.object_]
log = logging.getLogger("locomass")


def match_samples(
    fid: Labels, iid: Labels, other_fid: Labels | None, other_iid: Labels, what: str
) -> NDArray[np.int64]:
    """Return, for each sample of the fileset, its row in another table, or -1; log how many ids only the table has.

    Args:
        fid, iid: (N,) labels of the fileset.
        other_fid: (k,) family labels of the table; None when it has an IID column only.
        other_iid: (k,) labels of the table.
        what: name of the table, for errors.

    Raises:
        MatchError: no label is shared, or the table must be matched by IID and IIDs are not distinct.
    """
    rows = find_samples(fid, iid, other_fid, other_iid, what)
    if not np.any(rows >= 0):
        raise MatchError(_explain_no_match(fid, iid, other_fid, other_iid, what))
    strangers = len(other_iid) - len(np.unique(rows[rows >= 0]))
    if strangers:
        log.info("%s: %s of %s ids are not among the genotyped samples", what, f"{strangers:,}", f"{len(other_iid):,}")
    return rows


def find_samples(fid: Labels, iid: Labels, other_fid: Labels | None, other_iid: Labels, what: str) -> NDArray[np.int64]:
    """Return the same as `match_samples`, also where no label is shared.

    Raises:
        MatchError: the table must be matched by IID and IIDs are not distinct.
    """
    if other_fid is None:
        _refuse_repeated(iid, "the genotypes", what)
        rows = _find(pd.Index(iid), pd.Index(other_iid))
    else:
        pairs = [pd.MultiIndex.from_arrays([f, i]) for f, i in ((fid, iid), (other_fid, other_iid))]
        rows = _find(*pairs)
        if not np.any(rows >= 0) and (_is_silent(fid, iid) or _is_silent(other_fid, other_iid)):
            _refuse_repeated(iid, "the genotypes", what)
            _refuse_repeated(other_iid, what, what)
            rows = _find(pd.Index(iid), pd.Index(other_iid))
            if np.any(rows >= 0):
                log.info("%s: samples are matched by IID alone, FID is 0 or IID on one side", what)
    return rows


def _find(left: Any, right: Any) -> NDArray[np.int64]:
    """Return the row of each left label among the right ones, of which the first counts."""
    if right.has_duplicates:
        first = np.flatnonzero(~right.duplicated())
        rows = right[first].get_indexer(left)
        return np.where(rows >= 0, first[rows], -1).astype(np.int64)
    return np.asarray(right.get_indexer(left), np.int64)


def _is_silent(fid: Labels, iid: Labels) -> bool:
    """Return whether family labels say nothing: all are 0, or all are the IID."""
    return bool((fid == "0").all() or (fid == iid).all())


def _refuse_repeated(iid: Labels, where: str, what: str) -> None:
    repeated = pd.Index(iid)[pd.Index(iid).duplicated()]
    if len(repeated):
        raise MatchError(
            f"{what} must be matched by IID alone, but IID {repeated[0]} is that of several samples of {where}; give "
            f"both files a FID column with the same families"
        )


def _explain_no_match(fid: Labels, iid: Labels, other_fid: Labels | None, other_iid: Labels, what: str) -> str:
    """Return why no sample matched, with a label of each side."""
    shown = f"{fid[0]} {iid[0]}" if other_fid is not None else str(iid[0])
    other = f"{other_fid[0]} {other_iid[0]}" if other_fid is not None else str(other_iid[0])
    same_iid = len(set(iid) & set(other_iid))
    distinct = not pd.Index(iid).has_duplicates
    advice = f"drop FID from {what}" if distinct else "spell families alike in both"
    hint = f"; {same_iid} IIDs agree, so the FID columns differ: {advice}" if same_iid else ""
    return f"no sample of {what} is in the .fam (the .fam has '{shown}', {what} has '{other}'){hint}"


def join_labels(fid: Any, iid: Any, what: str) -> Labels:
    """Return (n,) labels ``FID_IID``, as REGENIE writes them.

    Raises:
        MatchError: two people have one label (``A_B`` ``C`` and ``A`` ``B_C``).
    """
    labels = np.array([f"{f}_{i}" for f, i in zip(fid, iid, strict=True)], object)
    index = pd.Index(labels)
    if index.has_duplicates:
        one, two = np.flatnonzero(index == index[index.duplicated()][0])[:2]
        raise MatchError(
            f"{what}: '{fid[one]} {iid[one]}' and '{fid[two]} {iid[two]}' are both '{labels[one]}' where FID and IID "
            f"are joined by an underscore; rename one"
        )
    return labels


def match_labels(labels: NDArray[Any], fid: NDArray[Any] | None, iid: NDArray[Any]) -> NDArray[np.int64]:
    """Return, for each of n samples, its column among the ``FID_IID`` labels of a `.loco` file, -1 where it has none.

    One rule serves the whole file, the one that matches most samples, tried in this order: ``FID_IID``; ``0_IID``;
    ``IID_IID``; ``IID``. All but the first need distinct IIDs.

    Args:
        labels: (N,) distinct labels of the file.
        fid: (n,) family labels, None when unknown.
        iid: (n,) individual labels.

    Raises:
        MatchError: no rule matches any sample (shows one label of each side), or the best one takes two people for one.
    """
    place = {label: i for i, label in enumerate(labels.tolist())}
    individuals = iid.tolist()
    families = [] if fid is None else [[f"{f}_{i}" for f, i in zip(fid.tolist(), individuals, strict=True)]]
    alone = [[f"0_{i}" for i in individuals], [f"{i}_{i}" for i in individuals], individuals]
    matches = [np.array([place.get(key, -1) for key in keys], dtype=np.int64) for keys in (*families, *alone)]
    best = int(np.argmax([int((match >= 0).sum()) for match in matches]))
    found = matches[best][matches[best] >= 0]
    if not found.size:
        mine = f"{iid[0]}" if fid is None else f"{fid[0]}_{iid[0]}"
        raise MatchError(
            f"no sample of the .loco file (first: '{labels[0]}') is among the genotyped ones (first: '{mine}'); "
            "labels are FID_IID"
        )
    if len(np.unique(found)) < found.size:
        k = int(np.flatnonzero(np.bincount(found) > 1)[0])
        both = np.flatnonzero(matches[best] == k)[:2]
        names = " and ".join(f"'{iid[j]}'" if fid is None else f"'{fid[j]} {iid[j]}'" for j in both)
        raise MatchError(f"label '{labels[k]}' would be that of two samples, {names}; spell FID alike in both files")
    if found.size < len(labels):
        log.info(
            "%s of %s labels of the .loco file are not analysed", f"{len(labels) - found.size:,}", f"{len(labels):,}"
        )
    if best >= len(families) and fid is not None:
        log.info("labels such as '%s' are matched by IID alone", labels[0])
    return matches[best]
