"""Which variant each line of a covariance file is about, where several variants share a position.

A covariance line names a position only. The score file may have variants there that have no line (monomorphic, failed),
the covariance file lines of variants that the score file lacks (filtered). Lines and variants are paired in the order
of the files where their variances agree in that order, else by the variances, N COV_jj = SQRT_V_STAT_j^2.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from scipy.optimize import linear_sum_assignment

from locomass.bundle.exchange.common import Integers, Labels
from locomass.errors import FormatError
from locomass.numbers import Floats

Site = tuple[str, int]


class Sites:
    """The variants at each position, and the lines of the covariance file there.

    Args:
        path: covariance file, for errors.
        chromosome, position: (v,) of the score file, in its order.
        V: (v,) variances of the score file; 0 where it has none.
        tolerance: relative, of a variance in one file against the other.
    """

    def __init__(self, path: Path, chromosome: Labels, position: Integers, V: Floats, tolerance: float) -> None:
        self.path, self.V, self.tolerance = path, V, tolerance
        self.places: dict[str, tuple[Integers, Integers]] = {}
        for label in set(chromosome):
            rows = np.flatnonzero(chromosome == label)
            rows = rows[np.argsort(position[rows], kind="stable")]
            self.places[label] = (position[rows], rows)
        self.lines: dict[Site, list[int]] = {}  # variant of each line, -1 for none; shared positions only
        self.taken: dict[Site, int] = {}

    def variants_at(self, site: Site) -> Integers:
        """Return the variants at a position, in the order of the score file."""
        if site[0] not in self.places:
            return np.empty(0, np.int64)
        positions, rows = self.places[site[0]]
        low, high = np.searchsorted(positions, (site[1], site[1] + 1))
        return rows[low:high]

    def shared(self, sites: Iterable[tuple[Site, int]]) -> set[Site]:
        """Return which of the (position, number of lines) have several lines or several variants."""
        return {site for site, n in sites if n > 1 or len(self.variants_at(site)) > 1}

    def pair_lines(self, site: Site, variance: Floats, lines: list[int]) -> None:
        """Decide which variant each line at a shared position is about.

        Args:
            site: the position.
            variance: (lines,) N COV_jj of its lines, in the order of the file.
            lines: their numbers, for errors.

        Raises:
            FormatError: neither the order nor the variances tell, or two lines are of one variant.
        """
        every = self.variants_at(site)
        varying = every[self.V[every] > 0]
        for rows in (varying, every):
            if len(rows) == len(variance) and self._agree(self.V[rows], variance).all():
                self.lines[site] = rows.tolist()
                return
        found = self._match(varying, variance)
        if found is None and len(variance) in (
            len(varying),
            len(every),
        ):  # another scale: the check of the scale says so
            found = (varying if len(variance) == len(varying) else every).tolist()
        if found is None:
            raise FormatError(
                f"{len(variance)} lines at position {site[1]}, but the score file has {len(every)} variants there, "
                f"{len(varying)} of them with statistics, and the variances do not tell which line is whose; both "
                f"files must come from one run",
                path=self.path,
                line=lines[0],
            )
        self._refuse_second_line(site, variance, found, lines)
        self.lines[site] = found

    def _refuse_second_line(self, site: Site, variance: Floats, found: list[int], lines: list[int]) -> None:
        """Raise where a line of no variant has the variance of a variant that has its line."""
        own = self.V[np.array([v for v in found if v >= 0], np.int64)]
        for k in (k for k, v in enumerate(found) if v < 0 and self._agree(own, variance[k]).any()):
            message = f"a second line for the variant at position {site[1]}, or one the score file lacks"
            raise FormatError(message, path=self.path, line=lines[k])

    def _agree(self, V: Floats, variance: Floats | float) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
        return np.abs(variance - V) <= self.tolerance * V

    def _match(self, varying: Integers, variance: Floats) -> list[int] | None:
        """Return the variant of each line by variance, -1 for lines of none; None unless each variant has its line."""
        if len(varying) > len(variance):
            return None
        error = np.abs(variance[:, None] / self.V[varying] - 1)
        line, which = linear_sum_assignment(error)
        if (error[line, which] > self.tolerance).any():
            return None
        found = np.full(len(variance), -1)
        found[line] = varying[which]
        return found.tolist()

    def next_line(self, site: Site) -> int:
        """Return the variant that the next line at a position is about, -1 for none."""
        if site not in self.lines:
            rows = self.variants_at(site)
            return int(rows[0]) if len(rows) else -1
        k = self.taken.get(site, 0)
        self.taken[site] = k + 1
        return self.lines[site][k] if k < len(self.lines[site]) else -1

    def resolve(self, chromosome: str, position: Integers, line: int) -> Integers:
        """Return the variants that a line's list of positions names, -1 where the score file has none.

        Args:
            chromosome, position: the list, its own marker first (already taken by `next_line`).
            line: number of the line, for errors.

        Raises:
            FormatError: a shared position is listed another number of times than it has lines or variants.
        """
        positions, rows = self.places[chromosome]
        low, high = np.searchsorted(positions, position), np.searchsorted(positions, position, side="right")
        found = np.where(high > low, rows[np.minimum(low, len(rows) - 1)], -1)
        for p in np.unique(position):
            site = (chromosome, int(p))
            if site in self.lines:
                here = np.flatnonzero(position == p)
                found[here] = self._listed(site, len(here), p == position[0], line)
        return found

    def _listed(self, site: Site, times: int, own: bool, line: int) -> list[int]:
        """Return the variants of a shared position that is listed so many times; of its own position only the rest."""
        done = self.taken[site] - 1 if own else 0
        lines, every = self.lines[site], self.variants_at(site).tolist()
        if own and len(every) != len(lines) and lines[done] >= 0:
            every = every[every.index(lines[done]) :]
        for rows in (lines[done:], every):
            if len(rows) == times:
                return rows
        raise FormatError(
            f"position {site[1]} is listed {times} times, but the score file has {len(every)} variants there and this "
            f"file {len(lines)} lines",
            path=self.path,
            line=line,
        )
