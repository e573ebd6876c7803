"""What a trait gives to the pass over the genotypes: the null-model seam.

Everything after de-noising asks a null model for the same few things, whatever kind of trait it is:

- ``U = G'r / phi``, with r the residual and phi = sigma2 (1 where the weights carry the variance);
- ``V = (G'WG - (Z'G)'(Z'G)) / phi``, with W the diagonal of the information and Z the columns to project out; of a time
  to event less what pairs of people share in risk sets (`risk_sets`);
- how one carrier's part of U is distributed: its *law*;
- y, mu and the design, for what is fitted, drawn or permuted later.

A new kind of model (time to event, relatives) is a `Regression` in a file of its own and a line in `registry`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from locomass.follow_up import FollowUp
from locomass.null_models.risk_sets import RiskSets
from locomass.numbers import Floats

Integers = NDArray[np.int64]

ALL_CHROMOSOMES = "all"  # one model serves every chromosome (but X, which may know sex) when there is no predictor

#: how a carrier's part of U is distributed under the null: ``g (Bernoulli(mu_i) - mu_i)``, or g times a residual drawn
#: from the study's own
Law = Literal["bernoulli", "residual"]


@dataclass(frozen=True)
class NullFit:
    """A fitted null model of n samples.

    Attributes:
        residual: (n,) y - mu, on the scale of y.
        weight: (n,) working weights W: 1 (quantitative: U and V are divided by sigma2 afterwards) or mu(1 - mu).
        sigma2: phi: residual variance r'r / (n - rank); 1 for a binary trait, whose W carries the variance.
        slope, slope_se: (q,) coefficients of the LOCO columns; empty in offset mode.
        variance_before, variance_after: residual variance (mean of mu(1 - mu) for binary) without and with the LOCO
            prediction.
        r2: share of the residual sum of squares that the prediction removes.
        mu: (n,) fitted mean; of a time to event the expected events, which are also W.
        coefficients: of a time to event without and with the prediction, to start other fits from.
        Z, risk: of a time to event, columns to project out and the risk sets.
    """

    residual: Floats
    weight: Floats
    sigma2: float
    slope: Floats
    slope_se: Floats
    variance_before: float
    variance_after: float
    r2: float
    mu: Floats
    coefficients: tuple[Floats, ...] = ()
    Z: Floats | None = None
    risk: RiskSets | None = None


@dataclass(frozen=True)
class Outcome:
    """What a null model is fitted to.

    Attributes:
        y: (n,) phenotype; 0 or 1 for a binary trait and for the event of a time to event.
        follow_up: of a time to event.
    """

    y: Floats
    follow_up: FollowUp | None = None


@dataclass(frozen=True)
class Design:
    """Covariates of the samples of one set.

    Attributes:
        X: (n, p) covariates with intercept.
        names: (p,) of the columns.
        basis: (n, p) orthonormal basis of them.
    """

    X: Floats
    names: Sequence[str]
    basis: Floats


class Regression(Protocol):
    """A kind of null model.

    Attributes:
        law: of a carrier's part of U.
    """

    @property
    def law(self) -> Law:
        """How a carrier's part of U is distributed."""
        ...

    def fit(self, outcome: Outcome, Z: Floats, F: Floats, offset: Floats, start: NullFit | None = None, /) -> NullFit:
        """Fit an outcome on Z (n, p) orthonormal covariates and F (n, q) LOCO columns, given an offset (n,).

        ``start`` is the fit of another chromosome, near which this one is.
        """
        ...

    def project_out(self, design: Design, F: Floats, fit: NullFit, /) -> tuple[Floats, Floats]:
        """Return Z in two parts: (n, p) that traits of one covariance share, and (n, q) that is the trait's own."""
        ...


@dataclass(frozen=True)
class Covariance:
    """Traits that share G'WG: all quantitative traits with the same samples (W = 1), or one trait of another kind."""

    name: str
    kind: str
    sample_set: str
    traits: tuple[str, ...]


@dataclass(frozen=True)
class ColumnLabel:
    """What one column of a `ChromosomeModel` is.

    Attributes:
        role: ``residual``, ``loco`` (to be projected out) or ``prediction`` (beside X in the design, nothing to
            project: a binary trait's, which its Z already holds).
        trait: whose it is.
        sample_set: sample set outside which the column is zero.
    """

    role: str
    trait: str
    sample_set: str


