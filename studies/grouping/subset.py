"""A few genes, replicates and models in seconds: whether the study still says what its page says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from scipy.stats import binom

from studies.grouping.design import EFFECTS, Unit
from studies.grouping.models import ALPHA, model_name
from studies.grouping.run import Settings, run_units
from studies.grouping.summary import Rates

REPLICATES, NULL_REPLICATES = 10, 20
STEP_UP = {v: model_name("step-up", "both", "fixed", v) for v in ("empirical", "model")}
FLAT, WEIGHTED = (model_name("no cut-off", w, "fixed") for w in ("constant", "inverse-sd"))
SIGNED, RARE = model_name("no cut-off", "constant", "data"), model_name("MAF <= 1 %", "both", "fixed")
MODELS = (*STEP_UP.values(), FLAT, WEIGHTED, SIGNED, RARE, "CMC", "SKAT")
SETTINGS = Settings(permutations=100, engine="built-in", sizes=(10, 20, 36, 54), models=MODELS)
TRAITS, SCENARIOS = ("quantitative", "case-control"), ("1", "3", "5")


def run_subset(checkpoint: Path, processes: int = 1) -> Rates:
    """Run the units of the subset: largest effect only."""
    units = [Unit(t, "1", 0.0, r) for t in TRAITS for r in range(NULL_REPLICATES)]
    units += [Unit(t, s, EFFECTS[-1], r) for t in TRAITS for s in SCENARIOS for r in range(REPLICATES)]
    return Rates(SETTINGS, run_units(SETTINGS, units, checkpoint, processes))


def check_subset(rates: Rates) -> Iterator[tuple[str, bool]]:
    """Give what must hold, and whether it does: differences beyond two standard errors, a 99.99 % null interval."""
    for trait in TRAITS:
        for model in MODELS:
            k, n = rates.null_count(trait, model)
            low, high = binom.ppf([5e-5, 1 - 5e-5], n, ALPHA)
            yield f"type I error of {model} ({trait}): {k} of {n}, expected {low:.0f} to {high:.0f}", low <= k <= high
    for trait, scenario, first, second in (
        ("quantitative", "1", WEIGHTED, FLAT),
        ("case-control", "1", WEIGHTED, FLAT),
        ("quantitative", "3", SIGNED, FLAT),
        ("quantitative", "3", STEP_UP["model"], STEP_UP["empirical"]),
        ("quantitative", "5", "CMC", RARE),
        ("case-control", "5", "CMC", RARE),
    ):
        d = rates.compare([trait], [scenario], [first], [second], EFFECTS[-1:])
        yield f"{first} beats {second} in simulation {scenario} ({trait}): {d} points", d.value > 2 * d.error
