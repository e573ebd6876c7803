"""One way from bundles to rows: `meta`, study effects, forests, conditional tests and the Python interface agree.

Three studies of 1,100 people with 60 cases together, calibrated, in two groups; a quantitative trait beside it.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import chi2

import locomass
from locomass.commands.conditional import run_conditional_analysis
from locomass.commands.meta import run_meta_analysis
from locomass.commands.outcome import Resources
from locomass.commands.run import run_study
from tests.factories import make_study, write_meta_config

CASES = {"a": (400, 24), "b": (420, 20), "c": (280, 16)}
GROUPS = {"north": ["a", "b"], "south": ["c"]}
TESTS = {
    "names": ["burden", "skat", "acat-v", "acat-o", "vt", "skat-o", "burden-het", "skat-het", "cmc", "omnibus"],
    "max_maf": [0.03, 0.2],
    "weights": ["flat", "beta_1_25"],
    "drivers_p": 0.3,
}
MASKS = {"M1": {"LoF"}, "M2": {"LoF", "missense"}}
TRAITS = ("cc", "y")
KEYS = ["gene", "trait", "mask", "max_maf", "weights", "test"]


@pytest.fixture(scope="module")
def studies():
    out = []
    for seed, (name, (n, n_cases)) in enumerate(CASES.items(), 1):
        study = make_study(seed, n, name, sites_seed=7, loco=False)
        rng = np.random.default_rng(seed)
        cc = np.zeros(n)
        cc[rng.choice(n, n_cases, replace=False)] = 1.0
        out.append(dataclasses.replace(study, traits={"cc": cc, "y": study.traits["y"]}))
    return out


@pytest.fixture(scope="module")
def bundles(studies, tmp_path_factory):
    out = []
    for study in studies:
        folder = tmp_path_factory.mktemp(study.name)
        config = study.write(folder, score_statistics={"thresholds": [0.03, 0.2]})
        out.append(run_study(config, folder / "out", Resources(threads=1), "score-statistics").path / "bundle")
    return out


@pytest.fixture(scope="module")
def config(studies, bundles, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("meta") / "meta.yaml"
    return write_meta_config(path, bundles, studies[0], tests=TESTS, groups=GROUPS)


@pytest.fixture(scope="module")
def results(config) -> Path:
    return run_meta_analysis(config, [], config.parent / "out", Resources(threads=1), "meta").path


@pytest.fixture(scope="module")
def rows(results) -> pd.DataFrame:
    return pd.read_parquet(results / "gene_tests.parquet").set_index(KEYS).sort_index()


@pytest.fixture(scope="module")
def statistics(bundles):
    opened = [locomass.open_bundle(path) for path in bundles]
    genes = opened[0].index
    return {(g, t): locomass.gene_statistics(opened, g, t, groups=GROUPS) for g in genes for t in TRAITS}


def members(study, gene, mask, s):
    """(m,) which variants of a gene's statistics a mask takes."""
    names = (study.keys()[r] for r in study.rows_of(gene))
    taken = {tuple(sorted(n.split(":")[1:])) for n in names if study.annotations[n] in MASKS[mask]}
    return np.array([tuple(sorted((str(p), r, a))) in taken for p, r, a in zip(s.position, s.ref, s.alt, strict=True)])


@pytest.mark.ci
def test_python_interface__gives_every_row_of_the_run(studies, statistics, rows):
    compared = calibrated = 0
    some = rows.drop("omnibus", level="test").loc[["GENE1", "GENE4"]]
    for (gene, trait, mask, max_maf, weights, test), row in some.iterrows():
        s = statistics[gene, trait]
        variants = members(studies[0], gene, mask, s)
        got = locomass.run_test(s, test, weights=weights, max_maf=max_maf, variants=variants, mask=mask)
        assert (got.note, got.method, got.choice) == (row["note"], row["method"], row["choice"])
        # the set list and the first study may name an allele the other way round: signs of effects go with it
        want = row[["statistic", "log10p", "se"]].to_numpy(float)
        assert [got.statistic, got.log10p, got.se] == pytest.approx(want, rel=1e-9, abs=1e-12, nan_ok=True)
        assert abs(got.beta) == pytest.approx(abs(row["beta"]), rel=1e-9, nan_ok=True)
        compared += 1
        calibrated += got.method in ("exact", "convolution", "case-count draws", "case-count splitting")
    assert compared > 150
    assert calibrated > 10  # of two genes


def test_calibration__matters_in_these_studies(bundles, studies, statistics):
    """Else the comparisons of this file would say little."""
    opened, ratios = [locomass.open_bundle(path) for path in bundles], []
    for (gene, trait), s in statistics.items():
        if trait == "cc":
            plain = locomass.gene_statistics(opened, gene, trait, null_law="normal")
            taken = members(studies[0], gene, "M2", s)
            p = [locomass.run_test(x, "burden", max_maf=0.2, variants=taken, mask="M2").log10p for x in (s, plain)]
            ratios.append(abs(p[0] - p[1]))
    assert max(ratios) > 0.02


