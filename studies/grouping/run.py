"""Units of work over processes, with a checkpoint: one JSON line per unit, after a line that says what was run."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from locomass.errors import InputError
from locomass.simulate.pool import Haplotypes
from studies.grouping.design import (
    EFFECTS,
    GENE_SIZES,
    N_HAPLOTYPES,
    N_PEOPLE,
    SCENARIOS,
    TRAITS,
    Unit,
    draw_sample,
    make_pools,
)
from studies.grouping.models import MODELS, decide


@dataclass(frozen=True)
class Settings:
    """What decides the numbers of a run; a checkpoint holds results of one setting only."""

    seed: int = 1
    permutations: int = 500
    engine: str = "msprime"
    sizes: tuple[int, ...] = GENE_SIZES
    people: int = N_PEOPLE
    haplotypes: int = N_HAPLOTYPES
    models: tuple[str, ...] = MODELS

    def header(self) -> str:
        """Return the first line of a checkpoint; the scenarios are part of it."""
        scenarios = {name: asdict(scenario) for name, scenario in SCENARIOS.items()}
        return json.dumps({**asdict(self), "effects": EFFECTS, "scenarios": scenarios}, sort_keys=True)


def run_unit(settings: Settings, pools: list[Haplotypes], unit: Unit) -> list[int]:
    """Return, per model, the genes that it rejects: bit g of the number is gene g."""
    hits = dict.fromkeys(settings.models, 0)
    effect = EFFECTS.index(unit.effect) + 1 if unit.effect else 0
    cell = [settings.seed, TRAITS.index(unit.trait), list(SCENARIOS).index(unit.scenario), effect, unit.replicate]
    for g, pool in enumerate(pools):
        rng = np.random.default_rng([*cell, g])
        sample = draw_sample(pool, unit, rng, settings.people)
        found = decide(sample, settings.permutations, int(rng.integers(2**31)), settings.models)
        for name, rejected in found.items():
            hits[name] |= int(rejected) << g
    return list(hits.values())


_worker: tuple[Settings, list[Haplotypes]]


def _start_worker(settings: Settings) -> None:
    """Make the haplotypes of a process, which takes no more than one thread."""
    global _worker
    threadpool_limits(1)
    _worker = settings, make_pools(settings.seed, settings.engine, settings.sizes, settings.haplotypes)


def _run_in_worker(unit: Unit) -> tuple[Unit, list[int]]:
    """Run a unit on the haplotypes of this process."""
    return unit, run_unit(*_worker, unit)


def read_checkpoint(path: Path, settings: Settings) -> dict[Unit, list[int]]:
    """Return the units that are done; a last line cut short by a kill is passed over.

    Raises:
        InputError: the checkpoint belongs to another setting.
    """
    if not path.exists():
        return {}
    header, *lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    if header.rstrip("\n") != settings.header():
        raise InputError(f"{path} line 1: results of other settings; give another --checkpoint, or delete it")
    done: dict[Unit, list[int]] = {}
    for line in lines:
        if line.endswith("\n"):
            unit, hits = json.loads(line)
            done[Unit(*unit)] = hits
    return done


def run_units(
    settings: Settings, units: Iterable[Unit], checkpoint: Path, processes: int = 1, minutes: float = np.inf
) -> dict[Unit, list[int]]:
    """Run the units that the checkpoint lacks until all are done or time is up; return all results."""
    done = read_checkpoint(checkpoint, settings)
    whole = [settings.header(), *(json.dumps([list(vars(u).values()), hits]) for u, hits in done.items())]
    temporary = checkpoint.with_suffix(".tmp")
    temporary.write_text("\n".join(whole) + "\n", encoding="utf-8")
    temporary.replace(checkpoint)
    stop = time.monotonic() + 60 * minutes
    waiting = (unit for unit in units if unit not in done)
    with (
        open(checkpoint, "a", encoding="utf-8") as handle,
        ProcessPoolExecutor(processes, initializer=_start_worker, initargs=(settings,)) as pool,
    ):
        first = islice(waiting, 2 * processes if minutes > 0 else 0)
        running = {pool.submit(_run_in_worker, unit) for unit in first}
        while running:
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                unit, hits = future.result()
                done[unit] = hits
                handle.write(json.dumps([list(vars(unit).values()), hits]) + "\n")
                handle.flush()
                if time.monotonic() < stop:
                    running |= {pool.submit(_run_in_worker, unit) for unit in islice(waiting, 1)}
    return done


def by_cell(done: dict[Unit, list[int]]) -> Iterator[tuple[tuple[str, str, float], list[list[int]]]]:
    """Give (cell, results of its replicates in order)."""
    cells: dict[tuple[str, str, float], list[Unit]] = {}
    for unit in done:
        cells.setdefault(unit.cell, []).append(unit)
    for cell in sorted(cells):
        yield cell, [done[unit] for unit in sorted(cells[cell], key=lambda u: u.replicate)]
