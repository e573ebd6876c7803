"""Conditional analysis from study bundles: gene tests with index variants regressed out of (U, V).

Shared statistics hold V within a gene's variants only, so an index variant must be listed in the gene's own set
(whatever its frequency or mask: the bundle keeps all variants up to `score_statistics.max_maf`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.config import Tests
from pipeline.errors import MatchError
from pipeline.gene_tests.conditional import GENOME_WIDE, condition_scores, select_index_variants
from pipeline.gene_tests.registry import TESTS
from pipeline.io.bundle import Bundle, StudyGene
from pipeline.io.catalogue import Catalogue, unordered_key
from pipeline.io.results import write_parquet
from pipeline.io.variant_keys import parse_variant_keys
from pipeline.schema import CONDITIONAL
from pipeline.stages.meta.collect import LN10
from pipeline.stages.meta.evaluate import GeneView, calibrate_burden, evaluate_selection
from pipeline.stages.meta.groups import merge_groups
from pipeline.stages.meta.selection import Selection, included_variants, select_variants
from pipeline.stages.meta.sums import SharedV, sum_studies
from pipeline.stages.meta.tasks import GeneRequest, MetaTask, plan_tasks
from pipeline.stages.meta.unite import TraitGroup, UnionFrequency, UnionGene, group_traits, pool_frequencies, unite_gene

log = logging.getLogger("locomass")

Floats = NDArray[np.float64]
Key = tuple[str, int, str, str]


@dataclass(frozen=True)
class IndexRule:
    """Which variants are regressed out.

    Attributes:
        keys: (chromosome, position, allele, allele) of the variants given; None selects them per gene and trait.
        max_log_p: natural logarithm of the largest conditional p that lets a variant in, when they are selected.
    """

    keys: frozenset[Key] | None
    max_log_p: float = GENOME_WIDE


def run_conditional(
    bundles: Sequence[Path],
    catalogue: Catalogue,
    tests: Tests,
    index: Sequence[str] | Literal["auto"],
    out: Path,
    maf: str = "joint",
    max_p: float = 5e-8,
    *,
    external: Floats | None = None,
    studies: tuple[str, ...] = (),
) -> Path:
    """Write ``conditional_tests.parquet`` and return its path.

    Genes without an index variant of their own have no row.

    Args:
        bundles: of the studies.
        catalogue: genes and masks.
        tests: of the configuration; tests on collapsed burdens, pathways and the omnibus are passed over.
        index: variants as chromosome:position:ref:alt, alleles in either order; ``auto`` selects them per gene and
            trait by stepwise conditioning while the best conditional p is below ``max_p``.
        out: folder of the table.
        maf: frequency policy: joint, study or external.
        max_p: for ``auto``.
        external: ALT frequency of every listed variant, under the policy external.
        studies: the group of every study (key `groups`), where there are groups.

    Raises:
        MatchError: an index variant is not named as expected, or none is in any gene's set.
    """
    rule = IndexRule(None, float(np.log(max_p))) if index == "auto" else IndexRule(parse_index(index))
    opened = [Bundle(path) for path in bundles]
    groups = group_traits(opened)
    names = [name for name in tests.names if name in TESTS]
    rows: list[dict[str, Any]] = []
    for task in plan_tasks(catalogue, [Path(b) for b in bundles], tests, maf, external, out, studies):
        task = replace(task, tests=_with_names(tests, names))
        found = [bundle.read_genes(g.gene for g in task.genes) for bundle in opened]
        for request in task.genes:
            here = {k: genes[request.gene] for k, genes in enumerate(found) if request.gene in genes}
            rows += condition_gene(request, here, opened, groups, task, rule)
    if rule.keys is not None and not rows:
        raise MatchError(
            f"none of the {len(rule.keys)} index variants (such as {':'.join(map(str, min(rule.keys)))}) is in a gene's"
            " own set in any bundle; add it to the gene in genes.sets and compute the bundles again"
        )
    for key in sorted((rule.keys or frozenset()) - _used_keys(rows)):
        log.warning(
            "no row is given index variant %s: it is in no gene's own set in any bundle, or nothing else is left of "
            "the gene to test",
            ":".join(map(str, key)),
        )
    path = out / CONDITIONAL.name
    write_parquet(path, pa.Table.from_pylist(rows, schema=CONDITIONAL.arrow))
    return path


def _used_keys(rows: Sequence[Mapping[str, Any]]) -> frozenset[Key]:
    """Return the index variants of some rows, as `parse_index` writes them."""
    names = {name for row in rows for name in row["index_variants"].split(",")}
    return parse_index(sorted(names))


def _with_names(tests: Tests, names: list[str]) -> Tests:
    """Return the tests section with other names."""
    values = {field: getattr(tests, field) for field in Tests.__struct_fields__}
    return Tests(**{**values, "names": names})


def parse_index(names: Sequence[str]) -> frozenset[Key]:
    """Return index variants by (chromosome, position, first and second allele in alphabetical order).

    Raises:
        MatchError: a name is not chromosome:position:ref:alt.
    """
    keys = parse_variant_keys(list(names)).key
    out = set()
    for name, key in zip(names, keys, strict=True):
        if not key:
            raise MatchError(f"index variant '{name}' is not named chromosome:position:ref:alt")
        chromosome, position, a, b = key.split(":")
        out.add((chromosome, int(position), min(a, b), max(a, b)))
    return frozenset(out)


def condition_gene(
    request: GeneRequest,
    here: dict[int, StudyGene],
    bundles: Sequence[Bundle],
    groups: Sequence[TraitGroup],
    task: MetaTask,
    rule: IndexRule,
) -> Iterator[dict[str, Any]]:
    """Give the conditional rows of one gene, trait by trait.

    Index variants are chosen and regressed out with what all studies know of them, whatever the frequency policy:
    under `study` it bounds the variants that are tested.
    """
    union = unite_gene(request, here)
    every = {k: np.ones(len(union.position), np.bool_) for k in union.studies}
    for group in groups:
        frequency = pool_frequencies(union, group, request.external)
        selections = list(select_variants(request, union, frequency, group, task, []))
        included = included_variants(union, frequency, task.tests, task.maf)
        view = GeneView.of(request, union, frequency, group, task, bundles)
        for shared in sum_studies(bundles, union, group, request.chromosome, every, task.tests.calibrate):
            for t in range(len(shared.traits)):
                alone = take_trait(shared, t)
                index = find_index(rule, request.chromosome, union, frequency, alone)
                if not len(index):
                    continue
                if task.maf == "study":
                    alone = _sum_bounded(view, alone.traits, included, index)
                if task.groups and alone.per_study:
                    alone = merge_groups(alone, [task.groups[k] for k in frequency.studies])
                yield from _rows(view, alone, selections, index)


def _sum_bounded(
    view: GeneView, traits: tuple[str, ...], included: dict[int, NDArray[np.bool_]], index: NDArray[np.intp]
) -> SharedV:
    """Return the sums of one trait over the variants that each study may contribute, and the index variants."""
    kept = {k: rare.copy() for k, rare in included.items()}
    for rare in kept.values():
        rare[index] = True
    group = replace(view.group, traits=traits)
    calibrate = view.task.tests.calibrate
    return next(sum_studies(view.bundles, view.union, group, view.request.chromosome, kept, calibrate))


def take_trait(shared: SharedV, t: int) -> SharedV:
    """Return the statistics of one trait."""
    one = slice(t, t + 1)
    per_study = tuple((U[one], V, scale[one]) for U, V, scale in shared.per_study)
    return replace(
        shared,
        traits=shared.traits[one],
        U=shared.U[one],
        scale=shared.scale[one],
        per_study=per_study,
        replicates=None,
    )


def find_index(
    rule: IndexRule, chromosome: str, union: UnionGene, frequency: UnionFrequency, shared: SharedV
) -> NDArray[np.intp]:
    """Return the positions of a gene's index variants for one trait."""
    if rule.keys is None:
        return select_index_variants(
            shared.U[0], shared.V, float(shared.scale[0]), candidates=frequency.is_polymorphic, max_log_p=rule.max_log_p
        ).index
    keys = unordered_key(union.position, union.ref, union.alt)
    return np.array([j for j, (p, a, b) in enumerate(keys) if (chromosome, p, a, b) in rule.keys], np.intp)


