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

from locomass.config import Tests
from locomass.errors import ConfigError
from locomass.files.results import concatenate_parquet, write_parquet, write_tsv_parts
from locomass.gene_tests.base import TestResult
from locomass.meta.gene import GeneView
from locomass.meta.laws import test_variants
from locomass.meta.pathways import PATHWAY, run_pathways
from locomass.meta.sums import SharedV
from locomass.meta.tasks import GeneRequest, MetaTask
from locomass.meta.unite import TraitGroup, UnionGene
from locomass.numbers import LN10, Floats
from locomass.schema import DRIVERS, GENE_TESTS, MASK_AUDIT, PATHWAY_TESTS, SINGLE_VARIANTS


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
            "gene",
            "chromosome",
            "start",
            "end",
            "mask",
            "max_maf",
            "weights",
            "test",
            "n_studies",
            "n_samples",
            "n_variants",
            "mac",
        )
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
            "choice": pa.array([text for result in self.results for text in result.choices()], pa.string()),
            **{name: self._values(name) for name in ("statistic", "beta", "se", "ci_low", "ci_high", "p_error")},
            "p": np.exp(log_p),
            "log10p": np.abs(log_p) / LN10,
        }
        return pa.table({c.name: columns[c.name] for c in GENE_TESTS.columns}, schema=GENE_TESTS.arrow)


class VariantCollector:
    """Rows of single_variants.parquet: the variants that each gene reports, columns at the end."""

    def __init__(self) -> None:
        self.labels: list[tuple[str, int, tuple[str, ...]]] = []  # chromosome, variants, traits
        self.parts: list[tuple[NDArray[Any], ...]] = []

    def add(self, view: GeneView, shared: SharedV) -> None:
        """Add the variants that this gene reports, for the traits that share V."""
        request, union, frequency = view.request, view.union, view.frequency
        mine = reported_variants(request, union)
        chosen = np.flatnonzero(mine & frequency.is_polymorphic)
        per_variant = (
            union.position,
            union.ref,
            union.alt,
            frequency.n_studies,
            frequency.allele_number,
            frequency.alt_count,
        )
        again = np.tile(chosen, len(shared.traits)) if len(shared.traits) > 1 else chosen
        V = shared.scale[:, None] * shared.variance[chosen]
        self.labels.append((request.chromosome, len(chosen), shared.traits))
        labels = (values[again] for values in per_variant)
        tested = test_variants(shared, chosen, V, view.rules.tests)
        self.parts.append((*labels, shared.U[:, chosen].ravel(), V.ravel(), *tested))

    def table(self) -> pa.Table:
        """Return the rows as a table, gene by gene, then trait by trait."""
        if not self.parts:
            return SINGLE_VARIANTS.arrow.empty_table()
        position, ref, alt, n_studies, number, count, U, V, log_p, method, beta, se, low, high = (
            np.concatenate(x) for x in zip(*self.parts, strict=True)
        )
        traits = [(t, n) for _, n, traits in self.labels for t in traits]
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
            "ci_low": low,
            "ci_high": high,
            "p": np.exp(log_p),
            "log10p": np.abs(log_p) / LN10,
            "method": pa.array(method, pa.string()),
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

    def add_audit(self, view: GeneView) -> None:
        """Add the audit of a gene's masks and bins, for the traits of a group."""
        traits = ",".join(view.group.traits)
        for s in view.selections:
            self.audit.append(
                {"gene": view.request.gene, "mask": s.mask, "max_maf": s.max_maf, "traits": traits, **s.audit}
            )

    def write(self, task: MetaTask) -> list[Path]:
        """Write the task's parts; return their paths."""
        tables = {
            "variants": self.variants.table(),
            "audit": pa.Table.from_pylist(self.audit, schema=MASK_AUDIT.arrow),
            "drivers": pa.Table.from_pylist(self.drivers, schema=DRIVERS.arrow),
            "tests": self.tests.table(),
        }
        for name, table in tables.items():
            write_parquet(task.part(name), table)
        return [task.part(name) for name in tables]


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
    tests = [t.part("tests") for t in tasks]
    concatenate_parquet(tests, GENE_TESTS.arrow, out / GENE_TESTS.name, text=out / "gene_tests.tsv.gz")
    for part, schema in (("variants", SINGLE_VARIANTS), ("drivers", DRIVERS)):
        concatenate_parquet([t.part(part) for t in tasks], schema.arrow, out / schema.name)
    write_tsv_parts(out / "mask_audit.tsv", (pq.read_table(t.part("audit")) for t in tasks))


def write_pathways(tasks: Sequence[MetaTask], out: Path, pathways: Mapping[str, Sequence[str]]) -> None:
    """Write pathway_tests.parquet when pathway tests are configured; a table of an earlier run goes otherwise.

    Raises:
        ConfigError: pathway tests without `genes.pathways`.
    """
    tests = tasks[0].rules.tests if tasks else Tests()
    path = out / PATHWAY_TESTS.name
    if not set(tests.names) & set(PATHWAY):
        path.unlink(missing_ok=True)
        return
    if not pathways:
        raise ConfigError("key tests.names: pathway tests need key genes.pathways: FILE.gmt")
    write_parquet(path, run_pathways(out / GENE_TESTS.name, pathways, tests.names, tests.step_up))
