"""Score statistics: kernels against dense algebra, then whole studies (files in, bundle out) against the definition."""

from __future__ import annotations

import numpy as np
import pytest

from locomass.bundle.study import Bundle
from locomass.commands.outcome import Resources
from locomass.commands.run import run_study
from locomass.genotypes.packed import scan_carriers
from locomass.genotypes.products import (
    cross_products,
    information_matrix,
    project_columns,
    sparse_cross_products,
    weighted_squares,
)
from tests import reference
from tests.factories import CHROMOSOMES, make_study, pack_row, random_calls

N, M = 210, 30
TOLERANCE = 1e-10  # relative to the largest entry: sums of some hundred float64 products in another order


class Carriers:
    """Random carriers, and the same genotypes dense with missing calls imputed."""

    def __init__(self, seed=3):
        rng = np.random.default_rng(seed)
        calls = random_calls(rng, M, N)
        packed = np.array([np.frombuffer(pack_row(row), np.uint8) for row in calls])
        indptr, sample, dosage, a1_counted = scan_carriers(packed, N, np.arange(N, dtype=np.int32), N)
        self.lists = (indptr, sample, dosage)
        self.imputed = rng.uniform(0, 2, (M, 3))
        counted = np.where(a1_counted[:, None], calls, 2 - calls).astype(float)
        self.dense = [np.where(calls < 0, self.imputed[:, s : s + 1], counted) for s in range(3)]
        self.rng = rng


@pytest.fixture(scope="module")
def carriers():
    return Carriers()


def test_project_columns__imputes_by_the_sample_set_of_the_column(carriers):
    columns = carriers.rng.normal(size=(N, 7))
    column_set = np.array([0, 1, 2, 0, 1, 2, 0])
    got = project_columns(*carriers.lists, columns, column_set, carriers.imputed)
    expected = np.column_stack([carriers.dense[s] @ columns[:, c] for c, s in enumerate(column_set)])
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-11)


def test_sparse_cross_products__equal_the_dense_lower_triangle(carriers):
    weight = carriers.rng.uniform(0, 1, N) * (carriers.rng.random(N) < 0.8)
    rows = np.array([2, 3, 5, 7, 11, 13, 17, 19, 23, 29])
    head = np.full(N, -1, np.int32)
    row, column, value = sparse_cross_products(rows, carriers.lists, weight, carriers.imputed[:, 1].copy(), head)
    G = carriers.dense[1][rows]
    got = np.zeros((10, 10))
    got[row, column] = value
    np.testing.assert_allclose(got, np.tril(G @ np.diag(weight) @ G.T), atol=1e-11)
    assert (value != 0).all()
    assert (column <= row).all()
    assert (head == -1).all()  # scratch is left as it was found


@pytest.mark.parametrize("block_bytes", [1, 8 * M * 3, 8 * M * 7])
def test_sparse_cross_products__in_blocks_equal_one_pass(carriers, block_bytes):
    rows, head, weight = np.arange(M), np.full(N, -1, np.int32), np.ones(N)
    imputed = carriers.imputed[:, 0].copy()
    whole = sparse_cross_products(rows, carriers.lists, weight, imputed, head)
    parts = sparse_cross_products(rows, carriers.lists, weight, imputed, head, block_bytes)
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_array_equal(one, other)


def test_sparse_cross_products__of_no_variants(carriers):
    empty = sparse_cross_products(
        np.empty(0, np.int64), carriers.lists, np.ones(N), np.ones(M), np.full(N, -1, np.int32)
    )
    assert [len(x) for x in empty] == [0, 0, 0]


def test_cross_products__gives_the_rows_asked_for(carriers):
    weight, imputed = np.ones(N), carriers.imputed[:, 0].copy()
    block = cross_products(np.arange(M), *carriers.lists, weight, imputed, np.full(N, -1, np.int32), 4, 9)
    full = np.tril(carriers.dense[0] @ carriers.dense[0].T)
    np.testing.assert_allclose(block, full[4:9, :9], atol=1e-10)


def test_weighted_squares__equals_the_diagonal(carriers):
    weight = carriers.rng.uniform(0, 1, (N, 3))
    got = weighted_squares(*carriers.lists, weight, carriers.imputed)
    expected = np.column_stack([(carriers.dense[s] ** 2) @ weight[:, s] for s in range(3)])
    np.testing.assert_allclose(got, expected, rtol=1e-12)


def test_information_matrix__is_symmetric_and_projected(carriers):
    rng = carriers.rng
    weight, X = rng.uniform(0.1, 0.3, N), np.column_stack([np.ones(N), rng.normal(size=(N, 3))])
    G = carriers.dense[0]
    root = np.linalg.cholesky(np.linalg.inv(X.T @ np.diag(weight) @ X)).T
    B = root @ X.T @ np.diag(weight) @ G.T
    row, column = np.tril_indices(M)
    value = (G @ np.diag(weight) @ G.T)[row, column]
    V = information_matrix(M, row.astype(np.int32), column.astype(np.int32), value, B)
    np.testing.assert_allclose(V, reference.projected_covariance(G, X, weight), atol=1e-10)
    np.testing.assert_array_equal(V, V.T)


