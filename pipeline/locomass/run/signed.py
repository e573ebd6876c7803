"""Files that only this installation may have written: signed with a key that nobody else has.

Batches that wait to be run are pickled, and a pickle runs code when it is read. An output directory may come from
anybody; so what is unpickled was signed, for the directory it lies in, with a key of its owner:
``~/.local/state/locomass/key``, which the first `locomass plan init` makes. Machines that do not share this home are
given the file by LOCOMASS_KEY.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from pathlib import Path

from locomass.errors import InputError
from locomass.files.atomic import atomic_path

KEY_VARIABLE = "LOCOMASS_KEY"
KEY_BYTES = 32
SIGNATURE_BYTES = hashlib.sha256().digest_size


def write_signed(path: Path, content: bytes) -> None:
    """Write a file, atomically, with the signature of its content and its place before it.

    Raises:
        InputError: it cannot be written, or there is no key and none can be made.
    """
    signature = _sign(path, content, _read_key(make=True))
    with atomic_path(path, mode=0o600) as temporary:
        temporary.write_bytes(signature + content)


def read_signed(path: Path) -> bytes:
    """Return the content of a file after its signature has passed.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: it was written by somebody else, for another folder, or changed; or there is no key.
    """
    found = path.read_bytes()
    signature, content = found[:SIGNATURE_BYTES], found[SIGNATURE_BYTES:]
    if not hmac.compare_digest(signature, _sign(path, content, _read_key(make=False))):
        raise InputError(
            f"{path} is damaged, or was not written here by this installation: its signature is wrong, and it is not "
            f"opened; run init again (on a machine with another home, set {KEY_VARIABLE} to the key of that run)"
        )
    return content


def _sign(path: Path, content: bytes, key: bytes) -> bytes:
    """Return the signature of a content in a place: a file that is moved or copied is no longer signed."""
    place = os.fsencode(path.parent.resolve() / path.name)
    return hmac.new(key, hashlib.sha256(place).digest() + content, hashlib.sha256).digest()


def key_path() -> Path:
    """Return the file of the key."""
    given = os.environ.get(KEY_VARIABLE)
    if given:
        return Path(given)
    state = os.environ.get("XDG_STATE_HOME")
    return (Path(state) if state else Path.home() / ".local" / "state") / "locomass" / "key"


def _read_key(make: bool) -> bytes:
    """Return the key, made where there is none and ``make`` is set.

    Raises:
        InputError: no key; or others can read it, so that it proves nothing.
    """
    path = key_path()
    try:
        if make and not path.exists():
            _make_key(path)
        key, status = path.read_bytes(), path.stat()
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"cannot read the key {path} ({getattr(error, 'strerror', None) or error}), with which batches are signed; "
            f"set {KEY_VARIABLE} to the key of the machine where `locomass plan init` ran"
        ) from None
    if status.st_mode & 0o077 or status.st_uid != os.geteuid():
        raise InputError(f"the key {path} can be read by others, and proves nothing; remove it, and run init again")
    if len(key) != KEY_BYTES:
        raise InputError(f"{path} is not a key of this program ({len(key)} bytes); remove it, and run init again")
    return key


def _make_key(path: Path) -> None:
    """Make a key, which only its owner can read from its first byte on; one that another process made stays."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(f".key.{secrets.token_hex(8)}")
    with open(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as handle:
        handle.write(secrets.token_bytes(KEY_BYTES))
    try:
        os.link(temporary, path)
    except FileExistsError:
        pass
    finally:
        temporary.unlink()
