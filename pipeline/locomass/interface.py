"""For notebooks: open study bundles, get U and V of one gene and trait, run a test on them, read and plot results.

The same code as `locomass meta` runs underneath, so the numbers are the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from locomass.bundle.open import open_bundle
from locomass.bundle.study import Bundle
from locomass.config import Tests
from locomass.errors import ConfigError, InputError, MatchError, suggest
from locomass.gene_tests.registry import BUNDLE_TESTS, DEFAULT_WEIGHTS, TESTS, check_tests
from locomass.genotypes.labelled import open_genotypes
from locomass.meta.evaluate import evaluate_one
from locomass.meta.gene import GeneView, open_genes
from locomass.meta.groups import assign_groups
from locomass.meta.selection import Selection, select_members
from locomass.meta.tasks import GeneRequest, Rules
from locomass.numbers import LN10, Floats
from locomass.tables.catalogue import ALL_VARIANTS

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

TABLES = (
    "gene_tests",
    "single_variants",
    "mask_audit",
    "mask_variants",
    "drivers",
    "conditional_tests",
    "null_models",
)

__all__ = [
    "GeneStatistics",
    "GeneTestResult",
    "gene_statistics",
    "open_bundle",
    "open_genotypes",
    "plot_qq",
    "read_results",
    "run_test",
]


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
        view: the gene over all studies as the trait sees it, which `run_test` starts from.
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
    per_study: tuple[tuple[Floats, Floats], ...] = field(repr=False)
    view: GeneView = field(repr=False)

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
        choice: what the test chose (``rho=0.1``, ``threshold=0.01``, ...); empty where it chooses nothing.
        ci_low, ci_high: 95 % interval of the effect.
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
    choice: str = ""
    ci_low: float = float("nan")
    ci_high: float = float("nan")


def gene_statistics(
    studies: Bundle | Sequence[Bundle],
    gene: str,
    trait: str,
    *,
    null_law: Literal["exact", "normal"] = "exact",
    maf: Literal["joint", "study"] = "joint",
    groups: Mapping[str, Sequence[str]] | None = None,
) -> GeneStatistics:
    """Return U and V of one gene and trait, summed over one or several studies.

    Swapped alleles are aligned: the variant's U changes sign. A variant that a study lacks contributes nothing there.
    ``U = sum_k U_k``, ``V = sum_k V_k`` (Lin & Tang 2011).

    >>> study = locomass.open_bundle("results/cohort_a/bundle")
    >>> statistics = locomass.gene_statistics(study, "GENE1A", "y")
    >>> statistics.U.shape == (len(statistics.position),)
    True
    >>> list(statistics.variants().columns[:4])
    ['chromosome', 'position', 'ref', 'alt']

    Args:
        studies: a bundle or several, from `open_bundle`.
        gene: name of a gene of the bundles.
        trait: name of a trait.
        null_law: key ``tests.null_law``: whether tests use the null laws that the studies share.
        maf: frequency policy; under ``study``, `run_test` takes from a study what is under the MAF limit there.
        groups: studies by group, which heterogeneity tests give one effect each.

    Raises:
        MatchError: no study has the gene, or none has the trait; names the closest.
        ConfigError: groups do not fit the studies.
    """
    bundles = [studies] if isinstance(studies, Bundle) else list(studies)
    known = sorted({name for bundle in bundles for name in bundle.index})
    traits = sorted({name for bundle in bundles for name in bundle.traits})
    if gene not in known:
        raise MatchError(f"gene '{gene}' is in none of the {len(bundles)} bundles{suggest(gene, known)}")
    if trait not in traits:
        raise MatchError(f"trait '{trait}' is in none of the {len(bundles)} bundles{suggest(trait, traits)}")
    own = assign_groups(groups or {}, [bundle.study for bundle in bundles])
    rules = Rules(tests=Tests(null_law=null_law), maf=maf, groups=own)
    chromosome = next(bundle.index[gene][1] for bundle in bundles if gene in bundle.index)
    view = next(open_genes([_request_all(gene, chromosome)], bundles, rules)).view(trait)
    if not view.studies:
        raise MatchError(f"no study has both the trait '{trait}' and the gene '{gene}'")
    return _describe(view, trait)


def _describe(view: GeneView, trait: str) -> GeneStatistics:
    """Return the statistics of the polymorphic variants that any study has."""
    union, frequency = view.union, view.frequency
    shared = next(view.sums(with_studies=True))
    kept = np.flatnonzero(frequency.is_polymorphic)
    grid = np.ix_(kept, kept)
    return GeneStatistics(
        gene=view.request.gene,
        chromosome=view.request.chromosome,
        trait=trait,
        studies=tuple(view.bundles[k].study for k in view.studies),
        n_samples=sum(int(view.bundles[k].traits[trait]["n_samples"]) for k in view.studies),
        position=union.position[kept],
        ref=union.ref[kept],
        alt=union.alt[kept],
        alt_frequency=frequency.frequency[kept],
        alt_count=frequency.alt_count[kept],
        U=shared.U[0, kept],
        V=shared.V[grid] * shared.scale[0],
        allele_number=frequency.allele_number[kept],
        per_study=tuple((U[0, kept], V[grid] * scale[0]) for U, V, scale in shared.per_study),
        view=view,
    )


def _request_all(gene: str, chromosome: str) -> GeneRequest:
    """Return a request for every variant that the studies have of a gene."""
    nothing, words = np.empty(0, np.int64), np.empty(0, object)
    return GeneRequest(
        gene=gene,
        chromosome=chromosome,
        start=0,
        end=0,
        position=nothing,
        ref=words,
        alt=words,
        member=np.empty((1, 0), np.bool_),
        columns={},
        owner=np.empty(0, np.bool_),
        is_region=True,
    )


def run_test(
    statistics: GeneStatistics,
    test: str = "burden",
    *,
    weights: str = "flat",
    max_maf: float = 0.01,
    frequency: Literal["maf", "aaf"] = "maf",
    variants: NDArray[np.bool_] | None = None,
    mask: str = ALL_VARIANTS,
    annotations: Mapping[str, Floats] | None = None,
    collapse_mac: float = 10.0,
) -> GeneTestResult:
    """Run a gene test; the row that `locomass meta` writes for the same variants.

    >>> study = locomass.open_bundle("results/cohort_a/bundle")
    >>> statistics = locomass.gene_statistics(study, "GENE1A", "y")
    >>> result = locomass.run_test(statistics, "burden", max_maf=0.05)
    >>> bool(0 < result.p <= 1), result.n_variants > 0
    (True, True)

    Args:
        statistics: from `gene_statistics`.
        test: name of a test; `locomass config tests` lists them.
        weights: ``flat``, ``beta_A_B``, ``madsen-browning``, ``annotation:COLUMN``; several joined by + for ACAT-O.
        max_maf: MAF limit, inclusive.
        frequency: ``maf`` counts and bounds the minor allele, ``aaf`` the ALT allele.
        variants: (m,) True where the mask takes the variant; all when None.
        mask: its name, for messages.
        annotations: numeric columns (m,) for ``annotation:COLUMN``.
        collapse_mac: ACAT-V pools variants with at most this many alleles.

    Raises:
        ConfigError: the test, the weights or the annotation column is unknown.
    """
    check_tests([test])
    if test not in TESTS:
        raise ConfigError(f"test '{test}' is no function of one gene's U and V: {BUNDLE_TESTS[test]}")
    schemes = weights.split("+") if weights else list(DEFAULT_WEIGHTS)
    view = _view_with(
        statistics,
        annotations or {},
        names=[test],
        weights=schemes,
        max_maf=[max_maf],
        frequency=frequency,
        collapse_mac=collapse_mac,
    )
    selection = _select(statistics, view, variants, mask)
    chosen = selection.variants(TESTS[test].scope)
    if not len(chosen):
        nan = float("nan")
        return GeneTestResult(
            test=test,
            weights=weights,
            n_variants=0,
            mac=0.0,
            statistic=nan,
            p=nan,
            log10p=nan,
            beta=nan,
            se=nan,
            method="",
            note="no variant is selected",
        )
    label, result = evaluate_one(view, selection)
    log_p = float(result.log_p[0])
    return GeneTestResult(
        test=test,
        weights=label,
        n_variants=len(chosen),
        mac=float(view.limits[max_maf].mac[chosen].sum()),
        statistic=float(result.statistic[0]),
        p=float(np.exp(log_p)),
        log10p=abs(log_p) / LN10,
        beta=_first(result.beta),
        se=_first(result.se),
        method=result.method,
        note=result.note,
        choice=result.choices()[0],
        ci_low=_first(result.ci_low),
        ci_high=_first(result.ci_high),
    )


def _first(values: Floats | None) -> float:
    """Return the value of the only trait, NaN when the test has none."""
    return float("nan") if values is None else float(values[0])


def _view_with(statistics: GeneStatistics, annotations: Mapping[str, Floats], **tests: Any) -> GeneView:
    """Return the gene under other rules; annotation columns are NaN where the gene's variants are monomorphic."""
    view, columns = statistics.view, {}
    for name, values in annotations.items():
        columns[name] = np.full(len(view.union.position), np.nan)
        columns[name][view.frequency.is_polymorphic] = np.asarray(values, float)
    gene = view.gene
    rules = replace(gene.rules, tests=msgspec.structs.replace(gene.rules.tests, **tests))
    return replace(gene, request=replace(gene.request, columns=columns), rules=rules).view(statistics.trait)


def _select(s: GeneStatistics, view: GeneView, variants: NDArray[np.bool_] | None, mask: str) -> Selection:
    """Return the variants that a mask takes, and those of them under the MAF limit."""
    m = len(s.position)
    taken = np.ones(m, np.bool_) if variants is None else np.asarray(variants, np.bool_)
    if taken.shape != (m,):
        raise InputError(f"variants has shape {taken.shape}; gene {s.gene} has {m} variants, expected ({m},)")
    member = view.frequency.is_polymorphic.copy()
    member[member] = taken
    (bound,) = view.rules.tests.max_maf
    bounded = view.limits[bound].bounded
    return select_members(mask, bound, member, view.frequency.is_polymorphic, bounded, len(member))


def read_results(folder: str | Path, table: str = "gene_tests") -> pd.DataFrame:
    """Return a result table of a run.

    >>> results = locomass.read_results("results/cohort_a")
    >>> {"gene", "trait", "mask", "p", "log10p"} <= set(results.columns)
    True

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

    >>> results = locomass.read_results("results/cohort_a")
    >>> locomass.plot_qq(results.query("trait == 'y' and test == 'burden'")).get_xlabel()
    'expected -log10 p'

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
