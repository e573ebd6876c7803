"""Scoring: per-allele weights of several traits, one pass over a fileset, summed per chromosome."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from locomass.errors import MatchError
from locomass.executors import Executor
from locomass.genotypes.base import GenotypeRows
from locomass.genotypes.fileset import Fileset
from locomass.numbers import Floats
from locomass.people import match_samples
from locomass.predict.hygiene import UNPLACED, describe_unplaced, find_loco_chromosomes
from locomass.predict.kept import Kept
from locomass.run.provenance import digest_arrays
from locomass.tables.cohort import Cohort
from locomass.variants.chromosomes import chromosome_order
from locomass.variants.match import Frequencies, match_variants
from locomass_predictors.base import PredictorError
from locomass_predictors.harmonise import VariantTable, harmonise

ROWS_AT_ONCE = 1024  # variants decoded to dense dosages at a time
MIN_COVERAGE, WANTED_COVERAGE = 0.5, 0.75


@dataclass(frozen=True)
class Scores:
    """Polygenic scores of the analysed samples, per chromosome.

    Attributes:
        chromosomes: labels (C).
        traits: names (T).
        values: (C, n, T); NaN where a sample is not genotyped.
        record: per trait, what the report states.
        messages: warnings for the log.
    """

    chromosomes: tuple[str, ...]
    traits: tuple[str, ...]
    values: Floats
    record: dict[str, dict[str, Any]] = field(default_factory=dict)
    messages: tuple[str, ...] = ()


@dataclass(frozen=True)
class FittedWeights:
    """Per-allele weights of several traits.

    Attributes:
        chromosome, position, effect_allele, other_allele, id: (m,) labels; other allele '' where unknown.
        frequency: (m,) of the effect allele; NaN where unknown.
        weights: (m, T).
        traits: names (T).
        record: per trait.
    """

    chromosome: NDArray[np.object_]
    position: NDArray[np.int64]
    effect_allele: NDArray[np.object_]
    other_allele: NDArray[np.object_]
    id: NDArray[np.object_]
    frequency: Floats
    weights: Floats
    traits: tuple[str, ...]
    record: dict[str, dict[str, Any]]
    messages: tuple[str, ...]

    def take(self, rows: NDArray[np.int64]) -> FittedWeights:
        """Return some of the variants."""
        names = ("chromosome", "position", "effect_allele", "other_allele", "id", "frequency", "weights")
        return dataclasses.replace(self, **{name: getattr(self, name)[rows] for name in names})

    def find_in(self, target: Fileset) -> tuple[NDArray[np.int64], Floats]:
        """Return each weight's variant in a fileset (-1: absent) and its sign (+1: the effect allele is A1)."""
        return _find_variants(self, target)


def score_weights(
    fitted: FittedWeights, target: Fileset, cohort: Cohort, name: str, executor: Executor, kept: Kept
) -> Scores:
    """Score a fileset with fitted weights and lay the scores on the cohort's samples.

    Coverage is the share of ``sum w^2 sd^2`` that the fileset has; a weight of unknown frequency counts with the mean
    variance of the matched ones.

    Raises:
        MatchError: coverage is below 50 %, or no sample is shared.
    """
    row, sign = fitted.find_in(target)
    label = np.where(row >= 0, find_loco_chromosomes(_labels(target))[np.maximum(row, 0)], UNPLACED)
    unplaced = (row >= 0) & (label == UNPLACED)
    row = np.where(unplaced, -1, row)
    found = row >= 0
    chromosomes, values, variance = _score_traits(fitted, label, row, sign, target, executor, kept)
    coverage = _coverage(fitted, found, variance)
    messages = [*fitted.messages, *filter(None, [describe_unplaced(int(unplaced.sum()), name)])]
    record = {}
    for k, trait in enumerate(fitted.traits):
        record[trait] = {
            **fitted.record[trait],
            "coverage": float(coverage[k]),
            "scored": int(found.sum()),
            "unplaced": int(unplaced.sum()),
        }
        if coverage[k] < MIN_COVERAGE:
            raise MatchError(
                f"trait '{trait}': {name} has only {coverage[k]:.0%} of the predictor's variance (sum w^2 sd^2; "
                f"{int(found.sum()):,} of {len(row):,} variants); at least {MIN_COVERAGE:.0%} is needed: is it on the "
                f"same genome build?"
            )
        if coverage[k] < WANTED_COVERAGE:
            messages.append(f"trait '{trait}': only {coverage[k]:.0%} of the predictor's variance is in {name}")
    laid, absent = lay_on_cohort(values, target, cohort)
    if absent:
        messages.append(f"{absent:,} analysed samples are not in {name} and are left out")
    return Scores(tuple(chromosomes), fitted.traits, laid, record, tuple(messages))


