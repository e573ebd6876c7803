"""Real genotypes (skipped where ../shared/data is absent): five cohorts against one, many traits in one pass.

The pooled analysis here is written out densely from the files: every cohort keeps its own intercept, covariates and
sigma2 (or logistic fit), and missing calls are its own mean.
"""

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy.linalg import block_diag

from locomass.commands.meta import run_meta_analysis
from locomass.commands.outcome import Resources
from locomass.commands.run import run_study
from locomass.gene_tests.base import ScoreStatistics
from locomass.gene_tests.registry import evaluate
from locomass.genotypes.fileset import open_fileset
from locomass.genotypes.labelled import open_genotypes
from locomass.genotypes.packed import decode_dosage
from tests.golden.cohorts import read_results, shared

COHORTS = ("AFR", "AMR", "EAS", "EUR", "SAS")


@pytest.fixture(scope="module")
def five(tmp_path_factory):
    """Run the five cohorts and the consortium as the shared configurations say."""
    data = shared("kg_chr22_five_cohorts")
    out = tmp_path_factory.mktemp("five")
    config = yaml.safe_load((data / "consortium.yaml").read_text())
    config["genes"] = {key: str(data / name) for key, name in config["genes"].items()}
    config["tests"]["null_law"] = "normal"  # the dense analysis below has no other
    (out / "consortium.yaml").write_text(yaml.safe_dump(config))
    bundles = [run_study(data / f"{c}.yaml", out / c, Resources(), "score-statistics").path / "bundle" for c in COHORTS]
    return data, run_meta_analysis(out / "consortium.yaml", bundles, out / "consortium", Resources(), "meta").path


def read_dosages(data):
    """Return ALT dosages (samples, variants) with NaN, and the variants; A1 is ALT in this file."""
    fileset = open_fileset(data / "chr22.bed")
    view = open_genotypes(data / "chr22.bed").values.astype(float)
    return fileset, view


def fit_logistic(y, X):
    """Return the fitted mean of a logistic regression by plain Newton steps."""
    b = np.zeros(X.shape[1])
    for _ in range(50):
        mu = 1 / (1 + np.exp(-X @ b))
        b = b + np.linalg.solve(X.T @ ((mu * (1 - mu))[:, None] * X), X.T @ (y - mu))
    return 1 / (1 + np.exp(-X @ b))


