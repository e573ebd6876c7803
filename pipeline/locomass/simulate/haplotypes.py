"""Haplotypes without a coalescent library: founders in LD, people as mosaics of them, genealogies of rare variants."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


def simulate_founders(
    position: Ints, frequency: NDArray[np.float64], n_founders: int, decay: float, rng: np.random.Generator
) -> NDArray[np.int8]:
    """Simulate founder haplotypes with LD that decays with distance.

    Each founder has a latent Gaussian process along the chromosome, ``z_j = r z_{j-1} + sqrt(1 - r^2) e_j`` with
    ``r = exp(-d_j / decay)``; it carries ALT where its z is among the ``round(f_j H)`` largest (or, for half of the
    variants, smallest), so every variant has its frequency exactly and LD has both signs.

    Args:
        position: (m,) increasing, bp.
        frequency: (m,) ALT frequencies.
        n_founders: H.
        decay: bp.
        rng: random numbers.

    Returns:
        (m, H) 0 or 1; at least one founder carries each allele.
    """
    m = position.size
    r = np.exp(-np.diff(position, prepend=position[0]) / decay)
    side = rng.choice([-1.0, 1.0], size=m)
    count = np.clip(np.round(frequency * n_founders), 1, n_founders - 1).astype(np.int64)
    founders = np.zeros((m, n_founders), np.int8)
    z = rng.standard_normal(n_founders)
    for j in range(m):
        z = r[j] * z + np.sqrt(1.0 - r[j] ** 2) * rng.standard_normal(n_founders)
        founders[j, np.argpartition(side[j] * z, count[j] - 1)[: count[j]]] = 1
    return founders


def copy_founders(
    founders: NDArray[np.int8],
    switch: NDArray[np.float64],
    n_samples: int,
    loci: Iterable[int],
    rng: np.random.Generator,
) -> tuple[NDArray[np.int8], dict[int, NDArray[np.uint16]]]:
    """Simulate people whose two haplotypes are mosaics of the founders (Li & Stephens 2003, without mutation).

    Args:
        founders: (m, H) 0 or 1.
        switch: (m,) probability that a haplotype begins to copy another founder just before variant j.
        n_samples: n.
        loci: variants at which the copied founder of everybody is wanted.
        rng: random numbers.

    Returns:
        dosage: (m, n) ALT counts, variant-major.
        copied: per locus, (2n,) founder that haplotype h copies; those of person i are h = i and h = n + i.
    """
    m, n_founders = founders.shape
    wanted = set(loci)
    path = rng.integers(n_founders, size=2 * n_samples, dtype=np.uint16)
    dosage = np.empty((m, n_samples), np.int8)
    copied: dict[int, NDArray[np.uint16]] = {}
    for j in range(m):
        moved = np.flatnonzero(rng.random(2 * n_samples, dtype=np.float32) < switch[j])
        path[moved] = rng.integers(n_founders, size=moved.size, dtype=np.uint16)
        allele = founders[j][path]
        np.add(allele[:n_samples], allele[n_samples:], out=dosage[j])
        if j in wanted:
            copied[j] = path.copy()
    return dosage, copied


def simulate_clades(
    n_haplotypes: int, n_variants: int, growth: float, max_count: int, rng: np.random.Generator
) -> tuple[Ints, Ints]:
    """Simulate the mutations of one gene without recombination: Kingman's coalescent with exponential growth.

    The genealogy is drawn with its leaves in a line, in which the lineages that are left at any time are runs of
    neighbours: k lineages are separated by the k - 1 gaps of highest rank in a random order. Merging a random pair of
    neighbours gives the same clades as merging any random pair, the leaves being exchangeable. While there are k
    lineages, ``k (k - 1) / 2`` pairs coalesce at rate ``exp(growth t)`` each (t in units of 2 N0 generations). A
    mutation falls on the tree uniformly by length: on level k with probability proportional to k times its duration,
    on each of its lineages alike. Mutations with more than ``max_count`` carriers are drawn again.

    Args:
        n_haplotypes: n.
        n_variants: m mutations; two may share a branch, and so their carriers.
        growth: growth rate; 0 is a population of constant size, whose spectrum is proportional to 1/k.
        max_count: most carriers of a mutation, at least 1.
        rng: random numbers.

    Returns:
        first, size: (m,) mutation j is carried by leaves ``first[j] .. first[j] + size[j] - 1``.

    Source: Kingman (1982); growth by the time change of Slatkin & Hudson (1991), Genetics 129:555.
    """
    if n_haplotypes < 2 or max_count < 1:
        raise ValueError(f"a genealogy needs 2 haplotypes and max_count 1; got {n_haplotypes} and {max_count}")
    lineages = np.arange(n_haplotypes, 1, -1)
    intensity = np.cumsum(rng.exponential(size=lineages.size) / (0.5 * lineages * (lineages - 1.0)))
    end = np.log1p(growth * intensity) / growth if growth > 0 else intensity
    length = np.cumsum(lineages * np.diff(end, prepend=0.0))
    rank = rng.permutation(n_haplotypes - 1)
    first, size = np.empty(n_variants, np.int64), np.empty(n_variants, np.int64)
    done = 0
    while done < n_variants:
        level = int(lineages[np.searchsorted(length, rng.random() * length[-1])])
        open_gaps = np.flatnonzero(rank >= n_haplotypes - level)
        run = int(rng.integers(level))
        start = open_gaps[run - 1] + 1 if run > 0 else 0
        stop = open_gaps[run] + 1 if run < level - 1 else n_haplotypes
        if stop - start <= max_count:
            first[done], size[done] = start, stop - start
            done += 1
    return first, size


def order_leaves(copied: NDArray[np.uint16], rng: np.random.Generator) -> Ints:
    """Return haplotypes in an order that keeps those that copy one founder together, so that clades share haplotypes.

    Args:
        copied: (2n,) founder that each haplotype copies at the gene.
        rng: random numbers; founders, and haplotypes within a founder, are shuffled.
    """
    shuffled = rng.permutation(int(copied.max()) + 1)
    return np.argsort(shuffled[copied] + rng.random(copied.size))


def collect_carriers(
    first: Ints, size: Ints, order: Ints, n_samples: int
) -> tuple[Ints, NDArray[np.int32], NDArray[np.int8]]:
    """Turn clades of haplotypes to carriers.

    Args:
        first: (m,) first leaf of each clade, as `simulate_clades` gives it.
        size: (m,) number of its leaves.
        order: (2n,) haplotype at each leaf; haplotypes i and n + i belong to person i.
        n_samples: n.

    Returns:
        indptr (m + 1,), sample (nnz,) increasing within a variant, dosage (nnz,) 1 or 2.
    """
    found = [
        np.unique(order[start : start + count] % n_samples, return_counts=True)
        for start, count in zip(first.tolist(), size.tolist(), strict=True)
    ]
    indptr = np.concatenate(([0], np.cumsum([person.size for person, _ in found]))).astype(np.int64)
    sample = np.concatenate([person for person, _ in found]) if found else np.empty(0)
    dosage = np.concatenate([count for _, count in found]) if found else np.empty(0)
    return indptr, sample.astype(np.int32), dosage.astype(np.int8)
