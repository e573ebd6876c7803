"""Rows of the result tables: gathered within a task, concatenated over tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.config import Tests
from pipeline.errors import ConfigError
from pipeline.gene_tests.base import TestResult
from pipeline.io.results import concatenate_parquet, read_parts, write_parquet, write_tsv_parts
from pipeline.kernels.tails import chi2_logsf
from pipeline.schema import DRIVERS, GENE_TESTS, MASK_AUDIT, PATHWAY_TESTS, SINGLE_VARIANTS, TableSchema
from pipeline.stages.meta.sums import SharedV
from pipeline.stages.meta.tasks import GeneRequest, MetaTask
from pipeline.stages.meta.unite import TraitGroup, UnionFrequency, UnionGene
from pipeline.stages.pathways import PATHWAY, run_pathways

Floats = NDArray[np.float64]
LN10 = float(np.log(10.0))


class RowCollector:
    """Rows of gene_tests.parquet: constants and results as they come, columns at the end."""

    def __init__(self) -> None:
        self.constants: list[tuple[Any, ...]] = []
        self.results: list[TestResult] = []
        self.traits: list[tuple[str, ...]] = []

    def add(self, constants: tuple[Any, ...], traits: tuple[str, ...], result: TestResult) -> None:
        """Add one test of one gene for several traits."""
        self.constants.append(constants)
        self.results.append(result)
        self.traits.append(traits)

    def _values(self, name: str) -> Floats:
        """Return one field of all results, NaN where a test has none."""
        absent = {n: np.full(n, np.nan) for n in {len(traits) for traits in self.traits}}
        found = [getattr(result, name) for result in self.results]
        parts = [absent[len(t)] if v is None else v for v, t in zip(found, self.traits, strict=True)]
        return np.concatenate(parts) if parts else np.empty(0)

    def table(self) -> pa.Table:
        """Return the rows as a table."""
        names = (
            "gene", "chromosome", "start", "end", "mask", "max_maf", "weights", "test", "n_studies", "n_samples",
            "n_variants", "mac",
        )  # fmt: skip
        types = {c.name: c.type for c in GENE_TESTS.columns}
        constants = dict(zip(names, zip(*self.constants, strict=True), strict=True)) if self.constants else {}
        constants |= {name: tuple(getattr(result, name) for result in self.results) for name in ("method", "note")}
        repeat = pa.array(np.repeat(np.arange(len(self.traits)), [len(traits) for traits in self.traits]))
        columns: dict[str, Any] = {
            name: pa.array(constants.get(name, ()), types[name]).take(repeat) for name in (*names, "method", "note")
        }
        log_p = self._values("log_p")
        columns |= {
            "trait": pa.array([trait for traits in self.traits for trait in traits], pa.string()),
            **{name: self._values(name) for name in ("statistic", "beta", "se", "p_error")},
            "p": np.exp(log_p),
            "log10p": np.abs(log_p) / LN10,
        }
        return pa.table({c.name: columns[c.name] for c in GENE_TESTS.columns}, schema=GENE_TESTS.arrow)


class VariantCollector:
    """Rows of single_variants.parquet: the variants that each gene reports, columns at the end."""

    def __init__(self) -> None:
        self.labels: list[tuple[str, int, tuple[str, ...]]] = []  # chromosome, variants, traits
        self.parts: list[tuple[NDArray[Any], ...]] = []

    def add(self, request: GeneRequest, union: UnionGene, frequency: UnionFrequency, shared: SharedV) -> None:
        """Add the variants that this gene reports, for the traits that share V."""
        mine = reported_variants(request, union)
        chosen = np.flatnonzero(mine & frequency.is_polymorphic)
        per_variant = (
            union.position, union.ref, union.alt, frequency.n_studies, frequency.allele_number, frequency.alt_count,
        )  # fmt: skip
        again = np.tile(chosen, len(shared.traits)) if len(shared.traits) > 1 else chosen
        V = shared.scale[:, None] * shared.variance[chosen]
        self.labels.append((request.chromosome, len(chosen), shared.traits))
        self.parts.append((*(values[again] for values in per_variant), shared.U[:, chosen].ravel(), V.ravel()))

    def table(self) -> pa.Table:
        """Return the rows as a table: ``beta = U / V``, ``se = 1 / sqrt(V)``, gene by gene, then trait by trait."""
        if not self.parts:
            return SINGLE_VARIANTS.arrow.empty_table()
        position, ref, alt, n_studies, number, count, U, V = (np.concatenate(x) for x in zip(*self.parts, strict=True))
        traits = [(t, n) for _, n, traits in self.labels for t in traits]
        testable = V > 0
        with np.errstate(divide="ignore", invalid="ignore"):
            beta = np.where(testable, U / V, np.nan)
            se = np.where(testable, 1 / np.sqrt(V), np.nan)
            log_p = np.where(testable, chi2_logsf(np.where(testable, U**2 / V, 0.0)), np.nan)
        columns: dict[str, Any] = {
            "chromosome": _repeat([c for c, _, _ in self.labels], [n * len(t) for _, n, t in self.labels]),
            "position": position,
            "ref": pa.array(ref, pa.string()),
            "alt": pa.array(alt, pa.string()),
            "trait": _repeat([t for t, _ in traits], [n for _, n in traits]),
            "n_studies": n_studies.astype(np.int32),
            "n_samples": (number / 2).astype(np.int64),
            "alt_frequency": count / np.maximum(number, 1),
            "alt_count": count,
            "U": U,
            "V": V,
            "beta": beta,
            "se": se,
            "p": np.exp(log_p),
            "log10p": np.abs(log_p) / LN10,
        }
        return pa.table(columns, schema=SINGLE_VARIANTS.arrow)


def _repeat(names: list[str], times: list[int]) -> pa.Array:
    """Return each name as often as it is said."""
    return pa.array(names, pa.string()).take(pa.array(np.repeat(np.arange(len(names)), times)))


def reported_variants(request: GeneRequest, union: UnionGene) -> NDArray[np.bool_]:
    """Return (u,) which variants this gene reports singly: those that no earlier gene or region has."""
    if not request.is_region:
        return request.owner[union.listed]
    mine = np.ones(len(union.position), np.bool_)
    for start, end in request.earlier:
        mine &= (union.position < start) | (union.position > end)
    return mine


@dataclass
class TaskResults:
    """What a task found, by result table.

    Attributes:
        tests: rows of gene_tests.parquet.
        variants: rows of single_variants.parquet.
        audit: rows of mask_audit.tsv.
        drivers: rows of drivers.parquet.
    """

    tests: RowCollector = field(default_factory=RowCollector)
    variants: VariantCollector = field(default_factory=VariantCollector)
    audit: list[dict[str, Any]] = field(default_factory=list)
    drivers: list[dict[str, Any]] = field(default_factory=list)

    def write(self, task: MetaTask) -> None:
        """Write the task's parts; the table of tests last, since it says that the task is done."""
        write_parquet(task.part("variants"), self.variants.table())
        write_parquet(task.part("audit"), pa.Table.from_pylist(self.audit, schema=MASK_AUDIT.arrow))
        write_parquet(task.part("drivers"), pa.Table.from_pylist(self.drivers, schema=DRIVERS.arrow))
        write_parquet(task.part("tests"), self.tests.table())


