"""The optional tables of study bundles, summed over studies: collapsed burdens and replicates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from locomass.gene_tests.base import NORMAL_SCORES, TestResult, add_note, missing_result
from locomass.gene_tests.burden import evaluate_sum
from locomass.gene_tests.components import CANCELLED
from locomass.gene_tests.law import Law, StudyCarriers, join_studies
from locomass.gene_tests.law_tails import Ties, score_log_p
from locomass.gene_tests.variable_threshold import best_of_laws, variable_threshold_from_sums
from locomass.numbers import Floats

if TYPE_CHECKING:
    from locomass.meta.gene import GeneView
    from locomass.meta.selection import Selection
    from locomass.meta.sums import SharedV

LEAST = {"dominant": 1, "recessive": 2}  # alleles that make the burden
DOSAGE_SLACK = 0.25  # of imputed alleles
MODE_OF = {
    "burden-dominant": "dominant",
    "cast": "dominant",
    "vt-dominant": "dominant",
    "burden-recessive": "recessive",
    "vt-recessive": "recessive",
}


@dataclass(frozen=True, kw_only=True)
class CollapsedSum:
    """Burdens of a mode of inheritance over the studies, on the thresholds that all of them share.

    Attributes:
        threshold: (K,) rising; U: (K,); V: (K, K).
        lacking: names of studies that share none.
        studies: numbers of the others.
        variance: (k, K) of the burden in each of them.
        carriers: (k, K) people who have it; -1: withheld.
    """

    threshold: Floats
    U: Floats
    V: Floats
    lacking: tuple[str, ...]
    studies: tuple[int, ...]
    variance: Floats
    carriers: NDArray[np.int64]


def sum_collapsed(view: GeneView, trait: str, mask: str, mode: str, max_maf: float) -> CollapsedSum:
    """Sum the burdens of a mode over the studies, on the thresholds up to ``max_maf`` that all of them share."""
    found, lacking = [], []
    for k in view.studies:
        bundle, burdens = view.bundles[k], view.union.studies[k][0].collapsed.get((mask, mode))
        info = bundle.traits[trait]
        if burdens is None:
            lacking.append(bundle.study)
            continue
        U, V = burdens.U[info["index"]], burdens.V[info["index"]]
        kept = np.flatnonzero(np.isfinite(U) & (burdens.threshold <= max_maf * (1 + 1e-9)))
        carriers = burdens.carriers[bundle.sample_sets[info["sample_set"]]]
        found.append((k, burdens.threshold[kept], U[kept], V[np.ix_(kept, kept)], carriers[kept]))
    common = set.intersection(*({round(float(t), 12) for t in f[1]} for f in found)) if found else set()
    thresholds = np.array(sorted(common))
    K = len(common)
    U, V = np.zeros(K), np.zeros((K, K))
    variance, carried = np.zeros((len(found), K)), np.zeros((len(found), K), np.int64)
    for i, (_, threshold, U_k, V_k, carriers) in enumerate(found if K else []):
        at = np.searchsorted(np.round(threshold, 12), thresholds)
        U += U_k[at]
        V += V_k[np.ix_(at, at)]
        variance[i], carried[i] = V_k[at, at], carriers[at]
    return CollapsedSum(
        threshold=thresholds,
        U=U,
        V=V,
        lacking=tuple(lacking),
        studies=tuple(f[0] for f in found),
        variance=variance,
        carriers=carried,
    )


def law_of_collapsed(
    view: GeneView, shared: SharedV, t: int, mask: str, mode: str, burden: CollapsedSum, i: int
) -> Law | None:
    """Return the null law of the burden at threshold i; None where a study's groups do not make it up.

    A study chose the variants by its own frequencies, and counted the people who have the burden: its groups of
    carriers must give as many, within a twentieth (people grouped variant by variant may be counted twice).
    """
    if not shared.carriers:
        return None
    least, u = LEAST[mode], len(view.union.position)
    member = np.ones(u, np.bool_)
    if not view.request.is_region:
        member = view.request.member[view.rules.masks.index(mask)][view.union.listed]
    by_study = dict(zip(view.frequency.studies, view.frequency.by_study, strict=True))
    parts: list[tuple[Floats, StudyCarriers, float]] = []
    for k, V, carriers in zip(burden.studies, burden.variance[:, i], burden.carriers[:, i].tolist(), strict=True):
        own = shared.carriers[view.studies.index(k)]
        f = np.nan_to_num(by_study[k])
        rare = np.minimum(f, 1.0 - f) * (1.0 - 1e-12) <= burden.threshold[i]
        people = replace(own.carriers, dosage=np.abs(own.carriers.dosage), residuals=own.residuals[t])
        step = (people.steps((member & rare).astype(np.float64)) >= least - DOSAGE_SLACK).astype(np.float64)
        if not own.complete or (carriers >= 0 and abs(float(step @ people.count) - carriers) > 0.05 * carriers):
            return None
        parts.append((step, people, _variance_of_law(step, people, view.bundles[k].traits[shared.traits[t]], float(V))))
    return join_studies(parts)


def _variance_of_law(step: Floats, people: StudyCarriers, info: Mapping[str, Any], V: float) -> float:
    """Return the variance of a burden's score under its law: V, or that of the residuals of a time to event.

    ``Var(M) (sum g^2 - (sum g)^2 / n)``: V itself depends on when the carriers had their events.
    """
    if info["kind"] != "time_to_event" or people.residuals is None:
        return V
    spread = float(people.residuals.probability @ people.residuals.node**2)
    return spread * float(people.count @ step**2 - (people.count @ step) ** 2 / info["n_samples"])


def evaluate_collapsed(test: str, view: GeneView, shared: SharedV, selection: Selection) -> list[TestResult]:
    """Return a row per trait (T = 1 each) of a test on collapsed burdens.

    ``burden-*`` and ``cast`` need the burden at exactly the MAF limit; ``vt-*`` take the best threshold up to it.
    """
    mode, max_maf, out = MODE_OF[test], selection.max_maf, []
    tests = view.rules.tests
    for t, trait in enumerate(shared.traits):
        burden = sum_collapsed(view, trait, selection.mask, mode, max_maf)
        notes = [f"without {', '.join(burden.lacking)}"] if burden.lacking else []
        exact = len(burden.threshold) and bool(np.isclose(burden.threshold[-1], max_maf, rtol=1e-9))
        if not len(burden.threshold) or not (exact or test.startswith("vt")):
            who = f" by {', '.join(burden.lacking)}" if burden.lacking else ""
            out.append(missing_result(1, f"no {mode} burden of this mask is shared at {max_maf:g}{who}"))
            continue
        vt = test.startswith("vt")
        last = len(burden.threshold) - 1
        known = [
            law_of_collapsed(view, shared, t, selection.mask, mode, burden, i)
            for i in (range(last + 1) if vt else [last])
        ]
        told = all(law is not None for law in known)
        notes += [NORMAL_SCORES] if _needs_laws(shared) and not told and not shared.note else []
        if vt:
            result = _variable_threshold(burden, known if told else None, tests.ties)
        else:
            result = evaluate_sum(
                burden.U[-1:],
                float(burden.V[-1, -1]),
                np.ones(1),
                known,
                ties=tests.ties,
                firth=tests.effects == "firth",
            )
        for note in (*notes, shared.note):
            result = add_note(result, note)
        out.append(result)
    return out


def _needs_laws(shared: SharedV) -> bool:
    """Return whether scores of the trait are not normal: few outcomes, or residuals with a law of their own."""
    return shared.kind != "quantitative" or any(r is not None for own in shared.carriers for r in own.residuals)


def _variable_threshold(burden: CollapsedSum, laws: Sequence[Law | None] | None, ties: Ties) -> TestResult:
    """Return the variable threshold test of collapsed burdens, each with its own law; None: of normal scores."""
    if laws is None or all(law is None or not law.step.size for law in laws):
        return variable_threshold_from_sums(burden.U[None], burden.V, np.ones(1), burden.threshold)
    variance = burden.V.diagonal()
    varying = variance > CANCELLED * variance.max()
    log_p = [
        score_log_p(law, float(U), ties)[0] if law is not None and yes else np.nan
        for law, U, yes in zip(laws, burden.U, varying, strict=True)
    ]
    return best_of_laws(burden.U, burden.V, burden.threshold, np.array(log_p))


def sum_replicates(view: GeneView, traits: Sequence[str], included: NDArray[np.bool_] | None) -> Floats | None:
    """Return null replicates (T, P, u) summed over studies on the union of variants; None unless all share them.

    Args:
        view: the gene.
        traits: that share V.
        included: (k, u) what each study contributes; None for all.
    """
    genes = [view.union.studies[k][0] for k in view.studies]
    if not genes or any(t not in gene.replicates for gene in genes for t in traits):
        return None
    P = min(gene.replicates[t].shape[0] for gene in genes for t in traits)
    out = np.zeros((len(traits), P, len(view.union.position)))
    for i_study, (gene, at, sign) in enumerate(view.union.studies[k] for k in view.studies):
        kept = at >= 0 if included is None else (at >= 0) & included[i_study][at]
        for i, trait in enumerate(traits):
            out[i][:, at[kept]] += gene.replicates[trait][:P, kept] * sign[kept]
    return out
