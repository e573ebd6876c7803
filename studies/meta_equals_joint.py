"""Meta equals joint (MASS): gene tests of shared score statistics against one analysis of everybody's individual data.

Part 1, `equality`: up to 20 studies are written as PLINK filesets with a quantitative and a binary trait, and go through
the package - `locomass run` up to the bundle, then `locomass meta`. Every study has people, variants (70 % of all, some
with alleles written the other way round), missing calls, covariates, trait mean and residual variance of its own. The
joint analysis sees the individual data of all studies at once: one regression with a block-diagonal design (each
study its own intercept and covariate effects, and its own sigma2 as weight), dense, written here, and the gene tests
of `tests/reference_gene_tests.py` or written here. It shares no function with the package.

Part 2, `borders`: how far the answers drift when the pooled analysis is another one - one sigma2, common covariate
effects, one intercept - and for binary traits with few cases, where each study fits its own logistic null model.

    python -m studies.meta_equals_joint              # about four minutes of one core
    python -m studies.meta_equals_joint --write      # and put tables and figures into docs
    python -m studies.meta_equals_joint --full --checkpoint meta.jsonl   # overnight; may be killed and started again
    python -m studies.meta_equals_joint --subset     # seconds
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from numpy.typing import NDArray
from scipy.integrate import IntegrationWarning
from scipy.special import expit
from scipy.stats import chi2, norm

from pipeline.gene_tests.base import ScoreStatistics
from pipeline.gene_tests.registry import evaluate
from pipeline.io.plink_write import write_fileset
from pipeline.kernels.null_model import StatisticsError, fit_logistic, orthonormal_design
from pipeline.run import Resources, run_meta_analysis, run_study
from studies.shared import (
    COLOURS,
    DOCS,
    PAGE,
    bootstrap_ratio,
    make_table,
    new_figure,
    run_units,
    save_figure,
    wilson,
    write_section,
)
from tests import reference_gene_tests

Floats = NDArray[np.float64]
MAX_MAF = 0.05
TESTS = ("burden", "vt", "skat", "skat-o", "step-up")
WEIGHTS = ("flat", "beta_1_25")
#: Imhof's inversion is good to about 1e-9 absolutely, so tails are compared above this p only; the package's `skat-o`
#: leaves the published approximation, which the definition is, at 3e-6
REFERENCE_P = 1e-5
TRAITS = ("quantitative", "binary")


@dataclass(frozen=True)
class Settings:
    """Size of a run.

    Attributes:
        cohorts: numbers of studies that are combined; the largest is simulated, the others are its first.
        genes: genes; variants: of each gene over all studies.
        smallest, largest: people per study.
        replicates: independent sets of studies.
        definitions: genes whose SKAT-O is also integrated from its definition, 1.5 s each.
        draws: permutations of individual data against which the step-up p-value is held.
        border: replicates of each border; every replicate is ``border_genes`` genes.
        border_genes: genes per replicate of a border.
    """

    cohorts: tuple[int, ...] = (2, 5, 10, 20)
    genes: int = 30
    variants: int = 12
    smallest: int = 200
    largest: int = 600
    replicates: int = 1
    definitions: int = 3
    draws: int = 999
    border: int = 20
    border_genes: int = 40


AFFORDED = Settings()
FULL = Settings(cohorts=tuple(range(2, 21)), genes=200, replicates=10, definitions=5, draws=9999, border=400)
SUBSET = Settings(
    cohorts=(3,), genes=4, variants=8, smallest=150, largest=200, definitions=1, draws=199, border=2, border_genes=10
)


@dataclass(frozen=True)
class Study:
    """One study in memory, minor alleles counted.

    Attributes:
        G: (n, V) counts of every variant of every gene, NaN where missing; a column of NaN where the study lacks it.
        X: (n, p) intercept and covariates.
        y: (n, 2) the quantitative and the binary trait.
    """

    G: Floats
    X: Floats
    y: Floats


def simulate(rng: np.random.Generator, settings: Settings) -> list[Study]:
    """Return the studies; in every third gene all variants act, in the next those with an even number act both ways."""
    n_variants = settings.genes * settings.variants
    frequency = np.exp(rng.uniform(np.log(0.001), np.log(0.03), n_variants))
    number = np.arange(n_variants)
    gene, within = number // settings.variants, number % settings.variants
    effect = np.where(gene % 3 == 0, 0.35, np.where((gene % 3 == 1) & (within % 2 == 0), (-1.0) ** (within // 2) * 0.6, 0.0))
    studies = []
    for _ in range(max(settings.cohorts)):
        n, p = int(rng.integers(settings.smallest, settings.largest + 1)), int(rng.integers(1, 4))
        own = np.clip(frequency * np.exp(rng.normal(0, 0.3, n_variants)), 5e-4, 0.045)
        G = rng.binomial(2, own, (n, n_variants)).astype(np.float64)
        covariates = rng.standard_normal((n, p))
        X = np.column_stack([np.ones(n), covariates])
        signal = G @ effect * rng.uniform(0.8, 1.2)
        pull = covariates @ rng.normal(0, 0.5, p)
        noise = rng.uniform(0.6, 2.0) * rng.standard_normal(n)
        cases = (rng.random(n) < expit(rng.uniform(-1.5, 0.5) + pull + signal)).astype(np.float64)
        y = np.column_stack([rng.normal(0, 3) + pull + signal + noise, cases])
        G[rng.random(G.shape) < 0.01] = np.nan
        G[:, rng.random(n_variants) < 0.3] = np.nan
        studies.append(Study(G, X, y))
    return studies


def write_study(study: Study, name: str, folder: Path, settings: Settings, rng: np.random.Generator) -> Path:
    """Write a study's fileset, tables, genes and configuration; every other study has A1 and A2 the other way round."""
    present = np.flatnonzero(~np.isnan(study.G).all(axis=0))
    n, iid = len(study.y), [f"{name}_{i}" for i in range(len(study.y))]
    flip = rng.random(len(present)) < 0.5
    dosage = np.where(flip, 2 - study.G[:, present], study.G[:, present])
    labels = variant_labels(settings)
    variants = pd.DataFrame(
        {
            "chromosome": "1", "position": [int(labels[v].split(":")[1]) for v in present],
            "id": [labels[v] for v in present], "a1": np.where(flip, "A", "C"), "a2": np.where(flip, "C", "A"),
        }
    )  # fmt: skip
    write_fileset(folder / f"{name}.bed", variants, np.where(np.isnan(dosage), -1, dosage).astype(np.int8), iid)
    table = pd.DataFrame({"FID": iid, "IID": iid, "quantitative": study.y[:, 0], "binary": study.y[:, 1].astype(int)})
    table.to_csv(folder / f"{name}.traits.tsv", sep="\t", index=False)
    names = [f"c{j}" for j in range(1, study.X.shape[1])]
    covariates = pd.DataFrame(study.X[:, 1:], columns=names)
    covariates.insert(0, "IID", iid)
    covariates.insert(0, "FID", iid)
    covariates.to_csv(folder / f"{name}.covariates.tsv", sep="\t", index=False)
    config = {
        "study": name, "genotypes": f"{name}.bed", "genes": {"sets": "sets.txt"},
        "phenotypes": {"file": f"{name}.traits.tsv", "quantitative": ["quantitative"], "binary": ["binary"]},
        "covariates": {"file": f"{name}.covariates.tsv", "quantitative": names},
    }  # fmt: skip
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config))
    assert n == len(table)
    return path


