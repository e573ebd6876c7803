"""Mixed models for meta-analysis and sequencing (Bulik-Sullivan 2015): formulas of `locomass power` against simulation.

Part 1, `designs`: 10, 20 and 40 cohorts of people with common variants in LD blocks on ten chromosomes, traits with
polygenic effects, and causal variants on every chromosome, some tagged by the common variants and some not. Each
design gives every cohort a LOCO prediction; the cohorts then fit the package's null model (own intercept and sigma2) and
add up their U and V. What differs is who trains the prediction:

    linear                 nobody
    per cohort             every cohort on itself: block ridge of the package, one person left out at a time, as offset
    per cohort, slope      the same prediction as covariate
    per cohort, exact      the same by the mixed model's equations with the true heritability
    summary, earlier       ridge of the package on the summary statistics of as many other people, as covariate
    summary, same people   ridge on the cohorts' own meta-analysis, as offset: the one step of the paper
    pooled                 block ridge on everybody's individual data, one person left out at a time
    pooled, exact          the mixed model's equations on everybody, true heritability

Part 2, `sequencing`: a sequenced cohort, a GWAS ten times its size, genes of rare variants, tests with no, an in-sample, an
external and a combined predictor.

Part 3, `ascertained`: as many cases as controls of diseases from common to rare.

    python -m studies.mixed_models                # about ten minutes of one core
    python -m studies.mixed_models --write        # and put tables and figures into docs
    python -m studies.mixed_models --full --checkpoint mixed.jsonl   # overnight; may be killed and started again
    python -m studies.mixed_models --subset       # seconds
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.stats import chi2, norm

from pipeline import power
from pipeline.gene_tests.base import ScoreStatistics
from pipeline.gene_tests.registry import evaluate
from pipeline.gene_tests.resampling import Resampling
from pipeline.gene_tests.step_up import StepUpParameters
from pipeline.kernels.null_model import extra_design, fit_linear, fit_logistic, orthonormal_design
from pipeline.kernels.score_statistics import information_matrix, project_columns, sparse_cross_products
from predictors.base import BlockStatistics
from predictors.block_ridge import GenotypeBlock, fit_block_ridge
from predictors.combine import stack_predictors
from predictors.ld import correlation_from_dosage
from predictors.ridge import fit_ridge
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

Floats = NDArray[np.float64]
CHROMOSOMES = 10
BLOCK = 50  # common variants of an LD block
RHO = 0.7  # of neighbours' latent normals
TAGGED = 25  # this variant of a chromosome's first block is tested and no predictor sees it
N_NULL = 10  # variants without effect per chromosome


@dataclass(frozen=True)
class Settings:
    """Size of a run.

    Attributes:
        cohorts: numbers of cohorts; cohort_size: people in each.
        blocks: LD blocks per chromosome in part 1, sequencing_blocks in part 2.
        reference: people of the LD reference.
        h2: variance from common variants; ncp: of each causal variant in the linear model.
        traits, replicates: of part 1, per number of cohorts.
        sequenced, sequencing_traits, sequencing_replicates: of part 2; the GWAS has ten times as many people.
        permutations: of step-up.
        prevalences: of part 3; population: people drawn; sampled: cases, and as many controls; case_ncp: of each causal
            variant without prediction.
        ascertained_traits, ascertained_replicates: of part 3.
    """

    cohorts: tuple[int, ...] = (10, 20, 40)
    cohort_size: int = 400
    blocks: int = 3
    sequencing_blocks: int = 6
    reference: int = 4000
    h2: float = 0.5
    ncp: float = 15.0
    traits: int = 60
    replicates: int = 1
    sequenced: int = 2000
    sequencing_traits: int = 120
    sequencing_replicates: int = 1
    permutations: int = 20_000
    prevalences: tuple[float, ...] = (0.5, 0.1, 0.01, 0.004)
    population: int = 250_000
    sampled: int = 1000
    case_ncp: float = 15.0
    ascertained_traits: int = 40
    ascertained_replicates: int = 1


AFFORDED = Settings()
FULL = Settings(
    cohorts=(10, 20, 30, 40), blocks=6, traits=100, replicates=20, sequencing_traits=200, sequencing_replicates=25,
    permutations=100_000, ascertained_replicates=40,
)  # fmt: skip
SUBSET = Settings(
    cohorts=(10,), cohort_size=120, blocks=1, sequencing_blocks=1, reference=1500, ncp=30.0, traits=10, sequenced=600,
    sequencing_traits=10, permutations=2000, prevalences=(0.5, 0.01), population=20_000, sampled=150, case_ncp=5.0,
    ascertained_traits=3,
)  # fmt: skip


# --- genotypes and traits ---------------------------------------------------------------------------------------------


def draw_frequencies(rng: np.random.Generator, blocks: int) -> Floats:
    """Return (CHROMOSOMES, blocks, BLOCK) allele frequencies from 0.05 to 0.5."""
    return rng.uniform(0.05, 0.5, (CHROMOSOMES, blocks, BLOCK))


def draw_common(rng: np.random.Generator, n: int, frequency: Floats) -> NDArray[np.float32]:
    """Return (n, V) counts: two haplotypes per person, each a row of thresholded AR(1) normals per block."""
    blocks, m = frequency.shape[0] * frequency.shape[1], BLOCK
    cut = norm.ppf(frequency).astype(np.float32).reshape(blocks, m)
    out = np.zeros((n, blocks, m), np.float32)
    step = np.float32(np.sqrt(1 - RHO**2))
    for _ in range(2):
        x = rng.standard_normal((n, blocks), np.float32)
        for j in range(m):
            if j:
                x = np.float32(RHO) * x + step * rng.standard_normal((n, blocks), np.float32)
            out[:, :, j] += x < cut[:, j]
    return out.reshape(n, blocks * m)


def standardise(G: NDArray[np.float32], frequency: Floats) -> NDArray[np.float32]:
    """Return counts minus 2f, over sqrt(2f(1 - f)), in place."""
    f = frequency.ravel().astype(np.float32)
    G -= 2 * f
    G /= np.sqrt(2 * f * (1 - f))
    return G


def seen_by_predictors(blocks: int) -> NDArray[np.bool_]:
    """Return which common variants the predictors see: all but one per chromosome, which is tested."""
    seen = np.ones((CHROMOSOMES, blocks, BLOCK), np.bool_)
    seen[:, 0, TAGGED] = False
    return seen.ravel()


def draw_effects(rng: np.random.Generator, seen: NDArray[np.bool_], h2: float, traits: int) -> NDArray[np.float32]:
    """Return (V, T) effects per standard deviation, a tenth of the variants, h2 together (LD adds up to nothing)."""
    effect = rng.standard_normal((len(seen), traits)) * (rng.random((len(seen), traits)) < 0.1)
    effect[~seen] = 0
    return (effect * np.sqrt(h2 / (effect**2).sum(axis=0))).astype(np.float32)


def effective_number(G: NDArray[np.float32], seen: NDArray[np.bool_]) -> float:
    """Return ``M_e = M^2 / sum r2`` over pairs of a block, r2 less its expectation 1/n from sampling alone."""
    total, count = 0.0, int(seen.sum())
    for columns in block_columns(seen):
        R = correlation_from_dosage(G[:, columns]).astype(np.float64)
        r2 = R**2 - (1 - np.eye(len(R))) / len(G)
        total += float(r2.sum())
    return count**2 / total


def block_columns(seen: NDArray[np.bool_]) -> list[NDArray[np.int64]]:
    """Return the columns of every LD block that the predictors see."""
    number = np.arange(len(seen)) // BLOCK
    return [np.flatnonzero(seen & (number == b)) for b in range(number[-1] + 1)]


def chromosome_columns(seen: NDArray[np.bool_]) -> list[NDArray[np.int64]]:
    """Return the columns of every chromosome that the predictors see."""
    number = np.arange(len(seen)) * CHROMOSOMES // len(seen)
    return [np.flatnonzero(seen & (number == c)) for c in range(CHROMOSOMES)]


# --- predictors: scores (CHROMOSOMES, n, T) ---------------------------------------------------------------------------


def predict_block_ridge(G: NDArray[np.float32], y: Floats, seen: NDArray[np.bool_], **options: Any) -> Floats:
    """Return the package's out-of-fold score of every chromosome, trained on the people it is for."""
    blocks = [
        GenotypeBlock(str(c), len(columns), lambda columns=columns: G[:, columns].astype(np.float64))
        for c, columns in enumerate(chromosome_columns(seen))
    ]
    fits = fit_block_ridge(blocks, y, np.ones((len(y), 1)), nested=False, **options)
    return np.stack([fit.parts for fit in fits], axis=2)


