"""The HTML report: its numbers, what it keeps and drops, and that no text of a file can become markup."""

from __future__ import annotations

import base64
import json
import math
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import stats

from locomass.bundle.study import Bundle
from locomass.commands.meta import run_meta_analysis
from locomass.commands.outcome import Resources
from locomass.commands.report import rewrite_report
from locomass.commands.run import run_study
from locomass.errors import InputError
from locomass.report.brief import describe_results, strongest_rows
from locomass.report.charts import draw_bars, draw_intervals, draw_paths
from locomass.report.denoising import Denoised, describe_record, ledger_tables, overlap_verdict, predictor_cards
from locomass.report.embed import dump_json, format_number, format_p, pack_column, shorten
from locomass.report.page import pack_table, write_report
from locomass.report.quantiles import compute_lambda, lambda_by_group, qq_band, qq_expected, thin_points
from locomass.report.series import collect_series, lay_genome
from locomass.report.tables import read_gene_tests, read_text_table
from locomass.schema import CONDITIONAL, DENOISING, GENE_TESTS, MASK_AUDIT, PERMUTATION_TESTS, SINGLE_VARIANTS
from locomass.scores.residual_shape import bin_residuals
from tests.factories import Study, make_study, write_meta_config

TESTS = {
    "names": ["burden", "skat"], "max_maf": [0.05, 0.5], "weights": ["flat", "beta_1_25"], "drivers_p": 0.5,
}  # fmt: skip
EVIL = "<script>alert('x')</script>"


def gene_rows(
    genes: Sequence[str], log10p: Sequence[float], *, traits: Sequence[str] = ("y",), note: str = ""
) -> list[dict[str, Any]]:
    """Rows of gene_tests: genes x traits x two tests; ``log10p`` is used in turn."""
    rows = []
    for g, gene in enumerate(genes):
        for trait in traits:
            for test in ("burden", "skat"):
                value = log10p[len(rows) % len(log10p)]
                rows.append(
                    {
                        "gene": gene, "chromosome": str(1 + g % 3), "start": 1000 * g + 1, "end": 1000 * g + 500,
                        "trait": trait, "mask": "M1", "max_maf": 0.01, "weights": "flat", "test": test, "n_studies": 1,
                        "n_samples": 500, "n_variants": 4, "mac": 9.0, "statistic": 1.0, "beta": 0.5, "se": 0.25,
                        "p": 10.0**-value, "log10p": value, "method": "chi2", "p_error": 0.0, "note": note,
                    }
                )  # fmt: skip
    return rows


def write_results(folder: Path, rows: list[dict[str, Any]]) -> Path:
    """A results directory of hand-made gene tests, without studies."""
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=GENE_TESTS.arrow), folder / "gene_tests.parquet")
    pq.write_table(SINGLE_VARIANTS.arrow.empty_table(), folder / "single_variants.parquet")
    (folder / "mask_audit.tsv").write_text("\t".join(c.name for c in MASK_AUDIT.columns) + "\n")
    return folder


