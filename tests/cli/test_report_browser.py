"""The report in headless Chromium: it sorts, filters, opens a gene, asks for nothing, and its console stays clean."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from locomass.commands.conditional import run_conditional_analysis
from locomass.commands.meta import run_meta_analysis
from locomass.commands.outcome import Resources
from locomass.commands.run import run_study
from locomass.report.page import write_report
from locomass.schema import GENE_TESTS, PERMUTATION_TESTS
from tests.factories import make_study, write_meta_config

webdriver = pytest.importorskip("selenium.webdriver")
CHROMIUM = next((p for p in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if p), None)
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(CHROMIUM is None or DRIVER is None, reason="needs chromium and chromium-driver")
OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-component-update",
    "--disable-background-networking", "--disable-sync", "--disable-dev-shm-usage", "--window-size=1400,1200",
    "--force-prefers-reduced-motion",
)  # fmt: skip
TESTS = {
    "names": ["burden", "skat"], "max_maf": [0.05, 0.5], "weights": ["flat", "beta_1_25"], "drivers_p": 0.5,
}  # fmt: skip
PATIENCE = 120.0  # seconds; a page that works needs about one on a machine that has nothing else to do


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A browser without network."""
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for option in OPTIONS:
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    driver.execute_cdp_cmd("Network.enable", {})
    driver.execute_cdp_cmd(
        "Network.emulateNetworkConditions",
        {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0},
    )
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a small meta-analysis of two studies."""
    folder = tmp_path_factory.mktemp("browser")
    studies = [make_study(seed, name=f"study{seed}") for seed in (1, 2)]
    bundles = []
    for study in studies:
        config = study.write(folder / study.name)
        run_study(config, folder / f"out_{study.name}", Resources(threads=1), "score-statistics")
        bundles.append(folder / f"out_{study.name}" / "bundle")
    config = write_meta_config(folder / "meta.yaml", bundles, studies[0], tests=TESTS)
    run_meta_analysis(config, bundles, folder / "out", Resources(threads=1), "meta")
    run_conditional_analysis(config, bundles, "auto", 0.05, folder / "out")
    write_searches(folder / "out")
    return write_report(folder / "out")


def write_searches(folder: Path) -> None:
    """permutation_tests.parquet of every burden row: p 0.001, 12,345 permutations, an error of 40 %, a flag."""
    rows = []
    for row in pq.read_table(folder / GENE_TESTS.name).to_pylist():
        if (row["test"], row["weights"]) == ("burden", "flat"):
            values = {
                "test": "groupings", "statistic": 10.0, "p": 1e-3, "log10p": 3.0, "p_error": 0.4,
                "method": "permutation", "permutations": 12345, "exceedances": 12, "note": "a flag", "chosen": "+7:ALT",
                "grouping": "cadd>=20, maf<=0.01",
            }  # fmt: skip
            rows.append({**{c.name: row[c.name] for c in PERMUTATION_TESTS.columns if c.name in row}, **values})
    pq.write_table(pa.Table.from_pylist(rows, schema=PERMUTATION_TESTS.arrow), folder / PERMUTATION_TESTS.name)


def open_page(browser: Any, path: Path, anchor: str = "") -> float:
    """Open the page, wait until its scripts have run, and return the seconds it took."""
    browser.get("about:blank")
    browser.get_log("browser")
    start = time.perf_counter()
    browser.get(path.as_uri() + anchor)
    wait_for(lambda: browser.execute_script("return document.body.dataset.plots") == "ready")
    return time.perf_counter() - start


def wait_for(condition: Callable[[], Any]) -> None:
    """Wait until a condition holds."""
    end = time.perf_counter() + PATIENCE
    while not condition():
        assert time.perf_counter() < end, "the page did not get there"
        time.sleep(0.02)


def check_quiet(browser: Any) -> None:
    """No warning or error on the console, and no request besides the page."""
    assert [e for e in browser.get_log("browser") if e["level"] not in ("INFO", "DEBUG")] == []
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0


def column(browser: Any, heading: str) -> list[str]:
    """The visible cells of a column of the gene table."""
    heads = [b.text for b in browser.find_elements("css selector", "#genes thead button")]
    return [
        c.text for c in browser.find_elements("css selector", f"#genes tbody td:nth-child({heads.index(heading) + 1})")
    ]


def click_heading(browser: Any, heading: str) -> None:
    """Click a heading of the gene table."""
    for button in browser.find_elements("css selector", "#genes thead button"):
        if button.text == heading:
            browser.execute_script("arguments[0].click()", button)
            return
    raise AssertionError(f"no heading {heading}")


def test_table__sorts_both_ways(browser, report):
    open_page(browser, report)
    p = [float(text.split()[0]) for text in column(browser, "p")]  # the Monte Carlo error stands below p
    assert p == sorted(p)
    click_heading(browser, "variants")
    up = [int(text) for text in column(browser, "variants")]
    click_heading(browser, "variants")
    down = [int(text) for text in column(browser, "variants")]
    assert up == sorted(up)
    assert down == sorted(down, reverse=True)
    assert up != down
    check_quiet(browser)


def test_table__filters_and_clears(browser, report):
    open_page(browser, report)
    find = browser.find_element("id", "find")
    find.send_keys("gene3")
    assert set(column(browser, "gene")) == {"GENE3"}
    browser.find_element("id", "filter-p").send_keys("0.5")
    assert column(browser, "p")
    assert all(float(text.split()[0]) <= 0.5 for text in column(browser, "p"))
    find.clear()
    find.send_keys("no such gene")
    assert column(browser, "gene") == []
    browser.find_element("css selector", "#table-controls button").click()
    wait_for(lambda: len(column(browser, "gene")) == 50)
    browser.find_element("id", "next").click()
    assert browser.find_element("id", "page-number").text.startswith("page 2 of")
    check_quiet(browser)


def test_gene_page__opens_from_the_table_and_goes_back(browser, report):
    open_page(browser, report)
    link = browser.find_element("css selector", "#genes tbody a")
    gene = link.text
    browser.execute_script("arguments[0].click()", link)
    page = browser.find_element("id", "gene-page")
    wait_for(lambda: page.is_displayed())
    assert page.find_element("css selector", "h2").text == gene
    assert not browser.find_element("id", "main").is_displayed()
    assert "Forest across studies" in page.text
    assert {"study1", "study2", "all studies"} <= {
        t.text.split(",")[0] for t in page.find_elements("css selector", "svg text")
    }
    browser.back()
    wait_for(lambda: browser.find_element("id", "main").is_displayed())
    assert not page.is_displayed()
    check_quiet(browser)


def test_gene_page__by_its_address_with_another_trait_and_bin(browser, report):
    open_page(browser, report, "#gene/GENE2")
    for name in ("gene-trait", "gene-burden"):
        select = browser.find_element("id", name)
        wanted = select.find_elements("css selector", "option")[-1].get_attribute("value")
        assert wanted != select.get_property("value")
        browser.execute_script(
            "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('change'))", select, wanted
        )
        assert browser.find_element("id", name).get_property("value") == wanted
    assert "NaN" not in browser.find_element("id", "gene-page").text
    check_quiet(browser)


def test_gene_page__unknown_gene_says_so(browser, report):
    open_page(browser, report, "#gene/constructor")
    assert "No row of this page is of this gene" in browser.find_element("id", "gene-page").text
    check_quiet(browser)


def test_plots__show_the_chosen_series(browser, report):
    open_page(browser, report)
    count = "return Bokeh.documents.map(d => d.get_model_by_name(arguments[0])).find(m => m).data.x.length"
    shown = {}
    for name in ("manhattan-source", "qq-source"):
        shown[name] = browser.execute_script(count, name)
    assert shown["manhattan-source"] == shown["qq-source"] > 0
    assert f"{shown['qq-source']:,} points drawn" in browser.find_element("id", "plot-note").text
    browser.execute_script(
        "const s = document.getElementById('plot-mask'); s.selectedIndex = 1;"
        "document.getElementById('plot-controls').dispatchEvent(new Event('change'))"
    )
    assert 0 < browser.execute_script(count, "qq-source") < shown["qq-source"]
    check_quiet(browser)


def test_summary__stands_without_scripts(browser, report):
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.get(report.as_uri())
        text = browser.find_element("tag name", "body").text
        assert "What de-noising gained" in text
        assert "λ per trait and test" in text
        assert browser.find_elements("css selector", ".static img")
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_gene_page__variants_masks_drivers_and_conditional_tests(browser, report):
    open_page(browser, report)
    gene, trait = browser.execute_script(
        "for (const [name, gene] of Object.entries(window.report.data('genes'))) for (const row of gene.drivers)"
        " if (gene.conditional.some(c => c[0] === row.trait)) return [name, row.trait];"
    )
    browser.execute_script("location.hash = '#gene/' + arguments[0]", gene)
    page = browser.find_element("id", "gene-page")
    wait_for(lambda: page.is_displayed())
    browser.execute_script(
        "const s = document.getElementById('gene-trait'); s.value = arguments[0]; s.dispatchEvent(new Event('change'))",
        trait,
    )
    headings = [h.text for h in page.find_elements("css selector", "h3")]
    for heading in (
        "Forest across studies",
        "Variants",
        "Drivers",
        "Given index variants",
        "Which variants the masks took",
    ):
        assert heading in headings
    heads = {h.text.splitlines()[0] for h in page.find_elements("css selector", "th")}
    assert {"category", "masks", "U", "Z", "p without it", "share of Q", "given"} <= heads
    select = browser.find_element("id", "gene-burden")
    assert {"M1", "M2"} <= {o.text.split(",")[0] for o in select.find_elements("css selector", "option")}
    check_quiet(browser)


@pytest.mark.parametrize("fragment", ["gene/%E0%A4%A", "gene/%", "gene/", "gene/%zz%00", "%E0%A4%A", "gene"])
def test_48_a_broken_fragment_opens_the_page_as_without(browser, report, fragment):
    open_page(browser, report)
    browser.get(f"{report.as_uri()}?again#{fragment}")
    wait_for(lambda: browser.execute_script("return document.body.dataset.genes") == "ready")
    assert browser.find_element("tag name", "main").is_displayed()
    assert not browser.find_element("id", "gene-page").is_displayed()
    browser.execute_script("location.hash = '#gene/GENE2'")
    wait_for(lambda: browser.find_element("id", "gene-page").is_displayed())
    check_quiet(browser)


@pytest.mark.parametrize("name", ["__proto__", "toString", "constructor", "<img src=x onerror=alert(1)>", "no gene"])
def test_48_a_gene_that_is_not_there_is_told(browser, report, name):
    open_page(browser, report)
    browser.execute_script("location.hash = '#gene/' + encodeURIComponent(arguments[0])", name)
    page = browser.find_element("id", "gene-page")
    wait_for(lambda: page.is_displayed())
    assert "No row of this page is of this gene" in page.text
    assert page.find_elements("css selector", "img") == []
    check_quiet(browser)


@pytest.mark.ci
def test_searches__stand_in_the_table_and_on_the_page_of_a_gene(browser, report):
    open_page(browser, report)
    browser.find_element("id", "find").send_keys("groupings (permutation)")
    assert set(column(browser, "test")) == {"groupings (permutation)"}
    assert set(column(browser, "p")) == {"1.0e-3\n± 40 %"}
    assert set(column(browser, "note")) == {"cadd>=20, maf<=0.01; 12,345 permutations; a flag"}
    browser.execute_script("location.hash = '#gene/GENE2'")
    page = browser.find_element("id", "gene-page")
    wait_for(lambda: page.is_displayed())
    assert "Searches by permutation" in [h.text for h in page.find_elements("css selector", "h3")]
    cells = [c.text for c in page.find_elements("css selector", "td")]
    assert {"12,345", "12", "1.0e-3\n± 40 %\na flag", "cadd>=20, maf<=0.01\n+7:ALT"} <= set(cells)
    check_quiet(browser)


def test_denoising__has_a_line_per_study_and_their_sum(browser, report):
    open_page(browser, report)
    section = browser.find_element("id", "denoising")
    for table in section.find_elements("css selector", "table"):
        first = [row.text.split()[0] for row in table.find_elements("css selector", "tbody tr")]
        assert first == ["study1", "study2", "all"]
    assert "NaN" not in section.text
    check_quiet(browser)


def test_print__shows_the_figures_in_place_of_the_interactive_plots(browser, report):
    open_page(browser, report)
    shown = "return getComputedStyle(document.querySelector(arguments[0])).display"
    assert browser.execute_script(shown, ".static") == "none"
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        assert browser.execute_script(shown, ".static") == "block"
        for gone in (".plots", "nav", "#table-controls"):
            assert browser.execute_script(shown, gone) == "none"
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    check_quiet(browser)


def write_large_table(folder: Path, n: int, tests: int) -> None:
    """gene_tests.parquet of n genes x tests, p-values uniform."""
    rng = np.random.default_rng(1)
    log10p = -np.log10(rng.uniform(size=n * tests))
    gene = np.repeat(np.arange(n), tests)
    text = {
        "gene": [f"GENE{g}" for g in gene],
        "chromosome": [str(1 + g * 22 // n) for g in gene],
        "trait": ["y"] * len(gene),
        "mask": ["M1"] * len(gene),
        "weights": ["flat"] * len(gene),
        "test": [f"test{k}" for k in range(tests)] * n,
        "method": [""] * len(gene),
        "note": [""] * len(gene),
    }
    numbers = {"start": gene * 2000, "end": gene * 2000 + 900, "max_maf": np.full(len(gene), 0.01), "log10p": log10p}
    columns = {c.name: text.get(c.name, numbers.get(c.name, np.ones(len(gene)))) for c in GENE_TESTS.columns}
    table = pa.table(
        {c.name: pa.array(columns[c.name]).cast(c.type) for c in GENE_TESTS.columns}, schema=GENE_TESTS.arrow
    )
    pq.write_table(table, folder / "gene_tests.parquet")


@pytest.mark.parametrize("n", [2_000, pytest.param(20_000, marks=pytest.mark.slow)])
def test_large_report__opens_with_every_row_and_every_gene(browser, tmp_path, n):
    """Genes x 10 tests; the 20,000 genes of an exome are slow to write, not to open."""
    write_large_table(tmp_path, n, 10)
    path = write_report(tmp_path)
    seconds = min(open_page(browser, path) for _ in range(2))
    print(f"{n:,} genes x 10 tests: {path.stat().st_size / 1e6:.1f} MB, opens in {seconds:.2f} s")
    assert path.stat().st_size < 5e6 + 700 * n
    assert f"{n * 10:,} rows" in browser.find_element("id", "table-note").text
    find = browser.find_element("id", "find")
    find.send_keys(f"GENE{n - 1}")
    assert set(column(browser, "gene")) == {f"GENE{n - 1}"}
    browser.execute_script("location.hash = arguments[0]", f"#gene/GENE{n - 1}")
    page = browser.find_element("id", "gene-page")
    wait_for(lambda: page.is_displayed())
    assert f"GENE{n - 1}" in page.text
    assert "Tests of y" in page.text
    check_quiet(browser)


def test_time_to_interactive__is_measured_by_the_page_itself(browser, report):
    open_page(browser, report)
    assert 0 < float(browser.execute_script("return document.body.dataset.milliseconds")) < PATIENCE * 1000
