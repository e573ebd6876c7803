"""Ranks made normal, what they change on the way through a study, and what is said of residuals far from normal."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from locomass.bundle.open import open_bundle
from locomass.commands.check import check_study
from locomass.commands.outcome import Resources
from locomass.commands.run import run_study
from locomass.config import RunConfig, load_config
from locomass.denoise import transform_traits
from locomass.errors import ConfigError
from locomass.meta.inspect import inspect_bundles
from locomass.null_models.transform import rank_normal, residual_moments
from locomass.numbers import is_far_from_normal
from locomass.tables.cohort import open_cohort
from tests import reference
from tests.factories import make_study

THREAD = Resources(threads=1)


@pytest.fixture
def skewed():
    """A study whose trait y is lognormal, and tied in places."""
    study = make_study(3, 200, loco=False)
    study.traits["y"] = np.round(np.exp(study.traits["y"]), 0)
    return study


def cohort_of(study, folder, **phenotypes):
    config = study.write(folder, phenotypes=study._config()["phenotypes"] | phenotypes)
    return open_cohort(load_config(config, RunConfig), folder)


@pytest.mark.parametrize("values", [[3.0, 1.0, 2.0], [5.0, 5.0, 1.0, np.nan, 9.0, 5.0], [2.0]])
def test_rank_normal__is_the_definition(values):
    np.testing.assert_allclose(rank_normal(np.array(values)), reference.rank_normal(values), rtol=1e-12, atol=1e-15)


def test_rank_normal__knows_only_the_order():
    values = np.random.default_rng(1).normal(size=50)
    np.testing.assert_array_equal(rank_normal(np.exp(values)), rank_normal(7 + 3 * values))
    order = np.random.default_rng(2).permutation(50)
    np.testing.assert_array_equal(rank_normal(values)[order], rank_normal(values[order]))


def test_values_are_ranked_among_the_analysed_people(skewed, tmp_path):
    plain, ranked = cohort_of(skewed, tmp_path), transform_traits(cohort_of(skewed, tmp_path, transform={"y": "rint"}))
    k = [t.name for t in plain.traits].index("y")
    np.testing.assert_allclose(ranked.y[:, k], reference.rank_normal(plain.y[:, k]), rtol=1e-12, atol=1e-15)
    others = np.arange(len(plain.traits)) != k
    np.testing.assert_array_equal(ranked.y[:, others], plain.y[:, others])


def test_residuals_are_ranked_after_covariates(skewed, tmp_path):
    plain = cohort_of(skewed, tmp_path)
    ranked = transform_traits(cohort_of(skewed, tmp_path, transform="rint-residuals"))
    for k, trait in enumerate(plain.traits):
        known = np.isfinite(plain.y[:, k])
        if trait.kind != "quantitative":
            np.testing.assert_array_equal(ranked.y[:, k], plain.y[:, k])
            continue
        X = plain.design(known)[0]
        y = plain.y[known, k]
        left = y - X @ np.linalg.lstsq(X, y, rcond=None)[0]
        np.testing.assert_allclose(ranked.y[known, k], reference.rank_normal(np.round(left, 8)), rtol=1e-12, atol=1e-15)


def test_a_run_on_ranks_is_a_run_on_a_table_of_ranks(skewed, tmp_path):
    config = skewed.write(tmp_path / "a", phenotypes=skewed._config()["phenotypes"] | {"transform": {"y": "rint"}})
    ours = run_study(config, tmp_path / "out", THREAD, "meta").path
    cohort = transform_traits(open_cohort(load_config(config, RunConfig), config.parent))
    by_hand = replace(skewed, traits=dict(skewed.traits))
    place = {iid: i for i, iid in enumerate(skewed.samples)}
    values = np.full(len(skewed.samples), np.nan)
    values[[place[i] for i in cohort.iid]] = cohort.y[:, [t.name for t in cohort.traits].index("y")]
    by_hand.traits["y"] = values
    theirs = run_study(by_hand.write(tmp_path / "b"), tmp_path / "b" / "out", THREAD, "meta").path
    tables = [pd.read_parquet(path / "gene_tests.parquet") for path in (ours, theirs)]
    assert (tables[0]["trait"] == "y").any()
    pd.testing.assert_frame_equal(*tables, rtol=1e-6)
    trait = open_bundle(ours / "bundle").traits["y"]
    assert trait["transform"] == "rint"
    # a second run without the key computes the trait again
    (config.parent / "study.yaml").write_text(config.read_text().replace("transform", "# transform"))
    skewed.write(tmp_path / "a")
    again = run_study(tmp_path / "a" / "study.yaml", tmp_path / "out", THREAD, "meta").path
    assert "transform" not in open_bundle(again / "bundle").traits["y"]
    changed = pd.read_parquet(again / "gene_tests.parquet")
    assert not np.allclose(changed["log10p"][changed["trait"] == "y"], tables[0]["log10p"][tables[0]["trait"] == "y"])


@pytest.mark.parametrize(
    ("transform", "match"),
    [
        ({"cc": "rint"}, "key phenotypes.transform: 'cc' is not a quantitative trait"),
        ({"Y": "rint"}, "'Y' is not a quantitative trait; known: w, y, z"),
        ("log", "transform"),
    ],
)
def test_a_transform_that_cannot_be(skewed, tmp_path, transform, match):
    with pytest.raises(ConfigError, match=match):
        cohort_of(skewed, tmp_path, transform=transform)


@pytest.mark.parametrize(
    ("draw", "far"),
    [("standard_normal", False), ("standard_exponential", True), ("uniform", False), ("standard_cauchy", True)],
)
def test_what_is_far_from_normal(draw, far):
    values = getattr(np.random.default_rng(5), draw)(size=2_000)
    assert is_far_from_normal(*residual_moments(values - values.mean()), len(values)) is far
    assert not is_far_from_normal(*residual_moments(rank_normal(values)), len(values))
    assert not is_far_from_normal(1.5, 0.0, 20)  # of 20 values, that is noise


def test_check_and_run_name_traits_far_from_normal(skewed, tmp_path, caplog):
    config = skewed.write(tmp_path)
    check_study(config, None)
    assert [m for m in caplog.messages if "trait 'y': its residuals are far from normal (skewness" in m]
    assert not [m for m in caplog.messages if "trait 'z': its residuals" in m]
    caplog.clear()
    out = run_study(config, tmp_path / "out", THREAD, "denoise").path
    assert [m for m in caplog.messages if "transform: rint" in m]
    models = pd.read_csv(out / "null_models.tsv", sep="\t").set_index("trait")
    assert models.loc["y", "skewness"] > 1
    assert np.isnan(models.loc["cc", "skewness"])


def test_studies_that_transform_differently_are_told(tmp_path):
    bundles = []
    for seed, transform in enumerate(("none", "rint")):
        study = make_study(seed, 150, f"s{seed}", loco=False)
        config = study.write(
            tmp_path / f"s{seed}", phenotypes=study._config()["phenotypes"] | {"transform": {"z": transform}}
        )
        bundles.append(run_study(config, tmp_path / f"out{seed}", THREAD, "score-statistics").path / "bundle")
    found = [f for f in inspect_bundles(bundles) if "transformed differently" in f.what]
    assert [f.severity for f in found] == ["warning"]
    assert found[0].where == "none: s0; rint: s1"
