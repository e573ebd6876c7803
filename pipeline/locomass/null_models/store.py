"""Null models on disk, with labels: for the workers, and for a run that finds them up to date.

One folder: ``null_models.json``, ``study.npz`` (phenotypes, covariates, membership) and one .npz per chromosome.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from locomass.errors import FormatError
from locomass.files.atomic import atomic_directory
from locomass.files.parts import Arrays, read_arrays, write_arrays
from locomass.files.zarr_store import name_zarr_faults
from locomass.null_models.base import ALL_CHROMOSOMES, ChromosomeModel, ColumnLabel, Covariance, NullModels
from locomass.null_models.risk_sets import RiskSets

#: ``unit`` of a LOCO prediction in standard deviations of the covariate-adjusted trait: REGENIE's .loco files
RESIDUAL_SD = "residual_sd"


def write_null_models(path: Path, models: NullModels) -> None:
    """Write null models as a folder, atomically."""
    with atomic_directory(path) as folder:
        shared = {
            "sample_sets": models.sample_sets,
            "covariances": [vars(c) for c in models.covariances],
            "traits": models.traits,
            "rows": models.rows,
            "chromosomes": {c: _describe(m) for c, m in models.chromosomes.items()},
        }
        (folder / "null_models.json").write_text(json.dumps(shared, default=float))
        bases = {f"basis_{k}": basis for k, basis in enumerate(models.bases)}
        samples = models.samples.astype(str)
        write_arrays(folder / "study.npz", {"samples": samples, "in_set": models.in_set, "y": models.y, **bases})
        for chromosome, model in models.chromosomes.items():
            write_arrays(folder / f"{chromosome}.npz", _to_arrays(model))


def _describe(model: ChromosomeModel) -> dict[str, Any]:
    """Return what is said of a chromosome's arrays in null_models.json."""
    return {
        "sigma2": model.sigma2,
        "labels": [vars(label) for label in model.labels],
        "prediction_labels": [vars(label) for label in model.prediction_labels],
    }


def _to_arrays(model: ChromosomeModel) -> Arrays:
    """Return a chromosome's arrays by name."""
    designs = {f"design_{k}": design for k, design in enumerate(model.designs)}
    weight = {f"weight_{k}": weight for k, weight in enumerate(model.weight)}
    risk = {f"risk_{k}_{name}": x for k, own in enumerate(model.risk) if own for name, x in own.arrays().items()}
    return {"columns": model.columns, "predictions": model.predictions, **designs, **weight, **risk}


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
        study = _read(path / "study.npz")
        covariances = tuple(Covariance(**{**c, "traits": tuple(c["traits"])}) for c in shared["covariances"])
        bases = tuple(study[f"basis_{k}"] for k in range(len(shared["sample_sets"])))
        chromosomes = {
            c: _from_arrays(_read(path / f"{c}.npz"), shared["chromosomes"][c], len(covariances)) for c in wanted
        }
        stored = study["samples"].astype(object)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(path, error) from None
    if not np.array_equal(stored, samples):
        raise FormatError(
            "made for other samples than the configuration now selects; run `locomass denoise` again", path=path
        )
    return NullModels(
        samples=stored,
        sample_sets=tuple(shared["sample_sets"]),
        in_set=study["in_set"],
        covariances=covariances,
        traits=tuple(shared["traits"]),
        y=study["y"],
        bases=bases,
        chromosomes=chromosomes,
        rows=tuple(shared["rows"]),
    )


def _from_arrays(arrays: Arrays, described: dict[str, Any], n_covariances: int) -> ChromosomeModel:
    """Return the model that `_to_arrays` and `_describe` laid down."""
    return ChromosomeModel(
        designs=tuple(arrays[f"design_{k}"] for k in range(n_covariances)),
        weight=tuple(arrays[f"weight_{k}"] for k in range(n_covariances)),
        columns=arrays["columns"],
        labels=tuple(ColumnLabel(**label) for label in described["labels"]),
        predictions=arrays["predictions"],
        prediction_labels=tuple(ColumnLabel(**label) for label in described["prediction_labels"]),
        sigma2={trait: float(value) for trait, value in described["sigma2"].items()},
        risk=tuple(_read_risk(arrays, f"risk_{k}_") for k in range(n_covariances)),
    )


def _read_risk(arrays: Arrays, prefix: str) -> RiskSets | None:
    """Return the risk sets whose arrays begin so, if there are any."""
    own = {name.removeprefix(prefix): x for name, x in arrays.items() if name.startswith(prefix)}
    return RiskSets(**own) if own else None


def _read(path: Path) -> Arrays:
    """Return the arrays of a file.

    Raises:
        ValueError: absent or damaged.
    """
    arrays = read_arrays(path)
    if arrays is None:
        raise ValueError(f"{path.name} is absent or damaged")
    return arrays


def _damaged(path: Path, error: Exception) -> FormatError:
    return FormatError(f"damaged null models ({error}); run `locomass denoise` again", path=path)


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
    with warnings.catch_warnings(), name_zarr_faults(path):
        warnings.simplefilter("ignore")
        # without Dask: a task that waits for other tasks would block its worker
        data = xr.open_zarr(path, consolidated=False, chunks=None).load()
    for name in data.coords:
        if data[name].dtype.kind not in "iuf":
            data[name] = data[name].astype(str)
    return data
