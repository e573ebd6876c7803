"""Filesets written block by block, read back by pandas-plink and against the format's definition."""

import warnings

import numpy as np
import pandas as pd
import pytest

from locomass.errors import InputError
from locomass.genotypes.fileset import open_fileset
from locomass.genotypes.write_bed import open_writer, pack_carriers, pack_dosage, write_fileset


def make_variants(m, chromosome="1"):
    return pd.DataFrame(
        {
            "chromosome": chromosome,
            "position": np.arange(m) * 10 + 100,
            "id": [f"v{j}" for j in range(m)],
            "a1": ["A", "G"] * (m // 2) + ["A"] * (m % 2),
            "a2": ["C"] * m,
        }
    )


def make_dosage(n, m, seed=0):
    return np.random.default_rng(seed).integers(-1, 3, (n, m)).astype(np.int8)


def pack_by_definition(dosage):
    """One byte at a time: 00 = A1/A1, 01 = missing, 10 = het, 11 = A2/A2, lowest bits first."""
    n, m = dosage.shape
    code = {2: 0b00, -1: 0b01, 1: 0b10, 0: 0b11}
    rows = np.zeros((m, -(-n // 4)), np.uint8)
    for j in range(m):
        for i in range(n):
            rows[j, i // 4] |= code[int(dosage[i, j])] << (2 * (i % 4))
    return rows


def list_carriers(dosage):
    variant, sample = np.nonzero(dosage.T)
    indptr = np.searchsorted(variant, np.arange(dosage.shape[1] + 1))
    return indptr, sample.astype(np.int32), dosage.T[variant, sample]


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 31, 64, 101])
def test_pack_dosage_follows_the_format(n):
    dosage = make_dosage(n, 7, seed=n)
    np.testing.assert_array_equal(pack_dosage(dosage), pack_by_definition(dosage))
    np.testing.assert_array_equal(pack_dosage(np.asfortranarray(dosage)), pack_by_definition(dosage))


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 31, 64, 101])
def test_pack_carriers_follows_the_format(n):
    dosage = make_dosage(n, 9, seed=n)
    dosage[:, 3] = 0  # a variant without carriers
    np.testing.assert_array_equal(pack_carriers(*list_carriers(dosage), n), pack_by_definition(dosage))


@pytest.mark.parametrize("n", [5, 1001])
def test_fileset_reads_the_same_in_pandas_plink(tmp_path, n):
    from pandas_plink import read_plink

    m = 40
    dosage = make_dosage(n, m)
    iid = [f"i{i}" for i in range(n)]
    variants = make_variants(m)
    write_fileset(tmp_path / "x", variants, dosage, iid, fid=["f"] * n, sex=[1] * n)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        bim, fam, bed = read_plink(str(tmp_path / "x"), verbose=False)
    # read_plink counts the second allele of the .bim, which it calls a1
    np.testing.assert_array_equal(bed.compute(), np.where(dosage.T < 0, np.nan, 2 - dosage.T))
    assert bim["a0"].tolist() == variants["a1"].tolist()
    assert bim["a1"].tolist() == variants["a2"].tolist()
    assert bim["snp"].tolist() == variants["id"].tolist()
    assert bim["pos"].tolist() == variants["position"].tolist()
    assert fam["iid"].tolist() == iid
    assert fam["fid"].tolist() == ["f"] * n


def test_writer_streams_blocks_of_both_kinds(tmp_path):
    n, m = 203, 30
    dosage = make_dosage(n, m)
    variants = make_variants(m)
    with open_writer(tmp_path / "x.bed", [f"i{i}" for i in range(n)], sex=[2] * n) as writer:
        writer.write_dosage(variants[:11], dosage[:, :11])
        writer.write_carriers(variants[11:], *list_carriers(dosage[:, 11:]))
        assert writer.n_variants == m
    fileset = open_fileset(tmp_path / "x.bed")
    np.testing.assert_array_equal(fileset.select(np.arange(m)).packed(), pack_by_definition(dosage))
    assert fileset.variants["a1"].tolist() == variants["a1"].tolist()
    assert fileset.variants["a2"].tolist() == variants["a2"].tolist()
    assert fileset.sex.tolist() == [2] * n


def test_small_blocks_give_the_same_file(tmp_path, monkeypatch):
    n, m = 50, 23
    dosage, iid = make_dosage(n, m), [f"i{i}" for i in range(n)]
    write_fileset(tmp_path / "one", make_variants(m), dosage, iid)
    monkeypatch.setattr("locomass.genotypes.write_bed._BLOCK_BYTES", 100)
    write_fileset(tmp_path / "many", make_variants(m), dosage, iid)
    with open_writer(tmp_path / "carriers", iid) as writer:
        writer.write_carriers(make_variants(m), *list_carriers(dosage))
    expected = (tmp_path / "one.bed").read_bytes()
    assert (tmp_path / "many.bed").read_bytes() == expected
    assert (tmp_path / "carriers.bed").read_bytes() == expected


def test_failure_leaves_the_old_fileset_and_no_partial_file(tmp_path):
    iid = ["a", "b", "c"]
    write_fileset(tmp_path / "x", make_variants(2), make_dosage(3, 2), iid)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def fail():
        with open_writer(tmp_path / "x", iid) as writer:
            writer.write_dosage(make_variants(4), make_dosage(3, 4, seed=1))
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        fail()
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("kwargs", "match"),
    [
        ({"iid": ["a", "a"]}, "is listed twice"),
        ({"iid": ["a b", "c"]}, "'a b' is empty or has a blank"),
        ({"iid": []}, "0 IIDs"),
        ({"iid": ["a", "b"], "sex": [1]}, "2 IIDs, 2 FIDs, 1 sexes"),
    ],
)
def test_open_writer__raises_on_bad_labels(tmp_path, kwargs, match):
    with pytest.raises(InputError, match=match), open_writer(tmp_path / "x", **kwargs):
        pass
    assert not list(tmp_path.iterdir())


