"""What a prediction method is: how it is fitted, what it may be told, what it needs, what can be asked of it.

A method is declared once, as ``METHOD`` at the end of its own file, and listed in `registry`. Whoever runs methods
(the predictor stage, the conformance suite, a study) reads the declaration and knows no method by name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import msgspec

from locomass_predictors.base import PredictorFit


class Options(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Base of what a method may be told; each field is declared once, with its range, default and a line of help."""


class Source(Enum):
    """What a prediction is made from."""

    NONE = "nothing"
    LOCO = "predictions that are ready"
    WEIGHTS = "weights that are ready"
    STACK = "other predictions"
    SUMMARY = "GWAS summary statistics and LD"
    COHORT = "the cohort's own genotypes and traits, out of fold"

    @property
    def role(self) -> str:
        """How the null model uses such a prediction: out-of-fold ones as offset, others as covariate."""
        return "offset" if self in (Source.LOCO, Source.COHORT) else "covariate"

    @property
    def from_gwas(self) -> bool:
        """Whether the people who trained it may be the people who are tested without the stage seeing it."""
        return self in (Source.SUMMARY, Source.WEIGHTS)


class Need(Enum):
    """What a method wants besides its blocks; of summary statistics mostly a keyword argument."""

    H2 = "h2"
    """``h2=``, the heritability that all variants explain."""
    H2_INIT = "h2_init"
    """``h2_init=``, a first guess of it, for a method that estimates it."""
    TUNING = "tune"
    """``tune=``, a score of weights in data outside the GWAS."""
    SEED = "seed"
    """``seed=``, for draws."""
    POSITIONS = "position"
    """``BlockStatistics.position``."""
    LD_BLOCKS = "ld_blocks"
    """Blocks that are cut where little r2 is lost, of a method that sees the cohort's genotypes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tags:
    """What the conformance suite may ask of a method.

    Attributes:
        tolerance: how much the order of the samples or the unit of the trait may matter, in standard deviations of the
            prediction.
        least_r2: least R2 for a trait without noise.
        endless: largest difference between weights and effects without LD and with an endless sample, in units of the
            largest effect.
        quick: options of a fit that the suite can wait for; the defaults when None.
        unpenalised: options under which an endless sample gives the effects back; ``quick`` when None.
    """

    tolerance: float = 1e-6
    least_r2: float = 0.85
    endless: float = 1e-3
    quick: Options | None = None
    unpenalised: Options | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A method.

    Attributes:
        name: what the configuration calls it.
        help: one line for `docs` and the configuration.
        source: what it is made from.
        fit: of SUMMARY, ``fit(blocks, options, *, map_function, **needs) -> PredictorFit``; of COHORT, ``fit(blocks,
            y, covariates, options, *, binary, n_folds, seed, map_function) -> list[CohortFit]``; None for what is
            ready or combined.
        options: what it may be told.
        needs: what it wants besides its blocks.
        tags: what the conformance suite may ask.
    """

    name: str
    help: str
    source: Source
    fit: Callable[..., Any] | None = None
    options: type[Options] = Options
    needs: frozenset[Need] = frozenset()
    tags: Tags = field(default_factory=Tags)

    def fit_summary(self, blocks: Any, options: Options, **offered: Any) -> PredictorFit:
        """Fit to LD blocks; of what is offered the method gets what it needs, and ``map_function``."""
        assert self.fit is not None
        wanted = {need.value for need in self.needs} | {"map_function"}
        fit: PredictorFit = self.fit(blocks, options, **{k: v for k, v in offered.items() if k in wanted})
        return fit
