"""De-noising: null models per trait and chromosome, the LOCO prediction as covariate or offset, and their record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import xarray as xr
from numpy.typing import NDArray

from pipeline.align import chromosome_order
from pipeline.errors import MatchError, StatisticsError
from pipeline.io.cohort import Cohort, Trait
from pipeline.io.null_models import (
    ALL_CHROMOSOMES,
    RESIDUAL_SD,
    ChromosomeModel,
    ColumnLabel,
    Covariance,
    NullModels,
    write_null_models,
)
from pipeline.io.results import write_tsv
from pipeline.kernels.null_model import (
    NullModel,
    extra_design,
    fit_linear,
    fit_logistic,
    orthonormal_design,
    residual_sd,
)
from pipeline.schema import NULL_MODELS

Floats = NDArray[np.float64]


def denoise(cohort: Cohort, loco: xr.DataArray | None, role: str, out: Path) -> NullModels:
    """Fit the null models of a cohort, write them and their record, and return them.

    Args:
        cohort: samples, traits and covariates.
        loco: LOCO predictions (chromosome, sample, trait), samples labelled FID_IID; None without a predictor.
        role: ``covariate`` or ``offset``.
        out: the run's output directory; writes ``denoise/`` and ``null_models.tsv``.

    Raises:
        StatisticsError: a constant trait, no cases, singular covariates; names the trait.
        MatchError: the prediction lacks samples, a trait or a chromosome.
    """
    models = fit_null_models(cohort, loco, role)
    write_null_models(out / "denoise", models)
    table = pa.Table.from_pylist(list(models.rows), schema=NULL_MODELS.arrow)
    write_tsv(out / "null_models.tsv", table)
    return models


def fit_null_models(cohort: Cohort, loco: xr.DataArray | None, role: str) -> NullModels:
    """Fit every trait on every chromosome of the fileset (once for all chromosomes without a predictor)."""
    present = sorted(set(map(str, cohort.fileset.variants["chromosome"].unique())), key=chromosome_order)
    chromosomes = [ALL_CHROMOSOMES] if loco is None else present
    predictions: dict[str, Floats] = {} if loco is None else _align_loco(loco, cohort, present)
    y = cohort.y.copy()
    for k, trait in enumerate(cohort.traits):
        if trait.name in predictions:
            y[np.isnan(predictions[trait.name]).any(axis=0), k] = np.nan
    for k, trait in enumerate(cohort.traits):
        if not np.isfinite(y[:, k]).any():
            what = "value together with a LOCO prediction" if trait.name in predictions else "value"
            raise StatisticsError(f"trait '{trait.name}' has no {what} among the {len(y)} analysed samples")
    sets, in_set, set_of = _sample_sets(y)
    as_column = set(predictions) if role == "covariate" else set()
    covariances = _covariances(cohort.traits, set_of, as_column)
    designs = {name: cohort.design(in_set[:, k].astype(bool)) for k, name in enumerate(sets)}
    unit = "" if loco is None else str(loco.attrs.get("unit", ""))
    models: dict[str, ChromosomeModel] = {}
    rows: list[dict[str, Any]] = []
    for c, chromosome in enumerate(chromosomes):
        F = {name: values[c] for name, values in predictions.items()}
        model, fitted = _fit_chromosome(cohort, y, F, role, sets, in_set, covariances, designs, unit)
        models[chromosome] = model
        for trait in cohort.traits:
            n_covariates = designs[set_of[trait.name]][0].shape[1]
            use = role if trait.name in F else "none"
            rows.append(_record(trait, chromosome, fitted[trait.name], use, n_covariates, y, cohort))
    traits = tuple(
        {
            "name": t.name,
            "kind": t.kind,
            "sample_set": set_of[t.name],
            "covariance": next(c.name for c in covariances if t.name in c.traits),
            "n_samples": int(np.isfinite(y[:, k]).sum()),
            "n_cases": int(np.nansum(y[:, k])) if t.kind == "binary" else None,
        }
        for k, t in enumerate(cohort.traits)
    )
    rows.sort(key=lambda row: [t.name for t in cohort.traits].index(row["trait"]))
    return NullModels(cohort.labels, sets, in_set, covariances, traits, models, tuple(rows))


def _align_loco(loco: xr.DataArray, cohort: Cohort, chromosomes: list[str]) -> dict[str, Floats]:
    """Return (chromosome, sample) predictions of the cohort's samples by trait; NaN where a prediction is missing."""
    lacking = [c for c in chromosomes if c not in set(loco["chromosome"].values.tolist())]
    if lacking:
        raise MatchError(
            f"the LOCO prediction has no row for chromosome {', '.join(lacking)}; it has "
            f"{', '.join(map(str, loco['chromosome'].values))}"
        )
    labels = loco["sample"].values.astype(str)
    found = np.isin(cohort.labels.astype(str), labels)
    if not found.any():
        raise MatchError(
            f"no sample of the LOCO prediction (such as '{labels[0]}') is analysed (such as '{cohort.labels[0]}'); "
            f"labels are FID_IID"
        )
    chosen = loco.sel(chromosome=chromosomes, sample=cohort.labels[found].astype(str))
    out = {}
    for name in (t.name for t in cohort.traits if t.name in set(loco["trait"].values.tolist())):
        out[name] = np.full((len(chromosomes), len(cohort.labels)), np.nan)
        out[name][:, found] = chosen.sel(trait=name).transpose("chromosome", "sample").values
    return out


