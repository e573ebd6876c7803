"""A bundle from somebody else is untrusted input: what study.json, and the content of each table, must be.

Every refusal is a `BundleError` that names the file and the reason. Nothing here executes, or writes, anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from math import sqrt
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
from msgspec import Meta
from numpy.typing import NDArray

from locomass.bundle.tables import MAX_JSON_BYTES, check_file
from locomass.bundle.texts import find_odd_value
from locomass.errors import BundleError
from locomass.genotypes.products import diagonals_of_genes
from locomass.numbers import MAX_ALLELE, MAX_POSITION
from locomass.variants.chromosomes import is_chromosome

FORMAT, VERSION = "locomass-study-bundle", 1

MAX_SAMPLES = 1_000_000_000
MAX_NODES = 100_000  # of a distribution of residuals
MAX_ALLELES = 2.0 + 1e-6  # of one person
MAX_DESIGN_ROWS = 10_000  # rows of B
LAW_TOLERANCE = 1e-6  # of the moments of a distribution
V_TOLERANCE = 1e-6  # relative: V of variants.parquet against the diagonal of its genes
ROUNDING = 1e-8  # of G'WG_jj: what the subtraction of B'B may leave
ROUNDING_OF_U = 1e-6  # relative to its size for an allele that everybody has
ALL_CHROMOSOMES = "all"
CHROMOSOMES = "names without chr: 1 to 22, X = 23, Y = 24, MT = 26"
ALLELE = r"^[^\s\p{Ll}]+$"
FREQUENCY_TOLERANCE = 1e-6  # of alt_frequency against the genotype counts: float32 frequencies pass

MAX_CONTAINERS = 300_000  # objects and lists of study.json: each takes some hundred bytes of memory
MAX_BINS = 200  # of a histogram of residuals
MAX_FIGURE = 1e12  # of what `denoising` says: slopes and variances that are charted

Name = Annotated[str, Meta(min_length=1, max_length=200)]
Samples = Annotated[int, Meta(ge=1, le=MAX_SAMPLES)]
Variance = Annotated[float, Meta(gt=0, lt=1e300)]


class ResidualDescription(msgspec.Struct):
    """Distribution of the residuals of a quantitative trait or a time to event, in units of ``sd``: mean 0, variance 1.

    ``sd`` is that of the martingale residuals; where it is left out, as of quantitative traits, sigma2 tells.
    """

    node: Annotated[list[float], Meta(min_length=1, max_length=MAX_NODES)]
    chance: Annotated[list[Annotated[float, Meta(gt=0, le=1)]], Meta(min_length=1, max_length=MAX_NODES)]
    sd: Variance | None = None


class HistogramDescription(msgspec.Struct):
    """Histogram of a quantitative trait's residuals: the inner edges of its bins, one count more, and the moments."""

    chromosome: Annotated[str, Meta(min_length=1, max_length=40)]
    edge: Annotated[list[Annotated[float, Meta(ge=-MAX_FIGURE, le=MAX_FIGURE)]], Meta(max_length=MAX_BINS)]
    count: Annotated[list[Annotated[int, Meta(ge=1, le=MAX_SAMPLES)]], Meta(min_length=1, max_length=MAX_BINS + 1)]
    skewness: Annotated[float, Meta(ge=-MAX_FIGURE, le=MAX_FIGURE)]
    kurtosis: Annotated[float, Meta(ge=-MAX_FIGURE, le=MAX_FIGURE)]


Figure = Annotated[float, Meta(ge=-MAX_FIGURE, le=MAX_FIGURE)]
PerChromosome = Annotated[dict[str, Annotated[float, Meta(ge=0, le=MAX_FIGURE)]], Meta(max_length=1000)]


class ChainDescription(msgspec.Struct):
    """One chain of a sampler: whether it was kept, h2 and share of causal variants as it went."""

    kept: bool
    h2: Annotated[list[Figure], Meta(max_length=1000)]
    p: Annotated[list[Figure], Meta(max_length=1000)]


class PredictorDescription(msgspec.Struct):
    """How a trait's predictor was made: what is drawn or computed with; further keys are figures for people."""

    variants: Annotated[int, Meta(ge=0)] | None = None
    r2_promised: Figure | None = None
    overlap: str | None = None
    score_sd: PerChromosome | None = None
    n_weights: PerChromosome | None = None
    paths: Annotated[list[ChainDescription], Meta(max_length=1000)] | None = None


