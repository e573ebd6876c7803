"""Conditional analysis from study bundles: gene tests with index variants regressed out of (U, V).

Shared statistics hold V within a gene's variants only, so an index variant must be listed in the gene's own set
(whatever its frequency or mask: the bundle keeps all variants up to `score_statistics.max_maf`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from locomass.bundle.study import open_once
from locomass.config import Tests
from locomass.errors import MatchError
from locomass.executors import Executor
from locomass.files.results import write_parquet
from locomass.gene_tests.base import NORMAL_SCORES, TestResult
from locomass.gene_tests.conditional import condition_scores, select_index_variants
from locomass.gene_tests.registry import TESTS
from locomass.meta.evaluate import evaluate_selection
from locomass.meta.gene import GeneAcrossStudies, GeneView, open_genes
from locomass.meta.hidden import add_hidden
from locomass.meta.sums import SharedV, take_trait
from locomass.meta.tasks import MetaTask, plan_tasks
from locomass.meta.unite import TraitGroup
from locomass.numbers import GENOME_WIDE, LN10, LOG_GENOME_WIDE, Floats
from locomass.schema import CONDITIONAL
from locomass.tables.catalogue import Catalogue
from locomass.variants.identity import variant_keys
from locomass.variants.keys import parse_variant_keys

log = logging.getLogger("locomass")

Key = tuple[str, int, str, str]


@dataclass(frozen=True)
class IndexRule:
    """Which variants are regressed out.

    Attributes:
        keys: (chromosome, position, allele, allele) of the variants given; None selects them per gene and trait.
        max_log_p: natural logarithm of the largest conditional p that lets a variant in, when they are selected.
    """

    keys: frozenset[Key] | None
    max_log_p: float = LOG_GENOME_WIDE


def run_conditional(
    bundles: Sequence[Path],
    catalogue: Catalogue,
    tests: Tests,
    index: Sequence[str] | Literal["auto"],
    out: Path,
    maf: str = "joint",
    max_p: float = GENOME_WIDE,
    *,
    external: Floats | None = None,
    singleton: NDArray[np.bool_] | None = None,
    studies: tuple[str, ...] = (),
    executor: Executor | None = None,
    done: Callable[[], None] | None = None,
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
        singleton: whether the external file calls each listed variant a singleton, where that is asked for.
        studies: the group of every study (key `groups`), where there are groups.
        executor: where batches of genes run, as those of the meta-analysis do; here, one after the other, when None.
        done: called after each batch.

    Raises:
        MatchError: an index variant is not named as expected, or none is in any gene's set.
    """
    rule = IndexRule(None, float(np.log(max_p))) if index == "auto" else IndexRule(parse_index(index))
    own = msgspec.structs.replace(tests, names=[name for name in tests.names if name in TESTS])
    planned = plan_tasks(catalogue, [Path(b).resolve() for b in bundles], own, maf, external, out, studies, singleton)
    planned = add_hidden(planned, catalogue, [open_once(Path(b).resolve()) for b in bundles])
    tasks = [ConditionalTask(task=task, rule=rule) for task in planned]
    run = executor.run if executor is not None else lambda function, items, _: list(map(function, items))
    parts = run(condition_genes, tasks, done)
    rows = [row for part in parts for row in part]
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


def parse_index(names: Sequence[str]) -> frozenset[Key]:
    """Return index variants by chromosome and key (`variant_keys`).

    Raises:
        MatchError: a name is not chromosome:position:ref:alt.
    """
    keys = parse_variant_keys(list(names)).key
    out = set()
    for name, key in zip(names, keys, strict=True):
        if not key:
            raise MatchError(f"index variant '{name}' is not named chromosome:position:ref:alt")
        chromosome, position, ref, alt = key.split(":", 3)
        place = np.array([int(position)])
        out.add((chromosome, *variant_keys(place, np.array([ref], object), np.array([alt], object))[0]))
    return frozenset(out)


@dataclass(frozen=True, kw_only=True)
class ConditionalTask:
    """What travels to a worker: a batch of genes, and which of their variants are regressed out."""

    task: MetaTask
    rule: IndexRule


def condition_genes(task: ConditionalTask) -> list[dict[str, Any]]:
    """Return the conditional rows of a batch of genes."""
    bundles = [open_once(path) for path in task.task.bundles]
    genes = open_genes(task.task.genes, bundles, task.task.rules)
    return [row for gene in genes for row in condition_gene(gene, task.rule)]


def condition_gene(gene: GeneAcrossStudies, rule: IndexRule) -> Iterator[dict[str, Any]]:
    """Give the conditional rows of one gene, trait by trait.

    Index variants are chosen and regressed out with what all studies know of them, whatever the frequency policy:
    under `study` it bounds the variants that are tested. A study that does not have an index variant cannot be
    conditioned on it: its scores would bring the index's effect back, so that it is left out of the rows.
    """
    for view in gene.views:
        for shared in view.sums(with_studies=True):
            for t in range(len(shared.traits)):
                alone = take_trait(shared, t)
                index = find_index(rule, view, alone)
                if not len(index):
                    continue
                lacking = [k for k in view.studies if not np.isin(index, view.union.studies[k][1]).all()]
                if len(lacking) == len(view.studies):
                    continue
                seen, names = view, ", ".join(view.bundles[k].study for k in lacking)
                if lacking:
                    seen = _without_studies(view, alone.traits[0], lacking)
                    alone = _sum_trait(seen, alone.traits, None)
                note = f"without {names}: no index variant there" if lacking else ""
                yield from _rows(seen, alone, index, note)


