"""Where LD comes from: a PLINK fileset (blocks computed, and kept on disk by digest) or a published LD reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray

from locomass.errors import InputError
from locomass.executors import Executor
from locomass.genotypes.base import GenotypeRows
from locomass.genotypes.fileset import Fileset
from locomass.numbers import Floats
from locomass.predict.kept import Kept
from locomass.predict.scoring import ROWS_AT_ONCE
from locomass.run.provenance import digest_value
from locomass.tables.ld_store import (
    LdBlock,
    digest_ld,
    find_layout,
    is_intact,
    read_banded,
    read_ld,
    read_prscs_blocks,
    read_stored_variants,
    write_ld,
)
from locomass.variants.chromosomes import chromosome_order
from locomass_predictors.ld import compute_sparse_r2, correlation_from_dosage, split_blocks

MIN_BLOCK = 100
STRONG_R2 = 0.02


class LdReference(Protocol):
    """Variants and their LD.

    Attributes:
        variants: chromosome, position, id, a1, a2.
        frequency: (M,) of a1.
        n_samples: people it was computed from, None when unknown.
        digest: of the files' content.
    """

    variants: pd.DataFrame
    frequency: Floats
    n_samples: int | None
    digest: str

    def compute_blocks(self, rows: NDArray[np.int64], max_block: int, executor: Executor) -> list[LdBlock]:
        """Return LD blocks of chosen variants, in genome order."""
        ...


@dataclass
class FilesetReference:
    """LD of a PLINK fileset; blocks are cut where the least r2 is lost, and kept in the cache.

    ``files`` are the content digests of .bed, .bim and .fam.
    """

    fileset: Fileset
    cache: Path
    variants: pd.DataFrame
    frequency: Floats
    n_samples: int | None
    files: list[str]
    digest: str

    @classmethod
    def open(cls, fileset: Fileset, cache: Path, executor: Executor, kept: Kept) -> FilesetReference:
        """Open a fileset as reference; computes allele frequencies unless they were kept."""
        files = [kept.digest(path) for path in fileset.paths]
        found = kept.recall("frequency", files)
        if found is None:
            found = kept.keep("frequency", files, {"frequency": reference_frequencies(fileset, executor)})
        return cls(
            fileset, cache, fileset.variants, found[0]["frequency"], fileset.n_samples, files, digest_value(files)
        )

    def compute_blocks(self, rows: NDArray[np.int64], max_block: int, executor: Executor) -> list[LdBlock]:
        """Return LD blocks; one task per chromosome, which writes its blocks and returns where they are."""
        label = self.variants["chromosome"].astype(str).to_numpy(object)[rows]
        position = self.variants["position"].to_numpy(np.int64)[rows]
        tasks = []
        for chromosome in sorted(set(label), key=chromosome_order):
            here = np.flatnonzero(label == chromosome)
            digest = digest_ld(self.files, rows[here], max_block)
            path = self.cache / f"chr{chromosome}-{digest}.npz"
            tasks.append(
                LdTask(
                    name=self.fileset.name,
                    genotypes=self.fileset.select(rows[here]),
                    rows=rows[here],
                    position=position[here],
                    max_block=max_block,
                    path=path,
                    digest=digest,
                )
            )
        paths: list[str] = executor.run(ld_task, tasks)
        found = zip(tasks, paths, strict=True)
        return [block for task, path in found for block in read_ld(Path(path), task.digest)]


@dataclass(frozen=True, kw_only=True)
class LdTask:
    """Variants of one chromosome of the LD reference, increasing, and where their blocks go."""

    name: str
    genotypes: GenotypeRows
    rows: NDArray[np.int64]
    position: NDArray[np.int64]
    max_block: int
    path: Path
    digest: str

    def read(self, start: int, stop: int) -> NDArray[np.float32]:
        """Return (n, stop - start) A1 dosages, missing calls at their mean."""
        n = self.genotypes.n_samples
        return self.genotypes.take(start, stop).dosage(np.arange(n, dtype=np.int32), n)[0].T


def ld_task(task: LdTask) -> str:
    """Split one chromosome, write the correlation of each block unless it is there already, and return the path."""
    if is_intact(task.path, task.digest):
        return str(task.path)
    if np.any(np.diff(task.position) < 0):
        raise InputError(
            f"{task.name}: variants of a chromosome are not sorted by position; sort the fileset "
            f"(plink2 --make-pgen --sort-vars)"
        )
    r2 = compute_sparse_r2(task.read, task.position, window=task.max_block, threshold=STRONG_R2)
    cuts = split_blocks(r2, min_size=min(MIN_BLOCK, task.max_block), max_size=task.max_block).boundaries
    blocks = [
        LdBlock(task.rows[low:high], correlation_from_dosage(task.read(low, high)))
        for low, high in zip(cuts[:-1], cuts[1:], strict=True)
    ]
    write_ld(task.path, task.digest, blocks)
    return str(task.path)


@dataclass
class StoredReference:
    """A published LD reference in the layout of PRS-CS or VIPRS."""

    folder: Path
    layout: str
    variants: pd.DataFrame
    frequency: Floats
    n_samples: int | None
    digest: str

    @classmethod
    def open(cls, folder: Path, kept: Kept) -> StoredReference:
        """Open a folder.

        Raises:
            InputError: neither layout is in it.
            FormatError: its list of variants is damaged.
        """
        layout = find_layout(folder)
        table, n = read_stored_variants(folder)
        return cls(
            folder,
            layout,
            table.drop(columns="frequency"),
            table["frequency"].to_numpy(np.float64),
            n,
            kept.digest(folder),
        )

    def compute_blocks(self, rows: NDArray[np.int64], max_block: int, executor: Executor) -> list[LdBlock]:
        """Return the stored blocks restricted to chosen variants; a band (VIPRS) is cut into blocks first."""
        label = self.variants["chromosome"].to_numpy(object)
        blocks: list[LdBlock] = []
        for chromosome in sorted(set(label[rows]), key=chromosome_order):
            here = np.flatnonzero(label == chromosome)
            chosen = rows[label[rows] == chromosome]
            if self.layout == "prs-cs":
                names = self.variants["id"].to_numpy(object)
                blocks += read_prscs_blocks(self.folder, chromosome, {names[k]: int(k) for k in chosen})
            else:
                blocks += self._cut_band(chromosome, here, chosen, max_block)
        stored = np.concatenate([b.rows for b in blocks]) if blocks else np.empty(0, np.int64)
        lost = len(rows) - len(np.unique(stored))
        if lost:
            raise InputError(f"{self.folder}: {lost:,} of {len(rows):,} variants of its list are in none of its blocks")
        return blocks

    def _cut_band(
        self, chromosome: str, here: NDArray[np.int64], chosen: NDArray[np.int64], max_block: int
    ) -> Sequence[LdBlock]:
        band = read_banded(self.folder, chromosome)
        m = len(here)
        if len(band.indptr) != m + 1:
            raise InputError(
                f"{self.folder}: chromosome {chromosome} has {m:,} variants and {len(band.indptr) - 1:,} rows"
            )
        p, q, r2 = band.find_strong_pairs(STRONG_R2)
        sparse = sp.csc_array((r2, (p, q)), shape=(m, m))
        cuts = split_blocks(sparse, min_size=min(MIN_BLOCK, max_block), max_size=max_block).boundaries
        blocks = []
        for low, high in zip(cuts[:-1], cuts[1:], strict=True):
            inside = np.flatnonzero(np.isin(here[low:high], chosen))
            if len(inside):
                R = band.cut(int(low), int(high))[np.ix_(inside, inside)]
                blocks.append(LdBlock(here[low:high][inside], np.ascontiguousarray(R)))
        return blocks


def _frequency_task(genotypes: GenotypeRows) -> NDArray[np.float32]:
    """Return the A1 frequencies of a stretch of variants."""
    n, parts = genotypes.n_samples, []
    for start in range(0, len(genotypes), ROWS_AT_ONCE):
        part = genotypes.take(start, min(start + ROWS_AT_ONCE, len(genotypes)))
        parts.append(part.dosage(np.arange(n, dtype=np.int32), n)[1])
    return np.concatenate(parts)


def reference_frequencies(reference: Fileset, executor: Executor) -> Floats:
    """Return the A1 frequency of every variant of a fileset."""
    step = 16 * ROWS_AT_ONCE
    tasks = [
        reference.select(np.arange(start, min(start + step, reference.n_variants)))
        for start in range(0, reference.n_variants, step)
    ]
    return np.concatenate(executor.run(_frequency_task, tasks)).astype(np.float64)
