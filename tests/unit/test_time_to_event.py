"""Times to events from the phenotype file to p-values: one study and several, and what is wrong with an input."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from scipy.interpolate import PchipInterpolator
from scipy.stats import chi2

from locomass.commands.meta import run_meta_analysis
from locomass.commands.outcome import Resources
from locomass.commands.run import run_study
from locomass.config import RunConfig, load_config
from locomass.errors import InputError, StatisticsError
from locomass.gene_tests.law import Law
from locomass.gene_tests.law_tails import score_log_p
from locomass.predict.martingale import use_martingale_residuals
from locomass.tables.cohort import open_cohort
from studies.time_to_event import draw_study
from tests import reference_cox
from tests.factories import make_study, write_meta_config

SPEC = {"time": "time", "event": "event", "entry": "entry", "strata": ["centre"]}
MASKS = {"M1": ["LoF"], "M2": ["LoF", "missense"]}
TESTS = {"names": ["burden", "skat", "acat-o"], "max_maf": [0.05, 0.5], "weights": ["flat"], "null_law": "normal"}


def make_timed(seed, n=220, ties=12.0, **changes):
    """Return a study with the time to an event ``t``; times are rounded up, two centres."""
    study = make_study(seed, n, f"s{seed}", loco=False)
    rng = np.random.default_rng(100 + seed)
    hazard = np.exp(0.03 * (study.covariates["age"] - 50) + 0.4 * (np.array(study.sex) == "M"))
    failure, end = rng.exponential(1 / hazard), rng.exponential(1.5, n)
    time = np.ceil(np.minimum(failure, end) * ties) / ties
    entry = np.where(rng.random(n) < 0.5, 0.0, time * rng.uniform(0, 0.9, n))
    time[rng.random(n) < 0.05] = np.nan
    study.traits = {
        "time": time, "event": (failure <= end).astype(float), "entry": entry,
        "centre": rng.choice(["north", "south"], n).astype(object),
    }  # fmt: skip
    phenotypes = {"file": "pheno.tsv", "time_to_event": {"t": SPEC}}
    study.config = {"phenotypes": phenotypes, "tests": TESTS, **changes}
    study.binary = ("event",)
    return study


@pytest.fixture(scope="module")
def studies():
    return [make_timed(seed) for seed in (1, 2, 3)]


@pytest.fixture(scope="module")
def runs(studies, tmp_path_factory):
    folders = [tmp_path_factory.mktemp(study.name) for study in studies]
    return [
        run_study(study.write(folder), folder / "out", Resources(threads=1), "meta").path
        for study, folder in zip(studies, folders, strict=True)
    ]


def score_test(study, gene):
    """Return rows of the genotype matrix, U and V of a gene's variants by the definition, missing calls imputed."""
    t = study.traits
    known = study.observed("time")
    rows = study.rows_of(gene)
    G = study.dosage[rows][:, known].T
    G = np.where(np.isnan(G), np.nanmean(G, axis=0), G)
    X = study.design(known)[:, 1:]
    own = (t["entry"][known], t["time"][known], t["event"][known] == 1, (t["centre"][known] == "north").astype(int))
    return rows, *reference_cox.score_test(*own, X - X.mean(axis=0), G, np.zeros(known.sum()))


def burden_p(U, V):
    return chi2.sf(U.sum() ** 2 / V.sum(), 1)


def counted(study, rows):
    """Return +1 where ALT is the minor allele among the studied people, else -1, and its frequency."""
    known = study.observed("time")
    f = np.nanmean(study.dosage[rows][:, known], axis=1) / 2
    return np.where(f > 0.5, -1.0, 1.0), np.minimum(f, 1 - f)


def test_burden__is_the_score_test_of_coxph(studies, runs):
    found = pd.read_parquet(runs[0] / "gene_tests.parquet")
    for gene in studies[0].sets:
        rows, U, V = score_test(studies[0], gene)
        sign, f = counted(studies[0], rows)
        category = np.array([studies[0].annotations[studies[0].keys()[r]] for r in rows])
        for mask, taken in MASKS.items():
            at = np.isin(category, taken) & (f <= 0.5)
            own = found[(found["gene"] == gene) & (found["mask"] == mask)].query("test == 'burden' and max_maf == 0.5")
            if not at.any():
                continue
            p = burden_p((sign * U)[at], (np.outer(sign, sign) * V)[np.ix_(at, at)])
            assert own["p"].item() == pytest.approx(p, rel=1e-8)


