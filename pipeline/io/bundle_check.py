"""A bundle from somebody else is untrusted input: what study.json and each table must be before it is used.

Sizes are read from file and Parquet metadata before any content is decoded, so that a small file cannot ask for much
memory. Every refusal is a `BundleError` that names the file and the reason. Nothing here executes, or writes, anything.
"""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from msgspec import Meta
from numpy.typing import NDArray

from pipeline.errors import BundleError, FormatError
from pipeline.schema import BUNDLE_VARIANTS, TableSchema, validate_table

FORMAT, VERSION = "locomass-study-bundle", 1

MAX_JSON_BYTES = 64 << 20
MAX_FILE_BYTES = 16 << 30  # of one Parquet file on disk
MAX_DECODED_BYTES = 8 << 30  # of one Parquet file in memory
MAX_VARIANTS = 100_000_000
MAX_ROWS_PER_PART = 5_000_000
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


def check_file(path: Path, max_bytes: int) -> None:
    """Raise unless ``path`` is an ordinary file (no link) of bounded size."""
    try:
        status = path.lstat()
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}; the bundle is incomplete") from None
    if not stat.S_ISREG(status.st_mode):
        kind = "a link" if stat.S_ISLNK(status.st_mode) else "no ordinary file"
        raise BundleError(f"{path} is {kind}; a bundle holds ordinary files only")
    if status.st_size > max_bytes:
        raise BundleError(f"{path} has {status.st_size:,} bytes; the most accepted is {max_bytes:,}")


def read_bundle_table(path: Path, schema: TableSchema) -> pa.Table:
    """Read a Parquet file of a bundle after its metadata has passed.

    Raises:
        BundleError: a link, damaged, of another schema, too large on disk or (by its metadata) in memory, with nulls,
            or with more content than its metadata say.
    """
    check_file(path, MAX_FILE_BYTES)
    try:
        with pq.ParquetFile(
            path, thrift_string_size_limit=MAX_JSON_BYTES, thrift_container_size_limit=10_000_000, memory_map=False
        ) as file:
            promised = _check_metadata(file, path, schema)
            table = file.read(columns=[c.name for c in schema.columns], use_pandas_metadata=False)
    except (OSError, ValueError, pa.ArrowException, MemoryError) as error:
        raise BundleError(f"{path} is damaged or cut short: {str(error)[:300]}") from None
    try:
        table = validate_table(table, schema, path)
    except FormatError as error:
        raise BundleError(str(error)) from None
    for column in schema.columns:
        _check_values(table.column(column.name), promised[column.name], column.name, path)
    return table


def _check_metadata(file: Any, path: Path, schema: TableSchema) -> dict[str, int]:
    """Check sizes and columns that the metadata promise; return the number of values of each column."""
    metadata = file.metadata
    limit = MAX_VARIANTS if schema is BUNDLE_VARIANTS else MAX_ROWS_PER_PART
    if metadata.num_rows > limit or metadata.num_row_groups > limit:
        raise BundleError(f"{path}: {metadata.num_rows:,} rows; the most accepted is {limit:,}")
    names = file.schema_arrow.names
    for column in schema.columns:
        if names.count(column.name) != 1:
            count = names.count(column.name)
            raise BundleError(f"{path}: {count} columns '{column.name}', expected 1 ({column.meaning})")
        found = file.schema_arrow.field(column.name).type
        if found != column.type:
            raise BundleError(f"{path}: column '{column.name}' has type {found}, expected {column.type}")
    values, decoded = dict.fromkeys(names, 0), 0
    for g in range(metadata.num_row_groups):
        group = metadata.row_group(g)
        for c in range(group.num_columns):
            chunk = group.column(c)
            values[chunk.path_in_schema.split(".")[0]] += chunk.num_values
            decoded += max(chunk.total_uncompressed_size, 8 * chunk.num_values)
    if decoded > MAX_DECODED_BYTES:
        raise BundleError(
            f"{path}: {path.stat().st_size:,} bytes that would take {decoded:,} in memory; the most accepted is "
            f"{MAX_DECODED_BYTES:,}"
        )
    return values


def _check_values(column: pa.ChunkedArray, promised: int, name: str, path: Path) -> None:
    """Raise when a column has nulls, or more values than promised."""
    chunks = column.chunks
    nested = pa.types.is_list(column.type)
    found = sum(len(c.flatten()) if nested else len(c) for c in chunks)
    if found > promised:
        raise BundleError(f"{path}: column '{name}' has {found:,} values, its metadata say {promised:,}")
    nulls = column.null_count + (sum(c.flatten().null_count for c in chunks) if nested else 0)
    if nulls:
        raise BundleError(f"{path}: column '{name}' has {nulls:,} nulls; expected a value in every row")


