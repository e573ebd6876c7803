"""Null models on disk: what the score-statistics stage projects genotypes on, per chromosome, with labels.

A *covariance* is a group of traits that share G'WG: all quantitative traits with the same samples (W = 1 there), or one
binary trait (W = mu(1 - mu)). A *sample set* is a group of traits with the same samples.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pipeline.align import chromosome_order
from pipeline.errors import FormatError
from pipeline.io.atomic import atomic_directory

Floats = NDArray[np.float64]
ALL_CHROMOSOMES = "all"  # one model serves every chromosome when there is no predictor


#: ``unit`` of a LOCO prediction in standard deviations of the covariate-adjusted trait: REGENIE's .loco files
RESIDUAL_SD = "residual_sd"


@dataclass(frozen=True)
class ColumnLabel:
    """What one column of the projection matrix is.

    Attributes:
        role: ``design`` (orthonormal covariates, owner = covariance), ``residual`` or ``loco`` (owner = trait).
        owner: name of the covariance or trait.
        sample_set: sample set outside which the column is zero.
    """

    role: str
    owner: str
    sample_set: str


@dataclass(frozen=True)
class Covariance:
    """Traits that share G'WG."""

    name: str
    kind: str
    sample_set: str
    traits: tuple[str, ...]


@dataclass(frozen=True)
class ChromosomeModel:
    """Null models of all traits on one chromosome.

    Attributes:
        columns: (n, q) C: residuals divided by phi, orthonormal designs, LOCO columns.
        labels: (q,) what each column is.
        weight: (n, covariances) diagonal of W, zero outside the sample set.
        sigma2: trait -> residual variance (1 for binary traits).
    """

    columns: Floats
    labels: tuple[ColumnLabel, ...]
    weight: Floats
    sigma2: dict[str, float]

    def column_indices(self, role: str, owner: str) -> NDArray[np.int64]:
        """Return the columns with a role and an owner, in order."""
        return self._places.get((role, owner), np.empty(0, np.int64))

    @cached_property
    def _places(self) -> dict[tuple[str, str], NDArray[np.int64]]:
        places: dict[tuple[str, str], list[int]] = {}
        for k, label in enumerate(self.labels):
            places.setdefault((label.role, label.owner), []).append(k)
        return {key: np.array(columns, np.int64) for key, columns in places.items()}


@dataclass(frozen=True)
class NullModels:
    """Null models of a study.

    Attributes:
        samples: (n,) FID_IID labels of the analysed samples.
        sample_sets: names; in_set is (n, S) with 1 where a sample belongs.
        covariances: groups of traits that share G'WG.
        traits: per trait, in order: name, kind, sample_set, covariance, n_samples, n_cases.
        chromosomes: chromosome -> model; the key ``all`` serves every chromosome.
        rows: the rows of null_models.tsv.
    """

    samples: NDArray[np.object_]
    sample_sets: tuple[str, ...]
    in_set: NDArray[np.uint8]
    covariances: tuple[Covariance, ...]
    traits: tuple[dict[str, Any], ...]
    chromosomes: dict[str, ChromosomeModel]
    rows: tuple[dict[str, Any], ...]

    def model(self, chromosome: str) -> ChromosomeModel:
        """Return the model of a chromosome."""
        if ALL_CHROMOSOMES in self.chromosomes:
            return self.chromosomes[ALL_CHROMOSOMES]
        return self.chromosomes[chromosome]


def write_null_models(path: Path, models: NullModels) -> None:
    """Write null models as a directory of Zarr groups, one per chromosome, atomically."""
    with atomic_directory(path) as folder:
        shared = {
            "sample_sets": models.sample_sets,
            "covariances": [vars(c) for c in models.covariances],
            "traits": models.traits,
            "rows": models.rows,
            "chromosomes": {c: {"sigma2": m.sigma2} for c, m in models.chromosomes.items()},
        }
        (folder / "null_models.json").write_text(json.dumps(shared, default=float))
        for chromosome, model in models.chromosomes.items():
            _write_zarr(_to_dataset(models, model), folder / f"{chromosome}.zarr")


