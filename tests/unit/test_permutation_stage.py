"""permutation_tests.parquet: searches by permutation, from a configuration, against the definition."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import yaml

from locomass.commands.check import check_study
from locomass.commands.outcome import Resources
from locomass.commands.run import run_study
from locomass.errors import ConfigError
from locomass.gene_tests.permutation_trait import IndividualTrait
from locomass.scores.permute import advise_variance
from tests import reference_grouping as reference
from tests.factories import make_study

BOUNDS = [0.05, 0.2]
SEARCHED = ["step-up", "all-maf", "groupings", "subsets", "cut-off"]


@pytest.fixture(scope="module")
def study():
    study = make_study(3, 260, "perm", loco=False)
    study.sets = {gene: study.sets[gene] for gene in list(study.sets)[:3]}
    return study


def run(study, folder, step_up=None, variance="model", strata=None, **changes):
    """Run a study with permutation tests; return the table."""
    permutation = {"tests": SEARCHED, "variance": variance}
    if strata:
        permutation["strata"] = strata
    tests = {"names": ["burden"], "max_maf": BOUNDS, "weights": ["flat"], "step_up": step_up or {}}
    config = study.write(folder, tests=tests, permutation=permutation, **changes)
    add_columns(study, folder)
    out = run_study(config, folder / "out", Resources(threads=1), "meta").path
    return pd.read_parquet(out / "permutation_tests.parquet"), config


def scores(study):
    """SIFT- and PolyPhen-like scores of every variant."""
    rng = np.random.default_rng(9)
    return {key: (round(rng.random(), 2), round(rng.random(), 2)) for key in list(study.keys())}


def add_columns(study, folder):
    """Give annotations.txt two numeric columns, weight_1 and weight_2."""
    path, values = folder / "annotations.txt", scores(study)
    lines = [line.split() for line in path.read_text().splitlines()]
    path.write_text("".join(f"{v} {g} {c} {values[v][0]} {values[v][1]}\n" for v, g, c in lines))


def dense(study, gene, mask, bound, trait):
    """Minor-allele dosages (n, m), mean imputed, of the variants of a row, and their names."""
    chosen = study.observed(trait)
    wanted = {"M1": {"LoF"}, "M2": {"LoF", "missense"}}[mask]
    keys, columns, names = study.keys(), [], []
    for j in sorted(study.rows_of(gene)):
        g = study.dosage[j]
        # the minor allele of all analysed samples is counted
        everybody = np.isfinite(np.column_stack(list(study.covariates.values()))).all(axis=1)
        g = 2 - g if np.nanmean(g[everybody]) > 1 else g
        g = g[chosen]
        f = np.nanmean(g) / 2
        if study.annotations[keys[j]] in wanted and 0 < f <= bound * (1 + 1e-12):
            columns.append(np.where(np.isnan(g), 2 * f, g))
            names.append(keys[j])
    return np.column_stack(columns) if columns else np.empty((chosen.sum(), 0)), names


def list_sets(study, G, names, search):
    """The sets of a search; None for step-up."""
    maf, m = G.mean(axis=0) / 2, G.shape[1]
    if search == "step-up":
        return None
    if search == "cut-off":
        return [np.ones(m, bool)]
    if search == "subsets":
        return reference.all_subsets(m)
    groups = [np.ones(m, bool)]
    if search == "groupings":
        sift, polyphen = np.array([scores(study)[name] for name in names]).T
        groups += [sift <= cut for cut in sift] + [polyphen >= cut for cut in polyphen]
    return reference.threshold_sets(maf, groups)


@pytest.mark.parametrize(
    ("weights", "signs", "variance"),
    [("both", "data", "empirical"), ("constant", "fixed", "model"), ("inverse-sd", "data", "model")],
)
def test_statistics_equal_the_definition(study, tmp_path, weights, signs, variance):
    step_up = {"weights": weights, "signs": signs, "permutations": 60, "low_is_damaging": ["weight_1"]}
    table, _ = run(study, tmp_path, step_up, variance)
    compared = 0
    for row in table[table["trait"] == "y"].itertuples():
        G, names = dense(study, row.gene, row.mask, row.max_maf, "y")
        assert row.n_variants == len(names)
        if not names:
            assert row.note == "no variants"
            continue
        chosen = study.observed("y")
        X, y = study.design(chosen), study.traits["y"][chosen]
        e = y - X @ np.linalg.lstsq(X, y, rcond=None)[0]
        left = G - X @ np.linalg.lstsq(X, G, rcond=None)[0]
        V = e @ e / (len(e) - X.shape[1]) * (left.T @ left)
        z2, members = reference.search(
            G, e, list_sets(study, G, names, row.test), weights, signs, variance, V=V if variance == "model" else None
        )
        assert row.statistic == pytest.approx(z2, rel=1e-8), row
        assert len(row.chosen.split(",")) == members.sum()
        compared += 1
    assert compared >= 30
    assert set(table["trait"]) == {"y", "w", "z", "cc"}
    assert (table.loc[table["note"] == "", "p"] > 0).all()


def test_p_values_agree_with_naive_permutation(study, tmp_path):
    step_up = {"permutations": 4000, "exceedances": 4000}
    table, _ = run(study, tmp_path, step_up, "empirical", covariates=None)
    row = table[(table["trait"] == "z") & (table["test"] == "step-up") & (table["n_variants"] >= 4)].iloc[0]
    G, _ = dense_without_covariates(study, row)
    y = study.traits["z"]
    assert row["method"].startswith("permutation")

    def statistic(e):
        return reference.search(G, e, None, "constant", "fixed", "empirical")[0]

    p = reference.permutation_p(statistic, y - y.mean(), np.random.default_rng(1), 150)
    assert row["p"] == pytest.approx(p, abs=4 * np.sqrt(p * (1 - p) / 150))


def dense_without_covariates(study, row):
    """Dosages of a row where everybody is analysed."""
    whole = study.take_samples(np.arange(study.n))
    whole.covariates = {"one": np.ones(study.n)}
    whole.sex = ["F"] * study.n
    return dense(whole, row["gene"], row["mask"], row["max_maf"], "z")


def test_strata_keep_a_confounded_trait_in_place(study, tmp_path):
    """A trait that differs between the sexes in variance: permuted within sexes only, by the definition."""
    male = np.array([s == "M" for s in study.sex])
    study = study.take_samples(np.arange(study.n))
    # carriers are women: their residuals, permuted, stay small
    study.dosage = np.where(male & (study.dosage == 1), 0.0, study.dosage)
    study.traits = {"z": np.where(male, 6.0, 0.3) * np.random.default_rng(2).normal(size=study.n)}
    study.binary = ()
    step_up = {"permutations": 4000, "exceedances": 4000}
    covariates = {"file": "covar.tsv", "categorical": ["sex"]}
    table, _ = run(study, tmp_path / "in", step_up, strata="sex", covariates=covariates)
    plain, _ = run(study, tmp_path / "out", step_up, covariates=covariates)
    both = table[table["test"] == "cut-off"].merge(plain, on=["gene", "mask", "max_maf", "test"]).dropna(subset=["p_x"])
    assert both["statistic_x"].to_numpy() == pytest.approx(both["statistic_y"].to_numpy(), rel=1e-10)
    shift = np.abs(both["p_x"] - both["p_y"]) / np.sqrt(both["p_x"] * (1 - both["p_x"]) / 2000)
    row = both.iloc[int(shift.argmax())]
    assert shift.max() > 8  # the two null distributions are not the same ...
    whole = study.take_samples(np.arange(study.n))
    whole.covariates = {"one": np.ones(study.n)}
    G, _ = dense(whole, row["gene"], row["mask"], row["max_maf"], "z")
    X = np.column_stack([np.ones(study.n), male])
    project = np.eye(study.n) - X @ np.linalg.pinv(X)
    e, left = project @ study.traits["z"], project @ G.sum(axis=1)
    rng, strata = np.random.default_rng(3), male.astype(int)
    k = sum((left @ reference.permuted(e, rng, strata)) ** 2 >= (left @ e) ** 2 * (1 - 1e-9) for _ in range(2000))
    p = (1 + k) / 2001
    assert row["p_x"] == pytest.approx(p, abs=4 * np.sqrt(2 * p * (1 - p) / 2000))  # ... and the first is the right one


def test_binary_traits_are_drawn_from_their_null_model(study, tmp_path):
    table, config = run(study, tmp_path, {"permutations": 100})
    known = table[table["note"] == ""]
    assert set(known.loc[known["trait"] == "cc", "method"].str.split("+").str[0]) == {"bernoulli-resampling"}
    assert set(known.loc[known["trait"] == "y", "method"].str.split("+").str[0]) == {"permutation"}
    # nothing is computed again, and without the key the table goes
    part = tmp_path / "out" / "permutation_tests.parquet"
    before = part.stat().st_mtime_ns
    run_study(config, tmp_path / "out", Resources(threads=1), "meta")
    assert part.stat().st_mtime_ns == before
    text = yaml.safe_load(config.read_text())
    del text["permutation"]
    config.write_text(yaml.safe_dump(text))
    run_study(config, tmp_path / "out", Resources(threads=1), "meta")
    assert not part.exists()


@pytest.mark.parametrize(
    ("variance", "step", "noted"), [("empirical", 12, True), ("empirical", 4, False), ("model", 12, False)]
)
def test_empirical_variance_of_an_unbalanced_trait_is_noted_on_its_rows(study, tmp_path, variance, step, noted):
    # one case in every step
    cc = np.where(np.isnan(study.traits["cc"]), np.nan, (np.arange(len(study.traits["cc"])) % step == 0) * 1.0)
    changed = replace(study, traits={**study.traits, "cc": cc})
    table, _ = run(changed, tmp_path, {"permutations": 20}, variance)
    searched = table[table["p"].notna()]
    flagged = searched["note"].str.contains("permutation.variance: model", regex=False)
    assert len(searched) > 50
    assert (flagged == ((searched["trait"] == "cc") & noted)).all()
    # a row without a p-value keeps its own reason
    assert (table.loc[table["n_variants"] == 0, "note"] == "no variants").all()


def test_advice_looks_at_the_smaller_class_and_at_binary_traits_only():
    for share, expected in ((0.05, True), (0.95, True), (0.09, True), (0.1, False), (0.5, False)):
        case = np.arange(1000) < 1000 * share
        trait = IndividualTrait(case - case.mean(), case=case)
        assert (advise_variance(trait, "empirical") != "") == expected
        assert advise_variance(trait, "model") == ""
    assert advise_variance(IndividualTrait(np.arange(9.0) > 7), "empirical") == ""


@pytest.mark.ci
def test_report__follows_the_searches(study, tmp_path):
    _, config = run(study, tmp_path, {"permutations": 60})
    out = tmp_path / "out"
    run_study(config, out, Resources(threads=1))
    assert "groupings (permutation)" in (out / "report.html").read_text(encoding="utf-8")
    text = yaml.safe_load(config.read_text())
    del text["permutation"]
    config.write_text(yaml.safe_dump(text))
    run_study(config, out, Resources(threads=1))
    assert "(permutation)" not in (out / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(("strata", "advice"), [("sx", "; did you mean 'sex'"), ("age", "; list it under")])
def test_strata_that_are_no_categorical_covariate__raises_before_anything_is_computed(study, tmp_path, strata, advice):
    message = f"permutation.strata: no categorical covariate '{strata}'.*{advice}"
    with pytest.raises(ConfigError, match=message):
        run(study, tmp_path, strata=strata)
    assert not (tmp_path / "out" / "denoise").exists()
    with pytest.raises(ConfigError, match=message):
        check_study(tmp_path / "study.yaml", tmp_path / "out")


def test_more_than_twelve_variants_leave_subsets_to_step_up(study, tmp_path):
    whole = study.take_samples(np.arange(study.n))
    genes = list(whole.sets)
    first = [g for g in genes if whole.sets[g][0][0] == whole.sets[genes[0]][0][0]]
    whole.sets = {"BIG": list(dict.fromkeys(v for g in first for v in whole.sets[g]))}
    whole.annotations = {key: "missense" if k % 8 == 0 else "LoF" for k, key in enumerate(whole.annotations)}
    table, _ = run(whole, tmp_path, {"permutations": 50})
    big = table[(table["n_variants"] > 12) & (table["trait"] == "y")]
    assert len(big) > 0
    assert big.loc[big["test"] == "subsets", "note"].str.contains("use the step-up search").all()
    assert big.loc[big["test"] != "subsets", "p"].notna().all()
