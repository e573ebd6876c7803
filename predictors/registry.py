"""Summary-statistic predictors by name."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass

from predictors.base import PredictorError, PredictorFit
from predictors.lassosum2 import fit_lassosum2
from predictors.ldpred2 import fit_ldpred2_auto, fit_ldpred2_grid
from predictors.ridge import fit_ridge


@dataclass(frozen=True, slots=True)
class Method:
    """A predictor that is fitted to block statistics.

    Attributes:
        name: what the configuration calls it.
        fit: ``fit(blocks, *, h2, map_function, ...) -> PredictorFit``.
        needs_tuning: whether ``fit`` wants ``tune=``, a score of weights in data outside the GWAS.
        seeded: whether ``fit`` takes ``seed=``.
    """

    name: str
    fit: Callable[..., PredictorFit]
    needs_tuning: bool
    seeded: bool


METHODS = {
    method.name: method
    for method in (
        Method("ridge", fit_ridge, needs_tuning=False, seeded=False),
        Method("ldpred2-auto", fit_ldpred2_auto, needs_tuning=False, seeded=True),
        Method("ldpred2-grid", fit_ldpred2_grid, needs_tuning=True, seeded=True),
        Method("lassosum2", fit_lassosum2, needs_tuning=True, seeded=False),
    )
}


def find_method(name: str) -> Method:
    """Return the method of that name.

    Args:
        name: one of METHODS.

    Returns:
        The method.

    Raises:
        PredictorError: there is none; the message names the closest or all.
    """
    if name in METHODS:
        return METHODS[name]
    close = difflib.get_close_matches(name, METHODS, n=1)
    hint = f"did you mean '{close[0]}'?" if close else f"known: {', '.join(METHODS)}"
    raise PredictorError(f"unknown predictor '{name}'; {hint}")
