"""CPU time of the Cox null model on one core: 470,000 people, 15 covariates, 5 % events, late entry and tied days.

python benchmarks/cox.py [--people N]
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from threadpoolctl import threadpool_limits

from locomass.follow_up import FollowUp
from locomass.null_models.cox import fit_cox


def main() -> None:
    """Print the seconds of a first fit, compilation apart, and of the next chromosome's."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--people", type=int, default=470_000)
    n = parser.parse_args().people
    rng = np.random.default_rng(1)
    X = np.column_stack([np.ones(n), rng.normal(size=(n, 15))])
    Z = np.linalg.qr(X)[0]
    F = rng.normal(size=(n, 1))
    failure = rng.exponential(1 / (0.004 * np.exp(0.2 * X[:, 1] + 0.3 * F[:, 0])))
    entry, end = rng.uniform(0, 3, n), rng.uniform(12, 16, n)
    exit = np.ceil(np.minimum(entry + failure, end) * 365.25)
    follow_up = FollowUp(np.floor(entry * 365.25), exit, entry + failure <= end, np.zeros(n, np.int64))
    few = np.arange(2_000)
    with threadpool_limits(1):
        fit_cox(follow_up.take(few), np.linalg.qr(X[few])[0], F[few], np.zeros(few.size))
        start = time.process_time()
        first = fit_cox(follow_up, Z, F, np.zeros(n))
        middle = time.process_time()
        fit_cox(follow_up, Z, F + 0.1 * rng.normal(size=(n, 1)), np.zeros(n), first)
        end_of = time.process_time()
    print(f"{n:,} people, 15 covariates and a prediction, {int(follow_up.event.sum()):,} events")
    print(f"first chromosome: {middle - start:.1f} s of CPU; next, from its coefficients: {end_of - middle:.1f} s")


if __name__ == "__main__":
    main()
