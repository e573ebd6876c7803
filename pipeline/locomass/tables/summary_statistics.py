"""GWAS summary statistics of any known program as one set of arrays, with an account of the rows left out."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from locomass.errors import FormatError
from locomass.files.yaml_text import load_yaml
from locomass.numbers import Floats
from locomass.tables.delimited import Block, DelimitedFile, find_header, parse_numbers
from locomass.tables.summary_layouts import LAYOUTS, apply_column_map, detect_layout
from locomass.tables.summary_rows import (
    EMPTY,
    EXAMPLES,
    KEPT,
    OTHER_TEST,
    P_IS_ZERO,
    Rows,
    read_alleles,
    read_effects,
    read_places,
    read_sizes,
    z_from_p,
)

MUCH = 0.05  # a larger share of rows is not lost without a warning
#: of files that hold summary statistics, before a ``.gz``
SUFFIXES = frozenset(
    {"tsv", "txt", "csv", "tab", "dat", "out", "sumstats", "sumstat", "stats", "ssf", "gwas", "assoc"}
    | {
        "linear",
        "logistic",
        "hybrid",
        "firth",
        "glm",
        "regenie",
        "saige",
        "bolt",
        "metal",
        "tbl",
        "meta",
        "ma",
        "mlma",
        "fastgwa",
    }
)
_SIZES = {"n", "n_eff", "n_eff_half", "n_cases"}


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
        n_eff: effective sample size where the file states it or counts cases and controls, else n.
        eaf: frequency of the effect allele; NaN when unknown.
        info: imputation quality; NaN when unknown.
        per_sd: where beta and se come from Z alone and are per standard deviation of the genotype.
        n_is_effective: whether the file states that n_eff is effective, by a column of that name or by counts.
        messages: what is worth a warning: losses above 5 %, effects of another kind than the header says.
        dropped: number of rows left out, by reason.
        examples: (line, reason) of the first rows left out because they are malformed.
        metadata: the YAML file beside it, if any.
        is_whole: whether these are all rows of the file.
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
    per_sd: NDArray[np.bool_]
    n_is_effective: bool = False
    messages: tuple[str, ...] = ()
    dropped: dict[str, int] = field(default_factory=dict)
    examples: tuple[tuple[int, str], ...] = ()
    metadata: dict[str, Any] = field(default_factory=dict)
    is_whole: bool = True

    def __len__(self) -> int:
        return int(self.beta.shape[0])

    @property
    def genome_build(self) -> str | None:
        """``GRCh37`` or ``GRCh38`` when the metadata say so."""
        return normalise_build(self.metadata.get("genome_assembly"))


_ARRAYS = (
    *("chromosome", "position", "id", "effect_allele", "other_allele"),
    *("beta", "se", "log10p", "n", "n_eff", "eaf", "info", "per_sd"),
)


def read_summary_statistics(
    path: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    n_samples: float | None = None,
    head_only: bool = False,
) -> SummaryStatistics:
    """Read summary statistics in blocks of bounded size.

    Args:
        path: text, gzip or bgzip; the header tells the format (GWAS-SSF, BOLT-LMM, REGENIE, PLINK 2, SAIGE, METAL,
            LDSC).
        columns: {field: column} for any other file; fields are ``summary_layouts.FIELDS``.
        n_samples: sample size where the file has none.
        head_only: read the first block only (``is_whole`` tells whether that is all).

    Raises:
        FormatError: unknown header, no usable rows, more than half of the rows unusable (with the reasons and the
            first lines), or Z scores without a sample size.
    """
    file, names, format_name = _open(path, columns)
    metadata = read_metadata(path)
    n_default = n_samples if n_samples is not None else _metadata_sample_size(metadata)
    if "z" in names and not {"beta", "odds_ratio"} & names.keys() and not _SIZES & names.keys() and n_default is None:
        raise FormatError("has Z scores but no sample size; set n_samples", path=path)
    shift = 1 if metadata.get("coordinate_system") == "0-based" else 0
    dropped: Counter[str] = Counter()
    examples: list[tuple[int, str]] = []
    parts: list[dict[str, NDArray[Any]]] = []
    messages: list[str] = []
    is_whole = True
    for k, block in enumerate(file.blocks(list(dict.fromkeys(names.values())), skip_ragged=True)):
        if k and head_only:
            is_whole = False
            break
        if k == 0:
            names, messages = judge_effects(block, names)
        rows = Rows(block, names)
        part = _interpret(rows, n_default, shift)
        keep = rows.reason == KEPT
        parts.append({name: part[name][keep] for name in _ARRAYS})
        dropped.update(rows.count_dropped())
        examples += rows.examples()[: EXAMPLES - len(examples)]
    kept = sum(len(p["beta"]) for p in parts)
    _check_enough(Path(path), kept, dropped, examples)
    arrays: dict[str, Any] = {name: np.concatenate([part.pop(name) for part in parts]) for name in _ARRAYS}
    return SummaryStatistics(
        file.path,
        format_name,
        **arrays,
        n_is_effective=bool({"n_eff", "n_eff_half"} & names.keys() or {"n_cases", "n_controls"} <= names.keys()),
        messages=(*messages, *_describe_losses(kept, dropped)),
        dropped=dict(dropped),
        examples=tuple(examples),
        metadata=metadata,
        is_whole=is_whole,
    )


def _open(path: str | Path, columns: Mapping[str, str] | None) -> tuple[DelimitedFile, dict[str, str], str]:
    """Open a file; return it with {field: column} and the name of its format."""

    def fits(names: Sequence[str]) -> bool:
        if columns:
            return set(columns.values()) <= set(names)
        return any(not layout.missing(names) for layout in LAYOUTS)

    file = DelimitedFile(path, skip=find_header(path, fits), quotes=True)
    if columns:
        return file, apply_column_map(columns, file.names, path, file.header_line), "column map"
    layout = detect_layout(file.names, path, file.header_line)
    return file, layout.resolve(file.names), layout.name


def _describe_losses(kept: int, dropped: Mapping[str, int]) -> Iterator[str]:
    """Give a warning for every reason that costs more than 5 % of the rows, and for p = 0 at any share."""
    total = kept + sum(count for reason, count in dropped.items() if reason not in (OTHER_TEST, EMPTY))
    for reason, count in dropped.items():
        if reason == P_IS_ZERO:
            yield (
                f"{count:,} rows are left out, the strongest ones: p is 0 and there is no standard error; give "
                "standard errors, Z scores, -log10 p, or p with its exponent"
            )
        elif reason not in (OTHER_TEST, EMPTY) and count > MUCH * total:
            yield f"{count:,} of {total:,} rows ({count / total:.0%}) are left out: {reason}"


def judge_effects(block: Block, names: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Return {field: column} with effects under the field that their distribution says, and warnings.

    Ratios are all positive, around 1, and many standard errors above 0, while their logarithms are not; log odds are of
    both signs.
    """
    found = dict(names)
    if "beta" in names and "odds_ratio" not in names and _look_like_ratios(block, names):
        found["odds_ratio"] = found.pop("beta")
        message = "effects are all positive around 1: they are taken as odds ratios"
    elif "odds_ratio" in names and "beta" not in names and _look_like_logs(block, names):
        found["beta"] = found.pop("odds_ratio")
        message = "odds ratios are of both signs around 0: they are taken as log odds ratios"
    else:
        return found, []
    return found, [f"column {names.get('beta') or names.get('odds_ratio')}: {message}; check the header"]


