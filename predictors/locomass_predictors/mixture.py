"""From the cohort itself, a spike-and-slab prior and ridge beside it: cross-fitted, combined by non-negative stacking.

BOLT's idea, that the mixture prior is worth most where few variants are causal, with the sampler of LDpred2: the sums
Z'Z and Z'y of every fold give the statistics and the LD of all people outside it by subtraction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, cast

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from locomass_predictors.base import (
    BlockStatistics,
    Floats,
    MapFunction,
    PredictorError,
    map_in_process,
    split_by_block,
)
from locomass_predictors.block_ridge import (
    GenotypeBlock,
    check_input,
    find_orthonormal_basis,
    residualise,
    settle_folds,
    standardise_genotypes,
)
from locomass_predictors.combine import stack_predictors
from locomass_predictors.gibbs import Chain, ChainSettings, run_chain, select_chains
from locomass_predictors.ld import compute_ld_scores
from locomass_predictors.level_one import Folds, fit_logistic_ridge
from locomass_predictors.method import Method, Need, Options, Source, Tags
from locomass_predictors.ridge import solve_weights

Share = Annotated[float, Meta(gt=0, le=1)]


class Mixture(Options, frozen=True, kw_only=True):
    """Options of the in-sample mixture."""

    n_chains: Annotated[int, Meta(ge=1, le=100, description="chains per fold")] = 4
    p_range: Annotated[
        tuple[Share, Share], Meta(description="smallest and largest proportion of causal variants that chains start at")
    ] = (1e-3, 0.5)
    burn_in: Annotated[int, Meta(ge=0, description="sweeps thrown away")] = 200
    n_keep: Annotated[int, Meta(ge=1, description="sweeps averaged")] = 100
    h2_init: Annotated[float, Meta(gt=0, le=1, description="heritability that chains start at")] = 0.3
    shrink: Annotated[Share, Meta(description="factor of the correlations between variants")] = 0.99


DEFAULTS = Mixture()


@dataclass(frozen=True, slots=True)
class MixtureFit:
    """Out-of-fold predictions of one trait, per chromosome.

    Attributes:
        chromosomes: (C,) labels, in the order of the blocks.
        parts: (C, n) out-of-fold score of each chromosome, in the unit of the trait, or log odds for a binary trait.
        weights: one (m,) array per block: per-allele weights, fitted to everyone, for people outside the study.
        record: what a report states.
    """

    chromosomes: tuple[str, ...]
    parts: Floats
    weights: list[Floats]
    record: dict[str, object]


@dataclass(frozen=True, slots=True)
class FoldSums:
    """Sums over the people of each fold, of one block.

    Attributes:
        ZZ: (K, m, m) float32 sums of Z'Z, Z the genotypes with covariates projected out and variance 1.
        Zy: (K, m, T) sums of Z'y, y of variance 1.
        sd: (m,) of the genotypes.
    """

    ZZ: NDArray[np.float32]
    Zy: Floats
    sd: Floats

    def leave_out(self, fold: int | None, t: int, n: int, chromosome: str) -> tuple[BlockStatistics, Floats]:
        """Return the statistics of one trait in everyone outside a fold, and what turns their weights into Z's."""
        rest = [k for k in range(len(self.ZZ)) if k != fold]
        # the sum, not a difference of sums: float32 loses nothing, and a fold is never held twice
        ZZ = self.ZZ[rest].sum(axis=0)
        length = np.sqrt(np.diag(ZZ).astype(np.float64))
        inverse = np.divide(1.0, length, out=np.zeros_like(length), where=length > 1e-6 * np.sqrt(n))
        R = ZZ * np.outer(inverse, inverse).astype(np.float32)
        np.fill_diagonal(R, 1.0)
        b = self.Zy[rest, :, t].sum(axis=0) * inverse / np.sqrt(n)
        return BlockStatistics(b, np.full(b.size, float(n)), R, chromosome), inverse * np.sqrt(n)