def test_study_effects__add_up_to_the_row(results, rows):
    effects = pd.read_parquet(results / "study_effects.parquet")
    burdens = effects[(effects["test"] == "burden") & (effects["se"] > 0)]
    burdens = burdens[burdens["trait"] == "y"]  # odds ratios are joint estimates, no weighted means
    V = burdens["se"] ** -2.0
    sums = burdens.assign(V=V, U=burdens["beta"] * V).groupby(KEYS)[["U", "V"]].sum()
    row = rows.loc[sums.index]
    np.testing.assert_allclose(sums["V"], row["se"] ** -2.0, rtol=1e-9)
    np.testing.assert_allclose(sums["U"] / sums["V"], row["beta"], rtol=1e-9)
    assert len(sums)
    assert (effects.set_index(KEYS)["log10p"] == rows.loc[effects.set_index(KEYS).index, "log10p"]).all()


def test_conditional__regresses_the_index_out_of_what_the_run_tests(config, studies, statistics):
    """Burdens, from the interface's U and V of the groups: given c, U - V_c U_c / V_cc."""
    s = statistics["GENE1", "cc"]
    c = int(np.argmin(np.abs(s.alt_frequency - 0.5)))
    index = f"{s.chromosome}:{s.position[c]}:{s.ref[c]}:{s.alt[c]}"
    table = pd.read_parquet(
        run_conditional_analysis(config, [], [index], 1.0, config.parent / "conditional", Resources(threads=2))
    )
    table = table[(table["gene"] == "GENE1") & (table["test"] == "burden") & (table["weights"] == "flat")]
    compared = 0
    for trait in TRAITS:
        s = statistics["GENE1", trait]
        turn = np.where(s.alt_frequency > 0.5, -1.0, 1.0)
        bounded = np.minimum(s.alt_frequency, 1 - s.alt_frequency)
        U, V = s.U - s.V[:, c] * s.U[c] / s.V[c, c], s.V - np.outer(s.V[:, c], s.V[c]) / s.V[c, c]
        for mask in MASKS:
            for bound in TESTS["max_maf"]:
                taken = members(studies[0], "GENE1", mask, s) & (bounded <= bound)
                w = turn * taken
                w[c] = 0.0
                if not w.any():
                    continue
                found = table[(table["trait"] == trait) & (table["mask"] == mask) & (table["max_maf"] == bound)]
                expected = (w @ U) ** 2 / (w @ V @ w)
                assert found["statistic"].item() == pytest.approx(expected, rel=1e-8)
                assert found["p"].item() == pytest.approx(chi2.sf(expected, 1), rel=1e-8)
                compared += 1
    assert compared >= 6


CHOICES = {
    "vt": r"threshold=0\.\d+",
    "skat-o": r"rho=[\d.]+",
    "acat-o": r"component=(skat|burden|acat-v) \((flat|beta_1_25)\)",
    "omnibus": r"row=M[12] 0\.\d+ [a-z-]+( [a-z_\d+]+)?",
}


def test_choice__says_what_a_test_chose_and_others_say_nothing(rows):
    with_p = rows[rows["p"].notna()]
    for test, part in with_p.groupby("test"):
        expected = CHOICES.get(test, "")
        assert part["choice"].str.fullmatch(expected).all(), (test, part["choice"].unique()[:3])
    assert (rows.loc[rows["p"].isna(), "choice"] == "").all()


def test_choice__of_the_omnibus_is_the_smallest_row(rows):
    for (_, _), part in rows.groupby(["gene", "trait"]):
        omnibus, rest = part.xs("omnibus", level="test"), part.drop("omnibus", level="test")
        mask, bound, test, *weights = omnibus["choice"].item().removeprefix("row=").split(" ")
        gene, trait = part.index[0][:2]
        chosen = rest.loc[(gene, trait, mask, float(bound), weights[0] if weights else "", test)]
        assert chosen["log10p"] == rest["log10p"].max()


def test_choice__of_vt_is_the_threshold_whose_burden_is_largest(statistics, studies, rows):
    """Brute force: burdens under every frequency of the variants, from the interface's U and V."""
    s = statistics["GENE1", "y"]
    turn = np.where(s.alt_frequency > 0.5, -1.0, 1.0)
    maf = np.minimum(s.alt_frequency, 1 - s.alt_frequency)
    taken = members(studies[0], "GENE1", "M2", s) & (maf <= 0.2)
    z = {f: abs((w := turn * (taken & (maf <= f))) @ s.U) / np.sqrt(w @ s.V @ w) for f in np.unique(maf[taken])}
    row = rows.loc[("GENE1", "y", "M2", 0.2, "flat", "vt")]
    assert row["choice"] == f"threshold={max(z, key=z.get):g}"
