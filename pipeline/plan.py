"""The output directory of a run: its lock, its stages and what makes each of them stale.

``plan.json`` holds, per stage, the digest of everything the stage depends on: content of its input files, its part of
the configuration, the version of its code, and the digests of the stages before it. Same digest and outputs there:
nothing is computed. Anything else: the stage runs again, reusing the parts that an interrupted run left.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.errors import FormatError, InputError, LockError
from pipeline.io.parts import count_rows
from pipeline.provenance import digest_file, digest_value, write_json

#: Raised by one whenever a stage's numbers change for the same inputs.
STAGE_VERSIONS = {"genotypes": 1, "predict": 1, "denoise": 1, "score_statistics": 1, "meta": 2, "report": 1}
PLAN, LOCK = "plan.json", ".lock"


class RunDirectory:
    """An output directory, opened by one run at a time.

    Attributes:
        path: the directory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._plan: dict[str, Any] = {"stages": {}, "files": {}, "begun": {}}
        try:
            plan = json.loads((path / PLAN).read_text(encoding="utf-8"))
        except OSError:  # a new directory; one that cannot be used is refused where the lock is taken
            return
        except ValueError:
            raise FormatError("is not JSON; remove it and run again", path=path / PLAN) from None
        if not isinstance(plan, dict) or not all(isinstance(plan.get(k, {}), dict) for k in self._plan):
            raise FormatError("is not a plan of this program; remove it and run again", path=path / PLAN)
        self._plan |= plan

    def digest_inputs(self, paths: Sequence[Path]) -> dict[str, str]:
        """Return content digests by path; files whose size and time are unchanged are not read again."""
        return {str(p): digest_file(p, self._plan["files"]) for p in paths}

    def stage_digest(self, stage: str, inputs: Mapping[str, str], options: Any, *before: str) -> str:
        """Return the digest of everything that a stage depends on (input files by name and content, not by folder)."""
        content = sorted([Path(path).name, digest] for path, digest in inputs.items())
        return digest_value([stage, STAGE_VERSIONS[stage], content, options, list(before)])

    def is_done(self, stage: str, digest: str) -> bool:
        """Return whether the stage was finished with this digest and its outputs are still what it left."""
        entry = self._plan["stages"].get(stage)
        if entry is None or entry["digest"] != digest:
            return False
        return all(self._stamp(self.path / name) == stamp for name, stamp in entry["outputs"].items())

    def begin(self, stage: str, folder: Path, kinds: Sequence[str], batches: int) -> None:
        """Record that a stage has begun: a batch leaves one part of each kind, ``KIND-NUMBER.parquet``, in a folder."""
        where = str(folder.relative_to(self.path.absolute()))
        self._plan["begun"][stage] = {"folder": where, "kinds": list(kinds), "batches": batches}
        self.save()

    def missing_batches(self, stage: str) -> list[int]:
        """Return the batches of a begun stage whose parts are not there, or not whole."""
        begun = self._plan["begun"][stage]
        folder = self.path / begun["folder"]

        def is_there(number: int) -> bool:
            return all(count_rows(folder / f"{kind}-{number:05d}.parquet") >= 0 for kind in begun["kinds"])

        return [number for number in range(begun["batches"]) if not is_there(number)]

    def finish(self, stage: str, digest: str, outputs: Sequence[str]) -> None:
        """Record that a stage is done, with the size of each output."""
        self._plan["begun"].pop(stage, None)
        self._plan["stages"][stage] = {
            "digest": digest,
            "outputs": {name: self._stamp(self.path / name) for name in outputs},
        }
        self.save()

    def save(self) -> None:
        """Write plan.json."""
        write_json(self.path / PLAN, self._plan)

    def parts_folder(self, stage: str, digest: str) -> Path:
        """Return the folder for the parts of a stage, absolute for the workers; parts of other digests are removed."""
        folder = self.path.absolute() / "parts" / stage
        if folder.exists():
            for other in folder.iterdir():
                if other.name != digest[:16]:
                    shutil.rmtree(other)
        (folder / digest[:16]).mkdir(parents=True, exist_ok=True)
        return folder / digest[:16]

    @property
    def begun(self) -> dict[str, Any]:
        """The stages that have begun and not ended: folder of the parts, their kinds, number of batches."""
        return dict(self._plan["begun"])

    @property
    def stages(self) -> dict[str, Any]:
        """The finished stages."""
        return dict(self._plan["stages"])

    @property
    def files(self) -> dict[str, Any]:
        """Digest and stamp of every input file seen, by path."""
        return dict(self._plan["files"])

    @staticmethod
    def _stamp(path: Path) -> list[Any] | None:
        """Return sizes of a file, or of the files below a directory; None when it is gone."""
        if path.is_file():
            return [path.stat().st_size]
        if path.is_dir():
            return sorted([str(p.relative_to(path)), p.stat().st_size] for p in path.rglob("*") if p.is_file())
        return None

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the directory; a lock whose process is gone from this host is taken over.

        Raises:
            LockError: another run holds it.
        """
        lock = self.path / LOCK
        mine = {"host": socket.gethostname(), "pid": os.getpid()}
        for _ in range(2):
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                handle = os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
                break
            except FileExistsError:
                if not self.path.is_dir():
                    raise InputError(f"cannot write {self.path}: it is a file; choose another --out") from None
                holder = _read_lock(lock)
                alive = holder.get("host") != mine["host"] or _is_alive(int(holder.get("pid", 0)))
                if alive:
                    raise LockError(
                        f"{self.path} is in use by process {holder.get('pid')} on {holder.get('host')}; wait for it, "
                        f"choose another --out, or remove {lock} if that process is gone"
                    ) from None
                if _read_lock(lock) == holder:  # nobody else took it over meanwhile
                    lock.unlink(missing_ok=True)
            except OSError as error:
                raise InputError(f"cannot write {self.path}: {error.strerror}; choose another --out") from None
        else:
            raise LockError(f"{self.path} is being opened by another run; try again")
        with os.fdopen(handle, "w") as file:
            json.dump(mine, file)
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def describe_status(path: Path) -> list[str]:
    """Return what an output directory holds: who has the lock, stages done, batches present and missing.

    Raises:
        InputError: it is not an output directory.
    """
    directory = RunDirectory(path)
    if not (path / PLAN).exists() and not (path / LOCK).exists():
        raise InputError(f"{path} holds no {PLAN}: it is not the output directory of a run")
    lines = [_describe_lock(path / LOCK)]
    for stage in STAGE_VERSIONS:
        name = stage.replace("_", " ")
        if stage in directory.begun:
            total, missing = directory.begun[stage]["batches"], directory.missing_batches(stage)
            lines.append(f"{name}: begun, {total - len(missing)} of {total} batches are there{_list(missing)}")
        elif stage in directory.stages:
            whole = directory.is_done(stage, directory.stages[stage]["digest"])
            lines.append(f"{name}: {'done' if whole else 'outputs were changed or removed; it will run again'}")
        elif stage != "genotypes":
            lines.append(f"{name}: not begun")
    return lines


def _list(numbers: Sequence[int]) -> str:
    """Return ``; missing: 3, 7, ...``."""
    shown = ", ".join(map(str, numbers[:20])) + (", ..." if len(numbers) > 20 else "")
    return f"; missing: {shown}" if numbers else ""


def _describe_lock(lock: Path) -> str:
    """Return who holds a directory."""
    holder = _read_lock(lock)
    if not lock.exists():
        return "no run is going on"
    who = f"process {holder.get('pid')} on {holder.get('host')}"
    if holder.get("host") == socket.gethostname() and not _is_alive(int(holder.get("pid", 0))):
        return f"{who} was stopped; the next run takes over"
    return f"in use by {who}"


def _read_lock(path: Path) -> dict[str, Any]:
    """Return the content of a lock file; empty when it vanished or is half-written."""
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError):
        return {}


def _is_alive(pid: int) -> bool:
    """Return whether a process of this host exists."""
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
