"""The whole chain on simulated data."""

from __future__ import annotations

import logging
from pathlib import Path

from locomass.commands.meta import run_meta_analysis
from locomass.commands.outcome import Outcome, Resources
from locomass.commands.run import run_study

log = logging.getLogger("locomass")


def run_demo(out: Path, seed: int, resources: Resources) -> Outcome:
    """Simulate two studies into ``out/data``, run both and combine them; return the outcome of the consortium."""
    from locomass.simulate.study import simulate_demo

    log.info("simulating two studies in %s", out / "data")
    simulate_demo(out / "data", seed=seed)
    bundles = []
    for name in ("study1", "study2"):
        where = run_study(out / "data" / f"{name}.yaml", out / "results" / name, resources)
        bundles.append(where.path / "bundle")
    return run_meta_analysis(out / "data" / "consortium.yaml", bundles, out / "results" / "consortium", resources)
