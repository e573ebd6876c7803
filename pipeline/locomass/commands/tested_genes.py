"""What is tested and how: genes with their masks and frequencies, gene tests, and the report after them."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from locomass.bundle.study import Bundle
from locomass.commands.study import Progress
from locomass.config import ExternalMaf, MetaConfig, RunConfig, Tests
from locomass.errors import ConfigError, MatchError, suggest
from locomass.executors import Executor
from locomass.files.parts import digest_content
from locomass.gene_tests.registry import check_tests
from locomass.gene_tests.weights import parse_weights
from locomass.meta import run_meta
from locomass.meta.collect import count_failed
from locomass.meta.hidden import add_hidden
from locomass.meta.ledger import write_ledger
from locomass.meta.studies import write_studies
from locomass.meta.tasks import MetaTask, check_genes, plan_tasks
from locomass.numbers import Floats
from locomass.run.directory import RunDirectory
from locomass.run.provenance import digest_arrays, digest_value
from locomass.schema import DENOISING, INSPECTION, MASK_VARIANTS, META_TABLES, PREDICTORS
from locomass.tables.annotations import Frequencies, read_frequencies
from locomass.tables.catalogue import Catalogue
from locomass.tables.mask_variants import write_mask_variants

log = logging.getLogger("locomass")


def check_named_tests(config: RunConfig | MetaConfig, config_path: Path) -> None:
    """Raise ConfigError, before anything is computed, when a test or a set of weights is unknown."""
    try:
        check_tests(config.tests.names)
        for scheme in config.tests.weights:
            parse_weights(scheme)
    except ConfigError as error:
        raise ConfigError(f"{config_path}, key tests: {error}") from None


def check_columns(catalogue: Catalogue, config: RunConfig | MetaConfig) -> None:
    """Raise ConfigError when weights name an annotation column that the annotations lack."""
    for scheme in config.tests.weights:
        kind, _, column = scheme.partition(":")
        if kind == "annotation" and column not in catalogue.columns:
            raise ConfigError(
                f"key tests.weights: the annotations have no numeric column '{column}'"
                f"{suggest(column, catalogue.columns)}"
            )


@dataclass(frozen=True)
class TestedGenes:
    """What is tested: the catalogue, and which frequency decides."""

    catalogue: Catalogue
    tests: Tests
    maf: Any
    folder: Path
    groups: tuple[str, ...] = ()

    @cached_property
    def external(self) -> Floats | None:
        """External ALT frequency of every listed variant; None under the other policies."""
        if not isinstance(self.maf, ExternalMaf):
            return None
        c, table = self.catalogue, self._external_table
        out = table.find(c.chromosome, c.position, c.ref, c.alt)
        if np.isnan(out).all():
            raise MatchError(f"{table.path}: none of the {len(out):,} variants of {c.what} has a frequency there")
        return out

    @cached_property
    def _external_table(self) -> Frequencies:
        """The external file.

        Raises:
            ConfigError: the genes are regions, which list no variants.
        """
        if self.catalogue.is_regions:
            raise ConfigError("key maf: external frequencies need listed variants (genes: sets or groups), not regions")
        return read_frequencies(self.folder / self.maf.external, self.catalogue.identifiers)

    @cached_property
    def singleton(self) -> NDArray[np.bool_] | None:
        """Whether the external file calls each listed variant a singleton; None where that is not asked for.

        Raises:
            ConfigError: external singletons without an external file.
        """
        if self.tests.singletons != "external":
            return None
        if not isinstance(self.maf, ExternalMaf):
            raise ConfigError(
                "key tests.singletons: external singletons are those of the third column of an allele-frequency file; "
                "give it by `maf: {external: FILE}`, or set singletons: observed"
            )
        c = self.catalogue
        return self._external_table.find_singletons(c.chromosome, c.position, c.ref, c.alt)

    @property
    def policy(self) -> str:
        """``joint``, ``study`` or ``external``."""
        return "external" if isinstance(self.maf, ExternalMaf) else str(self.maf)

    @property
    def digest(self) -> str:
        """Digest of genes, masks, annotations and frequencies."""
        c, s = self.catalogue, self.catalogue.sets
        labels = (c.chromosome, c.position, c.ref, c.alt, c.category, c.member)
        regions = (s.offsets, s.start, s.end, s.gene, s.chromosome)
        external = [x for x in (self.external, self.singleton) if x is not None]
        arrays = digest_arrays(*labels, *regions, *c.columns.values(), *external)
        return digest_value([arrays, list(c.columns), c.masks, self.policy, c.pathways, self.groups])


def run_tests(
    directory: RunDirectory,
    bundles: Sequence[Path],
    genes: TestedGenes,
    tests: Any,
    executor: Executor,
    progress: Progress,
    *,
    with_report: bool,
) -> int:
    """Run the meta stage and the report, unless they are up to date; return the number of genes that failed."""
    failed = 0
    inputs = {str(b): digest_value(directory.digest_inputs([b])[str(b)]) for b in bundles}
    digest = directory.stage_digest("meta", inputs, msgspec.to_builtins(tests), genes.digest)
    # some are there for several studies only
    outputs = ["gene_tests.tsv.gz", PREDICTORS, *(table.name for table in META_TABLES)]
    if directory.is_done("meta", digest):
        log.info("meta: up to date")
        failed = count_failed(directory.path / "gene_tests.parquet")
    else:
        start = time.perf_counter()
        parts = directory.parts_folder("meta", digest)
        resolved = [b.resolve() for b in bundles]
        opened = [Bundle(b) for b in resolved]
        check_genes(genes.catalogue, opened)
        tasks: list[MetaTask] = plan_tasks(
            genes.catalogue, resolved, tests, genes.policy, genes.external, parts, genes.groups, genes.singleton
        )
        tasks = add_hidden(tasks, genes.catalogue, opened)
        directory.begin("meta", parts, len(tasks))
        with progress("gene tests", len(tasks)) as done:
            failed = run_meta(tasks, directory.path, executor, done, genes.catalogue.pathways)
        write_mask_variants(directory.path / MASK_VARIANTS.name, genes.catalogue, genes.external)
        write_ledger(opened, directory.path / DENOISING.name)
        write_studies(opened, directory.path)
        if failed:
            log.warning("%d genes failed: the note of their rows says why", failed)
        directory.finish("meta", digest, outputs)
        directory.parts_folder("meta", "none")
        log.info("gene tests: %.1f s", time.perf_counter() - start)
    if with_report:
        from locomass.report.page import describe_frequency, write_report

        searches = directory.stages.get("permutation", {}).get("digest", "")  # of a study, and not of a meta-analysis
        inspection = directory.path / INSPECTION
        inspected = digest_content(inspection) if inspection.exists() else ""
        report = directory.stage_digest("report", {}, None, digest, searches, inspected)
        if not directory.is_done("report", report):
            directory.forget("report")
            write_report(directory.path, frequency=describe_frequency(tests.frequency, genes.policy))
            directory.finish("report", report, ["report.html"])
    return failed
