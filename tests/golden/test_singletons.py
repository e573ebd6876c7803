"""Singleton masks: REGENIE's rows, the third column of an allele-frequency file, and what is refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import yaml

from locomass.commands.check import check_study
from locomass.commands.outcome import Resources
from locomass.commands.run import run_study
from locomass.errors import ConfigError, FormatError
from tests.golden.cohorts import DATA, read_regenie, read_results

TESTS = {"names": ["burden"], "max_maf": [0.01, 0.05], "weights": ["flat"], "frequency": "aaf"}
ROW = ["gene", "mask", "max_maf"]


@pytest.fixture(scope="module")
def bim() -> pd.DataFrame:
    names = ["chromosome", "id", "cm", "position", "a1", "a2"]
    return pd.read_csv(DATA / "cohort_a.bim", sep=r"\s+", header=None, names=names)


def configure(folder, table: str | None, **tests):
    """Write a configuration of cohort_a beside its files, and its allele frequencies where there are any."""
    folder.mkdir()
    for path in DATA.glob("*.*"):
        (folder / path.name).symlink_to(path)
    config = yaml.safe_load((DATA / "cohort_a.yaml").read_text())
    config |= {"tests": TESTS | tests, "predictor": {"method": "none"}, "score_statistics": {"missing": "zero"}}
    if table is not None:
        (folder / "aaf.txt").write_text(table)
        config["maf"] = {"external": "aaf.txt"}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder / "config.yaml"


def run(config) -> pd.DataFrame:
    out = run_study(config, config.parent / "out", Resources(threads=1), "meta").path
    return read_results(out).query("trait == 'y'")


@pytest.fixture(scope="module")
def observed(tmp_path_factory):
    return run(configure(tmp_path_factory.mktemp("singletons") / "observed", None, singletons="observed"))


def test_observed_singletons_are_the_rows_of_regenie(observed):
    theirs = read_regenie("none").query("bin == 'singleton' and TEST == 'ADD' and ID != 'GENE2C.M1.singleton'")
    ours = observed[observed["mask"].str.endswith(".singleton")]
    assert (ours["max_maf"] == 0.05).all()  # once, whatever their frequency
    assert (ours["mac"] == ours["n_variants"]).all()
    joined = theirs.merge(ours.assign(mask=ours["mask"].str.removesuffix(".singleton")), on=["gene", "mask"])
    assert len(joined) == len(theirs) > 20
    assert np.abs(joined["LOG10P"] - joined["log10p"]).max() < 1e-5
    assert np.abs(joined["BETA"] / joined["beta"] - 1).max() < 1e-4


def test_other_rows_are_what_they_were(observed, tmp_path):
    plain = run(configure(tmp_path / "plain", None))
    rest = observed[~observed["mask"].str.endswith(".singleton")]
    pd.testing.assert_frame_equal(rest.reset_index(drop=True), plain.reset_index(drop=True))


def test_external_singletons_are_those_of_the_third_column(observed, bim, tmp_path):
    """Every second variant is called a singleton, whatever is observed and however frequent the file says it is."""
    lines = [f"{name} {0.2 if k % 4 == 0 else 0.001} {k % 2 == 0:d}" for k, name in enumerate(bim["id"])]
    flagged = set(bim["id"][::2])
    found = run(configure(tmp_path / "aaf", "\n".join(lines) + "\n", singletons="external"))
    found = found[found["mask"] == "M3.singleton"].set_index("gene")
    taken = pd.read_parquet(tmp_path / "aaf" / "out" / "mask_variants.parquet")
    name = taken["chromosome"] + ":" + taken["position"].astype(str) + ":" + taken["ref"] + ":" + taken["alt"]
    member = taken["masks"].str.split(",").map(lambda names: "M3" in names) & name.isin(flagged)
    single = pd.read_parquet(tmp_path / "aaf" / "out" / "single_variants.parquet").query("trait == 'y'")
    seen = set(zip(single["position"], single["ref"], single["alt"], strict=True))
    places = zip(taken["position"], taken["ref"], taken["alt"], strict=True)
    carried = np.array([key in seen for key in places])
    expected = (member & carried).groupby(taken["gene"]).sum()
    expected = expected[expected > 0]
    assert len(expected) > 4
    assert found["n_variants"].to_dict() == expected.to_dict()
    assert (found["mac"] > found["n_variants"]).any()


@pytest.mark.parametrize(
    ("table", "error", "match"),
    [
        (None, ConfigError, r"key tests.singletons: .*give it by `maf: \{external: FILE\}`"),
        ("two", FormatError, r"aaf.txt.* has no third column; expected variant, frequency, and 1 for a singleton or 0"),
        ("odd", FormatError, r"aaf.txt.*line 2.*expected 1 \(singleton\) or 0, got '2'"),
    ],
)
def test_check_and_run_stop_at_the_same(bim, tmp_path, table, error, match):
    last = {"two": "", "odd": " 2", None: ""}[table]
    text = None if table is None else "".join(f"{name} 0.001{last and ' 0'}\n" for name in bim["id"])
    if last:
        text = text.replace(f"{bim['id'][1]} 0.001 0", f"{bim['id'][1]} 0.001{last}")
    config = configure(tmp_path / "bad", text, singletons="external")
    with pytest.raises(error, match=match):
        check_study(config, tmp_path / "checked")
    with pytest.raises(error, match=match):
        run(config)
