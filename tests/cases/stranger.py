"""What another user of the machine tries on the workers of a run; loaded as itself, in a process of its own."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

NOBODY = 65534
SECONDS = 3


def attack(addresses: dict[str, str], processes: list[int], folders: list[str], trace: str) -> None:
    """Become another user; end with 0 where nothing works, 1 where a secret was read or the run wrote a file."""
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    found = [*read_secrets(processes), *find_credentials(folders)]
    found += run_code(addresses["scheduler"], trace)
    os._exit(1 if found or Path(trace).exists() else 0)


def read_secrets(processes: list[int]) -> list[str]:
    """Return what can be read of the memory, environment and open files of the run's processes."""
    found = []
    for pid in processes:
        for name in ("environ", "mem", "fd"):
            with suppress(OSError):
                path = Path(f"/proc/{pid}/{name}")
                found += [str(path)] if (list(path.iterdir()) if name == "fd" else path.open("rb")) else []
    return found


def find_credentials(folders: list[str]) -> list[str]:
    """Return files with a key that this user can read."""
    found = []
    for folder in folders:
        for path in Path(folder).rglob("*"):
            with suppress(OSError):
                if path.is_file() and b"PRIVATE KEY" in path.read_bytes():
                    found.append(str(path))
    return found


def run_code(address: str, trace: str) -> list[str]:
    """Return the ways in which the scheduler took work: without a certificate, and with one that is not the run's."""
    from distributed import Client
    from distributed.security import Security

    found = []
    for where, security in ((address.replace("tls", "tcp"), None), (address, None), (address, Security.temporary())):
        with suppress(OSError, TimeoutError, ValueError, TypeError, RuntimeError):
            client = Client(where, timeout=SECONDS, security=security, set_as_default=False)
            client.submit(os.mknod, trace).result(timeout=SECONDS)
            found.append(where)
    return found
