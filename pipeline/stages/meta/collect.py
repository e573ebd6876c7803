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
    """Rows of gene_tests.parquet, gathered as arrays: constants per block, one value per trait otherwise."""

    def __init__(self) -> None:
        self.constants: list[tuple[Any, ...]] = []
        self.lengths: list[int] = []
        self.values: list[Floats] = []
        self.traits: list[str] = []

    def add(self, constants: tuple[Any, ...], traits: tuple[str, ...], result: TestResult) -> None:
        """Add one test of one gene for several traits."""
        nan = np.full(len(traits), np.nan)
        block = np.empty((5, len(traits)))
        for row, value in enumerate((result.statistic, result.beta, result.se, result.log_p, result.p_error)):
            block[row] = nan if value is None else value
        self.constants.append((*constants, result.method, result.note))
        self.lengths.append(len(traits))
        self.values.append(block)
        self.traits.extend(traits)

    def table(self) -> pa.Table:
        """Return the rows as a table."""
        names = (
            "gene", "chromosome", "start", "end", "mask", "max_maf", "weights", "test", "n_studies", "n_samples",
            "n_variants", "mac", "method", "note",
        )  # fmt: skip
        repeat = pa.array(np.repeat(np.arange(len(self.lengths)), self.lengths))
        types = {c.name: c.type for c in GENE_TESTS.columns}
        columns: dict[str, Any] = {
            name: pa.array([row[i] for row in self.constants], types[name]).take(repeat) for i, name in enumerate(names)
        }
        values = np.concatenate(self.values, axis=1) if self.values else np.empty((5, 0))
        statistic, beta, se, log_p, error = values
        columns |= {
            "trait": pa.array(self.traits, pa.string()),
            "statistic": statistic,
            "beta": beta,
            "se": se,
            "p": np.exp(log_p),
            "log10p": np.abs(log_p) / LN10,
            "p_error": error,
        }
        return pa.table({c.name: columns[c.name] for c in GENE_TESTS.columns}, schema=GENE_TESTS.arrow)


@dataclass
class TaskResults:
    """What a task found, by result table.

    Attributes:
        tests: rows of gene_tests.parquet.
        variants: tables of single_variants.parquet.
        audit: rows of mask_audit.tsv.
        drivers: rows of drivers.parquet.
    """

    tests: RowCollector = field(default_factory=RowCollector)
    variants: list[pa.Table] = field(default_factory=list)
    audit: list[dict[str, Any]] = field(default_factory=list)
    drivers: list[dict[str, Any]] = field(default_factory=list)

    def write(self, task: MetaTask) -> None:
        """Write the task's parts; the table of tests last, since it says that the task is done."""
        empty = SINGLE_VARIANTS.arrow.empty_table()
        write_parquet(task.part("variants"), pa.concat_tables(self.variants) if self.variants else empty)
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


def single_variants(
    request: GeneRequest, union: UnionGene, frequency: UnionFrequency, group: TraitGroup, shared: SharedV
) -> pa.Table:
    """Return the single-variant rows that this gene reports: ``beta = U / V``, ``se = 1 / sqrt(V)``."""
    if request.is_region:
        inside = [(union.position >= start) & (union.position <= end) for start, end in request.earlier]
        mine = ~np.any(inside, axis=0) if inside else np.ones(len(union.position), np.bool_)
    else:
        mine = request.owner[union.listed]
    chosen = np.flatnonzero(mine & frequency.is_polymorphic)
    n_traits = len(shared.traits)
    V = np.outer(shared.scale, np.diag(shared.V)[chosen])
    U = shared.U[:, chosen]
    testable = V > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        beta = np.where(testable, U / V, np.nan)
        se = np.where(testable, 1 / np.sqrt(V), np.nan)
        log_p = np.where(testable, chi2_logsf(np.where(testable, U**2 / V, 0.0).ravel()).reshape(V.shape), np.nan)
    repeat = np.tile(np.arange(len(chosen)), n_traits)
    columns: dict[str, Any] = {
        "chromosome": pa.array([request.chromosome] * len(repeat), pa.string()),
        "position": union.position[chosen][repeat],
        "ref": pa.array(union.ref[chosen][repeat], pa.string()),
        "alt": pa.array(union.alt[chosen][repeat], pa.string()),
        "trait": pa.array(np.repeat(np.array(shared.traits, object), len(chosen)), pa.string()),
        "n_studies": frequency.n_studies[chosen][repeat].astype(np.int32),
        "n_samples": (frequency.allele_number[chosen][repeat] / 2).astype(np.int64),
        "alt_frequency": (frequency.alt_count / np.maximum(frequency.allele_number, 1))[chosen][repeat],
        "alt_count": frequency.alt_count[chosen][repeat],
        "U": U.ravel(),
        "V": V.ravel(),
        "beta": beta.ravel(),
        "se": se.ravel(),
        "p": np.exp(log_p).ravel(),
        "log10p": (np.abs(log_p) / LN10).ravel(),
    }
    return pa.table(columns, schema=SINGLE_VARIANTS.arrow)


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
