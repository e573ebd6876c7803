"""Differences between studies: groups, heterogeneity, single studies' part in a row, classes, coverage, the ledger."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from scipy.stats import chi2

from locomass.bundle.study import Bundle
from locomass.commands.conditional import run_conditional_analysis
from locomass.commands.meta import run_meta_analysis
from locomass.commands.outcome import Resources
from locomass.commands.run import run_study
from locomass.errors import ConfigError
from locomass.interface import gene_statistics
from locomass.meta.between import expect_variants
from locomass.meta.groups import assign_groups
from tests import reference_gene_tests as reference
from tests.factories import make_study, write_meta_config

TESTS = {"names": ["burden", "skat", "burden-het"], "max_maf": [0.05, 0.5], "weights": ["flat"], "drivers_p": 1.0}
GROUPS = {"north": ["a", "b"], "south": ["c"]}


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    out = []
    for seed, name in ((1, "a"), (2, "b"), (3, "c")):
        study = make_study(seed, 150, name, sites_seed=7)
        folder = tmp_path_factory.mktemp(name)
        config = study.write(folder)
        out.append((study, run_study(config, folder / "out", Resources(threads=1), "score-statistics").path / "bundle"))
    return out


@pytest.fixture(scope="module")
def results(bundles, tmp_path_factory):
    folder = tmp_path_factory.mktemp("meta")
    paths = [path for _, path in bundles]
    config = write_meta_config(folder / "meta.yaml", paths, bundles[0][0], tests=TESTS, groups=GROUPS)
    return run_meta_analysis(config, [], folder / "out", Resources(threads=1), "meta").path


def by_study(bundles, gene):
    """U and V_jj of every study by variant, alleles in one order."""
    out = []
    for _, path in bundles:
        g = gene_statistics([Bundle(path)], gene, "y")
        rows = zip(g.position.tolist(), g.ref, g.alt, g.U, np.diag(g.V), strict=True)
        out.append({(p, *sorted((r, a))): (u if r < a else -u, v) for p, r, a, u, v in rows})
    return out


def test_heterogeneity__of_variants_is_cochrans(bundles, results):
    table = pd.read_parquet(results / "heterogeneity.parquet")
    rows = table[(table["trait"] == "y") & (table["mask"] == "") & (table["gene"] == "GENE1")]
    studies, compared = by_study(bundles, "GENE1"), 0
    for row in rows.itertuples():
        found = [s.get((row.position, *sorted((row.ref, row.alt))), (0.0, 0.0)) for s in studies]
        U, v = (np.array(x) for x in zip(*found, strict=True))
        Q, df, p, i2 = reference.cochran(U, v)
        assert (row.q, row.df, row.i2) == pytest.approx((Q, df, i2), rel=1e-8, abs=1e-9)
        assert 10**-row.log10p_q == pytest.approx(p, rel=1e-8)
        north = (U[0] + U[1], v[0] + v[1])
        between = reference.cochran(np.array([north[0], U[2]]), np.array([north[1], v[2]]))
        if row.df_between == 1:
            assert row.q_between == pytest.approx(between[0], rel=1e-8, abs=1e-9)
        compared += 1
    assert compared >= 3


def test_groups__burden_het_has_one_effect_per_group(results):
    table = pd.read_parquet(results / "gene_tests.parquet").query("trait == 'y'")
    het = pd.read_parquet(results / "heterogeneity.parquet").query("trait == 'y' and mask != ''")
    keys = ["gene", "mask", "max_maf", "weights"]
    joined = table[table["test"] == "burden-het"].merge(het, on=keys)
    joined = joined[(joined["df_between"] == 1) & joined["statistic"].notna()]
    assert len(joined) >= 5
    fixed = (joined["beta"] if "beta" in joined else joined["beta_y"]) / (
        joined["se"] if "se" in joined else joined["se_y"]
    )
    # sum over groups of U_g^2 / V_g = the fixed effect's chi-square + Q between groups
    np.testing.assert_allclose(joined["statistic"], fixed**2 + joined["q_between"], rtol=1e-8)


def test_study_effects__left_out_is_the_meta_of_the_others(bundles, results, tmp_path):
    effects = pd.read_parquet(results / "study_effects.parquet").query("trait == 'y' and study == 'c'")
    config = write_meta_config(tmp_path / "m.yaml", [p for _, p in bundles[:2]], bundles[0][0], tests=TESTS)
    rest = run_meta_analysis(config, [], tmp_path / "out", Resources(threads=1), "meta").path
    table = pd.read_parquet(rest / "gene_tests.parquet").query("trait == 'y' and max_maf == 0.5")
    joined = effects.merge(table, on=["gene", "mask", "max_maf", "weights", "test"], suffixes=("_e", ""))
    same = joined[(joined["test"] == "skat") & joined["p"].notna()]  # signs of weights do not matter to it
    assert len(same) >= 4
    np.testing.assert_allclose(same["log10p_without"], same["log10p"], rtol=1e-6)


def in_mask(study, gene, mask, g):
    """Which variants of a gene's statistics are in a mask, and the signs that turn them to the minor allele."""
    wanted = {"M1": {"LoF"}, "M2": {"LoF", "missense"}}[mask]
    names = (study.keys()[r] for r in study.rows_of(gene))
    kept = {tuple(sorted(n.split(":")[1:])) for n in names if study.annotations[n] in wanted}
    found = [tuple(sorted((str(p), r, a))) in kept for p, r, a in zip(g.position, g.ref, g.alt, strict=True)]
    return np.flatnonzero(found), np.where(g.alt_frequency > 0.5, -1.0, 1.0)


