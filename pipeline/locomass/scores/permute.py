"""Searches over groupings by permutation of a study's own residuals, the whole search repeated on each.

What needs individual data and so cannot be done by a consortium from shared statistics: the empirical variance of
Hoffmann, Marini & Witte (2010), permutation within strata, exact null distributions of unbalanced binary traits. Genes,
masks, bins, weights and signs are those of the configuration's ``tests``; a batch is one of the score-statistics stage.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from locomass.errors import GENE_FAILURES, InputError
from locomass.files.parts import is_sealed, read_arrays, seal_parts
from locomass.files.results import write_parquet
from locomass.gene_tests.base import TestResult, missing_result
from locomass.gene_tests.permutation import CarrierGenotypes, search_individuals
from locomass.gene_tests.permutation_trait import IndividualTrait
from locomass.gene_tests.step_up import StepUpParameters, build_search
from locomass.null_models.registry import trait_model
from locomass.numbers import LN10, Floats
from locomass.schema import PERMUTATION_TESTS
from locomass.scores.genotypes import (
    BatchCarriers,
    BatchTask,
    ContextSource,
    StudyContext,
    find_carriers,
)
from locomass.scores.sharing import individual_trait, list_members, take_genotypes
from locomass.tables.catalogue import Catalogue, StudyVariants

UNBALANCED_SHARE = 1 / 10.5  # one case to ten controls, rounded, or fewer
STRATA = "strata.npz"
FAILED = "no statistics"
#: a variant whose frequency equals a bound is in the bin, whatever the rounding of the bound
_ROUNDING = 1 - 1e-12


@dataclass(frozen=True)
class PermutationOptions:
    """What every batch searches for.

    Attributes:
        tests: names of the searches.
        variance: ``model`` or ``empirical``.
        max_maf: frequency bins, upper bounds.
        parameters: weights, signs, kinds of annotation columns, when to stop.
        stratified: permute within the strata that lie beside the parts.
    """

    tests: tuple[str, ...]
    variance: Literal["model", "empirical"]
    max_maf: tuple[float, ...]
    parameters: StepUpParameters
    stratified: bool


@dataclass(frozen=True)
class PermutationTask:
    """One batch of genes: what `BatchTask` says, and which variants each mask takes.

    Attributes:
        batch: genes and genotypes.
        masks: names.
        member: per gene, (M, m) whether each mask takes each of its variants.
        columns: per gene, numeric annotation columns (m,) by name.
    """

    batch: BatchTask
    masks: tuple[str, ...]
    member: tuple[NDArray[np.bool_], ...]
    columns: tuple[dict[str, Floats], ...]

    @property
    def number(self) -> int:
        """Number of the batch."""
        return self.batch.number

    @property
    def part(self) -> Path:
        """The part that the task writes."""
        return self.batch.folder / f"permutation-{self.number:05d}.parquet"

    @property
    def is_done(self) -> bool:
        """Whether the part is there and whole."""
        return is_sealed(self.batch.folder, self.number)


def plan_permutations(tasks: Sequence[BatchTask], catalogue: Catalogue, found: StudyVariants) -> list[PermutationTask]:
    """Return the batches with the masks and annotations of their genes."""
    number = {name: i for i, name in enumerate(catalogue.sets.gene)}
    out = []
    for task in tasks:
        genes = [number[gene.gene] for gene in task.genes]
        listed = [list_members(catalogue, found, gene) for gene in genes]
        out.append(
            PermutationTask(
                replace(task, sharing=None),
                catalogue.masks,
                tuple(
                    np.ones((len(catalogue.masks), len(gene.variants)), np.bool_)
                    if at is None
                    else catalogue.member[:, at]
                    for gene, at in zip(task.genes, listed, strict=True)
                ),
                tuple({} if at is None else {k: v[at] for k, v in catalogue.columns.items()} for at in listed),
            )
        )
    return out


@dataclass(frozen=True)
class PermuteBatch:
    """The task function with what is common to all batches."""

    source: ContextSource
    options: PermutationOptions

    def __call__(self, task: PermutationTask) -> str:
        """Run one batch and write its part."""
        if not task.is_done:
            context = self.source.open(task.batch.chromosome)
            strata = self._strata(task.batch.folder / STRATA) if self.options.stratified else None
            rows = list(_search_batch(task, context, self.options, strata))
            columns = {c.name: pa.array([row[c.name] for row in rows], c.type) for c in PERMUTATION_TESTS.columns}
            write_parquet(task.part, pa.table(columns))
            seal_parts(task.batch.folder, task.number, [task.part])
        return task.part.name

    @staticmethod
    def _strata(path: Path) -> NDArray[np.int64]:
        """Return the strata that the run wrote for its batches.

        Raises:
            InputError: they are absent or damaged.
        """
        arrays = read_arrays(path)
        if arrays is None:
            raise InputError(f"{path} is absent or damaged; run the same command, or plan init, again")
        return arrays["strata"]


def gather_permutations(tasks: Sequence[PermutationTask], path: Path) -> None:
    """Put the parts together as one table."""
    table = pa.concat_tables([PERMUTATION_TESTS.arrow.empty_table(), *(pq.read_table(task.part) for task in tasks)])
    write_parquet(path, table)


def count_failed_genes(path: Path) -> int:
    """Return the number of genes with a row that failed, as opposed to one that has nothing to search."""
    table = pq.read_table(path, columns=["gene", "note"]).to_pydict()
    return len({gene for gene, note in zip(table["gene"], table["note"], strict=True) if note.startswith(FAILED)})


def _search_batch(
    task: PermutationTask, context: StudyContext, options: PermutationOptions, strata: NDArray[np.int64] | None
) -> list[dict[str, Any]]:
    """Return the rows of all genes, traits, masks and bins of a batch."""
    batch, models = task.batch, context.models
    model, carriers = models.model(batch.chromosome), find_carriers(batch, context)
    rows = []
    for trait in models.traits:
        null = trait_model(models, model, trait["name"])
        individual, place = individual_trait(null), null.place
        if strata is not None:
            individual = replace(individual, strata=strata[place >= 0])
        s = models.sample_sets.index(trait["sample_set"])
        for gene, member, columns in zip(batch.genes, task.member, task.columns, strict=True):
            here = np.searchsorted(batch.variants, gene.variants)
            frequency = carriers.frequency[here, s]
            for mask, taken in zip(task.masks, member, strict=True):
                for bound in options.max_maf:
                    with np.errstate(invalid="ignore"):
                        chosen = np.flatnonzero(taken & (frequency > 0) & (frequency * _ROUNDING <= bound))
                    start = {
                        "gene": gene.gene,
                        "chromosome": gene.chromosome,
                        "trait": trait["name"],
                        "mask": mask,
                        "max_maf": bound,
                        "n_samples": len(individual.residual),
                        "n_variants": len(chosen),
                    }
                    genotypes = take_genotypes(carriers, here[chosen], place, len(individual.residual), s)
                    own = {name: values[chosen] for name, values in columns.items()}
                    results = _search_gene(genotypes, individual, frequency[chosen], own, options, gene.gene)
                    labels = _label_variants(batch, carriers, here[chosen])
                    rows += [_make_row(start, genotypes, labels, name, result) for name, result in results.items()]
    return rows


def _search_gene(
    genotypes: CarrierGenotypes,
    individual: IndividualTrait,
    maf: Floats,
    columns: Mapping[str, Floats],
    options: PermutationOptions,
    gene: str,
) -> dict[str, TestResult]:
    """Return a result per search of the configuration; one that cannot be built, or fails, says why."""
    results, searches = {}, []
    for name in options.tests:
        try:
            search = build_search(name, maf, columns, options.parameters)
            searches.append(replace(search, variance=options.variance))
        except GENE_FAILURES as error:
            results[name] = missing_result(1, str(error) if len(maf) else "no variants")
    try:
        if searches:
            results |= search_individuals(genotypes, individual, searches, options.parameters.resampling, stream=gene)
    except GENE_FAILURES as error:
        results |= {search.name: missing_result(1, f"{FAILED}: {error}") for search in searches}
    advice = advise_variance(individual, options.variance)
    return {name: replace(results[name], note=results[name].note or advice) for name in options.tests}


def advise_variance(trait: IndividualTrait, variance: str) -> str:
    """Return a note where the empirical variance costs nearly all power: few cases, or few controls.

    The residuals of the smaller class are large, and as large in the variance as in the score: z2 is at most the
    number of carriers.

    Args:
        trait: residuals, and cases of a binary trait.
        variance: ``model`` or ``empirical``.
    """
    if variance != "empirical" or trait.case is None:
        return ""
    share = float(np.mean(trait.case))
    if min(share, 1.0 - share) >= UNBALANCED_SHARE:
        return ""
    return "few cases or few controls: little power with the empirical variance (advised: permutation.variance: model)"


def _label_variants(batch: BatchTask, carriers: BatchCarriers, rows: NDArray[np.int64]) -> list[str]:
    """Return ``position:ALT`` or ``position:REF`` of each variant: which allele is counted."""
    return [
        f"{position}:{'ALT' if sign > 0 else 'REF'}"
        for position, sign in zip(batch.positions[rows].tolist(), carriers.sign[rows].tolist(), strict=True)
    ]


def _make_row(
    start: Mapping[str, Any], genotypes: CarrierGenotypes, labels: Sequence[str], name: str, result: TestResult
) -> dict[str, Any]:
    """Return one row of the table."""
    detail = result.detail
    log_p = float(result.log_p[0])
    chosen: list[int] = [] if detail.chosen is None else np.flatnonzero(detail.chosen[0]).tolist()
    weight = np.empty(0) if detail.weight is None else detail.weight[0]
    return {
        **start,
        "test": name,
        "mac": float(genotypes.total().sum()),
        "statistic": float(result.statistic[0]),
        "p": float(np.exp(log_p)),
        "log10p": -log_p / LN10,
        "p_error": float(result.p_error[0]) if result.p_error is not None else float("nan"),
        "method": result.method,
        "permutations": 0 if detail.permutations is None else int(detail.permutations[0]),
        "exceedances": 0 if detail.exceedances is None else int(detail.exceedances[0]),
        "grouping": "" if detail.grouping is None else detail.grouping[0],
        "chosen": ",".join(f"{'+' if weight[j] >= 0 else '-'}{labels[j]}" for j in chosen),
        "note": result.note,
    }
