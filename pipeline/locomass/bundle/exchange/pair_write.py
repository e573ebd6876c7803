"""Score and covariance files in the layout of rvtests or the RAREMETAL worker, written from a bundle.

Numbers have 17 digits, so that the files read back give the same p-values. The tools that read such pairs want them
compressed by bgzip and indexed by tabix; plain gzip is written here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from locomass import __version__
from locomass.bundle.exchange.common import (
    ExportedGene,
    Integers,
    count,
    iterate_genes,
    number,
    write_text,
)
from locomass.bundle.exchange.pair import PairLayout
from locomass.bundle.study import Bundle, matrix_column
from locomass.numbers import Floats

Pairs = tuple[Integers, Integers, Floats]


def write_pair(bundle: Bundle, trait: str, prefix: Path, layout: PairLayout) -> list[Path]:
    """Write the variants of a bundle's genes and the covariances within genes.

    Args:
        bundle: the study.
        trait: one of its traits.
        prefix: start of both file names.
        layout: the program whose files these imitate.

    Returns:
        The score file and the covariance file.
    """
    paths = [Path(f"{prefix}{suffix}") for suffix in (layout.score_suffix, layout.covariance_suffix)]
    found: dict[str, list[Pairs]] = {}
    for gene in iterate_genes(bundle, trait):
        found.setdefault(gene.chromosome, []).append(_pairs(gene))
    pairs = [_merge(parts) for _, parts in sorted(found.items())]
    order = np.argsort([first[0] for first, _, _ in pairs], kind="stable") if pairs else np.empty(0, np.int64)
    pairs = [pairs[k] for k in order]
    used = np.unique(np.concatenate([p[0] for p in pairs])) if pairs else np.empty(0, np.int64)
    n_samples = int(bundle.traits[trait]["n_samples"])
    _write_scores(paths[0], bundle, trait, used, n_samples, layout)
    _write_covariances(paths[1], bundle, pairs, n_samples, layout)
    return paths


def _pairs(gene: ExportedGene) -> Pairs:
    """Return the upper triangle of a gene's V by variant number, first <= second; zeros off the diagonal left out."""
    order = np.argsort(gene.variant)
    V = gene.V[np.ix_(order, order)]
    keep = np.triu(V != 0) | np.eye(len(V), dtype=bool)
    row, column = np.nonzero(keep)
    variant = gene.variant[order]
    return variant[row], variant[column], V[row, column]


def _merge(parts: list[Pairs]) -> Pairs:
    """Return the pairs of several genes, each once, sorted."""
    first, second, value = (np.concatenate([p[k] for p in parts]) for k in range(3))
    order = np.lexsort((second, first))
    first, second, value = first[order], second[order], value[order]
    new = np.ones(len(first), np.bool_)
    new[1:] = (np.diff(first) != 0) | (np.diff(second) != 0)
    return first[new], second[new], value[new]


def _preamble(layout: PairLayout, bundle: Bundle, trait: str, n_samples: int) -> str:
    return (
        f"##ProgramName={layout.program}\n##Software=locomass {__version__}\n##Study={bundle.study}\n##Trait={trait}\n"
        f"##Samples={n_samples}\n##AnalyzedSamples={n_samples}\n"
    )


def _write_scores(path: Path, bundle: Bundle, trait: str, used: Integers, n_samples: int, layout: PairLayout) -> None:
    """Write the score file of the variants ``used``."""
    table, info = bundle.variants, bundle.traits[trait]
    s, t = bundle.sample_sets[info["sample_set"]], info["index"]
    text = {c: table.column(c).to_pylist() for c in ("chromosome", "position", "ref", "alt")}
    columns = {c: matrix_column(table, c)[:, s] for c in ("n_obs", "n_ref", "n_het", "n_alt", "alt_frequency")}
    U, V = (matrix_column(table, c)[:, t] for c in ("U", "V"))
    with write_text(path) as handle:
        handle.write((_preamble(layout, bundle, trait, n_samples) + "\t".join(layout.score_columns) + "\n").encode())
        for v in used.tolist():
            f, n = float(columns["alt_frequency"][v]), int(columns["n_obs"][v])
            known = V[v] > 0
            values: dict[str, Any] = {
                "CHROM": text["chromosome"][v],
                "#CHROM": text["chromosome"][v],
                "POS": str(text["position"][v]),
                "REF": text["ref"][v],
                "ALT": text["alt"][v],
                "N_INFORMATIVE": str(n_samples),
                "AF": number(f),
                "FOUNDER_AF": number(f),
                "ALL_AF": number(f),
                "INFORMATIVE_ALT_AC": number(np.rint(2 * n * f)),
                "CALL_RATE": number(n / n_samples),
                "HWE_PVALUE": "NA",
                "N_REF": count(columns["n_ref"][v]),
                "N_HET": count(columns["n_het"][v]),
                "N_ALT": count(columns["n_alt"][v]),
                "U_STAT": number(U[v]),
                "SQRT_V_STAT": number(np.sqrt(V[v])),
                "ALT_EFFSIZE": number(U[v] / V[v]) if known else "NA",
                "PVALUE": number(stats.chi2.sf(U[v] ** 2 / V[v], 1)) if known else "NA",
            }
            handle.write(("\t".join(values[c] for c in layout.score_columns) + "\n").encode())


def _write_covariances(path: Path, bundle: Bundle, pairs: list[Pairs], n_samples: int, layout: PairLayout) -> None:
    """Write one line per variant: itself and the later variants it shares a gene with."""
    chromosome = bundle.variants.column("chromosome").to_pylist()
    position = bundle.variants.column("position").to_numpy()
    with write_text(path) as handle:
        handle.write(("\t".join(layout.covariance_columns) + "\n").encode())
        for first, second, value in pairs:
            starts = np.flatnonzero(np.diff(first, prepend=-1))
            for low, high in zip(starts, [*starts[1:], len(first)], strict=True):
                v, others = int(first[low]), second[low:high]
                cov = value[low:high] / n_samples
                own = {
                    "CHROM": chromosome[v],
                    "START_POS": str(position[v]),
                    "END_POS": str(position[others[-1]]),
                    "NUM_MARKER": str(len(others)),
                    "MARKER_POS": ",".join(map(str, position[others])) + layout.separator,
                    "COV": ",".join(map(number, cov)) + layout.separator,
                }
                own |= {"#CHROM": own["CHROM"], "CURRENT_POS": own["START_POS"]}
                own |= {"MARKERS_IN_WINDOW": own["MARKER_POS"], "COV_MATRICES": own["COV"]}
                handle.write(("\t".join(own[c] for c in layout.covariance_columns) + "\n").encode())
