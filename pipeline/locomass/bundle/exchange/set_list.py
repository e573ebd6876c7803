"""The genes of a bundle as a REGENIE set list, so that a study which came with its genes can be tested on them."""

from __future__ import annotations

from pathlib import Path

from locomass.bundle.exchange.common import iterate_genes, write_text
from locomass.bundle.study import Bundle


def write_sets(bundle: Bundle, trait: str, path: Path) -> list[Path]:
    """Write ``GENE chromosome start chrom:pos:ref:alt,...`` for every gene that has statistics; return the file."""
    with write_text(path) as handle:
        for gene in iterate_genes(bundle, trait):
            g = gene.study_gene
            keys = (f"{gene.chromosome}:{p}:{r}:{a}" for p, r, a in zip(g.position, g.ref, g.alt, strict=True))
            start = int(g.position.min())
            handle.write(f"{gene.gene} {gene.chromosome} {start} {','.join(keys)}\n".encode())
    return [path]
