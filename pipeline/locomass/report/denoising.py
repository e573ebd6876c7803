"""What de-noising did, from the studies' records: the summary, the predictor cards, the null models."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from locomass.numbers import Floats
from locomass.report.charts import draw_bars, draw_intervals, draw_paths
from locomass.report.embed import MISSING, format_number
from locomass.report.tables import Studies, read_text_table
from locomass.schema import ALL, DENOISING

MAX_CARDS = 24
MAX_NULL_ROWS = 1000
NAMES = {
    "method": "method",
    "file": "summary statistics or predictions",
    "format": "format",
    "rows": "rows read",
    "variants": "variants used",
    "scored": "variants scored",
    "n": "median sample size",
    "mean_chi2": "mean χ² of the GWAS",
    "h2": "heritability h²",
    "p": "share of causal variants",
    "r2_promised": "expected R²",
    "r2_cross_validated": "R², cross-validated",
    "r2_observed": "R², whole genome",
    "slope": "slope, whole genome",
    "slope_se": "its standard error",
    "gain": "gain, whole genome",
    "coverage": "variance of the predictor that is genotyped",
    "reference_covered": "LD reference covered",
    "blocks": "LD blocks",
    "sd_y": "SD of the trait, estimated",
    "samples_without_prediction": "samples without a prediction",
    "n_is_effective": "sample size is effective",
    "ld_score_intercept": "LD score intercept",
    "shrink": "shrinkage of the LD matrix",
    "used": "used by the null model",
    "r2_se": "standard error of R²",
    "share_of_h2": "share of h² that it reaches",
    "verdict": "verdict",
    "advice": "what to try next",
    "overlap_share": "share of the cohort in the GWAS, estimated",
    "overlap_share_se": "its standard error (of the share)",
}
TABLES = {
    "matched": "Variants by match with the fileset",
    "quality_dropped": "Variants dropped by quality checks",
    "ld_score_regression": "LD score regression",
    "rows_dropped": "Rows dropped when reading",
}
CELLS = {
    "h2": "h²",
    "h2 se": "SE of h²",
    "intercept se": "SE of the intercept",
    "mean chi2": "mean χ²",
    "n variants": "variants",
    "low n": "low sample size",
    "low sd": "low SD",
    "sd mismatch": "SD does not fit",
    "frequency mismatch": "frequency does not fit",
    "swapped flipped": "swapped and flipped",
}
# shown as a verdict, as charts, and as variants used
ELSEWHERE = ("overlap", "chains", "paths", "score_sd", "n_weights", "n_variants")
UNPREDICTED = ("none", "unknown")  # uses of a predictor that is none


@dataclass(frozen=True)
class Denoised:
    """One trait of one study.

    Attributes:
        study, trait, kind: which.
        n_samples, n_cases: samples of the null model; cases of a binary trait.
        use: none, covariate or offset.
        rows: null models by chromosome, as in denoising.tsv.
        record: how the predictor was made; empty when that is not known.
    """

    study: str
    trait: str
    kind: str
    n_samples: int
    n_cases: int | None
    use: str
    rows: list[dict[str, Any]]
    record: dict[str, Any]

    def mean(self, name: str) -> float:
        """Return the mean over chromosomes; NaN where no chromosome has a value."""
        values = self.column(name)
        values = values[np.isfinite(values)]
        return float(values.mean()) if len(values) else float("nan")

    def column(self, name: str) -> Floats:
        """Return (chromosomes,) one figure of the null models."""
        return np.array([math.nan if r.get(name) is None else float(r[name]) for r in self.rows])

    @property
    def promised(self) -> float:
        """R2 that the summary statistics promise, w'Rw; NaN when unknown."""
        value = self.record.get("r2_promised")
        return math.nan if value is None else float(value)


