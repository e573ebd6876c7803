"""The points of the interactive plots: per trait, test, mask and frequency bin, thinned where p > 0.01."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from locomass.numbers import Floats
from locomass.report.embed import pack_codes, pack_column
from locomass.report.quantiles import compute_lambda, lambda_by_group, qq_band, thin_points
from locomass.report.tables import GeneTests
from locomass.variants.chromosomes import chromosome_order

Codes = NDArray[np.int64]
MAX_TRAITS = 24  # traits with plots of their own
MAX_SERIES = 3000
POINT_BUDGET = 200_000  # points with p > 0.01 over all series
MAX_REST = 3000  # of them per series
ALL_KEPT = 4000  # points with p <= 0.01 of a series over all traits
GAP = 5_000_000  # base pairs between chromosomes
PREFERRED = ("acat-o", "skat-o", "skat-o-published", "skat", "burden")


@dataclass(frozen=True)
class Genome:
    """Where genes stand on the x axis, in megabases from the first chromosome's start.

    Attributes:
        x: per gene code.
        chromosome: per gene code, index into ``names``.
        names, left, right: chromosomes in order, and the span of their genes.
    """

    x: Floats
    chromosome: Codes
    names: tuple[str, ...]
    left: Floats
    right: Floats

    @property
    def middle(self) -> Floats:
        """Where the chromosomes' names stand."""
        return (self.left + self.right) / 2


def lay_genome(tests: GeneTests) -> Genome:
    """Put chromosomes one after the other; a lone chromosome keeps its own coordinates."""
    gene, chromosome = tests.label["gene"], tests.label["chromosome"]
    codes, first = np.unique(gene.codes, return_index=True)
    middle = (tests.number["start"][first] + tests.number["end"][first]) / 2
    used = sorted({chromosome.labels[c] for c in chromosome.codes[first].tolist()}, key=chromosome_order)
    place = {name: k for k, name in enumerate(used)}
    of_gene = np.array([place[chromosome.labels[c]] for c in chromosome.codes[first].tolist()], np.int64)
    x, index = np.full(len(gene.labels), np.nan), np.zeros(len(gene.labels), np.int64)
    left, right, offset = np.zeros(len(used)), np.zeros(len(used)), 0.0
    for k in range(len(used)):
        here = of_gene == k
        base = 0.0 if len(used) == 1 else offset - middle[here].min()
        left[k], right[k] = middle[here].min() + base, middle[here].max() + base
        x[codes[here]] = middle[here] + base
        offset = right[k] + GAP
    index[codes] = of_gene
    return Genome(x / 1e6, index, tuple(used), left / 1e6, right / 1e6)


def order_traits(tests: GeneTests) -> Codes:
    """Return the codes of the traits that have rows, by their smallest p-value."""
    trait = tests.label["trait"]
    best = np.full(len(trait.labels), -1.0)
    np.maximum.at(best, trait.codes, np.nan_to_num(tests.log10p, nan=0.0))
    present = np.flatnonzero(best >= 0)
    return present[np.argsort(-best[present], kind="stable")]


def order_tests(tests: GeneTests) -> Codes:
    """Return the codes of the tests (with weights) that have rows, the one to show first in front."""
    label = tests.label["row_test"]

    def rank(code: int) -> tuple[int, str]:
        name = label.labels[code].split(" (")[0]
        return (PREFERRED.index(name) if name in PREFERRED else len(PREFERRED), label.labels[code])

    return np.array(sorted(np.unique(label.codes).tolist(), key=rank), np.int64)


def lambda_table(tests: GeneTests, traits: Codes, row_tests: Codes) -> Floats:
    """Return (traits, tests) lambda over all genes, masks and bins."""
    T, S = len(tests.label["trait"].labels), len(tests.label["row_test"].labels)
    group = tests.label["trait"].codes * S + tests.label["row_test"].codes
    return lambda_by_group(tests.log10p, group, T * S).reshape(T, S)[np.ix_(traits, row_tests)]


