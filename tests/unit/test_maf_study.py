"""Frequency policy `maf: study`: the MAF limit of a row is its own, whatever other limits are listed beside it.

Two studies with the same variants, many of them rare in one and not in the other.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import locomass
from locomass.commands.conditional import run_conditional_analysis
from locomass.commands.meta import run_meta_analysis
from locomass.commands.outcome import Resources
from locomass.commands.run import run_study
from tests.factories import make_study, write_meta_config

LOW, HIGH = 0.03, 0.2
GENES = ("GENE1", "GENE4")
NAMES = [
    "burden", "skat", "skat-o", "acat-o", "vt", "cmc", "skat-joint", "skat-het", "burden-het", "random-effects",
    "step-up", "burden-dominant", "vt-dominant", "omnibus",
]  # fmt: skip
STEP_UP = {"permutations": 200, "exceedances": 200, "seed": 5}
KEYS = ["gene", "trait", "mask", "max_maf", "weights", "test"]
ONE = Resources(threads=1)


@pytest.fixture(scope="module")
def studies():
    made = [make_study(seed, n, f"s{seed}", loco=False) for seed, n in ((1, 160), (2, 300))]
    out = []
    for study in made:
        sets = {gene: study.sets[gene] for gene in GENES}
        traits = {name: study.traits[name] for name in ("y", "cc")}
        out.append(dataclasses.replace(study, sets=sets, traits=traits))
    return out


@pytest.fixture(scope="module")
def bundles(studies, tmp_path_factory) -> list[Path]:
    out = []
    for study in studies:
        folder = tmp_path_factory.mktemp(study.name)
        share = {"modes": ["dominant"], "thresholds": [LOW, HIGH], "replicates": 200}
        config = study.write(folder, score_statistics=share)
        out.append(run_study(config, folder / "out", ONE, "score-statistics").path / "bundle")
    return out


@pytest.fixture(scope="module")
def configs(studies, bundles, tmp_path_factory) -> dict[str, Path]:
    out = {}
    for name, limits in (("one", [LOW]), ("two", [LOW, HIGH])):
        tests = {"names": NAMES, "max_maf": limits, "weights": ["flat"], "drivers_p": 1.0, "step_up": STEP_UP}
        path = tmp_path_factory.mktemp(name) / "meta.yaml"
        out[name] = write_meta_config(path, bundles, studies[0], tests=tests, maf="study")
    return out


@pytest.fixture(scope="module")
def results(configs) -> dict[str, Path]:
    return {name: run_meta_analysis(c, [], c.parent / "out", ONE, "meta").path for name, c in configs.items()}


@pytest.mark.parametrize(
    "table", ["gene_tests", "single_variants", "study_effects", "forests", "leave_one_out", "heterogeneity", "drivers"]
)
def test_rows_of_a_limit__do_not_change_when_another_is_listed(results, table):
    one, two = (pd.read_parquet(results[name] / f"{table}.parquet") for name in ("one", "two"))
    if "max_maf" in two:
        wider = two[two["max_maf"] == HIGH]
        assert len(wider)
        two = two[two["max_maf"] != HIGH]
    if table == "gene_tests":
        one = one[one["test"] != "omnibus"]  # takes the rows of all limits together
    assert len(one) > 10
    pd.testing.assert_frame_equal(one.reset_index(drop=True), two.reset_index(drop=True), check_exact=True)


def test_conditional_rows_of_a_limit__do_not_change_when_another_is_listed(configs, studies, tmp_path):
    f = np.nanmean(studies[0].dosage, axis=1) / 2
    index = [studies[0].keys()[j] for g in GENES for j in studies[0].rows_of(g) if 0.1 < f[j] < 0.9]
    one, two = (
        pd.read_parquet(run_conditional_analysis(configs[name], [], index, 1.0, tmp_path / name, ONE))
        for name in ("one", "two")
    )
    assert (two["max_maf"] == HIGH).any()
    two = two[two["max_maf"] == LOW].reset_index(drop=True)
    pd.testing.assert_frame_equal(one, two, check_exact=True)
    assert len(one) > 10


def name_of(s: locomass.GeneStatistics, label: tuple) -> tuple[str, int, tuple[str, ...]]:
    return s.chromosome, int(label[0]), tuple(sorted(label[1:]))


def takes(study) -> set[tuple[str, int, tuple[str, ...]]]:
    """The variants of mask M2, alleles in any order."""
    split = (name.split(":") for name, category in study.annotations.items() if category in {"LoF", "missense"})
    return {(c, int(p), tuple(sorted(alleles))) for c, p, *alleles in split}


def contribute(one: locomass.GeneStatistics, keys: list[tuple], bound: float, rare: set[tuple], mask: set[tuple]):
    """U, V, carriers' alleles and number of variants of the burden that one study contributes, minor allele counted."""
    own = [(int(p), r, a) for p, r, a in zip(one.position, one.ref, one.alt, strict=True)]
    minor = np.minimum(one.alt_frequency, 1 - one.alt_frequency)
    w = np.array([
        (1.0 if rare_sign > 0 else -1.0) if k in rare and k in mask and m <= bound else 0.0
        for k, m, rare_sign in zip(own, minor, (dict(keys)[k] for k in own), strict=True)
    ])  # fmt: skip
    count = np.where(w < 0, one.allele_number - one.alt_count, one.alt_count)
    return w @ one.U, w @ one.V @ w, float(count[w != 0].sum()), {k for k, x in zip(own, w, strict=True) if x}


