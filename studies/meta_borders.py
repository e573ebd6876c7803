"""Part 2 of `studies.meta_equals_joint`: how far other pooled analyses drift from the sum over studies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import chi2

from locomass.errors import StatisticsError
from locomass.gene_tests.base import ScoreStatistics
from locomass.gene_tests.registry import evaluate
from locomass.null_models.design import orthonormal_design
from locomass.null_models.logistic import fit_logistic
from studies.meta_joint import Floats, Settings, block_diagonal, compute_scores, fit_joint, own_variance
from studies.shared import COLOURS, bootstrap_ratio, make_table, new_figure, save_figure, wilson

BORDERS = {
    "residual sd the same in all studies": {
        "kind": "quantitative",
        "sd": 1.0,
        "effects": 0.0,
        "means": 1.0,
        "drift": 0.0,
    },
    "residual sd 0.5 to 2": {"kind": "quantitative", "sd": 2.0, "effects": 0.0, "means": 1.0, "drift": 0.0},
    "covariate effects differ": {"kind": "quantitative", "sd": 1.0, "effects": 0.5, "means": 1.0, "drift": 0.0},
    "frequencies differ too": {"kind": "quantitative", "sd": 1.0, "effects": 0.5, "means": 1.0, "drift": 1.0},
    "cases 200 of 400": {"kind": "binary", "cases": 200},
    "cases 50 of 400": {"kind": "binary", "cases": 50},
    "cases 20 of 400": {"kind": "binary", "cases": 20},
    "cases 10 of 400": {"kind": "binary", "cases": 10},
    "cases 5 of 400": {"kind": "binary", "cases": 5},
    "cases 10 to 300, frequencies differ": {"kind": "binary", "cases": 0, "drift": 1.0},
}
N_BORDER, K_BORDER, COVARIATES = 400, 10, 3
MODES = ("meta", "one sigma2", "common covariate effects", "one intercept")


def simulate_border(
    rng: np.random.Generator, border: dict[str, Any], settings: Settings
) -> tuple[list[Floats], list[Floats], list[Floats]]:
    """Return genotypes, covariates (with intercept) and a null trait of ten studies; no gene acts.

    A binary trait follows the covariates too, and every study collects a fixed number of cases out of 400 (0: any
    number from 10 to 300, on a log scale).
    """
    m = settings.border_genes * 10
    frequency = np.exp(rng.uniform(np.log(0.002), np.log(0.03), m))
    shared = rng.normal(0, 0.5, COVARIATES)
    G, X, y = [], [], []
    for _ in range(K_BORDER):
        own = np.clip(frequency * np.exp(rng.normal(0, border.get("drift", 0.0), m)), 5e-4, 0.05)
        C = rng.standard_normal((N_BORDER, COVARIATES))
        effect = shared + border.get("effects", 0.0) * rng.standard_normal(COVARIATES)
        if border["kind"] == "quantitative":
            sd = np.exp(rng.uniform(-1, 1) * np.log(border["sd"]))
            y.append(rng.normal(0, border["means"]) + C @ effect + sd * rng.standard_normal(N_BORDER))
        else:
            liability = C @ effect + rng.logistic(size=N_BORDER)
            cases = border["cases"] or int(np.exp(rng.uniform(np.log(10), np.log(300))))
            y.append((liability >= np.sort(liability)[-cases]).astype(np.float64))
        G.append(rng.binomial(2, own, (N_BORDER, m)).astype(np.float64))
        X.append(np.column_stack([np.ones(N_BORDER), C]))
    return G, X, y


def designs(X: Sequence[Floats]) -> dict[str, Floats]:
    """Return the pooled designs: own effects, common covariate effects, and one intercept for all."""
    indicator = block_diagonal([x[:, :1] for x in X])
    covariates = np.vstack([x[:, 1:] for x in X])
    return {
        "meta": block_diagonal(X),
        "one sigma2": block_diagonal(X),
        "common covariate effects": np.hstack([indicator, covariates]),
        "one intercept": np.vstack(X),
    }


def run_border(unit: str, settings: Settings) -> dict[str, Any]:
    """Return (genes, 2) -log10 p of burden and SKAT under every way of pooling, and which studies could not be fitted.

    For binary traits `meta` sums over the studies whose own null model converges in the package (`fit_logistic`).
    """
    name, replicate = unit.rsplit(" #", 1)
    border = BORDERS[name]
    rng = np.random.default_rng([int(replicate), 2, list(BORDERS).index(name)])
    G, X, y = simulate_border(rng, border, settings)
    everybody, trait = np.vstack(G), np.concatenate(y)
    out: dict[str, Any] = {"lost": 0}
    for mode, design in designs(X).items():
        if border["kind"] == "quantitative":
            variance = own_variance(y, X)
            if mode != "meta":
                r = trait - design @ np.linalg.lstsq(design, trait, rcond=None)[0]
                variance = np.full(len(r), r @ r / (len(r) - design.shape[1]))
            r, w = fit_joint(trait, design, variance)
            out[mode] = border_log10p(everybody, design, r, w, settings)
        elif mode == "meta":
            kept = [k for k in range(K_BORDER) if _converges(y[k], X[k])]
            out["lost"] = K_BORDER - len(kept)
            rows = np.concatenate([np.arange(k * N_BORDER, (k + 1) * N_BORDER) for k in kept])
            own = block_diagonal([X[k] for k in kept])
            r, w = fit_joint(trait[rows], own, None)
            out[mode] = border_log10p(everybody[rows], own, r, w, settings)
        elif mode != "one sigma2":
            r, w = fit_joint(trait, design, None)
            out[mode] = border_log10p(everybody, design, r, w, settings)
    return out


def _converges(y: Floats, X: Floats) -> bool:
    """Return whether the package fits a study's logistic null model."""
    Z = orthonormal_design(X, np.ones(len(X)), [f"x{j}" for j in range(X.shape[1])])
    try:
        fit_logistic(y, Z, np.empty((len(y), 0)), np.zeros(len(y)))
    except StatisticsError:
        return False
    return True