def fit_mixture(
    blocks: Sequence[GenotypeBlock],
    y: Floats,
    covariates: Floats,
    options: Mixture = DEFAULTS,
    *,
    binary: bool = False,
    n_folds: int = 5,
    folds: Folds | None = None,
    seed: int = 1,
    map_function: MapFunction = map_in_process,
) -> list[MixtureFit]:
    """Fit a mixture prior and ridge to traits of the same samples, out of fold, and stack the two.

    Per fold, marginal effects and LD of all people outside it enter the LDpred2 sampler, whose h2 and proportion of
    causal variants are estimated; its weights predict the fold. So do the weights of ridge with that h2,
    ``(R_s + diag(M/(h2 N))) w = b`` in every block. (Stacked block ridge would not do beside it: its second level has
    seen the fold, which a comparison of the two rewards.) Non-negative least
    squares on both whole-genome predictions, cross-fitted, gives one weight per predictor for all chromosomes, so that
    leaving a chromosome out stays a subtraction. A binary trait is sampled on the 0/1 scale; the stacked prediction is
    turned into log odds by a cross-fitted logistic slope.

    Args:
        blocks: LD blocks, cut where little r2 is lost; each is read twice. Sums of all are held: 4 K M m bytes for M
            variants in blocks of m, and one more fold while it is sampled.
        y: (n, T) traits without missing values, 0/1 when binary.
        covariates: (n, p) covariates with an intercept among them.
        options: chains.
        binary: traits are 0/1.
        n_folds: folds.
        folds: (n,) fold numbers 0..K-1 to use instead of drawing them.
        seed: seed of folds and chains.
        map_function: applies a function to every block and every chain; may distribute them.

    Returns:
        One fit per trait. The record states the weights of mixture and ridge, R2 of each and of both, h2 and p of the
        sampler, and how many chains were kept; a mixture whose chains all diverge has weight 0.

    Raises:
        PredictorError: shapes differ, values are missing, a binary trait is not 0/1, a trait is a function of the
            covariates, or nothing varies with it.

    Source: Loh et al. (2015), BOLT-LMM, Nat Genet 47:284; Prive et al. (2020), LDpred2, Bioinformatics 36:5424.
    """
    check_input(blocks, y, covariates, binary, (0.5,))
    folds = settle_folds(y, folds, n_folds, binary, seed)
    basis = find_orthonormal_basis(covariates)
    residual, scale = residualise(y, basis)
    summed = partial(sum_by_fold, y=residual / scale, basis=basis, folds=folds)
    sums = [cast("FoldSums", part) for part in map_function(summed, blocks)]
    work = _Work([block.chromosome for block in blocks], sums, np.bincount(folds), options, seed, map_function)
    sampled = [_sample(work, t) for t in range(y.shape[1])]
    # (T, 2, K, m) per block; the last problem is that of everyone, whose weights predict other people
    by_block = [np.array([found.weights[:, :-1, j].tolist() for found in sampled]) for j in range(len(blocks))]
    score = partial(predict_out_of_fold, basis=basis, folds=folds)
    scores = np.array(map_function(score, blocks, by_block))
    label, chromosomes = np.array(work.labels), tuple(dict.fromkeys(work.labels))
    fits = []
    for t, found in enumerate(sampled):
        parts = np.stack([scores[label == c, t].sum(axis=0) for c in chromosomes]) * scale[t]
        stack, gamma = _stack(parts.sum(axis=0).T, residual[:, t], folds)
        combined = np.einsum("cpn,np->cn", parts, gamma[folds])
        slope = 1.0
        if binary:
            combined, slope = _to_log_odds(combined, y[:, t], basis, folds)
        weights = [
            slope * scale[t] * (gamma[-1] @ np.stack(found.weights[:, -1, j].tolist())) / part.sd
            for j, part in enumerate(sums)
        ]
        fits.append(MixtureFit(chromosomes, combined, weights, {**found.record, **stack}))
    return fits


def sum_by_fold(block: GenotypeBlock, *, y: Floats, basis: Floats, folds: Folds) -> FoldSums:
    """Return Z'Z and Z'y of a block, summed over the people of each fold.

    Args:
        block: the block.
        y: (n, T) traits with covariates projected out, of variance 1.
        basis: (n, p) orthonormal basis of the covariates.
        folds: (n,) fold numbers 0..K-1.
    """
    Z, sd = standardise_genotypes(block, basis)
    members = [np.flatnonzero(folds == k) for k in range(int(folds.max()) + 1)]
    ZZ = np.stack([(Z[rows].T @ Z[rows]).astype(np.float32) for rows in members])
    return FoldSums(ZZ, np.stack([Z[rows].T @ y[rows] for rows in members]), sd)


def predict_out_of_fold(block: GenotypeBlock, weights: Floats, *, basis: Floats, folds: Folds) -> Floats:
    """Return (T, P, n) scores of a block, every sample with the weights of its own fold.

    Args:
        block: the block.
        weights: (T, P, K, m) of the genotypes with covariates projected out and variance 1, for P predictors.
        basis: (n, p) orthonormal basis of the covariates.
        folds: (n,) fold numbers 0..K-1.
    """
    Z, _ = standardise_genotypes(block, basis)
    out = np.empty((*weights.shape[:2], len(Z)))
    for k in range(weights.shape[2]):
        out[:, :, folds == k] = weights[:, :, k] @ Z[folds == k].T
    return out


@dataclass(frozen=True, slots=True)
class _Work:
    """What the traits share.

    Attributes:
        labels: chromosome of each block.
        sums: of each block.
        sizes: (K,) people per fold.
        options, seed, map_function: as given.
    """

    labels: list[str]
    sums: list[FoldSums]
    sizes: NDArray[np.int64]
    options: Mixture
    seed: int
    map_function: MapFunction


@dataclass(frozen=True, slots=True)
class _Sampled:
    """Weights of one trait.

    Attributes:
        weights: (2, K + 1, blocks) objects: the (m,) weights of mixture and ridge, without each fold and of everyone,
            for genotypes of variance 1.
        record: h2, p and chains kept, means over the folds.
    """

    weights: NDArray[np.object_]
    record: dict[str, object]