class Page(HTMLParser):
    """Tags, attributes, text outside scripts, and the embedded data of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.data: dict[str, Any] = {}
        self._inside: str | None = None
        self._id = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside, self._id = tag, dict(attrs).get("id") or ""

    def handle_endtag(self, tag: str) -> None:
        self._inside = None

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            if self._id.startswith("data-"):
                self.data[self._id.removeprefix("data-")] = json.loads(data)
        elif self._inside != "style":
            self.text.append(data)


@pytest.fixture(scope="module")
def consortium(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path]]:
    """Results of a small meta-analysis, and its bundles."""
    folder = tmp_path_factory.mktemp("report")
    studies = [make_study(seed, name=f"study{seed}") for seed in (1, 2)]
    bundles = []
    for study in studies:
        config = study.write(folder / study.name)
        run_study(config, folder / f"out_{study.name}", Resources(threads=1), "score-statistics")
        bundles.append(folder / f"out_{study.name}" / "bundle")
    config = write_meta_config(folder / "meta.yaml", bundles, studies[0], tests=TESTS)
    run_meta_analysis(config, bundles, folder / "out", Resources(threads=1), "meta")
    return folder / "out", bundles


def test_lambda__is_the_median_chi2():
    p = np.random.default_rng(1).uniform(size=1001)
    expected = np.median(stats.chi2.isf(p, 1)) / stats.chi2.median(1)
    assert compute_lambda(-np.log10(p)) == pytest.approx(expected, rel=1e-12)


def test_lambda__of_p_values_that_underflow():
    # chi2_1 upper tail 1e-400: log sf(x) = log erfc(sqrt(x/2)) ~ -x/2 - log(sqrt(pi x/2)); solved to 1e-6
    x = compute_lambda(np.array([400.0])) * stats.chi2.median(1)
    log_sf = -x / 2 - 0.5 * math.log(math.pi * x / 2) + math.log1p(-1 / x)
    assert log_sf == pytest.approx(-400 * math.log(10), rel=1e-6)


def test_lambda__ignores_missing_p_values_and_takes_the_mean_of_the_middle_two():
    p = np.array([0.01, 0.2, 0.4, 0.9])
    expected = stats.chi2.isf(p, 1)[1:3].mean() / stats.chi2.median(1)
    assert compute_lambda(np.append(-np.log10(p), np.nan)) == pytest.approx(expected, rel=1e-12)
    assert math.isnan(compute_lambda(np.array([np.nan])))


def test_lambda_by_group__equals_one_group_at_a_time():
    rng = np.random.default_rng(2)
    log10p, group = -np.log10(rng.uniform(size=300)), rng.integers(0, 4, 300)
    log10p[::17] = np.nan
    found = lambda_by_group(log10p, group, 5)
    assert np.array_equal(found[:4], [compute_lambda(log10p[group == g]) for g in range(4)])
    assert np.isnan(found[4])


def test_thin_points__keeps_every_small_p_value_and_is_deterministic():
    log10p = -np.log10(np.random.default_rng(3).uniform(size=20_000))
    log10p[::100] = np.nan
    rows, rank, n = thin_points(log10p, 500)
    known = log10p[~np.isnan(log10p)]
    assert n == len(known)
    assert set(np.flatnonzero(log10p >= 2)) <= set(rows)
    assert len(rows) <= np.count_nonzero(known >= 2) + 500
    # ranks are those among all p-values, not among the kept
    assert np.array_equal(log10p[rows], np.sort(known)[::-1][rank - 1])
    assert np.array_equal(rows, thin_points(log10p.copy(), 500)[0])


def test_thin_points__a_limit_never_drops_what_is_significant():
    log10p = np.concatenate([np.full(50, 9.0), np.full(500, 2.5), np.linspace(0, 1, 450)])
    rows, _, n = thin_points(log10p, 10, 20)
    assert n == 1000
    assert np.count_nonzero(log10p[rows] == 9.0) == 50
    assert np.count_nonzero(log10p[rows] == 2.5) <= 10


@pytest.mark.parametrize("log10p", [[], [np.nan], [0.0], [5.0], [np.nan, 3.0, 0.1]])
def test_thin_points__few_points(log10p):
    rows, rank, n = thin_points(np.array(log10p, float), 10)
    assert n == len(rows) == len(rank) == np.count_nonzero(~np.isnan(np.array(log10p, float)))


def test_qq_band__holds_95_percent_of_each_rank():
    expected, low, high = qq_band(200)
    draws = -np.log10(np.sort(np.random.default_rng(4).uniform(size=(4000, 200)), axis=1))
    for k in (0, len(expected) // 2, len(expected) - 1):
        rank = round(10 ** -expected[k] * 200 + 0.5)
        assert expected[k] == pytest.approx(qq_expected(np.array([rank]), 200)[0])
        inside = np.mean((draws[:, rank - 1] >= low[k]) & (draws[:, rank - 1] <= high[k]))
        assert inside == pytest.approx(0.95, abs=0.015)  # 4 standard errors of 4,000 draws


@pytest.mark.parametrize(
    ("log10p", "text"),
    [(0.0, "1"), (1.30103, "0.05"), (3.0, "1.0e-3"), (7.698970004, "2.0e-8"), (400.5, "3.2e-401"), (math.nan, "–")],
)
def test_format_p__also_where_p_underflows(log10p, text):
    assert format_p(log10p) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (math.nan, "–"),
        (0, "0"),
        (12345, "12,345"),
        (0.012345, "0.0123"),
        (-1.5e-7, "-1.50e-7"),
        (2.0, "2"),
    ],
)
def test_format_number(value, text):
    assert format_number(value) == text


def test_shorten__long_alleles_say_their_length():
    assert shorten("ACGT") == "ACGT"
    assert shorten("A" * 300_000) == "AAAAAAAAAA…(300,000)"


def test_dump_json__nothing_can_end_the_script_element():
    text = dump_json({"gene": "</script><!--", "x": [math.nan, math.inf, 1.5]})
    assert "<" not in text
    assert json.loads(text) == {"gene": "</script><!--", "x": [None, None, 1.5]}


def test_pack_column__round_trips():
    packed = pack_column(np.array([1.5, np.nan, -3.0]), "f4")
    assert np.array_equal(np.frombuffer(base64.b64decode(packed["data"]), "<f4"), [1.5, np.nan, -3.0], equal_nan=True)


def test_strongest_rows__ties_keep_their_order_and_missing_come_last():
    log10p = np.array([1.0, np.nan, 3.0, 1.0, 2.0])
    assert strongest_rows(log10p, 10).tolist() == [2, 4, 0, 3, 1]
    assert strongest_rows(log10p, 2).tolist() == [2, 4]


def test_charts__escape_names_and_leave_out_missing_values():
    svg = draw_intervals(EVIL, ["1", "<b>"], [0.5, math.nan], [0.1, math.nan], 1.0)
    assert "<script" not in svg
    assert "<b>" not in svg
    assert svg.count("<circle") == 1
    assert draw_bars("x", [], []).startswith("<svg")


def test_predictor_record__every_figure_is_shown_once():
    record = {
        "method": "stack", "file": "/data/gwas.txt.gz", "h2": 0.25, "weights": [0.5, 1.0], "used": True,
        "overlap": "no sign of overlap", "matched": {"same": 10, "swapped": 3},
        "parts": [{"method": "ridge", "q": {"n": 7}}],
        "chains": [{"kept": True, "h2_path": [0.1, 0.2]}], "fallbacks": [], "genome_build": None,
    }  # fmt: skip
    scalars, tables = describe_record(record)
    assert scalars == [
        ("method", "stack"), ("summary statistics or predictions", "gwas.txt.gz"), ("heritability h²", "0.250"),
        ("used by the null model", "yes"), ("weights", "0.500, 1"),
    ]  # fmt: skip
    assert tables == [
        ("Variants by match with the fileset", [("same", "10"), ("swapped", "3")]),
        ("parts, 1", [("method", "ridge")]),
        ("parts, 1: q", [("n", "7")]),
    ]
    assert overlap_verdict(record)[0] == "ok"
    assert overlap_verdict({"overlap": "seems to contain the cohort"})[0] == "warning"
    assert overlap_verdict({})[0] == "unknown"


def test_chain_paths__one_line_per_chain():
    svg = draw_paths("h2", [[0.1, math.nan, 0.3], [0.2, 0.2]], [True, False])
    assert svg.count("<polyline") == 2
    assert "nan" not in svg


def test_series__hold_ranks_and_lambdas_of_all_p_values(tmp_path):
    rng = np.random.default_rng(5)
    rows = gene_rows([f"G{i}" for i in range(300)], -np.log10(rng.uniform(size=1200)), traits=("y", "z"))
    tests = read_gene_tests(write_results(tmp_path / "r", rows) / "gene_tests.parquet")
    data = collect_series(tests, lay_genome(tests))
    assert sorted(data["traits"]) == ["all 2 traits", "y", "z"]
    assert data["test_order"] == [data["tests"].index("skat (flat)"), data["tests"].index("burden (flat)")]
    for trait, test, _, _, n, _, value in data["series"]:
        name = data["traits"][trait]
        own = [
            r["log10p"]
            for r in rows
            if f"{r['test']} (flat)" == data["tests"][test] and name in (r["trait"], "all 2 traits")
        ]
        assert n == len(own)
        assert value == pytest.approx(compute_lambda(np.array(own)), abs=1e-4)


def test_genome__chromosomes_stand_in_order_without_overlap(tmp_path):
    rows = gene_rows([f"G{i}" for i in range(9)], [1.0])
    genome = lay_genome(read_gene_tests(write_results(tmp_path / "r", rows) / "gene_tests.parquet"))
    assert genome.names == ("1", "2", "3")
    assert (genome.left[1:] > genome.right[:-1]).all()
    assert ((genome.x >= genome.left[genome.chromosome]) & (genome.x <= genome.right[genome.chromosome]))[:9].all()


def test_pack_table__says_how_many_rows_there_are(tmp_path, monkeypatch):
    monkeypatch.setattr("locomass.report.page.MAX_TABLE", 40)
    rows = gene_rows([f"G{i}" for i in range(25)], [1.0, 2.0])
    table = pack_table(read_gene_tests(write_results(tmp_path / "r", rows) / "gene_tests.parquet"))
    assert (table["n"], table["total"]) == (40, 50)


def test_report__text_of_files_never_becomes_markup(tmp_path):
    rows = gene_rows([EVIL, "a/b & 'c'"], [8.0, 0.3], traits=(EVIL, "<b>y</b>"), note="<i>why</i>")
    page = Page(write_report(write_results(tmp_path / "r", rows)).read_text(encoding="utf-8"))
    scripts = [attributes for tag, attributes in page.tags if tag == "script"]
    assert len(scripts) == 5 + 6  # five blocks of data; BokehJS and our five files
    assert not any(tag in ("b", "i") for tag, _ in page.tags)
    assert any(EVIL in text for text in page.text)
    assert EVIL in page.data["genes"]
    links = [a["href"] for tag, a in page.tags if tag == "a" and a.get("href", "").startswith("#gene/")]
    assert "#gene/%3Cscript%3Ealert%28%27x%27%29%3C/script%3E" in links


def test_report__refers_to_nothing_outside_the_page(consortium):
    results, _ = consortium
    page = Page(write_report(results).read_text(encoding="utf-8"))
    for tag, attributes in page.tags:
        for name in ("src", "href", "srcset", "action", "data", "poster"):
            value = attributes.get(name)
            assert value is None or value.startswith(("#", "data:")), f"<{tag} {name}={value[:60]}>"
    style = re.search(r"<style>(.*?)</style>", (results / "report.html").read_text(encoding="utf-8"), re.DOTALL)
    assert style is not None
    assert not re.search(r"@import|url\(", style.group(1))


def test_report__summary_stands_without_scripts(consortium):
    results, bundles = consortium
    text = " ".join(Page(write_report(results).read_text(encoding="utf-8")).text)
    for word in ("Strongest genes", "λ per trait and test", "What de-noising gained", "Null models", "Provenance"):
        assert word in text
    for bundle in bundles:
        info = Bundle(bundle).info
        assert info["study"] in text
        gains = [row["gain"] for row in info["traits"][0]["denoising"] if row["gain"] is not None]
        if gains and info["predictor"] != "none":
            assert f"{np.mean(gains):.3f}" in text
    assert {p.suffix for p in (results / "figures").iterdir()} == {".svg", ".png"}


@pytest.mark.parametrize("log10p", [math.nan, 0.0, 350.0])
def test_report__all_p_values_missing_one_or_zero(tmp_path, log10p):
    rows = gene_rows(["A", "B"], [log10p], note="no polymorphic variant" if math.isnan(log10p) else "")
    text = write_report(write_results(tmp_path / "r", rows)).read_text(encoding="utf-8")
    page = Page(text)
    assert ("plots" in page.data) != math.isnan(log10p)
    shown = " ".join(page.text)
    assert ("no polymorphic variant" in shown) == math.isnan(log10p)
    assert ("1.0e-350" in shown) == (log10p == 350.0)


def test_report__empty_results(tmp_path):
    page = Page(write_report(write_results(tmp_path / "r", [])).read_text(encoding="utf-8"))
    assert page.data == {}
    assert any("no p-value to show" in text for text in page.text)


def test_report__raises_on_missing_table(tmp_path):
    with pytest.raises(InputError, match=r"gene_tests\.parquet cannot be read"):
        write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def read_table(path: Path, gene: str, trait: str, mask: str, max_maf: float) -> list[dict[str, Any]]:
    """Rows of a table of one gene, trait, mask and MAF limit."""
    wanted = (gene, trait, mask, max_maf)
    return [r for r in pq.read_table(path).to_pylist() if (r["gene"], r["trait"], r["mask"], r["max_maf"]) == wanted]


def test_gene_page__burdens_equal_sums_over_the_bundles(consortium):
    results, paths = consortium
    bundles = [Bundle(path) for path in paths]
    gene, chromosome = next((name, c) for name, (_, c) in bundles[0].index.items())
    trait = next(iter(bundles[0].traits))
    *studies, pooled = read_table(results / "forests.parquet", gene, trait, "M1", 0.5)
    left_out = read_table(results / "leave_one_out.parquet", gene, trait, "M1", 0.5)
    member = [(r["position"], *sorted((r["ref"], r["alt"]))) for r in left_out]
    U, V = np.zeros(len(member)), np.zeros((len(member), len(member)))
    count, number = np.zeros(len(member)), np.zeros(len(member))
    for bundle in bundles:
        own = bundle.read_genes([gene])[gene]
        info = bundle.traits[trait]
        s = bundle.sample_sets[info["sample_set"]]
        V_own = bundle.information(own, trait) / bundle.sigma2(trait, chromosome)
        keys = [(int(p), *sorted((a, b))) for p, a, b in zip(own.position, own.ref, own.alt, strict=True)]
        at = [keys.index(key) if key in keys else -1 for key in member]
        # count the allele that stands first in the alphabet in every study
        sign = np.array([1.0 if j >= 0 and own.alt[j] < own.ref[j] else -1.0 for j in at])
        for i, j in enumerate(at):
            if j >= 0:
                U[i] += sign[i] * own.U[j, info["index"]]
                n = 2 * own.n_obs[j, s]
                alt = round(float(np.nan_to_num(own.alt_frequency[j, s])) * n)
                count[i] += alt if sign[i] > 0 else n - alt
                number[i] += n
                for i2, j2 in enumerate(at):
                    if j2 >= 0:
                        V[i, i2] += sign[i] * sign[i2] * V_own[j, j2]
    w = np.where(count / number > 0.5, -1.0, 1.0)  # the minor allele
    assert pooled["study"] == "all"
    assert pooled["beta"] == pytest.approx(w @ U / (w @ V @ w), rel=1e-9)
    assert pooled["se"] == pytest.approx((w @ V @ w) ** -0.5, rel=1e-9)
    for k in range(len(member)):
        rest = np.arange(len(member)) != k
        z2 = (w[rest] @ U[rest]) ** 2 / (w[rest] @ V[np.ix_(rest, rest)] @ w[rest])
        assert left_out[k]["log10p_without"] == pytest.approx(
            -stats.chi2.logsf(z2, 1) / math.log(10), rel=1e-6, abs=1e-9
        )
    precision = np.array([1 / s["se"] ** 2 for s in studies])
    beta = np.array([s["beta"] for s in studies])
    mean = (precision @ beta) / precision.sum()
    assert pooled["q"] == pytest.approx(precision @ (beta - mean) ** 2, rel=1e-6)


def test_gene_page__shows_the_variants_of_single_variants(consortium):
    results, _ = consortium
    page = Page(write_report(results).read_text(encoding="utf-8"))
    singles = pq.read_table(results / "single_variants.parquet").to_pylist()
    for gene in page.data["genes"].values():
        for k, trait in enumerate(gene["traits"]):
            own = {
                (r["position"], r["ref"], r["alt"])
                for r in singles
                if r["trait"] == trait and r["chromosome"] == gene["chromosome"]
            }
            labels = list(zip(gene["position"], gene["ref"], gene["alt"], strict=True))
            assert labels
            assert set(labels) <= own
            assert len(gene["by_trait"][k]["variant"]["data"]) > 0


def test_gene_page__burdens_are_those_of_the_table(consortium):
    """The forest of a mask and bin belongs to the row `burden (flat)` of gene_tests."""
    results, _ = consortium
    page = Page(write_report(results).read_text(encoding="utf-8"))
    table = {
        (r["gene"], r["trait"], r["mask"], r["max_maf"]): r
        for r in pq.read_table(results / "gene_tests.parquet").to_pylist()
        if (r["test"], r["weights"]) == ("burden", "flat")
    }
    compared = 0
    for name, gene in page.data["genes"].items():
        for burden in gene["burdens"]:
            row = table[name, gene["traits"][burden["trait"]], burden["mask"], burden["bound"]]
            assert burden["log10p"] == pytest.approx(row["log10p"], rel=1e-9, abs=1e-12)
            assert burden["n_variants"] == row["n_variants"]
            compared += 1
    assert compared > 50
    assert {b["mask"] for g in page.data["genes"].values() for b in g["burdens"]} == {"M1", "M2"}


def swap_alleles(study: Study, rows: Sequence[int]) -> Study:
    """The same people and sets with some variants named the other way round."""
    name = {key: ":".join(map(str, swapped)) for k in rows for key, swapped in [_swap_label(study, k)]}
    ref, alt, dosage = list(study.ref), list(study.alt), study.dosage.copy()
    for k in rows:
        ref[k], alt[k], dosage[k] = alt[k], ref[k], 2 - dosage[k]
    sets = {
        gene: [(v[0], v[1], v[3], v[2]) if ":".join(map(str, v)) in name else v for v in variants]
        for gene, variants in study.sets.items()
    }
    annotations = {name.get(key, key): category for key, category in study.annotations.items()}
    return replace(study, ref=ref, alt=alt, dosage=dosage, sets=sets, annotations=annotations)


def _swap_label(study: Study, k: int) -> tuple[str, tuple[str, int, str, str]]:
    return study.keys()[k], (study.chromosome[k], int(study.position[k]), study.alt[k], study.ref[k])


@pytest.fixture(scope="module")
def unlike_bundles(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, list[Path]]:
    """Two studies, the first with half of its alleles swapped; both share calibrated variances of the binary trait."""
    folder = tmp_path_factory.mktemp("unlike")
    studies = [make_study(seed, name=f"study{seed}") for seed in (1, 2)]
    written = [swap_alleles(studies[0], range(0, len(studies[0].ref), 2)), studies[1]]
    bundles = []
    for study in written:
        config = study.write(
            folder / study.name,
            tests={"names": ["burden"], "max_maf": [0.05, 0.2, 0.5], "weights": ["flat"]},
        )  # fmt: skip
        run_study(config, folder / f"out_{study.name}", Resources(threads=1), "score-statistics")
        bundles.append(folder / f"out_{study.name}" / "bundle")
    return studies[0], bundles


@pytest.mark.parametrize(
    ("frequency", "maf", "n_studies"),
    [
        ("maf", "joint", 1), ("maf", "study", 2), ("maf", "external", 2), ("aaf", "joint", 2), ("aaf", "study", 2),
        ("aaf", "external", 1), ("aaf", "external", 2),
    ],
)  # fmt: skip
def test_forest__pooled_line_is_the_row_of_the_burden(unlike_bundles, tmp_path, frequency, maf, n_studies):
    study, bundles = unlike_bundles
    policy: Any = maf
    if maf == "external":  # some frequencies are far from those of the studies, one variant has none
        values = np.random.default_rng(5).choice([0.001, 0.04, 0.15, 0.4, 0.9, 0.97], len(study.ref))
        lines = [f"{key} {value}\n" for key, value in zip(study.keys(), values, strict=True)]
        (tmp_path / "external.txt").write_text("".join(lines[1:]))
        policy = {"external": "external.txt"}
    tests = {"names": ["burden"], "max_maf": [0.05, 0.2, 0.5], "weights": ["flat"], "frequency": frequency}
    config = write_meta_config(tmp_path / "meta.yaml", bundles[:n_studies], study, tests=tests, maf=policy)
    run_meta_analysis(config, [], tmp_path / "out", Resources(threads=1), "meta")
    rows = {
        (r["gene"], r["trait"], r["mask"], r["max_maf"]): r
        for r in pq.read_table(tmp_path / "out" / "gene_tests.parquet").to_pylist()
    }
    forest: dict[tuple[str, str, str, float], list[dict[str, Any]]] = {}
    for line in pq.read_table(tmp_path / "out" / "forests.parquet").to_pylist():
        forest.setdefault((line["gene"], line["trait"], line["mask"], line["max_maf"]), []).append(line)
    assert set(forest) == {key for key, row in rows.items() if row["beta"] is not None}
    for key, (*studies, pooled) in forest.items():
        names = ("beta", "se", "ci_low", "ci_high", "log10p", "n_variants")
        assert [pooled[n] for n in names] == pytest.approx([rows[key][n] for n in names], rel=1e-9, abs=1e-12)
        if key[1] in study.binary:  # Firth odds ratios do not add up
            assert all(s["se"] >= pooled["se"] * (1.0 - 1e-9) for s in studies)
            continue
        information = sum(s["se"] ** -2 for s in studies)  # studies add up to the pooled line
        assert information == pytest.approx(pooled["se"] ** -2, rel=1e-9)
        weighted = sum(s["beta"] * s["se"] ** -2 for s in studies)
        assert weighted / information == pytest.approx(pooled["beta"], rel=1e-9)
    assert len(forest) > 60


def test_forest__of_the_run_and_of_the_report_command_go_by_the_configuration(unlike_bundles, tmp_path):
    study, bundles = unlike_bundles
    (tmp_path / "external.txt").write_text("".join(f"{key} {0.02 + 0.003 * k}\n" for k, key in enumerate(study.keys())))
    tests = {"names": ["burden"], "max_maf": [0.05, 0.2], "weights": ["flat"], "frequency": "aaf"}
    maf = {"external": "external.txt"}
    config = write_meta_config(tmp_path / "meta.yaml", bundles, study, tests=tests, maf=maf)
    out = run_meta_analysis(config, [], tmp_path / "out", Resources(threads=1)).path
    first = Page((out / "report.html").read_text(encoding="utf-8")).data
    again = Page(rewrite_report(out).read_text(encoding="utf-8")).data
    assert first["genes"] == again["genes"]
    assert first["genes-shared"]["frequency"] == "external ALT allele frequency"
    rows = {
        (r["gene"], r["trait"], r["mask"], r["max_maf"]): r["log10p"]
        for r in pq.read_table(out / "gene_tests.parquet").to_pylist()
    }
    shown = {
        (name, gene["traits"][b["trait"]], b["mask"], b["bound"]): b["log10p"]
        for name, gene in first["genes"].items()
        for b in gene["burdens"]
    }
    assert len(shown) > 20
    assert shown == pytest.approx({key: rows[key] for key in shown}, rel=1e-9, abs=1e-12)


def test_gene_page__masks_and_categories_are_those_of_the_files(consortium):
    results, _ = consortium
    page = Page(write_report(results).read_text(encoding="utf-8"))
    rows = pq.read_table(results / "mask_variants.parquet").to_pylist()
    listed = {(r["gene"], r["position"], frozenset((r["ref"], r["alt"]))): r for r in rows}
    definition = {"M1": {"LoF"}, "M2": {"LoF", "missense"}}
    for row in rows:
        assert (
            row["masks"].split(",") == [m for m in definition if row["category"] in definition[m]] or row["masks"] == ""
        )
    for name, gene in page.data["genes"].items():
        for k, position in enumerate(gene["position"]):
            row = listed[name, position, frozenset((gene["ref"][k], gene["alt"][k]))]
            assert gene["category"][k] == row["category"]
            assert gene["masks"][k] == row["masks"].replace(",", ", ")


def test_gene_page__drivers_and_conditional_tests_are_those_of_the_tables(consortium):
    results, _ = consortium
    drivers = pq.read_table(results / "drivers.parquet").to_pylist()
    assert drivers
    conditional = [
        {**row, "index_variants": "1:5:A:C"} for row in pq.read_table(results / "gene_tests.parquet").to_pylist()[:7]
    ]
    pq.write_table(pa.Table.from_pylist(conditional, schema=CONDITIONAL.arrow), results / CONDITIONAL.name)
    try:
        page = Page(write_report(results).read_text(encoding="utf-8"))
    finally:
        (results / CONDITIONAL.name).unlink()
    genes = page.data["genes"]
    shown = [c for gene in genes.values() for c in gene["conditional"]]
    assert sorted(c[5] for c in shown) == sorted(r["log10p"] for r in conditional)
    assert {c[6] for c in shown} == {"1:5:A:C"}
    n_found = 0
    for row in drivers:
        found = [
            v
            for d in genes[row["gene"]]["drivers"]
            if (d["trait"], d["mask"], d["bound"], d["test"])
            == (row["trait"], row["mask"], row["max_maf"], f"{row['test']} ({row['weights']})")
            for v in d["variants"]
            if v[:3] == [row["position"], row["ref"], row["alt"]]
        ]
        for values in found:
            assert values[3:5] == pytest.approx([row["share"], row["z"]])
        n_found += len(found)
    # all of them, but for rows beyond a dozen of a gene and trait
    assert n_found >= 0.9 * len(drivers)


def test_describe_results__strongest_rows_and_counts(tmp_path):
    rows = gene_rows(["A", "B", "C"], [2.0, 1.0, 400.0, 3.0, math.nan, 0.5], traits=("y",))
    found = describe_results(write_results(tmp_path / "r", rows))
    assert (found["genes"], found["traits"], found["gene_tests"], found["missing_p"]) == (3, 1, 6, 1)
    assert [(r["gene"], r["log10p"]) for r in found["strongest"]] == [("B", 400.0), ("A", 2.0), ("C", 0.5)]
    assert found["strongest"][0]["p"] == 0.0
    assert describe_results(tmp_path) == {}


def test_figures__of_every_trait_and_test(tmp_path):
    rows = gene_rows([f"G$_{i}" for i in range(30)], [0.1, 0.7, 9.0], traits=("y$_{", "z"))
    results = write_results(tmp_path / "r", rows)
    write_report(results)
    assert len(list((results / "figures").glob("*.png"))) == 2
    write_report(results, all_figures=True)
    assert len(list((results / "figures").glob("*.svg"))) == 4


def test_denoising__the_ledger_is_that_of_the_bundles(consortium):
    results, bundles = consortium
    page = Page(write_report(results).read_text(encoding="utf-8"))
    text = " ".join("".join(page.text).split())
    assert "De-noising" in text
    assert any(tag == "section" and attributes.get("id") == "denoising" for tag, attributes in page.tags)
    ledger = {one["trait"]: one for one in ledger_tables(read_text_table(results / "denoising.tsv", DENOISING), ["z"])}
    assert list(ledger) == ["z"]
    n, effective = 0, 0.0
    for bundle, row in zip(bundles, ledger["z"]["rows"], strict=True):
        (trait,) = (t for t in Bundle(bundle).info["traits"] if t["name"] == "z")
        r2, slope, se, before, after = (
            np.mean([r[key] for r in trait["denoising"]])
            for key in ("r2", "slope", "slope_se", "variance_before", "variance_after")
        )
        own = np.mean([trait["n_samples"] / (1 - r["r2"]) for r in trait["denoising"]])
        n, effective = n + trait["n_samples"], effective + own
        figures = [format_number(v) for v in (r2, before, after)]
        slopes = f"{format_number(slope)} ± {format_number(se)}"
        assert row == [
            Bundle(bundle).study, f"{trait['n_samples']:,}", "covariate", slopes, *figures, f"{own:,.0f}",
            f"{own / trait['n_samples']:.3f}",
        ]  # fmt: skip
    assert ledger["z"]["total"][-2:] == [f"{effective:,.0f}", f"{effective / n:.3f}"]
    assert effective > n
    assert f"{effective / n:.3f}" in text


def search_rows(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of permutation_tests for some of gene_tests, a gene that is not there, and one without a p-value."""
    out: list[dict[str, Any]] = []
    for k, row in enumerate(rows):
        values = {
            "test": "groupings", "statistic": 12.5, "p": 10 ** -(2.0 + k), "log10p": 2.0 + k, "p_error": 0.25 * k,
            "method": "permutation", "permutations": 5000 + k, "exceedances": k, "grouping": "sift<=0.05, maf<=0.01",
            "chosen": "+11:ALT,-12:REF", "note": "",
        }  # fmt: skip
        out.append({**{c.name: row[c.name] for c in PERMUTATION_TESTS.columns if c.name in row}, **values})
    lost = {"log10p": math.nan, "p": math.nan, "p_error": math.nan, "permutations": 0, "note": "no variants"}
    return [*out, {**out[0], "gene": "GONE"}, {**out[0], "test": "step-up", "grouping": "", "chosen": "", **lost}]


