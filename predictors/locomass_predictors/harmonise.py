"""Matching summary statistics to a reference by position (or identifier) and alleles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from locomass_predictors.base import PredictorError

_COMPLEMENT = str.maketrans("ACGT", "TGCA")
_BASES = ("A", "C", "G", "T")
_NO_ID = (".", "", "nan", "NA", "None")
_CLOSE, _FAR = 0.1, 0.2  # frequencies differ by less once alleles are swapped back, by more while they are not
_MUCH = 0.05  # a larger share of rows is not lost without a warning
_REASONS = {
    "invalid_allele": "an allele is not written in A, C, G, T",
    "ambiguous": "A/T and C/G variants, whose strand cannot be told",
    "allele_mismatch": "other alleles than the reference has there",
    "indel_mismatch": "insertions or deletions whose alleles are swapped or differ",
    "duplicate": "several rows of one variant, or several variants of one row",
}
_LEAST_MATCHED = 0.2
_WANTED_COVERAGE = 0.7


@dataclass(frozen=True, slots=True)
class VariantTable:
    """Variants as columns of equal length.

    Attributes:
        chromosome: (m,) labels, compared as text without a ``chr`` prefix.
        position: (m,) base-pair positions.
        effect_allele: (m,) the allele that is counted.
        other_allele: (m,) the other one.
        id: (m,) identifiers (rsID), or None.
        frequency: (m,) of the effect allele, NaN where unknown; None when it is not known at all.
    """

    chromosome: ArrayLike
    position: ArrayLike
    effect_allele: ArrayLike
    other_allele: ArrayLike
    id: ArrayLike | None = None
    frequency: ArrayLike | None = None


@dataclass(frozen=True, slots=True)
class Harmonised:
    """Which rows of the summary statistics are which variants of the reference.

    Attributes:
        source: (k,) row numbers of the summary statistics.
        target: (k,) row numbers of the reference, ascending.
        sign: (k,) +1.0, or -1.0 where effect and other allele are swapped: multiply the effect by it, and turn the
            frequency f into 1 - f.
        counts: rows of the summary statistics per outcome. ``same``, ``swapped``, ``flipped`` (other strand) and
            ``swapped_flipped`` are matches; ``invalid_allele``, ``ambiguous``, ``not_in_reference``,
            ``allele_mismatch``, ``indel_mismatch`` and ``duplicate`` are dropped. They sum to the number of rows.
        coverage: matched part of the reference.
        messages: warnings for the log.
    """

    source: NDArray[np.int64]
    target: NDArray[np.int64]
    sign: NDArray[np.float64]
    counts: Mapping[str, int]
    coverage: float
    messages: tuple[str, ...]


def harmonise(
    statistics: VariantTable, reference: VariantTable, *, match_by: str = "position", strand_flip: bool = True
) -> Harmonised:
    """Match summary statistics to a reference.

    A row matches a variant of the same chromosome and position (or the same identifier) when the alleles are the same,
    swapped, or either of these on the other strand. With strand flipping on, A/T and C/G variants cannot be told
    apart and are dropped. The order of the alleles of an indel is information: it matches as written, and swapped only
    where neither table has an exact partner and the frequencies show the swap (the rule of the house, which
    `locomass.variants.identity` has for files). A row without the other allele matches the one variant of its place
    that has the effect allele. Rows that reach the same variant, or several, are all dropped: nothing tells which is
    right.

    Args:
        statistics: the summary statistics.
        reference: the variants of the LD reference or cohort.
        match_by: ``position``, ``id``, or ``row``: each row by its position, by its identifier where that is 0.
        strand_flip: try the other strand; switch off when both are known to be on the forward strand.

    Returns:
        Row pairs, signs, counts per outcome, and warnings: under 70 % of the reference covered, or a chromosome of the
        reference without a match.

    Raises:
        PredictorError: match_by is unknown, columns differ in length, identifiers are wanted but missing, or fewer
            than 20 % of the smaller table match; the message tells a wrong genome build from wrong alleles.
    """
    if match_by not in ("position", "id", "row"):
        raise PredictorError(f"match_by must be 'position', 'id' or 'row', got {match_by!r}")
    ss, ref = _tidy(statistics, "summary statistics"), _tidy(reference, "reference")
    if match_by == "id" and not ("id" in ss and "id" in ref):
        raise PredictorError("match_by 'id' needs identifiers in the summary statistics and in the reference")
    pairs = _pair_rows(ss, ref, match_by)
    pairs["outcome"] = _compare_alleles(pairs, strand_flip)
    _settle_indels(pairs)
    outcome = _settle_outcomes(ss, pairs, strand_flip)
    matched = pairs[pairs["outcome"].isin(_MATCHES) & outcome.reindex(pairs["row"]).isin(_MATCHES).to_numpy()]
    matched = matched.drop_duplicates("row").sort_values("row_ref", kind="stable")
    counts = {name: int((outcome == name).sum()) for name in (*_MATCHES, *_DROPPED)}
    _refuse_few_matches(ss, ref, len(matched), counts, match_by)
    target = matched["row_ref"].to_numpy(np.int64)
    return Harmonised(
        source=matched["row"].to_numpy(np.int64),
        target=target,
        sign=np.where(matched["outcome"].isin(["swapped", "swapped_flipped"]), -1.0, 1.0),
        counts=counts,
        coverage=target.size / len(ref),
        messages=_describe_gaps(ref, target, counts),
    )


def _pair_rows(ss: pd.DataFrame, ref: pd.DataFrame, match_by: str) -> pd.DataFrame:
    """Return every pair of a row and a variant of its place, or of its identifier."""
    by_position = ss[ss["position"] > 0] if match_by == "row" else ss[:0] if match_by == "id" else ss
    by_id = ss[:0] if match_by == "position" or "id" not in ss or "id" not in ref else ss.drop(by_position.index)
    if len(by_id):
        by_id = by_id[~by_id["id"].isin(_NO_ID)]
    columns = ["row", "a1", "a2", "frequency"]
    parts = []
    for rows, keys in ((by_position, ["chromosome", "position"]), (by_id, ["id"])):
        if len(rows):
            joined = rows[[*keys, *columns]].merge(ref[[*keys, *columns]], on=keys, suffixes=("", "_ref"))
            parts.append(joined.drop(columns=keys))
    if parts:
        return pd.concat(parts, ignore_index=True)
    return pd.DataFrame({name: [] for name in (*columns, *(f"{c}_ref" for c in columns))})


def _settle_indels(pairs: pd.DataFrame) -> None:
    """Take back, in place, the match of an indel with its alleles swapped, unless the frequencies show the swap."""
    a1, a2 = pairs["a1"].to_numpy(object), pairs["a2"].to_numpy(object)
    swapped = (pairs["outcome"] == "swapped").to_numpy() & (_lengths(a1) != _lengths(a2)) & (a2 != "")
    if not swapped.any():
        return
    exact = pairs[pairs["outcome"] == "same"]
    has_exact = pairs["row"].isin(exact["row"]) | pairs["row_ref"].isin(exact["row_ref"])
    f, g = pairs["frequency"].to_numpy(np.float64), pairs["frequency_ref"].to_numpy(np.float64)
    with np.errstate(invalid="ignore"):
        shown = (np.abs(1 - f - g) < _CLOSE) & (np.abs(f - g) > _FAR)
    pairs.loc[swapped & (has_exact.to_numpy() | ~shown), "outcome"] = "indel_mismatch"


def _lengths(alleles: NDArray[np.object_]) -> NDArray[np.int64]:
    return np.array([len(a) for a in alleles], np.int64)


_MATCHES = ("same", "swapped", "flipped", "swapped_flipped")
_DROPPED = ("invalid_allele", "ambiguous", "not_in_reference", "allele_mismatch", "indel_mismatch", "duplicate")


def _tidy(table: VariantTable, name: str) -> pd.DataFrame:
    """Return the table with labels and alleles in one spelling, and its row numbers."""
    columns: dict[str, object] = {
        "chromosome": [_spell_chromosome(label) for label in np.asarray(table.chromosome)],
        "position": np.asarray(table.position, dtype=np.int64),
        "a1": [str(allele).upper() for allele in np.asarray(table.effect_allele)],
        "a2": [str(allele).upper() for allele in np.asarray(table.other_allele)],
    }
    m = len(columns["position"])  # type: ignore[arg-type]
    known = table.frequency is not None
    columns["frequency"] = np.asarray(table.frequency, np.float64) if known else np.full(m, np.nan)
    if table.id is not None:
        columns["id"] = [str(identifier) for identifier in np.asarray(table.id)]
    lengths = {column: len(values) for column, values in columns.items()}  # type: ignore[arg-type]
    if len(set(lengths.values())) != 1:
        raise PredictorError(f"columns of the {name} differ in length: {lengths}")
    if lengths["position"] == 0:
        raise PredictorError(f"the {name} hold no variant")
    frame = pd.DataFrame(columns)
    frame["row"] = np.arange(len(frame))
    return frame


def _spell_chromosome(label: object) -> str:
    text = str(label)
    return text[3:] if text[:3].lower() == "chr" else text


def _compare_alleles(pairs: pd.DataFrame, strand_flip: bool) -> NDArray[np.object_]:
    """Return how the alleles of each candidate pair compare; the forward strand is tried first."""
    a1, a2, b1, b2 = (pairs[column].to_numpy(object) for column in ("a1", "a2", "a1_ref", "a2_ref"))
    outcome = np.full(len(pairs), "allele_mismatch", dtype=object)
    outcome[~(_is_base(a1) & _is_base(a2) & _is_base(b1) & _is_base(b2))] = "indel_mismatch"
    if strand_flip:
        c1, c2 = _complement(a1), _complement(a2)
        outcome[(c1 == b2) & (c2 == b1)] = "swapped_flipped"
        outcome[(c1 == b1) & (c2 == b2)] = "flipped"
    alone = a2 == ""
    outcome[((a1 == b2) & (a2 == b1)) | (alone & (a1 == b2))] = "swapped"
    outcome[((a1 == b1) & (a2 == b2)) | (alone & (a1 == b1))] = "same"
    return outcome


def _is_base(alleles: NDArray[np.object_]) -> NDArray[np.bool_]:
    return np.isin(alleles.astype(str), _BASES)


def _complement(alleles: NDArray[np.object_]) -> NDArray[np.object_]:
    """Return single bases on the other strand; anything longer becomes empty and matches nothing."""
    table = {base: base.translate(_COMPLEMENT) for base in _BASES}
    return np.array([table.get(allele, "") for allele in alleles], dtype=object)


def _settle_outcomes(ss: pd.DataFrame, pairs: pd.DataFrame, strand_flip: bool) -> pd.Series:
    """Return one outcome per row of the summary statistics."""
    # per row: a match on the forward strand beats one on the other strand, which beats a mismatch
    order = {"same": 0, "swapped": 0, "flipped": 1, "swapped_flipped": 1, "allele_mismatch": 2, "indel_mismatch": 2}
    pairs["rank"] = pairs["outcome"].map(order)
    pairs["best"] = pairs.groupby("row")["rank"].transform("min")
    pairs.loc[pairs["rank"] > pairs["best"], "outcome"] = "beaten"
    chosen = pairs[pairs["outcome"] != "beaten"]
    outcome = pd.Series("not_in_reference", index=ss.index, dtype=object)
    first = chosen.drop_duplicates("row")
    outcome.loc[first["row"].to_numpy()] = first["outcome"].to_numpy()
    reached = chosen[chosen["outcome"].isin(_MATCHES)]
    clash = reached["row"].duplicated(keep=False) | reached["row_ref"].duplicated(keep=False)
    outcome.loc[reached.loc[clash, "row"].unique()] = "duplicate"
    a1, a2 = ss["a1"].to_numpy(object), ss["a2"].to_numpy(object)
    if strand_flip:
        ambiguous = (_complement(a1) == a2) & (outcome != "not_in_reference").to_numpy()
        b1, b2 = (pairs[name].to_numpy(object) for name in ("a1_ref", "a2_ref"))
        alone = pairs.loc[(pairs["a2"] == "").to_numpy() & (_complement(b1) == b2), "row"]
        outcome.loc[ambiguous | ss["row"].isin(alone).to_numpy()] = "ambiguous"
    spelled = ss["a1"].str.fullmatch("[ACGT]+") & ss["a2"].str.fullmatch("[ACGT]*") & (ss["a1"] != ss["a2"])
    outcome.loc[~spelled] = "invalid_allele"
    return outcome


def _refuse_few_matches(
    ss: pd.DataFrame, ref: pd.DataFrame, n_matched: int, counts: Mapping[str, int], match_by: str
) -> None:
    """Raise when under 20 % of the smaller table match, and say what the likely cause is."""
    smaller = min(len(ss), len(ref))
    if n_matched >= _LEAST_MATCHED * smaller:
        return
    found = f"only {n_matched:,} of {len(ss):,} summary statistics match the {len(ref):,} reference variants"
    listed = ", ".join(f"{name} {count:,}" for name, count in counts.items() if count)
    if match_by != "id" and (ss["position"] > 0).any() and len(ss) - counts["not_in_reference"] < 0.5 * smaller:
        raise PredictorError(f"{found} ({listed}); {_explain_absent_positions(ss, ref, smaller)}")
    raise PredictorError(f"{found} ({listed}); check the allele columns and what '{match_by}' names in both tables")


def _explain_absent_positions(ss: pd.DataFrame, ref: pd.DataFrame, smaller: int) -> str:
    if not set(ss["chromosome"]) & set(ref["chromosome"]):
        mine, theirs = (", ".join(sorted(set(t["chromosome"]))[:5]) for t in (ss, ref))
        return f"no chromosome label is common to both: {mine} against {theirs}"
    if "id" in ss and "id" in ref and ss["id"].isin(ref["id"]).sum() >= 0.5 * smaller:
        return (
            "the identifiers match but the positions do not, so the genome builds differ: lift the summary statistics "
            "over to the build of the reference, or match by id (a column map without position)"
        )
    return (
        "positions do not coincide; the likely cause is a wrong genome build: lift over, or match by id (a column map "
        "without position)"
    )


def _describe_gaps(ref: pd.DataFrame, target: NDArray[np.int64], counts: Mapping[str, int]) -> tuple[str, ...]:
    """Return warnings about losses above 5 %, and about parts of the reference without summary statistics."""
    near = sum(count for name, count in counts.items() if name != "not_in_reference")
    messages = [
        f"{counts[name]:,} of {near:,} rows ({counts[name] / near:.0%}) are left out: {reason}"
        for name, reason in _REASONS.items()
        if counts[name] > _MUCH * near
    ]
    if target.size < _WANTED_COVERAGE * len(ref):
        messages.append(
            f"summary statistics cover {target.size / len(ref):.0%} of {len(ref):,} reference variants; "
            f"{_WANTED_COVERAGE:.0%} or more are wanted"
        )
    present = set(ref["chromosome"].to_numpy()[target])
    for chromosome, size in ref["chromosome"].value_counts(sort=False).items():
        if chromosome not in present:
            messages.append(
                f"chromosome {chromosome} has {size:,} reference variants and no matching summary statistics: "
                "it adds nothing to the prediction; is a file missing?"
            )
    return tuple(messages)
