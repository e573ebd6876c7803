"""Published or fitted predictor weights: PGS Catalog, PLINK ``--score``, PRS-CS, BOLT-LMM, SBayesRC files."""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from locomass.errors import FormatError, suggest
from locomass.files.arrow import decode_strings
from locomass.files.atomic import atomic_path
from locomass.tables.delimited import MISSING, Block, DelimitedFile, parse_numbers, read_lines
from locomass.tables.summary_statistics import normalise_build
from locomass.variants.chromosomes import normalise_chromosomes
from locomass.variants.keys import parse_variant_keys

_ARRAYS = ("chromosome", "position", "id", "effect_allele", "other_allele", "weights")
MUCH = 0.05  # a larger share of rows is not lost without a warning
LEAST_JUDGED = 20  # weights below which their distribution tells nothing
_LETTERS = {"23": "X", "24": "Y", "25": "XY", "26": "MT"}
#: What a column can mean, and the key to use in a column map.
WEIGHT_FIELDS = ("chromosome", "position", "id", "effect_allele", "other_allele", "weight")
#: {field: column} of programs whose output has a header; a file fits when it holds every column.
_HEADERS: dict[str, dict[str, str]] = {
    "BOLT-LMM": {
        "chromosome": "CHR",
        "position": "BP",
        "id": "SNP",
        "effect_allele": "ALLELE1",
        "other_allele": "ALLELE0",
        "weight": "BETA",
    },
    "GCTB": {
        "chromosome": "Chrom",
        "position": "Position",
        "id": "Name",
        "effect_allele": "A1",
        "other_allele": "A2",
        "weight": "A1Effect",
    },
    "LDAK": {"id": "Predictor", "effect_allele": "A1", "other_allele": "A2", "weight": "Effect"},
    "LDAK ": {"id": "Predictor", "effect_allele": "A1", "other_allele": "A2", "weight": "Model1"},
    "SBayesRC": {"id": "SNP", "effect_allele": "A1", "weight": "BETA", "inclusion": "PIP"},
}
#: Names of a weight column whose logarithm is the weight, and values of ``#weight_type=`` that say so.
RATIO_COLUMNS = {"OR", "HR", "ODDS_RATIO", "HAZARD_RATIO", "ODDSRATIO", "HAZARDRATIO"}
RATIOS = {"OR", "HR", "ODDS RATIO", "ODDS_RATIO", "HAZARD RATIO", "HAZARD_RATIO"}
#: Columns that only marginal effects have; using those as weights would count every LD partner in full.
_P_VALUES = {"P", "PVAL", "P-value", "p_value", "p.value", "LOG10P", "P_LINREG", "P_BOLT_LMM_INF", "P_BOLT_LMM"}
_PRS_CS = {"chromosome": "1", "id": "2", "position": "3", "effect_allele": "4", "other_allele": "5", "weight": "6"}
#: PGS Catalog columns that change what a weight multiplies; the score is then no sum of weight times dosage.
_NOT_ADDITIVE = ("is_interaction", "is_dominant", "is_recessive", "is_haplotype", "is_diplotype")
_PER_GENOTYPE = ("dosage_0_weight", "dosage_1_weight", "dosage_2_weight")


@dataclass(frozen=True, slots=True)
class VariantWeights:
    """Per-allele weights of m variants for k scores: ``score = sum_j weights[j] * count of effect_allele[j]``.

    Attributes:
        path: the file.
        format: name of the detected format.
        names: (k,) names of the scores.
        chromosome: (m,) normalised labels; "" when unknown.
        position: (m,) base pairs, 1-based; 0 when unknown.
        id: (m,) rsID or other name; "" when unknown.
        effect_allele: (m,) upper-case.
        other_allele: (m,) upper-case; "" when the file does not say.
        weights: (m, k) float64, finite.
        genome_build: ``GRCh37``, ``GRCh38``, another name, or None when the file does not say.
        metadata: header lines ``#key=value``.
        dropped: number of rows left out, by reason.
        messages: what is worth a warning: losses above 5 %, ratios that nothing names as such.
    """

    path: Path
    format: str
    names: tuple[str, ...]
    chromosome: NDArray[np.object_]
    position: NDArray[np.int64]
    id: NDArray[np.object_]
    effect_allele: NDArray[np.object_]
    other_allele: NDArray[np.object_]
    weights: NDArray[np.float64]
    genome_build: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    messages: tuple[str, ...] = ()

    def __len__(self) -> int:
        return int(self.weights.shape[0])


@dataclass(frozen=True, slots=True)
class _Source:
    """A file opened with its columns understood."""

    file: DelimitedFile
    format: str
    columns: Mapping[str, str]
    weights: Sequence[str]
    names: tuple[str, ...]
    metadata: dict[str, str] = field(default_factory=dict)
    genome_build: str | None = None

    @property
    def is_ratio(self) -> bool:
        """Whether the file says that its weights are ratios, whose logarithms count."""
        stated = self.metadata.get("weight_type", "").strip().upper()
        return stated in RATIOS or all(name.upper() in RATIO_COLUMNS for name in self.weights)


