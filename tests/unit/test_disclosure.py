"""Attacks by least squares and integer programming work on exact bundles, and not on protected ones."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from locomass.bundle.hidden import hidden_alt, is_hidden
from locomass.bundle.open import open_bundle, validate_bundle
from locomass.commands.meta import run_meta_analysis
from locomass.commands.outcome import Resources
from locomass.commands.run import run_study
from locomass.config import RunConfig, load_config
from locomass.errors import ConfigError
from locomass.meta.inspect import disclosed_by
from locomass.meta.inspect.disclosure import shortest_combination
from locomass.scores.protect import Calls, claim_members, coarsen, hide_rare
from tests.factories import Study, make_study, write_meta_config

THREAD = Resources(threads=1)
CELL = 10


def make_rare_study() -> Study:
    """A study whose genes have two variants of one carrier, three of nine, and two that one person tells apart."""
    study = make_study(4, n=800, missing_calls=0.0)
    study.covariates["pc1"] = np.nan_to_num(study.covariates["pc1"])  # everybody is analysed
    rng = np.random.default_rng(1)
    for gene in study.sets:
        rows = study.rows_of(gene)[-8:]  # the first of a second gene is the last of the first
        for k, carriers in ((0, 1), (1, 1), (2, 9), (3, 9), (4, 9), (6, 40)):
            study.dosage[rows[k]] = 0
            study.dosage[rows[k], rng.choice(800, carriers, replace=False)] = 1
        study.dosage[rows[5]] = study.dosage[rows[6]]
        study.dosage[rows[5], np.flatnonzero(study.dosage[rows[6]] == 0)[0]] = 1
    return study


@pytest.fixture(scope="module")
def bundles(tmp_path_factory) -> dict[str, Path]:
    """The bundles of one study, exact and protected, and the run of the protected one."""
    folder = tmp_path_factory.mktemp("disclosure")
    study = make_rare_study()
    found = {}
    for share in ("exact", "protected"):
        options = {"share": share, "min_cell": CELL}
        config = study.write(folder / share, score_statistics=options)
        found[share] = run_study(config, folder / share / "out", THREAD, "meta").path / "bundle"
    return found


def genes_of(path: Path):
    """Give name and gene of every gene of a bundle."""
    bundle = open_bundle(path)
    validate_bundle(bundle)
    return bundle, bundle.read_genes(list(bundle.index))


def gram_of(gene, covariance):
    stored, m = gene.covariances[covariance], len(gene.position)
    lower = np.zeros((m, m))
    lower[stored.row, stored.column] = stored.value
    return lower + np.tril(lower, -1).T


def best_integer_program(gram: np.ndarray, most: int = 2) -> float:
    """Return the least nonzero a'Ga over all a with whole coefficients up to ``most``: by enumeration."""
    m = len(gram)
    a = np.array(list(itertools.product(range(-most, most + 1), repeat=m)), float)
    norm = np.einsum("ki,ij,kj->k", a, gram, a)
    return float(norm[norm > 1e-6].min(initial=np.inf))


def quantitative(bundle) -> list[str]:
    return [c for c, about in bundle.covariances.items() if bundle.traits[about["traits"][0]]["kind"] == "quantitative"]


def smallest(path: Path) -> float:
    """The fewest people that integer programming isolates in any gene: six variants at a time, the rarest first."""
    bundle, genes = genes_of(path)
    best = np.inf
    for gene in genes.values():
        for covariance in (c for c in gene.covariances if c in quantitative(bundle)):
            gram = gram_of(gene, covariance)
            order = np.argsort(np.diag(gram))
            for start in range(0, len(order), 5):
                rows = order[start : start + 6]
                best = min(best, best_integer_program(gram[np.ix_(rows, rows)]))
    return best


def test_integer_programming_isolates_people_in_an_exact_bundle_only(bundles):
    assert smallest(bundles["exact"]) == pytest.approx(1.0)
    assert smallest(bundles["protected"]) > CELL - 1e-6


