"""Generalised Pareto tail of a resampled statistic (Pickands 1975; Knijnenburg et al. 2009).

The N largest of P replicates beyond a threshold t follow, in the limit, P(T - t > x | T > t) =
(1 + xi x / beta)^(-1/xi). So a statistic z beyond all replicates still has an estimate

    p = (N / P) (1 + xi (z - t) / beta)^(-1/xi),        exp(-(z - t)/beta) at xi = 0,

computed in log space. The shape xi is kept at or above nought: a negative one ends the support, and p = 0 is never an
answer; the exponential tail it is replaced by errs towards larger p.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from locomass.numbers import Floats

# Fewer distinct values than this (few carriers, discrete statistic) say nothing of a continuous tail.
MIN_DISTINCT = 50


@dataclass(frozen=True, slots=True)
class ParetoTail:
    """A fitted tail: ``n_beyond`` of ``n_total`` replicates exceed ``threshold``; excesses ~ GPD(shape, scale)."""

    threshold: float
    shape: float
    scale: float
    n_beyond: int
    n_total: int

    def log_sf(self, z: float) -> float:
        """Return the natural logarithm of P(T >= z), z at or above the threshold."""
        x = (z - self.threshold) / self.scale
        inside = math.log1p(self.shape * x) / self.shape if self.shape > 0 else x
        return math.log(self.n_beyond / self.n_total) - inside

    def log_sf_error(self, z: float) -> float:
        """Return the standard error of `log_sf`, about the relative error of p while it is small.

        Delta method: Var log p = (1 - N/P)/N + d' I^-1 d, I^-1 = (1 + xi)/N [[1 + xi, -beta], [-beta, 2 beta^2]] the
        inverse Fisher information of (xi, beta) (Smith 1984), d the gradient of log sf in (xi, beta).
        """
        xi, beta, n = self.shape, self.scale, self.n_beyond
        x = (z - self.threshold) / beta
        by_scale = x / (1.0 + xi * x) / beta
        small = xi * x < 1e-4
        by_shape = x * x * (0.5 - 2.0 * xi * x / 3.0) if small else math.log1p(xi * x) / xi**2 - x / (xi * (1 + xi * x))
        spread = (1 + xi) * by_shape**2 - 2 * beta * by_shape * by_scale + 2 * beta**2 * by_scale**2
        return math.sqrt((1.0 - n / self.n_total) / n + (1 + xi) / n * spread)


def fit_pareto_tail(replicates: Floats, n_beyond: int = 250) -> ParetoTail | None:
    """Fit the tail of the largest replicates by maximum likelihood with xi >= 0.

    With theta = xi / beta the likelihood has the profile xi(theta) = mean log(1 + theta x) (Grimshaw 1993), so the fit
    has one dimension: maximise -log(xi / theta) - xi - 1 over theta > 0, compare with theta -> 0, -log(mean x) - 1.

    Args:
        replicates: (P,) null values of the statistic.
        n_beyond: how many of the largest to use, at most a tenth of P.

    Returns:
        The tail, or None when the replicates are too few or too discrete to have one.
    """
    n = min(n_beyond, replicates.shape[0] // 10)
    if n < MIN_DISTINCT:
        return None
    largest = np.sort(np.partition(replicates, -(n + 1))[-(n + 1) :])
    threshold = 0.5 * float(largest[0] + largest[1])
    excess = largest[1:] - threshold
    if np.unique(excess).size < MIN_DISTINCT or excess[0] < 0:
        return None
    mean = float(np.mean(excess))

    def loss(log_theta: float) -> float:
        theta = math.exp(log_theta)
        xi = float(np.mean(np.log1p(theta * excess)))
        return math.log(xi / theta) + xi

    from scipy.optimize import minimize_scalar  # a tenth of a second that most runs do not need

    found = minimize_scalar(loss, bounds=(math.log(1e-6 / mean), math.log(1e3 / mean)), method="bounded")
    if float(found.fun) >= math.log(mean) - 1e-9:
        return ParetoTail(threshold, 0.0, mean, n, replicates.shape[0])
    theta = math.exp(float(found.x))
    xi = float(np.mean(np.log1p(theta * excess)))
    return ParetoTail(threshold, xi, xi / theta, n, replicates.shape[0])
