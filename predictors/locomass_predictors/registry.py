"""Prediction methods by name: one line each."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import msgspec

from locomass_predictors import block_ridge, clump_threshold, lassosum2, ldpred2, mixture, ridge
from locomass_predictors.base import PredictorError
from locomass_predictors.method import Method, Options, Source

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method(name="none", help="no prediction", source=Source.NONE),
        ridge.METHOD,
        ldpred2.AUTO,
        ldpred2.GRID,
        lassosum2.METHOD,
        clump_threshold.METHOD,
        block_ridge.METHOD,
        mixture.METHOD,
        Method(name="weights", help="published weights, scored as they are", source=Source.WEIGHTS),
        Method(name="loco", help="REGENIE .loco files", source=Source.LOCO),
        Method(name="stack", help="several predictors, one non-negative weight each", source=Source.STACK),
    )
}


def methods_from(source: Source) -> dict[str, Method]:
    """Return the methods that are made from one source, by name."""
    return {name: method for name, method in METHODS.items() if method.source is source}


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


def read_options(name: str, given: Mapping[str, Any]) -> Options:
    """Return a method's options, checked, defaults filled in.

    Args:
        name: one of METHODS.
        given: option -> value.

    Returns:
        The options.

    Raises:
        PredictorError: the method is unknown, or has no such option; the message names the closest.
        msgspec.ValidationError: a value has the wrong type or is out of range; the message ends with its place.
    """
    kind = find_method(name).options
    known = kind.__struct_fields__
    for option in given:
        if option not in known:
            close = difflib.get_close_matches(option, known, n=1)
            takes = f"takes {', '.join(known)}" if known else "takes no options"
            hint = f"did you mean '{close[0]}'?" if close else f"{name} {takes}"
            raise PredictorError(f"{name} has no option '{option}'; {hint}")
    return msgspec.convert(dict(given), kind)
