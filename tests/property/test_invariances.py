"""What must not change a result, and what it must equal: pooled analysis, splits, swaps, permutations, scale.

Every study goes through files: genotypes and tables in, result tables out. Tolerances are relative; they allow for sums
of some hundred float64 products in another order.
"""

from __future__ import annotations

import copy
import dataclasses
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from locomass.commands.meta import run_meta_analysis
from locomass.commands.outcome import Resources
from locomass.commands.run import run_study
from locomass.genotypes.packed import scan_carriers
from locomass.genotypes.products import information_matrix, project_columns, sparse_cross_products
from tests import reference
from tests.factories import CHROMOSOMES, make_study, pack_row, random_calls, write_meta_config

THREADS = Resources(threads=1)
NUMBERS = ("statistic", "beta", "se", "log10p", "mac")
KEY = ("gene", "trait", "mask", "max_maf", "test", "weights")


def run(study, folder, upto="meta"):
    return run_study(study.write(folder / "in"), folder / "out", THREADS, upto).path


def read(out):
    """Rows of gene_tests by their key."""
    rows = pq.read_table(out / "gene_tests.parquet").to_pylist()
    table = {tuple(row[name] for name in KEY): row for row in rows}
    assert len(table) == len(rows) > 50
    return table


def assert_same(one, other, rtol=1e-9, numbers=NUMBERS):
    assert set(one) == set(other)
    for key, row in one.items():
        for name in ("n_studies", "n_samples", "n_variants", "start", "end", "note"):
            assert row[name] == other[key][name], (key, name)
        for name in numbers:
            # effects near zero cancel: they are held to their standard error; so does log p near p = 1
            scale = row["se"] if name == "beta" and row["se"] else 1e-2 if name == "log10p" else 1e-12
            # a p-value from draws is known to its own error: 4 of them, in log10 p
            drawn = 4.0 * row["p_error"] / np.log(10.0) if name == "log10p" and "case-count" in row["method"] else 0.0
            np.testing.assert_allclose(
                row[name], other[key][name], rtol=rtol, atol=rtol * scale + drawn, err_msg=f"{key} {name}"
            )


def swap_names(study, rows):
    """Exchange the names REF and ALT of some variants, in the lists of genes too; the genotype files stay the same."""
    out = copy.deepcopy(study)
    new = {}
    for j in rows:
        old = (out.chromosome[j], int(out.position[j]), out.ref[j], out.alt[j])
        out.ref[j], out.alt[j] = out.alt[j], out.ref[j]
        out.dosage[j] = 2 - out.dosage[j]
        out.a1_is_alt[j] = not out.a1_is_alt[j]
        new[old] = (*old[:2], old[3], old[2])
    out.sets = {gene: [new.get(v, v) for v in variants] for gene, variants in out.sets.items()}
    renamed = {":".join(map(str, k)): ":".join(map(str, v)) for k, v in new.items()}
    out.annotations = {renamed.get(k, k): v for k, v in out.annotations.items()}
    return out


def drop_variants(study, rows):
    """Take variants out of the fileset; the lists of genes still name them."""
    kept = np.setdiff1d(np.arange(len(study.position)), rows)
    return dataclasses.replace(
        study, chromosome=[study.chromosome[j] for j in kept], position=study.position[kept],
        ref=[study.ref[j] for j in kept], alt=[study.alt[j] for j in kept], a1_is_alt=study.a1_is_alt[kept],
        dosage=study.dosage[kept],
    )  # fmt: skip


# ---- a meta-analysis is the pooled analysis ----

DROPPED = {"b": [3, 12, 40], "c": [12, 20, 21]}


@pytest.fixture(scope="module")
def studies():
    """Three studies of the same sites; b and c lack some of them."""
    whole = [make_study(21, 130, "a"), make_study(22, 90, "b"), make_study(23, 110, "c")]
    return [drop_variants(s, DROPPED.get(s.name, [])) for s in whole]


@pytest.fixture(scope="module")
def bundles(studies, tmp_path_factory):
    """Their bundles; b names some variants the other way round."""
    folder = tmp_path_factory.mktemp("studies")
    written = [studies[0], swap_names(studies[1], [0, 5, 6, 17, 18, 30]), studies[2]]
    return [run(s, folder / s.name) / "bundle" for s in written]


