"""What a predictor is: block statistics in, standardised weights and a record of how they were found out.

A summary-statistic predictor sees the genome as LD blocks, each with the standardised marginal effects of its
variants and their correlation. It returns one weight per variant on the standardised scale (per standard deviation
of the genotype); the caller turns it into a per-allele weight. Hyper-parameters are genome-wide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
#: float32 or float64, as it is stored; sums over it are taken in float64
AnyFloats = NDArray[np.floating[Any]]


class PredictorError(ValueError):
    """The numbers given to a predictor have no answer; the message says which and why."""


@dataclass(frozen=True, slots=True)
class BlockStatistics:
    """One LD block.

    Attributes:
        beta_hat: (m,) standardised marginal effects, ``beta / sqrt(n se^2 + beta^2)`` (unitless, sd(y) per sd(g)).
        n: (m,) effective sample size of each variant's effect.
        R: (m, m) correlation of the variants in the LD reference, float32 or float64, unit diagonal.
        chromosome: label of the chromosome the block lies on.
        position: (m,) base-pair positions, ascending; None when nobody knows them.
    """

    beta_hat: Floats
    n: Floats
    R: AnyFloats
    chromosome: str = ""
    position: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        m = self.beta_hat.shape[0]
        if self.n.shape != (m,) or self.R.shape != (m, m):
            raise PredictorError(
                f"block of {m} effects has n of shape {self.n.shape} and R of shape {self.R.shape}; "
                f"expected ({m},) and ({m}, {m})"
            )
        if self.position is not None and self.position.shape != (m,):
            raise PredictorError(f"block of {m} effects has positions of shape {self.position.shape}; expected ({m},)")


@dataclass(frozen=True, slots=True)
class Promise:
    """What the summary statistics promise of weights w in people outside the GWAS.

    ``E[w'b_new] = w'b - penalty``: the weights correlate with the noise of the statistics that they were fitted to, and
    the penalty is that covariance, ``tr(dw/db Cov(b))`` with Cov(b) = R/N.

    Attributes:
        covariance: w'b, of the score with the trait, in the GWAS itself.
        penalty: what of it is noise.
        variance: w'Rw, of the score.
    """

    covariance: float
    penalty: float
    variance: float

    @property
    def r2(self) -> float:
        """R2 promised out of sample, ``(w'b - penalty)^2 / w'Rw``; 0 when nothing but noise is left."""
        kept = max(self.covariance - self.penalty, 0.0)
        return kept**2 / self.variance if self.variance > 0 else 0.0


@dataclass(frozen=True, slots=True)
class PredictorFit:
    """Weights of one trait and how they were found.

    Attributes:
        weights: one (m,) array per block, standardised scale (multiply by 1/sd(g) for per-allele weights).
        promise: what they promise out of sample; None where the method cannot say.
        record: everything a report states: hyper-parameters, diagnostics, fallbacks taken.
    """

    weights: list[Floats]
    promise: Promise | None
    record: Mapping[str, object] = field(default_factory=dict)

    @property
    def r2_promised(self) -> float | None:
        """R2 promised out of sample, None where the method cannot say."""
        return None if self.promise is None else self.promise.r2


#: ``map(function, *iterables)``; the caller may hand in one that distributes the work.
MapFunction = Callable[..., Sequence[object]]


def map_in_process(function: Callable[..., object], *iterables: Iterable[object]) -> list[object]:
    """Return ``list(map(function, *iterables))``, the map used when nothing distributes the work."""
    return list(map(function, *iterables))


def score_variance(blocks: Sequence[BlockStatistics], weights: Sequence[Floats]) -> float:
    """Return ``sum_blocks w'Rw``, the variance of the standardised polygenic score."""
    return float(sum(w @ (block.R @ w) for block, w in zip(blocks, weights, strict=True)))


def promise_of(
    blocks: Sequence[BlockStatistics], weights: Sequence[Floats], penalty: Callable[[float], float]
) -> Promise:
    """Return the promise of weights; ``penalty`` is a function of w'Rw."""
    variance = score_variance(blocks, weights)
    covariance = sum(float(w @ block.beta_hat) for w, block in zip(weights, blocks, strict=True))
    return Promise(covariance, penalty(variance), variance)


def noise_covariance(block: BlockStatistics) -> Floats:
    """Return (m, m) ``R_jk / sqrt(n_j n_k)``, the sampling covariance of the marginal effects of a block."""
    scale = 1.0 / np.sqrt(block.n)
    return np.asarray(block.R * np.outer(scale, scale))


def compute_r2(prediction: Floats, y: Floats) -> float:
    """Return the squared correlation of a prediction with a trait; 0 when it is negative or either is constant.

    Out of fold, a prediction of noise correlates negatively with it; its square would look like a success.
    """
    spread = float(prediction.std() * y.std())
    if not spread > 0:
        return 0.0
    correlation = float(((prediction - prediction.mean()) * (y - y.mean())).mean()) / spread
    return max(correlation, 0.0) ** 2


def split_by_block(blocks: Sequence[BlockStatistics], weights: Floats) -> list[Floats]:
    """Return the (M,) genome-wide weights as one array per block.

    Raises:
        PredictorError: the blocks do not hold M variants.
    """
    sizes = [block.beta_hat.size for block in blocks]
    if weights.shape != (sum(sizes),):
        raise PredictorError(f"weights of shape {weights.shape} for blocks of {sum(sizes)} variants")
    return list(np.split(weights, np.cumsum(sizes)[:-1])) if sizes else []


#: ``tune(weights per block) -> how well they predict``, judged in data outside the GWAS; larger is better.
Tune = Callable[[Sequence[Floats]], float]


def select_best(candidates: Sequence[Sequence[Floats]], tune: Tune) -> tuple[int, Floats]:
    """Return which of several sets of weights predicts best, and the score of each.

    Args:
        candidates: weights per block of each grid point, NaN where its fit diverged.
        tune: scores one set of weights.

    Returns:
        Index of the best, (candidates,) scores; NaN where diverged.

    Raises:
        PredictorError: no candidate has a finite score.
    """
    scores = np.array([tune(w) if all(np.isfinite(part).all() for part in w) else np.nan for w in candidates])
    if not np.isfinite(scores).any():
        raise PredictorError(
            f"none of {len(candidates)} grid points has a finite score: the fits diverged or predict nothing; "
            "check the summary statistics against the LD reference"
        )
    return int(np.nanargmax(scores)), scores


def tune_on_summary(blocks: Sequence[BlockStatistics], beta_hat_tuning: Sequence[Floats]) -> Tune:
    """Return a Tune that needs no individual data: correlation ``w'b / sqrt(w'Rw)`` with an independent sample's b.

    Args:
        blocks: LD blocks, for R.
        beta_hat_tuning: per block, standardised marginal effects of the same variants in people outside the GWAS.

    Returns:
        A function that scores weights; 0 for weights that are all zero.

    Raises:
        PredictorError: the marginal effects do not fit the blocks.
    """
    wanted, got = [block.beta_hat.size for block in blocks], [b.size for b in beta_hat_tuning]
    if wanted != got:
        raise PredictorError(
            f"tuning effects come in blocks of {got[:5]} variants, the LD blocks hold {wanted[:5]} (first five)"
        )

    def tune(weights: Sequence[Floats]) -> float:
        variance = score_variance(blocks, weights)
        covariance = sum(float(w @ b) for w, b in zip(weights, beta_hat_tuning, strict=True))
        return covariance / np.sqrt(variance) if variance > 0 else 0.0

    return tune
