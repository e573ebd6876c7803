"""Which chromosome leaves a variant out: whatever no LOCO prediction ever leaves out would be in all of them.

Alternate and random contigs belong to their chromosome, pseudo-autosomal regions to X. Variants on chromosome 0, Un, or
a contig without a parent are dropped from every prediction, with a count.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from locomass.variants.chromosomes import PSEUDO_AUTOSOMAL, X, normalise_chromosome

UNPLACED = ""
#: `1_KI270706v1_random`, `6_GL000250v2_alt`, `17_ctg5_hap1`, `HSCHR6_MHC_APD_CTG1`
_OF_A_PARENT = re.compile(r"(?:HSCHR)?(\d{1,2}|X|Y)_\w+(?:\.\d+)?", re.IGNORECASE)
#: `0`, `Un`, `Un_KI270442v1`, `GL000192.1`, `NW_003315950.2`, `HSCHRUN_RANDOM_CTG1`, `unplaced`, `scaffold_12`
_NOWHERE = re.compile(
    r"0|\.|NA|(?:HSCHR)?UN(?:_\S*|KNOWN|PLACED\S*|LOCALI[SZ]ED\S*)?|(?:GL|KI|JH|KB|KN|KQ|KV|KZ|ML)\d+\S*|N[TW]_\S+|"
    r"(?:SCAFFOLD|CONTIG)\S*",
    re.IGNORECASE,
)


def find_loco_chromosome(label: str) -> str:
    """Return the chromosome whose LOCO prediction leaves a label's variants out, `UNPLACED` where none does."""
    label = normalise_chromosome(label)
    if label == PSEUDO_AUTOSOMAL:
        return X
    parent = _OF_A_PARENT.fullmatch(label)
    if parent:
        return normalise_chromosome(parent[1].upper())
    if label.upper().startswith("HLA"):
        return "6"
    return UNPLACED if not label or _NOWHERE.fullmatch(label) else label


def find_loco_chromosomes(labels: Iterable[str]) -> NDArray[np.object_]:
    """Return `find_loco_chromosome` of every label."""
    words = [str(label) for label in labels]
    known = {word: find_loco_chromosome(word) for word in set(words)}
    return np.array([known[word] for word in words], object)


def describe_unplaced(n: int, name: str) -> str:
    """Return what the log says of dropped variants, an empty text when there are none."""
    if not n:
        return ""
    return (
        f"{n:,} variants of {name} are on no chromosome (0, Un, a contig without a parent): they are dropped, for no "
        f"LOCO prediction would leave them out"
    )
