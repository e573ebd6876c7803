"""A bundle from somebody else is untrusted input: what study.json, and the content of each table, must be.

Every refusal is a `BundleError` that names the file and the reason. Nothing here executes, or writes, anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
from msgspec import Meta
from numpy.typing import NDArray

from pipeline.errors import BundleError
from pipeline.io.bundle_tables import MAX_JSON_BYTES, check_file
from pipeline.kernels.score_statistics import diagonals_of_genes

FORMAT, VERSION = "locomass-study-bundle", 1

MAX_POSITION = 9_999_999_999
MAX_ALLELE = 10_000
MAX_SAMPLES = 1_000_000_000
MAX_DESIGN_ROWS = 10_000  # rows of B
V_TOLERANCE = 1e-6  # relative: V of variants.parquet against the diagonal of its genes
ROUNDING = 1e-8  # of G'WG_jj: what the subtraction of B'B may leave
FREQUENCY_TOLERANCE = 1e-6  # of alt_frequency against the genotype counts: float32 frequencies pass

Name = Annotated[str, Meta(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]
Samples = Annotated[int, Meta(ge=1, le=MAX_SAMPLES)]
Variance = Annotated[float, Meta(gt=0, lt=1e300)]


class TraitDescription(msgspec.Struct):
    """One trait of study.json."""

    name: Name
    kind: Literal["quantitative", "binary"]
    sample_set: Name
    covariance: Name
    n_samples: Samples
    sigma2: Annotated[dict[str, Variance], Meta(min_length=1, max_length=1000)]
    n_cases: Annotated[int, Meta(ge=0, le=MAX_SAMPLES)] | None = None


class SampleSetDescription(msgspec.Struct):
    """One sample set of study.json."""

    name: Name
    n_samples: Samples


class CovarianceDescription(msgspec.Struct):
    """One covariance of study.json."""

    name: Name
    sample_set: Name
    traits: Annotated[list[Name], Meta(min_length=1, max_length=100_000)]


class StudyDescription(msgspec.Struct):
    """What every study.json must hold; further keys are kept, not interpreted."""

    study: Name
    traits: Annotated[list[TraitDescription], Meta(min_length=1, max_length=100_000)]
    sample_sets: Annotated[list[SampleSetDescription], Meta(min_length=1, max_length=100_000)]
    covariances: Annotated[list[CovarianceDescription], Meta(min_length=1, max_length=100_000)]
    genome_build: Annotated[str, Meta(max_length=40)] | None = None
    min_cell: Annotated[int, Meta(ge=0, le=MAX_SAMPLES)] = 0


def read_study(path: Path) -> dict[str, Any]:
    """Read and check study.json.

    Raises:
        BundleError: absent, a link, too large, no JSON (NaN and Infinity are none), another format or version, a field
            that is missing, of another type or out of range, names that do not meet.
    """
    check_file(path, MAX_JSON_BYTES)
    try:
        data = msgspec.json.decode(path.read_bytes())
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise BundleError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(data, dict) or data.get("format") != FORMAT or data.get("version") != VERSION:
        found = (data.get("format"), data.get("version")) if isinstance(data, dict) else (type(data).__name__, None)
        raise BundleError(
            f"{path}: format {str(found[0])[:80]!r} version {str(found[1])[:20]!r}; this program reads {FORMAT} "
            f"version {VERSION}"
        )
    try:
        study = msgspec.convert(data, StudyDescription)
    except (msgspec.ValidationError, RecursionError) as error:
        raise BundleError(f"{path}: {error}") from None
    _check_names(study, path)
    return data


def _check_names(study: StudyDescription, path: Path) -> None:
    """Raise unless traits, sample sets and covariances refer to each other."""
    for what, names in (
        ("trait", [t.name for t in study.traits]),
        ("sample set", [s.name for s in study.sample_sets]),
        ("covariance", [c.name for c in study.covariances]),
    ):
        twice = sorted({n for n in names if names.count(n) > 1}) if len(set(names)) < len(names) else []
        if twice:
            raise BundleError(f"{path}: {what} '{twice[0]}' stands twice")
    sets = {s.name: s.n_samples for s in study.sample_sets}
    covariances = {c.name: c for c in study.covariances}
    traits = {t.name: t for t in study.traits}
    for t in study.traits:
        if t.sample_set not in sets or t.covariance not in covariances:
            raise BundleError(f"{path}: trait '{t.name}' names a sample set or covariance that is not described")
        if t.name not in covariances[t.covariance].traits or covariances[t.covariance].sample_set != t.sample_set:
            raise BundleError(f"{path}: covariance '{t.covariance}' is not one of trait '{t.name}' and its samples")
        if t.n_samples != sets[t.sample_set] or (t.n_cases or 0) > t.n_samples:
            raise BundleError(
                f"{path}: trait '{t.name}' has {t.n_samples:,} samples and {t.n_cases} cases, its sample set "
                f"{sets[t.sample_set]:,} samples; the numbers must agree"
            )
    for c in study.covariances:
        for name in c.traits:
            if name not in traits or traits[name].covariance != c.name:
                raise BundleError(f"{path}: covariance '{c.name}' lists '{name}', which is no trait of it")


def _lists(table: pa.Table, name: str) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return the flat values of a list column and the length of each row."""
    column = table.column(name).combine_chunks()
    column = pa.concat_arrays(column.chunks) if isinstance(column, pa.ChunkedArray) else column
    lengths = np.diff(column.offsets.to_numpy()).astype(np.int64)
    return column.flatten().to_numpy(zero_copy_only=False), lengths


