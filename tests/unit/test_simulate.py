"""Simulated genotypes, traits, GWAS and files: what the parameters promise is what comes out."""

import gzip
import itertools
import json
import sys

import msgspec
import numpy as np
import pytest
import yaml

from locomass.config import MetaConfig, RunConfig, load_config
from locomass.errors import ConfigError, InputError
from locomass.genotypes.fileset import open_fileset
from locomass.simulate.genotypes import simulate_genotypes
from locomass.simulate.gwas import _format_p, regress_marginally, residualise
from locomass.simulate.haplotypes import (
    collect_carriers,
    copy_founders,
    order_leaves,
    simulate_clades,
    simulate_founders,
)
from locomass.simulate.parameters import Parameters
from locomass.simulate.phenotypes import (
    annotate_rare,
    count_candidates,
    draw_causal_genes,
    recruit,
    simulate_genetic_values,
    simulate_people,
)
from locomass.simulate.rare import _draw_carriers, _draw_counts, _split_blocks, simulate_null_genes, write_rare_fileset
from locomass.simulate.study import simulate_demo, simulate_study
from locomass.tables.annotations import read_annotations, read_masks
from locomass.tables.gene_sets import read_sets
from locomass.tables.samples import read_table
from locomass.tables.summary_statistics import read_summary_statistics

SMALL = Parameters(
    study_sizes=[300, 200],
    n_gwas=1500,
    n_reference=200,
    n_chromosomes=3,
    common_per_chromosome=40,
    genes_per_chromosome=4,
    variants_per_gene=12,
    causal_genes=2,
    gene_variance=0.03,
    swapped=0.3,
    absent=0.2,
    missing_calls=0.02,
    missing_phenotypes=0.05,
    seed=7,
)


def read_dosage(path):
    """ALT counts by variant key, decoded from the bytes by definition; NaN where missing."""
    fileset = open_fileset(path)
    packed = fileset.select(np.arange(fileset.n_variants)).packed()
    code = (packed[:, :, None] >> np.array([0, 2, 4, 6])) & 3
    a1 = np.array([2, np.nan, 1, 0])[code.reshape(len(packed), -1)[:, : fileset.n_samples]]
    alt = fileset.variants["id"].str.split(":").str[3].to_numpy()
    swapped = fileset.variants["a1"].to_numpy() != alt
    return fileset, np.where(swapped[:, None], 2 - a1, a1), swapped


# --- haplotypes


def test_founders_have_their_frequencies_and_ld_decays():
    rng = np.random.default_rng(1)
    m, n = 300, 1000
    frequency = rng.uniform(0.05, 0.95, m)
    founders = simulate_founders(np.arange(m) * 1000, frequency, n, 5000.0, rng)
    np.testing.assert_array_equal(founders.sum(axis=1), np.round(frequency * n))
    r2 = np.corrcoef(founders) ** 2
    by_lag = [np.diag(r2, k).mean() for k in (1, 3, 6, 12, 60)]
    assert by_lag == sorted(by_lag, reverse=True)
    assert by_lag[0] > 0.15
    assert by_lag[-1] < 3 / n  # 1/n is what independence gives
    r = np.diag(np.corrcoef(founders), 1)
    assert 0.35 < (r > 0).mean() < 0.65  # both signs


def test_founders_far_apart_are_independent_and_close_ones_equal():
    rng = np.random.default_rng(2)
    founders = simulate_founders(np.array([10, 10, 10_000_000]), np.full(3, 0.3), 2000, 100.0, rng)
    same = (founders[0] == founders[1]).mean()
    assert same == 1.0 or same == pytest.approx(0.4, abs=0.05)  # ALT on the same side, or on opposite sides
    assert abs(np.corrcoef(founders)[1, 2]) < 4 / np.sqrt(2000)


def test_people_are_mosaics_of_founders():
    rng = np.random.default_rng(3)
    m, n_founders, n = 60, 16, 400
    founders = (np.arange(m)[:, None] + np.arange(n_founders)) % 2
    switch = np.full(m, 0.1)
    dosage, copied = copy_founders(founders.astype(np.int8), switch, n, range(m), rng)
    path = np.stack([copied[j] for j in range(m)])
    allele = np.take_along_axis(founders, path.astype(int), axis=1)
    np.testing.assert_array_equal(dosage, allele[:, :n] + allele[:, n:])
    changed = (path[1:] != path[:-1]).mean()
    assert changed == pytest.approx(0.1 * (1 - 1 / n_founders), abs=4 * np.sqrt(0.09 / path.size))


