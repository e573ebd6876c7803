"""Meta-analysis: harmonise alleles, sum U and V over studies on the union of variants, run the gene tests.

One study is a meta-analysis of one. A batch of genes is one task; it opens the bundles itself and writes three Parquet
parts (gene tests, single variants, mask audit), which `gather_results` puts together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.align import chromosome_order
from pipeline.cluster import Executor
from pipeline.config import Tests
from pipeline.errors import GENE_FAILURES, ConfigError, MatchError
from pipeline.gene_tests.acat import combine_log_p
from pipeline.gene_tests.base import ScoreStatistics, TestResult, missing_result
from pipeline.gene_tests.registry import TESTS, evaluate
from pipeline.gene_tests.step_up import SEARCHES
from pipeline.io.bundle import Bundle, StudyGene, open_once
from pipeline.io.catalogue import Catalogue, unordered_key
from pipeline.io.parts import count_rows
from pipeline.io.results import concatenate_parquet, read_parts, write_parquet, write_tsv_parts
from pipeline.kernels.tails import chi2_logsf
from pipeline.schema import DRIVERS, GENE_TESTS, MASK_AUDIT, PATHWAY_TESTS, SINGLE_VARIANTS, TableSchema
from pipeline.stages.drivers import driver_rows
from pipeline.stages.pathways import PATHWAY, make_parameters, run_pathways
from pipeline.stages.shared_burdens import (
    MODE_OF,
    advise_calibration,
    burden_correction,
    calibration_factor,
    evaluate_collapsed,
    sum_replicates,
)

Floats = NDArray[np.float64]
LN10 = float(np.log(10.0))
PARTS = ("variants", "audit", "drivers", "tests")
ALL_MASKS = "all masks"  # mask of the omnibus row
GENES_PER_TASK = 200
PAIRS_PER_TASK = 4_000_000  # entries of all information matrices of a task


@dataclass(frozen=True)
class GeneRequest:
    """One gene to test.

    Attributes:
        position, ref, alt: (k,) listed variants; empty for a region, whose variants are those of the studies.
        member: (M, k) whether each mask takes each listed variant.
        columns: numeric annotation columns (k,).
        owner: (k,) True where this gene is the first that lists the variant, so that it reports it singly.
        earlier: for a region, (start, end) of the regions before it that overlap it.
        external: (k,) external ALT frequency, NaN where the file has none; None without a file.
    """

    gene: str
    chromosome: str
    start: int
    end: int
    position: NDArray[np.int64]
    ref: NDArray[np.object_]
    alt: NDArray[np.object_]
    member: NDArray[np.bool_]
    columns: dict[str, Floats]
    owner: NDArray[np.bool_]
    is_region: bool = False
    earlier: tuple[tuple[int, int], ...] = ()
    external: Floats | None = None


@dataclass(frozen=True)
class MetaTask:
    """What travels to a worker: bundle paths, genes, and what to test."""

    number: int
    folder: Path
    bundles: tuple[Path, ...]
    genes: tuple[GeneRequest, ...]
    masks: tuple[str, ...]
    tests: Tests
    maf: str

    def part(self, name: str) -> Path:
        """Return the path of one of the task's parts."""
        return self.folder / f"{name}-{self.number:05d}.parquet"

    @property
    def is_done(self) -> bool:
        """Whether all parts are there and whole."""
        return all(count_rows(self.part(name)) >= 0 for name in PARTS)


@dataclass(frozen=True)
class TraitGroup:
    """Traits that are observed in the same sample sets of the same studies.

    Attributes:
        traits: names.
        studies: index of each study that has them.
        sample_sets: index of their sample set in each of those studies.
        n_samples: samples over the studies, per trait (the same for all).
    """

    traits: tuple[str, ...]
    studies: tuple[int, ...]
    sample_sets: tuple[int, ...]
    n_samples: int