def _sample(work: _Work, t: int) -> _Sampled:
    """Run the chains of a trait, and ridge with their h2, without each fold, and with everyone."""
    options, problems = work.options, [*range(len(work.sizes)), None]
    weights = np.empty((2, len(problems), len(work.sums)), object)
    h2: list[float] = []
    p: list[float] = []
    n_kept: list[int] = []
    for k, fold in enumerate(problems):
        n = int(work.sizes.sum() - (0 if fold is None else work.sizes[fold]))
        parts = [part.leave_out(fold, t, n, label) for part, label in zip(work.sums, work.labels, strict=True)]
        blocks = [block for block, _ in parts]
        seeds = np.random.SeedSequence([work.seed, t, k]).spawn(options.n_chains)
        settings = _plan_chains(blocks, options)
        chains = cast("list[Chain]", work.map_function(partial(run_chain, blocks=blocks), settings, seeds))
        kept = select_chains(np.array([chain.range for chain in chains]))
        used = [chain for chain, keep in zip(chains, kept, strict=True) if keep]
        own_h2 = float(np.mean([chain.h2 for chain in used])) if used else options.h2_init
        M = sum(block.n.size for block in blocks)
        mean = np.mean([chain.weights for chain in used], axis=0) if used else np.zeros(M)
        solve = partial(solve_weights, variance=min(own_h2, 1.0) / M, shrink=options.shrink)
        solved = cast("list[Floats]", work.map_function(solve, blocks))
        for kind, found in enumerate((split_by_block(blocks, mean), solved)):
            for j, (w, (_, turn)) in enumerate(zip(found, parts, strict=True)):
                weights[kind, k, j] = w * turn
        n_kept.append(len(used))
        h2 += [chain.h2 for chain in used]
        p += [chain.p for chain in used]
    record: dict[str, object] = {
        "h2": float(np.mean(h2)) if h2 else None,
        "p": float(np.mean(p)) if p else None,
        "n_kept": n_kept,
    }
    return _Sampled(weights, record)


def _plan_chains(blocks: Sequence[BlockStatistics], options: Mixture) -> list[ChainSettings]:
    """Return what every chain is told."""
    mean_ld_score = float(np.concatenate([compute_ld_scores(block.R) for block in blocks]).mean())
    h2, shrink, burn_in, n_keep = options.h2_init, options.shrink, options.burn_in, options.n_keep
    starts = np.geomspace(*options.p_range, options.n_chains)
    return [
        ChainSettings(
            h2=h2,
            p=float(p),
            shrink=shrink,
            burn_in=burn_in,
            n_keep=n_keep,
            estimate=True,
            allow_jump_sign=True,
            mean_ld_score=mean_ld_score,
        )
        for p in starts
    ]


def _stack(totals: Floats, residual: Floats, folds: Folds) -> tuple[dict[str, object], Floats]:
    """Weight the whole-genome scores (n, 2) of mixture and ridge.

    Returns:
        What a report states, and (K + 1, 2) weights: without each fold, and of everyone.

    Raises:
        PredictorError: neither score varies.
    """
    live = totals.std(axis=0) > 0
    if not live.any():
        raise PredictorError("neither the mixture nor ridge predicts anything: no variant varies with the trait")
    stack = stack_predictors(totals[:, live], residual, folds=folds)
    gamma, single = np.zeros((int(folds.max()) + 2, 2)), np.zeros(2)
    gamma[:-1, live], gamma[-1, live], single[live] = stack.fold_weights, stack.weights, stack.r2_single
    record: dict[str, object] = {
        "weight_mixture": float(gamma[-1, 0]),
        "weight_ridge": float(gamma[-1, 1]),
        "r2_mixture": float(single[0]),
        "r2_ridge": float(single[1]),
        "r2_cross_validated": stack.r2_cross_validated,
    }
    return record, gamma


def _to_log_odds(parts: Floats, case: Floats, basis: Floats, folds: Folds) -> tuple[Floats, float]:
    """Return parts in log odds: multiplied with the logistic slope on their sum, fitted without the sample's fold."""
    total = parts.sum(axis=0)
    spread = total.std()
    if not spread > 0:
        return parts, 1.0
    X = np.column_stack([basis, total / spread])

    def slope_of(rows: NDArray[np.bool_]) -> float:
        b = fit_logistic_ridge(X[rows], case[rows], np.zeros(int(rows.sum())), 0.0, np.zeros(X.shape[1]))
        return max(float(b[-1]), 0.0) / spread

    slopes = np.array([slope_of(folds != k) for k in range(int(folds.max()) + 1)])
    return parts * slopes[folds], slope_of(np.ones(len(case), bool))


METHOD = Method(
    name="mixture",
    help="from the cohort itself: few or many variants have effects, and ridge beside it (BOLT's prior, cross-fitted)",
    source=Source.COHORT,
    fit=fit_mixture,
    options=Mixture,
    needs=frozenset({Need.LD_BLOCKS}),
    # chains are long sums of float32 products
    tags=Tags(tolerance=1e-3),
)
