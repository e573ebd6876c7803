"""`meta` makes all of the checks of `inspect` before the first gene; refusing a bundle costs little."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from locomass.commands.check import check_study
from locomass.commands.meta import open_consortium, run_meta_analysis
from locomass.commands.outcome import Resources
from locomass.config import MetaConfig, load_config
from locomass.errors import BundleError
from locomass.meta.inspect import NAMES, refuse_errors
from locomass.report.page import write_report
from tests.cases.damage import change_column, change_json


def bomb_rows(bundle):
    """A part whose every row is the same gene: 1 MB on disk."""
    path = bundle / "genes" / "00000.parquet"
    table = pq.read_table(path).slice(0, 0)
    n = 3_000_000
    columns = {}
    for field in table.schema:
        if pa.types.is_list(field.type):
            empty = pa.ListArray.from_arrays(pa.array(np.zeros(n + 1, np.int32)), pa.array([], field.type.value_type))
            columns[field.name] = empty
        elif pa.types.is_string(field.type):
            columns[field.name] = (
                pa.array(["x"]).dictionary_encode().take(pa.array(np.zeros(n, np.int32))).cast("string")
            )
        else:
            columns[field.name] = pa.array(np.ones(n, np.int64), field.type)
    pq.write_table(pa.table(columns), path, compression="zstd")


def bomb_list(bundle):
    """One list of 100 million equal numbers."""
    path = bundle / "genes" / "00000.parquet"
    table = pq.read_table(path)
    lists = pa.ListArray.from_arrays(
        pa.array([0, 30_000_000, *[30_000_000] * (len(table) - 1)], pa.int32()), pa.array(np.zeros(30_000_000))
    )
    pq.write_table(table.set_column(table.column_names.index("B"), "B", lists), path, compression="zstd")


def bomb_json(bundle):
    info = json.loads((bundle / "study.json").read_text())
    (bundle / "study.json").write_text(json.dumps({**info, "x": [[]] * 2_000_000}))


@pytest.mark.parametrize("bomb", [bomb_list, *(pytest.param(b, marks=pytest.mark.ci) for b in (bomb_rows, bomb_json))])
def test_refusing_costs_little(bundle, bomb):
    """At most 10 s and 500 MB, the interpreter included."""
    bomb(bundle)
    (bundle / "digests.json").unlink()
    code = (
        "import sys, time; from pathlib import Path; from locomass.meta.inspect import inspect_bundles\n"
        "start = time.process_time(); (found,) = inspect_bundles([Path(sys.argv[1])])\n"
        "peak = next(int(x.split()[1]) // 1024 for x in open('/proc/self/status') if x.startswith('VmHWM'))\n"
        "print(found.severity, time.process_time() - start, peak)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(bundle)], capture_output=True, text=True, timeout=120)
    severity, seconds, megabytes = done.stdout.split()
    assert severity == "error"
    assert float(seconds) < 10
    assert int(megabytes) < 500


def test_check_of_a_consortium(runs, tmp_path):
    config = runs / "data" / "consortium.yaml"
    text = config.read_text()
    whole = tmp_path / "consortium.yaml"
    for path in (runs / "data").glob("*.txt"):
        shutil.copy(path, tmp_path)
    lines = [line for line in text.splitlines() if not line.startswith(("studies", "  -", "- "))]
    studies = f"studies: [{runs / 'a' / 'bundle'}, {runs / 'b' / 'bundle'}]\n"
    whole.write_text(studies + "\n".join(lines) + "\n")
    checked = check_study(whole, None)
    assert [line for line in checked.lines if line.startswith("study ")]
    assert checked.record["studies"] == ["cohort_a", "cohort_b"]


def each(change):
    """Return a function of a list column's rows that changes every number."""
    return lambda rows: [[change(x) for x in row] for row in rows]


def swap_alleles(bundle):
    ref, alt = (pq.read_table(bundle / "variants.parquet").column(c).to_pylist() for c in ("ref", "alt"))
    change_column(bundle, "variants.parquet", "ref", lambda _: ["N" + x for x in alt])  # never equal to the other
    change_column(bundle, "variants.parquet", "alt", lambda _: ref)
    change_column(bundle, "variants.parquet", "ref", lambda _: alt)


