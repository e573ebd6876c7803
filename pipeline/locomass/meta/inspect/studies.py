"""What the checks of bundles share: findings, and the variants of several studies on one numbering."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from locomass.bundle.study import Bundle, matrix_column
from locomass.numbers import Floats
from locomass.variants.identity import canonical_alleles, name_unseen, number_places

Integers = NDArray[np.int64]

ERROR, WARNING, NOTE = "error", "warning", "note"
MIN_MAC = 5.0  # below it one carrier decides
MIN_VARIANTS = 20  # a median or correlation over fewer says nothing
CLUSTER = 10_000  # base pairs that are one unit of the overlap test


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Attributes:
        severity: ``error`` (do not combine), ``warning`` (look), ``note``.
        study: name of the study, or names joined by a comma; the path where it cannot be opened.
        what: what is wrong.
        where: file, trait, gene or variants.
        fix: what to do.
        name: of the check, for `--allow`; empty for what cannot be allowed.
    """

    severity: str
    study: str
    what: str
    where: str
    fix: str
    name: str = ""

    def __str__(self) -> str:
        return f"{self.severity}: {self.study}: {self.what} [{self.where}]; {self.fix}"


@dataclass(frozen=True)
class StudyVariants:
    """What the checks need of one study, on allele-order-free variants.

    Attributes:
        bundle: the study.
        code: (v,) number of each variant, the same in every study; increasing.
        row: (v,) its row of variants.parquet.
        cluster: (v,) number of the stretch of a chromosome.
        n, frequency: (v,) of the largest sample set; the frequency is that of the alphabetically later allele.
        counts: (v, 2) heterozygous and homozygous for that allele, -1 withheld.
        U, V: (v, T) U counts that allele.
    """

    bundle: Bundle
    code: Integers
    row: Integers
    cluster: Integers
    n: Floats
    frequency: Floats
    counts: Integers
    U: Floats
    V: Floats

    @property
    def name(self) -> str:
        """The study."""
        return self.bundle.study


def load_studies(bundles: Sequence[Bundle]) -> list[StudyVariants]:
    """Read the variant tables and number the variants over all studies; those without a variant are left out."""
    frames, bundles = [], [bundle for bundle in bundles if bundle.variant_file.num_rows]
    for k, bundle in enumerate(bundles):
        table = bundle.variants
        ref, alt = (table.column(c).to_numpy().astype(object) for c in ("ref", "alt"))
        frame = pd.DataFrame(
            {"chromosome": table.column("chromosome").to_numpy(), "position": table.column("position")}
        )
        frames.append(frame.assign(ref=ref, alt=alt, study=k))
    if not frames:
        return []
    table = pd.concat(frames, ignore_index=True)
    place = number_places(table["chromosome"].to_numpy(object), table["position"].to_numpy(np.int64))
    ref, alt = name_unseen(place, *(table[c].to_numpy(object) for c in ("ref", "alt", "study")))
    table["low"], table["high"] = canonical_alleles(ref, alt)
    table["counts_high"] = table["high"] == alt
    table["code"] = table.groupby(["chromosome", "position", "low", "high"], sort=False).ngroup()
    stretch = pd.DataFrame({"chromosome": table["chromosome"], "stretch": table["position"] // CLUSTER})
    table["cluster"] = stretch.groupby(["chromosome", "stretch"], sort=False).ngroup()
    return [_study(bundle, table[table["study"] == k]) for k, bundle in enumerate(bundles)]


def _study(bundle: Bundle, rows: pd.DataFrame) -> StudyVariants:
    """Return one study's variants in the order of their codes."""
    order = np.argsort(rows["code"].to_numpy())
    sets = [s["n_samples"] for s in bundle.info["sample_sets"]]
    s = int(np.argmax(sets))
    turned = ~rows["counts_high"].to_numpy(bool)[order]
    column = {name: matrix_column(bundle.variants, name)[order] for name in ("U", "V")}
    n, f, ref, het, alt = (
        matrix_column(bundle.variants, name)[order, s] for name in ("n_obs", "alt_frequency", "n_ref", "n_het", "n_alt")
    )
    return StudyVariants(
        bundle=bundle,
        code=rows["code"].to_numpy(np.int64)[order],
        row=order,
        cluster=rows["cluster"].to_numpy(np.int64)[order],
        n=n.astype(np.float64),
        frequency=np.where(turned, 1 - f, f),
        counts=np.stack([het, np.where(turned, ref, alt)], axis=1).astype(np.int64),
        U=np.where(turned[:, None], -column["U"], column["U"]),
        V=column["V"],
    )


def genotype_variance(study: StudyVariants) -> Floats:
    """Return (v,) ``sum_i (g_i - mean)^2`` by the genotype counts, or ``n 2 f (1 - f)`` where they are withheld."""
    het, hom = study.counts[:, 0], study.counts[:, 1]
    f = np.nan_to_num(study.frequency)
    counted = het + 4.0 * hom - study.n * (2 * f) ** 2
    return np.where(het < 0, study.n * 2 * f * (1 - f), np.maximum(counted, 0.0))


def is_common(study: StudyVariants, t: int) -> NDArray[np.bool_]:
    """Return which variants have enough carriers, and information about a trait."""
    f = np.nan_to_num(study.frequency)
    return np.asarray((2 * study.n * np.minimum(f, 1 - f) >= MIN_MAC) & (study.V[:, t] > 0))


def implied_variance(study: StudyVariants, t: int) -> Floats:
    """Return ``sum (g - mean)^2 / V_jj`` of the variants with enough carriers: the residual variance V stands for."""
    common = is_common(study, t)
    return np.asarray(genotype_variance(study)[common] / study.V[common, t])