def test_searches__are_in_the_table_and_on_the_page_of_the_gene(tmp_path):
    rows = gene_rows(["A", "B"], [1.0], traits=("y", "z"))
    results = write_results(tmp_path / "r", rows)
    searches = search_rows(rows[::2])
    searches[1]["note"] = "a flag"
    pq.write_table(pa.Table.from_pylist(searches, schema=PERMUTATION_TESTS.arrow), results / PERMUTATION_TESTS.name)
    page = Page(write_report(results).read_text(encoding="utf-8"))
    table = page.data["table"]
    assert table["total"] == len(rows) + len(searches) - 1  # the gene that is not in gene_tests is left out
    assert set(table["columns"]["test"]["labels"]) >= {"groupings (permutation)", "step-up (permutation)"}
    notes = table["columns"]["note"]["labels"]
    assert "sift<=0.05, maf<=0.01; 5,003 permutations" in notes
    assert "sift<=0.05, maf<=0.01; 5,001 permutations; a flag" in notes
    assert "no variants" in notes
    error = np.frombuffer(base64.b64decode(table["columns"]["p_error"]["data"]), np.uint8)
    assert sorted(error[error > 0].tolist()) == [25, 50, 75]
    shown = {(gene, row[0], row[1]): row for gene, panel in page.data["genes"].items() for row in panel["searches"]}
    assert len(shown) == len(searches) - 1
    for row in searches:
        if row["gene"] != "GONE" and row["note"] == "":
            found = shown[row["gene"], row["trait"], row["test"]]
            expected = [row[k] for k in ("log10p", "p_error", "permutations", "exceedances", "grouping")]
            assert found[6:11] == expected
            assert found[11] == "+11:ALT, -12:REF"
    text = " ".join(page.text)
    assert "no variants" in text  # among the tests without a p-value