def collect_denoised(results: Path, studies: Studies) -> list[Denoised]:
    """Return every trait of every study."""
    table = read_text_table(results / DENOISING.name, DENOISING)
    models: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in [] if table is None else table.to_pylist():
        models.setdefault((row["study"], row["trait"]), []).append(row)
    out = []
    for study, traits in studies.traits.items():
        for one in traits:
            rows = models.get((study, one["trait"]), [])
            rows = (
                rows[:-1] if len(rows) > 1 else [row for row in rows if row["use"] != "unknown"]
            )  # the last: the mean
            use = str(rows[0]["use"]) if rows else "none"
            out.append(
                Denoised(
                    study=study,
                    trait=one["trait"],
                    kind=one["kind"],
                    n_samples=one["n_samples"],
                    n_cases=one["n_cases"],
                    use=use,
                    rows=rows,
                    record=studies.record(study, one["trait"]) if use not in UNPREDICTED else {},
                )
            )
    return out


def describe_messages(studies: Studies) -> list[str]:
    """Return the warnings of the predictor stage, with the study's name where there are several.

    What is the verdict of a trait's card is not said twice.
    """
    out = []
    for study, traits in studies.traits.items():
        prefix = f"{study}: " if len(studies.traits) > 1 else ""
        records = [studies.record(study, one["trait"]) for one in traits]
        verdicts = [str(record["overlap"]) for record in records if record.get("overlap")]
        out += [prefix + m for m in studies.messages(study) if not any(m.endswith(verdict) for verdict in verdicts)]
    return out


def summary_rows(items: Sequence[Denoised]) -> list[list[str]]:
    """Return a row per study and trait with a predictor: samples, use, matched, slope, R2, w'Rw, gain."""
    rows = []
    for d in items:
        n = f"{d.n_samples:,}" + (f" ({d.n_cases:,} cases)" if d.n_cases is not None else "")
        gain = d.mean("gain")
        rows.append(
            [
                d.study,
                d.trait,
                d.kind,
                n,
                d.use,
                format_number(d.record.get("variants")),
                _mean_and_range(d.column("slope")),
                format_number(d.mean("r2")),
                format_number(d.promised),
                f"{gain:.3f}" if math.isfinite(gain) else "–",
            ]
        )
    return rows


def ledger_tables(table: pa.Table, traits: Sequence[str]) -> list[dict[str, Any]]:
    """Return what de-noising did, by trait, where several studies have the trait and one of them a prediction.

    Args:
        table: denoising.tsv.
        traits: names in the order wanted.

    Returns:
        Per trait: ``trait``, ``kind``, ``rows`` of the studies, and ``total``, their sum.
    """
    lines: dict[str, list[dict[str, Any]]] = {}
    for row in table.filter(pc.equal(table["chromosome"], ALL)).to_pylist():
        lines.setdefault(row["trait"], []).append(row)
    out = []
    for name in (name for name in traits if len(lines.get(name, [])) > 2):
        *studies, total = lines[name]
        if all(row["r2"] is None or math.isnan(row["r2"]) for row in studies):
            continue
        rows = [_ledger_row(row) for row in studies]
        out.append({"trait": name, "kind": total["kind"], "rows": rows, "total": _ledger_row(total)})
    return out


def _ledger_row(row: Mapping[str, Any]) -> list[str]:
    """Return study, samples, use, slope, R2, residual variances, effective samples and gain."""
    n = f"{row['n_samples']:,}" + (f" ({row['n_cases']:,} cases)" if row["n_cases"] is not None else "")
    slope, se = format_number(row["slope"]), format_number(row["slope_se"])
    effective, gain = row["n_effective"], row["gain"]
    known = effective is not None and math.isfinite(effective)
    return [
        "all studies" if row["study"] == ALL else row["study"],
        n,
        row["use"],
        slope if se == MISSING else f"{slope} ± {se}",
        *(format_number(row[key]) for key in ("r2", "sigma2_before", "sigma2_after")),
        f"{effective:,.0f}" if known else MISSING,
        f"{gain:.3f}" if known else MISSING,
    ]


def _mean_and_range(values: Floats) -> str:
    """Return ``0.64 (0.61 to 0.66)``."""
    values = values[np.isfinite(values)]
    if not len(values):
        return "–"
    text = format_number(float(values.mean()))
    return text if len(values) == 1 else f"{text} ({format_number(values.min())} to {format_number(values.max())})"