def alone(path: Path) -> tuple[list, np.ndarray, np.ndarray]:
    """What a bundle says of people who alone carry a variant: label of the variant, B, and U of trait z."""
    bundle, genes = genes_of(path)
    covariance = bundle.traits["z"]["covariance"]
    labels, B, U = [], [], []
    for name, gene in genes.items():
        for j in np.flatnonzero(np.abs(np.diag(gram_of(gene, covariance)) - 1) < 0.5):
            labels.append(f"{bundle.index[name][1]}:{gene.position[j]}:{gene.ref[j]}:{gene.alt[j]}")
            B.append(gene.covariances[covariance].B[:, j])
            U.append(gene.U[j, bundle.traits["z"]["index"]])
    return labels, np.array(B), np.array(U)


def test_least_squares_reads_covariates_of_single_people_from_an_exact_bundle_only(bundles):
    """B of a person alone is x'(X'X)^(-1/2): whoever knows the ages of a few people regresses, and knows the others."""
    study = make_rare_study()
    labels, B, _ = alone(bundles["exact"])
    row = {key: k for k, key in enumerate(study.keys())}
    people = [int(np.flatnonzero(study.dosage[row[label]])[0]) for label in labels]
    assert len(people) >= 12
    for name in ("age", "pc1"):
        truth = study.covariates[name][people]
        known = np.linalg.lstsq(B[:8], truth[:8], rcond=None)[0]
        assert np.corrcoef(B[8:] @ known, truth[8:])[0, 1] > 0.999
    assert alone(bundles["protected"])[0] == []


def test_no_hidden_count_follows_from_a_protected_bundle(bundles):
    table = pq.read_table(bundles["protected"] / "variants.parquet").to_pandas()
    alleles = (
        2
        * np.stack(table["n_obs"])
        * np.minimum(np.stack(table["alt_frequency"]), 1 - np.stack(table["alt_frequency"]))
    )
    assert not ((alleles > 0.5) & (alleles < CELL - 0.5)).any()
    exact = pq.read_table(bundles["exact"] / "variants.parquet").to_pandas()
    assert len(table) < len(exact)
    assert sum(map(is_hidden, table["alt"])) > 0
    for path in (bundles["protected"] / "laws").glob("*.parquet"):
        sizes = np.concatenate([*pq.read_table(path).column("size").to_numpy(), np.empty(0)])
        assert (sizes >= CELL).all()


def test_the_certificate(bundles):
    (good,) = disclosed_by([bundles["protected"]], CELL)
    assert (good.severity, good.name) == ("note", "disclosure")
    assert "certified: no number" in good.what
    bad = disclosed_by([bundles["exact"]], CELL)
    assert {f.severity for f in bad} == {"error"}
    assert any("combinations of the variants of" in f.what for f in bad)
    assert {f.severity for f in disclosed_by([bundles["protected"]], 10 * CELL)} == {"error"}  # it promises no more


def test_study_json_says_what_the_bundle_discloses(bundles):
    for share, path in bundles.items():
        info = json.loads((path / "study.json").read_text())
        assert info["share"] == share
        assert len(info["discloses"]) == 3
    assert "residual" in info["discloses"][0] or "at least min_cell people" in info["discloses"][0]


def test_a_meta_analysis_takes_what_is_hidden_into_the_masks(bundles, tmp_path):
    results = {}
    for share, path in bundles.items():
        config = write_meta_config(tmp_path / f"{share}.yaml", [path], make_rare_study())
        out = run_meta_analysis(config, [path], tmp_path / share, THREAD, "meta", allow=["no-match"])
        assert out.failed == 0
        results[share] = pd.read_parquet(out.path / "gene_tests.parquet")
        singles = pd.read_parquet(out.path / "single_variants.parquet")
        assert not singles["alt"].map(is_hidden).any()
    key = ["gene", "trait", "mask", "max_maf", "weights", "test"]
    both = results["exact"].merge(results["protected"], on=key, suffixes=("_exact", "_protected"))
    both = both[(both["test"] == "burden") & both["p_exact"].notna() & both["p_protected"].notna()]
    assert len(both) > 10
    assert np.corrcoef(both["log10p_exact"], both["log10p_protected"])[0, 1] > 0.5


# ---- the pieces, against their definitions ----


