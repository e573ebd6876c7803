"""How studies differ, gene by gene: heterogeneity of effects, frequency classes, and what each study has sequenced."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from locomass.files.results import concatenate_parquet, write_parquet
from locomass.gene_tests.heterogeneity import cochran_q, log_chi2_tail, mean_and_variance_test
from locomass.gene_tests.law import gather_variants
from locomass.gene_tests.tails import chi2_logsf
from locomass.gene_tests.weights import compute_weights
from locomass.genotypes.products import burden_variances
from locomass.meta.collect import reported_variants
from locomass.meta.gene import GeneView
from locomass.meta.laws import Groups, UnionCarriers, compare_studies, gather_sums
from locomass.meta.selection import bounded_frequency
from locomass.meta.tasks import MetaTask
from locomass.numbers import LN10, Floats
from locomass.schema import COVERAGE, HETEROGENEITY, VARIANT_CLASSES, TableSchema

TABLES = (HETEROGENEITY, VARIANT_CLASSES, COVERAGE)
SURE_COUNT = 5.0  # minor alleles elsewhere from which a frequency is taken as known
LEAST_EXPECTED, LARGEST_SHARE, LEAST_Z = 3.0, 0.5, 4.0  # of a gene that a study has not sequenced like the others


class Blocks:
    """Rows of one table, gathered as blocks of columns; a scalar stands for a whole column of its block."""

    def __init__(self, schema: TableSchema) -> None:
        self.schema = schema
        self._columns: dict[str, list[NDArray[Any]]] = {c.name: [] for c in schema.columns}

    def add(self, n: int, **columns: Any) -> None:
        """Add n rows."""
        for name, parts in self._columns.items():
            value = columns[name]
            whole = np.empty(n, object if isinstance(value, str) else np.asarray(value).dtype)
            whole[:] = value
            parts.append(whole)

    def table(self) -> pa.Table:
        """Return all rows."""
        if not next(iter(self._columns.values())):
            return self.schema.arrow.empty_table()
        arrays = [
            pa.array(np.concatenate(self._columns[c.name]), c.type, from_pandas=False) for c in self.schema.columns
        ]
        return pa.table(arrays, schema=self.schema.arrow)


@dataclass
class BetweenStudies:
    """What a task found about differences between studies."""

    heterogeneity: Blocks = field(default_factory=lambda: Blocks(HETEROGENEITY))
    classes: Blocks = field(default_factory=lambda: Blocks(VARIANT_CLASSES))
    coverage: Blocks = field(default_factory=lambda: Blocks(COVERAGE))

    def write(self, task: MetaTask) -> list[Path]:
        """Write the parts of a task; return their paths."""
        for schema, blocks in zip(TABLES, (self.heterogeneity, self.classes, self.coverage), strict=True):
            write_parquet(part_of(task, schema), blocks.table())
        return [part_of(task, schema) for schema in TABLES]

    def add(self, view: GeneView, carriers: Mapping[str, tuple[UnionCarriers, ...]]) -> None:
        """Add the rows of one gene and trait group; ``carriers``: of the traits whose effects are odds ratios."""
        if len(view.group.studies) < 2:
            return
        self._add_coverage(view)
        self._add_classes(view)
        for trait in view.group.traits:
            scores = lay_scores(view, trait)
            known = carriers.get(trait, ())
            self._add_variants(view, trait, scores, known)
            if "burden" in view.rules.tests.names:
                self._add_burdens(view, trait, scores, known)

    def _add_variants(
        self, view: GeneView, trait: str, scores: tuple[Floats, Floats], known: tuple[UnionCarriers, ...]
    ) -> None:
        """Add the variants that this gene reports and at least two studies tell something of."""
        (U, v), union, request = scores, view.union, view.request
        at = np.flatnonzero(reported_variants(request, union) & ((v > 0).sum(axis=0) > 1))
        if not len(at):
            return
        people = [own.carriers for own in known]
        self.heterogeneity.add(
            len(at),
            gene=request.gene,
            trait=trait,
            mask="",
            max_maf=np.nan,
            weights="",
            chromosome=request.chromosome,
            position=union.position[at],
            ref=union.ref[at],
            alt=union.alt[at],
            **_effects(
                view,
                U[:, at],
                v[:, at],
                lambda: gather_variants(people, at, U.shape[1]),
                known,
            ),
        )

    def _add_burdens(
        self, view: GeneView, trait: str, scores: tuple[Floats, Floats], known: tuple[UnionCarriers, ...]
    ) -> None:
        """Add the burdens of all masks, bins and weights that vary in at least two studies."""
        request, union, counted = view.request, view.union, view.counted
        rows = [(s, scheme) for s in view.selections if len(s.in_bin) for scheme in view.rules.tests.weights]
        w = np.zeros((len(view.studies), len(union.position), len(rows)))
        for c, (selection, scheme) in enumerate(rows):
            j, included = selection.in_bin, view.limits[selection.max_maf].included
            columns = {name: values[union.listed[j]] for name, values in request.columns.items()}
            w[:, j, c] = compute_weights(scheme, counted.frequency[j], columns) * counted.turn[j]
            if included is not None:
                w[:, :, c] *= included
        if not len(rows):
            return
        U, v = np.einsum("ku,kuc->kc", scores[0], w), sum_variances(view, trait, w)
        at = np.flatnonzero(np.isfinite(w).all(axis=(0, 1)) & ((v > 0).sum(axis=0) > 1))
        if not len(at):
            return
        self.heterogeneity.add(
            len(at),
            gene=request.gene,
            trait=trait,
            mask=np.array([rows[c][0].mask for c in at], object),
            max_maf=np.array([rows[c][0].max_maf for c in at]),
            weights=np.array([rows[c][1] for c in at], object),
            chromosome=request.chromosome,
            position=request.start,
            ref="",
            alt="",
            **_effects(view, U[:, at], v[:, at], lambda: gather_sums(known, w[:, :, at]), known),
        )

    def _add_classes(self, view: GeneView) -> None:
        """Add variants that are rare in one study, or pooled, and not rare in another one."""
        union, frequency, tests = view.union, view.frequency, view.rules.tests
        by_study, pooled = (bounded_frequency(f, tests.frequency) for f in (frequency.by_study, frequency.frequency))
        names = [view.bundles[k].study for k in frequency.studies]
        for bound in tests.max_maf:
            common = frequency.varies & (by_study > bound)
            rare = frequency.varies & (by_study <= bound)
            at = np.flatnonzero(common.any(axis=0) & (rare.any(axis=0) | (pooled <= bound)))
            if not len(at):
                continue
            where = [",".join(n for n, yes in zip(names, common[:, j], strict=True) if yes) for j in at]
            f = frequency.by_study[:, at]
            self.classes.add(
                len(at),
                gene=view.request.gene,
                traits=",".join(view.group.traits),
                chromosome=view.request.chromosome,
                position=union.position[at],
                ref=union.ref[at],
                alt=union.alt[at],
                max_maf=bound,
                alt_frequency=frequency.frequency[at],
                is_rare=pooled[at] <= bound,
                n_rare=rare[:, at].sum(axis=0),
                n_not_rare=common[:, at].sum(axis=0),
                n_absent=len(view.group.studies) - frequency.n_studies[at],
                smallest=np.nanmin(f, axis=0),
                largest=np.nanmax(f, axis=0),
                not_rare_in=np.array(where, object),
            )

    def _add_coverage(self, view: GeneView) -> None:
        """Add how many of the gene's variants each study has, and how many it would have with the others' capture."""
        has, minor, chromosomes = count_minor(view)
        groups, studies = view.rules.groups, view.group.studies
        labels = np.array([groups[k] if groups else "" for k in studies], object)
        expected, found, z = expect_variants(has, minor, chromosomes, labels)
        with np.errstate(invalid="ignore"):
            flagged = (expected >= LEAST_EXPECTED) & (found < LARGEST_SHARE * expected) & (z > LEAST_Z)
        n, u = has.shape
        self.coverage.add(
            n,
            gene=view.request.gene,
            traits=",".join(view.group.traits),
            study=np.array([view.bundles[k].study for k in studies], object),
            n_union=u,
            n_present=has.sum(axis=1),
            n_absent=u - has.sum(axis=1),
            n_varying=(minor > 0).sum(axis=1),
            n_sure=found,
            n_expected=expected,
            flag=np.where(flagged, "sequenced differently, or another ancestry", "").astype(object),
        )


def _effects(
    view: GeneView, U: Floats, v: Floats, groups: Callable[[], Groups], known: tuple[UnionCarriers, ...]
) -> dict[str, Any]:
    """Return the columns of heterogeneity.parquet of sums of variants: of odds ratios where carriers are known."""
    tests = view.rules.tests
    columns = describe_effects(U, v, _labels(view), "random-effects" in tests.names)
    if not known or any(own.carriers.mu is None for own in known):
        return columns
    b, se, log_p, S, information = compare_studies(groups(), U, v, tests)
    finite = np.isfinite(S).all(axis=0)
    apart = describe_effects(np.where(finite, S, 0.0), np.where(finite, information, v), _labels(view), False)
    differ = ("q", "df", "log10p_q", "i2", "q_between", "df_between", "log10p_between", "log10p_within")
    return columns | {
        "beta": b,
        "se": se,
        "log10p": np.abs(log_p) / LN10,
        **{name: np.where(finite, apart[name], np.nan) for name in differ},
    }


def _labels(view: GeneView) -> list[str]:
    """Return the group of every study that has the gene; nothing without groups."""
    return [view.rules.groups[k] for k in view.frequency.studies] if view.rules.groups else []


def part_of(task: MetaTask, schema: TableSchema) -> Path:
    """Return the path of a task's part of a table."""
    return task.part(Path(schema.name).stem)


