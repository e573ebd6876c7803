"""A Dask scheduler that runs already: connect to it, and leave it as it was."""

from __future__ import annotations

import gc
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from locomass.errors import LocomassError
from locomass.executors.credentials import client_security, companion, file_security
from locomass.executors.workers import ClusterExecutor, dashboard_link, quieten, set_up_workers

log = logging.getLogger("locomass")

CONNECT_SECONDS = 20
WORKER_SECONDS = 60  # a running scheduler must have a worker by then
PROTOCOLS = ("tcp", "tls", "ws", "wss", "inproc", "ucx")
ADVICE = "start one with `dask scheduler`, or give a file of configs/cluster"


@contextmanager
def connect(where: str) -> Iterator[ClusterExecutor]:
    """Connect to a scheduler that runs already.

    Args:
        where: its address, or the file that it wrote.

    Raises:
        LocomassError: no scheduler answers, it asks for a certificate that is not there, or it has no worker.
    """
    address = _read_address(where) if where.endswith(".json") else where
    protocol = address.partition("://")[0]
    if protocol not in PROTOCOLS:
        raise LocomassError(f"--cluster {where}: unknown protocol '{protocol}://'; known: tls://, tcp://")
    security = None
    if protocol in ("tls", "wss"):
        pem = companion(Path(where))
        security = file_security(pem) if where.endswith(".json") and pem.exists() else client_security(where)
    elif protocol in ("tcp", "ws"):
        log.warning("%s: whoever reaches this address can run code as the owner of its workers; use tls://", address)
    quieten()
    with _open_client(address, security, where) as client:
        _await_worker(client, where)
        set_up_workers(client)
        try:
            yield ClusterExecutor(client, dashboard=dashboard_link(client))
        finally:
            if client.status == "running":
                # a scheduler that goes just now must not hide what went wrong before
                with suppress(OSError, TimeoutError, RuntimeError, AttributeError):
                    client.unregister_worker_plugin("locomass")


def _open_client(address: str, security: Any, where: str) -> Any:
    """Return a client of a scheduler.

    Raises:
        LocomassError: no scheduler answers.
    """
    from distributed import Client

    try:
        return Client(address, timeout=CONNECT_SECONDS, set_as_default=False, security=security)
    except Exception as error:  # every protocol has exceptions of its own, and all mean that there is no connection
        reason = str(error) or type(error).__name__
    gc.collect()  # a client that failed closes itself when it is collected, and must not do so within the next one
    raise LocomassError(f"--cluster {where}: no Dask scheduler answers ({reason}); {ADVICE}")


def _read_address(where: str) -> str:
    """Return the address in a scheduler file."""
    try:
        return str(json.loads(Path(where).read_text(encoding="utf-8"))["address"])
    except FileNotFoundError:
        raise LocomassError(f"--cluster {where}: no such scheduler file; {ADVICE}") from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise LocomassError(f"--cluster {where}: is not the file that a Dask scheduler wrote; {ADVICE}") from None


def _await_worker(client: Any, where: str) -> None:
    """Wait until the scheduler has a worker.

    Raises:
        LocomassError: it has none.
    """
    try:
        client.wait_for_workers(1, timeout=WORKER_SECONDS)
    except TimeoutError:
        raise LocomassError(
            f"--cluster {where}: the scheduler has no worker; start one with `dask worker {where}`"
        ) from None