def group_traits(bundles: Sequence[Bundle]) -> list[TraitGroup]:
    """Group the traits of all studies by the samples they are observed in.

    Raises:
        MatchError: a trait is quantitative in one study and binary in another.
    """
    kinds: dict[str, tuple[str, str]] = {}
    groups: dict[tuple[tuple[int, int], ...], list[str]] = {}
    for bundle in bundles:
        for name, trait in bundle.traits.items():
            kind, study = kinds.setdefault(name, (trait["kind"], bundle.study))
            if kind != trait["kind"]:
                raise MatchError(
                    f"trait '{name}' is {kind} in study {study} and {trait['kind']} in study {bundle.study}; "
                    f"rename one of them"
                )
    for name in kinds:
        key = tuple((k, b.sample_sets[b.traits[name]["sample_set"]]) for k, b in enumerate(bundles) if name in b.traits)
        groups.setdefault(key, []).append(name)
    out = []
    for key, names in groups.items():
        studies, sets = tuple(k for k, _ in key), tuple(s for _, s in key)
        n = sum(int(bundles[k].traits[names[0]]["n_samples"]) for k in studies)
        out.append(TraitGroup(tuple(names), studies, sets, n))
    return out


@dataclass
class UnionGene:
    """A gene over all studies, on the union of their variants; ALT is the request's.

    Attributes:
        position, ref, alt: (u,) variants present in at least one study, in the order of the request.
        listed: (u,) column of the request each came from (its own position for a region).
        studies: the study's gene, for each study that has it: (gene, place (m,) in the union, sign (m,) +1 or -1).
    """

    position: NDArray[np.int64]
    ref: NDArray[np.object_]
    alt: NDArray[np.object_]
    listed: NDArray[np.int64]
    studies: dict[int, tuple[StudyGene, NDArray[np.int64], Floats]]
    notes: list[str] = field(default_factory=list)


def unite_gene(request: GeneRequest, found: dict[int, StudyGene]) -> UnionGene:
    """Lay the variants of several studies on their union; a swapped pair of alleles turns the sign.

    Args:
        request: the gene and its listed variants, whose allele order is kept.
        found: the gene of each study that has it.
    """
    wanted = unordered_key(request.position, request.ref, request.alt)
    alt_of = dict(zip(wanted, request.alt.tolist(), strict=True))
    keys = {k: unordered_key(g.position, g.ref, g.alt) for k, g in found.items()}
    if request.is_region:
        for k, gene in found.items():
            for key, alt in zip(keys[k], gene.alt.tolist(), strict=True):
                alt_of.setdefault(key, alt)
        wanted = sorted(alt_of)
    present = set().union(*keys.values()) if keys else set()
    listed = np.array([j for j, key in enumerate(wanted) if key in present], np.int64)
    place = {wanted[j]: i for i, j in enumerate(listed)}
    studies = {}
    for k, gene in found.items():
        at = np.array([place.get(key, -1) for key in keys[k]], np.int64)
        sign = np.array([1.0 if alt_of.get(key) == alt else -1.0 for key, alt in zip(keys[k], gene.alt, strict=True)])
        studies[k] = (gene, at, sign)
    chosen = [wanted[j] for j in listed]
    alt = np.array([alt_of[key] for key in chosen], object)
    ref = np.array([b if a == x else a for (_, a, b), x in zip(chosen, alt, strict=True)], object)
    return UnionGene(np.array([key[0] for key in chosen], np.int64), ref, alt, listed, studies)


@dataclass(frozen=True)
class SharedV:
    """Traits that share V up to a factor, summed over studies, ALT counted.

    Attributes:
        traits: names (T).
        U: (T, u); V: (u, u); scale: (T,) with ``Var(U[t]) = scale[t] V``.
        per_study: (U_k, V_k, scale_k) of every study, on the union.
        replicates: (T, P, u) null scores that all studies shared; None otherwise, or when not asked for.
        note: what the rows should say.
    """

    traits: tuple[str, ...]
    U: Floats
    V: Floats
    scale: Floats
    per_study: tuple[tuple[Floats, Floats, Floats], ...]
    replicates: Floats | None = None
    note: str = ""


