"""The certificate: two result tables, row by row; and burdens that leave one study out."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from locomass.errors import InputError, MatchError
from locomass.meta.certify import certify
from locomass.schema import GENE_TESTS


def table(n=12, seed=1):
    """Rows of two tests."""
    rng = np.random.default_rng(seed)
    log10p = rng.uniform(0, 8, 2 * n)
    frame = {c.name: [""] * (2 * n) if c.type == pa.string() else np.zeros(2 * n) for c in GENE_TESTS.columns}
    frame |= {
        "gene": [f"G{k % n}" for k in range(2 * n)], "test": ["burden"] * n + ["vt"] * n, "trait": ["y"] * (2 * n),
        "log10p": log10p, "p": 10**-log10p, "beta": rng.normal(size=2 * n), "se": np.full(2 * n, 0.5),
        "p_error": np.repeat([1e-12, 0.01], n),
    }  # fmt: skip
    return pd.DataFrame(frame)


def save(frame, folder):
    folder.mkdir(exist_ok=True)
    columns = {c.name: pa.array(frame[c.name].to_numpy(), c.type) for c in GENE_TESTS.columns}
    pq.write_table(pa.table(columns), folder / "gene_tests.parquet")
    return folder


def compare(change, tmp_path, **options):
    frame = table()
    one = save(frame, tmp_path / "one")
    other = frame.copy()
    changed = change(other)
    return certify(save(other if changed is None else changed, tmp_path / "other"), one, tmp_path / "out", **options)


def by_test(certificate):
    return {t.test: t for t in certificate.tests}


def test_certify__equal_tables(tmp_path):
    c = compare(lambda t: None, tmp_path)
    assert c.agrees
    assert {t.test: t.rows for t in c.tests} == {"burden": 12, "vt": 12}
    assert by_test(c)["burden"].largest_p == 0
    assert c.meta[1] == c.pooled[1]
    record = json.loads((tmp_path / "out" / "certificate.json").read_text())
    assert record["agrees"] is True
    assert "**agree**" in (tmp_path / "out" / "certificate.md").read_text()


def test_certify__order_of_rows_does_not_matter(tmp_path):
    assert compare(lambda t: t.iloc[::-1].reset_index(drop=True), tmp_path).agrees


@pytest.mark.parametrize(("relative", "agrees"), [(5e-7, True), (2e-6, False)])
def test_certify__names_the_largest_difference(relative, agrees, tmp_path):
    def change(t):
        t.loc[3, "log10p"] += np.log10(1 + relative)
        t.loc[5, "beta"] += 0.2

    c = compare(change, tmp_path)
    burden = by_test(c)["burden"]
    assert burden.largest_p == pytest.approx(relative, rel=1e-6)
    assert burden.where.startswith("G3, trait y")
    assert burden.largest_beta == pytest.approx(0.4)
    assert c.agrees is agrees
    assert ("DO NOT agree" in (tmp_path / "out" / "certificate.md").read_text()) is not agrees


@pytest.mark.parametrize(("relative", "agrees"), [(0.03, True), (0.2, False)])
def test_certify__random_rows_are_held_to_their_own_error(relative, agrees, tmp_path):
    def change(t):
        t.loc[20, "log10p"] += np.log10(1 + relative)

    vt = by_test(compare(change, tmp_path))["vt"]
    assert vt.random_rows == 12
    assert vt.largest_p == 0
    assert vt.largest_random == pytest.approx(relative / (0.01 * np.sqrt(2)), rel=1e-6)
    assert vt.agrees is agrees


def test_certify__extreme_p_values(tmp_path):
    def change(t):
        t.loc[0, "log10p"] = 900.0

    c = compare(change, tmp_path)
    assert not c.agrees
    assert by_test(c)["burden"].largest_p == np.inf
    assert json.loads((tmp_path / "out" / "certificate.json").read_text())["tests"][0]["largest_p"] is None


def test_certify__missing_rows_and_p_values_are_counted(tmp_path):
    def change(t):
        t.loc[2, "log10p"] = np.nan
        return t.drop(index=[7, 8])

    c = compare(change, tmp_path)
    assert (c.only_meta, c.only_pooled, c.one_sided, c.agrees) == (0, 2, 1, False)


def test_certify__raises_on_other_tables(tmp_path):
    with pytest.raises(MatchError, match="share no row"):
        compare(lambda t: t.assign(gene="x" + t["gene"]), tmp_path)
    with pytest.raises(InputError, match="is listed twice"):
        compare(lambda t: t.assign(gene="x"), tmp_path)
    shutil.rmtree(tmp_path / "other")
    with pytest.raises(InputError, match="cannot be read"):
        certify(tmp_path / "other", tmp_path / "one", tmp_path / "out")
