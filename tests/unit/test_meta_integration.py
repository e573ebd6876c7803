"""From files to rows: collapsed burdens, calibration, omnibus, drivers, searches, pathways, conditioning, X."""

from __future__ import annotations

import dataclasses
import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy.stats import chi2, combine_pvalues, norm

from locomass.bundle.open import open_bundle
from locomass.bundle.study import Bundle
from locomass.commands.conditional import run_conditional_analysis
from locomass.commands.meta import run_meta_analysis
from locomass.commands.outcome import Resources
from locomass.commands.run import run_study
from locomass.config import MetaConfig, Tests, load_config
from locomass.errors import BundleError, ConfigError, FormatError, InputError, MatchError
from locomass.genotypes.hemizygous import recode_males
from locomass.meta import evaluate as meta_evaluate
from locomass.meta.conditional import run_conditional
from locomass.meta.inspect import inspect_bundles
from locomass.scores.collapsed import withhold_small_steps
from locomass.tables.catalogue import open_catalogue
from locomass.tables.pathways import read_pathways
from tests import reference_gene_tests as reference
from tests.factories import make_study, write_meta_config

SHARE = {"modes": ["dominant", "recessive"], "thresholds": [0.02, 0.05, 0.2], "replicates": 300}
NAMES = [
    "burden", "skat", "skat-o", "step-up", "burden-dominant", "burden-recessive", "cast", "vt-dominant", "omnibus",
    "pathway-step-up", "pathway-fisher",
]  # fmt: skip
STEP_UP = {"permutations": 300, "exceedances": 300, "seed": 5}
TESTS = {
    "names": NAMES, "max_maf": [0.05, 0.2], "weights": ["flat"], "drivers_p": 0.5,
    "step_up": STEP_UP,
}  # fmt: skip
GENES = {"sets": "sets.txt", "annotations": "annotations.txt", "masks": "masks.txt", "pathways": "p.gmt"}
GMT = "up\td\tGENE1\tGENE3\tGENE5\nlow\td\tGENE2\tNOWHERE\n"


@pytest.fixture(scope="module")
def studies():
    return [make_study(seed, 220, f"s{seed}", loco=False) for seed in (1, 2)]


@pytest.fixture(scope="module")
def bundles(studies, tmp_path_factory) -> list[Path]:
    out = []
    for study in studies:
        folder = tmp_path_factory.mktemp(study.name)
        config = study.write(folder, score_statistics=SHARE)
        out.append(run_study(config, folder / "out", Resources(threads=1), "score-statistics").path / "bundle")
    return out


