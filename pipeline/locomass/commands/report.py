"""The report of a results directory, written again."""

from __future__ import annotations

import json
from pathlib import Path

from locomass.errors import ConfigError


def rewrite_report(results: Path, all_figures: bool = False) -> Path:
    """Write report.html and its figures again from the tables of a results directory; return the page.

    Args:
        results: what `run_study` or `run_meta_analysis` left.
        all_figures: figures of every trait and test in place of the strongest traits' first test.
    """
    from locomass.report.page import describe_frequency, write_report

    if not (results / "gene_tests.parquet").exists():
        raise ConfigError(f"{results} has no gene_tests.parquet; give a folder that `locomass run` or `meta` left")
    configuration = json.loads((results / "provenance.json").read_text(encoding="utf-8")).get("configuration", {})
    maf = configuration.get("maf", "joint")
    counted = configuration.get("tests", {}).get("frequency", "maf")
    frequency = describe_frequency(counted, maf if isinstance(maf, str) else "external")
    return write_report(results, frequency=frequency, all_figures=all_figures)
