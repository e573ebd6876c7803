"""One self-contained HTML page per run or meta-analysis, and its figures."""

from __future__ import annotations

import base64
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from markupsafe import Markup
from numpy.typing import NDArray

from pipeline.align import sort_alleles
from pipeline.io.atomic import atomic_path
from pipeline.io.bundle import Bundle
from pipeline.io.bundle_tables import read_bundle_table
from pipeline.report.audit import audit_rows, describe_provenance, missing_rows
from pipeline.report.brief import strongest_pairs, strongest_rows
from pipeline.report.burdens import DEFAULT_RULES, Rules
from pipeline.report.denoising import (
    MAX_CARDS,
    MAX_NULL_ROWS,
    Denoised,
    collect_denoised,
    describe_messages,
    ledger_tables,
    null_model_rows,
    predictor_cards,
    summary_rows,
)
from pipeline.report.embed import dump_json, format_number, format_p, pack_codes, pack_column
from pipeline.report.figures import SavedFigure, write_figures
from pipeline.report.gene_panels import make_panels
from pipeline.report.plots import bokeh_script, make_plots
from pipeline.report.residuals import residual_charts
from pipeline.report.series import Genome, collect_series, lambda_table, lay_genome, order_tests, order_traits
from pipeline.report.tables import GeneTests, genes_in_order, open_bundles, read_gene_tests, read_text_table
from pipeline.schema import BUNDLE_VARIANTS, DENOISING, GENE_TESTS, MASK_AUDIT, PERMUTATION_TESTS

Codes = NDArray[np.int64]
HERE = Path(__file__).parent
SCRIPTS = ("values.js", "plots.js", "table.js", "pictures.js", "genes.js")
MAX_TABLE = 250_000  # rows of the searchable table
MAX_HITS = 15
MAX_SUMMARY = 25  # traits in the tables of the summary


def write_report(
    results: Path, bundles: Sequence[Path], all_figures: bool = False, rules: Rules = DEFAULT_RULES
) -> Path:
    """Write ``results/report.html`` and ``results/figures``.

    The page needs no network and no other file. With very many results it holds the strongest, and says so.

    Args:
        results: a directory that ``locomass run`` or ``locomass meta`` left.
        bundles: the study bundles that were combined; without them gene pages have no forest, and the page does not
            say what de-noising did.
        all_figures: write figures of every trait and test, not only of the strongest traits' first test.
        rules: what the gene tests went by, which the forests follow.

    Returns:
        The page.

    Raises:
        InputError: a table is missing or damaged, or the page cannot be written.
        BundleError: a bundle is damaged.
    """
    tests = read_gene_tests(results / GENE_TESTS.name, results / PERMUTATION_TESTS.name)
    studies = open_bundles(bundles)
    audit = read_text_table(results / "mask_audit.tsv", MASK_AUDIT)
    genome, traits, row_tests = lay_genome(tests), order_traits(tests), order_tests(tests)
    figures = write_figures(results / "figures", tests, genome, traits, row_tests, everything=all_figures)
    data = _page_data(tests, studies, results, audit, genome, row_tests, rules)
    context = {
        **_summary(tests, studies, traits, row_tests),
        **_denoising(collect_denoised(studies), studies),
        **_ledger(results, tests, traits),
        "audit": audit_rows(audit),
        "missing": missing_rows(tests),
        "provenance": describe_provenance(results),
        "figures": _inline_figures(figures),
        "written": time.strftime("%Y-%m-%d %H:%M"),
    }
    path = results / "report.html"
    with atomic_path(path) as temporary:
        temporary.write_text(render_page(context, data), encoding="utf-8")
    return path


def _page_data(
    tests: GeneTests,
    studies: Sequence[Bundle],
    results: Path,
    audit: pa.Table | None,
    genome: Genome,
    row_tests: Codes,
    rules: Rules,
) -> dict[str, Any]:
    """Return what the page's scripts draw from; nothing without results."""
    data: dict[str, Any] = {}
    if not np.isnan(tests.log10p).all():
        data["plots"] = collect_series(tests, genome)
        data["items"] = make_plots(genome)
    if len(tests):
        data["table"] = pack_table(tests)
        data["genes-shared"] = {**pack_labels(tests, row_tests), "frequency": rules.describe()}
        data["genes"] = make_panels(tests, studies, results, audit, rules)
    return data


