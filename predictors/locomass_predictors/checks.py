"""What every predictor must do, as checks that any of them can be run through.

A predictor enters as a ``Fit``: it sees dosages by chromosome and a trait, and returns a function that scores dosages
by chromosome. ``fit_from_summary`` turns a summary-statistic method into one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from locomass_predictors.base import BlockStatistics, Floats, PredictorError, PredictorFit
from locomass_predictors.ld import correlation_from_dosage, standardise_columns

Dosages = Mapping[str, Floats]
Score = Callable[[Dosages], Floats]
#: ``fit(dosages, y, sample) -> score``; ``sample`` numbers the people, so that folds can follow them when they move
Fit = Callable[[Dosages, Floats, NDArray[np.int64]], Score]


@dataclass(frozen=True, slots=True)
class Cohort:
    """People to fit and to score.

    Attributes:
        dosages: (n, m) dosages by chromosome.
        y: (n,) quantitative trait.
        sample: (n,) numbers of the people.
    """

    dosages: Dosages
    y: Floats
    sample: NDArray[np.int64]


def simulate_cohort(*, n: int = 400, n_chromosomes: int = 3, m: int = 20, h2: float = 0.6, seed: int = 1) -> Cohort:
    """Return people with correlated neighbouring variants and a trait that every variant affects a little.

    Args:
        n: people.
        n_chromosomes: chromosomes, labelled 1, 2, ...
        m: variants per chromosome.
        h2: share of the variance of the trait that they explain.
        seed: seed.

    Returns:
        The cohort.
    """
    rng = np.random.default_rng(seed)
    dosages = {}
    for c in range(n_chromosomes):
        founders = rng.random((2, n, m)) < rng.uniform(0.2, 0.5, m)
        copied = rng.random((2, n, m)) < 0.6
        for j in range(1, m):
            founders[:, :, j] = np.where(copied[:, :, j], founders[:, :, j - 1], founders[:, :, j])
        dosages[str(c + 1)] = founders.sum(axis=0).astype(np.float64)
    Z = np.hstack([standardise_columns(G) for G in dosages.values()])
    genetic = Z @ rng.standard_normal(Z.shape[1])
    noise = rng.standard_normal(n)
    y = np.sqrt(h2) * genetic / genetic.std() + np.sqrt(1.0 - h2) * noise / noise.std()
    return Cohort(dosages, y, np.arange(n))


def fit_from_summary(fit: Callable[[Sequence[BlockStatistics]], PredictorFit]) -> Fit:
    """Return a Fit that computes marginal effects and one LD block per chromosome, and fits those.

    Args:
        fit: the method, everything but the blocks already chosen.

    Returns:
        The Fit; it scores with per-allele weights on the scale of the trait.
    """

    def fit_cohort(dosages: Dosages, y: Floats, sample: NDArray[np.int64]) -> Score:
        centred = y - y.mean()
        blocks, scale = [], []
        for chromosome, G in dosages.items():
            n, position = np.full(G.shape[1], float(sample.size)), 1_000 * np.arange(1, G.shape[1] + 1)
            beta_hat = standardise_columns(G).T @ centred / np.sqrt(centred @ centred)
            blocks.append(BlockStatistics(beta_hat, n, correlation_from_dosage(G), chromosome, position))
            sd = G.std(axis=0)
            scale.append(np.divide(y.std(), sd, out=np.zeros_like(sd), where=sd > 0))
        weights = [w * s for w, s in zip(fit(blocks).weights, scale, strict=True)]
        return lambda new: np.stack([new[block.chromosome] @ w for block, w in zip(blocks, weights, strict=True)])

    return fit_cohort


def leave_out(parts: Floats, c: int) -> Floats:
    """Return the (n,) leave-one-chromosome-out prediction ``sum_d parts_d - parts_c`` from (C, n) parts."""
    return np.asarray(parts.sum(axis=0) - parts[c])


def check_chromosome_left_out(fit: Fit, cohort: Cohort, *, tolerance: float = 1e-12) -> None:
    """Check that editing the genotypes of chromosome c leaves c's LOCO prediction as it was, and the others not.

    Raises:
        PredictorError: it does not.
    """
    score = fit(cohort.dosages, cohort.y, cohort.sample)
    before = score(cohort.dosages)
    size = before.sum(axis=0).std()
    for c, chromosome in enumerate(cohort.dosages):
        edited = score({**cohort.dosages, chromosome: 2.0 - cohort.dosages[chromosome]})
        change = np.abs(leave_out(edited, c) - leave_out(before, c)).max()
        # the edit turns the chromosome's score upside down: numbers of its own size come and go in the subtraction
        if not change <= tolerance * max(size, np.abs(before).max()):
            raise PredictorError(f"editing chromosome {chromosome} changes its own LOCO prediction by {change:.3g}")
        if before[c].std() > 0 and not np.abs(edited[c] - before[c]).max() > 0:
            raise PredictorError(f"editing chromosome {chromosome} does not change its score")


def check_sample_permutation(fit: Fit, cohort: Cohort, *, tolerance: float = 1e-6) -> None:
    """Check that the order of the people does not matter, to ``tolerance`` standard deviations of the prediction.

    Raises:
        PredictorError: it does.
    """
    order = np.random.default_rng(0).permutation(cohort.y.size)
    moved = {chromosome: G[order] for chromosome, G in cohort.dosages.items()}
    before = fit(cohort.dosages, cohort.y, cohort.sample)(cohort.dosages)
    after = fit(moved, cohort.y[order], cohort.sample[order])(cohort.dosages)
    _compare(before, after, tolerance, "the prediction depends on the order of the samples")


def check_trait_rescaling(fit: Fit, cohort: Cohort, *, tolerance: float = 1e-6) -> None:
    """Check that a trait of 40 y + 7 gives 40 times the prediction.

    Raises:
        PredictorError: it does not.
    """
    before = fit(cohort.dosages, cohort.y, cohort.sample)(cohort.dosages)
    after = fit(cohort.dosages, 40.0 * cohort.y + 7.0, cohort.sample)(cohort.dosages)
    _compare(before, after / 40.0, tolerance, "the prediction does not scale with the trait")


def check_determinism(fit: Fit, cohort: Cohort) -> None:
    """Check that two fits of the same data agree to the last bit.

    Raises:
        PredictorError: they do not.
    """
    first, second = (fit(cohort.dosages, cohort.y, cohort.sample)(cohort.dosages) for _ in range(2))
    _compare(first, second, 0.0, "two fits with the same seed differ")


def check_limits(fit: Fit, cohort: Cohort, *, least_r2: float = 0.9) -> None:
    """Check what must come out at the ends: no variation gives no score, no noise gives nearly the whole trait.

    Raises:
        PredictorError: it does not.
    """
    first = next(iter(cohort.dosages))
    constant = {**cohort.dosages, first: np.ones_like(cohort.dosages[first])}
    parts = fit(constant, cohort.y, cohort.sample)(cohort.dosages)
    if not (parts[0] == 0.0).all():
        raise PredictorError(f"chromosome {first} did not vary in training and yet has weights that are not 0")
    Z = np.hstack([standardise_columns(G) for G in cohort.dosages.values()])
    y = Z @ np.random.default_rng(2).standard_normal(Z.shape[1])
    total = fit(cohort.dosages, y, cohort.sample)(cohort.dosages).sum(axis=0)
    r2 = float(np.corrcoef(total, y)[0, 1] ** 2) if total.std() > 0 else 0.0
    if not r2 >= least_r2:
        raise PredictorError(f"a trait without noise is predicted with R2 {r2:.3f}, expected at least {least_r2}")


def check_infinite_sample(fit: Callable[[Sequence[BlockStatistics]], PredictorFit], *, tolerance: float = 1e-3) -> None:
    """Check that without LD, and with an endless sample, weights are the marginal effects.

    Args:
        fit: a summary-statistic method, everything but the blocks already chosen.
        tolerance: largest difference, in units of the largest effect.

    Raises:
        PredictorError: they are not.
    """
    effects, n = np.random.default_rng(3).choice([-0.05, 0.02, 0.1], (3, 10)), np.full(10, 1e12)
    blocks = [BlockStatistics(b, n, np.eye(10, dtype=np.float32), "1", 1_000 * np.arange(10)) for b in effects]
    difference = float(np.abs(np.stack(fit(blocks).weights) - effects).max())
    if not difference <= tolerance * 0.1:
        raise PredictorError(f"weights differ from the effects by {difference:.3g} although sample size is endless")


def check_predictor(fit: Fit, cohort: Cohort | None = None, *, tolerance: float = 1e-6, least_r2: float = 0.9) -> None:
    """Run every check that individual data allow.

    Args:
        fit: the predictor.
        cohort: people to fit; simulated when None.
        tolerance: how much the order of the samples or the unit of the trait may matter, in standard deviations of
            the prediction; rounding reaches the weights through float32 correlations.
        least_r2: smallest R2 expected for a trait without noise.

    Raises:
        PredictorError: a check fails; the message says which.
    """
    cohort = simulate_cohort() if cohort is None else cohort
    check_chromosome_left_out(fit, cohort)
    check_sample_permutation(fit, cohort, tolerance=tolerance)
    check_trait_rescaling(fit, cohort, tolerance=tolerance)
    check_determinism(fit, cohort)
    check_limits(fit, cohort, least_r2=least_r2)


def _compare(before: Floats, after: Floats, tolerance: float, message: str) -> None:
    if before.shape != after.shape:
        raise PredictorError(f"{message}: shapes {before.shape} and {after.shape}")
    difference, size = float(np.abs(before - after).max()), float(before.sum(axis=0).std())
    if not difference <= tolerance * size:
        raise PredictorError(f"{message}: by {difference:.3g} where its standard deviation is {size:.3g}")
