"""Numbers and texts as they stand in the page: packed columns, JSON that is safe inside a script, p-values."""

from __future__ import annotations

import base64
import json
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

MISSING = "–"


def pack_column(values: NDArray[Any], kind: str) -> dict[str, str]:
    """Return a numeric column for the page: little-endian base64.

    Args:
        values: any numeric array; flattened.
        kind: ``u1``, ``u2``, ``u4``, ``i4``, ``f4`` or ``f8``.
    """
    data = np.ascontiguousarray(values, np.dtype(f"<{kind}")).tobytes()
    return {"kind": kind, "data": base64.b64encode(data).decode("ascii")}


def pack_codes(values: NDArray[Any], n_labels: int) -> dict[str, str]:
    """Return codes 0 .. n_labels - 1 in the smallest type that holds them."""
    return pack_column(values, "u1" if n_labels <= 0xFF else "u2" if n_labels <= 0xFFFF else "u4")


def dump_json(value: Any) -> str:
    """Return JSON for a script element: nothing in it can end the element or start a comment; NaN becomes null."""
    text = json.dumps(_finite(value), separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026").replace("\u2028", "\\u2028")


def _finite(value: Any) -> Any:
    """Return the value with numbers that are not finite replaced by None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return value


def format_number(value: Any, digits: int = 3) -> str:
    """Return a number for people: ``12,345``, ``0.0123``, ``1.20e-7``, a dash where there is none."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return MISSING
    if isinstance(value, int | np.integer):
        return f"{int(value):,}"
    number = float(value)
    if number.is_integer() and abs(number) < 1e15:
        return f"{int(number):,}"
    if 1e-3 <= abs(number) < 1e6:
        places = max(0, digits - 1 - math.floor(math.log10(abs(number))))
        return f"{number:,.{places}f}"
    mantissa, exponent = f"{number:.{digits - 1}e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def format_p(log10p: float) -> str:
    """Return a p-value from its -log10, also where the p-value itself underflows."""
    if not math.isfinite(log10p):
        return MISSING
    if log10p < 3:
        return f"{10**-log10p:.3g}"
    exponent = math.ceil(log10p)
    mantissa = f"{10 ** (exponent - log10p):.1f}"
    return f"1.0e-{exponent - 1}" if mantissa == "10.0" else f"{mantissa}e-{exponent}"


def shorten(text: str, width: int = 16) -> str:
    """Return a text cut to ``width`` characters, with its length when it was longer (long alleles)."""
    return text if len(text) <= width else f"{text[: width - 6]}…({len(text):,})"
