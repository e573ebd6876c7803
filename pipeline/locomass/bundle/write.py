"""Write a study bundle from plain arrays: what the importers of other tools' files, and any other program, call.

The tables are held to `locomass.schema` before they are written, and the finished bundle is signed: ``digests.json``
names the BLAKE2b digest of every file, so that a truncated copy or a later change is seen.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from locomass import __version__
from locomass.bundle.check import FORMAT, VERSION
from locomass.bundle.study import list_array
from locomass.errors import InputError
from locomass.files.atomic import atomic_directory, atomic_path
from locomass.files.parts import digest_content
from locomass.numbers import Floats
from locomass.schema import BUNDLE_GENES, BUNDLE_VARIANTS, OPTIONAL_TABLES, validate_table
from locomass.variants.chromosomes import chromosome_order
from locomass.variants.identity import canonical_alleles, name_unseen, number_places

Integers = NDArray[np.int64]
Labels = NDArray[np.object_]

DIGESTS = "digests.json"
GENES_PER_PART = 500
VARIANTS_PER_GROUP = 8_192  # rows of variants.parquet that a reader decodes at once
GENES_PER_GROUP = 40  # rows of genes/ that are read at once: the meta-analysis of fifty studies takes so many genes
ENTRIES_PER_PART = 2_000_000  # entries of the information matrices of one file of genes/
ASYMMETRY = 1e-8  # relative to the diagonal; larger differences between V_ij and V_ji are an error


@dataclass(frozen=True)
class GeneStatistics:
    """One gene: its variants as rows of the variant arrays, and V among them.

    Attributes:
        gene, chromosome: labels.
        start, end: first and last position.
        variant: (m,) distinct rows of the variant arrays.
        V: (m, m) symmetric information matrix, U's variance under the null.
    """

    gene: str
    chromosome: str
    start: int
    end: int
    variant: Integers
    V: Floats


@dataclass(frozen=True)
class TraitStatistics:
    """Score statistics of one trait in one study, as plain arrays; ALT is counted.

    Attributes:
        trait: name; kind: ``quantitative`` or ``binary``.
        n_samples, n_cases: samples and, of a binary trait, cases among them (None where unknown).
        chromosome, position, ref, alt: (v,) labels, distinct variants.
        n_obs: (v,) samples with a call.
        n_ref, n_het, n_alt: (v,) genotype counts, all three -1 where unknown or withheld.
        alt_frequency: (v,) NaN where n_obs is 0.
        U, V: (v,) score statistic ``G'(y - mu) / phi`` and its variance (units of 1 / trait for U, 1 / trait^2 for V).
        genes: in any order; may be an iterator, so that matrices need not all be in memory.
        source: program whose files these are.
        notes: what was dropped or assumed on the way.
    """

    trait: str
    kind: str
    n_samples: int
    n_cases: int | None
    chromosome: Labels
    position: Integers
    ref: Labels
    alt: Labels
    n_obs: Integers
    n_ref: Integers
    n_het: Integers
    n_alt: Integers
    alt_frequency: Floats
    U: Floats
    V: Floats
    genes: Iterable[GeneStatistics]
    source: str
    notes: list[str] = field(default_factory=list)


def write_trait_bundle(
    path: str | Path, traits: Sequence[TraitStatistics], *, study: str, genome_build: str | None
) -> None:
    """Write traits of one study as a signed bundle, p = 0 and sigma2 = 1: the stored matrix is V itself.

    The traits may be seen on different variants: the bundle has their union, ALT as in the first trait that has the
    variant. A variant that a trait lacks has U = 0, V = 0 and no samples there.

    Args:
        path: directory to write.
        traits: at least one, distinct names.
        study: name of the study.
        genome_build: such as GRCh38; None where unknown.

    Raises:
        InputError: repeated traits, shapes that do not agree, a variant twice, V not symmetric, a non-finite number.
    """
    if not traits or len({t.trait for t in traits}) < len(traits):
        raise InputError(f"a bundle needs distinct traits, got {[t.trait for t in traits]}")
    for trait in traits:
        _check_trait(trait)
    union = _unite(traits)
    write_bundle_tables(
        path, _describe(traits, study, genome_build), _variant_table(traits, union), _parts(traits, union)
    )


def write_bundle_tables(path: str | Path, info: dict[str, Any], variants: pa.Table, parts: Iterable[pa.Table]) -> None:
    """Write a bundle from its tables, validated against the schema, and sign it.

    Args:
        path: directory to write; it appears whole or not at all.
        info: content of study.json, ``format`` and ``version`` left out or as this program writes them.
        variants: the table `BUNDLE_VARIANTS`.
        parts: tables `BUNDLE_GENES`, one per file of genes/.

    Raises:
        FormatError: a table breaks the schema.
    """
    path = Path(path)
    with atomic_directory(path) as folder:
        (folder / "genes").mkdir()
        for number, part in enumerate(parts):
            name = f"{number:05d}.parquet"
            table = validate_table(part, BUNDLE_GENES, path / "genes" / name)
            pq.write_table(table, folder / "genes" / name, compression="zstd", row_group_size=GENES_PER_GROUP)
        table = validate_table(variants, BUNDLE_VARIANTS, path / "variants.parquet")
        pq.write_table(table, folder / "variants.parquet", compression="zstd", row_group_size=VARIANTS_PER_GROUP)
        text = json.dumps({"format": FORMAT, "version": VERSION, **info}, indent=1, allow_nan=False)
        (folder / "study.json").write_text(text + "\n", encoding="utf-8")
        sign_bundle(folder)


def sign_bundle(path: str | Path) -> dict[str, str]:
    """Write digests.json into a bundle and return it: file name -> BLAKE2b-128 digest of the content, hexadecimal."""
    path = Path(path)
    digests = {name: digest_content(path / name) for name in bundle_files(path)}
    with atomic_path(path / DIGESTS) as temporary:
        temporary.write_text(json.dumps(digests, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return digests


def bundle_files(path: Path) -> list[str]:
    """Return the files that make a bundle, relative to it: study.json, variants.parquet, genes/, optional tables."""
    folders = ("genes", *(table.name for table in OPTIONAL_TABLES))
    parts = [f"{name}/{p.name}" for name in folders for p in sorted((path / name).glob("*.parquet"))]
    return ["study.json", "variants.parquet", *parts]


@dataclass(frozen=True)
class _Union:
    """Variants of all traits, sorted; ``place[t]`` and ``sign[t]`` say where each variant of trait t went."""

    chromosome: Labels
    position: Integers
    ref: Labels
    alt: Labels
    place: list[Integers]
    sign: list[Floats]


def _unite(traits: Sequence[TraitStatistics]) -> _Union:
    """Lay the variants of several traits on their sorted union."""
    frames = []
    alleles = _name_alleles(traits)
    for k, t in enumerate(traits):
        ref, alt = alleles[k]
        low, high = canonical_alleles(ref, alt)
        key = {"chromosome": t.chromosome, "position": t.position, "low": low, "high": high}
        frames.append(pd.DataFrame({**key, "ref": ref, "alt": alt, "trait": k, "row": np.arange(len(t.position))}))
        if frames[-1].duplicated(["chromosome", "position", "low", "high"]).any():
            twice = frames[-1][frames[-1].duplicated(["chromosome", "position", "low", "high"])].iloc[0]
            raise InputError(
                f"trait '{t.trait}': variant {twice.chromosome}:{twice.position}:{twice.ref}:{twice.alt} "
                "is listed twice"
            )
    table = pd.concat(frames, ignore_index=True)
    rank = {c: i for i, c in enumerate(sorted(table["chromosome"].unique(), key=chromosome_order))}
    table["rank"] = table["chromosome"].map(rank)
    table = table.sort_values(["rank", "position", "low", "high", "trait"], kind="stable")
    table["number"] = table.groupby(["rank", "position", "low", "high"], sort=False).ngroup()
    first = table.drop_duplicates("number")
    first_alt = first["alt"].to_numpy(object)
    place, sign = [], []
    for k in range(len(traits)):
        mine = table[table["trait"] == k].sort_values("row")
        number = mine["number"].to_numpy(np.int64)
        place.append(number)
        sign.append(np.where(mine["alt"].to_numpy(object) == first_alt[number], 1.0, -1.0))
    labels = (first[c].to_numpy(object) for c in ("chromosome", "ref", "alt"))
    chromosome, ref, alt = labels
    return _Union(chromosome, first["position"].to_numpy(np.int64), ref, alt, place, sign)


def _name_alleles(traits: Sequence[TraitStatistics]) -> list[tuple[Labels, Labels]]:
    """Return REF and ALT of each trait's variants, alleles that nobody carries named as another trait names them."""
    chromosome, ref, alt = (np.concatenate([getattr(t, c) for t in traits]) for c in ("chromosome", "ref", "alt"))
    position = np.concatenate([t.position for t in traits])
    ends = np.cumsum([len(t.position) for t in traits])
    place = number_places(chromosome, position)
    named = name_unseen(place, ref, alt, np.repeat(np.arange(len(traits)), np.diff(ends, prepend=0)))
    return list(zip(*(np.split(column, ends[:-1]) for column in named), strict=True))


