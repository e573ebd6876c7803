"""rvtests files: ``.MetaScore.assoc.gz`` and ``.MetaCov.assoc.gz``.

Scale (Zhan et al. 2016, Bioinformatics 32:1423): U_STAT = U and SQRT_V_STAT = sqrt(V_jj), both ours; COV = V / N with N
the analysed samples. A binary trait's COV is ``covXX:covXZ:covZZ`` and ``V / N = XX - XZ ZZ^-1 XZ'``, where XZ is the
covariance of the first marker of the line with the covariates and ZZ that of the covariates (lower triangle or square).
The covariance line of a marker lists the marker itself and others after it; positions name them, so variants that share
a position are told apart by their order in the score file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy import stats

from pipeline import __version__
from pipeline.errors import FormatError, InputError
from pipeline.io.bundle import Bundle, matrix_column
from pipeline.io.bundle_write import GeneStatistics, TraitStatistics
from pipeline.io.delimited import Block, DelimitedFile, decode_strings, parse_numbers
from pipeline.io.exchange.common import (
    Floats,
    ImportRequest,
    Integers,
    Labels,
    Membership,
    count,
    frequency_from_counts,
    iterate_genes,
    match_genes,
    number,
    read_counts,
    write_text,
)
from pipeline.io.tables import normalise_chromosome, normalise_chromosomes

SCALE_TOLERANCE = 1e-3  # of N COV_jj against SQRT_V_STAT^2: six printed digits, with room to spare


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


RVTESTS = PairLayout(
    program="RVTests",
    score_suffix=".MetaScore.assoc.gz",
    covariance_suffix=".MetaCov.assoc.gz",
    score_columns=(
        "CHROM", "POS", "REF", "ALT", "N_INFORMATIVE", "AF", "INFORMATIVE_ALT_AC", "CALL_RATE", "HWE_PVALUE", "N_REF",
        "N_HET", "N_ALT", "U_STAT", "SQRT_V_STAT", "ALT_EFFSIZE", "PVALUE",
    ),
    covariance_columns=("CHROM", "START_POS", "END_POS", "NUM_MARKER", "MARKER_POS", "COV"),
    frequency="AF",
    separator="",
)  # fmt: skip


def read_rvtests(request: ImportRequest) -> TraitStatistics:
    """Read an rvtests pair; see `read_pair`."""
    return read_pair(request, RVTESTS)


def write_rvtests(bundle: Bundle, trait: str, prefix: Path) -> list[Path]:
    """Write one trait of a bundle as an rvtests pair; return the two files."""
    return write_pair(bundle, trait, prefix, RVTESTS)


def read_pair(request: ImportRequest, layout: PairLayout) -> TraitStatistics:
    """Read score and covariance files; genes come from the set list and are streamed.

    Raises:
        FormatError: columns or numbers that are not what they must be; a variant of a gene without a covariance line;
            COV on another scale than V / N.
    """
    covariance = request.need("covariance", f"the {layout.covariance_suffix} file")
    sets = request.need("sets", "a REGENIE set list that names each gene's variants")
    scores = _read_scores(request.scores, layout)
    notes = [f"{scores.dropped:,} variants without statistics were left out"] if scores.dropped else []
    genes = match_genes(sets, scores.chromosome, scores.position, scores.ref, scores.alt, request.scores.name)
    n_samples = request.n_samples or scores.n_samples
    reader = _CovarianceReader(covariance, scores, genes, n_samples)
    return TraitStatistics(
        request.trait, request.kind, n_samples, request.n_cases, scores.chromosome, scores.position, scores.ref,
        scores.alt, scores.n_obs, scores.n_ref, scores.n_het, scores.n_alt, scores.frequency, scores.U,
        scores.root_v**2, reader.genes(), layout.program, notes,
    )  # fmt: skip


@dataclass(frozen=True)
class _Scores:
    """Columns of a score file, rows without statistics left out."""

    chromosome: Labels
    position: Integers
    ref: Labels
    alt: Labels
    n_obs: Integers
    n_ref: Integers
    n_het: Integers
    n_alt: Integers
    frequency: Floats
    U: Floats
    root_v: Floats
    n_samples: int
    dropped: int


def _read_scores(path: Path, layout: PairLayout) -> _Scores:
    """Read a score file; a variant without U or V (monomorphic in some programs) is dropped and counted."""
    file = DelimitedFile(path)
    for name in ("CHROM", "POS", "REF", "ALT", "N_INFORMATIVE", "U_STAT", "SQRT_V_STAT", "N_REF", "N_HET", "N_ALT"):
        if name not in file.names:
            raise FormatError(f"no column {name}; found {', '.join(file.names)}", path=path, line=file.header_line)
    block = file.table()
    U, root_v = block.numbers("U_STAT"), block.numbers("SQRT_V_STAT")
    kept = np.isfinite(U) & np.isfinite(root_v)
    if not kept.any():
        raise FormatError("no variant has U_STAT and SQRT_V_STAT", path=path)
    informative = np.nan_to_num(block.numbers("N_INFORMATIVE"))
    n_ref, n_het, n_alt = read_counts(block, ("N_REF", "N_HET", "N_ALT"))
    rate = _first_numbers(block, "CALL_RATE") if "CALL_RATE" in file.names else np.ones(len(block))
    given = _first_numbers(block, layout.frequency) if layout.frequency in file.names else np.full(len(block), np.nan)
    n_obs = np.where(n_ref >= 0, n_ref + n_het + n_alt, np.rint(informative * np.nan_to_num(rate, nan=1.0)))
    if np.isnan(given[kept & (n_ref < 0) & (n_obs > 0)]).any():
        raise FormatError(f"a variant has neither genotype counts nor {layout.frequency}", path=path)
    analysed = [line.split("=", 1)[1] for line in file.preamble if line.startswith("##AnalyzedSamples=")]
    n_samples = int(analysed[0]) if analysed and analysed[0].strip().isdigit() else int(informative.max())
    columns = [decode_strings(block.table[c]) for c in ("REF", "ALT")]
    ref, alt = (np.array([x.upper() for x in c.tolist()], object)[kept] for c in columns)
    chromosome = normalise_chromosomes(block.table["CHROM"])[kept]
    frequency = frequency_from_counts(n_ref, n_het, n_alt, given)
    n_obs, n_ref, n_het, n_alt = (x[kept].astype(np.int64) for x in (n_obs, n_ref, n_het, n_alt))
    return _Scores(
        chromosome, block.positions("POS")[kept], ref, alt, n_obs, n_ref, n_het, n_alt, frequency[kept], U[kept],
        root_v[kept], n_samples, int((~kept).sum()),
    )  # fmt: skip


def _first_numbers(block: Block, name: str) -> Floats:
    """Return a column of numbers; of ``all:cases:controls`` the first."""
    import pyarrow.compute as pc

    values, bad = parse_numbers(pc.list_element(pc.split_pattern(block.table[name], ":"), 0))
    for row in bad[:1]:
        message = f"expected a number, got '{block.table[name][int(row)].as_py()}'"
        raise FormatError(message, path=block.path, line=block.line(row), column=name)
    return values


@dataclass
class _OpenGene:
    """A gene whose covariance lines are being collected."""

    member: Membership
    XX: Floats
    XZ: dict[int, Floats] = field(default_factory=dict)
    missing: set[int] = field(default_factory=set)


class _CovarianceReader:
    """Walks the covariance file once and gives each gene as soon as its last line has come."""

    def __init__(self, path: Path, scores: _Scores, genes: list[Membership], n_samples: int) -> None:
        self.path, self.scores, self.n_samples = path, scores, n_samples
        self.member_of: dict[int, list[int]] = {}
        for g, gene in enumerate(genes):
            for v in gene.variant.tolist():
                self.member_of.setdefault(v, []).append(g)
        self.members = genes
        self.open: dict[int, _OpenGene] = {}
        self.ZZ: Floats | None = None
        self.by_chromosome: dict[str, tuple[Integers, Integers]] = {}
        for c in np.unique(scores.chromosome.astype(str)):
            rows = np.flatnonzero(scores.chromosome == c)
            rows = rows[np.argsort(scores.position[rows], kind="stable")]
            self.by_chromosome[str(c)] = (scores.position[rows], rows)
        self.taken: dict[tuple[str, int], int] = {}

    def genes(self) -> Iterator[GeneStatistics]:
        """Give the genes.

        Raises:
            FormatError: see `read_pair`.
        """
        file = DelimitedFile(self.path)
        names = {name: i for i, name in enumerate(file.names)}
        first = names.get("START_POS", names.get("CURRENT_POS"))
        markers = names.get("MARKER_POS", names.get("MARKERS_IN_WINDOW"))
        values = names.get("COV", names.get("COV_MATRICES"))
        if first is None or markers is None or values is None or "CHROM" not in names:
            raise FormatError(
                f"expected the columns CHROM, START_POS (CURRENT_POS), MARKER_POS (MARKERS_IN_WINDOW) and COV "
                f"(COV_MATRICES); found {', '.join(file.names)}", path=self.path, line=file.header_line,
            )  # fmt: skip
        columns = [file.names[i] for i in (names["CHROM"], first, markers, values)]
        for block in file.blocks(columns):
            rows = zip(*(block.table[c].to_pylist() for c in columns), strict=True)
            for row, (chromosome, position, listed, cov) in enumerate(rows):
                yield from self._take_line(normalise_chromosome(chromosome), position, listed, cov, block, row)
        for g, gene in enumerate(self.members):
            if g in self.open or self._untouched(g):
                lacking = sorted(self.open[g].missing if g in self.open else self._needed(gene))
                if lacking:
                    raise FormatError(
                        f"no line for variant {self._name(lacking[0])} of gene '{gene.gene}'; the score and covariance "
                        f"files must come from one run", path=self.path,
                    )  # fmt: skip
                yield self._finish(self.open.pop(g, None) or self._open(g))

    def _untouched(self, g: int) -> bool:
        return g not in self._done

    @property
    def _done(self) -> set[int]:
        if not hasattr(self, "_finished"):
            self._finished: set[int] = set()
        return self._finished