def combine(bundles, study, folder, **changes):
    folder.mkdir(parents=True, exist_ok=True)
    config = write_meta_config(folder / "meta.yaml", bundles, study, **changes)
    return run_meta_analysis(config, [], folder / "out", THREADS, "meta").path


@pytest.fixture(scope="module", params=[2, 3])
def combined(request, studies, bundles, tmp_path_factory):
    k = request.param
    out = combine(bundles[:k], studies[0], tmp_path_factory.mktemp(f"meta{k}"))
    tests = {
        "names": ["burden", "skat"],
        "max_maf": [0.05, 0.5],
        "weights": ["flat", "beta_1_25"],
        "null_law": "normal",
    }
    plain = combine(bundles[:k], studies[0], tmp_path_factory.mktemp(f"plain{k}"), tests=tests)
    return studies[:k], read(out), read(plain), pq.read_table(plain / "single_variants.parquet").to_pylist()


def pooled(studies, trait, gene):
    """U, V, ALT count and allele number of a gene's variants, from one analysis of everybody."""
    present = {key for study in studies for key in study.keys()}  # noqa: SIM118 - a method of Study, not of a dict
    variants = [v for v in studies[0].sets[gene] if ":".join(map(str, v)) in present]
    parts, count, number = [], np.zeros(len(variants)), np.zeros(len(variants))
    for study in studies:
        chosen = study.observed(trait)
        prediction = study.loco[CHROMOSOMES.index(variants[0][0])][chosen]
        where = {key: j for j, key in enumerate(study.keys())}
        G = np.zeros((len(variants), int(chosen.sum())))
        for i, variant in enumerate(variants):
            j = where.get(":".join(map(str, variant)))
            if j is not None:
                calls = study.dosage[j : j + 1, chosen]
                G[i] = reference.impute(calls, "mean")
                count[i] += np.nansum(calls)
                number[i] += 2 * np.isfinite(calls).sum()
        X = np.column_stack([study.design(chosen), prediction])
        parts.append((study.traits[trait][chosen], X, G, np.zeros(int(chosen.sum()))))
    U, V = reference.pooled_score_statistics(parts, binary=trait in studies[0].binary)
    return variants, U, V, count, number


@pytest.mark.parametrize("trait", ["y", "z", "cc"])
def test_meta__equals_the_pooled_analysis(combined, trait):
    studies, table, plain, singles = (
        combined  # statistics do not depend on the null law; U / V is the normal one's effect
    )
    checked = 0
    for gene in studies[0].sets:
        variants, U, V, count, number = pooled(studies, trait, gene)
        minor = np.minimum(count, number - count)
        sign = np.where(2 * count > number, -1.0, 1.0)
        categories = [studies[0].annotations[":".join(map(str, v))] for v in variants]
        for mask, members in (("M1", ("LoF",)), ("M2", ("LoF", "missense"))):
            for bound in (0.05, 0.5):
                kept = np.array([c in members for c in categories]) & (minor <= bound * number) & (minor > 0)
                key = (gene, trait, mask, bound)
                if not kept.any():
                    assert (*key, "burden", "flat") not in table
                    continue
                u, v = (sign * U)[kept], (V * np.outer(sign, sign))[np.ix_(kept, kept)]
                maf = (minor / number)[kept]
                for weights, w in (("flat", np.ones(len(maf))), ("beta_1_25", reference.beta_weights(maf, 1, 25))):
                    row, normal = table[(*key, "burden", weights)], plain[(*key, "burden", weights)]
                    statistic, beta, se = reference.burden(u, v, w)
                    assert row["statistic"] == pytest.approx(statistic, rel=1e-9, abs=1e-12)
                    assert normal["statistic"] == pytest.approx(row["statistic"], rel=1e-12)
                    assert normal["beta"] == pytest.approx(beta, abs=1e-9 * se)
                    assert normal["se"] == pytest.approx(se, rel=1e-9)
                    # of a binary trait with laws, SKAT pools ultra-rare variants first
                    assert plain[(*key, "skat", weights)]["statistic"] == pytest.approx(
                        reference.skat_q(u, w), rel=1e-9
                    )
                    assert row["n_variants"] == kept.sum()
                    assert row["mac"] == minor[kept].sum()
                    assert row["n_samples"] == sum(s.observed(trait).sum() for s in studies)
                    checked += 1
        for variant, u, v, c, n in zip(variants, U, np.diag(V), count, number, strict=True):
            found = [
                s
                for s in singles
                if (s["chromosome"], s["position"], s["ref"], s["alt"]) == variant and s["trait"] == trait
            ]
            if len(found) == 1:
                assert found[0]["U"] == pytest.approx(u, rel=1e-9, abs=1e-10)
                assert found[0]["V"] == pytest.approx(v, rel=1e-9)
                assert found[0]["alt_count"] == c
                assert found[0]["alt_frequency"] == pytest.approx(c / n, rel=1e-12)
    assert checked >= 30