def condition_shared(shared: SharedV, index: NDArray[np.intp]) -> tuple[SharedV, NDArray[np.bool_]]:
    """Return the statistics given the index variants, and which variants are left."""
    U, V, left = condition_scores(shared.U, shared.V, index)
    per_study = []
    for U_k, V_k, scale_k in shared.per_study:
        left_U, left_V, _ = condition_scores(U_k, V_k, index)
        per_study.append((left_U, left_V, scale_k))
    return replace(
        shared, U=U, V=V, variance=np.diag(V).copy(), per_study=tuple(per_study), replicates=None, models=()
    ), left


def _rows(
    view: GeneView, shared: SharedV, selections: Sequence[Selection], index: NDArray[np.intp]
) -> Iterator[dict[str, Any]]:
    """Give the conditional rows of one gene and trait."""
    request, union, mac_of = view.request, view.union, view.counted.mac
    conditioned, left = condition_shared(shared, index)
    names = ",".join(f"{request.chromosome}:{union.position[j]}:{union.ref[j]}:{union.alt[j]}" for j in index)
    for selection in selections:
        kept = replace(
            selection,
            in_bin=selection.in_bin[left[selection.in_bin]],
            in_mask=selection.in_mask[left[selection.in_mask]],
        )
        if not len(kept.in_bin):
            continue
        correction, note = calibrate_burden(view.bundles, view.genes, view.counted, shared, selection)
        tested = evaluate_selection(view, conditioned, kept, correction)
        n_studies = int(view.frequency.varies[:, kept.in_bin].any(axis=1).sum())
        for test, weights, result in tested.rows:
            log_p = float(result.log_p[0])
            values = (result.statistic, result.beta, result.se, result.p_error)
            statistic, beta, se, error = (float("nan") if v is None else float(v[0]) for v in values)
            notes = "; ".join(x for x in (result.note, note) if x)
            yield {
                "gene": request.gene, "chromosome": request.chromosome, "start": request.start, "end": request.end,
                "trait": shared.traits[0], "mask": kept.mask, "max_maf": kept.max_maf, "weights": weights,
                "test": test, "n_studies": n_studies, "n_samples": view.group.n_samples,
                "n_variants": len(kept.in_bin), "mac": float(mac_of[kept.in_bin].sum()), "statistic": statistic,
                "beta": beta, "se": se, "p": float(np.exp(log_p)), "log10p": abs(log_p) / LN10,
                "method": result.method, "p_error": error, "note": notes, "index_variants": names,
            }  # fmt: skip
