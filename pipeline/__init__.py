"""Leave-one-chromosome-out de-noising and meta-analysis of score statistics for sequencing studies.

The names of the notebook interface (`pipeline.api`) are imported when they are first used, so that
``import pipeline`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.api import (
        GeneStatistics,
        GeneTestResult,
        gene_statistics,
        open_bundle,
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
    "plot_qq",
    "read_results",
    "run_test",
]


def __getattr__(name: str) -> Any:
    """Return a name of `pipeline.api`, importing it now."""
    if name in __all__:
        return getattr(import_module("pipeline.api"), name)
    raise AttributeError(f"module 'pipeline' has no attribute '{name}'")


def __dir__() -> list[str]:
    """List the lazy names too."""
    return sorted([*globals(), *__all__])
