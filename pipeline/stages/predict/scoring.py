"""Scoring: per-allele weights of several traits, one pass over a fileset, summed per chromosome."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.align import chromosome_order, match_variants
from pipeline.cluster import Executor
from pipeline.errors import MatchError
from pipeline.io.cohort import Cohort
from pipeline.io.loco import match_loco_samples
from pipeline.io.plink import BedFile, Fileset, read_packed_rows
from pipeline.kernels.packed import add_weighted_dosage, decode_dosage
from pipeline.provenance import digest_arrays
from pipeline.stages.predict.kept import Kept
from predictors.base import PredictorError
from predictors.harmonise import VariantTable, harmonise

Floats = NDArray[np.float64]
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

    def find_in(self, target: Fileset) -> tuple[NDArray[np.int64], Floats]:
        """Return each weight's variant in a fileset (-1: absent) and its sign (+1: the effect allele is A1)."""
        return _find_variants(self, target)


def decode_rows(
    beds: tuple[BedFile, ...], rows: NDArray[np.int64], position: NDArray[np.int32], n_kept: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return (m, n_kept) A1 dosages of chosen variants (missing at the mean) and their A1 frequencies (m,)."""
    packed = read_packed_rows(beds, rows)
    dosage = np.empty((len(rows), n_kept), np.float32)
    return dosage, decode_dosage(packed, position, n_kept, dosage)


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
    found = row >= 0
    chromosomes, values, variance = _score_traits(fitted, row, sign, target, executor, kept)
    coverage = _coverage(fitted, found, variance)
    messages, record = list(fitted.messages), {}
    for k, trait in enumerate(fitted.traits):
        record[trait] = {**fitted.record[trait], "coverage": float(coverage[k]), "scored": int(found.sum())}
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
    row: NDArray[np.int64],
    sign: Floats,
    target: Fileset,
    executor: Executor,
    kept: Kept,
) -> tuple[list[str], Floats, Floats]:
    """Score the traits whose scores are not kept, in one pass over the fileset.

    Args:
        fitted: weights.
        row, sign: (m,) their variants in the fileset, -1 where absent.
        target: the fileset.
        executor: where tasks run.
        kept: scores of an earlier run.

    Returns:
        Chromosomes (C), scores (C, N, T) of all samples of the fileset, and the variance of every variant (m,), NaN
        where it is absent.
    """
    label = np.where(row >= 0, _labels(target)[np.maximum(row, 0)], "")
    chromosomes = sorted(set(label[row >= 0]), key=chromosome_order)
    here = [np.flatnonzero(label == chromosome) for chromosome in chromosomes]
    here = [rows[np.argsort(row[rows], kind="stable")] for rows in here]
    files = [kept.digest(path) for path in target.paths]
    keys = [[files, digest_arrays(row, sign, weights)] for weights in fitted.weights.T]
    pieces = [kept.recall("scores", key) for key in keys]
    fresh = [k for k, piece in enumerate(pieces) if piece is None]
    if fresh:
        weights = fitted.weights[:, fresh] * sign[:, None]
        tasks = [ScoreTask(target.beds, row[rows], weights[rows], target.n_samples) for rows in here]
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
    labels = np.array([f"{f}_{i}" for f, i in zip(target.fid, target.iid, strict=True)])
    at = match_loco_samples(labels, cohort.fid.astype(str), cohort.iid.astype(str))
    out = np.full((values.shape[0], len(at), values.shape[2]), np.nan)
    out[:, at >= 0] = values[:, at[at >= 0]]
    return out, int((at < 0).sum())


def _labels(target: Fileset) -> NDArray[np.object_]:
    return target.variants["chromosome"].astype(str).to_numpy(object)


def _find_variants(fitted: FittedWeights, target: Fileset) -> tuple[NDArray[np.int64], Floats]:
    """Return each weight's variant in the fileset (-1: absent) and its sign (+1: the effect allele is A1).

    Alleles are first taken as they stand, in either order; when that leaves much of the weight unmatched, the other
    strand is tried as well. A file without the other allele matches on the effect allele alone, one without
    positions on identifiers.
    """
    if (fitted.position == 0).all() or (fitted.other_allele == "").any():
        return _find_loosely(fitted, target)
    weight = (fitted.weights**2).sum(axis=1)
    try:
        match = match_variants(
            fitted.chromosome,
            fitted.position,
            fitted.other_allele,
            fitted.effect_allele,
            target.variants,
            "the weights",
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
        raise MatchError(f"the weights do not match {target.beds[0].path}: {error}") from None
    other, other_sign = np.full(len(weight), -1, np.int64), np.ones(len(weight))
    other[flipped.source], other_sign[flipped.source] = flipped.target, flipped.sign
    return (other, other_sign) if weight[other >= 0].sum() > weight[row >= 0].sum() else (row, sign)


def _find_loosely(fitted: FittedWeights, target: Fileset) -> tuple[NDArray[np.int64], Floats]:
    """Match on position (or identifier) and the effect allele."""
    v = target.variants
    by_id = bool((fitted.position == 0).all())
    keys = v["id"].tolist() if by_id else list(zip(_labels(target), v["position"].tolist(), strict=True))
    place: dict[Any, list[int]] = {}
    for k, key in enumerate(keys):
        place.setdefault(key, []).append(k)
    wanted: Sequence[Any] = (
        fitted.id.tolist() if by_id else list(zip(fitted.chromosome, fitted.position.tolist(), strict=True))
    )
    a1, a2 = v["a1"].to_numpy(object), v["a2"].to_numpy(object)
    row, sign = np.full(len(wanted), -1, np.int64), np.ones(len(wanted))
    for j, key in enumerate(wanted):
        effect, other = fitted.effect_allele[j], fitted.other_allele[j]
        hits = [k for k in place.get(key, []) if effect in (a1[k], a2[k]) and other in ("", a1[k], a2[k])]
        if len(hits) == 1:
            row[j], sign[j] = hits[0], 1.0 if a1[hits[0]] == effect else -1.0
    if not (row >= 0).any():
        raise MatchError(
            f"no variant of the weights (such as {wanted[0]}) is in {target.beds[0].path} (such as {keys[0]})"
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
    """Variants of one chromosome to score: rows of the target, weights (m, T) of its A1."""

    beds: tuple[BedFile, ...]
    rows: NDArray[np.int64]
    weights: Floats
    n_samples: int


def score_task(task: ScoreTask) -> tuple[Floats, Floats]:
    """Score one chromosome.

    Returns:
        (n, T) ``sum_j w_j (g_ij - 2 f_j)``, missing calls counting 2 f_j; and (m,) the frequencies f of A1.
    """
    out = np.zeros((task.n_samples, task.weights.shape[1]))
    unique, inverse = np.unique(task.rows, return_inverse=True)
    weights = np.zeros((len(unique), task.weights.shape[1]))
    np.add.at(weights, inverse, task.weights)
    own = np.empty(len(unique))
    for start in range(0, len(unique), ROWS_AT_ONCE):
        stop = start + ROWS_AT_ONCE
        packed = read_packed_rows(task.beds, unique[start:stop])
        own[start:stop] = np.nan_to_num(add_weighted_dosage(packed, task.n_samples, weights[start:stop], out))
    return out, own[inverse]