@pytest.fixture(scope="module")
def meta_config(bundles, studies, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("meta")
    (folder / "p.gmt").write_text(GMT)
    return write_meta_config(folder / "meta.yaml", bundles, studies[0], tests=TESTS, genes=GENES)


@pytest.fixture(scope="module")
def combined(meta_config) -> Path:
    return run_meta_analysis(meta_config, [], meta_config.parent / "out", Resources(threads=1), "meta").path


@pytest.fixture(scope="module")
def rows(combined) -> pd.DataFrame:
    return pd.read_parquet(combined / "gene_tests.parquet")


def in_mask(study, gene: str, mask: str) -> list[int]:
    wanted = {"M1": {"LoF"}, "M2": {"LoF", "missense"}}[mask]
    keys = study.keys()
    return [r for r in study.rows_of(gene) if study.annotations[keys[r]] in wanted]


def collapse(study, gene: str, mask: str, bound: float, least: int, trait: str):
    """U and V of 1(c >= least) of a quantitative trait, from the definition."""
    chosen = study.observed(trait)
    X, y = study.design(chosen), study.traits[trait][chosen]
    r = y - X @ np.linalg.lstsq(X, y, rcond=None)[0]
    sigma2 = r @ r / (len(r) - X.shape[1])
    count = np.zeros(chosen.sum())
    for j in in_mask(study, gene, mask):
        g = study.dosage[j, chosen]
        f = np.nanmean(g) / 2
        if min(f, 1 - f) <= bound:
            count += np.nan_to_num(g if f <= 0.5 else 2 - g)
    S = (count >= least).astype(float)
    left = S - X @ np.linalg.lstsq(X, S, rcond=None)[0]
    return S @ r / sigma2, left @ left / sigma2


@pytest.mark.parametrize(("test", "least"), [("burden-dominant", 1), ("burden-recessive", 2), ("cast", 1)])
def test_collapsed_burdens__equal_the_definition_summed_over_studies(studies, rows, test, least):
    compared = 0
    for row in rows[(rows["test"] == test) & (rows["trait"] == "y")].itertuples():
        parts = [collapse(s, row.gene, row.mask, row.max_maf, least, "y") for s in studies]
        U, V = np.sum(parts, axis=0)
        if V < 1e-8:
            assert np.isnan(row.p)
            continue
        assert row.beta == pytest.approx(U / V, rel=1e-8)
        assert row.se == pytest.approx(V**-0.5, rel=1e-8)
        assert row.log10p == pytest.approx(-chi2.logsf(U * U / V, 1) / np.log(10), rel=1e-8, abs=1e-12)
        compared += 1
    assert compared >= 10


def test_vt_dominant__takes_the_best_shared_threshold(studies, rows):
    row = rows[(rows["test"] == "vt-dominant") & (rows["trait"] == "y") & (rows["max_maf"] == 0.2)].iloc[-1]
    z = []
    for bound in SHARE["thresholds"]:
        U, V = np.sum([collapse(s, row["gene"], row["mask"], bound, 1, "y") for s in studies], axis=0)
        z.append(abs(U) / np.sqrt(V) if V > 1e-8 else 0.0)
    assert row["statistic"] == pytest.approx(max(z), rel=1e-8)
    assert 2 * norm.sf(max(z)) <= row["p"] <= 1.02 * len(z) * 2 * norm.sf(max(z))


def test_collapsed_burdens__absent_from_the_bundle_leave_a_note(studies, tmp_path):
    config = studies[0].write(tmp_path, tests={"names": ["cast"], "max_maf": [0.05], "weights": ["flat"]})
    table = pd.read_parquet(
        run_study(config, tmp_path / "out", Resources(threads=1), "meta").path / "gene_tests.parquet"
    )
    assert table["p"].isna().all()
    assert table["note"].str.contains("no dominant burden of this mask is shared at 0.05").all()


def test_withhold__small_counts_and_small_steps():
    assert withhold_small_steps(np.array([0, 3, 12, 14, 30]), 5).tolist() == [True, False, True, False, True]
    assert withhold_small_steps(np.array([1, 2]), 0).all()


def test_recessive_burdens__below_the_minimum_cell_are_withheld(studies, tmp_path):
    config = studies[0].write(tmp_path, score_statistics={**SHARE, "min_cell": 12})
    path = run_study(config, tmp_path / "out", Resources(threads=1), "score-statistics").path / "bundle"
    bundle = Bundle(path)
    genes = bundle.read_genes(bundle.index).values()
    withheld = 0
    for burdens in (g.collapsed[m, mode] for g in genes for m in ("M1", "M2") for mode in ("dominant", "recessive")):
        hidden = burdens.carriers < 0
        withheld += hidden.sum()
        assert (burdens.carriers[~hidden & (burdens.carriers > 0)] >= 12).all()
        for t, trait in enumerate(bundle.info["traits"]):
            s = bundle.sample_sets[trait["sample_set"]]
            assert np.isnan(burdens.U[t, hidden[s]]).all()
            assert np.isfinite(burdens.U[t, ~hidden[s]]).all()
    assert withheld > 0


# null laws


def test_null_law__normal_gives_chi_square_p_values(meta_config, rows):
    config = yaml.safe_load(meta_config.read_text())
    plain = {**TESTS, "names": ["burden", "skat"], "null_law": "normal"}
    other = meta_config.with_name("plain.yaml")
    other.write_text(yaml.safe_dump({**config, "tests": plain}))
    out = run_meta_analysis(other, [], meta_config.parent / "plain", Resources(threads=1), "meta").path
    table = pd.read_parquet(out / "gene_tests.parquet")
    burden = table[(table["test"] == "burden") & table["p"].notna()]
    np.testing.assert_allclose(burden["log10p"], -chi2.logsf(burden["statistic"], 1) / np.log(10), rtol=1e-9)
    assert (burden["method"] == "chi2").all()
    both = burden.merge(rows, on=["gene", "trait", "mask", "max_maf", "weights", "test"], suffixes=("", "_law"))
    binary = both["trait"] == "cc"
    assert (np.abs(both.loc[binary, "log10p"] - both.loc[binary, "log10p_law"]) > 0.01).any()
    assert both.loc[binary, "method_law"].str.contains("exact").all()
    np.testing.assert_allclose(both.loc[~binary, "beta"], both.loc[~binary, "beta_law"], rtol=1e-12)
    assert (both["note_law"] == "").all()


def test_laws__absent_from_a_bundle_leave_a_note(bundles, studies, tmp_path):
    """An older bundle still opens; rows of binary traits say that they are not calibrated."""
    old = Path(shutil.copytree(bundles[0], tmp_path / "bundle"))
    shutil.rmtree(old / "laws")
    (old / "digests.json").unlink()
    tests = {"names": ["burden", "skat"], "max_maf": [0.05], "weights": ["flat"]}
    for name, paths in (("alone", [old]), ("mixed", [old, bundles[1]])):
        config = write_meta_config(tmp_path / f"{name}.yaml", paths, studies[0], tests=tests)
        out = run_meta_analysis(config, [], tmp_path / name, Resources(threads=1), "meta").path
        table = pd.read_parquet(out / "gene_tests.parquet").query("p == p")
        told = table["note"].str.contains("not calibrated: no laws in the bundle of s1")
        assert told[table["trait"] == "cc"].all()
        assert not told[table["trait"] != "cc"].any()


@pytest.fixture(scope="module")
def unbalanced():
    """Two studies, 12 cases in one, a balanced trait in the other; the same variants."""
    rare, even = make_study(3, 260, "rare", loco=False), make_study(4, 200, "even", loco=False)
    seen = np.flatnonzero(np.isfinite(rare.traits["cc"]))
    rare.traits["cc"][seen] = 0.0
    rare.traits["cc"][np.random.default_rng(1).choice(seen, 12, replace=False)] = 1.0
    return rare, even


def run_both(unbalanced, folder: Path, tests: dict, **score_statistics) -> tuple[list[Path], list[pd.DataFrame]]:
    """Run both studies and their meta-analysis; return the bundles and the three tables."""
    outs = []
    for study in unbalanced:
        config = study.write(folder / study.name, score_statistics=score_statistics, tests=tests)
        outs.append(run_study(config, folder / study.name / "out", Resources(threads=1), "meta").path)
    bundles = [out / "bundle" for out in outs]
    config = write_meta_config(folder / "meta.yaml", bundles, unbalanced[0], tests=tests)
    outs.append(run_meta_analysis(config, [], folder / "meta", Resources(threads=1), "meta").path)
    return bundles, [pd.read_parquet(out / "gene_tests.parquet") for out in outs]


def test_optional_tables__travel_in_a_tar_and_are_signed(bundles, tmp_path):
    path = Path(shutil.copytree(bundles[0], tmp_path / "bundle"))
    with tarfile.open(tmp_path / "b.tar", "w") as tar:
        tar.add(path, "bundle")
    opened = open_bundle(tmp_path / "b.tar", tmp_path)
    for name in ("laws", "collapsed", "replicates"):
        part = next((path / name).glob("*.parquet"))
        assert (opened.path / name / part.name).read_bytes() == part.read_bytes()
        content = part.read_bytes()
        part.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
        with pytest.raises(BundleError, match=f"{name}/{part.name}"):
            open_bundle(path)
        part.write_bytes(content)
        (path / name).rename(tmp_path / name)
        (path / name).symlink_to(tmp_path / name)
        with pytest.raises(BundleError, match=f"{name} is a link"):
            open_bundle(path)
        (path / name).unlink()
        (tmp_path / name).rename(path / name)


def test_ultra_rare__collapses_before_the_skat_family_of_binary_traits(unbalanced, tmp_path):
    """`auto` is `collapse` for binary traits and `keep` for the others."""
    names = {"names": ["burden", "skat", "acat-v"], "max_maf": [0.05], "weights": ["flat"]}
    tables = {}
    for rule in ("auto", "collapse", "keep"):
        folder = tmp_path / rule
        folder.mkdir()
        config = unbalanced[0].write(folder, tests={**names, "ultra_rare": rule})
        out = run_study(config, folder / "out", Resources(threads=1), "meta").path
        table = pd.read_parquet(out / "gene_tests.parquet")
        tables[rule] = table.set_index(["trait", "gene", "mask", "test"])["log10p"].dropna()
    for trait in ("y", "cc"):
        same = tables["collapse" if trait == "cc" else "keep"].loc[trait]
        pd.testing.assert_series_equal(tables["auto"].loc[trait], same)
    for test, moves in (("skat", True), ("burden", False), ("acat-v", False)):
        a, b = (tables[r].xs(test, level="test") for r in ("collapse", "keep"))
        assert (np.abs(a - b).max() > 1e-6) == moves


@pytest.mark.ci
@pytest.mark.parametrize("groups", [{}, {"one": ["rare"], "two": ["even"]}])
def test_few_cases__carriers_are_those_of_every_study_before_calibration(unbalanced, tmp_path, monkeypatch, groups):
    """What the SKAT family is given: V_k as without calibration, sizes, shares of cases, frequencies."""
    tests = {"names": ["skat", "skat-het"], "max_maf": [0.05], "weights": ["flat"], "ultra_rare": "keep"}
    for study in unbalanced:
        (tmp_path / study.name).mkdir()
    paths, _ = run_both(unbalanced, tmp_path, tests)
    seen = {}
    original = meta_evaluate.evaluate
    monkeypatch.setattr("locomass.gene_tests.few_cases.LOG_SCREEN", 0.0)  # the study has few genes, none is small
    for rule in ("exact", "normal"):
        found = seen.setdefault(rule, [])

        def record(stats, *args, into=found, **options):
            into.append(stats)
            return original(stats, *args, **options)

        monkeypatch.setattr(meta_evaluate, "evaluate", record)
        changed = {"tests": {**tests, "null_law": rule}, **({"groups": groups} if groups else {})}
        config = write_meta_config(tmp_path / f"{rule}.yaml", paths, unbalanced[0], **changed)
        out = run_meta_analysis(config, [], tmp_path / f"{rule}-out", Resources(threads=1), "meta").path
        table = pd.read_parquet(out / "gene_tests.parquet").query("trait == 'cc'")
        assert table["method"].str.startswith("case-count").any() == (rule == "exact")
    compared = 0
    for calibrated, plain in zip(seen["exact"], seen["normal"], strict=True):
        assert not plain.laws
        if not calibrated.laws:
            continue
        own = calibrated.laws[0]
        for members, (_, V, scale) in zip(
            calibrated.members or [(k,) for k in range(len(own))], plain.per_study, strict=False
        ):
            known = sum(own[k].information() for k in members)
            np.testing.assert_allclose(known, V * scale[0], rtol=1e-9, atol=1e-12)
            compared += 1
    assert compared >= 4


def test_few_cases_study__compares_with_drawn_phenotypes(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "studies"))
    import few_cases

    monkeypatch.setattr(few_cases, "LEVELS", (0.05, 0.01))
    case = few_cases.Scenario(300, 20, True, 0.5)
    ratios = np.array(few_cases.compare(case, 1, 10_000))
    assert ratios.shape == (2, 2)
    assert (ratios[:, 0] > 0.1).all()
    assert (ratios[:, 0] < 5.0).all()