def test_meta__is_the_pooled_stratified_score_test(studies, runs, tmp_path):
    config = write_meta_config(
        tmp_path / "meta.yaml", [run / "bundle" for run in runs], studies[0], tests={**TESTS, "max_maf": [0.5]}
    )
    out = run_meta_analysis(config, [], tmp_path / "out", Resources(threads=1), "meta").path
    found = pd.read_parquet(out / "gene_tests.parquet").query("test == 'burden' and mask == 'M2'").set_index("gene")
    for gene in studies[0].sets:
        parts = [score_test(study, gene) for study in studies]
        rows = parts[0][0]
        alleles = np.stack([np.nansum(s.dosage[rows][:, s.observed("time")], axis=1) for s in studies])
        calls = np.stack([np.isfinite(s.dosage[rows][:, s.observed("time")]).sum(axis=1) for s in studies])
        sign = np.where(alleles.sum(axis=0) > calls.sum(axis=0), -1.0, 1.0)
        category = np.array([studies[0].annotations[studies[0].keys()[r]] for r in rows])
        at = np.isin(category, ["LoF", "missense"])
        U, V = sum(p[1] for p in parts) * sign, sum(p[2] for p in parts) * np.outer(sign, sign)
        assert found.loc[gene, "p"] == pytest.approx(burden_p(U[at], V[np.ix_(at, at)]), rel=1e-8)


def test_bundle__tells_events_and_person_time(studies, runs):
    info = json.loads((runs[0] / "bundle" / "study.json").read_text())
    trait = info["traits"][0]
    t, known = studies[0].traits, studies[0].observed("time")
    assert trait["kind"] == "time_to_event"
    assert trait["n_cases"] == t["event"][known].sum()
    assert trait["person_time"] == pytest.approx((t["time"] - t["entry"])[known].sum())
    told = trait["residuals"]
    assert np.dot(told["chance"], np.square(told["node"])) == pytest.approx(1)


def test_bundle__withholds_few_events(tmp_path):
    study = make_timed(4, score_statistics={"min_cell": 20})
    study.traits["event"][np.flatnonzero(study.observed("time"))[12:]] = 0.0
    run = run_study(study.write(tmp_path), tmp_path / "out", Resources(threads=1), "meta").path
    text = (run / "bundle" / "study.json").read_text()
    trait = json.loads(text)["traits"][0]
    assert trait["n_cases"] is None
    assert trait["person_time"] is None
    assert min(trait["residuals"]["chance"]) * trait["n_samples"] > 19.5


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("time", -1.0, "column entry.*entry is before the end"),
        ("entry", -2.0, "column entry.*0 or more"),
        ("event", 2.0, "column event.*an event is 1"),
        ("entry", 1e6, "column entry.*entry is before the end"),
        ("time", np.inf, "column time: expected a number"),
    ],
)
def test_run__raises_on_a_value_that_cannot_be(column, value, words, tmp_path):
    study = make_timed(1)
    study.binary = ()
    row = int(np.flatnonzero(np.isfinite(study.traits["time"]))[3])
    study.traits[column][row] = value
    with pytest.raises(InputError, match=f"(?s)line {row + 2}, {words}"):
        run_study(study.write(tmp_path), tmp_path / "out", Resources(threads=1), "meta")
    assert not (tmp_path / "out" / "bundle").exists()


def test_run__raises_on_a_negative_time_without_entry(tmp_path):
    study = make_timed(1)
    study.config["phenotypes"]["time_to_event"] = {"t": {"time": "time", "event": "event"}}
    study.traits["time"][7] = -3.0
    with pytest.raises(InputError, match=r"line 9.*a time is 0 or more; got -3"):
        run_study(study.write(tmp_path), tmp_path / "out", Resources(threads=1), "meta")


@pytest.mark.parametrize(("events", "words"), [(0, "no events"), (1, "one event")])
def test_run__raises_on_too_few_events(events, words, tmp_path):
    study = make_timed(1)
    study.traits["event"][:] = 0.0
    study.traits["event"][np.flatnonzero(study.observed("time"))[:events]] = 1.0
    with pytest.raises(StatisticsError, match=f"trait 't'.*{words}"):
        run_study(study.write(tmp_path), tmp_path / "out", Resources(threads=1), "meta")


def test_run__raises_on_a_column_that_is_not_there(tmp_path):
    study = make_timed(1)
    study.config["phenotypes"]["time_to_event"] = {"t": {**SPEC, "event": "evnt"}}
    with pytest.raises(InputError, match=r"column 'evnt' is not in pheno.tsv.*event"):
        run_study(study.write(tmp_path), tmp_path / "out", Resources(threads=1), "meta")