def _column(block: Block, names: Mapping[str, str], key: str) -> Floats:
    return parse_numbers(block.table[names[key]])[0] if key in names else np.full(len(block), np.nan)


def _look_like_ratios(block: Block, names: Mapping[str, str]) -> bool:
    effect, se, p = (_column(block, names, key) for key in ("beta", "se", "p"))
    known = np.isfinite(effect)
    if known.sum() < 20 or not (effect[known] > 0).all() or not 0.8 < np.median(effect[known]) < 1.25:
        return False
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.where(np.isfinite(se) & (se > 0), effect / se, np.nan)
        told = z_from_p(p)
        off = [np.abs(x / se - told) if np.isfinite(told).any() else np.abs(x / se) for x in (effect, np.log(effect))]
    if not np.isfinite(z).any():
        return True
    return bool(np.nanmedian(z) > 5 and np.nanmedian(np.abs(off[1])) < np.nanmedian(np.abs(off[0])))


def _look_like_logs(block: Block, names: Mapping[str, str]) -> bool:
    effect = _column(block, names, "odds_ratio")
    known = effect[np.isfinite(effect)]
    return bool(known.size >= 20 and (known < 0).mean() > 0.2 and abs(np.median(known)) < 0.2)


def _interpret(rows: Rows, n_default: float | None, shift: int) -> dict[str, NDArray[Any]]:
    """Turn the columns of one block into the arrays of ``SummaryStatistics``, marking unusable rows."""
    chromosome, position = read_places(rows)
    effect, other = read_alleles(rows)
    n, n_eff = read_sizes(rows, n_default)
    beta, se, log10p, per_sd = read_effects(rows, n_eff)
    eaf, info = rows.numbers("eaf"), rows.numbers("info")
    rows.mark((eaf < 0) | (eaf > 1), "allele frequency outside [0, 1]")
    empty = np.full(len(rows), "", dtype=object)
    return {
        "chromosome": chromosome,
        "position": position + shift * (position > 0),
        "id": rows.texts("id") if rows.has("id") else empty,
        "effect_allele": effect,
        "other_allele": other,
        "beta": beta,
        "se": se,
        "log10p": log10p,
        "n": n,
        "n_eff": n_eff,
        "eaf": eaf,
        "info": info,
        "per_sd": per_sd,
    }


def _check_enough(path: Path, kept: int, dropped: Counter[str], examples: list[tuple[int, str]]) -> None:
    unusable = sum(count for reason, count in dropped.items() if reason not in (OTHER_TEST, EMPTY))
    if kept == 0 and unusable == 0:
        message = "has no row with TEST = ADD" if dropped else "has a header but no rows"
        raise FormatError(message, path=path)
    if unusable > kept:
        reasons = ", ".join(
            f"{reason}: {n:,}" for reason, n in dropped.most_common() if reason not in (OTHER_TEST, EMPTY)
        )
        message = (
            f"{unusable:,} of {kept + unusable:,} rows cannot be used ({reasons}); the first is '{examples[0][1]}'"
        )
        raise FormatError(message, path=path, line=examples[0][0])


def find_metadata(path: str | Path) -> Path | None:
    """Return the GWAS-SSF metadata beside a file, ``NAME-meta.yaml`` (NAME with or without its suffixes), or None."""
    path = Path(path)
    names = [path.name]
    while "." in names[-1] and names[-1].rsplit(".", 1)[1].lower() in (*SUFFIXES, "gz", "bgz", "h", "f"):
        names.append(names[-1].rsplit(".", 1)[0])
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
        text = found.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise FormatError(f"is not UTF-8 text: {error}", path=found) from None
    content = load_yaml(text, found, FormatError)
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