def failed_row(request: GeneRequest, test: str, group: TraitGroup) -> tuple[Any, ...]:
    """Return the constants of a row that says why a gene has no result."""
    place = (request.gene, request.chromosome, request.start, request.end)
    return (*place, "", float("nan"), "", test, 0, group.n_samples, 0, float("nan"))


def count_failed(path: Path) -> int:
    """Return how many genes of a table of gene tests have a row without a mask: the row that says why they failed."""
    table = pq.read_table(path, columns=["gene", "mask"])
    return len(set(table.filter(pc.equal(table["mask"], ""))["gene"].to_pylist()))


def gather_results(tasks: Sequence[MetaTask], out: Path) -> None:
    """Write gene_tests (Parquet and text), single_variants and mask_audit from the parts, in bounded memory."""
    named: list[tuple[str, str, TableSchema]] = [
        ("tests", "gene_tests.parquet", GENE_TESTS),
        ("variants", "single_variants.parquet", SINGLE_VARIANTS),
        ("drivers", "drivers.parquet", DRIVERS),
    ]
    for part, name, schema in named:
        concatenate_parquet([t.part(part) for t in tasks], schema.arrow, out / name)
    write_tsv_parts(out / "gene_tests.tsv.gz", read_parts([t.part("tests") for t in tasks]))
    write_tsv_parts(out / "mask_audit.tsv", (pq.read_table(t.part("audit")) for t in tasks))


def write_pathways(tasks: Sequence[MetaTask], out: Path, pathways: Mapping[str, Sequence[str]]) -> None:
    """Write pathway_tests.parquet when pathway tests are configured; a table of an earlier run goes otherwise.

    Raises:
        ConfigError: pathway tests without `genes.pathways`.
    """
    tests = tasks[0].tests if tasks else Tests()
    path = out / PATHWAY_TESTS.name
    if not set(tests.names) & set(PATHWAY):
        path.unlink(missing_ok=True)
        return
    if not pathways:
        raise ConfigError("key tests.names: pathway tests need key genes.pathways: FILE.gmt")
    write_parquet(path, run_pathways(out / GENE_TESTS.name, pathways, tests.names, tests.step_up))
