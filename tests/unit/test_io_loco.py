"""REGENIE .loco and pred.list files: against a reading with str.split and float."""

import gzip
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from locomass.errors import FormatError, MatchError
from locomass.people import match_labels
from locomass.tables.loco import (
    read_loco,
    read_prediction_list,
    write_loco,
    write_prediction_list,
)

GOLDEN = Path("/work/shared/golden")
needs_golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason="shared golden folder is absent")


@pytest.fixture
def write(tmp_path):
    def _write(text, name="fit_1.loco"):
        path = tmp_path / name
        path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
        return path

    return _write


def labels(*words):
    return np.array(words, dtype=str)


@pytest.mark.parametrize("name", ["fit_1.loco", "fit_1.loco.gz"])
@pytest.mark.parametrize("separator", [" ", "\t", "  "])
def test_read_loco__keeps_labels_with_underscores(write, name, separator):
    lines = [["FID_IID", "A_B_1", "A_B_2"], ["chrX", "0.5", "NA"], ["2", "-1e-3", "7"]]
    loco = read_loco(write("\n".join(separator.join(line) for line in lines) + "\n", name))
    assert loco.dims == ("chromosome", "sample")
    assert loco["sample"].values.tolist() == ["A_B_1", "A_B_2"]
    assert loco["chromosome"].values.tolist() == ["23", "2"]
    np.testing.assert_array_equal(loco.sel(chromosome="23"), [0.5, np.nan])
    np.testing.assert_array_equal(loco.sel(chromosome="2"), [-1e-3, 7])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("FID IID 1_1\n1 2\n", r"line 1: expected a header that starts with FID_IID, got 'FID'"),
        ("", r"line 1: expected a header that starts with FID_IID, got ''"),
        ("FID_IID\n1\n", r"line 1: names no samples"),
        ("FID_IID 1_1\n", r"has a header but no chromosome"),
        ("FID_IID 1_1 2_2 1_1\n1 1 2 3\n", r"line 1: sample '1_1' is in columns 2 and 4"),
        ("FID_IID 1_1 2_2\n1 1 2\n\nchr1 1 2\n", r"chromosome 1 is on lines 2 and 4"),
        ("FID_IID 1_1 2_2\n1 1 2\n2 1\n", r"line 3: expected 3 fields \(chromosome and 2 samples\), found 2"),
        ("FID_IID 1_1 2_2\n1 1 2 3\n", r"line 2: expected 3 fields \(chromosome and 2 samples\), found 4"),
        ("FID_IID 1_1 2_2\n1\n", r"line 2: expected 3 fields \(chromosome and 2 samples\), found 1"),
        ("FID_IID 1_1 2_2\n1 1 x\n", r"line 2, column 3: expected a number or NA for sample '2_2', got 'x'"),
        (
            "FID_IID 1_1 2_2\n1 1 2\n2 NAN? 2\n",
            r"line 3, column 2: expected a number or NA for sample '1_1', got 'NAN\?'",
        ),
        ("FID_IID 1_1 2_2\n1 inf 2\n", r"line 2, column 2: expected a number or NA for sample '1_1', got 'inf'"),
        ("FID_IID 1_1 2_2\n1 1_0 2\n", r"line 2, column 2: expected a number or NA for sample '1_1', got '1_0'"),
    ],
)
def test_read_loco__raises_on_malformed(write, text, message):
    with pytest.raises(FormatError, match=message):
        read_loco(write(text))


def test_read_loco__raises_on_truncated_gzip(tmp_path):
    whole = gzip.compress(b"FID_IID " + b" ".join(b"%d_%d" % (i, i) for i in range(999)))
    (tmp_path / "x.loco.gz").write_bytes(whole[:-20])
    with pytest.raises(FormatError, match="gzip file is damaged or cut short"):
        read_loco(tmp_path / "x.loco.gz")


@pytest.mark.parametrize("name", ["a.loco", "sub/b.loco"])
def test_write_loco__round_trip_to_1e_9(tmp_path, name):
    rng = np.random.default_rng(3)
    values = rng.normal(size=(3, 50)) * 10.0 ** rng.integers(-12, 12, (3, 50))
    values[1, ::7] = np.nan
    values[2, 0] = 0.0
    coords = {"sample": [f"F_{i}_I" for i in range(50)], "chromosome": ["1", "22", "23"]}
    prediction = xr.DataArray(values.T, dims=("sample", "chromosome"), coords=coords)
    write_loco(tmp_path / name, prediction)
    back = read_loco(tmp_path / name)
    # ten significant digits: relative error at most 5e-10
    xr.testing.assert_allclose(back, prediction.transpose("chromosome", "sample"), rtol=5.01e-10, atol=0)
    np.testing.assert_array_equal(np.isnan(back.values), np.isnan(values))
    assert "nan" not in (tmp_path / name).read_text()


