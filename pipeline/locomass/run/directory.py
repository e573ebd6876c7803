"""The output directory of a run: its lock, its stages and what makes each of them stale.

``plan.json`` holds, per stage, the digest of everything the stage depends on: content of its input files, its part of
the configuration, the version of its code, and the digests of the stages before it. Same digest, and outputs as the
stage left them: nothing is computed. Anything else: the stage runs again, reusing the parts of an interrupted run.
Outputs are known by their content, which is read only where the stamp of a file has changed: in a copy of the directory
once, in place never. Inputs must be, when a stage ends, the files that were digested (see `locomass.run.reading`).
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from locomass import __version__
from locomass.errors import FormatError, InputError
from locomass.files.atomic import remove_leftovers
from locomass.files.parts import is_sealed
from locomass.run.lock import LOCK, describe_holder, hold_lock, lock_state
from locomass.run.provenance import digest_file, digest_value, stamp_file, write_json
from locomass.run.reading import ReadInputs

log = logging.getLogger("locomass")

#: Raised by one whenever a stage's numbers change for the same inputs.
STAGE_VERSIONS = {
    "genotypes": 2,
    "predict": 2,
    "denoise": 2,
    "score_statistics": 2,
    "permutation": 2,
    "meta": 5,
    "report": 4,
}
PLAN = "plan.json"


class RunDirectory:
    """An output directory, opened by one run at a time.

    Attributes:
        path: the directory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._plan = self._read()
        self._inputs = ReadInputs()

    def _read(self) -> dict[str, Any]:
        """Return the content of plan.json, nothing done where there is none."""
        empty: dict[str, Any] = {"stages": {}, "files": {}, "written": {}, "begun": {}, "run": {}, "reading": {}}
        try:
            plan = json.loads((self.path / PLAN).read_text(encoding="utf-8"))
        except OSError:  # a new directory; one that cannot be used is refused where the lock is taken
            return empty
        except ValueError:
            raise FormatError("is not JSON; remove it and run again", path=self.path / PLAN) from None
        if not isinstance(plan, dict) or not all(isinstance(plan.get(k, {}), dict) for k in empty):
            raise FormatError("is not a plan of this program; remove it and run again", path=self.path / PLAN)
        return empty | plan

    def digest_input(self, path: Path) -> str:
        """Return the content digest of a file, or of a folder; one whose stamp is unchanged is not read again."""
        self.note_inputs([path])
        return digest_file(path, self._plan["files"])

    def note_inputs(self, paths: Sequence[Path]) -> None:
        """Note the files that `verify_inputs` compares; what is in this directory is no input of its run."""
        for path in paths:
            if not path.resolve().is_relative_to(self.path.resolve()):
                self._inputs.note(path)

    def digest_inputs(self, paths: Sequence[Path]) -> dict[str, str]:
        """Return content digests by path (see `digest_input`)."""
        return {str(p): self.digest_input(p) for p in paths}

    def stage_digest(self, stage: str, inputs: Mapping[str, str], options: Any, *before: str) -> str:
        """Return the digest of everything that a stage depends on (input files by name and content, not by folder)."""
        content = sorted([Path(path).name, digest] for path, digest in inputs.items())
        return digest_value([stage, STAGE_VERSIONS[stage], content, options, list(before)])

    def is_done(self, stage: str, digest: str) -> bool:
        """Return whether the stage was finished with this digest and its outputs are still what it left."""
        entry = self._plan["stages"].get(stage)
        if entry is None or entry["digest"] != digest:
            return False
        return all(self._digest_output(name) == content for name, content in entry["outputs"].items())

    def forget(self, stage: str) -> None:
        """Record, before outputs are replaced, that a stage and those after it are no longer done.

        Otherwise a run that is killed between a new output and its record would leave, under the old digest, files that
        may have the old sizes.
        """
        order = list(STAGE_VERSIONS)
        for later in order[order.index(stage) :]:
            self._plan["stages"].pop(later, None)
        self._plan["run"] = {}
        self.save()

    def drop(self, stage: str) -> None:
        """Record that the run has no such stage any more; what is known of the others stays."""
        if self._plan["stages"].pop(stage, None) is not None:
            self.save()

    def begin(self, stage: str, folder: Path, batches: int) -> None:
        """Record that a stage has begun, whose batches leave their parts in a folder."""
        self.forget(stage)
        where = str(folder.relative_to(self.path.absolute()))
        self._plan["begun"][stage] = {"folder": where, "batches": batches}
        self.save()

    def missing_batches(self, stage: str) -> list[int]:
        """Return the batches of a begun stage whose parts are not there, or not whole."""
        begun = self._plan["begun"][stage]
        folder = self.path / begun["folder"]
        return [number for number in range(begun["batches"]) if not is_sealed(folder, number)]

    def start_reading(self) -> None:
        """Note, for the case that this run is killed, which inputs it reads from now on.

        Where the run before was killed, and one of its inputs is no longer the file that it was, nobody knows what its
        parts were computed from: they go.
        """
        changed = ReadInputs(self._plan["reading"]).changed()
        if changed:
            log.info("%s was changed since a run that was stopped began: its parts are computed again", changed[0])
            self._drop_parts()
        self._plan["reading"] = self._inputs.noted
        self.save()

    def verify_inputs(self) -> None:
        """Raise where an input is no longer what was digested; what was computed meanwhile goes.

        Raises:
            InputError: names the files.
        """
        changed = self._inputs.changed()
        if not changed:
            return
        self._drop_parts()
        self._plan["reading"], self._plan["run"] = {}, {}
        self.save()
        names = ", ".join(changed[:5]) + (", ..." if len(changed) > 5 else "")
        raise InputError(
            f"{names}: changed while the run was going on, so that nobody knows which content was read; what was "
            "computed from it is dropped; run again when the file is complete"
        )

    def stop_reading(self) -> None:
        """Record that the run has read its inputs.

        Raises:
            InputError: an input was changed since it was digested.
        """
        self.verify_inputs()
        self._plan["reading"] = {}
        self.save()

    def _drop_parts(self) -> None:
        """Remove the parts of all stages, and what is kept between runs."""
        shutil.rmtree(self.path / "parts", ignore_errors=True)
        self._plan["begun"] = {}

    def finish(self, stage: str, digest: str, outputs: Sequence[str]) -> None:
        """Record that a stage is done, with the content of each output.

        Raises:
            InputError: an input was changed since it was digested.
        """
        self.verify_inputs()
        self._plan["begun"].pop(stage, None)
        self._plan["stages"][stage] = {
            "digest": digest,
            "outputs": {name: self._digest_output(name) for name in outputs},
        }
        self.save()

    def run_digest(self, options: Any, files: Sequence[Path]) -> str:
        """Return the digest of a whole run: its options, the versions of all stages, the content of every input.

        An input that is not there counts as such: no run can end well without it, and its reader says what is wrong.
        """
        absent = [str(path) for path in files if not path.exists()]
        content = self.digest_inputs([path for path in files if path.exists()])
        return digest_value([__version__, STAGE_VERSIONS, options, absent, sorted(content.items())])

    def find_run(self, digest: str, last: str) -> int | None:
        """Return how many genes failed in the run with this digest, None unless it is done and its outputs whole.

        Args:
            digest: what `run_digest` returned.
            last: the stage that must be done.
        """
        run = self._plan["run"]
        if run.get("digest") != digest or last not in self._plan["stages"] or self._plan["begun"]:
            return None
        known = dict(self._plan["written"])
        whole = all(self.is_done(stage, entry["digest"]) for stage, entry in self._plan["stages"].items())
        if self._plan["written"] != known:  # a copy of the directory: next time its files need not be read
            self.save()
        return int(run["failed"]) if whole else None

    def finish_run(self, digest: str, failed: int) -> None:
        """Record that a run is done, so that the next one with the same digest has nothing to open.

        Raises:
            InputError: an input was changed since it was digested.
        """
        self.stop_reading()
        self._plan["run"] = {"digest": digest, "failed": failed}
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

    def _digest_output(self, name: str) -> str | None:
        """Return the content digest of an output, a file or a folder; None when it is gone."""
        path = self.path / name
        if path.is_dir():
            below = sorted(str(p.relative_to(self.path)) for p in path.rglob("*") if p.is_file())
            return digest_value({file: self._digest_written(file) for file in below})
        return self._digest_written(name) if path.is_file() else None

    def _digest_written(self, name: str) -> str:
        """Return the content digest of a file, which is read unless its stamp is known.

        The stamp of a file that was written just now is trusted, other than that of an input: nobody else writes here.
        """
        stamp, written = stamp_file(self.path / name), self._plan["written"]
        if name not in written or written[name]["stamp"] != stamp:
            written[name] = {"stamp": stamp, "digest": digest_file(self.path / name)}
        return str(written[name]["digest"])

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the directory, read its plan, and remove half-written files of runs that were killed.

        Raises:
            LockError: another run holds it.
        """
        with hold_lock(self.path):
            remove_leftovers(self.path)
            self._plan = self._read()  # another run may have ended since the directory was opened
            yield


def read_status(path: Path) -> dict[str, Any]:
    """Return what an output directory holds: who has the lock, stages done, batches present and missing.

    Returns:
        ``lock``: state (``free``, ``stopped``, ``held``), pid and host; ``stages``: by name the state (``done``,
        ``changed``, ``begun``, ``not begun``), and of a stage that was begun the ``batches`` and the ``missing``.

    Raises:
        InputError: it is not an output directory.
    """
    directory = RunDirectory(path)
    if not (path / PLAN).exists() and not (path / LOCK).exists():
        raise InputError(f"{path} holds no {PLAN}: it is not the output directory of a run")
    stages: dict[str, dict[str, Any]] = {}
    for stage in STAGE_VERSIONS:
        if stage in directory.begun:
            missing = directory.missing_batches(stage)
            stages[stage] = {"state": "begun", "batches": directory.begun[stage]["batches"], "missing": list(missing)}
        elif stage in directory.stages:
            whole = directory.is_done(stage, directory.stages[stage]["digest"])
            stages[stage] = {"state": "done" if whole else "changed"}
        elif stage not in ("genotypes", "permutation"):  # no run must have these
            stages[stage] = {"state": "not begun"}
    return {"lock": lock_state(path), "stages": stages}


def describe_status(path: Path) -> list[str]:
    """Return `read_status` as lines for people."""
    status = read_status(path)
    lock = status["lock"]
    who = describe_holder(lock)
    lines = {"free": "no run is going on", "stopped": f"{who} was stopped; the next run takes over"}
    words = {"changed": "outputs were changed or removed; it will run again"}
    return [lines.get(lock["state"], f"in use by {who}")] + [
        f"{name.replace('_', ' ')}: "
        + (
            f"begun, {s['batches'] - len(s['missing'])} of {s['batches']} batches are there{_list(s['missing'])}"
            if s["state"] == "begun"
            else words.get(s["state"], s["state"])
        )
        for name, s in status["stages"].items()
    ]


def _list(numbers: Sequence[int]) -> str:
    """Return ``; missing: 3, 7, ...``."""
    shown = ", ".join(map(str, numbers[:20])) + (", ..." if len(numbers) > 20 else "")
    return f"; missing: {shown}" if numbers else ""