def _check_trait(t: TraitStatistics) -> None:
    """Raise unless the arrays of a trait agree and are finite."""
    if t.kind not in ("quantitative", "binary"):
        raise InputError(f"trait '{t.trait}': kind '{t.kind}'; expected quantitative or binary")
    v = len(t.position)
    for name in ("chromosome", "ref", "alt", "n_obs", "n_ref", "n_het", "n_alt", "alt_frequency", "U", "V"):
        if len(getattr(t, name)) != v:
            raise InputError(f"trait '{t.trait}': {len(getattr(t, name))} entries of {name} for {v} variants")
    for name in ("U", "V"):
        bad = np.flatnonzero(~np.isfinite(getattr(t, name)))
        if bad.size:
            at = f"{t.chromosome[bad[0]]}:{t.position[bad[0]]}:{t.ref[bad[0]]}:{t.alt[bad[0]]}"
            raise InputError(
                f"trait '{t.trait}': {name} of variant {at} is {getattr(t, name)[bad[0]]}; expected a number"
            )


def _describe(traits: Sequence[TraitStatistics], study: str, genome_build: str | None) -> dict[str, Any]:
    """Return the content of study.json."""
    return {
        "study": study,
        "genome_build": genome_build,
        "predictor": "unknown",
        "masks": None,
        "traits": [
            {
                "name": t.trait,
                "kind": t.kind,
                "sample_set": f"s{k + 1}",
                "covariance": f"{t.kind}:{t.trait}",
                "n_samples": int(t.n_samples),
                "n_cases": None if t.n_cases is None else int(t.n_cases),
                "sigma2": {"all": 1.0},
                "denoising": [],
            }
            for k, t in enumerate(traits)
        ],
        "sample_sets": [{"name": f"s{k + 1}", "n_samples": int(t.n_samples)} for k, t in enumerate(traits)],
        "covariances": [
            {"name": f"{t.kind}:{t.trait}", "kind": t.kind, "sample_set": f"s{k + 1}", "traits": [t.trait]}
            for k, t in enumerate(traits)
        ],
        "missing": "unknown",
        "max_maf": 0.5,
        "min_cell": 0,
        "software": f"locomass {__version__}",
        "source": traits[0].source,
        "notes": [note for t in traits for note in t.notes],
    }


