"""Chromosome labels: one spelling inside the house, whatever a file writes, and their order."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from locomass.files.arrow import decode_strings

X, PSEUDO_AUTOSOMAL = "23", "25"  # labels as PLINK numbers them
_LABEL = re.compile(r"[A-Za-z0-9._*-]{1,40}")
_CHROMOSOME_NUMBERS = {"X": "23", "Y": "24", "XY": "25", "PAR1": "25", "PAR2": "25", "PAR": "25", "M": "26", "MT": "26"}


def normalise_chromosome(label: str) -> str:
    """Return a chromosome label without ``chr``, leading zeros and ``.0``; X = 23, Y = 24, XY = 25, MT = 26."""
    label = str(label).strip()
    if label[:3].lower() == "chr" and len(label) > 3:
        label = label[3:]
    whole = label.partition(".")[0] if label.endswith((".0", ".00")) else label  # numbers of a table written by R
    if whole.isdigit():
        return str(int(whole))
    return _CHROMOSOME_NUMBERS.get(label.upper(), label)


def is_chromosome(label: str) -> bool:
    """Return whether a label is spelled as inside the house: normalised, of letters, digits and ``. _ * -``."""
    return bool(_LABEL.fullmatch(label)) and normalise_chromosome(label) == label


def normalise_chromosomes(labels: Any) -> NDArray[np.object_]:
    """Return ``normalise_chromosome`` of an array (or Arrow column) of labels as an object array."""
    column = labels if isinstance(labels, (pa.Array, pa.ChunkedArray)) else pa.array([str(x) for x in labels])
    words = decode_strings(column)
    known = {word: normalise_chromosome(word) for word in set(words.tolist())}
    return np.array([known[word] for word in words.tolist()], dtype=object)


def chromosome_order(label: str) -> tuple[int, str]:
    """Sort key of chromosome labels: numbers first, in order."""
    return (int(label), "") if label.isdigit() else (1000, label)
