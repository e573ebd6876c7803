"""What an annotation file says of one variant (and gene, and transcript): named texts."""

from __future__ import annotations

from dataclasses import dataclass, field

from locomass.variants.chromosomes import normalise_chromosome


@dataclass(frozen=True)
class VariantRecord:
    """One line of annotation.

    Attributes:
        key: ``chrom:pos:ref:alt``.
        fields: by name; the gene is in SYMBOL and Gene, the transcript in Feature, as VEP has them.
    """

    key: str
    fields: dict[str, str] = field(default_factory=dict)


def join_key(chromosome: str, position: int, ref: str, alt: str) -> str:
    """Return the key of a variant, chromosome normalised and alleles upper-case."""
    return f"{normalise_chromosome(chromosome)}:{position}:{ref.upper()}:{alt.upper()}"