def border_log10p(G: Floats, X: Floats, r: Floats, w: Floats, settings: Settings) -> list[list[float]]:
    """Return -log10 p of burden and SKAT (flat weights) of every gene of ten variants."""
    U, V = compute_scores(G, X, r, w)
    rows = []
    for gene in range(settings.border_genes):
        at = np.arange(gene * 10, gene * 10 + 10)
        at = at[np.diag(V)[at] > 1e-10]
        one = np.ones(len(at))
        stats = ScoreStatistics(
            U=U[at][None],
            V=V[np.ix_(at, at)],
            scale=one[:1],
            maf=one * 0.01,
            mac=one * 20,
            n_samples=np.array([float(len(r))]),
            rare=one.astype(np.bool_),
        )
        rows.append(
            [-float(result.log_p[0]) / np.log(10) for _, _, result in evaluate(stats, ("burden", "skat"), ("flat",))]
        )
    return rows


def summarise_borders(found: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return, per border and way of pooling, its distance from the meta-analysis and its own type I error."""
    rows = []
    for border in BORDERS:
        parts = [r for u, r in found.items() if u.rsplit(" #", 1)[0] == border]
        for mode in (m for m in MODES if all(m in r for r in parts)):
            values, meta = (np.concatenate([np.array(r[x]) for r in parts]) for x in (mode, "meta"))
            small = [int((values[:, j] > -np.log10(0.05)).sum()) for j in (0, 1)]
            chi = [chi2.isf(10.0 ** -np.maximum(v, 1e-12), 1) for v in (values[:, 0], meta[:, 0])]
            rows.append(
                {
                    "border": border,
                    "mode": mode,
                    "genes": len(values),
                    "lost": sum(r["lost"] for r in parts),
                    "median": [float(np.median(np.abs(values - meta)[:, j])) for j in (0, 1)],
                    "largest": [float(np.abs(values - meta)[:, j].max()) for j in (0, 1)],
                    "rate": [k / len(values) for k in small],
                    "interval": [wilson(k, len(values)) for k in small],
                    "mean chi2": bootstrap_ratio(chi[0], np.ones(len(chi[0])), 3),
                }
            )
    return rows


def border_lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return the table of part 2."""
    body = []
    for r in rows:
        rate = [f"{p:.3f} ({low:.3f}-{high:.3f})" for p, (low, high) in zip(r["rate"], r["interval"], strict=True)]
        mean, low, high = r["mean chi2"]
        apart = [f"{a:.3f} / {b:.2f}" for a, b in zip(r["median"], r["largest"], strict=True)]
        if r["mode"] == "meta":
            apart = ["", ""]
        body.append([r["border"], r["mode"], *apart, *rate, f"{mean:.3f} ({low:.3f}-{high:.3f})"])
    header = [
        "ten studies of 400",
        "pooled analysis",
        "burden: difference of -log10 p, median / largest",
        "SKAT: the same",
        "burden: type I at 0.05",
        "SKAT: type I at 0.05",
        "burden: mean chi2",
    ]
    lost = sum(r["lost"] for r in rows if r["mode"] == "meta")
    return [*make_table(header, body), "", f"Studies whose own logistic model did not converge: {lost}."]


def draw_borders(found: dict[str, dict[str, Any]], folder: Path) -> None:
    """Draw the burden's -log10 p of each way of pooling against the meta-analysis, a panel per border."""
    names = ("residual sd 0.5 to 2", "frequencies differ too", "cases 10 of 400", "cases 10 to 300, frequencies differ")
    figure, axes = new_figure(len(names), 2.3, 2.4)
    for axis, name in zip(axes[0], names, strict=True):
        parts = [r for u, r in found.items() if u.rsplit(" #", 1)[0] == name]
        for mode, colour in zip(MODES[1:], COLOURS, strict=False):
            if all(mode in r for r in parts):
                meta, other = (np.concatenate([np.array(r[m])[:, 0] for r in parts])[:60] for m in ("meta", mode))
                axis.plot(meta, other, "o", ms=2.5, color=colour, alpha=0.7, label=mode)
        top = axis.get_xlim()[1]
        axis.plot([0, top], [0, top], color="0.6", lw=0.8, zorder=0)
        axis.set_title(name, fontsize=8)
        axis.set_xlabel("meta, -log10 p")
    axes[0][0].set_ylabel("pooled, -log10 p")
    axes[0][1].legend(fontsize=6, frameon=False)
    save_figure(figure, "meta-borders", folder)
