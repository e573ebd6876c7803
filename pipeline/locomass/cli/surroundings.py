"""What the program refuses to start in: a stranger's folder that would run code, too small an address space."""

from __future__ import annotations

import os
import resource
from pathlib import Path

from locomass.errors import InputError

ADDRESS_SPACE = 3e9  # bytes that libraries and the smallest run map (2.6e9 on two cores), most of it never touched
ADDRESS_SPACE_OF_CORE = 80e6  # a core's stacks and buffers of the linear algebra libraries
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


def refuse_small_address_space() -> None:
    """Raise where `ulimit -v` leaves less than the libraries map: they would end the process, or wait for ever.

    Raises:
        InputError: names the limit and the fix.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    needed = ADDRESS_SPACE + ADDRESS_SPACE_OF_CORE * (os.cpu_count() or 1)
    if limit != resource.RLIM_INFINITY and limit < needed:
        raise InputError(
            f"not enough memory: the address space is limited to {limit / 1e9:.2g} GB (`ulimit -v`), and at least "
            f"{needed / 1e9:.2g} GB are mapped; raise it with `ulimit -v {needed / 1024:.0f}`, or unlimited"
        )