@pytest.mark.parametrize("events", [None, 15])
def test_law__is_that_of_permuted_residuals(events, tmp_path):
    """One variant set at a time; 20,000 permutations have a standard error of 0.004, covariates change p a little."""
    tests = {"names": ["burden", "skat"], "max_maf": [0.5], "weights": ["flat"]}
    study = make_timed(1, 500, ties=500.0, tests=tests)
    known = study.observed("time")
    if events:
        study.traits["event"][np.flatnonzero((study.traits["event"] == 1) & known)[events:]] = 0.0
    run = run_study(study.write(tmp_path), tmp_path / "out", Resources(threads=1), "meta").path
    found = pd.read_parquet(run / "gene_tests.parquet").query("mask == 'M2'").set_index(["gene", "test"])
    with np.load(run / "denoise" / "all.npz") as data, np.load(run / "denoise" / "study.npz") as shared:
        residual = data["columns"][:, 0]
        people = [study.samples.index(label.split("_")[-1]) for label in shared["samples"]]
    rng = np.random.default_rng(0)
    permuted = rng.permuted(np.tile(residual, (20_000, 1)), axis=1)
    for gene in list(study.sets)[:3]:
        rows, U, V = score_test(study, gene)
        sign, _ = counted(study, rows)
        category = np.array([study.annotations[study.keys()[r]] for r in rows])
        at = np.isin(category, MASKS["M2"])
        G = study.dosage[rows][at][:, people].T
        G = (np.where(np.isnan(G), np.nanmean(G, axis=0), G)) * sign[at]
        G = G - G.mean(axis=0)
        drawn, seen = permuted @ G, residual @ G
        burden = (np.abs(drawn.sum(axis=1)) >= abs(seen.sum())).mean()
        skat = ((drawn**2).sum(axis=1) >= (seen**2).sum()).mean()
        assert found.loc[(gene, "burden"), "p"] == pytest.approx(burden, abs=0.05)
        assert found.loc[(gene, "skat"), "p"] == pytest.approx(skat, abs=0.05)
        s = sign[at]
        information = s @ V[np.ix_(at, at)] @ s  # effects go by the information, p-values by the law
        assert found.loc[(gene, "burden"), "beta"] == pytest.approx((s @ U[at]) / information, rel=1e-6)
        assert found.loc[(gene, "burden"), "se"] == pytest.approx(information**-0.5, rel=1e-6)


@pytest.mark.ci
def test_law__over_five_studies_has_its_size_in_the_tail():
    """Ten carriers in five studies, half of the people with events: 200,000 draws of who they are.

    A p-value is a function of |U| and of how many carriers each study has: read off the law at nine sizes.
    """
    rng = np.random.default_rng(3)
    studies = [draw_study(rng, 1_000, 0.5) for _ in range(5)]
    share, times = np.unique(rng.multinomial(10, np.full(5, 0.2), 200_000), axis=0, return_counts=True)
    rejected, total = np.zeros(2), 0
    for c in np.argsort(-times, kind="stable")[:80]:
        here = np.flatnonzero(share[c])
        spread = [float(studies[k][1].probability @ studies[k][1].node ** 2) for k in here]
        counts = share[c][here].astype(float)
        law = Law(
            np.arange(here.size + 1), np.ones(here.size), counts, np.full(here.size, np.nan),
            np.array(spread) * (counts - counts**2 / 1_000), tuple(studies[k][1] for k in here),
        )  # fmt: skip
        sizes = np.linspace(1.5, 5.5, 9) * np.sqrt(law.variance.sum())
        log_p = PchipInterpolator(sizes, [score_log_p(law, size)[0] for size in sizes])
        U = np.zeros(8 * times[c])
        for k in here:
            residual = studies[k][0].residual
            U += residual[rng.integers(0, residual.size, (U.size, share[c, k]))].sum(axis=1)
        p = np.exp(log_p(np.clip(np.abs(U), sizes[0], sizes[-1])))
        rejected += [(p <= 0.01).sum(), (p <= 0.001).sum()]
        total += U.size
    size, error = rejected / total / [0.01, 0.001], (total * np.array([0.01, 0.001])) ** -0.5
    assert total > 500_000
    assert (np.abs(size - 1) < 4 * error + 0.02).all(), size


def test_predictor__is_trained_on_martingale_residuals_and_has_a_slope(tmp_path):
    study = make_timed(5, 300)
    predictor = {"method": "block-ridge", "genotypes": "geno.bed"}
    run = run_study(study.write(tmp_path, predictor=predictor), tmp_path / "out", Resources(threads=1), "meta").path
    models = pd.read_csv(run / "null_models.tsv", sep="\t")
    assert set(models["use"]) == {"covariate"}
    assert np.isfinite(models["slope"]).all()
    config = load_config(tmp_path / "study.yaml", RunConfig)
    target = use_martingale_residuals(open_cohort(config, tmp_path))
    assert [trait.kind for trait in target.traits] == ["quantitative"]
    y = target.y[:, 0]
    np.testing.assert_allclose(y, reference_residuals(study), atol=1e-9)


def reference_residuals(study):
    """Return the martingale residuals of the covariates, by the definition."""
    t, known = study.traits, study.observed("time")
    X = study.design(known)[:, 1:]
    own = (t["entry"][known], t["time"][known], t["event"][known] == 1, (t["centre"][known] == "north").astype(int))
    b, _ = reference_cox.fit(*own, X - X.mean(axis=0), np.zeros(known.sum()))
    return reference_cox.martingale_residuals(*own, (X - X.mean(axis=0)) @ b)


def test_check__tells_events_and_person_time(caplog, tmp_path):
    study = make_timed(1)
    known, t = study.observed("time"), study.traits
    with caplog.at_level("INFO", "locomass"):
        run_study(study.write(tmp_path), tmp_path / "out", Resources(threads=1), "denoise")
    total = (t["time"] - t["entry"])[known].sum()
    assert f"{int(t['event'][known].sum())} events in {total:.6g} of person-time" in caplog.text
