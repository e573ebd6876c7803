"""RAREMETAL worker files: ``.singlevar.score.txt`` and ``.singlevar.cov.txt``; the same statistics as rvtests'."""

from __future__ import annotations

from pathlib import Path

from locomass.bundle.exchange.common import ImportRequest
from locomass.bundle.exchange.pair import PairLayout, read_pair
from locomass.bundle.exchange.pair_write import write_pair
from locomass.bundle.study import Bundle
from locomass.bundle.write import TraitStatistics

RAREMETAL = PairLayout(
    program="RareMetalWorker",
    score_suffix=".singlevar.score.txt.gz",
    covariance_suffix=".singlevar.cov.txt.gz",
    score_columns=(
        "#CHROM",
        "POS",
        "REF",
        "ALT",
        "N_INFORMATIVE",
        "FOUNDER_AF",
        "ALL_AF",
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
    covariance_columns=("#CHROM", "CURRENT_POS", "MARKERS_IN_WINDOW", "COV_MATRICES"),
    frequency="ALL_AF",
    separator=",",
)


def read_raremetal(request: ImportRequest) -> TraitStatistics:
    """Read a RAREMETAL worker pair (Feng et al. 2014, Bioinformatics 30:2828); see `read_pair`."""
    return read_pair(request, RAREMETAL)


def write_raremetal(bundle: Bundle, trait: str, prefix: Path) -> list[Path]:
    """Write one trait of a bundle as a RAREMETAL worker pair; return the two files."""
    return write_pair(bundle, trait, prefix, RAREMETAL)
