"""Leave-one-chromosome-out de-noising and meta-analysis of score statistics for sequencing studies.

The names of the notebook interface (`locomass.interface`) are imported when they are first used, so that
``import locomass`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from locomass.interface import (
        GeneStatistics,
        GeneTestResult,
        gene_statistics,
        open_bundle,
        open_genotypes,
        plot_qq,
        read_results,
        run_test,
    )

__version__ = "0.1.0"
__all__ = [
    "GeneStatistics",
    "GeneTestResult",
    "gene_statistics",
    "open_bundle",
    "open_genotypes",
    "plot_qq",
    "read_results",
    "run_test",
]


def __getattr__(name: str) -> Any:
    """Return a name of `locomass.interface`, importing it now."""
    if name in __all__:
        return getattr(import_module("locomass.interface"), name)
    raise AttributeError(f"module 'locomass' has no attribute '{name}'")


def __dir__() -> list[str]:
    """List the lazy names too."""
    return sorted([*globals(), *__all__])