def sum_studies(
    bundles: Sequence[Bundle],
    union: UnionGene,
    group: TraitGroup,
    chromosome: str,
    included: dict[int, NDArray[np.bool_]],
    calibrate: bool = False,
    with_replicates: bool = False,
) -> Iterator[SharedV]:
    """Sum U and V over the studies of a trait group: ``U = sum_k U_k``, ``V = sum_k V_k``.

    Traits of one study that differ only in sigma2 come out together; otherwise one trait at a time.

    Args:
        bundles: all studies.
        union: the gene.
        group: traits and their studies.
        chromosome: the gene's chromosome.
        included: per study, (u,) which variants it may contribute (the `study` frequency policy).
        calibrate: bring V of binary traits to the calibrated variances that the studies share.
        with_replicates: sum the null replicates that the studies share.
    """
    here = [k for k in group.studies if k in union.studies]
    if len(here) == 1:
        bundle, gene = bundles[here[0]], union.studies[here[0]][0]
        together: dict[str, list[str]] = {}
        for trait in group.traits:
            info = bundle.traits[trait]
            alone = bool(gene.covariances[info["covariance"]].b.shape[1])
            together.setdefault(trait if alone else info["covariance"], []).append(trait)
        parts = [tuple(names) for names in together.values()]
    else:
        parts = [(trait,) for trait in group.traits]
    u = len(union.position)
    for traits in parts:
        per_study = []
        replicates = sum_replicates(bundles, union.studies, here, traits, u) if with_replicates else None
        note = ""
        for k in here:
            gene, at, sign = union.studies[k]
            kept = (at >= 0) & included[k][at]
            place, s = at[kept], sign[kept]
            scale = np.array([1.0 / bundles[k].sigma2(t, chromosome) for t in traits])
            U = np.zeros((len(traits), u))
            U[:, place] = gene.U[kept][:, [bundles[k].traits[t]["index"] for t in traits]].T * s
            V = np.zeros((u, u))
            K = bundles[k].information(gene, traits[0])
            if calibrate and bundles[k].traits[traits[0]]["kind"] == "binary":
                factor = calibration_factor(gene, bundles[k].traits[traits[0]]["index"], np.diag(K))
                K = K * np.outer(factor, factor)
                if gene.calibrated is None:
                    note = "not calibrated: a study shares no calibrated variances (score_statistics.calibrate: spa)"
            V[np.ix_(place, place)] = K[np.ix_(kept, kept)] * np.outer(s, s)
            per_study.append((U, V, scale))
        if len(per_study) == 1:
            yield SharedV(traits, *per_study[0], (), replicates, note)
        elif per_study:
            U = np.sum([p[0] for p in per_study], axis=0)
            V = np.sum([p[1] * p[2][0] for p in per_study], axis=0)
            yield SharedV(traits, U, V, np.ones(1), tuple(per_study), replicates, note)


@dataclass(frozen=True)
class UnionFrequency:
    """Pooled counts of a trait group on the union of variants.

    Attributes:
        alt_count, allele_number: (u,) over the studies where the variant is present.
        frequency: (u,) ALT frequency under the policy; NaN where the external file has none.
        n_studies: (u,) studies where the variant is polymorphic.
        polymorphic: (k, u) by study of the group.
    """

    alt_count: Floats
    allele_number: Floats
    frequency: Floats
    study_frequency: dict[int, Floats]

    @cached_property
    def is_polymorphic(self) -> NDArray[np.bool_]:
        """(u,) whether both alleles occur."""
        return (self.alt_count > 0) & (self.alt_count < self.allele_number)

    @cached_property
    def n_studies(self) -> NDArray[np.int64]:
        """(u,) studies in which the variant is polymorphic."""
        polymorphic = [(f > 0) & (f < 1) for f in self.study_frequency.values()]
        return np.sum(polymorphic, axis=0) if polymorphic else np.zeros(len(self.alt_count), np.int64)


