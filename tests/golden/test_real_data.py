"""Real genotypes (skipped where ../shared/data is absent): five cohorts against one, many traits in one pass.

The pooled analysis here is written out densely from the files: every cohort keeps its own intercept, covariates and
sigma2 (or logistic fit), and missing calls are its own mean.
"""

import numpy as np
import pandas as pd
import pytest
from scipy.linalg import block_diag

from pipeline.gene_tests.base import ScoreStatistics
from pipeline.gene_tests.registry import evaluate
from pipeline.io.plink import open_fileset
from pipeline.kernels.packed import decode_dosage
from pipeline.run import Resources, run_meta_analysis, run_study
from tests.golden.cohorts import read_results, shared

COHORTS = ("AFR", "AMR", "EAS", "EUR", "SAS")


@pytest.fixture(scope="module")
def five(tmp_path_factory):
    """Run the five cohorts and the consortium as the shared configurations say."""
    data = shared("kg_chr22_five_cohorts")
    out = tmp_path_factory.mktemp("five")
    bundles = [run_study(data / f"{c}.yaml", out / c, Resources(), "score-statistics").path / "bundle" for c in COHORTS]
    return data, run_meta_analysis(data / "consortium.yaml", bundles, out / "consortium", Resources(), "meta").path


def read_dosages(data):
    """Return ALT dosages (samples, variants) with NaN, and the variants; A1 is ALT in this file."""
    fileset = open_fileset(data / "chr22.bed")
    view = fileset.view.values.astype(float)
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


def test_hundreds_of_traits_in_one_pass(tmp_path):
    data = shared("geuvadis_chr22_exons")
    folder = run_study(data / "run.yaml", tmp_path / "out", Resources(), "meta").path
    table = pd.read_parquet(folder / "gene_tests.parquet", columns=["gene", "trait", "test", "p", "log10p"])
    assert table["trait"].nunique() == 344
    assert table["p"].notna().all()
    own = table[table["gene"] == table["trait"]]
    assert own["log10p"].max() > 15  # real cis signals
    others = table[(table["gene"] != table["trait"]) & (table["test"] == "burden")]
    chi2 = -2 * np.log(others["p"])
    assert chi2.median() / (2 * np.log(2)) == pytest.approx(1, abs=0.02)


def test_packed_rows_of_a_real_file_decode_like_pandas_plink():
    fileset, view = read_dosages(shared("kg_chr22_five_cohorts"))
    packed = fileset.packed.compute()
    dosage = np.empty((fileset.n_variants, fileset.n_samples), np.float32)
    decode_dosage(packed, np.arange(fileset.n_samples, dtype=np.int32), fileset.n_samples, dosage)
    seen = np.isfinite(view.T)
    assert np.array_equal(dosage[seen], view.T[seen])
