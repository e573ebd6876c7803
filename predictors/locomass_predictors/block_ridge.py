"""Stacked block ridge from individual data: two levels, out-of-fold throughout, parts per chromosome."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, cast

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, solve_triangular

from locomass_predictors.base import AnyFloats, Floats, MapFunction, PredictorError, compute_r2, map_in_process
from locomass_predictors.ld import centre_columns
from locomass_predictors.level_one import (
    Folds,
    StackedCoefficients,
    fit_logistic_leave_one_out,
    fit_logistic_out_of_fold,
    fit_logistic_ridge,
    fit_ridge_leave_one_out,
    fit_ridge_out_of_fold,
    predict_out_of_fold,
)
from locomass_predictors.method import Method, Options, Source

H_GRID = (0.01, 0.25, 0.5, 0.75, 0.99)
#: below this many samples a binary trait is cross-validated by leaving one out
BINARY_LEAVE_ONE_OUT = 5_000
#: R2 is estimated in nested folds below this many samples per block: the leak that it avoids is about blocks / n
NESTED_BELOW = 100


class BlockRidge(Options, frozen=True, kw_only=True):
    """Options of stacked block ridge."""

    h_grid: Annotated[
        tuple[Annotated[float, Meta(gt=0, lt=1)], ...],
        Meta(min_length=1, description="shares of variance that the ridges of both levels are tuned for"),
    ] = H_GRID
    leave_one_out: Annotated[
        bool | None,
        Meta(description="leave one sample out at a time; default: binary traits of fewer than 5,000 samples"),
    ] = None
    nested: Annotated[
        bool | None, Meta(description="R2 from nested folds; default: fewer than 100 samples per block")
    ] = None


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
        r2_cross_validated: R2 of the prediction, from nested folds when they were used; else r2_apparent.
        r2_apparent: squared correlation of ``parts.sum(0)`` with the trait, covariates projected out of it; 0 when the
            correlation is negative.
        folds: (n,) fold of each sample; the sample's own number when one was left out at a time.
    """

    chromosomes: tuple[str, ...]
    parts: Floats
    weights: list[Floats]
    h_level_1: float
    cv_loss: Floats
    r2_cross_validated: float
    r2_apparent: float
    folds: Folds

    @property
    def record(self) -> dict[str, object]:
        """What a report states."""
        return {
            "h_level_1": self.h_level_1,
            "r2_cross_validated": self.r2_cross_validated,
            "r2_apparent": self.r2_apparent,
        }


@dataclass(frozen=True, slots=True)
class LevelZero:
    """Level-0 predictions of one block.

    Attributes:
        predictions: (T, n, H) float32 out-of-fold predictions per trait and h.
        nested: (T, K, n, H) float32: row j of slot k was predicted without fold k and without the fold of j; empty
            when folds are not nested.
        coefficients: (T, H, m) per-allele coefficients fitted to everyone.
    """

    predictions: NDArray[np.float32]
    nested: NDArray[np.float32]
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
    nested: bool | None = None,
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

    Stacked as published, the level-0 predictions on which the coefficients for fold k are fitted come from fits that
    have seen fold k. The prediction stays valid for a test on the chromosome left out, but its apparent R2 is too high
    by about one per block and sample (measured on noise: 0.024 for 40 blocks and 2,000 people), by folds and by
    leaving one out alike. R2 is therefore estimated a second time in nested folds, which leave out both.

    Args:
        blocks: blocks of about 1,000 variants; each is read once and in memory (8 n m bytes) only while worked on.
            Level-0 predictions of all blocks are held: 4 n T H bytes per block, K + 1 times that when folds are nested.
        y: (n, T) traits without missing values, 0/1 when binary.
        covariates: (n, p) covariates with an intercept among them.
        binary: traits are 0/1.
        h_grid: shares of variance for which the ridge is tuned, between 0 and 1.
        n_folds: folds, drawn by scikit-learn; stratified by the trait when a single binary trait is fitted.
        leave_one_out: leave one sample out at a time instead of a fold; None means: for binary traits with fewer than
            5,000 samples, when no folds are given.
        nested: estimate R2 in nested folds (level 0 takes three times as long); None means: when there are fewer than
            100 samples per block.
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
    check_input(blocks, y, covariates, binary, h_grid)
    n = y.shape[0]
    if leave_one_out is None:
        leave_one_out = binary and n < BINARY_LEAVE_ONE_OUT and folds is None
    if nested is None:
        nested = n < NESTED_BELOW * len(blocks)
    folds = settle_folds(y, folds, n_folds, binary, seed)
    basis = find_orthonormal_basis(covariates)
    residual, scale = residualise(y, basis)
    odds = 1.0 / np.array(h_grid) - 1.0
    level_0 = partial(
        predict_level_0,
        y=residual / scale,
        basis=basis,
        penalties=sum(block.n_variants for block in blocks) * odds,
        folds=folds,
        leave_one_out=leave_one_out,
        nested=nested,
    )
    found = [cast("LevelZero", part) for part in map_function(level_0, blocks)]
    return [
        _fit_level_1(
            blocks=blocks,
            found=found,
            t=t,
            case=y[:, t] if binary else None,
            residual=residual[:, t],
            basis=basis,
            h_grid=h_grid,
            folds=folds,
            leave_one_out=leave_one_out,
        )
        for t in range(y.shape[1])
    ]


