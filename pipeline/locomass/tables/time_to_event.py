"""Times to events from the phenotype table: three columns a trait, checked value by value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from locomass.config import TimeToEvent
from locomass.errors import FormatError, MatchError, suggest
from locomass.follow_up import FollowUp
from locomass.numbers import Floats
from locomass.tables.delimited import MISSING, Block, DelimitedFile
from locomass.tables.samples import read_categories


@dataclass(frozen=True)
class TimeTable:
    """Follow-up of everybody in a phenotype table, in its order.

    Attributes:
        event: (n,) 1 at an event, 0 where censored, NaN where anything of the trait is missing; by trait.
        follow_up: by trait.
    """

    event: dict[str, Floats]
    follow_up: dict[str, FollowUp]


def read_times(path: Path, traits: Mapping[str, TimeToEvent], missing_codes: Sequence[str]) -> TimeTable:
    """Read times, events, entries and strata of traits.

    Args:
        path: the phenotype table.
        traits: the columns of each.
        missing_codes: further texts that mean "missing".

    Raises:
        FormatError: a negative time, an event other than 0 and 1, an entry at or after the exit; names line and column.
        MatchError: a column that is not there.
    """
    file = DelimitedFile(path)
    missing = (*MISSING, *missing_codes)
    wanted = [name for spec in traits.values() for name in spec.columns]
    for name in wanted:
        if name not in file.names:
            raise MatchError(f"time to event: column '{name}' is not in {path.name}{suggest(name, file.names)}")
    block = file.table(list(dict.fromkeys(wanted)))
    event, follow_up = {}, {}
    for trait, spec in traits.items():
        follow_up[trait] = own = _read_trait(block, trait, spec, missing)
        event[trait] = np.where(np.isfinite(own.exit), own.event.astype(np.float64), np.nan)
    return TimeTable(event, follow_up)


def _read_trait(block: Block, trait: str, spec: TimeToEvent, missing: Sequence[str]) -> FollowUp:
    """Return the follow-up of one trait, exit NaN where anything is missing."""
    exit = block.numbers(spec.time, missing=missing)
    event = block.numbers(spec.event, missing=missing)
    entry = np.full(exit.size, -np.inf)
    known = np.isfinite(exit) & np.isfinite(event)
    told = f"trait '{trait}'"
    odd = ~np.isnan(event) & (event != 0) & (event != 1)
    hint = "; recode 1 = censored and 2 = event" if set(np.unique(event[np.isfinite(event)]).tolist()) == {1, 2} else ""
    _refuse(block, odd, spec.event, f"{told}: an event is 1, and 0 a censored time{hint}")
    if spec.entry is None:
        _refuse(block, exit < 0, spec.time, f"{told}: a time is 0 or more")
    else:
        entry = block.numbers(spec.entry, missing=missing)
        _refuse(block, entry < 0, spec.entry, f"{told}: an entry is 0 or more")
        known &= np.isfinite(entry)
        late = known & (entry >= exit)
        _refuse(block, late, spec.entry, f"{told}: entry is before the end of follow-up (column {spec.time})")
    stratum = np.zeros(exit.size, np.int64)
    for name in spec.strata:
        values = read_categories(block, name, missing)
        known &= values != ""
        number = np.unique(values, return_inverse=True)[1].reshape(-1)
        stratum = np.unique(np.column_stack([stratum, number]), axis=0, return_inverse=True)[1].reshape(-1)
    return FollowUp(entry, np.where(known, exit, np.nan), (event == 1) & known, stratum.astype(np.int64))


def _refuse(block: Block, wrong: NDArray[np.bool_], column: str, expected: str) -> None:
    """Raise when a value is wrong, naming the first line."""
    at = np.flatnonzero(wrong)
    if at.size:
        raise FormatError(
            f"{expected}; got {block.table[column][int(at[0])].as_py()} ({at.size:,} such values); correct it, or "
            "write NA for a person to be left out",
            path=block.path,
            line=block.line(int(at[0])),
            column=column,
        )
