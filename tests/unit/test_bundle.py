"""The study bundle: what it holds, what it must not hold, what is said of a damaged one."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from locomass.bundle.study import Bundle, list_array, matrix_column
from locomass.commands.meta import check_bundles, find_bundle
from locomass.commands.outcome import Resources
from locomass.commands.run import run_study
from locomass.errors import BundleError
from locomass.meta.inspect import inspect_opened
from locomass.schema import BUNDLE_GENES, BUNDLE_VARIANTS
from locomass.scores.withhold import is_determined
from tests.factories import make_study

MIN_CELL = 5


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A study and its bundle, genotype counts below 5 withheld."""
    folder = tmp_path_factory.mktemp("bundle")
    study = make_study(3, n=120)
    everywhere = np.flatnonzero(np.all([study.observed(trait) for trait in study.traits], axis=0))
    study.dosage[[0, 9]] = 0.0
    study.dosage[[0, 9], everywhere[0]] = 1.0  # two variants that are seen once
    study.config["score_statistics"] = {"min_cell": MIN_CELL}
    outcome = run_study(study.write(folder / "in"), folder / "out", Resources(threads=1), "score-statistics")
    return study, outcome.path / "bundle"


@pytest.fixture
def bundle(made, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(made[1], tmp_path / "bundle")


def test_bundle__holds_what_the_schema_says(made):
    path = made[1]
    assert sorted(p.name for p in path.iterdir()) == ["digests.json", "genes", "laws", "study.json", "variants.parquet"]
    assert pq.read_schema(path / "variants.parquet").equals(BUNDLE_VARIANTS.arrow)
    for part in (path / "genes").iterdir():
        assert pq.read_schema(part).equals(BUNDLE_GENES.arrow)


def test_bundle__study_json(made):
    study, path = made
    info = json.loads((path / "study.json").read_text())
    assert (info["format"], info["version"], info["study"]) == ("locomass-study-bundle", 1, "study")
    assert info["genome_build"] == "GRCh38"
    assert info["min_cell"] == MIN_CELL
    assert [t["name"] for t in info["traits"]] == list(study.traits)
    for trait in info["traits"]:
        chosen = study.observed(trait["name"])
        assert trait["n_samples"] == chosen.sum()
        cases = study.traits[trait["name"]][chosen].sum() if trait["name"] == "cc" else None
        assert trait["n_cases"] == cases
        assert set(trait["sigma2"]) == {"1", "2", "3"}
        assert [row["chromosome"] for row in trait["denoising"]] == ["1", "2", "3"]
        for row in trait["denoising"]:
            assert row["use"] == "covariate"
            assert 0 < row["r2"] < 1


def test_bundle__has_no_individual_data(made):
    """No sample label anywhere, and no array whose length is the number of samples."""
    study, path = made
    for file in path.rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            assert not any(s.encode() in content for s in study.samples), file
    counts = {int(study.observed(t).sum()) for t in study.traits} | {study.n}
    for part in (path / "genes").iterdir():
        for row in pq.read_table(part).to_pylist():
            m = len(row["variant"])
            for name in ("B", "b"):
                rows = len(row[name]) / m
                assert rows == int(rows)
                assert rows not in counts


def test_bundle__withholds_small_counts(made):
    study, path = made
    table = Bundle(path).variants
    stacks = {name: matrix_column(table, name) for name in ("n_obs", "n_ref", "n_het", "n_alt")}
    sets = Bundle(path).sample_sets
    withheld = 0
    for trait in ("y", "z", "cc"):
        s = sets[Bundle(path).traits[trait]["sample_set"]]
        for j, calls in enumerate(study.dosage[:, study.observed(trait)]):
            counts = [int((calls == g).sum()) for g in (0, 1, 2)]
            hidden = any(0 < c < MIN_CELL for c in counts)
            withheld += hidden
            got = [int(stacks[name][j, s]) for name in ("n_ref", "n_het", "n_alt")]
            assert got == ([-1, -1, -1] if hidden else counts)
            assert stacks["n_obs"][j, s] == sum(counts)
    assert withheld > 10


def list_triples(n: int, ac: int) -> list[tuple[int, int, int]]:
    """Every (n_ref, n_het, n_alt) with these calls and ALT alleles that the rule withholds."""
    every = [(n - ac + a, ac - 2 * a, a) for a in range(n + 1)]
    return [t for t in every if min(t) >= 0 and any(0 < c < MIN_CELL for c in t)]


def test_withheld_counts__are_determined_where_one_triple_fits():
    n, ac = (grid.ravel() for grid in np.meshgrid(np.arange(1, 40), np.arange(80), indexing="ij"))
    found = is_determined(n, ac, MIN_CELL)
    assert found.tolist() == [len(list_triples(*pair)) == 1 for pair in zip(n.tolist(), ac.tolist(), strict=True)]


def test_withheld_counts__the_log_tells_how_many_can_be_worked_out(made):
    """The docs say how: from the frequency alone, or with the diagonal of G'G of a quantitative trait."""
    study, path = made
    table, sets = Bundle(path).variants, Bundle(path).sample_sets
    n_obs, n_ref, f = (matrix_column(table, name) for name in ("n_obs", "n_ref", "alt_frequency"))
    hidden = np.argwhere(n_ref < 0)
    counts = [(int(n_obs[j, s]), round(2 * n_obs[j, s] * f[j, s])) for j, s in hidden]
    plain = sum(len(list_triples(*pair)) == 1 for pair in counts)
    quantitative = {sets[Bundle(path).traits[t]["sample_set"]] for t in ("y", "w", "z")}
    by_matrix = sum(s in quantitative for _, s in hidden)
    (line,) = (x for x in (path.parent / "locomass.log").read_text().splitlines() if "min_cell" in x)
    assert "WARNING" in line
    assert f"counts of {len(hidden):,} variants" in line
    assert f"those of {plain:,} follow" in line
    assert f"of {by_matrix:,} with G'G" in line
    assert 0 < plain < len(hidden)
    s, chosen = sets[Bundle(path).traits["z"]["sample_set"]], study.observed("z")
    worked_out = 0
    for part in (path / "genes").iterdir():
        for row in pq.read_table(part).to_pylist():
            if row["covariance"] != Bundle(path).traits["z"]["covariance"]:
                continue
            diagonal = {i: v for i, k, v in zip(row["row"], row["column"], row["value"], strict=True) if i == k}
            for k, j in enumerate(row["variant"]):
                n, q = int(n_obs[j, s]), min(float(f[j, s]), 1 - float(f[j, s]))  # the minor allele is counted
                squares = round(diagonal[k] - (chosen.sum() - n) * (2 * q) ** 2)  # without the imputed calls
                twice = (squares - round(2 * n * q)) // 2
                assert twice == (study.dosage[j, chosen] == (2 if f[j, s] < 0.5 else 0)).sum()
                worked_out += n_ref[j, s] < 0
    assert worked_out > 5


def test_withheld_counts__nothing_is_said_without_the_rule(made, tmp_path):
    study, _ = made
    run_study(study.write(tmp_path, score_statistics={}), tmp_path / "out", Resources(threads=1), "score-statistics")
    assert "min_cell" not in (tmp_path / "out" / "locomass.log").read_text()


def test_bundle__reads_what_was_written(made):
    study, path = made
    bundle = Bundle(path)
    genes = bundle.read_genes(["GENE2", "nowhere", "GENE5"])
    assert sorted(genes) == ["GENE2", "GENE5"]
    for name, gene in genes.items():
        assert gene.position.tolist() == sorted(v[1] for v in study.sets[name])
        assert gene.U.shape == (len(gene.position), 4)
        assert gene.n_obs.shape == gene.alt_frequency.shape == (len(gene.position), 3)
        for trait in study.traits:
            V = bundle.information(gene, trait)
            np.testing.assert_array_equal(V, V.T)
            assert np.linalg.eigvalsh(V).min() > -1e-9 * np.diag(V).max()
    assert bundle.index["GENE5"][1] == "3"
    assert np.isnan(bundle.sigma2("y", "22"))


def test_bundle__traits_of_one_covariance_differ_in_their_loco_rows_only(made):
    bundle = Bundle(made[1])
    gene = bundle.read_genes(["GENE1"])["GENE1"]
    shared = bundle.traits["y"]["covariance"]
    assert shared == bundle.traits["w"]["covariance"]
    assert gene.covariances[shared].b.shape == (2, 1, len(gene.position))
    assert gene.covariances[shared].B.shape == (4, len(gene.position))
    # a quantitative trait's G'G is that of the genotypes: integers unless a call is missing
    c = gene.covariances[shared]
    assert (c.column <= c.row).all()


def test_bundle__raises_without_study_json(tmp_path):
    with pytest.raises(BundleError, match=r"is not a study bundle: it has no study\.json; give the `bundle` folder"):
        Bundle(tmp_path)


@pytest.mark.parametrize("change", [{"version": 2}, {"format": "other"}])
def test_bundle__raises_on_a_foreign_version(bundle, change):
    info = json.loads((bundle / "study.json").read_text())
    (bundle / "study.json").write_text(json.dumps({**info, **change}))
    with pytest.raises(BundleError, match="this program reads locomass-study-bundle version 1"):
        Bundle(bundle)


def test_bundle__raises_on_a_damaged_study_json(bundle):
    (bundle / "study.json").write_text('{"format": ')
    with pytest.raises(BundleError, match=r"study\.json is not valid JSON"):
        Bundle(bundle)


@pytest.mark.parametrize("text", ["[]", '{"format": "locomass-study-bundle", "version": 1}'])
def test_bundle__raises_on_a_study_json_that_is_something_else(bundle, text):
    (bundle / "study.json").write_text(text)
    with pytest.raises(BundleError, match=r"bundle"):
        check_bundles([bundle])


def test_bundle__raises_on_a_truncated_part(bundle):
    part = min((bundle / "genes").iterdir())
    part.write_bytes(part.read_bytes()[:-100])
    with pytest.raises(BundleError, match=rf"{part.name} is damaged or cut short"):
        Bundle(bundle).read_genes(["GENE1"])


def test_bundle__raises_on_truncated_variants(bundle):
    path = bundle / "variants.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(BundleError, match=r"variants\.parquet is damaged or cut short"):
        Bundle(bundle).read_genes(["GENE1"])


def test_bundle__raises_on_a_missing_column(bundle):
    path = bundle / "variants.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["U"]), path)
    with pytest.raises(BundleError, match=r"variants\.parquet: 0 columns 'U', expected 1 \(score statistic"):
        Bundle(bundle).read_genes(["GENE1"])


def test_bundle__raises_on_a_column_of_another_type(bundle):
    path = bundle / "variants.parquet"
    table = pq.read_table(path)
    table = table.set_column(1, "position", table["position"].cast(pa.float64()))
    pq.write_table(table, path)
    with pytest.raises(BundleError, match=r"variants\.parquet: column 'position' has type double, expected int64"):
        Bundle(bundle).read_genes(["GENE1"])


def test_check_bundles__raises_on_a_study_given_twice(bundle, made):
    with pytest.raises(BundleError, match=r"study 'study' is given twice"):
        check_bundles([bundle, made[1]])


def test_inspect__finds_different_builds(bundle, made):
    info = json.loads((bundle / "study.json").read_text())
    (bundle / "study.json").write_text(json.dumps({**info, "study": "other", "genome_build": "GRCh37"}))
    (bundle / "digests.json").unlink()
    (finding,) = [f for f in inspect_opened(check_bundles([made[1], bundle])) if f.name == "genome-build"]
    assert finding.severity == "error"
    assert "other: GRCh37" in finding.where


@pytest.mark.parametrize("coding", ["0/1", "0/2"])
def test_inspect__finds_males_coded_differently(bundle, made, tmp_path, coding):
    other = tmp_path / "other"
    shutil.copytree(bundle, other)
    for path, name, own in ((bundle, "a", "0/2"), (other, "b", coding)):
        info = json.loads((path / "study.json").read_text())
        (path / "study.json").write_text(json.dumps({**info, "study": name, "x_coding": own}))
        (path / "digests.json").unlink()
    found = [f for f in inspect_opened(check_bundles([bundle, other])) if f.name == "x-coding"]
    assert [f.where for f in found] == (["a: 0/2, b: 0/1"] if coding == "0/1" else [])


def test_find_bundle__beside_the_configuration_or_below_the_working_directory(bundle, tmp_path, monkeypatch):
    config = tmp_path / "c.yaml"
    assert find_bundle("bundle", tmp_path, config) == bundle
    monkeypatch.chdir(tmp_path)
    assert find_bundle("bundle", tmp_path / "elsewhere", config).resolve() == bundle
    with pytest.raises(BundleError, match=r"c\.yaml: no study bundle out/bundle: looked for .*locomass run"):
        find_bundle("out/bundle", tmp_path, config)


def test_list_array__round_trips():
    matrix = np.arange(12.0).reshape(4, 3)
    table = pa.table({"x": list_array(matrix, pa.float64())})
    np.testing.assert_array_equal(matrix_column(table, "x"), matrix)
    ragged = list_array([np.array([1.0, 2.0]), np.empty(0), np.array([[3.0], [4.0]])], pa.float64())
    assert ragged.to_pylist() == [[1.0, 2.0], [], [3.0, 4.0]]
    assert list_array([], pa.float64()).to_pylist() == []


def test_check_bundles__says_where_a_link_leads(made, tmp_path, caplog):
    (tmp_path / "latest").symlink_to(made[1])
    with caplog.at_level("INFO", logger="locomass"):
        (opened,) = check_bundles([tmp_path / "latest"])
    assert opened.path == made[1].resolve()
    assert f"latest is a link: {made[1].resolve()} is read" in caplog.text
