"""Type I error of scores of a time to event: the law of the martingale residuals, and the normal law beside it.

Every round draws phenotypes anew: hazard and censoring depend on a covariate, each study has its own baseline hazard.
Carriers are drawn at random, so that every rejection is false. Tails below 1 / replicates are not seen by this study.

    python studies/time_to_event.py [--rounds 40] [--variants 50] [--people 5000]
"""

from __future__ import annotations

import argparse

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, chi2

from locomass.follow_up import FollowUp
from locomass.gene_tests.law import Law, Residuals
from locomass.gene_tests.law_tails import score_log_p
from locomass.null_models.base import NullFit
from locomass.null_models.cox import fit_cox
from locomass.scores.laws import describe_residuals

RATES, COUNTS, STUDIES, LEVELS = (0.5, 0.1, 0.01, 0.002), (1, 3, 10, 30, 100), (1, 5), (0.05, 0.01, 0.001)
Floats = NDArray[np.float64]


def draw_study(rng: np.random.Generator, n: int, rate: float) -> tuple[NullFit, Residuals]:
    """Return the null model of a study of n people of whom about ``rate`` have the event, and their residuals."""
    x = rng.normal(size=n)
    end = rng.exponential(np.exp(-0.5 * x)) + 0.1
    hazard = np.exp(0.5 * x)
    failure = rng.exponential(1 / hazard)
    # the longest factor of the times to failure that leaves the wanted share of events
    event = np.argsort(failure / end)[: max(2, round(rate * n))]
    scale = 1.0 / np.max(failure[event] / end[event])
    died = np.isin(np.arange(n), event)
    exit = np.where(died, failure * scale, end)
    Z = np.linalg.qr(np.column_stack([np.ones(n), x]))[0]
    follow_up = FollowUp(np.full(n, -np.inf), exit, died, np.zeros(n, np.int64))
    fit = fit_cox(follow_up, Z, np.empty((n, 0)), np.zeros(n))
    told = describe_residuals(fit.residual, 0, died)
    return fit, Residuals(np.array(told["node"]) * float(np.std(fit.residual)), np.array(told["chance"]))


def test_variant(rng: np.random.Generator, studies: list[tuple[NullFit, Residuals]], count: int) -> tuple[float, float]:
    """Return p by the law, and by the normal law with the information, of a variant of ``count`` random carriers."""
    share = rng.multinomial(count, np.full(len(studies), 1 / len(studies)))
    U, information, variance = 0.0, 0.0, []
    for (fit, residuals), c in zip(studies, share, strict=True):
        n = fit.residual.size
        carriers = rng.choice(n, c, replace=False)
        U += float(fit.residual[carriers].sum())
        information += float(fit.weight[carriers].sum())
        spread = float(residuals.probability @ residuals.node**2)
        variance.append(spread * (c - c * c / n))
    kept = np.flatnonzero(share)
    law = Law(
        np.arange(kept.size + 1),
        np.ones(kept.size),
        share[kept].astype(float),
        np.full(kept.size, np.nan),
        np.array(variance)[kept],
        tuple(studies[k][1] for k in kept),
    )
    return float(np.exp(score_log_p(law, U)[0])), float(chi2.sf(U * U / information, 1)) if information > 0 else 1.0


def main() -> None:
    """Print size over level, with its 95 % interval, for every design."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("rounds", 40), ("variants", 50), ("people", 5_000), ("seed", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    total = options.rounds * options.variants
    print("| events | studies | MAC |", " | ".join(f"law, {a:g} | normal, {a:g}" for a in LEVELS), "|")
    print("|---:|---:|---:|" + "---:|" * (2 * len(LEVELS)))
    for rate in RATES:
        for k in STUDIES:
            p = np.empty((options.rounds, len(COUNTS), options.variants, 2))
            for r in range(options.rounds):
                studies = [draw_study(rng, options.people, rate) for _ in range(k)]
                for c, count in enumerate(COUNTS):
                    p[r, c] = [test_variant(rng, studies, count) for _ in range(options.variants)]
            for c, count in enumerate(COUNTS):
                cells = [_cell(p[:, c, :, j], level, total) for level in LEVELS for j in range(2)]
                print(f"| {rate:.1%} | {k} | {count} |", " | ".join(cells), "|", flush=True)


def _cell(p: Floats, level: float, total: int) -> str:
    """Return size over level and its interval."""
    hits = int((p <= level).sum())
    low, high = binomtest(hits, total).proportion_ci()
    return f"{hits / total / level:.2f} ({low / level:.2f} to {high / level:.2f})"


if __name__ == "__main__":
    main()