# omnibus, drivers, searches, pathways


def test_omnibus__is_the_half_cauchy_combination_of_distinct_rows(rows):
    for (_, _), part in rows[rows["trait"] == "y"].groupby(["gene", "trait"]):
        omnibus = part[part["test"] == "omnibus"]
        assert len(omnibus) == 1
        assert omnibus["mask"].item() == "all masks"
        shared = part["test"].isin(["burden-dominant", "burden-recessive", "cast", "vt-dominant"])
        own = part[~shared & (part["test"] != "omnibus")]
        # masks and bins that select the same variants give the same rows and enter once
        distinct = own.drop_duplicates(["test", "statistic", "p", "mac", "n_variants"])
        p = np.concatenate([distinct["p"], part.loc[shared & part["p"].notna(), "p"]])
        assert omnibus["p"].item() == pytest.approx(reference.half_cauchy(p), rel=1e-3)


def test_drivers__say_what_is_left_without_each_variant(combined, rows):
    drivers = pd.read_parquet(combined / "drivers.parquet")
    key = ["gene", "trait", "mask", "max_maf", "weights", "test"]
    assert set(drivers["test"]) == {"skat", "skat-o", "step-up"}
    small = rows[rows["test"].isin(["skat", "skat-o", "step-up"]) & (rows["p"] < 0.5)]
    assert set(map(tuple, drivers[key].drop_duplicates().to_numpy())) == set(map(tuple, small[key].to_numpy()))
    assert drivers.loc[drivers["test"] == "skat-o", "detail"].str.match(r"rho=[\d.]+").all()
    assert (drivers["share"].between(0, 1 + 1e-12)).all()
    skat = drivers[drivers["test"] == "skat"].groupby(key)
    assert (skat["share"].sum() <= 1 + 1e-9).all()
    assert skat["share"].apply(lambda x: x.is_monotonic_decreasing).all()
    two = rows[(rows["test"] == "skat") & (rows["n_variants"] == 2) & (rows["p"] < 0.5)]
    for row in two[two["trait"] == "y"].itertuples():  # without one of two variants, SKAT is the other's chi-square
        part = drivers[(drivers[key] == [getattr(row, k) for k in key]).all(axis=1)]
        z = part["z"].to_numpy()
        np.testing.assert_allclose(part["log10p_without"], -chi2.logsf(z[::-1] ** 2, 1) / np.log(10), rtol=1e-6)