class DenoisingDescription(msgspec.Struct):
    """What de-noising did for one trait and chromosome; None where it is not known."""

    chromosome: Annotated[str, Meta(min_length=1, max_length=40)]
    use: Annotated[str, Meta(max_length=40)] = "unknown"
    n_samples: Annotated[int, Meta(ge=0, le=MAX_SAMPLES)] | None = None
    n_cases: Annotated[int, Meta(ge=0, le=MAX_SAMPLES)] | None = None
    n_covariates: Annotated[int, Meta(ge=0, le=MAX_DESIGN_ROWS)] | None = None
    slope: Figure | None = None
    slope_se: Annotated[float, Meta(ge=0, le=MAX_FIGURE)] | None = None
    r2: Annotated[float, Meta(ge=-MAX_FIGURE, le=1)] | None = None
    variance_before: Annotated[float, Meta(ge=0, le=MAX_FIGURE**2)] | None = None
    variance_after: Annotated[float, Meta(ge=0, le=MAX_FIGURE**2)] | None = None
    gain: Annotated[float, Meta(ge=0, le=MAX_FIGURE)] | None = None
    skewness: Figure | None = None
    kurtosis: Figure | None = None


class TraitDescription(msgspec.Struct):
    """One trait of study.json."""

    name: Name
    kind: Literal["quantitative", "binary", "time_to_event"]
    sample_set: Name
    covariance: Name
    n_samples: Samples
    sigma2: Annotated[dict[str, Variance], Meta(min_length=1, max_length=1000)]
    n_cases: Annotated[int, Meta(ge=0, le=MAX_SAMPLES)] | None = None
    person_time: Annotated[float, Meta(ge=0, le=1e300)] | None = None
    transform: Literal["none", "rint", "rint-residuals"] = "none"
    residuals: ResidualDescription | None = None
    histogram: HistogramDescription | None = None
    predictor: PredictorDescription | None = None
    denoising: Annotated[list[DenoisingDescription], Meta(max_length=1000)] | None = None


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
    share: Literal["exact", "protected"] = "exact"
    discloses: Annotated[list[Annotated[str, Meta(max_length=500)]], Meta(max_length=100)] = []
    x_coding: Annotated[str, Meta(max_length=40)] | None = None
    male_heterozygotes: Annotated[int, Meta(ge=0)] | None = None
    male_hemizygotes: Annotated[int, Meta(ge=0)] | None = None
    samples_of_unknown_sex: Annotated[int, Meta(ge=0)] | None = None
    software: Annotated[str, Meta(max_length=200)] | None = None
    source: Annotated[str, Meta(max_length=200)] | None = None
    messages: Annotated[list[str], Meta(max_length=1000)] | None = None


def read_study(path: Path) -> dict[str, Any]:
    """Read and check study.json.

    Raises:
        BundleError: absent, a link, too large, no JSON (NaN and Infinity are none), another format or version, a field
            that is missing, of another type or out of range, names that do not meet.
    """
    check_file(path, MAX_JSON_BYTES)
    content = path.read_bytes()
    if content.count(b"{") + content.count(b"[") > MAX_CONTAINERS:
        raise BundleError(f"{path} is not valid JSON of a study: more than {MAX_CONTAINERS:,} objects and lists")
    try:
        data = msgspec.json.decode(content)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise BundleError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(data, dict) or data.get("format") != FORMAT or data.get("version") != VERSION:
        found = (data.get("format"), data.get("version")) if isinstance(data, dict) else (type(data).__name__, None)
        raise BundleError(
            f"{path}: format {str(found[0])[:80]!r} version {str(found[1])[:20]!r}; this program reads {FORMAT} "
            f"version {VERSION}"
        )
    odd = find_odd_value(data)
    if odd is not None:
        raise BundleError(f"{path}: {odd}")
    try:
        study = msgspec.convert(data, StudyDescription)
    except (msgspec.ValidationError, RecursionError) as error:
        raise BundleError(f"{path}: {error}") from None
    _check_names(study, path)
    _check_chromosomes(study, path)
    for trait in study.traits:
        _check_residuals(trait, path)
        _check_histogram(trait, path)
    for trait in data["traits"]:
        if not is_record(trait.get("predictor") or {}):
            raise BundleError(
                f"{path}: predictor of trait '{trait['name']}': expected figures, lists and tables of them"
            )
    return data