def test_groups__of_conditional_tests_have_one_effect_each(bundles, tmp_path):
    study, paths, gene = bundles[0][0], [path for _, path in bundles], "GENE1"
    g = gene_statistics([Bundle(path) for path in paths], gene, "y")
    c = int(np.argmin(np.abs(g.alt_frequency - 0.5)))
    index = f"{g.chromosome}:{g.position[c]}:{g.ref[c]}:{g.alt[c]}"
    tests = {"names": ["burden-het"], "max_maf": [0.5], "weights": ["flat"]}
    config = write_meta_config(tmp_path / "meta.yaml", paths, study, tests=tests, groups=GROUPS)
    table = pd.read_parquet(run_conditional_analysis(config, [], [index], 1.0, tmp_path / "out"))
    rows = table.query("trait == 'y' and gene == @gene").set_index("mask")
    assert len(rows) == 2
    (U_a, V_a), (U_b, V_b), south = g.per_study
    for mask, row in rows.iterrows():
        burden, signs = in_mask(study, gene, mask, g)
        burden, expected = burden[burden != c], 0.0
        assert len(burden) > 1
        for U, V in ((U_a + U_b, V_a + V_b), south):
            U = U - V[:, c] * U[c] / V[c, c]
            V = V - np.outer(V[:, c], V[c]) / V[c, c]
            w = signs[burden]
            expected += reference.burden(U[burden], V[np.ix_(burden, burden)], w)[0]
        assert row["statistic"] == pytest.approx(expected, rel=1e-8)
        assert row["p"] == pytest.approx(chi2.sf(expected, 2), rel=1e-8)


