"""A bundle from somebody else: every attack and every damage is refused, and the refusal says why."""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from locomass.bundle import check as bundle_check
from locomass.bundle import tables as bundle_tables
from locomass.bundle.open import open_bundle, validate_bundle, verify_digests
from locomass.bundle.study import list_array
from locomass.bundle.write import sign_bundle, write_trait_bundle
from locomass.errors import BundleError
from tests.reference_exchange import make_toy
from tests.unit.test_exchange_bundle import arrays


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    path = tmp_path_factory.mktemp("original") / "bundle"
    traits = [arrays(make_toy(5)), arrays(make_toy(5), trait="z")]
    write_trait_bundle(path, traits, study="toy", genome_build="GRCh38")
    return path


@pytest.fixture
def bundle(original, tmp_path):
    """An unsigned copy, so that damage is found by what it is and not by its digest."""
    path = Path(shutil.copytree(original, tmp_path / "bundle"))
    (path / "digests.json").unlink()
    return path


def open_fully(path, scratch=None):
    opened = open_bundle(path, scratch)
    validate_bundle(opened)
    return opened


def refuse(path, match, scratch=None):
    with pytest.raises(BundleError, match=match):
        open_fully(path, scratch)


def edit_json(path, change):
    info = json.loads((path / "study.json").read_text())
    change(info)
    (path / "study.json").write_text(json.dumps(info))


def edit_table(path, name, change):
    file = path / name
    pq.write_table(change(pq.read_table(file)), file)


def set_cell(name, row, value):
    """Return a change that replaces one cell of a table."""

    def change(table):
        values = table.column(name).to_pylist()
        values[row] = value(values[row]) if callable(value) else value
        column = pa.array(values, table.schema.field(name).type)
        return table.set_column(table.column_names.index(name), name, column)

    return change


GENES = "genes/00000.parquet"


def test_open__accepts_what_was_written(original):
    assert open_fully(original).study == "toy"
    assert verify_digests(original)


# ---- study.json ----


def make_histogram(**changes):
    """A histogram of residuals with some keys changed."""
    return {"chromosome": "1", "edge": [0.0], "count": [150, 150], "skewness": 0.0, "kurtosis": 0.0} | changes


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda i: i.update(version=2), "version '2'; this program reads locomass-study-bundle version 1"),
        (lambda i: i.update(format="zip"), "format 'zip'"),
        (lambda i: i.pop("traits"), "traits"),
        (lambda i: i.update(study=""), "study"),
        (lambda i: i.update(study="a\nb"), "study"),
        (lambda i: i.update(study=["x"]), "study"),
        (lambda i: i["traits"][0].update(n_samples=10**15), "n_samples"),
        (lambda i: i["traits"][0].update(n_samples=-1), "n_samples"),
        (lambda i: i["traits"][0].update(n_samples=12), "12 samples and None cases, its sample set 300"),
        (lambda i: i["traits"][0].update(n_cases=301), "301 cases"),
        (lambda i: i["traits"][0].update(kind="count"), "kind"),
        (lambda i: i["traits"][0].update(sigma2={"all": 0.0}), "sigma2"),
        (lambda i: i["traits"][0].update(sigma2={"7": 1.0}), "no sigma2 for chromosome 1"),
        (
            lambda i: i["traits"][0].update(sigma2={"all": 2.0}),
            "V_jj of its variant 0 is .* but .* in variants.parquet",
        ),
        (lambda i: i["traits"][0].update(sample_set="s9"), "names a sample set or covariance that is not described"),
        (lambda i: i["traits"][0].update(predictor={"a": [{"b": [[1]]}]}), "predictor of trait 'y'"),
        (lambda i: i["traits"][0].update(predictor={"r2_promised": "x"}), "r2_promised"),
        (lambda i: i["traits"][0].update(predictor={"paths": [{"kept": True, "h2": ["x"], "p": []}]}), "h2"),
        (lambda i: i["traits"][0].update(predictor={"score_sd": {"1": -1.0}}), "score_sd"),
        (lambda i: i["traits"][0].update(predictor={"file": "a\x1b[2J"}), "control"),
        (lambda i: i["traits"][0].update(histogram=make_histogram(count=[150, 151])), "of the 300 samples"),
        (lambda i: i["traits"][0].update(histogram=make_histogram(edge=[1.0, 0.0])), "rising edges"),
        (lambda i: i["traits"][0].update(histogram=make_histogram(count=[300, 0])), "count"),
        (lambda i: i.update(messages=[1]), "messages"),
        (lambda i: i["traits"][1].update(name="y"), "trait 'y' is listed twice"),
        (lambda i: i["covariances"][0].update(traits=["q"]), "'quantitative:y' is not one of trait 'y'"),
        (lambda i: i["covariances"][0].update(traits=["y", "q"]), "lists 'q', which is no trait of it"),
        (
            lambda i: i["sample_sets"].append({"name": "s3", "n_samples": 5}),
            "list length of n_obs is 2 in row 0; expected 3",
        ),
    ],
)
def test_study_json__refused(change, match, bundle):
    edit_json(bundle, change)
    refuse(bundle, match)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("{", "not valid JSON"),
        ('{"format": NaN}', "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("[]", "format 'list'"),
        ("\xff", "not valid JSON|format"),
        ("", "not valid JSON"),
    ],
)
def test_study_json__is_no_study(text, match, bundle):
    (bundle / "study.json").write_text(text, encoding="latin-1")
    refuse(bundle, match)