def _score_traits(
    fitted: FittedWeights,
    label: NDArray[np.object_],
    row: NDArray[np.int64],
    sign: Floats,
    target: Fileset,
    executor: Executor,
    kept: Kept,
) -> tuple[list[str], Floats, Floats]:
    """Score the traits whose scores are not kept, in one pass over the fileset.

    Args:
        fitted: weights.
        label: (m,) the chromosome that leaves each out.
        row, sign: (m,) their variants in the fileset, -1 where absent.
        target: the fileset.
        executor: where tasks run.
        kept: scores of an earlier run.

    Returns:
        Chromosomes (C), scores (C, N, T) of all samples of the fileset, and the variance of every variant (m,), NaN
        where it is absent.
    """
    chromosomes = sorted(set(label[row >= 0]), key=chromosome_order)
    here = [np.flatnonzero(label == chromosome) for chromosome in chromosomes]
    here = [rows[np.argsort(row[rows], kind="stable")] for rows in here]
    files = [kept.digest(path) for path in target.paths]
    keys = [[files, digest_arrays(row, sign, weights)] for weights in fitted.weights.T]
    pieces = [kept.recall("scores", key) for key in keys]
    fresh = [k for k, piece in enumerate(pieces) if piece is None]
    if fresh:
        weights = fitted.weights[:, fresh] * sign[:, None]
        tasks = [make_score_task(target, row[rows], weights[rows]) for rows in here]
        results = executor.run(score_task, tasks)
        variance = np.full(len(row), np.nan)
        for rows, (_, frequency) in zip(here, results, strict=True):
            variance[rows] = 2 * frequency * (1 - frequency)
        for place, k in enumerate(fresh):
            scores = np.stack([score[:, place] for score, _ in results])
            pieces[k] = kept.keep("scores", keys[k], {"scores": scores, "variance": variance})
    arrays = [piece[0] for piece in pieces if piece is not None]
    return chromosomes, np.stack([a["scores"] for a in arrays], axis=2), arrays[0]["variance"]


def lay_on_cohort(values: Floats, target: Fileset, cohort: Cohort) -> tuple[Floats, int]:
    """Return (C, n, T) values of the cohort's samples from those of a fileset, and how many it lacks (NaN)."""
    at = match_samples(cohort.fid, cohort.iid, target.fid, target.iid, target.name)
    out = np.full((values.shape[0], len(at), values.shape[2]), np.nan)
    out[:, at >= 0] = values[:, at[at >= 0]]
    return out, int((at < 0).sum())


def _labels(target: Fileset) -> NDArray[np.object_]:
    return target.variants["chromosome"].astype(str).to_numpy(object)


def _find_variants(fitted: FittedWeights, target: Fileset) -> tuple[NDArray[np.int64], Floats]:
    """Return each weight's variant in the fileset (-1: absent) and its sign (+1: the effect allele is A1).

    Each row is matched by what it has: position and both alleles; else the effect allele alone, at its position or,
    where that is unknown, by its identifier.
    """
    strict = (fitted.position > 0) & (fitted.other_allele != "")
    row, sign = np.full(len(strict), -1, np.int64), np.ones(len(strict))
    lost: MatchError | None = None
    for rows, find in ((np.flatnonzero(strict), _find_strictly), (np.flatnonzero(~strict), _find_loosely)):
        if len(rows):
            try:
                row[rows], sign[rows] = find(fitted.take(rows), target)
            except MatchError as error:
                lost = error
    if lost is not None and not (row >= 0).any():
        raise lost
    return row, sign


def _frequencies(fitted: FittedWeights, target: Fileset) -> Frequencies:
    """Return what tells swapped indels: frequencies of the effect allele, and of A1 in the fileset."""

    def of_rows(rows: NDArray[np.int64]) -> Floats:
        own, inverse = np.unique(rows, return_inverse=True)
        people = np.arange(target.n_samples, dtype=np.int32)
        return target.select(own).dosage(people, target.n_samples)[1].astype(np.float64)[inverse.reshape(-1)]

    return Frequencies(fitted.frequency, of_rows)