def test_study_effects__take_ultra_rare_variants_as_one_as_the_row_did(bundles, tmp_path):
    study, paths, compared = bundles[0][0], [path for _, path in bundles], 0
    tests = {
        "names": ["skat"], "max_maf": [0.5], "weights": ["flat"], "drivers_p": 1.0, "ultra_rare": "collapse",
        "collapse_mac": 30,
    }  # fmt: skip
    config = write_meta_config(tmp_path / "meta.yaml", paths, study, tests=tests)
    out = run_meta_analysis(config, [], tmp_path / "out", Resources(threads=1), "meta").path
    effects = pd.read_parquet(out / "study_effects.parquet").query("trait == 'y'")
    for (gene, mask), rows in effects.groupby(["gene", "mask"]):
        g = gene_statistics([Bundle(path) for path in paths], gene, "y")
        kept, signs = in_mask(study, gene, mask, g)
        mac = np.minimum(g.alt_count, g.allele_number - g.alt_count)[kept]
        if (mac <= 30).sum() < 2 or (mac > 30).sum() < 1:
            continue
        C = np.column_stack([1.0 * (mac <= 30), np.eye(len(kept))[:, mac > 30]]) * signs[kept, None]
        for k, name in enumerate("abc"):
            rest = [part for other, part in enumerate(g.per_study) if other != k]
            row = rows.set_index("study").loc[name]
            for U, V, found in (
                (*g.per_study[k], row["log10p_alone"]),
                (sum(U for U, _ in rest), sum(V for _, V in rest), row["log10p_without"]),
            ):
                p = reference.skat(C.T @ U[kept], C.T @ V[np.ix_(kept, kept)] @ C, np.ones(C.shape[1]))[1]
                assert 10**-found == pytest.approx(p, rel=1e-5)
                compared += 1
    assert compared >= 6


def test_coverage__counts_add_up(results):
    table = pd.read_parquet(results / "coverage.parquet")
    assert (table["n_present"] + table["n_absent"] == table["n_union"]).all()
    assert set(table["study"]) == {"a", "b", "c"}


def test_coverage__a_study_without_half_of_a_gene_is_told():
    rng = np.random.default_rng(1)
    minor = rng.binomial(8_000, 0.002, size=(4, 40)).astype(float)
    minor[3, :30] = 0
    expected, found, z = expect_variants(minor > 0, minor, np.full(4, 8_000.0), np.full(4, "", object))
    assert found[3] < 0.5 * expected[3]
    assert z[3] > 4
    assert (np.abs(z[:3]) < 3).all()


def test_classes__name_the_studies(bundles, results):
    table = pd.read_parquet(results / "variant_classes.parquet")
    assert len(table)
    assert (table["largest"].clip(upper=1 - table["smallest"]) >= 0).all()
    assert (table["n_rare"] + table["n_not_rare"] + table["n_absent"] == 3).all()
    assert (table["not_rare_in"].str.split(",").str.len() == table["n_not_rare"]).all()


def test_ledger__sums_effective_samples(bundles, results):
    table = pd.read_csv(results / "denoising.tsv", sep="\t").query("trait == 'y'")
    expected = 0.0
    for _, path in bundles:
        trait = json.loads((path / "study.json").read_text())["traits"][0]
        expected += np.mean([trait["n_samples"] / (1 - (r["r2"] or 0)) for r in trait["denoising"]])
    total = table[table["study"] == "all"].iloc[0]
    assert total["n_effective"] == pytest.approx(expected, rel=1e-8)
    assert total["gain"] == pytest.approx(expected / total["n_samples"], rel=1e-8)


@pytest.mark.parametrize(
    ("groups", "match"),
    [
        ({"x": ["aa"], "y": ["b"]}, "there is no study 'aa'.*did you mean"),
        ({"x": ["a", "b"], "y": ["b"]}, "study 'b' is in x and in y"),
        ({"x": ["a"], "y": ["b"]}, "study 'c' is in no group"),
        ({"x": ["a", "b", "c"]}, "one group is no grouping"),
    ],
)
def test_groups__wrong_ones_are_refused(groups, match):
    with pytest.raises(ConfigError, match=match):
        assign_groups(groups, ["a", "b", "c"])


def test_groups__each_study_has_one():
    assert assign_groups(GROUPS, ["c", "a", "b"]) == ("south", "north", "north")
    assert assign_groups({}, ["a"]) == ()