def test_study_json__too_large(bundle, monkeypatch):
    monkeypatch.setattr(bundle_check, "MAX_JSON_BYTES", 100)
    refuse(bundle, "bytes; the most accepted is 100")


def test_study_json__infinite_sigma2(bundle):
    text = (bundle / "study.json").read_text().replace('"all": 1.0', '"all": 1e999', 1)
    (bundle / "study.json").write_text(text)
    refuse(bundle, "sigma2|not valid JSON")


# ---- variants.parquet ----


@pytest.mark.parametrize(
    ("name", "row", "value", "match"),
    [
        ("position", 3, -5, "position is -5 in row 3; expected 1 to"),
        ("position", 3, 10**15, "position is 1000000000000000"),
        ("chromosome", 0, "", "length of chromosome is 0"),
        ("alt", 0, "A" * 20_000, "length of alt is 20000"),
        ("alt", 0, None, "column 'alt' has 1 nulls"),
        ("position", 1, 1000, None),
        ("n_obs", 2, [1], "list length of n_obs is 1 in row 2; expected 2, one entry per sample set"),
        ("n_obs", 2, [10**6, 300], "n_obs is"),
        ("n_het", 2, [5000, 0], "genotype counts is"),
        ("n_het", 2, [-7, 0], "genotype counts is"),
        ("alt_frequency", 2, [1.5, 0.5], "alt_frequency is .* expected 0 to 1"),
        ("alt_frequency", 2, [float("nan"), 0.5], "alt_frequency is .* expected 0 to 1"),
        ("alt_frequency", 4, [0.9, 0.9], "expected what the genotype counts give"),
        ("U", 2, [float("nan"), 0.0], "U is .* expected finite numbers"),
        ("U", 2, [0.0], "list length of U is 1 in row 2; expected 2, one entry per trait"),
        ("V", 2, [float("inf"), 0.0], "V is .* expected finite numbers"),
        ("V", 2, [-1.0, 0.0], "V is .* not negative"),
        ("V", 2, [1e6, 0.0], "U is .* expected 0 where V is 0"),
        ("U", 2, None, "nulls"),
        ("U", 2, [None, 0.0], "nulls"),
    ],
)
def test_variants__refused(name, row, value, match, bundle):
    edit_table(bundle, "variants.parquet", set_cell(name, row, value))
    if match is None:  # the same position with the same alleles: a variant twice
        edit_table(bundle, "variants.parquet", set_cell("alt", 1, "G"))
        match = "a variant is listed twice"
    refuse(bundle, match)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda t: t.drop_columns(["U"]), "0 columns 'U', expected 1"),
        (
            lambda t: t.set_column(1, "position", pa.array(np.zeros(len(t)))),
            "column 'position' has type double, expected",
        ),
        (lambda t: t.append_column("U", t.column("U")), "2 columns 'U', expected 1"),
        (lambda t: t.slice(0, 5), "variant is .* expected 0 to 4"),
        (lambda t: t.slice(0, 0), "variant is"),
    ],
)
def test_variants__other_columns(change, match, bundle):
    edit_table(bundle, "variants.parquet", change)
    refuse(bundle, match)