def gather_between(tasks: Sequence[MetaTask], out: Path) -> None:
    """Write the tables from the parts; those of an earlier run go where there is one study only."""
    for schema in TABLES:
        if tasks and len(tasks[0].bundles) > 1:
            concatenate_parquet([part_of(t, schema) for t in tasks], schema.arrow, out / schema.name)
        else:
            (out / schema.name).unlink(missing_ok=True)


def lay_scores(view: GeneView, trait: str) -> tuple[Floats, Floats]:
    """Return U and V_jj of every study on the union, (K, u) each; zero where the study lacks the variant."""
    shape = len(view.frequency.studies), len(view.union.position)
    U, v = np.zeros(shape), np.zeros(shape)
    for i, k in enumerate(view.frequency.studies):
        gene, at, sign = view.union.studies[k]
        kept, t = at >= 0, view.bundles[k].traits[trait]["index"]
        U[i, at[kept]] = gene.U[kept, t] * sign[kept]
        v[i, at[kept]] = gene.V[kept, t]
    return U, v


def sum_variances(view: GeneView, trait: str, w: Floats) -> Floats:
    """Return w_k'V_k w_k of every study and column of w (K, u, C), (K, C)."""
    out = np.zeros((w.shape[0], w.shape[2]))
    for i, k in enumerate(view.frequency.studies):
        gene, at, sign = view.union.studies[k]
        bundle, weights = view.bundles[k], np.where((at >= 0)[:, None], w[i, at] * sign[:, None], 0.0)
        c, rows = bundle.projections(gene, trait)
        sigma2 = bundle.sigma2(trait, view.request.chromosome)
        out[i] = burden_variances(weights, c.row, c.column, c.value, rows) / sigma2
    return out