def pool_frequencies(union: UnionGene, group: TraitGroup, external: Floats | None) -> UnionFrequency:
    """Pool allele counts over the studies of a trait group; ``AC / AN`` unless an external frequency is given."""
    u = len(union.position)
    count, number = np.zeros(u), np.zeros(u)
    per_study: dict[int, Floats] = {}
    for k, s in zip(group.studies, group.sample_sets, strict=True):
        if k not in union.studies:
            continue
        gene, at, sign = union.studies[k]
        kept = at >= 0
        n = 2.0 * gene.n_obs[kept, s]
        alt = np.rint(np.nan_to_num(gene.alt_frequency[kept, s]) * n)
        alt = np.where(sign[kept] > 0, alt, n - alt)
        count[at[kept]] += alt
        number[at[kept]] += n
        per_study[k] = np.full(u, np.nan)
        with np.errstate(invalid="ignore"):
            per_study[k][at[kept]] = alt / n
    with np.errstate(invalid="ignore"):
        frequency = count / number
    if external is not None:
        frequency = external[union.listed]
    return UnionFrequency(count, number, frequency, per_study)


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


def run_meta_task(task: MetaTask) -> int:
    """Test the genes of a batch and write its parts; return the number of genes that failed."""
    if task.is_done:
        return count_failed(task.part("tests"))
    bundles = [open_once(path) for path in task.bundles]
    groups = group_traits(bundles)
    genes = [bundle.read_genes(g.gene for g in task.genes) for bundle in bundles]
    rows, failed = RowCollector(), 0
    audit: list[dict[str, Any]] = []
    singles: list[pa.Table] = []
    drivers: list[dict[str, Any]] = []
    for request in task.genes:
        here = {k: found[request.gene] for k, found in enumerate(genes) if request.gene in found}
        notes = [f"{bundles[k].study}: {gene.note}" for k, gene in here.items() if gene.note]
        try:
            _run_gene(request, here, bundles, groups, task, rows, audit, singles, drivers)
        except GENE_FAILURES as error:
            notes.append(f"failed: {error or type(error).__name__}")
        failed += bool(notes)
        for group in groups if notes else []:
            for test in (name for name in task.tests.names if name not in PATHWAY):
                rows.add(
                    _failed_row(request, test, group), group.traits, missing_result(len(group.traits), "; ".join(notes))
                )
    write_parquet(task.part("variants"), pa.concat_tables(singles) if singles else SINGLE_VARIANTS.arrow.empty_table())
    write_parquet(task.part("audit"), pa.Table.from_pylist(audit, schema=MASK_AUDIT.arrow))
    write_parquet(task.part("drivers"), pa.Table.from_pylist(drivers, schema=DRIVERS.arrow))
    write_parquet(task.part("tests"), rows.table())
    return failed


def _run_gene(
    request: GeneRequest,
    here: dict[int, StudyGene],
    bundles: Sequence[Bundle],
    groups: Sequence[TraitGroup],
    task: MetaTask,
    rows: RowCollector,
    audit: list[dict[str, Any]],
    singles: list[pa.Table],
    drivers: list[dict[str, Any]],
) -> None:
    """Unite, sum and test one gene for all traits."""
    union = unite_gene(request, here)
    for group in groups:
        frequency = pool_frequencies(union, group, request.external)
        selections = list(select_variants(request, union, frequency, group, task, audit))
        included = included_variants(union, frequency, task)
        with_replicates = bool(set(task.tests.names) & set(SEARCHES))
        for shared in sum_studies(
            bundles, union, group, request.chromosome, included, task.tests.calibrate == "spa", with_replicates
        ):
            _test_gene(request, union, frequency, group, shared, selections, task, rows, bundles, drivers)
            singles.append(_single_variants(request, union, frequency, group, shared))


