"""rvtests files: ``.MetaScore.assoc.gz`` and ``.MetaCov.assoc.gz`` (Zhan et al. 2016, Bioinformatics 32:1423)."""

from __future__ import annotations

from pathlib import Path

from locomass.bundle.exchange.common import ImportRequest
from locomass.bundle.exchange.pair import PairLayout, read_pair
from locomass.bundle.exchange.pair_write import write_pair
from locomass.bundle.study import Bundle
from locomass.bundle.write import TraitStatistics

RVTESTS = PairLayout(
    program="RVTests",
    score_suffix=".MetaScore.assoc.gz",
    covariance_suffix=".MetaCov.assoc.gz",
    score_columns=(
        "CHROM",
        "POS",
        "REF",
        "ALT",
        "N_INFORMATIVE",
        "AF",
        "INFORMATIVE_ALT_AC",
        "CALL_RATE",
        "HWE_PVALUE",
        "N_REF",
        "N_HET",
        "N_ALT",
        "U_STAT",
        "SQRT_V_STAT",
        "ALT_EFFSIZE",
        "PVALUE",
    ),
    covariance_columns=("CHROM", "START_POS", "END_POS", "NUM_MARKER", "MARKER_POS", "COV"),
    frequency="AF",
    separator="",
)


def read_rvtests(request: ImportRequest) -> TraitStatistics:
    """Read an rvtests pair; see `read_pair`."""
    return read_pair(request, RVTESTS)


def write_rvtests(bundle: Bundle, trait: str, prefix: Path) -> list[Path]:
    """Write one trait of a bundle as an rvtests pair; return the two files."""
    return write_pair(bundle, trait, prefix, RVTESTS)