def is_record(value: dict[str, Any]) -> bool:
    """Return whether a record holds scalars, lists and tables of scalars, and lists of further records only."""

    def is_scalar(x: Any) -> bool:
        return x is None or isinstance(x, str | int | float)

    def is_part(x: Any) -> bool:
        if isinstance(x, dict):
            return all(is_scalar(v) for v in x.values())
        if isinstance(x, list):
            return all(map(is_scalar, x)) or all(isinstance(v, dict) and is_record(v) for v in x)
        return is_scalar(x)

    return all(is_part(x) for x in value.values())


def _check_histogram(trait: TraitDescription, path: Path) -> None:
    """Raise unless the bins of a trait's residuals rise, and hold its samples."""
    h = trait.histogram
    if h is not None and (
        trait.kind != "quantitative"
        or len(h.count) != len(h.edge) + 1
        or bool((np.diff(h.edge) <= 0).any())
        or sum(h.count) != trait.n_samples
    ):
        raise BundleError(
            f"{path}: histogram of trait '{trait.name}': expected rising edges, one count more, of the "
            f"{trait.n_samples:,} samples of a quantitative trait; ask the study for the bundle again"
        )


def _check_residuals(trait: TraitDescription, path: Path) -> None:
    """Raise unless the residuals of a trait are a distribution of mean 0 and variance 1."""
    if trait.residuals is None:
        return
    node, chance = np.array(trait.residuals.node), np.array(trait.residuals.chance)
    sound = node.size == chance.size and bool(np.isfinite(node).all()) and bool((np.diff(node) >= 0.0).all())
    if sound:
        moments = (chance.sum() - 1.0, chance @ node, chance @ node**2 - 1.0)
        sound = max(abs(float(x)) for x in moments) < LAW_TOLERANCE
    sound &= (trait.residuals.sd is not None) == (trait.kind == "time_to_event")
    if not sound or trait.kind == "binary":
        raise BundleError(
            f"{path}: residuals of trait '{trait.name}' are no distribution of mean 0 and variance 1 of a quantitative "
            "trait or a time to event (node rising, chance summing to 1, as many of each; sd of a time to event); ask "
            "the study for the bundle again"
        )


def _check_chromosomes(study: StudyDescription, path: Path) -> None:
    """Raise unless chromosomes of sigma2 and denoising are spelled as inside the house."""
    for trait in study.traits:
        for key in (*trait.sigma2, *(record.chromosome for record in trait.denoising or [])):
            if key != ALL_CHROMOSOMES and not is_chromosome(key):
                raise BundleError(f"{path}: trait '{trait.name}': chromosome '{key[:40]}'; expected {CHROMOSOMES}")


def _check_names(study: StudyDescription, path: Path) -> None:
    """Raise unless traits, sample sets and covariances refer to each other."""
    for what, names in (
        ("trait", [t.name for t in study.traits]),
        ("sample set", [s.name for s in study.sample_sets]),
        ("covariance", [c.name for c in study.covariances]),
    ):
        twice = sorted({n for n in names if names.count(n) > 1}) if len(set(names)) < len(names) else []
        if twice:
            raise BundleError(f"{path}: {what} '{twice[0]}' is listed twice")
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


