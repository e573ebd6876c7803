"""The record of how predictions were made: ``predict/record.json``, and what a study shares of it.

Every figure that the report shows of a predictor is in the record of its trait; the record travels in the bundle.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from locomass.variants.chromosomes import chromosome_order

if TYPE_CHECKING:
    from locomass.predict.scoring import FittedWeights, Scores

Records = dict[str, dict[str, Any]]
RECORD = "record.json"
_FOLDERS = re.compile(r"(?:(?<=[\s'\"(=,:])|^)(?:~|\.{1,2})?/(?:[^\s/'\"]+/)*(?=[^\s/'\"])")


def read_record(folder: Path) -> dict[str, Any]:
    """Return ``traits``, the record of each, and ``messages``, with names of files in place of their paths."""
    path = folder / RECORD
    if not path.exists():
        return {"traits": {}, "messages": []}
    record = json.loads(path.read_text(encoding="utf-8"))
    return {key: hide_folders(record[key]) for key in ("traits", "messages")}


def hide_folders(value: Any) -> Any:
    """Return a value of a record in which every path is the name of its file."""
    if isinstance(value, str):
        return _FOLDERS.sub("", value)
    if isinstance(value, Mapping):
        return {key: hide_folders(inner) for key, inner in value.items()}
    return [hide_folders(inner) for inner in value] if isinstance(value, list) else value


def add_score_spread(scores: Scores) -> Records:
    """Return the records with ``score_sd``: the standard deviation of the polygenic score by its chromosome."""
    out = {}
    for trait, record in scores.record.items():
        if trait not in scores.traits:  # its de-noising is off
            out[trait] = record
            continue
        k = scores.traits.index(trait)
        spread = {c: float(np.nanstd(v[:, k])) for c, v in zip(scores.chromosomes, scores.values, strict=True)}
        out[trait] = {**record, "score_sd": {c: sd for c, sd in spread.items() if np.isfinite(sd)}}
    return out


def add_weight_counts(fitted: FittedWeights) -> Records:
    """Return the records with ``n_weights``: how many weights are not zero, by chromosome."""
    out = {}
    for k, trait in enumerate(fitted.traits):
        chromosome, count = np.unique(fitted.chromosome[fitted.weights[:, k] != 0].astype(str), return_counts=True)
        counts = dict(zip(chromosome.tolist(), count.tolist(), strict=True))
        out[trait] = {**fitted.record[trait], "n_weights": {c: counts[c] for c in sorted(counts, key=chromosome_order)}}
    return out