def describe_effects(U: Floats, v: Floats, labels: Sequence[str], random: bool) -> dict[str, Any]:
    """Return the columns of heterogeneity.parquet that follow from (K, C) scores and variances.

    Between groups, Q is that of the groups' sums; within them, the rest: ``Q = Q_between + sum_g Q_g`` (Cochran 1954).
    """
    total, score = v.sum(axis=0), U.sum(axis=0)
    every = cochran_q(U, v)
    nan = np.full(U.shape[1], np.nan)
    columns: dict[str, Any] = {
        "n_studies": (v > 0).sum(axis=0),
        "beta": score / total,
        "se": 1 / np.sqrt(total),
        "log10p": -chi2_logsf(score**2 / total) / LN10,
        "q": every.q,
        "df": every.df,
        "log10p_q": -every.log_p / LN10,
        "i2": every.i2,
        "q_between": nan,
        "df_between": nan,
        "log10p_between": nan,
        "log10p_within": nan,
        "log10p_random": nan,
    }
    if len(labels):
        member = np.array([[g == label for label in labels] for g in dict.fromkeys(labels)], np.float64)
        between = cochran_q(member @ U, member @ v)
        within = log_chi2_tail(np.maximum(every.q - between.q, 0.0), every.df - between.df)
        columns |= {
            "q_between": between.q,
            "df_between": between.df,
            "log10p_between": -between.log_p / LN10,
            "log10p_within": -within / LN10,
        }
    if random:
        tests = [mean_and_variance_test(U[seen, c], v[seen, c])[1] for c, seen in enumerate((v > 0).T)]
        columns["log10p_random"] = -np.array(tests) / LN10
    return columns