def _without_studies(view: GeneView, trait: str, lacking: Sequence[int]) -> GeneView:
    """Return the view of one trait over the other studies."""
    pairs = zip(view.group.studies, view.group.sample_sets, strict=True)
    studies, sample_sets = zip(*((k, s) for k, s in pairs if k not in lacking), strict=True)
    n_samples = sum(int(view.bundles[k].traits[trait]["n_samples"]) for k in studies)
    return replace(view, group=TraitGroup((trait,), studies, sample_sets, n_samples))


def _sum_trait(view: GeneView, traits: tuple[str, ...], included: NDArray[np.bool_] | None) -> SharedV:
    """Return the sums of one trait over what each study contributes; None: all that it has."""
    return next(replace(view, group=replace(view.group, traits=traits)).sums(with_studies=True, included=included))


def _condition_by_limit(
    view: GeneView, shared: SharedV, index: NDArray[np.intp]
) -> dict[float, tuple[SharedV, NDArray[np.bool_]]]:
    """Return, for every MAF limit, the statistics given the index variants, and which variants are left.

    Studies contribute the index variants whatever the limit.
    """
    known: dict[bytes, tuple[SharedV, NDArray[np.bool_]]] = {}
    out = {}
    for bound, limit in view.limits.items():
        included = limit.included
        if included is not None:
            included = included.copy()
            included[:, index] = True
        key = b"" if included is None else included.tobytes()
        if key not in known:
            own = shared if included is None else _sum_trait(view, shared.traits, included)
            known[key] = condition_shared(view.by_group(own), index)
        out[bound] = known[key]
    return out


def find_index(rule: IndexRule, view: GeneView, shared: SharedV) -> NDArray[np.intp]:
    """Return the positions of a gene's index variants for one trait."""
    if rule.keys is None:
        polymorphic, scale = view.frequency.is_polymorphic, float(shared.scale[0])
        return select_index_variants(
            shared.U[0], shared.V, scale, candidates=polymorphic, max_log_p=rule.max_log_p
        ).index
    chromosome, union = view.request.chromosome, view.union
    keys = variant_keys(union.position, union.ref, union.alt)
    return np.array([j for j, (p, a, b) in enumerate(keys) if (chromosome, p, a, b) in rule.keys], np.intp)


def condition_shared(shared: SharedV, index: NDArray[np.intp]) -> tuple[SharedV, NDArray[np.bool_]]:
    """Return the statistics given the index variants, and which variants are left."""
    U, V, left = condition_scores(shared.U, shared.V, index)
    per_study = []
    for U_k, V_k, scale_k in shared.per_study:
        left_U, left_V, _ = condition_scores(U_k, V_k, index)
        per_study.append((left_U, left_V, scale_k))
    return replace(
        shared,
        U=U,
        V=V,
        variance=np.diag(V).copy(),
        per_study=tuple(per_study),
        replicates=None,
        calibrated=False,
        carriers=(),
    ), left


def _rows(view: GeneView, shared: SharedV, index: NDArray[np.intp], left_out: str) -> Iterator[dict[str, Any]]:
    """Give the conditional rows of one gene and trait; ``left_out`` says which studies have no part in them."""
    request, union = view.request, view.union
    by_limit = _condition_by_limit(view, shared, index)
    names = ",".join(f"{request.chromosome}:{union.position[j]}:{union.ref[j]}:{union.alt[j]}" for j in index)
    for selection in view.selections:
        (conditioned, left), limit = by_limit[selection.max_maf], view.limits[selection.max_maf]
        in_bin, in_mask = (chosen[left[chosen]] for chosen in (selection.in_bin, selection.in_mask))
        if not len(in_bin):
            continue
        kept = replace(selection, in_bin=in_bin, in_mask=in_mask)
        note = shared.note or (NORMAL_SCORES if shared.calibrated else "")
        for test, weights, result in evaluate_selection(view, conditioned, kept).rows:
            yield {
                **dict(zip(("gene", "chromosome", "start", "end"), request.place, strict=True)),
                "trait": shared.traits[0],
                "mask": kept.mask,
                "max_maf": kept.max_maf,
                "weights": weights,
                "test": test,
                "n_studies": limit.n_studies(in_bin),
                "n_samples": view.group.n_samples,
                "n_variants": len(in_bin),
                "mac": float(limit.mac[in_bin].sum()),
                **_result_columns(result, "; ".join(x for x in (left_out, note) if x)),
                "index_variants": names,
            }


def _result_columns(result: TestResult, note: str) -> dict[str, Any]:
    """Return the columns of the result of one trait."""
    log_p = float(result.log_p[0])
    values = {name: getattr(result, name) for name in ("statistic", "beta", "se", "p_error")}
    return {
        **{name: float("nan") if v is None else float(v[0]) for name, v in values.items()},
        "p": float(np.exp(log_p)),
        "log10p": abs(log_p) / LN10,
        "method": result.method,
        "note": "; ".join(x for x in (result.note, note) if x),
        "choice": result.choices()[0],
    }