def render_page(context: Mapping[str, Any], data: Mapping[str, Any]) -> str:
    """Return the page; every text of ``context`` is escaped by the template."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template("page.html").render(
        context,
        has_plots="plots" in data,
        has_table="table" in data,
        style=Markup((HERE / "style.css").read_text(encoding="utf-8")),
        scripts=[Markup((HERE / name).read_text(encoding="utf-8")) for name in SCRIPTS],
        bokeh=Markup(bokeh_script() if "plots" in data else ""),
        data={name: Markup(dump_json(value)) for name, value in data.items()},
    )


def pack_table(tests: GeneTests) -> dict[str, Any]:
    """Return the rows of the searchable table, smallest p-values first, those without one last.

    What belongs to the gene (chromosome, start, rank along the genome) is held once per gene.
    """
    order = strongest_rows(tests.log10p, MAX_TABLE)
    labels = {"gene": "gene", "trait": "trait", "mask": "mask", "test": "row_test", "note": "note"}
    columns: dict[str, Any] = {
        name: {
            "labels": list(tests.label[column].labels),
            "codes": pack_codes(tests.label[column].codes[order], len(tests.label[column].labels)),
        }
        for name, column in labels.items()
    }
    columns["bin"] = pack_codes(tests.bin[order], len(tests.bins))
    counts = {name: tests.number[name][order] for name in ("n_studies", "n_variants")}
    for name, values in counts.items():
        columns[name] = pack_column(values, "u2" if values.max(initial=0) < 0xFFFF else "u4")
    for name in ("mac", "beta", "se", "log10p"):
        columns[name] = pack_column(tests.number[name][order], "f4")
    percent = np.rint(100 * np.nan_to_num(tests.number["p_error"][order], nan=0.0))
    columns["p_error"] = pack_column(np.clip(percent, 0, 0xFF), "u1")
    return {"n": len(order), "total": len(tests), "bins": tests.bins.tolist(), "columns": columns, **_pack_genes(tests)}


def _pack_genes(tests: GeneTests) -> dict[str, Any]:
    """Return chromosome, start and rank along the genome of every gene label."""
    gene, chromosome = tests.label["gene"], tests.label["chromosome"]
    found, first = np.unique(gene.codes, return_index=True)
    start, code, rank = (np.zeros(len(gene.labels), np.int64) for _ in range(3))
    start[found], code[found] = tests.number["start"][first], chromosome.codes[first]
    rank[genes_in_order(tests)] = np.arange(len(found))
    packed = {"start": pack_column(start, "f8"), "place": pack_column(rank, "u4")}
    return {
        **packed,
        "chromosome": {"labels": list(chromosome.labels), "codes": pack_codes(code, len(chromosome.labels))},
    }


def pack_labels(tests: GeneTests, row_tests: Codes) -> dict[str, Any]:
    """Return the labels that the codes on gene pages refer to."""
    names = {"tests": "row_test", "masks": "mask", "notes": "note", "traits": "trait"}
    labels = {name: list(tests.label[column].labels) for name, column in names.items()}
    return {**labels, "test_order": row_tests.tolist(), "bins": tests.bins.tolist()}


def _summary(tests: GeneTests, studies: Sequence[Bundle], traits: Codes, row_tests: Codes) -> dict[str, Any]:
    """Return what the summary says of the data and the tests."""
    n_p = int(np.count_nonzero(~np.isnan(tests.log10p)))
    names = tests.label["trait"].labels
    samples = {b.study: [int(t["n_samples"]) for t in b.traits.values()] for b in studies}
    total = sum(max(n, default=0) for n in samples.values())
    if not studies and len(tests):
        total = int(tests.number["n_samples"].max())
    lambdas = lambda_table(tests, traits, row_tests)
    return {
        "title": " + ".join(b.study for b in studies[:6]) + (" + …" if len(studies) > 6 else "") or "results",
        "facts": [
            ("studies", f"{len(studies):,}" if studies else "–"),
            ("samples", f"{total:,}"),
            ("variants", f"{_count_variants(studies):,}" if studies else "–"),
            ("genes", f"{len(np.unique(tests.label['gene'].codes)):,}"),
            ("traits", f"{len(traits):,}"),
            ("gene tests", f"{len(tests):,}"),
        ],
        "studies": [_study_row(b) for b in studies],
        "hits": _top_hits(tests),
        "n_p": n_p,
        "threshold": format_p(float(np.log10(n_p / 0.05))) if n_p else "",
        "n_significant": int(np.count_nonzero(tests.log10p > np.log10(n_p / 0.05))) if n_p else 0,
        "lambda_tests": [tests.label["row_test"].labels[c] for c in row_tests],
        "lambdas": [
            (names[t], [f"{v:.3f}" if np.isfinite(v) else "–" for v in row])
            for t, row in zip(traits[:MAX_SUMMARY].tolist(), lambdas, strict=False)
        ],
        "lambda_all": [f"{np.nanmedian(c):.3f}" if np.isfinite(c).any() else "–" for c in lambdas.T],
        "n_traits": len(traits),
    }


def _study_row(bundle: Bundle) -> list[str]:
    """Return a study's line: name, build, traits, samples, variants, predictor, software."""
    n = [int(t["n_samples"]) for t in bundle.traits.values()]
    span = "–" if not n else f"{min(n):,} to {max(n):,}" if min(n) < max(n) else f"{n[0]:,}"
    return [
        bundle.study, str(bundle.info.get("genome_build") or "–"), f"{len(n):,}", span,
        f"{pq.read_metadata(bundle.path / 'variants.parquet').num_rows:,}", str(bundle.info.get("predictor") or "none"),
        str(bundle.info.get("software") or "–"),
    ]  # fmt: skip


