"""Which masks take which listed variant: ``mask_variants.parquet`` of a results directory."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import InputError
from pipeline.io.catalogue import Catalogue
from pipeline.io.results import write_parquet
from pipeline.schema import MASK_VARIANTS

Key = tuple[int, str, str]


@dataclass(frozen=True)
class Membership:
    """Masks and category of the listed variants of one gene, by (position, alleles in alphabetical order)."""

    masks: dict[Key, tuple[str, ...]]
    category: dict[Key, str]


def write_mask_variants(path: Path, catalogue: Catalogue) -> None:
    """Write one row per gene and listed variant: its category, and the masks that take it, whatever its frequency.

    Genes that are regions list no variant: the table is empty, every variant is in the mask `all`.
    """
    c = catalogue
    gene = np.repeat(c.sets.gene, np.diff(c.sets.offsets)) if not c.is_regions else np.empty(0, object)
    patterns, code = np.unique(c.member, axis=1, return_inverse=True)
    names = [",".join(m for m, taken in zip(c.masks, column, strict=True) if taken) for column in patterns.T.tolist()]
    columns = {
        "gene": pa.array(gene, pa.string()), "chromosome": pa.array(c.chromosome, pa.string()),
        "position": pa.array(c.position, pa.int64()), "ref": pa.array(c.ref, pa.string()),
        "alt": pa.array(c.alt, pa.string()), "category": pa.array(c.category, pa.string()),
        "masks": pa.array(np.array([*names, ""], object)[code.reshape(-1)], pa.string()),
    }  # fmt: skip
    write_parquet(path, pa.table(columns, schema=MASK_VARIANTS.arrow))


def read_mask_variants(path: Path, genes: Collection[str]) -> dict[str, Membership]:
    """Return masks and categories of the listed variants of some genes; nothing where there is no table.

    Raises:
        InputError: the file is damaged.
    """
    if not path.exists():
        return {}
    try:
        table = pq.read_table(path, columns=[c.name for c in MASK_VARIANTS.columns if c.name != "chromosome"])
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path} cannot be read: {error}; run `locomass run` or `locomass meta` again") from None
    table = table.filter(pc.is_in(table["gene"], pa.array(list(genes), pa.string())))
    found: dict[str, Membership] = {}
    for row in table.to_pylist():
        known = found.setdefault(row["gene"], Membership({}, {}))
        key = (row["position"], min(row["ref"], row["alt"]), max(row["ref"], row["alt"]))
        known.masks[key] = tuple(filter(None, row["masks"].split(",")))
        known.category[key] = row["category"]
    return found
