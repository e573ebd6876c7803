"""For notebooks: open study bundles, get U and V of one gene and trait, run a test on them, read and plot results.

The same code as `locomass meta` runs underneath, so the numbers are the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InputError, MatchError, suggest
from pipeline.gene_tests.base import ScoreStatistics
from pipeline.gene_tests.registry import DEFAULT_WEIGHTS, TESTS, check_tests, evaluate
from pipeline.io.bundle import Bundle
from pipeline.io.bundle_open import open_bundle
from pipeline.stages.meta.sums import sum_studies
from pipeline.stages.meta.tasks import GeneRequest
from pipeline.stages.meta.unite import group_traits, pool_frequencies, unite_gene

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

Floats = NDArray[np.float64]
LN10 = float(np.log(10.0))
TABLES = (
    "gene_tests", "single_variants", "mask_audit", "mask_variants", "drivers", "conditional_tests", "null_models",
)  # fmt: skip

__all__ = ["GeneStatistics", "GeneTestResult", "gene_statistics", "open_bundle", "plot_qq", "read_results", "run_test"]


@dataclass(frozen=True)
class GeneStatistics:
    """Score statistics of one gene and trait, summed over studies; ALT is counted.

    Attributes:
        gene, chromosome, trait: what they are of.
        studies: names of the studies that contribute.
        n_samples: samples of the trait over these studies.
        position, ref, alt: (m,) polymorphic variants of the union of the studies.
        alt_frequency, alt_count: (m,) pooled over the studies that have the variant.
        U: (m,) ``G'(y - mu) / phi``; has variance V under the null.
        V: (m, m) ``(G'WG - G'WX (X'WX)^-1 X'WG)``, per unit of ``1 / phi``.
        allele_number: (m,) alleles behind ``alt_count``.
        per_study: (U, V) of every study on the same variants, when there are several.
    """

    gene: str
    chromosome: str
    trait: str
    studies: tuple[str, ...]
    n_samples: int
    position: NDArray[np.int64]
    ref: NDArray[np.object_]
    alt: NDArray[np.object_]
    alt_frequency: Floats
    alt_count: Floats
    U: Floats
    V: Floats
    allele_number: Floats
    per_study: tuple[tuple[Floats, Floats], ...] = field(default=(), repr=False)

    def variants(self) -> pd.DataFrame:
        """Return one row per variant: labels, counts, U, variance, ``beta = U / V``, ``se``, Z (NaN where V is 0)."""
        import pandas as pd

        variance = np.diag(self.V)
        with np.errstate(divide="ignore", invalid="ignore"):
            usable = np.where(variance > 0, variance, np.nan)
            beta, se, z = self.U / usable, 1 / np.sqrt(usable), self.U / np.sqrt(usable)
        labels = {"chromosome": self.chromosome, "position": self.position, "ref": self.ref, "alt": self.alt}
        counts = {"alt_frequency": self.alt_frequency, "alt_count": self.alt_count}
        return pd.DataFrame({**labels, **counts, "U": self.U, "V": variance, "beta": beta, "se": se, "z": z})


@dataclass(frozen=True)
class GeneTestResult:
    """One test of one gene and trait.

    Attributes:
        test, weights: what was run.
        n_variants: variants tested.
        mac: summed count of the counted allele.
        statistic: the test statistic (chi-square for burden, Q for SKAT, ...).
        p: p-value; 0 only below 1e-308.
        log10p: -log10 of it, exact at any size.
        beta, se: effect per counted allele of the weighted burden; NaN where the test has none.
        method: how p was computed.
        note: why there is no p-value; empty when all is well.
    """

    test: str
    weights: str
    n_variants: int
    mac: float
    statistic: float
    p: float
    log10p: float
    beta: float
    se: float
    method: str
    note: str


def gene_statistics(studies: Bundle | Sequence[Bundle], gene: str, trait: str) -> GeneStatistics:
    """Return U and V of one gene and trait, summed over one or several studies.

    Alleles are harmonised: a variant written the other way round in a study has its sign turned. A variant that a study
    lacks contributes nothing there. ``U = sum_k U_k``, ``V = sum_k V_k`` (Lin & Tang 2011).

    Args:
        studies: a bundle or several, from `open_bundle`.
        gene: name of a gene of the bundles.
        trait: name of a trait.

    Raises:
        MatchError: no study has the gene, or none has the trait; names the closest.
    """
    bundles = [studies] if isinstance(studies, Bundle) else list(studies)
    known = sorted({name for bundle in bundles for name in bundle.index})
    traits = sorted({name for bundle in bundles for name in bundle.traits})
    if gene not in known:
        raise MatchError(f"gene '{gene}' is in none of the {len(bundles)} bundles{suggest(gene, known)}")
    if trait not in traits:
        raise MatchError(f"trait '{trait}' is in none of the {len(bundles)} bundles{suggest(trait, traits)}")
    group = next(g for g in group_traits(bundles) if trait in g.traits)
    here = {k: bundles[k].read_genes([gene])[gene] for k in group.studies if gene in bundles[k].index}
    if not here:
        raise MatchError(f"no study has both the trait '{trait}' and the gene '{gene}'")
    chromosome = bundles[next(iter(here))].index[gene][1]
    union = unite_gene(_whole_gene(gene, chromosome), here)
    frequency = pool_frequencies(union, group, None)
    everything = {k: np.ones(len(union.position), np.bool_) for k in here}
    sums = sum_studies(bundles, union, group, chromosome, everything)
    shared = next((s for s in sums if trait in s.traits), None)
    if shared is None:
        notes = "; ".join(f"{bundles[k].study}: {g.note}" for k, g in here.items() if g.note)
        raise MatchError(f"no study has statistics of the gene '{gene}' for the trait '{trait}'. {notes}")
    at = shared.traits.index(trait)
    kept = np.flatnonzero(frequency.is_polymorphic)
    grid = np.ix_(kept, kept)
    return GeneStatistics(
        gene=gene, chromosome=chromosome, trait=trait, studies=tuple(bundles[k].study for k in here),
        n_samples=sum(int(bundles[k].traits[trait]["n_samples"]) for k in here),
        position=union.position[kept], ref=union.ref[kept], alt=union.alt[kept],
        alt_frequency=frequency.frequency[kept], alt_count=frequency.alt_count[kept],
        U=shared.U[at, kept], V=shared.V[grid] * shared.scale[min(at, len(shared.scale) - 1)],
        allele_number=frequency.allele_number[kept],
        per_study=tuple((U[0, kept], V[grid] * scale[0]) for U, V, scale in shared.per_study),
    )  # fmt: skip


def _whole_gene(gene: str, chromosome: str) -> GeneRequest:
    """Return a request for every variant that the studies have of a gene."""
    nothing, words = np.empty(0, np.int64), np.empty(0, object)
    return GeneRequest(
        gene=gene, chromosome=chromosome, start=0, end=0, position=nothing, ref=words, alt=words,
        member=np.empty((1, 0), np.bool_), columns={}, owner=np.empty(0, np.bool_), is_region=True,
    )  # fmt: skip


def run_test(
    statistics: GeneStatistics,
    test: str = "burden",
    *,
    weights: str = "flat",
    max_maf: float = 0.01,
    frequency: Literal["maf", "aaf"] = "maf",
    variants: NDArray[np.bool_] | None = None,
    annotations: Mapping[str, Floats] | None = None,
    collapse_mac: float = 10.0,
) -> GeneTestResult:
    """Run a gene test.

    Args:
        statistics: from `gene_statistics`.
        test: name of a test; `locomass config tests` lists them.
        weights: ``flat``, ``beta_A_B``, ``madsen-browning``, ``annotation:COLUMN``; several joined by + for ACAT-O.
        max_maf: frequency bound, inclusive.
        frequency: ``maf`` counts and bounds the minor allele, ``aaf`` the ALT allele.
        variants: (m,) a mask: True where the variant is taken; all when None.
        annotations: numeric columns (m,) for ``annotation:COLUMN``.
        collapse_mac: ACAT-V pools variants with at most this many alleles.

    Raises:
        ConfigError: the test, the weights or the annotation column is unknown.
    """
    check_tests([test])
    selected, rare = _select(statistics, max_maf, frequency, variants)
    scope_all = TESTS[test].scope == "mask"
    chosen = np.flatnonzero(selected if scope_all else selected & rare)
    schemes = tuple(weights.split("+")) if weights else DEFAULT_WEIGHTS
    stats = _turn(statistics, chosen, frequency, rare[chosen], annotations or {})
    if not len(chosen):
        nan = float("nan")
        return GeneTestResult(test, weights, 0, 0.0, nan, nan, nan, nan, nan, "", "no variant is selected")
    _, label, result = evaluate(stats, [test], schemes, collapse_mac=collapse_mac)[0]
    log_p = float(result.log_p[0])
    return GeneTestResult(
        test, label, len(chosen), float(stats.mac.sum()), float(result.statistic[0]), float(np.exp(log_p)),
        abs(log_p) / LN10, _first(result.beta), _first(result.se), result.method, result.note,
    )  # fmt: skip


def _first(values: Floats | None) -> float:
    """Return the value of the only trait, NaN when the test has none."""
    return float("nan") if values is None else float(values[0])


def _select(
    s: GeneStatistics, max_maf: float, frequency: str, variants: NDArray[np.bool_] | None
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which variants the mask takes, and which are under the bound (inclusive, hence the rounding)."""
    m = len(s.position)
    taken = np.ones(m, np.bool_) if variants is None else np.asarray(variants, np.bool_)
    if taken.shape != (m,):
        raise InputError(f"variants has shape {taken.shape}; gene {s.gene} has {m} variants, expected ({m},)")
    f = s.alt_frequency
    bounded = np.minimum(f, 1 - f) if frequency == "maf" else f
    return taken, bounded * (1 - 1e-12) <= max_maf


def _turn(
    s: GeneStatistics,
    chosen: NDArray[np.int64],
    frequency: str,
    rare: NDArray[np.bool_],
    annotations: Mapping[str, Floats],
) -> ScoreStatistics:
    """Return the statistics of the chosen variants, turned to the counted allele."""
    f = s.alt_frequency[chosen]
    turned = (f > 0.5) & (frequency == "maf")
    sign = np.where(turned, -1.0, 1.0)
    count, number = s.alt_count[chosen], s.allele_number[chosen]
    grid, signs = np.ix_(chosen, chosen), np.outer(sign, sign)
    return ScoreStatistics(
        U=(s.U[chosen] * sign)[None],
        V=s.V[grid] * signs,
        scale=np.ones(1),
        maf=np.where(turned, 1 - f, f),
        mac=np.where(turned, number - count, count),
        n_samples=np.array([float(s.n_samples)]),
        rare=rare,
        annotations={name: np.asarray(values, float)[chosen] for name, values in annotations.items()},
        per_study=tuple(((U[chosen] * sign)[None], V[grid] * signs, np.ones(1)) for U, V in s.per_study),
    )


def read_results(folder: str | Path, table: str = "gene_tests") -> pd.DataFrame:
    """Return a result table of a run.

    Args:
        folder: what `locomass run` or `locomass meta` left.
        table: ``gene_tests``, ``single_variants``, ``mask_audit``, ``mask_variants``, ``drivers``,
            ``conditional_tests`` or ``null_models``.

    Raises:
        InputError: there is no such table.
    """
    import pandas as pd

    if table not in TABLES:
        raise InputError(f"unknown table '{table}'{suggest(table, TABLES)}")
    for path in (Path(folder) / f"{table}.parquet", Path(folder) / f"{table}.tsv"):
        if path.exists():
            if path.suffix == ".parquet":
                return pd.read_parquet(path)
            return pd.read_csv(path, sep="\t", dtype={"chromosome": str}, keep_default_na=False, na_values=["NA"])
    raise InputError(f"{folder} has no table {table}; give a folder that `locomass run` or `locomass meta` left")


def plot_qq(results: pd.DataFrame, axes: Axes | None = None) -> Axes:
    """Draw observed against expected -log10 p of the rows of a result table, and return the axes.

    Expected: ``-log10((i - 1/2) / n)`` for the i-th smallest of n p-values. Rows without a p-value are left out.

    Args:
        results: rows of `read_results`, as a rule of one trait, mask, bin and test.
        axes: where to draw; new ones when None.

    Raises:
        InputError: no row has a p-value.
    """
    from matplotlib import pyplot

    observed: Any = np.sort(results["log10p"].dropna().to_numpy(float))[::-1]
    if not len(observed):
        raise InputError("no row has a p-value: nothing to draw")
    target: Axes = pyplot.subplots(figsize=(4, 4))[1] if axes is None else axes
    expected = -np.log10((np.arange(len(observed)) + 0.5) / len(observed))
    target.plot([0, expected[0]], [0, expected[0]], color="0.6", linewidth=1)
    target.plot(expected, observed, "o", markersize=3)
    target.set_xlabel("expected -log10 p")
    target.set_ylabel("observed -log10 p")
    return target