def variant_labels(settings: Settings) -> list[str]:
    """Return chrom:pos:ref:alt of every variant; ALT is the minor allele."""
    m = settings.variants
    return [f"1:{1000 * (v // m + 1) + 10 * (v % m)}:A:C" for v in range(settings.genes * m)]


def write_sets(folder: Path, settings: Settings) -> None:
    """Write the set list."""
    labels, m = variant_labels(settings), settings.variants
    lines = [
        f"GENE{g + 1} 1 {1000 * (g + 1)} {','.join(labels[g * m : (g + 1) * m])}\n" for g in range(settings.genes)
    ]
    (folder / "sets.txt").write_text("".join(lines))


def run_package(studies: Sequence[Study], settings: Settings, folder: Path, rng: np.random.Generator) -> pd.DataFrame:
    """Return the gene tests of `locomass run` and `locomass meta`, a block of rows per number of studies."""
    write_sets(folder, settings)
    resources = Resources(threads=1)
    bundles = []
    for k, study in enumerate(studies):
        config = write_study(study, f"s{k + 1:02d}", folder, settings, rng)
        bundles.append(run_study(config, folder / f"out{k + 1:02d}", resources, "score-statistics").path / "bundle")
    tables = []
    for k in settings.cohorts:
        config = {
            "studies": [str(b) for b in bundles[:k]], "genes": {"sets": "sets.txt"},
            "tests": {"names": list(TESTS), "max_maf": [MAX_MAF], "weights": list(WEIGHTS)},
        }  # fmt: skip
        path = folder / f"meta{k}.yaml"
        path.write_text(yaml.safe_dump(config))
        out = run_meta_analysis(path, [], folder / f"meta{k}", resources, "meta").path
        tables.append(pd.read_parquet(out / "gene_tests.parquet").assign(cohorts=k))
    return pd.concat(tables, ignore_index=True)


