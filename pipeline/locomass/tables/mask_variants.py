"""Which masks take which listed variant: ``mask_variants.parquet`` of a results directory."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from locomass.errors import FormatError, InputError
from locomass.files.results import write_parquet
from locomass.numbers import Floats
from locomass.schema import MASK_VARIANTS, validate_table
from locomass.tables.catalogue import Catalogue
from locomass.variants.identity import variant_keys

Key = tuple[int, str, str]


@dataclass(frozen=True)
class Membership:
    """The listed variants of one gene, in the order of the list.

    Attributes:
        position, ref, alt: (k,) as listed.
        category: (k,) of the annotations.
        masks: (k,) masks that take each.
        external: (k,) ALT frequency of the external file; NaN without a file, and where it has none.
    """

    position: NDArray[np.int64]
    ref: NDArray[np.object_]
    alt: NDArray[np.object_]
    category: tuple[str, ...]
    masks: tuple[tuple[str, ...], ...]
    external: Floats

    def members(self, mask: str) -> NDArray[np.bool_]:
        """Return (k,) whether a mask takes each variant."""
        return np.array([mask in masks for masks in self.masks], np.bool_)

    @cached_property
    def place(self) -> dict[Key, int]:
        """Place of a variant by its key (`variant_keys`)."""
        return {key: k for k, key in enumerate(variant_keys(self.position, self.ref, self.alt))}


def write_mask_variants(path: Path, catalogue: Catalogue, external: Floats | None = None) -> None:
    """Write one row per gene and listed variant: its category, and the masks that take it, whatever its frequency.

    Genes that are regions list no variant: the table is empty, every variant is in the mask `all`.

    Args:
        path: the table.
        catalogue: genes and masks.
        external: ALT frequency of every listed variant in an external file, NaN where it has none.
    """
    c = catalogue
    gene = np.repeat(c.sets.gene, np.diff(c.sets.offsets)) if not c.is_regions else np.empty(0, object)
    patterns, code = np.unique(c.member, axis=1, return_inverse=True)
    names = [",".join(m for m, taken in zip(c.masks, column, strict=True) if taken) for column in patterns.T.tolist()]
    columns = {
        "gene": pa.array(gene, pa.string()),
        "chromosome": pa.array(c.chromosome, pa.string()),
        "position": pa.array(c.position, pa.int64()),
        "ref": pa.array(c.ref, pa.string()),
        "alt": pa.array(c.alt, pa.string()),
        "category": pa.array(c.category, pa.string()),
        "masks": pa.array(np.array([*names, ""], object)[code.reshape(-1)], pa.string()),
        "external_frequency": pa.nulls(len(gene), pa.float64())
        if external is None
        else pa.array(external, pa.float64(), from_pandas=True),
    }
    write_parquet(path, pa.table(columns, schema=MASK_VARIANTS.arrow))


def read_mask_variants(path: Path, genes: Collection[str]) -> dict[str, Membership]:
    """Return the listed variants of some genes, their masks and categories; nothing where there is no table.

    Raises:
        InputError: the file is damaged.
    """
    if not path.exists():
        return {}
    try:
        rows = pq.read_table(path, filters=pc.is_in(pc.field("gene"), pa.array(list(genes), pa.string())))
        table = validate_table(rows, MASK_VARIANTS, path)
    except (OSError, pa.ArrowException, FormatError) as error:
        raise InputError(f"{path} cannot be read: {error}; run `locomass run` or `locomass meta` again") from None
    return {gene: _read_gene(own) for gene, own in table.to_pandas().groupby("gene", sort=False)}


def _read_gene(rows: pd.DataFrame) -> Membership:
    """Return the listed variants of one gene."""
    return Membership(
        rows["position"].to_numpy(np.int64),
        rows["ref"].to_numpy(object),
        rows["alt"].to_numpy(object),
        tuple(rows["category"]),
        tuple(tuple(filter(None, text.split(","))) for text in rows["masks"]),
        rows["external_frequency"].to_numpy(np.float64),
    )