def test_write_loco__leaves_the_old_file_when_it_fails(tmp_path):
    path = tmp_path / "a.loco"
    path.write_text("old")
    coords = {"chromosome": ["1"], "sample": ["\ud800"]}  # a lone surrogate has no UTF-8 form
    with pytest.raises(UnicodeEncodeError, match="surrogates not allowed"):
        write_loco(path, xr.DataArray(np.zeros((1, 1)), dims=("chromosome", "sample"), coords=coords))
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.loco"]


def test_write_loco__raises_without_labels(tmp_path):
    with pytest.raises(ValueError, match="needs the labels of its chromosomes and samples"):
        write_loco(tmp_path / "a.loco", xr.DataArray(np.zeros((1, 1)), dims=("chromosome", "sample")))


def test_prediction_list__round_trip_and_relative_paths(tmp_path):
    (tmp_path / "fit 1.loco").write_text("")
    write_prediction_list(tmp_path / "fit_pred.list", {"Y1": tmp_path / "fit 1.loco"})
    assert read_prediction_list(tmp_path / "fit_pred.list") == {"Y1": tmp_path / "fit 1.loco"}
    (tmp_path / "other.list").write_text("Y2 fit 1.loco\n")
    assert read_prediction_list(tmp_path / "other.list") == {"Y2": tmp_path / "fit 1.loco"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Y1\n", r"line 1: expected a trait and a .loco file, got 'Y1'"),
        ("Y1 a.loco\nY1 a.loco\n", r"line 2: trait 'Y1' is listed twice"),
        ("Y1 a.loco\nY2 nowhere.loco\n", r"line 2: no such file for trait 'Y2': .*nowhere.loco"),
        ("\n", r"names no .loco file"),
    ],
)
def test_read_prediction_list__raises_on_malformed(write, text, message):
    write("", "a.loco")
    with pytest.raises(FormatError, match=message):
        read_prediction_list(write(text, "pred.list"))


@pytest.mark.parametrize(
    ("in_file", "fid", "iid", "expected"),
    [
        (("F_1_I_1", "F_2_I_2"), labels("F_2", "F_1", "F_3"), labels("I_2", "I_1", "I_3"), [1, 0, -1]),
        (("A_A", "B_B"), labels("0", "0"), labels("B", "A"), [1, 0]),
        (("0_A", "0_B"), labels("A", "B"), labels("A", "B"), [0, 1]),
        (("0_A", "0_B"), None, labels("B", "C"), [1, -1]),
        (("A", "B"), labels("F", "F"), labels("B", "A"), [1, 0]),
        (("A_A", "B_B"), None, labels("B"), [1]),
        # splitting at "_" would pair F_1 + I with F + 1_I: they are the same label, but only FID_IID as a whole counts
        (("F_1_I",), labels("F", "F_2"), labels("1_I", "I"), [0, -1]),
    ],
)
def test_match_labels__one_rule_for_the_file(in_file, fid, iid, expected):
    assert match_labels(labels(*in_file), fid, iid).tolist() == expected


def test_match_labels__raises_without_overlap():
    with pytest.raises(MatchError, match=r"no sample of the .loco file \(first: 'A_A'\) .* \(first: 'F_B'\)"):
        match_labels(labels("A_A"), labels("F"), labels("B"))


@needs_golden
@pytest.mark.parametrize("cohort", ["cohort_a", "cohort_b"])
def test_read_loco__golden_equals_plain_reading(cohort):
    path = GOLDEN / f"{cohort}.loco"
    header, *rows = [line.split() for line in path.read_text().splitlines()]
    loco = read_loco(path)
    assert loco["sample"].values.tolist() == header[1:]
    assert loco["chromosome"].values.tolist() == [row[0] for row in rows]
    expected = [[np.nan if field == "NA" else float(field) for field in row[1:]] for row in rows]
    np.testing.assert_array_equal(loco.values, expected)