def draw_calls(seed: int, people: int = 400, columns: int = 8) -> tuple[Calls, np.ndarray]:
    rng = np.random.default_rng(seed)
    G = rng.binomial(2, rng.choice([0.003, 0.02, 0.15], columns), (people, columns))
    person, column = np.nonzero(G)
    in_set = np.ones((people, 2), bool)
    in_set[rng.choice(people, 30), 1] = False
    return Calls(person, column, G[person, column]), in_set


def dense(calls: Calls, people: int, columns: int) -> np.ndarray:
    G = np.zeros((people, columns), int)
    G[calls.person, calls.column] = calls.dosage
    return G


@pytest.mark.parametrize("seed", range(6))
def test_every_pattern_has_enough_people_and_nobody_gains_an_allele(seed):
    calls, in_set = draw_calls(seed)
    category = np.arange(8) % 2
    hidden = hide_rare(calls, category, 2, in_set, CELL)
    G, H = dense(calls, 400, 8), dense(hidden, 400, 10)
    for column in range(8):
        few = any(0 < (G[in_set[:, s], column] > 0).sum() < CELL for s in range(2))
        assert np.array_equal(H[:, column], np.zeros(400) if few else G[:, column])
        if few:
            assert (H[G[:, column] > 0, 8 + category[column]] == 1).all()
    shared = dense(coarsen(hidden, in_set, CELL), 400, 10)
    assert (shared <= H).all()
    patterns, size = np.unique(np.column_stack([shared, in_set]), axis=0, return_counts=True)
    carries = patterns[:, :10].any(axis=1)
    assert (size[carries] >= CELL).all()
    # least squares: no combination of columns, with any coefficients, comes near a single person
    if shared.any():
        Q = np.linalg.qr(shared[:, shared.any(axis=0)].astype(float))[0]
        assert (Q**2).sum(axis=1).max() <= 1 / CELL + 1e-9


def test_coarsen__keeps_what_is_large_enough():
    people = np.arange(60)
    calls = Calls(people, (people >= 30).astype(int), np.ones(60, int))
    kept = coarsen(calls, np.ones((60, 1), bool), 30)
    assert np.array_equal(dense(kept, 60, 2), dense(calls, 60, 2))
    assert len(coarsen(calls, np.ones((60, 1), bool), 31).person) == 0


def test_claim_members__each_variant_has_one_gene():
    found = claim_members([np.array([1, 2, 3]), np.array([2, 4]), np.array([3, 4, 5])], [1, 0, 2])
    assert [x.tolist() for x in found] == [[1, 3], [2, 4], [5]]


@pytest.mark.parametrize("seed", range(8))
def test_shortest_combination__finds_what_integer_programming_finds(seed):
    rng = np.random.default_rng(seed)
    G = rng.binomial(1, 0.3, (40, 5))
    assert shortest_combination((G.T @ G).astype(float)) == pytest.approx(best_integer_program(G.T @ G))


def test_shortest_combination__of_four_nested_columns():
    """One person is told apart by four columns only: a difference of sums."""
    G = np.zeros((100, 4))
    G[:50, 0] = G[50:99, 1] = G[:30, 2] = 1
    G[30:, 3] = 1  # 1 + 2 = 3 + 4 less person 100
    assert shortest_combination(G.T @ G) == pytest.approx(1.0)


def test_hidden_alt__depends_on_gene_and_category_only():
    assert hidden_alt("A", "LoF") != hidden_alt("B", "LoF") != hidden_alt("B", "lof")
    assert hidden_alt("A", "") == hidden_alt("A", "")
    assert hidden_alt("A", "splice site/1").isprintable()
    assert " " not in hidden_alt("A", "splice site/1")


@pytest.mark.parametrize(
    "options",
    [
        {"share": "protected"},
        {"share": "protected", "min_cell": 1},
        {"share": "protected", "min_cell": 9, "modes": ["dominant"]},
    ],
)
def test_protection_needs_a_minimum_cell(tmp_path, options):
    config = make_study(1).write(tmp_path, score_statistics=options)
    with pytest.raises(ConfigError, match="share: protected"):
        load_config(config, RunConfig)
