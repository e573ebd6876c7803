"""Who may drive the workers: credentials that are made for one run, and those of a scheduler that runs already.

A Dask scheduler runs what any client sends it, as the owner of the run. So whatever this program starts speaks TLS and
asks both sides for a certificate that was made for the run: a key in memory for local workers, one file that only its
owner can read for jobs. That file holds key and certificate; it is the authority, too, so nobody else's certificate
passes.
"""

from __future__ import annotations

import fcntl
import os
import shlex
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distributed.security import Security

from locomass.errors import LocomassError
from locomass.files.atomic import atomic_path

PREFIX = ".credentials-"
NEW_SECONDS = 60.0
SETTINGS = {
    "tls_ca_file": "DASK_DISTRIBUTED__COMM__TLS__CA_FILE",
    "tls_client_cert": "DASK_DISTRIBUTED__COMM__TLS__CLIENT__CERT",
    "tls_client_key": "DASK_DISTRIBUTED__COMM__TLS__CLIENT__KEY",
}
_ROLES = tuple(f"tls_{role}_{what}" for role in ("client", "scheduler", "worker") for what in ("cert", "key"))


def make_security() -> Security:
    """Return credentials that exist in the memory of this process and of the workers that it starts, only."""
    return Security.temporary()


class JobSecurity(Security):
    """Credentials in a file. Workers in jobs read them by `worker_environment`, not from their command lines.

    (dask-jobqueue would write the path into the job script without quotes.)
    """

    def get_tls_config_for_role(self, role: str) -> dict[str, Any]:
        """Return what a scheduler or client needs, and nothing for a worker's command line."""
        found: dict[str, Any] = {} if role == "worker" else super().get_tls_config_for_role(role)
        return found


@contextmanager
def credentials_file(folder: Path) -> Iterator[Path]:
    """Write new credentials into a private folder below a shared one; remove it at the end.

    Raises:
        LocomassError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        remove_abandoned(folder.resolve())
        private = Path(tempfile.mkdtemp(prefix=PREFIX, dir=folder.resolve()))  # mode 0700
        held = _hold(private)
    except OSError as error:
        raise LocomassError(f"cannot write the credentials of the workers to {folder}: {error.strerror}") from None
    try:
        path = private / "run.pem"
        made = make_security()
        write_private(path, f"{made.tls_client_key}{made.tls_ca_file}")
        yield path
    finally:
        shutil.rmtree(private, ignore_errors=True)
        if held is not None:
            os.close(held)


def remove_abandoned(folder: Path) -> None:
    """Remove credentials of runs that were killed: a run holds the lock of its folder as long as it lives."""
    for private in folder.glob(f"{PREFIX}*"):
        try:
            is_new = time.time() - private.stat().st_mtime < NEW_SECONDS  # made, and perhaps not locked yet
            held = None if is_new else _hold(private)
        except OSError:  # gone meanwhile, or somebody else's
            continue
        if held is not None:
            shutil.rmtree(private, ignore_errors=True)
            os.close(held)


def _hold(private: Path) -> int | None:
    """Return the descriptor of a folder that this process has locked; None where it cannot be locked."""
    held = os.open(private, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(held)
        return None
    return held


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, from its first byte on."""
    with open(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w", encoding="ascii") as handle:
        handle.write(text)


def share_credentials(path: Path, scheduler_file: Path) -> Path:
    """Copy credentials beside a scheduler file, where `--cluster FILE.json` looks for them; return the copy."""
    target = companion(scheduler_file)
    with atomic_path(target, mode=0o600) as temporary:
        temporary.write_text(path.read_text(encoding="ascii"), encoding="ascii")
    return target


def companion(scheduler_file: Path) -> Path:
    """Return where the credentials of a scheduler file are: ``scheduler.json`` -> ``scheduler.pem``."""
    return scheduler_file.with_suffix(".pem")


def file_security(path: Path, kind: type[Security] = Security) -> Security:
    """Return the credentials of a file, for every role."""
    return kind(require_encryption=True, tls_ca_file=str(path), **dict.fromkeys(_ROLES, str(path)))


def worker_environment(path: Path) -> list[str]:
    """Return the shell lines by which the worker of a job finds the credentials."""
    named = {
        "DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION": "True",
        "DASK_DISTRIBUTED__COMM__TLS__CA_FILE": str(path),
        "DASK_DISTRIBUTED__COMM__TLS__WORKER__CERT": str(path),
        "DASK_DISTRIBUTED__COMM__TLS__WORKER__KEY": str(path),
    }
    return [f"export {name}={shlex.quote(value)}" for name, value in named.items()]


def client_security(where: str) -> Security:
    """Return the credentials that Dask's settings name, for a scheduler that asks for some.

    Args:
        where: the scheduler, as the user gave it; for the message.

    Raises:
        LocomassError: a setting is missing, or names a file that cannot be read.
    """
    found = Security()
    for field, variable in SETTINGS.items():
        value = getattr(found, field)
        if value is None and field == "tls_client_key":
            continue  # the key may be in the file of the certificate
        if value is None:
            raise LocomassError(
                f"--cluster {where}: the scheduler asks for a certificate, and {variable} is not set; set "
                f"{', '.join(SETTINGS.values())} to the PEM files that its administrator gave you"
            )
        if "\n" not in value and not os.access(value, os.R_OK):
            raise LocomassError(f"--cluster {where}: {variable} names {value}, which cannot be read")
    return found
