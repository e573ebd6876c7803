"""Part 1 of `studies.mixed_models`: noncentrality of linear, per-cohort, summary-statistic and pooled designs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2

from locomass import power
from locomass_predictors.ld import correlation_from_dosage
from studies.mixed_world import (
    CHROMOSOMES,
    N_NULL,
    Floats,
    Settings,
    block_columns,
    draw_common,
    draw_effects,
    draw_frequencies,
    effective_number,
    fit_summary,
    leave_out,
    make_traits,
    marginal_effects,
    predict_block_ridge,
    predict_exact,
    score,
    score_columns,
    seen_by_predictors,
    standardise,
)
from studies.shared import COLOURS, bootstrap_ratio, make_table, new_figure, save_figure, span, wilson


def run_designs(unit: str, s: Settings) -> dict[str, Any]:
    """Return per-trait mean chi2 of the causal, tagged and null variants under every design, and R2 of each."""
    k, replicate = (int(v) for v in unit.removeprefix("designs ").split(" #"))
    rng = np.random.default_rng([replicate, 31, k])
    n = k * s.cohort_size
    frequency, seen = draw_frequencies(rng, s.blocks), seen_by_predictors(s.blocks)
    reference = draw_common(rng, s.reference, frequency)
    R = [correlation_from_dosage(reference[:, c]) for c in block_columns(seen)]
    m_effective = effective_number(reference, seen)
    effects = draw_effects(rng, seen, s.h2, s.traits)
    G = standardise(draw_common(rng, n, frequency), frequency)
    tagged = np.flatnonzero(~seen)
    x, where, kind = draw_tested(rng, n, G[:, tagged])
    b2 = s.ncp / n
    y = make_traits(rng, G @ effects, x[:, kind != "null"], b2, s.h2)
    earlier = marginal_effects(rng, n, frequency, effects, tagged, b2, s)
    cohorts = [slice(i * s.cohort_size, (i + 1) * s.cohort_size) for i in range(k)]
    centred = np.concatenate([y[rows] - y[rows].mean(axis=0) for rows in cohorts])
    own = (G.T @ centred.astype(np.float32)).astype(np.float64) / n

    def stack(predict: Any) -> Floats:
        return np.concatenate([predict(rows) for rows in cohorts], axis=1)

    one_out = {"leave_one_out": True}
    inside = stack(lambda r: leave_out(predict_block_ridge(G[r], y[r], seen, **one_out)))
    earlier_score = score(G, fit_summary(earlier, n, R, seen, s.h2), seen)
    own_score = score(G, fit_summary(own, n, R, seen, s.h2), seen)
    designs: dict[str, tuple[Floats | None, str]] = {
        "linear": (None, "offset"),
        "per cohort": (inside, "offset"),
        "per cohort, slope": (inside, "covariate"),
        "per cohort, exact": (stack(lambda r: predict_exact(G[r], y[r], seen, s.h2)), "offset"),
        "summary, earlier": (leave_out(earlier_score), "covariate"),
        "summary, same people": (leave_out(own_score), "offset"),
        "pooled": (leave_out(predict_block_ridge(G, centred, seen, **one_out)), "offset"),
        "pooled, exact": (predict_exact(G, centred, seen, s.h2), "offset"),
        "earlier, chromosome left in": (np.stack([earlier_score.sum(axis=0)] * CHROMOSOMES), "covariate"),
        "same people, chromosome left in": (np.stack([own_score.sum(axis=0)] * CHROMOSOMES), "offset"),
    }
    out: dict[str, Any] = {"m_effective": m_effective, "n": n, "cohorts": k}
    for name, (loco, role) in designs.items():
        statistic = score_columns(y, x, where, loco, role, cohorts)
        out[name] = {
            label: statistic[:, kind == label].mean(axis=1).tolist() for label in ("causal", "tagged", "null")
        } | {"type I": int((statistic[:, kind == "null"] > chi2.isf(0.05, 1)).sum())}
        if loco is not None:
            r2 = [
                np.corrcoef(loco[c, :, t], centred[:, t])[0, 1] ** 2
                for c in range(CHROMOSOMES)
                for t in range(s.traits)
            ]
            out[name]["r2"] = float(np.mean(r2))
    return out


def draw_tested(
    rng: np.random.Generator, n: int, tagged: NDArray[np.float32]
) -> tuple[Floats, NDArray[np.int64], NDArray[np.str_]]:
    """Return standardised tested columns, the chromosome of each, and its kind: causal (no LD), tagged, null."""
    count = (1, N_NULL)
    free = rng.binomial(2, 0.05, (n, CHROMOSOMES * sum(count))).astype(np.float64)
    free = (free - free.mean(axis=0)) / free.std(axis=0)
    x = np.hstack([free[:, :CHROMOSOMES], tagged.astype(np.float64), free[:, CHROMOSOMES:]])
    order = np.arange(CHROMOSOMES)
    kind = np.repeat(["causal", "tagged", "null"], [CHROMOSOMES, CHROMOSOMES, N_NULL * CHROMOSOMES])
    return x, np.concatenate([order, order, np.repeat(order, N_NULL)]), kind


#: the paper's inequality, and the package's realisation of its ends
ORDER = (
    ("linear", "per cohort, exact"),
    ("linear", "per cohort"),
    ("per cohort, exact", "summary, earlier"),
    ("per cohort, exact", "summary, same people"),
    ("summary, earlier", "pooled, exact"),
    ("summary, same people", "pooled, exact"),
    ("pooled", "pooled, exact"),
)
FORMULA = {
    "linear": "linear",
    "per cohort": "mixed_meta",
    "per cohort, slope": "mixed_meta",
    "per cohort, exact": "mixed_meta",
    "summary, earlier": "summary",
    "summary, same people": "summary",
    "pooled": "mixed_pooled",
    "pooled, exact": "mixed_pooled",
}


def summarise_designs(found: dict[str, dict[str, Any]], s: Settings) -> list[dict[str, Any]]:
    """Return, per number of cohorts and design, noncentralities of formula and simulation."""
    rows = []
    for k in s.cohorts:
        parts = [r for r in found.values() if r["cohorts"] == k]
        linear = _mean(parts, "linear", "causal") - 1
        loco = (CHROMOSOMES - 1) / CHROMOSOMES
        m_effective = float(np.mean([r["m_effective"] for r in parts]))
        table = power.power_table(
            [s.cohort_size] * k, s.ncp / (k * s.cohort_size), h2=s.h2 * loco, m_effective=m_effective * loco
        )
        expected = {row.design: row for row in table}
        for name in parts[0]:
            if name in ("m_effective", "n", "cohorts", "cpu_seconds"):
                continue
            own, null = _mean(parts, name, "causal") - 1, _mean(parts, name, "null")
            tests = len(null) * N_NULL * CHROMOSOMES
            hits = sum(r[name]["type I"] for r in parts)
            tagged = bootstrap_ratio(_mean(parts, name, "tagged") - 1, _mean(parts, "linear", "tagged") - 1, k)
            row = expected[FORMULA[name]] if name in FORMULA else None
            rows.append(
                {
                    "cohorts": k,
                    "n": parts[0]["n"],
                    "design": name,
                    "m_effective": m_effective,
                    "ncp": bootstrap_ratio(own, np.ones(len(own)), k),
                    "gain": bootstrap_ratio(own, linear, k),
                    "tagged gain": tagged,
                    "r2": float(np.mean([r[name].get("r2", 0.0) for r in parts])),
                    "formula r2": None if row is None else row.r2,
                    "formula ncp": None if row is None else row.ncp,
                    "formula gain": None if row is None else row.n_effective / row.n,
                    "null": bootstrap_ratio(null, np.ones(len(null)), k),
                    "type I": hits / tests,
                    "type I interval": wilson(hits, tests),
                }
            )
    return rows


def compare_designs(found: dict[str, dict[str, Any]], s: Settings) -> list[dict[str, Any]]:
    """Return the ratio of noncentralities of neighbours in the paper's inequality, with 95 % intervals."""
    rows = []
    for k in s.cohorts:
        parts = [r for r in found.values() if r["cohorts"] == k]
        for below, above in ORDER:
            ratio = bootstrap_ratio(_mean(parts, above, "causal") - 1, _mean(parts, below, "causal") - 1, k)
            rows.append({"cohorts": k, "below": below, "above": above, "ratio": ratio})
    return rows