def null_model_rows(items: Sequence[Denoised]) -> list[list[str]]:
    """Return the first rows of the null models of all studies, for a table."""
    names = ("slope", "slope_se", "r2", "sigma2_before", "sigma2_after", "gain")
    rows: list[list[str]] = []
    for d in items:
        for r in d.rows:
            if len(rows) == MAX_NULL_ROWS:
                return rows
            counts = [format_number(r.get(k)) for k in ("n_samples", "n_cases", "n_covariates")]
            rows.append(
                [d.study, d.trait, d.kind, str(r["chromosome"]), *counts, str(r["use"])]
                + [format_number(r.get(k)) for k in names]
            )
    return rows


def predictor_cards(items: Sequence[Denoised]) -> list[dict[str, Any]]:
    """Return what the predictor page shows of traits that have a predictor."""
    return [_card(d) for d in items[:MAX_CARDS]]


def _card(d: Denoised) -> dict[str, Any]:
    """Return one predictor card."""
    names = [str(r["chromosome"]) for r in d.rows]
    slope, se, r2 = (d.column(n).tolist() for n in ("slope", "slope_se", "r2"))
    title = f"{d.study}, {d.trait}"
    charts = []
    if d.use == "covariate":
        chart = draw_intervals(f"{title}: slope", names, slope, se, 1.0)
        charts.append(("Slope on the LOCO prediction, by tested chromosome", chart))
    charts.append(("R² that the prediction adds, by tested chromosome", draw_bars(f"{title}: R2", names, r2)))
    for key, text in (
        ("score_sd", "SD of the polygenic score, by its chromosome"),
        ("n_weights", "Variants with a weight, by chromosome"),
    ):
        values = d.record.get(key) or {}
        if values:
            charts.append((text, draw_bars(f"{title}: {key}", list(values), [float(v) for v in values.values()])))
    chains = d.record.get("paths") or []
    for key, text in (("h2", "h² of the chains"), ("p", "share of causal variants of the chains")):
        paths = [chain[key] for chain in chains]
        if any(paths):
            charts.append((text, draw_paths(f"{title}: {key}", paths, [chain["kept"] for chain in chains])))
    scalars, tables = describe_record(d.record)
    return {
        "study": d.study,
        "trait": d.trait,
        "use": d.use,
        "charts": charts,
        "scalars": scalars,
        "tables": tables,
        "verdict": overlap_verdict(d.record),
    }


def describe_record(record: Mapping[str, Any]) -> tuple[list[tuple[str, str]], list[tuple[str, list[tuple[str, str]]]]]:
    """Return a predictor's record for people: single figures, and tables of those that belong together."""
    scalars = [(text, _format(record[key])) for key, text in NAMES.items() if key in record]
    tables: list[tuple[str, list[tuple[str, str]]]] = []
    for key, value in record.items():
        name = key.replace("_", " ")
        if key in NAMES or key in ELSEWHERE or value in (None, [], {}):
            continue
        if isinstance(value, Mapping):
            cells = [(str(k).replace("_", " "), _format(v)) for k, v in value.items()]
            tables.append((TABLES.get(key, name), [(CELLS.get(k, k), v) for k, v in cells]))
        elif isinstance(value, list) and isinstance(value[0], Mapping):
            for number, part in enumerate(value, 1):
                figures, inner = describe_record(part)
                tables += [(f"{name}, {number}", figures), *((f"{name}, {number}: {n}", rows) for n, rows in inner)]
        else:
            scalars.append((name, _format(value)))
    return scalars, tables


def _format(value: Any) -> str:
    """Return a value of a record for people; of a path, the name."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(_format, value))
    if isinstance(value, str) and value.startswith("/"):
        return Path(value).name
    return format_number(value) if isinstance(value, int | float) else str(value)


def overlap_verdict(record: Mapping[str, Any]) -> tuple[str, str]:
    """Return ``ok``, ``warning`` or ``unknown``, and what the predictor stage found on overlap and ascertainment."""
    found = record.get("overlap")
    if not found:
        return "unknown", "Whether the training data contain the cohort was not judged."
    return ("ok" if found == "no sign of overlap" else "warning"), str(found)
