"""What a predictor is: block statistics in, standardised weights and a record of how they were found out.

A summary-statistic predictor sees the genome as LD blocks, each with the standardised marginal effects of its
variants and their correlation. It returns one weight per variant on the standardised scale (per standard deviation
of the genotype); the caller turns it into a per-allele weight. Hyper-parameters are genome-wide.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


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
    """

    beta_hat: Floats
    n: Floats
    R: NDArray[np.floating]
    chromosome: str = ""

    def __post_init__(self) -> None:
        m = self.beta_hat.shape[0]
        if self.n.shape != (m,) or self.R.shape != (m, m):
            raise PredictorError(
                f"block of {m} effects has n of shape {self.n.shape} and R of shape {self.R.shape}; "
                f"expected ({m},) and ({m}, {m})"
            )


@dataclass(frozen=True, slots=True)
class PredictorFit:
    """Weights of one trait and how they were found.

    Attributes:
        weights: one (m,) array per block, standardised scale (multiply by 1/sd(g) for per-allele weights).
        r2_promised: w'Rw summed over blocks, the R2 that the summary statistics promise out of sample.
        record: everything a report states: hyper-parameters, diagnostics, fallbacks taken.
    """

    weights: list[Floats]
    r2_promised: float
    record: Mapping[str, object] = field(default_factory=dict)


#: ``map(function, *iterables)``; the caller may hand in one that distributes the work.
MapFunction = Callable[..., Sequence[object]]


def promised_r2(blocks: Sequence[BlockStatistics], weights: Sequence[Floats]) -> float:
    """Return ``sum_blocks w'Rw``, the variance of the standardised polygenic score."""
    return float(sum(w @ (block.R @ w) for block, w in zip(blocks, weights, strict=True)))
