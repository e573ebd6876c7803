"""The rows of a block of summary statistics, field by field; each row that cannot be used has one reason."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy import special

from locomass.files.arrow import decode_strings
from locomass.numbers import LN10, Floats
from locomass.tables.delimited import MISSING, Block, parse_numbers
from locomass.variants.chromosomes import normalise_chromosomes
from locomass.variants.keys import parse_variant_keys

#: Lines kept as examples of what was left out.
EXAMPLES = 20
KEPT, OTHER_TEST, EMPTY = "", "test is not ADD", "no value in the row"
#: Fields that say which variant a row is of; a row that has nothing else is empty (LDSC's --merge-alleles).
PLACES = {"chromosome", "position", "id", "test"}
_MISSING = pa.array(MISSING, pa.string())
_PLACE = r"^(?:chr)?(?P<c>[0-9]{1,2}|X|Y|XY|MT?)[:_-](?P<p>[0-9]{1,10})(?:[:_/-].*)?$"
#: Fields whose -9, however it is spelled, can only be a missing value.
NEVER_NEGATIVE = {"eaf", "info", "n", "n_eff", "n_eff_half", "n_cases", "n_controls", "se", "p", "log10p", "chisq"}
P_IS_ZERO = "p is 0 and there is no standard error or Z"


class Rows:
    """Rows of one block, each with the reason for leaving it out ("" = kept; the first reason found stays)."""

    def __init__(self, block: Block, names: Mapping[str, str]) -> None:
        self.block, self.names = block, names
        self.reason: NDArray[np.object_] = np.full(len(block), KEPT, dtype=object)
        if "test" in names:
            self.mark(np.asarray(pc.not_equal(block.table[names["test"]], "ADD"), dtype=bool), OTHER_TEST)
        values = [names[key] for key in names.keys() - PLACES]
        empty = [np.asarray(pc.is_in(pc.utf8_trim_whitespace(block.table[v]), value_set=_MISSING)) for v in values]
        if empty:
            self.mark(np.all(empty, axis=0), EMPTY)

    def __len__(self) -> int:
        return len(self.block)

    def mark(self, bad: NDArray[np.bool_], reason: str) -> None:
        """Give rows a reason to be left out, unless they have one."""
        self.reason[bad & (self.reason == KEPT)] = reason

    def has(self, key: str) -> bool:
        """Return whether the file has a field."""
        return key in self.names

    def column(self, key: str) -> Any:
        """Return the texts of a field as they are in the file."""
        return self.block.table[self.names[key]]

    def numbers(self, key: str) -> Floats:
        """Return a numeric column, NaN when the file lacks it or the value is missing; bad texts mark their row."""
        if not self.has(key):
            return np.full(len(self), np.nan)
        values, bad = parse_numbers(self.column(key), (*MISSING, "-9") if key in NEVER_NEGATIVE else MISSING)
        wrong = np.zeros(len(self), dtype=bool)
        wrong[bad] = True
        self.mark(wrong, f"{self.names[key]} is not a number")
        return values

    def texts(self, key: str) -> NDArray[np.object_]:
        """Return a column of texts without the blanks around them."""
        return decode_strings(pc.utf8_trim_whitespace(self.column(key)))

    def count_dropped(self) -> Counter[str]:
        """Return how many rows are left out, by reason."""
        counts = Counter(self.reason[self.reason != KEPT].tolist())
        if self.block.ragged:
            counts["wrong number of fields"] += len(self.block.ragged)
        return counts

    def examples(self) -> list[tuple[int, str]]:
        """Return (line, reason) of the first unusable rows, in file order."""
        wrong = np.flatnonzero((self.reason != KEPT) & ~np.isin(self.reason.astype(str), [OTHER_TEST, EMPTY]))[
            :EXAMPLES
        ]
        found = [(number, "wrong number of fields") for number in self.block.ragged[:EXAMPLES]]
        if wrong.size:
            lines = self.block.lines()
            found += [(int(lines[row]), str(self.reason[row])) for row in wrong]
        return sorted(found)


def read_places(rows: Rows) -> tuple[NDArray[np.object_], NDArray[np.int64]]:
    """Return chromosome and position of each row: from their columns, else from a name such as ``chr1:12345:A:G``.

    A row that has neither is "" and 0; it can be matched by its identifier, if it has one.
    """
    chromosome, position = np.full(len(rows), "", object), np.zeros(len(rows), np.int64)
    if rows.has("chromosome") and rows.has("position"):
        label, values = normalise_chromosomes(rows.texts("chromosome")), rows.numbers("position")
        with np.errstate(invalid="ignore"):
            known = (values >= 1) & (values == np.floor(values)) & (values < 1e10)
        known &= ~np.isin(label.astype(str), [*MISSING, "0"])
        chromosome[known], position[known] = label[known], values[known].astype(np.int64)
    names = rows.texts("id") if rows.has("id") else chromosome
    lost = position == 0
    if lost.any():
        found = pc.extract_regex(pa.array(names[lost], pa.string()), _PLACE)
        texts = [decode_strings(pc.fill_null(pc.struct_field(found, key), "")) for key in ("c", "p")]
        chromosome[lost] = normalise_chromosomes(texts[0])
        position[lost] = [int(p or 0) for p in texts[1].tolist()]
    rows.mark((position == 0) & np.isin(names.astype(str), MISSING), "no chromosome or position")
    return chromosome, position


def read_alleles(rows: Rows) -> tuple[NDArray[np.object_], NDArray[np.object_]]:
    """Return effect and other allele; the other one is "" where the file does not say it and the name does not."""

    def read(key: str) -> NDArray[np.object_]:
        return decode_strings(pc.utf8_upper(pc.utf8_trim_whitespace(rows.column(key))))

    effect = read("effect_allele")
    other = np.full(len(rows), "", dtype=object)
    if rows.has("other_allele"):
        other = read("other_allele")
    elif rows.has("ref") and rows.has("alt"):
        ref, alt = read("ref"), read("alt")
        other = np.where(effect == alt, ref, alt)
        rows.mark((effect != alt) & (effect != ref), "effect allele is neither REF nor ALT")
    elif rows.has("id"):
        other = _other_in_names(rows, effect)
    known = {word: bool(re.fullmatch("[ACGT]+", word)) for word in {*effect.tolist(), *other.tolist()}}
    known[""] = not (rows.has("other_allele") or rows.has("ref"))
    spelled = [np.array([known[word] for word in allele.tolist()], dtype=bool) for allele in (effect, other)]
    rows.mark(~(spelled[0] & spelled[1]) | (effect == ""), "allele is not written in A, C, G, T")
    rows.mark(np.asarray(effect == other, dtype=bool), "effect and other allele are equal")
    return effect, other


def _other_in_names(rows: Rows, effect: NDArray[np.object_]) -> NDArray[np.object_]:
    """Return what names such as ``1:12345:A:G`` say of the other allele, else ""."""
    keys = parse_variant_keys(rows.texts("id").tolist()).key.tolist()
    pairs = [key.split(":", 3)[2:] if key else ["", ""] for key in keys]
    other = [a if e == r else r if e == a else "" for (r, a), e in zip(pairs, effect.tolist(), strict=True)]
    return np.array(other, object)


def read_sizes(rows: Rows, n_default: float | None) -> tuple[Floats, Floats]:
    """Return sample size and effective sample size.

    The effective size is what the file calls so (twice what it calls half of it), else 4 / (1/cases + 1/controls)
    where these are counted, else n, whatever that means.
    """
    n, cases, controls = rows.numbers("n"), rows.numbers("n_cases"), rows.numbers("n_controls")
    n = np.where(np.isnan(n), cases + controls, n)
    with np.errstate(divide="ignore", invalid="ignore"):
        counted = 4.0 / (1.0 / cases + 1.0 / controls)
    stated = np.where(np.isnan(rows.numbers("n_eff")), 2 * rows.numbers("n_eff_half"), rows.numbers("n_eff"))
    n_eff = np.where(np.isnan(stated), counted, stated)
    n = np.where(np.isnan(n), n_eff, n)
    n = np.where(np.isnan(n), np.nan if n_default is None else n_default, n)
    n_eff = np.where(np.isnan(n_eff), n, n_eff)
    rows.mark((~(n > 0) & ~np.isnan(n)) | (~(n_eff > 0) & ~np.isnan(n_eff)), "sample size is not positive")
    return n, n_eff


def read_effects(rows: Rows, n: Floats) -> tuple[Floats, Floats, Floats, NDArray[np.bool_]]:
    """Return beta, se and -log10 p, each computed from the others where the file lacks it, and where beta is per sd.

    Args:
        rows: the rows.
        n: effective sample sizes. A row with Z alone has beta = Z / sqrt(n) and se = 1 / sqrt(n), per standard
            deviation of the genotype.
    """
    beta, ratio, z = rows.numbers("beta"), rows.numbers("odds_ratio"), rows.numbers("z")
    rows.mark(np.isnan(beta) & (ratio <= 0), "odds ratio is not positive")
    with np.errstate(divide="ignore", invalid="ignore"):
        beta = np.where(np.isnan(beta), np.log(ratio), beta)
        from_z = np.isnan(beta)
        beta = np.where(from_z, z / np.sqrt(n), beta)
        se = np.where(from_z, 1.0 / np.sqrt(n), rows.numbers("se"))
    log10p = _read_log10p(rows)
    log10p = np.where(np.isnan(log10p), log10p_from_z(z), log10p)
    with np.errstate(divide="ignore", invalid="ignore"):
        se = np.where(np.isnan(se) & (z != 0), np.abs(beta / z), se)
    se = np.where(np.isnan(se), _se_from_p(beta, log10p), se)
    rows.mark(np.isnan(se) & np.isfinite(beta) & (rows.numbers("p") == 0), P_IS_ZERO)
    rows.mark(np.isnan(beta) | np.isnan(se), "effect or standard error is missing")
    rows.mark(~(np.isfinite(beta) & np.isfinite(se) & (se > 0)), "standard error is not positive and finite")
    with np.errstate(divide="ignore", invalid="ignore"):
        log10p = np.where(np.isfinite(log10p), log10p, log10p_from_z(beta / se))
    return beta, se, log10p, from_z & np.isfinite(z)


def _read_log10p(rows: Rows) -> Floats:
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
    return np.asarray(-(np.log(2.0) + special.log_ndtr(-np.abs(z))) / LN10 + 0.0)


def z_from_p(p: Floats) -> Floats:
    """Return |z| of two-sided p-values; NaN where p is missing."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(-special.ndtri_exp(np.log(p) - np.log(2.0)))


def _se_from_p(beta: Floats, log10p: Floats) -> Floats:
    """Return ``|beta| / |z|`` with z the normal quantile of p/2, taken in log space; NaN where p = 1."""
    with np.errstate(divide="ignore", invalid="ignore"):
        z = -special.ndtri_exp(-log10p * LN10 - np.log(2.0))
        se = np.abs(beta) / z
    return np.where(np.isfinite(se), se, np.nan)