def _mean(parts: Sequence[dict[str, Any]], name: str, label: str) -> Floats:
    """Return the per-trait mean chi2 of a design over replicates."""
    return np.concatenate([np.array(r[name][label]) for r in parts])


def design_lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return the table of noncentralities; R2 as reached where the prediction knows nothing of these people."""
    body = []
    for r in (r for r in rows if r["design"] in FORMULA):
        low, high = r["type I interval"]
        body.append(
            [
                f"{r['cohorts']}: {r['design']}",
                f"{r['formula r2']:.3f}",
                f"{r['formula ncp']:.1f}",
                span(r["ncp"], 1),
                f"{r['formula gain']:.3f}",
                f"{1 / (1 - r['r2']):.3f}" if r["design"] == "summary, earlier" else "",
                span(r["gain"]),
                f"{r['n'] * r['gain'][0]:,.0f}",
                span(r["null"]),
                f"{r['type I']:.4f} ({low:.4f} to {high:.4f})",
            ]
        )
    header = (
        "cohorts: design|R2 (formula)|NCP (formula)|NCP|gain (formula)|1/(1 - R2), R2 as reached|gain|effective N|"
        "null mean chi2|type I at 0.05"
    )
    return make_table(header.split("|"), body)


def order_lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return the table of the inequality."""
    body = []
    for r in rows:
        low, high = r["ratio"][1:]
        verdict = "above" if low > 1 else "below" if high < 1 else "not told apart"
        body.append([f"{r['cohorts']}", r["below"], r["above"], span(r["ratio"]), verdict])
    return make_table(["cohorts", "design", "against", "NCP ratio (95 % interval)", "the second is"], body)


