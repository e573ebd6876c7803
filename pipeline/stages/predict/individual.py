"""From the cohort's own genotypes: stacked block ridge (REGENIE step 1), and marginal effects for tuning."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.align import chromosome_order
from pipeline.cluster import Executor, ThreadExecutor
from pipeline.config import Predictor
from pipeline.errors import InputError, MatchError
from pipeline.io.cohort import Cohort
from pipeline.io.loco import match_loco_samples
from pipeline.io.plink import BedFile, Fileset
from pipeline.kernels.null_model import fit_logistic, orthonormal_design
from pipeline.stages.predict.scoring import ROWS_AT_ONCE, Scores, decode_rows
from predictors.base import PredictorError
from predictors.block_ridge import BlockRidgeFit, GenotypeBlock, fit_block_ridge

Floats = NDArray[np.float64]
BLOCK_VARIANTS = 1000


def place_samples(target: Fileset, cohort: Cohort) -> NDArray[np.int64]:
    """Return each cohort sample's row in another fileset, -1 where it is absent."""
    labels = np.array([f"{f}_{i}" for f, i in zip(target.fid, target.iid, strict=True)])
    return match_loco_samples(labels, cohort.fid.astype(str), cohort.iid.astype(str))


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
    beds: tuple[BedFile, ...]
    start: int
    stop: int
    position: NDArray[np.int32]
    residual: Floats


def _effect_task(task: _EffectTask) -> Floats:
    """Return the correlation of each variant of a stretch with the residual trait, 0 where it does not vary."""
    n = len(task.residual)
    r = task.residual - task.residual.mean()
    r = r / np.sqrt(r @ r)
    parts = []
    for start in range(task.start, task.stop, ROWS_AT_ONCE):
        rows = np.arange(start, min(start + ROWS_AT_ONCE, task.stop))
        dosage, frequency = decode_rows(task.beds, rows, task.position, n)
        G = dosage.astype(np.float64) - 2 * np.nan_to_num(frequency.astype(np.float64))[:, None]
        length = np.sqrt((G**2).sum(axis=1))
        parts.append(np.divide(G @ r, length, out=np.zeros(len(rows)), where=length > 0))
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
        _EffectTask(target.beds, start, min(start + step, target.n_variants), position, residual)
        for start in range(0, target.n_variants, step)
    ]
    return np.concatenate(executor.run(_effect_task, tasks)), int(chosen.sum())


def fit_cohort(options: Predictor, target: Fileset, cohort: Cohort) -> Scores:
    """Fit stacked block ridge to every trait and return its out-of-fold scores per chromosome.

    Raises:
        MatchError: no analysed sample is in the fileset.
        InputError: the method finds no answer; names the trait.
    """
    at = place_samples(target, cohort)
    label = target.variants["chromosome"].astype(str).to_numpy(object)
    chromosomes = sorted(set(label), key=chromosome_order)
    if len(chromosomes) < 2:
        raise InputError(f"{target.beds[0].path} has one chromosome; leaving it out leaves nothing to predict with")
    values = np.full((len(chromosomes), len(cohort.iid), len(cohort.traits)), np.nan)
    record = {}
    for members in _group_traits(cohort, at >= 0):
        names = [cohort.traits[k].name for k in members]
        chosen = (at >= 0) & np.isfinite(cohort.y[:, members[0]])
        if not chosen.any():
            raise MatchError(f"trait '{names[0]}': no analysed sample is in {target.beds[0].path}")
        blocks = _make_blocks(target, label, chromosomes, at[chosen])
        X, _ = cohort.design(chosen)
        try:
            fits: list[BlockRidgeFit] = fit_block_ridge(
                blocks, cohort.y[np.ix_(chosen, members)], X, binary=cohort.traits[members[0]].kind == "binary",
                n_folds=options.n_folds, seed=options.seed, map_function=_map_on_threads,
            )  # fmt: skip
        except PredictorError as error:
            raise InputError(f"trait '{names[0]}', block ridge: {error}") from None
        for k, name, fit in zip(members, names, fits, strict=True):
            values[np.ix_(np.arange(len(chromosomes)), np.flatnonzero(chosen), np.array([k]))] = fit.parts[:, :, None]
            record[name] = {
                "method": "block-ridge",
                "variants": target.n_variants,
                "blocks": len(blocks),
                "h_level_1": fit.h_level_1,
                "r2_cross_validated": fit.r2_cross_validated,
                "r2_apparent": fit.r2_apparent,
            }
    return Scores(tuple(chromosomes), tuple(t.name for t in cohort.traits), values, record)


def _group_traits(cohort: Cohort, genotyped: NDArray[np.bool_]) -> list[list[int]]:
    """Group quantitative traits that are observed in the same genotyped samples; a binary trait is on its own."""
    groups: dict[object, list[int]] = {}
    for k, trait in enumerate(cohort.traits):
        seen = np.packbits(np.isfinite(cohort.y[:, k]) & genotyped).tobytes()
        groups.setdefault(trait.name if trait.kind == "binary" else seen, []).append(k)
    return list(groups.values())


def _make_blocks(
    target: Fileset, label: NDArray[np.object_], chromosomes: list[str], rows: NDArray[np.int64]
) -> list[GenotypeBlock]:
    """Cut every chromosome into blocks of consecutive variants that are read when needed."""
    position = np.full(target.n_samples, -1, np.int32)
    position[rows] = np.arange(len(rows), dtype=np.int32)
    blocks = []
    for chromosome in chromosomes:
        here = np.flatnonzero(label == chromosome)
        for part in np.array_split(here, max(1, -(-len(here) // BLOCK_VARIANTS))):
            blocks.append(GenotypeBlock(chromosome, len(part), _Reader(target.beds, part, position, len(rows))))
    return blocks


@dataclass(frozen=True)
class _Reader:
    """Reads one block of dosages (n, m)."""

    beds: tuple[BedFile, ...]
    rows: NDArray[np.int64]
    position: NDArray[np.int32]
    n: int

    def __call__(self) -> NDArray[np.float32]:
        return decode_rows(self.beds, self.rows, self.position, self.n)[0].T


def _map_on_threads(function, *items):  # type: ignore[no-untyped-def]
    """Map over threads of this process: the blocks share the trait and the kernels release the GIL."""
    return ThreadExecutor().run(lambda args: function(*args), list(zip(*items, strict=True)))