def coalesce_naively(n, growth, rng):
    """Kingman's coalescent pair by pair: (clade, branch length) of every branch."""
    lineages = [(frozenset([i]), 0.0) for i in range(n)]
    t, branches = 0.0, []
    while len(lineages) > 1:
        k = len(lineages)
        wait = rng.exponential() / (k * (k - 1) / 2)
        t = np.log(np.exp(growth * t) + growth * wait) / growth if growth else t + wait
        i, j = sorted(rng.choice(k, 2, replace=False))
        (b, tb), (a, ta) = lineages.pop(j), lineages.pop(i)
        branches += [(a, t - ta), (b, t - tb)]
        lineages.append((a | b, t))
    return branches


@pytest.mark.parametrize("growth", [0.0, 30.0])
def test_clade_sizes_follow_the_coalescent(growth):
    """The spectrum (weighted by branch length within each tree) equals the naive coalescent's."""
    n, replicates = 12, 1500
    rng = np.random.default_rng(4)
    fast = np.zeros(n)
    for _ in range(replicates):
        _, size = simulate_clades(n, 20, growth, n - 1, rng)
        fast += np.bincount(size, minlength=n) / 20
    slow = np.zeros(n)
    for _ in range(replicates):
        branches = coalesce_naively(n, growth, rng)
        total = sum(length for _, length in branches)
        for clade, length in branches:
            slow[len(clade)] += length / total
    # a share has sd below 0.15 between trees: 4 standard errors of the difference
    np.testing.assert_allclose(fast / replicates, slow / replicates, atol=4 * 0.15 * np.sqrt(2 / replicates))
    assert fast[1] > fast[2] > fast[4]


def test_clades_of_one_gene_are_nested_or_disjoint():
    rng = np.random.default_rng(5)
    for growth in (0.0, 100.0):
        first, size = simulate_clades(300, 60, growth, 299, rng)
        sets = [set(range(a, a + k)) for a, k in zip(first.tolist(), size.tolist(), strict=True)]
        assert all(a >= 0 and a + k <= 300 for a, k in zip(first.tolist(), size.tolist(), strict=True))
        assert all(not (a & b) or a <= b or b <= a for a in sets for b in sets)


def test_growth_makes_singletons_and_max_count_holds():
    rng = np.random.default_rng(6)
    share = []
    for growth in (0.0, 100.0, 2000.0):
        size = np.concatenate([simulate_clades(4000, 25, growth, 200, rng)[1] for _ in range(60)])
        assert size.min() >= 1
        assert size.max() <= 200
        share.append((size == 1).mean())
    assert share[0] < share[1] < share[2]
    assert 0.4 < share[2] < 0.65  # deep sequencing of thousands: about half


def test_simulate_clades__raises_on_one_haplotype():
    with pytest.raises(ValueError, match="needs 2 haplotypes"):
        simulate_clades(1, 5, 0.0, 1, np.random.default_rng(0))


def test_leaves_keep_the_copies_of_a_founder_together():
    rng = np.random.default_rng(7)
    copied = rng.integers(9, size=500).astype(np.uint16)
    order = order_leaves(copied, rng)
    np.testing.assert_array_equal(np.sort(order), np.arange(500))
    assert (np.diff(copied[order].astype(int)) != 0).sum() == 8


def test_collect_carriers_counts_both_haplotypes():
    order = np.array([3, 0, 4, 1, 2, 5])  # haplotypes 0..5 of persons 0,1,2,0,1,2
    indptr, sample, dosage = collect_carriers(np.array([0, 2, 5]), np.array([2, 3, 1]), order, 3)
    assert indptr.tolist() == [0, 1, 3, 4]
    assert sample.tolist() == [0, 1, 2, 2]
    assert dosage.tolist() == [2, 2, 1, 1]


# --- genotypes


def test_genotypes_have_the_promised_shape_and_frequencies():
    chromosomes = list(simulate_genotypes(SMALL, 600, 300))
    assert [c.label for c in chromosomes] == ["1", "2", "3"]
    for c in chromosomes:
        assert c.dosage.shape == (40, 600)
        f = c.dosage.mean(axis=1) / 2
        assert (np.minimum(f, 1 - f) > 0.01).all()
        assert len(c.rare) == 48
        ac = np.add.reduceat(c.count, c.indptr[:-1].astype(int))
        assert ac.min() >= 1
        assert ac.max() <= 0.05 * 600
        np.testing.assert_array_equal(c.decode_rare(np.arange(48)).sum(axis=1), ac)
        assert c.sample.max() < 300
        positions = np.concatenate((c.common.position, c.rare.position))
        assert len(set(positions.tolist())) == 88
        assert (np.diff(c.rare.position) > 0).all()
        assert (c.rare.ref != c.rare.alt).all()
        strands = {"A": "T", "C": "G", "G": "C", "T": "A"}
        assert all(strands[r] != a for r, a in zip(c.common.ref, c.common.alt, strict=True))
    genes = np.concatenate([c.gene for c in chromosomes])
    np.testing.assert_array_equal(np.bincount(genes), np.full(12, 12))


