"""forests.parquet and leave_one_out.parquet: burdens of the strongest genes, study by study and variant by variant.

Variants are those of the gene tests' rows, effects and p-values come from their null laws: the pooled line of a forest
is the row `burden (flat)` of gene_tests.parquet.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from locomass.config import Tests
from locomass.files.results import write_parquet
from locomass.gene_tests.base import ScoreStatistics, TestResult
from locomass.gene_tests.law import Law, law_of_sum
from locomass.gene_tests.law_effects import Effect, Heterogeneity, compare_effects
from locomass.gene_tests.law_rows import laws_of_sum
from locomass.gene_tests.law_tails import score_log_p
from locomass.gene_tests.registry import evaluate
from locomass.gene_tests.tails import chi2_logsf
from locomass.meta.gene import GeneAcrossStudies, GeneView
from locomass.meta.selection import Selection
from locomass.numbers import LN10, Floats
from locomass.schema import ALL, FORESTS, LEAVE_ONE_OUT, PERMUTATION_TESTS

Row = dict[str, Any]
Wanted = tuple[str, str, float]  # trait, mask, MAF limit

MAX_GENES = 200  # with forests: those of the smallest p-values
MAX_TRAITS = 6  # of a gene
MAX_BURDENS = 12  # masks and bins of a trait
MAX_VARIANTS = 1500  # a gene with more has no information matrix made for its forest


@dataclass
class Forests:
    """Rows of forests.parquet and of leave_one_out.parquet."""

    lines: list[Row] = field(default_factory=list)
    without: list[Row] = field(default_factory=list)

    def write(self, out: Path) -> None:
        """Write both tables."""
        write_parquet(out / FORESTS.name, pa.Table.from_pylist(self.lines, schema=FORESTS.arrow))
        write_parquet(out / LEAVE_ONE_OUT.name, pa.Table.from_pylist(self.without, schema=LEAVE_ONE_OUT.arrow))


def choose_burdens(out: Path, path: Path, masks: Sequence[str]) -> dict[str, tuple[Wanted, ...]]:
    """Return the burdens to show: of the genes with the smallest p-values the strongest traits, masks and bins.

    Args:
        out: folder of results; searches by permutation, where it has any, count among the p-values.
        path: gene_tests.parquet.
        masks: names; rows over several masks have no burden.
    """
    names = ["gene", "trait", "mask", "max_maf", "log10p"]
    table = pa.concat_tables(
        [pq.read_table(p, columns=names) for p in (path, out / PERMUTATION_TESTS.name) if p.exists()]
    )
    order = _strongest_first(table.group_by("gene", use_threads=False).aggregate([("log10p", "max")]))
    genes = order["gene"].slice(0, MAX_GENES)
    table = table.filter(pc.is_in(table["gene"], genes.combine_chunks()))
    chosen: dict[str, dict[str, list[Wanted]]] = {gene: {} for gene in genes.to_pylist()}
    best = table.group_by(names[:4], use_threads=False).aggregate([("log10p", "max")])
    for row in _strongest_first(best).to_pylist():
        traits = chosen[row["gene"]]
        if row["trait"] not in traits and len(traits) == MAX_TRAITS:
            continue
        burdens = traits.setdefault(row["trait"], [])
        if row["mask"] in masks and len(burdens) < MAX_BURDENS:
            burdens.append((row["trait"], row["mask"], row["max_maf"]))
    return {gene: wanted for gene, traits in chosen.items() if (wanted := tuple(chain(*traits.values())))}


def _strongest_first(table: pa.Table) -> pa.Table:
    """Return rows by their column log10p_max, missing ones last; ties keep their order."""
    value = np.nan_to_num(table["log10p_max"].to_numpy(zero_copy_only=False), nan=-1.0)
    return table.take(pa.array(np.argsort(-value, kind="stable")))


def add_burdens(gene: GeneAcrossStudies, wanted: Sequence[Wanted], into: Forests) -> None:
    """Add the burdens of one gene that are wanted, and vary."""
    if len(gene.union.position) > MAX_VARIANTS:
        return
    for trait, mask, bound in wanted:
        view = gene.view(trait)
        chosen = [s for s in view.selections if (s.mask, s.max_maf) == (mask, bound) and len(s.in_bin)]
        if view.studies and chosen:
            _add_burden(view, chosen[0], gene.statistics(chosen[0], trait), into)


def _add_burden(view: GeneView, selection: Selection, stats: ScoreStatistics, into: Forests) -> None:
    """Add the burden of one trait, mask and bound, if it varies."""
    tests = view.rules.tests
    firth = tests.effects == "firth"
    _, _, row = evaluate(stats, ("burden",), ("flat",), ties=tests.ties, firth=firth)[0]
    if row.beta is None or not np.isfinite(row.log_p[0]):
        return
    (trait,) = view.group.traits
    key = {"gene": view.request.gene, "trait": trait, "mask": selection.mask, "max_maf": selection.max_maf}
    names = [view.bundles[k].study for k in view.studies]
    into.lines += [{**key, **line} for line in _lines(row, stats, names, firth)]
    union = view.union
    for v, log10p in zip(selection.in_bin.tolist(), leave_out(stats, tests).tolist(), strict=True):
        variant = {"position": int(union.position[v]), "ref": union.ref[v], "alt": union.alt[v]}
        into.without.append({**key, "chromosome": view.request.chromosome, **variant, "log10p_without": log10p})


def _lines(row: TestResult, stats: ScoreStatistics, names: Sequence[str], firth: bool) -> Iterator[Row]:
    """Give the lines of one forest: every study with information, then the pooled burden."""
    parts = stats.per_study or ((stats.U, stats.V, stats.scale),)
    U = [float(U_k[0].sum()) for U_k, _, _ in parts]
    V = np.array([float(V_k.sum() * scale[0]) for _, V_k, scale in parts])
    law = laws_of_sum(stats, np.ones(stats.n_variants))[0] or _normal_law(V)
    between = compare_effects(law, U, firth)
    for name, effect, (_, V_k, _), v in zip(names, between.effects, parts, V, strict=True):
        if v > 0:
            yield {"study": name, "n_variants": int(np.count_nonzero(np.diag(V_k) > 0)), **_estimate(effect)}
    assert row.beta is not None
    assert row.se is not None
    assert row.ci_low is not None
    assert row.ci_high is not None
    pooled = Effect(float(row.beta[0]), float(row.se[0]), float(row.ci_low[0]), float(row.ci_high[0]))
    figures = {"log10p": -float(row.log_p[0]) / LN10, **_heterogeneity(between)}
    yield {"study": ALL, "n_variants": stats.n_variants, **_estimate(pooled), **figures}


def _estimate(effect: Effect) -> Row:
    """Return the columns of an effect."""
    return {"beta": effect.beta, "se": effect.se, "ci_low": effect.low, "ci_high": effect.high}


def _heterogeneity(between: Heterogeneity) -> Row:
    """Return Q and I2; NaN with fewer than two studies."""
    q = between.q if between.df else float("nan")
    return {"q": q, "i2": max(0.0, 1 - between.df / q) if q > 0 else float("nan")}


def _normal_law(V: Floats) -> Law:
    """Return the law of a score that is taken for normal, of variance V (k,) in every study."""
    nothing = np.empty(0)
    return Law(np.zeros(len(V) + 1, np.int64), nothing, nothing, nothing, V, (None,) * len(V))


def leave_out(stats: ScoreStatistics, tests: Tests) -> Floats:
    """Return (k,) -log10 p of the burden without each variant, from its law; NaN where nothing is left."""
    U, V = stats.U[0], stats.V * stats.scale[0]
    score, variance = float(U.sum()), float(V.sum())
    rest = variance - 2 * V.sum(axis=0) + np.diag(V)
    left = rest > 1e-12 * variance  # nothing is left without the only informative variant
    z2 = np.divide((score - U) ** 2, rest, out=np.zeros_like(rest), where=left)
    log_p = chi2_logsf(np.ascontiguousarray(z2))
    for j in np.flatnonzero(left) if stats.laws else ():
        w = np.ones(len(U))
        w[j] = 0.0
        law = law_of_sum(stats.laws[0], w)
        if law.step.size:
            log_p[j] = score_log_p(law, float(w @ U), tests.ties)[0]
    return np.where(left, -log_p / LN10, np.nan)
