"""Stacked block ridge from individual data: two levels, out-of-fold throughout, parts per chromosome."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

import numpy as np
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from sklearn.model_selection import KFold, StratifiedKFold

from predictors.base import AnyFloats, Floats, MapFunction, PredictorError, compute_r2, map_in_process
from predictors.ld import centre_columns
from predictors.level_one import (
    Folds,
    StackedCoefficients,
    fit_logistic_leave_one_out,
    fit_logistic_out_of_fold,
    fit_logistic_ridge,
    fit_ridge_leave_one_out,
    fit_ridge_out_of_fold,
    predict_out_of_fold,
)

H_GRID = (0.01, 0.25, 0.5, 0.75, 0.99)
#: below this many samples a binary trait is cross-validated by leaving one out
BINARY_LEAVE_ONE_OUT = 5_000


@dataclass(frozen=True, slots=True)
class GenotypeBlock:
    """A block of consecutive variants that is read when it is needed.

    Attributes:
        chromosome: label of the chromosome it lies on.
        n_variants: m.
        read: returns the (n, m) dosages, NaN where missing, samples in the order of the trait.
    """

    chromosome: str
    n_variants: int
    read: Callable[[], AnyFloats]


@dataclass(frozen=True, slots=True)
class BlockRidgeFit:
    """Out-of-fold predictions of one trait, per chromosome.

    Attributes:
        chromosomes: (C,) labels, in the order of the blocks.
        parts: (C, n) out-of-fold polygenic score of each chromosome, in the unit of the trait, or of the linear
            predictor for a binary trait. ``parts.sum(0) - parts[c]`` leaves chromosome c out.
        weights: one (m,) array per block: per-allele weights, fitted to everyone, for people outside the study.
        h_level_1: h that cross-validation chose.
        cv_loss: (H,) cross-validated loss per h: mean squared error, or mean negative log-likelihood.
        r2_cross_validated: squared correlation of ``parts.sum(0)`` with the trait, covariates projected out of it; 0
            when the correlation is negative.
        folds: (n,) fold of each sample; the sample's own number when one was left out at a time.
    """

    chromosomes: tuple[str, ...]
    parts: Floats
    weights: list[Floats]
    h_level_1: float
    cv_loss: Floats
    r2_cross_validated: float
    folds: Folds


@dataclass(frozen=True, slots=True)
class LevelZero:
    """Level-0 predictions of one block.

    Attributes:
        predictions: (T, n, H) out-of-fold predictions per trait and h.
        coefficients: (T, H, m) per-allele coefficients fitted to everyone.
    """

    predictions: Floats
    coefficients: Floats


def fit_block_ridge(
    blocks: Sequence[GenotypeBlock],
    y: Floats,
    covariates: Floats,
    *,
    binary: bool = False,
    h_grid: Sequence[float] = H_GRID,
    n_folds: int = 5,
    leave_one_out: bool | None = None,
    folds: Folds | None = None,
    seed: int = 1,
    map_function: MapFunction = map_in_process,
) -> list[BlockRidgeFit]:
    """Fit stacked block ridge (step 1 of REGENIE) to traits of the same samples.

    Level 0, per block and h: ridge of the trait on the standardised genotypes, penalty ``M (1 - h)/h`` with M the
    variants of all blocks, predicted out of fold. Level 1: ridge on the k level-0 predictions, scaled to variance 1,
    penalty ``k (1 - h)/h``, h by cross-validation; for a binary trait logistic ridge with the covariates' linear
    predictor as offset. A chromosome's part is the sum over its level-0 predictions with out-of-fold coefficients.
    Covariates are projected out of trait and genotypes first and never enter the prediction.

    Args:
        blocks: blocks of about 1,000 variants; each is read once and in memory (8 n m bytes) only while worked on.
            Level-0 predictions of all blocks are held: 8 n T H bytes per block.
        y: (n, T) traits without missing values, 0/1 when binary.
        covariates: (n, p) covariates with an intercept among them.
        binary: traits are 0/1.
        h_grid: shares of variance for which the ridge is tuned, between 0 and 1.
        n_folds: folds, drawn by scikit-learn; stratified by the trait when a single binary trait is fitted.
        leave_one_out: leave one sample out instead; None means: for binary traits with fewer than 5,000 samples
            when no folds are given.
        folds: (n,) fold numbers 0..K-1 to use instead of drawing them.
        seed: seed of the folds.
        map_function: applies a function to every block; may distribute them.

    Returns:
        One fit per trait.

    Raises:
        PredictorError: shapes differ, values are missing, a binary trait is not 0/1, a trait is a function of the
            covariates, or there is no variant.

    Source: Mbatchou et al. (2021), REGENIE, Nat Genet 53:1097.
    """
    _check_input(blocks, y, covariates, binary, h_grid)
    n = y.shape[0]
    if leave_one_out is None:
        leave_one_out = binary and n < BINARY_LEAVE_ONE_OUT and folds is None
    folds = np.arange(n) if leave_one_out else _settle_folds(y, folds, n_folds, binary, seed)
    basis = find_orthonormal_basis(covariates)
    residual = y - basis @ (basis.T @ y)
    scale = residual.std(axis=0)
    if (scale <= 1e-10 * np.abs(y).max(axis=0)).any():
        t = int(np.argmin(scale))
        raise PredictorError(f"trait {t + 1} does not vary once covariates are projected out: nothing to predict")
    odds = 1.0 / np.array(h_grid) - 1.0
    level_0 = partial(
        predict_level_0,
        y=residual / scale,
        basis=basis,
        penalties=sum(block.n_variants for block in blocks) * odds,
        folds=None if leave_one_out else folds,
    )
    found = [cast("LevelZero", part) for part in map_function(level_0, blocks)]
    fits = []
    for t in range(y.shape[1]):
        W = np.concatenate([part.predictions[t] for part in found], axis=1)
        sd = W.std(axis=0)
        W *= np.divide(1.0, sd, out=np.zeros_like(sd), where=sd > 0)
        penalties = W.shape[1] * odds
        if binary:
            stacked = _fit_logistic_level_1(W, y[:, t], basis, penalties, None if leave_one_out else folds)
        elif leave_one_out:
            stacked = fit_ridge_leave_one_out(W, residual[:, t], penalties)
        else:
            stacked = fit_ridge_out_of_fold(W, residual[:, t], penalties, folds)
        fits.append(_assemble_fit(blocks, found, t, W, sd, stacked, residual[:, t], h_grid, folds))
    return fits


def predict_level_0(
    block: GenotypeBlock, *, y: Floats, basis: Floats, penalties: Floats, folds: Folds | None
) -> LevelZero:
    """Predict every trait from one block, out of fold, at every penalty.

    Leaving out fold k: ``Z_k inv(Z'Z - Z_k'Z_k + penalty I) (Z'y - Z_k'y_k)``, Z the genotypes with covariates
    projected out and variance 1. Leaving out one sample: ``(f_i - l_i y_i)/(1 - l_i)`` with fit f and leverage l.

    Args:
        block: the block.
        y: (n, T) traits with covariates projected out.
        basis: (n, p) orthonormal basis of the covariates.
        penalties: (H,) ridge penalties.
        folds: (n,) fold numbers 0..K-1, or None to leave out one sample at a time.

    Returns:
        Predictions and per-allele coefficients.

    Raises:
        PredictorError: the dosages read do not have the shape that was declared.
    """
    Z, sd = _standardise_genotypes(block, basis)
    ZZ, Zy = Z.T @ Z, Z.T @ y
    predictions = np.empty((y.shape[1], y.shape[0], penalties.size))
    coefficients = np.empty((y.shape[1], penalties.size, block.n_variants))
    for i, penalty in enumerate(penalties):
        factor = _factor(ZZ, penalty)
        full = cho_solve(factor, Zy)
        coefficients[:, i] = (full / sd[:, None]).T
        if folds is None:
            leverage = np.square(solve_triangular(factor[0], Z.T, lower=True)).sum(axis=0)[:, None]
            predictions[:, :, i] = ((Z @ full - leverage * y) / (1.0 - leverage)).T
    if folds is not None:
        for k in range(int(folds.max()) + 1):
            rows = folds == k
            left_ZZ, left_Zy = ZZ - Z[rows].T @ Z[rows], Zy - Z[rows].T @ y[rows]
            for i, penalty in enumerate(penalties):
                predictions[:, rows, i] = (Z[rows] @ cho_solve(_factor(left_ZZ, penalty), left_Zy)).T
    return LevelZero(predictions, coefficients)


def find_orthonormal_basis(covariates: Floats) -> Floats:
    """Return an orthonormal basis (n, rank) of the columns of the covariates (n, p); collinear ones are no harm."""
    length = np.sqrt(np.square(covariates).sum(axis=0))
    scaled = covariates / np.where(length > 0, length, 1.0)
    left, singular, _ = np.linalg.svd(scaled, full_matrices=False)
    return np.asarray(left[:, singular > 1e-10 * singular[0]])


def read_residualised(block: GenotypeBlock, basis: Floats) -> Floats:
    """Return the (n, m) dosages of a block, missing calls at the mean, mean and covariates projected out.

    Args:
        block: the block.
        basis: (n, p) orthonormal basis of the covariates.

    Returns:
        (n, m) float64.

    Raises:
        PredictorError: the dosages read do not have the shape that was declared.
    """
    G = block.read()
    if G.shape != (basis.shape[0], block.n_variants):
        expected = (basis.shape[0], block.n_variants)
        raise PredictorError(f"a block of chromosome {block.chromosome} has dosages of shape {G.shape}, not {expected}")
    Z = centre_columns(G)
    Z -= basis @ (basis.T @ Z)
    return Z


def _standardise_genotypes(block: GenotypeBlock, basis: Floats) -> tuple[Floats, Floats]:
    """Return (n, m) genotypes with covariates projected out and variance 1, and the sd (m,) that they had.

    A column that the covariates explain becomes 0; its sd is given as 1.
    """
    Z = read_residualised(block, basis)
    sd = np.sqrt(np.square(Z).mean(axis=0))
    varies = sd > 1e-8
    sd[~varies] = 1.0
    Z *= varies / sd
    return Z, sd


def _fit_logistic_level_1(
    W: Floats, y: Floats, basis: Floats, penalties: Floats, folds: Folds | None
) -> StackedCoefficients:
    """Return level-1 coefficients of a binary trait, the covariates' linear predictor being the offset."""
    offset = basis @ fit_logistic_ridge(basis, y, np.zeros(y.size), 0.0, np.zeros(basis.shape[1]))
    if folds is None:
        return fit_logistic_leave_one_out(W, y, offset, penalties)
    return fit_logistic_out_of_fold(W, y, offset, penalties, folds)


