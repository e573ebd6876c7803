"""Covariance files of rvtests and the RAREMETAL worker, read line by line into the matrices of genes.

The line of a marker lists the marker itself and others after it, by position (`Sites` says which variants those are).
Entries are V / N. For a binary trait rvtests writes ``covXX:covXZ:covZZ``, XZ being the covariance of the line's marker
with the covariates and ZZ that of the covariates (lower triangle or square): ``V / N = XX - XZ ZZ^-1 XZ'``.

Both files are printed with a few digits (six, as a rule). SQRT_V_STAT^2 is the variance; the covariance file gives the
correlations: ``V_ij = s_i s_j N COV_ij``, ``s_i = SQRT_V_STAT_i / sqrt(N COV_ii)``, so that rounding leaves V a
covariance matrix and the two files of one bundle agree exactly.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from locomass.bundle.exchange.common import Integers, Labels, Membership
from locomass.bundle.exchange.pair_sites import Site, Sites
from locomass.bundle.write import GeneStatistics
from locomass.errors import FormatError
from locomass.numbers import Floats
from locomass.tables.delimited import DelimitedFile
from locomass.variants.chromosomes import normalise_chromosome

SCALE_TOLERANCE = 1e-3  # of N COV_jj against SQRT_V_STAT^2, with five digits or more; else 20 units of the last digit
ROUNDINGS = 2.0  # V_jj of the two files differ by 1.5 units of the last printed digit by rounding alone
LEAST_DIFFERENCE = 1e-5  # relative; below it nobody needs to know
COLUMNS = (("CHROM",), ("START_POS", "CURRENT_POS"), ("MARKER_POS", "MARKERS_IN_WINDOW"), ("COV", "COV_MATRICES"))


@dataclass(frozen=True)
class PairScores:
    """Columns of a score file; ``n_without`` variants have no statistics there and U = V = 0 here.

    ``digits``: significant digits that SQRT_V_STAT is printed with.
    """

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
    digits: int

    @property
    def last_digit(self) -> float:
        """Relative size of one unit of the last printed digit, at worst."""
        return float(10.0 ** (1 - self.digits))

    def name(self, v: int) -> str:
        """Return chrom:pos:ref:alt of a variant."""
        return f"{self.chromosome[v]}:{self.position[v]}:{self.ref[v]}:{self.alt[v]}"


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
    """Walks a covariance file and gives each gene as soon as its last line has come.

    Args:
        path: the file.
        scores: the study's variants, in the order of the score file.
        genes: members as rows of the scores.
        n_samples: N of COV = V / N.

    Attributes:
        worst: largest relative difference of V_jj between the two files, over the genes given so far.
    """

    def __init__(self, path: Path, scores: PairScores, genes: list[Membership], n_samples: int) -> None:
        self.path, self.scores, self.genes, self.n_samples = path, scores, genes, n_samples
        self.tolerance = max(SCALE_TOLERANCE, 20 * scores.last_digit)
        self.worst = 0.0
        varies = scores.root_v > 0
        self.waiting = [{v for v in gene.variant.tolist() if varies[v]} for gene in genes]
        self.genes_of: dict[int, list[int]] = {}
        for g, gene in enumerate(genes):
            for v in gene.variant.tolist():
                self.genes_of.setdefault(v, []).append(g)
        self.open: dict[int, _OpenGene] = {}
        self.ZZ: Floats | None = None
        self.sites = Sites(path, scores.chromosome, scores.position, scores.root_v**2, self.tolerance)

    def read(self, notes: list[str] | None = None) -> Iterator[GeneStatistics]:
        """Give the genes; say in ``notes`` when V_jj of the two files differ by more than rounding.

        Raises:
            FormatError: malformed lines, a variant without its line or with two, another scale than V / N.
        """
        if self.genes:
            self._pair_shared_sites()
        for line in self._lines() if self.genes else ():
            for g in self.genes_of.get(line.marker, ()):
                self._add(g, line)
                if self.waiting[g] == {line.marker}:
                    yield self._finish(g)
                self.waiting[g].discard(line.marker)
        for g, gene in enumerate(self.genes):
            if self.waiting[g]:
                raise FormatError(
                    f"no line for variant {self.scores.name(min(self.waiting[g]))} of gene '{gene.gene}'; the score "
                    f"and the covariance file must come from one run",
                    path=self.path,
                )
            if not np.any(self.scores.root_v[gene.variant] > 0):
                m = len(gene.variant)
                yield GeneStatistics(gene.gene, gene.chromosome, gene.start, gene.end, gene.variant, np.zeros((m, m)))
        if notes is not None and self.worst > max(ROUNDINGS * self.scores.last_digit, LEAST_DIFFERENCE):
            notes.append(
                f"V_jj of the two files differ by up to {self.worst:.1e}, more than {self.scores.digits} printed "
                f"digits explain; SQRT_V_STAT^2 is taken"
            )

    def _pair_shared_sites(self) -> None:
        """Find out which line is whose where positions are shared: one walk, two where there are such positions."""
        counts: dict[Site, int] = {}
        for site, _, _, _ in self._rows(COLUMNS[:2]):
            counts[site] = counts.get(site, 0) + 1
        shared = self.sites.shared(counts.items())
        found: dict[Site, list[tuple[float, int]]] = {}
        for site, _, values, number in self._rows(COLUMNS) if shared else ():
            if site in shared:
                found.setdefault(site, []).append((self._variance(values, number), number))
        for site, lines in found.items():
            self.sites.pair_lines(site, np.array([v for v, _ in lines]) * self.n_samples, [n for _, n in lines])

    def _rows(self, wanted: tuple[tuple[str, ...], ...]) -> Iterator[tuple[Site, str, str, int]]:
        """Give site, list of markers, entries and line number of each row; "" where a column is not wanted."""
        file = DelimitedFile(self.path, remark="#")
        names = [next((name for name in choice if name in file.names), "") for choice in COLUMNS]
        if not all(names):
            raise FormatError(
                f"expected the columns CHROM, START_POS (CURRENT_POS), MARKER_POS (MARKERS_IN_WINDOW) and COV "
                f"(COV_MATRICES); found {', '.join(file.names)}",
                path=self.path,
                line=file.header_line,
            )
        used = names[: len(wanted)]
        labels: dict[str, str] = {}
        for block in file.blocks(used):
            columns = [block.table[name].to_pylist() for name in used]
            columns += [[""] * len(block)] * (4 - len(used))
            for number, chromosome, first, markers, values in zip(block.lines().tolist(), *columns, strict=True):
                if not first.isdigit():
                    message = f"expected a position, got '{first}'"
                    raise FormatError(message, path=self.path, line=number, column=names[1])
                label = labels.setdefault(chromosome, normalise_chromosome(chromosome))
                yield (label, int(first)), markers, values, number

    def _lines(self) -> Iterator[_Line]:
        """Parse the lines of markers that belong to a gene."""
        for site, markers, values, number in self._rows(COLUMNS):
            marker = self.sites.next_line(site)
            if marker in self.genes_of and self.scores.root_v[marker] > 0:
                yield self._parse(site, marker, markers, values, number)

    def _parse(self, site: Site, marker: int, markers: str, values: str, number: int) -> _Line:
        """Return the line of a marker."""
        position = self._numbers(markers, number).astype(np.int64)
        XX, XZ = self._entries(values, number)
        if len(position) != len(XX):
            message = f"{len(position)} positions but {len(XX)} covariances"
            raise FormatError(message, path=self.path, line=number)
        if not len(position) or position[0] != site[1]:
            raise FormatError(f"the list of markers must begin with {site[1]} itself", path=self.path, line=number)
        paired = self.sites.resolve(site[0], position, number)
        known = paired >= 0
        return _Line(marker, paired[known], XX[known], XZ, number)

    def _entries(self, values: str, number: int) -> tuple[Floats, Floats | None]:
        """Return XX and, of a binary trait, XZ of a line; keep its ZZ."""
        parts = values.split(":")
        XX = self._numbers(parts[0], number)
        if len(parts) == 1:
            return XX, None
        if len(parts) != 3:
            message = f"expected COV as one list, or covXX:covXZ:covZZ; found {len(parts)} lists"
            raise FormatError(message, path=self.path, line=number)
        XZ = self._numbers(parts[1], number)
        self._take_ZZ(self._numbers(parts[2], number), len(XZ), number)
        return XX, XZ

    def _variance(self, values: str, number: int) -> float:
        """Return COV_jj of a line, covariates projected out."""
        XX, XZ = self._entries(values, number)
        if not len(XX):
            raise FormatError("the list of covariances is empty", path=self.path, line=number)
        if XZ is None:
            return float(XX[0])
        assert self.ZZ is not None
        return float(XX[0] - XZ @ np.linalg.pinv(self.ZZ) @ XZ)

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

    def _add(self, g: int, line: _Line) -> None:
        """Put a line into the matrix of a gene."""
        variant = self.genes[g].variant
        if line.marker not in self.waiting[g]:
            message = f"a second line for variant {self.scores.name(line.marker)}"
            raise FormatError(message, path=self.path, line=line.number)
        gene = self.open.setdefault(g, _OpenGene(np.zeros((len(variant), len(variant)))))
        at = np.minimum(np.searchsorted(variant, line.paired), len(variant) - 1)
        inside = variant[at] == line.paired
        i = int(np.searchsorted(variant, line.marker))
        gene.XX[i, at[inside]] = gene.XX[at[inside], i] = line.XX[inside]
        if line.XZ is not None:
            gene.XZ[i] = line.XZ

    def _finish(self, g: int) -> GeneStatistics:
        """Return V of a gene: correlations of the covariance file, variances of the score file."""
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
        diagonal = np.where(varies, np.diag(K) * self.n_samples, 1.0)
        self._check_scale(member, np.where(varies, diagonal / np.where(varies, expected, 1.0), 1.0))
        s = np.sqrt(np.where(varies, expected, 0.0) / np.where(diagonal > 0, diagonal, 1.0))
        V = K * self.n_samples * np.outer(s, s)
        np.fill_diagonal(V, expected)
        return GeneStatistics(member.gene, member.chromosome, member.start, member.end, member.variant, V)

    def _check_scale(self, member: Membership, ratio: Floats) -> None:
        """Raise where N COV_jj is not SQRT_V_STAT^2."""
        worst = int(np.argmax(np.abs(ratio - 1)))
        self.worst = max(self.worst, abs(float(ratio[worst]) - 1))
        if abs(ratio[worst] - 1) > self.tolerance:
            raise FormatError(
                f"scale: N x COV is {ratio[worst]:.6g} times SQRT_V_STAT^2 for variant "
                f"{self.scores.name(int(member.variant[worst]))} (median {np.median(ratio):.6g}), expected 1; COV "
                f"must be V / N, N = {self.n_samples:,} (give --n if other samples were analysed), on the scale of U",
                path=self.path,
            )