def test_step_up__uses_the_replicates_that_all_studies_share(rows):
    step = rows[rows["test"] == "step-up"]
    assert (step["method"].str.startswith("shared-permutations")).all()


def test_step_up__normal_draws_and_shared_replicates_agree(meta_config, bundles, studies, rows, tmp_path):
    folder = tmp_path
    plain = []
    for study in studies:
        config = study.write(folder / study.name)
        plain.append(
            run_study(config, folder / study.name / "out", Resources(threads=1), "score-statistics").path / "bundle"
        )
    tests = {**TESTS, "names": ["step-up"], "step_up": {**STEP_UP, "permutations": 3000, "exceedances": 3000}}
    (folder / "p.gmt").write_text(GMT)
    config = write_meta_config(folder / "meta.yaml", plain, studies[0], tests=tests, genes=GENES)
    out = run_meta_analysis(config, [], folder / "out", Resources(threads=1), "meta").path
    drawn = pd.read_parquet(out / "gene_tests.parquet").query("trait in ['y', 'z']")
    assert (drawn["method"].str.startswith("normal-resampling")).all()
    both = drawn.merge(rows, on=["gene", "trait", "mask", "max_maf", "test"])
    error = np.sqrt(both["p_x"] * (1 - both["p_x"]) * (1 / 300 + 1 / 3000))
    assert (np.abs(both["p_x"] - both["p_y"]) < 4 * error + 0.01).all()


