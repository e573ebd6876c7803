"""Null laws of a gene over studies: the groups of carriers that bundles share, laid on the union of variants.

A variant whose carriers a study withholds (`min_cell`) has one group from what its bundle says anyway: as many
carriers as minor alleles, with the fitted probability that makes up its variance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from locomass.bundle.study import Bundle, GeneCovariance, StudyGene
from locomass.config import Tests
from locomass.gene_tests.law import Residuals, StudyCarriers, gather_variants, is_not_normal
from locomass.gene_tests.law_effects import NORMAL_95, estimate_rows, score_rows
from locomass.gene_tests.law_tails import METHODS, pack_residuals, two_sided_rows
from locomass.gene_tests.tails import chi2_logsf
from locomass.numbers import Floats

if TYPE_CHECKING:
    from locomass.meta.gene import GeneView
    from locomass.meta.sums import SharedV

Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class UnionCarriers:
    """Who carries the union's variants in one study; ALT is counted.

    Attributes:
        carriers: of the first trait; its variants are numbers of the union, its V is on ``SharedV.rows``.
        residuals: of every trait; None for a binary one.
        scale: (T,) factors of V.
        diagonal: (u,) variance of the union's variants, without the factor.
        complete: whether the study shares laws.
    """

    carriers: StudyCarriers
    residuals: tuple[Residuals | None, ...]
    scale: Floats
    diagonal: Floats
    complete: bool

    def select(self, chosen: Integers, rows: Integers, turn: Floats) -> tuple[StudyCarriers, ...]:
        """Return who carries the chosen variants, the counted allele positive, for every trait.

        Args:
            chosen: variants of the union.
            rows: their rows of V.
            turn: (u,) -1 where the tests count REF.
        """
        own = self.carriers
        number = np.full(self.diagonal.size, -1, np.int64)
        number[chosen] = np.arange(chosen.size)
        kept = number[own.variant] >= 0
        ends = np.concatenate(([0], np.cumsum(np.bincount(own.owner[kept], minlength=own.count.size))))
        sign = turn[chosen]
        one = replace(
            own,
            indptr=ends.astype(np.int64),
            variant=number[own.variant[kept]],
            dosage=own.dosage[kept] * turn[own.variant[kept]],
            V=own.V[np.ix_(rows, rows)] * np.outer(sign, sign),
            unit=None if own.unit is None else own.unit[chosen],
        )
        return tuple(replace(one, residuals=r, scale=float(s)) for r, s in zip(self.residuals, self.scale, strict=True))


def open_union_carriers(
    view: GeneView, k: int, traits: tuple[str, ...], place: Integers, V: Floats, diagonal: Floats, rows: Integers
) -> UnionCarriers:
    """Return who carries the variants of one study on the union.

    Args:
        view: the gene.
        k: number of the study.
        traits: that share V.
        place: (m,) variant of the union of each of the study's, -1 for none.
        V: (r, r) information of the study; ``diagonal``: (u,) of all variants, without sigma2.
        rows: (r,) variants of the union that V is made for.
    """
    bundle, (gene, _, sign) = view.bundles[k], view.union.studies[k]
    timed = bundle.traits[traits[0]]["kind"] == "time_to_event"
    shared = [read_residuals(bundle, trait, view.request.chromosome) for trait in traits]
    residuals = tuple(
        r if r is not None and (timed or is_not_normal(r, float(bundle.traits[trait]["n_samples"]))) else None
        for r, trait in zip(shared, traits, strict=True)
    )
    binary = bundle.traits[traits[0]]["kind"] == "binary"
    scale = np.array([1.0 / bundle.sigma2(t, view.request.chromosome) for t in traits])
    told = gene.laws.get(bundle.traits[traits[0]]["covariance"])
    complete = told is not None and (binary or all(r is not None for r in shared))
    empty = np.empty(0)
    if told is None or not complete:
        nobody = StudyCarriers(
            np.zeros(1, np.int64), np.empty(0, np.int64), empty, empty, empty if binary else None, residuals[0], V
        )
        return UnionCarriers(carriers=nobody, residuals=residuals, scale=scale, diagonal=diagonal, complete=False)
    own = StudyCarriers(told.indptr, told.variant, told.dosage, told.count, told.mu, residuals[0], V)
    if int(bundle.info.get("min_cell", 0)) > 1:
        own = _add_withheld(own, bundle, gene, traits[0], binary)
    if timed and residuals[0] is not None:
        unit = np.ones(diagonal.size)
        seen = place >= 0
        unit[place[seen]] = _per_information(own, residuals[0], bundle.projections(gene, traits[0])[0])[seen]
        own, diagonal = replace(own, V=V * np.outer(unit[rows], unit[rows]), unit=unit), diagonal * unit**2
    kept = place[own.variant] >= 0
    ends = np.concatenate(([0], np.cumsum(np.bincount(own.owner[kept], minlength=own.count.size)))).astype(np.int64)
    dosage = own.dosage[kept] * sign[own.variant[kept]]
    laid = replace(own, indptr=ends, variant=place[own.variant[kept]], dosage=dosage)
    return UnionCarriers(carriers=laid, residuals=residuals, scale=scale, diagonal=diagonal, complete=True)


def _per_information(own: StudyCarriers, residuals: Residuals, c: GeneCovariance) -> Floats:
    """Return (m,) the root of the residuals' variance over the expected events of the carriers of each variant.

    The information of a time to event counts the events that were expected of the carriers, ``sum g^2 W``, which
    depends on when they failed; their residuals vary by ``sum g^2 Var(M)`` whenever that was. The law of a score needs
    the second: V with every variant in units of its own root. The two agree where carriers are many.
    """
    square = np.zeros(c.B.shape[1])
    at = c.row == c.column
    square[c.row[at]] = c.value[at]
    spread = float(residuals.probability @ residuals.node**2)
    R = spread * np.bincount(own.variant, own.count[own.owner] * own.dosage**2, minlength=square.size)
    ratio = np.ones(square.size)
    np.divide(R, square, out=ratio, where=(square > 0.0) & (R > 0.0))
    return np.asarray(np.sqrt(ratio))


def read_residuals(bundle: Bundle, trait: str, chromosome: str) -> Residuals | None:
    """Return the distribution of residuals per allele of U, of other than binary traits; None where none is shared."""
    told = bundle.traits[trait].get("residuals")
    if told is None:
        return None
    sd = told.get("sd") or bundle.sigma2(trait, chromosome) ** -0.5
    return Residuals(np.array(told["node"], np.float64) * sd, np.array(told["chance"], np.float64))


def _add_withheld(own: StudyCarriers, bundle: Bundle, gene: StudyGene, trait: str, binary: bool) -> StudyCarriers:
    """Return the carriers with a group for every varying variant that has none."""
    s = bundle.sample_sets[bundle.traits[trait]["sample_set"]]
    f = np.nan_to_num(gene.alt_frequency[:, s])
    minor = np.rint(2.0 * gene.n_obs[:, s] * np.minimum(f, 1.0 - f))
    hidden = np.flatnonzero((np.bincount(own.variant, minlength=minor.size) == 0) & (minor > 0))
    if not hidden.size:
        return own
    count, mu = minor[hidden], own.mu
    if binary and mu is not None:
        c, _ = bundle.projections(gene, trait)
        square = np.zeros(minor.size)
        on_diagonal = c.row == c.column
        square[c.row[on_diagonal]] = c.value[on_diagonal]
        W = np.clip(square[hidden] / count, 1e-12, 0.25)
        info = bundle.traits[trait]
        most_are_cases = 2 * int(info.get("n_cases") or 0) > int(info["n_samples"])
        low = 0.5 - np.sqrt(0.25 - W)
        mu = np.concatenate([mu, 1.0 - low if most_are_cases else low])
    return replace(
        own,
        indptr=np.concatenate([own.indptr, own.indptr[-1] + 1 + np.arange(hidden.size)]),
        variant=np.concatenate([own.variant, hidden]),
        dosage=np.concatenate([own.dosage, np.where(f[hidden] > 0.5, -1.0, 1.0)]),
        count=np.concatenate([own.count, count]),
        mu=mu,
    )


Groups = tuple[Integers, Floats, Floats, Floats]


def gather_sums(studies: Sequence[UnionCarriers], W: Floats) -> Groups:
    """Return the groups of sums of variants one after another, as `gather_variants` does; W (k, u, c), ALT counted."""
    starts, step, count, mu = [0], [], [], []
    for c in range(W.shape[2]):
        for i, own in enumerate(study.carriers for study in studies):
            g = own.steps(np.ascontiguousarray(W[i, :, c]))
            kept = g != 0.0
            assert own.mu is not None
            step.append(g[kept])
            count.append(own.count[kept])
            mu.append(own.mu[kept])
            starts.append(starts[-1] + int(kept.sum()))
    n, k = W.shape[2], len(studies)
    ends = np.array(starts, np.int64)
    bounds = np.column_stack([ends[:-1].reshape(n, k), ends[k::k]])
    return bounds, np.concatenate(step), np.concatenate(count), np.concatenate(mu)


def compare_studies(
    groups: Groups, U: Floats, v: Floats, tests: Tests
) -> tuple[Floats, Floats, Floats, Floats, Floats]:
    """Return what studies of a binary trait say of common effects of sums of variants.

    Args:
        groups: of k studies, for c sums.
        U, v: (k, c) scores of the sums and their variances.
        tests: ties and effects.

    Returns:
        (c,) joint effect, standard error and log p; (k, c) what is left of the scores at the joint effect, and their
        information there.
    """
    total, variances = U.sum(axis=0), np.ascontiguousarray(v.T)
    b, se, _, _ = estimate_rows(total, tests.effects == "firth", *groups, variances)
    residuals = pack_residuals([None] * len(U))
    log_p, _ = two_sided_rows(total, tests.ties == "mid", *groups, *residuals, variances)
    S, information = score_rows(b, np.ascontiguousarray(U), *groups, variances)
    return b, se, log_p, S, information


def test_variants(
    shared: SharedV, chosen: Integers, V: Floats, tests: Tests
) -> tuple[Floats, NDArray[np.object_], Floats, Floats, Floats, Floats]:
    """Return log p, its method, effect, standard error and interval of single variants, trait by trait.

    Args:
        shared: sums over studies, with who carries the variants where studies tell.
        chosen: variants of the union.
        V: (T, n) their variances.
        tests: ties and effects.
    """
    U = shared.U[:, chosen]
    testable = V > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        beta, se = np.where(testable, U / V, np.nan), np.where(testable, 1 / np.sqrt(V), np.nan)
        chi2 = np.where(testable, U**2 / V, 0.0)
    log_p = np.where(testable, chi2_logsf(chi2.ravel()).reshape(chi2.shape), np.nan)
    method = np.where(testable, "chi2", "").astype(object)
    low, high = beta - NORMAL_95 * se, beta + NORMAL_95 * se
    for t in range(len(shared.traits) if shared.carriers and chosen.size else 0):
        groups = gather_variants([own.carriers for own in shared.carriers], chosen, shared.U.shape[1])
        variances = np.ascontiguousarray(np.array([own.diagonal[chosen] * own.scale[t] for own in shared.carriers]).T)
        residuals = [own.residuals[t] for own in shared.carriers]
        log_p[t], code = two_sided_rows(U[t], tests.ties == "mid", *groups, *pack_residuals(residuals), variances)
        method[t] = [METHODS[c] or ("chi2" if yes else "") for c, yes in zip(code.tolist(), testable[t], strict=True)]
        if all(r is None for r in residuals):
            beta[t], se[t], low[t], high[t] = estimate_rows(U[t], tests.effects == "firth", *groups, variances)
    return log_p.ravel(), method.ravel(), beta.ravel(), se.ravel(), low.ravel(), high.ravel()