@pytest.mark.parametrize("name", ["variants.parquet", GENES])
def test_parquet__truncated(name, bundle):
    data = (bundle / name).read_bytes()
    (bundle / name).write_bytes(data[: len(data) // 2])
    refuse(bundle, "is damaged or cut short")


@pytest.mark.parametrize("name", ["variants.parquet", GENES])
def test_parquet__bytes_overwritten(name, bundle):
    data = bytearray((bundle / name).read_bytes())
    data[8:60] = b"\xff" * 52
    (bundle / name).write_bytes(bytes(data))
    refuse(bundle, "is damaged|expected|type|differs|nulls")


def test_parquet__text_instead(bundle):
    (bundle / "variants.parquet").write_text("chromosome\tposition\n")
    refuse(bundle, "is damaged or cut short")


def test_parquet__a_small_file_that_asks_for_much_memory(bundle):
    """A column of 40 million texts is a third of a megabyte on disk."""
    n = 40_000_000
    table = pa.table({"note": pa.DictionaryArray.from_arrays(pa.array(np.zeros(n, np.int8)), pa.array(["x" * 50]))})
    path = bundle / "genes" / "00001.parquet"
    pq.write_table(table, path, compression="zstd")
    assert path.stat().st_size < 1_000_000
    refuse(bundle, "40,000,000 rows; the most accepted is 5,000,000")


def test_parquet__bomb_in_a_list(bundle, monkeypatch):
    """One row whose list is long: rows are few, the metadata tell the values."""
    monkeypatch.setattr(bundle_tables, "MAX_DECODED_BYTES", 10_000_000)
    table = pq.read_table(bundle / GENES)
    long = list_array([np.zeros(2_000_000), *[np.empty(0)] * (len(table) - 1)], pa.float64())
    table = table.set_column(table.column_names.index("B"), "B", long)
    pq.write_table(table, bundle / GENES, compression="zstd")
    assert (bundle / GENES).stat().st_size < 200_000
    refuse(bundle, r"that would take 1[6-9],\d+,\d+ in memory")


def test_parquet__a_long_text_repeated_in_every_row(bundle):
    """Two million rows share one text of 5 kB: the file is small, the texts written out would take 10 GB."""
    table = pq.read_table(bundle / GENES)
    n = 300_000
    rows = table.take(pa.array(np.zeros(n, np.int8)))
    note = pa.DictionaryArray.from_arrays(pa.array(np.zeros(n, np.int8)), pa.array(["x" * 5_000]))
    empty = pa.ListArray.from_arrays(pa.array(np.zeros(n + 1, np.int32)), pa.array([], pa.int32()))
    columns = {name: rows.column(name) for name in ("gene", "chromosome", "start", "end", "covariance")}
    for name in ("variant", "row", "column", "value", "B", "b"):
        columns[name] = empty.cast(table.schema.field(name).type)
    bomb = pa.table(columns | {"note": note.cast(pa.dictionary(pa.int32(), pa.string()))})
    path = bundle / "genes" / "00001.parquet"
    pq.write_table(bomb, path, compression="zstd", store_schema=False)
    assert path.stat().st_size < 1_000_000
    refuse(bundle, "column 'note' would take 1,500,000,000 in memory")


def test_parquet__one_text_without_end(bundle):
    edit_table(bundle, GENES, set_cell("note", 0, "x" * 100_000))
    refuse(bundle, "column 'note' has a text of 100,000 bytes")


def test_parquet__more_rows_declared_than_there_are(bundle, monkeypatch):
    """The footer is what sizes are judged by: a limit on rows holds before a page is read."""
    monkeypatch.setattr(bundle_tables, "MAX_VARIANTS", 10)
    refuse(bundle, "24 rows; the most accepted is 10")


def test_parquet__python_objects_in_a_column_are_no_numbers(bundle):
    """Pickled objects can only come as bytes; a column of bytes has the wrong type and is not looked into."""
    table = pq.read_table(bundle / "variants.parquet")
    evil = pa.array([b"\x80\x04c__builtin__\neval\n"] * len(table), pa.binary())
    table = table.set_column(table.column_names.index("U"), "U", evil)
    pq.write_table(table, bundle / "variants.parquet")
    refuse(bundle, "column 'U' has type binary, expected list")


def test_parquet__pandas_metadata_is_not_followed(bundle):
    table = pq.read_table(bundle / "variants.parquet")
    pandas = json.dumps({"index_columns": ["alt"], "columns": [], "column_indexes": [], "creator": {}})
    pq.write_table(table.replace_schema_metadata({"pandas": pandas}), bundle / "variants.parquet")
    assert open_fully(bundle).variants.column_names[:4] == ["chromosome", "position", "ref", "alt"]


@pytest.mark.parametrize("rows", [1, 5, 24, 1000])
def test_variants__row_groups_do_not_matter(rows, bundle, original):
    """Read by groups of any size, damage in a later group is found, and named by its row in the file."""
    table = pq.read_table(bundle / "variants.parquet")
    pq.write_table(table, bundle / "variants.parquet", row_group_size=rows)
    one, other = open_fully(bundle).read_genes(["ONE", "TWO"]), open_fully(original).read_genes(["ONE", "TWO"])
    for gene in one:
        np.testing.assert_array_equal(one[gene].position, other[gene].position)
        np.testing.assert_array_equal(one[gene].U, other[gene].U)
    table = set_cell("U", 20, [float("nan"), 0.0])(table)
    pq.write_table(table, bundle / "variants.parquet", row_group_size=rows)
    refuse(bundle, "U is .* in row 20; expected finite numbers")


def test_variants__twice_in_different_row_groups(bundle):
    table = pq.read_table(bundle / "variants.parquet")
    pq.write_table(pa.concat_tables([table, table.slice(0, 1)]), bundle / "variants.parquet", row_group_size=4)
    refuse(bundle, "a variant is listed twice")


# ---- genes ----


@pytest.mark.parametrize(
    ("name", "value", "match"),
    [
        ("variant", lambda v: [*v[:-1], 10**6], "variant is 1000000 in row .*; expected 0 to 23"),
        ("variant", lambda v: [*v[:-1], -1], "variant is -1"),
        ("variant", lambda v: [*v[:-1], v[0]], "lists a variant twice"),
        ("variant", lambda v: [*v[:-1], 20], "a variant of another chromosome"),
        ("row", lambda v: [*v[:-1], 99], "row is 99 .* expected 0 to m - 1"),
        ("row", lambda v: v[:-1], "lengths of row, column and value"),
        ("column", lambda v: [5, *v[1:]], "column is 5 .* expected 0 to its row"),
        ("column", lambda v: [-1, *v[1:]], "column is -1"),
        ("row", lambda v: [v[1], *v[1:]], "an entry .row, column. of a gene is listed twice"),
        ("value", lambda v: [float("nan"), *v[1:]], "value is nan .* expected finite"),
        ("value", lambda v: [*v[:-1], float("inf")], "value is inf"),
        ("value", lambda v: [2 * v[0], *v[1:]], "gene 'ONE', trait 'y': V_jj of its variant 0"),
        ("B", lambda v: [0.5], "length of B is 1 in row 0; expected a multiple of m"),
        ("B", lambda v: [1e3] * 8, "V_jj of its variant 0 is -"),
        ("b", lambda v: [0.5] * 9, "length of b is 9"),
        ("b", lambda v: [float("nan")] * 8, "b is nan"),
        ("covariance", "other", "covariance is other in row 0; expected one of"),
        ("gene", "", "a gene name is empty"),
        ("gene", "TWO", "a gene is listed twice"),
        ("chromosome", "2", "a variant of another chromosome"),
        ("note", None, "nulls"),
    ],
)
def test_genes__refused(name, value, match, bundle):
    edit_table(bundle, GENES, set_cell(name, 0, value))
    refuse(bundle, match)


def test_genes__other_variants_for_another_covariance(bundle):
    def change(table):
        for name in ("variant", "row", "column", "value"):
            table = set_cell(name, 1, [])(table)
        return table

    edit_table(bundle, GENES, change)
    refuse(bundle, "gene 'ONE' lists different variants for different covariances")


def test_genes__a_gene_in_two_files(bundle):
    shutil.copy(bundle / GENES, bundle / "genes" / "00001.parquet")
    refuse(bundle, "is in genes/00000.parquet and in genes/00001.parquet")
    with pytest.raises(BundleError, match=r"gene 'ONE' stands in genes/00000.parquet and in genes/00001.parquet"):
        open_bundle(bundle).read_genes(["ONE"])


# ---- files ----


@pytest.mark.parametrize("name", ["study.json", "variants.parquet", GENES])
def test_files__a_link_is_refused(name, bundle, tmp_path):
    (bundle / name).rename(tmp_path / "elsewhere")
    (bundle / name).symlink_to(tmp_path / "elsewhere")
    refuse(bundle, "is a link; a bundle holds ordinary files only")


def test_files__genes_is_a_link(bundle, tmp_path):
    (bundle / "genes").rename(tmp_path / "elsewhere")
    (bundle / "genes").symlink_to(tmp_path / "elsewhere")
    refuse(bundle, "genes is no ordinary folder")


@pytest.mark.parametrize("linked", ["bundle", "parent", "file"])
def test_files__a_link_to_the_bundle_is_followed_once(linked, bundle, tmp_path):
    """What was checked is what is read, also when the link is turned to another place afterwards."""
    link = tmp_path / "latest"
    link.symlink_to({"bundle": bundle, "parent": bundle.parent, "file": pack(bundle, tmp_path / "packed.tar")}[linked])
    opened = open_bundle(link / bundle.name if linked == "parent" else link, tmp_path / "scratch")
    link.unlink()
    link.symlink_to(tmp_path / "nowhere")
    assert np.array_equal(opened.read_genes(["ONE"])["ONE"].U, open_bundle(bundle).read_genes(["ONE"])["ONE"].U)
    if linked != "file":
        assert opened.path == bundle.resolve()


def test_files__a_link_to_nothing_or_to_itself(tmp_path):
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name in ("gone", "loop"):
        with pytest.raises(BundleError, match=f"{name}: no such bundle"):
            open_bundle(tmp_path / name)


@pytest.mark.parametrize("name", ["study.json", "variants.parquet"])
def test_files__missing(name, bundle):
    (bundle / name).unlink()
    refuse(bundle, f"{name} cannot be read: No such file")


def test_files__a_pipe_is_not_waited_for(bundle):
    (bundle / "study.json").unlink()
    os.mkfifo(bundle / "study.json")
    refuse(bundle, "is no ordinary file")


def test_files__no_folder(tmp_path):
    refuse(tmp_path / "absent", "no such bundle")


# ---- digests ----


def test_digests__a_changed_file(original, tmp_path):
    path = Path(shutil.copytree(original, tmp_path / "b"))
    edit_table(path, GENES, lambda t: t.take(list(range(len(t)))[::-1]))
    refuse(path, "00000.parquet differs from its digest")
    sign_bundle(path)
    open_fully(path)


def test_digests__an_added_and_a_removed_file(original, tmp_path):
    path = Path(shutil.copytree(original, tmp_path / "b"))
    shutil.copy(path / GENES, path / "genes" / "zz.parquet")
    refuse(path, "genes/zz.parquet is not among the signed files")
    (path / "genes" / "zz.parquet").unlink()
    (path / GENES).unlink()
    refuse(path, "00000.parquet is signed but absent")


@pytest.mark.parametrize(
    ("text", "match"), [("{", "not valid JSON"), ("[1]", "expected file names"), ('{"a": 3}', "expected file")]
)
def test_digests__malformed(text, match, bundle):
    (bundle / "digests.json").write_text(text)
    refuse(bundle, match)


# ---- tar ----


def pack(path, target, prefix="bundle/"):
    with tarfile.open(target, "w") as tar:
        for file in sorted(path.rglob("*")):
            if file.is_file():
                tar.add(file, prefix + str(file.relative_to(path)))
    return target


@pytest.fixture
def scratch(tmp_path):
    folder = tmp_path / "outer" / "scratch"
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize("prefix", ["", "./", "bundle/", "./study_1/"])
def test_tar__opens(prefix, original, tmp_path, scratch):
    opened = open_fully(pack(original, tmp_path / "s.tar", prefix), scratch)
    assert opened.path.parent == scratch
    assert verify_digests(opened.path)


def test_tar__needs_a_folder(original, tmp_path):
    refuse(pack(original, tmp_path / "s.tar"), "unpack it first")


def evil(name, kind=tarfile.REGTYPE, link="", data=b"x"):
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.size = kind, link, len(data) if kind == tarfile.REGTYPE else 0
    return member, data


@pytest.mark.parametrize(
    ("member", "match"),
    [
        (evil("../evil.json"), "would be written outside"),
        (evil("bundle/../../evil.json"), "would be written outside"),
        (evil("/tmp/evil.json"), "would be written outside"),
        (evil("bundle/genes/..\\evil.parquet"), "would be written outside"),
        (evil("bundle/genes/a.parquet", tarfile.SYMTYPE, "/etc/passwd"), "is a link to '/etc/passwd'"),
        (evil("bundle/genes/a.parquet", tarfile.LNKTYPE, "../../x"), "is a link to"),
        (evil("bundle/genes", tarfile.SYMTYPE, "/tmp"), "is a link to '/tmp'"),
        (evil("bundle/genes/a.parquet", tarfile.FIFOTYPE), "is no ordinary file"),
        (evil("bundle/genes/a.parquet", tarfile.CHRTYPE), "is no ordinary file"),
        (evil("bundle/run.sh"), "is no file of a bundle"),
        (evil("bundle/genes/deep/a.parquet"), "is no file of a bundle"),
        (evil("bundle/study.json"), "is listed twice"),
        (evil("bundle/genes/00000.PARQUET"), "is no file of a bundle"),
        (evil("bundle/genes/A.parquet"), "is listed twice .capitals aside."),
        (evil("bundle/genes/a.parquet", tarfile.BLKTYPE), "is no ordinary file"),
        (evil("bundle/genes/\u202ea.parquet"), "is no file of a bundle"),
        (evil("bundle/inner.tar"), "is no file of a bundle"),
        (evil("other/study.json"), "is listed twice .capitals aside., or in two folders"),
    ],
)
def test_tar__attack(member, match, original, tmp_path, scratch):
    path = pack(original, tmp_path / "s.tar")
    with tarfile.open(path, "a") as tar:
        tar.addfile(*(part if k == 0 else io.BytesIO(part) for k, part in enumerate(evil("bundle/genes/a.parquet"))))
        tar.addfile(member[0], io.BytesIO(member[1]))
    before = sorted(p for p in tmp_path.rglob("*"))
    refuse(path, match, scratch)
    assert sorted(p for p in tmp_path.rglob("*")) == before


def test_tar__compressed(original, tmp_path, scratch):
    path = tmp_path / "s.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        tar.add(original, "bundle")
    refuse(path, "no plain tar, or is damaged", scratch)


def test_tar__cut_short(original, tmp_path, scratch):
    path = pack(original, tmp_path / "s.tar")
    path.write_bytes(path.read_bytes()[:4000])
    refuse(path, "cut short|is damaged|no study.json", scratch)
    assert not any(scratch.iterdir())


def test_tar__no_bundle_in_it(tmp_path, scratch):
    path = tmp_path / "s.tar"
    with tarfile.open(path, "w"):
        pass
    refuse(path, "no study.json in it", scratch)


def test_tar__size_in_the_header_is_checked_before_anything_is_written(tmp_path, scratch):
    member = tarfile.TarInfo("bundle/variants.parquet")
    member.size = 1 << 45
    (tmp_path / "s.tar").write_bytes(member.tobuf() + b"\0" * 10_240)
    refuse(tmp_path / "s.tar", "is more than may be unpacked", scratch)
    assert not any(scratch.iterdir())


def test_tar__sparse_member(tmp_path, scratch):
    member = tarfile.TarInfo("bundle/variants.parquet")
    member.type = tarfile.GNUTYPE_SPARSE
    (tmp_path / "s.tar").write_bytes(member.tobuf(tarfile.GNU_FORMAT) + b"\0" * 10_240)
    refuse(tmp_path / "s.tar", "is no ordinary file|is damaged", scratch)
