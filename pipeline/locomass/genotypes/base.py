"""What a genotype file is: the genotype seam.

Everything after the scan works on *carriers*: for every variant the people who have the counted (minor) allele, or no
call. So a file has to answer four questions, and nobody else knows how it is stored:

- who are its samples and what are its variants;
- who carries chosen variants (`GenotypeRows.carriers`), for score statistics;
- their dense dosages (`GenotypeRows.dosage`), for LD and polygenic scores;
- what reading them will cost (`GenotypeFile.cost`), for planning.

A format is one file that has these, and a line in `fileset.KINDS`. What it has in dense rows goes through
`dense.find_carriers`, so that all formats count the same allele of the same calls.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from locomass.numbers import Floats

Integers = NDArray[np.int64]
#: index of each sample of the file among the wanted ones, -1 where it is left out
People = NDArray[np.int32]

MISSING = -1  # the dosage of a missing call among carriers


class CarrierLists(NamedTuple):
    """Carriers of m variants.

    Attributes:
        indptr: (m + 1,) row j's carriers are entries ``indptr[j]:indptr[j + 1]``.
        sample: (nnz,) index of the carrier among the wanted people.
        dosage: (nnz,) dosage of the counted allele: int8 for calls (1, 2), float32 for imputed ones; ``MISSING`` for
            a missing call. Whoever is not listed has 0.
        a1_counted: (m,) True where the counted (minor) allele is A1.
    """

    indptr: Integers
    sample: NDArray[np.int32]
    dosage: NDArray[Any]
    a1_counted: NDArray[np.bool_]


@dataclass(frozen=True)
class Cost:
    """What reading variants costs, known without reading them.

    Attributes:
        read: (m,) bytes.
        carriers: (m,) expected carriers.
        most: (m,) carriers that there can be at most.
    """

    read: Floats
    carriers: Floats
    most: Floats

    def take(self, rows: Integers) -> Cost:
        """Return the cost of chosen rows of these."""
        return Cost(self.read[rows], self.carriers[rows], self.most[rows])


class GenotypeRows(Protocol):
    """Chosen variants of a fileset, not read yet: small, and travels to a worker.

    Attributes:
        n_samples: N, samples in the file.
    """

    @property
    def n_samples(self) -> int:
        """N."""
        ...

    def __len__(self) -> int:
        """Return m, the number of variants."""
        ...

    def take(self, start: int, stop: int) -> GenotypeRows:
        """Return variants ``start:stop`` of these."""
        ...

    def carriers(self, people: People) -> CarrierLists:
        """Read the carriers of the minor allele among the wanted people.

        The minor allele is that of all samples of the file: ALT counted unless more than half of the samples carry it
        or have no call.
        """
        ...

    def dosage(self, people: People, n_wanted: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Read (m, n_wanted) dosages of A1, missing ones at the mean, and (m,) frequencies, NaN without any call."""
        ...

    def add_scores(self, weights: Floats, out: Floats) -> NDArray[np.float64]:
        """Add ``sum_j w_jk (g_ij - 2 f_j)`` of all samples i to ``out`` (N, k), and return f (m,); missing adds 0."""
        ...


class GenotypeFile(Protocol):
    """One genotype file, opened and checked.

    Attributes:
        kind: name of the format.
        path: the file itself.
        sample_path: the file that names its samples.
        variant_path: the file that names its variants.
        paths: every file that it consists of, for digests.
        variants: one row per variant: chromosome (category), position (int64), id, a1 (the effect allele), a2.
        samples: one row per sample: fid, iid, sex (0 unknown, 1 male, 2 female).
        ref_known: whether a2 is known to be the reference allele (a .bim does not say).
    """

    kind: str
    path: Path
    sample_path: Path
    variant_path: Path
    paths: tuple[Path, ...]
    variants: pd.DataFrame
    samples: pd.DataFrame
    ref_known: bool

    def select(self, rows: Integers) -> GenotypeRows:
        """Return chosen variants, strictly increasing."""
        ...

    def cost(self, rows: Integers) -> Cost:
        """Return what reading chosen variants costs."""
        ...


def join_carriers(pieces: list[CarrierLists]) -> CarrierLists:
    """Return the carriers of consecutive pieces as one."""
    if len(pieces) == 1:
        return pieces[0]
    if not pieces:
        return CarrierLists(np.zeros(1, np.int64), np.empty(0, np.int32), np.empty(0, np.int8), np.empty(0, np.bool_))
    sizes = np.concatenate([np.diff(piece.indptr) for piece in pieces])
    indptr = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    return CarrierLists(
        indptr,
        np.concatenate([piece.sample for piece in pieces]),
        np.concatenate([piece.dosage for piece in pieces]),
        np.concatenate([piece.a1_counted for piece in pieces]),
    )
