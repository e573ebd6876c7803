"""De-noising: null models per trait and chromosome, the LOCO prediction as covariate or offset, and their record."""

from __future__ import annotations

import csv
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import xarray as xr
from numpy.typing import NDArray

from locomass.errors import MatchError, StatisticsError
from locomass.files.results import write_tsv
from locomass.follow_up import FollowUp
from locomass.genotypes.hemizygous import MALE
from locomass.null_models.base import (
    ALL_CHROMOSOMES,
    ChromosomeModel,
    ColumnLabel,
    Covariance,
    Design,
    NullFit,
    NullModels,
    Outcome,
)
from locomass.null_models.design import RANK_TOLERANCE, orthonormal_design, residual_basis, residual_sd
from locomass.null_models.registry import REGRESSIONS
from locomass.null_models.risk_sets import RiskSets
from locomass.null_models.store import RESIDUAL_SD, write_null_models
from locomass.null_models.transform import rank_normal, residual_moments
from locomass.numbers import Floats, is_far_from_normal
from locomass.schema import NULL_MODELS
from locomass.tables.cohort import Cohort, Trait, UnfitTrait
from locomass.variants.chromosomes import PSEUDO_AUTOSOMAL, chromosome_order
from locomass.variants.chromosomes import X as X_CHROMOSOME

log = logging.getLogger("locomass")
Fitted = TypeVar("Fitted")
MOMENTS = ("skewness", "kurtosis")
TIE_DIGITS = 10  # of residuals relative to the largest: equal ones differ by rounding only


class UnfitTraitsError(StatisticsError):
    """Traits that have no null model; ``reasons`` says why, by name."""

    def __init__(self, reasons: Mapping[str, str]) -> None:
        self.reasons = dict(reasons)
        same: dict[str, list[str]] = {}
        for trait, reason in reasons.items():
            same.setdefault(reason, []).append(f"'{trait}'")
        parts = (f"trait{'s' * (len(who) > 1)} {', '.join(who)}: {reason}" for reason, who in same.items())
        super().__init__("; ".join(parts))


@dataclass(frozen=True)
class Roles:
    """How null models use the LOCO prediction, ``covariate`` or ``offset``: of a time to event, and of other traits."""

    usual: str
    time_to_event: str = "covariate"

    def of(self, kind: str) -> str:
        """Return the role for a kind of trait."""
        return self.time_to_event if kind == "time_to_event" else self.usual


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """What the models of all chromosomes have in common.

    Attributes:
        cohort: samples, traits and covariates.
        y: (n, T) phenotypes, NaN where missing or without a prediction.
        roles: of the LOCO prediction.
        unit: of the LOCO prediction.
        sets: names of the sample sets; in_set is (n, S) membership, set_of the set of each trait by name.
        designs: per sample set, its covariates.
        covariances: groups of traits that share G'WG.
        sex: per sample set, (n, 1) what sex adds to the covariates, orthonormal; nothing but on chromosome X.
    """

    cohort: Cohort
    y: Floats
    roles: Roles
    unit: str
    sets: tuple[str, ...]
    in_set: NDArray[np.uint8]
    set_of: dict[str, str]
    designs: dict[str, Design]
    covariances: tuple[Covariance, ...]
    sex: Mapping[str, Floats] = field(default_factory=dict)

    def members(self, sample_set: str) -> NDArray[np.bool_]:
        """Return (n,) which samples belong to a set."""
        return self.in_set[:, self.sets.index(sample_set)].astype(bool)

    def phenotype(self, trait: str) -> Floats:
        """Return (n,) values of a trait."""
        return self.y[:, [t.name for t in self.cohort.traits].index(trait)]

    def with_sex(self) -> _Plan:
        """Return the plan of chromosome X: sex is a covariate, unless the others make it up or it does not vary.

        Males count otherwise there: where prevalence or variance differ by sex, genotypes would go with the trait.
        """
        male = (self.cohort.fileset.sex[self.cohort.rows] == MALE).astype(np.float64)
        designs, added = dict(self.designs), {}
        for name, design in self.designs.items():
            own = male[self.members(name), None]
            left = own - design.basis @ (design.basis.T @ own)
            if np.linalg.norm(left) <= RANK_TOLERANCE * np.linalg.norm(own) or len(own) <= design.X.shape[1] + 1:
                continue
            added[name] = left / np.linalg.norm(left)
            basis = np.hstack([design.basis, added[name]])
            designs[name] = Design(np.hstack([design.X, own]), [*design.names, "sex"], basis)
        return replace(self, designs=designs, sex=added)