def read_weights(
    path: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    score_columns: Sequence[int] | None = None,
) -> VariantWeights:
    """Read a weights file; its header or shape tells the format.

    Args:
        path: text or gzip.
        columns: {field: column} for a file with another header; fields are ``WEIGHT_FIELDS``.
        score_columns: for PLINK ``--score`` files, the 1-based columns of id, allele and one or more weights; by
            default 1, 2, 3. A header line is recognised by its first weight not being a number.

    Raises:
        FormatError: weights that are not additive (interaction, dominant, recessive, haplotype), text in a weight or a
            position, a missing column, more than half of the rows unusable; names file, line and column.
    """
    source = _open_source(Path(path), columns, score_columns)
    dropped: Counter[str] = Counter()
    parts: list[dict[str, NDArray[Any]]] = []
    for block in source.file.blocks():
        _refuse_non_additive(block)
        part, reason = _interpret(block, source)
        keep = reason == ""
        parts.append({name: part[name][keep] for name in _ARRAYS})
        dropped.update(reason[~keep].tolist())
    kept = sum(len(part["weights"]) for part in parts)
    if kept == 0 or sum(dropped.values()) > kept:
        reasons = ", ".join(f"{reason}: {n:,}" for reason, n in dropped.most_common()) or "there are none"
        raise FormatError(f"only {kept:,} of {kept + sum(dropped.values()):,} rows are usable ({reasons})", path=path)
    arrays: dict[str, Any] = {name: np.concatenate([part.pop(name) for part in parts]) for name in _ARRAYS}
    arrays["weights"], judged = _judge_ratios(arrays["weights"], source)
    total = kept + sum(dropped.values())
    losses = [
        f"{n:,} of {total:,} rows ({n / total:.0%}) are left out: {reason}"
        for reason, n in dropped.items()
        if n > MUCH * total
    ]
    return VariantWeights(
        source.file.path,
        source.format,
        source.names,
        **arrays,
        genome_build=source.genome_build,
        metadata=source.metadata,
        dropped=dict(dropped),
        messages=(*judged, *losses),
    )


def _judge_ratios(weights: NDArray[np.float64], source: _Source) -> tuple[NDArray[np.float64], list[str]]:
    """Return weights (m, k), logarithms where they look like ratios and nothing says what they are, and warnings.

    Ratios are positive, around 1, and not whole numbers (as the weights of counts of risk alleles are).
    """
    if source.is_ratio or len(weights) < LEAST_JUDGED:
        return weights, []
    low, middle, high = np.quantile(weights, [0.0, 0.5, 1.0], axis=0)
    alike = (low > 0.2) & (middle > 0.8) & (middle < 1.25) & (high < 5.0) & ~(weights == np.round(weights)).all(axis=0)
    if not alike.any():
        return weights, []
    column = ", ".join(np.array(source.weights)[alike])
    found = f"column {column}: weights are all positive around 1, as odds ratios are"
    if source.metadata.get("weight_type", "").strip().lower() not in ("", "nr"):
        return weights, [f"{found}; they are taken as the header's weight_type={source.metadata['weight_type']} says"]
    return np.where(alike, np.log(weights), weights), [f"{found}: their logarithms are taken; check the header"]


def _open_source(path: Path, columns: Mapping[str, str] | None, score_columns: Sequence[int] | None) -> _Source:
    if columns:
        return _open_mapped(path, columns)
    if score_columns:
        return _open_score(path, score_columns)
    lines = (text.replace('"', "") for _, text in read_lines(path))
    first = next((text.split() for text in lines if not text.startswith("#")), [])
    if {"effect_allele", "effect_weight"} <= set(first):
        return _open_pgs(path)
    for column in _P_VALUES & set(first):
        message = (
            f"has p-values (column {column}): these are summary statistics, to be given to a predictor, not weights"
        )
        raise FormatError(message, path=path)
    for name, fields in _HEADERS.items():
        if set(fields.values()) <= set(first):
            keys = {key: column for key, column in fields.items() if key in WEIGHT_FIELDS[:-1]}
            return _Source(_open_table(path), name, keys, [fields["weight"]], (path.stem,))
    if len(first) == 6 and _is_number(first[2]) and _is_number(first[5]) and not _is_number(first[3]):
        keys = {key: column for key, column in _PRS_CS.items() if key != "weight"}
        return _Source(_open_table(path, header=False), "PRS-CS", keys, [_PRS_CS["weight"]], (path.stem,))
    return _open_score(path, (1, 2, 3))