def list_values(table: pa.Table, name: str) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return the flat values of a list column and the length of each row."""
    column = table.column(name).combine_chunks()
    column = pa.concat_arrays(column.chunks) if isinstance(column, pa.ChunkedArray) else column
    lengths = np.diff(column.offsets.to_numpy()).astype(np.int64)
    return column.flatten().to_numpy(zero_copy_only=False), lengths


def check_variants_distinct(groups: Iterator[pa.Table], path: Path) -> None:
    """Raise when a variant is listed twice in tables that make one variants.parquet.

    Variants are compared by 64-bit hashes (8 bytes of memory each): among 10 million distinct ones, two share a hash
    with a chance of 3e-6, which would refuse a bundle that is right, never accept one that is wrong.
    """
    names = ["chromosome", "position", "ref", "alt"]
    hashes = [pd.util.hash_pandas_object(t.select(names).to_pandas(), index=False).to_numpy() for t in groups]
    every = np.concatenate([*hashes, np.empty(0, np.uint64)])
    if len(np.unique(every)) < len(every):
        raise BundleError(f"{path}: a variant is listed twice; give each (chromosome, position, ref, alt) once")


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
    refuse = partial(refuse_rows, path, first=first)
    position = table.column("position").to_numpy()
    refuse((position < 1) | (position > MAX_POSITION), "position", position, f"1 to {MAX_POSITION:,}")
    for name in ("chromosome", "ref", "alt"):
        lengths = np.asarray(pa.compute.utf8_length(table.column(name)))
        refuse((lengths < 1) | (lengths > MAX_ALLELE), f"length of {name}", lengths, f"1 to {MAX_ALLELE:,}")
    _check_labels(refuse, table)
    n_sets, n_traits = len(info["sample_sets"]), len(info["traits"])
    width = dict.fromkeys(("n_obs", "n_ref", "n_het", "n_alt", "alt_frequency"), n_sets) | {
        "U": n_traits,
        "V": n_traits,
    }
    flat = {}
    for name, expected in width.items():
        values, lengths = list_values(table, name)
        what = "one entry per " + ("trait" if name in "UV" else "sample set")
        refuse(lengths != expected, f"list length of {name}", lengths, f"{expected}, {what}")
        flat[name] = values.reshape(-1, expected)
    for name in ("U", "V"):
        refuse(np.asarray(~np.isfinite(flat[name]).all(axis=1)), name, flat[name], "finite numbers")
    refuse(np.asarray((flat["V"] < 0).any(axis=1)), "V", flat["V"], "variances, not negative")
    n_samples = np.array([s["n_samples"] for s in info["sample_sets"]], np.int64)
    _check_counts(refuse, flat, n_samples)
    _check_information(refuse, flat, info)


def _check_labels(refuse: Callable[..., None], table: pa.Table) -> None:
    """Check chromosome names and alleles: spelled as inside the house, REF other than ALT."""
    chromosome = table.column("chromosome").to_numpy()
    known = {word: is_chromosome(word) for word in set(chromosome.tolist())}
    refuse(np.array([not known[word] for word in chromosome], np.bool_), "chromosome", chromosome, CHROMOSOMES)
    alleles = [table.column(name).combine_chunks() for name in ("ref", "alt")]
    for name, column in zip(("ref", "alt"), alleles, strict=True):
        fine = np.asarray(pa.compute.match_substring_regex(column, ALLELE), np.bool_)
        refuse(~fine, name, column.to_numpy(zero_copy_only=False), "an allele in upper case, without blanks")
    same = np.asarray(pa.compute.equal(*alleles), np.bool_)
    refuse(same, "alt", alleles[1].to_numpy(zero_copy_only=False), "another allele than ref")


def _check_information(refuse: Callable[..., None], flat: dict[str, NDArray[Any]], info: dict[str, Any]) -> None:
    """Check that U is zero where nobody has a call, and where V says that nothing varies.

    U sums residuals over sigma2, so that it is of the size of sqrt(n) / sigma; what rounding leaves is far below.
    """
    index = {s["name"]: k for k, s in enumerate(info["sample_sets"])}
    sets = [index[t["sample_set"]] for t in info["traits"]]
    size = [sqrt(t["n_samples"] / min(t["sigma2"].values())) for t in info["traits"]]
    rounding = ROUNDING_OF_U * np.array(size)
    unseen = flat["n_obs"][:, sets] == 0
    odd = unseen & ((np.abs(flat["U"]) > rounding) | (flat["V"] > rounding**2))
    refuse(np.asarray(odd.any(axis=1)), "U", flat["U"], "0, as V, for a trait none of whose samples has a call")
    odd = (flat["V"] == 0) & (np.abs(flat["U"]) > rounding)
    refuse(np.asarray(odd.any(axis=1)), "U", flat["U"], "0 where V is 0")


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
        wrong = ~((frequency >= 0) & (frequency <= 1)) & ((n_obs > 0) | ~np.isnan(frequency))
        refuse(wrong.any(axis=1), "alt_frequency", frequency, "0 to 1 (NaN only without calls)")
        expected = (n_het + 2 * n_alt) / np.maximum(2 * n_obs, 1)
        wrong = ~withheld & (n_obs > 0) & (np.abs(frequency - expected) > FREQUENCY_TOLERANCE)
    refuse(wrong.any(axis=1), "alt_frequency", frequency, "what the genotype counts give")


class Variants(Protocol):
    """What the check of genes needs of variants.parquet: how many there are, chromosome and V of some."""

    num_rows: int

    def take(self, rows: NDArray[np.int64]) -> Any:
        """Return an object with ``chromosome`` (k,) and ``V`` (k, T)."""


def check_complete(table: pa.Table, info: dict[str, Any], path: Path) -> None:
    """Raise unless a whole file of genes/ has each of its genes with every covariance of study.json."""
    found: dict[str, set[str]] = {}
    for gene, covariance in zip(table.column("gene").to_pylist(), table.column("covariance").to_pylist(), strict=True):
        found.setdefault(gene, set()).add(covariance)
    for c in info["covariances"]:
        gene = next((gene for gene, own in found.items() if c["name"] not in own), None)
        if gene is not None:
            raise BundleError(f"{path}: gene '{gene[:40]}' has no row of covariance '{c['name'][:40]}'; each has all")


def check_genes(table: pa.Table, info: dict[str, Any], variants: Variants, path: Path) -> None:
    """Check the content of one file of genes/ against study.json and variants.parquet.

    Raises:
        BundleError: names that are unknown or repeated, indices out of range, lists whose lengths do not agree, numbers
            that are not finite.
    """
    traits_of = {c["name"]: len(c["traits"]) for c in info["covariances"]}
    covariance = np.array(table.column("covariance").to_pylist(), object)
    unknown = np.array([c not in traits_of for c in covariance], np.bool_)
    refuse_rows(path, unknown, "covariance", covariance, f"one of {', '.join(list(traits_of)[:5])}")
    gene = table.column("gene").to_pylist()
    if len(set(zip(gene, covariance.tolist(), strict=True))) < len(gene):
        raise BundleError(f"{path}: a gene is listed twice with one covariance")
    if gene and not all(0 < len(g) <= 1000 and not any(c.isspace() for c in g) for g in set(gene)):
        raise BundleError(f"{path}: a gene name is empty, longer than 1,000 characters, or has a blank")
    for name in ("start", "end"):
        place = table.column(name).to_numpy()
        refuse_rows(path, (place < 0) | (place > MAX_POSITION), name, place, f"0 to {MAX_POSITION:,}")
    flat, length = {}, {}
    for name in ("variant", "row", "column", "value", "B", "b"):
        flat[name], length[name] = list_values(table, name)
    V = _check_members(path, table, flat["variant"], length["variant"], variants)
    m = length["variant"]
    disagree = (length["row"] != length["column"]) | (length["row"] != length["value"])
    refuse_rows(path, disagree, "lengths of row, column and value", length["row"], "three equal lengths")
    of_entry = np.repeat(m, length["row"])
    row, column = flat["row"].astype(np.int64), flat["column"].astype(np.int64)
    refuse_rows(path, (row < 0) | (row >= of_entry), "row", row, "0 to m - 1")
    refuse_rows(path, (column < 0) | (column > row), "column", column, "0 to its row")
    entry = (np.repeat(np.arange(len(m)), length["row"]) * (int(m.max(initial=0)) + 1) + row) * (
        int(m.max(initial=0)) + 1
    ) + column
    if len(np.unique(entry)) < len(entry):
        raise BundleError(f"{path}: an entry (row, column) of a gene is listed twice")
    n_traits = np.array([traits_of[c] for c in covariance], np.int64)
    for name, unit in (("B", m), ("b", n_traits * m)):
        wrong = np.where(unit > 0, length[name] % np.maximum(unit, 1) != 0, length[name] != 0)
        wrong |= length[name] > MAX_DESIGN_ROWS * np.maximum(unit, 1)
        expected = f"a multiple of {'m' if name == 'B' else 'traits x m'}"
        refuse_rows(path, wrong, f"length of {name}", length[name], expected)
    for name in ("value", "B", "b"):
        refuse_rows(path, ~np.isfinite(flat[name]), name, flat[name], "finite numbers")
    _check_diagonals(path, table, flat, length, info, V)


def check_laws(table: pa.Table, info: dict[str, Any], n_variants: Mapping[str, int], path: Path) -> None:
    """Check groups of carriers against study.json and the genes they are of.

    Args:
        table: rows of one file of laws/.
        info: study.json.
        n_variants: variants of each gene.
        path: file, for the message.

    Raises:
        BundleError: names that are unknown or repeated, lists whose lengths do not agree, numbers out of range.
    """
    kinds = {t["name"]: t["kind"] for t in info["traits"]}
    samples = {s["name"]: s["n_samples"] for s in info["sample_sets"]}
    kind_of = {c["name"]: kinds[c["traits"][0]] for c in info["covariances"]}
    n_of = {c["name"]: samples[c["sample_set"]] for c in info["covariances"]}
    covariance = np.array(table.column("covariance").to_pylist(), object)
    unknown = np.array([c not in kind_of for c in covariance], np.bool_)
    refuse_rows(path, unknown, "covariance", covariance, f"one of {', '.join(list(kind_of)[:5])}")
    gene = table.column("gene").to_pylist()
    if len(set(zip(gene, covariance.tolist(), strict=True))) < len(gene):
        raise BundleError(f"{path}: a gene is listed twice with one covariance")
    flat, length = {}, {}
    for name in ("size", "carried", "variant", "dosage", "mu"):
        flat[name], length[name] = list_values(table, name)
    groups = length["size"]
    binary = np.array([kind_of[c] == "binary" for c in covariance], np.bool_)
    refuse_rows(path, length["carried"] != groups, "length of carried", length["carried"], "the number of groups")
    expected = np.where(binary, groups, 0)
    refuse_rows(path, length["mu"] != expected, "length of mu", length["mu"], "one per group of a binary trait")
    carried = flat["carried"].astype(np.int64)
    refuse_rows(path, carried < 1, "carried", carried, "1 or more")
    row_of_group = np.repeat(np.arange(groups.size), groups)
    entries = np.bincount(row_of_group, carried, minlength=groups.size)
    for name in ("variant", "dosage"):
        refuse_rows(path, length[name] != entries, f"length of {name}", length[name], "the sum of carried")
    n = np.array([n_of[c] for c in covariance], np.int64)[row_of_group]
    refuse_rows(path, (flat["size"] < 1) | (flat["size"] > n), "size", flat["size"], "1 to the samples of study.json")
    m = np.repeat(np.array([n_variants[g] for g in gene], np.int64), length["variant"])
    variant = flat["variant"].astype(np.int64)
    refuse_rows(path, (variant < 0) | (variant >= m), "variant", variant, "0 to m - 1 of the gene's list")
    dosage = np.abs(flat["dosage"])
    refuse_rows(path, ~((dosage > 0) & (dosage <= MAX_ALLELES)), "dosage", flat["dosage"], "alleles, 0 to 2, signed")
    refuse_rows(path, ~((flat["mu"] > 0) & (flat["mu"] < 1)), "mu", flat["mu"], "probabilities between 0 and 1")


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
        n_traits,
        np.array(scale),
        bounds["variant"],
        bounds["row"],
        flat["row"],
        flat["column"],
        flat["value"],
        bounds["B"],
        flat["B"],
        bounds["b"],
        flat["b"],
    )
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
    refuse_rows(
        path, (number < 0) | (number >= variants.num_rows), "variant", number, f"0 to {variants.num_rows - 1:,}"
    )
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


def refuse_rows(
    path: Path, wrong: NDArray[Any], what: str, values: NDArray[Any], expected: str, first: int = 0
) -> None:
    """Raise when anything is wrong, naming the first row; rows are counted from ``first``."""
    at = np.flatnonzero(wrong)
    if at.size:
        found = np.asarray(values[at[0]]).tolist()
        shown = found[:5] if isinstance(found, list) else found
        raise BundleError(
            f"{path}: {what} is {shown} in row {first + at[0]:,}; expected {expected} ({at.size:,} rows are wrong)"
        )