def test_genotypes_are_in_hardy_weinberg_proportions():
    c = next(simulate_genotypes(SMALL, 4000))
    f = c.dosage.mean(axis=1, keepdims=True) / 2
    excess = (c.dosage == 1).mean(axis=1) / (2 * f * (1 - f)).ravel() - 1
    assert np.abs(excess).max() < 0.1


def test_ld_decays_between_people():
    p = msgspec.structs.replace(SMALL, n_chromosomes=4, common_per_chromosome=100)
    r2 = [np.corrcoef(c.dosage.astype(float)) ** 2 for c in simulate_genotypes(p, 2000)]
    by_lag = [np.mean([np.diag(r, k).mean() for r in r2]) for k in (1, 2, 5, 20, 60)]
    assert by_lag == sorted(by_lag, reverse=True)
    assert by_lag[0] > 0.15
    assert by_lag[-1] < 0.01


def test_rare_carriers_share_a_common_background():
    """Clades follow founders, so carriers of a doubleton copy one founder far more often than strangers do."""
    p = msgspec.structs.replace(SMALL, n_chromosomes=1, variants_per_gene=60, growth=50.0)
    c = next(simulate_genotypes(p, 1000))
    agreement = []
    for gene, rows in c.genes():
        near = np.argsort(np.abs(c.common.position - c.rare.position[rows[0]]))[:4]
        for row in rows:
            who = c.sample[c.indptr[row] : c.indptr[row + 1]]
            if who.size == 2:
                # people who share a haplotype never are opposite homozygotes there
                agreement.append((np.abs(np.diff(c.dosage[near][:, who].astype(int), axis=1)) < 2).all())
        assert gene < 4
    strangers = np.abs(c.dosage[near][:, ::2].astype(int) - c.dosage[near][:, 1::2]) < 2
    assert len(agreement) > 15
    assert np.mean(agreement) > strangers.all(axis=0).mean() + 0.15


def test_a_chromosome_depends_on_its_seed_only():
    first, again = (list(simulate_genotypes(SMALL, 200)) for _ in range(2))
    other = next(simulate_genotypes(msgspec.structs.replace(SMALL, seed=8), 200))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a.dosage, b.dosage)
        np.testing.assert_array_equal(a.sample, b.sample)
        assert a.rare.keys == b.rare.keys
    assert (first[0].dosage != other.dosage).mean() > 0.1
    fewer = list(simulate_genotypes(msgspec.structs.replace(SMALL, n_chromosomes=1), 200))
    np.testing.assert_array_equal(fewer[0].dosage, first[0].dosage)


def test_simulate_genotypes__raises_on_too_many_sequenced():
    with pytest.raises(ValueError, match=r"n_sequenced must be in 1\.\.100"):
        next(simulate_genotypes(SMALL, 100, 101))


# --- traits


@pytest.fixture(scope="module")
def population():
    p = msgspec.structs.replace(SMALL, n_chromosomes=6, causal_genes=3)
    n = 6000
    values = simulate_genetic_values(p, simulate_genotypes(p, n, 3000))
    return p, values, simulate_people(p, values)


def test_variances_are_realised(population):
    p, values, people = population
    for t, trait in enumerate((people.y, people.liability)):
        assert values.polygenic[t].var() == pytest.approx(p.h2, rel=1e-9)
        assert trait.var() == pytest.approx(1, abs=0.08)
        assert values.rare[t].var() == pytest.approx(p.causal_genes * p.gene_variance, rel=0.25)
        h2 = np.corrcoef(values.polygenic[t], trait)[0, 1] ** 2
        assert h2 == pytest.approx(p.h2, abs=0.06)
        design = np.column_stack([np.ones(trait.size), *people.covariates.values()])
        fit = design @ np.linalg.lstsq(design, trait, rcond=None)[0]
        assert fit.var() == pytest.approx(p.covariate_variance, abs=0.03)
    assert people.cc.mean() == pytest.approx(p.prevalence, abs=0.03)
    assert people.y[:3000].var() == pytest.approx(people.y[3000:].var(), abs=0.1)
    assert set(people.covariates["sex"].tolist()) == {1.0, 2.0}