@pytest.mark.parametrize("trait", ["rand_qt", "spiked_qt", "rand_bin", "spiked_bin"])
def test_five_studies_equal_the_pooled_analysis(five, trait):
    data, combined = five
    fileset, dosage = read_dosages(data)
    phenotype = pd.read_csv(data / "pheno.tsv", sep="\t").set_index("IID").loc[fileset.iid.astype(str), trait]
    covariates = pd.read_csv(data / "covar.tsv", sep="\t").set_index("IID").loc[fileset.iid.astype(str)]
    blocks, weights, residuals, genotypes = [], [], [], []
    count, number = np.zeros(dosage.shape[1]), np.zeros(dosage.shape[1])
    for cohort in COHORTS:
        here = (covariates["super_pop"] == cohort).to_numpy() & phenotype.notna().to_numpy()
        y = phenotype[here].to_numpy(float)
        X = np.column_stack([np.ones(here.sum()), covariates.loc[here, "sex"].to_numpy(float)])
        G = dosage[here]
        count += np.nansum(G, axis=0)
        number += 2 * np.isfinite(G).sum(axis=0)
        G = np.where(np.isnan(G), np.nanmean(G, axis=0), G)
        if trait.endswith("bin"):
            mu = fit_logistic(y, X)
            residual, weight = y - mu, mu * (1 - mu)
        else:
            residual = y - X @ np.linalg.lstsq(X, y, rcond=None)[0]
            sigma2 = residual @ residual / (len(y) - X.shape[1])
            residual, weight = residual / sigma2, np.full(len(y), 1 / sigma2)
        blocks.append(X)
        weights.append(weight)
        residuals.append(residual)
        genotypes.append(G)
    X, w, r, G = block_diag(*blocks), np.concatenate(weights), np.concatenate(residuals), np.vstack(genotypes)
    frequency = count / number
    sign = np.where(frequency > 0.5, -1.0, 1.0)
    place = {name: j for j, name in enumerate(fileset.variants["id"])}
    ours = read_results(combined).query("trait == @trait").set_index(["gene", "max_maf", "test", "weights"])
    genes = 0
    for line in (data / "sets.txt").read_text().splitlines():
        gene, _, _, names = line.split()
        rows = np.array([place[n] for n in names.split(",")])
        for bound in (0.01, 0.05):
            minor = np.minimum(frequency[rows], 1 - frequency[rows])
            j = rows[(minor > 0) & (minor <= bound)]
            if not len(j):
                continue
            g = G[:, j] * sign[j]
            V = g.T @ (w[:, None] * g) - g.T @ (w[:, None] * X) @ np.linalg.solve(
                X.T @ (w[:, None] * X), X.T @ (w[:, None] * g)
            )
            counted = np.where(sign[j] < 0, number[j] - count[j], count[j])
            statistics = ScoreStatistics(
                U=(g.T @ r)[None],
                V=(V + V.T) / 2,
                scale=np.ones(1),
                maf=np.minimum(frequency[j], 1 - frequency[j]),
                mac=counted,
                n_samples=np.array([float(len(w))]),
                rare=np.ones(len(j), bool),
            )
            names = ["burden", "skat", "acat-v", "acat-o"]
            for test, scheme, result in evaluate(statistics, names, ["flat", "beta_1_25"]):
                row = ours.loc[(gene, bound, test, scheme)]
                assert row["n_variants"] == len(j)
                assert row["log10p"] == pytest.approx(-result.log_p[0] / np.log(10), rel=1e-9, abs=1e-9)
                if test == "burden":
                    assert row["beta"] == pytest.approx(result.beta[0], rel=1e-9)
                    assert row["se"] == pytest.approx(result.se[0], rel=1e-9)
        genes += 1
    assert genes == 54


@pytest.mark.parametrize(
    "n_traits", [pytest.param(24, marks=pytest.mark.ci), pytest.param(344, marks=pytest.mark.slow)]
)
def test_hundreds_of_traits_in_one_pass(tmp_path, n_traits):
    """Expression of genes: signals of a gene's own variants, and none elsewhere."""
    data = shared("geuvadis_chr22_exons")
    config = yaml.safe_load((data / "run.yaml").read_text())
    names = pd.read_csv(data / "expression.tsv", sep="\t", nrows=0).columns[1:]
    config["genotypes"] = str(data / config["genotypes"])
    config["phenotypes"] = {"file": str(data / "expression.tsv"), "quantitative": list(names[:n_traits])}
    config["covariates"]["file"] = str(data / config["covariates"]["file"])
    config["genes"] = {key: str(data / name) for key, name in config["genes"].items()}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
    folder = run_study(tmp_path / "run.yaml", tmp_path / "out", Resources(), "meta").path
    table = pd.read_parquet(folder / "gene_tests.parquet", columns=["gene", "trait", "test", "p", "log10p"])
    assert table["trait"].nunique() == n_traits
    assert table["p"].notna().all()
    own = table[table["gene"] == table["trait"]]
    assert own["log10p"].max() > (15 if n_traits == 344 else 5)  # real cis signals
    others = table[(table["gene"] != table["trait"]) & (table["test"] == "burden")]
    chi2 = -2 * np.log(others["p"])
    assert chi2.median() / (2 * np.log(2)) == pytest.approx(1, abs=0.02)


def test_packed_rows_of_a_real_file_decode_like_pandas_plink():
    fileset, view = read_dosages(shared("kg_chr22_five_cohorts"))
    packed = fileset.select(np.arange(fileset.n_variants)).packed()
    dosage = np.empty((fileset.n_variants, fileset.n_samples), np.float32)
    decode_dosage(packed, np.arange(fileset.n_samples, dtype=np.int32), fileset.n_samples, dosage)
    seen = np.isfinite(view.T)
    assert np.array_equal(dosage[seen], view.T[seen])