def check_variants(table: pa.Table, info: dict[str, Any], path: Path) -> None:
    """Check the content of a whole variants.parquet against study.json.

    Raises:
        BundleError: labels out of range or repeated, lists of the wrong length, counts or frequencies that cannot be,
            U or V not finite, V negative.
    """
    check_variant_group(table, info, path)
    check_variants_distinct(iter([table]), path)


def check_variants_distinct(groups: Iterator[pa.Table], path: Path) -> None:
    """Raise when a variant stands twice in tables that make one variants.parquet.

    Variants are compared by 64-bit hashes (8 bytes of memory each): among 10 million distinct ones, two share a hash
    with a chance of 3e-6, which would refuse a bundle that is right, never accept one that is wrong.
    """
    names = ["chromosome", "position", "ref", "alt"]
    hashes = [pd.util.hash_pandas_object(t.select(names).to_pandas(), index=False).to_numpy() for t in groups]
    every = np.concatenate([*hashes, np.empty(0, np.uint64)])
    if len(np.unique(every)) < len(every):
        raise BundleError(f"{path}: a variant stands twice; give each (chromosome, position, ref, alt) once")


def check_variant_group(table: pa.Table, info: dict[str, Any], path: Path, first: int = 0) -> None:
    """Check rows of variants.parquet against study.json, each for itself.

    Args:
        table: the rows.
        info: study.json.
        path: file, for the message.
        first: number of the first of these rows.

    Raises:
        BundleError: labels out of range, lists of the wrong length, counts or frequencies that cannot be, U or V not
            finite, V negative.
    """
    refuse = partial(_refuse, path, first=first)
    position = table.column("position").to_numpy()
    refuse((position < 1) | (position > MAX_POSITION), "position", position, f"1 to {MAX_POSITION:,}")
    for name in ("chromosome", "ref", "alt"):
        lengths = np.asarray(pa.compute.utf8_length(table.column(name)))
        refuse((lengths < 1) | (lengths > MAX_ALLELE), f"length of {name}", lengths, f"1 to {MAX_ALLELE:,}")
    n_sets, n_traits = len(info["sample_sets"]), len(info["traits"])
    width = dict.fromkeys(("n_obs", "n_ref", "n_het", "n_alt", "alt_frequency"), n_sets) | {
        "U": n_traits,
        "V": n_traits,
    }
    flat = {}
    for name, expected in width.items():
        values, lengths = _lists(table, name)
        what = "one entry per " + ("trait" if name in "UV" else "sample set")
        refuse(lengths != expected, f"list length of {name}", lengths, f"{expected}, {what}")
        flat[name] = values.reshape(-1, expected)
    for name in ("U", "V"):
        refuse(~np.isfinite(flat[name]).all(axis=1), name, flat[name], "finite numbers")
    refuse((flat["V"] < 0).any(axis=1), "V", flat["V"], "variances, not negative")
    n_samples = np.array([s["n_samples"] for s in info["sample_sets"]], np.int64)
    _check_counts(refuse, flat, n_samples)


