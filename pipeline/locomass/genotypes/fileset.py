"""A fileset: one genotype file, or one per chromosome, of any format, opened as one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from locomass.errors import InputError, MatchError
from locomass.genotypes.base import (
    CarrierLists,
    Cost,
    GenotypeFile,
    GenotypeRows,
    Integers,
    People,
    join_carriers,
)
from locomass.numbers import Floats


@dataclass(frozen=True)
class Kind:
    """A format.

    Attributes:
        name: as it is written in messages.
        suffixes: of its files.
        module: has ``open_file(path) -> GenotypeFile`` and ``companions(path)``, every file that it consists of.
    """

    name: str
    suffixes: tuple[str, ...]
    module: str

    def open(self, path: Path) -> GenotypeFile:
        """Open and check one file."""
        opener: Callable[[Path], GenotypeFile] = import_module(self.module).open_file
        return opener(path)

    def companions(self, path: Path) -> list[Path]:
        """Return the file and those beside it that belong to it."""
        found: list[Path] = import_module(self.module).companions(path)
        return found


KINDS = (
    Kind("PLINK .bed", (".bed",), "locomass.genotypes.bed"),
    Kind("PLINK 2 .pgen", (".pgen",), "locomass.genotypes.pgen"),
    Kind("BGEN", (".bgen",), "locomass.genotypes.bgen"),
    Kind("VCF", (".vcf.gz", ".bcf"), "locomass.genotypes.vcf"),
    Kind("VCF Zarr", (".vcz", ".zarr"), "locomass.genotypes.vcf_zarr"),
)
EXPECTED = (
    "expected a PLINK .bed with its .bim and .fam beside it, a .pgen with its .pvar and .psam, a .bgen with its .bgi, "
    "a .vcf.gz or .bcf with its index, or a .vcz"
)
SUFFIXES = tuple(suffix for kind in KINDS for suffix in kind.suffixes)
CHROMOSOMES = [*(str(c) for c in range(1, 27)), "X", "Y", "XY", "MT"]
#: How plink2 reads the files that people have instead.
CONVERTED = {
    ".vcf": "--vcf {}",
    ".ped": "--pedmap PREFIX",
}


def kind_of(path: str | Path) -> Kind:
    """Return the format of a path by its suffix."""
    return next(kind for kind in KINDS if str(path).lower().endswith(kind.suffixes))


def list_files(pattern: str) -> list[Path]:
    """Return the genotype files that a path, a prefix or a `{chrom}` pattern names, in chromosome order.

    Raises:
        InputError: no such file, or of no format that can be read.
    """
    candidates = [pattern] if pattern.lower().endswith(SUFFIXES) else [pattern + suffix for suffix in SUFFIXES]
    other = next((x for x in CONVERTED if pattern.lower().endswith(x)), None)
    if other is not None and other not in SUFFIXES:
        raise InputError(
            f"{pattern} is not read; convert it: plink2 {CONVERTED[other].format(pattern)} --make-pgen --out NAME, "
            "then name NAME.pgen"
        )
    for candidate in candidates:
        names = [candidate.replace("{chrom}", name) for name in CHROMOSOMES] if "{chrom}" in pattern else [candidate]
        found = [Path(name) for name in names if Path(name).exists()]
        if found:
            return [path for path in found if _is_file(path, candidates[0])]
    if "{chrom}" in pattern:
        raise InputError(f"no file matches {candidates[0]} for any chromosome 1..22, X, Y, XY, MT")
    raise InputError(f"no such file: {candidates[0]}; {EXPECTED}")


def _is_file(path: Path, expected: str) -> bool:
    """Return whether a path is a file, or a folder where a format is one."""
    if path.is_file() or path.suffix.lower() in FOLDERS:
        return True
    raise InputError(f"no such file: {expected}; {EXPECTED}")


#: formats that are a folder
FOLDERS = (".vcz", ".zarr")


def fileset_files(path: str | Path) -> list[Path]:
    """Return every file of a fileset, all chromosomes of a `{chrom}` pattern."""
    return [part for file in list_files(str(path)) for part in kind_of(file).companions(file)]


@dataclass(frozen=True)
class Fileset:
    """Genotypes of one study.

    Attributes:
        parts: files in the order of their variants.
        name: how messages call it.
        variants: one row per variant of all parts; see `GenotypeFile`.
        fid, iid, sex: (N,) of the samples, the same in every file.
    """

    parts: tuple[GenotypeFile, ...]
    name: str
    variants: pd.DataFrame
    fid: NDArray[np.object_]
    iid: NDArray[np.object_]
    sex: Integers

    @property
    def n_samples(self) -> int:
        """N, samples in the files."""
        return len(self.iid)

    @property
    def n_variants(self) -> int:
        """Variants over all files."""
        return len(self.variants)

    @property
    def kind(self) -> str:
        """Name of the format."""
        return self.parts[0].kind

    @property
    def paths(self) -> list[Path]:
        """Every file that the fileset consists of, for digests."""
        return [path for part in self.parts for path in part.paths]

    @property
    def sample_path(self) -> Path:
        """The file that names the samples."""
        return self.parts[0].sample_path

    @property
    def ref_known(self) -> bool:
        """Whether a2 is known to be the reference allele."""
        return all(part.ref_known for part in self.parts)

    @cached_property
    def first(self) -> Integers:
        """(parts + 1,) first variant of each part, and the number of variants."""
        return np.cumsum([0, *(len(part.variants) for part in self.parts)]).astype(np.int64)

    def select(self, rows: Integers) -> GenotypeRows:
        """Return chosen variants, strictly increasing, for a task to read."""
        chosen = [part.select(own) for part, own in self._split(rows)]
        return chosen[0] if len(chosen) == 1 else JoinedRows(tuple(chosen), self.n_samples)

    def cost(self, rows: Integers) -> Cost:
        """Return what reading chosen variants costs, in their order."""
        order = np.argsort(rows, kind="stable")
        costs = [part.cost(own) for part, own in self._split(rows[order])]
        back = np.empty(len(rows), np.int64)
        back[order] = np.arange(len(rows))
        joined = (np.concatenate([*(getattr(c, name) for c in costs), []]) for name in ("read", "carriers", "most"))
        return Cost(*(column[back] for column in joined))

    def same_calls(self, row: int, other: int) -> bool:
        """Return whether two variants of the same two alleles, in either order, have the same call in every person."""
        one, two = (self._calls(k) for k in (row, other))
        if self.variants["a1"].iat[row] != self.variants["a1"].iat[other]:
            two = np.where(two < 0, two, 2 - two)
        return bool(np.array_equal(one, two))

    def _calls(self, row: int) -> NDArray[Any]:
        """Return (N,) A1 dosages of a variant, `MISSING` without a call."""
        found = self.select(np.array([row], np.int64)).carriers(np.arange(self.n_samples, dtype=np.int32))
        calls = np.zeros(self.n_samples, found.dosage.dtype)
        calls[found.sample] = found.dosage
        return calls if found.a1_counted[0] else np.where(calls < 0, calls, 2 - calls)

    def _split(self, rows: Integers) -> list[tuple[GenotypeFile, Integers]]:
        """Return the parts that have chosen variants, and which of theirs."""
        cuts = np.searchsorted(rows, self.first)
        return [
            (part, rows[low:high] - self.first[k])
            for k, (part, low, high) in enumerate(zip(self.parts, cuts[:-1], cuts[1:], strict=True))
            if high > low
        ]


@dataclass(frozen=True)
class JoinedRows:
    """Chosen variants of several files, or none at all."""

    parts: tuple[GenotypeRows, ...]
    n_samples: int

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)

    def take(self, start: int, stop: int) -> JoinedRows:
        """See `GenotypeRows`."""
        kept, first = [], 0
        for part in self.parts:
            low, high = max(start - first, 0), min(stop - first, len(part))
            if high > low:
                kept.append(part.take(low, high))
            first += len(part)
        return JoinedRows(tuple(kept), self.n_samples)

    def carriers(self, people: People) -> CarrierLists:
        """See `GenotypeRows`."""
        return join_carriers([part.carriers(people) for part in self.parts])

    def dosage(self, people: People, n_wanted: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """See `GenotypeRows`."""
        pairs = [part.dosage(people, n_wanted) for part in self.parts]
        empty = (np.empty((0, n_wanted), np.float32), np.empty(0, np.float32))
        return np.concatenate([d for d, _ in (*pairs, empty)]), np.concatenate([f for _, f in (*pairs, empty)])

    def add_scores(self, weights: Floats, out: Floats) -> Floats:
        """See `GenotypeRows`."""
        frequency, first = np.empty(len(self)), 0
        for part in self.parts:
            frequency[first : first + len(part)] = part.add_scores(weights[first : first + len(part)], out)
            first += len(part)
        return frequency


def open_fileset(path: str | Path) -> Fileset:
    """Open a fileset and check that its files belong together.

    Args:
        path: a genotype file or its prefix; ``{chrom}`` in the name is one file per chromosome.

    Raises:
        FormatError: a damaged file; see the formats.
        InputError: a file is missing, or files of one fileset differ in their samples.
        MatchError: a sample is listed twice.
    """
    parts: list[GenotypeFile] = []
    for file in list_files(str(path)):
        part = kind_of(file).open(file)
        if parts and not part.samples[["fid", "iid"]].equals(parts[0].samples[["fid", "iid"]]):
            raise InputError(
                f"{part.sample_path} and {parts[0].sample_path} list different samples; "
                "a fileset has one order of samples"
            )
        parts.append(part)
    samples = parts[0].samples
    _check_duplicate_samples(samples, parts[0].sample_path)
    return Fileset(
        parts=tuple(parts),
        name=str(parts[0].path) if len(parts) == 1 else str(path),
        variants=_join_variants(parts, str(path)),
        fid=samples["fid"].to_numpy(object),
        iid=samples["iid"].to_numpy(object),
        sex=samples["sex"].to_numpy(np.int64),
    )


def _join_variants(parts: Sequence[GenotypeFile], name: str) -> pd.DataFrame:
    """Return the variants of all parts; the table says in which file they are."""
    tables = [part.variants for part in parts]
    joined = pd.concat(tables, ignore_index=True) if len(tables) > 1 else tables[0]
    path = parts[0].variant_path
    joined.attrs["path"] = str(path) if len(parts) == 1 else f"{name} ({path.suffix} files)"
    joined.attrs["ref_known"] = all(part.ref_known for part in parts)
    first = np.cumsum([0, *(len(table) for table in tables)]).tolist()
    joined.attrs["files"] = tuple((str(part.variant_path), at) for part, at in zip(parts, first, strict=False))
    return joined


def _check_duplicate_samples(samples: Any, path: Path) -> None:
    """Raise when a (FID, IID) pair is listed twice."""
    twice = samples.duplicated(["fid", "iid"], keep=False)
    if twice.any():
        lines = np.flatnonzero(twice)[:2] + 1
        row = samples.iloc[lines[0] - 1]
        raise MatchError(
            f"{path}: sample {row.fid} {row.iid} is listed twice, on lines {lines[0]} and {lines[1]}; give every "
            "sample one label"
        )
