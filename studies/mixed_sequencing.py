"""Part 2 of `studies.mixed_models`: power of gene tests in a sequenced cohort beside a GWAS of ten times its size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2

from locomass import power
from locomass.gene_tests.base import ScoreStatistics
from locomass.gene_tests.registry import evaluate
from locomass.gene_tests.resampling import Resampling
from locomass.gene_tests.step_up import StepUpParameters
from locomass.genotypes.products import information_matrix, project_columns, sparse_cross_products
from locomass.null_models.design import extra_design, orthonormal_design
from locomass.null_models.linear import fit_linear
from locomass_predictors.combine import stack_predictors
from locomass_predictors.ld import correlation_from_dosage
from studies.mixed_world import (
    CHROMOSOMES,
    Floats,
    Settings,
    block_columns,
    draw_common,
    draw_effects,
    draw_frequencies,
    fit_summary,
    leave_out,
    marginal_effects,
    predict_block_ridge,
    score,
    seen_by_predictors,
    standardise,
)
from studies.shared import COLOURS, bootstrap_ratio, make_table, new_figure, save_figure, span, wilson

GENES = ("one direction", "both directions", "null")
M_GENE = 12
#: n b2 of a gene's variance, n the sequenced people
GENE_NCP = {"one direction": 22.0, "both directions": 45.0}
CAUSAL_CHROMOSOMES = 2  # of each kind of gene, per trait
PREDICTORS = ("none", "in-sample", "external", "combined")
GENE_TESTS = ("burden", "skat", "step-up")
ALPHAS = (1e-4, 2.5e-6)


def run_sequencing(unit: str, s: Settings) -> dict[str, Any]:
    """Return -log p of every trait, gene, test and predictor, whether the gene acts, and the R2 of each predictor."""
    replicate = int(unit.split("#")[1])
    rng = np.random.default_rng([replicate, 32])
    h2, n, T = 0.4, s.sequenced, s.sequencing_traits
    frequency, seen = draw_frequencies(rng, s.sequencing_blocks), seen_by_predictors(s.sequencing_blocks)
    reference = draw_common(rng, s.reference, frequency)
    R = [correlation_from_dosage(reference[:, c]) for c in block_columns(seen)]
    effects = draw_effects(rng, seen, h2, T)
    earlier = marginal_effects(rng, 10 * n, frequency, effects, np.flatnonzero(~seen), 0.0, Settings(h2=h2))
    G = standardise(draw_common(rng, n, frequency), frequency)
    rare = draw_rare(rng, n)
    acts, beta = draw_gene_effects(rng, rare, T, n)
    signal = np.einsum("nv,vt->nt", rare.reshape(n, -1).astype(np.float64), beta.reshape(-1, T))
    variance = signal.var(axis=0)
    y = G @ effects + signal - signal.mean(axis=0) + np.sqrt(1 - h2 - variance) * rng.standard_normal((n, T))
    external = score(G, fit_summary(earlier, 10 * n, R, seen, h2), seen)
    inside = predict_block_ridge(G, y, seen)
    combined = np.empty_like(inside)
    for t in range(T):
        parts = np.stack([inside[:, :, t], external[:, :, t]], axis=2)
        combined[:, :, t] = stack_predictors(parts.sum(axis=0), y[:, t] - y[:, t].mean()).combine(parts)
    predictions = {
        "none": (None, "offset"),
        "in-sample": (inside, "offset"),
        "external": (external, "covariate"),
        "combined": (combined, "covariate"),
    }
    out: dict[str, Any] = {"acts": acts.tolist(), "r2": {}, "log10p": {}, "expected": {}}
    for name, (parts, role) in predictions.items():
        loco = None if parts is None else leave_out(parts)
        out["log10p"][name], out["expected"][name] = test_genes(y, rare, loco, role, beta, acts, s)
        if loco is not None:
            out["r2"][name] = float(
                np.mean([np.corrcoef(loco[c, :, t], y[:, t])[0, 1] ** 2 for c in range(CHROMOSOMES) for t in range(T)])
            )
    return out


def draw_rare(rng: np.random.Generator, n: int) -> NDArray[np.int8]:
    """Return (n, CHROMOSOMES, genes, M_GENE) counts of rare variants, each seen at least once."""
    shape = (CHROMOSOMES, len(GENES), M_GENE)
    f = np.exp(rng.uniform(np.log(0.001), np.log(0.01), shape))
    G = rng.binomial(2, f, (n, *shape)).astype(np.int8)
    empty = np.argwhere(G.sum(axis=0) == 0)
    for c, g, j in empty:
        G[rng.integers(n), c, g, j] = 1
    return G


def draw_gene_effects(
    rng: np.random.Generator, rare: NDArray[np.int8], T: int, n: int
) -> tuple[NDArray[np.bool_], Floats]:
    """Return which genes act on which trait (CHROMOSOMES, genes, T), and effects per allele (..., M_GENE, T)."""
    acts = np.zeros((CHROMOSOMES, len(GENES), T), np.bool_)
    beta = np.zeros((CHROMOSOMES, len(GENES), M_GENE, T))
    for t in range(T):
        chosen = rng.permutation(CHROMOSOMES)[: CAUSAL_CHROMOSOMES * len(GENE_NCP)]
        for i, c in enumerate(chosen):
            g = i % len(GENE_NCP)
            acts[c, g, t] = True
            b = np.ones(M_GENE) if g == 0 else rng.choice([-1.0, 1.0], M_GENE) * (rng.random(M_GENE) < 0.5)
            if not b.any():
                b[0] = 1.0
            value = rare[:, c, g] @ b
            beta[c, g, :, t] = b * np.sqrt(GENE_NCP[GENES[g]] / n) / value.std()
    return acts, beta


def test_genes(
    y: Floats,
    rare: NDArray[np.int8],
    loco: Floats | None,
    role: str,
    beta: Floats,
    acts: NDArray[np.bool_],
    s: Settings,
) -> tuple[list[Any], dict[str, list[float]]]:
    """Return -log10 p (CHROMOSOMES, genes, T, tests), and what `locomass.power` expects of those that act."""
    n, T = y.shape
    Z = orthonormal_design(np.ones((n, 1)), np.ones(n), ["intercept"])
    log10p = np.empty((CHROMOSOMES, len(GENES), T, len(GENE_TESTS)))
    expected: dict[str, list[float]] = {
        f"{test} {alpha:g} {g}": [] for test in GENE_TESTS[:2] for alpha in ALPHAS for g in (0, 1)
    }
    step_up = StepUpParameters(signs="data", resampling=Resampling(max_permutations=s.permutations))
    for c in range(CHROMOSOMES):
        models = []
        for t in range(T):
            f = None if loco is None else loco[c, :, t]
            F = f[:, None] if f is not None and role == "covariate" else np.empty((n, 0))
            model = fit_linear(y[:, t], Z, F, f if f is not None and role == "offset" else np.zeros(n))
            models.append((model, extra_design(F, Z)))
        columns = np.ascontiguousarray(
            np.column_stack([Z, *(m.residual / m.sigma2 for m, _ in models), *(e for _, e in models)])
        )
        for g in range(len(GENES)):
            carriers, products = gene_products(rare[:, c, g])
            projected = project_columns(*carriers, columns, np.zeros(columns.shape[1], np.int64), np.zeros((M_GENE, 1)))
            maf = rare[:, c, g].mean(axis=0) / 2
            for t, (model, extra) in enumerate(models):
                rows = [0, *([1 + T + t] if extra.shape[1] else [])]
                V = information_matrix(M_GENE, *products, np.ascontiguousarray(projected[:, rows].T)) / model.sigma2
                stats = ScoreStatistics(
                    U=projected[:, 1 + t][None],
                    V=V,
                    scale=np.ones(1),
                    maf=maf,
                    mac=2 * n * maf,
                    n_samples=np.array([float(n)]),
                    rare=np.ones(M_GENE, np.bool_),
                )
                found = evaluate(stats, GENE_TESTS, ("flat",), step_up=step_up)
                log10p[c, g, t] = [-float(result.log_p[0]) / np.log(10) for _, _, result in found]
                if acts[c, g, t]:
                    _expect(expected, V, beta[c, g, :, t], g)
    return np.round(log10p, 4).tolist(), expected


def gene_products(G: NDArray[np.int8]) -> tuple[Any, Any]:
    """Return a gene's carriers (indptr, sample, dosage) and the sparse lower triangle of G'G."""
    variant, sample = np.nonzero(G.T)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(variant, minlength=G.shape[1]))]).astype(np.int64)
    carriers = (indptr, sample.astype(np.int32), np.ascontiguousarray(G[sample, variant]))
    head = np.full(len(G), -1, np.int32)
    rows = np.arange(G.shape[1], dtype=np.int64)
    return carriers, sparse_cross_products(rows, carriers, np.ones(len(G)), np.zeros(G.shape[1]), head)


def _expect(expected: dict[str, list[float]], V: Floats, beta: Floats, g: int) -> None:
    """Add the power that the formulas give a gene with these effects."""
    one = np.ones(len(beta))
    for alpha in ALPHAS:
        expected[f"burden {alpha:g} {g}"].append(float(power.compute_power(power.ncp_burden(V, beta, one), alpha)))
        expected[f"skat {alpha:g} {g}"].append(power.compute_skat_power(V, beta, one, alpha))


def summarise_sequencing(found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return rows of power by gene, test and predictor, and rows of null calibration."""
    parts = list(found.values())
    acts = np.concatenate([np.array(r["acts"]) for r in parts], axis=2)
    p = {k: 10.0 ** -np.concatenate([np.array(r["log10p"][k]) for r in parts], axis=2) for k in PREDICTORS}
    power_rows, null_rows = [], []
    for g, kind in enumerate(GENES[:2]):
        here = acts[:, g]
        trait = np.broadcast_to(np.arange(here.shape[1]), here.shape)[here]
        for j, test in enumerate(GENE_TESTS):
            for alpha in ALPHAS:
                hit = {k: p[k][:, g, :, j][here] <= alpha for k in PREDICTORS}
                for k in PREDICTORS:
                    expected = [v for r in parts for v in r["expected"][k].get(f"{test} {alpha:g} {g}", [])]
                    power_rows.append(
                        {
                            "genes": kind,
                            "test": test,
                            "alpha": alpha,
                            "predictor": k,
                            "number": len(trait),
                            "power": float(hit[k].mean()),
                            "interval": wilson(int(hit[k].sum()), len(trait)),
                            "difference": _paired(hit[k], hit["none"], trait),
                            "expected": float(np.mean(expected)) if expected else None,
                        }
                    )
    for k in PREDICTORS:
        row: dict[str, Any] = {"predictor": k, "r2": float(np.mean([r["r2"].get(k, 0.0) for r in parts]))}
        burden = chi2.isf(np.clip(p[k][:, 0, :, 0][acts[:, 0]], 1e-300, 1 - 1e-9), 1) - 1
        plain = chi2.isf(np.clip(p["none"][:, 0, :, 0][acts[:, 0]], 1e-300, 1 - 1e-9), 1) - 1
        row["gain"] = bootstrap_ratio(burden, plain, 5)
        for j, test in enumerate(GENE_TESTS):
            null = p[k][~acts][:, j]
            row[test] = float((null <= 0.05).mean())
            row[f"{test} interval"] = wilson(int((null <= 0.05).sum()), len(null))
            row["number"] = len(null)
        values = chi2.isf(np.clip(p[k][~acts][:, 0], 1e-300, 1 - 1e-12), 1)
        row["mean chi2"] = bootstrap_ratio(values, np.ones(len(values)), 6, draws=1000)
        null_rows.append(row)
    return {"power": power_rows, "null": null_rows}