def test_pathways__fisher_and_step_up_from_gene_rows(combined, rows):
    table = pd.read_parquet(combined / "pathway_tests.parquet")
    chosen = (rows["trait"] == "y") & (rows["mask"] == "M2") & (rows["max_maf"] == 0.2) & (rows["test"] == "burden")
    burden = rows[chosen].set_index("gene").loc[["GENE1", "GENE3", "GENE5"]]
    here = table.query(
        "pathway == 'up' and trait == 'y' and mask == 'M2' and max_maf == 0.2 and source == 'burden flat'"
    )
    here = here.set_index("test")
    assert here.loc["pathway-fisher", "p"] == pytest.approx(combine_pvalues(burden["p"]).pvalue, rel=1e-9)
    V = burden["se"] ** -2
    U = burden["beta"] * V
    sets = [[0], [1], [2], [0, 1], [0, 2], [1, 2], [0, 1, 2]]
    best = max(U.iloc[s].sum() ** 2 / V.iloc[s].sum() for s in sets)
    taken = here.loc["pathway-step-up", "chosen"].split(",")
    assert here.loc["pathway-step-up", "statistic"] == pytest.approx(U[taken].sum() ** 2 / V[taken].sum(), rel=1e-9)
    assert here.loc["pathway-step-up", "statistic"] <= best * (1 + 1e-12)
    low = table.query("pathway == 'low'")
    assert (low["n_listed"] == 2).all()
    assert (low["n_genes"] == 1).all()


def test_pathways__are_refused_without_a_file_and_named_when_malformed(studies, tmp_path):
    (tmp_path / "bad.gmt").write_text("one\tdescription\n")
    with pytest.raises(FormatError, match=r"bad\.gmt, line 1"):
        read_pathways(tmp_path / "bad.gmt")
    config = studies[0].write(tmp_path, tests={**TESTS, "names": ["burden", "pathway-fisher"]})
    with pytest.raises(ConfigError, match=r"genes\.pathways"):
        run_study(config, tmp_path / "out", Resources(threads=1), "meta")


# conditioning


def test_conditional__equals_a_null_model_with_the_index_variant(studies, bundles, meta_config, tmp_path):
    config = load_config(meta_config, MetaConfig)
    gene, study = "GENE3", studies[0]
    j = study.rows_of(gene)[2]
    tests = Tests(names=["burden"], max_maf=[0.2], weights=["flat"])
    catalogue = open_catalogue(config.genes, meta_config.parent)
    path = run_conditional(bundles[:1], catalogue, tests, [study.keys()[j]], tmp_path)
    table = pd.read_parquet(path).query("trait == 'z' and gene == @gene").set_index("mask")
    chosen = study.observed("z")
    X, y = study.design(chosen), study.traits["z"][chosen]
    G = study.dosage[:, chosen]
    G = np.where(np.isnan(G), np.nanmean(G, axis=1, keepdims=True), G)
    r = y - X @ np.linalg.lstsq(X, y, rcond=None)[0]
    sigma2 = r @ r / (len(r) - X.shape[1])
    X = np.column_stack([X, G[j]])
    r = y - X @ np.linalg.lstsq(X, y, rcond=None)[0]
    for mask in table.index:
        burden = np.zeros(len(y))
        for k in in_mask(study, gene, mask):
            f = np.nanmean(study.dosage[k, chosen]) / 2
            if k != j and 0 < f < 1 and min(f, 1 - f) <= 0.2:
                burden += G[k] if f <= 0.5 else 2 - G[k]
        left = burden - X @ np.linalg.lstsq(X, burden, rcond=None)[0]
        U, V = burden @ r / sigma2, left @ left / sigma2
        assert table.loc[mask, "beta"] == pytest.approx(U / V, rel=1e-8)
        assert table.loc[mask, "se"] == pytest.approx(V**-0.5, rel=1e-8)
        assert study.keys()[j] == table.loc[mask, "index_variants"]


@pytest.mark.ci
def test_conditional__leaves_out_a_study_that_lacks_the_index_variant(studies, bundles, meta_config, tmp_path):
    config = load_config(meta_config, MetaConfig)
    tests = Tests(names=["burden", "skat"], max_maf=[0.2], weights=["flat"])
    catalogue = open_catalogue(config.genes, meta_config.parent)
    key = studies[0].keys()[studies[0].rows_of("GENE3")[2]]
    other = studies[1].take_samples(np.arange(studies[1].n))
    place = int(key.split(":")[1])
    other.sets = {gene: [v for v in listed if v[1] != place] for gene, listed in other.sets.items()}
    folder = tmp_path / "other"
    written = other.write(folder, score_statistics=SHARE)
    lacking = run_study(written, folder / "out", Resources(threads=1), "score-statistics").path / "bundle"
    some = pd.read_parquet(run_conditional(bundles[:1], catalogue, tests, [key], tmp_path / "some"))
    every = pd.read_parquet(run_conditional([bundles[0], lacking], catalogue, tests, [key], tmp_path / "every"))
    both = pd.read_parquet(run_conditional(bundles, catalogue, tests, [key], tmp_path / "both"))
    columns = ["gene", "trait", "mask", "test", "n_studies", "n_samples", "n_variants", "statistic", "p"]
    pd.testing.assert_frame_equal(every[columns], some[columns], rtol=1e-9)
    assert every["note"].str.contains(f"without {studies[1].name}: no index variant there").all()
    assert not both["note"].str.contains("no index variant there").any()
    assert (both["n_studies"] == 2).any()