def test_causal_genes_explain_their_variance(population):
    p, values, _ = population
    chromosomes = {c.label: c for c in simulate_genotypes(p, 6000, 3000)}
    for t, genes in enumerate(values.causal_genes):
        assert {g.gene for g in genes} == draw_causal_genes(p)[t]
        total = np.zeros(3000)
        for g in genes:
            c = chromosomes[g.chromosome]
            rows = np.array([c.rare.keys.index(key) for key in g.variants])
            part = np.array(g.effects) @ c.decode_rare(rows)
            assert part.var() == pytest.approx(p.gene_variance, rel=1e-9)
            total += part - part.mean()
        np.testing.assert_allclose(values.rare[t], total, atol=1e-12)
    assert not draw_causal_genes(p)[0] & draw_causal_genes(p)[1]


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        ("constant", np.ones_like),
        ("log10-maf", lambda q: -np.log10(q)),
        ("inverse-sd", lambda q: 1 / np.sqrt(q * (1 - q))),
    ],
)
def test_effects_follow_the_model(model, shape):
    p = msgspec.structs.replace(SMALL, effect_model=model, protective=0.5, n_chromosomes=2)
    values = simulate_genetic_values(p, simulate_genotypes(p, 500))
    chromosomes = {c.label: c for c in simulate_genotypes(p, 500)}
    signs = []
    for g in (g for genes in values.causal_genes for g in genes):
        c = chromosomes[g.chromosome]
        rows = np.array([c.rare.keys.index(key) for key in g.variants])
        maf = c.decode_rare(rows).mean(axis=1) / 2
        ratio = np.abs(g.effects) / shape(maf)
        np.testing.assert_allclose(ratio, ratio[0], rtol=1e-12)
        signs += np.sign(g.effects).tolist()
    assert {-1.0, 1.0} == set(signs)


def test_annotations_have_their_shares_and_scores_inform():
    p = msgspec.structs.replace(SMALL, n_chromosomes=1, common_per_chromosome=200, variants_per_gene=400, seed=3)
    annotation = annotate_rare(next(simulate_genotypes(p, 300)), p)
    shares = {name: (annotation.category == name).mean() for name in ("LoF", "missense", "synonymous")}
    assert shares["LoF"] == pytest.approx(0.1, abs=0.04)
    assert shares["missense"] == pytest.approx(0.55, abs=0.06)
    missense = annotation.category == "missense"
    assert annotation.causal[annotation.category == "LoF"].all()
    assert not annotation.causal[annotation.category == "synonymous"].any()
    assert annotation.causal[missense].mean() == pytest.approx(p.causal_missense, abs=0.08)
    means = [annotation.score[missense & (annotation.causal == c)].mean() for c in (True, False)]
    assert means[0] > means[1] + 0.2


def test_every_gene_has_a_variant_that_acts():
    p = msgspec.structs.replace(SMALL, variants_per_gene=2, causal_missense=0.05)
    for c in simulate_genotypes(p, 300):
        causal = annotate_rare(c, p).causal
        assert all(causal[rows].any() for _, rows in c.genes())


def test_ascertainment_recruits_cases_and_controls():
    p = msgspec.structs.replace(SMALL, prevalence=0.1, case_share=0.5)
    candidates = count_candidates(p)
    assert candidates[0] > 300 * 0.5 / 0.1
    n = sum(candidates)
    people = simulate_people(p, simulate_genetic_values(p, simulate_genotypes(p, n)))
    members = recruit(p, people)
    assert [who.size for who in members] == [300, 200]
    assert [int(people.cc[who].sum()) for who in members] == [150, 100]
    assert members[0].max() < candidates[0] <= members[1].min()
    assert all((np.diff(who) > 0).all() for who in members)


# --- GWAS


def test_marginal_regression_equals_least_squares():
    rng = np.random.default_rng(9)
    n = 120
    dosage = rng.binomial(2, 0.3, (5, n)).astype(np.int8)
    dosage[2] = 1
    y = residualise(rng.standard_normal((2, n)), rng.standard_normal((n, 3)))
    effects = regress_marginally(dosage, y)
    for t in range(2):
        for j in (0, 1, 3, 4):
            design = np.column_stack([np.ones(n), dosage[j]])
            b, rss = np.linalg.lstsq(design, y[t], rcond=None)[:2]
            se = np.sqrt(rss[0] / (n - 2) * np.linalg.inv(design.T @ design)[1, 1])
            assert effects.beta[t, j] == pytest.approx(b[1], rel=1e-9)
            assert effects.se[t, j] == pytest.approx(se, rel=1e-9)
    assert np.isnan(effects.beta[:, 2]).all()
    np.testing.assert_allclose(effects.frequency, dosage.mean(axis=1) / 2)