def fit_summary(
    beta: Floats, n: int, R: Sequence[NDArray[np.float32]], seen: NDArray[np.bool_], h2: float
) -> NDArray[np.float32]:
    """Return (V, T) weights of the package's ridge from summary statistics; 0 where the predictors do not look.

    Args:
        beta: (V, T) standardised marginal effects of n people.
        R: correlation of every LD block in the reference.
    """
    weights = np.zeros(beta.shape, np.float32)
    columns = block_columns(seen)
    for t in range(beta.shape[1]):
        blocks = [
            BlockStatistics(np.ascontiguousarray(beta[c, t]), np.full(len(c), float(n)), r)
            for c, r in zip(columns, R, strict=True)
        ]
        for c, w in zip(columns, fit_ridge(blocks, h2=h2).weights, strict=True):
            weights[c, t] = w
    return weights


def score(G: NDArray[np.float32], weights: NDArray[np.float32], seen: NDArray[np.bool_]) -> Floats:
    """Return the score of every chromosome."""
    return np.stack([(G[:, c] @ weights[c]).astype(np.float64) for c in chromosome_columns(seen)])


def predict_exact(G: NDArray[np.float32], y: Floats, seen: NDArray[np.bool_], h2: float) -> Floats:
    """Return LOCO predictions (CHROMOSOMES, n, T) of the mixed model ``y = Zu + e``, u ~ N(0, h2/M), e ~ N(0, 1 - h2).

    ``Z inv(Z'Z + l) Z'y`` without the chromosome, l = M (1 - h2)/h2; from the n x n kernel where n < M. Its residual is
    proportional to ``inv(Var y) y``, so a test of it is the mixed model's test. Written from the equations.
    """
    parts, out = chromosome_columns(seen), []
    M = sum(map(len, parts))
    centred = y - y.mean(axis=0)
    dual = len(y) < M
    whole = G[:, seen] if not dual else None
    gram = (whole.T @ whole).astype(np.float64) if whole is not None else None
    kernels = [(G[:, c] @ G[:, c].T).astype(np.float64) for c in parts] if dual else []
    position = np.cumsum(seen) - 1
    for c in range(CHROMOSOMES):
        left = M - len(parts[c])
        share = h2 * left / M
        penalty = left * (1 - share) / share
        if dual:
            K = np.sum([k for d, k in enumerate(kernels) if d != c], axis=0)
            fitted = K @ cho_solve(cho_factor(K + penalty * np.eye(len(K)), overwrite_a=True), centred)
        else:
            rest = position[np.concatenate([x for d, x in enumerate(parts) if d != c])]
            Z, A = whole[:, rest], gram[np.ix_(rest, rest)] + penalty * np.eye(left)
            b = cho_solve(cho_factor(A, overwrite_a=True), (Z.T @ centred.astype(np.float32)).astype(np.float64))
            fitted = (Z @ b.astype(np.float32)).astype(np.float64)
        out.append(fitted)
    return np.stack(out)


def leave_out(parts: Floats) -> Floats:
    """Return the LOCO predictions: the total less the chromosome's own part."""
    return parts.sum(axis=0) - parts


# --- tests of single columns ------------------------------------------------------------------------------------------


def test_columns(
    y: Floats, x: Floats, where: NDArray[np.int64], loco: Floats | None, role: str, cohorts: Sequence[slice]
) -> Floats:
    """Return (T, q) chi2 of columns x, from null models of the package in every cohort; U and V are added up.

    Args:
        y: (n, T) traits; x: (n, q) tested columns; where: (q,) chromosome of each.
        loco: (CHROMOSOMES, n, T) predictions without that chromosome, or None.
        role: ``covariate`` or ``offset``.
        cohorts: rows of every cohort.
    """
    U, V = np.zeros((y.shape[1], x.shape[1])), np.zeros((y.shape[1], x.shape[1]))
    for rows in cohorts:
        n = rows.stop - rows.start
        Z = orthonormal_design(np.ones((n, 1)), np.ones(n), ["intercept"])
        nothing, zero = np.empty((n, 0)), np.zeros(n)
        for c in range(CHROMOSOMES):
            at = np.flatnonzero(where == c)
            if not len(at):
                continue
            own = x[rows][:, at]
            squares = (own**2).sum(axis=0) - ((Z.T @ own) ** 2).sum(axis=0)
            for t in range(y.shape[1]):
                f = None if loco is None else loco[c, rows, t]
                F = f[:, None] if f is not None and role == "covariate" else nothing
                model = fit_linear(y[rows, t], Z, F, f if f is not None and role == "offset" else zero)
                U[t, at] += own.T @ model.residual / model.sigma2
                added = ((extra_design(F, Z).T @ own) ** 2).sum(axis=0) if F.shape[1] else 0.0
                V[t, at] += (squares - added) / model.sigma2
    return U**2 / V