def test_conditional__selects_index_variants_and_refuses_unknown_ones(bundles, meta_config, tmp_path):
    config = load_config(meta_config, MetaConfig)
    catalogue = open_catalogue(config.genes, meta_config.parent)
    tests = Tests(names=["burden", "skat", "omnibus"], max_maf=[0.2], weights=["flat"])
    table = pd.read_parquet(run_conditional(bundles, catalogue, tests, "auto", tmp_path, max_p=0.05))
    assert len(table)
    assert set(table["test"]) == {"burden", "skat"}
    with pytest.raises(MatchError, match="none of the 1 index variants"):
        run_conditional(bundles, catalogue, tests, ["1:1:A:C"], tmp_path)
    with pytest.raises(MatchError, match="not named chromosome"):
        run_conditional(bundles, catalogue, tests, ["rs12"], tmp_path)


def test_conditional__says_which_index_variants_no_row_is_given(studies, bundles, meta_config, tmp_path, caplog):
    config = load_config(meta_config, MetaConfig)
    catalogue = open_catalogue(config.genes, meta_config.parent)
    tests = Tests(names=["burden"], max_maf=[0.2], weights=["flat"])
    chromosome, position, ref, alt = studies[0].keys()[studies[0].rows_of("GENE3")[2]].split(":")
    swapped = f"chr{chromosome}:{position}:{alt}:{ref}"
    with caplog.at_level("WARNING", "locomass"):
        run_conditional(bundles, catalogue, tests, [swapped], tmp_path)
    assert not caplog.text
    with caplog.at_level("WARNING", "locomass"):
        run_conditional(bundles, catalogue, tests, [swapped, "9:1:C:A"], tmp_path)
    assert "no row is given index variant 9:1:A:C" in caplog.text
    assert caplog.text.count("index variant") == 1


def test_conditional__counts_a_common_index_variant_under_the_policy_study(studies, bundles, meta_config, tmp_path):
    catalogue = open_catalogue(load_config(meta_config, MetaConfig).genes, meta_config.parent)
    tests, study = Tests(names=["burden"], max_maf=[0.05], weights=["flat"]), studies[0]
    f = np.nanmean(study.dosage, axis=1) / 2
    index = [study.keys()[j] for j in range(len(f)) if 0.1 < f[j] < 0.9]
    # of one study: its own frequencies are the pooled ones
    joint, own = (
        pd.read_parquet(run_conditional(bundles[:1], catalogue, tests, index, tmp_path / maf, maf))
        for maf in ("joint", "study")
    )
    assert (joint["statistic"] > 0).any()
    pd.testing.assert_frame_equal(own, joint)


def test_conditional__takes_external_frequencies(studies, bundles, meta_config, tmp_path):
    study = studies[0]
    rows = study.rows_of("GENE3")
    rare = set(rows[:3])
    lines = [f"{key} {0.01 if j in rare else 0.3}\n" for j, key in enumerate(study.keys())]
    (tmp_path / "frequencies.txt").write_text("".join(lines))
    tests = {"names": ["burden"], "max_maf": [0.05], "weights": ["flat"]}
    maf = {"external": "frequencies.txt"}
    config = write_meta_config(tmp_path / "meta.yaml", bundles, study, tests=tests, maf=maf)
    table = pd.read_parquet(run_conditional_analysis(config, [], [study.keys()[rows[-1]]], 1.0, tmp_path / "out"))
    assert set(table["gene"]) == {"GENE3"}
    assert table["n_variants"].max() <= 3


# chromosome X


def test_recode_males__refuses_heterozygotes_and_halves_homozygotes():
    indptr, sample = np.array([0, 3, 5]), np.array([0, 1, 2, 0, 1], np.int32)
    dosage = np.array([1, 2, 1, 1, 2], np.int8)
    male = np.array([True, True, False])
    out, heterozygous = recode_males(indptr, sample, dosage, np.array([True, False]), male, 1)
    assert out.tolist() == [-1, 1, 1, 1, 2]
    assert heterozygous == 1
    assert dosage.tolist() == [1, 2, 1, 1, 2]


