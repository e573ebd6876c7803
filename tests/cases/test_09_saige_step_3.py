"""Case 09: both layouts of SAIGE's step 3 give the same numbers; what was looked for is named."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

from locomass.bundle.exchange.common import ImportRequest
from locomass.bundle.exchange.registry import find_format
from locomass.errors import FormatError, InputError
from tests.genuine import command

HERE = Path(__file__).parent / "data" / "09-saige-step-3"


@pytest.mark.parametrize("prefix", ["old", "ld", "ld.LDmat.txt"])
def test_both_layouts_give_the_same_numbers(prefix, tmp_path):
    files = ["--scores", HERE / "scores.txt", "--covariance", HERE / prefix]
    more = ["--trait", "y", "--study", "g", "--out", tmp_path / "bundle"]
    command("import", "saige", *files, *more)
    command("meta", HERE / "meta.yaml", "--study", tmp_path / "bundle", "--out", tmp_path / "out", "--quiet")
    found = pd.read_parquet(tmp_path / "out" / "gene_tests.parquet").set_index(["gene", "test"]).p
    expected = {
        ("GF1", "burden"): 0.979259,
        ("GF1", "skat"): 0.358037,
        ("GF2", "burden"): 0.435782,
        ("GF2", "skat"): 0.736121,
    }
    for key, p in expected.items():
        assert found[key] == pytest.approx(p, abs=1e-6)


def test_sets_in_any_order_and_sets_that_are_not_wanted(tmp_path):
    whole = {g.gene: g.V for g in read(HERE, "ld").genes}
    for name in ("ld.LDmat.txt", "ld.marker_info.txt", "scores.txt"):
        shutil.copy(HERE / name, tmp_path / name)
    (tmp_path / "ld.index.txt").write_text("9 14 GF2\n0 8 GF1\n")
    assert all((whole[g.gene] == g.V).all() for g in read(tmp_path, "ld").genes)
    info = [x for x in (HERE / "ld.marker_info.txt").read_text().splitlines() if "GF1" not in x]
    (tmp_path / "ld.marker_info.txt").write_text("\n".join(info) + "\n")
    (gene,) = read(tmp_path, "ld").genes
    assert gene.gene == "GF2"
    assert (whole["GF2"] == gene.V).all()


def read(folder, prefix):
    return find_format("saige").read(ImportRequest(folder / "scores.txt", folder / prefix))


@pytest.mark.parametrize(
    ("name", "text", "match"),
    [
        ("ld.index.txt", "0 8 GF1\n", r"ld.index.txt: no line for set 'GF2' of ld.marker_info.txt"),
        (
            "ld.index.txt",
            "0 8 GF1\n9 19 GF2\n",
            r"ld.index.txt, line 2: rows up to 19 for set 'GF2', but .* has 15 rows",
        ),
        ("ld.index.txt", "0 9 GF1\n9 14 GF2\n", "line 2: rows of set 'GF2' overlap those of 'GF1'"),
        ("ld.index.txt", "0 8 GF1\n9 14 GF1\n", "line 2: set 'GF1' is listed twice"),
        ("ld.index.txt", "zero 8 GF1\n", "line 1: expected 'first_row last_row SET', got 'zero 8 GF1'"),
        ("ld.index.txt", "0 8 GF2\n9 14 GF1\n", r"ld.LDmat.txt: set 'GF2' has markers 0 to 2, but a triplet 3 0 2"),
        ("ld.LDmat.txt", "0 0 19\n0 0 20\n" + "0 0 20\n" * 13, "set 'GF1': markers 0 and 0 are listed with two values"),
        ("ld.LDmat.txt", "0 0 1\n" * 15, r"set 'GF1': \(G'G\)_jj of its marker 0 is 1, but MAC is 19"),
        ("ld.LDmat.txt", "0 0 19\n1 0 x\n", "line 2, column 3: expected a number, got 'x'"),
        ("ld.LDmat.txt", "0 0 19\n1 0.5 3\n", "line 2: triplet 1 0.5 3 is malformed"),
    ],
)
def test_damage_is_named(name, text, match, tmp_path):
    for path in HERE.glob("*.txt"):
        shutil.copy(path, tmp_path / path.name)
    (tmp_path / name).write_text(text)
    with pytest.raises(FormatError, match=match):
        list(read(tmp_path, "ld").genes)


def test_what_was_looked_for_is_named(tmp_path):
    shutil.copy(HERE / "scores.txt", tmp_path / "scores.txt")
    with pytest.raises(InputError, match=r"no .*/ld.marker_info.txt: --covariance takes the prefix of SAIGE's step 3"):
        read(tmp_path, "ld")
    shutil.copy(HERE / "ld.marker_info.txt", tmp_path / "ld.marker_info.txt")
    with pytest.raises(InputError, match=r"set 'GF1' .* has no LD: neither .*ld_GF1.txt nor .*ld.LDmat.txt"):
        list(read(tmp_path, "ld").genes)
    shutil.copy(HERE / "ld.LDmat.txt", tmp_path / "ld.LDmat.txt")
    with pytest.raises(InputError, match=r"ld.LDmat.txt is there, but .*ld.index.txt is not"):
        read(tmp_path, "ld")
