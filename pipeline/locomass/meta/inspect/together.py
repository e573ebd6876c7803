"""Checks of bundles against each other: units, builds, alleles, people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from locomass.bundle.study import Bundle
from locomass.meta.inspect.studies import (
    ERROR,
    MIN_VARIANTS,
    WARNING,
    Finding,
    Integers,
    StudyVariants,
    implied_variance,
    is_common,
)
from locomass.numbers import MEDIAN_CHI2, Floats

VARIANCE_FACTOR = 3.0  # residual variances of one trait that differ by more are probably in other units
LEAST_SPREAD = 0.2  # of frequencies between studies; below it a swap cannot be told
FST = 0.05  # spread of frequencies between populations that is taken as natural
SWAPPED_BY_CHANCE = 1e-3  # share of variants that populations fix differently: a few of each thousand at most
SWAPPED_TOGETHER = 3  # variants: one or two among few shared ones may be chance
SWAP_EVIDENCE = 8.0  # natural logarithm of the likelihood ratio
NULL_Z = 3.0
OVERLAP_CORRELATION, OVERLAP_Z = 0.05, 4.0
SAME = 0.999


def check_variances(studies: Sequence[StudyVariants]) -> Iterator[Finding]:
    """Compare the residual variance that V stands for between studies of one quantitative trait."""
    found: dict[str, list[tuple[str, float]]] = {}
    for study in studies:
        for name, trait in study.bundle.traits.items():
            variance = implied_variance(study, trait["index"])
            if trait["kind"] == "quantitative" and len(variance) >= MIN_VARIANTS:
                found.setdefault(name, []).append((study.name, float(np.median(variance))))
    for name, values in found.items():
        middle = float(np.median([value for _, value in values]))
        fix = "check the trait's unit and transformation, and that U and V are divided by sigma2"
        if len(values) == 2 and (ratio := max(v for _, v in values) / min(v for _, v in values)) > VARIANCE_FACTOR:
            what = f"V stands for residual variances that differ {ratio:.3g} times"
            yield Finding(WARNING, ", ".join(label for label, _ in values), what, f"trait {name}", fix, "units")
        for label, value in values if len(values) > 2 else ():
            if max(value / middle, middle / value) > VARIANCE_FACTOR:
                what = (
                    f"V stands for a residual variance of {value:.3g}, {value / middle:.3g} times the studies' median"
                )
                yield Finding(WARNING, label, what, f"trait {name}", fix, "units")


def check_builds(bundles: Sequence[Bundle]) -> Iterator[Finding]:
    """Compare genome builds."""
    builds = {b.study: b.info.get("genome_build") for b in bundles if b.info.get("genome_build")}
    if len(set(builds.values())) > 1:
        where = ", ".join(f"{study}: {build}" for study, build in builds.items())
        fix = "lift over before computing the bundle"
        yield Finding(ERROR, ", ".join(builds), "different genome builds", where, fix, "genome-build")


def check_x_coding(bundles: Sequence[Bundle]) -> Iterator[Finding]:
    """Compare how males are coded on chromosome X: an allele of theirs counts once or twice, and frequencies follow."""
    codings = {b.study: b.info["x_coding"] for b in bundles if isinstance(b.info.get("x_coding"), str)}
    if len(set(codings.values())) > 1:
        where = ", ".join(f"{study}: {coding}" for study, coding in codings.items())
        fix = "agree on score_statistics.x_coding and compute the bundles again"
        yield Finding(ERROR, ", ".join(codings), "males are coded differently on chromosome X", where, fix, "x-coding")


def check_trait_names(bundles: Sequence[Bundle]) -> Iterator[Finding]:
    """Find traits whose names differ by capitals or punctuation only: they would be tested as different traits."""
    spelled: dict[str, dict[str, list[str]]] = {}
    for bundle in bundles:
        for name in bundle.traits:
            plain = "".join(c for c in name.casefold() if c.isalnum())
            spelled.setdefault(plain, {}).setdefault(name, []).append(bundle.study)
    for names in spelled.values():
        # two traits of one study are two traits
        if len(names) > 1 and len({study for studies in names.values() for study in studies}) > 1:
            whole = [study for studies in names.values() for study in studies]
            if len(set(whole)) < len(whole):
                continue
            where = ", ".join(f"{name} in {', '.join(studies)}" for name, studies in names.items())
            fix = "use one name: as they are, these are different traits, each tested in its own studies"
            yield Finding(
                ERROR, ", ".join(whole), "trait names differ by capitals or punctuation", where, fix, "traits"
            )


def check_transforms(bundles: Sequence[Bundle]) -> Iterator[Finding]:
    """Compare how a trait was transformed: effects of ranks and of values are in different units."""
    how: dict[str, dict[str, list[str]]] = {}
    for bundle in bundles:
        for name, trait in bundle.traits.items():
            how.setdefault(name, {}).setdefault(trait.get("transform", "none"), []).append(bundle.study)
    for name, studies in how.items():
        if len(studies) > 1:
            where = "; ".join(f"{transform}: {', '.join(who)}" for transform, who in studies.items())
            fix = "agree on phenotypes.transform: effects are in different units, and weights suit neither"
            everybody = ", ".join(study for who in studies.values() for study in who)
            yield Finding(WARNING, everybody, f"trait '{name}' is transformed differently", where, fix)


def check_alleles(studies: Sequence[StudyVariants]) -> Iterator[Finding]:
    """Find variants whose frequency in one study fits the others only after swapping the alleles.

    Compared are the log-likelihoods of f and 1 - f under a normal spread of ``f (1 - f) (1/2n + 1/2n' + F_ST)``.
    F_ST is that of the two populations, by the median over the variants they share, so that ancestries may differ: a
    few swapped variants do not move a median.
    """
    if len(studies) < 2:
        return
    table = pd.DataFrame(
        {
            "code": np.concatenate([s.code for s in studies]),
            "study": np.repeat(np.arange(len(studies)), [len(s.code) for s in studies]),
            "f": np.concatenate([s.frequency for s in studies]),
            "n": np.concatenate([s.n for s in studies]),
        }
    )
    table = table[table["n"] > 0]
    groups = table.groupby("code")["f"]
    spread = groups.transform("max") - groups.transform("min")
    shared = table.loc[groups.transform("size") > 1, "study"].value_counts()
    fst = _spread(table, len(studies))
    swapped: dict[tuple[int, ...], list[int]] = {}
    for code, group in table[spread > LEAST_SPREAD].groupby("code"):
        for culprits in _swapped_in(group["f"].to_numpy(), group["n"].to_numpy(), group["study"].to_numpy(), fst):
            swapped.setdefault(culprits, []).append(int(code))
    for culprits, codes in swapped.items():
        names = [studies[k].name for k in culprits]
        share = len(codes) / min(int(shared[k]) for k in culprits)
        many = len(codes) >= MIN_VARIANTS and share > SWAPPED_BY_CHANCE
        severity = ERROR if (share > 0.01 and len(codes) >= SWAPPED_TOGETHER) or many else WARNING
        where = f"{len(codes):,} variants, such as {_label(studies[culprits[0]], codes[0])}"
        who = "in this study" if len(names) == 1 else "in one of these two studies"
        fix = "U and the covariances count the other allele than ALT says there: name alleles by the reference genome"
        yield Finding(severity, ", ".join(names), f"alleles are swapped {who}", where, fix, "swapped-alleles")


def _spread(table: pd.DataFrame, n_studies: int) -> Floats:
    """Return (S, S) F_ST of every two studies, `FST` or more.

    ``(f - g)^2 / (m (1 - m)) - 1/2n - 1/2n'``, m the mean, is F_ST times a chi-square with one degree of freedom, so
    that F_ST is its median over that of the chi-square. Only variants with a mean of 5 to 95 % count: the others
    cannot tell.
    """
    out = np.full((n_studies, n_studies), FST)
    of = [table[table["study"] == k].set_index("code") for k in range(n_studies)]
    for k in range(n_studies):
        for j in range(k):
            both = of[k].join(of[j], how="inner", lsuffix="_k", rsuffix="_j")
            f, g = both["f_k"].to_numpy(), both["f_j"].to_numpy()
            m = (f + g) / 2
            told = (m > 0.05) & (m < 0.95)
            if told.sum() < MIN_VARIANTS:
                continue
            noise = 1 / (2 * both["n_k"].to_numpy()) + 1 / (2 * both["n_j"].to_numpy())
            ratio = (f - g)[told] ** 2 / (m * (1 - m))[told] - noise[told]
            out[k, j] = out[j, k] = max(FST, float(np.median(ratio)) / MEDIAN_CHI2)
    return out


def _swapped_in(f: Floats, n: Floats, study: Integers, fst: Floats) -> Iterator[tuple[int, ...]]:
    """Give the studies in which a variant's alleles look swapped; both, when there are only two."""
    for k in range(len(f)):
        others = np.delete(np.arange(len(f)), k)
        g, m = float(np.median(f[others])), float(n[others].sum())
        mean = (f[k] + g) / 2 if abs(f[k] - g) < abs(1 - f[k] - g) else (1 - f[k] + g) / 2
        mean = min(max(mean, 1 / (2 * (n[k] + m))), 1 - 1 / (2 * (n[k] + m)))
        variance = mean * (1 - mean) * (1 / (2 * n[k]) + 1 / (2 * m) + fst[study[k], study[others]].max())
        evidence = ((f[k] - g) ** 2 - (1 - f[k] - g) ** 2) / (2 * variance)
        if evidence > SWAP_EVIDENCE:
            if len(f) == 2:
                yield tuple(sorted(study.tolist()))
                return
            yield (int(study[k]),)


def _label(study: StudyVariants, code: int) -> str:
    """Return the name of a variant."""
    row = int(study.row[np.searchsorted(study.code, code)])
    return ":".join(str(study.bundle.variants[c][row].as_py()) for c in ("chromosome", "position", "ref", "alt"))


def check_duplicate(one: StudyVariants, other: StudyVariants) -> Finding | None:
    """Find two bundles of the same people: the same genotype counts, or the same U."""
    _, i, j = np.intersect1d(one.code, other.code, assume_unique=True, return_indices=True)
    names = f"{one.name}, {other.name}"
    fix = "give each study once, or remove the shared people from one"
    known = (one.counts[i] >= 0).all(axis=1) & (other.counts[j] >= 0).all(axis=1)
    varied = known & (one.counts[i].sum(axis=1) >= 2)
    if varied.sum() >= MIN_VARIANTS:
        same = (one.counts[i] == other.counts[j]).all(axis=1) & (one.n[i] == other.n[j])
        share = float(same[varied].mean())
        if share > SAME:
            return Finding(
                ERROR, names, "the same genotype counts", f"{int(varied.sum()):,} shared variants", fix, "same-people"
            )
    for name in one.bundle.traits.keys() & other.bundle.traits.keys():
        a, b = _z(one, name)[i], _z(other, name)[j]
        use = np.isfinite(a) & np.isfinite(b)
        if use.sum() >= MIN_VARIANTS and _correlate(a[use], b[use]) > SAME:
            return Finding(
                ERROR,
                names,
                "the same score statistics",
                f"trait {name}, {int(use.sum()):,} variants",
                fix,
                "same-people",
            )
    return None


def check_overlap(one: StudyVariants, other: StudyVariants) -> Finding | None:
    """Find shared people: score statistics of variants without an effect are correlated by n_shared / sqrt(n n').

    The test statistic sums products of Z over stretches of 10 kb, so that linkage disequilibrium does not inflate it;
    of several traits the one with the strongest evidence is reported.
    """
    _, i, j = np.intersect1d(one.code, other.code, assume_unique=True, return_indices=True)
    best: tuple[float, float, str, int] | None = None
    for name in sorted(one.bundle.traits.keys() & other.bundle.traits.keys()):
        a, b = _z(one, name)[i], _z(other, name)[j]
        index = [study.bundle.traits[name]["index"] for study in (one, other)]
        enough = is_common(one, index[0])[i] & is_common(other, index[1])[j]
        with np.errstate(invalid="ignore"):
            use = enough & (np.abs(a) < NULL_Z) & (np.abs(b) < NULL_Z)
        if use.sum() < MIN_VARIANTS:
            continue
        r = _correlate(a[use], b[use])
        sums = np.bincount(one.cluster[i][use], weights=a[use] * b[use])
        z = float(sums.sum() / np.sqrt((sums**2).sum()))
        if r > OVERLAP_CORRELATION and z > OVERLAP_Z and (best is None or z > best[0]):
            best = (z, r, name, int(use.sum()))
    if best is None:
        return None
    z, r, name, count = best
    n = [study.bundle.traits[name]["n_samples"] for study in (one, other)]
    what = (
        f"score statistics are correlated by {r:.2f} (Z = {z:.1f}): about {r * np.sqrt(n[0] * n[1]):,.0f} shared people"
    )
    fix = "remove the shared people from one study and compute its bundle again"
    return Finding(
        WARNING, f"{one.name}, {other.name}", what, f"trait {name}, {count:,} variants", fix, "shared-people"
    )


def _z(study: StudyVariants, trait: str) -> Floats:
    """Return U / sqrt(V), NaN without information."""
    t = study.bundle.traits[trait]["index"]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(study.V[:, t] > 0, study.U[:, t] / np.sqrt(study.V[:, t]), np.nan)


def _correlate(a: Floats, b: Floats) -> float:
    """Return the correlation of two vectors of mean zero."""
    norm = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / norm if norm > 0 else 0.0
