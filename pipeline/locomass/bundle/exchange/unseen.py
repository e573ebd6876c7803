"""Sites of which a file names one allele only, because nobody carries the other: the list of variants names it.

RAREMETALWORKER leaves ALT empty there, rvtests and PLINK write ``.`` or ``0``. All people with a call have the allele
that is named, whichever count the file puts them under. They are known people without the other allele, not an
absent variant: the pooled frequency of the variant counts them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from locomass.bundle.exchange.common import Integers, Labels
from locomass.variants.identity import is_indel, is_unseen


@dataclass(frozen=True)
class NamedSites:
    """The variants of a file once every allele has a name.

    Attributes:
        row: (v,) row of the file.
        ref, alt: (v,) alleles.
        everyone: (v,) 0 as the file counts them; 1: everybody has two REF; 2: everybody has two ALT.
        n_unlisted: sites left out because no listed variant names their other allele.
    """

    row: Integers
    ref: Labels
    alt: Labels
    everyone: NDArray[np.int8]
    n_unlisted: int


def name_unseen_alleles(
    chromosome: Labels, position: Integers, ref: Labels, alt: Labels, listed: tuple[Labels, Integers, Labels, Labels]
) -> NamedSites:
    """Give sites with one named allele the other one of each listed variant there that has the named allele.

    Args:
        chromosome, position, ref, alt: (k,) columns of the file, upper-case alleles.
        listed: chromosome, position, ref, alt of the variants of the sets.
    """
    unnamed = is_unseen(alt)
    if not unnamed.any():
        return NamedSites(np.arange(len(ref)), ref, alt, np.zeros(len(ref), np.int8), 0)
    at = {key: set[tuple[str, str]]() for key in zip(chromosome[unnamed], position[unnamed].tolist(), strict=True)}
    for c, p, r, a in zip(*listed, strict=True):
        if (c, int(p)) in at:
            at[c, int(p)].add((r, a))
    for c, p, r, a in zip(*(x[~unnamed] for x in (chromosome, position, ref, alt)), strict=True):
        at.get((c, int(p)), set()).difference_update([(r, a), (a, r)])  # named by a line of its own
    rows: list[tuple[int, str, str, int]] = [(int(k), ref[k], alt[k], 0) for k in np.flatnonzero(~unnamed)]
    n_unlisted = 0
    for k in np.flatnonzero(unnamed).tolist():
        pairs = sorted(at[chromosome[k], int(position[k])])
        indel = is_indel(*(np.array([pair[i] for pair in pairs], object) for i in (0, 1)))
        partners = [pair for pair, is_one in zip(pairs, indel, strict=True) if ref[k] in pair[: 1 if is_one else 2]]
        n_unlisted += not partners
        rows += [(k, *pair, 1 if pair[0] == ref[k] else 2) for pair in partners]
    rows.sort(key=lambda row: row[0])
    columns = list(zip(*rows, strict=True)) or [(), (), (), ()]
    return NamedSites(
        np.array(columns[0], np.int64),
        np.array(columns[1], object),
        np.array(columns[2], object),
        np.array(columns[3], np.int8),
        n_unlisted,
    )
