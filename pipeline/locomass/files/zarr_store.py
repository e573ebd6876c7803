"""Zarr stores that somebody else wrote: whatever is wrong with one is an error that names it.

A store names the codecs that decode it. Those of numcodecs that would run code (`pickle`) refuse to since 0.16.6, which
pyproject.toml asks for; their refusal, as every other fault, is a class of its own in each version of Zarr.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from locomass.errors import FormatError, InputError, LocomassError


@contextmanager
def name_zarr_faults(path: Path) -> Iterator[None]:
    """Turn what goes wrong while a store is opened or read into an error that names it.

    Raises:
        InputError: there is no such store.
        FormatError: it is no Zarr store, damaged, or cannot be decoded.
    """
    try:
        yield
    except (LocomassError, MemoryError):
        raise
    except FileNotFoundError as error:
        raise InputError(f"cannot read {path}: {error}") from None
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise FormatError(f"cannot be read as a Zarr store: {reason[:300]}", path=path) from None
