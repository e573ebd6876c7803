"""Variant weights by name: ``flat``, ``beta_1_25``, ``madsen-browning``, ``annotation:COLUMN``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from math import lgamma

import numpy as np

from locomass.errors import ConfigError, suggest
from locomass.gene_tests.gene_sums import beta_weights, madsen_browning_weights
from locomass.numbers import Floats

NAMES = ("flat", "beta_1_25", "madsen-browning", "annotation:COLUMN")
_BETA = re.compile(r"beta_(\d+(?:\.\d+)?)_(\d+(?:\.\d+)?)")
_PREFIX = "annotation:"


@lru_cache(maxsize=256)
def parse_weights(name: str) -> tuple[str, float, float]:
    """Return (kind, a, b) of a weight name; a and b belong to the Beta density and are 1 elsewhere.

    Raises:
        ConfigError: when the name is none of ``NAMES``, or a Beta parameter is not positive.
    """
    if name in ("flat", "madsen-browning"):
        return name, 1.0, 1.0
    if name.startswith(_PREFIX) and len(name) > len(_PREFIX):
        return "annotation", 1.0, 1.0
    match = _BETA.fullmatch(name)
    if match is None:
        raise ConfigError(f"unknown weights '{name}'{suggest(name, NAMES)}")
    a, b = float(match[1]), float(match[2])
    if a <= 0.0 or b <= 0.0:
        raise ConfigError(f"weights '{name}': both parameters of the Beta density must be positive")
    return "beta", a, b


def compute_weights(name: str, maf: Floats, annotations: Mapping[str, Floats]) -> Floats:
    """Return the weight of every variant.

    With ``p = min(maf, 1 - maf)``: ``flat`` is 1; ``beta_a_b`` the density ``p^(a-1) (1-p)^(b-1) / B(a, b)`` (Wu et al.
    2011); ``madsen-browning`` is ``1 / sqrt(p (1-p))`` (Madsen & Browning 2009); ``annotation:COLUMN`` the column
    itself. A density that is infinite, which happens at p = 0 only, gives weight 0: such a variant has no score
    anyway.

    Args:
        name: one of the names above.
        maf: (m,) frequency of the counted allele, in [0, 1].
        annotations: (m,) columns by name.

    Returns:
        (m,) weights; NaN where an annotation column has no value.

    Raises:
        ConfigError: when the name or the annotation column is unknown.
    """
    kind, a, b = parse_weights(name)
    if kind == "flat":
        return np.ones(maf.shape[0])
    if kind == "annotation":
        column = name[len(_PREFIX) :]
        if column not in annotations:
            raise ConfigError(f"weights '{name}': no annotation column '{column}'{suggest(column, annotations)}")
        return np.asarray(annotations[column], dtype=np.float64)
    if kind == "madsen-browning":
        return madsen_browning_weights(maf)
    return beta_weights(maf, a, b, lgamma(a + b) - lgamma(a) - lgamma(b))
