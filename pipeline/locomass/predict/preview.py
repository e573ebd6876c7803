"""What a run would stop at in the files of a predictor, found by `locomass check`: nothing is fitted or scored.

LOCO files and weights are read whole. Of summary statistics the first block is (all of a file of up to 32 MB), and
matched to the part of the LD reference that it spans; a fault further down is found by the run alone.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from locomass.config import Predictor, forget_traits, per_trait
from locomass.errors import ConfigError, InputError
from locomass.genotypes.fileset import Fileset, open_fileset
from locomass.people import match_samples
from locomass.predict import count_shared, read_predictions, replace_missing
from locomass.predict.external import load_weights
from locomass.predict.summary import harmonise_statistics, open_statistics
from locomass.tables.cohort import Cohort
from locomass.tables.ld_store import read_stored_variants
from locomass.tables.summary_statistics import SummaryStatistics
from locomass_predictors.base import PredictorError
from locomass_predictors.method import Source
from locomass_predictors.registry import find_method


def check_predictor(
    options: Predictor, folder: Path, cohort: Cohort, build: str | None, needs_rows: Callable[[xr.DataArray], object]
) -> tuple[str, ...]:
    """Open the files of a predictor as a run does; return what is worth a warning.

    Args:
        options: the configuration's section.
        folder: what its paths are relative to.
        cohort: the study.
        build: its genome build.
        needs_rows: raises where LOCO predictions that are ready lack a chromosome.

    Raises:
        InputError, MatchError, ConfigError: what the run would stop at.
    """
    source = find_method(options.method).source
    if source is Source.NONE:
        return ()
    options = forget_traits(options, {unfit.trait.name for unfit in cohort.unfit})
    if source is Source.LOCO:
        prediction = read_predictions(options, folder, cohort)
        needs_rows(prediction.loco)
        return prediction.messages
    if source is Source.STACK:
        if len(options.stack) < 2:
            raise ConfigError("key predictor.stack: list at least two predictors to combine")
        parts = [check_predictor(replace_missing(p, options), folder, cohort, build, needs_rows) for p in options.stack]
        return tuple(dict.fromkeys(message for part in parts for message in part))
    if options.genotypes is None:
        raise ConfigError(f"key predictor.genotypes: method '{options.method}' needs the cohort's common variants")
    target = open_fileset(folder / options.genotypes)
    match_samples(cohort.fid, cohort.iid, target.fid, target.iid, target.name)
    if options.gwas_samples:
        count_shared(folder / options.gwas_samples, cohort)
    if source is Source.WEIGHTS:
        loaded = load_weights(options, folder, [t.name for t in cohort.traits], build)
        for weights in loaded:
            weights.find_in(target)
        return tuple(message for weights in loaded for message in weights.messages)
    return _check_statistics(options, folder, cohort, target) if source is Source.SUMMARY else ()


def _check_statistics(options: Predictor, folder: Path, cohort: Cohort, target: Fileset) -> tuple[str, ...]:
    """Read the first block of every file of summary statistics, and match it to its part of the LD reference."""
    names = [trait.name for trait in cohort.traits]
    files = per_trait(options.summary_statistics, names, "predictor.summary_statistics")
    if not files:
        raise ConfigError(f"key predictor.summary_statistics: method '{options.method}' needs a file per trait")
    sizes = per_trait(options.n_samples, names, "predictor.n_samples")
    variants = _reference_variants(options, folder, target)
    messages: list[str] = []
    for trait, path, n in sorted({(name, file, sizes.get(name)) for name, file in files.items()}, key=str):
        statistics = open_statistics(folder / path, n, options.columns, trait, head_only=True)
        messages += [f"{Path(path).name}: {message}" for message in statistics.messages]
        part = variants if statistics.is_whole else _spanned(variants, statistics)
        if not len(part):
            continue
        try:
            harmonise_statistics(statistics, part)
        except PredictorError as error:
            raise InputError(f"trait '{trait}', {folder / path}: {error}") from None
    return tuple(dict.fromkeys(messages))


def _reference_variants(options: Predictor, folder: Path, target: Fileset) -> pd.DataFrame:
    """Return the variants of the LD reference."""
    name = options.ld_reference
    if name is None or name == options.genotypes:
        return target.variants
    if (folder / name).is_dir():
        return read_stored_variants(folder / name)[0]
    return open_fileset(folder / name).variants


def _spanned(variants: pd.DataFrame, statistics: SummaryStatistics) -> pd.DataFrame:
    """Return the variants of the chromosomes, and between the first and last position, of rows that have positions."""
    label, position = variants["chromosome"].astype(str).to_numpy(object), variants["position"].to_numpy(np.int64)
    within = np.zeros(len(variants), np.bool_)
    for chromosome in set(statistics.chromosome[statistics.position > 0].tolist()):
        own = statistics.position[(statistics.chromosome == chromosome) & (statistics.position > 0)]
        within |= (label == chromosome) & (position >= own.min()) & (position <= own.max())
    return variants[within].reset_index(drop=True)