def count_failed(path: Path) -> int:
    """Return how many genes of a table of gene tests have a row without a mask: the row that says why they failed."""
    table = pq.read_table(path, columns=["gene", "mask"])
    return len(set(table.filter(pc.equal(table["mask"], ""))["gene"].to_pylist()))


def _failed_row(request: GeneRequest, test: str, group: TraitGroup) -> tuple[Any, ...]:
    """Return the constants of a row that says why a gene has no result."""
    place = (request.gene, request.chromosome, request.start, request.end)
    return (*place, "", float("nan"), "", test, 0, group.n_samples, 0, float("nan"))


def included_variants(union: UnionGene, frequency: UnionFrequency, task: MetaTask) -> dict[int, NDArray[np.bool_]]:
    """Return which variants each study contributes: under the `study` policy, those rare in that study."""
    if task.maf != "study":
        return {k: np.ones(len(union.position), np.bool_) for k in union.studies}
    bound = max(task.tests.max_maf)
    return {k: _bounded(f, task.tests.frequency) <= bound for k, f in frequency.study_frequency.items()}


def _bounded(frequency: Floats, rule: str) -> Floats:
    """Return the frequency that the bound applies to: minor allele (maf) or ALT (aaf).

    Lowered by rounding, since bounds are inclusive and 1 - f of a frequency at the bound may lie just above it.
    """
    return (np.minimum(frequency, 1 - frequency) if rule == "maf" else frequency) * (1 - 1e-12)


@dataclass(frozen=True)
class Selection:
    """The variants of one mask and bin: positions in the union, and which of them are under the bound."""

    mask: str
    max_maf: float
    in_bin: NDArray[np.int64]
    in_mask: NDArray[np.int64]


def select_variants(
    request: GeneRequest,
    union: UnionGene,
    frequency: UnionFrequency,
    group: TraitGroup,
    task: MetaTask,
    audit: list[dict[str, Any]],
) -> Iterator[Selection]:
    """Give the variants of every mask and bin, and write down why the others were dropped."""
    polymorphic = frequency.is_polymorphic
    bounded = _bounded(frequency.frequency, task.tests.frequency)
    for m, mask in enumerate(task.masks):
        member = np.ones(len(union.listed), np.bool_) if request.is_region else request.member[m][union.listed]
        n_listed = len(union.listed) if request.is_region else len(request.position)
        n_absent = n_listed - len(union.listed)
        not_in_mask = int((~member).sum())
        for bound in task.tests.max_maf:
            with np.errstate(invalid="ignore"):
                rare = bounded <= bound
            kept = np.flatnonzero(member & polymorphic & rare)
            audit.append(
                {
                    "gene": request.gene,
                    "mask": mask,
                    "max_maf": bound,
                    "traits": ",".join(group.traits),
                    "listed": n_listed,
                    "absent": n_absent,
                    "not_in_mask": not_in_mask,
                    "monomorphic": int((member & ~polymorphic).sum()),
                    "too_frequent": int((member & polymorphic & ~rare).sum()),
                    "kept": len(kept),
                }
            )
            yield Selection(mask, bound, kept, np.flatnonzero(member & polymorphic & ~np.isnan(bounded)))


@dataclass(frozen=True)
class Tested:
    """Results of one selection of variants, and what the tests saw."""

    rows: list[tuple[str, str, TestResult]]
    seen: dict[str, tuple[ScoreStatistics, NDArray[np.int64]]]


