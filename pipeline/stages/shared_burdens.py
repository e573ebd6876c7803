"""The optional tables of study bundles, summed over studies: calibrated variances, collapsed burdens, replicates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.gene_tests.base import TestResult, missing_result
from pipeline.gene_tests.burden import evaluate_sum
from pipeline.gene_tests.calibration import LOW_EXPECTED_MAC
from pipeline.gene_tests.variable_threshold import variable_threshold_from_sums
from pipeline.io.bundle import Bundle, StudyGene

Floats = NDArray[np.float64]
MODE_OF = {
    "burden-dominant": "dominant",
    "cast": "dominant",
    "vt-dominant": "dominant",
    "burden-recessive": "recessive",
    "vt-recessive": "recessive",
}
MIN_SHARE = 1.0 / 11.0  # of the smaller class: one to ten


def calibration_factor(gene: StudyGene, trait: int, variance: Floats) -> Floats | None:
    """Return sqrt(V~_jj / V_jj) (m,) of a binary trait, 1 where there is no variance; None when it is not calibrated.

    Args:
        gene: of one study.
        trait: its number there.
        variance: (m,) V_jj.
    """
    if gene.calibrated is None or not np.isfinite(gene.calibrated[:, trait]).any():
        return None
    ratio = np.divide(gene.calibrated[:, trait], variance, out=np.ones_like(variance), where=variance > 0)
    return np.sqrt(np.where(np.isfinite(ratio) & (ratio > 0), ratio, 1.0))


def burden_correction(
    bundles: Sequence[Bundle],
    genes: Mapping[int, StudyGene],
    trait: str,
    mask: str,
    max_maf: float,
    information: float,
    plain: Mapping[int, float],
) -> tuple[float, str]:
    """Return r = min(1, 1'V~1 / sum_k V~_b,k) of the count burden (Zhao et al. 2020), and a note.

    Each study calibrated the count burden of its own mask under its own frequencies. Where one shares no such burden
    at this bound, r is 1 and the note says so. A study that calibrates nothing enters with its model variance.

    Args:
        bundles: all studies.
        genes: the gene, by number of the study that has it.
        trait: binary trait.
        mask, max_maf: of the row.
        information: 1'V~1, summed over the studies.
        plain: 1'V_k1 of the studies whose variances are not calibrated.
    """
    total, lacking = 0.0, []
    for k, gene in genes.items():
        if trait not in bundles[k].traits:
            continue
        if k in plain:
            total += plain[k]
            continue
        burdens = gene.collapsed.get((mask, "additive"))
        at = np.flatnonzero(np.isclose(burdens.threshold, max_maf, rtol=1e-9)) if burdens else np.empty(0, np.int64)
        value = burdens.V[bundles[k].traits[trait]["index"], at[0], at[0]] if burdens and len(at) else np.nan
        if np.isnan(value):
            lacking.append(bundles[k].study)
        else:
            total += float(value)
    if lacking:
        return 1.0, f"no calibrated burden at this bound from {', '.join(lacking)}"
    return (min(1.0, information / total) if total > 0.0 else 1.0), ""


def advise_calibration(bundles: Sequence[Bundle], studies: Sequence[int], trait: str, mac: float) -> str:
    """Return a note where the chi-square tail of a binary trait is in doubt: few alleles expected in the smaller class.

    Args:
        bundles, studies: all studies, and the numbers of those with the trait.
        trait: its name.
        mac: minor alleles of the row.
    """
    infos = [bundles[k].traits[trait] for k in studies]
    if any(i["kind"] != "binary" or i.get("n_cases") is None for i in infos):
        return ""
    n, cases = sum(int(i["n_samples"]) for i in infos), sum(int(i["n_cases"]) for i in infos)
    share = min(cases, n - cases) / n
    if mac * share >= LOW_EXPECTED_MAC and share >= MIN_SHARE:
        return ""
    return "few alleles expected among cases or controls: calibration is advised (calibrate: spa)"


def sum_collapsed(
    bundles: Sequence[Bundle], genes: Mapping[int, StudyGene], trait: str, mask: str, mode: str, max_maf: float
) -> tuple[Floats, Floats, Floats, list[str], int]:
    """Sum the burdens of a mode over the studies, on the thresholds up to ``max_maf`` that all of them share.

    Returns:
        thresholds (K,), U (K,), V (K, K), names of studies that share none, and the carriers at the last threshold
        (-1: withheld somewhere).
    """
    found, lacking = [], []
    for k, gene in genes.items():
        if trait not in bundles[k].traits:
            continue
        burdens = gene.collapsed.get((mask, mode))
        info = bundles[k].traits[trait]
        if burdens is None:
            lacking.append(bundles[k].study)
            continue
        U, V = burdens.U[info["index"]], burdens.V[info["index"]]
        kept = np.flatnonzero(np.isfinite(U) & (burdens.threshold <= max_maf * (1 + 1e-9)))
        carriers = burdens.carriers[bundles[k].sample_sets[info["sample_set"]]]
        found.append((burdens.threshold[kept], U[kept], V[np.ix_(kept, kept)], carriers[kept]))
    common = set.intersection(*({round(float(t), 12) for t in f[0]} for f in found)) if found else set()
    thresholds = np.array(sorted(common))
    U, V, carriers_last = np.zeros(len(common)), np.zeros((len(common), len(common))), 0
    for threshold, U_k, V_k, carriers in found:
        at = np.searchsorted(np.round(threshold, 12), thresholds)
        U += U_k[at]
        V += V_k[np.ix_(at, at)]
        carriers_last += int(carriers[at[-1]]) if len(at) else 0
    return thresholds, U, V, lacking, carriers_last


def evaluate_collapsed(
    test: str,
    bundles: Sequence[Bundle],
    genes: Mapping[int, StudyGene],
    traits: Sequence[str],
    mask: str,
    max_maf: float,
) -> list[TestResult]:
    """Return a row per trait (T = 1 each) of a test on collapsed burdens.

    ``burden-*`` and ``cast`` need the burden at exactly ``max_maf``; ``vt-*`` take the best threshold up to it.
    """
    mode, out = MODE_OF[test], []
    for trait in traits:
        thresholds, U, V, lacking, _ = sum_collapsed(bundles, genes, trait, mask, mode, max_maf)
        exact = len(thresholds) and bool(np.isclose(thresholds[-1], max_maf, rtol=1e-9))
        if not len(thresholds) or not (exact or test.startswith("vt")):
            who = f" by {', '.join(lacking)}" if lacking else ""
            out.append(missing_result(1, f"no {mode} burden of this mask is shared at {max_maf:g}{who}"))
            continue
        if test.startswith("vt"):
            result = variable_threshold_from_sums(U[None], V, np.ones(1), thresholds)
        else:
            result = evaluate_sum(U[-1:], float(V[-1, -1]), np.ones(1))
        out.append(_add_note(result, f"without {', '.join(lacking)}" if lacking else ""))
    return out


def _add_note(result: TestResult, note: str) -> TestResult:
    """Return a row with a further note."""
    text = "; ".join(x for x in (result.note, note) if x)
    return TestResult(
        result.statistic, result.log_p, result.beta, result.se, result.p_error, result.method, text, result.detail
    )


def sum_replicates(
    bundles: Sequence[Bundle],
    studies: Mapping[int, tuple[StudyGene, NDArray[np.int64], Floats]],
    here: Sequence[int],
    traits: Sequence[str],
    n_union: int,
) -> Floats | None:
    """Return null replicates (T, P, u) summed over studies on the union of variants; None unless all share them.

    Args:
        bundles: all studies.
        studies: by number: the gene, place of its variants in the union, +1 or -1 where ALT is swapped.
        here: the studies to sum.
        traits: T names.
        n_union: u.
    """
    genes = [studies[k][0] for k in here]
    if not here or any(t not in gene.replicates for gene in genes for t in traits):
        return None
    P = min(gene.replicates[t].shape[0] for gene in genes for t in traits)
    out = np.zeros((len(traits), P, n_union))
    for k in here:
        gene, at, sign = studies[k]
        kept = at >= 0
        for i, trait in enumerate(traits):
            out[i][:, at[kept]] += gene.replicates[trait][:P, kept] * sign[kept]
    return out