# --- part 1 -----------------------------------------------------------------------------------------------------------


def run_designs(unit: str, s: Settings) -> dict[str, Any]:
    """Return per-trait mean chi2 of the causal, tagged and null variants under every design, and R2 of each."""
    k, replicate = (int(v) for v in unit.removeprefix("designs ").split(" #"))
    rng = np.random.default_rng([replicate, 31, k])
    n = k * s.cohort_size
    frequency, seen = draw_frequencies(rng, s.blocks), seen_by_predictors(s.blocks)
    reference = draw_common(rng, s.reference, frequency)
    R = [correlation_from_dosage(reference[:, c]) for c in block_columns(seen)]
    m_effective = effective_number(reference, seen)
    effects = draw_effects(rng, seen, s.h2, s.traits)
    G = standardise(draw_common(rng, n, frequency), frequency)
    tagged = np.flatnonzero(~seen)
    x, where, kind = draw_tested(rng, n, G[:, tagged])
    b2 = s.ncp / n
    y = make_traits(rng, G @ effects, x[:, kind != "null"], b2, s.h2)
    earlier = marginal_effects(rng, n, frequency, effects, tagged, b2, s)
    cohorts = [slice(i * s.cohort_size, (i + 1) * s.cohort_size) for i in range(k)]
    centred = np.concatenate([y[rows] - y[rows].mean(axis=0) for rows in cohorts])
    own = (G.T @ centred.astype(np.float32)).astype(np.float64) / n
    def stack(predict: Any) -> Floats:
        return np.concatenate([predict(rows) for rows in cohorts], axis=1)

    one_out = {"leave_one_out": True}
    inside = stack(lambda r: leave_out(predict_block_ridge(G[r], y[r], seen, **one_out)))
    earlier_score = score(G, fit_summary(earlier, n, R, seen, s.h2), seen)
    own_score = score(G, fit_summary(own, n, R, seen, s.h2), seen)
    designs: dict[str, tuple[Floats | None, str]] = {
        "linear": (None, "offset"),
        "per cohort": (inside, "offset"),
        "per cohort, slope": (inside, "covariate"),
        "per cohort, exact": (stack(lambda r: predict_exact(G[r], y[r], seen, s.h2)), "offset"),
        "summary, earlier": (leave_out(earlier_score), "covariate"),
        "summary, same people": (leave_out(own_score), "offset"),
        "pooled": (leave_out(predict_block_ridge(G, centred, seen, **one_out)), "offset"),
        "pooled, exact": (predict_exact(G, centred, seen, s.h2), "offset"),
        "earlier, chromosome left in": (np.stack([earlier_score.sum(axis=0)] * CHROMOSOMES), "covariate"),
        "same people, chromosome left in": (np.stack([own_score.sum(axis=0)] * CHROMOSOMES), "offset"),
    }
    out: dict[str, Any] = {"m_effective": m_effective, "n": n, "cohorts": k}
    for name, (loco, role) in designs.items():
        statistic = test_columns(y, x, where, loco, role, cohorts)
        out[name] = {
            label: statistic[:, kind == label].mean(axis=1).tolist() for label in ("causal", "tagged", "null")
        } | {"type I": int((statistic[:, kind == "null"] > chi2.isf(0.05, 1)).sum())}  # fmt: skip
        if loco is not None:
            r2 = [np.corrcoef(loco[c, :, t], centred[:, t])[0, 1] ** 2 for c in range(CHROMOSOMES) for t in range(s.traits)]
            out[name]["r2"] = float(np.mean(r2))
    return out


def draw_tested(
    rng: np.random.Generator, n: int, tagged: NDArray[np.float32]
) -> tuple[Floats, NDArray[np.int64], NDArray[np.str_]]:
    """Return standardised tested columns, the chromosome of each, and its kind: causal (no LD), tagged, null."""
    count = (1, N_NULL)
    free = rng.binomial(2, 0.05, (n, CHROMOSOMES * sum(count))).astype(np.float64)
    free = (free - free.mean(axis=0)) / free.std(axis=0)
    x = np.hstack([free[:, :CHROMOSOMES], tagged.astype(np.float64), free[:, CHROMOSOMES:]])
    order = np.arange(CHROMOSOMES)
    kind = np.repeat(["causal", "tagged", "null"], [CHROMOSOMES, CHROMOSOMES, N_NULL * CHROMOSOMES])
    return x, np.concatenate([order, order, np.repeat(order, N_NULL)]), kind


def make_traits(rng: np.random.Generator, genetic: Floats, causal: Floats, b2: float, h2: float) -> Floats:
    """Return (n, T) traits of variance one: polygenic part, tested variants of variance b2 each, noise."""
    signal = genetic + np.sqrt(b2) * causal.sum(axis=1)[:, None]
    return signal + np.sqrt(1 - h2 - causal.shape[1] * b2) * rng.standard_normal(genetic.shape)


def marginal_effects(
    rng: np.random.Generator, n: int, frequency: Floats, effects: NDArray[np.float32], tagged: NDArray[np.int64], b2: float,
    s: Settings,
) -> Floats:  # fmt: skip
    """Return (V, T) standardised marginal effects of n other people, a slab of people at a time."""
    total = np.zeros(effects.shape)
    for start in range(0, n, 4000):
        G = standardise(draw_common(rng, min(4000, n - start), frequency), frequency)
        free = rng.standard_normal((len(G), CHROMOSOMES))  # the causal variants that nothing tags
        y = make_traits(rng, G @ effects, np.hstack([free, G[:, tagged]]), b2, s.h2)
        total += G.T @ (y - y.mean(axis=0)).astype(np.float32)
    return total / n


