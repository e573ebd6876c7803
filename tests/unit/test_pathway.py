"""Pathways: genes collapsed into burdens, the search over them, Fisher's product."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.stats import chi2, combine_pvalues

from locomass.config import StepUp
from locomass.errors import InputError
from locomass.gene_tests.base import ScoreStatistics
from locomass.gene_tests.groupings import Search
from locomass.gene_tests.pathway import (
    cluster_genes,
    collapse_carriers,
    collapse_genes,
    combine_clusters,
    compute_fisher_product,
    compute_pathway_step_up,
)
from locomass.gene_tests.permutation import CarrierGenotypes, search_individuals
from locomass.gene_tests.permutation_trait import IndividualTrait
from locomass.gene_tests.resampling import Resampling
from locomass.gene_tests.step_up import StepUpParameters
from locomass.meta.pathways import run_pathways
from tests import reference_grouping as reference

N = 1500
SIZES = (4, 1, 6)


def make_gene(G, y):
    e = y - y.mean()
    Gc = G - G.mean(axis=0)
    sigma2 = e @ e / (N - 1)
    m = G.shape[1]
    return ScoreStatistics(
        (e @ G)[None] / sigma2,
        Gc.T @ Gc,
        np.array([1 / sigma2]),
        G.mean(axis=0) / 2,
        G.sum(axis=0),
        np.array([float(N)]),
        np.ones(m, dtype=bool),
    )


def sparse(G):
    columns = [np.flatnonzero(column) for column in G.T]
    return CarrierGenotypes(
        np.concatenate([[0], np.cumsum([len(c) for c in columns])]).astype(np.int64),
        np.concatenate(columns),
        np.concatenate([G[c, j] for j, c in enumerate(columns)]),
        N,
    )


@pytest.fixture(scope="module")
def pathway():
    rng = np.random.default_rng(3)
    genotypes = [rng.binomial(2, rng.uniform(0.005, 0.03, m), size=(N, m)) * 1.0 for m in SIZES]
    y = rng.normal(size=N) + 0.5 * genotypes[0].sum(axis=1)
    return genotypes, y


@pytest.mark.parametrize("weighting", ["constant", "inverse-sd"])
@pytest.mark.parametrize("signs", ["fixed", "data"])
def test_pathway_step_up_equals_the_definition(pathway, weighting, signs):
    genotypes, y = pathway
    burdens = np.column_stack([G @ reference.weights(G, weighting) for G in genotypes])
    # the genes' cross-covariances are part of V when given
    centred = [G - G.mean(axis=0) for G in genotypes]
    between = {(g, h): centred[g].T @ centred[h] for g in range(3) for h in range(g + 1, 3)}
    genes = [make_gene(G, y) for G in genotypes]
    result = compute_pathway_step_up(genes, StepUpParameters(weights=weighting, signs=signs), between)
    z2, members = reference.search(burdens, y - y.mean(), None, "constant", signs, "model")
    assert result.statistic[0] == pytest.approx(z2, rel=1e-10)
    assert result.detail.chosen[0].tolist() == members.tolist()


def test_pathway_from_shared_statistics_agrees_with_individual_data(pathway):
    genotypes, _ = pathway
    y = np.random.default_rng(7).normal(size=N)
    resampling = Resampling(max_permutations=4000, exceedances=4000)
    shared = compute_pathway_step_up([make_gene(G, y) for G in genotypes], StepUpParameters(resampling=resampling))
    collapsed = collapse_carriers([sparse(G) for G in genotypes])
    individual = search_individuals(collapsed, IndividualTrait(y), [Search("p")], resampling)["p"]
    p, q = np.exp(shared.log_p[0]), np.exp(individual.log_p[0])
    assert abs(p - q) < 4 * np.sqrt(2 * p * (1 - p) / 4000) + 0.015


@pytest.mark.parametrize("inverse_sd", [False, True])
def test_collapsed_carriers_are_burdens(pathway, inverse_sd):
    genotypes, _ = pathway
    collapsed = collapse_carriers([sparse(G) for G in genotypes], inverse_sd)
    kind = "inverse-sd" if inverse_sd else "constant"
    dense = np.zeros((N, 3))
    dense[collapsed.sample, collapsed.variant()] = collapsed.dosage
    assert np.allclose(dense, np.column_stack([G @ reference.weights(G, kind) for G in genotypes]), rtol=1e-12)


def test_a_gene_without_variants_is_a_unit_without_variance(pathway):
    genotypes, y = pathway
    genes = [make_gene(G, y) for G in (genotypes[0], np.empty((N, 0)))]
    units = collapse_genes(genes)
    assert units.V[1, 1] == 0
    assert not compute_pathway_step_up(genes).detail.chosen[0, 1]


def test_pathway__raises_on_bad_requests(pathway):
    genotypes, y = pathway
    genes = [make_gene(G, y) for G in genotypes]
    with pytest.raises(InputError, match="one or more genes"):
        collapse_genes([])
    with pytest.raises(InputError, match="same scale"):
        collapse_genes([genes[0], make_gene(genotypes[1], 2 * y)])
    with pytest.raises(InputError, match="block between genes 0 and 1"):
        collapse_genes(genes, between={(0, 1): np.zeros((2, 2))})
    with pytest.raises(InputError, match="both"):
        compute_pathway_step_up(genes, StepUpParameters(weights="both"))
    with pytest.raises(InputError, match="one or more genes"):
        collapse_carriers([])


def test_fisher_product_equals_scipy_and_the_chi_square():
    p = np.random.default_rng(1).random((3, 7))
    result = compute_fisher_product(np.log(p))
    for t in range(3):
        assert np.exp(result.log_p[t]) == pytest.approx(combine_pvalues(p[t], "fisher").pvalue, rel=1e-10)
    assert result.statistic == pytest.approx(-2 * np.log(p).sum(axis=1), rel=1e-12)


def test_fisher_product_far_beyond_underflow():
    one = compute_fisher_product(np.array([[-5000.0]]))
    assert one.log_p[0] == pytest.approx(-5000.0, rel=1e-12)
    two = compute_fisher_product(np.array([[-3000.0, -2000.0]]))
    assert two.log_p[0] == pytest.approx(-5000 + math.log1p(5000), rel=1e-12)
    near = compute_fisher_product(np.array([[-300.0, -200.0, -100.0]]))
    assert near.log_p[0] == pytest.approx(chi2.logsf(1200.0, 6), rel=1e-9)


def test_fisher_product_leaves_out_genes_without_p():
    result = compute_fisher_product(np.log(np.array([[0.02, np.nan, 0.3], [np.nan, np.nan, np.nan]])))
    assert np.exp(result.log_p[0]) == pytest.approx(combine_pvalues([0.02, 0.3], "fisher").pvalue, rel=1e-10)
    assert np.isnan(result.log_p[1])
    assert result.detail.n_genes.tolist() == [2, 0]
    assert compute_fisher_product(np.full((2, 3), np.nan)).note == "no gene has a p-value"
    assert compute_fisher_product(np.zeros((1, 4))).log_p[0] == 0.0


def test_fisher_product__raises_on_p_above_one():
    with pytest.raises(InputError, match="at or below 0"):
        compute_fisher_product(np.array([[0.1]]))


def test_step_up_over_genes_takes_every_weighted_burden(tmp_path):
    """Rows of gene_tests.parquet: U = beta / se^2, V = 1 / se^2, one row per weights; by the definition."""
    rng = np.random.default_rng(4)
    rows = [
        {
            "gene": f"G{g}", "chromosome": str(g + 1), "start": 100, "end": 200,
            "trait": "y", "mask": "M", "max_maf": 0.01, "weights": weights, "test": "burden",
            "mac": 10.0, "beta": rng.normal(0, 1.5), "se": rng.uniform(0.4, 1.5),
        }
        for weights in ("flat", "madsen-browning") for g in range(5)
    ]  # fmt: skip
    for row in rows:
        row["log10p"] = -chi2.logsf((row["beta"] / row["se"]) ** 2, 1) / math.log(10)
    pd.DataFrame(rows).to_parquet(tmp_path / "gene_tests.parquet")
    step_up = StepUp(signs="data", permutations=200)
    names = ["pathway-step-up"]
    table = run_pathways(
        tmp_path / "gene_tests.parquet", {"P": [f"G{g}" for g in range(5)]}, names, step_up
    ).to_pandas()
    assert table["source"].tolist() == ["burden flat", "burden madsen-browning"]
    for row in table.itertuples():
        part = [r for r in rows if r["weights"] == row.source.split()[1]]
        beta, V = np.array([r["beta"] for r in part]), np.array([r["se"] ** -2 for r in part])
        b = np.where(beta < 0, -1.0, 1.0)
        z2, members = reference.step_up(lambda x: reference.z2_model(beta * V, np.diag(V), x), b)  # noqa: B023
        assert row.statistic == pytest.approx(z2, rel=1e-9)
        assert row.chosen.split(",") == [f"G{g}" for g in np.flatnonzero(members)]


def test_step_up_over_genes_goes_by_p_not_by_a_walds_test(tmp_path):
    """A gene of a binary trait: its p is that of its law, far from that of beta / se."""
    table = pa.table(
        {
            "gene": ["A"], "chromosome": ["1"], "start": [1], "end": [2], "trait": ["y"], "mask": ["M"],
            "max_maf": [0.01], "weights": ["flat"], "test": ["burden"], "mac": [5.0], "beta": [4.0], "se": [0.8],
            "log10p": [-math.log10(0.02)],
        }
    )  # fmt: skip
    pq.write_table(table, tmp_path / "t.parquet")
    out = run_pathways(tmp_path / "t.parquet", {"P": ["A"]}, ["pathway-step-up"], StepUp(permutations=20_000))
    assert out["statistic"][0].as_py() == pytest.approx(chi2.isf(0.02, 1), rel=1e-9)
    assert out["p"][0].as_py() == pytest.approx(0.02, rel=0.5)


def test_clusters_are_genes_that_overlap_or_lie_close():
    start = np.array([100, 1_500_000, 50_000, 100, 4_000_000])
    end = np.array([600_000, 1_600_000, 60_000, 200, 4_100_000])
    cluster = cluster_genes(["1", "1", "1", "2", "1"], start, end)
    assert cluster[0] == cluster[1] == cluster[2]
    assert len(set(cluster.tolist())) == 3


def test_fisher_product_of_neighbours_holds_its_level():
    """Four genes that share variants (correlation 0.9) and one elsewhere: 0.01 is reached as often as it should be."""
    rng, n = np.random.default_rng(7), 5_000
    shared = rng.normal(size=(n, 1))
    z = np.column_stack([np.sqrt(0.9) * shared + np.sqrt(0.1) * rng.normal(size=(n, 4)), rng.normal(size=n)])
    log_p = chi2.logsf(z * z, 1)
    place = np.array([0, 1000, 2000, 3000, 9_000_000])
    cluster = cluster_genes(["1"] * 5, place, place + 500)
    ours = compute_fisher_product(combine_clusters(log_p, cluster)).log_p
    naive = compute_fisher_product(log_p).log_p
    for level in (0.05, 0.01):
        limit = level + 4 * np.sqrt(level / n)
        assert np.mean(ours <= np.log(level)) <= limit * 1.1
        assert np.mean(naive <= np.log(level)) > 1.5 * limit


def test_pathway_rows_take_neighbours_as_one(tmp_path):
    table = pa.table(
        {
            "gene": ["A", "B", "C"], "chromosome": ["1", "1", "2"], "start": [100, 150, 100], "end": [200, 250, 200],
            "trait": ["y"] * 3, "mask": ["M"] * 3, "max_maf": [0.01] * 3, "weights": ["flat"] * 3,
            "test": ["burden"] * 3, "beta": [1.0, 1.0, 0.5], "se": [0.3, 0.3 * (1 + 1e-9), 0.4],
            "log10p": [3.0, 3.0, 0.5], "mac": [9.0, 8.0, 5.0],
        }
    )  # fmt: skip
    pq.write_table(table, tmp_path / "t.parquet")
    out = run_pathways(
        tmp_path / "t.parquet", {"P": ["A", "B", "C"]}, ["pathway-fisher", "pathway-step-up"], StepUp(permutations=500)
    ).to_pandas().set_index("test")  # fmt: skip
    expected = combine_pvalues([1e-3, 10**-0.5], "fisher").pvalue
    assert out.loc["pathway-fisher", "p"] == pytest.approx(expected, rel=1e-6)
    assert out["note"].str.contains("2 of 3").all()
    assert "B" not in out.loc["pathway-step-up", "chosen"].split(",")