# ---- whole studies ----

DESIGNS = {
    "no prediction": {"loco": False, "missing": "mean", "use": None},
    "covariate": {"loco": True, "missing": "mean", "use": "covariate"},
    "offset, missing as zero": {"loco": True, "missing": "zero", "use": "offset"},
}


@pytest.fixture(scope="module", params=DESIGNS, ids=lambda d: d.replace(" ", "-"))
def run(request, tmp_path_factory):
    """A study, its options and its bundle."""
    options = DESIGNS[request.param]
    study = make_study(5, loco=options["loco"])
    study.config["score_statistics"] = {"missing": options["missing"]}
    if options["loco"]:
        study.config["predictor"] = {
            "method": "loco",
            "loco": dict.fromkeys(study.traits, "all.loco"),
            "use": options["use"],
        }
    folder = tmp_path_factory.mktemp("study")
    out = run_study(study.write(folder / "in"), folder / "out", Resources(threads=1), "score-statistics")
    return study, options, Bundle(out.path / "bundle")


def expected(study, options, trait, gene):
    """U and V of a gene (variants in the order of the set) from the definition."""
    chosen, binary = study.observed(trait), trait in study.binary
    y, X = study.traits[trait][chosen], study.design(study.observed(trait))
    G = reference.impute(study.dosage[study.rows_of(gene)][:, chosen], options["missing"])
    offset = np.zeros(len(y))
    if options["use"]:
        prediction = study.loco[CHROMOSOMES.index(study.sets[gene][0][0])][chosen]
        if options["use"] == "covariate":
            X = np.column_stack([X, prediction])
        elif binary:
            offset = prediction
        else:  # REGENIE writes predictions of the trait scaled to unit residual variance
            offset = prediction * np.sqrt(reference.linear_fit(y, X)[1])
    return reference.score_statistics(y, X, G, binary=binary, offset=offset)


def stored(study, bundle, trait, gene):
    """U and V of a gene from the bundle, variants in the order of the set."""
    found = bundle.read_genes([gene])[gene]
    have = [":".join(map(str, label)) for label in zip(found.position, found.ref, found.alt, strict=True)]
    order = [have.index(study.keys()[j].split(":", 1)[1]) for j in study.rows_of(gene)]
    assert len(order) == len(have)
    V = bundle.information(found, trait) / bundle.sigma2(trait, study.sets[gene][0][0])
    return found.U[order, bundle.traits[trait]["index"]], V[np.ix_(order, order)]


@pytest.mark.parametrize("trait", ["y", "w", "z", "cc"])
def test_study__u_and_v_follow_the_definition(run, trait):
    study, options, bundle = run
    assert set(bundle.index) == set(study.sets)
    for gene in study.sets:
        U, V = expected(study, options, trait, gene)
        got_u, got_v = stored(study, bundle, trait, gene)
        np.testing.assert_allclose(got_u, U, rtol=0, atol=TOLERANCE * np.abs(U).max(), err_msg=gene)
        np.testing.assert_allclose(got_v, V, rtol=0, atol=TOLERANCE * np.abs(V).max(), err_msg=gene)


def test_study__traits_with_the_same_samples_share_a_covariance(run):
    bundle = run[2]
    groups = sorted(sorted(c["traits"]) for c in bundle.info["covariances"])
    assert groups == [["cc"], ["w", "y"], ["z"]]


def test_study__variant_table(run):
    study, options, bundle = run
    table = bundle.variants.to_pydict()
    keys = [
        ":".join(map(str, label))
        for label in zip(*(table[c] for c in ("chromosome", "position", "ref", "alt")), strict=True)
    ]
    assert keys == study.keys()
    for trait in study.traits:
        info = bundle.traits[trait]
        s, chosen = bundle.sample_sets[info["sample_set"]], study.observed(trait)
        assert info["n_samples"] == chosen.sum()
        for j, calls in enumerate(study.dosage[:, chosen]):
            for name, count in (
                ("n_obs", np.isfinite(calls)),
                ("n_ref", calls == 0),
                ("n_het", calls == 1),
                ("n_alt", calls == 2),
            ):
                assert table[name][j][s] == count.sum(), (name, keys[j])
            assert table["alt_frequency"][j][s] == pytest.approx(np.nanmean(calls) / 2, rel=1e-12)
        for gene in study.sets:
            U, V = expected(study, options, trait, gene)
            for j, u, v in zip(study.rows_of(gene), U, np.diag(V), strict=True):
                assert table["U"][j][info["index"]] == pytest.approx(u, rel=1e-9, abs=1e-10)
                assert table["V"][j][info["index"]] == pytest.approx(v, rel=1e-9)


def run_bundle(study, folder):
    out = run_study(study.write(folder / "in"), folder / "out", Resources(threads=1), "score-statistics")
    return Bundle(out.path / "bundle")


