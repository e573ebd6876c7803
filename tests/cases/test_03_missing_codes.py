"""-9 is missing however it is written: with decimals, padded with blanks, or in scientific notation."""

from __future__ import annotations

import numpy as np
import pytest

from locomass.tables.samples import read_table


@pytest.fixture(scope="module")
def case(open_case):
    return open_case("03-missing-codes")


@pytest.mark.parametrize("config", ["na", "minus9", "decimal", "padded", "exponent"])
def test_missing_codes__are_numbers(case, config):
    table = case.tests(case.run(config)).set_index("test")
    assert set(table["n_samples"]) == {233}
    # U, V and Imhof from the definition
    assert table.loc["burden", "p"] == pytest.approx(0.0014731, rel=1e-4)
    assert table.loc["skat", "p"] == pytest.approx(0.0077477, rel=1e-4)


CODES = ["-9", "-9.0", " -9", "-9.000000e+00", "NA", " NA ", "."]


@pytest.mark.parametrize("kind", ["quantitative", "binary", "categorical"])
@pytest.mark.parametrize("between", ["\t", ","])
def test_missing_codes__in_every_kind_of_column(tmp_path, kind, between):
    rows = [between.join(["f", f"p{k}", value]) for k, value in enumerate([*CODES, "1", "0"])]
    (tmp_path / "t.tsv").write_text("\n".join([between.join(["FID", "IID", "x"]), *rows]) + "\n")
    found = read_table(tmp_path / "t.tsv", **{kind: ["x"]}, missing_codes=["-9"]).columns["x"]
    assert (found == "").tolist() == [True] * 7 + [False] * 2 if kind == "categorical" else True
    if kind != "categorical":
        np.testing.assert_array_equal(found, [*[np.nan] * 7, 1, 0])


def test_missing_codes__a_code_that_is_not_taken_is_a_warning(tmp_path, caplog):
    (tmp_path / "t.tsv").write_text("IID\tx\nb\t3\nc\t-9\nd\t5\ne\t-9\n")
    read_table(tmp_path / "t.tsv", quantitative=["x"])
    assert "column x: 2 values are -9 and are taken as values" in caplog.text