def test_residuals_are_orthogonal_to_covariates():
    rng = np.random.default_rng(10)
    x = rng.standard_normal((50, 2))
    residuals = residualise(rng.standard_normal((3, 50)) + 5, x)
    np.testing.assert_allclose(residuals @ np.column_stack((np.ones(50), x)), 0, atol=1e-12)


@pytest.mark.parametrize("log10p", [0.0, 0.3, 5.25, 299.9, 412.0])
def test_p_values_are_written_without_underflow(log10p):
    mantissa, exponent = _format_p(log10p).split("e")
    assert -np.log10(float(mantissa)) - int(exponent) == pytest.approx(log10p, abs=1e-4)


# --- files


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    root = tmp_path_factory.mktemp("study")
    return SMALL, root, simulate_study(root, SMALL)


def test_configurations_load_and_name_files_that_exist(study):
    _, root, written = study
    for path in written.studies:
        config = load_config(path, RunConfig)
        named = [config.genotypes, config.phenotypes.file, config.covariates.file]
        named += [config.predictor.genotypes, config.predictor.ld_reference]
        named += config.predictor.summary_statistics.values()
        named += [config.genes.sets, config.genes.annotations, config.genes.masks]
        assert all((root / name).is_file() for name in named)
        assert (config.predictor.method, config.predictor.use) == ("ridge", "covariate")
    assert load_config(written.consortium, MetaConfig).studies == [f"results/study{k}/bundle" for k in (1, 2)]


def test_studies_hold_their_part_of_the_population(study):
    p, root, _ = study
    n = 300 + 200 + 200 + 1500
    chromosomes = list(simulate_genotypes(p, n, 500))
    people = [np.arange(300), np.arange(300, 500)]
    common = {key: c.dosage[j] for c in chromosomes for j, key in enumerate(c.common.keys)}
    rare = {k: d for c in chromosomes for k, d in zip(c.rare.keys, c.decode_rare(np.arange(48)), strict=True)}
    for k, who in enumerate(people):
        for name, truth in (("array", common), ("sequence", rare)):
            fileset, dosage, swapped = read_dosage(root / f"study{k + 1}" / f"{name}.bed")
            expected = np.array([truth[key][who] for key in fileset.variants["id"]])
            missing = np.isnan(dosage)
            np.testing.assert_array_equal(dosage[~missing], expected[~missing])
            assert missing.mean() == pytest.approx(p.missing_calls, abs=0.006)
            assert swapped.mean() == pytest.approx(p.swapped if k else 0.0, abs=0.13)
            assert swapped.any() == bool(k)
            if name == "array":
                assert len(fileset.variants) / len(truth) == pytest.approx(1 - p.absent if k else 1, abs=0.12)
            else:
                assert expected.any(axis=1).all()
    reference, dosage, swapped = read_dosage(root / "reference.bed")
    expected = [common[key][500:700] for key in reference.variants["id"]]
    np.testing.assert_array_equal(dosage, expected)
    assert not swapped.any()
    assert len(reference.variants) == 120


def test_tables_match_the_filesets(study):
    p, root, _ = study
    for k, size in enumerate(p.study_sizes):
        folder = root / f"study{k + 1}"
        fileset = open_fileset(folder / "sequence.bed")
        pheno = read_table(folder / "pheno.tsv", quantitative=["y"], binary=["cc"])
        covar = read_table(folder / "covar.tsv", quantitative=["age", "pc1", "pc2"], categorical=["sex"])
        assert pheno.iid.tolist() == covar.iid.tolist() == fileset.iid.tolist()
        assert len(pheno) == size
        assert covar.columns["sex"].tolist() == fileset.sex.astype(str).tolist()
        for trait in ("y", "cc"):
            assert np.isnan(pheno.columns[trait]).mean() == pytest.approx(p.missing_phenotypes, abs=0.06)


def test_gene_files_read_back(study):
    p, root, _ = study
    sets = read_sets(root / "genes" / "sets.txt")
    annotations = read_annotations(root / "genes" / "annotations.txt")
    masks = read_masks(root / "genes" / "masks.txt", annotations.categories)
    assert len(sets.gene) == p.n_genes
    assert sets.gene[0] == "GENE1_1"
    assert (annotations.find_rows(sets) >= 0).all()
    assert masks.names == ("LoF", "LoF_missense", "all")
    score = annotations.weights["weight_1"]
    assert ((score >= 0) & (score <= 1)).all()
    for k in (1, 2):
        ids = open_fileset(root / f"study{k}" / "sequence.bed").variants["id"]
        assert set(ids) <= set(sets.variants)