def test_meta__reports_every_variant_singly_once(combined):
    keys = [(s["chromosome"], s["position"], s["ref"], s["alt"], s["trait"]) for s in combined[3]]
    assert len(keys) == len(set(keys)) == 48 * 4


def test_meta__the_order_of_studies_does_not_matter(studies, bundles, tmp_path):
    one = read(combine(bundles, studies[0], tmp_path / "abc"))
    other = read(combine([bundles[k] for k in (2, 0, 1)], studies[0], tmp_path / "cab"))
    assert_same(one, other, rtol=1e-11)


def test_meta__of_one_study_is_that_study(studies, bundles, tmp_path):
    alone = bundles[0].parent
    out = combine(bundles[:1], studies[0], tmp_path)
    for name in ("gene_tests.tsv.gz", "mask_audit.tsv"):
        assert (out / name).read_bytes() == (alone / name).read_bytes()
    assert pq.read_table(out / "single_variants.parquet").equals(pq.read_table(alone / "single_variants.parquet"))


@pytest.mark.ci
def test_meta__heterogeneity_needs_no_more_than_two_studies(studies, bundles, tmp_path):
    """A study in which a trait is not measured contributes nothing to it."""
    info = json.loads((bundles[0] / "study.json").read_text())
    assert [t["name"] for t in info["traits"]] == ["y", "w", "z", "cc"]
    lonely = copy.deepcopy(studies[1])
    lonely.traits = {"z": lonely.traits["z"]}
    lonely.binary = ()
    other = run(lonely, tmp_path / "b") / "bundle"
    table = read(combine([bundles[0], other], studies[0], tmp_path / "meta"))
    alone = read(combine(bundles[:1], studies[0], tmp_path / "alone"))
    both = read(combine(bundles[:2], studies[0], tmp_path / "both"))
    assert_same({k: v for k, v in table.items() if k[1] != "z"}, {k: v for k, v in alone.items() if k[1] != "z"})
    assert_same({k: v for k, v in table.items() if k[1] == "z"}, {k: v for k, v in both.items() if k[1] == "z"})


# ---- splitting a cohort with a shared null model ----


@pytest.mark.parametrize("n_parts", [2, 3, 7])
@given(seed=st.integers(0, 10**6))
def test_split__parts_sum_to_the_whole(n_parts, seed):
    """U, G'WG and X'WG of the parts add up, so that V of the sums is V of everybody."""
    rng = np.random.default_rng(seed)
    n, m = int(rng.integers(20, 120)), 7
    calls = random_calls(rng, m, n)
    residual, weight = rng.normal(size=n), rng.uniform(0.01, 0.25, n)
    X = np.column_stack([np.ones(n), rng.normal(size=(n, 2))])
    Q = np.linalg.qr(np.sqrt(weight)[:, None] * X)[0] * np.sqrt(weight)[:, None]
    columns = np.column_stack([residual, Q])
    imputed = rng.uniform(0, 2, (m, 1))  # shared as the null model is
    part = rng.integers(0, n_parts, n)
    whole = _statistics(calls, columns, weight, imputed)
    U, B, GWG = (sum(x) for x in zip(*(_statistics(calls[:, part == k], columns[part == k], weight[part == k], imputed)
                                       for k in range(n_parts) if (part == k).any()), strict=True))  # fmt: skip
    scale = np.abs(whole[2]).max()
    np.testing.assert_allclose(U, whole[0], rtol=1e-10, atol=1e-10)
    row, column = np.tril_indices(m)
    index = (row.astype(np.int32), column.astype(np.int32))
    V = information_matrix(m, *index, whole[2][row, column], np.ascontiguousarray(whole[1]))
    summed = information_matrix(m, *index, GWG[row, column], np.ascontiguousarray(B))
    np.testing.assert_allclose(summed, V, rtol=0, atol=1e-10 * scale)
    G = np.where(calls < 0, imputed, calls)
    np.testing.assert_allclose(V, reference.projected_covariance(G, X, weight), rtol=0, atol=1e-10 * scale)
    np.testing.assert_allclose(whole[0], G @ residual, rtol=0, atol=1e-10 * max(1.0, np.abs(whole[0]).max()))