#: the paper's inequality, and the package's realisation of its ends
ORDER = (
    ("linear", "per cohort, exact"),
    ("linear", "per cohort"),
    ("per cohort, exact", "summary, earlier"),
    ("per cohort, exact", "summary, same people"),
    ("summary, earlier", "pooled, exact"),
    ("summary, same people", "pooled, exact"),
    ("pooled", "pooled, exact"),
)
FORMULA = {
    "linear": "linear", "per cohort": "mixed_meta", "per cohort, slope": "mixed_meta", "per cohort, exact": "mixed_meta",
    "summary, earlier": "summary", "summary, same people": "summary", "pooled": "mixed_pooled",
    "pooled, exact": "mixed_pooled",
}  # fmt: skip


def summarise_designs(found: dict[str, dict[str, Any]], s: Settings) -> list[dict[str, Any]]:
    """Return, per number of cohorts and design, noncentralities of formula and simulation."""
    rows = []
    for k in s.cohorts:
        parts = [r for r in found.values() if r["cohorts"] == k]
        linear = _mean(parts, "linear", "causal") - 1
        loco = (CHROMOSOMES - 1) / CHROMOSOMES
        m_effective = float(np.mean([r["m_effective"] for r in parts]))
        table = power.power_table([s.cohort_size] * k, s.ncp / (k * s.cohort_size), h2=s.h2 * loco, m_effective=m_effective * loco)
        expected = {row.design: row for row in table}
        for name in parts[0]:
            if name in ("m_effective", "n", "cohorts", "cpu_seconds"):
                continue
            own, null = _mean(parts, name, "causal") - 1, _mean(parts, name, "null")
            tests = len(null) * N_NULL * CHROMOSOMES
            hits = sum(r[name]["type I"] for r in parts)
            tagged = bootstrap_ratio(_mean(parts, name, "tagged") - 1, _mean(parts, "linear", "tagged") - 1, k)
            row = expected[FORMULA[name]] if name in FORMULA else None
            rows.append(
                {
                    "cohorts": k, "n": parts[0]["n"], "design": name, "m_effective": m_effective,
                    "ncp": bootstrap_ratio(own, np.ones(len(own)), k), "gain": bootstrap_ratio(own, linear, k),
                    "tagged gain": tagged, "r2": float(np.mean([r[name].get("r2", 0.0) for r in parts])),
                    "formula r2": None if row is None else row.r2, "formula ncp": None if row is None else row.ncp,
                    "formula gain": None if row is None else row.n_effective / row.n,
                    "null": bootstrap_ratio(null, np.ones(len(null)), k), "type I": hits / tests,
                    "type I interval": wilson(hits, tests),
                }
            )  # fmt: skip
    return rows


def compare_designs(found: dict[str, dict[str, Any]], s: Settings) -> list[dict[str, Any]]:
    """Return the ratio of noncentralities of neighbours in the paper's inequality, with 95 % intervals."""
    rows = []
    for k in s.cohorts:
        parts = [r for r in found.values() if r["cohorts"] == k]
        for below, above in ORDER:
            ratio = bootstrap_ratio(_mean(parts, above, "causal") - 1, _mean(parts, below, "causal") - 1, k)
            rows.append({"cohorts": k, "below": below, "above": above, "ratio": ratio})
    return rows


def _mean(parts: Sequence[dict[str, Any]], name: str, label: str) -> Floats:
    """Return the per-trait mean chi2 of a design over replicates."""
    return np.concatenate([np.array(r[name][label]) for r in parts])


# --- part 2 -----------------------------------------------------------------------------------------------------------

GENES = ("one direction", "both directions", "null")
M_GENE = 12
#: n b2 of a gene's variance, n the sequenced people
GENE_NCP = {"one direction": 22.0, "both directions": 45.0}
CAUSAL_CHROMOSOMES = 2  # of each kind of gene, per trait
PREDICTORS = ("none", "in-sample", "external", "combined")
GENE_TESTS = ("burden", "skat", "step-up")
ALPHAS = (1e-4, 2.5e-6)


def run_sequencing(unit: str, s: Settings) -> dict[str, Any]:
    """Return -log p of every trait, gene, test and predictor, whether the gene acts, and the R2 of each predictor."""
    replicate = int(unit.split("#")[1])
    rng = np.random.default_rng([replicate, 32])
    h2, n, T = 0.4, s.sequenced, s.sequencing_traits
    frequency, seen = draw_frequencies(rng, s.sequencing_blocks), seen_by_predictors(s.sequencing_blocks)
    reference = draw_common(rng, s.reference, frequency)
    R = [correlation_from_dosage(reference[:, c]) for c in block_columns(seen)]
    effects = draw_effects(rng, seen, h2, T)
    earlier = marginal_effects(rng, 10 * n, frequency, effects, np.flatnonzero(~seen), 0.0, Settings(h2=h2))
    G = standardise(draw_common(rng, n, frequency), frequency)
    rare = draw_rare(rng, n)
    acts, beta = draw_gene_effects(rng, rare, T, n)
    signal = np.einsum("nv,vt->nt", rare.reshape(n, -1).astype(np.float64), beta.reshape(-1, T))
    variance = signal.var(axis=0)
    y = G @ effects + signal - signal.mean(axis=0) + np.sqrt(1 - h2 - variance) * rng.standard_normal((n, T))
    external = score(G, fit_summary(earlier, 10 * n, R, seen, h2), seen)
    inside = predict_block_ridge(G, y, seen)
    combined = np.empty_like(inside)
    for t in range(T):
        parts = np.stack([inside[:, :, t], external[:, :, t]], axis=2)
        combined[:, :, t] = stack_predictors(parts.sum(axis=0), y[:, t] - y[:, t].mean()).combine(parts)
    predictions = {
        "none": (None, "offset"), "in-sample": (inside, "offset"), "external": (external, "covariate"),
        "combined": (combined, "covariate"),
    }  # fmt: skip
    out: dict[str, Any] = {"acts": acts.tolist(), "r2": {}, "log10p": {}, "expected": {}}
    for name, (parts, role) in predictions.items():
        loco = None if parts is None else leave_out(parts)
        out["log10p"][name], out["expected"][name] = test_genes(y, rare, loco, role, beta, acts, s)
        if loco is not None:
            out["r2"][name] = float(
                np.mean([np.corrcoef(loco[c, :, t], y[:, t])[0, 1] ** 2 for c in range(CHROMOSOMES) for t in range(T)])
            )
    return out


