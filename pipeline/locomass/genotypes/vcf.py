"""VCF (.vcf.gz) and BCF with their index: GT, or the dosages DS where the file has them; every ALT a variant.

Sites are read once, when the file is opened; chosen variants are then found through the index. A .psam or .fam of the
same name beside the file gives sexes and family labels, which a VCF does not have. For many people a .pgen is a
hundred times quicker: plink2 --vcf FILE --make-pgen.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from locomass.errors import FormatError, InputError
from locomass.genotypes.base import Cost, Integers
from locomass.genotypes.dense import DenseRows
from locomass.genotypes.extras import import_extra
from locomass.genotypes.plink2 import SplitVariants, read_samples, split_alleles

INDEXES = (".csi", ".tbi")
GAP = 200  # records that may lie between two wanted ones of one query
PAD = -2  # cyvcf2's second allele of a haploid call


@dataclass(frozen=True)
class VcfFile:
    """One VCF or BCF file, opened and checked; see `GenotypeFile`.

    Attributes:
        path: the file.
        split: its variants, every ALT a row.
        contig, position: (records,) as written.
        samples: fid, iid, sex.
        sample_path: the .psam or .fam beside it, else the file itself.
        has_dosage: whether the header declares DS.
        index: the .csi or .tbi.
    """

    path: Path
    split: SplitVariants
    contig: NDArray[np.object_]
    position: Integers
    samples: pd.DataFrame
    sample_path: Path
    has_dosage: bool
    index: Path
    kind: str = "VCF"
    ref_known: bool = True

    @property
    def variants(self) -> pd.DataFrame:
        """One row per ALT."""
        return self.split.table

    @property
    def variant_path(self) -> Path:
        """The file itself."""
        return self.path

    @property
    def paths(self) -> tuple[Path, ...]:
        """The file, its index, and the sample table beside it."""
        return tuple(companions(self.path))

    def select(self, rows: Integers) -> VcfRows:
        """Return chosen variants, strictly increasing."""
        record = self.split.record[rows]
        # how many records of the same place come before: the index finds places, not records
        first = np.searchsorted(self._place, self._place[record], side="left")
        return VcfRows(
            path=self.path,
            n_samples=len(self.samples),
            record=record,
            allele=self.split.allele[rows],
            contig=self.contig[record],
            position=self.position[record],
            within=record - first,
            has_dosage=self.has_dosage,
        )

    @property
    def _place(self) -> Integers:
        """(records,) a number that rises with contig and position in the order of the file."""
        starts = np.concatenate([[True], self.contig[1:] != self.contig[:-1]])
        return (np.cumsum(starts) << 40) + self.position

    def cost(self, rows: Integers) -> Cost:
        """Return what reading chosen variants costs, as if all records were of one size."""
        n = len(self.samples)
        size = self.path.stat().st_size / max(self.split.n_records, 1)
        most = np.full(len(rows), float(n))
        return Cost(np.full(len(rows), size), most / 64, most)


def find_index(path: Path) -> Path:
    """Return the index beside a VCF.

    Raises:
        InputError: there is none.
    """
    for suffix in INDEXES:
        index = path.with_name(path.name + suffix)
        if index.is_file():
            if index.stat().st_mtime < path.stat().st_mtime - 1:
                raise InputError(
                    f"{index} is older than {path.name}: it may be the index of another file; make it again: "
                    f"bcftools index {path.name}"
                )
            return index
    raise InputError(f"no such file: {path}.csi (or .tbi); make the index: bcftools index {path.name}")


def companions(path: Path) -> list[Path]:
    """Return the file, its index, and the sample table beside it where there is one."""
    beside = _sample_table(path)
    return [path, find_index(path), *([beside] if beside else [])]


def _sample_table(path: Path) -> Path | None:
    """Return the .psam or .fam of the same name, if there is one."""
    stem = path.name.removesuffix(".gz").rsplit(".", 1)[0]
    return next((p for s in (".psam", ".fam") if (p := path.with_name(stem + s)).is_file()), None)


def open_file(path: Path) -> VcfFile:
    """Open one VCF or BCF and read its sites.

    Raises:
        FormatError: not a VCF, truncated, not sorted, or a sample table of other samples.
        InputError: no index.
        ConfigError: the package that reads VCF is not installed.
    """
    import_extra("cyvcf2", "vcf", "VCF and BCF files")
    index = find_index(path)
    names, has_dosage, table = _read_sites(path)
    split = split_alleles(table, path, 1)
    contig = table.column("#CHROM").to_pandas().to_numpy(object)
    position = table.column("POS").to_pandas().to_numpy().astype(np.int64)
    _check_order(contig, position, path)
    samples, sample_path = _name_samples(path, names)
    return VcfFile(
        path=path,
        split=split,
        contig=contig,
        position=position,
        samples=samples,
        sample_path=sample_path,
        has_dosage=has_dosage,
        index=index,
    )


def _name_samples(path: Path, names: list[str]) -> tuple[pd.DataFrame, Path]:
    """Return the samples in the order of the file, with what the table beside it says of them."""
    if not names:
        raise FormatError("no samples: a VCF of sites only", path=path)
    plain = pd.DataFrame({"fid": "0", "iid": names, "sex": 0})
    beside = _sample_table(path)
    if beside is None:
        return plain, path
    table = read_samples(beside).set_index("iid")
    lacking = [name for name in names if name not in table.index]
    if lacking or not table.index.is_unique:
        raise FormatError(f"sample {(lacking or ['?'])[0]} of {path.name} is not listed once", path=beside)
    chosen = table.loc[names]
    return pd.DataFrame({"fid": chosen["fid"].to_numpy(), "iid": names, "sex": chosen["sex"].to_numpy()}), beside


def _read_sites(path: Path) -> tuple[list[str], bool, pa.Table]:
    """Return sample names, whether DS is declared, and the five columns of the sites."""
    columns: dict[str, list[str]] = {name: [] for name in ("#CHROM", "POS", "ID", "REF", "ALT")}
    vcf = _open(path, sites_only=True)
    try:
        for v in vcf:
            site = (v.CHROM, str(v.POS), v.ID or ".", v.REF, ",".join(v.ALT) or ".")
            for values, value in zip(columns.values(), site, strict=True):
                values.append(value)
        has_dosage = bool(vcf.contains("DS"))
    except Exception as error:
        raise FormatError(f"damaged after {len(columns['POS']):,} records ({error})", path=path) from None
    _check_end(path)
    table = pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})
    return list(vcf.samples), has_dosage, table


def _check_end(path: Path) -> None:
    """Raise unless the file ends with the empty block that bgzip writes last."""
    with open(path, "rb") as handle:
        handle.seek(max(0, path.stat().st_size - 28))
        if handle.read()[:4] != b"\x1f\x8b\x08\x04":
            raise FormatError("truncated: the end-of-file block of bgzip is absent", path=path)


def _check_order(contig: NDArray[np.object_], position: Integers, path: Path) -> None:
    """Raise unless the records are sorted, as an index needs."""
    same = contig[1:] == contig[:-1]
    back = np.flatnonzero(same & (np.diff(position) < 0))
    if len(back):
        k = int(back[0]) + 1
        text = f"not sorted: {contig[k]}:{position[k]} comes after {position[k - 1]}; sort it with bcftools sort"
        raise FormatError(text, path=path)


def _open(path: Path, *, sites_only: bool = False) -> Any:
    """Open a file with cyvcf2.

    Raises:
        FormatError: it is not a VCF.
    """
    from cyvcf2 import VCF

    try:
        return VCF(str(path), lazy=sites_only)
    except Exception as error:
        raise FormatError(f"not a VCF or BCF: {error}", path=path) from None


@dataclass(frozen=True, kw_only=True)
class VcfRows(DenseRows):
    """Chosen variants of a VCF; see `GenotypeRows`.

    Attributes:
        path: the file.
        n_samples: N.
        record, allele: (m,) records of the file, and the number of the ALT in each.
        contig, position, within: (m,) where they are, and how many records of the same place come before.
        has_dosage: whether to look for DS.
    """

    path: Path
    n_samples: int
    record: Integers
    allele: Integers
    contig: NDArray[np.object_]
    position: Integers
    within: Integers
    has_dosage: bool

    def __len__(self) -> int:
        return len(self.record)

    def take(self, start: int, stop: int) -> VcfRows:
        """See `GenotypeRows`."""
        cut = slice(start, stop)
        arrays = {k: getattr(self, k)[cut] for k in ("record", "allele", "contig", "position", "within")}
        return VcfRows(path=self.path, n_samples=self.n_samples, has_dosage=self.has_dosage, **arrays)

    def read(self) -> NDArray[np.float32]:
        """Read (m, N) dosages of the chosen ALT, NaN missing; a half call is missing.

        Raises:
            FormatError: a record is not where the index says.
        """
        vcf = _open(self.path)
        out = np.empty((len(self), self.n_samples), np.float32)
        for low, high in self._stretches():
            records = self._query(vcf, low, high)
            k = low
            for number, variant in records:
                while k < high and self.record[k] == number:
                    out[k] = _dosage(variant, int(self.allele[k]), self.has_dosage)
                    k += 1
            if k < high:
                raise FormatError(
                    f"{self.contig[k]}:{self.position[k]} is not found through the index; make it again: "
                    f"bcftools index -f {self.path.name}",
                    path=self.path,
                )
        return out

    def _stretches(self) -> list[tuple[int, int]]:
        """Return runs of rows that one query finds."""
        far = (np.diff(self.record) > GAP) | (self.contig[1:] != self.contig[:-1])
        cuts = [0, *(np.flatnonzero(far) + 1).tolist(), len(self)]
        return [(low, high) for low, high in zip(cuts[:-1], cuts[1:], strict=True) if high > low]

    def _query(self, vcf: Any, low: int, high: int) -> Iterator[tuple[int, Any]]:
        """Give number and record of all records from the place of row ``low`` to that of row ``high - 1``."""
        first, last = int(self.position[low]), int(self.position[high - 1])
        number = int(self.record[low] - self.within[low])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # cyvcf2 warns of regions without records
            try:
                for variant in vcf(f"{self.contig[low]}:{first}-{last}"):
                    if first <= variant.POS:
                        yield number, variant
                        number += 1
            except AssertionError as error:  # so cyvcf2 says it
                text = f"its index cannot be read ({error}); make it again: bcftools index"
                raise FormatError(text, path=self.path) from None


def _dosage(variant: Any, allele: int, has_dosage: bool) -> NDArray[np.float32]:
    """Return (N,) dosages of an ALT: DS where the record has it, else GT."""
    if has_dosage and "DS" in variant.FORMAT:
        values = variant.format("DS")
        found: NDArray[np.float32] = values[:, min(allele - 1, values.shape[1] - 1)].astype(np.float32)
        return found
    calls = variant.genotype.array()[:, :-1]
    return count_alleles(calls, allele)


def count_alleles(calls: NDArray[Any], allele: int) -> NDArray[np.float32]:
    """Return (N,) copies of an allele; NaN where an allele is missing. A haploid call counts twice, as PLINK has it.

    Args:
        calls: (N, ploidy) allele numbers, -1 missing, -2 absent in a haploid call.
        allele: number of the ALT.
    """
    present = calls != PAD
    count = ((calls == allele) & present).sum(axis=1).astype(np.float32)
    count *= 2 / np.maximum(present.sum(axis=1), 1).astype(np.float32)
    count[((calls == -1) & present).any(axis=1) | ~present.any(axis=1)] = np.nan
    return count
