"""seqMeta cohort objects, exported as two text tables (the R code stands in docs/formats.md).

scores: ``gene snp score maf n sey``; cov: ``gene snp1 snp2 cov``. Names of SNPs are ``chrom:pos:ref:alt``. The object
holds scores = G'(y - mu) and cov = G'WG - ... without sigma2 (Voorman, Brody, Lumley, seqMeta; sey is the residual
standard deviation, 1 for a binary trait), so ``U = score / sey^2`` and ``V = cov / sey^2``. maf = -1 marks a SNP that
the study lacks.
"""

from __future__ import annotations

import numpy as np

from pipeline.errors import FormatError
from pipeline.io.bundle_write import GeneStatistics, TraitStatistics
from pipeline.io.delimited import decode_strings
from pipeline.io.exchange.common import WITHHELD, ImportRequest
from pipeline.io.exchange.triplets import fill_matrix, group_rows, open_table, read_entries
from pipeline.io.variant_keys import parse_variant_keys


def read_seqmeta(request: ImportRequest) -> TraitStatistics:
    """Read the two tables; genes are those of the object.

    Raises:
        FormatError: a name that is no chrom:pos:ref:alt, numbers that disagree or are not positive where they must be.
    """
    path = request.scores
    block = open_table(path, ("gene", "snp", "score", "maf", "n", "sey"))
    entries = read_entries(
        request.need("covariance", "the table `gene snp1 snp2 cov`"), ("snp1", "snp2", "cov"), "gene"
    )
    gene, snp = (decode_strings(block.table[c]) for c in ("gene", "snp"))
    score, maf, n, sey = (block.numbers(c) for c in ("score", "maf", "n", "sey"))
    keys = parse_variant_keys(block.table["snp"])
    for row in keys.malformed[:1]:
        message = f"'{snp[row]}' is not chrom:pos:ref:alt"
        raise FormatError(message, path=path, line=block.line(row), column="snp")
    bad = ~np.isfinite(score) | ~np.isfinite(maf) | ~np.isfinite(n) | ~(sey > 0) | (n <= 0)
    for row in np.flatnonzero(bad & (maf != -1))[:1]:
        raise FormatError("expected numbers, n and sey positive", path=path, line=block.line(row))
    seen = maf >= 0
    unique, first, inverse = np.unique(keys.key.astype(str), return_index=True, return_inverse=True)
    inverse = inverse.reshape(-1)
    first = np.array([next(iter(np.flatnonzero((inverse == k) & seen)), -1) for k in range(len(unique))], np.int64)
    place = np.cumsum(first >= 0) - 1
    kept = first[first >= 0]
    diagonal = np.zeros(len(kept))
    genes = []
    for name, rows in group_rows(gene).items():
        rows = rows[seen[rows]]
        if not len(rows):
            continue
        V = fill_matrix(entries, name, snp[rows]) / sey[rows[0]] ** 2
        variant = place[inverse[rows]]
        diagonal[variant] = np.diag(V)
        position = keys.position[rows]
        chromosome = str(keys.chromosome[rows[0]])
        genes.append(GeneStatistics(name, chromosome, int(position.min()), int(position.max()), variant, V))
    parts = [keys.key[k].split(":") for k in kept]
    ref, alt = (np.array([p[i] for p in parts], object) for i in (2, 3))
    withheld = np.full(len(kept), WITHHELD)
    return TraitStatistics(
        request.trait, request.kind, request.n_samples or int(n[kept].max()), request.n_cases, keys.chromosome[kept],
        keys.position[kept], ref, alt, n[kept].astype(np.int64), withheld, withheld, withheld, maf[kept],
        score[kept] / sey[kept] ** 2, diagonal, genes, "seqMeta",
    )  # fmt: skip