def predict_level_0(
    block: GenotypeBlock,
    *,
    y: Floats,
    basis: Floats,
    penalties: Floats,
    folds: Folds,
    leave_one_out: bool,
    nested: bool,
) -> LevelZero:
    """Predict every trait from one block, out of fold, at every penalty.

    Leaving out fold k: ``Z_k inv(Z'Z - Z_k'Z_k + penalty I) (Z'y - Z_k'y_k)``, Z the genotypes with covariates
    projected out and variance 1. Leaving out one sample: ``(f_i - l_i y_i)/(1 - l_i)`` with fit f and leverage l.

    Args:
        block: the block.
        y: (n, T) traits with covariates projected out.
        basis: (n, p) orthonormal basis of the covariates.
        penalties: (H,) ridge penalties.
        folds: (n,) fold numbers 0..K-1.
        leave_one_out: leave out one sample at a time in ``predictions``; ``nested`` has the folds.
        nested: also leave out every pair of folds.

    Returns:
        Predictions and per-allele coefficients.

    Raises:
        PredictorError: the dosages read do not have the shape that was declared.
    """
    Z, sd = standardise_genotypes(block, basis)
    # with fewer samples than variants the same answers come from the n x n kernel: w = Z' inv(ZZ' + penalty) y
    dual = Z.shape[0] < Z.shape[1]
    A = Z @ Z.T if dual else Z.T @ Z
    shape = (y.shape[1], y.shape[0], penalties.size)
    predictions = np.empty(shape, dtype=np.float32)
    coefficients = np.empty((y.shape[1], penalties.size, block.n_variants))
    for i, penalty in enumerate(penalties):
        factor = _factor(A, penalty)
        full = Z.T @ cho_solve(factor, y) if dual else cho_solve(factor, Z.T @ y)
        coefficients[:, i] = (full / sd[:, None]).T
        if leave_one_out:
            half = solve_triangular(factor[0], np.eye(len(A)) if dual else Z.T, lower=True)
            leverage = np.square(half).sum(axis=0)[:, None]
            # the diagonal of Z inv(Z'Z + penalty) Z' = I - penalty inv(ZZ' + penalty)
            leverage = 1.0 - penalty * leverage if dual else leverage
            predictions[:, :, i] = ((Z @ full - leverage * y) / (1.0 - leverage)).T
    pairs = _predict_without_folds(Z, y, penalties, folds, nested) if nested or not leave_one_out else None
    if pairs is not None and not leave_one_out:
        predictions = pairs[:, folds, np.arange(folds.size)] if nested else pairs[:, 0]
    empty = np.empty((shape[0], 0, *shape[1:]), dtype=np.float32)
    return LevelZero(predictions, pairs if nested and pairs is not None else empty, coefficients)


def _predict_without_folds(Z: Floats, y: Floats, penalties: Floats, folds: Folds, nested: bool) -> NDArray[np.float32]:
    """Return (T, K, n, H) predictions without the sample's own fold and fold k; (T, 1, n, H) without the former."""
    members = [np.flatnonzero(folds == k) for k in range(int(folds.max()) + 1)]
    solve = _fit_kernel(Z, y, folds) if Z.shape[0] < Z.shape[1] else _fit_products(Z, y, members)
    out = np.empty((y.shape[1], len(members) if nested else 1, y.shape[0], penalties.size), dtype=np.float32)
    # a pair (a, a) leaves out one fold, a pair (a, b) two
    pairs = [(a, b) for a in range(len(members)) for b in range(a, len(members)) if nested or a == b]
    for a, b in pairs:
        predict = solve(a, b)
        for i, penalty in enumerate(penalties):
            found = predict(penalty)
            for k, other in {(a, b), (b, a)}:
                out[:, other if nested else 0, members[k], i] = found(members[k]).T
    return out


