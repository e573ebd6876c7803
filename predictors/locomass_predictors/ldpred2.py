"""LDpred2: a spike-and-slab prior on effects, sampled block by block with genome-wide hyper-parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Annotated, Literal

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from locomass_predictors.base import (
    BlockStatistics,
    Floats,
    MapFunction,
    PredictorError,
    PredictorFit,
    Promise,
    Tune,
    map_in_process,
    promise_of,
    select_best,
    split_by_block,
)
from locomass_predictors.gibbs import Chain, ChainSettings, run_chains, select_chains
from locomass_predictors.ld import compute_ld_scores
from locomass_predictors.method import Method, Need, Options, Source, Tags
from locomass_predictors.ridge import Ridge, fit_ridge

#: 21 proportions of causal variants, log-spaced from 1e-5 to 1
P_GRID = tuple(10.0 ** (k / 4 - 5) for k in range(21))
_LEAST_KEPT = 0.3
#: of the chains of `jumps: both`, this share may change the sign of an effect within a sweep
_JUMPING = 2 / 3
JUMPING, STEADY = "chains with sign jumps", "chains without sign jumps"
#: chains without sign jumps sample no posterior, and promise up to 4 % more than they keep: they must promise more
_MARGIN = {STEADY: 1.05}

Share = Annotated[float, Meta(gt=0, le=1)]
Sweeps = Annotated[int, Meta(ge=1, description="sweeps averaged")]


class Ldpred2Auto(Options, frozen=True, kw_only=True):
    """Options of LDpred2-auto."""

    n_chains: Annotated[int, Meta(ge=1, le=1_000, description="chains")] = 30
    p_range: Annotated[
        tuple[Share, Share], Meta(description="smallest and largest proportion of causal variants that chains start at")
    ] = (1e-4, 1.0)
    burn_in: Annotated[int, Meta(ge=0, description="sweeps thrown away")] = 500
    n_keep: Sweeps = 200
    jumps: Annotated[
        Literal["both", "allowed", "forbidden"],
        Meta(
            description="whether an effect may change sign from one sweep to the next; both: two chains in three may, "
            "and the better kind is used"
        ),
    ] = "both"
    ridge: Annotated[bool, Meta(description="fit ridge beside the chains, and use it where it promises more")] = True
    shrinks: Annotated[
        tuple[Share, ...],
        Meta(min_length=1, description="factors of the correlations between variants; the next where chains diverge"),
    ] = (0.95, 0.8, 0.6, 0.4)


class Ldpred2Grid(Options, frozen=True, kw_only=True):
    """Options of LDpred2-grid."""

    p_values: Annotated[tuple[Share, ...], Meta(min_length=1, description="proportions of causal variants")] = P_GRID
    h2_factors: Annotated[
        tuple[Annotated[float, Meta(gt=0)], ...], Meta(min_length=1, description="multiples of the heritability")
    ] = (0.3, 0.7, 1.0, 1.4)
    burn_in: Annotated[int, Meta(ge=0, description="sweeps thrown away")] = 50
    n_keep: Sweeps = 100
    shrink: Annotated[Share, Meta(description="factor of the correlations between variants")] = 0.95


AUTO_DEFAULTS, GRID_DEFAULTS = Ldpred2Auto(), Ldpred2Grid()
#: enough to know the heritability to a few hundredths
H2_CHAINS = Ldpred2Auto(n_chains=6, burn_in=150, n_keep=100, jumps="allowed", ridge=False)


@dataclass(frozen=True, slots=True)
class _Candidate:
    """Weights that may be used, and what the summary statistics promise of them."""

    name: str
    weights: list[Floats]
    promise: Promise
    h2: float
    p: float
    n_kept: int

    @property
    def record(self) -> dict[str, object]:
        return {"name": self.name, "r2_promised": self.promise.r2, "h2": self.h2, "p": self.p, "n_kept": self.n_kept}


def fit_ldpred2_auto(
    blocks: Sequence[BlockStatistics],
    options: Ldpred2Auto = AUTO_DEFAULTS,
    *,
    h2_init: float,
    seed: int = 1,
    map_function: MapFunction = map_in_process,
) -> PredictorFit:
    """Fit LDpred2-auto: h2 and the proportion p of causal variants are estimated along with the effects.

    Chains start at proportions log-spaced over p_range. Two kinds run: with sign jumps, whose draws are those of the
    posterior, and without, which converge where LD is poor but take a polygenic trait for a sparse one (an
    infinitesimal trait gets p 0.16 and loses a seventh of its R2). Of each kind a chain is kept when the range of R w
    exceeds 0.95 of the 95 % quantile of its kind, and those kept are averaged. Ridge is fitted with the h2 of the
    chains. The candidate with the largest promised R2 is used: the promise takes off what the weights owe to the noise
    of the summary statistics, so no other people are needed to choose. When fewer than 30 % of either kind are kept
    the next smaller shrink is tried, and after the last one ridge takes over with that shrink; the record says so.

    Args:
        blocks: LD blocks of the whole genome.
        options: chains, their start values, kinds and lengths, and the shrinks in the order they are tried in.
        h2_init: heritability to start from (LD score regression), above 0.
        seed: seed of the whole fit; the result does not depend on how map_function distributes the chains.
        map_function: applies a function to every chain; may distribute them. Threads share R, sweeps release the GIL.

    Returns:
        Weights. The record states method (``ldpred2-auto``, or ``ridge`` after the fallback), chosen (the candidate),
        candidates, h2, p, shrink, n_kept, fallbacks (texts), and per chain, of the attempt used: p_init, jumps, kept,
        range, h2_path, p_path.

    Raises:
        PredictorError: h2_init is not positive, there is no variant, or the settings are out of range.

    Source: Prive et al. (2020), LDpred2, Bioinformatics 36:5424; Prive et al. (2023), Inferring disease architecture,
    AJHG 110:2042 (tracking of h2 and p, chains without sign jumps, chain filter).
    """
    _check_settings(blocks, h2_init, options.burn_in, options.n_keep)
    n_chains, p_range = options.n_chains, options.p_range
    if n_chains < 1 or not options.shrinks or not 0 < p_range[0] <= p_range[1] <= 1:
        raise PredictorError(
            f"expected at least one chain, one shrink and 0 < p <= 1, got {n_chains}, {options.shrinks}, {p_range}"
        )
    mean_ld_score = float(np.concatenate([compute_ld_scores(block.R) for block in blocks]).mean())
    fallbacks: list[str] = []
    for attempt, shrink in enumerate(options.shrinks):
        settings = _plan_chains(options, h2_init, shrink, mean_ld_score)
        chains = run_chains(blocks, settings, [seed, attempt], map_function)
        kept, candidates = _average_kinds(blocks, chains, settings)
        if candidates:
            break
        fallbacks.append(f"shrink {shrink:g}: only {int(kept.sum())} of {n_chains} chains kept")
    chain_record = {"fallbacks": fallbacks, **_record_chains(chains, kept, settings)}
    if not candidates:
        ridge = fit_ridge(blocks, Ridge(shrink=shrink), h2=h2_init, map_function=map_function)
        fallbacks.append("ridge weights instead of LDpred2-auto: check the summary statistics against the LD reference")
        return PredictorFit(ridge.weights, ridge.promise, {**ridge.record, **chain_record})
    h2 = candidates[0].h2
    if options.ridge:
        ridge = fit_ridge(blocks, Ridge(shrink=shrink), h2=min(h2, 1.0), map_function=map_function)
        assert ridge.promise is not None
        candidates.append(_Candidate("ridge", ridge.weights, ridge.promise, h2, 1.0, 0))
    best = max(candidates, key=lambda candidate: candidate.promise.r2 / _MARGIN.get(candidate.name, 1.0))
    record = {
        "method": "ldpred2-auto",
        "h2": best.h2,
        "p": best.p,
        "shrink": shrink,
        "chosen": best.name,
        "candidates": [candidate.record for candidate in candidates],
    }
    return PredictorFit(best.weights, best.promise, {**record, **chain_record})


def fit_ldpred2_grid(
    blocks: Sequence[BlockStatistics],
    options: Ldpred2Grid = GRID_DEFAULTS,
    *,
    h2: float,
    tune: Tune,
    seed: int = 1,
    map_function: MapFunction = map_in_process,
) -> PredictorFit:
    """Fit LDpred2 on a grid of fixed hyper-parameters and return the weights that tuning data prefer.

    Args:
        blocks: LD blocks of the whole genome.
        options: the grid, shrink, and the length of the chains.
        h2: heritability, above 0.
        tune: ``tune(weights per block) -> how well they predict``, in data outside the GWAS; larger is better.
        seed: seed of the whole fit.
        map_function: applies a function to every grid point; may distribute them.

    Returns:
        Best weights. The record states p, h2, and the whole grid: parameters and what ``tune`` made of them, NaN
        where the chain diverged.

    Raises:
        PredictorError: h2 is not positive, there is no variant, settings are out of range, or every chain diverged.

    Source: Prive et al. (2020), LDpred2, Bioinformatics 36:5424.
    """
    p_values, h2_factors, shrink = options.p_values, options.h2_factors, options.shrink
    burn_in, n_keep = options.burn_in, options.n_keep
    _check_settings(blocks, h2, burn_in, n_keep)
    grid = list(product(p_values, h2_factors))
    if not grid or not all(0 < p <= 1 and factor > 0 for p, factor in grid):
        raise PredictorError(f"the grid needs 0 < p <= 1 and positive h2 factors, got {p_values} and {h2_factors}")
    settings = [ChainSettings(h2 * factor, p, shrink, burn_in, n_keep, False, True) for p, factor in grid]
    chains = run_chains(blocks, settings, [seed], map_function)
    candidates = [split_by_block(blocks, chain.weights) for chain in chains]
    best, scores = select_best(candidates, tune)
    record = {
        "method": "ldpred2-grid",
        "p": settings[best].p,
        "h2": settings[best].h2,
        "shrink": shrink,
        "grid": [{"p": s.p, "h2": s.h2, "score": float(score)} for s, score in zip(settings, scores, strict=True)],
    }
    return PredictorFit(candidates[best], _promise(blocks, candidates[best], [chains[best]]), record)


def estimate_heritability(
    blocks: Sequence[BlockStatistics],
    *,
    h2_init: float,
    seed: int = 1,
    map_function: MapFunction = map_in_process,
) -> float | None:
    """Return the heritability that a few short chains of LDpred2-auto settle at, None when they diverge.

    On the same data LD score regression scatters from 0.29 to 0.54 around 0.40 and the sampler from 0.40 to 0.42.

    Args:
        blocks: LD blocks of the whole genome.
        h2_init: heritability to start from, above 0.
        seed: seed.
        map_function: applies a function to every chain; may distribute them.

    Raises:
        PredictorError: h2_init is not positive, or there is no variant.
    """
    record = fit_ldpred2_auto(blocks, H2_CHAINS, h2_init=h2_init, seed=seed, map_function=map_function).record
    return float(str(record["h2"])) if record["method"] == AUTO.name else None


def _plan_chains(options: Ldpred2Auto, h2: float, shrink: float, mean_ld_score: float) -> list[ChainSettings]:
    """Return what every chain is told; start values are spread over each kind."""
    n_jumping = {"both": -int(-_JUMPING * options.n_chains // 1), "allowed": options.n_chains, "forbidden": 0}
    kinds = ((True, n_jumping[options.jumps]), (False, options.n_chains - n_jumping[options.jumps]))
    return [
        ChainSettings(
            h2=h2,
            p=float(p),
            shrink=shrink,
            burn_in=options.burn_in,
            n_keep=options.n_keep,
            estimate=True,
            allow_jump_sign=jumps,
            mean_ld_score=mean_ld_score,
        )
        for jumps, n in kinds
        for p in np.geomspace(*options.p_range, n)
    ]


def _average_kinds(
    blocks: Sequence[BlockStatistics], chains: Sequence[Chain], settings: Sequence[ChainSettings]
) -> tuple[NDArray[np.bool_], list[_Candidate]]:
    """Return which chains are kept, and the mean of those of each kind that has enough of them."""
    kept, candidates = np.zeros(len(chains), bool), []
    for jumps, name in ((True, JUMPING), (False, STEADY)):
        kind = np.array([s.allow_jump_sign is jumps for s in settings])
        if not kind.any():
            continue
        kept[kind] = select_chains(np.array([chain.range for chain, mine in zip(chains, kind, strict=True) if mine]))
        used = [chain for chain, mine in zip(chains, kept & kind, strict=True) if mine]
        if len(used) >= max(int(_LEAST_KEPT * kind.sum()), 1):
            weights = split_by_block(blocks, np.mean([chain.weights for chain in used], axis=0))
            h2, p = (float(np.mean([getattr(chain, key) for chain in used])) for key in ("h2", "p"))
            candidates.append(_Candidate(name, weights, _promise(blocks, weights, used), h2, p, len(used)))
    return kept, candidates


def _promise(blocks: Sequence[BlockStatistics], weights: list[Floats], chains: Sequence[Chain]) -> Promise:
    """Return the promise of posterior means, penalty ``E[b'Rb] - w'Rw`` over the draws b.

    The posterior mean w of effects with likelihood exp(N (b'beta_hat - b'Rb/2)) has the derivative N Cov(b) with
    respect to beta_hat, whose noise has covariance R/N: tr(N Cov(b) R/N) = tr(Cov(b) R).
    """
    drawn = float(np.mean([chain.variance for chain in chains]))
    return promise_of(blocks, weights, lambda variance: max(drawn - variance, 0.0))


def _check_settings(blocks: Sequence[BlockStatistics], h2: float, burn_in: int, n_keep: int) -> None:
    if not h2 > 0:
        raise PredictorError(f"LDpred2 needs a positive heritability, got {h2}; give h2 or check LD score regression")
    if not sum(block.beta_hat.size for block in blocks):
        raise PredictorError("no variant to fit: every LD block is empty")
    if burn_in < 0 or n_keep < 1:
        raise PredictorError(f"expected burn_in >= 0 and n_keep >= 1, got {burn_in} and {n_keep}")


def _record_chains(
    chains: Sequence[Chain], kept: NDArray[np.bool_], settings: Sequence[ChainSettings]
) -> dict[str, object]:
    return {
        "h2_init": settings[0].h2,
        "burn_in": settings[0].burn_in,
        "n_keep": settings[0].n_keep,
        "n_chains": len(chains),
        "n_kept": int(kept.sum()),
        "n_variants": chains[0].weights.size,
        "chains": [
            {
                "p_init": s.p,
                "jumps": s.allow_jump_sign,
                "kept": bool(keep),
                "range": chain.range,
                "h2_path": chain.h2_path,
                "p_path": chain.p_path,
            }
            for chain, keep, s in zip(chains, kept, settings, strict=True)
        ],
    }


#: chains are long sums of float32 products: a last bit of R that changes is seen at 1e-6 of an sd
_TOLERANCE = 1e-4

AUTO = Method(
    name="ldpred2-auto",
    help="from GWAS summary statistics: h2 and the proportion of causal variants are estimated along with the effects",
    source=Source.SUMMARY,
    fit=fit_ldpred2_auto,
    options=Ldpred2Auto,
    needs=frozenset({Need.H2_INIT, Need.SEED}),
    tags=Tags(tolerance=_TOLERANCE, quick=Ldpred2Auto(n_chains=4, burn_in=40, n_keep=40)),
)
GRID = Method(
    name="ldpred2-grid",
    help="from GWAS summary statistics: h2 and the proportion of causal variants are tuned",
    source=Source.SUMMARY,
    fit=fit_ldpred2_grid,
    options=Ldpred2Grid,
    needs=frozenset({Need.H2, Need.TUNING, Need.SEED}),
    tags=Tags(tolerance=_TOLERANCE, quick=Ldpred2Grid(p_values=(0.1, 1.0), h2_factors=(1.0,), n_keep=40)),
)