def write_x(study, folder: Path, shift: int, known: bool = True, **changes) -> tuple[Path, np.ndarray]:
    """Write a study whose chromosome 3 is X, ``shift`` base pairs further; return it and who is male."""
    renamed = {"1": "1", "2": "2", "3": "23"}
    moved = {}
    for old in study.annotations:
        chromosome, position, *alleles = old.split(":")
        moved[old] = ":".join((renamed[chromosome], str(int(position) + shift), *alleles))
    x = dataclasses.replace(
        study, chromosome=[renamed[c] for c in study.chromosome], position=study.position + shift,
        sets={g: [(renamed[c], p + shift, a, b) for c, p, a, b in v] for g, v in study.sets.items()},
        annotations={moved[k]: v for k, v in study.annotations.items()},
    )  # fmt: skip
    config = x.write(folder, **changes)
    male = np.array([s == "M" for s in study.sex])
    fam = folder / "geno.fam"
    lines = [line.split() for line in fam.read_text().splitlines()]
    code = np.where(male, "1", "2") if known else np.full(len(male), "0")
    fam.write_text("".join(" ".join([*f[:4], c, f[5]]) + "\n" for f, c in zip(lines, code, strict=True)))
    return config, male


def read_x(folder: Path):
    bundle = Bundle(folder / "bundle")
    return bundle, bundle.read_genes(["GENE5"])["GENE5"]


@pytest.mark.parametrize("loco", [False, True])
def test_x__sex_is_in_the_null_model_of_x_alone(tmp_path, loco):
    """As if it were among the covariates there, and as if it were not on other chromosomes; on X it matters."""
    study = make_study(4, 400, "x", loco=loco)
    male = np.array([s == "M" for s in study.sex])
    rng = np.random.default_rng(2)
    cc = (rng.random(400) < np.where(male, 0.4, 0.1)).astype(float)
    study = dataclasses.replace(study, traits={"y": study.traits["y"] + 2.0 * male, "cc": cc})
    tables = {}
    for name, categorical in (("without", []), ("with", ["sex"])):
        columns = {"file": "covar.tsv", "quantitative": list(study.covariates), "categorical": categorical}
        config, _ = write_x(study, tmp_path / name, 5_000_000, covariates=columns, tests={"names": ["burden", "skat"]})
        if loco:
            prediction = config.parent / "all.loco"
            prediction.write_text(prediction.read_text().replace("\n3 ", "\n23 "))
        out = run_study(config, tmp_path / name / "out", Resources(threads=1), "meta").path
        tables[name] = pd.read_parquet(out / "gene_tests.parquet")
        models = pd.read_csv(out / "null_models.tsv", sep="\t", dtype={"chromosome": str})
        assert models["chromosome"].eq("23").any() == (loco or name == "without")
    on_x = {name: table[table["chromosome"] == "23"].reset_index(drop=True) for name, table in tables.items()}
    elsewhere = {name: table[table["chromosome"] != "23"].reset_index(drop=True) for name, table in tables.items()}
    columns = ["gene", "trait", "mask", "max_maf", "test", "n_variants"]
    pd.testing.assert_frame_equal(on_x["with"][columns], on_x["without"][columns])
    for column in ("statistic", "log10p", "beta", "se"):
        np.testing.assert_allclose(on_x["with"][column], on_x["without"][column], rtol=1e-5, atol=1e-7)
    assert (np.abs(elsewhere["with"]["log10p"] - elsewhere["without"]["log10p"]) > 0.01).any()
    assert len(on_x["with"]) > 10


def test_x__heterozygous_males_are_missing_and_counted(studies, tmp_path, caplog):
    study = studies[0]
    config, male = write_x(study, tmp_path, 5_000_000)
    with caplog.at_level("WARNING", "locomass"):
        bundle, gene = read_x(run_study(config, tmp_path / "out", Resources(threads=1), "score-statistics").path)
    listed = sorted({r for g in ("GENE5", "GENE6") for r in study.rows_of(g)})
    chosen = study.observed("z") | study.observed("y") | study.observed("cc")
    calls = study.dosage[listed]
    calls = np.where(np.nanmean(calls, axis=1, keepdims=True) > 1, 2 - calls, calls)[:, male & chosen]
    impossible, possible = int((calls == 1).sum()), int((calls == 2).sum())
    assert (bundle.info["male_heterozygotes"], bundle.info["male_hemizygotes"]) == (impossible, possible)
    assert f"{impossible:,} of {impossible + possible:,} rarer-allele calls of males" in caplog.text
    [finding] = [f for f in inspect_bundles([bundle.path]) if f.where == "chromosome X"]
    assert finding.severity == ("error" if impossible >= possible else "warning")
    here = study.observed("z")
    s = bundle.sample_sets[bundle.traits["z"]["sample_set"]]
    for k, j in enumerate(study.rows_of("GENE5")):
        g = study.dosage[j, here].copy()
        g[male[here] & (g == 1)] = np.nan
        assert gene.n_obs[k, s] == np.isfinite(g).sum()
        assert gene.alt_frequency[k, s] == pytest.approx(np.nanmean(g) / 2)


