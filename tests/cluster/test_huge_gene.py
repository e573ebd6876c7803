"""A gene of 10,000 variants among small ones: alone in its batch, V by blocks, only tested variants made dense."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from scipy.stats import chi2

from locomass.bundle.study import Bundle
from locomass.genotypes import products as score_statistics
from tests.factories import write_fileset, write_genes

ROOT = Path(__file__).parents[2]
SAMPLES, HUGE, SMALL = 1_000, 10_000, 20
LOF = 5  # every so many variants of the huge gene are loss of function
DENSE = 8 * HUGE**2  # bytes of the whole matrix

MEASURE = """
import sys
from pathlib import Path
from locomass.commands.outcome import Resources
from locomass.commands.run import run_study
run_study(Path(sys.argv[1]), Path(sys.argv[2]), Resources(threads=1), sys.argv[3])
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(int(peak.split()[1]) * 1024)
"""


def run(config: Path, out: Path, upto: str) -> int:
    """Run a study in a process of its own; return its largest resident size."""
    program = [sys.executable, "-c", MEASURE, str(config), str(out), upto]
    done = subprocess.run(program, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.fixture(scope="module")
def genotypes() -> np.ndarray:
    """(n, m) ALT counts: singletons to variants of twenty carriers, no missing calls."""
    rng = np.random.default_rng(5)
    G = np.zeros((SAMPLES, HUGE + 2 * SMALL))
    for j, count in enumerate(rng.choice([1, 2, 3, 5, 20], G.shape[1], p=[0.4, 0.2, 0.2, 0.15, 0.05])):
        G[rng.choice(SAMPLES, count, replace=False), j] = 1.0
    return G


@pytest.fixture(scope="module")
def study(genotypes, tmp_path_factory) -> Path:
    """A small gene, the huge one, a small gene."""
    folder, rng = tmp_path_factory.mktemp("huge"), np.random.default_rng(6)
    m = genotypes.shape[1]
    samples = [(f"s{i}", f"s{i}") for i in range(SAMPLES)]
    labels = [("1", 10 * j + 1000, f"1:{10 * j + 1000}:A:C", "C", "A") for j in range(m)]
    write_fileset(folder / "geno", np.zeros((0, SAMPLES), np.int64), labels, samples)
    codes = np.where(genotypes.T > 0, 0b10, 0b11).astype(np.uint8).reshape(m, SAMPLES // 4, 4)
    rows = (codes << np.array([0, 2, 4, 6], np.uint8)).sum(axis=2).astype(np.uint8)
    (folder / "geno.bed").write_bytes(b"\x6c\x1b\x01" + rows.tobytes())
    variants = [("1", p, "A", "C") for _, p, *_ in labels]
    sets = {"FIRST": variants[:SMALL], "HUGE": variants[SMALL : SMALL + HUGE], "LAST": variants[SMALL + HUGE :]}
    notes = {f"1:{p}:A:C": "LoF" if j % LOF == 0 else "synonymous" for j, (_, p, *_) in enumerate(variants)}
    write_genes(folder, sets, notes)
    (folder / "masks.txt").write_text("M1 LoF\n")
    values, age = rng.standard_normal(SAMPLES), rng.standard_normal(SAMPLES)
    lines = [f"s{i}\t{float(values[i])!r}\t{float(age[i])!r}\n" for i in range(SAMPLES)]
    (folder / "pheno.tsv").write_text("IID\ty\tage\n" + "".join(lines))
    (folder / "study.yaml").write_text(
        "study: huge\ngenotypes: geno.bed\nphenotypes: {file: pheno.tsv, quantitative: [y]}\n"
        "covariates: {file: pheno.tsv, quantitative: [age]}\n"
        "genes: {sets: sets.txt, annotations: annotations.txt, masks: masks.txt}\n"
        "tests: {names: [burden, skat], max_maf: [0.05], weights: [flat]}\n"
    )
    return folder / "study.yaml"


@pytest.fixture(scope="module")
def results(study, tmp_path_factory) -> tuple[Path, int, int]:
    """The output directory, and the largest resident sizes of score statistics and of gene tests."""
    out = tmp_path_factory.mktemp("results") / "out"
    return out, run(study, out, "score-statistics"), run(study, out, "meta")


@pytest.fixture(scope="module")
def projected(genotypes, study) -> tuple[np.ndarray, np.ndarray, float]:
    """Residual genotypes ``G - X (X'X)^-1 X'G``, residuals of the trait, and their variance, from the definition."""
    table = pd.read_csv(study.parent / "pheno.tsv", sep="\t")
    X = np.column_stack([np.ones(SAMPLES), table["age"]])
    hat = X @ np.linalg.inv(X.T @ X) @ X.T
    residual = table["y"].to_numpy() - hat @ table["y"].to_numpy()
    return genotypes - hat @ genotypes, residual, float(residual @ residual) / (SAMPLES - X.shape[1])


def test_cross_products_are_made_by_blocks_of_bounded_size(monkeypatch):
    blocks, whole = [], score_statistics.cross_products

    def count(*args):
        blocks.append(whole(*args))
        return blocks[-1]

    rng = np.random.default_rng(1)
    G = (rng.random((60, 300)) < 0.05) * rng.integers(1, 3, (60, 300))
    variant, sample = np.nonzero(G.T)
    indptr = np.searchsorted(variant, np.arange(301))
    lists = (indptr, sample.astype(np.int32), G.T[variant, sample].astype(np.int8))
    weight = rng.random(60)
    monkeypatch.setattr(score_statistics, "cross_products", count)
    row, column, value = score_statistics.sparse_cross_products(
        np.arange(300), lists, weight, np.zeros(300), np.full(60, -1, np.int32), 8 * 300 * 70
    )
    assert len(blocks) == 5
    assert max(block.nbytes for block in blocks) <= 8 * 300 * 70
    dense = scipy.sparse.coo_array((value, (row, column)), (300, 300)).toarray()
    np.testing.assert_allclose(dense, np.tril(G.T @ (weight[:, None] * G)), rtol=1e-12)


def test_the_huge_gene_is_alone_in_its_batch(results):
    index = Bundle(results[0] / "bundle").index
    assert len({part for part, _ in index.values()}) == 3


def test_memory_stays_below_one_dense_matrix(results):
    _, score, tests = results
    assert score < DENSE
    assert tests < DENSE


def test_V_is_the_dense_definition_block_by_block(results, projected):
    bundle = Bundle(results[0] / "bundle")
    gene = bundle.read_genes(["HUGE"])["HUGE"]
    c, B = bundle.projections(gene, "y")
    cross = scipy.sparse.coo_array((c.value, (c.row, c.column)), (HUGE, HUGE)).tocsr()
    G, residual, _ = projected
    G = G[:, SMALL : SMALL + HUGE]
    for low in (0, 600, 5_000, HUGE - 500):  # a block has 838 rows
        rows = slice(low, low + 500)
        ours = (cross[rows] + cross[:, rows].T).toarray()  # the diagonal twice
        ours[np.arange(500), np.arange(low, low + 500)] /= 2
        ours -= B[:, rows].T @ B
        ours -= G[:, rows].T @ G
        assert np.abs(ours, out=ours).max() < 1e-10
    np.testing.assert_allclose(gene.U[:, 0] * bundle.sigma2("y", "1"), G.T @ residual, rtol=0, atol=1e-10)


def test_gene_tests_and_single_variants_are_those_of_the_dense_definition(results, projected):
    out, _, _ = results
    G, residual, sigma2 = projected
    U, V = G.T @ residual / sigma2, (G**2).sum(axis=0) / sigma2
    single = pd.read_parquet(out / "single_variants.parquet").sort_values("position")
    np.testing.assert_allclose(single["U"], U, rtol=0, atol=1e-9)
    np.testing.assert_allclose(single["V"], V, rtol=1e-9)

    table = pd.read_parquet(out / "gene_tests.parquet")
    huge = table[table["gene"] == "HUGE"].set_index("test")
    j = SMALL + np.arange(HUGE)[(np.arange(HUGE) + SMALL) % LOF == 0]
    assert huge.loc["burden", "n_variants"] == len(j) == HUGE // LOF
    burden = G[:, j].sum(axis=1)
    statistic = (burden @ residual) ** 2 / (burden @ burden * sigma2)
    np.testing.assert_allclose(huge.loc["burden", "p"], chi2.sf(statistic, 1), rtol=1e-7)
    np.testing.assert_allclose(huge.loc["skat", "statistic"], (U[j] ** 2).sum(), rtol=1e-7)
    assert table.loc[table["gene"] != "HUGE", "p"].notna().all()