def test_searches__a_report_without_them_has_none(tmp_path):
    page = Page(write_report(write_results(tmp_path / "r", gene_rows(["A"], [1.0]))).read_text(encoding="utf-8"))
    assert page.data["genes"]["A"]["searches"] == []
    assert not any("permutation" in label for label in page.data["table"]["columns"]["test"]["labels"])


def test_report__needs_the_tables_of_the_folder_only(consortium, tmp_path):
    """Bundles may be a stranger's, with anything beside them: the page is made without them."""
    results, paths = consortium
    alone = Path(shutil.copytree(results, tmp_path / "alone"))
    for path in paths:
        path.rename(path.with_name("away"))
    try:
        page, again = (Page(write_report(folder).read_text(encoding="utf-8")) for folder in (results, alone))
    finally:
        for path in paths:
            path.with_name("away").rename(path)
    assert page.data["genes"] == again.data["genes"]
    text = " ".join(page.text)
    assert "Slope on the LOCO prediction" in text  # what the bundles themselves say is shown
    assert "skewness" in text
    assert any(burden["lines"] for gene in page.data["genes"].values() for burden in gene["burdens"])


def test_predictor_card__draws_chains_scores_and_weights():
    paths = [{"kept": True, "h2": [0.1, 0.2], "p": [0.01, 0.02]}, {"kept": False, "h2": [0.5, 0.6], "p": [0.3, 0.3]}]
    record = {
        "chains": "chains-y.parquet",
        "paths": paths,
        "score_sd": {"1": 0.2, "2": 0.1},
        "n_weights": {"1": 7, "2": 9},
    }
    row = {"chromosome": "1", "slope": 1.0, "slope_se": 0.1, "r2": 0.2}
    one = Denoised("s", "y", "quantitative", 90, None, "covariate", [row], record)
    (card,) = predictor_cards([one])
    captions = [caption for caption, _ in card["charts"]]
    assert captions[2:] == [
        "SD of the polygenic score, by its chromosome", "Variants with a weight, by chromosome", "h² of the chains",
        "share of causal variants of the chains",
    ]  # fmt: skip
    assert card["charts"][4][1].count("<polyline") == 2
    assert card["scalars"] == []