def _sample_sets(y: Floats) -> tuple[tuple[str, ...], NDArray[np.uint8], dict[Any, str]]:
    """Group traits by the samples they are observed in: names, (n, S) membership, and trait index -> name."""
    observed = np.isfinite(y)
    patterns: dict[bytes, int] = {}
    index = [patterns.setdefault(np.packbits(observed[:, t]).tobytes(), len(patterns)) for t in range(y.shape[1])]
    names = tuple(f"s{k + 1}" for k in range(len(patterns)))
    first = [index.index(k) for k in range(len(patterns))]
    return names, np.ascontiguousarray(observed[:, first]).astype(np.uint8), {t: names[k] for t, k in enumerate(index)}


def _covariances(traits: tuple[Trait, ...], set_of: dict[Any, str], as_column: set[str]) -> tuple[Covariance, ...]:
    """Group traits that share G'WG and the number of LOCO columns, and let ``set_of`` also answer to trait names."""
    groups: dict[str, tuple[str, str, list[str]]] = {}
    for k, trait in enumerate(traits):
        set_of[trait.name] = set_of[k]
        name = f"binary:{trait.name}" if trait.kind == "binary" else f"quantitative:{set_of[k]}"
        if trait.kind == "quantitative" and trait.name in as_column:
            name += ":loco"
        groups.setdefault(name, (trait.kind, set_of[k], []))[2].append(trait.name)
    return tuple(Covariance(name, kind, s, tuple(members)) for name, (kind, s, members) in groups.items())


def _fit_chromosome(
    cohort: Cohort,
    y: Floats,
    F: dict[str, Floats],
    role: str,
    sets: tuple[str, ...],
    in_set: NDArray[np.uint8],
    covariances: tuple[Covariance, ...],
    designs: dict[str, tuple[Floats, list[str]]],
    unit: str,
) -> tuple[ChromosomeModel, dict[str, NullModel]]:
    """Fit all traits on one chromosome and lay out the columns that genotypes are projected on."""
    n = len(y)
    index = {t.name: k for k, t in enumerate(cohort.traits)}
    columns: list[Floats] = []
    labels: list[ColumnLabel] = []
    weight = np.zeros((n, len(covariances)))
    fitted: dict[str, NullModel] = {}
    bases = {s: orthonormal_design(X, np.ones(len(X)), names) for s, (X, names) in designs.items()}
    for k, covariance in enumerate(covariances):
        s = covariance.sample_set
        chosen = in_set[:, sets.index(s)].astype(bool)
        X, names = designs[s]
        for position, trait in enumerate(covariance.traits):
            here = y[chosen, index[trait]]
            prediction = F[trait][chosen] if trait in F else np.zeros(len(here))
            as_columns = prediction[:, None] if trait in F and role == "covariate" else np.empty((len(here), 0))
            offset = prediction if role == "offset" else np.zeros(len(here))
            try:
                if covariance.kind == "quantitative":
                    if unit == RESIDUAL_SD:
                        offset = offset * residual_sd(here, bases[s])
                    model = fit_linear(here, bases[s], as_columns, offset)
                    Z, extra = bases[s], extra_design(as_columns, bases[s])
                else:
                    model = fit_logistic(here, bases[s], as_columns, offset)
                    full, full_names = np.hstack([X, as_columns]), [*names, *["LOCO prediction"] * as_columns.shape[1]]
                    Z, extra = orthonormal_design(full, model.weight, full_names), np.empty((len(here), 0))
            except StatisticsError as error:
                raise StatisticsError(f"trait '{trait}': {error}") from None
            fitted[trait] = model
            if position == 0:
                weight[chosen, k] = model.weight
                _place(columns, labels, Z, chosen, ColumnLabel("design", covariance.name, s))
            _place(columns, labels, model.residual[:, None] / model.sigma2, chosen, ColumnLabel("residual", trait, s))
            _place(columns, labels, extra, chosen, ColumnLabel("loco", trait, s))
    sigma2 = {trait: float(model.sigma2) for trait, model in fitted.items()}
    return ChromosomeModel(np.ascontiguousarray(np.column_stack(columns)), tuple(labels), weight, sigma2), fitted


def _place(
    columns: list[Floats], labels: list[ColumnLabel], block: Floats, chosen: NDArray[np.bool_], label: ColumnLabel
) -> None:
    """Append columns given on the chosen samples, zero elsewhere."""
    for j in range(block.shape[1]):
        full = np.zeros(len(chosen))
        full[chosen] = block[:, j]
        columns.append(full)
        labels.append(label)


def _record(
    trait: Trait, chromosome: str, model: NullModel, use: str, n_covariates: int, y: Floats, cohort: Cohort
) -> dict[str, Any]:
    """Return the row of null_models.tsv."""
    values = y[:, [t.name for t in cohort.traits].index(trait.name)]
    slope = float(model.slope[0]) if len(model.slope) else (1.0 if use == "offset" else None)
    gain = 1 / (1 - model.r2) if trait.kind == "quantitative" and use != "none" else None
    return {
        "trait": trait.name,
        "kind": trait.kind,
        "chromosome": chromosome,
        "n_samples": int(np.isfinite(values).sum()),
        "n_cases": int(np.nansum(values)) if trait.kind == "binary" else None,
        "n_covariates": n_covariates,
        "use": use,
        "slope": slope,
        "slope_se": float(model.slope_se[0]) if len(model.slope_se) else None,
        "r2": model.r2 if use != "none" else None,
        "variance_before": model.variance_before,
        "variance_after": model.variance_after,
        "gain": gain,
    }
