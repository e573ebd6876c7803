"""Part 3 of `studies.mixed_models`: what a prediction is worth in case/control studies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from locomass.null_models.design import orthonormal_design
from locomass.null_models.linear import fit_linear
from locomass.null_models.logistic import fit_logistic
from studies.mixed_world import CHROMOSOMES, Floats, Settings, leave_out, predict_block_ridge, score
from studies.shared import COLOURS, bootstrap_ratio, make_table, new_figure, save_figure, span

M_ASCERTAINED = 400
MODELS = ("external, logistic", "in-sample, logistic", "in-sample, linear")


def run_ascertained(unit: str, s: Settings) -> dict[str, Any]:
    """Return per-trait mean chi2 of causal and null variants with and without a prediction, at one prevalence.

    Liability has variance one: h2 = 0.5 from 400 unlinked common variants, ten causal variants, noise. The cases are
    those above the threshold of the prevalence; as many controls are drawn from the rest. The external predictor has
    the true effects with noise, R2 0.25 in the population.
    """
    name, replicate = unit.removeprefix("ascertained ").split(" #")
    prevalence = float(name)
    rng = np.random.default_rng([int(replicate), 33, int(1e4 * prevalence)])
    h2, T = 0.5, s.ascertained_traits
    people = int(min(s.population, 40 * s.sampled if prevalence >= 0.1 else s.population))
    f = rng.uniform(0.05, 0.5, M_ASCERTAINED)
    G = np.empty((people, M_ASCERTAINED), np.int8)
    for start in range(0, people, 10_000):
        G[start : start + 10_000] = rng.binomial(2, f, (min(10_000, people - start), M_ASCERTAINED))
    x = rng.binomial(2, 0.05, (people, 3 * CHROMOSOMES)).astype(np.int8)
    effects = rng.standard_normal((M_ASCERTAINED, T))
    effects *= np.sqrt(h2 / (effects**2).sum(axis=0))
    blurred = effects + rng.standard_normal(effects.shape) * np.sqrt((effects**2).mean(axis=0))
    b2 = observed_ncp(prevalence, s)
    root = np.sqrt(2 * f * (1 - f))
    causal = (x[:, :CHROMOSOMES].sum(axis=1) - 0.1 * CHROMOSOMES) * np.sqrt(b2 / (2 * 0.05 * 0.95))
    out: dict[str, Any] = {"prevalence": prevalence, "none": [], **{m: [] for m in MODELS}}
    threshold = norm.isf(prevalence)
    seen = np.ones(M_ASCERTAINED, np.bool_)
    where = np.tile(np.arange(CHROMOSOMES), 3)
    for t in range(T):
        g = np.concatenate([G[i : i + 20_000] @ (effects[:, t] / root) for i in range(0, people, 20_000)])
        liability = g - g.mean() + causal + np.sqrt(1 - h2 - CHROMOSOMES * b2) * rng.standard_normal(people)
        case, control = np.flatnonzero(liability > threshold), np.flatnonzero(liability <= threshold)
        count = min(s.sampled, len(case), len(control))
        rows = np.concatenate([rng.permutation(case)[:count], rng.permutation(control)[:count]])
        y = np.repeat([1.0, 0.0], count)
        Z = ((G[rows] - 2 * f) / root).astype(np.float32)
        own = x[rows].astype(np.float64)
        external = score(Z, blurred[:, t : t + 1].astype(np.float32), seen)
        inside = predict_block_ridge(Z, y[:, None], seen, binary=True)
        straight = predict_block_ridge(Z, y[:, None], seen, leave_one_out=True)
        loco = {
            "none": None,
            **{m: leave_out(v)[:, :, 0] for m, v in zip(MODELS, (external, inside, straight), strict=True)},
        }
        for model, values in loco.items():
            statistic = test_cases(y, own, where, values, model)
            out[model].append([float(statistic[:CHROMOSOMES].mean()), float(statistic[CHROMOSOMES:].mean())])
    return out


def observed_ncp(prevalence: float, s: Settings) -> float:
    """Return the share of liability that gives a variant the wanted noncentrality in as many cases as controls.

    ``NCP = N b2 z^2 P (1 - P) / (K (1 - K))^2`` with z the normal density at the threshold, P = 1/2 (Lee et al.
    2011, AJHG 88:294).
    """
    z = norm.pdf(norm.isf(prevalence))
    return float(s.case_ncp / (2 * s.sampled * z**2 * 0.25 / (prevalence * (1 - prevalence)) ** 2))


def test_cases(y: Floats, x: Floats, where: NDArray[np.int64], loco: Floats | None, model: str) -> Floats:
    """Return (q,) chi2; the external prediction is a covariate, the in-sample one an offset, as the package has it."""
    n = len(y)
    Z = orthonormal_design(np.ones((n, 1)), np.ones(n), ["intercept"])
    statistic = np.empty(x.shape[1])
    for c in range(CHROMOSOMES):
        at = np.flatnonzero(where == c)
        f = None if loco is None else loco[c]
        F = f[:, None] if f is not None and model.startswith("external") else np.empty((n, 0))
        offset = f if f is not None and not F.shape[1] else np.zeros(n)
        fitted = fit_linear(y, Z, F, offset) if model.endswith("linear") else fit_logistic(y, Z, F, offset)
        basis = orthonormal_design(np.hstack([np.ones((n, 1)), F]), fitted.weight, ["intercept", "LOCO"])
        U = x[:, at].T @ fitted.residual / fitted.sigma2
        V = (
            (x[:, at] ** 2 * fitted.weight[:, None]).sum(axis=0) - ((basis.T @ x[:, at]) ** 2).sum(axis=0)
        ) / fitted.sigma2
        statistic[at] = U**2 / V
    return statistic


def summarise_ascertained(found: dict[str, dict[str, Any]], s: Settings) -> list[dict[str, Any]]:
    """Return the gain in noncentrality of every model and prevalence."""
    rows = []
    for prevalence in s.prevalences:
        parts = [r for r in found.values() if r["prevalence"] == prevalence]
        plain = np.concatenate([np.array(r["none"]) for r in parts])
        for model in ("none", *MODELS):
            own = np.concatenate([np.array(r[model]) for r in parts])
            rows.append(
                {
                    "prevalence": prevalence,
                    "model": model,
                    "gain": bootstrap_ratio(own[:, 0] - 1, plain[:, 0] - 1, 8),
                    "ncp": float(own[:, 0].mean() - 1),
                    "null": bootstrap_ratio(own[:, 1], np.ones(len(own)), 8),
                }
            )
    return rows


def ascertained_lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return the table of case/control studies."""
    body = [[f"{r['prevalence']:g}", r["model"], f"{r['ncp']:.1f}", span(r["gain"]), span(r["null"])] for r in rows]
    return make_table(["prevalence", "prediction, model", "NCP", "gain over none", "null mean chi2"], body)


def draw_ascertained(rows: Sequence[dict[str, Any]], folder: Path) -> None:
    """Draw the gain of every model against the prevalence."""
    figure, axes = new_figure(1, 4.0, 2.8)
    axis = axes[0][0]
    for model, colour in zip(MODELS, COLOURS, strict=False):
        here = [r for r in rows if r["model"] == model]
        gain = np.array([r["gain"] for r in here])
        axis.errorbar(
            [r["prevalence"] for r in here],
            gain[:, 0],
            [gain[:, 0] - gain[:, 1], gain[:, 2] - gain[:, 0]],
            fmt="o-",
            ms=4,
            lw=1,
            color=colour,
            label=model,
        )
    axis.axhline(1, color="0.6", lw=0.8)
    axis.set_xscale("log")
    axis.set_xlabel("prevalence (as many cases as controls)")
    axis.set_ylabel("NCP over no prediction")
    axis.legend(fontsize=7, frameon=False)
    save_figure(figure, "mixed-model-ascertained", folder)