def _test_gene(
    request: GeneRequest,
    union: UnionGene,
    frequency: UnionFrequency,
    group: TraitGroup,
    shared: SharedV,
    selections: list[Selection],
    task: MetaTask,
    rows: RowCollector,
    bundles: Sequence[Bundle],
    drivers: list[dict[str, Any]],
) -> None:
    """Run the tests on every mask and bin; masks that select the same variants are computed once."""
    counted = CountedAllele.of(frequency, task.tests.frequency)
    genes = {k: union.studies[k][0] for k in group.studies if k in union.studies}
    known: dict[tuple[bytes, bytes, float], Tested] = {}
    collapsed: list[TestResult] = []
    sees_mask = any(name in TESTS and TESTS[name].scope == "mask" for name in task.tests.names)
    last: tuple[Any, ...] = ()
    for selection in selections:
        if not len(selection.in_bin):
            continue
        mac = float(counted.mac[selection.in_bin].sum())
        correction, note = _calibrate(shared, selection, counted, task, bundles, group, genes, mac)
        key = (selection.in_bin.tobytes(), selection.in_mask.tobytes() if sees_mask else b"", correction)
        if key not in known:
            known[key] = evaluate_selection(request, union, group, shared, selection, counted, task, correction)
        n_studies = sum(
            bool(np.any((fk[selection.in_bin] > 0) & (fk[selection.in_bin] < 1)))
            for fk in frequency.study_frequency.values()
        )
        place = (request.gene, request.chromosome, request.start, request.end)
        size = (n_studies, group.n_samples, len(selection.in_bin), mac)
        for test, weights, result in known[key].rows:
            constants = (*place, selection.mask, selection.max_maf, weights, test, *size)
            rows.add(constants, shared.traits, _with_note(result, note))
            drivers += _drivers(constants, request, union, shared, known[key], result, task)
        for test in (name for name in task.tests.names if name in MODE_OF):
            for trait, result in zip(
                shared.traits,
                evaluate_collapsed(test, bundles, genes, shared.traits, selection.mask, selection.max_maf),
                strict=True,
            ):
                rows.add((*place, selection.mask, selection.max_maf, "", test, *size), (trait,), result)
                collapsed.append(result)
        last = (place, size)
    if "omnibus" in task.tests.names and last:
        place, (n_studies, n_samples, _, _) = last
        every = np.unique(np.concatenate([s.in_bin for s in selections]))
        size = (n_studies, n_samples, len(every), float(counted.mac[every].sum()))
        constants = (*place, ALL_MASKS, max(task.tests.max_maf), "", "omnibus", *size)
        rows.add(constants, shared.traits, _combine(known, collapsed, len(shared.traits)))


def _combine(known: Mapping[Any, Tested], collapsed: list[TestResult], n_traits: int) -> TestResult:
    """Return the omnibus of a gene: every distinct row once, masks that select the same variants not again."""
    log_p = [result.log_p for tested in known.values() for _, _, result in tested.rows]
    own = np.array([float(r.log_p[0]) for r in collapsed]).reshape(-1, n_traits)
    return combine_log_p(np.array([*log_p, *own]).reshape(-1, n_traits))


def _with_note(result: TestResult, note: str) -> TestResult:
    """Return a row with a further note."""
    return replace(result, note="; ".join(x for x in (result.note, note) if x)) if note else result


@dataclass(frozen=True)
class CountedAllele:
    """Which allele the tests count: (u,) sign of ALT's score, frequency and count of the counted allele."""

    turn: Floats
    frequency: Floats
    mac: Floats

    @classmethod
    def of(cls, frequency: UnionFrequency, rule: str) -> CountedAllele:
        """Return the minor allele under `maf`, ALT under `aaf`."""
        f = frequency.frequency
        turn = np.where((f > 0.5) & (rule == "maf"), -1.0, 1.0)
        mac = np.where(turn < 0, frequency.allele_number - frequency.alt_count, frequency.alt_count)
        return cls(turn, np.where(turn < 0, 1 - f, f), mac)


