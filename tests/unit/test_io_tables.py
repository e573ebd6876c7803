"""Sample tables, and the delimited text underneath them."""

import gzip
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from locomass.errors import FormatError, MatchError
from locomass.files.arrow import decode_strings
from locomass.tables.delimited import DelimitedFile, parse_numbers
from locomass.tables.samples import read_column_names, read_sample_list, read_table, select_columns
from locomass.variants.chromosomes import normalise_chromosome, normalise_chromosomes

DATA = Path("/work/shared/data")
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="shared data folder is absent")


@pytest.fixture
def write(tmp_path):
    def _write(text, name="table.txt"):
        path = tmp_path / name
        data = text if isinstance(text, bytes) else text.encode()
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return path

    return _write


ROWS = [("F1", "A", "1.5", "0", "red"), ("F2", "B", "NA", "1.0", "NA"), ("F2", "C", "-2e-3", "NA", "blue")]


@pytest.mark.parametrize("separator", ["\t", " ", "   ", " \t "])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("name", ["table.txt", "table.gz"])
def test_read_table__same_in_every_dialect(write, separator, end, name):
    lines = [separator.join(row) for row in [("FID", "IID", "y", "cc", "site"), *ROWS]]
    table = read_table(write(end.join(lines) + end, name), quantitative=["y"], binary=["cc"], categorical=["site"])
    assert table.fid.tolist() == ["F1", "F2", "F2"]
    assert table.iid.tolist() == ["A", "B", "C"]
    np.testing.assert_array_equal(table.columns["y"], [1.5, np.nan, -0.002])
    np.testing.assert_array_equal(table.columns["cc"], [0, 1, np.nan])
    assert table.columns["site"].tolist() == ["red", "", "blue"]
    assert len(table) == 3


def test_read_table__reads_iid_only_and_plink2_header(write):
    table = read_table(write("#IID\ty\nA\t1\nB\t2"), quantitative=["y"])
    assert table.fid is None
    assert table.iid.tolist() == ["A", "B"]


def test_read_table__keeps_a_tab_files_empty_cells_and_blanks_in_text(write):
    table = read_table(
        write("FID\tIID\ty\tsite\n1\tA\t\tnew york\n2\tB\t3\t\n"), quantitative=["y"], categorical=["site"]
    )
    np.testing.assert_array_equal(table.columns["y"], [np.nan, 3])
    assert table.columns["site"].tolist() == ["new york", ""]


@pytest.mark.parametrize("text", ["NA", "NaN", "nan", "."])
def test_read_table__knows_missing_values(write, text):
    assert np.isnan(read_table(write(f"IID y\nA {text}\nB 1\n"), quantitative=["y"]).columns["y"][0])


def test_read_table__minus_nine_is_a_number_unless_told(write):
    path = write("IID y\nA -9\nB 1\n")
    assert read_table(path, quantitative=["y"]).columns["y"][0] == -9
    assert np.isnan(read_table(path, quantitative=["y"], missing_codes=["-9"]).columns["y"][0])


def test_read_table__binary_coding_12(write):
    path = write("IID cc\nA 1\nB 2\nC 2.0\nD NA\n")
    cc = read_table(path, binary=["cc"], binary_coding="12").columns["cc"]
    np.testing.assert_array_equal(cc, [0, 1, 1, np.nan])
    with pytest.raises(
        FormatError, match=r"line 3, column cc: expected 0, 1 or NA, got '2'; if 1 = control and 2 = case"
    ):
        read_table(path, binary=["cc"])


def test_read_table__raises_on_third_binary_value(write):
    with pytest.raises(FormatError, match=r"line 4, column cc: expected 0, 1 or NA, got '3'$"):
        read_table(write("IID cc\nA 0\nB 1\nC 3\n"), binary=["cc"])


def test_read_table__raises_on_text_naming_line_and_column(write):
    path = write("FID IID age y\n1 A 3 1\n\n2 B 4 2\n3 C old 3\n")
    with pytest.raises(FormatError, match=r"table.txt, line 5, column age: expected a number, got 'old'; write NA"):
        read_table(path, quantitative=["age", "y"])
    assert read_table(path, quantitative=["y"]).columns["y"].tolist() == [1, 2, 3]


@pytest.mark.parametrize("value", ["inf", "1e999", "1_0", "0x10", "1,5"])
def test_read_table__raises_on_what_python_would_accept(write, value):
    with pytest.raises(FormatError, match=f"line 3, column y: expected a number, got '{value}'"):
        read_table(write(f"IID y\nA 1\nB {value}\n"), quantitative=["y"])