def _lists(table: pa.Table, name: str) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return the flat values of a list column and the length of each row."""
    column = table.column(name).combine_chunks()
    column = pa.concat_arrays(column.chunks) if isinstance(column, pa.ChunkedArray) else column
    lengths = np.diff(column.offsets.to_numpy()).astype(np.int64)
    return column.flatten().to_numpy(zero_copy_only=False), lengths


def check_variants(table: pa.Table, info: dict[str, Any], path: Path) -> None:
    """Check the content of variants.parquet against study.json.

    Raises:
        BundleError: labels out of range or repeated, lists of the wrong length, counts or frequencies that cannot be,
            U or V not finite, V negative.
    """
    position = table.column("position").to_numpy()
    _refuse(path, (position < 1) | (position > MAX_POSITION), "position", position, f"1 to {MAX_POSITION:,}")
    for name in ("chromosome", "ref", "alt"):
        lengths = np.asarray(pa.compute.utf8_length(table.column(name)))
        _refuse(path, (lengths < 1) | (lengths > MAX_ALLELE), f"length of {name}", lengths, f"1 to {MAX_ALLELE:,}")
    keys = table.select(["chromosome", "position", "ref", "alt"]).group_by(["chromosome", "position", "ref", "alt"])
    if keys.aggregate([]).num_rows < table.num_rows:
        raise BundleError(f"{path}: a variant stands twice; give each (chromosome, position, ref, alt) once")
    n_sets, n_traits = len(info["sample_sets"]), len(info["traits"])
    width = dict.fromkeys(("n_obs", "n_ref", "n_het", "n_alt", "alt_frequency"), n_sets) | {
        "U": n_traits,
        "V": n_traits,
    }
    flat = {}
    for name, expected in width.items():
        values, lengths = _lists(table, name)
        what = "one entry per " + ("trait" if name in "UV" else "sample set")
        _refuse(path, lengths != expected, f"list length of {name}", lengths, f"{expected}, {what}")
        flat[name] = values.reshape(-1, expected)
    for name in ("U", "V"):
        _refuse(path, ~np.isfinite(flat[name]).all(axis=1), name, flat[name], "finite numbers")
    _refuse(path, (flat["V"] < 0).any(axis=1), "V", flat["V"], "variances, not negative")
    n_samples = np.array([s["n_samples"] for s in info["sample_sets"]], np.int64)
    _check_counts(path, flat, n_samples)


def _check_counts(path: Path, flat: dict[str, NDArray[Any]], n_samples: NDArray[np.int64]) -> None:
    """Check genotype counts and frequencies, (v, S) each."""
    n_obs, frequency = flat["n_obs"].astype(np.int64), flat["alt_frequency"]
    n_ref, n_het, n_alt = (flat[name].astype(np.int64) for name in ("n_ref", "n_het", "n_alt"))
    wrong = (n_obs < 0) | (n_obs > n_samples)
    _refuse(path, wrong.any(axis=1), "n_obs", n_obs, f"0 to the samples of study.json, {n_samples[:5].tolist()}")
    withheld = (n_ref == -1) & (n_het == -1) & (n_alt == -1)
    total = n_ref + n_het + n_alt
    wrong = ~withheld & ((n_ref < 0) | (n_het < 0) | (n_alt < 0) | (total != n_obs))
    _refuse(path, wrong.any(axis=1), "genotype counts", total, "counts that add to n_obs, or three times -1")
    with np.errstate(invalid="ignore"):
        wrong = np.where(n_obs > 0, ~((frequency >= 0) & (frequency <= 1)), np.isinf(frequency))
        _refuse(path, wrong.any(axis=1), "alt_frequency", frequency, "0 to 1 (NaN only without calls)")
        expected = (n_het + 2 * n_alt) / np.maximum(2 * n_obs, 1)
        wrong = ~withheld & (n_obs > 0) & (np.abs(frequency - expected) > FREQUENCY_TOLERANCE)
    _refuse(path, wrong.any(axis=1), "alt_frequency", frequency, "what the genotype counts give")


def check_genes(table: pa.Table, info: dict[str, Any], variants: pa.Table, path: Path) -> None:
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
    _check_members(path, table, flat["variant"], length["variant"], variants)
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
    _check_diagonals(path, table, flat, length, info, variants)


def _check_diagonals(
    path: Path,
    table: pa.Table,
    flat: dict[str, NDArray[Any]],
    length: dict[str, NDArray[np.int64]],
    info: dict[str, Any],
    variants: pa.Table,
) -> None:
    """Raise unless V_jj of variants.parquet is the diagonal of every gene's ``(G'WG - B'B - b'b) / sigma2``."""
    V = _lists(variants, "V")[0].reshape(variants.num_rows, len(info["traits"]))
    index = {t["name"]: k for k, t in enumerate(info["traits"])}
    traits = {c["name"]: np.array([index[t] for t in c["traits"]]) for c in info["covariances"]}
    bounds = {name: np.concatenate(([0], np.cumsum(n))) for name, n in length.items()}
    labels = (table.column(c).to_pylist() for c in ("gene", "chromosome", "covariance"))
    for k, (gene, chromosome, covariance) in enumerate(zip(*labels, strict=True)):
        cell = {name: flat[name][bounds[name][k] : bounds[name][k + 1]] for name in flat}
        t, variant = traits[covariance], cell["variant"]
        m = len(variant)
        if not m:
            continue
        square = np.zeros(m)
        on = cell["row"] == cell["column"]
        square[cell["row"][on]] = cell["value"][on]
        b = cell["b"].reshape(len(t), -1, m)
        scale = np.array([_sigma2(info["traits"][i], chromosome, path) for i in t])[:, None]
        found = (square - (cell["B"].reshape(-1, m) ** 2).sum(axis=0) - (b**2).sum(axis=1)) / scale
        expected = V[variant][:, t].T
        wrong = np.abs(found - expected) > V_TOLERANCE * np.abs(expected) + ROUNDING * np.abs(square) / scale
        if wrong.any():
            i, j = np.argwhere(wrong)[0]
            raise BundleError(
                f"{path}: gene '{gene[:40]}', trait '{info['traits'][t[i]]['name']}': V_jj of its variant {j} is "
                f"{found[i, j]:.6g} by (G'WG - B'B - b'b) / sigma2, but {expected[i, j]:.6g} in variants.parquet"
            )


def _sigma2(trait: dict[str, Any], chromosome: str, path: Path) -> float:
    """Return the residual variance of a trait on a chromosome."""
    value = trait["sigma2"].get(chromosome, trait["sigma2"].get("all"))
    if value is None:
        raise BundleError(f"{path}: trait '{trait['name']}' has no sigma2 for chromosome {chromosome[:20]}")
    return float(value)


def _check_members(
    path: Path, table: pa.Table, variant: NDArray[Any], m: NDArray[np.int64], variants: pa.Table
) -> None:
    """Check the variant lists of genes: in range, distinct, on the gene's chromosome, the same for every covariance."""
    number = variant.astype(np.int64)
    _refuse(path, (number < 0) | (number >= variants.num_rows), "variant", number, f"0 to {variants.num_rows - 1:,}")
    owner = np.repeat(np.arange(len(m)), m)
    if len(np.unique(owner * max(variants.num_rows, 1) + number)) < len(number):
        raise BundleError(f"{path}: a gene lists a variant twice")
    own = table.column("chromosome").take(pa.array(owner)).combine_chunks()
    there = variants.column("chromosome").take(pa.array(number)).combine_chunks()
    if not pa.compute.all(pa.compute.equal(own, there)).as_py() and len(number):
        raise BundleError(f"{path}: a gene lists a variant of another chromosome")
    first: dict[str, NDArray[np.int64]] = {}
    bounds = np.concatenate(([0], np.cumsum(m)))
    for k, gene in enumerate(table.column("gene").to_pylist()):
        mine = number[bounds[k] : bounds[k + 1]]
        if not np.array_equal(first.setdefault(gene, mine), mine):
            raise BundleError(f"{path}: gene '{gene[:40]}' lists different variants for different covariances")


def _refuse(path: Path, wrong: NDArray[Any], what: str, values: NDArray[Any], expected: str) -> None:
    """Raise when anything is wrong, naming the first row."""
    at = np.flatnonzero(wrong)
    if at.size:
        found = np.asarray(values[at[0]]).tolist()
        shown = found[:5] if isinstance(found, list) else found
        raise BundleError(
            f"{path}: {what} is {shown} in row {at[0]:,}; expected {expected} ({at.size:,} rows are wrong)"
        )