def _calibrate(
    shared: SharedV,
    selection: Selection,
    counted: CountedAllele,
    task: MetaTask,
    bundles: Sequence[Bundle],
    group: TraitGroup,
    genes: Mapping[int, StudyGene],
    mac: float,
) -> tuple[float, str]:
    """Return the burden's correction r of V (1 without calibration) and what the rows of a binary trait should say."""
    trait = shared.traits[0]
    here = [k for k in group.studies if k in genes]
    if any(bundles[k].traits[trait]["kind"] != "binary" for k in here):
        return 1.0, ""
    if task.tests.calibrate != "spa":
        return 1.0, advise_calibration(bundles, here, trait, mac)
    if shared.note:
        return 1.0, shared.note
    s = counted.turn[selection.in_bin]
    information = float(s @ shared.V[np.ix_(selection.in_bin, selection.in_bin)] @ s)
    return burden_correction(bundles, genes, trait, selection.mask, selection.max_maf, information)


def evaluate_selection(
    request: GeneRequest,
    union: UnionGene,
    group: TraitGroup,
    shared: SharedV,
    selection: Selection,
    counted: CountedAllele,
    task: MetaTask,
    correction: float,
) -> Tested:
    """Run the tests that are functions of (U, V) on one selection."""
    tests = task.tests
    rows: list[tuple[str, str, TestResult]] = []
    seen: dict[str, tuple[ScoreStatistics, NDArray[np.int64]]] = {}
    for chosen, scope in ((selection.in_bin, "bin"), (selection.in_mask, "mask")):
        names = [name for name in tests.names if name in TESTS and TESTS[name].scope == scope]
        if not names:
            continue
        make = _select(shared, chosen, counted.turn, counted.frequency, counted.mac, group.n_samples)
        columns = {name: values[union.listed[chosen]] for name, values in request.columns.items()}
        statistics = make(np.isin(chosen, selection.in_bin), columns)
        if correction != 1.0:
            per_study = tuple((U, V / correction, scale) for U, V, scale in statistics.per_study)
            statistics = replace(statistics, V=statistics.V / correction, per_study=per_study)
        null = None if shared.replicates is None else shared.replicates[:, :, chosen] * counted.turn[chosen]
        rows += evaluate(
            statistics, names, tests.weights, collapse_mac=tests.collapse_mac, step_up=make_parameters(tests.step_up),
            replicates=null,
        )  # fmt: skip
        seen |= dict.fromkeys(names, (statistics, chosen))
    return Tested(rows, seen)


def _drivers(
    constants: tuple[Any, ...],
    request: GeneRequest,
    union: UnionGene,
    shared: SharedV,
    tested: Tested,
    result: TestResult,
    task: MetaTask,
) -> Iterator[dict[str, Any]]:
    """Give the rows of drivers.parquet of one row of gene tests."""
    gene, chromosome, _, _, mask, max_maf, weights, test = constants[:8]
    statistics, chosen = tested.seen[test]
    limit, mac = task.tests.drivers_p, task.tests.collapse_mac
    for t, j, columns in driver_rows(statistics, test, weights, result, limit, mac):
        v = chosen[j]
        yield {
            "gene": gene, "trait": shared.traits[t], "mask": mask, "max_maf": max_maf, "weights": weights,
            "test": test, "chromosome": chromosome, "position": int(union.position[v]), "ref": union.ref[v],
            "alt": union.alt[v], **columns,
        }  # fmt: skip


def _select(
    shared: SharedV, chosen: NDArray[np.int64], turn: Floats, counted: Floats, mac: Floats, n_samples: int
) -> Callable[[NDArray[np.bool_], dict[str, Floats]], ScoreStatistics]:
    """Return a maker of the score statistics of the chosen variants, turned to the counted allele."""
    s = turn[chosen]
    grid = np.ix_(chosen, chosen)

    def make(rare: NDArray[np.bool_], columns: dict[str, Floats]) -> ScoreStatistics:
        return ScoreStatistics(
            U=shared.U[:, chosen] * s,
            V=shared.V[grid] * np.outer(s, s),
            scale=shared.scale,
            maf=counted[chosen],
            mac=mac[chosen],
            n_samples=np.full(len(shared.traits), float(n_samples)),
            rare=rare,
            annotations=columns,
            per_study=tuple((U[:, chosen] * s, V[grid] * np.outer(s, s), scale) for U, V, scale in shared.per_study),
        )

    return make


