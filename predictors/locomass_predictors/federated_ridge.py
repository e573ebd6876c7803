"""Ridge over cohorts that keep their individuals to themselves: only sums over people leave a cohort."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.sparse.linalg import LinearOperator, cg

from locomass_predictors.base import Floats, PredictorError
from locomass_predictors.block_ridge import GenotypeBlock, find_orthonormal_basis, read_residualised


@dataclass(frozen=True, slots=True)
class FederatedCohort:
    """What runs inside one cohort. Its three answers are sums over people, per block.

    Genotypes and trait have the cohort's own covariates projected out, so that the pooled analysis in which each
    cohort keeps its own intercept and covariate effects is reproduced.

    Attributes:
        blocks: the same variants in the same blocks and with the same effect alleles in every cohort; dosages complete
            or NaN where missing.
        y: (n,) trait, on a scale that the cohorts share.
        covariates: (n, p) covariates with an intercept among them.
    """

    blocks: Sequence[GenotypeBlock]
    y: Floats
    covariates: Floats
    _basis: Floats = field(init=False, repr=False)
    _residual: Floats = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.y.shape != (len(self.covariates),):
            raise PredictorError(f"y has shape {self.y.shape}, covariates {self.covariates.shape}: samples differ")
        basis = find_orthonormal_basis(self.covariates)
        object.__setattr__(self, "_basis", basis)
        object.__setattr__(self, "_residual", self.y - basis @ (basis.T @ self.y))

    @property
    def n_samples(self) -> int:
        """People in the cohort."""
        return int(self.y.size)

    def share_cross_products(self) -> list[Floats]:
        """Return X_b'X_b, (m, m), of every block: sent once."""
        return [X.T @ X for X in map(self._read, self.blocks)]

    def share_trait_products(self) -> list[Floats]:
        """Return X_b'y, (m,), of every block: sent once."""
        return [self._read(block).T @ self._residual for block in self.blocks]

    def share_fitted_products(self, weights: Sequence[Floats]) -> list[Floats]:
        """Return X_b'f, (m,), of every block, f = X w the cohort's fitted values at the centre's weights."""
        fitted = np.zeros(self.n_samples)
        for block, w in zip(self.blocks, weights, strict=True):
            fitted += self._read(block) @ w
        return [self._read(block).T @ fitted for block in self.blocks]

    def _read(self, block: GenotypeBlock) -> Floats:
        return read_residualised(block, self._basis)


@dataclass(frozen=True, slots=True)
class FederatedRidgeFit:
    """Weights that every cohort can score with.

    Attributes:
        weights: one (m,) array of per-allele weights per block.
        chromosomes: (B,) chromosome of each block; a chromosome is left out by leaving its blocks out of the score.
        n_rounds: exchanges that followed the first.
        n_samples: people in all cohorts.
    """

    weights: list[Floats]
    chromosomes: tuple[str, ...]
    n_rounds: int
    n_samples: int


def fit_federated_ridge(
    cohorts: Sequence[FederatedCohort], *, h2: float, tolerance: float = 1e-12, max_rounds: int = 1_000
) -> FederatedRidgeFit:
    """Fit the ridge of the pooled data without pooling them.

    Solves ``(X'X + M (1 - h2)/h2 D) w = X'y`` over all blocks jointly, with X'X and X'y the sums over cohorts and
    ``D = diag(X'X)/n``, which puts the penalty on the scale of standardised genotypes. Cohorts send X_b'X_b and X_b'y
    of every block once. How blocks correlate with each other enters through X_b'f, f = X w: one vector per block and
    round of a conjugate-gradient search, preconditioned by the ridge of each block on its own. At convergence the
    weights are those of the pooled ridge.

    Args:
        cohorts: the cohorts, all with the same blocks.
        h2: share of the variance that the variants explain together, between 0 and 1.
        tolerance: relative residual at which the search stops.
        max_rounds: most exchanges.

    Returns:
        Per-allele weights, one set for all cohorts.

    Raises:
        PredictorError: no cohort, blocks that differ between cohorts, h2 outside (0, 1), or no convergence.

    Source: Bulik-Sullivan (2015), Mixed models for meta-analysis and sequencing, footnote on iterating summary
    statistics; Hestenes & Stiefel (1952) for the search.
    """
    layout = _check_cohorts(cohorts, h2)
    sizes = [size for _, size in layout]
    cuts = np.cumsum(sizes)[:-1]
    n, M = sum(cohort.n_samples for cohort in cohorts), sum(sizes)
    XX = [sum(parts) for parts in zip(*(cohort.share_cross_products() for cohort in cohorts), strict=True)]
    Xy = np.sum([np.concatenate(cohort.share_trait_products()) for cohort in cohorts], axis=0)
    diagonal = np.concatenate([np.diag(A) for A in XX]) / n
    # a variant that nobody carries gets weight 0 from a penalty of 1
    penalty = M * (1.0 - h2) / h2 * np.where(diagonal > 1e-12, diagonal, 1.0)
    factors = [cho_factor(A + np.diag(d), lower=True) for A, d in zip(XX, np.split(penalty, cuts), strict=True)]
    n_rounds = 0

    def apply(v: Floats) -> Floats:
        nonlocal n_rounds
        n_rounds += 1
        parts = np.split(v, cuts)
        products: Floats = np.sum([np.concatenate(c.share_fitted_products(parts)) for c in cohorts], axis=0)
        return penalty * v + products

    def precondition(v: Floats) -> Floats:
        return np.concatenate([cho_solve(f, part) for f, part in zip(factors, np.split(v, cuts), strict=True)])

    w, failed = cg(
        LinearOperator((M, M), matvec=apply, dtype=np.float64),
        Xy,
        rtol=tolerance,
        maxiter=max_rounds,
        M=LinearOperator((M, M), matvec=precondition, dtype=np.float64),
    )
    if failed:
        raise PredictorError(f"federated ridge did not converge in {max_rounds} rounds; raise max_rounds or lower h2")
    return FederatedRidgeFit(list(np.split(w, cuts)), tuple(name for name, _ in layout), n_rounds, n)


def _check_cohorts(cohorts: Sequence[FederatedCohort], h2: float) -> list[tuple[str, int]]:
    """Return chromosome and size of every block, the same in all cohorts."""
    if not 0 < h2 < 1:
        raise PredictorError(f"federated ridge needs a heritability between 0 and 1, got {h2}")
    layouts = [[(block.chromosome, block.n_variants) for block in cohort.blocks] for cohort in cohorts]
    if not layouts or not layouts[0]:
        raise PredictorError("federated ridge needs at least one cohort with at least one block")
    for k, layout in enumerate(layouts):
        if layout != layouts[0]:
            raise PredictorError(
                f"cohort {k + 1} has blocks (chromosome, variants) {layout[:5]}, the first one {layouts[0][:5]}: all "
                "cohorts must use the centre's list of variants and blocks"
            )
    return layouts[0]