def test_x__samples_of_unknown_sex_are_in_the_log(studies, tmp_path, caplog):
    config, _ = write_x(studies[0], tmp_path, 5_000_000)
    fam = tmp_path / "geno.fam"
    lines = [line.split() for line in fam.read_text().splitlines()]
    fam.write_text("".join(" ".join([*f[:4], "0" if i < 40 else f[4], f[5]]) + "\n" for i, f in enumerate(lines)))
    with caplog.at_level("WARNING", "locomass"):
        bundle, _ = read_x(run_study(config, tmp_path / "out", Resources(threads=1), "score-statistics").path)
    unknown = bundle.info["samples_of_unknown_sex"]
    assert 0 < unknown <= 40
    assert f"the sex of {unknown} of " in caplog.text


def test_x__coding_0_1_halves_hemizygous_calls(studies, tmp_path):
    study = studies[0]
    config, male = write_x(study, tmp_path, 5_000_000, score_statistics={"x_coding": "0/1"})
    bundle, gene = read_x(run_study(config, tmp_path / "out", Resources(threads=1), "score-statistics").path)
    assert bundle.info["x_coding"] == "0/1"
    chosen = study.observed("z")
    X, y = study.design(chosen), study.traits["z"][chosen]  # sex is a covariate
    r = y - X @ np.linalg.lstsq(X, y, rcond=None)[0]
    sigma2 = r @ r / (len(r) - X.shape[1])
    m = male[chosen]
    for k, j in enumerate(study.rows_of("GENE5")):
        g = study.dosage[j, chosen].copy()
        g[m & (g == 1)] = np.nan
        f = np.nanmean(study.dosage[j]) / 2
        g = g if f <= 0.5 else 2 - g
        g[m & (g == 2)] = 1
        g = np.where(np.isnan(g), np.nanmean(g), g)
        U = (1 if f <= 0.5 else -1) * (g @ r) / sigma2
        assert gene.U[k, bundle.traits["z"]["index"]] == pytest.approx(U, rel=1e-8, abs=1e-9)


def test_x__pseudo_autosomal_calls_stay_as_they_are(studies, tmp_path):
    config, _ = write_x(studies[0], tmp_path, 100_000)
    bundle, gene = read_x(run_study(config, tmp_path / "out", Resources(threads=1), "score-statistics").path)
    assert "male_heterozygotes" not in bundle.info
    assert "x_coding" not in bundle.info
    here = studies[0].observed("z")
    s = bundle.sample_sets[bundle.traits["z"]["sample_set"]]
    observed = [np.isfinite(studies[0].dosage[j, here]).sum() for j in studies[0].rows_of("GENE5")]
    assert gene.n_obs[:, s].tolist() == observed


def test_x__without_any_sex_is_an_error(studies, tmp_path):
    config, _ = write_x(studies[0], tmp_path, 5_000_000, known=False)
    with pytest.raises(InputError, match=r"geno\.fam: the sex"):
        run_study(config, tmp_path / "out", Resources(threads=1), "score-statistics")


def test_x__build_matters_where_the_builds_differ(studies, tmp_path):
    config, _ = write_x(studies[0], tmp_path, 2_620_000, genome_build=None)
    with pytest.raises(InputError, match="set genome_build"):
        run_study(config, tmp_path / "out", Resources(threads=1), "score-statistics")


def test_bundle__says_what_it_shares(bundles):
    assert {p.name for p in bundles[0].iterdir()} >= {"laws", "collapsed", "replicates"}
    info = json.loads((bundles[0] / "study.json").read_text())
    assert info["study"] == "s1"


def test_type_one_error_study__counts_p_values(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "studies"))
    import type_one_error as study

    smaller = {name: dataclasses.replace(case, n=150) for name, case in study.SCENARIOS.items()}
    monkeypatch.setattr(study, "SCENARIOS", smaller)
    everything = frozenset((*study.FAST, *study.SLOW, *study.SEARCHES, study.NORMAL))
    counts = {s: study.test_gene(1, s, 40, everything) for s in ("lognormal", "binary 1:10")}
    assert set(study.test_gene(1, "binary 1:10", 8, frozenset({"skat"}))) == {"skat flat", "skat beta_1_25"}
    for found in counts.values():
        assert found["burden flat"][-1] == found["burden flat (normal scores)"][-1] == 40
        assert found["vt flat"][-1] == 5
        assert found["burden flat"][0] <= 10  # P(more than 10 of 40 at 0.05) is 3e-6
    cells, _ = study.describe_above(counts)
    assert cells == len(study.ALPHAS) * sum("normal scores" not in name for found in counts.values() for name in found)
    page = "\n".join(study.format_tables(counts))
    assert "| burden flat | 40 |" in page
