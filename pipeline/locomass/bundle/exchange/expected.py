"""Imported frequencies and alleles held against a file of expected ALT frequencies (gnomAD, the study's own genotypes).

A variant is *swapped* where its frequency f fits 1 - g better than the expected g, by the log-likelihood ratio of
normal spreads ``g (1 - g) (1/2n + F_ST)``; it is *off* where ``|f - g|`` is beyond six such spreads.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from locomass.bundle.exchange.common import Integers, Labels, find_variants, split_keys
from locomass.bundle.write import TraitStatistics
from locomass.errors import MatchError
from locomass.numbers import Floats
from locomass.tables.annotations import read_frequencies

Flags = NDArray[np.bool_]
FST = 0.02  # spread of frequencies between studies of one ancestry group, generously
SWAP_EVIDENCE = 20.0  # log-likelihood ratio
OFF = 6.0  # spreads
TOO_MANY = 0.01  # share of compared variants that may look swapped; above it the file is refused


def check_expected(trait: TraitStatistics, path: Path) -> list[str]:
    """Return what a comparison with expected frequencies found.

    Raises:
        MatchError: no variant is expected, or alleles are swapped at more than 1 % (and five) of them.
    """
    frequencies = read_frequencies(path)
    labels = trait.chromosome, trait.position, trait.ref, trait.alt
    wanted = split_keys(frequencies.variant)
    row, turned = find_variants(labels, wanted, path.name)
    known = (row >= 0) & (trait.n_obs > 0)
    if not known.any():
        raise MatchError(
            f"none of the {len(row):,} variants of trait '{trait.trait}' (such as {_name(labels, 0)}) is in {path} "
            f"(such as {_name(wanted, 0)}); are genome builds and allele names the same?"
        )
    g = np.where(turned, 1 - frequencies.frequency[row], frequencies.frequency[row])
    known &= np.isfinite(g)
    swapped, off = _compare(trait.alt_frequency, g, trait.n_obs, known)
    notes = [f"expected frequencies: {int(known.sum()):,} of {len(row):,} variants compared with {path.name}"]
    notes += _other_alleles(labels, wanted, row)
    for which, what in ((swapped, "look swapped"), (off & ~swapped, "are far from what is expected")):
        for k in np.flatnonzero(which)[:1]:
            example = f"{_name(labels, k)}: {trait.alt_frequency[k]:.4g}, expected {g[k]:.4g}"
            notes.append(f"warning: {int(which.sum()):,} frequencies {what} (such as {example})")
    if swapped.sum() > max(5, TOO_MANY * known.sum()):
        raise MatchError(
            f"alleles of trait '{trait.trait}' are swapped: {notes[-2 if (off & ~swapped).any() else -1]}; U counts "
            f"another allele than ALT says: name alleles by the reference genome"
        )
    return notes


def _compare(f: Floats, g: Floats, n: Integers, known: Flags) -> tuple[Flags, Flags]:
    """Return which frequencies look swapped, and which are far off."""
    with np.errstate(invalid="ignore", divide="ignore"):
        least = 1 / (2 * np.maximum(n, 1))
        mean = np.clip(np.where(np.abs(f - g) < np.abs(1 - f - g), g, 1 - g), least, 1 - least)
        spread = mean * (1 - mean) * (1 / (2 * np.maximum(n, 1)) + FST)
        swapped = known & (((f - g) ** 2 - (1 - f - g) ** 2) / (2 * spread) > SWAP_EVIDENCE)
        at = np.clip(g, least, 1 - least)
        off = known & (np.abs(f - g) > OFF * np.sqrt(at * (1 - at) * (1 / (2 * np.maximum(n, 1)) + FST)))
    return swapped, off


def _other_alleles(
    labels: tuple[Labels, Integers, Labels, Labels], wanted: tuple[Labels, Integers, Labels, Labels], row: Integers
) -> list[str]:
    """Return a line about variants whose position is expected with other alleles only."""
    there = set(zip(wanted[0], wanted[1].tolist(), strict=True))
    near = [k for k in np.flatnonzero(row < 0).tolist() if (labels[0][k], int(labels[1][k])) in there]
    if not near:
        return []
    return [
        f"warning: {len(near):,} variants have other alleles than expected there (such as {_name(labels, near[0])})"
    ]


def _name(labels: tuple[Labels, Integers, Labels, Labels], k: int) -> str:
    return ":".join(str(column[k]) for column in labels)