def count_minor(view: GeneView) -> tuple[NDArray[np.bool_], Floats, Floats]:
    """Return what each study of a group has of a gene.

    Returns:
        (K, u) whether it has the variant, (K, u) its count of the allele that is minor over all studies, and (K,) its
        chromosomes.
    """
    frequency, group, bundles = view.frequency, view.group, view.bundles
    trait = group.traits[0]
    chromosomes = np.array([2.0 * bundles[k].traits[trait]["n_samples"] for k in group.studies])
    by_study = np.full((len(group.studies), len(frequency.alt_count)), np.nan)
    row = [group.studies.index(k) for k in frequency.studies]
    by_study[row] = frequency.by_study
    has = ~np.isnan(by_study)
    flipped = 2 * frequency.alt_count > frequency.allele_number
    f = np.where(has, np.where(flipped, 1 - by_study, by_study), 0.0)
    return has, np.rint(f * chromosomes[:, None]), chromosomes


def expect_variants(
    has: NDArray[np.bool_], minor: Floats, chromosomes: Floats, labels: NDArray[np.object_]
) -> tuple[Floats, NDArray[np.int64], Floats]:
    """Compare each study's list of variants with what the other studies of its group let one expect.

    A variant with at least five minor alleles elsewhere, at frequency f there (studies that lack it count as having
    none), is seen among 2n chromosomes with probability ``p = 1 - (1 - f)^2n``.

    Args:
        has: (K, u) whether the study has the variant.
        minor: (K, u) minor alleles; chromosomes: (K,) 2n.
        labels: (K,) group of each study; frequencies differ between groups.

    Returns:
        (K,) variants expected ``sum p``, those of them that are there, and ``(expected - there) / max(1, sd)``.
    """
    same = (labels[:, None] == labels[None, :]).astype(np.float64)
    np.fill_diagonal(same, 0.0)
    elsewhere, size = same @ minor, same @ chromosomes
    sure = elsewhere >= SURE_COUNT
    f = np.where(sure, elsewhere / np.maximum(size, 1.0)[:, None], 0.0)
    seen = -np.expm1(chromosomes[:, None] * np.log1p(-np.minimum(f, 0.5)))
    expected, found = seen.sum(axis=1), (has & sure).sum(axis=1)
    sd = np.sqrt((seen * (1 - seen)).sum(axis=1))
    return expected, found, (expected - found) / np.maximum(sd, 1.0)