def _count_variants(studies: Sequence[Bundle]) -> int:
    """Return the number of distinct variants of all studies, whatever the order of their alleles."""
    if len(studies) == 1:
        return int(pq.read_metadata(studies[0].path / "variants.parquet").num_rows)
    known = np.empty(0, np.uint64)  # a hash of each, eight bytes whatever the number of studies
    for study in studies:
        names = ("chromosome", "position", "ref", "alt")
        table = read_bundle_table(study.path / "variants.parquet", BUNDLE_VARIANTS, names).to_pandas()
        table["ref"], table["alt"] = sort_alleles(table["ref"].to_numpy(), table["alt"].to_numpy())
        known = np.union1d(known, pd.util.hash_pandas_object(table[[*names]], index=False).to_numpy())
    return len(known)


def _top_hits(tests: GeneTests) -> list[dict[str, str]]:
    """Return the smallest p-value of each of the strongest pairs of gene and trait."""
    hits = []
    for row in strongest_pairs(tests, MAX_HITS).tolist():
        hit = {name: c.labels[c.codes[row]] for name, c in tests.label.items()}
        for name in ("n_variants", "mac", "beta", "se"):
            hit[name] = format_number(float(tests.number[name][row]))
        hit["max_maf"] = f"{tests.number['max_maf'][row]:g}"
        hits.append({**hit, "p": format_p(float(tests.log10p[row]))})
    return hits


def _denoising(items: Sequence[Denoised], studies: Sequence[Bundle]) -> dict[str, Any]:
    """Return what the page says of predictors and null models."""
    rows = sum(len(d.rows) for d in items)
    predicted = [d for d in items if d.use != "none"]
    return {
        "denoised": summary_rows(predicted[:MAX_SUMMARY]),
        "n_denoised": len(predicted),
        "n_models": len(items),
        "cards": predictor_cards(predicted),
        "more_cards": max(0, len(predicted) - MAX_CARDS),
        "messages": describe_messages(studies),
        "null_models": null_model_rows(items),
        "residuals": residual_charts(studies),
        "more_null_models": max(0, rows - MAX_NULL_ROWS),
    }


def _ledger(results: Path, tests: GeneTests, traits: Codes) -> dict[str, Any]:
    """Return what de-noising did in every study of a meta-analysis, by trait; nothing for one study."""
    table = read_text_table(results / DENOISING.name, DENOISING)
    names = [tests.label["trait"].labels[code] for code in traits.tolist()]
    found = [] if table is None else ledger_tables(table, names)
    return {"ledger": found[:MAX_SUMMARY], "more_ledger": max(0, len(found) - MAX_SUMMARY)}


def _inline_figures(figures: Sequence[SavedFigure]) -> list[dict[str, str]]:
    """Return the PNG figures as data addresses, for readers without scripts."""
    return [
        {
            "title": f.title,
            "data": "data:image/png;base64," + base64.b64encode(f.png.read_bytes()).decode("ascii"),
            "names": f"figures/{f.svg.name}, figures/{f.png.name}",
        }
        for f in figures
    ]