def _statistics(calls, columns, weight, imputed):
    """U, B and the lower triangle of G'WG of A1 counts."""
    n = calls.shape[1]
    packed = np.array([np.frombuffer(pack_row(row), np.uint8) for row in calls])
    indptr, sample, dosage, a1_counted = scan_carriers(packed, n, np.arange(n, dtype=np.int32), n)
    # the counted allele may differ between parts: count A1 everywhere by listing every call that is not 0
    full = np.full(calls.shape, -9)
    for j in range(len(calls)):
        at = slice(indptr[j], indptr[j + 1])
        full[j] = 0 if a1_counted[j] else 2
        full[j, sample[at]] = np.where(dosage[at] < 0, -1, dosage[at] if a1_counted[j] else 2 - dosage[at])
    np.testing.assert_array_equal(full, calls)
    keep = calls != 0
    lists = (
        np.concatenate([[0], np.cumsum(keep.sum(axis=1))]),
        np.concatenate([np.flatnonzero(k) for k in keep]).astype(np.int32),
        np.concatenate([c[k] for c, k in zip(calls, keep, strict=True)]).astype(np.int8),
    )
    projected = project_columns(*lists, np.ascontiguousarray(columns), np.zeros(columns.shape[1], np.int64), imputed)
    m = len(calls)
    row, column, value = sparse_cross_products(
        np.arange(m), lists, np.ascontiguousarray(weight), imputed[:, 0].copy(), np.full(n, -1, np.int32)
    )
    GWG = np.zeros((m, m))
    GWG[row, column] = value
    return projected[:, 0], projected[:, 1:].T, GWG


# ---- one study, written in other ways ----


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    study = make_study(31, 120)
    study.config["score_statistics"] = {"missing": "mean"}
    return study, read(run(study, tmp_path_factory.mktemp("base")))


def test_study__swapped_a1_and_a2_change_nothing(base, tmp_path):
    study = copy.deepcopy(base[0])
    study.a1_is_alt = np.random.default_rng(1).random(len(study.position)) < 0.5
    assert_same(base[1], read(run(study, tmp_path)))


def test_study__swapped_names_of_rare_variants_change_nothing(base, tmp_path):
    """The minor allele is counted, whichever name it has."""
    study = swap_names(base[0], range(0, 48, 2))
    assert_same(base[1], read(run(study, tmp_path)))


def test_study__a_permutation_of_samples_changes_nothing(base, tmp_path):
    rng = np.random.default_rng(2)
    study = base[0].take_samples(rng.permutation(base[0].n))
    study.table_order = rng.permutation(study.n)
    assert_same(base[1], read(run(study, tmp_path)))


def test_study__further_samples_without_phenotype_change_nothing(base, tmp_path):
    study, other = base[0], make_study(99, 80, "other")
    rng = np.random.default_rng(3)
    wider = dataclasses.replace(
        study,
        dosage=np.hstack([study.dosage, other.dosage]),
        samples=[*study.samples, *other.samples],
        traits={k: np.concatenate([v, np.full(80, np.nan)]) for k, v in study.traits.items()},
        covariates={k: np.concatenate([v, other.covariates[k]]) for k, v in study.covariates.items()},
        sex=[*study.sex, *other.sex],
        loco=np.hstack([study.loco, other.loco]),
    ).take_samples(rng.permutation(study.n + 80))
    assert_same(base[1], read(run(wider, tmp_path)))


def test_study__the_scale_of_a_trait_scales_effects_only(base, tmp_path):
    study = copy.deepcopy(base[0])
    study.traits["y"] = -1000 * study.traits["y"] + 7
    table = read(run(study, tmp_path))
    other = {k: v for k, v in base[1].items() if k[1] != "y"}
    assert_same(other, {k: v for k, v in table.items() if k[1] != "y"}, rtol=1e-12)
    for key, row in table.items():
        if key[1] == "y":
            before = base[1][key]
            # 1e-8: taking a mean of 3000 off values that vary by 1000 costs a digit
            np.testing.assert_allclose(row["log10p"], before["log10p"], rtol=1e-8, atol=1e-10)
            if before["se"] is not None and np.isfinite(before["se"]):
                np.testing.assert_allclose(row["beta"], -1000 * before["beta"], rtol=1e-8, atol=1e-8 * row["se"])
                np.testing.assert_allclose(row["se"], 1000 * before["se"], rtol=1e-8)


