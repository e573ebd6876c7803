"""The study bundle: what a cohort shares, written and read.

A directory of ``study.json``, ``variants.parquet`` and ``genes/*.parquet`` (see `locomass.schema`). No row of
individual data; genotype counts below the study's minimum cell are withheld (-1).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from locomass.bundle.check import check_genes, check_laws, check_variants_distinct, read_study
from locomass.bundle.tables import RowGroups, open_bundle_table, read_bundle_table
from locomass.bundle.variants import STORE, VariantFile, matrix_of
from locomass.errors import BundleError
from locomass.genotypes.products import (
    add_information,
    cancel_rounding,
    information_diagonal,
    information_matrix,
)
from locomass.numbers import Floats
from locomass.schema import (
    BUNDLE_COLLAPSED,
    BUNDLE_GENES,
    BUNDLE_LAWS,
    BUNDLE_REPLICATES,
)

ROUNDING = 1e-10  # a variance below this share of G'WG is rounding


@dataclass(frozen=True)
class GeneCovariance:
    """G'WG and the projections of one gene and covariance: ``V_t = (G'WG - B'B - b_t'b_t) / sigma2_t``.

    Attributes:
        row, column, value: sparse lower triangle of G'WG (m, m).
        B: (p, m) shared by the traits of the covariance.
        b: (T, q, m) further rows of each trait.
    """

    row: NDArray[np.int32]
    column: NDArray[np.int32]
    value: Floats
    B: Floats
    b: Floats


@dataclass(frozen=True)
class CarrierGroups:
    """Groups of people who carry the same of a gene's variants.

    Attributes:
        indptr: (s + 1,) where the variants of each group begin.
        variant: numbers of the gene's variants.
        dosage: alleles of each, ALT positive, REF negative.
        count: (s,) people.
        mu: (s,) their mean fitted probability; None for quantitative traits.
    """

    indptr: NDArray[np.int64]
    variant: NDArray[np.int64]
    dosage: Floats
    count: Floats
    mu: Floats | None


@dataclass(frozen=True)
class CollapsedBurdens:
    """Burdens of one gene, mask and mode of inheritance under K thresholds; minor allele counted.

    Attributes:
        threshold: (K,) minor allele frequencies in the study's samples, rising.
        carriers: (S, K) samples whose burden is not zero, -1 where withheld.
        U: (T, K); V: (T, K, K); NaN where withheld.
    """

    threshold: Floats
    carriers: NDArray[np.int32]
    U: Floats
    V: Floats


@dataclass(frozen=True)
class StudyGene:
    """One gene of one study: m variants, all traits.

    Attributes:
        position, ref, alt: (m,) labels.
        n_obs: (m, S) samples with a call, per sample set.
        alt_frequency: (m, S) ALT frequency, NaN where nobody has a call.
        U: (m, T) score statistics.
        V: (m, T) their variances.
        covariances: by covariance name.
        note: why the study has no statistics for the gene; empty otherwise.
        laws: groups of people who carry the same variants, by covariance; empty where the study shares none.
        collapsed: burdens by (mask, mode).
        replicates: null scores (P, m) by trait, ALT counted, on the variants above.
        number: (m,) rows of variants.parquet.
    """

    position: NDArray[np.int64]
    ref: NDArray[np.object_]
    alt: NDArray[np.object_]
    n_obs: NDArray[np.int64]
    alt_frequency: Floats
    U: Floats
    V: Floats
    covariances: dict[str, GeneCovariance]
    note: str = ""
    laws: dict[str, CarrierGroups] = field(default_factory=dict)
    collapsed: dict[tuple[str, str], CollapsedBurdens] = field(default_factory=dict)
    replicates: dict[str, Floats] = field(default_factory=dict)
    number: NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))


def list_array(values: NDArray[Any] | Sequence[NDArray[Any]], kind: pa.DataType) -> pa.ListArray:
    """Return a list column: from the rows of a matrix, or from a sequence of arrays."""
    if isinstance(values, np.ndarray):
        offsets = np.arange(values.shape[0] + 1, dtype=np.int32) * values.shape[1]
        flat = np.ascontiguousarray(values).reshape(-1)
    else:
        offsets = np.concatenate(([0], np.cumsum([v.size for v in values]))).astype(np.int32)
        flat = np.concatenate([v.reshape(-1) for v in values]) if len(values) else np.empty(0)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat, kind))


def matrix_column(table: pa.Table, name: str) -> NDArray[Any]:
    """Return a list column whose rows have one length as a matrix."""
    return matrix_of(table.column(name))


@lru_cache(maxsize=128)
def _open_cached(path: Path, stamp: tuple[int, ...]) -> Bundle:
    return Bundle(path)


def open_once(path: Path) -> Bundle:
    """Open a bundle once per process, so that its variants are read and checked once for all batches of genes."""
    try:
        stats = [(path / name).stat() for name in ("study.json", "variants.parquet")]
    except OSError:
        return Bundle(path)
    return _open_cached(path, tuple(n for s in stats for n in (s.st_mtime_ns, s.st_size, s.st_ino)))


class Bundle:
    """A study bundle opened for reading.

    Attributes:
        path: the directory.
        info: the content of study.json.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not (self.path / "study.json").exists():
            raise BundleError(
                f"{self.path} is not a study bundle: it has no study.json; give the `bundle` folder that "
                f"`locomass run` left"
            )
        self.info: dict[str, Any] = read_study(self.path / "study.json")

    @property
    def study(self) -> str:
        """Name of the study."""
        return str(self.info["study"])

    @cached_property
    def traits(self) -> dict[str, dict[str, Any]]:
        """Traits by name, each with its ``index``."""
        return {t["name"]: {**t, "index": k} for k, t in enumerate(self.info["traits"])}

    @cached_property
    def sample_sets(self) -> dict[str, int]:
        """Index of each sample set."""
        return {s["name"]: k for k, s in enumerate(self.info["sample_sets"])}

    @cached_property
    def covariances(self) -> dict[str, dict[str, Any]]:
        """Covariances by name."""
        return {c["name"]: c for c in self.info["covariances"]}

    @cached_property
    def variant_file(self) -> VariantFile:
        """variants.parquet, read as it is needed."""
        return VariantFile(self.path / "variants.parquet", self.info)

    @cached_property
    def variants(self) -> pa.Table:
        """The whole table of variants; what reads genes only does not need it."""
        table = pa.concat_tables(self.variant_file.tables())
        check_variants_distinct(iter([table]), self.variant_file.path)
        return table

    @cached_property
    def _genes(self) -> tuple[pa.Table, list[str]]:
        """Gene, chromosome, number of the part and row group of every row of genes/, and the names of the parts."""
        parts = sorted(path.name for path in (self.path / "genes").glob("*.parquet"))
        tables = []
        for number, part in enumerate(parts):
            table = read_bundle_table(self.path / "genes" / part, BUNDLE_GENES, ("gene", "chromosome"))
            with open_bundle_table(self.path / "genes" / part, BUNDLE_GENES) as (file, _):
                rows = [file.metadata.row_group(g).num_rows for g in range(file.metadata.num_row_groups)]
            table = table.append_column("part", pa.array(np.full(table.num_rows, number, np.int32)))
            tables.append(table.append_column("group", pa.array(np.repeat(np.arange(len(rows), dtype=np.int32), rows))))
        none = pa.array([], pa.int32())
        empty = pa.table({"gene": pa.array([], pa.string()), "chromosome": [], "part": none, "group": none})
        return (pa.concat_tables(tables).combine_chunks() if tables else empty), parts

    @property
    def index(self) -> dict[str, tuple[str, str]]:
        """Gene -> (part of genes/, chromosome)."""
        table, parts = self._genes
        columns = (table[c].to_pylist() for c in ("gene", "part", "chromosome"))
        return {gene: (parts[part], chromosome) for gene, part, chromosome in zip(*columns, strict=True)}

    def has_gene(self, names: Iterable[str]) -> bool:
        """Return whether the study has one of these genes."""
        return bool(pc.any(pc.is_in(self._genes[0]["gene"], pa.array(list(names), pa.string()))).as_py())

    def _find(self, names: Iterable[str]) -> dict[str, tuple[list[str], list[int]]]:
        """Return the genes of these names that the study has, by part, and the row groups that hold them.

        Raises:
            BundleError: a gene stands in two parts.
        """
        table, parts = self._genes
        found = table.filter(pc.is_in(table["gene"], pa.array(list(names), pa.string())))
        place: dict[str, int] = {}
        groups: dict[int, set[int]] = {}
        for gene, part, group in zip(*(found[c].to_pylist() for c in ("gene", "part", "group")), strict=True):
            if place.setdefault(gene, part) != part:
                raise BundleError(
                    f"{self.path}: gene '{gene[:40]}' stands in genes/{parts[place[gene]]} and in genes/{parts[part]}"
                )
            groups.setdefault(part, set()).add(group)
        members: dict[int, list[str]] = {}
        for gene, part in place.items():
            members.setdefault(part, []).append(gene)
        return {parts[part]: (members[part], sorted(groups[part])) for part in members}

    def sigma2(self, trait: str, chromosome: str) -> float:
        """Return the residual variance that divides V."""
        values = self.traits[trait]["sigma2"]
        return float(values.get(chromosome, values.get("all", np.nan)))

    def read_genes(self, names: Iterable[str]) -> dict[str, StudyGene]:
        """Return the genes of these names that the study has."""
        out: dict[str, StudyGene] = {}
        for part, (members, groups) in self._find(names).items():
            table = self._read_groups(part, groups)
            chosen = table.filter(pc.is_in(table["gene"], pa.array(members)))
            check_genes(chosen, self.info, self.variant_file, self.path / "genes" / part)
            try:
                out.update(self.decode(chosen))
                self._add_shared(out, part, members)
            except (KeyError, IndexError, ValueError) as error:
                raise BundleError(
                    f"{self.path}/genes/{part} contradicts study.json or variants.parquet ({error}); ask for it again"
                ) from None
        return out

    def decode(self, table: pa.Table) -> dict[str, StudyGene]:
        """Return the genes of a table of genes/*.parquet."""
        lists = {name: table.column(name).combine_chunks() for name in ("variant", "row", "column", "value", "B", "b")}
        flat = {name: column.values.to_numpy(zero_copy_only=False) for name, column in lists.items()}
        bounds = {name: column.offsets.to_numpy() for name, column in lists.items()}
        genes: dict[str, StudyGene] = {}
        names, covariances, notes = (table.column(c).to_pylist() for c in ("gene", "covariance", "note"))
        rows = self.variant_file.take(flat["variant"][bounds["variant"][0] : bounds["variant"][-1]].astype(np.int64))
        n_obs = rows.n_obs.astype(np.int64)
        for k, (gene, covariance, note) in enumerate(zip(names, covariances, notes, strict=True)):
            cell = {name: flat[name][bounds[name][k] : bounds[name][k + 1]] for name in lists}
            v = cell["variant"]
            if gene not in genes:
                at = slice(*(bounds["variant"][k : k + 2] - bounds["variant"][0]))
                genes[gene] = StudyGene(
                    position=rows.position[at],
                    ref=rows.ref[at],
                    alt=rows.alt[at],
                    n_obs=n_obs[at],
                    alt_frequency=rows.alt_frequency[at],
                    U=rows.U[at],
                    V=rows.V[at],
                    covariances={},
                    note=note or "",
                    number=v,
                )
            if covariance in genes[gene].covariances:
                raise BundleError(f"{self.path}: gene '{gene[:40]}' is listed twice with covariance '{covariance}'")
            m, n_traits = len(v), len(self.covariances[covariance]["traits"])
            B = cell["B"].reshape(-1, m) if m else np.empty((0, 0))
            b = cell["b"].reshape(n_traits, -1, m) if m else np.empty((n_traits, 0, 0))
            genes[gene].covariances[covariance] = GeneCovariance(cell["row"], cell["column"], cell["value"], B, b)
        return genes

    def _add_shared(self, genes: dict[str, StudyGene], part: str, names: list[str]) -> None:
        """Add what the optional tables hold of genes; their parts are numbered like those of genes/."""
        T, S = len(self.traits), len(self.sample_sets)
        self._add_laws(genes, part, names)
        path = self.path / BUNDLE_COLLAPSED.name / part
        if path.exists():
            table = read_bundle_table(path, BUNDLE_COLLAPSED)
            for row in table.filter(pc.is_in(table["gene"], pa.array(names))).to_pylist():
                K = len(row["threshold"])
                genes[row["gene"]].collapsed[row["mask"], row["mode"]] = CollapsedBurdens(
                    np.array(row["threshold"]),
                    np.array(row["carriers"], np.int32).reshape(S, K),
                    np.array(row["U"], np.float64).reshape(T, K),
                    np.array(row["V"], np.float64).reshape(T, K, K),
                )
        path = self.path / BUNDLE_REPLICATES.name / part
        if path.exists():
            table = read_bundle_table(path, BUNDLE_REPLICATES)
            for row in table.filter(pc.is_in(table["gene"], pa.array(names))).to_pylist():
                place = {int(v): k for k, v in enumerate(row["variant"])}
                kept = [place[int(v)] for v in genes[row["gene"]].number]
                U = np.array(row["U"], np.float64).reshape(-1, len(row["variant"]))
                genes[row["gene"]].replicates[row["trait"]] = U[:, kept]

    def _add_laws(self, genes: dict[str, StudyGene], part: str, names: list[str]) -> None:
        """Add the groups of carriers of genes."""
        path = self.path / BUNDLE_LAWS.name / part
        if not path.exists():
            return
        table = read_bundle_table(path, BUNDLE_LAWS)
        table = table.filter(pc.is_in(table["gene"], pa.array(names)))
        check_laws(table, self.info, {name: len(genes[name].position) for name in names}, path)
        lists = {c: table.column(c).combine_chunks() for c in ("size", "carried", "variant", "dosage", "mu")}
        flat = {c: x.values.to_numpy(zero_copy_only=False) for c, x in lists.items()}
        bounds = {c: x.offsets.to_numpy() for c, x in lists.items()}
        labels = [table.column(c).to_pylist() for c in ("gene", "covariance")]
        for k, (gene, covariance) in enumerate(zip(*labels, strict=True)):
            cell = {c: flat[c][bounds[c][k] : bounds[c][k + 1]] for c in lists}
            binary = self.traits[self.covariances[covariance]["traits"][0]]["kind"] == "binary"
            genes[gene].laws[covariance] = CarrierGroups(
                np.concatenate(([0], np.cumsum(cell["carried"]))).astype(np.int64),
                cell["variant"].astype(np.int64),
                cell["dosage"].astype(np.float64),
                cell["size"].astype(np.float64),
                cell["mu"].astype(np.float64) if binary else None,
            )

    def _read_groups(self, name: str, groups: Sequence[int]) -> pa.Table:
        """Read row groups of a part of genes/; those read last stay in memory, their content not yet checked."""
        path = self.path / "genes" / name
        status = path.stat()
        stamp = (str(path), status.st_mtime_ns, status.st_size)
        with RowGroups(path, BUNDLE_GENES) as file:
            tables = [
                STORE.get((*stamp, g), lambda g=g: file.read(g), lambda table: table.nbytes)  # type: ignore[misc]
                for g in groups
            ]
        return pa.concat_tables(tables)

    def information(self, gene: StudyGene, trait: str) -> Floats:
        """Return (m, m) ``K = G'WG - B'B - b'b``; V of the trait is K / sigma2; exactly zero where nothing varies."""
        c, rows = self.projections(gene, trait)
        K = information_matrix(len(gene.position), c.row, c.column, c.value, rows)
        cancel_rounding(K, c.row, c.column, c.value, ROUNDING)
        return K

    def information_diagonal(self, gene: StudyGene, trait: str) -> Floats:
        """Return (m,) the diagonal of `information`."""
        c, rows = self.projections(gene, trait)
        return information_diagonal(c.row, c.column, c.value, rows, ROUNDING)

    def add_information(
        self, V: Floats, gene: StudyGene, trait: str, place: NDArray[np.int64], sign: Floats, scale: float
    ) -> None:
        """Add ``scale K`` (see `information`) of a trait to the matrix of all studies.

        Args:
            V: (u, u) changed in place.
            gene, trait: whose K.
            place: (m,) row of each variant in V, -1 to leave it out.
            sign: (m,) factor of each variant, -1 where V counts the other allele.
            scale: 1 / sigma2 to add V.
        """
        c, rows = self.projections(gene, trait)
        add_information(V, place, sign, scale, c.row, c.column, c.value, rows, ROUNDING)

    def projections(self, gene: StudyGene, trait: str) -> tuple[GeneCovariance, Floats]:
        """Return the covariance of a trait, and all rows that are projected out, (p + q, m)."""
        name = self.traits[trait]["covariance"]
        c = gene.covariances[name]
        b = c.b[self.covariances[name]["traits"].index(trait)]
        return c, np.ascontiguousarray(np.vstack([c.B, b]) if b.shape[0] else c.B)