# --- the joint analysis, dense, from individual data ------------------------------------------------------------------


def block_diagonal(blocks: Sequence[Floats]) -> Floats:
    """Return the design in which every study has columns of its own."""
    out = np.zeros((sum(len(b) for b in blocks), sum(b.shape[1] for b in blocks)))
    row = column = 0
    for b in blocks:
        out[row : row + len(b), column : column + b.shape[1]] = b
        row, column = row + len(b), column + b.shape[1]
    return out


def fit_joint(y: Floats, X: Floats, variance: Floats | None) -> tuple[Floats, Floats]:
    """Return residual weights and W of one regression of everybody.

    Args:
        y: (N,) trait.
        X: (N, p) design.
        variance: (N,) residual variance of everybody for weighted least squares; None for logistic regression.

    Returns:
        (N,) r such that U = G'r, and (N,) diagonal of W such that V = G'WG - G'WX (X'WX)^-1 X'WG.
    """
    if variance is not None:
        w = 1 / variance
        b = np.linalg.lstsq(np.sqrt(w)[:, None] * X, np.sqrt(w) * y, rcond=None)[0]
        return w * (y - X @ b), w
    b = np.zeros(X.shape[1])
    for _ in range(60):
        mu = expit(X @ b)
        w = mu * (1 - mu)
        step = np.linalg.solve(X.T @ (w[:, None] * X), X.T @ (y - mu))
        b = b + step * min(1.0, 5.0 / np.abs(X @ step).max())
        if np.abs(X @ step).max() < 1e-11:
            break
    mu = expit(X @ b)
    return y - mu, mu * (1 - mu)


def own_variance(y: Sequence[Floats], X: Sequence[Floats]) -> Floats:
    """Return the residual variance r'r / (n - p) of each study's own regression, repeated over its people."""
    out = []
    for yk, Xk in zip(y, X, strict=True):
        r = yk - Xk @ np.linalg.lstsq(Xk, yk, rcond=None)[0]
        out.append(np.full(len(yk), r @ r / (len(yk) - Xk.shape[1])))
    return np.concatenate(out)


def compute_scores(G: Floats, X: Floats, r: Floats, w: Floats) -> tuple[Floats, Floats]:
    """Return U (m,) and V (m, m)."""
    WX = w[:, None] * X
    projected = G.T @ WX
    return G.T @ r, G.T @ (w[:, None] * G) - projected @ np.linalg.solve(X.T @ WX, projected.T)


def pool_genotypes(studies: Sequence[Study]) -> tuple[Floats, Floats]:
    """Return everybody's genotypes (missing calls at the study's mean, absent variants 0) and pooled frequencies.

    The frequency of a variant is AC / AN over the studies that have it, as the package's policy `joint` says.
    """
    parts, count, number = [], 0.0, 0.0
    for s in studies:
        known = ~np.isnan(s.G)
        ac, an = np.nansum(s.G, axis=0), 2.0 * known.sum(axis=0)
        count, number = count + ac, number + an
        mean = np.divide(2 * ac, an, out=np.zeros_like(ac), where=an > 0)
        parts.append(np.where(known, s.G, np.where(known.any(axis=0), mean, 0.0)))
    return np.vstack(parts), np.divide(count, number, out=np.zeros_like(count), where=number > 0)


def weights_of(name: str, maf: Floats) -> Floats:
    """Return flat weights, or the Beta(1, 25) density ``25 (1 - maf)^24``."""
    return np.ones_like(maf) if name == "flat" else 25.0 * (1 - maf) ** 24


def step_up_by_definition(U: Floats, V: Floats) -> Floats:
    """Return the step-up statistic of every row of U (R, m): add the variant that raises (b'U)^2 / b'Vb most."""
    R, m = U.shape
    chosen = np.zeros((R, m), bool)
    best = np.full(R, -1.0)
    rows = np.arange(R)
    for _ in range(m):
        total, spread = (U * chosen).sum(axis=1), np.einsum("ri,ij,rj->r", chosen, V, chosen, optimize=True)
        cross = chosen @ V
        with np.errstate(divide="ignore", invalid="ignore"):
            z2 = (total[:, None] + U) ** 2 / (spread[:, None] + 2 * cross + np.diag(V))
        z2[chosen | ~np.isfinite(z2)] = -1.0
        j = z2.argmax(axis=1)
        better = z2[rows, j] > best * (1 + 1e-12)
        if not better.any():
            break
        chosen[rows[better], j[better]] = True
        best[better] = z2[rows, j][better]
    return best


