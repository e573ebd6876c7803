"""What libraries would take from the working directory, which may be a folder that a stranger sent."""

from __future__ import annotations

from pathlib import Path

from locomass.errors import InputError

NUMBA_SETTINGS = Path(".numba_config.yaml")  # may name a folder of compiled kernels, which are pickles


def refuse_foreign_settings() -> None:
    """Raise where Numba would take its settings from a file in the working directory, before Numba is loaded.

    Raises:
        InputError: names the file and the fix.
    """
    if NUMBA_SETTINGS.exists() or NUMBA_SETTINGS.is_symlink():
        raise InputError(
            f"{Path.cwd() / NUMBA_SETTINGS}: Numba would read it, and could run what it names; start from another "
            "folder, or remove the file (settings of your own: NUMBA_... in the environment)"
        )