def _check_counts(refuse: Callable[..., None], flat: dict[str, NDArray[Any]], n_samples: NDArray[np.int64]) -> None:
    """Check genotype counts and frequencies, (v, S) each."""
    n_obs, frequency = flat["n_obs"].astype(np.int64), flat["alt_frequency"]
    n_ref, n_het, n_alt = (flat[name].astype(np.int64) for name in ("n_ref", "n_het", "n_alt"))
    wrong = (n_obs < 0) | (n_obs > n_samples)
    refuse(wrong.any(axis=1), "n_obs", n_obs, f"0 to the samples of study.json, {n_samples[:5].tolist()}")
    withheld = (n_ref == -1) & (n_het == -1) & (n_alt == -1)
    total = n_ref + n_het + n_alt
    wrong = ~withheld & ((n_ref < 0) | (n_het < 0) | (n_alt < 0) | (total != n_obs))
    refuse(wrong.any(axis=1), "genotype counts", total, "counts that add to n_obs, or three times -1")
    with np.errstate(invalid="ignore"):
        wrong = np.where(n_obs > 0, ~((frequency >= 0) & (frequency <= 1)), np.isinf(frequency))
        refuse(wrong.any(axis=1), "alt_frequency", frequency, "0 to 1 (NaN only without calls)")
        expected = (n_het + 2 * n_alt) / np.maximum(2 * n_obs, 1)
        wrong = ~withheld & (n_obs > 0) & (np.abs(frequency - expected) > FREQUENCY_TOLERANCE)
    refuse(wrong.any(axis=1), "alt_frequency", frequency, "what the genotype counts give")


class Variants(Protocol):
    """What the check of genes needs of variants.parquet: how many there are, chromosome and V of some."""

    num_rows: int

    def take(self, rows: NDArray[np.int64]) -> Any:
        """Return an object with ``chromosome`` (k,) and ``V`` (k, T)."""


def check_genes(table: pa.Table, info: dict[str, Any], variants: Variants, path: Path) -> None:
    """Check the content of one file of genes/ against study.json and variants.parquet.

    Raises:
        BundleError: names that are unknown or repeated, indices out of range, lists whose lengths do not agree, numbers
            that are not finite.
    """
    traits_of = {c["name"]: len(c["traits"]) for c in info["covariances"]}
    covariance = np.array(table.column("covariance").to_pylist(), object)
    unknown = np.array([c not in traits_of for c in covariance], np.bool_)
    _refuse(path, unknown, "covariance", covariance, f"one of {', '.join(list(traits_of)[:5])}")
    gene = table.column("gene").to_pylist()
    if len(set(zip(gene, covariance.tolist(), strict=True))) < len(gene):
        raise BundleError(f"{path}: a gene stands twice with one covariance")
    if gene and not all(0 < len(g) <= 1000 for g in set(gene)):
        raise BundleError(f"{path}: a gene name is empty or longer than 1,000 characters")
    flat, length = {}, {}
    for name in ("variant", "row", "column", "value", "B", "b"):
        flat[name], length[name] = _lists(table, name)
    V = _check_members(path, table, flat["variant"], length["variant"], variants)
    m = length["variant"]
    disagree = (length["row"] != length["column"]) | (length["row"] != length["value"])
    _refuse(path, disagree, "lengths of row, column and value", length["row"], "three equal lengths")
    of_entry = np.repeat(m, length["row"])
    row, column = flat["row"].astype(np.int64), flat["column"].astype(np.int64)
    _refuse(path, (row < 0) | (row >= of_entry), "row", row, "0 to m - 1")
    _refuse(path, (column < 0) | (column > row), "column", column, "0 to its row")
    entry = (np.repeat(np.arange(len(m)), length["row"]) * (int(m.max(initial=0)) + 1) + row) * (
        int(m.max(initial=0)) + 1
    ) + column
    if len(np.unique(entry)) < len(entry):
        raise BundleError(f"{path}: an entry (row, column) of a gene stands twice")
    n_traits = np.array([traits_of[c] for c in covariance], np.int64)
    for name, unit in (("B", m), ("b", n_traits * m)):
        wrong = np.where(unit > 0, length[name] % np.maximum(unit, 1) != 0, length[name] != 0)
        _refuse(path, wrong | (length[name] > MAX_DESIGN_ROWS * np.maximum(unit, 1)), f"length of {name}", length[name],
                f"a multiple of {'m' if name == 'B' else 'traits x m'}")  # fmt: skip
    for name in ("value", "B", "b"):
        _refuse(path, ~np.isfinite(flat[name]), name, flat[name], "finite numbers")
    _check_diagonals(path, table, flat, length, info, V)