def _variant_table(traits: Sequence[TraitStatistics], union: _Union) -> pa.Table:
    """Return variants.parquet of the union."""
    v, k = len(union.position), len(traits)
    counts = {name: np.full((v, k), -1, np.int32) for name in ("n_ref", "n_het", "n_alt")}
    n_obs, frequency = np.zeros((v, k), np.int32), np.full((v, k), np.nan)
    U, V = np.zeros((v, k)), np.zeros((v, k))
    for t, (trait, place, sign) in enumerate(zip(traits, union.place, union.sign, strict=True)):
        kept = sign > 0
        n_obs[place, t] = trait.n_obs
        counts["n_ref"][place, t] = np.where(kept, trait.n_ref, trait.n_alt)
        counts["n_het"][place, t] = trait.n_het
        counts["n_alt"][place, t] = np.where(kept, trait.n_alt, trait.n_ref)
        frequency[place, t] = np.where(kept, trait.alt_frequency, 1 - trait.alt_frequency)
        U[place, t] = sign * trait.U
        V[place, t] = trait.V
    columns = {
        "chromosome": pa.array(union.chromosome, pa.string()),
        "position": pa.array(union.position, pa.int64()),
        "ref": pa.array(union.ref, pa.string()),
        "alt": pa.array(union.alt, pa.string()),
        "n_obs": list_array(n_obs, pa.int32()),
        **{name: list_array(values, pa.int32()) for name, values in counts.items()},
        "alt_frequency": list_array(frequency, pa.float64()),
        "U": list_array(U, pa.float64()),
        "V": list_array(V, pa.float64()),
    }
    return pa.table(columns)


