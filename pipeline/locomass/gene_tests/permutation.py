"""Searches over groupings with individual data: residuals permuted, the whole search repeated.

See `permutation_kernel` for the three ways to draw and `groupings` for the searches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from locomass.errors import InputError
from locomass.gene_tests.base import TestResult, missing_result
from locomass.gene_tests.groupings import Search, inverse_sd_weights, plan_searches
from locomass.gene_tests.permutation_kernel import (
    BERNOULLI,
    PERMUTE,
    Carriers,
    NullDraws,
    control_weights,
    empirical_variance,
    replicate_scores,
    score_carriers,
    search_permutations,
)
from locomass.gene_tests.permutation_trait import IndividualTrait
from locomass.gene_tests.resampling import DrawBlock, Resampling, resample_p
from locomass.gene_tests.search_draws import derive_seed, gene_key
from locomass.gene_tests.step_up import find_matrix_problem, make_results, search_once
from locomass.gene_tests.step_up_kernel import SearchPlan
from locomass.numbers import Floats

# A variant of which covariates leave less than this part has no score but rounding.
EXPLAINED = 1e-10
ALL_EXPLAINED = "intercept and covariates explain every variant"

Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class CarrierGenotypes:
    """Minor-allele dosages of a gene, sparse by variant; everyone not listed has none.

    Attributes:
        indptr: (m + 1,) where each variant's carriers begin.
        sample: (nnz,) sample numbers, distinct within a variant.
        dosage: (nnz,) dosages; missing calls already imputed.
        n_samples: n.
    """

    indptr: Integers
    sample: NDArray[np.int64]
    dosage: Floats
    n_samples: int

    def __post_init__(self) -> None:
        nnz = int(self.indptr[-1]) if self.indptr.size else -1
        if nnz < 0 or self.indptr[0] != 0 or np.any(np.diff(self.indptr) < 0):
            raise InputError("indptr must start at 0 and never fall")
        if self.sample.shape != (nnz,) or self.dosage.shape != (nnz,):
            raise InputError(
                f"indptr ends at {nnz}, but there are {self.sample.size} samples and {self.dosage.size} dosages"
            )
        if nnz and (self.sample.min() < 0 or self.sample.max() >= self.n_samples):
            raise InputError(f"carriers are numbered {self.sample.min()} to {self.sample.max()} of {self.n_samples}")
        if np.unique(self.variant() * np.int64(self.n_samples) + self.sample).size < nnz:
            raise InputError("a sample is listed twice for one variant")
        if not np.all(np.isfinite(self.dosage)):
            raise InputError("a dosage is not finite; impute missing calls first")

    @property
    def n_variants(self) -> int:
        """m, the number of variants."""
        return int(self.indptr.shape[0]) - 1

    def total(self) -> Floats:
        """Return the (m,) sums of dosages."""
        counts = np.bincount(self.variant(), weights=self.dosage, minlength=self.n_variants)
        return np.asarray(counts, dtype=np.float64)

    def variant(self) -> Integers:
        """Return the (nnz,) variant number of each entry."""
        return np.repeat(np.arange(self.n_variants), np.diff(self.indptr))

    def multiply(self, matrix: Floats) -> Floats:
        """Return G' A (m, p) for A (n, p)."""
        product = np.zeros((self.n_variants, matrix.shape[1]))
        np.add.at(product, self.variant(), self.dosage[:, None] * matrix[self.sample])
        return product


@dataclass(frozen=True, slots=True)
class _Prepared:
    """Arrays for the kernels, samples in position order."""

    carriers: Carriers
    null: NullDraws
    e: Floats
    case: Floats
    V: Floats