def denoise(
    cohort: Cohort, loco: xr.DataArray | None, role: str | Roles, out: Path, needed: Collection[str] | None = None
) -> NullModels:
    """Fit the null models of a cohort, write them and their record, and return them.

    Args:
        cohort: samples, traits and covariates.
        loco: LOCO predictions (chromosome, sample, trait), samples labelled FID_IID; None without a predictor.
        role: ``covariate`` or ``offset``, or of each kind of trait.
        out: the run's output directory; writes ``denoise/`` and ``null_models.tsv``.
        needed: chromosomes that must have a prediction, those of the genes; all of the fileset when None.

    Raises:
        StatisticsError: no trait can be fitted; see `fit_null_models`.
        MatchError: the prediction lacks samples, a trait or a chromosome that is needed.
    """
    models = fit_null_models(cohort, loco, role, needed)
    write_null_models(out / "denoise", models)
    table = pa.Table.from_pylist(list(models.rows), schema=NULL_MODELS.arrow)
    write_tsv(out / "null_models.tsv", table)
    return models


def fit_null_models(
    cohort: Cohort, loco: xr.DataArray | None, role: str | Roles, needed: Collection[str] | None = None
) -> NullModels:
    """Fit every trait on every chromosome of the fileset (once for all chromosomes without a predictor).

    Chromosomes that are not needed and have no prediction are left out; see `denoise`. So is a trait that cannot be
    fitted on one of the others: its row says why.

    Raises:
        StatisticsError: no trait can be fitted (constant, no cases, separated, singular covariates); names the traits.
    """
    roles = role if isinstance(role, Roles) else Roles(role, role)
    return _fit_sound(cohort, lambda sound: _fit_traits(sound, loco, roles, needed))[1]


def screen_traits(cohort: Cohort) -> Cohort:
    """Return the cohort with the traits that can be fitted without a prediction, and the samples that have one.

    Raises:
        StatisticsError: no trait can be fitted; names the traits.
    """

    def fit(sound: Cohort) -> None:
        for _ in _fit_each(_plan(sound, {}, Roles("covariate"), ""), {}, {}):
            pass  # nothing is kept

    return _fit_sound(cohort, fit)[0].observed()


def transform_traits(cohort: Cohort) -> Cohort:
    """Return the cohort with the values of quantitative traits transformed, as each trait says.

    ``rint`` ranks the values of the analysed people. ``rint-residuals`` ranks the residuals of the covariates,
    which are fitted once more with everything else: no correlation with them is left (Sofer et al. 2019, Genet
    Epidemiol 43:263). Both come before predictors that are trained in the cohort, and before a LOCO prediction
    is fitted or subtracted, whose offsets are in residual standard deviations of the *transformed* trait.
    """
    values = {}
    for trait, y in zip(cohort.traits, cohort.y.T, strict=True):
        if trait.transform == "none":
            continue
        known, ranked = np.isfinite(y), y.copy()
        if trait.transform == "rint-residuals":
            X, names = cohort.design(known)
            Z = orthonormal_design(X, np.ones(len(X)), names)
            left = y[known] - Z @ (Z.T @ y[known])
            ranked[known] = np.round(left / np.abs(left).max(), TIE_DIGITS)
        values[trait.name] = rank_normal(ranked)
    return cohort.with_values(values) if values else cohort


