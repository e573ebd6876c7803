"""One self-contained HTML page per run or meta-analysis, and its figures."""

from __future__ import annotations

import base64
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pyarrow as pa
from markupsafe import Markup
from numpy.typing import NDArray

from locomass.files.atomic import atomic_path
from locomass.report.audit import allowed_errors, audit_rows, describe_provenance, missing_rows
from locomass.report.brief import strongest_pairs, strongest_rows
from locomass.report.denoising import (
    MAX_CARDS,
    MAX_NULL_ROWS,
    UNPREDICTED,
    collect_denoised,
    describe_messages,
    ledger_tables,
    null_model_rows,
    predictor_cards,
    summary_rows,
)
from locomass.report.embed import dump_json, format_number, format_p, pack_codes, pack_column
from locomass.report.figures import SavedFigure, write_figures
from locomass.report.gene_panels import make_panels
from locomass.report.plots import bokeh_script, make_plots
from locomass.report.residuals import residual_charts
from locomass.report.series import Genome, collect_series, lambda_table, lay_genome, order_tests, order_traits
from locomass.report.tables import GeneTests, Studies, genes_in_order, read_gene_tests, read_studies, read_text_table
from locomass.schema import DENOISING, GENE_TESTS, MASK_AUDIT, PERMUTATION_TESTS

Codes = NDArray[np.int64]
HERE = Path(__file__).parent
SCRIPTS = ("values.js", "plots.js", "table.js", "pictures.js", "genes.js")
MAX_TABLE = 250_000  # rows of the searchable table
MAX_HITS = 15
MAX_SUMMARY = 25  # traits in the tables of the summary


def write_report(results: Path, *, frequency: str = "", all_figures: bool = False) -> Path:
    """Write ``results/report.html`` and ``results/figures``.

    The page needs no network and no other file. With very many results it holds the strongest, and says so.

    Args:
        results: a directory that ``locomass run`` or ``locomass meta`` left.
        frequency: the frequency that bounds a bin, in words (`describe_frequency`).
        all_figures: write figures of every trait and test, not only of the strongest traits' first test.

    Returns:
        The page.

    Raises:
        InputError: a table is missing or damaged, or the page cannot be written.
    """
    tests = read_gene_tests(results / GENE_TESTS.name, results / PERMUTATION_TESTS.name)
    studies = read_studies(results)
    audit = read_text_table(results / "mask_audit.tsv", MASK_AUDIT)
    genome, traits, row_tests = lay_genome(tests), order_traits(tests), order_tests(tests)
    figures = write_figures(results / "figures", tests, genome, traits, row_tests, everything=all_figures)
    data = _page_data(tests, results, audit, genome, row_tests, frequency)
    context = {
        **_summary(tests, studies, traits, row_tests),
        **_denoising(results, studies),
        **_ledger(results, tests, traits),
        "allowed": allowed_errors(results),
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
    tests: GeneTests, results: Path, audit: pa.Table | None, genome: Genome, row_tests: Codes, frequency: str
) -> dict[str, Any]:
    """Return what the page's scripts draw from; nothing without results."""
    data: dict[str, Any] = {}
    if not np.isnan(tests.log10p).all():
        data["plots"] = collect_series(tests, genome)
        data["items"] = make_plots(genome)
    if len(tests):
        data["table"] = pack_table(tests)
        data["genes-shared"] = {**pack_labels(tests, row_tests), "frequency": frequency}
        data["genes"] = make_panels(tests, results, audit)
    return data


def describe_frequency(counted: str, maf: str) -> str:
    """Return the frequency that bounds a bin, in words.

    Args:
        counted: key `tests.frequency`: maf or aaf.
        maf: frequency policy: joint, study or external.
    """
    which = "external" if maf == "external" else "pooled"
    name = "minor allele frequency" if counted == "maf" else "ALT allele frequency"
    alone = "; a study adds only variants that are rare in it" if maf == "study" else ""
    return f"{which} {name}{alone}"


def render_page(context: Mapping[str, Any], data: Mapping[str, Any]) -> str:
    """Return the page; every text of ``context`` is escaped by the template."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
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


def _summary(tests: GeneTests, studies: Studies, traits: Codes, row_tests: Codes) -> dict[str, Any]:
    """Return what the summary says of the data and the tests."""
    n_p = int(np.count_nonzero(~np.isnan(tests.log10p)))
    names = tests.label["trait"].labels
    known = studies.traits
    total = sum(max(row["n_samples"] for row in rows) for rows in known.values())
    if not known and len(tests):
        total = int(tests.number["n_samples"].max())
    lambdas = lambda_table(tests, traits, row_tests)
    return {
        "title": " + ".join(list(known)[:6]) + (" + …" if len(known) > 6 else "") or "results",
        "facts": [
            ("studies", f"{len(known):,}" if known else "–"),
            ("samples", f"{total:,}"),
            ("variants", format_number(studies.n_variants)),
            ("genes", f"{len(np.unique(tests.label['gene'].codes)):,}"),
            ("traits", f"{len(traits):,}"),
            ("gene tests", f"{len(tests):,}"),
        ],
        "studies": [_study_row(study, rows) for study, rows in known.items()],
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


def _study_row(study: str, traits: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a study's line: name, build, traits, samples, variants, predictor, software."""
    n = [row["n_samples"] for row in traits]
    span = f"{min(n):,} to {max(n):,}" if min(n) < max(n) else f"{n[0]:,}"
    first = traits[0]
    about = [first["predictor"] or "none", first["software"] or "–"]
    return [study, first["genome_build"] or "–", f"{len(n):,}", span, f"{first['n_variants']:,}", *about]


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


def _denoising(results: Path, studies: Studies) -> dict[str, Any]:
    """Return what the page says of predictors and null models."""
    items = collect_denoised(results, studies)
    rows = sum(len(d.rows) for d in items)
    predicted = [d for d in items if d.use not in UNPREDICTED]
    return {
        "denoised": summary_rows(predicted[:MAX_SUMMARY]),
        "n_denoised": len(predicted),
        "n_models": len(items),
        "cards": predictor_cards(predicted),
        "more_cards": max(0, len(predicted) - MAX_CARDS),
        "messages": describe_messages(studies),
        "null_models": null_model_rows(items),
        "residuals": residual_charts(results, studies),
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
