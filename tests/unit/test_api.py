"""The notebook interface: the same numbers as `locomass run` and `locomass meta`, errors that say what is near."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import locomass
from locomass.commands.meta import run_meta_analysis
from locomass.commands.outcome import Resources
from locomass.commands.run import run_study
from locomass.errors import ConfigError, InputError, MatchError

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "data"
CASES = [
    ("burden", "flat"),
    ("burden", "beta_1_25"),
    ("skat", "beta_1_25"),
    ("acat-v", "flat"),
    ("acat-o", "flat+beta_1_25"),
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Results of both golden cohorts and of their meta-analysis."""
    out = tmp_path_factory.mktemp("golden")
    for name in ("cohort_a", "cohort_b"):
        run_study(GOLDEN / f"{name}.yaml", out / name, Resources(threads=1), "meta")
    studies = [out / name / "bundle" for name in ("cohort_a", "cohort_b")]
    run_meta_analysis(GOLDEN / "consortium.yaml", studies, out / "both", Resources(threads=1), "meta")
    return out


@pytest.fixture(scope="module")
def bundles(runs):
    return [locomass.open_bundle(runs / name / "bundle") for name in ("cohort_a", "cohort_b")]


def test_import__is_light():
    code = "import locomass, sys; sys.exit(' '.join({'numpy', 'pandas', 'numba'} & set(sys.modules)) or 0)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(locomass.__file__).parents[1])
    assert set(locomass.__all__) <= set(dir(locomass))
    with pytest.raises(AttributeError, match="no attribute 'open_bundel'"):
        locomass.open_bundel  # noqa: B018


@pytest.mark.parametrize(("folder", "which"), [("cohort_a", [0]), ("cohort_b", [1]), ("both", [0, 1])])
@pytest.mark.parametrize("trait", ["y", "cc"])
def test_results__are_those_of_the_run(runs, bundles, folder, which, trait):
    table = locomass.read_results(runs / folder).query("trait == @trait and mask == 'M3' and max_maf == 0.05")
    table = table.set_index(["gene", "test", "weights"])
    singles = _by_alleles(locomass.read_results(runs / folder, "single_variants").query("trait == @trait"))
    genes = sorted(bundles[0].index)
    members = _members_of_mask("M3")
    for gene in genes:
        s = locomass.gene_statistics([bundles[k] for k in which], gene, trait)
        keys = [_key(s.chromosome, *x) for x in zip(s.position, s.ref, s.alt, strict=True)]
        listed = np.array([bool(k & members[gene]) for k in keys])
        for test, weights in CASES:
            row = table.loc[(gene, test, weights)]
            result = locomass.run_test(s, test, weights=weights, max_maf=0.05, variants=listed)
            assert result.n_variants == row["n_variants"]
            assert result.mac == row["mac"]
            assert result.log10p == pytest.approx(row["log10p"], rel=1e-9)
            if test == "burden":
                assert result.beta == pytest.approx(row["beta"], rel=1e-9)
                assert result.se == pytest.approx(row["se"], rel=1e-9)
        # alleles may stand the other way round in the set list: z changes its sign, chi-square does not
        both = _by_alleles(s.variants()).join(singles.add_suffix("_run"), how="inner")
        assert len(both) == s.U.size > 0
        assert both["z"].abs().to_numpy() == pytest.approx((both["U_run"].abs() / np.sqrt(both["V_run"])).to_numpy())
        assert s.n_samples == row["n_samples"]


def _by_alleles(table):
    """Index a table by place and alleles, in whichever order they stand."""
    columns = (table[name] for name in ("chromosome", "position", "ref", "alt"))
    names = [f"{c} {p} {min(r, a)} {max(r, a)}" for c, p, r, a in zip(*columns, strict=True)]
    return table.assign(variant=names).set_index("variant")


def _key(chromosome, position, ref, alt):
    return {f"{chromosome}:{position}:{ref}:{alt}", f"{chromosome}:{position}:{alt}:{ref}"}


