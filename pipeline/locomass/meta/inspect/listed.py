"""Whether each study has what the meta-analysis lists, and the likely cause where it has not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from locomass.bundle.study import Bundle
from locomass.meta.inspect.studies import ERROR, WARNING, Finding
from locomass.tables.catalogue import Catalogue
from locomass.variants.identity import canonical_alleles

LEAST_SHARE = 0.01  # of the listed variants, below which a study is taken for one that does not match
SAME_PLACES = 0.1  # share of positions that do not agree by chance
Hashes = NDArray[np.uint64]


def check_listed(bundles: Sequence[Bundle], catalogue: Catalogue) -> Iterator[Finding]:
    """Find studies that have next to none of the listed variants, or of the listed genes."""
    genes = set(catalogue.sets.gene.tolist())
    listed = None if catalogue.is_regions else _hash(*(getattr(catalogue, c) for c in COLUMNS))
    for bundle in bundles:
        if not bundle.index:
            where = f"{bundle.variant_file.num_rows:,} single variants, in no gene"
            fix = "no test of this meta-analysis uses it; import it with a list of genes that it has variants of"
            yield Finding(WARNING, bundle.study, "the bundle has no genes", where, fix, "no-genes")
        elif not genes & bundle.index.keys():
            yield _found(bundle, f"has none of the {len(genes):,} genes", _gene_names(bundle, catalogue))
        elif listed is not None:
            yield from _check_variants(bundle, catalogue, listed)


COLUMNS = ("chromosome", "position", "ref", "alt")


def _check_variants(bundle: Bundle, c: Catalogue, listed: Hashes) -> Iterator[Finding]:
    """Find a study that has next to none of the listed variants."""
    own = _labels(bundle)
    there = int(np.isin(listed, _hash(*own)).sum())
    if there >= max(1, LEAST_SHARE * len(listed)):
        return
    same_place = int(np.isin(_hash_places(c.chromosome, c.position), _hash_places(own[0], own[1])).sum())
    chromosomes = set(c.chromosome.tolist()) & set(own[0].tolist())
    if not chromosomes:
        cause = f"chromosomes do not meet: {_some(own[0])} there, {_some(c.chromosome)} in the list"
    elif same_place > SAME_PLACES * len(listed):
        cause = f"{same_place:,} positions agree, with other alleles: the strand, or how alleles are named"
    else:
        build = bundle.info.get("genome_build") or "unknown"
        cause = f"positions do not agree: another genome build (that of the bundle: {build}), or other genes"
    yield _found(bundle, f"has {there:,} of the {len(listed):,} listed variants", cause)


def _found(bundle: Bundle, what: str, cause: str) -> Finding:
    fix = "compare genome build, names and alleles, or leave the study out"
    return Finding(ERROR, bundle.study, what, cause, fix, "no-match")


def _gene_names(bundle: Bundle, c: Catalogue) -> str:
    """Return an example of gene names on both sides."""
    own = np.array(list(bundle.index), object)
    return f"genes are matched by name: {_some(own)} there, {_some(c.sets.gene)} in the list"


def _some(labels: NDArray[Any]) -> str:
    """Return the first distinct labels."""
    return ", ".join(str(x)[:40] for x in dict.fromkeys(labels[:1000].tolist()) if x)[:120] or "none"


def _labels(bundle: Bundle) -> list[NDArray[Any]]:
    """Return chromosome, position, ref and alt of a study's variants."""
    table = pa.concat_tables([t.select(list(COLUMNS)) for t in bundle.variant_file.tables()])
    return [table.column(name).to_numpy(zero_copy_only=False) for name in COLUMNS]


def _hash(chromosome: NDArray[Any], position: NDArray[Any], ref: NDArray[Any], alt: NDArray[Any]) -> Hashes:
    """Return a hash of each variant, whichever way round its alleles are."""
    low, high = canonical_alleles(ref.astype(object), alt.astype(object))
    frame = pd.DataFrame({"c": chromosome.astype(object), "p": position.astype(np.int64), "l": low, "h": high})
    return np.asarray(pd.util.hash_pandas_object(frame, index=False), np.uint64)


def _hash_places(chromosome: NDArray[Any], position: NDArray[Any]) -> Hashes:
    """Return a hash of each position."""
    frame = pd.DataFrame({"c": chromosome.astype(object), "p": position.astype(np.int64)})
    return np.asarray(pd.util.hash_pandas_object(frame, index=False), np.uint64)
