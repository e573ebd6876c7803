"""Weights that somebody else fitted: read, checked for their genome build (or lifted over), scored as they are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from locomass.config import Predictor, per_trait
from locomass.errors import ConfigError, InputError
from locomass.predict.scoring import FittedWeights
from locomass.tables.liftover import read_chain
from locomass.tables.weights import MUCH, VariantWeights, read_weights

COMPLEMENT = str.maketrans("ACGT", "TGCA")


def load_weights(options: Predictor, folder: Path, names: list[str], build: str | None) -> list[FittedWeights]:
    """Read the weights file of every trait; traits that share a file are scored together.

    Args:
        options: the configuration's section.
        folder: what its paths are relative to.
        names: analysed traits.
        build: genome build of the study, None when the configuration does not say.

    Raises:
        ConfigError: no file is named, or a file is on another build and no chain file is given.
        InputError: too few positions can be lifted over.
    """
    files = per_trait(options.weights, names, "predictor.weights")
    if not files:
        raise ConfigError("key predictor.weights: method 'weights' needs a file per trait, or one file for all")
    loaded: dict[str, VariantWeights] = {}
    for path in files.values():
        if path not in loaded:
            loaded[path] = _to_build(read_weights(folder / path), options, folder, build)
    return [_spread(weights, [t for t, p in files.items() if p == path]) for path, weights in loaded.items()]


def _spread(weights: VariantWeights, traits: list[str]) -> FittedWeights:
    """Give every trait its score: the one of its own name where the file holds several, else the only one."""
    columns = []
    for trait in traits:
        if trait in weights.names:
            columns.append(weights.names.index(trait))
        elif len(weights.names) == 1:
            columns.append(0)
        else:
            raise ConfigError(
                f"{weights.path} holds the scores {', '.join(weights.names)}, none of them named '{trait}'; "
                f"name the score after the trait or give a file with one score"
            )
    record = {
        trait: {
            "method": "weights",
            "file": str(weights.path),
            "format": weights.format,
            "variants": len(weights),
            "rows_dropped": weights.dropped,
            "genome_build": weights.genome_build,
        }
        for trait in traits
    }
    messages = tuple(f"{weights.path.name}: {message}" for message in weights.messages)
    if not weights.genome_build:
        messages += (f"{weights.path} does not say its genome build; it is taken as it is",)
    return FittedWeights(
        chromosome=weights.chromosome,
        position=weights.position,
        effect_allele=weights.effect_allele,
        other_allele=weights.other_allele,
        id=weights.id,
        frequency=np.full(len(weights), np.nan),
        weights=weights.weights[:, columns],
        traits=tuple(traits),
        record=record,
        messages=messages,
    )


def _to_build(weights: VariantWeights, options: Predictor, folder: Path, build: str | None) -> VariantWeights:
    """Return the weights on the study's genome build.

    Raises:
        ConfigError: builds differ and there is no chain file.
    """
    if options.chain_file is None or (build is not None and weights.genome_build == build):
        if build and weights.genome_build and weights.genome_build != build:
            raise ConfigError(
                f"{weights.path} is on {weights.genome_build}, the study on {build}; give predictor.chain_file "
                f"({weights.genome_build} to {build}), or weights harmonised to {build}"
            )
        return weights
    lifted = read_chain(folder / options.chain_file).lift(weights.chromosome, weights.position)
    mapped = lifted.position > 0
    if mapped.mean() < 0.5:
        raise InputError(
            f"{options.chain_file} maps only {int(mapped.sum()):,} of {len(mapped):,} positions of {weights.path}; "
            f"is it the chain from {weights.genome_build or 'their build'} to {build or 'the build of the study'}?"
        )
    lost = int((~mapped).sum())
    dropped: Mapping[str, int] = {**weights.dropped, "not lifted over": lost}
    told = [
        f"{lost:,} of {len(mapped):,} rows ({lost / len(mapped):.0%}) are left out: their positions are not lifted over"
    ]
    alleles = [_turn(a[mapped], lifted.reverse[mapped]) for a in (weights.effect_allele, weights.other_allele)]
    return VariantWeights(
        path=weights.path,
        format=weights.format,
        names=weights.names,
        chromosome=lifted.chromosome[mapped],
        position=lifted.position[mapped],
        id=weights.id[mapped],
        effect_allele=alleles[0],
        other_allele=alleles[1],
        weights=weights.weights[mapped],
        genome_build=build,
        metadata=weights.metadata,
        dropped=dict(dropped),
        messages=(*weights.messages, *(told if lost > MUCH * len(mapped) else [])),
    )


def _turn(alleles: NDArray[np.object_], reverse: NDArray[np.bool_]) -> NDArray[np.object_]:
    """Return alleles complemented where the new build reads the other strand."""
    return np.array([a.translate(COMPLEMENT)[::-1] if r else a for a, r in zip(alleles, reverse, strict=True)], object)