#: ``(fold, fold) -> penalty -> rows -> (rows, T) predictions`` of a fit without both folds
_WithoutFolds = Callable[[int, int], Callable[[float], Callable[[NDArray[np.int64]], Floats]]]


def _fit_products(Z: Floats, y: Floats, members: Sequence[NDArray[np.int64]]) -> _WithoutFolds:
    """Leave folds out of Z'Z and Z'y by subtracting theirs."""
    own = [(Z[rows].T @ Z[rows], Z[rows].T @ y[rows]) for rows in members]
    ZZ, Zy = Z.T @ Z, Z.T @ y

    def solve(a: int, b: int) -> Callable[[float], Callable[[NDArray[np.int64]], Floats]]:
        left_ZZ, left_Zy = ZZ - own[a][0], Zy - own[a][1]
        if a != b:
            left_ZZ, left_Zy = left_ZZ - own[b][0], left_Zy - own[b][1]

        def predict(penalty: float) -> Callable[[NDArray[np.int64]], Floats]:
            beta = cho_solve(_factor(left_ZZ, penalty), left_Zy)
            return lambda rows: np.asarray(Z[rows] @ beta)

        return predict

    return solve


def _fit_kernel(Z: Floats, y: Floats, folds: Folds) -> _WithoutFolds:
    """Leave folds out of ZZ' and y by dropping their rows."""
    K = Z @ Z.T

    def solve(a: int, b: int) -> Callable[[float], Callable[[NDArray[np.int64]], Floats]]:
        rest = np.flatnonzero((folds != a) & (folds != b))
        inner, left_y = K[np.ix_(rest, rest)], y[rest]

        def predict(penalty: float) -> Callable[[NDArray[np.int64]], Floats]:
            alpha = cho_solve(_factor(inner, penalty), left_y)
            return lambda rows: np.asarray(K[np.ix_(rows, rest)] @ alpha)

        return predict

    return solve


def find_orthonormal_basis(covariates: Floats) -> Floats:
    """Return an orthonormal basis (n, rank) of the columns of the covariates (n, p); collinear ones are no harm."""
    length = np.sqrt(np.square(covariates).sum(axis=0))
    scaled = covariates / np.where(length > 0, length, 1.0)
    left, singular, _ = np.linalg.svd(scaled, full_matrices=False)
    return np.asarray(left[:, singular > 1e-10 * singular[0]])


def residualise(y: Floats, basis: Floats) -> tuple[Floats, Floats]:
    """Return traits (n, T) with covariates projected out, and their standard deviations (T,).

    Raises:
        PredictorError: a trait is a function of the covariates.
    """
    residual = y - basis @ (basis.T @ y)
    scale = residual.std(axis=0)
    if (scale <= 1e-10 * np.abs(y).max(axis=0)).any():
        t = int(np.argmin(scale))
        raise PredictorError(f"trait {t + 1} does not vary once covariates are projected out: nothing to predict")
    return residual, scale


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


def standardise_genotypes(block: GenotypeBlock, basis: Floats) -> tuple[Floats, Floats]:
    """Return (n, m) genotypes with covariates projected out and variance 1, and the sd (m,) that they had.

    A column that the covariates explain becomes 0; its sd is given as 1.
    """
    Z = read_residualised(block, basis)
    sd = np.sqrt(np.square(Z).mean(axis=0))
    varies = sd > 1e-8
    sd[~varies] = 1.0
    Z *= varies / sd
    return Z, sd


def _factor(A: Floats, penalty: float) -> tuple[Floats, bool]:
    penalised = A.copy()
    penalised[np.diag_indices_from(penalised)] += penalty
    factor, lower = cho_factor(penalised, lower=True, overwrite_a=True)
    return factor, lower