def _find_strictly(fitted: FittedWeights, target: Fileset) -> tuple[NDArray[np.int64], Floats]:
    """Match by position and both alleles; when that leaves much of the weight unmatched, on the other strand, too."""
    weight = (fitted.weights**2).sum(axis=1)
    try:
        match = match_variants(
            fitted.chromosome,
            fitted.position,
            fitted.other_allele,
            fitted.effect_allele,
            target.variants,
            "the weights",
            same_calls=target.same_calls,
            frequencies=_frequencies(fitted, target),
            ref_known=False,
        )
        row, sign = match.row, np.where(match.a1_is_alt, 1.0, -1.0)
    except MatchError as error:
        row, sign, plain = np.full(len(weight), -1), np.ones(len(weight)), error
        if weight.sum() == 0:
            raise plain from None
    if weight[row >= 0].sum() >= WANTED_COVERAGE * weight.sum():
        return row, sign
    v = target.variants
    try:
        flipped = harmonise(
            VariantTable(fitted.chromosome, fitted.position, fitted.effect_allele, fitted.other_allele),
            VariantTable(v["chromosome"].astype(str), v["position"], v["a1"], v["a2"]),
        )
    except PredictorError as error:
        if (row >= 0).any():
            return row, sign
        raise MatchError(f"the weights do not match {target.name}: {error}") from None
    other, other_sign = np.full(len(weight), -1, np.int64), np.ones(len(weight))
    other[flipped.source], other_sign[flipped.source] = flipped.target, flipped.sign
    return (other, other_sign) if weight[other >= 0].sum() > weight[row >= 0].sum() else (row, sign)


def _find_loosely(fitted: FittedWeights, target: Fileset) -> tuple[NDArray[np.int64], Floats]:
    """Match each row on its position, or its identifier where that is unknown, and the effect allele."""
    v = target.variants
    places = list(zip(fitted.chromosome, fitted.position.tolist(), strict=True))
    wanted: list[Any] = [place if place[1] > 0 else name for place, name in zip(places, fitted.id, strict=True)]
    asked = set(wanted)
    place: dict[Any, list[int]] = {}
    for keys in (zip(_labels(target), v["position"].tolist(), strict=True), v["id"].tolist()):
        for k, key in enumerate(keys):
            if key in asked:
                place.setdefault(key, []).append(k)
    a1, a2 = v["a1"].to_numpy(object), v["a2"].to_numpy(object)
    row, sign = np.full(len(wanted), -1, np.int64), np.ones(len(wanted))
    for j, key in enumerate(wanted):
        effect, other = fitted.effect_allele[j], fitted.other_allele[j]
        hits = [k for k in place.get(key, []) if effect in (a1[k], a2[k]) and other in ("", a1[k], a2[k])]
        if len(hits) == 1:
            row[j], sign[j] = hits[0], 1.0 if a1[hits[0]] == effect else -1.0
    if not (row >= 0).any():
        first = v.iloc[0]
        raise MatchError(
            f"no variant of the weights (such as {wanted[0]}) is in {target.name} (such as {first['id']}, "
            f"{first['chromosome']}:{first['position']})"
        )
    return row, sign


def _coverage(fitted: FittedWeights, found: NDArray[np.bool_], variance: Floats) -> Floats:
    """Return (T,) the share of ``sum w^2 sd^2`` that is matched."""
    known = np.where(np.isnan(fitted.frequency), np.nan, 2 * fitted.frequency * (1 - fitted.frequency))
    typical = float(np.nanmean(variance[found])) if found.any() else 1.0
    sd2 = np.where(found & np.isfinite(variance), variance, np.where(np.isnan(known), typical, known))
    share = fitted.weights**2 * sd2[:, None]
    total = share.sum(axis=0)
    return np.asarray(np.divide(share[found].sum(axis=0), total, out=np.zeros_like(total), where=total > 0))


@dataclass(frozen=True)
class ScoreTask:
    """Variants of one chromosome to score, each once: weights (v, T) of A1, and which one each weight was for (m,)."""

    genotypes: GenotypeRows
    weights: Floats
    inverse: NDArray[np.int64]


def make_score_task(target: Fileset, rows: NDArray[np.int64], weights: Floats) -> ScoreTask:
    """Return the task that scores rows of a fileset with weights (m, T) of their A1; a row may be named twice."""
    unique, inverse = np.unique(rows, return_inverse=True)
    summed = np.zeros((len(unique), weights.shape[1]))
    np.add.at(summed, inverse, weights)
    return ScoreTask(target.select(unique), summed, inverse)


def score_task(task: ScoreTask) -> tuple[Floats, Floats]:
    """Score one chromosome.

    Returns:
        (n, T) ``sum_j w_j (g_ij - 2 f_j)``, missing calls counting 2 f_j; and (m,) the frequencies f of A1.
    """
    m = len(task.genotypes)
    out = np.zeros((task.genotypes.n_samples, task.weights.shape[1]))
    own = np.empty(m)
    for start in range(0, m, ROWS_AT_ONCE):
        stop = min(start + ROWS_AT_ONCE, m)
        own[start:stop] = task.genotypes.take(start, stop).add_scores(task.weights[start:stop], out)
    return out, own[task.inverse]