def _members_of_mask(mask):
    categories = dict(line.split() for line in (GOLDEN / "masks.txt").read_text().splitlines())[mask].split(",")
    table = pd.read_csv(GOLDEN / "annotations.txt", sep=r"\s+", header=None, names=["variant", "gene", "category"])
    table = table[table["category"].isin(categories)]
    return {gene: set(part["variant"]) for gene, part in table.groupby("gene")}


def test_statistics_of_two_studies__are_sums(bundles):
    gene = next(iter(bundles[0].index))
    parts = [locomass.gene_statistics(b, gene, "y") for b in bundles]
    both = locomass.gene_statistics(bundles, gene, "y")
    assert both.studies == ("cohort_a", "cohort_b")
    tables = [_by_alleles(part.variants()) for part in parts]
    for variant, row in _by_alleles(both.variants()).iterrows():
        here = [t.loc[variant] for t in tables if variant in t.index]
        total = sum(x["U"] if x["alt"] == row["alt"] else -x["U"] for x in here)
        assert row["U"] == pytest.approx(total, rel=1e-9, abs=1e-12)
    assert len(both.per_study) == 2
    np.testing.assert_allclose(sum(V for _, V in both.per_study), both.V, rtol=1e-12, atol=1e-12)
    assert np.isfinite(locomass.run_test(both, "skat-het", weights="beta_1_25", max_maf=0.05).p)


def test_selection(bundles):
    gene = next(iter(bundles[0].index))
    s = locomass.gene_statistics(bundles[0], gene, "y")
    none = locomass.run_test(s, "burden", variants=np.zeros(len(s.position), bool))
    assert (none.n_variants, none.note) == (0, "no variant is selected")
    assert np.isnan(none.p)
    first = np.arange(len(s.position)) == 0
    one = locomass.run_test(s, "burden", variants=first, max_maf=1.0, frequency="aaf")
    assert one.beta == pytest.approx(s.U[0] / s.V[0, 0])
    weighted = locomass.run_test(
        s, "burden", weights="annotation:cadd", annotations={"cadd": np.full(len(s.position), 2.0)}
    )
    flat = locomass.run_test(s, "burden")
    assert weighted.log10p == pytest.approx(flat.log10p)
    assert weighted.beta == pytest.approx(flat.beta / 2)


def test_errors__name_the_closest(bundles, runs):
    gene = next(iter(bundles[0].index))
    with pytest.raises(MatchError, match=f"did you mean '{gene}'"):
        locomass.gene_statistics(bundles, gene + "x", "y")
    with pytest.raises(MatchError, match="trait 'z' is in none of the 2 bundles"):
        locomass.gene_statistics(bundles, gene, "z")
    s = locomass.gene_statistics(bundles, gene, "y")
    with pytest.raises(ConfigError, match="did you mean 'burden'"):
        locomass.run_test(s, "burdn")
    with pytest.raises(InputError, match=r"expected \(\d+,\)"):
        locomass.run_test(s, variants=np.ones(1, bool))
    with pytest.raises(InputError, match="did you mean 'gene_tests'"):
        locomass.read_results(runs / "both", "gene_test")
    with pytest.raises(InputError, match="has no table null_models"):
        locomass.read_results(runs / "both", "null_models")


def test_plot_qq__draws_sorted_points(runs):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    results = locomass.read_results(runs / "both")
    axes = locomass.plot_qq(results)
    expected, observed = axes.lines[1].get_data()
    assert len(observed) == results["log10p"].notna().sum()
    assert (np.diff(observed) <= 0).all()
    assert expected[0] == pytest.approx(-np.log10(0.5 / len(observed)))
    pyplot.close(axes.figure)
    with pytest.raises(InputError, match="no row has a p-value"):
        locomass.plot_qq(results.iloc[:0])


def test_read_results__keeps_chromosomes_as_text(runs):
    table = locomass.read_results(runs / "cohort_a", "null_models")
    assert table["chromosome"].tolist()[0] == "1"
    assert locomass.read_results(runs / "cohort_a", "mask_audit")["kept"].min() >= 0