def draw_rare(rng: np.random.Generator, n: int) -> NDArray[np.int8]:
    """Return (n, CHROMOSOMES, genes, M_GENE) counts of rare variants, each seen at least once."""
    shape = (CHROMOSOMES, len(GENES), M_GENE)
    f = np.exp(rng.uniform(np.log(0.001), np.log(0.01), shape))
    G = rng.binomial(2, f, (n, *shape)).astype(np.int8)
    empty = np.argwhere(G.sum(axis=0) == 0)
    for c, g, j in empty:
        G[rng.integers(n), c, g, j] = 1
    return G


def draw_gene_effects(
    rng: np.random.Generator, rare: NDArray[np.int8], T: int, n: int
) -> tuple[NDArray[np.bool_], Floats]:
    """Return which genes act on which trait (CHROMOSOMES, genes, T), and effects per allele (..., M_GENE, T)."""
    acts = np.zeros((CHROMOSOMES, len(GENES), T), np.bool_)
    beta = np.zeros((CHROMOSOMES, len(GENES), M_GENE, T))
    for t in range(T):
        chosen = rng.permutation(CHROMOSOMES)[: CAUSAL_CHROMOSOMES * len(GENE_NCP)]
        for i, c in enumerate(chosen):
            g = i % len(GENE_NCP)
            acts[c, g, t] = True
            b = np.ones(M_GENE) if g == 0 else rng.choice([-1.0, 1.0], M_GENE) * (rng.random(M_GENE) < 0.5)
            if not b.any():
                b[0] = 1.0
            value = rare[:, c, g] @ b
            beta[c, g, :, t] = b * np.sqrt(GENE_NCP[GENES[g]] / n) / value.std()
    return acts, beta


def test_genes(
    y: Floats, rare: NDArray[np.int8], loco: Floats | None, role: str, beta: Floats, acts: NDArray[np.bool_], s: Settings
) -> tuple[list[Any], dict[str, list[float]]]:
    """Return -log10 p (CHROMOSOMES, genes, T, tests), and the power that `pipeline.power` expects of the genes that act."""
    n, T = y.shape
    Z = orthonormal_design(np.ones((n, 1)), np.ones(n), ["intercept"])
    log10p = np.empty((CHROMOSOMES, len(GENES), T, len(GENE_TESTS)))
    expected: dict[str, list[float]] = {f"{test} {alpha:g} {g}": [] for test in GENE_TESTS[:2] for alpha in ALPHAS for g in (0, 1)}
    step_up = StepUpParameters(signs="data", resampling=Resampling(max_permutations=s.permutations))
    for c in range(CHROMOSOMES):
        models = []
        for t in range(T):
            f = None if loco is None else loco[c, :, t]
            F = f[:, None] if f is not None and role == "covariate" else np.empty((n, 0))
            model = fit_linear(y[:, t], Z, F, f if f is not None and role == "offset" else np.zeros(n))
            models.append((model, extra_design(F, Z)))
        columns = np.ascontiguousarray(
            np.column_stack([Z, *(m.residual / m.sigma2 for m, _ in models), *(e for _, e in models)])
        )
        for g in range(len(GENES)):
            carriers, products = gene_products(rare[:, c, g])
            projected = project_columns(*carriers, columns, np.zeros(columns.shape[1], np.int64), np.zeros((M_GENE, 1)))
            maf = rare[:, c, g].mean(axis=0) / 2
            for t, (model, extra) in enumerate(models):
                rows = [0, *([1 + T + t] if extra.shape[1] else [])]
                V = information_matrix(M_GENE, *products, np.ascontiguousarray(projected[:, rows].T)) / model.sigma2
                stats = ScoreStatistics(
                    U=projected[:, 1 + t][None], V=V, scale=np.ones(1), maf=maf, mac=2 * n * maf,
                    n_samples=np.array([float(n)]), rare=np.ones(M_GENE, np.bool_),
                )  # fmt: skip
                found = evaluate(stats, GENE_TESTS, ("flat",), step_up=step_up)
                log10p[c, g, t] = [-float(result.log_p[0]) / np.log(10) for _, _, result in found]
                if acts[c, g, t]:
                    _expect(expected, V, beta[c, g, :, t], g)
    return np.round(log10p, 4).tolist(), expected


def gene_products(G: NDArray[np.int8]) -> tuple[Any, Any]:
    """Return a gene's carriers (indptr, sample, dosage) and the sparse lower triangle of G'G, by the package's kernels."""
    variant, sample = np.nonzero(G.T)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(variant, minlength=G.shape[1]))]).astype(np.int64)
    carriers = (indptr, sample.astype(np.int32), np.ascontiguousarray(G[sample, variant]))
    head = np.full(len(G), -1, np.int32)
    rows = np.arange(G.shape[1], dtype=np.int64)
    return carriers, sparse_cross_products(rows, carriers, np.ones(len(G)), np.zeros(G.shape[1]), head)


def _expect(expected: dict[str, list[float]], V: Floats, beta: Floats, g: int) -> None:
    """Add the power that the formulas give a gene with these effects."""
    one = np.ones(len(beta))
    for alpha in ALPHAS:
        expected[f"burden {alpha:g} {g}"].append(float(power.compute_power(power.ncp_burden(V, beta, one), alpha)))
        expected[f"skat {alpha:g} {g}"].append(power.compute_skat_power(V, beta, one, alpha))


