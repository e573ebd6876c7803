"""REGENIE's ``--htp`` table with REMETA's LD files: read, and written from a bundle (Joseph et al. 2025, REMETA).

HTP: ``Name Chr Pos Ref Alt Trait Cohort Model Effect LCI_Effect UCI_Effect Pval AAF Num_Cases Cases_Ref Cases_Het
Cases_Alt Num_Controls Controls_Ref Controls_Het Controls_Alt Info``; Info holds SCORE, SKATV, REGENIE_BETA, REGENIE_SE.
U is SCORE with the sign of beta (some versions of REGENIE score the minor allele) and v is SKATV, or, where the
score's p-value is a hundred times smaller than the printed one (Firth, SPA), ``v = U^2 / chi2_isf(Pval)``; without them
``U = beta / se^2, v = 1 / se^2``. ``V_ij = r_ij sqrt(v_i v_j)``, r of ``PREFIX.remeta.gene.ld`` (`remeta_ld`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import stats

from locomass.bundle.exchange.common import (
    WITHHELD,
    ImportRequest,
    Integers,
    Labels,
    count,
    find_variants,
    frequency_from_counts,
    iterate_genes,
    number,
    read_counts,
    split_keys,
    write_text,
)
from locomass.bundle.exchange.remeta_ld import RemetaLD, write_ld
from locomass.bundle.study import Bundle, matrix_column
from locomass.bundle.write import GeneStatistics, TraitStatistics
from locomass.errors import FormatError, InputError
from locomass.files.arrow import decode_strings
from locomass.numbers import LN10, Floats
from locomass.tables.delimited import Block, DelimitedFile
from locomass.variants.keys import parse_variant_keys

COLUMNS = (
    "Name",
    "Chr",
    "Pos",
    "Ref",
    "Alt",
    "Trait",
    "Cohort",
    "Model",
    "Effect",
    "LCI_Effect",
    "UCI_Effect",
    "Pval",
    "AAF",
    "Num_Cases",
    "Cases_Ref",
    "Cases_Het",
    "Cases_Alt",
    "Num_Controls",
    "Controls_Ref",
    "Controls_Het",
    "Controls_Alt",
    "Info",
)
CORRECTED = 2.0  # digits by which the printed p-value must exceed the score's before v is taken from it
Z95 = 1.959963984540054


@dataclass(frozen=True)
class _Scores:
    """The single variants of an HTP table."""

    labels: tuple[Labels, Integers, Labels, Labels]
    counts: tuple[Integers, Integers, Integers]
    n: Integers
    n_cases: Integers
    frequency: Floats
    U: Floats
    v: Floats


def read_remeta(request: ImportRequest) -> TraitStatistics:
    """Read an HTP table; genes are those of the LD files whose prefix is the covariance.

    Raises:
        FormatError: a missing column, Info without scores, LD files that are damaged.
        InputError: several traits and none of them is the one asked for.
    """
    path = request.scores
    ld = RemetaLD.open(request.need("covariance", "the prefix of PREFIX.remeta.gene.ld and PREFIX.remeta.ld.idx.gz"))
    scores, notes = _read_scores(path, request)
    withheld = np.full(len(scores.U), WITHHELD)
    n_ref, n_het, n_alt = (np.where(scores.counts[0] >= 0, c, withheld) for c in scores.counts)
    n_cases = int(scores.n_cases.max()) if request.kind == "binary" else None
    matched = {gene: find_variants(split_keys(names), scores.labels, path.name)[0] for gene, names in ld.genes.items()}
    n_listed, n_found = (sum(int((row >= low).sum()) for row in matched.values()) for low in (-1, 0))
    inside = np.unique(np.concatenate([row[row >= 0] for row in matched.values()] or [np.empty(0, np.int64)]))
    notes.append(f"LD: {n_found:,} of {n_listed:,} variants of {len(matched):,} genes have a score in {path.name}")
    if len(inside) < len(scores.U):
        outside = len(scores.U) - len(inside)
        notes.append(f"in no gene: {outside:,} of {len(scores.U):,} variants; they count as single variants only")
    return TraitStatistics(
        request.trait,
        request.kind,
        request.n_samples or int(scores.n.max()),
        request.n_cases or n_cases,
        *scores.labels,
        np.where(n_ref >= 0, n_ref + n_het + n_alt, scores.n),
        n_ref,
        n_het,
        n_alt,
        frequency_from_counts(n_ref, n_het, n_alt, scores.frequency),
        scores.U,
        scores.v,
        _genes(ld, matched, scores),
        "REMETA",
        notes,
    )


def _read_scores(path: Path, request: ImportRequest) -> tuple[_Scores, list[str]]:
    """Read the rows that are variants with a score."""
    file = DelimitedFile(path)
    for name in (n for n in COLUMNS if n not in file.names and n not in ("Cohort", "Model")):
        raise FormatError(f"no column {name}; found {', '.join(file.names)}", path=path, line=file.header_line)
    block = file.table()
    keys = parse_variant_keys(block.table["Name"])
    single = np.ones(len(block), np.bool_)
    single[keys.malformed] = False  # rows of genes
    single &= _of_trait(block, request)
    U, v = _score(block, single, request.kind)
    usable = single & np.isfinite(U) & (v > 0)
    kept = np.flatnonzero(usable)
    if not len(kept):
        raise FormatError(
            "no variant has SCORE and SKATV, or an effect with its standard error", path=path, column="Info"
        )
    groups = ("Cases", "Controls") if request.kind == "binary" else ("Cases",)
    parts = [read_counts(block, (f"{g}_Ref", f"{g}_Het", f"{g}_Alt")) for g in groups]
    known = np.all([p[0] >= 0 for p in parts], axis=0)
    counts = tuple(np.where(known, sum(p[k] for p in parts), WITHHELD)[kept] for k in range(3))
    sizes = [np.nan_to_num(block.numbers(f"Num_{g}")).astype(np.int64) for g in groups]
    n = sum(sizes, np.zeros(len(block), np.int64))[kept]
    notes = [
        f"{path.name}: {len(kept):,} variants with a score; {int((single & ~usable).sum()):,} without are left out"
    ]
    scores = _Scores(
        split_keys(keys.key[kept]),
        (counts[0], counts[1], counts[2]),
        n,
        sizes[0][kept],
        block.numbers("AAF")[kept],
        U[kept],
        v[kept],
    )
    return scores, notes


def _of_trait(block: Block, request: ImportRequest) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """Return which rows are of the trait; of a table with one trait all, whatever its name."""
    traits = decode_strings(block.table["Trait"])
    known = sorted(set(traits))
    if len(known) > 1 and request.trait not in known:
        raise InputError(f"{block.path}: which trait? --trait must be one of {', '.join(known[:10])}")
    return np.asarray(traits == request.trait) if len(known) > 1 else np.ones(len(traits), np.bool_)


def _score(block: Block, single: np.ndarray[tuple[int, ...], np.dtype[np.bool_]], kind: str) -> tuple[Floats, Floats]:
    """Return U and v of every row; NaN where it has none."""
    names = ("SCORE", "SKATV", "REGENIE_BETA", "REGENIE_SE")
    info = {name: np.full(len(block), np.nan) for name in names}
    texts = block.table["Info"].to_pylist()
    for k in np.flatnonzero(single).tolist():
        for name, _, value in (part.partition("=") for part in texts[k].split(";")):
            if name in info and value not in ("NA", ""):
                try:
                    info[name][k] = float(value)
                except ValueError:
                    message = f"expected a number for {name}, got '{value}'"
                    raise FormatError(message, path=block.path, line=block.line(k), column="Info") from None
    effect, low = block.numbers("Effect"), block.numbers("LCI_Effect")
    with np.errstate(invalid="ignore", divide="ignore"):
        if kind == "binary":
            effect, low = np.log(effect), np.log(low)
        beta = np.where(np.isfinite(info["REGENIE_BETA"]), info["REGENIE_BETA"], effect)
        se = np.where(np.isfinite(info["REGENIE_SE"]), info["REGENIE_SE"], (effect - low) / Z95)
        given = np.isfinite(info["SCORE"])
        U = np.where(given, np.copysign(info["SCORE"], np.where(np.isfinite(beta), beta, info["SCORE"])), beta / se**2)
        log_p = np.log10(block.numbers("Pval"))
        isf = U**2 / stats.chi2.isf(10.0**log_p, 1)
        v = np.where(given, np.where(np.isfinite(info["SKATV"]), info["SKATV"], isf), 1 / se**2)
        p_of_score = stats.chi2.logsf(U**2 / v, 1) / LN10
    corrected = given & (p_of_score < log_p - CORRECTED) & (log_p > -300) & np.isfinite(isf)
    return U, np.where(corrected, isf, v)


def _genes(ld: RemetaLD, matched: dict[str, Integers], scores: _Scores) -> Iterator[GeneStatistics]:
    """Give V of each gene with a variant that has a score."""
    for gene, row in matched.items():
        here = np.flatnonzero(row >= 0)
        if not len(here):
            continue
        at = row[here]
        wanted = split_keys(ld.genes[gene][here])
        sign = np.where(wanted[3] == scores.labels[3][at], 1.0, -1.0)
        s = sign * np.sqrt(scores.v[at])
        V = ld.correlations(gene)[np.ix_(here, here)] * np.outer(s, s)
        np.fill_diagonal(V, scores.v[at])
        position = scores.labels[1][at]
        yield GeneStatistics(gene, str(scores.labels[0][at[0]]), int(position.min()), int(position.max()), at, V)


def write_remeta(bundle: Bundle, trait: str, prefix: Path) -> list[Path]:
    """Write one trait of a bundle as PREFIX.htp and REMETA's LD files; return the four files.

    The Pval of a variant is that of its score; Cases_* of a binary trait are unknown in a bundle, and NA.
    """
    table, info = bundle.variants, bundle.traits[trait]
    s, t = bundle.sample_sets[info["sample_set"]], info["index"]
    text = [table.column(c).to_pylist() for c in ("chromosome", "position", "ref", "alt")]
    keys = [":".join(map(str, key)) for key in zip(*text, strict=True)]
    columns = {c: matrix_column(table, c)[:, s] for c in ("n_ref", "n_het", "n_alt", "alt_frequency")}
    U, V = (matrix_column(table, c)[:, t] for c in ("U", "V"))
    genes, used = {}, set[int]()
    for gene in iterate_genes(bundle, trait):
        rows = np.flatnonzero(np.diag(gene.V) > 0)
        d = np.sqrt(np.diag(gene.V)[rows])
        genes[gene.gene] = ([keys[v] for v in gene.variant[rows]], d**2, gene.V[np.ix_(rows, rows)] / np.outer(d, d))
        used |= set(gene.variant[rows].tolist())
    htp = Path(f"{prefix}.htp")
    is_binary, cases = info["kind"] == "binary", info["n_cases"]
    with write_text(htp) as handle:
        handle.write(("\t".join(COLUMNS) + "\n").encode())
        for v in sorted(used):
            beta, se = U[v] / V[v], 1 / np.sqrt(V[v])
            effects = [np.exp(x) if is_binary else x for x in (beta, beta - Z95 * se, beta + Z95 * se)]
            counts = [count(columns[c][v]) for c in ("n_ref", "n_het", "n_alt")]
            n = [str(cases), *["NA"] * 3, str(info["n_samples"] - cases)] if is_binary and cases else []
            people = [*n, *["NA"] * 3] if n else [str(info["n_samples"]), *counts, *["NA"] * 4]
            extra = f"REGENIE_BETA={number(beta)};REGENIE_SE={number(se)};SCORE={number(U[v])};SKATV={number(V[v])}"
            pval = number(stats.chi2.sf(U[v] ** 2 / V[v], 1))
            labels = [keys[v], *(str(column[v]) for column in text), trait, bundle.study, "ADD"]
            rest = [*map(number, effects), pval, number(columns["alt_frequency"][v]), *people, extra]
            handle.write(("\t".join([*labels, *rest]) + "\n").encode())
    return [htp, *write_ld(prefix, genes)]
