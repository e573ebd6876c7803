"""From the cohort's own genotypes: out-of-fold predictions (such as block ridge), and marginal effects for tuning."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from locomass.config import Predictor
from locomass.errors import InputError, MatchError
from locomass.executors import Executor
from locomass.genotypes.base import GenotypeRows
from locomass.genotypes.fileset import Fileset
from locomass.null_models.design import orthonormal_design
from locomass.null_models.logistic import fit_logistic
from locomass.numbers import Floats
from locomass.people import match_samples
from locomass.predict.hygiene import UNPLACED, describe_unplaced, find_loco_chromosomes
from locomass.predict.scoring import ROWS_AT_ONCE, Scores
from locomass.tables.cohort import Cohort
from locomass.variants.chromosomes import chromosome_order
from locomass_predictors.base import PredictorError
from locomass_predictors.block_ridge import GenotypeBlock
from locomass_predictors.ld import compute_sparse_r2, split_blocks
from locomass_predictors.method import Need
from locomass_predictors.registry import find_method, read_options

BLOCK_VARIANTS = 1000
MIN_BLOCK = 100
STRONG_R2 = 0.02
CUT_PEOPLE = 2_000  # enough to see where r2 of 0.02 ends


def place_samples(target: Fileset, cohort: Cohort) -> NDArray[np.int64]:
    """Return each cohort sample's row in another fileset, -1 where it is absent."""
    return match_samples(cohort.fid, cohort.iid, target.fid, target.iid, target.name)


def residual_trait(cohort: Cohort, trait: str, chosen: NDArray[np.bool_]) -> Floats:
    """Return the trait with the covariates removed: least squares, or ``y - mu`` of the logistic model."""
    k = [t.name for t in cohort.traits].index(trait)
    y = cohort.y[chosen, k]
    X, names = cohort.design(chosen)
    Z = orthonormal_design(X, np.ones(len(X)), names)
    if cohort.traits[k].kind == "binary":
        return fit_logistic(y, Z, np.empty((len(y), 0)), np.zeros(len(y))).residual
    return np.asarray(y - Z @ (Z.T @ y))


@dataclass(frozen=True)
class _EffectTask:
    genotypes: GenotypeRows
    position: NDArray[np.int32]
    residual: Floats


def _effect_task(task: _EffectTask) -> Floats:
    """Return the correlation of each variant of a stretch with the residual trait, 0 where it does not vary."""
    n = len(task.residual)
    r = task.residual - task.residual.mean()
    r = r / np.sqrt(r @ r)
    parts = []
    for start in range(0, len(task.genotypes), ROWS_AT_ONCE):
        part = task.genotypes.take(start, min(start + ROWS_AT_ONCE, len(task.genotypes)))
        dosage, frequency = part.dosage(task.position, n)
        G = dosage.astype(np.float64) - 2 * np.nan_to_num(frequency.astype(np.float64))[:, None]
        length = np.sqrt((G**2).sum(axis=1))
        parts.append(np.divide(G @ r, length, out=np.zeros(len(part)), where=length > 0))
    return np.concatenate(parts)


def marginal_effects(target: Fileset, cohort: Cohort, trait: str, executor: Executor) -> tuple[Floats, int]:
    """Return the standardised marginal effect of A1 of every variant of a fileset on a trait, and the sample size."""
    at = place_samples(target, cohort)
    k = [t.name for t in cohort.traits].index(trait)
    chosen = (at >= 0) & np.isfinite(cohort.y[:, k])
    residual = residual_trait(cohort, trait, chosen)
    position = np.full(target.n_samples, -1, np.int32)
    position[at[chosen]] = np.arange(int(chosen.sum()), dtype=np.int32)
    step = 8 * ROWS_AT_ONCE
    tasks = [
        _EffectTask(target.select(np.arange(start, min(start + step, target.n_variants))), position, residual)
        for start in range(0, target.n_variants, step)
    ]
    return np.concatenate(executor.run(_effect_task, tasks)), int(chosen.sum())


