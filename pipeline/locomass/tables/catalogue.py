"""Genes, their variants and masks, from whichever files the configuration names, as one columnar catalogue."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from locomass.config import Genes
from locomass.errors import MatchError
from locomass.tables.annotations import Annotations, read_annotations, read_masks
from locomass.tables.gene_sets import GeneSets, read_groups, read_regions, read_sets
from locomass.tables.pathways import read_pathways
from locomass.variants.identity import canonical_alleles, is_unseen
from locomass.variants.keys import Identifiers
from locomass.variants.match import SameCalls, match_variants, orient_alleles, refuse_differing

log = logging.getLogger("locomass")

ALL_VARIANTS = "all"  # the mask of genes without annotations


@dataclass(frozen=True)
class Catalogue:
    """G genes with K listed variants and M masks.

    Attributes:
        sets: genes with offsets into the listed variants; for regions no variant is listed.
        chromosome, position, ref, alt: (K,) the listed variants.
        masks: names of the masks.
        member: (M, K) whether a mask takes a listed variant.
        columns: numeric annotation columns (K,) by name.
        what: file that lists the variants, for messages.
        pathways: genes by pathway.
        category: (K,) category of the annotations; empty where a variant has none.
        identifiers: what the study's fileset calls its variants, for further lists.
    """

    sets: GeneSets
    chromosome: NDArray[np.object_]
    position: NDArray[np.int64]
    ref: NDArray[np.object_]
    alt: NDArray[np.object_]
    masks: tuple[str, ...]
    member: NDArray[np.bool_]
    what: str
    columns: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    pathways: dict[str, tuple[str, ...]] = field(default_factory=dict)
    category: NDArray[np.object_] = field(default_factory=lambda: np.empty(0, object))
    identifiers: Identifiers | None = None

    @property
    def is_regions(self) -> bool:
        """Whether genes are regions: every variant inside belongs."""
        return self.sets.variants is None


def open_catalogue(genes: Genes, folder: Path, identifiers: Identifiers | None = None) -> Catalogue:
    """Read genes, annotations and masks.

    Args:
        genes: the configuration's section.
        folder: what its paths are relative to.
        identifiers: what the study's fileset calls its variants; bundles have no identifiers.

    Raises:
        FormatError: see the readers.
        MatchError: no annotation belongs to any listed variant.
    """
    annotations: Annotations | None = None
    if genes.regions:
        sets = read_regions(folder / genes.regions)
    elif genes.groups:
        sets, annotations = read_groups(folder / genes.groups, identifiers)
    else:
        assert genes.sets is not None
        sets = read_sets(folder / genes.sets, identifiers)
    if genes.annotations:
        annotations = read_annotations(folder / genes.annotations, identifiers=identifiers)
    keys = sets.variants if sets.variants is not None else np.empty(0, object)
    parts = [k.split(":") for k in keys.tolist()]
    ref, alt = (np.array([p[i] for p in parts], object) for i in (2, 3))
    chromosome = np.array([p[0] for p in parts], object)
    position = np.array([int(p[1]) for p in parts], np.int64)
    masks: tuple[str, ...] = (ALL_VARIANTS,)
    member, columns = np.ones((1, len(keys)), np.bool_), {}
    category = np.full(len(keys), "", object)
    if annotations is not None:
        rows = annotations.find_rows(sets)
        if not np.any(rows >= 0):
            raise MatchError(
                f"{annotations.path}: no annotation belongs to a variant of {sets.path} "
                f"(annotations have {annotations.genes[annotations.gene_code[0]]} {annotations.variant[0]}, sets have "
                f"{sets.gene[0]} {keys[0]}); gene names and variant names must agree"
            )
        if genes.masks:
            definition = read_masks(folder / genes.masks, annotations.categories)
            masks, member = definition.names, definition.select(annotations, rows)
        elif len(annotations.categories) > 1 or genes.groups:
            masks = annotations.categories
            member = np.array([annotations.category[np.maximum(rows, 0)] == k for k in range(len(masks))]) & (rows >= 0)
        category = np.array([*annotations.categories, ""], object)[np.where(rows >= 0, annotations.category[rows], -1)]
        columns = {name: np.where(rows >= 0, v[np.maximum(rows, 0)], np.nan) for name, v in annotations.weights.items()}
    pathways = read_pathways(folder / genes.pathways) if genes.pathways else {}
    return Catalogue(
        sets=sets,
        chromosome=chromosome,
        position=position,
        ref=ref,
        alt=alt,
        masks=masks,
        member=member,
        what=sets.path.name,
        columns=columns,
        pathways=pathways,
        category=category,
        identifiers=identifiers,
    )


@dataclass(frozen=True)
class StudyVariants:
    """The catalogue's variants in one fileset.

    Attributes:
        row: (v,) variant number in the fileset, increasing.
        chromosome, position, ref, alt: (v,) labels; ALT is the allele that the catalogue names so.
        a1_is_alt: (v,) True where the .bim's A1 is ALT.
        offsets: (G + 1,) and members: variants of gene i are ``members[offsets[i]:offsets[i + 1]]``, positions in the
            arrays above.
        absent: (G,) listed variants that the fileset lacks.
    """

    row: NDArray[np.int64]
    chromosome: NDArray[np.object_]
    position: NDArray[np.int64]
    ref: NDArray[np.object_]
    alt: NDArray[np.object_]
    a1_is_alt: NDArray[np.bool_]
    offsets: NDArray[np.int64]
    members: NDArray[np.int64]
    absent: NDArray[np.int64]


def locate_variants(catalogue: Catalogue, bim: pd.DataFrame, same_calls: SameCalls | None = None) -> StudyVariants:
    """Find the catalogue's variants in a fileset.

    Args:
        catalogue: genes and their variants.
        bim: the variants of the fileset.
        same_calls: tells whether two rows of the fileset hold the same calls.

    Raises:
        MatchError: none is found, with the likely reason; or a variant has two rows with different calls.
    """
    if catalogue.is_regions:
        return _locate_regions(catalogue, bim, same_calls)
    c = catalogue
    match = match_variants(c.chromosome, c.position, c.ref, c.alt, bim, c.what, same_calls=same_calls)
    for note in match.notes:
        log.warning(note)
    found = np.flatnonzero(match.row >= 0)
    row, first, inverse = np.unique(match.row[found], return_index=True, return_inverse=True)
    gene_of = np.repeat(np.arange(len(c.sets)), np.diff(c.sets.offsets))
    at = found[first]
    flipped = c.alt[found] != c.alt[at][inverse]
    if flipped.any():
        k = found[np.flatnonzero(flipped)[0]]
        raise MatchError(
            f"{c.what}: variant {c.chromosome[k]}:{c.position[k]} is listed as {c.ref[k]}:{c.alt[k]} in gene "
            f"'{c.sets.gene[gene_of[k]]}' and with the alleles swapped in another; use one order"
        )
    counts = np.bincount(gene_of[found], minlength=len(c.sets))
    offsets = np.concatenate(([0], np.cumsum(counts)))
    absent = np.diff(c.sets.offsets) - counts
    return StudyVariants(
        row=row,
        chromosome=c.chromosome[at],
        position=c.position[at],
        ref=c.ref[at],
        alt=c.alt[at],
        a1_is_alt=match.a1_is_alt[at],
        offsets=offsets,
        members=inverse.reshape(-1),
        absent=absent,
    )


def _locate_regions(catalogue: Catalogue, bim: pd.DataFrame, same_calls: SameCalls | None) -> StudyVariants:
    """Find every variant inside each region, once; ALT is what the variant's name says, else A1."""
    sets = catalogue.sets
    label = bim["chromosome"].astype(str).to_numpy(object)
    picks = _rows_in_regions(sets, label, bim["position"].to_numpy(np.int64))
    members = np.concatenate(picks) if picks else np.empty(0, np.int64)
    if not len(members):
        raise MatchError(
            f"no variant of the .bim lies in a region of {catalogue.what}; the .bim has chromosomes "
            f"{', '.join(sorted(set(label)))}, the regions {', '.join(sorted(set(sets.chromosome)))}"
        )
    rows = np.unique(members)
    table = bim.iloc[rows]
    ref, alt, a1_is_alt, _ = orient_alleles(table)
    keys = pd.MultiIndex.from_arrays([label[rows], table["position"], *canonical_alleles(ref, alt)])
    twice = keys.duplicated(keep=False) & ~is_unseen(alt)
    refuse_differing(bim, rows[twice], keys[twice], same_calls)
    keep = ~keys.duplicated() | is_unseen(alt)
    picks = [pick[np.isin(pick, rows[keep])] for pick in picks] if not keep.all() else picks
    rows, ref, alt, a1_is_alt = rows[keep], ref[keep], alt[keep], a1_is_alt[keep]
    offsets = np.concatenate(([0], np.cumsum([len(p) for p in picks])))
    position = bim["position"].to_numpy(np.int64)[rows]
    inverse = np.searchsorted(rows, np.concatenate(picks))
    absent = np.zeros(len(sets), np.int64)
    return StudyVariants(
        row=rows,
        chromosome=label[rows],
        position=position,
        ref=ref,
        alt=alt,
        a1_is_alt=a1_is_alt,
        offsets=offsets,
        members=inverse,
        absent=absent,
    )


def _rows_in_regions(
    sets: GeneSets, label: NDArray[np.object_], position: NDArray[np.int64]
) -> list[NDArray[np.int64]]:
    """Return, per region, the rows of the .bim inside it, by position."""
    order = {}
    for chromosome in set(sets.chromosome):
        rows = np.flatnonzero(label == chromosome)
        order[chromosome] = rows[np.argsort(position[rows], kind="stable")]
    picks = []
    for gene in sets:
        rows = order[gene.chromosome]
        low, high = np.searchsorted(position[rows], (gene.start, gene.end + 1))
        picks.append(rows[low:high])
    return picks
