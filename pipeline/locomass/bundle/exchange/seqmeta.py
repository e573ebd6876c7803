"""seqMeta cohort objects, exported as two text tables (the R code stands in docs/formats.md).

scores: ``gene snp score maf n sey``; cov: ``gene snp1 snp2 cov``. Names of SNPs are ``chrom:pos:ref:alt``. The object
holds scores = G'(y - mu) and cov = G'WG - ... without sigma2 (Voorman, Brody, Lumley, seqMeta; sey is the residual
standard deviation, 1 for a binary trait), so ``U = score / sey^2`` and ``V = cov / sey^2``. maf = -1 marks a SNP that
the study lacks; `prepScores` leaves its rows in both tables.
"""

from __future__ import annotations

import numpy as np

from locomass.bundle.exchange.common import WITHHELD, ImportRequest
from locomass.bundle.exchange.triplets import fill_matrix, group_rows, open_table, read_entries
from locomass.bundle.write import GeneStatistics, TraitStatistics
from locomass.errors import FormatError
from locomass.files.arrow import decode_strings
from locomass.variants.keys import parse_variant_keys


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
    unique, inverse = np.unique(keys.key.astype(str), return_inverse=True)
    inverse = inverse.reshape(-1)
    there, first = np.unique(inverse[seen], return_index=True)
    place = np.full(len(unique), -1)
    place[there] = np.arange(len(there))
    kept = np.flatnonzero(seen)[first]
    diagonal = np.zeros(len(kept))
    genes = []
    for name, rows in group_rows(gene).items():
        every, rows = rows, rows[seen[rows]]
        if not len(rows):
            continue
        V = fill_matrix(entries, name, snp[rows], snp[every[~seen[every]]]) / sey[rows[0]] ** 2
        variant = place[inverse[rows]]
        diagonal[variant] = np.diag(V)
        position = keys.position[rows]
        chromosome = str(keys.chromosome[rows[0]])
        genes.append(GeneStatistics(name, chromosome, int(position.min()), int(position.max()), variant, V))
    parts = [keys.key[k].split(":") for k in kept]
    notes = [
        f"{path.name}: {len(kept):,} SNPs in {len(genes):,} genes; {len(unique) - len(kept):,} that the study lacks"
    ]
    ref, alt = (np.array([p[i] for p in parts], object) for i in (2, 3))
    withheld = np.full(len(kept), WITHHELD)
    return TraitStatistics(
        trait=request.trait,
        kind=request.kind,
        n_samples=request.n_samples or int(n[kept].max()),
        n_cases=request.n_cases,
        chromosome=keys.chromosome[kept],
        position=keys.position[kept],
        ref=ref,
        alt=alt,
        n_obs=n[kept].astype(np.int64),
        n_ref=withheld,
        n_het=withheld,
        n_alt=withheld,
        alt_frequency=maf[kept],
        U=score[kept] / sey[kept] ** 2,
        V=diagonal,
        genes=genes,
        source="seqMeta",
        notes=notes,
    )