def test_read_table__raises_on_duplicate_samples(write):
    with pytest.raises(FormatError, match=r"sample '1 A' is on lines 2 and 5; keep one"):
        read_table(write("FID IID y\n1 A 1\n2 A 1\n\n1 A 2\n"), quantitative=["y"])
    with pytest.raises(FormatError, match=r"sample 'A' is on lines 2 and 3"):
        read_table(write("IID y\nA 1\nA 1\n"), quantitative=["y"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id y\nA 1\n", r"line 1: expected a header that starts with 'FID IID' or 'IID', got 'id y'"),
        ("FID y\nA 1\n", "starts with 'FID IID' or 'IID', got 'FID y'"),
        ("", "is empty; expected a table"),
        ("IID y\n", "has a header but no samples"),
        ("IID y\nA 1\nB\n", "line 3: expected 2 fields, found 1"),
        ("IID y\nA 1\nB 1 2\n", "line 3: expected 2 fields, found 3"),
        ("IID\ty\nA\t1\n\t1\n", "line 3: sample without an IID"),
        ("IID y y\nA 1 1\n", r"line 1, column 3: column name 'y' is repeated"),
        ("A A 1\nB B 2\n", r"line 1, column 2: .* is the header line missing, such as `FID IID trait`"),
        ('"IID" "y"\n"A" 1\n', r"quoted; write the file without quotes"),
        (b"IID y\nA 1\nB \xff\n", "line 3: is not UTF-8 text"),
        (b"IID y\nA \x001\n", "is a binary file; expected text"),
        (b"\x28\xb5\x2f\xfd....", "is compressed with zstd"),
        (gzip.compress(b"IID y\n" + b"A 1\n" * 999, mtime=0)[:-9], "gzip file is damaged or cut short"),
    ],
)
def test_read_table__raises_on_malformed_file(write, text, message):
    with pytest.raises(FormatError, match=message):
        read_table(write(text), quantitative=["y"])


def test_read_table__raises_on_absent_file(tmp_path):
    with pytest.raises(FormatError, match=r"nothing.txt: cannot be read \(No such file or directory\)"):
        read_table(tmp_path / "nothing.txt")


def test_read_table__raises_on_absent_column(write):
    path = write("IID height weight\nA 1 2\n")
    with pytest.raises(
        MatchError, match=r"quantitative column of table.txt 'hieght' matches no column; did you mean 'height'"
    ):
        read_table(path, quantitative=["hieght"])
    with pytest.raises(MatchError, match=r"'ENSG\*' matches no column; known: height, weight"):
        read_table(path, quantitative=["ENSG*"])


def test_read_table__name_wins_over_pattern(write):
    path = write("IID a b c\nA 1 2 x\n")
    table = read_table(path, quantitative=["*"], categorical=["c"])
    assert list(table.columns) == ["a", "b", "c"]
    assert table.columns["c"].tolist() == ["x"]
    with pytest.raises(MatchError, match=r"column 'a' of table.txt is listed both as quantitative and as binary"):
        read_table(path, quantitative=["a"], binary=["a"])
    assert read_column_names(path) == ["a", "b", "c"]


def test_select_columns__expands_in_file_order():
    assert select_columns(["b2", "a", "b1"], ["b?", "a", "b1"], "column") == ["b2", "a", "b1"]
    with pytest.raises(MatchError, match="column 'smokr' matches no column; did you mean 'smoker'"):
        select_columns(["smoker", "age"], ["smokr"], "column")


@pytest.mark.parametrize(
    ("text", "fid", "iid"),
    [
        ("1 A\n2 B\n1 A\n", ["1", "2"], ["A", "B"]),
        ("A\nB\n", None, ["A", "B"]),
        ("#FID\tIID\n1\tA\n", ["1"], ["A"]),
        ("1\tA\textra\n2\tB\tmore\n", ["1", "2"], ["A", "B"]),
        ("\ufeff1 A\n", ["1"], ["A"]),
    ],
)
def test_read_sample_list__accepts_the_usual_shapes(write, text, fid, iid):
    table = read_sample_list(write(text))
    assert (None if table.fid is None else table.fid.tolist()) == fid
    assert table.iid.tolist() == iid