def test_summary_statistics_read_back_and_predict(study):
    p, root, written = study
    truth = json.loads(written.truth.read_text())
    reference, dosage, _ = read_dosage(root / "reference.bed")
    key = {
        (c, int(b)): j
        for j, (c, b) in enumerate(zip(*reference.variants[["chromosome", "position"]].T.values, strict=True))
    }
    for trait, binary in (("y", False), ("cc", True)):
        stats = read_summary_statistics(root / "gwas" / f"{trait}.tsv.gz")
        assert stats.format == "GWAS-SSF"
        assert stats.genome_build == "GRCh38"
        assert not stats.dropped
        assert (stats.n == p.n_gwas).all()
        assert (stats.n_eff < p.n_gwas).all() == binary
        rows = [key[c, int(b)] for c, b in zip(stats.chromosome, stats.position, strict=True)]
        alt = stats.effect_allele == reference.variants["a1"].to_numpy()[rows]
        assert 0.5 < alt.mean() < 0.9
        frequency = dosage[rows].mean(axis=1) / 2
        assert np.abs(np.where(alt, stats.eaf, 1 - stats.eaf) - frequency).max() < 0.15
        # sd(y) per sd(g): 1 for y (0.95 after covariates), 2 on the scale of n_eff for log odds
        sd = np.median(np.sqrt(stats.n_eff * stats.se**2 + stats.beta**2) * np.sqrt(2 * frequency * (1 - frequency)))
        assert sd == pytest.approx(2 if binary else 0.95, rel=0.06)
        assert truth["traits"][trait]["kind"] == ("binary" if binary else "quantitative")
    # marginal effects of an independent GWAS, as weights, predict the first study
    stats = read_summary_statistics(root / "gwas" / "y.tsv.gz")
    array, study1, _ = read_dosage(root / "study1" / "array.bed")
    assert array.variants["id"].tolist() == reference.variants["id"].tolist()
    beta = np.where(stats.effect_allele == array.variants["a1"], stats.beta, -stats.beta)
    y = read_table(root / "study1" / "pheno.tsv", quantitative=["y"]).columns["y"]
    score = beta @ np.nan_to_num(study1, nan=1.0)
    assert np.corrcoef(score[~np.isnan(y)], y[~np.isnan(y)])[0, 1] > 0.3


def test_metadata_stands_beside_the_summary_statistics(study):
    p, root, _ = study
    metadata = yaml.safe_load((root / "gwas" / "cc.tsv.gz-meta.yaml").read_text())
    (sample,) = metadata["samples"]
    assert sample["sample_size"] == p.n_gwas == sample["case_count"] + sample["control_count"]
    with gzip.open(root / "gwas" / "cc.tsv.gz", "rt") as handle:
        assert handle.readline().split()[:4] == ["chromosome", "base_pair_location", "effect_allele", "other_allele"]


def test_truth_names_genes_variants_and_parameters(study):
    p, root, written = study
    truth = json.loads(written.truth.read_text())
    assert msgspec.convert(truth["parameters"], Parameters) == p
    variants = set(read_sets(root / "genes" / "sets.txt").variants)
    for trait in truth["traits"].values():
        assert len(trait["causal_genes"]) == p.causal_genes
        assert all(set(gene["effects"]) <= variants for gene in trait["causal_genes"])
        assert all(0.2 < h2 < 0.6 for h2 in trait["h2_per_study"])


def test_the_same_seed_writes_the_same_bytes(study, tmp_path):
    p, root, _ = study
    simulate_study(tmp_path / "again", p)
    files = sorted(path.relative_to(root) for path in root.rglob("*") if path.is_file())
    assert len(files) == 30
    for name in files:
        assert (tmp_path / "again" / name).read_bytes() == (root / name).read_bytes()
    simulate_study(tmp_path / "other", msgspec.structs.replace(p, seed=8))
    assert (tmp_path / "other" / "study1" / "pheno.tsv").read_bytes() != (root / "study1" / "pheno.tsv").read_bytes()


