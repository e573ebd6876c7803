"""What a bundle gives away of single people, found the way an attacker would: by combining its numbers.

For a quantitative trait ``a'(G'G)a = |Ga|^2`` is, for whole numbers a, at least the people whom the combination Ga of
genotypes tells apart from all others. So the shortest nonzero vector of the lattice with Gram matrix G'G is the best
that an attacker can do: where it is 1, one person is alone, and the same combination of U is that person's residual, of
B the covariates. Short vectors are sought among all combinations of three variants, and beyond by reducing the
lattice. Of a binary trait with a share K of cases, G'WG takes the place of G'G: W is about K(1 - K), so that it shows
people only within the factor `SPREAD` by which their weights differ; the groups of its laws are counted exactly.

Beside that: counts of carriers that follow from frequencies, and groups of carriers, of fewer than so many people.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from locomass.bundle.study import Bundle, StudyGene
from locomass.meta.inspect.studies import ERROR, NOTE, Finding
from locomass.numbers import Floats

GENES_AT_ONCE = 100
MOST_TRIPLES = 60  # variants of a gene of which all combinations of three are tried
MOST_COLUMNS = 400  # of which pairs are tried, the rarest first
SPREAD = 3.0  # of the weights mu (1 - mu) of people below their mean
ZERO = 1e-6  # people: rounding of sums
REDUCTIONS = 4_000
FIX = (
    "compute the bundle with score_statistics: {share: protected, min_cell: 20}, or give it to those only who may know"
)


@dataclass
class Isolated:
    """The combinations of a bundle that are about fewer people than is allowed.

    Attributes:
        counts: variants whose carriers, too few, follow from counts or frequencies.
        groups: groups of carriers (laws) that are too small.
        combinations: genes with a combination of variants about too few people.
        people: the fewest people that any number, or combination, is about.
        example: that gene.
    """

    counts: int = 0
    groups: int = 0
    combinations: int = 0
    people: float = np.inf
    example: str = ""

    def see(self, people: float, gene: str) -> None:
        """Note how many people something of a gene is about."""
        if people < self.people:
            self.people, self.example = people, gene


def check_disclosure(bundle: Bundle, min_cell: int) -> Iterator[Finding]:
    """Certify that nothing of a bundle is about fewer than ``min_cell`` people, or say what is.

    Args:
        bundle: opened and validated.
        min_cell: people, such as 20.
    """
    found = _search(bundle, min_cell)
    where = f"gene {found.example}" if found.example else "no gene"
    told = {
        "genotype counts or frequencies of {:,} variants give fewer than {} carriers": found.counts,
        "{:,} groups of carriers have fewer than {} people": found.groups,
        "combinations of the variants of {:,} genes are about fewer than {} people: U gives their residuals (the sign "
        "of a binary trait's tells cases), B their covariates": found.combinations,
    }
    for text, count in told.items():
        if count:
            yield Finding(ERROR, bundle.study, text.format(count, min_cell), where, FIX, "disclosure")
    if not any(told.values()):
        fewest = "" if np.isinf(found.people) else f"; the smallest is about {found.people:,.0f}"
        what = f"certified: no number, and no combination of a gene's numbers, is about fewer than {min_cell} people"
        limits = "combinations of up to three variants, and a reduced lattice; genes one by one"
        yield Finding(NOTE, bundle.study, what + fewest, limits, "nothing to do", "disclosure")


def _search(bundle: Bundle, min_cell: int) -> Isolated:
    """Return what isolates fewer than ``min_cell`` people in any gene."""
    out = Isolated()
    names, counted = list(bundle.index), set[int]()
    for start in range(0, len(names), GENES_AT_ONCE):
        for name, gene in bundle.read_genes(names[start : start + GENES_AT_ONCE]).items():
            few = _few_carriers(gene, min_cell)
            new = [n for n in gene.number[few].tolist() if n not in counted]
            counted.update(new)
            out.counts += len(new)
            small = [size for groups in gene.laws.values() for size in groups.count.tolist() if size < min_cell]
            out.groups += len(small)
            out.see(min(small, default=np.inf), name)
            fewest = min((_fewest_people(bundle, gene, c) for c in gene.covariances), default=np.inf)
            out.see(fewest, name)
            out.combinations += fewest < min_cell - 0.5
    return out


def _few_carriers(gene: StudyGene, min_cell: int) -> Any:
    """Return (m,) whether a variant has 1 to ``min_cell - 1`` alleles of the rarer kind in a sample set."""
    alleles = 2.0 * gene.n_obs * np.nan_to_num(np.minimum(gene.alt_frequency, 1 - gene.alt_frequency))
    return ((alleles > 0.5) & (alleles < min_cell - 0.5)).any(axis=1)


def _fewest_people(bundle: Bundle, gene: StudyGene, covariance: str) -> float:
    """Return about how many people the shortest combination of a gene's variants tells apart."""
    stored, m = gene.covariances[covariance], len(gene.position)
    lower = np.zeros((m, m))
    lower[stored.row, stored.column] = stored.value
    gram = lower + np.tril(lower, -1).T
    return shortest_combination(gram) / _weight(bundle, covariance)


def _weight(bundle: Bundle, covariance: str) -> float:
    """Return the least weight of a person in G'WG: 1, or K (1 - K) / `SPREAD` for a share K of cases."""
    trait = bundle.traits[bundle.covariances[covariance]["traits"][0]]
    if trait["kind"] != "binary" or not trait.get("n_cases"):
        return 1.0
    share = trait["n_cases"] / trait["n_samples"]
    return float(max(share * (1 - share) / SPREAD, 1e-12))


def shortest_combination(gram: Floats) -> float:
    """Return the least nonzero ``a'Ga`` found for whole numbers a; infinity without any.

    Combinations with coefficients -1, 0, 1 of up to three columns (of two above `MOST_TRIPLES` columns), then a basis
    in which each column was shortened by the others.

    Args:
        gram: (m, m) G'G.
    """
    size = np.diag(gram)
    order = np.argsort(size, kind="stable")
    order = order[size[order] > ZERO][:MOST_COLUMNS]
    gram, size = gram[np.ix_(order, order)], size[order]
    if not len(order):
        return float("inf")
    best = float(size[0])
    i, j = np.triu_indices(len(order), 1)
    for sign in (1.0, -1.0):
        pair = size[i] + size[j] + 2 * sign * gram[i, j]
        best = min(best, float(pair[pair > ZERO].min(initial=np.inf)))
        if len(order) <= MOST_TRIPLES:
            for other in (1.0, -1.0):
                triple = pair[:, None] + size[None, :] + 2 * other * (gram[i] + sign * gram[j])
                best = min(best, float(triple[triple > ZERO].min(initial=np.inf)))
    return min(best, _reduce(gram.copy()))


def _reduce(gram: Floats) -> float:
    """Return the shortest nonzero column once every column was shortened by whole multiples of the others."""
    best = float("inf")
    for _ in range(REDUCTIONS):
        size = np.diag(gram).copy()
        best = min(best, float(size[size > ZERO].min(initial=np.inf)))
        safe = np.where(size > ZERO, size, np.inf)
        times = np.rint(gram / safe[None, :])  # of column j in column i
        np.fill_diagonal(times, 0.0)
        gain = 2 * times * gram - times**2 * np.where(size > ZERO, size, 0.0)[None, :]
        i, j = np.unravel_index(int(np.argmax(gain)), gain.shape)
        if gain[i, j] <= ZERO:
            break
        gram[i] -= times[i, j] * gram[j]
        gram[:, i] -= times[i, j] * gram[:, j]
    return best
