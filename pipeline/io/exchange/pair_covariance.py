"""Covariance files of rvtests and the RAREMETAL worker, read line by line into the matrices of genes.

The line of a marker lists the marker itself and others after it, by position; variants that share a position are told
apart by their order in the score file. Entries are V / N. For a binary trait rvtests writes ``covXX:covXZ:covZZ``, XZ
being the covariance of the line's marker with the covariates and ZZ that of the covariates (lower triangle or square):
``V / N = XX - XZ ZZ^-1 XZ'``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pipeline.errors import FormatError
from pipeline.io.bundle_write import GeneStatistics
from pipeline.io.delimited import DelimitedFile
from pipeline.io.exchange.common import Floats, Integers, Labels, Membership
from pipeline.io.tables import normalise_chromosome

SCALE_TOLERANCE = 1e-3  # of N COV_jj against SQRT_V_STAT^2: six printed digits, with room to spare


@dataclass(frozen=True)
class PairScores:
    """Columns of a score file; ``n_without`` variants have no statistics there and U = V = 0 here."""

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
    n_without: int


@dataclass(frozen=True)
class _Line:
    """One line: the marker, those it is paired with (itself first) and the entries."""

    marker: int
    paired: Integers
    XX: Floats
    XZ: Floats | None
    number: int


@dataclass
class _OpenGene:
    """A gene whose lines are being collected."""

    XX: Floats
    XZ: dict[int, Floats] = field(default_factory=dict)


class CovarianceReader:
    """Walks a covariance file once and gives each gene as soon as its last line has come.

    Args:
        path: the file.
        scores: the study's variants, in the order of the score file.
        genes: members as rows of the scores.
        n_samples: N of COV = V / N.
    """

    def __init__(self, path: Path, scores: PairScores, genes: list[Membership], n_samples: int) -> None:
        self.path, self.scores, self.genes, self.n_samples = path, scores, genes, n_samples
        varies = scores.root_v > 0
        self.waiting = [{v for v in gene.variant.tolist() if varies[v]} for gene in genes]
        self.genes_of: dict[int, list[int]] = {}
        for g, gene in enumerate(genes):
            for v in gene.variant.tolist():
                self.genes_of.setdefault(v, []).append(g)
        self.open: dict[int, _OpenGene] = {}
        self.ZZ: Floats | None = None
        self.places: dict[str, tuple[Integers, Integers]] = {}
        for chromosome in set(scores.chromosome):
            rows = np.flatnonzero(scores.chromosome == chromosome)
            rows = rows[np.argsort(scores.position[rows], kind="stable")]
            self.places[chromosome] = (scores.position[rows], rows)
        self.taken: dict[tuple[str, int], int] = {}

    def read(self) -> Iterator[GeneStatistics]:
        """Give the genes.

        Raises:
            FormatError: malformed lines, a variant without its line or with two, another scale than V / N.
        """
        for line in self._lines():
            for g in self.genes_of.get(line.marker, ()):
                self._add(g, line)
                if self.waiting[g] == {line.marker}:
                    yield self._finish(g)
                self.waiting[g].discard(line.marker)
        for g, gene in enumerate(self.genes):
            if self.waiting[g]:
                raise FormatError(
                    f"no line for variant {self._name(min(self.waiting[g]))} of gene '{gene.gene}'; the score and the "
                    f"covariance file must come from one run",
                    path=self.path,
                )
            if not np.any(self.scores.root_v[gene.variant] > 0):
                m = len(gene.variant)
                yield GeneStatistics(gene.gene, gene.chromosome, gene.start, gene.end, gene.variant, np.zeros((m, m)))

    def _lines(self) -> Iterator[_Line]:
        """Parse the lines of markers that belong to a gene."""
        file = DelimitedFile(self.path)
        choices = (
            ("CHROM",),
            ("START_POS", "CURRENT_POS"),
            ("MARKER_POS", "MARKERS_IN_WINDOW"),
            ("COV", "COV_MATRICES"),
        )
        names = [next((name for name in choice if name in file.names), "") for choice in choices]
        if not all(names):
            raise FormatError(
                f"expected the columns CHROM, START_POS (CURRENT_POS), MARKER_POS (MARKERS_IN_WINDOW) and COV "
                f"(COV_MATRICES); found {', '.join(file.names)}",
                path=self.path,
                line=file.header_line,
            )
        for block in file.blocks(names):
            rows = zip(*(block.table[name].to_pylist() for name in names), strict=True)
            for number, (chromosome, first, markers, values) in zip(block.lines().tolist(), rows, strict=True):
                line = self._parse(normalise_chromosome(chromosome), first, markers, values, number)
                if line is not None:
                    yield line

    def _parse(self, chromosome: str, first: str, markers: str, values: str, number: int) -> _Line | None:
        """Return one line; None when its marker is in no gene (or has no statistics)."""
        if not first.isdigit():
            raise FormatError(f"expected a position, got '{first}'", path=self.path, line=number)
        marker = self._next_at(chromosome, int(first))
        if marker is None or marker not in self.genes_of or self.scores.root_v[marker] == 0:
            return None
        parts = values.split(":")
        position, XX = self._numbers(markers, number).astype(np.int64), self._numbers(parts[0], number)
        if len(position) != len(XX):
            message = f"{len(position)} positions but {len(XX)} covariances"
            raise FormatError(message, path=self.path, line=number)
        if not len(position) or position[0] != int(first):
            raise FormatError(f"the list of markers must begin with {first} itself", path=self.path, line=number)
        paired = self._resolve(chromosome, position, marker, number)
        known = paired >= 0
        XZ = None
        if len(parts) == 3:
            XZ = self._numbers(parts[1], number)
            self._take_ZZ(self._numbers(parts[2], number), len(XZ), number)
        elif len(parts) != 1:
            message = f"expected COV as one list, or covXX:covXZ:covZZ; found {len(parts)} lists"
            raise FormatError(message, path=self.path, line=number)
        return _Line(marker, paired[known], XX[known], XZ, number)

    def _numbers(self, text: str, line: int) -> Floats:
        """Return a list ``1,2,3`` (a comma may follow the last) as numbers."""
        try:
            values = np.array(text.rstrip(",").split(","), np.float64) if text.strip(",") else np.empty(0)
        except ValueError:
            raise FormatError(
                f"expected numbers joined by commas, got '{text[:40]}'", path=self.path, line=line
            ) from None
        if not np.isfinite(values).all():
            raise FormatError("a covariance is not a finite number", path=self.path, line=line)
        return values

    def _take_ZZ(self, values: Floats, p: int, line: int) -> None:
        """Keep the covariance of the p covariates, from its lower triangle or the square."""
        if self.ZZ is not None:
            return
        if len(values) == p * p:
            self.ZZ = values.reshape(p, p)
        elif len(values) == p * (p + 1) // 2:
            ZZ = np.zeros((p, p))
            ZZ[np.tril_indices(p)] = values
            self.ZZ = ZZ + np.tril(ZZ, -1).T
        else:
            message = f"covZZ has {len(values)} entries for {p} covariates; expected {p * p} or {p * (p + 1) // 2}"
            raise FormatError(message, path=self.path, line=line)

    def _next_at(self, chromosome: str, position: int) -> int | None:
        """Return the variant whose line this is: the n-th line at a position belongs to the n-th variant there."""
        if chromosome not in self.places:
            return None
        positions, rows = self.places[chromosome]
        low, high = np.searchsorted(positions, (position, position + 1))
        at = int(low) + self.taken.get((chromosome, position), 0)
        if high - low > 1:
            self.taken[chromosome, position] = at + 1 - int(low)
        return int(rows[at]) if at < high else None

    def _resolve(self, chromosome: str, position: Integers, marker: int, line: int) -> Integers:
        """Return the variants that a list of positions names, -1 where the score file has no statistics there."""
        positions, rows = self.places[chromosome]
        low, high = np.searchsorted(positions, position), np.searchsorted(positions, position, side="right")
        found = np.where(high > low, rows[np.minimum(low, len(rows) - 1)], -1)
        for p in np.unique(position[high - low > 1]):
            here = np.flatnonzero(position == p)
            group = rows[np.searchsorted(positions, p) : np.searchsorted(positions, p, side="right")]
            if p == self.scores.position[marker]:
                group = group[int(np.flatnonzero(group == marker)[0]) :]
            if len(here) != len(group):
                raise FormatError(
                    f"position {p} is listed {len(here)} times, but the score file has {len(group)} variants there",
                    path=self.path,
                    line=line,
                )
            found[here] = group
        return found

    def _add(self, g: int, line: _Line) -> None:
        """Put a line into the matrix of a gene."""
        variant = self.genes[g].variant
        if line.marker not in self.waiting[g]:
            message = f"a second line for variant {self._name(line.marker)}"
            raise FormatError(message, path=self.path, line=line.number)
        gene = self.open.setdefault(g, _OpenGene(np.zeros((len(variant), len(variant)))))
        at = np.minimum(np.searchsorted(variant, line.paired), len(variant) - 1)
        inside = variant[at] == line.paired
        i = int(np.searchsorted(variant, line.marker))
        gene.XX[i, at[inside]] = gene.XX[at[inside], i] = line.XX[inside]
        if line.XZ is not None:
            gene.XZ[i] = line.XZ

    def _finish(self, g: int) -> GeneStatistics:
        """Return V of a gene, its scale checked against SQRT_V_STAT."""
        member, gene = self.genes[g], self.open.pop(g)
        K = gene.XX
        if gene.XZ:
            assert self.ZZ is not None
            XZ = np.zeros((len(member.variant), len(self.ZZ)))
            for i, row in gene.XZ.items():
                XZ[i] = row
            K = K - XZ @ np.linalg.pinv(self.ZZ) @ XZ.T
        expected = self.scores.root_v[member.variant] ** 2
        varies = expected > 0
        V = np.where(np.outer(varies, varies), K * self.n_samples, 0.0)
        ratio = np.diag(V)[varies] / expected[varies]
        worst = int(np.argmax(np.abs(ratio - 1)))
        if abs(ratio[worst] - 1) > SCALE_TOLERANCE:
            raise FormatError(
                f"scale: N x COV is {ratio[worst]:.6g} times SQRT_V_STAT^2 for variant "
                f"{self._name(int(member.variant[varies][worst]))} (median {np.median(ratio):.6g}), expected 1; COV "
                f"must be V / N, N = {self.n_samples:,} (give --n if other samples were analysed), on the scale of U",
                path=self.path,
            )
        return GeneStatistics(member.gene, member.chromosome, member.start, member.end, member.variant, V)

    def _name(self, v: int) -> str:
        s = self.scores
        return f"{s.chromosome[v]}:{s.position[v]}:{s.ref[v]}:{s.alt[v]}"