def search_individuals(
    genotypes: CarrierGenotypes,
    trait: IndividualTrait,
    searches: Sequence[Search],
    resampling: Resampling | None = None,
    V: Floats | None = None,
    stream: str = "",
) -> dict[str, TestResult]:
    """Run searches on individual data, one stream of permutations for all of them.

    Variants that intercept and covariates explain take no part: scores and replicates of theirs are rounding.

    Args:
        genotypes: carriers of m variants.
        trait: residuals and how to draw their replicates.
        searches: what to look for.
        resampling: when to stop; None for the defaults.
        V: (m, m) model variance of G'residual up to a factor; None takes it from the data:
            sigma2 G'(I - QQ')G, or G'WG - G'WX (X'WX)^-1 X'WG where mu is given.
        stream: what tells this gene's random numbers from those of others, such as its name.

    Returns:
        A row (T = 1) per search, as `step_up.search_statistics`.

    Raises:
        InputError: numbers of samples or variants that do not fit, or a V that is no variance matrix.
    """
    resampling = resampling or Resampling()
    if genotypes.n_variants == 0 or not np.any(genotypes.total() > 0):
        note = "no variants" if genotypes.n_variants == 0 else "all variants are monomorphic"
        return {search.name: missing_result(1, note) for search in searches}
    plan = plan_searches(searches, genotypes.n_variants)
    ready = _prepare(genotypes, trait, V)
    if not np.any(ready.V.diagonal() > 0):
        return {search.name: missing_result(1, ALL_EXPLAINED) for search in searches}
    U, weight = np.empty(genotypes.n_variants), _fixed_weights(ready)
    score_carriers(ready.carriers, ready.e, U)
    M = np.empty_like(ready.V)
    empirical_variance(ready.carriers, ready.e, ready.null.squares, M)
    if trait.case is not None:
        control_weights(ready.carriers, ready.case, ready.null.n_controls, weight)
    matrices = np.stack([M if empirical else ready.V for empirical in plan.empirical])
    outcome = search_once(plan, searches, U, matrices, weight)
    draw = _draw_permutations(plan, ready, derive_seed(resampling.seed, stream.encode(), gene_key(genotypes.total())))
    resampled = resample_p(draw, outcome.statistic, resampling)
    method = "bernoulli-resampling" if ready.null.method == BERNOULLI else "permutation"
    return make_results(searches, outcome, resampled, method)


def draw_replicates(
    genotypes: CarrierGenotypes, trait: IndividualTrait, n_replicates: int, seed: int, study: str, stream: str = ""
) -> Floats:
    """Return null replicates (P, m) of a study's G'residual, for sharing.

    The stream depends on the seed, the study's name and that of the gene, so replicates of different studies and genes
    are independent and those of one repeat. Divide by phi of the null model to bring them to the scale of U;
    `step_up.combine_replicates` sums them over studies.
    """
    ready = _prepare(genotypes, trait, None)
    U = np.empty((n_replicates, genotypes.n_variants))
    state = np.array([derive_seed(seed, study.encode(), stream.encode(), gene_key(genotypes.total()))], dtype=np.uint64)
    replicate_scores(ready.carriers, ready.null, state, np.arange(genotypes.n_samples), U)
    return U


def _prepare(genotypes: CarrierGenotypes, trait: IndividualTrait, V: Floats | None) -> _Prepared:
    """Put samples in position order (strata together, carriers first) and set up the draws."""
    n = genotypes.n_samples
    if trait.residual.shape[0] != n:
        raise InputError(f"genotypes are of {n} samples, the trait of {trait.residual.shape[0]}")
    shared = trait.null
    if V is None:
        V = _model_variance(genotypes, trait, shared.residual, shared.basis)
    elif V.shape != (genotypes.n_variants, genotypes.n_variants):
        raise InputError(f"V has shape {V.shape}; expected {(genotypes.n_variants, genotypes.n_variants)}")
    elif problem := find_matrix_problem(V):
        raise InputError(problem)
    genotypes = _take_varying(genotypes, V.diagonal() > 0)
    is_carrier = np.zeros(n, dtype=np.bool_)
    is_carrier[genotypes.sample] = True
    # the tree of cases has its people in one order for all genes; permutations want the carriers first
    first = shared.stratum if shared.method == BERNOULLI else 2 * shared.stratum + ~is_carrier
    order = shared.order if shared.method == BERNOULLI else np.argsort(first, kind="stable")
    slot = np.flatnonzero(is_carrier[order])
    case = np.zeros(n) if trait.case is None else trait.case.astype(np.float64)
    drawn = shared.method == BERNOULLI and trait.mu is not None
    null = NullDraws(
        method=shared.method,
        residual=shared.residual[order],
        case=case[order],
        binary=trait.case is not None,
        mu=trait.mu[order] if drawn and trait.mu is not None else np.empty(0),
        tree=shared.tree,
        basis=np.empty((0, n)) if shared.method == PERMUTE else np.ascontiguousarray(shared.basis[:, order]),
        stratum_start=shared.stratum_start,
        stratum_carriers=np.add.reduceat(is_carrier[shared.order], shared.stratum_start[:-1], dtype=np.int64),
        slot=slot,
        squares=float(shared.residual @ shared.residual),
        n_controls=float(n - case.sum()),
    )
    return _Prepared(
        _index_carriers(genotypes, order[slot]),
        null,
        e=null.residual[slot],
        case=null.case[slot],
        V=np.ascontiguousarray(V, dtype=np.float64),
    )