def collect_series(tests: GeneTests, genome: Genome) -> dict[str, Any]:
    """Return what the plots of the page draw: labels, genes, and the thinned points of every series.

    A series is a trait, test, mask and bin; with many traits those of the smallest p-values have plots of their own,
    and one more, ``all traits``, takes the points of all of them.
    """
    traits, row_tests = order_traits(tests), order_tests(tests)
    label = tests.label
    S, M, B = len(label["row_test"].labels), len(label["mask"].labels), len(tests.bins)
    kind = (label["row_test"].codes * M + label["mask"].codes) * B + tests.bin
    n_kinds = max(1, len(np.unique(kind)))
    shown = traits[: max(1, min(MAX_TRAITS, MAX_SERIES // n_kinds))]
    n_rest = int(np.clip(POINT_BUDGET / (n_kinds * (len(shown) + 1)), 30, MAX_REST))
    key = label["trait"].codes * (S * M * B) + kind
    parts = _Parts(tests)
    chosen = np.flatnonzero(np.isin(label["trait"].codes, shown))
    trait_place = {int(t): k for k, t in enumerate(shown)}
    for code, rows in _split_rows(key, chosen):
        trait, rest = divmod(code, S * M * B)
        parts.add(trait_place[trait], rest, rows, n_rest, None)
    if len(traits) > 1:
        for code, rows in _split_rows(kind, np.arange(len(tests))):
            parts.add(len(shown), code, rows, MAX_REST if len(traits) > len(shown) else n_rest, ALL_KEPT)
    names = [label["trait"].labels[t] for t in shown]
    if len(traits) > 1:
        names.append(f"all {len(traits):,} traits")
    return {
        "traits": names,
        "row_traits": list(label["trait"].labels),
        "tests": list(label["row_test"].labels),
        "test_order": row_tests.tolist(),
        "masks": list(label["mask"].labels),
        "bins": tests.bins.tolist(),
        "genes": list(label["gene"].labels),
        "gene_x": pack_column(genome.x, "f4"),
        "gene_chromosome": pack_codes(genome.chromosome, len(genome.names)),
        "chromosomes": list(genome.names),
        **parts.packed(S, M, B),
    }


def _split_rows(key: Codes, rows: Codes) -> list[tuple[int, Codes]]:
    """Return the rows of every distinct key, keys increasing, rows in order."""
    order = rows[np.argsort(key[rows], kind="stable")]
    if not len(order):
        return []
    cuts = np.flatnonzero(np.diff(key[order])) + 1
    return [(int(key[part[0]]), part) for part in np.split(order, cuts)]


class _Parts:
    """Series being gathered."""

    def __init__(self, tests: GeneTests) -> None:
        self.tests = tests
        self.heads: list[tuple[int, int, int, int, float]] = []
        self.rows: list[Codes] = []
        self.ranks: list[Codes] = []

    def add(self, trait: int, kind: int, rows: Codes, n_rest: int, n_kept: int | None) -> None:
        """Thin the points of one series and keep them, unless it has no p-value."""
        values = self.tests.log10p[rows]
        chosen, rank, n = thin_points(values, n_rest, n_kept)
        if n:
            self.heads.append((trait, kind, n, len(chosen), compute_lambda(values)))
            self.rows.append(rows[chosen])
            self.ranks.append(rank)

    def packed(self, S: int, M: int, B: int) -> dict[str, Any]:
        """Return the series and the columns of their points, one after the other."""
        rows = np.concatenate([np.empty(0, np.int64), *self.rows])
        rank = np.concatenate([np.empty(0, np.int64), *self.ranks])
        label = self.tests.label
        bands = {n: [c.round(3).tolist() for c in qq_band(n)] for n in sorted({h[2] for h in self.heads})}
        return {
            "series": [
                [trait, kind // (M * B), kind // B % M, kind % B, n, k, round(value, 4)]
                for trait, kind, n, k, value in self.heads
            ],
            "bands": bands,
            "gene": pack_codes(label["gene"].codes[rows], len(label["gene"].labels)),
            "trait": pack_codes(label["trait"].codes[rows], len(label["trait"].labels)),
            "rank": pack_column(rank, "u4"),
            "log10p": pack_column(self.tests.log10p[rows], "f4"),
        }