def double_everything(bundle):
    """U and V of residuals half as variable as study.json says."""
    for name in ("U", "V"):
        change_column(bundle, "variants.parquet", name, each(lambda x: 2 * x))
    for name, factor in (("value", 2.0), ("B", 2**0.5), ("b", 2**0.5)):
        change_column(bundle, "genes/*.parquet", name, each(lambda x, factor=factor: factor * x))


def rename_trait(bundle):
    def change(info):
        info["traits"] = [{**t, "name": t["name"].upper()} for t in info["traits"]]
        info["covariances"] = [{**c, "traits": [x.upper() for x in c["traits"]]} for c in info["covariances"]]

    change_json(bundle, change)
    change_column(bundle, "replicates/*.parquet", "trait", lambda v: [x.upper() for x in v])


def correlate_above_one(bundle):
    for path in bundle.glob("genes/*.parquet"):
        table = pq.read_table(path).to_pylist()
        values = []
        for gene in table:
            entries = list(zip(gene["row"], gene["column"], gene["value"], strict=True))
            size = {i: x for i, j, x in entries if i == j}
            values.append([x if i == j else 3 * (size[i] * size[j]) ** 0.5 for i, j, x in entries])
        change_column(bundle, f"genes/{path.name}", "value", lambda _, values=values: values)


#: check -> what is done to a bundle
WRONG = {
    "genome-build": lambda b: change_json(b, lambda i: i.update(genome_build="GRCh37")),
    "x-coding": lambda b: change_json(b, lambda i: i.update(x_coding="0/1")),
    "sexes": lambda b: change_json(b, lambda i: i.update(male_heterozygotes=500, male_hemizygotes=20)),
    "traits": rename_trait,
    "sizes": lambda b: change_column(b, "variants.parquet", "U", each(lambda x: 100 * x)),
    "inflation": lambda b: change_column(b, "variants.parquet", "U", each(lambda x: 10 * x)),
    "scale": double_everything,
    "swapped-alleles": swap_alleles,
    "not-definite": correlate_above_one,
    "same-people": lambda b: None,
    "no-match": lambda b: change_column(b, "variants.parquet", "position", lambda v: [x + 10**6 for x in v]),
}


QUICK = ("same-people", "swapped-alleles", "sizes")


def test_every_check_that_can_be_allowed_is_tried():
    assert WRONG.keys() == set(NAMES)


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.ci) for n in WRONG])
def test_meta_stops_at_what_inspect_calls_an_error(runs, bundle, tmp_path, name):
    config = runs / "data" / "consortium.yaml"
    first = Path(shutil.copytree(runs / "a" / "bundle", tmp_path / "first"))
    change_json(first, lambda i: i.update(genome_build="GRCh38", x_coding="0/2"))
    if name == "same-people":
        shutil.rmtree(bundle)
        shutil.copytree(first, bundle)
        change_json(bundle, lambda i: i.update(study="twin"))
    WRONG[name](bundle)
    with pytest.raises(BundleError, match=f"--allow {name}") as error:
        run_meta_analysis(config, [first, bundle], tmp_path / "out", Resources(threads=1), "meta")
    assert str(error.value).isprintable()
    assert not list((tmp_path / "out").glob("*.parquet"))
    found = open_consortium(load_config(config, MetaConfig), config, [first, bundle], tmp_path)[2]
    named = {f.name for f in found if f.severity == "error"}
    refuse_errors(found, named)
    with pytest.raises(BundleError, match=f"--allow {name}"):
        refuse_errors(found, named - {name})


@pytest.mark.ci
def test_what_is_allowed_is_told_on_the_first_page_and_in_the_log(runs, tmp_path, caplog):
    twin = Path(shutil.copytree(runs / "a" / "bundle", tmp_path / "twin"))
    change_json(twin, lambda i: i.update(study="twin"))
    config, studies = runs / "data" / "consortium.yaml", [runs / "a" / "bundle", twin]
    done = run_meta_analysis(config, studies, tmp_path / "out", Resources(threads=1), allow=["same-people"])
    page = (done.path / "report.html").read_text()
    said = "Accepted by --allow same-people: cohort_a, twin: the same genotype counts"
    assert page.index('id="summary"') < page.index(said) < page.index("Strongest genes")
    assert "allowed by --allow same-people" in caplog.text
    (done.path / "inspection.json").write_text("[]")  # as of a run whose bundles are in order
    write_report(done.path)
    assert "--allow" not in (done.path / "report.html").read_text().partition('id="provenance"')[0]