def summarise_sequencing(found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return rows of power by gene, test and predictor, and rows of null calibration."""
    parts = list(found.values())
    acts = np.concatenate([np.array(r["acts"]) for r in parts], axis=2)
    p = {k: 10.0 ** -np.concatenate([np.array(r["log10p"][k]) for r in parts], axis=2) for k in PREDICTORS}
    power_rows, null_rows = [], []
    for g, kind in enumerate(GENES[:2]):
        here = acts[:, g]
        trait = np.broadcast_to(np.arange(here.shape[1]), here.shape)[here]
        for j, test in enumerate(GENE_TESTS):
            for alpha in ALPHAS:
                hit = {k: p[k][:, g, :, j][here] <= alpha for k in PREDICTORS}
                for k in PREDICTORS:
                    expected = [v for r in parts for v in r["expected"][k].get(f"{test} {alpha:g} {g}", [])]
                    power_rows.append(
                        {
                            "genes": kind, "test": test, "alpha": alpha, "predictor": k, "number": len(trait),
                            "power": float(hit[k].mean()), "interval": wilson(int(hit[k].sum()), len(trait)),
                            "difference": _paired(hit[k], hit["none"], trait),
                            "expected": float(np.mean(expected)) if expected else None,
                        }
                    )  # fmt: skip
    for k in PREDICTORS:
        row: dict[str, Any] = {"predictor": k, "r2": float(np.mean([r["r2"].get(k, 0.0) for r in parts]))}
        burden = chi2.isf(np.clip(p[k][:, 0, :, 0][acts[:, 0]], 1e-300, 1 - 1e-9), 1) - 1
        plain = chi2.isf(np.clip(p["none"][:, 0, :, 0][acts[:, 0]], 1e-300, 1 - 1e-9), 1) - 1
        row["gain"] = bootstrap_ratio(burden, plain, 5)
        for j, test in enumerate(GENE_TESTS):
            null = p[k][~acts][:, j]
            row[test] = float((null <= 0.05).mean())
            row[f"{test} interval"] = wilson(int((null <= 0.05).sum()), len(null))
            row["number"] = len(null)
        values = chi2.isf(np.clip(p[k][~acts][:, 0], 1e-300, 1 - 1e-12), 1)
        row["mean chi2"] = bootstrap_ratio(values, np.ones(len(values)), 6, draws=1000)
        null_rows.append(row)
    return {"power": power_rows, "null": null_rows}


def _paired(hit: NDArray[np.bool_], plain: NDArray[np.bool_], trait: NDArray[np.int64]) -> tuple[float, float, float]:
    """Return the difference of two powers and its 95 % interval; traits are resampled with all their genes."""
    gap = hit.astype(np.float64) - plain
    names, at = np.unique(trait, return_inverse=True)
    total, count = np.bincount(at, gap), np.bincount(at)
    pick = np.random.default_rng(7).integers(0, len(names), (4000, len(names)))
    low, high = np.quantile(total[pick].sum(axis=1) / count[pick].sum(axis=1), [0.025, 0.975])
    return float(gap.mean()), float(low), float(high)


# --- part 3 -----------------------------------------------------------------------------------------------------------

M_ASCERTAINED = 400
MODELS = ("external, logistic", "in-sample, logistic", "in-sample, linear")


def run_ascertained(unit: str, s: Settings) -> dict[str, Any]:
    """Return per-trait mean chi2 of causal and null variants with and without a prediction, at one prevalence.

    Liability has variance one: h2 = 0.5 from 400 unlinked common variants, ten causal variants, noise. The cases are those
    above the threshold of the prevalence; as many controls are drawn from the rest. The external predictor has the true
    effects with noise, R2 0.25 in the population.
    """
    name, replicate = unit.removeprefix("ascertained ").split(" #")
    prevalence = float(name)
    rng = np.random.default_rng([int(replicate), 33, int(1e4 * prevalence)])
    h2, T = 0.5, s.ascertained_traits
    people = int(min(s.population, 40 * s.sampled if prevalence >= 0.1 else s.population))
    f = rng.uniform(0.05, 0.5, M_ASCERTAINED)
    G = np.empty((people, M_ASCERTAINED), np.int8)
    for start in range(0, people, 10_000):
        G[start : start + 10_000] = rng.binomial(2, f, (min(10_000, people - start), M_ASCERTAINED))
    x = rng.binomial(2, 0.05, (people, 3 * CHROMOSOMES)).astype(np.int8)
    effects = rng.standard_normal((M_ASCERTAINED, T))
    effects *= np.sqrt(h2 / (effects**2).sum(axis=0))
    blurred = effects + rng.standard_normal(effects.shape) * np.sqrt((effects**2).mean(axis=0))
    b2 = observed_ncp(prevalence, s)
    root = np.sqrt(2 * f * (1 - f))
    causal = (x[:, :CHROMOSOMES].sum(axis=1) - 0.1 * CHROMOSOMES) * np.sqrt(b2 / (2 * 0.05 * 0.95))
    out: dict[str, Any] = {"prevalence": prevalence, "none": [], **{m: [] for m in MODELS}}
    threshold = norm.isf(prevalence)
    seen = np.ones(M_ASCERTAINED, np.bool_)
    where = np.tile(np.arange(CHROMOSOMES), 3)
    for t in range(T):
        g = np.concatenate([G[i : i + 20_000] @ (effects[:, t] / root) for i in range(0, people, 20_000)])
        liability = g - g.mean() + causal + np.sqrt(1 - h2 - CHROMOSOMES * b2) * rng.standard_normal(people)
        case, control = np.flatnonzero(liability > threshold), np.flatnonzero(liability <= threshold)
        count = min(s.sampled, len(case), len(control))
        rows = np.concatenate([rng.permutation(case)[:count], rng.permutation(control)[:count]])
        y = np.repeat([1.0, 0.0], count)
        Z = ((G[rows] - 2 * f) / root).astype(np.float32)
        own = x[rows].astype(np.float64)
        external = score(Z, blurred[:, t : t + 1].astype(np.float32), seen)
        inside = predict_block_ridge(Z, y[:, None], seen, binary=True)
        straight = predict_block_ridge(Z, y[:, None], seen, leave_one_out=True)
        loco = {"none": None, **{m: leave_out(v)[:, :, 0] for m, v in zip(MODELS, (external, inside, straight), strict=True)}}
        for model, values in loco.items():
            statistic = test_cases(y, own, where, values, model)
            out[model].append([float(statistic[:CHROMOSOMES].mean()), float(statistic[CHROMOSOMES:].mean())])
    return out


def observed_ncp(prevalence: float, s: Settings) -> float:
    """Return the share of liability that gives a variant the wanted noncentrality in as many cases as controls.

    ``NCP = N b2 z^2 P (1 - P) / (K (1 - K))^2`` with z the normal density at the threshold, P = 1/2 (Lee et al. 2011, AJHG
    88:294).
    """
    z = norm.pdf(norm.isf(prevalence))
    return float(s.case_ncp / (2 * s.sampled * z**2 * 0.25 / (prevalence * (1 - prevalence)) ** 2))


def test_cases(y: Floats, x: Floats, where: NDArray[np.int64], loco: Floats | None, model: str) -> Floats:
    """Return (q,) chi2; the external prediction is a covariate, the in-sample one an offset, as the package has it."""
    n = len(y)
    Z = orthonormal_design(np.ones((n, 1)), np.ones(n), ["intercept"])
    statistic = np.empty(x.shape[1])
    for c in range(CHROMOSOMES):
        at = np.flatnonzero(where == c)
        f = None if loco is None else loco[c]
        F = f[:, None] if f is not None and model.startswith("external") else np.empty((n, 0))
        offset = f if f is not None and not F.shape[1] else np.zeros(n)
        fitted = fit_linear(y, Z, F, offset) if model.endswith("linear") else fit_logistic(y, Z, F, offset)
        basis = orthonormal_design(np.hstack([np.ones((n, 1)), F]), fitted.weight, ["intercept", "LOCO"])
        U = x[:, at].T @ fitted.residual / fitted.sigma2
        V = ((x[:, at] ** 2 * fitted.weight[:, None]).sum(axis=0) - ((basis.T @ x[:, at]) ** 2).sum(axis=0)) / fitted.sigma2
        statistic[at] = U**2 / V
    return statistic


def summarise_ascertained(found: dict[str, dict[str, Any]], s: Settings) -> list[dict[str, Any]]:
    """Return the gain in noncentrality of every model and prevalence."""
    rows = []
    for prevalence in s.prevalences:
        parts = [r for r in found.values() if r["prevalence"] == prevalence]
        plain = np.concatenate([np.array(r["none"]) for r in parts])
        for model in ("none", *MODELS):
            own = np.concatenate([np.array(r[model]) for r in parts])
            rows.append(
                {
                    "prevalence": prevalence, "model": model, "gain": bootstrap_ratio(own[:, 0] - 1, plain[:, 0] - 1, 8),
                    "ncp": float(own[:, 0].mean() - 1), "null": bootstrap_ratio(own[:, 1], np.ones(len(own)), 8),
                }
            )  # fmt: skip
    return rows


# --- tables and figures -----------------------------------------------------------------------------------------------


def span(value: Sequence[float], digits: int = 3) -> str:
    """Return an estimate with its interval."""
    return f"{value[0]:.{digits}f} ({value[1]:.{digits}f} to {value[2]:.{digits}f})"


def design_lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return the table of noncentralities."""
    body = []
    for r in rows:
        if r["design"] in FORMULA:
            body.append(
                [
                    f"{r['cohorts']}: {r['design']}", f"{r['formula r2']:.3f}", f"{r['formula ncp']:.1f}", span(r["ncp"], 1),
                    f"{r['formula gain']:.3f}", span(r["gain"]), f"{r['n'] * r['gain'][0]:,.0f}", span(r["null"]),
                    f"{r['type I']:.4f} ({r['type I interval'][0]:.4f} to {r['type I interval'][1]:.4f})",
                ]
            )  # fmt: skip
    header = [
        "cohorts: design", "R2 (formula)", "NCP (formula)", "NCP", "gain (formula)", "gain", "effective N", "null mean chi2",
        "type I at 0.05",
    ]  # fmt: skip
    return make_table(header, body)


def order_lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return the table of the inequality."""
    body = []
    for r in rows:
        low, high = r["ratio"][1:]
        verdict = "above" if low > 1 else "below" if high < 1 else "not told apart"
        body.append([f"{r['cohorts']}", r["below"], r["above"], span(r["ratio"]), verdict])
    return make_table(["cohorts", "design", "against", "NCP ratio (95 % interval)", "the second is"], body)


def contamination_lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return the table of proximal contamination."""
    wanted = {
        "summary, earlier": "earlier, chromosome left in", "summary, same people": "same people, chromosome left in",
    }  # fmt: skip
    body = []
    for r in rows:
        if r["design"] in wanted:
            other = next(x for x in rows if x["cohorts"] == r["cohorts"] and x["design"] == wanted[r["design"]])
            body.append(
                [
                    f"{r['cohorts']}: {r['design']}", span(r["tagged gain"]), span(other["tagged gain"]), span(r["gain"]),
                    span(other["gain"]), span(other["null"]),
                ]
            )  # fmt: skip
    header = [
        "cohorts: prediction", "tagged, LOCO", "tagged, left in", "untagged, LOCO", "untagged, left in",
        "null mean chi2, left in",
    ]  # fmt: skip
    return make_table(header, body)


def published_lines() -> list[str]:
    """Return height and BMI, from the R2 of the published predictions."""
    body = []
    for row in power.PUBLISHED:
        loco = 1 / (1 - row.r2 * 21 / 22) - 1
        body.append(
            [
                f"{row.trait} ({row.source})", f"{row.n:,}", f"{row.r2:.3f}", f"{100 * row.gain:.1f} %", f"{100 * loco:.1f} %",
                f"{float(power.effective_sample_size(row.n, row.r2)):,.0f}", f"about {100 * row.reported_gain:.0f} %",
                f"{float(power.compute_r2_of_gain(row.reported_gain)):.3f}",
            ]
        )  # fmt: skip
    header = [
        "trait", "N", "R2", "gain 1/(1 - R2) - 1", "with 21/22 of R2 (LOCO)", "effective N", "the paper's gain",
        "R2 that it needs",
    ]  # fmt: skip
    return make_table(header, body)


def sequencing_lines(summary: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Return the tables of power and of null calibration."""
    rows = summary["power"]
    body = []
    for r in (r for r in rows if r["alpha"] == ALPHAS[0]):
        other = next(x for x in rows if x["alpha"] == ALPHAS[1] and all(x[k] == r[k] for k in ("genes", "test", "predictor")))
        body.append(
            [
                f"{r['genes']}, {r['test']}: {r['predictor']}",
                *(
                    text
                    for x in (r, other)
                    for text in (
                        f"{x['power']:.3f} ({x['interval'][0]:.3f} to {x['interval'][1]:.3f})",
                        "" if x["expected"] is None else f"{x['expected']:.3f}",
                        "" if r["predictor"] == "none" else span(x["difference"]),
                    )
                ),
            ]
        )
    header = ["genes, test: predictor"] + [
        f"{what} {alpha:g}" for alpha in ALPHAS for what in ("power at", "formula", "more than none,")
    ]
    null = [
        [
            r["predictor"], f"{r['r2']:.3f}", f"{1 / (1 - r['r2']):.3f}", span(r["gain"]), span(r["mean chi2"]),
            *(f"{r[t]:.4f} ({r[f'{t} interval'][0]:.4f} to {r[f'{t} interval'][1]:.4f})" for t in GENE_TESTS),
        ]
        for r in summary["null"]
    ]  # fmt: skip
    names = ["predictor", "R2", "1/(1 - R2)", "burden NCP gain", "null mean chi2", *(f"{t}: type I at 0.05" for t in GENE_TESTS)]
    return make_table(header, body), make_table(names, null)


def ascertained_lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return the table of case/control studies."""
    body = [[f"{r['prevalence']:g}", r["model"], f"{r['ncp']:.1f}", span(r["gain"]), span(r["null"])] for r in rows]
    return make_table(["prevalence", "prediction, model", "NCP", "gain over none", "null mean chi2"], body)


def draw_designs(rows: Sequence[dict[str, Any]], folder: Path) -> None:
    """Draw gains of formula and simulation against the number of cohorts."""
    figure, axes = new_figure(1, 4.6, 3.2)
    axis = axes[0][0]
    cohorts = sorted({r["cohorts"] for r in rows})
    for name, colour in zip([d for d in FORMULA if d not in ("linear", "per cohort, slope")], COLOURS, strict=True):
        here = [next(r for r in rows if r["cohorts"] == k and r["design"] == name) for k in cohorts]
        gain = np.array([r["gain"] for r in here])
        axis.errorbar(cohorts, gain[:, 0], [gain[:, 0] - gain[:, 1], gain[:, 2] - gain[:, 0]], fmt="o", ms=4, color=colour, label=name)
        axis.plot(cohorts, [r["formula gain"] for r in here], "--", lw=1, color=colour)
    axis.axhline(1, color="0.6", lw=0.8)
    axis.set_xlabel("cohorts of equal size")
    axis.set_ylabel("NCP over linear (dashed: formula)")
    axis.legend(fontsize=7, frameon=False)
    save_figure(figure, "mixed-model-designs", folder)


def draw_sequencing(summary: dict[str, Any], folder: Path) -> None:
    """Draw power at 1e-4 by test and predictor."""
    figure, axes = new_figure(2, 3.2, 2.6)
    for axis, kind in zip(axes[0], GENES, strict=False):
        for i, name in enumerate(PREDICTORS):
            rows = [
                r for r in summary["power"] if r["genes"] == kind and r["predictor"] == name and r["alpha"] == ALPHAS[0]
            ]
            value, ends = np.array([r["power"] for r in rows]), np.array([r["interval"] for r in rows])
            place = np.arange(len(rows)) + 0.2 * (i - 1.5)
            axis.bar(place, value, 0.18, color=COLOURS[i], label=name)
            axis.errorbar(place, value, [value - ends[:, 0], ends[:, 1] - value], fmt="none", ecolor="0.3", lw=0.8)
        axis.set_xticks(range(len(GENE_TESTS)), GENE_TESTS)
        axis.set_title(f"effects in {kind}", fontsize=9)
    axes[0][0].set_ylabel("power at 1e-4")
    axes[0][1].legend(fontsize=7, frameon=False)
    save_figure(figure, "mixed-model-sequencing", folder)


def draw_ascertained(rows: Sequence[dict[str, Any]], folder: Path) -> None:
    """Draw the gain of every model against the prevalence."""
    figure, axes = new_figure(1, 4.0, 2.8)
    axis = axes[0][0]
    for model, colour in zip(MODELS, COLOURS, strict=False):
        here = [r for r in rows if r["model"] == model]
        gain = np.array([r["gain"] for r in here])
        axis.errorbar(
            [r["prevalence"] for r in here], gain[:, 0], [gain[:, 0] - gain[:, 1], gain[:, 2] - gain[:, 0]], fmt="o-", ms=4,
            lw=1, color=colour, label=model,
        )  # fmt: skip
    axis.axhline(1, color="0.6", lw=0.8)
    axis.set_xscale("log")
    axis.set_xlabel("prevalence (as many cases as controls)")
    axis.set_ylabel("NCP over no prediction")
    axis.legend(fontsize=7, frameon=False)
    save_figure(figure, "mixed-model-ascertained", folder)


def list_units(s: Settings, seed: int) -> Iterator[tuple[str, str]]:
    """Give (part, unit) of a run."""
    for r in range(s.replicates):
        yield from (("designs", f"designs {k} #{seed + r}") for k in s.cohorts)
    yield from (("sequencing", f"sequencing #{seed + r}") for r in range(s.sequencing_replicates))
    for r in range(s.ascertained_replicates):
        yield from (("ascertained", f"ascertained {p:g} #{seed + r}") for p in s.prevalences)


def run(s: Settings, seed: int, checkpoint: Path | None, parts: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the results of the parts, each by unit of work."""
    made = {**{k: list(v) if isinstance(v, tuple) else v for k, v in asdict(s).items()}, "seed": seed}
    compute = {"designs": run_designs, "sequencing": run_sequencing, "ascertained": run_ascertained}
    return {
        part: run_units([u for p, u in list_units(s, seed) if p == part], lambda u, f=compute[part]: f(u, s), checkpoint, made)
        for part in parts
    }


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--full", action="store_true", help="more cohorts, traits and replicates")
    size.add_argument("--subset", action="store_true", help="seconds")
    parser.add_argument("--part", action="append", choices=["designs", "sequencing", "ascertained"], help="repeat; default all")
    parser.add_argument("--checkpoint", type=Path, help="JSON lines; a run that was killed goes on")
    parser.add_argument("--write", action="store_true", help="put tables and figures into docs")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    s = FULL if arguments.full else SUBSET if arguments.subset else AFFORDED
    found = run(s, arguments.seed, arguments.checkpoint, arguments.part or ["designs", "sequencing", "ascertained"])
    sections: dict[str, list[str]] = {"published gains": published_lines()}
    if "designs" in found:
        rows = summarise_designs(found["designs"], s)
        sections |= {"designs": design_lines(rows), "order of designs": order_lines(compare_designs(found["designs"], s))}
        sections["proximal contamination"] = contamination_lines(rows)
    if "sequencing" in found:
        summary = summarise_sequencing(found["sequencing"])
        sections["sequencing power"], sections["sequencing null"] = sequencing_lines(summary)
    if "ascertained" in found:
        loss = summarise_ascertained(found["ascertained"], s)
        sections["ascertained"] = ascertained_lines(loss)
    for name, lines in sections.items():
        print("\n".join([f"\n{name}", *lines]))
        if arguments.write:
            write_section(PAGE, name, lines)
    for part, units in found.items():
        print(f"\n{part}: {sum(r['cpu_seconds'] for r in units.values()):.0f} CPU seconds", end="")
    print()
    if arguments.write:
        if "designs" in found:
            draw_designs(rows, DOCS / "figures")
        if "sequencing" in found:
            draw_sequencing(summary, DOCS / "figures")
        if "ascertained" in found:
            draw_ascertained(loss, DOCS / "figures")


if __name__ == "__main__":
    main()
