"""Score and covariance files of rvtests and the RAREMETAL worker, read.

Scale: U_STAT = U and SQRT_V_STAT = sqrt(V_jj), both ours; COV = V / N with N the analysed samples. A binary trait's COV
in rvtests is ``covXX:covXZ:covZZ``; see `pipeline.io.exchange.pair_covariance`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from pipeline.errors import FormatError
from pipeline.io.bundle_write import TraitStatistics
from pipeline.io.delimited import DelimitedFile, decode_strings
from pipeline.io.exchange.common import (
    ImportRequest,
    frequency_from_counts,
    match_genes,
    read_counts,
    read_first_numbers,
)
from pipeline.io.exchange.pair_covariance import CovarianceReader, PairScores
from pipeline.io.tables import normalise_chromosomes


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
    sets = request.need("sets", "a REGENIE set list that names each gene's variants")
    scores = _read_scores(request.scores, layout)
    notes = [f"{scores.n_without:,} variants have no statistics (U = V = 0)"] if scores.n_without else []
    genes = match_genes(sets, scores.chromosome, scores.position, scores.ref, scores.alt, request.scores.name)
    n_samples = request.n_samples or scores.n_samples
    reader = CovarianceReader(covariance, scores, genes, n_samples)
    return TraitStatistics(
        request.trait, request.kind, n_samples, request.n_cases, scores.chromosome, scores.position, scores.ref,
        scores.alt, scores.n_obs, scores.n_ref, scores.n_het, scores.n_alt, scores.frequency, scores.U,
        scores.root_v**2, reader.read(), layout.program, notes,
    )  # fmt: skip


def _read_scores(path: Path, layout: PairLayout) -> PairScores:
    """Read a score file; a variant without U or V (monomorphic in some programs) gets U = V = 0 and is counted."""
    file = DelimitedFile(path)
    for name in ("CHROM", "POS", "REF", "ALT", "N_INFORMATIVE", "U_STAT", "SQRT_V_STAT", "N_REF", "N_HET", "N_ALT"):
        if name not in file.names:
            raise FormatError(f"no column {name}; found {', '.join(file.names)}", path=path, line=file.header_line)
    block = file.table()
    U, root_v = block.numbers("U_STAT"), block.numbers("SQRT_V_STAT")
    known = np.isfinite(U) & np.isfinite(root_v)
    if not known.any():
        raise FormatError("no variant has U_STAT and SQRT_V_STAT", path=path)
    informative = np.nan_to_num(block.numbers("N_INFORMATIVE"))
    n_ref, n_het, n_alt = read_counts(block, ("N_REF", "N_HET", "N_ALT"))
    none = np.full(len(block), np.nan)
    rate = read_first_numbers(block, "CALL_RATE") if "CALL_RATE" in file.names else none
    given = read_first_numbers(block, layout.frequency) if layout.frequency in file.names else none
    called = np.rint(informative * np.nan_to_num(rate, nan=1.0)).astype(np.int64)
    n_obs = np.where(n_ref >= 0, n_ref + n_het + n_alt, called)
    frequency = frequency_from_counts(n_ref, n_het, n_alt, given)
    for row in np.flatnonzero(np.isnan(frequency) & (n_obs > 0))[:1]:
        raise FormatError(f"neither genotype counts nor {layout.frequency}", path=path, line=block.line(row))
    analysed = [line.split("=", 1)[1].strip() for line in file.preamble if line.startswith("##AnalyzedSamples=")]
    n_samples = int(analysed[0]) if analysed and analysed[0].isdigit() else int(informative.max())
    ref, alt = (decode_strings(pc.utf8_upper(block.table[c])) for c in ("REF", "ALT"))
    return PairScores(
        normalise_chromosomes(block.table["CHROM"]), block.positions("POS"), ref, alt, n_obs, n_ref, n_het, n_alt,
        frequency, np.where(known, U, 0.0), np.where(known, root_v, 0.0), n_samples, int((~known).sum()),
    )  # fmt: skip
