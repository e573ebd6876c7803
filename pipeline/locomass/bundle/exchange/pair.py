"""Score and covariance files of rvtests and the RAREMETAL worker, read.

Scale: U_STAT = U and SQRT_V_STAT = sqrt(V_jj), both ours; COV = V / N with N the analysed samples. A binary trait's COV
in rvtests is ``covXX:covXZ:covZZ``; see `locomass.bundle.exchange.pair_covariance`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from locomass.bundle.exchange.common import (
    ImportRequest,
    Integers,
    Labels,
    frequency_from_counts,
    listed_variants,
    match_genes,
    printed_digits,
    read_counts,
    read_first_numbers,
    read_gene_list,
)
from locomass.bundle.exchange.pair_covariance import CovarianceReader, PairScores
from locomass.bundle.exchange.unseen import NamedSites, name_unseen_alleles
from locomass.bundle.write import TraitStatistics
from locomass.errors import FormatError
from locomass.files.arrow import decode_strings
from locomass.numbers import Floats
from locomass.tables.delimited import Block, DelimitedFile
from locomass.variants.chromosomes import normalise_chromosomes


@dataclass(frozen=True)
class PairLayout:
    """How a program names the columns of its two files.

    Attributes:
        program: name in the preamble.
        score_suffix, covariance_suffix: what the exporter appends to its prefix.
        score_columns, covariance_columns: headers that the exporter writes.
        frequency: column of the ALT frequency.
        separator: what the exporter writes after the last entry of a list.
    """

    program: str
    score_suffix: str
    covariance_suffix: str
    score_columns: tuple[str, ...]
    covariance_columns: tuple[str, ...]
    frequency: str
    separator: str


def read_pair(request: ImportRequest, layout: PairLayout) -> TraitStatistics:
    """Read score and covariance files; genes come from the set list and are streamed.

    Raises:
        FormatError: columns or numbers that are not what they must be; a variant of a gene without a covariance line;
            COV on another scale than V / N.
    """
    covariance = request.need("covariance", f"the {layout.covariance_suffix} file")
    sets = read_gene_list(request.need("sets", "a REGENIE set list that names each gene's variants"))
    scores, notes = _read_scores(request.scores, layout, listed_variants(sets))
    labels = scores.chromosome, scores.position, scores.ref, scores.alt
    genes, matched = match_genes(sets, labels, request.scores.name)
    n_samples = request.n_samples or scores.n_samples
    reader = CovarianceReader(covariance, scores, genes, n_samples)
    notes += matched
    return TraitStatistics(
        request.trait,
        request.kind,
        n_samples,
        request.n_cases,
        *labels,
        scores.n_obs,
        scores.n_ref,
        scores.n_het,
        scores.n_alt,
        scores.frequency,
        scores.U,
        scores.root_v**2,
        reader.read(notes),
        layout.program,
        notes,
    )


def _read_scores(
    path: Path, layout: PairLayout, listed: tuple[Labels, Integers, Labels, Labels]
) -> tuple[PairScores, list[str]]:
    """Read a score file; a variant without U or V (monomorphic in some programs) gets U = V = 0 and is counted."""
    file = DelimitedFile(path, remark="#")
    for name in ("CHROM", "POS", "REF", "ALT", "N_INFORMATIVE", "U_STAT", "SQRT_V_STAT", "N_REF", "N_HET", "N_ALT"):
        if name not in file.names:
            raise FormatError(f"no column {name}; found {', '.join(file.names)}", path=path, line=file.header_line)
    block = file.table()
    U, root_v = block.numbers("U_STAT"), block.numbers("SQRT_V_STAT")
    known = np.isfinite(U) & np.isfinite(root_v)
    if not known.any():
        raise FormatError("no variant has U_STAT and SQRT_V_STAT", path=path, column="U_STAT")
    for row in np.flatnonzero(known & (root_v < 0))[:1]:
        message = f"expected a standard deviation, got {root_v[row]:g}"
        raise FormatError(message, path=path, line=block.line(row), column="SQRT_V_STAT")
    analysed = [line.split("=", 1)[1].strip() for line in file.preamble if line.startswith("##AnalyzedSamples=")]
    informative = np.nan_to_num(block.numbers("N_INFORMATIVE"))
    n_samples = int(analysed[0]) if analysed and analysed[0].isdigit() else int(informative.max())
    ref, alt = (decode_strings(pc.utf8_upper(block.table[c])) for c in ("REF", "ALT"))
    chromosome, position = normalise_chromosomes(block.table["CHROM"]), block.positions("POS")
    sites = name_unseen_alleles(chromosome, position, ref, alt, listed)
    n_obs, n_ref, n_het, n_alt, frequency = _count_genotypes(block, layout, sites)
    at = sites.row
    scores = PairScores(
        chromosome=chromosome[at],
        position=position[at],
        ref=sites.ref,
        alt=sites.alt,
        n_obs=n_obs,
        n_ref=n_ref,
        n_het=n_het,
        n_alt=n_alt,
        frequency=frequency,
        U=np.where(known, U, 0.0)[at],
        root_v=np.where(known, root_v, 0.0)[at],
        n_samples=n_samples,
        n_without=int((~known[at]).sum()),
        digits=printed_digits(block.table["SQRT_V_STAT"].to_pylist()),
    )
    return scores, _describe_scores(scores, sites, path)


def _count_genotypes(
    block: Block, layout: PairLayout, sites: NamedSites
) -> tuple[Integers, Integers, Integers, Integers, Floats]:
    """Return n_obs, n_ref, n_het, n_alt and the ALT frequency of each variant.

    Raises:
        FormatError: a variant with calls has neither counts nor a frequency.
    """
    names = block.table.column_names
    informative = np.nan_to_num(block.numbers("N_INFORMATIVE"))
    counts = read_counts(block, ("N_REF", "N_HET", "N_ALT"))
    none = np.full(len(block), np.nan)
    rate = read_first_numbers(block, "CALL_RATE") if "CALL_RATE" in names else none
    given = read_first_numbers(block, layout.frequency) if layout.frequency in names else none
    called = np.rint(informative * np.nan_to_num(rate, nan=1.0)).astype(np.int64)
    n_ref, n_het, n_alt = (c[sites.row] for c in counts)
    n_obs = np.where(n_ref >= 0, n_ref + n_het + n_alt, called[sites.row])
    one = sites.everyone
    n_ref, n_alt = (np.where(one == k, n_obs, np.where(one > 0, 0, n)) for k, n in ((1, n_ref), (2, n_alt)))
    n_het = np.where(one > 0, 0, n_het)
    frequency = frequency_from_counts(n_ref, n_het, n_alt, given[sites.row])
    for k in np.flatnonzero(np.isnan(frequency) & (n_obs > 0))[:1]:
        line = block.line(int(sites.row[k]))
        raise FormatError(f"neither genotype counts nor {layout.frequency}", path=block.path, line=line)
    return n_obs, n_ref, n_het, n_alt, frequency


def _describe_scores(scores: PairScores, sites: NamedSites, path: Path) -> list[str]:
    """Return what an import says about a score file."""
    v, named = len(scores.position), int((sites.everyone > 0).sum())
    notes = [f"{path.name}: {v:,} variants, {scores.n_samples:,} samples, {scores.digits} digits"]
    if scores.n_without:
        notes.append(f"without statistics (U = V = 0), as in nobody or everybody: {scores.n_without:,} variants")
    if named:
        notes.append(f"of one named allele, carried by everybody: {named:,} variants of the sets")
    if sites.n_unlisted:
        notes.append(f"left out: {sites.n_unlisted:,} sites of one named allele (ALT missing) that are in no set")
    return notes