def _take_varying(genotypes: CarrierGenotypes, varies: Booleans) -> CarrierGenotypes:
    """Return the genotypes with nobody carrying the variants that do not vary given the covariates."""
    if varies.all():
        return genotypes
    kept = varies[genotypes.variant()]
    sizes = np.where(varies, np.diff(genotypes.indptr), 0)
    indptr = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    return CarrierGenotypes(indptr, genotypes.sample[kept], genotypes.dosage[kept], genotypes.n_samples)


def _index_carriers(genotypes: CarrierGenotypes, samples: Integers) -> Carriers:
    """Return the genotypes with distinct carriers numbered as in ``samples``, by variant and by carrier."""
    number = np.zeros(genotypes.n_samples, dtype=np.int64)
    number[samples] = np.arange(samples.shape[0])
    carrier, variant = number[genotypes.sample], genotypes.variant()
    by_carrier = np.lexsort((variant, carrier))
    rows = np.bincount(carrier, minlength=samples.shape[0])
    return Carriers(
        start=genotypes.indptr.astype(np.int64),
        carrier=carrier,
        dosage=genotypes.dosage.astype(np.float64),
        row_start=np.concatenate([[0], np.cumsum(rows)]).astype(np.int64),
        row_variant=variant[by_carrier].astype(np.int64),
        row_dosage=genotypes.dosage[by_carrier].astype(np.float64),
        total=genotypes.total(),
        n_samples=genotypes.n_samples,
    )


def _model_variance(genotypes: CarrierGenotypes, trait: IndividualTrait, residual: Floats, basis: Floats) -> Floats:
    """Return the variance of G'residual under the null model, exactly 0 where covariates explain a variant."""
    n, m = genotypes.n_samples, genotypes.n_variants
    if trait.mu is None:
        w = np.full(n, float(residual @ residual) / (n - 1 - basis.shape[0]))
        basis = np.vstack([np.full((1, n), 1.0 / np.sqrt(n)), basis]) / np.sqrt(w[0])
    else:
        w = trait.mu * (1.0 - trait.mu)
    rows, at = np.unique(genotypes.sample, return_inverse=True)
    dense = np.zeros((rows.size, m))
    dense[at, genotypes.variant()] = genotypes.dosage
    B = genotypes.multiply((basis * w).T)
    squares = dense.T @ (w[rows, None] * dense)
    product: Floats = squares - B @ B.T
    still = product.diagonal() <= EXPLAINED * squares.diagonal()
    product[still] = 0.0
    product[:, still] = 0.0
    return product


def _fixed_weights(ready: _Prepared) -> Floats:
    """Return inverse-sd weights counted in everyone."""
    return inverse_sd_weights(ready.carriers.total, float(ready.carriers.n_samples))


def _draw_permutations(plan: SearchPlan, ready: _Prepared, seed: np.uint64) -> DrawBlock:
    """Return a source of searches on permuted residuals."""
    state = np.array([seed], dtype=np.uint64)
    pool = np.arange(ready.carriers.n_samples)
    weight = _fixed_weights(ready)

    def draw(active: Booleans, statistic: Floats) -> None:
        search_permutations(plan, ready.carriers, ready.null, ready.V, weight, state, pool, active, statistic)

    return draw
