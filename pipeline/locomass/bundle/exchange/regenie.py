"""REGENIE step 2 single-variant output with linkage disequilibrium from a PLINK fileset; gene results written alike.

U = beta / se^2 and V_jj = 1 / se^2; ``V_ij = r_ij sqrt(V_ii V_jj)`` with r the genotype correlation in the reference
(as REMETA does). For a binary trait run REGENIE with ``--firth-se``, so that beta / se agrees with its p-value.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from locomass.bundle.exchange.common import (
    WITHHELD,
    ImportRequest,
    Integers,
    Membership,
    find_variants,
    match_genes,
    number,
    read_gene_list,
    write_text,
)
from locomass.bundle.write import GeneStatistics, TraitStatistics
from locomass.errors import FormatError, InputError
from locomass.files.arrow import decode_strings
from locomass.genotypes.fileset import Fileset, open_fileset
from locomass.numbers import Floats
from locomass.schema import GENE_TESTS, validate_table
from locomass.tables.delimited import DelimitedFile
from locomass.variants.chromosomes import normalise_chromosomes

COLUMNS = ("CHROM", "GENPOS", "ID", "ALLELE0", "ALLELE1", "A1FREQ", "N", "TEST", "BETA", "SE")
HEADER = "CHROM GENPOS ID ALLELE0 ALLELE1 A1FREQ N TEST BETA SE CHISQ LOG10P EXTRA"
TEST_NAMES = {"burden": "ADD", "skat": "ADD-SKAT", "skat-o": "ADD-SKATO", "acat-v": "ADD-ACATV", "acat-o": "ADD-ACATO"}


def read_regenie(request: ImportRequest) -> TraitStatistics:
    """Read single-variant results (rows of TEST = ADD that are no gene) and take r from a PLINK fileset.

    Variants that failed, or that the reference lacks or sees in one allele only, are left out; the notes count them.

    Raises:
        FormatError: a column is missing or a number malformed.
        MatchError: no variant is in the sets, or in the reference.
    """
    path = request.scores
    reference = open_fileset(request.need("reference", "a PLINK fileset with genotypes of the same ancestry"))
    sets = request.need("sets", "a REGENIE set list that names each gene's variants")
    file = DelimitedFile(path)
    for name in COLUMNS:
        if name not in file.names:
            raise FormatError(f"no column {name}; found {', '.join(file.names)}", path=path, line=file.header_line)
    block = file.table()
    beta, se, n = (block.numbers(c) for c in ("BETA", "SE", "N"))
    single = np.asarray(pc.and_(pc.equal(block.table["TEST"], "ADD"), pc.not_equal(block.table["ALLELE0"], "ref")))
    usable = np.isfinite(beta) & np.isfinite(se) & (se > 0)
    if not np.any(single & usable):
        raise FormatError("no single-variant row (TEST = ADD) with BETA and SE", path=path)
    chromosome, position = normalise_chromosomes(block.table["CHROM"]), block.positions("GENPOS")
    ref, alt = (decode_strings(pc.utf8_upper(block.table[c])) for c in ("ALLELE0", "ALLELE1"))
    bim = reference.variants
    have = (
        bim["chromosome"].astype(str).to_numpy(object),
        bim["position"].to_numpy(np.int64),
        bim["a2"].to_numpy(object),
        bim["a1"].to_numpy(object),
    )
    row, swapped = find_variants((chromosome, position, ref, alt), have, str(request.reference))
    varies = _varying(reference, row)
    kept = np.flatnonzero(single & usable & varies)
    notes = [
        f"{what}: {int(where.sum()):,} variants left out"
        for what, where in (
            ("REGENIE gave no BETA or SE", single & ~usable),
            ("not in the LD reference, or of one allele there", single & usable & ~varies),
        )
        if where.any()
    ]
    labels = chromosome[kept], position[kept], ref[kept], alt[kept]
    genes, matched = match_genes(read_gene_list(sets), labels, path.name)
    notes += matched
    v = 1 / se[kept] ** 2
    withheld = np.full(len(kept), WITHHELD)
    sign = np.where(swapped[kept], -1.0, 1.0)
    return TraitStatistics(
        request.trait,
        request.kind,
        request.n_samples or int(np.nanmax(n[kept])),
        request.n_cases,
        *labels,
        np.nan_to_num(n[kept]).astype(np.int64),
        withheld,
        withheld,
        withheld,
        block.numbers("A1FREQ")[kept],
        beta[kept] * v,
        v,
        _genes(reference, genes, row[kept], sign, v),
        "REGENIE",
        notes,
    )


def _decode(reference: Fileset, rows: Integers) -> Floats:
    """Return (m, N) A1 counts of increasing rows of the reference, missing calls filled with the mean, centred."""
    n = reference.n_samples
    dosage, _ = reference.select(rows).dosage(np.arange(n, dtype=np.int32), n)
    wide = dosage.astype(np.float64)
    return np.asarray(wide - wide.mean(axis=1, keepdims=True))


def _varying(reference: Fileset, row: Integers) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """Return which variants the reference has with more than one genotype."""
    wanted = np.unique(row[row >= 0])
    varies = np.zeros(reference.n_variants + 1, np.bool_)
    step = max(1, (32 << 20) // (8 * reference.n_samples))
    for start in range(0, len(wanted), step):
        rows = wanted[start : start + step]
        varies[rows] = np.abs(_decode(reference, rows)).max(axis=1) > 1e-6
    return np.asarray(varies[row])  # row -1 is the last entry, False


def _genes(
    reference: Fileset, genes: list[Membership], row: Integers, sign: Floats, v: Floats
) -> Iterator[GeneStatistics]:
    """Give V of each gene: ``r_ij sqrt(v_i v_j)``, turned where the reference counts the other allele."""
    for gene in genes:
        rows, inverse = np.unique(row[gene.variant], return_inverse=True)
        G = _decode(reference, rows)[inverse.reshape(-1)]
        norm = np.sqrt(np.einsum("ij,ij->i", G, G))
        s = sign[gene.variant] * np.sqrt(v[gene.variant]) / norm
        V = (G @ G.T) * np.outer(s, s)
        np.fill_diagonal(V, v[gene.variant])
        yield GeneStatistics(gene.gene, gene.chromosome, gene.start, gene.end, gene.variant, (V + V.T) / 2)


def write_regenie(table_path: Path, path: Path, *, trait: str | None = None, weights: str | None = None) -> list[Path]:
    """Write gene tests as REGENIE step 2 writes them: one row per gene, mask, bin and test, ID = ``GENE.MASK.BIN``.

    Args:
        table_path: a gene_tests.parquet.
        path: file to write, gzipped when it ends in .gz.
        trait, weights: which rows; needed where the table has several. Other weights than these are left out, except
            for tests that combine several.

    Raises:
        InputError: the table has several traits or weights and none was named.
    """
    table = validate_table(pq.read_table(table_path), GENE_TESTS, table_path)
    for name, chosen in (("trait", trait), ("weights", weights)):
        simple = pc.filter(table[name], pc.invert(pc.match_substring(table[name], "+")))
        options = sorted(set(simple.to_pylist()))
        if (chosen is None and len(options) > 1) or (chosen is not None and chosen not in options):
            raise InputError(f"{table_path}: which {name}? give --{name}, one of {', '.join(options)}")
        if chosen is not None:
            keep = pc.equal(table[name], chosen)
            table = table.filter(pc.or_(keep, pc.match_substring(table[name], "+")) if name == "weights" else keep)
    masks = ";".join(f'{m}="{m}"' for m in sorted(set(table["mask"].to_pylist())))
    with write_text(path) as handle:
        handle.write(f"##MASKS=<{masks}>\n{HEADER}\n".encode())
        for row in _rows(table):
            handle.write((" ".join(row) + "\n").encode())
    return [path]


def _rows(table: pa.Table) -> Iterator[list[str]]:
    """Give the fields of each result row."""
    for r in table.to_pylist():
        name = f"{r['mask']}.{r['max_maf']:g}"
        frequency = r["mac"] / (2 * r["n_samples"]) if r["n_samples"] else np.nan
        chi2 = (r["beta"] / r["se"]) ** 2 if r["se"] else np.nan
        labels = [r["chromosome"], str(r["start"]), f"{r['gene']}.{name}", "ref", name]
        test = TEST_NAMES.get(r["test"], f"ADD-{r['test'].upper()}")
        numbers = [number(x) for x in (r["beta"], r["se"], chi2, r["log10p"])]
        extra = "NA" if np.isfinite(r["log10p"]) else "TEST_FAIL"
        yield [*labels, number(frequency), str(r["n_samples"]), test, *numbers, extra]