def permute_joint(
    studies: Sequence[Study], t: int, G: Floats, draws: int, rng: np.random.Generator
) -> Callable[[NDArray[np.int64]], Floats]:
    """Return a maker of null scores (draws, m) of chosen variants: residuals permuted within every study."""
    parts, row = [], 0
    for s in studies:
        y, X = s.y[:, t], s.X
        here = slice(row, row + len(y))
        row += len(y)
        if t == 0:
            r, w = fit_joint(y, X, own_variance([y], [X]))
        else:
            r, w = fit_joint(y, X, None)
        permuted = rng.permuted(np.tile(r / np.sqrt(w), (draws, 1)), axis=1) * np.sqrt(w)
        # what the permuted residuals have in common with the covariates goes out again
        WX = w[:, None] * X
        permuted -= (permuted @ X) @ np.linalg.solve(X.T @ WX, WX.T)
        parts.append((here, permuted))

    def scores(chosen: NDArray[np.int64]) -> Floats:
        return np.sum([p @ G[np.ix_(np.arange(h.start, h.stop), chosen)] for h, p in parts], axis=0)

    return scores


def joint_rows(studies: Sequence[Study], settings: Settings, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Return what the joint analysis says of every gene, trait, test and set of weights."""
    G, maf = pool_genotypes(studies)
    rows = []
    for t, trait in enumerate(TRAITS):
        y, X = np.concatenate([s.y[:, t] for s in studies]), block_diagonal([s.X for s in studies])
        variance = own_variance([s.y[:, 0] for s in studies], [s.X for s in studies]) if t == 0 else None
        r, w = fit_joint(y, X, variance)
        permuted = permute_joint(studies, t, G, settings.draws, rng)
        for gene in range(settings.genes):
            at = np.arange(gene * settings.variants, (gene + 1) * settings.variants)
            chosen = at[(maf[at] > 0) & (maf[at] <= MAX_MAF)]
            U, V = compute_scores(G[:, chosen], X, r, w)
            ours = evaluate(_as_statistics(U, V, maf[chosen], studies, chosen), TESTS, WEIGHTS)
            same = {(name, label): float(result.log_p[0]) for name, label, result in ours}
            everywhere = np.nansum([np.nansum(s.G[:, chosen], axis=0) for s in studies], axis=0) / (2 * len(y))
            absent = evaluate(_as_statistics(U, V, everywhere, studies, chosen), ("burden", "skat"), WEIGHTS)
            counted = {(name, label): float(result.log_p[0]) for name, label, result in absent}
            for (test, label), log_p in same.items():
                statistic, p = test_by_definition(test, label, U, V, maf[chosen], gene < settings.definitions)
                row = {
                    "trait": trait, "gene": f"GENE{gene + 1}", "test": test, "weights": label,
                    "joint_statistic": statistic, "joint_p": p, "joint_log10p": -log_p / np.log(10),
                }  # fmt: skip
                if (test, label) in counted:
                    row["absent_log10p"] = -counted[test, label] / np.log(10)
                if test == "step-up":
                    null = step_up_by_definition(permuted(chosen), V)
                    row["permuted_p"] = float((1 + (null >= statistic * (1 - 1e-9)).sum()) / (1 + len(null)))
                rows.append(row)
    return rows


def _as_statistics(
    U: Floats, V: Floats, maf: Floats, studies: Sequence[Study], chosen: NDArray[np.int64]
) -> ScoreStatistics:
    """Return the joint U and V as the package's tests take them."""
    mac = np.sum([np.nansum(s.G[:, chosen], axis=0) for s in studies], axis=0)
    n = float(sum(len(s.y) for s in studies))
    return ScoreStatistics(
        U=U[None], V=V, scale=np.ones(1), maf=maf, mac=mac, n_samples=np.array([n]), rare=np.ones(len(U), np.bool_)
    )


def test_by_definition(
    test: str, label: str, U: Floats, V: Floats, maf: Floats, with_skat_o: bool
) -> tuple[float, float]:
    """Return the statistic, and p where a plain definition gives it exactly (NaN for the tests that resample)."""
    w = weights_of(label, maf)
    if test == "burden":
        statistic, _, _, p = reference_gene_tests.burden(U, V, w)
    elif test == "skat":
        statistic, p = reference_gene_tests.skat(U, V, w)
    elif test == "skat-o":
        statistic = p = float("nan")
        if with_skat_o:
            with warnings.catch_warnings():  # the quadrature complains where the integrand has its kinks
                warnings.simplefilter("ignore", IntegrationWarning)
                p = reference_gene_tests.skat_o_published(U, V, w)
    elif test == "vt":
        z2 = [(b @ U) ** 2 / (b @ V @ b) for b in (np.where(maf <= c, w, 0.0) for c in np.unique(maf)) if b @ V @ b > 0]
        statistic, p = float(np.sqrt(max(z2))), float("nan")
    else:
        statistic, p = float(step_up_by_definition(U[None], V)[0]), float("nan")
    return float(statistic), float(p)


def compare(unit: str, settings: Settings) -> dict[str, Any]:
    """Return the rows of one set of studies: package and joint side by side."""
    seed = int(unit.split()[1])
    rng = np.random.default_rng([seed, 1])
    studies = simulate(rng, settings)
    with tempfile.TemporaryDirectory() as folder:
        package = run_package(studies, settings, Path(folder), rng)
    rows = []
    for k in settings.cohorts:
        joint = pd.DataFrame(joint_rows(studies[:k], settings, rng))
        rows.append(package[package["cohorts"] == k].merge(joint, on=["trait", "gene", "test", "weights"], how="outer"))
    table = pd.concat(rows, ignore_index=True)
    columns = [
        "cohorts", "trait", "gene", "test", "weights", "statistic", "log10p", "joint_statistic", "joint_p", "joint_log10p",
        "permuted_p", "absent_log10p",
    ]  # fmt: skip
    return {"columns": columns, "rows": [[_plain(v) for v in row] for row in table[columns].itertuples(index=False)]}


def _plain(value: Any) -> Any:
    """Return what JSON can hold."""
    if isinstance(value, str) or value is None:
        return value
    return None if np.isnan(value) else float(value)


# --- where "equal" ends -----------------------------------------------------------------------------------------------

BORDERS = {
    "residual sd the same in all studies": {"kind": "quantitative", "sd": 1.0, "effects": 0.0, "means": 1.0, "drift": 0.0},
    "residual sd 0.5 to 2": {"kind": "quantitative", "sd": 2.0, "effects": 0.0, "means": 1.0, "drift": 0.0},
    "covariate effects differ": {"kind": "quantitative", "sd": 1.0, "effects": 0.5, "means": 1.0, "drift": 0.0},
    "frequencies differ too": {"kind": "quantitative", "sd": 1.0, "effects": 0.5, "means": 1.0, "drift": 1.0},
    "cases 200 of 400": {"kind": "binary", "cases": 200},
    "cases 50 of 400": {"kind": "binary", "cases": 50},
    "cases 20 of 400": {"kind": "binary", "cases": 20},
    "cases 10 of 400": {"kind": "binary", "cases": 10},
    "cases 5 of 400": {"kind": "binary", "cases": 5},
    "cases 10 to 300, frequencies differ": {"kind": "binary", "cases": 0, "drift": 1.0},
}
N_BORDER, K_BORDER, COVARIATES = 400, 10, 3
MODES = ("meta", "one sigma2", "common covariate effects", "one intercept")


def simulate_border(
    rng: np.random.Generator, border: dict[str, Any], settings: Settings
) -> tuple[list[Floats], list[Floats], list[Floats]]:
    """Return genotypes, covariates (with intercept) and a null trait of ten studies; no gene acts.

    A binary trait follows the covariates too, and every study collects a fixed number of cases out of 400 (0: any
    number from 10 to 300, on a log scale).
    """
    m = settings.border_genes * 10
    frequency = np.exp(rng.uniform(np.log(0.002), np.log(0.03), m))
    shared = rng.normal(0, 0.5, COVARIATES)
    G, X, y = [], [], []
    for _ in range(K_BORDER):
        own = np.clip(frequency * np.exp(rng.normal(0, border.get("drift", 0.0), m)), 5e-4, 0.05)
        C = rng.standard_normal((N_BORDER, COVARIATES))
        effect = shared + border.get("effects", 0.0) * rng.standard_normal(COVARIATES)
        if border["kind"] == "quantitative":
            sd = np.exp(rng.uniform(-1, 1) * np.log(border["sd"]))
            y.append(rng.normal(0, border["means"]) + C @ effect + sd * rng.standard_normal(N_BORDER))
        else:
            liability = C @ effect + rng.logistic(size=N_BORDER)
            cases = border["cases"] or int(np.exp(rng.uniform(np.log(10), np.log(300))))
            y.append((liability >= np.sort(liability)[-cases]).astype(np.float64))
        G.append(rng.binomial(2, own, (N_BORDER, m)).astype(np.float64))
        X.append(np.column_stack([np.ones(N_BORDER), C]))
    return G, X, y


def designs(X: Sequence[Floats]) -> dict[str, Floats]:
    """Return the pooled designs: own effects, common covariate effects, and one intercept for all."""
    indicator = block_diagonal([x[:, :1] for x in X])
    covariates = np.vstack([x[:, 1:] for x in X])
    return {
        "meta": block_diagonal(X), "one sigma2": block_diagonal(X),
        "common covariate effects": np.hstack([indicator, covariates]), "one intercept": np.vstack(X),
    }  # fmt: skip


def run_border(unit: str, settings: Settings) -> dict[str, Any]:
    """Return (genes, 2) -log10 p of burden and SKAT under every way of pooling, and which studies could not be fitted.

    For binary traits `meta` sums over the studies whose own null model converges in the package (`fit_logistic`).
    """
    name, replicate = unit.rsplit(" #", 1)
    border = BORDERS[name]
    rng = np.random.default_rng([int(replicate), 2, list(BORDERS).index(name)])
    G, X, y = simulate_border(rng, border, settings)
    everybody, trait = np.vstack(G), np.concatenate(y)
    out: dict[str, Any] = {"lost": 0}
    for mode, design in designs(X).items():
        if border["kind"] == "quantitative":
            variance = own_variance(y, X)
            if mode != "meta":
                r = trait - design @ np.linalg.lstsq(design, trait, rcond=None)[0]
                variance = np.full(len(r), r @ r / (len(r) - design.shape[1]))
            r, w = fit_joint(trait, design, variance)
            out[mode] = border_log10p(everybody, design, r, w, settings)
        elif mode == "meta":
            kept = [k for k in range(K_BORDER) if _converges(y[k], X[k])]
            out["lost"] = K_BORDER - len(kept)
            rows = np.concatenate([np.arange(k * N_BORDER, (k + 1) * N_BORDER) for k in kept])
            own = block_diagonal([X[k] for k in kept])
            r, w = fit_joint(trait[rows], own, None)
            out[mode] = border_log10p(everybody[rows], own, r, w, settings)
        elif mode != "one sigma2":
            r, w = fit_joint(trait, design, None)
            out[mode] = border_log10p(everybody, design, r, w, settings)
    return out


def _converges(y: Floats, X: Floats) -> bool:
    """Return whether the package fits a study's logistic null model."""
    Z = orthonormal_design(X, np.ones(len(X)), [f"x{j}" for j in range(X.shape[1])])
    try:
        fit_logistic(y, Z, np.empty((len(y), 0)), np.zeros(len(y)))
    except StatisticsError:
        return False
    return True


def border_log10p(G: Floats, X: Floats, r: Floats, w: Floats, settings: Settings) -> list[list[float]]:
    """Return -log10 p of burden and SKAT (flat weights) of every gene of ten variants."""
    U, V = compute_scores(G, X, r, w)
    rows = []
    for gene in range(settings.border_genes):
        at = np.arange(gene * 10, gene * 10 + 10)
        at = at[np.diag(V)[at] > 1e-10]
        one = np.ones(len(at))
        stats = ScoreStatistics(
            U=U[at][None], V=V[np.ix_(at, at)], scale=one[:1], maf=one * 0.01, mac=one * 20,
            n_samples=np.array([float(len(r))]), rare=one.astype(np.bool_),
        )  # fmt: skip
        rows.append([-float(result.log_p[0]) / np.log(10) for _, _, result in evaluate(stats, ("burden", "skat"), ("flat",))])
    return rows


# --- tables and figures -----------------------------------------------------------------------------------------------


def as_table(found: dict[str, dict[str, Any]]) -> pd.DataFrame:
    """Return the rows of all replicates."""
    return pd.concat(
        [pd.DataFrame(r["rows"], columns=r["columns"]).assign(replicate=u) for u, r in found.items()], ignore_index=True
    ).astype(dict.fromkeys(("permuted_p", "joint_p", "joint_statistic", "absent_log10p"), float))


def summarise_equality(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return, per trait and test, the largest differences between meta-analysis and joint analysis."""
    rows = []
    for trait in TRAITS:
        for test in TESTS:
            part = table[(table["trait"] == trait) & (table["test"] == test)]
            known = part["joint_statistic"].notna()
            relative = (part["statistic"] / part["joint_statistic"] - 1).abs()[known]
            apart = (part["log10p"] - part["joint_log10p"]).abs()
            written = part[(part["joint_p"] > REFERENCE_P)]
            definition = (written["log10p"] + np.log10(written["joint_p"])).abs()
            rows.append(
                {
                    "trait": trait, "test": test, "rows": len(part), "missing": int(part["log10p"].isna().sum()),
                    "smallest": float(part["log10p"].max()),
                    "statistic": float(relative.max()) if known.any() else float("nan"), "log10p": float(apart.max()),
                    "definition": float(definition.max()) if len(definition) else float("nan"),
                }
            )  # fmt: skip
    return rows


def summarise_permutations(table: pd.DataFrame, draws: int) -> dict[str, dict[str, float]]:
    """Compare step-up's p from N(0, V) with permutations of everybody's residuals, in standard errors of the latter."""
    out = {}
    for trait in TRAITS:
        part = table[(table["trait"] == trait) & (table["test"] == "step-up") & table["permuted_p"].notna()]
        p = 10.0 ** -part["log10p"]
        se = np.sqrt(p * (1 - p) / draws + (0.22 * p) ** 2)  # 20 exceedances leave p a relative error of 22 %
        z = ((part["permuted_p"] - p) / se)[p > 10 / draws]
        out[trait] = {"rows": len(z), "mean": float(z.mean()), "within": float((z.abs() < 1.96).mean())}
    return out


def summarise_absent(table: pd.DataFrame) -> dict[str, tuple[float, float]]:
    """Return median and largest change of -log10 p when studies without a variant count as non-carriers in its MAF.

    U and V are the same; the frequency, and with it the Beta(1, 25) weight, is not.
    """
    out = {}
    for test in ("burden", "skat"):
        part = table[(table["test"] == test) & (table["weights"] == "beta_1_25")]
        apart = (part["absent_log10p"] - part["joint_log10p"]).abs()
        out[test] = (float(apart.median()), float(apart.max()))
    return out


def summarise_borders(found: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return, per border and way of pooling, its distance from the meta-analysis and its own type I error."""
    rows = []
    for border in BORDERS:
        parts = [r for u, r in found.items() if u.rsplit(" #", 1)[0] == border]
        for mode in (m for m in MODES if all(m in r for r in parts)):
            values, meta = (np.concatenate([np.array(r[x]) for r in parts]) for x in (mode, "meta"))
            small = [int((values[:, j] > -np.log10(0.05)).sum()) for j in (0, 1)]
            chi = [chi2.isf(10.0 ** -np.maximum(v, 1e-12), 1) for v in (values[:, 0], meta[:, 0])]
            rows.append(
                {
                    "border": border, "mode": mode, "genes": len(values), "lost": sum(r["lost"] for r in parts),
                    "median": [float(np.median(np.abs(values - meta)[:, j])) for j in (0, 1)],
                    "largest": [float(np.abs(values - meta)[:, j].max()) for j in (0, 1)],
                    "rate": [k / len(values) for k in small], "interval": [wilson(k, len(values)) for k in small],
                    "mean chi2": bootstrap_ratio(chi[0], np.ones(len(chi[0])), 3),
                }
            )  # fmt: skip
    return rows


def equality_lines(
    rows: Sequence[dict[str, Any]],
    permuted: dict[str, dict[str, float]],
    absent: dict[str, tuple[float, float]],
    draws: int,
) -> list[str]:
    """Return the table of part 1."""
    body = [
        [
            f"{r['test']}, {r['trait']}", f"{r['rows']:,}", f"{r['smallest']:.1f}", _short(r["statistic"]),
            _short(r["log10p"]), _short(r["definition"]),
        ]
        for r in rows
    ]  # fmt: skip
    lines = make_table(
        [
            "test, trait", "rows", "largest -log10 p", "statistic: largest relative difference",
            "-log10 p: largest difference", "the same, p from the definition",
        ],
        body,
    )  # fmt: skip
    for trait, r in permuted.items():
        lines += [
            "",
            f"Step-up, {trait}: p-values of the meta-analysis (normal draws from V) against {draws:,} permutations of everybody's "
            f"residuals within the studies: mean difference {r['mean']:+.2f} standard errors over {r['rows']:.0f} rows, "
            f"{100 * r['within']:.0f} % within 1.96.",
        ]
    (a, b), (c, d) = absent["burden"], absent["skat"]
    return [
        *lines,
        "",
        "Weights from frequencies: were the people of a study that lacks a variant counted as non-carriers, -log10 p with Beta(1, 25) "
        f"weights would change by {a:.3f} (median) and {b:.2f} (largest) for the burden, {c:.3f} and {d:.2f} for SKAT.",
    ]


def _short(value: float) -> str:
    """Return a difference in two digits."""
    return "" if np.isnan(value) else f"{value:.1e}"


def border_lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return the table of part 2."""
    body = []
    for r in rows:
        rate = [f"{p:.3f} ({low:.3f}-{high:.3f})" for p, (low, high) in zip(r["rate"], r["interval"], strict=True)]
        mean, low, high = r["mean chi2"]
        apart = [f"{a:.3f} / {b:.2f}" for a, b in zip(r["median"], r["largest"], strict=True)]
        if r["mode"] == "meta":
            apart = ["", ""]
        body.append([r["border"], r["mode"], *apart, *rate, f"{mean:.3f} ({low:.3f}-{high:.3f})"])
    header = [
        "ten studies of 400", "pooled analysis", "burden: difference of -log10 p, median / largest", "SKAT: the same",
        "burden: type I at 0.05", "SKAT: type I at 0.05", "burden: mean chi2",
    ]  # fmt: skip
    lost = sum(r["lost"] for r in rows if r["mode"] == "meta")
    return [*make_table(header, body), "", f"Studies whose own logistic model did not converge: {lost}."]


def draw_equality(table: pd.DataFrame, folder: Path) -> None:
    """Draw -log10 p of the meta-analysis against the joint analysis, a panel per test."""
    figure, axes = new_figure(len(TESTS), 2.1, 2.3)
    for axis, test in zip(axes[0], TESTS, strict=True):
        for trait, colour in zip(TRAITS, COLOURS, strict=False):
            part = table[(table["test"] == test) & (table["trait"] == trait) & (table["weights"] != "flat")]
            part = part if len(part) <= 120 else part.iloc[:: -(-len(part) // 120)]
            axis.plot(part["joint_log10p"], part["log10p"], "o", ms=2.5, color=colour, label=trait, alpha=0.7)
        top = axis.get_xlim()[1]
        axis.plot([0, top], [0, top], color="0.6", lw=0.8, zorder=0)
        axis.set_title(test, fontsize=9)
        axis.set_xlabel("joint, -log10 p")
    axes[0][0].set_ylabel("meta, -log10 p")
    axes[0][0].legend(fontsize=7, frameon=False)
    save_figure(figure, "meta-equals-joint", folder)


def draw_borders(found: dict[str, dict[str, Any]], folder: Path) -> None:
    """Draw the burden's -log10 p of each way of pooling against the meta-analysis, a panel per border."""
    names = ("residual sd 0.5 to 2", "frequencies differ too", "cases 10 of 400", "cases 10 to 300, frequencies differ")
    figure, axes = new_figure(len(names), 2.3, 2.4)
    for axis, name in zip(axes[0], names, strict=True):
        parts = [r for u, r in found.items() if u.rsplit(" #", 1)[0] == name]
        for mode, colour in zip(MODES[1:], COLOURS, strict=False):
            if all(mode in r for r in parts):
                meta, other = (np.concatenate([np.array(r[m])[:, 0] for r in parts])[:100] for m in ("meta", mode))
                axis.plot(meta, other, "o", ms=2.5, color=colour, alpha=0.7, label=mode)
        top = axis.get_xlim()[1]
        axis.plot([0, top], [0, top], color="0.6", lw=0.8, zorder=0)
        axis.set_title(name, fontsize=8)
        axis.set_xlabel("meta, -log10 p")
    axes[0][0].set_ylabel("pooled, -log10 p")
    axes[0][1].legend(fontsize=6, frameon=False)
    save_figure(figure, "meta-borders", folder)


def run(settings: Settings, seed: int, checkpoint: Path | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the results of both parts, by unit of work."""
    made = {**asdict(settings), "cohorts": list(settings.cohorts), "seed": seed}
    units = [f"equality {seed + r}" for r in range(settings.replicates)]
    equality = run_units(units, lambda u: compare(u, settings), checkpoint, made)
    units = [f"{name} #{seed + r}" for name in BORDERS for r in range(settings.border)]
    return equality, run_units(units, lambda u: run_border(u, settings), checkpoint, made)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--full", action="store_true", help="every number of studies from 2 to 20, ten sets of them")
    size.add_argument("--subset", action="store_true", help="seconds")
    parser.add_argument("--checkpoint", type=Path, help="JSON lines; a run that was killed goes on")
    parser.add_argument("--write", action="store_true", help="put tables and figures into docs")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    settings = FULL if arguments.full else SUBSET if arguments.subset else AFFORDED
    equality, borders = run(settings, arguments.seed, arguments.checkpoint)
    table = as_table(equality)
    permuted = summarise_permutations(table, settings.draws)
    first = equality_lines(summarise_equality(table), permuted, summarise_absent(table), settings.draws)
    second = border_lines(summarise_borders(borders))
    cpu = sum(r["cpu_seconds"] for r in [*equality.values(), *borders.values()])
    print("\n".join([*first, "", *second, "", f"{cpu:.0f} CPU seconds"]))
    if arguments.write:
        write_section(PAGE, "meta equals joint", first)
        write_section(PAGE, "meta borders", second)
        draw_equality(table, DOCS / "figures")
        draw_borders(borders, DOCS / "figures")


if __name__ == "__main__":
    main()
