"""A task of the meta-analysis: a batch of genes with their listed variants; how genes are split into batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from locomass.bundle.study import Bundle
from locomass.config import Tests
from locomass.errors import MatchError
from locomass.files.parts import is_sealed
from locomass.numbers import Floats
from locomass.tables.catalogue import ALL_VARIANTS, Catalogue
from locomass.variants.chromosomes import chromosome_order

GENES_PER_TASK = 200
PAIRS_PER_TASK = 4_000_000  # entries of all information matrices of a task
TASKS = 3_000  # of a catalogue that would have more, tasks are larger


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What a meta-analysis tests, on which variants, and how studies go together.

    Attributes:
        tests: section of the configuration.
        masks: names.
        maf: frequency policy: joint, study or external.
        groups: the group of every bundle; empty without groups.
    """

    tests: Tests = field(default_factory=Tests)
    masks: tuple[str, ...] = (ALL_VARIANTS,)
    maf: str = "joint"
    groups: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class GeneRequest:
    """One gene to test.

    Attributes:
        position, ref, alt: (k,) listed variants; empty for a region, whose variants are those of the studies.
        member: (M, k) whether each mask takes each listed variant.
        columns: numeric annotation columns (k,).
        owner: (k,) True where this gene is the first that lists the variant, so that it reports it singly.
        earlier: for a region, (start, end) of the regions before it that overlap it.
        external: (k,) external ALT frequency, NaN where the file has none; None without a file.
        singleton: (k,) whether the external file calls it a singleton; None where that is not asked for.
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
    singleton: NDArray[np.bool_] | None = None

    @property
    def place(self) -> tuple[str, str, int, int]:
        """Name, chromosome, start and end."""
        return self.gene, self.chromosome, self.start, self.end


@dataclass(frozen=True, kw_only=True)
class MetaTask:
    """What travels to a worker: bundle paths, genes, and what to test.

    Attributes:
        number, folder: of its parts.
        bundles, genes: what is tested.
        rules: how.
    """

    number: int
    folder: Path
    bundles: tuple[Path, ...]
    genes: tuple[GeneRequest, ...]
    rules: Rules

    def part(self, name: str) -> Path:
        """Return the path of one of the task's parts."""
        return self.folder / f"{name}-{self.number:05d}.parquet"

    @property
    def is_done(self) -> bool:
        """Whether all parts are there and whole."""
        return is_sealed(self.folder, self.number)


def plan_tasks(
    catalogue: Catalogue,
    bundles: Sequence[Path],
    tests: Tests,
    maf: str,
    external: Floats | None,
    folder: Path,
    groups: tuple[str, ...] = (),
    singleton: NDArray[np.bool_] | None = None,
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
        requests[-1].append(_request_gene(c, i, owner, external, singleton))
    rules = Rules(tests=tests, masks=c.masks, maf=maf, groups=groups)
    return [
        MetaTask(number=number, folder=folder, bundles=tuple(bundles), genes=tuple(batch), rules=rules)
        for number, batch in enumerate(requests)
        if batch
    ]


def _request_gene(
    c: Catalogue, i: int, owner: NDArray[np.bool_], external: Floats | None, singleton: NDArray[np.bool_] | None
) -> GeneRequest:
    """Return the request of gene i of the catalogue."""
    sets, own = c.sets, slice(int(c.sets.offsets[i]), int(c.sets.offsets[i + 1]))
    position = c.position[own]
    return GeneRequest(
        gene=sets.gene[i],
        chromosome=sets.chromosome[i],
        start=int(sets.start[i]),
        end=int(max(sets.end[i], position.max(initial=0))),
        position=position,
        ref=c.ref[own],
        alt=c.alt[own],
        member=c.member[:, own],
        columns={name: values[own] for name, values in c.columns.items()},
        owner=owner[own],
        is_region=c.is_regions,
        earlier=_earlier_regions(c, i) if c.is_regions else (),
        external=None if external is None else external[own],
        singleton=None if singleton is None else singleton[own],
    )


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