@pytest.mark.parametrize("least", [5, 20])
def test_residuals__no_bin_is_smaller_than_allowed_and_none_is_lost(least):
    rng = np.random.default_rng(least)
    for n in (0, 3, least, 60, 2000):
        z = np.append(rng.standard_t(2, max(0, n - 1)), 80.0)[:n]  # an outlier
        edges, counts = bin_residuals(z, least)
        assert counts.sum() == (n if n >= least else 0)
        assert (counts >= least).all()
        for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True):
            assert count == np.count_nonzero((z >= low) & (z < high))
        assert np.abs(edges[np.isfinite(edges)]).max(initial=0) <= 4  # nothing tells where outliers are


def test_residuals__are_those_of_the_regression_and_only_counts_reach_the_page(tmp_path):
    study = make_study(5, 220, "one", loco=False)
    study.traits["z"][7] = 1234.5
    run_study(study.write(tmp_path), tmp_path / "out", Resources(threads=1))
    found, bins = {}, pd.read_csv(tmp_path / "out" / "residuals.tsv", sep="\t")
    shape = pd.read_csv(tmp_path / "out" / "studies.tsv", sep="\t").set_index("trait")
    for trait in ("y", "z"):
        chosen = study.observed(trait)
        X, y = study.design(chosen), study.traits[trait][chosen]
        r = y - X @ np.linalg.lstsq(X, y, rcond=None)[0]
        found[trait] = z = r / np.sqrt(r @ r / (len(r) - X.shape[1]))
        for row in bins[bins["trait"] == trait].itertuples():
            assert row.n == np.count_nonzero((z >= row.low) & (z < row.high))
        moments = (stats.skew(z), stats.kurtosis(z))
        assert shape.loc[trait, ["skewness", "kurtosis"]].tolist() == pytest.approx(moments, rel=1e-6)
    text = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    section = text.split('<section id="null-models">')[1].split("</section>")[0]
    skewness = stats.skew(found["z"])
    assert f"one, z: skewness {format_number(skewness)}" in section
    assert "one, cc" not in section.split("<details")[0]  # binary
    sizes = [int(n) for n in re.findall(r">[^<]*: (\d+) samples<", section)]
    assert min(sizes) >= 5
    assert sum(sizes) == sum(int(study.observed(t).sum()) for t in ("y", "w", "z"))
    highest = f"{found['z'].max():.2f}"
    assert float(highest) > 10
    assert highest not in section