def _to_dataset(models: NullModels, model: ChromosomeModel) -> xr.Dataset:
    """Return one chromosome's arrays with labels."""
    return xr.Dataset(
        {
            "columns": (("sample", "column"), model.columns),
            "weight": (("sample", "covariance"), model.weight),
            "in_set": (("sample", "sample_set"), models.in_set),
        },
        coords={
            "sample": models.samples.astype(str),
            "column": ["\t".join((label.role, label.owner, label.sample_set)) for label in model.labels],
            "covariance": [c.name for c in models.covariances],
            "sample_set": list(models.sample_sets),
        },
    )


def read_null_models(path: Path, samples: NDArray[np.object_], chromosome: str | None = None) -> NullModels:
    """Read null models and check that they belong to these samples.

    Args:
        path: what `write_null_models` wrote.
        samples: (n,) labels of the analysed samples.
        chromosome: read the models that serve this chromosome only: those of 22 do not fit beside each other when there
            are many samples and traits.

    Raises:
        FormatError: the store is damaged, or was made for other samples.
    """
    try:
        shared = json.loads((path / "null_models.json").read_text())
        wanted = [c for c in shared["chromosomes"] if chromosome in (None, c) or c == ALL_CHROMOSOMES]
        data = {c: _read_zarr(path / f"{c}.zarr") for c in wanted}
        first = next(iter(data.values()))
    except (OSError, ValueError, KeyError, StopIteration) as error:
        raise FormatError(f"damaged null models ({error}); run `locomass denoise` again", path=path) from None
    stored = first["sample"].values.astype(str).astype(object)
    if not np.array_equal(stored, samples):
        raise FormatError(
            "made for other samples than the configuration now selects; run `locomass denoise` again", path=path
        )
    chromosomes = {
        c: ChromosomeModel(
            d["columns"].values,
            tuple(ColumnLabel(*str(x).split("\t")) for x in d["column"].values),
            d["weight"].values,
            shared["chromosomes"][c]["sigma2"],
        )
        for c, d in data.items()
    }
    return NullModels(
        stored,
        tuple(shared["sample_sets"]),
        first["in_set"].values,
        tuple(Covariance(**{**c, "traits": tuple(c["traits"])}) for c in shared["covariances"]),
        tuple(shared["traits"]),
        chromosomes,
        tuple(shared["rows"]),
    )


def read_residuals(path: Path, traits: Sequence[str]) -> tuple[str, dict[str, Floats]]:
    """Return a chromosome, the first, and the standardised residuals ``r / sqrt(sigma2)`` of traits on it.

    Args:
        path: what `write_null_models` wrote.
        traits: names; the residuals of each are those of its own samples, in no order that matters.

    Raises:
        FormatError: the store is damaged.
    """
    try:
        shared = json.loads((path / "null_models.json").read_text())
        chromosome = min(shared["chromosomes"], key=chromosome_order)
        sigma2 = shared["chromosomes"][chromosome]["sigma2"]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            data = xr.open_zarr(path / f"{chromosome}.zarr", consolidated=False, chunks=None)
        labels = [ColumnLabel(*str(x).split("\t")) for x in data["column"].values]
        at = {label.owner: k for k, label in enumerate(labels) if label.role == "residual"}
        columns = data["columns"].isel(column=[at[trait] for trait in traits]).values
        in_set = dict(zip(data["sample_set"].values.astype(str), data["in_set"].values.T.astype(bool), strict=True))
    except (OSError, ValueError, KeyError) as error:
        raise FormatError(f"damaged null models ({error}); run `locomass denoise` again", path=path) from None
    # the columns are r / sigma2
    return chromosome, {
        trait: columns[in_set[labels[at[trait]].sample_set], k] * float(sigma2[trait]) ** 0.5
        for k, trait in enumerate(traits)
    }


def write_array(path: Path, array: xr.DataArray) -> None:
    """Write a labelled array as a Zarr store, atomically."""
    with atomic_directory(path) as folder:
        _write_zarr(array.to_dataset(name=array.name or "array"), folder)


def read_array(path: Path, name: str) -> xr.DataArray:
    """Read a labelled array that `write_array` wrote."""
    return _read_zarr(path)[name]


def _write_zarr(data: xr.Dataset, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Zarr 3 announces that string types are not yet in its specification
        data.to_zarr(path, mode="w", consolidated=False)


def _read_zarr(path: Path) -> xr.Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # without Dask: a task that waits for other tasks would block its worker
        data = xr.open_zarr(path, consolidated=False, chunks=None).load()
    for name in data.coords:
        if data[name].dtype.kind not in "iuf":
            data[name] = data[name].astype(str)
    return data