def test_study__missing_as_zero_means_the_major_homozygote(tmp_path):
    """At a minor allele frequency of 0.4 most samples carry the minor allele; a missing call is still major/major."""
    study = make_study(8, n=120, loco=False, missing_calls=0.0)
    rng = np.random.default_rng(1)
    for j, frequency in enumerate([0.4, 0.6, 0.35, 0.65, 0.42, 0.58]):
        study.dosage[j] = rng.binomial(2, frequency, study.n)
    study.dosage[:8][rng.random((8, study.n)) < 0.15] = np.nan
    study.config["score_statistics"] = {"missing": "zero"}
    bundle = run_bundle(study, tmp_path)
    for trait in ("z", "cc"):
        U, V = expected(study, {"missing": "zero", "use": None}, trait, "GENE1")
        got_u, got_v = stored(study, bundle, trait, "GENE1")
        np.testing.assert_allclose(got_u, U, atol=TOLERANCE * np.abs(U).max())
        np.testing.assert_allclose(got_v, V, atol=TOLERANCE * np.abs(V).max())


def test_study__degenerate_variants(tmp_path):
    """Nobody, everybody, everybody heterozygous, nobody called, equal to a covariate: finite, and no variance."""
    study = make_study(8, n=90, loco=False, missing_calls=0.0)
    study.dosage[:4] = np.array([0, 2, 1, np.nan])[:, None]
    study.dosage[4] = [1.0 if s == "M" else 0.0 for s in study.sex]
    bundle = run_bundle(study, tmp_path)
    table = bundle.variants.to_pydict()
    gene = bundle.read_genes(["GENE1"])["GENE1"]
    for trait in study.traits:
        k = bundle.traits[trait]["index"]
        assert [table["U"][j][k] for j in range(5)] == [0] * 5
        assert [table["V"][j][k] for j in range(5)] == [0] * 5
        V = bundle.information(gene, trait)
        assert np.isfinite(V).all()
        constant = np.isin(gene.position, study.position[:5])
        assert (V[constant] == 0).all()
        assert (V[:, constant] == 0).all()
        assert (np.diag(V)[~constant] > 0).all()
    assert [table["n_obs"][j][0] for j in range(5)] == [table["n_obs"][0][0]] * 3 + [0, table["n_obs"][0][0]]


def test_study__carriers_in_one_group_only(tmp_path):
    """U and V exist when a variant is absent in all cases or all controls."""
    study = make_study(8, n=120, loco=False, missing_calls=0.0)
    cases = np.flatnonzero(study.traits["cc"] == 1)
    controls = np.flatnonzero(study.traits["cc"] == 0)
    study.dosage[:2] = 0
    study.dosage[0, cases[:3]] = 1
    study.dosage[1, controls[:3]] = 1
    bundle = run_bundle(study, tmp_path)
    U, V = expected(study, {"missing": "mean", "use": None}, "cc", "GENE1")
    got_u, got_v = stored(study, bundle, "cc", "GENE1")
    np.testing.assert_allclose(got_u, U, atol=1e-10)
    np.testing.assert_allclose(got_v, V, atol=1e-10)
    assert got_u[0] > 0 > got_u[1]
    assert (np.diag(got_v)[:2] > 0).all()


def test_study__max_maf_leaves_frequent_variants_out_of_the_genes(tmp_path):
    study = make_study(5, n=150, loco=False)
    study.traits = {"z": study.traits["z"]}
    study.binary = ()
    study.config["score_statistics"] = {"max_maf": 0.05}
    bundle = run_bundle(study, tmp_path)
    chosen = study.observed("z")
    for gene in study.sets:
        calls = study.dosage[study.rows_of(gene)][:, chosen]
        count, number = np.nansum(calls, axis=1), 2 * np.isfinite(calls).sum(axis=1)
        rare = np.minimum(count, number - count) <= 0.05 * number
        kept = [study.position[j] for j, r in zip(study.rows_of(gene), rare, strict=True) if r]
        assert bundle.read_genes([gene])[gene].position.tolist() == sorted(kept)
    assert bundle.variants.num_rows == len(study.position)


def test_study__samples_may_be_kept_and_removed(tmp_path):
    study = make_study(5, n=150, loco=False)
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "keep.txt").write_text("".join(f"F{s} {s}\n" for s in study.samples[20:]))
    (folder / "remove.txt").write_text("".join(f"F{s} {s}\n" for s in study.samples[100:110]))
    path = study.write(folder, keep_samples="keep.txt", remove_samples="remove.txt")
    outcome = run_study(path, tmp_path / "out", Resources(threads=1), "score-statistics")
    bundle = Bundle(outcome.path / "bundle")
    kept = study.take_samples(np.r_[20:100, 110:150])
    for gene in kept.sets:
        U, V = expected(kept, {"missing": "mean", "use": None}, "y", gene)
        got_u, got_v = stored(kept, bundle, "y", gene)
        np.testing.assert_allclose(got_u, U, atol=TOLERANCE * np.abs(U).max())
        np.testing.assert_allclose(got_v, V, atol=TOLERANCE * np.abs(V).max())
