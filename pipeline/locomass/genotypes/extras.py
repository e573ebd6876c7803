"""Packages that only some formats need."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from locomass.errors import ConfigError


def import_extra(module: str, extra: str, what: str) -> Any:
    """Import a package of an extra.

    Raises:
        ConfigError: it is not installed; says how to install it.
    """
    try:
        return import_module(module)
    except ImportError:
        raise ConfigError(f"{what} need a package that is not installed: pip install 'locomass[{extra}]'") from None