def test_a_study_without_gwas_has_no_predictor(tmp_path):
    p = msgspec.structs.replace(SMALL, n_gwas=0, study_sizes=[60], n_chromosomes=1, causal_genes=0, h2=0.0)
    written = simulate_study(tmp_path, p)
    assert load_config(written.studies[0], RunConfig).predictor.method == "none"
    assert not (tmp_path / "gwas").exists()
    assert not (tmp_path / "reference.bed").exists()
    truth = json.loads(written.truth.read_text())
    assert truth["traits"]["y"]["causal_genes"] == []
    assert truth["traits"]["y"]["h2_per_study"] == [0.0]


def test_demo_is_the_default_study(tmp_path):
    written = simulate_demo(tmp_path, seed=2)
    sizes = [open_fileset(tmp_path / f"study{k}" / "array.bed").n_samples for k in (1, 2)]
    assert sizes == [1500, 1000]
    array = open_fileset(tmp_path / "study1" / "array.bed").variants
    assert array["chromosome"].nunique() == 22
    assert len(array) == 22 * 120
    truth = json.loads(written.truth.read_text())
    assert truth["parameters"]["seed"] == 2
    assert truth["traits"]["y"]["h2_per_study"] == pytest.approx([0.4, 0.4], abs=0.06)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"h2": 0.95}, "leave -0.11 of the variance 1 for noise"),
        ({"causal_genes": 7}, "there are only 12 genes"),
        ({"variants_per_gene": 5000}, "do not fit on a chromosome"),
        ({"prevalence": 0.01}, "fewer than 50 cases or controls"),
        ({"max_maf": 1e-4}, "allows no carrier"),
        ({"study_sizes": [5]}, r"parameter study_sizes\[0\]: Expected `int` >= 20"),
        ({"engine": "hapgen"}, "parameter engine: Invalid enum value 'hapgen'"),
        ({"n_chromosomes": 23}, "parameter n_chromosomes: Expected `int` <= 22"),
    ],
)
def test_simulate_study__raises_on_bad_parameters(tmp_path, change, match):
    with pytest.raises(ConfigError, match=match):
        simulate_study(tmp_path / "x", msgspec.structs.replace(SMALL, **change))
    assert not (tmp_path / "x").exists()


# --- bulk rare variants


def test_null_genes_are_haplotypes_with_the_promised_spectrum():
    genes = list(simulate_null_genes(1000, 80, 20, growth=0.0, max_maf=0.5, seed=3))
    assert all(g.shape == (1000, 20) and g.dtype == np.int8 for g in genes)
    ac = np.concatenate([g.sum(axis=0) for g in genes])
    k = np.arange(1, 1001)
    expected = np.cumsum(1 / k) / (1 / k).sum()
    for edge in (1, 10, 100):  # constant size: P(k) ~ 1/k
        assert (ac <= edge).mean() == pytest.approx(expected[edge - 1], abs=0.06)
    again = list(simulate_null_genes(1000, 2, 20, growth=0.0, max_maf=0.5, seed=3))
    np.testing.assert_array_equal(again[1], genes[1])
    assert (genes[0] != genes[1]).any()


def test_null_genes_correlate_within_a_gene():
    """Nested clades: |r| within a gene exceeds that between genes."""
    genes = list(simulate_null_genes(500, 30, 10, growth=0.0, max_maf=0.5, seed=4))
    within = np.mean([np.abs(np.corrcoef(g.T.astype(float)))[np.triu_indices(10, 1)].mean() for g in genes])
    a, b = (np.hstack(genes[k::2]).astype(float) for k in (0, 1))
    between = np.abs(np.corrcoef(a.T, b.T)[: a.shape[1], a.shape[1] :]).mean()
    assert within > 2 * between


@pytest.mark.parametrize("change", [{"n_samples": 0}, {"max_maf": 0.7}, {"growth": -1.0}, {"variants_per_gene": 0}])
def test_null_genes__raise_on_bad_numbers(change):
    with pytest.raises(ConfigError, match="null genes need"):
        next(simulate_null_genes(**{"n_samples": 10, "n_genes": 1, **change}))


