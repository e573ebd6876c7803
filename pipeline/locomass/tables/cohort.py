"""One cohort: its sequencing fileset, samples, traits and covariates, joined by label with every drop counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from locomass.config import RunConfig
from locomass.errors import ConfigError, MatchError, StatisticsError, suggest
from locomass.follow_up import FollowUp
from locomass.genotypes.fileset import Fileset, open_fileset
from locomass.numbers import Floats
from locomass.people import join_labels, match_samples
from locomass.tables.samples import SampleTable, read_sample_list, read_table, select_columns
from locomass.tables.time_to_event import read_times


@dataclass(frozen=True)
class Trait:
    """A trait to analyse.

    Attributes:
        name: column of the phenotype table, or key of a time to event.
        kind: ``quantitative``, ``binary`` or ``time_to_event``.
        transform: of a quantitative trait, ``none``, ``rint`` or ``rint-residuals``.
    """

    name: str
    kind: str
    transform: str = "none"


@dataclass(frozen=True)
class UnfitTrait:
    """A trait that has no null model: why, and how many analysed samples have it (cases, or those with the event)."""

    trait: Trait
    reason: str
    n_samples: int
    n_cases: int | None


@dataclass(frozen=True)
class Cohort:
    """Analysed samples of a study, in the order of the .fam.

    Attributes:
        fileset: the sequencing genotypes.
        rows: (n,) position of each analysed sample in the .fam.
        fid, iid: (n,) labels.
        traits: T traits.
        y: (n, T) phenotypes, NaN where missing; binary traits are 0 or 1, times to events 1 at an event.
        covariates: quantitative (n,) float columns and categorical (n,) text columns by name.
        drops: samples left out, by reason.
        unfit: traits that were asked for and cannot be fitted.
        follow_up: of the n samples, by time to event.
    """

    fileset: Fileset
    rows: NDArray[np.int64]
    fid: NDArray[np.object_]
    iid: NDArray[np.object_]
    traits: tuple[Trait, ...]
    y: Floats
    covariates: dict[str, NDArray[Any]] = field(default_factory=dict)
    drops: dict[str, int] = field(default_factory=dict)
    unfit: tuple[UnfitTrait, ...] = ()
    follow_up: dict[str, FollowUp] = field(default_factory=dict)

    def with_values(self, values: Mapping[str, Floats]) -> Cohort:
        """Return the same samples with other (n,) values of some traits, by name."""
        y = self.y.copy()
        for k, trait in enumerate(self.traits):
            if trait.name in values:
                y[:, k] = values[trait.name]
        return replace(self, y=y)

    @property
    def labels(self) -> NDArray[np.object_]:
        """(n,) ``FID_IID`` labels, as REGENIE writes them."""
        return join_labels(self.fid, self.iid, "the analysed samples")

    @property
    def position(self) -> NDArray[np.int32]:
        """(N,) index of each sample of the .fam among the analysed ones, -1 where it is left out."""
        out = np.full(self.fileset.n_samples, -1, np.int32)
        out[self.rows] = np.arange(len(self.rows), dtype=np.int32)
        return out

    def without(self, reasons: Mapping[str, str]) -> Cohort:
        """Return the same samples without some traits, which are unfit for the reasons given by name."""
        kept = [k for k, trait in enumerate(self.traits) if trait.name not in reasons]
        unfit = [
            UnfitTrait(
                trait,
                reasons[trait.name],
                int(np.isfinite(y).sum()),
                None if trait.kind == "quantitative" else int(np.nansum(y)),
            )
            for trait, y in zip(self.traits, self.y.T, strict=True)
            if trait.name in reasons
        ]
        traits = tuple(self.traits[k] for k in kept)
        return replace(self, traits=traits, y=self.y[:, kept], unfit=(*self.unfit, *unfit))

    def observed(self) -> Cohort:
        """Return the samples that have a trait; the others are counted among the drops."""
        chosen = np.isfinite(self.y).any(axis=1)
        if chosen.all():
            return self
        return replace(
            self,
            rows=self.rows[chosen],
            fid=self.fid[chosen],
            iid=self.iid[chosen],
            y=self.y[chosen],
            covariates={name: values[chosen] for name, values in self.covariates.items()},
            follow_up={name: own.take(chosen) for name, own in self.follow_up.items()},
            drops={**self.drops, "no trait observed that can be fitted": int((~chosen).sum())},
        )

    def design(self, chosen: NDArray[np.bool_]) -> tuple[Floats, list[str]]:
        """Return (X, names): intercept, quantitative covariates, and indicators of all levels but the first present."""
        columns: list[NDArray[Any]] = [np.ones(int(chosen.sum()))]
        names = ["intercept"]
        for name, values in self.covariates.items():
            here = values[chosen]
            if values.dtype.kind == "f":
                columns.append(here)
                names.append(name)
                continue
            levels = np.unique(here)
            if len(levels) > max(2, len(here) // 2):
                raise StatisticsError(
                    f"categorical covariate '{name}' has {len(levels)} levels in {len(here)} samples; "
                    f"list it under covariates: quantitative if it is a number"
                )
            for level in levels[1:]:
                columns.append(here == level)
                names.append(f"{name}={level}")
        return np.column_stack(columns).astype(np.float64), names


def open_cohort(config: RunConfig, folder: Path) -> Cohort:
    """Open a study's genotypes, phenotypes and covariates and join them by sample label.

    Args:
        config: the configuration.
        folder: what its paths are relative to.

    Raises:
        InputError: see the readers; no sample is left, or a trait has no value left.
    """
    fileset = open_fileset(folder / config.genotypes)
    drops: dict[str, int] = {}
    keep = np.ones(fileset.n_samples, np.bool_)
    for name, path, wanted in (
        ("not in keep_samples", config.keep_samples, True),
        ("in remove_samples", config.remove_samples, False),
    ):
        if path:
            listed = _rows(fileset, read_sample_list(folder / path)) >= 0
            keep = _drop(keep, listed if wanted else ~listed, name, drops)
    table, traits, follow_up = _read_phenotypes(config, folder)
    rows = _rows(fileset, table)
    keep = _drop(keep, rows >= 0, f"not in {table.path.name}", drops)
    y = np.full((fileset.n_samples, len(traits)), np.nan)
    rows_of = np.maximum(rows, 0)
    y[rows >= 0] = np.column_stack([table.columns[t.name] for t in traits])[rows[rows >= 0]]
    keep = _drop(keep, np.isfinite(y).any(axis=1), "no trait observed", drops)
    covariates: dict[str, NDArray[Any]] = {}
    if config.covariates is not None:
        covariates, complete, where = _read_covariates(config, folder, fileset)
        keep = _drop(keep, where, f"not in {Path(config.covariates.file).name}", drops)
        keep = _drop(keep, complete, "missing covariate", drops)
    chosen = np.flatnonzero(keep)
    if not len(chosen):
        counts = ", ".join(f"{v:,} {k}" for k, v in drops.items())
        raise MatchError(f"no sample of {fileset.sample_path} is left to analyse ({counts})")
    return Cohort(
        fileset=fileset,
        rows=chosen,
        fid=fileset.fid[chosen],
        iid=fileset.iid[chosen],
        traits=tuple(traits),
        y=y[chosen],
        covariates={name: values[chosen] for name, values in covariates.items()},
        drops=drops,
        follow_up={name: own.take(rows_of[chosen]) for name, own in follow_up.items()},
    )


def _rows(fileset: Fileset, table: SampleTable) -> NDArray[np.int64]:
    """Return the table row of each sample of the fileset, -1 where absent."""
    fid = None if table.fid is None else table.fid.astype(object)
    return match_samples(fileset.fid, fileset.iid, fid, table.iid.astype(object), table.path.name)


def _drop(keep: NDArray[np.bool_], also: NDArray[np.bool_], reason: str, drops: dict[str, int]) -> NDArray[np.bool_]:
    """Return ``keep & also`` and count what was lost."""
    lost = int((keep & ~also).sum())
    if lost:
        drops[reason] = lost
    return np.asarray(keep & also)


def _read_phenotypes(config: RunConfig, folder: Path) -> tuple[SampleTable, list[Trait], dict[str, FollowUp]]:
    """Read the traits; binary ones become 0 and 1, times to events 1 at an event, with their follow-up."""
    spec = config.phenotypes
    if not spec.quantitative and not spec.binary and not spec.time_to_event:
        raise ConfigError("key phenotypes: name at least one column under quantitative, binary or time_to_event")
    table = read_table(
        folder / spec.file,
        quantitative=spec.quantitative,
        binary=spec.binary,
        binary_coding=spec.binary_coding,
        missing_codes=spec.missing_codes,
    )
    binary = set(select_columns(list(table.columns), spec.binary, "binary column")) - set(spec.quantitative)
    quantitative = [name for name in table.columns if name not in binary]
    how = _name_transforms(spec.transform, quantitative)
    traits = [
        Trait(name, "binary" if name in binary else "quantitative", how.get(name, "none")) for name in table.columns
    ]
    if not spec.time_to_event:
        return table, traits, {}
    twice = [name for name in spec.time_to_event if name in table.columns]
    if twice:
        raise ConfigError(
            f"key phenotypes.time_to_event: '{twice[0]}' is also a quantitative or binary trait; give it another name"
        )
    times = read_times(folder / spec.file, spec.time_to_event, spec.missing_codes)
    table.columns.update(times.event)
    return table, [*traits, *(Trait(name, "time_to_event") for name in times.event)], times.follow_up


def _name_transforms(transform: str | Mapping[str, str], quantitative: Sequence[str]) -> dict[str, str]:
    """Return the transform of each quantitative trait.

    Raises:
        ConfigError: a trait that has one is not quantitative, or there is no quantitative trait at all.
    """
    if isinstance(transform, str):
        if transform != "none" and not quantitative:
            raise ConfigError(f"key phenotypes.transform: {transform} needs a quantitative trait, and there is none")
        return dict.fromkeys(quantitative, transform)
    unknown = sorted(transform.keys() - set(quantitative))
    if unknown:
        hint = suggest(unknown[0], quantitative)
        raise ConfigError(f"key phenotypes.transform: '{unknown[0]}' is not a quantitative trait{hint}")
    return dict(transform)


def _read_covariates(
    config: RunConfig, folder: Path, fileset: Fileset
) -> tuple[dict[str, NDArray[Any]], NDArray[np.bool_], NDArray[np.bool_]]:
    """Return covariates by name over the fileset, which samples have them all, and which are in the table."""
    spec = config.covariates
    assert spec is not None
    table = read_table(
        folder / spec.file,
        quantitative=spec.quantitative,
        categorical=spec.categorical,
        missing_codes=spec.missing_codes,
    )
    rows = _rows(fileset, table)
    complete = np.ones(fileset.n_samples, np.bool_)
    covariates: dict[str, NDArray[Any]] = {}
    for name, values in table.columns.items():
        here = values[np.maximum(rows, 0)]
        covariates[name] = here
        complete &= np.isfinite(here) if here.dtype.kind == "f" else here != ""
    return covariates, complete, rows >= 0