@dataclass
class _Rows:
    """Rows of a file of genes/ as they come."""

    columns: dict[str, list[Any]] = field(default_factory=lambda: {c.name: [] for c in BUNDLE_GENES.columns})
    entries: int = 0

    def add(self, gene: GeneStatistics, covariance: str, variant: Integers, V: Floats) -> None:
        """Add one gene and covariance; V is stored as its lower triangle, with no B to subtract."""
        row, column = np.nonzero(np.tril(V))
        values = (
            gene.gene,
            gene.chromosome,
            int(gene.start),
            int(gene.end),
            covariance,
            variant.astype(np.int32),
            row.astype(np.int32),
            column.astype(np.int32),
            V[row, column],
            np.empty(0),
            np.empty(0),
            "",
        )
        for name, value in zip(self.columns, values, strict=True):
            self.columns[name].append(value)
        self.entries += len(row)

    def table(self) -> pa.Table:
        """Return the rows as a table."""
        return pa.table(
            {
                c.name: list_array(self.columns[c.name], c.type.value_type)
                if pa.types.is_list(c.type)
                else pa.array(self.columns[c.name], c.type)
                for c in BUNDLE_GENES.columns
            }
        )


def _parts(traits: Sequence[TraitStatistics], union: _Union) -> Iterator[pa.Table]:
    """Give the files of genes/, a bounded number of matrix entries each."""
    rows, seen = _Rows(), set[str]()
    for members in _by_gene(traits):
        gene = next(g for g in members if g is not None)
        if gene.gene in seen:
            raise InputError(f"gene '{gene.gene}' is listed twice; give each gene one name")
        seen.add(gene.gene)
        variant = np.unique(np.concatenate([union.place[t][g.variant] for t, g in enumerate(members) if g is not None]))
        for t, member in enumerate(members):
            rows.add(gene, f"{traits[t].kind}:{traits[t].trait}", variant, _lay(member, traits[t], union, t, variant))
        if len(rows.columns["gene"]) >= GENES_PER_PART or rows.entries >= ENTRIES_PER_PART:
            yield rows.table()
            rows = _Rows()
    if rows.columns["gene"] or not seen:
        yield rows.table()


def _by_gene(traits: Sequence[TraitStatistics]) -> Iterator[list[GeneStatistics | None]]:
    """Give each gene of any trait with its statistics in every trait; one trait alone is streamed."""
    if len(traits) == 1:
        for gene in traits[0].genes:
            yield [gene]
        return
    tables = [{g.gene: g for g in t.genes} for t in traits]
    for name in dict.fromkeys(name for table in tables for name in table):
        yield [table.get(name) for table in tables]


def _lay(gene: GeneStatistics | None, trait: TraitStatistics, union: _Union, t: int, variant: Integers) -> Floats:
    """Return V of a gene on ``variant``, rows of the union, zero where the trait lacks one."""
    V = np.zeros((len(variant), len(variant)))
    if gene is None:
        return V
    m = len(gene.variant)
    where = f"gene '{gene.gene}' of trait '{trait.trait}'"
    if gene.V.shape != (m, m) or len(np.unique(gene.variant)) < m:
        raise InputError(f"{where}: {m} variants, some repeated, or V of shape {gene.V.shape}; expected ({m}, {m})")
    if not np.isfinite(gene.V).all():
        raise InputError(f"{where}: V has a number that is not finite")
    if m and np.abs(gene.V - gene.V.T).max() > ASYMMETRY * np.abs(np.diag(gene.V)).max():
        raise InputError(f"{where}: V is not symmetric")
    at = np.searchsorted(variant, union.place[t][gene.variant])
    sign = union.sign[t][gene.variant]
    V[np.ix_(at, at)] = gene.V * np.outer(sign, sign)
    return V