@pytest.mark.parametrize(("spectrum", "exponent"), [("1/k", 1.0), ("growth", 1.8)])
def test_rare_fileset_has_the_spectrum_and_runs(tmp_path, spectrum, exponent):
    n, m = 1000, 3000
    config = write_rare_fileset(tmp_path / "r.bed", n, m, spectrum, seed=5, max_maf=0.05, n_traits=2)
    fileset, dosage, swapped = read_dosage(tmp_path / "r.bed")
    assert (fileset.n_samples, fileset.n_variants) == (n, m)
    assert not swapped.any()
    ac = dosage.sum(axis=1)
    assert ac.min() >= 1
    assert ac.max() <= 100
    k = np.arange(1, 101)
    expected = np.cumsum(k**-exponent) / (k**-exponent).sum()
    for edge in (1, 5, 50):
        assert (ac <= edge).mean() == pytest.approx(expected[edge - 1], abs=0.04)
    loaded = load_config(config, RunConfig)
    assert loaded.phenotypes.quantitative == ["y1", "y2"]
    sets = read_sets(tmp_path / loaded.genes.sets)
    assert len(sets.gene) == 75
    assert set(sets.chromosome) == {str(c) for c in range(1, 23)}
    assert sets.variants.tolist() == fileset.variants["id"].tolist()
    annotations = read_annotations(tmp_path / loaded.genes.annotations)
    assert (annotations.find_rows(sets) >= 0).all()
    read_masks(tmp_path / loaded.genes.masks, annotations.categories)
    pheno = read_table(tmp_path / loaded.phenotypes.file, quantitative=["y1", "y2"], binary=["cc"])
    covar = read_table(tmp_path / loaded.covariates.file, quantitative=["age", "pc1", "pc2"], categorical=["sex"])
    assert pheno.iid.tolist() == covar.iid.tolist() == fileset.iid.tolist()


def test_rare_fileset_is_streamed_in_bounded_blocks():
    rng = np.random.default_rng(1)
    count = _draw_counts(5000, 200_000, 1.0, rng)
    count[17] = 9_000_000  # larger than a block by itself
    blocks = list(_split_blocks(count, 25_000))
    assert [a for a, _ in blocks[1:]] == [b for _, b in blocks[:-1]]
    assert blocks[0][0] == 0
    assert blocks[-1][1] == 5000
    for start, stop in blocks:
        assert stop - start == 1 or count[start:stop].sum() <= 4_000_000
        assert (stop - start) * 25_000 <= 64 << 20


def test_drawn_carriers_are_sorted_people():
    count = np.array([3, 1, 50, 2])
    indptr, sample, dosage = _draw_carriers(count, 40, np.random.default_rng(2))
    assert indptr.size == 5
    for j in range(4):
        row = sample[indptr[j] : indptr[j + 1]]
        assert (np.diff(row) > 0).all()
        assert row.max(initial=0) < 40
        carried = dosage[indptr[j] : indptr[j + 1]]
        assert 1 <= carried.sum() <= count[j]
        assert set(carried.tolist()) <= {1, 2}


@pytest.mark.parametrize(
    ("args", "match"),
    [
        ((10, 10, "flat"), "unknown; expected one of: 1/k, growth"),
        ((0, 10), "must be 1 or more"),
        ((10, 0), "1 or more"),
    ],
)
def test_rare_fileset__raises_on_bad_numbers(tmp_path, args, match):
    with pytest.raises(ConfigError, match=match):
        write_rare_fileset(tmp_path / "r.bed", *args)
    assert not list(tmp_path.iterdir())


# --- msprime


def test_engine_msprime__raises_without_msprime(monkeypatch):
    monkeypatch.setitem(sys.modules, "msprime", None)
    with pytest.raises(InputError, match=r"pip install locomass\[simulate\]"):
        next(simulate_genotypes(msgspec.structs.replace(SMALL, engine="msprime"), 20))


def test_engine_msprime_gives_the_same_kind_of_data():
    pytest.importorskip("msprime")
    p = msgspec.structs.replace(SMALL, engine="msprime", n_chromosomes=2, common_per_chromosome=60, seed=2)
    chromosomes = list(simulate_genotypes(p, 800, 500))
    for c in chromosomes:
        assert c.dosage.shape == (60, 800)
        f = c.dosage.mean(axis=1) / 2
        assert (np.minimum(f, 1 - f) >= 0.05).all()
        assert len(c.rare) == 48
        ac = np.add.reduceat(c.count, c.indptr[:-1].astype(int))
        assert ac.min() >= 1
        assert ac.max() <= 50
        assert not set(c.rare.position.tolist()) & set(c.common.position.tolist())
    again = next(simulate_genotypes(p, 800, 500))
    # few people show few sites: genes then reach further, never into the next one
    few = list(simulate_genotypes(msgspec.structs.replace(p, variants_per_gene=20), 60, 40))
    for c in few:
        ends = [c.rare.position[rows[[0, -1]]] for _, rows in c.genes()]
        assert [len(rows) for _, rows in c.genes()] == [20] * 4
        assert all(a[1] < b[0] for a, b in itertools.pairwise(ends))
    np.testing.assert_array_equal(again.dosage, chromosomes[0].dosage)
    np.testing.assert_array_equal(again.sample, chromosomes[0].sample)