def settle_folds(y: Floats, folds: Folds | None, n_folds: int, binary: bool, seed: int) -> Folds:
    """Return the folds given, once checked, or draw them."""
    from sklearn.model_selection import KFold, StratifiedKFold  # two seconds that other methods do not need

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


def _fit_level_1(
    blocks: Sequence[GenotypeBlock],
    found: Sequence[LevelZero],
    t: int,
    case: Floats | None,
    residual: Floats,
    basis: Floats,
    h_grid: Sequence[float],
    folds: Folds,
    leave_one_out: bool,
) -> BlockRidgeFit:
    """Weight the level-0 predictions of a trait, sum them per chromosome, and collapse both levels into weights."""
    raw = np.concatenate([part.predictions[t] for part in found], axis=1).astype(np.float64)
    scale = _invert_sd(raw)
    W = raw * scale
    penalties = W.shape[1] * (1.0 / np.array(h_grid) - 1.0)
    used = np.arange(folds.size) if leave_one_out else folds
    stacked = _stack([W], case, residual, basis, penalties, used)
    chromosomes = tuple(dict.fromkeys(block.chromosome for block in blocks))
    label = np.repeat([block.chromosome for block in blocks], len(h_grid))
    out = stacked.out_of_fold
    parts = np.stack([predict_out_of_fold(W[:, label == c], out[:, label == c], used) for c in chromosomes])
    per_prediction = np.split(stacked.full * scale, len(blocks))
    weights = [gamma @ part.coefficients[t] for gamma, part in zip(per_prediction, found, strict=True)]
    apparent = compute_r2(parts.sum(axis=0), residual)
    n_slots = found[0].nested.shape[1]
    slots = [np.concatenate([part.nested[t, k] for part in found], axis=1).astype(np.float64) for k in range(n_slots)]
    Ws = [slot * _invert_sd(slot) for slot in slots]
    honest = apparent
    if Ws:
        inner = _stack(Ws, case, residual, basis, penalties, folds)
        prediction = np.empty(folds.size)
        for k, (W_k, b) in enumerate(zip(Ws, inner.out_of_fold, strict=True)):
            prediction[folds == k] = W_k[folds == k] @ b
        honest = compute_r2(prediction, residual)
    h = h_grid[stacked.choice]
    return BlockRidgeFit(
        chromosomes=chromosomes,
        parts=parts,
        weights=weights,
        h_level_1=h,
        cv_loss=stacked.cv_loss,
        r2_cross_validated=honest,
        r2_apparent=apparent,
        folds=used,
    )


def _stack(
    Ws: Sequence[Floats],
    case: Floats | None,
    residual: Floats,
    basis: Floats,
    penalties: Floats,
    folds: Folds,
) -> StackedCoefficients:
    """Return level-1 coefficients; folds that number every sample mean that one was left out at a time."""
    one_out = int(folds.max()) + 1 == folds.size
    if case is None:
        if one_out:
            return fit_ridge_leave_one_out(Ws[0], residual, penalties)
        return fit_ridge_out_of_fold(Ws, residual, penalties, folds)
    offset = basis @ fit_logistic_ridge(basis, case, np.zeros(case.size), 0.0, np.zeros(basis.shape[1]))
    if one_out:
        return fit_logistic_leave_one_out(Ws[0], case, offset, penalties)
    return fit_logistic_out_of_fold(Ws, case, offset, penalties, folds)


def _invert_sd(W: Floats) -> Floats:
    """Return 1/sd of the columns, 0 for a constant one."""
    sd: Floats = W.std(axis=0)
    inverse: Floats = np.divide(1.0, sd, out=np.zeros_like(sd), where=sd > 1e-12 * np.abs(W).max(initial=0.0))
    return inverse


def check_input(
    blocks: Sequence[GenotypeBlock], y: Floats, covariates: Floats, binary: bool, h_grid: Sequence[float]
) -> None:
    """Raise PredictorError unless traits, covariates, blocks and shares of variance can be fitted."""
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


def _fit(blocks: Sequence[GenotypeBlock], y: Floats, covariates: Floats, options: Options, **rest: Any) -> Any:
    return fit_block_ridge(blocks, y, covariates, **msgspec.structs.asdict(options), **rest)


METHOD = Method(
    name="block-ridge",
    help="from the cohort itself: stacked block ridge (REGENIE step 1)",
    source=Source.COHORT,
    fit=_fit,
    options=BlockRidge,
)
