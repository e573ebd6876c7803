"""Chromosome X: which variants a male has one copy of, and how his calls are coded.

PLINK writes hemizygous calls as homozygous, so 0/2 is what the files hold; 0/1 halves it. Inside the pseudo-autosomal
regions (and on chromosome 25, PLINK's XY) males are diploid like everyone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from locomass.errors import InputError
from locomass.genotypes.hemizygous import FEMALE, MALE, recode_males
from locomass.tables.catalogue import StudyVariants
from locomass.tables.cohort import Cohort
from locomass.variants.chromosomes import X

#: first and last base of PAR1 and PAR2 (Genome Reference Consortium)
PSEUDO_AUTOSOMAL = {
    "GRCh37": ((60_001, 2_699_520), (154_931_044, 155_260_560)),
    "GRCh38": ((10_001, 2_781_479), (155_701_383, 156_030_895)),
}
HEMIZYGOUS = {"0/2": 2, "0/1": 1}


@dataclass(frozen=True)
class XCoding:
    """How chromosome X is coded in one study.

    Attributes:
        male: (n,) by analysed sample.
        hemizygous: dosage of a male carrier.
        build: genome build, '' where unknown.
    """

    male: NDArray[np.bool_]
    hemizygous: int
    build: str

    @property
    def key(self) -> NDArray[np.uint8]:
        """What covariances of chromosome X depend on, as bytes."""
        return np.frombuffer(f"{self.hemizygous}{self.build}".encode() + self.male.tobytes(), np.uint8)


def find_haploid(chromosome: str, position: NDArray[np.int64], build: str) -> NDArray[np.bool_]:
    """Return which variants a male has one copy of: those of X outside the pseudo-autosomal regions.

    Raises:
        InputError: the build is unknown, and the builds disagree about a variant.
    """
    if chromosome != X:
        return np.zeros(position.shape, np.bool_)
    by_build = {
        name: ~np.any([(position >= low) & (position <= high) for low, high in regions], axis=0)
        for name, regions in PSEUDO_AUTOSOMAL.items()
    }
    if build in by_build:
        return by_build[build]
    first, second = by_build.values()
    if np.any(first != second):
        at = int(position[np.flatnonzero(first != second)[0]])
        raise InputError(
            f"X:{at} is pseudo-autosomal in one genome build and not in the other; set genome_build: GRCh37 or GRCh38"
        )
    return first


def code_males(
    coding: XCoding,
    chromosome: str,
    position: NDArray[np.int64],
    indptr: NDArray[np.int64],
    sample: NDArray[np.int32],
    dosage: NDArray[Any],
) -> tuple[NDArray[Any], int, int]:
    """Return the dosages of a batch with males coded, how many of their calls were heterozygous, how many hemizygous.

    Heterozygous ones are missing from here on. Against the hemizygous carriers they say whether the sexes are right:
    a male has none, a female of rare variants hardly anything else.
    """
    haploid = find_haploid(chromosome, position, coding.build)
    if not haploid.any():
        return dosage, 0, 0
    of_male = np.repeat(haploid, np.diff(indptr)) & coding.male[sample]
    hemizygous = int(np.count_nonzero(of_male & (dosage == 2)))
    return *recode_males(indptr, sample, dosage, haploid, coding.male, coding.hemizygous), hemizygous


def has_haploid(found: StudyVariants, build: str) -> bool:
    """Return whether the study has variants of X outside the pseudo-autosomal regions."""
    on_x = found.chromosome.astype(str) == X
    return bool(find_haploid(X, found.position[on_x], build).any())


def check_sexes(cohort: Cohort, found: StudyVariants, build: str) -> int:
    """Return how many analysed samples are of unknown sex where it matters; they are taken as diploid.

    Raises:
        InputError: X variants are to be tested and the .fam gives no sample a sex.
    """
    if not has_haploid(found, build):
        return 0
    on_x = found.chromosome.astype(str) == X
    sex = cohort.fileset.sex[cohort.rows]
    known = (sex == MALE) | (sex == FEMALE)
    if not known.any():
        raise InputError(
            f"{cohort.fileset.sample_path}: the sex of every analysed sample is "
            f"unknown, and {int(on_x.sum()):,} variants of chromosome X are listed; write 1 for males and 2 for "
            f"females, or leave the genes of X out"
        )
    return int((~known).sum())


def describe_sexes(study: Mapping[str, Any], n_samples: int) -> list[str]:
    """Return what the log should say of sexes that are unknown, or that calls on chromosome X speak against.

    Args:
        study: ``samples_of_unknown_sex``, ``male_heterozygotes`` and ``male_hemizygotes`` of study.json.
        n_samples: analysed samples.
    """
    unknown, impossible = study.get("samples_of_unknown_sex", 0), study.get("male_heterozygotes", 0)
    out = []
    if unknown:
        out.append(
            f"chromosome X: the sex of {unknown:,} of {n_samples:,} samples is unknown (.fam, column 5); they are "
            "taken as having two copies"
        )
    if impossible:
        carried = impossible + study.get("male_hemizygotes", 0)
        out.append(
            f"chromosome X: {impossible:,} of {carried:,} rarer-allele calls of males outside the pseudo-autosomal "
            "regions are heterozygous and count as missing; where they are many, sexes in the .fam are wrong, or the "
            "genome build"
        )
    return out