def _single_variants(
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


def plan_tasks(
    catalogue: Catalogue,
    bundles: Sequence[Path],
    tests: Tests,
    maf: str,
    external: Floats | None,
    folder: Path,
) -> list[MetaTask]:
    """Split the genes into tasks of bounded work, in the order of chromosomes and positions."""
    c, sets = catalogue, catalogue.sets
    gene_of = np.repeat(np.arange(len(sets)), np.diff(sets.offsets))
    owner = _first_owner(c, gene_of)
    order = sorted(range(len(sets)), key=lambda i: (chromosome_order(str(sets.chromosome[i])), int(sets.start[i])))
    requests: list[list[GeneRequest]] = [[]]
    pairs = 0
    for i in order:
        low, high = int(sets.offsets[i]), int(sets.offsets[i + 1])
        cost = (high - low) ** 2
        if requests[-1] and (len(requests[-1]) >= GENES_PER_TASK or pairs + cost > PAIRS_PER_TASK):
            requests.append([])
            pairs = 0
        pairs += cost
        position = c.position[low:high]
        requests[-1].append(
            GeneRequest(
                sets.gene[i],
                sets.chromosome[i],
                int(sets.start[i]),
                int(max(sets.end[i], position.max(initial=0))),
                position,
                c.ref[low:high],
                c.alt[low:high],
                c.member[:, low:high],
                {name: values[low:high] for name, values in c.columns.items()},
                owner[low:high],
                c.is_regions,
                _earlier_regions(c, i) if c.is_regions else (),
                None if external is None else external[low:high],
            )
        )
    return [
        MetaTask(number, folder, tuple(bundles), tuple(batch), c.masks, tests, maf)
        for number, batch in enumerate(requests)
        if batch
    ]


def _first_owner(c: Catalogue, gene_of: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return (K,) True where a listed variant is listed for the first time."""
    seen: set[tuple[str, int, str, str]] = set()
    owner = np.zeros(len(c.position), np.bool_)
    for k, key in enumerate(
        zip(c.chromosome.tolist(), c.position.tolist(), c.ref.tolist(), c.alt.tolist(), strict=True)
    ):
        owner[k] = key not in seen
        seen.add(key)
    return owner


def _earlier_regions(c: Catalogue, i: int) -> tuple[tuple[int, int], ...]:
    """Return the regions listed before region i that overlap it."""
    s = c.sets
    before = (s.chromosome[:i] == s.chromosome[i]) & (s.start[:i] <= s.end[i]) & (s.end[:i] >= s.start[i])
    return tuple((int(a), int(b)) for a, b in zip(s.start[:i][before], s.end[:i][before], strict=True))


def check_genes(catalogue: Catalogue, bundles: Sequence[Bundle]) -> None:
    """Raise unless at least one gene of the catalogue is in a bundle."""
    known = set().union(*(bundle.index for bundle in bundles))
    if not known & set(catalogue.sets.gene.tolist()):
        raise MatchError(
            f"no gene of {catalogue.what} (such as '{catalogue.sets.gene[0]}') is in any study bundle (such as "
            f"'{next(iter(known), 'none')}'); genes are matched by name"
        )


def run_meta(
    tasks: Sequence[MetaTask],
    out: Path,
    executor: Executor,
    done: Callable[[], None] | None = None,
    pathways: Mapping[str, Sequence[str]] | None = None,
) -> int:
    """Run all tasks, gather their parts into the result tables, test pathways; return the number of failed genes."""
    failed = sum(executor.run(run_meta_task, tasks, done))
    gather_results(tasks, out)
    write_pathways(tasks, out, pathways or {})
    return failed


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
