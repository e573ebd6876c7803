"""A task of the meta-analysis: a batch of genes with their listed variants; how genes are split into batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.align import chromosome_order
from pipeline.config import Tests
from pipeline.errors import MatchError
from pipeline.io.bundle import Bundle
from pipeline.io.catalogue import Catalogue
from pipeline.io.parts import count_rows

Floats = NDArray[np.float64]
PARTS = ("variants", "audit", "drivers", "tests")
GENES_PER_TASK = 200
PAIRS_PER_TASK = 4_000_000  # entries of all information matrices of a task
TASKS = 3_000  # of a catalogue that would have more, tasks are larger


@dataclass(frozen=True)
class GeneRequest:
    """One gene to test.

    Attributes:
        position, ref, alt: (k,) listed variants; empty for a region, whose variants are those of the studies.
        member: (M, k) whether each mask takes each listed variant.
        columns: numeric annotation columns (k,).
        owner: (k,) True where this gene is the first that lists the variant, so that it reports it singly.
        earlier: for a region, (start, end) of the regions before it that overlap it.
        external: (k,) external ALT frequency, NaN where the file has none; None without a file.
    """

    gene: str
    chromosome: str
    start: int
    end: int
    position: NDArray[np.int64]
    ref: NDArray[np.object_]
    alt: NDArray[np.object_]
    member: NDArray[np.bool_]
    columns: dict[str, Floats]
    owner: NDArray[np.bool_]
    is_region: bool = False
    earlier: tuple[tuple[int, int], ...] = ()
    external: Floats | None = None


@dataclass(frozen=True)
class MetaTask:
    """What travels to a worker: bundle paths, genes, and what to test.

    Attributes:
        number, folder: of its parts.
        bundles, genes, masks, tests, maf: what is tested, on what.
        groups: the group of every bundle; empty without groups.
    """

    number: int
    folder: Path
    bundles: tuple[Path, ...]
    genes: tuple[GeneRequest, ...]
    masks: tuple[str, ...]
    tests: Tests
    maf: str
    groups: tuple[str, ...] = ()

    def part(self, name: str) -> Path:
        """Return the path of one of the task's parts."""
        return self.folder / f"{name}-{self.number:05d}.parquet"

    @property
    def is_done(self) -> bool:
        """Whether all parts are there and whole."""
        return all(count_rows(self.part(name)) >= 0 for name in PARTS)


def plan_tasks(
    catalogue: Catalogue,
    bundles: Sequence[Path],
    tests: Tests,
    maf: str,
    external: Floats | None,
    folder: Path,
    groups: tuple[str, ...] = (),
) -> list[MetaTask]:
    """Split the genes into tasks of bounded work, in the order of chromosomes and positions."""
    c, sets = catalogue, catalogue.sets
    gene_of = np.repeat(np.arange(len(sets)), np.diff(sets.offsets))
    owner = _first_owner(c, gene_of)
    order = sorted(range(len(sets)), key=lambda i: (chromosome_order(str(sets.chromosome[i])), int(sets.start[i])))
    most_pairs = max(PAIRS_PER_TASK, int((np.diff(sets.offsets) ** 2).sum()) // TASKS)
    requests: list[list[GeneRequest]] = [[]]
    pairs = 0
    for i in order:
        low, high = int(sets.offsets[i]), int(sets.offsets[i + 1])
        cost = (high - low) ** 2
        if requests[-1] and (len(requests[-1]) >= GENES_PER_TASK or pairs + cost > most_pairs):
            requests.append([])
            pairs = 0
        pairs += cost
        position = c.position[low:high]
        requests[-1].append(
            GeneRequest(
                sets.gene[i],
                sets.chromosome[i],
                int(sets.start[i]),
                int(max(sets.end[i], position.max(initial=0))),
                position,
                c.ref[low:high],
                c.alt[low:high],
                c.member[:, low:high],
                {name: values[low:high] for name, values in c.columns.items()},
                owner[low:high],
                c.is_regions,
                _earlier_regions(c, i) if c.is_regions else (),
                None if external is None else external[low:high],
            )
        )
    return [
        MetaTask(number, folder, tuple(bundles), tuple(batch), c.masks, tests, maf, groups)
        for number, batch in enumerate(requests)
        if batch
    ]


def _first_owner(c: Catalogue, gene_of: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return (K,) True where a listed variant is listed for the first time."""
    seen: set[tuple[str, int, str, str]] = set()
    owner = np.zeros(len(c.position), np.bool_)
    for k, key in enumerate(
        zip(c.chromosome.tolist(), c.position.tolist(), c.ref.tolist(), c.alt.tolist(), strict=True)
    ):
        owner[k] = key not in seen
        seen.add(key)
    return owner


def _earlier_regions(c: Catalogue, i: int) -> tuple[tuple[int, int], ...]:
    """Return the regions listed before region i that overlap it."""
    s = c.sets
    before = (s.chromosome[:i] == s.chromosome[i]) & (s.start[:i] <= s.end[i]) & (s.end[:i] >= s.start[i])
    return tuple((int(a), int(b)) for a, b in zip(s.start[:i][before], s.end[:i][before], strict=True))


def check_genes(catalogue: Catalogue, bundles: Sequence[Bundle]) -> None:
    """Raise unless at least one gene of the catalogue is in a bundle."""
    if not any(bundle.has_gene(catalogue.sets.gene.tolist()) for bundle in bundles):
        known = set().union(*(bundle.index for bundle in bundles))
        raise MatchError(
            f"no gene of {catalogue.what} (such as '{catalogue.sets.gene[0]}') is in any study bundle (such as "
            f"'{next(iter(known), 'none')}'); genes are matched by name"
        )