@pytest.mark.parametrize("bound", [LOW, HIGH])
def test_burden__is_of_what_each_study_contributes(bundles, studies, results, bound):
    """From the definition: rare when pooled, and rare in the study; counts are of the same."""
    rows = pd.read_parquet(results["two"] / "gene_tests.parquet").set_index(KEYS).sort_index()
    opened, less = [locomass.open_bundle(path) for path in bundles], 0
    for gene in GENES:
        for trait in ("y", "cc"):
            pooled = locomass.gene_statistics(opened, gene, trait)
            labels = [(int(p), r, a) for p, r, a in zip(pooled.position, pooled.ref, pooled.alt, strict=True)]
            sign = [(k, 1 if f <= 0.5 else -1) for k, f in zip(labels, pooled.alt_frequency, strict=True)]
            minor = np.minimum(pooled.alt_frequency, 1 - pooled.alt_frequency)
            rare = {k for k, f in zip(labels, minor, strict=True) if f <= bound}
            mask = {k for k in labels if name_of(pooled, k) in takes(studies[0])}
            parts = [contribute(locomass.gene_statistics(b, gene, trait), sign, bound, rare, mask) for b in opened]
            U, V, mac = (sum(part[i] for part in parts) for i in range(3))
            row = rows.loc[(gene, trait, "M2", bound, "flat", "burden")]
            assert row["statistic"] == pytest.approx(U**2 / V, rel=1e-9)
            assert row["mac"] == mac
            assert row["n_variants"] == len(set.union(*(part[3] for part in parts)))
            assert row["n_studies"] == sum(bool(part[3]) for part in parts)
            everywhere = np.where(pooled.alt_frequency > 0.5, pooled.allele_number - pooled.alt_count, pooled.alt_count)
            less += mac < sum(c for k, c in zip(labels, everywhere, strict=True) if k in rare & mask)
    assert less or bound == HIGH  # else the policy would change nothing here


def test_python_interface__gives_the_rows_of_the_run(bundles, studies, results):
    rows = pd.read_parquet(results["two"] / "gene_tests.parquet").set_index(KEYS).sort_index()
    opened = [locomass.open_bundle(path) for path in bundles]
    for trait in ("y", "cc"):
        s = locomass.gene_statistics(opened, "GENE1", trait, maf="study")
        labels = zip(s.position, s.ref, s.alt, strict=True)
        mask = np.array([name_of(s, k) in takes(studies[0]) for k in labels])
        for bound in (LOW, HIGH):
            for test in ("burden", "skat"):
                got = locomass.run_test(s, test, weights="flat", max_maf=bound, variants=mask)
                row = rows.loc[("GENE1", trait, "M2", bound, "flat", test)]
                assert (got.log10p, got.mac) == pytest.approx((row["log10p"], row["mac"]), rel=1e-9)
                assert got.n_variants == row["n_variants"]
