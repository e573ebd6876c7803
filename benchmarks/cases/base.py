"""What a case is."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import Result

#: ``prepare(folder)`` opens what is needed and compiles on a tiny input; what it returns is timed.
Prepare = Callable[[Path], Callable[[], Result]]


@dataclass(frozen=True)
class Case:
    """One row of the table.

    Attributes:
        name: of the case.
        group: cases of one group do the same work; the first is ours, and the others' ratios are to it.
        units: how much work it does, so that a slow comparison may do less of it.
        work: the units in words.
        prepare: see `Prepare`.
        tolerance: largest relative difference from the first case of the group, None where there is nothing to compare.
        needs: a program or Python package that may be missing.
        quick: whether it is part of the default run.
        once: it repeats inside and takes the best, or is long: one process is enough.
    """

    name: str
    group: str
    units: float
    work: str
    prepare: Prepare
    tolerance: float | None = None
    needs: str = ""
    quick: bool = True
    once: bool = False

    @property
    def is_possible(self) -> bool:
        """Whether what it needs is installed."""
        return not self.needs or bool(shutil.which(self.needs) or importlib.util.find_spec(self.needs))
