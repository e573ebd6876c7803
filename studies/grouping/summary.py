"""From the checkpoint to rates, paired differences and verdicts on the paper's conclusions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from studies.grouping.design import EFFECTS, SCENARIOS, TRAITS, Unit
from studies.grouping.models import ALPHA, GROUPINGS, SEARCHES, SIGNS, WEIGHTS, model_name
from studies.grouping.run import Settings, by_cell

Floats = NDArray[np.float64]
Cell = tuple[str, str, float]
#: how far below the best model still counts as near first
NEAR = 0.05
STEP_UP = model_name("step-up", "both", "fixed")
PAPER = (*(name for name, setting in SEARCHES.items() if setting[3] == "empirical"), "CMC")
AGNOSTIC = tuple(name for name in PAPER if not name.startswith(("SIFT", "PolyPhen", "functional")))
MODEL_STEP_UP = model_name("step-up", "both", "fixed", "model")
CUT_OFFS = tuple(name for name in PAPER if name.startswith("MAF <="))


@dataclass(frozen=True)
class Difference:
    """A difference of rates with its standard error over replicates."""

    value: float
    error: float

    @property
    def verdict(self) -> str:
        """Whether it is above nought, at 95 %."""
        if abs(self.value) <= 1.96 * self.error:
            return "not decided"
        return "yes" if self.value > 0 else "NO"

    def __str__(self) -> str:
        return f"{100 * self.value:+.1f} ± {196 * self.error:.1f}"


class Rates:
    """Share of the genes that each model rejects, replicate by replicate."""

    def __init__(self, settings: Settings, done: dict[Unit, list[int]]) -> None:
        """Count the bits of every result."""
        self.settings = settings
        self.place = {name: k for k, name in enumerate(settings.models)}
        self.cells: dict[Cell, Floats] = {
            cell: np.array([[hits.bit_count() for hits in row] for row in rows]) / len(settings.sizes)
            for cell, rows in by_cell(done)
        }

    def replicates(self, cell: Cell) -> int:
        """Return the number of replicates of a cell."""
        return len(self.cells[cell])

    def null_count(self, trait: str, model: str) -> tuple[int, int]:
        """Return rejections and tests under the null."""
        rates = self.cells[trait, "1", 0.0][:, self.place[model]]
        return round(float(rates.sum()) * len(self.settings.sizes)), len(rates) * len(self.settings.sizes)

    def power(self, trait: str, scenario: str, model: str, effect: float | None = None) -> float:
        """Return the share of tests that reject, the mean over all effects when none is given."""
        k = self.place[model]
        wanted = EFFECTS if effect is None else (effect,)
        return float(np.mean([self.cells[trait, scenario, e][:, k].mean() for e in wanted]))

    def compare(
        self,
        traits: Sequence[str],
        scenarios: Sequence[str],
        first: Sequence[str],
        second: Sequence[str],
        effects: Sequence[float] = EFFECTS,
    ) -> Difference:
        """Return the mean power of some models less that of others, paired within replicates, cells weighing alike."""
        a, b = ([self.place[name] for name in names] for names in (first, second))
        parts = [self.cells[t, s, e] for t in traits for s in scenarios for e in effects]
        paired = [part[:, a].mean(axis=1) - part[:, b].mean(axis=1) for part in parts]
        value = float(np.mean([p.mean() for p in paired]))
        return Difference(value, float(np.sqrt(np.sum([p.var(ddof=1) / len(p) for p in paired]))) / len(paired))

    def best(self, trait: str, scenario: str, models: Sequence[str]) -> str:
        """Return the model of largest mean power; its own lead is flattered by the choice."""
        return max(models, key=lambda name: self.power(trait, scenario, name))


def null_interval(n: int) -> tuple[int, int]:
    """Return the 99 % binomial interval of rejections at `ALPHA` among n tests."""
    return int(binom.ppf(0.005, n, ALPHA)), int(binom.ppf(0.995, n, ALPHA))


def settings_of(weights: Sequence[str] = WEIGHTS, signs: Sequence[str] = SIGNS) -> list[str]:
    """Return the models of the paper with these weights and signs, all groupings."""
    return [model_name(g, w, s) for g in GROUPINGS for w in weights for s in signs]


@dataclass(frozen=True)
class Verdict:
    """A conclusion of the paper, the numbers that speak for or against it, and what they say."""

    conclusion: str
    numbers: str
    verdict: str


def judge(rates: Rates) -> Iterator[Verdict]:
    """Give the verdicts, trait by trait where traits may differ."""
    for trait in TRAITS:
        yield from _judge_weights(rates, trait)
    for trait in TRAITS:
        yield from _judge_step_up(rates, trait)
    for trait in TRAITS:
        yield from _judge_signs(rates, trait)
    for trait in TRAITS:
        yield from _judge_cmc(rates, trait)
    for trait in TRAITS:
        yield from _judge_cut_offs(rates, trait)
    for trait in TRAITS:
        yield from _judge_function(rates, trait)


def _judge_weights(rates: Rates, trait: str) -> Iterator[Verdict]:
    weighted, constant = settings_of(["inverse-sd"], ["fixed"]), settings_of(["constant"], ["fixed"])
    rarer = rates.compare([trait], ["1", "1b"], weighted, constant)
    flat = rates.compare([trait], ["2", "2b"], weighted, constant)
    yield Verdict(
        f"Weighted beats constant when rarer is stronger ({trait})",
        f"simulations 1, 1b: {rarer} points, mean of nine groupings, unsigned (constant effects, 2, 2b: {flat})",
        rarer.verdict,
    )


def _judge_step_up(rates: Rates, trait: str) -> Iterator[Verdict]:
    yield _judge_rank(rates, trait, STEP_UP, PAPER, "all models of the paper")
    yield _judge_rank(rates, trait, STEP_UP, AGNOSTIC, "models without annotations")
    yield _judge_rank(
        rates, trait, MODEL_STEP_UP, (*PAPER, MODEL_STEP_UP), "the same with the model variance, all models"
    )


def _judge_rank(rates: Rates, trait: str, mine: str, rivals: Sequence[str], what: str) -> Verdict:
    """Compare one model with the best of many in every simulation."""
    gaps = {s: rates.power(trait, s, rates.best(trait, s, rivals)) - rates.power(trait, s, mine) for s in SCENARIOS}
    near = [scenario for scenario, gap in gaps.items() if gap <= NEAR]
    overall = sorted(rivals, key=lambda name: -np.mean([rates.power(trait, s, name) for s in SCENARIOS]))
    return Verdict(
        f"Step-up first or near first across scenarios: {what} ({trait})",
        f"{mine}: within {100 * NEAR:.0f} points of the best of {len(rivals)} in {len(near)} of {len(gaps)} "
        f"simulations ({', '.join(near) or 'none'}); largest gap {100 * max(gaps.values()):.0f} points (simulation "
        f"{max(gaps, key=lambda s: gaps[s])}); rank {overall.index(mine) + 1} by mean power over simulations",
        "yes" if len(near) == len(gaps) else "in part" if len(near) * 2 >= len(gaps) else "NO",
    )


def _judge_signs(rates: Rates, trait: str) -> Iterator[Verdict]:
    signed, unsigned = settings_of(signs=["data"]), settings_of(signs=["fixed"])
    mixed = rates.compare([trait], ["3"], signed, unsigned)
    same = rates.compare([trait], ["1"], signed, unsigned)
    yield Verdict(
        f"Signing helps for mixed directions ({trait})",
        f"simulation 3: {mixed} points, mean of 27 models (one direction, simulation 1: {same})",
        mixed.verdict,
    )


def _judge_cmc(rates: Rates, trait: str) -> Iterator[Verdict]:
    others = [name for name in PAPER if name != "CMC"]
    for scenario, what in (("5", "all in one direction"), ("5b", "some, in either direction")):
        best = rates.best(trait, scenario, others)
        lead = rates.compare([trait], [scenario], ["CMC"], [best])
        against = rates.compare([trait], [scenario], ["CMC"], [STEP_UP])
        yield Verdict(
            f"CMC best when common variants matter: {what} ({trait})",
            f"simulation {scenario}: CMC {100 * rates.power(trait, scenario, 'CMC'):.0f} %, {lead} points to the best "
            f"other model of the paper ({best}), {against} to step-up",
            lead.verdict,
        )


def _judge_cut_offs(rates: Rates, trait: str) -> Iterator[Verdict]:
    mine, all_maf = [STEP_UP], [model_name("all MAF", "both", "fixed")]
    cut = [model_name(g, "both", "fixed") for g in ("MAF <= 1 %", "MAF <= 5 %")]
    searched = rates.compare([trait], list(SCENARIOS), all_maf, cut)
    lead = rates.compare([trait], list(SCENARIOS), mine, cut)
    losses = [
        max(rates.power(trait, s, name) for name in PAPER) - max(rates.power(trait, s, name) for name in CUT_OFFS)
        for s in SCENARIOS
    ]
    yield Verdict(
        f"Hard cut-offs poor ({trait})",
        f"all MAF less the mean of the cut-offs at 1 % and 5 %, all simulations: {searched} points; step-up less "
        f"them: {lead}; the best of {len(CUT_OFFS)} cut-off models is {100 * min(losses):.0f} to "
        f"{100 * max(losses):.0f} points below the best model",
        searched.verdict if lead.verdict == searched.verdict or searched.verdict != "yes" else "in part",
    )


def _judge_function(rates: Rates, trait: str) -> Iterator[Verdict]:
    functional, without = [model_name("functional", "both", "fixed")], [model_name("all MAF", "both", "fixed")]
    good = rates.compare([trait], ["4a"], functional, without)
    usual = rates.compare([trait], ["1"], functional, without)
    bad = rates.compare([trait], ["4b"], functional, without)
    only = good.verdict == "yes" and bad.verdict != "yes"
    yield Verdict(
        f"Prior information helps only when accurate ({trait})",
        f"functional groupings less all MAF, both weights, unsigned: {good} points at 98 % accuracy, {usual} at 80 %, "
        f"{bad} at 60 %",
        "yes" if only else "NO",
    )