def _paired(hit: NDArray[np.bool_], plain: NDArray[np.bool_], trait: NDArray[np.int64]) -> tuple[float, float, float]:
    """Return the difference of two powers and its 95 % interval; traits are resampled with all their genes."""
    gap = hit.astype(np.float64) - plain
    names, at = np.unique(trait, return_inverse=True)
    total, count = np.bincount(at, gap), np.bincount(at)
    pick = np.random.default_rng(7).integers(0, len(names), (4000, len(names)))
    low, high = np.quantile(total[pick].sum(axis=1) / count[pick].sum(axis=1), [0.025, 0.975])
    return float(gap.mean()), float(low), float(high)


def sequencing_lines(summary: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Return the tables of power and of null calibration."""
    rows = summary["power"]
    body = []
    for r in (r for r in rows if r["alpha"] == ALPHAS[0]):
        other = next(
            x for x in rows if x["alpha"] == ALPHAS[1] and all(x[k] == r[k] for k in ("genes", "test", "predictor"))
        )
        body.append(
            [
                f"{r['genes']}, {r['test']}: {r['predictor']}",
                *(
                    text
                    for x in (r, other)
                    for text in (
                        f"{x['power']:.3f} ({x['interval'][0]:.3f} to {x['interval'][1]:.3f})",
                        "" if x["expected"] is None else f"{x['expected']:.3f}",
                        "" if r["predictor"] == "none" else span(x["difference"]),
                    )
                ),
            ]
        )
    header = ["genes, test: predictor"] + [
        f"{what} {alpha:g}" for alpha in ALPHAS for what in ("power at", "formula", "more than none,")
    ]
    null = [
        [
            r["predictor"],
            f"{r['r2']:.3f}",
            f"{1 / (1 - r['r2']):.3f}",
            span(r["gain"]),
            span(r["mean chi2"]),
            *(f"{r[t]:.4f} ({r[f'{t} interval'][0]:.4f} to {r[f'{t} interval'][1]:.4f})" for t in GENE_TESTS),
        ]
        for r in summary["null"]
    ]
    names = [
        "predictor",
        "R2",
        "1/(1 - R2)",
        "burden NCP gain",
        "null mean chi2",
        *(f"{t}: type I at 0.05" for t in GENE_TESTS),
    ]
    return make_table(header, body), make_table(names, null)


def draw_sequencing(summary: dict[str, Any], folder: Path) -> None:
    """Draw power at 1e-4 by test and predictor."""
    figure, axes = new_figure(2, 3.2, 2.6)
    for axis, kind in zip(axes[0], GENES, strict=False):
        for i, name in enumerate(PREDICTORS):
            rows = [
                r for r in summary["power"] if r["genes"] == kind and r["predictor"] == name and r["alpha"] == ALPHAS[0]
            ]
            value, ends = np.array([r["power"] for r in rows]), np.array([r["interval"] for r in rows])
            place = np.arange(len(rows)) + 0.2 * (i - 1.5)
            axis.bar(place, value, 0.18, color=COLOURS[i], label=name)
            axis.errorbar(place, value, [value - ends[:, 0], ends[:, 1] - value], fmt="none", ecolor="0.3", lw=0.8)
        axis.set_xticks(range(len(GENE_TESTS)), GENE_TESTS)
        axis.set_title(f"effects in {kind}", fontsize=9)
    axes[0][0].set_ylabel("power at 1e-4")
    axes[0][1].legend(fontsize=7, frameon=False)
    save_figure(figure, "mixed-model-sequencing", folder)
