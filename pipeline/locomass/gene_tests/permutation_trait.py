"""One trait of individual data and the null model that its replicates are drawn from, prepared once for all genes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from locomass.errors import InputError, StatisticsError
from locomass.gene_tests.case_draws import NOBODY, CaseTree, plan_case_draws
from locomass.gene_tests.permutation_kernel import BERNOULLI, PERMUTE, PROJECT
from locomass.numbers import Floats

# A covariate of which the others leave less than this part is rounding.
EXPLAINED = 1e-10
# Probabilities and covariates that vary within strata by less than this do not vary.
CONSTANT_TO = 1e-9

Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]


@dataclass(frozen=True)
class IndividualTrait:
    """One trait of the n samples and how its null replicates are drawn.

    Attributes:
        residual: (n,) residuals of the null model, y - mu.
        covariates: (n, p) covariates of the null model; None when it had an intercept only. With them each drawn
            phenotype is refitted (Freedman & Lane).
        case: (n,) True for cases of a binary trait; None for a quantitative one.
        mu: (n,) fitted probabilities; given, cases are drawn from them, as many as there are, and not permuted.
        strata: (n,) labels within which residuals are permuted, or each of which keeps its number of cases. Put strata
            whose means differ in the null model too.
    """

    residual: Floats
    covariates: Floats | None = None
    case: Booleans | None = None
    mu: Floats | None = None
    strata: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        n = self.residual.shape[0]
        for name in ("covariates", "case", "mu", "strata"):
            value = getattr(self, name)
            if value is not None and value.shape[0] != n:
                raise InputError(f"{name} has {value.shape[0]} rows, the residuals have {n}")
        if not np.all(np.isfinite(self.residual)):
            raise InputError("a residual is not finite; drop samples without a phenotype first")
        if self.mu is not None and self.case is None:
            raise InputError("mu needs a binary trait (case)")
        if self.mu is not None and not np.all((self.mu > 0) & (self.mu < 1)):
            raise InputError("fitted probabilities must lie between 0 and 1, both excluded")

    @cached_property
    def null(self) -> TraitNull:
        """What the draws for all genes share."""
        return _prepare_trait(self)


@dataclass(frozen=True, slots=True)
class TraitNull:
    """Null model of a trait, ready for draws.

    Attributes:
        method: PERMUTE, PROJECT or BERNOULLI.
        residual: (n,) residuals, orthogonal to intercept and covariates.
        basis: (p, n) rows that project: orthonormal and without the intercept, or (X'WX)^(-1/2) X' with it where mu is
            given.
        order: (n,) samples stratum by stratum.
        stratum: (n,) number of each sample's stratum.
        stratum_start: (S + 1,) where the strata begin in ``order``.
        tree: of the draws of cases, people in ``order``.
    """

    method: int
    residual: Floats
    basis: Floats
    order: Integers
    stratum: Integers
    stratum_start: Integers
    tree: CaseTree


def _prepare_trait(trait: IndividualTrait) -> TraitNull:
    """Return the draws' share that is the same for all genes.

    Raises:
        StatisticsError: the residuals are constant.
    """
    n = trait.residual.shape[0]
    strata = np.zeros(n, dtype=np.int64) if trait.strata is None else trait.strata
    stratum = np.unique(strata, return_inverse=True)[1].reshape(n).astype(np.int64)
    order = np.argsort(stratum, kind="stable")
    start = np.concatenate([[0], np.cumsum(np.bincount(stratum))]).astype(np.int64)
    design = _design_basis(np.ones(n) if trait.mu is None else trait.mu * (1.0 - trait.mu), trait.covariates)
    tree = NOBODY
    if trait.mu is None or trait.case is None:
        residual = trait.residual - trait.residual.mean()
        if not np.any(np.abs(residual) > 1e-12 * max(1e-300, float(np.max(np.abs(trait.residual))))):
            raise StatisticsError("the residuals are constant: there is nothing to permute")
        basis = _without_intercept(design)
        residual = residual - basis @ (basis.T @ residual)
        method = PROJECT if basis.shape[1] else PERMUTE
    else:
        w, basis = trait.mu * (1.0 - trait.mu), design / np.sqrt(trait.mu * (1.0 - trait.mu))[:, None]
        residual = trait.residual - w * (basis @ (basis.T @ trait.residual))
        same = _is_constant(np.column_stack([trait.mu, basis]), order, start)
        method = PERMUTE if same else BERNOULLI
        if method == BERNOULLI:
            tree = plan_case_draws(trait.mu[order], trait.case[order], start)
    return TraitNull(method, residual, np.ascontiguousarray(basis.T), order, stratum, start, tree)


def _is_constant(columns: Floats, order: Integers, start: Integers) -> bool:
    """Return whether no column varies within a stratum by more than rounding."""
    sorted_columns = columns[order]
    spread = np.maximum.reduceat(sorted_columns, start[:-1]) - np.minimum.reduceat(sorted_columns, start[:-1])
    return bool(np.all(spread <= CONSTANT_TO * np.abs(columns).max(axis=0)))


def _design_basis(w: Floats, covariates: Floats | None) -> Floats:
    """Return an orthonormal basis (n, rank) of ``W^(1/2) [1, covariates]``, columns brought to one length first.

    A direction of which less than 1e-10 is left once the others are known is rounding.
    """
    columns = np.ones((w.size, 1)) if covariates is None else np.column_stack([np.ones(w.size), covariates])
    X = columns * np.sqrt(w)[:, None]
    length = np.sqrt((X * X).sum(axis=0))
    vectors, sizes, _ = np.linalg.svd(X[:, length > 0.0] / length[length > 0.0], full_matrices=False)
    kept: Floats = vectors[:, sizes > EXPLAINED * sizes[0]]
    return kept


def _without_intercept(design: Floats) -> Floats:
    """Return an orthonormal basis of what a basis of [1, covariates] holds beside the intercept.

    Centred, the basis has the singular values 1, and 0 once: no tolerance has to tell rounding from a covariate, and
    with an intercept only nothing is left.
    """
    vectors, sizes, _ = np.linalg.svd(design - design.mean(axis=0), full_matrices=False)
    kept: Floats = vectors[:, sizes > 0.5]
    return kept
