"""A trait that cannot be fitted costs that trait: the others are tested as without it, and its reason is said."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from locomass.commands.check import check_study
from locomass.errors import StatisticsError

REASONS = {
    "no_case": ("nocase", "no cases among the"),
    "separated": ("sep", "covariates separate cases from controls"),
    "men_only": ("psa", "'sex' is a combination of intercept"),
}


@pytest.fixture(scope="module")
def case(open_case):
    return open_case("10-one-trait-stops-all")


@pytest.fixture(scope="module")
def good(case):
    tests = case.tests(case.run("good")).set_index("trait")
    assert tests.loc["y", "p"] == pytest.approx(0.778, abs=5e-4)
    return tests


def test_ok__is_the_law_given_the_cases_of_each_site(case, good):
    """The case's note has 0.178, which is the normal approximation U^2 / V; the null law is exact, so p is 0.162.

    By definition, from the files alone: the number of cases of each site is given, every choice of them is equally
    likely, and p is the probability of a score farther from 0 than the observed one, with half of what is as far. The
    product's law conditions on the covariates by their first two moments: 1.3 % below.
    """
    phenotypes = pd.read_csv(case.folder / "ph.tsv", sep="\t")
    site = pd.read_csv(case.folder / "cv.tsv", sep="\t")["site"].to_numpy()
    y, n = phenotypes["ok"].to_numpy(), len(phenotypes)
    packed = np.frombuffer((case.folder / "c.bed").read_bytes()[3:], np.uint8).reshape(5, -1)
    codes = np.stack([packed >> (2 * k) & 3 for k in range(4)], axis=2).reshape(5, -1)[:, :n]
    g = np.array([2, 9, 1, 0])[codes].sum(axis=0)
    assert g.max() == 2  # nothing is missing
    law, mean, V = np.ones(1), 0.0, 0.0
    for label in np.unique(site):
        here = site == label
        cases, rate = int(y[here].sum()), y[here].mean()
        ways = np.zeros((cases + 1, g[here].sum() + 1))  # by cases and their alleles
        ways[0, 0] = 1.0
        for alleles in g[here].tolist():
            before = ways.copy()
            ways[1:, alleles:] += before[:-1, : ways.shape[1] - alleles]
        law = np.convolve(law, ways[cases] / ways[cases].sum())
        mean += rate * g[here].sum()
        V += rate * (1 - rate) * ((g[here] - g[here].mean()) ** 2).sum()
    U = g[y == 1].sum() - mean
    distance = np.abs(np.arange(law.size) - mean)
    mid_p = law[distance > abs(U) + 1e-9].sum() + 0.5 * law[np.abs(distance - abs(U)) < 1e-9].sum()
    assert mid_p == pytest.approx(0.1642, abs=5e-5)
    assert stats.chi2.sf(U**2 / V, 1) == pytest.approx(0.178, abs=5e-4)
    assert good.loc["ok", "method"] == "exact"
    assert good.loc["ok", "p"] == pytest.approx(mid_p, rel=0.02)


def locomass(case, *arguments):
    command = [sys.executable, "-m", "locomass", *arguments]
    return subprocess.run(command, cwd=case.folder, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("config", REASONS)
def test_one_trait__costs_that_trait(case, good, config):
    trait, reason = REASONS[config]
    results = case.run(config)
    tests = case.tests(results).set_index("trait")
    sound = ["y"] if config == "men_only" else ["y", "ok"]  # its covariate is another than that of good
    assert tests.index.tolist() == sound
    if config != "men_only":
        pd.testing.assert_frame_equal(tests, good)
    models = pd.read_csv(results / "null_models.tsv", sep="\t").set_index("trait")
    assert reason in models.loc[trait, "note"]
    assert models.loc[sound, "note"].isna().all()
    log = (results / "locomass.log").read_text()
    assert f"WARNING trait '{trait}' cannot be fitted and is left out:" in log
    assert reason in log


@pytest.mark.ci
def test_one_trait__is_named_by_check_and_ends_with_exit_code_3(case):
    checked = locomass(case, "check", "men_only.yaml", "--json")
    assert checked.returncode == 3
    assert list(json.loads(checked.stdout)["unfit_traits"]) == ["psa"]
    for _ in range(2):  # the second time everything is up to date
        ran = locomass(case, "run", "men_only.yaml", "--out", "again", "--quiet")
        assert (ran.returncode, ran.stdout) == (3, "")
        assert "trait 'psa' cannot be fitted and is left out" in ran.stderr


def spoil(case, name, traits):
    """Write a study with other traits; return its configuration."""
    table = pd.read_csv(case.folder / "ph.tsv", sep="\t").assign(**traits)
    table.to_csv(case.folder / f"{name}.tsv", sep="\t", index=False, na_rep="NA")
    text = (case.folder / "good.yaml").read_text().replace("ph.tsv", f"{name}.tsv")
    binary = [t for t in traits if set(np.unique(traits[t][~np.isnan(traits[t])])) <= {0.0, 1.0}]
    quantitative = [t for t in traits if t not in binary]
    text = text.replace("[y]", f"[y, {', '.join(quantitative)}]").replace("[ok]", f"[ok, {', '.join(binary)}]")
    (case.folder / f"{name}.yaml").write_text(text)
    return name


def test_every_kind_of_unfit_trait__at_once(case, good):
    n = len(pd.read_csv(case.folder / "ph.tsv", sep="\t"))
    few = np.full(n, np.nan)
    few[:3] = 1.0, 2.5, 4.0
    name = spoil(case, "all", {
        "same": np.full(n, 4.2), "empty": np.full(n, np.nan), "everyone": np.ones(n), "few": few,
    })  # fmt: skip
    tests = case.tests(case.run(name)).set_index("trait")
    pd.testing.assert_frame_equal(tests, good)
    unfit = check_study(case.folder / f"{name}.yaml", None).record["unfit_traits"]
    assert {"same", "everyone", "few"} <= set(unfit) <= {"same", "empty", "everyone", "few"}


def test_no_trait_left__is_an_error_that_names_them_all(case):
    text = (case.folder / "men_only.yaml").read_text().replace("quantitative: [y, psa], binary: []", "binary: [nocase]")
    (case.folder / "none.yaml").write_text(text)
    with pytest.raises(StatisticsError, match="trait 'nocase': the trait has no cases"):
        case.run("none")
    with pytest.raises(StatisticsError, match="trait 'nocase': the trait has no cases"):
        check_study(case.folder / "none.yaml", None)