def fit_cohort(options: Predictor, target: Fileset, cohort: Cohort, executor: Executor) -> Scores:
    """Fit a method to every trait of the cohort and return its out-of-fold scores per chromosome.

    Raises:
        MatchError: no analysed sample is in the fileset.
        InputError: the method finds no answer; names the trait.
    """
    at = place_samples(target, cohort)
    label = target.variants["chromosome"].astype(str).to_numpy(object)
    parent = find_loco_chromosomes(label)
    unplaced = int((parent == UNPLACED).sum())
    chromosomes = sorted(set(parent) - {UNPLACED}, key=chromosome_order)
    if not chromosomes:
        raise InputError(f"{target.name}: no variant is on a chromosome; give the chromosomes in its variant file")
    # blocks lie on what the file calls a chromosome, and are left out with the one that it belongs to
    pieces = sorted(
        {(p, c) for p, c in zip(parent, label, strict=True) if p != UNPLACED},
        key=lambda pair: (*map(chromosome_order, pair),),
    )
    values = np.full((len(chromosomes), len(cohort.iid), len(cohort.traits)), np.nan)
    record = {}
    method = find_method(options.method)
    assert method.fit is not None
    by_ld = Need.LD_BLOCKS in method.needs
    for members in _group_traits(cohort, at >= 0):
        names = [cohort.traits[k].name for k in members]
        chosen = (at >= 0) & np.isfinite(cohort.y[:, members[0]])
        if not chosen.any():
            raise MatchError(f"trait '{names[0]}': no analysed sample is in {target.name}")
        cuts = _cut_by_ld(target, label, pieces, at[chosen], options, executor) if by_ld else None
        blocks = _make_blocks(target, label, pieces, at[chosen], cuts)
        X, _ = cohort.design(chosen)
        try:
            fits = method.fit(
                blocks,
                cohort.y[chosen][:, members],
                X,
                read_options(method.name, options.options),
                binary=cohort.traits[members[0]].kind == "binary",
                n_folds=options.n_folds,
                seed=options.seed,
                map_function=executor.map,
            )
        except PredictorError as error:
            raise InputError(f"trait '{names[0]}', {method.name}: {error}") from None
        for k, name, fit in zip(members, names, fits, strict=True):
            values[np.ix_(np.arange(len(chromosomes)), np.flatnonzero(chosen), np.array([k]))] = fit.parts[:, :, None]
            record[name] = {
                "method": method.name,
                "variants": target.n_variants - unplaced,
                "blocks": len(blocks),
                **fit.record,
            }
    messages = tuple(filter(None, [describe_unplaced(unplaced, target.name)]))
    return Scores(tuple(chromosomes), tuple(t.name for t in cohort.traits), values, record, messages)


def _group_traits(cohort: Cohort, genotyped: NDArray[np.bool_]) -> list[list[int]]:
    """Group quantitative traits that are observed in the same genotyped samples; a binary trait is on its own."""
    groups: dict[object, list[int]] = {}
    for k, trait in enumerate(cohort.traits):
        seen = np.packbits(np.isfinite(cohort.y[:, k]) & genotyped).tobytes()
        groups.setdefault(trait.name if trait.kind == "binary" else seen, []).append(k)
    return list(groups.values())


def _make_blocks(
    target: Fileset,
    label: NDArray[np.object_],
    pieces: list[tuple[str, str]],
    rows: NDArray[np.int64],
    cuts: list[NDArray[np.int64]] | None,
) -> list[GenotypeBlock]:
    """Cut every chromosome into blocks of consecutive variants, read when needed; of equal size without cuts."""
    position = np.full(target.n_samples, -1, np.int32)
    position[rows] = np.arange(len(rows), dtype=np.int32)
    blocks = []
    for k, (chromosome, piece) in enumerate(pieces):
        here = np.flatnonzero(label == piece)
        where = max(1, -(-len(here) // BLOCK_VARIANTS)) if cuts is None else cuts[k][1:-1]
        for part in np.array_split(here, where):
            blocks.append(GenotypeBlock(chromosome, len(part), _Reader(target.select(part), position, len(rows))))
    return blocks


@dataclass(frozen=True)
class _Reader:
    """Reads one block of dosages (n, m)."""

    genotypes: GenotypeRows
    position: NDArray[np.int32]
    n: int

    def __call__(self) -> NDArray[np.float32]:
        return self.genotypes.dosage(self.position, self.n)[0].T


@dataclass(frozen=True)
class _CutTask:
    """Variants of one chromosome, with the people whose LD decides where to cut."""

    genotypes: GenotypeRows
    people: NDArray[np.int32]
    n: int
    position: NDArray[np.int64]
    max_block: int


def _cut_task(task: _CutTask) -> NDArray[np.int64]:
    """Return where to cut one chromosome: (blocks + 1,) first variants, where the least r2 is lost."""

    def read(start: int, stop: int) -> NDArray[np.float32]:
        return task.genotypes.take(start, stop).dosage(task.people, task.n)[0].T

    r2 = compute_sparse_r2(read, task.position, window=task.max_block, threshold=STRONG_R2)
    return split_blocks(r2, min_size=min(MIN_BLOCK, task.max_block), max_size=task.max_block).boundaries


def _cut_by_ld(
    target: Fileset,
    label: NDArray[np.object_],
    pieces: list[tuple[str, str]],
    rows: NDArray[np.int64],
    options: Predictor,
    executor: Executor,
) -> list[NDArray[np.int64]]:
    """Return where to cut every chromosome, by the LD of at most `CUT_PEOPLE` of the people."""
    few = rows[:: -(-len(rows) // CUT_PEOPLE)]
    position = np.full(target.n_samples, -1, np.int32)
    position[few] = np.arange(len(few), dtype=np.int32)
    place = target.variants["position"].to_numpy(np.int64)
    tasks = []
    for _, piece in pieces:
        here = np.flatnonzero(label == piece)
        if np.any(np.diff(place[here]) < 0):
            raise InputError(
                f"{target.name}: variants of chromosome {piece} are not sorted by position; sort the "
                f"fileset (plink2 --make-pgen --sort-vars)"
            )
        tasks.append(_CutTask(target.select(here), position, len(few), place[here], options.max_block_variants))
    return executor.run(_cut_task, tasks)
