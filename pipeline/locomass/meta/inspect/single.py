"""Checks of one bundle: the scale of U and V, and whether V can be a covariance matrix."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from locomass.bundle.study import Bundle, StudyGene
from locomass.meta.inspect.studies import (
    ERROR,
    MIN_VARIANTS,
    WARNING,
    Finding,
    StudyVariants,
    implied_variance,
    is_common,
)
from locomass.numbers import MEDIAN_CHI2, NOT_PSD, Floats

SCALE_RANGE = {  # of the top tenth, of the median, of the median
    "quantitative": (0.9, 1.05),
    "binary": (0.5, 1.3),
    "time_to_event": (0.5, 2.0),
}
INFLATION_RANGE = (0.5, 2.0)
WRONG_SCALE = 20.0  # no confounding inflates the median so much: U or V are in other units
LARGEST_CHI2 = 1.05  # times the samples: U^2 / V is n r^2, r a correlation, but for the weights of a binary trait
MEDIAN_ERROR = 2.33  # relative standard error of the median of n chi-squares, times sqrt(n)
LINKED = 4.0  # variants per independent one, a guess for exonic variants with enough carriers
SHOWN = 3
MALE_ERRORS = 0.02  # of the carrier calls of males on X that genotyping errors explain
WRONG_SEXES = 0.5  # share from which most males cannot be males


def check_scale(study: StudyVariants) -> Iterator[Finding]:
    """Compare V_jj with ``sum (g - mean)^2 W``: covariates can only lower it.

    W is 1 / sigma2, mu (1 - mu) for a binary trait, events / n for a time to event.

    An imported bundle does not tell its sigma2; `check_calibration` and `check_variances` look at those.
    """
    if "source" in study.bundle.info:
        return
    for name, trait in study.bundle.traits.items():
        t = trait["index"]
        variance = implied_variance(study, t)
        if len(variance) < MIN_VARIANTS:
            continue
        n, cases = trait["n_samples"], trait.get("n_cases")
        low, high = SCALE_RANGE[trait["kind"]]
        if trait["kind"] != "quantitative":
            if not cases:
                continue
            # 1 / W without covariates: mu (1 - mu), or the events of a person
            stated = n / cases * (n / (n - cases) if trait["kind"] == "binary" else 1.0)
            ratio = float(np.median(stated / variance))
        else:
            stated = float(np.median(list(trait["sigma2"].values())))
            low *= 1 - max((r.get("n_covariates") or 0 for r in trait.get("denoising", [])), default=0) / n
            middle, top = np.quantile(stated / variance, (0.5, 0.9))
            ratio = float(middle if middle > high else top if top < low else 1.0)
        if not low <= ratio <= high:
            right = f"{low:.2f} to {high:.2f}"
            what = f"V is {ratio:.3g} times what genotypes and sigma2 = {stated:.4g} give, {right} being right"
            fix = "V must be (G'WG - B'B) / sigma2 with the sigma2 of study.json: compute the bundle again"
            yield Finding(ERROR, study.name, what, f"trait {name}", fix, "scale")


def check_calibration(study: StudyVariants) -> Iterator[Finding]:
    """Look at the median of U^2 / V: far from its null value, U and V are on different scales (or confounded)."""
    for name, trait in study.bundle.traits.items():
        t = trait["index"]
        common = is_common(study, t)
        if common.sum() < 5 * MIN_VARIANTS:
            continue
        inflation = float(np.median(study.U[common, t] ** 2 / study.V[common, t])) / MEDIAN_CHI2
        chance = np.exp(3 * MEDIAN_ERROR / np.sqrt(common.sum() / LINKED))
        if not INFLATION_RANGE[0] / chance <= inflation <= INFLATION_RANGE[1] * chance:
            what = f"the median of U^2 / V is {inflation:.3g} times its null value"
            fix = "U must be G'(y - mu) / sigma2 and V its variance (scores of seqMeta are sigma2 times these)"
            far = max(inflation, 1 / max(inflation, 1e-300)) > WRONG_SCALE * chance
            severity = ERROR if far else WARNING
            yield Finding(severity, study.name, what, f"trait {name}, {int(common.sum()):,} variants", fix, "inflation")


def check_sizes(study: StudyVariants) -> Iterator[Finding]:
    """Find scores that cannot be: ``U^2 / V = n r^2`` of a quantitative trait is at most its samples."""
    for name, trait in study.bundle.traits.items():
        t, n = trait["index"], trait["n_samples"]
        alive = study.V[:, t] > 0
        if trait["kind"] != "quantitative" or not alive.any():
            continue
        chi2 = study.U[alive, t] ** 2 / study.V[alive, t]
        above = int((chi2 > LARGEST_CHI2 * n).sum())
        if above:
            what = f"U^2 / V is {chi2.max():.3g}, above the {n:,} samples: no genotype explains more than everything"
            fix = "U and V are on different scales, or n_samples is wrong: compute the bundle again"
            yield Finding(ERROR, study.name, what, f"trait {name}, {above:,} variants", fix, "sizes")


def check_sexes(bundle: Bundle) -> Iterator[Finding]:
    """Compare the impossible, heterozygous calls of males on chromosome X with their possible ones."""
    impossible, possible = (bundle.info.get(key) for key in ("male_heterozygotes", "male_hemizygotes"))
    if not isinstance(impossible, int) or not isinstance(possible, int):  # nobody checks these keys of a bundle
        return
    carried = impossible + possible
    if impossible <= MALE_ERRORS * carried:
        return
    what = f"{impossible:,} of {carried:,} rarer-allele calls of males are heterozygous and were taken as missing"
    fix = "sexes in the .fam, the genome build, or the coding of hemizygous calls (must be homozygous) are wrong"
    severity = ERROR if impossible >= WRONG_SEXES * carried else WARNING
    yield Finding(severity, bundle.study, what, "chromosome X", fix, "sexes")


class Definiteness:
    """Genes whose V is not positive semi-definite: some weighted sum would have a negative variance.

    Sees the genes as they are validated, and tells at the end.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.bundle, self.bad = bundle, dict[str, list[str]]()

    def see(self, genes: dict[str, StudyGene]) -> None:
        """Look at the genes of one file."""
        first = {c["name"]: c["traits"] for c in self.bundle.info["covariances"]}
        for name, gene in genes.items():
            for covariance, stored in gene.covariances.items():
                for trait in first[covariance] if stored.b.shape[1] else first[covariance][:1]:
                    if not is_definite(self.bundle.information(gene, trait)):
                        self.bad.setdefault(trait, []).append(name)

    def findings(self) -> Iterator[Finding]:
        """Give what was found."""
        for trait, genes in self.bad.items():
            shown = ", ".join(genes[:SHOWN]) + (", ..." if len(genes) > SHOWN else "")
            what = f"V of {len(genes):,} genes is not positive semi-definite"
            fix = "rounded or mixed covariances; for an LD reference, use samples of the same ancestry, and more digits"
            yield Finding(ERROR, self.bundle.study, what, f"trait {trait}: {shown}", fix, "not-definite")


def is_definite(V: Floats) -> bool:
    """Return whether no eigenvalue of V's correlation matrix is below -`NOT_PSD` times the largest."""
    d = np.diag(V)
    if (d < 0).any():
        return bool(d.min() > -NOT_PSD * np.abs(d).max())
    alive = d > 1e-10 * d.max(initial=0.0)
    if np.abs(V[~alive]).max(initial=0.0) > NOT_PSD * d.max(initial=1.0):
        return False
    R = V[np.ix_(alive, alive)] / np.sqrt(np.outer(d[alive], d[alive]))
    try:
        np.linalg.cholesky(R + NOT_PSD * np.eye(len(R)))
    except np.linalg.LinAlgError:
        values = np.linalg.eigvalsh(R)
        return bool(values[0] > -NOT_PSD * values[-1])
    return True