def _factor(A: Floats, penalty: float) -> tuple[Floats, bool]:
    penalised = A.copy()
    penalised[np.diag_indices_from(penalised)] += penalty
    return cho_factor(penalised, lower=True, overwrite_a=True)


def _settle_folds(y: Floats, folds: Folds | None, n_folds: int, binary: bool, seed: int) -> Folds:
    """Return the folds given, once checked, or draw them."""
    n = len(y)
    if folds is not None:
        if folds.shape != (n,) or not np.array_equal(np.unique(folds), np.arange(max(folds.max() + 1, 2))):
            raise PredictorError(f"folds must number {n} samples 0..K-1, K at least 2, without an empty fold")
        return folds
    if not 2 <= n_folds <= n:
        raise PredictorError(f"n_folds must lie between 2 and the {n} samples, got {n_folds}")
    stratified = binary and y.shape[1] == 1 and min(np.bincount(y[:, 0].astype(np.int64))) >= n_folds
    splitter = StratifiedKFold if stratified else KFold
    drawn = np.empty(n, dtype=np.int64)
    for k, (_, rows) in enumerate(splitter(n_folds, shuffle=True, random_state=seed).split(y, y[:, 0])):
        drawn[rows] = k
    return drawn


def _assemble_fit(
    blocks: Sequence[GenotypeBlock],
    found: Sequence[LevelZero],
    t: int,
    W: Floats,
    sd: Floats,
    stacked: StackedCoefficients,
    residual: Floats,
    h_grid: Sequence[float],
    folds: Folds,
) -> BlockRidgeFit:
    """Sum the level-0 predictions of each chromosome, and collapse both levels into per-allele weights."""
    H = len(h_grid)
    column_chromosome = np.repeat([block.chromosome for block in blocks], H)
    chromosomes = tuple(dict.fromkeys(block.chromosome for block in blocks))
    parts = np.empty((len(chromosomes), len(residual)))
    for c, chromosome in enumerate(chromosomes):
        columns = column_chromosome == chromosome
        parts[c] = predict_out_of_fold(W[:, columns], stacked.out_of_fold[:, columns], folds)
    per_prediction = stacked.full * np.divide(1.0, sd, out=np.zeros_like(sd), where=sd > 0)
    weights = [per_prediction[b * H : (b + 1) * H] @ part.coefficients[t] for b, part in enumerate(found)]
    r2 = compute_r2(parts.sum(axis=0), residual)
    return BlockRidgeFit(chromosomes, parts, weights, h_grid[stacked.choice], stacked.cv_loss, r2, folds)


def _check_input(
    blocks: Sequence[GenotypeBlock], y: Floats, covariates: Floats, binary: bool, h_grid: Sequence[float]
) -> None:
    if y.ndim != 2 or covariates.ndim != 2 or len(y) != len(covariates) or not covariates.shape[1]:
        raise PredictorError(f"expected (n, T) traits and (n, p) covariates, got shapes {y.shape}, {covariates.shape}")
    if not (np.isfinite(y).all() and np.isfinite(covariates).all()):
        raise PredictorError("traits and covariates must be complete: fit the samples of each trait on their own")
    if binary and not (np.isin(y, (0.0, 1.0)).all() and ((y.min(axis=0) < y.max(axis=0)).all())):
        raise PredictorError("binary traits must be 0/1 with both values present")
    if not sum(block.n_variants for block in blocks):
        raise PredictorError("no variant to fit: every block is empty")
    if not h_grid or not all(0 < h < 1 for h in h_grid):
        raise PredictorError(f"h_grid must lie between 0 and 1, got {tuple(h_grid)}")
