"""Calls of males on chromosome X outside the pseudo-autosomal regions."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from locomass.genotypes.packed import MISSING

MALE, FEMALE = 1, 2  # in a .fam


@njit(cache=True, nogil=True)
def recode_males(
    indptr: NDArray[np.int64],
    sample: NDArray[np.int32],
    dosage: NDArray[Any],
    haploid: NDArray[np.bool_],
    male: NDArray[np.bool_],
    hemizygous: int,
) -> tuple[NDArray[Any], int]:
    """Return dosages in which a male has 0 or ``hemizygous`` alleles, and how many of his calls were heterozygous.

    A heterozygous call of a male is impossible there and becomes missing.

    Args:
        indptr, sample, dosage: carriers of m variants; int8 calls or float32 dosages.
        haploid: (m,) True for variants of which a male has one copy.
        male: (n,) by sample.
        hemizygous: dosage of a hemizygous carrier, 1 or 2.
    """
    out = dosage.copy()
    heterozygous = 0
    for j in range(indptr.shape[0] - 1):
        if not haploid[j]:
            continue
        for k in range(indptr[j], indptr[j + 1]):
            if not male[sample[k]]:
                continue
            if dosage[k] == 1:
                out[k] = MISSING
                heterozygous += 1
            elif dosage[k] > 0:  # 2, or an imputed dosage
                out[k] = dosage[k] * hemizygous / 2
    return out, heterozygous