def _open_table(path: Path, *, header: bool = True, delimiter: str | None = None) -> DelimitedFile:
    """Open a file of weights: lines that start with # are comments, fields may be quoted."""
    return DelimitedFile(path, header=header, comment="#", delimiter=delimiter, quotes=True)


def _open_mapped(path: Path, columns: Mapping[str, str]) -> _Source:
    file = _open_table(path)
    for key, column in columns.items():
        if key not in WEIGHT_FIELDS:
            raise FormatError(f"column map: unknown field '{key}'{suggest(key, WEIGHT_FIELDS)}", path=path)
        if column not in file.names:
            message = f"column map: no column '{column}' for {key}{suggest(column, file.names)}"
            raise FormatError(message, path=path, line=file.header_line)
    for key in ("effect_allele", "weight"):
        if key not in columns:
            raise FormatError(f"column map lacks {key}", path=path)
    if "id" not in columns and not {"chromosome", "position"} <= columns.keys():
        raise FormatError("column map lacks id, or chromosome and position", path=path)
    keys = {key: column for key, column in columns.items() if key != "weight"}
    return _Source(file, "column map", keys, [columns["weight"]], (columns["weight"],))


def _open_pgs(path: Path) -> _Source:
    file = _open_table(path)
    pairs = [line.lstrip("#").partition("=") for line in file.preamble]
    metadata = {key.strip(): value.strip() for key, equals, value in pairs if equals}
    candidates = {
        "chromosome": ("hm_chr", "chr_name"),
        "position": ("hm_pos", "chr_position"),
        "id": ("rsID", "hm_rsID", "variant_id"),
        "effect_allele": ("effect_allele",),
        "other_allele": ("other_allele", "reference_allele", "hm_inferOtherAllele"),
    }
    found = {key: next((c for c in names if c in file.names), None) for key, names in candidates.items()}
    columns = {key: column for key, column in found.items() if column}
    if "id" not in columns and not {"chromosome", "position"} <= columns.keys():
        raise FormatError("has neither rsID nor chr_name and chr_position", path=path, line=file.header_line)
    harmonised = columns.get("chromosome") == "hm_chr"
    build = normalise_build(metadata.get("HmPOS_build") if harmonised else metadata.get("genome_build"))
    name = metadata.get("pgs_id") or path.stem
    return _Source(file, "PGS Catalog", columns, ["effect_weight"], (name,), metadata, build)


def _open_score(path: Path, score_columns: Sequence[int]) -> _Source:
    """Open a PLINK ``--score`` file, with or without a header."""
    if len(score_columns) < 3 or min(score_columns) < 1:
        message = "score_columns must name id, allele and at least one weight, counted from 1"
        raise FormatError(f"{message}; got {list(score_columns)}", path=path)
    file = _open_table(path, header=False)
    if len(file.first) < max(score_columns):
        message = f"expected at least {max(score_columns)} fields (id, allele, weight), found {len(file.first)}"
        raise FormatError(message, path=path, line=file.header_line + 1)
    has_header = not _is_number(file.first[score_columns[2] - 1])
    if has_header:
        file = _open_table(path, delimiter=file.delimiter)
    shift = int(len(file.names) > len(file.first))  # R's row names, which its header does not count
    picked = [file.names[i - 1 + shift] for i in score_columns]
    columns = {"id": picked[0], "effect_allele": picked[1]}
    names = tuple(picked[2:]) if has_header or len(picked) > 3 else (path.stem,)
    return _Source(file, "PLINK score", columns, picked[2:], names)


def _refuse_non_additive(block: Block) -> None:
    for name in _PER_GENOTYPE:
        if name in block.table.column_names:
            message = "weights per genotype are not supported; only weights per allele are"
            raise FormatError(message, path=block.path, column=name)
    for name in [name for name in _NOT_ADDITIVE if name in block.table.column_names]:
        flags = pc.is_in(pc.utf8_lower(block.table[name]), value_set=pa.array(["true", "t", "1", "yes"]))
        for row in np.flatnonzero(np.asarray(flags))[:1]:
            message = f"the weight is not additive ({name}); this score cannot be written as a sum over alleles"
            raise FormatError(message, path=block.path, line=block.line(row), column=name)