def test_read_sample_list__raises_on_mixed_widths(write):
    with pytest.raises(FormatError, match="line 2: expected 2 fields, found 1"):
        read_sample_list(write("1 A\nB\n"))


def test_normalise_chromosome__maps_every_spelling():
    labels = ["chr1", "01", "X", "chrX", "Y", "XY", "PAR1", "MT", "chrM", "23", "GL000192.1", "22", "CHR7", "0"]
    expected = ["1", "1", "23", "23", "24", "25", "25", "26", "26", "23", "GL000192.1", "22", "7", "0"]
    assert [normalise_chromosome(label) for label in labels] == expected
    assert normalise_chromosomes(labels).tolist() == expected
    assert normalise_chromosomes([]).tolist() == []


def test_blocks__small_blocks_equal_one_block(write):
    rows = [f"{i} {'x' * (i % 13)}{i}" for i in range(400)]
    text = "##preamble\n#a b\n" + "\n".join(row + ("\n" if i % 7 == 0 else "") for i, row in enumerate(rows))
    file = DelimitedFile(write(text))
    whole = file.table()
    lines = text.split("\n")
    assert [lines[n - 1] for n in whole.lines()] == rows
    parts = list(file.blocks(size=64))
    assert len(parts) > 50
    assert np.concatenate([p.lines() for p in parts]).tolist() == whole.lines().tolist()
    assert [word for p in parts for word in p.table["b"].to_pylist()] == whole.table["b"].to_pylist()
    assert file.preamble == ["##preamble"]


def test_blocks__lists_ragged_lines(write):
    file = DelimitedFile(write("a b\n1 2\n3\n\n4 5\n6 7 8\n"))
    (block,) = file.blocks(skip_ragged=True)
    assert block.ragged == [3, 6]
    assert block.lines().tolist() == [2, 5]
    assert block.table["a"].to_pylist() == ["1", "4"]


def test_blocks__a_field_longer_than_the_block(write):
    long = "A" * 300_000
    file = DelimitedFile(write(f"a b\n1 {long}\n2 C\n"))
    assert [word for block in file.blocks(size=1000) for word in block.table["b"].to_pylist()] == [long, "C"]


def test_parse_numbers__agrees_with_python():
    texts = ["1", "+2", "-3.5e-7", " 4 ", ".5", "5.", "NA", "x", "1e-400", "--1", "4.9e-324", "0.1234567890123456789"]
    values, bad = parse_numbers(pa.array(texts))
    assert bad.tolist() == [7, 9]
    expected = [float(t) if i not in (6, 7, 9) else np.nan for i, t in enumerate(texts)]
    np.testing.assert_array_equal(values, expected)


def test_decode_strings__shares_equal_texts():
    words = decode_strings(pa.chunked_array([["a", "b"], ["a", "c"], []], pa.string()))
    assert words.tolist() == ["a", "b", "a", "c"]
    assert words[0] is words[2]


@needs_data
def test_read_table__real_expression_table():
    table = read_table(DATA / "geuvadis_chr22_exons/expression.tsv", quantitative=["ENSG*"])
    assert len(table.columns) == 344
    assert len(table) == 358
    assert table.fid is None
    assert table.columns["ENSG00000177663"][0] == 0.5076029184


@needs_data
def test_read_table__real_cohort_tables():
    folder = DATA / "kg_chr22_five_cohorts"
    pheno = read_table(folder / "pheno.tsv", quantitative=["*_qt"], binary=["*_bin"])
    assert set(np.unique(pheno.columns["rand_bin"][~np.isnan(pheno.columns["rand_bin"])])) == {0.0, 1.0}
    covar = read_table(folder / "covar.tsv", categorical=["sex", "super_pop"])
    keep = read_sample_list(folder / "AFR.keep")
    is_african = covar.columns["super_pop"] == "AFR"
    assert set(covar.iid[is_african]) == set(keep.iid)


def test_read_table__says_how_many_values_a_missing_code_took(tmp_path, caplog):
    path = tmp_path / "p.tsv"
    path.write_text("FID IID y z\n1 1 -9 2\n2 2 -9 3\n3 3 5 4\n")
    with caplog.at_level("INFO", "locomass"):
        table = read_table(path, quantitative=["y", "z"], missing_codes=["-9"])
    assert np.isnan(table.columns["y"]).tolist() == [True, True, False]
    assert [r.getMessage() for r in caplog.records] == [
        "p.tsv, column y: 2 values are -9, taken as missing (key missing_codes)"
    ]
