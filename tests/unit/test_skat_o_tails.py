"""SKAT-O in the far tail against P(min over rho of p_rho <= observed) by its definition, without a common step.

Six independent scores, three of variance v_1 and three of variance v_2. With z_k the standardised sum of a group and R
what its scores vary around their mean,

    S = u'u = v_1 z_1^2 + v_2 z_2^2 + R,    b = 1'u = sqrt(3 v_1) z_1 + sqrt(3 v_2) z_2,    R = v_1 chi2_2 + v_2 chi2_2,

and ``P(R > r) = (v_1 e^(-r / 2 v_1) - v_2 e^(-r / 2 v_2)) / (v_1 - v_2)``. In polar coordinates (z_1, z_2) has a
uniform angle and ``y = z_1^2 + z_2^2`` the density e^(-y/2) / 2. Along an angle every Q_rho is linear in y, so the
integral over y is a sum of exponentials; the mean over angles is a periodic trapezoid rule. No characteristic function
is inverted, and small numbers stay relative at any p.
"""

import math

import numpy as np
import pytest
from scipy import optimize

from locomass.gene_tests.base import ScoreStatistics
from locomass.gene_tests.registry import evaluate

GRID = (0.0, 0.01, 0.04, 0.09, 0.16, 0.25, 0.5, 1.0)
V1, V2 = 1.0, 0.3
VARIANCES = np.repeat([V1, V2], 3)
ANGLES = (np.arange(900) + 0.5) * math.pi / 900


def crossing(T: dict[float, float]) -> float:
    """Return P(Q_rho > T_rho for some rho in T), Q_rho = (1 - rho) S + rho b^2."""
    return float(np.mean([along(angle, T) for angle in ANGLES]))


def along(angle: float, T: dict[float, float]) -> float:
    """Return the same given the angle: R must pass the lowest of the lines ``height - slope y``."""
    b2 = (math.sqrt(3 * V1) * math.cos(angle) + math.sqrt(3 * V2) * math.sin(angle)) ** 2
    s = V1 * math.cos(angle) ** 2 + V2 * math.sin(angle) ** 2
    lines = [(t / (1 - rho), rho / (1 - rho) * b2 + s) for rho, t in T.items() if rho < 1]
    end = min([h / k for h, k in lines] + [T[1.0] / b2 if 1.0 in T else math.inf])
    kinks = {(h - g) / (k - l) for h, k in lines for g, l in lines if k > l}
    edges = [0.0, *sorted(y for y in kinks if 0 < y < end), end]
    total = math.exp(-end / 2)
    if lines:
        for low, high in zip(edges[:-1], edges[1:], strict=True):
            height, slope = min(lines, key=lambda line: line[0] - line[1] * (low + high) / 2)
            for v, sign in ((V1, 1), (V2, -1)):
                total += sign * v / (V1 - V2) / 2 * integrate_exp(height / (2 * v), (1 - slope / v) / 2, low, high)
    return total


def integrate_exp(height: float, rate: float, low: float, high: float) -> float:
    """Return the integral of exp(-height - rate y) from low to high."""
    first, step = math.exp(-height - rate * low), rate * (high - low)
    if abs(step) > 1:
        return (first - math.exp(-height - rate * high)) / rate
    return first * (high - low) * (-math.expm1(-step) / step if step else 1.0)


def quantile(rho: float, p: float, at_least: float) -> float:
    """Return T with P(Q_rho > T) = p."""
    high = 1.1 * at_least
    while crossing({rho: high}) > p:
        high *= 1.2
    return optimize.brentq(lambda t: math.log(crossing({rho: t}) / p), 0.99 * at_least, high, rtol=1e-12)


def smallest_and_tail(U: np.ndarray) -> tuple[float, float]:
    """Return the smallest p over rho and the probability of one as small."""
    Q = {rho: (1 - rho) * float(U @ U) + rho * float(U.sum()) ** 2 for rho in GRID}
    smallest = min(crossing({rho: q}) for rho, q in Q.items())
    return smallest, crossing({rho: quantile(rho, smallest, q) for rho, q in Q.items()})


def statistics_of(U: np.ndarray) -> ScoreStatistics:
    return ScoreStatistics(
        U=U[None], V=np.diag(VARIANCES), scale=np.ones(1), maf=np.full(6, 0.01), mac=np.full(6, 20.0),
        n_samples=np.full(1, 1000.0), rare=np.ones(6, bool),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("direction", "size", "exponent"),
    [
        pytest.param([1, -1, 1, -1, 1, -1], 3.65, 8, id="spread-1e-8"),
        pytest.param([1, -1, 1, -1, 1, -1], 5.5, 20, id="spread-1e-20"),
        pytest.param([1, 1, 1, 1, 1, 1], 3.0, 8, id="directional-1e-8"),
        pytest.param([1, 1, 1, 1, 1, 1], 4.72, 20, id="directional-1e-20"),
    ],
)
def test_skat_o_equals_its_definition_in_the_tail(direction, size, exponent):
    U = size * np.array(direction) * VARIANCES
    smallest, expected = smallest_and_tail(U)
    assert abs(math.log10(expected) + exponent) < 1
    assert smallest < expected < 8 * smallest
    for test in ("skat-o", "skat-o-published"):
        log_p = evaluate(statistics_of(U), (test,), ("flat",))[0][2].log_p[0]
        assert log_p == pytest.approx(math.log(expected), abs=1e-6)


def test_the_definition_is_right_where_it_can_be_counted():
    """A million draws at p about 0.02."""
    U = 0.9 * np.ones(6) * VARIANCES
    Q = {rho: (1 - rho) * float(U @ U) + rho * float(U.sum()) ** 2 for rho in GRID}
    x = np.random.default_rng(1).standard_normal((1_000_000, 6)) * np.sqrt(VARIANCES)
    S, b2 = (x * x).sum(axis=1), x.sum(axis=1) ** 2
    p = np.mean(np.any([(1 - rho) * S + rho * b2 > q for rho, q in Q.items()], axis=0))
    assert abs(p - crossing(Q)) < 4 * math.sqrt(p / 1e6)
