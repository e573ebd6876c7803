"""What each optional table of a bundle must hold: one function a table, declared in `CHECKS` at the end.

A function is given the table of one part, what the part is held against, and its path for the message; it raises
`BundleError` with file, row and reason. A new optional table is its schema in `locomass.schema` and a line in `CHECKS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from locomass.bundle.check import Variants, check_laws, list_values, refuse_rows
from locomass.errors import BundleError
from locomass.numbers import Floats
from locomass.schema import BUNDLE_CALIBRATED, BUNDLE_COLLAPSED, BUNDLE_LAWS, BUNDLE_REPLICATES

MODES = ("additive", "dominant", "recessive")
MAX_THRESHOLDS = 1_000
SYMMETRY = 1e-8  # relative: of V of burdens


@dataclass
class Context:
    """What the parts of an optional table are held against.

    Attributes:
        info: study.json.
        variants: variants.parquet.
        genes: gene -> its rows of variants.parquet, of the part of genes/ with the same name.
        seen: what earlier parts of the table named; a check may keep there what must not come twice.
    """

    info: dict[str, Any]
    variants: Variants
    genes: Mapping[str, NDArray[np.int64]]
    seen: set[Any] = field(default_factory=set)

    def check_genes(self, names: list[str], path: Path) -> None:
        """Raise unless all genes are in the part of genes/ with the same name."""
        for row, name in enumerate(names):
            if name not in self.genes:
                raise BundleError(f"{path}: gene '{name[:40]}' in row {row} is not in genes/{path.name}")

    def once(self, keys: list[tuple[str, ...]], path: Path) -> None:
        """Raise when a key is listed twice, in this part or an earlier one."""
        for row, key in enumerate(keys):
            if key in self.seen:
                raise BundleError(f"{path}: {', '.join(word[:40] for word in key)} in row {row} is listed twice")
            self.seen.add(key)


def check_calibrated(table: pa.Table, context: Context, path: Path) -> None:
    """Check ``calibrated``: rows in range and distinct; variances positive where V is, NaN where not calibrated."""
    refuse = partial(refuse_rows, path)
    number, v = table.column("number").to_numpy().astype(np.int64), context.variants.num_rows
    refuse((number < 0) | (number >= v), "number", number, f"0 to {v - 1:,}")
    values, counts = np.unique(number, return_counts=True)
    refuse(np.isin(number, values[counts > 1]), "number", number, "each row of variants.parquet once")
    refuse(np.array([int(n) in context.seen for n in number], np.bool_), "number", number, "each row in one file")
    context.seen.update(number.tolist())
    traits = context.info["traits"]
    flat, length = list_values(table, "V")
    refuse(length != len(traits), "list length of V", length, f"{len(traits)}, one entry per trait")
    V, plain = flat.reshape(-1, len(traits)), context.variants.take(number).V
    known = ~np.isnan(V)
    with np.errstate(invalid="ignore"):
        wrong = known & ~(np.isfinite(V) & (V >= 0) & ((V > 0) | (plain == 0)))
    refuse(wrong.any(axis=1), "V", V, "positive variances, or NaN for a trait that is not calibrated")
    quantitative = np.array([t["kind"] == "quantitative" for t in traits], np.bool_)
    refuse((known & quantitative).any(axis=1), "V", V, "NaN for quantitative traits")


def check_collapsed(table: pa.Table, context: Context, path: Path) -> None:
    """Check ``collapsed``: genes, modes and thresholds that can be, carriers among samples, V a covariance matrix."""
    refuse = partial(refuse_rows, path)
    gene, mask, mode = (table.column(name).to_pylist() for name in ("gene", "mask", "mode"))
    context.check_genes(gene, path)
    context.once(list(zip(gene, mask, mode, strict=True)), path)
    refuse(np.array([m not in MODES for m in mode], np.bool_), "mode", np.array(mode, object), f"one of {MODES}")
    n_samples = np.array([s["n_samples"] for s in context.info["sample_sets"]], np.int64)
    S, T = len(n_samples), len(context.info["traits"])
    flat = {name: list_values(table, name) for name in ("threshold", "carriers", "U", "V")}
    K = flat["threshold"][1]
    refuse((K < 1) | (K > MAX_THRESHOLDS), "list length of threshold", K, f"1 to {MAX_THRESHOLDS:,}")
    for name, expected in (("carriers", S * K), ("U", T * K), ("V", T * K * K)):
        refuse(flat[name][1] != expected, f"list length of {name}", flat[name][1], f"{expected[:1].tolist()} in row 0")
    starts = {name: np.concatenate(([0], np.cumsum(length))) for name, (_, length) in flat.items()}
    for row, k in enumerate(K.tolist()):
        cell = {name: flat[name][0][starts[name][row] : starts[name][row + 1]] for name in flat}
        wrong = _find_odd_burden(
            cell["threshold"],
            cell["carriers"].reshape(S, k),
            n_samples,
            cell["U"].reshape(T, k),
            cell["V"].reshape(T, k, k),
        )
        if wrong:
            raise BundleError(f"{path}: gene '{gene[row][:40]}', mask '{mask[row][:40]}', {mode[row]}: {wrong}")


def _find_odd_burden(
    threshold: Floats, carriers: NDArray[Any], n_samples: NDArray[np.int64], U: Floats, V: Floats
) -> str:
    """Return what is wrong with the burdens of one gene, mask and mode, '' where nothing is.

    Args:
        threshold: (K,).
        carriers: (S, K).
        n_samples: (S,).
        U: (T, K).
        V: (T, K, K).
    """
    if not ((threshold > 0) & (threshold <= 1)).all() or (np.diff(threshold) <= 0).any():
        return "thresholds must rise, from above 0 to at most 1"
    if (carriers < -1).any() or (carriers > n_samples[:, None]).any():
        return "carriers must be 0 to the samples of study.json, or -1"
    if np.isinf(U).any() or np.isinf(V).any():
        return "U and V must be finite, or NaN where they are withheld"
    diagonal = np.einsum("tkk->tk", V)
    if (np.isnan(U) != np.isnan(diagonal)).any():
        return "U and V must be withheld together"
    v = np.nan_to_num(V)
    d = np.nan_to_num(diagonal)
    if (d < 0).any():
        return "V has a negative variance"
    bound = np.sqrt(d[:, :, None] * d[:, None, :])
    if (np.abs(v - v.transpose(0, 2, 1)) > SYMMETRY * bound).any() or (np.abs(v) > (1 + SYMMETRY) * bound).any():
        return "V is no covariance matrix: not symmetric, or a covariance above its variances"
    return ""


def check_replicates(table: pa.Table, context: Context, path: Path) -> None:
    """Check ``replicates``: genes, traits and variants that are there, as many replicates in every row, finite."""
    refuse = partial(refuse_rows, path)
    gene, trait = (table.column(name).to_pylist() for name in ("gene", "trait"))
    context.check_genes(gene, path)
    context.once(list(zip(gene, trait, strict=True)), path)
    known = {t["name"] for t in context.info["traits"]}
    refuse(
        np.array([t not in known for t in trait], np.bool_), "trait", np.array(trait, object), "a trait of the study"
    )
    variant, m = list_values(table, "variant")
    U, length = list_values(table, "U")
    ends = np.concatenate(([0], np.cumsum(m)))
    for row, name in enumerate(gene):
        if not np.array_equal(np.sort(variant[ends[row] : ends[row + 1]]), np.sort(context.genes[name])):
            raise BundleError(f"{path}: gene '{name[:40]}' in row {row} lists other variants than genes/{path.name}")
    refuse(np.where(m > 0, length % np.maximum(m, 1) != 0, length != 0), "length of U", length, "a multiple of m")
    count = length[m > 0] // m[m > 0]
    if len(np.unique(count)) > 1 or (count == 0).any():
        raise BundleError(f"{path}: rows have {count.min()} to {count.max()} replicates; expected one number above 0")
    refuse_rows(path, ~np.isfinite(U), "U", U, "finite numbers")


def check_law_table(table: pa.Table, context: Context, path: Path) -> None:
    """Check ``laws`` against the genes of its part (see `check_laws`)."""
    context.check_genes(table.column("gene").to_pylist(), path)
    check_laws(table, context.info, {name: len(rows) for name, rows in context.genes.items()}, path)


Check = Callable[[pa.Table, Context, Path], None]

#: Optional table -> what its parts must hold
CHECKS: dict[str, Check] = {
    BUNDLE_LAWS.name: check_law_table,
    BUNDLE_CALIBRATED.name: check_calibrated,
    BUNDLE_COLLAPSED.name: check_collapsed,
    BUNDLE_REPLICATES.name: check_replicates,
}
