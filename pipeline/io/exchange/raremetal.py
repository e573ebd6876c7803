"""RAREMETAL worker files: ``.singlevar.score.txt`` and ``.singlevar.cov.txt``; the same statistics as rvtests'."""

from __future__ import annotations

from pathlib import Path

from pipeline.io.bundle import Bundle
from pipeline.io.bundle_write import TraitStatistics
from pipeline.io.exchange.common import ImportRequest
from pipeline.io.exchange.pair import PairLayout, read_pair
from pipeline.io.exchange.pair_write import write_pair

RAREMETAL = PairLayout(
    program="RareMetalWorker",
    score_suffix=".singlevar.score.txt.gz",
    covariance_suffix=".singlevar.cov.txt.gz",
    score_columns=(
        "#CHROM", "POS", "REF", "ALT", "N_INFORMATIVE", "FOUNDER_AF", "ALL_AF", "INFORMATIVE_ALT_AC", "CALL_RATE",
        "HWE_PVALUE", "N_REF", "N_HET", "N_ALT", "U_STAT", "SQRT_V_STAT", "ALT_EFFSIZE", "PVALUE",
    ),
    covariance_columns=("#CHROM", "CURRENT_POS", "MARKERS_IN_WINDOW", "COV_MATRICES"),
    frequency="ALL_AF",
    separator=",",
)  # fmt: skip


def read_raremetal(request: ImportRequest) -> TraitStatistics:
    """Read a RAREMETAL worker pair (Feng et al. 2014, Bioinformatics 30:2828); see `read_pair`."""
    return read_pair(request, RAREMETAL)


def write_raremetal(bundle: Bundle, trait: str, prefix: Path) -> list[Path]:
    """Write one trait of a bundle as a RAREMETAL worker pair; return the two files."""
    return write_pair(bundle, trait, prefix, RAREMETAL)