def _check_diagonals(
    path: Path,
    table: pa.Table,
    flat: dict[str, NDArray[Any]],
    length: dict[str, NDArray[np.int64]],
    info: dict[str, Any],
    V: NDArray[np.float64],
) -> None:
    """Raise unless V_jj of the genes' variants, (k, T), is the diagonal of every ``(G'WG - B'B - b'b) / sigma2``."""
    index = {t["name"]: k for k, t in enumerate(info["traits"])}
    traits_of = {c["name"]: np.array([index[t] for t in c["traits"]]) for c in info["covariances"]}
    bounds = {name: np.concatenate(([0], np.cumsum(n))) for name, n in length.items()}
    labels = [table.column(c).to_pylist() for c in ("gene", "chromosome", "covariance")]
    traits = [traits_of[covariance] for covariance in labels[2]]
    pairs = zip(labels[1], traits, strict=True)
    scale = [_sigma2(info["traits"][i], chromosome, path) for chromosome, at in pairs for i in at]
    n_traits = np.array([len(at) for at in traits], np.int64)
    found, square = diagonals_of_genes(
        n_traits, np.array(scale), bounds["variant"], bounds["row"], flat["row"], flat["column"], flat["value"],
        bounds["B"], flat["B"], bounds["b"], flat["b"],
    )  # fmt: skip
    of = np.repeat(np.arange(len(traits)), length["variant"] * n_traits)  # which gene
    ends = zip(bounds["variant"][:-1], bounds["variant"][1:], traits, strict=True)
    expected = np.concatenate([V[low:high, at].T.ravel() for low, high, at in ends] or [np.empty(0)])
    wrong = np.flatnonzero(np.abs(found - expected) > V_TOLERANCE * np.abs(expected) + ROUNDING * square)
    if len(wrong):
        at = wrong[0]
        k = of[at]
        i, j = divmod(int(at - np.searchsorted(of, k)), int(length["variant"][k]))
        raise BundleError(
            f"{path}: gene '{labels[0][k][:40]}', trait '{info['traits'][traits[k][i]]['name']}': V_jj of its variant "
            f"{j} is {found[at]:.6g} by (G'WG - B'B - b'b) / sigma2, but {expected[at]:.6g} in variants.parquet"
        )


def _sigma2(trait: dict[str, Any], chromosome: str, path: Path) -> float:
    """Return the residual variance of a trait on a chromosome."""
    value = trait["sigma2"].get(chromosome, trait["sigma2"].get("all"))
    if value is None:
        raise BundleError(f"{path}: trait '{trait['name']}' has no sigma2 for chromosome {chromosome[:20]}")
    return float(value)


def _check_members(
    path: Path, table: pa.Table, variant: NDArray[Any], m: NDArray[np.int64], variants: Variants
) -> NDArray[np.float64]:
    """Check the variant lists of genes: in range, distinct, on the gene's chromosome, the same for every covariance.

    Returns:
        (k, T) V of the variants, as listed.
    """
    number = variant.astype(np.int64)
    _refuse(path, (number < 0) | (number >= variants.num_rows), "variant", number, f"0 to {variants.num_rows - 1:,}")
    owner = np.repeat(np.arange(len(m)), m)
    if len(np.unique(owner * max(variants.num_rows, 1) + number)) < len(number):
        raise BundleError(f"{path}: a gene lists a variant twice")
    there = variants.take(number)
    own = np.repeat(np.array(table.column("chromosome").to_pylist(), object), m)
    if (own != there.chromosome).any():
        raise BundleError(f"{path}: a gene lists a variant of another chromosome")
    first: dict[str, NDArray[np.int64]] = {}
    bounds = np.concatenate(([0], np.cumsum(m)))
    for k, gene in enumerate(table.column("gene").to_pylist()):
        mine = number[bounds[k] : bounds[k + 1]]
        if not np.array_equal(first.setdefault(gene, mine), mine):
            raise BundleError(f"{path}: gene '{gene[:40]}' lists different variants for different covariances")
    return np.asarray(there.V)


def _refuse(path: Path, wrong: NDArray[Any], what: str, values: NDArray[Any], expected: str, first: int = 0) -> None:
    """Raise when anything is wrong, naming the first row; rows are counted from ``first``."""
    at = np.flatnonzero(wrong)
    if at.size:
        found = np.asarray(values[at[0]]).tolist()
        shown = found[:5] if isinstance(found, list) else found
        raise BundleError(
            f"{path}: {what} is {shown} in row {first + at[0]:,}; expected {expected} ({at.size:,} rows are wrong)"
        )