def warn_of_residuals(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return a sentence per quantitative trait whose residuals are far from normal.

    Args:
        rows: of null_models.tsv, with their skewness and excess kurtosis.
    """
    said: dict[str, str] = {}
    for row in rows:
        if row.get("skewness") is not None and is_far_from_normal(row["skewness"], row["kurtosis"], row["n_samples"]):
            said.setdefault(
                row["trait"],
                f"trait '{row['trait']}': its residuals are far from normal (skewness {row['skewness']:.3g}, excess "
                f"kurtosis {row['kurtosis']:.3g}); p-values hold, but power is lost: consider "
                "`phenotypes: {transform: rint}`",
            )
    return list(said.values())


def check_residuals(cohort: Cohort) -> list[str]:
    """Return what `warn_of_residuals` says of null models without a prediction."""
    plan = _plan(cohort, {}, Roles("covariate"), "")
    fits = {found.trait: found.fit for found in _fit_each(plan, {}, {})}
    return warn_of_residuals(_record(plan, trait, ALL_CHROMOSOMES, fits[trait.name], "none") for trait in cohort.traits)


def _fit_sound(cohort: Cohort, fit: Callable[[Cohort], Fitted]) -> tuple[Cohort, Fitted]:
    """Return the traits that can be fitted, the others being unfit, and what a function makes of them.

    Args:
        cohort: traits to fit.
        fit: fits all traits that it is given, or raises UnfitTraitsError.

    Raises:
        UnfitTraitsError: no trait is left.
    """
    while True:
        try:
            return cohort, fit(cohort)
        except UnfitTraitsError as error:
            if len(error.reasons) == len(cohort.traits):
                raise UnfitTraitsError({**{u.trait.name: u.reason for u in cohort.unfit}, **error.reasons}) from None
            for trait, reason in error.reasons.items():
                log.warning("trait '%s' cannot be fitted and is left out: %s", trait, reason)
            cohort = cohort.without(error.reasons)


def read_unfit(path: Path) -> dict[str, str]:
    """Return the traits that were left out and why, from a null_models.tsv; none when it is not there."""
    if not path.exists():
        return {}
    with path.open(encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle, delimiter="\t", quoting=csv.QUOTE_NONE))
    return {row["trait"]: row["note"] for row in rows if row.get("note", "NA") != "NA"}


def _fit_traits(cohort: Cohort, loco: xr.DataArray | None, roles: Roles, needed: Collection[str] | None) -> NullModels:
    """Fit all traits.

    Raises:
        UnfitTraitsError: some cannot be fitted.
    """
    chromosomes, predictions = [ALL_CHROMOSOMES], dict[str, Floats]()
    if loco is not None:
        present = sorted(set(map(str, cohort.fileset.variants["chromosome"].unique())), key=chromosome_order)
        used = find_loco_rows(loco, present, present if needed is None else needed)
        chromosomes, predictions = list(used), _align_loco(loco, cohort, list(used.values()))
    _refuse_constant(predictions)
    plan = _plan(cohort, predictions, roles, "" if loco is None else str(loco.attrs.get("unit", "")))
    models: dict[str, ChromosomeModel] = {}
    fitted: dict[str, NullFit] = {}
    rows: list[dict[str, Any]] = []
    by_sex = plan.with_sex() if _tests_x(cohort, needed) else plan
    if by_sex.sex and loco is None:
        chromosomes.append(X_CHROMOSOME)
    for c, chromosome in enumerate(chromosomes):
        own = by_sex if chromosome == X_CHROMOSOME else plan
        # a predictor whose weights are all on this chromosome leaves nothing: no prediction here
        F = {name: values[c] for name, values in predictions.items() if np.nanmin(values[c]) < np.nanmax(values[c])}
        models[chromosome], fitted = _fit_chromosome(own, F, fitted)
        for trait in cohort.traits:
            use = roles.of(trait.kind) if trait.name in F else "none"
            rows.append(_record(own, trait, chromosome, fitted[trait.name], use))
    rows.sort(key=lambda row: [t.name for t in cohort.traits].index(row["trait"]))
    rows += [_record_unfit(unfit) for unfit in cohort.unfit]
    return NullModels(
        samples=cohort.labels,
        sample_sets=plan.sets,
        in_set=plan.in_set,
        covariances=plan.covariances,
        traits=tuple(_describe_trait(plan, trait) for trait in cohort.traits),
        y=plan.y,
        bases=tuple(_spread(plan.designs[name].basis, plan.members(name)) for name in plan.sets),
        chromosomes=models,
        rows=tuple(rows),
    )


def _tests_x(cohort: Cohort, needed: Collection[str] | None) -> bool:
    """Return whether chromosome X is tested."""
    chromosomes = set(map(str, cohort.fileset.variants["chromosome"].unique())) if needed is None else set(needed)
    return X_CHROMOSOME in chromosomes


def _refuse_constant(predictions: Mapping[str, Floats]) -> None:
    """Raise when the prediction of a trait varies on no chromosome: then it predicts nothing, which nobody asked for.

    Args:
        predictions: (chromosome, sample) by trait.

    Raises:
        UnfitTraitsError: names the traits.
    """
    constant = [
        trait
        for trait, values in predictions.items()
        if (seen := values[:, np.isfinite(values).all(axis=0)]).size and not np.ptp(seen, axis=1).any()
    ]
    if constant:
        reason = (
            "the LOCO prediction is constant on every chromosome, so it predicts nothing; give another predictor, or "
            "method: none"
        )
        raise UnfitTraitsError(dict.fromkeys(constant, reason))


def _plan(cohort: Cohort, predictions: dict[str, Floats], roles: Roles, unit: str) -> _Plan:
    """Group traits by samples and by G'WG, and lay out the covariates of every sample set."""
    y = cohort.y.copy()
    unfit: dict[str, str] = {}
    for k, trait in enumerate(cohort.traits):
        if trait.name in predictions:
            y[np.isnan(predictions[trait.name]).any(axis=0), k] = np.nan
        if not np.isfinite(y[:, k]).any():
            what = "value together with a LOCO prediction" if trait.name in predictions else "value"
            unfit[trait.name] = f"it has no {what} among the {len(y)} analysed samples"
    sets, in_set, number = _sample_sets(y)
    set_of = {trait.name: sets[number[k]] for k, trait in enumerate(cohort.traits)}
    as_column = set(predictions) if roles.usual == "covariate" else set()
    designs = {}
    for k, name in enumerate(sets):
        try:
            X, names = cohort.design(in_set[:, k].astype(bool))
            designs[name] = Design(X, names, orthonormal_design(X, np.ones(len(X)), names))
        except StatisticsError as error:
            unfit = {t: str(error) for t, here in set_of.items() if here == name} | unfit
    if unfit:
        raise UnfitTraitsError(unfit)
    covariances = _covariances(cohort.traits, set_of, as_column)
    return _Plan(
        cohort=cohort,
        y=y,
        roles=roles,
        unit=unit,
        sets=sets,
        in_set=in_set,
        set_of=set_of,
        designs=designs,
        covariances=covariances,
    )


def _describe_trait(plan: _Plan, trait: Trait) -> dict[str, Any]:
    """Return what null models and bundle say of a trait."""
    values = plan.phenotype(trait.name)
    return {
        "name": trait.name,
        "kind": trait.kind,
        "sample_set": plan.set_of[trait.name],
        "covariance": next(c.name for c in plan.covariances if trait.name in c.traits),
        "n_samples": int(np.isfinite(values).sum()),
        "n_cases": None if trait.kind == "quantitative" else int(np.nansum(values)),
        **({} if trait.transform == "none" else {"transform": trait.transform}),
        **_describe_follow_up(plan.cohort.follow_up.get(trait.name), np.isfinite(values)),
    }


def _describe_follow_up(follow_up: FollowUp | None, chosen: NDArray[np.bool_]) -> dict[str, Any]:
    """Return what is said of a time to event besides."""
    if follow_up is None:
        return {}
    return {"person_time": follow_up.take(chosen).person_time}


def find_loco_rows(loco: xr.DataArray, present: Sequence[str], needed: Collection[str]) -> dict[str, str]:
    """Return, per chromosome that has a prediction, the row that it uses.

    That is its own, or for 25 (the pseudo-autosomal regions of X) that of 23.

    Raises:
        MatchError: a chromosome that is needed has none.
    """
    known = set(loco["chromosome"].values.tolist())
    rows = {c: c if c in known else X_CHROMOSOME if c == PSEUDO_AUTOSOMAL else "" for c in present}
    rows = {c: row for c, row in rows.items() if row in known}
    lacking = [c for c in present if c in needed and c not in rows]
    if lacking:
        raise MatchError(
            f"the LOCO prediction has no row for chromosome {', '.join(lacking)}; it has "
            f"{', '.join(map(str, loco['chromosome'].values))}"
        )
    return rows


def _align_loco(loco: xr.DataArray, cohort: Cohort, chromosomes: list[str]) -> dict[str, Floats]:
    """Return (chromosome, sample) predictions of the cohort's samples by trait; NaN where a prediction is missing."""
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


def _sample_sets(y: Floats) -> tuple[tuple[str, ...], NDArray[np.uint8], list[int]]:
    """Group traits by the samples they are observed in: names, (n, S) membership, and the set number of each trait."""
    observed = np.isfinite(y)
    patterns: dict[bytes, int] = {}
    index = [patterns.setdefault(np.packbits(observed[:, t]).tobytes(), len(patterns)) for t in range(y.shape[1])]
    names = tuple(f"s{k + 1}" for k in range(len(patterns)))
    first = [index.index(k) for k in range(len(patterns))]
    return names, np.ascontiguousarray(observed[:, first]).astype(np.uint8), index


def _covariances(traits: tuple[Trait, ...], set_of: dict[str, str], as_column: set[str]) -> tuple[Covariance, ...]:
    """Group traits that share G'WG and the number of LOCO columns."""
    groups: dict[str, tuple[str, str, list[str]]] = {}
    for trait in traits:
        s = set_of[trait.name]
        name = f"quantitative:{s}" if trait.kind == "quantitative" else f"{trait.kind}:{trait.name}"
        if trait.kind == "quantitative" and trait.name in as_column:
            name += ":loco"
        groups.setdefault(name, (trait.kind, s, []))[2].append(trait.name)
    return tuple(Covariance(name, kind, s, tuple(members)) for name, (kind, s, members) in groups.items())


@dataclass(frozen=True)
class _FittedTrait:
    """One trait's fit, and what genotypes are projected on.

    Attributes:
        covariance: the group that it belongs to.
        trait: name.
        fit: of its own samples.
        shared, own: Z in two parts, which traits of the covariance share and which they do not.
        beside: columns that the design has beside the covariates and the second part, orthonormal: LOCO ones, sex on X.
    """

    covariance: Covariance
    trait: str
    fit: NullFit
    shared: Floats
    own: Floats
    beside: Floats


def _fit_each(plan: _Plan, F: Mapping[str, Floats], start: Mapping[str, NullFit]) -> Iterator[_FittedTrait]:
    """Yield every trait's fit on one chromosome, those of a covariance one after the other.

    Args:
        plan: what chromosomes have in common.
        F: trait -> (n,) LOCO prediction of this chromosome.
        start: trait -> fit of another chromosome, if there is one.

    Raises:
        UnfitTraitsError: in the end, when some cannot be fitted.
    """
    unfit: dict[str, str] = {}
    for covariance in plan.covariances:
        for trait in covariance.traits:
            try:
                yield _fit_trait(plan, covariance, trait, F.get(trait), start.get(trait))
            except StatisticsError as error:
                unfit[trait] = str(error)
    if unfit:
        raise UnfitTraitsError(unfit)


def _fit_chromosome(
    plan: _Plan, F: Mapping[str, Floats], start: Mapping[str, NullFit]
) -> tuple[ChromosomeModel, dict[str, NullFit]]:
    """Fit all traits on one chromosome and lay out the columns that genotypes are projected on; see `_fit_each`."""
    n = len(plan.y)
    columns, beside = _Columns(n), _Columns(n)
    designs: list[Floats] = []
    weight: list[Floats] = []
    risk: list[RiskSets | None] = []
    fitted: dict[str, NullFit] = {}
    for found in _fit_each(plan, F, start):
        trait, s = found.trait, found.covariance.sample_set
        chosen = plan.members(s)
        fitted[trait] = found.fit
        if trait == found.covariance.traits[0]:
            weight.append(_spread(found.fit.weight, chosen))
            designs.append(_spread(found.shared, chosen))
            risk.append(None if found.fit.risk is None else found.fit.risk.spread(chosen))
        columns.place(found.fit.residual[:, None], chosen, ColumnLabel("residual", trait, s))
        columns.place(found.own, chosen, ColumnLabel("loco", trait, s))
        beside.place(found.beside, chosen, ColumnLabel("prediction", trait, s))
    return ChromosomeModel(
        designs=tuple(designs),
        weight=tuple(weight),
        columns=columns.stack(),
        labels=tuple(columns.labels),
        predictions=beside.stack(),
        prediction_labels=tuple(beside.labels),
        sigma2={trait: float(fit.sigma2) for trait, fit in fitted.items()},
        risk=tuple(risk),
    ), fitted


def _fit_trait(
    plan: _Plan, covariance: Covariance, trait: str, prediction: Floats | None, start: NullFit | None
) -> _FittedTrait:
    """Fit one trait on its own samples."""
    chosen, design = plan.members(covariance.sample_set), plan.designs[covariance.sample_set]
    y = plan.phenotype(trait)[chosen]
    F, offset = np.empty((len(y), 0)), np.zeros(len(y))
    if prediction is not None and plan.roles.of(covariance.kind) == "covariate":
        F = prediction[chosen][:, None]
    elif prediction is not None:
        offset = prediction[chosen]
        if covariance.kind == "quantitative" and plan.unit == RESIDUAL_SD:
            offset = offset * residual_sd(y, design.basis)
    regression = REGRESSIONS[covariance.kind]
    follow_up = plan.cohort.follow_up.get(trait)
    outcome = Outcome(y, None if follow_up is None else follow_up.take(chosen))
    fit = regression.fit(outcome, design.basis, F, offset, start)
    shared, own = regression.project_out(design, F, fit)
    beside = plan.sex.get(covariance.sample_set, np.empty((len(y), 0)))
    if own.shape[1] < F.shape[1]:
        beside = np.hstack([beside, residual_basis(F, design.basis)[0]])
    return _FittedTrait(covariance, trait, fit, shared, own, beside)


class _Columns:
    """Labelled columns over all n samples, collected one block at a time."""

    def __init__(self, n: int) -> None:
        self.n = n
        self.labels: list[ColumnLabel] = []
        self._columns: list[Floats] = []

    def place(self, block: Floats, chosen: NDArray[np.bool_], label: ColumnLabel) -> None:
        """Append the columns of a block (samples of one set, q)."""
        self._columns += list(_spread(block, chosen).T)
        self.labels += [label] * block.shape[1]

    def stack(self) -> Floats:
        """Return (n, q)."""
        return np.ascontiguousarray(np.column_stack(self._columns)) if self._columns else np.empty((self.n, 0))


def _spread(block: Floats, chosen: NDArray[np.bool_]) -> Floats:
    """Return values of the chosen samples over all of them, zero elsewhere."""
    full = np.zeros((len(chosen), *block.shape[1:]))
    full[chosen] = block
    return full


def _record(plan: _Plan, trait: Trait, chromosome: str, model: NullFit, use: str) -> dict[str, Any]:
    """Return the row of null_models.tsv."""
    described = _describe_trait(plan, trait)
    slope = float(model.slope[0]) if len(model.slope) else (1.0 if use == "offset" else None)
    gain = 1 / (1 - model.r2) if trait.kind == "quantitative" and use != "none" else None
    return {
        "trait": trait.name,
        "kind": trait.kind,
        "chromosome": chromosome,
        "n_samples": described["n_samples"],
        "n_cases": described["n_cases"],
        "n_covariates": plan.designs[described["sample_set"]].X.shape[1],
        "use": use,
        "slope": slope,
        "slope_se": float(model.slope_se[0]) if len(model.slope_se) else None,
        "r2": model.r2 if use != "none" else None,
        "variance_before": model.variance_before,
        "variance_after": model.variance_after,
        "gain": gain,
        **({} if trait.kind != "quantitative" else dict(zip(MOMENTS, residual_moments(model.residual), strict=True))),
    }


def _record_unfit(unfit: UnfitTrait) -> dict[str, Any]:
    """Return the row of null_models.tsv of a trait that cannot be fitted."""
    return {
        "trait": unfit.trait.name,
        "kind": unfit.trait.kind,
        "chromosome": ALL_CHROMOSOMES,
        "n_samples": unfit.n_samples,
        "n_cases": unfit.n_cases,
        "note": unfit.reason,
    }