def _interpret(block: Block, source: _Source) -> tuple[dict[str, NDArray[Any]], NDArray[np.object_]]:
    """Return the arrays of one block and, per row, the reason for leaving it out ("" = kept)."""
    columns, table = source.columns, block.table
    empty = np.full(len(block), "", dtype=object)

    def texts(key: str) -> NDArray[np.object_]:
        words = decode_strings(table[columns[key]]) if key in columns else empty
        return np.where(np.isin(words.astype(str), MISSING), "", words)

    effect, other = (_upper(texts(key)) for key in ("effect_allele", "other_allele"))
    # an inferred other allele may list several candidates
    other = np.array([word if word.isalpha() else "" for word in other.tolist()], dtype=object)
    name = texts("id")
    position = block.positions(columns["position"]) if "position" in columns else np.zeros(len(block), np.int64)
    chromosome = normalise_chromosomes(texts("chromosome"))
    weights = np.stack([block.numbers(column) for column in source.weights], axis=1)
    ratio = source.is_ratio
    if ratio:
        with np.errstate(divide="ignore", invalid="ignore"):
            weights = np.where(weights > 0, np.log(weights), np.nan)
    arrays = {
        "chromosome": np.where(position > 0, chromosome, ""),
        "position": np.where(chromosome != "", position, 0),
        "id": name,
        "effect_allele": effect,
        "other_allele": other,
        "weights": weights,
    }
    _fill_from_names(arrays)
    reason = empty.copy()
    reason[(arrays["position"] == 0) & (name == "")] = "no position and no id"
    spelled = {word: bool(word) and not word.strip("ACGT") for word in set(effect.tolist())}
    reason[~np.array([spelled[word] for word in effect.tolist()], dtype=bool)] = "allele is not written in A, C, G, T"
    reason[np.isnan(weights).any(axis=1)] = "ratio is not positive" if ratio else "weight is missing"
    return arrays, reason


def _fill_from_names(arrays: dict[str, NDArray[Any]]) -> None:
    """Take chromosome, position and other allele, where a row lacks them, from names such as ``1:12345:A:G``."""
    keys = parse_variant_keys(arrays["id"].tolist())
    known = keys.position > 0
    lacking = known & (arrays["position"] == 0)
    arrays["chromosome"] = np.where(lacking, keys.chromosome, arrays["chromosome"])
    arrays["position"] = np.where(lacking, keys.position, arrays["position"])
    for row in np.flatnonzero(known & (arrays["other_allele"] == "")).tolist():
        _, _, ref, alt = keys.key[row].split(":", 3)
        pair = {ref: alt, alt: ref}
        arrays["other_allele"][row] = pair.get(arrays["effect_allele"][row], "")


def _upper(words: NDArray[np.object_]) -> NDArray[np.object_]:
    known = {word: word.upper() for word in set(words.tolist())}
    return np.array([known[word] for word in words.tolist()], dtype=object)


def _is_number(text: str) -> bool:
    values, bad = parse_numbers(pa.array([text]))
    return bad.size == 0 and bool(np.isfinite(values).all())


def write_weights(
    path: str | Path,
    weights: VariantWeights,
    *,
    score: str | None = None,
    provenance: Mapping[str, object] | None = None,
) -> None:
    """Write one score as a PGS Catalog scoring file (format 2.0); atomically, gzip when the name ends in ``.gz``.

    Weights are written with all their digits, so reading them back gives the same numbers. The same input gives the
    same bytes.

    Args:
        path: file to write.
        weights: the weights.
        score: which of ``weights.names``; may be left out when there is one. Written as ``pgs_id``.
        provenance: further header lines ``#key=value``.

    Raises:
        ValueError: ``score`` is not among the names, or was left out although there are several.
    """
    if score is None and len(weights.names) > 1:
        raise ValueError(f"several scores ({', '.join(weights.names)}): say which one to write")
    if score is not None and score not in weights.names:
        raise ValueError(f"no score '{score}'{suggest(score, weights.names)}")
    column = weights.names.index(score) if score is not None else 0
    head = {"pgs_id": weights.names[column], "pgs_name": weights.names[column], "weight_type": "beta"}
    head |= {"genome_build": weights.genome_build or "NR", "variants_number": str(len(weights))}
    lines = ["###PGS CATALOG SCORING FILE", "#format_version=2.0", "##POLYGENIC SCORE (PGS) INFORMATION"]
    lines += [f"#{key}={value}" for key, value in head.items()]
    lines.append("##SOURCE INFORMATION")
    lines += [f"#{key}={_one_line(value)}" for key, value in (provenance or {}).items() if key not in head]
    lines.append("rsID\tchr_name\tchr_position\teffect_allele\tother_allele\teffect_weight")
    names = [_LETTERS.get(label, label) for label in weights.chromosome.tolist()]
    positions = [str(p) if p else "" for p in weights.position.tolist()]
    texts = [weights.id.tolist(), names, positions, weights.effect_allele.tolist(), weights.other_allele.tolist()]
    values = map(repr, weights.weights[:, column].tolist())
    lines += ["\t".join(row) for row in zip(*texts, values, strict=True)]
    content = ("\n".join(lines) + "\n").encode()
    with atomic_path(path) as temporary:
        temporary.write_bytes(gzip.compress(content, mtime=0) if str(path).endswith(".gz") else content)


def _one_line(value: object) -> str:
    return " ".join(str(value).split())
