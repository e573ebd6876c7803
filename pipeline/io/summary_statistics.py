"""GWAS summary statistics of any known program as one set of arrays, with an account of the rows left out."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import yaml
from numpy.typing import NDArray
from scipy import special

from pipeline.errors import FormatError
from pipeline.io.delimited import MISSING, Block, DelimitedFile, decode_strings, parse_numbers
from pipeline.io.summary_layouts import apply_column_map, detect_layout
from pipeline.io.tables import normalise_chromosomes

Floats = NDArray[np.float64]
_LN10 = float(np.log(10.0))
#: Lines kept as examples of what was left out.
_EXAMPLES = 20
_KEPT, _OTHER_TEST = "", "test is not ADD"


@dataclass(frozen=True, slots=True)
class SummaryStatistics:
    """m variants, in file order; every array is (m,).

    Attributes:
        path: the file.
        format: name of the detected format, or ``column map``.
        chromosome: normalised labels; "" when the file names variants by id only.
        position: base pairs, 1-based; 0 when unknown.
        id: rsID or other name; "" when the file has none.
        effect_allele: upper-case; the allele that ``beta`` and ``eaf`` count.
        other_allele: upper-case; "" when the file does not say.
        beta: effect per allele, log odds ratio for binary traits; Z / sqrt(n) (per standard deviation of the genotype)
            when the file has Z only.
        se: standard error of beta, > 0; 1 / sqrt(n) when the file has Z only.
        log10p: -log10 of the two-sided p-value, exact where p itself underflows.
        n: sample size; NaN when unknown.
        n_eff: 4 / (1/cases + 1/controls) where the file counts them, else n.
        eaf: frequency of the effect allele; NaN when unknown.
        info: imputation quality; NaN when unknown.
        dropped: number of rows left out, by reason.
        examples: (line, reason) of the first rows left out because they are malformed.
        metadata: the YAML file beside it, if any.
    """

    path: Path
    format: str
    chromosome: NDArray[np.object_]
    position: NDArray[np.int64]
    id: NDArray[np.object_]
    effect_allele: NDArray[np.object_]
    other_allele: NDArray[np.object_]
    beta: Floats
    se: Floats
    log10p: Floats
    n: Floats
    n_eff: Floats
    eaf: Floats
    info: Floats
    dropped: dict[str, int] = field(default_factory=dict)
    examples: tuple[tuple[int, str], ...] = ()
    metadata: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return int(self.beta.shape[0])

    @property
    def genome_build(self) -> str | None:
        """``GRCh37`` or ``GRCh38`` when the metadata say so."""
        return normalise_build(self.metadata.get("genome_assembly"))


_ARRAYS = (
    *("chromosome", "position", "id", "effect_allele", "other_allele"),
    *("beta", "se", "log10p", "n", "n_eff", "eaf", "info"),
)


def read_summary_statistics(
    path: str | Path, *, columns: Mapping[str, str] | None = None, n_samples: float | None = None
) -> SummaryStatistics:
    """Read summary statistics in blocks of bounded size.

    Args:
        path: text, gzip or bgzip; the header tells the format (GWAS-SSF, BOLT-LMM, REGENIE, PLINK 2, SAIGE, METAL,
            LDSC).
        columns: {field: column} for any other file; fields are ``summary_layouts.FIELDS``.
        n_samples: sample size where the file has none.

    Raises:
        FormatError: unknown header, no usable rows, more than half of the rows unusable (with the reasons and the
            first lines), or Z scores without a sample size.
    """
    file = DelimitedFile(path)
    layout = None if columns else detect_layout(file.names, path, file.header_line)
    names = (
        layout.resolve(file.names) if layout else apply_column_map(columns or {}, file.names, path, file.header_line)
    )
    metadata = read_metadata(path)
    n_default = n_samples if n_samples is not None else _metadata_sample_size(metadata)
    if "z" in names and not {"beta", "odds_ratio"} & names.keys() and "n" not in names and n_default is None:
        raise FormatError("has Z scores but no sample size; set n_samples", path=path)
    shift = 1 if metadata.get("coordinate_system") == "0-based" else 0
    dropped: Counter[str] = Counter()
    examples: list[tuple[int, str]] = []
    parts: list[dict[str, NDArray[Any]]] = []
    for block in file.blocks(list(dict.fromkeys(names.values())), skip_ragged=True):
        rows = _Rows(block, names)
        part = _interpret(rows, n_default, shift)
        keep = rows.reason == _KEPT
        parts.append({name: part[name][keep] for name in _ARRAYS})
        dropped.update(rows.count_dropped())
        examples += rows.examples()[: _EXAMPLES - len(examples)]
    _check_enough(Path(path), sum(len(p["beta"]) for p in parts), dropped, examples)
    arrays: dict[str, Any] = {name: np.concatenate([part.pop(name) for part in parts]) for name in _ARRAYS}
    name = layout.name if layout else "column map"
    return SummaryStatistics(
        file.path, name, **arrays, dropped=dict(dropped), examples=tuple(examples), metadata=metadata
    )


class _Rows:
    """Rows of one block, each with the reason for leaving it out ("" = kept; the first reason found stays)."""

    def __init__(self, block: Block, names: Mapping[str, str]) -> None:
        self.block, self.names = block, names
        self.reason: NDArray[np.object_] = np.full(len(block), _KEPT, dtype=object)
        if "test" in names:
            self.mark(np.asarray(pc.not_equal(block.table[names["test"]], "ADD"), dtype=bool), _OTHER_TEST)

    def __len__(self) -> int:
        return len(self.block)

    def mark(self, bad: NDArray[np.bool_], reason: str) -> None:
        self.reason[bad & (self.reason == _KEPT)] = reason

    def has(self, key: str) -> bool:
        return key in self.names

    def column(self, key: str) -> Any:
        return self.block.table[self.names[key]]

    def numbers(self, key: str) -> Floats:
        """Return a numeric column, NaN when the file lacks it or the value is missing; bad texts mark their row."""
        if not self.has(key):
            return np.full(len(self), np.nan)
        values, bad = parse_numbers(self.column(key))
        wrong = np.zeros(len(self), dtype=bool)
        wrong[bad] = True
        self.mark(wrong, f"{self.names[key]} is not a number")
        return values

    def count_dropped(self) -> Counter[str]:
        counts = Counter(self.reason[self.reason != _KEPT].tolist())
        if self.block.ragged:
            counts["wrong number of fields"] += len(self.block.ragged)
        return counts

    def examples(self) -> list[tuple[int, str]]:
        """Return (line, reason) of the first unusable rows, in file order."""
        wrong = np.flatnonzero((self.reason != _KEPT) & (self.reason != _OTHER_TEST))[:_EXAMPLES]
        found = [(number, "wrong number of fields") for number in self.block.ragged[:_EXAMPLES]]
        if wrong.size:
            lines = self.block.lines()
            found += [(int(lines[row]), str(self.reason[row])) for row in wrong]
        return sorted(found)


def _interpret(rows: _Rows, n_default: float | None, shift: int) -> dict[str, NDArray[Any]]:
    """Turn the columns of one block into the arrays of ``SummaryStatistics``, marking unusable rows."""
    chromosome, position = _read_places(rows)
    effect, other = _read_alleles(rows)
    n, n_eff = _read_sizes(rows, n_default)
    beta, se, log10p = _read_effects(rows, n)
    eaf, info = rows.numbers("eaf"), rows.numbers("info")
    rows.mark((eaf < 0) | (eaf > 1), "allele frequency outside [0, 1]")
    empty = np.full(len(rows), "", dtype=object)
    return {
        "chromosome": chromosome,
        "position": position + shift * (position > 0),
        "id": np.asarray(rows.column("id").to_numpy(), dtype=object) if rows.has("id") else empty,
        "effect_allele": effect,
        "other_allele": other,
        "beta": beta,
        "se": se,
        "log10p": log10p,
        "n": n,
        "n_eff": n_eff,
        "eaf": eaf,
        "info": info,
    }


def _read_places(rows: _Rows) -> tuple[NDArray[np.object_], NDArray[np.int64]]:
    """Return chromosome and position: from their columns, from ids such as ``chr1:12345:A:G``, else "" and 0."""
    if rows.has("chromosome") and rows.has("position"):
        chromosome = normalise_chromosomes(rows.column("chromosome"))
        position = rows.numbers("position")
        known = (position >= 1) & (position == np.floor(position)) & (position < 1e10)
        unlabelled = np.isin(chromosome.astype(str), [*MISSING, "0"])
        rows.mark(~known | unlabelled, "no chromosome or position")
        return chromosome, np.where(known, position, 0).astype(np.int64)
    pattern = r"^(?:chr)?(?P<c>[0-9]{1,2}|X|Y|XY|MT?)[:_](?P<p>[0-9]{1,10})(?:[:_].*)?$"
    found = pc.extract_regex(rows.column("id"), pattern)
    texts = [decode_strings(pc.fill_null(pc.struct_field(found, key), "")) for key in ("c", "p")]
    return normalise_chromosomes(texts[0]), np.array([int(p or 0) for p in texts[1].tolist()], dtype=np.int64)


def _read_alleles(rows: _Rows) -> tuple[NDArray[np.object_], NDArray[np.object_]]:
    def read(key: str) -> NDArray[np.object_]:
        return decode_strings(pc.utf8_upper(rows.column(key)))

    effect = read("effect_allele")
    other = np.full(len(rows), "", dtype=object)
    if rows.has("other_allele"):
        other = read("other_allele")
    elif rows.has("ref") and rows.has("alt"):
        ref, alt = read("ref"), read("alt")
        other = np.where(effect == alt, ref, alt)
        rows.mark((effect != alt) & (effect != ref), "effect allele is neither REF nor ALT")
    known = {word: bool(re.fullmatch("[ACGT]+", word)) for word in {*effect.tolist(), *other.tolist()}}
    known[""] = not (rows.has("other_allele") or rows.has("ref"))
    spelled = [np.array([known[word] for word in allele.tolist()], dtype=bool) for allele in (effect, other)]
    rows.mark(~(spelled[0] & spelled[1]) | (effect == ""), "allele is not written in A, C, G, T")
    rows.mark(np.asarray(effect == other, dtype=bool), "effect and other allele are equal")
    return effect, other


def _read_sizes(rows: _Rows, n_default: float | None) -> tuple[Floats, Floats]:
    """Return sample size and effective sample size, 4 / (1/cases + 1/controls) where these are counted."""
    n, cases, controls = rows.numbers("n"), rows.numbers("n_cases"), rows.numbers("n_controls")
    n = np.where(np.isnan(n), cases + controls, n)
    n = np.where(np.isnan(n), np.nan if n_default is None else n_default, n)
    rows.mark(~(n > 0) & ~np.isnan(n), "sample size is not positive")
    with np.errstate(divide="ignore", invalid="ignore"):
        n_eff = 4.0 / (1.0 / cases + 1.0 / controls)
    return n, np.where(np.isnan(n_eff), n, n_eff)


def _read_effects(rows: _Rows, n: Floats) -> tuple[Floats, Floats, Floats]:
    """Return beta, se and -log10 p, each computed from the others where the file lacks it."""
    beta, ratio, z = rows.numbers("beta"), rows.numbers("odds_ratio"), rows.numbers("z")
    rows.mark(np.isnan(beta) & (ratio <= 0), "odds ratio is not positive")
    with np.errstate(divide="ignore", invalid="ignore"):
        beta = np.where(np.isnan(beta), np.log(ratio), beta)
        from_z = np.isnan(beta)
        beta = np.where(from_z, z / np.sqrt(n), beta)
        se = np.where(from_z, 1.0 / np.sqrt(n), rows.numbers("se"))
    log10p = _read_log10p(rows)
    log10p = np.where(np.isnan(log10p), log10p_from_z(z), log10p)
    se = np.where(np.isnan(se), _se_from_p(beta, log10p), se)
    rows.mark(np.isnan(beta) | np.isnan(se), "effect or standard error is missing")
    rows.mark(~(np.isfinite(beta) & np.isfinite(se) & (se > 0)), "standard error is not positive and finite")
    with np.errstate(divide="ignore", invalid="ignore"):
        log10p = np.where(np.isfinite(log10p), log10p, log10p_from_z(beta / se))
    return beta, se, log10p


def _read_log10p(rows: _Rows) -> Floats:
    """Return -log10 p as the file has it, NaN where it is missing or written as 0."""
    if rows.has("log10p"):
        values = rows.numbers("log10p")
        rows.mark(values < 0, "p-value outside [0, 1]")
        return values
    if rows.has("chisq"):
        values = rows.numbers("chisq")
        rows.mark(values < 0, "chi-square is negative")
        return log10p_from_z(np.sqrt(np.maximum(values, 0)))
    p = rows.numbers("p")
    rows.mark((p < 0) | (p > 1), "p-value outside [0, 1]")
    with np.errstate(divide="ignore", invalid="ignore"):
        values = np.where(p > 0, -np.log10(p), np.nan)
    # below the smallest normal double the parsed value has lost digits or is 0; the text has not
    for row in np.flatnonzero((p >= 0) & (p < 2.3e-308)):
        match = re.fullmatch(r"\+?(\d*\.?\d+)[eE](-\d+)", str(rows.column("p")[int(row)]).strip())
        if match and float(match[1]) > 0:
            values[row] = -np.log10(float(match[1])) - int(match[2])
    return np.where(values == 0, 0.0, values)


def log10p_from_z(z: Floats) -> Floats:
    """Return -log10 of the two-sided p-value of z, ``-log10(2 Phi(-|z|))``, without underflow."""
    return np.asarray(-(np.log(2.0) + special.log_ndtr(-np.abs(z))) / _LN10 + 0.0)


def _se_from_p(beta: Floats, log10p: Floats) -> Floats:
    """Return ``|beta| / |z|`` with z the normal quantile of p/2, taken in log space; NaN where p = 1."""
    with np.errstate(divide="ignore", invalid="ignore"):
        z = -special.ndtri_exp(-log10p * _LN10 - np.log(2.0))
        se = np.abs(beta) / z
    return np.where(np.isfinite(se), se, np.nan)


def _check_enough(path: Path, kept: int, dropped: Counter[str], examples: list[tuple[int, str]]) -> None:
    unusable = sum(count for reason, count in dropped.items() if reason != _OTHER_TEST)
    if kept == 0 and unusable == 0:
        message = "has no row with TEST = ADD" if dropped else "has a header but no rows"
        raise FormatError(message, path=path)
    if unusable > kept:
        reasons = ", ".join(f"{reason}: {n:,}" for reason, n in dropped.most_common() if reason != _OTHER_TEST)
        message = (
            f"{unusable:,} of {kept + unusable:,} rows cannot be used ({reasons}); the first is '{examples[0][1]}'"
        )
        raise FormatError(message, path=path, line=examples[0][0])


def find_metadata(path: str | Path) -> Path | None:
    """Return the GWAS-SSF metadata beside a file, ``NAME-meta.yaml`` (NAME with or without its suffixes), or None."""
    path = Path(path)
    names = (path.name, path.name.removesuffix(".gz"), path.name.split(".")[0])
    candidates = (path.with_name(f"{name}-meta.yaml") for name in names)
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def read_metadata(path: str | Path) -> dict[str, Any]:
    """Read the GWAS-SSF metadata beside a file (see `find_metadata`); {} for none.

    Raises:
        FormatError: a metadata file that is not a YAML mapping.
    """
    found = find_metadata(path)
    if found is None:
        return {}
    try:
        content = yaml.safe_load(found.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise FormatError(f"is not valid YAML: {error}", path=found) from error
    if not isinstance(content, dict):
        raise FormatError("expected a YAML mapping (key: value)", path=found)
    return content


def _metadata_sample_size(metadata: Mapping[str, Any]) -> float | None:
    """Return the sum of ``samples[].sample_size``, None when it is not stated."""
    samples = metadata.get("samples")
    sizes = [s.get("sample_size") for s in samples if isinstance(s, dict)] if isinstance(samples, list) else []
    numbers = [float(size) for size in sizes if isinstance(size, (int, float)) and size > 0]
    return sum(numbers) if numbers and len(numbers) == len(sizes) else None


def normalise_build(name: object) -> str | None:
    """Return ``GRCh37`` or ``GRCh38`` for the usual names of the two assemblies, else the name itself (None: none)."""
    text = str(name or "").strip()
    if re.match(r"(?i)^(grch37|hg19|b37|37)", text):
        return "GRCh37"
    if re.match(r"(?i)^(grch38|hg38|b38|38)", text):
        return "GRCh38"
    return None if text.upper() in ("", "NR", "NA", "NOT REPORTED") else text