def test_study__the_scale_of_covariates_changes_nothing(base, tmp_path):
    study = copy.deepcopy(base[0])
    study.covariates["age"] = 1e4 * study.covariates["age"] - 3
    study.covariates["pc1"] = 1e-6 * study.covariates["pc1"]
    assert_same(base[1], read(run(study, tmp_path)))


def test_study__another_basis_of_covariates_changes_nothing(base, tmp_path):
    study = copy.deepcopy(base[0])
    study.covariates["age"] = study.covariates["age"] + 3 * study.covariates["pc1"]
    assert_same(base[1], read(run(study, tmp_path)))


def test_study__the_scale_of_a_prediction_used_as_covariate_changes_nothing(base, tmp_path):
    study = copy.deepcopy(base[0])
    study.loco = -50 * study.loco + 4
    assert_same(base[1], read(run(study, tmp_path)))


def test_study__the_order_of_genes_and_variants_changes_nothing(base, tmp_path):
    study = copy.deepcopy(base[0])
    study.sets = {gene: list(reversed(variants)) for gene, variants in reversed(study.sets.items())}
    assert_same(base[1], read(run(study, tmp_path)), rtol=1e-10)


def test_study__other_traits_change_nothing(base, tmp_path):
    study = copy.deepcopy(base[0])
    study.traits = {"z": study.traits["z"]}
    study.binary = ()
    assert_same({k: v for k, v in base[1].items() if k[1] == "z"}, read(run(study, tmp_path)), rtol=1e-11)


def test_study__chromosome_prefixes_change_nothing(base, tmp_path):
    study = copy.deepcopy(base[0])
    path = study.write(tmp_path / "in")
    bim = path.parent / "geno.bim"
    bim.write_text("".join(f"chr{line}" for line in bim.read_text().splitlines(keepends=True)))
    assert_same(base[1], read(run_study(path, tmp_path / "out", THREADS, "meta").path), rtol=1e-14)


def test_study__one_file_per_chromosome_changes_nothing(base, tmp_path):
    study = base[0]
    path = study.write(tmp_path / "in", genotypes="chr{chrom}.bed")
    whole = tmp_path / "in" / "geno"
    bed, bim = whole.with_suffix(".bed").read_bytes(), whole.with_suffix(".bim").read_text().splitlines(keepends=True)
    width = (study.n + 3) // 4
    for c in CHROMOSOMES:
        rows = [j for j, x in enumerate(study.chromosome) if x == c]
        part = tmp_path / "in" / f"chr{c}"
        part.with_suffix(".bed").write_bytes(bed[:3] + b"".join(bed[3 + j * width : 3 + (j + 1) * width] for j in rows))
        part.with_suffix(".bim").write_text("".join(bim[j] for j in rows))
        part.with_suffix(".fam").write_bytes(whole.with_suffix(".fam").read_bytes())
    assert_same(base[1], read(run_study(path, tmp_path / "out", THREADS, "meta").path), rtol=1e-14)


def test_study__a_frequency_exactly_at_the_bound_is_inside_for_either_name(tmp_path):
    """5 minor alleles of 100: inside 0.05, also when the minor allele is REF."""
    study = make_study(41, 50, loco=False, missing_calls=0)
    study.covariates = {"age": study.covariates["age"]}
    study.traits = {"z": study.traits["z"]}
    study.binary = ()
    study.dosage[:] = 0
    for j in range(len(study.position)):
        study.dosage[j, np.arange(5) * 7 + j % 15] = 1
    study = swap_names(study, range(0, 48, 3))
    study.config["tests"] = {"names": ["burden"], "max_maf": [0.05], "weights": ["flat"]}
    rows = pq.read_table(run(study, tmp_path) / "gene_tests.parquet").to_pylist()
    kept = {(r["gene"], r["mask"]): r["n_variants"] for r in rows}
    for gene, variants in study.sets.items():
        for mask, members in (("M1", ("LoF",)), ("M2", ("LoF", "missense"))):
            expected = sum(study.annotations[":".join(map(str, v))] in members for v in variants)
            assert kept.get((gene, mask), 0) == expected