def test_open_writer__raises_on_no_variants(tmp_path):
    with pytest.raises(InputError, match="at least one variant"), open_writer(tmp_path / "x", ["a"]):
        pass
    assert not list(tmp_path.iterdir())


def test_write_dosage__raises_on_bad_blocks(tmp_path):
    with open_writer(tmp_path / "x", ["a", "b"]) as writer:
        with pytest.raises(InputError, match=r"\(3, 2\); expected \(2, 2\)"):
            writer.write_dosage(make_variants(2), np.zeros((3, 2), np.int8))
        with pytest.raises(InputError, match="from 0 to 3"):
            writer.write_dosage(make_variants(1), np.array([[0], [3]], np.int8))
        writer.write_dosage(make_variants(1), np.array([[0], [1]], np.int8))


@pytest.mark.parametrize(
    ("sample", "dosage", "match"),
    [
        ([0, 5], [1, 1], r"sample 0\.\.5; the fileset has 0\.\.4"),
        ([2, 2], [1, 1], "once each"),
        ([0, 1], [1, 4], "to 4"),
    ],
)
def test_pack_carriers__raises_on_bad_carriers(sample, dosage, match):
    with pytest.raises(InputError, match=match):
        pack_carriers(np.array([0, 2]), np.array(sample, np.int32), np.array(dosage, np.int8), 5)


def test_write_carriers__raises_on_short_indptr(tmp_path):
    with open_writer(tmp_path / "x", ["a", "b"]) as writer:
        with pytest.raises(InputError, match="expected 4"):
            writer.write_carriers(make_variants(3), np.array([0, 1]), np.zeros(1, np.int32), np.ones(1, np.int8))
        writer.write_carriers(make_variants(1), np.array([0, 1]), np.zeros(1, np.int32), np.ones(1, np.int8))
