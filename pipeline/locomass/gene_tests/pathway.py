"""Pathways of genes: step-up over gene burdens, and Fisher's product of gene p-values.

Hoffmann, Marini & Witte (2010) search a pathway as they search a gene: each gene is collapsed into one burden,
``U_g = w'U`` and ``V_gh = w_g' V_gh w_h``, and the search adds genes while z2 rises.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, logsumexp

from locomass.errors import InputError
from locomass.gene_tests.base import Detail, ScoreStatistics, TestResult, missing_result
from locomass.gene_tests.groupings import Search, inverse_sd_weights
from locomass.gene_tests.half_cauchy import half_cauchy_combine
from locomass.gene_tests.permutation import CarrierGenotypes
from locomass.gene_tests.step_up import DEFAULT, StepUpParameters, search_statistics
from locomass.numbers import Floats

NEIGHBOURS = 1_000_000  # bases between genes whose rare variants are taken for independent


def collapse_genes(
    genes: Sequence[ScoreStatistics],
    inverse_sd: bool = False,
    between: Mapping[tuple[int, int], Floats] | None = None,
) -> ScoreStatistics:
    """Collapse each gene into one burden; the units of the result are genes.

    Args:
        genes: score statistics of each gene, all of the same T traits with the same ``scale``.
        inverse_sd: weigh variants by ``1/sqrt(q(1-q))``, else by 1.
        between: (m_g, m_h) blocks of V between genes g < h that share samples and lie close; absent ones are nought,
            as for genes on different chromosomes.

    Returns:
        Score statistics with one "variant" a gene. ``maf`` is the mean frequency and ``mac`` the sum of counts.

    Raises:
        InputError: no genes, traits that differ, or a block of the wrong shape.
    """
    if not genes:
        raise InputError("expected a pathway of one or more genes, got none")
    scale = genes[0].scale
    if any(gene.scale.shape != scale.shape or not np.allclose(gene.scale, scale, rtol=1e-12) for gene in genes):
        raise InputError("the genes of a pathway must have the same traits and the same scale of V")
    weights = [_burden_weights(gene, inverse_sd) for gene in genes]
    V = np.diag([float(w @ gene.V @ w) for gene, w in zip(genes, weights, strict=True)])
    for (g, h), block in (between or {}).items():
        if not 0 <= g < h < len(genes) or block.shape != (weights[g].size, weights[h].size):
            raise InputError(f"block between genes {g} and {h} has shape {block.shape}; expected g < h, (m_g, m_h)")
        V[g, h] = V[h, g] = float(weights[g] @ block @ weights[h])
    return ScoreStatistics(
        U=np.stack([gene.U @ w for gene, w in zip(genes, weights, strict=True)], axis=1),
        V=V,
        scale=scale,
        maf=np.array([float(gene.maf.mean()) if gene.n_variants else 0.0 for gene in genes]),
        mac=np.array([float(gene.mac.sum()) for gene in genes]),
        n_samples=genes[0].n_samples,
        rare=np.ones(len(genes), dtype=np.bool_),
    )


def compute_pathway_step_up(
    genes: Sequence[ScoreStatistics],
    parameters: StepUpParameters = DEFAULT,
    between: Mapping[tuple[int, int], Floats] | None = None,
) -> TestResult:
    """Test a pathway by the step-up search over its genes' burdens.

    ``parameters.weights`` weighs variants within genes (``both`` has no meaning there); ``parameters.signs`` turns
    whole genes.

    Returns:
        A row whose ``detail.chosen`` is (T, genes).

    Raises:
        InputError: as `collapse_genes`, or weights ``both``.
    """
    if parameters.weights == "both":
        raise InputError("weights 'both' cannot weigh variants within genes; choose constant or inverse-sd")
    units = collapse_genes(genes, parameters.weights == "inverse-sd", between)
    search = Search("rare-pathway", None, "constant", parameters.signs)
    return search_statistics(units, [search], parameters.resampling)["rare-pathway"]


def collapse_carriers(genes: Sequence[CarrierGenotypes], inverse_sd: bool = False) -> CarrierGenotypes:
    """Collapse individual genotypes of each gene into weighted counts; the units of the result are genes.

    Raises:
        InputError: no genes, or genes of different samples.
    """
    if not genes:
        raise InputError("expected a pathway of one or more genes, got none")
    n = genes[0].n_samples
    if any(gene.n_samples != n for gene in genes):
        raise InputError(f"the genes of a pathway must have the same samples, got {[g.n_samples for g in genes]}")
    samples, counts = [], []
    for gene in genes:
        total = gene.total()
        weight = inverse_sd_weights(total, float(n)) if inverse_sd else np.ones_like(total)
        burden = np.bincount(gene.sample, weights=weight[gene.variant()] * gene.dosage, minlength=n)
        samples.append(np.flatnonzero(burden))
        counts.append(burden[samples[-1]])
    return CarrierGenotypes(
        indptr=np.concatenate([[0], np.cumsum([part.size for part in samples])]).astype(np.int64),
        sample=np.concatenate(samples),
        dosage=np.concatenate(counts),
        n_samples=n,
    )


def cluster_genes(
    chromosome: Sequence[str], start: NDArray[np.int64], end: NDArray[np.int64], within: int = NEIGHBOURS
) -> NDArray[np.int64]:
    """Return (k,) the number of each gene's cluster: genes that overlap or are less than ``within`` bases apart.

    Their rare variants may be the same or correlated, so that their p-values are not independent.
    """
    order = sorted(range(len(chromosome)), key=lambda i: (chromosome[i], int(start[i])))
    out, number, reach, last = np.zeros(len(chromosome), np.int64), -1, 0, ""
    for i in order:
        if number < 0 or chromosome[i] != last or int(start[i]) - reach >= within:
            number, reach = number + 1, int(end[i])
        out[i], reach, last = number, max(reach, int(end[i])), chromosome[i]
    return out


def combine_clusters(log_p: Floats, cluster: NDArray[np.int64]) -> Floats:
    """Return (T, clusters) log p of each cluster of genes: the half-Cauchy combination, which bears dependence.

    Args:
        log_p: (T, k) of the genes.
        cluster: (k,) their clusters, numbered from 0.
    """
    columns = [half_cauchy_combine(log_p[:, cluster == c].T) for c in range(int(cluster.max()) + 1)]
    return np.stack(columns, axis=1)


def compute_fisher_product(log_p: Floats) -> TestResult:
    """Combine independent gene p-values by Fisher's product.

    ``X = -2 sum log p`` is chi-square with 2k degrees of freedom, whose tail has the closed form
    ``P(X >= 2x) = exp(-x) sum_{i<k} x^i / i!``; its logarithm holds at any x.

    Args:
        log_p: (T, k) natural logarithms; NaN genes (no p-value) are left out.

    Returns:
        A row with statistic X; a note where no gene has a p-value. ``detail.n_genes`` (T,) is k.

    Raises:
        InputError: a p-value above 1.
    """
    if np.any(log_p > 0):
        raise InputError(f"expected log p-values at or below 0, got {np.nanmax(log_p):.6g}")
    known = ~np.isnan(log_p)
    k = known.sum(axis=1)
    if not np.any(k):
        return missing_result(log_p.shape[0], "no gene has a p-value")
    x = -np.where(known, log_p, 0.0).sum(axis=1)
    log_tail = np.array([_log_poisson_sum(float(xt), int(kt)) for xt, kt in zip(x, k, strict=True)])
    return TestResult(
        statistic=np.where(k > 0, 2.0 * x, np.nan),
        log_p=log_tail,
        p_error=np.where(k > 0, 0.0, np.nan),
        method="fisher-product",
        detail=Detail(n_genes=k),
    )


def _log_poisson_sum(x: float, k: int) -> float:
    """Return ``log(exp(-x) sum_{i<k} x^i / i!)``; NaN for k = 0."""
    if k == 0:
        return float("nan")
    if x == 0 or np.isinf(x):
        return -x
    i = np.arange(k)
    return min(0.0, float(logsumexp(i * np.log(x) - gammaln(i + 1.0)) - x))


def _burden_weights(gene: ScoreStatistics, inverse_sd: bool) -> Floats:
    """Return the (m,) weights of a gene's burden."""
    if not inverse_sd:
        return np.ones(gene.n_variants)
    n = gene.mac / np.where(gene.maf > 0, 2.0 * gene.maf, 1.0)
    return inverse_sd_weights(gene.mac, np.where(gene.maf > 0, n, np.max(gene.n_samples)))