@dataclass(frozen=True)
class ChromosomeModel:
    """Null models of all traits on one chromosome, laid out for the pass; samples are the n analysed ones.

    Attributes:
        designs: per covariance, (n, p) the part of Z that its traits share; zero outside the sample set.
        weight: per covariance, (n,) diagonal of W; zero outside the sample set.
        columns: (n, q) residuals r, and what is projected out for one trait only; zero outside the trait's samples.
        labels: (q,) what each column is.
        predictions: (n, b) LOCO columns, orthonormal and orthogonal to X, that a design has and ``columns`` has not.
        prediction_labels: (b,) what they are.
        sigma2: trait -> phi.
        risk: per covariance, the risk sets of a time to event; None for other traits.
    """

    designs: tuple[Floats, ...]
    weight: tuple[Floats, ...]
    columns: Floats
    labels: tuple[ColumnLabel, ...]
    predictions: Floats
    prediction_labels: tuple[ColumnLabel, ...]
    sigma2: dict[str, float]
    risk: tuple[RiskSets | None, ...] = ()

    def risk_sets(self, k: int) -> RiskSets | None:
        """Return the risk sets of the k-th covariance; None where it is not of a time to event."""
        return self.risk[k] if self.risk else None

    def residual_column(self, trait: str) -> int:
        """Return the column with a trait's residuals."""
        return int(self._places["residual", trait][0])

    def loco_columns(self, trait: str) -> Integers:
        """Return the columns that are projected out for a trait and for no other."""
        return self._places.get(("loco", trait), np.empty(0, np.int64))

    @cached_property
    def _places(self) -> dict[tuple[str, str], Integers]:
        places: dict[tuple[str, str], list[int]] = {}
        for k, label in enumerate(self.labels):
            places.setdefault((label.role, label.trait), []).append(k)
        return {key: np.array(columns, np.int64) for key, columns in places.items()}


@dataclass(frozen=True, kw_only=True)
class NullModel:
    """The null model of one trait on one chromosome, on its own n samples.

    Attributes:
        trait: name.
        kind: ``quantitative``, ``binary`` or ``time_to_event``.
        law: how a carrier's part of U is distributed under the null.
        place: (N,) number of each analysed sample of the study among the n, -1 where it has no phenotype.
        y: (n,) phenotype; 0 or 1 for a binary trait and for the event of a time to event.
        residual: (n,) r = y - mu.
        weight: (n,) diagonal of W.
        sigma2: phi; 1 where W carries the variance.
        Z: (n, q) columns to project out, ``V = (G'WG - (Z'G)'(Z'G)) / sigma2``.
        X: (n, p) orthonormal basis of covariates and LOCO columns: the design, but for a change of basis.
    """

    trait: str
    kind: str
    law: Law
    place: NDArray[np.int64]
    y: Floats
    residual: Floats
    weight: Floats
    sigma2: float
    Z: Floats
    X: Floats

    @property
    def mu(self) -> Floats:
        """(n,) fitted mean, y - r; of a binary trait to 1.1e-16."""
        return self.y - self.residual


@dataclass(frozen=True)
class NullModels:
    """Null models of a study.

    Attributes:
        samples: (n,) FID_IID labels of the analysed samples.
        sample_sets: names; in_set is (n, S) with 1 where a sample belongs.
        covariances: groups of traits that share G'WG.
        traits: per trait, in order: name, kind, sample_set, covariance, n_samples, n_cases.
        y: (n, T) phenotypes, NaN where missing.
        bases: per sample set, (n, p) orthonormal basis of its covariates; zero outside the set.
        chromosomes: chromosome -> model; the key ``all`` serves every chromosome that has none of its own.
        rows: the rows of null_models.tsv.
    """

    samples: NDArray[np.object_]
    sample_sets: tuple[str, ...]
    in_set: NDArray[np.uint8]
    covariances: tuple[Covariance, ...]
    traits: tuple[dict[str, Any], ...]
    y: Floats
    bases: tuple[Floats, ...]
    chromosomes: dict[str, ChromosomeModel]
    rows: tuple[dict[str, Any], ...]

    def model(self, chromosome: str) -> ChromosomeModel:
        """Return the model of a chromosome."""
        if chromosome not in self.chromosomes and ALL_CHROMOSOMES in self.chromosomes:
            return self.chromosomes[ALL_CHROMOSOMES]
        return self.chromosomes[chromosome]

    def covariance_of(self, trait: str) -> int:
        """Return the number of the covariance that a trait belongs to."""
        return next(k for k, covariance in enumerate(self.covariances) if trait in covariance.traits)

    def set_of(self, trait: str) -> int:
        """Return the number of the sample set that a trait is observed in."""
        return self.sample_sets.index(next(t["sample_set"] for t in self.traits if t["name"] == trait))