def contamination_lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return the table of proximal contamination."""
    wanted = {
        "summary, earlier": "earlier, chromosome left in",
        "summary, same people": "same people, chromosome left in",
    }
    body = []
    for r in rows:
        if r["design"] in wanted:
            other = next(x for x in rows if x["cohorts"] == r["cohorts"] and x["design"] == wanted[r["design"]])
            body.append(
                [
                    f"{r['cohorts']}: {r['design']}",
                    span(r["tagged gain"]),
                    span(other["tagged gain"]),
                    span(r["gain"]),
                    span(other["gain"]),
                    span(other["null"]),
                ]
            )
    header = [
        "cohorts: prediction",
        "tagged, LOCO",
        "tagged, left in",
        "untagged, LOCO",
        "untagged, left in",
        "null mean chi2, left in",
    ]
    return make_table(header, body)


def draw_designs(rows: Sequence[dict[str, Any]], folder: Path) -> None:
    """Draw gains of formula and simulation against the number of cohorts."""
    figure, axes = new_figure(1, 4.6, 3.2)
    axis = axes[0][0]
    cohorts = sorted({r["cohorts"] for r in rows})
    drawn = [d for d in FORMULA if d not in ("linear", "per cohort, slope")]
    for i, (name, colour) in enumerate(zip(drawn, COLOURS, strict=True)):
        here = [next(r for r in rows if r["cohorts"] == k and r["design"] == name) for k in cohorts]
        gain = np.array([r["gain"] for r in here])
        ends = [gain[:, 0] - gain[:, 1], gain[:, 2] - gain[:, 0]]
        place = np.array(cohorts) + 0.5 * (i - 2.5)
        axis.errorbar(place, gain[:, 0], ends, fmt="o", ms=3.5, color=colour, label=name)
        axis.plot(cohorts, [r["formula gain"] for r in here], "--", lw=1, color=colour)
    axis.axhline(1, color="0.6", lw=0.8)
    axis.set_xlabel("cohorts of equal size")
    axis.set_ylabel("NCP over linear (dashed: formula)")
    axis.legend(fontsize=7, frameon=False)
    save_figure(figure, "mixed-model-designs", folder)
