"""Writing PLINK 2 filesets (.pgen, .pvar, .psam) of calls, variant by variant, as `write_bed` writes PLINK 1."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from locomass.errors import InputError
from locomass.files.atomic import atomic_path
from locomass.genotypes.write_bed import COLUMNS, check_calls, check_carriers, check_labels

MISSING_CODE = -9  # pgenlib's


class PgenFilesetWriter:
    """Appends variants to an open fileset; made by `open_pgen_writer`. A1 is written as ALT.

    Attributes:
        n_samples: samples in the .psam.
        n_variants: variants written so far.
    """

    def __init__(self, pgen: Any, pvar: TextIO, n_samples: int) -> None:
        self.n_samples = n_samples
        self.n_variants = 0
        self._pgen, self._pvar = pgen, pvar
        self._row = np.zeros(n_samples, np.int8)
        pvar.write("#CHROM\tPOS\tID\tREF\tALT\n")

    def write_dosage(self, variants: pd.DataFrame, dosage: NDArray[np.int8]) -> None:
        """Append variants given as dense A1 counts; see `FilesetWriter.write_dosage`."""
        if dosage.shape != (self.n_samples, len(variants)):
            raise InputError(
                f"dosage is {dosage.shape}; expected {(self.n_samples, len(variants))} (samples, variants)"
            )
        check_calls(dosage)
        for j in range(len(variants)):
            self._row[:] = dosage[:, j]
            self._row[self._row < 0] = MISSING_CODE
            self._pgen.append_biallelic(self._row)
        self._row[:] = 0
        self._write_pvar(variants)

    def write_carriers(
        self,
        variants: pd.DataFrame,
        indptr: NDArray[np.int64],
        sample: NDArray[np.int32],
        dosage: NDArray[np.int8],
    ) -> None:
        """Append variants given by their carriers; see `FilesetWriter.write_carriers`."""
        check_carriers(indptr, sample, dosage, self.n_samples, len(variants))
        for low, high in zip(indptr[:-1].tolist(), indptr[1:].tolist(), strict=True):
            carriers, counts = sample[low:high], dosage[low:high]
            self._row[carriers] = np.where(counts < 0, MISSING_CODE, counts)
            self._pgen.append_biallelic(self._row)
            self._row[carriers] = 0
        self._write_pvar(variants)

    def _write_pvar(self, variants: pd.DataFrame) -> None:
        """Append the lines of the variants."""
        columns = [variants[name].tolist() for name in COLUMNS]
        self._pvar.writelines(
            f"{c}\t{position}\t{name}\t{a2}\t{a1}\n" for c, position, name, a1, a2 in zip(*columns, strict=True)
        )
        self.n_variants += len(variants)


@contextmanager
def open_pgen_writer(
    path: Path,
    iid: Sequence[str],
    *,
    n_variants: int,
    fid: Sequence[str] | None = None,
    sex: Sequence[int] | None = None,
) -> Iterator[PgenFilesetWriter]:
    """Open a fileset for writing; .psam, .pvar and .pgen appear together when the block ends without an error.

    Args:
        path: the .pgen file.
        iid: sample labels.
        n_variants: variants that will be written, no fewer and no more.
        fid: family labels; ``iid`` when absent.
        sex: 1 male, 2 female, 0 unknown (default).

    Raises:
        InputError: labels of unequal length or none, a repeated sample, another number of variants, or an unwritable
            folder.
    """
    import pgenlib

    families = list(iid) if fid is None else list(fid)
    sexes = [0] * len(iid) if sex is None else list(sex)
    check_labels(path, families, list(iid), sexes)
    with ExitStack() as stack:
        # left in reverse order: a reader that sees the .pgen finds the other two
        paths = [stack.enter_context(atomic_path(path.with_suffix(s))) for s in (".pgen", ".pvar", ".psam")]
        lines = (f"{f}\t{i}\t{s or 'NA'}\n" for f, i, s in zip(families, iid, sexes, strict=True))
        paths[2].write_text("#FID\tIID\tSEX\n" + "".join(lines), encoding="utf-8")
        pgen = pgenlib.PgenWriter(str(paths[0]).encode(), len(iid), variant_ct=n_variants, nonref_flags=False)
        try:
            with open(paths[1], "w", encoding="utf-8") as pvar:
                writer = PgenFilesetWriter(pgen, pvar, len(iid))
                yield writer
            if writer.n_variants != n_variants:
                raise InputError(f"{path}: {writer.n_variants:,} variants were written, {n_variants:,} were announced")
            pgen.close()
        except BaseException:
            with suppress(RuntimeError):  # that fewer were written than announced
                pgen.close()
            raise
